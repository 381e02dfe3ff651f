"""VaR and expected shortfall: against scipy, skfolio, arch and Python's own statistics on the same input, and the laws they must obey."""
from __future__ import annotations

import math
import statistics
import sys
from decimal import Decimal
from subprocess import run

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from gekko.domain.errors import BadInput
from gekko.risk.measures import (
    METHODS, QUANTILES, column, es_cornish_fisher, es_historical, es_normal, increasing, moments, quantile_loss, rolling_historical, rolling_normal, shape, table,
    tail, tail_share, var_cornish_fisher, var_normal,
)

LEVELS = (0.9, 0.95, 0.975, 0.99)
FAT = np.random.default_rng(5).standard_t(4, 1500) * 0.01
CLOSES = np.array([1.0, 2, 3, 2, 1])
TINY = np.diff(CLOSES) / CLOSES[:-1]

profits = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60).map(np.array)
pairs = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=n, max_size=n).map(np.array)] * 2))
levels = st.sampled_from((0.51, 0.6, 0.75, 0.9, 0.95, 0.975, 0.99, 0.9973, 0.999))


def close(a: float, b: float, *scale: np.ndarray) -> bool:
    return abs(a - b) <= 1e-9 * max([1.0, *(float(np.abs(s).max()) for s in scale)])


# Against others

def test_the_textbook_case() -> None:
    assert quantile_loss(TINY, 0.95) == pytest.approx(0.475, abs=1e-15)
    assert es_historical(TINY, 0.95) == 0.5


@pytest.mark.parametrize('level', LEVELS)
def test_quantiles_are_numpys_and_scipys(level: float) -> None:
    for x in (FAT, FAT[:100], FAT[:37], TINY):
        for how in QUANTILES: assert quantile_loss(x, level, how) == -np.quantile(x, round(1 - level, 12), method=how)
        for how, (a, b) in {'linear': (1, 1), 'weibull': (0, 0), 'hazen': (0.5, 0.5), 'median_unbiased': (1 / 3, 1 / 3)}.items():
            assert quantile_loss(x, level, how) == pytest.approx(-scipy.stats.mstats.mquantiles(x, [1 - level], alphap=a, betap=b)[0], abs=1e-13)


@pytest.mark.parametrize('level', LEVELS)
def test_shortfall_and_order_statistic_are_skfolios(level: float) -> None:
    from skfolio.measures import cvar, value_at_risk
    for n in (100, 250, 999, 1500, 7):
        assert es_historical(FAT[:n], level) == pytest.approx(cvar(FAT[:n], beta=level), abs=1e-14)
    for n in (251, 999, 1499): assert quantile_loss(FAT[:n], level, 'inverted_cdf') == pytest.approx(value_at_risk(FAT[:n], beta=level), abs=1e-15)


def test_normal_figures_are_archs_and_scipys() -> None:
    from arch.univariate import Normal
    mean, std = moments(FAT)
    assert std == pytest.approx(statistics.stdev(FAT.tolist()), rel=1e-14) and mean == pytest.approx(statistics.fmean(FAT.tolist()), rel=1e-12)
    for level in LEVELS:
        assert var_normal(mean, std, level) == pytest.approx(-scipy.stats.norm.ppf(1 - level, mean, std), abs=1e-14)
        assert var_normal(0, 1, level) == pytest.approx(-float(Normal().ppf(1 - level)), abs=1e-13)
        mass = quad(lambda x: x * scipy.stats.norm.pdf(x, mean, std), -np.inf, scipy.stats.norm.ppf(1 - level, mean, std), epsabs=1e-13)[0]
        assert es_normal(mean, std, level) == pytest.approx(-mass / (1 - level), abs=1e-9)
        assert es_normal(0, 1, level) == pytest.approx(-Normal().partial_moment(1, scipy.stats.norm.ppf(1 - level)) / (1 - level), abs=1e-12)


def test_cornish_fisher_is_the_mean_of_its_own_quantile() -> None:
    x = scipy.stats.gamma(20).rvs(800, random_state=2) * -0.01
    (mean, std), (s, k) = moments(x), shape(x)
    assert (s, k) == pytest.approx((scipy.stats.skew(x), scipy.stats.kurtosis(x)), rel=1e-12)

    def quantile(u: float) -> float:
        z = scipy.stats.norm.ppf(u)
        return mean + std * (z + s * (z**2 - 1) / 6 + k * (z**3 - 3 * z) / 24 - s**2 * (2 * z**3 - 5 * z) / 36)
    for level in LEVELS:
        assert var_cornish_fisher(x, level) == pytest.approx(-quantile(1 - level), abs=1e-12)
        assert es_cornish_fisher(x, level) == pytest.approx(-quad(quantile, 0, 1 - level, epsabs=1e-13)[0] / (1 - level), abs=1e-8)


