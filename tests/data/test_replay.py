"""A replay: in time order, on the tick, nothing early, nothing lost."""
from __future__ import annotations
from dataclasses import replace
from decimal import Decimal
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from gekko.data.bars import Bars, datetimes, from_frames
from gekko.data.feed import Opened, Step, steps
from gekko.data.replay import QuoteReplay, ReplayFeed, on_grid, to_ticks
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar, Quote
from gekko.domain.money import from_float, on_step, steps as whole_steps
from gekko.domain.time import DAY, SECOND, utc

D = Decimal
START = utc('2020-01-01')
TICKS = [D('0.01'), D('0.05'), D('0.25'), D('0.00001'), D('0.003'), D(1), D(5), D('1e-8')]


def market(days: dict[str, list[int]], tick: Decimal = D('0.01'), seed: int = 0) -> tuple[Bars, dict[str, Instrument]]:
    frames = {}
    for j, (s, d) in enumerate(days.items()):
        r = np.random.default_rng(seed + j)
        c = 100 * np.exp(np.cumsum(r.normal(0, 0.02, len(d))))
        o = c * np.exp(r.normal(0, 0.01, len(d)))
        frames[s] = pd.DataFrame({'timestamp': datetimes(START + np.array(d, dtype=np.int64) * DAY), 'open': o, 'high': np.maximum(o, c), 'low': np.minimum(o, c), 'close': c, 'volume': r.uniform(0, 9, len(d))})
    return from_frames(frames, DAY), {s: Instrument(s, s, 'USD', tick=tick) for s in days}


@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.integers(-10**6, 10**6).map(lambda i: i / 2000), st.floats(1e12, 1e17)), min_size=1, max_size=30), st.sampled_from(TICKS))
def test_ticks_are_those_of_the_exact_rule(prices: list[float], tick: Decimal) -> None:
    prices = [p for p in prices if abs(p) / float(tick) < 2**62]
    assert to_ticks(np.array(prices), tick).tolist() == [whole_steps(from_float(p, tick), tick) for p in prices]


@pytest.mark.parametrize('tick', TICKS)
def test_halves_go_to_the_even_tick(tick: Decimal) -> None:
    halves = [(k + D('0.5')) * tick for k in range(-50, 50)]
    found = to_ticks(np.array([float(h) for h in halves]), tick)
    assert found.tolist() == [whole_steps(from_float(float(h), tick), tick) for h in halves]
    assert (found % 2 == 0).all()


@given(st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=20, unique=True), min_size=1, max_size=3), st.sampled_from(TICKS[:6]), st.data())
def test_every_bar_arrives_once_in_order_and_exact(days: list[list[int]], tick: Decimal, data: st.DataObject) -> None:
    bars, instruments = market({f'S{j}': sorted(d) for j, d in enumerate(days)}, tick)
    first = data.draw(st.integers(0, len(bars)))
    feed = ReplayFeed(bars, instruments, first)
    told = list(steps(feed))
    assert [s.row for s in told] == [r for t in range(first, len(bars)) for r in (-1, t)]
    assert all(a.ts <= b.ts for a, b in zip(told, told[1:]))
    assert feed.done == feed.total == len(bars) - first
    assert feed.poll() is None
    for opened, closed in zip(told[::2], told[1::2]):
        t = closed.row
        held = [s for s, c in zip(bars.symbols, bars.close[t]) if not np.isnan(c)]
        assert [e.symbol for e in opened.events] == [e.symbol for e in closed.events] == held
        for o, e in zip(opened.events, closed.events):
            assert isinstance(o, Opened) and isinstance(e, Bar)
            j = bars.symbols.index(e.symbol)
            assert o.ts == opened.ts == e.start == bars.start[t] and e.end == closed.ts == bars.end[t]
            assert o.price == e.open == from_float(bars.open[t, j], tick)
            assert e.close == from_float(bars.close[t, j], tick)
            assert e.volume == D(repr(float(bars.volume[t, j])))
            assert all(on_step(p, tick) for p in (e.open, e.high, e.low, e.close))
            assert e.high == max(e.open, e.close, from_float(bars.high[t, j], tick))
            assert e.low == min(e.open, e.close, from_float(bars.low[t, j], tick))


@given(st.integers(0, 2**32 - 1), st.sampled_from(TICKS[:6]))
def test_bars_on_the_grid_are_what_a_replay_sends(seed: int, tick: Decimal) -> None:
    bars, instruments = market({'A': [0, 1, 2, 5], 'B': [1, 2, 3]}, tick, seed)
    grid = on_grid(bars, instruments)
    assert list(steps(ReplayFeed(bars, instruments))) == list(steps(ReplayFeed(grid, instruments)))
    for step in steps(ReplayFeed(bars, instruments)):
        for e in step.events:
            if isinstance(e, Bar):
                j = bars.symbols.index(e.symbol)
                assert [float(e.open), float(e.high), float(e.low), float(e.close)] == [x[step.row, j] for x in (grid.open, grid.high, grid.low, grid.close)]
    assert on_grid(grid, instruments).version == grid.version
    np.testing.assert_array_equal(np.isnan(grid.close), np.isnan(bars.close))


