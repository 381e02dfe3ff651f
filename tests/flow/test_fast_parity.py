"""The compiled backtest and the desk's event path, side by side: the same orders, fills and refusals one by one, the same equity at every row."""
import json
import random
from collections.abc import Callable
from decimal import Decimal as D
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tree import ROOT

from gekko.data.bars import Bars, from_frames
from gekko.desk.result import Result
from gekko.desk.run import lay_out
from gekko.desk.spec import make_spec
from gekko.domain.instrument import Instrument
from gekko.research.columns import crosses
from gekko.research.fast import FastResult, backtest, fills_told

DAY = 86_400_000_000_000
NAMES = ('B', 'A', 'C')
TICKS = ('0.01', '0.5', '0.00001', '0.25', '0.003', '5')
LOTS = ('1', '0.001', '100', '0.00000001', '0.03')


def agree(bars: Bars, weights: Any, instruments: dict[str, Instrument], first: int = 0, **asked: Any) -> tuple[FastResult, Result]:
    quick, slow = (backtest(bars, weights, instruments=instruments, first=first, how=how, **asked) for how in ('fast', 'event'))
    a, b = quick.result(), slow.result()
    assert [x.tolist() for x in quick.fills] == [x.tolist() for x in fills_told(b, slow.asked)]
    assert a.equity == b.equity == quick.equity
    assert a.fills == b.fills
    assert a.orders == b.orders
    assert a.breaches == b.breaches
    assert (a.times == b.times).all() and np.array_equal(a.closes, b.closes, equal_nan=True)
    assert (a.lineage, a.data_version, a.exit_reason, a.fees) == (b.lineage, b.data_version, b.exit_reason, b.fees)
    assert np.array_equal(quick.worth, np.array([float(e) for e in b.equity]))
    return quick, b


