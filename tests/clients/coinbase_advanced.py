"""The venue's own Python client, with only its addresses changed, against a sandbox with TLS: reads the card on stdin, writes what it saw as JSON.

It speaks https only, and trusts the certificate that REQUESTS_CA_BUNDLE names.
"""
import json
import logging
import sys
import threading
import time

import requests
from coinbase.rest import RESTClient
from coinbase.websocket import WSClient, WebsocketResponse

logging.disable(logging.ERROR)
card = json.load(sys.stdin)
HOST, BTC = card['rest'].removeprefix('https://'), 'BTC-USD'
out = {}


def move(price, size=None):
    body = {'symbol': BTC, 'price': price} | ({'size': size} if size else {})
    requests.post(card['control'] + '/market', json=body, headers={'X-Sandbox': card['token']}, timeout=5).raise_for_status()


def tried(call, *args, **kw):
    try:
        return call(*args, **kw)
    except requests.exceptions.HTTPError as e:
        return f'{e.response.status_code} {e.response.text.strip()[:90]}'


def soon(seen):
    for _ in range(100):
        if found := seen():
            return found
        time.sleep(0.05)
    return None


def reads(cb, anyone):
    clock = cb.get_unix_time()
    out['clock_off_s'] = abs(int(clock.epoch_millis if hasattr(clock, 'epoch_millis') else clock['epochMillis']) / 1000 - time.time())
    products = cb.get_products(product_type='SPOT')
    out['products'] = [p.product_id for p in products.products]
    out['some'] = [p.product_id for p in cb.get_products(product_ids=[BTC]).products]
    one = anyone.get_public_product(BTC)
    out['product'] = {k: one[k] for k in ('product_id', 'price', 'price_increment', 'base_increment', 'quote_min_size', 'status', 'trading_disabled')}
    book = cb.get_product_book(BTC, limit=2)
    out['book'] = {'bids': [(x.price, x.size) for x in book.pricebook.bids], 'last': book.last, 'spread': book.spread_absolute}
    out['public_book'] = len(anyone.get_public_product_book(BTC, limit=3).pricebook.asks)
    out['best'] = [(b.product_id, b.bids[0].price, b.asks[0].price) for b in cb.get_best_bid_ask([BTC]).pricebooks]
    trades = cb.get_market_trades(BTC, limit=5)
    out['trades'] = {'count': len(trades.trades), 'newest_first': [int(t.trade_id) for t in trades.trades] == sorted((int(t.trade_id) for t in trades.trades), reverse=True), 'bid': trades.best_bid}
    end = int(time.time())
    candles = cb.get_candles(BTC, str(end - 349 * 60), str(end), 'ONE_MINUTE').candles
    out['candles'] = {'count': len(candles), 'step': sorted({int(a.start) - int(b.start) for a, b in zip(candles, candles[1:])}), 'fields': sorted(candles[0].to_dict())}
    out['too_many_candles'] = tried(cb.get_candles, BTC, str(end - 400 * 60), str(end), 'ONE_MINUTE')
    seen, at = [], None
    while at != '':
        page = cb.get_accounts(limit=2, cursor=at)
        at, seen = page.cursor, seen + [a.currency for a in page.accounts]
    out['accounts'] = seen
    usd = next(a for a in cb.get_accounts(limit=250).accounts if a.currency == 'USD')
    out['account'] = {'same': cb.get_account(usd.uuid).account.uuid == usd.uuid, 'balance': usd.available_balance, 'type': usd.type}
    portfolio = cb.get_portfolios().portfolios[0]
    out['portfolio'] = {'type': portfolio.type, 'worth': cb.get_portfolio_breakdown(portfolio.uuid).breakdown.portfolio_balances['total_balance']['value']}
    out['fee_tier'] = {k: cb.get_transaction_summary().fee_tier[k] for k in ('maker_fee_rate', 'taker_fee_rate')}
    out['permissions'] = {k: cb.get_api_key_permissions()[k] for k in ('can_view', 'can_trade', 'can_transfer')}


