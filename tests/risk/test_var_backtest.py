"""Backtests of VaR: the published tables, likelihoods by scipy, degenerate counts, and the reference index from 2000 to 2018."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import xlogy
from scipy.stats import binom, chi2

from gekko.data.reference import load_reference
from gekko.domain.errors import BadInput
from gekko.risk.backtest import backtest, christoffersen, hits, kupiec, traffic_light
from gekko.risk.filtered import rolling_filtered
from gekko.risk.measures import rolling_historical


def flags(n: int, k: int) -> np.ndarray: return np.arange(n) < k


def test_a_hit_is_a_loss_beyond_the_forecast() -> None:
    assert hits([-1.0, -2.0, -3.0, 4.0], [2.0, 2.0, 2.0, -5.0]).tolist() == [False, False, True, True]      # a forecast profit of 5 that was 4
    for pnl, var in (([1.0, math.nan], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.nan]), ([1.0], [1.0, 1.0])):
        with pytest.raises(BadInput): hits(pnl, var)


@settings(max_examples=200)
@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from((0.9, 0.95, 0.99, 0.999)))
def test_kupiec_is_the_likelihood_ratio(n: int, part: float, level: float) -> None:
    k, p = int(n * part), 1 - level
    lr = -2 * (xlogy(k, p) + xlogy(n - k, 1 - p) - xlogy(k, k / n) - xlogy(n - k, 1 - k / n))
    v = kupiec(n, k, level)
    assert v.statistic == pytest.approx(lr, abs=1e-8 * n) and v.statistic >= 0 and 0 <= v.p <= 1
    assert v.p == pytest.approx(chi2.sf(v.statistic, 1), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(('level', 'days', 'low', 'high'), [      # Kupiec (1995), regions that do not reject at 5 %
    (0.99, 255, 0, 7), (0.99, 510, 1, 11), (0.99, 1000, 4, 17), (0.975, 255, 2, 12), (0.975, 510, 6, 21), (0.975, 1000, 15, 36),
    (0.95, 255, 6, 21), (0.95, 510, 16, 36), (0.95, 1000, 37, 65), (0.9, 255, 16, 36), (0.9, 510, 38, 65), (0.9, 1000, 81, 120)])
def test_kupiecs_table(level: float, days: int, low: int, high: int) -> None:
    kept = [k for k in range(200) if not kupiec(days, k, level).rejects]
    assert (kept[0] - 1, kept[-1] + 1) == (low, high) and kept == list(range(kept[0], kept[-1] + 1))


@settings(max_examples=200)
@given(st.lists(st.booleans(), min_size=2, max_size=300).map(lambda h: np.array(h, bool)), st.sampled_from((0.9, 0.99)))
def test_christoffersen_is_the_likelihood_ratio(h: np.ndarray, level: float) -> None:
    n = [[sum(1 for a, b in zip(h, h[1:]) if (a, b) == (i, j)) for j in (False, True)] for i in (False, True)]
    pi = [n[i][1] / sum(n[i]) if sum(n[i]) else 0.0 for i in (0, 1)]
    both = (n[0][1] + n[1][1]) / (len(h) - 1)
    lr = -2 * (xlogy(n[0][0] + n[1][0], 1 - both) + xlogy(n[0][1] + n[1][1], both) - sum(xlogy(n[i][0], 1 - pi[i]) + xlogy(n[i][1], pi[i]) for i in (0, 1)))
    independence, coverage = christoffersen(h, level)
    assert independence.statistic == pytest.approx(lr, abs=1e-9) and independence.p == pytest.approx(chi2.sf(independence.statistic, 1), rel=1e-9)
    assert coverage.statistic == pytest.approx(independence.statistic + kupiec(len(h), int(h.sum()), level).statistic)
    assert coverage.p == pytest.approx(chi2.sf(coverage.statistic, 2), rel=1e-9)


def test_degenerate_counts_have_finite_answers() -> None:
    last, first = flags(250, 1)[::-1], flags(250, 1)
    for h in (np.zeros(250, bool), np.ones(250, bool), last, first, flags(2, 1)):
        for v in (*christoffersen(h, 0.99), kupiec(len(h), int(h.sum()), 0.99)): assert math.isfinite(v.statistic) and 0 <= v.p <= 1
    assert christoffersen(np.zeros(250, bool), 0.99)[0].p == 1.0
    assert kupiec(250, 250, 0.99).rejects and kupiec(2000, 0, 0.99).rejects and not kupiec(250, 2, 0.99).rejects
    assert kupiec(100, 1, 0.99).p == 1.0


def test_clusters_are_found_and_strangers_are_not() -> None:
    spread, bunched = np.arange(2000) % 100 == 50, flags(2000, 20)
    assert not christoffersen(spread, 0.99)[1].rejects and christoffersen(bunched, 0.99)[0].rejects and christoffersen(bunched, 0.99)[1].rejects


def test_the_tests_keep_their_promise() -> None:
    """A right model is rejected in about one of twenty histories (the tests are coarse), a wrong one in most."""
    rng = np.random.default_rng(0)
    right, wrong = rng.random((400, 1000)) < 0.01, rng.random((400, 1000)) < 0.03
    assert np.mean([kupiec(1000, int(h.sum()), 0.99).rejects for h in right]) < 0.1 < 0.9 < np.mean([kupiec(1000, int(h.sum()), 0.99).rejects for h in wrong])


def test_basels_table() -> None:
    published = {0: 3.0, 1: 3.0, 2: 3.0, 3: 3.0, 4: 3.0, 5: 3.4, 6: 3.5, 7: 3.65, 8: 3.75, 9: 3.85, 10: 4.0, 11: 4.0, 250: 4.0}
    for k, multiplier in published.items():
        light = traffic_light(flags(250, k))
        assert (light.multiplier, light.exceptions, light.zone) == (multiplier, k, 'green' if k < 5 else 'yellow' if k < 10 else 'red')


@pytest.mark.parametrize('level', [0.95, 0.99, 0.999])
@pytest.mark.parametrize('window', [1, 20, 100, 500, 1000])
def test_zones_elsewhere_are_the_binomials(level: float, window: int) -> None:
    lights = [traffic_light(flags(window, k), level, window) for k in range(window + 1)]
    assert lights[0].zone == 'green'      # however few the days
    for k, light in enumerate(lights[1:], 1):
        p = binom.cdf(k, window, 1 - level)
        if min(abs(p - 0.95), abs(p - 0.9999)) > 1e-9: assert light.zone == ('green' if p < 0.95 else 'yellow' if p < 0.9999 else 'red'), (k, p)
    steps = [light.multiplier for light in lights]
    assert steps == sorted(steps) and 3.0 <= min(steps) and max(steps) <= 4.0


def test_a_window_of_centuries() -> None: assert traffic_light(np.zeros(200_000, bool), 0.99, 200_000).zone == 'green' and traffic_light(flags(200_000, 2500), 0.99, 200_000).zone == 'red'


def test_only_the_last_days_count() -> None:
    assert traffic_light(np.r_[np.ones(50, bool), np.zeros(250, bool)]).zone == 'green' and traffic_light(np.r_[np.zeros(250, bool), np.ones(10, bool)]).zone == 'red'


def test_backtest_skips_the_warm_up_and_refuses_a_gap() -> None:
    pnl, var = np.tile([1.0, -3.0, 1.0, 1.0], 100), np.full(400, 2.0)
    var[:101] = math.nan
    b = backtest(pnl, var, 0.9)
    assert (b.n, b.exceptions, b.rows[0], b.rows[-1], b.expected, b.worst, b.light.window) == (299, 75, 101, 397, pytest.approx(29.9), 1.5, 250)
    assert b.kupiec == kupiec(299, 75, 0.9) and b.kupiec.rejects and (b.independence, b.coverage) == christoffersen(hits(pnl[101:], var[101:]), 0.9)
    assert 'red' in b._repr_html_() and '75' in b._repr_html_()
    var[200] = math.nan
    with pytest.raises(BadInput, match='nan in row 99'): backtest(pnl, var)
    for bad in (np.full(400, math.nan), var[:5], np.r_[np.full(399, math.nan), 1.0]):
        with pytest.raises(BadInput): backtest(pnl, bad)
    with pytest.raises(BadInput): backtest([], [])
    short = backtest(pnl[:20], np.full(20, 4.0))
    assert short.light.window == 20 and short.exceptions == 0 and short.worst == 0.75


def test_bad_input_is_refused() -> None:
    for f in (lambda: kupiec(0, 0, 0.99), lambda: kupiec(10, 11, 0.99), lambda: kupiec(10, -1, 0.99), lambda: kupiec(10, 1, 1.0), lambda: kupiec(10, 1, 0.99, 0.0), lambda: christoffersen([0, 1], 0.99),
              lambda: christoffersen(np.zeros(1, bool), 0.99), lambda: christoffersen(np.zeros((2, 2), bool), 0.99), lambda: traffic_light(np.zeros(249, bool)), lambda: traffic_light(np.zeros(0, bool)),
              lambda: traffic_light(np.zeros(10, bool), 0.99, 0), lambda: traffic_light(np.zeros(10), 0.99, 5)):
        with pytest.raises(BadInput): f()


def test_the_index_from_2000_to_2018() -> None:
    """Defaults throughout: 1,000 days, GARCH(1,1) with Student residuals, refitted every 20 days. The filtered forecast is kept by Kupiec, the plain one is not."""
    returns = load_reference('SP500').set_index('timestamp')['close'].pct_change().dropna()['2000':].to_numpy()
    filtered, plain = backtest(returns, rolling_filtered(returns)), backtest(returns, rolling_historical(returns))
    assert filtered.n == plain.n == 3779 and filtered.expected == pytest.approx(37.79)
    assert not filtered.kupiec.rejects and not filtered.independence.rejects and not filtered.coverage.rejects
    assert plain.kupiec.rejects and plain.independence.rejects and plain.coverage.rejects
    assert filtered.exceptions < plain.exceptions
