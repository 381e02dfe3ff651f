"""What a queue makes of its schedules while the test says what time it is: clocks that jump, policies, limits, and a worker whose disk is full."""
from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from desk_stage import ledger_of

from gekko.domain.errors import BadInput
from gekko.domain.time import HOUR, MINUTE, SECOND, Nanos, utc
from gekko.jobs.queue import GONE, Claim, Due, Queue, queue_url
from gekko.jobs.runner import stop_in
from gekko.jobs.schedule import Options, Schedule
from gekko.jobs.when import ByCron, Every, OnData, When, as_words
from gekko.jobs.worker import Outcome, Perform, Worker, given_up
from gekko.ledger.database import schedules, writing

T = utc('2026-03-02T00:00:30Z')      # half a minute past, so that the minutes are ahead


@pytest.fixture
def q(tmp_path: Path) -> Queue: return Queue(queue_url(ledger_of(tmp_path)))


def add(q: Queue, name: str = 'a', when: When = Every('1m'), mode: str = 'backtest', venue: str = '', **options: object) -> Schedule:
    return q.add(Schedule(name, when, 'x.ipynb', mode=mode, venue=venue, options=Options(**options)), T)      # type: ignore[arg-type]


def take(q: Queue, now: Nanos, worker: str = 'w', slots: int = 9) -> Claim | None: return q.claim(worker, 'here', slots, now, MINUTE)


def taken(q: Queue, now: Nanos) -> Claim:
    claim = take(q, now)
    assert claim is not None
    return claim


