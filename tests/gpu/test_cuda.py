"""What only a real NVIDIA card can show: the same numbers, its memory kept within a budget, and somebody else's answer when it is full. Without a card every check here is listed as not run."""
from __future__ import annotations

import gc
import os
import random
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.breaker import Rest
from gekko.compute.choose import WorkloadProfile
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback
from gekko.compute.measure import Measurements, measure
from gekko.compute.memory import Pool, footprint, meter
from gekko.compute.network import Network, Port, network, sample
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Loaded, OutOfMemory, load
from gekko.compute.serving import Place, serve
from gekko.compute.torch import Torch
from gekko.domain.time import SECOND, SystemClock
from gekko.jobs.forecast_bench import SPEC, Subject, parity, subject

CLOCK, CPU, WIDTH = SystemClock(), Device('cpu', free=4 << 30), 3600
FILE = 4 * WIDTH * WIDTH          # 52 MB


@pytest.fixture(scope='module')
def trained(card: Device, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """NHITS of the library's default size; made only where there is a card."""
    return subject(tmp_path_factory.mktemp('trained'), SPEC, (1, 50, 1024))


def products(folder: Path, count: int, rows: int) -> dict[str, Network]:
    """Networks of 52 MB, a product of a row with a matrix: row i answers i in its first column."""
    import torch

    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            w = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32)
            w[:20, 0] = np.arange(20)
            self.w = torch.nn.Parameter(torch.from_numpy(w))

        def forward(self, x: Any) -> Any: return x @ self.w
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.export.save(torch.export.export(Product().eval(), (torch.zeros(rows, WIDTH),)), folder / 'one.pt2')
    for i in range(count):
        (folder / f'm{i}').mkdir()
        os.link(folder / 'one.pt2', folder / f'm{i}' / f'batch_{rows}.pt2')
    return {f'm{i}': network(folder / f'm{i}', [Port('x', (WIDTH,))], [Port('y', (WIDTH,))]) for i in range(count)}


def asked(i: int, rows: int = 1) -> dict[str, np.ndarray]:
    x = np.zeros((rows, WIDTH), np.float32)
    x[:, i] = 1
    return {'x': x}


def settled(card: Device) -> int:
    """Bytes that torch holds for tensors on the card, with nothing left over from before."""
    import torch
    gc.collect()
    torch.cuda.synchronize(card.index)
    torch.cuda.empty_cache()
    return int(torch.cuda.memory_allocated(card.index))


@contextmanager
def exhausted(card: Device, left: int = 1 << 20) -> Iterator[None]:
    """This process may take only so many bytes more of the card than it has."""
    import torch
    settled(card)
    total = torch.cuda.get_device_properties(card.index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(card.index) + left) / total), card.index)
    try: yield
    finally: torch.cuda.set_per_process_memory_fraction(1.0, card.index)


def test_the_same_numbers_as_predict(card: Device, trained: Subject) -> None:
    loaded = load(Torch(card), trained.artefact.network, CLOCK)
    apart = parity(trained, loaded)
    print(card.name, apart)
    assert apart['price'] <= 1e-5 and apart['move'] <= 1e-5
    loaded.release()


def test_the_same_numbers_as_predict_through_onnx_runtime(onnx_card: Device, trained: Subject) -> None:
    loaded = load(Onnx(onnx_card, 'cuda'), trained.artefact.network, CLOCK)
    apart = parity(trained, loaded)
    print(onnx_card.name, apart)
    assert apart['price'] <= 1e-5 and apart['move'] <= 1e-5
    loaded.release()


@pytest.mark.parametrize('rows', [1, 50, 1024])
def test_the_same_numbers_as_the_processor(card: Device, trained: Subject, rows: int) -> None:
    there, here = (load(p, trained.artefact.network, CLOCK, (rows,)) for p in (Torch(card), Torch(CPU)))
    given = sample(trained.artefact.network, rows)
    a, b = there.run(given)['forecast'], here.run(given)['forecast']
    assert a.shape == b.shape and np.abs(a - b).max() <= 1e-5 * np.abs(b).max()
    for x in (there, here): x.release()


