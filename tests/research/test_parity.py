"""Every cent between a run and its backtest: known things are done to a run, several at once, and each cause must get the money that it cost, to the last digit."""
from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal as D
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars, stamp
from gekko.desk.shown import Answered
from gekko.desk.spec import RunSpec, make_spec
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.money import from_float
from gekko.domain.target import Targets
from gekko.ledger.runs import RunRecord
from gekko.portfolio.rebalance import to_intents
from gekko.research.parity import CAUSES, Deal, Key, Rung, Start, attribute, in_cents, score_of, step, worth
from gekko.research.parity_compare import Decided, Ground, climbed, completed, plays_of, rungs_of
from gekko.research.parity_lived import Lived, Seen
from gekko.research.parity_rerun import Said
from gekko.research.parity_rungs import Want
from gekko.venue.fillmodel import FillModel, fee, slipped

MINUTE = 60_000_000_000
NAMES = ('AAA', 'BBB', 'CCC')


# A market that trades by hand: the same rules as the desk's backtest, written down a second time and as short as they can be

@dataclass
class World:
    """What is so when a run is traded: `base` and `marks` are prices of the run's own moments, `odd` what the venue makes of a fill (ticks more, fee times, share of the size)."""
    bars: Bars
    wants: Mapping[int, Want]
    spec: RunSpec
    instruments: Mapping[str, Instrument]
    start: Start
    barred: frozenset[Key] = frozenset()
    marks: Mapping[int, Mapping[str, D]] = field(default_factory=dict)
    base: Mapping[Key, D] = field(default_factory=dict)
    odd: Mapping[Key, tuple[int, D, D]] = field(default_factory=dict)


@dataclass
class Traded:
    deals: list[Deal]
    asked: dict[Key, D]
    equity: D
    marks: dict[str, D]


def trade_by_hand(w: World) -> Traded:
    cash, held, waiting, deals, asked, marks = w.start.cash, dict(w.start.held), list[tuple[int, Any]](), list[Deal](), dict[Key, D](), dict[str, D]()
    model = FillModel(fee_bps=w.spec.fee_bps, slippage_bps=w.spec.slippage_bps)

    def price(field_: str, i: int, s: str) -> D | None:
        x = getattr(w.bars, field_)[i, w.bars.symbols.index(s)]
        return None if np.isnan(x) else from_float(float(x), w.instruments[s].tick)

    for i, t in enumerate(w.bars.end.tolist()):
        for t0, o in waiting[:]:
            inst, key = w.instruments[o.symbol], (t0, o.symbol)
            at = w.base.get(key, price('open', i, o.symbol))
            if at is None: continue
            waiting.remove((t0, o))
            ticks, dear, share = w.odd.get(key, (0, D(1), D(1)))
            paid = slipped(at, o.side, model.slippage_bps, inst) + ticks * inst.tick * o.side.sign
            qty = inst.size(o.qty * share)
            if not qty: continue
            cost = (fee(model, inst, qty, paid) * dear).quantize(D('0.01'))
            cash -= qty * o.side.sign * paid + cost
            held[o.symbol] = held.get(o.symbol, D(0)) + qty * o.side.sign
            deals.append(Deal(t0, o.symbol, qty * o.side.sign, paid, cost))
        marks |= {s: p for s in w.bars.symbols if (p := price('close', i, s)) is not None}
        if t not in w.wants: continue
        now = marks | dict(w.marks.get(t, {}))
        equity = cash + sum((q * now[s] for s, q in held.items()), D(0))
        left = Want(*({s: x for s, x in part.items() if (t, s) not in w.barred and s in now} for part in w.wants[t]))  # type: ignore[arg-type]
        working = {s: held.get(s, D(0)) + sum((o.qty * o.side.sign for _, o in waiting if o.symbol == s), D(0)) for s in w.bars.symbols}
        for o in to_intents(Targets(t, dict(left.weights), dict(left.units)), held=working, marks=now, equity=equity, instruments=w.instruments, band=w.spec.band, positions=dict(held)):
            waiting.append((t, o))
            asked[t, o.symbol] = asked.get((t, o.symbol), D(0)) + o.qty * o.side.sign
    return Traded(deals, asked, cash + sum((q * marks[s] for s, q in held.items()), D(0)), marks)


# What can be done to a run, and what it must then be told to have cost

