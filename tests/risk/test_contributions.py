"""Contributions add up, are slopes, and stay finite where the book, the covariance or the history is degenerate."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.risk.contributions import Contributions, incremental, normal_parts, scenario_parts
from gekko.risk.measures import QUANTILES, es_historical, es_normal, quantile_loss, var_normal

levels = st.sampled_from((0.6, 0.9, 0.95, 0.975, 0.99, 0.9973))
books = st.tuples(st.integers(1, 8), st.integers(1, 80), st.integers(0, 100_000))


def book(n: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    "Values long and short of very different sizes, some zero, and returns with ties and still days."
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n) * 10.0 ** rng.integers(-2, 7, n) * (rng.random(n) < 0.9)
    return values, np.round(rng.standard_t(3, (rows, n)) * 0.01, int(rng.integers(2, 8))) * (rng.random((rows, 1)) < 0.9)


def gross(c: Contributions) -> float: return float(np.abs(c.component).sum()) + abs(c.total)


def whole(c: Contributions, n: int) -> None:
    assert c.marginal.shape == c.component.shape == c.share.shape == (n,) and len(c.symbols) == n
    assert np.isfinite(c.marginal).all() and np.isfinite(c.component).all() and np.isfinite(c.share).all() and math.isfinite(c.total)
    assert abs(c.component.sum() - c.total) <= 1e-9 * max(gross(c), 1e-300)
    assert c.share.any() == (abs(c.total) > 1e-12 * np.abs(c.component).sum()) or not c.component.any()


@settings(max_examples=200)
@given(books, levels, st.sampled_from(QUANTILES))
def test_scenario_parts_add_up_to_the_books_own_figure(shape: tuple[int, int, int], level: float, how: str) -> None:
    values, returns = book(*shape)
    pnl = returns @ values
    var, es = scenario_parts(values, returns, level, 'var', how), scenario_parts(values, returns, level, 'es')
    for c, figure in ((var, quantile_loss(pnl, level, how)), (es, es_historical(pnl, level))):
        whole(c, len(values))
        assert abs(c.total - figure) <= 1e-9 * max(gross(c), float(np.abs(pnl).max()), 1e-300)
    assert es.total >= scenario_parts(values, returns, level).total - 1e-9 * gross(es)


@settings(max_examples=200)
@given(books, levels)
def test_normal_parts_add_up_to_the_books_own_figure(shape: tuple[int, int, int], level: float) -> None:
    values, returns = book(*shape)
    rows = np.vstack((returns, returns[:1] * 0.5))
    mean, cov = rows.mean(axis=0), np.atleast_2d(np.cov(rows.T))
    pnl_std = math.sqrt(max(0.0, float(values @ cov @ values)))
    for measure, figure in (('var', var_normal), ('es', es_normal)):
        c = normal_parts(values, mean, cov, level, measure)
        whole(c, len(values))
        assert abs(c.total - figure(float(mean @ values), pnl_std, level)) <= 1e-7 * max(gross(c), float(np.abs(values).sum()) * 0.01, 1e-300)


def test_marginals_are_slopes() -> None:
    rng = np.random.default_rng(0)
    returns, values = rng.normal(size=(800, 4)) * 0.01, np.array([100.0, -40, 25, 60])
    mean, cov = returns.mean(axis=0), np.cov(returns.T)
    for i in range(4):
        step = np.eye(4)[i] * 1e-6
        for measure in ('var', 'es'):
            up, down = (normal_parts(values + s * step, mean, cov, 0.99, measure).total for s in (1, -1))
            assert (up - down) / 2e-6 == pytest.approx(normal_parts(values, mean, cov, 0.99, measure).marginal[i], abs=1e-7)
            up, down = (scenario_parts(values + s * step, returns, 0.99, measure).total for s in (1, -1))
            assert (up - down) / 2e-6 == pytest.approx(scenario_parts(values, returns, 0.99, measure).marginal[i], abs=1e-7)


def test_a_hedge_takes_away() -> None:
    returns = np.random.default_rng(1).normal(size=(1000, 1)) * np.array([0.01, 0.01])
    c = scenario_parts([100.0, -60.0], returns, 0.99, symbols=('long', 'short'))
    assert c.component[1] < 0 < c.component[0] and c.share.sum() == pytest.approx(1) and c.share[1] == pytest.approx(-1.5)
    assert [r[0] for r in c.rows()] == ['long', 'short'] and '<td>short</td>' in c._repr_html_() and '-150.0%' in c._repr_html_()


def test_shares_of_skfolios_risk() -> None:
    """skfolio's contribution to CVaR, by differences, agrees."""
    from skfolio import Portfolio
    from skfolio.measures import RiskMeasure
    returns, weights = np.random.default_rng(2).standard_t(4, (500, 3)) * 0.01, np.array([0.5, 0.3, 0.2])
    theirs = Portfolio(X=returns, weights=weights, cvar_beta=0.95).contribution(measure=RiskMeasure.CVAR)
    np.testing.assert_allclose(scenario_parts(weights, returns, 0.95, 'es').component, theirs, rtol=1e-4)


