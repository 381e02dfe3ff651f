"""The trial ledger: nothing counted twice, nothing forgotten, nothing half written, on either database."""
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gekko.desk.result import Result
from gekko.domain.errors import BadInput, Halt
from gekko.domain.time import DAY, SimClock, utc
from gekko.ledger.copying import copy_ledger
from gekko.ledger.database import engine, prepare, trials as table
from gekko.ledger.runs import RunRecord
from gekko.research.effective import average_correlation, effective_trials, interpolated, lucky_peaks, spread_correlation
from gekko.research.trials import Trial, Trials, compact, family_of, noted, of_run, panel, trial, trials_url, unnoted, worth

sys.path.insert(0, str(Path(__file__).parents[1] / 'ledger'))
from server_stage import shared

TIMES = utc('2019-01-01') + DAY * np.arange(1, 1001)


@pytest.fixture(params=['file', 'postgres'])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / 'trials.db') if request.param == 'file' else shared().url()


def made(n: int, seed: int = 0, family: str = 'trend', keep: int = 512, shared_part: float = 0.) -> list[Trial]:
    g = np.random.default_rng(seed)
    common = g.standard_normal(1_000)
    return [trial(family, {'n': i, 'seed': seed}, TIMES, .01 * (shared_part * common + (1 - shared_part**2) ** .5 * g.standard_normal(1_000)), periods=365.25, keep=keep, made=i, source=f'sweep-{seed}') for i in range(n)]


def test_a_trial_comes_back_as_it_went(url: str) -> None:
    some = made(5)
    book = Trials(url)
    assert book.add(some) == 5 and book.of('trend') == some and book.families() == {'trend': 5}
    assert book.add(some) == 0 and book.add([*some, *made(1, 1)]) == 1 and book.families() == {'trend': 6}


def test_the_same_inputs_are_one_trial_whoever_made_them() -> None:
    r = np.random.default_rng(0).standard_normal(1_000)
    def key(**more: object) -> str: return trial('trend', {'a': 1}, TIMES, r, **more).key  # type: ignore[arg-type]
    assert key() == key(source='other', made=5, trades=3, keep=0)
    assert len({key(), key(code='x'), key(data_version='x'), trial('trend', {'a': 2}, TIMES, r).key, trial('other', {'a': 1}, TIMES, r).key, trial('trend', {'a': 1}, TIMES + DAY, r).key}) == 6


def test_ten_thousand_go_in_at_once(url: str) -> None:
    one = made(1)[0]
    many = [replace(one, key=f'{i:064}') for i in range(10_000)]
    began = time.perf_counter()
    assert Trials(url).add(many) == 10_000
    assert Trials(url).families() == {'trend': 10_000}
    assert time.perf_counter() - began < 30


def test_a_killed_writer_leaves_all_or_nothing(url: str) -> None:
    Trials(url).add(made(3))
    code = textwrap.dedent('''
        import os, signal, sys
        import sqlalchemy as sa
        from dataclasses import replace
        from gekko.research.trials import Trials
        book = Trials(sys.argv[1])
        one = book.of('trend')[0]
        @sa.event.listens_for(sa.Engine, 'commit')
        def dies(c): os.kill(os.getpid(), signal.SIGKILL)
        book.add([replace(one, key=str(i)) for i in range(500)])
    ''')
    p = subprocess.run([sys.executable, '-c', code, url], capture_output=True, text=True, timeout=60)
    assert p.returncode == -signal.SIGKILL, p.stderr
    assert Trials(url).families() == {'trend': 3} and Trials(url).add(made(4)) == 1


