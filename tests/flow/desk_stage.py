"""The stage of the whole system: a home of its own, notebooks, commands, desks and journals, each a few lines over the real thing."""
from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from server_stage import shared

from gekko.data.store import Store
from gekko.desk.client import Line
from gekko.desk.config import Settings, load_settings
from gekko.desk.protocol import AskStatus, Reply, Request, StatusReply
from gekko.desk.result import Result, decode_result
from gekko.desk.serve import find_desks
from gekko.domain.instrument import Instrument
from gekko.ledger.events import Entry
from gekko.ledger.journal import accounts, read_entries, verify
from gekko.ledger.replay import Book, replay
from gekko.ledger.runs import RunRecord, Runs

BIN = Path(sys.executable).parent
REPO = Path(__file__).resolve().parents[2]
STRATEGIES = REPO / 'strategies'
HEARTBEAT_S = 0.4      # twice that without a beat ends a run: enough for a machine that is busy with other tests
T = TypeVar('T')
ON_SERVER = os.environ.get('GEKKO_TEST_LEDGER') == 'postgres'      # then every home's ledger is on a PostgreSQL of the tests' own


# Homes and commands

def environ(home: Path, **more: str) -> dict[str, str]:
    """This process's environment, but none of a user's own settings, for one home and a quick pulse."""
    ours = {f.alias or name.upper() for name, f in Settings.model_fields.items()}
    return {**{k: v for k, v in os.environ.items() if k not in ours and k != 'GEKKO_RUN'}, **at(home), 'GEKKO_HEARTBEAT_S': str(HEARTBEAT_S), **more}


def at(home: Path) -> dict[str, str]:
    """Where a home and its ledger are, in words of the environment."""
    return {'GEKKO_HOME': str(home), **({'GEKKO_LEDGER': ledger_of(home)} if ON_SERVER else {})}


def settings_of(home: Path, **more: str) -> Settings: return load_settings(environ(home, **more), dotenv=None)


