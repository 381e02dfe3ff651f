"""Coinbase's sandbox: three public clients that nobody here wrote work against it unchanged, and every refusal is the venue's own."""
import asyncio
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from gekko.domain.time import SECOND
from gekko.venue.sandbox.coinbase_token import Key, private, sign, uri
from gekko.venue.sandbox.serve import sandbox

HERE = Path(__file__).resolve().parents[2]
CLIENTS = HERE / 'tests' / 'clients'
V3, BTC = '/api/v3/brokerage', 'BTC-USD'


# -- the public clients

@pytest.fixture(scope='module')
def clients_python() -> str:
    made = subprocess.run(['bash', 'scripts/clients.sh'], cwd=HERE, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr
    return made.stdout.split()[-1]


def visit(python: str, script: str, tls: bool = False) -> dict:
    with sandbox('coinbase', symbols=(BTC, 'ETH-USD'), tls=tls) as run:
        run.set_price(BTC, '62000')
        trust = {'REQUESTS_CA_BUNDLE': run.card['ca']} if tls else {}
        done = subprocess.run([python, str(CLIENTS / f'{script}.py')], input=json.dumps(run.card), capture_output=True, text=True, timeout=90, env={**os.environ, **trust})
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout) | {'venue': run.call(run.server.protocol.account)}


@pytest.fixture(scope='module')
def reports(clients_python: str) -> dict[str, dict]:
    with ThreadPoolExecutor(3) as pool:
        jobs = {s: pool.submit(visit, clients_python, s, s == 'coinbase_advanced') for s in ('coinbase_ccxt', 'coinbase_ccxtpro', 'coinbase_advanced')}
        return {s: j.result() for s, j in jobs.items()}


def test_ccxt_sees_the_markets(reports: dict[str, dict]) -> None:
    r = reports['coinbase_ccxt']
    assert r['markets'] == ['BTC/USD', 'ETH/USD'] and r['currencies'] == ['BTC', 'ETH', 'USD'] and r['clock_off_s'] < 2
    assert r['market'] == {'precision': {'amount': 1e-08, 'price': 0.01}, 'least': 1, 'most': 3400, 'active': True, 'taker': 0.006, 'maker': 0.004}
    assert r['ticker'] == {'symbol': 'BTC/USD', 'bid': 61999.99, 'ask': 62000.01, 'last': 62000} and r['tickers']['last'] == 62000 and r['bids_asks'] == {'bid': 61999.99, 'ask': 62000.01}
    assert r['book']['rows'] == 5 and r['book']['bids'][0][0] == 61999.99 and r['book']['asks'][0][0] == 62000.01
    assert r['trades'] == {'count': 10, 'last': 62000, 'rising': True}
    candles = r['candles']      # one less where a minute begins between question and answer
    assert candles['count'] in (99, 100) and candles['step'] == [60000] and candles['sound'] and r['paged'] == {'count': 750, 'step': [60000], 'first': 0} and set(r['lengths'].values()) == {5}
    assert r['balance'] == {'USD': 1_000_000, 'BTC': 0} and r['balance_v2'] == 1_000_000 and r['accounts'] == ['BTC', 'ETH', 'USD'] and r['portfolios'] == 1 and r['fees'] == {'maker': 0.004, 'taker': 0.006}


def test_ccxt_trades_orders_of_every_kind(reports: dict[str, dict]) -> None:
    r = reports['coinbase_ccxt']
    assert {k: o['status'] for k, o in r['orders'].items()} == {'market_buy': 'closed', 'market_sell': 'closed', 'limit': 'open', 'post_only': 'open', 'gtd': 'open', 'ioc': 'closed', 'ioc_away': 'canceled', 'fok': 'closed', 'stop_limit': 'open', 'take_profit': 'open'}
    assert [r['orders'][k]['timeInForce'] for k in ('limit', 'gtd', 'ioc', 'fok')] == ['GTC', 'GTD', 'IOC', 'FOK'] and r['orders']['post_only']['postOnly'] and r['orders']['stop_limit']['trigger'] == 59000
    assert r['open'] == ['gtd', 'limit', 'post_only', 'stop_limit', 'take_profit'] and r['cancelled'] == ['gtd', 'ioc_away', 'take_profit'] and r['all'] == 10
    assert r['closed'] == ['fok', 'ioc', 'limit', 'market_buy', 'market_sell', 'post_only', 'stop_limit']
    assert r['preview'] == {'errs': [], 'order_total': '6024', 'commission_total': '24'}
    assert (r['edited']['amount'], r['edited']['price'], r['edited']['status']) == (0.2, 61500, 'open') and (r['met']['filled'], r['met']['average']) == (0.2, 61500)
    assert r['stopped']['status'] == 'closed' and r['stopped']['average'] >= 58900


def test_ccxt_sums_up(reports: dict[str, dict]) -> None:
    r = reports['coinbase_ccxt']
    cost = sum(f['price'] * f['amount'] * (1 if f['side'] == 'buy' else -1) + f['fee'] for f in r['fills'])
    held = sum(f['amount'] * (1 if f['side'] == 'buy' else -1) for f in r['fills'])
    assert r['after']['USD'] == pytest.approx(1_000_000 - cost, abs=1e-6) and r['after']['BTC'] == pytest.approx(held, abs=1e-12) and r['after']['used'] == 0
    assert {(f['kind'], f['role']) for f in r['fills']} == {(k, 'maker' if k in ('limit', 'post_only') else 'taker') for k in r['closed']} and {f['coin'] for f in r['fills']} == {'USD'}
    assert float(r['venue']['balances']['USD']['total']) == r['after']['USD'] and r['fills_paged'] == {'pages': [3, 3, 1], 'same': True}