KINDS = ('code change', 'revised data', 'late bar', 'missed or extra', 'latency', 'fill model')


def run_of(pick: Any, whole: Any, does: frozenset[str]) -> tuple[Ground, Lived, Decided, dict[str, D]]:
    """A run to which the things in `does` were done, and the money of each: the equity by hand with it less the equity without."""
    n, rows, seed = whole(1, 3), whole(8, 20), whole(0, 10**6)
    rng = np.random.default_rng(seed)
    names, tick = NAMES[:n], pick(['0.01', '0.5', '0.25'])
    instruments = {s: Instrument(s, s, 'USD', tick=D(tick), lot=D(pick(['1', '0.001', '10']))) for s in names}
    spec = replace(make_spec(names, bar='1m', fee_bps=pick(['0', '1', '7.5']), slippage_bps=pick(['0', '1', '20']), band=pick(['0', '0.01']), limits={'max_gross': 100, 'max_orders_per_minute': 10_000}), symbols=names)

    def snap(x: Any) -> Any: return np.round(x / float(tick)) * float(tick)
    close = snap(100 * np.exp(np.cumsum(rng.normal(0, 0.004, (rows, n)), axis=0)))
    opens = snap(close * np.exp(rng.normal(0, 0.002, (rows, n))))
    end = MINUTE * np.arange(1, rows + 1)

    def bars_of(o: Any, c: Any) -> Bars: return stamp(Bars(names, end - MINUTE, end, o, np.maximum(o, c), np.minimum(o, c), c, np.full((rows, n), 1e9)))
    then = now = bars_of(opens, close)
    if 'revised data' in does:
        o, c = opens.copy(), close.copy()
        for i in rng.choice(rows, 3): o[i] = snap(o[i] * 1.01)
        c[rng.integers(rows)] += 4 * float(tick)
        now = bars_of(o, c)

    def wanting(by_weight: bool) -> dict[int, Want]:
        out = {}
        for t in end.tolist()[:-1]:
            if rng.random() < 0.6:
                chosen = [s for s in names if rng.random() < 0.8]
                out[t] = Want({s: float(np.round(rng.normal(0, 0.2), 3)) for s in chosen}, {}) if by_weight else Want({}, {s: D(int(rng.integers(-40, 40))) * 10 for s in chosen})
        return out
    by_weight = pick([True, False])
    own = wanting(by_weight)

    def changed(w: dict[int, Want], k: int) -> dict[int, Want]:
        other, out = wanting(by_weight), dict(w)
        for t in rng.choice(end[:-1], k).tolist():
            out.pop(t, None)
            if t in other: out[t] = other[t]
        return out
    shown = changed(own, 2) if 'late bar' in does else own
    today = changed(own, 3) if 'code change' in does else own
    start = Start(D('100000'), 'USD', {names[0]: D(200)} if pick([True, False]) else {})
    taken, barred = dict(shown), frozenset[Key]()
    if 'missed or extra' in does:
        for t in rng.choice(list(taken), min(2, len(taken)), replace=False).tolist() if taken else []:
            if rng.random() < 0.5: del taken[t]
            else: barred |= {(t, names[0])}
    a = World(now, today, spec, instruments, start)
    worlds = [a, replace(a, wants=own), replace(a, wants=own, bars=then), replace(a, wants=shown, bars=then), replace(a, wants=taken, bars=then, barred=barred)]
    marks, base = dict[int, dict[str, D]](), dict[Key, D]()
    if 'latency' in does:
        for i, t in enumerate(end.tolist()):
            if t in taken and rng.random() < 0.7: marks[t] = {s: from_float(float(close[i, j]) * 1.003, D(tick)) for j, s in enumerate(names)}
    worlds.append(replace(worlds[-1], marks=marks))
    asked = trade_by_hand(worlds[-1]).asked
    if 'latency' in does: base = {k: from_float(float(100 + rng.normal(0, 1)), D(tick)) for k in asked if rng.random() < 0.7}
    worlds[-1] = replace(worlds[-1], base=base)
    odd = {k: (int(rng.integers(-3, 5)), D(int(rng.integers(0, 4))), D(pick(['1', '0.5', '0', '0.9']))) for k in trade_by_hand(worlds[-1]).asked if rng.random() < 0.4} if 'fill model' in does else {}
    worlds.append(replace(worlds[-1], odd=odd))
    came = [trade_by_hand(w) for w in worlds]
    money = {cause: b.equity - x.equity for cause, x, b in zip(KINDS, came, came[1:])}
    last = came[-1]
    answers = {t: Answered(t, 0, t, dict(w.weights), dict(w.units), '', {s: from_float(float(close[i, j]), D(tick)) for j, s in enumerate(names)} | marks.get(t, {}))
               for i, t in enumerate(end.tolist()) if (w := taken.get(t)) is not None}
    lived = Lived(RunRecord('r', 'l', 'n.ipynb', 'live', 'a', 'done'), spec, instruments, start, 0, int(end[-1]), tuple(last.deals), frozenset(), last.asked, barred, last.marks, last.equity, D(0), (), 'finished',
                  Seen(answers, then, {}, int(end[0])), base)
    said = {k: Said(x, spec) for k, x in (('today', today), ('own', own), ('shown', shown))}
    return Ground(now, then, then, int(end[0]), int(end[-1])), lived, Decided(said['today'], said['own'], said['own'], said['shown'], {}), money


