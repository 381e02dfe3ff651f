"""Augmentation: what it should keep it keeps, what it should vary it varies by the amount said, and it never looks beyond the training rows."""
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.augment import Recipe, enlarged, jitter, magnitude_warp, scaling, training_copies, window_slice
from gekko.forecast.splits import Part

EACH: list[Callable[..., np.ndarray]] = [jitter, scaling, magnitude_warp, window_slice]


def walks(n: int, rows: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, rows)).cumsum(axis=1)


@pytest.mark.parametrize('change', EACH)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(change: Callable[..., np.ndarray]) -> None:
    x = walks(20)
    assert np.array_equal(change(x, 0.3, 7), change(x, 0.3, 7)) and not np.array_equal(change(x, 0.3, 7), change(x, 0.3, 8))
    assert np.array_equal(x, walks(20)), 'the given array was written into'


@pytest.mark.parametrize('change', EACH)
@pytest.mark.parametrize('shape', [(5, 30), (5, 30, 3), (1, 2)])
def test_shapes_are_kept(change: Callable[..., np.ndarray], shape: tuple[int, ...]) -> None:
    assert change(np.random.default_rng(0).normal(size=shape), 0.5, 1).shape == shape


def test_jitter_is_white_and_as_large_as_said() -> None:
    x = walks(400)
    noise = (jitter(x, 0.2, 3) - x) / x.std(axis=1, keepdims=True)
    assert noise.std() == pytest.approx(0.2, rel=0.02) and abs(noise.mean()) < 0.004
    assert abs(np.mean(noise[:, 1:] * noise[:, :-1])) < 0.0015


def test_scaling_has_a_mean_of_one_and_turns_no_sign() -> None:
    x = walks(40_000, 3)
    f = scaling(x, 0.25, 3) / x
    assert np.allclose(f, f[:, :1]) and f.min() > 0
    assert f[:, 0].mean() == pytest.approx(1, abs=0.005) and np.log(f[:, 0]).std() == pytest.approx(0.25, rel=0.02)


def test_a_warp_is_smooth_positive_and_as_large_as_said_at_its_knots() -> None:
    ones = np.ones((8000, 51))
    f = np.log(magnitude_warp(ones, 0.2, 4))
    assert f[:, ::10].std() == pytest.approx(0.2, rel=0.02)
    assert np.abs(np.diff(f, 2, axis=1)).max() < 0.1, 'it bends, it does not jump'


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 80), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_a_slice_stays_inside_what_it_was_cut_from(rows: int, keep: float, seed: int) -> None:
    x = walks(3, rows)
    y = window_slice(x, keep, seed)
    assert (y.min(axis=1) >= x.min(axis=1) - 1e-12).all() and (y.max(axis=1) <= x.max(axis=1) + 1e-12).all()
    line = np.arange(rows, dtype=float)[None]
    step = np.diff(window_slice(line, keep, seed)[0])
    assert np.allclose(step, step[0]) and step[0] == pytest.approx((max(2, round(keep * rows)) - 1) / (rows - 1))


def test_slices_begin_everywhere() -> None:
    begins = window_slice(np.tile(np.arange(20.0), (4000, 1)), 0.5, 0)[:, 0]
    assert set(begins) == set(range(11)) and abs(begins.mean() - 5) < 0.2


def test_input_and_target_of_a_window_are_scaled_as_one() -> None:
    x = walks(50) + 100
    y = enlarged(x, Recipe(jitter=0, warp=0, keep=1.0, scaling=0.3), 1)[50:]
    assert np.allclose(y / x, (y / x)[:, :1])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 40), st.integers(0, 40), st.integers(0, 99), st.booleans())
def test_nothing_outside_the_training_rows_is_read(input: int, horizon: int, before: int, after: int, seed: int, columns: bool) -> None:
    rows = before + input + horizon + 25
    x = np.random.default_rng(seed).normal(size=(rows + after, 2))
    if columns: x[:, 1] = np.arange(rows + after)
    train = Part(before + input, rows - horizon, input, horizon)
    recipe = Recipe(copies=2, columns=(0,) if columns else None)
    clean = training_copies(x, train, recipe, seed)
    x[:before], x[rows:] = np.nan, np.inf
    again = training_copies(x, train, recipe, seed)
    assert all(np.array_equal(a, b) for a, b in zip(clean, again))
    assert all(len(a) >= input + horizon and np.isfinite(a).all() for a in clean)
    if columns: assert all((np.diff(a[:, 1]) == 1).all() and a[0, 1] >= before and a[-1, 1] < rows for a in clean)


def test_no_column_chosen_is_no_change() -> None:
    x = np.random.default_rng(0).normal(size=(80, 2))
    (copy,) = training_copies(x, Part(10, 70, 10, 5), Recipe(columns=(), keep=1.0), 3)
    assert np.array_equal(copy, x[:75])


@pytest.mark.parametrize('bad', [dict(jitter=-0.1), dict(scaling=1.0), dict(warp=float('nan')), dict(keep=0.0), dict(copies=-1), dict(knots=0)])
def test_a_recipe_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(BadInput): Recipe(**bad)  # type: ignore[arg-type]
