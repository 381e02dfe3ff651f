"""Weights by six methods: within bounds, whole, the same for any order and unit, right against closed forms, and refused where they would mean nothing."""
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gekko.data.features import simple_returns
from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput
from gekko.domain.time import utc
from gekko.portfolio.optimise import METHODS, fit, weights_of

FREE = [m for m in METHODS if m not in ('hrp', 'risk-parity')]
CONVEX = ('min-variance', 'min-cvar', 'mean-variance')


@lru_cache
def past() -> np.ndarray: return simple_returns(reference_bars(['BAC', 'GE', 'JNJ', 'KO', 'PG', 'WMT', 'XOM']).between(utc('2005-12-30'), utc('2009-01-01')).close)[1:]


NAMES = ('BAC', 'GE', 'JNJ', 'KO', 'PG', 'WMT', 'XOM')


def market(seed: int, rows: int = 60, n: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_t(4, (rows, n)) * rng.uniform(0.005, 0.03, n) + 0.5 * rng.normal(0, 0.01, (rows, 1)) + rng.normal(0, 3e-4, n)


@given(st.integers(0, 2**31), st.sampled_from(list(METHODS)), st.sampled_from([0.3, 0.5, 1.0]), st.booleans())
@settings(max_examples=25)
def test_whole_and_within_bounds(seed, method, most, shrink):
    w = weights_of(market(seed), 'ABCD', method, max_weight=most, shrink=shrink)
    assert abs(math.fsum(w.tolist()) - 1) < 1e-12 and (w >= 0).all() and (w <= most).all()


@given(st.integers(0, 2**31), st.sampled_from(FREE), st.floats(0.3, 2))
@settings(max_examples=25)
def test_shorts_are_within_their_bounds_too(seed, method, most):
    w = weights_of(market(seed), 'ABCD', method, max_weight=most, long_only=False)
    assert abs(math.fsum(w.tolist()) - 1) < 1e-12 and (np.abs(w) <= most).all()


@given(st.integers(0, 2**31), st.sampled_from(list(METHODS)), st.permutations(range(4)))
@settings(max_examples=15)
def test_another_order_is_the_same_weights_bit_for_bit(seed, method, order):
    x = market(seed)
    assert weights_of(x[:, order], [NAMES[j] for j in order], method, max_weight=0.6).tobytes() == weights_of(x, NAMES[:4], method, max_weight=0.6)[list(order)].tobytes()


@given(st.integers(0, 2**31), st.sampled_from(['equal', 'risk-parity', 'hrp', 'min-variance', 'min-cvar']), st.floats(0.01, 100))
@settings(max_examples=15)
def test_another_unit_is_the_same_weights(seed, method, scale):
    x = market(seed)
    assert weights_of(x * scale, 'ABCD', method) == pytest.approx(weights_of(x, 'ABCD', method), abs=2e-3)
    assert weights_of(x * 8, 'ABCD', method).tobytes() == weights_of(x, 'ABCD', method).tobytes()


@pytest.mark.parametrize('method', METHODS)
def test_the_same_rows_elsewhere_in_memory_are_the_same_bits(method):
    x = past()[:400]
    once = weights_of(x, NAMES, method, max_weight=0.4)
    for shift in (1, 3, 5):
        room = np.empty(x.size + 8)
        other = room[shift:shift + x.size].reshape(x.shape)
        other[:] = x
        assert weights_of(other, NAMES, method, max_weight=0.4).tobytes() == once.tobytes()
    assert weights_of(np.asfortranarray(x), NAMES, method, max_weight=0.4).tobytes() == once.tobytes()


@given(st.integers(0, 2**31))
@settings(max_examples=12)
def test_least_variance_is_the_closed_form_when_nothing_binds(seed):
    x = market(seed)
    exact = np.linalg.solve(np.cov(x.T), np.ones(4))
    exact /= exact.sum()
    w = weights_of(x, 'ABCD', 'min-variance', long_only=False, max_weight=10.0, l2=0.0)
    assert w == pytest.approx(exact, abs=2e-4)
    assert w @ np.cov(x.T) @ w <= exact @ np.cov(x.T) @ exact * (1 + 1e-6)


@given(st.integers(0, 2**31))
@settings(max_examples=8)
def test_no_other_weights_do_better(seed):
    x, rng = market(seed), np.random.default_rng(seed)
    def cvar(w): return -np.sort(x @ w)[:3].mean()      # 5 % of 60 rows are three
    def utility(w): return (x @ w).mean() - 2 * (x @ w).var(ddof=1)
    others = rng.dirichlet(np.full(4, 0.5), 400)
    calm = (x @ weights_of(x, 'ABCD', 'min-variance', l2=0.0)).var()
    assert all((x @ o).var() >= calm * (1 - 1e-6) for o in others)
    least = cvar(weights_of(x, 'ABCD', 'min-cvar', l2=0.0))
    assert all(cvar(o) >= least - 1e-6 for o in others)
    best = utility(weights_of(x, 'ABCD', 'mean-variance', risk_aversion=4.0, l2=0.0))
    assert all(utility(o) <= best + 1e-7 for o in others)


@given(st.integers(0, 2**31))
@settings(max_examples=8)
def test_risk_parity_contributions_are_equal(seed):
    x = market(seed)
    w = weights_of(x, 'ABCD', 'risk-parity')
    parts = w * (np.cov(x.T) @ w)
    assert parts / parts.sum() == pytest.approx(0.25, abs=2e-3)


def test_more_aversion_is_less_risk_and_more_ridge_is_more_even():
    risk = [(past() @ weights_of(past(), NAMES, 'mean-variance', risk_aversion=a)).std() for a in (0.5, 4, 50)]
    most = [weights_of(past(), NAMES, 'min-variance', l2=ridge).max() for ridge in (0, 0.3, 1000)]
    assert risk[0] > risk[1] > risk[2] and most[0] > most[1] > most[2] and most[2] == pytest.approx(1 / 7, abs=1e-3)


@pytest.mark.parametrize('method', CONVEX)
def test_costs_keep_what_is_held(method):
    held = np.full(7, 1 / 7)
    traded = [float(np.abs(weights_of(past(), NAMES, method, previous=held, cost_bps=b) - held).sum()) for b in (0, 20, 200, 9000)]
    assert all(a >= b - 1e-3 for a, b in zip(traded, traded[1:])) and traded[0] > 0.5 and traded[-1] < 1e-6
    there = weights_of(past(), NAMES, method)
    assert np.abs(weights_of(past(), NAMES, method, previous=there, cost_bps=50) - there).sum() < 1e-2


def test_costs_come_in_any_order_too():
    held, order = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05]), [3, 1, 6, 0, 2, 5, 4]
    a = weights_of(past(), NAMES, 'min-variance', previous=held, cost_bps=10)
    b = weights_of(past()[:, order], [NAMES[j] for j in order], 'min-variance', previous=held[order], cost_bps=10)
    assert b.tobytes() == a[order].tobytes()


