"""A statement adds up to the last digit, whatever happened on the day and in whatever order it was heard."""
from __future__ import annotations

import csv
import io
import json
import sqlite3
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dateutil.easter import easter as dateutil_easter
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.account import Funding, equity, fund, pnl
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Amended, AmendRejected, AmendRequested, Cancelled, Expired, Fill, Filled, Intent, Lost, Rejected, Side, Submitted
from gekko.domain.time import DAY, HOUR, SECOND, utc
from gekko.ledger.days import NEW_YORK, UTC_DAY, DayEnd, day_end
from gekko.ledger.events import Adopted, Corrected, DayClosed, Deposited, Entry, External, IntentRecorded, Marked
from gekko.ledger.journal import Chain, Journal, read_entries
from gekko.ledger.match import VenueDay, as_of, match
from gekko.ledger.printed import lines, to_csv, to_plain
from gekko.ledger.replay import Book, replay
from gekko.ledger.settlement import BANKS, easter, ladder, open_day, settlements, spot_date
from gekko.ledger.statement import Statement, began, day_statement, left_before, statement_of
from gekko.ledger.tally import BACK, pack_left
from gekko.risk.view import BookView

D = Decimal
START = utc('2024-03-11')
BOOK = {i.symbol: i for i in (
    Instrument('EUR-USD', 'EUR', 'USD', 'fx', tick=D('0.00001')), Instrument('USD-JPY', 'USD', 'JPY', 'fx', tick=D('0.001')), Instrument('BTC-USD', 'BTC', 'USD', 'crypto', tick=D('0.01'), lot=D('0.00000001')),
    Instrument('BTC-EUR', 'BTC', 'EUR', 'crypto', tick=D('0.01'), lot=D('0.00000001')), Instrument('DAX', 'DAX', 'EUR', 'index', tick=D('0.1'), multiplier=D(25)))}
RATES = {c: D(r) for c, r in (('USD', '1'), ('EUR', '1.0931'), ('JPY', '0.0068147'), ('BTC', '70123.45'), ('BNB', '391.07'))}

prices = st.decimals('0.01', '99999', places=4)
sizes = st.decimals('0.00000001', '50000', places=8)
money = st.decimals('-1000000', '1000000', places=6)
when = st.integers(0, 3 * 24 * 60).map(lambda m: START + m * 60 * SECOND)


@st.composite
def fills(draw: st.DrawFn) -> Filled:
    i = BOOK[draw(st.sampled_from(sorted(BOOK)))]
    fee_in = draw(st.sampled_from((i.quote, 'USD', i.base if i.kind == 'crypto' else i.quote, 'BNB')))
    qty = draw(sizes)
    fee = draw(st.decimals('-3', '30', places=8)) if fee_in != i.base else (qty * draw(st.sampled_from((D(0), D('0.001'), D('0.004'))))).quantize(D('1e-10'))
    at = draw(when)
    f = Fill('f', 'g', i.symbol, draw(st.sampled_from(Side)), qty, draw(prices), fee, fee_in, at)
    return Filled(f.client_id, f, at)


facts = st.one_of(
    fills(), st.builds(Deposited, money, st.sampled_from(('USD', 'EUR', 'JPY'))), st.builds(lambda x, c, at: Funding('n', x, c, 'financing', '', at), money, st.sampled_from(('USD', 'JPY', 'EUR')), when),
    st.builds(lambda s, p, r: Marked({s: p}, D(0), r), st.sampled_from(sorted(BOOK)), prices, st.fixed_dictionaries({'EUR': st.decimals('0.9', '1.2', places=6), 'JPY': st.decimals('0.005', '0.01', places=9)})))
def numbered(happenings: list[tuple[int, object]]) -> list[tuple[int, object]]:
    """Each fill and funding under an id of its own."""
    def own(n: int, r: object) -> object:
        if isinstance(r, Funding): return replace(r, funding_id=f'n{n}')
        return Filled(f'g{n}', replace(r.fill, fill_id=f'f{n}', client_id=f'g{n}'), r.ts) if isinstance(r, Filled) else r
    return [(m, own(n, r)) for n, (m, r) in enumerate(happenings)]


heard = st.lists(st.tuples(st.integers(0, 72 * 60), facts), max_size=40).map(numbered)


