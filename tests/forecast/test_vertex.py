"""Artefacts on Vertex AI, against a local server of the same surface: deployed once, found again, paid as counted, and taken down whatever happened."""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from gekko.compute.bearer import Refused
from gekko.compute.breaker import Rest
from gekko.compute.cost import PRICES, price_of
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback, NoAnswer
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Failed, Late, Loaded, load
from gekko.compute.remote import places
from gekko.compute.serving import Place, loaded_on
from gekko.domain.errors import BadInput, GekkoError
from gekko.domain.time import SECOND, SystemClock
from gekko.forecast.artefact import Artefact, Lineage, save
from gekko.forecast.bucket import listed
from gekko.forecast.infer import Forecaster
from gekko.forecast.spec import ModelSpec
from gekko.forecast.vertex import Vertex, deploy, endpoints, remote, remove, undeploy, upload, vertex
from gekko.forecast.vertex_cloud import running, truth
from gekko.forecast.vertex_server import VertexServer

CLOCK = SystemClock()
BUCKET, IMAGE = 'gs://gekko-models/test', 'us-docker.pkg.dev/p/gekko/far:1'
KINDS = ('UploadModel', 'CreateEndpoint', 'DeployModel', 'UndeployModel', 'Delete')


def layered(batch: int, seed: int) -> bytes:
    """Two dense layers over a window of 24 to a horizon of 6: small, and no two batch sizes round alike by accident."""
    rng = np.random.default_rng(seed)
    shapes = [h.make_tensor_value_info('y', T.FLOAT, [batch, 24]), h.make_tensor_value_info('forecast', T.FLOAT, [batch, 6, 1])]
    weights = [h.make_tensor(n, T.FLOAT, s, rng.standard_normal(s).astype(np.float32).ravel()) for n, s in (('a', [24, 16]), ('b', [16, 6]))]
    nodes = [h.make_node('MatMul', ['y', 'a'], ['u']), h.make_node('Relu', ['u'], ['r']), h.make_node('MatMul', ['r', 'b'], ['o']), h.make_node('Reshape', ['o', 'shape'], ['forecast'])]
    graph = h.make_graph(nodes, 'layered', shapes[:1], shapes[1:], [*weights, h.make_tensor('shape', T.INT64, [3], [batch, 6, 1])])
    return bytes(h.make_model(graph, opset_imports=[h.make_opsetid('', 18)], ir_version=10).SerializeToString())


def artefact(folder: Path, seed: int = 1) -> Artefact:
    spec = ModelSpec(type='nhits', input_size=24, horizon=6)
    return save(folder, spec, {f'batch_{b}.onnx': layered(b, seed) for b in (1, 8)}, Lineage('bars@3', f'code-{seed}', (('torch', '2'),)))


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Artefact: return artefact(tmp_path_factory.mktemp('made') / 'a')


@pytest.fixture
def server() -> Iterator[VertexServer]:
    yield (s := VertexServer())
    s.close()


def of(server: VertexServer, **how: Any) -> Vertex:
    return vertex('gekko-sandbox', 'us-central1', server.clock, credentials=server.account, url=server.rest, storage=server.rest, **how)


@pytest.fixture
def v(server: VertexServer) -> Vertex: return of(server)


def soon(s: float = 5.0) -> int: return CLOCK.monotonic() + round(s * SECOND)


def up(v: Vertex, made: Artefact, **how: Any) -> Any: return deploy(v, made, BUCKET, IMAGE, **how)


def far(v: Vertex, made: Artefact, **how: Any) -> Loaded:
    found = remote(v, made.digest, **how)
    assert found is not None
    return load(found, made.network, v.clock)


Y = np.random.default_rng(5).standard_normal((11, 24)).astype(np.float32)


# -- off, unless it is asked for

def test_nothing_leaves_this_machine_without_a_project() -> None:
    from gekko.desk.config import load_settings
    with pytest.raises(BadInput, match='GCP_PROJECT'): vertex(load_settings({}, None).gcp_project, 'us-central1', CLOCK)


