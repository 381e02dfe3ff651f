"""Coinbase's broker over real sockets: each kind of order through its whole life, against the sandbox."""
from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from coinbase_desk import LIMIT, MARKET, STOP_LIMIT, SYMBOL, Desk, desk

from gekko.domain.errors import BadInput, Halt, Retry
from gekko.domain.order import Amended, Order, OrderState, OrderType, TimeInForce
from gekko.domain.time import HOUR, MINUTE, SystemClock
from gekko.execution.reconcile import compare
from gekko.venue.coinbase.broker import Coinbase
from gekko.venue.sandbox.serve import sandbox
from gekko.venue.wire.secret import access_of

S, T, D = OrderState, TimeInForce, Decimal


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk() as it: yield it


@pytest.mark.parametrize('tif', [T.GTC, T.IOC, T.DAY])
def test_a_market_order_trades_at_once_whatever_its_time_in_force(d: Desk, tif: T) -> None:
    name = d.buy('0.5', tif=tif)
    o = d.expect(name, S.FILLED)
    assert o.avg_price == D('60000.01') and o.fees == d.deals()[0].fee
    assert d.said(name) == ['Accepted', 'Filled']
    d.agree()
    assert d.venue.positions() == {SYMBOL: D('0.5')} and d.venue.cash()['USD'] == d.wallet('USD')


def test_a_market_order_takes_what_is_there_and_ends(d: Desk) -> None:
    d.there.set_price(SYMBOL, 60000, '0.01')          # ten levels of a hundredth
    name = d.buy('0.5')
    assert 0 < d.expect(name, S.CANCELLED).filled < D('0.5')
    assert d.said(name)[0] == 'Accepted' and d.said(name)[-1] == 'Cancelled'
    d.agree()


def test_a_limit_order_rests_and_fills_as_a_maker(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='59000')
    d.expect(name, S.ACCEPTED)
    [there] = d.venue.open_orders()
    assert (there.client_id, there.intent.qty, there.intent.limit, there.state) == (name, D('0.5'), D(59000), S.ACCEPTED)
    d.there.set_price(SYMBOL, 58900)
    assert d.expect(name, S.FILLED).avg_price == D(59000)
    assert all(f.maker for f in d.venue.fills_since(''))
    d.agree()
    assert d.venue.open_orders() == []


def test_a_limit_order_fills_in_parts(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='59000')
    d.expect(name, S.ACCEPTED)
    d.there.set_price(SYMBOL, 58990, '0.02')
    d.until(lambda: d.tracker.get(name).filled > 0)
    assert d.state(name) is S.PARTLY_FILLED and d.venue.open_orders()[0].filled == d.tracker.get(name).filled
    d.there.set_price(SYMBOL, 58000)
    d.expect(name, S.FILLED)
    assert d.said(name).count('Filled') > 1
    d.agree()


@pytest.mark.parametrize(('tif', 'limit', 'ends', 'some'), [(T.IOC, '59000', S.CANCELLED, False), (T.IOC, '60001', S.CANCELLED, True), (T.FOK, '60001', S.CANCELLED, False), (T.FOK, '61000', S.CANCELLED, False)])
def test_impatient_orders_end_by_themselves(d: Desk, tif: T, limit: str, ends: S, some: bool) -> None:
    d.there.set_price(SYMBOL, 60000, '0.01')
    name = d.buy('0.5', LIMIT, limit=limit, tif=tif)
    d.until(lambda: d.state(name).terminal)
    o = d.tracker.get(name)
    assert o.state in (ends, S.REJECTED) and (o.filled > 0) == some
    d.agree()


@pytest.mark.parametrize('tif', [T.IOC, T.FOK])
def test_impatient_orders_fill_when_they_can(d: Desk, tif: T) -> None:
    assert d.expect(d.buy('0.5', LIMIT, limit='60001', tif=tif), S.FILLED).filled == D('0.5')
    d.agree()


