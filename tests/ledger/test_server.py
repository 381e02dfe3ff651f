"""What only a server can do to a ledger: be killed, be gone, cut the line in the middle of a commit, fill its disk, and let two write at once."""
from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from server_stage import PASSWORD, Server, place_of

from gekko.domain.errors import BadInput, Halt, Reject
from gekko.domain.time import SimClock, SystemClock
from gekko.ledger.database import engine, fault, heads, reading, shown, writing
from gekko.ledger.events import Note
from gekko.ledger.journal import Journal, read_entries, verify
from gekko.ledger.lease import acquire, holdings
from gekko.ledger.runs import Runs


@pytest.fixture
def url(server: Server) -> str: return server.url()


def texts(url: str) -> list[str]: return [e.record.text for e in read_entries(url, 'paper')]  # type: ignore[attr-defined]


def refused(j: Journal) -> str:
    with pytest.raises(Halt) as e: j.commit()
    assert e.value.values['pending'] == j.pending > 0
    return str(e.value.values['reason'])


def begun(url: str) -> Journal:
    """A journal with one entry, 'a'."""
    j = Journal.open(url, 'paper')
    j.append(Note('a'), 0); j.commit()
    return j


def session_of(j: Journal) -> int:
    """The process of the server that serves the writer."""
    return int(j._table.connection().connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]


# a session -----------------------------------------------------------------------------------------------------------------

def test_sessions_are_set_whatever_the_server_says(server: Server, url: str) -> None:
    server.sql('alter role gekko set synchronous_commit = off', "alter role gekko set default_transaction_isolation = 'serializable'", 'alter role gekko set lock_timeout = 0')
    try:
        def said(write: bool, durable: bool = True) -> list[str]:
            with engine(url, write=write, durable=durable, busy_ms=700).begin() as c:
                return [c.exec_driver_sql(f'show {n}').scalar_one() for n in ('synchronous_commit', 'transaction_isolation', 'transaction_read_only', 'lock_timeout', 'client_encoding')]
        assert said(True) == ['on', 'read committed', 'off', '700ms', 'UTF8']
        assert said(True, durable=False)[0] == 'off'
        assert said(False)[1:] == ['repeatable read', 'on', '2s', 'UTF8']
    finally: server.sql('alter role gekko reset all')


def test_a_server_that_may_lose_what_it_confirmed_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match='may lose what it has confirmed'): Journal.open(f'{url} -csynchronous_commit%3Doff', 'paper')
    Journal.open(f'{url} -csynchronous_commit%3Doff', 'paper', durable=False).close()      # who asked for less may have it


def test_a_database_of_another_encoding_is_refused(server: Server, url: str) -> None:
    server.sql("create database latin encoding 'LATIN1' template template0 locale 'C'")
    with pytest.raises(BadInput, match='cannot hold every text'): Journal.open(url.replace('/postgres?', '/latin?'), 'paper')


def test_a_reader_cannot_write_and_sees_one_instant(url: str) -> None:
    j = begun(url)
    with reading(url) as c:
        before = c.execute(sa.select(heads.c.seq)).scalar()
        j.append(Note('b'), 1); j.commit()
        assert c.execute(sa.select(heads.c.seq)).scalar() == before == 1
    with pytest.raises(BadInput, match='cannot be read: read-only'), reading(url) as c: c.execute(heads.delete())
    j.close()


# passwords -----------------------------------------------------------------------------------------------------------------

