"""Bad input, as a user gives it: one clear line that says what was expected and what was found, exit code 2, and nothing changed."""
from __future__ import annotations

from pathlib import Path

import pytest
from desk_stage import STRATEGIES, bars, gekko, notebook, one_line, tree

PARAMETERS, BODY = "symbols = ['WALK']\nfast = 20\nband = 0.02\nnote = ''", 'fast'


def refused(home: Path, *words: object, says: tuple[str, ...], **env: str) -> None:
    """The command is refused with every one of `says` in its message, on stderr and as JSON, and the home is as before."""
    before = tree(home)
    plain = gekko(home, *words, **env)
    assert plain.returncode == 2, f'exit code {plain.returncode}\n{plain.stdout}\n{plain.stderr}'
    assert plain.stdout == '' and plain.stderr.count('\n') == 1 and plain.stderr.startswith('gekko: '), plain.stderr
    for said in says: assert said in plain.stderr, f'{said!r} is not in {plain.stderr!r}'
    data = one_line(gekko(home, *words, '--json', **env), code=2)
    assert (data['exit_code'], data['kind']) == (2, 'BadInput')
    assert tree(home) == before


@pytest.fixture
def here(home: Path, store: Path) -> Path:
    """A folder with a good notebook, whose home has the walks in its store."""
    notebook(home.parent/'good.ipynb', PARAMETERS, BODY)
    return home.parent


# Notebooks and parameters

def test_no_such_notebook(home: Path) -> None:
    refused(home, 'run', 'nowhere.ipynb', says=('no such notebook', 'expected a path to an .ipynb file', 'nowhere.ipynb'))


def test_not_a_notebook(home: Path, here: Path) -> None:
    (here/'broken.ipynb').write_text('{"cells": ')
    refused(home, 'run', 'broken.ipynb', says=('not a notebook', 'expected JSON in broken.ipynb'))


def test_a_stripped_tag(home: Path, here: Path) -> None:
    """What nbdev's clean once did to a strategy: it would run with its own defaults."""
    notebook(here/'stripped.ipynb', PARAMETERS, BODY, tagged=())
    refused(home, 'run', 'stripped.ipynb', '-p', 'fast', '50', says=('expected exactly one cell tagged "parameters"', 'found 0'))


def test_two_parameters_cells(home: Path, here: Path) -> None:
    notebook(here/'double.ipynb', PARAMETERS, PARAMETERS, tagged=(0, 1))
    refused(home, 'run', 'double.ipynb', says=('expected exactly one cell tagged "parameters"', 'found 2'))