def minutes(q: Queue, *states: str) -> list[int]: return sorted((d.due - T) // MINUTE for d in q.jobs('', 999, *states))


# Clocks

@pytest.mark.parametrize(('policy', 'queued', 'left'), [('latest', [9], [0]), ('all', list(range(10)), []), ('none', [], [0])])
def test_a_clock_set_forward_is_caught_up_by_policy(q: Queue, policy: str, queued: list[int], left: list[int]) -> None:
    add(q, catch_up=policy, grace='10s', overlap='queue')
    q.make_due(T + 10 * MINUTE)
    assert (minutes(q, 'queued'), minutes(q, 'skipped')) == (queued, left)
    assert q.get('a').next_due == T + 10 * MINUTE + 30 * SECOND
    assert q.make_due(T + 10 * MINUTE) == 0


def test_what_is_late_within_its_grace_is_not_missed(q: Queue) -> None:
    add(q, catch_up='none', grace='1m')
    assert q.make_due(T + 80 * SECOND) == 1 and minutes(q, 'skipped') == []


def test_a_clock_set_back_waits_again_and_makes_nothing_twice(q: Queue) -> None:
    add(q, overlap='queue')
    for n in range(1, 4): q.make_due(T + n * MINUTE)
    q.rewind(T)
    assert q.get('a').next_due == T + 30 * SECOND
    assert [q.make_due(T + n * MINUTE) for n in range(1, 5)] == [0, 0, 0, 1]
    assert minutes(q) == [0, 1, 2, 3]


def test_years_of_absence_are_one_job(q: Queue) -> None:
    add(q, when=ByCron('* * * * *', 'Europe/Berlin'))
    assert q.make_due(T + 3 * 365 * 24 * HOUR) >= 1
    assert len(q.jobs('', 9, 'skipped')) == 1 and q.get('a').next_due > T + 3 * 365 * 24 * HOUR


# What is due while the one before is not over

def test_skipped_queued_or_in_its_place(q: Queue) -> None:
    for policy in ('skip', 'queue', 'replace'): add(q, policy, overlap=policy)
    q.make_due(T + MINUTE)
    held = {c.schedule.name: c for c in (taken(q, T + MINUTE) for _ in range(3))}
    q.make_due(T + 2 * MINUTE)
    assert {d.schedule: d.state for d in q.jobs('', 9) if d.due > T + MINUTE} == {'skip': 'skipped', 'queue': 'queued', 'replace': 'queued'}
    assert take(q, T + 100 * SECOND) is None
    assert {d.schedule for d in q.jobs('', 9, 'running') if d.stop_asked} == {'replace'}
    for c in held.values(): q.finish(c, 'killed' if c.schedule.name == 'replace' else 'done', 'x', T + 2 * MINUTE, again=True)
    assert {taken(q, T + 2 * MINUTE).schedule.name for _ in range(2)} == {'queue', 'replace'} and take(q, T + 2 * MINUTE) is None
    assert [d.state for d in q.jobs('replace', 9)] == ['running', 'killed']


# Who goes first, and who may go at all

def test_the_urgent_first_then_the_oldest(q: Queue) -> None:
    add(q, 'slow', priority=-5)
    add(q, 'b')
    add(q, 'urgent', priority=5)
    q.make_due(T + MINUTE)
    assert [taken(q, T + MINUTE).schedule.name for _ in range(3)] == ['urgent', 'b', 'slow']


def test_one_job_for_an_account_and_so_many_for_a_machine(q: Queue) -> None:
    add(q, 'a', mode='live', venue='one')
    add(q, 'b', mode='live', venue='one')
    add(q, 'c', mode='live', venue='two')
    q.make_due(T + MINUTE)
    first, other = taken(q, T + MINUTE), taken(q, T + MINUTE)
    assert (first.schedule.name, other.schedule.name) == ('a', 'c') and take(q, T + MINUTE) is None
    q.finish(first, 'done', '', T + MINUTE)
    assert take(q, T + MINUTE, slots=1) is None      # c has the machine's only place
    assert taken(q, T + MINUTE).schedule.name == 'b'


def test_a_spread_begin_is_the_same_whoever_asks(q: Queue, tmp_path: Path) -> None:
    names = [f's{n}' for n in range(20)]
    for name in names: add(q, name, jitter='10m')
    q.make_due(T + MINUTE)
    ready = {d.schedule: d.ready_at - d.due for d in q.jobs('', 99)}
    assert set(ready) == set(names) and len(set(ready.values())) > 15 and all(0 <= r <= 10 * MINUTE for r in ready.values())
    late = max(ready.values())
    assert sum(take(q, T + 30 * SECOND + late - 1, slots=99) is not None for _ in names) == 19
    (tmp_path / 'other').mkdir()
    again = Queue(queue_url(ledger_of(tmp_path / 'other')))
    for name in names: add(again, name, jitter='10m')
    again.make_due(T + MINUTE)
    assert {d.schedule: d.ready_at - d.due for d in again.jobs('', 99)} == ready


# Attempts

def test_what_failed_is_tried_again_later_and_later(q: Queue) -> None:
    add(q, retries=2, backoff='10s', overlap='queue', when=Every('1h'))
    now = q.get('a').next_due
    q.make_due(now)
    for wait in (10, 20):
        assert q.finish(taken(q, now), 'failed', 'broke', now, again=True) == 'queued'
        assert take(q, now + wait * SECOND - 1) is None
        now += wait * SECOND
    assert q.finish(taken(q, now), 'failed', 'broke', now, again=True) == 'failed'
    assert [a.state for a in q.attempts('a')] == ['failed'] * 3 and take(q, now + HOUR // 2) is None


def test_what_cannot_succeed_is_not_tried_again(q: Queue) -> None:
    add(q, retries=9)
    q.make_due(T + MINUTE)
    assert q.finish(taken(q, T + MINUTE), 'failed', 'a parameter of the wrong type', T + MINUTE) == 'failed'
    assert take(q, T + HOUR) is None


def test_what_nobody_asked_to_end_goes_back_but_not_for_ever(q: Queue) -> None:
    add(q)
    q.make_due(T + MINUTE)
    said = []
    while (c := take(q, T + MINUTE)) is not None: said.append(q.finish(c, 'killed', 'stopped by SIGTERM', T + MINUTE, again=True))
    assert said == ['queued'] * 9 + ['killed'] and q.jobs('a')[0].failures == 0


def test_an_outcome_of_one_that_lost_its_job_is_not_written(q: Queue) -> None:
    add(q)
    q.make_due(T + MINUTE)
    old = taken(q, T + MINUTE)
    new = taken(q, T + 3 * MINUTE)
    assert (old.number, new.number) == (1, 2) and not q.begun(old, 'r') and q.finish(old, 'done', '', T + 3 * MINUTE) == ''
    assert q.finish(new, 'done', '', T + 4 * MINUTE) == 'done'
    assert [(a.number, a.state, a.reason) for a in q.attempts('a')] == [(2, 'done', ''), (1, 'killed', GONE)]


def test_new_bars_are_a_job_and_old_ones_none(q: Queue) -> None:
    add(q, when=OnData('BTC-USD', '1m'))
    last = T - HOUR
    def newest(symbol: str, bar: str) -> Nanos: return last if (symbol, bar) == ('BTC-USD', '1m') else 0
    assert q.make_due(T + MINUTE, newest) == 0      # they were there before it was added
    last = T + MINUTE
    assert [q.make_due(T + 2 * MINUTE, newest), q.make_due(T + 3 * MINUTE, newest)] == [1, 0]
    assert minutes(q) == [1]


# A worker, turn by turn

class Hand:
    """A clock that moves when the test says so, and one on the wall that can be set."""
    def __init__(self) -> None: self.at = self.moved = 0
    def monotonic(self) -> Nanos: return self.at
    def now(self) -> Nanos: return T + self.at + self.moved


def worker(q: Queue, folder: Path, perform: Perform, said: list[str], **more: object) -> tuple[Worker, Hand]:
    clock = Hand()
    return Worker(q, clock, perform, folder, name='w', say=said.append, **more), clock      # type: ignore[arg-type]


def turn(w: Worker, until: Callable[[], object]) -> None:
    patience = time.monotonic() + 240
    while not until():
        assert time.monotonic() < patience
        w.step()
        time.sleep(0.01)


def open_jobs(q: Queue) -> list[Due]: return q.jobs('', 9, 'queued', 'running')


def forever(claim: Claim, begun: Callable[[str], bool]) -> Outcome:
    begun('run-1')
    while True: signal.pause()


@pytest.mark.parametrize(('limit', 'cell', 'words'), [({'timeout': '5m'}, 1, '5m'), ({'start_timeout': '2m'}, 0, '2m to begin'), ({'cell_timeout': '3m'}, 2, '3m in cell 2')])
def test_what_takes_too_long_is_ended_and_is_a_failure(q: Queue, tmp_path: Path, limit: dict[str, str], cell: int, words: str) -> None:
    said: list[str] = []
    w, clock = worker(q, tmp_path, forever, said, look=lambda run_id: (cell, 'a cell'))
    add(q, when=Every('1h'), **limit)
    q.now('a', clock.now())
    def beat() -> bool:
        clock.at += 3 * SECOND
        return bool(w.children and w.children[0].run_id and w.children[0].cell == cell)
    turn(w, beat)
    clock.at += 6 * MINUTE
    turn(w, lambda: not open_jobs(q) and not w.children)
    (d,) = q.jobs('a', 9, 'failed')
    assert d.reason.startswith(f'it took longer than {words}') and d.attempt == 1


def test_a_worker_that_is_told_to_end_gives_its_job_back(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    w, clock = worker(q, tmp_path, forever, said)
    add(q, when=Every('1h'))
    q.now('a', clock.now())
    turn(w, lambda: any(d.run_id for d in q.jobs('a', 1, 'running')))
    w.stopping, w._beat = True, -10**18
    turn(w, lambda: not w.children)
    (d,) = q.jobs('a')
    assert (d.state, d.failures) == ('queued', 0) and 'its worker was stopped' in d.reason, d


def test_a_worker_says_how_a_job_ended(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done' if claim.schedule.name == 'a' else 'failed', 'broke'), said)
    for name in 'ab':
        add(q, name, when=Every('1h'))
        q.now(name, clock.now())
    w.step()
    patience = time.monotonic() + 60
    while open_jobs(q): assert time.monotonic() < patience
    clock.at += HOUR // 4      # the heartbeat comes before the worker has heard that they are over
    w._pulse()
    turn(w, lambda: not w.children)
    assert not any('is ended' in line for line in said), said
    assert [line.split(' ', 1)[1] for line in sorted(said) if 'begins' not in line] == ['done in 0.0 s', 'failed in 0.0 s: broke']


def test_a_stop_within_a_call_of_the_queue_waits_for_its_answer(q: Queue, tmp_path: Path) -> None:
    """Between a question and its answer a connection can do nothing else; an error of the database would hide the stop."""
    class Slow(Queue):
        def begun(self, claim: Claim, run_id: str) -> bool:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().begun(claim, run_id)
    slow = Slow(q.url)
    said: list[str] = []
    w, clock = worker(slow, tmp_path, forever, said)
    add(slow, when=Every('1h'))
    q.now('a', clock.now())
    turn(w, lambda: q.attempts('a') and q.attempts('a')[-1].ended)
    first = q.attempts('a')[-1]
    assert (first.state, first.run_id) == ('killed', 'run-1') and 'SIGTERM' in first.reason
    w.stopping, w._beat = True, -10**18
    turn(w, lambda: not w.children)


@pytest.mark.sqlite
def test_a_full_disk_stops_the_queue_and_not_the_worker(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done', 'finished'), said)
    add(q, when=Every('1h'))
    q.now('a', clock.now())
    before, signs = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        for _ in range(3): w.step()
        assert len(said) == 1 and 'the schedule cannot be written' in said[0], said
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signs)
    turn(w, lambda: q.jobs('a', 1, 'done') and not w.children)
    assert 'the queue answers again' in said


def test_a_stop_is_found_behind_the_error_of_a_library() -> None:
    with pytest.raises(BadInput) as e:
        try: raise KeyError('x')
        except KeyError as cause: raise BadInput('y') from cause
    assert stop_in(e.value) is None


# Clocks that people and countries change, through the queue

DAY = 24 * HOUR
SUMMER, WINTER, LEAP = utc('2026-03-28T12:00:00Z'), utc('2026-10-24T12:00:00Z'), utc('2028-02-27T12:00:00Z')


@pytest.mark.parametrize(('cron', 'since', 'expected'), [
    ('30 2 * * *', SUMMER, ['2026-03-29T01:00:00Z', '2026-03-30T00:30:00Z', '2026-03-31T00:30:00Z']),      # half past two is not there: at the jump
    ('30 2 * * *', WINTER, ['2026-10-25T00:30:00Z', '2026-10-26T01:30:00Z', '2026-10-27T01:30:00Z']),      # it is there twice: once
    ('0 0 29 2 *', LEAP, ['2028-02-28T23:00:00Z']),
    ('0 9 * * *', LEAP, ['2028-02-28T08:00:00Z', '2028-02-29T08:00:00Z', '2028-03-01T08:00:00Z'])])
def test_a_days_job_where_clocks_jump_and_in_a_leap_year(q: Queue, cron: str, since: Nanos, expected: list[str]) -> None:
    assert due_through(q, cron, since, 3 * DAY) == [utc(x) for x in expected]


@pytest.mark.parametrize('night', ['2026-03-28T22:00:00Z', '2026-10-24T22:00:00Z', '2028-02-28T20:00:00Z'])
def test_every_half_hour_is_every_half_hour(q: Queue, night: str) -> None:
    assert due_through(q, '*/30 * * * *', utc(night), 6 * HOUR) == [utc(night) + n * HOUR // 2 for n in range(1, 13)]


def due_through(q: Queue, cron: str, since: Nanos, length: Nanos) -> list[Nanos]:
    """The jobs that so much time leaves behind, of a worker that looks now and then and carries out what it finds."""
    q.add(Schedule('a', ByCron(cron, 'Europe/Berlin'), 'x.ipynb', options=Options(overlap='queue', catch_up='all')), since)
    dice, now = random.Random(since), since
    while now < since + length:
        now = min(now + dice.randrange(1, length // MINUTE // 9) * MINUTE, since + length)
        q.make_due(now)
        while (c := take(q, now)) is not None: assert q.finish(c, 'done', '', now) == 'done'
    assert all(d.state == 'done' and d.attempt == 1 for d in q.jobs('a', 999))
    return [d.due for d in reversed(q.jobs('a', 999))]


def test_a_leap_day_comes_again_in_four_years(q: Queue) -> None:
    q.add(Schedule('a', ByCron('0 0 29 2 *'), 'x.ipynb'), T)
    assert q.get('a').next_due == utc('2028-02-29')
    assert [q.make_due(utc('2028-02-28T23:59:59Z')), q.make_due(utc('2028-02-29')), q.get('a').next_due] == [0, 1, utc('2032-02-29')]


def test_a_worker_whose_clock_is_set_forward_and_back(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done'), said)
    add(q, overlap='queue', catch_up='all')
    def on(by: Nanos) -> None:
        clock.at += by
        w.step()
        turn(w, lambda: not open_jobs(q) and not w.children)
    for moved in (0, 7 * MINUTE, -9 * MINUTE):
        clock.moved += moved
        for _ in range(5): on(MINUTE)
    assert minutes(q) == minutes(q, 'done') == list(range(17)), said      # to the 5th minute, from the 12th to the 17th, and from the 8th to the 13th once more
    for _ in range(7): on(MINUTE)
    assert minutes(q) == minutes(q, 'done') == list(range(20)) and all(d.attempt == 1 for d in q.jobs('a', 99))


def test_what_a_dead_worker_held_by_a_clock_that_was_wrong_is_not_held_for_an_hour(q: Queue) -> None:
    add(q)
    q.make_due(T + MINUTE)
    assert taken(q, T + HOUR).number == 1 and take(q, T + 10 * MINUTE) is None
    q.rewind(T + 10 * MINUTE, MINUTE)
    assert take(q, T + 11 * MINUTE) is None and taken(q, T + 11 * MINUTE + 1).number == 2


# Another machine

def test_a_worker_of_another_machine_takes_over_when_the_first_is_surely_gone(q: Queue, tmp_path: Path) -> None:
    """Two homes are two machines: neither sees the other's locks. Neither a clock that is an hour off nor a lease that is over is enough; silence for as long as the first may need to end its child is."""
    said: list[str] = []
    (tmp_path / 'one').mkdir()
    (tmp_path / 'two').mkdir()
    here, clock = worker(q, tmp_path / 'one', forever, said, grace_s=20)
    there, wrong = worker(q, tmp_path / 'two', lambda claim, begun: Outcome('done', f'{begun("run-2")}'), said, grace_s=20)
    there.name = 'v'
    assert here.host != there.host
    wrong.moved = HOUR
    add(q, when=Every('30d'), start_timeout='')
    q.now('a', clock.now())
    turn(here, lambda: any(d.run_id for d in q.jobs('a', 1, 'running')))
    for _ in range(30):      # five minutes in which the first renews, though its lease is long over by the other's clock
        for x, c in ((here, clock), (there, wrong)):
            c.at += 10 * SECOND
            x.step()
    assert [d.worker for d in q.jobs('a')] == ['w'] and not there.children and len(here.children) == 1
    wrong.at += 45 * SECOND      # the first is cut off: longer than its lease, and not long enough for it to have ended its child
    there.step()
    assert [d.worker for d in q.jobs('a')] == ['w']
    wrong.at += 10 * SECOND
    turn(there, lambda: q.jobs('a', 1, 'done') and not there.children)
    assert [(a.number, a.worker, a.state, a.reason) for a in q.attempts('a')] == [(2, 'v', 'done', 'True'), (1, 'w', 'killed', GONE)]
    clock.at += 10 * SECOND
    turn(here, lambda: not here.children)      # when it hears again, it ends its child, whose word counts for nothing
    assert any('another worker has it' in line for line in said) and [d.state for d in q.jobs('a')] == ['done'] and len(q.attempts('a')) == 2


# What is bad, and what the worker makes of it

def test_a_schedule_whose_zone_is_gone_stops_no_other(q: Queue, tmp_path: Path) -> None:
    """As when the database of zones of this machine has lost it."""
    said: list[str] = []
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done'), said)
    add(q, 'bad', when=ByCron('* * * * *', 'Europe/Berlin'))
    add(q, 'good')
    with writing(q.url, 'the schedule') as c: c.execute(schedules.update().where(schedules.c.name == 'bad').values(timing=as_words(ByCron('* * * * *', 'Mars/Olympus'))))
    for n in (1, 2):
        clock.at += MINUTE
        turn(w, lambda n=n: len(q.jobs('good', 9, 'done')) == n and not w.children)
    (d,) = q.jobs('bad')
    assert d.state == 'failed' and 'Mars/Olympus' in d.reason and 'Europe/London' in d.reason and q.get('bad').state == 'paused'
    with pytest.raises(BadInput, match='Mars/Olympus'): q.resume('bad', clock.now())
    q.remove('bad', clock.now())
    assert [s.name for s in q.schedules()] == ['good']


def test_a_worker_whose_words_find_no_place_goes_on(q: Queue, tmp_path: Path) -> None:
    """Its log lies on a full disk, or nobody reads it any more."""
    full = open('/dev/full', 'w')
    said: list[str] = []
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done'), said)
    def print_it(line: str) -> None:
        said.append(line)
        print(line, file=full, flush=True)
    w._words = print_it
    add(q, when=Every('1h'))
    q.now('a', clock.now())
    turn(w, lambda: q.jobs('a', 1, 'done') and not w.children)
    assert len(said) == 2
    with pytest.raises(OSError, match='No space'): full.close()


def test_a_worker_that_cannot_begin_gives_back_and_waits(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    place = tmp_path / 'locks'
    place.write_text('a file where the folder should be')
    w, clock = worker(q, place, lambda claim, begun: Outcome('done'), said)
    add(q, when=Every('30d'))
    q.now('a', clock.now())
    for _ in range(40):
        w.step()
        clock.at += SECOND
    (d,) = q.jobs('a')
    assert (d.state, d.failures) == ('queued', 0) and 3 <= d.attempt <= 8, d      # every quarter of a lease
    assert 'no process for it' in d.reason and any('goes back' in line for line in said)
    place.unlink()
    clock.at += MINUTE
    turn(w, lambda: q.jobs('a', 1, 'done') and not w.children)


def test_a_store_that_hangs_keeps_no_job_waiting_and_hides_no_death(q: Queue, tmp_path: Path) -> None:
    said: list[str] = []
    def hang(asked: object) -> dict[tuple[str, str], Nanos]:
        while True: signal.pause()
    w, clock = worker(q, tmp_path, lambda claim, begun: Outcome('done') if claim.schedule.name == 'a' else forever(claim, begun), said, newest=hang)
    add(q, 'data', when=OnData('BTC-USD', '1m'))
    for name in ('a', 'long'):
        add(q, name, when=Every('1h'))
        q.now(name, clock.now())
    turn(w, lambda: q.jobs('a', 1, 'done') and q.jobs('long', 1)[0].run_id)
    assert w._errand is not None and Path(f'/proc/{w._errand.pid}').exists()
    os.close(w._life[1])      # as the worker's end does
    w.children = [x for x in w.children if x.claim.schedule.name == 'long']
    pid, status = os.waitpid(w.children[0].pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0 and q.attempts('long')[0].reason == GONE
    given_up(w._errand)