def test_no_message_shows_a_password(server: Server, url: str) -> None:
    good = url.replace('gekko@', f'desk:{PASSWORD}@')
    Journal.open(good, 'paper').close()
    bad = [good.replace(PASSWORD, PASSWORD + 'x'), url.replace('gekko@', 'desk@') + f'&password={PASSWORD}x', good.replace('/postgres?', '/nowhere?'), good.replace('%2F', '%2Fno'),
           good + '&port=99999', good + '&connect_timeout=soon', good + '&no_such_word=1', f'postgresql://desk:{PASSWORD}@127.0.0.1:9/x', f'postgresql://desk:{PASSWORD}@[::1/x', f'postgresql://desk:{PASSWORD}@h:p/x']
    for address in bad:
        for try_ in (lambda u: Journal.open(u, 'paper'), lambda u: list(read_entries(u, 'paper')), verify, holdings, lambda u: acquire(u, 'paper', 'd', 10, SimClock(1)), lambda u: Runs(u).get('x'), lambda u: shown(u)):
            try: said = str(try_(address))
            except (BadInput, Halt) as e: said = ''.join(traceback.format_exception(e)) + repr(e) + str(e.values)
            assert PASSWORD not in said, address
    assert PASSWORD not in repr(engine(good)) + repr(acquire(good, 'paper', 'd', 10, SimClock(1))) + repr(Journal.open(good, 'p2'))


# the server goes and comes back --------------------------------------------------------------------------------------------

def test_a_stopped_server_halts_and_resumes(server: Server, url: str) -> None:
    j, clock = begun(url), SystemClock()
    lease = acquire(url, 'other', 'desk', 60, clock)
    with server.away():
        j.append(Note('b'), 1)
        assert refused(j) == 'gone' and refused(j) == 'gone'
        with pytest.raises(Halt) as e: lease.renew()
        assert e.value.values['reason'] == 'gone' and lease.alive()
        with pytest.raises(BadInput, match='cannot be read: gone'): list(read_entries(url, 'paper'))
        j.append(Note('c'), 2)
        assert refused(j) == 'gone' and j.pending == 2
    j.commit(); lease.renew()
    assert texts(url) == ['a', 'b', 'c'] and verify(url).ok
    j.close()


def test_a_session_that_is_ended_is_opened_again(server: Server, url: str) -> None:
    j = begun(url)
    server.sql(f'select pg_terminate_backend({session_of(j)}, 5000)')
    j.append(Note('b'), 1)
    assert refused(j) == 'gone'
    j.commit()
    os.kill(session_of(j), signal.SIGTERM)
    j.append(Note('c'), 2)
    time.sleep(0.2)
    assert refused(j) == 'gone'
    j.commit(); j.close()
    assert texts(url) == ['a', 'b', 'c'] and verify(url).ok


def test_a_ledger_that_was_dropped_is_not_made_again(server: Server, url: str) -> None:
    j = begun(url)
    server.sql(f'drop schema {place_of(url)} cascade', f'create schema {place_of(url)}')
    j.append(Note('b'), 1)
    assert refused(j) == 'gone' and refused(j) == 'gone'
    with pytest.raises(Halt, match='is gone'), writing(url, 'a lease', create=False): pass
    with pytest.raises(BadInput, match='not a ledger'): texts(url)
    Journal.open(url, 'paper').close()
    assert refused(j) == 'forked'


def test_a_restart_under_kill_nine_loses_nothing_and_doubles_nothing(server: Server, url: str) -> None:
    """The whole server is killed while a writer commits as fast as it can, three times; the writer goes on by itself."""
    rng, stop, reported, faults = random.Random(7), threading.Event(), [0], []
    def write() -> None:
        n = 0
        while not stop.is_set() or j.pending:
            if not j.pending:
                for _ in range(1 + n % 5): n += 1; j.append(Note('x' * (n * 37 % 500), {'n': n}), n)
            try: j.commit(); reported[0] = n
            except Halt as e:
                faults.append(e.values['reason']); time.sleep(0.05)
        j.close()
    j = Journal.open(url, 'paper')
    t = threading.Thread(target=write); t.start()
    for _ in range(3):
        time.sleep(rng.uniform(0.2, 0.5))
        server.kill()
        told = reported[0]
        server.start()
        assert len(list(read_entries(url, 'paper'))) >= told
    time.sleep(0.3); stop.set(); t.join(30)
    assert not t.is_alive() and faults and set(faults) <= {'gone'}
    assert [e.data['data']['n'] for e in read_entries(url, 'paper')] == list(range(1, reported[0] + 1)) and verify(url).ok


