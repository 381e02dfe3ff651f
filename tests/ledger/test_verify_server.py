"""Damage in a server's tables and files: what the database lets through, the chain finds; what it finds itself, is said."""
from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from server_stage import Server, place_of

from gekko.domain.errors import BadInput
from gekko.domain.order import Fill, Filled, Intent, Side, Submitted
from gekko.ledger.database import entries as entries_table
from gekko.ledger.database import heads as heads_table
from gekko.ledger.events import Deposited, IntentRecorded, Marked
from gekko.ledger.journal import Journal, VerifyReport, read_entries, verify

PER_COLUMN = 15


@pytest.fixture
def ledger(server: Server) -> str:
    url = server.url()
    for account, orders in (('paper', 10), ('swing', 3)):
        with Journal.open(url, account) as j:
            j.append(Deposited(Decimal(10**6)), 0)
            for i in range(orders):
                cid = f'g{i}'
                for r in (IntentRecorded(cid, Intent('AAA', Side.BUY, Decimal(1))), Submitted(cid), Filled(cid, Fill(f'p-{i}', cid, 'AAA', Side.BUY, Decimal(1), Decimal('9.5'))),
                          Marked({'AAA': Decimal('9.5')}, Decimal(10**6))): j.append(r, i * 10**9, 'run-1')
                j.commit()
    assert verify(url) == VerifyReport(True, 54, ('paper', 'swing'))
    return url


def flipped(value: str | int, rng: random.Random) -> str | int | None:
    """One bit of a number, or of a text's bytes, the other way round; None for text that PostgreSQL would not keep."""
    if isinstance(value, int):
        x = (value & (2**64 - 1)) ^ (1 << rng.randrange(64))
        return x - 2**64 if x >= 2**63 else x
    b = bytearray(value.encode())
    b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
    try: text = b.decode()
    except UnicodeDecodeError: return None
    return None if '\0' in text else text


@pytest.mark.parametrize('column', [f'entries.{c.name}' for c in entries_table.c] + [f'heads.{c.name}' for c in heads_table.c])
def test_a_flipped_bit_in_any_column_is_found(ledger: str, server: Server, column: str) -> None:
    table, name = column.split('.')
    rng, done = random.Random(f'20200102 {column}'), 0
    with server.connect() as c:
        c.execute(f'set search_path = {place_of(ledger)}')
        rows = c.execute(f'select ctid, "{name}" from {table}').fetchall()
        while done < PER_COLUMN:
            _, old = rng.choice(rows)
            if old == '' or (new := flipped(old, rng)) is None: continue
            c.autocommit = False
            try: n = c.execute(f'update {table} set "{name}" = %s where "{name}" = %s', (new, old)).rowcount      # every row with this value
            except psycopg.errors.UniqueViolation: n = 0
            if n:
                c.commit()
                report = verify(ledger)
                assert not report.ok and report.why and str(report).isprintable(), (column, old, new)
                assert c.execute(f'update {table} set "{name}" = %s where "{name}" = %s', (old, new)).rowcount == n
                c.commit()
                done += 1
            else: c.rollback()
            c.autocommit = True
    assert verify(ledger).ok


@pytest.mark.parametrize('seed', range(4))
def test_rows_removed_swapped_cut_and_added_are_found(ledger: str, server: Server, seed: int) -> None:
    n = random.Random(seed).randrange(2, 40)
    here = "where account = 'paper' and seq"
    with server.connect() as c:
        c.execute(f'set search_path = {place_of(ledger)}')
        c.execute('create table saved as table entries')
        for first_bad, *sql in ((n, f'delete from entries {here} = {n}'), (n + 1, f'delete from entries {here} > {n}'),
                                (n, f'update entries set seq = 1000 {here} = {n}', f'update entries set seq = {n} {here} = {n + 1}', f'update entries set seq = {n + 1} {here} = 1000'),
                                (42, "insert into entries select account, 42, ts, epoch, kind, run, body, prev, hash from entries where account = 'paper' and seq = 41"),
                                (n, f"update entries set (body, hash) = (select body, hash from entries where account = 'paper' and seq = {n - 1}) {here} = {n}")):
            for s in sql: c.execute(s)
            r = verify(ledger)
            assert (r.ok, r.account, r.first_bad) == (False, 'paper', first_bad), str(r)
            c.execute('truncate entries'); c.execute('insert into entries table saved')
        c.execute("delete from entries where account = 'swing'")
        assert 'cut off' in verify(ledger).why and verify(ledger, 'paper').ok


def test_raw_bytes_of_the_servers_files(ledger: str, server: Server) -> None:
    """Damage below SQL, in the file of the entries while the server is down: page checksums find it, and the ledger says so."""
    (path,), found = server.sql('checkpoint', f"select pg_relation_filepath('{place_of(ledger)}.entries')")[0], 0
    written, rng = list(read_entries(ledger, 'paper')), random.Random(7)
    server.stop()
    file = Path(server.data / path)
    good = file.read_bytes()
    try:
        for _ in range(2):
            b = bytearray(good)
            b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
            with file.open('r+b') as f: f.write(b)
            server.start()
            try: ok = verify(ledger).ok
            except BadInput: ok = False
            found += not ok
            if ok: assert list(read_entries(ledger, 'paper')) == written
            else:
                assert 'corrupt' in str(verify(ledger)) and not verify(ledger).ok
                with pytest.raises(BadInput, match='cannot be read: corrupt'): list(read_entries(ledger, 'paper'))
            server.kill()
    finally:
        with file.open('r+b') as f: f.write(good)
        if server.process is None or server.process.poll() is not None: server.start()
    assert found == 2 and verify(ledger).ok
