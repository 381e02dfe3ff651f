"""The ledger is locked by another writer, full, or gone while a desk trades: nothing is sent, trading halts, and goes on when it is told to."""
import time
from collections.abc import Callable
from contextlib import nullcontext
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from desk_stage import ON_SERVER, entries_of, gekko, held, ledger_of, one_line, only_run, settings_of, sound_book, status_of
from server_stage import place_of, shared

from gekko.desk.ending import stop
from gekko.desk.protocol import AskResume, CloseRun, Decide, OpenRun, OutcomeReply, Refused, RowReply
from gekko.desk.pulse import look_after
from gekko.desk.serve import DeskProcess
from gekko.desk.server import handle
from gekko.desk.session import open_run
from gekko.desk.spec import make_spec, to_json
from gekko.desk.state import Desk
from gekko.domain.errors import Halt
from gekko.domain.time import SystemClock
from gekko.ledger.database import engine, heads
from gekko.ledger.events import Halted, PolicyTaken, Resumed


def lock(home: Path) -> Callable[[], None]:
    """Take the write lock as another process would; the function gives it back."""
    if ON_SERVER:                           # not by way of an engine: what idles in a transaction of ours is ended after ten seconds
        c, place = shared().connect(), place_of(ledger_of(home))
        c.execute('begin')
        c.execute(f'lock table {", ".join(f"{place}.{t}" for t in ("schema", "entries", "heads", "leases", "runs"))} in exclusive mode')
        return lambda: (c.execute('rollback'), c.close())[1]
    other = engine(ledger_of(home), write=True).connect()
    other.execute(sa.select(heads))
    def release() -> None:
        other.rollback()
        other.close()
    return release


def take_away(home: Path) -> Callable[[], None]:
    """Move the ledger's files, or its place on the server, aside; the function puts them back."""
    if ON_SERVER:
        place = place_of(ledger_of(home))
        shared().sql(f'alter schema {place} rename to away_{place}')
        return lambda: (shared().sql(f'alter schema away_{place} rename to {place}'), None)[1]
    file = home / 'ledger.db'
    parts = [p for p in (file, file.with_name(file.name + '-wal'), file.with_name(file.name + '-shm')) if p.exists()]
    for p in parts: p.rename(p.with_name('away.' + p.name))
    def release() -> None:
        for p in parts: p.with_name('away.' + p.name).rename(p)
    return release


@pytest.mark.parametrize(('strike', 'word'), [(lock, 'locked'), (take_away, 'gone')])
def test_a_run_on_a_ledger_that_cannot_be_written(strike: Callable[[Path], Callable[[], None]], word: str, desk: DeskProcess, home: Path) -> None:
    run = open_run('WALK', mode='paper', window=5)
    seen = iter(run)
    for size in (10, 12, 12):
        next(seen)
        run.target(units={'WALK': D(size)})
    next(seen)
    release = strike(home)
    for size in (20, 25):                   # the first meets the fault, the second the halt
        run.target(units={'WALK': D(size)})
        next(seen)
        assert f'the ledger is {word}' in run.halted
    time.sleep(1.2)                         # and the desk tries again by itself, in vain
    said = status_of(home)
    assert (said.state, said.positions, said.fills) == ('trading', {'WALK': D(12)}, 2) and word in said.halted
    (refused,) = one_line(gekko(home, 'desk', 'resume', '--json'), code=1)
    assert refused['state'] == 'silent' and word in refused['reason'], 'nothing is resumed on a ledger that cannot be written'
    release()
    (said,) = one_line(gekko(home, 'desk', 'resume', '--json'))
    assert said.get('halted') == ''
    run.target(units={'WALK': D(30)})
    next(seen)
    next(seen)
    result = run.finish()
    book = sound_book(home)
    assert result.positions() == {'WALK': 30} == held(book) and book.equity == result.final_equity and book.head == result.journal_head
    told = [e.record for e in entries_of(home)]
    a, b = (next(n for n, r in enumerate(told) if isinstance(r, kind)) for kind in (Halted, Resumed))
    never = [o for o in book.orders.values() if 'not sent' in o.reason]
    assert len(never) == 1 and not never[0].filled and not [r for r in told[a:b] if type(r).__name__ in ('Filled', 'Accepted')]
    assert 'a fault in the desk' not in (home / 'desk.log').read_text()


def asked(store: Path, policy: str = 'flatten', heartbeat_s: float = 60) -> OpenRun: return OpenRun('r1', 'ledger', '0', to_json(make_spec(['WALK'], window=5, policy=policy, heartbeat_s=heartbeat_s)), str(store))


def limit_pages(desk: Desk, more: int) -> None:
    """Let the desk's database grow by so many pages and no further, as a full disk would."""
    assert desk.run is not None
    if ON_SERVER: return full_server(desk.settings.ledger, more)
    c: Any = desk.run.trader.journal._table.connection().connection.dbapi_connection
    (pages,) = c.execute('PRAGMA page_count').fetchone()
    c.execute(f'PRAGMA max_page_count={pages + more}')


