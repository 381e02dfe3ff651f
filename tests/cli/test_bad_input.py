"""Whatever cannot be used is refused before anything is touched: exit code 2, what was expected, what was found, and not a file changed."""
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import pandas as pd
import pytest
from desk_stage import LADDER, ON_SERVER, STRATEGIES, at_once, bars, gekko, ladder, ledger_of, make_store, notebook, one_line, runs_of, tree

from gekko.ledger.journal import accounts
from gekko.ledger.runs import RunRecord, Runs


class Case(NamedTuple):
    """Words of a command, and what its refusal must say; `make` puts a file into the folder first, `env` is for that command alone."""
    words: str
    says: tuple[str, ...]
    make: Callable[[Path], object] = lambda folder: None
    env: dict[str, str] = {}


def table(text: str) -> Callable[[Path], object]: return lambda folder: (folder / 'prices.csv').write_text(text)
def cells(*sources: str, tagged: tuple[int, ...] = (0,)) -> Callable[[Path], object]: return lambda folder: notebook(folder / 'odd.ipynb', *sources, tagged=tagged)
def walk(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], object]: return lambda folder: change(bars(20)).to_csv(folder / 'prices.csv', index=False)


def broken_parquet(folder: Path) -> None: (folder / 'prices.parquet').write_bytes(b'PAR1' + b'\x00' * 64 + b'PAR1')
def banana(folder: Path) -> None:
    (folder / '.gekko').mkdir()     # makes the folder a project
    (folder / '.env').write_text('PREDICTION_HORIZON=banana\n')


def stripped(folder: Path) -> None: notebook(folder / 'odd.ipynb', *LADDER, tagged=())


def with_nan(f: pd.DataFrame) -> pd.DataFrame:
    f.loc[7, 'close'] = float('nan')
    return f


