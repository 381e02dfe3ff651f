"""The claim: an artefact answers what `NeuralForecast.predict` answers, for every type of network, to 1e-5; and the same training gives the same artefact."""
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gekko.compute.devices import Device
from gekko.compute.onnx import Onnx
from gekko.compute.torch import Torch
from gekko.domain.errors import BadInput
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import Artefact, load, ports, save
from gekko.forecast.export import bare, export
from gekko.forecast.infer import Forecaster, latest, measure, opened
from gekko.forecast.network import Columns, Trained, build, fit, predict, quiet, scaling, steps, windows
from gekko.forecast.spec import KINDS, SCALERS, ModelSpec

Values = NDArray[np.float64]
L, H, ROWS = 24, 6, 180
PROVIDERS = (Onnx(Device('cpu')), Torch(Device('cpu')))
SMALL = {'patchtst': (('patch_steps', 8), ('stride_steps', 4), ('ff_hidden', 16), ('heads', 2)), 'transformer': (('heads', 2), ('conv_hidden', 8))}
PLAIN = [ModelSpec(type=t, input_size=L, horizon=H, hidden=(16, 16), max_steps=6, batch_size=64, options=SMALL.get(t, ()), seed=3) for t in KINDS]
WITH = [ModelSpec(type=t, input_size=L, horizon=H, hidden=(16, 16), max_steps=6, batch_size=64, options=SMALL.get(t, ()), seed=3, scaler='robust', loss='quantiles', quantiles=(0.1, 0.5, 0.9),
                  past=('volume',) if k.past else (), future=('hour', 'holiday')) for t, k in KINDS.items() if k.future]


def walk(seed: int, level: float = 100.0) -> dict[str, Values]:
    """A price, a volume, the hour of the day and a flag that seldom moves."""
    rng = np.random.default_rng(seed)
    n = ROWS + H
    return {'y': level * np.exp(rng.standard_normal(n).cumsum() / 400), 'volume': rng.lognormal(3, 1, n), 'hour': np.arange(n) % 24.0, 'holiday': (np.arange(n) // 24 % 7 == 6) * 1.0}


def parted(whole: Mapping[str, Columns]) -> tuple[dict[str, Columns], dict[str, Columns]]:
    """What is known, and the rows ahead."""
    return {k: {c: a[:ROWS] for c, a in s.items()} for k, s in whole.items()}, {k: {c: a[ROWS:] for c, a in s.items()} for k, s in whole.items()}


SERIES, AHEAD = parted({'BTC': walk(1, 43_000.0), 'ETH': walk(2, 2_300.0), 'SHIB': walk(3, 9e-6)})


class Unexported:
    """The network in torch, unexported: the pipeline around it by itself."""

    def __init__(self, trained: Trained) -> None: self.net, self.names = bare(trained), [p.name for p in ports(trained.spec)[0]]

    def run(self, inputs: Mapping[str, NDArray[np.float32]], deadline: int | None = None) -> dict[str, NDArray[np.float32]]:
        import torch
        with torch.no_grad(): return {'forecast': self.net(*(torch.from_numpy(inputs[n]) for n in self.names)).numpy()}


def in_torch(trained: Trained) -> Forecaster:
    return Forecaster(SimpleNamespace(spec=trained.spec, scaling=trained.scaling), Unexported(trained))  # type: ignore[arg-type]


def onnx(artefact: Artefact) -> Forecaster: return opened(artefact, Onnx(Device('cpu')), SystemClock())


def apart(ours: Values, theirs: Values) -> float:
    """The largest relative difference, value by value."""
    assert ours.shape == theirs.shape and np.isfinite(theirs).all()
    return float(np.max(np.abs(ours - theirs) / np.abs(theirs)))


@pytest.fixture(scope='module')
def nhits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Trained, Artefact]]:
    trained = fit(WITH[KINDS_WITH.index('nhits')], SERIES)
    yield trained, export(trained, tmp_path_factory.mktemp('made') / 'nhits', 'walks@1', 'tests', batches=(1, 2), formats=('onnx', 'pt2'))


