"""A sweep's columns are the runs of their own parameters, whoever makes them and however much they share; and nothing is lost or counted twice when it is stopped or killed."""
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from desk_stage import ended, environ, gekko, home, launch, ledger_of, notebook, one_line, settings_of, tidy, wait_for

from gekko.domain.errors import BadInput
from gekko.jobs.runner import prepare, run_job
from gekko.jobs.sweep_runs import outcome_from
from gekko.jobs.sweeping import plan_of, resume, sweep
from gekko.research.processes import Processes
from gekko.research.rehearsal import Enough
from gekko.research.sweep import Bench, Here, Outcome, Tasks, examined, make_worker
from gekko.research.sweep_log import Line, SweepLog, begin_log, read_line, written
from gekko.research.trials import Trials, trials_url
from gekko.research.varied import Varied, told_of

__all__ = ['home']
STRATEGIES = Path(__file__).resolve().parents[2] / 'strategies'
MEAN = ("days = 50\nband = 0.02", 'from gekko.api import open_run, rolling_mean, trade\nif days < 2: raise ValueError("no mean")',
        'def weights(bars): return (bars.close > rolling_mean(bars.close, days)) * 0.9\nrun = open_run("KO", start="2018-01-01", window=max(days, 1), band=band, cash=100_000)\nresult = trade(run, weights)')


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that the runs of this file share."""
    with tidy(tmp_path_factory.mktemp('sweeps') / 'home') as made: yield made


# ---- a column is a run

LOOP = ("size = 100\nfee = 1.0", 'from decimal import Decimal\nfrom gekko.api import open_run',
        'run = open_run("KO", start="2021-06-01", window=5, fee_bps=fee)\nfor bars in run:\n    up = bars.close[-1, 0] > bars.close[0, 0]\n    run.target(units={"KO": Decimal(size if up else 0)})\nresult = run.finish()')
CASES: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    'trend': ({'start': '2015-01-01'}, {'lookback': [128, 64], 'half_life': [16.0, 32.0], 'short': [False]}),
    'pairs': ({'start': '2018-01-01'}, {'entry': [0.5, 1.0], 'full': [2.5, 2.0]}),
    'allocation': ({'symbols': ['KO', 'PEP', 'PG', 'JNJ'], 'method': 'equal', 'compare': ['equal'], 'start': '2019-01-01', 'train': 252, 'max_weight': 0.5}, {'buffer': [0.02, 0.05], 'months': [3, 1]}),
    'quoting': ({}, {'half_spread_bps': [0.4, 0.6], 'most': [0.05], 'skew_bps': [0.25]}),
    'loop': ({}, {'size': [100, 250], 'fee': [1.0, 2.0]}),
}


def bare(name: str, folder: Path) -> Path:
    """A strategy without the cells that show and prove something: they take the longest."""
    nb = json.loads((STRATEGIES / f'{name}.ipynb').read_text(encoding='utf-8'))
    kept = {s.cell.number for s in told_of(nb)}
    nb['cells'] = [c for k, c in enumerate(nb['cells']) if k in kept]
    path = folder / f'{name}.ipynb'
    path.write_text(json.dumps(nb), encoding='utf-8')
    return path


@pytest.mark.parametrize('name', CASES)
def test_a_column_is_the_run_of_its_parameters(name: str, place: Path, tmp_path: Path) -> None:
    """Equity (to every bit of its returns), fills, fees, refusals and the trial of a column in a sweep, made after other columns, are those of `gekko run`."""
    path, at = notebook(tmp_path / 'loop.ipynb', *LOOP) if name == 'loop' else bare(name, tmp_path), settings_of(place)
    fixed, grid = CASES[name]
    plan, tasks = plan_of(path, grid, at, fixed)
    short = Bench(plan)
    short(tasks[len(tasks) - 1])
    mine = short(tasks[0])
    done = run_job(prepare(path, {**fixed, **tasks[0].params}, 'backtest', at), at)
    run = outcome_from(0, done.record)
    assert done.error is None and mine.error == '' and mine.column is not None and run.column is not None and mine.trial is not None and run.trial is not None
    assert mine.column.fills > 0 and [getattr(mine.column, f) for f in ('final', 'fills', 'breaches', 'fees')] == [getattr(run.column, f) for f in ('final', 'fills', 'breaches', 'fees')]
    assert mine.column[1:6] == pytest.approx(run.column[1:6], rel=1e-9) and mine.column.traded == pytest.approx(run.column.traded, rel=1e-12)
    assert replace(mine.trial, source='', made=0) == replace(run.trial, source='', made=0)
    assert Trials(trials_url(at.ledger)).add([mine.trial]) == 0      # the run has been counted


# ---- sharing

WORDS = [('{0} = {1} + 1', 'ab'), ('{0} = seen[-1] if seen else {1}', 'ab'), ('seen.append({0})', 'a'), ('def f(x): return x + {0}', 'a'), ('{0} = f({1})', 'ab'), ('if {0} > 3: {1} = 0', 'ab'),
         ('{0} += {1}', 'ab'), ('{0} = len(seen)', 'a'), ('seen = []', ''), ('for i in range(2): {0} = {1} + i', 'ab')]
NAMES = st.sampled_from(['p', 'q', 'u', 'v', 'w'])


@st.composite
def programs(draw: st.DrawFn) -> list[str]:
    lines = ['seen = []\nu, v, w = 1, 2, 3\ndef f(x): return x']
    for form, slots in draw(st.lists(st.sampled_from(WORDS), max_size=12)): lines.append(form.format(*(draw(NAMES if k else st.sampled_from(['u', 'v', 'w'])) for k, _ in enumerate(slots))))
    return lines


@settings(max_examples=80, deadline=None)
@given(programs(), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_what_is_shared_changes_nothing(lines: list[str], values: list[int]) -> None:
    """Any straight program, run for one value after another, opens its run with what it would open it with alone."""
    cell = {'cell_type': 'code', 'id': 'c', 'metadata': {}}
    nb = {'cells': [{**cell, 'source': 'p = 1\nq = 2', 'metadata': {'tags': ['parameters']}}, *({**cell, 'source': x} for x in lines), {**cell, 'source': 'run = open_run([u, v, w, f(1), *seen])\ntrade(run, 0)'}]}
    told: list[list[int]] = []

    def open_run(asked: list[int], **settings: Any) -> Any:
        told.append(list(asked))
        raise Enough
    nb['cells'].insert(1, {**cell, 'source': 'from gekko.api import trade\nfrom gekko.desk.session import open_run'})
    short, whole = (Varied(nb, Path.cwd(), {'p': 1, 'q': 2}, ['p'], shared) for shared in (True, False))
    for x in values:
        short.run({'p': x}, open_run)
        whole.run({'p': x}, open_run)
        assert told[-1] == told[-2]


def test_what_cannot_be_shared_is_noticed(tmp_path: Path, place: Path) -> None:
    """A list under two names grows from combination to combination: the parser does not see it, the examination does, and every column is as alone."""
    sly = notebook(tmp_path / 'sly.ipynb', MEAN[0], 'seen = []\nview = {"seen": seen}', 'view["seen"].append(days)\nv = list(seen)', *MEAN[1:2], MEAN[2].replace('* 0.9', '* 0.9 / len(v)'))
    r = sweep(sly, ['days=10:60:10'], settings_of(place), executor=Here())
    plain = sweep(notebook(tmp_path / 'plain.ipynb', *MEAN), ['days=10:60:10'], settings_of(place), executor=Here())
    assert [r.column(n).final for n in r.numbers] == [plain.column(n).final for n in plain.numbers]


def test_a_parameter_that_the_notebook_changes_is_refused_as_by_a_run(tmp_path: Path, place: Path) -> None:
    r = sweep(notebook(tmp_path / 'odd.ipynb', MEAN[0], 'days = max(days, 20)', *MEAN[1:]), ['days=10:60:10'], settings_of(place), executor=Here())
    assert sorted(r.errors) == [0] and 'another value' in r.errors[0] and r.numbers == [1, 2, 3, 4, 5]


# ---- outcomes

def test_a_combination_that_fails_is_an_outcome(tmp_path: Path, place: Path) -> None:
    path = notebook(tmp_path / 'mean.ipynb', *MEAN, 'assert False, "behind the trade"')
    r = sweep(path, ['days=0:40:10'], settings_of(place), executor=Here())
    assert r.errors == {0: 'cell 1, line 2: ValueError: no mean'} and r.numbers == [1, 2, 3, 4] and r.complete
    assert sweep(path, ['days=0,1,-5'], settings_of(place)).best is None


@pytest.mark.parametrize('cells', [(MEAN[0], 'x = days'), (MEAN[0], 'from gekko.api import open_run\nrun = open_run("KO", window=days)\nx = run.spec', 'run.trade'),
                                   (*MEAN, MEAN[2]), (*MEAN[:2], MEAN[2].replace('"KO",', '"KO", mode="paper",')), (*MEAN[:2], 'raise SystemExit(3)', MEAN[2]), (*MEAN[:2], MEAN[2].replace('"KO"', '"NOPE"'))])
def test_a_notebook_that_comes_to_no_result(cells: tuple[str, ...], tmp_path: Path, place: Path) -> None:
    """Without a trade it is refused; what goes wrong on the way is the error of each combination, as it would be of each run."""
    path = notebook(tmp_path / 'none.ipynb', *cells)
    try: r = sweep(path, ['days=10:50:10'], settings_of(place), executor=Here())
    except BadInput as e: assert 'trades nothing' in str(e)
    else: assert len(r.lines) == 5 and (cells[-2:] == (MEAN[2],)*2 or len(r.errors) == 5)


def test_refused_before_anything_is_written(tmp_path: Path, place: Path) -> None:
    mean, before = notebook(tmp_path / 'mean.ipynb', *MEAN), sorted((place / 'sweeps').glob('*'))
    wrong: list[tuple[list[str], str]] = [([], 'empty grid'), (['dais=1,2'], 'did you mean days'), (['days=5:1:1'], 'leads from'), (['days=1:9:0'], 'step'), (['days=a,b'], 'int'), (['days=1.5,2'], 'int'), (['band=x'], 'float'),
                                          (['days=1:2000', 'band=0:1:0.001'], '1,000,000'), (['mode=paper'], 'mode'), (['days'], 'name=')]
    for words, said in wrong:
        with pytest.raises(BadInput, match=said): sweep(mean, words, settings_of(place))
    for kind in ('fall', ''):
        with pytest.raises(BadInput, match='total_return'): sweep(mean, ['days=1,2'], settings_of(place), by=kind)
    assert sorted((place / 'sweeps').glob('*')) == before


# ---- processes

def test_processes_agree_with_one(place: Path) -> None:
    """The same outcomes to the last bit, told once each, over two processes."""
    plan, tasks = plan_of(STRATEGIES / 'trend.ipynb', ['lookback=64:256:64', 'half_life=16:48:16'], settings_of(place), {'start': '2012-01-01'})
    plan = replace(plan, made=1)
    here: list[Outcome] = []
    there: list[Outcome] = []
    Here().run(plan, tasks, here.append)
    Processes(2).run(plan, tasks, there.append)
    assert sorted(o.number for o in there) == list(range(12)) and sorted(there, key=lambda o: o.number) == here


# ---- the log

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_log_cut_anywhere_holds_what_was_whole(cut: int, n: int, rng: random.Random) -> None:
    data = b''.join(written(Line(k, None, f'error {rng.random()} {chr(0x2603)}')) for k in range(n))
    lines = [read_line(x) for x in data[:cut].splitlines(keepends=True)]
    whole = [x for x in lines if x is not None]
    assert [x.number for x in whole] == list(range(len(whole))) and lines.count(None) <= 1


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path, place: Path) -> None:
    plan, tasks = plan_of(notebook(tmp_path / 'mean.ipynb', *MEAN), ['days=10,20,30'], settings_of(place))
    with begin_log(place, plan, tasks) as log: log.add([Line(0, None, 'x')])
    with open(log.folder / 'outcomes', 'ab') as f: f.write(written(Line(1, None, 'y'))[:-3])
    with SweepLog(place, plan.sweep_id) as again: again.add([Line(2, None, 'z')])
    assert sorted(again.lines()) == [0, 2] and [t.number for t in again.todo()] == [1]


SLOW = (MEAN[0] + "\ngate = ''", 'import os, time\n' + MEAN[1], """def weights(bars):
    if days < 40: time.sleep(0.04)
    while days == 40 and not os.path.exists(gate): time.sleep(0.02)
    return (bars.close > rolling_mean(bars.close, days)) * 0.9""", 'run = open_run("KO", start="2018-01-01", window=max(days, 1), band=band, cash=100_000)\nresult = trade(run, weights)')


def lines_of(home: Path) -> list[Line]:
    (folder,) = (home / 'sweeps').glob('*')
    return [x for raw in (folder / 'outcomes').read_bytes().splitlines(keepends=True) if (x := read_line(raw)) is not None]


@pytest.mark.parametrize('on', ['here', 'processes'])
def test_killed_in_the_middle_nothing_is_lost_or_counted_twice(on: str, home: Path, tmp_path: Path) -> None:
    """kill -9 while a combination waits; the sweep goes on where it was, each combination is written down once and noted once, and the columns are those of a sweep that nobody disturbed."""
    path, gate = notebook(tmp_path / 'slow.ipynb', *SLOW), tmp_path / 'gate'
    p = launch(home, 'sweep', path, '--grid', 'days=10:60:1', '-p', 'gate', gate, '--on', on, '--workers', 1)
    (folder,) = wait_for(lambda: list((home / 'sweeps').glob('*/outcomes')) or None, 'a log')
    early = wait_for(lambda: lines_of(home), 'an outcome on disk')
    p.send_signal(signal.SIGKILL)
    assert ended(p).returncode == -signal.SIGKILL and 1 <= len(early) < 51
    gate.touch()
    said = one_line(gekko(home, 'sweep', '--resume', folder.parent.name, '--on', 'here', '--json'))
    assert said['done'] == 51 and not said['errors'] and sorted(x.number for x in lines_of(home)) == list(range(51))
    noted = Trials(trials_url(ledger_of(home))).of('slow')
    assert len(noted) == 51 and {t.key for t in noted} == {c['trial'] for c in said['columns']}
    plan, tasks = plan_of(path, ['days=10:60:1'], settings_of(home), {'gate': str(gate)})
    work = make_worker(plan)
    for t in (tasks[0], tasks[30], tasks[50]):
        column = work(t).column
        assert column is not None and str(column.final) == next(c['final'] for c in said['columns'] if c['number'] == t.number)


def test_told_to_end_it_keeps_what_is_done_and_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    path, gate = notebook(tmp_path / 'slow.ipynb', *SLOW), tmp_path / 'gate'
    p = launch(home, 'sweep', path, '--grid', 'days=10:60:1', '-p', 'gate', gate, '--on', 'here')
    wait_for(lambda: list((home / 'sweeps').glob('*/outcomes')) or None, 'a log')
    wait_for(lambda: lines_of(home), 'an outcome on disk')
    p.send_signal(signal.SIGTERM)
    done = ended(p)
    (folder,) = (home / 'sweeps').glob('*')
    assert done.returncode == 1 and f'--resume {folder.name}' in done.stderr and len(lines_of(home)) >= 1
    assert len(Trials(trials_url(ledger_of(home))).of('slow')) == len(lines_of(home))


# ---- tasks

def test_tasks_are_every_combination_once() -> None:
    tasks = Tasks({'a': [1, 2, 3], 'b': ['x'], 'c': [True, False]})
    assert [t.params for t in tasks] == [{'a': a, 'b': 'x', 'c': c} for a in (1, 2, 3) for c in (True, False)]
    assert [t.number for t in tasks[2:5]] == [2, 3, 4] and json.loads(json.dumps(tasks[5].params)) == tasks[5].params


ODD = {
    'a module that reads a variable': ('import os\nos.environ["MEAN_DAYS"] = str(days)\nimport kept', 'kept.DAYS', 'import os\nDAYS = int(os.environ["MEAN_DAYS"])'),
    'a module that is told once': ('import kept\nkept.tell(days)', 'kept.DAYS', 'DAYS = None\ndef tell(days):\n    global DAYS\n    DAYS = DAYS or days'),
    'a module that is told with an answer': ('import kept\nold = kept.tell(days)', 'kept.DAYS', 'DAYS = 20\ndef tell(days):\n    global DAYS\n    DAYS = days\n    return days'),
    'a dict in a dict': ('MINE = {"x": {"days": 20}}\nx = MINE["x"]\nx["days"] = days', 'MINE["x"]["days"]', ''),
    'a class that is set': ('class C: days = 20\ndef tell(c, days): c.days = days\nok = tell(C, days)', 'C.days', ''),
    'a way of rounding': ('import decimal\nk = int(decimal.Decimal(1)/3*days*3 + decimal.Decimal("0.5"))\ndecimal.getcontext().prec = 1', 'k', ''),
    'a file': ('from pathlib import Path\nPath("days.txt").write_text(str(days))\nk = int(Path("days.txt").read_text())', 'k', ''),
}


@pytest.mark.parametrize('odd', ODD)
def test_ways_round_the_names_of_a_notebook(odd: str, place: Path, tmp_path: Path) -> None:
    """Its columns are those of the same strategy with nothing to hide; the grid begins with the value that is there when the way is missed."""
    setup, days, module = ODD[odd]
    (tmp_path / 'kept.py').write_text(module)
    tries = [notebook(tmp_path / 'plain.ipynb', *MEAN), notebook(tmp_path / 'odd.ipynb', MEAN[0], MEAN[1] + '\n' + setup, MEAN[2].replace('bars.close, days', f'bars.close, {days}'))]
    plain, sly = (list(sweep(path, ['days=20,30,50,80'], settings_of(place), executor=Here()).lines.values()) for path in tries)
    assert [x.column for x in sly] == [x.column for x in plain] and len({x.column for x in plain}) == 4


def test_a_full_disk_stops_the_sweep_and_says_how_it_goes_on(place: Path, tmp_path: Path) -> None:
    """No file of the process may grow beyond a few thousand bytes: what can't be noted is not done, and the message has the command."""
    with tidy(tmp_path / 'home') as full:
        path = notebook(tmp_path / 'mean.ipynb', *MEAN)
        assert sweep(path, ['days=20:80:20'], settings_of(full), executor=Here()).complete      # so that the ledger is there
        limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),)*2); from gekko.cli.main import main; main()"
        size = max((f.stat().st_size for f in full.rglob('*.db')), default=4_000)
        done = subprocess.run([sys.executable, '-c', limited, str(size), 'sweep', str(path), '--grid', 'days=10:400:1', '--on', 'here'], env=environ(full), capture_output=True, text=True, timeout=120)
        assert done.returncode == 3 and '--resume' in done.stderr and 'Traceback' not in done.stderr, done.stderr
        sweep_id = done.stderr.split('--resume ')[1].split()[0]
        assert resume(sweep_id, settings_of(full), executor=Here()).complete and len(Trials(trials_url(settings_of(full).ledger)).of('mean')) == 391


def test_modules_of_the_same_name_beside_two_notebooks(place: Path, tmp_path: Path) -> None:
    """One process sweeps two folders, and one of them again when its module was edited."""
    def made(name: str, days: int) -> list[Any]:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / 'kept.py').write_text(f'DAYS = {days}\n')
        path = notebook(tmp_path / name / 'mean.ipynb', MEAN[0], MEAN[1] + '\nimport kept', MEAN[2].replace('bars.close, days', 'bars.close, kept.DAYS'))
        return [x.column for x in sweep(path, ['band=0.01,0.02,0.03,0.05'], settings_of(place), executor=Here()).lines.values()]
    one, other, edited = made('one', 20), made('other', 40), made('one', 100)
    assert one[0] != other[0] != edited[0] != one[0] and 'kept' not in sys.modules


def test_the_examination_is_not_done_again(place: Path, tmp_path: Path) -> None:
    plan, tasks = plan_of(notebook(tmp_path / 'mean.ipynb', *MEAN), ['days=10:50:10'], settings_of(place))
    known, made = examined(plan, tasks)
    assert known.shared and not known.checks and sorted(o.number for o in made) == [0, 4]
