"""A stand-in of the kind that is generated from a venue's documents: one example to each route, whatever is asked; no memory, no streams, and a look at what a request must hold."""
from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_ORDER = {'symbol': 'LTCBTC', 'orderId': 1, 'orderListId': -1, 'clientOrderId': 'myOrder1', 'price': '0.1', 'origQty': '1.0', 'executedQty': '0.0', 'cummulativeQuoteQty': '0.0', 'status': 'NEW',
          'timeInForce': 'GTC', 'type': 'LIMIT', 'side': 'BUY', 'stopPrice': '0.0', 'icebergQty': '0.0', 'time': 1499827319559, 'updateTime': 1499827319559, 'isWorking': True, 'origQuoteOrderQty': '0.000000'}
_ACK = {'symbol': 'BTCUSDT', 'orderId': 28, 'orderListId': -1, 'clientOrderId': '6gCrw2kRUAF9CvJDGP16IP', 'transactTime': 1507725176595}
_GONE = {'symbol': 'LTCBTC', 'origClientOrderId': 'myOrder1', 'orderId': 4, 'orderListId': -1, 'clientOrderId': 'cancelMyOrder1', 'transactTime': 1684804350068, 'price': '2.00000000', 'origQty': '1.00000000',
         'executedQty': '0.00000000', 'cummulativeQuoteQty': '0.00000000', 'status': 'CANCELED', 'timeInForce': 'GTC', 'type': 'LIMIT', 'side': 'BUY'}
_SIGNED = ('timestamp', 'signature')
BINANCEUS: dict[str, Any] = {
    'GET /api/v3/ping': {}, 'GET /api/v3/time': {'serverTime': 1499827319559},
    'GET /api/v3/exchangeInfo': {'timezone': 'UTC', 'serverTime': 1565246363776, 'rateLimits': [{'rateLimitType': 'REQUEST_WEIGHT', 'interval': 'MINUTE', 'intervalNum': 1, 'limit': 1200}], 'exchangeFilters': [],
        'symbols': [{'symbol': 'ETHBTC', 'status': 'TRADING', 'baseAsset': 'ETH', 'baseAssetPrecision': 8, 'quoteAsset': 'BTC', 'quoteAssetPrecision': 8, 'baseCommissionPrecision': 8, 'quoteCommissionPrecision': 8,
                     'orderTypes': ['LIMIT'], 'icebergAllowed': True, 'ocoAllowed': True, 'filters': [{'filterType': 'PRICE_FILTER', 'minPrice': '0.00000100', 'maxPrice': '100000.00000000', 'tickSize': '0.00000100'}], 'permissions': ['SPOT']}]},
    'GET /api/v3/depth': {'lastUpdateId': 1027024, 'bids': [['4.00000000', '431.00000000']], 'asks': [['4.00000200', '12.00000000']]},
    'GET /api/v3/trades': [{'id': 28457, 'price': '4.00000100', 'qty': '12.00000000', 'quoteQty': '48.000012', 'time': 1499865549590, 'isBuyerMaker': True, 'isBestMatch': True}],
    'GET /api/v3/klines': [[1499040000000, '0.01634790', '0.80000000', '0.01575800', '0.01577100', '148976.11427815', 1499644799999, '2434.19055334', 308, '1756.87402397', '28.46694368', '0']],
    'GET /api/v3/ticker/bookTicker': {'symbol': 'LTCBTC', 'bidPrice': '4.00000000', 'bidQty': '431.00000000', 'askPrice': '4.00000200', 'askQty': '9.00000000'},
    'GET /api/v3/account': {'makerCommission': 15, 'takerCommission': 15, 'buyerCommission': 0, 'sellerCommission': 0, 'canTrade': True, 'canWithdraw': True, 'canDeposit': True, 'updateTime': 123456789, 'accountType': 'SPOT',
        'balances': [{'asset': 'BTC', 'free': '4723846.89208129', 'locked': '0.00000000'}], 'permissions': ['SPOT']},
    'GET /api/v3/openOrders': [_ORDER], 'GET /api/v3/allOrders': [_ORDER], 'GET /api/v3/order': _ORDER, 'POST /api/v3/order': _ACK, 'DELETE /api/v3/order': _GONE,
    'POST /api/v3/order/cancelReplace': {'cancelResult': 'SUCCESS', 'newOrderResult': 'SUCCESS', 'cancelResponse': _GONE, 'newOrderResponse': {**_ACK, 'price': '0.02', 'origQty': '0.04', 'executedQty': '0.0', 'cummulativeQuoteQty': '0.0', 'status': 'NEW', 'timeInForce': 'GTC', 'type': 'LIMIT', 'side': 'BUY', 'fills': []}},
    'GET /api/v3/myTrades': [{'symbol': 'BNBBTC', 'id': 28457, 'orderId': 100234, 'orderListId': -1, 'price': '4.00000100', 'qty': '12.00000000', 'quoteQty': '48.000012', 'commission': '10.10000000', 'commissionAsset': 'BNB', 'time': 1499865549590, 'isBuyer': True, 'isMaker': False, 'isBestMatch': True}],
    'POST /api/v3/userDataStream': {'listenKey': 'pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1'}, 'PUT /api/v3/userDataStream': {}, 'DELETE /api/v3/userDataStream': {}}
