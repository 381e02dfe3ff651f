"""A strategy trades on paper by a schedule, and what carries it is killed at moments drawn by chance: every position has an owner, the declared policy is carried out, and the next run is right.

GEKKO_CAMPAIGN=6 makes sixty more of them, several at once and in any moment."""
from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal as D
from functools import partial
from pathlib import Path

import pytest
from desk_stage import alive, at_once, entries_of, held, ladder, launch, ledger_of, notebook, settings_of, sound_book, wait_for
from kills_stage import LIVE, PATIENCE, STEPS, Stage, of_few, seen_at, staged
from live_stage import asked, book_of, served
from test_live_faults import account_of, the_same

from gekko.cli.schedule import add_here
from gekko.domain.errors import Halt
from gekko.jobs.performing import performing
from gekko.jobs.queue import OPEN, Claim, Due
from gekko.jobs.runner import Stopped, prepare, run_job
from gekko.jobs.when import Every
from gekko.jobs.worker import Outcome
from gekko.ledger.events import PolicyTaken, RunClosed
from gekko.ledger.journal import accounts, verify
from gekko.ledger.lease import holdings
from gekko.ledger.replay import replay
from gekko.ledger.runs import RunRecord

CAMPAIGN = int(os.environ.get('GEKKO_CAMPAIGN', '0'))
LANES = 2
ROWS = 240
VICTIMS = ('zygote', 'kernel', 'desk', 'child', 'worker')
SAID = {'kernel': 'the kernel died', 'desk': 'its desk was killed', 'child': 'fell silent', 'worker': 'stopped by SIGTERM'}      # in the record of the run that was struck
TOLD = {'kernel': ('failed', 'the kernel died'), 'desk': ('failed', 'its desk was killed'), 'child': ('failed', 'its process was ended by SIGKILL'), 'worker': ('killed', 'its worker is gone')}      # and of the attempt


@pytest.fixture(scope='module')
def stage(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp('kills'), store) as s: yield s


def over(s: Stage, due: Due) -> Due:
    """The job at its end, with every run that was made of it."""
    def ended() -> Due | None: return d if (d := s.job(due.schedule, due.due)).state not in OPEN else None
    done = wait_for(ended, f'{due.id} is over', PATIENCE)
    wait_for(lambda: all(r.ended for r in s.runs_of(due)), f'the runs of {due.id} are accounted for', PATIENCE)
    return done


def all_over(s: Stage, *due: Due) -> list[Due]:
    """The jobs at their ends, when nothing is left that belonged to them; each is judged."""
    done = [over(s, d) for d in due]
    wait_for(lambda: not s.left_behind(), 'nothing is left of them', PATIENCE)
    for d in due: judged(s, d)
    return done


def undisturbed(s: Stage) -> str:
    """The equity with which a job ends that nobody disturbs."""
    due = s.fire('plain')
    all_over(s, due)
    return went_well(s, due)


def went_well(s: Stage, due: Due) -> str:
    done, (r,) = s.job(due.schedule, due.due), s.runs_of(due)
    assert (done.state, done.attempt, r.state, r.exit_reason) == ('done', 1, 'done', 'finished'), (done, r)
    return str(r.metrics['equity'])


# ---- the judge: from outside, by what is written and by what runs

def judged(s: Stage, due: Due) -> None:
    """What must be true of a job's end, whatever was killed and when."""
    done, runs, q = s.job(due.schedule, due.due), s.runs_of(due), s.queue
    tried = [a for a in reversed(q.attempts(due.schedule, 10_000)) if a.due == due.due]
    assert [a.number for a in tried] == list(range(1, done.attempt + 1)) and all(a.state in ('done', 'failed', 'killed') and a.reason and a.ended for a in tried), tried
    assert [a.run_id for a in tried if a.run_id] == [r.run_id for r in runs][-len([a for a in tried if a.run_id]):], (tried, runs)
    traded = [r for r in runs if judged_run(s, r.params['policy'], r)]
    assert len(traded) <= 1, 'what has traded on paper is not done again'
    if done.state == 'done': assert tried[-1].state == 'done' and runs[-1].state == 'done' and runs[-1] in traded and s.reference in ('', runs[-1].metrics['equity']), (done, runs)
    else: assert traded, f'nothing had traded, and it was not attempted again: {tried}'
    assert not [h for h in holdings(ledger_of(s.home)) if h.holder], 'every account is given back'
    assert verify(ledger_of(s.home)).ok


