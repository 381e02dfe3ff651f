"""The OANDA sandbox: public clients work against it unchanged, its errors are OANDA's, its money adds up, and faults do what they say."""
import contextlib
import http.client
import json
import os
import subprocess
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.time import DAY, HOUR, SECOND, SimClock, to_datetime, utc
from gekko.venue.sandbox.exchange import Exchange
from gekko.venue.sandbox.oanda import BEAT, HEDGING, beat
from gekko.venue.sandbox.oanda_account import opened, replayed
from gekko.venue.sandbox.oanda_care import close_position, pass_time, watch_margin
from gekko.venue.sandbox.oanda_desk import Client, Desk, on_price, submit
from gekko.venue.sandbox.oanda_market import SPECS, in_session, listing
from gekko.venue.sandbox.oanda_street import Margin, Street, worth
from gekko.venue.sandbox.oanda_words import REASONS, Refused
from gekko.venue.sandbox.quota import Window
from gekko.venue.sandbox.serve import sandbox

D = Decimal
ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parents[1] / 'clients'


@pytest.fixture(scope='module')
def python() -> str:
    """The Python of the public clients' own environment, made when it is missing."""
    return subprocess.run(['bash', str(ROOT / 'scripts/clients.sh')], capture_output=True, text=True, check=True, timeout=300).stdout.split()[-1]


def visit(python: str, script: str, **options) -> dict:
    with sandbox('oanda', **options) as s:
        done = subprocess.run([python, str(CLIENTS / script)], input=json.dumps(s.card), capture_output=True, text=True, timeout=60, env={'PATH': os.environ['PATH']})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


BROKEN = (http.client.HTTPException, OSError)


class Said:
    """An answer whole."""
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status_code, self.headers, self.text = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode()
    def json(self): return json.loads(self.text)


def to_json(x) -> bytes: return json.dumps(x).encode()


class Web:
    """Requests of the standard library, one connection kept."""
    def __init__(self, base: str, headers: dict[str, str]) -> None: self.line, self.headers = http.client.HTTPConnection(urlsplit(base).netloc, timeout=10), headers
    def send(self, line, method, path, json=None, content=None, headers=None):
        made = to_json(json) if json is not None else content
        line.request(method, path, made, self.headers | ({'Content-Type': 'application/json'} if json is not None else {}) | (headers or {}))
        return line.getresponse()
    def request(self, method, path, **more) -> Said:
        try: return Said(self.send(self.line, method, path, **more))
        except BROKEN: self.line.close(); raise
    def get(self, path) -> Said: return self.request('GET', path)
    @contextlib.contextmanager
    def stream(self, method, path, headers=None):
        line = http.client.HTTPConnection(self.line.host, self.line.port, timeout=10)
        try: yield lines_of(self.send(line, method, path, headers=headers))
        finally: line.close()
    def close(self) -> None: self.line.close()


def lines_of(answer):
    while line := answer.readline(): yield line.decode().rstrip('\n')
    raise http.client.IncompleteRead(b'')      # a chunked stream of the venue's has no end of its own


def control(s, name: str, body=None):
    web = Web(s.card['control'], {'X-Sandbox': s.card['token']})
    try: return web.request('POST' if body else 'GET', f'/sandbox/{name}', json=body).json()
    finally: web.close()


class Asker:
    """Raw HTTP as the first account, `last` being the answer whole."""
    def __init__(self, s) -> None:
        self.s, self.card = s, s.card
        self.http = Web(s.card['rest'], {'Authorization': f"Bearer {s.card['key']}"})

    def __call__(self, method: str, path: str, body=None, account: str | None = None, **more):
        self.last = self.http.request(method, f"/v3/accounts/{account or self.card['account']}{path}", json=body, **more)
        return self.last.status_code, self.last.json()

    def order(self, kind='MARKET', units='1000', instrument='EUR_USD', account=None, **more):
        return self('POST', '/orders', {'order': {'type': kind, 'instrument': instrument, 'units': units, **more}}, account)

    def log(self, account=None) -> list[dict]: return self('GET', '/transactions/sinceid?id=0', account=account)[1]['transactions']
    def kinds(self, n: int) -> list[tuple[str, str]]: return [(t['type'], t.get('reason', '')) for t in self.log()[-n:]]


@pytest.fixture
def s():
    with sandbox('oanda') as running:
        running.set_price('EUR-USD', '1.08500')
        yield running


@pytest.fixture
def ask(s):
    asker = Asker(s)
    yield asker
    asker.http.close()


# -- the public clients

