"""JupyterLab itself, in a real browser: a slider is moved and the curve follows; a cell trades on a desk; what is drawn can be read."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk_stage import settings_of, tidy
from lab_stage import LOUD, Bench, lab, write_notebook

from gekko.ledger.runs import Runs
from gekko.research.trials import Trials, trials_url

SETUP = """%load_ext gekko
import numpy as np
from gekko.api import open_run, rolling_mean, trade
from gekko.data.bars import Bars
from gekko.domain.instrument import Instrument
from gekko.domain.time import SECOND, utc
from gekko.jobs.explore import explore
from gekko.research.columns import crosses
def walk(rows):
    r = np.random.default_rng(1)
    c = np.round(100*np.exp(np.cumsum(r.normal(0, 0.001, rows))), 2)[:, None]
    o = np.vstack([c[:1], c[:-1]])
    start = utc('2024-01-01') + np.arange(rows)*60*SECOND
    return Bars(('A',), start, start + 60*SECOND, o, np.maximum(o, c), np.minimum(o, c), c, np.ones((rows, 1)))
instruments = {'A': Instrument('A', 'A', 'USD')}
def panel_of(rows):
    bars = walk(rows)
    return explore(crosses(bars, instruments), bars, {'fast': (5, 60), 'slow': (61, 300)}, instruments=instruments, fee_bps=1.0, cash=100_000, rest_s=0.3)
days = 20
def weights(bars): return (bars.close > rolling_mean(bars.close, days))*0.9"""
PAPER = """%%paper -p days 10
run = open_run('SP500', mode=mode, start='2018-10-01', window=days)
result = trade(run, weights)"""
CELLS = [SETUP, 'panel = panel_of(5_000); panel', 'panel = panel_of(200_000); panel', PAPER, 'result.fills']

# Turns a dial by its keys, one step at a time, and waits for the curve of each: milliseconds from the key to the picture on the page.
FOLLOWS = """([cell, dial, moves]) => new Promise((done, failed) => {
  const root = document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')[cell], out = [];
  const curve = () => root.querySelector('path.gk-equity')?.getAttribute('d');
  const handle = root.querySelectorAll('.noUi-handle')[dial];
  let last = curve();
  const move = k => {
    if (k === moves) return done(out);
    const t = performance.now();
    handle.dispatchEvent(new KeyboardEvent('keydown', {key: k % 3 ? 'ArrowRight' : 'ArrowLeft', bubbles: true}));
    const look = () => {
      const d = curve();
      if (d && d !== last) { last = d; return requestAnimationFrame(() => { out.push(performance.now() - t); setTimeout(() => move(k + 1), 60); }); }
      if (performance.now() - t > 60000) return failed(new Error('the curve did not follow'));
      requestAnimationFrame(look);
    };
    look();
  };
  move(0);
})"""


@pytest.fixture(scope='module')
def bench(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Path]]:
    folder = tmp_path_factory.mktemp('lab')
    write_notebook(folder / 'looks.ipynb', CELLS)
    with tidy(folder / 'home') as home, lab(folder, home) as url:
        page = browser.new_page(viewport={'width': 1500, 'height': 1100})
        opened = Bench(page, url, 'looks.ipynb')
        opened.run(0)
        yield opened, home
        page.close()


@pytest.mark.browser
@pytest.mark.parametrize('cell, rows', [(1, 5_000), (2, 200_000)])
def test_the_curve_follows_the_hand(bench: tuple[Bench, Path], cell: int, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    b, home = bench
    b.run(cell)
    root = b.cell(cell)
    root.locator('path.gk-equity').wait_for(timeout=LOUD)
    ms = sorted(b.page.evaluate(FOLLOWS, [cell, 0, 15]))
    with capsys.disabled(): print(f'\n{rows:,} bars: key to picture, median {ms[7]:.0f} ms, worst {ms[-1]:.0f} ms')
    assert len(ms) == 15

    # many keys without a pause: what is shown in the end is the last, and the words say so
    for _ in range(25): root.locator('.noUi-handle').first.press('ArrowRight')
    b.page.wait_for_function('cell => { const r = document.querySelectorAll(".jp-NotebookPanel .jp-CodeCell")[cell]; const n = r.querySelector(".widget-readout").textContent; return r.querySelector("code").textContent.includes(`fast=${n},`); }', arg=cell, timeout=LOUD)
    equity = root.locator('.gk-equity').first.inner_text()
    root.get_by_role('button', name='pin', exact=True).click()
    root.locator('path.gk-pinned').wait_for(timeout=LOUD)
    root.locator('.noUi-handle').nth(1).press('ArrowLeft')
    b.page.wait_for_function('([cell, was]) => document.querySelectorAll(".jp-NotebookPanel .jp-CodeCell")[cell].querySelector("div.gk-equity").textContent !== was', arg=[cell, equity], timeout=LOUD)
    root.get_by_text('new trial').wait_for(timeout=LOUD)
    root.get_by_role('button', name='copy call').click()
    root.get_by_role('button', name='copied').wait_for(timeout=LOUD)
    said = root.locator('code').inner_text()
    assert said.startswith('weights(fast=') and b.complaints == []
    assert Trials(trials_url(settings_of(home).ledger)).of('looks')


@pytest.mark.browser
def test_a_cell_trades_on_a_desk_and_the_page_shows_it(bench: tuple[Bench, Path]) -> None:
    b, home = bench
    b.run(3)
    record = Runs(settings_of(home).ledger).list(limit=1)[0]
    text = b.cell(3).locator('.jp-OutputArea').first.inner_text()
    assert record.state == 'done' and record.run_id in text and f'{record.params["days"]}' == '10' and 'Sharpe' in text
    b.run(4)
    rows = b.cell(4).locator('table tr')
    assert rows.count() > 5 and rows.first.inner_text().split()[:4] == ['UTC', 'side', 'symbol', 'size'] and b.complaints == []
