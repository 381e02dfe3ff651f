"""Everything that can go wrong at a provider, in every order over two and three of them, under 32 callers at once: the right answer or none, in time, and nothing left behind."""
from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.breaker import Rest
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback, NoAnswer
from gekko.compute.network import Network, Port
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Loaded, Session, load
from gekko.domain.time import SECOND, SystemClock

CLOCK, CALLERS = SystemClock(), 32
NET = Network(Path('.'), 'd1', (), (Port('x', (3,)),), (Port('y', (3,)),))
KINDS = {'raises': {'raised'}, 'hangs': {'hung', 'busy', 'late'}, 'nan': {'nonsense'}, 'shape': {'nonsense'}, 'memory': {'memory'}}
"What each fault is called by; with so many callers a hang is also a queue for those behind it."


class Stage:
    """A session whose fault is set from outside; `back` ends its hang."""
    format, made_of = 'onnx', 'staged'

    def __init__(self, name: str, fault: str) -> None:
        self.name, self.fault, self.back, self.closed, self.inside = name, fault, threading.Event(), threading.Event(), 0

    def run(self, inputs: Any) -> Any:
        twice = inputs['x'] * 2
        match self.fault:
            case 'raises': raise RuntimeError('CUDA error: an illegal memory access was encountered')
            case 'hangs': self.back.wait(60)
            case 'nan': return [twice * np.nan]
            case 'shape': return [twice[:, :2]]
            case 'memory': raise RuntimeError('CUDA out of memory. Tried to allocate 20 GiB')
        return [twice]

    def stop(self) -> None: "A hang in a driver isn't stopped."
    def close(self) -> None: self.closed.set()


def until(true: Callable[[], bool], s: float = 30.0) -> bool:
    """Whether it becomes true in that time."""
    end = CLOCK.monotonic() + round(s * SECOND)
    while not true() and CLOCK.monotonic() < end: threading.Event().wait(0.002)
    return true()


@contextmanager
def staged(faults: tuple[str, ...], rest: Rest) -> Iterator[tuple[list[Stage], Fallback]]:
    """These providers in this order; at the end every thread and every session must be gone."""
    before = threading.active_count()
    stages = [Stage(f'{i} {f}', f) for i, f in enumerate(faults)]
    fallback = Fallback([Loaded(s, NET, {1: s}, CLOCK) for s in stages], CLOCK, rest)      # type: ignore[arg-type]
    try: yield stages, fallback
    finally:
        for s in stages: s.back.set()
        fallback.release()
    assert until(lambda: threading.active_count() == before), [t.name for t in threading.enumerate()]
    assert all(s.closed.is_set() for s in stages)