IMPORT = 'data import prices.csv --symbol MINE --bar 1m'
CASES = {
    'no such notebook': Case('run missing.ipynb', ('no such notebook', 'an .ipynb file', 'missing.ipynb')),
    'a folder for a notebook': Case('run .', ('no such notebook', 'found .')),
    'not a notebook': Case('run odd.ipynb', ('not a notebook', 'JSON'), lambda folder: (folder / 'odd.ipynb').write_text('print(1)')),
    'a notebook without cells': Case('run odd.ipynb', ('not a notebook', 'cells'), lambda folder: (folder / 'odd.ipynb').write_text('{}')),
    'no parameters cell': Case('run odd.ipynb', ('exactly one cell tagged "parameters"', 'found 0'), stripped),
    'two parameters cells': Case('run odd.ipynb', ('exactly one cell tagged "parameters"', 'found 2'), cells(*LADDER, tagged=(0, 1))),
    'parameters that are not Python': Case('run odd.ipynb', ('the parameters cell', 'Python assignments', 'line 2'), cells('a = 1\nb = = 2')),
    'parameters that compute': Case('run odd.ipynb', ('a literal', 'open('), cells("a = open('x')")),
    'a parameter twice in its cell': Case('run odd.ipynb', ('each parameter once', 'a twice'), cells('a = 1\na = 2')),
    'unknown parameter': Case('run ladder.ipynb -p stop_att 5', ('unknown parameter', 'did you mean stop_at?', 'found stop_att')),
    'wrong type': Case('run ladder.ipynb -p stop_at many', ('parameter stop_at', 'expected int', "'many'")),
    'a fraction for a whole number': Case('run ladder.ipynb -p stop_at 2.5', ('parameter stop_at', 'expected int', "'2.5'")),
    'not a finite number': Case('run ladder.ipynb -p timeout_s nan', ('parameter timeout_s', 'a finite number', "'nan'")),
    'missing parameter': Case('run odd.ipynb', ('missing parameter', 'a value for size', 'none'), cells("mode = 'backtest'\nsize: int")),
    'parameter given twice': Case('run ladder.ipynb -p stop_at 5 -p stop_at 6', ('parameter given twice', 'stop_at once', '5 and 6')),
    '-p without a value': Case('run ladder.ipynb -p stop_at', ('a name and a value', '-p stop_at')),
    '-p without anything': Case('run ladder.ipynb -p', ('a name and a value',)),
    'the mode as a parameter': Case('run ladder.ipynb -p mode paper', ('the mode as --mode', '-p mode paper')),
    'unknown mode': Case('run ladder.ipynb --mode production', ('backtest paper live', 'found production')),
    'live without credentials': Case('run ladder.ipynb --mode live', ('live mode', '--venue and one of', 'found none')),
    'unknown symbol': Case('run ladder.ipynb -p symbols WALKS', ('unknown symbol WALKS', 'perhaps WALK', 'found WALKS')),
    'a symbol that is not traded': Case('run ladder.ipynb -p symbols VIX', ('VIX cannot be traded', 'a tradable instrument')),
    'no symbol at all': Case('run ladder.ipynb -p symbols []', ('symbols', 'at least one')),
    'a symbol twice': Case('run ladder.ipynb -p symbols WALK,WALK', ('symbols', 'each symbol once')),
    'symbols without a common bar': Case('run ladder.ipynb -p symbols WALK,SP500', ('no bar that all symbols have', 'WALK 1m', 'SP500 1d')),
    'not a time': Case('run ladder.ipynb -p start yesterday', ('not a time', 'ISO 8601', "'yesterday'")),
    'a period without bars': Case('run ladder.ipynb -p start 2030-01-01', ('no bars in the period', 'the last one ends 2024-01-02T04:00')),
    'no such file': Case('data import missing.csv --symbol MINE --bar 1m', ('missing.csv', 'no such file')),
    'an empty file': Case(IMPORT, ('prices.csv', 'empty'), table('')),
    'a heading and no row': Case(IMPORT, ('prices.csv', 'row'), table('time,open,high,low,close,volume\n')),
    'a CSV without a time column': Case(IMPORT, ('time',), walk(lambda f: f.drop(columns='timestamp'))),
    'a CSV without prices': Case(IMPORT, ('price',), walk(lambda f: f[['timestamp', 'volume']])),
    'NaN prices': Case(IMPORT, ('not a number', 'close', '2024-01-02T00:07'), walk(with_nan)),
    'two rows for one time': Case(IMPORT, ('two rows for one time', '2024-01-02T00:05'), walk(lambda f: pd.concat([f, f.iloc[[5]]]))),
    'a price of zero': Case(IMPORT, ('zero or less',), walk(lambda f: f.assign(low=0.0))),
    'times that are none': Case(IMPORT, ('soon',), table('time,price\nsoon,1.0\nlater,2.0\n')),
    'a bar of another length': Case('data import prices.csv --symbol MINE --bar 1h', ('rows closer than a bar', '1h apart or more'), walk(lambda f: f)),
    'no length of a bar': Case('data import prices.csv --symbol MINE --bar fortnight', ('fortnight',), walk(lambda f: f)),
    'an unknown zone': Case(IMPORT + ' --tz Mars/Olympus', ('Mars/Olympus',), table('time,price\n2024-01-02 00:00,1.0\n2024-01-02 00:01,1.0\n')),
    'an unknown stamp': Case(IMPORT + ' --stamp middle', ('middle',), walk(lambda f: f)),
    'a broken Parquet file': Case('data import prices.parquet --symbol MINE --bar 1m', ('prices.parquet',), broken_parquet),
    'rows that differ from the stored ones': Case('data import prices.csv --symbol WALK --bar 1m', ('differ from the stored ones', 'instead of'), walk(lambda f: f.assign(close=f['close'] + 0.01))),
    'a store that cannot be written': Case(IMPORT, ('store',), lambda folder: (walk(lambda f: f)(folder), (folder / 'occupied').write_text('')), {'GEKKO_STORE': 'occupied'}),
    'a store below a file': Case(IMPORT, ('store',), lambda folder: (walk(lambda f: f)(folder), (folder / 'occupied').write_text('')), {'GEKKO_STORE': 'occupied/store'}),
    'a desk in a home below a file': Case('desk serve', ('a home that can be written', 'occupied/home: Not a directory'), lambda folder: (folder / 'occupied').write_text(''), {'GEKKO_HOME': 'occupied/home'}),
    'a home below a file': Case('run ladder.ipynb -p symbols SP500', ('occupied',), lambda folder: (folder / 'occupied').write_text(''), {'GEKKO_HOME': 'occupied/home'}),
    'a setting out of range': Case('run ladder.ipynb', ('CONFIDENCE_THRESHOLD', 'less than or equal to 1', "'1.7'"), env={'CONFIDENCE_THRESHOLD': '1.7'}),
    'a setting too small': Case('desk status', ('MAX_POSITIONS', 'greater than or equal to 1', "'0'"), env={'MAX_POSITIONS': '0'}),
    'a setting of the wrong kind': Case('runs list', ('GEKKO_HEARTBEAT_S', 'number', "'soon'"), env={'GEKKO_HEARTBEAT_S': 'soon'}),
    'an unknown platform': Case('data list', ('TRADING_PLATFORMS', 'oanda, binance_us, coinbase', 'ftx'), env={'TRADING_PLATFORMS': 'oanda,ftx'}),
    'a setting in a .env file': Case('ledger verify', ('PREDICTION_HORIZON', "'banana'"), banana),
    'an unknown run': Case('runs show 20200101T000000-none-0000', ('20200101T000000-none-0000',)),
    'an unknown run to make again': Case('runs rerun none', ('none',)),
    'unknown runs to compare': Case('runs diff one two', ('one',)),
    'an unknown account': Case('ledger show nobody', ('no such account', 'found nobody')),
    'no ledger there': Case('ledger verify --url missing.db', ('no such ledger', 'missing.db')),
    'an unknown series': Case('data check NOPE', ('unknown symbol NOPE', 'found NOPE')),
    'a series without such bars': Case('data check WALK --bar 1h', ('1h',)),
    'an unknown desk': Case('desk halt --desk nowhere', ('no such desk', 'found nowhere')),
    'an unknown bench': Case('bench nothing', ('no such bench', 'jobs', 'found nothing')),
    'an unknown option': Case('run ladder.ipynb --fast', ('--fast',)),
    'an unknown command': Case('trade', ('trade',)),
    'an argument too few': Case('run', ('Missing argument',)),
}


