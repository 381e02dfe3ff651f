"""python-binance, unchanged but for its addresses: REST with parameters in the body, streams, and the account's socket.

Reads a sandbox's card (JSON) from stdin, writes what it saw as one JSON object. With "ed25519" in argv it signs with the Ed25519 key.
"""
import asyncio
import json
import sys
import urllib.request

from binance import AsyncClient, BinanceSocketManager, Client
from binance.exceptions import BinanceAPIException

card = json.load(sys.stdin)
ed = 'ed25519' in sys.argv
for kind in (Client, AsyncClient):
    kind.API_URL, kind.MARGIN_API_URL, kind.WS_API_URL = card['rest'] + '/api', card['rest'] + '/sapi', card['ws_api']
BinanceSocketManager.STREAM_URL = card['ws'] + '/'
keys = {'api_key': card['ed25519_key'], 'private_key': card['ed25519_secret']} if ed else {'api_key': card['key'], 'api_secret': card['secret']}
client = Client(**keys, tld='us')
seen = {}


def market(price, size='5'):
    """Moves the sandbox's market; the one thing here that is not the client's."""
    ask = urllib.request.Request(card['control'] + '/market', json.dumps({'symbol': 'BTC-USD', 'price': price, 'size': size}).encode(), {'X-Sandbox': card['token']})
    urllib.request.urlopen(ask, timeout=10).read()


def refused(act):
    try:
        act()
    except BinanceAPIException as e:
        return [e.status_code, e.code, e.message]
    return None


info = client.get_exchange_info()
seen['symbols'] = [x['symbol'] for x in info['symbols']]
seen['filters'] = [f['filterType'] for f in client.get_symbol_info('BTCUSD')['filters']]
seen['time'] = isinstance(client.get_server_time()['serverTime'], int)
seen['klines'] = len(client.get_klines(symbol='BTCUSD', interval='1h', limit=24))
hours = client.get_historical_klines('BTCUSD', '1m', '1500 minutes ago UTC')
seen['paged_klines'] = {'rows': len(hours), 'steps': sorted({b[0] - a[0] for a, b in zip(hours, hours[1:])})}
seen['depth'] = {k: len(v) for k, v in client.get_order_book(symbol='BTCUSD', limit=5).items() if k != 'lastUpdateId'}
seen['trades'] = len(client.get_recent_trades(symbol='BTCUSD', limit=5))
seen['old_trades'] = [t['id'] for t in client.get_historical_trades(symbol='BTCUSD', fromId=3, limit=2)]
seen['aggregates'] = [t['a'] for t in client.get_aggregate_trades(symbol='BTCUSD', fromId=2, limit=2)]
seen['all_aggregates'] = len(list(client.aggregate_trade_iter('BTCUSD', last_id=1)))
seen['ticker'] = client.get_ticker(symbol='BTCUSD')['lastPrice']
seen['prices'] = len(client.get_all_tickers())
seen['best'] = client.get_orderbook_ticker(symbol='BTCUSD')
seen['best_of_all'] = len(client.get_orderbook_tickers())
seen['average'] = client.get_avg_price(symbol='BTCUSD')['mins']

