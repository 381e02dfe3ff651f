"""The exchange: money that is never made or lost, holds that always suffice, and every refusal."""
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.order import OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import HOUR, SECOND, SimClock, utc
from gekko.venue.sandbox.exchange import Exchange, Listing, OrderChanged, Print, Refusal, Rules, SpotWallets, Ticket
from gekko.venue.sandbox.market import set_price
from gekko.venue.sandbox.orders import WORDS, Event

D = Decimal
BUY, SELL = Side.BUY, Side.SELL
LIMIT, STOP, STOP_LIMIT = OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT
NOON = utc('2026-03-02T12:00:00Z')
ACCOUNTS = ('ann', 'bob')
START = {'USD': D(10_000), 'BTC': D(10)}


def venue(fees: str = 'received', rules: Rules | None = None, price: str = '100') -> tuple[Exchange, SpotWallets, SimClock]:
    clock, wallets = SimClock(NOON), SpotWallets(fees)
    listing = Listing('BTC-USD', 'BTC', 'USD', tick=D('0.5'), lot=D('0.01'), min_qty=D('0.01'), max_qty=D(1000), min_notional=D(1), maker_bps=D('7.5'), taker_bps=D('12.5'), price=D(price))
    ex = Exchange([listing], clock, wallets, rules)
    for a in ACCOUNTS:
        for asset, amount in START.items(): wallets.deposit(a, asset, amount)
    return ex, wallets, clock


def order(name: str, side: Side, **more: Any) -> Ticket: return Ticket(name, 'BTC-USD', side, **more)


TICKS = st.integers(180, 220).map(lambda n: D(n) / 2)
LOTS = st.integers(1, 400).map(lambda n: D(n) / 100)
STEPS = st.lists(st.one_of(
    st.tuples(st.just('place'), st.sampled_from(ACCOUNTS), st.sampled_from(Side), st.sampled_from(OrderType), LOTS, TICKS, TICKS, st.sampled_from([t for t in TimeInForce if t is not TimeInForce.GTD]), st.booleans()),
    st.tuples(st.just('spend'), st.sampled_from(ACCOUNTS), st.sampled_from(Side), st.integers(2, 2_000).map(D)),
    st.tuples(st.just('cancel'), st.integers(0, 50)),
    st.tuples(st.just('amend'), st.integers(0, 50), LOTS, TICKS),
    st.tuples(st.just('move'), TICKS, st.one_of(st.none(), LOTS)),
    st.tuples(st.just('hit'), st.sampled_from(Side), LOTS)), min_size=5, max_size=40)


def do(ex: Exchange, n: int, step: tuple[Any, ...]) -> None:
    match step:
        case ('place', account, side, kind, qty, limit, stop, tif, post):
            ex.place(account, order(f'g{n}', side, type=kind, qty=qty, limit=limit if kind in (LIMIT, STOP_LIMIT) else None, stop=stop if kind in (STOP, STOP_LIMIT) else None, tif=tif,
                                    post_only=post and kind is LIMIT and tif in (TimeInForce.GTC, TimeInForce.DAY)))
        case ('spend', account, side, spend): ex.place(account, order(f'g{n}', side, spend=spend))
        case ('cancel', k) if ex.works: ex.cancel((w := list(ex.works.values())[k % len(ex.works)]).account, w.order_id)
        case ('amend', k, qty, limit) if ex.works:
            w = list(ex.works.values())[k % len(ex.works)]
            ex.amend(w.account, w.order_id, qty=qty, limit=limit if w.ticket.limit is not None else None)
        case ('move', price, size): set_price(ex, 'BTC-USD', price, size, levels=3)
        case ('hit', side, qty): ex.hit('BTC-USD', side, qty)


