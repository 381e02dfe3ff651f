"""Features: the window's last row is the whole frame's row to the bit, and the numbers are right."""
from __future__ import annotations
import math
from collections.abc import Callable
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from gekko.data.bars import Floats
from gekko.data.features import atr, breakout, ewm_mean, ewm_vol, ffill, log_returns, momentum, rolling_max, rolling_mean, rolling_min, rolling_std, simple_returns, zscore
from gekko.domain.errors import BadInput

Feature = Callable[[Floats, int], Floats]
# each with the rows it says it looks back, for a length n
FEATURES: dict[str, tuple[Feature, Callable[[int], int]]] = {
    'log_returns': (lambda x, n: log_returns(x), lambda n: 2),
    'simple_returns': (lambda x, n: simple_returns(x), lambda n: 2),
    'rolling_mean': (rolling_mean, lambda n: n),
    'rolling_std': (lambda x, n: rolling_std(x, n + 1), lambda n: n + 1),
    'rolling_max': (rolling_max, lambda n: n),
    'rolling_min': (rolling_min, lambda n: n),
    'ewm_mean': (lambda x, n: ewm_mean(x, n / 2 + 1, n), lambda n: n),
    'ewm_vol': (lambda x, n: ewm_vol(x, n / 2 + 1, n, 252.0), lambda n: n),
    'momentum': (momentum, lambda n: n + 1),
    'zscore': (lambda x, n: zscore(x, n + 1), lambda n: n + 1),
    'breakout': (lambda x, n: breakout(x + 1.0, x - 1.0, x, n), lambda n: n),
    'atr': (lambda x, n: atr(x + 1.0, x - 1.0, x, n), lambda n: n + 1),
    'ffill': (ffill, lambda n: n + 1),
}
values = st.one_of(st.floats(-1e6, 1e6), st.floats(90, 110), st.sampled_from([0.0, -0.0, 1.0, float('nan'), 1e-300, 1e300]))
narrow = arrays(np.float64, st.integers(1, 70), elements=values)
wide = arrays(np.float64, st.tuples(st.integers(1, 70), st.integers(1, 5)), elements=values)
series = st.one_of(narrow, wide)


def bits(x: Floats) -> list[object]:
    "Every bit of every number; all NaN are one."
    x = np.asarray(x, dtype=np.float64)
    return np.where(np.isnan(x), np.int64(-1), x.view(np.int64) if x.ndim else np.array(x).view(np.int64)).tolist()


@pytest.mark.parametrize('name', FEATURES)
@settings(max_examples=80)
@given(x=series, n=st.integers(1, 33), data=st.data())
def test_a_trailing_window_gives_the_whole_frames_row(name: str, x: Floats, n: int, data: st.DataObject) -> None:
    f, lookback = FEATURES[name]
    t = data.draw(st.integers(0, len(x) - 1))
    rows = data.draw(st.integers(lookback(n), lookback(n) + 40))
    with np.errstate(all='ignore'): whole, window = f(x, n), f(x[max(0, t + 1 - rows):t + 1], n)
    assert whole.shape == x.shape
    assert bits(window[-1]) == bits(whole[t])


@pytest.mark.parametrize('name', FEATURES)
@settings(max_examples=30)
@given(x=series, n=st.integers(1, 20), data=st.data())
def test_the_future_changes_nothing_before_it(name: str, x: Floats, n: int, data: st.DataObject) -> None:
    f, _ = FEATURES[name]
    t = data.draw(st.integers(0, len(x)))
    y = x.copy()
    y[t:] = data.draw(values)
    with np.errstate(all='ignore'): assert bits(f(x, n)[:t]) == bits(f(y, n)[:t])


@pytest.mark.parametrize('name', FEATURES)
@settings(max_examples=30)
@given(x=wide, n=st.integers(1, 20))
def test_each_column_stands_alone_whatever_the_memory_layout(name: str, x: Floats, n: int) -> None:
    f, _ = FEATURES[name]
    with np.errstate(all='ignore'):
        whole = f(x, n)
        assert bits(f(np.asfortranarray(x), n)) == bits(whole)
        for j in range(x.shape[1]): assert bits(f(x[:, j], n)) == bits(whole[:, j])


@pytest.mark.parametrize('name', FEATURES)
@pytest.mark.parametrize('columns', [1, 3, 20])
def test_a_job_on_three_hundred_rows_decides_as_the_backtest(name: str, columns: int) -> None:
    f, _ = FEATURES[name]
    r = np.random.default_rng(columns)
    x = 100 * np.exp(np.cumsum(r.normal(0, 0.02, (2000, columns)), axis=0))
    x[r.random(x.shape) < 0.002] = np.nan
    whole = f(x, 100)
    assert np.isfinite(whole).mean() > 0.7
    for t in range(300, 2000, 37): assert bits(f(x[t - 299:t + 1], 100)[-1]) == bits(whole[t])


def brute(x: Floats, n: int, fn: Callable[[Floats], float]) -> Floats:
    out = np.full(len(x), np.nan)
    for t in range(n - 1, len(x)): out[t] = fn(x[t - n + 1:t + 1])
    return out


