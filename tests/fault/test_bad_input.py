"""Orders that cannot be meant, at every door: refused with what was expected and what was found, the desk alive, the ledger as it was."""
from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_stage import alive, entries_of, make_store, settings_of, tidy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gekko.desk.client import Line, dial
from gekko.desk.protocol import AskStatus, CloseRun, EventsReply, Next, OpenRun, Refused, Reply, RunOpenedReply, StatusReply, pack, unpack_reply, unpack_request
from gekko.desk.serve import DeskProcess, start_desk
from gekko.desk.spec import make_spec, to_json
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.order import Intent, Order, OrderState, OrderType, Side
from gekko.domain.time import SimClock
from gekko.risk.gate import Approved, Breach, Gate
from gekko.risk.limits import Limits
from gekko.risk.view import BookView

NOT_SIZES = ['NaN', 'sNaN', '-NaN', 'Infinity', '-Infinity', '0', '-0', '0E+30', '-1', '-1E-30', '-1E+30']
LOOK_ALIKES = ['walk', 'Walk', 'WALK ', ' WALK', 'WАLK', 'ＷＡＬＫ', 'WAL\u212a', 'WALK\u200b', 'WALK\n', 'W\u0301ALK', '', '\x00', '*', '../WALK', 'W' * 5000]


def said(e: BaseException | Breach) -> bool:
    "Whether a refusal says what was expected and what was found."
    if isinstance(e, Breach): return bool(e.limit and e.allowed and e.found and e.message)
    return isinstance(e, BadInput) and e.expected is not None and e.found is not None


# The notebook's own door

@pytest.mark.parametrize('size', NOT_SIZES)
@pytest.mark.parametrize('what', ['qty', 'limit', 'stop'])
def test_an_intent_has_real_numbers(what: str, size: str) -> None:
    with pytest.raises(BadInput) as e: Intent(**{'symbol': 'WALK', 'side': Side.BUY, 'qty': D(1), 'type': OrderType.STOP_LIMIT, 'limit': D(1), 'stop': D(1), what: D(size)})  # type: ignore[arg-type]
    assert said(e.value) and repr(D(size)) in str(e.value)


@given(st.sampled_from(['qty', 'limit', 'stop', 'side', 'type', 'tif']), st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just([]))
def test_an_intent_guesses_nothing(what: str, wrong: Any) -> None:
    "A float, a text or nothing at all is no size, no price and no side."
    with pytest.raises(BadInput) as e: Intent(**{'symbol': 'WALK', 'side': Side.BUY, 'qty': D(1), 'type': OrderType.STOP_LIMIT, 'limit': D(1), 'stop': D(1), what: wrong})
    assert said(e.value)


# The gate

WALK = Instrument('WALK', 'WALK', 'USD', tick=D('0.01'), lot=D(1))


def gate_and_book() -> tuple[Gate, BookView]:
    view = BookView('demo', 'USD', {'WALK': WALK})
    view.deposit(D(1_000_000))
    view.mark('WALK', D(100), 1)
    return Gate(Limits(), {'WALK': WALK}, SimClock(1)), view


odd_intents = st.one_of(
    st.builds(lambda s: Intent(s, Side.BUY, D(1)), st.sampled_from(LOOK_ALIKES) | st.text(max_size=6).filter(lambda s: s != 'WALK')),
    st.builds(lambda side, q: Intent('WALK', side, D(q)), st.sampled_from(Side), st.sampled_from(['0.5', '1.0000001', '1E-30', '1E-999999', '1E+30', '1E+999999', '9' * 80, '1' + '0' * 60 + '.5'])),
    st.builds(lambda side, p: Intent('WALK', side, D(1), OrderType.LIMIT, limit=D(p)), st.sampled_from([Side.BUY]), st.sampled_from(['100.001', '1E-30', '1E+30', '1E+999999', '9' * 80])))


@settings(max_examples=200)
@given(odd_intents)
def test_the_gate_refuses_by_name(i: Intent) -> None:
    gate, view = gate_and_book()
    before = (view.account, view.gross, view.equity)
    verdict = gate.check(Order('g-1', i), view)
    assert isinstance(verdict, Breach) and said(verdict), verdict
    assert (view.account, view.gross, view.equity) == before
    assert isinstance(gate.check(Order('g-2', Intent('WALK', Side.BUY, D(1))), view), Approved), 'and goes on'


@pytest.mark.parametrize('state', [s for s in OrderState if s is not OrderState.INTENT])
def test_only_a_new_order_is_checked(state: OrderState) -> None:
    gate, view = gate_and_book()
    verdict = gate.check(Order('g-1', Intent('WALK', Side.BUY, D(1)), state), view)
    assert isinstance(verdict, Breach) and (verdict.limit, verdict.found) == ('state', state.value)


# A run's parameters

