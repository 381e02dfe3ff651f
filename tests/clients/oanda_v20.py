"""OANDA's own v20, with only its address changed, against a sandbox: reads the card on stdin, writes what it saw as JSON.

Its classes were generated from OANDA's published definition, so each answer is also compared with them, field by field.
"""
import json
import sys
import threading
import time
from urllib.parse import urlsplit

import requests
import v20

card = json.load(sys.stdin)
me, both, at = card['account'], card['hedging_account'], urlsplit(card['rest'])


def context(**more):
    api = v20.Context(at.hostname, at.port, ssl=at.scheme == 'https', application='proof', token=card['key'], decimal_number_as_float=False, poll_timeout=10, stream_timeout=10, **more)
    api._session.verify = card.get('ca', True)
    return api


api = context()
out, strange, seen = {}, set(), set()


def move(price, symbol='EUR-USD'):
    requests.post(card['control'] + '/market', json={'symbol': symbol, 'price': price}, headers={'X-Sandbox': card['token']}, timeout=5, verify=card.get('ca', True)).raise_for_status()


def compare(raw, entity):
    "Every field of the JSON is one that the definition has, and is of its kind."
    known = {p.name: p for p in entity._properties}
    name = type(entity).__name__
    seen.add(name)
    for key, value in raw.items():
        if key not in known:
            strange.add(f'{name}.{key}')
            continue
        kind = known[key].typeClass
        sound = {'array': isinstance(value, list), 'objec': isinstance(value, dict)}.get(kind[:5], not isinstance(value, (list, dict)))
        if known[key].typeName.split('.')[-1] in ('PriceValue', 'AccountUnits', 'DecimalNumber', 'DateTime', 'TransactionID', 'OrderID', 'TradeID', 'string') and kind == 'primitive':
            sound = sound and isinstance(value, str)
        if not sound:
            strange.add(f'{name}.{key} is a {type(value).__name__}')
        inner = getattr(entity, key, None)
        for part, spec in zip(value, inner) if isinstance(value, list) and isinstance(inner, list) else [(value, inner)]:
            if isinstance(part, dict) and hasattr(spec, '_properties'):
                compare(part, spec)


def ask(response, status):
    assert str(response.status) == str(status), (response.path, response.status, response.raw_body)
    raw = json.loads(response.raw_body)
    for key, value in raw.items():
        inner = response.body.get(key)
        for part, spec in zip(value, inner) if isinstance(value, list) and isinstance(inner, list) else [(value, inner)]:
            if isinstance(part, dict) and hasattr(spec, '_properties'):
                compare(part, spec)
    return response.body


move('1.08500')
heard = {'own': [], 'prices': []}


def listen(name, response, ends):
    for kind, part in response.parts():
        heard[name].append((kind, part))
        if ends(part):
            return


threads = [threading.Thread(target=listen, args=('own', context(stream_chunk_size=64).transaction.stream(me), lambda t: getattr(t, 'alias', None) == 'done'), daemon=True),
           threading.Thread(target=listen, args=('prices', context(stream_chunk_size=64).pricing.stream(me, instruments='EUR_USD'), lambda p: getattr(p, 'asks', None) and p.asks[0].price == '1.20001'), daemon=True)]
for t in threads:
    t.start()
while not (heard['own'] and heard['prices']):
    time.sleep(0.01)

# list
out['accounts'] = [a.id for a in ask(api.account.list(), 200)['accounts']]
out['instruments'] = {i.name: i.marginRate for i in ask(api.account.instruments(me), 200)['instruments'] if i.name in ('EUR_USD', 'USD_JPY')}
start = ask(api.account.summary(me), 200)['lastTransactionID']

# candles, quotes, books
rows = ask(api.instrument.candles('USD_JPY', granularity='M15', count=50, price='MBA'), 200)['candles']
out['candles'] = [len(rows), rows[-1].complete, rows[0].mid.c.count('.') == 1 and len(rows[0].mid.c.split('.')[1])]
older = ask(api.instrument.candles('USD_JPY', granularity='M15', count=50, toTime=rows[0].time), 200)['candles']
out['paged'] = len({c.time for c in older + rows})
unix = context(datetime_format='UNIX')
out['unix'] = unix.instrument.candles('USD_JPY', granularity='M15', count=2).body['candles'][0].time.replace('.', '').isdigit()
quote = ask(api.pricing.get(me, instruments='EUR_USD,USD_JPY', includeHomeConversions=True), 200)
out['quote'] = [quote['prices'][0].bids[0].price, quote['prices'][0].asks[0].price, sorted(c.currency for c in quote['homeConversions'])]
out['since'] = len(ask(api.pricing.get(me, instruments='EUR_USD', since=quote['time']), 200)['prices'])
out['books'] = [len(ask(call('EUR_USD'), 200)[key].buckets) > 10 for call, key in ((api.instrument.order_book, 'orderBook'), (api.instrument.position_book, 'positionBook'))]

