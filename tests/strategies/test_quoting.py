"""What the quoter promises: both sides, leaning against the position, never taking, never beyond its largest position."""
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal as D
from types import SimpleNamespace
from typing import Any

import pytest

from gekko.api import Amend, BadInput, Cancel, Intent, Order, Side
from gekko.desk.react import BookLine
from gekko.domain.market import Quote
from gekko.domain.order import AmendRequested, OrderState

Load = Callable[..., SimpleNamespace]
SYMBOL = 'BTC-USD'


def asked(quoter: Any, bid: str, ask: str, *working: Order, held: str = '0', ts: int = 0) -> list[Any]:
    """What the quoter returns."""
    book = BookLine()
    book.positions, book.orders, book.ts = {SYMBOL: D(held)}, {o.client_id: o for o in working}, ts
    return quoter.on_quote(Quote(SYMBOL, ts, D(bid), D(ask)), book) or []


def seen(quoter: Any, bid: str, ask: str, *working: Order, held: str = '0', ts: int = 0) -> tuple[dict[Side, D | None], list[str]]:
    """The prices asked for by side, and what is cancelled; nothing is changed."""
    said = asked(quoter, bid, ask, *working, held=held, ts=ts)
    assert not [x for x in said if isinstance(x, Amend)]
    assert all(x.post_only and x.qty == D('0.01') for x in said if isinstance(x, Intent))
    return {x.side: x.limit for x in said if isinstance(x, Intent)}, [x.client_id for x in said if isinstance(x, Cancel)]


def resting(side: Side, limit: str, name: str) -> Order:
    from gekko.domain.order import OrderType
    return Order(name, Intent(SYMBOL, side, D('0.01'), OrderType.LIMIT, D(limit), post_only=True), OrderState.ACCEPTED)


def test_both_sides_round_the_middle(load: Load) -> None:
    placed, cancelled = seen(load('quoting', half_spread_bps=1.0).Quoter(), '59999.00', '60001.00')
    assert placed == {Side.BUY: D('59994.00'), Side.SELL: D('60006.00')} and not cancelled


def test_a_position_moves_both_quotes_against_it(load: Load) -> None:
    s = load('quoting', half_spread_bps=1.0, skew_bps=1.0)
    long, _ = seen(s.Quoter(), '59999.00', '60001.00', held='0.025')
    short, _ = seen(s.Quoter(), '59999.00', '60001.00', held='-0.025')
    assert long == {Side.BUY: D('59991.00'), Side.SELL: D('60003.00')} and short == {Side.BUY: D('59997.00'), Side.SELL: D('60009.00')}


def test_the_largest_position_is_not_passed(load: Load) -> None:
    s = load('quoting')
    assert set(seen(s.Quoter(), '59999', '60001', held='0.05')[0]) == {Side.SELL}
    assert set(seen(s.Quoter(), '59999', '60001', held='-0.045')[0]) == {Side.BUY}
    assert set(seen(load('quoting', short=False).Quoter(), '59999', '60001')[0]) == {Side.BUY}


NEAR = resting(Side.SELL, '60056.00', 'g2')


def test_a_quote_that_is_near_stays_and_one_that_is_far_is_changed(load: Load) -> None:
    q, far = load('quoting', half_spread_bps=1.0, leave_bps=0.5).Quoter(), resting(Side.BUY, '59996.00', 'g1')
    assert seen(q, '59999.00', '60001.00', far, resting(Side.SELL, '60006.00', 'g2')) == ({}, [])
    assert asked(q, '60049.00', '60051.00', far, NEAR) == [Amend('g1', limit=D('60043.99'))]


def test_while_a_change_is_on_its_way_nothing_else_is_asked(load: Load) -> None:
    q, far = load('quoting', half_spread_bps=1.0, leave_bps=0.5).Quoter(), resting(Side.BUY, '59996.00', 'g1')
    assert asked(q, '60049.00', '60051.00', far, NEAR)
    waits = replace(far, amending=AmendRequested('g1', limit=D('60043.99')))
    q.on_order(waits, BookLine())
    assert asked(q, '60149.00', '60151.00', waits, NEAR, ts=10**10) == [Amend('g2', limit=D('60156.02'))]