@given(st.sampled_from(['cash', 'fee_bps', 'slippage_bps', 'participation', 'band', 'reduce_to', 'window', 'heartbeat_s', 'reject_rate', 'bars', 'seed']),
       st.sampled_from(['NaN', 'sNaN', 'Infinity', '-Infinity', float('nan'), float('inf'), -float('inf'), D('NaN'), D('sNaN'), D('-1E+30'), '1e400', 'ten', '', True, [], {}, b'1', '١٢x', '-1E+30']))
def test_a_run_has_real_settings(name: str, wrong: Any) -> None:
    with pytest.raises(BadInput) as e: make_spec(['WALK'], **{name: wrong})
    assert said(e.value) and e.value.message == name


# The desk's socket

class Talk:
    "A desk process with a run of events under way, and lines to it for words and for bytes."

    def __init__(self, process: DeskProcess, home: Path, store: Path) -> None:
        self.process, self.home, self.number = process, home, 0
        self.line, self.raw = Line(process.address, timeout_s=20), dial(process.address)
        opened = self.line.ask(OpenRun('r1', 'odd', 'aa11', to_json(make_spec(['WALK'], window=5, heartbeat_s=60)), str(store)))
        assert isinstance(opened, RunOpenedReply)
        self.epoch = opened.epoch

    def throw(self, *frames: bytes) -> Reply:
        self.raw.send_multipart(frames)
        assert self.raw.poll(20_000), f'no answer to {frames!r:.200}'
        return unpack_reply(self.raw.recv_multipart()[-1])

    def words(self, **other: Any) -> bytes:
        "A question as any program could put it."
        asked = {'type': 'Next', 'run_id': 'r1', 'number': self.number, 'orders': [], 'cancels': [], 'cell': 'c', 'hears': ['bar'], 'epoch': self.epoch, **other}
        return b'\x01' + msgspec.msgpack.encode(asked)

    def ask(self, **other: Any) -> Reply:
        reply = self.throw(b'12345678', self.words(**other))
        if isinstance(reply, EventsReply): self.number += 1
        return reply

    def books(self) -> list[tuple[int, str]]:
        "The journal once all that was said is on disk."
        seen: list[tuple[int, str]] | None = None
        while (now := [(e.seq, e.hash) for e in entries_of(self.home, 'paper-r1')]) != seen:
            seen = now
            time.sleep(0.5)
        return now

    def kinds(self) -> dict[str, int]:
        self.books()
        found: dict[str, int] = {}
        for e in entries_of(self.home, 'paper-r1'): found[e.kind] = found.get(e.kind, 0) + 1
        return {k: n for k, n in found.items() if k != 'mark'}      # a replay's time goes on with every question

    def lives(self) -> None:
        status = self.line.ask(AskStatus())
        assert isinstance(status, StatusReply) and alive(self.process.pid) and (status.state, status.halted) == ('trading', ''), status


@pytest.fixture(scope='module')
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    folder = tmp_path_factory.mktemp('bad')
    with tidy(folder / 'home') as home:
        process = start_desk(settings_of(home), 'talk', log=home / 'desk.log', leave_when_done=False)
        t = Talk(process, home, make_store(folder / 'store'))
        assert isinstance(t.ask(), EventsReply)
        yield t
        t.lives()
        t.line.ask(CloseRun('r1'))
        t.line.close()
        t.raw.close()
        assert process.stop() == 0 and 'Traceback' not in (home / 'desk.log').read_text()


GOOD = {'symbol': 'WALK', 'side': 'buy', 'qty': '1'}
REFUSED_WHOLE: list[dict[str, Any]] = [
    *({'orders': [{**GOOD, 'qty': q}]} for q in [*NOT_SIZES, 'one', '', float('nan'), float('inf'), None, True, [], '٣x']),
    *({'orders': [{**GOOD, 'type': 'limit', 'limit': q}]} for q in [*NOT_SIZES, None, 'x', {}]),
    *({'orders': [{**GOOD, **more}]} for more in ({'side': 'BUY'}, {'side': 'hold'}, {'type': 'iceberg'}, {'tif': 'forever'}, {'symbol': 7}, {'limit': '100'}, {'type': 'stop'}, {'reduce_only': 'no'}, {'ts': 'now'})),
    {'orders': 'all'}, {'orders': [GOOD, None]}, {'orders': [[]]}, {'cancels': [1]}, {'cancels': None}, {'number': -1}, {'number': 10**6}, {'number': 'x'}, {'hears': ['gossip']}, {'cell': 'x' * 5000},
    {'cell': 'a\nb'}, {'epoch': 0}, {'epoch': 2}, {'epoch': -1}, {'epoch': 2**63}, {'run_id': 'r2'}, {'run_id': ''}, {'run_id': 'R1'}, {'run_id': 'r１'}, {'extra': 1}]