def judged_run(s: Stage, policy: str, r: RunRecord) -> bool:
    """The books of one run and its record agree, and all that it held is owned or sold; whether it had traded."""
    assert r.state in ('done', 'failed', 'killed') and r.ended and r.exit_reason, r
    if r.account not in accounts(ledger_of(s.home)): return False
    book, entries = sound_book(s.home, r.account), entries_of(s.home, r.account)      # a name used twice, or a fill told twice, is a fault of the book
    if not any(e.kind == 'run_opened' for e in entries): return False
    assert len({(f.client_id, f.fill_id) for f in book.fills}) == len({f.fill_id for f in book.fills}) == len(book.fills)
    assert not book.open_orders, book.open_orders
    closed, taken = [e.record for e in entries if isinstance(e.record, RunClosed)], [(n, e.record) for n, e in enumerate(entries) if isinstance(e.record, PolicyTaken)]
    assert len(closed) == 1 and len(taken) <= 1 and entries[-1].kind == 'run_closed', (r, closed, taken)
    assert r.journal_head == book.head and D(r.metrics['equity']) == book.equity, r
    if not taken: assert closed[0].reason == 'finished' and held(book) == {'WALK': D(10 + (ROWS - 2) % 7)}, (r, closed)
    else:
        n, said = taken[0]
        before = held(replay(entries[:n])).get('WALK', D(0))
        keep = {'hold': before, 'reduce': D(int(before / 2)), 'flatten': D(0)}[policy]
        assert said.policy == policy and (held(book).get('WALK', D(0)) == keep or 'could not be closed' in closed[0].reason), (r, before, held(book))
        assert all(e.record.intent.reduce_only for e in entries[n:] if e.kind == 'intent')
        assert r.state == 'killed' and closed[0].reason in r.exit_reason, (r, closed)
    return any(e.kind == 'intent' for e in entries)


# ---- each of them once, half way through a run

def half_way(s: Stage, dice: random.Random, *names: str) -> list[tuple[Due, str]]:
    """Jobs of these schedules, each standing still at a decision of its own."""
    at = [str(dice.randrange(20, 200)) for _ in names]
    due = [s.fire(name, n) for name, n in zip(names, at)]
    for name, n in zip(names, at): wait_for(lambda name=name, n=n: n in s.seen(name), f'decision {n} of {name}', PATIENCE)
    return list(zip(due, at))


def told_of(s: Stage, due: Due, at: str, victim: str) -> None:
    """The record of the run that was struck, and of its attempt."""
    done, (r,) = s.job(due.schedule, due.due), s.runs_of(due)
    assert done.state != 'done' and r.state == 'killed' and SAID[victim] in r.exit_reason, r
    first = next(a for a in s.queue.attempts(due.schedule) if (a.due, a.number) == (due.due, 1))
    assert first.state == TOLD[victim][0] and TOLD[victim][1] in first.reason and first.run_id == r.run_id, first
    assert len(entries_of(s.home, r.account)) > int(at) and not alive(s.seen(due.schedule)[at])


def test_a_kernel_a_desk_and_a_runner_are_killed_half_way_and_a_fourth_job_beside_them_is_not_disturbed(stage: Stage) -> None:
    dice = random.Random(20261123)
    plain, victims = stage.fire('plain'), dice.sample(('kernel', 'desk', 'child'), 3)
    struck = half_way(stage, dice, 'flatten', 'reduce', 'hold')
    assert {stage.seen(due.schedule)[at] for due, at in struck} & set(stage.forked()), 'they come from the process that has everything loaded'
    for (due, _), victim in zip(struck, victims): assert stage.kill(due.schedule, victim) == [victim]
    for due, _ in struck: stage.go_on(due.schedule)
    all_over(stage, plain, *(due for due, _ in struck))
    stage.reference = went_well(stage, plain)
    for (due, at), victim in zip(struck, victims): told_of(stage, due, at, victim)


