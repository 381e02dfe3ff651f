"""The panel: every look is the backtest, only the newest is worked out, and what was rested on is counted once."""
from __future__ import annotations

import json
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.time import SECOND, utc
from gekko.jobs.explore import explore as explore_any
from gekko.research.columns import crosses, many
from gekko.research.curve import date_ticks, drawn, picture, short_money, ticks
from gekko.research.dials import Dial, as_cell, as_command, as_set, guessed, ranged
from gekko.research.fast import backtest
from gekko.research.looks import Newest
from gekko.research.panel import Explorer, explore
from gekko.research.trials import Trials

INSTRUMENTS = {'A': Instrument('A', 'A', 'USD', lot=Decimal('0.01'))}


def walk(rows: int) -> Bars:
    r = np.random.default_rng(3)
    c = np.round(100*np.exp(np.cumsum(r.normal(0, 0.004, rows))), 2)[:, None]
    o = np.vstack([c[:1], c[:-1]])
    start = utc('2020-01-01') + np.arange(rows)*3600*SECOND
    return Bars(('A',), start, start + 3600*SECOND, o, np.maximum(o, c), np.minimum(o, c), c, np.ones((rows, 1)))


BARS = walk(3_000)
COSTS = dict(fee_bps=2.0, slippage_bps=1.0, cash=50_000.0)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Explorer]:
    def make(strategy: Any = None, params: Any = None, **more: Any) -> Explorer:
        return explore(strategy or crosses(BARS, INSTRUMENTS), BARS, params or {'fast': (2, 50), 'slow': (51, 200)}, instruments=INSTRUMENTS, ledger=f'sqlite:///{tmp_path}/ledger.db', family='Two Means', rest_s=0.05, **{**COSTS, **more})
    return make


def test_each_look_is_the_backtest_to_the_last_digit(made: Callable[..., Explorer]) -> None:
    panel, weights = made(), crosses(BARS, INSTRUMENTS)
    for fast, slow in ((2, 51), (50, 200), (17, 90)):
        panel.set(fast=fast, slow=slow)
        assert panel.settle()
        own = backtest(BARS, weights(fast, slow), instruments=INSTRUMENTS, **COSTS)
        assert panel.result.equity == own.equity and panel.look.params == {'fast': fast, 'slow': slow}
        assert panel.look.column == many(BARS, weights, [{'fast': fast, 'slow': slow}], instruments=INSTRUMENTS, **COSTS).columns[0]
        assert f'{own.final_equity:,.2f}' in panel.view.value and f'fast={fast}, slow={slow}' in panel.code.value


def test_what_was_rested_on_is_a_trial_and_once(made: Callable[..., Explorer]) -> None:
    panel = made()
    for fast in (10, 20, 10, 20):
        panel.set(fast=fast)
        assert panel.settle()
    kept = Trials(panel.counter.url).of('two-means')
    start = {d.name: d.start for d in panel.dials}
    assert sorted(t.params['fast'] for t in kept) == sorted({10, 20, start['fast']}) and {t.source for t in kept} == {'explore'}
    assert (panel.counter.count.rested, panel.counter.count.new, panel.counter.count.family_total) == (5, 3, 3)
    assert '5 settings looked at, 3 new trials; Two Means has 3 in all' in panel.said.value
    again = made()
    assert again.settle() and again.counter.count.new == 0


def test_a_hand_that_drags_is_not_queued_behind(made: Callable[..., Explorer]) -> None:
    """While one look is held up, a hundred more are asked for: the last of them is the next that is made."""
    held, begun, seen = threading.Event(), threading.Event(), list[int]()
    weights = crosses(BARS, INSTRUMENTS)
    def slow_to_answer(fast: int = 10, slow: int = 120) -> Any:
        seen.append(fast)
        if len(seen) == 2:
            begun.set()
            held.wait(60)
        return weights(fast, slow)
    panel = made(slow_to_answer, {'fast': (2, 110)})
    panel.set(fast=11)
    assert begun.wait(60)
    for fast in range(12, 111): panel.set(fast=fast)
    held.set()
    assert panel.settle() and seen == [10, 11, 110] and panel.look.params['fast'] == 110
    assert panel.counter.count.rested == 2, 'the first, and the one that was stayed with'


