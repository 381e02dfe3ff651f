"Nothing but one function knows SQLite: the schema and the statements also compile for PostgreSQL."
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


def test_pragmas_and_raw_sql_stand_in_one_function() -> None:
    found = {p.name: re.findall(r'PRAGMA|BEGIN|exec_driver_sql|sqlite3\.connect|sa\.text', p.read_text()) for p in HERE.glob('*.py')}
    assert {n for n, hits in found.items() if hits} == {'database.py'}
    source = (HERE / 'database.py').read_text()
    body = source[source.index('def _sqlite('):source.index('def _server(')]
    assert all(hit in body for hit in set(found['database.py'])) and not re.findall(r'PRAGMA|BEGIN|exec_driver_sql', source.replace(body, ''))


def test_the_schema_of_this_version() -> None:
    "A change here is a new VERSION and a migration: ledgers with these columns exist."
    assert VERSION == 1
    assert [c.name for c in entries.c] == ['account', 'seq', 'ts', 'epoch', 'kind', 'run', 'body', 'prev', 'hash']
    assert {t.name: len(t.c) for t in metadata.sorted_tables} == {'schema': 1, 'entries': 9, 'heads': 4, 'leases': 5, 'runs': 23}
