"""A small desk at an OANDA sandbox: it sends and listens, and compares its books with the account's own log."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from gekko.domain.account import Account, deposit, fund, settle
from gekko.domain.instrument import Instrument
from gekko.domain.order import Filled, Intent, Order, OrderEvent, OrderState, OrderType, Side, Submitted
from gekko.domain.time import SystemClock
from gekko.execution.ids import client_id
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.oanda.broker import Oanda
from gekko.venue.sandbox.oanda import ACCOUNT
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.wire.secret import access_of

D = Decimal
RICH = D('1e12')
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)
LIMIT, STOP, MARKET = OrderType.LIMIT, OrderType.STOP, OrderType.MARKET
SYMBOL = 'EUR-USD'
FINE = {'tick': D('1e-10'), 'lot': D('1e-6'), 'min_notional': D(0), 'tradable': True}      # the gate's list is finer than the venue's, so that the venue's refusals are reached

SPOILED = [{'fault': 'drop_answer'}, {'fault': 'server_error', 'status': 500, 'processed': True}, {'fault': 'server_error', 'status': 503, 'processed': True}, {'fault': 'slow', 's': 1.5},
           {'fault': 'html', 'processed': True}, {'fault': 'truncated'}, {'fault': 'huge', 'mb': 20}]
"A request that arrives, and whose answer is late, lost, or nonsense."
def called(fault: dict[str, Any]) -> str: return fault['fault'] + str(fault.get('status', fault.get('count', '')))


@dataclass
class View:
    account: Account
    marks: dict[str, Decimal]
    mark_ts: dict[str, int]
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = D(0)
    net_low: Decimal = D(0)
    net_high: Decimal = D(0)
    active: int = 0
    rates: dict[str, Decimal] = field(default_factory=lambda: {'USD': D(1), 'JPY': D('0.0067'), 'GBP': D('1.27')})
    def reserved(self, symbol: str) -> Reserved: return Reserved()


class Desk:
    def __init__(self, there: Running, venue: Oanda, account: str = ACCOUNT) -> None:
        self.there, self.venue, self.clock, self.number = there, venue, SystemClock(), account
        self.tracker, self.heard, self.sent = Tracker(), list[OrderEvent](), 0
        self.instruments: dict[str, Instrument] = venue.instruments() or venue.refresh()
        fine = {s: replace(i, **FINE) for s, i in self.instruments.items()}
        self.gate = Gate(OFF, fine | {'NOPE-USD': replace(fine[SYMBOL], symbol='NOPE-USD')}, self.clock)
        self.account = Account('main', 'USD')
        for c, x in venue.cash().items(): self.account = deposit(self.account, x, c)

    # ---- sending and listening

    def approve(self, o: Order) -> Approved:
        o = Order(o.client_id, o.intent)
        said = self.gate.check(o, View(self.account, {o.symbol: D(1)}, {o.symbol: self.clock.now()}))
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
    def amend(self, name: str, **change: Any) -> None: self.venue.amend(self.approve(Order(name, replace(self.tracker.get(name).intent, **{k: D(v) for k, v in change.items()}))))

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

    # ---- the other side's books

    def log(self) -> list[dict[str, Any]]: return self.there.call(lambda: list(self.there.server.protocol.desk.clients[self.number].account.log))
    def made(self) -> dict[str, list[dict[str, Any]]]:
        "The orders that the venue made, by our names: one for each link of a chain."
        out: dict[str, list[dict[str, Any]]] = {}
        for t in self.log():
            if t['type'] in ('MARKET_ORDER', 'LIMIT_ORDER', 'STOP_ORDER') and t.get('clientExtensions'): out.setdefault(t['clientExtensions']['id'], []).append(t)
        return out
    def pending(self) -> set[str]: return self.there.call(lambda: {o.client_id for o in self.there.server.protocol.desk.clients[self.number].pending.values()})
    def deals(self) -> list[tuple[str, str, Decimal, Decimal]]:
        return [(t['id'], t['clientOrderID'], D(t['units']), D(t['price'])) for t in self.log() if t['type'] == 'ORDER_FILL']
    def books(self) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
        "Cash and positions as the sandbox's own open trades make them."
        def look() -> tuple[Decimal, list[tuple[str, Decimal, Decimal]]]:
            a = self.there.server.protocol.desk.clients[self.number].account
            return a.balance, [(t.name, t.current, t.price) for t in a.open_trades()]
        balance, trades = self.there.call(look)
        cash, held = {'USD': balance}, dict[str, Decimal]()
        for name, units, price in trades:
            base, quote = name.split('_')
            cash[quote] = cash.get(quote, D(0)) - units * price
            held[f'{base}-{quote}'] = held.get(f'{base}-{quote}', D(0)) + units
        return {c: x for c, x in cash.items() if x}, {s: x for s, x in held.items() if x}

    def money(self) -> Account:
        "Our account with every funding booked."
        out = self.account
        for f in self.venue.funding_since(''): out = fund(out, f)
        return out

    def agree(self, s: float = 8.0) -> None:
        "Nothing lost, doubled or made up: our orders, fills and money are the account's."
        def settled() -> bool: return not self.tracker.unknown() and {o.client_id for o in self.tracker.open()} == self.pending() & {o.client_id for o in self.tracker.all()}
        self.until(settled, s)
        made, deals = self.made(), self.deals()
        assert not self.tracker.strays and not self.tracker.conflicts()
        fills = [e.fill for e in self.heard if isinstance(e, Filled)]
        assert [(f.fill_id, f.client_id, f.signed, f.price) for f in fills] == deals
        for o in self.tracker.all():
            assert o.client_id in made or o.state is OrderState.REJECTED, o
            roots = [t for t in made.get(o.client_id, []) if not t.get('replacesOrderID')]
            assert len(roots) == (1 if o.client_id in made else 0), (o, roots)
            assert o.filled == sum((abs(n) for _, c, n, _ in deals if c == o.client_id), D(0))
        cash, held = self.books()
        assert self.venue.cash() == cash and self.venue.positions() == held
        ours = self.money()
        assert {c: x for c, x in ours.cash.items() if x} == cash
        assert {k: p.qty for k, p in ours.positions.items() if p.qty} == held


@contextmanager
def desk(*, timeout_s: float = 2.0, quiet_s: float = 12.0, settle_s: float = 3.0, connect: bool = True, hedging: bool = False, **options: Any) -> Iterator[Desk]:
    with sandbox('oanda', **options) as there:
        there.set_price(SYMBOL, '1.10000')
        card = there.card | ({'account': there.card['hedging_account']} if hedging else {})
        venue = Oanda(access_of(card), SystemClock(), timeout_s=timeout_s)
        venue.own_quiet_s = quiet_s
        venue._orders.settle = round(settle_s * 1_000_000_000)
        try:
            if connect: venue.connect()
            yield Desk(there, venue, card['account'])
        finally: venue.close()
