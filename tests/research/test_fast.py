"""The compiled backtest by itself: its integers against Python's, what it leaves to the event path, its sweeps, its portfolio, and what a process pays for it."""
import json
import subprocess
import sys
from decimal import Decimal as D
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.data.replay import on_grid
from gekko.desk.spec import make_spec
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.research import kernel
from gekko.research.columns import combinations, crosses, many, of_result
from gekko.research.fast import backtest
from gekko.research.terms import as_floats, as_money, snapped

COUNT = st.integers(0, 2**62)
SIGNED = st.integers(-(2**62), 2**62)
SHARE = {'ACME': Instrument('ACME', 'ACME', 'USD')}


def walk(rows: int, seed: int = 0, n: int = 1, names: str = 'ACME') -> Bars:
    rng = np.random.default_rng(seed)
    close = np.round(50 * np.exp(0.002 * np.cumsum(rng.standard_normal((rows, n)), axis=0)), 2)
    open_ = np.vstack([close[:1], close[:-1]])
    end = 60_000_000_000 * np.arange(1, rows + 1)
    return Bars(tuple(names.split()), end - 60_000_000_000, end, open_, np.maximum(open_, close), np.minimum(open_, close), close, np.ones((rows, n)))


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(COUNT, COUNT, st.integers(1, 2**62))
def test_quotients_of_wide_products(a: int, b: int, d: int) -> None:
    q, r = divmod(a * b, d)
    if q < 2**61: assert kernel.split(a, b, d) == (q, r)
    elif q >= 2**63: assert kernel.split(a, b, d)[0] == kernel.TOO_BIG


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(SIGNED, COUNT, SIGNED, COUNT, st.sampled_from([None, -1, 0, 1]))
def test_wide_products_are_compared(a: int, b: int, c: int, d: int, close: int | None) -> None:
    if close is not None:      # a pair of products that differ by one at most
        a, d = a >> 31, (d >> 31) + 1
        a, b, c, d = a * d, (b >> 31) + 1, a * ((b >> 31) + 1) + close, d
    x, y = a * b, c * d
    assert kernel.sign_of(a, b, c, d) == (x > y) - (x < y)


@settings(max_examples=3000, deadline=None, derandomize=True)
@given(st.one_of(st.floats(-1e6, 1e6), st.integers(-(10**15), 10**15).map(lambda k: (k + 0.5) / 1e9), st.tuples(st.integers(-(2**34), 2**34), st.integers(1, 44)).map(lambda x: x[0] / 2 ** x[1]).filter(lambda w: abs(w) <= 1e6)))
def test_weights_are_rounded_as_python_rounds(w: float) -> None:
    assert kernel.billionths(w) == int(D(repr(round(w, 9))).scaleb(9))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.integers(-(2**60), 2**60), min_size=1), st.sampled_from(['0.01', '0.00000001', '0.25', '0.003', '5', '1E+2']))
def test_counts_become_money_and_floats(counts: list[int], unit: str) -> None:
    exact = [D(n) * D(unit) for n in counts]
    assert [as_money(n, Fraction(unit)) for n in counts] == exact
    assert as_floats(np.array(counts), Fraction(unit)).tolist() == [float(x) for x in exact]


@pytest.mark.parametrize('tick', ['0.01', '0.25', '0.003', '0.00001', '5'])
def test_prices_are_snapped_as_a_replay_does(tick: str) -> None:
    rng = np.random.default_rng(3)
    x = 100 + rng.standard_normal((4, 400, 1))
    x[:, rng.random(400) < 0.1] = np.nan
    b = walk(400)
    b = Bars(b.symbols, b.start, b.end, *x, b.volume)
    of = {'ACME': Instrument('ACME', 'ACME', 'USD', tick=D(tick))}
    a, c = on_grid(b, of), snapped(b, of)
    for f in ('open', 'high', 'low', 'close', 'volume'): assert np.array_equal(getattr(a, f), getattr(c, f), equal_nan=True), f


@pytest.mark.parametrize(('asked', 'why'), [
    ({'participation': '0.1'}, 'participation'), ({'reject_rate': 0.2}, 'by chance'), ({'limits': {'max_var': '0.05'}}, 'tail'), ({'cash': '1e17'}, '61 bits'),
    ({'band': '0.1234567890123456789'}, 'more digits'), ({'cash': '9e15', 'limits': {'max_gross': 'off'}}, '62 bits')])
