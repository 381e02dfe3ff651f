"""The leakage proof of a function: rules that look back are clean, rules that look ahead are caught as far as they look, and windows count."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput
from gekko.domain.time import utc
from gekko.research.cells import Cell, code_cells, needed, opens_once, plain_code, statements
from gekko.research.leakage import prove
from gekko.research.poison import KINDS, Change, altered

BARS = reference_bars(['SP500', 'NASDAQ']).between(utc('2006-01-01'), utc('2007-06-01'))


def shifted(x: np.ndarray, k: int) -> np.ndarray:
    """x[t - k]; NaN where there is none."""
    out = np.full(x.shape, np.nan)
    if k >= 0: out[k:] = x[:len(x) - k]
    else: out[:k] = x[-k:]
    return out


@settings(max_examples=12, deadline=None)
@given(lag=st.integers(0, 30), signs=st.booleans())
def test_looking_back_is_clean(lag: int, signs: bool) -> None:
    def rule(bars: Bars) -> np.ndarray:
        w = bars.close / shifted(bars.close, lag + 1) - 1
        return np.sign(w) if signs else w
    report = prove(rule, BARS, window=lag + 2, rows=8, budget_s=5)
    assert report.proven, str(report)


@settings(max_examples=12, deadline=None)
@given(ahead=st.integers(1, 40), field=st.sampled_from(['open', 'high', 'low', 'close', 'volume']))
def test_looking_ahead_is_caught_as_far_as_it_looks(ahead: int, field: str) -> None:
    def rule(bars: Bars) -> np.ndarray:
        x = getattr(bars, field)
        later = shifted(x, -ahead)
        return np.tanh(later / np.where(x == 0, 1, x) - 1)
    report = prove(rule, BARS, rows=8, budget_s=5)
    leak = report.leaks[0]
    assert (leak.kind, leak.ahead) == ('future', ahead), str(report)
    assert leak.column.startswith('out') and any(name.startswith('later') for name in leak.path), str(report)
    assert set(leak.source) == {f'SP500.{field}', f'NASDAQ.{field}'}, str(report)
    assert leak.time == int(BARS.end[0]), 'the first decision is the first that leaks'


@settings(max_examples=10, deadline=None)
@given(needs=st.integers(3, 60), declared=st.integers(2, 80))
def test_a_window_that_is_too_short_is_told_with_what_it_takes(needs: int, declared: int) -> None:
    def rule(bars: Bars) -> np.ndarray: return bars.close / shifted(bars.close, needs - 1) - 1
    report = prove(rule, BARS, window=declared, first=80, rows=6, budget_s=5)
    assert report.clean == (declared >= needs), str(report)
    if declared < needs: assert report.leaks[0].kind == 'lookback' and f'needs {needs}' in report.leaks[0].detail, str(report)


@pytest.mark.parametrize('kind', KINDS)
def test_the_past_is_left_alone(kind: str) -> None:
    at = int(BARS.end[100])
    other = altered(BARS, Change(kind, at))
    for f in ('open', 'high', 'low', 'close', 'volume'):
        assert np.array_equal(getattr(other, f)[:101], getattr(BARS, f)[:101], equal_nan=True)
        if kind != 'prefix': assert not np.array_equal(getattr(other, f)[101:], getattr(BARS, f)[101:])
    assert len(other) == (101 if kind == 'prefix' else len(BARS))


def test_a_last_row_that_is_always_flat_is_a_length() -> None:
    def flat_at_the_end(bars: Bars) -> np.ndarray:
        w = np.ones(bars.close.shape)
        w[-1] = 0.0
        return w
    assert prove(flat_at_the_end, BARS, rows=6).leaks[0].kind == 'length'


def test_chance_without_a_seed_is_not_called_a_leak() -> None:
    report = prove(lambda bars: np.random.default_rng().normal(size=bars.close.shape), BARS, rows=6)
    assert report.clean and [f.kind for f in report.notes] == ['random']


def test_memory_between_calls_is_not_called_a_leak_or_a_proof() -> None:
    calls: list[int] = []
    def counts(bars: Bars) -> np.ndarray:
        calls.append(1)
        return np.full(bars.close.shape, float(len(calls)))
    report = prove(counts, BARS, rows=6)
    assert report.clean and not report.proven and report.notes[0].kind == 'state'


def test_a_leak_and_chance_at_once() -> None:
    def both(bars: Bars) -> np.ndarray: return np.sign(shifted(bars.close, -1) - bars.close) * np.random.default_rng().uniform(0.5, 1, size=bars.close.shape)
    report = prove(both, BARS, rows=6)
    assert report.leaks[0].kind == 'future' and any(f.kind == 'random' for f in report.notes)


def test_nothing_decided_is_refused() -> None:
    with pytest.raises(BadInput, match='decides nothing'): prove(lambda bars: np.full(bars.close.shape, np.nan), BARS)


def test_what_a_decision_depends_on_survives_the_cut() -> None:
    source = '''import numpy as np
from gekko.api import open_run, trade
state = {}
def fit(x): state['mu'] = x.mean()
x = np.ones(3)
fit(x)
np.random.seed(0)
picture = x * 2
print(picture)
def weights(bars): return bars.close - state['mu']
run = open_run('SP500')
trade(run, weights)
after = 1'''
    told = statements([Cell(0, 'a', source)])
    assert [s.line for s in needed(told)] == [1, 2, 3, 4, 5, 6, 7, 10, 11, 12]
    assert opens_once(told)


def test_magic_keeps_its_lines() -> None:
    cells = code_cells({'cells': [{'cell_type': 'code', 'id': 'a', 'source': '%matplotlib inline\n!pip list\nx = 1\n%time y = 2', 'metadata': {}}, {'cell_type': 'code', 'id': 'b', 'source': '%%html\n<b>', 'metadata': {}}]})
    assert [s.line for s in statements(cells)][-2:] == [3, 4]
    assert plain_code('%%time\nz = 3') == '\nz = 3'
