"""A ledger moves to the other database and back: whole, read back, or not at all."""
from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from server_stage import PASSWORD, Server

from gekko.domain.errors import BadInput, Halt, Reject
from gekko.domain.time import SimClock
from gekko.ledger.copying import copy_ledger
from gekko.ledger.database import engine, entries, heads, reading, runs, writing
from gekko.ledger.events import Deposited, Note
from gekko.ledger.journal import Journal, accounts, verify
from gekko.ledger.lease import acquire, holdings
from gekko.ledger.runs import RunRecord, Runs

CLOCK = SimClock(10**18)
ODD = ('', 'é', '\u2028', '\x00 and \x7f', '"\\', "'; drop table heads; --", '𝔊', 'x' * 4000, '\r\n\t')


@pytest.fixture
def other(url: str, tmp_path: Path, server: Server) -> str:
    """A place for a ledger in the other database."""
    return server.url() if '://' not in url else str(tmp_path / 'other.db')


def fill(url: str, n: int = 30) -> None:
    for account in ('paper', 'swing'):
        epoch = acquire(url, account, 'desk', 10, CLOCK)
        with Journal.open(url, account, epoch=epoch.epoch) as j:
            j.append(Deposited(Decimal('1000000.00')), -5)
            for i in range(n): j.append(Note(ODD[i % len(ODD)], {'i': i, 'odd': ODD[i % len(ODD)]}), i, run='r1' if i % 2 else '')
        epoch.release()
    for i in range(3): Runs(url).put(RunRecord(f'2026112{i}T034501-trend-3f2a', '5d1c', 'é.ipynb', 'paper', 'paper', created=i, params={'odd': list(ODD), 'x': 0.1, 'deep': {'none': None}}, exit_reason=ODD[2], commit='c' * 90))


def rows(url: str, table: sa.Table) -> list[tuple[object, ...]]:
    with reading(url) as c: return [tuple(r) for r in c.execute(sa.select(table).order_by(*table.primary_key)).all()]


def test_there_and_back(url: str, other: str, tmp_path: Path) -> None:
    fill(url)
    done = copy_ledger(url, other, CLOCK)
    assert (done.entries, done.runs, done.checked) == ({'paper': 31, 'swing': 31}, 3, 62)
    for table in (entries, heads, runs): assert rows(other, table) == rows(url, table)
    assert Runs(other).list() == Runs(url).list() and accounts(other) == accounts(url)
    assert [(h.account, h.epoch, h.holder) for h in holdings(other)] == [('paper', 1, ''), ('swing', 1, '')]
    lease = acquire(other, 'paper', 'new', 10, CLOCK)
    assert lease.epoch == 2
    with Journal.open(other, 'paper', epoch=2) as j: j.append(Note('over there'), 7)
    lease.release()
    assert copy_ledger(other, url, CLOCK).entries == {'paper': 1} and copy_ledger(other, url, CLOCK).entries == {}
    assert rows(url, entries) == rows(other, entries) and verify(url).ok and acquire(url, 'paper', 'x', 10, CLOCK).epoch == 3


