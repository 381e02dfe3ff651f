"Walking forward: what is chosen comes from the training rows alone, what is traded is one account's, and every column is counted."
from __future__ import annotations
import time
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from gekko.data.bars import Bars
from gekko.data.reference import reference_bars, reference_instrument
from gekko.domain.errors import BadInput
from gekko.research.fast import backtest
from gekko.research.trials import Trials
from gekko.research.walking import Span, spans, trained, walk_forward

SYMBOLS = ('AAPL', 'KO')

@pytest.fixture(scope='module')
def bars() -> Bars: return reference_bars(list(SYMBOLS)).rows(0, 2600)

@pytest.fixture(scope='module')
def instruments(): return {s: reference_instrument(s) for s in SYMBOLS}

def above(bars: Bars, days: int, size: float = 0.5) -> np.ndarray:
    out = np.zeros(bars.close.shape)
    if len(bars) >= days: out[days - 1:] = bars.close[days - 1:] > np.lib.stride_tricks.sliding_window_view(bars.close, days, axis=0).mean(axis=-1)
    return out * size

GRID = {'days': [5, 20, 60, 120]}

def test_one_column_is_the_backtest_of_it(bars, instruments):
    walked = walk_forward(above, bars, {'days': [40]}, 800, 300, instruments=instruments, first=200, window=40)
    alone = backtest(bars, above(bars, 40), instruments=instruments, first=1000, window=40)
    assert walked.result.equity == alone.equity and len(walked.result.fills) == len(alone.fills)
    assert walked.efficiency == pytest.approx(alone.performance().sharpe / walked.inside)

def test_a_choice_knows_nothing_of_what_follows(bars, instruments):
    walked = walk_forward(above, bars, GRID, 800, 300, instruments=instruments, first=200, window=120, gap=3)
    for s in walked.steps[:3]:
        shaken = {f: np.array(getattr(bars, f)) for f in ('open', 'high', 'low', 'close')}
        for x in shaken.values(): x[s.train.hi:] *= np.exp(np.sin(np.arange(len(bars) - s.train.hi)) / 3)[:, None]
        other = Bars(bars.symbols, bars.start, bars.end, shaken['open'], shaken['high'], shaken['low'], shaken['close'], bars.volume)
        assert s.test.lo - s.train.hi == 3
        again = trained(other, above, GRID, s.train, 120, instruments, walked.result.asked.spec)
        assert again.columns == s.columns.columns and again.best() == s.chosen

def test_each_fold_trades_what_it_chose(bars, instruments):
    walked = walk_forward(above, bars, GRID, 800, 300, instruments=instruments, first=200, window=120)
    assert len({s.params['days'] for s in walked.steps}) > 1, 'a grid that teaches nothing'
    for s in walked.steps: assert np.array_equal(walked.result.asked.weights[s.test.lo:s.test.hi], above(bars, **s.params)[s.test.lo:s.test.hi])
    assert walked.steps[-1].test.hi == len(bars) and np.isnan(walked.result.asked.weights[:walked.steps[0].test.lo]).all()
    for s in walked.steps: assert s.inside == max(s.columns.sharpe)

def test_less_may_be_better(bars, instruments):
    """The smallest fall and the smallest volatility are the best, the highest ratio is."""
    best = {'max_drawdown': lambda c: min(map(abs, c.max_drawdown)), 'volatility': lambda c: min(c.volatility), 'sharpe': lambda c: max(c.sharpe)}
    for by, least in best.items():
        walked = walk_forward(above, bars, GRID, 1000, 500, instruments=instruments, first=200, window=120, by=by, anchored=True)
        assert all(abs(getattr(s.columns, by)[s.chosen]) == least(s.columns) for s in walked.steps) and all(s.train.lo == 200 for s in walked.steps)
        assert any(len(set(getattr(s.columns, by))) > 1 for s in walked.steps)

def test_every_column_is_counted_once(bars, instruments, tmp_path):
    kept = Trials(str(tmp_path/'trials.sqlite'))
    for _ in range(2): walked = walk_forward(above, bars, GRID, 1000, 500, instruments=instruments, first=200, window=120, family='walks', trials=kept, made=time.time_ns())
    made = kept.of('walks')
    assert len(made) == walked.trials + 1 == 4 * len(walked.steps) + 1
    best = next(t for t in made if t.params == walked.steps[0].params and t.first == int(bars.end[walked.steps[0].train.lo + 1]))
    assert best.sharpe * best.periods**0.5 == pytest.approx(walked.steps[0].inside, rel=1e-6)

def test_what_the_compiled_pass_cannot_do_goes_the_event_path():
    walked = walk_forward(above, reference_bars(['SP500']).rows(0, 900), {'days': [5, 20]}, 300, 250, instruments={'SP500': reference_instrument('SP500')}, first=60, window=20, participation=0.01)
    assert walked.result.how == 'event' and all(c.how == 'event' for s in walked.steps for c in s.columns.columns)

def test_a_window_that_is_too_short_is_refused(bars, instruments):
    with pytest.raises(BadInput, match='depends on more than the 20 bars'): walk_forward(above, bars, {'days': [60]}, 800, 300, instruments=instruments, first=200, window=20)

def test_noise_does_not_keep_its_promise(bars, instruments):
    def lots(b: Bars, seed: int) -> np.ndarray:
        days = (b.end // 86_400_000_000_000).astype(np.uint64)[:, None]
        x = (days * np.uint64(2 * seed + 1) * np.uint64(0x9E3779B97F4A7C15) + np.arange(2, dtype=np.uint64) * np.uint64(977)) >> np.uint64(40)
        return (x % np.uint64(2)).astype(np.float64) - 0.5
    walked = walk_forward(lots, bars, {'seed': list(range(40))}, 500, 300, instruments=instruments, window=1, fee_bps=0, slippage_bps=0)
    assert walked.inside > 1 and walked.efficiency < 0.5

@settings(max_examples=40, deadline=None)
@given(rows=st.integers(20, 400), first=st.integers(0, 50), train=st.integers(2, 200), test=st.integers(1, 100), gap=st.integers(0, 20), anchored=st.booleans())
def test_spans_follow_each_other(rows, first, train, test, gap, anchored):
    try: plan = spans(rows, first, train, test, anchored=anchored, gap=gap)
    except BadInput: return
    assert plan[0][1].lo == first + train and plan[-1][1].hi == rows
    for (_, b), (_, c) in zip(plan, plan[1:]): assert b.hi == c.lo
    for a, b in plan: assert first <= a.lo < a.hi <= b.lo - gap and isinstance(a, Span)
