"""The router against brute force: no way of dealing an order out is better than the one it finds."""
from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.market import Depth, Level, take
from gekko.domain.order import Accepted, Cancelled, Expired, Fill, Filled, Intent, Lost, Order, OrderEvent, Rejected, Side, Submitted, apply
from gekko.domain.time import SECOND
from gekko.execution.router import STALE, Routing, Terms, factor, ladder, least, rest, route, slack, unspent

D = Decimal
NAMES = ('a', 'b', 'c')
SIDES = st.sampled_from(Side)


@st.composite
def levels(draw: st.DrawFn, side: Side, sizes: st.SearchStrategy[int]) -> tuple[Level, ...]:
    prices = sorted(draw(st.sets(st.integers(90, 110), max_size=4)), reverse=side is Side.SELL)
    return tuple(Level(D(p), D(draw(sizes))) for p in prices)


@st.composite
def markets(draw: st.DrawFn, *, lots: tuple[int, ...] = (1,), minimums: bool = False, purses: bool = False) -> tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]]:
    """A side, a size, and two or three small books with their terms. Sizes are whole units, so that brute force can count them."""
    side, n = draw(SIDES), draw(st.integers(2, 3))
    books, terms = {}, {}
    for v in NAMES[:n]:
        offered = draw(levels(side, st.integers(1, 6)))
        books[v] = Depth('X', 0, () if side is Side.BUY else offered, offered if side is Side.BUY else ())
        least_worth = D(draw(st.sampled_from([0, 0, 150, 400]))) if minimums else D(0)
        purse = D(draw(st.integers(0, 900))) if purses and draw(st.booleans()) else None
        terms[v] = Terms(D(draw(st.integers(-20, 100))), lot=D(draw(st.sampled_from(lots))), tick=D(1), min_notional=least_worth,
                         free_quote=purse, free_base=None if purse is None else purse // 100)
    return side, D(draw(st.integers(1, 12))), books, terms


def offers(books: dict[str, Depth], v: str, side: Side) -> tuple[Level, ...]: return books[v].asks if side is Side.BUY else books[v].bids


def fits(side: Side, qty: Decimal, v: str, part: Decimal, books: dict[str, Depth], terms: dict[str, Terms], limit: Decimal | None) -> bool:
    """Whether a venue would take and fill this part at once, told without the router's own functions (but for the least size of a sale, which is the router's rule)."""
    t, shown, had = terms[v], offers(books, v, side), D(0)
    if not part: return True
    for x in shown:
        had += x.qty
        if had >= part: break
    if had < part or part % t.lot: return False
    if limit is not None and (x.price > limit if side is Side.BUY else x.price < limit): return False
    if side is Side.BUY and t.free_quote is not None and part * x.price * max(factor(side, t.taker_bps), D(1)) > t.free_quote: return False
    if side is Side.SELL and t.free_base is not None and part > t.free_base: return False
    return part >= least(ladder(shown, side, t, qty, limit), side, t)


def worth(side: Side, v: str, part: Decimal, books: dict[str, Depth], terms: dict[str, Terms]) -> Decimal:
    return take(offers(books, v, side), part)[1] * factor(side, terms[v].taker_bps)


def ways(side: Side, qty: Decimal, books: dict[str, Depth], terms: dict[str, Terms], limit: Decimal | None) -> Iterator[tuple[Decimal, Decimal]]:
    """Size and worth of every way to deal the order out in whole units."""
    possible = [[D(q) for q in range(int(qty) + 1) if fits(side, qty, v, D(q), books, terms, limit)] for v in books]
    for parts in product(*possible):
        if sum(parts) <= qty: yield sum(parts), sum(worth(side, v, q, books, terms) for v, q in zip(books, parts))


def best(side: Side, *market: object) -> tuple[Decimal, Decimal]:
    """The most that can be filled, and then the least paid or the most received."""
    return min(ways(side, *market), key=lambda w: (-w[0], w[1] if side is Side.BUY else -w[1]))  # type: ignore[arg-type]


def holds(r: Routing, books: dict[str, Depth], terms: dict[str, Terms], limit: Decimal | None) -> None:
    """What is true of every route."""
    assert sum(x.qty for x in r.legs) + r.left == r.qty and r.left >= 0
    assert len({x.venue for x in r.legs}) == len(r.legs)
    for x in r.legs:
        t, shown = terms[x.venue], offers(books, x.venue, r.side)
        assert x.qty > 0 and x.qty % t.lot == 0 and x.limit % t.tick == 0 and x.qty * x.limit >= t.min_notional
        assert limit is None or (x.limit <= limit if r.side is Side.BUY else x.limit >= limit)
        reachable = [y for y in shown if (y.price <= x.limit if r.side is Side.BUY else y.price >= x.limit)]
        got, value = take(reachable, x.qty)
        assert got == x.qty and value * factor(r.side, t.taker_bps) == x.net
        if r.side is Side.BUY and t.free_quote is not None: assert x.qty * x.limit * factor(r.side, t.taker_bps) <= t.free_quote
        if r.side is Side.SELL and t.free_base is not None: assert x.qty <= t.free_base
    assert all(v in r.why for v in terms if v not in {x.venue for x in r.legs})


@settings(max_examples=150)
@given(markets(), st.none() | st.integers(90, 110).map(D))
def test_without_minimums_the_greedy_way_is_the_best(market: tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]], limit: Decimal | None) -> None:
    side, qty, books, terms = market
    r = route('X', side, qty, limit, books, terms)
    holds(r, books, terms, limit)
    assert (qty - r.left, r.net) == best(side, qty, books, terms, limit)