def test_oandapyv20(python):
    out = visit(python, 'oanda_oandapyv20.py')
    assert out['accounts'] == ['101-001-1000001-001', '101-001-1000001-002'] and out['instruments']['USD_JPY'] == 3 and out['instruments']['EUR_USD'] == 5
    assert out['summary'] == {'currency': 'USD', 'balance': '1000000.0000', 'NAV': '1000000.0000', 'marginUsed': '0.0000', 'openTradeCount': 0, 'hedgingEnabled': False}
    assert out['candles'] == {'count': 300, 'complete': 299, 'sides': ['ask', 'bid', 'mid'], 'sound': True}
    assert out['paged'] == {'count': 1200, 'unique': 1200, 'rising': True, 'first': True} and set(out['granularities'].values()) == {3} and out['books'] == [True, True]
    assert out['quote'] == {'bid': '1.08499', 'ask': '1.08501', 'status': 'tradeable', 'levels': 3}
    assert out['market'] == {'units': '10000', 'price': '1.08501', 'reason': 'MARKET_ORDER', 'clientOrderID': 'm1', 'pl': '0.0000'}
    assert out['at_once'] == ['1.08501', 'TIME_IN_FORCE_EXPIRED', 'BOUNDS_VIOLATION', 'INSUFFICIENT_LIQUIDITY']
    assert out['pending'] == ['LIMIT', 'LIMIT', 'MARKET_IF_TOUCHED', 'STOP', 'TRAILING_STOP_LOSS'] and out['listed'] == 5 and out['by_client']
    assert out['replaced'] == ['CLIENT_REQUEST_REPLACED', 'CANCELLED', 'PENDING'] and out['renamed'] == {'id': 'l2', 'comment': 'renamed'} and out['cancelled'] == ['CLIENT_REQUEST', 'CANCELLED']
    assert out['after_fall'] == {'limit': 'FILLED', 'touch': 'FILLED', 'trailing': 'FILLED', 'stop': 'PENDING'} and out['after_more'] == 'FILLED'
    assert out['trades'] == {'open': 2, 'units': 3000} and out['dependents'] == ['stopLossOrderTransaction', 'takeProfitOrderTransaction'] and out['trade_by_client']
    assert out['trade_cut'] == '-1' and out['closed'] == 'MARKET_ORDER_TRADE_CLOSE' and out['all_trades'] == 4
    assert out['position'] == ['2000', '0', 1, 1] and out['flattened'] == ['MARKET_ORDER_POSITION_CLOSEOUT', '0'] and out['hedged'] == ['300', '-200']
    assert out['fills'] == {'count': 9, 'balance': True, 'pl': True} and out['consecutive'] and out['one'] and out['range'] and out['pages'] and out['state']
    assert {k for k, some in out['changes'].items() if not some} == {'ordersTriggered', 'tradesReduced'}
    assert out['stream'] == {'first': 'HEARTBEAT', 'same': True, 'prices': ['PRICE'], 'snapshot': ['EUR_USD', 'USD_JPY'], 'last': '155.001'}
    errors = out['errors']
    assert errors['instrument'] == [400, 'oanda::rest::core::InvalidParameterException', None, None]
    assert {k: errors[k][1:] for k in ('units', 'too_many', 'price', 'force')} == {
        k: [code, f'{kind}_ORDER_REJECT', code] for k, code, kind in (('units', 'UNITS_PRECISION_EXCEEDED', 'MARKET'), ('too_many', 'UNITS_LIMIT_EXCEEDED', 'MARKET'), ('price', 'PRICE_PRECISION_EXCEEDED', 'LIMIT'), ('force', 'TIME_IN_FORCE_INVALID', 'MARKET'))}
    assert errors['cancel'] == [404, 'ORDER_DOESNT_EXIST', 'ORDER_CANCEL_REJECT', 'ORDER_DOESNT_EXIST'] and errors['get'][:2] == errors['filled_by_client'][:2] == [404, 'NO_SUCH_ORDER']
    assert [errors[k][:2] for k in ('position', 'never', 'account', 'token')] == [[404, 'CLOSEOUT_POSITION_DOESNT_EXIST'], [404, 'NO_SUCH_POSITION'], [403, None], [401, None]]


# fields that OANDA's documents have gained since its Python classes were generated
NEWER = {'Account.dividendAdjustment', 'AccountSummary.dividendAdjustment', 'Position.dividendAdjustment', 'PositionSide.dividendAdjustment', 'Trade.dividendAdjustment', 'TradeSummary.dividendAdjustment',
         'Instrument.financing', 'Instrument.guaranteedStopLossOrderMode', 'Instrument.tags', 'ClientPrice.timestamp', 'LimitOrder.partialFill', 'LimitOrderTransaction.partialFill',
         'MarketIfTouchedOrder.partialFill', 'MarketIfTouchedOrderTransaction.partialFill', 'StopOrder.partialFill', 'StopOrderTransaction.partialFill',
         'OrderCancelTransaction.closedTradeID', 'OrderCancelTransaction.tradeCloseTransactionID', 'OrderFillTransaction.quotePL', 'OrderFillTransaction.requestedUnits'}


