"""What a kernel may say to a desk event by event, and what is refused: by name, with nothing recorded and the desk alive."""
from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_stage import settings_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.desk.events import Outbox, empty
from gekko.desk.protocol import AskStatus, Beat, EventsReply, Next, OpenRun, OrderSaid, Refused, RunOpenedReply, StatusReply, pack, unpack_request
from gekko.desk.pulse import tick
from gekko.desk.server import handle
from gekko.desk.spec import make_spec, to_json
from gekko.desk.state import Desk
from gekko.domain.errors import BadInput
from gekko.domain.market import Quote, Trade
from gekko.domain.order import Intent, OrderType, Side
from gekko.domain.time import SECOND, SimClock, SystemClock

Opened = tuple[Desk, int]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    desk = Desk('door', settings_of(tmp_path), SystemClock())
    spec = make_spec('KO', start='2021-01-01', end='2021-03-01', window=5, cash=100_000)
    reply = handle(desk, OpenRun('r1', 'test', 'abcd', to_json(spec), ''))
    assert isinstance(reply, RunOpenedReply)
    yield desk, reply.epoch
    if desk.run is not None: desk.run.finish()


def bid(qty: str = '10', limit: str = '40.00', **more: Any) -> Intent: return Intent('KO', Side.BUY, D(qty), OrderType.LIMIT, D(limit), **more)


def ask(desk: Desk, q: Next) -> EventsReply:
    while (reply := handle(desk, q)) is None: pass
    assert isinstance(reply, EventsReply), reply
    return reply


def head(desk: Desk) -> tuple[int, str]:
    assert desk.run is not None
    return desk.run.trader.journal.head


def test_a_question_asked_twice_is_one_question(opened: Opened) -> None:
    desk, epoch = opened
    first = ask(desk, Next('r1', 0, epoch=epoch))
    placed = Next('r1', 1, (bid(),), epoch=epoch)
    once = ask(desk, placed)
    after = head(desk)
    assert ask(desk, placed) == once and head(desk) == after
    assert first.number == 0 and [x.said.state.value for x in once.events if isinstance(x, OrderSaid)] == ['accepted']
    assert desk.run is not None and len(desk.run.trader.tracker.open()) == 1


def test_a_strategy_that_beats_and_asks_no_more_hangs(tmp_path: Path) -> None:
    clock = SimClock(1)
    desk = Desk('door', settings_of(tmp_path), clock)
    spec = make_spec('KO', start='2021-01-01', end='2021-03-01', window=5, cash=100_000, decision_timeout_s=3)
    opening = handle(desk, OpenRun('r1', 'test', 'abcd', to_json(spec), ''))
    assert isinstance(opening, RunOpenedReply)
    asked = [Next('r1', n, epoch=opening.epoch) for n in range(3)]
    for q in asked:
        clock.advance(2 * SECOND)
        handle(desk, Beat('r1'))
        tick(desk)
        ask(desk, q)
    for _ in range(4):
        assert desk.run is not None, 'it asked within its time'
        clock.advance(SECOND)
        handle(desk, Beat('r1'))
        tick(desk)
    assert desk.run is None and 'the notebook hangs: no decision for 4.0 s' in desk.reason


def test_what_waits_for_a_strategy_that_asks_no_more_does_not_grow_with_the_quotes(opened: Opened) -> None:
    desk, epoch = opened
    ask(desk, Next('r1', 0, (bid(),), epoch=epoch))
    assert desk.run is not None and isinstance(box := desk.run.trader.tap, Outbox)
    for n in range(20_000):
        for s in ('KO', 'PEP'): box(Quote(s, n, D(40), D(41)))
        if not n % 5_000: box(Trade('KO', n, D(40), D(1)))
    assert len(box.queue) < 3_000
    told = [x for x in empty(box) if isinstance(x, Quote | Trade)]
    assert [(type(x).__name__, x.symbol, x.ts) for x in told] == [*(('Trade', 'KO', n) for n in range(0, 20_000, 5_000)), ('Quote', 'KO', 19_999), ('Quote', 'PEP', 19_999)]


def test_questions_out_of_turn_are_refused(opened: Opened) -> None:
    desk, epoch = opened
    ask(desk, Next('r1', 0, epoch=epoch))
    before = head(desk)
    for q, said in ((Next('r1', 7, (bid(),), epoch=epoch), 'out of turn'), (Next('r1', 1, (bid(),), epoch=epoch + 1), 'epoch'), (Next('r1', 1, (bid(),)), 'epoch'),
                    (Next('r2', 1, (bid(),), epoch=epoch), 'no such run'), (Next('r1', 1, (bid(),), cell='x' * 500, epoch=epoch), 'cell'), (Next('r1', 1, hears=('gossip',), epoch=epoch), 'quote trade bar')):
        reply = handle(desk, q)
        assert isinstance(reply, Refused) and said in f'{reply.message} {reply.expected}', reply
        assert head(desk) == before
    assert ask(desk, Next('r1', 1, (bid(),), epoch=epoch)).number == 1


