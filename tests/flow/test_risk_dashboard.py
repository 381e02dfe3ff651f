"""The risk page in a real browser while a real job trades under the firm's limits, and the daily report as a job: what they show is what the ledger says."""
from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_stage import REPO, STRATEGIES, ended, gekko, launch, ledger_of, notebook, ok, one_line, only_run, outputs
from playwright.sync_api import expect
from test_dashboard import LOUD, Tab, dashboard

from gekko.ledger.journal import read_entries
from gekko.ledger.rights import LimitPassed
from gekko.risk.kill import KillSwitch

# a gross of 0.6, then of 0.9 and nearly 1, at a pace that a page can follow
PACED = ("""mode = 'paper'
symbols = ['SP500', 'KO']
start = '2016-01-01'
end = '2016-07-01'
pace_s = 0.12""", """import time
from gekko.api import open_run
run = open_run(symbols, mode=mode, start=start, end=end, window=100, limits={'max_gross': 5})
for n, window in enumerate(run):
    time.sleep(pace_s)
    gross = 0.6 if n < 30 else 0.9 if n < 60 else 0.98
    run.target(weights={s: gross / 2 for s in symbols})
result = run.finish()""")


def bounded(home: Path) -> None:
    """The firm's limits: a soft level that the job passes, and a hard one that it comes near."""
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=1', 'max_var=0.05', 'max_stress=0.6', '--why', 'first year'))
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=0.8', 'max_stress=0.2', '--soft', '--why', 'first year'))


@pytest.mark.browser
def test_the_risk_page_follows_a_paper_run_under_the_firms_limits(home: Path, tmp_path: Path, browser: Any) -> None:
    with dashboard(home) as (url, _):
        page = browser.new_page(viewport={'width': 1400, 'height': 1500})
        tab = Tab(page, url)
        page.get_by_role('link', name='Risk').click()                  # the desk's page leads here
        expect(page.locator('.gk-risk .gk-pulse')).to_contain_text('live', timeout=LOUD)
        expect(page.locator('h1')).to_have_text('No account yet', timeout=LOUD)
        assert 'No limits set' in page.locator('.gk-risk').inner_text() and 'Nothing tripped' in page.locator('.gk-risk').inner_text()
        page.screenshot(path=tmp_path / 'risk-empty.png')

        bounded(home)
        job = launch(home, 'run', notebook(home.parent / 'paced.ipynb', *PACED), '--mode', 'paper', '--json')
        row = page.locator('.gk-limits tr', has_text='Gross')
        states = set[str]()
        while job.poll() is None:
            if row.count(): states.add(row.first.locator('.gk-state').inner_text())
            time.sleep(0.05)
        done = one_line(ended(job))
        assert states == {'within', 'soft level'}, 'the bar turned while the job traded'
        assert any(isinstance(e.record, LimitPassed) and e.record.state == 'soft' for e in read_entries(ledger_of(home), done['account']))

        equity = Decimal(done['metrics']['equity'])
        expect(page.locator('.gk-equity')).to_have_text(f'{equity:,.2f}', timeout=LOUD)
        expect(page.locator('.gk-risk')).to_contain_text('soft level passed', timeout=LOUD)
        use = {r['limit']: r for r in one_line(gekko(home, 'risk', 'use', '--json'))['limits']}
        expect(row.first).to_contain_text(f'{use["max_gross"]["used"]:.2f} ×', timeout=LOUD)
        text = page.locator('.gk-risk').inner_text()
        for said in ('VaR, 99 %', 'Worst stress', 'exceptions in', 'lehman-2008', 'By instrument', 'sets firm hard', 'SP500', 'filtered'): assert said in text, said
        assert 'Not measured' not in text and 'NaN' not in text and 'nan' not in text.split()
        assert page.locator('.gk-path svg').first.is_visible()

        for scheme in ('light', 'dark'):
            page.emulate_media(color_scheme=scheme)
            for width in (1400, 700):
                page.set_viewport_size({'width': width, 'height': 1500})
                page.wait_for_timeout(300)
                assert tab.overflow() == [], f'nothing is cut off at {width} pixels'
                page.screenshot(path=tmp_path / f'risk-{scheme}-{width}.png', full_page=True)
                assert (tmp_path / f'risk-{scheme}-{width}.png').stat().st_size > 30_000
        dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("() => getComputedStyle(document.querySelector('.gk-limits td')).color")
        assert (dark, ink) == ('rgb(18, 23, 28)', 'rgb(221, 227, 232)'), 'dark where the reader wants it'
        ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=0.5', '--why', 'a bad week'))         # a hard level, passed by what is held
        expect(row.first.locator('.gk-state')).to_have_text('over', timeout=LOUD)
        expect(page.locator('.gk-verdict')).to_contain_text('Over a hard limit: Gross 0.98', timeout=LOUD)
        KillSwitch(home / 'kill').trip('thrown by hand', 'ann')
        expect(page.locator('.gk-alarm')).to_contain_text('Kill switch: thrown by hand', timeout=LOUD)
        page.set_viewport_size({'width': 1400, 'height': 1500})
        page.screenshot(path=tmp_path / 'risk-over.png')
        page.get_by_role('link', name='Desk').click()
        expect(page.locator('.gk-equity')).to_have_text(f'{equity:,.2f}', timeout=LOUD)
        page.screenshot(path=tmp_path / 'desk-dark.png')
        assert tab.complaints == []
        page.close()


