"""What each strategy promises of its weights, beside causality."""
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from gekko.data.bars import Bars
from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR, MINUTE, utc
from gekko.portfolio.covariance import forecast_vol

Load = Callable[..., SimpleNamespace]
REFERENCE = reference_bars(['SP500', 'NASDAQ', 'WTI'])


def market(close: np.ndarray, step: int = DAY) -> Bars:
    start = utc('2020-01-01') + step * np.arange(len(close), dtype=np.int64)
    return Bars(tuple('ABCDE'[:close.shape[1]]), start, start + step, close, close, close, close, np.ones_like(close))


def drift(per_bar: float, rows: int = 600, seed: int = 3) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(per_bar, 0.01, (rows, 1)), axis=0))


@pytest.mark.parametrize('target', [0.05, 0.10, 0.25])
def test_trend_forecasts_its_target_and_no_more(target: float, load: Load) -> None:
    s = load('trend', target_vol=target, max_weight=100.0, max_gross=100.0)
    w, (_, cov) = s.weights(REFERENCE), s.risk(REFERENCE)
    held = np.isfinite(w).all(axis=1)
    vol = forecast_vol(w[held], cov[held])
    assert vol.max() <= target * (1 + 1e-9) and np.median(vol) > 0.95 * target


def test_trend_keeps_within_its_caps(load: Load) -> None:
    s = load('trend', target_vol=0.5, max_weight=0.4, max_gross=0.9)
    w = s.weights(REFERENCE)
    w = w[np.isfinite(w).all(axis=1)]
    assert np.abs(w).max() == pytest.approx(0.4) and np.abs(w).sum(axis=1).max() <= 0.9 + 1e-12


def test_trend_follows_the_trend(load: Load) -> None:
    up, down = market(drift(0.002)), market(drift(-0.002))
    assert load('trend').weights(up)[-1, 0] > 0.1 and load('trend').weights(down)[-1, 0] < -0.1
    assert load('trend', short=False).weights(down)[-1, 0] == 0


def test_trend_halves_its_position_when_volatility_doubles(load: Load) -> None:
    calm = drift(0.002)
    wild = 100 * (calm / 100) ** 2     # twice every logarithmic return
    s = load('trend', max_weight=100.0, max_gross=100.0)
    assert s.weights(market(wild))[-1, 0] == pytest.approx(s.weights(market(calm))[-1, 0] / 2)


def test_trend_sizes_by_clock_time_and_not_by_bars(load: Load) -> None:
    """The same returns in a quarter of the time are twice the annual volatility."""
    s = load('trend', every='1s', max_weight=100.0, max_gross=100.0)
    days, quarters = s.weights(market(drift(0.002)))[-1, 0], s.weights(market(drift(0.002), DAY // 4))[-1, 0]
    assert quarters == pytest.approx(days / 2)


def test_decisions_are_made_once_a_period(load: Load) -> None:
    s = load('trend', lookback=64)
    w = s.weights(market(drift(0.001, 900), MINUTE))
    decided = np.flatnonzero(np.isfinite(w[:, 0]))
    assert len(decided) > 10 and (np.diff(decided) == HOUR // MINUTE).all()


def test_a_symbol_without_a_bar_is_left_alone(load: Load) -> None:
    w = load('trend').weights(REFERENCE)
    assert np.isnan(w[np.isnan(REFERENCE.close)]).all() and np.isnan(REFERENCE.close[3300:]).any()


def pair(rows: int = 1500, beta: float = 0.8) -> np.ndarray:
    rng = np.random.default_rng(9)
    x = 4 + np.cumsum(rng.normal(0, 0.01, rows))
    gap = np.zeros(rows)
    for t in range(1, rows): gap[t] = 0.95 * gap[t - 1] + rng.normal(0, 0.004)
    return np.exp(np.stack([0.5 + beta * x + gap, x], axis=1))


def test_pairs_is_hedged_with_the_filtered_ratio(load: Load) -> None:
    s = load('pairs')
    bars = market(pair())
    w, beta = s.weights(bars), s.line(bars.close).beta
    on = np.isfinite(w).all(axis=1) & (w[:, 0] != 0)
    assert on.sum() > 50
    assert w[on, 1] == pytest.approx(-beta[on] * w[on, 0])
    assert np.abs(w[on, 0]).max() > 0.3 and 0.6 < np.median(beta[on]) < 1.0


def test_pairs_buys_what_fell_behind(load: Load) -> None:
    close = pair()
    close[-1, 0] *= 0.97
    assert load('pairs').weights(market(close))[-1, 0] > 0 > load('pairs').weights(market(close))[-1, 1]
    close[-1, 0] *= 1.06
    assert load('pairs').weights(market(close))[-1, 0] < 0


def test_pairs_adds_nothing_beyond_full(load: Load) -> None:
    s = load('pairs')
    assert s.lean(np.array([-9.0, -2.0, -1.5, -1.0, 0.0, 1.0, 1.5, 2.0, 9.0])).tolist() == [1, 1, 0.5, 0, 0, 0, -0.5, -1, -1]


def test_pairs_lets_go_of_what_is_no_pair(load: Load) -> None:
    rng = np.random.default_rng(4)
    apart = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (1500, 1)), axis=0))
    against = np.concatenate([apart, 1e4 / apart * np.exp(rng.normal(0, 0.001, apart.shape))], axis=1)   # one rises when the other falls
    w = load('pairs').weights(market(against))
    assert (w[np.isfinite(w)] == 0).all() and np.isfinite(w).any()