def full_server(url: str, more: int) -> None:
    """The server takes a few entries more and then says that its disk is full."""
    place = place_of(url)
    (has,) = shared().sql(f'select count(*) from {place}.entries')[0]
    shared().sql(f"create or replace function {place}.full() returns trigger as $$ begin if (select count(*) from {place}.entries) > {has + 10 * more} then raise sqlstate '53100'; end if; return new; end $$ language plpgsql",
                 f'create or replace trigger full_disk before insert on {place}.entries for each row execute function {place}.full()')


def test_a_full_ledger(home: Path, store: Path) -> None:
    """In this process, because only the writer's own connection can be given a full disk."""
    desk = Desk('full', settings_of(home), SystemClock())
    handle(desk, asked(store))
    said: Any = handle(desk, Decide('r1', -1))
    limit_pages(desk, 2)
    rows = 0
    while not said.halted and rows < 200:
        said = handle(desk, Decide('r1', said.row, units={'WALK': D(10 + rows % 2)}))
        rows += 1
    assert isinstance(said, RowReply) and 'the ledger is full' in said.halted and rows > 3
    fills = said.fills
    assert 'full' in handle(desk, AskResume('ann')).message
    said = handle(desk, Decide('r1', said.row, units={'WALK': D(50)}))
    assert said.fills == fills and said.breaches == 1
    limit_pages(desk, 1000)
    assert handle(desk, AskResume('ann')).halted == ''
    for _ in range(2): said = handle(desk, Decide('r1', said.row, units={'WALK': D(50)}))
    assert said.fills == fills + 1
    assert isinstance(handle(desk, CloseRun('r1')), OutcomeReply)
    assert held(sound_book(home)) == {'WALK': D(50)}


def test_a_policy_waits_for_the_ledger(home: Path, store: Path) -> None:
    """The notebook dies while the ledger is locked: the position is closed once it can be recorded, and the policy is written once."""
    desk = Desk('waiting', settings_of(home), SystemClock())
    handle(desk, asked(store, heartbeat_s=0.1))
    for row in (-1, 0, 1): handle(desk, Decide('r1', row, units={} if row < 0 else {'WALK': D(10)}))
    release = lock(home)
    time.sleep(0.25)
    for _ in range(2):
        desk.later = 0
        look_after(desk)
    assert desk.state == 'trading' and 'locked' in desk.halted
    refused = handle(desk, CloseRun('r1'))
    assert isinstance(refused, Refused) and refused.kind == 'Halt'
    release()
    desk.later = 0
    look_after(desk)
    assert desk.state == 'ended' and held(sound_book(home)) == {}
    assert len([e for e in entries_of(home) if isinstance(e.record, PolicyTaken)]) == 1


def test_a_desk_that_is_stopped_waits_for_the_ledger_within_its_grace(home: Path, store: Path) -> None:
    desk = Desk('leaving', settings_of(home, GEKKO_GRACE_S='1'), SystemClock())
    handle(desk, asked(store))
    for row in (-1, 0, 1): handle(desk, Decide('r1', row, units={} if row < 0 else {'WALK': D(10)}))
    release, at = lock(home), time.monotonic()
    with pytest.raises(Halt, match='locked'): stop(desk, 'SIGTERM')
    assert time.monotonic() - at < 4
    release()
    stop(desk, 'SIGTERM')
    assert held(sound_book(home)) == {}


def test_no_run_is_opened_on_a_ledger_that_cannot_be_written(desk: DeskProcess, home: Path) -> None:
    open_run('WALK', mode='paper', window=5).finish()
    before, release = entries_of(home), lock(home)
    with pytest.raises(Halt, match='the ledger is locked'): open_run('WALK', mode='paper', window=5)
    release()
    assert entries_of(home) == before and status_of(home).halted == ''
    open_run('WALK', mode='paper', window=5).finish()


def test_a_job_needs_its_record_first(home: Path, store: Path, tmp_path: Path) -> None:
    """A runner that cannot write the record starts nothing."""
    from desk_stage import ladder
    if ledger_of(home).startswith('sqlite'): (home / 'ledger.db').write_bytes(b'this is not a database' * 100)
    with shared().away() if ON_SERVER else nullcontext(): refused = gekko(home, 'run', ladder(tmp_path), '--mode', 'paper', '--json', GEKKO_STORE=str(store))
    assert refused.returncode == 3 and ('gone' if ON_SERVER else 'corrupt') in refused.stdout and 'Traceback' not in refused.stderr
    assert not list((home / 'runs').glob('*/executed.ipynb')) and not (home / 'desks').exists()
    (home / 'ledger.db').unlink(missing_ok=True)
    one_line(gekko(home, 'run', ladder(tmp_path), '--json', GEKKO_STORE=str(store)))
    assert only_run(home).state == 'done'