def test_cornish_fisher_without_skew_and_kurtosis_is_normal() -> None:
    x = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert var_cornish_fisher(x, 0.99) == pytest.approx(var_normal(*moments(x), 0.99), abs=2e-4)


def test_the_domain_of_cornish_fisher() -> None:
    """The derivative of the expansion on a grid says the same as the closed rule."""
    z = np.linspace(-4, 4, 4001)
    for s in np.linspace(-3, 3, 25):
        for k in np.linspace(-2, 12, 29):
            slope = 1 + s * z / 3 + k * (z**2 - 1) / 8 - s**2 * (6 * z**2 - 5) / 36
            if abs(slope.min()) > 1e-3: assert increasing(float(s), float(k)) == bool(slope.min() > 0), (s, k)
            if increasing(float(s), float(k), math.inf): assert increasing(float(s), float(k))
    assert [increasing(0, k, math.inf) for k in (-0.01, 0.0, 8.0, 8.01)] == [False, True, False, False]
    for figure in (var_cornish_fisher, es_cornish_fisher):
        with pytest.raises(BadInput, match=r'skewness -\d.*excess kurtosis \d') as e: figure(np.r_[FAT * 0.01, -1.0], 0.99)
        assert e.value.values['skew'] < -10


# Day by day

def test_rolling_normal_is_each_window_by_itself() -> None:
    """16,791 windows as a published table has them; each from its own rows, to 1e-13 of exact arithmetic."""
    x = np.random.default_rng(0).standard_t(3, 17_042) * 0.01
    x[5000] = -0.3      # a crash that leaves the window must leave the sums as well
    got = rolling_normal(x, 252, (0.99, 0.95, 0.90))
    assert got.shape == (17_042, 3) and np.isnan(got[:251]).all() and np.isfinite(got[251:]).all() and len(got[251:]) == 16_791
    for t in (*range(251, 17_042, 611), 4999, 5000, 5251, 5252, 17_041):
        w = x[t - 251:t + 1].tolist()
        for j, level in enumerate((0.99, 0.95, 0.90)):
            assert -got[t, j] == pytest.approx(statistics.NormalDist(statistics.fmean(w), statistics.stdev(w)).inv_cdf(round(1 - level, 12)), abs=1e-13)


def test_rolling_normal_over_large_profits_is_exact() -> None:
    x = 1e6 + np.random.default_rng(1).normal(size=6000)      # running sums of squares would keep four digits
    got = rolling_normal(x, 100, (0.99,))[:, 0]
    for t in (99, 2146, 2147, 2148, 5999):
        w = x[t - 99:t + 1]
        assert got[t] == pytest.approx(var_normal(float(np.mean(w)), statistics.stdev(w.tolist()), 0.99), rel=1e-14)


@pytest.mark.parametrize('n', [0, 1, 2, 99, 100, 101, 2147, 2148, 2149])
def test_rolling_lengths_and_lags(n: int) -> None:
    x = FAT[np.arange(n) % len(FAT)]
    for f, least in ((lambda **kw: rolling_normal(x, 100, (0.99,), **kw)[:, 0], 2), (lambda **kw: rolling_historical(x, 100, 0.99, how='linear', **kw), 1)):
        table_, forecast, grown = f(lag=0), f(lag=1), f(lag=0, min_rows=least)
        assert len(table_) == len(forecast) == len(grown) == n
        assert np.isfinite(table_).sum() == max(0, n - 99) and np.isfinite(forecast).sum() == max(0, n - 100) and np.isfinite(grown).sum() == max(0, n - least + 1)
        np.testing.assert_array_equal(forecast[1:], table_[:-1])
        np.testing.assert_array_equal(grown[99:], table_[99:])


def test_growing_windows_are_the_rows_there_are() -> None:
    got = rolling_normal(FAT[:300], 252, (0.95,), min_rows=2)[:, 0]
    for t in (1, 2, 100, 250): assert got[t] == var_normal(*moments(FAT[:t + 1]), 0.95)
    assert rolling_historical(FAT[:300], 252, 0.95, min_rows=1, how='linear')[1] == quantile_loss(FAT[:1], 0.95)


