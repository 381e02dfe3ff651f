"""A PostgreSQL of the tests' own: made in a private folder, reached over a socket in it, stopped and removed at the end. Nothing is assumed to run."""
from __future__ import annotations

import atexit
import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = 'sesame-4711'
SETTINGS = {'listen_addresses': '', 'fsync': 'on', 'full_page_writes': 'on', 'shared_buffers': '16MB', 'max_connections': '60', 'max_wal_size': '64MB', 'autovacuum': 'off', 'log_min_messages': 'log'}


@lru_cache
def programs() -> Path:
    """The folder of initdb and postgres, as scripts/postgres.sh finds it."""
    return Path(subprocess.run([ROOT / 'scripts/postgres.sh'], capture_output=True, text=True, check=True).stdout.strip())


def somebody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: who it runs as instead, as words for Popen."""
    if os.getuid() != 0: return {}
    for name in ('postgres', 'nobody'):
        try: who = pwd.getpwnam(name)
        except KeyError: continue
        return {'user': who.pw_uid, 'group': who.pw_gid, 'extra_groups': []}
    raise LookupError('no user postgres and no user nobody')


class Server:
    """One cluster. `url()` names a ledger in it that is as good as a database of its own, and takes a millisecond."""

    def __init__(self, **settings: str) -> None:
        self.folder, self.settings, self.who = Path(tempfile.mkdtemp(prefix='gk')), {**SETTINGS, **settings}, somebody()
        self.data, self.log, self._made, self._lock = self.folder / 'd', self.folder / 'log', 0, threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.guard: subprocess.Popen[bytes] | None = None
        if self.who: os.chown(self.folder, self.who['user'], self.who['group'])
        self._run('initdb', '-D', self.data, '-U', 'gekko', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--data-checksums', '--wal-segsize=1', '--no-sync', '--no-instructions')
        (self.data / 'pg_hba.conf').write_text('local all desk scram-sha-256\nlocal all all trust\n')
        self.start()
        self.sql(f"create role desk login password '{PASSWORD}'", 'grant all on database postgres to desk')

    def _run(self, program: str, *words: object) -> None:
        subprocess.run([str(programs() / program), *map(str, words)], check=True, capture_output=True, cwd=self.folder, env=self._env(), **self.who)

    def _env(self) -> dict[str, str]: return {'PATH': os.environ['PATH'], 'LC_ALL': 'C', 'TZ': 'UTC'}

    def start(self, largest: int = 0) -> None:
        """Start it and wait until it answers. `largest`: no file of its may grow beyond so many bytes."""
        def limit() -> None: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        words = [w for k, v in {**self.settings, 'unix_socket_directories': str(self.folder)}.items() for w in ('-c', f'{k}={v}')]
        with self.log.open('ab') as log:
            self.process = subprocess.Popen([str(programs() / 'postgres'), '-D', str(self.data), *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=self._env(), start_new_session=True,
                                            preexec_fn=limit if largest else None, **self.who)
        self._guard()
        deadline = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline: raise RuntimeError(self.log.read_text()[-2000:])
            time.sleep(0.01)

    def _guard(self) -> None:
        """Whatever becomes of this process, killed with -9 too: when its end of the pipe closes, the server is stopped and its folder removed."""
        assert self.process is not None
        if self.guard: self._release()
        words = f'read _ && exit; kill -INT {self.process.pid} && while kill -0 {self.process.pid}; do sleep 0.1; done; rm -rf {self.folder}'
        self.guard = subprocess.Popen(['sh', '-c', words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **self.who)

    def _release(self) -> None:
        assert self.guard is not None and self.guard.stdin is not None
        with suppress(BrokenPipeError): self.guard.stdin.write(b'done\n'); self.guard.stdin.close()
        self.guard.wait(10)
        self.guard = None

    def _answers(self) -> bool:
        import psycopg
        try: self.connect().close()
        except psycopg.OperationalError: return False
        return True

    def kill(self) -> None:
        """SIGKILL to the whole server at once, its sessions too: they are processes of their own, and would finish what they are at."""
        import psutil
        assert self.process is not None
        if self.guard: self._release()
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for p in everyone:
            with suppress(psutil.NoSuchProcess): p.kill()
        self.process.wait()
        psutil.wait_procs(everyone, timeout=10)
        (self.data / 'postmaster.pid').unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop at once, without waiting for sessions; what was committed is on disk."""
        if self.process is None or self.process.poll() is not None: return
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)

    def remove(self) -> None:
        self.stop()
        if self.guard: self._release()
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The server is stopped for a while."""
        self.stop()
        try: yield
        finally: self.start()

    def connect(self, **more: Any) -> Any:
        import psycopg
        return psycopg.connect(host=str(self.folder), dbname='postgres', user='gekko', autocommit=True, **more)

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Carry out statements as the superuser; the rows of the last one."""
        with closing(self.connect()) as c:
            for s in statements: cursor = c.execute(s)
            return list(cursor.fetchall()) if cursor.description else []

    def url(self, name: str = '', folder: Path | None = None, user: str = 'gekko') -> str:
        """The address of a ledger of this name, a new one when none is given. `folder`: where another socket stands that leads here."""
        with self._lock:      # two sessions that grant at once are one too many
            self._made += 1
            place = name or f'l{self._made}'
            self.sql(f'create schema if not exists {place}', f'grant all on schema {place} to desk')
        return f'postgresql://{user}@/postgres?host={quote(str(folder or self.folder), safe="")}&options=-csearch_path%3D{place}'


def place_of(url: str) -> str:
    """The schema in which a ledger of `Server.url` lies."""
    return url.rpartition('%3D')[2]


_SHARED: list[Server] = []


def shared() -> Server:
    """The server of this process's tests, started when first asked for and removed when the process ends."""
    if not _SHARED:
        _SHARED.append(Server())
        atexit.register(_SHARED[0].remove)
    return _SHARED[0]