def journal(happenings: list[tuple[int, object]]) -> list[Entry]:
    """A journal that opens with a deposit, the instruments and all rates, and hears the rest in the order of the minutes given, whenever it is said to have happened."""
    chain = Chain('x-1')
    first = [chain.link(i, START) for i in BOOK.values()] + [chain.link(Deposited(D(1_000_000)), START), chain.link(Marked({}, D(0), {c: r for c, r in RATES.items() if c != 'USD'}), START)]
    orders = {r.client_id: r.fill for _, r in happenings if isinstance(r, Filled)}
    intents = [chain.link(IntentRecorded(name, Intent(f.symbol, f.side, D(10**9))), START) for name, f in orders.items()]
    return first + intents + [chain.link(r, START + SECOND + m * 60 * SECOND) for m, r in sorted(happenings, key=lambda x: x[0])]


def days_of(entries: list[Entry]) -> list[Statement]:
    return [day_statement(entries, d) for d in ('2024-03-10', '2024-03-11', '2024-03-12', '2024-03-13', '2024-03-14')]


@settings(max_examples=150, deadline=None)
@given(heard)
def test_every_bridge_of_every_day_is_exact_and_the_days_join(happenings: list[tuple[int, object]]) -> None:
    entries = journal(happenings)
    days = days_of(entries)
    for before, after in zip(days, days[1:]):
        assert {c: x for c, x in before.closing.items() if x} == {c: x for c, x in after.opening.items() if x}
        assert before.total and after.total and before.total.closing == after.total.opening
    for s in days:
        assert s.total is not None and not s.total.gap and not any(b.gap for b in s.bridges)
        assert sum(t.fills for t in s.traded) == len(s.fills) and sum(1 for _ in lines(s)) == to_csv(s).count('\n') - 1


@settings(max_examples=100, deadline=None)
@given(heard)
def test_the_last_day_closes_at_what_replay_says(happenings: list[tuple[int, object]]) -> None:
    entries = journal(happenings)
    book, s = replay(entries), days_of(entries)[-1]
    assert {c: x for c, x in s.closing.items() if x} == {c: x for c, x in book.account.cash.items() if x}
    assert s.held == {k: p.qty for k, p in book.account.positions.items() if p.qty}
    marks = {**s.marks, **book.marks}
    assert s.total is not None and s.total.closing == equity(book.account, marks, BOOK, book.rates)


def running(entries: list[Entry]) -> BookView:
    """The account as a desk keeps it while it trades, fact by fact."""
    v, told = BookView('x-1', 'USD', BOOK), set[tuple[str, str]]()
    for c, r in RATES.items():
        if c != 'USD': v.rate(c, r)
    for e in entries:
        match e.record:
            case Deposited() as r: v.deposit(r.amount, r.currency)
            case Filled() as r if (key := (r.fill.client_id, r.fill.fill_id)) not in told:
                told.add(key)
                v.fill(r.fill)
            case Funding() as r: v.adopt(fund(v.account, r))
            case Marked() as r:
                for s, p in r.prices.items(): v.mark(s, p, e.ts)
                for c, x in r.rates.items(): v.rate(c, x)
            case _: pass
    return v


@settings(max_examples=100, deadline=None)
@given(heard)
def test_profit_replayed_is_the_profit_that_ran(happenings: list[tuple[int, object]]) -> None:
    entries = journal([(m, replace(r, fill=replace(r.fill, ts=0)) if isinstance(r, Filled) else replace(r, ts=0) if isinstance(r, Funding) else r) for m, r in happenings])      # heard when it happened
    v, days = running(entries), days_of(entries)
    book = replay(entries)
    assert (book.account.cash, book.account.positions, book.account.paid) == (v.account.cash, v.account.positions, v.account.paid)
    marks = {**days[-1].marks, **v.marks}
    assert pnl(book.account, marks, book.rates) == pnl(v.account, marks, v.rates)
    by_currency = {c: sum((s.bridge(c).realised for s in days), D(0)) for c in ('USD', 'EUR', 'JPY')}
    assert by_currency == {c: sum((p.realised for p in v.account.positions.values() if p.currency == c), D(0)) for c in by_currency}
    assert {c: x for c in ('USD', 'EUR', 'JPY', 'BNB') if (x := sum((s.bridge(c).fees - s.bridge(c).funding for s in days), D(0)))} == {c: x for c, x in v.account.paid.items() if x}
    assert {k: x for k, x in days[-1].realised.items() if x} == {k: p.realised for k, p in v.account.positions.items() if p.realised}


