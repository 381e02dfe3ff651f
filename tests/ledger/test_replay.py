"Replay is nothing but the domain's own arithmetic, in the order of the journal."
from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.account import Account, deposit, equity, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.parent import Parent
from gekko.domain.order import Amended, Accepted, Cancelled, Fill, Filled, Intent, Lost, Order, OrderState, Side, Submitted, apply
from gekko.ledger.events import (BreachRecorded, Corrected, DayClosed, Deposited, External, Halted, IntentRecorded, LeaseTaken, Marked, Note, ParentClosed, ParentOpened, PolicyTaken, Resumed, RunClosed,
                                 RunOpened, Stages)
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.replay import Book, replay

AAA, FUT, EUX = Instrument('AAA', 'AAA', 'USD'), Instrument('FUT', 'FUT', 'USD', multiplier=Decimal(50), kind='index'), Instrument('EUX', 'EUX', 'EUR')
INSTRUMENTS = {i.symbol: i for i in (AAA, FUT, EUX)}
price = st.integers(1, 100_000).map(lambda n: Decimal(n) / 100)
step = st.tuples(st.sampled_from(sorted(INSTRUMENTS)), st.sampled_from(Side), st.integers(1, 500).map(Decimal), price, st.integers(0, 300).map(lambda n: Decimal(n) / 100),
                 st.sampled_from(['fill', 'twice', 'lost', 'cancel']), price)


def perform(j: Journal, steps: list[tuple[str, Side, Decimal, Decimal, Decimal, str, Decimal]]) -> tuple[Account, dict[str, Order], list[tuple[int, Decimal]]]:
    "Trade as a desk would, writing the journal and keeping the account by the domain's functions alone."
    account, orders, marks, curve = deposit(Account('paper'), Decimal(10**6)), {}, {}, []
    rates = {'EUR': Decimal('1.10')}
    for i in INSTRUMENTS.values(): j.append(i, 0)
    j.append(Deposited(Decimal(10**6)), 0)
    j.commit()
    for n, (symbol, side, qty, at, fee, what, mark) in enumerate(steps):
        cid = f'g{n}'
        intent = Intent(symbol, side, qty)
        orders[cid] = Order(cid, intent)
        fill = Fill(f'v-{n}', cid, symbol, side, qty, at, fee)
        j.append(IntentRecorded(cid, intent), n)
        events = {'fill': [Submitted(cid), Accepted(cid, 'v'), Filled(cid, fill)], 'twice': [Submitted(cid), Filled(cid, fill), Accepted(cid, 'v'), Filled(cid, fill)],
                  'lost': [Submitted(cid), Lost(cid)], 'cancel': [Submitted(cid), Accepted(cid, 'v'), Cancelled(cid, 'asked')]}[what]
        for e in events:
            j.append(e, n)
            orders[cid] = apply(orders[cid], e)
        if what in ('fill', 'twice'): account = settle(account, fill, INSTRUMENTS[symbol])
        marks |= {symbol: mark}
        worth = equity(account, marks, INSTRUMENTS, rates)
        j.append(Marked({symbol: mark}, worth, rates), n)
        curve.append((n, worth))
        j.commit()
    return account, orders, curve


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(step, max_size=25), st.data())
def test_replay_equals_settling_as_it_happened(steps: list[tuple[str, Side, Decimal, Decimal, Decimal, str, Decimal]], data: st.DataObject) -> None:
    with Journal.open(':memory:', 'paper', durable=False) as j:
        account, orders, curve = perform(j, steps)
        entries = list(j.entries())
    book = replay(entries)
    assert (book.account, book.orders, book.equity_curve, book.faults) == (account, orders, curve, [])
    assert (book.account.realised, book.account.fees) == (account.realised, account.fees)
    assert [o.state for o in book.unknown] == [OrderState.UNKNOWN] * sum(s[5] == 'lost' for s in steps)
    cut = data.draw(st.integers(0, len(entries)))
    halves = replay(entries[cut:], replay(entries[:cut], Book(Account('paper'))))
    direct = Book(Account('paper'))
    for e in entries: direct.apply(e, e.record)
    for other in (halves, direct): assert (other.account, other.orders, other.fills, other.equity_curve, other.head) == (book.account, book.orders, book.fills, book.equity_curve, book.head)
    assert '<table' in book._repr_html_() and 'equity' in repr(book)


def test_the_book_of_a_ledger_is_followed_with_since(url: str) -> None:
    j = Journal.open(url, 'paper')
    j.append(AAA, 0); j.append(Deposited(Decimal(100)), 0); j.commit()
    book = replay(read_entries(url, 'paper'))
    j.append(Halted('drawdown'), 1); j.append(LeaseTaken('desk', 1), 1); j.commit(); j.close()
    replay(read_entries(url, 'paper', since=book.last_seq), book)
    assert (book.halted, book.holder, book.equity, book.last_seq) == ('drawdown', 'desk', Decimal(100), 4)


