"""A book from a snapshot is the book from the start; a damaged snapshot costs time and nothing else; and the audit finds it."""
from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest

from gekko.domain.account import Account
from gekko.domain.errors import BadInput, Halt, Retry
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Amended, Cancelled, CancelRequested, Fill, Filled, Intent, Lost, OrderType, Rejected, Side, Submitted
from gekko.domain.parent import Parent
from gekko.domain.target import Targets
from gekko.domain.time import HOUR, MINUTE
from gekko.ledger.database import engine, writing
from gekko.ledger.events import (AccountOpened, BreachRecorded, Corrected, DayClosed, Deposited, Differed, External, Halted, IntentRecorded, LeaseTaken, Marked, Note, ParentClosed,
                                 ParentOpened, PolicyTaken, RunClosed, RunOpened, Stages)
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.replay import Book, replay
from gekko.ledger.snapshot import Kept, audit, book_of, due, in_journal, kept, last_snapshot, load_book, newest, pack, refresh, save_snapshot, trimmed, unpack

AAA, EUX = Instrument('AAA', 'AAA', 'USD'), Instrument('EUX', 'EUX', 'EUR', multiplier=Decimal(5))


def story(rng: random.Random, n: int) -> Iterator[object]:
    """`n` orders with every fate, and everything else that a journal can hold."""
    yield from (AAA, EUX, Deposited(Decimal('10000.00')), AccountOpened('sandbox', 'A-1', 'f-0', 'u-0'), LeaseTaken('desk:1', 1), RunOpened('r0', 'r0', 'trend', {'deep': {'list': [1, None, 0.5]}}))
    for i in range(n):
        cid, i_ = f'g{i}', rng.choice([AAA, EUX])
        limit = Decimal(rng.randrange(900, 1100)) / 100
        if i % 7 == 0: yield ParentOpened(Parent(f'p{i}', 'twap', i_.symbol, Side.BUY, Decimal(10), i, i + 10, params={'slices': 4}))
        yield IntentRecorded(cid, Intent(i_.symbol, rng.choice(list(Side)), Decimal(4), OrderType.LIMIT, limit=limit, run=f'r{i % 3}', cell='c', ts=i, parent=f'p{i - i % 7}'))
        fate = rng.randrange(9)
        if fate == 0:
            yield BreachRecorded('max_gross', '3', '9', i_.symbol, cid, i, 'too much')
            continue
        yield Submitted(cid, i)
        if fate == 1: yield Lost(cid, 'submit', i)
        if fate > 1: yield Accepted(cid, f'v-{i}', i)
        if fate == 2: yield from (CancelRequested(cid, i), Cancelled(cid, 'asked', i))
        if fate == 3: yield Rejected(cid, 'no', i)
        if fate == 4: yield Amended(cid, Decimal(6), ts=i)
        side = Side.BUY if fate % 2 else Side.SELL
        if fate > 5:
            for part in range(rng.randrange(1, 4)):
                for _ in range(rng.randrange(1, 3)): yield Filled(cid, Fill(f'f-{i}-{part}', cid, i_.symbol, side, Decimal(2), limit, Decimal('0.01'), ts=i))
        if i % 5 == 0: yield Marked({'AAA': Decimal('9.90'), 'EUX': Decimal('10.10')}, Decimal(1), {'EUR': Decimal('1.10')})
        if i % 7 == 6: yield ParentClosed(f'p{i - 6}', 'done', Decimal(8), ts=i)
        if i % 11 == 0: yield from (RunOpened(f'x{i}'), PolicyTaken(f'x{i}', 'hold'), RunClosed(f'x{i}', 'done', {'sharpe': 1.5}), Stages(cid, i, i, i, i, i, i), Note('n', {'a': 1}))
        if i % 13 == 0: yield from (External(f'web-{i}', f'w-{i}', 'AAA', 'quarantine', 'seen'), Filled(f'web-{i}', Fill(f'wf-{i}', f'web-{i}', 'AAA', Side.BUY, Decimal(1), Decimal(10), ts=i)))
        if i % 17 == 0: yield from (Differed(({'what': 'cash'},), 'corrected', 'asked'), Corrected('cash', 'USD', Decimal(1), Decimal('9000.5'), 'ann', 'statement'))
        if i % 19 == 0: yield Corrected('position', i_.symbol, Decimal(1), Decimal(rng.randrange(-9, 9)), 'ann', 'statement')
        if i % 23 == 0: yield from (DayClosed(f'2020-01-{i % 28 + 1:02}', {'cash': '1.00'}), Targets(i, {'AAA': 0.5}, run='r0'), Halted('by hand', 'ann'))


