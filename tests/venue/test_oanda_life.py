"""OANDA's adapter on its sandbox, over real sockets: the whole life of orders, look-ups, history, and coming back after a restart."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from oanda_desk import LIMIT, MARKET, STOP, SYMBOL, D, Desk, desk

from gekko.domain.errors import BadInput, Halt, Retry
from gekko.domain.order import Accepted, Amended, AmendRejected, Cancelled, CancelRejected, OrderState, TimeInForce
from gekko.domain.time import DAY, HOUR, MINUTE, SystemClock, duration
from gekko.venue.oanda.broker import Oanda
from gekko.venue.oanda.table import GRANULARITY
from gekko.venue.wire.secret import access_of

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk() as it: yield it


def test_a_market_order_trades_and_is_told_once(d: Desk) -> None:
    name = d.buy('1000')
    o = d.expect(name, S.FILLED)
    assert (o.filled, o.avg_price) == (1000, D('1.10001')) and d.said(name) == ['Accepted', 'Filled']
    d.agree()


def test_types_and_times_in_force(d: Desk) -> None:
    resting, stop = d.buy('300', LIMIT, limit='1.09000'), d.sell('200', STOP, stop='1.08000', tif=TimeInForce.DAY)
    ioc, fok = d.buy('100', LIMIT, limit='1.09500', tif=TimeInForce.IOC), d.buy('100', LIMIT, limit='1.10001', tif=TimeInForce.FOK)
    assert d.expect(ioc, S.CANCELLED).filled == 0
    d.expect(fok, S.FILLED)
    for n in (resting, stop): d.expect(n, S.ACCEPTED)
    d.there.set_price(SYMBOL, '1.08500')
    assert d.expect(resting, S.FILLED).avg_price <= D('1.09')
    d.there.set_price(SYMBOL, '1.07900')
    d.expect(stop, S.FILLED)
    assert d.expect(d.sell('90000000', tif=TimeInForce.FOK), S.CANCELLED, S.REJECTED).filled == 0
    d.agree()


def test_a_day_order_ends_in_the_evening_of_new_york(d: Desk) -> None:
    name, kept = d.buy('100', LIMIT, limit='1.00000', tif=TimeInForce.DAY), d.buy('100', LIMIT, limit='1.00000')
    for n in (name, kept): d.expect(n, S.ACCEPTED)
    d.there.advance(86_400)
    d.expect(name, S.EXPIRED)
    assert d.state(kept) is S.ACCEPTED
    d.agree()


def test_reductions_never_add(d: Desk) -> None:
    d.expect(d.buy('500'), S.FILLED)
    d.expect(d.sell('200', reduce_only=True), S.FILLED)
    assert d.venue.positions() == {SYMBOL: 300}
    target = d.sell('300', LIMIT, limit='1.20000', reduce_only=True)
    d.expect(target, S.ACCEPTED)
    d.expect(d.sell('300'), S.FILLED)
    d.there.set_price(SYMBOL, '1.21000')
    assert 'POSITION_CLOSEOUT_FAILED' in d.expect(target, S.CANCELLED).reason and d.venue.positions() == {}
    d.agree()


def test_prices_have_their_instruments_decimals(d: Desk) -> None:
    d.there.set_price('USD-JPY', '150.000')
    name = d.buy('100', LIMIT, limit='149.125', symbol='USD-JPY')
    d.expect(name, S.ACCEPTED)
    assert d.made()[name][0]['price'] == '149.125'
    assert 'precision: limit' in d.expect(d.buy('100', LIMIT, limit='149.1255', symbol='USD-JPY'), S.REJECTED).reason
    assert 'precision: size' in d.expect(d.buy('0.5'), S.REJECTED).reason
    assert 'above' in d.expect(d.buy('200000000'), S.REJECTED).reason
    assert 'unknown symbol' in d.expect(d.buy('1', symbol='NOPE-USD'), S.REJECTED).reason
    d.agree()


def test_not_enough_margin_is_a_refusal(d: Desk) -> None:
    d.there.set_price(SYMBOL, '1.10000', '100000000')
    assert 'INSUFFICIENT_MARGIN: not enough margin' in d.expect(d.buy('99000000'), S.REJECTED).reason
    d.agree()


# --- amend and cancel

def test_an_amended_order_is_still_one_order(d: Desk) -> None:
    name = d.buy('1000', LIMIT, limit='1.05000')
    first = d.expect(name, S.ACCEPTED).venue_id
    d.amend(name, qty='1500', limit='1.06000')
    d.until(lambda: any(isinstance(e, Amended) for e in d.heard))
    [one, two] = d.made()[name]
    assert one['id'] == first and two['replacesOrderID'] == first and d.said(name) == ['Accepted', 'Amended']
    assert [(o.client_id, o.intent.qty, o.intent.limit) for o in d.venue.open_orders()] == [(name, 1500, D('1.06'))]
    d.there.set_price(SYMBOL, '1.05900')
    assert d.expect(name, S.FILLED).filled == 1500
    d.agree()


def test_an_order_that_filled_in_part_is_amended_to_what_is_left(d: Desk) -> None:
    d.there.set_price(SYMBOL, '1.10000', '400')
    name = d.buy('1000', LIMIT, limit='1.10001')
    d.until(lambda: d.tracker.get(name).filled >= 400)
    done = d.tracker.get(name).filled
    assert done < 1000 and len(d.made()[name]) == 2
    d.there.set_price(SYMBOL, '1.20000')
    d.amend(name, qty='1200', limit='1.09000')
    d.until(lambda: any(isinstance(e, Amended) for e in d.heard))
    assert D(d.made()[name][-1]['units']) == 1200 - done
    there = d.venue.order(name)
    assert there is not None and (there.filled, there.intent.qty, there.open_qty, there.state) == (done, 1200, 1200 - done, S.PARTLY_FILLED)
    d.there.set_price(SYMBOL, '1.08900')
    assert d.expect(name, S.FILLED).filled == 1200
    d.agree()


def test_what_cannot_be_amended_is_said(d: Desk) -> None:
    name = d.buy('1000', LIMIT, limit='1.05000')
    d.expect(name, S.ACCEPTED)
    d.amend(name, limit='1.050005')
    d.until(lambda: any(isinstance(e, AmendRejected) for e in d.heard))
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    d.venue.amend(d.approve(d.tracker.get(name)))
    d.until(lambda: sum(isinstance(e, AmendRejected) for e in d.heard) == 2)
    d.agree()


def test_cancels(d: Desk) -> None:
    name = d.buy('1000', LIMIT, limit='1.05000')
    d.venue.cancel(name)                                                # before its answer is here
    o = d.expect(name, S.CANCELLED)
    assert o.reason.startswith('CLIENT_REQUEST') and d.said(name) == ['Accepted', 'Cancelled']
    d.agree()
    for gone in (name, 'g' + 'a' * 19):
        d.venue.cancel(gone)
        d.until(lambda gone=gone: any(isinstance(e, CancelRejected) and e.client_id == gone for e in d.heard))


# --- looking

def test_look_ups_of_this_life_and_of_another(d: Desk) -> None:
    d.there.set_price(SYMBOL, '1.10000', '400')
    parts = d.buy('1000', LIMIT, limit='1.10001')
    d.until(lambda: d.tracker.get(parts).filled >= 400)
    d.there.set_price(SYMBOL, '1.10000')
    market, gone = d.buy('700'), d.buy('10', LIMIT, limit='1.00000')
    d.expect(market, S.FILLED)
    d.expect(parts, S.FILLED)
    d.venue.cancel(gone)
    d.expect(gone, S.CANCELLED)
    waiting = d.sell('50', STOP, stop='1.00000')
    d.expect(waiting, S.ACCEPTED)
    other = Oanda(access_of(d.there.card), SystemClock(), timeout_s=2.0)
    try:
        other.connect()
        for n in (parts, market, gone, waiting):
            a, b = d.venue.order(n), other.order(n)
            assert a is not None and b is not None
            assert (b.state, b.filled, b.paid, b.fill_ids, b.side, b.intent.qty, b.venue_id) == (a.state, a.filled, a.paid, a.fill_ids, a.side, a.intent.qty, a.venue_id)
            assert (a.state, a.filled, a.fill_ids) == (d.state(n), d.tracker.get(n).filled, d.tracker.get(n).fill_ids)
        assert other.order('g' + 'b' * 19) is None and d.venue.order('g' + 'b' * 19) is None
        assert other.drain() == []                                      # the past is on record, and is not told again
        d.there.set_price(SYMBOL, '0.99000')                             # what rests is told to both
        d.expect(waiting, S.FILLED)
        assert other.order(waiting).state is S.FILLED
        assert [type(e).__name__ for e in other.drain()] == ['Filled']
    finally: other.close()
    d.agree()


def test_a_restart_in_the_middle_of_a_chain_goes_on_with_it(d: Desk) -> None:
    d.there.set_price(SYMBOL, '1.10000', '400')
    name = d.buy('1000', LIMIT, limit='1.10001')
    d.until(lambda: d.tracker.get(name).filled >= 400)
    done = d.tracker.get(name).filled
    d.there.set_price(SYMBOL, '1.20000')
    d.listen()
    d.venue.close()
    other = d.venue = Oanda(access_of(d.there.card), SystemClock(), timeout_s=2.0)
    other.connect()
    [there] = other.open_orders()
    assert (there.client_id, there.filled, there.intent.qty, there.state) == (name, done, 1000, S.PARTLY_FILLED)
    d.there.set_price(SYMBOL, '1.09000')
    assert d.expect(name, S.FILLED).filled == 1000
    d.agree()


def test_fills_from_a_cursor(d: Desk) -> None:
    for n in range(3): d.expect(d.buy(str(100 + n)), S.FILLED)
    everything = d.venue.fills_since('')
    assert everything == [e.fill for e in d.heard if type(e).__name__ == 'Filled'] and len(everything) == 3
    assert d.venue.fills_since(everything[0].fill_id) == everything[1:] and d.venue.fills_since(everything[-1].fill_id) == []
    with pytest.raises(BadInput, match='cursor'): d.venue.fills_since('BTC-USD:7')


def test_orders_of_others_are_listed_and_not_told(d: Desk) -> None:
    from gekko.venue.sandbox.oanda_desk import submit
    def person() -> None:
        v = d.there.server.protocol
        submit(v.desk, v.desk.clients[d.number], {'type': 'LIMIT', 'instrument': 'EUR_USD', 'units': '-70', 'price': '1.20000'})
        submit(v.desk, v.desk.clients[d.number], {'type': 'MARKET', 'instrument': 'EUR_USD', 'units': '40'})
    d.there.call(person)
    [theirs] = d.venue.open_orders()
    assert theirs.client_id == theirs.venue_id and theirs.intent.qty == 70
    assert d.venue.positions() == {SYMBOL: 40} and [f.client_id for f in d.venue.fills_since('')] == [d.deals()[0][0][:-1] + str(int(d.deals()[0][0][-1]) - 1)]
    d.listen()
    assert d.heard == []


@pytest.mark.parametrize('bar', list(GRANULARITY))
def test_every_bar_lies_on_gekkos_grid(d: Desk, bar: str) -> None:
    now, length = d.clock.now(), duration(bar)
    quick = length < MINUTE                          # history ends where the sandbox began: since then it has printed nothing for some seconds, minutes on a busy machine
    wanted = 400 if quick else 40
    bars = d.venue.history(SYMBOL, bar, now - wanted * length, now)
    missing = wanted - len(bars)
    assert missing <= (5*MINUTE // length if quick else 2) and all(b.start % length == 0 and b.end == b.start + length <= now and b.volume >= 1 for b in bars)
    assert [b.start for b in bars] == sorted({b.start for b in bars}) and bars[-1].end > now - (5*MINUTE if quick else 2*length)


def test_history_in_pages_has_no_seam(d: Desk) -> None:
    now = d.clock.now()
    bars = d.venue.history(SYMBOL, '1m', now - 9000 * MINUTE, now)
    assert len(bars) in (8999, 9000, 9001) and {b.end - a.end for a, b in zip(bars, bars[1:])} == {MINUTE}
    again = d.venue.history(SYMBOL, '1m', bars[10].end, bars[20].end)
    assert again == bars[11:21]
    assert d.venue.history(SYMBOL, '1h', now - HOUR // 2, now - HOUR // 3) in ([], d.venue.history(SYMBOL, '1h', now - HOUR, now))
    with pytest.raises(BadInput, match='no bars'): d.venue.history(SYMBOL, '7m', now - DAY, now)
    with pytest.raises(BadInput, match='does not list'): d.venue.history('EUR-BTC', '1m', now - DAY, now)
    with pytest.raises(BadInput, match='ends before'): d.venue.history(SYMBOL, '1w', now, now - 7 * DAY)


def test_what_else_there_is_to_ask(d: Desk) -> None:
    i = d.venue.instruments()['USD-JPY']
    assert (i.kind, i.tick, i.lot, i.calendar, i.venue, i.tradable) == ('fx', D('0.001'), D(1), 'FX', 'oanda', True)
    assert d.venue.refresh().keys() == d.venue.instruments().keys()
    q, depth = d.venue.quote(SYMBOL), d.venue.depth(SYMBOL, 2)
    assert (q.bid, q.ask) == (D('1.09999'), D('1.10001')) and depth.bids[0].price == q.bid and len(depth.asks) == 2
    assert d.venue.trades(SYMBOL) == []
    d.expect(d.sell('300'), S.FILLED)
    a = d.venue.account()
    assert a['currency'] == 'USD' and a['positions'] == {SYMBOL: {'long': 0, 'short': -300}} and a['balance'] == 1_000_000
    assert d.venue.health()['own']['up'] and 'requests' in d.venue.health()['throttle']['quotas']


def test_a_hedging_account_is_netted_by_every_order() -> None:
    with desk(hedging=True) as d:
        for side, n in (('buy', '500'), ('sell', '800'), ('buy', '100')): d.expect(d.send(side, n), S.FILLED)
        assert d.venue.positions() == {SYMBOL: -200} and d.venue.account()['hedging'] and d.venue.account()['positions'] == {SYMBOL: {'long': 0, 'short': -200}}
        d.agree()


def test_the_same_name_makes_no_second_order(d: Desk) -> None:
    name = d.buy('100')
    d.expect(name, S.FILLED)
    d.venue.submit(d.approve(d.tracker.get(name)))
    d.until(lambda: d.said(name) == ['Accepted', 'Filled', 'Accepted'])
    assert len(d.made()[name]) == 1
    d.agree()


def test_a_name_of_an_earlier_life_is_told_again_and_not_sent(d: Desk) -> None:
    "To the venue the names of finished orders are free: only the adapter stands between a resend and a second order."
    name, other = d.buy('100'), d.buy('200')
    for n in (name, other): d.expect(n, S.FILLED)
    before = list(d.heard)
    d.venue.close()
    d.venue = Oanda(access_of(d.there.card), SystemClock(), timeout_s=2.0)
    d.venue.connect()
    d.venue.submit(d.approve(d.tracker.get(name)))
    d.until(lambda: d.said(name).count('Filled') == 2)
    assert d.heard[len(before):] == [e for e in before if e.client_id == name] and len(d.made()[name]) == 1 and d.tracker.get(name).filled == 100
    d.venue.close()


def test_before_and_after() -> None:
    with desk(connect=False) as d:
        name = d.buy('100')
        assert 'not connected' in d.expect(name, S.REJECTED).reason
        d.venue.connect()
        d.venue.connect()
        d.venue.close()
        d.venue.close()
        late = d.sell('100')
        assert 'closed' in d.expect(late, S.REJECTED).reason and d.venue.positions() == {} and d.venue.cash() == {'USD': 1_000_000}
        with pytest.raises(Retry, match='closed'): d.venue.connect()


def test_a_wrong_token_or_account_halts() -> None:
    with desk(connect=False) as d:
        for change, said in (({'key': 'another-token'}, 'token'), ({'account': '101-001-9999999-001'}, 'account')):
            venue = Oanda(access_of(d.there.card | change), SystemClock(), timeout_s=2.0)
            with pytest.raises(Halt, match=said): venue.connect()
            venue.close()
    dead = Oanda(access_of(d.there.card), SystemClock(), timeout_s=0.5)
    with pytest.raises(Retry): dead.connect()
    dead.close()


def test_many_orders_at_once(d: Desk) -> None:
    names = [d.buy(str(10 + n)) if n % 3 else d.sell(str(30 + n), MARKET) for n in range(60)]
    for n in names: d.expect(n, S.FILLED, s=12)
    assert all(isinstance(next(e for e in d.heard if e.client_id == n), Accepted) for n in names) and not any(isinstance(e, Cancelled) for e in d.heard)
    d.agree()