@settings(max_examples=60, deadline=None)
@given(heard, st.randoms(use_true_random=False))
def test_duplicates_change_nothing(happenings: list[tuple[int, object]], chance: object) -> None:
    again = [(m, r) for m, r in happenings if isinstance(r, Filled) and chance.random() < 0.5]      # type: ignore[attr-defined]
    plain = [(m, r) for i, (m, r) in enumerate(happenings)]
    once, twice = days_of(journal(plain)), days_of(journal(plain + [(72 * 60, r) for _, r in again]))
    assert [(s.closing, s.total, s.fills) for s in once] == [(s.closing, s.total, s.fills) for s in twice]


# What an order refuses, and everything else that replay does not settle

names = st.integers(0, 5).map(lambda n: f'g{n}')
symbols = st.sampled_from(sorted(BOOK))
lots = st.integers(1, 12).map(D)


@st.composite
def tellings(draw: st.DrawFn) -> Filled:
    """A fill of one of a few orders, which may be of another symbol, of the other side, too large, told before or of no order at all."""
    name, symbol, at = draw(names), draw(symbols), draw(when)
    f = Fill(f'f{draw(st.integers(0, 7))}', name, symbol, draw(st.sampled_from(Side)), draw(lots), draw(prices), draw(st.decimals('-1', '3', places=2)), draw(st.sampled_from((BOOK[symbol].quote, 'USD', BOOK[symbol].base))), draw(st.sampled_from((0, at))))
    return Filled(draw(st.sampled_from((name, name, name, 'stranger'))), f, at)


anything = st.one_of(
    tellings(), tellings(), tellings(),
    st.builds(lambda n, s, side, q: IntentRecorded(n, Intent(s, side, q)), names, symbols, st.sampled_from(Side), lots),
    st.builds(External, st.sampled_from(('stranger', 'g5')), st.just('v'), symbols, st.just('seen')),
    st.builds(lambda n, q: AmendRequested(n, qty=q), names, lots), st.builds(lambda n, q, at: Amended(n, qty=q, ts=at), names, lots, when), st.builds(AmendRejected, names),
    st.builds(Cancelled, names), st.builds(Rejected, names), st.builds(Expired, names), st.builds(Submitted, names), st.builds(Accepted, names), st.builds(Lost, names, st.sampled_from(('submit', 'cancel'))),
    st.builds(Deposited, money, st.sampled_from(('USD', 'EUR'))), st.builds(lambda x, at: Funding('n', x, 'JPY', 'financing', '', at), money, when),
    st.builds(lambda s, q, p: Adopted(s, q, p), symbols, lots, prices), st.builds(lambda k, a, b: Corrected('cash', k, a, b, 'ann', 'seen'), st.sampled_from(('USD', 'BNB')), money, money),
    st.builds(lambda k, a, b: Corrected('position', k, a, b, 'ann', 'seen'), symbols, lots, lots), st.builds(lambda s, p: Marked({s: p}, D(0)), symbols, prices), st.sampled_from(list(BOOK.values())))


@st.composite
def journals(draw: st.DrawFn) -> list[Entry]:
    """A journal of three days in which anything stands: all of it is chained and read, and much of it is wrong."""
    chain = Chain('x-1')
    chain_of = [chain.link(Deposited(D(1_000_000)), START), chain.link(Marked({}, D(0), {c: r for c, r in RATES.items() if c != 'USD'}), START)]
    chain_of += [chain.link(i, START) for i in BOOK.values() if draw(st.booleans())]
    happenings = draw(st.lists(st.tuples(st.integers(0, 72 * 60), anything), max_size=40))
    return chain_of + [chain.link(r, START + SECOND + m * 60 * SECOND) for m, r in sorted(happenings, key=lambda x: x[0])]


def agrees(s: Statement, book: Book) -> None:
    """The statement's last figures are those of the replay."""
    assert {c: x for c, x in s.closing.items() if x} == {c: x for c, x in book.account.cash.items() if x}
    assert s.held == {k: p.qty for k, p in book.account.positions.items() if p.qty}
    marks = {**s.marks, **book.marks}
    if not s.missing and s.total is not None and marks == dict(s.marks): assert s.total.closing == equity(book.account, marks, BOOK, book.rates)