def test_v20_over_tls_and_field_by_field(python):
    out = visit(python, 'oanda_v20.py', tls=True)
    assert set(out['strange']) == NEWER and len(out['compared']) >= 54
    assert out['candles'] == [50, False, 3] and out['paged'] == 100 and out['unix'] and out['books'] == [True, True] and out['since'] == 0
    assert out['quote'] == ['1.08499', '1.08501', ['EUR', 'JPY', 'USD']] and out['market'] == ['1.08501', '10000', 'v1', '10000', 4]
    assert out['replaced'] == ['CLIENT_REQUEST_REPLACED', True] and out['take_profit'] == ['1.16000', 'REPLACEMENT'] and out['stop_loss'] == ['CLIENT_REQUEST_REPLACED', '1.01000']
    assert out['pending'] == ['LIMIT', 'MARKET_IF_TOUCHED', 'STOP', 'STOP_LOSS', 'TAKE_PROFIT', 'TRAILING_STOP_LOSS'] and out['cancel_again'] == [404, 'ORDER_DOESNT_EXIST', 'ORDER_DOESNT_EXIST']
    assert out['after_rise'] == ['FILLED', 'FILLED', 'PENDING'] and out['cut'] == '-4000' and out['reduced'] == ['6000'] and out['position'] == ['8000', '0', 3]
    assert out['hedged'] == ['500', '-200'] and out['closed'] == ['-500', '200'] and out['fills'] == [4, True] and out['changes'] == [True, 3, True] and out['range'] and out['pages']
    assert out['reject'] == [400, 'UNITS_PRECISION_EXCEEDED', 'UNITS_PRECISION_EXCEEDED'] and out['token'] == [401, 'NO_SUCH_ORDER', 'TRADE_DOESNT_EXIST'] and out['bad_rate'] == [400, 'MARGIN_RATE_INVALID']
    assert out['stream'] == {'kinds': ['pricing.ClientPrice', 'transaction.Transaction', 'transaction.TransactionHeartbeat'], 'same': True, 'told': True, 'last': '1.20001'}


# -- answers, raw

def test_headers_and_formats(ask):
    status, made = ask.order(clientExtensions={'id': 'h1'})
    assert status == 201 and ask.last.headers['location'].endswith(f"/orders/{made['orderCreateTransaction']['id']}") and ask.last.headers['requestid'].isdigit()
    assert made['relatedTransactionIDs'] == [made['orderCreateTransaction']['id'], made['orderFillTransaction']['id']] and made['lastTransactionID'] == made['orderFillTransaction']['id']
    assert made['orderFillTransaction']['requestID'] == ask.last.headers['requestid'] and made['orderFillTransaction']['batchID'] == made['orderCreateTransaction']['id']
    assert made['orderCreateTransaction']['time'].endswith('Z') and len(made['orderCreateTransaction']['time']) == 30
    _, one = ask('GET', f"/transactions/{made['lastTransactionID']}", headers={'Accept-Datetime-Format': 'UNIX'})
    assert abs(D(one['transaction']['time']) - D(time.time())) < 60 and 'null' not in ask.last.text


@pytest.mark.parametrize('body, status, code', [
    ({}, 400, ''), ({'order': {}}, 400, ''), ({'order': 7}, 400, ''), ({'order': {'type': 'ICEBERG', 'instrument': 'EUR_USD', 'units': '1'}}, 400, 'oanda::rest::core::InvalidParameterException'),
    *[({'order': {'type': 'LIMIT', 'instrument': 'EUR_USD', 'units': '1', 'price': '1.08', **bad}}, 400, code) for bad, code in (
        ({'units': None}, 'UNITS_MISSING'), ({'units': '0'}, 'UNITS_INVALID'), ({'units': 'NaN'}, 'UNITS_INVALID'), ({'units': '1e3'}, 'UNITS_INVALID'), ({'units': True}, 'UNITS_INVALID'), ({'units': [1]}, 'UNITS_INVALID'),
        ({'units': '0.1'}, 'UNITS_PRECISION_EXCEEDED'), ({'units': '100000001'}, 'UNITS_LIMIT_EXCEEDED'), ({'price': None}, 'PRICE_MISSING'), ({'price': '-1'}, 'PRICE_INVALID'), ({'price': '1.080001'}, 'PRICE_PRECISION_EXCEEDED'),
        ({'timeInForce': 'DAY'}, 'TIME_IN_FORCE_INVALID'), ({'timeInForce': 'GTD'}, 'TIME_IN_FORCE_GTD_TIMESTAMP_MISSING'), ({'timeInForce': 'GTD', 'gtdTime': '2020-01-01T00:00:00Z'}, 'TIME_IN_FORCE_GTD_TIMESTAMP_IN_PAST'),
        ({'positionFill': 'X'}, 'ORDER_FILL_POSITION_ACTION_INVALID'), ({'triggerCondition': 'X'}, 'TRIGGER_CONDITION_INVALID'), ({'clientExtensions': {'id': 'x' * 129}}, 'CLIENT_ORDER_ID_INVALID'),
        ({'stopLossOnFill': {}}, 'STOP_LOSS_ON_FILL_PRICE_MISSING'), ({'takeProfitOnFill': {'price': '1.1234567'}}, 'TAKE_PROFIT_ON_FILL_PRICE_PRECISION_EXCEEDED'))],
    ({'order': {'type': 'STOP_LOSS', 'tradeID': '77', 'price': '1.0'}}, 404, 'TRADE_DOESNT_EXIST'),
])
def test_orders_that_are_refused_change_nothing(ask, body, status, code):
    before = ask('GET', '/summary')[1]['account']
    got, said = ask('POST', '/orders', body)
    assert (got, said.get('errorCode', '')) == (status, code) and said['errorMessage']
    after = ask('GET', '/summary')[1]['account']
    assert {k: v for k, v in before.items() if k != 'lastTransactionID'} == {k: v for k, v in after.items() if k != 'lastTransactionID'}
    rejected = code in REASONS or code.startswith('CLIENT_ORDER')
    assert ('orderRejectTransaction' in said) is rejected and int(after['lastTransactionID']) - int(before['lastTransactionID']) == rejected
    if rejected: assert said['orderRejectTransaction']['rejectReason'] == code and said['orderRejectTransaction']['type'].endswith('_ORDER_REJECT') and said['relatedTransactionIDs'] == [after['lastTransactionID']]


