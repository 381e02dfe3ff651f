"""A registered model in jobs: the record names its digest, a run that is made again takes the same network whatever the name means by then, and what it said on paper is on the record."""
from __future__ import annotations

import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from desk_stage import gekko, one_line, runs_of
from nbformat.v4 import new_code_cell, new_notebook
from onnx import TensorProto as T
from onnx import helper as h

from gekko.data.reference import reference_bars
from gekko.desk import models
from gekko.desk.models import models_used, open_model
from gekko.desk.session import open_run
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, SystemClock
from gekko.forecast.artefact import Artefact, Lineage, save
from gekko.forecast.calibration import calibration_of
from gekko.forecast.policy import Policy
from gekko.forecast.record import rows
from gekko.forecast.registry import Registry
from gekko.forecast.spec import ModelSpec
from gekko.forecast.vertex import deploy, vertex
from gekko.forecast.vertex_server import VertexServer

L, H = 16, 5
PARAMETERS = "mode = 'backtest'\nmodel = 'index'\nstart = '2018-09-01'\nend = '2018-10-10'\nseed = 1\n"
STRATEGY = """
import numpy as np
from gekko.api import open_run, trade
from gekko.data.calendar import calendar
from gekko.desk.models import open_model
from gekko.forecast.policy import Policy
pipeline = open_model(model, policy=Policy(deadline_s=5.0), calendar=calendar('XNYS'))
def weights(bars):
    out, last = np.zeros(bars.close.shape), len(bars) - 1
    known = [t for t in range(len(bars)) if t + 1 >= pipeline.window]
    said = {last: pipeline.on(bars)} if mode != 'backtest' and known == [last] else dict(zip(known, pipeline.over(bars, known)))
    for t, p in said.items(): out[t] = [np.sign(f.mean) * 0.5 for f in p.forecasts]
    return out
run = open_run(['SP500'], mode=mode, start=start, end=end, window=pipeline.window)
result = trade(run, weights)
print(result.final_equity)
"""


def network(batch: int, keep: float) -> bytes:
    """z(t+1..t+5) = keep z(t)."""
    y, f = h.make_tensor_value_info('y', T.FLOAT, [batch, L]), h.make_tensor_value_info('forecast', T.FLOAT, [batch, H, 1])
    w = np.zeros((L, H), np.float32)
    w[-1] = keep
    nodes = [h.make_node('MatMul', ['y', 'w'], ['m']), h.make_node('Reshape', ['m', 's'], ['forecast'])]
    graph = h.make_graph(nodes, 'keep', [y], [f], [h.make_tensor('w', T.FLOAT, [L, H], w.ravel()), h.make_tensor('s', T.INT64, [3], [batch, H, 1])])
    return bytes(h.make_model(graph, opset_imports=[h.make_opsetid('', 18)], ir_version=10).SerializeToString())


