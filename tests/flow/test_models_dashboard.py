"""The models' page in a real browser, while two models live and one of them drifts: what a manager reads is what the registry and the record say."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from desk_stage import gekko, one_line, settings_of
from model_stage import month
from playwright.sync_api import expect
from test_dashboard import LOUD, Tab, dashboard

from gekko.domain.time import DAY, HOUR, SystemClock, iso
from gekko.ops.models import lived


@pytest.mark.browser
def test_the_models_page_tells_a_manager_what_needs_looking_at(home: Path, tmp_path: Path, browser: Any) -> None:
    now = SystemClock().now()
    today = now // DAY * DAY
    with dashboard(home) as (url, _):
        page = browser.new_page(viewport={'width': 1440, 'height': 2400})
        tab = Tab(page, url)
        page.get_by_role('link', name='Models').click()                # the desk's page leads here
        expect(page.locator('.gk-modelpage .gk-pulse')).to_contain_text('live', timeout=LOUD)
        expect(page.locator('.gk-verdict')).to_have_text('No model yet.', timeout=LOUD)
        assert 'gekko model train' in page.locator('.gk-modelpage').inner_text() and 'Nothing was decided yet' in page.locator('.gk-modelpage').inner_text()

        registry = month(settings_of(home), today, now, last=2)        # the page finds it by itself
        expect(page.locator('.gk-verdict')).to_contain_text(f'Look at eth#1: it drifted on {iso(today - 2 * DAY)[:10]}: its errors are larger than at training', timeout=LOUD)
        expect(page.locator('.gk-equity')).to_have_text('2')
        expect(page.locator('.gk-state').first).to_have_text('look now')
        expect(page.locator('.gk-life')).to_have_count(2)

        said = one_line(gekko(home, 'model', 'day', '--json'))         # yesterday: the third bad day in a row
        assert said['demoted'] == ['eth#1'] and said['day'] == iso(today - DAY)[:10]
        expect(page.locator('.gk-verdict')).to_contain_text('it drifted and was put back on paper', timeout=LOUD)
        expect(page.locator('.gk-equity')).to_have_text('1')
        expect(page.locator('.gk-life', has_text='eth#1').locator('h2 .gk-state').first).to_have_text('paper')
        expect(page.locator('tr', has_text='drifted: back on paper')).to_contain_text('drift')

        entries = {e.name: e for e in registry.entries()}
        for name in ('btc', 'eth'):
            row = page.locator('.gk-models tr', has_text=f'{name}#1').inner_text()
            l = lived(entries[name].days[-30:], 6 * HOUR)
            assert l.skill is not None and f'{l.skill:+.1%}'.replace('-', '\N{MINUS SIGN}') in row and f'{l.coverage:.1%}' in row and '80.3% / 94.9%' in row, (l, row)
        text = page.locator('.gk-modelpage').inner_text()
        for words in ('forecasts with money behind them', 'does not beat naive', 'smaller than if nothing changed on', '80% promised', 'errors larger than at training', 'input log_return', 'torch-cpu', 'a month on paper kept its word', 'nobody wants it'): assert words in text, words
        assert 'nan' not in text.lower().split() and 'Traceback' not in text
        assert page.locator('.gk-life').first.locator('.gk-day').count() == 45 and page.locator('.gk-life').first.locator('.gk-day.gk-drifted').count() == 3

        page.evaluate("() => { document.querySelector('.gk-models').dataset.kept = 'yes' }")
        beat = tab.text('.gk-pulse')
        expect(page.locator('.gk-pulse')).not_to_have_text(beat, timeout=LOUD)
        assert page.locator('.gk-models').get_attribute('data-kept') == 'yes', 'what did not change is not drawn again'
        for width in (1440, 390):
            page.set_viewport_size({'width': width, 'height': 2400})
            page.wait_for_timeout(300)
            assert tab.overflow() == [], f'nothing is cut off at {width} pixels'
            page.screenshot(path=tmp_path / f'models-{width}.png')
            assert (tmp_path / f'models-{width}.png').stat().st_size > 60_000

        journal = home / 'models' / 'journal.jsonl'
        whole = journal.read_bytes()
        journal.write_bytes(whole.replace(b'"by":"ada"', b'"by":"bob"', 1))
        expect(page.locator('.gk-alarm')).to_contain_text('cannot be trusted: line 1 of the journal was altered', timeout=LOUD)
        expect(page.locator('.gk-alarm')).to_contain_text('as of')
        assert page.locator('.gk-life').count() == 2
        page.reload()                                                  # whoever comes now is shown nothing that may be false
        expect(page.locator('.gk-verdict')).to_contain_text('Nothing is shown, because it might be false', timeout=LOUD)
        assert page.locator('.gk-life').count() == 0 and 'Traceback' not in page.locator('body').inner_text()
        journal.write_bytes(whole)
        expect(page.locator('.gk-verdict')).to_contain_text('Look at eth#1', timeout=LOUD)
        for p in (home / 'models').glob('forecasts.db*'): p.unlink()
        (home / 'models' / 'forecasts.db').write_bytes(b'no database at all, as a disk may leave it' * 99)
        expect(page.locator('.gk-alarm')).to_contain_text('The record of forecasts cannot be read', timeout=LOUD)
        expect(page.locator('.gk-life')).to_have_count(2)
        assert tab.complaints == []
        page.close()