def test_latency_is_measured_and_printed(card: Device, trained: Subject) -> None:
    loaded = load(Torch(card), trained.artefact.network, CLOCK, (1, 1024))
    for rows in (1, 1024):
        found = measure(loaded, CLOCK, rows)
        print(f'{card.name}: batch {rows}, p50 {found.p50_us:.0f} us, p99 {found.p99_us:.0f} us, {found.rows_per_s:.0f} rows/s')
        assert 0 < found.p50_us <= found.p99_us
    loaded.release()


def test_twenty_networks_stay_within_the_budget(card: Device, tmp_path: Path) -> None:
    """52 MB each through 300 MB, by torch's own count and by the card's; every answer is the right one."""
    import torch
    nets, budget, base = products(tmp_path, 20, 1), 300_000_000, settled(card)
    load(Torch(card), nets['m0'], CLOCK).release()
    base, free = settled(card), torch.cuda.mem_get_info(card.index)[0]
    torch.cuda.reset_peak_memory_stats(card.index)
    pool = Pool(card.id, budget, lambda k: load(Torch(card), nets[k], CLOCK), lambda k: footprint(nets[k], 'pt2'), meter(card))
    used, lost = list[int](), list[int]()
    for key in random.Random(1).choices(list(nets), k=30) + list(nets):
        with pool.use(key) as one: assert one.run(asked(int(key[1:])))['y'][0, 0] == float(int(key[1:]))
        used.append(torch.cuda.memory_allocated(card.index) - base)
        lost.append(free - torch.cuda.mem_get_info(card.index)[0])
    peak = torch.cuda.max_memory_allocated(card.index) - base
    print(f'{card.name}: most {max(used)}, peak {peak}, most of the card {max(lost)}, of {budget}; {dict(pool.counts)}, {pool.size("m0")}')
    assert pool.size('m0')[1] == 'measured' and 0.9 * FILE < pool.size('m0')[0] < 1.5 * FILE
    assert max(used) <= pool.budget and peak <= budget and max(lost) <= budget + (64 << 20)      # others may use the card; torch takes it in pieces
    pool.close()
    assert settled(card) - base < FILE // 10


def test_another_answers_when_the_memory_is_exhausted_and_it_answers_again_afterwards(card: Device, tmp_path: Path) -> None:
    """A run of 4,096 rows needs 118 MB beside the weights."""
    net = products(tmp_path, 1, 4096)['m0']
    f = Fallback([load(Torch(card), net, CLOCK), load(Torch(CPU), net, CLOCK)], CLOCK, Rest(first_s=0.05, most_s=0.1))
    given, soon = asked(7, 4096), lambda: CLOCK.monotonic() + 60 * SECOND
    assert f.run(given, soon()).provider == f'torch-{card.id}'
    with exhausted(card):
        answer = f.run(given, soon())
        assert answer.provider == 'torch-cpu' and [(a.provider, a.kind) for a in answer.attempts] == [(f'torch-{card.id}', 'memory')] and answer.outputs['y'][0, 0] == 7.0
    for _ in range(1000):
        if (again := f.run(given, soon())).provider != 'torch-cpu': break
        threading.Event().wait(0.01)
    assert again.provider == f'torch-{card.id}' and again.outputs['y'][0, 0] == 7.0
    f.release()


def test_a_load_onto_a_full_card_leaves_nothing(card: Device, tmp_path: Path) -> None:
    nets, base = products(tmp_path, 1, 1), settled(card)
    with exhausted(card), pytest.raises(OutOfMemory): load(Torch(card), nets['m0'], CLOCK)
    assert settled(card) == base


def test_a_full_card_makes_room_by_the_longest_unused(card: Device, tmp_path: Path) -> None:
    """The budget says room for ten, the card has room for two: loads are tried again, and succeed."""
    nets = products(tmp_path, 5, 1)
    load(Torch(card), nets['m0'], CLOCK).release()
    pool = Pool[Loaded](card.id, 20 * FILE, lambda k: load(Torch(card), nets[k], CLOCK), lambda k: footprint(nets[k], 'pt2'))
    with exhausted(card, round(2.8 * FILE)):
        for i in (0, 1, 2, 3, 4, 0):
            with pool.use(f'm{i}') as one: assert one.run(asked(i))['y'][0, 0] == float(i)
    print(card.name, dict(pool.counts))
    assert pool.counts['retried'] >= 3
    pool.close()


