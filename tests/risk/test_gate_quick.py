"""The gate's quick way against its rules: one passes exactly when the others find nothing, near every edge."""
from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal as D
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import SECOND, SimClock
from gekko.risk.gate import Approved, Breach, Gate
from gekko.risk.limits import Limits
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


@settings(max_examples=1200, deadline=None)
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