# a commit whose answer is not heard ----------------------------------------------------------------------------------------

class Wire:
    """A line to the server that can be cut at a word: `cut(word, pass_it)` breaks it when the writer sends a message that holds `word`,
    after the server has had it (and answered, into nothing) or before."""

    def __init__(self, server: Server) -> None:
        self.server, self.folder = server, Path(tempfile.mkdtemp(prefix='gk'))
        self.word, self.passes, self.cuts, self._ends = b'', True, 0, list[socket.socket]()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.folder / '.s.PGSQL.5432')); self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, word: bytes, passes: bool) -> None: self.word, self.passes = word, passes

    def _accept(self) -> None:
        while True:
            try: ours, _ = self.listener.accept()
            except OSError: return
            theirs = socket.socket(socket.AF_UNIX); theirs.connect(str(self.server.folder / '.s.PGSQL.5432'))
            self._ends += [ours, theirs]
            threading.Thread(target=self._carry, args=(ours, theirs), daemon=True).start()

    def _carry(self, ours: socket.socket, theirs: socket.socket) -> None:
        watch = selectors.DefaultSelector()
        watch.register(ours, selectors.EVENT_READ, theirs); watch.register(theirs, selectors.EVENT_READ, ours)
        with suppress(OSError):
            while True:
                for key, _ in watch.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data: raise OSError
                    if key.fileobj is ours and self.word and self.word in data.upper():
                        self.word, self.cuts = b'', self.cuts + 1
                        if self.passes: theirs.sendall(data); theirs.recv(65536)      # the server has done it and says so
                        raise OSError
                    key.data.sendall(data)
        for s in (ours, theirs): s.close()

    def close(self) -> None:
        for s in (self.listener, *self._ends): s.close()
        for p in self.folder.iterdir(): p.unlink()
        self.folder.rmdir()


@contextmanager
def wired(server: Server) -> Iterator[tuple[Wire, str, str]]:
    """The line, a ledger's address by way of it, and its address without."""
    wire = Wire(server)
    direct = server.url()
    try: yield wire, server.url(place_of(direct), wire.folder), direct
    finally: wire.close()


@pytest.mark.parametrize('passes', [True, False], ids=['done', 'not done'])
@pytest.mark.parametrize('more', [False, True], ids=['', 'and more'])
@pytest.mark.parametrize('threaded', [False, True], ids=['', 'on a thread'])
def test_a_line_cut_in_the_middle_of_a_commit(server: Server, passes: bool, more: bool, threaded: bool) -> None:
    """Whether it was done is not known to the writer: the head says it, when it asks again."""
    with wired(server) as (wire, url, direct):
        j = Journal.open(url, 'paper', writer=threaded)
        j.append(Note('a'), 0); j.commit()
        wire.cut(b'COMMIT\0', passes)
        for x in 'bcd': j.append(Note(x), 1)
        assert refused(j) == 'gone' and wire.cuts == 1
        assert texts(direct) == (['a', 'b', 'c', 'd'] if passes else ['a'])
        if more: j.append(Note('e'), 2)
        j.commit()
        assert texts(direct) == ['a', 'b', 'c', 'd', 'e'][:4 + more] and verify(direct).ok and j.pending == 0
        j.close()


@pytest.mark.parametrize('word', [b'BEGIN', b'INSERT', b'UPDATE'])
def test_a_line_cut_in_the_middle_of_a_transaction(server: Server, word: bytes) -> None:
    with wired(server) as (wire, url, direct):
        j = Journal.open(url, 'paper')
        j.append(Note('a'), 0); j.commit()
        for n, passes in enumerate((True, False)):
            wire.cut(word, passes)
            j.append(Note(f'{n}'), 1)
            assert refused(j) == 'gone' and wire.cuts == n + 1
            j.commit()
        assert texts(direct) == ['a', '0', '1'] and verify(direct).ok
        j.close()


