"""The desk is killed, told to go, started twice, or halted from outside while it trades."""
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal as D
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from desk_stage import alive, at_once, desk_of, ended, entries_of, gekko, held, ladder, launch, ledger_of, ok, one_line, only_run, settings_of, sound_book, status_of, tidy, told, wait_for

from gekko.data.bars import Bars
from gekko.desk.client import Line
from gekko.desk.protocol import OpenRun, RunOpenedReply
from gekko.desk.serve import DeskProcess, start_desk
from gekko.desk.session import Session, open_run
from gekko.desk.spec import make_spec, to_json
from gekko.domain.errors import BadInput, Halt, Reject
from gekko.ledger.events import BreachRecorded, Entry, Halted, IntentRecorded, PolicyTaken, Resumed, RunClosed
from gekko.ledger.journal import verify
from gekko.ledger.lease import holdings
from gekko.ledger.replay import replay
from gekko.risk.kill import KillSwitch


def go_on(run: Session, seen: Iterator[Bars], *sizes: int) -> None:
    """See a bar and ask for a size, as often as there are sizes; the last one is sent with the next bar."""
    for size in sizes:
        next(seen)
        run.target(units={'WALK': D(size)})


def records(home: Path) -> list[Any]: return [e.record for e in entries_of(home)]


class Struck(NamedTuple):
    """A paper job whose desk was sent a signal at the job's decision 60: what was in the journal when the desk had gone, and how the job ended, after how many seconds."""
    home: Path
    left: list[Entry]
    done: subprocess.CompletedProcess[str]
    took_s: float


