"""The whole life of each kind of order at Binance.US's sandbox, over real sockets."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from binanceus_stage import BTC, ETH, D, Desk, S, reason, stage

from gekko.domain.errors import BadInput
from gekko.domain.order import Amended, AmendRejected, CancelRejected, Filled, Intent, Order, OrderType, Side, TimeInForce
from gekko.execution.broker import Capability
from gekko.execution.reconcile import compare

LIMIT, STOP_LIMIT = OrderType.LIMIT, OrderType.STOP_LIMIT


@pytest.fixture
def desk() -> Iterator[Desk]:
    with stage() as d: yield d


def test_market_order(desk: Desk) -> None:
    name = desk.send('buy', '2')
    order = desk.expect(name, S.FILLED)
    assert order.paid == D(2) * D('100.01') and desk.words(name) == ['Accepted', 'Filled']
    [fill] = [e.fill for e in desk.heard if isinstance(e, Filled)]
    assert (fill.fee, fill.fee_currency, fill.maker) == (D('0.002'), 'BTC', False)
    desk.audit()


def test_market_order_takes_what_there_is(desk: Desk) -> None:
    "Ten levels of 1 on the book: the rest of the order is cancelled, with its fills said before."
    desk.market(100, '1')
    name = desk.send('buy', '15')
    order = desk.expect(name, S.CANCELLED)
    assert order.filled == 10 and len(order.fill_ids) == 10 and desk.words(name)[-1] == 'Cancelled'
    desk.audit()


def test_limit_order_rests_fills_in_parts_and_is_cancelled(desk: Desk) -> None:
    name = desk.limit('buy', '3', 98)
    desk.expect(name, S.ACCEPTED)
    [there] = desk.venue.open_orders()
    assert (there.client_id, there.symbol, there.side, there.intent.qty, there.intent.limit, there.filled) == (name, BTC, Side.BUY, 3, 98, 0)
    desk.market(97, '0.1')
    desk.expect(name, S.PARTLY_FILLED)
    desk.quiet()
    asked = desk.venue.order(name)
    assert asked is not None and asked.filled == desk.get(name).filled and asked.fill_ids == desk.get(name).fill_ids and asked.fees == desk.get(name).fees
    desk.venue.cancel(name)
    desk.expect(name, S.CANCELLED)
    assert all(e.fill.maker for e in desk.heard if isinstance(e, Filled))
    desk.audit()


@pytest.mark.parametrize('tif', [TimeInForce.IOC, TimeInForce.FOK])
def test_orders_that_never_wait(desk: Desk, tif: TimeInForce) -> None:
    away = desk.limit('buy', '2', 90, tif=tif)
    assert desk.expect(away, S.CANCELLED).filled == 0
    taker = desk.limit('buy', '2', '100.5', tif=tif)
    assert desk.expect(taker, S.FILLED).filled == 2
    desk.market(100, '0.5')
    most = desk.limit('buy', '20', 101, tif=tif)
    assert desk.expect(most, S.CANCELLED).filled == (5 if tif is TimeInForce.IOC else 0)
    desk.audit()


def test_post_only(desk: Desk) -> None:
    taking = desk.limit('buy', '2', 105, post_only=True)
    desk.expect(taking, S.REJECTED)
    assert 'immediately match' in reason(desk, taking)
    resting = desk.limit('buy', '2', 98, post_only=True)
    desk.expect(resting, S.ACCEPTED)
    desk.market(97)
    desk.expect(resting, S.FILLED)
    desk.audit()


def test_stop_limit(desk: Desk) -> None:
    name = desk.send('buy', '2', STOP_LIMIT, stop=105, limit=106)
    desk.expect(name, S.ACCEPTED)
    desk.market(110)
    desk.quiet()
    assert desk.get(name).filled == 0 and desk.words(name) == ['Accepted']
    desk.market(104)
    desk.expect(name, S.FILLED)
    touched = desk.send('buy', '2', STOP_LIMIT, stop=90, limit=91)
    desk.expect(touched, S.REJECTED)
    assert 'trigger immediately' in reason(desk, touched)
    desk.audit()


def test_two_symbols(desk: Desk) -> None:
    names = [desk.send('buy', '1'), desk.send('buy', '5', symbol=ETH), desk.limit('buy', '1', 99), desk.limit('buy', '5', 9, symbol=ETH)]
    for name in names[:2]: desk.expect(name, S.FILLED)
    for name in names[2:]: desk.expect(name, S.ACCEPTED)
    assert {o.client_id for o in desk.venue.open_orders()} == set(names[2:])
    assert set(desk.venue.positions()) == {BTC, ETH}
    assert compare(desk.account, desk.tracker, desk.venue) == []
    desk.audit()


def test_sizes_and_prices_leave_as_plain_digits(desk: Desk) -> None:
    name = desk.limit('buy', '1E+1', '9.9E+1')
    desk.expect(name, S.ACCEPTED)
    small = desk.send('buy', '2E-5', LIMIT, limit='1E+6')
    desk.expect(small, S.REJECTED, S.FILLED)
    asked = desk.venue.order(name)
    assert asked is not None and (asked.intent.qty, asked.intent.limit) == (10, 99)


# --- names, cancels, amendments

def test_a_name_is_sent_once(desk: Desk) -> None:
    name = desk.limit('buy', '2', 98)
    desk.expect(name, S.ACCEPTED)
    desk.limit('buy', '2', 98, name=name)
    desk.until(lambda: desk.words(name) == ['Accepted', 'Accepted'])
    desk.market(97)
    desk.expect(name, S.FILLED)
    desk.limit('buy', '2', 98, name=name)
    desk.quiet()
    assert len(desk.truth()) == 1
    desk.audit()


def test_a_name_of_an_earlier_life_is_not_sent_again(desk: Desk) -> None:
    "A new process is given an order that was wished, sent and filled before it began: it finds it instead of sending it."
    name = desk.send('buy', '2')
    desk.expect(name, S.FILLED)
    from gekko.domain.time import SystemClock
    from gekko.venue.binanceus.broker import BinanceUS
    from gekko.venue.wire.secret import access_of
    later = BinanceUS(access_of(desk.box.card), SystemClock(), timeout_s=3.0)
    try:
        later.connect()
        later.submit(desk.approve(Order(name, desk.get(name).intent)))
        desk.venue, before = later, desk.venue
        desk.until(lambda: desk.words(name) == ['Accepted', 'Filled', 'Accepted', 'Filled'])
        desk.venue = before
        assert len(desk.box.call(lambda: desk.box.exchange.all('main'))) == 1
    finally: later.close()


def test_working_orders_of_an_earlier_life_go_on(desk: Desk) -> None:
    "Known at connect, not said again; their next fill and their end are."
    name = desk.limit('buy', '3', 98)
    desk.expect(name, S.ACCEPTED)
    desk.market(97, '0.1')
    desk.expect(name, S.PARTLY_FILLED)
    desk.quiet()
    before = desk.get(name).filled
    from gekko.domain.time import SystemClock
    from gekko.venue.binanceus.broker import BinanceUS
    from gekko.venue.wire.secret import access_of
    desk.venue.close()
    desk.venue = BinanceUS(access_of(desk.box.card), SystemClock(), timeout_s=3.0)
    desk.venue.connect()
    assert desk.venue.drain() == []
    desk.market(96, '0.05')
    desk.until(lambda: desk.get(name).filled > before)
    desk.venue.cancel(name)
    desk.expect(name, S.CANCELLED)
    desk.audit()


def test_cancel_of_what_is_over_or_never_was(desk: Desk) -> None:
    name = desk.send('buy', '2')
    desk.expect(name, S.FILLED)
    for gone in (name, 'g' + 'a' * 19):
        desk.venue.cancel(gone)
        desk.until(lambda gone=gone: any(isinstance(e, CancelRejected) and e.client_id == gone for e in desk.heard))
    desk.audit()


def test_cancel_at_once_waits_for_the_submit(desk: Desk) -> None:
    "Submit and cancel without a breath between: the cancel doesn't overtake."
    names = [desk.limit('buy', '2', 90 + n) for n in range(5)]
    for name in names: desk.venue.cancel(name)
    for name in names: desk.expect(name, S.CANCELLED)
    desk.audit()


def test_amend_price_and_size(desk: Desk) -> None:
    name = desk.limit('buy', '2', 90)
    desk.expect(name, S.ACCEPTED)
    desk.amend(name, limit='95', qty='3')
    desk.until(lambda: any(isinstance(e, Amended) for e in desk.heard))
    order = desk.get(name)
    assert (order.intent.limit, order.intent.qty, order.state) == (95, 3, S.ACCEPTED)
    asked = desk.venue.order(name)
    assert asked is not None and (asked.client_id, asked.intent.limit, asked.intent.qty) == (name, 95, 3)
    assert [o.client_id for o in desk.venue.open_orders()] == [name]
    desk.amend(name, limit='96')
    desk.until(lambda: sum(isinstance(e, Amended) for e in desk.heard) == 2)
    desk.market(94)
    desk.expect(name, S.FILLED)
    assert {f.client_id for f in desk.venue.fills_since('')} == {name}
    desk.audit()


def test_amend_then_cancel(desk: Desk) -> None:
    name = desk.limit('buy', '2', 90)
    desk.expect(name, S.ACCEPTED)
    desk.amend(name, limit='95')
    desk.venue.cancel(name)
    desk.expect(name, S.CANCELLED)
    desk.audit()


def test_amend_refused(desk: Desk) -> None:
    name = desk.limit('buy', '2', 90)
    desk.expect(name, S.ACCEPTED)
    desk.amend(name, limit='95.001')
    desk.until(lambda: any(isinstance(e, AmendRejected) and 'precision' in e.reason for e in desk.heard))
    desk.amend(name, qty='100000')
    desk.until(lambda: sum(isinstance(e, AmendRejected) for e in desk.heard) == 2)
    desk.market(89, '0.05')
    desk.expect(name, S.PARTLY_FILLED)
    desk.amend(name, limit='88')
    desk.until(lambda: any(isinstance(e, AmendRejected) and 'partly filled' in e.reason for e in desk.heard))
    desk.audit()


def test_amend_whose_new_half_is_refused_ends_the_order(desk: Desk) -> None:
    "The venue cancels the old order and refuses the new one for lack of money: both are said."
    name = desk.limit('buy', '2', 90)
    desk.expect(name, S.ACCEPTED)
    desk.amend(name, qty='8000', limit='99.5')
    desk.amend(name, qty='8999', limit='499')
    desk.until(lambda: any(isinstance(e, AmendRejected) for e in desk.heard))
    desk.quiet()
    desk.audit()


# --- what is refused

@pytest.mark.parametrize(('intent', 'words'), [
    (Intent('NOWHERE', Side.BUY, D(1)), 'unknown symbol NOWHERE'),
    (Intent(BTC, Side.BUY, D('0.000001')), 'precision: size 0.000001 is not a multiple of 0.00001'),
    (Intent(BTC, Side.BUY, D(1), LIMIT, limit=D('99.001')), 'precision: limit 99.001 is not a multiple of 0.01'),
    (Intent(BTC, Side.BUY, D('0.01'), LIMIT, limit=D(99)), 'min notional: 0.99 is below 10 USD'),
    (Intent(BTC, Side.BUY, D('0.01')), 'NOTIONAL'),
    (Intent(BTC, Side.BUY, D(100_000), LIMIT, limit=D(1)), 'size 100000 is above 9000'),
    (Intent(BTC, Side.BUY, D(1), LIMIT, limit=D(10)), 'PERCENT_PRICE'),
    (Intent(BTC, Side.SELL, D(1)), 'insufficient balance'),
    (Intent(BTC, Side.BUY, D(8000), LIMIT, limit=D(400)), 'insufficient balance'),
    (Intent(BTC, Side.BUY, D(1), OrderType.STOP, stop=D(105)), 'binanceus does not offer stop orders'),
    (Intent(BTC, Side.BUY, D(1), LIMIT, limit=D(99), tif=TimeInForce.DAY), 'binanceus does not offer good for the day'),
    (Intent(BTC, Side.BUY, D(1), tif=TimeInForce.FOK), 'fok'),
    (Intent(BTC, Side.BUY, D(1), LIMIT, limit=D(99), post_only=True, tif=TimeInForce.IOC), 'post-only'),
], ids=lambda x: x if isinstance(x, str) else '')
def test_refused_with_the_numbers(desk: Desk, intent: Intent, words: str) -> None:
    order = Order('g' + 'b' * 19, replace(intent, ts=desk.clock.now()))
    desk.tracker.add(order)
    desk.venue.submit(desk.approve(order))
    desk.expect(order.client_id, S.REJECTED)
    assert words in reason(desk, order.client_id)
    desk.audit()


def test_a_sale_reduces_what_is_held_and_no_more(desk: Desk) -> None:
    assert Capability.REDUCE_ONLY in desk.venue.capabilities and Capability.SHORT not in desk.venue.capabilities
    desk.expect(desk.send('buy', '2'), S.FILLED)
    held = desk.venue.positions()[BTC]
    more = desk.send('sell', held + D('0.00001'))
    desk.expect(more, S.REJECTED)
    assert 'insufficient' in reason(desk, more).lower()
    half = D('1.5')
    desk.expect(desk.send('sell', half, reduce_only=True), S.FILLED)
    assert desk.venue.positions()[BTC] == held - half
    desk.audit()


def test_a_halted_symbol(desk: Desk) -> None:
    desk.fault({'fault': 'halted', 'symbol': BTC})
    name = desk.send('buy', '2')
    desk.expect(name, S.REJECTED)
    assert 'not trading' in reason(desk, name)
    assert not desk.venue.refresh()[BTC].tradable
    again = desk.send('buy', '2')
    desk.expect(again, S.REJECTED)
    assert 'HALT' in reason(desk, again)
    other = desk.send('buy', '2', symbol=ETH)
    desk.expect(other, S.FILLED)
    desk.audit()


# --- fills, money, history

def test_fills_from_a_cursor_over_two_symbols(desk: Desk) -> None:
    for symbol in (BTC, ETH, BTC, ETH, ETH, BTC):
        name = desk.send('buy', '2', symbol=symbol)
        desk.expect(name, S.FILLED)
    everything = desk.venue.fills_since('')
    assert everything == [e.fill for e in desk.heard if isinstance(e, Filled)] and len(everything) == 6
    for n, fill in enumerate(everything): assert desk.venue.fills_since(fill.fill_id) == everything[n + 1:]
    with pytest.raises(BadInput): desk.venue.fills_since('paper-1')
    with pytest.raises(BadInput): desk.venue.fills_since(f'{BTC}:999999')


def test_account_market_and_history(desk: Desk) -> None:
    desk.expect(desk.send('buy', '2'), S.FILLED)
    account = desk.venue.account()
    assert account['can_trade'] and account['balances']['BTC'] == D('1.998')
    quote, depth = desk.venue.quote(BTC), desk.venue.depth(BTC, 5)
    assert (quote.bid, quote.ask) == (D('99.99'), D('100.01')) and depth.bids[0].price == quote.bid and len(depth.bids) == 5
    assert desk.venue.trades(BTC, 1)[0].price == D('100.01')
    now = desk.clock.now()
    minute = 60 * 10 ** 9
    bars = desk.venue.history(BTC, '1m', now - 2500 * minute, now + minute)
    assert len(bars) in (2500, 2501) and bars[-1].end <= now + 10 ** 9 and bars[0].end > now - 2500 * minute
    assert [b.start for b in bars] == list(range(bars[0].start, bars[-1].end, minute))
    with pytest.raises(BadInput, match='1m 3m 5m'): desk.venue.history(BTC, '7m', 0, now)
    with pytest.raises(BadInput, match='ends before'): desk.venue.history(BTC, '1m', now, now - minute)
    with pytest.raises(BadInput, match='unknown symbol'): desk.venue.quote('XYZ-USD')


def test_prices_need_no_account() -> None:
    "As a data pull does: no key, not connected."
    from gekko.venue.wire.secret import Access, Address, Credentials, Secret
    from gekko.domain.time import SystemClock
    from gekko.venue.binanceus.broker import BinanceUS
    with stage(connect=False) as desk:
        public = BinanceUS(Access('binanceus', (Address(desk.box.card['rest'], desk.box.card['ws']),), Credentials('public', Secret(''), Secret(''))), SystemClock(), timeout_s=3.0)
        try:
            now = desk.clock.now()
            assert len(public.history(BTC, '1h', now - 5 * 3600 * 10 ** 9, now)) == 5
            assert public.quote(BTC).bid == D('99.99') and public.depth(BTC, 3).asks and public.trades(BTC, 1)
            with pytest.raises(BadInput, match='needs an account'): public.cash()
        finally: public.close()


def test_ed25519_key() -> None:
    with stage(card=lambda c: {**c, 'key': c['ed25519_key'], 'secret': c['ed25519_secret']}) as desk:
        desk.expect(desk.send('buy', '2'), S.FILLED)
        desk.audit()


def test_a_closed_venue_takes_no_orders(desk: Desk) -> None:
    desk.venue.close()
    desk.venue.close()
    name = desk.send('buy', '2')
    desk.expect(name, S.REJECTED)
    assert reason(desk, name) == 'the venue is closed' and desk.truth() == {}


def test_many_orders_at_once(desk: Desk) -> None:
    names = [desk.limit('buy', '1', 90 + n % 5) if n % 3 else desk.send('buy', '1') for n in range(60)]
    for name in names: desk.expect(name, S.FILLED, S.ACCEPTED, patience_s=15)
    desk.market(80)
    for name in names: desk.expect(name, S.FILLED, patience_s=15)
    desk.audit()