def test_a_lease_cut_in_the_middle_is_taken_or_not_and_never_twice(server: Server) -> None:
    with wired(server) as (wire, url, direct):
        clock = SimClock(10**18)
        with writing(url, 'the tables'): pass
        for passes, held in ((False, 0), (True, 1)):
            wire.cut(b'COMMIT\0', passes)
            with pytest.raises(Halt, match='the ledger is gone'): acquire(url, 'paper', 'desk', 10, clock)
            assert len(holdings(direct)) == held
        with pytest.raises(Reject, match='held by desk'): acquire(url, 'paper', 'desk', 10, clock)      # by a desk that does not know: until it runs out
        clock.advance(10 * 10**9)
        assert acquire(url, 'paper', 'desk', 10, clock).epoch == 2


# a disk that is full, rights that are taken, rows that are locked -----------------------------------------------------------

def test_a_full_disk_halts_and_the_next_commit_resumes(server: Server, url: str) -> None:
    """The server may let no file grow beyond what the entries take now; its write-ahead log is in files of 1 MB, so that they are not what is hit."""
    j = begun(url)
    for n in range(300): j.append(Note(random.Random(n).randbytes(3000).hex(), {'n': n}), n)
    j.commit()
    with reading(url) as c: size = max(c.exec_driver_sql("select pg_relation_size('entries'), pg_relation_size(reltoastrelid) from pg_class where oid = 'entries'::regclass").one())
    assert size > 1 << 20
    server.stop(); server.start(largest=size + 16384)
    try:
        for n in range(300): j.append(Note(random.Random(n).randbytes(3000).hex(), {'n': n}), n)
        assert [refused(j) for _ in range(3)] == ['gone', 'full', 'full'] and j.pending == 300
        assert len(texts(url)) == 301 and verify(url).ok          # nothing of the batch, not a part of it
    finally:
        server.stop(); server.start()
    assert refused(j) == 'gone'
    j.commit(); j.close()
    assert len(texts(url)) == 601 and verify(url).ok


def test_rights_that_are_taken_halt_and_resume(server: Server, url: str) -> None:
    theirs = url.replace('gekko@', f'desk:{PASSWORD}@')
    j, place = begun(theirs), place_of(url)
    server.sql(f'revoke all on all tables in schema {place} from desk', f'alter table {place}.entries owner to gekko', f'grant select on all tables in schema {place} to desk', f'alter table {place}.heads owner to gekko', f'grant select on all tables in schema {place} to desk')
    j.append(Note('b'), 1)
    assert refused(j) == 'read-only'
    server.sql(f'grant all on all tables in schema {place} to desk')
    j.commit(); j.close()
    assert texts(url) == ['a', 'b'] and verify(url).ok