def test_an_error_leaves_the_curve_and_is_no_trial(made: Callable[..., Explorer]) -> None:
    def picky(fast: int = 10, slow: int = 40) -> Any:
        if fast >= slow: raise ValueError('<b>fast</b>')
        return np.full(BARS.close.shape, fast/slow)
    panel = made(picky, {'fast': (5, 60)})
    panel.settle()
    before = panel.look
    panel.set(fast=50)
    assert panel.settle() and panel.look is before and panel.counter.count.rested == 1
    assert 'gk-problem' in panel.view.value and '&lt;b&gt;fast' in panel.view.value
    panel.set(fast=20)
    assert panel.settle() and 'gk-problem' not in panel.view.value and panel.look.params['fast'] == 20


def test_a_strategy_that_sees_ahead_is_told_of_at_rest(made: Callable[..., Explorer]) -> None:
    def ahead(bars: Bars, size: float = 0.5) -> Any: return np.full(bars.close.shape, size*bars.close.mean()/1e3)
    panel = made(ahead, {'size': (0.1, 0.9)})
    assert panel.settle() and 'bars after it' in panel.problem and panel.counter.count.rested == 0


def test_a_pinned_curve_stays(made: Callable[..., Explorer]) -> None:
    panel = made()
    panel.pin()
    was = panel.look.column
    panel.set(fast=40)
    assert panel.settle() and 'gk-pinned' in panel.view.value and f'{was.final:,.2f}' in panel.view.value
    panel.reset()
    assert panel.settle()
    panel.pin()
    assert panel.pinned is None and 'gk-pinned' not in panel.view.value


def test_a_run_that_was_opened_is_a_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GEKKO_HOME', str(tmp_path / 'home'))
    from gekko.api import open_run, rolling_mean
    def above(bars: Bars, days: int = 50) -> Any: return (bars.close > rolling_mean(bars.close, days))*0.9
    panel = explore_any(above, open_run('SP500', start='2015-01-01', window=200, fee_bps=3.0), {'days': (10, 200)}, rest_s=0.05)
    assert panel.settle() and panel.result.asked.spec.fee_bps == 3 and panel.counter.count.new == 1 and Path(panel.counter.url).parent == tmp_path / 'home'


def test_a_notebook_is_explored_from_its_parameters_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('GEKKO_HOME', str(tmp_path / 'home'))
    panel = explore_any(Path(__file__).resolve().parents[2] / 'strategies/trend.ipynb', rest_s=0.05)
    assert [d.name for d in panel.dials] == ['target_vol', 'lookback', 'half_life', 'short', 'max_weight', 'max_gross', 'band', 'fee_bps', 'slippage_bps']
    assert panel.dials[1].note.startswith('bars of the slowest trend')
    first = panel.result.equity
    panel.set(lookback=128, short=False)
    assert panel.settle() and not panel.problem and panel.result.equity != first
    assert (panel.result.asked.weights[~np.isnan(panel.result.asked.weights)] >= 0).all() and panel.result.asked.spec.window == 128 + 6
    made = next(t for t in Trials(panel.counter.url).of('trend') if t.params['lookback'] == 128)
    assert made.params['mode'] == 'backtest' and made.params['short'] is False and made.code == panel.counter.code
    assert panel.copies[2].text.startswith('gekko run ') and '-p lookback 128' in panel.copies[2].text and '-p short false' in panel.copies[2].text


# The parts

@given(st.one_of(st.integers(-10**6, 10**6), st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-6), st.booleans()))
def test_a_guessed_dial_holds_its_default(start: Any) -> None:
    d = guessed('x', start)
    assert d is not None
    if d.choices: assert start in d.choices
    else: assert d.low < d.high and d.low <= start <= d.high and type(d.low) is type(start) and d.step > 0 and 10 <= (d.high - d.low)/d.step or type(start) is int


@given(st.floats(-100, 100), st.sampled_from([0.1, 0.01, 0.25, 0.002, 5.0]))
def test_a_number_is_set_on_its_step_and_without_a_tail(x: float, step: float) -> None:
    got = as_set(Dial('x', 0.0, -100.0, 100.0, step), x)
    assert abs(got - x) <= step/2*(1 + 1e-9) and len(repr(got)) <= 8


