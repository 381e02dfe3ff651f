"""Workers are killed while time runs fast and the clock is set forward and back: every due job has its effect once, none is lost, none doubled, and what waits for another comes after it. GEKKO_CAMPAIGN=10 makes over a
thousand of them, and kills until the last is done."""
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from desk_stage import environ, ledger_of, notebook
from schedule_stage import clock_of

from gekko.domain.time import MINUTE, Nanos, utc
from gekko.jobs.queue import LOST, OPEN, Attempt, Due, Queue, queue_url
from gekko.jobs.schedule import Options, Schedule
from gekko.jobs.when import After, ByCron, Every, Once, When, next_time
from gekko.ledger.database import schedules, writing
from gekko.ledger.runs import Runs

TIMES = int(os.environ.get('GEKKO_CAMPAIGN', '1'))
SPEED = 400
START = utc('2026-03-29T00:40:30Z')      # Berlin's clock jumps from two to three at 01:00
SPAN = (16 if TIMES == 1 else 22 * TIMES) * MINUTE
Key = tuple[str, Nanos]

RUN = """import os, time
def tell(what):
    run = os.path.basename(os.path.dirname(os.environ['GEKKO_RUN']))
    fd = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f'{what} {run} 0 0 {time.monotonic_ns()}\\n'.encode())
    os.close(fd)
tell('run-begin')"""


def start(folder: Path, queue: str, began: int, name: str, lease_s: int = 600) -> subprocess.Popen[bytes]:
    asked = {'folder': str(folder), 'queue': queue, 'start': START, 'began': began, 'speed': SPEED, 'lease_s': lease_s, 'name': name}
    return subprocess.Popen([sys.executable, str(Path(__file__).parents[1] / 'flow' / 'schedule_stage.py'), json.dumps(asked)], stdin=subprocess.PIPE, env=environ(folder, GEKKO_KERNEL='cold'))


def kill(p: subprocess.Popen[bytes], children_too: bool) -> None:
    found = Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split() if children_too else []
    p.kill()
    for pid in found:
        with suppress(ProcessLookupError): os.kill(int(pid), signal.SIGKILL)
    p.communicate()


def times(w: When, end: Nanos) -> list[Nanos]:
    out, at = list[Nanos](), next_time(w, START)
    while at is not None and at <= end: out, at = [*out, at], next_time(w, at)
    return out


def planned(folder: Path, dice: random.Random) -> list[Schedule]:
    """Every way of being due, one after the other and on top of each other, with marks and with notebooks."""
    book = notebook(folder / 'book.ipynb', f"effects = '{folder}/effects'", RUN, "time.sleep(0.3)", "tell('run-end')")
    timed: dict[str, tuple[When, dict[str, object]]] = {
        'a': (Every('1m'), {}), 'b': (ByCron('*/3 * * * *', 'Europe/Berlin'), {'priority': 5}), 'c': (Every('4m', '30s'), {'priority': -5, 'jitter': '2m'}), 'night': (ByCron('30 2 * * *', 'Europe/Berlin'), {}),
        'flaky': (Every('8m'), {'retries': 3, 'backoff': '10s'}), 'book': (Every('15m'), {'priority': 9}), **{f'once-{n}': (Once(START + dice.randrange(SPAN)), {'priority': n}) for n in range(4 * TIMES)}}
    after = {'then': After('a'), 'last': After('then', 'ended'), 'fast': After('b'), 'slow': After('fast'), 'page': After('book'), 'flat': After('flaky')}
    told = [Schedule(n, w, 'x', options=Options(overlap='queue', catch_up='all', start_timeout='', **o)) for n, (w, o) in timed.items()]      # type: ignore[arg-type]
    told += [Schedule(n, w, 'x', options=Options(overlap='queue', start_timeout='', priority=dice.randrange(-9, 10))) for n, w in after.items()]
    return [Schedule(s.name, s.when, str(book) if s.name in ('book', 'page') else f'{s.name}.ipynb', options=s.options) for s in told]