def test_the_use_of_limits_ends_a_scheduler_s_command_with_3(home: Path) -> None:
    one_line(gekko(home, 'run', notebook(home.parent / 'held.ipynb', *HELD), '--mode', 'paper', '--json'))
    within = one_line(gekko(home, 'risk', 'use', '--json'))
    assert within['over'] == 0 and {r['state'] for r in within['limits']} == {'ok'}
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=0.5', '--why', 'a bad week'))
    over = gekko(home, 'risk', 'use')
    assert over.returncode == 3 and 'max_gross' in over.stdout and 'hard' in over.stdout
    account = only_run(home).account
    said = one_line(gekko(home, 'risk', 'report', account, '--json'))
    assert said['verdict'] == 'over' and said['figures']['limits_over'] == 1 and said['tails'] and all(t['es'] is None or t['es'] >= t['var'] for t in said['tails'])
    assert said['limits'][[r['name'] for r in said['limits']].index('max_gross')]['state'] == 'hard'
    assert 'OVER: Over a hard limit: Gross 0.80' in ok(gekko(home, 'risk', 'report'))
    assert [r['account'] for r in one_line(gekko(home, 'ledger', 'accounts', '--json'))] == [account], "the firm's journal is no account"
    assert set(one_line(gekko(home, 'ledger', 'verify', '--json'))['accounts']) == {account, '@charter'}
    refused = gekko(home, 'statement', '@charter')
    assert refused.returncode == 2 and 'no such account' in refused.stderr


HELD = ("""mode = 'paper'
symbols = ['SP500', 'KO']
start = '2016-01-01'
end = '2016-03-01'""", """from gekko.api import open_run
run = open_run(symbols, mode=mode, start=start, end=end, window=2)
for n, window in enumerate(run): run.target(weights={s: 0.4 for s in symbols})
result = run.finish()""")


def test_the_daily_report_is_a_job(home: Path) -> None:
    alone = one_line(gekko(home, 'run', STRATEGIES / 'risk_report.ipynb', '--json', cwd=REPO))       # a fresh home: the example book
    m = alone['metrics']
    assert alone['state'] == 'done' and alone['error'] is None and 0 < m['var_99'] < m['es_99'] < m['worst_stress'] < 1 and m['limits_over'] == 0
    shown = outputs(Path(alone['executed']))
    for said in ('Cornish', 'Kupiec', 'pandemic-2020', 'Days to exit', 'standard deviations', 'Whose risk', 'nothing tripped', 'By venue'): assert said.lower() in shown.lower(), said
    assert 'nothing was traded' in ok(gekko(home, 'runs', 'show', alone['run_id']))
    paper = gekko(home, 'run', STRATEGIES / 'risk_report.ipynb', '--mode', 'paper', cwd=REPO)
    assert paper.returncode == 2 and 'does not trade' in paper.stderr


def test_the_report_on_an_account_knows_the_house_s_scenarios_and_ends_with_3(home: Path) -> None:
    done = one_line(gekko(home, 'run', notebook(home.parent / 'held.ipynb', *HELD), '--mode', 'paper', '--json'))
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=0.5', '--why', 'a bad week'))
    (home / 'scenarios').mkdir()
    (home / 'scenarios' / 'ours.toml').write_text('[[scenario]]\nname = "all-gone"\nkind = "shock"\nshocks = { "*" = -0.9 }\n')
    said = gekko(home, 'run', STRATEGIES / 'risk_report.ipynb', '-p', 'account', done['account'], '--json', cwd=REPO)
    report = json.loads(said.stdout)
    assert said.returncode == 3 and report['state'] == 'done' and 'Gross 0.8' in report['error']
    assert report['metrics']['limits_over'] == 1 and report['metrics']['worst_scenario'] == 'all-gone' and 0.7 < report['metrics']['worst_stress'] < 0.75
    assert 'a bad week' in outputs(Path(report['executed']))
    nobody = gekko(home, 'run', STRATEGIES / 'risk_report.ipynb', '-p', 'account', 'oanda-7', cwd=REPO)
    assert nobody.returncode == 2 and 'no such account' in nobody.stderr
