"""A third party's venue, written from nothing but the port: it keeps orders in a dict and fills them when its price comes by.

Each bug in `BUGS` is a sound venue with one thing wrong.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, AmendRejected, Cancelled, CancelRejected, Fill, Filled, Order, OrderEvent, OrderState, OrderType, Rejected, Side
from gekko.domain.time import SECOND, SimClock
from gekko.execution.broker import Capabilities, Capability as C, unsupported
from gekko.risk.gate import Approved
from gekko.venue.conformance.stage import Candidate, Prop, Stage

LISTED = {s: Instrument(f'{s}-USD', s, 'USD', kind='crypto', tick=Decimal('0.5'), lot=Decimal('0.01'), min_notional=Decimal(5)) for s in ('AAA', 'BBB')}
SYMBOLS = {i.symbol: i for i in LISTED.values()}
TABLE = Capabilities('tiny', {c: '' for c in (C.MARKET, C.LIMIT, C.GTC, C.SHORT, C.CANCEL, C.IDEMPOTENT, C.LOOKUP, C.OPEN_ORDERS, C.POSITIONS, C.CASH, C.FILLS_SINCE)})
BUGS = ('resends', 'cancels the dead', 'pays the limit', 'rounds sizes', 'cursor included', 'forgets the fee', 'mixes up names', 'one symbol for all', 'tells twice')


class Tiny:
    name, capabilities = 'tiny', TABLE

    def __init__(self, bug: str = '') -> None:
        self.bug, self.clock, self.closed = bug, SimClock(SECOND), False
        self.book: dict[str, Order] = {}
        self.extra: list[Order] = []                  # what a resend makes where it is not recognised
        self.said: list[OrderEvent] = []
        self.fills: list[Fill] = []
        self.money, self.held = Decimal(100_000), dict.fromkeys(SYMBOLS, Decimal(0))

    def submit(self, approved: Approved) -> None:
        if not isinstance(approved, Approved): raise BadInput('an order', expected='Approved', found=type(approved).__name__)
        order = approved.order
        name, known = order.client_id, self.book.get(order.client_id)
        if known is not None and self.bug != 'resends': return
        if why := self._refusal(order):
            self.book[name] = self._as(order, OrderState.REJECTED, why)
            return self.said.append(Rejected(name, why, self.clock.now()))
        venue_id = f't{len(self.book) + len(self.extra)}'
        taken = Order(name, order.intent, OrderState.ACCEPTED, venue_id=venue_id)
        if known is None: self.book[name] = taken
        else: self.extra.append(taken)
        self.said.append(Accepted(name, venue_id, self.clock.now()))

    def _refusal(self, order: Order) -> str:
        i, x = order.intent, SYMBOLS.get(order.symbol)
        if self.closed: return 'closed'
        if x is None: return 'no such symbol'
        if why := unsupported(TABLE, i): return why
        if i.qty % x.lot and self.bug != 'rounds sizes': return 'size'
        if i.limit is not None and (i.limit % x.tick or i.limit * i.qty < x.min_notional): return 'price or worth'
        return ''

    @staticmethod
    def _as(o: Order, state: OrderState, reason: str = '') -> Order:
        return Order(o.client_id, o.intent, state, o.filled, o.paid, o.fees, o.venue_id, o.fill_ids, False, reason)

    def price(self, symbol: str, price: Decimal) -> None:
        self.clock.advance(SECOND)
        for o in [*self.book.values(), *self.extra]:
            if o.state is not OrderState.ACCEPTED or (o.symbol != symbol and self.bug != 'one symbol for all'): continue
            limit = o.intent.limit
            if limit is not None and (price > limit if o.side is Side.BUY else price < limit): continue
            self._trade(o, limit if limit is not None and self.bug == 'pays the limit' else price)

    def _trade(self, o: Order, price: Decimal) -> None:
        name = next(iter(self.book)) if self.bug == 'mixes up names' and o.intent.type is OrderType.MARKET and len(self.book) > 5 else o.client_id
        fill = Fill(f'f{len(self.fills) + 1}', name, o.symbol, o.side, o.intent.qty, price, Decimal(1), 'USD', self.clock.now())
        self.fills.append(fill)
        self.said += [Filled(name, fill, fill.ts)] * (2 if self.bug == 'tells twice' else 1)
        self.money -= fill.signed * price + (0 if self.bug == 'forgets the fee' else 1)
        self.held[o.symbol] += fill.signed
        done = Order(o.client_id, o.intent, OrderState.FILLED, o.intent.qty, o.intent.qty * price, Decimal(1), o.venue_id, frozenset({fill.fill_id}))
        if o in self.extra: self.extra.remove(o)
        else: self.book[o.client_id] = done

    def cancel(self, client_id: str) -> None:
        o, now = self.book.get(client_id), self.clock.now()
        if o is not None and o.state is OrderState.ACCEPTED:
            self.book[client_id] = self._as(o, OrderState.CANCELLED)
            self.said.append(Cancelled(client_id, 'asked for', now))
        elif o is not None and self.bug == 'cancels the dead': self.said.append(Cancelled(client_id, 'asked for', now))
        else: self.said.append(CancelRejected(client_id, 'not open', now))

    def amend(self, approved: Approved) -> None: self.said.append(AmendRejected(approved.order.client_id, f'tiny does not offer {C.AMEND.value}', self.clock.now()))
    def drain(self) -> list[OrderEvent]:
        said, self.said = self.said, []
        return said
    def order(self, client_id: str) -> Order | None: return self.book.get(client_id)
    def open_orders(self) -> list[Order]: return [o for o in [*self.book.values(), *self.extra] if o.state is OrderState.ACCEPTED]
    def positions(self) -> dict[str, Decimal]: return {s: q for s, q in self.held.items() if q}
    def cash(self) -> dict[str, Decimal]: return {'USD': self.money}
    def fills_since(self, cursor: str) -> list[Fill]:
        at = next((n for n, f in enumerate(self.fills) if f.fill_id == cursor), -1)
        return self.fills[max(at, 0) if self.bug == 'cursor included' else at + 1:]
    def close(self) -> None: self.closed = True


def candidate(name: str = 'tiny', bug: str = '', table: Capabilities = TABLE) -> Candidate:
    @contextmanager
    def stage() -> Iterator[Stage]:
        venue = Tiny(bug)
        yield Stage(venue, LISTED['AAA'], venue.clock, lambda price, size: venue.price('AAA-USD', price), other=LISTED['BBB'])
    return Candidate(name, table, stage, {Prop.OTHER: lambda s, price: s.broker.price('BBB-USD', price)})


SOUND = candidate()
BROKEN = {bug: candidate(bug.replace(' ', '-'), bug) for bug in BUGS}
BOASTER = candidate('boaster', '', Capabilities('tiny', {**TABLE.offers, C.HEDGE: 'both sides at once'}))
EVERYONE = [SOUND, *BROKEN.values(), BOASTER]