def test_forecasts_are_causal() -> None:
    x, y = FAT[:400].copy(), FAT[:400].copy()
    y[300:] = -1
    for f in (lambda a: rolling_historical(a, 100), lambda a: rolling_normal(a, 100, lag=1)):
        np.testing.assert_array_equal(f(x)[:301], f(y)[:301])
        assert not np.array_equal(f(x)[301:], f(y)[301:])


def test_constant_windows_have_no_risk() -> None:
    x = np.r_[np.zeros(300), FAT[:100], np.full(300, 0.1)]
    got = rolling_normal(x, 50, (0.99,))[:, 0]
    assert (got[49:300] == 0).all() and not np.signbit(got[49:300]).any() and (got[-200:] == -0.1).all()


# Laws

@settings(max_examples=200)
@given(profits, levels)
def test_shortfall_is_never_below_var(x: np.ndarray, level: float) -> None:
    es = es_historical(x, level)
    for how in ('linear', 'inverted_cdf', 'higher', 'weibull', 'hazen', 'median_unbiased', 'interpolated_inverted_cdf', 'averaged_inverted_cdf'):
        if how in ('linear', 'inverted_cdf', 'higher'): assert es >= quantile_loss(x, level, how)
    for how in QUANTILES:
        t = tail(x, level, 'historical', how=how)
        assert t.es >= t.var
    if len(x) > 1:
        at = (*moments(x), level)
        assert es_normal(*at) >= var_normal(*at)
    try: assert es_cornish_fisher(x, level) >= var_cornish_fisher(x, level)
    except BadInput: pass


@settings(max_examples=200)
@given(pairs, levels)
def test_more_profit_on_every_day_is_never_more_risk(two: tuple[np.ndarray, np.ndarray], level: float) -> None:
    x, better = two[0], two[0] + np.abs(two[1])
    assert quantile_loss(better, level) <= quantile_loss(x, level) + 1e-9
    assert es_historical(better, level) <= es_historical(x, level) + 1e-9


@settings(max_examples=200)
@given(profits, levels, st.floats(-1e6, 1e6), st.floats(0, 1e3))
def test_cash_lowers_risk_by_its_amount_and_size_scales_it(x: np.ndarray, level: float, cash: float, size: float) -> None:
    def both(a: np.ndarray) -> list[float]: return [quantile_loss(a, level), es_historical(a, level), *((var_normal(*moments(a), level), es_normal(*moments(a), level)) if len(a) > 1 else ())]
    for a, b, c in zip(both(x), both(x + cash), both(x * size)):
        assert close(b, a - cash, x, np.array([cash]))
        assert close(c, a * size, x * size)


@settings(max_examples=300)
@given(pairs, levels)
def test_shortfall_of_two_books_is_never_more_than_the_sum(two: tuple[np.ndarray, np.ndarray], level: float) -> None:
    x, y = two
    assert es_historical(x + y, level) <= es_historical(x, level) + es_historical(y, level) + 1e-8
    if len(x) > 1:
        for f in (var_normal, es_normal): assert f(*moments(x + y), level) <= f(*moments(x), level) + f(*moments(y), level) + 1e-6


def test_historical_var_is_not_subadditive() -> None:
    one, two = np.r_[-100.0, np.ones(99)], np.r_[1.0, -100.0, np.ones(98)]
    assert quantile_loss(one + two, 0.985, 'inverted_cdf') > quantile_loss(one, 0.985, 'inverted_cdf') + quantile_loss(two, 0.985, 'inverted_cdf')


@settings(max_examples=100)
@given(profits, levels)
def test_a_higher_level_is_never_a_smaller_loss(x: np.ndarray, level: float) -> None:
    assert quantile_loss(x, 0.9995) >= quantile_loss(x, level) - 1e-9 and es_historical(x, 0.9995) >= es_historical(x, level) - 1e-9


@settings(max_examples=100)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=4, max_size=40).map(np.array), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_cornish_fisher_scales_and_shifts(x: np.ndarray, size: float, cash: float) -> None:
    assume(x.std() > 1e-3 * max(1.0, np.abs(x).max()))
    assume(increasing(*shape(x), 3.9) == increasing(*shape(x), 4.1))      # not at the edge of the domain, where a last bit decides
    try: a = tail(x, 0.99, 'cornish-fisher')
    except BadInput:
        with pytest.raises(BadInput): tail(x * size + cash, 0.99, 'cornish-fisher')
        return
    b = tail(x * size + cash, 0.99, 'cornish-fisher')
    assert close(b.var, a.var * size - cash, x * size) and close(b.es, a.es * size - cash, x * size)


