"""A change that was asked for: whatever the order of the venue's words, the larger size is reserved until it is known, and in the end the order is what the venue has."""
from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.order import (
    Accepted, Amended, AmendRejected, AmendRequested, Cancelled, Expired, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Side, TimeInForce, apply,
)

D = Decimal
S = OrderState
WORKS = Order('g', Intent('KO', Side.BUY, D(10), OrderType.LIMIT, limit=D(60)), S.ACCEPTED, venue_id='v')


def filled(n: int, qty: int, ts: int) -> Filled: return Filled('g', Fill(f'f{n}', 'g', 'KO', Side.BUY, D(qty), D(60), ts=ts), ts)


def after(order: Order, *events: OrderEvent) -> Order:
    for e in events: order = apply(order, e)
    return order


@given(st.integers(1, 20), st.booleans(), st.lists(st.integers(1, 6), max_size=6), st.integers(0, 6), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_order_of_words_ends_in_the_venues_truth(size: int, made: bool, parts: list[int], when: int, random: object, twice: bool) -> None:
    """The venue fills, is asked for another size, makes it or not, and fills on; its words come late, early and twice."""
    have, done, said, changed = 10, 0, list[OrderEvent](), False
    for n, part in enumerate([*parts, 0]):
        if n == min(when, len(parts)):
            changed = made and size > done and done < have
            said.append(Amended('g', D(size), ts=n + 10) if changed else AmendRejected('g', 'no', n + 10))
            if changed: have = size
        part = min(part, have - done)
        if part: done += part; said.append(filled(n, part, n + 10))
    random.shuffle(said)      # type: ignore[attr-defined]
    order = apply(WORKS, AmendRequested('g', D(size), ts=5))
    assert order.open_qty == max(D(10), D(size))
    for e in said * (2 if twice else 1):
        order = apply(order, e)
        if order.amending is not None and not order.state.terminal: assert order.open_qty >= max(D(have), D(0)) - D(done), 'what may still trade is reserved'
    if not order.conflict:
        assert order.filled == done and order.intent.qty == have and order.amending is None
        assert order.state is (S.FILLED if done == have else S.PARTLY_FILLED if done else S.ACCEPTED)
    else: assert not changed or 'overfill' not in order.conflict, 'a fill of what was asked for is no overfill'


@pytest.mark.parametrize('words', list(permutations([filled(1, 10, 11), Amended('g', D(12), ts=10), filled(2, 2, 12)])))
def test_a_larger_order_that_fills_is_filled_in_any_order(words: tuple[OrderEvent, ...]) -> None:
    order = after(apply(WORKS, AmendRequested('g', D(12), ts=5)), *words)
    assert (order.state, order.filled, order.conflict, order.amending) == (S.FILLED, 12, '', None)


def test_the_last_fill_of_the_old_size_is_not_the_end_yet() -> None:
    order = after(WORKS, AmendRequested('g', D(12), ts=5), filled(1, 10, 11))
    assert (order.state, order.open_qty) == (S.PARTLY_FILLED, 2)
    assert after(order, AmendRejected('g', 'filled already')).state is S.FILLED


@pytest.mark.parametrize('end', [Cancelled('g', ts=9), Expired('g', 9)])
def test_an_order_that_ended_is_not_being_changed(end: OrderEvent) -> None:
    order = after(WORKS, AmendRequested('g', D(12), ts=5), end)
    assert order.state.terminal and order.amending is None and order.open_qty == 0
    assert apply(order, AmendRequested('g', D(13), ts=10)) == order


def test_an_answer_that_was_lost_leaves_the_order_at_work_in_either_size() -> None:
    order = after(WORKS, AmendRequested('g', D(12), ts=5), Lost('g', 'amend', 6))
    assert (order.state, order.cancelling, order.open_qty) == (S.ACCEPTED, False, 12)
    assert after(order, Accepted('g', 'v', 7)).open_qty == 12 and after(order, AmendRejected('g', 'never arrived', 8)).open_qty == 10


def test_one_change_at_a_time_and_none_that_cannot_be() -> None:
    order = after(WORKS, AmendRequested('g', D(12), ts=5))
    assert apply(order, AmendRequested('g', D(20), ts=6)) == order
    for odd in (D('NaN'), D(0), D(-1), D('Infinity'), D('1e-60')): assert apply(WORKS, AmendRequested('g', odd, ts=5)) == WORKS


def test_a_date_moves_with_its_answer_to_the_second() -> None:
    dated = replace(WORKS, intent=replace(WORKS.intent, tif=TimeInForce.GTD, expires=30 * 10**9))
    asks = apply(dated, AmendRequested('g', expires=60 * 10**9 + 5, ts=5))
    moved = apply(asks, Amended('g', ts=6, expires=60 * 10**9))
    assert moved.intent.expires == 60 * 10**9 and moved.amending is None
    assert apply(moved, Amended('g', ts=4, expires=40 * 10**9)) == moved, 'older news'
    assert apply(WORKS, Amended('g', ts=6, expires=60 * 10**9)).conflict, 'an order without a date has none to move'


def test_a_date_belongs_to_an_order_good_till_date_and_to_no_other() -> None:
    for tif in TimeInForce:
        for expires in (0, 1, -1, 2**63):
            if expires == (1 if tif is TimeInForce.GTD else 0): Intent('KO', Side.BUY, D(1), tif=tif, expires=expires)
            else:
                with pytest.raises(BadInput): Intent('KO', Side.BUY, D(1), tif=tif, expires=expires)
