"""The gate as `gekko promote` asks it: noise picked as the best of a thousand is refused, under whatever name; a drift is noticed, and chance is not."""
from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from gekko.cli.promote import demote_here, promote_here
from gekko.desk.config import Settings, load_settings
from gekko.desk.promotions import promote, read_promotions
from gekko.desk.result import Result, encode_result
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, SystemClock
from gekko.jobs.evidence import case_of, of_overfit, trials_of
from gekko.jobs.promoting import lapsed
from gekko.jobs.subject import Subject, read_subject
from gekko.ledger.promotions import Promoted
from gekko.ledger.runs import RunRecord, Runs
from gekko.research.stats import Floats
from gekko.research.trials import Trials, trial, trials_url

TRIALS, ROWS = 1_000, 600
QUICK = {'GEKKO_PROMOTION_RULES': 'reps=200,blocks=8'}      # fewer draws and halvings: the thresholds stay


def rule(folder: Path, name: str = 'rule') -> Path:
    cells = ["symbols = ['SP500']\nstart = '2015-01-01'\nfast = 20", 'print(fast)']
    path = folder / f'{name}.ipynb'
    path.write_text(json.dumps({'cells': [{'cell_type': 'code', 'id': f'c{n}', 'metadata': {'tags': ['parameters']} if n == 0 else {}, 'source': x, 'outputs': [], 'execution_count': None} for n, x in enumerate(cells)], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}))
    return path


def backtested(settings: Settings, s: Subject, returns: Floats, pick: int, family: str = '') -> None:
    """The trials of every column, the run of the one that was picked, and its promotion to backtest."""
    days = np.arange(len(returns)) * DAY
    made = [trial(family or s.name, {**s.params, 'fast': 1000 + k} if k != pick else s.params, days, returns[:, k], periods=252, code=s.code, source=f'{s.notebook.stem}-{k}', trades=200) for k in range(returns.shape[1])]
    Trials(trials_url(settings.ledger)).add(made)
    Runs(settings.ledger).put(RunRecord(f'{s.notebook.stem}-{pick}', '', str(s.notebook), 'backtest', 'backtest', 'done', s.params, notebook_hash=s.code, lock_hash=s.lock, metrics={'bars': len(returns)}, created=5))
    promote(settings.ledger, SystemClock(), Promoted(s.digest, s.key, s.name, 'backtest', 'carl', 'carl', 'a step', s.as_data(), [{'name': 'leaks', 'ok': True}]))


@pytest.mark.parametrize('seed', range(3))
def test_noise_picked_as_the_best_of_a_thousand_is_refused(tmp_path: Path, seed: int) -> None:
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    path = rule(tmp_path)
    s = read_subject(path, {}, settings)
    r = np.random.default_rng(seed).normal(0, 0.01, (ROWS, TRIALS))
    backtested(settings, s, r, int(np.argmax(r.mean(0) / r.std(0))))
    said = promote_here(settings, path, {}, 'paper', 'the best of all')
    assert said['state'] == 'refused' and {'luck', 'deflated Sharpe'} <= {i['name'] for i in said['lacking']}
    assert read_promotions(settings.ledger).stage(s.digest) == 'backtest'


def test_another_name_is_no_clean_slate(tmp_path: Path) -> None:
    """The trials of the same code count under whichever name they were made."""
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    s = read_subject(rule(tmp_path, 'fresh_start'), {}, settings)
    r = np.random.default_rng(9).normal(0, 0.01, (ROWS, 200))
    pick = int(np.argmax(r.mean(0) / r.std(0)))
    backtested(settings, s, r, pick, family='rule')
    needs = {n.item.name: n.item for n in of_overfit(case_of(s, settings))}
    assert not needs['luck'].ok and needs['luck'].value > 0.02


def test_the_best_of_a_sweep_as_another_notebook_is_no_clean_slate(tmp_path: Path) -> None:
    """Other code under another name, half the size: what it earned was found by trying the first."""
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    swept, s = read_subject(rule(tmp_path, 'swept'), {}, settings), read_subject(rule(tmp_path, 'fresh_start'), {}, settings)
    r = np.random.default_rng(9).normal(0, 0.01, (ROWS, 200))
    pick = int(np.argmax(r.mean(0) / r.std(0)))
    backtested(settings, replace(swept, code='0' * 64), r, pick)
    backtested(settings, s, r[:, [pick]] / 2, 0)
    assert len(trials_of(case_of(s, settings))[0]) > 200
    needs = {n.item.name: n.item for n in of_overfit(case_of(s, settings))}
    assert not needs['luck'].ok and needs['luck'].value > 0.02


