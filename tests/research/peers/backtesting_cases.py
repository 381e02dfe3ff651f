"""Run by the peers' Python: the cases on stdin as JSON, through backtesting.py itself; trades and equity of each on stdout."""
import json
import sys
import warnings

import numpy as np
import pandas as pd

warnings.filterwarnings('ignore')
import backtesting  # noqa: E402
from backtesting import Backtest, Strategy  # noqa: E402
from backtesting.lib import crossover  # noqa: E402

backtesting.backtesting._tqdm = lambda x, **_: x


class Scripted(Strategy):
    """Does what the case says, row by row."""
    plan: dict = {}

    def init(self):
        pass

    def next(self):
        for name, *args in self.plan.get(str(len(self.data) - 1), ()):
            try:
                act(self, name, args)
            except (ValueError, AssertionError):
                pass


def act(s, name, args):
    if name in ('buy', 'sell'): getattr(s, name)(**args[0])
    elif name == 'close': s.position.close(args[0])
    elif name == 'trade': s.trades[args[0] % len(s.trades)].close(args[1]) if s.trades else None
    elif name == 'cancel': [o.cancel() for o in list(s.orders)[:1] if not o.parent_trade]
    elif name in ('sl', 'tp') and s.trades: setattr(s.trades[args[0] % len(s.trades)], name, args[1])


class Cross(Strategy):
    """Two means that cross; `mode` says what a cross does."""
    fast = 10
    slow = 30
    mode = 'flip'
    size = None

    def init(self):
        def sma(x, n): return pd.Series(x).rolling(n).mean()
        self.a, self.b = self.I(sma, self.data.Close, self.fast), self.I(sma, self.data.Close, self.slow)

    def next(self):
        with_ = {} if self.size is None else {'size': self.size}
        if crossover(self.a, self.b):
            if self.mode != 'add': self.position.close()
            self.buy(**with_)
        elif crossover(self.b, self.a):
            if self.mode != 'add': self.position.close()
            if self.mode != 'long': self.sell(**with_)


def one(case):
    frame = pd.DataFrame({k: np.array(v, float) for k, v in case['prices'].items()}) if 'prices' in case else getattr(backtesting.test, case['data'])
    strategy = Cross if 'fast' in case.get('parameters', {}) else Scripted
    given = dict(case['settings'])
    if isinstance(given.get('commission'), list): given['commission'] = tuple(given['commission'])
    try: s = Backtest(frame, strategy, **given).run(**(case.get('parameters') or {'plan': case['plan']}))
    except AssertionError as e: return {'error': repr(e)}
    t = s['_trades']
    return {'trades': t[['Size', 'EntryBar', 'ExitBar', 'EntryPrice', 'ExitPrice', 'PnL', 'ReturnPct', 'Commission']].astype(float).values.tolist(), 'equity': s['_equity_curve']['Equity'].tolist(), 'final': s['Equity Final [$]']}


if __name__ == '__main__':
    import backtesting.test
    print(json.dumps({'version': backtesting.__version__, 'GOOG': {k: backtesting.test.GOOG[k].tolist() for k in ('Open', 'High', 'Low', 'Close', 'Volume')}, 'results': [one(c) for c in json.load(sys.stdin)]}))