def told(*records: object) -> Book:
    with Journal.open(':memory:', 'paper', durable=False) as j:
        for n, r in enumerate(records): j.append(r, n)
        j.commit()
        return replay(j.entries())


buy = IntentRecorded('g1', Intent('AAA', Side.BUY, Decimal(10)))


def fill(n: int, qty: int = 10, cid: str = 'g1', symbol: str = 'AAA') -> Filled:
    return Filled(cid, Fill(f'v-{n}', cid, symbol, Side.BUY, Decimal(qty), Decimal('9.50')))


@pytest.mark.parametrize(('what', 'records', 'seq'), [
    ('equity', (AAA, Deposited(Decimal(100)), Marked({}, Decimal('100.01'))), 3),
    ('equity: no price for a position held', (AAA, buy, fill(1), Marked({}, Decimal(0))), 4),
    ('equity: no rate for a currency held', (Deposited(Decimal(1)), Deposited(Decimal(1), 'EUR'), Marked({}, Decimal(2))), 3),
    ('conflict on g1', (AAA, buy, fill(1), fill(2)), 4),
    ('fill of an order never recorded', (AAA, fill(1)), 2),
    ('fill of an instrument never recorded', (buy, fill(1)), 2),
    ('client id used twice', (buy, buy), 2),
    ('end of a run never opened', (RunClosed('r'),), 1),
    ('policy of a run never opened', (PolicyTaken('r', 'flatten'),), 1)])
def test_a_contradiction_is_a_fault_with_its_place(what: str, records: tuple[object, ...], seq: int) -> None:
    book = told(*records)
    assert [(f.what, f.seq) for f in book.faults] == [(what, seq)]
    assert what.split(':')[0] in book._repr_html_()


def test_a_fill_counts_once_and_when_its_order_takes_it() -> None:
    """As the desk counts while it trades: a fill that is refused, or of an order not recorded yet, would be booked twice when reconciliation tells it again."""
    book = told(AAA, buy, fill(1), fill(2), fill(2), fill(1))
    assert book.account.qty('AAA') == 10 and len(book.fills) == 1 and book.orders['g1'].filled == 10
    larger = told(AAA, buy, fill(1), fill(2), Amended('g1', Decimal(20), ts=1), fill(2))
    assert larger.account.qty('AAA') == 20 and not larger.orders['g1'].conflict
    assert told(AAA, fill(1)).account.qty('AAA') == 0 and told(AAA, fill(1), buy, fill(1)).account.qty('AAA') == 10


def test_the_first_deposit_names_the_currency() -> None:
    book = told(Deposited(Decimal(100), 'EUR'), Deposited(Decimal(50), 'USD'), Marked({}, Decimal('145'), {'USD': Decimal('0.9')}))
    assert (book.account.currency, book.equity, book.faults) == ('EUR', Decimal(145), [])


def test_runs_halts_and_breaches() -> None:
    book = told(RunOpened('r', strategy='trend'), Halted('by hand'), BreachRecorded('max_gross', '3', '3.1'), PolicyTaken('r', 'hold', 'kernel gone'), RunClosed('r', 'killed'), Resumed('ann'))
    run = book.runs['r']
    assert (run.opened.strategy, run.policy and run.policy.policy, run.closed and run.closed.reason, run.since, run.until) == ('trend', 'hold', 'killed', 0, 4)
    assert book.halted == '' and [b.found for b in book.breaches] == ['3.1']


def test_a_refused_intent_is_over() -> None:
    intent = Intent('ACME', Side.BUY, Decimal(10))
    book = told(IntentRecorded('g1', intent), BreachRecorded('halted', 'no new risk', 'kill switch', 'ACME', 'g1', 1, 'the desk is halted', intent), IntentRecorded('g2', intent), Submitted('g2'))
    assert book.orders['g1'].state is OrderState.REJECTED and 'halted' in book.orders['g1'].reason
    assert [o.client_id for o in book.open_orders] == ['g2'] and not book.faults


def test_entries_that_do_not_follow_are_refused() -> None:
    with Journal.open(':memory:', 'paper', durable=False) as j:
        for n in range(4): j.append(Halted(str(n)), n)
        j.commit()
        a, b, c, d = j.entries()
    for wrong in ([b], [a, c], [a, a], [b, a]):
        with pytest.raises(BadInput, match='does not follow'): replay(wrong)
    with pytest.raises(BadInput, match='does not follow'): replay([a], Book(Account('other')))
    with Journal.open(':memory:', 'paper', durable=False) as j: other = [j.append(Halted(str(n)), n + 1) for n in range(4)]
    with pytest.raises(BadInput, match='does not follow'): replay([a, other[1]])
    assert replay([a, b, c, d]).last_seq == 4 and replay([]).last_seq == 0


