"""The gate's quick way against its rules: one passes exactly when the others find nothing, near every edge."""
from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal as D
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import SECOND, SimClock
from gekko.risk.gate import Approved, Breach, Gate
from gekko.risk.lens import Lens
from gekko.risk.limits import Limits
from gekko.risk.rules import CHANGED, GROWN, tail_risk
from gekko.risk.view import BookView

NOW = 1_000 * SECOND
TRADED = {
    'AAA': Instrument('AAA', 'AAA', 'USD', tick=D('0.5'), lot=D('0.1'), min_notional=D(50)), 'FUT': Instrument('FUT', 'FUT', 'USD', 'index', tick=D('0.25'), lot=D(1), multiplier=D(50)),
    'EUR': Instrument('EUR', 'EUR', 'JPY', 'fx', tick=D('0.01'), lot=D(100)), 'OFF': Instrument('OFF', 'OFF', 'USD', tradable=False)}
PRICE = {'AAA': D(100), 'FUT': D(40), 'EUR': D(160), 'OFF': D(1)}

sizes = st.sampled_from([D(x) for x in ('0.1', '0.4', '0.5', '0.05', '1', '2', '5', '10', '9.9', '10.1', '100', '1000', '1E+30', '1E+90')])
near = st.sampled_from([D(x) for x in ('0.9', '0.95', '0.949', '0.951', '1', '1.05', '1.0501', '1.051', '2')])


def of(*choices: str) -> st.SearchStrategy[D | None]: return st.sampled_from([None] * len(choices) * 2 + [D(c) for c in choices])


limits = st.builds(
    Limits, max_order_notional=of('100', '1000', '1050', '20000'), max_order_qty=of('1', '10', '500'), max_position_notional=of('500', '1000', '2000', '50000'), max_positions=of('1', '2', '3'),
    max_gross=of('0.1', '0.5', '1', '2'), max_net=of('0.05', '0.1', '0.5', '1'), collar_bps=of('500', '100', '10000'), max_orders_per_minute=of('1', '3'), max_daily_loss=of('0.01', '0.1', '1'),
    max_drawdown=of('0.01', '0.05', '0.2'), stale_after_s=of('10', '10.000000001', '60'), symbols=st.sampled_from([{}, {'AAA': {'max_order_qty': D(5)}, 'FUT': {'collar_bps': None}}]))


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    symbol, kind = draw(st.sampled_from(['AAA'] * 6 + ['FUT'] * 5 + ['EUR'] * 5 + ['OFF', 'aaa', 'ААА'])), draw(st.sampled_from(OrderType))
    prices = {k: PRICE.get(symbol, D(1)) * draw(near) for k, on in (('limit', kind in (OrderType.LIMIT, OrderType.STOP_LIMIT)), ('stop', kind in (OrderType.STOP, OrderType.STOP_LIMIT))) if on}
    if symbol in TRADED and draw(st.integers(0, 7)): prices = {k: TRADED[symbol].price(p) for k, p in prices.items()}
    size = draw(sizes)
    if symbol in TRADED and draw(st.integers(0, 7)): size = max(TRADED[symbol].size(min(size, D(1000))), TRADED[symbol].lot)
    tif = draw(st.sampled_from(TimeInForce))
    return Intent(symbol, draw(st.sampled_from(Side)), size, kind, tif=tif, expires=1 if tif is TimeInForce.GTD else 0, reduce_only=draw(st.integers(0, 5)) == 0, **prices)


@st.composite
def books(draw: st.DrawFn) -> BookView:
    b = BookView('demo', 'USD', TRADED)
    if draw(st.integers(0, 9)): b.rate('JPY', D('0.0065'))
    b.deposit(draw(st.sampled_from([D(100), D(3_000), D(30_000), D(1_000_000)])))
    b.observe(NOW - 90 * SECOND)
    for s in ('AAA', 'FUT', 'EUR'):
        if s == 'EUR' and 'JPY' not in b.rates or not draw(st.integers(0, 7)): continue
        b.mark(s, PRICE[s], NOW - draw(st.sampled_from([0, 10 * SECOND, 10 * SECOND + 1, 61 * SECOND, -11 * SECOND])))
        if draw(st.booleans()): b.fill(Fill(f'f-{s}', 'past', s, draw(st.sampled_from(Side)), draw(st.sampled_from([D(1), D(10), D(200)])), PRICE[s] * draw(near), fee=draw(st.sampled_from([D(0), D(150)]))))
        for n in range(draw(st.integers(0, 2))):
            kind = draw(st.sampled_from([OrderType.MARKET, OrderType.LIMIT]))
            b.track(Order(f'w-{s}-{n}', Intent(s, draw(st.sampled_from(Side)), draw(st.sampled_from([D(1), D(10), D(200)])), kind, limit=PRICE[s] if kind is OrderType.LIMIT else None),
                          draw(st.sampled_from([OrderState.ACCEPTED, OrderState.UNKNOWN]))))
    if draw(st.booleans()): b.observe(NOW)
    if not draw(st.integers(0, 9)): b.halted = 'by hand'
    return b