def test_requests_that_cannot_be_read(ask):
    assert ask('POST', '/orders', content=b'{"order":', headers={'Content-Type': 'application/json'})[0] == 400
    for path, status in (('/transactions/sinceid', 400), ('/transactions/sinceid?id=x', 400), ('/transactions/sinceid?id=999', 416), ('/transactions/999', 404), ('/transactions?pageSize=5000', 400), ('/changes', 400), ('/changes?sinceTransactionID=999', 416),
                         ('/pricing', 400), ('/pricing?instruments=EURUSD', 400), ('/orders?state=GONE', 400), ('/orders?count=501', 400), ('/trades/9', 404), ('/positions/EUR_XXX', 400), ('/pricing/stream', 400), ('/candles/latest?candleSpecifications=EUR_USD', 400), ('/nowhere', 404)):
        got, said = ask('GET', path)
        assert got == status and said['errorMessage'], path
    assert ask('GET', '/summary', account='nonsense')[0] == 400 and ask('GET', '/summary', account='101-001-1-009')[0] == 403
    assert ask('GET', '/pricing/stream?instruments=EUR_USD', headers={'Authorization': 'Bearer x'})[0] == 401


def test_a_client_id_names_one_pending_order_at_a_time(ask):
    assert ask.order('LIMIT', price='1.0', clientExtensions={'id': 'same'})[0] == 201
    status, said = ask.order('LIMIT', price='1.0', clientExtensions={'id': 'same'})
    assert (status, said['errorCode']) == (400, 'CLIENT_ORDER_ID_ALREADY_EXISTS')
    assert ask('PUT', '/orders/@same/cancel')[0] == 200 and ask.order(clientExtensions={'id': 'same'})[0] == 201 and ask.order(clientExtensions={'id': 'same'})[0] == 201
    assert ask('GET', '/orders/@same')[0] == 404 and [t['clientOrderID'] for t in ask.log() if t['type'] == 'ORDER_FILL'] == ['same', 'same']


def test_limits_of_requests_and_streams(ask, s):
    venue = s.server.protocol
    assert (venue.meter.limit, venue.meter.length) == (120, SECOND)
    s.call(lambda: setattr(venue, 'meter', Window(120, 100_000 * DAY)))
    statuses = [ask('GET', '/summary')[0] for _ in range(125)]
    assert statuses == [200] * 120 + [429] * 5 and ask.last.json()['errorCode'] == 'RATE_LIMIT_EXCEEDED'
    s.call(lambda: (setattr(venue, 'meter', Window(120, SECOND)), setattr(venue, 'streams', 20)))
    assert ask('GET', '/pricing/stream?instruments=EUR_USD')[0] == 429


def said(lines) -> dict:
    """The next line of a stream that is no heartbeat; the clock may send one at any moment."""
    return next(x for x in map(json.loads, lines) if x['type'] != 'HEARTBEAT')


def test_heartbeats_and_both_time_formats(ask, s):
    with ask.http.stream('GET', f"/v3/accounts/{s.card['account']}/pricing/stream?instruments=EUR_USD&snapshot=false", headers={'Accept-Datetime-Format': 'UNIX'}) as lines:
        while not s.call(lambda: s.server.hub.wanted('prices:True')): time.sleep(0.01)
        s.call(lambda: beat(s.server.protocol))
        pulse = json.loads(next(lines))
        assert pulse['type'] == 'HEARTBEAT' and abs(float(pulse['time']) - time.time()) < 60
        s.set_price('EUR-USD', '1.09')
        price = said(lines)
        assert (price['type'], price['bids'][0]['price'], price['time'].count('.')) == ('PRICE', '1.08999', 1) and 'T' not in price['time']
    assert BEAT == 5.0 and BEAT in dict(s.server.protocol.every())


