"""History pulled in pages: whatever is asked, cut off and asked again, the series is whole, closed and asked for once."""
from __future__ import annotations

import tempfile
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.pull import pages, pull, same_venue, stored
from gekko.data.store import Store
from gekko.domain.errors import BadInput, Halt, Retry
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar
from gekko.domain.time import MINUTE, SimClock, utc

COIN = Instrument('BTC-USD', 'BTC', 'USD', kind='crypto', venue='binanceus')
T0 = utc('2024-03-04T00:00:00Z')


def minute(n: int) -> Bar: return Bar('BTC-USD', T0 + n * MINUTE, T0 + (n + 1) * MINUTE, *(Decimal(100 + n % 7),) * 4, Decimal(1))


span = st.tuples(st.integers(0, 60), st.integers(1, 60)).map(lambda p: (p[0], p[0] + p[1]))


@given(st.none() | span, span, st.integers(1, 20))
def test_pages_cover_what_is_missing_and_nothing_else(held: tuple[int, int] | None, asked: tuple[int, int], step: int) -> None:
    said = list(pages(held, *asked, step))
    assert all(0 < hi - lo <= step for lo, hi in said)
    covered = [t for lo, hi in said for t in range(lo, hi)]
    have = set(range(*held)) if held else set()
    assert len(covered) == len(set(covered)) and not have & set(covered), 'nothing twice'
    whole = have | set(covered)
    assert set(range(*asked)) <= whole and sorted(whole) == list(range(min(whole), max(whole) + 1)), 'no hole'
    so_far = set(have)
    for lo, hi in said:
        so_far |= set(range(lo, hi))
        assert sorted(so_far) == list(range(min(so_far), max(so_far) + 1)), 'no hole at any moment'


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(span, st.integers(0, 4)), min_size=1, max_size=3), st.integers(3, 25))
def test_pulls_that_are_cut_off_leave_a_series_without_holes(asked: list[tuple[tuple[int, int], int]], page: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        clock = SimClock(T0 + 100 * MINUTE + MINUTE // 2)
        store = Store(root, clock=clock)
        for (lo, hi), cut in [*asked, ((0, 130), 99)]:
            left = [cut]

            def venue(a: int, b: int, left: list[int] = left) -> list[Bar]:
                left[0] -= 1
                if left[0] < 0: raise Retry('the line broke')
                return [m for n in range(130) if a < (m := minute(n)).end <= b or m.start < T0 + 101 * MINUTE <= m.end <= b]
            try:
                for _ in pull(store, COIN, '1m', T0 + lo * MINUTE, T0 + hi * MINUTE, venue, clock, page): pass
            except Retry: pass
            if (held := stored(store, 'BTC-USD', '1m')) is not None:
                frame = store.frame('BTC-USD', '1m')
                assert len(frame) == (held[1] - held[0]) // MINUTE and held[1] <= clock.now(), 'whole, and closed'
        assert stored(store, 'BTC-USD', '1m') == (T0, T0 + 100 * MINUTE)


@pytest.mark.parametrize(('answer', 'said'), [([minute(3), minute(2)], 'out of order'), ([minute(3), minute(3)], 'out of order'),
                                              ([Bar('ETH-USD', T0, T0 + MINUTE, *(Decimal(1),) * 4)], 'another series'), ([Bar('BTC-USD', T0, T0 + 2 * MINUTE, *(Decimal(1),) * 4)], 'another series')])
def test_a_venue_that_mixes_things_up_is_not_believed(answer: list[Bar], said: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    clock = SimClock(T0 + 50 * MINUTE)
    store = Store(tmp_path, clock=clock)
    with pytest.raises(Halt, match=said): list(pull(store, COIN, '1m', T0, T0 + 10 * MINUTE, lambda a, b: answer, clock))
    assert stored(store, 'BTC-USD', '1m') is None


def test_two_venues_are_not_one_series(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace
    clock = SimClock(T0 + 50 * MINUTE)
    store = Store(tmp_path, clock=clock)
    list(pull(store, COIN, '1m', T0, T0 + MINUTE, lambda a, b: [minute(0)], clock))
    with pytest.raises(BadInput, match='another venue'): same_venue(store, replace(COIN, venue='coinbase'))
