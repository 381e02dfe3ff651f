"""Filtered historical simulation: arch's own figures on the same input, causality, and what happens without volatility."""
from __future__ import annotations

import math

import numpy as np
import pytest

from gekko.data.reference import load_reference
from gekko.domain.errors import BadInput
from gekko.risk.filtered import filtered_es, filtered_pnl, filtered_tail, filtered_var, fit_volatility, paths, rolling_filtered
from gekko.risk.measures import es_historical, quantile_loss, tail

INDEX = load_reference('SP500').set_index('timestamp')['close'].pct_change().dropna()['2007':'2009'].to_numpy()
QUIET = np.random.default_rng(0).normal(0, 0.01, 600)


@pytest.mark.parametrize('dist', ['t', 'normal'])
def test_the_fit_is_archs(dist: str) -> None:
    from arch import arch_model
    ours, scale = fit_volatility(INDEX, dist), 100.0
    theirs = arch_model(INDEX * scale, mean='Constant', vol='GARCH', p=1, q=1, dist='t' if dist == 't' else 'normal', rescale=False).fit(disp='off')
    assert ours.converged and ours.persistence < 1.0001 and math.isinf(ours.dof) == (dist == 'normal')
    np.testing.assert_allclose(ours.sigma * scale, theirs.conditional_volatility, rtol=5e-3)
    assert ours.next_sigma * scale == pytest.approx(math.sqrt(theirs.forecast(horizon=1).variance.iloc[-1, 0]), rel=5e-3)
    np.testing.assert_allclose(ours.residuals, (INDEX - ours.mean) / ours.sigma, rtol=1e-12)


@pytest.mark.parametrize('rows', [150, 300, 700])
def test_the_optimum_is_not_below_archs_by_more_than_one(rows: int) -> None:
    from arch import arch_model
    for x in (INDEX[-rows:], QUIET[:rows] if rows <= 600 else INDEX[:rows], INDEX[:rows] ** 3):
        model = arch_model(x / x.std(), mean='Constant', vol='GARCH', p=1, q=1, dist='t', rescale=False)
        v, s = fit_volatility(x), x.std()
        ours = model.distribution.loglikelihood(np.array([v.dof]), x / s - v.mean / s, (v.sigma / s) ** 2)
        assert ours > model.fit(disp='off', show_warning=False).loglikelihood - 1


def test_the_variance_is_the_recursion() -> None:
    v = fit_volatility(INDEX)
    surprise = v.residuals * v.sigma
    np.testing.assert_allclose(np.r_[v.sigma[1:], v.next_sigma] ** 2, v.omega + v.alpha * surprise**2 + v.beta * v.sigma**2, rtol=1e-12)


def test_tomorrow_is_the_residuals_at_tomorrows_volatility() -> None:
    v, ahead = fit_volatility(INDEX), filtered_pnl(INDEX)
    np.testing.assert_allclose(ahead, v.mean + v.residuals * v.next_sigma, rtol=1e-14)
    for level in (0.9, 0.95, 0.99):
        assert filtered_var(INDEX, level) == quantile_loss(ahead, level) and filtered_es(INDEX, level) == es_historical(ahead, level) >= filtered_var(INDEX, level)
        assert tail(INDEX, level, 'filtered') == filtered_tail(INDEX, level)


def test_without_clusters_it_is_nearly_the_plain_figure() -> None:
    assert filtered_var(QUIET, 0.95) == pytest.approx(quantile_loss(QUIET, 0.95), rel=0.15)


@pytest.mark.parametrize('size', [1e-6, 3.0, 1e7])
def test_size_scales_it(size: float) -> None:
    assert filtered_var(INDEX * size, 0.99) == pytest.approx(filtered_var(INDEX, 0.99) * size, rel=1e-8)
    assert fit_volatility(INDEX * size).alpha == pytest.approx(fit_volatility(INDEX).alpha, rel=1e-8)


def test_cash_lowers_it() -> None: assert filtered_var(INDEX + 0.01, 0.99) == pytest.approx(filtered_var(INDEX, 0.99) - 0.01, abs=2e-4)      # through the optimiser


@pytest.mark.parametrize('window', [300, 500])
def test_forecasts_know_nothing_of_their_own_day(window: int) -> None:
    x = INDEX[:window + 45]
    got = rolling_filtered(x, window, refit=20)
    assert np.isnan(got[:window]).all() and np.isfinite(got[window:]).all()
    for row in (window, window + 7, window + 20, window + 44):
        y = x.copy()
        y[row:] = 0.5
        np.testing.assert_array_equal(rolling_filtered(y, window, refit=20)[:row + 1], got[:row + 1])


