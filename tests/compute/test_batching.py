"""Requests are run together without being mixed up, in the order the policy says, and never after their deadline."""
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.compute.batching import Batcher, Model
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback
from gekko.compute.network import Network, Port
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Failed, Late, load
from gekko.compute.queue import POLICIES, Batch, Lane, Queue, Request, by_model_size, by_priority, round_robin
from gekko.domain.errors import BadInput
from gekko.domain.time import SECOND, SystemClock

CLOCK = SystemClock()
LANES = [Lane('a', 1, 50, 5), Lane('b', 4, 10, 10), Lane('c', 32, 900, 20)]
requests = st.builds(lambda model, rows, arrived, left, priority: (model, rows, arrived, arrived + left, priority),
                     st.sampled_from('abc'), st.integers(1, 40), st.integers(0, 500), st.integers(0, 2000), st.integers(-1, 2))


def played(policy: Any, linger: int, asked: list[Any], step: int) -> tuple[list[Request], list[tuple[int, Batch]], list[tuple[int, Request]]]:
    """Requests come at their time, and the queue is looked at every `step` ns until it is empty."""
    q, made = Queue(LANES, policy, linger), [Request(i, *a) for i, a in enumerate(sorted(asked, key=lambda a: a[2]))]
    coming, ran, gone, now = list(made), [], [], 0
    while coming or len(q):
        while coming and coming[0].arrived <= now: q.add(coming.pop(0))
        gone += [(now, r) for r in q.expired(now)]
        at = q.next()
        while (b := q.take(now)) is not None: ran.append((now, b))
        assert (at is not None and at <= now) == any(t == now for t, _ in ran)      # `next` says truly when something is due
        now += step
    return made, ran, gone


@given(st.sampled_from(sorted(POLICIES)), st.integers(0, 200), st.lists(requests, max_size=40), st.integers(1, 50))
def test_every_request_ends_once(policy: str, linger: int, asked: list[Any], step: int) -> None:
    made, ran, gone = played(POLICIES[policy], linger, asked, step)
    ended = [r.number for _, b in ran for r in b.requests] + [r.number for _, r in gone]
    assert sorted(ended) == [r.number for r in made]
    most, cost = {x.model: x.most for x in LANES}, {x.model: x.cost for x in LANES}
    for now, b in ran:
        assert b.rows <= most[b.model] or len(b.requests) == 1
        assert {r.model for r in b.requests} == {b.model} and now + cost[b.model] < b.deadline
        assert list(b.requests) == sorted(b.requests, key=lambda r: r.order)
    for now, r in gone: assert now + cost[r.model] >= r.deadline
    for now, b in ran:
        first = min(r.arrived for r in b.requests)
        full = b.rows >= most[b.model]
        if not full: assert now <= first + linger + step or any(t == now and x is not b for t, x in ran) or now - step < first + linger       # nobody lingers longer than said


@given(st.lists(st.sampled_from('abc'), min_size=1, max_size=60))
def test_round_robin_takes_turns(models: list[str]) -> None:
    q = Queue([Lane(m, 1) for m in 'abc'], round_robin)
    for i, m in enumerate(models): q.add(Request(i, m, 1, 0, 10**9))
    order, left = [], {m: models.count(m) for m in 'abc'}
    while (b := q.take(0)) is not None:
        waiting = [m for m in 'abc' if left[m]]
        assert b.model not in order[-(len(waiting) - 1):] if len(waiting) > 1 else True
        order.append(b.model)
        left[b.model] -= 1
    assert len(order) == len(models)


