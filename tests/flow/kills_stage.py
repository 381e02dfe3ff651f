"""A home in which a schedule trades on paper by itself: its worker, its warm kernels, its desks; and how one finds each of them, to kill it."""
from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from desk_stage import BIN, alive, environ, ledger_of, notebook, settings_of, wait_for

from gekko.cli.schedule import add_here
from gekko.desk.config import Settings
from gekko.desk.serve import find_desks
from gekko.domain.time import SystemClock
from gekko.jobs import warm
from gekko.jobs.kernelspec import spec
from gekko.jobs.queue import Due, Queue, queue_url
from gekko.jobs.when import Every
from gekko.ledger.runs import RunRecord, Runs

FEW = ['ipykernel.kernelapp', 'ipykernel.ipkernel', 'IPython', 'numpy', 'pandas', 'msgspec', 'pydantic', 'sqlalchemy', 'zmq']
PATIENCE = 240.0

STEPS = ("""mode = 'backtest'
symbols = ['WALK']
policy = 'flatten'
venue = ''
gate = ''                # a folder: what has been reached is written there, and a file `hold-NAME` holds it there""", """import os, time
from decimal import Decimal
from pathlib import Path
def reached(name):
    with open(Path(gate, 'seen'), 'a') as f: f.write(f'{name} {os.getpid()}\\n')
    while Path(gate, f'hold-{name}').exists(): time.sleep(0.005)
reached('opening')""", """from gekko.api import open_run
run = open_run(symbols, mode=mode, window=5, policy=policy, reduce_to='0.5')
for n, bars in enumerate(run):
    reached(n)
    run.target(units={symbols[0]: Decimal(10 + n % 7)})
reached('end')
result = run.finish()""", """reached('finished')
print('equity', f'{result.final_equity:.2f}')""")


LIVE = ("""mode = 'live'
venue = ''
policy = 'hold'
gate = ''""", STEPS[1], """from gekko.api import open_run
run = open_run(['BTC-USD'], mode=mode, venue=venue, bar='1s', bars=3, window=5, policy=policy)
for n, window in enumerate(run):
    reached(n)
    run.target(units={'BTC-USD': Decimal('0.05') * (1 + n)})
reached('end')
result = run.finish()""")


def of_few(path: Path, *cells: str) -> Path:
    """A notebook for the kernel of the stage."""
    words = json.loads(notebook(path, *cells).read_text())
    words['metadata']['kernelspec'] = {'name': 'few', 'display_name': 'few', 'language': 'python'}
    path.write_text(json.dumps(words))
    return path


def seen_at(gate: Path) -> dict[str, int]:
    """What a notebook has reached so far, and its process there."""
    try: lines = (gate / 'seen').read_text().split('\n')[:-1]
    except OSError: return {}
    return {name: int(pid) for name, pid in map(str.split, lines)}


def opened(pid: int) -> set[str]:
    """The files that a process has open."""
    try: return {os.readlink(f) for f in Path(f'/proc/{pid}/fd').iterdir()}
    except OSError: return set()


