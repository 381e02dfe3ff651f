"""Monte Carlo: the same numbers for a seed, the right moments, singular covariances, and clear refusals."""
from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.risk.measures import es_historical, es_normal, quantile_loss, tail, var_normal
from gekko.risk.simulated import draw, factor_of, simulated_pnl

MEAN = np.array([0.001, -0.002, 0.0])
COV = np.array([[4.0, 1.0, -1.0], [1.0, 9.0, 2.0], [-1.0, 2.0, 3.0]]) * 1e-4
VALUES = np.array([100.0, -50.0, 25.0])


def test_a_seed_is_a_set_of_numbers() -> None:
    a = draw(MEAN, COV, 1000, seed=3)
    np.testing.assert_array_equal(a, draw(MEAN, COV, 1000, seed=3))
    assert a.shape == (1000, 3) and a.dtype == np.float64 and not np.array_equal(a, draw(MEAN, COV, 1000, seed=4))
    np.testing.assert_array_equal(draw(MEAN, COV, 50, seed=3, dof=5), draw(MEAN, COV, 50, seed=3, dof=5))


@pytest.mark.parametrize('dof', [None, 6.0])
def test_moments_and_tails(dof: float | None) -> None:
    x = draw(MEAN, COV, 200_000, seed=1, dof=dof)
    np.testing.assert_allclose(x.mean(axis=0), MEAN, atol=4 * 0.03 / math.sqrt(200_000))
    np.testing.assert_allclose(np.cov(x.T), COV, atol=1.5e-5)
    law = scipy.stats.norm(MEAN[1], 0.03) if dof is None else scipy.stats.t(dof, MEAN[1], 0.03 * math.sqrt((dof - 2) / dof))
    for q in (0.001, 0.01, 0.5, 0.99): assert np.quantile(x[:, 1], q) == pytest.approx(law.ppf(q), abs=0.003 if q == 0.001 else 0.0008)
    assert scipy.stats.kstest(x[::20, 1], law.cdf).pvalue > 0.01


def test_profits_are_the_scenarios_times_the_values() -> None:
    for dof in (None, 4.0):
        np.testing.assert_allclose(simulated_pnl(VALUES, MEAN, COV, 5000, seed=2, dof=dof), draw(MEAN, COV, 5000, seed=2, dof=dof) @ VALUES, atol=1e-11)


def test_it_comes_near_the_normal_figures() -> None:
    pnl, at = simulated_pnl(VALUES, MEAN, COV, 400_000, seed=0), (float(MEAN @ VALUES), math.sqrt(VALUES @ COV @ VALUES))
    for level in (0.95, 0.99):
        assert quantile_loss(pnl, level) == pytest.approx(var_normal(*at, level), rel=0.01)
        assert es_historical(pnl, level) == pytest.approx(es_normal(*at, level), rel=0.01)
    t = tail(np.random.default_rng(0).normal(0.1, 2.0, 500), 0.99, 'monte-carlo', n=100_000, seed=5)
    assert t.es > t.var and t.method == 'monte-carlo' and t.n == 500


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000))
def test_a_factor_multiplies_out_whatever_the_rank(n: int, rank: int, seed: int) -> None:
    a = np.random.default_rng(seed).normal(size=(n, min(n, rank))) * 10.0 ** np.random.default_rng(seed).integers(-4, 4)
    f = factor_of(cov := a @ a.T)
    np.testing.assert_allclose(f.matrix @ f.matrix.T, (cov + cov.T) / 2, atol=1e-12 * np.abs(cov).max())
    assert f.rank >= min(n, rank) if f.how == 'eigen' else f.rank == n
    assert np.isfinite(draw(np.zeros(n), cov, 10)).all()


def test_singular_covariances() -> None:
    twins = np.array([[4.0, 4.0], [4.0, 4.0]])
    x = draw([0.0, 0.0], twins, 100)
    np.testing.assert_allclose(x[:, 0], x[:, 1], atol=1e-12)
    assert np.abs(simulated_pnl([1.0, -1.0], [0.0, 0.0], twins, 100)).max() < 1e-12      # a perfect hedge
    few = np.cov(np.random.default_rng(0).normal(size=(20, 50)).T)      # fifty instruments, twenty days
    f = factor_of(few)
    assert (f.how, f.rank) == ('eigen', 19) and 0 <= f.clipped < 1e-10
    assert not draw(np.zeros(3), np.zeros((3, 3)), 10).any()


def test_one_instrument_no_instrument_and_cash() -> None:
    assert simulated_pnl([10.0], [0.0], [[0.04]], 100_000).std() == pytest.approx(2.0, rel=0.02)
    assert simulated_pnl([], [], [], 4).tolist() == [0.0] * 4 and draw([], [], 4).shape == (4, 0)
    assert simulated_pnl(np.zeros(3), MEAN, COV, 4).tolist() == [0.0] * 4


def test_torchs_own_generator_and_precision_are_left_alone() -> None:
    import torch
    before, kind = torch.random.get_rng_state(), torch.get_default_dtype()
    draw(MEAN, COV, 100, dof=5)
    assert torch.equal(torch.random.get_rng_state(), before) and torch.get_default_dtype() == kind


@pytest.mark.parametrize('cov', [[[1.0, 2.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]], [[1.0, 0.5], [0.4, 1.0]], [[math.nan, 0.0], [0.0, 1.0]], [[1.0, 0.0]], [1.0, 1.0], [['a', 'b'], ['c', 'd']]])
def test_what_is_no_covariance_is_refused(cov: object) -> None:
    for f in (lambda: factor_of(cov), lambda: draw([0.0, 0.0], cov, 5), lambda: simulated_pnl([1.0, 1.0], [0.0, 0.0], cov, 5)):
        with pytest.raises(BadInput): f()


def test_bad_options_are_refused() -> None:
    for options in ({'n': 0}, {'n': 1.5}, {'n': True}, {'dof': 2}, {'dof': math.nan}, {'device': 'abacus'}, {'seed': 'x'}, {'seed': None}, {'seed': -1}):
        for f in (lambda **o: draw(MEAN, COV, **o), lambda **o: simulated_pnl(VALUES, MEAN, COV, **o), lambda **o: simulated_pnl(np.zeros(3), MEAN, COV, **o), lambda **o: tail(np.zeros(9), 0.99, 'monte-carlo', **o)):
            with pytest.raises(BadInput): f(**options)
    with pytest.raises(BadInput, match='3 numbers, found 2'): draw(MEAN[:2], COV)
    with pytest.raises(BadInput, match='2 values'): simulated_pnl(VALUES[:2], MEAN, COV)
    with pytest.raises(BadInput, match='found nan'): simulated_pnl([math.nan, 1, 1], MEAN, COV)