def orders(cb):
    later = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 3600))
    made = {
        'market_quote': cb.market_order_buy('', BTC, quote_size='1000'), 'market_base': cb.market_order_buy('', BTC, base_size='0.5'), 'market_sell': cb.market_order_sell('', BTC, base_size='0.1'),
        'gtc': cb.limit_order_gtc_buy('', BTC, '0.2', '61000'), 'post_only': cb.limit_order_gtc_buy('', BTC, '0.2', '61100', post_only=True), 'gtd': cb.limit_order_gtd_buy('', BTC, '0.1', '60900', later),
        'ioc': cb.limit_order_ioc_buy('', BTC, '0.1', '62100'), 'fok': cb.limit_order_fok_buy('', BTC, '0.1', '62100'), 'fok_away': cb.limit_order_fok_buy('', BTC, '0.1', '60000'),
        'stop': cb.stop_limit_order_gtc_sell('', BTC, '0.1', '58900', '59000', 'STOP_DIRECTION_STOP_DOWN'), 'stop_gtd': cb.stop_limit_order_gtd_buy('', BTC, '0.1', '65100', '65000', later, 'STOP_DIRECTION_STOP_UP'),
    }
    out['made'] = {k: o.success for k, o in made.items()}
    ids = {k: o.success_response['order_id'] for k, o in made.items()}
    shown = {k: cb.get_order(i).order for k, i in ids.items()}
    out['orders'] = {k: {n: o[n] for n in ('status', 'order_type', 'time_in_force', 'filled_size', 'trigger_status', 'size_in_quote')} for k, o in shown.items()}
    out['sums'] = {k: [o.filled_value, o.total_fees, o.total_value_after_fees] for k, o in shown.items() if k in ('market_quote', 'market_base', 'market_sell')}
    name = {i: k for k, i in ids.items()}
    out['open'] = sorted(name[o.order_id] for o in cb.list_orders(order_status=['OPEN']).orders)
    preview = cb.preview_limit_order_gtc_buy(BTC, '0.1', '61000')
    out['preview'] = {'total': preview.order_total, 'fee': preview.commission_total, 'errs': preview.errs, 'dear': cb.preview_limit_order_gtc_buy(BTC, '100', '61000').errs}
    out['edit_preview'] = cb.preview_edit_order(ids['gtc'], size='0.3', price='61000').order_total
    edited = cb.edit_order(ids['gtc'], size='0.3', price='61200')
    out['edited'] = {'success': edited.success, 'order': cb.get_order(ids['gtc']).order.order_configuration.limit_limit_gtc.to_dict(), 'history': len(cb.get_order(ids['gtc']).order.edit_history)}
    out['edit_refused'] = [e.edit_failure_reason for e in cb.edit_order(ids['stop'], size='0.3', price='61200').errors]
    cancelled = cb.cancel_orders([ids['gtd'], ids['stop_gtd'], ids['market_base'], 'nobody'])
    out['cancelled'] = [(r.success, r.failure_reason) for r in cancelled.results]
    move('58950')
    out['after_fall'] = {k: (o := cb.get_order(ids[k]).order).status + ' ' + o.filled_size for k in ('gtc', 'post_only', 'stop')}
    move('62000')
    fills, at = [], None
    while at != '':
        page = cb.get_fills(limit=3, cursor=at)
        at, fills = page.cursor, fills + page.fills
    out['fills'] = [(name[f.order_id], f.side, f.price, f.size, f.liquidity_indicator, f.size_in_quote) for f in fills]
    out['fills_of_one'] = [f.trade_id == fills[0].trade_id for f in cb.get_fills(order_ids=[fills[0].order_id]).fills]
    out['no_fills_before'] = len(cb.get_fills(end_sequence_timestamp='2020-01-01T00:00:00Z').fills)
    twice = [cb.limit_order_gtc_buy('the-same-id', BTC, size, '61000').success_response['order_id'] for size in ('0.1', '0.2')]
    out['same_id'] = twice[0] == twice[1]
    cb.cancel_orders(twice[:1])


def refusals(cb):
    def why(answer):
        return [answer.error_response[k] for k in ('error', 'preview_failure_reason')]
    out['refused'] = {
        'funds': why(cb.limit_order_gtc_buy('', BTC, '100', '61000')), 'product': why(cb.market_order_buy('', 'XYZ-USD', base_size='1')), 'price': why(cb.limit_order_gtc_buy('', BTC, '0.1', '61000.001')),
        'size': why(cb.limit_order_gtc_buy('', BTC, '0.1000000001', '61000')), 'taker': why(cb.limit_order_gtc_buy('', BTC, '0.1', '63000', post_only=True)), 'small': why(cb.market_order_buy('', BTC, quote_size='0.5')),
        'stop': why(cb.stop_limit_order_gtc_sell('', BTC, '0.1', '62900', '63000', 'STOP_DIRECTION_STOP_DOWN')), 'bracket': why(cb.trigger_bracket_order_gtc_sell('', BTC, '0.1', '65000', '60000'))}
    stranger = RESTClient(api_key=card['key'], api_secret=card['ed25519_secret'], base_url=HOST)
    out['errors'] = {'wrong secret': tried(stranger.get_accounts), 'unknown order': tried(cb.get_order, '00000000-0000-0000-0000-000000000000'), 'unknown product': tried(cb.get_product, 'XYZ-USD'), 'bad granularity': tried(cb.get_candles, BTC, '1', '2', 'ONE_WEEK')}
    ed = RESTClient(api_key=card['ed25519_key'], api_secret=card['ed25519_secret'], base_url=HOST, rate_limit_headers=True)
    answer = ed.get_accounts()
    out['ed25519'] = {'accounts': len(answer.accounts), 'limit': answer.rate_limit_limit}


