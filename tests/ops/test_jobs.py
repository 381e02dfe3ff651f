"""What the jobs' page reads: every run once, whatever its name and however late it came; and whatever a notebook or a message holds, it harms no page."""
from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from desk_stage import settings_of
from hypothesis import given
from hypothesis import strategies as st

from gekko.desk.config import Settings
from gekko.desk.progress import hold
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, MINUTE, SECOND, SimClock, utc
from gekko.jobs.queue import queue_url
from gekko.jobs.when import Every, as_words
from gekko.ledger.database import jobs, schedules, workers, writing
from gekko.ledger.database import runs as table
from gekko.ledger.runs import RunRecord, Runs
from gekko.ops.jobboard import JobBoard, failures_html
from gekko.ops.jobs import Book, Close, Fault, Line, Remembered, Sweep, at_in, fault_in, habits, stamp, together
from gekko.ops.jobwatch import JobEye, JobLook, read_queue, verdict

NOW = utc('2026-03-02T12:00:00')
HOSTILE = '<img src=x onerror=alert(1)>'


def record(n: int, state: str = 'done', ago: int = 60, job: str = 'trend', sweep: str = '', took: int = 10, mode: str = 'backtest', **more: str) -> RunRecord:
    began = NOW - ago * MINUTE
    return RunRecord(f'{stamp(began)}-{job}-{n:04x}', '', f'/quant/{job}.ipynb', mode, 'a', state, created=began, started=began, ended=0 if state == 'running' else began + took * SECOND, spec={'run': {'sweep': sweep, 'task': n}} if sweep else {}, **more)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / 'home').mkdir()
    return tmp_path / 'home'


@pytest.fixture
def settings(home: Path) -> Settings: return settings_of(home)


def put(settings: Settings, *records: RunRecord) -> None:
    with writing(settings.ledger, 'runs') as c: c.execute(table.insert(), [asdict(r) for r in records])


def test_every_run_is_read_once_and_what_changes_is_read_again(settings: Settings) -> None:
    book = Book(settings.ledger)
    put(settings, *(record(n, ago=n, sweep=f's{n % 3}' if n % 2 else '') for n in range(300)), record(900, 'running', ago=500))
    assert book.refresh(NOW) and not book.refresh(NOW) and len(book.lines) == book.total == 301
    assert [r.run for r in book.lines] == [r.run_id for r in Runs(settings.ledger).list(limit=1000)]
    assert sum(bool(r.sweep) for r in book.lines) == 150
    put(settings, replace(record(903, ago=1), spec={'run': {'schedule': 'nightly', 'due': NOW, 'attempt': 1}}))
    assert book.refresh(NOW) and [h.name for h in habits(book.lines) if h.last.schedule] == ['nightly']
    put(settings, record(901, ago=0), record(902, ago=400))                 # one that is new, and one from a clock that is behind
    assert book.refresh(NOW) and {r.run for r in book.lines} == {r.run_id for r in Runs(settings.ledger).list(limit=1000)}
    Runs(settings.ledger).update(record(900, 'running', ago=500).run_id, state='failed', exit_reason='late', ended=NOW)
    assert book.refresh(NOW + MINUTE) and next(r for r in book.lines if r.run.endswith('0384')).reason == 'late'
    Runs(settings.ledger).update(record(900, 'running', ago=500).run_id, exit_reason='late; and its desk says why')
    assert book.refresh(NOW + 2 * MINUTE) and next(r for r in book.lines if r.run.endswith('0384')).reason.endswith('why'), 'a last word after the end'


def test_no_more_than_the_newest_are_kept(settings: Settings) -> None:
    put(settings, *(record(n, ago=n) for n in range(200)))
    book = Book(settings.ledger, most=50)
    book.refresh(NOW)
    assert [r.run for r in book.lines] == [record(n, ago=n).run_id for n in range(50)] and book.total == 200
    put(settings, record(500, ago=0))
    book.refresh(NOW)
    assert book.lines[0].run == record(500, ago=0).run_id