@pytest.mark.parametrize('kind, units, price, trigger, moves', [
    ('LIMIT', '100', '1.08000', 'DEFAULT', (('1.08050', '1.08200', False), ('1.07900', '1.08001', False), ('1.07850', '1.08000', True))),
    ('LIMIT', '100', '1.08000', 'BID', (('1.08001', '1.08100', False), ('1.07950', '1.08000', True))),
    ('LIMIT', '-100', '1.09000', 'DEFAULT', (('1.08999', '1.09100', False), ('1.09000', '1.09100', True))),
    ('STOP', '100', '1.09000', 'DEFAULT', (('1.08900', '1.08999', False), ('1.08900', '1.09000', True))),
    ('STOP', '-100', '1.08000', 'DEFAULT', (('1.08001', '1.08002', False), ('1.08000', '1.08100', True))),
    ('STOP', '-100', '1.08000', 'INVERSE', (('1.07900', '1.08001', False), ('1.07900', '1.08000', True))),
    ('STOP', '100', '1.09000', 'MID', (('1.08800', '1.09100', False), ('1.08950', '1.09060', True))),
    ('MARKET_IF_TOUCHED', '100', '1.09000', 'DEFAULT', (('1.08900', '1.08999', False), ('1.08900', '1.09000', True))),
    ('MARKET_IF_TOUCHED', '100', '1.08000', 'DEFAULT', (('1.07900', '1.08001', False), ('1.07900', '1.08000', True))),
    ('MARKET_IF_TOUCHED', '-100', '1.09000', 'DEFAULT', (('1.08999', '1.09010', False), ('1.09000', '1.09010', True)))])
def test_what_sets_an_order_off(ask, s, kind, units, price, trigger, moves):
    made = ask.order(kind, units, price=price, triggerCondition=trigger)[1]['lastTransactionID']
    for bid, offer, fires in moves:
        s.call(lambda b=bid, a=offer: s.exchange.make('EUR-USD', [(D(b), D(1000))], [(D(a), D(1000))]))
        order = ask('GET', f'/orders/{made}')[1]['order']
        assert (order['state'] == 'FILLED') is fires, (bid, offer)
    fill = ask('GET', f"/transactions/{order['fillingTransactionID']}")[1]['transaction']
    assert fill['price'] == (offer if units[0] != '-' else bid) and fill['reason'] == f'{kind}_ORDER' and fill['tradeOpened']['tradeID'] == order['tradeOpenedID']


def test_what_hangs_on_a_trade_goes_with_it(ask, s):
    made = ask.order(takeProfitOnFill={'price': '1.10'}, stopLossOnFill={'distance': '0.01'}, trailingStopLossOnFill={'distance': '0.02'})[1]
    trade = made['orderFillTransaction']['tradeOpened']['tradeID']
    view = ask('GET', f'/trades/{trade}')[1]['trade']
    assert [view[k].get('price') for k in ('takeProfitOrder', 'stopLossOrder')] == ['1.10000', '1.07501'] and view['trailingStopLossOrder']['trailingStopValue'] == '1.06499'
    s.set_price('EUR-USD', '1.10000')
    assert ask('GET', f'/trades/{trade}')[1]['trade']['trailingStopLossOrder']['trailingStopValue'] == '1.07999'
    s.set_price('EUR-USD', '1.07999')
    fill, *gone = ask.log()[-3:]
    assert (fill['reason'], fill['pl']) == ('TRAILING_STOP_LOSS_ORDER', '-5.0300') and {t['reason'] for t in gone} == {'LINKED_TRADE_CLOSED'} and {t['tradeCloseTransactionID'] for t in gone} == {fill['id']}
    assert ask('GET', '/pendingOrders')[1]['orders'] == [] and ask('GET', f'/trades/{trade}')[1]['trade']['state'] == 'CLOSED'


@pytest.mark.parametrize('when, trades', [
    ('2026-01-09T21:59:59Z', True), ('2026-01-09T22:00:00Z', False), ('2026-01-11T21:59:59Z', False), ('2026-01-11T22:00:00Z', True),
    ('2026-07-10T20:59:59Z', True), ('2026-07-10T21:00:00Z', False), ('2026-07-12T20:59:59Z', False), ('2026-07-12T21:00:00Z', True), ('2026-03-08T21:00:00Z', True), ('2026-11-01T21:59:59Z', False)])
def test_the_week_ends_at_five_in_new_york(when, trades):
    assert in_session(utc(when)) is trades


# -- what the clock brings