@pytest.mark.parametrize(('project', 'region'), [('p', 'us-central1'), ('my-project', 'us_central1'), ('my-project/../x', 'us-central1'), ('My-Project', 'us-central1'), ('my-project', 'evil.com/us-central1')])
def test_names_that_would_make_another_address_are_refused(project: str, region: str) -> None:
    with pytest.raises(BadInput, match='my-project-1'): vertex(project, region, CLOCK)


# -- the way there and back

def test_a_deployed_artefact_answers_what_it_answers_here(server: VertexServer, v: Vertex, made: Artefact) -> None:
    told: list[tuple[str, float]] = []
    done = up(v, made, tell=lambda what, share: told.append((what, share)))
    assert (done.state, done.machine, done.nodes, done.usd_hour) == ('serving', 'n1-standard-2', 1, Decimal('0.1095'))
    assert {w for w, _ in told} == {'upload', 'model', 'endpoint', 'deployment'} and all(0 <= s <= 1 for _, s in told)
    there, here = far(v, made), load(Onnx(Device('cpu')), made.network, CLOCK)
    assert np.array_equal(there.run({'y': Y})['forecast'], here.run({'y': Y})['forecast'])
    y = 100 + np.cumsum(np.random.default_rng(2).standard_normal((3, 24)), 1)
    assert np.array_equal(Forecaster(made, there).forecast(y).values, Forecaster(made, here).forecast(y).values)


def test_the_same_again_changes_nothing(server: VertexServer, v: Vertex, made: Artefact) -> None:
    first = up(v, made)
    assert up(v, made) == first == up(of(server), made)
    assert (len(server.cloud.models), len(server.cloud.endpoints), len(server.cloud.deployments)) == (1, 1, 1)


def test_two_artefacts_are_two_endpoints(server: VertexServer, v: Vertex, made: Artefact, tmp_path: Path) -> None:
    other = artefact(tmp_path / 'b', 2)
    assert up(v, made).endpoint != up(v, other).endpoint and len(endpoints(v)) == 2
    assert [e.artefact for e in endpoints(v, other.digest[:10])] == [other.digest[:63]]
    with pytest.raises(GekkoError, match='serves another network'): load(far(v, made).provider, other.network, CLOCK)
    assert undeploy(v, made.digest[:8]) and [e.artefact for e in endpoints(v)] == [other.digest[:63]] and running(server.cloud) == 1


