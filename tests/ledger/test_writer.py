"""The journal with a writer's thread: what was answered is on disk, in order, through every fault; what was not is kept."""
from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from server_stage import Server

from gekko.domain.errors import BadInput, Halt
from gekko.domain.time import SystemClock
from gekko.ledger.database import engine, heads, writing
from gekko.ledger.events import Note
from gekko.ledger.journal import Journal, read_entries, verify
from gekko.ledger.lease import acquire


class Heard:
    """The answers to flushes, as they came: the flush's number, and why not (`''`: on disk)."""

    def __init__(self) -> None: self.all: list[tuple[int, str]] = []

    def of(self, n: int) -> Callable[[Halt | None], None]:
        return lambda said: self.all.append((n, '' if said is None else str(said.values['reason'])))


def flushed(j: Journal) -> str:
    """Flush and wait for the answer."""
    said: list[str] = []
    done = threading.Event()
    def then(h: Halt | None) -> None:
        said.append('' if h is None else str(h.values['reason']))
        done.set()
    j.flush(then)
    assert done.wait(20)
    return said[0]


def texts(url: str) -> list[str]: return [e.record.text for e in read_entries(url, 'paper')]


@pytest.fixture
def file(tmp_path: Path) -> str: return str(tmp_path / 'l.db')


def begun(url: str) -> Iterator[Journal]:
    j = Journal.open(url, 'paper', busy_ms=10, writer=True)
    j.append(Note('0'), 0)
    assert flushed(j) == ''
    yield j
    j.close()


@pytest.fixture
def j(url: str) -> Iterator[Journal]: yield from begun(url)


