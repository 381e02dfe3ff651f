"""The tracker against the plainest possible account of the same thing: every order apart, summed from scratch."""
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.order import (
    Accepted, Cancelled, CancelRejected, CancelRequested, Expired, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Rejected, Side, Submitted, apply,
)
from gekko.execution.tracker import Tracker

SYMBOLS, NAMES = ('AAA', 'BBB'), tuple(f'g-{n}' for n in range(6))


def order(name: str) -> Order:
    n = NAMES.index(name)
    kind = {'type': OrderType.LIMIT, 'limit': Decimal(90)} if n > 2 else {}
    return Order(name, Intent(SYMBOLS[n % 2], Side.BUY if n % 3 else Side.SELL, Decimal(n + 1) / 2, **kind))  # type: ignore[arg-type]


def _event(name: str, kind: int, fill_no: int, qty: int) -> OrderEvent:
    o = order(name)
    fill = Fill(f'f{fill_no}', name, o.symbol, o.side, Decimal(qty) / 4, Decimal(100))
    return [Submitted(name), Accepted(name, 'V'), Filled(name, fill), CancelRequested(name), CancelRejected(name), Cancelled(name), Rejected(name), Expired(name), Lost(name)][kind]


events = st.builds(_event, st.sampled_from(NAMES), st.integers(0, 8), st.integers(0, 8), st.integers(1, 8))


@settings(max_examples=200)
@given(st.lists(events, max_size=60))
def test_working_is_the_sum_of_what_is_open(heard: list[OrderEvent]) -> None:
    tracker, plain = Tracker(), {n: order(n) for n in NAMES[:4]}
    for o in plain.values(): tracker.add(o)
    strays = []
    for e in heard:
        after = tracker.on(e)
        if e.client_id in plain:
            plain[e.client_id] = apply(plain[e.client_id], e)
            assert after == plain[e.client_id]
        else:
            assert after is None
            strays.append(e)
        for s in SYMBOLS: assert tracker.working(s) == sum((o.open_qty * o.side.sign for o in plain.values() if o.symbol == s), Decimal(0))
        for s in SYMBOLS:
            kinds = [(o.intent.type is OrderType.MARKET and o.state is not OrderState.UNKNOWN, o.side, o.open_qty) for o in plain.values() if o.symbol == s]
            assert tuple(tracker.reserved(s)) == tuple(sum((q for m, d, q in kinds if (m, d) == k), Decimal(0)) for k in ((True, Side.BUY), (True, Side.SELL), (False, Side.BUY), (False, Side.SELL)))
    assert tracker.strays == strays
    assert tracker.open() == [o for o in plain.values() if not o.state.terminal]
    assert tracker.unknown() == [o for o in plain.values() if o.state is OrderState.UNKNOWN]
    assert tracker.conflicts() == [o for o in plain.values() if o.conflict]
    assert tracker.all() == list(plain.values())


@given(st.lists(events, max_size=30))
def test_hearing_everything_twice_changes_nothing(heard: list[OrderEvent]) -> None:
    "A venue that repeats itself, event by event, leaves the same orders behind."
    once, twice = Tracker(), Tracker()
    for t in (once, twice):
        for n in NAMES: t.add(order(n))
    for e in heard:
        once.on(e)
        twice.on(e), twice.on(e)
    assert once.all() == twice.all() and [once.working(s) for s in SYMBOLS] == [twice.working(s) for s in SYMBOLS]


def test_an_unknown_order_keeps_its_size_reserved() -> None:
    t = Tracker()
    t.add(order('g-1'))
    t.on(Submitted('g-1')), t.on(Lost('g-1'))
    assert t.unknown()[0].client_id == 'g-1' and t.working('BBB') == 1
    t.on(Accepted('g-1', 'V1'))
    assert not t.unknown() and t.working('BBB') == 1


def test_names_are_taken_once() -> None:
    t = Tracker()
    t.add(order('g-1'))
    with pytest.raises(BadInput, match='g-1'): t.add(order('g-1'))
    with pytest.raises(BadInput, match='no such order'): t.get('g-2')
