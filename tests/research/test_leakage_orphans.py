"A check of leaks leaves nobody at work: its processes end with whoever asked, however that one ends, in the middle of whatever they do."
from __future__ import annotations
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
import psutil
import pytest

LOOP = """import collections, itertools, os, subprocess
from gekko.api import open_run, trade
def weights(bars):
    started = subprocess.Popen(['sleep', '600'])
    os.mkdir(f'{SEEN}/{os.getpid()}-{started.pid}')
    collections.deque(itertools.repeat(0), maxlen=0)
"""
ASK = "import sys; from gekko.research.leakage_notebook import prove_notebook; prove_notebook(sys.argv[1], budget_s=120.0, workers=2)"
MANY = """import os, subprocess, sys
from gekko.research import forks, lifeline
def work():
    started = subprocess.Popen(['sleep', '600'])
    os.mkdir(f'{sys.argv[1]}/{os.getpid()}-{started.pid}')
    import collections, itertools
    collections.deque(itertools.repeat(0), maxlen=0)
forks.die_with = lambda parent: None      # as on a system that tells nobody of a parent's death
forks.many([(1, work), (2, work)], 2, 600.0, keeper=lifeline.kept(int(sys.argv[2])))
"""

def until(true: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.02)

def at_work(p: psutil.Process) -> bool:
    try: return p.is_running() and p.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False

def family(asker: psutil.Process, seen: Path, forks: int) -> list[psutil.Process]:
    "Everybody whom the asker started, once so many forks are in their loops, with what these started."
    until(lambda: len(os.listdir(seen)) >= forks or not at_work(asker), 'no fork came to its loop')
    assert at_work(asker)
    pids = {int(x) for name in os.listdir(seen) for x in name.split('-')}
    everybody = asker.children(recursive=True)
    assert pids <= {p.pid for p in everybody}, (pids, everybody)
    return everybody

def gone(everybody: list[psutil.Process]) -> None:
    until(lambda: not any(at_work(p) for p in everybody), f'still at work: {[p for p in everybody if at_work(p)]}')

@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Path]:
    "A folder in which forks tell their process ids; whatever a failed test leaves is ended."
    (at := tmp_path / 'seen').mkdir()
    yield at
    for name in os.listdir(at):
        for pid in map(int, name.split('-')):
            try:
                if psutil.Process(pid).environ().get('ORPHANS') == str(at): os.kill(pid, signal.SIGKILL)
            except (psutil.Error, ProcessLookupError): pass

def asked(seen: Path) -> psutil.Popen:
    "A process that checks a notebook with an endless loop in C code."
    nb = {'cells': [{'cell_type': 'code', 'id': f'c{k}', 'source': s, 'metadata': {}, 'outputs': [], 'execution_count': None} for k, s in enumerate((f'SEEN = {str(seen)!r}\n{LOOP}', "trade(open_run(['SP500'], start='2012-01-01', end='2013-01-01', window=1), weights)"))], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}
    (file := seen.parent / 'n.ipynb').write_text(json.dumps(nb))
    home = seen.parent / 'home'
    env = {**os.environ, 'GEKKO_HOME': str(home), 'GEKKO_STORE': str(home / 'store'), 'TMPDIR': str(seen.parent), 'ORPHANS': str(seen)}
    return psutil.Popen([sys.executable, '-c', ASK, str(file)], env=env, stderr=subprocess.PIPE)

@pytest.mark.parametrize('whom', ('asker', 'server'))
def test_who_is_killed_leaves_no_fork_in_its_loop(whom: str, seen: Path) -> None:
    with asked(seen) as asker:
        try:
            everybody = family(asker, seen, 2)
            if whom == 'asker': asker.kill()
            else: asker.children()[0].kill()
            gone(everybody)
            words = asker.stderr.read().decode()
            assert asker.wait(120) != 0 and (whom == 'asker' or 'the check came to no end' in words), words
        finally:
            if asker.poll() is None: asker.kill()

@pytest.mark.parametrize('whom', ('asker', 'server'))
def test_where_no_death_is_told_of_the_pipe_tells(whom: str, seen: Path) -> None:
    life, asks = os.pipe()
    with psutil.Popen([sys.executable, '-c', MANY, str(seen), str(life)], pass_fds=(life,), env={**os.environ, 'ORPHANS': str(seen)}) as server:
        os.close(life)
        try:
            everybody = family(server, seen, 2)
            if whom == 'server': server.kill()
            else:
                os.close(asks)
                asks = -1
            gone(everybody)
            assert server.wait(120) == -signal.SIGKILL
        finally:
            if server.poll() is None: server.kill()
            if asks >= 0: os.close(asks)