def test_ccxt_hears_refusals(reports: dict[str, dict]) -> None:
    assert reports['coinbase_ccxt']['errors'] == {'too dear': 'InsufficientFunds', 'nothing to sell': 'InsufficientFunds', 'would take': 'ExchangeError', 'cancelled twice': 'BadRequest', 'unknown order': 'ExchangeError',
                                                 'unknown product': 'ExchangeError', 'wrong key': 'AuthenticationError', 'too many': 'RateLimitExceeded'}


def test_ccxt_pro_hears_the_streams(reports: dict[str, dict]) -> None:
    r = reports['coinbase_ccxtpro']
    assert r['book'] == {'bid': [61999.99, r['book']['bid'][1]], 'ask': [62000.01, r['book']['ask'][1]], 'rows': 10} and r['ticker'] == {'symbol': 'BTC/USD', 'last': 62000, 'bid': 61999.99, 'ask': 62000.01}
    assert r['trades']['count'] > 0 and r['trades']['rising'] and r['batch'] == 62000
    assert r['moved'] == {'last': 63000, 'bid': 62999.99, 'ask': 63000.01} and r['traded'] == 63000 and r['same_book'] == [True, True]
    assert [o['status'] for o in r['own']] == ['open', 'canceled', 'closed'] and r['own'][0]['remaining'] == 0.2 and r['own'][2] == {'status': 'closed', 'side': 'buy', 'filled': 0.1, 'remaining': 0, 'average': 63000.01, 'fee': '37.800006'}
    assert r['unwatched'] is True and r['wrong_key'] == 'authentication failure'


def test_the_venues_own_client_reads(reports: dict[str, dict]) -> None:
    r = reports['coinbase_advanced']
    assert r['clock_off_s'] < 2 and r['products'] == [BTC, 'ETH-USD'] and r['some'] == [BTC]
    assert r['product'] == {'product_id': BTC, 'price': '62000', 'price_increment': '0.01', 'base_increment': '0.00000001', 'quote_min_size': '1', 'status': 'online', 'trading_disabled': False}
    assert [p for p, _ in r['book']['bids']] == ['61999.99', '61999.98'] and (r['book']['last'], r['book']['spread'], r['public_book']) == ('62000', '0.02', 3) and r['best'] == [[BTC, '61999.99', '62000.01']]
    assert r['trades'] == {'count': 5, 'newest_first': True, 'bid': '61999.99'}
    assert r['candles'] == {'count': 349, 'step': [60], 'fields': ['close', 'high', 'low', 'open', 'start', 'volume']} and r['too_many_candles'].startswith('400 {"error":"INVALID_ARGUMENT"')
    assert r['accounts'] == ['BTC', 'ETH', 'USD'] and r['account'] == {'same': True, 'balance': {'value': '1000000', 'currency': 'USD'}, 'type': 'ACCOUNT_TYPE_FIAT'} and r['portfolio'] == {'type': 'DEFAULT', 'worth': '1000000'}
    assert r['fee_tier'] == {'maker_fee_rate': '0.004', 'taker_fee_rate': '0.006'} and r['permissions'] == {'can_view': True, 'can_trade': True, 'can_transfer': False}


def test_the_venues_own_client_trades(reports: dict[str, dict]) -> None:
    r = reports['coinbase_advanced']
    assert all(r['made'].values()) and r['open'] == ['gtc', 'gtd', 'post_only', 'stop', 'stop_gtd']
    assert {k: (o['status'], o['order_type'], o['time_in_force']) for k, o in r['orders'].items() if o['status'] != 'OPEN'} == {
        'market_quote': ('FILLED', 'MARKET', 'IMMEDIATE_OR_CANCEL'), 'market_base': ('FILLED', 'MARKET', 'IMMEDIATE_OR_CANCEL'), 'market_sell': ('FILLED', 'MARKET', 'IMMEDIATE_OR_CANCEL'),
        'ioc': ('FILLED', 'LIMIT', 'IMMEDIATE_OR_CANCEL'), 'fok': ('FILLED', 'LIMIT', 'FILL_OR_KILL'), 'fok_away': ('CANCELLED', 'LIMIT', 'FILL_OR_KILL')}
    assert {k: o['trigger_status'] for k, o in r['orders'].items() if o['order_type'] == 'STOP_LIMIT'} == {'stop': 'STOP_PENDING', 'stop_gtd': 'STOP_PENDING'}
    for name, (value, fees, after) in r['sums'].items():
        assert Decimal(value) + (-1 if name == 'market_sell' else 1) * Decimal(fees) == Decimal(after)
    assert Decimal('999.99') < Decimal(r['sums']['market_quote'][2]) <= 1000 and r['orders']['market_quote']['size_in_quote']
    assert r['preview'] == {'total': '6124.4', 'fee': '24.4', 'errs': [], 'dear': ['PREVIEW_INSUFFICIENT_FUND']} and r['edit_preview'] == '18373.2'
    assert r['edited'] == {'success': True, 'order': {'base_size': '0.3', 'limit_price': '61200', 'post_only': False}, 'history': 1} and r['edit_refused'] == ['ONLY_LIMIT_ORDER_EDITS_SUPPORTED']
    assert r['cancelled'] == [[True, 'UNKNOWN_CANCEL_FAILURE_REASON'], [True, 'UNKNOWN_CANCEL_FAILURE_REASON'], [False, 'ORDER_IS_FULLY_FILLED'], [False, 'UNKNOWN_CANCEL_ORDER']]
    assert r['after_fall'] == {'gtc': 'FILLED 0.3', 'post_only': 'FILLED 0.2', 'stop': 'FILLED 0.1'}
    assert [f[0] for f in r['fills']] == ['stop', 'post_only', 'gtc', 'fok', 'ioc', 'market_sell', 'market_base', 'market_quote'] and [f[4] for f in r['fills']].count('MAKER') == 2
    assert r['fills_of_one'] == [True] and r['no_fills_before'] == 0 and r['same_id']


