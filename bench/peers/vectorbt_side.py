"""Run by the peers' Python: the bench's strategy in vectorbt's pandas API with its statistics, or `sweep`: many of its settings, some columns at a time."""
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side import Side

side = Side(sys.argv[1])
warnings.filterwarnings('ignore')
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import vectorbt as vbt  # noqa: E402

side.imported(vbt.__version__)
task = side.task


def series():
    o, _, _, c = side.prices()
    index = pd.date_range('2020-01-01', periods=len(c), freq='min', tz='UTC')
    return pd.Series(o, index), pd.Series(c, index)


def portfolio(open_, close, fast, slow):
    """Crosses are seen at a close and traded at the next open."""
    a, b = vbt.MA.run(close, fast), vbt.MA.run(close, slow)
    entries, exits = a.ma_crossed_above(b).vbt.signals.fshift(1), a.ma_crossed_below(b).vbt.signals.fshift(1)
    return vbt.Portfolio.from_signals(close, entries, exits, price=open_ if entries.ndim == 1 else open_.to_numpy()[:, None], size=task['units'], direction='both', fees=task['fee'], init_cash=task['cash'], freq='1min')


def once():
    open_, close = series()
    p = portfolio(open_, close, task['fast'], task['slow'])
    return p, p.stats()


def sweep():
    """In pieces of so many columns, as its users bound its memory; the numbers that our own sweep gives for each."""
    open_, close = series()
    pairs, out = [tuple(x) for x in task['pairs']], []
    for lo in range(0, len(pairs), task['piece']):
        fast, slow = (list(x) for x in zip(*pairs[lo:lo + task['piece']]))
        p = portfolio(open_, close, fast, slow)
        out.append(np.c_[p.final_value(), p.orders.count(), p.sharpe_ratio(), p.max_drawdown(), p.annualized_volatility(), p.sortino_ratio(), p.orders.fees.sum()])
    return np.concatenate(out)


if task.get('pairs'):
    first = task['pairs']
    task['pairs'] = first[:task['piece']]
    side.first(sweep)
    task['pairs'] = first
    table = side.again('sweep_s', sweep, 1)
    np.save(side.folder / 'sweep_vectorbt.npy', table)
    side.done([], 0.0, combinations=len(first))
else:
    p, stats = side.first(once)
    if task['again']:
        side.again('warm_s', once, task['again'])
        open_, close = series()
        q = side.again('run_s', lambda: portfolio(open_, close, task['fast'], task['slow']), 1)
        side.again('stats_s', q.stats, 1)
    o = p.orders.values
    side.done(np.c_[o['idx'], np.where(o['side'] == 0, 1, -1) * o['size'], o['price']].tolist(), float(p.final_value()), statistics=len(stats))
