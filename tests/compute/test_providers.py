"""Providers agree with the module they were exported from, refuse what isn't theirs, and keep to themselves."""
import os
import pickle
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.devices import Device
from gekko.compute.measure import measure
from gekko.compute.network import Network, Port, network, sample
from gekko.compute.onnx import Onnx, onnx_providers
from gekko.compute.provider import Failed, Late, Nonsense, OutOfMemory, Session, Unsupported, load
from gekko.compute.torch import Torch, capped, torch_providers, whole_floats
from gekko.domain.errors import BadInput
from gekko.domain.time import SystemClock

CLOCK, CPU = SystemClock(), Device('cpu')
PROVIDERS = [Onnx(CPU), Onnx(CPU, threads=2), Torch(CPU)]


@pytest.fixture
def faults(faulty: dict[str, bytes], tmp_path: Path) -> dict[str, Network]:
    for kind, data in faulty.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / 'batch_1.onnx').write_bytes(data)
    return {kind: network(tmp_path / kind, [Port('x', (3,))], [Port('y', (3,))]) for kind in faulty}


@pytest.mark.parametrize('provider', PROVIDERS, ids=lambda p: f'{p.name}-{p.threads}')
@pytest.mark.parametrize('n', [1, 3, 8, 17])
def test_as_the_module_says(forecaster: tuple[Network, Any], provider: Any, n: int) -> None:
    net, eager = forecaster
    loaded = load(provider, net, CLOCK)
    given = sample(net, n, seed=n)
    expected, found = eager(given), loaded.run(given)['forecast']
    loaded.release()
    assert found.shape == (n, 24) and found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize('provider', PROVIDERS[::2], ids=lambda p: p.name)
