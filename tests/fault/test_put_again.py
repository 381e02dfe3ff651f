"""A caller puts its question again when the answer takes long. The desk does what was asked once, and gives the same answer again."""
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from desk_stage import settings_of

from gekko.desk.protocol import AskHalt, AskResume, AskStatus, OpenRun, Refused, Reply, StatusReply, pack, unpack_reply
from gekko.desk.serve import answer_all, listen, local_address
from gekko.desk.state import Desk
from gekko.domain.errors import Retry
from gekko.domain.time import SystemClock


class Door:
    """A desk's socket without its loop, and callers of it."""

    def __init__(self, home: Path) -> None:
        self.desk = Desk('door', settings_of(home), SystemClock())
        self.socket, _, _ = listen(local_address(home, 'door'))
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip('\0')
        self.callers: list[zmq.Socket[bytes]] = []

    def caller(self) -> zmq.Socket[bytes]:
        s: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        s.connect(self.address)
        self.callers.append(s)
        return s

    def serve(self, questions: int) -> None:
        while questions > 0: questions -= answer_all(self.desk, self.socket, 2_000)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    d = Door(tmp_path)
    yield d
    for s in (*d.callers, d.socket): s.close(0)


def heard(s: 'zmq.Socket[bytes]') -> tuple[bytes, Reply]:
    assert s.poll(2_000)
    number, said = s.recv_multipart()
    return number, unpack_reply(said)


def test_an_opening_that_failed_is_not_tried_again_by_the_repeats_that_waited_behind_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def slow(desk: Desk, q: OpenRun) -> Reply:
        tried.append(q.run_id)
        raise Retry('no price', expected='a quote within 30 s', found='none')
    monkeypatch.setattr('gekko.desk.server.begin', slow)
    s, frame = door.caller(), pack(OpenRun('r1', 'x', '0', {}, ''))
    for _ in range(5): s.send_multipart([b'1', frame])
    door.serve(5)
    said = [heard(s) for _ in range(5)]
    assert tried == ['r1'], 'one of the repeats could have opened a run that nobody follows any more'
    assert said == [said[0]] * 5 and isinstance(said[0][1], Refused)
    s.send_multipart([b'2', frame])
    door.serve(1)
    assert heard(s)[0] == b'2' and tried == ['r1', 'r1'], 'asked anew it is another question'


def test_a_repeated_resume_does_not_end_a_halt_that_came_after_it(door: Door) -> None:
    one, other = door.caller(), door.caller()
    again = [b'7', pack(AskResume('somebody'))]
    one.send_multipart(again)
    door.serve(1)
    other.send_multipart([b'1', pack(AskHalt('too much news', 'risk officer'))])
    door.serve(1)
    one.send_multipart(again)
    door.serve(1)
    assert door.desk.halted == 'too much news'


def test_a_question_that_waits_is_kept_once(door: Door) -> None:
    door.desk.take_up = 'binanceus'      # recovering: whoever opens has to wait
    s, frame = door.caller(), pack(OpenRun('r1', 'x', '0', {}, ''))
    for _ in range(20): s.send_multipart([b'1', frame])
    door.serve(20)
    assert len(door.desk.deferred) == 1


def test_a_frame_with_more_parts_than_a_question_has_is_refused(door: Door) -> None:
    s = door.caller()
    s.send_multipart([b'1', pack(AskStatus()), b'and more'])
    door.serve(1)
    number, said = heard(s)
    assert number == b'1' and isinstance(said, Refused) and '3' in said.found
    s.send_multipart([b'2', pack(AskStatus())])
    door.serve(1)
    assert isinstance(heard(s)[1], StatusReply)
