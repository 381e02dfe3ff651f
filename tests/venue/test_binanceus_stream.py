"""Binance.US's market data through the stream manager, over real sockets: nothing lost, nothing doubled, books exact, whatever happens to the line."""
from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gekko.data.dialect import Hole, Subscription
from gekko.data.stream import Pace, Stream, StreamEvent
from gekko.domain.errors import BadInput
from gekko.domain.market import Depth, Quote, Trade
from gekko.domain.time import SystemClock
from gekko.venue.binanceus.broker import BinanceUS
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.wire.secret import access_of

BTC, ETH = 'BTC-USD', 'ETH-USD'
ALL = [Subscription(s, k) for s in (BTC, ETH) for k in ('quote', 'trade', 'book')]


class Ear:
    "A stream in a thread of its own, and everything it has said."
    def __init__(self, box: Running) -> None:
        self.box, self.events = box, list[StreamEvent]()
        self.venue = BinanceUS(access_of(box.card), SystemClock(), timeout_s=3.0)
        self.dialect = self.venue.dialect()
        self.dialect.quiet_s = 1.0
        self.stream = Stream(self.dialect, SystemClock(), pace=Pace(first=0.05, most=0.2, settle=0.02))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)

    async def _live(self) -> None:
        try: await self.stream.run()
        finally: await self.dialect.close()

    def start(self) -> None:
        self.venue.refresh()
        self.stream.want(ALL)
        self._thread.start()
        self.live()

    def live(self) -> None:
        "Until both symbols are heard of again. A market that stands still says nothing, so it moves."
        before = len(self.events)
        def heard() -> bool:
            for symbol, price in ((BTC, 60_000), (ETH, 3_000)): self.box.set_price(symbol, price + int(time.monotonic() * 50) % 5)
            time.sleep(0.05)
            return all(any(isinstance(e, kind) and e.symbol == s for e in self.events[before:]) for s in (BTC, ETH) for kind in (Trade, Depth))
        self.until(heard, 12)

    def end(self) -> None:
        self.stream.close()
        self._thread.join(5)
        self.venue.close()

    def until(self, true: Any, patience_s: float = 8.0) -> None:
        end = time.monotonic() + patience_s
        while True:
            self.events += self.stream.poll()
            if true(): return
            assert time.monotonic() < end, (self.stream.status(), self.stream.health(), self.events[-5:])
            time.sleep(0.01)

    def trades(self, symbol: str) -> list[Trade]: return [e for e in self.events if isinstance(e, Trade) and e.symbol == symbol]
    def depths(self, symbol: str) -> list[Depth]: return [e for e in self.events if isinstance(e, Depth) and e.symbol == symbol]

    def whole(self, symbol: str) -> None:
        "Every trade since the first one heard, once and in order, as the exchange's own tape has them; and its book as it stands there."
        tape = self.box.call(lambda: self.box.exchange.tape(symbol, 100_000))
        self.until(lambda: bool(self.trades(symbol)) and self.trades(symbol)[-1].seq >= tape[-1].trade_id)
        heard = [(t.seq, t.price, t.qty) for t in self.trades(symbol) if t.seq <= tape[-1].trade_id]
        assert heard == [(p.trade_id, p.price, p.qty) for p in tape if p.trade_id >= heard[0][0]]

    def book(self, symbol: str) -> None:
        def same() -> bool:
            there = self.box.call(lambda: self.box.exchange.depth(symbol, 20))
            here = self.depths(symbol)[-1]
            return (here.bids, here.asks) == (there.bids[:len(here.bids)], there.asks[:len(here.asks)]) and len(here.bids) == len(there.bids)
        self.until(same)


@contextmanager
def listening(**options: Any) -> Iterator[Ear]:
    with sandbox('binanceus', symbols=(BTC, ETH), **options) as box:
        ear = Ear(box)
        try:
            ear.start()
            yield ear
        finally: ear.end()


def move(ear: Ear, count: int = 20, pause_s: float = 0.02) -> None:
    for n in range(count):
        for symbol, base in ((BTC, 60_000), (ETH, 3_000)): ear.box.set_price(symbol, base + n % 7, '0.5')
        time.sleep(pause_s)