def test_the_venues_own_client_is_refused(reports: dict[str, dict]) -> None:
    r = reports['coinbase_advanced']
    assert {k: v[1].removeprefix('PREVIEW_') for k, v in r['refused'].items()} == {'funds': 'INSUFFICIENT_FUND', 'product': 'INVALID_PRODUCT_ID', 'price': 'INVALID_PRICE_PRECISION', 'size': 'INVALID_SIZE_PRECISION',
                                                                               'taker': 'INVALID_LIMIT_PRICE_POST_ONLY', 'small': 'INVALID_QUOTE_SIZE_TOO_SMALL', 'stop': 'STOP_PRICE_ABOVE_LAST_TRADE_PRICE', 'bracket': 'BRACKET_ORDER_NOT_SUPPORTED'}
    assert {k: v.split()[0] for k, v in r['errors'].items()} == {'wrong secret': '401', 'unknown order': '404', 'unknown product': '404', 'bad granularity': '400'} and r['ed25519'] == {'accounts': 3, 'limit': '30'}


def test_the_venues_own_client_hears(reports: dict[str, dict]) -> None:
    r = reports['coinbase_advanced']
    assert r['channels'] == ['candles', 'heartbeats', 'l2_data', 'market_trades', 'status', 'subscriptions', 'ticker', 'ticker_batch', 'user'] and r['in_step'] and r['typed'] and r['same_book'] and r['unsubscribed']
    assert r['ticker'] == {'type': 'ticker', 'product_id': BTC, 'price': '62500', 'best_bid': '62499.99', 'best_ask': '62500.01'} and r['status'] == 'online' and 'product_id' in r['candle']
    assert r['own'] == [['own-1', 'OPEN', '0'], ['own-1', 'CANCELLED', '0'], ['own-2', 'OPEN', '0'], ['own-2', 'FILLED', '0.1']]
    assert r['filled'] == {'avg_price': '62500.01', 'filled_value': '6250.001', 'total_fees': '37.500006', 'leaves_quantity': '0', 'number_of_fills': '1', 'order_side': 'BUY', 'time_in_force': 'IMMEDIATE_OR_CANCEL'}


# -- straight at the sockets

class Client:
    """Signs and sends what it is told, right or wrong."""
    def __init__(self, run, session: aiohttp.ClientSession) -> None:
        self.run, self.card, self.session = run, run.card, session
        self.host = self.card['rest'].partition('://')[2]
        self.key = Key(self.card['key'], self.card['secret'], private(self.card['secret']).public_key())

    def token(self, method: str, path: str, late_s: int = 0, key: Key | None = None, **claims) -> str:
        return sign(key or self.key, time.time_ns() + late_s * SECOND, uri(method, self.host, path), **claims)

    async def raw(self, method: str, path: str, token: str | None = None, **kw):
        headers = {} if token == '' else {'Authorization': f'Bearer {token or self.token(method, path)}'}
        async with self.session.request(method, self.card['rest'] + path, headers=headers, **kw) as r:
            return r.status, r.headers, await r.read()

    async def get(self, path: str):
        status, _, data = await self.raw('GET', V3 + path)
        return status, json.loads(data)

    async def post(self, path: str, body):
        status, _, data = await self.raw('POST', V3 + path, json=body)
        return status, json.loads(data)

    async def order(self, client_id: str, side: str = 'BUY', kind: str = 'limit_limit_gtc', symbol: str = BTC, **fields):
        return (await self.post('/orders', {'client_order_id': client_id, 'product_id': symbol, 'side': side, 'order_configuration': {kind: fields}}))[1]

    async def limit(self, client_id: str, size: str = '0.1', price: str = '61000', **kw):
        return await self.order(client_id, base_size=size, limit_price=price, **kw)

    async def control(self, path: str, body=None):
        async with self.session.request('POST' if body is not None else 'GET', f'{self.card["control"]}/{path}', json=body, headers={'X-Sandbox': self.card['token']}) as r:
            assert r.status == 200, await r.text()
            return await r.json()

    async def fault(self, **line) -> None: await self.control('faults', [line])


class Ears:
    """One WebSocket, heard message by message."""
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None: self.ws = ws

    async def say(self, channel: str, *products: str, kind: str = 'subscribe', **more) -> None:
        await self.ws.send_json({'type': kind, 'channel': channel, 'product_ids': list(products), **more})

    async def next(self, channel: str = '', s: float = 5):
        while True:
            m = await asyncio.wait_for(self.ws.receive_json(), s)
            if channel in ('', m.get('channel'), m.get('type')):
                return m

    async def upto(self, channel: str, test) -> list:
        out = []
        while not out or not (out[-1].get('channel') == channel and any(test(e) for e in out[-1]['events'])):
            out.append(await self.next())
        return out


