"""The tear sheet's numbers against other ways to them, its profits against the account's, and every hard run it must still show."""
import base64
import json
import re
from collections import defaultdict
from decimal import Decimal as D
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.desk.result import Result, encode_result
from gekko.domain.account import Account, deposit, equity, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, Side
from gekko.domain.time import DAY, MINUTE, iso
from gekko.ledger.runs import RunRecord, Runs
from gekko.research import live
from gekko.research.beside import as_of, beside, by_part, costs, equal_parts, exposure, pace, paced, relation, rolling_beta, rolling_sharpe
from gekko.research.course import course_of, deals_of, held, marked
from gekko.research.fast import FastResult, backtest
from gekko.research.fifo import entries, reckoned, trips_of
from gekko.research.numbers import summary, summary_text, trusted, worst_html
from gekko.research.sheet import Sheet, sheet, stored
from gekko.research.thin import thinned, unpacked
from gekko.research.worst import once_in, tails, worst_days

Market = tuple[Bars, dict[str, Instrument]]


def market(rows: int, n: int = 1, *, step: int = DAY, vol: float = 0.01, drift: float = 0.0, scale: float = 50.0, holes: float = 0.0, seed: int = 0) -> Market:
    rng = np.random.default_rng(seed)
    tick = D(10) ** (int(np.floor(np.log10(scale))) - 5)
    close = np.maximum(np.round(scale * np.exp(np.cumsum(rng.normal(drift, vol, (rows, n)), axis=0)) / float(tick)), 1) * float(tick)
    close[rng.random(close.shape) < holes] = np.nan
    open_ = np.vstack([close[:1], close[:-1]])
    open_ = np.where(np.isnan(close), np.nan, np.where(np.isnan(open_), close, open_))
    end = 19_000 * DAY + step * np.arange(1, rows + 1)
    names = tuple(f'S{k}' for k in range(n))
    return Bars(names, end - step, end, open_, np.maximum(open_, close), np.minimum(open_, close), close, np.ones_like(close)), {s: Instrument(s, s, 'USD', tick=tick, lot=D('0.001')) for s in names}


def turning(b: Bars, every: int, up: float = 0.9, down: float = -0.3) -> np.ndarray[Any, Any]:
    return np.where((np.arange(len(b)) // every) % 2 == 0, up, down)[:, None] / b.close.shape[1] * np.ones(b.close.shape)


def ran(m: Market, every: int = 9, **how: Any) -> FastResult:
    return backtest(m[0], turning(m[0], every), instruments=m[1], **how)


# the pairing

TRADES = st.lists(st.tuples(st.sampled_from(['AAA', 'BBB']), st.sampled_from([Side.BUY, Side.SELL]), st.integers(1, 5_000), st.integers(1, 10**6), st.integers(-50, 300)), max_size=40)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TRADES, st.integers(1, 10**6), st.integers(1, 10**6))
def test_profits_of_trades_are_the_accounts(trades: list[tuple[str, Side, int, int, int]], a: int, b: int) -> None:
    """Any fills whatever: closed, open and fees are the change of the account that the desk's own books show, to the last digit."""
    marks = {'AAA': D(a).scaleb(-2), 'BBB': D(b).scaleb(-2)}
    book, fills = deposit(Account('a'), D(1000)), []
    for k, (s, side, qty, price, fee) in enumerate(trades):
        fills.append(Fill(f'f{k}', f'g{k}', s, side, D(qty).scaleb(-3), D(price).scaleb(-2), D(fee).scaleb(-3), ts=k + 1))
        book = settle(book, fills[-1], Instrument(s, s, 'USD', lot=D('0.001')))
    final = equity(book, marks)
    r = Result('id', 'l', 's', 'backtest', 'a', ('AAA', 'BBB'), '1d', 'USD', D(1000), np.array([10**9]), (final,), np.array([[float(marks['AAA']), float(marks['BBB'])]]), tuple(fills), (), (), '', 'finished')
    t = trips_of(course_of(r))
    told = reckoned(t)
    assert told.other == 0 and told.closed + told.open - told.fees == told.profit == final - 1000
    assert sum((t.net(x) for x in t.trips), D(0)) == told.closed - sum((t.fees(x) for x in t.trips), D(0))
    assert sum(x.fee for x in t.trips) + sum(x.fee for lots in t.open for x in lots) == sum(t.course.deals.fee)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TRADES)