@given(st.integers(0, 2**31), st.sampled_from([2.0, 30.0, 200.0]))
@settings(max_examples=8)
def test_with_costs_no_other_weights_do_better(seed, bps):
    x, rng = market(seed), np.random.default_rng(seed)
    held = rng.dirichlet(np.ones(4))
    def cost(w): return bps / 1e4 / 21 * np.abs(w - held).sum()
    goals = {'mean-variance': lambda w: (x @ w).mean() - 2 * (x @ w).var(ddof=1) - cost(w), 'min-variance': lambda w: -2 * (x @ w).var(ddof=1) - cost(w), 'min-cvar': lambda w: 4 * np.sort(x @ w)[:3].mean() - cost(w)}
    others = [*rng.dirichlet(np.full(4, 0.5), 200), held, *(0.9 * held + 0.1 * o for o in rng.dirichlet(np.ones(4), 100))]
    for method, goal in goals.items():
        best = goal(weights_of(x, 'ABCD', method, l2=0.0, previous=held, cost_bps=bps))
        assert all(goal(o) <= best + 2e-7 for o in others), method


@pytest.mark.parametrize('method', METHODS)
def test_singular_is_answered(method):
    rng = np.random.default_rng(2)
    wide = rng.normal(0, 0.01, (30, 50))
    twins = np.column_stack([wide[:, 0], wide[:, 0], wide[:, 1], wide[:, 2]])
    for x in (wide, twins):
        w = weights_of(x, [f's{j}' for j in range(x.shape[1])], method)
        assert np.isfinite(w).all() and (w >= 0).all() and abs(math.fsum(w.tolist()) - 1) < 1e-12
    assert method == 'mean-variance' or w[0] == pytest.approx(w[1], abs=5e-3)


