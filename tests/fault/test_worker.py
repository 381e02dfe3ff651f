"""Workers are killed while time runs fast: every due job once, none lost, none doubled, and what waits for another comes after it. GEKKO_CAMPAIGN=7 makes a thousand of them."""
from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from desk_stage import ledger_of, wait_for
from schedule_stage import clock_of

from gekko.domain.time import MINUTE, Nanos, utc
from gekko.jobs.queue import OPEN, Attempt, Due, Queue, queue_url
from gekko.jobs.schedule import Options, Schedule
from gekko.jobs.when import After, ByCron, Every, When, next_time

TIMES = int(os.environ.get('GEKKO_CAMPAIGN', '1'))
SPEED = 400
START = utc('2026-03-28T20:00:00Z')      # Berlin's clock jumps in the night that follows


def start(folder: Path, queue: str, began: int, name: str, lease_s: int = 600) -> subprocess.Popen[bytes]:
    asked = {'folder': str(folder), 'queue': queue, 'start': START, 'began': began, 'speed': SPEED, 'lease_s': lease_s, 'name': name}
    return subprocess.Popen([sys.executable, str(Path(__file__).parents[1] / 'flow' / 'schedule_stage.py'), json.dumps(asked)], stdin=subprocess.PIPE)


def kill(p: subprocess.Popen[bytes], children_too: bool) -> None:
    found = Path(f'/proc/{p.pid}/task/{p.pid}/children').read_text().split() if children_too else []
    p.kill()
    for pid in found:
        with suppress(ProcessLookupError): os.kill(int(pid), signal.SIGKILL)
    p.communicate()


def times(w: When, end: Nanos) -> set[Nanos]:
    out, at = set[Nanos](), next_time(w, START)
    while at is not None and at <= end: out, at = out | {at}, next_time(w, at)
    return out


def test_every_due_job_once_while_workers_are_killed(tmp_path: Path) -> None:
    q, dice = Queue(queue_url(ledger_of(tmp_path))), random.Random(20261122)
    (tmp_path / 'marks').mkdir()
    plan: dict[str, When] = {'a': Every('1m'), 'b': ByCron('*/3 * * * *', 'Europe/Berlin'), 'c': Every('4m', '30s')}
    for name, w in plan.items(): q.add(Schedule(name, w, 'x.ipynb', options=Options(overlap='queue', catch_up='all')), START)
    q.add(Schedule('then', After('a'), 'x.ipynb', options=Options(overlap='queue')), START)
    q.add(Schedule('last', After('then', 'ended'), 'x.ipynb', options=Options(overlap='queue')), START)
    end = START + 40 * MINUTE * TIMES
    due = {name: times(w, end) for name, w in plan.items()}
    due |= {'then': due['a'], 'last': due['a']}
    began = time.monotonic_ns()
    clock = clock_of({'start': START, 'began': began, 'speed': SPEED, 'folder': str(tmp_path)})
    names = ['w0', 'w1']
    workers = [start(tmp_path, q.url, began, name) for name in names]
    killed, jobs = 0, list[Due]()
    patience = time.monotonic() + 60 + 300 * TIMES
    try:
        while len(jobs) < sum(map(len, due.values())) or any(d.state in OPEN for d in jobs):
            time.sleep(dice.uniform(0.2, 1.5) if clock.now() < end else 0.2)
            if clock.now() < end or killed < 4:
                n = dice.randrange(2)
                wait_for(lambda n=n: [d for d in q.jobs('', 99, 'running') if d.worker == names[n]] or None, 'a worker works')
                kill(workers[n], dice.random() < 0.7)
                killed += 1
                names[n] = f'w{killed + 1}'
                workers[n] = start(tmp_path, q.url, began, names[n])
            else: jobs = [d for d in q.jobs('', 100_000) if d.due in due[d.schedule]]
            assert time.monotonic() < patience, [(d.id, d.state, d.reason) for d in jobs if d.state != 'done'][:9]
    finally:
        for p in workers: p.terminate()
        for p in workers: p.wait(60)      # their standard input is open until then: its end would be theirs
        for p in workers: p.communicate()
    judge(q, jobs, due, tmp_path)
    print(f'{len(jobs)} jobs, {killed} workers killed, {sum(d.attempt > 1 for d in jobs)} jobs attempted again')


def judge(q: Queue, jobs: list[Due], due: dict[str, set[Nanos]], folder: Path) -> None:
    for name, expected in due.items():
        assert sorted(d.due for d in jobs if d.schedule == name) == sorted(expected)
    assert not (folder / 'doubled').exists(), (folder / 'doubled').read_text()
    wrong = [(d.id, d.state, d.reason, d.attempt) for d in jobs if d.state != 'done']
    assert not wrong, wrong
    made: dict[tuple[str, Nanos], list[Attempt]] = {}
    for a in q.attempts('', 1_000_000): made.setdefault((a.schedule, a.due), []).insert(0, a)      # oldest first
    span = dict[tuple[str, Nanos], tuple[int, int]]()      # from the first begin to the last end of what was done for it
    for d in jobs:
        mine = made[d.schedule, d.due]
        assert [a.number for a in mine] == list(range(1, d.attempt + 1)), d
        assert [a.state for a in mine].count('done') == 1 and mine[-1].state == 'done', mine
        assert all(a.state in ('killed', 'failed') and a.reason for a in mine[:-1]), mine
        left = [tuple(map(int, x.split())) for x in (folder / 'marks' / d.id.replace(':', '')).read_text().splitlines()]
        assert left[-1][0] == d.attempt and sorted({n for n, _, _ in left}) == [n for n, _, _ in left], (d, left)
        span[d.schedule, d.due] = left[0][1], left[-1][2]
    for name, expected in due.items():
        for before, after in zip(sorted(expected), sorted(expected)[1:]): assert span[name, after][0] >= span[name, before][1]
    for at in due['a']: assert span['then', at][0] >= span['a', at][1] and span['last', at][0] >= span['then', at][1]
