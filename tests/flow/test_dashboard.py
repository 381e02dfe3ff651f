"""The real page in a real browser, while a real job trades: what a manager sees is what the ledger says, to the cent."""
from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from desk_stage import REPO, STRATEGIES, ended, gekko, launch, ledger_of, notebook, one_line, settings_of, wait_for
from playwright.sync_api import Page, expect

from gekko.ledger.database import exists
from gekko.ledger.journal import read_entries
from gekko.ledger.replay import replay

LOUD = 30_000   # ms: how long the page may take to show something


# A job that trades two markets and waits at some bars for whoever looks on.
GATES = (40, 300, 700)
GATED = ("""mode = 'paper'
symbols = ['SP500', 'KO']
start = '2013-01-01'
gates = ''""", f"""import time
from pathlib import Path
from gekko.api import open_run
run = open_run(symbols, mode=mode, start=start, window=100)
for n, window in enumerate(run):
    run.target(weights={{'SP500': 0.5 + 0.3*(n % 2), 'KO': 0.4 - 0.3*(n % 2)}})
    if n in {GATES}:
        (Path(gates)/f'{{n}}-reached').touch()
        while not (Path(gates)/str(n)).exists(): time.sleep(0.02)
result = run.finish()""")


@contextmanager
def dashboard(home: Path, port: int = 0) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`gekko dashboard`, serving this repository's pages for `home`: its address and its process."""
    p = launch(home, 'dashboard', '--port', port, '--json', cwd=REPO)
    try:
        assert p.stdout is not None
        line = p.stdout.readline()
        assert line, p.communicate()[1]
        yield json.loads(line)['url'], p
    finally:
        p.kill()
        p.communicate()