def balance(ex: Exchange, wallets: SpotWallets) -> None:
    """Every purse is what it began with and what its fills moved; nothing is locked that no open order needs."""
    for account in ACCOUNTS:
        expected = dict(START)
        for d in ex.deals(account):
            sign = 1 if d.side is BUY else -1
            expected['BTC'] += sign * d.qty
            expected['USD'] -= sign * d.worth
            expected[d.fee_currency] -= d.fee
        for asset, purse in wallets.balances(account).items():
            assert purse.total == expected[asset], f'{account} {asset}'
            assert purse.free >= 0 and purse.locked >= 0
            assert purse.locked == sum((h.amount for h in wallets.holds.values() if (h.account, h.asset) == (account, asset)), D(0))
    assert set(wallets.holds) == set(ex.open_works)
    for w in ex.open_works.values():
        need = w.left if w.side is SELL else w.left * (w.ticket.limit or w.ticket.stop or D(0))
        assert wallets.holds[w.order_id].amount >= need and not w.done and w.left > 0


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(('received', 'quote')), st.sampled_from(('refuse', 'trigger')), st.sampled_from(('last', 'quote')))
def test_no_money_is_made_or_lost(steps: list[tuple[Any, ...]], fees: str, through: str, trigger: str) -> None:
    ex, wallets, _ = venue(fees, Rules(trigger=trigger, stop_through=through))
    set_price(ex, 'BTC-USD', D(100), levels=3)
    for n, step in enumerate(steps):
        try: do(ex, n, step)
        except Refusal as e: assert e.word in WORDS
        balance(ex, wallets)
        book = ex.pit('BTC-USD').book
        assert book.best_bid is None or book.best_ask is None or book.best_bid < book.best_ask
        assert {i for i, o in book.orders.items() if o.owner} | set(ex.pit('BTC-USD').stops) == set(ex.open_works)
    ids = [p.trade_id for p in ex.tape('BTC-USD', 100_000)]
    assert ids == list(range(1, len(ids) + 1))
    assert [d.seq for d in ex.deals_done] == list(range(1, len(ex.deals_done) + 1))


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_the_events_tell_the_whole_story(steps: list[tuple[Any, ...]]) -> None:
    """Whoever listens knows each order's fills and its end, and each print, without asking."""
    ex, _, _ = venue()
    filled: dict[int, Decimal] = {}
    over: dict[int, str] = {}
    prints: list[int] = []

    def hear(e: Event) -> None:
        if isinstance(e, Print): prints.append(e.trade_id)
        if not isinstance(e, OrderChanged): return
        i = e.work.order_id
        assert i not in over, 'an event after the end'
        if e.what == 'new': filled[i] = D(0)
        if e.deal: filled[i] += e.deal.qty
        if e.work.done: over[i] = e.what
    ex.listeners.append(hear)
    set_price(ex, 'BTC-USD', D(100), levels=3)
    for n, step in enumerate(steps):
        try: do(ex, n, step)
        except Refusal: pass
    assert filled == {i: w.filled for i, w in ex.works.items()}
    assert over.keys() == {i for i, w in ex.works.items() if w.done}
    assert all(what == {'filled': 'filled', 'cancelled': 'cancelled', 'expired': 'expired'}[ex.works[i].state.value] for i, what in over.items())
    assert prints == [p.trade_id for p in ex.tape('BTC-USD', 100_000)]


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as e: work()
    return e.value.word