KINDS_WITH = [s.type for s in WITH]


@pytest.mark.parametrize('spec', PLAIN, ids=lambda s: s.type)
def test_every_type_answers_as_the_library_does(spec: ModelSpec, tmp_path: Path) -> None:
    trained = fit(spec, SERIES)
    artefact = export(trained, tmp_path / 'a', 'walks@1', 'tests', batches=(1,), formats=('onnx', 'pt2'))
    theirs = predict(trained, SERIES)
    for provider in PROVIDERS: assert apart(opened(artefact, provider, SystemClock()).forecast(*latest(spec, SERIES)).values, theirs) <= 1e-5
    assert np.ptp(theirs[0]) > 0, 'a constant forecast would prove nothing'


@pytest.mark.parametrize('spec', WITH, ids=lambda s: s.type)
def test_every_type_with_features_and_quantiles(spec: ModelSpec, tmp_path: Path) -> None:
    trained = fit(spec, SERIES)
    artefact = export(trained, tmp_path / 'a', 'walks@1', 'tests', batches=(2,), formats=('onnx', 'pt2'))       # three series: one row of padding
    other = {k: {**v, 'hour': v['hour'][::-1]} for k, v in AHEAD.items()}
    theirs, moved = predict(trained, SERIES, AHEAD), predict(trained, SERIES, other)
    assert not np.array_equal(theirs, moved), 'the feature must matter, or nothing was compared'
    for provider in PROVIDERS:
        live = opened(artefact, provider, SystemClock())
        assert apart(live.forecast(*latest(spec, SERIES, AHEAD)).values, theirs) <= 1e-5
        assert apart(live.forecast(*latest(spec, SERIES, other)).values, moved) <= 1e-5


@pytest.mark.parametrize('scaler', SCALERS)
@pytest.mark.parametrize('type', ['mlp', 'nhits'])
def test_every_scaler_and_a_scaling_over_all(scaler: str, type: str) -> None:
    spec = ModelSpec(type=type, input_size=L, horizon=H, hidden=(16,), max_steps=6, scaler=scaler, past=('volume',), future=('hour',))
    alone = {'BTC': SERIES['BTC']}
    for scaled in (None, scaling(spec, alone)):
        trained = fit(spec, alone, scaled)
        ours, theirs = in_torch(trained).forecast(*latest(spec, alone, {'BTC': AHEAD['BTC']})).values, predict(trained, alone, {'BTC': AHEAD['BTC']})
        assert apart(ours, theirs) <= 1e-5


def test_returns_round_zero_agree_to_1e_5_of_their_own_size() -> None:
    spec = ModelSpec(input_size=L, horizon=H, hidden=(16,), max_steps=6)
    returns = {k: {'y': np.diff(np.log(s['y']))} for k, s in SERIES.items()}
    trained = fit(spec, returns)
    ours, theirs = in_torch(trained).forecast(*latest(spec, returns)).values, predict(trained, returns)
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize('scaler', [s for s in SCALERS if s != 'identity'])
def test_the_measure_of_a_window_is_the_library_s(scaler: str) -> None:
    import torch
    from neuralforecast.common._scalers import TemporalNorm
    rng = np.random.default_rng(5)
    x = np.stack([rng.standard_normal((40, L)), rng.integers(0, 3, (40, L)).astype(float), np.full((40, L), 7.0), np.where(np.arange(L) < 20, 4.0, rng.random((40, L))),
                  1e-6 * rng.standard_normal((40, L))], axis=2).astype(np.float32)
    norm = TemporalNorm(scaler, dim=1)
    norm.transform(torch.from_numpy(x), torch.ones(40, L, 1))
    shift, scale = measure(scaler, x.astype(np.float64))
    np.testing.assert_allclose(shift, norm.x_shift.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale, norm.x_scale.numpy(), rtol=1e-5)