def model(folder: Path, keep: float) -> Artefact:
    x = np.log(reference_bars(['SP500']).close[-1500:-100, 0])
    at = np.arange(400, 1300)
    learnt = calibration_of(np.stack([x[o:o + H] for o in at]), np.repeat(x[at - 1][:, None], H, 1), at, x, target='log_close', step=DAY, memory=60)
    return save(folder, ModelSpec(type='mlp', input_size=L, horizon=H), {f'batch_{b}.onnx': network(b, keep) for b in (1, 8)}, Lineage('made@1', 'test', ()), calibration=learnt.written())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    cells = [new_code_cell(PARAMETERS, metadata={'tags': ['parameters']}), new_code_cell(STRATEGY)]
    nbformat.write(new_notebook(cells=cells, metadata={'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}), tmp_path / 'index.ipynb')
    return tmp_path / 'home'


def test_a_run_names_its_models_and_is_made_again_with_the_same(home: Path) -> None:
    registry = Registry(home / 'models', SystemClock())
    old, new = model(home.parent / 'old', 0.9), model(home.parent / 'new', 1.1)      # the other way round
    registry.add(old, 'index', by='ana', beats=False, against='naive')
    one_line(gekko(home, 'run', home.parent / 'index.ipynb', '--json'))
    (record,) = runs_of(home)
    assert record.state == 'done' and record.model_digests == {'index': old.digest} == models_used(Path(record.executed).parent)

    registry.add(new, 'index', by='ana', beats=False, against='naive')
    registry.move('index#2', 'paper', 'ana', 'better')      # from now on `index` is another network
    again = one_line(gekko(home, 'runs', 'rerun', record.run_id, '--json'))
    assert again['identical'] is True
    one_line(gekko(home, 'run', home.parent / 'index.ipynb', '--mode', 'paper', '--json'))
    newest = next(r for r in runs_of(home) if r.mode == 'paper')
    assert newest.metrics['equity'] != record.metrics['equity']
    assert newest.model_digests == {'index': new.digest}
    differ = one_line(gekko(home, 'runs', 'diff', record.run_id, newest.run_id, '--json'))
    assert {'model_digests.index'} <= {d['what'] for d in differ}

    said = list(rows(home / 'models' / 'forecasts.db'))
    assert len(said) == newest.metrics['bars'] and {r.digest for r in said} == {new.digest} and {r.source for r in said} == {'fresh'}


def test_a_model_that_was_spoilt_ends_the_job(home: Path) -> None:
    registry = Registry(home / 'models', SystemClock())
    made = model(home.parent / 'old', 0.9)
    registry.add(made, 'index', by='ana', beats=False, against='naive')
    spoilt = home / 'models' / 'artefacts' / made.digest / 'networks' / 'batch_1.onnx'
    os.chmod(spoilt, 0o644)
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    done = gekko(home, 'run', home.parent / 'index.ipynb', '--json')
    assert done.returncode == 2 and 'is not the file that was written' in done.stdout + done.stderr


def test_the_cloud_answers_for_this_machine_and_the_other_way_round(home: Path) -> None:
    server = VertexServer()
    made = model(home.parent / 'old', 0.9)
    Registry(home / 'models', SystemClock()).add(made, 'index', by='ana', beats=False, against='naive')
    there = {'GEKKO_HOME': str(home), 'GCP_PROJECT': 'gekko-sandbox', 'GEKKO_VERTEX_URL': server.rest, 'GEKKO_VERTEX_STORAGE': server.rest}
    before, os.environ['GOOGLE_APPLICATION_CREDENTIALS'] = os.environ.get('GOOGLE_APPLICATION_CREDENTIALS'), str(server.account)
    try:
        deploy(vertex('gekko-sandbox', 'us-central1', SystemClock(), credentials=server.account, url=server.rest, storage=server.rest), made, 'gs://gekko-models/test', 'us-docker.pkg.dev/p/gekko/far:1')
        bars = reference_bars(['SP500']).last(400)
        pipeline = open_model('index', policy=Policy(deadline_s=5.0, otherwise='raise'), env=there)
        assert set(pipeline.fallback.states) == {'onnx-cpu', 'remote'}
        from gekko.data.calendar import calendar
        both = [open_model('index', policy=Policy(deadline_s=5.0, otherwise='raise'), calendar=calendar('XNYS'), env=there) for _ in range(2)]
        both[0].fallback.prefer(['remote'])
        far, near = (p.on(bars) for p in both)
        assert (far.provider, near.provider) == ('remote', 'onnx-cpu')
        assert np.allclose(far.said[0].path, near.said[0].path, rtol=1e-6)
        server.close()
        assert both[0].on(bars.rows(0, 399)).provider == 'onnx-cpu'      # the cloud is gone: the same call is answered here
        assert set(open_model('index', env={**there, 'ENABLE_CLOUD_FALLBACK': 'false'}).fallback.states) == {'onnx-cpu'}
    finally:
        server.close()
        if before is None: del os.environ['GOOGLE_APPLICATION_CREDENTIALS']
        else: os.environ['GOOGLE_APPLICATION_CREDENTIALS'] = before


def test_no_notebook_trades_live_by_a_model_that_is_not_live(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a job nor a kernel by hand, whatever it said when it opened the model; and no artefact vouches for itself."""
    monkeypatch.setattr(models, '_opened', {})
    made = model(home.parent / 'old', 0.9)
    assert models.keep_model(made, 'index', env={'GEKKO_HOME': str(home)}).marks == ('not held against a baseline',)
    open_model('index', env={'GEKKO_HOME': str(home)})      # for a backtest, it says
    with pytest.raises(BadInput, match=r'index#1 \(candidate\)'): open_run(['BTC-USD'], mode='live', venue='binanceus')