def test_two_processes_add_at_once(url: str) -> None:
    "Each adds 600 trials in twelve batches, half of which the other adds too."
    Trials(url).add(made(1))
    code = textwrap.dedent('''
        import sys
        from dataclasses import replace
        from gekko.research.trials import Trials
        book, mine = Trials(sys.argv[1]), int(sys.argv[2])
        one = book.of('trend')[0]
        print(sum(book.add([replace(one, key=f'{i + mine * 300}') for i in range(b, b + 50)]) for b in range(0, 600, 50)))
    ''')
    both = [subprocess.Popen([sys.executable, '-c', code, url, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(2)]
    said = [p.communicate(timeout=120) for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert sum(int(out) for out, _ in said) == 900 and Trials(url).families() == {'trend': 901}


def test_a_ledger_from_before_trials_has_none_until_one_is_added(url: str) -> None:
    with engine(url, write=True).begin() as c:
        prepare(c)
        for later in ('attempts', 'jobs', 'schedules', 'workers', 'trials'): c.exec_driver_sql(f'drop table {later}')
        c.exec_driver_sql('update schema set version = 2')
        c.exec_driver_sql("update alembic_version set version_num = '0002'")
    assert Trials(url).of('trend') == [] and Trials(url).families() == {}
    assert Trials(url).add(made(2)) == 2 and Trials(url).families() == {'trend': 2}


def test_the_ledgers_copy_takes_them_along(url: str, tmp_path: Path) -> None:
    Trials(url).add(made(3))
    other = str(tmp_path / 'copy.db')
    assert copy_ledger(url, other, SimClock(1)).trials == 3 and Trials(other).of('trend') == Trials(url).of('trend')
    Trials(url).add(made(5))
    again = copy_ledger(url, other, SimClock(1))
    assert again.trials == 2 and '2 trials' in str(again) and Trials(other).families() == {'trend': 5}


def test_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match='no such directory'): Trials(str(tmp_path / 'no' / 'trials.db')).add(made(1))
    with pytest.raises(BadInput, match='must outlive this process'): Trials(':memory:').add(made(1))
    (tmp_path / 'junk.db').write_bytes(b'not a database' * 100)
    with pytest.raises(Halt): Trials(str(tmp_path / 'junk.db')).add(made(1))
    with pytest.raises(BadInput): Trials(str(tmp_path / 'junk.db')).of('trend')


def test_beside_the_ledger_or_in_it(tmp_path: Path) -> None:
    assert trials_url(str(tmp_path / 'ledger.db')) == str(tmp_path / 'trials.db')
    assert trials_url('postgresql://a@b/c') == 'postgresql://a@b/c'


def test_names_of_families() -> None:
    assert family_of('strategies/Trend Following.ipynb') == family_of('trend-following') == 'trend-following'
    with pytest.raises(BadInput): family_of('.ipynb/..')


def test_sums_keep_what_the_gate_needs() -> None:
    x = np.random.default_rng(1).standard_normal((2_520, 20)) + .05
    y = compact(x)
    assert len(y) == 504 and np.allclose(y.sum(0), x.sum(0))
    assert np.abs(np.corrcoef(y.T) - np.corrcoef(x.T)).max() < .2 and len(compact(x, 5_000)) == 2_520


def test_a_panel_counts_what_is_apart() -> None:
    beside, elsewhere, bare = made(30), [trial('trend', {'m': i}, TIMES[:500], np.random.default_rng(i).standard_normal(500)) for i in range(10)], made(12, 3, keep=0)
    idle = trial('trend', {'idle': 1}, TIMES, np.zeros(1_000))
    p = panel([*beside, *elsewhere, *bare, idle], beside[4].key, unnoted=2)
    assert p.returns.shape == (500, 30) and p.trials[p.chosen] == beside[4] and p.total == 30 + 10 + 12 + 1 + 2
    assert 2 + 7 + 6 < p.apart <= 2 + 10 + 12
    for bad, why in ((idle.key, 'traded'), (bare[0].key, 'with its returns'), ('nope', 'which 0 have'), ('', 'which 53 have')):
        with pytest.raises(BadInput, match=why): panel([*beside, *elsewhere, *bare, idle], bad)


def test_runs_without_a_trial_still_count() -> None:
    noted = made(1)[0]
    rows = [RunRecord(f'r{i}', 'l', 'x/trend.ipynb', 'backtest', 'backtest', state=s, params={'i': i // 2}, metrics=m) for i, (s, m) in enumerate([('done', {'a': 1})] * 4 + [('failed', {}), ('done', {})])]
    rows += [RunRecord('sweep-0', 'l', 'trend.ipynb', 'backtest', 'b', state='done', metrics={'a': 1}), RunRecord('y', 'l', 'other.ipynb', 'backtest', 'b', state='done', metrics={'a': 1}), RunRecord('z', 'l', 'trend.ipynb', 'live', 'b', state='done', metrics={'a': 1})]
    assert unnoted(rows, [noted], 'trend') == 2


# how many independent trials


@pytest.mark.parametrize(('rho', 'low', 'high'), [(0., 850, 1_000), (.5, 150, 350), (.95, 5, 40), (.9999, 1, 2)])
def test_relatives_are_neither_all_nor_one(rho: float, low: float, high: float) -> None:
    g = np.random.default_rng(1)
    x = rho**.5 * g.standard_normal((500, 1)) + (1 - rho) ** .5 * g.standard_normal((500, 1_000))
    assert low <= effective_trials(x) <= high
    assert average_correlation(x) == pytest.approx(rho, abs=.05) and interpolated(1_000, average_correlation(x)) >= effective_trials(x) * .8


def test_ten_thousand_neighbours_of_a_hundred_ideas() -> None:
    g = np.random.default_rng(2)
    x = (.99**.5 * g.standard_normal((250, 100)))[:, np.arange(10_000) % 100] + .01**.5 * g.standard_normal((250, 10_000)).astype(np.float32)
    assert 90 < effective_trials(x, reps=1_500) < 300


def test_the_peaks_are_those_of_normal_numbers_so_related() -> None:
    g = np.random.default_rng(3)
    x = .6**.5 * g.standard_normal((2_000, 1)) + .4**.5 * g.standard_normal((2_000, 50))
    want = .6**.5 * g.standard_normal((4_000, 1)) + .4**.5 * g.standard_normal((4_000, 50))
    got = lucky_peaks(x)
    assert np.quantile(got, [.1, .5, .95]) == pytest.approx(np.quantile(want.max(1), [.1, .5, .95]), abs=.1)


def test_without_returns_the_scatter_of_the_ratios_says_how_related() -> None:
    for rho in (0., .5, .9):
        g = np.random.default_rng(4)
        s = .05 + (rho**.5 * g.standard_normal() + (1 - rho) ** .5 * g.standard_normal(800)) / 1_000**.5
        assert spread_correlation(s, 1_000) == pytest.approx(rho, abs=.1)
    wide = np.random.default_rng(5).standard_normal(100)
    assert spread_correlation(wide, 1_000) == 0 and worth(made(20, keep=0)) > 12 and worth(made(20, shared_part=.99)) < 8 and worth([]) == 0


@pytest.mark.parametrize('call', [
    lambda: trial('t', {}, TIMES, np.zeros(3)), lambda: trial('t', {}, TIMES[:2], np.zeros(2)), lambda: trial('t', {}, TIMES, np.full(1_000, np.nan)), lambda: trial('t', {'f': object()}, TIMES, np.zeros(1_000)),
    lambda: trial('', {}, TIMES, np.zeros(1_000)), lambda: compact(np.zeros(9), 3), lambda: Trials('x').of(), lambda: effective_trials(np.ones((9, 2))), lambda: effective_trials(np.random.default_rng(0).standard_normal((9, 2)), reps=3),
    lambda: interpolated(0, .5), lambda: interpolated(5, 2), lambda: spread_correlation(np.array([.1, np.nan]), 100), lambda: spread_correlation(np.array([.1, .2]), 1)])
def test_what_cannot_be_a_trial_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call()  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None


def test_a_trial_from_its_numbers_is_the_trial_of_its_returns() -> None:
    r = np.random.default_rng(3).standard_normal(1_000)
    t = trial('trend', {'a': 1}, TIMES, r, periods=365.25, trades=4, code='c')
    assert noted('trend', {'a': 1}, 1_000, t.first, t.last, 365.25, t.mean, t.deviation, skew=t.skew, kurtosis=t.kurtosis, memory=t.memory, sums=compact(r), trades=4, code='c') == t
    for bad in (dict(mean=float('nan')), dict(rows=2), dict(deviation=-1.), dict(periods=0.), dict(last=t.first), dict(sums=np.array([np.inf]))):
        with pytest.raises(BadInput): noted(**{**dict(family='t', params={}, rows=1_000, first=t.first, last=t.last, periods=252., mean=0., deviation=1.), **bad})  # type: ignore[arg-type]


def test_the_trial_of_a_run() -> None:
    record = RunRecord('r-1', 'l', 'x/trend.ipynb', 'backtest', 'backtest', state='done', params={'fast': 3}, notebook_hash='ab', data_version='old', ended=9)
    curve = tuple(map(Decimal, ('100', '110', '99', '0', '50')))
    result = Result('r-1', 'l', 'trend', 'backtest', 'backtest', ('A',), '1d', 'USD', Decimal(100), TIMES[:5], curve, np.ones((5, 1)), (), (), (), '', 'ended', 'new')
    t = of_run(record, result)
    assert t is not None and (t.family, t.params, t.code, t.data_version, t.source, t.made, t.rows, t.trades) == ('trend', {'fast': 3}, 'ab', 'new', 'r-1', 9, 4, 0)
    assert t.returns == pytest.approx([.1, -.1, -1, 0], abs=1e-6), 'after the equity was lost nothing is earned'
    other = of_run(replace(record, seed=4), result)
    assert other is not None and other.key != t.key and other.params == {'fast': 3, 'seed': 4}
    assert of_run(replace(record, mode='paper'), result) is None and of_run(record, replace(result, times=TIMES[:3], equity=curve[:3])) is None


def test_the_table_has_a_column_for_each_field() -> None:
    assert set(table.c.keys()) == set(Trial.__slots__) and os.path.basename(trials_url('a/b.db')) == 'trials.db'
