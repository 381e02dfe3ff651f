"""Every strategy that is shipped: row t of its weights is the same to the last bit whatever comes after it, and from its trailing window alone."""
from collections.abc import Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gekko.data.bars import Bars, BarWindow
from gekko.data.reference import reference_bars
from gekko.domain.time import MINUTE, utc

Load = Callable[..., SimpleNamespace]


@lru_cache
def daily(*symbols: str) -> Bars:
    return reference_bars(symbols)


@lru_cache
def minutes(n: int, rows: int = 3000, seed: int = 0) -> Bars:
    """Minute bars of a random market with a night, a missing stretch, and symbols that sometimes have no bar."""
    rng = np.random.default_rng(seed)
    start = utc('2022-01-03') + MINUTE * np.arange(rows, dtype=np.int64)
    start[rows // 3:] += 14 * 60 * MINUTE
    start[rows // 2:] += 37 * MINUTE
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, (rows, n)), axis=0))
    close[rng.random((rows, n)) < 0.01] = np.nan
    volume = np.where(np.isnan(close), 0.0, 1.0)
    return Bars(tuple('ABC'[:n]), start, start + MINUTE, close, close, close, close, volume)


@lru_cache
def shares(holes: bool) -> Bars:
    """Six shares over three years; with holes, some days on which one of them has no bar."""
    bars = daily('BAC', 'JNJ', 'KO', 'MSFT', 'WMT', 'XOM').between(utc('2010-01-01'), utc('2013-01-01'))
    if not holes: return bars
    lost = np.random.default_rng(5).random(bars.close.shape) < 0.01
    lost[np.flatnonzero(bars.end == utc('2012-04-03'))] = [[True, False, False, False, False, False]]
    prices = [np.where(lost, np.nan, x) for x in (bars.open, bars.high, bars.low, bars.close)]
    return Bars(bars.symbols, bars.start, bars.end, *prices, np.where(lost, 0.0, bars.volume))


CASES: list[Any] = [
    pytest.param('trend', {}, daily('SP500', 'NASDAQ', 'WTI'), id='trend'),
    pytest.param('trend', {'symbols': ['KO'], 'short': False}, daily('KO'), id='trend, one share, long only'),
    pytest.param('trend', {'lookback': 100, 'half_life': 10.0}, minutes(1), id='trend, minutes'),
    pytest.param('trend', {'every': '1m'}, minutes(3), id='trend, every minute, with gaps'),
    pytest.param('pairs', {}, daily('KO', 'PEP'), id='pairs'),
    pytest.param('pairs', {'symbols': ['CVX', 'XOM'], 'memory': 300, 'half_life': 64.0}, daily('CVX', 'XOM'), id='pairs, other shares'),
    pytest.param('pairs', {'memory': 200, 'half_life': 50.0, 'every': '5m', 'min_hedge': -9.0, 'max_hedge': 9.0}, minutes(2), id='pairs, minutes with gaps'),
    pytest.param('first', {}, daily('SP500'), id='first'),
    pytest.param('allocation', {'train': 252, 'months': 1, 'max_weight': 0.4}, shares(False), id='allocation, every month'),
    pytest.param('allocation', {'train': 100, 'method': 'hrp', 'max_weight': 0.5}, shares(True), id='allocation, with holes'),
]


def some_rows(bars: Bars, window: int, n: int = 25) -> list[int]:
    """Rows near the start, where the window is not full yet, and all over the rest."""
    rng = np.random.default_rng(1)
    return sorted({0, 1, window - 2, window - 1, window, len(bars) - 1, *rng.integers(0, len(bars), n).tolist()})


def same(a: Any, b: Any) -> bool:
    """Equal in every bit; NaN is NaN."""
    return np.asarray(a).tobytes() == np.asarray(b).tobytes() or np.array_equal(a, b, equal_nan=True)


def window_of(s: SimpleNamespace) -> int:
    return int(s.window)


@pytest.mark.parametrize(('name', 'parameters', 'bars'), CASES)
def test_a_row_is_the_same_without_the_future(name: str, parameters: dict[str, Any], bars: Bars, load: Load) -> None:
    s = load(name, **parameters)
    full = s.weights(bars)
    assert full.shape == (len(bars), len(bars.symbols))
    for t in some_rows(bars, window_of(s)): assert same(s.weights(bars.rows(0, t + 1)), full[:t + 1]), f'row {t} or one before it'


@pytest.mark.parametrize(('name', 'parameters', 'bars'), CASES)
def test_a_row_is_the_same_from_its_window(name: str, parameters: dict[str, Any], bars: Bars, load: Load) -> None:
    s = load(name, **parameters)
    w, full = window_of(s), s.weights(bars)
    for t in some_rows(bars, w): assert same(s.weights(bars.rows(max(t + 1 - w, 0), t + 1))[-1], full[t]), f'row {t}'


@pytest.mark.parametrize(('name', 'parameters', 'bars'), CASES)
def test_a_row_is_the_same_from_a_live_window(name: str, parameters: dict[str, Any], bars: Bars, load: Load) -> None:
    """As a job has it: a buffer that grows row by row, so that its arrays lie elsewhere in memory at every row."""
    s = load(name, **parameters)
    full, live = s.weights(bars), BarWindow(bars.symbols, window_of(s))
    for t in range(min(len(bars), window_of(s) + 120)):
        live.append(bars.rows(t, t + 1))
        if t % 41 == 0 or t > window_of(s) + 100: assert same(s.weights(live.bars)[-1], full[t]), f'row {t}'


@pytest.mark.parametrize(('name', 'parameters', 'bars'), CASES)
def test_a_poisoned_future_changes_nothing(name: str, parameters: dict[str, Any], bars: Bars, load: Load) -> None:
    s = load(name, **parameters)
    cut = len(bars) * 2 // 3
    poison = [np.where(np.arange(len(bars))[:, None] < cut, x, 1e6 * (1 + np.arange(len(bars))[:, None] % 7)) for x in (bars.open, bars.high, bars.low, bars.close, bars.volume)]
    assert same(s.weights(Bars(bars.symbols, bars.start, bars.end, *poison))[:cut], s.weights(bars)[:cut])


@pytest.mark.parametrize(('name', 'parameters', 'bars'), CASES)
def test_something_is_wanted(name: str, parameters: dict[str, Any], bars: Bars, load: Load) -> None:
    """The tests above would also pass for a strategy that never trades."""
    w = load(name, **parameters).weights(bars)
    assert np.nanmax(np.abs(w)) > 0.01 and len(np.unique(w[np.isfinite(w)])) > 1


def test_the_tests_would_notice() -> None:
    """A mean over everything so far, and a running sum, are both caught."""
    bars = daily('KO')
    ahead = bars.close > bars.close.mean(axis=0)
    assert not all(same((x := bars.rows(0, t + 1)).close[-1] > x.close.mean(axis=0), ahead[t]) for t in some_rows(bars, 200))
    running = np.cumsum(bars.close, axis=0)
    assert not all(same((c := np.cumsum(bars.close[t - 199:t + 1], axis=0))[-1] - c[0], running[t] - running[t - 199]) for t in range(200, len(bars), 97))
