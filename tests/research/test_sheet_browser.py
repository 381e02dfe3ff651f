"""The tear sheet where it is read: in JupyterLab under the mouse, on a narrow page, and on paper."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_stage import Bench, lab, write_notebook
from playwright.sync_api import Browser, expect

from gekko.research.sheet import Sheet, sheet

pytestmark = pytest.mark.browser
LOUD = 60_000   # ms
WIDE = "() => [...document.querySelectorAll('table, img, svg, .js-plotly-plot')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"


MADE = """import numpy as np
from gekko.api import report
from gekko.data.reference import reference_bars, reference_instrument
from gekko.domain.time import utc
from gekko.research.fast import backtest
past = reference_bars(['SP500', 'WTI']).between(utc('2006-01-01'), utc('2011-01-01'))
weights = np.where((np.arange(len(past)) // 40) % 2 == 0, 0.5, -0.2)[:, None] * np.ones((1, 2))
run = backtest(past, weights, instruments={s: reference_instrument(s) for s in past.symbols}, first=1)
"""


@pytest.fixture(scope='module')
def made() -> Sheet:
    names: dict[str, Any] = {}
    exec(MADE, names)
    return sheet(names['run'])


@pytest.fixture(scope='module')
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp('sheet')
    write_notebook(folder / 'sheet.ipynb', [MADE + 'report(run)'])
    with lab(folder, folder / 'home') as url: yield url


def heard(page: Any) -> list[str]:
    said = list[str]()
    page.on('console', lambda m: said.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: said.append(str(e)))
    page.on('request', lambda r: said.append(f'outside: {r.url[:80]}') if not r.url.startswith(('file:', 'data:', 'blob:')) else None)
    return said


def test_pictures_come_alive_in_jupyterlab(browser: Browser, address: str, made: Sheet) -> None:
    """Still at first, live under the mouse in the same place, with nothing fetched and no complaint."""
    page = browser.new_page(viewport={'width': 1400, 'height': 1000})
    try:
        b = Bench(page, address, 'sheet.ipynb')
        b.run(0)
        shown = b.panel.locator('.jp-RenderedPlotly')
        expect(shown).to_have_count(sum(x.live is not None for x in made.blocks), timeout=LOUD)
        for k in (0, shown.count() - 1):
            out = shown.nth(k)
            out.scroll_into_view_if_needed()
            expect(out.locator('img.plot-img')).to_be_visible(timeout=LOUD)
            before = out.bounding_box()
            assert before is not None and before['width'] <= 760
            page.mouse.move(before['x'] + before['width'] / 2, before['y'] + before['height'] / 2)
            expect(out.locator('.plot-container')).to_be_visible(timeout=LOUD)
            expect(out.locator('img.plot-img')).to_be_hidden(timeout=LOUD)
            after = out.bounding_box()
            assert after is not None and abs(after['height'] - before['height']) < 12, 'the page jumps when a picture comes alive'
        curves = shown.nth(0).locator('.scatterlayer .js-line')
        expect(curves).to_have_count(3, timeout=LOUD)
        assert b.complaints == []
    finally: page.close()


@pytest.mark.parametrize('width', [1400, 700, 390])
def test_a_page_at_any_width(browser: Browser, made: Sheet, tmp_path: Path, width: int) -> None:
    (tmp_path / 'sheet.html').write_text(made.page())
    page = browser.new_page(viewport={'width': width, 'height': 900})
    try:
        said = heard(page)
        page.goto((tmp_path / 'sheet.html').as_uri())
        assert page.evaluate('() => document.documentElement.scrollWidth <= innerWidth') and page.locator('img').count() == sum(x.live is not None for x in made.blocks)
        assert page.evaluate("() => [...document.images].every(i => i.complete && i.naturalWidth > 500)") and said == []
    finally: page.close()


def test_on_paper_nothing_is_cut(browser: Browser, made: Sheet, tmp_path: Path) -> None:
    """On the text width of A4 every block fits the width, and none is higher than a page; a page may be broken only between blocks."""
    (tmp_path / 'sheet.html').write_text(made.page())
    page = browser.new_page(viewport={'width': 688, 'height': 900})
    try:
        page.emulate_media(media='print')
        page.goto((tmp_path / 'sheet.html').as_uri())
        assert page.evaluate(WIDE) == 0
        heights = page.evaluate("() => [...document.querySelectorAll('.sheet-block')].map(e => [e.getBoundingClientRect().height, getComputedStyle(e).breakInside])")
        assert len(heights) == len(made.blocks) and all(h < 1010 and how == 'avoid' for h, how in heights)
        assert page.pdf(format='A4', prefer_css_page_size=True)[:4] == b'%PDF'
    finally: page.close()


def test_a_moving_page_brings_its_own_plotly(browser: Browser, made: Sheet, tmp_path: Path) -> None:
    (tmp_path / 'sheet.html').write_text(made.page(moving=True))
    page = browser.new_page(viewport={'width': 900, 'height': 900})
    try:
        said = heard(page)
        page.goto((tmp_path / 'sheet.html').as_uri())
        expect(page.locator('.js-plotly-plot')).to_have_count(sum(x.live is not None for x in made.blocks), timeout=LOUD)
        assert page.evaluate(WIDE) == 0 and said == []
    finally: page.close()