_MUST = {'POST /api/v3/order': ('symbol', 'side', 'type', *_SIGNED), 'DELETE /api/v3/order': ('symbol', *_SIGNED), 'GET /api/v3/order': ('symbol', *_SIGNED), 'GET /api/v3/account': _SIGNED, 'GET /api/v3/klines': ('symbol', 'interval'),
         'GET /api/v3/myTrades': ('symbol', *_SIGNED), 'POST /api/v3/order/cancelReplace': ('symbol', 'side', 'type', 'cancelReplaceMode', *_SIGNED), 'GET /api/v3/openOrders': _SIGNED}

_CB_ORDER = {'order_id': '0000-000000-000000', 'product_id': 'BTC-USD', 'user_id': '2222-000000-000000', 'order_configuration': {'limit_limit_gtc': {'base_size': '0.001', 'limit_price': '10000.00', 'post_only': False}}, 'side': 'BUY',
             'client_order_id': '11111-000000-000000', 'status': 'OPEN', 'time_in_force': 'GOOD_UNTIL_CANCELLED', 'created_time': '2021-05-31T09:59:59Z', 'completion_percentage': '50', 'filled_size': '0.001', 'average_filled_price': '50',
             'fee': 'string', 'number_of_fills': '2', 'filled_value': '10000', 'pending_cancel': True, 'size_in_quote': False, 'total_fees': '5.00', 'size_inclusive_of_fees': False, 'total_value_after_fees': 'string', 'trigger_status': 'UNKNOWN_TRIGGER_STATUS',
             'order_type': 'UNKNOWN_ORDER_TYPE', 'reject_reason': 'REJECT_REASON_UNSPECIFIED', 'settled': True, 'product_type': 'UNKNOWN_PRODUCT_TYPE', 'reject_message': 'string', 'cancel_message': 'string'}
_CB_PRODUCT = {'product_id': 'BTC-USD', 'price': '140.21', 'price_percentage_change_24h': '9.43%', 'volume_24h': '1908432', 'base_increment': '0.00000001', 'quote_increment': '0.00000001', 'quote_min_size': '0.00000001', 'quote_max_size': '1000',
               'base_min_size': '0.00000001', 'base_max_size': '1000', 'base_name': 'Bitcoin', 'quote_name': 'US Dollar', 'watched': True, 'is_disabled': False, 'new': True, 'status': 'string', 'cancel_only': False, 'limit_only': False, 'post_only': False,
               'trading_disabled': False, 'auction_mode': False, 'product_type': 'UNKNOWN_PRODUCT_TYPE', 'quote_currency_id': 'USD', 'base_currency_id': 'BTC', 'mid_market_price': '140.22', 'alias': 'BTC-USD', 'view_only': False, 'price_increment': '0.00000001'}