def same(check: Callable[[Order, Any], Any], rules: Gate, orders: list[Order], b: BookView) -> None:
    for o in orders:
        verdict, why = check(o, b), rules.explain(o, b)
        if isinstance(verdict, Approved): assert not why and verdict.order is o and verdict.ts == NOW
        elif verdict.limit == 'max_orders_per_minute': assert not why
        else: assert isinstance(verdict, Breach) and verdict == why[0]


@settings(max_examples=800, deadline=None)
@given(limits, books(), st.lists(intents(), min_size=1, max_size=6), st.sampled_from(['', '', '', 'thrown']), st.sampled_from([OrderState.INTENT] * 4 + [OrderState.SUBMITTED]))
def test_the_quick_way_and_the_rules_agree(lim: Limits, b: BookView, wanted: list[Intent], kill: str, state: OrderState) -> None:
    gate = Gate(lim, TRADED, SimClock(NOW), lambda: kill)
    same(gate.check, gate, [Order(f'g-{n}', i, state) for n, i in enumerate(wanted)], b)


@given(st.integers(1, 5), st.integers(0, 9))
def test_the_rate_counts_each_order_once(most: int, asked: int) -> None:
    "Whichever way it passed."
    clock, b = SimClock(NOW), BookView('demo', 'USD', TRADED)
    gate = Gate(Limits(max_orders_per_minute=D(most)), TRADED, clock)
    b.deposit(D(100_000))
    b.mark('AAA', D(100), NOW)
    for _ in range(2):
        passed = [isinstance(gate.check(Order('g', Intent('AAA', Side.BUY, D(1))), b), Approved) for _ in range(asked)]
        assert passed == [True] * min(most, asked) + [False] * max(asked - most, 0)
        clock.set(clock.now() + 60 * SECOND)


def test_an_instrument_that_changes_is_read_again() -> None:
    traded, b = dict(TRADED), BookView('demo', 'USD', TRADED)
    gate = Gate(Limits(max_gross=None), traded, SimClock(NOW))
    b.deposit(D(100_000))
    b.mark('AAA', D(100), NOW)
    order = Order('g', Intent('AAA', Side.BUY, D('0.7')))
    assert isinstance(gate.check(order, b), Approved)
    traded['AAA'] = Instrument('AAA', 'AAA', 'USD', tick=D('0.5'), lot=D(1))
    assert getattr(gate.check(order, b), 'limit', '') == 'lot'
    traded['AAA'] = Instrument('AAA', 'AAA', 'USD', tick=D('0.5'), lot=D('0.1'))
    gate.tighten(Limits(max_order_qty=D('0.5')))
    assert getattr(gate.check(order, b), 'limit', '') == 'max_order_qty'


DAYS = np.random.default_rng(5).standard_t(4, (120, 3)) * 0.02
tails = st.builds(lambda var, es, stress: {'max_var': var, 'max_es': es, 'max_stress': stress}, of('0.0001', '0.01', '0.1'), of('0.001', '0.02', '0.1'), of('0.01', '0.2', '1'))
lenses = st.sampled_from([None, 'AAA EUR FUT', 'AAA EUR FUT', 'AAA EUR FUT', 'AAA EUR']).map(
    lambda names: None if names is None else Lens(names.split(), DAYS[:, :len(names.split())], 0.95, np.array([[-0.3, -0.1, np.nan], [0.2, 0.1, np.nan]])[:, :len(names.split())]))


def look(lens: Lens | None, b: BookView) -> Lens | None:
    "As the desk does: pointed at the book, or none where something in play has no scenarios."
    ends = {s: (float(x), float(y)) for s, (x, y) in b.ends().items()}
    if lens is None or any(any(x) and s not in lens for s, x in ends.items()): return None
    lens.hold(ends)
    return lens


