"""ccxt.pro's Binance.US client, unchanged but for its addresses: market streams, own orders, own trades, balance.

Reads a sandbox's card (JSON) from stdin, writes what it saw as one JSON object.
Own orders come the two ways there are: over the WebSocket API, as the library does by itself, and over a listen key's stream, which
Binance.US documents and for which the library's subscription is overridden.
"""
import asyncio
import json
import sys

import ccxt.pro

card = json.load(sys.stdin)


class ByListenKey(ccxt.pro.binanceus):
    """Own orders over /ws/<listenKey>; what arrives goes to the library's own handlers."""

    async def ensure_user_data_stream_ws_subscribe_signature(self, marketType='spot'):
        where = self.urls['api']['ws']['ws-api']
        if not where['spot'].startswith(card['ws'] + '/ws/'):
            where['spot'] = f'{card["ws"]}/ws/{(await self.public_post_userdatastream())["listenKey"]}'
        self.client(where['spot']).subscriptions[marketType] = True


def make(kind):
    client = kind({'apiKey': card['key'], 'secret': card['secret'], 'options': {'adjustForTimeDifference': True}})
    client.urls['api'] = {k: v.replace('https://api.binance.us', card['rest']) if isinstance(v, str) else v for k, v in client.urls['api'].items()}
    client.urls['api']['ws'] = {**client.urls['api']['ws'], 'spot': card['ws'] + '/ws', 'ws-api': {'spot': card['ws_api']}}
    client.rateLimit = 1
    return client


async def market(client, price):
    """Moves the sandbox's market; the one thing here that is not the client's."""
    await client.fetch(card['control'] + '/market', 'POST', {'X-Sandbox': card['token'], 'Content-Type': 'application/json'}, json.dumps({'symbol': 'BTC-USD', 'price': price, 'size': '5'}))


async def heard(wish, *moves):
    """What a watch call gives while something happens."""
    task = asyncio.ensure_future(wish)
    for move in moves:
        await asyncio.sleep(0.25)
        await move()
    return await asyncio.wait_for(task, 10)


async def main():
    client, other, seen = make(ccxt.pro.binanceus), make(ByListenKey), {}
    try:
        await client.load_markets()
        await other.load_markets()

        def go(price): return lambda: market(client, price)
        trades = await heard(client.watch_trades('BTC/USD'), go(60_100))
        seen['trade'] = {k: trades[-1][k] for k in ('symbol', 'price', 'side')}
        ticker = await heard(client.watch_ticker('BTC/USD'), go(60_200))
        seen['ticker'] = {k: ticker[k] for k in ('symbol', 'last')}
        best = await heard(client.watch_bids_asks(['BTC/USD']), go(60_300))
        seen['bids_asks'] = {k: best['BTC/USD'][k] for k in ('bid', 'ask')}
        tickers = await heard(client.watch_tickers(['BTC/USD', 'ETH/USD']), go(60_350))
        seen['tickers'] = sorted(tickers)
        candles = await heard(client.watch_ohlcv('BTC/USD', '1m'), go(60_400))
        seen['candle'] = {'columns': len(candles[-1]), 'high_at_least_close': candles[-1][2] >= candles[-1][4]}

        # A book kept by the library from snapshot and changes, against what the sandbox then says over REST.
        await heard(client.watch_order_book('BTC/USD'), go(60_500), go(60_450))
        await market(client, 60_600)
        for _ in range(40):
            book = await asyncio.wait_for(client.watch_order_book('BTC/USD'), 10)
            if book['bids'][0][0] == 60_599.99:
                break
        rest = await client.fetch_order_book('BTC/USD', 20)
        seen['book'] = {'same_bids': book['bids'][:10] == rest['bids'][:10], 'same_asks': book['asks'][:10] == rest['asks'][:10], 'nonce': book['nonce'] <= rest['nonce']}
        partial = await heard(client.watch_order_book('ETH/USD', 10), lambda: client.fetch(card['control'] + '/market', 'POST', {'X-Sandbox': card['token'], 'Content-Type': 'application/json'},
                                                                                    json.dumps({'symbol': 'ETH-USD', 'price': '3010'})))
        seen['eth_book'] = [len(partial['bids']), len(partial['asks'])]

        # Own orders over the WebSocket API.
        async def place(): await client.create_order('BTC/USD', 'limit', 'buy', 0.01, 50_000, {'clientOrderId': 'gpro1'})
        orders = await heard(client.watch_orders('BTC/USD'), place)
        seen['own_new'] = {k: orders[-1][k] for k in ('clientOrderId', 'status', 'amount', 'price')}
        number = orders[-1]['id']
        orders = await heard(client.watch_orders('BTC/USD'), lambda: client.cancel_order(number, 'BTC/USD'))
        seen['own_cancelled'] = {'status': orders[-1]['status'], 'same': orders[-1]['id'] == number}
        mine = await heard(client.watch_my_trades('BTC/USD'), lambda: client.create_order('BTC/USD', 'market', 'buy', 0.02))
        seen['own_trade'] = {k: mine[-1][k] for k in ('side', 'amount', 'price', 'fee')}
        balance = await heard(client.watch_balance(), lambda: client.create_order('BTC/USD', 'market', 'buy', 0.01))
        seen['balance'] = {a: balance[a]['total'] for a in ('BTC', 'USD')}

        # And over a listen key.
        orders = await heard(other.watch_orders('BTC/USD'), lambda: client.create_order('BTC/USD', 'market', 'sell', 0.005))
        while orders[-1]['status'] != 'closed':
            orders = await asyncio.wait_for(other.watch_orders('BTC/USD'), 10)
        seen['by_listen_key'] = {k: orders[-1][k] for k in ('status', 'side', 'filled', 'average')}
    finally:
        await client.close()
        await other.close()
    print(json.dumps(seen))


asyncio.run(main())
