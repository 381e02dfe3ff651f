"""The kernel dies, stops or hangs half way, or is told to go: the desk does what the run declared, and everybody can read why."""
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from decimal import Decimal as D
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from desk_stage import alive, at_once, desk_of, ended, entries_of, gekko, held, ladder, launch, ok, only_run, result_of, settings_of, sound_book, tidy, told, wait_for

from gekko.cli.runs import show_run, shown_run
from gekko.ledger.events import Halted, PolicyTaken, RunClosed
from gekko.ledger.replay import Book
from gekko.ledger.runs import RunRecord

STOP_AT, HELD = 60, D(10 + 59 % 7)      # at decision 60 the position is what decision 59 asked for


class Struck(NamedTuple):
    """A run that something happened to, after its end."""
    done: subprocess.CompletedProcess[str]
    home: Path
    record: RunRecord
    book: Book
    desk: int
    kernel: int


def kill_kernel(job: subprocess.Popen[str], kernel: int) -> None: os.kill(kernel, signal.SIGKILL)
def stop_kernel(job: subprocess.Popen[str], kernel: int) -> None: os.kill(kernel, signal.SIGSTOP)
def nothing(job: subprocess.Popen[str], kernel: int) -> None: """The kernel goes on waiting by itself: its heart beats and it decides nothing."""
def terminate(job: subprocess.Popen[str], kernel: int) -> None: job.terminate()
def interrupt(job: subprocess.Popen[str], kernel: int) -> None: job.send_signal(signal.SIGINT)


BLOWS: dict[str, tuple[Callable[[subprocess.Popen[str], int], None], str, dict[str, object]]] = {
    'killed-hold': (kill_kernel, 'hold', {}), 'killed-reduce': (kill_kernel, 'reduce', {}), 'killed-flatten': (kill_kernel, 'flatten', {}),
    'stopped': (stop_kernel, 'reduce', {}), 'hangs': (nothing, 'flatten', {'timeout_s': 1.0}), 'terminated': (terminate, 'flatten', {}), 'interrupted': (interrupt, 'hold', {})}
WHY = {'stopped': 'fell silent', 'hangs': 'the notebook hangs: no decision for', 'terminated': 'fell silent', 'interrupted': 'fell silent'}
SAID = {'terminated': 'stopped by SIGTERM', 'interrupted': 'interrupted'}
KEPT = {'hold': HELD, 'reduce': D(int(HELD / 2)), 'flatten': D(0)}


@pytest.fixture(scope='module')
def struck(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Struck]:
    """Each blow, dealt to a paper run of its own at its decision 60."""
    def deal(name: str) -> Struck:
        folder, (blow, policy, more) = tmp_path_factory.mktemp(name), BLOWS[name]
        asked = {'policy': policy, 'stop_at': STOP_AT, 'pulse': folder / 'pulse', 'go': folder / 'go', **more}
        with tidy(folder / 'home') as home:
            job = launch(home, 'run', ladder(folder), '--mode', 'paper', *told(asked), GEKKO_STORE=str(store), GEKKO_GRACE_S='1.5')
            kernel = int(wait_for(lambda: (folder / 'pulse').exists() and (folder / 'pulse').read_text(), f'{name}: the notebook half way'))
            desk = desk_of(home)['pid']
            blow(job, kernel)
            return Struck(ended(job), home, only_run(home), sound_book(home), desk, kernel)
    return dict(zip(BLOWS, at_once(*(partial(deal, name) for name in BLOWS))))


@pytest.mark.parametrize('name', BLOWS)
def test_the_declared_policy_is_carried_out(name: str, struck: dict[str, Struck]) -> None:
    s, policy = struck[name], BLOWS[name][1]
    assert held(s.book) == ({'WALK': KEPT[policy]} if KEPT[policy] else {})
    assert not s.book.open_orders and s.book.halted
    records = [e.record for e in entries_of(s.home)]
    at = next(n for n, r in enumerate(records) if isinstance(r, PolicyTaken))
    taken, why = records[at], WHY.get(name, 'fell silent')
    assert isinstance(taken, PolicyTaken) and taken.policy == policy and why in taken.reason
    assert isinstance(records[at - 1], Halted) and isinstance(records[-1], RunClosed) and why in records[-1].reason
    assert sum(isinstance(r, PolicyTaken) for r in records) == sum(isinstance(r, RunClosed) for r in records) == 1


