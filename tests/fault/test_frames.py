"""Frames that no client of ours would send: the desk answers each with what is wrong, and nothing has changed."""
from collections.abc import Iterator
from decimal import Decimal as D
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from desk_stage import alive, entries_of, ledger_of, make_store, settings_of, tidy, wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gekko.desk.client import Line, dial
from gekko.desk.protocol import AskStatus, Beat, CloseRun, Decide, OpenRun, Refused, Reply, StatusReply, pack, unpack_reply, unpack_request
from gekko.desk.serve import DeskProcess, start_desk
from gekko.desk.spec import make_spec, to_json
from gekko.domain.errors import BadInput, GekkoError, Halt, Reject
from gekko.ledger.database import exists
from gekko.ledger.journal import accounts, verify
from gekko.ledger.lease import holdings

many = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
junk = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
                    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=8), x, max_size=4), max_leaves=12)


class Server:
    """A desk process with a run under way (or none), and two lines to it: one for words, one for whatever bytes."""

    def __init__(self, process: DeskProcess, home: Path, store: Path) -> None:
        self.process, self.home, self.store = process, home, store
        self.line, self.raw = Line(process.address, timeout_s=10), dial(process.address)

    def throw(self, *frames: bytes) -> Reply:
        self.raw.send_multipart(frames)
        assert self.raw.poll(10_000), f'no answer to {frames!r}'
        return unpack_reply(self.raw.recv_multipart()[-1])

    def ask(self, q: Any) -> Reply: return self.line.ask(q)
    def state(self) -> tuple[StatusReply, Any]:
        said = self.ask(AskStatus())
        assert isinstance(said, StatusReply) and alive(self.process.pid)
        entries = entries_of(self.home, said.account) if said.account else []
        return said, [(e.seq, e.hash) for e in entries]


def written(server: Server, marks: int) -> bool: return [e.kind for e in entries_of(server.home)].count('mark') == marks


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path: return tmp_path_factory.mktemp('frames')


@pytest.fixture(scope='module')
def store_here(folder: Path) -> Path: return make_store(folder / 'store')


def serving(folder: Path, store: Path, name: str) -> Iterator[Server]:
    with tidy(folder / name) as home:
        process = start_desk(settings_of(home), name, log=home / 'desk.log', leave_when_done=False)
        server = Server(process, home, store)
        yield server
        server.line.close()
        server.raw.close()
        assert process.stop() == 0 and 'Traceback' not in (home / 'desk.log').read_text()


@pytest.fixture(scope='module')
def idle(folder: Path, store_here: Path) -> Iterator[Server]: yield from serving(folder, store_here, 'idle')


@pytest.fixture(scope='module')
def busy(folder: Path, store_here: Path) -> Iterator[Server]:
    """A desk in the middle of run r1, which holds 10 WALK and waits for the decision on row 2."""
    for server in serving(folder, store_here, 'busy'):
        server.ask(OpenRun('r1', 'frames', '0', to_json(make_spec(['WALK'], window=5, heartbeat_s=60)), str(store_here)))
        for row in (-1, 0, 1): server.ask(Decide('r1', row, units={} if row < 0 else {'WALK': D(10)}))
        wait_for(partial(written, server, 3), 'the journal to be on disk')
        yield server
        server.ask(CloseRun('r1'))
        assert verify(ledger_of(server.home)).ok


def refused(server: Server, *frames: bytes) -> None:
    """What was thrown must be answered with a refusal, and have changed neither desk nor ledger."""
    before = server.state()
    said = server.throw(*frames)
    assert isinstance(said, Refused) and said.message and said.kind in ('BadInput', 'Reject', 'Halt'), said
    assert 'fault' not in said.message, said
    assert server.state() == before


def good(frame: bytes) -> bool:
    try: unpack_request(frame)
    except BadInput: return False
    return True


