"""`%load_ext gekko` in a real kernel: cells that become jobs on a real desk, and what the notebook gets back."""
from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from desk_stage import environ, settings_of, tidy, wait_for
from jupyter_client.manager import start_new_kernel

from gekko.ledger.runs import Runs

DEFINED = """%load_ext gekko
from gekko.api import open_run, rolling_mean, trade
days = 20      # length of the mean
def weights(bars): return (bars.close > rolling_mean(bars.close, days))*0.9"""
TRADED = """run = open_run('SP500', mode=mode, start='2018-10-01', window=days)
result = trade(run, weights)"""


class Kernel:
    """A kernel, and what its cells gave."""

    def __init__(self, manager: Any, client: Any) -> None: self.manager, self.client = manager, client

    def send(self, code: str) -> str: return str(self.client.execute(code))

    def heard(self, asked: str) -> dict[str, Any]:
        """All that the cell gave: text, pages (the last word of each display), the error."""
        said: dict[str, Any] = {'text': '', 'html': [], 'plain': [], 'error': None, 'trace': ''}
        shown: dict[str, int] = {}
        while True:
            m = self.client.get_iopub_msg(timeout=120)
            if m['parent_header'].get('msg_id') != asked: continue
            kind, c = m['msg_type'], m['content']
            if kind == 'status' and c['execution_state'] == 'idle': return said
            if kind == 'stream': said['text'] += c['text']
            if kind == 'error': said['error'], said['trace'] = f'{c["ename"]}: {c["evalue"]}', re.sub(r'\x1b\[[0-9;]*m', '', '\n'.join(c['traceback']))
            if kind not in ('display_data', 'execute_result', 'update_display_data'): continue
            key = c.get('transient', {}).get('display_id', f'own-{len(said["html"])}')
            if kind == 'update_display_data':
                if key not in shown: continue      # of a job in the background, whose cell is over
                said['html'][shown[key]], said['plain'][shown[key]] = c['data'].get('text/html', ''), c['data'].get('text/plain', '')
            else:
                shown[key] = len(said['html'])
                said['html'].append(c['data'].get('text/html', ''))
                said['plain'].append(c['data'].get('text/plain', ''))

    def run(self, code: str) -> dict[str, Any]: return self.heard(self.send(code))
    def value(self, expression: str) -> Any:
        said = self.run(f'print(repr({expression}))')
        assert said['error'] is None, said['trace']
        return eval(said['text'])


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Path]]:
    folder = tmp_path_factory.mktemp('magic')
    with tidy(folder / 'home') as home:
        manager, client = start_new_kernel(kernel_name='python3', cwd=str(folder), env=environ(home, JPY_SESSION_NAME=str(folder / 'first look.ipynb')))
        kernel = Kernel(manager, client)
        said = kernel.run(DEFINED)
        assert said['error'] is None, said['trace']
        yield kernel, home
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_cell_is_a_job_with_a_record(stage: tuple[Kernel, Path]) -> None:
    kernel, home = stage
    looked = kernel.run(f"mode = 'backtest'\n{TRADED.replace('result', 'tested')}\nassert len(run.market.bars) > days and weights(run.market.bars).any()")
    assert looked['error'] is None, looked['trace']
    said = kernel.run(f'%%paper -p days 10\n{TRADED}')
    assert said['error'] is None, said['trace']
    record = Runs(settings_of(home).ledger).list(limit=1)[0]
    assert (record.mode, record.state, record.params) == ('paper', 'done', {'mode': 'paper', 'days': 10})
    assert record.run_id.split('-', 1)[1].startswith('first-look-cell-')
    assert kernel.value('(result.run_id, str(result.final_equity))') == (record.run_id, record.metrics['equity'])
    assert record.run_id in said['html'][-1] and 'executed.ipynb' in said['html'][-1] and f'{float(record.metrics["equity"]):,.0f}'[:5] in said['html'][-1]
    assert len(said['html']) <= 2, 'a bar that ended as one line, and the record'
    assert kernel.value('days') == 20, 'the job has its own names'
    executed = Path(record.executed).read_text()
    assert 'days = 20      # length of the mean' in executed and 'load_ext' not in executed and 'tested' not in executed, 'what only looked at the strategy stays behind'