@pytest.mark.parametrize('name', BLOWS)
def test_after_the_halt_orders_only_reduce(name: str, struck: dict[str, Struck]) -> None:
    entries = [e.record for e in entries_of(struck[name].home)]
    after = entries[next(n for n, r in enumerate(entries) if isinstance(r, Halted)):]
    assert all(r.intent.reduce_only and r.intent.side.value == 'sell' for r in after if type(r).__name__ == 'IntentRecorded')
    assert all(r.fill.side.value == 'sell' for r in after if type(r).__name__ == 'Filled')


@pytest.mark.parametrize('name', BLOWS)
def test_the_record_the_command_and_the_books_agree(name: str, struck: dict[str, Struck]) -> None:
    s = struck[name]
    assert s.done.returncode == 1 and SAID.get(name, 'the kernel died') in s.done.stderr and 'Traceback' not in s.done.stderr
    assert s.record.state == 'killed' and WHY.get(name, 'fell silent') in s.record.exit_reason and SAID.get(name, 'the kernel died') in s.record.exit_reason
    assert s.record.ended and s.record.journal_head == s.book.head
    assert D(s.record.metrics['equity']) == s.book.equity == result_of(s.record).final_equity
    shown = shown_run(show_run(settings_of(s.home), s.record.run_id))
    assert re.search('^books agree +yes$', shown, re.M) and 'killed' in shown
    assert '"outputs": []' in Path(s.record.executed).read_text(), 'what had run by then is kept'
    assert not alive(s.kernel) and not alive(s.desk)


def test_runner_and_kernel_gone_the_desk_finishes_alone(home: Path, store: Path, tmp_path: Path) -> None:
    """Nobody is left to be told, and still the position is closed and the record says why; then the desk leaves."""
    asked = {'policy': 'flatten', 'stop_at': STOP_AT, 'pulse': tmp_path / 'pulse', 'go': tmp_path / 'go'}
    job = launch(home, 'run', ladder(tmp_path), '--mode', 'paper', *told(asked), GEKKO_STORE=str(store), GEKKO_LINGER_S='2')
    kernel = int(wait_for(lambda: (tmp_path / 'pulse').exists() and (tmp_path / 'pulse').read_text(), 'the notebook half way'))
    desk = desk_of(home)['pid']
    job.kill()
    os.kill(kernel, signal.SIGKILL)
    assert job.wait(10) == -signal.SIGKILL and alive(desk)
    wait_for(lambda: only_run(home).ended, 'the desk to write the record')
    assert only_run(home).state == 'killed' and 'fell silent' in only_run(home).exit_reason
    assert held(sound_book(home)) == {} and only_run(home).journal_head == sound_book(home).head
    wait_for(lambda: not alive(desk), 'the desk to leave')
    job.communicate()


def test_a_kernel_does_not_outlive_its_runner(home: Path, store: Path, tmp_path: Path) -> None:
    """A backtest whose runner is killed leaves no process, and its record does not say for ever that it runs."""
    asked = {'stop_at': 5, 'pulse': tmp_path / 'pulse', 'go': tmp_path / 'go'}
    job = launch(home, 'run', ladder(tmp_path), *told(asked), GEKKO_STORE=str(store))
    kernel = int(wait_for(lambda: (tmp_path / 'pulse').exists() and (tmp_path / 'pulse').read_text(), 'the notebook half way'))
    (before,) = json.loads(ok(gekko(home, 'runs', 'list', '--json')))
    job.kill()
    job.communicate()
    (after,) = json.loads(ok(gekko(home, 'runs', 'list', '--json')))
    assert (before['state'], after['state'], after['ended']) == ('running', 'killed', 'its runner is gone')
    wait_for(lambda: not alive(kernel), 'the kernel to see that it is alone')