# orders of every kind
market = ask(api.order.market(me, instrument='EUR_USD', units=10000, timeInForce='FOK', clientExtensions={'id': 'v1'}, takeProfitOnFill={'price': '1.15000'}, stopLossOnFill={'price': '1.00000'}), 201)
fill = market['orderFillTransaction']
out['market'] = [fill.price, fill.units, fill.clientOrderID, fill.tradeOpened.units, len(market['relatedTransactionIDs'])]
trade = fill.tradeOpened.tradeID
limit = ask(api.order.limit(me, instrument='EUR_USD', units=1000, price='1.08000', timeInForce='GTC', clientExtensions={'id': 'v2'}), 201)['orderCreateTransaction']
stop = ask(api.order.stop(me, instrument='EUR_USD', units=1000, price='1.09000', priceBound='1.10000'), 201)['orderCreateTransaction']
touch = ask(api.order.market_if_touched(me, instrument='EUR_USD', units=1000, price='1.09500', timeInForce='GFD'), 201)['orderCreateTransaction']
trailing = ask(api.order.trailing_stop_loss(me, tradeID=trade, distance='0.05000'), 201)['orderCreateTransaction']
swap = ask(api.order.limit_replace(me, limit.id, instrument='EUR_USD', units=1500, price='1.07900', clientExtensions={'id': 'v2'}), 201)
out['replaced'] = [swap['orderCancelTransaction'].reason, swap['orderCreateTransaction'].replacesOrderID == limit.id]
take = ask(api.trade.get(me, trade), 200)['trade'].takeProfitOrder
moved = ask(api.order.take_profit_replace(me, take.id, tradeID=trade, price='1.16000'), 201)
out['take_profit'] = [moved['orderCreateTransaction'].price, moved['orderCreateTransaction'].reason]
loss = ask(api.trade.set_dependent_orders(me, trade, stopLoss={'price': '1.01000'}), 200)
out['stop_loss'] = [loss['stopLossOrderCancelTransaction'].reason, loss['stopLossOrderTransaction'].price]
out['pending'] = sorted(o.type for o in ask(api.order.list_pending(me), 200)['orders'])
out['order'] = ask(api.order.get(me, '@v2'), 200)['order'].price
ask(api.order.set_client_extensions(me, '@v2', clientExtensions={'comment': 'mine'}), 200)
out['cancelled'] = ask(api.order.cancel(me, '@v2'), 200)['orderCancelTransaction'].clientOrderID
gone = api.order.cancel(me, '@v2')
out['cancel_again'] = [gone.status, gone.body['errorCode'], gone.body['orderCancelRejectTransaction'].rejectReason]

# the market moves: a stop, then an order that waits to be touched
move('1.09000')
move('1.09500')
out['after_rise'] = [ask(api.order.get(me, t.id), 200)['order'].state for t in (stop, touch, trailing)]
out['by_state'] = len(ask(api.order.list(me, state='FILLED', count=10), 200)['orders'])

# trades, positions
out['open_trades'] = [t.currentUnits for t in ask(api.trade.list_open(me), 200)['trades']]
out['cut'] = ask(api.trade.close(me, trade, units='4000'), 200)['orderFillTransaction'].tradeReduced.units
out['reduced'] = [t.currentUnits for t in ask(api.trade.list(me, instrument='EUR_USD', state='OPEN'), 200)['trades'] if t.id == trade]
ask(api.trade.set_client_extensions(me, trade, clientExtensions={'id': 'kept'}), 200)
position = ask(api.position.get(me, 'EUR_USD'), 200)['position']
out['position'] = [position.long.units, position.short.units, len(position.long.tradeIDs)]
for units in (500, -200):
    ask(api.order.market(both, instrument='USD_JPY', units=units), 201)
hedge = ask(api.position.list_open(both), 200)['positions'][0]
out['hedged'] = [hedge.long.units, hedge.short.units]
closed = ask(api.position.close(both, 'USD_JPY', longUnits='ALL', shortUnits='ALL'), 200)
out['closed'] = [closed['longOrderFillTransaction'].units, closed['shortOrderFillTransaction'].units]
out['all_positions'] = len(ask(api.position.list(both), 200)['positions'])

# fills and changes
since = ask(api.transaction.since(me, id=start), 200)['transactions']
fills = [t for t in since if t.type == 'ORDER_FILL']
account = ask(api.account.get(me), 200)['account']
out['fills'] = [len(fills), fills[-1].accountBalance == account.balance]
out['account'] = [account.openTradeCount, account.pendingOrderCount, len(account.trades), len(account.orders), account.hedgingEnabled]
changes = ask(api.account.changes(me, sinceTransactionID=start), 200)
out['changes'] = [len(changes['changes'].transactions) == len(since), len(changes['changes'].tradesOpened), changes['state'].NAV == account.NAV]
out['range'] = [t.id for t in ask(api.transaction.range(me, fromID=start, toID=since[0].id), 200)['transactions']] == [start, since[0].id]
out['one'] = ask(api.transaction.get(me, since[0].id), 200)['transaction'].type
out['pages'] = ask(api.transaction.list(me, pageSize=5), 200)['count'] == int(account.lastTransactionID)

# refusals
bad = api.order.market(me, instrument='EUR_USD', units='0.5')
out['reject'] = [bad.status, bad.body['errorCode'], bad.body['orderRejectTransaction'].rejectReason]
wrong = context()
wrong.set_token('guess')
out['token'] = [wrong.account.list().status, api.order.get(me, '424242').body['errorCode'], api.trade.close(me, '424242').body['orderRejectTransaction'].rejectReason]
out['rate'] = ask(api.account.configure(me, marginRate='0.05'), 200)['clientConfigureTransaction'].marginRate
out['bad_rate'] = [(r := api.account.configure(me, marginRate='7')).status, r.body['clientConfigureRejectTransaction'].rejectReason]

# the streams' end
ask(api.account.configure(me, alias='done'), 200)
move('1.20000')
for t in threads:
    t.join(10)
own = [t for kind, t in heard['own'] if kind == 'transaction.Transaction']
every = ask(api.transaction.since(me, id=start), 200)['transactions']
out['stream'] = {'kinds': sorted({k for parts in heard.values() for k, _ in parts} - {'pricing.PricingHeartbeat'}), 'same': [t.id for t in own] == [t.id for t in every][:len(own)], 'told': len(own) >= len(since), 'last': heard['prices'][-1][1].asks[0].price}
out['strange'], out['compared'] = sorted(strange), sorted(seen)
print(json.dumps(out))
