"""A strategy runs by itself: due now, stopped, cut off with its worker while it trades on paper, and what is refused."""
from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from desk_stage import ON_SERVER, STRATEGIES, alive, at_once, gekko, held, home, ladder, launch, ledger_of, notebook, ok, one_line, runs_of, settings_of, sound_book, store, wait_for

from gekko.domain.time import SystemClock
from gekko.jobs.performing import checked_job, performing, traded
from gekko.jobs.queue import Claim, Due, Queue, queue_url
from gekko.jobs.schedule import Options, Schedule
from gekko.jobs.when import Every
from gekko.ledger.runs import Runs

__all__ = ['home', 'store']


@contextmanager
def working(home: Path, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    p = launch(home, 'schedule', 'serve', '--lease', '2', '--json', *words, **env)
    try: yield p
    finally:
        if p.poll() is None: p.terminate()
        p.communicate(timeout=60)


def queue(home: Path) -> Queue: return Queue(queue_url(ledger_of(home)))


def over(home: Path, name: str) -> Due:
    return wait_for(lambda: next((d for d in queue(home).jobs(name, 1) if d.state not in ('queued', 'running')), None), f'the job of {name} is over', 120)


def test_a_strategy_due_now_and_what_is_written_of_it(home: Path) -> None:
    ok(gekko(home, 'schedule', 'add', 'first', STRATEGIES / 'first.ipynb', '--every', '30d', '-p', 'start', '2015-01-01'))
    bad = notebook(home / 'bad.ipynb', 'n = 1', 'assert n == 2')
    ok(gekko(home, 'schedule', 'add', 'bad', bad, '--every', '30d', '--retries', '1', '--backoff', '1s'))
    ok(gekko(home, 'schedule', 'add', 'next', notebook(home / 'next.ipynb', 'n = 1', 'print(n)'), '--after', 'first'))
    ok(gekko(home, 'schedule', 'add', 'gone', notebook(home / 'gone.ipynb', 'n = 1'), '--every', '30d'))
    (home / 'gone.ipynb').unlink()
    with working(home) as worker:
        for name in ('first', 'bad', 'gone'): ok(gekko(home, 'schedule', 'now', name))
        assert (over(home, 'gone').state, over(home, 'gone').attempt) == ('failed', 1) and 'gone.ipynb' in over(home, 'gone').reason
        done = over(home, 'first')
        assert (done.state, done.attempt) == ('done', 1)
        r = Runs(ledger_of(home)).get(done.run_id)
        assert r.state == 'done' and r.metrics['fills'] > 0 and r.spec['run'] == {'schedule': 'first', 'due': done.due, 'attempt': 1}
        assert (over(home, 'next').state, over(home, 'next').due) == ('done', done.due)
        assert (over(home, 'bad').state, over(home, 'bad').attempt) == ('failed', 2) and 'AssertionError' in over(home, 'bad').reason
        assert worker.poll() is None
    assert worker.returncode == 0 and queue(home).workers() == []
    tried = one_line(gekko(home, 'schedule', 'history', 'bad', '--json'))
    assert [(t['attempt'], t['state']) for t in tried] == [(2, 'failed'), (1, 'failed')] and len({t['run'] for t in tried}) == 2


def ladder_at(home: Path, store: Path, name: str, mode: str) -> tuple[Path, Path]:
    """A ladder in the queue that stops at its sixth decision until it is told to go on: the files with its process and for its going on."""
    pulse, go = home / f'{name}.pulse', home / f'{name}.go'
    words = ['-p', 'stop_at', '5', '-p', 'pulse', str(pulse), '-p', 'go', str(go)]
    ok(gekko(home, 'schedule', 'add', name, ladder(home), '--every', '30d', '--mode', mode, *words, '--retries', '1', '--backoff', '1s', GEKKO_STORE=str(store)))
    ok(gekko(home, 'schedule', 'now', name))
    return pulse, go


def kill_with_children(worker: subprocess.Popen[str]) -> None:
    """Nobody is left who could say anything."""
    pids = [int(p) for p in Path(f'/proc/{worker.pid}/task/{worker.pid}/children').read_text().split()]
    worker.kill()
    for pid in pids: os.kill(pid, signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not any(alive(p) for p in pids), 'the children are gone')


def test_a_worker_killed_while_a_paper_job_and_a_backtest_run(home: Path, store: Path) -> None:
    env = {'GEKKO_STORE': str(store), 'GEKKO_LINGER_S': '2'}
    with working(home, **env) as worker:
        paper, _ = ladder_at(home, store, 'paper', 'paper')
        test, go = ladder_at(home, store, 'test', 'backtest')
        wait_for(lambda: paper.exists() and test.exists(), 'both are at their sixth decision', 120)
        wait_for(lambda: len([d for d in queue(home).jobs('', 9, 'running') if d.progress.startswith('cell 2 of 3')]) == 2 or None, 'the list shows their cells')
        first = {d.schedule: d for d in queue(home).jobs('', 9, 'running')}
        kill_with_children(worker)
    go.touch()
    with working(home, **env):
        done = over(home, 'test')
        assert (done.state, done.attempt) == ('done', 2) and done.run_id != first['test'].run_id
        r = Runs(ledger_of(home)).get(first['paper'].run_id)
        assert r.state == 'killed' and traded(ledger_of(home), r)
        assert held(sound_book(home, r.account)) == {}      # its desk sold what it held, as its policy says
        cut = over(home, 'paper')
        assert (cut.state, cut.attempt) == ('killed', 2) and f'run {r.run_id} had traded on paper' in cut.reason
        assert len([x for x in runs_of(home) if x.mode == 'paper']) == 1
        tried = queue(home).attempts('paper')
        assert [(a.number, a.state) for a in tried] == [(2, 'killed'), (1, 'killed')] and tried[1].reason == 'its worker is gone'
        # and the next time comes as ever, until it is stopped
        paper.unlink()
        ok(gekko(home, 'schedule', 'now', 'paper'))
        wait_for(lambda: paper.exists(), 'it trades again', 120)
        assert one_line(gekko(home, 'schedule', 'stop', 'paper', '--json')) == {'name': 'paper', 'stopped': 1}
        stopped = over(home, 'paper')
        assert stopped.state == 'killed' and stopped.reason.startswith('stopped by ')
        assert held(sound_book(home, Runs(ledger_of(home)).get(stopped.run_id).account)) == {}


def no_kernel(path: Path) -> Path:
    """A notebook whose kernel starts and never answers."""
    spec = path.parent / 'kernels' / 'mute' / 'kernel.json'
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({'argv': ['sleep', '3600'], 'display_name': 'mute', 'language': 'python'}))
    made = json.loads(notebook(path, 'n = 1', 'print(n)').read_text())
    made['metadata']['kernelspec'] = {'name': 'mute', 'display_name': 'mute', 'language': 'python'}
    path.write_text(json.dumps(made))
    return path


