"The journal under its writer, its readers and real faults."
from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from gekko.domain.errors import BadInput, Halt
from gekko.ledger.database import VERSION, engine, entries, heads, reading, schema
from gekko.ledger.events import Deposited, Entry, Halted, Note
from gekko.ledger.journal import Journal, accounts, read_entries, verify
from gekko.ledger.lease import acquire
from gekko.domain.time import SystemClock


def texts(found: object) -> list[str]: return [e.record.text for e in found]  # type: ignore[attr-defined]


def test_append_commit_reopen_go_on(url: str) -> None:
    with Journal.open(url, 'paper') as j:
        first = j.append(Note('one'), 5, run='r1')
        assert (j.pending, list(j.entries())) == (1, [])
        j.commit()
        assert (j.pending, list(j.entries()), j.head) == (0, [first], (1, first.hash))
    with Journal.open(url if '://' in url else f'sqlite:///{url}', 'paper') as j:
        assert j.head == (1, first.hash)
        second = j.append(Note('two'), 4)
        assert second.prev == first.hash and second.seq == 2
    assert list(read_entries(url, 'paper')) == [first, second]
    assert verify(url).ok


def test_close_commits_and_commit_of_nothing_is_nothing(url: str) -> None:
    j = Journal.open(url, 'paper')
    j.commit()
    j.append(Note('kept'), 0)
    j.close(); j.close()
    assert texts(read_entries(url, 'paper')) == ['kept']


def test_accounts_share_a_file_and_not_a_chain(url: str) -> None:
    a, b = Journal.open(url, 'a'), Journal.open(url, 'b')
    for i in range(20):
        a.append(Note(f'a{i}'), i); b.append(Note(f'b{i}'), i)
        a.commit(); b.commit()
    a.close(); b.close()
    assert accounts(url) == ['a', 'b']
    assert texts(read_entries(url, 'b')) == [f'b{i}' for i in range(20)]
    assert verify(url).entries == 40 and verify(url, 'a').entries == 20


def test_read_by_since_kind_and_run(url: str) -> None:
    with Journal.open(url, 'paper') as j:
        for i in range(12): j.append(Note(str(i)) if i % 3 else Halted(str(i)), i, run='even' if i % 2 == 0 else 'odd')
    assert [e.seq for e in read_entries(url, 'paper', since=9)] == [10, 11, 12]
    assert [e.seq for e in read_entries(url, 'paper', kinds={'halt'})] == [1, 4, 7, 10]
    assert [e.seq for e in read_entries(url, 'paper', since=1, kinds=['halt'], run='even')] == [7]
    assert list(read_entries(url, 'nobody')) == []


def test_pages_join_without_a_seam(url: str) -> None:
    with Journal.open(url, 'paper', durable=False) as j:
        for i in range(12_345): j.append(Note(str(i)), i); j.commit()
    assert [e.seq for e in read_entries(url, 'paper')] == list(range(1, 12_346))
    assert verify(url).entries == 12_345


@pytest.mark.parametrize('where', [':memory:', 'file'])
def test_not_durable_means_the_same_chain(where: str, tmp_path: Path, url: str) -> None:
    def write(u: str, durable: bool) -> tuple[int, str]:
        with Journal.open(u, 'paper', durable=durable) as j:
            for i in range(30):
                j.append(Note(str(i)), i, run='r'); j.commit()
                assert j.pending == 0
            assert texts(j.entries(since=28)) == ['28', '29']
            assert len(list(j.entries())) == 30
            return j.head
    assert write(url, True) == write(where if where != 'file' else str(tmp_path / 'fast.db'), False)


def test_readers_hold_no_lock_and_the_writer_blocks_no_reader(url: str) -> None:
    j = Journal.open(url, 'paper', busy_ms=1)
    j.append(Note('first'), 0); j.commit()
    reader = read_entries(url, 'paper')
    assert next(reader).seq == 1                     # a reader that stops half way
    with reading(url) as other:
        assert len(other.execute(sa.select(entries)).all()) == 1
        j.append(Note('second'), 0); j.commit()      # and one that sits on a snapshot
        assert len(other.execute(sa.select(entries)).all()) == 1
        with engine(url, write=True, busy_ms=1).begin() as writer:     # and a writer inside its transaction
            writer.execute(heads.update().values(hash='x'))
            assert texts(read_entries(url, 'paper')) == ['first', 'second']
            assert verify(url, 'paper').ok
            writer.rollback()
    j.close()


def test_readers_follow_a_writer_that_writes(url: str) -> None:
    j, n, seen, stop = Journal.open(url, 'paper'), 300, [0], threading.Event()
    j.commit()
    def follow() -> None:
        while seen[0] < n and not stop.is_set():
            for e in read_entries(url, 'paper', since=seen[0]):
                assert e.seq == seen[0] + 1
                seen[0] = e.seq
    t = threading.Thread(target=follow); t.start()
    for i in range(n): j.append(Note(str(i)), i); j.commit()
    t.join(20); stop.set()
    assert seen[0] == n
    j.close()


