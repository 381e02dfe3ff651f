"""A notebook in a kernel of its own, cell by cell, with nobody but a person to run it: no runner, no context."""
import json
import os
import re
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from desk_stage import LADDER, STRATEGIES, alive, desk_of, environ, held, launch, ledger_of, sound_book, status_of, wait_for
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from gekko.desk.serve import find_desks
from gekko.ledger.journal import accounts

Kernel = tuple[KernelManager, BlockingKernelClient]


@pytest.fixture
def kernel(home: Path, store: Path) -> Iterator[Kernel]:
    """A kernel as JupyterLab starts it, in the strategies' folder."""
    manager, client = start_new_kernel(kernel_name='python3', env=environ(home, GEKKO_STORE=str(store), GEKKO_LINGER_S='4'), cwd=str(STRATEGIES))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(kernel: Kernel, source: str) -> str:
    """Run one cell; what it shows, as text. An error in the cell is an error here."""
    shown: list[str] = []
    def hear(message: dict[str, dict[str, object]]) -> None:
        content = message['content']
        shown.append(str(content.get('text') or content.get('data') or ''))
    reply = kernel[1].execute_interactive(source, timeout=60, output_hook=hear)
    assert reply['content']['status'] == 'ok', reply['content']
    return ''.join(shown)


def first(kernel: Kernel, start: str) -> str:
    """The first strategy on paper, its cells one after another."""
    cells = [''.join(c['source']) for c in json.loads((STRATEGIES / 'first.ipynb').read_text())['cells'] if c['cell_type'] == 'code']
    return ''.join(execute(kernel, c) for c in (cells[0], f"mode, start = 'paper', '{start}'", *cells[1:]))


def test_a_desk_is_started_used_again_and_leaves(home: Path, kernel: Kernel) -> None:
    shown = first(kernel, '2018-01-01')
    desk = desk_of(home, 'hand-')
    assert status_of(home).state == 'ended'
    (account,) = accounts(ledger_of(home))
    book = sound_book(home, account)
    assert book.fills and f'{book.equity:,.2f} USD' in re.sub(r'<[^>]+>', '', shown)
    assert not [f.client_id for f in book.fills if f.client_id in shown] and 'ipc://' not in shown

    first(kernel, '2018-06-01')
    assert desk_of(home)['pid'] == desk['pid'], 'the desk that was free is used again'
    assert len(accounts(ledger_of(home))) == 2

    wait_for(lambda: not alive(desk['pid']), 'the desk to leave once nobody needs it')
    assert kernel[0].is_alive() and not list((home / 'desks').iterdir())


def test_a_standing_desk_is_used_and_survives_the_kernel(home: Path, kernel: Kernel, tmp_path: Path) -> None:
    standing = launch(home, 'desk', 'serve', '--name', 'standing', '--json')
    try:
        assert standing.stdout is not None and 'standing' in standing.stdout.readline()
        pid = int(execute(kernel, 'import os; print(os.getpid())'))
        execute(kernel, LADDER[0])
        execute(kernel, f"mode, stop_at, pulse, go = 'paper', 50, {str(tmp_path / 'pulse')!r}, {str(tmp_path / 'go')!r}")
        kernel[1].execute(LADDER[1])
        wait_for((tmp_path / 'pulse').exists, 'the notebook half way')
        said = status_of(home)
        assert (said.name, said.state, said.row, said.positions) == ('standing', 'trading', 51, {'WALK': Decimal(10 + 49 % 7)})
        os.kill(pid, signal.SIGKILL)
        said = wait_for(lambda: s if (s := status_of(home)).state == 'ended' else None, 'the desk to end the run')
        assert said.positions == {} and 'the notebook fell silent' in said.reason
        assert [c['name'] for c in find_desks(home)] == ['standing'] and standing.poll() is None
        book = sound_book(home)
        assert held(book) == {} and next(iter(book.runs.values())).policy.policy == 'flatten'
    finally:
        standing.terminate()
        assert standing.wait(20) == 0
