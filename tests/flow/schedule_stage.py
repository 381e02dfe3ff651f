"""A worker whose clock runs fast, and whose jobs leave a mark or are real notebooks: started as a process by the tests, and killed by them."""
from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gekko.desk.config import load_settings
from gekko.domain.time import Nanos
from gekko.jobs.performing import performing
from gekko.jobs.queue import Claim, Queue
from gekko.jobs.worker import Outcome, Perform, Worker


@dataclass(frozen=True)
class FastClock:
    """`speed` seconds a second, the same in every process of the machine. A file named `shift` in the folder moves it, ns."""
    start: Nanos
    began: int
    speed: int
    shift: Path

    def monotonic(self) -> Nanos: return (time.monotonic_ns() - self.began) * self.speed
    def now(self) -> Nanos:
        try: moved = int(self.shift.read_text())
        except (OSError, ValueError): moved = 0
        return self.start + self.monotonic() + moved


def clock_of(asked: dict[str, str | int]) -> FastClock:
    return FastClock(int(asked['start']), int(asked['began']), int(asked['speed']), Path(str(asked['folder'])) / 'shift')


def tell(folder: Path, *facts: object) -> None:
    """A line of the file that every job writes to and nobody ever changes: one write, at its end."""
    fd = os.open(folder / 'effects', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (' '.join(map(str, [*facts, time.monotonic_ns()])) + '\n').encode())
    os.close(fd)


def marking(folder: Path) -> Perform:
    """A job that has one effect, and looks whether it had it before; two at once would both find nothing. One of a schedule named `flaky` breaks at its first attempt."""
    def perform(claim: Claim, begun: Callable[[str], bool]) -> Outcome:
        mark = folder / 'marks' / claim.id.replace(':', '')
        fd = os.open(mark, os.O_CREAT | os.O_WRONLY)
        try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)      # gone with its process: a number in the file might be another's by now, or a dead one's that nobody has buried
        except BlockingIOError:
            tell(folder, 'doubled', claim.schedule.name, claim.due, claim.number)
            return Outcome('failed', 'two at once')
        if not begun(f'run-{os.getpid()}'): return Outcome('failed', 'lost')
        tell(folder, 'begin', claim.schedule.name, claim.due, claim.number)
        had = f'effect {claim.schedule.name} {claim.due} ' in (folder / 'effects').read_text()
        time.sleep(0.02)
        if claim.schedule.name == 'flaky' and claim.number == 1: return Outcome('failed', 'broke', again=True)
        if not had: tell(folder, 'effect', claim.schedule.name, claim.due, claim.number)
        tell(folder, 'end', claim.schedule.name, claim.due, claim.number)
        os.close(fd)
        return Outcome('done', 'finished')
    return perform


def either(folder: Path, real: Perform) -> Perform:
    """A schedule of a notebook that there is runs it, any other leaves a mark."""
    light = marking(folder)
    return lambda claim, begun: (real if Path(claim.schedule.notebook).is_file() else light)(claim, begun)


def with_starter() -> None:
    """The end of standard input is the end of whoever started this, and of this."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    threading.Thread(target=with_starter, daemon=True).start()
    asked = json.loads(sys.argv[1])
    here = Path(asked['folder'])
    Worker(Queue(asked['queue']), clock_of(asked), either(here, performing(load_settings(os.environ, dotenv=None))), here / asked.get('locks', 'locks'), slots=asked.get('slots', 4), lease_s=asked['lease_s'], poll_s=0.02,
           grace_s=asked.get('grace_s', 3600), name=asked['name']).serve()
