"""The bench's strategy on our compiled pass with its statistics, or `sweep`: many of its settings. Run by the project's own Python."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side import Side

side = Side(sys.argv[1])
import numpy as np  # noqa: E402

import gekko  # noqa: E402
from gekko.data.bars import Bars  # noqa: E402
from gekko.domain.instrument import Instrument  # noqa: E402
from gekko.research.columns import crosses, many  # noqa: E402
from gekko.research.fast import backtest  # noqa: E402
from gekko.research.reported import traded_of  # noqa: E402
from gekko.research.trips import by_average, trip_stats  # noqa: E402

side.imported(f'{gekko.__version__} gekko')
task, share = side.task, {'WALK': Instrument('WALK', 'WALK', 'USD')}
costs = {'instruments': share, 'units': True, 'cash': task['cash'], 'fee_bps': str(round(task['fee'] * 10_000, 6)), 'slippage_bps': '0'}


def bars():
    o, h, l, c = (x[:, None] for x in side.prices())
    end = 1_577_836_800_000_000_000 + 60_000_000_000 * np.arange(1, len(c) + 1)
    return Bars(('WALK',), end - 60_000_000_000, end, o, h, l, c, np.full(c.shape, 1e6))


def wanted(b):
    """Positions at crosses; the relation in which the means begin is no cross."""
    w = crosses(b, share, task['units'], -task['units'])(task['fast'], task['slow'])
    w[task['slow'] - 1] = np.nan
    return w


def ran():
    b = bars()
    return backtest(b, wanted(b), how='fast', **costs)


def told(r):
    """Two dozen numbers of the equity and of the trades, as the others give."""
    return r.performance(), trip_stats(by_average(traded_of(r, 'WALK'), float(r.asked.bars.close[-1, 0]), len(r.times))), r.fees


def once():
    r = ran()
    return r, told(r)


def sweep(pairs):
    b = bars()
    of = crosses(b, share, task['units'], -task['units'])

    def make(fast, slow):
        w = of(fast, slow)
        w[slow - 1] = np.nan
        return w
    return many(b, make, [{'fast': f, 'slow': s} for f, s in pairs], workers=task['workers'], **costs)


if task.get('pairs'):
    side.first(lambda: sweep(task['pairs'][:task['piece']]))
    found = side.again('sweep_s', lambda: sweep(task['pairs']), 1)
    np.save(side.folder / 'sweep_gekko.npy', np.array([(float(c.final), c.fills, c.sharpe, c.max_drawdown, c.volatility, c.sortino, c.fees) for c in found.columns]))
    side.done([], 0.0, combinations=len(found), event=sum(c.how != 'fast' for c in found.columns))
else:
    r, stats = side.first(once)
    if task['again']:
        side.again('warm_s', once, task['again'])
        q = side.again('run_s', ran, task['again'])
        side.again('stats_s', lambda: told(q), task['again'])
    f = traded_of(r, 'WALK')
    side.done(np.c_[f.row, f.size, f.price].tolist(), float(r.final_equity), statistics=len(stats[0].__slots__) + len(stats[1]) + 1, how=r.how, breaches=r.breaches)
