"""Scores: by hand, by another route, and a bootstrap whose interval holds the truth as often as it says."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gekko.domain.errors import BadInput
from gekko.forecast.scores import by_step, contest, coverage, mae, mase, mse, pinball, skill, width, winkler

values = arrays(np.float64, (7, 3), elements=st.floats(-1e3, 1e3))


@settings(max_examples=60, deadline=None)
@given(values, values)
def test_losses_are_zero_only_for_the_truth_and_keep_their_order(a: np.ndarray, f: np.ndarray) -> None:
    assert mse(a, a) == mae(a, a) == 0
    assert mae(a, f) ** 2 <= mse(a, f) * (1 + 1e-9) + 1e-12
    assert mse(a, f) == pytest.approx(by_step(a, f)[0].mean()) and mae(a, f) == pytest.approx(2 * pinball(a, f, 0.5))


@settings(max_examples=60, deadline=None)
@given(values, values, st.floats(0, 100), st.floats(0.05, 0.95))
def test_winkler_is_two_pinball_losses(a: np.ndarray, mid: np.ndarray, half: float, level: float) -> None:
    low, high = mid - half, mid + half
    tail = (1 - level) / 2
    assert winkler(a, low, high, level) == pytest.approx((pinball(a, low, tail) + pinball(a, high, 1 - tail)) / tail, rel=1e-6, abs=1e-6)
    assert winkler(a, low, high, level) >= width(low, high) - 1e-9


def test_the_true_quantile_and_interval_score_best() -> None:
    x = np.random.default_rng(3).gumbel(size=40_000)
    q = [-np.log(-np.log(p)) for p in (0.1, 0.9)]
    best = winkler(x, np.full(len(x), q[0]), np.full(len(x), q[1]), 0.8)
    assert all(winkler(x, np.full(len(x), q[0] + d), np.full(len(x), q[1] + e), 0.8) > best for d, e in ((-0.5, 0), (0.3, 0), (0, -0.5), (0, 0.5), (-0.3, 0.5)))
    assert coverage(x, np.full(len(x), q[0]), np.full(len(x), q[1])) == pytest.approx(0.8, abs=0.01)


def test_mase_of_the_seasonal_naive_on_its_own_history_is_one() -> None:
    h = np.random.default_rng(0).normal(size=240).cumsum()
    assert mase(h[24:], h[:-24], h, season=24) == pytest.approx(1.0)
    assert mase(5 * h[24:], 5 * h[:-24], 5 * h, season=24) == pytest.approx(1.0)


def test_intervals_of_skill_hold_the_truth_as_often_as_they_say() -> None:
    """Losses that overlap as windows do; the true skill is 0.2. A bootstrap row by row is far below its level."""
    def held(block: int) -> float:
        hits = 0
        for s in range(150):
            g = np.random.default_rng(s)
            a, b = (np.convolve(g.exponential(k, size=811), np.ones(12) / 12, 'valid') for k in (0.8, 1.0))
            got = skill(a, b, block, draws=199, seed=s)
            hits += got.low <= 0.2 <= got.high
        return hits / 150
    assert held(24) > 0.88 and held(1) < 0.65


def test_a_model_without_skill_seldom_beats() -> None:
    wins = 0
    for s in range(150):
        g = np.random.default_rng(1000 + s)
        a, b = (np.convolve(g.exponential(size=811), np.ones(12) / 12, 'valid') for _ in range(2))
        wins += skill(a, b, 24, draws=199, seed=s).beats
    assert wins / 150 < 0.08      # 2.5 % promised on this side


def test_an_array_with_a_hole_is_refused_by_every_score() -> None:
    good, bad = np.ones((4, 2)), np.ones((4, 2))
    bad[2, 1] = np.nan
    calls = [lambda: mse(good, bad), lambda: mae(bad, good), lambda: pinball(good, bad, 0.5), lambda: coverage(good, bad, good), lambda: width(good, bad), lambda: winkler(bad, good, good, 0.8),
             lambda: mase(bad, good, np.arange(9.0)), lambda: mase(good, good, bad[:, 1]), lambda: skill(bad[:, 1], good[:, 1], 1), lambda: by_step(good, bad)]
    for call in calls:
        with pytest.raises(BadInput): call()


@pytest.mark.parametrize('level', [0, 1, -0.1, 95])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(BadInput): winkler([1.0], [0.0], [2.0], level)
    with pytest.raises(BadInput): pinball([1.0], [0.0], level)


def test_a_contest_is_lost_to_the_best_rival() -> None:
    g = np.random.default_rng(0)
    base = np.convolve(g.exponential(size=811), np.ones(12) / 12, 'valid')
    weak, strong = 1.5 * base, 0.8 * base
    assert contest(base, {'weak': weak}, 24).beats and not contest(base, {'weak': weak, 'strong': strong}, 24).beats
    got = contest(base, {'weak': weak, 'strong': strong}, 24)
    assert got.best == 'strong' and dict(got.skills)['weak'].value == pytest.approx(1 / 3) and str(got).startswith('does not beat strong')
    with pytest.raises(BadInput): contest(base, {'weak': np.r_[np.nan, weak[1:]]}, 24)