def test_a_day_of_a_fit_is_the_plain_figure_and_the_days_between_carry_on() -> None:
    x = INDEX[:560]
    got, es = rolling_filtered(x, 500, refit=30, how='linear'), rolling_filtered(x, 500, refit=30, measure='es')
    for row in (500, 530): assert got[row] == pytest.approx(filtered_var(x[row - 500:row], 0.99), abs=1e-14)
    v = fit_volatility(x[:500])
    variance = v.next_sigma**2
    z = list(v.residuals)
    for row in range(500, 530):      # by hand: the model fitted at 500, carried forward
        assert got[row] == pytest.approx(-(v.mean + math.sqrt(variance) * np.quantile(z[-500:], 0.01)), rel=1e-12)
        z.append((x[row] - v.mean) / math.sqrt(variance))
        variance = v.omega + v.alpha * (x[row] - v.mean) ** 2 + v.beta * variance
    assert (es[500:] >= got[500:]).all()


def test_where_the_series_began_does_not_matter() -> None:
    """Each fit starts from nothing, so a desk that starts today forecasts what one that ran for years does."""
    a, b = rolling_filtered(INDEX[:620], 500, refit=20), rolling_filtered(INDEX[40:620], 500, refit=20)
    np.testing.assert_array_equal(a[540:], b[500:])


def test_growing_windows() -> None:
    got = rolling_filtered(INDEX[:340], 300, refit=20, min_rows=260, how='linear')
    assert np.isnan(got[:260]).all() and got[260] == pytest.approx(filtered_var(INDEX[:260], 0.99), abs=1e-14) and np.isfinite(got[260:]).all()


def test_paths() -> None:
    v = fit_volatility(INDEX)
    one = paths(v, 1, 100_000, seed=3)
    assert set(np.round(one, 12)) <= set(np.round(filtered_pnl(INDEX), 12))      # one day ahead: the history, drawn
    np.testing.assert_array_equal(paths(v, 5, 100, seed=1), paths(v, 5, 100, seed=1))
    assert not np.array_equal(paths(v, 5, 100, seed=1), paths(v, 5, 100, seed=2))
    t = tail(INDEX, 0.99, 'filtered', horizon=10, n=5000, seed=4)
    assert t.es >= t.var > filtered_var(INDEX, 0.99) and t.horizon == 10
    assert paths(v, 20, 200_000, seed=0).mean() == pytest.approx(20 * (v.mean + v.residuals.mean() * v.next_sigma), abs=0.03)


def test_without_movement_there_is_nothing_to_filter() -> None:
    for cash in (0.0, 0.01):
        flat = np.full(300, cash)
        assert filtered_pnl(flat).tolist() == flat.tolist() and filtered_var(flat, 0.99) == -cash and tail(flat, 0.99, 'filtered', horizon=5).var == pytest.approx(-5 * cash)
        with pytest.raises(BadInput, match='returns that vary'): fit_volatility(flat)
    got = rolling_filtered(np.r_[np.zeros(250), QUIET[:60]], 200, refit=20)
    assert (got[200:251] == 0).all() and np.isfinite(got[251:]).all()


def test_mostly_still_series_are_answered_with_numbers() -> None:
    """An instrument that seldom trades: nine days in ten without a move."""
    x = np.where(np.random.default_rng(3).random(400) < 0.1, QUIET[:400], 0.0)
    assert math.isfinite(filtered_var(x, 0.99)) and np.isfinite(rolling_filtered(x, 300, 50)[300:]).all()
    jump = np.r_[np.zeros(399), -0.2]
    assert math.isfinite(filtered_var(jump, 0.99))


@pytest.mark.parametrize('bad', [[], [math.nan] * 300, np.zeros((300, 2)), QUIET[:99]])
def test_bad_series_are_refused(bad: object) -> None:
    for f in (fit_volatility, lambda x: filtered_var(x, 0.99)):
        with pytest.raises(BadInput): f(bad)      # type: ignore[arg-type]
    if np.ndim(bad) == 1 and not np.isnan(bad).any(): assert np.isnan(rolling_filtered(bad, 200)).all()      # type: ignore[arg-type,call-overload]
    else:
        with pytest.raises(BadInput): rolling_filtered(bad, 200)      # type: ignore[arg-type]


def test_bad_options_are_refused() -> None:
    for options in ({'window': 99}, {'window': 200, 'refit': 0}, {'window': 200, 'level': 99}, {'window': 200, 'measure': 'cvar'}, {'window': 200, 'dist': 'skewt'}, {'window': 200, 'min_rows': 50},
                    {'window': 200, 'how': 'linaer'}):
        with pytest.raises(BadInput): rolling_filtered(QUIET[:250], **options)      # type: ignore[arg-type]
    with pytest.raises(BadInput, match='paths'): paths(fit_volatility(QUIET), 1, 0)
