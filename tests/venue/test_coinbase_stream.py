"""Coinbase's market data through the stream manager, over real sockets: everything heard once, and right again after each fault."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from coinbase_desk import SYMBOL, Desk, desk

from gekko.data.stream import Hole, Stream, StreamEvent, Subscription
from gekko.domain.errors import BadInput
from gekko.domain.market import Depth, Quote, Trade
from gekko.domain.time import SystemClock

D = Decimal


class Listener:
    def __init__(self, d: Desk, *kinds: str) -> None:
        self.d, self.events = d, list[StreamEvent]()
        self.dialect = d.venue.dialect()
        self.dialect.quiet_s = 1.5
        self.stream = Stream(self.dialect, SystemClock(), seed=1)
        self.stream.want([Subscription(SYMBOL, k) for k in kinds])
        self.task = d.venue.loop.spawn(self.stream.run())

    def until(self, true: Callable[[], object], s: float = 8.0) -> None:
        end = time.monotonic() + s
        while True:
            self.events += self.stream.poll()
            if true(): return
            assert time.monotonic() < end, f'not within {s} s: {self.stream.health()} {self.events[-8:]}'
            time.sleep(0.005)
    def of(self, kind: type[Any]) -> list[Any]: return [e for e in self.events if type(e) is kind]
    def last(self, kind: type[Any]) -> Any: return self.of(kind)[-1] if self.of(kind) else None
    def go(self, price: int | str) -> None:
        self.d.there.set_price(SYMBOL, price)
        self.until(lambda: all(self.last(k) is not None for k in self.kinds) and self.agrees())
    kinds: tuple[type[Any], ...] = (Quote,)
    def agrees(self) -> bool:
        "The newest quote and depth are the exchange's own."
        there = self.d.there.call(lambda: self.d.there.exchange.depth(SYMBOL, 20))
        q, book = self.last(Quote), self.last(Depth)
        right = q is None or (q.bid, q.ask, q.bid_size, q.ask_size) == (there.bids[0].price, there.asks[0].price, there.bids[0].qty, there.asks[0].qty)
        return right and (book is None or (book.bids, book.asks) == (there.bids, there.asks))
    def tape(self) -> list[str]: return self.d.there.call(lambda: [str(p.trade_id) for p in self.d.there.exchange.tape(SYMBOL, 500)])


@contextmanager
def listening(*kinds: str, shown: tuple[type[Any], ...] = (Quote,), **options: Any) -> Iterator[Listener]:
    with desk(timeout_s=1.0, **options) as d:
        it = Listener(d, *kinds)
        it.kinds = shown
        try: yield it
        finally:
            it.stream.close()
            it.until(it.task.done)


def test_quotes_books_and_trades_are_the_exchanges() -> None:
    with listening('quote', 'book', 'trade', shown=(Quote, Depth)) as it:
        it.until(lambda: it.stream.health()['up'] and it.last(Quote) and it.last(Depth))
        before = it.tape()
        for price in (60100, 60200, 59900, 60000): it.go(price)
        new = [t for t in it.tape() if t not in before]
        it.until(lambda: {t.trade_id for t in it.of(Trade)} >= set(new))
        heard = [t.trade_id for t in it.of(Trade)]
        assert heard == sorted(heard, key=int) and len(set(heard)) == len(heard)
        assert not any(q.crossed for q in it.of(Quote)) and {q.symbol for q in it.of(Quote)} == {SYMBOL}
        sides = {t.trade_id: t.side for t in it.of(Trade)}
        assert sides and all(sides[str(p.trade_id)] == p.side.value for p in it.d.there.call(lambda: it.d.there.exchange.tape(SYMBOL, 500)) if str(p.trade_id) in sides)


FAULTS = [{'fault': 'gap', 'count': 2}, {'fault': 'duplicate', 'count': 3}, {'fault': 'out_of_order', 'count': 2}, {'fault': 'html'}, {'fault': 'truncated'}, {'fault': 'huge', 'mb': 18}, {'fault': 'disconnect', 's': 1}, {'fault': 'mute', 's': 2}, {'fault': 'half_open'}]


BOTH = [(f, k) for k in (('quote', 'trade'), ('book', 'trade')) for f in FAULTS if k[0] == 'quote' or f['fault'] in ('gap', 'out_of_order', 'disconnect')]


@pytest.mark.parametrize(('fault', 'kinds'), BOTH, ids=[f'{f["fault"]}-{k[0]}' for f, k in BOTH])
def test_after_each_fault_the_market_is_right_again_and_no_print_is_missing_or_doubled(fault: dict[str, Any], kinds: tuple[str, ...]) -> None:
    with listening(*kinds, shown=(Quote,) if kinds[0] == 'quote' else (Depth,)) as it:
        it.go(60100)
        before = it.tape()
        it.d.there.fault({**fault, 'op': 'stream'})
        for price in (60200, 60300, 60250): it.d.there.set_price(SYMBOL, price)
        time.sleep(0.1)
        it.go(60400)
        it.until(lambda: it.stream.health()['up'] and it.agrees(), 12)
        it.go(60500)
        new = [t for t in it.tape() if t not in before]
        it.until(lambda: {t.trade_id for t in it.of(Trade)} >= set(new), 12)
        heard = [t.trade_id for t in it.of(Trade)]
        assert len(set(heard)) == len(heard)
        assert not any(q.crossed for q in it.of(Quote))


def test_a_hole_makes_no_wrong_quote() -> None:
    "Between the message that was lost and the fresh snapshot nothing is said: an untold change may have been the best price."
    with listening('quote', shown=(Quote,)) as it:
        it.go(60100)
        it.d.there.fault({'fault': 'gap', 'op': 'stream', 'count': 1})
        prices = (60200, 60300, 60400)
        for price in prices: it.d.there.set_price(SYMBOL, price)
        it.until(lambda: it.last(Quote).bid == D('60399.99'), 12)
        right = {D(p) + x for p in (60000, 60100, *prices) for x in (D('0.01'), D('-0.01'))}
        assert {q.bid for q in it.of(Quote)} | {q.ask for q in it.of(Quote)} <= right and all(q.spread == D('0.02') for q in it.of(Quote))
        assert any(isinstance(e, Hole) for e in it.events)


def test_what_the_venue_does_not_list_is_refused_and_wishes_change_on_a_running_line() -> None:
    with listening('quote') as it:
        with pytest.raises(BadInput, match='does not list'): it.stream.want([Subscription('NOPE-USD', 'quote')])
        with pytest.raises(BadInput, match='own line'): it.stream.want([Subscription(SYMBOL, 'own')])
        it.go(60100)
        it.stream.want([Subscription('ETH-USD', 'quote'), Subscription(SYMBOL, 'book')])
        it.until(lambda: {q.symbol for q in it.of(Quote)} == {SYMBOL, 'ETH-USD'} and it.last(Depth) is not None)
        it.stream.drop([Subscription('ETH-USD', 'quote')])
        time.sleep(0.2)
        it.until(lambda: True)
        seen = len([q for q in it.of(Quote) if q.symbol == 'ETH-USD'])
        it.d.there.set_price('ETH-USD', 2000)
        it.go(60200)
        assert len([q for q in it.of(Quote) if q.symbol == 'ETH-USD']) == seen


def test_a_busy_market_is_heard_in_full() -> None:
    with listening('quote', 'book', 'trade', market='synthetic', rate=1000.0, seed=3) as it:
        it.until(lambda: len(it.of(Trade)) > 60, 15)
        first = it.of(Trade)[0].trade_id
        newest = it.tape()[-1]
        it.until(lambda: any(t.trade_id == newest for t in it.of(Trade)))
        heard = [t.trade_id for t in it.of(Trade)]
        assert heard[:heard.index(newest) + 1] == [str(n) for n in range(int(first), int(newest) + 1)]
        assert it.stream.health()['gaps'] == 0 and not any(q.crossed for q in it.of(Quote))
