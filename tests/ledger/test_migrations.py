"""Old ledgers become new ones with their data, on both databases; what fails changes nothing; what is newer is left alone."""
from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from gekko.domain.errors import BadInput
from gekko.domain.time import SimClock
from gekko.ledger.database import VERSION, engine, entries, heads, leases, metadata, reading, runs, schema, version
from gekko.ledger.events import Note
from gekko.ledger.journal import Chain, Journal, read_entries, verify
from gekko.ledger.lease import acquire, holdings
from gekko.ledger.migrations import VERSIONS, steps, upgrade
from gekko.ledger.runs import RunRecord, Runs
from gekko.ledger.writer import FIELDS, values

FIRST = ('schema', 'entries', 'heads', 'leases', 'runs')
RECORD = RunRecord('20261122T034501-trend-3f2a', '5d1c', 'trend.ipynb', 'paper', 'paper', params={'cash': 1}, exit_reason='é')


def first_schema(url: str, n: int = 50) -> str:
    """A ledger as the first release left it: its tables and no others, its version, a chain of `n`, a lease and a run. Says the chain's head."""
    chain = Chain('paper', 3)
    rows = [dict(zip(FIELDS, values(chain.link(Note(f'n{i}'), i, 'r1')))) for i in range(n)]
    with engine(url, write=True).begin() as c:
        for name in FIRST: metadata.tables[name].create(c)
        c.execute(schema.insert().values(version=1))
        c.execute(entries.insert(), rows)
        c.execute(heads.insert().values(account='paper', seq=chain.seq, epoch=3, hash=chain.hash))
        c.execute(leases.insert().values(account='paper', holder='', epoch=3, taken=0, expires=0))
        c.execute(runs.insert().values({f: getattr(RECORD, f) for f in runs.c.keys()}))
    return chain.hash


def tables(url: str) -> set[str]:
    with engine(url).begin() as c: return set(sa.inspect(c).get_table_names())


def shape(url: str) -> object:
    """Every table's columns, keys and indexes, as the database itself describes them."""
    with engine(url).begin() as c:
        look = sa.inspect(c)
        return {t: ([(x['name'], str(x['type']), bool(x['nullable']), x.get('default')) for x in look.get_columns(t)], look.get_pk_constraint(t)['constrained_columns'], sorted(str(i['column_names']) for i in look.get_indexes(t)))
                for t in sorted(metadata.tables)}


def kept(url: str, head: str) -> None:
    """All that the first release had written is there."""
    assert verify(url, 'paper', head=head).ok and [e.record.text for e in read_entries(url, 'paper')][:50] == [f'n{i}' for i in range(50)]  # type: ignore[attr-defined]
    assert [(h.account, h.epoch) for h in holdings(url)] == [('paper', 3)] and Runs(url).get(RECORD.run_id) == RECORD


def test_an_old_ledger_is_read_as_it_is_and_upgraded_by_its_first_writer(url: str) -> None:
    head = first_schema(url)
    kept(url, head)
    assert tables(url) == set(FIRST), 'a reader changes nothing'
    with Journal.open(url, 'paper', epoch=3) as j:
        assert j.head == (50, head)
        j.append(Note('after'), 51)
    kept(url, head)
    with reading(url) as c: assert version(c) == VERSION and len(list(read_entries(url, 'paper'))) == 51
    assert acquire(url, 'paper', 'desk', 10, SimClock(10**18)).epoch == 4


@pytest.mark.parametrize('opened', [lambda u: acquire(u, 'other', 'd', 10, SimClock(1)), lambda u: Runs(u).update(RECORD.run_id, seed=0), lambda u: Journal.open(u, 'x').close()], ids=['lease', 'run', 'journal'])
def test_whoever_writes_first_upgrades(url: str, opened: object) -> None:
    first_schema(url)
    opened(url)  # type: ignore[operator]
    with reading(url) as c: assert version(c) == VERSION


