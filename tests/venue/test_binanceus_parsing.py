"""What Binance.US's documents show, read exactly; and the roll, which says each thing once whatever comes first, twice or late."""
from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Retry
from gekko.domain.order import Accepted, Cancelled, Fill, Filled, Intent, Order, OrderEvent, OrderState, OrderType, Side, apply
from gekko.execution.ids import client_id
from gekko.venue.binanceus.answers import (Execution, ExchangeInfo, Ladder, Listed, Markets, Mine, Report, Row, bare, execution, fill_id, fill_place, homes, market, my_fill,
                                           order, read, report, text)
from gekko.venue.binanceus.frames import Decoder
from gekko.venue.binanceus.rest import order_params
from gekko.venue.binanceus.roll import Roll, add_trades, leg_name, split_name, take_in

D = Decimal
NAMES = Markets([msgspec.convert({'symbol': b + q, 'status': 'TRADING', 'baseAsset': b, 'quoteAsset': q, 'filters': []}, Listed)
                 for b, q in (('LTC', 'BTC'), ('BTC', 'USDT'), ('BNB', 'BTC'), ('ETH', 'BTC'))])

FULL = b'''{"symbol":"BTCUSDT","orderId":28,"orderListId":-1,"clientOrderId":"6gCrw2kRUAF9CvJDGP16IP","transactTime":1507725176595,"price":"0.00000000","origQty":"10.00000000",
"executedQty":"10.00000000","cummulativeQuoteQty":"10.00000000","status":"FILLED","timeInForce":"GTC","type":"MARKET","side":"SELL","workingTime":1507725176595,"selfTradePreventionMode":"NONE",
"fills":[{"price":"4000.00000000","qty":"1.00000000","commission":"4.00000000","commissionAsset":"USDT","tradeId":56},{"price":"3999.00000000","qty":"5.00000000","commission":"19.99500000","commissionAsset":"USDT","tradeId":57},
{"price":"3998.00000000","qty":"2.00000000","commission":"7.99600000","commissionAsset":"USDT","tradeId":58},{"price":"3997.00000000","qty":"1.00000000","commission":"3.99700000","commissionAsset":"USDT","tradeId":59},
{"price":"3995.00000000","qty":"1.00000000","commission":"3.99500000","commissionAsset":"USDT","tradeId":60}]}'''
QUERY = b'''{"symbol":"LTCBTC","orderId":1,"orderListId":-1,"clientOrderId":"myOrder1","price":"0.1","origQty":"1.0","executedQty":"0.0","cummulativeQuoteQty":"0.0","status":"NEW","timeInForce":"GTC",
"type":"LIMIT","side":"BUY","stopPrice":"0.0","icebergQty":"0.0","time":1499827319559,"updateTime":1499827319559,"isWorking":true,"origQuoteOrderQty":"0.000000","workingTime":1507725176595,"selfTradePreventionMode":"NONE"}'''
CANCEL = b'''{"symbol":"LTCBTC","origClientOrderId":"myOrder1","orderId":4,"orderListId":-1,"clientOrderId":"cancelMyOrder1","price":"2.00000000","origQty":"1.00000000","executedQty":"0.00000000",
"cummulativeQuoteQty":"0.00000000","status":"CANCELED","timeInForce":"GTC","type":"LIMIT","side":"BUY","selfTradePreventionMode":"NONE"}'''
MY_TRADE = b'''[{"symbol":"BNBBTC","id":28457,"orderId":100234,"orderListId":-1,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012","commission":"10.10000000","commissionAsset":"BNB",
"time":1499865549590,"isBuyer":true,"isMaker":false,"isBestMatch":true}]'''
EXECUTION = b'''{"e":"executionReport","E":1499405658658,"s":"ETHBTC","c":"mUvoqJxFIILMdfAW5iGSOW","S":"BUY","o":"LIMIT","f":"GTC","q":"1.00000000","p":"0.10264410","P":"0.00000000","F":"0.00000000","g":-1,"C":"",
"x":"NEW","X":"NEW","r":"NONE","i":4293153,"l":"0.00000000","z":"0.00000000","L":"0.00000000","n":"0","N":null,"T":1499405658657,"t":-1,"I":8641984,"w":true,"m":false,"M":false,"O":1499405658657,"Z":"0.00000000",
"Y":"0.00000000","Q":"0.00000000"}'''


