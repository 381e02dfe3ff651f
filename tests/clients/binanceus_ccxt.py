"""ccxt's Binance.US client, unchanged but for its address: list, candles with paging, quotes, book, trades, orders of each type, cancel, fills.

Reads a sandbox's card (JSON) from stdin, writes what it saw as one JSON object. With "ed25519" in argv it signs with the Ed25519 key.
"""
import json
import sys
import urllib.request

import ccxt

card = json.load(sys.stdin)
ed = 'ed25519' in sys.argv
client = ccxt.binanceus({'apiKey': card['ed25519_key' if ed else 'key'], 'secret': card['ed25519_secret' if ed else 'secret']})
client.urls['api'] = {k: v.replace('https://api.binance.us', card['rest']) if isinstance(v, str) else v for k, v in client.urls['api'].items()}
client.options['adjustForTimeDifference'] = True
client.rateLimit = 1
seen = {}


def market(price, size='5'):
    """Moves the sandbox's market; the one thing here that is not the client's."""
    ask = urllib.request.Request(card['control'] + '/market', json.dumps({'symbol': 'BTC-USD', 'price': price, 'size': size}).encode(), {'X-Sandbox': card['token']})
    urllib.request.urlopen(ask, timeout=10).read()


def brief(order):
    return {k: order[k] for k in ('id', 'clientOrderId', 'status', 'side', 'type', 'timeInForce', 'postOnly', 'amount', 'filled', 'remaining', 'price', 'stopPrice', 'average', 'cost')} | {
        'trades': len(order['trades'] or []), 'raw_status': order['info'].get('status')}


def refused(act):
    try:
        act()
    except ccxt.BaseError as e:
        return type(e).__name__, str(e)
    return None


markets = client.load_markets()
btc = markets['BTC/USD']
seen['symbols'] = sorted(markets)
seen['market'] = {'precision': btc['precision'], 'limits': btc['limits'], 'active': btc['active'], 'types': btc['info']['orderTypes']}
seen['time_difference_ms'] = client.options['timeDifference']

# Candles: paged forward from three hours ago, as a downloader does it.
now = client.milliseconds()
since, page, bars = now // 60_000 * 60_000 - 180 * 60_000, 0, []
while since < now:
    rows = client.fetch_ohlcv('BTC/USD', '1m', since=since, limit=50)
    if not rows:
        break
    bars += rows
    since, page = rows[-1][0] + 60_000, page + 1
seen['candles'] = {'pages': page, 'rows': len(bars), 'steps': sorted({b[0] - a[0] for a, b in zip(bars, bars[1:])}), 'ordered': all(b[3] <= b[1] <= b[2] and b[3] <= b[4] <= b[2] for b in bars)}
seen['intervals'] = {i: len(client.fetch_ohlcv('BTC/USD', i, limit=3)) for i in client.timeframes if i != '1s'}

seen['ticker'] = {k: client.fetch_ticker('BTC/USD')[k] for k in ('symbol', 'last', 'bid', 'ask', 'high', 'low', 'baseVolume', 'quoteVolume', 'percentage')}
seen['tickers'] = sorted(client.fetch_tickers())
seen['bids_asks'] = {k: client.fetch_bids_asks(['BTC/USD'])['BTC/USD'][k] for k in ('bid', 'ask')}
seen['last_prices'] = client.fetch_last_prices(['ETH/USD'])['ETH/USD']['price']
book = client.fetch_order_book('BTC/USD', limit=5)
seen['book'] = {'bids': book['bids'], 'asks': book['asks'], 'nonce': book['nonce']}
trades = client.fetch_trades('BTC/USD', limit=10)
seen['trades'] = {'ids': [int(t['id']) for t in trades], 'sides': sorted({t['side'] for t in trades}), 'prices': sorted({t['price'] for t in trades})}