def test_first_in_is_first_out(trades: list[tuple[str, Side, int, int, int]]) -> None:
    """Against a book of single thousandths, each closed by the oldest of the other side."""
    fills = [Fill(f'f{k}', 'g', s, side, D(q % 40 + 1).scaleb(-3), D(p).scaleb(-2), D(0), ts=k) for k, (s, side, q, p, _) in enumerate(trades)]
    deals, lot, tick, _ = deals_of(fills, ('AAA', 'BBB'))
    gross: dict[tuple[int, int, int], Fraction] = defaultdict(Fraction)
    for n, s in enumerate(('AAA', 'BBB')):
        queue: list[tuple[int, int, D]] = []
        for f in (f for f in fills if f.symbol == s):
            for _ in range(int(f.qty * 1000)):
                if queue and queue[0][1] != f.side.sign:
                    ts, sign, price = queue.pop(0)
                    gross[n, ts, f.ts] += Fraction(f.price - price) * sign / 1000
                else: queue.append((f.ts, f.side.sign, f.price))
    r = Result('id', 'l', 's', 'backtest', 'a', ('AAA', 'BBB'), '1d', 'USD', D(1000), np.zeros(0, np.int64), (), np.zeros((0, 2)), tuple(fills), (), (), '', 'finished')
    t = trips_of(course_of(r))
    assert {(x.column, x.opened, x.closed): Fraction(t.gross(x)) for x in t.trips} == gross and len(t.trips) == len(gross)
    assert [x.closed for x in t.trips] == sorted(x.closed for x in t.trips)


@pytest.mark.parametrize('kind', ['two symbols', 'holes'])
def test_the_fast_run_and_its_result_have_the_same_trades(kind: str) -> None:
    run = ran(market(400, 2, holes=0.15 if kind == 'holes' else 0.0))
    fast, slow = trips_of(course_of(run)), trips_of(course_of(run.result()))
    assert [fast.net(t) for t in fast.trips] == [slow.net(t) for t in slow.trips] and reckoned(fast) == reckoned(slow)
    assert reckoned(fast).other == 0 and reckoned(fast).profit == run.final_equity - run.asked.spec.cash


def test_a_fee_in_the_coin_and_money_from_elsewhere() -> None:
    fills = (Fill('1', 'a', 'BTC-USD', Side.BUY, D(1), D(100), D('0.01'), 'BTC', ts=1), Fill('2', 'b', 'BTC-USD', Side.SELL, D('0.99'), D(120), D('0.5'), ts=2))
    r = Result('id', 'l', 's', 'live', 'a', ('BTC-USD',), '1d', 'USD', D(1000), np.array([3]), (D(1000) - 100 + D('118.8') - D('0.5') - 7,), np.array([[120.0]]), fills, (), (), '', 'finished')
    told = reckoned(trips_of(course_of(r)))
    assert (told.closed, told.open, told.fees, told.other) == (D('19.8'), D(0), D('1.5'), D(-7))      # seven of interest, say
    assert entries(course_of(r), 0).tolist() == [1, 0]


# the numbers

def test_rolling_figures_are_those_of_each_window() -> None:
    rng = np.random.default_rng(3)
    r, other = rng.normal(0, 0.01, 300), rng.normal(0, 0.02, 300)
    sharpe, beta = rolling_sharpe(r, 50, 252.0), rolling_beta(r, other, 50)
    for t in range(300):
        if t < 49: assert np.isnan(sharpe[t]) and np.isnan(beta[t])
        else:
            x, y = r[t - 49:t + 1], other[t - 49:t + 1]
            assert sharpe[t] == pytest.approx(x.mean() / x.std(ddof=1) * np.sqrt(252))
            assert beta[t] == pytest.approx(np.polyfit(y, x, 1)[0])