def test_a_cap_keeps_the_rest_of_the_card_for_others(card: Device, tmp_path: Path) -> None:
    import torch
    nets = products(tmp_path, 3, 1)
    load(Torch(card), nets['m0'], CLOCK).release()
    settled(card)
    capped = Torch(card, memory=torch.cuda.memory_reserved(card.index) + round(1.8 * FILE))
    try:
        first = load(capped, nets['m0'], CLOCK)
        with pytest.raises(OutOfMemory): load(capped, nets['m1'], CLOCK)
        assert first.run(asked(3))['y'][0, 0] == 3.0
        first.release()
    finally: torch.cuda.set_per_process_memory_fraction(1.0, card.index)


def test_an_answer_is_complete_whatever_else_the_card_does(card: Device, trained: Subject) -> None:
    """Long products on another stream, and the call itself made on a stream of its own."""
    import torch
    loaded, given = load(Torch(card), trained.artefact.network, CLOCK, (1,)), sample(trained.artefact.network, 1)
    expected = loaded.run(given)['forecast']
    aside, own = torch.cuda.Stream(card.index), torch.cuda.Stream(card.index)
    with torch.cuda.stream(aside):
        big = torch.ones(4096, 4096, device=card.id)
        for _ in range(50): big = big @ big * 1e-4
    for _ in range(50):
        with torch.cuda.stream(own): found = loaded.run(given)['forecast']
        assert np.array_equal(found, expected) or np.allclose(found, expected, rtol=1e-6, atol=1e-6)
    loaded.release()


def test_two_threads_and_two_networks(card: Device, trained: Subject, tmp_path: Path) -> None:
    one, two, wrong = load(Torch(card), trained.artefact.network, CLOCK, (1,)), load(Torch(card), products(tmp_path, 1, 1)['m0'], CLOCK), list[Any]()
    given = [sample(trained.artefact.network, 1, seed) for seed in range(8)]
    expected = [one.run(g)['forecast'] for g in given]

    def work(seed: int) -> None:
        for k in range(200):
            i = (seed + k) % 8
            if not np.allclose(one.run(given[i])['forecast'], expected[i], rtol=1e-5, atol=1e-6): wrong.append(i)
            if two.run(asked(i))['y'][0, 0] != float(i): wrong.append(i)
    threads = [threading.Thread(target=work, args=(s,)) for s in range(2)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert wrong == []
    for x in (one, two): x.release()


def test_it_is_chosen_by_what_was_measured(card: Device, trained: Subject, tmp_path: Path) -> None:
    """Whatever is faster here; at any rate both are loaded, and either answers alone."""
    served = serve(trained.artefact.network, [Place(Torch(card), card), Place(Onnx(CPU), CPU)], WorkloadProfile(), Measurements(tmp_path / 'latency.json'), CLOCK, batches=(1,), runs=50)
    status = served.status()
    print(card.name, [(c.provider, c.misses) for c in served.choices])
    assert set(status['order']) == {f'torch-{card.id}', 'onnx-cpu'} and status['refused'] == []
    for name in status['order']:
        served.fallback.prefer([name])
        assert served.fallback.run(sample(trained.artefact.network, 1), CLOCK.monotonic() + 60 * SECOND).provider == name
    served.fallback.release()


def test_onnx_runtime_keeps_to_its_own_cap(onnx_card: Device, trained: Subject) -> None:
    """2.6 million weights take 11 MB, and a cap of 2 MB is not enough."""
    with pytest.raises(OutOfMemory): load(Onnx(onnx_card, 'cuda', memory=2 << 20), trained.artefact.network, CLOCK)
    loaded = load(Onnx(onnx_card, 'cuda', memory=1 << 30), trained.artefact.network, CLOCK)
    assert loaded.run(sample(trained.artefact.network, 3))['forecast'].shape == (3, 24, 1)
    loaded.release()
