"Files beside a notebook: whichever library reads them, their future is what the check made of it; and what is written stays with the check."
from __future__ import annotations
import json
import os
import sqlite3
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
from gekko.data.reference import reference_bars
from gekko.research.findings import LeakReport
from gekko.research.leakage_notebook import prove_notebook

ALL = os.environ.get('GEKKO_LEAK_PACK') == 'all'
HEAD = "import numpy as np\nimport pandas as pd\nfrom gekko.api import open_run, trade\n"
TAIL = "run = open_run(['SP500'], start='2012-01-01', end='2013-01-01', window={w})\nresult = trade(run, weights)\n"
SEEN = "def weights(bars):\n    day = (bars.frame().index - pd.Timedelta('1D')).strftime('%Y-%m-%d')\n    return np.array([[1.0 if held.get(d, 0.0) > 0 else 0.0] for d in day])\n"
READ = {
    'json': "import json\nheld = json.load(open('side.json'))\n",
    'csv': "import csv\nwith open('side.csv') as f: held = {r['day']: float(r['score']) for r in csv.DictReader(f)}\n",
    'parquet': "import duckdb\nheld = duckdb.sql(\"select * from 'side.parquet'\").df().set_index('day').score.to_dict()\n",
    'db': "import sqlite3\nheld = dict(sqlite3.connect('side.db').execute('select day, score from side').fetchall())\n",
}

@pytest.fixture(scope='module')
def market() -> tuple[pd.Series, np.ndarray]:
    b = reference_bars(['SP500'])
    return pd.Series(pd.to_datetime(b.start, utc=True).strftime('%Y-%m-%d')), b.close[:, 0]

def told(folder: Path, how: str, day: pd.Series, score: np.ndarray) -> None:
    table = pd.DataFrame({'day': day, 'score': score})
    if how == 'json': (folder / 'side.json').write_text(json.dumps(dict(zip(day, score.tolist()))))
    elif how == 'csv': table.to_csv(folder / 'side.csv', index=False)
    elif how == 'parquet': table.to_parquet(folder / 'side.parquet')
    else:
        with sqlite3.connect(folder / 'side.db') as db: table.to_sql('side', db, index=False)

def proved(folder: Path, source: str, window: int = 1) -> LeakReport:
    cells = [{'cell_type': 'code', 'id': f'c{k}', 'source': s, 'metadata': {}, 'outputs': [], 'execution_count': None} for k, s in enumerate((HEAD + source, TAIL.format(w=window)))]
    (folder / 'n.ipynb').write_text(json.dumps({'cells': cells, 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}))
    home = folder.parent / f'{folder.name}-home'
    return prove_notebook(folder / 'n.ipynb', budget_s=4.0, workers=2, env={'GEKKO_HOME': str(home), 'GEKKO_STORE': str(home / 'store')})

@pytest.mark.parametrize('how', READ if ALL else ('db', 'parquet'))
def test_what_a_file_knows_ahead_is_found(how: str, market: tuple[pd.Series, np.ndarray], tmp_path: Path) -> None:
    day, close = market
    told(tmp_path, how, day, np.append(close[1:] / close[:-1] - 1, 0.0))
    report = proved(tmp_path, READ[how] + SEEN)
    assert not report.clean and 'side' in str(report.leaks[0]) and report.leaks[0].number == 0, str(report)

@pytest.mark.parametrize('how', ('csv', 'db') if ALL else ('csv',))
def test_what_a_file_knew_in_time_is_no_leak(how: str, market: tuple[pd.Series, np.ndarray], tmp_path: Path) -> None:
    day, close = market
    told(tmp_path, how, day, np.nan_to_num(close / pd.Series(close).rolling(20).mean().to_numpy() - 1))
    report = proved(tmp_path, READ[how] + SEEN)
    assert report.clean and report.proven, str(report)

def test_the_whole_of_an_array_is_found(market: tuple[pd.Series, np.ndarray], tmp_path: Path) -> None:
    b = reference_bars(['SP500'])
    np.save(tmp_path / 'level.npy', b.close[:, 0])
    np.save(tmp_path / 'when.npy', b.end)
    report = proved(tmp_path, "level, when = np.load('level.npy'), np.load('when.npy')\ntop = level.max()\ndef weights(bars):\n    k = np.searchsorted(when, bars.end, side='right') - 1\n    return np.where(level[k] < 0.6 * top, 1.0, 0.2)[:, None]\n")
    assert not report.clean and 'level.close' in report.leaks[0].source or 'level' in str(report.leaks[0].source), str(report)

def test_a_file_without_times_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / 'coef.npy', np.array([0.5, 0.25]))
    report = proved(tmp_path, "coef = np.load('coef.npy')\ndef weights(bars): return np.where(bars.close > bars.open, coef[0], coef[1])\n")
    assert report.clean and [f.kind for f in report.notes] == ['unread'] and 'coef.npy' in report.notes[0].detail, str(report)

def test_what_a_run_writes_stays_with_the_check(tmp_path: Path) -> None:
    report = proved(tmp_path, "from pathlib import Path\nPath('out').mkdir(exist_ok=True)\ndef weights(bars):\n    pd.DataFrame(bars.close).to_csv('out/close.csv')\n    return (pd.read_csv('out/close.csv', index_col=0).to_numpy() > bars.open) * 1.0\n")
    assert report.clean and report.proven, str(report)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['n.ipynb']

def test_an_endless_loop_on_other_prices_is_given_up_and_the_leak_still_found(tmp_path: Path) -> None:
    report = proved(tmp_path, "def weights(bars):\n    c = bars.close\n    if (np.abs(np.diff(np.log(c), axis=0)) > 0.3).any():\n        while True: pass\n    return np.tanh((c - c.mean()) / c.std())\n", window=9000)
    assert not report.clean, str(report)
