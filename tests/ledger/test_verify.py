"A seeded campaign of damage: every column, every way of losing a row, and raw bytes of the file."
from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from gekko.domain.errors import BadInput
from gekko.domain.order import Fill, Filled, Intent, Side, Submitted
from gekko.ledger.database import entries as entries_table
from gekko.ledger.database import heads as heads_table
from gekko.ledger.events import Deposited, IntentRecorded, Marked, chained
from gekko.ledger.journal import Journal, VerifyReport, read_entries, verify

PER_COLUMN = 40

pytestmark = pytest.mark.sqlite      # test_verify_server.py does the same damage on a server


def write(url: str, account: str, orders: int) -> None:
    with Journal.open(url, account) as j:
        j.append(Deposited(Decimal(10**6)), 0)
        for i in range(orders):
            cid = f'g{i}'
            for r in (IntentRecorded(cid, Intent('AAA', Side.BUY, Decimal(1))), Submitted(cid), Filled(cid, Fill(f'p-{i}', cid, 'AAA', Side.BUY, Decimal(1), Decimal('9.5'))),
                      Marked({'AAA': Decimal('9.5')}, Decimal(10**6))): j.append(r, i * 10**9, 'run-1')
            j.commit()


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    url = str(tmp_path / 'ledger.db')
    write(url, 'paper', 10); write(url, 'swing', 3)
    assert verify(url) == VerifyReport(True, 54, ('paper', 'swing'))
    return url


@pytest.fixture
def db(ledger: str) -> Iterator[sqlite3.Connection]:
    c = sqlite3.connect(ledger, isolation_level=None)
    c.text_factory = bytes
    c.execute('PRAGMA synchronous=OFF')
    yield c
    c.close()


def flipped(value: bytes | int, rng: random.Random) -> bytes | int:
    "One bit of a text's bytes or of a 64-bit number, the other way round."
    if isinstance(value, int):
        x = (value & (2**64 - 1)) ^ (1 << rng.randrange(64))
        return x - 2**64 if x >= 2**63 else x
    b = bytearray(value)
    b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
    return bytes(b)


def change(db: sqlite3.Connection, table: str, column: str, key: tuple[str, int] | tuple[str], new: bytes | int) -> bool:
    "Set one value, as text where it was text, and say whether the table took it (a key can't be doubled)."
    where = 'account = ? AND seq = ?' if table == 'entries' else 'account = ?'
    try: db.execute(f'UPDATE {table} SET "{column}" = {"?" if isinstance(new, int) else "CAST(? AS TEXT)"} WHERE {where}', (new, *key))
    except sqlite3.IntegrityError: return False
    return True


@pytest.mark.parametrize('column', [f'entries.{c.name}' for c in entries_table.c] + [f'heads.{c.name}' for c in heads_table.c])
def test_a_flipped_bit_in_any_column_is_found(ledger: str, db: sqlite3.Connection, column: str) -> None:
    table, name = column.split('.')
    rng = random.Random(f'20200102 {column}')
    keys = db.execute(f'SELECT account{", seq" * (table == "entries")} FROM {table}').fetchall()
    done = 0
    while done < PER_COLUMN:
        key = rng.choice(keys)
        old = db.execute(f'SELECT "{name}" FROM {table} WHERE account = CAST(? AS TEXT)' + ' AND seq = ?' * (table == 'entries'), key).fetchone()[0]
        if old == b'': continue                            # the first prev and a deposit's run are empty: nothing to flip
        new, key = flipped(old, rng), (key[0].decode(), *key[1:])
        if not change(db, table, name, key, new): continue
        report = verify(ledger)
        assert not report.ok and report.why, (column, key, old, new)
        if table == 'entries' and name not in ('account', 'seq'): assert (report.account, report.first_bad) == key
        assert str(report).isprintable()
        back = (new if name == 'account' else key[0], new if name == 'seq' else key[-1])[:len(key)]
        if name == 'account': db.execute(f'UPDATE {table} SET account = ? WHERE account = CAST(? AS TEXT)' + ' AND seq = ?' * (table == 'entries'), (key[0], *back))
        else: assert change(db, table, name, back, old)  # type: ignore[arg-type]
        done += 1
    assert verify(ledger).ok


def test_the_type_of_a_value_counts(ledger: str, db: sqlite3.Connection) -> None:
    for column, value in (('body', 'CAST(body AS BLOB)'), ('ts', "'later'"), ('epoch', '1.5'), ('run', 'CAST(run AS BLOB)'), ('hash', 'CAST(hash AS BLOB)')):
        old = db.execute(f'SELECT {column} FROM entries WHERE account = ? AND seq = 7', ('paper',)).fetchone()[0]
        db.execute(f'UPDATE entries SET {column} = {value} WHERE account = ? AND seq = 7', ('paper',))
        assert (verify(ledger).account, verify(ledger).first_bad) == ('paper', 7)
        change(db, 'entries', column, ('paper', 7), old)
    assert verify(ledger).ok


