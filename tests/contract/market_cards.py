"""Cards of what a venue shows and tells: instruments, bars, streams, and the accidents on the way. They are played where a venue stands behind a wire, with its sandbox at hand."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from broker_cards import Card, _refused
from broker_stage import Stage

from gekko.data.stream import Stream, Subscription
from gekko.domain.errors import Retry
from gekko.domain.market import Depth, Quote, Trade
from gekko.domain.order import Accepted, AmendRejected, Amended, Filled, Lost, Order, OrderState, OrderType
from gekko.domain.time import DAY, MINUTE, duration
from gekko.execution.broker import Capability as C
from gekko.execution.reconcile import compare
from gekko.venue.bare import loop_of, wire_of
from gekko.venue.trial import Seen, watch

D, S, LIMIT = Decimal, OrderState, OrderType.LIMIT
Q = D(2)
MARKET_CARDS: list[Card] = []
MARKET_NEEDS: dict[str, frozenset[C]] = {}


def card(*shows: C, also: tuple[C, ...] = ()) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    def take(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        MARKET_CARDS.append(Card(frozenset(shows), play))
        MARKET_NEEDS[play.__name__] = frozenset(shows) | frozenset(also)
        return play
    return take


def venue(s: Stage) -> Any: return s.broker


# --- coming and going, the account

@card()
def connecting_again_is_harmless_and_a_lost_line_comes_back(s: Stage) -> None:
    v = venue(s)
    v.connect()
    before = own(v)['connects']
    s.box.fault({'fault': 'disconnect', 'op': 'own', 's': 0})
    s.until(lambda: own(v)['connects'] > before and own(v)['up'])
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    s.move(D(97))
    s.expect(name, S.FILLED)


def own(v: Any) -> dict[str, Any]:
    said = v.health()
    return dict(said.get('own') or said.get('own_stream'))


@card(C.CASH, C.POSITIONS)
def the_account_is_told_in_full(s: Stage) -> None:
    said = venue(s).account()
    assert said['account'] == s.box.card['account']
    assert s.broker.cash()[s.instrument.quote] == D(1_000_000) and s.broker.positions() == {}


@card(also=(C.LIMIT,))
def after_the_end_nothing_is_sent(s: Stage) -> None:
    s.broker.close()
    s.broker.close()
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    assert 'closed' in s.expect(name, S.REJECTED).reason
    assert s.box.call(lambda: [w for w in s.box.exchange.works.values() if w.client_id == name]) == []


# --- the list

@card(C.INSTRUMENTS)
def the_list_is_read_again_and_shows_what_changed(s: Stage) -> None:
    v, name, was = venue(s), s.instrument.symbol, s.instrument.tick
    assert v.instruments()[name] == s.instrument
    s.box.call(lambda: s.box.exchange.relist(name, {'tick': was * 10}))
    assert v.refresh()[name].tick == was * 10 == v.instruments()[name].tick
    s.box.call(lambda: s.box.exchange.relist(name, {'status': 'halted'}))
    assert not v.refresh()[name].tradable
    s.box.call(lambda: s.box.exchange.relist(name, {'status': 'trading', 'tick': was}))
    assert v.refresh()[name] == s.instrument


@card(C.INSTRUMENTS, also=(C.LIMIT,))
def a_finer_grid_than_the_venues_is_refused_after_a_change(s: Stage) -> None:
    name, was = s.instrument.symbol, s.instrument.tick
    s.box.call(lambda: s.box.exchange.relist(name, {'tick': was * 10}))
    venue(s).refresh()
    assert _refused(s, s.intent('buy', Q, type=LIMIT, limit=D(98) + was))
    fits = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(fits, S.ACCEPTED)


# --- bars

@card(C.HISTORY)
def bars_over_several_pages_are_the_exchanges_own(s: Stage) -> None:
    v, bar = venue(s), '1m'
    pages = {'binanceus': 1000, 'coinbase': 300, 'oanda': 4000}[v.name]
    count = 2 * pages + 37
    end = s.clock.now() // MINUTE * MINUTE
    start = end - count * MINUTE
    got = v.history(s.instrument.symbol, bar, start, end)
    there = s.box.call(lambda: s.box.server.candles(s.instrument.symbol, MINUTE, start, end))
    assert len(there) > 2 * pages
    assert [(b.start, b.open, b.high, b.low, b.close) for b in got] == [(c.start, c.open, c.high, c.low, c.close) for c in there if c.start + MINUTE <= end]
    assert all(b.end - b.start == MINUTE for b in got)


@card(C.HISTORY)
def a_bar_that_is_open_is_not_given(s: Stage) -> None:
    v, now = venue(s), s.clock.now()
    for bar in ('1m', '1h', '1d'):
        if bar not in v.bars(): continue
        length = duration(bar)
        got = v.history(s.instrument.symbol, bar, now - 5 * length, now + 5 * length)
        assert got and all(b.end <= s.clock.now() + MINUTE // 60 for b in got) and got[-1].end > now - 2 * length, (bar, got[-1])


# --- streams

@contextmanager
def listening(s: Stage, kind: str, **options: Any) -> Iterator[Stream]:
    "A stream of the stage's symbol, up and heard of."
    v = venue(s)
    dialect = v.dialect()
    stream, loop = Stream(dialect, s.clock, **options), loop_of(v)
    stream.every([s.instrument.symbol])
    stream.want([Subscription(s.instrument.symbol, kind)])
    running = loop.spawn(stream.run())
    try: yield stream
    finally:
        stream.close()
        running.result(5)
        if (hang_up := getattr(dialect, 'close', None)) is not None: loop.run(hang_up())


def first_heard(s: Stage, stream: Stream, kind: type) -> list[Any]:
    "Move the market until the stream tells of it: a quiet market says nothing to some."
    got: list[Any] = []
    end, n = time.monotonic() + 5.0, 0
    while not got:
        assert time.monotonic() < end, stream.health()
        n += 1
        s.move(D(100) + n % 2)
        time.sleep(0.05)
        got = [e for e in stream.poll() if isinstance(e, kind)]
    return got


def collect(stream: Stream, kind: type, done: Callable[[list[Any]], bool], patience_s: float = 5.0) -> list[Any]:
    "Events of one kind until it is enough."
    got: list[Any] = []
    end = time.monotonic() + patience_s
    while not done(got):
        assert time.monotonic() < end, f'not heard within {patience_s} s; heard {got[-5:]}; {stream.health()}'
        got += [e for e in stream.poll() if isinstance(e, kind)]
        time.sleep(0.005)
    return got


@card(C.QUOTES)
def every_quote_is_heard_in_order(s: Stage) -> None:
    name, tick = s.instrument.symbol, s.instrument.tick
    with listening(s, 'quote') as stream:
        first_heard(s, stream, Quote)
        for n in range(20):
            s.move(D(100) + n)
            time.sleep(0.02)
        last = s.box.call(lambda: s.box.exchange.quote(name))
        got = collect(stream, Quote, lambda got: bool(got) and got[-1].bid == last.bid.price and got[-1].ask == last.ask.price)
        said = stream.health()
    assert all(a.ts <= b.ts for a, b in zip(got, got[1:])) and all(q.symbol == name and q.ask - q.bid >= tick for q in got)
    assert (said['gaps'], said['reconnects']) == (0, 0), said


@card(C.TRADES)
def no_trade_is_lost_doubled_or_out_of_order(s: Stage) -> None:
    name = s.instrument.symbol
    with listening(s, 'trade') as stream:
        first = first_heard(s, stream, Trade)
        for n in range(30): s.move(D(100) + n % 7)
        tape = s.box.call(lambda: s.box.exchange.tape(name, 40))
        got = first + collect(stream, Trade, lambda got: any(t.trade_id.endswith(str(tape[-1].trade_id)) and t.price == tape[-1].price for t in got))
    there = [(p.price, p.qty) for p in s.box.call(lambda: s.box.exchange.tape(name, len(got)))]
    assert [(t.price, t.qty) for t in got] == there and len({t.trade_id for t in got}) == len(got)


@card(C.BOOK)
def the_book_is_the_exchanges_book(s: Stage) -> None:
    name = s.instrument.symbol
    with listening(s, 'book') as stream:
        first_heard(s, stream, Depth)
        for n in range(10): s.move(D(100) + n)
        there = s.box.call(lambda: s.box.exchange.depth(name, 10))
        same = ([(x.price, x.qty) for x in there.bids], [(x.price, x.qty) for x in there.asks])
        def agrees(got: list[Depth]) -> bool:
            if not got or not (got[-1].bids and got[-1].asks): return False
            d = got[-1]
            return ([(x.price, x.qty) for x in d.bids], [(x.price, x.qty) for x in d.asks]) == (same[0][:len(d.bids)], same[1][:len(d.asks)])
        [*_, last] = collect(stream, Depth, agrees)
        said = stream.health()
    assert len(last.bids) > 1 < len(last.asks) and (said['lost'], said['reconnects']) == (0, 0), said


@card(C.OWN_STREAM, also=(C.LIMIT,))
def what_happens_to_an_order_is_told_without_asking(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    time.sleep(0.3)
    seen: list[Seen] = []
    s.listen()
    watch(wire_of(s.broker), seen)
    began = own(s.broker)['age_s']
    s.move(D(97))
    s.until(lambda: bool([e for e in s.heard if isinstance(e, Filled)]))
    assert s.expect(name, S.FILLED).filled == Q
    # nobody listed orders or looked this one up: at most its fills were fetched, once the stream had told of them
    assert not [x for x in seen if 'penOrders' in x.what or 'pendingOrders' in x.what or x.what.endswith(('/batch', '/order'))], seen
    assert began is not None


# --- changing an order

@card(C.AMEND, also=(C.LIMIT, C.OPEN_ORDERS))
def a_resting_order_takes_another_price_and_size(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    intent = s.expect(name, S.ACCEPTED).intent
    new = replace(intent, limit=D(97), qty=D(3))
    s.broker.amend(s.approve(Order(name, new)))
    s.until(lambda: any(isinstance(e, Amended) for e in s.heard))
    [there] = s.broker.open_orders()
    assert (there.client_id, there.intent.limit, there.intent.qty) == (name, D(97), D(3))
    s.move(D(96))
    order = s.expect(name, S.FILLED)
    assert order.filled == 3 and order.avg_price is not None and order.avg_price <= D(97)


@card(C.AMEND, also=(C.LIMIT, C.MARKET))
def what_is_over_cannot_be_changed(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(101))
    s.move(D(100))
    intent = s.expect(name, S.FILLED).intent
    s.broker.amend(s.approve(Order(name, replace(intent, limit=D(97)))))
    s.until(lambda: any(isinstance(e, AmendRejected) for e in s.heard))
    assert s.tracker.get(name).filled == Q and s.broker.open_orders() == []


@card(C.FINANCING, also=(C.MARKET,))
def interest_is_booked_and_told(s: Stage) -> None:
    name = s.buy(D(1000))
    s.move(D(100))
    s.expect(name, S.FILLED)
    before = venue(s).funding_since('')
    s.box.advance(2 * DAY // 10**9)
    s.until(lambda: len(venue(s).funding_since('')) > len(before))
    [*_, last] = venue(s).funding_since('')
    assert last.amount and last.currency == s.instrument.quote and venue(s).funding_since(last.funding_id) == []


# --- accidents, the same for all

@card(also=(C.LIMIT, C.OPEN_ORDERS))
def an_order_taken_without_an_answer_is_found_again_and_not_sent_twice(s: Stage) -> None:
    s.box.fault({'fault': 'mute', 'op': 'own', 's': 2}, {'fault': 'drop_answer', 'op': 'submit'})
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.until(lambda: any(isinstance(e, Accepted) for e in s.heard))
    assert [type(e) for e in s.heard if e.client_id == name] == [Lost, Accepted]
    assert [o.client_id for o in s.broker.open_orders()] == [name]
    s.move(D(97))
    s.expect(name, S.FILLED)
    assert s.broker.positions() == {s.instrument.symbol: Q}


@card(C.CANCEL, also=(C.LIMIT, C.OPEN_ORDERS))
def a_cancel_without_an_answer_is_found_out(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    s.box.fault({'fault': 'drop_answer', 'op': 'cancel'})
    s.broker.cancel(name)
    s.expect(name, S.CANCELLED)
    assert s.broker.open_orders() == []


@card(also=(C.LIMIT, C.FILLS_SINCE))
def fills_told_twice_or_out_of_order_count_once(s: Stage) -> None:
    s.box.fault({'fault': 'duplicate_fill', 'op': 'own', 'count': 2}, {'fault': 'out_of_order_fill', 'op': 'own', 'count': 2})
    names = []
    for n in range(4):
        names.append(s.buy(Q + n, type=LIMIT, limit=D(98) - n))
        s.move(D(100))
        s.expect(names[-1], S.ACCEPTED)
    s.move(D(90))
    for name in names: s.expect(name, S.FILLED)
    s.quiet()
    told = [e.fill for e in s.heard if isinstance(e, Filled)]
    assert len({f.fill_id for f in told}) == len(told) and sum(f.qty for f in told) == sum(Q + n for n in range(4))
    assert {f.fill_id for f in s.broker.fills_since('')} == {f.fill_id for f in told}
    assert compare(s.account, s.tracker, s.broker) == []


@card(also=(C.LIMIT, C.OPEN_ORDERS))
def a_quota_that_is_named_is_kept(s: Stage) -> None:
    s.box.fault({'fault': 'throttle', 'op': 'query', 's': 1})
    began = time.monotonic()
    try: first = s.broker.open_orders()
    except Retry as e:
        assert e.after_s is None or 0 < e.after_s <= 2
        assert any(f['fault'] == 'throttle' for f in s.box.server.faults.done)
        time.sleep(e.after_s or 1.0)
        first = s.broker.open_orders()
    assert first == [] and time.monotonic() - began > 0.8
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)


@card(also=(C.LIMIT,))
def an_order_refused_for_the_quota_is_sent_later_or_not_at_all(s: Stage) -> None:
    s.box.fault({'fault': 'throttle', 'op': 'submit', 's': 1})
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.until(lambda: s.state(name) in (S.ACCEPTED, S.REJECTED))
    assert len(s.broker.open_orders()) == (s.state(name) is S.ACCEPTED)
