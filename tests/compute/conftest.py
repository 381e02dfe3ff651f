"""Real networks: a small forecasting network exported both ways, and ONNX graphs made by hand that fail in earnest."""
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from gekko.compute.network import Network, Port, network

Make = Callable[..., Network]


def doubling(batch: int, width: int = 3, by: float = 2.0) -> bytes:
    """y = x * by."""
    ports = [h.make_tensor_value_info(n, T.FLOAT, [batch, width]) for n in ('x', 'y')]
    graph = h.make_graph([h.make_node('Mul', ['x', 'c'], ['y'])], 'tiny', ports[:1], ports[1:], [h.make_tensor('c', T.FLOAT, [1], [by])])
    return serialized(graph)


def serialized(graph: Any) -> bytes:
    model = h.make_model(graph, opset_imports=[h.make_opsetid('', 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def sometimes(nodes: list[Any], constants: list[Any], width: int = 3) -> bytes:
    """y = 2x + 0 * extra, where `nodes` make `extra` from `big`, the largest value of x: harmless for usual inputs."""
    ports = [h.make_tensor_value_info(n, T.FLOAT, [1, width]) for n in ('x', 'y')]
    body = [h.make_node('ReduceMax', ['x'], ['big'], keepdims=0), *nodes, h.make_node('Mul', ['extra', 'zero'], ['none']),
            h.make_node('Mul', ['x', 'two'], ['twice']), h.make_node('Add', ['twice', 'none'], ['y'])]
    return serialized(h.make_graph(body, 'sometimes', ports[:1], ports[1:], [h.make_tensor('zero', T.FLOAT, [], [0.0]), h.make_tensor('two', T.FLOAT, [], [2.0]), *constants]))


def hanging() -> bytes:
    """Loops as often as the largest input says: at 1e15 for weeks."""
    body = h.make_graph([h.make_node('Identity', ['go'], ['on']), h.make_node('Add', ['s', 's'], ['t'])], 'body',
                        [h.make_tensor_value_info('i', T.INT64, []), h.make_tensor_value_info('go', T.BOOL, []), h.make_tensor_value_info('s', T.FLOAT, [])],
                        [h.make_tensor_value_info('on', T.BOOL, []), h.make_tensor_value_info('t', T.FLOAT, [])])
    return sometimes([h.make_node('Relu', ['big'], ['many']), h.make_node('Cast', ['many'], ['n'], to=T.INT64), h.make_node('Loop', ['n', 'yes', 'zero'], ['extra'], body=body)],
                     [h.make_tensor('yes', T.BOOL, [], [True])])


def devouring() -> bytes:
    """Fills as many floats as the largest input says: at 1e15 more than any machine has."""
    return sometimes([h.make_node('Relu', ['big'], ['many']), h.make_node('Cast', ['many'], ['n'], to=T.INT64), h.make_node('Reshape', ['n', 'row'], ['shape']),
                      h.make_node('ConstantOfShape', ['shape'], ['filled'], value=h.make_tensor('v', T.FLOAT, [1], [1.0])), h.make_node('ReduceSum', ['filled'], ['extra'], keepdims=0)],
                     [h.make_tensor('row', T.INT64, [1], [1])])


def undefined() -> bytes:
    """The root of 1000 less the largest input: NaN above that."""
    return sometimes([h.make_node('Sub', ['thousand', 'big'], ['left']), h.make_node('Sqrt', ['left'], ['extra'])], [h.make_tensor('thousand', T.FLOAT, [], [1000.0])])


@pytest.fixture(scope='session')
def faulty() -> dict[str, bytes]:
    """ONNX graphs y = 2x that fail in earnest when an input is very large, by the kind of their failure."""
    return {'hung': hanging(), 'memory': devouring(), 'nonsense': undefined()}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A tiny ONNX network in a folder of its own."""
    def made(name: str = 'net', batches: tuple[int, ...] = (1,), width: int = 3, by: float = 2.0) -> Network:
        folder = tmp_path / name
        folder.mkdir()
        for b in batches: (folder / f'batch_{b}.onnx').write_bytes(doubling(b, width, by))
        return network(folder, [Port('x', (width,))], [Port('y', (width,))])
    return made


@pytest.fixture(scope='session')
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Any]:
    """Two stacked residual blocks over a window of 96 to a horizon of 24, as NHITS is built: exported for batches of 1 and 8 as ONNX and as a torch program."""
    import torch
    from torch import nn

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backs = nn.ModuleList(nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 96)) for _ in range(2))
            self.heads = nn.ModuleList(nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 24)) for _ in range(2))

        def forward(self, window: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
            out = window[:, -1:] + known
            for back, head in zip(self.backs, self.heads, strict=True): window, out = window - back(window), out + head(window)
            return out

    torch.manual_seed(7)
    module, folder = Blocks().eval(), tmp_path_factory.mktemp('forecaster')
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        for b in (1, 8):
            given = torch.zeros(b, 96), torch.zeros(b, 24)
            program = torch.export.export(module, given)
            torch.export.save(program, folder / f'batch_{b}.pt2')
            torch.onnx.export(program, given, input_names=['window', 'known'], output_names=['forecast'], dynamo=True, verbose=False).save(folder / f'batch_{b}.onnx')

    def eager(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode(): return np.asarray(module(torch.from_numpy(inputs['window']), torch.from_numpy(inputs['known'])).numpy())
    return network(folder, [Port('window', (96,)), Port('known', (24,))], [Port('forecast', (24,))]), eager
