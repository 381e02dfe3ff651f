"""Instants: there and back for every nanosecond, against the standard library where it can say as much."""
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, SECOND, Nanos, SimClock, SystemClock, bar_start, duration, iso, span, to_datetime, utc

FIRST, LAST = utc('0001-01-01'), utc('9999-12-31T23:59:59.999999999Z')
instants = st.integers(FIRST, LAST)


@given(instants)
@example(FIRST)
@example(LAST)
@example(-1)
@example(0)
@example(-SECOND)
def test_there_and_back(ts: Nanos) -> None:
    text = iso(ts)
    assert utc(text) == ts and text.endswith('Z') and len(text) <= 30
    assert utc(text[:-1]) == utc(text[:-1] + '+00:00') == utc(text.replace('T', ' ')) == utc(text.replace('.', ',')) == ts


@given(instants, instants)
def test_a_later_instant_reads_later(a: Nanos, b: Nanos) -> None:
    "Padded to nine digits, texts sort as instants do."
    def wide(ts: Nanos) -> str: return (iso(ts)[:-1] + ('' if '.' in iso(ts) else '.')).ljust(29, '0')
    assert (a < b) == (wide(a) < wide(b))


@given(st.datetimes(timezones=st.just(timezone.utc)), st.integers(-14 * 60 + 1, 14 * 60 - 1))
def test_as_the_standard_library_has_it(d: datetime, minutes: int) -> None:
    ts = utc(d)
    assert to_datetime(ts) == d and utc(d.isoformat()) == ts
    try: there = d.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError: return
    assert utc(there) == utc(there.isoformat()) == ts


@given(instants)
def test_a_datetime_is_never_later_than_the_instant(ts: Nanos) -> None:
    assert 0 <= ts - utc(to_datetime(ts)) < 1000


@given(st.integers(0, 10**9 - 1), st.integers(1, 9))
def test_a_fraction_is_read_to_the_last_digit(ns: int, digits: int) -> None:
    text = f'{ns:09d}'[:digits]
    assert utc(f'2024-03-08T14:30:00.{text}-05:00') - utc('2024-03-08T19:30:00Z') == int(text.ljust(9, '0'))


@pytest.mark.parametrize('bad', ['', 'now', '2024', '2024-13-01', '2024-02-30', '2024-03-08T25:00', '2024-03-08T14.5', '2024-03-08T14:30.5', '2024-03-08T14:30:60Z', '2024-03-08T14:30:00.1234567891Z',
                                 ' 2024-03-08', '2024-03-08T14:30:00.Z', '2024-03-08T14:30:00+05:30:10.5', '1709908200', '08.03.2024', datetime(2024, 3, 8), 1.5, None])
def test_what_is_not_an_instant(bad: object) -> None:
    with pytest.raises(BadInput): utc(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize('ts', [FIRST - 1, LAST + 1, 10**30])
def test_beyond_the_calendar(ts: Nanos) -> None:
    for f in (to_datetime, iso):
        with pytest.raises(BadInput, match='years 1 to 9999'): f(ts)


@given(st.integers(1, 10**8), st.sampled_from('smhdw'))
def test_a_length_has_one_shortest_name(n: int, unit: str) -> None:
    ns = duration(f'{n}{unit}')
    assert duration(span(ns)) == ns and len(span(ns)) <= len(f'{n}{unit}')


@pytest.mark.parametrize('bad', ['', '1', 'm', '0m', '01m', '-1m', '1M', '1.5h', '1 m', '1mm', '٣m', '9999999999d'])
def test_what_is_not_a_length(bad: str) -> None:
    with pytest.raises(BadInput): duration(bad)


@pytest.mark.parametrize('ns', [0, -SECOND, 1, SECOND + 1])
def test_lengths_without_a_name(ns: int) -> None:
    with pytest.raises(BadInput): span(ns)


@given(instants, st.sampled_from(['1s', '1m', '5m', '1h', '1d', '1w']).map(duration))
def test_bars_tile_time(ts: Nanos, length: Nanos) -> None:
    start = bar_start(ts, length)
    assert start <= ts < start + length and start % length == 0
    assert bar_start(start, length) == start and bar_start(start - 1, length) == start - length


@given(st.lists(st.integers(0, DAY), max_size=20), instants)
def test_a_replays_clock_goes_forward_only(moves: list[int], start: Nanos) -> None:
    clock, at = SimClock(start), start
    for by in moves:
        clock.advance(by)
        at += by
        assert clock.now() == clock.monotonic() == at
    if FIRST < at < LAST:
        with pytest.raises(BadInput, match='cannot go back'): clock.set(at - 1)
        assert clock.now() == at


def test_the_machines_clock() -> None:
    clock = SystemClock()
    a, b = clock.monotonic(), clock.monotonic()
    assert a <= b and abs(clock.now() - utc(datetime.now(timezone.utc))) < 60 * SECOND
