"""The registry under fire: killed at any byte, several processes at once, a disk that is full. What was confirmed is there; what was not never happened."""
from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gekko.domain.errors import Retry
from gekko.domain.time import SimClock, SystemClock, utc
from gekko.forecast.artefact import Artefact, BadArtefact, Lineage, save
from gekko.forecast.chain import BadJournal, Chain
from gekko.forecast.registry import Registry
from gekko.forecast.spec import ModelSpec

NOON = utc('2026-11-22T12:00:00')


def made(folder: Path, seed: int, size: int = 100) -> Artefact:
    return save(folder / f'made{seed}', ModelSpec(type='nhits', input_size=16, horizon=4, seed=seed), {'batch_1.onnx': b'\x08\x0a' + bytes([seed % 256]) * size},
                Lineage('bars@3', 'abc123', (('torch', '2'),), (('mae', 3.0),)), calibration={'level': 0.8})


def forked(work: Callable[[], None]) -> int:
    """Run it in a process of its own; its exit status, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try: work()
        except BaseException: os._exit(9)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    m = Registry(tmp_path / 'models', SimClock(NOON))
    m.add(made(tmp_path, 1), 'eth', by='ada', beats=True)
    m.move('eth', 'paper', 'ada', 'fit')
    return m


def killed_at(byte: int) -> None:
    """From now on the next line is written byte by byte, and the process is killed when so many are out."""
    real, out = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal out
        if out == byte: os.kill(os.getpid(), signal.SIGKILL)
        out += 1
        return real(fd, bytes(data[:1]))
    os.write = write  # type: ignore[assignment]


def test_killed_at_any_byte_of_a_line(models: Registry) -> None:
    path = models.root / 'journal.jsonl'
    before = path.read_bytes()
    shutil.copytree(models.root, whole := models.root.parent / 'whole')
    Registry(whole, SimClock(NOON)).move('eth', 'live', 'bob', 'fit')
    line = (whole / 'journal.jsonl').read_bytes()[len(before):]
    for byte in range(0, len(line), 3):
        def work(byte: int = byte) -> None:
            killed_at(byte)
            models.move('eth', 'live', 'bob', 'fit')
        assert forked(work) == -signal.SIGKILL
        assert path.read_bytes() == before + line[:byte], 'that many bytes were out'
        assert Registry(models.root, SimClock(NOON)).get('eth').stage == 'paper', 'and a reader sees none of them'
        if byte % 30 == 0:
            healed = Registry(models.root, SimClock(NOON)).move('eth', 'live', 'bob', 'fit')
            assert healed.stage == 'live' and path.read_bytes() == before + line
            path.with_name('journal.jsonl.head').unlink()
        path.write_bytes(before)


def test_killed_after_the_line_but_before_the_head(models: Registry) -> None:
    def work() -> None:
        os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, misc]
        models.move('eth', 'live', 'bob', 'fit')
    assert forked(work) == -signal.SIGKILL
    again = Registry(models.root, SimClock(NOON))
    assert again.get('eth').stage == 'live', 'the line was on the disk, so it holds'
    again.note('eth', '2026-11-21', 'ok', {})
    assert len(again.history('eth')) == 4 and again.verify().ok


def test_killed_between_the_copy_and_the_line(models: Registry, tmp_path: Path) -> None:
    two = made(tmp_path, 2)

    def work() -> None:
        killed_at(0)
        models.add(two, 'eth', by='ada', beats=True)
    assert forked(work) == -signal.SIGKILL
    v = models.verify()
    assert v.ok and v.entries == 1 and 'nobody refers to it' in v.odd[0], 'an orphan, harmless and said'
    assert models.add(two, 'eth', by='ada', beats=True).ref == 'eth#2' and not models.verify().odd


def test_killed_while_copying(models: Registry, tmp_path: Path) -> None:
    two = made(tmp_path, 2)

    def work() -> None:
        shutil.copytree(two.path, next_draft := models.root / 'artefacts' / '.draft-killed')
        (next_draft / 'spec.json').unlink()
        os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, misc]
        models.add(two, 'eth', by='ada', beats=True)
    assert forked(work) == -signal.SIGKILL
    v = models.verify()
    assert v.ok and v.entries == 1 and len(v.odd) == 2 and all('never finished' in t for t in v.odd)
    assert models.add(two, 'eth', by='ada', beats=True).ref == 'eth#2' and models.open('eth#2').digest == two.digest


WORKER = """
import sys
from pathlib import Path
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import load
from gekko.forecast.registry import Registry
root, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
models = Registry(root / 'models', SystemClock())
print('ready', flush=True)
sys.stdin.readline()
for i in range(first, last):
    ref = models.add(load(root / f'made{i}'), 'eth', by=f'job{first}', beats=True).ref
    models.move(ref, 'paper', f'job{first}', 'fit')
    models.move(ref, 'live', f'job{first}', 'fit')
    print(ref, flush=True)
