"""From devices to an answer: loaded where it can run, measured there once, ordered by the work, within memory."""
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.breaker import Rest
from gekko.compute.choose import WorkloadProfile
from gekko.compute.devices import Device, Health
from gekko.compute.fallback import NoAnswer
from gekko.compute.measure import Latency, Measurements
from gekko.compute.memory import footprint
from gekko.compute.network import Network, sample
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Session
from gekko.compute.serving import Place, Served, loaded_on, serve
from gekko.compute.torch import Torch
from gekko.domain.errors import BadInput
from gekko.domain.time import SECOND, SystemClock

CLOCK, CPU = SystemClock(), Device('cpu', free=1 << 30)
BOTH = [Place(Torch(CPU), CPU), Place(Onnx(CPU), CPU)]


def figures(path: Path, net: Network, **p99: float) -> Measurements:
    """A store that knows these figures, by format."""
    store = Measurements(path)
    for p in BOTH: store.put(Latency(p.provider.name, net.digest, 1, p.provider.made_of, 200, p99[p.provider.format] / 2, p99[p.provider.format]))
    return store


@pytest.mark.parametrize(('onnx', 'pt2', 'order'), [(100, 900, ['onnx-cpu', 'torch-cpu']), (900, 100, ['torch-cpu', 'onnx-cpu'])])
def test_the_faster_here_comes_first(forecaster: tuple[Network, Any], tmp_path: Path, onnx: float, pt2: float, order: list[str]) -> None:
    net, eager = forecaster
    served = serve(net, BOTH, WorkloadProfile(latency_us=500), figures(tmp_path / 'x.json', net, onnx=onnx, pt2=pt2), CLOCK)
    assert [c.provider for c in served.choices] == order and [c.right for c in served.choices] == [True, False]
    given = sample(net, 3)
    answer = served.fallback.run(given, CLOCK.monotonic() + 60 * SECOND)
    assert answer.provider == order[0] and np.allclose(answer.outputs['forecast'], eager(given), rtol=1e-5, atol=1e-6)
    served.fallback.release()


def test_measured_once(forecaster: tuple[Network, Any], tmp_path: Path) -> None:
    path = tmp_path / 'x.json'
    first = serve(forecaster[0], BOTH, WorkloadProfile(), Measurements(path), CLOCK, runs=3)
    kept = path.read_text()
    again = serve(forecaster[0], BOTH, WorkloadProfile(), Measurements(path), CLOCK, runs=3)
    assert path.read_text() == kept and again.choices == first.choices
    for s in (first, again): s.fallback.release()


def test_two_providers_on_one_device_share_its_memory(forecaster: tuple[Network, Any]) -> None:
    net = forecaster[0]
    room = footprint(net, 'pt2') + footprint(net, 'onnx') // 2
    there, refused = loaded_on(net, [Place(p.provider, CPU, room) for p in BOTH], CLOCK)
    assert [x.name for _, x in there] == ['torch-cpu'] and [(r.provider, r.kind) for r in refused] == [('onnx-cpu', 'memory')]
    for _, x in there: x.release()


def test_a_hot_device_is_not_preferred(forecaster: tuple[Network, Any], tmp_path: Path) -> None:
    net, hot = forecaster[0], Device('cpu', free=1 << 30, health=Health(95.0, True))
    served = serve(net, [Place(Onnx(hot), hot), BOTH[0]], WorkloadProfile(), figures(tmp_path / 'x.json', net, onnx=100, pt2=900), CLOCK)
    assert [(c.provider, c.misses) for c in served.choices] == [('torch-cpu', ()), ('onnx-cpu', ('slowed by heat',))]
    served.fallback.release()


@dataclass(frozen=True)
class Full(Onnx):
    """A card whose memory others have taken since it was probed."""
    @property
    def name(self) -> str: return 'full'

    def open(self, data: bytes, network: Network, batch: int) -> Session: raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')