def test_what_is_left_to_the_event_path(asked: dict[str, Any], why: str) -> None:
    b, w = walk(80), np.full((80, 1), 90.0)
    w[::2] = -90.0
    r = backtest(b, w, instruments=SHARE, **asked)
    assert r.how == 'event' and why in r.why
    assert r.equity == backtest(b, w, instruments=SHARE, how='event', **asked).equity
    with pytest.raises(BadInput, match='not for the fast path'): backtest(b, w, instruments=SHARE, how='fast', **asked)


def test_fills_of_an_event_run_lie_in_their_rows() -> None:
    b = walk(60)
    w = np.full((60, 1), np.nan)
    w[10], w[30] = 0.001, 0.0
    whole, shared = backtest(b, w, instruments=SHARE, cash='200000'), backtest(b, w, instruments=SHARE, cash='200000', participation='1')
    assert (whole.how, shared.how) == ('fast', 'event') and whole.fills.row.tolist() == [11, 31]
    assert shared.fills.row.tolist() == [11, 12, 13, 31, 32, 33] and shared.fills.lots.tolist() == [1] * 6
    assert sum(whole.fills.lots.tolist()) == 6 and shared.fills.order.tolist() == [1, 1, 1, 2, 2, 2]


def test_a_weight_over_a_million() -> None:
    b, w = walk(20), np.full((20, 1), np.nan)
    w[3] = 2e6
    r = backtest(b, w, instruments=SHARE, cash='100')
    assert r.how == 'event' and 'million' in r.why
    assert many(b, w[None], instruments=SHARE, cash='100').columns[0].how == 'event'


def test_bad_input() -> None:
    b = walk(20)
    for bad, says in ((np.zeros((3, 1)), 'wrong shape'), (np.full((20, 1), np.inf), 'infinity')):
        with pytest.raises(BadInput, match=says): backtest(b, bad, instruments=SHARE)
    with pytest.raises(BadInput, match='no instrument'): backtest(b, np.zeros((20, 1)))
    with pytest.raises(BadInput, match='depends on more'): backtest(b, lambda x: x.close - x.close[0], instruments=SHARE, window=5)
    with pytest.raises(BadInput, match='how'): backtest(b, np.zeros((20, 1)), instruments=SHARE, how='quick')
    with pytest.raises(BadInput, match='infinity'): many(b, np.full((1, 20, 1), np.inf), instruments=SHARE)
    with pytest.raises(BadInput, match='first row'): backtest(b, np.zeros((20, 1)), instruments=SHARE, first=21)
    with pytest.raises(BadInput, match='symbols of the run'): backtest(b, np.zeros((20, 1)), make_spec('OTHER'), SHARE)
    with pytest.raises(BadInput, match='recording'): backtest(b, np.zeros((20, 1)), instruments=SHARE, recording='tape')
    with pytest.raises(BadInput, match='no bars'): backtest(b.rows(0, 0), np.zeros((0, 1)), instruments=SHARE, how='event')


def test_no_rows_and_no_decisions() -> None:
    none = backtest(walk(20).rows(0, 0), np.zeros((0, 1)), instruments=SHARE, cash='100')
    assert none.final_equity == 100 and none.equity == () and len(none.fills) == 0
    idle = backtest(walk(20), np.full((20, 1), np.nan), instruments=SHARE, cash='100')
    assert set(idle.equity) == {D(100)} and idle.performance().total_return == 0


def test_a_cross_is_that_of_exact_means() -> None:
    b = walk(300, 5)
    ticks = [int(round(x * 100)) for x in b.close[:, 0]]
    for fast, slow in ((1, 2), (3, 10), (7, 40)):
        above = [Fraction(sum(ticks[t + 1 - fast:t + 1]), fast) > Fraction(sum(ticks[t + 1 - slow:t + 1]), slow) for t in range(slow - 1, 300)]
        want = [None] * (slow - 1) + [0.7 if now else -0.2 if k == 0 or above[k - 1] != now else None for k, now in enumerate(above)]
        want = [x if k < slow or above[k - slow] != above[k - slow + 1] else None for k, x in enumerate(want)]
        got = crosses(b, SHARE, up=0.7, down=-0.2)(fast, slow)[:, 0]
        assert [None if x != x else x for x in got.tolist()] == want