def test_old_and_new_and_what_the_code_says_are_one_schema(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    first_schema(url)
    Journal.open(url, 'paper', epoch=3).close()
    other = str(tmp_path / 'new.db') if 'sqlite' in request.node.name else request.getfixturevalue('server').url()
    plain = str(tmp_path / 'plain.db') if 'sqlite' in request.node.name else request.getfixturevalue('server').url()
    Journal.open(other, 'paper').close()
    with engine(plain, write=True).begin() as c: metadata.create_all(c)
    assert shape(url) == shape(other) == shape(plain)


def test_alembic_finds_no_difference(url: str) -> None:
    """Alembic's own comparison of a ledger with `metadata`."""
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext
    Journal.open(url, 'paper').close()
    with engine(url, write=True).begin() as c:
        place = c.exec_driver_sql('select current_schema()').scalar() if c.dialect.name == 'postgresql' else None
        opts = {'include_name': lambda name, kind, parents: kind != 'schema' or name in (None, place), 'compare_type': True}
        assert compare_metadata(MigrationContext.configure(c, opts=opts), metadata) == []


def test_a_step_that_fails_leaves_the_ledger_as_it_was(url: str, tmp_path: Path) -> None:
    head = first_schema(url)
    folder = tmp_path / 'steps'; folder.mkdir()
    for f in VERSIONS.glob('v*.py'): (folder / f.name).write_text(f.read_text())
    (folder / 'v5_broken.py').write_text('"Breaks."\nfrom alembic import op\nrevision, down_revision = "0005", "0004"\n'
                                         'def upgrade():\n    op.execute("create table half (x int)")\n    op.execute("delete from entries")\n    op.execute("insert into nowhere values (1)")\n')
    before = shape_of_first(url)
    for _ in range(2):
        with pytest.raises(sa.exc.SQLAlchemyError, match='nowhere'), engine(url, write=True).begin() as c: upgrade(c, 5, folder)
        assert tables(url) == set(FIRST) and shape_of_first(url) == before
        kept(url, head)
    (folder / 'v5_broken.py').write_text('"Works."\nfrom alembic import op\nrevision, down_revision = "0005", "0004"\ndef upgrade():\n    op.execute("create table whole (x int)")\n')
    with engine(url, write=True).begin() as c: assert upgrade(c, 5, folder) == 1
    assert {'whole', 'snapshots'} <= tables(url)
    for f in (lambda: Journal.open(url, 'paper'), lambda: verify(url), lambda: acquire(url, 'p', 'd', 10, SimClock(1))):
        with pytest.raises(BadInput, match='newer gekko'): f()


def shape_of_first(url: str) -> object:
    with engine(url).begin() as c: return {t: [(x['name'], str(x['type'])) for x in sa.inspect(c).get_columns(t)] for t in FIRST}


def test_a_killed_upgrade_leaves_the_ledger_as_it_was(url: str) -> None:
    """SIGKILL to the process after its steps and before its commit."""
    head = first_schema(url)
    code = textwrap.dedent('''
        import os, signal, sys
        from gekko.ledger.database import engine, prepare, version
        with engine(sys.argv[1], write=True).begin() as c:
            prepare(c)
            print(version(c), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    ''')
    p = subprocess.run([sys.executable, '-c', code, url], capture_output=True, text=True, timeout=60)
    assert (p.returncode, p.stdout) == (-9, f'{VERSION}\n'), p.stderr
    assert tables(url) == set(FIRST)
    kept(url, head)
    Journal.open(url, 'paper', epoch=3).close()
    kept(url, head)


def test_numbers_that_do_not_fit_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first_schema(url)
    Journal.open(url, 'paper', epoch=3).close()
    with engine(url, write=True).begin() as c: c.exec_driver_sql("update alembic_version set version_num = '0001'")
    with pytest.raises(BadInput, match='no known schema'), engine(url, write=True).begin() as c: upgrade(c, VERSION)
    with engine(url, write=True).begin() as c: c.exec_driver_sql("update alembic_version set version_num = 'abc'")
    with pytest.raises(BadInput, match='no known schema'), engine(url, write=True).begin() as c: upgrade(c, VERSION)
    for odd in (0, -1):
        with engine(url, write=True).begin() as c: c.execute(schema.update().values(version=odd))
        with pytest.raises(BadInput, match='no known schema'): Journal.open(url, 'paper')


def test_a_job_on_a_ledger_that_is_up_to_date_imports_no_alembic(url: str) -> None:
    Journal.open(url, 'paper').close()
    code = 'import sys\nfrom gekko.ledger.journal import Journal\nJournal.open(sys.argv[1], "paper").close()\nprint([m for m in sys.modules if m.split(".")[0] in ("alembic", "mako")])'
    assert subprocess.run([sys.executable, '-c', code, url], capture_output=True, text=True, timeout=60).stdout.strip() == '[]'


def test_a_ledger_in_memory_needs_no_alembic_and_sqlite_no_psycopg() -> None:
    code = 'import sys\nfrom gekko.ledger.journal import Journal\nJournal.open(":memory:", "bt", durable=False).close()\nprint([m for m in sys.modules if m.split(".")[0] in ("alembic", "mako", "psycopg")])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60).stdout.strip() == '[]'


def test_many_threads_upgrade_many_ledgers_at_once(url: str, tmp_path: Path, server: object) -> None:
    """Alembic's steps speak through one name of the process: each must still reach its own ledger."""
    urls = [url, *(str(tmp_path / f'{n}.db') for n in range(3)), *(server.url() for _ in range(3))]  # type: ignore[attr-defined]
    for u in urls: first_schema(u, 3)
    ts = [threading.Thread(target=lambda u=u: Journal.open(u, 'paper', epoch=3).close()) for u in urls * 2]
    random.Random(1).shuffle(ts)
    for t in ts: t.start()
    for t in ts: t.join(60)
    for u in urls:
        with reading(u) as c: assert version(c) == VERSION
        assert verify(u).ok and 'snapshots' in tables(u)


def test_the_steps_are_one_line() -> None:
    assert [s.split()[0] for s in steps()] == [f'{n:04}' for n in range(1, VERSION + 1)]
    for f in VERSIONS.glob('v*.py'): assert 'gekko' not in f.read_text().replace('nbs/07_ledger', '').split('import', 1)[1], 'a step names its own columns'
