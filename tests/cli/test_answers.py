"""What the command says when it is content: exit codes, one line of JSON, help, and a bar that moves only for somebody who looks."""
import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
from desk_stage import BIN, LADDER, at_once, environ, gekko, ladder, ledger_of, make_store, notebook, ok, one_line, only_run, runs_of, tidy, tree

from gekko.cli.main import app
from gekko.ledger.journal import accounts
from gekko.risk.kill import KillSwitch


@pytest.fixture(scope='module')
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A home with a store and one paper run, and what `gekko run --json` printed for it."""
    folder = tmp_path_factory.mktemp('answers')
    make_store(folder / 'home' / 'store')
    with tidy(folder / 'home') as home: yield home, one_line(gekko(home, 'run', ladder(folder), '--mode', 'paper', '-p', 'symbols', 'WALK', '-p', 'start', '2024-01-02T03:00', '--json'))


def test_a_run_as_json(done: tuple[Path, dict[str, Any]]) -> None:
    home, said = done
    assert said['state'] == 'done' and said['exit_reason'] == 'finished' and said['error'] is None and said['mode'] == 'paper'
    assert said['params'] | {'symbols': ['WALK'], 'start': '2024-01-02T03:00', 'mode': 'paper'} == said['params']
    assert {'equity', 'fees', 'fills', 'orders', 'rejected', 'sharpe', 'max_drawdown', 'total_return'} <= said['metrics'].keys()
    assert isinstance(said['metrics']['equity'], str), 'an amount is text, so that no digit is lost'
    assert Path(said['executed']).is_file() and said['journal_head'] == only_run(home).journal_head


COMMANDS = ['runs list', 'runs list --limit 1 --mode paper', 'runs show RUN', 'runs diff RUN RUN', 'data list', 'data check WALK', 'ledger verify', 'ledger verify ACCOUNT', 'ledger verify --account ACCOUNT', 'ledger show ACCOUNT --last 3', 'ledger show ACCOUNT --kind fill,intent --since 2 --last 0', 'ledger accounts', 'desk status', 'doctor']


@pytest.mark.parametrize('words', COMMANDS)
def test_every_question_answers_in_one_line_of_json(words: str, done: tuple[Path, dict[str, Any]]) -> None:
    home, said = done
    filled = words.replace('RUN', said['run_id']).replace('ACCOUNT', said['account']).split()
    before = tree(home)
    answer, plain = at_once(lambda: gekko(home, *filled, '--json'), lambda: gekko(home, *filled))
    assert answer.stdout.count('\n') == 1 and answer.stderr == '' and isinstance(json.loads(answer.stdout), (dict, list))
    assert plain.returncode == answer.returncode == 0 and plain.stdout.strip() and plain.stderr == ''
    assert not re.search(r'[\x00-\x08\x0b-\x1f\x7f]', plain.stdout + answer.stdout), 'no control characters in a pipe'
    assert tree(home) == before, 'a question changes nothing'


def test_before_the_first_run_there_is_nothing_and_nothing_is_made(home: Path) -> None:
    asked = [words.split() for words in ('runs list', 'desk status', 'data list')]
    said = at_once(*(partial(gekko, home, *words, '--json') for words in asked), *(partial(gekko, home, *words) for words in asked))
    assert all(isinstance(one_line(s), list) for s in said[:3]) and all(ok(s) for s in said[3:])
    assert tree(home) == {}


# Exit codes

FAILING = ("mode = 'backtest'\nsymbols = ['WALK']\nband = 0.0\nexplode = False", "if explode: raise ValueError('no such luck')\nfrom gekko.api import open_run\nrun = open_run(symbols, mode=mode, band=band, window=5)\nrun.finish()")
OUTCOMES = {
    'an exception in a cell': (('-p', 'explode', 'true'), 1, 'ValueError: no such luck (cell 3)', 'failed'),
    'a value the run refuses': (('-p', 'band', '7'), 2, 'band: expected at most 1, found 7.0', 'failed'),
    'a halted desk': (('--mode', 'paper'), 3, 'the desk is halted: expected gekko desk resume, found fire drill', 'failed'),
}


@pytest.fixture(scope='module')
def failures(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, subprocess.CompletedProcess[str]]]:
    """All of them at once, each in a home of its own."""
    def fail(name: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
        folder = tmp_path_factory.mktemp('failing')
        if OUTCOMES[name][1] == 3: KillSwitch(folder / 'home' / 'kill').trip('fire drill', 'ann')
        return folder / 'home', gekko(folder / 'home', 'run', notebook(folder / 'failing.ipynb', *FAILING), *OUTCOMES[name][0], GEKKO_STORE=str(store))
    return dict(zip(OUTCOMES, at_once(*(partial(fail, name) for name in OUTCOMES))))


@pytest.mark.parametrize('name', OUTCOMES)
def test_how_a_job_that_fails_ends(name: str, failures: dict[str, tuple[Path, subprocess.CompletedProcess[str]]]) -> None:
    (_, code, says, state), (home, ended) = OUTCOMES[name], failures[name]
    assert ended.returncode == code and says in ended.stderr and 'gekko: ' in ended.stderr
    assert not [line for line in ended.stderr.splitlines() if line.startswith('Traceback')], ended.stderr
    record = only_run(home)
    assert record.state == state and says.split(' (cell')[0] in record.exit_reason and record.ended
    assert record.metrics == {} and (code != 3 or accounts(ledger_of(home)) == [])


TRAPS = {
    'given and then overwritten': ("stop_at = 5", 'parameter stop_at has another value than the run was started with: expected 7, found 5'),
    'its type changed': ("stop_at = '7'", "parameter stop_at has another value than the run was started with: expected 7, found '7'"),
    'deleted': ("del stop_at", 'parameter stop_at is gone from the notebook: expected 7, found no such name'),
    'the mode overwritten': ("mode = 'paper'", 'the notebook opens a run in another mode than the job was started in: expected backtest, found paper'),
}


def test_parameters_that_are_not_those_of_the_run(home: Path, store: Path, tmp_path: Path) -> None:
    """What is traded is what was asked for, or nothing is: four jobs in one folder at the same time, each refused with exit code 2."""
    def caught(n: int, line: str) -> subprocess.CompletedProcess[str]:
        return gekko(home, 'run', notebook(tmp_path / f'trap{n}.ipynb', LADDER[0], line, LADDER[1]), '-p', 'stop_at', 7, GEKKO_STORE=str(store))
    for refused, (_, says) in zip(at_once(*(partial(caught, n, line) for n, (line, _) in enumerate(TRAPS.values()))), TRAPS.values()):
        assert refused.returncode == 2 and says in refused.stderr, refused.stderr
    assert [(r.state, r.metrics) for r in runs_of(home)] == [('failed', {})] * 4


# For people

def on_a_terminal(home: Path, *words: object, **env: str) -> tuple[int, str]:
    """The command with stderr on a terminal of its own: exit code, and all that appeared there."""
    ours, theirs = pty.openpty()
    p = subprocess.Popen([str(BIN / 'gekko'), *map(str, words)], env=environ(home, TERM='xterm-256color', COLUMNS='120', **env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, cwd=home.parent)
    os.close(theirs)
    seen, until = b'', time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try: seen += os.read(ours, 65536)
            except OSError: break       # the other end is closed
        elif p.poll() is not None: break
    assert p.stdout is not None
    p.stdout.read()
    os.close(ours)
    return p.wait(10), seen.decode(errors='replace')


def test_a_bar_moves_on_a_terminal_and_nothing_in_a_pipe(home: Path, store: Path, tmp_path: Path) -> None:
    asked = ('run', ladder(tmp_path), '-p', 'symbols', 'WALK')
    with ThreadPoolExecutor() as pool:
        terminal, pipe = pool.submit(on_a_terminal, home, *asked, GEKKO_STORE=str(store)), pool.submit(gekko, home, *asked, GEKKO_STORE=str(store))
        (code, seen), piped = terminal.result(), pipe.result()
    assert code == 0 and 'ladder (backtest)' in seen and '100%' in seen and 'equity' in seen and '\x1b[' in seen
    assert piped.returncode == 0 and piped.stderr == ''
    assert 'equity' in piped.stdout and 'Sharpe ratio' in piped.stdout and 'gekko runs show' in piped.stdout and not re.search(r'[\r\x1b]', piped.stdout)


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, 'commands'): yield from commands(command, (*path, name))
        else: yield (*path, name), command


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize('path', ALL, ids=' '.join)
def test_every_command_explains_itself_and_knows_json(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help and command.help.endswith('.') and len(command.help) > 12
    assert '--json' in [o for p in command.params for o in p.opts]


def test_help(home: Path) -> None:
    top = ok(gekko(home, '--help'))
    for name in {path[0] for path in ALL}: assert re.search(rf'^ +{name}\b', top, re.M), name
    assert 'NAME VALUE' in ok(gekko(home, 'run', '--help')) and 'halt' in ok(gekko(home, 'desk', '--help'))
    bare = gekko(home)
    assert 'Usage' in bare.stdout + bare.stderr and tree(home) == {}