def test_a_writer_that_is_frozen_in_a_transaction_loses_it(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk stopped in the middle of a commit holds the head's lock; the server ends its session, and the next desk can write."""
    monkeypatch.setattr('gekko.ledger.server.IDLE_S', 1)
    old = begun(url)
    frozen = engine(url, write=True, busy_ms=2001).connect()
    frozen.execute(sa.select(heads).with_for_update())
    old.append(Note('b'), 1)
    at = time.monotonic()
    old.commit()                                        # its own patience is two seconds: it waits for the frozen one to be ended
    assert 0.5 < time.monotonic() - at < 2
    with pytest.raises(sa.exc.DBAPIError) as e: frozen.execute(sa.select(heads)).all()
    assert fault(e.value) == 'gone'
    old.close()
    frozen.close()
    assert texts(url) == ['a', 'b']


def test_a_row_that_is_locked_is_said_in_time(url: str) -> None:
    j = Journal.open(url, 'paper', busy_ms=50)
    j.append(Note('a'), 0); j.commit()
    with engine(url, write=True).begin() as c:
        c.execute(sa.select(heads).with_for_update())
        j.append(Note('b'), 1)
        at = time.monotonic()
        assert refused(j) == 'locked' and time.monotonic() - at < 1
        assert texts(url) == ['a']                      # and a reader does not notice
    j.commit(); j.close()
    assert texts(url) == ['a', 'b']


# several at once -----------------------------------------------------------------------------------------------------------

def race(code: str, url: str, n: int) -> list[str]:
    """What `n` processes print that run `code` at the same instant."""
    at = time.time() + 1.5
    ps = [subprocess.Popen([sys.executable, '-c', textwrap.dedent(code), url, str(i), str(at)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for i in range(n)]
    return sorted(p.communicate(timeout=60)[0].strip() for p in ps)


def test_of_many_that_make_the_ledger_at_once_each_finds_it_made(url: str) -> None:
    said = race('''
        import sys, time
        from gekko.ledger.journal import Journal
        from gekko.ledger.events import Note
        time.sleep(max(0, float(sys.argv[3]) - time.time()))
        with Journal.open(sys.argv[1], 'a' + sys.argv[2], busy_ms=20_000) as j: j.append(Note('x'), 0)
        print('made')
    ''', url, 4)
    assert said == ['made'] * 4 and verify(url).entries == 4


def test_of_many_first_leases_one_is_given(url: str) -> None:
    with writing(url, 'the tables'): pass
    said = race('''
        import sys, time
        from gekko.domain.errors import Reject
        from gekko.domain.time import SystemClock
        from gekko.ledger.lease import acquire
        time.sleep(max(0, float(sys.argv[3]) - time.time()))
        try: print('epoch', acquire(sys.argv[1], 'paper', 'desk-' + sys.argv[2], 3600, SystemClock()).epoch)
        except Reject as e: print('held by', e.values['holder'])
    ''', url, 4)
    assert said[0] == 'epoch 1' and len(set(said[1:])) == 1 and said[1].startswith('held by desk-')


def test_two_writers_of_different_epochs_race_and_the_older_never_follows_the_newer(url: str) -> None:
    """The old one commits as fast as it can while a new one takes over: its last commit is before the new one's first."""
    j, stopped = begun(url), []
    def old() -> None:
        try:
            for n in range(100_000): j.append(Note(f'old {n}'), n); j.commit()
        except Halt as e: stopped.append(e.values['reason'])
    t = threading.Thread(target=old); t.start()
    time.sleep(0.3)
    lease = acquire(url, 'paper', 'new', 10, SystemClock())
    for _ in range(3):
        try: new = Journal.open(url, 'paper', epoch=lease.epoch); new.append(Note('new'), 0); new.commit(); break
        except Halt as e: assert e.values['reason'] == 'forked'      # an old commit that was under way when the lease was taken
    t.join(10)
    new.append(Note('new'), 1); new.close()
    assert stopped == ['fenced'] and verify(url).ok
    epochs = [e.epoch for e in read_entries(url, 'paper')]
    assert epochs == sorted(epochs) and epochs.count(lease.epoch) == 2 and epochs.count(1) > 50


def test_two_first_writers_of_one_account_leave_one_chain(url: str) -> None:
    a, b = Journal.open(url, 'paper'), Journal.open(url, 'paper')
    said: list[str] = []
    def write(j: Journal, text: str) -> None:
        j.append(Note(text), 0)
        for _ in range(2):
            try: j.commit(); said.append('written'); return
            except Halt as e: said.append(str(e.values['reason']))
    with engine(url, write=True).begin() as c:      # both get as far as they can before either commits
        c.execute(sa.text('lock table heads in exclusive mode'))
        ts = [threading.Thread(target=write, args=(j, text)) for j, text in ((a, 'a'), (b, 'b'))]
        for t in ts: t.start()
        time.sleep(0.5)
    for t in ts: t.join(20)
    assert sorted(said) == ['forked', 'forked', 'written'] and len(texts(url)) == 1 and verify(url).ok
