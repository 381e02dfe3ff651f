"""Bars: joined, cut, named and grown without ever changing a number."""
from __future__ import annotations
import pickle
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from gekko.data.bars import FIELDS, Bars, BarWindow, datetimes, digest, from_frames, nanos, row_of
from gekko.domain.errors import BadInput
from gekko.domain.market import Bar
from gekko.domain.time import DAY, HOUR, MINUTE, utc

START = utc('2020-01-01')


def table(days: list[int], seed: int = 0) -> pd.DataFrame:
    r = np.random.default_rng(seed)
    c = 100 + np.cumsum(r.normal(0, 1, len(days)))
    return pd.DataFrame({'timestamp': datetimes(START + np.array(days, dtype=np.int64) * DAY), 'open': c, 'high': c + 1, 'low': c - 1, 'close': c, 'volume': r.integers(1, 99, len(days))})


def same(a: Bars, b: Bars) -> None:
    assert a.symbols == b.symbols
    for f in ('start', 'end', *FIELDS): np.testing.assert_array_equal(getattr(a, f), getattr(b, f), err_msg=f)


@pytest.mark.parametrize('unit', ['s', 'ms', 'us', 'ns'])
@pytest.mark.parametrize('zone', ['UTC', 'America/New_York', 'Asia/Tokyo'])
def test_one_instant_in_any_unit_and_zone(unit: str, zone: str) -> None:
    index = pd.DatetimeIndex(['2020-01-01T00:00:00', '2020-07-01T12:00:00'], tz='UTC').as_unit(unit).tz_convert(zone)
    assert nanos(index).tolist() == [utc('2020-01-01'), utc('2020-07-01T12:00:00')]
    assert nanos(pd.Series(index)).dtype == np.int64


