"""JupyterLab's page of notebook jobs, with the queue behind it: its REST API and its page in a real browser, a real worker, and the command line beside them."""
from __future__ import annotations

import json
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from desk_stage import launch, ledger_of, notebook, settings_of, tidy, tree, wait_for
from lab_stage import lab
from playwright.sync_api import expect

from gekko.cli.kernel import install_here
from gekko.cli.schedule import add_here, list_here
from gekko.jobs.front import NOBODY, page_id
from gekko.jobs.queue import Due, Queue, queue_url
from gekko.jobs.schedule import Schedule
from gekko.jobs.when import ByCron, Every
from gekko.ledger.runs import Runs

LONG_S = 240
PATIENT = LONG_S * 1000   # ms: how long the page may take to show something
WAITS = ("go = 'never'\nn = 3", 'from pathlib import Path\nimport time\nprint("begun", n*14)', 'while not Path(go).exists(): time.sleep(0.02)')


@dataclass
class Stage:
    """A Lab server, its folder, a home, and the worker when it has been started."""
    url: str
    folder: Path
    home: Path
    worker: subprocess.Popen[str] | None = None

    @property
    def queue(self) -> Queue: return Queue(queue_url(ledger_of(self.home)))

    def ask(self, path: str, method: str = 'GET', body: Any = None, code: int = 0) -> Any:
        """The API's answer; with a `code`, what an answer of that code says."""
        r = urllib.request.Request(f'{self.url}scheduler/{path}', method=method, data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(r, timeout=LONG_S) as answer: said, got = answer.read(), answer.status
        except urllib.error.HTTPError as e: said, got = e.read(), e.code
        assert got == code or not code and got < 300, (got, said)
        return json.loads(said)['message'] if code >= 400 else json.loads(said) if said else None

    def job(self, name: str, file: str = 'waits.ipynb', mode: str = 'backtest', **params: object) -> str:
        return str(self.ask('jobs', 'POST', {'name': name, 'input_uri': file, 'runtime_environment_name': mode, 'parameters': {k: str(v) for k, v in params.items()}})['job_id'])

    def serve(self) -> None:
        if self.worker is None: self.worker = launch(self.home, 'schedule', 'serve', '--lease', '2', '--slots', '3', '--json')

    def becomes(self, job: str, *states: str) -> Any:
        return wait_for(lambda: next((j for j in [self.ask(f'jobs/{job}')] if j['status'] in states), None), f'{job} is {states}', LONG_S)

    def latest(self, schedule: str) -> Due: return self.queue.jobs(schedule, 1)[0]


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp('lab')
    notebook(folder / 'waits.ipynb', *WAITS)
    notebook(folder / 'bad.ipynb', 'n = 1', 'level = {}["BTC"]')
    with tidy(folder / 'home') as home, tempfile.TemporaryDirectory() as data:
        install_here(str(folder / 'env'))
        with lab(folder, home, JUPYTER_CONFIG_PATH=str(folder / 'env' / 'etc' / 'jupyter'), JUPYTER_DATA_DIR=data) as url:
            s = Stage(url, folder, home)
            try: yield s
            finally:
                if s.worker is not None:
                    s.worker.terminate()
                    s.worker.communicate(timeout=LONG_S)
        assert not list(Path(data).rglob('scheduler.sqlite')), 'no other scheduler has a database'


REFUSED = {
    'int': ('jobs', {'parameters': {'n': 'many'}}), 'unknown parameter': ('jobs', {'parameters': {'m': '1'}}), 'no secret': ('jobs', {'parameters': {'api_key': 'x'}}), 'as the environment': ('jobs', {'parameters': {'mode': 'live'}}),
    'no such notebook': ('jobs', {'input_uri': 'gone.ipynb'}), 'below the folder': ('jobs', {'input_uri': '../waits.ipynb'}), 'backtest paper live': ('jobs', {'runtime_environment_name': 'real'}), 'an option as retries=2': ('jobs', {'tags': ['mine']}),
    'hour': ('job_definitions', {'schedule': '0 25 * * *'}), 'time zone': ('job_definitions', {'schedule': '0 5 * * *', 'timezone': 'Mars/Olympus'}), 'five fields': ('job_definitions', {'schedule': ''}), 'live': ('jobs', {'runtime_environment_name': 'live'})}


def test_what_cannot_be_is_refused_in_words_and_nothing_is_written(stage: Stage) -> None:
    able = stage.ask('config')['supported_features']
    assert able['stop_job'] and able['parameters'] and not able['max_retries'] and [e['name'] for e in stage.ask('runtime_environments')] == ['backtest', 'paper', 'live']
    before = tree(stage.home)
    for words, (where, facts) in REFUSED.items():
        said = stage.ask(where, 'POST', {'name': 'x', 'input_uri': 'waits.ipynb', 'runtime_environment_name': 'backtest', **facts}, code=500)
        assert words in said and 'expected' in said and 'found' in said, (words, said)
    assert tree(stage.home) == before and stage.ask('jobs') == {'jobs': [], 'total_count': 0}


def test_one_queue_behind_the_page_and_the_command_line(stage: Stage) -> None:
    made = stage.ask('job_definitions', 'POST', {'name': 'by hand', 'input_uri': 'waits.ipynb', 'runtime_environment_name': 'paper', 'schedule': '30 9 * * MON-FRI', 'timezone': 'Europe/Zurich', 'parameters': {'n': '5'}, 'tags': ['retries=2']})['job_definition_id']
    add_here(settings_of(stage.home), 'by-command', str(stage.folder / 'waits.ipynb'), Every('4h'), {'n': '7'})
    listed = {r['name']: r for r in list_here(settings_of(stage.home))}
    assert listed['by-hand']['when'] == '30 9 * * MON-FRI (Europe/Zurich)' and listed['by-hand']['mode'] == 'paper' and set(listed) == {'by-hand', 'by-command'}
    s = stage.queue.get('by-hand')
    assert (s.params, s.options.retries, s.notebook) == ({'n': 5}, 2, str(stage.folder / 'waits.ipynb'))
    shown = {d['name']: d for d in stage.ask('job_definitions')['job_definitions']}
    assert (shown['by-command']['schedule'], shown['by-command']['parameters'], shown['by-hand']['tags'][1:], shown['by-hand']['active']) == ('0 */4 * * *', {'n': '7'}, ['retries=2'], True)

    at = f'job_definitions/{made}'
    stage.ask(at, 'PATCH', {'active': False})
    assert stage.queue.get('by-hand').state == 'paused'
    stage.ask(at, 'PATCH', {'active': True, 'schedule': '0 7 * * *', 'timezone': 'Asia/Tokyo', 'input_uri': 'waits.ipynb'})
    changed: Schedule = stage.queue.get('by-hand')
    assert (changed.state, changed.when) == ('active', ByCron('0 7 * * *', 'Asia/Tokyo'))
    assert 'known by' in stage.ask(at, 'PATCH', {'name': 'other'}, code=500) and 'month' in stage.ask(at, 'PATCH', {'schedule': '0 0 1 13 *'}, code=500)
    assert stage.queue.get('by-hand') == changed
    stage.ask(at, 'DELETE')
    assert 'no such schedule' in stage.ask(at, code=500) and [s.name for s in stage.queue.schedules()] == ['by-command']


def test_a_worker_carries_out_what_the_page_asks_for(stage: Stage) -> None:
    go, of = stage.folder / 'first.go', page_id('by-command')
    if 'by-command' not in {x.name for x in stage.queue.schedules()}: add_here(settings_of(stage.home), 'by-command', str(stage.folder / 'waits.ipynb'), Every('4h'), {})
    waits, bad = stage.job('first', go=go), stage.job('bad', 'bad.ipynb')
    own = stage.ask(f'job_definitions/{of}/jobs', 'POST', {})['job_id']
    if stage.worker is None:
        waiting = stage.ask('jobs?status=QUEUED')['jobs']
        assert len(waiting) == 3 and {j['status_message'] for j in waiting} == {NOBODY} and all(NOBODY in e['description'] for e in stage.ask('runtime_environments'))
    stage.serve()
    for j in (waits, own): wait_for(lambda j=j: next((x for x in [stage.ask(f'jobs/{j}')] if x['input_filename'] == 'waits.ipynb · cell 3 of 3'), None), 'the page shows the cell', LONG_S)
    assert stage.ask('jobs/count?status=in_progress')['count'] >= 2 and not any(NOBODY in e['description'] for e in stage.ask('runtime_environments'))
    assert "KeyError: 'BTC'" in stage.becomes(bad, 'FAILED')['status_message']

    # one is stopped: its worker hears of it, and nobody else's job ends
    assert stage.ask(f'jobs/{own}')['job_definition_id'] == of and 'to be over' in stage.ask(f'job_definitions/{of}/jobs', 'POST', {}, code=500)
    stage.ask(f'jobs/{own}', 'PATCH', {'status': 'STOPPED'})
    assert stage.becomes(own, 'STOPPED')['status_message'].startswith('stopped by ')
    assert stage.ask(f'jobs/{waits}')['status'] == 'IN_PROGRESS'
    go.touch()
    done = stage.becomes(waits, 'COMPLETED')
    assert done['start_time'] <= done['end_time'] and not done.get('status_message') and not done['downloaded']

    stage.ask(f'jobs/{waits}/download_files')
    files = {f['file_format']: f['file_path'] for f in stage.ask(f'jobs/{waits}')['job_files']}
    assert set(files) == {'ipynb', 'html', 'input'} and 'begun 42' in (stage.folder / files['ipynb']).read_text() and 'begun 42' in (stage.folder / files['html']).read_text()
    run = Runs(ledger_of(stage.home)).get(stage.latest(done['name']).run_id)
    assert (stage.folder / files['ipynb']).read_bytes() == Path(run.executed).read_bytes() and run.params['n'] == 3

    # what ran is kept as long as what made it
    assert 'deleted with by-command' in stage.ask(f'jobs/{own}', 'DELETE', code=500)
    stage.ask(f'jobs/{bad}', 'DELETE')
    assert bad not in {j['job_id'] for j in stage.ask('jobs')['jobs']}


@pytest.mark.browser
def test_a_job_is_made_watched_and_stopped_on_the_page(stage: Stage, browser: Any) -> None:
    stage.serve()
    (stage.folder / 'open.go').touch()
    opened = stage.job('opened', go=stage.folder / 'open.go')
    page = browser.new_page(viewport={'width': 1500, 'height': 1000})
    page.set_default_timeout(PATIENT)
    complaints = list[str]()
    page.on('pageerror', lambda e: complaints.append(str(e)))
    page.goto(f'{stage.url}lab/workspaces/w-{time.monotonic_ns()}?reset')

    def form(name: str) -> None:
        page.locator('.jp-DirListing-item', has_text='waits.ipynb').click(button='right')
        page.locator('.lm-Menu-itemLabel', has_text='Create').filter(has_text='Job').first.click()
        expect(page.locator('#jp-create-job-environment')).to_have_text('backtest', timeout=PATIENT)
        page.locator('[name=jobName]').fill(name)

    def reload(row: Any, words: str) -> None:
        def seen() -> bool:
            page.get_by_role('button', name='Reload').click()
            page.wait_for_timeout(300)
            return row.count() == 1 and words in row.inner_text()
        wait_for(seen, f'the page to say {words}', LONG_S)

    form('by page')
    page.get_by_title('Add new parameter').click()
    for field, words in (('name', 'n'), ('value', 'many')):
        page.locator(f'[name=parameter-0-{field}]').fill(words)
        page.locator(f'[name=parameter-0-{field}]').blur()
    page.get_by_role('button', name='Create', exact=True).click()
    expect(page.get_by_role('alert').filter(has_text='expected')).to_have_text("parameter n: expected int, found 'many'", timeout=PATIENT)
    page.locator('[name=parameter-0-value]').fill('4')
    page.get_by_role('button', name='Create', exact=True).click()
    row = page.locator('tbody tr', has_text='by-page-')
    reload(row, 'cell 3 of 3')
    (s,) = [x for x in stage.queue.schedules() if x.name.startswith('by-page-')]
    assert (s.mode, s.params, stage.latest(s.name).state) == ('backtest', {'n': 4}, 'running')
    row.get_by_title(f'Stop "{s.name}"').click()
    row.get_by_role('button', name='Stop').last.click()
    reload(row, 'Stopped')
    assert stage.latest(s.name).state == 'killed'

    stage.becomes(opened, 'COMPLETED')
    stage.ask(f'jobs/{opened}/download_files')
    done = page.locator('tbody tr', has_text='opened-')
    reload(done, 'Notebook')
    done.get_by_text('Notebook', exact=True).click()
    expect(page.locator('.jp-NotebookPanel .jp-OutputArea-output').first).to_contain_text('begun 42', timeout=PATIENT)

    form('nightly')
    page.locator('#jp-create-job-environment').click()
    page.get_by_role('option', name='paper').click()
    page.locator('[name=createType][value=JobDefinition]').check()
    page.get_by_role('button', name='Create', exact=True).click()
    row = page.locator('tbody tr', has_text='nightly')
    expect(row).to_contain_text('Monday through Friday', timeout=PATIENT)
    made = stage.queue.get('nightly')
    assert isinstance(made.when, ByCron) and (made.when.cron, made.mode) == ('0 0 * * MON-FRI', 'paper')
    row.get_by_title('Pause "nightly"').click()
    expect(row).to_contain_text('Paused', timeout=PATIENT)
    assert stage.queue.get('nightly').state == 'paused' and complaints == []
    page.close()
