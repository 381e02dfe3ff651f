"""The record of forecasts: exact, never in the way of a forecast, and honest about what it lost."""
import logging
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import HOUR, SimClock, SystemClock, utc
from gekko.forecast.record import Recorder, Row, decoded, encoded, forget, rows

NOON = utc('2026-11-22T12:00:00')
ROW = Row(NOON, 'ab' * 32, 'eth', 'ETH/BTC', HOUR, (0.0311, 0.0312), (0.0308, 0.0307), (0.0314, 0.0317), 0.8, 0.62, 'onnx-cpu', 840.5, 'fresh', 0.031, {'volume': 12.5}, 0.0002)
NONE = replace(ROW, mean=(), low=(), high=(), source='none', provider='', why='no provider answered within 50 ms')
number = st.floats(allow_nan=False, allow_infinity=False)


def recorder(path: Path, **how: Any) -> Recorder: return Recorder(path, SimClock(NOON), **{'every_s': 0.01, 'grace_s': 0.2} | how)


def until(true: Callable[[], object]) -> None:
    for _ in range(500):
        if true(): return
        time.sleep(0.01)
    raise AssertionError('it never came true')


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 5), data=st.data(), word=st.text(st.characters(exclude_categories=['Cs']), max_size=20), inputs=st.dictionaries(st.text(max_size=8), number, max_size=4))
def test_a_row_comes_back_to_the_last_bit(n: int, data: st.DataObject, word: str, inputs: dict[str, float]) -> None:
    path = [tuple(data.draw(st.lists(number, min_size=n, max_size=n))) for _ in range(3)]
    row = replace(ROW, mean=path[0], low=path[1], high=path[2], symbol=word, why=word, inputs=inputs, last=data.draw(number), scale=data.draw(number), ts=data.draw(st.integers(0, 2**62)))
    assert decoded(encoded(row)) == row


@pytest.mark.parametrize('wrong', [{'mean': (1.0, float('nan'))}, {'high': (1.0,)}, {'source': 'guess'}, {'source': 'none'}, {'mean': (), 'low': (), 'high': ()}, {'step': 0}, {'last': float('inf')}, {'inputs': {'x': float('nan')}},
                                   {'inputs': {'x': None}}, {'ts': 2**63}, {'ts': 1.5}, {'name': '\ud800'}, {'name': None}, {'confidence': 'much'}])
