"""From a registered artefact through the pipeline that forecasts, the recorder beside it and the day's measurement: the parts as a desk puts them together."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gekko.compute.devices import Device
from gekko.compute.onnx import Onnx
from gekko.compute.provider import load
from gekko.data.bars import Bars
from gekko.domain.time import DAY, MINUTE, Nanos, SimClock, SystemClock, iso, utc
from gekko.forecast.artefact import Artefact, Lineage, calibrated, save
from gekko.forecast.calibration import calibration_of
from gekko.forecast.daily import measure_day
from gekko.forecast.infer import Forecaster
from gekko.forecast.pipeline import Pipeline
from gekko.forecast.policy import Policy
from gekko.forecast.record import Recorder, rows
from gekko.forecast.registry import Registry
from gekko.forecast.spec import ModelSpec

L, H, STEP, BEGIN = 24, 6, 5 * MINUTE, utc('2026-03-02')
FIT, LIVE = 12 * 288, 2 * 288      # rows to calibrate on, rows live


def network(batch: int) -> bytes:
    """z(t + 1..t + 6) = 0.9 z(t): towards the mean of the window."""
    y, f = helper.make_tensor_value_info('y', TensorProto.FLOAT, [batch, L]), helper.make_tensor_value_info('forecast', TensorProto.FLOAT, [batch, H, 1])
    weights = np.zeros((L, H), np.float32)
    weights[-1] = 0.9
    nodes = [helper.make_node('MatMul', ['y', 'w'], ['m']), helper.make_node('Reshape', ['m', 's'], ['forecast'])]
    given = [helper.make_tensor('w', TensorProto.FLOAT, [L, H], weights.ravel()), helper.make_tensor('s', TensorProto.INT64, [3], [batch, H, 1])]
    out: bytes = helper.make_model(helper.make_graph(nodes, 'reverting', [y], [f], given), opset_imports=[helper.make_opsetid('', 18)], ir_version=10).SerializeToString()
    return out


def coins(n: int) -> Bars:
    g = np.random.default_rng(3)
    r = 0.002 * g.standard_t(6, size=(n, 2))
    for t in range(1, n): r[t] -= 0.35 * r[t - 1]
    close, start = 100 * np.exp(r.cumsum(axis=0)), BEGIN + STEP * np.arange(n)
    return Bars(('BTC', 'ETH'), start, start + STEP, close, close * 1.001, close / 1.001, close, np.ones(close.shape))


@pytest.mark.parametrize('target', ['log_close', 'close'])
def test_what_a_pipeline_says_is_what_the_day_is_measured_by(tmp_path: Path, target: str) -> None:
    bars = coins(FIT + LIVE + H)
    bare = save(tmp_path / 'bare', ModelSpec(type='mlp', input_size=L, horizon=H), {f'batch_{b}.onnx': network(b) for b in (1, 8)}, Lineage('made@1', 'test', (('onnx', '1'),)))
    runner, y = load(Onnx(Device('cpu')), bare.network, SystemClock()), np.log(bars.close[:, 0]) if target == 'log_close' else bars.close[:, 0]
    at = np.arange(400, FIT - H)
    said = Forecaster(bare, runner).forecast(np.stack([y[o - L:o] for o in at])).point
    trained = y[:FIT]
    c = calibration_of(np.stack([y[o:o + H] for o in at]), said, at, y, target=target, step=STEP, inputs={'change': np.diff(trained)})
    a: Artefact = calibrated(bare, tmp_path / 'made', c.written())
    clock = SimClock(BEGIN + FIT * STEP)
    models = Registry(tmp_path / 'models', clock)
    models.add(a, 'coins', by='ada', beats=True)
    for stage in ('paper', 'live'): models.move('coins', stage, 'ada', 'fit')
    with Recorder(tmp_path / 'record.db', clock) as recorder:
        pipeline = Pipeline(models.open('coins@live'), runner, SystemClock(), Policy(deadline_s=5.0), 'coins', recorder.append)
        for n in range(FIT - H, FIT + LIVE): pipeline.on(bars.rows(max(0, n - pipeline.window), n))
    assert recorder.written == 2 * (LIVE + H) and recorder.dropped == recorder.refused == 0 and recorder.trouble == ''
    first = next(rows(tmp_path / 'record.db', symbol='ETH'))
    assert first.ts == bars.end[FIT - H - 1] and first.last == pytest.approx(bars.close[FIT - H - 1, 1], rel=1e-12) and len(first.mean) == H

    def actual(symbol: str, start: Nanos, end: Nanos) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        keep = (bars.end > start) & (bars.end <= end)
        return bars.end[keep], bars.close[keep, bars.symbols.index(symbol)]
    clock.set(BEGIN + (FIT + LIVE) * STEP + DAY)
    days = [measure_day(models, tmp_path / 'record.db', actual, iso(BEGIN + FIT * STEP + k * DAY)[:10])[0] for k in range(2)]
    for d in days:
        assert d.judged >= 2 * 286 and d.missing == 0 and d.verdict in ('ok', 'watch') and set(d.drift) == {'BTC', 'ETH'}, d
        assert d.figures['error'] == pytest.approx(d.figures['usual'], rel=0.25) and d.figures['coverage'] == pytest.approx(0.8, abs=0.12) and d.figures['onnx-cpu p50 us'] > 0
    assert models.get('coins').stage == 'live' and len(models.get('coins').days) == 2
