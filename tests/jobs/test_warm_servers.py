"""The same kernel, by its name alone, from a Jupyter server's REST API and from a page of Voilà in a real browser."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from test_warm import FEW, LOUD, home, said, stage, until  # noqa: F401  stage: a fixture

from gekko.jobs import warm

TOKEN = 'a-token-of-this-test'


@contextmanager
def server(folder: Path, *words: str) -> Iterator[str]:
    """A Jupyter program that serves `folder` at a free port: its address."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    log = folder / 'server.log'
    with log.open('w') as out: p = subprocess.Popen([sys.executable, '-m', *(w.format(port=port) for w in words)], cwd=folder, stdout=out, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))
    def answers() -> bool:
        assert p.poll() is None, log.read_text()
        with socket.socket() as s: return s.connect_ex(('127.0.0.1', port)) == 0
    try:
        until(answers, 'the server')
        yield f'http://127.0.0.1:{port}'
    finally:
        p.terminate()
        p.wait(LOUD)


def ask(url: str, body: Any = None, method: str = '') -> Any:
    r = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), {'Authorization': f'token {TOKEN}', 'Content-Type': 'application/json'}, method=method or ('GET' if body is None else 'POST'))
    with urllib.request.urlopen(r, timeout=LOUD) as answer: text = answer.read()
    return json.loads(text) if text else None


def forked() -> list[int]:
    """The kernels that are forks; none while nobody answers."""
    return list((warm.status(home()) or {}).get('kernels', []))


def test_a_jupyter_server_starts_restarts_and_ends_warm_kernels(stage: Path, tmp_path: Path) -> None:  # noqa: F811
    from jupyter_client.blocking import BlockingKernelClient
    with server(tmp_path, 'jupyter', 'lab', '--no-browser', '--allow-root', '--ServerApp.port={port}', '--ServerApp.ip=127.0.0.1', f'--IdentityProvider.token={TOKEN}', f'--ServerApp.root_dir={tmp_path}') as url:
        assert ask(f'{url}/api/kernelspecs')['kernelspecs']['gekko']['spec']['display_name'] == 'gekko'
        warm.ready(home())      # it may just have given way to a newer one
        k = ask(f'{url}/api/kernels', {'name': 'gekko'})
        pids = until(forked, 'a kernel')
        file = next(Path(os.environ['JUPYTER_RUNTIME_DIR']).glob(f'kernel-{k["id"]}.json'))
        kc = BlockingKernelClient(connection_file=str(file))
        kc.load_connection_file()
        kc.start_channels()
        kc.wait_for_ready(timeout=LOUD)
        assert said(kc, 'import sys, os; print(os.getpid(), "torch" in sys.modules)') == f'{pids[0]} True'
        ask(f'{url}/api/kernels/{k["id"]}/restart', {})
        again = until(lambda: [n for n in forked() if n not in pids], 'the kernel, again')
        kc.wait_for_ready(timeout=LOUD)
        assert said(kc, 'print(os.getpid() if "os" in dir() else "new")') == 'new'
        kc.stop_channels()
        ask(f'{url}/api/kernels/{k["id"]}', method='DELETE')
        until(lambda: not psutil.pid_exists(again[0]), 'its end')
        ask(f'{url}/api/kernels', {'name': 'gekko'})
        last = until(forked, 'one more')
    until(lambda: not psutil.pid_exists(last[0]), 'the end of what the server left')


@pytest.mark.browser
def test_a_page_of_voila_comes_from_a_warm_kernel(stage: Path, tmp_path: Path, browser: Any) -> None:  # noqa: F811
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('import sys, os, ipywidgets as w\nb, t = w.Button(description="more"), w.HTML("none yet")\n'
                                                                   'b.on_click(lambda _: setattr(t, "value", f"pressed in {os.getpid()}, torch {\'torch\' in sys.modules}"))\ndisplay(b, t)')],
                                  metadata={'kernelspec': {'name': 'gekko', 'display_name': 'gekko', 'language': 'python'}})
    nbformat.write(nb, tmp_path / 'page.ipynb')
    with server(tmp_path, 'voila', 'page.ipynb', '--no-browser', '--port={port}', '--Voila.ip=127.0.0.1') as url:
        page = browser.new_page()
        page.goto(url)
        page.get_by_role('button', name='more').click(timeout=LOUD * 1000)
        page.get_by_text('torch True').wait_for(timeout=LOUD * 1000)
        [pid] = until(forked, 'the kernel of the page')
        assert f'pressed in {pid}' in page.inner_text('body')
        page.close()