@settings(max_examples=300, deadline=None)
@given(limits, tails, tails, lenses, books(), st.lists(intents(), min_size=1, max_size=5))
def test_they_agree_on_tails_and_soft_levels_never_stop(lim: Limits, hard: dict[str, Any], soft: dict[str, Any], lens: Lens | None, b: BookView, wanted: list[Intent]) -> None:
    lens, told = look(lens, b), list[Breach]()
    lim, soft_limits = Limits(**{**{f: getattr(lim, f) for f in lim.__dataclass_fields__}, **hard}), Limits(max_gross=D('0.5'), max_positions=None, max_orders_per_minute=None, collar_bps=D(50), **soft)
    gate, plain = Gate(lim, TRADED, SimClock(NOW), lens=lens, soft=soft_limits, warned=told.append), Gate(lim, TRADED, SimClock(NOW), lens=look(lens, b))
    same(gate.check, gate, [Order(f'g-{n}', i) for n, i in enumerate(wanted)], b)
    assert len({(w.limit, w.symbol) for w in told}) == len(told), 'once a minute'
    if lens is not None: look(lens, b)
    again = [type(plain.check(Order(f'p-{n}', i), b)) for n, i in enumerate(wanted)]
    if lens is not None: look(lens, b)
    fresh = Gate(lim, TRADED, SimClock(NOW), lens=lens, soft=soft_limits)
    assert again == [type(fresh.check(Order(f'q-{n}', i), b)) for n, i in enumerate(wanted)], 'a soft level changes no verdict'


THREE = {s: Instrument(s, s, 'USD', lot=D(1)) for s in 'ABC'}
MOVES = np.random.default_rng(8).standard_t(4, (90, 1)) * 0.02 * np.ones((1, 3)) + np.random.default_rng(9).normal(0, 0.002, (90, 3))      # what moves together can be hedged