"""


def workers(root: Path, ranges: list[tuple[int, int]]) -> list[subprocess.Popen[str]]:
    started = [subprocess.Popen([sys.executable, '-c', WORKER, str(root), str(a), str(b)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for a, b in ranges]
    for p in started:
        assert p.stdout is not None and p.stdout.readline() == 'ready\n'
    for p in started:
        assert p.stdin is not None
        p.stdin.write('go\n')
        p.stdin.flush()
    return started


def test_processes_that_add_and_move_at_once(tmp_path: Path) -> None:
    for i in range(20, 60): made(tmp_path, i)
    said = [p.communicate(timeout=60)[0].split() for p in workers(tmp_path, [(20, 40), (40, 60)])]
    models = Registry(tmp_path / 'models', SystemClock())
    assert sorted(said[0] + said[1], key=lambda r: int(r[4:])) == [f'eth#{i}' for i in range(1, 41)], 'every version once'
    assert [e.version for e in models.entries()] == list(range(1, 41)) and len(models.entries(stage='live')) == 1 and len(models.entries(stage='retired')) == 39
    assert models.verify().ok and models.verify().lines == 120
    by = [e.by for e in models.entries()]
    assert len(set(by)) == 2 and any(a != b for a, b in zip(by, by[1:])), 'they did take turns'


def test_killed_at_any_moment_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    for i in range(20, 80): made(tmp_path, i)
    first = 20
    for k in range(4):
        (p,) = workers(tmp_path, [(first, 80)])
        assert p.stdout is not None
        said = [p.stdout.readline().strip() for _ in range(3)]
        time.sleep(0.003 * k)
        p.kill()
        said += p.communicate()[0].split()
        models = Registry(tmp_path / 'models', SystemClock())
        assert models.verify().ok, models.verify()
        held = {e.ref: e for e in models.entries()}
        assert all(held[r].stage in ('live', 'retired') for r in said)
        assert sum(e.stage == 'live' for e in held.values()) == 1
        first += len(said)      # the one it died in the middle of is added again by the next


def test_readers_without_a_lock_see_whole_lines_only(tmp_path: Path) -> None:
    for i in range(20, 40): made(tmp_path, i)
    (p,) = workers(tmp_path, [(20, 40)])
    models, seen = Registry(tmp_path / 'models', SystemClock()), [0]
    while p.poll() is None:
        found = Registry(models.root, SystemClock()).entries()
        assert sum(e.stage == 'live' for e in found) <= 1 and [e.version for e in found] == list(range(1, len(found) + 1))
        seen.append(len(found))
    p.communicate()
    assert seen == sorted(seen) and len(set(seen)) > 3 and len(models.entries()) == 20


def test_a_stopped_writer_is_not_waited_for_without_end(models: Registry) -> None:
    path = models.root / 'journal.jsonl'
    journal = Chain(path, SimClock(NOON), wait_s=0.05)
    with path.open('rb+') as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Retry, match='held by another process'): journal.append(lambda lines: {'what': 'x'})
        assert models.get('eth').stage == 'paper', 'reading needs no lock'
        waiting = threading.Thread(target=models.move, args=('eth', 'live', 'bob', 'fit'))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
    waiting.join(5)
    assert models.get('eth').stage == 'live', 'and went on when it was let go'


def limited(bytes_: int, work: Callable[[], None]) -> int:
    """As on a full disk: no file of this process grows beyond so many bytes. The kernel writes what still fits."""
    def inside() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
        work()
    return forked(inside)


@pytest.mark.parametrize('room', [0, 1, 50, 200])
def test_a_full_disk_leaves_the_journal_as_it_was(models: Registry, room: int) -> None:
    path = models.root / 'journal.jsonl'
    before = path.read_bytes()

    def work() -> None:
        with pytest.raises(Retry, match='could not be written, and is as it was: expected a disk with room, found File too large'): models.move('eth', 'live', 'bob', 'fit')
        assert models.get('eth').stage == 'paper'
    assert limited(len(before) + room, work) == 0
    assert path.read_bytes() == before
    assert models.move('eth', 'live', 'bob', 'fit').stage == 'live', 'with room again, it goes'


def test_a_full_disk_leaves_no_half_artefact(models: Registry, tmp_path: Path) -> None:
    large = made(tmp_path, 3, size=200_000)
    before = (models.root / 'journal.jsonl').read_bytes()

    def work() -> None:
        with pytest.raises(Retry, match='could not be copied into the registry; nothing was changed'): models.add(large, 'eth', by='ada', beats=True)
    assert limited(100_000, work) == 0
    assert (models.root / 'journal.jsonl').read_bytes() == before and models.verify().odd == () and not (models.root / 'artefacts' / large.digest).exists()
    assert models.add(large, 'eth', by='ada', beats=True).version == 2


def test_a_folder_that_may_not_be_written(models: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & os.O_RDWR: raise PermissionError(13, 'Permission denied')
        return opened(path, flags, *rest, **more)  # type: ignore[arg-type, call-overload, no-any-return]
    opened = os.open
    monkeypatch.setattr(os, 'open', refuse)
    with pytest.raises(Retry, match='could not be opened for writing: expected journal.jsonl, on a disk that takes it, found Permission denied'): models.move('eth', 'live', 'bob', 'fit')
    assert models.get('eth').stage == 'paper'


def test_an_artefact_altered_after_it_was_added(models: Registry) -> None:
    folder = models.open('eth').path
    for name, spoil in (('networks/batch_1.onnx', b'\x08\x0a' + bytes(100)), ('spec.json', b'{}'), ('manifest.json', b'{}')):
        kept = (folder / name).read_bytes()
        (folder / name).chmod(0o644)
        (folder / name).write_bytes(spoil)
        with pytest.raises(BadArtefact): models.open('eth')
        with pytest.raises(BadArtefact): models.move('eth', 'live', 'ada', 'fit')
        assert models.get('eth').stage == 'paper' and not models.verify().ok
        (folder / name).write_bytes(kept)
    other = made(models.root.parent, 5)
    shutil.rmtree(folder)
    shutil.copytree(other.path, folder)
    with pytest.raises(BadArtefact, match='another artefact'): models.open('eth')


def test_an_artefact_altered_while_it_is_added(models: Registry, tmp_path: Path) -> None:
    two = made(tmp_path, 2)
    (two.path / 'networks' / 'batch_1.onnx').write_bytes(b'\x08\x0a' + bytes(100))
    with pytest.raises(BadArtefact, match='is not the file that was written'): models.add(two, 'eth', by='ada', beats=True)
    assert models.verify().ok and models.verify().odd == () and len(models.entries()) == 1


@pytest.mark.parametrize('what', ['link', 'pipe', 'folder'])
def test_a_journal_that_is_no_plain_file(tmp_path: Path, what: str) -> None:
    root = tmp_path / 'models'
    root.mkdir()
    path = root / 'journal.jsonl'
    if what == 'link': path.symlink_to(tmp_path / 'elsewhere')
    elif what == 'pipe': os.mkfifo(path)
    else: path.mkdir()
    models = Registry(root, SimClock(NOON))
    with pytest.raises((BadJournal, Retry)): models.add(made(tmp_path, 2), 'eth', by='ada', beats=True)
    with pytest.raises((BadJournal, Retry)): models.entries()
    assert not models.verify().ok


def test_a_lost_line_end_costs_no_line(models: Registry) -> None:
    path = models.root / 'journal.jsonl'
    path.write_bytes(eaten := path.read_bytes()[:-1])
    with pytest.raises(BadJournal, match='line 2 of the journal is gone'): models.move('eth', 'live', 'bob', 'fit')
    assert path.read_bytes() == eaten, 'it is whole but for its end: a person puts that back'
