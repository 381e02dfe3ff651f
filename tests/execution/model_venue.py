"""A venue that never errs, in fractions: orders, fills, cash and positions kept by its own arithmetic, which shares nothing with the package's."""
from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Amended, Cancelled, CancelRejected, Expired, Fill, Filled, Intent, Order, OrderEvent, OrderState, OrderType, Rejected, Side

F = Fraction
_WIDE = Context(prec=400, traps=[Inexact])
INSTRUMENTS = {
    'BTC': Instrument('BTC', 'BTC', 'USD', 'crypto', tick=Decimal('0.01'), lot=Decimal('0.001')), 'ES': Instrument('ES', 'ES', 'USD', 'index', tick=Decimal('0.25'), multiplier=Decimal(50)),
    'EURJPY': Instrument('EURJPY', 'EUR', 'JPY', 'fx', tick=Decimal('0.001'), lot=Decimal(1))}
LOT = {'BTC': F(1, 1000), 'ES': F(1), 'EURJPY': F(1)}
TICK = {'BTC': F(1, 100), 'ES': F(1, 4), 'EURJPY': F(1, 1000)}
TIMES = {'BTC': 1, 'ES': 50, 'EURJPY': 1}
QUOTE = {'BTC': 'USD', 'ES': 'USD', 'EURJPY': 'JPY'}


def dec(x: Fraction) -> Decimal: return _WIDE.divide(Decimal(x.numerator), Decimal(x.denominator))


@dataclass
class Deal:
    "An order as it truly is. `amended`: somebody changed its size at the venue."
    name: str
    symbol: str
    buys: bool
    size: Fraction
    limit: Fraction | None
    ts: int
    state: str = 'accepted'
    filled: Fraction = F(0)
    paid: Fraction = F(0)
    fees: Fraction = F(0)
    amended: bool = False

    @property
    def open(self) -> bool: return self.state == 'accepted'
    @property
    def stands(self) -> str: return 'partly_filled' if self.open and self.filled else self.state


class ModelVenue:
    "A `Broker` for those who ask. What it says by itself lies in `said`, for a channel to carry or lose."
    name = 'model'

    def __init__(self, cash: dict[str, Fraction]) -> None:
        self.money, self.held, self.cost = dict(cash), dict.fromkeys(LOT, F(0)), dict[str, Fraction]()
        self.deals: dict[str, Deal] = {}
        self.told: list[Fill] = []
        self.said: list[OrderEvent] = []

    # what can happen

    def take(self, name: str, symbol: str, buys: bool, size: Fraction, limit: Fraction | None, ts: int, refuse: bool = False) -> Deal:
        assert name not in self.deals
        d = self.deals[name] = Deal(name, symbol, buys, size, limit, ts, 'rejected' if refuse else 'accepted')
        self.said.append(Rejected(name, 'no', ts) if refuse else Accepted(name, f'v-{name}', ts))
        return d

    def trade(self, d: Deal, part: Fraction, price: Fraction, fee: Fraction, currency: str, ts: int) -> None:
        assert d.open and 0 < part <= d.size - d.filled
        way, quote = 1 if d.buys else -1, QUOTE[d.symbol]
        d.filled, d.paid, d.fees = d.filled + part, d.paid + part * price, d.fees + fee
        self.held[d.symbol] += way * part
        self.money[quote] -= way * part * price * TIMES[d.symbol]
        if currency == 'BTC':                                   # kept back in the coin itself
            self.held['BTC'] -= fee
            self.cost[quote] = self.cost.get(quote, F(0)) + fee * price
        else:
            self.money[currency] -= fee
            self.cost[currency] = self.cost.get(currency, F(0)) + fee
        if d.filled == d.size: d.state = 'filled'
        f = Fill(f'f-{len(self.told):05d}', d.name, d.symbol, Side.BUY if d.buys else Side.SELL, dec(part), dec(price), dec(fee), currency, ts)
        self.told.append(f)
        self.said.append(Filled(d.name, f, ts))

    def end(self, d: Deal, how: str, ts: int) -> None:
        assert d.open
        d.state = how
        self.said.append(Cancelled(d.name, 'asked', ts) if how == 'cancelled' else Expired(d.name, ts))

    def asked_to_cancel(self, name: str, ts: int) -> None:
        d = self.deals.get(name)
        if d is not None and d.open: self.end(d, 'cancelled', ts)
        else: self.said.append(CancelRejected(name, 'no such order', ts))

    def amend(self, d: Deal, size: Fraction, limit: Fraction | None, ts: int) -> None:
        assert d.open and size >= d.filled and size > 0 and (limit is None) == (d.limit is None)
        new = Amended(d.name, dec(size) if size != d.size else None, dec(limit) if limit is not None and limit != d.limit else None, ts=ts)
        d.size, d.limit, d.amended = size, limit, True
        if d.filled == d.size: d.state = 'filled'
        self.said.append(new)

    # what it answers

    def _order(self, d: Deal) -> Order:
        kind = OrderType.MARKET if d.limit is None else OrderType.LIMIT
        intent = Intent(d.symbol, Side.BUY if d.buys else Side.SELL, dec(d.size), kind, None if d.limit is None else dec(d.limit), ts=d.ts)
        return Order(d.name, intent, OrderState(d.stands), dec(d.filled), dec(d.paid), dec(d.fees), '' if d.state == 'rejected' else f'v-{d.name}',
                     frozenset(f.fill_id for f in self.told if f.client_id == d.name))
    def order(self, client_id: str) -> Order | None: return self._order(self.deals[client_id]) if client_id in self.deals else None
    def open_orders(self) -> list[Order]: return [self._order(d) for d in self.deals.values() if d.open]
    def positions(self) -> dict[str, Decimal]: return {s: dec(x) for s, x in self.held.items() if x}
    def cash(self) -> dict[str, Decimal]: return {c: dec(x) for c, x in self.money.items()}
    def fills_since(self, cursor: str) -> list[Fill]: return [f for f in self.told if f.fill_id > cursor]