def test_removing_takes_the_model_and_its_files_too(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    assert list(listed(v.storage, f'{BUCKET}/{made.digest}'))
    gone = remove(v, made.digest, BUCKET)
    assert [g.split('/')[4] for g in gone] == ['endpoints', 'endpoints', 'models']
    assert not server.cloud.models and not server.cloud.endpoints and not list(listed(v.storage, f'{BUCKET}/{made.digest}')) and remove(v, made.digest) == ()


def test_what_is_not_ours_is_left_alone(server: VertexServer, v: Vertex, made: Artefact) -> None:
    v.ask('POST', f'{v.parent}/endpoints?endpointId=theirs', {'displayName': 'theirs', 'labels': {'team': 'x'}})
    up(v, made)
    assert [e.artefact for e in endpoints(v)] == [made.digest[:63]]
    remove(v, made.digest)
    assert [e['displayName'] for e in server.cloud.endpoints.values()] == ['theirs']


def test_a_network_that_does_not_start_costs_nothing(server: VertexServer, v: Vertex, made: Artefact) -> None:
    upload(v, made, BUCKET, IMAGE)
    next((server.cloud.root / 'gekko-models').rglob('batch_8.onnx')).write_bytes(b'\x08\x0a altered')
    with pytest.raises(Refused, match='never became ready.*batch_8.onnx'): up(v, made)
    assert running(server.cloud) == 0 and [e.state for e in endpoints(v)] == ['empty']
    assert undeploy(v, made.digest) and endpoints(v) == ()


# -- cut off in the middle

@pytest.mark.parametrize('on', ['upload/storage', 'models:upload', '/endpoints?endpointId', ':deployModel'])
@pytest.mark.parametrize('what', ['drop', 'status'])
def test_a_lost_answer_or_trouble_while_deploying(server: VertexServer, v: Vertex, made: Artefact, on: str, what: str) -> None:
    """At the second try, if not at the first, there is one of everything."""
    server.fault(what, on=on)
    for _ in range(2):
        try: up(v, made); break
        except Failed: continue
    assert [e.state for e in endpoints(v)] == ['serving'] and running(server.cloud) == 1
    assert (len(server.cloud.models), len(server.cloud.endpoints), len(server.cloud.deployments)) == (1, 1, 1)


@pytest.mark.parametrize('on', [':undeployModel', 'DELETE', 'GET'])
@pytest.mark.parametrize('what', ['drop', 'status'])
def test_a_lost_answer_or_trouble_while_undeploying(server: VertexServer, v: Vertex, made: Artefact, on: str, what: str) -> None:
    up(v, made)
    server.fault(what, on=on)
    for _ in range(2):
        try: undeploy(v, made.digest); break
        except Failed: continue
    assert running(server.cloud) == 0 and not server.cloud.endpoints


def test_a_deployment_that_nobody_waits_for_is_ended(server: VertexServer, v: Vertex, made: Artefact) -> None:
    server.cloud.take_s['DeployModel'] = 0.6
    with pytest.raises(Late, match='the same command will find it'): up(v, made, timeout_s=0.1)
    assert running(server.cloud) == 0 and [e.state for e in endpoints(v)] == ['deploying'], 'not yet paid, and on its way'
    assert undeploy(v, made.digest) and running(server.cloud) == 0 and truth(server.cloud).node_hours > 0 and len(server.cloud.deployments) == 1


def test_a_deployment_under_way_is_waited_for_and_not_made_twice(server: VertexServer, v: Vertex, made: Artefact) -> None:
    server.cloud.take_s['DeployModel'] = 0.6
    with pytest.raises(Late): up(v, made, timeout_s=0.1)
    assert up(v, made).state == 'serving' and len(server.cloud.deployments) == 1


def test_an_endpoint_with_two_deployments_is_emptied(server: VertexServer, v: Vertex, made: Artefact) -> None:
    """Two people deployed at once: one has the traffic, both cost."""
    e = up(v, made).endpoint
    how = {'machineSpec': {'machineType': 'n1-standard-4'}, 'minReplicaCount': 2}
    v.ask('POST', f'{e}:deployModel', {'deployedModel': {'model': next(iter(server.cloud.models)), 'dedicatedResources': how}, 'trafficSplit': {'0': 100}})
    found = endpoints(v)
    assert [(d.machine, d.nodes, d.usd_hour) for d in found] == [('n1-standard-2', 1, Decimal('0.1095')), ('n1-standard-4', 2, Decimal('0.4380'))] and running(server.cloud) == 3
    assert len(undeploy(v, made.digest)) == 3 and running(server.cloud) == 0


def test_one_that_cannot_be_ended_is_said_loudly(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    server.fault('status', on=':undeployModel', code=403, times=99)
    with pytest.raises(Refused): undeploy(v, made.digest)
    server.faults.clear()
    server.fault('drop', on='DELETE', times=99)
    assert running(server.cloud) == 1 and undeploy(v, made.digest) and running(server.cloud) == 0


CHILD = """
import sys
from pathlib import Path
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import load
from gekko.forecast.vertex import deploy, vertex
v = vertex('gekko-sandbox', 'us-central1', SystemClock(), credentials=Path(sys.argv[1]), url=sys.argv[2], storage=sys.argv[2])
deploy(v, load(Path(sys.argv[3])), sys.argv[4], 'image', tell=lambda what, share: print(what, flush=True))
"""


STAGES = [(stage, then) for stage in ('upload', 'model', 'endpoint', 'deployment') for then in ('undeploy', 'deploy')]


def killed(made: Artefact, stage: str, then: str) -> tuple[int, int, list[str]]:
    """A process that deploys is killed at a stage; then another one takes down or goes on, knowing the digest alone. Nodes, deployments ever, states."""
    server = VertexServer(take_s=dict.fromkeys(KINDS, 0.3))
    try:
        v = of(server)
        child = subprocess.Popen([sys.executable, '-c', CHILD, str(server.account), server.rest, str(made.path), BUCKET], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and any(line.strip() == stage for line in child.stdout)
        child.kill()
        child.wait()
        if then == 'deploy': up(v, made)
        else: undeploy(v, made.digest)
        time.sleep(0.4)      # whatever was on its way has come by now
        server.cloud.settle()
        return running(server.cloud), len(server.cloud.deployments), [e.state for e in endpoints(v)]
    finally: server.close()


@pytest.fixture(scope='module')
def ends(made: Artefact) -> dict[tuple[str, str], tuple[int, int, list[str]]]:
    """All of them at once, each with a server of its own."""
    with ThreadPoolExecutor(len(STAGES)) as pool: return dict(zip(STAGES, pool.map(lambda s: killed(made, *s), STAGES)))


@pytest.mark.parametrize(('stage', 'then'), STAGES)
def test_kill_9_at_each_stage(ends: dict[tuple[str, str], tuple[int, int, list[str]]], stage: str, then: str) -> None:
    """Between upload and deploy, and in the middle of each."""
    nodes, ever, states = ends[stage, then]
    if then == 'deploy': assert (nodes, ever, states) == (1, 1, ['serving'])
    else: assert nodes == 0 and ever <= 1 and set(states) <= {'empty'}, 'an endpoint that came up empty afterwards costs nothing'


# -- money

def test_what_we_count_is_what_the_server_counts(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made, nodes=2)
    there = far(v, made)
    for n in (1, 3, 11): there.run({'y': Y[:n]})
    server.clock.advance(5000)
    ours, theirs = there.provider.cost, truth(server.cloud)
    assert (ours.calls, ours.rows, ours.node_hours) == (theirs.calls, theirs.rows, theirs.node_hours)
    assert server.asked['predict'] == ours.calls and 2.7 < ours.node_hours < 2.8
    assert abs(ours.usd - ours.node_hours * price_of('n1-standard-2', 'us-central1').usd) < Decimal('0.0001') and endpoints(v)[0].usd == ours.usd
    undeploy(v, made.digest)
    server.clock.advance(5000)
    assert truth(server.cloud).node_hours - ours.node_hours < Decimal('0.02'), 'taken down is not paid'


def test_calls_that_failed_are_counted_too(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    there = far(v, made)
    for what in ('status', 'hang', 'drop', 'garbage'): server.fault(what)
    for _ in range(4):
        try: there.run({'y': Y[:1]}, soon(0.3))
        except Failed: pass
    assert there.provider.cost.calls == server.asked['predict']


def test_over_budget_local_answers_and_nothing_is_sent(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    f = Fallback([far(v, made, budget=Decimal('0.20')), load(Onnx(Device('cpu')), made.network, CLOCK)], v.clock)
    assert f.run({'y': Y[:1]}, v.clock.monotonic() + SECOND).provider == 'remote'
    asked = server.asked['predict']
    server.clock.advance(2 * 3600)
    answer = f.run({'y': Y[:1]}, v.clock.monotonic() + SECOND)
    assert answer.provider == 'onnx-cpu' and answer.attempts[0].kind == 'open' and 'over budget: 0.2' in answer.attempts[0].why and server.asked['predict'] == asked
    f.release()


def test_every_price_has_a_source_and_a_date() -> None:
    assert all(p.source.startswith('https://') and len(p.date) == 10 and p.usd > 0 for p in PRICES) and len({(p.machine, p.region) for p in PRICES}) == len(PRICES)
    with pytest.raises(BadInput, match='price of'): price_of('n1-standard-2', 'moon')


# -- predictions in trouble, both ways of the hybrid

def test_a_token_lasts_an_hour_and_nobody_notices_its_end(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    there, calls = far(v, made), 3
    for _ in range(calls):
        server.clock.advance(3700)
        assert there.run({'y': Y[:1]})['forecast'].shape == (1, 6, 1)
    issued = server.gate.issued
    server.fault('expire')
    assert there.run({'y': Y[:1]})['forecast'].shape == (1, 6, 1) and server.gate.issued == issued + 1, 'refused in the middle, renewed once'


@pytest.mark.parametrize(('how', 'kind'), [
    ({'what': 'hang'}, 'hung'), ({'what': 'latency', 's': 2.0}, 'hung'), ({'what': 'drip', 's': 0.02}, 'hung'), ({'what': 'status', 'code': 429, 'retry_after': '30'}, 'raised'),
    ({'what': 'status', 'code': 500, 'times': 2}, 'raised'), ({'what': 'status', 'code': 503, 'times': 2}, 'raised'), ({'what': 'status', 'code': 504}, 'raised'), ({'what': 'status', 'code': 403}, 'raised'),
    ({'what': 'garbage'}, 'nonsense'), ({'what': 'nan'}, 'nonsense'), ({'what': 'shape'}, 'nonsense'), ({'what': 'other'}, 'nonsense'), ({'what': 'drop', 'times': 2}, 'raised')])
def test_remote_preferred_local_behind(server: VertexServer, v: Vertex, made: Artefact, how: dict[str, Any], kind: str) -> None:
    up(v, made)
    here = load(Onnx(Device('cpu')), made.network, CLOCK)
    f = Fallback([far(v, made), here], CLOCK, Rest(first_s=60))
    assert f.run({'y': Y[:1]}, soon()).provider == 'remote'
    server.fault(**how)
    start = time.monotonic()
    answer = f.run({'y': Y[:1]}, soon(0.6))
    assert time.monotonic() - start < 0.6, 'by its deadline, whatever the cloud does'
    assert answer.provider == 'onnx-cpu' and [(a.provider, a.kind) for a in answer.attempts] == [('remote', kind)] and f.counted()['remote'] == {'answered': 1, kind: 1}
    assert np.array_equal(answer.outputs['forecast'], here.run({'y': Y[:1]})['forecast'])
    server.over.set()
    f.release()


class Lost(Onnx):
    """ONNX Runtime on a device that goes away after it was loaded."""
    gone = False

    @property
    def name(self) -> str: return 'onnx-lost'

    def open(self, data: bytes, network: Any, batch: int) -> Any:
        session = super().open(data, network, batch)
        real = session.run
        def run(inputs: Any) -> Any:
            if Lost.gone: raise RuntimeError('CUDA error: the device was lost')
            return real(inputs)
        session.run = run      # type: ignore[method-assign]
        return session


def test_local_preferred_remote_behind_where_it_is_allowed(server: VertexServer, v: Vertex, made: Artefact, monkeypatch: pytest.MonkeyPatch) -> None:

    up(v, made)
    here = (Place(Lost(Device('cpu')), Device('cpu')),)
    for allowed in (True, False):
        monkeypatch.setattr(Lost, 'gone', False)
        f = Fallback([x for _, x in loaded_on(made.network, places(here, remote(v, made.digest), allowed), CLOCK)[0]], CLOCK, Rest(first_s=60))
        wanted = f.run({'y': Y}, soon()).outputs['forecast']
        monkeypatch.setattr(Lost, 'gone', True)
        if allowed:
            answer = f.run({'y': Y}, soon(1))
            assert answer.provider == 'remote' and np.array_equal(answer.outputs['forecast'], wanted) and [(a.provider, a.kind) for a in answer.attempts] == [('onnx-lost', 'raised')]
        else:
            asked = server.asked['predict']
            with pytest.raises(NoAnswer): f.run({'y': Y}, soon(1))
            assert server.asked['predict'] == asked, 'nothing left this machine'
        f.release()


def test_traffic_moved_to_another_model_is_no_answer_of_ours(server: VertexServer, v: Vertex, made: Artefact, tmp_path: Path) -> None:
    e, other = up(v, made).endpoint, upload(v, artefact(tmp_path / 'b', 2), BUCKET, IMAGE)
    there = far(v, made)
    v.ask('POST', f'{e}:deployModel', {'deployedModel': {'model': other, 'dedicatedResources': {'machineSpec': {'machineType': 'n1-standard-2'}, 'minReplicaCount': 1}}, 'trafficSplit': {'0': 100}})
    with pytest.raises(Failed, match='deployment .* answered'): there.run({'y': Y[:1]})


def test_an_endpoint_that_was_taken_down_is_a_failure_and_not_a_hang(server: VertexServer, v: Vertex, made: Artefact) -> None:
    up(v, made)
    there = far(v, made)
    undeploy(v, made.digest)
    with pytest.raises(Failed, match='404'): there.run({'y': Y[:1]}, soon(1))
    assert remote(v, made.digest) is None


def test_no_secret_shows(server: VertexServer, v: Vertex, made: Artefact, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    done = up(v, made)
    there = far(v, made)
    said = [repr(v), repr(done), repr(there), repr(there.provider), str(vars(there.provider))]
    server.gate.expire()
    server.fault('status', on='token', code=401, times=9)
    try: there.run({'y': Y[:1]}, soon(2))
    except Failed as e: said += [str(e), repr(e.values), repr(e.__cause__)]
    text = ' '.join(said) + caplog.text
    assert len(said) == 8 and 'ya29' not in text and 'PRIVATE KEY' not in text and 'eyJ' not in text


# -- as processes

@contextmanager
def process(*words: object, **how: Any) -> Iterator['subprocess.Popen[str]']:
    """Ended with the test, also by a failure."""
    p = subprocess.Popen([str(w) for w in words], text=True, **how)
    try: yield p
    finally:
        p.kill()
        p.wait()


def test_the_command_serves_until_it_is_told_to_go(made: Artefact, tmp_path: Path) -> None:
    plan = tmp_path / 'faults.json'
    plan.write_text('[{"what": "status", "code": 429, "retry_after": "1", "on": "models"}]')
    with process(Path(sys.executable).with_name('gekko'), 'sandbox', 'serve', 'vertex', '--json', '--faults', plan, stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        card = json.loads(p.stdout.readline())
        v = vertex(card['project'], card['region'], CLOCK, credentials=Path(card['credentials']), url=card['rest'], storage=card['storage'])
        with pytest.raises(Failed, match='429'): v.ask('GET', f'{v.parent}/models')
        up(v, made)
        assert far(v, made).run({'y': Y})['forecast'].shape == (11, 6, 1)
        ask = urllib.request.Request(f'{card["control"]}/truth', b'{}', {'X-Sandbox': card['secret']})
        found = json.loads(urllib.request.urlopen(ask, timeout=10).read())
        assert (found['nodes'], found['calls'], found['rows']) == (1, 4, 9 + 2 * 8), 'the trial runs, and 11 rows as two batches of 8'
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 0 and not Path(card['credentials']).exists()


def test_the_container_serves_what_the_bucket_holds(server: VertexServer, v: Vertex, made: Artefact, tmp_path: Path) -> None:
    """As Vertex AI starts it: told by variables where the artefact is and what to answer."""
    upload(v, made, BUCKET, IMAGE)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {'AIP_STORAGE_URI': f'{BUCKET}/{made.digest}', 'AIP_HTTP_PORT': str(port), 'AIP_PREDICT_ROUTE': '/predict', 'AIP_HEALTH_ROUTE': '/health',
                        'STORAGE_EMULATOR_HOST': server.rest, 'GOOGLE_APPLICATION_CREDENTIALS': str(server.account), 'TMPDIR': str(tmp_path)}

    def at(path: str, body: bytes | None = None) -> Any: return urllib.request.urlopen(f'http://127.0.0.1:{port}{path}', body, timeout=10)
    with process(sys.executable, '-m', 'gekko.forecast.far', env=env) as p:
        assert until(lambda: at('/health').status == 200)
        said = json.loads(at('/predict', json.dumps({'instances': [{'y': row.tolist()} for row in Y]}).encode()).read())
        here = load(Onnx(Device('cpu')), made.network, CLOCK).run({'y': Y})['forecast']
        assert np.array_equal(np.array([r['forecast'] for r in said['predictions']], np.float32), here)
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 0


def until(ready: Callable[[], bool], s: float = 20) -> bool:
    end = time.monotonic() + s
    while time.monotonic() < end:
        try:
            if ready(): return True
        except OSError: pass
        time.sleep(0.02)
    return False


