"""The Kalman line: the recursion against the textbook's matrices, the sums against the recursion, a window against the whole."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.portfolio.kalman import Belief, kalman_path, kalman_window, predict, update

fixed = settings(max_examples=40, deadline=None, derandomize=True)
seeds, discounts = st.integers(0, 2**31), st.floats(0.9, 0.999)


def world(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 3 + np.cumsum(rng.normal(0, 0.02, rows))
    return rng.normal(1, 0.3) + rng.uniform(0.3, 2) * x + rng.normal(0, 0.01, rows), x


@given(seeds, discounts)
@fixed
def test_against_the_textbook_in_matrices(seed: int, discount: float) -> None:
    """Predict and update as Kalman wrote them, with drift covariance (1/discount - 1) P and noise variance one."""
    y, x = world(seed, 30)
    m, p = np.array([0.0, 1.0]), np.diag([1e5, 1e3])
    b = Belief()
    for xt, yt in zip(x, y):
        p = p + (1 / discount - 1) * p
        h = np.array([1.0, xt])
        s = h @ p @ h + 1
        k = p @ h / s
        m, p = m + k * (yt - h @ m), p - np.outer(k, h @ p)
        b, e, q = update(predict(b, discount), xt, yt)
        assert q == pytest.approx(s)
    assert (b.alpha, b.beta) == pytest.approx(tuple(m), rel=1e-5, abs=1e-5)


@given(seeds, discounts, st.integers(5, 200))
@fixed
def test_sums_are_the_recursion(seed: int, discount: float, memory: int) -> None:
    y, x = world(seed, memory + 30)
    fast = kalman_window(y, x, discount, memory)
    for t in (memory - 1, memory + 29):
        path, b = kalman_path(y[t + 1 - memory:t + 1], x[t + 1 - memory:t + 1], discount)
        assert (fast.alpha[t], fast.beta[t], fast.noise[t]) == pytest.approx((b.alpha, b.beta, b.noise), rel=1e-4, abs=1e-6)


@given(seeds, discounts, st.integers(2, 120))
@fixed
def test_a_window_gives_the_same_bits(seed: int, discount: float, memory: int) -> None:
    y, x = world(seed, memory + 60)
    full = kalman_window(y, x, discount, memory)
    for t in (memory, memory + 13, memory + 59):
        part = kalman_window(y[t - memory:t + 1], x[t - memory:t + 1], discount, memory)
        for field in ('alpha', 'beta', 'spread', 'z', 'noise'): assert getattr(part, field)[-1].tobytes() == getattr(full, field)[t].tobytes()


@given(seeds, st.integers(1, 199))
@fixed
def test_carrying_the_belief_is_not_stopping(seed: int, stop: int) -> None:
    y, x = world(seed, 200)
    whole, last = kalman_path(y, x, 0.98)
    first, b = kalman_path(y[:stop], x[:stop], 0.98)
    rest, end = kalman_path(y[stop:], x[stop:], 0.98, b)
    assert end == last and np.concatenate([first.beta, rest.beta]).tobytes() == whole.beta.tobytes()


def test_surprises_are_measured_before_the_row_is_seen() -> None:
    y, x = world(3, 400)
    before = kalman_window(y, x, 0.98, 100)
    y[300] += 0.5
    after = kalman_window(y, x, 0.98, 100)
    assert after.spread[300] - before.spread[300] == pytest.approx(0.5) and after.z[300] > 5
    assert (after.beta[:300] == before.beta[:300])[99:].all() and after.beta[300] != before.beta[300]


def test_a_gap_passes() -> None:
    y, x = world(3, 400)
    whole = kalman_window(y, x, 0.98, 100)
    y[200] = np.nan
    holed = kalman_window(y, x, 0.98, 100)
    assert np.isnan(holed.beta[200:300]).all() and (holed.beta[300:] == whole.beta[300:]).all()


@pytest.mark.parametrize('discount', [0.0, 1.1, float('nan')])
def test_refused_discounts(discount: float) -> None:
    with pytest.raises(BadInput, match='discount'): kalman_window(np.zeros(9), np.zeros(9), discount, 5)


def test_no_forgetting_is_least_squares() -> None:
    y, x = world(8, 300)
    slope, level = np.polyfit(x[-200:], y[-200:], 1)
    h = kalman_window(y, x, 1.0, 200, Belief(p_aa=1e12, p_bb=1e12))
    assert (h.alpha[-1], h.beta[-1]) == pytest.approx((level, slope), rel=1e-6)
