"""The store, on a disk and in a bucket, alone and with another process beside it."""
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from s3_server import S3Server

from gekko.data.store import Store, all_series, common_bar, open_market, series_bar
from gekko.domain.errors import BadInput, Retry
from gekko.domain.instrument import Instrument
from gekko.domain.time import HOUR, MINUTE, SimClock, utc

PERP = Instrument('BTC-PERP', 'BTC', 'USD', 'perp', Decimal('0.5'), Decimal('0.0001'))
NOON = utc('2024-03-05T12:00Z')


def bars(n, first='2024-03-05 00:00', seed=0, freq='min', **extra):
    rng = np.random.default_rng(seed)
    close = 100 + rng.normal(0, 1, n).cumsum() * 0.01
    t = pd.date_range(first, periods=n, freq=freq, tz='UTC')
    return pd.DataFrame({'timestamp': t, 'open': close, 'high': close + 1, 'low': close - 1, 'close': close, 'volume': rng.uniform(0, 9, n), **extra})


@pytest.fixture(scope='module')
def s3():
    server = S3Server('lake')
    yield server
    server.close()


@pytest.fixture(params=['disk', 's3'])
def place(request, tmp_path):
    """(root, storage options): every test that takes it runs on both."""
    if request.param == 'disk': return str(tmp_path / 'store'), None
    return f's3://lake/{request.node.name.replace("[", "-").replace("]", "")}', request.getfixturevalue('s3').options


def same(a, b):
    for c in ('start', 'end', 'open', 'high', 'low', 'close', 'volume'): np.testing.assert_array_equal(getattr(a, c), getattr(b, c))


def test_what_is_written_is_read_bit_for_bit(place):
    store, frame = Store(*place), bars(2_000, bid_close=np.linspace(1, 2, 2_000))
    assert store.write('BTC-PERP', '1m', frame, PERP) == 2_000
    pd.testing.assert_frame_equal(store.frame('BTC-PERP', '1m'), frame.assign(timestamp=frame['timestamp'].dt.as_unit('ns')))
    assert store.instrument('BTC-PERP') == PERP
    [info] = store.list()
    assert (info.symbol, info.bar, info.rows, info.first, info.last) == ('BTC-PERP', '1m', 2_000, utc('2024-03-05'), utc('2024-03-05') + 1_999 * MINUTE)


def test_revisions_and_knowledge(place):
    clock = SimClock(NOON)
    store, first = Store(*place, clock=clock), bars(10)
    store.write('BTC-PERP', '1m', first, PERP)
    v = store.version()
    for hour, close in ((1, 111.0), (2, 112.0)):
        clock.set(NOON + hour * HOUR)
        changed = first.assign(close=first['close'].where(first.index != 4, close), high=200.0)[4:5]
        with pytest.raises(BadInput, match='differ from the stored'): store.write('BTC-PERP', '1m', changed, PERP)
        assert store.write('BTC-PERP', '1m', changed, PERP, revise=True) == 1
    closes = [store.read(['BTC-PERP'], '1m', asof=NOON + h * HOUR).close[4, 0] for h in (0, 1, 2)]
    assert closes == [first['close'][4], 111.0, 112.0]
    assert store.read(['BTC-PERP'], '1m', asof=NOON + HOUR - 1).close[4, 0] == first['close'][4]
    assert store.read(['BTC-PERP'], '1m').close[4, 0] == 112.0
    assert store.read(['BTC-PERP'], '1m', version=v).version == store.read(['BTC-PERP'], '1m', asof=NOON).version
    assert store.list()[0].rows == 10
    with pytest.raises(BadInput, match='known then'): store.read(['BTC-PERP'], '1m', asof=NOON - 1)
    with pytest.raises(BadInput, match='known before what it revises'): store.write('BTC-PERP', '1m', first[4:5], PERP, revise=True, known=NOON)
    before = store.read(['BTC-PERP'], '1m')
    store.compact()
    same(before, store.read(['BTC-PERP'], '1m'))
    assert store.list()[0].rows == 10