@given(arrays(np.float64, (4, 6), elements=st.floats(1, 100)))
def test_a_bar_that_contradicts_itself_is_widened_and_no_more(x: np.ndarray) -> None:
    bars, instruments = market({'A': [0, 1, 2, 3, 4, 5]})
    o, h, l, c = (v[:, None] for v in x)
    told = [s.events[0] for s in steps(ReplayFeed(replace(bars, open=o, high=h, low=l, close=c), instruments)) if s.row >= 0]
    for t, e in enumerate(told):
        po, ph, pl, pc = (from_float(v[t], D('0.01')) for v in x)
        assert isinstance(e, Bar)
        assert (e.open, e.high, e.low, e.close) == (po, max(po, ph, pc), min(po, pl, pc), pc)


@pytest.mark.parametrize('price', [float('inf'), float('nan'), 1e30])
def test_what_is_no_count_of_ticks_is_refused(price: float) -> None:
    with pytest.raises(BadInput, match='no count of ticks'): to_ticks(np.array([1.0, price]), D('0.01'))


def test_where_a_replay_starts_changes_nothing_it_says() -> None:
    bars, instruments = market({'A': list(range(2600)), 'B': list(range(0, 2600, 2))})
    whole = list(steps(ReplayFeed(bars, instruments)))
    for first in (1, 1023, 1024, 1025, 2047, 2599):
        part = list(steps(ReplayFeed(bars, instruments, first)))
        assert part == whole[2 * first:]
        assert [str(e) for s in part[:40] for e in s.events] == [str(e) for s in whole[2 * first:2 * first + 40] for e in s.events]


def test_two_replays_say_the_same() -> None:
    bars, instruments = market({'A': list(range(50)), 'B': list(range(25))})
    assert list(steps(ReplayFeed(bars, instruments))) == list(steps(ReplayFeed(bars, instruments)))


def test_progress_counts_closed_rows() -> None:
    bars, instruments = market({'A': [0, 1, 2, 3]})
    feed = ReplayFeed(bars, instruments, first=1)
    seen = [(feed.done, feed.total)]
    while feed.poll() is not None: seen.append((feed.done, feed.total))
    assert [d for d, _ in seen] == [0, 0, 1, 1, 2, 2, 3]
    assert {t for _, t in seen} == {3}


def test_a_closed_replay_says_no_more_and_keeps_its_count() -> None:
    bars, instruments = market({'A': [0, 1, 2]})
    feed = ReplayFeed(bars, instruments)
    for _ in range(3): feed.poll()
    feed.close()
    assert feed.poll() is None
    assert feed.done == 1


def test_what_cannot_be_replayed_is_refused() -> None:
    bars, instruments = market({'A': [0, 1, 2], 'B': [0, 1]})
    with pytest.raises(BadInput, match='no instrument: expected B, found A'): ReplayFeed(bars, {'A': instruments['A']})
    for first in (-1, 4):
        with pytest.raises(BadInput, match='first row'): ReplayFeed(bars, instruments, first)
    with pytest.raises(BadInput, match='bars overlap'): ReplayFeed(replace(bars, start=bars.start - SECOND), instruments)
    with pytest.raises(BadInput, match='ends before'): ReplayFeed(replace(bars, end=bars.start), instruments)


def test_nothing_to_replay_is_an_end_at_once() -> None:
    bars, instruments = market({'A': [0, 1]})
    feed = ReplayFeed(bars, instruments, first=2)
    assert (feed.poll(), feed.done, feed.total) == (None, 0, 0)


def test_quotes_of_one_instant_are_one_step() -> None:
    q = [Quote(s, START + i * SECOND, D(1), D(2)) for s, i in [('A', 0), ('B', 0), ('A', 1), ('A', 3), ('B', 3)]]
    feed = QuoteReplay(iter(q))
    assert feed.symbols == ('A', 'B')
    assert list(steps(feed)) == [Step(START, tuple(q[:2])), Step(START + SECOND, (q[2],)), Step(START + 3 * SECOND, tuple(q[3:]))]
    assert (feed.done, feed.total) == (5, 5)
    feed = QuoteReplay(q)
    feed.close()
    assert feed.poll() is None
    with pytest.raises(BadInput, match='out of order'): QuoteReplay(q[::-1])