def test_every_word_of_refusal_is_reached() -> None:
    ex, wallets, clock = venue()
    ex.pits['BTC-USD'].listing.band = (D('0.2'), D(5))
    wide, _, _ = venue()
    said = [refused(lambda: wide.place('ann', order('x', BUY, qty=D(1))))]                                              # nobody sells
    set_price(ex, 'BTC-USD', D(100))
    place = lambda **more: ex.place('ann', order(more.pop('name', 'x'), more.pop('side', BUY), **more))
    said.append(refused(lambda: ex.place('ann', Ticket('x', 'DOGE-USD', BUY, qty=D(1)))))
    said.append(refused(lambda: place(type=LIMIT, qty=D(1))))                                                           # no limit
    said.append(refused(lambda: place(type=LIMIT, qty=D(1), limit=D('99.75'))))
    said.append(refused(lambda: place(qty=D('0.015'))))
    said.append(refused(lambda: place(qty=D('0.001'))))
    said.append(refused(lambda: place(qty=D(1001))))
    said.append(refused(lambda: place(type=LIMIT, qty=D('0.01'), limit=D(50))))                                         # worth half a dollar
    said.append(refused(lambda: place(type=LIMIT, qty=D(1), limit=D(1000))))                                            # out of the band
    said.append(refused(lambda: place(qty=D(500))))
    said.append(refused(lambda: place(type=LIMIT, qty=D(1), limit=D(200), post_only=True)))
    said.append(refused(lambda: place(type=STOP, qty=D(1), stop=D(50))))                                                # a buy stop below the market
    said.append(refused(lambda: place(qty=D(1), reduce_only=True)))
    first = place(name='mine', type=LIMIT, qty=D(1), limit=D(50))
    said.append(refused(lambda: place(name='mine', qty=D(1))))
    said.append(refused(lambda: ex.cancel('bob', first.order_id)))
    ex.cancel('ann', first.order_id)
    said.append(refused(lambda: ex.cancel('ann', first.order_id)))
    ex.relist('BTC-USD', {'status': 'halted'})
    said.append(refused(lambda: place(qty=D(1))))
    ex.relist('BTC-USD', {'status': 'closed'})
    said.append(refused(lambda: place(qty=D(1))))
    assert set(said) == set(WORDS) - {'rate_limited'}, 'rate_limited is the protocols\' own'
    assert not ex.open_works and not wallets.holds, 'a refusal leaves nothing behind'


@pytest.mark.parametrize('rules,again', [(Rules(unique='open'), True), (Rules(unique='ever'), False)])
def test_a_client_id_may_come_again_where_the_venue_allows_it(rules: Rules, again: bool) -> None:
    ex, _, _ = venue(rules=rules)
    set_price(ex, 'BTC-USD', D(100))
    ex.place('ann', order('a', BUY, qty=D(1)))
    ex.place('bob', order('a', BUY, qty=D(1)))     # another account's name
    if again: assert ex.place('ann', order('a', BUY, qty=D(2))) is ex.find('ann', client_id='a')
    else: assert refused(lambda: ex.place('ann', order('a', BUY, qty=D(2)))) == 'duplicate_id'


def test_two_customers_share_a_trade() -> None:
    ex, wallets, _ = venue()
    rest = ex.place('ann', order('a', SELL, type=LIMIT, qty=D(2), limit=D(100)))
    take = ex.place('bob', order('b', BUY, type=LIMIT, qty=D(3), limit=D(101)))
    assert (rest.state, take.state, take.filled, take.average) == (OrderState.FILLED, OrderState.PARTLY_FILLED, 2, 100)
    assert rest.deals[0].trade_id == take.deals[0].trade_id and rest.deals[0].maker and not take.deals[0].maker
    assert wallets.purse('bob', 'USD').locked == 101
    printed, = ex.tape('BTC-USD')
    assert (printed.side, printed.buyer, printed.seller) == (BUY, take.order_id, rest.order_id)
    assert wallets.taken == {'USD': D('0.15'), 'BTC': D('0.0025')}, '7.5 bps of 200 USD, 12.5 bps of 2 BTC'


def test_an_order_bought_by_amount_never_spends_more() -> None:
    ex, wallets, _ = venue('quote')
    ex.make('BTC-USD', [], [(D(100), D(1)), (D(110), D(50))])
    w = ex.place('ann', order('a', BUY, spend=D(1_000)))
    assert w.paid == 100 + D('8.18') * 110 and w.paid <= 1_000 < w.paid + D('0.01') * 110
    assert wallets.purse('ann', 'USD').total == 10_000 - w.paid - w.fees['USD']