def test_a_trial_that_somebody_wrote_is_held_to_what_was_earned(tmp_path: Path) -> None:
    """One that was noted before the backtest, under its key and with better returns, stands in the ledger of trials for good; the run's own result says otherwise."""
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    s = read_subject(rule(tmp_path), {}, settings)
    r = np.random.default_rng(2).normal(0.0025, 0.01, (ROWS, 1))
    backtested(settings, s, r, 0)
    assert not any('not what' in n.item.why for n in of_overfit(case_of(s, settings)))      # nothing to hold it to
    for what, seed in (('the same', 2), ('worse', 3)):
        moves = np.random.default_rng(seed).normal(0.0025, 0.01, (ROWS, 1))[:, 0] - (what == 'worse') * 0.0025
        equity = tuple(Decimal(f'{x:.9f}') for x in 1e6 * np.cumprod(np.concatenate([[1.0], 1 + moves])))
        times, folder = np.arange(-1, ROWS, dtype=np.int64) * DAY, tmp_path / what
        folder.mkdir()
        (folder / 'result.msgpack').write_bytes(encode_result(Result('r', '', 'rule', 'backtest', 'backtest', ('SP500',), '1d', 'USD', Decimal(10**6), times, equity, np.ones((ROWS + 1, 1)), (), (), (), '', 'finished')))
        Runs(settings.ledger).update('rule-0', executed=str(folder / 'executed.ipynb'))
        needs = of_overfit(case_of(s, settings))
        assert any('is not what rule-0 earned' in n.item.why and not n.ok for n in needs) is (what == 'worse'), needs[0].item.why


def test_a_digest_that_is_taken_back_takes_those_of_its_key_along(tmp_path: Path) -> None:
    """The same strategy was promoted on two histories: what runs is known by its key, so one that stood would let it run."""
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    s = read_subject(rule(tmp_path), {}, settings)
    for digest in ('a' * 64, 'b' * 64): promote(settings.ledger, SystemClock(), Promoted(digest, s.key, s.name, 'backtest', 'carl', 'carl', 'a step', s.as_data(), [{'name': 'leaks', 'ok': True}]))
    promote(settings.ledger, SystemClock(), Promoted('c' * 64, 'd' * 64, s.name, 'backtest', 'carl', 'carl', 'a step', s.as_data(), [{'name': 'leaks', 'ok': True}]))
    assert {d['digest'][0] for d in demote_here(settings, 'aaaa', 'research', 'a poor idea')} == {'a', 'b'}
    p = read_promotions(settings.ledger)
    assert p.at(s.key, 'backtest') is None and p.at('d' * 64, 'backtest') is not None


def test_skill_is_let_through_and_a_rest_is_told(tmp_path: Path) -> None:
    """So that the gate is no wall: an edge of four a year over eight years among a hundred passes; a strategy that never traded is told so."""
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    s = read_subject(rule(tmp_path), {}, settings)
    r = np.random.default_rng(2).normal(0, 0.01, (2_000, 100))
    r[:, 7] += 0.0025
    backtested(settings, s, r, 7)
    assert all(n.ok for n in of_overfit(case_of(s, settings)))
    rested = replace(s, params={**s.params, 'fast': 999})
    backtested(settings, rested, np.zeros((ROWS, 1)), 0)
    (only,) = of_overfit(case_of(rested, settings))
    assert not only.ok and 'a trial that traded' in only.item.why or 'nothing can be told' in only.item.why


@pytest.mark.parametrize(('mean', 'falls'), [(0.0008, False), (0.0, False), (-0.004, True)], ids=['as promised', 'a poor month', 'another world'])
def test_a_drift_is_noticed_and_chance_is_not(tmp_path: Path, mean: float, falls: bool) -> None:
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), **QUICK}, None)
    (tmp_path / 'home').mkdir()
    s = read_subject(rule(tmp_path), {}, settings)
    facts = {**s.as_data(), 'earned': {'mean': 0.0008, 'deviation': 0.01, 'rows': 1000}}
    for to in ('backtest', 'paper'): promote(settings.ledger, SystemClock(), Promoted(s.digest, s.key, s.name, to, 'carl', 'carl', 'a step', facts, [{'name': 'leaks', 'ok': True}], rules={'drift': 4.0}))
    folder = tmp_path / 'run'
    folder.mkdir()
    equity = tuple(Decimal(f'{x:.2f}') for x in 1e6 * np.cumprod(1 + np.random.default_rng(1).normal(mean, 0.01, 120)))
    times = np.arange(120, dtype=np.int64) * DAY
    (folder / 'result.msgpack').write_bytes(encode_result(Result('r', '', 'rule', 'paper', 'paper-r', ('SP500',), '1d', 'USD', Decimal(10**6), times, equity, np.ones((120, 1)), (), (), (), '', 'finished')))
    Runs(settings.ledger).put(RunRecord('r', '', str(s.notebook), 'paper', 'paper-r', 'done', s.params, notebook_hash=s.code, lock_hash=s.lock, metrics={'bars': 120}, created=SystemClock().now(), executed=str(folder / 'executed.ipynb')))
    assert [x.rule for x in lapsed(settings, here=s.lock)] == (['drift'] if falls else [])


def test_rules_that_cannot_be_read_promote_nothing(tmp_path: Path) -> None:
    settings = load_settings({'GEKKO_HOME': str(tmp_path / 'home'), 'GEKKO_PROMOTION_RULES': 'luk=1'}, None)
    with pytest.raises(BadInput, match='GEKKO_PROMOTION_RULES'): promote_here(settings, rule(tmp_path), {}, 'backtest', 'why')