def test_a_row_does_not_see_its_neighbours(forecaster: tuple[Network, Any], provider: Any) -> None:
    """Padding and company change nothing but the last bits."""
    net, _ = forecaster
    eight, one = load(provider, net, CLOCK, (8,)), load(provider, net, CLOCK, (1,))
    given = sample(net, 5)
    together = eight.run(given)['forecast']
    alone = np.concatenate([one.run({k: a[i:i + 1] for k, a in given.items()})['forecast'] for i in range(5)])
    assert np.allclose(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('provider', PROVIDERS[::2], ids=lambda p: p.name)
@pytest.mark.parametrize('damage', [lambda b: b[:len(b) // 2], lambda b: b'', lambda b: pickle.dumps({'weights': b}), lambda b: b[::-1]], ids=['cut', 'empty', 'pickle', 'reversed'])
def test_a_damaged_file_is_refused(forecaster: tuple[Network, Any], tmp_path: Path, provider: Any, damage: Any) -> None:
    """Described as it is, so the digest is right: the provider itself must see it."""
    net, _ = forecaster
    name = f'batch_1.{provider.format}'
    (tmp_path / name).write_bytes(damage((net.path / name).read_bytes()))
    with pytest.raises((BadInput, Unsupported)): load(provider, network(tmp_path, net.inputs, net.outputs), CLOCK)


@pytest.mark.parametrize('provider', PROVIDERS[::2], ids=lambda p: p.name)
def test_a_wrong_description_is_refused(forecaster: tuple[Network, Any], provider: Any) -> None:
    net, _ = forecaster
    for inputs, outputs in ((net.inputs[:1], net.outputs), (net.inputs, (Port('forecast', (25,)),)), ((Port('window', (95,)), net.inputs[1]), net.outputs)):
        with pytest.raises((BadInput, Unsupported)): load(provider, network(net.path, inputs, outputs), CLOCK)


def test_a_format_or_batch_it_lacks(make: Any) -> None:
    with pytest.raises(Unsupported, match='no pt2 file'): load(Torch(CPU), make(), CLOCK)
    with pytest.raises(BadInput, match=r'some of \[1\]'): load(Onnx(CPU), make('two'), CLOCK, (2,))


def test_nan_in_earnest(faults: dict[str, Network]) -> None:
    loaded = load(Onnx(CPU), faults['nonsense'], CLOCK)
    assert loaded.run({'x': np.ones((1, 3), np.float32)})['y'].tolist() == [[2.0] * 3]
    with pytest.raises(Nonsense): loaded.run({'x': np.full((1, 3), 2000, np.float32)})


def test_out_of_memory_in_earnest(faults: dict[str, Network]) -> None:
    loaded = load(Onnx(CPU), faults['memory'], CLOCK)
    with pytest.raises(OutOfMemory): loaded.run({'x': np.full((1, 3), 1e15, np.float32)})
    assert loaded.run({'x': np.ones((1, 3), np.float32)})['y'].tolist() == [[2.0] * 3]


def test_a_hung_run_is_ended(faults: dict[str, Network]) -> None:
    """ONNX Runtime looks between operators whether it should stop. Without `stop` this would loop for weeks."""
    loaded, said = load(Onnx(CPU), faults['hung'], CLOCK), []

    def run() -> None:
        try: loaded.run({'x': np.full((1, 3), 1e15, np.float32)})
        except Failed as e: said.append(e)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        loaded.stop()
        thread.join(0.01)
    assert len(said) == 1
    assert loaded.run({'x': np.ones((1, 3), np.float32)})['y'].tolist() == [[2.0] * 3]


def test_a_deadline_that_is_over(make: Any) -> None:
    loaded = load(Onnx(CPU), make(), CLOCK)
    with pytest.raises(Late): loaded.run(sample(loaded.network, 1), CLOCK.monotonic())
    assert loaded.run(sample(loaded.network, 1), CLOCK.monotonic() + 60 * 10**9)


def test_release_is_for_good(make: Any) -> None:
    loaded = load(Onnx(CPU), make(), CLOCK)
    loaded.release()
    loaded.release()
    with pytest.raises(Failed, match='released'): loaded.run(sample(loaded.network, 1))


def test_threads_share_a_network(forecaster: tuple[Network, Any]) -> None:
    net, eager = forecaster
    loaded, wrong = load(Onnx(CPU), net, CLOCK), []

    def run(seed: int) -> None:
        given = sample(net, 1 + seed % 9, seed)
        for _ in range(20):
            if not np.allclose(loaded.run(given)['forecast'], eager(given), rtol=1e-4, atol=1e-5): wrong.append(seed)
    threads = [threading.Thread(target=run, args=(s,)) for s in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert wrong == []


@dataclass(frozen=True)
class Lacking(Torch):
    """torch on a device that lacks an operator: what Metal says, at the first run."""
    def open(self, data: bytes, network: Network, batch: int) -> Session:
        session = super().open(data, network, batch)
        def missing(*_: object) -> Any: raise NotImplementedError("The operator 'aten::_thing' is not currently implemented for the MPS device")      # torch's own error and words
        session._module = missing       # type: ignore[attr-defined]
        return session


def test_a_missing_operator_is_found_at_load(forecaster: tuple[Network, Any]) -> None:
    with pytest.raises(Unsupported, match='not currently implemented for the MPS device'): load(Lacking(CPU), forecaster[0], CLOCK)


def test_a_missing_device_is_found_at_load(forecaster: tuple[Network, Any]) -> None:
    import torch
    for kind, there in (('cuda', torch.cuda.is_available()), ('mps', torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(Unsupported): load(Torch(Device(kind)), forecaster[0], CLOCK)


def test_onnx_tells_nobody_and_needs_no_torch(make: Any, tmp_path: Path) -> None:
    """The Linux build keeps a file of its telemetry in the user's cache unless told otherwise before it is imported."""
    net, home = make(), tmp_path / 'home'
    home.mkdir()
    code = f'''
import sys
from pathlib import Path
from gekko.compute.devices import Device
from gekko.compute.network import Port, network, sample
from gekko.compute.onnx import Onnx, onnx_providers
from gekko.compute.provider import load
from gekko.domain.time import SystemClock
assert not {{"torch", "onnxruntime"}} & set(sys.modules), "imported before it was asked for"
net = network(Path({str(net.path)!r}), [Port("x", (3,))], [Port("y", (3,))])
loaded = load(Onnx(Device("cpu")), net, SystemClock())
loaded.run(sample(net, 2))
print(sorted({{"torch", "onnxruntime", "neuralforecast"}} & set(sys.modules)))
'''
    env = {k: v for k, v in os.environ.items() if k not in ('ORT_DISABLE_TELEMETRY', 'XDG_CACHE_HOME')} | {'HOME': str(home), 'PYTHONDONTWRITEBYTECODE': '1'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "['onnxruntime']", done.stderr
    assert [str(p.relative_to(home)) for p in home.rglob('*')] == []


def test_a_card_is_told_to_use_whole_floats_and_its_cap() -> None:
    """The settings that a card gets, as torch and ONNX Runtime take them: 10 bits of fraction would be a thousand times coarser than the parity promised."""
    card = Device('cuda', 1, total=80 << 30)
    assert Onnx(card, 'cuda', memory=1 << 30)._engine() == ('CUDAExecutionProvider', {'device_id': '1', 'use_tf32': '0', 'gpu_mem_limit': str(1 << 30), 'arena_extend_strategy': 'kSameAsRequested'})
    assert Onnx(card, 'cuda')._engine()[1] == {'device_id': '1', 'use_tf32': '0'} and Onnx(CPU)._engine() == 'CPUExecutionProvider'

    class Told:
        class backends:
            class cuda:
                class matmul: allow_tf32 = True
            class cudnn: allow_tf32 = True
        class cuda:
            said: list[tuple[float, int]] = []
            set_per_process_memory_fraction = staticmethod(lambda share, index: Told.cuda.said.append((share, index)))
            get_device_properties = staticmethod(lambda i: type('P', (), {'total_memory': 40 << 30}))
    whole_floats(Told)
    assert not Told.backends.cuda.matmul.allow_tf32 and not Told.backends.cudnn.allow_tf32
    for device in (card, Device('cuda', 0), Device('cuda', 2, total=1 << 30), CPU): capped(Told, device, 10 << 30)
    assert Told.cuda.said == [(0.125, 1), (0.25, 0), (1.0, 2)]


def test_only_cards_are_capped() -> None:
    class Everything:
        def get_available_providers(self) -> list[str]: return ['CUDAExecutionProvider', 'CoreMLExecutionProvider', 'CPUExecutionProvider']
    found = [Device('cuda', 0), Device('cuda', 1, why_not='lost'), Device('mps'), CPU]
    assert [(p.name, p.memory) for p in torch_providers(found, memory=7)] == [('torch-cuda:0', 7), ('torch-mps', None), ('torch-cpu', None)]
    assert [(p.name, p.memory) for p in onnx_providers(found, Everything(), memory=7)] == [('onnx-cuda:0', 7), ('onnx-coreml', None), ('onnx-cpu', None)]


def test_a_closed_torch_network_gives_its_memory_back_at_once(forecaster: tuple[Network, Any]) -> None:
    """Without waiting for a collection of garbage; the networks beside it keep theirs."""
    import gc
    import weakref
    net, eager = forecaster
    gc.collect()
    gc.disable()
    try:
        first, second = (load(Torch(CPU), net, CLOCK, (1,)) for _ in range(2))
        weights = [weakref.ref(w) for w in first._sessions[1]._program.state_dict.values()]      # type: ignore[attr-defined]
        assert len(weights) >= 8 and all(w() is not None for w in weights)
        first.release()
        assert [w() for w in weights] == [None] * len(weights)
    finally: gc.enable()
    given = sample(net, 1)
    assert np.allclose(second.run(given)['forecast'], eager(given), rtol=1e-5, atol=1e-6)
    second.release()


@pytest.mark.parametrize('provider', PROVIDERS, ids=lambda p: f'{p.name}-{p.threads}')
def test_one_way_through_all_of_them(forecaster: tuple[Network, Any], provider: Any) -> None:
    """Loaded, warmed, run, measured, let go: the same calls whatever the library and the device."""
    net, _ = forecaster
    loaded = load(provider, net, CLOCK)
    assert (loaded.name, loaded.batches, loaded.bytes) == (provider.name, (1, 8), net.bytes(provider.format))
    loaded.warm(1)
    assert loaded.run(sample(net, 2))['forecast'].shape == (2, 24)
    found = measure(loaded, CLOCK, batch=2, runs=5, warm=0)
    assert (found.provider, found.digest, found.batch, found.runs, found.made_of) == (provider.name, net.digest, 2, 5, provider.made_of) and found.p50_us > 0
    loaded.stop()
    loaded.release()
    with pytest.raises(Failed, match='released'): measure(loaded, CLOCK)
