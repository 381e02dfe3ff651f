"""A venue on a stage: its broker, a market that the test moves, and a desk that sends and listens.

A new venue needs one factory that gives a Stage: its broker, the instrument to trade there, and a `market` function that makes
the venue's price go to a place (for a sandbox server, a call to the server). The cards then run against it unchanged.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from gekko.domain.account import Account, deposit, fund, settle
from gekko.domain.instrument import Instrument
from gekko.domain.order import Filled, Intent, Order, OrderEvent, OrderState, Submitted
from gekko.domain.time import Clock
from gekko.execution.broker import Broker
from gekko.execution.ids import client_id
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits

RICH = Decimal('1e12')
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)


@dataclass
class Desk:
    "What the gate looks at: a desk so rich that no limit bites, because the venue is on trial here and not the gate."
    account: Account
    marks: Mapping[str, Decimal]
    mark_ts: Mapping[str, int]
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = Decimal(0)
    net_low: Decimal = Decimal(0)
    net_high: Decimal = Decimal(0)
    active: int = 0
    rates: Mapping[str, Decimal] = field(default_factory=lambda: {'USD': Decimal(1), 'USDT': Decimal(1)})
    def reserved(self, symbol: str) -> Reserved: return Reserved()


@dataclass
class Stage:
    broker: Broker
    instrument: Instrument
    clock: Clock
    market: Callable[[Decimal, Decimal | None], None]     # the venue's price goes there; with so many units to trade, or plenty
    next_day: Callable[[], None]
    price: Decimal = Decimal(100)                         # where the market starts
    patience_s: float = 0.0                               # how long an answer may take
    box: Any = None                                       # the sandbox behind it, where there is one
    market_waits: bool = True                             # whether a market order waits for more of the market
    tracker: Tracker = field(default_factory=Tracker)
    heard: list[OrderEvent] = field(default_factory=list)
    sent: int = 0

    def __post_init__(self) -> None:
        # the gate's list is finer and longer than the venue's, so that the venue's own refusals are reached
        fine = replace(self.instrument, tick=self.instrument.tick / 10, lot=self.instrument.lot / 10, min_notional=Decimal(0))
        self.gate = Gate(OFF, {fine.symbol: fine, 'NOWHERE': replace(fine, symbol='NOWHERE')}, self.clock)
        self.account = Account('contract', self.instrument.quote)
        for currency, amount in self.broker.cash().items(): self.account = deposit(self.account, amount, currency)
        self.move(self.price)

    def approve(self, order: Order) -> Approved:
        symbol = order.symbol
        said = self.gate.check(order, Desk(self.account, {symbol: self.price}, {symbol: self.clock.now()}))
        assert isinstance(said, Approved), said
        return said

    def send(self, intent: Intent, name: str = '') -> str:
        name = name or client_id('contract', self.broker.name, self.sent)
        self.sent += 1
        order = Order(name, intent)
        if name not in self.tracker: self.tracker.add(order)
        self.tracker.on(Submitted(name, self.clock.now()))
        self.broker.submit(self.approve(order))
        return name

    def move(self, price: Decimal, size: Decimal | None = None) -> None:
        self.price = price
        self.market(price, size)

    def listen(self) -> None:
        for event in self.broker.drain():
            self.heard.append(event)
            before = self.tracker.get(event.client_id).fill_ids if event.client_id in self.tracker else frozenset()
            self.tracker.on(event)
            if isinstance(event, Filled) and event.fill.fill_id not in before: self.account = settle(self.account, event.fill, self.instrument)

    def fund(self) -> None:
        "Book what the venue moved beside fills (a dealer's roundings, interest), where it keeps a list of that. Once, at the end of a card."
        for f in getattr(self.broker, 'funding_since', lambda cursor: [])(''): self.account = fund(self.account, f)

    def until(self, true: Callable[[], bool]) -> None:
        "Listen until it is true; a venue in this process has answered already, one behind a wire gets its patience."
        end = time.monotonic() + self.patience_s
        self.listen()
        while not true():
            assert time.monotonic() < end, f'not heard within {self.patience_s} s; heard {self.heard}'
            time.sleep(0.01)
            self.listen()

    def state(self, name: str) -> OrderState: return self.tracker.get(name).state
    def expect(self, name: str, state: OrderState) -> Order:
        self.until(lambda: self.state(name) is state)
        return self.tracker.get(name)
    def quiet(self) -> None:
        "Give the venue time to say something that it shouldn't."
        time.sleep(min(self.patience_s, 0.2))
        self.listen()

    def buy(self, qty: Decimal, **kw: object) -> str: return self.send(self.intent('buy', qty, **kw))
    def sell(self, qty: Decimal, **kw: object) -> str: return self.send(self.intent('sell', qty, **kw))
    def intent(self, side: str, qty: Decimal, **kw: object) -> Intent:
        from gekko.domain.order import Side
        return Intent(self.instrument.symbol, Side(side), qty, **kw)  # type: ignore[arg-type]