def test_the_process_that_kernels_come_from_is_killed_half_way_and_then_the_worker(stage: Stage) -> None:
    """A kernel lives on without the one and not without the other; what comes next finds both anew, and ends as ever."""
    dice = random.Random(20261124)
    names = dice.sample(('flatten', 'reduce', 'hold'), 2)
    (first, _), (second, at) = half_way(stage, dice, *names)
    assert stage.kill(first.schedule, 'zygote') == ['zygote']
    stage.go_on(first.schedule)
    over(stage, first)
    assert stage.reference in ('', went_well(stage, first))
    assert stage.kill(second.schedule, 'worker') == ['worker']
    stage.serve()
    plain = stage.fire('plain')
    all_over(stage, second, first, plain)
    told_of(stage, second, at, 'worker')
    assert went_well(stage, plain) == went_well(stage, first)
    (r,) = stage.runs_of(plain)      # a worker that died between the end of a run and the word of it: nothing is left to be done
    again = Claim(stage.queue.get('plain'), plain.due, 2, 'another', 0, r.run_id)
    assert performing(stage.settings)(again, lambda run_id: pytest.fail('it was repeated')) == Outcome('done', 'finished')


def test_a_stop_that_falls_into_a_write_of_the_ledger_is_a_stop(home: Path, store: Path) -> None:
    """What the ledger makes of it is an error of its own."""
    def begun(r: RunRecord) -> None:
        try: signal.raise_signal(signal.SIGTERM)
        except Stopped as e: raise Halt('the run records cannot be written: gone') from e
    settings = settings_of(home, GEKKO_STORE=str(store))
    done = run_job(prepare(ladder(home), {}, 'backtest', settings), settings, begun=begun)
    assert (done.record.state, done.record.exit_reason, str(done.error)) == ('killed', 'stopped by SIGTERM', 'stopped by SIGTERM') and done.record.ended


# ---- a kernel in the middle of C code hears nobody

def test_kernels_that_let_no_thread_run_end_with_their_runners(stage: Stage, tmp_path: Path) -> None:
    """A loop in C that never lets go of the interpreter: in a warm kernel, in one whose origin is gone, and in a cold one."""
    jobs, kernels = {}, dict[str, int]()
    for how in ('warm', 'orphaned', 'cold'):
        (gate := tmp_path / how).mkdir()
        made = of_few if how != 'cold' else notebook
        deaf = made(gate / 'deaf.ipynb', "mode = 'backtest'\ngate = ''", STEPS[1], 'reached("deaf")\nsum(range(10**14))')
        jobs[how] = launch(stage.home, 'run', deaf, '-p', 'gate', gate, **stage.env, **({'GEKKO_KERNEL': 'cold'} if how == 'cold' else {}))
    try:
        for how in jobs: kernels[how] = wait_for(lambda how=how: seen_at(tmp_path / how).get('deaf'), f'the loop of {how}', PATIENCE)
        for how, job in jobs.items():
            if how == 'orphaned':
                stage.kill('plain', 'zygote')
                wait_for(lambda: not stage.victims('zygote', 'plain'), 'its end', PATIENCE)
            assert alive(kernels[how])
            job.kill()
            wait_for(lambda how=how: not alive(kernels[how]), f'the end of a kernel that nobody has, {how}')
    finally:
        for job in jobs.values():
            job.kill()
            job.communicate()
        for pid in kernels.values():
            with suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)


# ---- at a venue, where what was traded is still there

