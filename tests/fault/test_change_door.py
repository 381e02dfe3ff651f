"""Changes that a kernel asks for, as foreign input: refused by name, the order at work as it was, the journal without a request."""
from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from desk_stage import passing

from gekko.desk.events import respond, take
from gekko.desk.protocol import Amend, Next, pack, unpack_request
from gekko.desk.react import Cancel, Conversation
from gekko.desk.run import Run, lay_out
from gekko.desk.spec import RunSpec
from gekko.desk.trader import halt
from gekko.domain.errors import BadInput
from gekko.domain.order import Intent, OrderType, Side
from gekko.ledger.journal import Journal
from gekko.ledger.replay import replay

D = Decimal


@pytest.fixture
def run() -> Run:
    market = lay_out(RunSpec(('KO',), start='2021-03-01', end='2021-04-12', cash=D(100_000), window=1), None)
    made = Run(market, run_id='r1', strategy='example', lineage='abcd', mode='paper', account='example', journal=Journal.open(passing(), 'example', durable=False))
    made.advance()
    q = Next('r1', 0, (Intent('KO', Side.BUY, D(100), OrderType.LIMIT, limit=D(40)),), epoch=1, hears=('bar',))
    while respond(made, q) is None: pass
    return made


def name(run: Run) -> str: return run.trader.tracker.open()[0].client_id
def asked(run: Run, *amends: Amend) -> list[tuple[int, str]]: return take(run, Next('r1', 1, amends=amends, epoch=1))
def entries(run: Run) -> list[Any]:
    run.trader.journal.commit()
    return list(run.trader.journal.entries())



def kinds(run: Run) -> list[str]: return [e.kind for e in entries(run)]


def test_a_change_is_asked_for_recorded_and_made(run: Run) -> None:
    assert asked(run, Amend(name(run), qty=D(50), limit=D(41))) == []
    [o] = run.trader.tracker.open()
    assert (o.intent.qty, o.intent.limit, o.amending) == (50, 41, None)
    assert kinds(run).index('amend_requested') < kinds(run).index('amended')
    again = replay(entries(run))
    assert not again.faults and again.orders[o.client_id].intent == o.intent, 'the journal replays to it'


@pytest.mark.parametrize(('wrong', 'why'), [
    ({'qty': D('0.5')}, 'too precise'), ({'limit': D('40.0000001')}, 'too precise'), ({'qty': D('1e30')}, 'out of range'), ({'stop': D(39)}, 'has no stop'), ({'limit': D('1e-30')}, 'out of range')])
def test_what_no_order_can_become_is_refused_by_name(run: Run, wrong: dict[str, Decimal], why: str) -> None:
    before = len(entries(run))
    [(n, said)] = asked(run, Amend(name(run), **wrong))
    assert n == 0 and why in said and len(entries(run)) == before and run.trader.tracker.open()[0].intent.qty == 100


def test_an_order_of_somebody_else_is_none_of_this_run(run: Run) -> None:
    assert [n for n, why in take(run, Next('r1', 1, cancels=('g-9',), amends=(Amend('g-9', D(1)), Amend(name(run), D(7))), epoch=1)) if 'no order of this run' in why] == [0, 1]
    assert run.trader.tracker.open()[0].intent.qty == 7


@pytest.mark.parametrize('odd', [D('NaN'), D('-1'), D(0), D('Infinity'), 2.0])
def test_numbers_that_are_none_do_not_come_through_the_wire(odd: Any) -> None:
    with pytest.raises(BadInput): Amend('g', qty=odd)
    good = pack(Next('r1', 1, amends=(Amend('g', qty=D('12.5')),)))
    assert unpack_request(good) == Next('r1', 1, amends=(Amend('g', qty=D('12.5')),))
    if isinstance(odd, Decimal):
        text = str(odd).encode()
        bad = good.replace(b'\xa412.5', bytes([0xa0 + len(text)]) + text)
        assert bad != good
        with pytest.raises(BadInput): unpack_request(bad)


def test_a_refusal_by_the_gate_leaves_the_order_at_work(run: Run) -> None:
    halt(run.trader, 'somebody looked', 'ops')
    [(_, why)] = asked(run, Amend(name(run), qty=D(200)))
    assert 'halted' in why and asked(run, Amend(name(run), qty=D(20))) == []
    again = replay(entries(run))
    assert run.trader.tracker.open()[0].intent.qty == again.open_orders[0].intent.qty == 20 and again.breaches[-1].client_id == ''


def test_a_question_put_again_changes_nothing_twice(run: Run) -> None:
    q = Next('r1', 1, amends=(Amend(name(run), qty=D(60)),), epoch=1, hears=('bar',))
    first = respond(run, q)
    while first is None: first = respond(run, q)
    count = kinds(run).count('amend_requested')
    assert respond(run, q) == first and count == kinds(run).count('amend_requested') == 1


class Follows:
    "Keeps its bid one cent under the close, by changing it; hears what is refused."
    def __init__(self) -> None: self.heard: list[str] = []

    def on_bar(self, bar: Any, book: Any) -> list[Any]:
        price = (bar.close - D(5)).quantize(D('0.01'))
        [o] = book.working('KO') or [None]
        if o is None: return [Intent('KO', Side.BUY, D(10), OrderType.LIMIT, limit=price)]
        return [] if o.amending or o.intent.limit == price else [Amend(o.client_id, limit=price), Amend(o.client_id, limit=price + D('0.0000001'))]

    def on_order(self, order: Any, book: Any) -> list[Any]:
        if 'too precise' in order.reason: self.heard.append(order.reason)
        return [Cancel(order.client_id)] if order.intent.qty == 100 and not order.cancelling and not order.state.terminal else []


def test_a_strategy_follows_the_market_with_one_order(run: Run) -> None:
    strategy = Follows()
    def ask(q: Next) -> Any:
        while (reply := respond(run, q)) is None: pass
        return reply
    talk = Conversation('r1', 1, ask)
    talk.number = 1
    talk.follow(strategy)
    moves = kinds(run).count('amended')
    assert moves > 10 and kinds(run).count('intent') == 2 and len(strategy.heard) >= moves - 1
    assert all(why.startswith('not changed: ') for why in strategy.heard) and not replay(entries(run)).faults
