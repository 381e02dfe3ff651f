"""Models that lived: hand-made networks, a market in a store, forecasts of many weeks as a pipeline made them, and their days measured."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from onnx import TensorProto, helper

from gekko.compute.devices import Device
from gekko.compute.onnx import Onnx
from gekko.compute.provider import load
from gekko.data.bars import Bars
from gekko.data.store import Store
from gekko.desk.config import Settings
from gekko.domain.instrument import Instrument
from gekko.domain.time import DAY, HOUR, MINUTE, Nanos, SimClock, SystemClock, iso
from gekko.forecast.artefact import Artefact, Lineage, calibrated, save
from gekko.forecast.calibration import calibration_of
from gekko.forecast.infer import Forecaster
from gekko.forecast.pipeline import Pipeline
from gekko.forecast.policy import Policy
from gekko.forecast.record import Recorder, Row
from gekko.forecast.registry import Registry
from gekko.forecast.spec import ModelSpec
from gekko.ops.models import measure, record_of

Floats = NDArray[np.float64]
L, H, FIT, LIVED = 24, 6, 100, 45      # hours read and forecast; days to calibrate on, days in use
DIGESTS: dict[str, str] = {}


def network(batch: int, back: float) -> bytes:
    """The last move is taken back by `back` of itself, that by `back` of itself again: linear in the window, so that no scale matters."""
    w = np.zeros((L, H), np.float32)
    taken = np.cumsum((-back) ** np.arange(1, H + 1))
    w[-1], w[-2] = 1 + taken, -taken
    y, f = helper.make_tensor_value_info('y', TensorProto.FLOAT, [batch, L]), helper.make_tensor_value_info('forecast', TensorProto.FLOAT, [batch, H, 1])
    nodes = [helper.make_node('MatMul', ['y', 'w'], ['m']), helper.make_node('Reshape', ['m', 's'], ['forecast'])]
    given = [helper.make_tensor('w', TensorProto.FLOAT, [L, H], w.ravel()), helper.make_tensor('s', TensorProto.INT64, [3], [batch, H, 1])]
    return bytes(helper.make_model(helper.make_graph(nodes, 'reverting', [y], [f], given), opset_imports=[helper.make_opsetid('', 18)], ir_version=10).SerializeToString())


def market(symbol: str, seed: int, begin: Nanos, hours: int, turns: int = 10**9) -> Bars:
    """Hourly prices: each move is taken back by 0.4 of itself, and after hour `turns` goes on by 0.6."""
    g = np.random.default_rng(seed)
    r = 0.004 * g.standard_t(6, size=hours)
    for t in range(1, hours): r[t] += (-0.4 if t < turns else 0.6) * r[t - 1]
    close, start = 100 * np.exp(r.cumsum())[:, None], begin + HOUR * np.arange(hours)
    return Bars((symbol,), start, start + HOUR, close, close * 1.001, close / 1.001, close, np.ones(close.shape))


def stored(settings: Settings, bars: Bars) -> None:
    """The market as `gekko data import` would leave it."""
    symbol = bars.symbols[0]
    columns = {n: getattr(bars, n)[:, 0] for n in ('open', 'high', 'low', 'close', 'volume')}
    Store(settings.store).write(symbol, '1h', pd.DataFrame({'timestamp': pd.to_datetime(bars.start, utc=True), **columns}), Instrument(symbol, symbol, 'USD'))


def artefact(folder: Path, bars: Bars, back: float) -> Artefact:
    """A network that knows its market, calibrated on the days before it is in use."""
    bare = save(folder / 'bare', ModelSpec(type='nhits', input_size=L, horizon=H), {f'batch_{b}.onnx': network(b, back) for b in (1, 8)}, Lineage('market@1', 'abc123', (('onnx', '1'),), (('skill', 0.041), ('coverage80', 0.803), ('coverage95', 0.949))))
    y, at = np.log(bars.close[:, 0]), np.arange(400, FIT * 24 - H)
    said = Forecaster(bare, load(Onnx(Device('cpu')), bare.network, SystemClock())).forecast(np.stack([y[o - L:o] for o in at])).point
    c = calibration_of(np.stack([y[o:o + H] for o in at]), said, at, y[:FIT * 24], target='log_close', step=HOUR, inputs={'log_return': np.diff(y[:FIT * 24])}, day=24, coverage={'0.8': 0.803, '0.95': 0.949})
    return calibrated(bare, folder / 'made', c.written())


def forecasts(a: Artefact, name: str, bars: Bars, recorder: Recorder, until: Nanos, spoilt: Callable[[int, Row], Row]) -> None:
    """What a job that wakes up every hour recorded, each row as `spoilt` makes it."""
    made: list[Row] = []
    pipeline = Pipeline(a, load(Onnx(Device('cpu')), a.network, SystemClock()), SystemClock(), Policy(deadline_s=5.0), name, lambda r: (made.append(r), True)[1])
    for n in range(FIT * 24 - H, len(bars.end)):
        if bars.end[n - 1] > until: break
        pipeline.on(bars.rows(max(0, n - pipeline.window), n))
    for n, r in enumerate(made):
        move = float(np.diff(np.log(bars.close[FIT * 24 - H + n - 2:FIT * 24 - H + n, 0]))[0])
        assert recorder.append(spoilt(n, replace(r, inputs={'log_return': move})))


def month(settings: Settings, today: Nanos, now: Nanos, last: int = 1) -> Registry:
    """Two live models, a candidate and a retired one, in use for 45 days before `today` (a midnight), measured up to `last` days before it. The market of `eth` turns for good in the last days."""
    begin = today - (FIT + LIVED) * DAY
    clock = SimClock(begin + FIT * DAY)
    settings.home.mkdir(parents=True, exist_ok=True)
    registry, record, hours = Registry(settings.home / 'models', clock), record_of(settings), (FIT + LIVED + 1) * 24
    worlds = {'btc': (market('BTC', 3, begin, hours), 0.4), 'eth': (market('ETH', 5, begin, hours, (FIT + LIVED) * 24 - 84), 0.41)}
    with Recorder(record, clock, room=10**6) as recorder:
        for name, (bars, back) in worlds.items():
            until = int(np.searchsorted(bars.end, now, side='right'))
            stored(settings, bars.rows(0, until))
            a = artefact(settings.home.parent / name, bars, back)
            registry.add(a, name, by='ada', beats=True, against='seasonal naive 24')
            registry.move(name, 'paper', 'ada', 'it beats all baselines on a year that it has not seen')
            registry.move(name, 'live', 'grace', 'a month on paper kept its word')
            def spoilt(n: int, r: Row, name: str = name) -> Row:
                if name == 'btc' and n % 50 == 7: return replace(r, provider='torch-cpu', attempts=2, took_us=2.5 * r.took_us, why='onnx-cpu: late')
                return replace(r, source='none', mean=(), low=(), high=(), why='no provider answered') if name == 'btc' and n == 400 else r
            forecasts(a, name, bars, recorder, now, spoilt)
    assert recorder.dropped == recorder.refused == 0
    other = save(settings.home.parent / 'other', ModelSpec(type='patchtst', input_size=L, horizon=H), {'batch_1.onnx': network(1, 0.2)}, Lineage('market@1', 'abc123', (('onnx', '1'),), (('skill', -0.012),)))
    old = save(settings.home.parent / 'old', ModelSpec(type='mlp', input_size=L, horizon=H), {'batch_1.onnx': network(1, 0.1)}, Lineage('market@1', 'abc123', (('onnx', '1'),)))
    registry.add(other, 'sol', by='ada', beats=False, against='naive')
    registry.add(old, 'doge', by='ada', beats=None)
    registry.move('doge', 'retired', 'grace', 'nobody wants it')
    for k in range(LIVED, last - 1, -1):
        clock.set(today - (k - 1) * DAY + 10 * MINUTE)
        measure(settings, clock, iso(today - k * DAY)[:10])
    return registry