def test_relation_is_a_regression() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(0.0005, 0.01, 500)
    x = 0.0002 + 0.7 * y + rng.normal(0, 0.004, 500)
    slope, height = np.polyfit(y, x, 1)
    k = relation(np.append(x, np.nan), np.append(y, 0.5), 252.0)
    assert (k.beta, k.alpha, k.rows) == (pytest.approx(slope), pytest.approx(252 * height), 500)
    assert k.correlation == pytest.approx(np.corrcoef(x, y)[0, 1]) and k.total == pytest.approx(np.prod(1 + y) - 1)


def test_benchmarks() -> None:
    run = ran(market(300, 3))
    c = course_of(run)
    moves = np.diff(c.closes, axis=0) / c.closes[:-1]
    assert np.allclose(equal_parts(c.closes)[1:], np.cumprod(1 + moves.mean(1)))
    assert np.allclose(beside(c, 'S1').worth / float(c.cash), c.closes[:, 1] / c.closes[0, 1])
    late = ran(market(100, 1, seed=5))
    assert np.isfinite(beside(c, late).worth).all() and np.array_equal(as_of(c.times, late.times, late.worth)[100:], np.full(200, late.worth[-1]))
    with pytest.raises(BadInput, match='benchmark'): beside(c, 'NOTHING')
    early = Result(**{**vars(late.result()), 'times': late.times + 10_000 * DAY})
    with pytest.raises(BadInput, match='overlaps the run'): beside(c, early)


@pytest.mark.parametrize('how', [{}, {'participation': D('0.3')}, {'slippage_bps': D(3)}])
@pytest.mark.parametrize('holes', [0.0, 0.3])
def test_what_is_held_and_the_cash_beside_it_are_the_equity(how: dict[str, Any], holes: float) -> None:
    """Of every row, though the next bar begins in the instant in which it ends: a fast run, and its result."""
    b, of = market(300, 3, holes=holes, seed=3)
    b = Bars(b.symbols, b.start, b.end, b.open, b.high, b.low, b.close, np.full_like(b.close, 20_000.0))
    run = backtest(b, turning(b, 7), instruments=of, **how)
    for c in (course_of(run), course_of(run.result())):
        cash = float(c.cash) - np.bincount(c.landed, c.size * c.price + c.paid, len(c.times)).cumsum()
        value = sum((held(c, n) * np.nan_to_num(marked(c, n)) for n in range(3)), np.zeros(len(c.times)))
        assert len(c.deals) > 100 and np.abs(cash + value - c.worth).max() < 0.02
        assert exposure(c).net == pytest.approx(value / c.worth)


@pytest.mark.parametrize(('between', 'row'), [(90, 2), (60, 1)])
def test_a_fill_in_the_instant_of_an_end(between: int, row: int) -> None:
    """Quotes of that instant come after the row; of a replay of bars it is the row's own when it was asked for before."""
    times = np.array([60, 120, 180]) * MINUTE
    asked = tuple(Order(str(k), Intent('BTC-USD', Side.BUY, D(1), ts=t * MINUTE)) for k, t in enumerate((0, 100)))
    fills = [Fill(str(k), str(k), 'BTC-USD', Side.BUY, D(1), D(9), ts=t * MINUTE) for k, t in enumerate((between, 120))]
    r = Result('r', 'r', 'r', 'backtest', 'r', ('BTC-USD',), '1h', 'USD', D(100), times, (D(100),) * 3, np.full((3, 1), 9.0), tuple(fills), asked, (), '', 'finished')
    assert course_of(r).landed[1] == row