def test_a_live_job_whose_kernel_is_killed_goes_on_through_its_ledger(stage: Stage) -> None:
    """Its second attempt has the account as the first left it, trades the difference, and nothing twice."""
    with served(stage.home, 'binanceus') as card:
        add_here(stage.settings, 'live', str(of_few(stage.home / 'live.ipynb', *LIVE)), Every('30d'), {'gate': str(stage.gate('live'))}, mode='live', venue='binanceus', retries=1, backoff='1s')
        due = stage.fire('live', '1')
        wait_for(lambda: '1' in stage.seen('live') or stage.job('live', due.due).state not in OPEN, 'the second decision', PATIENCE)
        assert stage.kill('live', 'kernel') == ['kernel'], stage.job('live', due.due)
        stage.go_on('live')
        done = over(stage, due)
        first, second = stage.runs_of(due)
        assert (done.state, done.attempt, done.run_id) == ('done', 2, second.run_id) and (first.state, second.state) == ('killed', 'done'), (done, first)
        assert 'the kernel died' in first.exit_reason and first.account == second.account == account_of(card)
        entries = entries_of(stage.home, first.account)
        runs = [e.record.run for e in entries if e.kind in ('run_opened', 'run_closed')]
        assert runs == [first.run_id, first.run_id, second.run_id, second.run_id]
        assert [e.record.policy for e in entries if isinstance(e.record, PolicyTaken)] == ['hold']
        left = held(replay(entries[:next(n for n, e in enumerate(entries) if e.kind == 'run_closed') + 1]))
        assert D('0.0499') < left['BTC-USD'] <= D('0.05')      # as the first decision asked; the fee is kept back in coin
        assert D('0.1497') < the_same(stage.home, card)['BTC'] <= D('0.15')      # as the last did
        theirs = [o['client_id'] for o in asked(card, 'orders')['orders']]
        assert len(theirs) == len(set(theirs)) == len(book_of(stage.home, first.account).orders)


# ---- and many more, in any moment

def until(true: Callable[[], object], why: str) -> None:
    """As soon as it is true: a moment is missed by a look every twenty milliseconds."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end: raise AssertionError(f'waited in vain for {why}')
        time.sleep(0.0005)


def moment(dice: random.Random) -> str:
    """A bar in most cases, else a stage of its beginning or its end."""
    return str(dice.randrange(ROWS)) if dice.random() < 0.55 else dice.choice(('claimed', 'begun', 'desk', 'opening', 'end', 'finished', 'written'))


def come(s: Stage, due: Due, at: str) -> bool:
    """Whether the job has come so far, or is over."""
    if at == 'claimed': return s.job(due.schedule, due.due).attempt > 0
    if at == 'begun': return bool(s.job(due.schedule, due.due).run_id)
    if at == 'written': return any(r.ended for r in s.runs_of(due)) or s.job(due.schedule, due.due).state not in OPEN
    if at == 'desk': return bool(s.victims('desk', due.schedule)) or s.job(due.schedule, due.due).state not in OPEN
    return at in s.seen(due.schedule)


def blow(s: Stage, seed: str, told: list[str]) -> None:
    """One job, struck once; and now and then the next one, undisturbed."""
    dice = random.Random(seed)
    policy, at = dice.choice(('flatten', 'reduce', 'hold')), moment(dice)
    whats = dice.sample(VICTIMS, k=dice.choices((1, 2, 3, 5), (60, 25, 10, 5))[0])
    due = s.fire(policy, *([at] if dice.random() < 0.5 else []))
    until(lambda: come(s, due, at), f'{at} of {due.id}')
    time.sleep(dice.choice((0, 0, dice.uniform(0, 0.3))))
    killed = s.kill(policy, *whats)
    s.go_on(policy)
    if 'worker' in killed: s.serve()
    done = over(s, due)
    told.append(f'{seed}: {"+".join(killed) or "nothing"} at {at}, {policy}: {done.state} by attempt {done.attempt}: {done.reason}')
    all_over(s, due)
    if dice.random() < 0.25: assert undisturbed(s) == s.reference


def campaign(store: Path, folder: Path, lane: int, blows: int) -> list[str]:
    """Blow after blow on one home; what came of each."""
    told: list[str] = []
    with staged(folder, store) as s:
        s.reference = undisturbed(s)
        try:
            for n in range(blows): blow(s, f'{os.environ.get("GEKKO_SEED", "20261123")} {lane} {n}', told)
            assert undisturbed(s) == s.reference
        except BaseException:
            print('\n'.join(told), f'\nhome {s.home}')
            raise
    return told


def test_any_of_them_in_any_moment(store: Path, tmp_path: Path) -> None:
    told = [x for lane in at_once(*(partial(campaign, store, tmp_path / f'{lane}', lane, 10 * CAMPAIGN // LANES) for lane in range(LANES if CAMPAIGN else 0))) for x in lane]
    print('\n'.join(told), Counter(x.split(': ')[2].split()[0] for x in told))
