"""OANDA's prices through the stream manager, over real sockets: right at once, and right again after each fault."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from oanda_desk import SYMBOL, D, Desk, desk

from gekko.data.dialect import Subscription
from gekko.data.stream import Stream
from gekko.domain.errors import Halt
from gekko.domain.market import Depth, Quote
from gekko.domain.time import SystemClock


class Listener:
    def __init__(self, d: Desk, *kinds: str) -> None:
        self.d, self.events = d, list[Any]()
        self.dialect = d.venue.dialect()
        self.dialect.quiet_s = 6.0
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
    def last(self, kind: type[Any], symbol: str = SYMBOL) -> Any: return next((e for e in reversed(self.events) if type(e) is kind and e.symbol == symbol), None)
    def right(self, symbol: str = SYMBOL, deep: bool = False) -> bool:
        "The newest quote and depth are the dealer's own."
        there = self.d.there.call(lambda: self.d.there.exchange.depth(symbol, 3))
        q, book = self.last(Quote, symbol), self.last(Depth, symbol)
        same = q is not None and (q.bid, q.ask, q.bid_size, q.ask_size) == (there.bids[0].price, there.asks[0].price, there.bids[0].qty, there.asks[0].qty)
        return same and (not deep or book is not None and (book.bids, book.asks) == (there.bids, there.asks))
    def go(self, price: str, s: float = 8.0) -> None:
        self.d.there.set_price(SYMBOL, price)
        self.until(self.right, s)


@contextmanager
def listening(*kinds: str, **options: Any) -> Iterator[Listener]:
    with desk(timeout_s=1.0, market='still', **options) as d:
        it = Listener(d, *kinds)
        try: yield it
        finally:
            it.stream.close()
            it.task.exception(10)


def test_quotes_and_books() -> None:
    with listening('quote', 'book') as it:
        for n in range(20): it.go(f'1.1{n:04d}')
        it.until(lambda: it.right(deep=True))
        q = it.last(Quote)
        assert 0 < q.received - q.ts < 5_000_000_000 and it.stream.status()[SYMBOL].state == 'fresh'


def test_another_symbol_takes_another_line_and_the_first_goes_on() -> None:
    with listening('quote') as it:
        it.until(it.right)
        it.stream.want([Subscription('USD-JPY', 'quote')])
        it.d.there.set_price('USD-JPY', '151.123')
        it.until(lambda: it.right('USD-JPY') and it.stream.status()[SYMBOL].state == 'fresh')
        it.go('1.12345')
        assert it.last(Quote, 'USD-JPY').bid == D('151.122')


def test_what_it_does_not_have_is_refused() -> None:
    with listening('quote') as it:
        assert 'no trades' in it.dialect.known(SYMBOL, 'trade') and 'broker' in it.dialect.known(SYMBOL, 'own') and 'not list' in it.dialect.known('EUR-BTC', 'quote')


@pytest.mark.parametrize('fault', [{'fault': 'disconnect', 's': 1}, {'fault': 'truncated'}, {'fault': 'html'}, {'fault': 'huge', 'mb': 9}, {'fault': 'gap', 'count': 3}, {'fault': 'duplicate', 'count': 3}], ids=lambda f: f['fault'])
def test_a_line_that_breaks_or_lies_is_right_again(fault: dict[str, Any]) -> None:
    with listening('quote') as it:
        it.go('1.11000')
        it.d.there.fault({**fault, 'op': 'stream'})
        for n in range(6): it.d.there.set_price(SYMBOL, f'1.1200{n}')
        it.go('1.13000', 12)


@pytest.mark.parametrize('fault', [{'fault': 'mute', 's': 7}, {'fault': 'half_open'}], ids=lambda f: f['fault'])
def test_a_silent_line_is_noticed_by_its_missing_heartbeats(fault: dict[str, Any]) -> None:
    with listening('quote') as it:
        it.go('1.11000')
        it.d.there.fault({**fault, 'op': 'stream'})
        it.d.there.set_price(SYMBOL, '1.12000')
        it.until(lambda: it.stream.health()['reconnects'] >= 1, 12)
        assert it.stream.status()[SYMBOL].state != 'fresh' or it.right()
        if fault['fault'] == 'mute': time.sleep(1.2)              # the new line is mute at first as well, so that its snapshot is lost: the next price is heard
        it.go('1.13000')


def test_a_closed_market_sends_no_quotes_and_keeps_the_line() -> None:
    with listening('quote') as it:
        it.go('1.11000')
        it.d.there.fault({'fault': 'session_close', 'symbol': SYMBOL})
        time.sleep(0.3)
        it.until(lambda: True)
        n = len(it.events)
        it.d.there.set_price(SYMBOL, '1.15000')
        time.sleep(0.3)
        it.until(lambda: True)
        assert [e for e in it.events[n:] if type(e) is Quote] == [] and it.stream.health()['reconnects'] == 0


def test_a_revoked_token_ends_the_stream_with_a_halt() -> None:
    with listening('quote') as it:
        it.go('1.11000')
        it.d.there.fault({'fault': 'revoked_key'}, {'fault': 'disconnect', 'op': 'stream', 's': 0})
        with pytest.raises(Halt, match='revoked'): it.until(lambda: False, 12)


def test_a_snapshot_over_rest_stands_for_what_was_missed() -> None:
    with listening('quote') as it:
        it.go('1.11000')
        events = it.d.venue.loop.run(it.dialect.repair(f'prices:{SYMBOL}', 0, 0), 3.0)
        assert [type(e) for e in events] == [Quote, Depth] and events[0].bid == D('1.10999')