def test_where_it_cannot_run_is_said(forecaster: tuple[Network, Any], tmp_path: Path) -> None:
    net, store = forecaster[0], Measurements(tmp_path / 'x.json')
    places = [Place(Full(CPU), CPU), Place(Torch(Device('cuda', free=1 << 30)), Device('cuda', 7, free=1 << 30))]
    served = serve(net, [*places[:1], BOTH[1]], WorkloadProfile(), store, CLOCK, runs=3)
    assert [c.provider for c in served.choices] == ['onnx-cpu'] and [(r.provider, r.kind) for r in served.refused] == [('full', 'memory')]
    served.fallback.release()
    with pytest.raises(NoAnswer) as e: serve(net, [Place(Full(CPU), CPU), Place(Onnx(CPU), CPU, room=1)], WorkloadProfile(), store, CLOCK)
    assert [a.kind for a in e.value.attempts] == ['memory', 'memory']
    with pytest.raises(NoAnswer): serve(net, BOTH, WorkloadProfile(memory=1), figures(tmp_path / 'y.json', net, onnx=1, pt2=1), CLOCK)


@dataclass(frozen=True)
class Steered(Onnx):
    """ONNX Runtime whose runs can be slowed down, or held for good, from outside."""
    label: str = 'steered'
    held: Any = None            # an Event to wait for, or seconds, in a list of one

    @property
    def name(self) -> str: return self.label

    def open(self, data: bytes, network: Network, batch: int) -> Session:
        session, held = super().open(data, network, batch), self.held

        class Slow:
            def run(self, inputs: Any) -> Any:
                if isinstance(held[0], threading.Event): held[0].wait(60)
                elif held[0]: threading.Event().wait(held[0])
                return session.run(inputs)

            def stop(self) -> None: session.stop()
            def close(self) -> None: session.close()
        return Slow()


def steered(net: Network, tmp_path: Path, **held: list[Any]) -> tuple[Served, dict[str, str]]:
    """Served by these, in the order of their names, each on a device of its own: their kinds by name."""
    kinds = dict(zip(held, ('cuda', 'mps', 'cpu'), strict=False))
    places = [Place(Steered(Device(k), label=n, held=held[n]), Device(k, free=1 << 30)) for n, k in kinds.items()]
    store = Measurements(tmp_path / 'steered.json')
    for i, p in enumerate(places): store.put(Latency(p.provider.name, net.digest, 1, p.provider.made_of, 200, 100.0 + i, 200.0 + i))
    return serve(net, places, WorkloadProfile(), store, CLOCK, Rest(first_s=0.05)), kinds


def found(kinds: dict[str, str], **health: Health) -> list[Device]: return [Device(k, health=health.get(n, Health())) for n, k in kinds.items()]


def soon(s: float = 30.0) -> int: return CLOCK.monotonic() + round(s * SECOND)


def test_a_device_that_gets_hot_while_it_serves_is_passed_over_until_it_is_cool(make: Any, tmp_path: Path) -> None:
    """With eight callers all the while, none of whom goes without an answer."""
    served, kinds = steered(make(), tmp_path, a=[0.0], b=[0.0], c=[0.0])
    given, over, failed = {'x': np.ones((1, 3), np.float32)}, threading.Event(), list[BaseException]()

    def call() -> None:
        while not over.is_set():
            try: assert served.fallback.run(given, soon()).outputs['y'].tolist() == [[2.0] * 3]
            except BaseException as e: failed.append(e)
    threads = [threading.Thread(target=call) for _ in range(8)]
    for t in threads: t.start()
    hot, worse = Health(95.0, True), Health(errors=3)
    orders = [tuple(c.provider for c in served.reconsider(lambda now=now: now)) for now in (found(kinds), found(kinds, a=hot), found(kinds, a=hot, b=worse), found(kinds, b=worse), found(kinds))]
    over.set()
    for t in threads: t.join()
    assert orders == [('a', 'b', 'c'), ('b', 'c', 'a'), ('c', 'a', 'b'), ('a', 'c', 'b'), ('a', 'b', 'c')] and served.changes == 4 and failed == []
    assert served.fallback.run(given, soon()).provider == 'a'
    served.reconsider(lambda: found(kinds, a=hot))
    assert served.fallback.run(given, soon()).provider == 'b' and served.status()['providers']['a']['misses'] == ['slowed by heat']
    served.fallback.release()


