"""The Binance.US sandbox, judged by software that nobody here wrote and by the venue's documents, field by field and code by code."""
import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.time import DAY, HOUR, MINUTE, utc
from gekko.venue.sandbox.binanceus_market import INTERVALS, closes, opened, opening
from gekko.venue.sandbox.serve import Running, sandbox

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ('ccxt', 'ccxtpro', 'python_binance')


# -- public clients, all at once, each with a sandbox of its own

@pytest.fixture(scope='module')
def python() -> str:
    made = subprocess.run([ROOT / 'scripts/clients.sh'], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope='module')
def seen(python: str) -> dict[str, dict]:
    runs = [(name, ()) for name in CLIENTS] + [('ccxt', ('ed25519',)), ('python_binance', ('ed25519',))]
    venues = [sandbox('binanceus', seed=1) for _ in runs]
    cards = [v.__enter__().card for v in venues]
    try:
        started = [subprocess.Popen([python, ROOT / f'tests/clients/binanceus_{name}.py', *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name, args in runs]
        for p, card in zip(started, cards):
            p.stdin.write(json.dumps(card))
            p.stdin.close()
            p.stdin = None
        out = {}
        for (name, args), p in zip(runs, started):
            told, complaint = p.communicate(timeout=120)
            assert p.returncode == 0, f'{name} {args}: {complaint[-3000:]}'
            out[' '.join((name, *args))] = json.loads(told)
        return out
    finally:
        for v in venues:
            v.__exit__(None, None, None)


@pytest.mark.parametrize('key', ['ccxt', 'ccxt ed25519'])
def test_ccxt(seen, key):
    x = seen[key]
    assert {'BTC/USD', 'ETH/USD', 'BTC/USDT'} <= set(x['symbols'])
    assert x['market']['precision']['price'] == 0.01 and x['market']['limits']['cost']['min'] == 10 and x['market']['active']
    assert x['market']['types'] == ['LIMIT', 'LIMIT_MAKER', 'MARKET', 'STOP_LOSS_LIMIT', 'TAKE_PROFIT_LIMIT']
    assert abs(x['time_difference_ms']) < 1_000
    assert x['candles']['pages'] == 4 and x['candles']['rows'] in (181, 182) and x['candles']['steps'] == [60_000] and x['candles']['ordered']
    assert set(x['intervals'].values()) == {3} and len(x['intervals']) == 15
    assert x['ticker']['last'] == 60_000 and x['ticker']['bid'] < 60_000 < x['ticker']['ask'] and x['tickers'] == x['symbols'] and x['bids_asks'] == {'bid': 59_999.99, 'ask': 60_000.01}
    assert len(x['book']['bids']) == len(x['book']['asks']) == 5 and x['book']['bids'][0][0] == 59_999.99 and x['book']['nonce'] > 0
    assert x['trades']['ids'] == list(range(12, 22)) and x['trades']['sides'] == ['buy', 'sell']


@pytest.mark.parametrize('key', ['ccxt', 'ccxt ed25519'])
def test_ccxt_orders(seen, key):
    x, orders = seen[key], seen[key]['orders']
    status = {k: (o['status'], o['raw_status'], o['filled']) for k, o in orders.items() if isinstance(o, dict)}
    assert status == {'limit': ('open', 'NEW', 0), 'market': ('closed', 'FILLED', 0.02), 'by_cost': ('closed', 'FILLED', 0.00499), 'post_only': ('open', 'NEW', 0), 'ioc': ('closed', 'FILLED', 0.01),
                      'fok': ('expired', 'EXPIRED', 0), 'stop_loss': ('open', 'NEW', 0), 'take_profit': ('open', 'NEW', 0)}
    assert orders['post_only']['postOnly'] and orders['stop_loss']['stopPrice'] == 56_000 and orders['market']['trades'] == 1
    assert x['open'] == [False, False, False, True] and x['all'] == 8 and x['looked_up'] == ['open', True]
    assert x['cancelled']['status'] == 'canceled' and x['edited']['amount'] == 0.012 and x['edited']['id'] != orders['limit']['id']
    assert (x['triggered']['status'], x['triggered']['average']) == ('closed', 55_899.99) and (x['edited_later']['status'], x['edited_later']['average']) == ('closed', 59_100)
    assert x['cancel_all'] == 1 and x['open_at_the_end'] == 0
    assert [f['maker'] for f in x['fills']] == ['taker', 'taker', 'taker', 'maker', 'taker'] and [f['fee']['currency'] for f in x['fills']] == ['BTC'] * 4 + ['USD']
    assert x['paged_fills'] == [f['id'] for f in x['fills']][1:]
    bought = sum(f['amount'] - f['fee']['cost'] for f in x['fills'] if f['side'] == 'buy')
    assert x['balance']['BTC']['total'] == pytest.approx(bought - 0.005, abs=1e-12) and x['balance']['USD']['used'] == 0
    kinds = {k: v[0] for k, v in x['refused'].items()}
    assert kinds.pop('signature', 'AuthenticationError') == 'AuthenticationError' and kinds.pop('key') == 'DDoSProtection'   # ccxt's word for a key that worked before
    assert kinds == {'symbol': 'BadSymbol', 'funds': 'InsufficientFunds', 'post_only': 'OrderImmediatelyFillable', 'trigger': 'OrderImmediatelyFillable', 'unknown': 'OrderNotFound',
                     'cancel_unknown': 'OrderNotFound', 'notional': 'BadRequest'}


def test_ccxt_pro(seen):
    x = seen['ccxtpro']
    assert x['trade'] == {'symbol': 'BTC/USD', 'price': 60_100, 'side': 'buy'} and x['ticker']['symbol'] == 'BTC/USD' and x['ticker']['last'] >= 60_100
    assert x['bids_asks'] == {'bid': 60_299.99, 'ask': 60_300.01} and x['tickers'] and x['candle'] == {'columns': 6, 'high_at_least_close': True}
    assert x['book'] == {'same_bids': True, 'same_asks': True, 'nonce': True} and x['eth_book'] == [10, 10]
    assert x['own_new'] == {'clientOrderId': 'gpro1', 'status': 'open', 'amount': 0.01, 'price': 50_000} and x['own_cancelled'] == {'status': 'canceled', 'same': True}
    assert (x['own_trade']['side'], x['own_trade']['amount'], x['own_trade']['fee']) == ('buy', 0.02, {'currency': 'BTC', 'cost': 2e-05})
    assert x['balance']['BTC'] == 0.02997
    assert x['by_listen_key'] == {'status': 'closed', 'side': 'sell', 'filled': 0.005, 'average': 60_599.99}


@pytest.mark.parametrize('key', ['python_binance', 'python_binance ed25519'])
def test_python_binance(seen, key):
    x, orders = seen[key], seen[key]['orders']
    assert x['klines'] == 24 and x['paged_klines'] == {'rows': 1_500, 'steps': [60_000]} and x['depth'] == {'bids': 5, 'asks': 5} and x['time']
    assert x['old_trades'] == [3, 4] and x['aggregates'] == [2, 3] and x['all_aggregates'] >= 20 and x['average'] == 5 and x['prices'] == x['best_of_all'] == len(x['symbols'])
    assert {k: o.get('status', 'ACK') for k, o in orders.items()} == {'limit': 'NEW', 'market': 'FILLED', 'by_cost': 'FILLED', 'sell': 'FILLED', 'maker': 'ACK', 'stop': 'NEW', 'profit': 'NEW', 'ioc': 'EXPIRED', 'test': 'ACK'}
    assert x['open'] and x['all'] == 8 and x['cancel']['status'] == 'CANCELED' and x['cancel']['origClientOrderId'] == 'gpb1' and (x['profit_set_off'], x['profit']) == (True, 'FILLED')
    assert x['my_trades']['count'] == 4 and x['my_trades']['of_order'] == 1 and x['account']['canTrade'] and x['balance']['asset'] == 'BTC'
    assert x['listen_key'] == {'same': True, 'kept': {}, 'closed': {}} and x['system'] == {'status': 0, 'msg': 'normal'}
    assert {k: v[:2] for k, v in x['refused'].items()} == {'symbol': [400, -1121], 'price': [400, -1013], 'duplicate': [400, -2010], 'unknown': [400, -2013], 'cancel': [400, -2011]}


def test_python_binance_streams(seen):
    x = seen['python_binance']
    own = x['streams'].pop('own')
    assert (own['X'], own['o'], own['N'], own['n'], x['streams'].pop('placed_on_socket')) == ('FILLED', 'MARKET', 'BTC', '0.00001000', 'FILLED')
    assert {k: ''.join(v) for k, v in x['streams'].items() if len(''.join(v)) < 30} == {
        'trade': 'EMTabempqst', 'aggtrade': 'EMTaeflmpqs', 'book': 'ABabsu', 'depth5': 'asksbidslastUpdateId', 'depth': 'EUabesu', 'kline': 'Eeks', 'mini': 'Ecehloqsv', 'ticker': 'ABCEFLOPQabcehlnopqsvwx',
        'all_mini': 'Ecehloqsv', 'multiplex': 'datastream'}


# -- raw HTTP

class Raw:
    """A client of three lines: sign, send, read."""
    def __init__(self, venue: Running) -> None: self.venue, self.card = venue, venue.card

    def send(self, method, path, query='', body=None, key=True, headers=None):
        ask = urllib.request.Request(f'{self.card["rest"]}{path}{"?" + query if query else ""}', body.encode() if body is not None else None, {'X-MBX-APIKEY': self.card['key']} if key is True else {}, method=method)
        for k, v in (headers or {}).items():
            ask.add_header(k, v)
        try:
            with urllib.request.urlopen(ask, timeout=10) as r:
                return r.status, json.loads(r.read()), r.headers
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read()), e.headers

    def sign(self, text): return hmac.new(self.card['secret'].encode(), text.encode(), hashlib.sha256).hexdigest()

    def get(self, path, **params): return self.send('GET', '/api/v3/' + path, urlencode(params))

    def signed(self, method, path, **params):
        query = urlencode({'timestamp': int(time.time() * 1000) + self.venue.server.clock.offset // 1_000_000} | params)
        return self.send(method, '/api/v3/' + path, f'{query}&signature={self.sign(query)}')

    def order(self, **params): return self.signed('POST', 'order', **{'symbol': 'BTCUSD', 'side': 'BUY', 'type': 'LIMIT', 'timeInForce': 'GTC', 'quantity': '0.01', 'price': '59000'} | params)

    def code(self, *args, **params):
        status, told, _ = self.order(**params)
        return status, told.get('code'), told.get('msg')


@pytest.fixture
def venue():
    with sandbox('binanceus', seed=1, cash={'BTC': 2}) as running:
        yield running


@pytest.fixture
def raw(venue): return Raw(venue)


def test_parameters_and_signature_may_be_in_the_query_the_body_or_both(raw):
    order = f'symbol=BTCUSD&side=BUY&type=LIMIT&timeInForce=GTC&quantity=0.01&price=59000&timestamp={int(time.time() * 1000)}'
    head, tail = order[:order.index('&quantity')], order[order.index('quantity'):]
    assert raw.send('POST', '/api/v3/order/test', f'{order}&signature={raw.sign(order)}')[:2] == (200, {})
    assert raw.send('POST', '/api/v3/order/test', body=f'{order}&signature={raw.sign(order).upper()}')[:2] == (200, {})
    assert raw.send('POST', '/api/v3/order/test', head, f'{tail}&signature={raw.sign(head + tail)}')[:2] == (200, {})
    assert raw.send('POST', '/api/v3/order/test', head, f'{tail}&signature={raw.sign(head + "&" + tail)}')[1]['code'] == -1022
    ed = base64.b64encode(load_pem_private_key(raw.card['ed25519_secret'].encode(), None).sign(order.encode())).decode()
    assert raw.send('POST', '/api/v3/order/test', body=order + '&' + urlencode({'signature': ed}), key=False, headers={'X-MBX-APIKEY': raw.card['ed25519_key']})[:2] == (200, {})
    assert raw.send('POST', '/api/v3/order/test', body=order + '&' + urlencode({'signature': ed}))[1]['code'] == -1022   # the other key's signature


def test_who_asks_and_when(venue, raw):
    now, stamp = int(time.time() * 1000), 'timestamp={}'
    def account(query, **more): return raw.send('GET', '/api/v3/account', query, **more)[:2]
    def at(ms, more=''):
        query = stamp.format(ms) + more
        return account(f'{query}&signature={raw.sign(query)}')
    assert at(now)[0] == 200 and at(now - 50_000, '&recvWindow=60000')[0] == 200
    assert at(now - 60_000) == (400, {'code': -1021, 'msg': 'Timestamp for this request is outside of the recvWindow.'})
    assert at(now + 60_000) == (400, {'code': -1021, 'msg': "Timestamp for this request was 1000ms ahead of the server's time."})
    assert at(now, '&recvWindow=60001')[1]['code'] == -1131
    assert at('soon')[1]['code'] == -1100
    assert account('')[1] == {'code': -1102, 'msg': "Mandatory parameter 'timestamp' was not sent, was empty/null, or malformed."}
    assert account(f'timestamp={now}')[1]['msg'].startswith("Mandatory parameter 'signature'")
    assert account(f'timestamp={now}&signature=00') == (400, {'code': -1022, 'msg': 'Signature for this request is not valid.'})
    assert account(f'timestamp={now}&signature=00', key=False) == (401, {'code': -2014, 'msg': 'API-key format invalid.'})
    assert account(f'timestamp={now}&signature=00', key=False, headers={'X-MBX-APIKEY': 'stranger'}) == (401, {'code': -2015, 'msg': 'Invalid API-key, IP, or permissions for action.'})
    assert raw.send('GET', '/api/v3/historicalTrades', 'symbol=BTCUSD', key=False)[1]['code'] == -2014
    venue.fault({'fault': 'clock_skew', 's': 60})
    assert at(now)[1]['code'] == -1021 and at(raw.get('time')[1]['serverTime'])[0] == 200
    venue.fault({'fault': 'revoked_key'})
    assert raw.signed('GET', 'account')[:2] == (401, {'code': -2015, 'msg': 'Invalid API-key, IP, or permissions for action.'})


REFUSED = [
    ({'price': '59000.001'}, -1013, 'Filter failure: PRICE_FILTER'), ({'price': '0'}, -1013, 'Filter failure: PRICE_FILTER'), ({'quantity': '0.000001'}, -1013, 'Filter failure: LOT_SIZE'),
    ({'quantity': '0.010001'}, -1013, 'Filter failure: LOT_SIZE'), ({'quantity': '9001', 'price': '59000'}, -1013, 'Filter failure: LOT_SIZE'), ({'quantity': '0.0001'}, -1013, 'Filter failure: NOTIONAL'),
    ({'price': '1000'}, -1013, 'Filter failure: PERCENT_PRICE'), ({'price': '400000'}, -1013, 'Filter failure: PERCENT_PRICE'), ({'price': '59000.000000001'}, -1111, 'Precision is over the maximum defined for this asset.'),
    ({'quantity': '1e-2'}, -1100, "Illegal characters found in parameter 'quantity'; legal range is '^([0-9]{1,20})(\\.[0-9]{1,20})?$'."), ({'quantity': '-1'}, -1100, None), ({'quantity': ''}, -1102, None),
    ({'quantity': '100'}, -2010, 'Account has insufficient balance for requested action.'), ({'side': 'SELL', 'quantity': '3'}, -2010, 'Account has insufficient balance for requested action.'),
    ({'symbol': 'NONEUSD'}, -1121, 'Invalid symbol.'), ({'symbol': 'btcusd'}, -1100, None), ({'side': 'HOLD'}, -1117, 'Invalid side.'), ({'type': 'WISH'}, -1116, 'Invalid orderType.'),
    ({'timeInForce': 'GTX'}, -1115, 'Invalid timeInForce.'), ({'type': 'LIMIT_MAKER'}, -1106, "Parameter 'timeInForce' sent when not required."), ({'stopPrice': '1'}, -1106, "Parameter 'stopPrice' sent when not required."),
    ({'icebergQty': '0.001'}, -1013, 'Iceberg orders are not supported for this symbol.'), ({'newClientOrderId': 'with space'}, -1100, None), ({'newClientOrderId': 'x' * 37}, -1100, None),
    ({'colour': 'red'}, -1104, "Not all sent parameters were read; read '8' parameter(s) but was sent '9'."), ({'selfTradePreventionMode': 'MAYBE'}, -1130, None), ({'newOrderRespType': 'LOUD'}, -1130, None),
]


def test_every_refusal_has_the_venues_code_and_changes_nothing(venue, raw):
    for wrong, code, msg in REFUSED:
        status, told, _ = raw.order(**wrong)
        assert (status, told['code']) == (400, code) and (msg is None or told['msg'] == msg), (wrong, told)
    for wrong, code, msg in (({'type': 'LIMIT_MAKER', 'price': '60001'}, -2010, 'Order would immediately match and take.'),
                             ({'type': 'STOP_LOSS', 'stopPrice': '59000'}, -1013, 'Stop loss orders are not supported for this symbol.'),
                             ({'type': 'STOP_LOSS_LIMIT', 'timeInForce': 'GTC', 'price': '59000', 'stopPrice': '59000'}, -2010, 'Order would trigger immediately.'),
                             ({'type': 'MARKET'}, 200, None), ({'type': 'MARKET', 'quoteOrderQty': '50'}, -1128, 'Combination of optional parameters invalid.')):
        status, told, _ = raw.signed('POST', 'order', **{'symbol': 'BTCUSD', 'side': 'BUY', 'quantity': '0.01'} | wrong)
        assert status == code == 200 or (told['code'], told['msg']) == (code, msg), (wrong, told)
    assert raw.signed('POST', 'order', symbol='BTCUSD', side='BUY', type='MARKET')[1]['msg'] == "Param 'quantity' or 'quoteOrderQty' must be sent, but both were empty/null!"
    assert raw.signed('POST', 'order', symbol='BTCUSD', side='BUY', type='MARKET', quoteOrderQty='5')[1]['msg'] == 'Filter failure: NOTIONAL'
    assert len(venue.call(lambda: venue.exchange.all('main'))) == 1   # the market order alone


def test_client_ids(raw):
    assert raw.order(newClientOrderId='g1')[0] == 200
    assert raw.code(newClientOrderId='g1') == (400, -2010, 'Duplicate order sent.')
    number = raw.signed('GET', 'order', symbol='BTCUSD', origClientOrderId='g1')[1]['orderId']
    assert raw.signed('DELETE', 'order', symbol='BTCUSD', origClientOrderId='g1', newClientOrderId='c1')[1]['clientOrderId'] == 'c1'
    assert raw.signed('DELETE', 'order', symbol='BTCUSD', origClientOrderId='g1')[:2] == (400, {'code': -2011, 'msg': 'Unknown order sent.'})
    assert raw.signed('GET', 'order', symbol='BTCUSD', orderId=number)[1]['clientOrderId'] == 'g1'
    assert raw.order(newClientOrderId='g1')[1]['orderId'] != number   # free again once the first one is over
    assert raw.signed('GET', 'order', symbol='ETHUSD', orderId=number)[1] == {'code': -2013, 'msg': 'Order does not exist.'}
    assert raw.signed('GET', 'order', symbol='BTCUSD')[1]['code'] == -1102
    named = {raw.order(price='58000')[1]['clientOrderId'] for _ in range(3)}
    assert len(named) == 3 and all(len(x) == 22 for x in named)


def test_room_for_orders(venue, raw):
    venue.advance(10 - time.time() % 10 + 0.05)   # the quota's ten seconds begin now
    for n in range(5):
        assert raw.order(type='STOP_LOSS_LIMIT', price=f'6{n + 2}000', stopPrice='61000')[0] == 200
    assert raw.code(type='STOP_LOSS_LIMIT', price='62000', stopPrice='61000') == (400, -1013, 'Filter failure: MAX_NUM_ALGO_ORDERS')
    for _ in range(94):
        status, told, headers = raw.order(quantity='0.001')
        assert status == 200
    assert headers['X-MBX-ORDER-COUNT-10S'] == headers['X-MBX-ORDER-COUNT-1D'] == '100'
    status, told, headers = raw.order()
    assert (status, told) == (429, {'code': -1015, 'msg': 'Too many new orders; current limit is 100 orders per 10 SECOND.'}) and 'Retry-After' not in headers
    assert [x['count'] for x in raw.signed('GET', 'rateLimit/order')[1]] == [100, 100]
    venue.advance(10)
    assert raw.signed('POST', 'order', symbol='BTCUSD', side='BUY', type='MARKET', quantity='0.001')[0] == 200


def test_weights_429_and_418(venue, raw):
    costs = {('ping', ''): 1, ('exchangeInfo', ''): 10, ('depth', 'symbol=BTCUSD&limit=100'): 1, ('depth', 'symbol=BTCUSD&limit=500'): 5, ('depth', 'symbol=BTCUSD&limit=1000'): 10,
             ('depth', 'symbol=BTCUSD&limit=5000'): 50, ('ticker/24hr', 'symbol=BTCUSD'): 1, ('ticker/24hr', ''): 40, ('ticker/price', ''): 2, ('klines', 'symbol=BTCUSD&interval=1d&limit=1'): 1}
    used = 0
    for (path, query), cost in costs.items():
        status, _, headers = raw.send('GET', f'/api/v3/{path}', query)
        used = used + cost if int(headers['X-MBX-USED-WEIGHT-1M']) > cost else cost   # a minute may begin between two requests
        assert status == 200 and int(headers['X-MBX-USED-WEIGHT-1M']) == int(headers['X-MBX-USED-WEIGHT']) == used, path
    venue.advance(61 - (venue.server.clock.now() // 10 ** 9) % 60)   # a whole minute ahead
    for _ in range(24):
        assert raw.get('depth', symbol='BTCUSD', limit=5000)[0] == 200
    status, told, headers = raw.get('ping')
    assert status == 429 and told['code'] == -1003 and told['msg'].startswith('Too much request weight used; current limit is 1200 request weight per 1 MINUTE') and 0 < int(headers['Retry-After']) <= 60
    for _ in range(10):
        status, told, headers = raw.get('ping')
    assert status == 418 and told['msg'].startswith('Way too much request weight used; IP banned until') and int(headers['Retry-After']) == 120
    venue.advance(100)
    assert raw.get('ping')[0] == 418   # the next minute has come, but the ban goes on
    venue.advance(21)
    assert raw.get('ping')[0] == 200


def test_a_symbol_that_is_halted_and_one_whose_precision_changes(venue, raw):
    venue.fault({'fault': 'halted', 'symbol': 'BTC-USD'})
    assert raw.code() == (400, -1013, 'Market is closed.')
    assert raw.get('exchangeInfo', symbol='BTCUSD')[1]['symbols'][0]['status'] == 'HALT'
    venue.fault({'fault': 'precision', 'symbol': 'ETH-USD', 'tick': '0.1', 'lot': '0.001'})
    info = {f['filterType']: f for f in raw.get('exchangeInfo', symbol='ETHUSD')[1]['symbols'][0]['filters']}
    assert info['PRICE_FILTER']['tickSize'] == '0.10000000' and info['LOT_SIZE']['stepSize'] == '0.00100000'
    assert raw.code(symbol='ETHUSD', price='2900.05') == (400, -1013, 'Filter failure: PRICE_FILTER')


def test_cancel_and_replace(venue, raw):
    raw.order(newClientOrderId='g1')
    def replace(**more): return raw.signed('POST', 'order/cancelReplace', **{'symbol': 'BTCUSD', 'side': 'BUY', 'type': 'LIMIT', 'timeInForce': 'GTC', 'quantity': '0.02', 'price': '58000', 'cancelReplaceMode': 'STOP_ON_FAILURE'} | more)
    status, told, _ = replace(cancelOrigClientOrderId='g1', newClientOrderId='g2')
    assert status == 200 and (told['cancelResult'], told['newOrderResult']) == ('SUCCESS', 'SUCCESS') and told['newOrderResponse']['origQty'] == '0.02000000' and told['cancelResponse']['status'] == 'CANCELED'
    status, told, _ = replace(cancelOrigClientOrderId='g1')
    assert (status, told['code'], told['data']['newOrderResult'], told['data']['newOrderResponse']) == (400, -2022, 'NOT_ATTEMPTED', None)
    status, told, _ = replace(cancelOrigClientOrderId='g1', cancelReplaceMode='ALLOW_FAILURE')
    assert (status, told['code'], told['data']['cancelResponse'], told['data']['newOrderResult']) == (409, -2021, {'code': -2011, 'msg': 'Unknown order sent.'}, 'SUCCESS')
    status, told, _ = replace(cancelOrigClientOrderId='g2', quantity='100')
    assert (status, told['code'], told['data']['cancelResult'], told['data']['newOrderResponse']['code']) == (409, -2021, 'SUCCESS', -2010)
    assert replace(cancelOrigClientOrderId='g2', cancelReplaceMode='PERHAPS')[1]['code'] == -1130
    assert [o['status'] for o in raw.signed('DELETE', 'openOrders', symbol='BTCUSD')[1]] == ['CANCELED']
    assert raw.signed('DELETE', 'openOrders', symbol='BTCUSD')[1]['code'] == -2011


def test_money_is_exact_to_the_last_digit(venue, raw):
    """Fees are taken from what is received; what the account has is what the fills say, and what the control endpoint says."""
    before = {b['asset']: b for b in raw.signed('GET', 'account')[1]['balances']}
    for side, qty in (('BUY', '0.12345'), ('SELL', '0.1'), ('BUY', '0.00777')):
        raw.signed('POST', 'order', symbol='BTCUSD', side=side, type='MARKET', quantity=qty)
    raw.order(quantity='0.5')
    from decimal import Decimal as D
    btc, usd = D(before['BTC']['free']), D(before['USD']['free'])
    for t in raw.signed('GET', 'myTrades', symbol='BTCUSD')[1]:
        sign = 1 if t['isBuyer'] else -1
        assert t['commissionAsset'] == ('BTC' if t['isBuyer'] else 'USD') and D(t['quoteQty']) == D(t['price']) * D(t['qty'])
        btc, usd = btc + sign * D(t['qty']) - (D(t['commission']) if t['isBuyer'] else 0), usd - sign * D(t['quoteQty']) - (0 if t['isBuyer'] else D(t['commission']))
    after = {b['asset']: b for b in raw.signed('GET', 'account')[1]['balances']}
    assert D(after['BTC']['free']) == btc and D(after['USD']['free']) == usd - 29_500 and D(after['USD']['locked']) == 29_500


# -- the documents, field by field

S, I, B = str, int, bool
ORDER = {'symbol': S, 'orderId': I, 'orderListId': I, 'clientOrderId': S, 'price': S, 'origQty': S, 'executedQty': S, 'cummulativeQuoteQty': S, 'status': S, 'timeInForce': S, 'type': S, 'side': S, 'selfTradePreventionMode': S}
TICKER = {**dict.fromkeys(('symbol', 'priceChange', 'priceChangePercent', 'weightedAvgPrice', 'prevClosePrice', 'lastPrice', 'lastQty', 'bidPrice', 'bidQty', 'askPrice', 'askQty', 'openPrice', 'highPrice', 'lowPrice', 'volume',
                           'quoteVolume'), S), **dict.fromkeys(('openTime', 'closeTime', 'firstId', 'lastId', 'count'), I)}
DOCUMENTED = {
    'time': {'serverTime': I}, 'depth?symbol=BTCUSD': {'lastUpdateId': I, 'bids': list, 'asks': list}, 'avgPrice?symbol=BTCUSD': {'mins': I, 'price': S}, 'ticker/24hr?symbol=BTCUSD': TICKER,
    'trades?symbol=BTCUSD': [{'id': I, 'price': S, 'qty': S, 'quoteQty': S, 'time': I, 'isBuyerMaker': B, 'isBestMatch': B}], 'aggTrades?symbol=BTCUSD': [{'a': I, 'p': S, 'q': S, 'f': I, 'l': I, 'T': I, 'm': B, 'M': B}],
    'klines?symbol=BTCUSD&interval=1m': [[I, S, S, S, S, S, I, S, I, S, S, S]], 'ticker/price?symbol=BTCUSD': {'symbol': S, 'price': S}, 'ticker/price': [{'symbol': S, 'price': S}],
    'ticker/bookTicker?symbol=BTCUSD': {'symbol': S, 'bidPrice': S, 'bidQty': S, 'askPrice': S, 'askQty': S},
    'ticker?symbol=BTCUSD&windowSize=1h': {k: t for k, t in TICKER.items() if k not in ('prevClosePrice', 'lastQty', 'bidPrice', 'bidQty', 'askPrice', 'askQty')},
    'exchangeInfo': {'timezone': S, 'serverTime': I, 'rateLimits': [{'rateLimitType': S, 'interval': S, 'intervalNum': I, 'limit': I}], 'exchangeFilters': list,
                     'symbols': [{**dict.fromkeys(('symbol', 'status', 'baseAsset', 'quoteAsset', 'defaultSelfTradePreventionMode'), S),
                                  **dict.fromkeys(('baseAssetPrecision', 'quotePrecision', 'quoteAssetPrecision', 'baseCommissionPrecision', 'quoteCommissionPrecision'), I),
                                  **dict.fromkeys(('icebergAllowed', 'ocoAllowed', 'quoteOrderQtyMarketAllowed', 'allowTrailingStop', 'cancelReplaceAllowed', 'isSpotTradingAllowed', 'isMarginTradingAllowed'), B),
                                  'orderTypes': [S], 'filters': [{'filterType': S}], 'permissions': [S], 'allowedSelfTradePreventionModes': [S]}]}}
SIGNED = {
    'order': {**ORDER, 'stopPrice': S, 'icebergQty': S, 'time': I, 'updateTime': I, 'isWorking': B, 'origQuoteOrderQty': S, 'workingTime': I},
    'account': {'makerCommission': I, 'takerCommission': I, 'buyerCommission': I, 'sellerCommission': I, 'commissionRates': {'maker': S, 'taker': S, 'buyer': S, 'seller': S}, 'canTrade': B, 'canWithdraw': B, 'canDeposit': B,
                'brokered': B, 'requireSelfTradePrevention': B, 'updateTime': I, 'accountType': S, 'balances': [{'asset': S, 'free': S, 'locked': S}], 'permissions': [S], 'tradeGroupId': I},
    'myTrades': [{'symbol': S, 'id': I, 'orderId': I, 'orderListId': I, 'price': S, 'qty': S, 'quoteQty': S, 'commission': S, 'commissionAsset': S, 'time': I, 'isBuyer': B, 'isMaker': B, 'isBestMatch': B}],
    'rateLimit/order': [{'rateLimitType': S, 'interval': S, 'intervalNum': I, 'limit': I, 'count': I}]}
FULL = {**ORDER, 'transactTime': I, 'workingTime': I, 'fills': [{'price': S, 'qty': S, 'commission': S, 'commissionAsset': S, 'tradeId': I}]}
CANCELLED = {**ORDER, 'origClientOrderId': S}


def missing(form, got, at=''):
    """Documented fields that are not there, or not of their type."""
    if isinstance(form, dict):
        return [x for k, f in form.items() for x in (missing(f, got[k], f'{at}.{k}') if isinstance(got, dict) and k in got else [f'{at}.{k}'])]
    if isinstance(form, list) and len(form) == 1:
        return [x for i, g in enumerate(got) for x in missing(form[0], g, f'{at}[{i}]')] if isinstance(got, list) and got else [at]
    if isinstance(form, list):
        return [x for i, (f, g) in enumerate(zip(form, got)) for x in missing(f, g, f'{at}[{i}]')] + ([at] if len(form) != len(got) else [])
    return [] if type(got) is form else [f'{at} is {got!r}']


def test_every_documented_field_is_there_and_of_its_type(raw):
    for path, form in DOCUMENTED.items():
        name, _, query = path.partition('?')
        assert not missing(form, raw.send('GET', f'/api/v3/{name}', query)[1], path)
    bought = raw.signed('POST', 'order', symbol='BTCUSD', side='BUY', type='MARKET', quantity='0.01')[1]
    assert not missing(FULL, bought)
    resting = raw.order()[1]
    assert not missing(SIGNED['order'], raw.signed('GET', 'order', symbol='BTCUSD', orderId=resting['orderId'])[1])
    assert not missing([SIGNED['order']], raw.signed('GET', 'openOrders')[1]) and not missing([SIGNED['order']], raw.signed('GET', 'allOrders', symbol='BTCUSD')[1])
    assert not missing(CANCELLED, raw.signed('DELETE', 'order', symbol='BTCUSD', orderId=resting['orderId'])[1])
    assert not missing(SIGNED['account'], raw.signed('GET', 'account')[1]) and not missing(SIGNED['myTrades'], raw.signed('GET', 'myTrades', symbol='BTCUSD')[1])
    assert not missing(SIGNED['rateLimit/order'], raw.signed('GET', 'rateLimit/order')[1])
    stop = raw.signed('POST', 'order', symbol='BTCUSD', side='SELL', type='STOP_LOSS_LIMIT', timeInForce='GTC', quantity='0.01', price='55000', stopPrice='56000')[1]
    assert set(stop) == {'symbol', 'orderId', 'orderListId', 'clientOrderId', 'transactTime'}   # ACK, as for every type but LIMIT and MARKET


OWN = {**dict.fromkeys('escSofqpPFCxXrlzLnZYQV', S), **dict.fromkeys('EgiTtIO', I), 'w': B, 'm': B, 'M': B}
STREAMS = {
    'btcusd@trade': {**dict.fromkeys('espq', S), **dict.fromkeys('EtbaT', I), 'm': B, 'M': B}, 'btcusd@aggTrade': {**dict.fromkeys('espq', S), **dict.fromkeys('EaflT', I), 'm': B, 'M': B},
    'btcusd@bookTicker': {'u': I, **dict.fromkeys('sbBaA', S)}, 'btcusd@depth@100ms': {'e': S, 'E': I, 's': S, 'U': I, 'u': I, 'b': list, 'a': list}, 'btcusd@depth5@100ms': {'lastUpdateId': I, 'bids': [[S, S]], 'asks': [[S, S]]},
    'btcusd@kline_1m': {'e': S, 'E': I, 's': S, 'k': {**dict.fromkeys('siochlvqVQB', S), **dict.fromkeys('tTfLn', I), 'x': B}}, 'btcusd@miniTicker': {**dict.fromkeys('escohlvq', S), 'E': I},
    'btcusd@ticker': {**dict.fromkeys('espPwxcQbBaAohlvq', S), **dict.fromkeys('EOCFLn', I)}, '!ticker@arr': [{**dict.fromkeys('espPwxcQbBaAohlvq', S), **dict.fromkeys('EOCFLn', I)}],
    '!miniTicker@arr': [{**dict.fromkeys('escohlvq', S), 'E': I}], 'btcusd@ticker_1h': {**dict.fromkeys('espPohlcwvq', S), **dict.fromkeys('EOCFLn', I)}}


async def heard(ws, wanted, seconds=5.0):
    """Messages until `wanted` says enough."""
    out = []
    async with asyncio.timeout(seconds):
        while not wanted(out):
            out.append(await ws.receive_json())
    return out


def test_every_documented_stream(venue, raw):
    async def listen():
        async with aiohttp.ClientSession() as http, http.ws_connect(f'{venue.card["ws"]}/stream?streams={"/".join(STREAMS)}') as ws:
            await asyncio.to_thread(raw.signed, 'POST', 'order', symbol='BTCUSD', side='BUY', type='MARKET', quantity='0.01')
            return await heard(ws, lambda out: {x['stream'] for x in out} == set(STREAMS))
    for x in asyncio.run(listen()):
        assert not missing(STREAMS[x['stream']], x['data'], x['stream'])


def test_own_stream_and_the_end_of_its_key(venue, raw):
    async def listen():
        key = raw.send('POST', '/api/v3/userDataStream')[1]['listenKey']
        assert raw.send('POST', '/api/v3/userDataStream')[1]['listenKey'] == key and raw.send('PUT', '/api/v3/userDataStream', f'listenKey={key}')[:2] == (200, {})
        async with aiohttp.ClientSession() as http, http.ws_connect(f'{venue.card["ws"]}/ws/{key}') as ws:
            def act():
                raw.order(newClientOrderId='g1')
                raw.signed('DELETE', 'order', symbol='BTCUSD', origClientOrderId='g1', newClientOrderId='c1')
                raw.signed('POST', 'order', symbol='BTCUSD', side='SELL', type='MARKET', quantity='0.01')
                urllib.request.urlopen(urllib.request.Request(venue.card['control'] + '/wallet', b'{"asset": "BTC", "amount": "1.5"}', {'X-Sandbox': venue.card['token']}), timeout=5).read()
            await asyncio.to_thread(act)
            told = await heard(ws, lambda out: any(x['e'] == 'balanceUpdate' for x in out) and out[-1]['e'] == 'outboundAccountPosition')
            await asyncio.to_thread(venue.advance, 3_601)
            told += await heard(ws, lambda out: any(x['e'] == 'listenKeyExpired' for x in out))
        assert raw.send('PUT', '/api/v3/userDataStream', f'listenKey={key}')[1] == {'code': -1125, 'msg': 'This listenKey does not exist.'}
        return told
    told = asyncio.run(listen())
    reports = [x for x in told if x['e'] == 'executionReport']
    assert [(x['x'], x['X'], x['c'], x['C']) for x in reports[:2]] == [('NEW', 'NEW', 'g1', ''), ('CANCELED', 'CANCELED', 'c1', 'g1')]
    assert [(x['x'], x['X'], x['N']) for x in reports[2:]] == [('NEW', 'NEW', None), ('TRADE', 'FILLED', 'USD')]
    for x in reports:
        assert not missing(OWN, x) and (x['N'] is None or isinstance(x['N'], str))
    assert [(x['a'], x['d']) for x in told if x['e'] == 'balanceUpdate'] == [('BTC', '1.50000000')]
    locked = [b['l'] for x in told if x['e'] == 'outboundAccountPosition' for b in x['B'] if b['a'] == 'USD']
    assert '590.00000000' in locked and locked[-1] == '0.00000000'


def test_a_book_kept_from_the_stream_is_the_book(venue, raw):
    """A snapshot taken in the middle, changes with no hole between them, and at the end the same levels as REST."""
    async def follow():
        async with aiohttp.ClientSession() as http, http.ws_connect(f'{venue.card["ws"]}/ws/btcusd@depth@100ms') as ws:
            def move(prices):
                for p in prices:
                    venue.set_price('BTC-USD', p)
                    time.sleep(0.03)
            await asyncio.to_thread(move, range(60_000, 60_100, 10))
            snapshot = raw.get('depth', symbol='BTCUSD', limit=1000)[1]
            await asyncio.to_thread(move, range(60_200, 60_100, -10))
            final = raw.get('depth', symbol='BTCUSD', limit=1000)[1]
            return snapshot, await heard(ws, lambda out: bool(out) and out[-1]['u'] >= final['lastUpdateId']), final
    snapshot, changes, final = asyncio.run(follow())
    assert all(b['U'] == a['u'] + 1 for a, b in zip(changes, changes[1:])) and changes[0]['U'] <= snapshot['lastUpdateId'] + 1
    book = {side: dict(snapshot[name]) for side, name in (('b', 'bids'), ('a', 'asks'))}
    for c in (c for c in changes if c['u'] > snapshot['lastUpdateId']):
        for side in 'ba':
            for price, qty in c[side]:
                book[side][price] = qty
    kept = {side: {p: q for p, q in levels.items() if float(q)} for side, levels in book.items()}
    assert kept == {'b': dict(final['bids']), 'a': dict(final['asks'])}


def test_sockets_obey_the_rules_of_the_door(venue):
    async def knock():
        async with aiohttp.ClientSession() as http:
            async with http.ws_connect(venue.card['ws'] + '/ws/1') as ws:   # ccxt.pro numbers its sockets
                for text, told in (('{"method": "SUBSCRIBE", "params": ["btcusd@trade", "nonsense"], "id": 1}', {'result': None, 'id': 1}), ('{"method": "LIST_SUBSCRIPTIONS", "id": 2}', {'result': ['btcusd@trade', 'nonsense'], 'id': 2}),
                                   ('{"method": "SET_PROPERTY", "params": ["combined", true], "id": 3}', {'result': None, 'id': 3}), ('not json', None)):
                    await ws.send_str(text)
                    said = await ws.receive_json(timeout=5)
                    assert said == told or (told is None and said['code'] == 3)
                await ws.ping()
            async with http.ws_connect(venue.card['ws'] + '/ws') as ws:
                for n in range(8):
                    await ws.send_json({'method': 'LIST_SUBSCRIPTIONS', 'id': n})
                answers = 0
                while (await ws.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                    answers += 1
                return answers, ws.close_code
    assert asyncio.run(knock()) == (5, 1008)


def test_the_websocket_api_answers_as_rest_does(venue, raw):
    def signed(**params):
        params = params | {'apiKey': raw.card['key'], 'timestamp': int(time.time() * 1000)}
        return params | {'signature': raw.sign('&'.join(f'{k}={params[k]}' for k in sorted(params)))}
    order = {'symbol': 'BTCUSD', 'side': 'BUY', 'type': 'LIMIT', 'timeInForce': 'GTC', 'quantity': '0.01', 'price': '59000', 'newClientOrderId': 'g1'}
    asked = [('time', {}), ('exchangeInfo', {'symbols': ['BTCUSD', 'ETHUSD']}), ('order.place', signed(**order)), ('v3/order.status', signed(symbol='BTCUSD', origClientOrderId='g1')),
             ('order.place', signed(**order)), ('order.cancel', signed(symbol='BTCUSD', origClientOrderId='g1')), ('account.status', signed() | {'signature': '00'}), ('account.status', {}),
             ('order.give', {}), ('depth', {'symbol': 'BTCUSD', 'limit': 5, 'returnRateLimits': False}), ('userDataStream.start', {'apiKey': raw.card['key']})]
    async def talk():
        async with aiohttp.ClientSession() as http, http.ws_connect(raw.card['ws_api']) as ws:
            out = []
            for n, (method, params) in enumerate(asked):
                await ws.send_json({'id': n, 'method': method, 'params': params})
                out.append(await ws.receive_json(timeout=5))
            await ws.send_str('{')
            return out, await ws.receive_json(timeout=5)
    told, broken = asyncio.run(talk())
    assert [x['id'] for x in told] == list(range(len(asked))) and (broken['id'], broken['error']['code']) == (None, -1135)
    assert [x['status'] if 'result' in x else (x['status'], x['error']['code']) for x in told] == [200, 200, 200, 200, (400, -2010), 200, (400, -1022), (400, -1102), (400, -1020), 200, 200]
    assert len(told[1]['result']['symbols']) == 2 and told[3]['result']['status'] == 'NEW' and told[5]['result']['status'] == 'CANCELED' and 'rateLimits' not in told[9] and len(told[10]['result']['listenKey']) == 64
    assert [x['rateLimitType'] for x in told[2]['rateLimits']] == ['ORDERS', 'ORDERS', 'REQUEST_WEIGHT'] and [x['rateLimitType'] for x in told[0]['rateLimits']] == ['REQUEST_WEIGHT']


# -- what goes wrong on the way

def test_an_order_whose_answer_was_lost_can_be_found(venue, raw):
    venue.fault({'fault': 'drop_answer', 'op': 'submit'})
    with pytest.raises((ConnectionError, urllib.error.URLError, OSError)):
        raw.order(newClientOrderId='g1')
    assert raw.signed('GET', 'order', symbol='BTCUSD', origClientOrderId='g1')[1]['status'] == 'NEW'
    venue.fault({'fault': 'server_error', 'op': 'submit', 'status': 504}, {'fault': 'throttle', 'op': 'submit', 's': 7}, {'fault': 'throttle', 'op': 'cancel', 's': 90, 'ban': True})
    assert raw.code(newClientOrderId='g2')[0] == 504
    status, told, headers = raw.order(newClientOrderId='g2')
    assert (status, told['code'], headers['Retry-After']) == (429, -1003, '7')
    status, told, headers = raw.signed('DELETE', 'order', symbol='BTCUSD', origClientOrderId='g1')
    assert (status, told['code'], headers['Retry-After']) == (418, -1003, '90')
    assert raw.signed('GET', 'order', symbol='BTCUSD', origClientOrderId='g2')[1]['code'] == -2013   # none of the three was carried out
    venue.fault({'fault': 'maintenance', 's': 0.2})
    assert raw.get('ping')[0] == 503


@given(st.sampled_from(sorted(INTERVALS)), st.integers(0, 800 * DAY), st.integers(1, 60))
def test_klines_follow_each_other_without_a_hole(interval, back, limit):
    now = utc('2026-03-02T14:30:10.250Z')
    for start in (None, now - back):
        opens = opening(interval, start, None, limit, now)
        assert all(closes(interval, a) == b for a, b in zip(opens, opens[1:])) and len(opens) <= limit
        assert all(opened(interval, x) == x and (start is None or x >= start) and x <= now for x in opens)
    assert len(opening(interval, None, now - back, limit, now)) == limit


def test_the_interval_table_is_whole():
    assert len(INTERVALS) == 15 and INTERVALS['1m'] == MINUTE and INTERVALS['12h'] == 12 * HOUR and closes('1M', utc('2026-02-01')) == utc('2026-03-01')