def until(day: str, hour: int) -> float:
    """Seconds from now to the next such weekday and UTC hour."""
    now = to_datetime(time.time_ns())
    then = (now + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0)
    while then.strftime('%a') != day: then += timedelta(days=1)
    return (then - now).total_seconds()


def test_a_real_session_closes_for_the_weekend():
    with sandbox('oanda', session='real') as s:
        ask = Asker(s)
        s.advance(until('Sat', 12))
        price = ask('GET', '/pricing?instruments=EUR_USD')[1]['prices'][0]
        assert (price['status'], price['tradeable']) == ('non-tradeable', False)
        assert ask.order()[1]['orderCancelTransaction']['reason'] == 'MARKET_HALTED'
        status, made = ask.order('LIMIT', price='2.0')
        assert status == 201 and 'orderFillTransaction' not in made
        s.advance(2 * 86_400)
        s.set_price('EUR-USD', '1.08500')
        assert ask('GET', f"/orders/{made['lastTransactionID']}")[1]['order']['state'] == 'FILLED'
        rows = ask('GET', '/instruments/EUR_USD/candles?granularity=H1&count=200')[1]['candles']
        assert len(rows) == 200 and all(in_session(utc(r['time'])) for r in rows)
        ask.http.close()


def test_nights_are_financed_once_and_orders_of_the_day_end(ask, s):
    s.advance(until('Mon', 12))
    ask.order(units='100000')
    day = ask.order('LIMIT', price='1.0', timeInForce='GFD')[1]['lastTransactionID']
    s.advance(7 * 86_400)
    nights = [t for t in ask.log() if t['type'] == 'DAILY_FINANCING']
    assert len(nights) == 5 and [to_datetime(utc(t['time'])).strftime('%a') for t in nights] == ['Mon', 'Tue', 'Wed', 'Thu', 'Fri']
    paid = [D(t['financing']) for t in nights]
    assert paid[2] / paid[1] == pytest.approx(3, abs=D('0.001')) and sum(paid) == D(ask('GET', '/summary')[1]['account']['financing'])
    assert replayed(ask.log()) == D(ask('GET', '/summary')[1]['account']['balance'])
    assert ask('GET', f'/orders/{day}')[1]['order']['state'] == 'CANCELLED'


# -- faults

def test_a_limit_order_filled_in_parts_is_reissued(ask, s):
    s.fault({'fault': 'partial_fills', 'op': 'submit', 'parts': 3})
    ask.order('LIMIT', units='1000', price='1.08000', clientExtensions={'id': 'parts'})
    s.set_price('EUR-USD', '1.07900')
    fills = [t for t in ask.log() if t['type'] == 'ORDER_FILL']
    assert [t['units'] for t in fills] == ['333', '333', '334'] and len({t['orderID'] for t in fills}) == 3 and {t['clientOrderID'] for t in fills} == {'parts'}
    assert ask('GET', '/positions/EUR_USD')[1]['position']['long']['units'] == '1000' and ask('GET', '/pendingOrders')[1]['orders'] == []


def test_a_fill_that_races_a_cancel(ask, s):
    made = ask.order('LIMIT', price='1.0', clientExtensions={'id': 'race'})[1]['lastTransactionID']
    s.fault({'fault': 'cancel_race', 'op': 'cancel'})
    status, said = ask('PUT', f'/orders/{made}/cancel')
    assert (status, said['errorCode']) == (404, 'ORDER_DOESNT_EXIST') and ask('GET', f'/orders/{made}')[1]['order']['state'] == 'FILLED'
    assert ask.kinds(2) == [('ORDER_FILL', 'LIMIT_ORDER'), ('ORDER_CANCEL_REJECT', '')]


def test_an_answer_that_is_dropped_is_an_order_that_stands(ask, s):
    s.fault({'fault': 'drop_answer', 'op': 'submit', 'symbol': 'EUR-USD'})
    with pytest.raises(BROKEN): ask.order(clientExtensions={'id': 'lost'})
    assert [t['clientOrderID'] for t in ask.log() if t['type'] == 'ORDER_FILL'] == ['lost']


def test_fills_told_twice_and_out_of_order(ask, s):
    s.fault({'fault': 'duplicate_fill', 'op': 'own'}, {'fault': 'out_of_order_fill', 'op': 'own', 's': 0.2})
    with ask.http.stream('GET', f"/v3/accounts/{s.card['account']}/transactions/stream") as lines:
        assert json.loads(next(lines))['type'] == 'HEARTBEAT'
        other = Asker(s)
        other.order()
        other.order(units='7')
        told = [said(lines)['id'] for _ in range(5)]
        other.http.close()
    assert told[:4] == ['4', '5', '5', '6'] and told[4] == '7'


