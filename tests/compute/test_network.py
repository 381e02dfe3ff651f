"""A network is what its digest says, and rows are fitted to batch sizes without loss."""
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.compute.network import Network, Port, network, padded, parts, read, rows, sample
from gekko.domain.errors import BadInput


@given(st.integers(1, 500), st.sets(st.integers(1, 64), min_size=1, max_size=5))
def test_each_row_is_run_once(n: int, batches: set[int]) -> None:
    found = list(parts(n, tuple(batches)))
    assert [i for a, b, _ in found for i in range(a, b)] == list(range(n))
    assert all(b - a <= size and size in batches for a, b, size in found)
    assert all(b - a == size == max(batches) for a, b, size in found[:-1])           # only the last is padded
    a, b, size = found[-1]
    assert size == min((x for x in batches if x >= b - a), default=max(batches))


def test_padding_is_zeros_behind() -> None:
    x = np.ones((2, 3), np.float32)
    assert padded(x, 2) is x and padded(x, 4).tolist() == [[1] * 3] * 2 + [[0] * 3] * 2 and padded(x, 4).dtype == np.float32


def test_the_digest_covers_files_and_ports(make) -> None:
    a, b, c, d = make('a'), make('b'), make('c', by=3.0), make('d', batches=(1, 2))
    assert a.digest == b.digest and len({x.digest for x in (a, c, d)}) == 3
    other = network(a.path, [Port('z', (3,))], a.outputs)
    assert other.digest != a.digest
    (a.path / 'scaler.json').write_text('{}')
    assert network(a.path, a.inputs, a.outputs).digest == a.digest


@pytest.mark.parametrize('damage', [lambda p: p.write_bytes(p.read_bytes()[:-1]), lambda p: p.write_bytes(p.read_bytes()[::-1]), lambda p: p.unlink(), lambda p: (p.unlink(), p.mkdir())])
def test_what_was_described_is_what_is_read(make, damage) -> None:
    net: Network = make()
    damage(net.path / 'batch_1.onnx')
    with pytest.raises(BadInput): read(net, 'onnx', 1)


def test_what_is_not_a_network(tmp_path: Path) -> None:
    ports = [Port('x', (1,))], [Port('y', (1,))]
    for path in (tmp_path, tmp_path / 'absent', tmp_path / 'file'):
        if path.name == 'file': path.write_text('')
        with pytest.raises(BadInput): network(path, *ports)
    for name in ('batch_0.onnx', 'batch_1.pkl', 'batch_01.onnx', 'batch_1.onnx.part'): (tmp_path / name).write_text('x')
    with pytest.raises(BadInput, match='without a network'): network(tmp_path, *ports)


@pytest.mark.parametrize('bad', [{}, {'x': [[1.0] * 3]}, {'x': np.ones((1, 3))}, {'x': np.ones(3, np.float32)}, {'x': np.ones((0, 3), np.float32)}, {'x': np.ones((1, 4), np.float32)},
                                 {'x': np.full((1, 3), np.inf, np.float32)}, {'x': np.ones((1, 3), np.float32), 'more': np.ones((1, 3), np.float32)}])
def test_inputs_that_are_not_its_own(make, bad) -> None:
    with pytest.raises(BadInput): rows(make(), bad)


def test_ports_of_different_length_are_refused(make) -> None:
    net = make()
    two = Network(net.path, net.digest, net.files, (Port('a', (3,)), Port('b', ())), net.outputs)
    assert rows(two, {'a': np.ones((4, 3), np.float32), 'b': np.ones(4, np.float32)}) == 4
    with pytest.raises(BadInput, match='4 of them'): rows(two, {'a': np.ones((4, 3), np.float32), 'b': np.ones(5, np.float32)})
    assert sample(two, 2)['b'].shape == (2,)
