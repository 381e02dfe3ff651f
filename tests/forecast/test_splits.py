"""Splits: no window that is judged reads or shares a row that a network was fitted to, whatever the sizes."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.splits import Part, Split, finite, leaks, named, origins, rolling, split, split_at, windows

MINUTE = 60_000_000_000


def fitted(p: Part) -> set[int]:
    return {int(o) + k for o in origins(p) for k in range(p.horizon)}


def touched(p: Part) -> set[int]:
    return {int(o) + k for o in origins(p) for k in range(-p.input, p.horizon)}


def apart(s: Split) -> int | None:
    """Rows between what an earlier part is fitted to and what a later one touches, by sets; None for an overlap."""
    gaps = []
    for i, (_, a) in enumerate(s.parts):
        for _, b in s.parts[i + 1:]:
            if fitted(a) & touched(b): return None
            assert max(fitted(a)) < min(touched(b))
            gaps.append(min(touched(b)) - max(fitted(a)) - 1)
    return min(gaps)


sizes = st.tuples(st.integers(1, 20), st.integers(1, 15), st.integers(0, 15))


@settings(max_examples=150, deadline=None)
@given(sizes, st.integers(1, 500), st.floats(0.3, 0.8), st.floats(0.05, 0.5))
def test_no_row_of_training_is_seen_again(size: tuple[int, int, int], rows: int, train: float, test: float) -> None:
    input, horizon, embargo = size
    try: s = split(rows, input, horizon, train=train, test=test, embargo=embargo)
    except BadInput: return
    assert apart(s) == embargo and leaks(s) == []
    assert s.test.rows.stop == rows and s.train.rows.start == 0


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(50, 400), st.integers(20, 120), st.integers(0, 60), st.integers(10, 80), st.integers(0, 70), st.booleans())
def test_no_rolling_split_leaks(size: tuple[int, int, int], rows: int, train: int, valid: int, test: int, step: int, expanding: bool) -> None:
    input, horizon, embargo = size
    try: folds = list(rolling(rows, input, horizon, train=train, valid=valid, test=test, step=step, embargo=embargo, expanding=expanding))
    except BadInput: return
    for s in folds:
        assert apart(s) == embargo and leaks(s) == [] and s.test.rows.stop <= rows
    assert [s.test.first for s in folds] == sorted({s.test.first for s in folds})
    if not step: assert not any(fitted(a.test) & fitted(b.test) for a, b in zip(folds, folds[1:]))


@settings(max_examples=100, deadline=None)
@given(sizes, st.lists(st.integers(1, 900), min_size=60, max_size=200), st.integers(0, 400), st.data())
def test_instants_keep_rows_apart_in_time(size: tuple[int, int, int], steps: list[int], embargo: int, data: st.DataObject) -> None:
    input, horizon, _ = size
    ends = np.cumsum(steps).astype(np.int64) * MINUTE
    a = data.draw(st.integers(0, len(ends) - 1))
    b = data.draw(st.integers(a, len(ends) - 1))
    try: s = split_at(ends, input, horizon, int(ends[a]), int(ends[b]), embargo=embargo * MINUTE)
    except BadInput: return
    gap = apart(s)
    assert gap is not None and leaks(s) == [] and s.embargo <= gap
    for (_, p), (_, q) in zip(s.parts, s.parts[1:]): assert ends[min(touched(q))] - ends[max(fitted(p))] >= embargo * MINUTE
    assert s.test.first == b and (s.valid is None or s.valid.first == a)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(30, 300))
def test_leaks_are_found_by_the_independent_check(size: tuple[int, int, int], rows: int) -> None:
    """`leaks` is believed above, so it must say yes exactly where the sets do."""
    input, horizon, embargo = size
    try: s = split(rows, input, horizon, purge=False)
    except BadInput: return
    s = Split(s.train, s.valid, s.test, embargo, False)
    gap = apart_or_less(s)
    assert bool(leaks(s)) == (gap < embargo)


def apart_or_less(s: Split) -> int:
    return min(min(touched(b)) - max(fitted(a)) - 1 for i, (_, a) in enumerate(s.parts) for _, b in s.parts[i + 1:])


def test_poison_after_the_border_changes_no_training_window() -> None:
    x = np.random.default_rng(0).normal(size=900)
    s = split(900, 48, 12, embargo=6)
    assert s.valid is not None
    before = [w.copy() for w in windows(x, s.train)]
    x[s.valid.rows.start - s.embargo:] = 1e9
    assert all((a == b).all() for a, b in zip(before, windows(x, s.train)))


def test_windows_are_the_rows_they_say() -> None:
    x = np.stack([np.arange(40), np.arange(40) * 10], axis=1).astype(float)
    p = Part(7, 30, 5, 3)
    inputs, targets = windows(x, p, step=4)
    for o, i, t in zip(origins(p, 4), inputs, targets):
        assert (i[:, 0] == np.arange(o - 5, o)).all() and (t[:, 1] == np.arange(o, o + 3) * 10).all()


def test_the_published_split_has_its_published_windows() -> None:
    """12, 4 and 4 months of 30 days: 8640, 2880 and 2880 hours."""
    s = named('ett-hourly', 17_420, 336, 96)
    assert [len(p) for _, p in s.parts] == [8640 - 336 - 96 + 1, 2880 - 96 + 1, 2880 - 96 + 1]
    assert s.valid is not None and (s.valid.first, s.test.first, s.test.targets.stop) == (8640, 11_520, 14_400)
    assert s.train.targets.stop == 8640 and not fitted(s.train) & set(s.test.rows)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    x = np.zeros((30, 2))
    x[17, 1] = value
    with pytest.raises(BadInput, match='17, 1'): windows(x, Part(5, 20, 5, 3))
    with pytest.raises(BadInput): finite(value, dims=(0,))