def test_questions_that_are_refused_as_a_whole(talk: Talk) -> None:
    "Nothing is written, not even time: the journal is the same to the last hash, and the same number can be asked again."
    before, number = talk.books(), talk.number
    for wrong in REFUSED_WHOLE:
        answer = talk.ask(**wrong)
        assert isinstance(answer, Refused) and answer.kind in ('BadInput', 'Reject') and answer.message and (answer.expected or answer.found), (wrong, answer)
        assert 'fault' not in answer.message, answer
    assert talk.books() == before and talk.number == number
    talk.lives()
    assert isinstance(talk.ask(), EventsReply)


REFUSED_ALONE: list[dict[str, Any]] = [
    *({'symbol': s} for s in LOOK_ALIKES), *({'qty': q} for q in ('0.5', '1.0000001', '1E+30', '1E-30', '1E+999999', '1E-999999', '9' * 80)),
    *({'type': 'limit', 'limit': p} for p in ('100.001', '1E+30', '1E-30', '9' * 80)), {'run': 'r2'}, {'run': 'AA11'}, {'parent': 'p-1'}, {'reason': 'x' * 5000}, {'cell': '\x07'}]
STRANGE_NAMES = ['', 'g', 'web-1', 'gaaaaaaaaaaaaaaaaaaa', 'GAAAAAAAAAAAAAAAAAAA', '\x00', 'x' * 5000, "'; drop table entries; --"]


def test_orders_that_are_refused_one_by_one(talk: Talk) -> None:
    "Beside a good order in the same question: that one is placed, and of the others nothing is in the books."
    before = talk.kinds()
    wrong = [{**GOOD, **more} for more in REFUSED_ALONE]
    answer = talk.ask(orders=[*wrong, GOOD], cancels=STRANGE_NAMES)
    assert isinstance(answer, EventsReply), answer
    assert [n for n, _ in answer.refused] == [n for n in range(len(wrong) + 1 + len(STRANGE_NAMES)) if n != len(wrong)]
    assert all('expected' in why and 'found' in why and len(why) < 500 for _, why in answer.refused), answer.refused
    after = talk.kinds()
    assert {k: n - before.get(k, 0) for k, n in after.items() if n != before.get(k, 0)}.items() >= {'intent': 1, 'submitted': 1}.items()
    assert 'cancel_requested' not in after and 'breach' not in after
    talk.lives()


many = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def readable(frame: bytes) -> bool:
    try: unpack_request(frame)
    except BadInput as e:
        assert e.message
        return False
    return True


whole = pack(Next('r1', 3, (Intent('WALK', Side.BUY, D('1.5'), OrderType.LIMIT, limit=D('99.5'), reason='why'),), ('g-1',), 'c', ('bar',), 1))


@settings(max_examples=1500, derandomize=True)
@given(st.data())
def test_no_bytes_break_the_reader(data: st.DataObject) -> None:
    "A question with bytes changed, lost, doubled or cut is read as a message or refused as bad input; nothing else is raised."
    frame = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at, n = data.draw(st.integers(0, max(len(frame) - 1, 0))), data.draw(st.integers(1, 4))
        match data.draw(st.sampled_from(['change', 'lose', 'double', 'cut'])):
            case 'change': frame[at:at + n] = data.draw(st.binary(min_size=n, max_size=n))
            case 'lose': del frame[at:at + n]
            case 'double': frame[at:at] = frame[at:at + n]
            case _: del frame[at:]
    readable(bytes(frame))


@many
@given(st.lists(st.binary(max_size=30), min_size=1, max_size=4), st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=3), st.sampled_from(['bytes', 'changed', 'cut', 'parts']))
def test_frames_that_are_no_question(talk: Talk, parts: list[bytes], at: int, new: bytes, how: str) -> None:
    frame = {'bytes': parts[-1], 'changed': whole[:at] + new + whole[at + len(new):], 'cut': whole[:at], 'parts': (*parts, b'')[1]}[how]
    if readable(frame): return
    answer = talk.throw(*parts) if how == 'parts' else talk.throw(b'12345678', frame)
    assert isinstance(answer, Refused) and answer.message, answer


def test_after_all_that_the_books_are_as_they_were(talk: Talk) -> None:
    before = talk.books()
    for frames in ([b''], [b'', b''], [b'1' * 8, b'\x01' + b'\x91' * 100_000 + b'\xc0'], [b'1' * 8, b'\x01' + b'\x81\xa1a' * 50_000 + b'\xc0'], [b'1' * 8, b'\x02' + whole[1:]], [b'1' * 8] * 50,
                   [b'1' * 8, b'\x01' + msgspec.msgpack.encode({'type': 'Next', 'run_id': 'r1', 'number': 9, 'cell': 'x' * 20_000_000})], [b'1' * 8, whole[:1] + b'\xdf\xff\xff\xff\xff'], [b'1' * 8, b'\x01\xc6\xff\xff\xff\xff']):
        answer = talk.throw(*frames)
        assert isinstance(answer, Refused), answer
    assert talk.books() == before
    talk.lives()
