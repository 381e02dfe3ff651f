"""A working order as it is to become: what it grows by is judged as a new order would be, what takes risk off always passes."""
from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.instrument import Instrument
from gekko.domain.order import Intent, Order, OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import SimClock
from gekko.risk.gate import Approved, Breach, Gate, milder
from gekko.risk.limits import Limits
from gekko.risk.view import BookView

D = Decimal
KO = Instrument('KO', 'KO', 'USD', lot=D(1), tick=D('0.01'))
WIDE = Limits(max_order_notional=None, max_position_notional=None, max_gross=None, max_net=None, max_daily_loss=None, max_drawdown=None, collar_bps=None, stale_after_s=None, max_orders_per_minute=None)


def book(*orders: Order, held: int = 0) -> BookView:
    view = BookView('a', 'USD', {'KO': KO})
    view.deposit(D(100_000)); view.mark('KO', D(50), 0)
    for o in orders: view.track(o)
    return view


def working(side: Side, qty: int, limit: str = '50', **more: object) -> Order:
    return Order('g1', Intent('KO', side, D(qty), OrderType.LIMIT, limit=D(limit), **more), OrderState.ACCEPTED)      # type: ignore[arg-type]


def gate(limits: Limits = WIDE, kill: str = '') -> Gate: return Gate(limits, {'KO': KO}, SimClock(0), lambda: kill)


@given(st.sampled_from(Side), st.integers(1, 300), st.integers(1, 300), st.integers(0, 300), st.integers(1_000, 40_000))
@settings(max_examples=120, deadline=None)
def test_a_change_passes_where_an_order_of_the_difference_would(side: Side, was: int, now: int, others: int, most: int) -> None:
    """The order that works is reserved; growing it is the same exposure as one more order of what it grows by."""
    order = working(side, was)
    rest = [replace(working(side, others), client_id='g2')] if others else []
    limits = replace(WIDE, max_position_notional=D(most))
    said = gate(limits).change(order, replace(order.intent, qty=D(now)), book(order, *rest))
    if now <= was: assert isinstance(said, Approved) and said.order.intent.qty == now
    else: assert isinstance(said, Approved) is isinstance(gate(limits).check(Order('g3', replace(order.intent, qty=D(now - was))), book(order, *rest)), Approved)


@pytest.mark.parametrize(('side', 'new', 'mild'), [
    (Side.BUY, {'qty': D(5)}, True), (Side.BUY, {'limit': D(49)}, True), (Side.BUY, {'limit': D(51)}, False), (Side.BUY, {'qty': D(11)}, False), (Side.BUY, {'qty': D(5), 'limit': D(51)}, False),
    (Side.SELL, {'limit': D(51)}, True), (Side.SELL, {'limit': D(49)}, False), (Side.SELL, {'qty': D(11), 'limit': D(51)}, False),
    (Side.BUY, {'expires': 10}, True), (Side.BUY, {'expires': 30}, False)])
def test_halted_only_what_takes_risk_off_passes(side: Side, new: dict[str, object], mild: bool) -> None:
    order = working(side, 10, tif=TimeInForce.GTD, expires=20)
    now = replace(order.intent, **new)      # type: ignore[arg-type]
    assert milder(order.intent, now) is mild
    view = book(order)
    view.halted = 'somebody looked'
    for g, v in ((gate(), view), (gate(kill='the kill switch'), book(order))):
        said = g.change(order, now, v)
        assert isinstance(said, Approved) if mild else isinstance(said, Breach) and said.limit == 'halt'
    assert isinstance(gate().change(order, now, book(order)), Approved)


def test_a_stop_nearer_to_the_market_is_no_milder() -> None:
    stop = Intent('KO', Side.BUY, D(1), OrderType.STOP, stop=D(60))
    assert milder(stop, replace(stop, stop=D(61))) and not milder(stop, replace(stop, stop=D(59)))
    sale = replace(stop, side=Side.SELL, stop=D(40))
    assert milder(sale, replace(sale, stop=D(39))) and not milder(sale, replace(sale, stop=D(41)))


def test_a_reduce_only_order_grows_up_to_what_is_held_and_not_beyond() -> None:
    from gekko.domain.order import Fill
    order = working(Side.SELL, 10, limit='60', reduce_only=True)
    view = book()
    view.fill(Fill('f1', 'g0', 'KO', Side.BUY, D(30), D(50)))
    view.track(order)
    view.halted = 'somebody looked'
    assert isinstance(gate().change(order, replace(order.intent, qty=D(30)), view), Approved)
    said = gate().change(order, replace(order.intent, qty=D(31)), view)
    assert isinstance(said, Breach) and said.limit == 'reduce_only'


def test_shape_collar_size_and_rate_hold_for_changes_too() -> None:
    order = working(Side.BUY, 10)
    for limits, new, limit in ((WIDE, {'qty': D('10.5')}, 'lot'), (WIDE, {'limit': D('49.999')}, 'tick'), (replace(WIDE, collar_bps=D(100)), {'limit': D(52)}, 'collar_bps'),
                               (replace(WIDE, max_order_qty=D(15)), {'qty': D(16)}, 'max_order_qty')):
        said = gate(limits).change(order, replace(order.intent, **new), book(order))      # type: ignore[arg-type]
        assert isinstance(said, Breach) and said.limit == limit
    g = gate(replace(WIDE, max_orders_per_minute=D(1)))
    assert isinstance(g.change(order, replace(order.intent, qty=D(11)), book(order)), Approved)
    late = g.change(order, replace(order.intent, qty=D(12)), book(order))
    assert isinstance(late, Breach) and late.limit == 'max_orders_per_minute'
    assert isinstance(g.change(order, replace(order.intent, qty=D(9)), book(order)), Approved), 'what takes risk off is not counted'
