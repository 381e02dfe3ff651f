"""The usual volume of a day: exact sums, missing days, clocks that change, and the part that an order needs."""
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.data.calendar import calendar
from gekko.data.profile import UNIT, apportion, sessions, volume_profile, weights_for
from gekko.domain.errors import BadInput
from gekko.domain.order import Side
from gekko.domain.parent import Parent
from gekko.domain.money import dec
from gekko.domain.time import DAY, HOUR, MINUTE, utc
from gekko.execution.setup import ladder


def bars(start: np.ndarray, volume: np.ndarray, length: int) -> Bars:
    x = np.full((len(start), 1), 10.0)
    return Bars(('A',), start, start + length, x, x, x, x, np.asarray(volume, dtype=float).reshape(-1, 1))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=50).filter(any), st.integers(1, 10**7))
def test_shares_sum_exactly_and_are_next_to_right(parts: list[int], unit: int) -> None:
    out = apportion(parts, unit)
    assert sum(out) == unit
    assert all(abs(x - Fraction(p * unit, sum(parts))) < 1 for x, p in zip(out, parts))


@pytest.mark.parametrize('name', ['XNYS', 'XHKG', 'FX', '24/5', '24/7'])
def test_a_profile_of_any_calendar_is_the_shape_that_was_put_in(name: str) -> None:
    cal = calendar(name)
    a, b = sessions(cal, utc('2024-03-01'), utc('2024-04-15'))
    start = np.concatenate([np.arange(x, y, 10 * MINUTE) for x, y in zip(a, b)])
    start = start[cal.open_in(start, '10m')]
    offset = start - a[np.searchsorted(a, start, 'right') - 1]
    p = volume_profile(bars(start, 1.0 + offset / HOUR, 10 * MINUTE), 10, cal)
    lunch = [k for k, w in enumerate(p.weights) if w == 0]
    rest = [w for w in p.weights if w]
    assert sum(p.weights) == UNIT and len(lunch) <= 2
    assert rest[-1] > rest[0] and p.days >= 20


def test_missing_days_and_wild_days_do_not_bend_it() -> None:
    start = np.arange(0, 30 * DAY, HOUR)
    volume = np.tile(1.0 + np.arange(24), 30)
    whole = volume_profile(bars(start, volume, HOUR), 24, calendar('24/7'))
    volume[5 * 24:6 * 24] *= 1000
    keep = ~((start >= 9 * DAY) & (start < 11 * DAY)) & ~((start >= 20 * DAY + 6 * HOUR) & (start < 21 * DAY))
    mended = volume_profile(bars(start[keep], volume[keep], HOUR), 24, calendar('24/7'))
    assert mended.weights == whole.weights and (whole.days, mended.days) == (30, 27)


def test_the_opening_stays_the_opening_when_the_clocks_change() -> None:
    cal = calendar('XNYS')
    start = cal.expected(utc('2024-02-20'), utc('2024-03-28'), '30m')
    a, _ = sessions(cal, int(start[0]), int(start[-1]))
    first = np.isin(start, a)
    p = volume_profile(bars(start, np.where(first, 1000.0, 1.0), 30 * MINUTE), 13, cal)
    assert p.weights[0] > 980_000


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.integers(0, 10 * 24), st.integers(1, 3 * 24), st.integers(1, 40))
def test_the_part_of_an_order_sums_and_makes_a_schedule(begin: int, hours: int, parts: int) -> None:
    start = np.arange(0, 10 * DAY, HOUR)
    p = volume_profile(bars(start, np.tile(1.0 + np.arange(24) % 7, 10), HOUR), 24, calendar('24/7'))
    w = weights_for(p, calendar('24/7'), begin * HOUR, (begin + hours) * HOUR, parts)
    assert sum(w) == UNIT and len(w) == parts
    parent = Parent('p', 'vwap', 'A', Side.BUY, dec(7), begin * HOUR, (begin + hours) * HOUR, params={'weights': w, 'slices': 12})
    assert ladder(parent, dec('0.1'))[-1] == 70


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(BadInput, match='no day to learn from'): volume_profile(bars(np.arange(0, DAY, HOUR), np.zeros(24), HOUR), 4, calendar('24/7'))
    with pytest.raises(BadInput, match='no bar in a session'): volume_profile(bars(np.arange(utc('2024-03-09'), utc('2024-03-10'), HOUR), np.ones(24), HOUR), 4, calendar('XNYS'))