def test_lists_of_facts_are_tables(stage: tuple[Kernel, Path]) -> None:
    kernel, home = stage
    said = kernel.run('result.fills')
    n = kernel.value('len(result.fills)')
    assert said['html'][0].count('<tr>') == min(n, 24) + 1 + (n > 24) and said['plain'][0].splitlines()[0].split()[:3] == ['UTC', 'side', 'symbol']
    assert kernel.run('[1, 2]')['html'] == [''] and kernel.run('(result,)')['html'] == ['']
    said = kernel.run('%runs 2')
    assert said['html'][0].count('<tr>') == 2 and 'paper' in said['plain'][0]
    newest = Runs(settings_of(home).ledger).list(limit=1)[0].run_id
    assert newest in kernel.run(f'%runs {newest[-4:]}')['html'][0]
    assert 'no such run' in kernel.run('%runs nothing-like-it')['error']


def test_a_job_in_the_background_trades_as_a_backtest_does(stage: tuple[Kernel, Path]) -> None:
    kernel, _ = stage
    kernel.run("mode = 'backtest'")
    assert kernel.run(f'%%paper --background --as job\n{TRADED}')['error'] is None
    assert kernel.run(TRADED)['error'] is None
    assert kernel.value('job.wait(120)') is True
    assert kernel.value('(job.error, job.record.state, len(job.result.times) > 10)') == (None, 'done', True)
    assert kernel.value('result.equity == job.result.equity and [f.price for f in result.fills] == [f.price for f in job.result.fills]') is True


@pytest.mark.parametrize('cell, words', [
    ('%%paper\nrun = open_run(symbols, mode=mode)', 'found symbols (for the cell)'),
    ('%%paper --alone\nrun = open_run("SP500", mode=mode)', 'open_run (for the cell)'),
    ('%%paper -p dayz 3\n' + TRADED, 'did you mean days?'),
    ('%%paper -p days many\n' + TRADED, "parameter days: expected int, found 'many'"),
    ('%%paper --foreground\n' + TRADED, '--background   go on at once'),
    ('%%paper\nrun = open_run(', 'not Python'),
])
def test_what_cannot_be_run_is_refused_in_few_words(stage: tuple[Kernel, Path], cell: str, words: str) -> None:
    said = stage[0].run(cell)
    assert said['error'] is not None and words in said['error'] + said['trace']
    assert 'apart.py' not in said['trace'] and 'magic.py' not in said['trace'] and len(said['trace'].splitlines()) < 25


def test_a_name_that_no_cell_made_is_refused(stage: tuple[Kernel, Path]) -> None:
    kernel, _ = stage
    kernel.run("exec('hidden = 1')")
    assert 'hidden' in kernel.run(f'%%paper\nprint(hidden)\n{TRADED}')['error']
    assert kernel.run('hidden = 1\nbroken = 1/0')['error'], 'a cell that failed made nothing'
    assert 'hidden' in kernel.run(f'%%paper\nprint(hidden)\n{TRADED}')['error']


def test_an_error_of_the_cell_is_shown_with_its_line(stage: tuple[Kernel, Path]) -> None:
    kernel, home = stage
    said = kernel.run("%%paper\nrun = open_run('SP500', mode=mode, start='2018-10-01', window=days)\nfor bars in run: run.target({'SP500': 1/0})")
    assert 'ZeroDivisionError' in said['error'] and '1/0' in said['trace'] and 'runner.py' not in said['trace']
    record = Runs(settings_of(home).ledger).list(limit=1)[0]
    assert record.state in ('failed', 'killed') and record.run_id in said['html'][-1]


def test_an_interrupt_stops_the_job_by_its_policy(stage: tuple[Kernel, Path], tmp_path: Path) -> None:
    kernel, home = stage
    asked = kernel.send(f"""%%paper
import time
from pathlib import Path
run = open_run('SP500', mode=mode, start='2018-01-01', window=10, policy='flatten')
for n, bars in enumerate(run):
    run.target({{'SP500': 0.5}})
    if n == 3:
        Path({str(tmp_path / 'third')!r}).touch()
        time.sleep(600)""")
    wait_for(lambda: (tmp_path / 'third').exists(), 'the third bar', 120)
    kernel.manager.interrupt_kernel()
    said = kernel.heard(asked)
    record = Runs(settings_of(home).ledger).list(limit=1)[0]
    assert record.state == 'killed' and signal.SIGTERM.name in record.exit_reason and said['error'] is not None and 'SIGTERM' in said['error']
    assert kernel.value('(result.run_id, len(result.fills) > 0, result.positions())') == (record.run_id, True, {})