def together(fallback: Any, deadline_s: float, given: Callable[[int], np.ndarray], callers: int = CALLERS) -> tuple[list[Any], float]:
    """What each of the callers got, all at once: an answer or NoAnswer; and the seconds until the last had it."""
    start, said = threading.Barrier(callers), list[Any]([None] * callers)
    spent = [0.0] * callers

    def call(i: int) -> None:
        x = given(i)
        start.wait()
        began = CLOCK.monotonic()
        try:
            said[i] = fallback.run({'x': x}, began + round(deadline_s * SECOND))
            assert np.array_equal(said[i].outputs['y'], x * 2), 'the answer of another caller'
        except NoAnswer as e: said[i] = e
        except BaseException as e: said[i] = AssertionError(repr(e))
        spent[i] = (CLOCK.monotonic() - began) / SECOND
    threads = [threading.Thread(target=call, args=(i,)) for i in range(callers)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not [s for s in said if isinstance(s, AssertionError)], said
    return said, max(spent)


def small(i: int) -> np.ndarray: return np.full((1, 3), 1.0 + i, np.float32)


def well_said(said: Any, faults: tuple[str, ...]) -> None:
    """Each attempt is told by what really went wrong there, or that it is left alone or had no time."""
    for a in said.attempts: assert a.kind in KINDS.get(faults[int(a.provider[0])], set()) | {'open', 'late', 'busy'}, a


ORDERS = [faults for n in (1, 2) for faults in itertools.product(KINDS, repeat=n)]


@pytest.mark.parametrize('faults', ORDERS, ids=' '.join)
def test_the_last_one_answers_whatever_the_others_do(faults: tuple[str, ...]) -> None:
    """One or two broken ones before a good one. Who hangs costs its share of the deadline once, and not once for each caller."""
    hanging, before, deadline_s = 'hangs' in faults, threading.active_count(), 1.0 if 'hangs' in faults else 30.0
    with staged((*faults, 'none'), Rest(failures=3, first_s=60)) as (stages, fallback):
        said, spent = together(fallback, deadline_s, small)
        for s in said: well_said(s, (*faults, 'none'))
        nobody = [s for s in said if isinstance(s, NoAnswer)]
        assert not nobody or hanging      # on a machine so busy that a second is over, there is no answer rather than a late one
        assert spent < deadline_s + 10
        again, _ = together(fallback, 30.0, small)
        assert [a.provider for a in again] == [f'{len(faults)} none'] * CALLERS
        assert threading.active_count() == before + len(stages)      # a thread for a provider, none for a call


@pytest.mark.parametrize('faults', [*itertools.product(KINDS, repeat=2), *itertools.permutations(KINDS, 3)], ids=' '.join)
def test_nobody_answers_and_that_is_said_in_time_and_once_they_are_well_they_do(faults: tuple[str, ...]) -> None:
    with staged(faults, Rest(failures=3, first_s=0.01, most_s=0.02)) as (stages, fallback):
        said, spent = together(fallback, 0.2, small, 8)
        assert all(isinstance(s, NoAnswer) and len(s.attempts) == len(faults) for s in said) and spent < 10
        for s in said: well_said(s, faults)
        for s in stages:
            s.fault = 'none'
            s.back.set()
        assert until(lambda: 'open' not in fallback.states.values())
        def well() -> bool:
            try: return bool(fallback.run({'x': small(1)}, CLOCK.monotonic() + 10 * SECOND).provider == stages[0].name)
            except NoAnswer: return False
        assert until(well)
        answers, _ = together(fallback, 30.0, small)
        assert {a.provider for a in answers} == {stages[0].name}


@dataclass(frozen=True)
class Swapped(Onnx):
    """ONNX Runtime that opens another network than it is given: one that fails in earnest for large inputs."""
    label: str = ''
    data: bytes = b''

    @property
    def name(self) -> str: return self.label

    def open(self, data: bytes, network: Network, batch: int) -> Session: return super().open(self.data, network, batch)


@pytest.mark.parametrize('order', list(itertools.permutations(('hung', 'memory', 'nonsense'), 2)) + list(itertools.permutations(('hung', 'memory', 'nonsense'))), ids=' '.join)
def test_faults_in_earnest_inside_onnx_runtime(make: Any, faulty: dict[str, bytes], order: tuple[str, ...]) -> None:
    """A loop without end, more memory than there is, a root of a negative number; usual inputs are answered by the first again."""
    net, cpu, before = make(), Device('cpu'), threading.active_count()
    f = Fallback([*(load(Swapped(cpu, label=k, data=faulty[k]), net, CLOCK) for k in order), load(Onnx(cpu), net, CLOCK)], CLOCK, Rest(failures=3, first_s=0.01, most_s=0.02))
    said, spent = together(f, 1.5 if 'hung' in order else 30.0, lambda i: np.full((1, 3), 1e15 * (1 + i), np.float32))
    assert all(isinstance(s, NoAnswer) or s.provider == 'onnx-cpu' for s in said) and spent < 12
    assert any(not isinstance(s, NoAnswer) for s in said)
    for s in said:
        for a in s.attempts: assert a.kind in {a.provider, 'open', 'busy', 'late', 'raised'}, a      # raised: ended by `stop` when its caller gave up
    def well() -> bool:
        try: return bool(f.run({'x': small(1)}, CLOCK.monotonic() + 10 * SECOND).provider == order[0])
        except NoAnswer: return False
    assert until(well)
    f.release()
    assert until(lambda: threading.active_count() == before)
