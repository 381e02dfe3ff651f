"""A statement adds up to the last digit, whatever happened on the day and in whatever order it was heard."""
from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

from dateutil.easter import easter as dateutil_easter
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.account import Funding, equity, fund, pnl
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Filled, Intent, Side
from gekko.domain.time import DAY, HOUR, SECOND, utc
from gekko.ledger.days import MONEY, NEW_YORK, UTC_DAY
from gekko.ledger.events import Adopted, Corrected, DayClosed, Deposited, Entry, IntentRecorded, Marked
from gekko.ledger.journal import Chain, Journal
from gekko.ledger.match import VenueDay, as_of, match
from gekko.ledger.printed import lines, to_csv, to_plain
from gekko.ledger.replay import replay
from gekko.ledger.settlement import BANKS, easter, ladder, open_day, settlements, spot_date
from gekko.ledger.statement import Statement, began, day_statement
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


@settings(max_examples=60, deadline=None)
@given(heard, st.sampled_from((UTC_DAY, NEW_YORK)), st.integers(0, 3))
def test_only_the_kinds_that_move_money_are_needed(happenings: list[tuple[int, object]], ends: object, n: int) -> None:
    entries = journal(happenings)
    day = f'2024-03-1{1 + n}'
    assert day_statement(entries, day, ends=ends) == day_statement([e for e in entries if e.kind in MONEY], day, ends=ends)      # type: ignore[arg-type]


def test_a_correction_and_a_position_brought_in_are_no_profit() -> None:
    entries = journal([])
    chain = Chain('x-1', seq=entries[-1].seq, hash=entries[-1].hash)
    more = [chain.link(r, START + HOUR) for r in (Adopted('EUR-USD', D(1000), D('1.09')), Corrected('cash', 'USD', D(1_000_000), D('999999.75'), 'ann', 'a fee of the bank'),
                                                  Corrected('position', 'EUR-USD', D(1000), D(900), 'ann', 'sold by hand'), Marked({'EUR-USD': D('1.09')}, D(0)))]
    s, book = day_statement(entries + more, '2024-03-11'), replay(entries + more)
    assert {f.what for f in book.faults} == {'equity'} and s.total is not None      # nobody reckoned what these marks are worth
    assert (s.total.pnl, s.total.deposits, s.total.corrections, s.total.gap) == (0, D('1090'), D('-109.25'), 0)
    assert s.closing == dict(book.account.cash) and s.held == {'EUR-USD': D(900)}


def test_the_record_of_a_closed_day_is_where_the_next_begins(tmp_path: object) -> None:
    url = f'sqlite:///{tmp_path}/ledger.db'
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
