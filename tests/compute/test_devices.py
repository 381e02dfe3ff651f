"""Devices are found honestly: what is there, what is left of it, and why the rest can't be used."""
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gekko.compute.devices import DEFAULT_BUDGET, Device, budget, cards_health, container_memory, devices, probe_cpu, probe_cuda, probe_mps, runs_here

GB = 1 << 30


def torch_with(cuda: str | None = '12.8', available: bool = True, cards: tuple[tuple[int, int], ...] = ((9, 0),), lost: tuple[int, ...] = (), archs: tuple[str, ...] = ('sm_80', 'sm_90')) -> Any:
    def free(i: int) -> tuple[int, int]:
        if i in lost: raise RuntimeError('CUDA error: device lost')
        return 60 * GB, 80 * GB
    props = [SimpleNamespace(name=f'card {i}', major=a, minor=b, uuid=f'u{i}') for i, (a, b) in enumerate(cards)]
    return SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=SimpleNamespace(is_available=lambda: available, device_count=lambda: len(cards), mem_get_info=free,
                           get_device_properties=lambda i: props[i], get_arch_list=lambda: list(archs)))


def cuda(torch: Any, driver: bool = True, smi: str = '') -> tuple[Device, ...]: return probe_cuda(torch, lambda: driver, lambda: smi)


@pytest.mark.parametrize(('torch', 'driver', 'why'), [
    (torch_with(), False, 'no NVIDIA driver'),
    (torch_with(cuda=None), True, 'has no CUDA'),
    (torch_with(available=False), True, 'finds no card'),
    (torch_with(cards=()), True, 'finds no card'),
    (torch_with(cards=((7, 0),)), True, 'no kernels for compute capability 7.0'),
    (torch_with(lost=(0,)), True, 'device lost'),
])
def test_why_there_is_no_card(torch: Any, driver: bool, why: str) -> None:
    (found,) = cuda(torch, driver)
    assert not found.usable and why in found.why_not


def test_one_lost_card_does_not_hide_the_other() -> None:
    a, b = cuda(torch_with(cards=((9, 0), (9, 0)), lost=(0,)), smi='GPU-u1, 71, 5, Active, 2')
    assert (a.usable, b.usable, b.id, b.free, b.total) == (False, True, 'cuda:1', 60 * GB, 80 * GB)
    assert b.health.temperature_c == 71 and b.health.hot and b.health.errors == 2 and b.health.said() == 'slowed by heat'


@pytest.mark.parametrize('text', ['', 'Failed to initialize NVML: Driver/library version mismatch', 'a,b', 'GPU-x, [N/A], [N/A], [N/A], [N/A]'])
def test_unreadable_health_is_unknown(text: str) -> None:
    assert all(x.temperature_c is None and x.hot is None and x.errors is None and x.said() == '' for x in cards_health(text).values())


@pytest.mark.parametrize(('capability', 'archs', 'fits'), [
    ((8, 6), ['sm_80'], True), ((8, 0), ['sm_86'], False), ((12, 0), ['sm_90'], False), ((12, 0), ['sm_120'], True), ((12, 0), ['compute_90'], True), ((9, 0), [], False), ((9, 0), ['gfx90a'], False),
])
def test_which_kernels_fit(capability: tuple[int, int], archs: list[str], fits: bool) -> None: assert runs_here(*capability, archs) is fits


@pytest.mark.parametrize(('limit', 'used'), [('memory.max', 'memory.current'), ('memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes')])
def test_a_container_s_limit_counts(tmp_path: Path, limit: str, used: str) -> None:
    for name, value in ((limit, 4 * GB), (used, 3 * GB)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'{value}\n')
    ps = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(total=64 * GB, available=50 * GB))
    (cpu,) = probe_cpu(ps, lambda: container_memory(tmp_path))
    assert (cpu.total, cpu.free) == (4 * GB, GB)


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    assert container_memory(tmp_path) is None
    (tmp_path / 'memory.max').write_text('max\n')
    (tmp_path / 'memory.current').write_text('5\n')
    assert container_memory(tmp_path) is None


def test_metal() -> None:
    def metal(built: bool, available: bool) -> Any: return SimpleNamespace(backends=SimpleNamespace(mps=SimpleNamespace(is_built=lambda: built, is_available=lambda: available)), mps=SimpleNamespace())
    assert 'needs Apple silicon' in probe_mps(system='Darwin', machine='x86_64')[0].why_not
    assert 'has no Metal' in probe_mps(metal(False, False), 'Darwin', 'arm64')[0].why_not
    assert 'macOS 14' in probe_mps(metal(True, False), 'Darwin', 'arm64')[0].why_not
    (found,) = probe_mps(metal(True, True), 'Darwin', 'arm64')
    assert found.usable and found.free is None and budget(found) == DEFAULT_BUDGET


def test_a_probe_that_breaks_hides_nothing() -> None:
    def breaks() -> tuple[Device, ...]: raise SystemError('bad library')
    found = devices({'cuda': breaks, 'cpu': probe_cpu})
    assert [d.usable for d in found] == [False, True] and 'bad library' in found[0].why_not


def test_looking_costs_no_torch() -> None:
    """On a machine without a driver, which is said in the answer; with one, torch is needed to know."""
    code = 'import sys; from gekko.compute.devices import devices, nvidia_driver; devices(); print("torch" in sys.modules, nvidia_driver(), sys.platform)'
    imported, driver, platform = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    assert imported == 'False' or driver == 'True' or platform == 'darwin'
