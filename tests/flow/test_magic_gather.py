"""What a cell that becomes a job takes along of the cells before it: what defines or changes what it needs, and nothing that only looks at it."""
from __future__ import annotations

import pytest

from gekko.domain.errors import BadInput
from gekko.jobs.gather import Ran, job_notebook

DEFINED = """import numpy as np, random
import matplotlib.pyplot as plt
from gekko.api import explore, open_run, report, rolling_mean, trade
from gekko.research.columns import many
from gekko.research.fast import backtest
days = 20
params = {'size': 0.9}
def weights(bars): return np.where(bars.close > rolling_mean(bars.close, days), params['size'], 0.0)"""
CELL = """run = open_run('SP500', mode=mode, window=days)
trade(run, weights)"""


def job(*cells: str, cell: str = CELL) -> str:
    """The code of the job."""
    ran = [Ran(str(k), c) for k, c in enumerate([DEFINED, *cells])]
    return '\n'.join(c['source'] for c in job_notebook(ran, cell)['cells'][1:])


@pytest.mark.parametrize('looked', [
    'np.testing.assert_allclose(params["size"], 0.9)',
    'np.log(days)',
    'worth = np.cumsum([days])',
    'plt.plot([days], [params["size"]])',
    'plt.figure()\nplt.hist(params.values())',
    'fig2, axes = plt.subplots(1, 2)\naxes[0].plot([days])\naxes[1].axhline(params["size"])',
    'assert weights(bars).shape == bars.close.shape and params.get("size") < 1',
    'print(days, params)\ndisplay(params)',
    'params["size"]\nparams.items()\nlen(params)',
    'bars = load()\nquick = backtest(bars, weights, window=days)\nreport(quick, params)',
    'backtest(bars, weights)\nexplore(weights, bars, params)\nmany(bars, weights, params)',
    'for name, d in (("a", days), ("b", 3)):\n    print(name, np.sqrt(d), weights(bars).mean())',
    'with plt.style.context("x"):\n    fig, ax = plt.subplots()\n    ax.plot(weights(bars))',
    'def show(x): print(x.mean())\nshow(params)\nsaid = show(weights(bars))',
    '[days for days in range(3)]',
    'print(params.unheard_of(), f"{params.anything(3)}")',
    'quick, held = (backtest(bars, s) for s in (weights, lambda b: b.close))',
])
def test_what_only_uses_a_name_stays_behind(looked: str) -> None:
    assert job('bars = 1', looked) == job()


@pytest.mark.parametrize('traded', [
    "run = open_run('SP500', mode=mode)\ntested = trade(run, weights)",
    "run = open_run('SP500', mode='backtest')\nfor bars in run: run.target({'SP500': params['size']})\nresult = run.finish()",
    "run = open_run('SP500', mode=mode)\ntested = trade(run, weights)\nassert backtest(run.market, weights).equity == tested.equity\nquick = backtest(run.market, weights)",
    "run = open_run('SP500', mode=mode)\ndef go(r, **given): return trade(r, weights)\nparams.update(worth=go(run).final_equity)",
    "from gekko.api import trade as go\ngo(open_run('SP500'), params.update(a=1))",
])
def test_an_earlier_run_stays_behind(traded: str) -> None:
    assert job(traded) == job()


def test_a_model_that_is_asked_is_not_changed_by_it() -> None:
    network = 'network = open_model("fear")\ndef weights(bars): return network.over(bars)'
    assert job(network.replace('network =', 'from gekko.desk.models import open_model\nnetwork ='), 'quick = backtest(bars, weights)\nfor b in (1, 2): weights(b)\nearly = weights(3)\nassert network.over(1)') \
        == job(network.replace('network =', 'from gekko.desk.models import open_model\nnetwork ='))


@pytest.mark.parametrize('change', [
    'params.update(size=0.5)',
    'params["size"] = 0.5',
    'params["size"] *= 0.5',
    'params |= {"size": 0.5}',
    'old = params.pop("size")',
    'for k in range(3): params[k] = k',
    'def fill(d, v): d["size"] = v\nfill(params, 0.5)',
    'def fill(d, v): d["size"] = v\ndef fill_all(ds, v): return fill(ds, v)\ndone = fill_all(v=1, ds=params)',
    'def smaller(): params["size"] = 0.1\nsmaller()',
    'random.shuffle(params)',
    'if days > 3: params["size"] = 0.5',
    'params.unheard_of()',
    'known = params.unheard_of()',
])
def test_what_changes_a_name_comes_along(change: str) -> None:
    assert change.splitlines()[-1] in job(change)


@pytest.mark.parametrize('before, seed', [
    ('', 'np.random.seed(7)'),
    ('', 'random.seed(7)'),
    ('import torch\nfrom torch import nn', 'torch.manual_seed(7)'),
    ('', 'from numpy.random import seed\nseed(7)'),
    ('', 'np.seterr(all="raise")'),
    ('import sys, torch.nn as nn', 'sys.path.insert(0, "lib")'),
])
def test_a_seed_and_a_setting_come_along(before: str, seed: str) -> None:
    assert seed.splitlines()[-1] in job(before or 'a = 1', seed, cell='random.random()\n' + ('nn.Linear(1, 1)\n' if before else '') + CELL)


def test_a_list_and_a_generator_that_moved_on_come_along() -> None:
    assert job('rng = np.random.default_rng(1)\nnames = []', 'names.append("SP500")', 'noise = rng.normal(size=3)', cell='print(names, rng.normal())\n' + CELL).count('rng.normal') == 2
    assert 'names.append' in job('names = []', 'names.append("SP500")', cell='print(names)\n' + CELL)


def test_a_backtest_whose_result_the_cell_uses_comes_along() -> None:
    assert 'swept = many(bars' in job('bars = 1\nswept = many(bars, weights, {})', 'best = swept.best()', cell='print(best)\n' + CELL)


@pytest.mark.parametrize('cell', ['trade(run, weights)', 'print(close)\n' + CELL, 'print(tested.fees)\n' + CELL])
def test_a_cell_that_needs_an_earlier_run_is_refused(cell: str) -> None:
    with pytest.raises(BadInput, match='opens and trades a run of its own.*of an earlier run'):
        job('run = open_run("SP500", mode=mode)\nclose = run.market', 'tested = trade(run, weights)', cell=cell)


def test_a_run_that_is_opened_in_a_function_is_the_jobs_own() -> None:
    made = job('def go(): return trade(open_run("SP500", mode=mode), weights)\ntested = go()', cell='go()')
    assert 'def go' in made and 'tested' not in made


def test_a_thing_that_finishes_is_not_taken_for_a_run() -> None:
    assert 'table = made.finish()' in job('made = object()\ntable = made.finish()', cell='print(table)\n' + CELL)
