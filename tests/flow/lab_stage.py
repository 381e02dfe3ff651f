"""The stage of JupyterLab: a real server, a real kernel, and a real page in which a notebook's cells are run as a hand would."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from desk_stage import environ, wait_for

LOUD = 60_000   # ms: how long the page may take to show something


def write_notebook(path: Path, cells: Sequence[str], parameters: int | None = None) -> Path:
    """A notebook of code cells; `parameters` is the number of the tagged one."""
    made = [{'cell_type': 'code', 'id': f'c{k}', 'metadata': {'tags': ['parameters']} if k == parameters else {}, 'source': text, 'outputs': [], 'execution_count': None} for k, text in enumerate(cells)]
    path.write_text(json.dumps({'cells': made, 'metadata': {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'}}, 'nbformat': 4, 'nbformat_minor': 5}))
    return path


@contextmanager
def lab(folder: Path, home: Path, **more: str) -> Iterator[str]:
    """JupyterLab over `folder`, its kernels at home in `home`, with `more` in its environment: its address. Nothing of the user's own settings, no request to anywhere else."""
    own = folder / '.jupyter'
    (own / 'labconfig').mkdir(parents=True, exist_ok=True)
    (own / 'labconfig' / 'page_config.json').write_text(json.dumps({'disabledExtensions': {'@jupyterlab/apputils-extension:announcements': True}}))
    env = environ(home, JUPYTER_CONFIG_DIR=str(own), JUPYTER_RUNTIME_DIR=str(own / 'runtime'), JUPYTERLAB_SETTINGS_DIR=str(own / 'settings'), JUPYTERLAB_WORKSPACES_DIR=str(own / 'workspaces'), IPYTHONDIR=str(own / 'ipython'), **more)
    log = open(own / 'lab.log', 'wb')
    p = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--port', '0', '--ServerApp.ip=127.0.0.1', '--IdentityProvider.token=', '--ServerApp.password=', '--ServerApp.port_retries=50',
                          f'--ServerApp.root_dir={folder}', '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate', '--LabApp.extension_manager=readonly',
                          '--ServerApp.disable_check_xsrf=True', '--allow-root'], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try: yield wait_for(lambda: _address(own / 'runtime', p), 'JupyterLab')
    finally:
        with suppress(ProcessLookupError): os.killpg(p.pid, signal.SIGTERM)
        try: p.wait(30)
        except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL)
        log.close()


def _address(runtime: Path, p: subprocess.Popen[bytes]) -> str | None:
    assert p.poll() is None, 'JupyterLab ended'
    for f in runtime.glob('jpserver-*.json'):
        with suppress(OSError, ValueError):
            url = str(json.loads(f.read_text())['url'])
            with urllib.request.urlopen(f'{url}api', timeout=5) as r:
                if r.status == 200: return url
    return None


class Bench:
    """A notebook open in JupyterLab."""

    def __init__(self, page: Any, url: str, notebook: str) -> None:
        self.page, self.complaints = page, list[str]()
        page.on('pageerror', lambda e: self.complaints.append(str(e)))
        page.on('request', lambda r: self.complaints.append(f'outside: {r.url}') if not r.url.startswith((url, url.replace('http', 'ws', 1), 'data:', 'blob:')) else None)
        page.goto(f'{url}lab/workspaces/w-{time.monotonic_ns()}/tree/{notebook}?reset')
        self.panel = page.locator('.jp-NotebookPanel')
        self.panel.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=LOUD)

    def cell(self, n: int) -> Any: return self.panel.locator('.jp-CodeCell').nth(n)
    def run(self, n: int, wait: bool = True) -> Any:
        """Run one cell with the keyboard; its output area. A page that is still busy with itself may not hear the first keys."""
        c, prompt = self.cell(n), self.cell(n).locator('.jp-InputArea-prompt').first
        def begun() -> bool:
            if prompt.inner_text().strip() not in ('[ ]:', ''): return True
            prompt.click()
            self.page.keyboard.press('Control+Enter')
            self.page.wait_for_timeout(500)
            return False
        wait_for(begun, f'cell {n} to begin')
        if wait: self.ran(n)
        return c.locator('.jp-OutputArea').first

    def ran(self, n: int) -> None:
        """Wait until the cell has its number: it was run to its end."""
        self.page.wait_for_function("""n => { const p = document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')[n].querySelector('.jp-InputArea-prompt'); return p && /\\d/.test(p.textContent); }""", arg=n, timeout=LOUD * 2)
