"""Orders routed over two venues, through real sockets, while both are well."""
from __future__ import annotations

from decimal import Decimal

import pytest
from routed_stage import BTC, FOK, IOC, S, Desk, stage

from gekko.domain.errors import BadInput
from gekko.domain.order import Cancelled, CancelRejected, Intent, Order, OrderType, Rejected, Side

D = Decimal


@pytest.fixture
def desk():  # type: ignore[no-untyped-def]
    with stage() as d: yield d


def test_the_legs_are_the_best_net_price_by_both_books_and_cost_what_was_said(desk: Desk) -> None:
    parent = desk.parent('buy', '0.8')
    least = desk.cheapest(Side.BUY, parent.qty)
    desk.step(parent)
    said = desk.venue.last
    assert said is not None and said.net == least and not said.left
    desk.work(parent)
    assert desk.at(parent) == {'coinbase': D('0.3'), 'binanceus': D('0.5')}
    paid = sum(o.paid for o in desk.legs(parent)) + sum(o.paid * {'binanceus': D('0.001'), 'coinbase': D('0.006')}[o.intent.venue] for o in desk.legs(parent))
    assert paid == least
    assert all(o.intent.parent == parent.parent and o.intent.tif is IOC and o.intent.venue for o in desk.legs(parent))
    desk.audit()


def test_the_dearer_price_wins_where_its_fee_is_lower(desk: Desk) -> None:
    desk.market(coinbase=('59800', '0.3', 5))      # 200 dollars below Binance.US, 358.81 of fee above
    parent = desk.parent('buy', '0.2')
    least = desk.cheapest(Side.BUY, parent.qty)
    desk.work(parent)
    assert desk.at(parent) == {'binanceus': D('0.2')} and desk.venue.last is not None
    assert desk.legs(parent)[0].paid * D('1.001') == least
    desk.audit()


def test_coins_are_sold_where_they_lie_and_nowhere_else(desk: Desk) -> None:
    bought = desk.parent('buy', '0.8')
    desk.work(bought)
    assert desk.venue.split(desk.parent('sell', '0.8')) == [], 'what was just bought counts once the venue was asked'
    desk.venue.renew()
    desk.until(lambda: desk.venue.split(desk.parent('sell', '0.8')))
    desk.market(binanceus=('61000', '0.4', 5), coinbase=('62000', '0.4', 5))
    parent = desk.parent('sell', '0.7995')                       # Binance.US kept 0.0005 for its fee
    brought = desk.cheapest(Side.SELL, D('0.3'), ('coinbase',)) + desk.cheapest(Side.SELL, D('0.4995'), ('binanceus',))
    desk.step(parent)
    assert desk.venue.last is not None and desk.venue.last.net == brought
    desk.work(parent)
    assert desk.at(parent) == {'coinbase': D('0.3'), 'binanceus': D('0.4995')} and desk.venue.positions() == {}
    desk.audit()


def test_what_is_bought_while_the_balances_are_asked_for_is_not_spent_twice(desk: Desk) -> None:
    desk.boxes['coinbase'].call(lambda: desk.boxes['coinbase'].server.protocol.deposit('USD', D(-980_000)))
    desk.fault('coinbase', {'fault': 'slow', 'op': 'query', 's': 0.4})
    desk.venue.renew()
    parent = desk.parent('buy', '0.3')
    desk.work(parent)
    desk.until(lambda: (desk.venue.members['coinbase'].purse or {}).get('USD', D(0)) < 20_000)
    held = desk.boxes['coinbase'].call(lambda: desk.boxes['coinbase'].server.protocol.wallets.balances('main')['USD'].total)
    assert (desk.venue.members['coinbase'].purse or {})['USD'] <= held
    assert desk.venue.balances() == {} and (desk.venue.members['coinbase'].purse or {})['USD'] == held


def test_cash_is_spent_where_it_lies(desk: Desk) -> None:
    desk.boxes['coinbase'].call(lambda: desk.boxes['coinbase'].server.protocol.deposit('USD', D(-994_000)))
    desk.venue.balances()
    parent = desk.parent('buy', '0.8')
    desk.step(parent)
    legs = {o.intent.venue: o.intent for o in desk.legs(parent)}
    assert legs['coinbase'].qty == D('0.09991') and legs['binanceus'].qty == D('0.70009')      # 6,000 dollars at 59,691 and 0.6 %, in lots that both take
    assert desk.venue.terms(BTC, desk.venue.books(BTC))['coinbase'].free_quote == 6000 - D('0.09991') * 59691 * D('1.006')
    desk.account = desk.account.__class__('routed', cash={'USD': D(1_006_000)})
    desk.work(parent)
    assert desk.venue.terms(BTC, desk.venue.books(BTC))['coinbase'].free_quote == 6000 - D('0.09991') * 59691 * D('1.006'), 'it is spent before the venue is asked'
    desk.audit()


def test_each_venue_has_its_own_minimum(desk: Desk) -> None:
    small = desk.parent('buy', '0.0001')        # six dollars: Coinbase takes one, Binance.US ten
    desk.market(coinbase=('60500', '0.3', 5))   # and Coinbase is the dearer one now
    desk.work(small)
    assert desk.at(small) == {'coinbase': D('0.0001')}
    desk.fault('coinbase', {'fault': 'halted'})
    other = desk.parent('buy', '0.0001')
    desk.until(lambda: not desk.step(other) and desk.venue.last is not None and 'coinbase' in desk.venue.last.why and desk.legs(other))
    assert desk.venue.last is not None and desk.venue.last.left == D('0.0001') and desk.venue.last.why['binanceus'] == 'its part would be under its least, 0.00017'
    assert [o.state for o in desk.legs(other)] == [S.REJECTED]
    desk.audit()