def test_a_row_is_answered_alike_alone_and_in_company(nhits: tuple[Trained, Artefact]) -> None:
    trained, artefact = nhits
    y, past, future = latest(trained.spec, SERIES, AHEAD)
    assert past is not None and future is not None
    live = onnx(artefact)
    together = live.forecast(y, past, future).values
    for i in range(len(y)): assert apart(live.forecast(y[i:i + 1], past[i:i + 1], future[i:i + 1]).values, together[i:i + 1]) <= 1e-6
    assert np.array_equal(live.forecast(y, past, future, horizon=2).values, together[:, :2])


def digest_of(folder: Path) -> str:
    """Train and export, dropout included; the same in every process."""
    spec = ModelSpec(type='lstm', input_size=12, horizon=3, hidden=(8, 8), max_steps=4, past=('v',), options=(('dropout', 0.1),))
    y = 100 + np.random.default_rng(0).standard_normal(120).cumsum()
    return export(fit(spec, {'A': {'y': y, 'v': y * 2}}), folder, 'd', 'c', batches=(1,), formats=('onnx', 'pt2')).digest


def test_another_process_trains_the_same_artefact(tmp_path: Path) -> None:
    """Another hash seed, nothing trained before, another folder: the same digest."""
    code = 'import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_export import digest_of; print(digest_of(Path(sys.argv[2])))'
    done = subprocess.run([sys.executable, '-c', code, str(Path(__file__).parent), str(tmp_path / 'there')], capture_output=True, text=True, timeout=120, env=os.environ | {'PYTHONHASHSEED': '77'})
    assert done.returncode == 0, done.stderr[-2000:]
    assert not any(word in done.stderr for word in ('Seed set', 'GPU available', 'Trainer')), done.stderr[-2000:]
    assert done.stdout.strip() == digest_of(tmp_path / 'here') == load(tmp_path / 'here').digest