def made(seed: int, rows: int, n: int, price: float, wild: float, holes: float, every_s: int) -> Bars:
    """Walks by chance: `wild` is the step as a share of the price, `holes` the share of bars that are missing, the first ones more often."""
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(wild * rng.standard_normal((rows, n)), axis=0))
    open_ = close * np.exp(wild / 3 * rng.standard_normal((rows, n)))
    gone = rng.random((rows, n)) < holes
    if holes: gone[: rows // 6] |= rng.random((rows // 6, n)) < 0.5
    gone[:, 0] &= ~gone.all(axis=1)
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    for x in (open_, high, low, close): x[gone] = np.nan
    step = every_s * 1_000_000_000
    end = 10 * DAY - 20 * step + step * np.arange(1, rows + 1)
    return Bars(NAMES[:n], end - step, end, open_, high, low, close, np.where(gone, 0.0, 100.0))


def run_of(pick: Callable[[list[Any]], Any], whole: Callable[[int, int], int]) -> dict[str, Any]:
    """A run by chance: whoever draws gives `pick` one of several and `whole` a number between two."""
    n, rows, seed, price = whole(1, 3), whole(2, 160), whole(0, 10**6), pick([0.7, 20.0, 1234.5, 40_000.0])
    bars = made(seed, rows, n, price, pick([0.0005, 0.01, 0.2]), pick([0.0, 0.1, 0.6]), pick([1, 15, 60, 3600]))
    rng = np.random.default_rng(seed + 1)
    weights = np.round(rng.normal(0, pick([0.3, 1.0, 2.5]), (rows, n)), pick([0, 1, 3, 17]))
    kind = pick(['free', 'held', 'flip'])
    if kind == 'held': weights = np.sign(weights) * 0.5
    if kind == 'flip': weights[rng.random((rows, n)) < 0.7] = 0.0
    weights[rng.random((rows, n)) < pick([0.0, 0.3, 0.8])] = np.nan
    grid = [t for t in TICKS if float(t) < price / 20]
    currency = pick(['USD', 'USD', 'JPY', 'USDT'])
    instruments = {s: Instrument(s, s, currency, tick=D(pick(grid)), lot=D(pick(LOTS)), min_notional=D(pick(['0', '10', '0.123', '5000'])), multiplier=D(pick(['1', '10', '0.1']))) for s in NAMES[:n]}
    limits = pick([{}, {}, {'max_gross': '0.8'}, {'max_positions': 1}, {'max_orders_per_minute': 2}, {'max_net': '0.4', 'max_gross': 'off'}, {'max_daily_loss': '0.01'}, {'max_drawdown': '0.02'},
                   {'max_order_qty': '7.5', 'symbols': {'B': {'max_order_notional': '900'}}}, {'max_position_notional': '20000'}, {'stale_after_s': '30.5'}])
    return dict(bars=bars, weights=weights, instruments=instruments, currency=currency, first=whole(0, rows - 1) if whole(0, 3) == 3 else 0, limits=limits, cash=pick(['100000', '1000000', '2500.37', '12345678.9', '500000', '100000', '50000', '0.01']),
                fee_bps=pick(['0', '1', '2.5', '33.333', '7', '0.5', '1000']), slippage_bps=pick(['0', '1', '0.7', '250']), band=pick(['0', '0', '0.01', '0.123456', '0.02', '0', '0', '1']))


class Tally(dict[str, int]):
    """What the runs of a test came to, so that none passes for having compared nothing."""

    def add(self, **asked: Any) -> None:
        found = backtest(**asked)
        self[found.how] = self.get(found.how, 0) + 1
        if found.how == 'event':
            assert 'bits' in found.why
            return
        quick, told = agree(**asked)
        for k, n in (('fills', len(quick.fills)), ('refusals', quick.breaches), ('unfilled', len(told.orders) - len(told.fills))): self[k] = self.get(k, 0) + n
        for b in told.breaches: self[b.limit] = self.get(b.limit, 0) + 1


def test_runs_by_chance() -> None:
    """Whatever is asked for, within what the pass covers; where a number has no room in it, it says so and nothing is compared."""
    tally = Tally()
    for seed in range(250):
        r = random.Random(seed)
        tally.add(**run_of(r.choice, r.randint))
    assert tally['fast'] > 180 and tally['fills'] > 4_000 and tally['refusals'] > 500 and tally['unfilled'] > 60, tally
    assert {'max_gross', 'max_positions', 'max_orders_per_minute', 'max_net', 'max_daily_loss', 'max_drawdown', 'max_order_qty', 'max_order_notional', 'max_position_notional', 'stale_after_s', 'reduce_only'} <= tally.keys(), tally


def test_positions_in_units_by_chance() -> None:
    """The same runs told as positions in units: sizes off the lot grid, too large for the gate, flips and holes."""
    tally = Tally()
    for seed in range(1_000, 1_060):
        r = random.Random(seed)
        asked = run_of(r.choice, r.randint)
        price = np.nanmedian(asked['bars'].close)
        tally.add(**asked | {'weights': asked['weights'] * float(asked['cash']) / price, 'units': True})
    assert tally['fast'] > 40 and tally['fills'] > 600 and tally['refusals'] > 500, tally


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_runs_that_hypothesis_thinks_of(data: st.DataObject) -> None:
    """The same, drawn by somebody who goes for the corners."""
    Tally().add(**run_of(lambda xs: data.draw(st.sampled_from(xs)), lambda lo, hi: data.draw(st.integers(lo, hi))))


def strategy_of(name: str, **parameters: Any) -> dict[str, Any]:
    """What a strategy notebook defines, up to the cell that says how long its window is, under these parameters."""
    space: dict[str, Any] = {}
    cells = [''.join(c['source']) for c in json.loads((ROOT / 'strategies' / f'{name}.ipynb').read_text(encoding='utf-8'))['cells'] if c['cell_type'] == 'code']
    for n, code in enumerate(cells):
        exec(compile(code, f'{name}.ipynb', 'exec'), space)
        if n == 0: space |= parameters
        if code.rstrip().splitlines()[-1].startswith('window ='): return space
    raise AssertionError(f'{name} has no window')


def both_ways(space: dict[str, Any], symbols: list[str], max_gross: float, **asked: Any) -> FastResult:
    spec = make_spec(symbols, window=space['window'], fee_bps=space['fee_bps'], slippage_bps=space['slippage_bps'], band=space['band'], limits={'max_gross': max_gross}, **asked)
    market = lay_out(spec, None)
    quick, slow = (backtest(market, space['weights'], how=how) for how in ('fast', 'event'))
    a, b = quick.result(), slow.result()
    assert a.equity == b.equity and a.fills == b.fills and a.orders == b.orders and a.breaches == b.breaches
    assert quick.performance() == slow.performance()
    return quick


def test_the_trend_strategy_on_reference_series() -> None:
    r = both_ways(strategy_of('trend'), ['SP500', 'NASDAQ', 'WTI'], 3.0, start='2001-01-01', end='2006-01-01')
    assert len(r.fills) > 500


def test_the_allocation_strategy_on_reference_shares() -> None:
    space = strategy_of('allocation', method='equal', months=1)
    r = both_ways(space, space['symbols'], 1.2, start='1994-01-01', end='1996-06-01')
    assert len(r.fills) > 100


def test_minutes_of_a_real_market() -> None:
    import pandas as pd
    frame = pd.read_parquet(ROOT.parent / 'shared' / 'data' / 'btc_perp_1m_202201.parquet').iloc[:4_000]
    bars = from_frames({'BTC': frame}, 60_000_000_000)
    coin = {'BTC': Instrument('BTC', 'BTC', 'USD', kind='perp', tick=D('0.1'), lot=D('0.001'), min_notional=D(5))}
    quick, _ = agree(bars, crosses(bars, coin)(10, 30), coin, fee_bps='4', slippage_bps='0.5')
    assert len(quick.fills) > 100


def test_a_close_that_is_no_reduction_and_too_small_is_refused() -> None:
    """While bars are missing, an order turns the position round; the target then closes what was to be held, by an order that may not be called a reduction."""
    nan = float('nan')
    price = np.array([[10.0], [10.0], [nan], [nan], [10.0], [10.0]])
    end = 60_000_000_000 * np.arange(1, 7)
    bars = Bars(('B',), end - 60_000_000_000, end, price, price, price, price, np.nan_to_num(price))
    share = {'B': Instrument('B', 'B', 'USD', min_notional=D(500))}
    for weights in ([-0.6, 0.04, 0.04, 0.0, nan, nan], [-0.6, nan, 0.06, 0.0, 0.0, nan], [-0.6, nan, 0.04, 0.0, nan, 0.0]):
        agree(bars, np.array(weights)[:, None], share, cash='10000', slippage_bps='0', fee_bps='0')
    quick, told = agree(bars, np.array([[-0.06], [nan], [0.03], [0.0], [nan], [nan]]), share, cash='10000', slippage_bps='0', fee_bps='0')
    assert [b.limit for b in told.breaches] == ['min_notional'] and len(quick.fills) == 2
