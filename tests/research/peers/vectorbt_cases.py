"""Run by the peers' Python: the cases on stdin as JSON, through vectorbt itself; records and value of each on stdout."""
import json
import sys
import warnings

import numpy as np

warnings.filterwarnings('ignore')
import vectorbt as vbt  # noqa: E402

NUMBERS = {'inf': np.inf, '-inf': -np.inf, 'nan': np.nan}


def read(x):
    if isinstance(x, list): return np.array([read(v) for v in x])
    return NUMBERS.get(x, x) if isinstance(x, str) else x


def trades(t):
    return np.c_[t['entry_idx'], t['exit_idx'], 1 - 2 * t['direction'], t['size'], t['entry_price'], t['exit_price'], t['entry_fees'], t['exit_fees'], t['pnl'], t['return'], t['status'] == 0].tolist()


# what is left out, so that every case has the same types: numba would compile the library anew for each
REST = {'size': np.inf, 'price': np.inf, 'val_price': np.inf, 'fees': 0.0, 'fixed_fees': 0.0, 'slippage': 0.0, 'min_size': 1e-8, 'max_size': np.inf, 'size_granularity': np.nan}
ADDS = {False: 0, True: 1, 'addonly': 2, 'removeonly': 3}


def settings(case, n):
    given = {k: read(v) for k, v in case['settings'].items()}
    out = {k: np.ascontiguousarray(np.broadcast_to(np.asarray(given.pop(k, x), float).reshape(-1, 1), (n, 1))) for k, x in REST.items()}
    if case['rule'] == 'from_signals':
        out['accumulate'] = ADDS[given.pop('accumulate', False)]
        for k in ('entries', 'exits', 'short_entries', 'short_exits'):
            if k in given: out[k] = np.asarray(given.pop(k), bool).reshape(-1, 1)
    return {'init_cash': 100.0, 'lock_cash': False, 'allow_partial': True, **out, **given}


def one(case):
    close = np.asarray(read(case['close']), float)[:, None]
    try: p = getattr(vbt.Portfolio, case['rule'])(close, **settings(case, len(close)))
    except (ValueError, IndexError) as e: return {'error': repr(e)}
    o = p.orders.values
    down = p.drawdowns.values
    return {'orders': np.c_[o['idx'], np.where(o['side'] == 0, 1, -1) * o['size'], o['price'], o['fees']].tolist(), 'exits': trades(p.exit_trades.values), 'entries': trades(p.entry_trades.values),
            'positions': trades(p.positions.values), 'value': np.asarray(p.value(), float).ravel().tolist(), 'falls': np.c_[down['peak_idx'], down['valley_idx'], down['end_idx'], down['peak_val'], down['valley_val'], down['end_val'], down['status'] == 1].tolist()}


if __name__ == '__main__':
    print(json.dumps({'version': vbt.__version__, 'results': [one(c) for c in json.load(sys.stdin)]}))