def kernels(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """The kernels that the dashboard's server talks to. By their ports: a warm one is no child of the server's."""
    ours = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    asked = set[int]()
    for p in ours:
        with suppress(psutil.Error): asked |= {c.raddr.port for c in p.net_connections('tcp') if c.raddr}
    there = {c.pid for c in psutil.net_connections('tcp') if c.status == psutil.CONN_LISTEN and c.laddr.port in asked and c.pid}
    return [psutil.Process(n) for n in there - {p.pid for p in ours if 'ipykernel_launcher' not in ' '.join(p.cmdline())}]


class Tab:
    """A page, and what it complained about: errors in its console, answers of 400 and more, requests to anywhere but its server."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.complaints = page, list[str]()
        page.on('console', lambda m: self.complaints.append(m.text) if m.type == 'error' else None)
        page.on('pageerror', lambda e: self.complaints.append(str(e)))
        page.on('response', lambda r: self.complaints.append(f'{r.status} {r.url}') if r.status >= 400 else None)
        page.on('request', lambda r: self.complaints.append(f'outside: {r.url}') if not r.url.startswith((url, 'data:', 'blob:')) else None)
        page.goto(url)
        expect(page.locator('.gk-pulse')).to_contain_text('live', timeout=LOUD)

    def text(self, css: str) -> str: return self.page.locator(css).first.inner_text().strip()
    def overflow(self) -> list[str]:
        """Elements that reach beyond the right edge of the window."""
        return list(self.page.evaluate("() => [...document.querySelectorAll('.gk *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"))
    def curve_end(self) -> Decimal:
        """The last equity that the figure was given."""
        return Decimal(str(self.page.evaluate("() => { const y = document.querySelector('.js-plotly-plot').data[0].y; return y[y.length - 1] }")))


@pytest.mark.browser
def test_the_page_follows_a_paper_run_to_its_last_cent(home: Path, tmp_path: Path, browser: Any) -> None:
    with dashboard(home) as (url, server):
        page = browser.new_page(viewport={'width': 1400, 'height': 1250})
        tab = Tab(page, url)
        assert tab.text('h1') == 'No account yet' and 'gekko run' in tab.text('.gk')      # a home that does not exist yet
        assert not home.exists() or not exists(ledger_of(home))

        gates = tmp_path / 'gates'
        gates.mkdir()
        job = launch(home, 'run', notebook(tmp_path / 'gated.ipynb', *GATED), '-p', 'gates', gates, '--mode', 'paper', '--json', cwd=REPO)
        before = ''
        for row in GATES:                                                                 # the job waits at each, until the page has shown where it stands
            expect(page.locator('.gk-state')).to_have_text('trading', timeout=2*LOUD)
            expect(page.locator('.gk-equity')).not_to_have_text(before, timeout=LOUD)
            wait_for((gates / f'{row}-reached').exists, f'the job at bar {row}')
            shown = ' '
            while shown != (shown := tab.text('.gk-equity')): page.wait_for_timeout(1500)  # the page has come to where the job waits
            assert shown != before, 'the equity moves while the job trades'
            before = shown
            (gates / str(row)).touch()
        done = one_line(ended(job))

        final = Decimal(done['metrics']['equity'])
        expect(page.locator('.gk-state')).to_have_text('ended', timeout=LOUD)
        expect(page.locator('.gk-equity')).to_have_text(f'{final:,.2f}', timeout=LOUD)
        book = replay(read_entries(settings_of(home).ledger, done['account']))
        assert book.equity == final == Decimal(one_line(gekko(home, 'runs', 'show', done['run_id'], '--json'))['ledger_equity'])
        assert [tab.text(f'.gk-figure:nth-child({n}) b') for n in (4, 5, 6)] == [f'{done["metrics"][k]:,}' for k in ('orders', 'fills', 'rejected')]
        expect(page.locator('.js-plotly-plot .main-svg').first).to_be_visible(timeout=LOUD)
        assert abs(tab.curve_end() - final) < Decimal('0.005')
        assert page.title() == f'{final:,.2f} gated'

        for width in (1400, 700):
            page.set_viewport_size({'width': width, 'height': 1250})
            page.wait_for_timeout(500)
            assert tab.overflow() == [], f'nothing is cut off at {width} pixels'
            page.screenshot(path=tmp_path / f'desk-{width}.png')
            assert (tmp_path / f'desk-{width}.png').stat().st_size > 30_000
        assert tab.complaints == []

        behind = kernels(server)
        assert len(behind) == 1, 'one page, one kernel'
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert psutil.wait_procs(behind, timeout=60)[1] == [], 'kernels end with the server'
        expect(page.locator('.gk-pulse')).to_have_class(re.compile('gk-frozen'), timeout=LOUD)     # and the page says that it is old
        assert page.title() == 'Not updating' and tab.text('.gk-equity') == f'{final:,.2f}'
        page.close()


@pytest.mark.browser
def test_a_kernel_ends_with_its_page_and_a_run_is_shown_by_its_address(home: Path, browser: Any) -> None:
    done = one_line(gekko(home, 'run', STRATEGIES / 'first.ipynb', '-p', 'start', '2018-01-01', '--json', cwd=REPO))
    with dashboard(home) as (url, server):
        page = browser.new_page(viewport={'width': 1000, 'height': 900})
        tab = Tab(page, url)
        assert tab.text('h1') == 'No account yet'                    # a backtest has no account on a desk
        page.get_by_role('link', name=done['run_id']).click()        # but its journal can be looked at
        expect(page.locator('.gk-equity')).to_have_text(f'{Decimal(done["metrics"]["equity"]):,.2f}', timeout=LOUD)
        assert tab.overflow() == [] and tab.complaints == []
        behind = kernels(server)
        assert behind, 'the page has a kernel'
        page.goto('about:blank')
        assert psutil.wait_procs(behind, timeout=120)[1] == [], 'kernels without a page'
        assert kernels(server) == []
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
        page.close()


def test_what_cannot_be_served_is_refused(home: Path) -> None:
    unknown = one_line(gekko(home, 'dashboard', '--view', 'desc', '--json', cwd=REPO), code=2)
    assert unknown['error'] == 'no such dashboard' and unknown['expected'] == 'desk, jobs, models, risk'
    with dashboard(home) as (url, _):
        taken = one_line(gekko(home, 'dashboard', '--port', url.rsplit(':', 1)[1].strip('/'), '--json', cwd=REPO), code=2)
        assert 'in use' in taken['found']
    assert one_line(gekko(home, 'dashboard', '--port', 70_000, '--json', cwd=REPO), code=2)['error'] == 'port'
