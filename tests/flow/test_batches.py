"""A sweep that the standing workers carry out: whoever dies and whoever waits, each combination has one run that ended, and its effects are there once."""
from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from desk_stage import ended, gekko, launch, ledger_of, notebook, ok, one_line, settings_of, tidy, wait_for

from gekko.jobs import warm
from gekko.jobs.kernelspec import spec
from gekko.jobs.on_workers import at_work
from gekko.jobs.queue import Due, Queue, queue_url
from gekko.jobs.ray_nodes import switched_off
from gekko.jobs.sweep_runs import of_sweep
from gekko.jobs.sweeping import sweep
from gekko.jobs.warm import Place
from gekko.research.sweep import Here
from gekko.research.trials import Trials, trials_url

GATED = ("days = 50\nlate = 1000\nfolder = ''", 'import os, time\nfrom pathlib import Path\nfrom gekko.api import open_run, rolling_mean, trade',
         """def weights(bars): return (bars.close > rolling_mean(bars.close, days)) * 0.9
Path(folder, f'at-{days}').touch()
while days >= late and not Path(folder, 'go').exists(): time.sleep(0.02)
result = trade(open_run("KO", start="2018-01-01", window=days, cash=100_000), weights)""",
         """with open(Path(folder, 'effects'), 'a') as f: f.write(f'{days}\\n')      # what a second run would do a second time""")
PATIENT = 240.0


LOADED = ['ipykernel.kernelapp', 'ipykernel.ipkernel', 'IPython', 'numpy', 'pandas', 'sqlalchemy', 'pydantic']


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home, and kernels that are forked from a small process of the tests' own: there are nearly twenty of them."""
    here = tmp_path_factory.mktemp('batches')
    (here / 'run').mkdir(mode=0o700)
    (to := here / 'jupyter' / 'kernels' / 'gekko').mkdir(parents=True)
    words = spec()
    words['metadata']['kernel_provisioner']['config'] = {'preload': LOADED, 'wait_s': 120}
    (to / 'kernel.json').write_text(json.dumps(words))
    with pytest.MonkeyPatch.context() as m, tidy(here / 'home') as made:
        m.setenv('XDG_RUNTIME_DIR', str(here / 'run'))
        m.setenv('JUPYTER_PATH', str(here / 'jupyter'))
        yield made
        for f in (here / 'run').rglob('warm-*.sock'):
            if said := warm.status(Place((), (), str(f).removesuffix('.sock'))):
                with suppress(ProcessLookupError): os.kill(said['pid'], signal.SIGKILL)


@contextmanager
def working(home: Path, slots: int) -> Iterator[subprocess.Popen[str]]:
    """A worker that has said that it is there, and is gone at the end."""
    p = launch(home, 'schedule', 'serve', '--slots', slots, '--lease', '2', '--json')
    try:
        wait_for(lambda: [w for w in queue(home).workers() if w['pid'] == p.pid], 'a worker', PATIENT)
        yield p
    finally:
        if p.poll() is None: p.terminate()
        p.communicate(timeout=PATIENT)


def queue(home: Path) -> Queue: return Queue(queue_url(ledger_of(home)))
def effects(folder: Path) -> list[int]: return [int(x) for x in (folder / 'effects').read_text().split()] if (folder / 'effects').exists() else []


def over(home: Path, name: str) -> Due:
    return wait_for(lambda: next((d for d in queue(home).jobs(name, 1) if d.state not in ('queued', 'running')), None), f'the job of {name} is over', PATIENT)