def held_to(g: Ground, lived: Lived, d: Decided, money: Mapping[str, D], live_marks: bool) -> None:
    """Each cause has its money. Where bars were corrected the last price of the backtest's own bars is another than the run's; live everything is worth what the run's own last prices say."""
    climb = climbed(plays_of(g, lived, d))
    rungs = rungs_of(climb, lived)
    found = attribute(rungs, lived.start, lived.equity, lived.account)
    told = found.by_cause
    assert told['unexplained'] == 0 and told['account'] == 0
    assert sum(told.values()) == found.difference == lived.equity - found.backtest
    assert sum(found.cents.values()) == found.difference.quantize(D('0.01')) and abs(found.cents['rounding']) <= D('0.04')
    by_key = sum((p.money for p in found.pairs), D(0)) + sum((p.money for p in found.parts if not p.symbol), D(0))
    assert by_key == found.difference
    if not live_marks: assert {k: v for k, v in told.items() if v} == {k: v for k, v in money.items() if v}
    assert (found.score == 1) == all(p.run == p.backtest and not p.apart for p in found.pairs)


def valued_alike(g: Ground, lived: Lived) -> bool: return bool((g.now.close[-1] == g.then.close[-1]).all())


def test_each_cause_gets_its_cents() -> None:
    """One thing at a time, many runs of each: all of the difference is its, and nothing is another's."""
    cents = dict.fromkeys(KINDS, 0)
    for seed in range(6):
        for kind in KINDS:
            r = random.Random(f'{kind}{seed}')
            g, lived, d, money = run_of(r.choice, r.randint, frozenset({kind}))
            assert set(k for k, v in money.items() if v) <= {kind}
            cents[kind] += bool(money[kind])
            held_to(g, lived, d, money, not valued_alike(g, lived))
    assert all(n >= 3 for n in cents.values()), cents


def test_several_at_once() -> None:
    """All things together, and every part of them."""
    told = 0
    for seed in range(25):
        r = random.Random(seed)
        does = frozenset(k for k in KINDS if r.random() < 0.6)
        g, lived, d, money = run_of(r.choice, r.randint, does)
        held_to(g, lived, d, money, not valued_alike(g, lived))
        told += sum(map(bool, money.values()))
    assert told > 50


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_whatever_hypothesis_does_to_a_run(data: st.DataObject) -> None:
    does = frozenset(k for k in KINDS if data.draw(st.booleans()))
    g, lived, d, money = run_of(lambda xs: data.draw(st.sampled_from(xs)), lambda lo, hi: data.draw(st.integers(lo, hi)), does)
    held_to(g, lived, d, money, not valued_alike(g, lived))


def test_a_run_to_which_nothing_was_done_is_the_same() -> None:
    for seed in range(10):
        r = random.Random(seed)
        g, lived, d, _ = run_of(r.choice, r.randint, frozenset())
        found = attribute(rungs_of(climbed(plays_of(g, lived, d)), lived), lived.start, lived.equity)
        assert found.score == 1 and found.difference == 0 and not any(found.by_cause.values()) and not found.worst()