def test_a_small_part_is_never_left_for_a_venue_that_refuses_it(desk: Desk) -> None:
    parent = desk.parent('buy', '0.3001')       # 0.3 at Coinbase, and 0.0001 for Binance.US would be too little
    least = min(desk.cheapest(Side.BUY, D('0.29983'), ('coinbase',)) + desk.cheapest(Side.BUY, D('0.00027'), ('binanceus',)), desk.cheapest(Side.BUY, D('0.3001'), ('binanceus',)))
    desk.work(parent)
    assert desk.venue.last is not None and not [o for o in desk.legs(parent) if o.state is S.REJECTED]
    assert desk.at(parent)['binanceus'] >= D('0.00017') and sum(o.paid * (1 + {'binanceus': D('0.001'), 'coinbase': D('0.006')}[o.intent.venue]) for o in desk.legs(parent)) <= least
    desk.audit()


def test_a_limit_holds_for_every_leg_before_fees_or_after(desk: Desk) -> None:
    parent = desk.parent('buy', '0.8', '60001.01', IOC)
    assert [(i.venue, i.qty, i.limit) for i in desk.venue.split(parent)] == [('binanceus', D('0.5'), D('60001.01')), ('coinbase', D('0.3'), D(59691))]
    assert [(i.venue, i.qty) for i in desk.venue.split(desk.parent('buy', '0.8', '60050', IOC), after_fees=True)] == [('coinbase', D('0.3'))]
    assert desk.venue.last is not None and desk.venue.last.left == D('0.5') and 'beyond the limit' in desk.venue.last.why['binanceus']


def test_what_nobody_offers_rests_at_the_cheapest_maker_and_is_cancelled_there(desk: Desk) -> None:
    parent = desk.parent('buy', '0.5', '59700')
    desk.work(parent, until=lambda: any(o.state is S.ACCEPTED and o.intent.tif is parent.tif for o in desk.legs(parent)))
    taken, waiting = desk.legs(parent)
    assert (taken.intent.venue, taken.filled) == ('coinbase', D('0.3'))
    assert (waiting.intent.venue, waiting.intent.qty, waiting.intent.limit, waiting.intent.type, waiting.intent.tif) == ('binanceus', D('0.2'), D('59700'), OrderType.LIMIT, parent.tif)
    assert desk.venue.split(parent, desk.legs(parent)) == [], 'a resting part counts in full'
    assert [(o.client_id, o.intent.venue) for o in desk.venue.open_orders()] == [(waiting.client_id, 'binanceus')]
    desk.venue.cancel(waiting.client_id)
    desk.until(lambda: desk.tracker.get(waiting.client_id).state is S.CANCELLED)
    assert any(isinstance(e, Cancelled) for e in desk.heard)
    desk.audit()


def test_post_only_takes_nothing(desk: Desk) -> None:
    [leg] = desk.venue.split(desk.parent('buy', '0.5', '59690', post_only=True))
    assert (leg.venue, leg.qty, leg.post_only) == ('binanceus', D('0.5'), True)


def test_fill_or_kill_goes_to_one_venue_whole_or_nowhere(desk: Desk) -> None:
    parent = desk.parent('buy', '0.8', '61000', FOK)
    [leg] = desk.venue.split(parent)
    assert (leg.venue, leg.qty, leg.tif) == ('binanceus', D('0.8'), FOK)
    assert desk.venue.split(desk.parent('buy', '1.6', '61000', FOK)) == []
    assert desk.venue.last is not None and desk.venue.last.left == D('1.6')
    desk.work(parent)
    desk.audit()


def test_orders_that_nobody_can_place_are_said_not_to_have_left(desk: Desk) -> None:
    names = [desk.send(Intent(BTC, Side.BUY, D('0.1'), venue=v)) for v in ('', 'kraken')]
    desk.until(lambda: all(desk.tracker.get(n).state is S.REJECTED for n in names))
    assert [e.reason for e in desk.heard if isinstance(e, Rejected)] == ['not sent: no member named: a routed order needs one', 'not sent: no such member: kraken']
    desk.venue.cancel('gnobody')
    desk.listen()
    assert isinstance(desk.heard[-1], CancelRejected) and desk.tracker.strays == [desk.heard[-1]]
    desk.tracker.strays.clear()
    with pytest.raises(BadInput, match='no gate approved'): desk.venue.submit(Order('g', Intent(BTC, Side.BUY, D(1))))  # type: ignore[arg-type]
    desk.audit()


def test_an_order_for_a_named_venue_goes_there_and_is_amended_there(desk: Desk) -> None:
    name = desk.send(Intent(BTC, Side.BUY, D('0.1'), OrderType.LIMIT, D(50000), venue='coinbase'))
    desk.until(lambda: desk.tracker.get(name).state is S.ACCEPTED)
    order = desk.venue.order(name)
    assert order is not None and (order.intent.venue, order.state) == ('coinbase', S.ACCEPTED)
    assert desk.venue.order('gaaaaaaaaaaaaaaaaaaa') is None
    changed = desk.gate.check(Order(name, Intent(BTC, Side.BUY, D('0.2'), OrderType.LIMIT, D(50000), venue='coinbase')), desk.view)
    desk.venue.amend(changed)  # type: ignore[arg-type]
    desk.until(lambda: desk.tracker.get(name).intent.qty == D('0.2'))


def test_stamps_of_all_members_are_told(desk: Desk) -> None:
    parent = desk.parent('buy', '0.8')
    desk.work(parent)
    stamps = {s.client_id: s for s in desk.venue.stamps()}
    assert stamps.keys() == {o.client_id for o in desk.legs(parent)} and all(0 < s.sent < s.heard for s in stamps.values())