@given(st.lists(st.tuples(st.sampled_from('abc'), st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=40))
def test_priority_is_strict(asked: list[tuple[str, int, int]]) -> None:
    q = Queue([Lane(m, 1) for m in 'abc'], by_priority)
    for i, (m, p, d) in enumerate(asked): q.add(Request(i, m, 1, 0, d * 100, p))
    order = []
    while (b := q.take(0)) is not None: order.append((-b.requests[0].priority, b.deadline))
    assert order == sorted(order)


@given(st.integers(2, 5), st.integers(5, 40))
def test_the_smallest_first_starves_nobody(lanes: int, turns: int) -> None:
    """Endless work for every model: each is served at least once in twice as many turns as there are models."""
    q, n, order = Queue([Lane(str(i), 1, bytes=i) for i in range(lanes)], by_model_size), 0, []
    for _ in range(turns):
        for m in q.lanes:
            q.add(Request(n, m, 1, 0, 10**9))
            n += 1
        b = q.take(0)
        assert b is not None
        order.append(b.model)
    window = 2 * lanes + 1
    assert all({*order[i:i + window]} == set(q.lanes) for i in range(turns - window + 1))


@pytest.mark.parametrize('bad', [lambda: Queue([]), lambda: Queue([Lane('a', 1), Lane('a', 2)]), lambda: Queue([Lane('a', 1)], linger=-1), lambda: Lane('a', 1, bytes=-1)])
def test_what_is_no_queue(bad: Any) -> None:
    with pytest.raises(BadInput): bad()


def soon(s: float = 60.0) -> int: return CLOCK.monotonic() + round(s * SECOND)


@pytest.mark.parametrize('policy', POLICIES.values(), ids=POLICIES)
def test_real_networks_from_many_threads(make: Any, policy: Any) -> None:
    """Three networks exported for 1, 4 and 16 rows; twelve threads ask for 1 to 20 rows; everyone gets its own rows from its own network."""
    nets = {f'm{i}': make(f'm{i}', batches=(1, 4, 16), by=float(i)) for i in (1, 2, 3)}
    serving = {k: Fallback([load(Onnx(Device('cpu')), n, CLOCK)], CLOCK) for k, n in nets.items()}
    runs, wrong = list[int](), list[Any]()

    def run(model: str, inputs: Any, deadline: int) -> Any:
        runs.append(len(inputs['x']))
        return serving[model].run(inputs, deadline).outputs
    batcher = Batcher([Model(k, n, 16, n.bytes('onnx')) for k, n in nets.items()], run, CLOCK, policy, linger_s=0.002)

    def ask(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(15):
            model = rng.choice(list(nets))
            x = np.random.default_rng(seed).standard_normal((rng.randint(1, 20), 3), dtype=np.float32)
            out = batcher.ask(model, {'x': x}, soon(), rng.randint(0, 2)).result(60)
            if not np.array_equal(out['y'], x * np.float32(model[1:])): wrong.append((seed, model))
    threads = [threading.Thread(target=ask, args=(s,)) for s in range(12)]
    for t in threads: t.start()
    for t in threads: t.join()
    batcher.close()
    assert wrong == [] and batcher.counts == {'answered': 180, 'runs': len(runs)}
    for f in serving.values(): f.release()


NET = Network(Path('.'), 'd', (), (Port('x', (1,)),), (Port('y', (1,)),))
ROW = {'x': np.ones((1, 1), np.float32)}


def test_a_failed_run_is_everyone_s_and_the_next_is_not() -> None:
    faults = [Failed('gone'), ValueError('odd'), None]

    def run(model: str, inputs: Any, deadline: int) -> Any:
        if (fault := faults.pop(0)) is not None: raise fault
        return {'y': inputs['x']}
    b = Batcher([Model('m', NET, 8, 1)], run, CLOCK)
    with pytest.raises(Failed, match='gone'): b.ask('m', ROW, soon()).result(60)
    with pytest.raises(ValueError, match='odd'): b.ask('m', ROW, soon()).result(60)
    assert b.ask('m', ROW, soon()).result(60)['y'].tolist() == [[1.0]]
    b.close()


def test_a_cancelled_request_harms_nobody() -> None:
    b = Batcher([Model('m', NET, 8, 1)], lambda m, i, d: {'y': i['x']}, CLOCK, linger_s=0.2)
    gone, kept = b.ask('m', ROW, soon()), b.ask('m', ROW, soon())
    assert gone.cancel() and kept.result(60)['y'].tolist() == [[1.0]]
    b.close()


def test_what_waits_at_the_end_is_answered() -> None:
    b = Batcher([Model('m', NET, 8, 1)], lambda m, i, d: {'y': i['x']}, CLOCK, linger_s=0.2)
    waiting = [b.ask('m', ROW, soon()) for _ in range(3)]
    b.close()
    assert all(w.done() and w.result()['y'].tolist() == [[1.0]] for w in waiting)
    with pytest.raises(Failed, match='closed'): b.ask('m', ROW, soon())


def test_a_request_whose_time_is_over_costs_no_run() -> None:
    runs = []
    b = Batcher([Model('m', NET, 8, 1, cost=SECOND)], lambda m, i, d: runs.append(m) or {'y': i['x']}, CLOCK)
    with pytest.raises(Late): b.ask('m', ROW, soon(0.5)).result(60)
    assert runs == []
    b.close()