@dataclass
class Stage:
    """Each schedule has a folder, its gate, in which its notebook says how far it is."""
    home: Path
    run: Path
    env: dict[str, str]
    settings: Settings
    worker: subprocess.Popen[str] | None = None
    served: int = 0
    reference: str = ''

    def gate(self, name: str) -> Path: return self.home / 'gates' / name
    @property
    def queue(self) -> Queue: return Queue(queue_url(ledger_of(self.home)))
    @property
    def place(self) -> warm.Place: return warm.place(FEW, {**environ(self.home), **self.env}, self.run / f'gekko-{os.getuid()}')

    def serve(self) -> None:
        """The command that works, until it is killed."""
        self.served += 1
        with open(self.home / f'worker-{self.served}.log', 'w') as log:
            self.worker = subprocess.Popen([str(BIN / 'gekko'), 'schedule', 'serve', '--lease', '2', '--slots', '4', '--json'], env=environ(self.home, **self.env), cwd=self.home, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.worker.stdout is not None and self.worker.stdout.readline()

    def fire(self, name: str, *holds: str) -> Due:
        """A job of that schedule, due now, that will stand still at `holds`."""
        gate = self.gate(name)
        shutil.rmtree(gate, ignore_errors=True)
        gate.mkdir(parents=True)
        for at in holds: (gate / f'hold-{at}').touch()
        assert self.queue.now(name, SystemClock().now())
        return self.queue.jobs(name, 1)[0]

    def go_on(self, name: str) -> None:
        for f in self.gate(name).glob('hold-*'): f.unlink()

    def seen(self, name: str) -> dict[str, int]: return seen_at(self.gate(name))
    def job(self, name: str, due: int) -> Due: return next(d for d in self.queue.jobs(name, 99) if d.due == due)
    def runs_of(self, due: Due) -> list[RunRecord]:
        """The runs that were made of a job, oldest first."""
        return [r for r in reversed(Runs(ledger_of(self.home)).list(limit=10_000)) if (r.spec.get('run') or {}).get('schedule') == due.schedule and r.spec['run']['due'] == due.due]

    def victims(self, what: str, name: str) -> list[int]:
        """The processes of that kind that live now, of that schedule's job where each job has its own."""
        assert self.worker is not None
        if what == 'worker': return [self.worker.pid]
        if what == 'zygote': return [said['pid']] if (said := warm.status(self.place)) is not None else []
        if what == 'kernel': return [p for p in set(self.seen(name).values()) if alive(p)]
        run = self.queue.jobs(name, 1)[0].run_id
        if what == 'desk': return [c['pid'] for c in find_desks(self.home) if c['name'] == f'run-{run}']
        children = [int(p) for p in Path(f'/proc/{self.worker.pid}/task/{self.worker.pid}/children').read_text().split()]
        return [p for p in children if f'{self.home}/runs/{run}/runner.lock' in opened(p)] if run else children[-1:]

    def forked(self) -> list[int]:
        """The kernels that were not started cold."""
        said = warm.status(self.place)
        return said['kernels'] if said is not None else []

    def kill(self, name: str, *whats: str) -> list[str]:
        """All of these at once, as far as they are there; which were."""
        found = {what: self.victims(what, name) for what in whats}
        for pids in found.values():
            for pid in pids:
                with suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)
        if 'worker' in whats and self.worker is not None: self.worker.communicate()
        return [what for what, pids in found.items() if pids]

    def left_behind(self) -> dict[int, str]:
        """Processes of this stage that have no business any more: neither the worker nor what its kernels come from."""
        mine, keep = f'XDG_RUNTIME_DIR={self.run}'.encode(), {*self.victims('zygote', ''), self.worker.pid if self.worker else 0}
        out = {}
        for p in Path('/proc').glob('[0-9]*'):
            try: known = mine in (p / 'environ').read_bytes().split(b'\0')
            except OSError: continue
            if known and int(p.name) not in keep and alive(int(p.name)): out[int(p.name)] = (p / 'cmdline').read_bytes().replace(b'\0', b' ').decode()[:200]
        return out


@contextmanager
def staged(folder: Path, store: Path, **more: str) -> Iterator[Stage]:
    """A home with schedules `flatten`, `reduce`, `hold`, and `plain` as nobody disturbs it, and a worker. All of its processes end with it."""
    home, run = folder / 'home', Path(tempfile.mkdtemp(prefix='gk'))      # sockets have short names
    home.mkdir(parents=True)
    at = folder / 'jupyter' / 'kernels' / 'few'
    at.mkdir(parents=True)
    words = spec()
    words['metadata']['kernel_provisioner']['config'] = {'preload': FEW, 'wait_s': PATIENCE}
    (at / 'kernel.json').write_text(json.dumps(words))
    env = {'XDG_RUNTIME_DIR': str(run), 'JUPYTER_PATH': str(folder / 'jupyter'), 'JUPYTER_RUNTIME_DIR': str(folder / 'runtime'), 'IPYTHONDIR': str(folder / 'ipython'), 'GEKKO_STORE': str(store),
           'GEKKO_LINGER_S': '1', 'GEKKO_GRACE_S': '3', **more}
    s = Stage(home, run, env, settings_of(home, **env))
    steps = of_few(home / 'steps.ipynb', *STEPS)
    for name in ('flatten', 'reduce', 'hold', 'plain'):
        add_here(s.settings, name, str(steps), Every('30d'), {'policy': name if name != 'plain' else 'flatten', 'gate': str(s.gate(name))}, mode='paper', retries=1, backoff='1s')
    s.serve()
    try: yield s
    finally:
        if s.worker is not None and s.worker.poll() is None:
            s.worker.terminate()
            with suppress(subprocess.TimeoutExpired): s.worker.communicate(timeout=60)
            s.worker.kill()
            s.worker.communicate()
        for pid in [*s.left_behind(), *s.victims('zygote', '')]:
            with suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not s.left_behind(), 'the processes of the stage are gone')
        shutil.rmtree(run, ignore_errors=True)
