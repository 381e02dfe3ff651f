"""The same call is answered by the next provider, whatever the first one does, within the deadline."""
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.breaker import Breaker, Rest
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback, NoAnswer
from gekko.compute.network import Network, Port
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Failed, Loaded, Session, load
from gekko.domain.errors import BadInput
from gekko.domain.time import SECOND, SimClock, SystemClock

CLOCK = SystemClock()
X = {'x': np.ones((1, 3), np.float32)}
ANSWER = [[2.0] * 3]


def soon(s: float = 10.0) -> int: return CLOCK.monotonic() + round(s * SECOND)


class Scripted:
    """Doubles, unless a fault is set; counts its runs."""
    format, made_of = 'onnx', 'scripted'

    def __init__(self, name: str) -> None:
        self.name, self.runs, self.closed = name, 0, threading.Event()
        self.fault: Any = None

    def run(self, inputs: Any) -> Any:
        self.runs += 1
        return [inputs['x'] * 2] if self.fault is None else self.fault(inputs)

    def stop(self) -> None: pass
    def close(self) -> None: self.closed.set()


NET = Network(Path('.'), 'd1', (), (Port('x', (3,)),), (Port('y', (3,)),))


def loaded(p: Scripted, net: Network = NET, clock: Any = CLOCK) -> Loaded: return Loaded(p, net, {1: p}, clock)       # type: ignore[arg-type]


@pytest.fixture
def pair() -> Iterator[tuple[Scripted, Scripted, Fallback]]:
    a, b = Scripted('a'), Scripted('b')
    yield a, b, (f := Fallback([loaded(a), loaded(b)], CLOCK, Rest(failures=2, first_s=60)))
    f.release()


def kinds(f: Any) -> list[tuple[str, str]]: return [(t.provider, t.kind) for t in f.attempts]


def raising(error: BaseException) -> Any:
    def fault(_: Any) -> Any: raise error
    return fault


@dataclass(frozen=True)
class Swapped(Onnx):
    """ONNX Runtime that opens another network than it is given: one that fails in earnest."""
    data: bytes = b''

    @property
    def name(self) -> str: return 'faulty'

    def open(self, data: bytes, network: Network, batch: int) -> Session: return super().open(self.data, network, batch)


@pytest.mark.parametrize(('kind', 'big'), [('hung', 1e15), ('memory', 1e15), ('nonsense', 2000.0)])
def test_real_faults(make: Any, faulty: dict[str, bytes], kind: str, big: float) -> None:
    """A loop without end, more memory than there is, and a root of a negative number, inside ONNX Runtime."""
    net, cpu = make(), Device('cpu')
    f = Fallback([load(Swapped(cpu, data=faulty[kind]), net, CLOCK), load(Onnx(cpu), net, CLOCK)], CLOCK, Rest(first_s=0.001))
    assert f.run(X, soon()).provider == 'faulty'
    given = {'x': np.full((1, 3), big, np.float32)}
    answer = f.run(given, soon(1.0 if kind == 'hung' else 10.0))
    assert answer.provider == 'onnx-cpu' and kinds(answer) == [('faulty', kind)]
    assert np.array_equal(answer.outputs['y'], given['x'] * 2)
    while (again := f.run(X, soon())).provider != 'faulty': assert kinds(again) == [('faulty', 'open')]      # the loop was ended, the rest is over: a probe succeeds
    f.release()


@pytest.mark.parametrize(('fault', 'kind', 'state'), [
    (raising(RuntimeError('CUDA error: device-side assert triggered')), 'raised', 'closed'),
    (raising(RuntimeError('CUDA out of memory. Tried to allocate 20 GiB')), 'memory', 'open'),
    (raising(MemoryError()), 'memory', 'open'),
    (raising(SystemExit(1)), 'raised', 'closed'),
    (lambda i: [i['x'] * np.inf], 'nonsense', 'closed'),
    (lambda i: [], 'nonsense', 'closed'),
    (lambda i: ['text'], 'raised', 'closed'),
])
def test_the_next_one_answers(pair: Any, fault: Any, kind: str, state: str) -> None:
    a, b, f = pair
    a.fault = fault
    answer = f.run(X, soon())
    assert answer.outputs['y'].tolist() == ANSWER and answer.provider == 'b' and answer.degraded and kinds(answer) == [('a', kind)]
    assert f.states == {'a': state, 'b': 'closed'} and f.counted() == {'a': {kind: 1}, 'b': {'answered': 1}}


def test_a_broken_one_is_left_alone(pair: Any) -> None:
    a, _, f = pair
    a.fault = raising(ValueError('no'))
    said = [kinds(f.run(X, soon())) for _ in range(5)]
    assert said == [[('a', 'raised')]] * 2 + [[('a', 'open')]] * 3 and a.runs == 2


def test_a_hang_costs_one_thread_however_often_it_is_called(pair: Any) -> None:
    a, _, f = pair
    hold, before = threading.Event(), threading.active_count()
    def hangs(i: Any) -> Any: hold.wait(60); return [i['x']]
    a.fault = hangs
    first = f.run(X, soon(0.2))
    rest = [f.run(X, soon()) for _ in range(20)]
    assert kinds(first) == [('a', 'hung')] and {tuple(kinds(r)) for r in rest} == {(('a', 'open'),)}
    assert threading.active_count() == before and a.runs == 1 and f.states['a'] == 'open'
    hold.set()
    while f._lines['a'].stuck: threading.Event().wait(0.005)
    assert f.states['a'] == 'open'          # it rests, also after it has returned