def test_documented_orders() -> None:
    full = report(read(FULL, Row), NAMES)
    assert (full.symbol, full.filled, full.qty, len(full.fills)) == ('BTC-USDT', 10, 10, 5)
    assert sum(f.qty for f in full.fills) == 10 and full.fills[1].fee == D('19.995') and full.fills[0].fill_id == 'BTC-USDT:56' and full.fills[0].side is Side.SELL
    query = order(report(read(QUERY, Row), NAMES))
    assert (query.symbol, query.intent.limit, query.intent.stop, query.state, query.client_id) == ('LTC-BTC', D('0.1'), None, OrderState.ACCEPTED, 'myOrder1')
    cancel = report(read(CANCEL, Row), NAMES)
    assert (cancel.client_id, cancel.status) == ('myOrder1', 'CANCELED')
    [mine] = read(MY_TRADE, list[Mine])
    fill = my_fill(mine, 'g', NAMES)
    assert (fill.symbol, fill.qty, fill.price, fill.fee, fill.fee_currency, fill.ts) == ('BNB-BTC', 12, D('4.000001'), D('10.1'), 'BNB', 1499865549590 * 10 ** 6)
    new = execution(read(EXECUTION, Execution), NAMES)
    assert (new.symbol, new.limit, new.fills, new.venue_id, new.ts) == ('ETH-BTC', D('0.1026441'), (), '4293153', 1499405658657 * 10 ** 6)


def test_what_is_no_answer_is_named() -> None:
    for body in (b'', b'<html>', b'{"symbol": 1}', b'[]', FULL[:200], b'\xff\xfe'):
        with pytest.raises(Retry, match='not understood'): read(body, Row)
    with pytest.raises(Retry): read(b'{"lastUpdateId": 1, "bids": [["x", "1"]], "asks": []}', Ladder)


def test_filters_of_every_kind() -> None:
    filters = [{'filterType': 'PRICE_FILTER', 'minPrice': '0.00000100', 'maxPrice': '100000.00000000', 'tickSize': '0.00000100'}, {'filterType': 'LOT_SIZE', 'minQty': '0.00100000', 'maxQty': '100000.00000000', 'stepSize': '0.00100000'},
               {'filterType': 'PERCENT_PRICE', 'multiplierUp': '1.3000', 'multiplierDown': '0.7000', 'avgPriceMins': 5}, {'filterType': 'NEW_ONE', 'x': [1, {'y': None}]}, {'filterType': 'ICEBERG_PARTS', 'limit': 10}]
    row = {'symbol': 'ETHBTC', 'status': 'TRADING', 'baseAsset': 'ETH', 'quoteAsset': 'BTC', 'filters': filters, 'somethingNew': True}
    found = market(read(msgspec.json.encode({'symbols': [row]}), ExchangeInfo).symbols[0])
    assert (found.instrument.tick, found.instrument.lot, found.least, found.highest) == (D('0.000001'), D('0.001'), D('0.001'), 100_000)
    for status in ('PRE_TRADING', 'POST_TRADING', 'END_OF_DAY', 'HALT', 'AUCTION_MATCH', 'BREAK'): assert not market(msgspec.convert({**row, 'status': status}, Listed)).instrument.tradable


amounts = st.decimals(min_value='1e-8', max_value='1e9', allow_nan=False, allow_infinity=False, places=8).filter(lambda x: x > 0)


@given(amounts, st.integers(-6, 6))
def test_amounts_leave_as_they_are(x: Decimal, shift: int) -> None:
    "Plain digits, the same amount, in whatever form the Decimal was."
    for form in (x, x.normalize(), x.scaleb(shift).scaleb(-shift)):
        said = text(form)
        assert Decimal(said) == x and 'E' not in said and not (('.' in said) and said.endswith('0'))
        assert bare(form) == x


@given(st.sampled_from(list(OrderType)[:2] + [OrderType.STOP_LIMIT]), amounts, amounts)
def test_parameters_of_an_order(kind: OrderType, qty: Decimal, price: Decimal) -> None:
    i = Intent('BTC-USDT', Side.SELL, qty, kind, limit=None if kind is OrderType.MARKET else price, stop=price if kind is OrderType.STOP_LIMIT else None)
    p = order_params(i, 'BTCUSDT')
    assert Decimal(p['quantity']) == qty and ('price' in p) == ('timeInForce' in p) == (kind is not OrderType.MARKET) and all(isinstance(v, str) for v in p.values())


