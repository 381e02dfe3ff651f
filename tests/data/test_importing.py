"""Files of many dialects mean the same table, files that mean two are refused, and an import is there wholly or not at all."""
import gzip
import io
import subprocess
import sys
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from gekko.data.importing import guess_instrument, guess_tick, import_bars, read_symbol, read_table, to_bars
from gekko.data.reading import open_table
from gekko.data.stamps import to_instants
from gekko.data.store import Store
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.time import MINUTE, SimClock, utc

OHLC = ['open', 'high', 'low', 'close']


def prices(n=60, first='2024-03-25 10:00', freq='min', seed=0):
    """Two decimals, no fault, and days above the twelfth."""
    rng = np.random.default_rng(seed)
    close = (1_500 + rng.normal(0, 1, n).cumsum()).round(2)
    open_ = np.append(close[0], close[:-1])
    high, low = (np.fmax(open_, close) + 0.5).round(2), (np.fmin(open_, close) - 0.5).round(2)
    return pd.DataFrame({'timestamp': pd.date_range(first, periods=n, freq=freq, tz='UTC').as_unit('ns'), 'open': open_, 'high': high, 'low': low, 'close': close, 'volume': rng.integers(1, 99, n).astype(float)})


def csv_of(f, form, sep=',', names=('time', 'open', 'high', 'low', 'close', 'volume'), number=lambda x: f'{x:.2f}', tz='UTC'):
    t = f['timestamp'].dt.tz_convert(tz)
    stamps = form(t) if callable(form) else t.dt.strftime(form)
    rows = [sep.join(names)] + [sep.join([str(s), *(number(x) for x in r)]) for s, r in zip(stamps, f[OHLC + ['volume']].to_numpy())]
    return '\n'.join(rows) + '\n'


def epoch(ns): return lambda t: t.astype('int64') // ns


def comma(x): return f'{x:.2f}'.replace('.', ',')


def european(x): return f'{x:,.2f}'.translate(str.maketrans('.,', ',.'))


