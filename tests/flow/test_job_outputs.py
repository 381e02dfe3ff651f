"""What a run takes and leaves: parameters from a file, a cell that runs long and can be watched, a cell that fails and is marked, outputs that are pruned."""
from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from desk_stage import REPO, at_once, environ, gekko, ladder, launch, ledger_of, notebook, ok, one_line, runs_of, wait_for

from gekko.jobs.queue import Due, Queue, queue_url
from gekko.ops.jobwatch import read_queue

COLD = {'GEKKO_KERNEL': 'cold'}


@contextmanager
def working(home: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A worker that serves the schedules of a home, ended in the end."""
    p = launch(home, 'schedule', 'serve', '--json', **env)
    try: yield p
    finally:
        if p.poll() is None: p.terminate()
        p.communicate(timeout=240)


def queued(home: Path, name: str) -> Due: return Queue(queue_url(ledger_of(home))).jobs(name, 1)[0]


def over(home: Path, name: str) -> Due: return wait_for(lambda: d if (d := queued(home, name)).state not in ('queued', 'running') else None, f'the job of {name} is over', 240)


def cells_of(executed: str) -> list[dict[str, object]]: return [c for c in json.loads(Path(executed).read_text())['cells'] if c['cell_type'] == 'code']


# Parameters

TYPED = ("cash = 1000.0\nlabel = ''\nzones = ['A']\ndays = 20\nfine = False\nmore = {}", 'print(repr((cash, label, zones, days, fine, more)))')
MEANT = "(250000.1, '2026-01-05', ['NO', 'SE'], 60, False, {'A': [1, 'two', None]})"


def test_a_parameter_file_means_the_same_everywhere(home: Path, tmp_path: Path) -> None:
    typed, given = notebook(tmp_path / 'typed.ipynb', *TYPED), tmp_path / 'given.yaml'
    given.write_text('cash: 250000.10\nlabel: 2026-01-05\nzones: [NO, SE]\ndays: 50\nfine: no\nmore: {A: [1, two, null]}\n')
    (tmp_path / 'given.json').write_text('{"cash": 250000.10, "label": "2026-01-05", "zones": ["NO", "SE"],\n "dais": 50}')
    said = one_line(gekko(home, 'run', typed, '-f', given, '-p', 'days', '60', '--json', **COLD))
    assert said['params'] == {'cash': 250000.1, 'label': '2026-01-05', 'zones': ['NO', 'SE'], 'days': 60, 'fine': False, 'more': {'A': [1, 'two', None]}}
    assert MEANT in Path(said['executed']).read_text()
    planned, refused, twice = at_once(partial(gekko, home, 'schedule', 'add', 'typed', typed, '-f', given, '-p', 'days', '60', '--every', '1d', '--json'),
                                      partial(gekko, home, 'run', typed, '-f', tmp_path / 'given.json'), partial(gekko, home, 'promote', typed, '--explain', '-f', tmp_path / 'none.toml'))
    assert {k: said['params'][k] for k in one_line(planned)['params']} == said['params'] | {'days': 60}
    assert refused.returncode == 2 and 'given.json, line 2: unknown parameter' in refused.stderr and 'did you mean days?' in refused.stderr
    assert twice.returncode == 2 and 'none.toml: No such file' in twice.stderr
    shown = ok(gekko(home, 'runs', 'show', said['run_id']))
    assert 'cold (not asked for), seed of hash(): random' in shown


# A cell that runs long

HELD = ("pipe = ''", 'first = 1', """import ctypes, os
print('before')
with open(pipe, 'rb') as f: ctypes.PyDLL(None).read(f.fileno(), ctypes.create_string_buffer(1), 1)      # in C, and nothing else of Python runs meanwhile""", "print('after')")


def test_a_cell_that_lets_nothing_else_run_can_be_watched(home: Path, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / 'pipe')
    old = one_line(gekko(home, 'run', notebook(tmp_path / 'old.ipynb', 'n = 1', 'n'), '--json', **COLD))
    ok(gekko(home, 'schedule', 'add', 'held', notebook(tmp_path / 'held.ipynb', *HELD), '--every', '30d', '-p', 'pipe', pipe))
    with working(home, GEKKO_KEEP_RUNS='0', **COLD):
        ok(gekko(home, 'schedule', 'now', 'held'))
        with open(pipe, 'wb') as w:      # it is in its cell: both ends are open
            seen = wait_for(lambda: d if (d := queued(home, 'held')).progress == 'cell 3 of 4' else None, 'the worker says where it is', 240)
            before = wait_for(lambda: workers[0] if (workers := Queue(queue_url(ledger_of(home))).workers()) else None, 'the worker is there')
            runs, schedules = at_once(partial(gekko, home, 'runs', 'list', '--json'), partial(gekko, home, 'schedule', 'list', '--json'))
            assert [(r['state'], r['ended']) for r in one_line(runs)][:1] == [('running', 'cell 3 of 4')] and one_line(schedules)[0]['at'] == 'cell 3 of 4'
            assert 'running (cell 3 of 4)' in ok(gekko(home, 'runs', 'show', seen.run_id))
            assert read_queue(ledger_of(home)).dues[0].progress == 'cell 3 of 4', 'the jobs dashboard has it'
            wait_for(lambda: Queue(queue_url(ledger_of(home))).workers()[0]['beat'] > before['beat'] or None, 'the worker goes on beating', 240)
            assert [c['metadata']['papermill']['status'] for c in cells_of(runs_of(home)[0].executed)[-3:]] == ['completed', 'running', 'pending']      # type: ignore[index]
            w.write(b'x')
        assert over(home, 'held').state == 'done'
    assert 'after' in Path(runs_of(home)[0].executed).read_text() and not Path(old['executed']).exists(), 'the worker pruned before its job, and not its own'


# A cell that fails

def test_what_had_run_is_kept_and_the_cell_that_failed_is_marked(home: Path, tmp_path: Path) -> None:
    raises = notebook(tmp_path / 'raises.ipynb', 'n = 1', "print('kept')", "raise ValueError('not this')", "print('never')")
    dies = notebook(tmp_path / 'dies.ipynb', 'n = 1', "print('kept')", 'import os\nos.kill(os.getpid(), 9)', "print('never')")
    first, second = at_once(partial(gekko, home, 'run', raises, '--json', **COLD), partial(gekko, home, 'run', dies, '--json', **COLD))
    for done, reason in ((first, 'ValueError: not this (cell 3)'), (second, 'the kernel died')):
        said = one_line(done, 1)
        cells = cells_of(said['executed'])
        assert said['exit_reason'] == reason, said
        assert [c['metadata']['papermill']['status'] for c in cells[-3:]] == ['completed', 'failed', 'pending']      # type: ignore[index]
        assert 'kept' in json.dumps(cells[-3]['outputs']) and not cells[-1]['outputs']
        assert list(Path(said['executed']).parent.glob('.executed*')) == [], 'nothing half written is left'
    marks = [Path(one_line(x, 1)['executed']).read_text().count('papermill-error-cell-tag') for x in (first, second)]
    assert marks == [2, 2] and 'gekko: the kernel died' in Path(one_line(second, 1)['executed']).read_text()


# Pruning

def test_old_outputs_go_and_a_run_is_made_again_from_what_stays(home: Path, store: Path, tmp_path: Path) -> None:
    env = {**COLD, 'GEKKO_STORE': str(store)}
    for made in at_once(*[partial(gekko, home, 'run', ladder(tmp_path), '--json', **env)] * 2): ok(made)
    new, old = runs_of(home)
    would = one_line(gekko(home, 'runs', 'prune', '--keep', '1', '--dry-run', '--json'))
    assert [r['run'] for r in would['runs']] == [old.run_id] and would['bytes'] > 10_000 and Path(old.executed).exists()
    did = one_line(gekko(home, 'runs', 'prune', '--keep', '1', '--json'))
    assert did == would | {'dry_run': False} and did['kept'] == {'among the newest': 1}
    left = {p.name for p in Path(old.executed).parent.iterdir()}
    assert left >= {'journal.db', 'source.ipynb', 'run.json', 'pruned.json'} and not left & {'executed.ipynb', 'result.msgpack', 'kernel.log'} and Path(new.executed).exists()
    shown, again, refused, sheet = at_once(partial(gekko, home, 'runs', 'show', old.run_id), partial(gekko, home, 'runs', 'rerun', old.run_id, '--json', **env), partial(gekko, home, 'runs', 'prune'),
                                           partial(gekko, home, 'runs', 'sheet', old.run_id, '--out', tmp_path / 'sheet.html'))
    assert 'pruned at 20' in ok(shown) and 'the newest 1 of each notebook' in shown.stdout and 'books agree       yes' in shown.stdout
    assert one_line(again)['identical'] is True and refused.returncode == 2 and 'GEKKO_KEEP_RUNS' in refused.stderr
    assert sheet.returncode == 2 and f'gekko runs rerun {old.run_id}' in sheet.stderr


# Kernels

def test_where_our_kernel_is_not_installed_a_cold_one_runs_and_that_is_said(home: Path, tmp_path: Path) -> None:
    bare = tmp_path / 'bare'
    venv.create(bare, symlinks=True)      # another environment with the same packages, and no kernel of ours
    [found] = bare.glob('lib/python*/site-packages')
    (found / 'same.pth').write_text(f'import site; site.addsitedir({sysconfig.get_path("purelib")!r})\nimport sys; sys.path.append({str(REPO)!r})\n')
    ours = notebook(tmp_path / 'ours.ipynb', 'n = 1', "print('it ran')")
    ours.write_text(ours.read_text().replace('"name": "python3"', '"name": "gekko"'))
    done = subprocess.run([bare / 'bin' / 'python', '-c', 'from gekko.cli.main import main; main()', 'run', ours, '--json'], env=environ(home, GEKKO_KERNEL='warm'), cwd=tmp_path, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    said = one_line(done)
    assert said['state'] == 'done' and 'it ran' in Path(said['executed']).read_text()
    assert done.stderr == 'gekko: ours.ipynb runs on a cold python3: the kernel gekko is not installed (gekko kernel install)\n'
    assert runs_of(home)[0].spec['kernel'] == {'start': 'cold', 'why': 'not asked for', 'hash_seed': 'random'}
