"""The reference series: the packages' own numbers, and the defects that are claimed."""
from __future__ import annotations
import subprocess
import sys
from decimal import Decimal
import numpy as np
import pandas as pd
import pytest
from gekko.data.bars import nanos
from gekko.data.reference import load_reference, reference_bars, reference_instrument, reference_series, reference_symbols
from gekko.data.replay import ReplayFeed
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc


def published(symbol: str) -> pd.DataFrame:
    "What the package's own loader returns."
    if reference_series()[symbol].package == 'arch':
        from arch.data import nasdaq, sp500, vix, wti
        return {'SP500': sp500, 'NASDAQ': nasdaq, 'WTI': wti, 'VIX': vix}[symbol].load()
    from skfolio.datasets import load_sp500_dataset
    return load_sp500_dataset()[[symbol]]


@pytest.mark.parametrize('symbol', ['SP500', 'NASDAQ', 'WTI', 'VIX', 'AAPL', 'RRC', 'XOM'])
def test_a_table_is_the_packages_own(symbol: str) -> None:
    f, own = load_reference(symbol), published(symbol).dropna()
    assert list(f.columns) == ['timestamp', 'open', 'high', 'low', 'close', 'volume']
    assert f['timestamp'].dt.tz_localize(None).tolist() == own.index.tolist()
    columns = ['Open', 'High', 'Low', 'Close', 'Volume'] if 'Open' in own else [own.columns[0]] * 4
    for ours, theirs in zip(('open', 'high', 'low', 'close', 'volume'), columns): np.testing.assert_array_equal(f[ours], own[theirs])


def test_every_symbol_loads_ascending_finite_daily() -> None:
    for symbol in reference_symbols():
        f = load_reference(symbol)
        starts = nanos(f['timestamp'])
        assert str(f['timestamp'].dtype) == 'datetime64[ns, UTC]'
        assert (np.diff(starts) > 0).all() and (starts % DAY == 0).all()
        assert np.isfinite(f[['open', 'high', 'low', 'close', 'volume']].to_numpy()).all()
        assert (f['close'] > 0).all()


def test_days_without_a_price_are_left_out() -> None:
    assert (len(published('WTI')) - len(load_reference('WTI')), len(published('VIX')) - len(load_reference('VIX'))) == (290, 46)


def test_the_defects_that_are_claimed() -> None:
    for symbol in ('SP500', 'NASDAQ'):
        f = load_reference(symbol)
        o, h, l, c = (f[k] for k in ('open', 'high', 'low', 'close'))
        assert not ((l > o) | (l > c) | (h < o) | (h < c)).any()
    sp, nasdaq = load_reference('SP500'), load_reference('NASDAQ')
    assert (len(sp), int((sp.open == sp.close.shift()).sum()), int((nasdaq.volume == 0).sum())) == (5031, 2004, 2)
    for symbol, said in (('SP500', '2,004 of 5,031'), ('NASDAQ', '2 days'), ('WTI', '290 days'), ('VIX', '46 days')): assert said in reference_series()[symbol].note


def test_instruments() -> None:
    sp, wti, vix, apple = map(reference_instrument, ('SP500', 'WTI', 'VIX', 'AAPL'))
    assert all((i.tick, i.lot, i.quote, i.tradable) == (Decimal('0.01'), Decimal('0.01'), 'USD', True) for i in (sp, wti))
    assert not vix.tradable
    assert (apple.tick, apple.lot, apple.kind) == (Decimal('0.001'), 1, 'equity')
    assert len(reference_symbols()) == len(set(reference_symbols())) == 24


def test_a_table_handed_out_is_a_copy() -> None:
    f = load_reference('AAPL')
    before = f['close'].tolist()
    f.loc[:, 'close'] = -1.0
    assert load_reference('AAPL')['close'].tolist() == before


@pytest.mark.parametrize('ask', [load_reference, reference_instrument, lambda s: reference_bars([s])])
def test_an_unknown_symbol_names_the_known(ask) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadInput, match='SP500 NASDAQ WTI VIX AAPL .*found sp500'): ask('sp500')


def test_bars_of_three_markets_replay() -> None:
    bars = reference_bars(['SP500', 'NASDAQ', 'WTI'])
    assert (len(bars), bars.symbols) == (8340, ('SP500', 'NASDAQ', 'WTI'))
    feed = ReplayFeed(bars, {s: reference_instrument(s) for s in bars.symbols}, first=len(bars) - 3)
    told = []
    while (step := feed.poll()) is not None: told.append(step)
    assert [s.ts for s in told[-2:]] == [utc('2019-01-03'), utc('2019-01-04')]
    assert [(e.symbol, str(e.close)) for e in told[-1].events] == [('WTI', '46.92')]


def test_the_data_keeps_its_name() -> None:
    assert reference_bars(['SP500', 'NASDAQ', 'WTI']).version == 'bcf6c293fc6d8f23'


def test_looking_up_a_symbol_loads_no_heavy_library() -> None:
    code = "import sys; from gekko.data.reference import *; reference_instrument('AAPL'), reference_symbols(), reference_series()\nassert not {'pandas', 'numpy', 'arch', 'skfolio'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_reading_prices_imports_neither_package() -> None:
    code = "import sys; from gekko.data.reference import load_reference\nfor s in ('SP500', 'WTI', 'AAPL'): load_reference(s)\nassert not {'arch', 'skfolio', 'statsmodels', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)
