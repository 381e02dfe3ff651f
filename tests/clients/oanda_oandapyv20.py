"""oandapyV20, with only its addresses changed, against a sandbox: reads the card on stdin, writes what it saw as JSON."""
import json
import sys
import threading
import time

import oandapyV20
import requests
from oandapyV20.contrib.factories import InstrumentsCandlesFactory
from oandapyV20.contrib.requests import (
    LimitOrderRequest, MarketOrderRequest, MITOrderRequest, StopOrderRequest, TakeProfitDetails, TradeCloseRequest, TrailingStopLossOrderRequest,
)
from oandapyV20.endpoints import accounts, instruments, orders, positions, pricing, trades, transactions
from oandapyV20.endpoints.apirequest import APIRequest
from oandapyV20.exceptions import StreamTerminated, V20Error

card = json.load(sys.stdin)
oandapyV20.oandapyV20.TRADING_ENVIRONMENTS['practice'] = {'api': card['rest'], 'stream': card['ws']}
api = oandapyV20.API(access_token=card['key'], request_params={'timeout': 10} | ({'verify': card['ca']} if 'ca' in card else {}))
me, both = card['account'], card['hedging_account']
out = {}


def move(price, symbol='EUR-USD', **more):
    requests.post(card['control'] + '/market', json={'symbol': symbol, 'price': price, **more}, headers={'X-Sandbox': card['token']}, timeout=5, verify=card.get('ca', True)).raise_for_status()


def ask(request: APIRequest):
    time.sleep(0.002)
    return api.request(request)


def tried(request):
    try:
        ask(request)
    except V20Error as e:
        said = json.loads(e.msg)
        reject = said.get('orderRejectTransaction') or said.get('orderCancelRejectTransaction') or {}
        return [e.code, said.get('errorCode'), reject.get('type'), reject.get('rejectReason')]


def place(request, account=me):
    said = ask(orders.OrderCreate(account, data=request if isinstance(request, dict) else request.data))
    return said


def id_of(said):
    return said['orderCreateTransaction']['id']


def state(i, account=me):
    return ask(orders.OrderDetails(account, orderID=i))['order']['state']


move('1.08500')
# the streams run beside everything else
heard = {'own': [], 'prices': []}


def listen(name, request, most):
    try:
        for line in oandapyV20.API(access_token=card['key'], request_params={'timeout': 10} | ({'verify': card['ca']} if 'ca' in card else {})).request(request):
            heard[name].append(line)
            if most(line):
                request.terminate(name)
    except StreamTerminated:
        pass


threads = [threading.Thread(target=listen, args=('own', transactions.TransactionsStream(me), lambda t: t.get('reason') == 'ALL_DONE' or t.get('alias') == 'done'), daemon=True),
           threading.Thread(target=listen, args=('prices', pricing.PricingStream(me, params={'instruments': 'EUR_USD,USD_JPY'}), lambda p: p.get('instrument') == 'USD_JPY' and p['asks'][0]['price'] == '155.001'), daemon=True)]
for t in threads:
    t.start()
while len(heard['own']) < 1 or len(heard['prices']) < 2:
    time.sleep(0.01)

# list
out['accounts'] = [a['id'] for a in ask(accounts.AccountList())['accounts']]
out['instruments'] = {i['name']: i['displayPrecision'] for i in ask(accounts.AccountInstruments(me))['instruments']}
out['one_instrument'] = [i['name'] for i in ask(accounts.AccountInstruments(me, params={'instruments': 'USD_JPY'}))['instruments']]
summary = ask(accounts.AccountSummary(me))['account']
out['summary'] = {k: summary[k] for k in ('currency', 'balance', 'NAV', 'marginUsed', 'openTradeCount', 'hedgingEnabled')}
start = summary['lastTransactionID']

# candles: one page, and as many as a range of five weeks has
page = ask(instruments.InstrumentsCandles('EUR_USD', params={'granularity': 'M1', 'count': 300, 'price': 'MBA'}))
rows = page['candles']
out['candles'] = {'count': len(rows), 'complete': sum(r['complete'] for r in rows), 'sides': sorted(k for k in rows[0] if isinstance(rows[0][k], dict)),
                  'sound': all(float(r['mid']['l']) <= min(float(r['mid']['o']), float(r['mid']['c'])) and float(r['bid']['c']) < float(r['ask']['c']) for r in rows)}
now = int(time.time()) // 3600 * 3600
span = {'from': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now - 1200 * 3600)), 'to': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(now)), 'granularity': 'H1', 'count': 500}
paged = [c for r in InstrumentsCandlesFactory('EUR_USD', params=span) for c in ask(r)['candles']]
stamps = [c['time'] for c in paged]
out['paged'] = {'count': len(paged), 'unique': len(set(stamps)), 'rising': stamps == sorted(stamps), 'first': stamps[0][:19] + 'Z' == span['from']}
out['granularities'] = {g: len(ask(instruments.InstrumentsCandles('USD_JPY', params={'granularity': g, 'count': 3}))['candles']) for g in ('S5', 'S30', 'M5', 'M30', 'H4', 'H12', 'D', 'W', 'M')}
out['books'] = [len(ask(r)[k]['buckets']) > 10 for r, k in ((instruments.InstrumentsOrderBook('EUR_USD'), 'orderBook'), (instruments.InstrumentsPositionBook('EUR_USD'), 'positionBook'))]

