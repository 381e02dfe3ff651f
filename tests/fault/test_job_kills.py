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
from desk_stage import alive, at_once, entries_of, held, launch, ledger_of, notebook, sound_book, wait_for
from kills_stage import LIVE, PATIENCE, STEPS, Stage, of_few, staged
from live_stage import asked, book_of, served
from test_live_faults import account_of, the_same

from gekko.cli.schedule import add_here
from gekko.jobs.queue import OPEN, Due
from gekko.jobs.when import Every
from gekko.ledger.events import PolicyTaken, RunClosed
from gekko.ledger.journal import accounts, verify
from gekko.ledger.lease import holdings
from gekko.ledger.replay import replay
from gekko.ledger.runs import RunRecord

CAMPAIGN = int(os.environ.get('GEKKO_CAMPAIGN', '0'))
LANES = 2
ROWS = 240
VICTIMS = ('zygote', 'kernel', 'desk', 'child', 'worker')
SAID = {'kernel': ('the kernel died',), 'desk': ('its desk was killed',), 'child': ('fell silent',), 'worker': ('stopped by SIGTERM',)}      # in the record of the run that was struck
TOLD = {'kernel': ('failed', 'the kernel died'), 'desk': ('failed', 'its desk was killed'), 'child': ('failed', 'its process was ended by SIGKILL'), 'worker': ('killed', 'its worker is gone')}      # and of the attempt


@pytest.fixture(scope='module')
def stage(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp('kills'), store) as s:
        s.reference = undisturbed(s, 'flatten')
        yield s


def over(s: Stage, due: Due) -> Due:
    """The job at its end, and everything that belonged to it."""
    def ended() -> Due | None: return d if (d := s.job(due.schedule, due.due)).state not in OPEN else None
    done = wait_for(ended, f'{due.id} is over', PATIENCE)
    wait_for(lambda: all(r.ended for r in s.runs_of(due)), f'the runs of {due.id} are accounted for', PATIENCE)
    wait_for(lambda: not s.left_behind(), f'nothing of {due.id} is left: {s.left_behind()}', PATIENCE)
    return done


def undisturbed(s: Stage, name: str) -> str:
    """The equity with which a job ends that nobody disturbs."""
    due = s.fire(name)
    done = over(s, due)
    (r,) = s.runs_of(due)
    assert (done.state, done.attempt, r.state, r.exit_reason) == ('done', 1, 'done', 'finished'), (done, r)
    judged(s, due)
    return str(r.metrics['equity'])


# ---- the judge: from outside, by what is written and by what runs

def judged(s: Stage, due: Due) -> None:
    """What must be true of a job's end, whatever was killed and when."""
    done, runs, q = s.job(due.schedule, due.due), s.runs_of(due), s.queue
    tried = [a for a in reversed(q.attempts(due.schedule, 10_000)) if a.due == due.due]
    assert [a.number for a in tried] == list(range(1, done.attempt + 1)) and all(a.state in ('done', 'failed', 'killed') and a.reason and a.ended for a in tried), tried
    assert [a.run_id for a in tried if a.run_id] == [r.run_id for r in runs][-len([a for a in tried if a.run_id]):], (tried, runs)
    traded = [r for r in runs if judged_run(s, due.schedule, r)]
    assert len(traded) <= 1, 'what has traded on paper is not done again'
    if done.state == 'done':
        assert tried[-1].state == 'done' and runs[-1].state == 'done' and runs[-1] in traded and not s.reference or runs[-1].metrics['equity'] == s.reference, (done, runs)
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

@pytest.mark.parametrize('victim', ('kernel', 'desk', 'child', 'worker', 'zygote'))
def test_each_of_them_is_killed_half_way(victim: str, stage: Stage) -> None:
    dice = random.Random(f'20261123 {victim}')
    policy, at = dice.choice(('flatten', 'reduce', 'hold')), dice.randrange(20, 200)
    due = stage.fire(policy, str(at))
    wait_for(lambda: str(at) in stage.seen(), f'decision {at}', PATIENCE)
    kernel = stage.seen()[str(at)]
    assert stage.kill(victim) == [victim]
    stage.go_on()
    if victim == 'worker': stage.serve()
    done = over(stage, due)
    judged(stage, due)
    (r,) = stage.runs_of(due)
    assert not alive(kernel)
    if victim == 'zygote':      # a kernel that it made lives on
        assert (done.state, done.attempt, r.state) == ('done', 1, 'done') and r.metrics['equity'] == stage.reference
        return
    assert done.state != 'done' and r.state == 'killed' and all(w in r.exit_reason for w in SAID[victim]), r
    first = next(a for a in stage.queue.attempts(policy) if (a.due, a.number) == (due.due, 1))
    assert first.state == TOLD[victim][0] and TOLD[victim][1] in first.reason and first.run_id == r.run_id, first
    assert len(entries_of(stage.home, r.account)) > at


# ---- a kernel in the middle of C code hears nobody