def test_a_day_order_ends_with_the_venues_utc_day(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000', tif=T.DAY)
    d.expect(name, S.ACCEPTED)
    [work] = d.works().values()
    assert work.ticket.expires == (work.created // (24 * HOUR) + 1) * 24 * HOUR
    d.there.advance(24 * 3600)
    d.expect(name, S.EXPIRED)
    d.agree()


def test_post_only_rests_or_is_refused(d: Desk) -> None:
    taking = d.buy('0.5', LIMIT, limit='60001', post_only=True)
    assert 'POST_ONLY' in d.expect(taking, S.REJECTED).reason
    d.expect(d.buy('0.5', LIMIT, limit='59000', post_only=True), S.ACCEPTED)
    d.agree()


@pytest.mark.parametrize('side', ['buy', 'sell'])
def test_a_stop_limit_sleeps_until_the_price_comes(d: Desk, side: str) -> None:
    if side == 'sell': d.expect(d.buy('0.5'), S.FILLED)
    up = side == 'buy'
    name = d.send(side, '0.5', STOP_LIMIT, stop='61000' if up else '59000', limit='61500' if up else '58500')
    d.expect(name, S.ACCEPTED)
    shown = d.venue.order(name)
    assert shown is not None and (shown.intent.type, shown.intent.stop) == (OrderType.STOP_LIMIT, D(61000 if up else 59000))
    d.there.set_price(SYMBOL, 60500 if up else 59500)
    time.sleep(0.1)
    d.listen()
    assert d.tracker.get(name).filled == 0
    d.there.set_price(SYMBOL, 61100 if up else 58900)
    d.expect(name, S.FILLED)
    d.agree()


def test_a_stop_limit_for_the_day_expires_too(d: Desk) -> None:
    name = d.buy('0.5', STOP_LIMIT, stop='61000', limit='61500', tif=T.DAY)
    d.expect(name, S.ACCEPTED)
    d.there.advance(24 * 3600)
    d.expect(name, S.EXPIRED)
    d.agree()


def test_a_cancel_ends_an_order_and_what_is_over_is_not_cancelled(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    d.expect(name, S.ACCEPTED)
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    for gone in (name, 'g' + 'z' * 19):
        d.venue.cancel(gone)
        d.until(lambda gone=gone: any(type(e).__name__ == 'CancelRejected' and e.client_id == gone for e in d.heard))
    assert d.state(name) is S.CANCELLED
    d.tracker.strays.clear()
    d.agree()


def test_a_cancel_right_behind_its_order_finds_it(d: Desk) -> None:
    names = [d.buy('0.1', LIMIT, limit='50000') for _ in range(5)]
    for name in names: d.venue.cancel(name)
    for name in names: d.expect(name, S.CANCELLED)
    d.agree()


def test_an_amend_changes_price_and_size(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    o = d.expect(name, S.ACCEPTED)
    d.venue.amend(d.approve(Order(name, type(o.intent)(SYMBOL, o.side, D('0.7'), LIMIT, D(51000)))))
    d.until(lambda: d.tracker.get(name).intent.limit == D(51000))
    assert d.tracker.get(name).intent.qty == D('0.7') and sum(isinstance(e, Amended) for e in d.heard) == 1
    d.there.set_price(SYMBOL, 50900)
    assert d.expect(name, S.FILLED).filled == D('0.7')
    d.agree()


@pytest.mark.parametrize(('qty', 'limit', 'why'), [('0.5', '0.001', 'precision'), ('0.0000000001', '50000', 'precision'), ('0.01', '50000', 'INVALID_EDITED_SIZE'), ('40', '50000', '')])
def test_an_amend_that_cannot_be_is_refused_and_the_order_works_on(d: Desk, qty: str, limit: str, why: str) -> None:
    name = d.buy('0.5', LIMIT, limit='59000')
    o = d.expect(name, S.ACCEPTED)
    if why == 'INVALID_EDITED_SIZE':
        d.there.set_price(SYMBOL, 58995, '0.01')
        d.until(lambda: d.tracker.get(name).filled > D('0.01'))
        why = 'CANNOT_EDIT_TO_BELOW_FILLED_SIZE'
    d.venue.amend(d.approve(Order(name, type(o.intent)(SYMBOL, o.side, D(qty), LIMIT, D(limit)))))
    d.until(lambda: any(type(e).__name__ == 'AmendRejected' and why in e.reason for e in d.heard))
    assert d.tracker.get(name).intent.qty == D('0.5') and not d.state(name).terminal
    d.agree()


def test_only_resting_limit_orders_change(d: Desk) -> None:
    name = d.buy('0.5', STOP_LIMIT, stop='61000', limit='61500')
    o = d.expect(name, S.ACCEPTED)
    d.venue.amend(d.approve(o))
    d.until(lambda: any(type(e).__name__ == 'AmendRejected' for e in d.heard))
    d.agree()


@pytest.mark.parametrize(('kw', 'why'), [
    ({'symbol': 'NOPE-USD'}, 'unknown symbol'), ({'qty': '0.000000001'}, 'precision'), ({'type': LIMIT, 'limit': '59000.001'}, 'precision'), ({'type': LIMIT, 'limit': '50000', 'qty': '0.00000001'}, 'TOO_SMALL'),
    ({'qty': '4000'}, 'above'), ({'type': LIMIT, 'limit': '59000', 'qty': '1000'}, 'INSUFFICIENT_FUND'), ({'side': 'sell'}, 'INSUFFICIENT_FUND'), ({'type': OrderType.STOP, 'stop': '61000'}, 'stop orders'),
    ({'type': MARKET, 'tif': T.FOK}, 'fill-or-kill'), ({'type': STOP_LIMIT, 'stop': '61000', 'limit': '61500', 'tif': T.IOC}, 'stop-limit'), ({'type': STOP_LIMIT, 'stop': '59000', 'limit': '61500'}, 'STOP_PRICE'),
    ({'type': LIMIT, 'limit': '59000', 'tif': T.IOC, 'post_only': True}, 'post-only')])
def test_what_cannot_be_is_rejected_with_its_reason(d: Desk, kw: dict[str, object], why: str) -> None:
    side, qty, type_ = kw.pop('side', 'buy'), kw.pop('qty', '0.01'), kw.pop('type', MARKET)
    assert why in d.expect(d.send(side, qty, type_, **kw), S.REJECTED).reason  # type: ignore[arg-type]
    assert d.works() == {}
    d.agree()


def test_many_orders_at_once_are_each_said_once_and_in_order(d: Desk) -> None:
    names = [d.buy('0.01') for _ in range(15)]
    for name in names: d.expect(name, S.FILLED)
    for name in names: assert d.said(name) == ['Accepted', 'Filled']
    d.agree()


def test_the_same_name_is_the_same_order(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='59000')
    d.resend(name)
    d.expect(name, S.ACCEPTED)
    assert len(d.works()) == 1
    d.there.set_price(SYMBOL, 58900)
    d.expect(name, S.FILLED)
    d.resend(name)
    time.sleep(0.1)
    d.agree()


def test_a_desk_that_comes_back_finds_its_orders_and_sends_none_twice(d: Desk) -> None:
    resting, filled = d.buy('0.5', LIMIT, limit='59000'), d.buy('0.1')
    d.expect(resting, S.ACCEPTED)
    d.expect(filled, S.FILLED)
    d.venue.close()
    again = Coinbase(access_of(d.there.card), SystemClock(), timeout_s=2.0)
    again.connect()
    d.venue = again
    try:
        assert [o.client_id for o in again.open_orders()] == [resting]
        there = again.order(filled)
        assert there is not None and there.state is S.FILLED and there.filled == D('0.1')
        assert [f.client_id for f in again.fills_since('')] == [filled]
        d.resend(filled)                                  # a restart that is not sure sends the same name: the venue gives the same order
        d.there.set_price(SYMBOL, 58900)                  # and what rested goes on being told
        d.expect(resting, S.FILLED)
        assert compare(d.account, d.tracker, again) in ([], [x for x in compare(d.account, d.tracker, again) if x.what == 'cash' and x.key == 'USDT'])
        d.agree()
    finally: again.close()


def test_cursors_page_through_everything(d: Desk) -> None:
    for _ in range(6): d.expect(d.buy('0.01'), S.FILLED)
    fills = d.venue.fills_since('')
    assert [f.fill_id for f in fills] == [e.fill.fill_id for e in d.heard if type(e).__name__ == 'Filled']
    for n, f in enumerate(fills): assert d.venue.fills_since(f.fill_id) == fills[n + 1:]
    with pytest.raises(BadInput): d.venue.fills_since('nonsense')


def test_history_has_closed_bars_only(d: Desk) -> None:
    now = d.venue.now()
    for bar, length in (('1m', MINUTE), ('1h', HOUR)):
        bars = d.venue.history(SYMBOL, bar, now - 700 * length, now)
        assert len(bars) == 700 and bars[-1].end <= now < bars[-1].end + length
        assert all(a.end == b.start for a, b in zip(bars, bars[1:]))
        assert d.venue.history(SYMBOL, bar, bars[10].start, bars[12].end) == bars[10:13]
    assert d.venue.history(SYMBOL, '1m', now, now) == []
    with pytest.raises(BadInput, match='1m 5m'): d.venue.history(SYMBOL, '2m', 0, 1)
    with pytest.raises(BadInput, match='NOPE'): d.venue.history('NOPE-USD', '1m', 0, 1)


def test_the_account_is_told_free_and_on_hold_together(d: Desk) -> None:
    d.expect(d.buy('0.5'), S.FILLED)
    d.expect(d.sell('0.2', LIMIT, limit='65000'), S.ACCEPTED)
    held = d.venue.account()['balances']['BTC']
    assert (held['free'], held['total']) == (D('0.3'), D('0.5')) and d.venue.positions() == {SYMBOL: D('0.5')}


def test_the_market_can_be_asked(d: Desk) -> None:
    q, book, prints = d.venue.quote(SYMBOL), d.venue.depth(SYMBOL, 3), d.venue.trades(SYMBOL, 5)
    assert q.bid < 60000 < q.ask and len(book.bids) == len(book.asks) == 3 and (book.bids[0].price, book.asks[0].price) == (q.bid, q.ask)
    assert len(prints) == 5 and [int(p.trade_id) for p in prints] == sorted(int(p.trade_id) for p in prints)


def test_wrong_keys_halt() -> None:
    with sandbox('coinbase') as there, sandbox('coinbase') as other:
        card = there.card | {'key': other.card['key'], 'secret': other.card['secret']}
        venue = Coinbase(access_of(card), SystemClock(), timeout_s=2.0)
        with pytest.raises(Halt, match='wrong or revoked'): venue.connect()
        venue.close()
        with pytest.raises(BadInput, match='not a key'): Coinbase(access_of(card | {'secret': 'nonsense'}), SystemClock())


def test_an_ed25519_key_signs_as_well() -> None:
    with sandbox('coinbase') as there:
        venue = Coinbase(access_of(there.card | {'key': there.card['ed25519_key'], 'secret': there.card['ed25519_secret']}), SystemClock(), timeout_s=2.0)
        venue.connect()
        assert venue.cash()['USD'] == 1_000_000
        venue.close()


def test_nobody_there_is_a_retry_and_a_closed_venue_takes_nothing() -> None:
    with sandbox('coinbase') as there: card = dict(there.card)
    venue = Coinbase(access_of(card), SystemClock(), timeout_s=1.0)
    with pytest.raises(Retry): venue.connect()
    with pytest.raises(BadInput): venue.submit(None)  # type: ignore[arg-type]
    venue.close()
    venue.close()
    with pytest.raises(Retry): venue.connect()


def test_the_backup_takes_over() -> None:
    with sandbox('coinbase') as first:
        card = dict(first.card)
        with sandbox('coinbase') as gone: dead = dict(gone.card)
        venue = Coinbase(access_of(card | {'rest': dead['rest'], 'ws': dead['ws'], 'backup': [{'rest': card['rest'], 'ws': card['ws']}]}), SystemClock(), timeout_s=3.0)
        venue.connect()                                   # each request names, in its token, the host that it goes to
        assert venue.cash()['USD'] == 1_000_000 and venue.health()['hosts']['primary'] is False
        venue.close()
