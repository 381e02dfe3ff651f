"""Bars from a stream: the truth, the venue's own, or none."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data import features
from gekko.data.bars import FIELDS, BarWindow, Bars, row_of, stamp
from gekko.data.dialect import Heard
from gekko.data.feed import Step
from gekko.data.listening import hear, want
from gekko.data.live import BarMaker, LiveFeed
from gekko.data.mending import connected, lost, mend, needs
from gekko.data.stream import Stream, hand_over, take_in
from gekko.domain.errors import BadInput, Retry
from gekko.domain.market import Bar, Quote, Trade
from gekko.domain.time import MINUTE, SECOND, SimClock, SystemClock, utc

D = Decimal
NOON = utc('2024-01-08T12:00:00Z')
BTC, ETH, EUR = 'BTC-USD', 'ETH-USD', 'EUR-USD'


class Inline(Executor):
    """Runs at once what it is given."""
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Future[Any]:
        f: Future[Any] = Future()
        try: f.set_result(fn(*args, **kw))
        except Exception as e: f.set_exception(e)
        return f


class Ready:
    """Frames come decoded. Currencies have no trades here."""
    venue, quiet_s, per_connection = 'ready', 5.0, frozenset[str]()
    def known(self, symbol: str, kind: str) -> str: return 'no trades of currencies' if symbol == EUR and kind == 'trade' else ''
    def decode(self, frame: Any, received: int) -> Heard: return frame  # type: ignore[no-any-return]


def nothing(symbol: str, start: int, end: int) -> list[Bar]: raise Retry('no candles today')


class Stage:
    """A feed whose stream hears what it is told; the clock moves by hand."""

    def __init__(self, *symbols: str, start: int = NOON, history: Any = nothing, bar: int = MINUTE, **options: Any) -> None:
        self.clock, self.steps, self.n = SimClock(start), list[Step](), dict[str, int]()
        self.stream = Stream(Ready(), self.clock)  # type: ignore[arg-type]
        self.feed = LiveFeed(symbols, bar, self.stream, self.clock, history, executor=Inline(), **options)
        want(self.stream.ear, self.stream.wishes.popleft()[1], start)
        self.up()

    def up(self) -> None:
        connected(self.stream.ear, self.clock.now())
        take_in(self.stream, Heard(acked=self.stream.ear.wanted), self.clock.now())  # type: ignore[arg-type]

    def down(self) -> None:
        lost(self.stream.ear, self.clock.now(), 'cut')
        hand_over(self.stream)

    def poll(self) -> None:
        while (s := self.feed.poll()) is not None: self.steps.append(s)

    def to(self, t: int, step: int = SECOND // 8) -> None:
        while self.clock.now() < t:
            self.clock.set(min(self.clock.now() + step, t))
            self.poll()

    def beat(self) -> None: self.frame(Heard(beat=True))
    def frame(self, heard: Heard) -> None:
        take_in(self.stream, heard, self.clock.now())  # type: ignore[arg-type]
        self.poll()

    def trade(self, price: Any, qty: Any = 1, symbol: str = BTC, ts: int | None = None, skip: int = 0) -> Trade:
        """The next number of the symbol; `skip` of them never come."""
        n = self.n[symbol] = self.n.get(symbol, 0) + 1 + skip
        now = self.clock.now()
        t = Trade(symbol, now if ts is None else ts, D(str(price)), D(str(qty)), trade_id=str(n), received=now, seq=n)
        self.frame(Heard((t,), f'trade:{symbol}', n))
        return t

    def quote(self, bid: Any, ask: Any, symbol: str) -> None:
        self.frame(Heard((Quote(symbol, self.clock.now(), D(str(bid)), D(str(ask))),)))

    def beats_to(self, t: int, step: int = SECOND // 8) -> None:
        """On to `t` with a sign of life each second."""
        while self.clock.now() < t:
            self.to(min(self.clock.now() + SECOND, t), step)
            self.beat()

    @property
    def rows(self) -> list[Step]: return [s for s in self.steps if s.row >= 0]
    @property
    def bars(self) -> list[Bar]: return [e for s in self.rows for e in s.events if isinstance(e, Bar)]


def candle(symbol: str, start: int, end: int) -> list[Bar]: return [Bar(symbol, start, end, D(7), D(9), D(5), D(8), D(3))]


def settled(*symbols: str, **options: Any) -> Stage:
    """A stage whose first, partial minute is behind it."""
    s = Stage(*symbols, start=NOON - 30 * SECOND, **options)
    s.beats_to(NOON + SECOND)
    s.steps.clear()
    return s


def test_bars_are_closed_only_and_exact() -> None:
    s = settled(BTC)
    for k, (p, q) in enumerate((('42000.10', '0.1'), ('42000.30', '0.2'), ('41999.99', '0.3'))):
        s.to(NOON + (10 + k) * SECOND)
        s.trade(p, q)
    s.to(NOON + MINUTE + SECOND // 8)
    s.beat()
    assert not s.rows, 'late trades have a quarter of a second'
    s.beats_to(NOON + MINUTE + SECOND)
    [b] = s.bars
    assert (b.open, b.high, b.low, b.close, b.volume) == (D('42000.10'), D('42000.30'), D('41999.99'), D('41999.99'), D('0.6'))
    assert (b.start, b.end, s.rows[0].ts, s.rows[0].row) == (NOON, NOON + MINUTE, NOON + MINUTE, 0)
    assert [type(e).__name__ for x in s.steps if x.row < 0 for e in x.events] == ['Trade'] * 3


def test_several_symbols_share_a_step_in_their_order_and_flat_bars_fill_in() -> None:
    s = settled(ETH, BTC)
    s.trade(42000)
    s.trade(2000, symbol=ETH)
    s.beats_to(NOON + MINUTE + 10 * SECOND)
    s.trade(42001)
    s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert [[(e.symbol, str(e.close), str(e.volume)) for e in r.events] for r in s.rows] == [[(ETH, '2000', '1'), (BTC, '42000', '1')], [(ETH, '2000', '0'), (BTC, '42001', '1')]]
    assert [r.row for r in s.rows] == [0, 1]


def test_a_trade_on_the_boundary_belongs_to_the_next_bar_and_an_early_receiver_waits() -> None:
    s = settled(BTC)
    s.trade(1)
    s.to(NOON + MINUTE)
    s.trade(2, ts=NOON + MINUTE - 1)
    s.trade(3, ts=NOON + MINUTE)
    s.trade(4, ts=NOON + MINUTE - 1)      # still within `late`, and heard after one of the next bar
    s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert [(str(b.high), str(b.close), str(b.volume)) for b in s.bars] == [('4', '4', '3'), ('3', '3', '1')]
    assert s.feed.late_trades == {BTC: 0}


def test_late_trades_are_counted_and_never_written_into_a_closed_bar() -> None:
    metrics: dict[str, float] = {}
    s = settled(BTC, on_metric=metrics.__setitem__)
    s.trade(100)
    s.beats_to(NOON + MINUTE + SECOND)
    before = s.bars
    s.trade(999, ts=NOON + 59 * SECOND)
    s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert s.feed.late_trades == {BTC: 1} and metrics['feed.late'] == 1.0 and s.bars[0] == before[0] and s.bars[1].high == 100


def test_the_first_partial_bar_is_the_venues_or_nobodys() -> None:
    own = Stage(BTC, start=NOON + 20 * SECOND, history=candle)
    none = Stage(BTC, start=NOON + 20 * SECOND)
    for s in (own, none):
        s.trade(50)
        s.beats_to(NOON + MINUTE + 12 * SECOND)
        s.trade(51)
        s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert [(b.start, str(b.close)) for b in own.bars] == [(NOON, '8'), (NOON + MINUTE, '51')]
    assert [(b.start, str(b.close)) for b in none.bars] == [(NOON + MINUTE, '51')]
    assert none.feed.reasons == {BTC: 'Retry: no candles today'} and [r.row for r in none.rows] == [0]


@pytest.mark.parametrize(('cut', 'back', 'spoilt'), [(20, 30, [0]), (50, 70, [0, 1]), (61, 62, [1]), (59.9, 60.4, [0, 1])])
def test_a_bar_in_which_the_line_was_broken_is_the_venues(cut: float, back: float, spoilt: list[int]) -> None:
    s = settled(BTC, history=candle)
    s.trade(100)
    for t, act in ((cut, s.down), (back, s.up)):
        s.beats_to(NOON + int(t * SECOND)) if act == s.down else s.to(NOON + int(t * SECOND))
        act()
    s.beats_to(NOON + int(back * SECOND) + SECOND)
    s.beats_to(max(s.clock.now(), NOON + 65 * SECOND))
    s.trade(101)
    s.beats_to(NOON + 3 * MINUTE + SECOND)
    assert [(b.start - NOON) // MINUTE for b in s.bars if b.volume == 3] == spoilt and len(s.bars) == 3


def test_a_repaired_hole_spoils_nothing_and_a_lost_one_does() -> None:
    for repaired in (True, False):
        s = settled(BTC, history=candle)
        s.trade(100)
        s.to(NOON + 30 * SECOND)
        s.trade(102, skip=1)
        [need] = needs(s.stream.ear)
        s.to(NOON + 31 * SECOND)
        missing = Trade(BTC, NOON + 29 * SECOND, D(500), D(1), trade_id=str(need.after + 1), seq=need.after + 1)
        mend(s.stream.ear, need, [missing], s.clock.now()) if repaired else s.stream.ear.out.clear()
        if not repaired:
            from gekko.data.mending import give_up
            give_up(s.stream.ear, need.channel, s.clock.now())
        hand_over(s.stream)
        s.beats_to(NOON + MINUTE + SECOND)
        assert [(str(b.high), str(b.close)) for b in s.bars] == ([('500', '102')] if repaired else [('9', '8')])


def test_a_hole_still_open_at_the_end_of_a_bar_is_waited_for() -> None:
    s = settled(BTC, history=candle)
    s.trade(100)
    s.to(NOON + 59 * SECOND)
    s.trade(102, skip=1)
    s.beats_to(NOON + MINUTE + SECOND)
    assert not s.rows
    [need] = needs(s.stream.ear)
    mend(s.stream.ear, need, [Trade(BTC, NOON + 58 * SECOND, D(500), D(1), trade_id='2', seq=2)], s.clock.now())
    hand_over(s.stream)
    s.beats_to(NOON + MINUTE + 2 * SECOND)
    assert [str(b.high) for b in s.bars] == ['500']


def test_silence_at_the_end_of_a_bar_is_asked_about_and_not_believed() -> None:
    s = settled(BTC, history=candle)
    s.trade(100)
    s.to(NOON + MINUTE + SECOND)
    assert s.stream.probing and not s.rows
    s.to(NOON + MINUTE + 3 * SECOND)
    assert [str(b.close) for b in s.bars] == ['8']
    s.trade(101)
    s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert [str(b.close) for b in s.bars] == ['8', '101']


def test_history_that_is_slow_wrong_or_broken() -> None:
    calls: list[int] = []
    def slow(symbol: str, start: int, end: int) -> list[Bar]:
        calls.append(start)
        if len(calls) < 3: raise Retry('not yet')
        if len(calls) < 5: return candle(symbol, start - MINUTE, end - MINUTE)      # the candle before: not ours
        return candle(symbol, start, end)
    s = Stage(BTC, start=NOON + 20 * SECOND, history=slow)
    s.beats_to(NOON + MINUTE + 3 * SECOND)
    assert not s.bars
    s.beats_to(NOON + MINUTE + 8 * SECOND)
    assert [(b.start, b.close) for b in s.bars] == [(NOON, 8)] and len(calls) == 5 and s.feed.fetched == 1

    def broken(symbol: str, start: int, end: int) -> list[Bar]: raise KeyError('candles')
    s = Stage(BTC, start=NOON + 20 * SECOND, history=broken)
    s.beats_to(NOON + MINUTE + 12 * SECOND)
    assert s.feed.left_out == 1 and s.feed.reasons[BTC] == "KeyError: 'candles'" and not s.bars


def test_no_flat_bar_is_made_of_a_price_from_before_a_hole() -> None:
    s = settled(BTC)
    s.trade(100)
    s.beats_to(NOON + 70 * SECOND)
    s.down()
    s.to(NOON + 80 * SECOND)
    s.up()
    s.beats_to(NOON + 4 * MINUTE + SECOND)
    assert [(b.end - NOON) // MINUTE for b in s.bars] == [1]
    s.trade(105)
    s.beats_to(NOON + 6 * MINUTE + SECOND)
    assert [(b.end - NOON) // MINUTE for b in s.bars] == [1, 5, 6] and [r.row for r in s.rows] == [0, 1, 2]


def test_bars_of_quotes_use_every_mid_and_no_volume() -> None:
    s = settled(EUR)
    s.feed.poll()
    for bid, ask in (('1.0900', '1.0902'), ('1.1000', '1.1002'), ('1.0899', '1.0902')):
        take_in(s.stream, Heard((Quote(EUR, s.clock.now(), D(bid), D(ask)),)), s.clock.now())  # type: ignore[arg-type]
    s.beats_to(NOON + MINUTE + SECOND)
    [b] = s.bars
    assert (b.open, b.high, b.low, b.close, b.volume) == (D('1.0901'), D('1.1001'), D('1.09005'), D('1.09005'), 0)


def test_a_stamp_from_the_future_is_not_believed() -> None:
    s = settled(BTC, history=candle)
    s.trade(100)
    s.trade(777, ts=NOON + 50 * MINUTE)
    s.beats_to(NOON + 2 * MINUTE + SECOND)
    assert [str(b.close) for b in s.bars] == ['8', '8'] and all(b.high < 100 for b in s.bars)


def test_a_reader_that_slept_catches_up_row_by_row() -> None:
    s = settled(BTC)
    s.trade(100)
    for k in range(1, 6):
        s.clock.set(NOON + k * MINUTE + 10 * SECOND)
        n = s.n[BTC] = s.n[BTC] + 1
        t = Trade(BTC, s.clock.now(), D(100 + k), D(1), trade_id=str(n), seq=n)
        take_in(s.stream, Heard((t,), f'trade:{BTC}', n), s.clock.now())  # type: ignore[arg-type]
    s.poll()
    assert [(r.row, str(r.events[0].close)) for r in s.rows] == [(k, str(100 + k)) for k in range(5)]  # type: ignore[union-attr]


def test_what_makes_no_feed() -> None:
    stream = Stream(Ready(), SimClock(NOON))  # type: ignore[arg-type]
    for symbols, bar in (([], MINUTE), ([BTC], 0), ([BTC], SECOND // 2)):
        with pytest.raises(BadInput, match='a live feed'): LiveFeed(symbols, bar, stream, SimClock(NOON), nothing)
    with pytest.raises(BadInput, match='off the grid'): BarMaker(BTC, MINUTE, closed=NOON + 1)


def test_history_is_asked_beside_the_trading_thread() -> None:
    """The real executor: polling goes on while the venue thinks."""
    threads, gate = list[str](), threading.Event()
    def thinking(symbol: str, start: int, end: int) -> list[Bar]:
        threads.append(threading.current_thread().name)
        gate.wait(5)
        return candle(symbol, start, end)
    clock = SimClock(NOON + 20 * SECOND)
    stream = Stream(Ready(), clock)  # type: ignore[arg-type]
    feed = LiveFeed([BTC], MINUTE, stream, clock, thinking)
    want(stream.ear, stream.wishes.popleft()[1], clock.now())
    connected(stream.ear, clock.now())
    clock.set(NOON + 61 * SECOND)
    hear(stream.ear, Heard(beat=True), clock.now())
    hand_over(stream)
    assert feed.poll() is None and feed.poll() is None
    gate.set()
    until = time.monotonic() + 5
    while (step := feed.poll()) is None and time.monotonic() < until: time.sleep(0.001)
    assert step is not None and step.row == 0 and threads[0].startswith('gekko-history')
    feed.close()
    assert feed.poll() is None


def test_times_of_an_event() -> None:
    """Venue's time, our time, the venue's number: all three arrive."""
    s = settled(BTC)
    t = s.trade(100, ts=s.clock.now() - 7)
    [e] = [e for x in s.steps for e in x.events]
    assert e == t and isinstance(e, Trade) and (e.ts, e.received, e.seq) == (s.clock.now() - 7, s.clock.now(), 1)
    assert SystemClock().now() > e.received


TAPE = st.lists(st.tuples(st.integers(1, 25), st.integers(90, 110), st.integers(1, 5), st.sampled_from(['', '', '', '', '', 'cut', 'lost', 'doubled', 'late', 'quiet'])), min_size=1, max_size=40)


@settings(max_examples=300)
@given(TAPE, st.booleans())
def test_every_bar_is_the_true_bar(tape: list[tuple[int, int, int, str]], venue_has_it: bool) -> None:
    """Whatever happens to the line, a bar that is shown is the one that the venue would print; a row that is missing is one that nobody could know."""
    true: list[Trade] = []
    def bar_of(symbol: str, start: int, end: int) -> list[Bar]:
        inside = [t for t in true if start <= t.ts < end]
        before = [t for t in true if t.ts < start]
        if not inside and not before: return []
        p = [t.price for t in inside] or [before[-1].price]
        return [Bar(symbol, start, end, p[0], max(p), min(p), p[-1], sum((t.qty for t in inside), D(0)))]
    def history(symbol: str, start: int, end: int) -> list[Bar]:
        if not venue_has_it: raise Retry('no')
        return bar_of(symbol, start, end)
    s = settled(BTC, history=history)
    true.append(s.trade(100))
    for seconds, price, qty, what in tape:
        s.beats_to(s.clock.now() + seconds * SECOND, SECOND) if what != 'quiet' else s.to(s.clock.now() + seconds * SECOND, SECOND)
        if what == 'cut': s.down()
        if what == 'lost':      # and another follows at once: a last message that is lost is known to nobody
            n = s.n[BTC] = s.n[BTC] + 1
            true.append(Trade(BTC, s.clock.now(), D(price + 50), D(qty), trade_id=str(n), seq=n))
        n = s.n[BTC] = s.n[BTC] + 1
        t = Trade(BTC, s.clock.now(), D(price), D(qty), trade_id=str(n), seq=n)
        true.append(t)
        if what == 'late': s.to(s.clock.now() + SECOND // 8)
        if what == 'cut':
            s.to(s.clock.now() + 2 * SECOND)
            s.up()
        else:
            for _ in range(1 + (what == 'doubled')): s.frame(Heard((t,), f'trade:{BTC}', n))
        for need in needs(s.stream.ear):
            if price % 2: mend(s.stream.ear, need, [x for x in true if need.after < x.seq <= need.upto], s.clock.now())
            hand_over(s.stream)
        s.poll()
    s.beats_to(s.clock.now() + 3 * MINUTE, SECOND)
    for b in s.bars: assert [b] == bar_of(BTC, b.start, b.end)
    assert [r.row for r in s.rows] == list(range(len(s.rows)))
    assert [b.start for b in s.bars] == sorted({b.start for b in s.bars})
    if venue_has_it and s.bars: assert len(s.bars) == (s.bars[-1].end - s.bars[0].start) // MINUTE


# Each feature as a strategy calls it, with the rows it looks back.
CALLS: dict[str, tuple[int, Callable[[Bars], Any]]] = {
    'rolling_mean': (20, lambda b: features.rolling_mean(b.close, 20)),
    'rolling_max': (13, lambda b: features.rolling_max(b.high, 13)),
    'rolling_min': (13, lambda b: features.rolling_min(b.low, 13)),
    'rolling_std': (20, lambda b: features.rolling_std(b.close, 20)),
    'zscore': (17, lambda b: features.zscore(b.close, 17)),
    'simple_returns': (2, lambda b: features.simple_returns(b.close)),
    'log_returns': (2, lambda b: features.log_returns(b.close)),
    'momentum': (11, lambda b: features.momentum(b.close, 10)),
    'ewm_mean': (25, lambda b: features.ewm_mean(b.close, 8, 25)),
    'ewm_vol': (26, lambda b: features.ewm_vol(features.log_returns(b.close), 12, 25, 525_600)),
    'breakout': (15, lambda b: features.breakout(b.high, b.low, b.close, 15)),
    'atr': (15, lambda b: features.atr(b.high, b.low, b.close, 14)),
    'ffill': (6, lambda b: features.ffill(b.close, 5)),
}


def test_the_table_holds_every_feature() -> None: assert set(CALLS) == set(features.__all__)


@pytest.fixture(scope='module')
def morning() -> list[Step]:
    """Two symbols over an hour, with quiet minutes, a broken one and a symbol that is missing for a while."""
    rng, s = np.random.default_rng(11), Stage(BTC, ETH, start=NOON - 30 * SECOND)
    price = {BTC: 42000.0, ETH: 2000.0}
    for k in range(400):
        s.beats_to(s.clock.now() + int(rng.integers(2, 20)) * SECOND)
        symbol = BTC if rng.random() < 0.6 else ETH
        price[symbol] *= 1 + rng.normal() * 1e-3
        s.trade(f'{price[symbol]:.2f}', f'{rng.random():.4f}', symbol, skip=int(k == 200 and symbol == BTC))
        if k == 120:
            s.down()
            s.to(s.clock.now() + 70 * SECOND)
            s.up()
        for need in needs(s.stream.ear):
            from gekko.data.mending import give_up
            give_up(s.stream.ear, need.channel, s.clock.now())
            hand_over(s.stream)
    return s.rows


def rows_of(steps: list[Step]) -> list[Bars]: return [row_of([e for e in r.events if isinstance(e, Bar)], (BTC, ETH)) for r in steps]


@pytest.mark.parametrize('name', features.__all__)
def test_a_feature_of_the_stream_is_the_feature_of_the_frame(name: str, morning: list[Step]) -> None:
    """Row by row as the bars arrive, from a window of just the rows it looks back, bit for bit the column of the whole frame."""
    look, f = CALLS[name]
    rows = rows_of(morning)
    whole = stamp(Bars((BTC, ETH), *(np.concatenate([getattr(r, x) for r in rows]) for x in ('start', 'end', *FIELDS))))
    window, live = BarWindow((BTC, ETH), look), []
    for r in rows:
        window.append(r)
        live.append(f(window.bars)[-1])
    frame = f(whole)
    assert len(rows) > 50 and np.isnan(whole.close).any() and np.isfinite(frame).any()
    np.testing.assert_array_equal(np.array(live)[look - 1:], frame[look - 1:])
    assert np.array(live)[look - 1:].tobytes() == frame[look - 1:].tobytes()


def test_a_window_of_rows_is_the_frame_itself(morning: list[Step]) -> None:
    """And the frame made of exact bars is the frame made of the same prices as floats."""
    from gekko.data.bars import frame
    rows = rows_of(morning)
    window = BarWindow((BTC, ETH), len(rows))
    for r in rows: window.append(r)
    table = frame(window.bars, 'close')
    exact = {(int(e.end), e.symbol): float(str(e.close)) for r in morning for e in r.events if isinstance(e, Bar)}
    for j, symbol in enumerate((BTC, ETH)):
        assert table.iloc[:, j].dropna().tolist() == [v for (_, s), v in sorted(exact.items()) if s == symbol]
