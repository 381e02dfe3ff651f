"""What backtesting.py and vectorbt report, made again by their rules as we have written them down, and traded again by the desk. The libraries themselves say what is right: they run in an
environment of their own (scripts/peers.sh), on cases drawn by chance. GEKKO_CAMPAIGN=20 draws twenty times as many."""
import json
import os
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from tree import ROOT

from gekko.domain.errors import BadInput
from gekko.research.backtesting_rules import Strategy, crossover, run
from gekko.research.reported import Reported
from gekko.research.trips import Trips, by_entry, positions
from gekko.research.vectorbt_rules import from_orders, from_signals

TIMES = int(os.environ.get('GEKKO_CAMPAIGN', '1'))
NUMBERS = {'inf': np.inf, '-inf': -np.inf, 'nan': np.nan}


@cache
def peers() -> str:
    made = subprocess.run(['bash', ROOT / 'scripts/peers.sh', 'tables'], capture_output=True, text=True, timeout=900)
    assert made.returncode == 0, made.stderr
    return made.stdout.split()[-1]


def ask(script: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    quick = {**os.environ, 'NUMBA_OPT': '0'}      # vectorbt compiles for each process anew, and most of that is optimising what runs for a second
    done = subprocess.run([peers(), ROOT / 'tests/research/peers' / script], input=json.dumps(cases), capture_output=True, text=True, timeout=600, env=quick)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


# backtesting.py

class Scripted(Strategy):
    """Does what the case says, row by row."""
    plan: dict[str, Any] = {}

    def next(self) -> None:
        for name, *args in self.plan.get(str(len(self.data) - 1), ()):
            try: self.act(name, args)
            except BadInput: pass

    def act(self, name: str, args: list[Any]) -> None:
        match name:
            case 'buy': self.buy(**args[0])
            case 'sell': self.sell(**args[0])
            case 'close': self.position.close(args[0])
            case 'trade' if self.trades: self.trades[args[0] % len(self.trades)].close(args[1])
            case 'cancel': [o.cancel() for o in self.orders[:1] if not o.parent_trade]
            case 'sl' | 'tp' if self.trades: setattr(self.trades[args[0] % len(self.trades)], name, args[1])


def sma(x: Any, n: int) -> Any:
    return np.concatenate([np.full(n - 1, np.nan), np.lib.stride_tricks.sliding_window_view(x, n).mean(axis=1)])


class Cross(Strategy):
    fast, slow, mode, size = 10, 30, 'flip', None

    def init(self) -> None:
        self.a, self.b = self.I(sma, self.data.Close, self.fast), self.I(sma, self.data.Close, self.slow)

    def next(self) -> None:
        with_ = {} if self.size is None else {'size': self.size}
        if crossover(self.a, self.b):
            if self.mode != 'add': self.position.close()
            self.buy(**with_)
        elif crossover(self.b, self.a):
            if self.mode != 'add': self.position.close()
            if self.mode != 'long': self.sell(**with_)


def walk(r: random.Random, rows: int) -> dict[str, list[float]]:
    """Bars in cents, calm or wild, sometimes falling through the floor."""
    step, price, out = r.choice([0.01, 0.03, 0.15]), r.choice([5.0, 60.0, 900.0]), []
    for _ in range(rows):
        o = max(price * (1 + r.gauss(0, step / 3)), 0.05)
        c = max(o * (1 + r.gauss(0, step)), 0.05)
        out.append([round(o, 2), round(max(o, c) * (1 + abs(r.gauss(0, step / 2))), 2) + 0.01, max(round(min(o, c) * (1 - min(abs(r.gauss(0, step / 2)), 0.9)), 2) - 0.01, 0.01), round(c, 2)])
        price = c
    return dict(zip(('Open', 'High', 'Low', 'Close'), map(list, zip(*out))))


def plan(r: random.Random, prices: dict[str, list[float]]) -> dict[str, Any]:
    """Orders of every kind, mostly of the plain ones."""
    out: dict[str, Any] = {}
    fancy = r.random() < 0.5

    def order(close: float) -> dict[str, Any]:
        at = lambda d: round(close * (1 + d), 2)
        o: dict[str, Any] = {'size': r.choice([1, 2, 7, 50, 0.1, 0.5, 0.999, 0.9])} if r.random() < 0.8 else {}
        if fancy and r.random() < 0.3: o['limit'] = at(r.gauss(0, 0.02))
        if fancy and r.random() < 0.3: o['stop'] = at(r.gauss(0, 0.02))
        return o

    for t, close in enumerate(prices['Close']):
        acts: list[Any] = []
        while r.random() < 0.25:
            side, o = r.choice(['buy', 'sell']), order(close)
            up = 1 if side == 'buy' else -1
            if fancy and r.random() < 0.3: o['sl'] = round(close * (1 - up * abs(r.gauss(0, 0.04))), 2)
            if fancy and r.random() < 0.3: o['tp'] = round(close * (1 + up * abs(r.gauss(0, 0.04))), 2)
            acts.append([side, o])
        if r.random() < 0.12: acts.insert(0, ['close', r.choice([1.0, 1.0, 0.5, 0.1])])
        if r.random() < 0.06: acts.append(['trade', r.randrange(9), r.choice([1.0, 0.3])])
        if fancy and r.random() < 0.05: acts.append([r.choice(['sl', 'tp']), r.randrange(9), round(close * (1 + r.gauss(0, 0.03)), 2)])
        if r.random() < 0.03: acts.append(['cancel'])
        if acts: out[str(t)] = acts
    return out


def terms(r: random.Random) -> dict[str, Any]:
    return {'cash': r.choice([100, 1_000, 10_000, 1_000_000]), 'commission': r.choice([0, 0, 0.002, 0.01, [1, 0.001], [5, 0], -0.001]), 'spread': r.choice([0, 0, 0.005]), 'margin': r.choice([1, 1, 0.5, 0.1]),
            'trade_on_close': r.random() < 0.3, 'hedging': r.random() < 0.2, 'exclusive_orders': r.random() < 0.25, 'finalize_trades': r.random() < 0.6}


def crossing(r: random.Random) -> dict[str, Any]:
    settings = terms(r)
    fast = r.randint(2, 20)
    return {'data': 'GOOG', 'settings': settings | {'cash': r.choice([10_000, 250_000])}, 'parameters': {'fast': fast, 'slow': fast + r.randint(1, 60), 'mode': r.choice(['flip', 'long', 'add']), 'size': r.choice([None, None, 0.5, 10])}}


PUBLISHED = {'data': 'GOOG', 'settings': {'finalize_trades': True}, 'parameters': {'fast': 10, 'slow': 30, 'mode': 'flip', 'size': None}}


Asked = tuple[list[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope='module')
def asked() -> dict[str, Future[Asked]]:
    """Both libraries at once: each takes seconds to load."""
    peers()
    with ThreadPoolExecutor(2) as pool: return {f.__name__: pool.submit(f) for f in (backtesting_cases, vectorbt_cases)}


@pytest.fixture(scope='module')
def backtests(asked: dict[str, Future[Asked]]) -> Asked: return asked['backtesting_cases'].result()


@pytest.fixture(scope='module')
def portfolios(asked: dict[str, Future[Asked]]) -> Asked: return asked['vectorbt_cases'].result()


def backtesting_cases() -> Asked:
    r = random.Random(5)
    cases = [PUBLISHED, *(crossing(r) for _ in range(12 * TIMES))]
    for _ in range(60 * TIMES):
        prices = walk(r, r.choice([12, 40, 120]))
        cases.append({'prices': prices, 'settings': terms(r), 'plan': plan(r, prices)})
    return cases, ask('backtesting_cases.py', cases)


def ours(case: dict[str, Any], goog: dict[str, Any]) -> Reported:
    given = case['settings'] | ({'commission': tuple(c)} if isinstance(c := case['settings'].get('commission'), list) else {})
    if 'parameters' in case: return run(goog, Cross, **given, **case['parameters'])
    return run(case['prices'], Scripted, plan=case['plan'], **given)


def told(r: Reported) -> Any:
    t = r.trips
    return np.c_[t.side * t.size, t.entry, t.exit, t.entry_price, t.exit_price, t.pnl, t.returns, t.entry_fee + t.exit_fee]


def test_the_published_case_of_backtesting_py(backtests: Asked) -> None:
    """SMA(10/30), turned at each cross, on 2,148 days of GOOG: 66 trades, 10,000 becomes 51,422.99; and the desk, given the positions, says the same."""
    goog, theirs = backtests[1]['GOOG'], backtests[1]['results'][0]
    r = ours(PUBLISHED, goog)
    assert (len(r.close), len(r.trips), round(r.final, 2), len(theirs['trades'])) == (2148, 66, 51422.99, 66)
    again = r.desk()
    assert again.same and again.desk.how == 'fast' and round(float(again.desk.final_equity), 2) == 51422.99 and len(again.desk.fills) == 132, again
    assert (r.trips.pnl > 0).mean() == pytest.approx(0.4696969697) and r.falls.valley_value.size and r.trips.returns.max() == pytest.approx(0.5359595229)


def test_backtesting_py_case_by_case(backtests: Asked) -> None:
    """Every trade in its size, rows, prices and gain, and equity row by row."""
    cases, said = backtests
    assert said['version'] in (ROOT / 'bench/peers/tables.txt').read_text()
    seen = {'trades': 0, 'errors': 0, 'ruined': 0, 'desk': 0, 'at close': 0}
    for n, (case, theirs) in enumerate(zip(cases, said['results'])):
        if 'error' in theirs:
            seen['errors'] += 1
            continue
        r = ours(case, said['GOOG'])
        a, b = told(r), np.array(theirs['trades']).reshape(-1, 8)
        assert a.shape == b.shape, (n, case['settings'], len(a), len(b))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=str((n, case['settings'])))
        np.testing.assert_allclose(r.equity, theirs['equity'], rtol=1e-9, atol=1e-7, err_msg=str((n, case['settings'])))
        seen['trades'] += len(a)
        seen['ruined'] += theirs['final'] == 0
        seen['at close'] += case['settings'].get('trade_on_close', False)
        assert r.honest is False
        if r.fee is not None and theirs['final'] != 0 and len(r.fills):
            again = r.desk()
            assert again.same, (n, case['settings'], again)
            seen['desk'] += 1
    assert seen['trades'] > 600 and seen['errors'] < len(cases) / 10 and seen['desk'] > 25 and seen['at close'] > 10 and seen['ruined'] > 2, seen


# vectorbt

def read(x: Any) -> Any:
    if isinstance(x, list): return np.array([read(v) for v in x])
    return NUMBERS.get(x, x) if isinstance(x, str) else x


def bought(case: dict[str, Any]) -> Reported:
    rule: Callable[..., Reported] = {'from_orders': from_orders, 'from_signals': from_signals}[case['rule']]
    return rule(read(case['close']), **{k: read(v) for k, v in case['settings'].items()})


def records(t: Trips) -> Any:
    return np.c_[t.entry, t.exit, t.side, t.size, t.entry_price, t.exit_price, t.entry_fee, t.exit_fee, t.pnl, t.returns, t.open]


def series(r: random.Random) -> list[float]:
    n, p = r.choice([5, 8, 30, 150]), r.choice([1.0, 10.0, 300.0])
    if r.random() < 0.3: return [float(x) for x in r.sample([1, 2, 3, 4, 5, 4, 3, 2], 5)]
    return [round(p := max(p * (1 + r.gauss(0, 0.05)), 0.1), r.choice([2, 2, 9])) for _ in range(n)]


def shared(r: random.Random, n: int) -> dict[str, Any]:
    """Settings of both rules; each is left out more often than not."""
    by_row = lambda xs: [r.choice(xs) for _ in range(n)] if r.random() < 0.3 else r.choice(xs)
    given = {'init_cash': r.choice([100.0, 1_000.0, 12.5]), 'fees': by_row([0.001, 0.01, 0.1]), 'fixed_fees': by_row([0.1, 1.0]), 'slippage': by_row([0.01, 0.001]), 'min_size': by_row([0.5, 1.0]), 'max_size': by_row([1.0, 5.0]),
             'size_granularity': by_row([0.5, 1.0]), 'lock_cash': True, 'allow_partial': False, 'val_price': '-inf'}
    odds = {'init_cash': 0.5, 'fees': 0.5, 'fixed_fees': 0.25, 'slippage': 0.3, 'min_size': 0.1, 'max_size': 0.1, 'size_granularity': 0.15, 'lock_cash': 0.2, 'allow_partial': 0.12, 'val_price': 0.1}
    return {k: v for k, v in given.items() if r.random() < odds[k]}


def by_orders(r: random.Random) -> dict[str, Any]:
    close = series(r)
    kind = r.choice(['amount', 'amount', 'value', 'percent', 'targetamount', 'targetvalue', 'targetpercent'])
    scale = {'amount': 10, 'value': 60, 'percent': 1, 'targetamount': 10, 'targetvalue': 60, 'targetpercent': 1}[kind]
    sizes = [r.choice(['nan', 'inf' if kind == 'amount' else 1.0 * scale, '-inf' if kind == 'amount' else -1.0 * scale, round(r.uniform(-1, 1) * scale, 3) or 0.5, round(r.uniform(-1, 1) * scale, 3) or 0.5]) for _ in close]
    settings = shared(r, len(close)) | {'size': sizes, 'size_type': kind, 'direction': r.choice(['longonly', 'shortonly', 'both'])}
    if r.random() < 0.2: settings['price'] = [round(c * r.uniform(0.97, 1.03), 4) if r.random() < 0.9 else r.choice(['nan', 'inf', '-inf']) for c in close]
    if r.random() < 0.15 and 'val_price' not in settings: close[r.randrange(len(close))] = 'nan'  # type: ignore[call-overload]
    return {'rule': 'from_orders', 'close': close, 'settings': settings}


def by_signals(r: random.Random) -> dict[str, Any]:
    close = series(r)
    mask = lambda p: [r.random() < p for _ in close]
    p = r.choice([0.1, 0.3, 0.6])
    settings = shared(r, len(close)) | {'entries': mask(p), 'exits': mask(p)}
    if r.random() < 0.4: settings |= {'short_entries': mask(p), 'short_exits': mask(p)}
    else: settings['direction'] = r.choice(['longonly', 'shortonly', 'both'])
    if r.random() < 0.6: settings |= r.choice([{'size': 5.0}, {'size': 1.0}, {'size': [round(r.uniform(0.1, 9), 2) for _ in close]}, {'size': 40.0, 'size_type': 'value'}, {'size': 0.5, 'size_type': 'percent', 'upon_opposite_entry': 'close'}])
    if r.random() < 0.35: settings['accumulate'] = r.choice([True, 'addonly', 'removeonly'])
    for name, modes in (('upon_long_conflict', ['entry', 'exit', 'adjacent', 'opposite']), ('upon_short_conflict', ['entry', 'exit', 'adjacent', 'opposite']), ('upon_dir_conflict', ['long', 'short', 'adjacent', 'opposite'])):
        if r.random() < 0.4: settings[name] = r.choice(modes)
    if r.random() < 0.4: settings['upon_opposite_entry'] = r.choice(['ignore', 'close', 'closereduce', 'reverse'])
    if r.random() < 0.2: settings['price'] = '-inf'
    return {'rule': 'from_signals', 'close': close, 'settings': settings}


FIVE = [1.0, 2.0, 3.0, 4.0, 5.0]
WRITTEN = [      # as the library's own documentation and tests have them, one column at a time
    *({'rule': 'from_orders', 'close': [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] if up else [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 'settings': {'size': [s * x for x in (1, 0.1, -1, -0.1, 1, -2)], 'fees': 0.01, 'slippage': 0.01}} for up, s in ((True, 1), (False, -1))),
    *({'rule': 'from_signals', 'close': FIVE, 'settings': {'entries': [True, True, True, False, False], 'exits': [False, False, True, True, True], 'direction': d, **more}}
      for d in ('longonly', 'shortonly', 'both') for more in ({}, {'size': 1.0}, {'size': 1.0, 'accumulate': True}, {'size': 1.0, 'fees': 0.1}, {'size': 1.0, 'slippage': 0.1}, {'fixed_fees': 1.0}, {'size': 1.0, 'accumulate': 'addonly'})),
    *({'rule': 'from_orders', 'close': FIVE, 'settings': {'size': z, 'direction': d}} for d in ('longonly', 'shortonly', 'both') for z in (['inf', '-inf', 'nan', 'inf', '-inf'], ['inf', 'nan', '-inf', 'inf', '-inf'], [10.0, -5.0, 'nan', 1000.0, -10.0])),
]


def vectorbt_cases() -> Asked:
    r = random.Random(11)
    cases = [*WRITTEN, *(draw(r) for _ in range(50 * TIMES) for draw in (by_orders, by_signals))]
    return cases, ask('vectorbt_cases.py', cases)


def test_vectorbt_case_by_case(portfolios: Asked) -> None:
    """Orders, trades from both ends, positions, drawdowns, and value row by row; where it refuses, so do we."""
    cases, said = portfolios
    assert said['version'] in (ROOT / 'bench/peers/tables.txt').read_text()
    seen = {'orders': 0, 'errors': 0, 'desk': 0, 'falls': 0, 'empty': 0}
    for n, (case, theirs) in enumerate(zip(cases, said['results'])):
        where = str((n, case['rule'], case['settings']))
        if 'error' in theirs:
            seen['errors'] += 1
            with pytest.raises(BadInput): bought(case)
            continue
        r = bought(case)
        f = r.fills
        orders = np.array(theirs['orders']).reshape(-1, 4)
        assert len(f) == len(orders), where
        np.testing.assert_allclose(np.c_[f.row, f.size, f.price, f.fee], orders, rtol=1e-9, atol=1e-11, err_msg=where)
        last = float(read(case['close'])[-1])
        for name, trips in (('exits', r.trips), ('entries', entries := by_entry(f, last, len(r.close))), ('positions', positions(r.trips))):
            b = np.array(theirs[name], float).reshape(-1, 11)
            assert len(trips) == len(b), (name, where)
            np.testing.assert_allclose(records(trips), b, rtol=1e-7, atol=1e-8, err_msg=f'{name} {where}')
        assert entries.pnl.sum() == pytest.approx(r.trips.pnl.sum(), abs=1e-7, nan_ok=True)
        np.testing.assert_allclose(r.equity, np.array(theirs['value'], float), rtol=1e-9, atol=1e-9, err_msg=where)
        down = np.array(theirs['falls'], float).reshape(-1, 7)
        if all(g == 0 or g > 1e-9 for x in (theirs['value'], r.equity) for g in np.diff(np.sort(np.array(x, float)))):      # values that are equal but for rounding fall or do not
            np.testing.assert_allclose(np.column_stack(r.falls), down, rtol=1e-9, atol=1e-9, err_msg=where)
            seen['falls'] += len(down)
        seen['orders'] += len(f)
        seen['empty'] += not len(f)
        if r.fee is not None and len(f) and n % 4 == 0:
            again = r.desk()
            assert again.fills and again.price < 1e-7 and again.money < 1e-4, (where, again)
            seen['desk'] += 1
    assert seen['orders'] > 600 and seen['errors'] < len(cases) / 4 and seen['desk'] > 10 and seen['falls'] > 30, seen


def test_the_records_of_its_documentation() -> None:
    """The two columns of its own example of trade records, numbers as printed there."""
    up = from_orders([1, 2, 3, 4, 5, 6], [1, .1, -1, -.1, 1, -2], fees=.01, slippage=.01)
    down = from_orders([6, 5, 4, 3, 2, 1], [-1, -.1, 1, .1, -1, 2], fees=.01, slippage=.01)
    assert up.trips.pnl.round(6).tolist() == [1.827464, 0.280756, 0.7801, -0.1194] and up.trips.returns.round(6).tolist() == [1.658589, 2.548119, 0.154475, -0.020101]
    assert down.trips.pnl.round(4).tolist() == [1.7111, 0.2731, 0.9401, -0.0201] and positions(down.trips).pnl.round(5).tolist() == [1.98422, 0.9401, -0.0201]
    assert by_entry(up.fills, 6.0, 6).pnl.round(5).tolist() == [2.0093, 0.09892, 0.7801, -0.1194]
