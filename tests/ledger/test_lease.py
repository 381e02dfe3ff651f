"One holder at a time: across processes, across clocks, and after it was lost."
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from server_stage import Server

from gekko.domain.errors import BadInput, Halt, Reject
from gekko.domain.time import SECOND, SimClock
from gekko.ledger.events import Note
from gekko.ledger.journal import Journal, verify
from gekko.ledger.lease import Lease, acquire, holdings


def test_of_many_processes_one_gets_it(url: str) -> None:
    Journal.open(url, 'paper').close()
    code = '''
import sys
from gekko.domain.errors import Reject
from gekko.domain.time import SystemClock
from gekko.ledger.lease import acquire
try: print('epoch', acquire(sys.argv[1], 'paper', sys.argv[2], 3600, SystemClock()).epoch)
except Reject as e: print('held by', e.values['holder'])
'''
    ps = [subprocess.Popen([sys.executable, '-c', code, url, f'desk-{i}'], stdout=subprocess.PIPE, text=True) for i in range(4)]
    said = [p.communicate(timeout=60)[0].strip() for p in ps]
    assert said.count('epoch 1') == 1 and len({s for s in said if s.startswith('held by')}) == 1
    assert said[int(holdings(url)[0].holder[-1])] == 'epoch 1'


def test_takeover_after_expiry_fences_the_old_holder(url: str) -> None:
    clock = SimClock(10**18)
    old = acquire(url, 'paper', 'old', 10, clock)
    journal = Journal.open(url, 'paper', epoch=old.epoch)
    journal.append(Note('before'), clock.now()); journal.commit()
    clock.advance(10 * SECOND - 1)
    with pytest.raises(Reject, match='held by old'): acquire(url, 'paper', 'new', 10, clock)
    clock.advance(1)
    new = acquire(url, 'paper', 'new', 10, clock)
    assert (old.alive(), new.alive(), new.epoch) == (False, True, 2)
    journal.append(Note('too late'), clock.now())
    for late in (journal.commit, old.renew, old.release):
        with pytest.raises(Halt) as e: late()
        assert e.value.values['reason'] == 'fenced'
    with Journal.open(url, 'paper', epoch=new.epoch) as j: j.append(Note('after'), clock.now())
    assert verify(url).entries == 2


def test_an_expired_lease_that_nobody_took_can_be_renewed(url: str) -> None:
    clock = SimClock(10**18)
    lease = acquire(url, 'paper', 'desk', 10, clock)
    clock.advance(60 * SECOND)
    assert not lease.alive()
    lease.renew()
    assert lease.alive()
@pytest.mark.sqlite
def test_a_renewal_that_fails_leaves_the_old_deadline(tmp_path: Path) -> None:
    url = str(tmp_path / 'l.db')
    clock = SimClock(10**18)
    lease = acquire(url, 'paper', 'desk', 10, clock, margin_s=1)
    (tmp_path / 'l.db').rename(tmp_path / 'away.db')
    clock.advance(5 * SECOND)
    with pytest.raises(Halt) as e: lease.renew()
    assert e.value.values['reason'] == 'gone' and not (tmp_path / 'l.db').exists()
    assert lease.alive()
    clock.advance(4 * SECOND)
    assert not lease.alive()


def test_a_twin_of_the_same_name_is_someone_else(url: str) -> None:
    clock = SimClock(10**18)
    first = acquire(url, 'paper', 'desk', 10, clock)
    with pytest.raises(Reject, match='held by desk'): acquire(url, 'paper', 'desk', 10, clock)
    clock.advance(10 * SECOND)
    twin = acquire(url, 'paper', 'desk', 10, clock)
    for late in (first.renew, first.release):
        with pytest.raises(Halt, match='is lost'): late()
    assert twin.alive() and holdings(url)[0].epoch == twin.epoch


class TwoClocks:
    "A wall clock and a monotonic one that need not agree."
    wall, mono = 10**18, 0
    def now(self) -> int: return self.wall
    def monotonic(self) -> int: return self.mono


def test_either_clock_ends_a_lease(url: str) -> None:
    clock = TwoClocks()
    lease = acquire(url, 'paper', 'desk', 10, clock, margin_s=2)
    assert lease.alive()
    clock.wall += 8 * SECOND                     # suspended: the monotonic clock stood still
    assert not lease.alive()
    clock.wall -= 60 * SECOND; clock.mono += 8 * SECOND - 1
    assert lease.alive() and not lease.alive(clock.mono + 1)
    clock.mono += 1                              # set back: the monotonic clock went on
    assert not lease.alive()


def test_an_epoch_is_past_every_entry(url: str) -> None:
    with Journal.open(url, 'paper', epoch=4) as j: j.append(Note('written without a lease'), 0)
    assert acquire(url, 'paper', 'desk', 10, SimClock(1)).epoch == 5


def test_bad_leases_change_nothing(url: str) -> None:
    for account, holder, ttl, margin in (('', 'd', 10, None), ('a', '', 10, None), ('a', 'd', 0, None), ('a', 'd', -1, None), ('a', 'd', 10, 10), ('a', 'd', float('nan'), None)):
        with pytest.raises(BadInput): acquire(url, account, holder, ttl, SimClock(), margin)
    with pytest.raises(BadInput, match='no such ledger|not a ledger'): holdings(url)
    with pytest.raises(BadInput, match='outlive'): acquire(':memory:', 'a', 'd', 10, SimClock())


class Desks(RuleBasedStateMachine):
    "Three desks, one account, any order of acquiring, renewing, releasing and waiting."
    fresh: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.url, self.clock, self.leases, self.epochs = Desks.fresh(), SimClock(10**18), {}, []

    @rule(who=st.sampled_from('abc'))
    def take(self, who: str) -> None:
        try: lease = acquire(self.url, 'paper', who, 10, self.clock)
        except Reject: return
        self.leases[who] = lease
        self.epochs.append(lease.epoch)

    @precondition(lambda self: self.leases)
    @rule(who=st.sampled_from('abc'), what=st.sampled_from(['renew', 'release']))
    def keep(self, who: str, what: str) -> None:
        if (lease := self.leases.get(who)) is None: return
        newest = lease.epoch == max(self.epochs)
        try: getattr(lease, what)()
        except Halt:
            assert not newest or not holdings(self.url)[0].holder      # only someone who lost it, or gave it back, is told so
        else: assert newest

    @rule(seconds=st.integers(1, 12))
    def wait(self, seconds: int) -> None: self.clock.advance(seconds * SECOND)

    @invariant()
    def one_at_most(self) -> None:
        assert sum(x.alive() for x in self.leases.values()) <= 1
        assert self.epochs == sorted(set(self.epochs))


@pytest.mark.parametrize('where', ['sqlite', 'postgres'])
def test_never_two_alive(tmp_path: Path, server: Server, where: str) -> None:
    files = (str(tmp_path / f'{n}.db') for n in count())
    Desks.fresh = staticmethod(server.url if where == 'postgres' else lambda: next(files))  # type: ignore[assignment]
    from hypothesis.stateful import run_state_machine_as_test
    run_state_machine_as_test(Desks, settings=settings(max_examples=25 if where == 'sqlite' else 8, stateful_step_count=12, deadline=None, derandomize=True))  # type: ignore[no-untyped-call]
    assert isinstance(acquire(Desks.fresh(), 'paper', 'z', 10, SimClock(1)), Lease)