def write(url: str, seed: int, n: int, every: Any = MINUTE, commits: int = 40) -> None:
    """The story, an entry each `every` ns, now and then with a clock that is set back."""
    rng, at = random.Random(seed), 0
    with Journal.open(url, 'paper') as j:
        for k, r in enumerate(story(rng, n)):
            at += every
            j.append(r, at - (3 * every if rng.random() < 0.02 else 0), 'r0')
            if k % commits == 0: j.commit()


@pytest.mark.parametrize('seed', range(3))
def test_every_field_of_a_book_comes_back(url: str, seed: int) -> None:
    write(url, seed, 120)
    book = replay(read_entries(url, 'paper'))
    again = unpack(pack(book))
    for f in fields(Book): assert getattr(again, f.name) == getattr(book, f.name), f.name
    assert again == book and again is not book
    for name in ('orders', 'runs', 'instruments', 'ended', 'marks'): assert list(getattr(again, name)) == list(getattr(book, name))
    digits = [str(x) for f in again.fills for x in (f.qty, f.price, f.fee)]
    assert digits == [str(x) for f in book.fills for x in (f.qty, f.price, f.fee)]
    assert book.parents and book.externals and book.days and book.seqs['r1'] == 40 and book.faults and book.counts['note'] > 5 and sum(book.counts.values()) == book.last_seq
    assert book_of(kept(Book(Account('empty')))) == Book(Account('empty'))


@pytest.mark.parametrize('seed', range(3))
def test_snapshot_and_tail_are_the_whole_replay_wherever_it_was_taken(url: str, seed: int) -> None:
    write(url, seed, 90)
    every = list(read_entries(url, 'paper'))
    rng = random.Random(seed)
    for cut in sorted(rng.sample(range(1, len(every)), 5)):
        save_snapshot(url, replay(every[:cut]))
        assert load_book(url, 'paper') == load_book(url, 'paper', snapshot=False) == replay(every)
        assert last_snapshot(url, 'paper') == cut
    assert len(audit(url).snapshots) == 3 and audit(url).ok     # the newest three are kept


@pytest.mark.parametrize('seed', range(4))
def test_trimming_is_the_same_early_late_or_often(url: str, seed: int) -> None:
    write(url, seed, 150)
    every, rng = list(read_entries(url, 'paper')), random.Random(seed)
    stretch, last = rng.choice([30 * MINUTE, 2 * HOUR]), rng.choice([5, 40])
    book = Book(Account('paper'))
    for e in every:
        book.apply(e)
        if rng.random() < 0.05: book = trimmed(book, stretch, last)
    small, whole = trimmed(book, stretch, last), replay(every)
    assert small == trimmed(whole, stretch, last)
    assert small.open_orders == whole.open_orders and small.account == whole.account and small.seqs == whole.seqs and small.parents == whole.parents
    assert len(small.orders) < len(whole.orders) or last >= len(whole.ended)
    assert small.settled == {(f.client_id, f.fill_id) for f in small.fills}
    assert whole == replay(every)      # what was trimmed is a copy


def test_what_is_recent_by_time_or_by_number_is_remembered() -> None:
    with Journal.open(':memory:', 'paper', durable=False) as j:
        j.append(AAA, 0)
        for i in range(60):
            j.append(IntentRecorded(f'g{i}', Intent('AAA', Side.BUY, Decimal(1), run='r')), i * HOUR)
            if i != 3: j.append(Filled(f'g{i}', Fill(f'f{i}', f'g{i}', 'AAA', Side.BUY, Decimal(1), Decimal(9), ts=i * HOUR)), i * HOUR)
        j.commit()
        book = replay(j.entries())
    assert [o.client_id for o in trimmed(book, last=10).orders.values()] == ['g3', *(f'g{i}' for i in range(35, 60))]      # 24 hours before 59:00
    assert len(trimmed(book, last=40).fills) == 40 and trimmed(book, last=40).forgotten == 19 * HOUR
    assert trimmed(book).orders == book.orders and trimmed(book).forgotten == 0


