"""The forecast's bench: it measures what it says, the numbers it times are right, and what could not be run is listed and counted."""
from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.compute.devices import Device, devices
from gekko.compute.network import read
from gekko.compute.onnx import Onnx
from gekko.domain.errors import BadInput
from gekko.jobs.forecast_bench import (CHECKS, GOALS, SPEC, WANTED, Subject, alternate, bench_forecast, found_here, limits, moved, ratios, report, subject, until_it_speaks)

SMALL = replace(SPEC, hidden=(32, 32))


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject(tmp_path_factory.mktemp('small'), SMALL, (1, 50, 64))


@pytest.fixture(scope='module')
def said(small: Subject) -> dict[str, Any]:
    return report(small, (1, 50, 64), 0.05, times=1)


def test_each_provider_stands_beside_the_library_and_plain_torch(said: dict[str, Any]) -> None:
    one = said['one_forecast']
    assert {'predict', 'torch eager', 'onnx-cpu', 'torch-cpu', 'through the fallback'} <= one.keys()
    for where in (one, said['fifty_symbols'], said['throughput_64']): assert all(0 < f['p50_us'] <= f['p99_us'] and f['runs'] > 0 for f in where.values()), where
    assert said['ratios']['predict_over_ours'] == round(one['predict']['p50_us'] / one['onnx-cpu']['p50_us'], 1)
    assert said['ratios']['met'].keys() == GOALS.keys() and said['cold']['first_forecast_s'] > 0 and said['cold']['import_neuralforecast_s'] > 0


def test_what_it_times_is_the_right_answer(said: dict[str, Any]) -> None:
    assert said['parity'].keys() >= {'onnx-cpu', 'torch-cpu'} and all(p['price'] <= 1e-5 for p in said['parity'].values())


def test_it_names_its_hardware_and_is_plain_json(said: dict[str, Any]) -> None:
    assert said['cpu'] and said['cores'] >= 1 and {d['id'] for d in said['devices']} >= {'cpu'} and said['libraries']['onnxruntime']
    assert json.loads(json.dumps(said)) == said


def test_what_is_not_run_is_what_the_probes_say_is_missing(said: dict[str, Any]) -> None:
    """Of each accelerator either every figure is there or every check is listed, with the probe's own reason."""
    assert said['not_run_count'] == len(said['not_run'])
    listed = {m['check']: m['why'] for m in said['not_run']}
    why_not = {d.kind: d.why_not for d in devices()}
    for name in WANTED:
        kind = {'coreml': 'mps'}.get(name.split('-')[1], name.split('-')[1])
        ran = any(n.startswith(name) for n in said['one_forecast'])
        assert [f'{name}: {c}' in listed for c in CHECKS] == [not ran] * len(CHECKS)
        if not ran and why_not[kind]: assert {listed[f'{name}: {c}'] for c in CHECKS} == {why_not[kind]}


def test_a_runtime_without_the_engine_is_a_reason_of_its_own() -> None:
    class Bare:
        def get_available_providers(self) -> list[str]: return ['CPUExecutionProvider']
    there, missing = found_here([Device('cuda', name='card'), Device('cpu')], Bare())
    assert [p.name for p in there] == ['onnx-cpu', 'torch-cuda:0', 'torch-cpu']
    assert {m['why'] for m in missing if m['check'].startswith('onnx-cuda')} == {'this build of ONNX Runtime has no CUDAExecutionProvider'}
    assert {m['why'] for m in missing if 'mps' in m['check']} == {'no such device was found'}


def test_a_slow_stretch_is_everybodys() -> None:
    """Turns: nobody's whole time lies before another's."""
    order: list[str] = []
    def works(name: str) -> Any: return lambda: (order.append(name), time.sleep(0.001))
    alternate({'a': works('a'), 'b': works('b')}, 0.05, 0.01, warm=0)
    assert order.index('b') < len(order) // 2 and len(order) - order[::-1].index('a') > len(order) // 2


def test_the_bytes_that_must_move_are_those_of_the_network(small: Subject) -> None:
    model, it = small.trained.model, moved(read(small.artefact.network, 'onnx', 50))
    linear = [p for n, p in model.named_parameters() if 'layers' in n]
    assert it['weight_bytes'] == 4 * sum(p.numel() for p in linear)
    assert it['flops'] == 2 * 50 * sum(p.numel() for p in linear if p.dim() == 2)
    share = limits(small, {50: 10.0}, ({'read_gb_s': 1.0}, {'read_gb_s': 0.5}, 1.0))['batch_50']
    assert share['memory_us'] == round((it['weight_bytes'] + it['between_bytes']) / 1e3, 1) and abs(share['uncached_us'] - 2 * share['memory_us']) <= 0.2
    assert share['share_of_memory_limit'] == round((it['weight_bytes'] + it['between_bytes']) / 1e4, 3)


def test_goals_are_reported_either_way() -> None:
    def one(ours: float) -> dict[str, Any]: return {n: {'p50_us': u, 'p99_us': u} for n, u in (('predict', 10_000.0), ('torch eager', 500.0), ('onnx-cpu', ours))}
    assert all(ratios(one(100.0), {'first_forecast_s': 0.3, 'library_over_ours': 31.0})['met'].values())
    assert not any(ratios(one(600.0), {'first_forecast_s': 1.3, 'library_over_ours': 5.0})['met'].values())


def test_a_cold_process_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match='a line on stdout'): until_it_speaks('import sys; sys.exit(3)')
    for bad in ({'seconds': 0}, {'times': 0}):
        with pytest.raises(BadInput): bench_forecast(**bad)


def test_the_live_process_needs_neither_the_library_nor_torch(small: Subject) -> None:
    code = f'''
import sys
import numpy as np
from pathlib import Path
from gekko.compute.devices import Device
from gekko.compute.onnx import Onnx
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import load
from gekko.forecast.infer import opened
a = load(Path({str(small.live.path)!r}))
opened(a, Onnx(Device('cpu')), SystemClock(), (1,)).forecast(np.linspace(100, 101, a.spec.input_size)[None])
print(sorted({{'torch', 'neuralforecast', 'pandas', 'lightning'}} & set(sys.modules)))
'''
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == '[]', done.stderr


def test_onnx_alone_is_enough(small: Subject) -> None:
    assert small.live.network.batches('pt2') == () and small.live.network.batches('onnx') == (1, 50) and np.isfinite(small.closes).all()
    assert Onnx(Device('cpu')).format == 'onnx'
