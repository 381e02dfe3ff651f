"""The jobs' page in a real browser, while one job waits in a cell and another fails in one: what it says is what the records, the notebooks and the journals say, and it writes nothing."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from desk_stage import ended, launch, notebook, one_line, settings_of, tree
from playwright.sync_api import expect
from test_dashboard import LOUD, Tab, dashboard

from gekko.desk.promotions import promote
from gekko.domain.time import DAY, HOUR, SECOND, SystemClock, iso
from gekko.jobs.when import Every, as_words
from gekko.ledger.database import file_of, jobs, schedules, workers, writing
from gekko.ledger.promotions import Promoted
from gekko.ledger.runs import RunRecord, Runs
from gekko.ops.jobs import stamp
from gekko.jobs.queue import queue_url

WAITS = ("gate = ''", 'import time\nfrom pathlib import Path', "while not Path(gate).exists(): time.sleep(0.02)   # <long> fit", 'done = True')
FAILS = ("name = 'BTC'", "book = {'ETH': 2}\nassert book\nlevel = book[name]  # <here>\nprint(level)", 'level * 2')


def lived(ledger: str, job: str, seconds: float, ago_s: int, state: str = 'done', sweep: str = '') -> str:
    """A run that was: its record, as the runner leaves it."""
    began = SystemClock().now() - ago_s * SECOND
    run = f'{stamp(began)}-{job}-{ago_s:04x}'
    Runs(ledger).put(RunRecord(run, '', f'/quant/{job}.ipynb', 'backtest', 'backtest', state, created=began, started=began, ended=began + int(seconds * SECOND), executed=f'/nowhere/{run}/executed.ipynb', exit_reason='finished',
                               spec={'run': {'sweep': sweep, 'task': ago_s}} if sweep else {}))
    return run


def scheduled(ledger: str, now: int) -> None:
    """A schedule that is due in an hour and whose last job failed before its run began, and a worker that is alive."""
    with writing(queue_url(ledger), 'the queue') as c:
        c.execute(schedules.insert().values(name='nightly', notebook='/quant/gone.ipynb', command='', params={}, mode='backtest', venue='', timing=as_words(Every('1h')), options={}, state='active', next_due=now + HOUR, last_due=now - HOUR, by='ada', changed=now))
        c.execute(jobs.insert().values(schedule='nightly', due=now - HOUR, ready_at=now, priority=0, account='', state='failed', attempt=1, failures=1, worker='w1', host='h', lease_until=0, run_id='', progress='', reason='gone.ipynb: no such notebook', stop_asked=0, made=now, ended=now))
        c.execute(workers.insert().values(name='w1', host='h', pid=1, slots=2, started=now, beat=now + DAY))


@pytest.mark.browser
def test_the_jobs_page_shows_the_cell_that_runs_and_the_one_that_failed(home: Path, tmp_path: Path, browser: Any) -> None:
    with dashboard(home) as (url, _):
        page = browser.new_page(viewport={'width': 1400, 'height': 2200})
        tab = Tab(page, url)
        page.get_by_role('link', name='Jobs').click()                       # the desk's page leads here
        expect(page.locator('.gk-jobpage .gk-pulse')).to_contain_text('live', timeout=LOUD)
        expect(page.locator('.gk-verdict')).to_have_text('Nothing has run yet.', timeout=LOUD)
        shown = page.locator('.gk-jobpage').inner_text()
        for words in ('Nothing runs now.', 'gekko schedule add', 'gekko promote NOTEBOOK --explain', 'gekko run strategies/'): assert words in shown, words

        gate = tmp_path / 'gate'
        waits = launch(home, 'run', notebook(tmp_path / 'waits.ipynb', *WAITS), '-p', 'gate', gate, '--json')
        running = page.locator('.gk-now tbody tr', has_text='waits')
        expect(running).to_contain_text('while not Path(gate).exists()', timeout=2 * LOUD)
        expect(running).to_contain_text('4 of 5')                            # with the cell of its parameters
        expect(page.locator('.gk-equity')).to_have_text('1')

        broke = one_line(ended(launch(home, 'run', notebook(tmp_path / 'hedge.ipynb', *FAILS), '--json')), code=1)
        expect(page.locator('.gk-verdict')).to_contain_text("Look at hedge: its last run failed in cell 2 of 3: KeyError: 'BTC'", timeout=LOUD)
        fault = page.locator('.gk-fault', has_text='hedge')
        expect(fault.locator('mark')).to_have_text('3level = book[name]  # <here>')
        assert fault.locator('.gk-code').inner_text().count('\n') == 3 and f'gekko runs show {broke["run_id"][-4:]}' in fault.inner_text() and broke['executed'] in fault.inner_text()

        gate.touch()
        good = one_line(ended(waits))
        expect(page.locator('.gk-jobpage')).to_contain_text('Nothing runs now.', timeout=LOUD)
        expect(page.locator('.gk-runs tr', has_text=good['run_id'][-4:])).to_contain_text('done', timeout=LOUD)

        ledger, now = settings_of(home).ledger, SystemClock().now()
        for k in range(4): lived(ledger, 'steady', 10 + k, 4000 - 100 * k)
        late = lived(ledger, 'steady', 43, 200)
        for k in range(7): lived(ledger, 'grid', 2, 900 + k, 'failed' if k == 3 else 'done', sweep='s1')
        expect(page.locator('.gk-runs tr', has_text=late[-4:]).locator('.gk-slow')).to_have_text('43.0 s', timeout=LOUD)
        expect(page.locator('.gk-habits tr', has_text='steady').locator('.gk-bars .gk-late')).to_have_count(1)
        expect(page.locator('.gk-habits tr', has_text='steady')).to_contain_text('11.5 s')
        expect(page.locator('.gk-reasons')).to_contain_text('its last run took 43.0 s, usually 11.5 s')
        swept = page.locator('.gk-runs tr', has_text='sweep of 7')
        expect(swept).to_contain_text('6 done, 1 failed')
        expect(page.locator('.gk-runs tr', has_text='grid')).to_have_count(1)

        scheduled(ledger, now)
        expect(page.locator('.gk-due tr', has_text='nightly')).to_contain_text(iso((now + HOUR) // SECOND * SECOND)[11:19] if (now + HOUR) // DAY == now // DAY else iso(now + HOUR)[5:10], timeout=LOUD)
        expect(page.locator('.gk-reasons')).to_contain_text('gone.ipynb: no such notebook')
        expect(page.locator('.gk-jobpage')).to_contain_text('1 worker alive')

        item = {'name': 'deflated Sharpe', 'value': 0.973, 'threshold': 0.95, 'least': True, 'ok': True, 'why': 'of 40 trials'}
        promote(ledger, SystemClock(), Promoted('ab' * 32, 'cd' * 32, 'hedge', 'backtest', 'ada', 'ada', 'a <look>', {'notebook': str(tmp_path / 'hedge.ipynb'), 'code': 'another', 'lock': 'another'}, [item]))
        granted = page.locator('.gk-granted', has_text='hedge')
        expect(granted).to_contain_text('what it is now was not promoted', timeout=2 * LOUD)
        granted.locator('summary').click()
        expect(granted.locator('tr', has_text='deflated Sharpe')).to_contain_text('0.973')
        expect(granted.locator('tr', has_text='deflated Sharpe')).to_contain_text('≥ 0.95')

        for width in (1400, 700, 390):
            page.set_viewport_size({'width': width, 'height': 2200})
            page.wait_for_timeout(300)
            assert tab.overflow() == [], f'nothing is cut off at {width} pixels'
            page.screenshot(path=tmp_path / f'jobs-{width}.png')
            assert (tmp_path / f'jobs-{width}.png').stat().st_size > 40_000
        assert granted.locator('details').get_attribute('open') is not None, 'what was opened stays open while the page follows'

        before = {k: v for k, v in tree(home).items() if not k.startswith('logs')}
        for _ in range(2):
            beat = tab.text('.gk-pulse')
            expect(page.locator('.gk-pulse')).not_to_have_text(beat, timeout=LOUD)
        assert {k: v for k, v in tree(home).items() if not k.startswith('logs')} == before, 'the page reads, and writes nothing'

        page.locator('.gk-runs tr', has_text='hedge').get_by_role('link').click()      # a failure in full, by its address
        expect(page.locator('.gk-fault').first).to_contain_text(broke['run_id'], timeout=LOUD)
        assert 'Traceback' not in page.locator('body').inner_text() and tab.complaints == []
        if (queue := file_of(queue_url(ledger))) != file_of(ledger):           # in a file of its own, which may be damaged alone
            assert queue is not None
            queue.write_bytes(b'no database at all, as a disk may leave it' * 99)
            expect(page.locator('.gk-alarm')).to_contain_text('The schedule cannot be read', timeout=LOUD)
            expect(page.locator('.gk-fault').first).to_contain_text(broke['run_id'])
        page.close()