@settings(max_examples=200)
@given(markets(minimums=True, purses=True), st.none() | st.integers(90, 110).map(D))
def test_with_minimums_and_balances_it_is_still_the_best(market: tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]], limit: Decimal | None) -> None:
    side, qty, books, terms = market
    r = route('X', side, qty, limit, books, terms)
    holds(r, books, terms, limit)
    assert (qty - r.left, r.net) == best(side, qty, books, terms, limit)


@settings(max_examples=150)
@given(markets(lots=(1, 2, 4)))
def test_with_lots_that_differ_the_loss_is_bounded(market: tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]]) -> None:
    side, qty, books, terms = market
    r = route('X', side, qty, None, books, terms)
    holds(r, books, terms, None)
    size, value = best(side, qty, books, terms, None)
    ladders = {v: ladder(offers(books, v, side), side, t, qty) for v, t in terms.items()}
    coarsest = max(t.lot for t in terms.values())
    assert size - (qty - r.left) < coarsest
    if size == qty - r.left:
        lost = r.net - value if side is Side.BUY else value - r.net
        assert 0 <= lost <= slack(ladders, {v: t.lot for v, t in terms.items()})


AMOUNTS = st.decimals(min_value='0.00000001', max_value='5', places=8)
PRICES = st.decimals(min_value='59000', max_value='61000', places=2)


@st.composite
def real(draw: st.DrawFn) -> tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]]:
    """Books as venues have them: sizes off the lot, prices off the tick, balances, minimums, and lots that differ."""
    books, terms = {}, {}
    for v, lot, tick, minimum in (('a', '0.00001', '0.01', '10'), ('b', '0.00000001', '0.05', '1'), ('c', '0.001', '0.5', '0')):
        mid = draw(st.lists(PRICES, min_size=2, max_size=12, unique=True).map(sorted))
        cut = draw(st.integers(0, len(mid)))
        books[v] = Depth('X', 0, tuple(Level(p, draw(AMOUNTS)) for p in mid[:cut][::-1]), tuple(Level(p, draw(AMOUNTS)) for p in mid[cut:]))
        free = st.none() | st.decimals(min_value=0, max_value=3, places=8)
        base = draw(free)
        terms[v] = Terms(D(draw(st.integers(-5, 60))), lot=D(lot), tick=D(tick), min_notional=D(minimum), free_base=base, free_quote=None if base is None else base * 60000,
                         state=draw(st.sampled_from(['', '', '', 'mute'])), age=draw(st.sampled_from([0, 0, STALE + 1])))
    return draw(SIDES), draw(AMOUNTS), books, terms


@settings(max_examples=150)
@given(real(), st.none() | PRICES, st.booleans())
def test_whatever_the_books_a_route_keeps_every_rule(market: tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]], limit: Decimal | None, after_fees: bool) -> None:
    side, qty, books, terms = market
    r = route('X', side, qty, limit, books, terms, after_fees=after_fees)
    holds(r, books, terms, limit if not after_fees or side is Side.BUY and all(t.taker_bps >= 0 for t in terms.values()) else None)
    assert r == route('X', side, qty, limit, dict(reversed(books.items())), dict(reversed(terms.items())), after_fees=after_fees), 'the order in which venues are named changed the route'
    for x in r.legs:
        assert not terms[x.venue].state and terms[x.venue].age <= STALE
        if after_fees and limit is not None: assert x.net <= limit * x.qty if side is Side.BUY else x.net >= limit * x.qty


@settings(max_examples=80)
@given(markets(minimums=True), st.integers(1, 5))
def test_a_better_book_never_makes_the_route_worse(market: tuple[Side, Decimal, dict[str, Depth], dict[str, Terms]], more: int) -> None:
    side, qty, books, terms = market
    assume(offers(books, 'a', side) and side is Side.BUY)
    before = route('X', side, qty, None, books, terms)
    top = books['a'].asks[0]
    deeper = Depth('X', 0, (), (Level(top.price, top.qty + more), *books['a'].asks[1:]))
    after = route('X', side, qty, None, books | {'a': deeper}, terms)
    assert after.left <= before.left
    if after.left == before.left: assert after.net <= before.net


def test_numbers_of_any_size_are_exact() -> None:
    huge = Depth('X', 0, (), (Level(D('1e-9'), D('1e30')), Level(D('2e-9'), D('1e30'))))
    r = route('X', Side.BUY, D('1.5e30'), None, {'a': huge}, {'a': Terms(D('0.1'), lot=D('1e-8'), tick=D('1e-9'))})
    assert not r.left and r.net == D('2.0e21') * D('1.00001')
    assert r.legs[0].limit == D('2e-9')


