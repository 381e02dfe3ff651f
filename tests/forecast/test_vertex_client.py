"""Google's own client, unchanged but for its address, against the local Vertex AI: what proves that the server is faithful, and so that our client is."""
import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto as T
from onnx import helper as h

from gekko.forecast.artefact import Lineage, save
from gekko.forecast.spec import ModelSpec
from gekko.forecast.vertex import deploy, endpoints, undeploy, vertex
from gekko.forecast.vertex_server import VertexServer

ROOT = Path(__file__).resolve().parents[2]
WINDOW = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.5]
NUMBERED = 'projects/123456789012/locations/us-central1'


def last_four(batch: int) -> bytes:
    """The window's last four values again."""
    shapes = [h.make_tensor_value_info('y', T.FLOAT, [batch, 8]), h.make_tensor_value_info('forecast', T.FLOAT, [batch, 4, 1])]
    ints = {'from': [4], 'to': [8], 'axis': [1], 'shape': [batch, 4, 1]}
    nodes = [h.make_node('Slice', ['y', 'from', 'to', 'axis'], ['last']), h.make_node('Reshape', ['last', 'shape'], ['forecast'])]
    graph = h.make_graph(nodes, 'tiny', shapes[:1], shapes[1:], [h.make_tensor(n, T.INT64, [len(v)], v) for n, v in ints.items()])
    return bytes(h.make_model(graph, opset_imports=[h.make_opsetid('', 18)], ir_version=10).SerializeToString())


@pytest.fixture(scope='module')
def server() -> Iterator[VertexServer]:
    yield (s := VertexServer(take_s={'DeployModel': 0.2}))
    s.close()


@pytest.fixture(scope='module')
def seen(server: VertexServer) -> dict[str, Any]:
    made = subprocess.run(['bash', ROOT / 'scripts/clients.sh'], capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr
    save(server.cloud.root / 'gekko-models' / 'x', ModelSpec(type='nhits', input_size=8, horizon=4), {f'batch_{b}.onnx': last_four(b) for b in (1, 4)}, Lineage('bars@3', 'abc', (('torch', '2'),)))
    card = json.dumps(server.card() | {'uri': 'gs://gekko-models/x', 'window': WINDOW})     # type: ignore[operator]
    done = subprocess.run([made.stdout.split()[-1], ROOT / 'tests/clients/vertex_google.py'], input=card, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_it_is_the_version_of_the_list(seen: dict[str, Any]) -> None:
    assert f'google-cloud-aiplatform=={seen["version"]} ' in (ROOT / 'tests/clients/requirements.txt').read_text()


def test_upload_create_deploy(seen: dict[str, Any]) -> None:
    assert seen['model'] == [f'{NUMBERED}/models/eth-1', 'eth', '1', {'gekko_artefact': 'ab12'}, 'gs://gekko-models/x']
    assert seen['endpoint'] == [f'{NUMBERED}/endpoints/eth-1', 'eth', {}]
    [[id, name, model, machine, nodes]] = seen['deployed']
    assert (name, model, machine, nodes, seen['split']) == ('ab12', seen['model'][0], 'n1-standard-2', 1, {id: 100})
    assert seen['listed'] == [['eth-1'], [], ['eth-1']], 'by label: one, none; and the models'


def test_predict_runs_the_network(seen: dict[str, Any]) -> None:
    predictions, by, model, version = seen['prediction']
    assert predictions == [{'forecast': [[v] for v in w[4:]]} for w in (WINDOW, WINDOW[::-1])]
    assert (by, model, version) == (seen['deployed'][0][0], seen['model'][0], '1')


@pytest.mark.parametrize(('what', 'error', 'says'), [
    ('twice', 'Conflict', 'already exists'), ('too early', 'BadRequest', 'no deployed model'), ('bad', 'BadRequest', 'numbers under y'), ('in use', 'BadRequest', 'deployed models'),
    ('429', 'TooManyRequests', 'Quota exceeded'), ('500', 'InternalServerError', 'unavailable'), ('503', 'ServiceUnavailable', 'unavailable'), ('504', 'GatewayTimeout', 'unavailable')])
def test_refusals_are_understood(seen: dict[str, Any], what: str, error: str, says: str) -> None:
    assert seen[what][0] == error and says in seen[what][1]


def test_an_expired_token_is_renewed(seen: dict[str, Any]) -> None: assert seen['renewed'] is True


def test_undeploy_delete_and_the_bill(seen: dict[str, Any]) -> None:
    assert seen['empty'] == [] and seen['gone'][0][0] == 'NotFound' and seen['gone'][1:] == [[], []]
    assert (seen['busy']['nodes'], seen['truth']['nodes'], seen['truth']['calls'], seen['truth']['rows']) == (1, 0, 2, 3)
    assert Decimal('0.5') <= Decimal(seen['truth']['node_hours']) < Decimal('0.52'), 'half an hour by the moved clock, and the seconds of the test in steps of 30'


def test_our_client_after_theirs(server: VertexServer, seen: dict[str, Any]) -> None:
    """The same server, the same calls, no trace of the other."""
    v = vertex('gekko-sandbox', 'us-central1', server.clock, credentials=server.account, url=server.rest, storage=server.rest)
    from gekko.forecast.artefact import load
    a = load(server.cloud.root / 'gekko-models' / 'x')
    assert endpoints(v) == () and deploy(v, a, 'gs://gekko-models/ours', 'us-docker.pkg.dev/p/gekko/far:1').state == 'serving' and undeploy(v, a.digest)