# Orders of each type, and each time in force.
market(60_000)
orders = seen['orders'] = {}
orders['limit'] = brief(client.create_order('BTC/USD', 'limit', 'buy', 0.01, 59_000, {'clientOrderId': 'gccxtlimit'}))
orders['market'] = brief(client.create_order('BTC/USD', 'market', 'buy', 0.02))
orders['by_cost'] = brief(client.create_market_buy_order_with_cost('BTC/USD', 300))
orders['post_only'] = brief(client.create_order('BTC/USD', 'limit', 'buy', 0.01, 58_000, {'postOnly': True}))
orders['ioc'] = brief(client.create_order('BTC/USD', 'limit', 'buy', 0.01, 60_010, {'timeInForce': 'IOC'}))
orders['fok'] = brief(client.create_order('BTC/USD', 'limit', 'buy', 8, 60_000, {'timeInForce': 'FOK'}))
orders['stop_loss'] = brief(client.create_order('BTC/USD', 'limit', 'sell', 0.005, 55_000, {'stopLossPrice': 56_000}))
orders['take_profit'] = brief(client.create_order('BTC/USD', 'limit', 'sell', 0.005, 66_000, {'takeProfitPrice': 65_000}))
orders['test'] = client.create_order('BTC/USD', 'limit', 'buy', 0.01, 59_000, {'test': True})['id']

seen['open'] = sorted(o['clientOrderId'] == 'gccxtlimit' for o in client.fetch_open_orders('BTC/USD'))
seen['all'] = len(client.fetch_orders('BTC/USD'))
one = client.fetch_order(orders['limit']['id'], 'BTC/USD')
named = client.fetch_order('', 'BTC/USD', {'origClientOrderId': 'gccxtlimit'})
seen['looked_up'] = [brief(one)['status'], named['id'] == one['id']]
seen['cancelled'] = brief(client.cancel_order(orders['post_only']['id'], 'BTC/USD'))
seen['edited'] = brief(client.edit_order(orders['limit']['id'], 'BTC/USD', 'limit', 'buy', 0.012, 59_100))
market(55_900)   # the stop is set off, and the edited bid is filled on the way down
seen['triggered'] = brief(client.fetch_order(orders['stop_loss']['id'], 'BTC/USD'))
seen['edited_later'] = brief(client.fetch_order(seen['edited']['id'], 'BTC/USD'))
market(60_000)
seen['cancel_all'] = len(client.cancel_all_orders('BTC/USD'))
seen['open_at_the_end'] = len(client.fetch_open_orders('BTC/USD'))

mine = client.fetch_my_trades('BTC/USD')
seen['fills'] = [{'id': int(t['id']), 'order': t['order'], 'side': t['side'], 'amount': t['amount'], 'price': t['price'], 'fee': t['fee'], 'maker': t['takerOrMaker']} for t in mine]
seen['paged_fills'] = [int(t['id']) for t in client.fetch_my_trades('BTC/USD', params={'fromId': int(mine[1]['id'])})]
balance = client.fetch_balance()
seen['balance'] = {a: {k: balance[a][k] for k in ('free', 'used', 'total')} for a in ('BTC', 'USD')}
seen['fee'] = client.sapi_get_asset_query_trading_fee({'symbol': 'BTCUSD'})   # ccxt's unified call asks a path of Binance's global venue
seen['status'] = client.fetch_status()['status']

seen['refused'] = {
    'symbol': refused(lambda: client.public_get_klines({'symbol': 'NONEUSD', 'interval': '1m'})),
    'funds': refused(lambda: client.create_order('BTC/USD', 'limit', 'buy', 100, 59_000)),
    'post_only': refused(lambda: client.create_order('BTC/USD', 'limit', 'buy', 0.01, 61_000, {'postOnly': True})),
    'trigger': refused(lambda: client.create_order('BTC/USD', 'limit', 'sell', 0.005, 66_000, {'stopLossPrice': 65_000})),
    'unknown': refused(lambda: client.fetch_order('1', 'BTC/USD')),
    'cancel_unknown': refused(lambda: client.cancel_order('1', 'BTC/USD')),
    'notional': refused(lambda: client.create_order('BTC/USD', 'limit', 'buy', 0.0001, 59_000)),
}
client.apiKey = 'x' * 64
seen['refused']['key'] = refused(client.fetch_balance)
if not ed:
    client.apiKey = card['key']
    client.secret = '0' * 64
    seen['refused']['signature'] = refused(client.fetch_balance)
print(json.dumps(seen))