def test_ties_go_to_the_first_by_name_and_need_no_second() -> None:
    same = Depth('X', 0, (), (Level(D(100), D(5)),))
    r = route('X', Side.BUY, D(5), None, {v: same for v in 'ba'}, {v: Terms() for v in 'ba'})
    assert [(x.venue, x.qty) for x in r.legs] == [('a', D(5))] and r.why == {'b': 'dearer than the others'}


def test_more_venues_than_sets_can_be_tried_for() -> None:
    books = {f'v{i:02}': Depth('X', 0, (), (Level(D(100 + i), D(1)),)) for i in range(12)}
    r = route('X', Side.BUY, D(12), None, books, {v: Terms(min_notional=D(100)) for v in books})
    assert [x.venue for x in r.legs] == [f'v{i:02}' for i in range(8)] and r.left == 4 and r.why['v11'] == '8 venues are better'


def test_a_venue_of_no_use_is_named_with_its_reason() -> None:
    offered = Depth('X', 0, (Level(D(99), D(5)),), (Level(D(100), D(5)),))
    terms = {'gone': Terms(state='closed'), 'old': Terms(age=6 * SECOND), 'poor': Terms(free_quote=D(99)), 'big': Terms(lot=D(10)), 'proud': Terms(min_notional=D(600)), 'unbooked': Terms(), 'good': Terms()}
    books = {v: offered for v in terms if v != 'unbooked'} | {'nobody': offered}
    r = route('X', Side.BUY, D(3), None, books, terms)
    assert [x.venue for x in r.legs] == ['good'] and not r.left
    assert r.why == {'gone': 'closed', 'old': 'its book is 6 s old', 'poor': 'no money is free there: 99', 'big': 'less than its lot of 10', 'proud': 'its part would be under its least, 6',
                     'unbooked': 'no book', 'nobody': 'its terms are not known'}


def test_an_order_smaller_than_every_lot_goes_nowhere() -> None:
    r = route('X', Side.BUY, D('0.5'), None, {'a': Depth('X', 0, (), (Level(D(100), D(5)),))}, {'a': Terms()})
    assert r.left == D('0.5') and not r.legs and r.why['a'] == 'less than its lot of 1'


@pytest.mark.parametrize('qty', [D(0), D(-1), D('NaN'), D('Infinity'), 1.0, 1])
def test_a_size_that_is_none_is_refused(qty: object) -> None:
    with pytest.raises(BadInput, match='size to route'): route('X', Side.BUY, qty, None, {}, {})  # type: ignore[arg-type]


# --- what is left

@st.composite
def stories(draw: st.DrawFn) -> tuple[Order, Decimal]:
    """A leg after any events, and the most that it can have traded or still trade."""
    qty = D(draw(st.integers(1, 10)))
    o = Order('g', Intent('X', Side.BUY, qty))
    for i, word in enumerate(draw(st.lists(st.sampled_from(['sent', 'taken', 'fill', 'lost', 'cancelled', 'rejected', 'expired']), max_size=6))):
        size = D(draw(st.integers(1, 4)))
        said: dict[str, OrderEvent] = {'sent': Submitted('g'), 'taken': Accepted('g'), 'fill': Filled('g', Fill(str(i), 'g', 'X', Side.BUY, size, D(100))), 'lost': Lost('g'),
                                       'cancelled': Cancelled('g'), 'rejected': Rejected('g'), 'expired': Expired('g')}
        o = apply(o, said[word])
    return o, o.filled if o.state.terminal else qty


@given(st.lists(stories(), max_size=5), st.integers(0, 10).map(D))
def test_what_is_sent_again_never_makes_more_than_the_parent(legs: list[tuple[Order, Decimal]], more: Decimal) -> None:
    orders, reach = [o for o, _ in legs], sum((r for _, r in legs), D(0))
    parent = reach + more
    assert unspent(parent, orders) + reach == parent if parent else unspent(D(1), orders) >= 0


def test_a_story_that_contradicts_itself_is_not_a_negative_size() -> None:
    filled = apply(Order('g', Intent('X', Side.BUY, D(5))), Filled('g', Fill('f', 'g', 'X', Side.BUY, D(5), D(100))))
    assert unspent(D(3), [filled]) == 0


def test_a_resting_part_lies_where_its_whole_fits() -> None:
    terms = {'cheap': Terms(maker_bps=D(1), free_quote=D(500)), 'dear': Terms(maker_bps=D(5), free_quote=D(5000))}
    leg = rest(Side.BUY, D(10), D(100), terms)
    assert leg is not None and (leg.venue, leg.qty, leg.net) == ('dear', 10, D(1000) * D('1.0005'))
    poorer = rest(Side.BUY, D(10), D(100), terms | {'dear': Terms(state='down')})
    assert poorer is not None and (poorer.venue, poorer.qty) == ('cheap', 4)      # the fifth's fee would not be there
