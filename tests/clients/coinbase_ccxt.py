"""ccxt's Coinbase, with only its address changed, against a sandbox: reads the card on stdin, writes what it saw as JSON."""
import json
import sys
import time

import ccxt
import requests

card = json.load(sys.stdin)
out = {}


def move(price, size=None):
    body = {'symbol': 'BTC-USD', 'price': price} | ({'size': size} if size else {})
    requests.post(card['control'] + '/market', json=body, headers={'X-Sandbox': card['token']}, timeout=5).raise_for_status()


def shown(order):
    return {k: order[k] for k in ('status', 'side', 'type', 'price', 'amount', 'filled', 'average', 'timeInForce', 'postOnly')} | {'fee': order['fee']['cost'], 'trigger': order['triggerPrice']}


def tried(call, *args):
    try:
        return call(*args)
    except ccxt.BaseError as e:
        return type(e).__name__


cb = ccxt.coinbase({'apiKey': card['key'], 'secret': card['secret']})
cb.urls['api']['rest'] = card['rest']
BTC = 'BTC/USD'

markets = cb.load_markets()
out['markets'] = sorted(markets)
out['market'] = {'precision': markets[BTC]['precision'], 'least': markets[BTC]['limits']['cost']['min'], 'most': markets[BTC]['limits']['amount']['max'], 'active': markets[BTC]['active'], 'taker': markets[BTC]['taker'], 'maker': markets[BTC]['maker']}
out['currencies'] = sorted(cb.currencies)
out['clock_off_s'] = abs(cb.fetch_time() / 1000 - time.time())
ticker = cb.fetch_ticker(BTC)
out['ticker'] = {k: ticker[k] for k in ('symbol', 'bid', 'ask', 'last')}
tickers = cb.fetch_tickers([BTC])
out['tickers'] = {k: tickers[BTC][k] for k in ('last', 'bid', 'ask')}
out['bids_asks'] = {k: cb.fetch_bids_asks([BTC])[BTC][k] for k in ('bid', 'ask')}
book = cb.fetch_order_book(BTC, 5)
out['book'] = {'bids': book['bids'][:2], 'asks': book['asks'][:2], 'rows': len(book['bids'])}
trades = cb.fetch_trades(BTC, limit=10)
out['trades'] = {'count': len(trades), 'last': trades[-1]['price'], 'rising': all(a['timestamp'] <= b['timestamp'] for a, b in zip(trades, trades[1:]))}

