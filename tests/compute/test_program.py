"""A torch program is data: nothing in it may run code when it is loaded."""
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gekko.compute.network import Network
from gekko.compute.program import opened, screened
from gekko.domain.errors import BadInput

GRAPH, WEIGHTS, CONSTANTS = 'models/model.json', 'data/weights/model_weights_config.json', 'data/constants/model_constants_config.json'


@pytest.fixture
def good(forecaster: tuple[Network, Any]) -> bytes: return (forecaster[0].path / 'batch_1.pt2').read_bytes()


def rewritten(data: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    src, out = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    members = {n.partition('/')[2]: src.read(n) for n in src.namelist()}
    change(members)
    with zipfile.ZipFile(out, 'w') as z:
        for n, b in members.items(): z.writestr(f'net/{n}', b)
    return out.getvalue()


def in_json(name: str, change: Callable[[Any], object]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        graph = json.loads(members[name])
        change(graph)
        members[name] = json.dumps(graph).encode()
    return apply


def first_node(graph: Any) -> Any: return graph['graph_module']['graph']['nodes'][0]
def first_weight(config: Any) -> Any: return next(iter(config['config'].values()))


EVIL = {
    'an operator of the system': in_json(GRAPH, lambda g: first_node(g).update(target='torch.os.system')),
    'an operator by another door': in_json(GRAPH, lambda g: first_node(g).update(target='_operator.methodcaller')),
    'an operator as an argument': in_json(GRAPH, lambda g: first_node(g)['inputs'][0].update(arg={'as_operator': 'torch.os.system'})),
    'an evaluated size': in_json(GRAPH, lambda g: first_node(g)['inputs'][0].update(arg={'as_sym_int': {'as_expr': {'expr_str': '__import__("os")'}}})),
    'guards': in_json(GRAPH, lambda g: g.update(guards_code=['__import__("os").system("true")'])),
    'a name that is code': in_json(GRAPH, lambda g: first_node(g).update(name='x = 1; import os #')),
    'a type of its own': in_json(GRAPH, lambda g: g['graph_module']['module_call_graph'][0]['signature'].update(in_spec=json.dumps([1, {'type': 'os.Thing', 'context': None, 'children_spec': []}]))),
    'a subgraph': in_json(GRAPH, lambda g: first_node(g)['inputs'][0].update(arg={'as_graph': {'name': 'g', 'graph': {}}})),
    'a pickled weight': in_json(WEIGHTS, lambda c: first_weight(c).update(use_pickle=True)),
    'a pickled constant': in_json(CONSTANTS, lambda c: c['config'].update(k={'path_name': 'tensor_0', 'is_param': False, 'use_pickle': True, 'tensor_meta': None})),
    'a custom object': lambda m: m.update({'data/constants/custom_obj_0': b'x'}),
    'a library': lambda m: m.update({'data/aotinductor/model/model.so': b'\x7fELF'}),
    'a second graph': lambda m: m.update({'models/other.json': m[GRAPH]}),
    'another folder': lambda m: m.update({'../models/x.json': b'{}'}),
    'text for a graph': lambda m: m.update({GRAPH: b'import os'}),
    'the format of old': lambda m: (m.clear(), m.update({'serialized_exported_program.json': b'{}', 'version': b'1'})),
}


@pytest.mark.parametrize('what', EVIL)
def test_a_door_is_shut(good: bytes, what: str) -> None:
    with pytest.raises(BadInput): screened(rewritten(good, EVIL[what]))


class Touch:
    """Unpickled, it makes a file."""
    def __init__(self, path: Path) -> None: self.path = path
    def __reduce__(self) -> Any: return open, (str(self.path), 'w')


def test_a_pickle_in_place_of_the_sample_inputs_is_never_read(good: bytes, tmp_path: Path) -> None:
    evil = rewritten(good, lambda m: m.update({'data/sample_inputs/model.pt': pickle.dumps(Touch(tmp_path / 'touched'))}))
    assert opened(evil).graph_signature.user_inputs == ('window', 'known')
    assert not (tmp_path / 'touched').exists()
    pickle.loads(pickle.dumps(Touch(tmp_path / 'touched'))).close()
    assert (tmp_path / 'touched').exists()          # the pickle itself was a live one


def test_a_pickle_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match='not an exported torch program'): opened(pickle.dumps(Touch(tmp_path / 'touched')))
    assert not (tmp_path / 'touched').exists()


def test_another_version_is_refused_clearly(good: bytes) -> None:
    with pytest.raises(BadInput, match='torch'): opened(rewritten(good, in_json(GRAPH, lambda g: g['schema_version'].update(major=99))))


def test_no_folder_of_the_exporting_machine_travels(good: bytes) -> None:
    assert __file__.encode() not in screened(good) and str(Path(__file__).parent).encode() not in screened(good)