@pytest.mark.parametrize('method', METHODS)
def test_one_instrument_is_held_whole(method): assert weights_of(past()[:, :1], ['BAC'], method).tolist() == [1.0]


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 2))
def test_the_nearest_whole_weights(raw, low_part, room):
    n = len(raw)
    low, high = low_part / n, (1 + room) / n
    w = fit(np.array(raw), low, high)
    assert abs(math.fsum(w.tolist()) - 1) < 1e-12 and (w >= low).all() and (w <= high).all()
    free = (w > low + 1e-9) & (w < high - 1e-9)      # one shift for all that are not at a bound, and those at a bound were beyond it
    if free.any():
        shift = (w - raw)[free]
        assert np.ptp(shift) < 1e-9
        assert (np.array(raw)[w <= low + 1e-12] + shift[0] <= low + 1e-9).all() and (np.array(raw)[w >= high - 1e-12] + shift[0] >= high - 1e-9).all()


def spoiled(j: int, value: float) -> np.ndarray:
    x = past().copy()
    x[9, j] = value
    return x


def still(j: int, value: float) -> np.ndarray:
    x = past().copy()
    x[:, j] = value
    return x


@pytest.mark.parametrize('call, says', [
    (lambda: weights_of(spoiled(2, math.nan), NAMES), 'JNJ: returns: expected a finite number in every row, found 1 of'), (lambda: weights_of(spoiled(2, math.inf), NAMES), 'JNJ: returns'),
    (lambda: weights_of(still(3, 0.0), NAMES), 'KO: returns: expected a price that moves'), (lambda: weights_of(still(3, 0.01), NAMES), 'KO: returns'),
    (lambda: weights_of(past()[:19], NAMES), '20 rows or more, found 19'), (lambda: weights_of(past(), NAMES[:3]), '(T, 3)'), (lambda: weights_of(past()[:, :0], ()), 'returns'), (lambda: weights_of(past()[:, 0], ['BAC']), 'returns'),
    (lambda: weights_of(past(), NAMES, 'magic'), 'method: expected equal'), (lambda: weights_of(past(), NAMES, max_weight=0.1), '7 weights that can sum to one'), (lambda: weights_of(past(), NAMES, min_weight=0.2), '7 weights'),
    (lambda: weights_of(past(), NAMES, min_weight=-0.1), 'without shorts'), (lambda: weights_of(past(), NAMES, max_weight=math.nan), 'bounds of a weight'), (lambda: weights_of(past(), NAMES, 'hrp', long_only=False), 'hrp with shorts'),
    (lambda: weights_of(past(), NAMES, l2=-1), 'l2'), (lambda: weights_of(past(), NAMES, risk_aversion=0), 'risk aversion'), (lambda: weights_of(past(), NAMES, beta=1.0), 'beta'), (lambda: weights_of(past(), NAMES, hold=0), 'hold'),
    (lambda: weights_of(past(), NAMES, cost_bps=-1), 'cost_bps'), (lambda: weights_of(past(), NAMES, previous=np.ones(2), cost_bps=1), 'previous weights'), (lambda: weights_of(past(), NAMES, previous=np.full(7, math.nan), cost_bps=1), 'previous weights')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
