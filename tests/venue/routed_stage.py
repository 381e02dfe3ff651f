"""Binance.US and Coinbase in the sandbox, routed over as one: a small desk that splits, gates, sends and listens, and counts at every step what may have been bought."""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from gekko.domain.account import Account, deposit, settle
from gekko.domain.market import Depth
from gekko.domain.money import total
from gekko.domain.order import Filled, Intent, Order, OrderEvent, OrderState, OrderType, Side, Submitted, TimeInForce
from gekko.domain.time import SystemClock
from gekko.execution.ids import client_id
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate
from gekko.risk.limits import Limits
from gekko.risk.view import BookView
from gekko.venue.binanceus.broker import BinanceUS
from gekko.venue.coinbase.broker import Coinbase
from gekko.venue.routed import Routed
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.wire.secret import access_of

D = Decimal
S = OrderState
BTC = 'BTC-USD'
BPS = {'binanceus': D(10), 'coinbase': D(60)}
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)
IOC, FOK, GTC = TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTC
Market = dict[str, tuple[str, str, int]]      # venue: price, size of a level, levels


class Desk:
    def __init__(self, boxes: dict[str, Running], venue: Routed) -> None:
        self.boxes, self.venue, self.clock = boxes, venue, SystemClock()
        self.tracker, self.heard, self.parents, self.closed = Tracker(), list[OrderEvent](), 0, set[str]()
        self.planned: dict[str, set[str]] = {}
        self.instruments = venue.instruments()
        self.gate, self.view = Gate(OFF, self.instruments, self.clock), BookView('routed', 'USD', self.instruments)
        self.view.deposit(D(10_000_000))
        self.account = deposit(Account('routed'), D(2_000_000))

    # the market

    def market(self, **at: tuple[str, str, int]) -> None:
        "Prices (the ask is a dollar above), sizes and levels, and wait until both live books are the exchanges' own."
        for name, (price, size, levels) in at.items(): self.boxes[name].set_price(BTC, price, size, levels=levels, spread=D(2))
        self.until(lambda: all(self.shows(n) for n in at))
    def truth(self, name: str) -> Depth: return self.boxes[name].call(lambda: self.boxes[name].exchange.depth(BTC, 50))
    def shows(self, name: str) -> bool:
        said, there = self.venue.books(BTC)[name], self.truth(name)
        return said.depth is not None and not said.why and (said.depth.bids, said.depth.asks) == (there.bids, there.asks)
    def cheapest(self, side: Side, qty: Decimal, names: tuple[str, ...] = ('binanceus', 'coinbase')) -> Decimal:
        "The least that `qty` costs by both exchanges' own books at this instant, or the most that it brings; told without the router."
        every = [(x.price * (1 + side.sign * BPS[n] / 10_000), x.qty) for n in names for x in (self.truth(n).asks if side is Side.BUY else self.truth(n).bids)]
        out = D(0)
        for price, size in sorted(every, reverse=side is Side.SELL):
            part = min(size, qty)
            out, qty = out + price * part, qty - part
        assert not qty, 'the books are too thin for this test'
        return out

    def fault(self, name: str, *plan: dict[str, Any]) -> None:
        self.planned.setdefault(name, set()).update(str(f['fault']) for f in plan)
        self.boxes[name].fault(*plan)

    # orders

    def parent(self, side: str, qty: str, limit: str | None = None, tif: TimeInForce = GTC, **kw: Any) -> Intent:
        self.parents += 1
        return Intent(BTC, Side(side), D(qty), OrderType.LIMIT if limit else OrderType.MARKET, D(limit) if limit else None, tif=tif, parent=f'p{self.parents}', **kw)
    def legs(self, parent: Intent) -> list[Order]: return [o for o in self.tracker.all() if o.intent.parent == parent.parent]
    def filled(self, parent: Intent) -> Decimal: return total(o.filled for o in self.legs(parent))
    def at(self, parent: Intent) -> dict[str, Decimal]:
        "What filled where."
        out: dict[str, Decimal] = {}
        for o in self.legs(parent):
            if o.filled: out[o.intent.venue] = out.get(o.intent.venue, D(0)) + o.filled
        return out

    def send(self, intent: Intent) -> str:
        name = client_id('routed', 'test', len(self.tracker))
        order = Order(name, replace(intent, ts=self.clock.now()))
        self.view.mark(BTC, D(60000), self.clock.now())
        approved = self.gate.check(order, self.view)
        assert isinstance(approved, Approved), approved
        self.tracker.add(order)
        self.tracker.on(Submitted(name, self.clock.now()))
        self.venue.submit(approved)
        return name
    def step(self, parent: Intent, **how: Any) -> list[str]:
        "Split and send; then nothing that may still trade is beyond the parent."
        names = [self.send(i) for i in self.venue.split(parent, self.legs(parent), **how)]
        self.never_above(parent)
        return names
    def never_above(self, parent: Intent) -> None:
        reach = total(o.filled if o.state.terminal else o.intent.qty for o in self.legs(parent))
        assert reach <= parent.qty, f'{reach} of {parent.qty} may trade: {self.legs(parent)}'
    def listen(self) -> None:
        for e in self.venue.drain():
            self.heard.append(e)
            before = self.tracker.get(e.client_id).fill_ids if e.client_id in self.tracker else frozenset()
            self.tracker.on(e)
            if isinstance(e, Filled) and e.fill.fill_id not in before: self.account = settle(self.account, e.fill, self.instruments[e.fill.symbol])
    def until(self, true: Callable[[], object], s: float = 12.0) -> None:
        end = time.monotonic() + s
        while not true():
            assert time.monotonic() < end, f'not within {s} s: {self.tracker.all()}; {self.venue.last}; {self.venue.health()["down"]}'
            self.listen()
            time.sleep(0.005)
    def work(self, parent: Intent, s: float = 12.0, until: Callable[[], bool] = lambda: False) -> list[Order]:
        "As a desk does: split what is left again and again, until all of it has traded."
        def done() -> bool:
            self.listen()
            self.never_above(parent)
            if self.filled(parent) == parent.qty or until(): return True
            self.step(parent)
            return False
        self.until(done, s)
        return self.legs(parent)

    # the audit

    def close(self, name: str) -> None:
        self.closed.add(name)
        self.boxes[name].close()
    def audit(self) -> None:
        "Nothing lost, doubled or made up at any exchange that still stands, each fill said once, and the money is the members' own."
        for name, box in self.boxes.items():
            if name in self.closed: continue
            struck = {str(f['fault']) for f in box.call(lambda box=box: list(box.server.faults.done))}
            assert self.planned.get(name, set()) <= struck, f'{name}: never struck: {self.planned[name] - struck}'
            works = box.call(lambda box=box: {w.client_id: (w.filled, w.done) for w in box.exchange.works.values() if w.account == 'main'})
            ours = {o.client_id: o for o in self.tracker.all() if o.intent.venue == name}
            assert works.keys() <= ours.keys(), f'{name}: an order that nobody knows of'
            for o in ours.values():
                filled, done = works.get(o.client_id, (D(0), True))
                assert (o.filled, o.state.terminal) == (filled, done) and not o.conflict, (name, o, filled)
        fills = [e.fill.fill_id for e in self.heard if isinstance(e, Filled)]
        assert max(Counter(fills).values(), default=1) == 1 and not self.tracker.strays
        if self.closed: return
        assert {f.fill_id for f in self.venue.fills_since('')} == set(fills)
        assert self.venue.positions() == {s: p.qty for s, p in self.account.positions.items() if p.qty}
        assert self.venue.cash()['USD'] == self.account.cash['USD']