def test_streams_that_are_muted_and_cut(ask, s):
    def streaming(): return s.call(lambda: s.server.protocol.streams)
    with ask.http.stream('GET', f"/v3/accounts/{s.card['account']}/pricing/stream?instruments=EUR_USD") as lines:
        assert said(lines)['asks'][0]['price'] == '1.08501' and streaming() == 1
        s.fault({'fault': 'mute', 'op': 'stream', 's': 0.3})
        s.set_price('EUR-USD', '1.08600')
        while s.call(lambda: dict(s.server.hub.muted)): time.sleep(0.01)
        s.set_price('EUR-USD', '1.08700')
        assert said(lines)['asks'][0]['price'] == '1.08701'
        s.fault({'fault': 'disconnect', 'op': 'stream'})
        with pytest.raises(BROKEN): said(lines)
    while streaming(): time.sleep(0.01)


@pytest.mark.parametrize('fault, status', [({'fault': 'throttle', 's': 2}, 429), ({'fault': 'throttle', 'ban': True}, 418), ({'fault': 'server_error'}, 503), ({'fault': 'html'}, 502), ({'fault': 'revoked_key'}, 401), ({'fault': 'maintenance'}, 503)])
def test_answers_instead_of_the_venues(ask, s, fault, status):
    s.fault({'op': 'query', **fault} if fault['fault'] not in ('revoked_key', 'maintenance') else fault)
    got = ask.http.get(f"/v3/accounts/{s.card['account']}/summary")
    assert got.status_code == status and (fault['fault'] == 'html' or got.json()['errorMessage'])


def test_a_market_that_closes_and_a_precision_that_changes(ask, s):
    s.fault({'fault': 'session_close', 'symbol': 'EUR-USD'})
    assert ask.order()[1]['orderCancelTransaction']['reason'] == 'MARKET_HALTED' and ask.order(instrument='USD_JPY')[1]['orderFillTransaction']
    s.call(lambda: s.exchange.relist('EUR-USD', {'status': 'trading'}))
    s.fault({'fault': 'precision', 'symbol': 'EUR-USD', 'tick': '0.0001'})
    row = next(i for i in ask('GET', '/instruments')[1]['instruments'] if i['name'] == 'EUR_USD')
    assert row['displayPrecision'] == 4 and ask.order('LIMIT', price='1.07777')[1]['errorCode'] == 'PRICE_PRECISION_EXCEEDED' and ask.order('LIMIT', price='1.0777')[0] == 201
    s.fault({'fault': 'delisted', 'symbol': 'USD-JPY'})
    assert ask.order(instrument='USD_JPY')[1]['errorCode'] == 'INSTRUMENT_NOT_TRADEABLE'


def test_margin_is_asked_before_and_watched_after(ask, s):
    s.set_price('USD-JPY', '150.000', size='90000000')
    for size in ('20000000', '4000000'): assert 'orderFillTransaction' in ask.order(units=size, instrument='USD_JPY', account=HEDGING)[1]
    _, said = ask.order(units='5000000', instrument='USD_JPY', account=HEDGING)
    assert said['orderCancelTransaction']['reason'] == 'INSUFFICIENT_MARGIN'
    s.set_price('USD-JPY', '146.500', size='90000000')
    log = ask.log(HEDGING)
    assert [t['type'] for t in log if t['type'].startswith('MARGIN')] == ['MARGIN_CALL_ENTER', 'MARGIN_CALL_EXIT'] and [t['reason'] for t in log if t['type'] == 'ORDER_FILL'][-1] == 'MARKET_ORDER_MARGIN_CLOSEOUT'
    account = ask('GET', '', account=HEDGING)[1]['account']
    assert account['openTradeCount'] == 0 and account['marginUsed'] == '0.0000' and D(account['balance']) == replayed(log) > 0


def test_the_control_endpoint_tells_the_account(ask, s):
    ask.order(units='2500', instrument='USD_JPY')
    told = control(s, 'account')
    assert told['positions'] == {'USD-JPY': '2500'} and told['balances'] == {'USD': '1000000.0000'} and set(told['accounts']) == {s.card['account'], s.card['hedging_account']}
    more = control(s, 'wallet', {'asset': 'USD', 'amount': '500'})
    assert more['balances'] == {'USD': '1000500.0000'} and ask.kinds(1) == [('TRANSFER_FUNDS', '')]