lines = st.lists(st.builds(lambda n, state, took, sweep: Line(f'r{n:03d}', f'/q/{n % 3}.ipynb', 'paper', state, '', '', n * MINUTE, n * MINUTE, 0 if state == 'running' else n * MINUTE + took * SECOND, '', sweep),
                           st.integers(1, 200), st.sampled_from(['done', 'failed', 'killed', 'running']), st.integers(1, 50), st.sampled_from(['', '', 'a', 'b'])), unique_by=lambda r: r.run, max_size=40)


@given(lines)
def test_grouping_loses_no_run_and_counts_none_twice(found: list[Line]) -> None:
    found = sorted(found, key=lambda r: r.run, reverse=True)
    groups = together(found)
    assert sum(g.count if isinstance(g, Sweep) else 1 for g in groups) == len(found)
    assert [g.run for g in groups if isinstance(g, Line)] == [r.run for r in found if not r.sweep]
    assert sum(len(h.lines) for h in habits(found)) == sum(not r.sweep for r in found)


@given(lines)
def test_three_times_the_median_is_too_long(found: list[Line]) -> None:
    for h in habits(sorted(found, key=lambda r: r.run, reverse=True)):
        for r in h.lines:
            before = sorted(x.took or 0 for x in h.lines if x.state == 'done' and x.ended <= r.began)
            if r.took is None: continue
            n = len(before)
            middle = (before[n // 2] + before[(n - 1) // 2]) / 2 if n else 0
            assert h.slow(r, NOW) == (n >= 3 and r.took > 3 * middle)


@pytest.mark.parametrize('text', ['', '{}', '[]', '{"cells": 3}', '{"cells": [3]}', '{"cells": [{"cell_type": "code"}]}', '{"cells": [{"cell_type": "code", "source": 1, "outputs": [{"output_type": "error"}], "metadata": {"papermill": {"status": "running", "start_time": "soon"}}}]}', '\0' * 50, '{"cells": ['])
def test_a_notebook_that_is_none_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / 'x.ipynb').write_text(text)
    remembered = Remembered()
    for read in (fault_in, at_in): assert remembered(tmp_path / 'x.ipynb', read) is None


def test_a_notebook_is_read_again_when_it_changed_and_not_otherwise(tmp_path: Path) -> None:
    def cells(n: int) -> str: return json.dumps({'cells': [{'cell_type': 'code', 'source': 'x', 'metadata': {'papermill': {'status': 'completed' if k < n else 'running'}}} for k in range(4)]})
    path, remembered, count = tmp_path / 'x.ipynb', Remembered(), [0]
    def counted(p: Path) -> object:
        count[0] += 1
        return at_in(p)
    path.write_text(cells(1))
    first = [remembered(path, counted) for _ in range(3)][0]
    path.write_text(cells(2) + ' ')
    assert first is not None and count == [1] and remembered(path, counted) != first and count == [2]


def test_what_a_notebook_holds_harms_no_page(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace('/', '')
    folder.mkdir()
    executed = folder / 'executed.ipynb'
    executed.write_text(json.dumps({'cells': [{'cell_type': 'code', 'source': f'{HOSTILE}\n' * 500, 'execution_count': 1, 'metadata': {}, 'outputs': [{'output_type': 'error', 'ename': 'E', 'evalue': HOSTILE * 1000, 'traceback': ['Cell In[1], line 250']}]}]}))
    put(settings, record(1, 'failed', job=HOSTILE.replace('/', ''), exit_reason=HOSTILE, executed=str(executed)), record(2, 'done', job='b', sweep=HOSTILE, exit_reason=HOSTILE))
    board = JobBoard(settings, HOSTILE, SimClock(NOW))
    board.refresh()
    html = board.head.value + ''.join(p.value for p in board.parts.values())
    assert '<img' not in html and '&lt;img' in html and len(html) < 40_000
    assert '<mark><i>250</i>' in html
    assert '<img' not in failures_html(JobLook(NOW, asked=Close(Line(HOSTILE, HOSTILE, HOSTILE, HOSTILE, reason=HOSTILE), fault=Fault(1, 1, HOSTILE, 1, HOSTILE))))


def test_a_run_whose_runner_is_gone_is_shown_as_gone_and_not_marked(settings: Settings, tmp_path: Path) -> None:
    put(settings, record(1, 'running', ago=5, mode='paper', executed=str(tmp_path / 'executed.ipynb')))
    with hold(tmp_path): assert len(JobEye(settings, clock=SimClock(NOW)).look().now) == 1
    look = JobEye(settings, clock=SimClock(NOW)).look()
    assert not look.now and look.failures[0].line.state == 'gone' and verdict(look)[0] == 'over'
    assert Runs(settings.ledger).get(record(1, ago=5).run_id).state == 'running'


def test_a_hang_is_seen_while_it_hangs(settings: Settings) -> None:
    put(settings, *(record(n, ago=60 + n) for n in range(5)), record(9, 'running', ago=1))
    look = JobEye(settings, clock=SimClock(NOW)).look()
    assert look.now[0].slow and '6.0 times as long as usual' in verdict(look)[1]
    assert not JobEye(settings, clock=SimClock(NOW - 35 * SECOND)).look().now[0].slow


def planned(settings: Settings, beat: int, **job: object) -> None:
    with writing(queue_url(settings.ledger), 'the queue') as c:
        c.execute(schedules.insert().values(name='nightly', notebook='/q/n.ipynb', command='', params={}, mode='live', venue='coinbase', timing=as_words(Every('1h')), options={}, state='active', next_due=NOW + MINUTE, last_due=0, by='a', changed=0))
        c.execute(workers.insert().values(name='w', host='h', pid=1, slots=1, started=0, beat=beat))
        every = dict(schedule='nightly', ready_at=0, priority=0, account='', attempt=1, failures=0, worker='w', host='h', lease_until=0, run_id='', progress='', reason='', stop_asked=0, made=0)
        c.execute(jobs.insert(), [every | {'due': NOW - k * MINUTE, 'state': 'done', 'ended': NOW} for k in range(3, 40)] + [every | {'due': NOW - 2 * MINUTE, 'state': 'skipped', 'ended': NOW}, every | {'due': NOW - MINUTE, 'state': 'running', 'ended': 0} | job])


def test_the_queue_as_it_stands(settings: Settings) -> None:
    assert read_queue(settings.ledger).dues == ()
    planned(settings, NOW, run_id='r7', progress='cell 2 of 9')
    queue = read_queue(settings.ledger)
    d = queue.dues[0]
    assert (d.last, d.last_due, d.job, d.run, d.progress, d.waiting) == ('done', NOW - 3 * MINUTE, 'running', 'r7', 'cell 2 of 9', 0)
    assert queue.alive(NOW) == 1 and not d.overdue(NOW + MINUTE) and d.overdue(NOW + 3 * MINUTE)
    assert verdict(JobLook(NOW, queue=queue)) == ('within', 'All fine. Nothing runs at the moment; nightly is due at 2026-03-02 12:01:00 UTC.')
    assert 'no worker is alive' in verdict(JobLook(NOW + DAY, queue=queue))[1]


def test_a_ledger_that_cannot_be_read_is_said(settings: Settings, home: Path) -> None:
    board = JobBoard(settings, clock=SimClock(NOW))
    put(settings, record(1))
    board.refresh()
    good = board.parts['runs'].value
    (home / 'bad.ledger').write_bytes(b'no ledger' * 999)
    board.eye.book.url = f'sqlite:///{home}/bad.ledger'
    board.refresh()
    assert 'cannot be read' in board.head.value and 'as of' in board.head.value and board.parts['runs'].value == good
    with pytest.raises(BadInput): Book(f'sqlite:///{home}/bad.ledger').refresh(NOW)