def test_an_order_that_was_changed_is_changed_again(load: Load) -> None:
    q, far = load('quoting', half_spread_bps=1.0, leave_bps=0.5).Quoter(), resting(Side.BUY, '59996.00', 'g1')
    assert asked(q, '60049.00', '60051.00', far, NEAR)
    moved = resting(Side.BUY, '60043.99', 'g1')
    q.on_order(moved, BookLine())
    assert asked(q, '60099.00', '60101.00', moved, resting(Side.SELL, '60106.00', 'g2'), ts=10**10) == [Amend('g1', limit=D('60093.99'))]


@pytest.mark.parametrize('reason', ['not changed: routed does not offer AMEND', 'the venue has filled a part of it'])
def test_an_order_that_the_venue_won_t_change_is_replaced(reason: str, load: Load) -> None:
    q, far = load('quoting', half_spread_bps=1.0, leave_bps=0.5).Quoter(), resting(Side.BUY, '59996.00', 'g1')
    assert asked(q, '60049.00', '60051.00', far, NEAR)
    q.on_order(replace(far, reason=reason), BookLine())
    assert seen(q, '60049.00', '60051.00', far, NEAR, ts=10**10) == ({Side.BUY: D('60043.99')}, ['g1'])
    q.on_order(replace(far, state=OrderState.CANCELLED), BookLine())
    new = resting(Side.BUY, '60043.99', 'g3')
    assert asked(q, '60099.00', '60101.00', new, resting(Side.SELL, '60106.00', 'g2'), ts=2 * 10**10) == [Amend('g3', limit=D('60093.99'))]


def test_a_side_that_is_not_quoted_any_more_is_cancelled_and_a_second_order_too(load: Load) -> None:
    q = load('quoting', half_spread_bps=1.0, leave_bps=0.5).Quoter()
    two = resting(Side.BUY, '59996.00', 'g1'), resting(Side.BUY, '59990.00', 'g4')
    assert seen(q, '59999.00', '60001.00', *two, resting(Side.SELL, '60005.00', 'g2'), held='0.05')[1] == ['g1', 'g4']
    said = asked(load('quoting', half_spread_bps=1.0).Quoter(), '60049.00', '60051.00', *two, NEAR)
    assert said == [Cancel('g4'), Amend('g1', limit=D('60043.99'))]


def test_what_was_asked_for_is_waited_for(load: Load) -> None:
    q = load('quoting').Quoter()
    assert len(seen(q, '59999', '60001')[0]) == 2
    assert seen(q, '59999', '60001', ts=5)[0] == {}
    assert len(seen(q, '59999', '60001', ts=2_000_000_000)[0]) == 2



def test_a_crossed_market_is_not_quoted(load: Load) -> None:
    assert seen(load('quoting').Quoter(), '60001', '60000') == ({}, [])


def test_parameters_that_contradict_each_other_are_refused(cells: Callable[[str], list[tuple[str, bool]]]) -> None:
    code = next(source for source, _ in cells('quoting') if 'size and most' in source)
    with pytest.raises(BadInput, match='0 < size <= most'): exec(code, {'size': 1.0, 'most': 0.5, 'half_spread_bps': 1.0})


@pytest.mark.parametrize('spread', [1, 7, 250, 5000])
@pytest.mark.parametrize('held', ['-0.04', '0', '0.04'])
def test_it_never_takes(spread: int, held: str, load: Load) -> None:
    s = load('quoting', skew_bps=500.0)
    for bid in range(5_900_000, 6_100_000, 9_973):
        placed, _ = seen(s.Quoter(), str(D(bid) / 100), str(D(bid + spread) / 100), held=held)
        assert placed.get(Side.BUY, D(0)) < D(bid + spread) / 100 and placed.get(Side.SELL, D(10**9)) > D(bid) / 100
