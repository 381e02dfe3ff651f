"""`gekko promote`, `gekko demote` and `gekko promotions` as they are called: what is refused, with which code, and that nothing is written then."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from desk_stage import ON_SERVER, gekko, ledger_of, notebook, one_line

from gekko.desk.promotions import read_promotions
from gekko.ledger.promotions import STAGES


@pytest.fixture
def rule(home: Path) -> Path: return notebook(home.parent / 'rule.ipynb', "symbols = ['SP500']\nstart = '2015-01-01'\nlag = 1", 'print(lag)')


@pytest.mark.parametrize(('words', 'says'), [
    (('promote', 'none.ipynb', '--explain'), 'no such notebook'),
    (('promote', 'rule.ipynb', '-p', 'lagg', '1'), 'did you mean lag?'),
    (('promote', 'rule.ipynb', '--to', 'production', '--why', 'now'), 'backtest paper live'),
    (('promote', 'rule.ipynb', '--to', 'paper'), '--why'),
    (('promote', 'rule.ipynb', '--to', 'paper', '--why', 'now', '--key', 'nobody.pem'), 'an officer\'s key'),
    (('demote', 'rule.ipynb', '--to', 'live', '--why', 'now'), 'research backtest paper'),
    (('promotions', 'show', 'c0ffee'), 'no such promotion'),
], ids=['no notebook', 'unknown parameter', 'no stage', 'no reason', 'no key', 'up is not down', 'no digest'])
def test_what_cannot_be_is_2_and_changes_nothing(home: Path, rule: Path, words: tuple[str, ...], says: str) -> None:
    said = gekko(home, *words)
    assert said.returncode == 2 and says in said.stderr, said.stderr
    assert ON_SERVER or not (home / 'ledger.db').exists()


def test_the_screen_as_json_and_a_list_of_nothing(home: Path, rule: Path) -> None:
    """Everything a program needs: the stages in order, each item with its number, its threshold, and what to type."""
    said = one_line(gekko(home, 'promote', 'rule.ipynb', '--explain', '--json'))
    assert said['stage'] == 'research' and [s['to'] for s in said['steps']] == list(STAGES[1:]) and len(said['digest']) == 64
    assert all({'name', 'value', 'threshold', 'ok', 'why', 'command'} <= set(i) for s in said['steps'] for i in s['items'])
    assert {(m['to'], m['name']) for m in said['missing']} >= {('backtest', 'backtest'), ('backtest', 'leaks'), ('paper', 'luck'), ('live', 'parity'), ('live', 'second person')}
    assert one_line(gekko(home, 'promotions', 'list', '--json')) == []
    refused = gekko(home, 'promote', 'rule.ipynb', '--to', 'backtest', '--why', 'now')
    assert refused.returncode == 1 and 'not promoted to backtest' in refused.stdout and 'Next: gekko run rule.ipynb' in refused.stdout
    assert read_promotions(ledger_of(home)).seq == 0


def test_a_check_by_hand_is_evidence_and_a_broken_rule_is_told(home: Path) -> None:
    """What `gekko check leakage` finds is kept under the digest of just this notebook with these parameters."""
    notebook(home.parent / 'rule.ipynb', "symbols = ['SP500']\nstart = '2017-01-01'\nlag = 1", 'import numpy as np\nfrom gekko.api import open_run, trade',
             'def weights(bars):\n    return np.sign(bars.frame().pct_change().shift(lag).fillna(0.0))', 'run = open_run(symbols, start=start, window=5)\nresult = trade(run, weights)')
    assert gekko(home, 'check', 'leakage', 'rule.ipynb', '--seconds', '2', '-p', 'lag', '-1').returncode == 1
    leaks = {lag: next(i for i in one_line(gekko(home, 'promote', 'rule.ipynb', '--json', *(['-p', 'lag', lag] if lag else [])))['steps'][0]['items'] if i['name'] == 'leaks') for lag in ('', '-1')}
    assert leaks['']['missing'] and not leaks['-1']['missing'] and leaks['-1']['value'] >= 1 and not leaks['-1']['ok'] and 'future' in leaks['-1']['why']
    odd = gekko(home, 'promote', 'rule.ipynb', GEKKO_PROMOTION_RULES='parity=2')
    assert odd.returncode == 2 and 'GEKKO_PROMOTION_RULES: parity: expected a share' in odd.stderr
    assert gekko(home, 'doctor', GEKKO_PROMOTION='sometimes').returncode == 2
    assert json.loads(gekko(home, 'promotions', 'check', '--json').stdout) == []