def at_sandbox(work, **options):
    """Runs `work(client)` against a sandbox whose limit is out of the way, unless the test wants it."""
    async def go(run):
        async with aiohttp.ClientSession() as session:
            return await work(Client(run, session))
    with sandbox('coinbase', **{'symbols': (BTC,), **options}) as run:
        run.set_price(BTC, '62000')
        for bucket in (run.server.protocol.door.private, run.server.protocol.door.public):
            bucket.size = bucket.per_s = 100_000
        return asyncio.run(go(run))


def test_a_token_is_for_one_request_and_two_minutes() -> None:
    async def work(c: Client) -> None:
        path = f'{V3}/accounts?limit=5'
        other = Key(c.card['key'], c.card['ed25519_secret'], private(c.card['ed25519_secret']).public_key())
        good = [c.token('GET', path), c.token('GET', path, late_s=-115), c.token('GET', path, iss='coinbase-cloud', uri=None, uris=[uri('GET', c.host, path)]), c.token('GET', path, uri=f'GET http://{c.host}{V3}/accounts')]
        for t in good:
            assert (await c.raw('GET', path, t))[0] == 200, c.run.server.protocol.door.denied
        bad = {'': 'no bearer', 'nonsense': 'not a token', c.token('GET', path, late_s=-121): 'expired', c.token('GET', path, late_s=60): 'not valid for another', c.token('GET', f'{V3}/orders'): 'bound to', c.token('POST', path): 'bound to',
               c.token('GET', path, uri=None): 'bound to nothing', c.token('GET', path, key=other): 'signature', c.token('GET', path, exp=int(time.time()) + 3600): 'at most 120', c.token('GET', path, iss='me'): 'issuer',
               c.token('GET', path, key=Key('organizations/x/apiKeys/y', c.card['secret'], c.key.public)): 'unknown key', c.token('GET', path, sub='somebody'): 'two keys'}
        for t, why in bad.items():
            status, headers, body = await c.raw('GET', path, t)
            assert (status, body, headers['Content-Type'].split(';')[0]) == (401, b'Unauthorized\n', 'text/plain') and why in c.run.server.protocol.door.denied, (why, c.run.server.protocol.door.denied)
        assert (await c.raw('GET', f'{V3}/market/products', ''))[0] == 200
        await c.fault(fault='revoked_key')
        assert (await c.raw('GET', path))[0] == 401
    at_sandbox(work)