WRITER = '''
import sys, json
import numpy as np, pandas as pd
from decimal import Decimal
from gekko.data.store import Store
from gekko.domain.instrument import Instrument
root, options, who = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
store = Store(root, options)
perp = Instrument('BTC-PERP', 'BTC', 'USD', 'perp', Decimal('0.5'), Decimal('0.0001'))
t = pd.date_range('2024-03-05', periods=400, freq='min', tz='UTC')
f = pd.DataFrame({'timestamp': t, 'open': 1.0, 'high': 2.0, 'low': 0.5, 'close': np.arange(400.0) % 7 / 7 + 1, 'volume': 1.0})
print('ready', flush=True)
sys.stdin.readline()
# one series: the halves overlap, both write the rows 120 to 280; two series: the second one has a column more
symbol = 'BTC-PERP' if who == 0 or sys.argv[4] == 'one' else 'ETH-PERP'
if symbol == 'ETH-PERP': f, perp = f.assign(bid_close=f['close']), Instrument(symbol, 'ETH', 'USD', 'perp')
mine = range(0, 280, 40) if who == 0 else range(360, 100, -40)
print(sum(store.write(symbol, '1m', f[i:i + 40], perp) for i in mine))
'''


def race(place, how):
    """Two processes that start together; what each says it wrote."""
    args = [sys.executable, '-c', WRITER, place[0], json.dumps(place[1])]
    pair = [subprocess.Popen([*args, str(i), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in (0, 1)]
    try:
        for p in pair: assert p.stdout.readline() == 'ready\n'
        for p in pair: p.stdin.write('go\n'), p.stdin.flush()
        return [int(p.communicate(timeout=60)[0]) for p in pair]
    finally:
        for p in pair: p.kill()


def test_two_processes_write_one_series_and_no_row_is_twice(place):
    written, store = race(place, 'one'), Store(*place)
    got = store.read(['BTC-PERP'], '1m')
    assert sum(written) == len(got) == store.list()[0].rows == 400
    assert (np.diff(got.start) == MINUTE).all()


def test_two_processes_write_two_series_of_different_columns(place):
    assert race(place, 'two') == [280, 280]
    store = Store(*place)
    assert [(s.symbol, s.rows) for s in store.list()] == [('BTC-PERP', 280), ('ETH-PERP', 280)]
    assert 'bid_close' in store.frame('ETH-PERP', '1m') and 'bid_close' not in store.frame('BTC-PERP', '1m')


KILLED = '''
import sys, os, signal
from gekko.data import delta
import deltalake
real = deltalake.write_deltalake
def die(table, data, **kw):
    # the Parquet file is there, the log's entry is not
    import pyarrow.parquet as pq
    pq.write_table(data, sys.argv[1] + '/bars/bar=1m/symbol=BTC-PERP/part-00000-torn.snappy.parquet')
    os.kill(os.getpid(), signal.SIGKILL)
deltalake.write_deltalake = die
import pandas as pd
from gekko.data.store import Store
s = Store(sys.argv[1])
f = s.frame('BTC-PERP', '1m')
s.write('BTC-PERP', '1m', f.assign(timestamp=f['timestamp'] + pd.Timedelta('1D')), s.instrument('BTC-PERP'))
'''


def test_a_writer_killed_before_its_entry_leaves_the_store_as_it_was(tmp_path):
    store = Store(tmp_path / 'store')
    store.write('BTC-PERP', '1m', bars(60)[:50], PERP)
    before, v = store.read(['BTC-PERP'], '1m').version, store.version()
    assert subprocess.run([sys.executable, '-c', KILLED, str(tmp_path / 'store')], check=False).returncode == -9
    assert len(list(Path(store.root).rglob('*torn*'))) == 1
    assert (store.read(['BTC-PERP'], '1m').version, store.version(), store.list()[0].rows) == (before, v, 50)
    assert store.write('BTC-PERP', '1m', bars(60), PERP) == 10


@pytest.mark.parametrize('how', ['a file', 'under a file', 'no such bucket', 'wrong secret'])
def test_a_place_that_cannot_be_written_is_refused(how, tmp_path, s3):
    (tmp_path / 'file').write_text('x')
    root, options = {'a file': (tmp_path / 'file', None), 'under a file': (tmp_path / 'file' / 'deep' / 'store', None), 'no such bucket': ('s3://nowhere/store', s3.options),
                     'wrong secret': ('s3://lake/refused', {**s3.options, 'AWS_SECRET_ACCESS_KEY': 'guess'})}[how]
    store = Store(root, options)
    with pytest.raises(BadInput, match='the store cannot be') as e: store.write('BTC-PERP', '1m', bars(5), PERP)
    assert str(root) in str(e.value) and '\x1b' not in str(e.value) and 'guess' not in str(e.value)
    assert (tmp_path / 'file').read_text() == 'x' and [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_server_that_does_not_answer_is_to_be_asked_again(s3):
    options = {**s3.options, 'AWS_ENDPOINT_URL': 'http://127.0.0.1:9', 'max_retries': '0'}
    with pytest.raises(Retry, match='does not answer'): Store('s3://lake/x', options).write('BTC-PERP', '1m', bars(5), PERP)


def test_refused_rows_change_nothing(tmp_path):
    store = Store(tmp_path / 'store')
    nan, twice, text = bars(5), bars(5), bars(5, note='x')
    nan.loc[2, 'close'] = np.nan
    twice.loc[3, 'timestamp'] = twice.loc[2, 'timestamp']
    for frame, why in ((nan, 'finite'), (twice, 'twice'), (text, 'not of numbers'), (bars(5)[::-1], 'out of order'), (bars(0), 'no rows')):
        with pytest.raises(BadInput, match=why): store.write('BTC-PERP', '1m', frame, PERP)
    with pytest.raises(BadInput, match='another symbol'): store.write('ETH-PERP', '1m', bars(5), PERP)
    with pytest.raises(BadInput, match='not a symbol'): store.write(' ', '1m', bars(5), Instrument(' ', 'B', 'USD'))
    assert not Path(store.root).exists()


def test_symbols_of_every_form_have_their_own_series(place):
    store = Store(*place)
    names = ['BTC/USDT', 'BTC USDT', 'BTC%2FUSDT', 'Öl', 'a=b', "O'Neil", '^SPX', 'BRK.B', 'x:y']
    for i, s in enumerate(names): store.write(s, '1m', bars(5, seed=i), Instrument(s, 'B', 'USD', lot=Decimal(i + 1)))
    assert [x.symbol for x in store.list()] == sorted(names)
    for i, s in enumerate(names):
        np.testing.assert_array_equal(store.frame(s, '1m')['close'], bars(5, seed=i)['close'])
        assert store.instrument(s).lot == i + 1


def test_one_length_one_series(tmp_path):
    store = Store(tmp_path / 'store')
    store.write('BTC-PERP', '60m', bars(6, freq='h')[:5], PERP)
    assert store.write('BTC-PERP', '1h', bars(6, freq='h'), PERP) == 1
    assert [(s.bar, s.rows) for s in store.list()] == [('1h', 6)] and series_bar('3600s') == '1h'


def test_an_instrument_changes_without_a_bar(tmp_path):
    store = Store(tmp_path / 'store')
    store.write('BTC-PERP', '1m', bars(5), PERP)
    finer = Instrument('BTC-PERP', 'BTC', 'USD', 'perp', Decimal('0.1'), Decimal('0.0001'))
    assert store.write('BTC-PERP', '1m', bars(5), finer) == 0
    assert store.instrument('BTC-PERP') == finer and store.list()[0].rows == 5


def test_unknown_names_say_what_is_known(tmp_path):
    store = Store(tmp_path / 'store')
    with pytest.raises(BadInput, match='the store is empty'): store.read(['BTC-PERP'], '1m')
    store.write('BTC-PERP', '1m', bars(5), PERP)
    with pytest.raises(BadInput, match='perhaps BTC-PERP'): store.read(['BTCPERP'], '1m')
    with pytest.raises(BadInput, match='perhaps SP500.*BTC-PERP'): open_market(store, ['SP50'], '1d')
    with pytest.raises(BadInput, match='expected one of 1m'): open_market(store, ['BTC-PERP'], '1d')
    with pytest.raises(BadInput, match='each once'): open_market(store, ['SP500', 'SP500'], '1d')
    with pytest.raises(BadInput, match='no such version'): store.read(['BTC-PERP'], '1m', version=7)
    with pytest.raises(BadInput, match='at these times'): open_market(store, ['BTC-PERP'], '1m', '2030-01-01')
    with pytest.raises(BadInput, match='at these times'): open_market(store, ['SP500'], '1d', '2030-01-01')
    with pytest.raises(BadInput, match='not a duration'): store.read(['BTC-PERP'], 'daily')


def test_the_store_goes_before_the_reference_series(tmp_path):
    store = Store(tmp_path / 'store')
    mine = Instrument('SP500', 'SP500', 'USD', 'index', calendar='XNYS')
    store.write('SP500', '1d', bars(5, '2024-03-04', freq='D'), mine)
    got, instruments = open_market(store, ['SP500', 'NASDAQ'], '1d', '2018-12-28')
    assert got.close[-1, 0] == bars(5, '2024-03-04', freq='D')['close'].iloc[-1] and instruments['SP500'] == mine
    assert instruments['NASDAQ'].quote == 'USD' and np.isnan(got.close[-1, 1])
    assert [s.source for s in all_series(store) if s.symbol in ('SP500', 'WTI')] == ['store', 'reference']
    assert common_bar(store, ['SP500', 'NASDAQ']) == '1d'


def test_a_date_as_end_includes_its_day():
    got, _ = open_market(None, ['SP500'], '1d', '2015-01-02', '2015-01-05')
    assert [str(t.date()) for t in pd.to_datetime(got.start)] == ['2015-01-02', '2015-01-05']


parts = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 15)), min_size=1, max_size=6)