@pytest.mark.parametrize('how', ('warm', 'orphaned', 'cold'))
def test_a_kernel_that_lets_no_thread_run_ends_with_its_runner(how: str, stage: Stage, tmp_path: Path) -> None:
    """A loop in C that never lets go of the interpreter; what the kernel came from may be gone, or never have been."""
    made = of_few if how != 'cold' else notebook
    deaf = made(tmp_path / 'deaf.ipynb', "mode = 'backtest'\ngate = ''", STEPS[1], 'reached("deaf")\nsum(range(10**14))')
    (gate := tmp_path / 'gate').mkdir()
    job = launch(stage.home, 'run', deaf, '-p', 'gate', gate, **stage.env, **({'GEKKO_KERNEL': 'cold'} if how == 'cold' else {}))
    seen = gate / 'seen'
    wait_for(lambda: seen.exists() and 'deaf' in seen.read_text(), 'the loop', PATIENCE)
    kernel = int(seen.read_text().split()[-1])
    if how == 'orphaned':
        stage.kill('zygote')
        wait_for(lambda: not stage.victims('zygote'), 'its end', PATIENCE)
    assert alive(kernel)
    job.kill()
    try: wait_for(lambda: not alive(kernel), 'the end of a kernel that nobody has', 30)
    finally:
        with suppress(ProcessLookupError): os.kill(kernel, signal.SIGKILL)
        job.communicate()


# ---- at a venue, where what was traded is still there

def test_a_live_job_whose_kernel_is_killed_goes_on_through_its_ledger(stage: Stage) -> None:
    """Its second attempt has the account as the first left it, trades the difference, and nothing twice."""
    with served(stage.home, 'binanceus') as card:
        add_here(stage.settings, 'live', str(of_few(stage.home / 'live.ipynb', *LIVE)), Every('30d'), {'gate': str(stage.gate)}, mode='live', venue='binanceus', retries=1, backoff='1s')
        due = stage.fire('live', '2')
        wait_for(lambda: "2" in stage.seen() or stage.job("live", due.due).state not in OPEN, "the third decision", PATIENCE)
        assert stage.kill('kernel') == ['kernel']
        stage.go_on()
        done = over(stage, due)
        first, second = stage.runs_of(due)
        assert (done.state, done.attempt, done.run_id) == ('done', 2, second.run_id) and (first.state, second.state) == ('killed', 'done'), (done, first)
        assert 'the kernel died' in first.exit_reason and first.account == second.account == account_of(card)
        entries = entries_of(stage.home, first.account)
        runs = [e.record.run for e in entries if e.kind in ('run_opened', 'run_closed')]
        assert runs == [first.run_id, first.run_id, second.run_id, second.run_id]
        assert [e.record.policy for e in entries if isinstance(e.record, PolicyTaken)] == ['hold']
        left = held(replay(entries[:next(n for n, e in enumerate(entries) if e.kind == 'run_closed') + 1]))
        assert D('0.0998') < left['BTC-USD'] <= D('0.1')      # as decision 1 asked; the fee is kept back in coin
        # the second attempt asks for 0.05, 0.1, 0.15, 0.2 and is at the first already past it
        assert D('0.1996') < the_same(stage.home, card)['BTC'] <= D('0.2')
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
    return str(dice.randrange(ROWS)) if dice.random() < 0.55 else dice.choice(('claimed', 'begun', 'desk', 'opening', 'end', 'finished'))


def come(s: Stage, due: Due, at: str) -> bool:
    """Whether the job has come so far, or is over."""
    if at == 'claimed': return s.job(due.schedule, due.due).attempt > 0
    if at == 'begun': return bool(s.job(due.schedule, due.due).run_id)
    if at == 'desk': return bool(s.victims('desk')) or s.job(due.schedule, due.due).state not in OPEN
    return at in s.seen()


def blow(s: Stage, seed: str, told: list[str]) -> None:
    """One job, struck once; and now and then the next one, undisturbed."""
    dice = random.Random(seed)
    policy, at = dice.choice(('flatten', 'reduce', 'hold')), moment(dice)
    whats = dice.sample(VICTIMS, k=dice.choices((1, 2, 3, 5), (60, 25, 10, 5))[0])
    due = s.fire(policy, *([at] if dice.random() < 0.5 else []))
    until(lambda: come(s, due, at), f'{at} of {due.id}')
    time.sleep(dice.choice((0, 0, dice.uniform(0, 0.3))))
    killed = s.kill(*whats)
    s.go_on()
    if 'worker' in killed: s.serve()
    done = over(s, due)
    told.append(f'{seed}: {"+".join(killed) or "nothing"} at {at}, {policy}: {done.state} by attempt {done.attempt}: {done.reason}')
    judged(s, due)
    if dice.random() < 0.25: assert undisturbed(s, policy) == s.reference


def campaign(store: Path, folder: Path, lane: int, blows: int) -> list[str]:
    """Blow after blow on one home; what came of each."""
    told: list[str] = []
    with staged(folder, store) as s:
        s.reference = undisturbed(s, 'flatten')
        try:
            for n in range(blows): blow(s, f'{os.environ.get("GEKKO_SEED", "20261123")} {lane} {n}', told)
            assert undisturbed(s, 'hold') == s.reference
        except BaseException:
            print('\n'.join(told), f'\nhome {s.home}')
            raise
    return told


def test_any_of_them_in_any_moment(store: Path, tmp_path: Path) -> None:
    told = [x for lane in at_once(*(partial(campaign, store, tmp_path / f'{lane}', lane, 10 * CAMPAIGN // LANES) for lane in range(LANES if CAMPAIGN else 0))) for x in lane]
    print('\n'.join(told), Counter(x.split(': ')[2].split()[0] for x in told))