def test_every_refusal_has_the_venues_words() -> None:
    soon, past = (time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + s)) for s in (3600, -3600))
    stop = {'base_size': '0.1', 'stop_direction': 'STOP_DIRECTION_STOP_DOWN'}
    cases = [
        (dict(size='100'), 'INSUFFICIENT_FUND', 'INSUFFICIENT_FUND'), (dict(side='SELL', kind='market_market_ioc', base_size='1'), 'INSUFFICIENT_FUND', 'INSUFFICIENT_FUND'), (dict(symbol='XYZ-USD'), 'INVALID_PRODUCT_ID', 'INVALID_PRODUCT_ID'),
        (dict(price='61000.001'), 'INVALID_PRICE_PRECISION', 'INVALID_PRICE_PRECISION'), (dict(size='0.123456789'), 'INVALID_SIZE_PRECISION', 'INVALID_SIZE_PRECISION'), (dict(size='0.000000001'), '', 'INVALID_BASE_SIZE_TOO_SMALL'),
        (dict(size='3401'), '', 'INVALID_BASE_SIZE_TOO_LARGE'), (dict(size='0.00000001'), '', 'INVALID_QUOTE_SIZE_TOO_SMALL'), (dict(price='62000.01', post_only=True), 'INVALID_LIMIT_PRICE_POST_ONLY', 'INVALID_LIMIT_PRICE_POST_ONLY'),
        (dict(kind='market_market_ioc', quote_size='10.001'), 'INVALID_SIZE_PRECISION', 'INVALID_QUOTE_SIZE_PRECISION'), (dict(kind='market_market_ioc', quote_size='0.5'), '', 'INVALID_QUOTE_SIZE_TOO_SMALL'),
        (dict(kind='market_market_ioc', side='SELL', quote_size='10'), 'UNSUPPORTED_ORDER_CONFIGURATION', 'INVALID_ORDER_CONFIG'), (dict(kind='limit_limit_gtc', base_size='-1', limit_price='5'), 'UNSUPPORTED_ORDER_CONFIGURATION', 'INVALID_ORDER_CONFIG'),
        (dict(kind='no_such_kind', base_size='1'), 'UNSUPPORTED_ORDER_CONFIGURATION', 'INVALID_ORDER_CONFIG'), (dict(kind='market_market_fok', base_size='1'), 'FOK_ONLY_ALLOWED_ON_LIMIT_ORDERS', 'FOK_ONLY_ALLOWED_ON_LIMIT_ORDERS'),
        (dict(kind='trigger_bracket_gtc', base_size='1'), 'BRACKET_ORDER_NOT_SUPPORTED', 'BRACKET_ORDER_NOT_SUPPORTED'), (dict(side='LONG'), 'INVALID_SIDE', 'INVALID_SIDE'),
        (dict(kind='limit_limit_gtd', base_size='0.1', limit_price='61000'), '', 'GTD_ORDERS_MUST_HAVE_END_TIME'), (dict(kind='limit_limit_gtd', base_size='0.1', limit_price='61000', end_time=past), '', 'END_TIME_IS_IN_THE_PAST'),
        (dict(kind='stop_limit_stop_limit_gtc', side='SELL', limit_price='62900', stop_price='63000', **stop), '', 'STOP_PRICE_ABOVE_LAST_TRADE_PRICE'), (dict(kind='stop_limit_stop_limit_gtc', side='SELL', limit_price='61500', stop_price='61000', **stop), '', 'STOP_PRICE_BELOW_LIMIT_PRICE'),
        (dict(kind='stop_limit_stop_limit_gtc', base_size='0.1', limit_price='61500', stop_price='61000', stop_direction='STOP_DIRECTION_STOP_UP'), '', 'STOP_PRICE_BELOW_LAST_TRADE_PRICE'),
        (dict(kind='stop_limit_stop_limit_gtd', base_size='0.1', limit_price='62500', stop_price='63000', end_time=soon, stop_direction='STOP_DIRECTION_STOP_UP'), '', 'STOP_PRICE_ABOVE_LIMIT_PRICE'),
        (dict(kind='stop_limit_stop_limit_gtc', side='SELL', limit_price='60000', stop_price='61000.001', **stop), 'INVALID_PRICE_PRECISION', 'INVALID_STOP_PRICE_PRECISION')]

    async def work(c: Client) -> None:
        for i, (asked, engine, preview) in enumerate(cases):
            answer = await (c.order if 'kind' in asked else c.limit)(f'r-{i}', **asked)
            error = answer['error_response']
            assert not answer['success'] and (error['error'], error['preview_failure_reason']) == (engine or 'UNKNOWN_FAILURE_REASON', 'PREVIEW_' + preview), (asked, error)
            assert error['error'] == error['new_order_failure_reason'] and error['message'] and error['error_details']
        for status, reason in (('halted', 'PRODUCT_TRADING_HALTED'), ('closed', 'NOT_ALLOWED_BY_MARKET_STATE'), ('delisted', 'PRODUCT_TRADING_HALTED')):
            await c.control('listing', {'symbol': BTC, 'status': status})
            error = (await c.limit('halted'))['error_response']
            assert (error['error'], error['preview_failure_reason']) == ('ORDER_ENTRY_DISABLED', 'PREVIEW_' + reason)
            assert (await c.get(f'/products/{BTC}'))[1]['trading_disabled'] is True
        assert not c.run.exchange.works
    at_sandbox(work)


def test_what_cannot_be_read_is_a_400_and_changes_nothing() -> None:
    async def work(c: Client) -> None:
        for body in (b'{"client_order_id": "a"', b'[]', b'\xff\xfe', b'{"product_id": "BTC-USD"}', b'"hello"'):
            status, _, data = await c.raw('POST', f'{V3}/orders', data=body)
            assert status == 400 and json.loads(data)['error'] == 'INVALID_ARGUMENT', (body, data)
        now = int(time.time())
        for path in (f'/products/{BTC}/candles?start=x&end=y&granularity=ONE_MINUTE', f'/products/{BTC}/candles?start=0&end={now}&granularity=ONE_MINUTE', f'/products/{BTC}/candles?start={now}&end={now}&granularity=1m', '/product_book?product_id=XYZ-USD',
                     '/product_book', f'/product_book?product_id={BTC}&limit=-1', f'/product_book?product_id={BTC}&aggregation_price_increment=NaN', '/orders/historical/fills?cursor=guess', '/accounts?limit=many', '/accounts?cursor=guess',
                     '/orders/historical/batch?order_status=OPEN&order_status=FILLED', '/orders/historical/fills?start_sequence_timestamp=noon', '/best_bid_ask?product_ids=XYZ-USD', f'/products/{BTC}/ticker?start=then'):
            status, answer = await c.get(path)
            assert status == 400 and answer['error'] == 'INVALID_ARGUMENT' and answer['message'], (path, status, answer)
        for path in ('/orders/historical/00000000-0000-0000-0000-000000000000', '/products/XYZ-USD', '/accounts/nobody', '/portfolios/nobody', '/no/such/page'):
            assert (await c.get(path))[0] == 404, path
        for body in ({}, {'order_ids': []}, {'order_ids': 'x'}, {'order_ids': ['x'] * 101}):
            assert (await c.post('/orders/batch_cancel', body))[0] == 400
        assert not c.run.exchange.works
    at_sandbox(work)


def test_an_id_used_twice_is_the_first_order_for_ever() -> None:
    async def work(c: Client) -> None:
        first = await c.limit('same')
        assert (await c.limit('same', '7', '50000'))['order_id'] == first['order_id']
        await c.post('/orders/batch_cancel', {'order_ids': [first['order_id']]})
        await c.control('listing', {'symbol': BTC, 'status': 'halted'})
        again = await c.limit('same')
        assert again['success'] and again['order_id'] == first['order_id'] and again['success_response']['client_order_id'] == 'same' and len(c.run.exchange.works) == 1
        assert (await c.get(f'/orders/historical/{first["order_id"]}'))[1]['order']['status'] == 'CANCELLED'
    at_sandbox(work)