@given(st.integers(0, 10 ** 12), st.from_regex(r'[A-Z0-9]{2,8}-[A-Z]{3,5}', fullmatch=True))
def test_fill_names_are_reversible(n: int, symbol: str) -> None:
    assert fill_place(fill_id(symbol, n)) == (symbol, n)


@given(st.integers(0, 500), st.integers(0, 999))
def test_leg_names_are_reversible(seq: int, leg: int) -> None:
    name = client_id('a', 'b', seq)
    assert split_name(leg_name(name, leg)) == (name, leg) and len(leg_name(name, leg)) <= 36


def test_a_coin_is_in_one_symbol_only() -> None:
    traded = [m.instrument for m in NAMES.by_name.values()]
    assert homes(traded) == {'LTC': 'LTC-BTC', 'BTC': 'BTC-USDT', 'BNB': 'BNB-BTC', 'ETH': 'ETH-BTC'}


@given(st.binary(max_size=200))
def test_no_frame_breaks_the_decoder(junk: bytes) -> None:
    decoder = Decoder(NAMES.name)
    for frame in (junk, b'{"stream":"btcusdt@trade","data":' + junk, b'{"stream":"btcusdt@' + junk):
        try: decoder.decode(frame, 0)
        except BadInput: pass


# --- the roll

ME = client_id('test', 'roll', 1)
PARTS = (D(1), D('0.5'), D('1.5'))


def _reports(end: str) -> list[Report]:
    "An order of 3 (or of 4 that is cancelled with 3 filled), filled in three parts, as stream, answers and look-ups may tell it."
    qty, out, filled = D(3) if end == 'FILLED' else D(4), [], D(0)
    def r(status: str, cum: Decimal, *fills: Fill) -> Report: return Report('BTC-USDT', ME, '7', status, Side.BUY, 'LIMIT', 'GTC', qty, D(100), None, cum, D(0), 5, fills)
    out.append(r('NEW', D(0)))
    for n, part in enumerate(PARTS):
        filled += part
        fill = Fill(f'BTC-USDT:{n + 1}', ME, 'BTC-USDT', Side.BUY, part, D(100 - n), ts=n)
        out += [r('FILLED' if filled == qty else 'PARTIALLY_FILLED', filled, fill), r('PARTIALLY_FILLED' if filled < qty else 'FILLED', filled)]
    return out if end == 'FILLED' else [*out, r('CANCELED', D(3))]


def _expected(end: str) -> list[type]: return [Accepted, Filled, Filled, Filled] + ([Cancelled] if end == 'CANCELED' else [])


@given(st.data(), st.sampled_from(['FILLED', 'CANCELED']), st.booleans())
def test_each_thing_is_said_once_whatever_the_order(data: st.DataObject, end: str, mended: bool) -> None:
    "Reports shuffled, doubled and dropped; where fills are missing the trades are fetched. The words are always the same, and so is the order they make."
    reports = _reports(end)
    fills = [f for r in reports for f in r.fills]
    told = data.draw(st.permutations(reports * 2))
    told = told[data.draw(st.integers(0, len(told) - 1)):] + [reports[-1]]
    said: list[OrderEvent] = []
    roll = Roll(said.append)
    roll.expect(Order(ME, Intent('BTC-USDT', Side.BUY, reports[0].qty, OrderType.LIMIT, limit=D(100))))
    for r in told:
        if take_in(roll, r) and mended: add_trades(roll, ME, fills)
    if (known := roll.get(ME)) is not None and known.missing: add_trades(roll, ME, fills)
    assert [type(e) for e in said] == _expected(end)
    assert [e.fill.fill_id for e in said if isinstance(e, Filled)] == ['BTC-USDT:1', 'BTC-USDT:2', 'BTC-USDT:3']
    after = Order(ME, Intent('BTC-USDT', Side.BUY, reports[0].qty, OrderType.LIMIT, limit=D(100)))
    for e in said: after = apply(after, e)
    assert after.filled == 3 and not after.conflict and after.state is (OrderState.FILLED if end == 'FILLED' else OrderState.CANCELLED)
    assert not roll.open()