parent = Parent('p1', 'twap', 'AAA', Side.BUY, Decimal(10), 0, 10)


def test_parents_days_externals_and_sequences() -> None:
    child = IntentRecorded('g1', Intent('AAA', Side.BUY, Decimal(5), run='r', parent='p1'))
    book = told(AAA, ParentOpened(parent), child, IntentRecorded('g2', Intent('AAA', Side.BUY, Decimal(5), run='s')), IntentRecorded('g3', Intent('AAA', Side.BUY, Decimal(5), run='r')),
                External('', 'v-7', 'AAA', 'quarantine'), External('web-1', 'v-8', 'AAA', 'claim'), fill(1, 2, 'web-1'), Accepted('web-1', 'v-8'), DayClosed('2020-01-02', {'cash': '1'}), Stages('g1', 1), Note('x'))
    assert (book.parents, book.seqs, list(book.externals), book.days) == ({'p1': parent}, {'r': 2, 's': 1}, ['v-7', 'web-1'], {'2020-01-02': {'cash': '1'}})
    assert book.account.qty('AAA') == 2 and not book.faults and book.counts['intent'] == 3
    assert told(AAA, ParentOpened(parent), ParentClosed('p1', 'done')).parents == {}


def test_orders_that_are_over_are_counted_off_in_the_order_of_their_last_word() -> None:
    book = told(AAA, *(IntentRecorded(f'g{i}', Intent('AAA', Side.BUY, Decimal(10))) for i in range(4)), Cancelled('g1', ''), fill(1, 10, 'g0'), Submitted('g2'), fill(2, 3, 'g1'))
    assert list(book.ended.items()) == [('g0', 6), ('g1', 8)] and book.latest == 8
    assert [o.client_id for o in book.open_orders] == ['g2', 'g3']


@pytest.mark.parametrize(('before', 'theirs', 'qty', 'cost', 'cash'), [
    ((buy, fill(1)), '4', '4', '38.0', '905.00'), ((buy, fill(1)), '15', '15', '142.50', '905.00'), ((buy, fill(1)), '0', '0', '0', '905.00'), ((buy, fill(1)), '-2', '-2', '-19.00', '905.00'),
    ((Marked({'AAA': Decimal('7')}, Decimal(1000)),), '3', '3', '21', '1000')])
def test_a_corrected_position_is_the_venue_s_at_the_mark_or_the_last_price(before: tuple[object, ...], theirs: str, qty: str, cost: str, cash: str) -> None:
    held = '10' if len(before) == 2 else '0'
    book = told(AAA, Deposited(Decimal(1000)), *before, Corrected('position', 'AAA', Decimal(held), Decimal(theirs), 'ann', 'statement'))
    p = book.account.positions['AAA']
    assert (p.qty, p.cost, book.account.cash['USD'], book.faults) == (Decimal(qty), Decimal(cost), Decimal(cash), [])
    assert book.marks['AAA'] == Decimal('9.50' if len(before) == 2 else '7') and book.equity == Decimal(cash) + Decimal(qty) * book.marks['AAA']


def test_corrected_cash_is_the_venue_s_to_the_last_digit() -> None:
    book = told(Deposited(Decimal(1000)), Corrected('cash', 'USD', Decimal(1000), Decimal('999.999999999999'), 'ann', 'statement'), Corrected('cash', 'EUR', Decimal(0), Decimal(5), 'ann', 'statement'))
    assert (dict(book.account.cash), book.faults) == ({'USD': Decimal('999.999999999999'), 'EUR': Decimal(5)}, [])


@pytest.mark.parametrize(('what', 'records'), [
    ('cash USD before its correction', (Deposited(Decimal(1000)), Corrected('cash', 'USD', Decimal(900), Decimal(1), 'ann', ''))),
    ('a correction of nothing known', (Corrected('position', 'ZZZ', Decimal(0), Decimal(1), 'ann', ''),)), ('a correction of nothing known', (AAA, Corrected('mood', 'AAA', Decimal(0), Decimal(1), 'ann', ''))),
    ('AAA corrected without a price', (AAA, Corrected('position', 'AAA', Decimal(0), Decimal(1), 'ann', ''))), ('end of a parent never opened', (ParentClosed('p1', 'done'),))])
def test_a_correction_that_contradicts_the_books_is_a_fault(what: str, records: tuple[object, ...]) -> None:
    assert [f.what for f in told(*records).faults] == [what]
