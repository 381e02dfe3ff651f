"""Clean tables of bars of many kinds, faults put in at known places, and the score of a report: precision and recall by kind."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from gekko.data.calendar import calendar
from gekko.data.quality import QualityReport, check
from gekko.domain.time import duration, utc

PRICES = ('open', 'high', 'low', 'close')
SIDES = ('bid_', 'ask_')
FAULTS = ('duplicate', 'out_of_order', 'gap', 'nan', 'non_positive', 'crossed', 'spike', 'future', 'zone')


@dataclass
class Clean:
    name: str
    bar: str
    calendar: str
    frame: pd.DataFrame


# ---- clean data

def _bars(rng: np.random.Generator, close: np.ndarray, noise: np.ndarray, tick: float) -> pd.DataFrame:
    grid = lambda v: np.maximum(np.round(v / tick), 1) * tick
    close = grid(close)
    opened = np.append(close[0], close[:-1])
    high = grid(np.maximum(opened, close) * (1 + np.abs(rng.standard_t(5, len(close))) * noise))
    low = grid(np.minimum(opened, close) * (1 - np.minimum(np.abs(rng.standard_t(5, len(close))) * noise, 0.5)))
    return pd.DataFrame({'open': opened, 'high': np.maximum(high, np.maximum(opened, close)), 'low': np.minimum(low, np.minimum(opened, close)), 'close': close, 'volume': rng.gamma(2, 5, len(close))})


def synthetic(kind: str, seed: int, n: int, bar: str, start: str = '2024-01-01') -> Clean:
    """quiet, trending, jumping (crypto minutes), fx (two sides, weekends), coarse (a coin of few ticks), thin (mostly stands still)."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    step = {'quiet': 1e-4, 'trending': 5e-4, 'jumping': 8e-4, 'fx': 8e-5, 'coarse': 1.5e-3, 'thin': 2e-4}[kind] * rng.uniform(0.7, 1.4)
    vol = step * np.exp(0.5 * np.convolve(rng.normal(size=n + 199), np.ones(200) / np.sqrt(200), 'valid'))
    moves = vol * rng.standard_t(4, n) + (step / 4 if kind == 'trending' else 0)
    if kind == 'jumping': moves += np.where(rng.uniform(size=n) < 0.002, rng.normal(0, 0.03, n), 0)
    if kind == 'thin': moves = np.where(rng.uniform(size=n) < 0.7, 0, moves)
    first = {'quiet': 101.5, 'trending': 4_000, 'jumping': 37_000, 'fx': 1.25, 'coarse': 0.00045, 'thin': 12.0}[kind] * rng.uniform(0.8, 1.25)
    tick = {'quiet': 0.001, 'trending': 0.01, 'jumping': 0.01, 'fx': 0.00001, 'coarse': 0.000001, 'thin': 0.01}[kind]
    f = _bars(rng, first * np.exp(np.cumsum(moves)), vol if kind != 'thin' else np.zeros(n), tick)
    cal = '24/5' if kind == 'fx' else '24/7'
    starts = calendar(cal).expected(utc(start), utc(start) + 3 * n * duration(bar), bar)[:n]
    f.insert(0, 'timestamp', pd.to_datetime(starts, utc=True))
    if kind == 'fx':
        half = rng.uniform(0.00003, 0.0001, n)
        for c in PRICES: f['bid_' + c], f['ask_' + c] = f[c] - half, f[c] + half
        f = f.drop(columns=list(PRICES))
    return Clean(f'{kind}/{bar}/{seed}', bar, cal, f)


def reference(symbol: str) -> Clean:
    """A real daily series: closes only but for the indices, on the days that its exchange was open."""
    from gekko.data.reference import load_reference
    f = load_reference(symbol)
    days = f['timestamp'].astype('datetime64[ns, UTC]').astype('int64').to_numpy()
    return Clean(symbol, '1d', 'XNYS', f[np.isin(days, calendar('XNYS').expected(int(days[0]), int(days[-1]) + 1, '1d'))].reset_index(drop=True))


