"""Kelly: the growth-optimal book, the fraction and caps, and what an estimated edge is worth."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.portfolio.kelly import edge_share, growth, kelly, kelly_bet


@st.composite
def markets(draw):
    n, seed = draw(st.integers(1, 6)), draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    a = rng.normal(0, 1, (n, n))
    return rng.normal(0.05, 0.1, n), (a @ a.T / n + 0.2 * np.eye(n)) * 0.04, rng


@given(st.floats(0.01, 0.99), st.floats(0.1, 10))
def test_no_other_bet_grows_faster(p, odds):
    def grows(f): return p * math.log1p(f * odds) + (1 - p) * math.log1p(-f)
    best = kelly_bet(p, odds)
    assert 0 <= best < 1 and all(grows(best) >= grows(f) - 1e-12 for f in np.linspace(0, 0.999, 200))


@given(markets())
def test_no_other_book_grows_faster(market):
    mean, cov, rng = market
    best = kelly(mean, cov, 1.0)
    assert cov @ best == pytest.approx(mean, rel=1e-8, abs=1e-12)
    for _ in range(20): assert growth(best + rng.normal(0, 0.3, len(mean)), mean, cov) <= growth(best, mean, cov) + 1e-12
    assert growth(kelly(mean, cov, 0.5), mean, cov) == pytest.approx(0.75 * growth(best, mean, cov))


@given(markets(), st.floats(0.05, 1), st.floats(0.05, 2), st.floats(0.05, 3))
def test_caps_hold_and_keep_proportions(market, fraction, most, gross):
    mean, cov, _ = market
    free, f = kelly(mean, cov, fraction), kelly(mean, cov, fraction, most, gross)
    assert np.abs(f).max() <= most * (1 + 1e-12) and np.abs(f).sum() <= gross * (1 + 1e-12)
    assert f * np.abs(free).sum() == pytest.approx(free * np.abs(f).sum(), rel=1e-9, abs=1e-12)
    assert (np.abs(f) <= np.abs(free) * (1 + 1e-12)).all()
    if np.abs(free).max() <= most and np.abs(free).sum() <= gross: assert f.tobytes() == free.tobytes()


@given(markets(), st.floats(0.1, 10))
def test_the_length_of_a_period_does_not_matter(market, scale):
    mean, cov, _ = market
    assert kelly(mean * scale, cov * scale) == pytest.approx(kelly(mean, cov), rel=1e-8, abs=1e-12)


@given(markets(), st.randoms(use_true_random=False))
def test_the_order_of_assets_does_not_matter(market, random):
    mean, cov, _ = market
    order = list(range(len(mean)))
    random.shuffle(order)
    assert kelly(mean[order], cov[np.ix_(order, order)]) == pytest.approx(kelly(mean, cov)[order], rel=1e-8, abs=1e-12)


def test_simulated_wealth_grows_fastest_at_full_kelly_and_not_at_all_at_twice():
    rng = np.random.default_rng(12)
    mean, cov = np.array([0.0012, 0.0004]), np.array([[4e-4, 5e-5], [5e-5, 1e-4]])
    moves = rng.multivariate_normal(mean, cov, size=200_000)
    best = kelly(mean, cov, 1.0)
    grown = {k: float(np.log1p(moves @ (k * best)).mean()) for k in (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)}
    assert max(grown, key=grown.__getitem__) in (0.75, 1.0, 1.25) and grown[1.0] > grown[0.5] and grown[1.0] > grown[1.5]
    assert grown[0.5] == pytest.approx(0.75 * growth(best, mean, cov), rel=0.1) and abs(grown[2.0]) < 0.2 * grown[1.0]


def test_what_is_known_for_sure_is_bet_in_full_and_noise_not_at_all():
    mean, cov = np.array([0.01, 0.02]), np.eye(2) * 0.01
    assert edge_share(mean, cov, 10**9) == pytest.approx(1) and edge_share(mean, cov, 1) == 0 and 0 < edge_share(mean, cov, 100) < 1


def test_the_share_grows_faster_than_the_whole_when_the_mean_is_estimated():
    rng, mean, cov, rows = np.random.default_rng(3), np.full(5, 0.0005), np.eye(5) * 1e-4, 1000
    seen = rng.multivariate_normal(mean, cov / rows, size=1000)
    whole = np.mean([growth(kelly(m, cov, 1.0), mean, cov) for m in seen])
    share = np.mean([growth(edge_share(m, cov, rows) * kelly(m, cov, 1.0), mean, cov) for m in seen])
    assert share > whole


@pytest.mark.parametrize('call, says', [
    (lambda: kelly_bet(1.1), 'probability'), (lambda: kelly_bet(0.5, -1), 'odds'), (lambda: kelly(np.ones(2), np.ones((2, 2))), 'no book without risk'),
    (lambda: kelly(np.ones(1), np.zeros((1, 1))), 'no book without risk'), (lambda: kelly(np.ones(1), -np.ones((1, 1))), 'no book without risk'),
    (lambda: kelly(np.array([math.nan]), np.eye(1)), 'finite numbers'), (lambda: kelly(np.ones(2), np.eye(3)), '(N,) and (N, N)'), (lambda: kelly(np.zeros(0), np.zeros((0, 0))), '(N,) and (N, N)'),
    (lambda: kelly(np.ones(1), np.eye(1), 0), 'fraction of Kelly'), (lambda: kelly(np.ones(1), np.eye(1), max_weight=-1), 'caps'), (lambda: edge_share(np.ones(1), np.eye(1), 0), 'rows behind')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
