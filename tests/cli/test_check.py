"""`gekko check leakage` as it is called: exit codes, JSON, parameters, and what is refused."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RULE = ("symbols = ['SP500']\nstart = '2015-01-01'\nlag = 1", 'import numpy as np\nfrom gekko.api import open_run, trade',
        'def weights(bars):\n    moves = bars.frame().pct_change()\n    signal = moves.shift(lag)\n    return np.sign(signal.fillna(0.0))', 'run = open_run(symbols, start=start, window=5)\nresult = trade(run, weights)')


def write(path: Path, *cells: str, tagged: bool = True) -> Path:
    made = [{'cell_type': 'code', 'id': f'c{k}', 'source': s, 'metadata': {'tags': ['parameters']} if tagged and k == 0 else {}, 'outputs': [], 'execution_count': None} for k, s in enumerate(cells)]
    path.write_text(json.dumps({'cells': made, 'metadata': {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}}, 'nbformat': 4, 'nbformat_minor': 5}))
    return path


def check(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = 'from gekko.cli.main import main; main()'
    env = {**os.environ, 'GEKKO_HOME': str(tmp_path / 'home')}
    return subprocess.run([sys.executable, '-c', code, 'check', 'leakage', *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)


def test_clean_is_0_and_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / 'rule.ipynb', *RULE)
    before = path.read_bytes()
    said = check(tmp_path, 'rule.ipynb', '--seconds', '3', '--json')
    report = json.loads(said.stdout)
    assert said.returncode == 0, said.stderr
    assert report['clean'] and not report['leaks'] and report['tests']['prefix'] >= 10
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir() if p.name != 'home') == ['rule.ipynb']


def test_a_leak_is_1_and_named(tmp_path: Path) -> None:
    write(tmp_path / 'rule.ipynb', *RULE)
    said = check(tmp_path, 'rule.ipynb', '-p', 'lag', '-1', '--seconds', '3', '--json')
    leak = json.loads(said.stdout)['leaks'][0]
    assert said.returncode == 1
    assert (leak['kind'], leak['column'], leak['cell'], leak['number'], leak['line'], leak['ahead']) == ('future', "signal['SP500']", 'c2', 2, 3, 1)
    assert leak['time'].startswith('2015-01-0') and leak['source'] == ['SP500.close'] and leak['code'] == 'signal = moves.shift(lag)'


def test_the_words_for_a_person(tmp_path: Path) -> None:
    write(tmp_path / 'rule.ipynb', *RULE)
    said = check(tmp_path, 'rule.ipynb', '-p', 'lag', '-1', '--seconds', '3')
    assert said.returncode == 1 and "future: signal['SP500'] in cell 2 (c2) line 3" in said.stdout and 'from SP500.close, 1 bar ahead' in said.stdout


@pytest.mark.parametrize(('cells', 'words', 'says'), [
    (RULE, ('none.ipynb',), 'no such notebook'),
    (RULE, ('rule.ipynb', '-p', 'lagg', '1'), 'did you mean lag?'),
    (RULE, ('rule.ipynb', '-p', 'lag', 'often'), 'parameter lag'),
    (RULE, ('rule.ipynb', '--seconds', '0'), '--seconds'),
    (('x = 1', 'y = 2'), ('rule.ipynb',), 'the notebook trades nothing'),
    (('x = 1', 'y = = 2'), ('rule.ipynb',), 'cell 1 is not Python'),
    ((RULE[0], RULE[1], 'weights = 1 / 0', RULE[3]), ('rule.ipynb',), 'ZeroDivisionError'),
], ids=['no notebook', 'unknown parameter', 'wrong type', 'no time', 'no trade', 'no Python', 'fails'])
def test_what_cannot_be_tried_is_2(tmp_path: Path, cells: tuple[str, ...], words: tuple[str, ...], says: str) -> None:
    write(tmp_path / 'rule.ipynb', *cells)
    said = check(tmp_path, *words)
    assert said.returncode == 2 and says in said.stderr, said.stderr


def test_a_sketch_without_a_run_is_given_one(tmp_path: Path) -> None:
    write(tmp_path / 'rule.ipynb', "symbols = ['SP500']", 'import numpy as np', 'def weights(bars): return np.sign(bars.close - bars.close.mean())', tagged=False)
    said = check(tmp_path, 'rule.ipynb', '--seconds', '3', '--json')
    assert said.returncode == 1 and json.loads(said.stdout)['leaks'][0]['number'] == 2


def test_every_backtest_counts_and_no_paper_run_does(tmp_path: Path) -> None:
    """Three backtests are three trials, one of them made again is none more, and the best of a few coins is refused."""
    write(tmp_path / 'rule.ipynb', "mode = 'backtest'\n" + RULE[0], *RULE[1:3], RULE[3].replace('symbols,', 'symbols, mode=mode,'))

    def gekko(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, '-c', 'from gekko.cli.main import main; main()', *words], cwd=tmp_path, env={**os.environ, 'GEKKO_HOME': str(tmp_path / 'home')}, capture_output=True, text=True, timeout=120)
    none = gekko('check', 'overfit', 'rule.ipynb')
    assert none.returncode == 2 and 'gekko run rule.ipynb' in none.stderr
    made = [json.loads(gekko('run', 'rule.ipynb', '-p', 'lag', str(k), '--json').stdout) for k in (1, 2, 3)]
    runs = [m['run_id'] for m in made]
    assert {m['state'] for m in made} == {'done'}, made
    again = gekko('runs', 'rerun', runs[0], '--json')
    assert again.returncode == 0, again.stdout + again.stderr
    assert gekko('run', 'rule.ipynb', '--mode', 'paper', '--json').returncode == 0
    said = gekko('check', 'overfit', 'rule.ipynb', '--run', runs[1], '--json')
    found = json.loads(said.stdout)
    assert said.returncode == 1 and found['trials'] == 3 and not found['passed'] and 'luck' in found['failed'] and 1 <= found['worth'] <= 3
    assert gekko('check', 'overfit', 'rule.ipynb', '--run', 'nobody').returncode == 2