# ---- faults

@dataclass
class Pack:
    """`truth`: kind to rows of the table as it is (for a gap: the times that are missing). `touched`: rows that a fault changed, whatever the kind."""
    clean: Clean
    frame: pd.DataFrame
    now: int
    truth: dict[str, set[int]] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)
    holes: set[int] = field(default_factory=set)


def dirty(clean: Clean, seed: int, rates: dict[str, float]) -> Pack:
    """Faults of each kind in `rates` (share of the rows, one at least), on rows of their own, none at the very ends."""
    rng, f = np.random.default_rng([seed, 77]), clean.frame.copy()
    n, columns = len(f), [c for c in f.columns if c not in ('timestamp', 'volume')]
    ns = f['timestamp'].astype('datetime64[ns, UTC]').astype('int64').to_numpy().copy()
    bar = duration(clean.bar)
    now = int(ns[-1]) + bar
    free = rng.permutation(np.arange(2, n - 2))
    f['mark'], f['zone'] = '', 0
    used = 0
    def take(kind: str) -> np.ndarray:
        nonlocal used
        k = max(1, round(rates[kind] * n))
        rows = np.sort(free[used:used + k])
        used += k
        return rows
    for kind in ('nan', 'non_positive', 'spike', 'crossed', 'future', 'zone'):
        if kind not in rates or kind == 'crossed' and 'bid_close' not in columns: continue
        rows = take(kind)
        f.loc[rows, 'mark'] = kind
        for i in rows:
            if kind == 'nan': f.loc[i, rng.choice(columns)] = np.nan
            elif kind == 'non_positive':
                c = rng.choice(columns)
                f.loc[i, c] = rng.choice([0.0, -f.loc[i, c]])
            elif kind == 'spike':
                cells = columns if rng.uniform() < 0.3 else [c for c in columns if c == 'close'] or [rng.choice(columns)] if rng.uniform() < 0.5 else [rng.choice(columns)]
                f.loc[i, cells] *= rng.choice([100.0, 0.01])
            elif kind == 'crossed':
                c = rng.choice(PRICES)
                f.loc[i, ['bid_' + c, 'ask_' + c]] = f.loc[i, ['ask_' + c, 'bid_' + c]].to_numpy().copy()
            elif kind == 'future': ns[i] = now + int(rng.integers(1, 5_000)) * bar
            elif kind == 'zone': f.loc[i, 'zone'] = rng.choice([-5, -4, 1, 2, 9, 99])
    order, missing = np.arange(n), set[int]()
    if 'gap' in rates:
        gone = np.unique(np.concatenate([np.arange(i, min(i + rng.integers(1, 6), n - 2)) for i in take('gap')]))
        gone = gone[f['mark'].to_numpy()[gone] == '']
        missing = set(ns[gone].tolist())
        order = np.setdiff1d(order, gone)
    f['ns'], f['at'] = ns, np.arange(n)
    f = f.iloc[order].reset_index(drop=True)
    if 'out_of_order' in rates:
        perm, moved = np.arange(len(f)), set[int]()
        where = np.flatnonzero(f['mark'].to_numpy()[:-1] == '')
        for i in np.sort(rng.choice(where, max(1, round(rates['out_of_order'] * n)), replace=False)):
            if {i - 1, i, i + 1, i + 2} & moved or f['mark'].iloc[i + 1] != '': continue
            perm[[i, i + 1]] = perm[[i + 1, i]]
            moved |= {i, i + 1}
            f.loc[[i, i + 1], 'mark'] = ['swapped', 'out_of_order']
        marks = f['mark'].to_numpy()
        f = f.iloc[perm].reset_index(drop=True)
        f['mark'] = marks
    if 'duplicate' in rates:
        again = rng.choice(np.flatnonzero(f['mark'].to_numpy() == ''), max(1, round(rates['duplicate'] * n)), replace=False)
        more = f.iloc[again].assign(mark='duplicate')
        half = more.index[rng.uniform(size=len(more)) < 0.5]
        for c in columns: more.loc[half, c] *= 1.00001
        f = pd.concat([f.assign(k=np.arange(len(f), dtype=float)), more.assign(k=again + 0.5)]).sort_values('k', kind='stable', ignore_index=True)
    p = Pack(clean, _stamped(f, 'zone' in rates), now)
    p.truth = {k: set(np.flatnonzero(f['mark'] == k).tolist()) for k in rates if k != 'gap' and (k != 'crossed' or 'bid_close' in columns)}
    if 'gap' in rates: p.truth['gap'] = missing
    p.touched = set(np.flatnonzero(f['mark'] != '').tolist())
    p.holes = missing | set(clean.frame['timestamp'].astype('datetime64[ns, UTC]').astype('int64').to_numpy()[f.loc[f['mark'] == 'future', 'at']].tolist())
    return p