def test_the_children_of_a_parent_under_way_are_not_forgotten() -> None:
    """What an algorithm has done is counted from its children: one forgotten would be bought twice."""
    with Journal.open(':memory:', 'paper', durable=False) as j:
        for e in (AAA, ParentOpened(Parent('week', 'twap', 'AAA', Side.BUY, Decimal(60), 0, 60 * HOUR))): j.append(e, 0)
        for i in range(60):
            j.append(IntentRecorded(f'g{i}', Intent('AAA', Side.BUY, Decimal(1), run='r', parent='week' if i % 2 else '')), i * HOUR)
            j.append(Filled(f'g{i}', Fill(f'f{i}', f'g{i}', 'AAA', Side.BUY, Decimal(1), Decimal(9), ts=i * HOUR)), i * HOUR)
        j.commit()
        under_way = replay(j.entries())
        j.append(ParentClosed('week', 'done', Decimal(30), ts=60 * HOUR), 60 * HOUR)
        j.commit()
        ended = replay(j.entries())
    small = trimmed(under_way, HOUR, 4)
    assert [c for c, o in small.orders.items() if o.intent.parent] == [f'g{i}' for i in range(1, 60, 2)] and len(small.orders) == 32
    assert sum(o.filled for o in small.orders.values() if o.intent.parent == 'week') == 30
    assert len(trimmed(ended, HOUR, 4).orders) == 4


def test_a_fill_that_the_book_forgot_is_found_in_the_journal(url: str) -> None:
    write(url, 1, 60)
    book = replay(read_entries(url, 'paper'))
    small = trimmed(book, MINUTE, 3)
    gone = [f for f in book.fills if f not in small.fills]
    assert gone and all(in_journal(url, 'paper', f.client_id, f.fill_id) for f in gone) and max(f.ts for f in gone) <= small.forgotten
    assert not in_journal(url, 'paper', gone[0].client_id, 'f-%') and not in_journal(url, 'paper', 'g999', gone[0].fill_id) and not in_journal(url, 'other', gone[0].client_id, gone[0].fill_id)


def test_a_late_or_repeated_fill_is_recognised_after_a_restart(url: str) -> None:
    write(url, 1, 60)
    book = load_book(url, 'paper')
    assert book is not None
    save_snapshot(url, book)
    told = book.fills[5]
    with Journal.open(url, 'paper') as j: j.append(Filled(told.client_id, told), 10**15)
    again = load_book(url, 'paper')
    assert again is not None and again.account == book.account and len(again.fills) == len(book.fills)


def broken(url: str, sql: str) -> None:
    with writing(url, 'damage') as c: c.exec_driver_sql(sql)


@pytest.mark.parametrize(('sql', 'why'), [
    ('update snapshots set made = made + 1', 'does not match|do not match'), ("update snapshots set hash = 'ab'", 'do not match'), ("update snapshots set digest = 'ab'", 'do not match'),
    ('update snapshots set seq = seq + 1', 'do not match'), ("update snapshots set account = 'other'", 'no journal')])
def test_a_damaged_snapshot_costs_time_and_is_reported(url: str, sql: str, why: str) -> None:
    write(url, 2, 40)
    whole = replay(read_entries(url, 'paper'))
    save_snapshot(url, whole)
    assert audit(url).ok and str(audit(url)).endswith('1 snapshots agree with it')
    broken(url, sql)
    assert newest(url, 'paper') is None and load_book(url, 'paper') == whole
    with pytest.raises(AssertionError, match=why): assert audit(url).ok, str(audit(url))


def test_the_one_before_is_used_when_the_newest_is_damaged(url: str) -> None:
    write(url, 2, 40)
    every = list(read_entries(url, 'paper'))
    for cut in (50, 100): save_snapshot(url, replay(every[:cut]))
    broken(url, "update snapshots set digest = 'x' where seq = 100")
    found = newest(url, 'paper')
    assert found is not None and found.last_seq == 50 and load_book(url, 'paper') == replay(every)
    assert [(t.seq, bool(t.why)) for t in audit(url).snapshots] == [(50, False), (100, True)]


