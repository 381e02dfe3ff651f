"""Market calendars against brute force, against the calendars' own library, and against dates that everybody knows."""
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gekko.data.calendar import Windows, calendar, grid
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR, MINUTE, SECOND, to_datetime, utc

times = st.integers(utc('1995-01-01') // HOUR, utc('2030-01-01') // HOUR).map(lambda h: h * HOUR)


def fx_open(ts, zone, hour):
    """The trading week by its definition, one instant at a time."""
    d = to_datetime(ts).astimezone(ZoneInfo(zone))
    past = d.hour >= hour
    return {6: past, 4: not past, 5: False}.get(d.weekday(), True)


@settings(max_examples=40, deadline=None)
@given(start=times, hours=st.integers(1, 400), name=st.sampled_from(['24/5', 'FX']))
def test_a_trading_week_is_its_definition(start, hours, name):
    zone, hour = {'24/5': ('UTC', 22), 'FX': ('America/New_York', 17)}[name]
    starts = start + np.arange(hours) * HOUR
    want = [fx_open(int(s), zone, hour) for s in starts]
    cal = calendar(name)
    assert cal.expected(start, start + hours * HOUR, '1h').tolist() == starts[want].tolist()
    assert cal.open_in(starts, '1h').tolist() == want


@settings(max_examples=60, deadline=None)
@given(start=st.integers(utc('1990-01-01'), utc('2030-01-01')), width=st.integers(1, 40 * DAY), bar=st.sampled_from([MINUTE * 7, HOUR, 4 * HOUR, DAY, 7 * DAY]), phase=st.integers(0, 86_399))
def test_a_grid_is_every_start_within_and_nothing_else(start, width, bar, phase):
    g = grid(start, start + width, bar, phase * SECOND)
    assert (np.diff(g) == bar).all() and ((g >= start) & (g < start + width)).all()
    assert ((g - utc('1970-01-05') - phase * SECOND) % bar == 0).all()
    assert abs(len(g) - width / bar) <= 1


@settings(max_examples=60, deadline=None)
@given(edges=st.lists(st.integers(0, 200), min_size=2, max_size=20, unique=True).filter(lambda e: len(e) % 2 == 0), bar=st.integers(1, 30))
def test_windows_are_what_a_loop_says(edges, bar):
    e = np.array(sorted(edges))
    w, starts = Windows(e[::2], e[1::2]), np.arange(-40, 240)
    pairs = list(zip(e[::2], e[1::2]))
    assert w.hold(starts).tolist() == [any(a <= s < b for a, b in pairs) for s in starts]
    assert w.touch(starts, bar).tolist() == [any(s < b and s + bar > a for a, b in pairs) for s in starts]


@pytest.mark.parametrize('name', ['XNYS', 'XLON', 'XHKG', 'XTKS'])
def test_an_exchange_is_its_library(name):
    import exchange_calendars as xc
    start, end = utc('2021-01-01'), utc('2022-01-01')
    theirs = xc.get_calendar(name, start='2021-01-01', end='2021-12-31')
    cal = calendar(name)
    assert cal.expected(start, end, '1d').tolist() == theirs.sessions_nanos.tolist()
    assert cal.expected(start, end, '1m').tolist() == theirs.minutes_nanos.tolist()
    assert cal.open_in(theirs.minutes_nanos, '1m').all()
    closed = np.setdiff1d(grid(start, end, MINUTE), theirs.minutes_nanos)
    assert not cal.open_in(closed, '1m').any()


def test_new_york_since_1990():
    cal = calendar('XNYS')
    has = lambda day: len(cal.expected(utc(day), utc(day) + DAY, '1d')) == 1
    assert not any(map(has, ['1990-01-01', '1994-04-27', '2001-09-11', '2001-09-14', '2004-06-11', '2012-10-29', '2012-10-30', '2018-12-05', '2022-06-20', '2025-01-09']))
    assert all(map(has, ['1990-01-02', '2001-09-10', '2001-09-17', '2021-06-18', '2024-07-03']))
    # the half day before Independence Day ends at one o'clock in New York
    assert [to_datetime(int(t)) for t in cal.expected(utc('2024-07-03'), utc('2024-07-04'), '30m')][-1] == datetime(2024, 7, 3, 16, 30, tzinfo=UTC)


@pytest.mark.parametrize(('name', 'bar'), [('24/7', '1m'), ('24/7', '1d'), ('24/5', '1h'), ('24/5', '1d'), ('FX', '1h'), ('XNYS', '1d'), ('XNYS', '1h'), ('XNYS', '1w'), ('XHKG', '1m'), ('XLON', '1d')])
def test_periods_per_year_is_the_mean_of_ten_years(name, bar):
    cal = calendar(name)
    counted = len(cal.expected(utc('2010-01-01'), utc('2020-01-01'), bar)) / 10
    assert cal.periods_per_year(bar) == pytest.approx(counted, rel=0.015)


def test_refusals_name_what_is_near():
    with pytest.raises(BadInput, match='XNYS'): calendar('XNYX')
    with pytest.raises(BadInput, match='24/7'): calendar('?')
    with pytest.raises(BadInput, match='1997'): calendar('XTKS').expected(utc('1985-01-01'), utc('1986-01-01'), '1d')
    with pytest.raises(BadInput, match='not a duration'): calendar('24/7').expected(0, DAY, 'daily')


def test_nothing_asked_nothing_answered():
    for name in ('24/7', '24/5', 'XNYS'):
        cal, none = calendar(name), np.zeros(0, dtype=np.int64)
        assert len(cal.open_in(none, '1h')) == 0
        assert len(cal.expected(utc('2024-01-06'), utc('2024-01-06'), '1h')) == 0