def _stamped(f: pd.DataFrame, mixed: bool) -> pd.DataFrame:
    """The table as somebody would hand it over: instants, or with faults of zone a column of text in which some rows are of another clock, and some (99) of none."""
    times = pd.to_datetime(f['ns'], utc=True)
    if mixed: stamps: Any = [t.tz_localize(None).isoformat() if z == 99 else t.tz_convert(f'Etc/GMT{-z:+d}' if z else 'UTC').isoformat() for t, z in zip(times, f['zone'])]
    else: stamps = times
    out = f.drop(columns=[c for c in ('mark', 'zone', 'ns', 'at', 'k') if c in f])
    out['timestamp'] = stamps
    return out


# ---- the score

def score(p: Pack, r: QualityReport | None = None) -> Counter[tuple[str, str]]:
    """Hits, misses and false findings by kind.

    A row counts once for a kind, however many of its columns are named. A gap is counted in missing bars. A finding is false when no fault of its kind was put
    there; but what a fault brings about is true: the hole that a stamp moved into the future leaves, a high below a close that was multiplied, a bid above its ask because of either."""
    r = r if r is not None else check(p.frame, p.clean.bar, p.clean.calendar, p.now)
    out: Counter[tuple[str, str]] = Counter()
    bar, cal = duration(p.clean.bar), calendar(p.clean.calendar)
    shaken = p.truth.get('crossed', set()) | p.truth.get('spike', set()) | p.truth.get('non_positive', set()) | p.truth.get('nan', set())
    for kind in {*p.truth, *(x.kind for x in r.flags)}:
        true = p.truth.get(kind, set())
        if kind == 'gap':
            found: set[int] = set()
            for x in r.of('gap'):
                found |= set(cal.expected(x.ts, x.ts + 4 * x.bars * bar + 10 * 86_400 * 10**9, bar)[:x.bars].tolist())
            wrong = found - true - p.holes   
        else:
            found = {x.row for x in r.of(kind)}
            wrong = found - true - (shaken if kind in ('ohlc', 'crossed') else set())
        out[kind, 'hit'] += len(found & true)
        out[kind, 'missed'] += len(true - found)
        out[kind, 'false'] += len(wrong)
    return out


def table(total: Counter[tuple[str, str]]) -> pd.DataFrame:
    """Precision and recall by kind."""
    rows = []
    for kind in sorted({k for k, _ in total}):
        hit, missed, false = (total[kind, x] for x in ('hit', 'missed', 'false'))
        rows.append((kind, hit + missed, hit, missed, false, hit / max(hit + false, 1) if hit + false else 1.0, hit / max(hit + missed, 1) if hit + missed else 1.0))
    return pd.DataFrame(rows, columns=['kind', 'injected', 'hit', 'missed', 'false', 'precision', 'recall']).set_index('kind')


def rates(rng: np.random.Generator, kinds: tuple[str, ...]) -> dict[str, float]:
    """Each kind at a rate of its own, from one row in the table to 2 %."""
    return {k: float(rng.choice([0.0, 0.0005, 0.002, 0.005, 0.02])) for k in kinds}