@pytest.fixture(scope='module')
def struck(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[signal.Signals, Struck]:
    """Both at the same time."""
    def strike(number: signal.Signals) -> Struck:
        folder = tmp_path_factory.mktemp(number.name)
        with tidy(folder / 'home') as home:
            job = launch(home, 'run', ladder(folder), '--mode', 'paper', *told({'stop_at': 60, 'pulse': folder / 'pulse', 'go': folder / 'go'}), GEKKO_STORE=str(store))
            wait_for((folder / 'pulse').exists, 'the notebook half way')
            desk = desk_of(home)['pid']
            os.kill(desk, number)
            wait_for(lambda: not alive(desk), 'the desk to be gone')
            left, at = entries_of(home), time.monotonic()
            (folder / 'go').touch()
            return Struck(home, left, ended(job), time.monotonic() - at)
    signals = signal.SIGKILL, signal.SIGTERM
    return dict(zip(signals, at_once(*(partial(strike, n) for n in signals))))


def test_a_killed_desk_is_heard_of_and_its_run_is_ended_by_its_policy(struck: dict[signal.Signals, Struck]) -> None:
    home, left, done, took_s = struck[signal.SIGKILL]
    assert done.returncode == 1 and 'the desk does not answer' in done.stderr and 'Traceback' not in done.stderr
    assert took_s < 15
    book, told_of = sound_book(home), records(home)
    assert entries_of(home)[:len(left)] == left and held(replay(left)) != {} and held(book) == {} and not book.open_orders
    assert [r.policy for r in told_of if isinstance(r, PolicyTaken)] == ['flatten'] and isinstance(told_of[-1], RunClosed)
    record = only_run(home)
    assert record.state == 'killed' and record.ended and 'the desk does not answer' in record.exit_reason and 'its desk was killed' in record.exit_reason
    assert record.journal_head == book.head and D(record.metrics['equity']) == book.equity
    assert 'killed' in ok(gekko(home, 'runs', 'show', record.run_id))
    assert one_line(gekko(home, 'desk', 'status', '--json')) == []


def test_a_desk_told_to_go_takes_its_run_with_it(struck: dict[signal.Signals, Struck]) -> None:
    home, left, done, _ = struck[signal.SIGTERM]
    book = sound_book(home)
    assert held(book) == {} and [r.policy for r in records(home) if isinstance(r, PolicyTaken)] == ['flatten'] and entries_of(home) == left
    assert done.returncode in (1, 3) and 'Traceback' not in done.stderr
    record = only_run(home)
    assert record.state == 'killed' and 'the desk was stopped: SIGTERM' in record.exit_reason
    assert record.journal_head == book.head and D(record.metrics['equity']) == book.equity
    assert [h.holder for h in holdings(ledger_of(home))] == [''], 'the lease is given back'


def test_one_account_has_one_desk(desk: DeskProcess, home: Path, store: Path) -> None:
    other = start_desk(settings_of(home), 'other', log=home / 'other.log')
    asked = OpenRun('r1', 'twice', '0', to_json(make_spec(['WALK'], heartbeat_s=60)), str(store))
    lines = [Line(d.address, timeout_s=10) for d in (desk, other)]
    try:
        assert isinstance(lines[0].ask(asked), RunOpenedReply)
        before = entries_of(home)
        with pytest.raises(Reject, match=f'held by standing:{desk.pid}'): lines[1].ask(asked)
        with pytest.raises(Reject, match='the desk is busy'): lines[0].ask(OpenRun('r2', 'twice', '0', asked.spec, str(store)))
        assert entries_of(home) == before and status_of(home, 'other').state == 'idle'
        os.kill(desk.pid, signal.SIGKILL)
        desk.process.wait(10)      # as long as nobody has collected it, the process is still there
        with pytest.raises(Reject, match='this run has traded already'): lines[1].ask(asked)      # its lease is not waited for: a dead process sends nothing
        assert verify(ledger_of(home)).ok
    finally:
        for line in lines: line.close()
        other.stop()


def test_a_desk_whose_name_is_taken_is_refused(desk: DeskProcess, home: Path) -> None:
    refused = gekko(home, 'desk', 'serve', '--name', 'standing')
    assert refused.returncode == 2 and f'process {desk.pid}' in refused.stderr
    assert status_of(home).pid == desk.pid


def test_an_address_that_cannot_be_listened_on_is_refused(home: Path) -> None:
    refused = gekko(home, 'desk', 'serve', '--listen', 'tcp://nowhere:port', '--json')
    assert refused.returncode == 2 and 'cannot listen' in refused.stdout


def test_halt_and_resume_by_command(desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5)
    seen = iter(run)
    go_on(run, seen, 10, 12, 9)
    next(seen)
    (said,) = one_line(gekko(home, 'desk', 'halt', '--reason', 'too much news', '--json'))
    assert (said['halted'], said['positions']) == ('too much news', {'WALK': '9'})
    assert KillSwitch(home / 'kill').reason() == 'too much news'
    assert 'too much news' in ok(gekko(home, 'desk', 'status'))
    go_on(run, seen, 15, 20, 7, 11)       # more is refused, less is sold
    next(seen)
    assert run.halted == 'too much news'
    (said,) = one_line(gekko(home, 'desk', 'resume', '--json'))
    assert said['halted'] == '' and said['positions'] == {'WALK': '7'} and not KillSwitch(home / 'kill').tripped()
    go_on(run, seen, 14, 14)
    result = run.finish()
    assert result.positions() == {'WALK': 14} and sound_book(home).equity == result.final_equity
    told_of = records(home)
    a, b = (next(n for n, r in enumerate(told_of) if isinstance(r, kind)) for kind in (Halted, Resumed))
    assert told_of[a].reason == 'too much news' and told_of[a].who and told_of[b].who == told_of[a].who
    breaches = [r for r in told_of if isinstance(r, BreachRecorded)]
    assert len(breaches) == 3 and {r.found for r in breaches} == {'too much news'} and all(a < told_of.index(r) < b for r in breaches)
    assert [r.fill.side.value for r in told_of[a:b] if type(r).__name__ == 'Filled'] == ['sell']


def test_a_halted_desk_opens_no_run(desk: DeskProcess, home: Path) -> None:
    ok(gekko(home, 'desk', 'halt', '--reason', 'closed today'))
    with pytest.raises(Halt, match='the desk is halted: expected gekko desk resume, found closed today'): desk_run(home)
    ok(gekko(home, 'desk', 'resume'))
    desk_run(home).finish()


def desk_run(home: Path) -> Session:
    """A run on the standing desk, whatever state it is in."""
    from gekko.desk.session import DeskRun, identify
    spec = make_spec('WALK', window=5)
    return DeskRun(identify('paper', spec, '', os.environ, {}), spec, desk_of(home)['desk'])


def test_flatten_by_command(desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5, policy='hold')
    seen = iter(run)
    go_on(run, seen, 10, -12)
    next(seen)
    (said,) = one_line(gekko(home, 'desk', 'flatten', '--reason', 'going home', '--json'))
    assert said['state'] == 'ended' and said['positions'] == {} and re.fullmatch('flattened by .+: going home', said['reason'])
    with pytest.raises(Halt, match='going home'): go_on(run, seen, 10)
    assert held(sound_book(home)) == {}
    (policy,) = (r for r in records(home) if isinstance(r, PolicyTaken))
    assert policy.policy == 'flatten' and 'going home' in policy.reason


def test_a_kill_switch_thrown_with_a_file(desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5)
    seen = iter(run)
    go_on(run, seen, 10, 10)
    (home / 'kill').write_text('smoke in the server room')
    go_on(run, seen, 20, 20, 4)
    next(seen)
    assert run.halted == 'smoke in the server room' == status_of(home).halted
    result = run.finish()
    assert result.positions() == {'WALK': 4} and {b.found for b in result.breaches} == {'smoke in the server room'}
    after = records(home)
    after = after[next(n for n, r in enumerate(after) if isinstance(r, Halted)):]
    sent = {r.client_id for r in after if type(r).__name__ == 'Submitted'}
    assert [r.intent.reduce_only for r in after if isinstance(r, IntentRecorded) and r.client_id in sent] == [True]


def test_an_unknown_desk_is_named(desk: DeskProcess, home: Path) -> None:
    refused = gekko(home, 'desk', 'halt', '--desk', 'elsewhere')
    assert refused.returncode == 2 and 'no such desk: expected standing, found elsewhere' in refused.stderr
    assert not (home / 'kill').exists() and status_of(home).halted == ''


def test_bad_answers_leave_the_bar_open(desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5)
    seen = iter(run)
    go_on(run, seen, 10)
    next(seen)
    before = entries_of(home)
    for wrong in ({'units': {'WALK': D('NaN')}}, {'weights': {'WALK': float('inf')}}, {'units': {'SIDE': D(1)}}):
        run.target(**wrong)
        with pytest.raises(BadInput): next(iter(run))
    run.target(units={'WALK': D(11)})
    next(iter(run))
    assert len(entries_of(home)) > len(before) and run.finish().positions() == {'WALK': 11} and sound_book(home).fills


def test_a_kill_file_is_in_the_ledger_though_nobody_asks_for_anything(desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5)
    next(iter(run))
    (home / 'kill').write_text('a smell of burning')
    def halts() -> list[Halted]: return [r for r in records(home) if isinstance(r, Halted)]
    wait_for(halts, 'the halt in the journal')
    assert [(h.reason, h.who) for h in halts()] == [('a smell of burning', 'kill switch')]
    ok(gekko(home, 'desk', 'resume'))
    assert status_of(home).halted == '' and isinstance(records(home)[-1], Resumed)
