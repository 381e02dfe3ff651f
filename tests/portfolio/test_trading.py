"""Trading rules: the region's derivation, the conditions of optimality, bounds on tracking, and costs that fall."""
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.portfolio.trading import cost_aware, half_width, no_trade, partial, trade_rate, within_turnover
from gekko.portfolio.walk import walked


@st.composite
def worlds(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n = draw(st.integers(1, 8))
    a = rng.normal(0, 1, (n, max(1, n - draw(st.integers(0, 2)))))       # at times singular
    vol = rng.uniform(0.05, 0.6, n)
    cov = a @ a.T
    cov = cov / np.sqrt(np.outer(np.diagonal(cov), np.diagonal(cov))) * np.outer(vol, vol)
    return rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(n)), cov, draw(st.sampled_from([0.0, 1.0, 10.0, 100.0]))


@given(worlds())
def test_inside_the_region_nothing_and_outside_to_its_edge(world):
    held, want, cov, bps = world
    h = half_width(np.sqrt(np.diagonal(cov)), bps)
    w = no_trade(held, want, h)
    inside = np.abs(held - want) <= h
    assert (w[inside] == held[inside]).all() and (np.abs(w - want) <= h + 1e-15).all()
    assert np.abs(w - want)[~inside] == pytest.approx(h[~inside], abs=1e-12) and (np.abs(w - held) <= np.abs(want - held) + 1e-15).all()
    assert no_trade(w, want, h + 1e-15).tolist() == w.tolist()      # done once it is done


@given(worlds())
def test_kept_whole_the_region_still_bounds_tracking(world):
    held, want, cov, bps = world
    h = half_width(np.sqrt(np.diagonal(cov)), bps)
    w = no_trade(held, want, h, keep_sum=True)
    assert abs(math.fsum(w.tolist()) - math.fsum(want.tolist())) < 1e-12 and np.abs(w - want).max() <= 2 * h.max() + 1e-12
    assert np.abs(w - held).sum() <= np.abs(want - held).sum() + 1e-12


@given(worlds(), st.floats(0.2, 5), st.floats(0.1, 2))
def test_the_region_is_where_the_next_step_does_not_pay(world, aversion, horizon):
    held, want, cov, bps = world
    vol = np.sqrt(np.diagonal(cov))
    w, price = no_trade(held, want, half_width(vol, bps, aversion, horizon)), bps / 1e4 / horizon
    def loss(x): return (aversion / 2 * vol**2 * (x - want)**2 + price * np.abs(x - held)).sum()
    best = loss(w)
    for j in range(len(w)):
        for d in (-1e-4, 1e-4, -1e-2, 1e-2): assert loss(w + d * (np.arange(len(w)) == j)) >= best - 1e-12


@given(worlds())
def test_the_conditions_of_optimality_hold(world):
    held, want, cov, bps = world
    w = cost_aware(held, want, cov, bps, horizon=0.5)
    pull, price = 4.0 * cov @ (want - w), bps / 1e4 / 0.5
    moved = np.abs(w - held) > 1e-9
    assert (np.abs(pull) <= price + 1e-7).all()
    assert np.abs(pull[moved]) == pytest.approx(price, abs=1e-7) and (bps == 0 or (np.sign(pull[moved]) == np.sign(w - held)[moved]).all())


@given(worlds())
def test_without_correlation_it_is_the_region(world):
    held, want, cov, bps = world
    alone = np.diag(np.diagonal(cov))
    assert cost_aware(held, want, alone, bps) == pytest.approx(no_trade(held, want, half_width(np.sqrt(np.diagonal(cov)), bps)), abs=1e-9)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.5, 1))
