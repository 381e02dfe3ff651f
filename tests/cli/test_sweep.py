"""`gekko sweep` as it is called: its words, its exit codes, its JSON, its page, and what it says to a person."""
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk_stage import STRATEGIES, environ, gekko, notebook, tidy
from typer.testing import CliRunner, Result

from gekko.cli.main import app, join_pairs
from gekko.cli.sweep import join_grid

MEAN = ("mode = 'backtest'\ndays = 50\nband = 0.02", 'from gekko.api import open_run, rolling_mean, trade',
        'def weights(bars): return (bars.close > rolling_mean(bars.close, days)) * 0.9\nrun = open_run("KO", mode=mode, start="2016-01-01", window=days, band=band, cash=100_000)\nresult = trade(run, weights)')


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with tidy(tmp_path_factory.mktemp('sweep') / 'home') as made:
        notebook(made.parent / 'mean.ipynb', *MEAN)
        yield made


def said(place: Path, words: str) -> Result:
    """The command in this process, with the words as a shell would have cut them."""
    return CliRunner().invoke(app, join_grid(join_pairs(['sweep', *words.split()])), env=environ(place))


def test_the_best_and_what_it_is_worth(place: Path, tmp_path: Path) -> None:
    done = gekko(place, 'sweep', 'mean.ipynb', '--grid', 'days=20:120:20', 'band=0.01:0.03:0.01', '--plots', tmp_path / 'page.html', cwd=place.parent)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    for word in ('mean: 18 combinations', 'neighbours have a median', 'halves', 'years', 'deflated Sharpe', 'the pick of 18 trials ever made of mean', 'gekko run mean.ipynb -p days', 'refused'): assert word in done.stdout, word
    assert (tmp_path / 'page.html').read_text().count('<img') == 3


def test_json_has_every_column(place: Path) -> None:
    done = said(place, f'{place.parent}/mean.ipynb --grid days=20:60:20 -p band 0.05 --json --on here')
    data = json.loads(done.stdout)
    assert done.exit_code == 0 and data['combinations'] == data['done'] == data['new_trials'] == 3 and [c['sharpe'] for c in data['columns']] == sorted((c['sharpe'] for c in data['columns']), reverse=True)
    assert data['best']['command'].endswith(f"-p band 0.05 -p days {data['best']['params']['days']}") and {'kind', 'held', 'edges'} <= data['plateau'].keys() and data['evidence']['trials'] >= 3
    again = json.loads(said(place, f'--resume {data["sweep"]} --json --by total_return').stdout)
    assert again['new_trials'] == 0 and again['by'] == 'total_return' and {c['trial'] for c in again['columns']} == {c['trial'] for c in data['columns']}


def test_a_sample_is_the_same_for_the_same_seed(place: Path) -> None:
    first, second = (json.loads(said(place, f'{place.parent}/mean.ipynb --grid days=10:200:1 band=0,0.01 --sample 6 --seed 3 --json --on here').stdout) for _ in range(2))
    assert first['combinations'] == 6 and first['new_trials'] >= 5 and second['new_trials'] == 0 and [c['params'] for c in first['columns']] == [c['params'] for c in second['columns']]


def test_trend_by_its_own_parameters(place: Path) -> None:
    done = said(place, f'{STRATEGIES}/trend.ipynb --grid lookback=64:256:64 half_life=16:48:16 -p start 2010-01-01 --json --on here')
    data = json.loads(done.stdout)
    assert data['done'] == 12 and not data['errors'] and all(c['how'] == 'fast' for c in data['columns'])


@pytest.mark.parametrize(('words', 'why'), [
    ('', 'a notebook, or --resume'), ('nowhere.ipynb --grid days=1,2', 'no such notebook'), ('HERE/mean.ipynb', 'an empty grid'), ('HERE/mean.ipynb --grid dais=1:5:1', 'did you mean days'),
    ('HERE/mean.ipynb --grid days=1:5:0', 'not zero'), ('HERE/mean.ipynb --grid days=a:b:c', 'three numbers'), ('HERE/mean.ipynb --grid days=2.5,3', 'int'), ('HERE/mean.ipynb --grid mode=paper,live', 'a sweep is of backtests'),
    ('HERE/mean.ipynb --grid days=1:2000 band=0:1:0.001', '1,000,000 combinations at most'), ('HERE/mean.ipynb --grid days=5,6 -p days 7', 'both'), ('HERE/mean.ipynb --grid days=5,6 -p mode live', 'mode'),
    ('HERE/mean.ipynb --grid days=5,6 --on moon', 'processes'), ('HERE/mean.ipynb --grid days=5,6 --by luck', 'sortino'), ('HERE/mean.ipynb --grid days=5,6 --sample -1', '--sample'), ('--resume 2026', 'no such sweep'),
    ('HERE/mean.ipynb --resume 2026', 'no notebook'), ('STRATEGIES/risk_report.ipynb --grid confidence=0.9,0.95', 'a report'), ('HERE/mean.ipynb --grid days=5,6 --workers -2', '--workers')])
def test_refused_with_what_was_expected(words: str, why: str, place: Path) -> None:
    """Exit code 2, and no sweep is begun."""
    before = sorted((place / 'sweeps').glob('*'))
    done = said(place, words.replace('HERE', str(place.parent)).replace('STRATEGIES', str(STRATEGIES)))
    assert done.exit_code == 2 and why in done.stderr and done.stdout == ''
    assert sorted((place / 'sweeps').glob('*')) == before
