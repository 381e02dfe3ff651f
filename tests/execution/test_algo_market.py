"""Algorithms at the paper venue, in a market that they move: its fills, its books, its latency and its refusals; and a desk that dies in between."""
from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gekko.domain.account import Account, deposit
from gekko.domain.instrument import Instrument
from gekko.domain.money import EXACT, ZERO, total
from gekko.domain.order import CancelRequested, Filled, Lost, Order, Side, Submitted, apply
from gekko.domain.parent import Parent
from gekko.domain.time import MINUTE, SECOND, SimClock
from gekko.execution.algo import Look, Slippage, plan, report, tally
from gekko.execution.impact import Market
from gekko.execution.setup import bounds, ladder, setup
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

D = Decimal
T0 = 1_709_888_400 * SECOND
COIN = Instrument('COIN-USD', 'COIN', 'USD', 'crypto', tick=D('0.01'), lot=D('0.1'), min_notional=D(20))
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)
RICH = D(10**12)
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    'at once': ('twap', {'slices': 1, 'style': 'market', 'time_jitter': 0}), 'twap': ('twap', {'slices': 30}), 'vwap': ('vwap', {'slices': 30, 'weights': [4, 1, 4], 'style': 'cross'}),
    'pov': ('pov', {'share': '0.15', 'on_end': 'cross'}), 'iceberg': ('iceberg', {'display': 10, 'peg': 'touch', 'on_end': 'cross'}),
    'adaptive': ('adaptive', {'urgency': '0.3', 'post_only': True})}


@dataclass
class Book:
    account: Account
    marks: dict[str, Decimal]
    mark_ts: dict[str, int]
    rates: dict[str, Decimal] = field(default_factory=dict)
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = ZERO
    net_low: Decimal = ZERO
    net_high: Decimal = ZERO
    active: int = 0
    def reserved(self, symbol: str) -> Reserved: return Reserved()


@dataclass
class Trial:
    """One parent at one venue; `forget` is how often the desk dies and reads everything again."""
    parent: Parent
    market: Market
    model: FillModel = FillModel('quote', 50_000_000, fee_bps=D(5), maker_fee_bps=D(1))
    forget: int = 0
    lose: int = 0
    children: dict[str, Order] = field(default_factory=dict)
    line: list[tuple[int, Decimal]] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    done: str = ''

    def __post_init__(self) -> None:
        only = {COIN.symbol: COIN}
        self.clock = SimClock(self.parent.start)
        self.venue, self.gate = PaperVenue(only, self.model, self.clock, {'USD': D(10**9)}), Gate(OFF, only, self.clock)

    def hear(self) -> None:
        for e in self.venue.drain():
            self.children[e.client_id] = apply(self.children[e.client_id], e)
            if isinstance(e, Filled): self.market.feel(e.fill)

    def go(self) -> Trial:
        for n in itertools.count():
            now = self.parent.start + n * SECOND
            self.clock.set(now)
            quote = self.market.step(now)
            self.venue.on(quote)
            self.hear()
            self.known_to_the_venue()
            if self.parent.arrival is None: self.parent = replace(self.parent, arrival=quote.mid)
            self.line.append((now, total(o.filled for o in self.children.values())))
            if self.forget and n % self.forget == 0: self.die()
            kids = list(self.children.values())
            p = plan(self.parent, kids, Look(now, quote.bid, quote.ask, quote.bid_size, quote.ask_size, self.market.volume), COIN)
            over = [o for o in kids if o.state.terminal]
            assert plan(self.parent, [o for o in kids if not o.state.terminal], Look(now, quote.bid, quote.ask, quote.bid_size, quote.ask_size, self.market.volume), COIN, tally(self.parent, over)) == p
            if p.done:
                self.done, self.mark = p.done, quote.mid
                return self
            for name in p.cancel:
                self.children[name] = apply(self.children[name], CancelRequested(name))
                self.venue.cancel(name)
            for i in p.send: self.send(Order(f'c{len(self.children)}', i), quote.mid, now)
        raise AssertionError

    def send(self, order: Order, mark: Decimal, now: int) -> None:
        self.sent.append(order.intent)
        self.children[order.client_id] = apply(order, Submitted(order.client_id))
        approved = self.gate.check(order, Book(deposit(Account('demo'), RICH), {COIN.symbol: mark}, {COIN.symbol: now}))
        assert isinstance(approved, Approved), approved
        self.venue.submit(approved)
        if self.lose and len(self.children) % self.lose == 0: self.children[order.client_id] = apply(self.children[order.client_id], Lost(order.client_id, 'submit', now))

    def known_to_the_venue(self) -> None:
        """What the venue itself holds: filled and open together are never more than the parent."""
        filled = total(f.qty for f in self.venue.fills_since(''))
        resting = total(o.open_qty for o in self.venue.open_orders())
        assert EXACT.add(filled, resting) <= self.parent.qty

    def die(self) -> None:
        self.children = {n: msgspec.json.decode(msgspec.json.encode(o), type=Order) for n, o in self.children.items()}
        self.parent = msgspec.json.decode(msgspec.json.encode(self.parent), type=Parent)
        for cache in (setup, ladder, bounds): cache.cache_clear()

    @property
    def cost(self) -> Slippage: return report(self.parent, list(self.children.values()), mark=self.mark)