def test_pairs_refuses_what_is_not_two(cells: Callable[[str], list[tuple[str, bool]]]) -> None:
    code = next(source for source, _ in cells('pairs') if 'symbols of a pair' in source)
    with pytest.raises(BadInput, match='symbols of a pair: expected two, found 3'): exec(code, {'symbols': ['A', 'B', 'C'], 'entry': 1.0, 'full': 2.0})
    with pytest.raises(BadInput, match='0 <= entry < full'): exec(code, {'symbols': ['A', 'B'], 'entry': 2.0, 'full': 2.0})


SHARES = reference_bars(['BAC', 'JNJ', 'KO', 'MSFT', 'WMT', 'XOM']).between(utc('2010-01-01'), utc('2014-01-01'))


@pytest.mark.parametrize('method', ['equal', 'risk-parity', 'hrp', 'min-variance', 'min-cvar', 'mean-variance'])
def test_allocation_is_within_its_bounds_and_leaves_its_buffer(method: str, load: Load) -> None:
    w = load('allocation', method=method, train=252, max_weight=0.3, buffer=0.05).weights(SHARES)
    held = w[np.isfinite(w).all(axis=1)]
    assert len(held) > 8 and (held >= 0).all() and (held <= 0.3 * 0.95 + 1e-6).all()
    assert held.sum(axis=1) == pytest.approx(0.95, abs=1e-5)
    assert method != 'equal' or held == pytest.approx(0.95 / 6, abs=1e-5)


def test_allocation_decides_on_the_first_session_of_a_quarter(load: Load) -> None:
    w = load('allocation', train=252).weights(SHARES)
    days = (SHARES.end[np.isfinite(w[:, 0])] - 1).astype('datetime64[ns]').astype('datetime64[D]')
    assert str(days[0]) == '2011-01-03' and str(days[1]) == '2011-04-01'
    assert {int(str(d)[5:7]) for d in days} == {1, 4, 7, 10} and all(str(d)[8:] in ('01', '02', '03', '04') for d in days)


def test_allocation_is_the_same_in_another_process_bit_for_bit(load: Load) -> None:
    """Nothing that one notebook has solved is known to the other."""
    one, other = (load('allocation', train=252, max_weight=0.4) for _ in range(2))
    assert one.weights(SHARES).tobytes() == other.weights(SHARES).tobytes() and one.solved is not other.solved


def test_allocation_leaves_a_share_without_a_bar_alone(load: Load) -> None:
    close = SHARES.close.copy()
    day = int(np.flatnonzero(SHARES.end == utc('2012-04-03'))[0])
    close[day, 2] = np.nan
    w = load('allocation', train=252, max_weight=0.4).weights(Bars(SHARES.symbols, SHARES.start, SHARES.end, close, close, close, close, SHARES.volume))[day]
    assert np.isnan(w[2]) and np.isfinite(np.delete(w, 2)).all()


def test_allocation_refuses_a_method_it_does_not_know(cells: Callable[[str], list[tuple[str, bool]]]) -> None:
    code = next(source for source, _ in cells('allocation') if 'unknown :=' in source)
    with pytest.raises(BadInput, match='method: expected equal .* found best'): exec(code, {'method': 'best', 'compare': ['equal']})
