"""A small desk at a Coinbase sandbox: it sends and listens, and compares its books with the exchange's own."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from gekko.domain.account import Account, deposit, settle
from gekko.domain.errors import Retry
from gekko.domain.order import Filled, Intent, Order, OrderEvent, OrderState, OrderType, Side, Submitted, TimeInForce
from gekko.domain.time import SystemClock
from gekko.execution.ids import client_id
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.coinbase.broker import Coinbase
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.wire.secret import access_of

D = Decimal
RICH = D('1e12')
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)
LIMIT, STOP_LIMIT, MARKET = OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.MARKET
SYMBOL = 'BTC-USD'
FINE = {'tick': D('1e-10'), 'lot': D('1e-12'), 'min_notional': D(0)}      # the gate's list is finer than the venue's, so that the venue's refusals are reached


@dataclass
class View:
    account: Account
    marks: Mapping[str, Decimal]
    mark_ts: Mapping[str, int]
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = D(0)
    net_low: Decimal = D(0)
    net_high: Decimal = D(0)
    active: int = 0
    rates: Mapping[str, Decimal] = field(default_factory=lambda: {'USD': D(1)})
    def reserved(self, symbol: str) -> Reserved: return Reserved()


def same(ours: OrderState, work: Any) -> bool:
    "The venue calls an impatient order's end a cancel, the exchange behind it an expiry."
    impatient = work.ticket.tif in (TimeInForce.IOC, TimeInForce.FOK)
    return ours == (OrderState.CANCELLED if impatient and work.state is OrderState.EXPIRED else work.state)


class Desk:
    def __init__(self, there: Running, venue: Coinbase) -> None:
        self.there, self.venue, self.clock = there, venue, SystemClock()
        self.tracker, self.heard, self.sent = Tracker(), list[OrderEvent](), 0
        self.instruments = venue.instruments()
        fine = {s: replace(i, **FINE) for s, i in self.instruments.items()}
        self.gate = Gate(OFF, fine | {'NOPE-USD': replace(fine[SYMBOL], symbol='NOPE-USD')}, self.clock)
        self.account = deposit(Account('main', 'USD'), self.wallet('USD'), 'USD')

    def approve(self, o: Order) -> Approved:
        o = Order(o.client_id, o.intent)
        said = self.gate.check(o, View(self.account, {o.symbol: D(60000)}, {o.symbol: self.clock.now()}))
        assert isinstance(said, Approved), said
        return said
    def send(self, side: str, qty: str | Decimal, type: OrderType = MARKET, *, symbol: str = SYMBOL, **kw: Any) -> str:
        intent = Intent(symbol, Side(side), D(qty), type, **{k: D(v) if k in ('limit', 'stop') else v for k, v in kw.items()})
        name = client_id('main', 'test', self.sent)
        self.sent += 1
        self.tracker.add(Order(name, intent))
        return self.resend(name)
    def resend(self, name: str) -> str:
        self.tracker.on(Submitted(name, self.clock.now()))
        self.venue.submit(self.approve(self.tracker.get(name)))
        return name
    def buy(self, qty: str, *a: Any, **kw: Any) -> str: return self.send('buy', qty, *a, **kw)
    def sell(self, qty: str, *a: Any, **kw: Any) -> str: return self.send('sell', qty, *a, **kw)

    def listen(self) -> None:
        for e in self.venue.drain():
            self.heard.append(e)
            before = self.tracker.get(e.client_id).fill_ids if e.client_id in self.tracker else frozenset()
            self.tracker.on(e)
            if isinstance(e, Filled) and e.fill.fill_id not in before: self.account = settle(self.account, e.fill, self.instruments[e.fill.symbol])
    def until(self, true: Callable[[], object], s: float = 8.0) -> None:
        end = time.monotonic() + s
        self.listen()
        while not true():
            assert time.monotonic() < end, f'not within {s} s; heard {self.heard}; health {self.venue.health()}'
            time.sleep(0.005)
            self.listen()
    def state(self, name: str) -> OrderState: return self.tracker.get(name).state
    def expect(self, name: str, *states: OrderState, s: float = 8.0) -> Order:
        self.until(lambda: self.state(name) in states, s)
        return self.tracker.get(name)
    def said(self, name: str) -> list[str]: return [type(e).__name__ for e in self.heard if e.client_id == name]

    def wallet(self, currency: str) -> Decimal:
        return self.there.call(lambda: {a: p.total for a, p in self.there.server.protocol.wallets.balances('main').items()}).get(currency, D(0))
    def works(self) -> dict[str, Any]: return self.there.call(lambda: {w.client_id: w for w in self.there.exchange.works.values() if w.account == 'main'})
    def deals(self) -> list[Any]: return self.there.call(lambda: list(self.there.exchange.deals('main')))

    def agree(self, s: float = 8.0) -> None:
        "Nothing lost, doubled or made up: our orders, fills and money are the exchange's."
        self.until(lambda: not self.tracker.unknown() and all(same(self.state(n), w) for n, w in self.works().items() if n in self.tracker), s)
        works = self.works()
        assert not self.tracker.strays and not self.tracker.conflicts()
        for o in self.tracker.all():
            w = works.get(o.client_id)
            assert (w is None) == (o.state is OrderState.REJECTED), (o, w)
            if w is not None: assert (o.filled, o.paid, o.fees) == (w.filled, w.paid, w.fees.get('USD', D(0))), (o, w)
        theirs = sorted((d.client_id, d.qty, d.price, d.fee) for d in self.deals())
        fills = [e.fill for e in self.heard if isinstance(e, Filled)]
        assert sorted((f.client_id, f.qty, f.price, f.fee) for f in fills) == theirs
        assert len({f.fill_id for f in fills}) == len(fills)
        assert (self.account.cash['USD'], self.account.qty(SYMBOL)) == (self.wallet('USD'), self.wallet('BTC'))


def patiently(connect: Callable[[], None], tries: int = 6) -> None:
    "A busy machine may be late for the short patience that these tests have."
    for n in range(tries):
        try: return connect()
        except Retry:
            if n + 1 == tries: raise
            time.sleep(0.3)


@contextmanager
def desk(*, timeout_s: float = 2.0, quiet_s: float = 5.0, connect: bool = True, **options: Any) -> Iterator[Desk]:
    with sandbox('coinbase', **options) as there:
        there.set_price(SYMBOL, 60000)
        venue = Coinbase(access_of(there.card), SystemClock(), timeout_s=timeout_s)
        venue.own_quiet_s = quiet_s
        try:
            if connect: patiently(venue.connect)
            yield Desk(there, venue)
        finally: venue.close()


def trade(d: Desk) -> None:
    "A little of everything, while whatever was armed strikes."
    first, resting, doomed = d.buy('0.5'), d.buy('0.2', LIMIT, limit='59000'), d.buy('0.1', LIMIT, limit='50000')
    d.expect(first, OrderState.FILLED)
    d.until(lambda: d.state(resting) is OrderState.ACCEPTED and d.state(doomed) is OrderState.ACCEPTED)
    d.there.set_price(SYMBOL, 58990, '0.015')
    d.until(lambda: d.tracker.get(resting).filled > 0)
    d.venue.cancel(doomed)
    d.there.set_price(SYMBOL, 58000)
    d.expect(resting, OrderState.FILLED)
    d.until(lambda: d.state(doomed).terminal)
    d.expect(d.sell('0.3'), OrderState.FILLED)
    d.agree()


def struck(d: Desk, name: str) -> int: return d.there.call(lambda: sum(x['fault'] == name for x in d.there.server.faults.done))