MARKET: Market = {'binanceus': ('60000', '0.3', 5), 'coinbase': ('59690', '0.3', 1)}


@contextmanager
def stage(market: Market | None = None, **options: Any) -> Iterator[Desk]:
    "Both venues connected and both books live: Coinbase's 0.3 at 59,691 (60,049.146 with its fee), Binance.US's at 60,001 and a cent more a level (60,061.001 and so on)."
    with ExitStack() as open_:
        boxes = {n: open_.enter_context(sandbox(n, market='still', symbols=(BTC,))) for n in ('binanceus', 'coinbase')}
        clock, many = SystemClock(), {'timeout_s': 2.0, 'symbols': (BTC,)}
        members: dict[str, Any] = {'binanceus': BinanceUS(access_of(boxes['binanceus'].card), clock, recv_window_ms=1000, **many), 'coinbase': Coinbase(access_of(boxes['coinbase'].card), clock, timeout_s=2.0)}
        for n, (price, size, levels) in (market or MARKET).items(): boxes[n].set_price(BTC, D(price) + 1, size, levels=levels, spread=D(2))
        venue = Routed(members, clock, symbols=(BTC,), **options)
        open_.callback(venue.close)
        venue.connect()
        desk = Desk(boxes, venue)
        time.sleep(0.15)        # the streams begin to listen
        desk.market(**(market or MARKET))
        yield desk