@settings(max_examples=300, deadline=None)
@given(journals())
def test_a_statement_settles_what_replay_settles_and_nothing_else(entries: list[Entry]) -> None:
    book, days = replay(entries), days_of(entries)
    agrees(days[-1], book)
    paid = {c: x for c in {*RATES, *(i.base for i in BOOK.values())} if (x := sum((s.bridge(c).fees - s.bridge(c).funding for s in days), D(0)))}
    assert paid == {c: x for c, x in book.account.paid.items() if x}
    assert sorted((f.client_id, f.fill_id) for s in days for f in s.fills) == sorted((f.client_id, f.fill_id) for f in book.fills)
    assert not any(b.gap for s in days for b in s.bridges)


def test_a_fill_that_its_order_refuses_is_in_no_statement() -> None:
    """Twice the order's size has traded, says the venue: a conflict, on which trading halts. Neither view counts it before somebody has looked."""
    chain, i = Chain('x-1'), BOOK['EUR-USD']
    first = [chain.link(r, START) for r in (i, Deposited(D(1000)), IntentRecorded('g1', Intent('EUR-USD', Side.BUY, D(100))))]
    told = [chain.link(Filled('g1', Fill(f'f{n}', 'g1', 'EUR-USD', Side.BUY, D(100), D('1.1'), ts=START + HOUR)), START + HOUR) for n in (1, 2)]
    book, s = replay(first + told), day_statement(first + told, '2024-03-11')
    assert book.orders['g1'].conflict and s.held == {'EUR-USD': D(100)} == {k: p.qty for k, p in book.account.positions.items()}
    assert s.closing == dict(book.account.cash) == {'USD': D(890)} and [f.fill_id for f in s.fills] == ['f1']


# Going on from a day that was closed

def kept_in(folder: str, entries: list[Entry], ends: DayEnd, after: list[int]) -> str:
    """A ledger with these entries in which every day is closed, so many entries after its end."""
    url, days = f'sqlite:///{folder}/ledger.db', ['2024-03-11', '2024-03-12', '2024-03-13']
    with Journal.open(url, 'x-1') as j:
        waits = 0
        for e in [*entries, None]:
            while days and (e is None or e.ts > ends.window(days[0])[1]):
                if e is not None and waits < after[len(days) - 1]:
                    waits += 1
                    break
                j.commit()
                s = statement_of(url, 'x-1', days[0], ends=ends, marks={'EUR-USD': D('1.0777')})
                j.append(DayClosed(days.pop(0), {**to_plain(s), 'books': pack_left(s.left) if s.left else ''}), e.ts if e else START + 5 * DAY)
                waits = 0
            if e is not None: j.append(e.record, e.ts)
    return url


def same(a: Statement, b: Statement) -> bool: return replace(a, cursor='', told='') == replace(b, cursor='', told='')


