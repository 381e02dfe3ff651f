"""The venues on trial. A new venue adds its factory here and nothing else."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal

from broker_stage import Stage
from broker_wired import AtOnce

from gekko.data.feed import Opened
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar, Quote
from gekko.domain.time import DAY, MINUTE, SECOND, SimClock, SystemClock, utc
from gekko.execution.broker import Capability as C
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue, capabilities
from gekko.venue.sandbox.serve import sandbox
from gekko.venue.venues import open_venue
from gekko.venue.wire.secret import access_of

TRADED = Instrument('BTC-USD', 'BTC', 'USD', kind='crypto', tick=Decimal('0.01'), lot=Decimal('0.001'), min_notional=Decimal(10))
PLENTY = Decimal(1_000_000)


def paper(model: FillModel, without: tuple[C, ...] = ()) -> Stage:
    clock = SimClock(utc('2024-03-04T12:00:00Z'))
    venue = PaperVenue({TRADED.symbol: TRADED}, model, clock, {'USD': Decimal(1_000_000)}, table=capabilities(model).without(*without))

    def quotes(price: Decimal, size: Decimal | None) -> None:
        clock.advance(SECOND + model.latency_ns)
        venue.on(Quote(TRADED.symbol, clock.now(), price, price, size or PLENTY, size or PLENTY))

    def bars(price: Decimal, size: Decimal | None) -> None:
        start = clock.now()
        venue.on(Opened(TRADED.symbol, start, price))
        clock.advance(MINUTE)
        volume = (size or PLENTY) / (model.participation or Decimal(1))
        venue.on(Bar(TRADED.symbol, start, clock.now(), price, price, price, price, volume))

    def next_day() -> None: clock.set((clock.now() // DAY + 1) * DAY + 12 * 3600 * SECOND)

    return Stage(venue, TRADED, clock, quotes if model.fill == 'quote' else bars, next_day)


FEES = {'fee_bps': Decimal(5), 'maker_fee_bps': Decimal(1)}
VENUES: dict[str, Callable[[], Stage]] = {
    'paper-bars': lambda: paper(FillModel(**FEES)),
    'paper-share-of-volume': lambda: paper(FillModel(participation=Decimal('0.25'), **FEES)),
    'paper-quotes': lambda: paper(FillModel(fill='quote', **FEES)),
    'paper-quotes-late': lambda: paper(FillModel(fill='quote', latency_ns=3 * SECOND, **FEES)),
    'paper-spot': lambda: paper(FillModel(**FEES), without=(C.SHORT, C.STOP, C.STOP_LIMIT, C.POST_ONLY, C.REDUCE_ONLY, C.DAY, C.FOK, C.IOC)),
}


@contextmanager
def wired(name: str, symbol: str, listing: Mapping[str, object] | None = None, options: Mapping[str, object] | None = None) -> Iterator[Stage]:
    """A venue's adapter on its sandbox, over real sockets: a book of one level where a card asks for a thin market, and a spread of one tick. An order meets the market of the moment
    in which it arrives. `listing` changes the symbol's listing before anybody looks; `options` are the adapter's."""
    clock = SystemClock()
    with sandbox(name, symbols=(symbol,)) as box:
        if listing: box.call(lambda: box.exchange.relist(symbol, listing))
        venue = open_venue(access_of(box.card), clock, timeout_s=3.0, **(options or {}))
        try:
            venue.connect()
            instrument = venue.instruments()[symbol]
            def market(price: Decimal, size: Decimal | None) -> None: box.set_price(symbol, price, size, spread=instrument.tick, levels=1 if size else 10)
            yield AtOnce(venue, instrument, clock, market, lambda: box.advance(86_400), patience_s=5.0, box=box)
        finally: venue.close()


WIRED: dict[str, Callable[[], AbstractContextManager[Stage]]] = {
    'binanceus': lambda: wired('binanceus', 'BTC-USD', {'maker_bps': '0', 'taker_bps': '0'}, {'recv_window_ms': 1000}),     # its fees are kept back in the coin that was bought
    'coinbase': lambda: wired('coinbase', 'BTC-USD'), 'oanda': lambda: wired('oanda', 'EUR-USD')}
"Venues behind a wire. They have a server to start and to stop, so each is a context."