def test_exposure_turnover_and_costs_by_hand() -> None:
    run = ran(market(200, 2))
    r, c = run.result(), course_of(run)
    e = exposure(c)
    for t in (5, 60, 199):
        value = [float(sum((f.signed for f in r.fills if f.symbol == s and f.ts < r.times[t]), D(0))) * r.closes[t, n] for n, s in enumerate(r.symbols)]
        assert e.net[t] == pytest.approx(sum(value) / float(r.equity[t])) and e.gross[t] == pytest.approx(sum(map(abs, value)) / float(r.equity[t]))
    traded = float(sum((f.qty * f.price for f in r.fills), D(0)))
    assert by_part(c, 'M')[1].sum() * c.worth.mean() == pytest.approx(traded)
    opens = {(int(s), n): run.asked.bars.open[k, j] for k, s in enumerate(run.asked.bars.start) for j, n in enumerate(r.symbols)}
    slip = sum(float(f.signed) * (float(f.price) - opens[f.ts, f.symbol]) for f in r.fills)
    assert costs(c).slippage is not None and costs(c).slippage[-1] == pytest.approx(slip) and costs(c).fees[-1] == pytest.approx(float(r.fees))
    assert costs(course_of(r)).slippage is None
    told = costs(course_of(r, D(1))).slippage
    assert told is not None and told[-1] == pytest.approx(traded / 1e4, rel=0.02)


def test_worst_days_and_tails() -> None:
    c = course_of(ran(market(600, 2)))
    p, at, ours, theirs = paced(c, beside(c))
    days = worst_days(c, p.rows, beside(c), p.periods)
    assert [d.move for d in days] == sorted(ours.tolist())[:10]
    for d in days:
        k = int(np.flatnonzero(at == d.end)[0])
        assert d.z == pytest.approx((ours[k] - ours.mean()) / ours.std(ddof=1)) and d.other == pytest.approx(theirs[k])
        assert d.years == pytest.approx(once_in(d.z, p.periods)) and d.fall is not None and d.fall.peak < d.end
        assert d.money == pytest.approx(c.worth[p.rows[k + 1]] - c.worth[p.rows[k]])
    normal = next(t for t in tails(ours) if t.method == 'normal' and t.level == 0.99)
    assert normal.var == pytest.approx(2.3263478740408408 * ours.std(ddof=1) - ours.mean())


def test_minutes_are_judged_by_hours() -> None:
    c = course_of(ran(market(7 * 1440, 1, step=MINUTE, vol=0.0005), 60))
    p = pace(c.times)
    assert p.name == 'hour' and len(p.rows) == 168 and np.allclose(p.periods, 365.25 * 24, rtol=0.01)
    assert not isinstance(trusted(c.times[p.rows], c.worth[p.rows]), str)
    found = re.findall(r'>(\d+-\d\d-\d\d(?: \d\d:\d\d)?)<', worst_html(worst_days(c, p.rows, beside(c), p.periods), tails(paced(c, beside(c))[2]), p.name))
    assert len(found) == 10 and all(iso(int(c.times[0]))[:10] <= x[:10] <= iso(int(c.times[-1]))[:10] for x in found), 'hours of this week'


# what is drawn

@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(float('nan'))), min_size=1, max_size=400), st.integers(4, 60))
def test_thinning_keeps_extremes_and_ends(y: list[float], most: int) -> None:
    x = np.array(y)
    at = thinned(x, most)
    assert len(at) <= max(most, 4) and (np.diff(at) > 0).all() and (at[0], at[-1]) == (0, len(x) - 1)
    if np.isfinite(x).any(): assert (np.nanmin(x[at]), np.nanmax(x[at])) == (np.nanmin(x), np.nanmax(x))


def test_live_figures_hold_what_is_drawn() -> None:
    run = ran(market(500, 2))
    c = course_of(run)
    f = live.equity_live(c, beside(c))
    assert unpacked(f['data'][1]['y']).tolist() == c.worth.tolist()
    assert unpacked(f['data'][2]['y']).min() == pytest.approx((c.worth / np.maximum.accumulate(c.worth) - 1).min(), rel=1e-6)
    t = trips_of(c)
    assert unpacked(live.trips_live(c, t)['data'][0]['y']).tolist() == t.nets.tolist()


def alternating() -> FastResult:
    m = market(100_000, 1, step=MINUTE, vol=0.0005)
    return backtest(m[0], np.where(np.arange(100_000) % 2 == 0, 0.5, 0.4)[:, None], instruments=m[1], cash=10**9)


