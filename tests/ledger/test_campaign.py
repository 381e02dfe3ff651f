"""A seeded campaign of damage on a ledger with two accounts and their snapshots: all of it is found, or the file is said to be unreadable, or nothing that is read has changed.

GEKKO_CAMPAIGN=N makes it N times as long, with other seeds."""
from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_snapshot import write as tell

from gekko.domain.errors import BadInput
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.replay import replay
from gekko.ledger.snapshot import audit, save_snapshot

ROUNDS = int(os.environ.get('GEKKO_CAMPAIGN', '1'))
COLUMNS = {'entries': 'account seq ts epoch kind run body prev hash'.split(), 'heads': 'account seq epoch hash'.split(), 'snapshots': 'account seq hash body digest made'.split()}


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('sound') / 'l.db'
    tell(str(path), 1, 40)
    every = list(read_entries(str(path), 'paper'))
    with Journal.open(str(path), 'swing') as j:
        for e in every[:60]: j.append(e.record, e.ts, e.run)
    for account in ('paper', 'swing'):
        told = list(read_entries(str(path), account))
        for cut in (len(told) // 2, len(told)): save_snapshot(str(path), replay(told[:cut]))
    with sqlite3.connect(path) as c: c.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    assert audit(str(path)).ok and len(audit(str(path)).snapshots) == 4
    return path


def rows(path: Path) -> dict[str, list[Any]] | None:
    """All that the ledger says, byte by byte; None when it can't be read."""
    try:
        with sqlite3.connect(f'file:{path}?mode=ro', uri=True) as c:
            c.text_factory = bytes
            return {t: c.execute(f'SELECT {", ".join(names)} FROM {t} ORDER BY 1, 2').fetchall() for t, names in COLUMNS.items()}
    except sqlite3.Error: return None


def judged(path: Path) -> str:
    """'found', 'unreadable' or 'said to be sound'."""
    try: said = audit(str(path))
    except BadInput: return 'unreadable'
    assert str(said).replace('\n', '').isprintable()
    return 'said to be sound' if said.ok else 'found'


def flip(value: Any, rng: random.Random) -> Any:
    """One bit the other way round."""
    if isinstance(value, int):
        x = (value & (2**64 - 1)) ^ (1 << rng.randrange(64))
        return x - 2**64 if x >= 2**63 else x
    b = bytearray(value)
    b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
    return bytes(b)


def a_value(c: sqlite3.Connection, rng: random.Random) -> bool:
    table = rng.choice(['entries'] * 4 + ['heads', 'snapshots'])
    name, names = rng.choice(COLUMNS[table]), COLUMNS[table]
    keys = c.execute(f'SELECT {names[0]}, {names[1]}, "{name}" FROM {table}').fetchall()
    account, seq, old = rng.choice(keys)
    if old in (b'', ''): return False
    new = flip(old, rng)
    cast = '?' if isinstance(new, int) or name == 'body' and table == 'snapshots' else 'CAST(? AS TEXT)'
    try: c.execute(f'UPDATE {table} SET "{name}" = {cast} WHERE account = CAST(? AS TEXT) AND seq = ?', (new, account, seq))
    except sqlite3.IntegrityError: return False
    return True


def rows_gone(c: sqlite3.Connection, rng: random.Random) -> bool:
    table = rng.choice(['entries', 'entries', 'heads'])
    account, seq = rng.choice(c.execute(f'SELECT account, seq FROM {table}').fetchall())
    return c.execute(f'DELETE FROM {table} WHERE account = CAST(? AS TEXT) AND seq {rng.choice(["=", ">=", "<="])} ?', (account, seq)).rowcount > 0


def rows_swapped(c: sqlite3.Connection, rng: random.Random) -> bool:
    table, key = rng.choice([('entries', 'seq'), ('heads', 'account'), ('snapshots', 'seq')])
    a, b = rng.sample(c.execute(f'SELECT account, seq FROM {table}').fetchall(), 2)
    names = rng.choice([[n for n in COLUMNS[table] if n not in ('account', 'seq')], [rng.choice(['ts', 'body', 'hash'] if table == 'entries' else ['hash'])]])
    first, second = (c.execute(f'SELECT {", ".join(names)} FROM {table} WHERE account = CAST(? AS TEXT) AND seq = ?', at).fetchone() for at in (a, b))
    if first == second: return False
    for at, new in ((a, second), (b, first)):
        cast = ', '.join(f'{n} = ' + ('CAST(? AS TEXT)' if isinstance(x, bytes) and (table, n) != ('snapshots', 'body') else '?') for n, x in zip(names, new))
        c.execute(f'UPDATE {table} SET {cast} WHERE account = CAST(? AS TEXT) AND seq = ?', (*new, *at))
    return True


def rows_added(c: sqlite3.Connection, rng: random.Random) -> bool:
    account, seq = rng.choice(c.execute('SELECT account, seq FROM entries').fetchall())
    last = c.execute('SELECT max(seq) FROM entries WHERE account = CAST(? AS TEXT)', (account,)).fetchone()[0]
    c.execute(f'INSERT INTO entries SELECT account, {last + rng.randrange(1, 3)}, ts, epoch, kind, run, body, prev, hash FROM entries WHERE account = CAST(? AS TEXT) AND seq = ?', (account, seq))
    return True


DAMAGE: dict[str, Callable[[sqlite3.Connection, random.Random], bool]] = {'a bit of a value': a_value, 'rows removed': rows_gone, 'rows swapped': rows_swapped, 'a row added': rows_added}


@pytest.mark.sqlite
@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_to_rows_is_found_every_time(kind: str, sound: Path, tmp_path: Path) -> None:
    done, seed, said = 0, 0, Counter[str]()
    while done < 60 * ROUNDS:
        seed += 1
        path, rng = tmp_path / f'{seed}.db', random.Random(f'{kind} {seed}')
        shutil.copy(sound, path)
        c = sqlite3.connect(path, isolation_level=None)
        c.text_factory = bytes
        c.execute('PRAGMA journal_mode=MEMORY')
        c.execute('PRAGMA synchronous=OFF')
        changed = DAMAGE[kind](c, rng)
        c.close()
        if changed:
            said[verdict := judged(path)] += 1
            assert verdict != 'said to be sound', (kind, seed)
            done += 1
        path.unlink()
    assert said['found'] == done, said      # damage that SQL can do leaves a database that can be read


@pytest.mark.sqlite
@pytest.mark.parametrize('kind', ['a bit of the file', 'a block of zeroes', 'two blocks swapped', 'the file cut short'])
def test_damage_to_the_file_is_found_or_changes_nothing(kind: str, sound: Path, tmp_path: Path) -> None:
    good, written, said = sound.read_bytes(), rows(sound), Counter[str]()
    for seed in range(45 * ROUNDS):
        rng, b, path = random.Random(f'{kind} {seed}'), bytearray(good), tmp_path / f'{seed}' / 'l.db'
        at, to, size = rng.randrange(len(b)), rng.randrange(len(b)), rng.choice([16, 512, 4096])
        if kind == 'a bit of the file': b[at] ^= 1 << rng.randrange(8)
        if kind == 'a block of zeroes': b[at:at + size] = bytes(len(b[at:at + size]))
        if kind == 'two blocks swapped':
            at, to = (x // 4096 * 4096 for x in (at, to))
            b[at:at + 4096], b[to:to + 4096] = b[to:to + 4096], b[at:at + 4096]
        if kind == 'the file cut short': del b[at:]
        path.parent.mkdir()
        path.write_bytes(b)
        said[verdict := judged(path)] += 1
        if verdict == 'said to be sound':
            now = rows(path)
            assert now is not None and {**now, 'snapshots': 0} == {**written, 'snapshots': 0}, (kind, seed)
            assert now['snapshots'] in (written['snapshots'], []), (kind, seed)      # a snapshot saves time and no more: one that is gone is taken again
        shutil.rmtree(path.parent)
    assert said['found'] + said['unreadable'] > 10, said      # free space and what has no meaning may be hit as well
