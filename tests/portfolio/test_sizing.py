"""Sizing: risk shared, caps kept, NaN left alone, and each row the same bits alone as among the others."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from gekko.domain.errors import BadInput
from gekko.portfolio.sizing import cap_weights, risk_share, row_sum, scale_gross, vol_target

shapes = st.tuples(st.integers(1, 12), st.integers(1, 20))
scores = st.floats(-1, 1) | st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan])
vols = st.floats(1e-6, 5) | st.sampled_from([0.0, -1.0, math.nan, math.inf])
settings = dict(target_vol=0.1, max_weight=0.8, max_gross=1.7)


@st.composite
def tables(draw):
    shape = draw(shapes)
    return draw(arrays(np.float64, shape, elements=scores)), draw(arrays(np.float64, shape, elements=vols))


@given(tables(), st.sampled_from([0.0, 0.3, 1.0]))
def test_a_row_alone_is_the_same_row_bit_for_bit(table, c):
    score, vol = table
    whole = vol_target(score, vol, **settings, correlation=c)
    for t in range(len(score)):
        assert vol_target(score[t], vol[t], **settings, correlation=c).tobytes() == whole[t].tobytes()
        assert vol_target(score[:t + 1], vol[:t + 1], **settings, correlation=c)[-1].tobytes() == whole[t].tobytes()
    assert vol_target(np.asfortranarray(score), vol[::-1][::-1], **settings, correlation=c).tobytes() == whole.tobytes()


@given(tables())
def test_caps_hold_and_nan_means_leave_it(table):
    score, vol = table
    w = vol_target(score, vol, **settings)
    sizable = (vol > 0) & np.isfinite(vol)
    assert (np.isnan(w) == (np.isnan(score) | (~sizable & (score != 0)))).all()
    assert (np.nan_to_num(np.abs(w)) <= 0.8).all() and (np.nansum(np.abs(w), axis=1) <= 1.7 * (1 + 1e-12)).all()
    known = ~np.isnan(w)
    assert (w[known] * score[known] >= 0).all() and (w[known & (score == 0)] == 0).all()


@given(tables())
def test_uncapped_the_book_is_at_its_target_when_everything_moves_together(table):
    score, vol = table
    w = vol_target(np.where(np.isnan(score), np.nan, 1.0), vol, 0.1, max_weight=1e9, max_gross=1e9)
    risk = np.nansum(w * np.where(np.isfinite(vol), vol, 0.0), axis=1)
    assert (np.isclose(risk, 0.1, rtol=1e-12) | np.isnan(w).all(axis=1)).all()


def test_capped_first_and_scaled_after():
    w = vol_target(np.array([1.0, 1.0]), np.array([0.01, 0.1]), 0.1, max_weight=1.0, max_gross=1.2)
    assert w.tolist() == [1.0 * (1.2 / 1.5), 0.5 * (1.2 / 1.5)]


@pytest.mark.parametrize('n, c', [(1, 0.0), (4, 0.0), (4, 1.0), (7, 0.35)])
def test_the_share_is_the_one_of_equally_correlated_risks(n, c):
    cov = np.full((n, n), c) + (1 - c) * np.eye(n)
    share = np.full(n, float(risk_share(np.array(float(n)), c)))
    assert math.isclose(math.sqrt(share @ cov @ share), 1.0, rel_tol=1e-12)
    assert float(risk_share(np.array(0.0))) == 0.0


@given(arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 40)), elements=st.floats(-1e9, 1e9) | st.just(math.nan)))
def test_a_row_is_added_left_to_right(x):
    for got, row in zip(row_sum(x), x):
        total = 0.0
        for v in row: total += 0.0 if math.isnan(v) else float(v)
        assert got == total


@given(arrays(np.float64, shapes, elements=st.floats(-4, 4) | st.just(math.nan)))
def test_scaling_leaves_rows_that_fit_and_keeps_proportions(w):
    out = scale_gross(w, 2.0)
    for a, b in zip(w, out):
        if np.nansum(np.abs(a)) <= 2.0 - 1e-9: assert a.tobytes() == b.tobytes()
        else: assert np.nansum(np.abs(b)) <= 2.0 * (1 + 1e-12) and (np.isnan(a) == np.isnan(b)).all()
    assert (np.nan_to_num(np.abs(cap_weights(w, 1.5))) <= 1.5).all()


@pytest.mark.parametrize('call, says', [
    (lambda: vol_target(np.array([1.5]), np.array([0.1]), 0.1), 'score: expected within -1 and 1'), (lambda: vol_target(np.zeros(2), np.zeros(3), 0.1), 'one shape'),
    (lambda: vol_target(np.zeros((2, 2)), np.zeros(2), 0.1), 'one shape'), (lambda: vol_target(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), 0.1), '(N,) or (T, N)'),
    (lambda: vol_target(np.zeros(1), np.ones(1), 0.0), 'target_vol'), (lambda: vol_target(np.zeros(1), np.ones(1), math.nan), 'target_vol'),
    (lambda: vol_target(np.zeros(1), np.ones(1), 0.1, max_weight=0), 'max_weight'), (lambda: vol_target(np.zeros(1), np.ones(1), 0.1, max_gross=math.inf), 'max_gross'),
    (lambda: vol_target(np.zeros(1), np.ones(1), 0.1, correlation=-0.1), 'average correlation')])
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