def test_what_nothing_explains_is_said() -> None:
    """An order of another size than its own decision asks for, and a cent of the books that no fill made."""
    r = random.Random(3)
    g, lived, d, _ = run_of(r.choice, r.randint, frozenset())
    rungs = rungs_of(climbed(plays_of(g, lived, d)), lived)
    assert attribute(rungs, lived.start, lived.equity + D('0.01')).by_cause['unexplained'] == D('0.01')
    first = lived.deals[0]
    twice = (replace(first, qty=2 * first.qty), *lived.deals[1:])
    other = replace(rungs[-1], deals=twice, asked={**lived.asked, (first.decision, first.symbol): 2 * lived.asked[first.decision, first.symbol]})
    found = attribute([*rungs[:-1], other], lived.start, worth(other, lived.start))
    assert found.by_cause['unexplained'] == first.qty * (lived.marks[first.symbol] - first.price) != 0 and found.score < 1


# The pure part, on ladders of chance

def ladder(r: random.Random) -> tuple[list[Rung], Start]:
    def rung(cause: str) -> Rung:
        deals = tuple(Deal(r.randrange(1, 9), s, D(r.randrange(-500, 500)) / 1000, D(r.randrange(1, 10**6)) / 7**3 // D('0.0001') * D('0.0001'), D(r.randrange(-50, 200)) / 100, D(r.choice([0, 0, 1])) / 1000, n) for n, s in enumerate(r.choices(NAMES, k=r.randrange(12))))
        return Rung(cause, deals, {s: D(r.randrange(1, 10**6)) / 1000 for s in NAMES})
    return [rung(c) for c in ('', *r.choices(list(CAUSES)[:6], k=r.randrange(1, 7)))], Start(D(r.randrange(10**8)) / 100, 'USD', {s: D(r.randrange(-9, 9)) for s in NAMES}, {NAMES[0]: D(10)})


def test_parts_sum_to_the_difference_whatever_the_rungs_are() -> None:
    for seed in range(300):
        rungs, start = ladder(random.Random(seed))
        for a, b in zip(rungs, rungs[1:]): assert sum((p.money for p in step(a, b, start)), D(0)) == worth(b, start) - worth(a, start)
        stray = D(random.Random(seed).randrange(-10**6, 10**6)) / 10**4
        found = attribute(rungs, start, worth(rungs[-1], start) + stray, stray / 2)
        assert sum((p.money for p in found.parts), D(0)) == found.difference
        assert sum(found.cents.values()) == found.difference.quantize(D('0.01')) and 0 <= found.score <= 1


def test_a_score_is_one_for_the_same_and_falls_with_every_difference() -> None:
    rungs, start = ladder(random.Random(5))
    same = attribute([rungs[0], replace(rungs[0], cause='fill model')], start, worth(rungs[0], start))
    assert same.score == 1 and score_of(same.pairs) == 1
    d, before = rungs[0].deals[0], 1.0
    for ticks in (1, 5, 50, 5_000):
        deals = (replace(d, price=d.price + D(ticks) / 100), *rungs[0].deals[1:])
        other = Rung('fill model', deals, rungs[0].marks)
        found = attribute([rungs[0], other], start, worth(other, start))
        assert found.score < before
        before = found.score
    assert in_cents({'a': D('1.005')}, D('1.005'))['rounding'] in (D('0.00'), D('0.01'))


def test_a_bar_that_one_telling_lacks_is_taken_from_the_other() -> None:
    def bars(ends: list[int], price: float) -> Bars: return Bars(('AAA', 'BBB'), np.array(ends) - 1, np.array(ends), *(np.array([[price, np.nan]] * len(ends)),) * 5)
    both = completed(bars([1, 3], 10.0), bars([1, 2], 11.0))
    assert both.end.tolist() == [1, 2, 3] and both.close[:, 0].tolist() == [10.0, 11.0, 10.0] and np.isnan(both.close[:, 1]).all()


def test_what_is_no_ladder_is_refused() -> None:
    rungs, start = ladder(random.Random(1))
    with pytest.raises(BadInput, match='rungs'): attribute(rungs[:1], start, D(0))
    with pytest.raises(BadInput, match='cause'): attribute([rungs[0], replace(rungs[0], cause='the moon')], start, D(0))
    with pytest.raises(BadInput, match='last price'): worth(Rung('', (Deal(1, 'ZZZ', D(1), D(1)),), {}), start)