F = '%Y-%m-%d %H:%M:%S'
DIALECTS = {
    'iso z': csv_of(prices(), '%Y-%m-%dT%H:%M:%SZ'), 'iso offset': csv_of(prices(), '%Y-%m-%d %H:%M:%S%z', tz='Asia/Tokyo'), 'iso no zone': csv_of(prices(), F), 'iso micro': csv_of(prices(), '%Y-%m-%d %H:%M:%S.%f'),
    'minutes only': csv_of(prices(), '%Y-%m-%d %H:%M'), 'slashes': csv_of(prices(), '%Y/%m/%d %H:%M:%S'), 'compact': csv_of(prices(), '%Y%m%d %H%M%S'), 'compact one': csv_of(prices(), '%Y%m%d%H%M%S'),
    'us': csv_of(prices(), '%m/%d/%Y %H:%M'), 'us pm': csv_of(prices(), '%m/%d/%Y %I:%M:%S %p'), 'british': csv_of(prices(), '%d/%m/%Y %H:%M'), 'german': csv_of(prices(), '%d.%m.%Y %H:%M:%S', ';', number=comma),
    'german thousands': csv_of(prices(), '%d.%m.%Y %H:%M:%S', ';', number=european), 'named month': csv_of(prices(), '%d-%b-%Y %H:%M:%S'), 'dukascopy': csv_of(prices(), '%d.%m.%Y %H:%M:%S.000 GMT+0100', names=('Local time', 'Open', 'High', 'Low', 'Close', 'Volume'), tz='Etc/GMT-1'),
    'epoch s': csv_of(prices(), epoch(10**9)), 'epoch ms': csv_of(prices(), epoch(10**6)), 'epoch us': csv_of(prices(), epoch(10**3)), 'epoch ns': csv_of(prices(), epoch(1)), 'epoch float': csv_of(prices(), lambda t: (t.astype('int64') / 1e9).map('{:.3f}'.format)),
    'tabs': csv_of(prices(), F, '\t'), 'bars of text': csv_of(prices(), F, '|'), 'spaces after commas': csv_of(prices(), F, ', '), 'short names': csv_of(prices(), F, names=('t', 'o', 'h', 'l', 'c', 'v')),
    'capitals': csv_of(prices(), F, names=('DATE', 'OPEN', 'HIGH', 'LOW', 'CLOSE', 'VOL')), 'camel': csv_of(prices(), F, names=('openTime', 'openPrice', 'highPrice', 'lowPrice', 'closePrice', 'Volume')), 'numbered': csv_of(prices(), F, names=('timestamp', '1. open', '2. high', '3. low', '4. close', '5. volume')),
    'quoted': csv_of(prices(), F, '","').replace('\n', '"\n"').join(('"', ''))[:-1], 'quoted thousands': csv_of(prices(), F, '","', number='{:,.2f}'.format).replace('\n', '"\n"').join(('"', ''))[:-1], 'dollars': csv_of(prices(), F, number='${:.2f}'.format),
    'index': csv_of(prices(), F, names=('', 'open', 'high', 'low', 'close', 'volume')), 'bom': '\ufeff' + csv_of(prices(), F), 'crlf': csv_of(prices(), F).replace('\n', '\r\n'), 'no last newline': csv_of(prices(), F).rstrip('\n'),
    'comment': '# from somewhere\n' + csv_of(prices(), F), 'preamble': 'https://www.example.com/prices\n' + csv_of(prices(), F), 'metatrader': csv_of(prices(), '%Y.%m.%d\t%H:%M:%S', '\t', names=('<DATE>', '<TIME>', '<OPEN>', '<HIGH>', '<LOW>', '<CLOSE>', '<TICKVOL>')),
    'date and clock': csv_of(prices(), '%d/%m/%Y,%H:%M', names=('Date', 'Time', 'Open', 'High', 'Low', 'Close', 'Volume')), 'digits of a clock': csv_of(prices(), '%Y%m%d,%H%M%S', names=('date', 'time', 'o', 'h', 'l', 'c', 'v')), 'no header': csv_of(prices(), '%Y%m%d %H%M%S', ';').split('\n', 1)[1],
    'a day without leading zeros': csv_of(prices(), lambda t: t.dt.strftime('%d/%m/%Y ') + t.dt.hour.astype(str) + t.dt.strftime(':%M')),
}


