"""Binance.US's adapter and its sandbox on one stage: orders go through real sockets, and the books are held against the exchange's own."""
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from gekko.domain.account import Account, deposit, settle
from gekko.domain.order import Accepted, Filled, Intent, Order, OrderEvent, OrderState, OrderType, Rejected, Side, Submitted
from gekko.domain.time import SystemClock
from gekko.execution.ids import client_id
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.binanceus.broker import BinanceUS
from gekko.venue.binanceus.roll import split_name
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.wire.errand import TAKEN_BACK
from gekko.venue.wire.secret import access_of

D = Decimal
S = OrderState
BTC, ETH = 'BTC-USD', 'ETH-USD'
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)


@dataclass
class View:
    account: Account
    marks: dict[str, Decimal]
    mark_ts: dict[str, int]
    equity: Decimal = D('1e12')
    day_start_equity: Decimal = D('1e12')
    peak_equity: Decimal = D('1e12')
    halted: str = ''
    gross: Decimal = D(0)
    net_low: Decimal = D(0)
    net_high: Decimal = D(0)
    active: int = 0
    rates: dict[str, Decimal] = field(default_factory=lambda: {'USD': D(1)})
    def reserved(self, symbol: str) -> Reserved: return Reserved()


class Desk:
    "Sends orders, listens, keeps books, and audits them against the exchange's."
    def __init__(self, box: Running, venue: BinanceUS) -> None:
        self.box, self.venue, self.clock = box, venue, SystemClock()
        self.tracker, self.heard, self.sent, self.planned = Tracker(), list[OrderEvent](), 0, list[str]()
        self.account = deposit(Account('main', 'USD'), D(1_000_000))
        self.price = {BTC: D(100), ETH: D(10)}

    def market(self, price: str | int, size: str | None = None, symbol: str = BTC) -> None:
        self.price[symbol] = D(price)
        self.box.set_price(symbol, price, size)

    def approve(self, order: Order) -> Approved:
        fine = {s: replace(i, tick=D('1e-8'), lot=D('1e-8'), min_notional=D(0), tradable=True) for s, i in self.venue.instruments().items()}
        fine.setdefault(order.symbol, replace(next(iter(fine.values())), symbol=order.symbol))
        now = self.clock.now()
        said = Gate(OFF, fine, self.clock).check(order, View(self.account, {order.symbol: self.price.get(order.symbol, D(100))}, {order.symbol: now}))
        assert isinstance(said, Approved), said
        return said

    def send(self, side: str, qty: str | int, kind: OrderType = OrderType.MARKET, symbol: str = BTC, name: str = '', **kw: Any) -> str:
        kw = {k: D(v) if k in ('limit', 'stop') else v for k, v in kw.items()}
        name = name or client_id('test', 'binanceus', self.sent)
        self.sent += 1
        order = Order(name, Intent(symbol, Side(side), D(qty), kind, ts=self.clock.now(), **kw))
        if name not in self.tracker: self.tracker.add(order)
        self.tracker.on(Submitted(name, self.clock.now()))
        self.venue.submit(self.approve(order))
        return name

    def limit(self, side: str, qty: str | int, price: str | int, **kw: Any) -> str: return self.send(side, qty, OrderType.LIMIT, limit=price, **kw)
    def amend(self, name: str, **changes: str) -> None:
        intent = replace(self.tracker.get(name).intent, **{k: D(v) for k, v in changes.items()})
        self.venue.amend(self.approve(Order(name, intent)))

    def listen(self) -> None:
        for event in self.venue.drain():
            self.heard.append(event)
            before = self.tracker.get(event.client_id).fill_ids if event.client_id in self.tracker else frozenset()
            self.tracker.on(event)
            if isinstance(event, Filled) and event.fill.fill_id not in before: self.account = settle(self.account, event.fill, self.venue.instruments()[event.fill.symbol])

    def until(self, true: Callable[[], bool], patience_s: float = 5.0) -> None:
        end = time.monotonic() + patience_s
        self.listen()
        while not true():
            assert time.monotonic() < end, f'not within {patience_s} s; heard {self.heard}; {self.venue.health()}'
            time.sleep(0.005)
            self.listen()

    def get(self, name: str) -> Order: return self.tracker.get(name)
    def expect(self, name: str, *states: OrderState, patience_s: float = 5.0) -> Order:
        self.until(lambda: self.get(name).state in states, patience_s)
        return self.get(name)
    def words(self, name: str) -> list[str]: return [type(e).__name__ for e in self.heard if e.client_id == name]
    def quiet(self, s: float = 0.2) -> None:
        time.sleep(s)
        self.listen()

    # the audit: what the exchange did, against what we were told
    def truth(self) -> dict[str, tuple[OrderState, Decimal, frozenset[str]]]:
        "By our name: the state of its last order there, what all of them filled, and the fills' names."
        works = self.box.call(lambda: [(w.client_id, w.state, w.filled, [f'{d.symbol}:{d.trade_id}' for d in w.deals], w.order_id) for w in self.box.exchange.all('main')])
        out: dict[str, tuple[OrderState, Decimal, frozenset[str]]] = {}
        for name, state, filled, ids, _ in sorted(works, key=lambda w: w[4]):
            root = split_name(name)[0]
            was = out.get(root, (state, D(0), frozenset()))
            out[root] = state, was[1] + filled, was[2] | frozenset(ids)
        return out

    def fault(self, *plan: dict[str, Any]) -> None:
        self.planned += [str(f['fault']) for f in plan]
        self.box.fault(*plan)

    def audit(self) -> None:
        "No lost, doubled or phantom order or fill, each fill once and oldest first, nothing said after an end, and the money agrees. Every fault of the plan has struck."
        self.quiet(0.05)
        struck = {str(f['fault']) for f in self.box.call(lambda: list(self.box.server.faults.done))}
        assert set(self.planned) <= struck, f'never struck: {set(self.planned) - struck}'
        truth = self.truth()
        for order in self.tracker.all():
            there = truth.get(order.client_id)
            assert order.state is not S.UNKNOWN and not order.conflict, order
            if there is None: assert order.state is S.REJECTED or order.reason == TAKEN_BACK, f'phantom: {order}'      # a cancel takes back what has not left
            else: assert (order.filled, order.fill_ids) == there[1:] and (order.state is there[0] or {order.state, there[0]} == {S.CANCELLED, S.EXPIRED}), (order, there)
        assert truth.keys() <= {o.client_id for o in self.tracker.all()}, 'an order that nobody knows of'
        said = [e.fill for e in self.heard if isinstance(e, Filled)]
        assert max(Counter(f.fill_id for f in said).values(), default=1) == 1, 'a fill was said twice'
        for name in {f.client_id for f in said}:
            numbers = [int(f.fill_id.rpartition(':')[2]) for f in said if f.client_id == name]
            assert numbers == sorted(numbers), 'fills out of order'
        for name in truth:
            words = self.words(name)
            ends = [i for i, w in enumerate(words) if w in ('Cancelled', 'Expired', 'Rejected')]
            assert words.count('Accepted') >= 1 or 'Rejected' in words
            assert not ends or 'Filled' not in words[ends[0]:], f'traded after its end: {words}'
        assert {f.fill_id for f in self.venue.fills_since('')} == {f.fill_id for f in said}
        assert self.venue.positions() == {s: p.qty for s, p in self.account.positions.items() if p.qty}
        assert self.venue.cash()['USD'] == self.account.cash['USD']


@contextmanager
def stage(connect: bool = True, options: dict[str, Any] | None = None, card: Callable[[dict[str, str]], dict[str, Any]] = lambda c: c, **venue_options: Any) -> Iterator[Desk]:
    "A sandbox with BTC-USD at 100 and ETH-USD at 10, and the adapter connected to it."
    with sandbox('binanceus', market='still', symbols=(BTC, ETH), **(options or {})) as box:
        box.set_price(BTC, 100)
        box.set_price(ETH, 10)
        venue = BinanceUS(access_of(card(dict(box.card))), SystemClock(), **{'timeout_s': 3.0, 'recv_window_ms': 1000, **venue_options})
        try:
            if connect: venue.connect()
            yield Desk(box, venue)
        finally: venue.close()


def accepted(desk: Desk, name: str) -> bool: return any(isinstance(e, Accepted) and e.client_id == name for e in desk.heard)
def reason(desk: Desk, name: str) -> str: return next((e.reason for e in desk.heard if isinstance(e, Rejected) and e.client_id == name), '')
