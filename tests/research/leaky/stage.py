"""The pack as notebooks in a folder, with the files, the modules and the store that they read."""
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gekko.data.reference import load_reference
from gekko.data.store import Store
from gekko.domain.instrument import Instrument
from gekko.domain.time import DAY, utc

PACK = Path(__file__).parent
DATA = PACK.parents[2].parent / 'shared' / 'data'


def cells(text: str) -> list[dict[str, Any]]:
    """Code cells of a percent text, the first tagged as parameters."""
    parts = re.split(r'(?m)^# %%[ ]*\n', text)[1:]
    return [{'cell_type': 'code', 'id': f'c{k}', 'source': p.strip(), 'metadata': {'tags': ['parameters']} if k == 0 else {}, 'outputs': [], 'execution_count': None} for k, p in enumerate(parts)]


def notebook(path: Path, text: str) -> Path:
    path.write_text(json.dumps({'cells': cells(text), 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}))
    return path


def stage(folder: Path) -> Path:
    """Everything that the pack reads, in `folder`; the home to run with."""
    for name in ('leaky_helper.py', 'clean_helper.py'): shutil.copy(PACK / name, folder / name)
    f = load_reference('SP500')
    pd.DataFrame({'date': f.timestamp.dt.strftime('%Y-%m-%d'), 'close': f.close}).to_csv(folder / 'prices.csv', index=False)
    months = pd.date_range('2007-06-01', '2011-12-01', freq='MS')
    level = np.random.default_rng(5).normal(size=len(months))
    pd.DataFrame({'date': months, 'release_date': months + pd.Timedelta(days=45), 'value': level}).to_csv(folder / 'macro.csv', index=False)
    store = Store(folder / 'home' / 'store')
    prices = pd.read_parquet(DATA / 'eth_btc_5m_2018.parquet')
    store.write('ETH-BTC', '5m', prices, Instrument('ETH-BTC', 'ETH', 'USD', 'crypto', tick=Decimal('0.000001'), lot=Decimal('0.001')))
    for k, start in enumerate(pd.date_range('2007-12-01', '2009-01-01', freq='MS', tz='UTC')):
        value = 100 + level[k]
        row = pd.DataFrame({'timestamp': [start], 'open': value, 'high': value, 'low': value, 'close': value, 'volume': 0.0})
        store.write('CPI', '1d', row, Instrument('CPI', 'CPI', 'USD', 'index', tick=Decimal('0.01'), lot=Decimal(1), tradable=False), known=utc(start.isoformat()) + 40 * DAY)
    return folder / 'home'