def test_a_worker_and_whoever_waits_are_gone_half_way(place: Path, tmp_path: Path) -> None:
    """SIGKILL to the worker and all below it while combinations run, and Ctrl-C to the command that waits: another worker and another command end the sweep, as if nothing had happened."""
    path, words = notebook(tmp_path / 'mean.ipynb', *GATED), ['--grid', 'days=20:130:10', '-p', 'late', '60', '-p', 'folder', str(tmp_path)]
    refused = gekko(place, 'sweep', path, *words, '--on', 'workers', '--json')
    assert refused.returncode == 2 and 'gekko schedule serve' in refused.stderr + refused.stdout and not (place / 'sweeps').exists()
    with working(place, 3) as worker:
        waiting = launch(place, 'sweep', path, *words, '--on', 'workers')
        held = lambda: sorted(effects(tmp_path)) == [20, 30, 40, 50] and len([d for d in queue(place).jobs('', 99, 'running') if d.run_id]) == 3 and len(list(tmp_path.glob('at-*'))) == 7
        wait_for(held, 'four are done and three at the gate', PATIENT)
        (log,) = (place / 'sweeps').iterdir()
        waiting.send_signal(signal.SIGINT)
        told = ended(waiting, PATIENT)
        assert told.returncode == 1 and 'the workers go on' in told.stderr and f'--resume {log.name} waits' in told.stderr, told.stderr
        assert switched_off(worker.pid) >= 4      # itself and a child for each job, at the least
    assert at_work(settings_of(place), log.name) == 8
    here = gekko(place, 'sweep', '--resume', log.name, '--on', 'here', '--json')
    assert here.returncode == 2 and '8 jobs in the queue' in here.stderr + here.stdout
    (tmp_path / 'go').touch()
    with working(place, 4): said = one_line(gekko(place, 'sweep', '--resume', log.name, '--json', timeout_s=PATIENT))
    assert said['done'] == 12 and not said['errors'] and said['sweep'] == log.name
    assert sorted(effects(tmp_path)) == list(range(20, 131, 10))
    made = of_sweep(ledger_of(place), log.name)
    assert Counter(r.spec['run']['task'] for r in made if r.state == 'done') == Counter(range(12)) and [r.state for r in made if r.state != 'done'] == ['killed'] * 3
    assert len(Trials(trials_url(ledger_of(place))).of('mean')) == 12
    assert {d.state for d in queue(place).jobs(f'sweep-{log.name}', 99)} == {'done'} and queue(place).get(f'sweep-{log.name}').state == 'done'
    alone = sweep(path, ['days=20:130:10'], settings_of(place), {'late': 1000, 'folder': str(tmp_path)}, executor=Here())
    assert {c['number']: c['final'] for c in said['columns']} == {n: str(alone.column(n).final) for n in range(12)}


BATCH = [{'notebook': 'plain.ipynb', 'params': {'n': 1}}, {'notebook': 'plain.ipynb', 'name': 'next', 'after': 'plain', 'params': {'n': 2}}, {'notebook': 'plain.ipynb', 'name': 'bad', 'params': {'n': 0}},
         {'notebook': 'plain.ipynb', 'name': 'never', 'after': 'bad', 'params': {'n': 3}}, {'notebook': 'plain.ipynb', 'name': 'report', 'after': 'bad:ended', 'params': {'n': 4}}]


def test_a_batch_and_a_nightly_sweep(place: Path, tmp_path: Path) -> None:
    """Put twice it is done once, in its order; what must not follow does not. A sweep that a schedule makes is a sweep like any other."""
    notebook(tmp_path / 'plain.ipynb', 'n = 1', 'assert n, "nothing"', "with open('effects', 'a') as f: f.write(f'{n}\\n')")
    (tmp_path / 'month.jsonl').write_text('\n'.join(map(json.dumps, BATCH)))
    first, again = (one_line(gekko(place, 'batch', 'add', tmp_path / 'month.jsonl', '--json')) for _ in range(2))
    assert (first['new'], again['new'], first['over']) == (True, False, False) and len(queue(place).schedules()) >= 5
    (tmp_path / 'month.jsonl').write_text(json.dumps(BATCH[0]))
    other = gekko(place, 'batch', 'add', tmp_path / 'month.jsonl', '--json')
    assert other.returncode == 2 and 'other jobs' in other.stderr + other.stdout
    mean = notebook(tmp_path / 'nightly.ipynb', *GATED[:3])
    ok(gekko(place, 'schedule', 'add', 'nightly', '--every', '30d', '--command', f'sweep {mean} --grid days=20,30,40 -p folder {tmp_path} --on here'))
    with working(place, 4):
        ok(gekko(place, 'schedule', 'now', 'nightly'))
        said = wait_for(lambda: (s := one_line(gekko(place, 'batch', 'show', 'month', '--json')))['over'] and s, 'the batch is over', PATIENT)
        night = over(place, 'nightly')
    assert {r['job']: r['state'] for r in said['jobs']} == {'plain': 'done', 'next': 'done', 'bad': 'failed', 'never': 'never', 'report': 'done'} and not said['ok']
    assert sorted(effects(tmp_path)) == [1, 2, 4] and effects(tmp_path).index(1) < effects(tmp_path).index(2)
    told: dict[str, Any] = json.loads(night.reason)
    assert night.state == 'done' and (told['combinations'], told['done']) == (3, 3) and len(Trials(trials_url(ledger_of(place))).of('nightly')) == 3