# faults -------------------------------------------------------------------------------------------------------------------

def refused(j: Journal) -> str:
    with pytest.raises(Halt) as e: j.commit()
    assert e.value.values['pending'] == j.pending > 0
    return str(e.value.values['reason'])


def test_a_lock_halts_and_the_next_commit_resumes(url: str) -> None:
    j = Journal.open(url, 'paper', busy_ms=10)
    j.append(Note('a'), 0); j.commit()
    other = engine(url, write=True).connect(); other.execute(sa.select(heads).with_for_update())
    j.append(Note('b'), 1)
    assert refused(j) == 'locked'
    j.append(Note('c'), 2)
    assert refused(j) == 'locked' and j.pending == 2
    other.close()
    j.commit()
    assert texts(j.entries()) == ['a', 'b', 'c'] and verify(url).ok
    j.close()
@pytest.mark.sqlite
def test_a_full_disk_halts_and_the_next_commit_resumes(tmp_path: Path) -> None:
    url = str(tmp_path / 'l.db')
    j = Journal.open(url, 'paper')
    j.append(Note('a'), 0); j.commit()
    raw = j._table.connection().connection.cursor()
    raw.execute(f'PRAGMA max_page_count={raw.execute("PRAGMA page_count").fetchone()[0] + 2}')
    for i in range(50): j.append(Note('x' * 1000), i)
    assert refused(j) == 'full' and refused(j) == 'full' and j.pending == 50
    assert len(list(read_entries(url, 'paper'))) == 1 and verify(url).ok     # nothing of the batch, not a part of it
    raw.execute('PRAGMA max_page_count=1000000')
    j.commit(); j.close()
    assert len(list(read_entries(url, 'paper'))) == 51 and verify(url).ok
@pytest.mark.sqlite
def test_a_connection_that_may_not_write_halts_and_resumes(tmp_path: Path) -> None:
    url = str(tmp_path / 'l.db')
    j = Journal.open(url, 'paper')
    j._table.connection().connection.cursor().execute('PRAGMA query_only=1')
    j.append(Note('a'), 0)
    assert refused(j) == 'read-only'
    j.commit(); j.close()                             # it has opened the file anew
    assert texts(read_entries(url, 'paper')) == ['a']
@pytest.mark.sqlite
def test_a_write_error_of_the_system_halts_and_resumes(tmp_path: Path) -> None:
    "The kernel refuses to let the file grow (RLIMIT_FSIZE): an I/O error in the middle of a commit, in a process of its own."
    code = '''
        import resource, sys
        from gekko.domain.errors import Halt
        from gekko.ledger.events import Note
        from gekko.ledger.journal import Journal, verify
        j = Journal.open(sys.argv[1], 'paper')
        j.append(Note('a'), 0); j.commit()
        resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, resource.RLIM_INFINITY))
        for i in range(300): j.append(Note('x' * 1000), i)
        for attempt in (1, 2):
            try: j.commit(); print('written')
            except Halt as e: print(e.values['reason'], j.pending)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        j.commit(); j.close(); print(verify(sys.argv[1]))
    '''
    p = subprocess.run([sys.executable, '-c', textwrap.dedent(code), str(tmp_path / 'l.db')], capture_output=True, text=True, timeout=60)
    lines = p.stdout.splitlines()
    assert p.returncode == 0, p.stderr
    assert [x.split()[1] for x in lines[:2]] == ['300', '300'] and all(x.split()[0] in ('gone', 'full', 'read-only') for x in lines[:2])
    assert lines[2] == 'sound: 301 entries of paper'
@pytest.mark.sqlite
def test_a_directory_moved_away_halts_until_it_is_back(tmp_path: Path) -> None:
    home, away = tmp_path / 'home', tmp_path / 'away'
    home.mkdir()
    j = Journal.open(str(home / 'l.db'), 'paper')
    j.append(Note('a'), 0); j.commit()
    home.rename(away)
    j.append(Note('b'), 0)
    assert refused(j) == 'gone' and refused(j) == 'gone'
    away.rename(home)
    j.append(Note('c'), 0); j.commit(); j.close()
    assert texts(read_entries(str(home / 'l.db'), 'paper')) == ['a', 'b', 'c'] and verify(str(home / 'l.db')).ok
@pytest.mark.sqlite
def test_a_removed_ledger_halts_and_no_empty_one_takes_its_place(tmp_path: Path) -> None:
    home = tmp_path / 'home'; home.mkdir()
    j = Journal.open(str(home / 'l.db'), 'paper')
    j.append(Note('a'), 0); j.commit()
    shutil.rmtree(home)
    j.append(Note('b'), 0)
    assert refused(j) == 'gone'
    home.mkdir()                                     # the directory is back, the file is not
    assert refused(j) == 'gone' and not (home / 'l.db').exists()
    Journal.open(str(home / 'l.db'), 'paper').close()
    assert refused(j) == 'forked'          # another ledger at the same place is not this one


