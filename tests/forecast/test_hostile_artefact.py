"""Artefacts cut at every place, altered at random, packed as bombs, led outside their folder: refused with a reason, and nothing runs, grows or is read elsewhere."""
from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gekko.compute.network import network
from gekko.compute.program import opened, screened
from gekko.domain.errors import BadInput
from gekko.forecast.artefact import FORMAT, BadArtefact, Lineage, load, save
from gekko.forecast.spec import ModelSpec, Scaling

SPEC = ModelSpec(type='nhits', input_size=16, horizon=4)
BORN = Lineage('bars@3', 'abc123', (('torch', '2.13.0'),), (('mae', 0.5),))
GRAPH = 'models/model.json'


def stored(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        for n, b in members.items(): z.writestr(n, b)
    return out.getvalue()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    networks = {'batch_1.onnx': b'\x08\x0a' + bytes(range(120)), 'batch_1.pt2': stored(**{'net/archive_format': b'pt2'})}
    return save(tmp_path / 'made', SPEC, networks, BORN, Scaling((('y', 100.0, 2.0),)), {'q': [0.1, 0.2]}).path


def files(folder: Path) -> list[Path]: return sorted(p for p in folder.rglob('*') if p.is_file())


def test_cut_at_every_place(made: Path) -> None:
    """Every length of every file, the empty one and the one that lacks only its last byte among them."""
    digest, tried = load(made).digest, 0
    for p in files(made):
        whole = p.read_bytes()
        for n in range(0, len(whole), max(1, len(whole) // 150)):
            p.write_bytes(whole[:n])
            with pytest.raises(BadArtefact): load(made)
            tried += 1
        p.write_bytes(whole[:-1])
        if p.name != 'manifest.json':
            with pytest.raises(BadArtefact): load(made)
        else: assert load(made).digest == digest      # the line's end means nothing
        p.write_bytes(whole)
    assert load(made).digest == digest and tried > 500


def test_altered_at_random_places(made: Path) -> None:
    """One to eight bytes anywhere in the folder, as a disk or a hand would; what is loaded at all is what was written."""
    rng, good, before = random.Random(6), load(made), {p: p.read_bytes() for p in files(made)}
    refused = 0
    for _ in range(600):
        p = rng.choice(list(before))
        data = bytearray(before[p])
        for _ in range(rng.randint(1, 8)): data[rng.randrange(len(data))] = rng.randrange(256)
        p.write_bytes(bytes(data))
        try: assert load(made) == good
        except BadArtefact: refused += 1
        p.write_bytes(before[p])
    assert refused > 550 and load(made) == good


@pytest.mark.parametrize('newer', [FORMAT + 1, FORMAT + 1000, 2**63])
def test_a_newer_format_is_named(made: Path, newer: int) -> None:
    m = made / 'manifest.json'
    m.write_text(json.dumps(json.loads(m.read_text()) | {'format': newer}))
    with pytest.raises(BadArtefact, match='from a newer version'): load(made)


@pytest.mark.parametrize('name', ['../outside', '/etc/hostname', 'networks/../../outside', 'networks/batch_1.onnx/../../../outside', '..', '.', '', '\x00', 'networks\\..\\..\\outside'])
def test_a_list_that_leads_outside(made: Path, name: str) -> None:
    """The digest over the list is right, as whoever forges it would make it: still only what lies in the folder is looked at."""
    from gekko.forecast.artefact import _digest
    (made.parent / 'outside').write_bytes(b'secret')
    m = json.loads((made / 'manifest.json').read_text())
    m['files'][name] = {'bytes': 6, 'sha256': 'x'}
    m['digest'] = _digest(m['files'])
    (made / 'manifest.json').write_text(json.dumps(m))
    with pytest.raises(BadArtefact, match='files of an artefact'): load(made)


@pytest.mark.parametrize('what', ['manifest.json', 'spec.json', 'networks/batch_1.onnx', 'networks'])
def test_a_link_is_no_file(made: Path, what: str) -> None:
    """To the very same bytes, elsewhere: what is there can change after it was checked."""
    p, aside = made / what, made.parent / 'aside'
    shutil.move(p, aside)
    p.symlink_to(aside, target_is_directory=aside.is_dir())
    with pytest.raises(BadArtefact, match='plain files'): load(made)
    p.unlink()
    p.symlink_to(p.name)                                       # a link to itself
    with pytest.raises(BadArtefact): load(made)


def test_a_pipe_is_not_waited_for(made: Path) -> None:
    (made / 'networks' / 'batch_1.onnx').unlink()
    os.mkfifo(made / 'networks' / 'batch_1.onnx')
    with pytest.raises(BadArtefact, match='plain files'): load(made)


def grown(before: int) -> int: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def deflated(size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr(f'net/{GRAPH}', bytes(1 << 20) * (size >> 20))
    return out.getvalue()


def overlapping(copies: int, size: int) -> bytes:
    """One piece of the archive under many names, so that it unpacks to many times itself without being packed at all."""
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, 'w') as z: z.writestr('net/data/weights/weight_0', bytes(size))
    data = plain.getvalue()
    start = data.index(b'PK\x01\x02')
    entry, end = data[start:data.index(b'PK\x05\x06')], data[data.index(b'PK\x05\x06'):]
    table = b''.join(entry.replace(b'weight_0', f'weight_{i}'.encode()[:8]) for i in range(copies))
    return data[:start] + table + end[:8] + struct.pack('<HHII', copies, copies, len(table), start) + end[20:]


def lying(size: int) -> bytes:
    """The table says one byte, and the packed piece is a great many."""
    data = deflated(size)
    at = data.index(b'PK\x01\x02') + 24
    assert data[at:at + 4] == struct.pack('<I', size)
    return data[:at] + struct.pack('<I', 1) + data[at + 4:]


@pytest.mark.parametrize('bomb', [deflated(1 << 28), overlapping(10, 1 << 24), lying(1 << 28)], ids=['packed', 'one piece under ten names', 'a size that is a lie'])
def test_a_bomb_is_refused_before_it_goes_off(bomb: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for way in (screened, opened):
        with pytest.raises(BadInput): way(bomb)
    assert grown(before) < 100_000 * (1024 if sys.platform == 'darwin' else 1)         # kB, of 262,144 that it would unpack to
    a = save(tmp_path / 'a', SPEC, {'batch_1.pt2': bomb}, BORN)       # bytes are bytes: an artefact is not opened to be kept
    assert network(a.network.path, a.network.inputs, a.network.outputs).digest == a.network.digest


def test_a_text_without_end(made: Path) -> None:
    for p in (made / 'manifest.json', made / 'calibration.json'):
        before = p.read_bytes()
        with p.open('r+b') as f: f.truncate(1 << 40)                   # a terabyte of nothing, that takes no room on the disk
        if p.name == 'manifest.json':
            with pytest.raises(BadArtefact, match='at most 64000000 bytes'): load(made)
        p.write_bytes(before)
    assert load(made)


@pytest.mark.parametrize('deep', ['[' * 200_000 + ']' * 200_000, '{"a":' * 100_000 + '1' + '}' * 100_000, '1' * 5000, '"' + 'a' * 100, '{"format": 1e999}'])
def test_json_that_is_meant_to_break_its_reader(made: Path, deep: str) -> None:
    (made / 'manifest.json').write_text(deep)
    with pytest.raises(BadArtefact): load(made)


def test_what_lies_beside_it_is_never_opened(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that loading reads lies in the folder."""
    seen: list[Path] = []
    real = Path.read_bytes
    def reads(self: Path) -> bytes: seen.append(self); return real(self)
    monkeypatch.setattr(Path, 'read_bytes', reads)
    load(made)
    assert seen and all(made in p.resolve().parents for p in seen)


def kinds() -> dict[str, Any]: return {'onnx': b'\x80\x04K*.', 'archive': stored(a=b'x')}


@pytest.mark.parametrize('kind', list(kinds()))
def test_a_pickle_or_an_archive_is_not_even_kept(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadArtefact, match='a pickle or holds one'): save(tmp_path / 'a', SPEC, {'batch_1.onnx': kinds()[kind]}, BORN)
    assert not (tmp_path / 'a').exists()
