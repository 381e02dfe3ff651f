"""Parents under way in the desk: their children are counted once and for all, and anew when one that was over comes back."""
from decimal import Decimal as D

import pytest
from desk_stage import passing

from gekko.desk.spec import RunSpec
from gekko.desk.trader import Trader, hear, open_run
from gekko.desk.working import Works, standing
from gekko.domain.instrument import Instrument
from gekko.domain.market import Quote
from gekko.domain.order import Accepted, Amended, Cancelled, Fill, Filled, Order, OrderState, Side
from gekko.domain.parent import Parent
from gekko.domain.time import SECOND, SimClock
from gekko.ledger.journal import Journal
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

BTC = Instrument('BTC-USD', 'BTC', 'USD', lot=D('0.001'), tick=D('0.01'), kind='crypto')
LAST = 1_000 * SECOND


class Desk:
    """A trader with one parent of 100 BTC in slices over a thousand seconds, whose market is quoted at 99 and 101."""

    def __init__(self) -> None:
        self.clock = SimClock(SECOND)
        venue = PaperVenue({'BTC-USD': BTC}, FillModel(), self.clock, {'USD': D(10**9)})
        self.t = Trader(RunSpec(('BTC-USD',), bar='1d', cash=D(10**9)), run_id='r', strategy='s', lineage='l', mode='paper', account='a', instruments={'BTC-USD': BTC},
                        venue=venue, journal=Journal.open(passing(), 'a', durable=False), clock=self.clock)
        open_run(self.t)
        self.t.view.mark('BTC-USD', D(100), SECOND)
        self.works = Works(self.t)
        self.works.begin(Parent('p', 'twap', 'BTC-USD', Side.BUY, D(100), SECOND, LAST, None, D(100)))

    def turn(self, s: float = 10) -> int:
        self.clock.advance(round(s * SECOND))
        self.works.see([Quote('BTC-USD', self.clock.now(), D(99), D(101), D(50), D(50))])
        return self.works.step()

    def child(self) -> Order:
        assert any(self.turn(2) for _ in range(100)), 'the next slice'
        return self.t.tracker.all()[-1]

    def filled(self, o: Order, name: str, qty: D) -> None: hear(self.t, [Filled(o.client_id, Fill(name, o.client_id, 'BTC-USD', Side.BUY, qty, D(100), ts=self.clock.now()))])


@pytest.fixture
def desk() -> Desk: return Desk()


def test_a_late_fill_of_a_child_that_was_over_counts(desk: Desk) -> None:
    o = desk.child()
    hear(desk.t, [Accepted(o.client_id, 'v1'), Cancelled(o.client_id, 'no room')])
    desk.turn()
    w = desk.works.under_way['p']
    assert o.client_id in w.over and not w.done.filled
    desk.filled(o, 'late', o.intent.qty)
    desk.turn()
    assert w.done.filled == o.intent.qty == standing(desk.t, w)[0]


def test_an_end_that_was_undone_without_a_fill_counts_as_open_again(desk: Desk) -> None:
    o = desk.child()
    desk.filled(o, 'f', o.intent.qty)
    desk.turn()
    hear(desk.t, [Amended(o.client_id, o.intent.qty + 5, None, None, desk.clock.now())])      # somebody changed it at the venue
    desk.turn()
    w = desk.works.under_way['p']
    assert desk.t.tracker.get(o.client_id).state is OrderState.PARTLY_FILLED and o.client_id in w.live and o.client_id not in w.over


def test_a_child_is_its_parent_s_though_sending_it_ended_in_a_fault(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    drain = desk.t.venue.drain

    def clumsy() -> object:
        monkeypatch.setattr(desk.t.venue, 'drain', drain)
        raise ValueError('spilled')
    monkeypatch.setattr(desk.t.venue, 'drain', clumsy)
    with pytest.raises(ValueError, match='spilled'): desk.child()
    (o,) = desk.t.tracker.all()
    assert desk.works.under_way['p'].names == [o.client_id] and standing(desk.t, desk.works.under_way['p'])[1] == o.intent.qty


def test_what_a_turn_costs_does_not_grow_with_the_children(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def looks() -> int:
        asked, get = 0, desk.t.tracker.get
        def counted(name: str) -> Order:
            nonlocal asked
            asked += 1
            return get(name)
        with monkeypatch.context() as m:
            m.setattr(desk.t.tracker, 'get', counted)
            desk.turn(0.001)
        return asked
    costs = []
    for n in range(12):
        o = desk.child()
        desk.filled(o, f'f{n}', o.intent.qty)
        desk.turn(0.001)
        costs.append(looks())
    assert len(desk.t.tracker.all()) == 12 and max(costs[6:]) <= max(costs[:6])