def save(folder, content, name='file.csv'):
    path = Path(folder, name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize('name', DIALECTS)
def test_every_dialect_is_the_same_table(name, tmp_path):
    pd.testing.assert_frame_equal(read_table(save(tmp_path, DIALECTS[name]))[['timestamp', *OHLC, 'volume']], prices(), check_exact=True)


@pytest.mark.parametrize('pack', ['plain', 'gzip', 'zip', 'utf-16', 'parquet', 'parquet index', 'feather', 'parquet decimals', 'parquet dates as text'])
def test_every_container_is_the_same_table(pack, tmp_path):
    f, text = prices(), csv_of(prices(), F)
    out = io.BytesIO()
    if pack == 'gzip': out.write(gzip.compress(text.encode()))
    elif pack == 'zip':
        with zipfile.ZipFile(out, 'w') as z: z.writestr('prices.csv', text)
    elif pack == 'utf-16': out.write(text.encode('utf-16'))
    elif pack == 'parquet': f.to_parquet(out)
    elif pack == 'parquet index': f.set_index('timestamp').rename_axis(None).to_parquet(out)
    elif pack == 'feather': f.to_feather(out)
    elif pack == 'parquet decimals': f.assign(**{c: f[c].map(lambda x: Decimal(str(x))) for c in OHLC}).to_parquet(out)
    elif pack == 'parquet dates as text': f.assign(timestamp=f['timestamp'].astype(str)).to_parquet(out)
    else: out.write(text.encode())
    # the name says nothing: the bytes do
    pd.testing.assert_frame_equal(read_table(save(tmp_path, out.getvalue(), 'file.dat')), f, check_exact=True)


def test_a_local_clock_is_moved_and_a_date_is_not(tmp_path):
    f = prices(first='2024-03-25 13:30')
    local = csv_of(f, F, tz='America/New_York')
    pd.testing.assert_frame_equal(read_table(save(tmp_path, local), tz='America/New_York'), f, check_exact=True)
    daily = 'Date,Close\n2024-03-08,1.0\n2024-03-11,2.0\n'
    assert read_table(save(tmp_path, daily), tz='Asia/Tokyo')['timestamp'].dt.strftime('%m-%dT%H').tolist() == ['03-08T00', '03-11T00']


REFUSED = {
    'nothing': ('', 'an empty file'), 'white space': (' \n\n', 'an empty file'), 'a header alone': ('time,close\n', 'no rows'), 'no time': ('open,high,low,close\n1,2,0.5,1\n', 'no time column'),
    'an index of numbers': (',close\n0,1.0\n1,1.1\n', 'no time column'), 'no price': ('time,foo,bar\n2024-03-05,1,2\n', 'no price column'), 'half a bar': ('time,high,low,close\n2024-03-05,1,1,1\n', 'a bar without open'),
    'ambiguous day': ('Date,Close\n03/04/2024,1\n03/05/2024,1\n', 'cannot be told apart'), 'two orders': ('Date,Close\n25/03/2024,1\n03/26/2024,1\n', 'two orders'), 'short year': ('Date,Close\n25/03/24,1\n', 'not a time'),
    'mixed zones': ('time,close\n2024-03-05T10:00Z,1\n2024-03-05T10:01,1\n', 'some times have a zone'), 'an hour twice': ('time,close\n2024-10-27 02:30,1\n2024-10-27 03:30,1\n', 'twice or never'),
    'a missing time': ('time,close\n2024-03-05T10:00Z,1\n,1\n', 'without a time'), 'a unit that changes': ('time,close\n1709632800000,1\n1709632860000000,1\n', 'the unit of time changes'),
    'a number that is no time': ('time,close\n1,1\n2,1\n', 'not a time'), 'a word for a price': ('time,close\n2024-03-05,1\n2024-03-06,n.m.\n', 'not a number'), 'ragged': ('time,close\n2024-03-05,1\n2024-03-06,1,2\n', 'cannot be read as a table'),
    'too wide': ('time,close\n2024-03-05,1,9\n2024-03-06,1,2\n', 'no header'), 'prose': ('It was a dark and stormy night.\n', 'not a table|no time column|no header|no rows'), 'a picture': (b'\x89PNG\r\n\x1a\n\x00\x00\x00', 'not a table of text'),
    'torn parquet': (b'PAR1' + b'\x00' * 40, 'cannot be read'), 'torn gzip': (gzip.compress(b'time,close\n' * 99)[:30], 'cannot be unpacked'), 'two closes': ('time,Close,close\n2024-03-05,1,2\n', 'two columns for close'),
    'a comma that is two things': ('time\tclose\n2024-03-05\t1,234\n', 'decimal or thousands'), 'the end of a bar': ('close_time,close\n2024-03-05T10:01Z,1\n', 'names the end'), 'two symbols': ('time,symbol,close\n2024-03-05,A,1\n2024-03-05,B,1\n', 'several symbols'),
    'NaN': ('time,close\n2024-03-05T10:00Z,1\n2024-03-05T10:01Z,NaN\n', 'not a number.*row 1 at 2024-03-05T10:01:00Z'), 'infinite': ('time,close\n2024-03-05T10:00Z,1\n2024-03-05T10:01Z,inf\n', 'not a number'),
    'zero': ('time,close\n2024-03-05T10:00Z,1\n2024-03-05T10:01Z,0\n', 'zero or less'), 'one time twice': ('time,close\n2024-03-05T10:00Z,1\n2024-03-05T10:00Z,2\n', 'two rows for one time.*row 0 in row 1'),
    'rows too close': ('time,close\n2024-03-05T10:00:00Z,1\n2024-03-05T10:00:30Z,2\n', 'closer than a bar'), 'a longer bar': (csv_of(prices(freq='5min'), F), 'the rows are 5m apart'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_a_series_is_refused_and_nothing_changes(name, tmp_path):
    content, why = REFUSED[name]
    store = Store(tmp_path / 'store')
    with pytest.raises(BadInput, match=why) as e: import_bars(store, save(tmp_path, content), 'X', '1m', tz='Europe/Berlin' if name == 'an hour twice' else 'UTC')
    assert e.value.exit_code == 2 and 'file.csv' in str(e.value)
    assert not Path(store.root).exists()


TOKENS = ['', '"', ',', ';', '\t', '\n', 'nan', '-', '1e999', '99999999999999999999', '2024-02-30', '31/12/1999', 'Z', '+99:99', 'time', 'Date', 'close', '\x00', 'é', '[', '1,5', '25:61', '|', ' ']
cuts = st.tuples(st.floats(0, 1), st.integers(0, 15), st.sampled_from(TOKENS))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(DIALECTS)), lines=st.sampled_from([2, 4, 20]), damage=st.lists(cuts, min_size=1, max_size=4))
def test_a_damaged_file_is_read_or_refused_and_never_a_crash(name, lines, damage, tmp_path_factory):
    text = '\n'.join(DIALECTS[name].split('\n')[:lines])
    for at, cut, token in damage:
        i = int(at * len(text))
        text = text[:i] + token + text[i + cut:]
    folder = tmp_path_factory.mktemp('d')
    try: assert import_bars(Store(folder / 'store'), save(folder, text), 'X', '1m').rows > 0
    except BadInput: assert not (folder / 'store').exists()


def test_what_a_file_leaves_open_is_settled_by_a_word(tmp_path):
    us = save(tmp_path, REFUSED['ambiguous day'][0])
    assert read_table(us, dates='mdy')['timestamp'].dt.strftime('%m-%d').tolist() == ['03-04', '03-05']
    assert read_table(us, dates='dmy')['timestamp'].dt.strftime('%m-%d').tolist() == ['04-03', '05-03']
    tab = save(tmp_path, REFUSED['a comma that is two things'][0])
    assert [read_table(tab, decimal=d)['close'][0] for d in ',.'] == [1.234, 1234.0]
    assert read_table(save(tmp_path, REFUSED['no price'][0]), columns={'close': 'bar'})['close'].tolist() == [2.0]
    with pytest.raises(BadInput, match="no column 'baz'"): read_table(save(tmp_path, 'time,foo\n2024-03-05,1\n'), columns={'close': 'baz'})


def test_stamps_of_the_end_of_a_bar(tmp_path):
    for shift in (0, 1, 1_000):   # the end, or the last millisecond or second before it
        f = prices()
        f['timestamp'] += pd.Timedelta(60_000 - shift, unit='ms')
        store = Store(tmp_path / f'store{shift}')
        import_bars(store, save(tmp_path, csv_of(f, '%Y-%m-%dT%H:%M:%S.%fZ')), 'X', '1m', stamp='end')
        pd.testing.assert_frame_equal(store.frame('X', '1m'), prices(), check_exact=True)


def test_days_at_another_midnight(tmp_path):
    f = prices(40, '2024-02-20', 'D').assign(timestamp=lambda x: x['timestamp'].dt.tz_localize(None).dt.tz_localize('America/New_York').dt.tz_convert('UTC'))
    path, store = save(tmp_path, csv_of(f, '%Y-%m-%dT%H:%M:%SZ')), Store(tmp_path / 'store')
    with pytest.raises(BadInput, match='need that tz'): import_bars(store, path, 'X', '1d')
    import_bars(store, path, 'X', '1d', tz='America/New_York')
    assert (store.read(['X'], '1d').start % (1440 * MINUTE) == 0).all() and store.list()[0].first == utc('2024-02-20')


def test_two_sides_make_the_middle_and_stay(tmp_path):
    f, store = prices(), Store(tmp_path / 'store')
    sides = pd.DataFrame({'time': f['timestamp'], **{f'{s}{c}': f[c] + d for s, d in (('bid', -0.01), ('ask', 0.01)) for c in OHLC}})
    r = import_bars(store, save(tmp_path, sides.to_csv(index=False)), 'EUR/USD', '1m')
    got = store.frame('EUR/USD', '1m')
    np.testing.assert_allclose(got[OHLC], f[OHLC], rtol=1e-12)
    np.testing.assert_array_equal(got['ask_high'], sides['askhigh'])
    assert (r.instrument.kind, r.instrument.tick) == ('fx', Decimal('0.01')) and 'no volume column: volume is 0' in r.notes


@settings(max_examples=50, deadline=None)
@given(seconds=st.lists(st.integers(0, 900), min_size=1, max_size=60), seed=st.integers(0, 9), bar=st.sampled_from(['1m', '5m', '30s']))
def test_trades_make_the_bars_that_a_loop_makes(seconds, seed, bar):
    from gekko.domain.time import duration
    rng, t = np.random.default_rng(seed), np.array(seconds) * 10**9 + utc('2024-03-05T10:00Z')
    p, q = rng.integers(90, 110, len(t)).astype(float), rng.integers(1, 5, len(t)).astype(float)
    f = pd.DataFrame({'timestamp': pd.to_datetime(t, utc=True), 'open': p, 'high': p, 'low': p, 'close': p, 'volume': q})
    want = {}
    for i in sorted(range(len(t)), key=lambda i: t[i]):
        start = int(t[i]) // duration(bar) * duration(bar)
        o, h, l, _, v = want.get(start, (p[i], p[i], p[i], p[i], 0.0))
        want[start] = (o, max(h, p[i]), min(l, p[i]), p[i], v + q[i])
    got = to_bars(f, bar)
    assert {int(s): tuple(r) for s, r in zip(got['timestamp'].astype('int64'), got[[*OHLC, 'volume']].to_numpy())} == want


@settings(max_examples=80, deadline=None)
@given(ns=st.lists(st.integers(utc('1980-01-02'), utc('2099-12-30')), min_size=1, max_size=5), unit=st.sampled_from([1, 10**3, 10**6, 10**9]), text=st.booleans())
def test_an_epoch_of_any_unit_is_itself(ns, unit, text):
    counts = pd.Series([n // unit for n in ns])
    if unit == 10**9 and counts.min() < 10**8 * 9 and text: return   # nine digits of text begin in 1998
    assert to_instants(counts.astype(str) if text else counts, 't').tolist() == [n // unit * unit for n in ns]


@settings(max_examples=80, deadline=None)
@given(ns=st.lists(st.integers(utc('1980-01-02'), utc('2099-12-30')), min_size=1, max_size=5), digits=st.integers(0, 9), zone=st.sampled_from(['', 'Z', '+05:30', '-0800']))
def test_iso_text_of_any_precision_is_exact(ns, digits, zone):
    kept = [n // 10**(9 - digits) * 10**(9 - digits) for n in ns]
    texts = [pd.Timestamp(n).strftime('%Y-%m-%dT%H:%M:%S') + (f'.{n % 10**9:09d}'[:digits + 1] if digits else '') + zone for n in kept]
    shift = {'': 0, 'Z': 0, '+05:30': 330, '-0800': -480}[zone] * MINUTE
    assert to_instants(pd.Series(texts), 't').tolist() == [n - shift for n in kept]


@settings(max_examples=60, deadline=None)
@given(step=st.sampled_from(['0.01', '0.25', '0.5', '0.00001', '1', '5', '0.125', '0.0005']), at=st.integers(1_000, 90_000), seed=st.integers(0, 9))
def test_the_tick_is_found_from_the_prices(step, at, seed):
    k = at + np.random.default_rng(seed).integers(0, 3_000, 2_000)
    assert guess_tick(k * float(step)) == Decimal(step)


def test_symbols_of_many_venues():
    want = {'BTC-PERP': ('BTC', 'USD', 'perp'), 'BTCPERP': ('BTC', 'USD', 'perp'), 'BTC-USDT-SWAP': ('BTC', 'USDT', 'perp'), 'ETH/USDT:USDT': ('ETH', 'USDT', 'perp'), 'BTC-USD': ('BTC', 'USD', 'crypto'), 'BTCUSDT': ('BTC', 'USDT', 'crypto'),
            'ethbtc': ('ETH', 'BTC', 'crypto'), 'EUR_USD': ('EUR', 'USD', 'fx'), 'GBPUSD': ('GBP', 'USD', 'fx'), 'USDJPY': ('USD', 'JPY', 'fx'), 'XAUUSD': ('XAU', 'USD', 'commodity'), 'MSFT': ('MSFT', 'USD', 'equity'), 'PERP': ('PERP', 'USD', 'equity'), 'USD': ('USD', 'USD', 'equity')}
    assert {s: read_symbol(s) for s in want} == want


def test_an_instrument_is_kept_given_or_made_finer(tmp_path):
    store = Store(tmp_path / 'store')
    mine = Instrument('BTC-PERP', 'BTC', 'USD', 'perp', Decimal('0.01'), Decimal('0.001'), venue='ftx')
    f = prices()
    assert import_bars(store, save(tmp_path, csv_of(f, F)), 'BTC-PERP', '1m', instrument=mine).instrument == mine
    later = prices(first='2024-03-26 10:00')
    assert import_bars(store, save(tmp_path, csv_of(later, F)), 'BTC-PERP', '1m').instrument == mine
    finer = prices(first='2024-03-27 10:00')
    finer[OHLC] += 0.005
    r = import_bars(store, save(tmp_path, csv_of(finer, F, number='{:.3f}'.format)), 'BTC-PERP', '1m')
    assert (r.instrument.tick, r.instrument.venue) == (Decimal('0.001'), 'ftx') and 'it is 0.001 now' in r.notes[-1]
    with pytest.raises(BadInput, match='another symbol'): import_bars(store, save(tmp_path, csv_of(f, F)), 'ETH-PERP', '1m', instrument=mine)


def test_the_report_says_what_was_assumed(tmp_path):
    f = prices(30, freq='D', first='2024-01-01')
    f.loc[3, 'volume'] = np.nan
    text = f.assign(note='x', trades=7).iloc[::-1].drop(index=5).to_csv(index=False)
    r = import_bars(Store(tmp_path / 'store', clock=SimClock(utc('2024-01-29T12:00Z'))), save(tmp_path, text), 'BTC-USD', '1d')
    assert r.issues == {'nan': 1, 'out_of_order': 28, 'gap': 1, 'future': 2} and r.rows == r.new == 29
    assert [n.split(':')[0] for n in r.notes] == ['the rows were newest first', 'left out, not numbers', 'volume missing in 1 rows']
    assert 'BTC-USD 1d: 29 rows, 29 new' in repr(r) and 'future' in r._repr_html_()


def test_corrections_need_a_word(tmp_path):
    store, f = Store(tmp_path / 'store', clock=SimClock(utc('2024-04-01'))), prices()
    import_bars(store, save(tmp_path, csv_of(f, F)), 'X', '1m')
    f.loc[7, 'close'] += 0.1
    changed = save(tmp_path, csv_of(f, F))
    with pytest.raises(BadInput, match='1 of 60 rows differ.*close'): import_bars(store, changed, 'X', '1m')
    assert import_bars(store, changed, 'X', '1m', revise=True).new == 1
    assert import_bars(store, changed, 'X', '1m').new == 0


def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(BadInput, match='the store cannot be'): import_bars(Store(tmp_path / 'file'), save(tmp_path, csv_of(prices(), F)), 'X', '1m')
    with pytest.raises(BadInput, match='no such file.*perhaps file.csv'): import_bars(Store(tmp_path / 's'), tmp_path / 'flie.csv', 'X', '1m')


KILLED = '''
import os, signal, sys
import gekko.data.delta as delta
before = delta._commit
delta._commit = lambda at, table, series, rows: os.kill(os.getpid(), signal.SIGKILL) if series == sys.argv[3] else before(at, table, series, rows)
from gekko.data.importing import import_bars
from gekko.data.store import Store
import_bars(Store(sys.argv[1]), sys.argv[2], 'X', '1m')
'''


@pytest.mark.parametrize('moment', ['X', '1m/X'])
def test_an_import_killed_half_way_can_be_repeated(moment, tmp_path):
    """Killed while the instrument is written, or between the instrument and the bars: nothing is listed, and a second try is whole."""
    path, store = save(tmp_path, csv_of(prices(), F)), Store(tmp_path / 'store')
    assert subprocess.run([sys.executable, '-c', KILLED, store.root, str(path), moment], check=False).returncode == -9
    assert store.list() == []
    with pytest.raises(BadInput, match='unknown symbol'): store.read(['X'], '1m')
    assert import_bars(store, path, 'X', '1m').new == 60


def real(shared_data, tmp_path, name):
    """The real file, or one of the same form: name, columns, length, kind of defect."""
    if shared_data is not None: return shared_data / f'{name}.parquet'
    rng = np.random.default_rng(3)
    if name == 'btc_perp_1m_202201':
        f = prices(45_031, '2021-12-31 23:01')
        f[OHLC] = ((f[OHLC] + 45_000) * 8).round() / 8
    elif name == 'eth_btc_5m_2018':
        f = prices(5_760, '2018-01-10 04:55', '5min')
        f[OHLC] = ((f[OHLC] + rng.integers(0, 999, (len(f), 1)) / 1e5) / 15_000).round(8)
    elif name == 'gbpusd_m1_2012':
        f = prices(30_117, '2012-02-01')
        f = pd.DataFrame({'timestamp': f['timestamp'], **{f'{s}_{c}': ((f[c] - 1_500) / 1e5 + 1.57 + d).round(5) for s, d in (('bid', 0.0), ('ask', 0.0001)) for c in OHLC}})
    elif name == 'xrp_eth_trades_2019':
        t = utc('2019-10-11') + np.sort(np.append(rng.integers(0, 59 * 3600, 12_475), [11, 59 * 3600 + 1_160])) * 10**9
        p = (0.0014 + rng.normal(0, 1e-7, 12_477).cumsum()).round(8)
        f = pd.DataFrame({'timestamp': pd.to_datetime(t, utc=True), 'trade_id': range(12_477), 'side': 'sell', 'price': p, 'amount': 2.0, 'cost': 2 * p})
    else: f = pd.DataFrame({'timestamp': pd.date_range('2016-07-01', periods=17_420, freq='h', tz='UTC'), 'HUFL': 1.0, 'OT': np.where(np.arange(17_420) == 3793, 0.0, 30.0)})
    f.to_parquet(tmp_path / f'{name}.parquet')
    return tmp_path / f'{name}.parquet'


@pytest.mark.parametrize(('name', 'symbol', 'bar', 'rows', 'kind', 'quote', 'tick', 'lot', 'calendar'), [
    ('btc_perp_1m_202201', 'BTC-PERP', '1m', 45_031, 'perp', 'USD', '0.125', '0.0001', '24/7'), ('eth_btc_5m_2018', 'ETH/BTC', '5m', 5_760, 'crypto', 'BTC', '1E-8', '0.001', '24/7'),
    ('gbpusd_m1_2012', 'GBP/USD', '1m', 30_117, 'fx', 'USD', '0.00001', '1', None), ('xrp_eth_trades_2019', 'XRP/ETH', '5m', None, 'crypto', 'ETH', '1E-8', '1', '24/7')])
def test_real_files_import_as_what_they_are(name, symbol, bar, rows, kind, quote, tick, lot, calendar, shared_data, tmp_path):
    path, store = real(shared_data, tmp_path, name), Store(tmp_path / 'store')
    r = import_bars(store, path, symbol, bar)
    i = r.instrument
    assert (i.kind, i.quote, str(i.tick), str(i.lot)) == (kind, quote, tick, lot) and (calendar is None or i.calendar == calendar)
    assert r.rows == r.new == len(store.read([symbol], bar)) == store.list()[0].rows and (rows is None or r.rows == rows)
    if name == 'xrp_eth_trades_2019':
        trades = pd.read_parquet(path)
        assert store.read([symbol], bar).volume.sum() == pytest.approx(trades['amount'].sum(), rel=1e-12)
        assert store.read([symbol], bar).close[-1, 0] == trades['price'].iloc[-1]
    elif name != 'gbpusd_m1_2012': np.testing.assert_array_equal(store.frame(symbol, bar)['close'], pd.read_parquet(path)['close'])
    if shared_data is not None:
        assert r.issues == {'btc_perp_1m_202201': {'spike': 1}, 'eth_btc_5m_2018': {}, 'gbpusd_m1_2012': {'gap': 110, 'crossed': 1471, 'spike': 2}, 'xrp_eth_trades_2019': {'gap': 6}}[name]
        assert i.calendar == (calendar or '24/5')


def test_a_file_that_holds_no_prices_says_so(shared_data, tmp_path):
    path, store = real(shared_data, tmp_path, 'etth1'), Store(tmp_path / 'store')
    if shared_data is not None:
        with pytest.raises(BadInput, match='no price column.*OT'): import_bars(store, path, 'ETT', '1h')
    with pytest.raises(BadInput, match='zero or less.*row 3793'): import_bars(store, path, 'ETT', '1h', columns={'close': 'OT'})
    assert not Path(store.root).exists()


def test_kinds_of_files(tmp_path):
    assert open_table(save(tmp_path, 'ts,price,qty,side\n2024-03-05T10:00:00Z,1.5,2,buy\n')).kind == 'trades'
    quotes = open_table(save(tmp_path, 'ts,bid,ask\n2024-03-05T10:00:01Z,1.0,1.2\n2024-03-05T10:00:09Z,1.1,1.3\n'))
    assert quotes.kind == 'quotes' and quotes.frame['close'].tolist() == [1.1, 1.2000000000000002]
    bars = to_bars(quotes.frame, '1m')
    assert bars[['bid_open', 'ask_open', 'bid_close', 'ask_close']].to_numpy().tolist() == [[1.0, 1.2, 1.1, 1.3]]


def test_a_share_keeps_new_york_hours_and_a_token_of_its_name_does_not():
    from gekko.data.calendar import calendar
    days = calendar('XNYS').expected(utc('2023-01-01'), utc('2024-01-01'), '1d')
    f = pd.DataFrame({'timestamp': pd.to_datetime(days, utc=True), **dict.fromkeys(OHLC, np.round(np.linspace(100, 120, len(days)), 2)), 'volume': 1.0})
    assert guess_instrument('ACME', f).calendar == 'XNYS'
    every = prices(365, '2023-01-01', 'D')
    assert guess_instrument('ACME', every).calendar == '24/7'
    july = pd.date_range('2024-07-01', '2024-07-29', freq='h', tz='UTC')
    july = july[calendar('FX').open_in(july.as_unit('ns').asi8, '1h')]
    assert guess_instrument('EURUSD', prices(len(july)).assign(timestamp=july)).calendar == 'FX'
