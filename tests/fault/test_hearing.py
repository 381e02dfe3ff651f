"""What a venue says is taken in whole, whatever one word of it does to us."""
from decimal import Decimal as D

import pytest
from desk_stage import passing

from gekko.desk.spec import RunSpec
from gekko.desk.trader import LEDGER, WATCH, Trader, halt, hear, open_run, resume, send
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Filled, Intent, OrderState, OrderType, Side
from gekko.domain.time import SimClock
from gekko.ledger.journal import Journal
from gekko.ledger.replay import replay
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

BTC = Instrument('BTC-USD', 'BTC', 'USD', lot=D('0.001'), tick=D('0.01'), kind='crypto')


@pytest.fixture
def t() -> Trader:
    """Two orders at rest, of 1 and 2 BTC."""
    clock, instruments = SimClock(10), {'BTC-USD': BTC}
    venue = PaperVenue(instruments, FillModel(), clock, {'USD': D(100_000)})
    trader = Trader(RunSpec(('BTC-USD',), bar='1d', cash=D(100_000)), run_id='r', strategy='s', lineage='l', mode='paper', account='a', instruments=instruments,
                    venue=venue, journal=Journal.open(passing(), 'a', durable=False), clock=clock)
    open_run(trader)
    trader.view.mark('BTC-USD', D(100), 10)
    send(trader, [Intent('BTC-USD', Side.BUY, D(n), OrderType.LIMIT, D(90)) for n in (1, 2)])
    return trader


def fill(t: Trader, n: int, **more: object) -> Filled:
    o = t.tracker.all()[n]
    return Filled(o.client_id, Fill(f'f{n}', o.client_id, 'BTC-USD', Side.BUY, o.intent.qty, D(90), ts=11, **more), 11)  # type: ignore[arg-type]


def test_a_fee_in_a_currency_without_a_rate_halts_and_is_booked(t: Trader) -> None:
    hear(t, [fill(t, 0, fee=D('0.01'), fee_currency='BNB'), fill(t, 1)])
    assert [o.state for o in t.tracker.all()] == [OrderState.FILLED] * 2 and len(t.fills) == 2
    assert t.view.account.qty('BTC-USD') == 3 and t.view.account.cash == {'USD': D(100_000 - 270), 'BNB': D('-0.01')}
    assert not any(t.view.reserved('BTC-USD')) and 'BNB' in t.view.halted
    t.journal.commit()
    book = replay(t.journal.entries())
    assert book.account.cash == t.view.account.cash and book.account.qty('BTC-USD') == 3 and book.halted


def test_one_event_that_cannot_be_taken_in_takes_no_other_with_it(t: Trader) -> None:
    def clumsy(event: object) -> None:
        if isinstance(event, Filled) and event.fill.fill_id == 'f0': raise ValueError('spilled')
    t.tap = clumsy
    with pytest.raises(ValueError, match='spilled'): hear(t, [fill(t, 0), fill(t, 1)])
    assert t.view.account.qty('BTC-USD') == 3 and [o.state for o in t.tracker.all()] == [OrderState.FILLED] * 2


def test_a_halt_by_a_person_outlives_the_halts_that_pass_by_themselves(t: Trader) -> None:
    halt(t, 'the ledger is full', LEDGER)
    halt(t, 'too much news', 'risk officer')
    halt(t, 'comparing the books', WATCH)
    resume(t, LEDGER)
    resume(t, WATCH)
    assert t.view.halted == 'too much news' and send(t, [Intent('BTC-USD', Side.BUY, D(1), OrderType.LIMIT, D(90))]) == []
    t.journal.commit()
    assert replay(t.journal.entries()).halted == 'too much news'
    resume(t, 'risk officer')
    assert t.view.halted == '' and send(t, [Intent('BTC-USD', Side.BUY, D(1), OrderType.LIMIT, D(90))])


def test_a_doubt_about_the_books_outlives_a_ledger_that_is_mended(t: Trader) -> None:
    halt(t, 'the ledger is full', LEDGER)
    halt(t, 'comparing the books', WATCH)
    hear(t)      # the ledger can be written: the way out says so at every turn
    assert (t.view.halted, t.who) == ('comparing the books', WATCH)
    resume(t, WATCH)
    t.journal.commit()
    assert t.view.halted == '' == replay(t.journal.entries()).halted