# Input

@pytest.mark.parametrize('method', METHODS)
def test_cash_has_no_risk_by_any_method(method: str) -> None:
    t = tail(np.zeros(200), 0.99, method)
    assert (t.var, t.es, t.method, t.n) == (0.0, 0.0, method, 200) and not math.copysign(1, t.var) < 0


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('bad', [[], [math.nan, *[0.1] * 200], [0.1, -math.inf, *[0.1] * 200], np.zeros((20, 2)), ['a', 'b'], [1 + 2j], 0.5, [None, 1.0]])
def test_bad_profits_are_refused_by_every_method(method: str, bad: object) -> None:
    with pytest.raises(BadInput): tail(bad, 0.99, method)      # type: ignore[arg-type]


@pytest.mark.parametrize('level', [0, 0.05, 0.5, 1, 99, -0.99, math.nan, True, '0.99', None, 1 - 1e-14])
def test_bad_levels_are_refused(level: object) -> None:
    for f in (lambda: quantile_loss(FAT, level), lambda: es_historical(FAT, level), lambda: var_normal(0, 1, level), lambda: tail(FAT, level), lambda: rolling_normal(FAT, 252, (level,)),
              lambda: rolling_historical(FAT, 252, level), lambda: tail_share(level)):
        with pytest.raises(BadInput): f()


@pytest.mark.parametrize(('mean', 'std'), [(math.nan, 1), (0, math.nan), (0, -1), (math.inf, 1), (0, math.inf)])
def test_bad_moments_are_refused(mean: float, std: float) -> None:
    for f in (var_normal, es_normal):
        with pytest.raises(BadInput): f(mean, std, 0.99)


def test_too_few_rows_are_refused() -> None:
    for f, n in ((moments, 1), (shape, 3), (lambda x: tail(x, 0.99, 'normal'), 1), (lambda x: tail(x, 0.99, 'cornish-fisher'), 3), (lambda x: tail(x, 0.99, 'filtered'), 99)):
        with pytest.raises(BadInput, match=f'at least {n + 1}, found {n}'): f(FAT[:n])
    assert tail(FAT[:1], 0.99).var == -FAT[0]


def test_a_result_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match='out of range'): moments([1e308, -1e308, 1e308])
    with pytest.raises(BadInput, match='out of range'): var_normal(1e308, 1e308, 0.99)


def test_what_may_go_in() -> None:
    import pandas as pd
    for x in (FAT.tolist(), tuple(FAT), pd.Series(FAT), FAT.astype(object), [Decimal(repr(v)) for v in FAT.tolist()]): assert quantile_loss(x, 0.99) == quantile_loss(FAT, 0.99)
    before = FAT.copy()
    for method in METHODS: tail(FAT, 0.99, method)
    np.testing.assert_array_equal(FAT, before)      # nothing is sorted in place
    assert column(np.array([1, 2], dtype=np.int8)).dtype == np.float64 and table([[1, 2]]).shape == (1, 2)


def test_longer_horizons() -> None:
    one, ten = tail(FAT, 0.99, 'normal'), tail(FAT, 0.99, 'normal', horizon=10)
    mean, std = moments(FAT)
    assert ten.var == pytest.approx(-(10 * mean + math.sqrt(10) * std * scipy.stats.norm.ppf(0.01)), abs=1e-12) and ten.horizon == 10 and one.horizon == 1
    mild = scipy.stats.gamma(20).rvs(800, random_state=2) * -0.01
    far = tail(mild, 0.99, 'cornish-fisher', horizon=10_000)      # skewness dies out: the central limit
    assert far.var == pytest.approx(tail(mild, 0.99, 'normal', horizon=10_000).var, rel=0.01)
    for method in METHODS:
        for horizon in (0, -1, 1.5, True):
            with pytest.raises(BadInput, match='horizon'): tail(FAT, 0.99, method, horizon=horizon)      # type: ignore[arg-type]


def test_the_module_is_light() -> None:
    code = 'import sys, gekko.risk.measures, gekko.risk.filtered, gekko.risk.simulated, gekko.risk.contributions, gekko.risk.backtest; print(sorted({"scipy", "arch", "torch", "pandas", "skfolio"} & set(sys.modules)))'
    assert run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