# candles: one page, and three pages
minute = 60_000
page = cb.fetch_ohlcv(BTC, '1m', limit=100)
out['candles'] = {'count': len(page), 'step': sorted({b[0] - a[0] for a, b in zip(page, page[1:])}), 'sound': all(r[3] <= min(r[1], r[4]) <= max(r[1], r[4]) <= r[2] for r in page)}
since = (int(time.time() * 1000) // minute - 800) * minute
paged = []
while len(paged) < 700:
    paged += cb.fetch_ohlcv(BTC, '1m', paged[-1][0] + minute if paged else since, 250)
out['paged'] = {'count': len(paged), 'step': sorted({b[0] - a[0] for a, b in zip(paged, paged[1:])}), 'first': paged[0][0] - since}
out['lengths'] = {tf: len(cb.fetch_ohlcv(BTC, tf, limit=5)) for tf in ('5m', '15m', '30m', '1h', '2h', '6h', '1d')}

# the customer
out['balance'] = {k: cb.fetch_balance({'v3': True})['total'][k] for k in ('USD', 'BTC')}
out['balance_v2'] = cb.fetch_balance()['total']['USD']
out['accounts'] = sorted(a['code'] for a in cb.fetch_accounts())
out['portfolios'] = len(cb.fetch_portfolios())
out['fees'] = {k: cb.fetch_trading_fees({'type': 'spot'})[BTC][k] for k in ('maker', 'taker')}

# orders of every kind
orders = {
    'market_buy': cb.create_order(BTC, 'market', 'buy', 0.5, None, {'cost': 12_400}),
    'market_sell': cb.create_order(BTC, 'market', 'sell', 0.01),
    'limit': cb.create_order(BTC, 'limit', 'buy', 0.3, 61_000),
    'post_only': cb.create_order(BTC, 'limit', 'buy', 0.1, 60_500, {'postOnly': True}),
    'gtd': cb.create_order(BTC, 'limit', 'buy', 0.1, 60_400, {'timeInForce': 'GTD', 'end_time': cb.iso8601(int(time.time() * 1000) + 3_600_000)}),
    'ioc': cb.create_order(BTC, 'limit', 'buy', 0.1, 62_100, {'timeInForce': 'IOC'}),
    'ioc_away': cb.create_order(BTC, 'limit', 'buy', 0.1, 60_000, {'timeInForce': 'IOC'}),
    'fok': cb.create_order(BTC, 'limit', 'buy', 0.1, 62_100, {'timeInForce': 'FOK'}),
    'stop_limit': cb.create_order(BTC, 'limit', 'sell', 0.1, 58_900, {'stopLossPrice': 59_000}),
    'take_profit': cb.create_order(BTC, 'limit', 'sell', 0.05, 63_900, {'takeProfitPrice': 64_000}),
}
ids = {k: o['id'] for k, o in orders.items()}
out['orders'] = {k: shown(cb.fetch_order(i)) for k, i in ids.items()}
out['open'] = sorted(k for k, i in ids.items() if i in {o['id'] for o in cb.fetch_open_orders(BTC)})
preview = cb.v3PrivatePostBrokerageOrdersPreview({'product_id': 'BTC-USD', 'side': 'BUY', 'order_configuration': {'limit_limit_gtc': {'base_size': '0.1', 'limit_price': '60000'}}})
out['preview'] = {k: preview[k] for k in ('errs', 'order_total', 'commission_total')}
cb.edit_order(ids['limit'], BTC, 'limit', 'buy', 0.2, 61_500)
out['edited'] = shown(cb.fetch_order(ids['limit']))
cb.cancel_order(ids['gtd'])
cb.cancel_orders([ids['take_profit']])
move('61400', '5')                    # the market falls through the edited order
out['met'] = shown(cb.fetch_order(ids['limit']))
move('58950')                         # and on through the stop, whose limit is at 58,900
out['stopped'] = shown(cb.fetch_order(ids['stop_limit']))
move('62000')
out['cancelled'] = sorted(k for k, i in ids.items() if i in {o['id'] for o in cb.fetch_canceled_orders(BTC)})
out['closed'] = sorted(k for k, i in ids.items() if i in {o['id'] for o in cb.fetch_closed_orders(BTC)})
out['all'] = len(cb.fetch_orders(BTC))

# fills, also in pages
fills = cb.fetch_my_trades(BTC)
out['fills'] = [{'kind': next(k for k, i in ids.items() if i == f['order']), 'side': f['side'], 'price': f['price'], 'amount': f['amount'], 'role': f['takerOrMaker'], 'fee': f['fee']['cost'], 'coin': f['fee']['currency']} for f in fills]
cursor, pages = None, []
while cursor != '':
    page = cb.v3PrivateGetBrokerageOrdersHistoricalFills({'limit': 3} | ({'cursor': cursor} if cursor else {}))
    cursor = page['cursor']
    pages.append([f['trade_id'] for f in page['fills']])
out['fills_paged'] = {'pages': [len(p) for p in pages], 'same': sorted(i for p in pages for i in p) == sorted(f['id'] for f in fills)}
after = cb.fetch_balance({'v3': True})
out['after'] = {'BTC': after['total']['BTC'], 'USD': after['total']['USD'], 'used': after['used']['USD']}

# what the venue will not do
out['errors'] = {
    'too dear': tried(cb.create_order, BTC, 'limit', 'buy', 100, 61_000),
    'nothing to sell': tried(cb.create_order, BTC, 'market', 'sell', 100),
    'would take': tried(cb.create_order, BTC, 'limit', 'buy', 0.1, 63_000, {'postOnly': True}),
    'cancelled twice': tried(cb.cancel_order, ids['gtd']),
    'unknown order': tried(cb.fetch_order, '00000000-0000-0000-0000-000000000000'),
    'unknown product': tried(cb.v3PublicGetBrokerageMarketProductsProductId, {'product_id': 'XYZ-USD'}),
}
stranger = ccxt.coinbase({'apiKey': card['key'][:-4] + 'beef', 'secret': card['secret']})
stranger.urls['api']['rest'] = card['rest']
out['errors']['wrong key'] = tried(stranger.v3PrivateGetBrokerageAccounts)
hurried = ccxt.coinbase({'apiKey': card['key'], 'secret': card['secret'], 'enableRateLimit': False})
hurried.urls['api']['rest'] = card['rest']
out['errors']['too many'] = next((x for x in (tried(hurried.v3PublicGetBrokerageTime) for _ in range(200)) if isinstance(x, str)), '')
json.dump(out, sys.stdout)