def test_what_takes_too_long_or_goes_bad_after_it_was_taken_up_and_the_worker_lives_on(home: Path) -> None:
    asleep = 'import time; time.sleep(3600)'
    cases: dict[str, tuple[Path, dict[str, Any], list[str]]] = {
        'start': (no_kernel(home / 'start.ipynb'), {'start_timeout': '3s'}, ['it took longer than 3s to begin']),
        'cell': (notebook(home / 'cell.ipynb', 'n = 1', 'print(n)', asleep), {'cell_timeout': '4s'}, ['it took longer than 4s in cell']),
        'whole': (notebook(home / 'whole.ipynb', 'n = 1', asleep), {'timeout': '6s'}, ['it took longer than 6s; ']),
        'disk': (notebook(home / 'disk.ipynb', 'n = 1', "with open('/dev/full', 'w') as f: f.write('x' * n)"), {}, ['OSError: [Errno 28] No space left on device (cell']),
        'type': (notebook(home / 'type.ipynb', 'days = 1'), {'retries': 2}, ['days', 'expected', 'found']),
        'unknown': (notebook(home / 'unknown.ipynb', 'days = 1'), {'retries': 2}, ['days'])}
    for name, (path, words, _) in cases.items():
        s = Schedule(name, Every('30d'), str(path), params={'days': 3} if name in ('type', 'unknown') else {}, options=Options(**words))
        queue(home).add(checked_job(s, settings_of(home)), SystemClock().now())
    notebook(home / 'type.ipynb', "days = '1'")      # somebody has changed what was given, since
    notebook(home / 'unknown.ipynb', 'hours = 1')
    with working(home, '--slots', '6', JUPYTER_PATH=str(home)) as worker:
        for name in cases: queue(home).now(name, SystemClock().now())
        for name, (_, _, said) in cases.items():
            d = over(home, name)
            assert (d.state, d.attempt) == ('failed', 1) and all(x in d.reason for x in said), d
        kept = json.loads(Path(Runs(ledger_of(home)).get(over(home, 'cell').run_id).executed).read_text())['cells']
        assert ['n = 1', 'print(n)', asleep] == [''.join(c['source']) for c in kept if c['cell_type'] == 'code' and 'injected-parameters' not in c['metadata'].get('tags', [])]
        assert any('stopped by SIGTERM' in ''.join(c['source']) for c in kept)      # what had run is kept, and where it ended is marked
        full_disk(home, worker)
        assert worker.poll() is None


