"""Run by the peers' Python: the bench's strategy in backtesting.py, written as its guide writes such a strategy."""
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side import Side

side = Side(sys.argv[1])
warnings.filterwarnings('ignore')
import backtesting  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from backtesting import Backtest, Strategy  # noqa: E402
from backtesting.lib import crossover  # noqa: E402

side.imported(backtesting.__version__)
backtesting.backtesting._tqdm = lambda x, **_: x      # no bar of progress: it takes time of its own


def sma(x, n): return pd.Series(x).rolling(n).mean()


class Cross(Strategy):
    fast, slow, units = side.task['fast'], side.task['slow'], side.task['units']

    def init(self): self.a, self.b = self.I(sma, self.data.Close, self.fast), self.I(sma, self.data.Close, self.slow)

    def next(self):
        if crossover(self.a, self.b): self.buy(size=self.units - self.position.size)
        elif crossover(self.b, self.a): self.sell(size=self.units + self.position.size)


def once():
    o, h, l, c = side.prices()
    frame = pd.DataFrame({'Open': o, 'High': h, 'Low': l, 'Close': c, 'Volume': 1e6}, index=pd.date_range('2020-01-01', periods=len(c), freq='min'))
    return Backtest(frame, Cross, cash=side.task['cash'], commission=side.task['fee']).run()


s = side.first(once)
if side.task['again']: side.again('warm_s', once, side.task['again'])
legs = {}
for t in (*s['_strategy'].closed_trades, *s['_strategy'].trades):
    legs.setdefault((t.entry_bar, t.entry_price), []).append(t.size)
    if t.exit_bar is not None: legs.setdefault((t.exit_bar, t.exit_price), []).append(-t.size)
side.done([(row, float(np.sum(x)), price) for (row, price), x in sorted(legs.items())], float(s['Equity Final [$]']), statistics=sum(not k.startswith('_') for k in s.index))