@pytest.mark.parametrize(('words', 'says'), [
    (('-p', 'fsat', '50'), ('unknown parameter', 'did you mean fast?', 'found fsat')),
    (('-p', 'fast', 'many'), ('parameter fast', 'expected int', "found 'many'")),
    (('-p', 'fast', '1.5'), ('parameter fast', 'expected int')),
    (('-p', 'band', 'nan'), ('parameter band', 'expected a finite number')),
    (('-p', 'fast', '1', '-p', 'fast', '2'), ('parameter given twice', 'expected fast once')),
    (('-p', 'mode', 'live'), ('expected the mode as --mode',)),
    (('--mode', 'practice'), ('mode', 'expected backtest paper live', 'found practice')),
])
def test_parameters(home: Path, here: Path, store: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    refused(home, 'run', 'good.ipynb', *words, says=says, GEKKO_STORE=str(store))


def test_a_parameter_without_its_value(home: Path, here: Path) -> None:
    done = gekko(home, 'run', 'good.ipynb', '-p', 'fast')
    assert done.returncode == 2 and 'expected a name and a value, as -p fast 20' in done.stderr


def test_unknown_symbol(home: Path, here: Path, store: Path) -> None:
    refused(home, 'run', 'good.ipynb', '-p', 'symbols', 'WALKS', says=('WALKS', 'WALK'), GEKKO_STORE=str(store))


def test_an_unknown_symbol_of_a_shipped_strategy(home: Path) -> None:
    refused(home, 'run', STRATEGIES/'trend.ipynb', '-p', 'symbols', 'SP501', '--mode', 'paper', says=('SP501', 'SP500'))


def test_live_without_credentials(home: Path, here: Path, store: Path) -> None:
    refused(home, 'run', 'good.ipynb', '--mode', 'live', says=("live mode without a venue's credentials", 'expected', 'found none'), GEKKO_STORE=str(store))


# Data

def written(folder: Path, name: str, text: str) -> Path:
    (folder/name).write_text(text)
    return folder/name


HEAD = 'time,open,high,low,close,volume\n'
ROW = '2024-01-02T00:00:00Z,10,11,9,10.5,3\n'


@pytest.mark.parametrize(('name', 'text', 'says'), [
    ('empty.csv', '', ('empty',)),
    ('header.csv', HEAD, ('row',)),
    ('timeless.csv', 'open,high,low,close\n1,2,0.5,1.5\n', ('time',)),
    ('nan.csv', HEAD + ROW + '2024-01-02T00:01:00Z,10,11,9,nan,3\n', ('close',)),
    ('zero.csv', HEAD + ROW + '2024-01-02T00:01:00Z,10,11,0,10,3\n', ('low',)),
    ('twice.csv', HEAD + ROW + ROW, ('2024-01-02',)),
    ('words.csv', HEAD + '2024-01-02T00:00:00Z,ten,11,9,10.5,3\n', ('ten',)),
    ('noise.parquet', 'this is not Parquet', ('noise.parquet',)),
])
def test_files_that_are_not_bars(home: Path, name: str, text: str, says: tuple[str, ...]) -> None:
    written(home.parent, name, text)
    refused(home, 'data', 'import', name, '--symbol', 'X', '--bar', '1m', says=(*says, 'expected', 'found'))


def test_no_such_file(home: Path) -> None:
    refused(home, 'data', 'import', 'nowhere.csv', '--symbol', 'X', '--bar', '1m', says=('nowhere.csv',))


def test_a_bar_that_is_none(home: Path) -> None:
    written(home.parent, 'good.csv', HEAD + ROW)
    refused(home, 'data', 'import', 'good.csv', '--symbol', 'X', '--bar', 'soon', says=("found 'soon'",))


def test_a_store_that_cannot_be_written(home: Path) -> None:
    written(home.parent, 'good.csv', HEAD + ROW)
    written(home.parent, 'store', 'a file where a folder should be')
    refused(home, 'data', 'import', 'good.csv', '--symbol', 'X', '--bar', '1m', says=('expected', 'found'), GEKKO_STORE=str(home.parent/'store'))


def test_a_refused_file_leaves_the_series_as_it_was(home: Path) -> None:
    bars(rows=20).to_parquet(home.parent/'good.parquet')
    assert gekko(home, 'data', 'import', 'good.parquet', '--symbol', 'X', '--bar', '1m').returncode == 0
    held = one_line(gekko(home, 'data', 'list', '--json'))
    twice = bars(rows=20, start='2024-01-03')
    twice.loc[5, 'close'] = float('nan')
    twice.to_parquet(home.parent/'bad.parquet')
    refused(home, 'data', 'import', 'bad.parquet', '--symbol', 'X', '--bar', '1m', says=('close',))
    assert one_line(gekko(home, 'data', 'list', '--json')) == held


# Settings and questions

@pytest.mark.parametrize(('name', 'value'), [('GEKKO_HEARTBEAT_S', '0'), ('MAX_POSITIONS', 'many'), ('CONFIDENCE_THRESHOLD', '1.7'), ('LOG_LEVEL', 'loud'), ('TRADING_PLATFORMS', 'oanda,ftx')])
def test_a_setting_out_of_range(home: Path, name: str, value: str) -> None:
    refused(home, 'runs', 'list', says=(f'setting {name}', 'expected', 'found'), **{name: value})


@pytest.mark.parametrize('words', [('runs', 'show', 'nothing'), ('runs', 'rerun', 'nothing'), ('runs', 'diff', 'a', 'b'), ('ledger', 'show', 'nobody'), ('desk', 'status', '--desk', 'nobody'),
                                   ('bench', 'luck'), ('data', 'check', 'NOTHING')])
def test_questions_about_what_is_not_there(home: Path, words: tuple[str, ...]) -> None:
    refused(home, *words, says=('expected', 'found'))
