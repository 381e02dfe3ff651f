"""ccxt.pro's Coinbase, with only its addresses changed, against a sandbox: reads the card on stdin, writes what it heard as JSON."""
import asyncio
import json
import sys

import aiohttp
import ccxt.pro

card = json.load(sys.stdin)
BTC = 'BTC/USD'


async def alone(known, key, work):
    "The same work with a connection and a key of its own."
    cb = ccxt.pro.coinbase({'apiKey': key, 'secret': card['secret']})
    cb.urls['api']['rest'], cb.urls['api']['ws'] = card['rest'], card['ws']
    cb.set_markets(known.markets)
    try:
        return await asyncio.wait_for(work(cb), 8)
    except Exception as e:
        return f'{type(e).__name__}: {e}'
    finally:
        await cb.close()


async def first(*works):
    "What comes first."
    done, left = await asyncio.wait([asyncio.ensure_future(w) for w in works], return_when=asyncio.FIRST_COMPLETED)
    for w in left:
        w.cancel()
    return done.pop().result()


async def unwatch(cb):
    await cb.watch_ticker(BTC)
    await cb.un_watch_ticker(BTC)
    return BTC not in cb.tickers


async def main():
    cb = ccxt.pro.coinbase({'apiKey': card['key'], 'secret': card['secret']})
    cb.urls['api']['rest'], cb.urls['api']['ws'] = card['rest'], card['ws']
    out = {}

    async def move(price, size=None):
        body = {'symbol': 'BTC-USD', 'price': price} | ({'size': size} if size else {})
        async with aiohttp.ClientSession() as s, s.post(card['control'] + '/market', json=body, headers={'X-Sandbox': card['token']}) as r:
            r.raise_for_status()

    async def until(watch, seen):
        while not seen(x := await asyncio.wait_for(watch(), 5)):
            pass
        return x

    try:
        await cb.load_markets()
        book = await cb.watch_order_book(BTC)
        out['book'] = {'bid': book['bids'][0], 'ask': book['asks'][0], 'rows': len(book['bids'])}
        seen = await cb.watch_ticker(BTC)
        out['ticker'] = {k: seen[k] for k in ('symbol', 'last', 'bid', 'ask')}
        trades = await cb.watch_trades(BTC)
        out['trades'] = {'count': len(trades), 'rising': all(a['timestamp'] <= b['timestamp'] for a, b in zip(trades, trades[1:]))}
        batch = await cb.watch_tickers([BTC])
        out['batch'] = batch[BTC]['last']

        # the market moves, and each stream tells it; who listens must listen before
        ticker = asyncio.create_task(until(lambda: cb.watch_ticker(BTC), lambda t: t['last'] == 63000))
        tape = asyncio.create_task(until(lambda: cb.watch_trades(BTC), lambda ts: any(t['price'] == 63000 for t in ts)))
        await asyncio.sleep(0.05)
        await move('63000', '2')
        out['moved'] = {k: (await ticker)[k] for k in ('last', 'bid', 'ask')}
        out['traded'] = (await tape)[-1]['price']
        rest = await cb.fetch_order_book(BTC)
        for _ in range(100):
            out['same_book'] = [list(map(list, cb.orderbooks[BTC][s][:10])) == rest[s][:10] for s in ('bids', 'asks')]
            if all(out['same_book']):
                break
            await asyncio.sleep(0.05)

        # one's own orders
        heard = {}

        async def listen():
            while True:
                for o in await cb.watch_orders(BTC):
                    heard[o['id'], o['status']] = {k: o[k] for k in ('status', 'side', 'filled', 'remaining', 'average')} | {'fee': o['fee']['amount']}

        async def told(order_id, status):
            for _ in range(100):
                if (order_id, status) in heard:
                    return heard[order_id, status]
                await asyncio.sleep(0.05)
            return f'never heard {status}'

        listening = asyncio.create_task(listen())
        resting = await cb.create_order(BTC, 'limit', 'buy', 0.2, 62_000)
        out['own'] = [await told(resting['id'], 'open')]
        await cb.cancel_order(resting['id'])
        out['own'].append(await told(resting['id'], 'canceled'))
        taken = await cb.create_order(BTC, 'limit', 'buy', 0.1, 63_100)
        out['own'].append(await told(taken['id'], 'closed'))
        listening.cancel()

        # this client takes an unsubscription as done only when nothing else is subscribed
        out['unwatched'] = await alone(cb, card['key'], unwatch)
        # ... and raises what the venue refused where only the loop hears it
        refused = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: refused.done() or refused.set_result(str(context.get('exception'))))
        out['wrong_key'] = await alone(cb, card['key'][:-4] + 'beef', lambda x: first(x.watch_orders(BTC), refused))
    finally:
        await cb.close()
    json.dump(out, sys.stdout)


asyncio.run(main())