def test_the_rate_solves_its_equation_and_no_other_is_cheaper(aversion, impact, discount):
    rate = trade_rate(aversion, impact, discount)
    a = rate * impact
    assert 0 < rate <= 1 and discount * a * a + (aversion + impact * (1 - discount)) * a == pytest.approx(impact * aversion, rel=1e-9)
    def paid(r): return (aversion * (1 - r)**2 + impact * r * r) / 2 / (1 - discount * (1 - r)**2)      # the whole future, a geometric sum
    assert all(paid(rate) <= paid(r) + 1e-12 * paid(r) for r in (*np.linspace(0.01, 1, 60), min(1, rate * 1.01), rate * 0.99))


@given(worlds(), st.floats(0.01, 1), st.floats(0, 2))
def test_steps_and_budgets_are_between_held_and_wanted(world, rate, most):
    held, want, _, _ = world
    assert partial(held, want, rate) - held == pytest.approx(rate * (want - held), abs=1e-15)
    w = within_turnover(held, want, most)
    assert np.abs(w - held).sum() <= most + 1e-12 and w.sum() == pytest.approx(1) and ((w - held) * (want - held) >= 0).all()
    if np.abs(want - held).sum() <= most: assert w.tolist() == want.tolist()


@lru_cache
def market() -> tuple[np.ndarray, np.ndarray]:
    """Targets that are a noisy view of something slow: what trading rules are for."""
    rng = np.random.default_rng(6)
    x = rng.normal(0.0003, 0.01, (1500, 6))
    wanted = np.full(x.shape, np.nan)
    slow = np.cumsum(rng.normal(0, 0.05, (75, 6)), axis=0)
    for k in range(75): wanted[k * 20] = (e := np.exp(slow[k] + rng.normal(0, 0.15, 6))) / e.sum()
    return x, wanted


@pytest.mark.parametrize('bps', [5.0, 20.0, 50.0])
def test_costs_fall_and_tracking_stays_bounded(bps):
    x, wanted = market()
    h = half_width(np.full(6, 0.16), bps, horizon=0.25)
    on = np.flatnonzero(np.isfinite(wanted[:, 0]))
    held, turnover, gross = walked(x, wanted, bps, lambda c, t: no_trade(c, t, h, keep_sum=True))
    _, all_of_it, exact = walked(x, wanted, bps)
    assert turnover[on[1]:].sum() < 0.95 * all_of_it[on[1]:].sum()
    assert np.abs(held[on] - wanted[on]).max() <= 2 * h.max() + 1e-12
    assert (gross - exact)[on[0] + 1:].std() * 252**0.5 <= 2 * h.max() * 0.16 * 6**0.5


def test_wider_is_cheaper():
    x, wanted = market()
    traded = [walked(x, wanted, 0, lambda c, t, h=h: no_trade(c, t, h))[1].sum() for h in (0, 0.01, 0.02, 0.05, 0.5)]
    assert all(a > b for a, b in zip(traded, traded[1:]))


@pytest.mark.parametrize('call, says', [
    (lambda: half_width(np.array([0.0]), 5), 'volatility'), (lambda: half_width(np.array([math.nan]), 5), 'volatility'), (lambda: half_width(np.ones(1), -5), 'cost_bps'), (lambda: half_width(np.ones(1), 5, 0), 'risk aversion'),
    (lambda: half_width(np.ones(1), 5, 1, 0), 'horizon'), (lambda: no_trade(np.ones(2), np.ones(3), 0.1), '(N,) both'), (lambda: no_trade(np.ones(2), np.full(2, math.nan), 0.1), 'finite'), (lambda: no_trade(np.ones(1), np.ones(1), -0.1), 'width'),
    (lambda: no_trade(np.ones(1), np.ones(1), math.nan), 'width'), (lambda: cost_aware(np.ones(2), np.ones(2), np.zeros((2, 2)), 5), 'covariance'), (lambda: cost_aware(np.ones(2), np.ones(2), np.eye(3), 5), 'covariance'),
    (lambda: trade_rate(1, -1), 'impact'), (lambda: trade_rate(1, 1, 2), 'at most 1'), (lambda: partial(np.ones(1), np.ones(1), 2), 'rate of trading'), (lambda: within_turnover(np.ones(1), np.ones(1), math.nan), 'turnover budget')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
