"""From devices to an answer: loaded where it can run, measured there once, ordered by the work, within memory."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.choose import WorkloadProfile
from gekko.compute.devices import Device, Health
from gekko.compute.fallback import NoAnswer
from gekko.compute.measure import Latency, Measurements
from gekko.compute.memory import footprint
from gekko.compute.network import Network, sample
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Session
from gekko.compute.serving import Place, loaded_on, serve
from gekko.compute.torch import Torch
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