@settings(max_examples=250, deadline=None)
@given(st.lists(st.integers(-500, 500), min_size=3, max_size=3), st.floats(1, 1.5), st.lists(st.tuples(st.sampled_from('ABC'), st.sampled_from(Side), st.integers(1, 400), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_nothing_that_passes_can_lead_over_a_tail(held: list[int], times: float, wanted: list[tuple[str, Side, int, bool, bool]]) -> None:
    """Order after order between two looks, resting or not, whichever of the resting ones fill: VaR, shortfall and stress stay within the limit, or no worse than they were."""
    b, shocks = BookView('demo', 'USD', THREE), np.array([[-0.2, -0.2, -0.2], [0.2, 0.2, 0.2]])
    b.deposit(D(1_000_000))
    lens, real = (Lens('ABC', MOVES, 0.95, shocks) for _ in range(2))
    for s, q in zip('ABC', held):
        b.mark(s, D(100), NOW)
        if q: b.fill(Fill(f'f-{s}', 'x', s, Side.BUY if q > 0 else Side.SELL, D(abs(q)), D(100)))
    values = {s: 100.0 * q for s, q in zip('ABC', held)}
    lens.hold(values)
    most = [max(times * x, 500.0) for x in lens.now]
    bound = {n: D(repr(round(x / 1e6, 9))) for n, x in zip(('max_var', 'max_es', 'max_stress'), most)}
    gate = Gate(Limits(max_gross=None, **bound), THREE, SimClock(NOW), lens=lens)
    for n, (s, side, qty, market, fills) in enumerate(wanted):
        i = Intent(s, side, D(qty)) if market else Intent(s, side, D(qty), OrderType.LIMIT, limit=D(100))
        if isinstance(gate.check(Order(f'g-{n}', i), b), Approved) and (market or fills): values[s] += 100.0 * qty * (1 if side is Side.BUY else -1)
        real.hold(values)
        assert all(x <= y * 1.0001 + 1e-3 for x, y in zip(real.now, most)), (real.now, most)


def test_a_figure_that_is_no_number_stops_an_order() -> None:
    b, lens = BookView('demo', 'USD', TRADED), Lens(('AAA',), np.vstack([DAYS[:, :1], np.zeros((1, 1))]), 0.95)
    b.deposit(D(1_000_000))
    b.mark('AAA', D(100), NOW)
    gate = Gate(Limits(max_var=D('0.1'), max_gross=None), TRADED, SimClock(NOW), lens=lens)
    huge = Order('g', Intent('AAA', Side.BUY, D('1E+400')))
    assert isinstance(gate.check(huge, b), Breach) and [x for x in gate.explain(huge, b) if x.limit == 'max_var']
    assert isinstance(gate.check(Order('g', Intent('AAA', Side.BUY, D(1))), b), Approved), 'and leaves nothing behind'


def test_growth_by_a_change_counts_before_the_next_order() -> None:
    b, told = BookView('demo', 'USD', TRADED), list[Breach]()
    b.deposit(D(100_000))
    b.mark('AAA', D(100), NOW)
    bid = Order('w', Intent('AAA', Side.BUY, D(100), OrderType.LIMIT, limit=D(100)), OrderState.ACCEPTED)
    b.track(bid)
    gate = Gate(Limits(max_stress=D('0.1')), TRADED, SimClock(NOW), lens=look(Lens(('AAA',), DAYS[:, :1], 0.95, np.array([[-0.3]])), b), soft=Limits(max_stress=D('0.05')), warned=told.append)
    assert tail_risk in GROWN and tail_risk not in CHANGED
    grown = gate.change(bid, Intent('AAA', Side.BUY, D(300), OrderType.LIMIT, limit=D(100)), b)
    assert isinstance(grown, Approved) and grown.order.intent.qty == 300 and [w.limit for w in told] == ['max_stress'], '9,000 of 100,000, over the soft 5 %'
    assert getattr(gate.check(Order('g', Intent('AAA', Side.BUY, D(100))), b), 'limit', '') == 'max_stress', '12,000 would be over the hard 10 %'


def test_what_no_stress_covers_is_refused_and_stays_so_while_it_is_held() -> None:
    b = BookView('demo', 'USD', TRADED)
    b.deposit(D(1_000_000))
    for s in ('AAA', 'FUT'): b.mark(s, PRICE[s], NOW)
    lens = Lens(('AAA', 'FUT'), DAYS[:, :2], 0.95, np.array([[-0.3, np.nan]]))
    gate = Gate(Limits(max_stress=D('0.9')), TRADED, SimClock(NOW), lens=lens)
    refused = gate.check(Order('g', Intent('FUT', Side.BUY, D(1))), b)
    assert 'no stress scenario covers FUT, so max_stress cannot be told' in str(refused)
    assert isinstance(gate.check(Order('g', Intent('AAA', Side.BUY, D(1))), b), Approved)
    b.fill(Fill('f', 'x', 'FUT', Side.BUY, D(1), D(40)))
    look(lens, b)
    assert 'no stress scenario covers FUT' in str(gate.check(Order('g', Intent('AAA', Side.BUY, D(1))), b))
    assert isinstance(gate.check(Order('g', Intent('FUT', Side.SELL, D(1), reduce_only=True)), b), Approved)


values = st.fixed_dictionaries({}, optional={'max_order_qty': st.sampled_from([D(1), D(5), D(9)]), 'max_positions': st.sampled_from([D(1), D(4)]), 'max_gross': st.sampled_from([D(1), D(2)])})


@settings(max_examples=200, deadline=None)
@given(values, st.lists(st.tuples(st.sampled_from(['tighten', 'allow']), values, st.sampled_from(['firm', 'desk'])), max_size=6))
def test_room_comes_and_goes_and_a_mandate_only_tightens(own: dict[str, D], steps: list[tuple[str, dict[str, D], str]]) -> None:
    every = {'max_order_qty': None, 'max_positions': None, 'max_gross': None}
    gate, hard, room = Gate(Limits(**every | own), TRADED, SimClock(NOW)), [dict(own)], dict[str, D]()
    for what, given_, who in steps:
        getattr(gate, what)(Limits(**every | given_, collar_bps=None, max_orders_per_minute=None), source=dict.fromkeys(given_, who))
        if what == 'tighten': hard.append(given_)
        else: room = given_
    for n in every:
        most = min([x[n] for x in [*hard, room] if n in x], default=None)
        assert getattr(gate.limits, n) == most
        if n in gate.source: assert own.get(n) != most, 'the run is not named for what is its own, nor the firm for it'


def test_taking_a_hedge_off_is_always_allowed_and_seen_at_once() -> None:
    """An order that only reduces meets no limit, or nobody could flatten a book leg by leg: the next order pays for it."""
    b = BookView('demo', 'USD', THREE)
    b.deposit(D(1_000_000))
    for s, side in (('A', Side.BUY), ('B', Side.SELL)):
        b.mark(s, D(100), NOW)
        b.fill(Fill(f'f-{s}', 'x', s, side, D(3_000), D(100)))
    lens = look(Lens('ABC', MOVES, 0.95, np.array([[-0.2, -0.2, -0.2]])), b)
    assert lens is not None and lens.now.stress < 1
    gate = Gate(Limits(max_stress=D('0.05')), THREE, SimClock(NOW), lens=lens)
    assert isinstance(gate.check(Order('g-1', Intent('B', Side.BUY, D(3_000), reduce_only=True)), b), Approved) and lens.now.stress > 59_000
    b.mark('C', D(100), NOW)
    assert getattr(gate.check(Order('g-2', Intent('C', Side.BUY, D(1))), b), 'limit', '') == 'max_stress'
    assert isinstance(gate.check(Order('g-3', Intent('C', Side.SELL, D(1))), b), Approved), 'what makes the loss smaller passes'
