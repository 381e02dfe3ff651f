"A sweep whose process is killed leaves no worker at work, whatever the worker is in the middle of."
from __future__ import annotations
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
import psutil

MAKER = """import collections, itertools, os, sys
def make(plan):
    def work(task):
        os.mkdir(f'{plan.home}/{os.getpid()}')
        collections.deque(itertools.repeat(0), maxlen=0)
    return work
"""
ASK = """import sys
from gekko.research.processes import Processes
from gekko.research.sweep import Plan, Tasks
Processes(2, 'looping:make').run(Plan('s', 'n.ipynb', '{}', 'c0de', {'days': 5}, {}, ('days',), sys.argv[1], sys.argv[1]), list(Tasks({'days': [1, 2]})), print)
"""

def until(true: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 120
    while not true():
        assert time.monotonic() < limit, what
        time.sleep(0.02)

def at_work(p: psutil.Process) -> bool:
    try: return p.is_running() and p.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return False

def test_workers_in_a_loop_of_c_code_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / 'looping.py').write_text(MAKER)
    (home := tmp_path / 'home').mkdir()
    with subprocess.Popen([sys.executable, '-c', ASK, str(home)], cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)}) as asker:
        workers: list[psutil.Process] = []
        try:
            until(lambda: len(os.listdir(home)) == 2 or asker.poll() is not None, 'no worker came to its loop')
            workers = psutil.Process(asker.pid).children(recursive=True)
            assert {int(x) for x in os.listdir(home)} <= {p.pid for p in workers}
            asker.kill()
            until(lambda: not any(at_work(p) for p in workers), 'workers are still at work')
            assert asker.wait(120) == -signal.SIGKILL
        finally:
            asker.kill()
            for p in workers:
                if at_work(p): p.kill()
