"""A run whose desk died is taken up by the next: halts that have passed are lifted, a policy that had begun is finished as it was begun, and a strategy hears all of it once."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from desk_stage import ledger_of

from gekko.data.feed import Step
from gekko.desk.account import open_account
from gekko.desk.events import Outbox, empty
from gekko.desk.react import NEVER, BookLine, Memory, caught_up
from gekko.desk.spec import RunSpec
from gekko.desk.trader import LEASE, LEDGER, Trader, beyond, carry_out, close_row, decide, halt, hear, on_step, open_run
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar, Quote
from gekko.domain.order import Fill, Intent, Order, OrderState, Side
from gekko.domain.time import MINUTE, SECOND, SimClock
from gekko.ledger.journal import Journal
from gekko.ledger.replay import replay
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

D = Decimal
COIN = Instrument('BTC-USD', 'BTC', 'USD', kind='crypto', lot=D('0.001'), tick=D('0.01'))
Desk = Callable[[], Trader]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Each call is another desk on the same account, after the one before it had died: its run under way, its price known."""
    clock = SimClock(SECOND)
    venue = PaperVenue({'BTC-USD': COIN}, FillModel(fill='quote'), clock, {'USD': D(10_000)})
    url = ledger_of(tmp_path)
    before: list[Journal] = []

    def one() -> Trader:
        for j in before: j.close()
        before[:] = [journal := Journal.open(url, 'paper-7')]
        t = Trader(RunSpec(('BTC-USD',), bar='1m', venue='paper'), run_id='r', strategy='example', lineage='abcd', mode='live', account='paper-7', instruments={'BTC-USD': COIN}, venue=venue, journal=journal, clock=clock)
        t.view.mark('BTC-USD', D(50_000), clock.now())
        book = replay(journal.entries()) if journal.head[0] else None
        t.again = book is not None
        open_account(t, '7', book)
        if book is None: open_run(t)
        return t
    return one


def trade(t: Trader, qty: str) -> None:
    """Have so much of the coin, filled and on disk."""
    decide(t, units={'BTC-USD': D(qty)})
    settle(t)
    assert t.view.account.qty('BTC-USD') == D(qty)


def settle(t: Trader) -> None:
    assert isinstance(t.venue, PaperVenue) and isinstance(t.clock, SimClock)
    t.clock.set(t.clock.now() + SECOND)
    t.venue.on(Quote('BTC-USD', t.clock.now(), D(49_999), D(50_000), D(10), D(10)))
    hear(t)
    t.journal.commit()


@pytest.mark.parametrize('who', [LEDGER, LEASE, 'watch'])
def test_a_halt_that_has_passed_ends_with_the_desk(desk: Desk, who: str) -> None:
    first = desk()
    halt(first, 'for a moment', who)
    first.journal.commit()
    assert desk().view.halted == ''
    assert desk().view.halted == ''      # and is not found again


@pytest.mark.parametrize('who', ['desk', 'somebody'])
def test_any_other_halt_outlives_the_desk(desk: Desk, who: str) -> None:
    first = desk()
    halt(first, 'until I say so', who)
    first.journal.commit()
    assert desk().view.halted == 'until I say so'


def test_half_is_half_of_what_was_held_and_not_of_what_is_left(desk: Desk) -> None:
    first = desk()
    trade(first, '0.1')
    assert carry_out(first, 'reduce', 'the notebook fell silent') == {'BTC-USD': D('0.050')}
    settle(first)
    for _ in range(2):
        later = desk()
        assert later.view.account.qty('BTC-USD') == D('0.05')
        assert carry_out(later, 'reduce', 'the notebook fell silent') == {'BTC-USD': D('0.05')}
        settle(later)
        assert later.view.account.qty('BTC-USD') == D('0.05') and not later.tracker.open()


def test_a_bar_that_closed_before_the_desk_came_up_is_no_fault(desk: Desk) -> None:
    t = desk()
    close_row(t, MINUTE + SECOND // 10, {'BTC-USD': D(50_000)})      # what a desk says of its account when it has come up
    on_step(t, Step(MINUTE, (Bar('BTC-USD', 0, MINUTE, D(50_000), D(50_010), D(49_990), D(50_001), D(1)),), 0))
    assert list(t.times) == [MINUTE + SECOND // 10] * 2 and t.view.meter.ts == t.times[-1] and not t.view.halted


def test_what_was_sold_beyond_a_policy_is_not_bought_again(desk: Desk) -> None:
    t = desk()
    trade(t, '0.05')
    assert beyond(t, {'BTC-USD': D('0.08')}) == {} == beyond(t, {'BTC-USD': D('0.05')})
    for wanted in (D('0.02'), D(0), D('-0.01')): assert beyond(t, {'BTC-USD': wanted}) == {'BTC-USD': wanted}


def test_a_strategy_hears_what_happened_while_there_was_no_desk_and_nothing_twice(desk: Desk) -> None:
    first, heard, book = desk(), Memory(), BookLine()
    trade(first, '0.05')
    told = empty(Outbox(first))      # the answer arrived
    assert told == []                # this outbox was made after the trade: nothing of it was told
    second = desk()
    news = caught_up(heard, book, empty(Outbox(second)))
    assert [type(x) for x in news] == [Fill, Order] and news[1].state is OrderState.FILLED
    heard.keep(news)
    assert caught_up(heard, book, empty(Outbox(desk()))) == []


def test_an_order_that_died_with_its_desk_is_said_to_be_over() -> None:
    mine = Order('ga', Intent('BTC-USD', Side.BUY, D(1), ts=5), OrderState.SUBMITTED)
    book = BookLine()
    book.orders = {'ga': mine}
    (over,) = caught_up(Memory(), book, [])
    assert isinstance(over, Order) and (over.state, over.reason, book.orders) == (OrderState.REJECTED, NEVER, {})
    # its name went to the next order that the desk which follows was asked for
    book.orders = {'ga': mine}
    another = replace(mine, intent=replace(mine.intent, qty=D(2), ts=9))
    assert [x.state for x in caught_up(Memory(), book, [another]) if isinstance(x, Order)] == [OrderState.REJECTED, OrderState.SUBMITTED]
    # while one that is told of as it was known is no news
    book.orders = {'ga': mine}
    assert caught_up(Memory(), book, [mine]) == [] and book.orders == {'ga': mine}