# quotes
quote = ask(pricing.PricingInfo(me, params={'instruments': 'EUR_USD,USD_JPY'}))['prices'][0]
out['quote'] = {'bid': quote['bids'][0]['price'], 'ask': quote['asks'][0]['price'], 'status': quote['status'], 'levels': len(quote['bids'])}

# orders of every kind
market = place(MarketOrderRequest('EUR_USD', units=10000, clientExtensions={'id': 'm1', 'tag': 't', 'comment': 'c'}))
out['market'] = {k: market['orderFillTransaction'][k] for k in ('units', 'price', 'reason', 'clientOrderID', 'pl')}
trade = market['orderFillTransaction']['tradeOpened']['tradeID']
limit = id_of(place(LimitOrderRequest('EUR_USD', units=1000, price=1.0800, clientExtensions={'id': 'l1'}, takeProfitOnFill=TakeProfitDetails(price=1.0950).data)))
stop = id_of(place(StopOrderRequest('EUR_USD', units=-1000, price=1.0700)))
touch = id_of(place(MITOrderRequest('EUR_USD', units=1000, price=1.0750)))
gtd = id_of(place(LimitOrderRequest('EUR_USD', units=1, price=1.0, timeInForce='GTD', gtdTime=time.strftime('%Y-%m-%dT%H:%M:%S.000000000Z', time.gmtime(time.time() + 3600)))))
trailing = id_of(place(TrailingStopLossOrderRequest(trade, distance=0.01)))
fok = place({'order': {'type': 'LIMIT', 'instrument': 'EUR_USD', 'units': '1000', 'price': '1.09', 'timeInForce': 'FOK', 'positionFill': 'DEFAULT'}})
away = place({'order': {'type': 'LIMIT', 'instrument': 'EUR_USD', 'units': '1000', 'price': '1.01', 'timeInForce': 'IOC', 'positionFill': 'DEFAULT'}})
bound = place(MarketOrderRequest('EUR_USD', units=1000, priceBound=1.05))
large = place(MarketOrderRequest('EUR_USD', units=99_000_000))
out['at_once'] = [fok['orderFillTransaction']['price'], *(x['orderCancelTransaction']['reason'] for x in (away, bound, large))]
out['pending'] = sorted(o['type'] for o in ask(orders.OrdersPending(me))['orders'])
out['listed'] = len(ask(orders.OrderList(me, params={'state': 'PENDING', 'instrument': 'EUR_USD', 'count': 50}))['orders'])
out['by_client'] = ask(orders.OrderDetails(me, orderID='@l1'))['order']['id'] == limit

# replace, cancel, rename
swap = ask(orders.OrderReplace(me, orderID=limit, data={'order': {'type': 'LIMIT', 'instrument': 'EUR_USD', 'units': '2000', 'price': '1.08100', 'timeInForce': 'GTC', 'positionFill': 'DEFAULT', 'clientExtensions': {'id': 'l1'}}}))
second = id_of(swap)
out['replaced'] = [swap['orderCancelTransaction']['reason'], state(limit), state(second)]
ask(orders.OrderClientExtensions(me, orderID=second, data={'clientExtensions': {'id': 'l2', 'comment': 'renamed'}}))
out['renamed'] = ask(orders.OrderDetails(me, orderID='@l2'))['order']['clientExtensions']
out['cancelled'] = [ask(orders.OrderCancel(me, orderID=gtd))['orderCancelTransaction']['reason'], state(gtd)]

# what they do when the market moves
move('1.07490')
out['after_fall'] = {k: state(i) for k, i in (('limit', second), ('touch', touch), ('trailing', trailing), ('stop', stop))}
move('1.06900')
out['after_more'] = state(stop)

# trades and positions
held = ask(trades.OpenTrades(me))['trades']
out['trades'] = {'open': len(held), 'units': sum(int(t['currentUnits']) for t in held)}
one = held[-1]['id']
out['trade'] = ask(trades.TradeDetails(me, tradeID=one))['trade']['state']
deps = ask(trades.TradeCRCDO(me, tradeID=one, data={'takeProfit': {'price': '1.20000'}, 'stopLoss': {'price': '1.00000'}}))
out['dependents'] = sorted(k for k in deps if k.endswith('OrderTransaction'))
ask(trades.TradeClientExtensions(me, tradeID=one, data={'clientExtensions': {'id': 'mine'}}))
out['trade_by_client'] = ask(trades.TradeDetails(me, tradeID='@mine'))['trade']['id'] == one
part = ask(trades.TradeClose(me, tradeID=one, data=TradeCloseRequest(units=1).data))
out['trade_cut'] = part['orderFillTransaction']['tradeReduced']['units']
out['closed'] = ask(trades.TradeClose(me, tradeID=one))['orderFillTransaction']['reason']
out['all_trades'] = len(ask(trades.TradesList(me, params={'state': 'ALL'}))['trades'])
position = ask(positions.PositionDetails(me, instrument='EUR_USD'))['position']
out['position'] = [position['long']['units'], position['short']['units'], len(ask(positions.OpenPositions(me))['positions']), len(ask(positions.PositionList(me))['positions'])]
flat = ask(positions.PositionClose(me, instrument='EUR_USD', data={'longUnits': 'ALL'}))
out['flattened'] = [flat['longOrderFillTransaction']['reason'], ask(positions.PositionDetails(me, instrument='EUR_USD'))['position']['long']['units']]

