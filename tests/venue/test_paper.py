"""The paper venue: whatever is sent and whatever the market does, some things always hold; and cases worked by hand."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.feed import Opened
from gekko.domain.account import Account, deposit, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar, Quote, Trade
from gekko.domain.money import on_step
from gekko.domain.order import (
    Accepted, Cancelled, CancelRejected, Expired, Fill, Filled, Intent, Order, OrderEvent, OrderState, OrderType, Rejected, Side, Submitted, TimeInForce,
)
from gekko.domain.time import DAY, HOUR, MINUTE, SECOND, SimClock
from gekko.execution.reconcile import compare
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

D = Decimal
RICH = D('1e12')
OFF = Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None)
NAMES = ('AAA', 'BBB', 'CCC')
INSTRUMENTS = {s: Instrument(s, s, 'USD', tick=D('0.5'), lot=D('0.1'), multiplier=D(n + 1)) for n, s in enumerate(NAMES)}


@dataclass
class Desk:
    "A desk so rich that the gate lets everything through that is well formed."
    account: Account = field(default_factory=lambda: deposit(Account('demo'), RICH))
    marks: Mapping[str, Decimal] = field(default_factory=dict)
    mark_ts: Mapping[str, int] = field(default_factory=dict)
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = D(0)
    net_low: Decimal = D(0)
    net_high: Decimal = D(0)
    active: int = 0
    rates: Mapping[str, Decimal] = field(default_factory=lambda: {'USD': D(1), 'USDT': D(1)})
    def reserved(self, symbol: str) -> Reserved: return Reserved()


@dataclass
class Floor:
    "A venue, its clock, a gate before it and a desk's books behind it."
    model: FillModel = FillModel()
    instruments: Mapping[str, Instrument] = field(default_factory=lambda: INSTRUMENTS)
    cash: Decimal = D(1_000_000)
    sent_at: dict[str, int] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    tracker: Tracker = field(default_factory=Tracker)
    log: list[OrderEvent] = field(default_factory=list)
    at_opens: set[str] = field(default_factory=set)           # fills that came with an open, before its bar closed

    def __post_init__(self) -> None:
        self.clock = SimClock()
        currency = next(iter(self.instruments.values())).quote
        self.venue = PaperVenue(self.instruments, self.model, self.clock, {currency: self.cash})
        self.gate = Gate(OFF, self.instruments, self.clock)
        self.account = deposit(Account('demo', currency), self.cash, currency)

    def send(self, name: str, intent: Intent, mark: Decimal = D(100)) -> bool:
        approved = self.gate.check(Order(name, intent), Desk(self.account, {intent.symbol: mark}, {intent.symbol: self.clock.now()}))
        if not isinstance(approved, Approved): return False
        if name not in self.tracker: self.tracker.add(approved.order)
        self.sent_at.setdefault(name, self.clock.now())
        self.intents.setdefault(name, intent)
        self.tracker.on(Submitted(name))
        self.venue.submit(approved)
        return True

    def listen(self) -> list[OrderEvent]:
        new = self.venue.drain()
        for e in new:
            self.tracker.on(e)
            if isinstance(e, Filled): self.account = settle(self.account, e.fill, self.instruments[e.fill.symbol])
        self.log += new
        return new

    def fills(self, symbol: str = '') -> list[Fill]: return [f for f in self.venue.fills_since('') if symbol in ('', f.symbol)]
    def said(self, name: str) -> list[type]: return [type(e) for e in self.log if e.client_id == name]

    def quote(self, ts: int, bid: str, ask: str, bid_size: str = '0', ask_size: str = '0', symbol: str = 'AAA') -> list[OrderEvent]:
        self.clock.set(ts)
        self.venue.on(Quote(symbol, ts, D(bid), D(ask), D(bid_size), D(ask_size)))
        return self.listen()

    def bar(self, n: int, ohlc: str, volume: str = '1000', size: int = HOUR, symbol: str = 'AAA') -> list[OrderEvent]:
        o, h, l, c = map(D, ohlc.split())
        self.clock.set(n * size)
        self.venue.on(Opened(symbol, n * size, o))
        first = self.listen()
        self.clock.set((n + 1) * size)
        self.venue.on(Bar(symbol, n * size, (n + 1) * size, o, h, l, c, D(volume)))
        return first + self.listen()


def intent(side: str, qty: str, type: str = 'market', symbol: str = 'AAA', **kw: object) -> Intent:
    prices = {k: D(str(v)) for k, v in kw.items() if k in ('limit', 'stop')}
    rest = {k: TimeInForce(v) if k == 'tif' else v for k, v in kw.items() if k not in prices}
    return Intent(symbol, Side(side), D(qty), OrderType(type), **prices, **rest)  # type: ignore[arg-type]


# --- whatever happens

ticks = st.integers(150, 250).map(lambda n: n * D('0.5'))
sizes = st.integers(1, 60).map(lambda n: n * D('0.1'))


@st.composite
def intents(draw: st.DrawFn, symbol: str) -> Intent:
    kind = draw(st.sampled_from(list(OrderType)))
    limit = draw(ticks) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(ticks) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    tif = draw(st.sampled_from(list(TimeInForce)))
    return Intent(symbol, draw(st.sampled_from(list(Side))), draw(sizes), kind, limit, stop, tif, expires=draw(st.integers(1, 2**62)) if tif is TimeInForce.GTD else 0,
                  reduce_only=draw(st.integers(0, 4)) == 0, post_only=limit is not None and draw(st.integers(0, 3)) == 0)


@dataclass(frozen=True)
class Move:
    "One bar's worth of a symbol: what is sent before it, which earlier order is cancelled, and the prices."
    symbol: str
    send: tuple[Intent, ...]
    cancel: int | None
    prices: tuple[Decimal, Decimal, Decimal, Decimal]
    volume: Decimal


@st.composite
def moves(draw: st.DrawFn, symbol: str) -> Move:
    a, b, c, d = (draw(ticks) for _ in range(4))
    return Move(symbol, tuple(draw(st.lists(intents(symbol), max_size=2))), draw(st.none() | st.integers(0, 8)), (a, max(a, b, c, d), min(a, b, c, d), b), draw(sizes) * 4)


models = st.builds(FillModel, fill=st.sampled_from(['open', 'quote']), latency_ns=st.sampled_from([0, 1, 30 * MINUTE, HOUR, 2 * HOUR]), slippage_bps=st.sampled_from([D(0), D(25)]),
                   fee_bps=st.sampled_from([D(0), D('2.5')]), maker_fee_bps=st.none() | st.just(D(-1)), participation=st.none() | st.just(D('0.25')),
                   reject_rate=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 3))
histories = st.lists(st.tuples(*(moves(s) for s in NAMES)), min_size=1, max_size=8)
HALF = HOUR // 2


def play(model: FillModel, history: Sequence[tuple[Move, ...]], order: Sequence[int] = (0, 1, 2)) -> Floor:
    "Orders go out at the start of each hour; then the hour happens, as a bar or as two quotes. `order` is the order of the symbols in everything."
    f = Floor(model)
    for n, hour in enumerate(history):
        for i in order:
            move = hour[i]
            for k, wanted in enumerate(move.send): f.send(f'{move.symbol}-{n}-{k}', wanted)
            if move.cancel is not None: f.venue.cancel(f'{move.symbol}-{move.cancel}-0')
        f.listen()
        _hour(f, n, [hour[i] for i in order])
    return f


def _hour(f: Floor, n: int, hour: Sequence[Move]) -> None:
    start = n * HOUR
    if f.model.fill == 'open':
        for m in hour: f.venue.on(Opened(m.symbol, start, m.prices[0]))
        f.at_opens |= {e.fill.fill_id for e in f.listen() if isinstance(e, Filled)}
        f.clock.set(start + HOUR)
        for m in hour: f.venue.on(Bar(m.symbol, start, start + HOUR, *m.prices, m.volume))
    else:
        for ts, k in ((start, 2), (start + HALF, 1)):
            f.clock.set(ts)
            for m in hour: f.venue.on(Quote(m.symbol, ts, m.prices[k] - D('0.5'), m.prices[k], m.volume, m.volume))
            f.listen()
        f.clock.set(start + HOUR)
    f.listen()


@settings(max_examples=150)
@given(models, histories)
def test_what_always_holds(model: FillModel, history: list[tuple[Move, ...]]) -> None:
    f = play(model, history)
    fills = f.fills()
    # money and size are conserved: nothing but fills and fees moves either
    paid = sum((x.qty * x.price * x.side.sign * INSTRUMENTS[x.symbol].multiplier for x in fills), D(0))
    assert f.venue.cash() == {'USD': D(1_000_000) - paid - sum((x.fee for x in fills), D(0))}
    held = {s: sum((x.qty * x.side.sign for x in fills if x.symbol == s), D(0)) for s in NAMES}
    assert f.venue.positions() == {s: q for s, q in held.items() if q}
    # the events tell the same story to a desk that heard all of them
    assert compare(f.account, f.tracker, f.venue) == []
    assert [e.fill for e in f.log if isinstance(e, Filled)] == fills
    assert not f.tracker.conflicts() and not [e for e in f.tracker.strays if not isinstance(e, CancelRejected)]
    for order in f.tracker.all():
        theirs = f.venue.order(order.client_id)
        assert theirs is not None and (theirs.state, theirs.filled, theirs.paid, theirs.fees, theirs.fill_ids) == (order.state, order.filled, order.paid, order.fees, order.fill_ids)
        assert order.filled <= order.intent.qty
    for x in fills: _check_fill(f, x)


def _check_fill(f: Floor, x: Fill) -> None:
    wanted, model = f.intents[x.client_id], f.model
    assert x.qty > 0 and on_step(x.qty, INSTRUMENTS[x.symbol].lot) and on_step(x.price, INSTRUMENTS[x.symbol].tick)
    assert x.ts >= f.sent_at[x.client_id] + model.latency_ns                                     # nothing trades before it arrives
    if wanted.limit is not None: assert x.price <= wanted.limit if x.side is Side.BUY else x.price >= wanted.limit
    if wanted.post_only: assert x.maker
    if wanted.tif is TimeInForce.FOK: assert x.qty == wanted.qty


@settings(max_examples=100)
@given(models, histories)
def test_no_bar_trades_an_order_that_came_after_its_open(model: FillModel, history: list[tuple[Move, ...]]) -> None:
    f = play(model, history)
    if model.fill != 'open': return
    for x in f.fills(): assert f.sent_at[x.client_id] + model.latency_ns <= (x.ts if x.fill_id in f.at_opens else x.ts - HOUR)


@settings(max_examples=100)
@given(models, histories)
def test_no_order_takes_more_than_its_share_of_a_bar(model: FillModel, history: list[tuple[Move, ...]]) -> None:
    f = play(model, history)
    if model.fill != 'open' or model.participation is None: return
    taken: dict[tuple[str, int], Decimal] = {}
    for x in f.fills(): taken[x.client_id, x.ts] = taken.get((x.client_id, x.ts), D(0)) + x.qty
    for (name, ts), qty in taken.items():
        volume = history[ts // HOUR - 1][NAMES.index(name[:3])].volume
        assert qty <= volume * model.participation


@settings(max_examples=100)
@given(models, histories)
def test_quotes_sizes_are_never_exceeded(model: FillModel, history: list[tuple[Move, ...]]) -> None:
    f = play(model, history)
    if model.fill != 'quote': return
    taken: dict[tuple[str, int, Side], Decimal] = {}
    for x in f.fills(): taken[x.symbol, x.ts, x.side] = taken.get((x.symbol, x.ts, x.side), D(0)) + x.qty
    for (symbol, ts, _), qty in taken.items(): assert qty <= history[ts // HOUR][NAMES.index(symbol)].volume


@settings(max_examples=100)
@given(models, histories, st.permutations((0, 1, 2)))
def test_the_order_of_symbols_changes_nothing_and_neither_does_a_second_run(model: FillModel, history: list[tuple[Move, ...]], order: list[int]) -> None:
    one, again, other = play(model, history), play(model, history), play(model, history, order)
    assert one.log == again.log and one.fills() == again.fills()

    def story(f: Floor, symbol: str) -> list[tuple[object, ...]]:
        names = {n for n, i in f.intents.items() if i.symbol == symbol}
        return [(type(e), e.client_id, e.ts, (e.fill.qty, e.fill.price, e.fill.fee, e.fill.maker) if isinstance(e, Filled) else getattr(e, 'reason', '')) for e in f.log if e.client_id in names]
    for s in NAMES: assert story(one, s) == story(other, s)


@settings(max_examples=60)
@given(models, histories)
def test_a_reduce_only_order_never_adds(model: FillModel, history: list[tuple[Move, ...]]) -> None:
    f, held = play(model, history), dict.fromkeys(NAMES, D(0))
    for x in f.fills():
        after = held[x.symbol] + x.qty * x.side.sign
        if f.intents[x.client_id].reduce_only: assert abs(after) < abs(held[x.symbol]) and after * held[x.symbol] >= 0
        held[x.symbol] = after


# --- worked by hand

def round_trip(ins: Instrument, qty: str, prices: str, fee_bps: str, cash: str) -> Floor:
    f = Floor(FillModel(fill='quote', fee_bps=D(fee_bps)), {ins.symbol: ins}, D(cash))
    for n, p in enumerate(prices.split()):
        f.quote(n * SECOND, p, p, symbol=ins.symbol)
        if n == 0: assert f.send('in', intent('buy', qty, symbol=ins.symbol), D(p))
        if n == 2: assert f.send('out', intent('sell', qty, symbol=ins.symbol), D(p))
    return f


def test_oracle_aussie() -> None:
    f = round_trip(Instrument('AUD/USD', 'AUD', 'USD', kind='fx', tick=D('0.00001')), '100000', '0.70000 0.70000 0.70010 0.70020 0.70020', '0.2', '1000000')
    assert [(x.price, x.fee, x.ts) for x in f.fills()] == [(D('0.70000'), D('1.40'), SECOND), (D('0.70020'), D('1.40'), 3 * SECOND)]
    assert f.venue.cash() == {'USD': D('1000017.20')} and f.account.cash['USD'] == D('1000017.20') and f.venue.positions() == {}


def test_oracle_ether() -> None:
    f = round_trip(Instrument('ETH/USDT', 'ETH', 'USDT', kind='crypto', tick=D('0.01'), lot=D('0.0001')), '0.5', '2000 2000 2000.5 2001 2001', '1', '10000')
    assert [x.fee for x in f.fills()] == [D('0.10'), D('0.10005')]
    assert f.venue.cash() == {'USDT': D('10000.29995')}


def test_a_market_order_gets_the_next_open_and_not_the_close_it_was_decided_on() -> None:
    f = Floor(FillModel(slippage_bps=D(10)))
    f.bar(0, '100 105 95 104')
    f.send('m', intent('buy', '2'))
    f.bar(1, '110 112 108 109')
    assert [(x.price, x.ts) for x in f.fills()] == [(D('110.5'), HOUR)]        # 110.11 up to the half-point tick


def test_an_order_sent_inside_a_bar_waits_for_the_next_open() -> None:
    f = Floor()
    f.venue.on(Opened('AAA', 0, D(100)))
    f.clock.set(MINUTE)
    f.send('l', intent('buy', '1', 'limit', limit=99))
    f.clock.set(HOUR)
    f.venue.on(Bar('AAA', 0, HOUR, D(100), D(101), D(90), D(100)))
    assert f.fills() == []
    f.bar(1, '98.5 99 98 98.5')
    assert [x.price for x in f.fills()] == [D('98.5')]


@pytest.mark.parametrize(('wanted', 'ohlc', 'price'), [
    (intent('sell', '1', 'stop', stop=95), '100 101 94 100', '95'),                        # touched inside: at the stop
    (intent('sell', '1', 'stop', stop=95), '92 101 90 100', '92'),                         # gapped through: at the open
    (intent('buy', '1', 'stop', stop=105), '108 110 101 102', '108'),
    (intent('buy', '1', 'limit', limit=98), '100 101 97 100', '98'),
    (intent('buy', '1', 'limit', limit=98), '96 101 95 100', '96'),                        # better than asked: at the open
    (intent('buy', '1', 'stop_limit', stop=105, limit=106), '100 107 99 101', '105'),
    (intent('buy', '1', 'stop_limit', stop=105, limit=103), '100 107 99 104', None),       # 103 may have come before 105
    (intent('buy', '1', 'stop_limit', stop=105, limit=103), '100 107 99 102', '103'),      # the close came after
    (intent('buy', '1', 'stop_limit', stop=105, limit=106), '108 110 107 109', None),
])
def test_stops_and_limits_in_a_bar(wanted: Intent, ohlc: str, price: str | None) -> None:
    f = Floor()
    f.send('o', wanted)
    f.bar(0, ohlc)
    assert [x.price for x in f.fills()] == ([D(price)] if price else [])


def test_slippage_is_paid_by_takers_and_never_beyond_a_limit() -> None:
    f = Floor(FillModel(slippage_bps=D(100), fee_bps=D(10), maker_fee_bps=D(0)))
    f.send('taker', intent('buy', '1', 'limit', limit='100.5'))
    f.send('maker', intent('buy', '1', 'limit', limit='99'))
    f.bar(0, '100 101 98 100')
    assert [(x.client_id, x.price, x.maker, x.fee) for x in f.fills()] == [('taker', D('100.5'), False, D('0.10')), ('maker', D('99'), True, D('0.00'))]


def test_a_stop_limit_takes_when_it_goes_off_and_provides_once_it_rests() -> None:
    f = Floor(FillModel(participation=D('0.1'), fee_bps=D(10), maker_fee_bps=D(0)))
    f.send('taker', intent('buy', '3', 'stop_limit', stop=105, limit=110))
    f.bar(0, '100 101 99 100', '20')
    f.bar(1, '106 107 104 106', '20')                          # goes off at the open, and has room for two
    f.bar(2, '107 107 106 107', '20')                          # the rest still takes: nothing has passed it by
    f.send('maker', intent('buy', '1', 'stop_limit', stop=110, limit=109))
    f.bar(3, '112 113 111 112', '20')                          # goes off beyond its limit, and rests
    f.bar(4, '111 112 108 110', '20')
    assert [(x.client_id, x.qty, x.price, x.maker) for x in f.fills()] == [('taker', 2, 106, False), ('taker', 1, 107, False), ('maker', 1, 109, True)]


def test_against_quotes_a_resting_limit_trades_at_its_own_price() -> None:
    f = Floor(FillModel(fill='quote'))
    f.send('l', intent('buy', '1', 'limit', limit=100))
    f.quote(1, '100', '101')
    f.quote(2, '98', '98.5')
    assert [(x.price, x.maker) for x in f.fills()] == [(100, True)]


def test_a_sleeping_stop_limit_has_not_rested() -> None:
    f = Floor(FillModel(fill='quote'))
    f.send('s', intent('buy', '1', 'stop_limit', stop=105, limit=110))
    f.quote(1, '99', '100')
    f.quote(2, '105', '106')
    assert [(x.price, x.maker) for x in f.fills()] == [(106, False)]


def test_in_a_bracket_the_stop_comes_first_and_takes_the_target_off() -> None:
    f = Floor()
    f.send('in', intent('buy', '2'))
    f.bar(0, '100 100 100 100')
    f.send('target', intent('sell', '2', 'limit', limit=110, reduce_only=True))
    f.send('stop', intent('sell', '2', 'stop', stop=90, reduce_only=True))
    f.bar(1, '100 115 85 100')
    assert [(x.client_id, x.price) for x in f.fills()] == [('in', D(100)), ('stop', D(90))]
    assert f.said('target') == [Accepted, Cancelled] and f.venue.positions() == {}


def test_a_large_order_needs_several_bars() -> None:
    f = Floor(FillModel(participation=D('0.1')))
    f.send('big', intent('buy', '25'))
    for n, o in enumerate((100, 101, 102)): f.bar(n, f'{o} 110 90 100', '100')
    assert [(x.qty, x.price) for x in f.fills()] == [(10, 100), (10, 101), (5, 102)]
    assert f.said('big') == [Accepted, Filled, Filled, Filled]


def test_a_bar_without_volume_gives_nothing_to_share() -> None:
    f = Floor(FillModel(participation=D('0.1')))
    f.send('m', intent('buy', '1'))
    f.bar(0, '100 100 100 100', '0')
    assert f.fills() == [] and len(f.venue.open_orders()) == 1


def test_a_feed_of_closed_bars_gives_the_same_fills_as_one_with_opens() -> None:
    with_opens, without = Floor(), Floor()
    for f in (with_opens, without):
        for n in range(6):
            f.send(f'o{n}', intent('buy' if n % 2 else 'sell', '1', *(('limit',) if n % 3 else ()), **({'limit': 100 + n} if n % 3 else {})))
            if f is with_opens: f.bar(n, f'{100 + n} {103 + n} {98 - n} {101}')
            else:
                f.clock.set((n + 1) * HOUR)
                f.venue.on(Bar('AAA', n * HOUR, (n + 1) * HOUR, D(100 + n), D(103 + n), D(98 - n), D(101)))
    assert with_opens.fills() == without.fills() and with_opens.fills()


def test_quotes_wait_for_the_latency_and_share_their_size() -> None:
    f = Floor(FillModel(fill='quote', latency_ns=5))
    f.send('a', intent('buy', '3')), f.send('b', intent('buy', '3'))
    f.quote(4, '99', '100', '9', '9')
    assert f.fills() == []
    f.quote(5, '99', '100', '9', '4')
    f.quote(6, '99', '100.5', '9', '4')
    assert [(x.client_id, x.qty, x.price, x.ts) for x in f.fills()] == [('a', 3, 100, 5), ('b', 1, 100, 5), ('b', 2, D('100.5'), 6)]


@pytest.mark.parametrize(('bid', 'ask'), [('101', '100'), ('0', '0')])
def test_a_crossed_or_empty_quote_trades_nothing(bid: str, ask: str) -> None:
    f = Floor(FillModel(fill='quote'))
    f.send('b', intent('buy', '1')), f.send('s', intent('sell', '1'))
    f.quote(1, bid, ask)
    assert f.fills() == []
    f.quote(2, '99', '100')
    assert [x.price for x in f.fills()] == [100, 99]


def test_single_trades_change_nothing() -> None:
    f = Floor(FillModel(fill='quote'))
    f.send('l', intent('buy', '1', 'limit', limit=100))
    f.venue.on(Trade('AAA', 1, D(90), D(5)))
    assert f.fills() == [] and f.listen() == [Accepted('l', 'paper-o1', 0)]


def test_a_cancel_on_its_way_can_come_too_late() -> None:
    f = Floor(FillModel(fill='quote', latency_ns=10))
    for name in ('early', 'late'): f.send(name, intent('buy', '1', 'limit', limit=100))
    f.quote(20, '100', '101')
    f.venue.cancel('early')
    f.quote(29, '101', '102')
    assert f.said('early') == [Accepted]
    f.clock.set(30)
    f.listen()
    assert f.said('early') == [Accepted, Cancelled]
    f.venue.cancel('late')
    f.quote(35, '99', '99.5')
    f.clock.set(40)
    f.listen()
    assert f.said('late') == [Accepted, Filled, CancelRejected]


def test_the_day_of_an_order_is_that_of_the_first_price_it_meets() -> None:
    f = Floor()
    f.clock.set(5 * DAY)                                       # sent as Friday's bar closes; nothing trades until Monday
    f.send('d', intent('buy', '1', 'limit', limit=90, tif='day'))
    f.bar(7 * 24, '100 101 99 100')
    assert f.said('d') == [Accepted]
    f.bar(7 * 24 + 23, '100 101 99 100')
    assert f.said('d') == [Accepted, Expired]
    f.bar(8 * 24, '80 80 80 80')
    assert f.fills() == []


def test_a_day_order_lives_through_a_daily_bar() -> None:
    f = Floor()
    f.clock.set(5 * DAY)
    f.send('d', intent('buy', '1', 'limit', limit=99, tif='day'))
    f.bar(5, '100 101 98 100', size=DAY)
    assert [x.price for x in f.fills()] == [99]


@pytest.mark.parametrize(('wanted', 'why'), [
    (intent('buy', '1', symbol='ZZZ'), 'unknown symbol ZZZ'), (intent('buy', '1', symbol='VIX'), 'VIX is not tradable'), (intent('buy', '0.15'), 'precision: size 0.15 is not a multiple of 0.1'),
    (intent('buy', '1', 'limit', limit='99.7'), 'precision: limit 99.7 is not a multiple of 0.5'), (intent('buy', '1', 'stop', stop='99.7'), 'precision: stop 99.7 is not a multiple of 0.5'),
    (intent('buy', '0.2'), 'min notional: 20.0 is below 50 USD'), (intent('buy', '1', 'limit', limit=100, post_only=True), 'post-only: would take at 100'),
    (intent('buy', '1', post_only=True), 'post-only: a market order always takes'), (intent('buy', '1', 'limit', limit=90, post_only=True, tif='ioc'), 'post-only: ioc never waits'),
])
def test_refusals_carry_their_numbers(wanted: Intent, why: str) -> None:
    strict = Instrument('AAA', 'AAA', 'USD', tick=D('0.5'), lot=D('0.1'), min_notional=D(50))
    f = Floor(instruments={'AAA': strict, 'VIX': Instrument('VIX', 'VIX', 'USD', kind='index', tradable=False)})
    loose = {s: Instrument(s, s, 'USD', tick=D('0.1'), lot=D('0.01')) for s in ('AAA', 'ZZZ', 'VIX')}
    f.gate = Gate(OFF, loose, f.clock)
    f.bar(0, '100 100 100 100')
    f.send('x', wanted)
    assert f.listen() == [Rejected('x', why, f.clock.now())]
    theirs = f.venue.order('x')
    assert theirs is not None and theirs.state is OrderState.REJECTED and f.venue.open_orders() == []


def test_closing_is_allowed_below_the_smallest_notional() -> None:
    f = Floor(instruments={'AAA': Instrument('AAA', 'AAA', 'USD', tick=D('0.5'), lot=D('0.1'), min_notional=D(50))})
    f.send('in', intent('buy', '0.6'))
    f.bar(0, '100 100 100 100')
    f.send('most', intent('sell', '0.5', reduce_only=True))
    f.bar(1, '100 100 100 100')
    f.send('rest', intent('sell', '0.1', reduce_only=True))
    f.bar(2, '100 100 100 100')
    assert f.said('rest') == [Accepted, Filled] and f.venue.positions() == {}


def test_chance_refuses_about_as_many_as_it_says() -> None:
    f = Floor(FillModel(reject_rate=0.2, seed=3))
    for n in range(1000): f.send(f'o{n}', intent('buy', '1'))
    f.listen()
    refused = [e for e in f.log if isinstance(e, Rejected)]
    assert 160 <= len(refused) <= 240 and {e.reason for e in refused} == {'by chance: reject_rate 0.2'}


def test_chance_is_not_the_same_for_every_symbol() -> None:
    f = Floor(FillModel(reject_rate=0.5, seed=3))
    for s in NAMES:
        for n in range(40): f.send(f'{s}{n}', intent('buy', '1', symbol=s))
    f.listen()
    fates = {s: tuple(isinstance(e, Rejected) for e in f.log if e.client_id[:3] == s) for s in NAMES}
    assert len(set(fates.values())) == 3


def test_a_name_that_was_refused_stays_refused() -> None:
    f = Floor(FillModel(reject_rate=1.0))
    for _ in range(2): f.send('x', intent('buy', '1'))
    assert [type(e) for e in f.listen()] == [Rejected, Rejected] and f.venue.open_orders() == []


def test_what_no_gate_approved_is_no_order() -> None:
    f = Floor()
    with pytest.raises(BadInput, match='no gate approved'): f.venue.submit(Order('x', intent('buy', '1')))  # type: ignore[arg-type]
    assert f.venue.drain() == [] and f.venue.order('x') is None


@pytest.mark.parametrize('cursor', ['paper-9', 'kraken-1', 'paper-', 'x'])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadInput, match='cursor'): Floor().venue.fills_since(cursor)