def test_day_orders_end_with_the_day_and_dated_ones_at_their_time() -> None:
    ex, wallets, clock = venue()
    day = ex.place('ann', order('d', BUY, type=LIMIT, qty=D(1), limit=D(50), tif=TimeInForce.DAY))
    dated = ex.place('ann', order('e', BUY, type=LIMIT, qty=D(1), limit=D(50), expires=NOON + HOUR))
    forever = ex.place('ann', order('f', BUY, type=LIMIT, qty=D(1), limit=D(50)))
    clock.advance(HOUR - 1)
    assert ex.expire() == []
    clock.advance(1)
    assert ex.expire() == [dated] and dated.state is OrderState.EXPIRED
    clock.advance(11 * HOUR)
    assert ex.expire() == [day] and wallets.purse('ann', 'USD').locked == 50 and not forever.done
    assert refused(lambda: ex.place('ann', order('g', BUY, type=LIMIT, qty=D(1), limit=D(50), expires=NOON))) == 'bad_order'


def test_stops_go_off_one_after_another() -> None:
    """The first stop's own selling reaches the second: a cascade, each at what the book then has."""
    ex, _, _ = venue()
    ex.make('BTC-USD', [(D(99), D(1)), (D(97), D(1)), (D(90), D(5))], [(D(101), D(5))])
    ex.print_trade('BTC-USD', D(100), D('0.01'), BUY)
    a = ex.place('ann', order('a', SELL, type=STOP, qty=D(2), stop=D(99)))
    b = ex.place('bob', order('b', SELL, type=STOP, qty=D(1), stop=D(97)))
    ex.hit('BTC-USD', SELL, D('0.01'))
    assert [(d.price, d.qty) for d in a.deals] == [(99, D('0.99')), (97, 1), (90, D('0.01'))]
    assert [(d.price, d.qty) for d in b.deals] == [(90, 1)] and a.updated <= b.updated


def test_a_stop_that_cannot_be_paid_any_more_ends() -> None:
    ex, wallets, _ = venue()
    set_price(ex, 'BTC-USD', D(100))
    stop = ex.place('ann', order('a', BUY, type=STOP, qty=D(90), stop=D(105)))
    set_price(ex, 'BTC-USD', D(120))
    assert (stop.state, stop.reason, stop.filled) == (OrderState.EXPIRED, 'insufficient', 0) and wallets.purse('ann', 'USD').free == 10_000


def test_an_amended_order_keeps_or_loses_its_place() -> None:
    ex, wallets, _ = venue()
    first = ex.place('ann', order('a', SELL, type=LIMIT, qty=D(3), limit=D(100)))
    ex.place('bob', order('b', SELL, type=LIMIT, qty=D(1), limit=D(100)))
    ex.amend('ann', first.order_id, qty=D(2))
    ex.hit('BTC-USD', BUY, D(1))
    assert first.filled == 1 and wallets.purse('ann', 'BTC').locked == 1
    ex.amend('ann', first.order_id, qty=D(4))
    ex.hit('BTC-USD', BUY, D(1))
    assert first.filled == 1 and ex.find('bob', client_id='b').filled == 1, 'growing went to the end of the queue'
    assert refused(lambda: ex.amend('ann', first.order_id, qty=D(1))) == 'too_small'
    assert refused(lambda: ex.amend('ann', first.order_id, qty=D(40))) == 'insufficient'
    assert wallets.purse('ann', 'BTC').locked == 3 and first.qty == 4, 'a refused change changes nothing'


def test_one_match_in_parts_is_one_match() -> None:
    ex, wallets, _ = venue()
    set_price(ex, 'BTC-USD', D(100))
    ex.parts = lambda ticket: 4
    w = ex.place('ann', order('a', BUY, qty=D('0.1')))
    assert [d.qty for d in w.deals] == [D('0.02'), D('0.02'), D('0.02'), D('0.04')] and w.state is OrderState.FILLED
    assert len({d.trade_id for d in w.deals}) == 4
    balance(ex, wallets)


def test_the_clock_of_an_order_is_the_venues() -> None:
    ex, _, clock = venue()
    w = ex.place('ann', order('a', BUY, type=LIMIT, qty=D(1), limit=D(100)))
    clock.advance(5 * SECOND)
    ex.hit('BTC-USD', SELL, D(1))
    assert (w.created, w.updated, w.deals[0].ts) == (NOON, NOON + 5 * SECOND, NOON + 5 * SECOND)
