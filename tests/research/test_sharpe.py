"""The formulas of the Sharpe ratio's uncertainty, against the numbers that their papers print and against simulation."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sp

from gekko.domain.errors import BadInput
from gekko.research import sharpe as s

FUND = dict(sharpe=.036 / .079, skew=-2.448, kurtosis=10.164)     # 24 months, Bailey & López de Prado 2012
ratios, rows = st.floats(-.5, .5), st.integers(10, 5_000)
shapes = st.tuples(st.floats(-1.5, 1.5), st.floats(0, 20)).map(lambda x: (x[0], 1.5 + x[0] ** 2 + x[1]))


def test_probabilistic_as_in_the_paper_of_2012() -> None:
    "The Sharpe Ratio Efficient Frontier: a monthly ratio of 0.458, 24 months: 98.2 % if normal, 91.3 % as it is."
    assert round(s.probabilistic(.458, 24), 3) == .982
    assert round(s.probabilistic(.458, 24, -2.448, 10.164), 3) == .913


@pytest.mark.parametrize(('periods', 'years'), [(250, 2.73), (52, 2.83), (12, 3.24)])
def test_track_record_as_in_the_paper_of_2012(periods: int, years: float) -> None:
    "Years to be sure at 95 % that 2 a year is above 1, normal returns, daily, weekly, monthly."
    assert round(s.track_record(2 / periods**.5, benchmark=1 / periods**.5) / periods, 2) == years


def test_track_record_of_a_hedge_fund() -> None:
    "Skew -0.72 and kurtosis 5.78, monthly: 4.99 years instead of 3.24."
    assert round(s.track_record(2 / 12**.5, -.72, 5.78, benchmark=1 / 12**.5) / 12, 2) == 4.99


def test_deflated_as_in_the_paper_of_2014() -> None:
    "2.5 a year over 1,250 days, variance of the trials' ratios 1/2 a year, skew -3, kurtosis 10."
    day = 250**.5
    spread = math.sqrt(.5) / day
    assert round(s.expected_maximum(100, spread), 4) == .1132
    assert round(s.deflated(2.5 / day, 1250, 100, spread, -3, 10), 4) == .9004
    assert round(s.deflated(2.5 / day, 1250, 46, spread, -3, 10), 4) == .9505
    assert round(s.deflated(2.5 / day, 1250, 88, spread), 4) == .9505


def test_backtest_length_as_in_the_notices_of_2014() -> None:
    "Ten trials make 1.57 of nothing; five years allow 45."
    assert math.floor(s.expected_maximum(10) * 100) / 100 == 1.57
    assert s.trials_allowed(5) == 45 and s.backtest_length(45) < 5 < s.backtest_length(46)
    assert s.backtest_length(1_000) < 2 * math.log(1_000)      # the paper's bound


def test_with_memory_as_in_the_paper_of_2026() -> None:
    "How to Use the Sharpe Ratio, its numerical example: the same fund with an autocorrelation of 0.2."
    assert round(s.standard_error(.036 / .079, 24, ddof=0), 3) == .214
    assert round(s.standard_error(**FUND, rows=24, correlation=.2, ddof=0), 3) == .379
    assert [round(s.probabilistic(**FUND, rows=24, correlation=.2, benchmark=b, null=True), 3) for b in (0, .1)] == [.966, .900]
    assert [round(s.track_record(**FUND, correlation=.2, benchmark=b, null=True), 3) for b in (0, .1)] == [19.543, 39.369]


@pytest.mark.parametrize('trials', [2, 10, 100, 1_000])
def test_expected_maximum_against_order_statistics(trials: int) -> None:
    "The exact expectation by quadrature; the formula is an approximation, within 5 % at ten and 1 % at a thousand."
    exact = sp.norm.expect(lambda z: z * trials * sp.norm.cdf(z) ** (trials - 1))
    assert s.expected_maximum(trials) == pytest.approx(exact, rel=.09 if trials < 10 else .05 if trials < 100 else .015)


def test_error_of_crooked_returns_by_simulation() -> None:
    "Exponential losses: the formula with skew and kurtosis is right where the one for normal returns is a third off."
    r = 1.3 - np.random.default_rng(1).exponential(1, (20_000, 400))
    found = (r.mean(1) / r.std(1, ddof=1)).std()
    assert s.standard_error(.3, 400, -2, 9) == pytest.approx(found, rel=.03)
    assert abs(s.standard_error(.3, 400) / found - 1) > .2


def test_error_with_memory_by_simulation() -> None:
    g, p = np.random.default_rng(2), .3
    e = g.standard_normal((4_000, 700))
    for t in range(1, 700): e[:, t] = p * e[:, t - 1] + (1 - p * p) ** .5 * e[:, t]
    r = (e + .05)[:, 100:]
    found = (r.mean(1) / r.std(1, ddof=1)).std()
    assert s.standard_error(.05, 600, correlation=p) == pytest.approx(found, rel=.05)
    assert np.mean([s.memory(x) for x in r[:200]]) == pytest.approx((1 + p) / (1 - p), rel=.08)


def test_luck_is_exact_in_the_tail_and_by_simulation() -> None:
    assert s.luck(10, 1_000) == pytest.approx(1_000 * sp.norm.sf(10), rel=1e-9)
    best = np.random.default_rng(3).standard_normal((20_000, 50)).max(1)
    assert s.luck(2.5, 50) == pytest.approx((best > 2.5).mean(), abs=.01)


@settings(deadline=None, max_examples=60)
@given(ratios, rows, shapes, st.floats(-.5, .5))
def test_track_record_and_probability_are_one_question(x: float, n: int, shape: tuple[float, float], p: float) -> None:
    level = s.probabilistic(x, n, *shape, correlation=p)
    assert 0 <= level <= 1
    if .5 < level < 1 - 1e-9 and x > 1e-6: assert s.track_record(x, *shape, correlation=p, level=level) == pytest.approx(n, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(-3, 8))
def test_more_trials_never_help(a: float, b: float, z: float) -> None:
    few, many = min(a, b), max(a, b)
    assert s.expected_maximum(few) <= s.expected_maximum(many) + 1e-12
    assert s.luck(z, few) <= s.luck(z, many)
    assert s.backtest_length(few) <= s.backtest_length(many) + 1e-12
    if 1e-12 < s.luck(z, many) < 1 - 1e-6: assert s.equivalent(z, s.luck(z, many)) == pytest.approx(many, rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(ratios, rows, shapes, st.floats(.001, .2), st.floats(1, 1e4))
def test_deflated_is_never_above_probabilistic(x: float, n: int, shape: tuple[float, float], spread: float, trials: float) -> None:
    assert s.deflated(x, n, trials, spread, *shape) <= s.probabilistic(x, n, *shape) + 1e-12


@pytest.mark.parametrize('call', [
    lambda: s.probabilistic(math.nan, 100), lambda: s.probabilistic(.1, 2), lambda: s.probabilistic(.1, math.inf), lambda: s.probabilistic(.1, 100, kurtosis=.5), lambda: s.probabilistic(.1, 100, correlation=1),
    lambda: s.probabilistic(.1, 100, benchmark=math.inf), lambda: s.track_record(.1, level=1), lambda: s.track_record(.1, level=0), lambda: s.expected_maximum(.5), lambda: s.expected_maximum(math.nan),
    lambda: s.expected_maximum(10, -1), lambda: s.backtest_length(10, 0), lambda: s.trials_allowed(0), lambda: s.luck(math.nan, 3), lambda: s.luck(1, 0), lambda: s.equivalent(1, 1),
    lambda: s.record(np.array([.1, .1, .1, .1])), lambda: s.record(np.array([.1, math.inf, .2])), lambda: s.record(np.array([[.1], [.2], [.3]])), lambda: s.record(np.array([])),
    lambda: s.matrix(np.array([.1, .2, .3])), lambda: s.matrix(np.zeros((5, 0))), lambda: s.memory(np.array([.1, .2, .3]), lags=-2)])
def test_what_cannot_be_used_is_refused_with_what_was_expected(call: object) -> None:
    with pytest.raises(BadInput) as e: call()  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None


def test_record_agrees_with_scipy() -> None:
    r = np.random.default_rng(4).standard_t(5, 900) * .01
    k = s.record(r)
    assert (k.skew, k.kurtosis) == pytest.approx((sp.skew(r), sp.kurtosis(r, fisher=False)))
    assert k.sharpe == pytest.approx(r.mean() / r.std(ddof=1)) and k.rows == 900