@pytest.mark.parametrize('n', [2, 3, 5, 8, 13, 50, 63, 100])
def test_against_the_definition_window_by_window(n: int) -> None:
    x = 100 * np.exp(np.cumsum(np.random.default_rng(n).normal(0, 0.02, 300)))
    x[[40, 41, 170]] = np.nan
    mean = brute(x, n, lambda w: math.fsum(w) / n)
    std = brute(x, n, lambda w: math.sqrt(math.fsum((w - math.fsum(w) / n)**2) / (n - 1)))
    weights = (1 - 2 / (n + 1.0))**np.arange(n)[::-1]
    ewm = brute(x, n, lambda w: math.fsum(w * weights) / math.fsum(weights))
    for found, expected in ((rolling_mean(x, n), mean), (rolling_std(x, n), std), (zscore(x, n), (x - mean) / std), (ewm_mean(x, float(n), n), ewm),
                            (rolling_max(x, n), brute(x, n, np.max)), (rolling_min(x, n), brute(x, n, np.min))):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(rolling_std(x, n), pd.Series(x).rolling(n).std(), rtol=1e-8)


def test_returns_by_hand() -> None:
    x = np.array([[100.0, 10.0], [110.0, np.nan], [99.0, 5.0]])
    np.testing.assert_allclose(simple_returns(x), [[np.nan, np.nan], [0.1, np.nan], [-0.1, np.nan]])
    np.testing.assert_allclose(log_returns(x), [[np.nan, np.nan], [math.log(1.1), np.nan], [math.log(0.9), np.nan]])
    np.testing.assert_allclose(momentum(x, 2), [[np.nan, np.nan], [np.nan, np.nan], [-0.01, -0.5]])


def test_volatility_by_hand() -> None:
    r = np.array([0.01, -0.02, 0.03])
    fade = 1 / 3   # span 2
    expected = math.sqrt(252 * (0.03**2 + fade * 0.02**2 + fade**2 * 0.01**2) / (1 + fade + fade**2))
    np.testing.assert_allclose(ewm_vol(r, 2, 3, 252.0), [np.nan, np.nan, expected])
    np.testing.assert_allclose(ewm_vol(np.full(9, -0.01), 4, 5, 365.0)[4:], 0.01 * math.sqrt(365))


def test_ranges_by_hand() -> None:
    h, l, c = np.array([[12.0, 15, 11, 12], [10.0, 12, 9, 12], [11.0, 14, 9, 12]])
    np.testing.assert_allclose(atr(h, l, c, 2), [np.nan, np.nan, 4.5, 4.0])
    np.testing.assert_allclose(breakout(h, l, c, 2), [np.nan, 0.6, -1.0, 1.0])


def test_a_point_has_no_place_in_its_range_and_no_score() -> None:
    flat = np.full(6, 0.1)
    assert np.isnan(breakout(flat, flat, flat, 3)).all()
    assert np.isnan(zscore(flat, 3)).all()


@given(st.floats(1e-6, 1e9), st.integers(2, 70))
def test_a_constant_has_no_spread_at_all(value: float, n: int) -> None:
    assert rolling_std(np.full(n + 3, value), n)[n - 1:].tolist() == [0.0] * 4


@given(st.lists(st.sampled_from([0.0, -0.0]), min_size=2, max_size=40))
def test_an_extreme_of_zeros_is_plus_zero(zeros: list[float]) -> None:
    for f in (rolling_max, rolling_min): assert not np.signbit(f(np.array(zeros), 2)[1:]).any()


def test_small_moves_on_a_high_price_survive() -> None:
    r = np.random.default_rng(3).normal(0, 1e-3, 500)
    np.testing.assert_allclose(rolling_std(1e6 + r, 50)[49:], rolling_std(r, 50)[49:], rtol=1e-5)


@given(arrays(np.float64, st.integers(1, 40), elements=st.sampled_from([1.0, 2.0, 3.0, float('nan')])), st.integers(1, 10))
def test_ffill_is_pandas_ffill(x: Floats, limit: int) -> None:
    np.testing.assert_array_equal(ffill(x, limit), pd.Series(x).ffill(limit=limit))


def test_inputs_are_left_alone() -> None:
    x = np.array([-0.0, 1.0, np.nan, 3.0])
    before = x.tobytes()
    x.flags.writeable = False
    for f, _ in FEATURES.values(): f(x, 2)
    assert x.tobytes() == before


@pytest.mark.parametrize(('call', 'says'), [
    (lambda x: rolling_mean(x, 0), '1 or more, found 0'),
    (lambda x: rolling_std(x, 1), '2 or more, found 1'),
    (lambda x: momentum(x, -3), 'found -3'),
    (lambda x: ewm_mean(x, 0.5, 3), '1 or more, found 0.5'),
    (lambda x: ewm_mean(x, float('nan'), 3), 'found nan'),
    (lambda x: ewm_vol(x, 3, 3, 0.0), 'above zero'),
    (lambda x: rolling_max(x[:, None, None], 2), r'found \(5, 1, 1\)'),
    (lambda x: ffill(x, 0), 'found 0'),
])
def test_bad_arguments_are_refused(call: Callable[[Floats], Floats], says: str) -> None:
    with pytest.raises(BadInput, match=says): call(np.arange(5.0))