def gekko(home: Path, *words: object, cwd: Path | None = None, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """The command `gekko`, to its end, with its output in pipes."""
    return subprocess.run([str(BIN / 'gekko'), *map(str, words)], env=environ(home, **env), cwd=cwd or home.parent, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that must succeed printed."""
    assert done.returncode == 0, f'exit code {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done.stdout


def one_line(done: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """The one JSON value that a command with --json printed."""
    assert done.returncode == code, f'exit code {done.returncode}\n{done.stdout}\n{done.stderr}'
    assert done.stdout.count('\n') == 1, done.stdout
    return json.loads(done.stdout)


def at_once(*calls: Callable[[], T]) -> list[T]:
    """The answers of all calls, in their order, as many at a time as there are processors."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool: return [f.result() for f in [pool.submit(c) for c in calls]]


def launch(home: Path, *words: object, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """The command `gekko` in the background."""
    return subprocess.Popen([str(BIN / 'gekko'), *map(str, words)], env=environ(home, **env), cwd=cwd or home.parent, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(p: subprocess.Popen[str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A background command at its end."""
    out, err = p.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(p.args, p.returncode, out, err)


def wait_for(what: Callable[[], T | None], why: str, timeout_s: float = 60) -> T:
    """The first true answer of `what`; fails saying `why` when there is none in time."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if answer := what(): return answer
        time.sleep(0.02)
    raise AssertionError(f'waited {timeout_s:g} s in vain for {why}')


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z' if Path('/proc').is_dir() else os.kill(pid, 0) is None
    except (FileNotFoundError, ProcessLookupError): return False


@contextmanager
def tidy(home: Path) -> Iterator[Path]:
    """A home whose desks are ended with the test, however it went."""
    home.mkdir(parents=True, exist_ok=True)
    try: yield home
    finally:
        for card in find_desks(home):
            with suppress(ProcessLookupError): os.kill(card['pid'], signal.SIGKILL)


@pytest.fixture(scope='session')
def store(tmp_path_factory: pytest.TempPathFactory) -> Path: return make_store(tmp_path_factory.mktemp('market') / 'store')


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with tidy(tmp_path / 'home') as made: yield made


def tree(home: Path) -> dict[str, tuple[int, int]]:
    """Every folder under `home`, and every file with its size and the time of its last change. What SQLite lays beside a database to read it counts once it holds something."""
    found = {p: p.lstat() for p in sorted(home.rglob('*'))}
    return {str(p.relative_to(home)): (0, 0) if p.is_dir() else (s.st_size, s.st_mtime_ns) for p, s in found.items() if not p.name.endswith('-shm') and not (p.name.endswith('-wal') and not s.st_size)}


# Markets and notebooks

def bars(rows: int = 240, seed: int = 7, start: str = '2024-01-02', price: float = 100.0) -> pd.DataFrame:
    """A seeded walk of one-minute bars on a grid of cents, with a volume."""
    rng = np.random.default_rng(seed)
    close = np.round(price * np.exp(np.cumsum(rng.normal(0, 1e-3, rows))), 2)
    opened = np.round(np.concatenate([[price], close[:-1]]) * (1 + rng.normal(0, 1e-4, rows)), 2)
    return pd.DataFrame({'timestamp': pd.date_range(start, periods=rows, freq='min', tz='UTC'), 'open': opened, 'high': np.maximum(opened, close) + 0.05,
                         'low': np.minimum(opened, close) - 0.05, 'close': close, 'volume': rng.integers(20, 200, rows).astype(float)}).round({'high': 2, 'low': 2})


def make_store(root: Path) -> Path:
    """A store with two walks, WALK and SIDE, of 240 minutes each."""
    store = Store(str(root))
    for n, symbol in enumerate(('WALK', 'SIDE')): store.write(symbol, '1m', bars(seed=7 + n, price=100 - 40 * n), Instrument(symbol, symbol, 'USD', tick=Decimal('0.01'), lot=Decimal(1)))
    return root


def notebook(path: Path, *cells: str, tagged: Sequence[int] = (0,)) -> Path:
    """A notebook of code cells, of which those in `tagged` are parameters."""
    made = [{'cell_type': 'code', 'id': f'cell-{i}', 'metadata': {'tags': ['parameters']} if i in tagged else {}, 'execution_count': None, 'outputs': [], 'source': s} for i, s in enumerate(cells)]
    kernel = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    path.write_text(json.dumps({'nbformat': 4, 'nbformat_minor': 5, 'metadata': {'kernelspec': kernel}, 'cells': made}))
    return path


LADDER = ("""mode = 'backtest'
symbols = ['WALK']
start = ''
policy = 'flatten'
timeout_s = 0.0          # decision_timeout_s of the run
stop_at = -1             # the decision at which it waits for the file `go`
pulse = ''               # the file into which it then writes its process id
go = ''""", """import os, time
from decimal import Decimal
from pathlib import Path
from gekko.api import open_run
run = open_run(symbols, mode=mode, start=start, window=5, policy=policy, reduce_to='0.5', decision_timeout_s=timeout_s)
for n, bars in enumerate(run):
    if n == stop_at:
        Path(pulse).write_text(str(os.getpid()))
        while not Path(go).exists(): time.sleep(0.01)
    run.target(units={symbols[0]: Decimal(10 + n % 7)})
result = run.finish()""", "print('equity', f'{result.final_equity:.2f}')")


def ladder(folder: Path) -> Path:
    """A notebook that holds 10 to 16 of a symbol, a different size at every bar, and stops at one of them until it is told to go on."""
    return notebook(folder / 'ladder.ipynb', *LADDER)


# What was left behind

def desk_of(home: Path, name: str = '') -> dict[str, Any]:
    """The card of the one desk that serves in this home, when it does."""
    return wait_for(lambda: next((c for c in find_desks(home) if name in c['name']), None), 'a desk')


def ask(home: Path, request: Request, name: str = '', timeout_s: float = 10) -> Reply:
    """One question to the home's desk."""
    card = desk_of(home, name)
    line = Line(card['desk'], desk_key=card['key'], keys=home / 'keys', timeout_s=timeout_s)
    try: return line.ask(request)
    finally: line.close()


def status_of(home: Path, name: str = '') -> StatusReply:
    said = ask(home, AskStatus(), name)
    assert isinstance(said, StatusReply)
    return said


@lru_cache
def _place(home: Path) -> str: return shared().url(f'h{hashlib.sha256(str(home).encode()).hexdigest()[:12]}')
def passing() -> str: return shared().url() if ON_SERVER else ':memory:'      # a ledger that nobody else reads
def ledger_of(home: Path) -> str: return _place(home) if ON_SERVER else f'sqlite:///{home}/ledger.db'
def runs_of(home: Path) -> list[RunRecord]: return Runs(ledger_of(home)).list()


def only_run(home: Path) -> RunRecord:
    (r,) = runs_of(home)
    return r


def result_of(r: RunRecord) -> Result: return decode_result((Path(r.executed).parent / 'result.msgpack').read_bytes())


def entries_of(home: Path, account: str = '') -> list[Entry]:
    """An account's journal, of the only account when none is named."""
    if not account: (account,) = accounts(ledger_of(home))
    return list(read_entries(ledger_of(home), account))


def sound_book(home: Path, account: str = '') -> Book:
    """The replayed book; its chain must be whole and its arithmetic free of faults."""
    report = verify(ledger_of(home))
    assert report.ok, str(report)
    book = replay(entries_of(home, account))
    assert not book.faults, book.faults
    return book


def held(book: Book) -> dict[str, Decimal]: return {s: p.qty for s, p in book.account.positions.items() if p.qty}


def outputs(executed: Path) -> str:
    """All that a notebook shows below its cells, as one text."""
    return '\n'.join(json.dumps(c.get('outputs', [])) for c in json.loads(executed.read_text())['cells'])


def deals(r: Result) -> list[tuple[Any, ...]]:
    """Each fill of a run, without the names that an account gives its orders."""
    number = {o.client_id: n for n, o in enumerate(r.orders)}
    return [(f.fill_id, number[f.client_id], f.symbol, f.side, f.qty, f.price, f.fee, f.fee_currency, f.ts, f.maker) for f in r.fills]


def told(facts: Mapping[str, object]) -> list[str]:
    """Parameters as words of the command line."""
    return [w for k, v in facts.items() for w in ('-p', k, str(v))]
