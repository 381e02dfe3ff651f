"""Signals: bounded, causal to the bit, scaled by chance, and silent when there is nothing to see."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from gekko.domain.errors import BadInput
from gekko.portfolio.signal import blend, breakout_score, conviction, crossover_scale, crossover_z, long_only, momentum_z, signals, trend_score

LOOKBACKS = (4, 9, 17)
ROWS = max(LOOKBACKS) + 1
closes = arrays(np.float64, st.tuples(st.integers(ROWS, 60), st.integers(1, 9)), elements=st.floats(0.01, 1e5) | st.just(math.nan))


@given(closes, st.data())
def test_a_trailing_window_ends_in_the_same_bits(close, data):
    t = data.draw(st.integers(ROWS, len(close)))
    n = data.draw(st.integers(ROWS, t))
    window = close[t - n:t]
    assert trend_score(window, LOOKBACKS)[-1].tobytes() == trend_score(close, LOOKBACKS)[t - 1].tobytes()
    assert breakout_score(window * 1.01, window, window, LOOKBACKS)[-1].tobytes() == breakout_score(close * 1.01, close, close, LOOKBACKS)[t - 1].tobytes()


@given(closes, st.data())
def test_the_future_does_not_matter(close, data):
    t = data.draw(st.integers(1, len(close)))
    other = close.copy()
    other[t:] = data.draw(st.sampled_from([math.nan, 1e-3, 1e9]))
    assert trend_score(other, LOOKBACKS)[:t].tobytes() == trend_score(close, LOOKBACKS)[:t].tobytes()


@given(closes)
def test_a_score_is_a_score(close):
    s = trend_score(close, LOOKBACKS)
    assert s.shape == close.shape and (np.abs(s[~np.isnan(s)]) <= 1).all() and np.isnan(s[:ROWS - 1]).all()
    assert ((long_only(s) >= 0) | np.isnan(s)).all()


@given(closes, st.sampled_from([2.0, 0.25, 1024.0]))
def test_the_unit_of_a_price_does_not_matter(close, k):
    assert trend_score(close * k, LOOKBACKS).tobytes() == trend_score(close, LOOKBACKS).tobytes()    # a power of two changes no digit


def test_up_is_plus_down_is_minus_and_still_is_silent():
    t = np.arange(200.0)
    wobble = 1 + 0.001 * np.where(t % 2, 1, -1)
    up, down = trend_score(100 * 1.01 ** t * wobble), trend_score(100 * 0.99 ** t * wobble)
    assert up[-1] == 1.0 and down[-1] == -1.0
    assert np.isnan(trend_score(np.full(200, 100.0))).all()


@pytest.mark.parametrize('fast, slow', [(1, 2), (5, 20), (16, 64), (60, 240)])
def test_the_scale_of_two_averages_is_that_of_a_random_walk(fast, slow):
    steps = np.eye(slow)    # the response to each step by itself: the walk's averages are linear in them
    walk = steps.cumsum(axis=0)
    response = walk[-fast:].mean(axis=0) - walk.mean(axis=0)
    assert math.isclose(crossover_scale(fast, slow), math.sqrt((response ** 2).sum()), rel_tol=1e-12)


def test_on_prices_without_direction_scores_are_standard_deviations():
    rng = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(rng.standard_normal((400, 2_000)) * 0.01, axis=0))
    for z in (momentum_z(close, 60)[-1], crossover_z(close, 15, 60)[-1]):
        assert abs(z.mean()) < 0.12 and 0.9 < z.std() < 1.1


def test_a_blend_adds_in_order_and_knows_nothing_when_one_part_does():
    a, b, c = np.array([0.1, 1.0]), np.array([0.2, math.nan]), np.array([0.3, 1.0])
    assert blend([a, b, c], [1, 1, 2])[0] == ((0.1 + 0.2) + 0.3 * 2) / 4 and math.isnan(blend([a, b, c])[1])
    assert math.isnan(blend([a, b, c], [1, 0, 1])[1])


@pytest.mark.parametrize('call, says', [
    (lambda: trend_score(np.ones(9), ()), 'lookbacks'), (lambda: trend_score(np.ones(9), (3,)), 'lookbacks'), (lambda: breakout_score(np.ones(9), np.ones(9), np.ones(9), ()), 'lookbacks'),
    (lambda: crossover_z(np.ones(9), 5, 5), 'fast < slow'), (lambda: crossover_z(np.ones(9), 0, 5), 'fast < slow'), (lambda: conviction(np.ones(2), -1), 'above zero'),
    (lambda: blend([]), 'weights of a blend'), (lambda: blend([np.ones(2)], [-1.0]), 'weights of a blend'), (lambda: blend([np.ones(2)], [math.inf]), 'weights of a blend'),
    (lambda: blend([np.ones(2), np.ones(3)]), 'one shape'), (lambda: signals(('A',), 0, np.ones(2)), 'a row of scores'), (lambda: signals(('A',), 0, np.array([2.0])), 'A: score')])
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)


def test_a_row_becomes_signals_and_silence_is_left_out():
    assert [(s.symbol, s.ts, s.score) for s in signals(('A', 'B', 'C'), 5, np.array([0.5, math.nan, -1.0]))] == [('A', 5, 0.5), ('C', 5, -1.0)]