def test_an_answer_that_is_dropped_leaves_the_order() -> None:
    async def work(c: Client) -> None:
        await c.fault(fault='drop_answer', op='submit')
        with pytest.raises(aiohttp.ClientError):
            await c.limit('unheard')
        orders = (await c.get('/orders/historical/batch?order_status=OPEN'))[1]['orders']
        assert [o['client_order_id'] for o in orders] == ['unheard'] and (await c.limit('unheard'))['order_id'] == orders[0]['order_id']
    at_sandbox(work)


class Stopped:
    """A clock that stands still: a second that does not end while requests are counted."""
    def __init__(self) -> None: self.at = time.time_ns() // SECOND * SECOND
    def now(self) -> int: return self.at
    def monotonic(self) -> int: return time.monotonic_ns()


def test_thirty_requests_a_second_and_ten_for_strangers() -> None:
    async def work(c: Client) -> None:
        door, clock = c.run.server.protocol.door, c.run.server.clock
        (door.private.size, door.private.per_s), (door.public.size, door.public.per_s) = (60, 30), (30, 10)
        clock.base = Stopped()
        for token, path, burst, rate in ((None, f'{V3}/key_permissions', 60, 30), ('', f'{V3}/market/products', 30, 10)):
            answers = await asyncio.gather(*(c.raw('GET', path, token) for _ in range(burst + 5)))
            denied = [(h, json.loads(b)) for s, h, b in answers if s == 429]
            allowed = [h for s, h, _ in answers if s == 200]
            assert len(allowed) == burst and {h['x-ratelimit-limit'] for h in allowed} == {str(rate)} and sorted(int(h['x-ratelimit-remaining']) for h in allowed) == [min(rate, n) for n in range(burst)]
            for headers, body in denied:
                assert body == {'errors': [{'id': 'rate_limit_exceeded', 'message': 'Too many requests'}]} and headers['x-ratelimit-remaining'] == '0' and headers['Retry-After'] == '1'
                assert int(headers['x-ratelimit-reset']) == clock.now() // SECOND + 1
            clock.base.at += SECOND
            assert [s for s, *_ in await asyncio.gather(*(c.raw('GET', path, token) for _ in range(rate + 2)))].count(200) == rate
            clock.base.at += 5 * SECOND
        await c.fault(fault='throttle', op='query', s=7)
        status, headers, _ = await c.raw('GET', f'{V3}/accounts')
        assert (status, headers['Retry-After'], int(headers['x-ratelimit-reset'])) == (429, '7', clock.now() // SECOND + 7)
    at_sandbox(work)


def test_good_till_date_expires_and_day_figures_follow() -> None:
    async def work(c: Client) -> None:
        end = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 600))
        made = await c.order('gtd', kind='limit_limit_gtd', base_size='1', limit_price='61000', end_time=end)
        held = (await c.get('/accounts'))[1]['accounts']
        assert next(a for a in held if a['currency'] == 'USD')['hold']['value'] == '61366'      # the price and the dearest fee on it
        await c.control('clock', {'advance_s': 601})
        order = c.run.server.protocol.house.orders[made['order_id']]
        assert order.state.value == 'expired' and c.run.server.protocol.wallets.purse('main', 'USD').free == 1_000_000
    at_sandbox(work)


@pytest.mark.parametrize('kind', ['gap', 'duplicate'])
def test_numbers_grow_by_one_and_a_fault_shows_in_them(kind: str) -> None:
    async def work(c: Client) -> None:
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            for channel in ('level2', 'ticker', 'market_trades'):
                await ears.say(channel, BTC)
            told = [await ears.next() for _ in range(6)]
            await c.fault(fault=kind, op='stream', after=2)
            for price in (62100, 62200, 62300):
                await c.control('market', {'symbol': BTC, 'price': price})
            told += await ears.upto('ticker', lambda e: e['tickers'][0]['price'] == '62300')
            steps = [b['sequence_num'] - a['sequence_num'] for a, b in zip(told, told[1:])]
            assert sorted(set(steps)) == ([1, 2] if kind == 'gap' else [0, 1]) and len([s for s in steps if s != 1]) == 1
    at_sandbox(work)


def test_a_stream_asks_for_proof_and_says_what_it_hears() -> None:
    async def work(c: Client) -> None:
        c.run.server.protocol.door.said.limit = 1000
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            ws_token = sign(c.key, time.time_ns())
            for message in ({'channel': 'user'}, {'channel': 'user', 'jwt': 'x'}, {'channel': 'user', 'jwt': sign(c.key, time.time_ns() - 200 * SECOND)}, {'channel': 'full', 'product_ids': [BTC]}, {'channel': 'ticker', 'product_ids': [BTC], 'jwt': 'x'}):
                await ws.send_json({'type': 'subscribe', **message})
                assert await ears.next() == {'type': 'error', 'message': 'authentication failure'}
            for text in ('{', '[]', '{"type": "dance"}', '{"type": "subscribe"}', '{"type": "subscribe", "channel": "ticker", "product_ids": "BTC-USD"}', '{"type": "subscribe", "channel": "ticker"}', '{"type": "subscribe", "channel": "ticker", "product_ids": ["XYZ-USD"]}'):
                await ws.send_str(text)
                assert (await ears.next())['type'] == 'error'
            await ears.say('user', jwt=ws_token)
            assert (await ears.next())['sequence_num'] == 0                # errors are not counted
            assert list((await ears.next())['events'][0]['subscriptions']) == ['user']
            await ears.say('heartbeats')
            assert await ears.next('heartbeats', 3)
            c.run.server.protocol.door.said.limit = 0
            await ears.say('ticker', BTC)
            assert (await ears.next('error'))['message'] == 'rate limit exceeded'
        c.run.server.protocol.first_s = 0.1
        async with c.session.ws_connect(c.card['ws']) as ws:
            assert (await asyncio.wait_for(ws.receive(), 3)).type.name in ('CLOSE', 'CLOSED', 'CLOSING', 'ERROR')
    at_sandbox(work)