def test_incremental_is_after_less_before() -> None:
    returns, values, trade = np.random.default_rng(3).normal(size=(500, 3)) * 0.01, np.array([100.0, 50, -20]), np.array([0.0, -30, 5])
    assert incremental(values, returns, 0.99, trade) == pytest.approx(quantile_loss(returns @ (values + trade), 0.99) - quantile_loss(returns @ values, 0.99), abs=1e-12)
    assert incremental(values, returns, 0.95, trade, 'es') == pytest.approx(es_historical(returns @ (values + trade), 0.95) - es_historical(returns @ values, 0.95), abs=1e-12)
    assert incremental(values, returns, 0.99, np.zeros(3)) == 0.0 and incremental(np.zeros(3), returns, 0.99, values) == pytest.approx(quantile_loss(returns @ values, 0.99))
    for bad in ([1.0], [1.0, 2, math.nan]):
        with pytest.raises(BadInput): incremental(values, returns, 0.99, bad)


def test_singular_covariance_perfect_hedge_one_instrument_cash_and_nothing() -> None:
    twins = np.full((2, 2), 0.0004)
    whole(normal_parts([100.0, 50.0], [0, 0], twins), 2)
    hedge = normal_parts([100.0, -100.0], [0, 0], twins)
    assert hedge.total == 0.0 and not hedge.component.any() and not hedge.share.any()
    assert normal_parts([1e8 / 3, -1e8 / 3], [0, 0], twins).total == 0.0
    assert normal_parts([100.0], [0.001], [[0.0004]]).total == pytest.approx(var_normal(0.1, 2.0, 0.99))
    for c in (normal_parts(np.zeros(3), np.zeros(3), np.eye(3)), scenario_parts(np.zeros(3), np.ones((5, 3)))):
        assert c.total == 0.0 and not math.copysign(1, c.total) < 0 and c.component.tolist() == c.share.tolist() == [0.0] * 3
    for c in (normal_parts([], [], []), normal_parts([], [], np.zeros((0, 0))), scenario_parts([], np.zeros((5, 0)))): assert (c.total, len(c.component), c.symbols) == (0.0, 0, ())
    few = np.cov(np.random.default_rng(0).normal(size=(20, 50)).T)
    whole(normal_parts(np.random.default_rng(1).normal(size=50), np.zeros(50), few), 50)
    sure = normal_parts([100.0, 50.0], [0.001, 0.002], np.zeros((2, 2)))      # no risk, and a drift: a negative loss
    assert sure.total == pytest.approx(-0.2) and sure.share.sum() == pytest.approx(1)


@pytest.mark.parametrize('cov', [[[1, 2], [2, 1]], [[-1, 0], [0, 1]], [[1, 0.5], [0.4, 1]], [[math.nan, 0], [0, 1]], [[1, 0]], [[1]], [1, 1], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]])
def test_what_is_no_covariance_is_refused(cov: object) -> None:
    with pytest.raises(BadInput): normal_parts([1.0, -1.0], [0.0, 0.0], cov)      # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    gap = x.copy()
    gap[7, 1] = math.nan
    for values in ([1.0, 1.0], [1.0, 0.0]):      # also where the holding with the gap is not held
        with pytest.raises(BadInput, match='nan in row 7'): scenario_parts(values, gap)
    for f in (lambda: scenario_parts([1.0], x), lambda: scenario_parts([1.0, math.inf], x), lambda: scenario_parts([1.0, 1.0], x[:0]), lambda: scenario_parts([1.0, 1.0], x[0]), lambda: scenario_parts([1.0, 1.0], x, 99),
              lambda: scenario_parts([1.0, 1.0], x, measure='cvar'), lambda: scenario_parts([1.0, 1.0], x, how='best'), lambda: scenario_parts([1.0, 1.0], x, symbols=('a',)),
              lambda: normal_parts([1.0, 1.0], [0.0], np.eye(2)), lambda: normal_parts([1.0, 1.0], [0.0, math.nan], np.eye(2)), lambda: normal_parts([1.0, 1.0], [0, 0], np.eye(2), 0.4),
              lambda: normal_parts([1.0, 1.0], [0, 0], np.eye(2), measure='sd')):
        with pytest.raises(BadInput): f()
