"""Two books of one account: a desk that heard only part of what its venue said, and a venue that heard everything."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.feed import Opened
from gekko.domain.account import Account, deposit, settle
from gekko.domain.errors import Retry
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar
from gekko.domain.order import Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Side, Submitted
from gekko.domain.time import HOUR, SimClock
from gekko.execution.reconcile import Statement, compare, differences, evidence, statement
from gekko.execution.tracker import Tracker
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

D = Decimal
RICH = D('1e12')
INS = {s: Instrument(s, s, 'USD', tick=D('0.5'), lot=D('0.1')) for s in ('AAA', 'BBB')}


@dataclass
class Desk:
    "What the gate looks at: a desk so rich that nothing is refused."
    account: Account
    marks: Mapping[str, Decimal]
    mark_ts: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    equity: Decimal = RICH
    day_start_equity: Decimal = RICH
    peak_equity: Decimal = RICH
    halted: str = ''
    gross: Decimal = D(0)
    net_low: Decimal = D(0)
    net_high: Decimal = D(0)
    active: int = 0
    def reserved(self, symbol: str) -> Reserved: return Reserved()


class Deaf:
    "A desk whose line to the venue loses some of what is said."
    def __init__(self, venue: type[PaperVenue] = PaperVenue) -> None:
        self.clock, self.tracker = SimClock(), Tracker()
        self.venue = venue(INS, FillModel(fee_bps=D(5), participation=D('0.1')), self.clock, {'USD': D(100_000)})
        self.gate = Gate(Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None), INS, self.clock)
        self.account = deposit(Account('demo'), D(100_000))

    def send(self, name: str, intent: Intent) -> None:
        approved = self.gate.check(Order(name, intent), Desk(self.account, {intent.symbol: D(100)}))
        assert isinstance(approved, Approved), approved
        self.tracker.add(approved.order)
        self.tracker.on(Submitted(name))
        self.venue.submit(approved)

    def book(self, event: OrderEvent) -> None:
        self.tracker.on(event)
        if isinstance(event, Filled): self.account = settle(self.account, event.fill, INS[event.fill.symbol])

    def listen(self, lost: st.DataObject | None = None) -> None:
        for event in self.venue.drain():
            if lost is not None and lost.draw(st.booleans()): continue
            self.book(event)

    def catch_up(self) -> None:
        said = statement(self.venue, [o.client_id for o in self.tracker.open()])
        for event in evidence(self.tracker, said, self.clock.now()): self.book(event)


limits = st.none() | st.integers(180, 220).map(lambda n: n * D('0.5'))
orders = st.tuples(st.sampled_from(list(INS)), st.sampled_from(list(Side)), st.integers(1, 60).map(lambda n: n * D('0.1')), limits)
hours = st.lists(st.tuples(st.lists(orders, max_size=3), st.integers(180, 220), st.none() | st.integers(0, 5)), min_size=1, max_size=6)


@settings(max_examples=120)
@given(hours, st.data())
def test_whatever_was_lost_the_venues_evidence_brings_the_books_together(history: list[tuple[list[tuple[str, Side, Decimal, Decimal | None]], int, int | None]], data: st.DataObject) -> None:
    d, n = Deaf(), 0
    for hour, (wanted, mid, gone) in enumerate(history):
        for symbol, side, qty, limit in wanted:
            d.send(f'g-{n}', Intent(symbol, side, qty, OrderType.LIMIT if limit else OrderType.MARKET, limit=limit))
            n += 1
        if gone is not None and gone < n: d.venue.cancel(f'g-{gone}')
        d.listen(data)
        for o in d.tracker.open():
            if data.draw(st.booleans()): d.tracker.on(Lost(o.client_id))
        price, start = mid * D('0.5'), hour * HOUR
        for s in INS: d.venue.on(Opened(s, start, price))
        d.clock.set(start + HOUR)
        for s in INS: d.venue.on(Bar(s, start, start + HOUR, price, price + 3, price - 3, price, D(50)))
        d.listen(data)
    d.catch_up()
    assert compare(d.account, d.tracker, d.venue) == []
    for ours in d.tracker.all():
        theirs = d.venue.order(ours.client_id)
        assert theirs is not None and (theirs.state, theirs.filled, theirs.fees) == (ours.state, ours.filled, ours.fees)
    d.catch_up()                                      # and a second time finds nothing more
    assert evidence(d.tracker, statement(d.venue, [o.client_id for o in d.tracker.open()]), 0) == []


def filled_desk() -> Deaf:
    d = Deaf()
    d.send('g-0', Intent('AAA', Side.BUY, D(2)))
    d.venue.on(Bar('AAA', 0, HOUR, D(100), D(101), D(99), D(100), D(1000)))
    d.listen()
    return d


def test_books_that_agree_have_no_differences() -> None:
    d = filled_desk()
    assert compare(d.account, d.tracker, d.venue) == []


@pytest.mark.parametrize(('tamper', 'what', 'key'), [
    (lambda a: deposit(a, D('0.01')), 'cash', 'USD'),
    (lambda a: deposit(a, D('1'), 'EUR'), 'cash', 'EUR'),
    (lambda a: replace(a, positions={}), 'position', 'AAA'),
])
def test_a_cent_or_a_share_is_a_difference(tamper: object, what: str, key: str) -> None:
    d = filled_desk()
    found = compare(tamper(d.account), d.tracker, d.venue)  # type: ignore[operator]
    assert [(x.what, x.key) for x in found] == [(what, key)]


def test_a_missed_fill_is_seen_as_money_position_order_and_fill() -> None:
    d = Deaf()
    d.send('g-0', Intent('AAA', Side.BUY, D(2)))
    d.listen()
    d.venue.on(Bar('AAA', 0, HOUR, D(100), D(101), D(99), D(100), D(1000)))
    found = compare(d.account, d.tracker, d.venue)
    assert [(x.what, x.key) for x in found] == [('cash', 'USD'), ('position', 'AAA'), ('order', 'g-0'), ('fill', 'paper-1')]
    assert str(found[1]) == 'position AAA: ours 0, theirs 2'


def test_an_order_that_we_have_never_heard_of_is_named() -> None:
    d = Deaf()
    d.send('g-0', Intent('AAA', Side.BUY, D(2), OrderType.LIMIT, limit=D(90)))
    [found] = differences(d.account, Tracker(), statement(d.venue))
    assert (found.what, found.key, found.ours) == ('order', 'g-0', 'not known')


def test_silence_is_not_evidence() -> None:
    t = Tracker()
    t.add(Order('g-0', Intent('AAA', Side.BUY, D(2)), OrderState.SUBMITTED))
    t.on(Lost('g-0'))
    said = Statement(asked={'g-0': None})
    assert evidence(t, said, 1) == [] and t.reserved('AAA').buys == 2
    assert [x.what for x in differences(Account('demo'), t, said)] == ['order']


class Restless(PaperVenue):
    "Trades while it is asked about its cash, the first `times` times."
    times = 0
    def cash(self) -> dict[str, Decimal]:
        if self.times:
            self.times -= 1
            start = (10 + self.times) * HOUR
            self.on(Bar('AAA', start, start + HOUR, D(100), D(101), D(99), D(100), D(10)))
        return super().cash()


@pytest.mark.parametrize(('times', 'settles'), [(2, True), (3, False)])
def test_answers_that_do_not_belong_together_are_asked_for_again(times: int, settles: bool) -> None:
    d = Deaf(Restless)
    d.send('g-0', Intent('AAA', Side.BUY, D(50)))
    assert isinstance(d.venue, Restless)
    d.venue.times = times
    if settles: assert statement(d.venue).positions == {'AAA': D(2)} and len(statement(d.venue).fills) == 2
    else:
        with pytest.raises(Retry, match='went on trading'): statement(d.venue)