def test_a_silent_connection_is_closed_and_heartbeats_keep_it() -> None:
    async def work(c: Client) -> None:
        async with c.session.ws_connect(c.card['ws']) as quiet, c.session.ws_connect(c.card['ws']) as kept:
            await Ears(quiet).say('level2', BTC)
            await Ears(kept).say('heartbeats')
            assert await Ears(kept).next('heartbeats', 3) and await Ears(quiet).next('subscriptions')
            for sink in c.run.server.hub.sinks:
                sink.state['idle'] += 88
            assert (await asyncio.wait_for(quiet.receive(), 5)).type.name in ('CLOSE', 'CLOSED', 'CLOSING', 'ERROR')
            assert await Ears(kept).next('heartbeats', 3)
    at_sandbox(work)


def test_open_orders_come_fifty_at_a_time() -> None:
    async def work(c: Client) -> None:
        for i in range(109):
            await c.limit(f'o-{i}', '0.001', str(50_000 + i))
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            await ears.say('user', BTC, jwt=sign(c.key, time.time_ns()))
            batches = [await ears.next('user') for _ in range(3)]
            assert [len(m['events'][0]['orders']) for m in batches] == [50, 50, 9] and {m['events'][0]['type'] for m in batches} == {'snapshot'}
            assert len({o['order_id'] for m in batches for o in m['events'][0]['orders']}) == 109
        seen, cursor = [], ''
        while cursor is not None:
            page = (await c.get(f'/orders/historical/batch?limit=50{"&cursor=" + cursor if cursor else ""}'))[1]
            seen, cursor = seen + [o['client_order_id'] for o in page['orders']], page['cursor'] if page['has_next'] else None
        assert seen == [f'o-{i}' for i in range(108, -1, -1)]
    at_sandbox(work)


def test_fills_in_parts_add_up_on_every_page() -> None:
    async def work(c: Client) -> None:
        await c.control('wallet', {'asset': 'BTC', 'amount': '1'})
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            await ears.say('user', BTC, jwt=sign(c.key, time.time_ns()))
            await ears.next('subscriptions')
            await c.fault(fault='partial_fills', op='submit', parts=4)
            made = await c.limit('parts', '1', '62000.01')
            told = await ears.upto('user', lambda e: e['orders'][0]['status'] == 'FILLED')
        steps = [m['events'][0]['orders'][0] for m in told if m['channel'] == 'user']
        assert [s['cumulative_quantity'] for s in steps] == ['0', '0.25', '0.5', '0.75', '1'] and [s['number_of_fills'] for s in steps] == list('01234')
        fills = (await c.get(f'/orders/historical/fills?order_ids={made["order_id"]}'))[1]['fills']
        order = (await c.get(f'/orders/historical/{made["order_id"]}'))[1]['order']
        value, fees = (sum(Decimal(f['price']) * Decimal(f['size']) for f in fills), sum(Decimal(f['commission']) for f in fills))
        assert (Decimal(order['filled_value']), Decimal(order['total_fees'])) == (value, fees) == (Decimal(steps[-1]['filled_value']), Decimal(steps[-1]['total_fees'])) and len({f['trade_id'] for f in fills}) == 4
        usd = next(a for a in (await c.get('/accounts'))[1]['accounts'] if a['currency'] == 'USD')
        assert Decimal(usd['available_balance']['value']) == 1_000_000 - value - fees and usd['hold']['value'] == '0'
        assert order['created_time'] <= min(f['trade_time'] for f in fills)
        since = (await c.get(f'/orders/historical/fills?start_sequence_timestamp={fills[0]["sequence_timestamp"]}'))[1]['fills']
        assert fills[0]['trade_id'] in {f['trade_id'] for f in since}
    at_sandbox(work)


def test_a_cancel_races_a_fill_and_says_who_won() -> None:
    async def work(c: Client) -> None:
        made = await c.limit('race')
        await c.fault(fault='cancel_race', op='cancel')
        answer = (await c.post('/orders/batch_cancel', {'order_ids': [made['order_id']]}))[1]['results']
        assert answer == [{'success': False, 'failure_reason': 'ORDER_IS_FULLY_FILLED', 'order_id': made['order_id']}]
        assert (await c.get(f'/orders/historical/{made["order_id"]}'))[1]['order']['status'] == 'FILLED'
    at_sandbox(work)


