"""Faults put in by hand are found, sound data are left in peace, and nothing is changed."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from gekko.data.quality import KINDS, check, longest_honest_run
from gekko.domain.time import MINUTE, utc

N = 6_000
FIRST = utc('2024-01-01')


def sound(seed, n=N):
    """Minutes of a market with fat tails and clustered volatility: no fault, but everything that a naive threshold takes for one."""
    rng = np.random.default_rng(seed)
    vol = 0.0006 * np.exp(0.6 * np.convolve(rng.normal(size=n + 299), np.ones(300) / np.sqrt(300), 'valid'))
    jumps = np.where(rng.uniform(size=n) < 0.001, rng.normal(0, 0.02, n), 0.0)
    close = 30_000 * np.exp(np.cumsum(vol * rng.standard_t(4, n) + jumps))
    open_ = np.append(close[0], close[:-1])
    reach = 30_000 * vol * np.abs(rng.standard_t(5, (2, n)))
    high, low = np.fmax(open_, close) + reach[0], np.fmin(open_, close) - reach[1]
    t = pd.date_range('2024-01-01', periods=n, freq='min', tz='UTC')
    return pd.DataFrame({'timestamp': t, 'open': open_, 'high': high, 'low': low, 'close': close, 'volume': rng.gamma(2, 5, n)})


def pick(rng, n, k, apart=40):
    """k positions, `apart` rows from each other and from the ends."""
    slots = rng.choice(np.arange(1, n // apart - 1), k, replace=False)
    return np.sort(slots * apart + rng.integers(0, apart // 2, k))


def injected(kind, seed):
    """A table with 25 faults of one kind, and the rows (in the table as given) or the times that a finding must name."""
    rng, f = np.random.default_rng(1000 + seed), sound(seed)
    at = pick(rng, N, 25)
    t = FIRST + at * MINUTE
    if kind == 'spike':
        f.loc[at, 'close'] *= 1 + rng.choice([-1, 1], 25) * rng.uniform(0.1, 0.5, 25)
        f['high'], f['low'] = f[['open', 'high', 'close']].max(axis=1), f[['open', 'low', 'close']].min(axis=1)
    elif kind == 'wick': f.loc[at, 'high'] *= 1 + rng.uniform(0.2, 0.5, 25)
    elif kind == 'stale':
        for i in at: f.loc[i:i + 14, ['open', 'high', 'low', 'close']] = f.loc[i - 1, 'close']
    elif kind == 'gap':
        keep = np.ones(N, dtype=bool)
        for i in at: keep[i:i + rng.integers(1, 9)] = False
        f = f[keep].reset_index(drop=True)
    elif kind == 'duplicate':
        f = pd.concat([f, f.iloc[at].assign(close=lambda x: x['close'] * 1.0001)]).sort_values('timestamp', kind='stable', ignore_index=True)
    elif kind == 'out_of_order':
        order = np.arange(N)
        for i in at: order[[i, i + 1]] = order[[i + 1, i]]
        f = f.iloc[order].reset_index(drop=True)
    elif kind == 'ohlc': f.loc[at, 'high'] = f.loc[at, ['open', 'close']].min(axis=1) * 0.9999
    elif kind == 'non_positive': f.loc[at, 'low'] = rng.choice([0.0, -1.0], 25)
    elif kind == 'nan': f.loc[at, 'close'] = np.nan
    elif kind == 'negative_volume': f.loc[at, 'volume'] *= -1
    elif kind == 'crossed':
        half = f['close'] * 0.0001
        f = f.assign(bid_close=f['close'] - half, ask_close=f['close'] + half)
        f.loc[at, 'bid_close'] = f.loc[at, 'ask_close'] * 1.0001
    elif kind == 'off_grid': f.loc[at, 'timestamp'] += pd.Timedelta('7s')
    return f, at, t


SEEDS = range(5)


@pytest.mark.parametrize('kind', ['spike', 'wick', 'stale', 'gap', 'duplicate', 'out_of_order', 'ohlc', 'non_positive', 'nan', 'negative_volume', 'crossed', 'off_grid'])
def test_precision_and_recall_on_injected_faults(kind):
    """Over five seeded packs of 25 faults each: the exact kinds must be perfect, the judged ones nearly so."""
    hit = told = given_ = 0
    for seed in SEEDS:
        f, at, t = injected(kind, seed)
        flags = check(f, '1m').of('spike' if kind == 'wick' else kind)
        if kind in ('spike', 'wick'): found, true = {f.row for f in flags}, set(at.tolist()) | ({i + 1 for i in at.tolist()} if kind == 'spike' else set())
        elif kind in ('stale', 'gap'): found, true = {f.ts for f in flags}, set(t.tolist())
        elif kind == 'duplicate': found, true = {f.ts for f in flags}, set(t.tolist())
        elif kind == 'off_grid': found, true = {f.row for f in flags}, set(at.tolist())
        elif kind == 'out_of_order': found, true = {f.row for f in flags}, {i + 1 for i in at.tolist()}
        else: found, true = {f.row for f in flags}, set(at.tolist())
        starts = set(at.tolist()) if kind == 'spike' else true
        hit, told, given_ = hit + len(found & starts), told + len(found - true), given_ + len(starts)
    precision, recall = hit / max(hit + told, 1), hit / given_
    print(f'{kind}: precision {precision:.3f}, recall {recall:.3f} of {given_}')
    exact = kind not in ('spike', 'wick', 'stale')
    assert (precision, recall) == (1.0, 1.0) if exact else precision >= 0.97 and recall >= 0.97


def test_sound_data_are_left_in_peace():
    """Thirty thousand rows with fat tails, clustered volatility and thirty real jumps: no jump is taken for a spike."""
    assert sum((pd.Series([f.kind for s in SEEDS for f in check(sound(s), '1m').flags])).value_counts()) <= 2


@settings(max_examples=40, deadline=None)
@given(drop=st.sets(st.integers(1, 58), max_size=20), twice=st.sets(st.integers(0, 59), max_size=5), seed=st.integers(0, 99))
def test_gaps_and_repeats_are_counted_exactly(drop, twice, seed):
    f = sound(seed, 60)
    f = pd.concat([f.drop(index=sorted(drop)), f.iloc[sorted(twice - drop)]], ignore_index=True)
    before, r = f.copy(deep=True), check(f, '1m')
    assert r.bars('gap') == len(drop) and len(r.of('duplicate')) == len(twice - drop)
    runs = sum(1 for i in drop if i - 1 not in drop)
    assert len(r.of('gap')) == runs and r.rows == len(f)
    pd.testing.assert_frame_equal(f, before)
    assert set(r.counts) <= set(KINDS) and sum(r.counts.values()) == len(r.flags) == len(r.frame())


def test_a_year_of_new_york_hours_through_both_clock_changes():
    from gekko.data.calendar import calendar
    for bar in ('1h', '2h'):
        starts = calendar('XNYS').expected(utc('2021-01-01'), utc('2022-01-01'), bar)
        f = pd.DataFrame({'timestamp': pd.to_datetime(starts, utc=True), 'close': 100 + np.random.default_rng(0).normal(0, 0.1, len(starts)).cumsum()})
        assert check(f, bar, 'XNYS').ok
        lost = check(f.drop(index=[100, 101, 900]), bar, 'XNYS')
        assert lost.counts == {'gap': 2} and lost.bars('gap') == 3


def test_the_clock_grid_of_a_vendor_is_no_defect():
    days = pd.date_range('2024-03-04 22:00', '2024-03-28 22:00', tz='UTC', freq='D')
    f = pd.DataFrame({'timestamp': days[days.day_of_week.isin([0, 1, 2, 3, 6])], 'close': 1.0 + np.arange(19) % 5})
    assert check(f, '1d', '24/5').counts == {}


def test_the_future_is_what_has_not_closed():
    f = sound(0, 10)
    now = FIRST + 9 * MINUTE + 30 * 10**9
    assert [x.row for x in check(f, '1m', now=now).of('future')] == [9]
    assert check(f, '1m', now=FIRST + 10 * MINUTE).ok and check(f, '1m').ok


def test_a_thin_market_repeats_itself_honestly():
    rng = np.random.default_rng(3)
    moves = np.where(rng.uniform(size=4_000) < 0.6, 0.0, rng.choice([-0.01, 0.01], 4_000))
    f = pd.DataFrame({'timestamp': pd.date_range('2024-01-01', periods=4_000, freq='min', tz='UTC'), 'close': 50 + moves.cumsum().round(2)})
    assert not check(f, '1m').of('stale')
    assert longest_honest_run(4_000, 0.6) > 30


REAL = {'btc_perp_1m_202201': ('1m', '24/7', {'spike': 1}), 'eth_btc_5m_2018': ('5m', '24/7', {}), 'gbpusd_m1_2012': ('1m', '24/5', {'gap': 110, 'crossed': 1471, 'spike': 2})}


def synthetic(name):
    """A file of the same form and the same defects as the real one, for a checkout without it: the same check, the same counts."""
    n, freq = {'btc_perp_1m_202201': (45_031, 'min'), 'eth_btc_5m_2018': (5_760, '5min'), 'gbpusd_m1_2012': (41_761, 'min')}[name]
    rng = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.0005, n)))
    open_ = np.append(close[0], close[:-1])
    f = pd.DataFrame({'timestamp': pd.date_range('2012-02-01', periods=n, freq=freq, tz='UTC'), 'open': open_, 'high': np.fmax(open_, close) * 1.0003, 'low': np.fmin(open_, close) * 0.9997, 'close': close, 'volume': 1.0})
    if name == 'btc_perp_1m_202201': f.loc[20_000, 'high'] *= 1.1
    if name != 'gbpusd_m1_2012': return f
    from gekko.data.calendar import calendar
    for c in ('open', 'high', 'low', 'close'): f['bid_' + c], f['ask_' + c] = f[c] - 0.0001, f[c] + 0.0001
    f = f[calendar('24/5').open_in(f['timestamp'].astype('datetime64[ns, UTC]').astype('int64').to_numpy(), '1m')].reset_index(drop=True)
    for c, k in {'open': 347, 'high': 523, 'low': 254, 'close': 347}.items():
        i = np.arange(k) * 50 + 10
        f.loc[i, 'bid_' + c] = f.loc[i, 'ask_' + c] + 0.0001
    lost = np.arange(110) * 200 + 105
    for i in (5_000, 9_000): f.loc[i, ['close', 'bid_close', 'ask_close']] *= 1.05
    f['high'] = f[['high', 'close']].max(axis=1)
    for side in ('bid_', 'ask_'): f[side + 'high'] = f[[side + 'high', side + 'close']].max(axis=1)
    lost = np.setdiff1d(lost, [5_000, 9_000])
    return f.drop(index=np.append(lost[:96], lost[96:110]))


@pytest.mark.parametrize('name', REAL)
def test_real_series_have_the_defects_that_were_measured(name, shared_data):
    bar, cal, counts = REAL[name]
    if shared_data is not None:
        from gekko.data.reading import read_table
        f = read_table(shared_data / f'{name}.parquet')
    else: f = synthetic(name)
    r = check(f, bar, cal)
    assert r.counts == counts
    if 'crossed' in counts: assert pd.Series([x.column for x in r.of('crossed')]).value_counts().to_dict() == {'bid_high': 523, 'bid_open': 347, 'bid_close': 347, 'bid_low': 254}


def test_the_last_day_of_long_months_is_frozen_in_a_known_series(shared_data):
    """ETTh1 repeats one value through the 31st of every month that has one; it is found without being looked for."""
    if shared_data is not None: f = pd.read_parquet(shared_data / 'etth1.parquet')[['timestamp', 'OT']].rename(columns={'OT': 'close'})
    else:
        t = pd.date_range('2016-07-01', '2018-06-26 19:00', freq='h', tz='UTC')
        f = pd.DataFrame({'timestamp': t, 'close': 30 + np.random.default_rng(5).normal(0, 0.5, len(t)).cumsum() * 0.1})
        f['close'] = f['close'].where(t.day != 31, f['close'].groupby(t.date).transform('first'))
        f = f[~((t.day == 31) & ~t.month.isin([1, 3, 5, 7, 8, 10, 12]))]
    frozen = [pd.Timestamp(x.ts, tz='UTC') for x in check(f, '1h').of('stale')]
    assert len(frozen) >= 13 and all(d.day == 31 for d in frozen)