def test_times_outside_nanoseconds_are_refused() -> None:
    with pytest.raises(BadInput, match='1677 to 2262'): nanos(pd.DatetimeIndex(['3000-01-01'], tz='UTC').as_unit('s'))


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=20, unique=True), min_size=1, max_size=4))
def test_join_is_the_union_and_select_takes_it_apart(days: list[list[int]]) -> None:
    frames = {f'S{j}': table(sorted(d), j) for j, d in enumerate(days)}
    bars = from_frames(frames, DAY)
    assert ((bars.start - START) // DAY).tolist() == sorted(set().union(*days))
    for j, s in enumerate(frames):
        held = ~np.isnan(bars.close[:, j])
        assert held.sum() == len(days[j])
        assert (bars.volume[~held, j] == 0).all()
        alone = from_frames({s: frames[s]}, DAY)
        same(bars.select([s]), alone)
        assert bars.select([s]).version == alone.version


@given(st.integers(0, 40), st.integers(0, 40))
def test_neighbouring_cuts_share_no_row(a: int, b: int) -> None:
    bars = from_frames({'A': table(list(range(20)))}, DAY)
    lo, hi = sorted((a, b))
    x, y = START + lo * 12 * HOUR, START + hi * 12 * HOUR
    parts = [bars.between(None, x), bars.between(x, y), bars.between(y, None)]
    assert sum(map(len, parts)) == 20
    assert np.concatenate([p.end for p in parts]).tolist() == bars.end.tolist()
    assert all((p.end > x).all() and (p.end <= y).all() for p in parts[1:2])


def test_whole_cut_keeps_its_version_and_a_part_has_another() -> None:
    bars = from_frames({'A': table([0, 1, 2])}, DAY)
    assert bars.between(None, None).version == bars.version
    part = bars.between(START + DAY, None)
    assert part.version == digest(part) != bars.version


@pytest.mark.parametrize('field', ['open', 'high', 'low', 'close', 'volume'])
def test_every_number_is_in_the_digest(field: str) -> None:
    bars = from_frames({'A': table([0, 1, 2])}, DAY)
    x = getattr(bars, field).copy()
    x[1, 0] = np.nextafter(x[1, 0], np.inf)
    assert digest(replace(bars, **{field: x})) != bars.version


def test_symbols_and_times_are_in_the_digest() -> None:
    bars = from_frames({'A': table([0, 1, 2]), 'B': table([0, 1, 2])}, DAY)
    others = [replace(bars, symbols=('A', 'C')), replace(bars, symbols=('B', 'A')), replace(bars, start=bars.start + 1), replace(bars, end=bars.end + 1)]
    assert len({digest(b) for b in [bars, *others]}) == 5


def test_digest_is_the_same_on_every_machine() -> None:
    x = np.array([[1.5], [np.nan]])
    b = Bars(('A',), np.array([0, 60]), np.array([60, 120]), x, x, x, x, np.array([[2.0], [0.0]]))
    assert digest(b) == '410c481f2ac3d9b9'


def test_facts_stay_facts() -> None:
    bars = from_frames({'A': table([0, 1])}, DAY)
    with pytest.raises(FrozenInstanceError): bars.version = 'x'  # type: ignore[misc]
    for f in ('start', 'end', *FIELDS):
        with pytest.raises(ValueError, match='read-only'): getattr(bars.last(1), f)[0] = 0
    same(pickle.loads(pickle.dumps(bars)), bars)


@pytest.mark.parametrize(('spoil', 'says'), [
    (lambda f: f.drop(columns='timestamp'), 'no timestamp'),
    (lambda f: f.assign(timestamp=f.timestamp.dt.tz_localize(None)), 'without a zone'),
    (lambda f: f.assign(timestamp=f.timestamp.dt.strftime('%Y')), 'not a column of times'),
    (lambda f: f.assign(high=[1.0, float('inf'), 1.0]), 'high at 2020-01-02'),
    (lambda f: f.assign(volume=float('nan')), 'volume at 2020-01-01'),
    (lambda f: f.iloc[[0, 2, 1]], 'out of order'),
    (lambda f: f.iloc[[0, 0, 1]], 'twice'),
    (lambda f: f.iloc[:0], 'no rows'),
])
def test_bad_tables_are_refused_with_what_is_wrong(spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match=says): from_frames({'A': spoil(table([0, 1, 2]))}, DAY)


def test_no_tables_and_overlapping_bars_are_refused() -> None:
    with pytest.raises(BadInput, match='no tables'): from_frames({}, DAY)
    with pytest.raises(BadInput, match='bars overlap'): from_frames({'A': table([0, 1])}, 2 * DAY)


def test_a_volume_that_nobody_published_is_zero() -> None:
    assert from_frames({'A': table([0, 1]).drop(columns='volume')}, DAY).volume.tolist() == [[0.0], [0.0]]


@given(st.integers(1, 7), st.integers(1, 40))
def test_a_window_is_the_last_rows_and_never_changes_afterwards(n: int, appends: int) -> None:
    bars = from_frames({'A': table(list(range(40)), 1), 'B': table(list(range(0, 40, 3)), 2)}, DAY)
    w = BarWindow(bars.symbols, n)
    seen = []
    for i in range(appends):
        w.append(bars.rows(i, i + 1))
        now = w.bars
        assert all(getattr(now, f).flags.c_contiguous for f in ('start', 'end', *FIELDS))
        seen.append(now)
    for i, b in enumerate(seen): same(b, bars.rows(max(0, i + 1 - n), i + 1))


def test_a_window_filled_from_history_equals_one_fed_row_by_row() -> None:
    bars = from_frames({'A': table(list(range(40)))}, DAY)
    a, b = BarWindow(('A',), 9), BarWindow(('A',), 9)
    a.extend(bars)
    for i in range(40): b.append(bars.rows(i, i + 1))
    same(a.bars, b.bars)
    assert len(a) == 9


def test_a_window_refuses_what_does_not_follow() -> None:
    bars = from_frames({'A': table([0, 1, 2]), 'B': table([0, 1, 2])}, DAY)
    w = BarWindow(('A', 'B'), 2)
    w.append(bars.rows(1, 2))
    for row in (bars.rows(1, 2), bars.rows(0, 1)):
        with pytest.raises(BadInput, match='out of order'): w.append(row)
    for row in (bars, bars.rows(0, 0), bars.select(['A']).rows(2, 3)):
        with pytest.raises(BadInput, match='another window'): w.append(row)
    assert len(w) == 1
    with pytest.raises(BadInput, match='one row or more'): BarWindow(('A',), 0)


def test_row_of_events() -> None:
    d = Decimal
    a, c = (Bar(s, START, START + MINUTE, d('1.1'), d('1.3'), d('1.0'), d('1.2'), d(7)) for s in 'AC')
    row = row_of([c, a], ('A', 'B', 'C'))
    np.testing.assert_array_equal(np.stack([getattr(row, f)[0] for f in FIELDS]), [[1.1, np.nan, 1.1], [1.3, np.nan, 1.3], [1.0, np.nan, 1.0], [1.2, np.nan, 1.2], [7, 0, 7]])
    with pytest.raises(BadInput, match='found B'): row_of([replace(a, symbol='B')], ('A',))
    with pytest.raises(BadInput, match='one start and end'): row_of([a, replace(c, end=START + 2 * MINUTE)], ('A', 'C'))


def test_html_shows_a_symbol_without_any_bar() -> None:
    bars = from_frames({'A': table([0, 1]), 'B': table([5])}, DAY)
    assert '<th>B</th><td>0</td>' in bars.rows(0, 2)._repr_html_()
    assert repr(bars.rows(0, 0)) == 'Bars(A B: no rows)'