def test_columns_are_backtests() -> None:
    """Every number of a column, on three symbols with holes, limits and costs, in one thread and in four."""
    b, rng = walk(400, 7, 3, 'B A C'), np.random.default_rng(8)
    gone = rng.random((400, 3)) < 0.1
    b = Bars(b.symbols, b.start, b.end, *(np.where(gone, np.nan, getattr(b, f)) for f in ('open', 'high', 'low', 'close')), b.volume)
    of = {s: Instrument(s, s, 'USD', lot=D('0.01'), multiplier=D(m)) for s, m in zip('ABC', ('1', '10', '0.5'))}
    weights = np.where(rng.random((12, 400, 3)) < 0.3, np.round(rng.normal(0, 0.8, (12, 400, 3)), 2), np.nan)
    asked: dict[str, Any] = dict(instruments=of, first=20, cash='50000', fee_bps='3', band='0.01', limits={'max_gross': '1.5', 'max_daily_loss': '0.05'})
    one, four = (many(b, weights, workers=n, **asked) for n in (1, 4))
    assert one.columns == four.columns and len({c.final for c in one.columns}) == 12
    for w, c in zip(weights, one.columns):
        r = of_result(backtest(b, w, how='event', **asked))._replace(how='fast')
        assert (c.final, c.fills, c.breaches, c.how) == (r.final, r.fills, r.breaches, r.how)
        np.testing.assert_allclose(np.array(c[1:-1], float), np.array(r[1:-1], float), rtol=1e-9)
    assert sum(one.breaches) > 0


def test_a_grid_in_its_order_with_progress() -> None:
    b, seen = walk(500), list[tuple[int, int]]()
    r = many(b, crosses(b, SHARE), {'fast': [2, 4, 6], 'slow': [10, 20, 30]}, instruments=SHARE, workers=2, progress=lambda done, of: seen.append((done, of)))
    assert list(r.params) == combinations({'fast': [2, 4, 6], 'slow': [10, 20, 30]}) and seen[-1] == (9, 9)
    frame = r.frame()
    assert list(frame['final']) == [c.final for c in r.columns] and frame['sharpe'].idxmax() == r.best() and list(frame['fast'][:4]) == [2, 2, 2, 4]
    with pytest.raises(BadInput, match='fast < slow'): many(b, crosses(b, SHARE), {'fast': [5], 'slow': [3]}, instruments=SHARE)


def test_a_portfolio_of_vectorbt_agrees() -> None:
    """Two symbols, a multiplier, holes in which orders pile up and then fill together: vectorbt's own sums over the same orders."""
    b, rng = walk(300, 9, 2, 'B A'), np.random.default_rng(1)
    gone = rng.random((300, 2)) < 0.3
    b = Bars(b.symbols, b.start, b.end, *(np.where(gone, np.nan, getattr(b, f)) for f in ('open', 'high', 'low', 'close')), b.volume)
    of = {s: Instrument(s, s, 'USD', multiplier=D(m)) for s, m in (('A', '1'), ('B', '10'))}
    r = backtest(b, np.round(rng.normal(0, 0.6, (300, 2)), 2), instruments=of, cash='250000', fee_bps='2')
    pairs = list(zip(r.fills.row.tolist(), r.fills.column.tolist()))
    assert r.how == 'fast' and len(pairs) > len(set(pairs)), 'no two fills of one symbol in one row'
    p = r.portfolio()
    assert p.total_return() == pytest.approx(r.total_return, rel=1e-11)
    np.testing.assert_allclose(p.value().to_numpy(), r.worth, rtol=1e-11)
    assert float(p.orders.records['fees'].sum()) == pytest.approx(float(r.fees)) and len(p.orders.records) == len(r.fills)


def python(code: str) -> Any:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_importing_is_light() -> None:
    loaded = python('import json, sys, gekko.research.fast, gekko.research.columns; print(json.dumps(sorted({m.split(".")[0] for m in sys.modules})))')
    assert not {'numba', 'vectorbt', 'pandas', 'torch', 'scipy', 'plotly', 'sqlalchemy', 'zmq'} & set(loaded)


def test_the_second_process_does_not_compile() -> None:
    b = walk(30)
    backtest(b, np.ones((30, 1)), instruments=SHARE)      # whoever is first pays, and it is kept
    code = ('import json, numpy as np\nfrom gekko.research import kernel\nfrom gekko.research.fast import backtest\nfrom gekko.data.bars import Bars\nfrom gekko.domain.instrument import Instrument\n'
            'end = 60_000_000_000*np.arange(1, 31); x = np.full((30, 1), 9.)\n'
            'backtest(Bars(("A",), end - 60_000_000_000, end, x, x, x, x, x), np.ones((30, 1)), instruments={"A": Instrument("A", "A", "USD")})\n'
            's = kernel.through.stats; print(json.dumps([sum(s.cache_hits.values()), sum(s.cache_misses.values())]))')
    hits, misses = python(code)
    assert hits >= 1 and misses == 0
