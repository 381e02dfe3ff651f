"""A worker whose clock runs fast and whose jobs take milliseconds: started as a process by the tests, and killed by them."""
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

from gekko.domain.time import Nanos
from gekko.jobs.queue import Claim, Queue
from gekko.jobs.worker import Outcome, Worker


@dataclass(frozen=True)
class FastClock:
    """`speed` seconds a second, the same in every process of the machine. A file named `shift` beside the queue moves it, ns."""
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


def performing(folder: Path) -> Callable[[Claim, Callable[[str], bool]], Outcome]:
    """A job that leaves a mark while it works, and finds out whether another does the same job at the same time."""
    def perform(claim: Claim, begun: Callable[[str], bool]) -> Outcome:
        mark = folder / 'marks' / claim.id.replace(':', '')
        lock = mark.with_suffix('.busy')
        fd = os.open(lock, os.O_CREAT | os.O_WRONLY)
        try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)      # gone with its process: a number in the file might be another's by now, or a dead one's that nobody has buried
        except BlockingIOError:
            (folder / 'doubled').write_text(claim.id)
            return Outcome('failed', 'two at once')
        if not begun(f'run-{os.getpid()}'): return Outcome('failed', 'lost')
        since = time.monotonic_ns()
        time.sleep(0.02)
        with open(mark, 'a') as f: f.write(f'{claim.number} {since} {time.monotonic_ns()}\n')
        os.close(fd)
        return Outcome('done', 'finished')
    return perform


def with_starter() -> None:
    """The end of standard input is the end of whoever started this, and of this."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == '__main__':
    threading.Thread(target=with_starter, daemon=True).start()
    asked = json.loads(sys.argv[1])
    here = Path(asked['folder'])
    Worker(Queue(asked['queue']), clock_of(asked), performing(here), here / 'locks', slots=2, lease_s=asked['lease_s'], poll_s=0.02, grace_s=3600, name=asked['name']).serve()
