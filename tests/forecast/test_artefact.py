"""Artefacts: whole or refused. Whatever happens to a folder, nothing in it runs and nothing half of it is used."""
import errno
import hashlib
import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.artefact import FORMAT, BadArtefact, Lineage, calibrated, load, save
from gekko.forecast.spec import ModelSpec, Scaling

SPEC = ModelSpec(type='nhits', input_size=16, horizon=4, past=('volume',))
BORN = Lineage('bars@3', 'abc123', (('torch', '2.13.0'),), (('mae', 0.5), ('mse', 0.4)))
NETWORKS = {'batch_1.onnx': b'\x08\x0a' + bytes(range(200)), 'batch_8.onnx': b'\x08\x0b' + bytes(range(250))}


class Trap:
    """Unpickled, it leaves a file behind: proof that something ran."""

    def __init__(self, mark: Path) -> None: self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]: return (os.mkdir, (str(self.mark),))


def listed(folder: Path) -> None:
    """Make the manifest say what is there, as whoever changes a folder on purpose would."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file() and p.name != 'manifest.json'}
    said = {n: {'bytes': len(d), 'sha256': hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    digest = hashlib.sha256((json.dumps({'format': FORMAT, 'files': said}, indent=1, sort_keys=True) + '\n').encode()).hexdigest()
    (folder / 'manifest.json').write_text(json.dumps({'format': FORMAT, 'files': said, 'digest': digest}))


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return save(tmp_path / 'made', SPEC, NETWORKS, BORN, Scaling((('y', 100.0, 2.0), ('volume', 5.0, 1.0))), {'method': 'conformal', 'q': [0.1, 0.2]}).path


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp('whole') / 'made', SPEC, NETWORKS, BORN, calibration={'q': [0.1]}).path


def test_what_was_saved_is_what_is_loaded(made: Path) -> None:
    a = load(made)
    assert (a.spec, a.lineage, a.calibration) == (SPEC, BORN, {'method': 'conformal', 'q': [0.1, 0.2]})
    assert a.scaling.of('y') == (100.0, 2.0) and a.scaling.of('volume') == (5.0, 1.0)
    assert a.network.batches('onnx') == (1, 8) and [p.name for p in a.network.inputs] == ['y', 'past']
    listed(made)
    assert load(made, a.digest) == a, 'the digest is over the files, by a rule that anybody can follow'


@pytest.mark.parametrize('what', ['spec', 'networks', 'lineage', 'scaling', 'calibration'])
def test_every_part_is_under_the_digest(tmp_path: Path, what: str) -> None:
    from dataclasses import replace
    one = {'spec': SPEC, 'networks': NETWORKS, 'lineage': BORN, 'scaling': Scaling(), 'calibration': {'q': 1}}
    two = one | {what: {'spec': replace(SPEC, seed=2), 'networks': NETWORKS | {'batch_1.onnx': b'\x08'}, 'lineage': replace(BORN, data_version='bars@4'), 'scaling': Scaling((('y', 0.0, 2.0),)), 'calibration': None}[what]}
    assert save(tmp_path / '1', **one).digest != save(tmp_path / '2', **two).digest  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_byte_changed_or_cut_off_is_noticed(whole: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    copy = tmp_path_factory.mktemp('copy') / 'a'
    shutil.copytree(whole, copy)
    name = data.draw(st.sampled_from(['manifest.json', 'spec.json', 'calibration.json', 'networks/batch_1.onnx', 'networks/batch_8.onnx']))
    before = (copy / name).read_bytes()
    at = data.draw(st.integers(0, len(before) - 1))
    if data.draw(st.booleans()): (copy / name).write_bytes(before[:at])
    else: (copy / name).write_bytes(before[:at] + bytes([before[at] ^ data.draw(st.integers(1, 255))]) + before[at + 1:])
    try: found = load(copy)
    except BadArtefact: return
    # White space of the manifest may go: it means the same.
    assert name == 'manifest.json' and found.digest == load(whole).digest


@pytest.mark.parametrize('name', ['manifest.json', 'spec.json', 'calibration.json', 'networks/batch_1.onnx', 'networks/batch_8.onnx'])
def test_a_pickle_in_the_place_of_any_file_never_runs(made: Path, tmp_path: Path, name: str) -> None:
    trap = pickle.dumps(Trap(tmp_path / 'ran'))
    (made / name).write_bytes(trap)
    with pytest.raises(BadArtefact): load(made)
    if name != 'manifest.json':
        listed(made)
        with pytest.raises(BadArtefact): load(made)
    assert not (tmp_path / 'ran').exists()
    pickle.loads(trap)
    assert (tmp_path / 'ran').exists(), 'the trap works'


def test_a_pickle_or_nothing_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / 'model.pkl').write_bytes(pickle.dumps(Trap(tmp_path / 'ran')))
    with pytest.raises(BadArtefact, match='expected a folder with manifest.json, found a file'): load(tmp_path / 'model.pkl')
    with pytest.raises(BadArtefact, match='found no nowhere'): load(tmp_path / 'nowhere')
    assert not (tmp_path / 'ran').exists()


def test_a_newer_version_is_named_as_such(made: Path) -> None:
    m = json.loads((made / 'manifest.json').read_text())
    (made / 'manifest.json').write_text(json.dumps(m | {'format': FORMAT + 1, 'also': 'unknown'}))
    with pytest.raises(BadArtefact, match='from a newer version.*update gekko'): load(made)


@pytest.mark.parametrize('bad', ['[]', '{}', '{"format": true}', '{"format": 1, "digest": "x", "files": []}', '{"format": 0, "digest": "x", "files": {}}', '[' * 100_000, '{"format": NaN}', '', '\x00'])
def test_a_manifest_that_is_none(made: Path, bad: str) -> None:
    (made / 'manifest.json').write_text(bad)
    with pytest.raises(BadArtefact): load(made)


@pytest.mark.parametrize('change', [{'spec': {}}, {'spec': None}, {'scaling': {'y': [0.0, 0.0]}}, {'scaling': {'y': [1.0]}}, {'scaling': []}, {'lineage': {}}, {'lineage': {'data_version': 'a', 'code_hash': 'b', 'made_with': [], 'scores': {}}},
                                    {'scaling': {'y': ['a', 'b']}}, {'more': 1}])
def test_a_spec_that_says_something_else_is_refused_though_its_hash_is_right(made: Path, change: dict[str, object]) -> None:
    said = json.loads((made / 'spec.json').read_text())
    (made / 'spec.json').write_text(json.dumps(said | change))
    listed(made)
    with pytest.raises(BadArtefact): load(made)


def test_files_that_do_not_belong(made: Path, tmp_path: Path) -> None:
    before = (made / 'manifest.json').read_bytes()

    def refused(why: str) -> None:
        with pytest.raises(BadArtefact, match=why): load(made)
        listed(made)
        with pytest.raises(BadArtefact): load(made)
        (made / 'manifest.json').write_bytes(before)

    (made / 'code.py').write_text('print(1)')
    refused('also code.py')
    (made / 'code.py').unlink()
    (made / 'networks' / 'batch_01.onnx').write_bytes(b'\x08')
    refused('also networks/batch_01.onnx')
    (made / 'networks' / 'batch_01.onnx').unlink()
    assert load(made)
    (made / 'networks' / 'batch_8.onnx').rename(tmp_path / 'aside')
    (made / 'networks' / 'batch_8.onnx').symlink_to(tmp_path / 'aside')
    refused('plain files')


def test_without_a_network_or_a_spec(made: Path) -> None:
    (made / 'calibration.json').unlink()
    listed(made)
    assert load(made).calibration is None
    (made / 'spec.json').unlink()
    listed(made)
    with pytest.raises(BadArtefact, match='spec.json'): load(made)


def test_another_artefact_than_was_asked_for(made: Path) -> None:
    with pytest.raises(BadArtefact, match='another artefact'): load(made, '0' * 64)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def full(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2: raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(BadInput, match='No space left on device'): save(tmp_path / 'a', SPEC, NETWORKS, BORN)
    assert list(tmp_path.iterdir()) == []


def test_of_many_writers_of_one_name_one_wins_and_none_is_torn(tmp_path: Path) -> None:
    won, lost = [], []

    def write(i: int) -> None:
        try: won.append(save(tmp_path / 'a', SPEC, {'batch_1.onnx': b'\x08' + bytes([i]) * 5000}, BORN).digest)
        except BadInput: lost.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert (len(won), len(lost)) == (1, 7)
    assert load(tmp_path / 'a').digest == won[0]
    assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_a_calibration_makes_another_artefact_of_the_same_network(made: Path, tmp_path: Path) -> None:
    a = load(made)
    b = calibrated(a, tmp_path / 'b', {'q': [0.3]})
    assert b.digest != a.digest and b.network.digest == a.network.digest and b.calibration == {'q': [0.3]}
    (made / 'networks' / 'batch_8.onnx').write_bytes(b'\x08')
    with pytest.raises(BadInput): calibrated(a, tmp_path / 'c', {})
    for bad in ({'q': float('nan')}, {'q': object()}):
        with pytest.raises(BadInput, match='calibration'): calibrated(b, tmp_path / 'd', bad)
    assert not (tmp_path / 'c').exists() and not (tmp_path / 'd').exists()