def test_what_is_no_forecast_is_counted_and_costs_the_others_nothing(tmp_path: Path, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with recorder(tmp_path / 'r.db') as r:
        assert r.append(replace(ROW, **wrong)) and r.append(ROW)
    assert (r.refused, r.written, r.dropped, r.trouble) == (1, 1, 0, '')
    assert 'a forecast that is none was not recorded' in caplog.text
    assert list(rows(tmp_path / 'r.db')) == [ROW]


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    import numpy as np
    with recorder(tmp_path / 'r.db') as r: r.append(replace(ROW, ts=np.int64(NOON), mean=tuple(np.array(ROW.mean)), last=np.float64(0.031), took_us=np.float32(840.5), inputs={'volume': np.float64(12.5)}))  # type: ignore[arg-type]
    assert list(rows(tmp_path / 'r.db')) == [ROW] and r.refused == 0


def test_all_of_many_threads_is_there(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db', room=100_000) as r:
        def say(k: int) -> None:
            for i in range(2000): r.append(replace(ROW, ts=NOON + i, symbol=f'S{k}'))
        threads = [threading.Thread(target=say, args=(k,)) for k in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
    assert (r.written, r.dropped) == (8000, 0)
    for k in range(4): assert [x.ts for x in rows(tmp_path / 'r.db', symbol=f'S{k}')] == [NOON + i for i in range(2000)]


def test_two_recorders_share_a_record(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db') as a, recorder(tmp_path / 'r.db') as b:
        for i in range(500): (a if i % 2 else b).append(replace(ROW, ts=NOON + i))
    assert a.written + b.written == 500 and [x.ts for x in rows(tmp_path / 'r.db')] == [NOON + i for i in range(500)]


def test_questions(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db') as r:
        for i in range(6): r.append(replace(ROW, ts=NOON + (5 - i), digest='ab' * 32 if i % 2 else 'cd' * 32, name='eth' if i < 3 else 'btc'))
        r.append(NONE)
    def ts(**asked: Any) -> list[int]: return [x.ts - NOON for x in rows(tmp_path / 'r.db', **asked)]
    assert ts() == [0, 0, 1, 2, 3, 4, 5] and ts(digest='cd' * 32) == [1, 3, 5] and ts(name='btc') == [0, 1, 2] and ts(start=NOON + 2, end=NOON + 4) == [2, 3]
    assert list(rows(tmp_path / 'r.db', end=NOON + 1))[1] == NONE


def test_read_while_it_is_written(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db') as r:
        r.append(ROW)
        until(lambda: r.written)
        assert list(rows(tmp_path / 'r.db')) == [ROW]
        reading = rows(tmp_path / 'r.db')
        next(reading)
        r.append(ROW)
        until(lambda: r.written == 2)
        assert len(list(reading)) == 0, 'what was asked for is what was there then'
    assert r.failures == 0


@pytest.fixture
def bad_disk(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder.db').mkdir()
    (tmp_path / 'text.db').write_text('no database at all, but long enough to be taken for a header' * 50)
    with sqlite3.connect(tmp_path / 'newer.db') as c: c.execute('pragma user_version = 9')
    c.close()
    with sqlite3.connect(tmp_path / 'other.db') as c: c.execute('create table forecasts (x)')
    c.close()
    return {'no folder': tmp_path / 'file' / 'r.db', 'a folder': tmp_path / 'folder.db', 'no database': tmp_path / 'text.db', 'newer': tmp_path / 'newer.db', 'another table': tmp_path / 'other.db'}


@pytest.mark.parametrize('which', ['no folder', 'a folder', 'no database', 'newer', 'another table'])
def test_a_record_that_cannot_be_written_never_reaches_the_forecast(bad_disk: dict[str, Path], which: str, caplog: pytest.LogCaptureFixture) -> None:
    r = recorder(bad_disk[which], room=10)
    assert [r.append(ROW) for _ in range(5)] == [True] * 5
    until(lambda: r.failures >= 3)
    for _ in range(20): r.append(ROW)
    r.close()
    assert r.written == 0 and r.dropped == 25 and r.failures > 0 and r.trouble
    said = [x for x in caplog.records if 'not being recorded' in x.message]
    assert len(said) == 1 and said[0].levelno == logging.ERROR, 'said once, not at every try'
    assert '25' in str(r) and 'could not be recorded' in caplog.text


def test_a_locked_record_is_waited_for_by_the_thread_alone(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db', grace_s=20) as r:
        r.append(ROW)
        until(lambda: r.written)      # it has its connection
        holder = sqlite3.connect(tmp_path / 'r.db', isolation_level=None)
        holder.execute('begin immediate')
        began = time.monotonic()
        for _ in range(1000): r.append(ROW)
        assert time.monotonic() - began < 1, 'the lock is held for longer than this'
        until(lambda: r.failures)
        assert 'locked' in r.trouble and r.written == 1
        holder.execute('rollback')
    holder.close()
    assert (r.written, r.dropped, r.trouble) == (1001, 0, '') and len(list(rows(tmp_path / 'r.db'))) == 1001


def test_a_read_only_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder(tmp_path / 'r.db') as r: r.append(ROW)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, 'connect', lambda path, **how: real(f'{Path(path).as_uri()}?mode=ro', uri=True, **how))
    with recorder(tmp_path / 'r.db') as r: r.append(ROW)
    assert r.written == 0 and r.dropped == 1 and 'readonly' in r.trouble


FULL = """
import resource, signal, sys, time
from pathlib import Path
from gekko.domain.time import SystemClock
from gekko.forecast.record import Recorder
sys.path.insert(0, sys.argv[2])
from test_record import ROW
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
r = Recorder(Path(sys.argv[1]), SystemClock(), every_s=0.01, grace_s=0.2)
r.append(ROW)
while not r.written: time.sleep(0.01)      # a busy machine may take all the others as one group, which then fits or doesn't
for _ in range(50):
    for _ in range(50): r.append(ROW)
    time.sleep(0.002)
r.close()
assert r.written + r.dropped == 2501 and r.written and r.dropped and r.failures and r.trouble, str(r)
print(r.written)
"""


def test_a_full_disk_keeps_what_was_written_and_counts_the_rest(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, '-c', FULL, str(tmp_path / 'r.db'), str(Path(__file__).parent)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list(rows(tmp_path / 'r.db'))) == int(done.stdout)
    with recorder(tmp_path / 'r.db') as r: r.append(ROW)
    assert r.written == 1, 'with room again it goes on'


def test_killed_while_it_writes_the_record_is_whole(tmp_path: Path) -> None:
    """Rows are in it in their order and without a gap, whatever the moment."""
    code = FULL.split('signal.signal')[0] + "from dataclasses import replace\nr = Recorder(Path(sys.argv[1]), SystemClock(), room=10**6, every_s=0.001)\nprint('on', flush=True)\ni = 0\nwhile True:\n    r.append(replace(ROW, ts=i)); i += 1\n    if not i % 100: time.sleep(0.001)\n"
    for k in range(3):
        path = tmp_path / f'{k}.db'
        p = subprocess.Popen([sys.executable, '-c', code, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True)
        assert p.stdout is not None and p.stdout.readline() == 'on\n'
        time.sleep(0.2 + 0.05 * k)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        found = [r.ts for r in rows(path)]
        assert found == list(range(len(found))) and found
        with recorder(path) as r: r.append(ROW)
        assert r.written == 1


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    r = recorder(tmp_path / 'r.db', room=3, every_s=30, grace_s=30)
    assert [r.append(ROW) for _ in range(5)] == [True, True, True, False, False]
    assert str(r) == '0 written, 3 waiting, 2 dropped'
    r.close()
    assert (r.written, r.dropped, r.append(ROW), r.dropped) == (3, 2, False, 3)


def test_close_writes_what_waits(tmp_path: Path) -> None:
    r = Recorder(tmp_path / 'deep' / 'er' / 'r.db', SystemClock(), every_s=60)
    for _ in range(2500): r.append(ROW)
    began = time.monotonic()
    r.close()
    assert time.monotonic() - began < 5 and r.written == 2500 and not [t for t in threading.enumerate() if t.name == 'gekko-forecasts']
    r.close()


@pytest.mark.parametrize('how', [{'room': 0}, {'every_s': 0}, {'grace_s': -1}])
def test_a_recorder_that_could_not_work_is_refused(tmp_path: Path, how: dict[str, float]) -> None:
    with pytest.raises(BadInput): recorder(tmp_path / 'r.db', **how)


def test_what_is_no_record_is_said(bad_disk: dict[str, Path], tmp_path: Path) -> None:
    for path, said in ((tmp_path / 'none.db', 'no none.db'), (bad_disk['newer'], 'newer version'), (bad_disk['no database'], 'not a database'), (bad_disk['a folder'], 'no folder.db'), (bad_disk['another table'], 'no such column')):
        with pytest.raises(BadInput, match=said): list(rows(path))
        if said != 'no such column':
            with pytest.raises(BadInput, match=said): forget(path, NOON)


def test_old_rows_may_go(tmp_path: Path) -> None:
    with recorder(tmp_path / 'r.db') as r:
        for i in range(10): r.append(replace(ROW, ts=NOON + i))
    assert forget(tmp_path / 'r.db', NOON + 4) == 4 and [x.ts for x in rows(tmp_path / 'r.db')] == [NOON + i for i in range(4, 10)]