# a hedging account holds both sides
for units in (300, -200):
    place(MarketOrderRequest('USD_JPY', units=units), both)
jpy = ask(positions.PositionDetails(both, instrument='USD_JPY'))['position']
out['hedged'] = [jpy['long']['units'], jpy['short']['units']]

# fills, changes, pages
since = ask(transactions.TransactionsSinceID(me, params={'id': start}))['transactions']
fills = [t for t in since if t['type'] == 'ORDER_FILL']
final = ask(accounts.AccountDetails(me))['account']
out['fills'] = {'count': len(fills), 'balance': fills[-1]['accountBalance'] == final['balance'], 'pl': round(sum(float(t['pl']) for t in fills), 4) == round(float(final['pl']), 4)}
out['consecutive'] = [int(t['id']) for t in since] == list(range(int(start) + 1, int(final['lastTransactionID']) + 1))
out['one'] = ask(transactions.TransactionDetails(me, transactionID=fills[0]['id']))['transaction'] == fills[0]
out['range'] = ask(transactions.TransactionIDRange(me, params={'from': start, 'to': fills[0]['id'], 'type': 'ORDER_FILL'}))['transactions'] == fills[:1]
pages = ask(transactions.TransactionList(me, params={'pageSize': 10}))
out['pages'] = len(pages['pages']) == -(-int(final['lastTransactionID']) // 10) and pages['count'] == int(final['lastTransactionID'])
changed = ask(accounts.AccountChanges(me, params={'sinceTransactionID': start}))
out['changes'] = {k: len(v) > 0 for k, v in changed['changes'].items()}
out['state'] = changed['state']['NAV'] == final['NAV']

# refusals
out['errors'] = {
    'instrument': tried(orders.OrderCreate(me, data=MarketOrderRequest('EUR_XXX', units=1).data)),
    'units': tried(orders.OrderCreate(me, data={'order': {'type': 'MARKET', 'instrument': 'EUR_USD', 'units': '1.5'}})),
    'too_many': tried(orders.OrderCreate(me, data=MarketOrderRequest('EUR_USD', units=200_000_000).data)),
    'price': tried(orders.OrderCreate(me, data={'order': {'type': 'LIMIT', 'instrument': 'USD_JPY', 'units': '1', 'price': '149.5001'}})),
    'force': tried(orders.OrderCreate(me, data={'order': {'type': 'MARKET', 'instrument': 'EUR_USD', 'units': '1', 'timeInForce': 'GTC'}})),
    'cancel': tried(orders.OrderCancel(me, orderID='99999')), 'get': tried(orders.OrderDetails(me, orderID='@nobody')),
    'filled_by_client': tried(orders.OrderDetails(me, orderID='@m1')),
    'position': tried(positions.PositionClose(me, instrument='GBP_USD', data={'longUnits': 'ALL'})), 'never': tried(positions.PositionDetails(me, instrument='AUD_USD')),
    'account': tried(accounts.AccountSummary('101-001-9999999-001')), 'granularity': tried(instruments.InstrumentsCandles('EUR_USD', params={'granularity': 'M3'})),
}
api.client.headers['Authorization'] = 'Bearer wrong'
out['errors']['token'] = tried(accounts.AccountList())
api.client.headers['Authorization'] = f'Bearer {card["key"]}'

# configuration, and the streams' end
out['configured'] = ask(accounts.AccountConfiguration(me, data={'alias': 'done'}))['clientConfigureTransaction']['alias']
move('155.000', 'USD-JPY')
for t in threads:
    t.join(10)
own = [t for t in heard['own'] if t['type'] != 'HEARTBEAT']
out['stream'] = {'first': heard['own'][0]['type'], 'same': own == ask(transactions.TransactionsSinceID(me, params={'id': start}))['transactions'], 'prices': sorted({p['type'] for p in heard['prices']} - {'HEARTBEAT'}),
                 'snapshot': sorted(p['instrument'] for p in heard['prices'] if p['type'] == 'PRICE')[:1] + sorted(p['instrument'] for p in heard['prices'] if p['type'] == 'PRICE')[-1:], 'last': heard['prices'][-1]['asks'][0]['price']}
print(json.dumps(out))