def test_many_pages(url: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('gekko.ledger.copying._PAGE', 7)
    fill(url, 100)
    assert copy_ledger(url, other, CLOCK).checked == 202 and rows(other, entries) == rows(url, entries)


def test_a_desk_at_work_on_either_side_stops_it(url: str, other: str) -> None:
    fill(url)
    lease = acquire(url, 'paper', 'desk', 10, CLOCK)
    with pytest.raises(Reject, match='held by desk'): copy_ledger(url, other, CLOCK)
    with pytest.raises(BadInput): accounts(other)
    lease.release()
    copy_ledger(url, other, CLOCK)
    acquire(other, 'swing', 'desk', 10, CLOCK)
    with pytest.raises(Reject, match='swing is held by desk'): copy_ledger(url, other, CLOCK)
    copy_ledger(url, other, SimClock(10**18 + 11 * 10**9))      # a dead desk's lease has run out


def test_a_ledger_that_is_damaged_or_has_gone_its_own_way_is_not_copied(url: str, other: str) -> None:
    fill(url)
    with Journal.open(other, 'paper') as j: j.append(Note('another'), 0)
    before = rows(other, entries)
    with pytest.raises(BadInput, match='another one'): copy_ledger(url, other, CLOCK)
    assert rows(other, entries) == before
    with engine(url, write=True).begin() as c: c.execute(entries.update().where(entries.c.seq == 9).values(ts=0))
    with pytest.raises(BadInput, match='not sound'): copy_ledger(url, other, CLOCK)
    with pytest.raises(BadInput, match='no such ledger|not a ledger'): copy_ledger(other + 'no' if '://' not in other else other.replace('%3Dl', '%3Dnone'), url, CLOCK)
    for same in (url, url if '://' in url else f'sqlite:///{url}'):
        with pytest.raises(BadInput, match='onto itself'): copy_ledger(url, same, CLOCK)


def test_rows_that_change_on_the_way_are_noticed(url: str, other: str, server: Server, tmp_path: Path) -> None:
    """The target changes what it is given, as a trigger of somebody's would: the copy halts and leaves nothing."""
    fill(url)
    with writing(other, 'the tables') as c:
        if c.dialect.name == 'sqlite': c.exec_driver_sql("create trigger t after insert on entries when new.seq = 9 begin update entries set body = '{}' where account = new.account and seq = 9; end")
        else:
            c.exec_driver_sql("create function odd() returns trigger as $$ begin if new.seq = 9 then new.body := '{}'; end if; return new; end $$ language plpgsql")
            c.exec_driver_sql('create trigger t before insert on entries for each row execute function odd()')
    with pytest.raises(Halt, match='did not arrive'): copy_ledger(url, other, CLOCK)
    assert rows(other, entries) == rows(other, runs) == []


def test_a_copy_that_is_killed_leaves_nothing_and_is_made_again(url: str, other: str) -> None:
    fill(url, 3000)
    code = textwrap.dedent('''
        import sys
        from gekko.domain.time import SimClock
        from gekko.ledger.copying import copy_ledger
        print('ready', flush=True)
        copy_ledger(sys.argv[1], sys.argv[2], SimClock(10**18))
    ''')
    p = subprocess.Popen([sys.executable, '-c', code, url, other], stdout=subprocess.PIPE, text=True)
    assert p.stdout is not None and p.stdout.readline() == 'ready\n'
    time.sleep(random.Random(3).uniform(0.3, 0.5)); p.kill(); p.wait(); p.stdout.close()
    try: assert accounts(other) in ([], ['paper', 'swing'])      # all of it, when it was quicker than the signal
    except BadInput: pass
    assert copy_ledger(url, other, CLOCK).checked == 6002 and rows(other, entries) == rows(url, entries)


def test_a_server_that_stops_in_the_middle(tmp_path: Path, server: Server) -> None:
    here, there = str(tmp_path / 'l.db'), server.url()
    fill(here, 3000)
    Journal.open(there, 'none').close()
    said: list[str] = []
    def copy() -> None:
        try: copy_ledger(here, there, CLOCK)
        except (Halt, BadInput) as e: said.append(str(e))
    t = threading.Thread(target=copy); t.start()
    time.sleep(0.25)
    server.kill(); t.join(30); server.start()
    assert accounts(there) == [] and 'gone' in said[0] or not said
    assert copy_ledger(here, there, CLOCK).checked == 6002


def test_no_password_is_said(tmp_path: Path, server: Server) -> None:
    here, there = str(tmp_path / 'l.db'), server.url(user=f'desk:{PASSWORD}')
    fill(here)
    assert PASSWORD not in repr(copy_ledger(here, there, CLOCK)) + str(copy_ledger(here, there, CLOCK)) + json.dumps(copy_ledger(here, there, CLOCK).target)