@pytest.mark.parametrize('more', [False, True])
def test_an_answer_lost_after_the_commit_is_not_written_twice(url: str, more: bool) -> None:
    "The commit happened, and the writer did not hear of it: as when the connection breaks between the two."
    j = Journal.open(url, 'paper')
    batch = [j.append(Note(str(i)), i) for i in range(3)]
    j._table.write(batch, (0, ''))
    if more: j.append(Note('3'), 3)
    j.commit(); j.close()
    assert texts(read_entries(url, 'paper')) == ['0', '1', '2', '3'][:3 + more] and verify(url).ok


# one writer ---------------------------------------------------------------------------------------------------------------

def test_a_second_writer_is_found(url: str) -> None:
    a, b = Journal.open(url, 'paper'), Journal.open(url, 'paper')
    a.append(Note('a'), 0); a.commit()
    b.append(Note('b'), 0)
    with pytest.raises(Halt, match='not as it was left'): b.commit()
    assert texts(read_entries(url, 'paper')) == ['a'] and verify(url).ok


def test_an_older_epoch_is_fenced_by_entries_and_by_a_lease(url: str) -> None:
    old = Journal.open(url, 'paper', epoch=1)
    with Journal.open(url, 'paper', epoch=2) as new: new.append(Note('new'), 0)
    old.append(Note('old'), 0)
    with pytest.raises(Halt, match='newer writer'): old.commit()
    acquire(url, 'leased', 'desk', 10, SystemClock())
    fresh = Journal.open(url, 'leased', epoch=0)
    fresh.append(Note('no lease'), 0)
    with pytest.raises(Halt, match='newer writer'): fresh.commit()
    assert texts(read_entries(url, 'paper')) == ['new']


def test_processes_of_two_accounts_write_one_ledger_at_once(url: str) -> None:
    code = textwrap.dedent('''
        import sys
        from gekko.ledger.events import Note
        from gekko.ledger.journal import Journal
        with Journal.open(sys.argv[1], sys.argv[2], busy_ms=240_000) as j:
            for i in range(100): j.append(Note(str(i)), i); j.commit()
    ''')
    ps = [subprocess.Popen([sys.executable, '-c', code, url, a]) for a in ('a', 'b', 'c')]
    assert [p.wait(300) for p in ps] == [0, 0, 0]
    assert verify(url).entries == 300 and verify(url).ok


# bad input ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('account', ['', 'x' * 65, 'a\nb', 'a\x00'])
def test_a_name_that_is_no_account(url: str, account: str) -> None:
    with pytest.raises(BadInput, match='not an account'): Journal.open(url, account)
    with pytest.raises(BadInput, match='no such ledger|not a ledger'): accounts(url)
@pytest.mark.sqlite
def test_a_place_that_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / 'text').write_text('hello' * 1000)
    for where in ('', str(tmp_path), str(tmp_path / 'text'), str(tmp_path / 'no' / 'such.db'), 'nosuchdb://x/y'):
        with pytest.raises(BadInput): Journal.open(where, 'paper')
        with pytest.raises(BadInput): list(read_entries(where, 'paper'))
    assert (tmp_path / 'text').read_text() == 'hello' * 1000
    sqlite3.connect(tmp_path / 'other.db').executescript('create table t(x)')
    with pytest.raises(BadInput, match='not a ledger'): list(read_entries(str(tmp_path / 'other.db'), 'paper'))


def test_a_newer_schema_is_left_alone(url: str) -> None:
    Journal.open(url, 'paper').close()
    with engine(url, write=True).begin() as c: c.execute(schema.update().values(version=VERSION + 1))
    for f in (lambda: Journal.open(url, 'paper'), lambda: list(read_entries(url, 'paper')), lambda: verify(url)):
        with pytest.raises(BadInput, match='newer gekko'): f()


def test_a_refused_record_leaves_the_chain_where_it_was(url: str) -> None:
    with Journal.open(url, 'paper') as j:
        j.append(Deposited(Decimal(1)), 0)
        before = j.head
        for bad in (lambda: j.append('text', 0), lambda: j.append(Note('x', {'y': {1, object()}}), 0), lambda: j.append(Note('x'), 0.5),  # type: ignore[arg-type]
                    lambda: j.append(Note('x'), 2**63), lambda: j.append(Note('x'), 0, run='x' * 65), lambda: j.append(Note('\udcff'), 0)):
            with pytest.raises(BadInput): bad()
        assert (j.head, j.pending) == (before, 1)
        j.append(Note('y'), 0)
    assert verify(url).entries == 2


def test_the_first_entry_of_a_known_chain() -> None:
    "The format itself: if this fails, ledgers already written can no longer be verified."
    with Journal.open(':memory:', 'paper', durable=False) as j:
        e = j.append(Deposited(Decimal('1000000.00'), 'USD', 'start'), 1_577_957_400_000_000_000, run='5d1c')
    assert e == Entry('paper', 1, 1577957400000000000, 1, 'deposit', '5d1c', '{"amount":"1000000.00","currency":"USD","reason":"start"}', '', e.hash)
    assert e.hash == '278bef545803a46fb204547bdf20ccd69aeefb27e4e07cefd7e5afe255b3b762'