@pytest.fixture
def in_file(file: str) -> Iterator[Journal]: yield from begun(file)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another writer is in the middle of a transaction."""
    with engine(url, write=True).connect() as other, other.begin():
        other.execute(sa.select(heads).with_for_update())
        yield
        other.rollback()


def test_answers_come_in_order_and_what_they_answer_is_on_disk(url: str) -> None:
    seen: list[tuple[int, int, int]] = []
    def then(n: int) -> Callable[[Halt | None], None]:
        def answer(said: Halt | None) -> None:
            assert said is None and threading.current_thread() is not threading.main_thread()
            seen.append((n, max(e.seq for e in read_entries(url, 'paper', since=n - 1)), n))
        return answer
    with Journal.open(url, 'paper', writer=True) as j:
        for n in range(1, 61):
            j.append(Note(str(n)), n)
            j.flush(then(n))
    assert [n for n, _, _ in seen] == list(range(1, 61)) and all(on_disk >= n for _, on_disk, n in seen)
    assert verify(url).entries == 60


@pytest.mark.parametrize('seed', range(4))
def test_any_mixture_of_append_flush_and_commit_makes_the_same_chain(url: str, seed: int) -> None:
    rng, heard = random.Random(seed), Heard()
    with Journal.open(url, 'paper', writer=True) as j, Journal.open(':memory:', 'paper', durable=False) as plain:
        flushes = 0
        for n in range(300):
            for journal in (j, plain): journal.append(Note(str(n)), n, run=f'r{n % 3}')
            match rng.randrange(6):
                case 0 | 1: flushes += 1; j.flush(heard.of(flushes))
                case 2: j.commit(); assert j.pending == 0 and len(list(read_entries(url, 'paper'))) == n + 1
        head = plain.head
        assert j.head == head
    assert heard.all == [(n, '') for n in range(1, flushes + 1)]
    assert verify(url, 'paper', head=head[1]).entries == 300


def test_a_group_larger_than_a_statement(url: str) -> None:
    with Journal.open(url, 'paper', writer=True) as j:
        for n in range(5):
            for i in range(n * 31 + 1): j.append(Note(f'{n} {i}'), i)
            assert flushed(j) == ''
    assert verify(url).entries == 5 + 31 * 10


def test_a_lock_is_heard_and_the_next_flush_writes_all_of_it(j: Journal, url: str) -> None:
    heard = Heard()
    with locked(url):
        for n in (1, 2, 3):
            j.append(Note(str(n)), n)
            j.flush(heard.of(n))
        with pytest.raises(Halt, match='locked'): j.commit()
        assert heard.all == [(1, 'locked'), (2, 'locked'), (3, 'locked')] and j.pending == 3
    j.append(Note('4'), 4)
    j.flush(heard.of(4))
    j.commit()
    assert heard.all[3:] == [(4, '')] and texts(url) == list('01234') and verify(url).ok
@pytest.mark.sqlite
def test_a_full_disk_is_heard_and_a_flush_of_nothing_new_resumes(in_file: Journal, file: str) -> None:
    j = in_file
    raw = j._table.connection().connection.cursor()
    raw.execute(f'PRAGMA max_page_count={raw.execute("PRAGMA page_count").fetchone()[0] + 2}')
    for n in range(1, 51): j.append(Note('x' * 1000 + str(n)), n)
    assert [flushed(j), flushed(j)] == ['full', 'full'] and j.pending == 50 and len(texts(file)) == 1
    raw.execute('PRAGMA max_page_count=1000000')
    assert flushed(j) == '' and j.pending == 0
    assert [t.lstrip('x') for t in texts(file)] == [str(n) for n in range(51)] and verify(file).ok
@pytest.mark.sqlite
def test_a_connection_that_may_not_write(in_file: Journal, file: str) -> None:
    j = in_file
    j._table.connection().connection.cursor().execute('PRAGMA query_only=1')
    j.append(Note('1'), 1)
    assert [flushed(j), flushed(j)] == ['read-only', ''] and texts(file) == ['0', '1']       # it has opened the file anew
@pytest.mark.sqlite
def test_a_directory_moved_away(tmp_path: Path) -> None:
    home, away = tmp_path / 'home', tmp_path / 'away'
    home.mkdir()
    with Journal.open(str(home / 'l.db'), 'paper', writer=True) as j:
        j.append(Note('0'), 0)
        assert flushed(j) == ''
        home.rename(away)
        j.append(Note('1'), 1)
        assert [flushed(j), flushed(j)] == ['gone', 'gone'] and j.pending == 1
        away.rename(home)
        j.append(Note('2'), 2)
        assert flushed(j) == ''
    assert texts(str(home / 'l.db')) == ['0', '1', '2'] and verify(str(home / 'l.db')).ok


def test_a_server_that_stops_and_starts(server: Server) -> None:
    url = server.url()
    with Journal.open(url, 'paper', writer=True) as j:
        j.append(Note('0'), 0)
        assert flushed(j) == ''
        server.stop()
        try:
            j.append(Note('1'), 1)
            assert [flushed(j), flushed(j)] == ['gone', 'gone'] and j.pending == 1
        finally: server.start()
        j.append(Note('2'), 2)
        assert flushed(j) == ''
    assert texts(url) == ['0', '1', '2'] and verify(url).ok


def test_an_older_epoch_is_fenced_by_entries_and_by_a_lease(url: str) -> None:
    with Journal.open(url, 'paper', epoch=1) as j: j.append(Note('begun'), 0)
    old = Journal.open(url, 'paper', epoch=1, writer=True)
    acquire(url, 'paper', 'another desk', 10, SystemClock())
    old.append(Note('late'), 1)
    assert [flushed(old), flushed(old)] == ['fenced', 'fenced']
    with Journal.open(url, 'paper', epoch=2, writer=True) as new: new.append(Note('new'), 2)
    assert flushed(old) == 'fenced' and texts(url) == ['begun', 'new']
    with pytest.raises(Halt, match='newer writer'): old.close()


def test_a_second_writer_is_found(url: str) -> None:
    with Journal.open(url, 'paper') as first: first.append(Note('0'), 0)
    a, b = Journal.open(url, 'paper', writer=True), Journal.open(url, 'paper', writer=True)
    a.append(Note('a'), 0)
    b.append(Note('b'), 0)
    assert [flushed(a), flushed(b), flushed(b)] == ['', 'forked', 'forked']
    a.close()
    assert texts(url) == ['0', 'a'] and verify(url).ok


@pytest.mark.parametrize('more', [False, True])
def test_an_answer_lost_after_the_commit_is_not_written_twice(url: str, more: bool) -> None:
    with Journal.open(url, 'paper', writer=True) as j:
        j.append(Note('0'), 0)
        j.commit()
        batch = [j.append(Note(str(n)), n) for n in (1, 2)]
        j._table.write(batch, j._stored)
        if more: j.append(Note('3'), 3)
        assert flushed(j) == ''
    assert texts(url) == ['0', '1', '2', '3'][:3 + more] and verify(url).ok


def test_a_row_in_the_way_stops_the_whole_group(url: str) -> None:
    with Journal.open(url, 'paper', writer=True) as j:
        j.append(Note('0'), 0)
        j.commit()
        with writing(url, 'damage') as c: c.exec_driver_sql("insert into entries values ('paper', 3, 0, 1, 'note', '', '{}', '', '')")
        for n in (1, 2): j.append(Note(str(n)), n)
        assert flushed(j) == 'corrupt' and [e.seq for e in read_entries(url, 'paper')] == [1, 3]
        with writing(url, 'repair') as c: c.exec_driver_sql("delete from entries where seq = 3")
        assert flushed(j) == ''
    assert texts(url) == ['0', '1', '2'] and verify(url).ok


def test_close_writes_what_is_left_and_ends_the_thread(url: str) -> None:
    before = threading.active_count()
    j, heard = Journal.open(url, 'paper', writer=True), Heard()
    for n in range(1, 30):
        j.append(Note(str(n)), n)
        if n % 2: j.flush(heard.of(n))
    j.close()
    assert heard.all == [(n, '') for n in range(1, 30, 2)] and len(texts(url)) == 29 and threading.active_count() == before
    j.close()
    j.append(Note('after'), 30)
    assert flushed(j) == ''
    j.close()
    assert verify(url).entries == 30


def test_a_close_that_cannot_write_is_tried_again(j: Journal, url: str) -> None:
    j.append(Note('1'), 1)
    with locked(url), pytest.raises(Halt, match='locked'): j.close()
    assert j.pending == 1
    j.close()
    assert texts(url) == ['0', '1']


def test_an_error_in_an_answer_is_the_next_flush_s(j: Journal) -> None:
    def clumsy(said: Halt | None) -> None: raise ValueError('spilled')
    j.append(Note('1'), 1)
    j.flush(clumsy)
    while j.pending: pass
    with pytest.raises(ValueError, match='spilled'):
        for _ in range(2): flushed(j)
    assert flushed(j) == ''


def test_what_is_handed_over_with_somebody_else_s_error_is_written_and_answered(j: Journal, url: str) -> None:
    def clumsy(said: Halt | None) -> None: raise ValueError('spilled')
    heard = Heard()
    j.append(Note('1'), 1)
    j.flush(clumsy)
    while j.pending: pass
    j.append(Note('2'), 2)
    while True:      # until the error has been noted
        try: j.flush(heard.of(2))
        except ValueError: break
    j.append(Note('3'), 3)
    j.commit()
    assert texts(url) == ['0', '1', '2', '3'] and verify(url).ok and (2, '') in heard.all


def test_a_batch_that_does_not_follow_on_is_never_written(url: str) -> None:
    with Journal.open(url, 'a') as j: j.append(Note('1'), 1)
    broken = Journal.open(url, 'a')
    broken.append(Note('lost'), 2)
    broken._buffer.clear()      # whoever took it has dropped it
    broken.append(Note('3'), 3)
    with pytest.raises(Halt) as e: broken.commit()
    broken._table.close()
    assert e.value.values['reason'] == 'forked' and [x.seq for x in read_entries(j.url, 'a')] == [1] and verify(j.url).ok


def test_a_commit_inside_an_answer_is_refused_instead_of_waiting_for_ever(j: Journal) -> None:
    said: list[str] = []
    def then(h: Halt | None) -> None:
        j.append(Note('2'), 2)
        try: j.commit()
        except BadInput as e: said.append(e.message)
    j.flush(then)
    flushed(j)
    assert said == ['the writer cannot wait for itself']


@pytest.mark.parametrize(('where', 'how'), [(':memory:', {'durable': True}), (':memory:', {'durable': False}), ('file', {'durable': False})])
def test_where_a_thread_makes_no_sense_the_answer_comes_at_once(where: str, how: dict[str, bool], file: str) -> None:
    before, heard = threading.active_count(), Heard()
    with Journal.open(file if where == 'file' else where, 'paper', writer=True, **how) as j:
        j.append(Note('0'), 0)
        j.flush(heard.of(1))
        assert heard.all == [(1, '')] and threading.active_count() == before and [e.seq for e in j.entries()] == [1]


KILLED = textwrap.dedent('''
    import sys, time
    from gekko.ledger.events import Note
    from gekko.ledger.journal import Journal
    j = Journal.open(sys.argv[1], 'paper', writer=True)
    n = j.head[0]
    def then(n): return lambda said: (sys.stdout.write(f'{n}\\n'), sys.stdout.flush())
    while True:
        n += 1
        j.append(Note('x' * (n * 37 % 900), {'n': n}), n)
        j.flush(then(n))
        if n % 50 == 0: time.sleep(0.002)
''')


def test_kill_nine_loses_no_flush_that_was_answered(url: str) -> None:
    rng, answered = random.Random(11), 0
    for _ in range(2):
        p = subprocess.Popen([sys.executable, '-c', KILLED, url], stdout=subprocess.PIPE, text=True)
        assert p.stdout is not None
        for _ in range(rng.randrange(100, 600)): answered = int(p.stdout.readline())
        p.kill()
        rest = p.stdout.read().split('\n')[:-1]
        assert p.wait(10) == -9
        answered = int(rest[-1]) if rest else answered
        report = verify(url)
        assert report.ok and report.entries >= answered, f'{report}, answered {answered}'
        assert [e.data['data']['n'] for e in read_entries(url, 'paper')] == list(range(1, report.entries + 1))