@settings(max_examples=15, deadline=None)
@given(parts=parts, lo=st.integers(0, 50), width=st.integers(1, 50))
def test_any_order_of_overlapping_writes_reads_as_their_union(parts, lo, width, tmp_path_factory):
    """However the rows arrive, the store holds each once, and a range of time is that slice of them."""
    whole, store = bars(60), Store(tmp_path_factory.mktemp('p') / 'store')
    added = sum(store.write('BTC-PERP', '1m', whole[a:a + n], PERP) for a, n in parts)
    rows = sorted({i for a, n in parts for i in range(a, a + n)})
    assert added == len(rows) == store.list()[0].rows
    np.testing.assert_array_equal(store.frame('BTC-PERP', '1m')['close'], whole['close'][rows])
    start, end = utc('2024-03-05') + lo * MINUTE, utc('2024-03-05') + (lo + width) * MINUTE
    inside = [i for i in rows if start < utc('2024-03-05') + (i + 1) * MINUTE <= end]
    if inside: np.testing.assert_array_equal(store.frame('BTC-PERP', '1m', start=start, end=end)['close'], whole['close'][inside])
    else:
        with pytest.raises(BadInput, match='at these times'): store.frame('BTC-PERP', '1m', start=start, end=end)


def test_a_list_reads_no_file_of_rows(tmp_path):
    store = Store(tmp_path / 'store')
    store.write('BTC-PERP', '1m', bars(1_000), PERP)
    for f in Path(store.root).rglob('bar=*/**/*.parquet'): f.unlink()
    assert store.list()[0].rows == 1_000