WRONG: list[tuple[Intent, str]] = [
    (bid('1e30'), 'size out of range'), (bid('1E+999999'), 'size out of range'), (bid('1E-999999'), 'size out of range'), (bid(limit='1e30'), 'limit out of range'),
    (bid('10.5'), 'size too precise'), (bid(limit='40.00001'), 'limit too precise'), (bid('1.' + '1' * 60), 'size out of range'), (Intent('DOGE', Side.BUY, D(1)), 'unknown symbol'),
    (Intent('K' * 10_000, Side.BUY, D(1)), 'unknown symbol'), (bid(run='other'), 'another run'), (bid(parent='p1'), 'parent'), (bid(reason='\x00'), 'printable'), (bid(reason='r' * 1000), 'printable')]


@pytest.mark.parametrize(('wrong', 'said'), WRONG, ids=range(len(WRONG)))
def test_an_impossible_order_is_refused_by_name_beside_a_good_one(wrong: Intent, said: str, opened: Opened) -> None:
    desk, epoch = opened
    ask(desk, Next('r1', 0, epoch=epoch))
    before = head(desk)
    reply = ask(desk, Next('r1', 1, (wrong,), ('gnotoneofours',), epoch=epoch))
    assert [n for n, _ in reply.refused] == [0, 1] and said in reply.refused[0][1] and len(reply.refused[0][1]) < 400 and 'no order of this run' in reply.refused[1][1]
    assert head(desk) == before and desk.run is not None and not desk.run.trader.tracker.all()
    mixed = ask(desk, Next('r1', 2, (wrong, bid()), epoch=epoch))
    assert [n for n, _ in mixed.refused] == [0] and len(desk.run.trader.tracker.open()) == 1


@pytest.mark.parametrize('qty', ['NaN', '-1', '0', 'Infinity', '-0', 'sNaN'])
def test_a_size_that_is_none_is_no_frame(qty: str) -> None:
    frame = pack(Next('r1', 0, (bid('77'),))).replace(b'\xa277', bytes([0xa0 + len(qty)]) + qty.encode())
    with pytest.raises(BadInput): unpack_request(frame)


TEXTS = st.text(max_size=200)
NUMBERS = st.one_of(st.decimals(), st.decimals(allow_nan=False, allow_infinity=False, min_value=-10, max_value=10**6).map(lambda d: d.quantize(D('0.01'))), st.integers(-5, 10**40).map(D))
INTENTS = st.fixed_dictionaries({'symbol': st.sampled_from(['KO', 'ko', '', 'PEP']) | TEXTS, 'side': st.sampled_from(['buy', 'sell', 'hold']), 'qty': NUMBERS.map(str), 'type': st.sampled_from(['market', 'limit', 'stop', 'stop_limit', 'x'])},
                                optional={'limit': NUMBERS.map(str), 'stop': NUMBERS.map(str), 'run': TEXTS, 'cell': TEXTS, 'reason': TEXTS, 'parent': TEXTS, 'venue': TEXTS, 'ts': st.integers(-2**63, 2**63 - 1), 'reduce_only': st.booleans()})


@given(asked=st.lists(st.tuples(st.lists(INTENTS, max_size=3), st.lists(TEXTS, max_size=2), TEXTS), max_size=6))
@settings(max_examples=40, deadline=None)
def test_whatever_a_kernel_says_the_desk_lives_and_the_books_are_whole(asked: list[tuple[list[dict[str, Any]], list[str], str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    desk = Desk('door', settings_of(tmp_path_factory.mktemp('door')), SystemClock())
    reply = handle(desk, OpenRun('r1', 'test', 'abcd', to_json(make_spec('KO', start='2021-01-01', end='2021-02-01', window=5, cash=100_000)), ''))
    assert isinstance(reply, RunOpenedReply)
    number = 0
    for orders, cancels, cell in asked:
        raw = {'type': 'Next', 'run_id': 'r1', 'number': number, 'orders': orders, 'cancels': cancels, 'cell': cell, 'epoch': reply.epoch}
        before = head(desk)
        try: q = unpack_request(pack(AskStatus())[:1] + msgspec.msgpack.encode(raw))
        except BadInput:
            assert head(desk) == before
            continue
        while (said := handle(desk, q)) is None: pass
        assert isinstance(said, (EventsReply, Refused)) and 'fault in the desk' not in str(said)
        number += isinstance(said, EventsReply)
        assert desk.run is not None
        t = desk.run.trader
        assert all(o.symbol == 'KO' and o.intent.run == 'abcd' and D(0) < o.intent.qty < D('1e19') for o in t.tracker.all())
    status = handle(desk, AskStatus())
    assert isinstance(status, StatusReply) and status.state == 'trading' and not status.halted
    assert desk.run is not None
    desk.run.finish()
    desk.run.trader.journal.close()