@pytest.fixture(scope='module')
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every case begins with: a home with a store, and a good notebook beside it."""
    folder = tmp_path_factory.mktemp('stock')
    make_store(folder / 'home' / 'store')
    Runs(ledger_of(folder / 'home')).put(RunRecord('20240102T000000-known-0000', '', 'known.ipynb', 'backtest', 'backtest', state='done', executed='nowhere'))
    ladder(folder)
    return folder


AS_JSON = ['two parameters cells', 'wrong type', 'live without credentials', '-p without a value', 'NaN prices', 'a store below a file', 'a setting out of range', 'an unknown run', 'an unknown desk']


class Refusal(NamedTuple):
    """How a case ended, and its folder before and after."""
    done: CompletedProcess[str]
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]


@pytest.fixture(scope='module')
def refusals(request: pytest.FixtureRequest, stock: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Every case that is asked for by the tests of this session, each in a copy of the stock."""
    theirs = {'GEKKO_LEDGER': ledger_of(stock / 'home')} if ON_SERVER else {}      # a file is copied with its home, a place on a server is not
    known = runs_of(stock / 'home')
    def refuse(test: str, name: str) -> tuple[str, Refusal]:
        case, folder = CASES[name], Path(shutil.copytree(stock, tmp_path_factory.mktemp('case') / 'here', copy_function=shutil.copy2))
        case.make(folder)
        before = tree(folder)
        done = gekko(folder / 'home', *case.words.split(), *(['--json'] if 'json' in test else []), cwd=folder, **{**theirs, **case.env})
        return f'{test} {name}', Refusal(done, before, tree(folder))
    asked = [(i.originalname, i.callspec.params['name']) for i in request.session.items if isinstance(i, pytest.Function) and i.module is request.module and 'refusals' in i.fixturenames]
    found = dict(at_once(*(partial(refuse, *a) for a in asked)))
    assert runs_of(stock / 'home') == known and accounts(ledger_of(stock / 'home')) == []
    return found


@pytest.mark.parametrize('name', CASES)
def test_refused_and_nothing_changed(name: str, refusals: dict[str, Refusal]) -> None:
    done, before, after = refusals[f'test_refused_and_nothing_changed {name}']
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr and done.stdout == ''
    assert [w for w in CASES[name].says if w not in done.stderr] == [], done.stderr
    assert len(done.stderr) < 1500 and after == before


@pytest.mark.parametrize('name', AS_JSON)
def test_the_refusal_as_json(name: str, refusals: dict[str, Refusal]) -> None:
    done, before, after = refusals[f'test_the_refusal_as_json {name}']
    said = one_line(done, code=2)
    assert said['exit_code'] == 2 and said['kind'] == 'BadInput' and done.stderr == ''
    assert [w for w in CASES[name].says if w not in f'{said["error"]}: expected {said["expected"]}, found {said["found"]}'] == []
    assert after == before


@pytest.mark.parametrize('name', ['first', 'trend', 'pairs'])
def test_a_strategy_that_lost_its_tag_is_refused(name: str, home: Path) -> None:
    """What cleaning tools do to a notebook; papermill alone would run it with its own defaults, whatever was asked for."""
    text = (STRATEGIES / f'{name}.ipynb').read_text()
    assert text.count('"parameters"') == 1
    (home.parent / f'{name}.ipynb').write_text(text.replace('"parameters"', ''))
    done = gekko(home, 'run', f'{name}.ipynb', '--mode', 'paper')
    assert done.returncode == 2 and 'exactly one cell tagged "parameters", found 0' in done.stderr and tree(home) == {}
