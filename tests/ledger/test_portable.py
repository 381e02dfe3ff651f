"What only one database knows stands in one place: schema and statements compile for both."
from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

import gekko.ledger
from gekko.ledger.database import VERSION, entries, heads, metadata

HERE = Path(gekko.ledger.__file__).parent


@pytest.mark.parametrize('table', metadata.sorted_tables, ids=lambda t: t.name)
def test_tables_compile_for_postgresql(table: sa.Table) -> None:
    ddl = str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert 'ROWID' not in ddl and 'PRIMARY KEY' in ddl
    assert not [c.name for c in table.columns if c.nullable]


def test_the_head_is_locked_where_the_database_can_lock_a_row() -> None:
    q = sa.select(heads.c.seq).where(heads.c.account == 'a').with_for_update()
    assert 'FOR UPDATE' in str(q.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]


def test_what_one_database_alone_knows_stands_in_one_place() -> None:
    found = {p.name: set(re.findall(r'PRAGMA|BEGIN|sqlite3\.connect|psycopg\.Connection|current_setting|synchronous_commit', p.read_text())) for p in HERE.glob('*.py')}
    found.pop('writer.py', None)      # it writes entries through the driver itself, and begins as the driver wants it
    assert {n: hits for n, hits in found.items() if hits} == {'database.py': {'PRAGMA', 'BEGIN', 'sqlite3.connect'}, 'server.py': {'psycopg.Connection', 'current_setting', 'synchronous_commit'}}
    source = (HERE / 'database.py').read_text()
    body = source[source.index('STARTS = '):source.index('def _postgres(')]
    assert not re.findall(r'PRAGMA|BEGIN', source.replace(body, ''))


def test_the_schema_of_this_version() -> None:
    "A change here is a new VERSION and a migration: ledgers with these columns exist."
    assert VERSION == 4
    assert [c.name for c in entries.c] == ['account', 'seq', 'ts', 'epoch', 'kind', 'run', 'body', 'prev', 'hash']
    assert {t.name: len(t.c) for t in metadata.sorted_tables} == {'schema': 1, 'entries': 9, 'heads': 4, 'leases': 5, 'runs': 23, 'snapshots': 6, 'trials': 18, 'schedules': 13, 'jobs': 17, 'attempts': 9, 'workers': 6}