def test_everything_once_and_in_order() -> None:
    with listening() as ear:
        move(ear)
        for symbol in (BTC, ETH):
            ear.whole(symbol)
            ear.book(symbol)
        quotes = [e for e in ear.events if isinstance(e, Quote) and e.symbol == BTC]
        assert quotes and all(q.bid < q.ask for q in quotes)
        assert ear.stream.health()['lost'] == 0 and ear.stream.health()['garbage'] == 0


def test_a_busy_market() -> None:
    with listening(market='synthetic', rate=400.0) as ear:
        time.sleep(1.5)
        ear.whole(BTC)
        ear.whole(ETH)
        assert len(ear.trades(BTC)) > 50


@pytest.mark.parametrize('fault', [{'fault': 'gap', 'op': 'stream', 'n': 5}, {'fault': 'duplicate', 'op': 'stream', 'count': 5}, {'fault': 'out_of_order', 'op': 'stream', 'count': 5},
                                   {'fault': 'disconnect', 'op': 'stream', 's': 0.3}, {'fault': 'mute', 'op': 'stream', 's': 2}, {'fault': 'half_open', 'op': 'stream'}],
                         ids=lambda f: str(f['fault']))
def test_trades_and_books_survive(fault: dict[str, Any]) -> None:
    "Whatever happens to the line: all trades once and in order, exact books, and nothing reported as lost."
    with listening() as ear:
        move(ear, 5)
        ear.whole(BTC)
        ear.box.fault(fault)
        move(ear, 15)
        ear.until(lambda: fault['fault'] in {f['fault'] for f in ear.box.server.faults.done})
        if fault['fault'] in ('mute', 'half_open', 'disconnect'): ear.until(lambda: ear.stream.health()['reconnects'] > 0, 12)
        ear.live()
        for symbol in (BTC, ETH):
            ear.whole(symbol)
            ear.book(symbol)
        trades_lost = [e for e in ear.events if isinstance(e, Hole) and e.until and e.lost and e.channel.startswith('trade')]
        assert not trades_lost


@pytest.mark.parametrize('fault', ['html', 'truncated', 'huge'])
def test_a_frame_that_is_none(fault: str) -> None:
    "A page of HTML, half a message, one of 6 MB: refused, and what it hid is fetched."
    with listening() as ear:
        move(ear, 5)
        ear.box.fault({'fault': fault, 'op': 'stream', **({'mb': 6} if fault == 'huge' else {})})
        move(ear, 15)
        for symbol in (BTC, ETH):
            ear.whole(symbol)
            ear.book(symbol)


def test_a_subscription_that_cannot_be_had() -> None:
    with listening() as ear:
        for wrong, words in ((Subscription('XYZ-USD', 'trade'), 'lists no XYZ-USD'), (Subscription(BTC, 'own'), 'own orders come through the broker')):
            with pytest.raises(BadInput, match=words): ear.stream.want([wrong])


def test_symbols_can_be_added_and_dropped_on_the_way() -> None:
    with listening() as ear:
        ear.stream.drop([s for s in ALL if s.symbol == ETH])
        time.sleep(0.3)
        ear.events += ear.stream.poll()
        heard = len(ear.trades(ETH))
        move(ear, 5)
        ear.whole(BTC)
        assert len(ear.trades(ETH)) == heard
        ear.stream.want([Subscription(ETH, 'trade')])
        time.sleep(0.3)
        move(ear, 5)
        ear.until(lambda: len(ear.trades(ETH)) > heard)


def test_the_venue_hangs_up_what_its_dialects_opened() -> None:
    with sandbox('binanceus', symbols=(BTC,)) as box, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        venue = BinanceUS(access_of(box.card), SystemClock(), timeout_s=5.0)
        venue.refresh()
        stream = Stream(venue.dialect(), SystemClock())
        stream.want([Subscription(BTC, 'quote')])
        running = venue.loop.spawn(stream.run())
        until = time.monotonic() + 10
        while not stream.status()[BTC].fresh and time.monotonic() < until:
            box.set_price(BTC, 60_000 + int(time.monotonic() * 20) % 5)
            time.sleep(0.05)
        assert stream.status()[BTC].fresh
        stream.close()
        running.result(10)
        venue.close()
        del venue, stream, running
        gc.collect()
    assert not [str(w.message) for w in said if 'Unclosed' in str(w.message)]