def test_a_card_that_is_gone_and_a_machine_that_nobody_probes(make: Any, tmp_path: Path) -> None:
    served, kinds = steered(make(), tmp_path, a=[0.0], b=[0.0])
    served.reconsider(lambda: [Device('cuda', 1), Device('mps')])
    assert served.fallback.order == ('b', 'a') and served.status()['providers']['a']['misses'] == ['the device is gone']
    served.reconsider(lambda: [Device('cuda', why_not='no NVIDIA driver on this machine'), Device('mps')])
    assert served.status()['providers']['a']['misses'] == ['no NVIDIA driver on this machine']
    served.reconsider(lambda: [Device('cpu')])
    assert served.fallback.order == ('a', 'b')
    served.fallback.release()


def test_what_has_become_slow_is_measured_again_when_its_figure_is_stale(make: Any, tmp_path: Path) -> None:
    slow, net = [0.0], make()
    served, kinds = steered(net, tmp_path, a=slow, b=[0.0])
    served.reconsider(lambda: found(kinds), stale_s=0)
    slow[0] = 0.02
    assert served.reconsider(lambda: found(kinds))[0].provider == served.fallback.order[0]         # not stale: nothing is measured
    assert [c.provider for c in served.reconsider(lambda: found(kinds), stale_s=0, runs=5)] == ['b', 'a']
    kept = Measurements(tmp_path / 'steered.json').get('a', net.digest, 1, Steered(Device('cuda')).made_of)
    assert kept is not None and kept.p50_us >= 20_000 and kept.runs == 5
    slow[0] = 0.0
    served.fallback.release()


def test_one_that_hangs_while_it_is_measured_is_given_up(make: Any, tmp_path: Path) -> None:
    """In the time given, in its own thread, with its breaker open; once it is back it is asked again."""
    hold: list[Any] = [0.0]
    served, kinds = steered(make(), tmp_path, a=hold, b=[0.0])
    given, before = {'x': np.ones((1, 3), np.float32)}, threading.active_count()
    assert served.fallback.run(given, soon()).provider == 'a'
    lock = hold[0] = threading.Event()
    start = CLOCK.monotonic()
    choices = served.reconsider(lambda: found(kinds), stale_s=0, within_s=0.2)
    assert CLOCK.monotonic() - start < 20 * SECOND
    assert [(c.provider, c.misses) for c in choices] == [('b', ()), ('a', ('its breaker is open',))]
    assert served.fallback.run(given, soon()).provider == 'b' and threading.active_count() == before
    hold[0] = 0.0
    lock.set()
    while served.fallback.states['a'] == 'open': threading.Event().wait(0.005)
    for _ in range(100):
        if served.reconsider(lambda: found(kinds, b=Health(90.0, True)), stale_s=0)[0].provider == 'a': break
    assert served.fallback.run(given, soon()).provider == 'a'
    served.fallback.release()


def test_the_status_says_it_all(make: Any, tmp_path: Path) -> None:
    hold: list[Any] = [0.0]
    served, _ = steered(make(), tmp_path, a=hold, b=[0.0])
    given = {'x': np.ones((1, 3), np.float32)}
    assert served.status()['providers']['a']['p50_us'] is None and served.status()['degraded'] == 0
    for _ in range(3): served.fallback.run(given, soon())
    lock = hold[0] = threading.Event()
    for _ in range(2): served.fallback.run(given, soon(0.2))
    said = json.loads(json.dumps(served.status()))
    lock.set()
    assert (said['serving'], said['order'], said['degraded']) == ('b', ['a', 'b'], 2)
    a, b = said['providers']['a'], said['providers']['b']
    assert (a['breaker'], a['calls'], a['recent']) == ('open', {'answered': 3, 'hung': 1, 'open': 1}, 3) and (b['breaker'], b['calls'], b['recent']) == ('closed', {'answered': 2}, 2)
    assert 0 < a['p50_us'] <= a['p99_us'] and said['network'] == served.fallback.network.digest and said['refused'] == []
    served.fallback.release()


def test_a_new_look_with_nothing_to_look_with(make: Any, tmp_path: Path) -> None:
    served, _ = steered(make(), tmp_path, a=[0.0])
    for bad in ({'stale_s': -1}, {'runs': 0}, {'within_s': 0}):
        with pytest.raises(BadInput): served.reconsider(list, **bad)
    served.fallback.release()
