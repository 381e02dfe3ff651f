"""The comparison while trading: what it takes for proof, when it asks, and what late answers and odd clocks do to it."""
from decimal import Decimal as D

import pytest
from desk_stage import passing

from gekko.desk.account import judge
from gekko.desk.spec import RunSpec
from gekko.desk.trader import Trader, hear, open_run, send
from gekko.desk.watch import Watch, settled
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Amended, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Side
from gekko.domain.time import SECOND
from gekko.execution.reconcile import Statement
from gekko.ledger.journal import Journal
from gekko.risk.gate import Approved
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

BTC = Instrument('BTC-USD', 'BTC', 'USD', lot=D('0.001'), tick=D('0.01'), kind='crypto')
START = 1_000_000 * SECOND


class TwoClocks:
    """A wall clock that can be set, and one that only runs."""
    wall, mono = START, 5 * SECOND
    def now(self) -> int: return self.wall
    def monotonic(self) -> int: return self.mono
    def run(self, s: float) -> None:
        self.wall += round(s * SECOND)
        self.mono += round(s * SECOND)


class Deaf(PaperVenue):
    """A venue that hears no submit, counts the questions, and fails when told to."""
    asked, fault = 0, ''
    def submit(self, approved: Approved) -> None: pass
    def drain(self) -> list[OrderEvent]: return []
    def order(self, client_id: str) -> Order | None: return None
    def fills_since(self, cursor: str) -> list[Fill]:
        self.asked += 1
        if self.fault: raise KeyError(self.fault)
        return super().fills_since(cursor)


@pytest.fixture
def clock() -> TwoClocks: return TwoClocks()


@pytest.fixture
def t(clock: TwoClocks) -> Trader:
    venue = Deaf({'BTC-USD': BTC}, FillModel(), clock, {'USD': D(100_000)})
    trader = Trader(RunSpec(('BTC-USD',), bar='1d', cash=D(100_000), venue='binanceus'), run_id='r', strategy='s', lineage='l', mode='paper', account='a',
                    instruments={'BTC-USD': BTC}, venue=venue, journal=Journal.open(passing(), 'a', durable=False), clock=clock)
    open_run(trader)
    trader.view.mark('BTC-USD', D(100), 10)
    return trader


def sent(t: Trader) -> str:
    (order,) = send(t, [Intent('BTC-USD', Side.BUY, D(1), OrderType.LIMIT, D(90))])
    return order.client_id


def looked(w: Watch) -> None:
    w.look()
    assert w._asked is not None
    w._asked.exception(5)
    w.look()


def test_an_answer_proves_nothing_about_the_time_after_the_question(t: Trader, clock: TwoClocks) -> None:
    name = sent(t)
    hear(t, [Lost(name, 'submit', clock.now())])
    asked_at = clock.now()
    clock.run(60)      # a venue in trouble takes its time; meanwhile the order may have arrived
    said = Statement({'USD': D(100_000)}, {}, (), (), {name: None})
    assert judge(t, said, 20.0, at=asked_at) == [] and t.tracker.get(name).state is OrderState.UNKNOWN
    judge(t, said, 20.0, at=clock.now())
    assert t.tracker.get(name).state is OrderState.REJECTED


def test_a_statement_does_not_undo_a_change_that_was_heard_after_it_was_asked_for(t: Trader, clock: TwoClocks) -> None:
    name = sent(t)
    hear(t, [Accepted(name, 'v1', clock.now())])
    before, asked_at = t.tracker.get(name), clock.now()
    said = Statement({'USD': D(100_000)}, {}, (before,), (), {})
    clock.run(1)
    hear(t, [Amended(name, D(3), None, None, clock.now())])
    clock.run(5)
    judge(t, settled(t, said, {name: (before.intent, None)}, 20.0), 20.0, at=asked_at)
    assert t.tracker.get(name).intent.qty == 3
    judge(t, settled(t, said, {name: (t.tracker.get(name).intent, None)}, 20.0), 20.0, at=clock.now())
    assert t.tracker.get(name).intent.qty == 1, 'and asked later it is proof'


def test_a_clock_set_forward_ends_no_order(t: Trader, clock: TwoClocks) -> None:
    name = sent(t)
    hear(t, [Lost(name, 'submit', clock.now())])
    w = Watch(t, '', 20.0, 1.0)
    clock.wall += 3_600 * SECOND
    clock.run(2)
    looked(w)
    assert t.tracker.get(name).state is OrderState.UNKNOWN, 'two seconds after it was sent it may still arrive'
    clock.run(21)
    looked(w)
    assert t.tracker.get(name).state is OrderState.REJECTED
    w.close()


def test_a_fault_in_an_answer_is_told_and_the_venue_is_not_asked_at_once_again(t: Trader, clock: TwoClocks) -> None:
    assert isinstance(t.venue, Deaf)
    w, t.venue.fault = Watch(t, '', 20.0, 30.0), 'a word that nobody knows'
    clock.run(31)
    w.look()
    assert w._asked is not None and w._asked.exception(5)
    with pytest.raises(KeyError): w.look()
    for _ in range(100): w.look()
    assert t.venue.asked == 1
    clock.run(3)
    w.look()
    assert w._asked is not None
    w.close()


def test_strangers_that_come_in_a_stream_are_asked_about_once_a_second(t: Trader, clock: TwoClocks) -> None:
    assert isinstance(t.venue, Deaf)
    w = Watch(t, '', 20.0, 30.0)
    for n in range(40):
        hear(t, [Accepted(f'x{n}', 'v', clock.now())])
        w.look()
        if w._asked is not None: w._asked.exception(5)
        clock.run(0.05)
    assert w.looks in (2, 3)
    w.close()


def test_a_fill_that_the_venue_s_slower_clock_dates_before_its_order_is_not_behind_the_cursor(t: Trader, clock: TwoClocks) -> None:
    w = Watch(t, '', 20.0, 30.0)
    name = sent(t)
    for n, ago in ((1, 2.5), (2, 0.5)):      # of another order, by a clock that is 0.6 s behind ours
        other = Order(f'o{n}', Intent('BTC-USD', Side.BUY, D(1), OrderType.LIMIT, D(90), ts=START - 9 * SECOND))
        t.tracker.add(other)
        hear(t, [Filled(f'o{n}', Fill(f'BTC-USD:{n}', f'o{n}', 'BTC-USD', Side.BUY, D(1), D(90), ts=START - round(ago * SECOND)))])
    clock.run(100)
    assert w._cursor() == '', 'nobody has answered since'
    w._taken = clock.now()
    assert t.tracker.get(name).intent.ts == START and w._cursor() == 'BTC-USD:1', 'its own fill may be dated between the two'
    w.close()
