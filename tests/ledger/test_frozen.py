"""A server that is frozen with its sockets open: nothing is refused and nothing is answered. Whoever waits is told within a stated time, and what had been done is known afterwards."""
from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
from server_stage import Server, place_of

from gekko.domain.errors import Halt
from gekko.domain.time import SystemClock
from gekko.ledger.database import engine
from gekko.ledger.events import Note
from gekko.ledger.journal import Journal, read_entries, verify
from gekko.ledger.lease import acquire

BOUND = 3.5     # seconds: a lock may be waited for a tenth of one (busy_ms 100), silence is told after three more


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None: monkeypatch.setattr('gekko.ledger.server.WRITE_S', 3.0)


@contextmanager
def frozen(server: Server, *pids: int) -> Iterator[None]:
    """The server's processes, all of them or those named, stand still for a while."""
    assert server.process is not None
    master = psutil.Process(server.process.pid)
    asleep = [p for p in (master, *master.children(recursive=True)) if not pids or p.pid in pids]
    for p in asleep: p.send_signal(signal.SIGSTOP)
    try: yield
    finally:
        for p in asleep:
            with suppress(psutil.NoSuchProcess): p.send_signal(signal.SIGCONT)


def texts(url: str) -> list[str]: return [e.record.text for e in read_entries(url, 'paper')]  # type: ignore[attr-defined]


def begun(url: str, threaded: bool) -> Journal:
    j = Journal.open(url, 'paper', busy_ms=100, writer=threaded)
    j.append(Note('a'), 0); j.commit()
    return j


def session_of(j: Journal) -> int: return int(j._table.connection().connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]


def refused(j: Journal) -> tuple[str, float]:
    """The reason of the Halt, and how long it took."""
    at = time.monotonic()
    with pytest.raises(Halt) as e: j.commit()
    return str(e.value.values['reason']), time.monotonic() - at


@pytest.mark.parametrize('threaded', [False, True], ids=['', 'on a thread'])
def test_a_frozen_server_is_told_of_in_time_and_written_again(server: Server, threaded: bool) -> None:
    url = server.url()
    j = begun(url, threaded)
    with frozen(server):
        j.append(Note('b'), 1)
        why, took = refused(j)
        assert why == 'gone' and took < BOUND and j.pending == 1
    j.append(Note('c'), 2)
    j.commit(); j.close()
    assert texts(url) == ['a', 'b', 'c'] and verify(url).ok


def test_whoever_hands_over_is_not_kept_waiting(server: Server) -> None:
    """The trading thread goes on while its writer waits, and hears why it could not be written; afterwards that it was."""
    url = server.url()
    j, said = begun(url, True), list[Halt | None]()
    with frozen(server):
        at = time.monotonic()
        j.append(Note('b'), 1); j.flush(said.append)
        assert time.monotonic() - at < 0.1
        while not said and time.monotonic() - at < 10: time.sleep(0.01)
        assert said[0] is not None and said[0].values['reason'] == 'gone' and time.monotonic() - at < BOUND
    j.append(Note('c'), 2); j.flush(said.append)
    until = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < until: time.sleep(0.01)
    assert said[1] is None and texts(url) == ['a', 'b', 'c']
    j.close()


def held_at(server: Server, j: Journal, word: str) -> threading.Event:
    """The next statement that begins with `word` is sent to a session that has just been frozen."""
    pid, done = session_of(j), threading.Event()
    raw = j._table.connection().connection
    plain = raw.dbapi_connection
    assert plain is not None
    def stop() -> None:
        if not done.is_set():
            psutil.Process(pid).send_signal(signal.SIGSTOP)
            done.set()
    if word == 'COMMIT':
        before = plain.commit
        def commit() -> None:
            stop()
            before()
        plain.commit = commit  # type: ignore[method-assign]
    return done


def test_a_commit_that_a_frozen_session_carries_out_when_it_wakes_is_not_written_twice(server: Server) -> None:
    """COMMIT was sent, nobody answered, and the entry is there once the session wakes up: the one that was cut off, before the one that asks again."""
    url = server.url()
    j = begun(url, False)
    pid, stopped = session_of(j), held_at(server, j, 'COMMIT')
    j.append(Note('b'), 1)
    why, took = refused(j)
    assert stopped.is_set() and why == 'gone' and took < BOUND
    assert texts(url) == ['a']
    j.append(Note('c'), 2)
    assert refused(j)[0] == 'locked'      # the frozen session has the head
    psutil.Process(pid).send_signal(signal.SIGCONT)
    until = time.monotonic() + 10
    while texts(url) != ['a', 'b'] and time.monotonic() < until: time.sleep(0.02)
    assert texts(url) == ['a', 'b']       # it was done after all
    j.commit(); j.close()
    assert texts(url) == ['a', 'b', 'c'] and verify(url).ok


def test_a_reader_and_a_lease_are_told_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url()
    lease = acquire(url, 'paper', 'desk', 60, SystemClock())
    monkeypatch.setattr('gekko.ledger.server.READ_S', 0.5)
    with engine(url).connect() as c, frozen(server):
        at = time.monotonic()
        with pytest.raises(Exception, match='no answer within 0.5 s'): c.exec_driver_sql('select 1')
        assert time.monotonic() - at < 2
        at = time.monotonic()
        with pytest.raises(Halt) as e: lease.renew()
        assert e.value.values['reason'] == 'gone' and time.monotonic() - at < 7 and lease.alive()      # five seconds to connect
    lease.renew()


def test_a_batch_that_takes_long_is_waited_for_as_long_as_the_server_is_heard(server: Server) -> None:
    """The bound is on silence: parts of it that are answered may together take longer, as what has piled up while the server was away does."""
    url = server.url()
    Journal.open(url, 'paper', busy_ms=100).close()
    place = place_of(url)
    server.sql(f'create function {place}.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.05); return new; end $$',
               f'create trigger slow before insert on {place}.entries for each row execute function {place}.slow()')
    j = Journal.open(url, 'paper', busy_ms=100)
    for n in range(90): j.append(Note(str(n)), n)
    at = time.monotonic()
    j.commit(); j.close()
    assert time.monotonic() - at > BOUND and texts(url) == [str(n) for n in range(90)] and verify(url).ok
