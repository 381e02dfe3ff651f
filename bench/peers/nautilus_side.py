"""Run by the peers' Python: the bench's strategy in nautilus_trader, bar by bar through its event path."""
import sys
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from side import Side

side = Side(sys.argv[1])
import nautilus_trader  # noqa: E402
import pandas as pd  # noqa: E402
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig  # noqa: E402
from nautilus_trader.config import LoggingConfig, StrategyConfig  # noqa: E402
from nautilus_trader.indicators import SimpleMovingAverage  # noqa: E402
from nautilus_trader.model.currencies import USD  # noqa: E402
from nautilus_trader.model.data import BarType  # noqa: E402
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide  # noqa: E402
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue  # noqa: E402
from nautilus_trader.model.instruments import Equity  # noqa: E402
from nautilus_trader.model.objects import Money, Price, Quantity  # noqa: E402
from nautilus_trader.persistence.wranglers import BarDataWrangler  # noqa: E402
from nautilus_trader.trading.strategy import Strategy  # noqa: E402

side.imported(nautilus_trader.__version__)
VENUE = Venue('SIM')
SHARE = InstrumentId(Symbol('WALK'), VENUE)
TYPE = BarType.from_str('WALK.SIM-1-MINUTE-LAST-EXTERNAL')


class Settings(StrategyConfig, frozen=True):
    fast: int
    slow: int
    units: int


class Cross(Strategy):
    def __init__(self, config):
        super().__init__(config)
        self.a, self.b, self.was, self.held = SimpleMovingAverage(config.fast), SimpleMovingAverage(config.slow), None, 0

    def on_start(self):
        self.share = self.cache.instrument(SHARE)
        self.register_indicator_for_bars(TYPE, self.a)
        self.register_indicator_for_bars(TYPE, self.b)
        self.subscribe_bars(TYPE)

    def on_bar(self, bar):
        if not self.indicators_initialized(): return
        above = self.a.value > self.b.value
        if self.was is not None and above != self.was:
            want = self.config.units if above else -self.config.units
            size, self.held = want - self.held, want
            self.submit_order(self.order_factory.market(SHARE, OrderSide.BUY if size > 0 else OrderSide.SELL, self.share.make_qty(abs(size))))
        self.was = above


def prepared(open_, high, low, close):
    share = Equity(SHARE, Symbol('WALK'), USD, 2, Price.from_str('0.01'), Quantity.from_int(1), 0, 0, maker_fee=Decimal(repr(side.task['fee'])), taker_fee=Decimal(repr(side.task['fee'])))
    frame = pd.DataFrame({'open': open_, 'high': high, 'low': low, 'close': close, 'volume': 1e6}, index=pd.date_range('2020-01-01 00:01', periods=len(close), freq='min', tz='UTC'))
    return share, BarDataWrangler(TYPE, share).process(frame), frame.index


def once():
    """A fresh engine, the bars given to it, the run and its statistics."""
    share, bars, index = prepared(*side.prices())
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(VENUE, OmsType.NETTING, AccountType.MARGIN, [Money(side.task['cash'], USD)], base_currency=USD, default_leverage=Decimal(100))
    engine.add_instrument(share)
    engine.add_data(bars)
    engine.add_strategy(Cross(Settings(fast=side.task['fast'], slow=side.task['slow'], units=side.task['units'])))
    engine.run()
    result = engine.get_result()
    return engine, result, index


engine, result, index = side.first(once)
orders = sorted((o for o in engine.cache.orders() if o.is_closed), key=lambda o: o.ts_last)
row = {t: n for n, t in enumerate(index.as_unit('ns').asi8.tolist())}
# filled at the close that was heard, which is the next bar's open here
fills = [(row[o.ts_last] + 1, (1 if o.side == OrderSide.BUY else -1) * float(o.filled_qty), float(o.avg_px)) for o in orders]
cash = float(engine.cache.account_for_venue(VENUE).balance_total(USD))
open_ = sum(float(p.unrealized_pnl(Price.from_str(f'{side.prices()[3][-1]:.2f}'))) for p in engine.cache.positions_open())
engine.dispose()
side.done(fills, cash + open_, statistics=len(result.stats_pnls.get('USD', {})) + len(result.stats_returns))