@many
@given(parts=st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_any_bytes(busy: Server, parts: list[bytes]) -> None:
    if len(parts) < 2 or not good(parts[1]): refused(busy, *parts)


FRAMES = [pack(m) for m in (AskStatus(), Beat('r1'), Decide('r1', 2, weights={'WALK': 0.5}), CloseRun('r1'), OpenRun('r2', 's', 'l', {'symbols': ['WALK']}, ''))]


@many
@given(frame=st.sampled_from(FRAMES), data=st.data())
def test_a_frame_damaged_on_the_way(busy: Server, frame: bytes, data: st.DataObject) -> None:
    """A byte changed, some bytes lost, or the frame cut off."""
    at = data.draw(st.integers(0, len(frame) - 1))
    how = data.draw(st.sampled_from(['change', 'lose', 'cut']))
    new = frame[:at] + {'change': data.draw(st.binary(min_size=1, max_size=1)) + frame[at + 1:], 'lose': frame[at + data.draw(st.integers(1, 4)):], 'cut': b''}[how]
    if not good(new): refused(busy, b'12345678', new)


@many
@given(kind=st.sampled_from(['OpenRun', 'Decide', 'Beat', 'CloseRun', 'AskStatus', 'AskHalt', 'AskResume', 'AskFlatten', 'Nonsense', '']), fields=st.dictionaries(st.sampled_from(
    ['run_id', 'row', 'weights', 'units', 'cell', 'spec', 'store', 'lineage', 'strategy', 'reason', 'who', 'other']), junk, max_size=6))
def test_messages_with_the_wrong_fields(busy: Server, kind: str, fields: dict[str, Any]) -> None:
    frame = b'\x01' + msgspec.msgpack.encode({'type': kind, **fields})
    if not good(frame): refused(busy, b'12345678', frame)


@pytest.mark.parametrize('deep', [b'\x81\xa1a' * 5000 + b'\xc0', b'\x91' * 100_000 + b'\xc0', msgspec.msgpack.encode({'type': 'OpenRun', 'run_id': 'a', 'strategy': 'b', 'lineage': 'c', 'store': ''}).replace(
    b'\x85', b'\x86', 1) + b'\xa4spec' + b'\x81\xa1a' * 5000 + b'\xc0'], ids=['map', 'list', 'spec'])
def test_thousands_of_brackets(busy: Server, deep: bytes) -> None: refused(busy, b'12345678', b'\x01' + deep)


def test_a_flood_is_answered_in_full(busy: Server) -> None:
    """As many as fit into one client's queue."""
    before = busy.state()
    for n in range(900): busy.raw.send_multipart([n.to_bytes(8, 'big'), b'\x01\xc1'])
    heard = []
    while len(heard) < 900 and busy.raw.poll(60_000): heard.append(int.from_bytes(busy.raw.recv_multipart()[0], 'big'))
    assert heard == list(range(900)) and busy.state() == before


def test_a_client_that_never_reads(busy: Server) -> None:
    """Its answers pile up in its own queue; the desk goes on."""
    deaf = zmq.Context.instance().socket(zmq.DEALER)
    deaf.setsockopt(zmq.LINGER, 0)
    deaf.setsockopt(zmq.RCVHWM, 1)
    deaf.connect(busy.process.address)
    for n in range(5000): deaf.send_multipart([n.to_bytes(8, 'big'), pack(AskStatus())])
    before = busy.state()
    assert before[0].state == 'trading'
    deaf.close()
    assert busy.state() == before


# Well-formed messages that mean nothing

numbers = st.floats() | st.floats(allow_nan=False, allow_infinity=False)
decimals = st.sampled_from([D('NaN'), D('sNaN'), D('Infinity'), D('-Infinity'), D('1E+400'), D('-1E+999'), D('1E+9999')])


@many
@given(q=st.one_of(
    st.builds(Decide, st.just('r1'), st.integers(-2**40, 2**40).filter(lambda n: n != 2)),
    st.builds(Decide, st.text(max_size=5).filter(lambda r: r != 'r1'), st.just(2), st.just({'WALK': 0.5})),
    st.builds(Decide, st.just('r1'), st.just(2), st.dictionaries(st.text(max_size=5).filter(lambda s: s != 'WALK'), numbers, min_size=1, max_size=3)),
    st.builds(Decide, st.just('r1'), st.just(2), st.fixed_dictionaries({'WALK': st.sampled_from([float('nan'), float('inf'), -float('inf'), 1e300, -1e308])})),
    st.builds(Decide, st.just('r1'), st.just(2), st.just({}), st.fixed_dictionaries({'WALK': decimals})),
    st.builds(CloseRun, st.text(max_size=5).filter(lambda r: r != 'r1')),
    st.builds(OpenRun, st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.dictionaries(st.text(max_size=8), junk, max_size=4), st.just(''))))
def test_decisions_that_cannot_be_meant(busy: Server, q: Any) -> None:
    before = busy.state()
    with pytest.raises((BadInput, Reject)): busy.ask(q)
    assert busy.state() == before


SPEC = to_json(make_spec(['WALK'], window=5))


@many
@given(run_id=st.text(max_size=4) | st.just('r' * 200) | st.just('r\n2'), spec=st.one_of(
    st.dictionaries(st.sampled_from([*SPEC, 'symbols', 'other']), junk, max_size=6),
    st.tuples(st.sampled_from(sorted(SPEC)), junk).map(lambda kv: {**SPEC, kv[0]: kv[1], 'symbols': ['NOT KNOWN']}),
    st.just({**SPEC, 'limits': {'max_grass': '2'}}), st.just({**SPEC, 'start': '2030-01-01'}), st.just({**SPEC, 'currency': 'XYZ'})))
def test_runs_that_cannot_be_opened(idle: Server, run_id: str, spec: dict[str, Any]) -> None:
    """An idle desk stays idle, unhalted, without a lease and without a journal."""
    with pytest.raises(GekkoError) as e: idle.ask(OpenRun(run_id, 'frames', '0', spec, str(idle.store)))
    assert isinstance(e.value, (BadInput, Reject)) and not isinstance(e.value, Halt), e.value
    said, _ = idle.state()
    assert (said.state, said.halted, said.run_id) == ('idle', '', '')
    assert not exists(ledger_of(idle.home)) or accounts(ledger_of(idle.home)) == []


@pytest.mark.parametrize('run_id', ['', 'r' * 200, 'r\n2', '\x00'])
def test_a_run_without_a_usable_name(idle: Server, run_id: str) -> None:
    with pytest.raises(BadInput): idle.ask(OpenRun(run_id, 'frames', '0', SPEC, str(idle.store)))
    assert idle.state()[0].state == 'idle'
    if exists(ledger_of(idle.home)): assert [h.account for h in holdings(ledger_of(idle.home)) if h.holder] == [] == accounts(ledger_of(idle.home))


def test_a_lineage_that_cannot_be_written(idle: Server) -> None:
    """Found out at the first line of the journal: nothing stays behind."""
    with pytest.raises(BadInput, match='not a run'): idle.ask(OpenRun('r3', 'frames', 'x' * 65, SPEC, str(idle.store)))
    assert idle.state()[0].state == 'idle' and [h.account for h in holdings(ledger_of(idle.home)) if h.holder] == [] == accounts(ledger_of(idle.home))
