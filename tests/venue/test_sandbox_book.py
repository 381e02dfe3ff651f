"""The book against a naive matcher that sorts everything each time: sizes, priority, and never a crossed book."""
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.order import Side
from gekko.venue.sandbox.book import Book, affordable, cost, fillable

PRICES = st.integers(95, 105).map(Decimal)
SIZES = st.integers(1, 9).map(Decimal)
SIDES = st.sampled_from(Side)
ACTIONS = st.lists(st.one_of(
    st.tuples(st.just('limit'), SIDES, PRICES, SIZES),
    st.tuples(st.just('market'), SIDES, st.none(), SIZES),
    st.tuples(st.just('remove'), SIDES, st.none(), SIZES),
    st.tuples(st.just('reduce'), SIDES, st.none(), SIZES)), max_size=60)


@dataclass
class Plain:
    """An order of the naive matcher; `n` is when it came."""
    n: int
    side: Side
    price: Decimal
    qty: Decimal


class Naive:
    """A list of orders, sorted anew for every trade."""
    def __init__(self) -> None: self.orders: list[Plain] = []

    def take(self, side: Side, qty: Decimal, limit: Decimal | None) -> list[tuple[int, Decimal, Decimal]]:
        out = []
        there = sorted((o for o in self.orders if o.side is not side and (limit is None or (o.price <= limit if side is Side.BUY else o.price >= limit))),
                       key=lambda o: (o.price if side is Side.BUY else -o.price, o.n))
        for o in there:
            if not qty: break
            size = min(qty, o.qty)
            o.qty, qty = o.qty - size, qty - size
            out.append((o.n, o.price, size))
        self.orders = [o for o in self.orders if o.qty]
        return out

    def levels(self, side: Side) -> list[tuple[Decimal, Decimal]]:
        prices = sorted({o.price for o in self.orders if o.side is side}, reverse=side is Side.BUY)
        return [(p, sum((o.qty for o in self.orders if o.side is side and o.price == p), Decimal(0))) for p in prices]


def told(book: Book, side: Side) -> list[tuple[Decimal, Decimal]]: return [(x.price, x.qty) for x in book.levels(side)]


@settings(max_examples=200, deadline=None)
@given(ACTIONS)
def test_it_trades_as_the_naive_matcher_does(actions: list[tuple[str, Side, Decimal | None, Decimal]]) -> None:
    book, naive = Book('X'), Naive()
    into = out_of = Decimal(0)
    for n, (what, side, price, qty) in enumerate(actions):
        mine = [o for o in naive.orders if o.side is side]
        if what in ('limit', 'market'):
            got, wanted = book.take(side, qty, price), naive.take(side, qty, price)
            assert [(m.order_id, m.price, m.qty) for m in got] == wanted
            filled = sum((m.qty for m in got), Decimal(0))
            into, out_of = into + qty, out_of + 2 * filled
            if (left := qty - filled) and price is not None:
                book.rest(n, '', side, price, left)
                naive.orders.append(Plain(n, side, price, left))
            else: out_of += left
        elif mine:
            victim = mine[int(qty) % len(mine)]
            by = victim.qty if what == 'remove' else min(qty, victim.qty)
            if what == 'remove': assert book.remove(victim.n) == victim.qty
            else: assert book.reduce(victim.n, by) == victim.qty - by
            victim.qty -= by
            out_of += by
            naive.orders = [o for o in naive.orders if o.qty]
        assert told(book, Side.BUY) == naive.levels(Side.BUY) and told(book, Side.SELL) == naive.levels(Side.SELL)
        assert book.best_bid is None or book.best_ask is None or book.best_bid < book.best_ask, 'crossed'
        resting = sum((o.qty for o in book.orders.values()), Decimal(0))
        assert into == resting + out_of, 'size was made or lost'


@settings(max_examples=100, deadline=None)
@given(ACTIONS, st.integers(0, 30))
def test_changes_replayed_give_the_book(actions: list[tuple[str, Side, Decimal | None, Decimal]], snapshot_at: int) -> None:
    """A client that has a snapshot and applies every change after it holds the same book, ids without a hole."""
    book, copy, last = Book('X'), {Side.BUY: dict[Decimal, Decimal](), Side.SELL: dict[Decimal, Decimal]()}, 0
    for n, (what, side, price, qty) in enumerate(actions):
        if what in ('limit', 'market'):
            left = qty - sum((m.qty for m in book.take(side, qty, price)), Decimal(0))
            if left and price is not None: book.rest(n, '', side, price, left)
        elif book.orders: book.remove(sorted(book.orders)[int(qty) % len(book.orders)])
        if n == snapshot_at:
            copy, last = {s: dict(told(book, s)) for s in Side}, book.update_id
        if n % 3 == 0 and (moved := book.flush()):
            assert moved.first <= moved.last == book.update_id
            if moved.last <= last: continue
            missed = book.since(last)
            assert missed is not None and (missed.first, missed.last) == (last + 1, moved.last)
            for s, levels in ((Side.BUY, missed.bids), (Side.SELL, missed.asks)):
                for x in levels:
                    if x.qty: copy[s][x.price] = x.qty
                    else: copy[s].pop(x.price, None)
            last = moved.last
            assert {s: dict(told(book, s)) for s in Side} == copy


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(PRICES, SIZES), min_size=1, max_size=12), SIDES, SIZES, PRICES, st.integers(1, 5000).map(Decimal))
def test_what_could_be_had_is_what_is_had(rows: list[tuple[Decimal, Decimal]], side: Side, qty: Decimal, limit: Decimal, spend: Decimal) -> None:
    def fresh() -> Book:
        book = Book('X')
        for i, (price, size) in enumerate(rows): book.rest(i, '', side.other, price, size)
        return book
    could, worth = cost(fresh(), side, qty, limit)
    got = fresh().take(side, qty, limit)
    assert could == sum((m.qty for m in got), Decimal(0)) and worth == sum((m.qty * m.price for m in got), Decimal(0))
    assert fillable(fresh(), side, limit) == sum((m.qty for m in fresh().take(side, Decimal(1000), limit)), Decimal(0))
    size = affordable(fresh(), side, spend, Decimal('0.1'))
    assert cost(fresh(), side, size)[1] <= spend
    more = size + Decimal('0.1')
    assert fillable(fresh(), side) < more or cost(fresh(), side, more)[1] > spend, 'it could have bought another lot'


def test_equal_prices_go_by_time_and_a_smaller_order_keeps_its_place() -> None:
    book = Book('X')
    for i in range(3): book.rest(i, '', Side.SELL, Decimal(100), Decimal(2))
    book.reduce(0, Decimal(1))
    assert [(m.order_id, m.qty) for m in book.take(Side.BUY, Decimal(4))] == [(0, 1), (1, 2), (2, 1)]


def test_an_order_that_would_cross_is_not_put_to_rest() -> None:
    book = Book('X')
    book.rest(1, '', Side.SELL, Decimal(100), Decimal(1))
    with pytest.raises(BadInput, match='would cross'): book.rest(2, '', Side.BUY, Decimal(100), Decimal(1))
    book.rest(2, '', Side.BUY, Decimal(99), Decimal(1))
    assert book.best_bid == 99 and book.best_ask == 100


def test_old_changes_are_forgotten_and_said_to_be() -> None:
    book = Book('X', keep=5)
    for i in range(20): book.rest(i, '', Side.BUY, Decimal(i + 1), Decimal(1))
    assert book.since(14) is None and book.since(20) is None and book.since(21) is None
    moved = book.since(15)
    assert moved is not None and [x.price for x in moved.bids] == [16, 17, 18, 19, 20]