def test_a_snapshot_of_another_shape_or_journal_is_passed_over(url: str, tmp_path: Any) -> None:
    write(url, 2, 40)
    whole, other = replay(read_entries(url, 'paper')), str(tmp_path / 'other.db')
    with pytest.raises(BadInput, match='another shape'): unpack(b'0123456789abcdef' + pack(whole)[16:])
    for damaged in (b'', pack(whole)[:100], pack(whole)[:16] + b'x' * 50):
        with pytest.raises(BadInput): unpack(damaged)
    write(other, 3, 40)
    with pytest.raises(Retry, match='not on disk'): save_snapshot(other, whole)
    assert last_snapshot(other, 'paper') == 0


def test_a_forged_snapshot_is_found_by_the_audit(url: str) -> None:
    write(url, 4, 60)
    book = load_book(url, 'paper')
    assert book is not None
    for change in ({'account': replace(book.account, cash={'USD': Decimal(1)})}, {'seqs': {}}, {'cursor': 'x'}, {'halted': 'never'}, {'orders': dict(list(book.orders.items())[1:])}):
        save_snapshot(url, replace(book, **change))
        assert [t.why for t in audit(url).snapshots] == ['it is not what the journal says']
    save_snapshot(url, book)
    assert audit(url).ok


def test_a_journal_that_lost_its_end_is_not_traded_on(url: str) -> None:
    write(url, 5, 40)
    book = load_book(url, 'paper')
    assert book is not None
    save_snapshot(url, book)
    broken(url, f'delete from entries where seq > {book.last_seq - 5}')
    with pytest.raises(Halt, match='damaged at its end'): load_book(url, 'paper')
    assert not audit(url).ok
    broken(url, 'delete from entries')
    with pytest.raises(Halt, match='damaged at its end'): load_book(url, 'paper')


def test_when_one_is_due(url: str) -> None:
    write(url, 6, 30)
    book = load_book(url, 'paper')
    assert book is not None and load_book(url, 'nobody') is None
    n = book.last_seq
    assert [due(book, 0, n), due(book, 1, n), due((n, book.head), n - 5, 5), due((n, ''), n - 4, 5)] == [True, False, True, False]
    assert [refresh(url, 'paper', n + 1), refresh(url, 'paper', n), refresh(url, 'paper', 1), last_snapshot(url, 'paper')] == [0, n, 0, n]
    with pytest.raises(BadInput, match='no such account'): refresh(url, 'nobody')


def test_a_snapshot_while_the_desk_writes(url: str) -> None:
    """The snapshot is packed before the ledger is locked, so that a commit waits for one row and not for the packing."""
    write(url, 7, 30)
    with Journal.open(url, 'paper', writer=True) as j:
        for n in range(20):
            for _ in range(5): j.append(Note(str(n)), HOUR)
            j.flush(lambda said: None)
            refresh(url, 'paper', 1)
        j.commit()
    assert refresh(url, 'paper', 1) == j.head[0] or last_snapshot(url, 'paper') == j.head[0]
    assert audit(url).ok and load_book(url, 'paper') == replay(read_entries(url, 'paper'))


def test_a_ledger_of_the_first_schema_is_read_without_snapshots(url: str) -> None:
    write(url, 8, 20)
    with engine(url, write=True).begin() as c:
        c.exec_driver_sql('drop table snapshots')
        c.exec_driver_sql('update schema set version = 1')
    assert newest(url, 'paper') is None and last_snapshot(url, 'paper') == 0 and audit(url).ok
    assert load_book(url, 'paper') == replay(read_entries(url, 'paper'))


def test_all_of_a_book_is_in_a_snapshot() -> None:
    named = {f.name for f in fields(Kept)} | {'halted', 'killed', 'holder', 'head', 'cursor', 'funding', 'epoch', 'last_seq', 'last_ts', 'since', 'agreed', 'latest', 'forgotten', 'settled'}
    assert {f.name for f in fields(Book)} <= named