market(60_000)
orders = seen['orders'] = {}
orders['limit'] = client.order_limit_buy(symbol='BTCUSD', quantity='0.01', price='59000', newClientOrderId='gpb1')
orders['market'] = client.order_market_buy(symbol='BTCUSD', quantity='0.02')
orders['by_cost'] = client.order_market_buy(symbol='BTCUSD', quoteOrderQty='300')
orders['sell'] = client.order_market_sell(symbol='BTCUSD', quantity='0.005')
orders['maker'] = client.create_order(symbol='BTCUSD', side='BUY', type='LIMIT_MAKER', quantity='0.01', price='58000')
orders['stop'] = client.create_order(symbol='BTCUSD', side='SELL', type='STOP_LOSS_LIMIT', timeInForce='GTC', quantity='0.005', price='55000', stopPrice='56000', newOrderRespType='RESULT')
orders['profit'] = client.create_order(symbol='BTCUSD', side='SELL', type='TAKE_PROFIT_LIMIT', timeInForce='GTC', quantity='0.005', price='66000', stopPrice='65000', newOrderRespType='FULL')
orders['ioc'] = client.create_order(symbol='BTCUSD', side='BUY', type='LIMIT', timeInForce='IOC', quantity='0.01', price='59000')
orders['test'] = client.create_test_order(symbol='BTCUSD', side='BUY', type='MARKET', quantity='0.01')
seen['open'] = [o['orderId'] for o in client.get_open_orders(symbol='BTCUSD')] == [orders[k]['orderId'] for k in ('limit', 'maker', 'stop', 'profit')]
seen['all'] = len(client.get_all_orders(symbol='BTCUSD'))
seen['order'] = client.get_order(symbol='BTCUSD', origClientOrderId='gpb1')
seen['cancel'] = client.cancel_order(symbol='BTCUSD', orderId=orders['limit']['orderId'])
market(65_100)   # the take profit is set off and waits at its limit; then the market comes to it
seen['profit_set_off'] = client.get_order(symbol='BTCUSD', orderId=orders['profit']['orderId'])['isWorking']
market(66_100)
seen['profit'] = client.get_order(symbol='BTCUSD', orderId=orders['profit']['orderId'])['status']
market(60_000)
mine = client.get_my_trades(symbol='BTCUSD')
seen['my_trades'] = {'count': len(mine), 'first': mine[0], 'of_order': len(client.get_my_trades(symbol='BTCUSD', orderId=orders['market']['orderId']))}
seen['account'] = {k: v for k, v in client.get_account().items() if k not in ('balances', 'updateTime')}
seen['balance'] = client.get_asset_balance(asset='BTC')
seen['coins'] = [x['coin'] for x in client.get_all_coins_info()]
seen['system'] = client.get_system_status()
seen['weights'] = {k: client.response.headers[k] is not None for k in ('X-MBX-USED-WEIGHT', 'X-MBX-USED-WEIGHT-1M')}
key = client.stream_get_listen_key() if hasattr(client, 'stream_get_listen_key') else None
seen['listen_key'] = {'same': client.stream_get_listen_key() == key, 'kept': client.stream_keepalive(key), 'closed': client.stream_close(key)}
seen['refused'] = {
    'symbol': refused(lambda: client.get_order_book(symbol='NONEUSD')),
    'price': refused(lambda: client.order_limit_buy(symbol='BTCUSD', quantity='0.01', price='59000.001')),
    'duplicate': refused(lambda: [client.order_limit_buy(symbol='BTCUSD', quantity='0.01', price='50000', newClientOrderId='twice') for _ in range(2)]),
    'unknown': refused(lambda: client.get_order(symbol='BTCUSD', orderId=1)),
    'cancel': refused(lambda: client.cancel_order(symbol='BTCUSD', orderId=1)),
}


async def streams():
    me = await AsyncClient.create(**keys, tld='us')
    sockets, out = BinanceSocketManager(me), {}

    async def heard(socket, move=None, until=lambda x: True):
        async with socket as s:
            await asyncio.sleep(0.2)
            if move is not None:
                await move()
            while not until(x := await asyncio.wait_for(s.recv(), 10)):
                pass
            return x

    async def restless():
        for p in range(60_100, 70_000, 10):
            await asyncio.to_thread(market, p)
            await asyncio.sleep(0.2)
    def buy(): return me.order_market_buy(symbol='BTCUSD', quantity='0.01')
    mover = asyncio.ensure_future(restless())
    try:
        told = await asyncio.gather(heard(sockets.trade_socket('BTCUSD')), heard(sockets.aggtrade_socket('BTCUSD')), heard(sockets.symbol_book_ticker_socket('BTCUSD')),
                                    heard(sockets.depth_socket('BTCUSD', depth='5')), heard(sockets.depth_socket('BTCUSD', interval=100)), heard(sockets.kline_socket('BTCUSD', interval='1m')),
                                    heard(sockets.symbol_miniticker_socket('BTCUSD')), heard(sockets.symbol_ticker_socket('BTCUSD')), heard(sockets.miniticker_socket()),
                                    heard(sockets.multiplex_socket(['btcusd@trade', 'ethusd@trade'])))
        names = ('trade', 'aggtrade', 'book', 'depth5', 'depth', 'kline', 'mini', 'ticker', 'all_mini', 'multiplex')
        out |= {name: sorted(x[0] if isinstance(x, list) else x) for name, x in zip(names, told)}
        out['own'] = await heard(sockets.user_socket(), buy, lambda x: x.get('x') == 'TRADE')
        out['placed_on_socket'] = (await me.ws_create_order(symbol='BTCUSD', side='SELL', type='MARKET', quantity='0.01'))['status']
    finally:
        mover.cancel()
        await me.session.close()   # close_connection also waits for ten silent seconds on its WebSocket API; the process ends instead
    return out


if not ed:   # a stream needs no signature
    seen['streams'] = asyncio.run(streams())
print(json.dumps(seen))