def test_the_control_endpoint_tells_every_order_also_those_that_rest(ask, s):
    def told(*keys: str) -> list[tuple]:
        said = control(s, 'orders')['orders']
        return [tuple(o[k] for k in keys) for o in said]
    ask.order('LIMIT', units='1000', price='1.08000', clientExtensions={'id': 'rests'})
    ask.order('STOP', units='-700', price='1.07000', clientExtensions={'id': 'waits'}, account=HEDGING)
    ask.order('LIMIT', units='300', price='1.07500', clientExtensions={'id': 'ends'})
    ask('PUT', '/orders/@ends/cancel')
    ask.order(units='-400', clientExtensions={'id': 'trades'}, stopLossOnFill={'price': '1.09500'})
    every = [('rests', 'limit', 'buy', 'accepted', '1000', '1.08000', None), ('ends', 'limit', 'buy', 'cancelled', '300', '1.07500', None), ('trades', 'market', 'sell', 'filled', '400', None, None), ('', 'stop', 'buy', 'accepted', '400', None, '1.09500')]
    assert told('client_id', 'type', 'side', 'state', 'qty', 'limit', 'stop') == [*every, ('waits', 'stop', 'sell', 'accepted', '700', None, '1.07000')]
    assert set(told('account')) == {(s.card['account'],), (HEDGING,)}
    s.fault({'fault': 'partial_fills', 'op': 'submit', 'parts': 2})
    s.set_price('EUR-USD', '1.07800')
    halves = [o for o in told('client_id', 'state', 'filled', 'paid', 'deals') if o[0] == 'rests']
    assert [o[1:3] for o in halves] == [('filled', '500')] * 2 and all(D(o[3]) == 500 * D(o[4][0]['price']) and o[4][0]['trade_id'] for o in halves)


# -- money, for any sequence of orders and prices

NAMES = ('EUR_USD', 'USD_JPY', 'EUR_GBP')
step = st.one_of(st.tuples(st.just('market'), st.sampled_from(NAMES), st.integers(-300_000, 300_000).filter(bool), st.sampled_from(['DEFAULT', 'REDUCE_FIRST', 'OPEN_ONLY', 'REDUCE_ONLY'])),
                 st.tuples(st.just('limit'), st.sampled_from(NAMES), st.integers(-300_000, 300_000).filter(bool), st.integers(-40, 40)),
                 st.tuples(st.just('stop'), st.sampled_from(NAMES), st.integers(-300_000, 300_000).filter(bool), st.integers(-40, 40)),
                 st.tuples(st.just('price'), st.sampled_from(NAMES), st.integers(-200, 200), st.none()), st.tuples(st.just('night'), st.just(''), st.just(0), st.none()))


@settings(max_examples=60)
@given(st.lists(step, min_size=1, max_size=25), st.booleans())
def test_whatever_happens_the_log_explains_the_account(steps, hedging):
    clock = SimClock(utc('2026-03-02T14:30Z'))
    exchange = Exchange([listing(x) for x in SPECS.values()], clock, Margin())
    mids = {x.name: x.start for x in SPECS.values()}
    street = Street(exchange, SPECS)
    desk = Desk(street)
    me = desk.clients['me'] = Client(opened('101-001-1-001', D(200_000), clock.now(), hedging=hedging))
    last = street.now()

    def quote(name):
        x = street.listing(name)
        exchange.make(x.symbol, [(mids[name] - i * x.tick, D(200_000)) for i in (1, 2)], [(mids[name] + i * x.tick, D(200_000)) for i in (1, 2)])

    for name in SPECS: quote(name)
    for what, name, n, more in steps:
        try:
            if what == 'price': mids[name] += n * 5 * SPECS[name].tick
            elif what == 'night':
                clock.advance(9 * HOUR)
                last = pass_time(desk, last)
            elif what == 'market': submit(desk, me, {'type': 'MARKET', 'instrument': name, 'units': str(n), 'positionFill': more, 'stopLossOnFill': {'distance': str(50 * SPECS[name].tick)}})
            else: submit(desk, me, {'type': what.upper(), 'instrument': name, 'units': str(n), 'price': str(mids[name] + more * SPECS[name].tick)})
        except Refused as e: assert e.status == 400
        for each in SPECS: quote(each)
        for each in SPECS: on_price(desk, each)
        watch_margin(desk, me)

        a = me.account
        assert [t['id'] for t in a.log] == [str(i + 1) for i in range(a.last)]
        assert replayed(a.log) == a.balance and sum((t.realized for t in a.trades.values()), D(0)) == a.pl
        fills = [t for t in a.log if t['type'] == 'ORDER_FILL']
        for each in NAMES: assert sum((D(t['units']) for t in fills if t['instrument'] == each), D(0)) == a.net(each)
        if not hedging: assert all(len({t.long for t in live.values()}) <= 1 for live in a.live.values())
        open_ids = {t.id for t in a.open_trades()}
        assert all(o.trade is None or o.trade in open_ids for o in me.pending.values()) and all(not t.linked for t in a.trades.values() if not t.open)

    clock.advance(DAY)
    for each, live in list(me.account.live.items()):
        sides = {'long' if t.long else 'short' for t in live.values()}
        while any(me.account.live[each].values()):
            quote(each)
            parts = {f'{side}Units': str(min(abs(sum((t.current for t in me.account.live[each].values() if t.long == (side == 'long')), D(0))), D(300_000))) for side in sides}
            close_position(desk, me, each, {k: v for k, v in parts.items() if v != '0'})
    w = worth(street, me.account)
    assert w.used == w.unrealized == 0 and w.nav == me.account.balance == replayed(me.account.log)