RUNS: dict[str, Any] = {
    'usual': lambda: ran(market(400, 2)), 'one bar': lambda: ran(market(1)), 'two bars': lambda: ran(market(2)), 'ten bars': lambda: ran(market(10), 2),
    'no trades': lambda: backtest(market(300)[0], np.zeros((300, 1)), instruments=market(300)[1]), 'forty symbols': lambda: ran(market(300, 40), 30),
    'bust': lambda: backtest(market(300, vol=0.06, drift=-0.05)[0], np.full((300, 1), 3.0), instruments=market(300)[1], limits={'max_gross': 10}),
    'all losses, of a tiny price': lambda: ran(market(300, vol=0.002, drift=-0.005, scale=1e-5), 1000, cash=0.5), 'a week of minutes': lambda: ran(market(7 * 1440, 2, step=MINUTE, vol=0.0005), 60), 'holes, of a huge price': lambda: ran(market(300, 3, holes=0.2, scale=9e6), cash=1e14), 'a hundred thousand fills': alternating,
}


@cache
def shown(kind: str) -> tuple[FastResult, Sheet]:
    """A run and its sheet, which takes a second to draw: made once for all that look at it."""
    run = RUNS[kind]()
    return run, sheet(run)


@pytest.mark.parametrize('kind', RUNS)
@pytest.mark.filterwarnings('error')
def test_hard_runs_are_shown_whole(kind: str) -> None:
    run, s = shown(kind)
    assert not [b for b in s.blocks if 'could not be shown' in b.html]
    text = s.notebook()
    nbformat.validate(nbformat.reads(text, 4))
    assert len(text) < 1_000_000
    for o in json.loads(text)['cells'][1]['outputs']:
        assert ('image/png' in o['data']) != ('text/html' in o['data'])
        if 'image/png' in o['data']: assert live.MIME in o['data'] and base64.b64decode(o['data']['image/png'])[:4] == b'\x89PNG'
        json.dumps(o['data'].get(live.MIME), allow_nan=False)
    if kind == 'a hundred thousand fills': assert 'drawn net in' in json.dumps(s['fills on the price'].live) and 'the best and worst of each stretch' in json.dumps(s['round trips'].live)
    assert summary(run)['Earned'][0][0] == 'Final equity' and summary_text(run) == s.text


def test_an_end_below_nothing_says_so() -> None:
    assert 'No intervals' in shown('bust')[1]['trust'].html


def test_the_sheet_is_the_same_each_time() -> None:
    assert sheet(RUNS['usual']()).notebook() == shown('usual')[1].notebook()


def test_names_cannot_become_markup() -> None:
    r = ran(market(200)).result()
    evil = Result(**{**vars(r), 'symbols': ('<script>x</script>',), 'strategy': '</script></style><b>"}', 'fills': tuple(Fill(f.fill_id, f.client_id, '<script>x</script>', f.side, f.qty, f.price, f.fee, f.fee_currency, f.ts) for f in r.fills)})
    s: Sheet = sheet(evil)
    assert '<script>x' not in s.page() and '<script>x' not in ''.join(b.html for b in s.blocks) and '</script>' not in s.page().split('<body')[0] and '</style><b>' not in s.page()


def test_a_kept_run_comes_back(tmp_path: Path) -> None:
    r = ran(market(100)).result()
    ledger, folder = f'sqlite:///{tmp_path}/ledger.db', tmp_path/'run'
    folder.mkdir()
    (folder/'result.msgpack').write_bytes(encode_result(r))
    runs = Runs(ledger)
    runs.put(RunRecord('20261122T034501-demo-3f2a', 'l', 'demo.ipynb', 'backtest', 'a', executed=str(folder/'executed.ipynb'), params={'slippage_bps': 1.0}))
    runs.put(RunRecord('20261122T034502-demo-0000', 'l', 'demo.ipynb', 'backtest', 'a', executed=str(tmp_path/'executed.ipynb'), state='failed'))
    c = stored(ledger, '3f2a')
    assert c.final == r.final_equity and c.slippage_bps == D('1.0') and len(c.deals) == len(r.fills)
    with pytest.raises(BadInput, match='left no result'): stored(ledger, '0000')
    with pytest.raises(BadInput, match='no such run'): stored(ledger, 'none')
