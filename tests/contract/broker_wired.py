"""A stage for venues at which an order meets the market of the moment in which it arrives.

The cards say what they send and then where the market goes, which is the order of things in a replay. Here what is sent waits for the market to
be there, leaves, and is answered, before the card goes on: the same story, told to a venue that does not wait.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from broker_stage import Stage

from gekko.domain.order import Intent, Order, OrderState, OrderType, Side, Submitted, TimeInForce
from gekko.execution.ids import client_id

SETTLED = (OrderState.INTENT, OrderState.SUBMITTED)


@dataclass
class AtOnce(Stage):
    "The market's ask stands at the price that a card names, or its bid, where only sales wait for it."
    market_waits: bool = False
    waiting: list[tuple[str, Intent]] = field(default_factory=list)

    def send(self, intent: Intent, name: str = '') -> str:
        name = name or client_id('contract', self.broker.name, self.sent)
        self.sent += 1
        if name not in self.tracker: self.tracker.add(Order(name, intent))
        self.waiting.append((name, intent))
        return name

    def move(self, price: Decimal, size: Decimal | None = None) -> None:
        self.price = price
        leaving, self.waiting = self.waiting, []
        sides = [i.side for _, i in leaving] or [o.side for o in self.tracker.open()]
        sales = bool(sides) and all(side is Side.SELL for side in sides)
        half = self.instrument.tick / 2
        self.market(price + half if sales else price - half, size)
        for name, intent in leaving:
            self.tracker.on(Submitted(name, self.clock.now()))
            self.broker.submit(self.approve(Order(name, intent)))
        self.until(lambda: all(self._settled(*x) for x in leaving))

    def _settled(self, name: str, intent: Intent) -> bool:
        impatient = intent.type is OrderType.MARKET or intent.tif in (TimeInForce.IOC, TimeInForce.FOK)
        return self.state(name).terminal if impatient else self.state(name) not in SETTLED