def test_a_provider_is_off_while_a_hung_call_is_inside() -> None:
    """Its rest is over in a moment, but a probe would only wait behind the lost call."""
    a, b, hold = Scripted('a'), Scripted('b'), threading.Event()
    f = Fallback([loaded(a), loaded(b)], CLOCK, Rest(first_s=0.001))
    def hangs(i: Any) -> Any: hold.wait(60); return [i['x'] * 2]
    a.fault = hangs
    f.run(X, soon(0.2))
    while f._breakers['a'].state == 'open': threading.Event().wait(0.001)
    answer = f.run(X, soon(0.2))
    assert f.states['a'] == 'open' and kinds(answer) == [('a', 'open')] and 'hung call' in answer.attempts[0].why
    hold.set()
    while f.states['a'] == 'open': threading.Event().wait(0.005)
    assert f.run(X, soon()).provider == 'a'
    f.release()


def test_a_call_that_waits_its_turn_is_not_a_hang(pair: Any) -> None:
    """Two calls at once on a slow provider: the second goes elsewhere, and the provider keeps its good name."""
    a, _, f = pair
    entered, hold = threading.Event(), threading.Event()
    def slow(i: Any) -> Any: entered.set(); hold.wait(60); return [i['x'] * 2]
    a.fault, answers = slow, []
    first = threading.Thread(target=lambda: answers.append(f.run(X, soon(600))))
    first.start()
    entered.wait(60)
    second = f.run(X, soon(0.2))
    hold.set()
    first.join()
    assert kinds(second) == [('a', 'busy')] and f.states['a'] == 'closed' and answers[0].provider == 'a'


def test_giving_up_a_waiting_call_does_not_free_a_hung_one(pair: Any) -> None:
    a, _, f = pair
    entered, hold = threading.Event(), threading.Event()
    def hangs(i: Any) -> Any: entered.set(); hold.wait(60); return [i['x'] * 2]
    a.fault, line = hangs, f._lines['a']
    running, waiting = line.ask(X, soon()), line.ask(X, soon())
    entered.wait(60)
    assert line.give_up(running) and not line.give_up(waiting) and line.stuck
    hold.set()
    running.done.wait(60)
    assert not line.stuck and a.runs == 1


def test_a_caller_without_time_breaks_nobody(pair: Any) -> None:
    """Both are running when it gives up. They are asked again as soon as they have returned, and not after a rest of a minute."""
    a, b, f = pair
    hold = threading.Event()
    def slow(i: Any) -> Any: hold.wait(60); return [i['x'] * 2]
    a.fault = b.fault = slow
    for _ in range(5):
        with pytest.raises(NoAnswer) as e: f.run(X, soon(0.01))
        assert {k for _, k in kinds(e.value)} <= {'late', 'open', 'busy'}
    hold.set()
    while 'open' in f.states.values(): threading.Event().wait(0.005)
    assert f.run(X, soon()).provider == 'a' and a.runs <= 2


def test_nobody_answers(pair: Any) -> None:
    a, b, f = pair
    a.fault, b.fault = raising(ValueError('first')), lambda i: [i['x'] * np.nan]
    with pytest.raises(NoAnswer) as e: f.run(X, soon())
    assert kinds(e.value) == [('a', 'raised'), ('b', 'nonsense')] and isinstance(e.value, Failed) and 'first' in e.value.attempts[0].why
    with pytest.raises(NoAnswer) as e: f.run(X, CLOCK.monotonic())
    assert kinds(e.value) == [('a', 'late'), ('b', 'late')] and a.runs == 1


def test_the_caller_s_mistake_blames_nobody(pair: Any) -> None:
    a, _, f = pair
    for bad in ({'x': X['x'] * np.nan}, {}, {'x': np.ones((1, 4), np.float32)}):
        for _ in range(5):
            with pytest.raises(BadInput): f.run(bad, soon())
    assert a.runs == 0 and set(f.states.values()) == {'closed'}


def test_degradation_is_logged_when_it_changes(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    a, _, f = pair
    logger = logging.getLogger('gekko.compute')
    logger.setLevel(logging.INFO)
    a.fault = raising(ValueError('no'))
    with caplog.at_level(logging.INFO, 'gekko.compute'):
        for _ in range(10): f.run(X, soon())
    assert [(r.levelname, 'b answers instead of a' in r.message, 'breaker of a is open' in r.message) for r in caplog.records] == [('WARNING', True, False), ('WARNING', False, True)]


def test_each_provider_s_memory_is_given_back(pair: Any) -> None:
    a, b, f = pair
    f.release()
    assert a.closed.wait(10) and b.closed.wait(10)


def test_what_cannot_stand_in_for_each_other() -> None:
    other = Network(Path('.'), 'd2', (), NET.inputs, NET.outputs)
    for bad in ([], [loaded(Scripted('a')), loaded(Scripted('b'), other)], [loaded(Scripted('a')), loaded(Scripted('a'))]):
        with pytest.raises(BadInput): Fallback(bad, CLOCK)
    with pytest.raises(BadInput): Fallback([loaded(Scripted('a'))], CLOCK, fair_s=-1)
    for share in (0, 1, -1):
        with pytest.raises(BadInput): Fallback([loaded(Scripted('a'))], CLOCK, share=share)


def test_one_probe_and_a_growing_rest() -> None:
    clock = SimClock()
    b = Breaker('a', clock, Rest(failures=1, first_s=1, most_s=4))
    rests = []
    for _ in range(5):
        b.failed('x')
        start = clock.monotonic()
        while b.state == 'open': clock.advance(SECOND // 4)
        rests.append((clock.monotonic() - start) / SECOND)
        assert [b.allow() for _ in range(3)] == [True, False, False]
    assert rests == [1, 2, 4, 4, 4]
    b.ok()
    assert b.state == 'closed' and all(b.allow() for _ in range(3))
    b.failed('x')
    clock.advance(SECOND)
    assert b.state == 'half-open'           # well again: the rest begins small