@pytest.mark.parametrize('seed', range(8))
def test_rows_removed_swapped_cut_and_added_are_found(ledger: str, db: sqlite3.Connection, seed: int) -> None:
    rng = random.Random(seed)
    n = rng.randrange(2, 40)
    def damaged(first_bad: int, *sql: str) -> None:
        db.execute('BEGIN')
        saved = db.execute('SELECT * FROM entries').fetchall()
        for s in sql: db.execute(s)
        db.execute('COMMIT')
        r = verify(ledger)
        assert (r.ok, r.account, r.first_bad) == (False, 'paper', first_bad), str(r)
        db.execute('BEGIN'); db.execute('DELETE FROM entries')
        db.executemany('INSERT INTO entries VALUES (CAST(? AS TEXT),?,?,?,CAST(? AS TEXT),CAST(? AS TEXT),CAST(? AS TEXT),CAST(? AS TEXT),CAST(? AS TEXT))', saved)
        db.execute('COMMIT')
    here = "WHERE account = 'paper' AND seq"
    damaged(n, f'DELETE FROM entries {here} = {n}')
    damaged(n + 1, f'DELETE FROM entries {here} > {n}')
    damaged(n, f'UPDATE entries SET seq = 1000 {here} = {n}', f'UPDATE entries SET seq = {n} {here} = {n + 1}', f'UPDATE entries SET seq = {n + 1} {here} = 1000')
    damaged(42, "INSERT INTO entries SELECT account, 42, ts, epoch, kind, run, body, prev, hash FROM entries WHERE account = 'paper' AND seq = 41")
    damaged(n, f"UPDATE entries SET (body, hash) = (SELECT body, hash FROM entries WHERE account = 'paper' AND seq = {n - 1}) {here} = {n}")
    assert verify(ledger).ok


def rehash(db: sqlite3.Connection, first: int, link: bool) -> None:
    "Give the rows of 'paper' from `first` on hashes that fit what they contain; `link`: and link each to the one before, up to the head."
    rows = db.execute("SELECT account, seq, ts, epoch, kind, run, body, prev, hash FROM entries WHERE account = 'paper' ORDER BY seq").fetchall()
    for before, row in zip([None, *rows], rows):
        if row[1] < first or (not link and row[1] > first): continue
        text = [x.decode() if isinstance(x, bytes) else x for x in row]
        prev = db.execute("SELECT hash FROM entries WHERE account = 'paper' AND seq = ?", (before[1],)).fetchone()[0].decode() if link and before else text[7]
        new = chained(prev, *text[:7])
        db.execute("UPDATE entries SET prev = ?, hash = ? WHERE account = 'paper' AND seq = ?", (prev, new, row[1]))
        if link: db.execute("UPDATE heads SET hash = ? WHERE account = 'paper'", (new,))


def test_a_row_with_a_hash_of_its_own_making_breaks_the_next_link(ledger: str, db: sqlite3.Connection) -> None:
    db.execute("UPDATE entries SET ts = ts + 1 WHERE account = 'paper' AND seq = 9")
    assert verify(ledger).first_bad == 9
    rehash(db, 9, link=False)
    assert (verify(ledger).first_bad, verify(ledger).why) == (10, 'it does not follow the entry before it')


def test_a_row_removed_and_the_chain_linked_anew_leaves_a_gap(ledger: str, db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM entries WHERE account = 'paper' AND seq = 9")
    rehash(db, 10, link=True)
    assert (verify(ledger).first_bad, verify(ledger).why) == (9, 'entry #9 is missing')


def test_a_whole_journal_lost_is_found(ledger: str, db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM entries WHERE account = 'swing'")
    assert str(verify(ledger)) == 'broken at swing #1: cut off: the head says 13 entries (41 entries of paper, swing checked)'
    assert verify(ledger, 'paper').ok


def test_a_rewritten_chain_is_found_by_a_head_noted_elsewhere(ledger: str, tmp_path: Path) -> None:
    noted = [e.hash for e in read_entries(ledger, 'paper')]
    forged = str(tmp_path / 'forged.db')
    with Journal.open(forged, 'paper') as j:
        for e in read_entries(ledger, 'paper'): j.append(Deposited(Decimal(10**7)) if e.seq == 1 else e.record, e.ts, e.run)
    assert verify(forged).ok and not verify(forged, 'paper', head=noted[-1]).ok
    assert verify(ledger, 'paper', head=noted[-1]).ok and verify(ledger, 'paper', head=noted[10]).ok
    with pytest.raises(BadInput, match='without its account'): verify(ledger, head=noted[-1])


def test_raw_bytes_of_the_file(ledger: str, tmp_path: Path) -> None:
    "Damage below SQL: whatever byte of the file is hit, either verify says so or the entries read are the ones written."
    sqlite3.connect(ledger).execute('PRAGMA wal_checkpoint(TRUNCATE)')
    good, written, rng = Path(ledger).read_bytes(), list(read_entries(ledger, 'paper')), random.Random(7)
    copy, found = tmp_path / 'raw' / 'l.db', 0
    for _ in range(300):
        shutil.rmtree(copy.parent, ignore_errors=True); copy.parent.mkdir()
        b = bytearray(good)
        b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
        copy.write_bytes(b)
        try: ok = verify(str(copy)).ok
        except BadInput: ok = False
        found += not ok
        if ok: assert list(read_entries(str(copy), 'paper')) == written
    assert found > 15      # much of a small file is free space, where a flip harms nothing


def test_a_file_cut_short_is_reported(ledger: str) -> None:
    size = Path(ledger).stat().st_size
    with open(ledger, 'r+b') as f: f.truncate(size // 2)
    try: assert not verify(ledger).ok
    except BadInput as e: assert 'ledger' in str(e)