_LADDER = {'product_id': 'BTC-USD', 'bids': [{'price': '140.20', 'size': '1.2'}], 'asks': [{'price': '140.22', 'size': '0.7'}], 'time': '2021-05-31T09:59:59Z'}
COINBASE: dict[str, Any] = {
    'GET /api/v3/brokerage/time': {'iso': '2023-03-16T12:00:00Z', 'epochSeconds': '1678968000', 'epochMillis': '1678968000000'},
    'GET /api/v3/brokerage/products': {'products': [_CB_PRODUCT], 'num_products': 100},
    'GET /api/v3/brokerage/accounts': {'accounts': [{'uuid': '8bfc20d7-f7c6-4422-bf07-8243ca4169fe', 'name': 'BTC Wallet', 'currency': 'BTC', 'available_balance': {'value': '1.23', 'currency': 'BTC'}, 'default': False, 'active': True,
        'created_at': '2021-05-31T09:59:59Z', 'updated_at': '2021-05-31T09:59:59Z', 'type': 'ACCOUNT_TYPE_UNSPECIFIED', 'ready': True, 'hold': {'value': '1.23', 'currency': 'BTC'}}], 'has_next': True, 'cursor': '789100', 'size': 0},
    'GET /api/v3/brokerage/transaction_summary': {'total_volume': 1000, 'total_fees': 25, 'fee_tier': {'pricing_tier': '<$10k', 'taker_fee_rate': '0.0010', 'maker_fee_rate': '0.0020'}},
    'GET /api/v3/brokerage/best_bid_ask': {'pricebooks': [_LADDER]}, 'GET /api/v3/brokerage/product_book': {'pricebook': _LADDER},
    'GET /api/v3/brokerage/products/*/ticker': {'trades': [{'trade_id': '34b080bf-fcfd-445a-832b-46b5ddc65601', 'product_id': 'BTC-USD', 'price': '140.91', 'size': '4', 'time': '2021-05-31T09:59:59Z', 'side': 'BUY'}], 'best_bid': '291.13', 'best_ask': '292.40'},
    'GET /api/v3/brokerage/products/*/candles': {'candles': [{'start': '1639508050', 'low': '140.21', 'high': '140.21', 'open': '140.21', 'close': '140.21', 'volume': '56437345'}]},
    'GET /api/v3/brokerage/orders/historical/batch': {'orders': [_CB_ORDER], 'has_next': True, 'cursor': '789100'}, 'GET /api/v3/brokerage/orders/historical/*': {'order': _CB_ORDER},
    'GET /api/v3/brokerage/orders/historical/fills': {'fills': [{'entry_id': '22222-2222222-22222222', 'trade_id': '1111-11111-111111', 'order_id': '0000-000000-000000', 'trade_time': '2021-05-31T09:59:59Z', 'trade_type': 'FILL', 'price': '10000.00', 'size': '0.001', 'commission': '1.25',
        'product_id': 'BTC-USD', 'sequence_timestamp': '2021-05-31T09:58:59Z', 'liquidity_indicator': 'UNKNOWN_LIQUIDITY_INDICATOR', 'size_in_quote': False, 'user_id': '3333-333333-3333333', 'side': 'BUY'}], 'cursor': '789100'},
    'POST /api/v3/brokerage/orders': {'success': True, 'success_response': {'order_id': '11111-00000-000000', 'product_id': 'BTC-USD', 'side': 'BUY', 'client_order_id': '0000-00000-000000'}, 'order_configuration': _CB_ORDER['order_configuration']},
    'POST /api/v3/brokerage/orders/batch_cancel': {'results': [{'success': True, 'failure_reason': 'UNKNOWN_CANCEL_FAILURE_REASON', 'order_id': '0000-00000'}]},
    'POST /api/v3/brokerage/orders/edit': {'success': True, 'errors': []}}
EXAMPLES = {'binanceus': BINANCEUS, 'coinbase': COINBASE}


class Answers(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    examples: dict[str, Any] = {}
    prefix = ''
    manner = ''                      # '', 'page', 'hang', 'close', 'dumb' (501 to everything)
    asked: list[str] = []

    def _route(self, path: str) -> str | None:
        key = f'{self.command} {path}'
        if key in self.examples: return key
        return next((k for k in self.examples if '*' in k and _fits(k, key)), None)

    def _say(self, status: int, body: bytes, kind: str = 'application/json') -> None:
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self) -> None:
        parts = urlsplit(self.path)
        given = parse_qs(parts.query, keep_blank_values=True)
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        path = parts.path.removeprefix(self.prefix) if parts.path.startswith(self.prefix) else '/elsewhere' + parts.path
        self.asked.append(f'{self.command} {path}')
        if self.manner == 'page': return self._say(200, b'<!DOCTYPE html><title>Welcome</title><p>hello', 'text/html')
        if self.manner == 'hang': time.sleep(30)
        if self.manner == 'close' or self.manner == 'hang': self.close_connection = True; return None
        if self.manner == 'dumb': return self._say(501, b'{"title": "not implemented"}')
        if (key := self._route(path)) is None: return self._say(404, b'{"type":"NO_PATH_MATCHED_ERROR","title":"Route not resolved, no path matched","status":404}')
        if missing := [m for m in _MUST.get(key, ()) if m not in given]: return self._say(422, json.dumps({'type': 'UNPROCESSABLE_ENTITY', 'title': 'Invalid request', 'detail': f"Request query must have required property '{missing[0]}'"}).encode())
        if 'brokerage' in path and not path.endswith('/time') and not self.headers.get('Authorization', '').startswith('Bearer '): return self._say(401, b'{"title": "Invalid security scheme used"}')
        if path.startswith('/api/v3/account') and not self.headers.get('X-MBX-APIKEY'): return self._say(401, b'{"title": "Invalid security scheme used"}')
        return self._say(200, json.dumps(self.examples[key]).encode())

    do_GET = do_POST = do_DELETE = do_PUT = answer
    def log_message(self, format: str, *args: Any) -> None: pass


def _fits(pattern: str, key: str) -> bool:
    a, b = pattern.split('/'), key.split('/')
    return len(a) == len(b) and all(x in ('*', y) for x, y in zip(a, b))


@contextmanager
def stand_in(venue: str, manner: str = '', prefix: str = '') -> Iterator[tuple[str, list[str]]]:
    "Its address, and what it was asked."
    asked: list[str] = []
    kind = type('Told', (Answers,), {'examples': EXAMPLES[venue], 'manner': manner, 'asked': asked, 'prefix': prefix})
    server = ThreadingHTTPServer(('127.0.0.1', 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try: yield f'http://127.0.0.1:{server.server_address[1]}{prefix}', asked
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