def full_disk(home: Path, worker: subprocess.Popen[str]) -> None:
    """No file that the worker writes may grow, then it may: nothing is lost, and the job is done."""
    queue(home).add(Schedule('late', Every('30d'), str(notebook(home / 'late.ipynb', 'n = 1', 'print(n)')), options=Options(retries=100, backoff='1s')), SystemClock().now())
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    queue(home).now('late', SystemClock().now())
    if ON_SERVER: wait_for(lambda: [a for a in queue(home).attempts('late') if a.state == 'failed'], 'an attempt fails', 240)
    else:
        assert worker.stderr is not None
        while 'the schedule cannot be written' not in worker.stderr.readline(): assert worker.poll() is None
        assert [(d.state, d.attempt) for d in queue(home).jobs('late')] == [('queued', 0)]
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert over(home, 'late').state == 'done'


def test_a_run_that_had_ended_when_its_worker_died_is_not_made_again(home: Path) -> None:
    """The worker died between the end of the run and its own word of it."""
    path = notebook(home / 'once.ipynb', 'n = 1', "open('ran', 'a').write('x')")
    settings, s = settings_of(home), Schedule('once', Every('1h'), str(path))
    began: list[str] = []
    def begun(run_id: str) -> bool: return began.append(run_id) is None
    first = performing(settings)(Claim(s, 0, 1, 'w', 0), begun)
    again = performing(settings)(Claim(s, 0, 2, 'v', 0, began[0]), begun)
    assert (again.state, again.reason) == (first.state, first.reason) == ('done', 'finished without trading')
    assert (home / 'ran').read_text() == 'x' and len(began) == len(runs_of(home)) == 1


REFUSED = {
    'cron': (['--cron', '0 25 * * *'], 'hour'), 'zone': (['--cron', '0 5 * * *', '--zone', 'Mars/Olympus'], 'time zone'), 'past': (['--at', '2020-01-01T00:00:00Z'], 'time to come'),
    'parameter': (['--every', '1h', '-p', 'days', 'many'], 'int'), 'unknown': (['--every', '1h', '-p', 'hours', '3'], 'hours'), 'secret': (['--every', '1h', '-p', 'api_key', 'x'], 'no secret'),
    'two': (['--every', '1h', '--cron', '0 5 * * *'], '--cron --every'), 'none': ([], '"found":"none"'), 'exchange': (['--session', 'MARS:close'], 'XNYS'), 'after': (['--after', 'nobody'], 'nobody'),
    'overlap': (['--every', '1h', '--overlap', 'maybe'], 'skip queue replace'), 'retries': (['--every', '1h', '--retries', '-1'], 'retries'), 'timeout': (['--every', '1h', '--timeout', 'soon'], 'timeout')}


def test_what_cannot_be_scheduled_is_refused_in_words(home: Path) -> None:
    calls = [lambda w=words: gekko(home, 'schedule', 'add', 'x', STRATEGIES / 'first.ipynb', *w, '--json') for words, _ in REFUSED.values()]
    for (name, (_, word)), done in zip(REFUSED.items(), at_once(*calls), strict=True):
        assert done.returncode == 2 and word in done.stderr + done.stdout, (name, done.stderr, done.stdout)
        said = json.loads((done.stderr + done.stdout).strip())
        assert said['exit_code'] == 2 and said['expected'] and said['found'], said
    gone = gekko(home, 'schedule', 'add', 'x', home / 'gone.ipynb', '--every', '1h', '--json')
    assert gone.returncode == 2 and 'gone.ipynb' in gone.stderr + gone.stdout
    command = gekko(home, 'schedule', 'add', 'x', '--command', 'desk halt', '--every', '1h', '--json')
    assert command.returncode == 2 and 'model day' in command.stderr + command.stdout
    assert one_line(gekko(home, 'schedule', 'list', '--json')) == []
