"""Risk per year of clock time: against the plain formula, and the same to the bit from a window."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR
from gekko.portfolio.covariance import YEAR_NS, covariance_rate, elapsed_years, forecast_vol, half_life_span

fixed = settings(max_examples=60, deadline=None, derandomize=True)


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 60), st.floats(0.5, 200))
@fixed
def test_the_plain_formula(seed: int, n: int, memory: int, half_life: float) -> None:
    rng = np.random.default_rng(seed)
    rows = memory + int(rng.integers(0, 40))
    r, years = rng.normal(0, 0.01, (rows, n)), rng.uniform(1, 5, rows) / 365
    got = covariance_rate(r, years, half_life, memory)
    assert np.isnan(got[:memory - 1]).all()
    w = 0.5 ** (np.arange(memory) / half_life)
    last = r[::-1][:memory]
    assert got[-1] == pytest.approx((last.T * w) @ last / (w @ years[::-1][:memory]), rel=1e-9, abs=1e-15)
    assert (got[-1] == got[-1].T).all()


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 60))
@fixed
def test_a_window_gives_the_same_bits(seed: int, n: int, memory: int) -> None:
    rng = np.random.default_rng(seed)
    r, years = rng.normal(0, 0.01, (memory + 50, n)), rng.uniform(1, 5, memory + 50) / 365
    full = covariance_rate(r, years, 16, memory)
    for t in (memory - 1, memory, memory + 49):
        lo = t + 1 - memory
        assert covariance_rate(r[lo:t + 1], years[lo:t + 1], 16, memory)[-1].tobytes() == full[t].tobytes()


@given(st.integers(0, 2**31), st.integers(1, 5))
@fixed
def test_forecast_is_the_quadratic_form(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, w = rng.normal(0, 1, (7, n, n)), rng.normal(0, 1, (7, n))
    cov = a @ a.transpose(0, 2, 1)
    assert forecast_vol(w, cov) == pytest.approx(np.sqrt(np.einsum('ti,tij,tj->t', w, cov, w)))
    assert forecast_vol(w[3:4], cov[3:4]).tobytes() == forecast_vol(w, cov)[3:4].tobytes()


def test_years_are_clock_time() -> None:
    end = np.array([0, DAY, 4 * DAY, 4 * DAY + HOUR], dtype=np.int64)
    years = elapsed_years(end)
    assert np.isnan(years[0]) and (years[1:] * YEAR_NS).tolist() == pytest.approx([DAY, 3 * DAY, HOUR])
    assert elapsed_years(end[:0]).shape == (0,)


def test_refusals() -> None:
    with pytest.raises(BadInput, match='half-life'): half_life_span(-1)
    with pytest.raises(BadInput, match='years'): covariance_rate(np.zeros((5, 2)), np.zeros(4), 8, 2)