def streams(cb):
    heard, lock = [], threading.Lock()

    def on_message(text):
        with lock:
            heard.append(json.loads(text))

    def find(channel, test=lambda e: True):
        with lock:
            return next((e for m in heard if m.get('channel') == channel for e in m['events'] if test(e)), None)
    ws = WSClient(api_key=card['key'], api_secret=card['secret'], base_url=card['ws'], on_message=on_message, retry=False)
    ws.open()
    ws.heartbeats()
    for subscribe in (ws.ticker, ws.ticker_batch, ws.level2, ws.market_trades, ws.candles, ws.status, ws.user):
        subscribe(product_ids=[BTC])
    soon(lambda: find('subscriptions', lambda e: len(e['subscriptions']) == 8))
    move('62500', '3')
    order = cb.limit_order_gtc_buy('own-1', BTC, '0.2', '62000')
    soon(lambda: find('user', lambda e: e['orders'] and e['orders'][0]['status'] == 'OPEN'))
    cb.cancel_orders([order.success_response['order_id']])
    cb.market_order_buy('own-2', BTC, base_size='0.1')
    own = soon(lambda: find('user', lambda e: e['orders'] and e['orders'][0]['status'] == 'FILLED'))
    soon(lambda: find('heartbeats'))
    soon(lambda: find('market_trades', lambda e: e['type'] == 'update' and any(t['price'] == '62500' for t in e['trades'])))
    with lock:
        told = list(heard)
    out['channels'] = sorted({m['channel'] for m in told})
    out['in_step'] = [m['sequence_num'] for m in told] == list(range(len(told)))
    out['typed'] = len([WebsocketResponse(json.loads(json.dumps(m))) for m in told]) == len(told)
    out['ticker'] = {k: find('ticker', lambda e: e['type'] == 'update')['tickers'][0][k] for k in ('type', 'product_id', 'price', 'best_bid', 'best_ask')}
    book = {'bid': {}, 'offer': {}}
    for m in told:
        for e in m['events'] if m['channel'] == 'l2_data' else ():
            if e['type'] == 'snapshot':
                book = {'bid': {}, 'offer': {}}
            for u in e['updates']:
                book[u['side']][u['price_level']] = u['new_quantity']
                if u['new_quantity'] == '0':
                    del book[u['side']][u['price_level']]
    rest = cb.get_product_book(BTC).pricebook
    out['same_book'] = {(x.price, x.size) for x in rest.bids} == set(book['bid'].items()) and {(x.price, x.size) for x in rest.asks} == set(book['offer'].items())
    out['candle'] = sorted(find('candles')['candles'][0])
    out['status'] = find('status')['products'][0]['status']
    out['own'] = [(o['client_order_id'], o['status'], o['cumulative_quantity']) for m in told if m['channel'] == 'user' for e in m['events'] for o in e['orders'] if o['client_order_id'].startswith('own-')]
    out['filled'] = {k: own['orders'][0][k] for k in ('avg_price', 'filled_value', 'total_fees', 'leaves_quantity', 'number_of_fills', 'order_side', 'time_in_force')} if own else None
    ws.ticker_unsubscribe(product_ids=[BTC])
    out['unsubscribed'] = bool(soon(lambda: 'ticker' not in [m for m in heard if m.get('channel') == 'subscriptions'][-1]['events'][0]['subscriptions']))
    ws.close()


cb = RESTClient(api_key=card['key'], api_secret=card['secret'], base_url=HOST)
cb.session.hooks['response'].append(lambda *a, **kw: time.sleep(0.04))   # 30 requests a second are allowed, and this client does not count
reads(cb, RESTClient(base_url=HOST))
orders(cb)
refusals(cb)
streams(cb)
json.dump(out, sys.stdout)