@settings(max_examples=60, deadline=None)
@given(journals(), st.sampled_from((UTC_DAY, NEW_YORK)), st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_a_statement_that_goes_on_from_the_day_before_is_the_one_made_anew(entries: list[Entry], ends: DayEnd, after: list[int]) -> None:
    with TemporaryDirectory() as folder:
        url = kept_in(folder, entries, ends, after)
        for day in ('2024-03-12', '2024-03-13', '2024-03-14'):
            quick, slow = statement_of(url, 'x-1', day, ends=ends), statement_of(url, 'x-1', day, ends=ends, anew=True)
            assert same(quick, slow)
            old = {f.fill_id: f.ts for f in replay(read_entries(url, 'x-1')).fills}
            assert quick.cursor in ('', *(n for n, ts in old.items() if ts < quick.start - BACK))
        agrees(statement_of(url, 'x-1', '2024-03-16', ends=ends), replay(read_entries(url, 'x-1')))


def test_only_the_entries_since_the_last_closed_day_are_read(tmp_path: Path) -> None:
    """Ten thousand entries of Monday, ten of Tuesday."""
    url, fill = f'sqlite:///{tmp_path}/ledger.db', Fill('f', 'g', 'EUR-USD', Side.BUY, D(1), D('1.1'), D('0.01'), 'USD')
    with Journal.open(url, 'x-1') as j:
        for r in (BOOK['EUR-USD'], Deposited(D(100_000)), IntentRecorded('g', Intent('EUR-USD', Side.BUY, D(20_000)))): j.append(r, START)
        def trade(n: int, at: int) -> None: j.append(Filled('g', replace(fill, fill_id=f'f{n}', client_id='g', ts=at)), at)
        for n in range(10_000): trade(n, START + HOUR + n)
        j.commit()
        monday = statement_of(url, 'x-1', '2024-03-11')
        assert monday.left is not None
        j.append(DayClosed('2024-03-11', {**to_plain(monday), 'books': pack_left(monday.left)}), START + DAY + SECOND)
        for n in range(10): trade(20_000 + n, START + DAY + HOUR + n)
        j.commit()
        tuesday, left = statement_of(url, 'x-1', '2024-03-12'), left_before(url, 'x-1', START + DAY)
    assert left is not None and left.place.book.last_seq == 10_003 and len(tuesday.fills) == 10
    assert tuesday.held == {'EUR-USD': D(10_010)} and same(tuesday, statement_of(url, 'x-1', '2024-03-12', anew=True))
    with sqlite3.connect(tmp_path / 'ledger.db') as c: c.execute('delete from entries where seq between 5 and 9000')      # what is not needed is not missed
    assert statement_of(url, 'x-1', '2024-03-12') == tuesday


def test_a_late_fill_of_an_order_that_ended_long_ago_is_judged_by_the_whole_journal(tmp_path: Path) -> None:
    url = f'sqlite:///{tmp_path}/ledger.db'
    with Journal.open(url, 'x-1') as j:
        for r in (BOOK['EUR-USD'], Deposited(D(100_000)), *(r for n in range(900) for r in (IntentRecorded(f'g{n}', Intent('EUR-USD', Side.BUY, D(10))), Cancelled(f'g{n}', ts=START)))): j.append(r, START)
        j.append(Deposited(D(1)), START + 20 * HOUR)
        j.commit()
        monday = statement_of(url, 'x-1', '2024-03-11')
        assert monday.left is not None
        j.append(DayClosed('2024-03-11', {**to_plain(monday), 'books': pack_left(monday.left)}), START + DAY + SECOND)
        at = START + DAY + HOUR
        j.append(Filled('g3', Fill('f1', 'g3', 'EUR-USD', Side.BUY, D(10), D('1.1'), ts=at)), at)
        j.commit()
    left = left_before(url, 'x-1', START + DAY)
    assert left is not None and 'g3' not in left.place.book.orders and 'g899' in left.place.book.orders
    tuesday = statement_of(url, 'x-1', '2024-03-12')
    assert tuesday.held == {'EUR-USD': D(10)} and [f.fill_id for f in tuesday.fills] == ['f1']
    agrees(tuesday, replay(read_entries(url, 'x-1')))


def test_a_record_of_another_shape_is_done_without(tmp_path: Path) -> None:
    url = f'sqlite:///{tmp_path}/ledger.db'
    with Journal.open(url, 'x-1') as j:
        for r in (BOOK['EUR-USD'], Deposited(D(100))): j.append(r, START)
        for books in ('', 'an older shape', 7): j.append(DayClosed('2024-03-11', {'start': START, 'end': START + DAY, 'books': books}), START + DAY)
    assert left_before(url, 'x-1', START + DAY) is None and statement_of(url, 'x-1', '2024-03-12').closing == {'USD': D(100)}


# Days

@pytest.mark.parametrize(('day', 'hours'), [('2024-03-09', 24), ('2024-03-10', 23), ('2024-03-11', 24), ('2024-11-02', 24), ('2024-11-03', 25), ('2024-11-04', 24)])
def test_the_dealer_s_day_has_23_and_25_hours_when_new_york_s_clocks_change(day: str, hours: int) -> None:
    """Five in the afternoon to five in the afternoon; the clocks change at two in the morning between."""
    start, end = NEW_YORK.window(day)
    assert end - start == hours * HOUR and NEW_YORK.day_of(start + 1) == NEW_YORK.day_of(end) == day
    assert NEW_YORK.day_of(start) != day != NEW_YORK.day_of(end + 1)
    summer = date.fromisoformat(day) >= date(2024, 3, 10) and date.fromisoformat(day) < date(2024, 11, 3)
    assert end == utc(f'{day}T{21 if summer else 22}:00')


@given(st.sampled_from(('UTC', 'America/New_York', 'Europe/London', 'Asia/Tokyo', 'Australia/Lord_Howe', 'America/Havana', 'Africa/Cairo', 'America/St_Johns')), st.integers(0, 23), st.dates(date(2015, 1, 2), date(2030, 1, 1)))
def test_days_follow_one_another_in_every_zone_at_every_hour(zone: str, hour: int, d: date) -> None:
    ends, day, after = DayEnd(zone, hour), d.isoformat(), (d + timedelta(days=1)).isoformat()
    (start, end), (begins, _) = ends.window(day), ends.window(after)
    assert end == begins and 22 * HOUR <= end - start <= 26 * HOUR
    assert [ends.day_of(t) for t in (start + 1, (start + end) // 2, end, end + 1)] == [day, day, day, after]
    assert day_end(str(ends)) == ends == day_end(f'utc, x={ends}', 'x-1') and day_end(f'x={ends}', 'y-1') == UTC_DAY


def test_a_correction_and_a_position_brought_in_are_no_profit() -> None:
    entries = journal([])
    chain = Chain('x-1', seq=entries[-1].seq, hash=entries[-1].hash)
    more = [chain.link(r, START + HOUR) for r in (Adopted('EUR-USD', D(1000), D('1.09')), Corrected('cash', 'USD', D(1_000_000), D('999999.75'), 'ann', 'a fee of the bank'),
                                                  Corrected('position', 'EUR-USD', D(1000), D(900), 'ann', 'sold by hand'), Marked({'EUR-USD': D('1.09')}, D(0)))]
    s, book = day_statement(entries + more, '2024-03-11'), replay(entries + more)
    assert {f.what for f in book.faults} == {'equity'} and s.total is not None      # nobody reckoned what these marks are worth
    assert (s.total.pnl, s.total.deposits, s.total.corrections, s.total.gap) == (0, D('1090'), D('-109.25'), 0)
    assert s.closing == dict(book.account.cash) and s.held == {'EUR-USD': D(900)}


def test_the_record_of_a_closed_day_is_where_the_next_begins(url: str) -> None:
    with Journal.open(url, 'x-1') as j:
        for e in journal([(60, Filled('g1', Fill('f1', 'g1', 'EUR-USD', Side.BUY, D(1000), D('1.09'), D(1), 'USD', START + HOUR), 0))]): j.append(e.record, e.ts)
        first = day_statement(j.entries(), '2024-03-11') if j.commit() is None else None
        assert first is not None and first.total is not None
        slow = began(url, 'x-1', '2024-03-12')
        plain = to_plain(day_statement(j.entries(), '2024-03-11', marks={'EUR-USD': D('1.1')}))
        assert json.loads(json.dumps(plain)) == plain
        j.append(DayClosed('2024-03-11', plain), START + DAY + SECOND)
        j.commit()
        quick = began(url, 'x-1', '2024-03-12')
        assert quick.worth == slow.worth + 10 == day_statement(j.entries(), '2024-03-12').total.opening      # type: ignore[operator, union-attr]
        assert quick.realised == slow.realised
        j.append(Deposited(D(500)), START + DAY + HOUR)
        j.commit()
        assert began(url, 'x-1', '2024-03-12').worth == quick.worth + 500      # what is paid in today is no profit of today


# The venue's word

@settings(max_examples=80, deadline=None)
@given(heard)
def test_a_venue_asked_later_agrees_once_its_later_day_is_taken_back(happenings: list[tuple[int, object]]) -> None:
    entries = journal([(m, r) for m, r in happenings if not isinstance(r, Deposited)])
    s, book = day_statement(entries, '2024-03-12'), replay(entries)
    everything = list({(f.client_id, f.fill_id): f for f in book.fills}.values())
    told = [e.record for e in entries if e.kind == 'funding']
    cash, held = as_of(s.end, book.account.cash, {k: p.qty for k, p in book.account.positions.items() if p.qty}, everything, told, BOOK)
    known = {e.fill_id: e for e in s.fills}
    said = VenueDay(cash, held, tuple(known.values()), tuple(s.fundings))
    assert match(s, said) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(('cash', 'position', 'fill price', 'fee', 'fill gone', 'stranger', 'funding')), unique=True, max_size=7))
def test_a_tampered_statement_gives_exactly_the_breaks_that_were_made(tampering: list[str]) -> None:
    def fill(n: int, price: str) -> Filled: return Filled(f'g{n}', Fill(f'f{n}', f'g{n}', 'EUR-USD', Side.BUY, D(100 * n), D(price), D('0.5'), 'USD', START + n * HOUR), START)
    s = day_statement(journal([(n, fill(n, f'1.0{n}')) for n in range(1, 5)] + [(9, Funding('n1', D('-0.31'), 'USD', 'financing', '', START + HOUR))]), '2024-03-11')
    by_id = {f.fill_id: f for f in s.fills}
    cash, held, told, expected = dict(s.closing), dict(s.held), list(s.fundings), set[tuple[str, str]]()
    for what in tampering:
        match what:
            case 'cash': cash['USD'] += D('0.000001'); expected.add(('cash', 'USD'))
            case 'position': held['EUR-USD'] -= 1; expected.add(('position', 'EUR-USD'))
            case 'fill price': by_id['f1'] = replace(by_id['f1'], price=D('1.011')); expected.add(('fill', 'f1'))
            case 'fee': by_id['f2'] = replace(by_id['f2'], fee=D('0.51')); expected.add(('fee', 'f2'))
            case 'fill gone': del by_id['f3']; expected.add(('fill', 'f3'))
            case 'stranger': by_id['f9'] = replace(s.fills[0], fill_id='f9', client_id='by-hand'); expected.add(('fill', 'f9'))
            case _: told = [replace(told[0], amount=D('-0.32'))]; expected.add(('funding', 'n1'))
    breaks = match(s, VenueDay(cash, held, tuple(by_id.values()), tuple(told)))
    assert {(b.what, b.key) for b in breaks} == expected and len(breaks) == len(expected)
    assert all(b.ours != b.theirs for b in breaks)


def test_a_fill_id_that_a_spreadsheet_would_run_is_written_as_text() -> None:
    s = day_statement(journal([(1, Funding('=cmd()', D(1), 'USD', '@sum', '', START + HOUR))]), '2024-03-11')
    rows = list(csv.reader(io.StringIO(to_csv(s))))
    assert all(not cell.startswith(('=', '@')) for row in rows for cell in row) and "'=cmd()" in {cell for row in rows for cell in row}


# Settlement

def test_easter_and_the_banks_holidays() -> None:
    assert all(easter(y) == dateutil_easter(y) for y in range(1990, 2100))
    assert {d.isoformat() for d in BANKS['USD'](2024)} == {f'2024-{d}' for d in ('01-01', '01-15', '02-19', '05-27', '06-19', '07-04', '09-02', '10-14', '11-11', '11-28', '12-25')}
    assert {d.isoformat() for d in BANKS['EUR'](2024)} == {f'2024-{d}' for d in ('01-01', '03-29', '04-01', '05-01', '12-25', '12-26')}


@given(st.dates(date(1999, 1, 1), date(2060, 1, 1)), st.sampled_from(('EUR-USD', 'USD-JPY', 'USD-CAD', 'EUR-GBP', 'USD-SAR', 'EUR-SEK', 'GBP-QAR')))
def test_a_value_date_is_a_working_day_of_both_and_near(traded: date, pair: str) -> None:
    base, quote = pair.split('-')
    due = spot_date(base, quote, traded)
    assert all(open_day(c, due) for c in {base, quote, 'USD'}) and timedelta(days=1) <= due - traded <= timedelta(days=12)
    assert spot_date(base, quote, traded + timedelta(days=1)) >= due
    assert pair != 'USD-CAD' or due == next(d for n in range(1, 12) if all(open_day(c, d := traded + timedelta(days=n)) for c in ('USD', 'CAD')))


def test_records_are_pending_until_their_date_and_the_ladder_adds_them_up() -> None:
    at = utc('2024-03-13T12:00:00Z')
    made = [Fill(f'f{n}', 'g', 'EUR-USD', Side.BUY if n % 2 else Side.SELL, D(1000 * n), D('1.1'), D('0.1'), 'USD', at + n * SECOND) for n in range(1, 6)]
    def states(day: str) -> set[str]: return {r.state for r in settlements(made, BOOK, utc(day))}
    assert (states('2024-03-14'), states('2024-03-15')) == ({'pending'}, {'settled'})
    assert ladder(settlements(made, BOOK, at)) == {'2024-03-15': {'EUR': D(3000), 'USD': D('-3300.5')}} and ladder(settlements(made, BOOK, at + 9 * DAY)) == {}