@pytest.mark.parametrize('asked', [(5,), (5, 1), (1, float('nan')), 'a:b', '5:1', [], (1, 5, 0), 7, (True, False)])
def test_a_range_that_is_none_is_refused(asked: Any) -> None:
    with pytest.raises(BadInput): ranged('fast', 3, asked)


def test_what_is_copied_can_be_used() -> None:
    params = {'fast': 5, 'vol': 0.1, 'short': False, 'every': "1h; rm 'x'"}
    space: dict[str, Any] = {}
    exec(as_cell(params), space)
    assert {k: space[k] for k in params} == params
    import shlex
    assert shlex.split(as_command('a b.ipynb', params)) == ['gekko', 'run', 'a b.ipynb', '-p', 'fast', '5', '-p', 'vol', '0.1', '-p', 'short', 'false', '-p', 'every', "1h; rm 'x'"]


@settings(max_examples=60)
@given(st.integers(0, 4_000), st.integers(0, 2**32 - 1), st.sampled_from([1e-9, 1.0, 1e12]))
def test_a_picture_is_whole_and_keeps_the_extremes(rows: int, seed: int, scale: float) -> None:
    r = np.random.default_rng(seed)
    equity = scale*np.exp(np.cumsum(r.normal(0, 0.02, rows)))
    d = drawn(np.arange(1, rows + 1)*3600*SECOND, equity, scale, 200)
    page = ElementTree.fromstring(picture(d, d if seed % 2 else None))
    assert 'nan' not in ElementTree.tostring(page, encoding='unicode') and len(d.times) <= 204
    if rows: assert d.equity.max() == equity.max() and d.equity.min() == equity.min() and (d.under <= 0).all()


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_marks_are_few_round_and_apart(low: float, span: float) -> None:
    span = max(span, abs(low)*1e-6)
    marks = ticks(low, low + span)
    assert 1 <= len(marks) <= 6 and all(low - span*1e-6 <= m <= low + span*1.000001 for m in marks)
    if len(marks) > 1 and max(map(abs, marks)) < 1e4*span: assert len({short_money(m, marks[1] - marks[0]) for m in marks}) == len(marks)


def test_dates_are_as_long_as_they_must_be() -> None:
    day = 86_400*SECOND
    assert [t for _, t in date_ticks(utc('2000-01-01'), utc('2020-01-01'))][0] == '2002'
    assert all(len(t) == 10 for _, t in date_ticks(0, 30*day)) and date_ticks(5, 5) == []


def test_rest_is_told_of_the_last_alone() -> None:
    done, rested = list[int](), list[int]()
    worker: Newest[int] = Newest(done.append, rested.append, rest_s=0.02)
    for k in range(50): worker.ask(k)
    assert worker.settle() and done[-1] == 49 and rested == [49] and json.dumps(done) == json.dumps(sorted(done))


def test_a_notebook_that_hides_what_it_reads_is_run_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two names share an object, which no reading of the code sees: the curve follows the hand all the same, and what is counted is true."""
    monkeypatch.setenv('GEKKO_HOME', str(tmp_path / 'home'))
    def looked(setup: str, days: str) -> Explorer:
        cells = ["mode = 'backtest'\ndays = 20", f'from gekko.api import open_run, rolling_mean, trade\n{setup}', f'def weights(bars): return (bars.close > rolling_mean(bars.close, {days})) * 0.9\nrun = open_run("KO", mode=mode, start="2018-01-01", window=200)\ntrade(run, weights)']
        (tmp_path / 'n.ipynb').write_text(json.dumps({'cells': [{'cell_type': 'code', 'id': f'c{k}', 'metadata': {'tags': ['parameters'] * (k == 0)}, 'source': x, 'outputs': [], 'execution_count': None} for k, x in enumerate(cells)], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}))
        panel = explore_any(str(tmp_path / 'n.ipynb'), params={'days': (10, 90)}, rest_s=0.01)
        panel.set(days=60)
        assert panel.settle() and not panel.problem
        return panel
    plain, sly = looked('', 'days'), looked('MINE = {"x": {"days": 20}}\nx = MINE["x"]\nx["days"] = days', 'MINE["x"]["days"]')
    assert plain.result.equity == sly.result.equity and len(plain.result.fills) > 2