def trial(way: str, side: Side = Side.BUY, qty: Decimal = D('200.3'), seed: int = 1, limit: Decimal | None = None, model: FillModel | None = None, forget: int = 0, lose: int = 0, **market: Any) -> Trial:
    algo, params = WAYS[way]
    parent = Parent(f'{way}-{seed}', algo, 'COIN-USD', side, qty, T0, T0 + 10 * MINUTE, limit, params=params)
    return Trial(parent, Market(COIN, D(100), seed, **market), *([model] if model else []), forget=forget, lose=lose).go()


@pytest.mark.parametrize('side', list(Side))
@pytest.mark.parametrize('way', list(WAYS))
def test_done_to_the_last_lot_by_the_venues_own_count(way: str, side: Side) -> None:
    t = trial(way, side)
    sign = 1 if side is Side.BUY else -1
    assert t.done == 'filled' and t.venue.positions() == {'COIN-USD': sign * D('200.3')} and t.venue.open_orders() == []
    fills = t.venue.fills_since('')
    assert t.cost.cost == sign * (total(f.qty * f.price for f in fills) - D('200.3') * (t.parent.arrival or ZERO))
    assert t.cost.fees == total(f.fee for f in fills)


@pytest.mark.parametrize('way', ['twap', 'vwap', 'pov', 'iceberg', 'adaptive'])
def test_a_desk_that_dies_every_seven_seconds_trades_the_same(way: str) -> None:
    whole, torn = trial(way), trial(way, forget=7)
    assert whole.sent == torn.sent and whole.line == torn.line and whole.cost == torn.cost


@pytest.mark.parametrize('way', ['twap', 'pov', 'iceberg', 'adaptive'])
def test_lost_answers_and_refusals_by_chance(way: str) -> None:
    """Each third answer is lost until the venue's next word; each fifth order is refused for no reason."""
    t = trial(way, model=FillModel('quote', 1_500_000_000, reject_rate=0.2, seed=4), lose=3)
    assert t.done == 'filled' and t.venue.positions() == {'COIN-USD': D('200.3')}
    assert any(o.state.value == 'rejected' for o in t.children.values())


@pytest.mark.parametrize('way', list(WAYS))
def test_no_fill_is_beyond_the_limit(way: str) -> None:
    t = trial(way, limit=D('100.03'), drift=8)
    assert all(f.price <= D('100.03') for f in t.venue.fills_since(''))
    assert t.done == 'filled' or 'left' in t.done


def test_slices_cost_less_than_all_at_once() -> None:
    def average(way: str) -> Decimal: return sum((trial(way, qty=D(200), seed=s).cost.slippage_bps or ZERO for s in range(3)), ZERO) / 3
    at_once = average('at once')
    assert all(average(way) < at_once / 2 for way in ('twap', 'vwap', 'adaptive'))


def test_adaptive_is_early_where_the_price_runs_away_and_patient_where_it_comes() -> None:
    def average(way: str, drift: int) -> Decimal: return sum((trial(way, qty=D(200), seed=s, drift=drift).cost.slippage_bps or ZERO for s in range(3)), ZERO) / 3
    assert average('adaptive', 100) < average('twap', 100)
    assert average('twap', -100) < 0


def test_vwap_follows_the_volume() -> None:
    """Busy at both ends: two thirds of the volume, and of the fills, are in the outer thirds' first and last minutes."""
    t = trial('vwap', busy=[4, 1, 4], length=600)
    early = next(q for now, q in t.line if now >= T0 + 200 * SECOND)
    late = next(q for now, q in t.line if now >= T0 + 400 * SECOND)
    assert D('0.38') < early / D('200.3') < D('0.48') and D('0.50') < late / D('200.3') < D('0.60')


def test_pov_keeps_to_its_share_of_what_others_trade() -> None:
    t = trial('pov', qty=D(100_000), busy=(), flow=60)
    done = t.cost.filled
    before_end = next(q for now, q in t.line if now >= T0 + 599 * SECOND)
    assert before_end <= D('0.15') * (t.market.volume - done)
    assert t.done.startswith('its grace is over')


def test_the_iceberg_never_shows_more_than_one_display() -> None:
    t = trial('iceberg', seed=2)
    resting = [i for i in t.sent if i.reason.endswith('rests')]
    assert len(resting) > 5 and all(D(8) <= i.qty <= D(12) for i in resting[:-1])