def test_every_due_job_once_while_workers_are_killed(tmp_path: Path) -> None:
    q, dice = Queue(queue_url(ledger_of(tmp_path))), random.Random(20261122 + TIMES)
    (tmp_path / 'marks').mkdir()
    due: dict[str, list[Nanos]] = {}
    for s in planned(tmp_path, dice):
        q.add(s, START)
        due[s.name] = due[s.when.job] if isinstance(s.when, After) else times(s.when, START + SPAN)
    expected, timed, began = sum(map(len, due.values())), {(s.name, at) for s in q.schedules() if s.timed for at in due[s.name]}, time.monotonic_ns()
    clock = clock_of({'start': START, 'began': began, 'speed': SPEED, 'folder': str(tmp_path)})
    steps = [(START + SPAN // 3, 7 * MINUTE), (START + 2 * SPAN // 3, -4 * MINUTE)]      # somebody sets the clock: forward, and later back beyond where it was
    names = ['w0', 'w1']
    workers = [start(tmp_path, q.url, began, name) for name in names]
    kills, patience = (5, 240) if TIMES == 1 else (10_000, 240 + 120 * TIMES)
    killed, jobs, until = 0, list[Due](), time.monotonic() + patience
    try:
        while len(jobs) < expected or any(d.state in OPEN for d in jobs):
            time.sleep(dice.uniform(0.3, 1.5) * (1 if TIMES == 1 else 3) if killed < kills else 0.2)
            if steps and clock.now() > steps[0][0]: set_clock(tmp_path, steps.pop(0)[1])
            n = dice.randrange(2)
            working = [d for d in q.jobs('', 99, 'running') if d.worker == names[n]]
            if working and killed < kills and all(d.attempt < LOST // 2 for d in working):
                kill(workers[n], dice.random() < 0.7)
                killed += 1
                names[n] = f'w{killed + 1}'
                workers[n] = start(tmp_path, q.url, began, names[n])
            jobs = [d for d in q.jobs('', 100_000) if d.due in due[d.schedule]]
            if {(d.schedule, d.due) for d in jobs} >= timed: nothing_new(q)
            assert time.monotonic() < until, [(d.id, d.state, d.reason) for d in jobs if d.state != 'done'][:9]
    finally:
        for p in workers: p.terminate()
        for p in workers: p.wait(60)      # their standard input is open until then: its end would be theirs
        for p in workers: p.communicate()
    judge(q, jobs, due, tmp_path)
    print(f'{len(jobs)} jobs, {killed} workers killed, {sum(d.attempt > 1 for d in jobs)} jobs attempted again, {(time.monotonic_ns() - began) / 1e9:.0f} s')


def nothing_new(q: Queue) -> None:
    """All of the plan has come: what waits is carried out, and nothing more comes by the clock."""
    with writing(q.url, 'the schedule', busy_ms=30_000) as c: c.execute(schedules.update().where(schedules.c.next_due > 0).values(state='done', next_due=0))


def set_clock(folder: Path, by: Nanos) -> None:
    (folder / 'next').write_text(str(by))
    (folder / 'next').replace(folder / 'shift')


def judge(q: Queue, jobs: list[Due], due: dict[str, list[Nanos]], folder: Path) -> None:
    """From outside: what the database says of every time that had to come, and what was left in the file that the jobs write to."""
    assert Counter((d.schedule, d.due) for d in jobs) == Counter((name, at) for name, all_of in due.items() for at in all_of)
    wrong = [(d.id, d.state, d.reason, d.attempt) for d in jobs if d.state != 'done']
    assert not wrong, wrong
    made: dict[Key, list[Attempt]] = {}
    for a in q.attempts('', 1_000_000): made.setdefault((a.schedule, a.due), []).insert(0, a)      # oldest first
    for d in jobs:
        mine = made[d.schedule, d.due]
        assert [a.number for a in mine] == list(range(1, d.attempt + 1)), d
        assert [a.state for a in mine].count('done') == 1 and mine[-1].state == 'done', mine
        assert all(a.state in ('killed', 'failed') and a.reason for a in mine[:-1]), mine
    span = {**marked(folder, jobs), **ran(folder, jobs)}
    for name, all_of in due.items():
        for before, after in zip(all_of, all_of[1:]): assert span[name, after][0] >= span[name, before][1], (name, before, after)
    for s in q.schedules():
        if not isinstance(s.when, After): continue
        for at in due[s.name]: assert span[s.name, at][0] >= span[s.when.job, at][1], (s.name, at)


def lines(folder: Path, *kinds: str) -> list[list[str]]: return [x for x in (line.split() for line in (folder / 'effects').read_text().splitlines()) if x[0] in kinds]


def marked(folder: Path, jobs: list[Due]) -> dict[Key, tuple[int, int]]:
    """When each job that leaves a mark first began and last ended. One effect each, and attempts one after the other."""
    keys = {(d.schedule, d.due): d for d in jobs if d.schedule not in ('book', 'page')}
    assert not lines(folder, 'doubled')
    assert Counter((n, int(at)) for _, n, at, _, _ in lines(folder, 'effect') if (n, int(at)) in keys) == Counter(list(keys))
    at: dict[Key, list[tuple[int, int]]] = {}
    for _, name, due, number, when in lines(folder, 'begin', 'effect', 'end'): at.setdefault((name, int(due)), []).append((int(number), int(when)))
    for key, d in keys.items():
        assert at[key] == sorted(at[key]) and at[key][-1][0] == d.attempt, (d, at[key])
    return {k: (at[k][0][1], at[k][-1][1]) for k in keys}


def ran(folder: Path, jobs: list[Due]) -> dict[Key, tuple[int, int]]:
    """The same of the jobs that are notebooks: one finished run each, which wrote its two lines once; the runs of attempts that were cut off ended before it began, and none of them to the end."""
    told = {(kind, run): int(when) for kind, run, _, _, when in lines(folder, 'run-begin', 'run-end')}
    assert len(told) == len(lines(folder, 'run-begin', 'run-end'))
    runs: dict[Key, list[str]] = {}
    out: dict[Key, tuple[int, int]] = {}
    for r in Runs(ledger_of(folder)).list(limit=100_000):
        if r.state == 'done': runs.setdefault((r.spec['run']['schedule'], r.spec['run']['due']), []).append(r.run_id)
    for d in jobs:
        if d.schedule not in ('book', 'page'): continue
        assert runs[d.schedule, d.due] == [d.run_id], (d, runs[d.schedule, d.due])
        out[d.schedule, d.due] = told['run-begin', d.run_id], told['run-end', d.run_id]
    assert out
    return out
