"""A run's numbers, against numbers computed by hand and by libraries that had no part in it."""
import math
import statistics
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.research import stats

START = utc('2018-12-29')
HAND = tuple(map(Decimal, ('100', '110', '99', '99', '118.80')))
TIMES = np.array([START + k * DAY for k in range(5)])

curves = st.lists(st.floats(1.0, 1e9), min_size=3, max_size=60)


def clock(n: int) -> np.ndarray:
    return START + DAY * np.arange(n, dtype=np.int64)


def test_by_hand() -> None:
    p = stats.performance(TIMES, HAND, periods=252.0)
    assert p.rows == 5
    assert p.years == pytest.approx(4 / 365.25)
    assert p.total_return == pytest.approx(0.188)
    assert p.volatility == pytest.approx(math.sqrt(0.05 / 3) * math.sqrt(252))
    assert p.sharpe == pytest.approx(0.05 / math.sqrt(0.05 / 3) * math.sqrt(252))
    assert p.sharpe_error == pytest.approx(math.sqrt((1 + (0.0025 / (0.05 / 3)) / 2) / 4 * 252))
    assert p.sortino == pytest.approx(0.05 / math.sqrt(0.01 / 4) * math.sqrt(252))
    assert p.max_drawdown == pytest.approx(-0.1)
    assert p.calmar == pytest.approx(p.cagr / 0.1)
    assert p.longest_drawdown_days == 3
    assert p.hit_rate == pytest.approx(2 / 3)
    assert (p.best, p.worst) == pytest.approx((0.2, -0.1))


def test_against_skfolio() -> None:
    """skfolio's own measures on ten years of random returns."""
    from skfolio import measures
    r = np.random.default_rng(5).normal(0.0004, 0.01, 2520)
    equity = np.concatenate([[1.0], np.cumprod(1 + r)])
    p = stats.performance(clock(len(equity)), equity, periods=252.0)
    assert p.volatility == pytest.approx(measures.standard_deviation(r) * math.sqrt(252))
    assert p.sharpe == pytest.approx(measures.mean(r) / measures.standard_deviation(r) * math.sqrt(252))
    assert p.max_drawdown == pytest.approx(-measures.max_drawdown(measures.get_drawdowns(r, compounded=True)))
    # theirs divides by T - 1; ours, as Sortino does, by T
    assert p.sortino == pytest.approx(measures.mean(r) / (measures.semi_deviation(r, min_acceptable_return=0.0) * math.sqrt((len(r) - 1) / len(r))) * math.sqrt(252))


def test_against_scipy() -> None:
    from scipy import stats as sp
    r = np.random.default_rng(6).standard_t(4, 900) * 0.01
    assert stats.moments(r) == pytest.approx((sp.skew(r), sp.kurtosis(r)))


@given(curves)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_volatility_is_the_sample_deviation(equity: list[float]) -> None:
    r = stats.returns(equity)
    assert stats.volatility(r, 252) == pytest.approx(statistics.stdev(r.tolist()) * math.sqrt(252), rel=1e-9, abs=1e-12)


@given(curves)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_drawdown_is_the_fall_from_the_highest_point_so_far(equity: list[float]) -> None:
    dd = stats.drawdown(equity)
    assert dd.tolist() == pytest.approx([x / max(equity[:i + 1]) - 1 for i, x in enumerate(equity)])
    falls = stats.declines(clock(len(equity)), equity)
    assert min((d.depth for d in falls), default=0.0) == dd.min()
    assert sum(d.recovered is None for d in falls) == (dd[-1] < 0)


@given(curves, st.sampled_from('DMY'))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_periods_multiply_to_the_whole(equity: list[float], unit: str) -> None:
    names, gains = stats.by_period(clock(len(equity)), equity, unit)
    assert np.prod(1 + gains) == pytest.approx(equity[-1] / equity[0])
    assert len(set(names.tolist())) == len(names)


def test_a_bar_belongs_to_the_period_it_lived_in() -> None:
    year_end = np.array([utc('2018-12-31'), utc('2019-01-01'), utc('2019-01-02')])
    names, gains = stats.by_period(year_end, (100.0, 110.0, 121.0), 'Y')
    assert [str(n) for n in names] == ['2018', '2019']
    assert gains.tolist() == pytest.approx([0.1, 0.1])


def test_what_cannot_be_had_is_nan() -> None:
    flat = stats.performance(clock(4), (100.0,) * 4)
    assert math.isnan(flat.sharpe) and math.isnan(flat.sortino) and math.isnan(flat.calmar) and math.isnan(flat.hit_rate) and flat.max_drawdown == 0
    for n in (0, 1):
        p = stats.performance(clock(n), (100.0,) * n)
        assert math.isnan(p.volatility) and math.isnan(p.sharpe) and math.isnan(p.cagr) and p.rows == n


def test_a_lost_account() -> None:
    p = stats.performance(clock(400), np.concatenate([np.full(200, 100.0), np.full(200, -50.0)]))
    assert p.cagr == -1.0 and p.total_return == pytest.approx(-1.5) and p.max_drawdown == pytest.approx(-1.5)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_equity_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(BadInput, match='row 1'): stats.performance(clock(3), (100.0, bad, 100.0))


def test_lengths_must_agree() -> None:
    with pytest.raises(BadInput, match='3 rows'): stats.performance(clock(3), (100.0, 101.0))