def test_a_forecast_loads_neither_torch_nor_the_library(nhits: tuple[Trained, Artefact]) -> None:
    trained, artefact = nhits
    code = '''
import os, sys
from pathlib import Path
import gekko.forecast.infer as infer
first = [m for m in ('onnxruntime', 'pandas') if m in sys.modules]
import numpy as np
from gekko.compute.devices import Device
from gekko.compute.onnx import Onnx
from gekko.compute.torch import Torch
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import load
live = infer.opened(load(Path(sys.argv[1])), Onnx(Device('cpu')), SystemClock())
live.forecast(np.arange(24.0)[None], np.ones((1, 24, 1)), np.ones((1, 30, 2)))
print(first, [m for m in ('torch', 'neuralforecast', 'lightning', 'pytorch_lightning', 'ray', 'pandas', 'onnx') if m in sys.modules], os.environ['ORT_DISABLE_TELEMETRY'])
'''
    done = subprocess.run([sys.executable, '-c', code, str(artefact.path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, '[] [] 1'), done.stderr[-2000:]


def test_nothing_of_this_machine_is_in_the_files(nhits: tuple[Trained, Artefact]) -> None:
    for p in nhits[1].path.rglob('*'):
        if p.is_file():
            data = p.read_bytes()
            assert b'site-packages' not in data and str(Path.home()).encode() + b'/' not in data and b'.py' not in data, p.name


def test_early_stopping_stops_early_and_epochs_count_windows() -> None:
    alone = {'BTC': {'y': SERIES['BTC']['y']}}
    stopped = fit(ModelSpec(input_size=L, horizon=H, hidden=(8,), max_steps=400, check_every_steps=2, patience=1, learning_rate=0.5), alone, validation=24)
    assert 0 < stopped.steps < 400
    spec = ModelSpec(input_size=L, horizon=H, hidden=(8,), epochs=2, batch_size=50)
    assert fit(spec, alone).steps == steps(spec, windows(spec, ROWS)) == 8


def test_another_seed_another_network(tmp_path: Path) -> None:
    from dataclasses import replace
    spec = ModelSpec(input_size=L, horizon=H, hidden=(8,), max_steps=2)
    alone = {'BTC': {'y': SERIES['BTC']['y']}}
    a, b = (predict(fit(replace(spec, seed=s), alone), alone) for s in (1, 2))
    assert not np.array_equal(a, b)


WIDTHS = st.lists(st.sampled_from([8, 16]), min_size=1, max_size=3).map(tuple)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Specs of every type, refused ones among them."""
    type = draw(st.sampled_from(list(KINDS)))
    kind = KINDS[type]
    by = {'heads': st.sampled_from([1, 2, 4]), 'dropout': st.sampled_from([0.0, 0.3]), 'fc_dropout': st.just(0.1), 'decoder_layers': st.integers(1, 3), 'conv_hidden': st.just(4), 'ff_hidden': st.just(8),
          'patch_steps': st.integers(1, 40), 'stride_steps': st.integers(1, 40), 'revin': st.booleans(), 'subtract_last': st.booleans(), 'pool': st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
          'downsample': st.lists(st.integers(1, 30), min_size=1, max_size=3).map(tuple), 'pooling': st.sampled_from(['max', 'average']), 'interpolation': st.sampled_from(['linear', 'nearest']),
          'stacks': st.lists(st.sampled_from(['identity', 'trend', 'seasonality']), min_size=1, max_size=3).map(tuple), 'harmonics': st.integers(1, 3), 'polynomials': st.integers(1, 3)}
    options = tuple((n, draw(by[n])) for n in kind.options if draw(st.booleans()))
    quantiles = draw(st.sampled_from([(), (0.1, 0.5, 0.9)]))
    return ModelSpec(type=type, input_size=draw(st.integers(2, 20)), horizon=draw(st.integers(1, 24)), hidden=draw(WIDTHS), activation=draw(st.sampled_from(['', *kind.activations])),
                     past=('v',) if kind.past and draw(st.booleans()) else (), future=('f', 'g') if kind.future and draw(st.booleans()) else (), options=options,
                     loss='quantiles' if quantiles else draw(st.sampled_from(['mae', 'mse', 'huber'])), quantiles=quantiles, batch_size=16)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data())
def test_what_a_spec_accepts_the_library_builds_and_runs(data: st.DataObject) -> None:
    import torch
    try: spec = data.draw(specs())
    except BadInput: return
    with quiet():
        model = build(spec, 1)
        given = [torch.randn(2, *p.shape) for p in ports(spec)[0]]
        assert tuple(bare(Trained(spec, scaling(ModelSpec(), {'A': {'y': np.arange(9.0)}}), model, None, 0))(*given).shape) == (2, spec.horizon, spec.outputs)


def test_a_network_with_a_file_outside_itself_is_refused(tmp_path: Path, nhits: tuple[Trained, Artefact]) -> None:
    """ONNX may keep weights in another file, named by a path; an artefact's network may not reach out of itself."""
    from onnx import TensorProto, helper
    (tmp_path / 'secret.bin').write_bytes(np.arange(24, dtype=np.float32).tobytes())
    outside = helper.make_tensor('w', TensorProto.FLOAT, [24], np.zeros(24, np.float32).tobytes(), raw=True)
    outside.ClearField('raw_data')
    outside.data_location = TensorProto.EXTERNAL
    entry = outside.external_data.add()
    entry.key, entry.value = 'location', str(tmp_path / 'secret.bin')
    value = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node('Mul', ['y', 'w'], ['m']), helper.make_node('Unsqueeze', ['m', 'a'], ['forecast'])], 'g', [value('y', TensorProto.FLOAT, [1, 24])],
                              [value('forecast', TensorProto.FLOAT, [1, 24, 1])], [outside, helper.make_tensor('a', TensorProto.INT64, [1], [2])])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8).SerializeToString()
    with pytest.raises(BadInput, match='refers to another file'): save(tmp_path / 'a', ModelSpec(input_size=24, horizon=24), {'batch_1.onnx': data}, nhits[1].lineage)
    assert not (tmp_path / 'a').exists()
