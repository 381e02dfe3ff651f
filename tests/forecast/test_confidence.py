"""Confidence: rising, calibrated where the truth is known and on real prices, and a reliability diagram that catches a boaster."""
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.baselines import Naive
from gekko.forecast.confidence import Confidence, confidence, fit_confidence, fit_within, margin, pooled, reliability, sign_right
from gekko.forecast.conformal import fit_scale, scales


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=30))
def test_pooling_rises_keeps_the_mean_and_is_nearest(pairs: list[tuple[float, float]]) -> None:
    from scipy.optimize import isotonic_regression
    rates, weights = map(np.array, zip(*pairs))
    got = pooled(rates, weights)
    assert (np.diff(got) >= -1e-12).all() and np.average(got, weights=weights) == pytest.approx(np.average(rates, weights=weights))
    assert np.allclose(got, isotonic_regression(rates, weights=weights).x)


@settings(max_examples=60, deadline=None)
@given(st.integers(50, 600), st.integers(0, 999), st.booleans())
def test_a_confidence_is_a_probability_that_rises_with_the_margin(n: int, seed: int, ties: bool) -> None:
    g = np.random.default_rng(seed)
    m = g.exponential(size=n)
    if ties: m = m.round()
    c = fit_confidence(m, g.random(n) < 0.6)
    said = confidence(c, np.linspace(0, 20, 200))
    assert (np.diff(said) >= 0).all() and 0 < said[0] and said[-1] < 1


@pytest.mark.parametrize('seed', range(5))
def test_the_true_probability_is_found(seed: int) -> None:
    g = np.random.default_rng(seed)
    m = g.exponential(size=30_000)
    p = 0.5 + 0.45 * (1 - np.exp(-m / 2))
    right = g.random(30_000) < p
    c = fit_confidence(m[:5000], right[:5000])
    said = confidence(c, m[5000:])
    held = reliability(said, right[5000:])
    assert np.abs(said - p[5000:]).mean() < 0.025 and held.ece < 0.03
    # sharpened after the fact, as networks do, it is caught
    boast = reliability(np.clip(0.5 + 1.6 * (said - 0.5), 0, 1), right[5000:])
    assert boast.ece > 0.07 > 5 * boast.noise and boast.brier > held.brier


def test_what_chance_does_to_a_perfect_word_is_what_noise_says() -> None:
    g = np.random.default_rng(0)
    said = g.uniform(0.5, 0.9, size=1000)
    made = [reliability(said, g.random(1000) < said) for _ in range(200)]
    assert np.mean([r.ece for r in made]) == pytest.approx(made[0].noise, rel=0.1)


def eth(shared_data: Path | None) -> np.ndarray:
    if shared_data:
        import pyarrow.parquet as pq
        return np.log(pq.read_table(shared_data / 'eth_btc_5m_2018.parquet').column('close').to_numpy())
    g = np.random.default_rng(2018)
    r = 0.002 * np.exp(0.3 * np.sin(np.arange(5760) * 2 * np.pi / 288)) * g.standard_t(4, size=5760)
    r[1:] -= 0.15 * r[:-1]      # bounces between bid and ask, as there
    return np.log(0.09) + r.cumsum()


def test_the_sign_is_as_sure_as_it_says_on_eth_btc(shared_data: Path | None) -> None:
    """The call that the last 5 minutes are partly taken back; its confidence fitted on ten days and held against ten more."""
    x = eth(shared_data)
    at = np.arange(300, len(x))
    call, actual = -(x[at - 1] - x[at - 2]), x[at] - x[at - 1]
    m = margin(call, scales(fit_scale(x, at[:2700]), x, at))
    right, moved = sign_right(call, actual), (call != 0) & (actual != 0)
    fit, judge = moved & (at < 3000), moved & (at >= 3000)
    c = fit_confidence(m[fit], right[fit])
    said = confidence(c, m[judge])
    held = reliability(said, right[judge])
    print(f'base {c.base:.3f}, said {said.min():.3f} to {said.max():.3f}, ECE {held.ece:.4f} (by chance {held.noise:.4f}), Brier {held.brier:.4f}', list(zip(np.round(held.said, 3), np.round(held.seen, 3))))
    assert held.ece < 0.04 and held.brier < 0.25
    assert right[judge][said >= np.quantile(said, 0.8)].mean() > right[judge].mean()      # surer calls are right more often


@pytest.mark.parametrize('bound', [0.0015, 0.003, 0.006])
def test_an_error_stays_below_a_bound_as_often_as_said_on_eth_btc(shared_data: Path | None, bound: float) -> None:
    x = eth(shared_data)
    at = np.arange(300, len(x))
    e = x[at] - np.array([Naive().forecast(x[o - 1:o], 1)[0] for o in at])
    s = scales(fit_scale(x, at[:2700]), x, at)
    c = fit_within(np.abs(e[:2700]) / s[:2700])
    said = confidence(c, margin(np.full(len(e) - 2700, bound), s[2700:]))
    held = reliability(said, np.abs(e[2700:]) <= bound)
    print(f'bound {bound}: said {said.mean():.3f}, seen {np.mean(np.abs(e[2700:]) <= bound):.3f}, ECE {held.ece:.4f} (by chance {held.noise:.4f})')
    assert held.ece < 0.04 and abs(said.mean() - np.mean(np.abs(e[2700:]) <= bound)) < 0.03


def test_broken_numbers_are_refused() -> None:
    m, ok = np.ones(60), np.ones(60, dtype=bool)
    nan = np.r_[np.nan, np.ones(59)]
    for call in (lambda: fit_confidence(nan, ok), lambda: fit_confidence(m, ok[:59]), lambda: fit_confidence(m, ok, least=61), lambda: fit_within(nan), lambda: margin(nan, m), lambda: margin(m, 0 * m),
                 lambda: sign_right(nan, m), lambda: reliability(nan, ok), lambda: reliability(m * 2, ok), lambda: reliability(m, ok * 1), lambda: confidence(fit_within(m), [np.inf]),
                 lambda: Confidence((1.0, 1.0), (0.5, 0.6), 0.5, 9), lambda: Confidence((1.0,), (1.2,), 0.5, 9), lambda: Confidence((1.0,), (float('nan'),), 0.5, 9)):
        with pytest.raises(BadInput): call()