def test_precision_changes_are_told_and_enforced() -> None:
    async def work(c: Client) -> None:
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            await ears.say('status')
            assert (await ears.next('status'))['events'][0]['products'][0]['quote_increment'] == '0.01'
            await ears.next('subscriptions')
            await c.fault(fault='precision', symbol=BTC, tick='0.5', lot='0.01')
            product = (await ears.next('status'))['events'][0]['products'][0]
        assert (product['quote_increment'], product['base_increment']) == ('0.5', '0.01') and (await c.get(f'/products/{BTC}'))[1]['price_increment'] == '0.5'
        assert [(await c.limit('p1', price='61000.25'))['error_response']['error'], (await c.limit('p2', size='0.105'))['error_response']['error']] == ['INVALID_PRICE_PRECISION', 'INVALID_SIZE_PRECISION']
        assert (await c.limit('p3', size='0.11', price='61000.5'))['success']
    at_sandbox(work)


def test_maintenance_errors_and_skew() -> None:
    async def work(c: Client) -> None:
        await c.fault(fault='server_error', op='query', status=502)
        assert (await c.get('/accounts'))[0] == 502
        await c.fault(fault='clock_skew', s=-90)
        assert (await c.raw('GET', f'{V3}/accounts'))[0] == 401 and 'not valid for another' in c.run.server.protocol.door.denied
        assert abs(int((await c.get('/time'))[1]['epochSeconds']) + 90 - time.time()) < 2
        await c.fault(fault='maintenance', s=30)
        status, answer = await c.get('/time')
        assert (status, answer['error']) == (503, 'UNAVAILABLE')
    at_sandbox(work)


# -- field by field, as documented

ORDER = '''order_id product_id user_id order_configuration side client_order_id status time_in_force created_time completion_percentage filled_size average_filled_price fee number_of_fills filled_value pending_cancel
    size_in_quote total_fees size_inclusive_of_fees total_value_after_fees trigger_status order_type reject_reason settled product_type reject_message cancel_message order_placement_source outstanding_hold_amount is_liquidation
    last_fill_time edit_history leverage margin_type retail_portfolio_id originating_order_id attached_order_id'''
USER_ORDER = '''avg_price cancel_reason client_order_id completion_percentage contract_expiry_type cumulative_quantity filled_value leaves_quantity limit_price number_of_fills order_id order_side order_type outstanding_hold_amount
    post_only product_id product_type reject_reason retail_portfolio_id risk_managed_by status stop_price time_in_force total_fees total_value_after_fees trigger_status creation_time end_time start_time'''
FILL = 'entry_id trade_id order_id trade_time trade_type price size commission product_id sequence_timestamp liquidity_indicator size_in_quote user_id side retail_portfolio_id'
ACCOUNT = 'uuid name currency available_balance default active created_at updated_at deleted_at type ready hold retail_portfolio_id platform'
PRODUCT = '''product_id price price_percentage_change_24h volume_24h volume_percentage_change_24h base_increment quote_increment quote_min_size quote_max_size base_min_size base_max_size base_name quote_name watched is_disabled new
    status cancel_only limit_only post_only trading_disabled auction_mode product_type quote_currency_id base_currency_id fcm_trading_session_details mid_market_price alias alias_to base_display_symbol quote_display_symbol view_only
    price_increment display_name product_venue approximate_quote_24h_volume future_product_details'''
PREVIEW = 'order_total commission_total errs warning quote_size base_size best_bid best_ask is_max order_margin_total leverage long_leverage short_leverage slippage preview_id current_liquidation_buffer projected_liquidation_buffer max_leverage pnl_configuration'
TICKER = 'type product_id price volume_24_h low_24_h high_24_h low_52_w high_52_w price_percent_chg_24_h best_bid best_bid_quantity best_ask best_ask_quantity'
ENVELOPE = 'channel client_id timestamp sequence_num events'


def test_every_documented_field_is_there() -> None:
    async def work(c: Client) -> None:
        made = await c.order('f', kind='market_market_ioc', base_size='0.1')
        order, fill = (await c.get(f'/orders/historical/{made["order_id"]}'))[1]['order'], (await c.get('/orders/historical/fills'))[1]['fills'][0]
        product, account = (await c.get('/products'))[1]['products'][0], (await c.get('/accounts'))[1]['accounts'][0]
        preview = (await c.post('/orders/preview', {'product_id': BTC, 'side': 'BUY', 'order_configuration': {'market_market_ioc': {'base_size': '1'}}}))[1]
        async with c.session.ws_connect(c.card['ws']) as ws:
            ears = Ears(ws)
            await c.limit('open')
            await ears.say('user', jwt=sign(c.key, time.time_ns()))
            user = await ears.next('user')
            await ears.say('ticker', BTC)
            ticker = await ears.next('ticker')
        for documented, found in ((ORDER, order), (FILL, fill), (PRODUCT, product), (ACCOUNT, account), (PREVIEW, preview), (USER_ORDER, user['events'][0]['orders'][0]), (TICKER, ticker['events'][0]['tickers'][0]), (ENVELOPE, user)):
            assert not set(documented.split()) - found.keys(), set(documented.split()) - found.keys()
        assert all(isinstance(v, str) for v in user['events'][0]['orders'][0].values()) and all(isinstance(v, str) for v in ticker['events'][0]['tickers'][0].values())
        for name in ('filled_size', 'average_filled_price', 'filled_value', 'total_fees', 'number_of_fills', 'completion_percentage', 'total_value_after_fees'):
            assert isinstance(order[name], str), name
        assert order['created_time'].endswith('Z') and set(made) == {'success', 'failure_reason', 'order_id', 'success_response', 'order_configuration'}
    at_sandbox(work)
