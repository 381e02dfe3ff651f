"""OANDA's documented answers read exactly, its requests written exactly, its log understood in whatever pieces it comes, and its lines decoded whatever they hold."""
from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, GekkoError, Retry
from gekko.domain.order import Intent, Order, OrderEvent, OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import SECOND
from gekko.venue.oanda.answers import Did, ListedAll, Log, Txn, WholeAccount, did, fill_of, instrument, net, read, refusal, stamp
from gekko.venue.oanda.money import cash_of, of_fill
from gekko.venue.oanda.rest import Asks, moment, plainly, specification
from gekko.venue.oanda.roll import Roll, Tape
from gekko.venue.oanda.stream import OandaDialect
from gekko.venue.oanda.table import CANCELS, ERRORS, REFUSALS, REPLACED, rules, worded
from gekko.venue.sandbox.oanda_words import REASONS
from gekko.venue.wire.secret import Address, Credentials, Secret
from gekko.venue.wire.sorting import Reaction

D = Decimal
NAME = 'g' + 'a' * 19
AT = Address('http://127.0.0.1:1', 'http://127.0.0.1:2')
amounts = st.decimals(min_value=D('1e-9'), max_value=D('1e12'), allow_nan=False, allow_infinity=False, places=9).filter(lambda x: x > 0)


# --- what goes out

@given(amounts, st.sampled_from(list(Side)), st.sampled_from(list(TimeInForce)))
def test_amounts_leave_as_they_are(x: Decimal, side: Side, tif: TimeInForce) -> None:
    said = specification(NAME, Intent('EUR-USD', side, x, OrderType.LIMIT, limit=x, tif=tif, expires=1_500_000_000 if tif is TimeInForce.GTD else 0))
    assert D(said['units']) == x * side.sign and D(said['price']) == x and 'E' not in plainly(x).upper()
    assert said['timeInForce'] == {'gtc': 'GTC', 'day': 'GFD', 'ioc': 'IOC', 'fok': 'FOK', 'gtd': 'GTD'}[tif.value] and said.get('gtdTime') == ('1.500000000' if tif is TimeInForce.GTD else None) and said['clientExtensions'] == {'id': NAME}


def test_the_token_is_a_header_and_shows_nowhere_else() -> None:
    token = '-'.join(('0123456789abcdef' * 2, 'fedcba9876543210' * 2))
    asks = Asks(Credentials('101-001-1000001-001', Secret(token)))
    ask = asks.submit(specification(NAME, Intent('EUR-USD', Side.BUY, D(100))))(AT)
    assert ask.headers['Authorization'] == f'Bearer {token}' and ask.headers['Accept-Datetime-Format'] == 'UNIX'
    assert token not in repr(ask) + ask.url + ask.body.decode() + repr(asks)
    assert json.loads(ask.body) == {'order': {'type': 'MARKET', 'instrument': 'EUR_USD', 'units': '100', 'timeInForce': 'IOC', 'positionFill': 'REDUCE_FIRST', 'clientExtensions': {'id': NAME}}}


@given(st.integers(0, 4_000_000_000 * SECOND))
def test_instants_come_back_as_they_went(ts: int) -> None: assert stamp(moment(ts)) == ts


# --- what the documents show

def test_documented_instrument_and_its_refusals() -> None:
    [x] = read(ListedAll, b'''{"instruments": [{"displayName": "Gold/Silver", "displayPrecision": 3, "marginRate": "0.02", "maximumOrderUnits": "100000", "maximumPositionSize": "0", "maximumTrailingStopDistance": "100.000",
        "minimumTradeSize": "0.1", "minimumTrailingStopDistance": "0.050", "name": "XAU_XAG", "pipLocation": -2, "tradeUnitsPrecision": 1, "type": "METAL"}], "lastTransactionID": "6356"}''').instruments
    i = instrument(x)
    assert (i.symbol, i.kind, i.tick, i.lot, i.calendar) == ('XAU-XAG', 'commodity', D('0.001'), D('0.1'), 'FX')
    def no(qty: str, limit: str) -> str: return refusal(x, Intent('XAU-XAG', Side.BUY, D(qty), OrderType.LIMIT, D(limit)))
    assert no('0.1', '80.123') == '' and 'precision: size' in no('0.15', '80') and 'precision: limit' in no('1', '80.1234') and 'above' in no('100000.1', '80')


def test_documented_account() -> None:
    a = read(WholeAccount, b'''{"account": {"NAV": "43650.78835", "alias": "My New Account #2", "balance": "43650.78835", "createdByUserID": 123456, "createdTime": "2015-08-12T18:21:00.697504698Z", "currency": "CHF", "financing": "-1.5",
        "hedgingEnabled": true, "id": "101-001-1-001", "lastTransactionID": "6356", "marginAvailable": "43650.78835", "marginCloseoutPercent": "0.00000", "marginRate": "0.02", "marginUsed": "0.00000", "openPositionCount": 0,
        "orders": [{"createTime": "2015-08-12T18:21:00Z", "id": "12", "tradeID": "9", "type": "STOP_LOSS", "price": "1.1", "state": "PENDING", "timeInForce": "GTC"}], "pl": "-56034.41199", "positions": [],
        "trades": [{"currentUnits": "-600", "financing": "0.00000", "id": "6397", "initialUnits": "-600", "instrument": "USD_CAD", "openTime": "2015-08-12T18:21:00Z", "price": "1.30241", "realizedPL": "0.00000", "state": "OPEN", "unrealizedPL": "-0.08525"},
                   {"currentUnits": "100", "id": "6401", "instrument": "EUR_CHF", "price": "1.07", "state": "OPEN"}], "unrealizedPL": "0.00000"}, "lastTransactionID": "6356"}''').account
    assert net(a.trades) == {'USD-CAD': -600, 'EUR-CHF': 100} and a.hedgingEnabled
    assert cash_of(a) == {'CHF': D('43650.78835') - 107, 'CAD': D('781.44600')}


def test_documented_fill() -> None:
    said = read(Did, b'''{"lastTransactionID": "6368", "orderCreateTransaction": {"accountID": "1", "batchID": "6367", "id": "6367", "instrument": "EUR_USD", "positionFill": "DEFAULT", "reason": "CLIENT_ORDER", "time": "2016-06-22T18:41:48.258142231Z",
        "timeInForce": "FOK", "type": "MARKET_ORDER", "units": "100", "userID": 1}, "orderFillTransaction": {"accountBalance": "100000", "accountID": "1", "batchID": "6367", "financing": "0", "id": "6368", "instrument": "EUR_USD", "orderID": "6367",
        "pl": "0.25", "price": "1.13027", "reason": "MARKET_ORDER", "time": "2016-06-22T18:41:48.258142231Z", "tradeOpened": {"tradeID": "6368", "units": "100"}, "type": "ORDER_FILL", "units": "100", "userID": 1, "commission": "0.50", "guaranteedExecutionFee": "0.10"},
        "relatedTransactionIDs": ["6367", "6368"]}''')
    create, fill = said.made
    assert (create.type, fill.n, fill.ts) == ('MARKET_ORDER', 6368, 1466620908258142231)
    f = fill_of(fill, NAME, 'USD')
    assert (f.fill_id, f.signed, f.price, f.fee, f.fee_currency) == ('6368', 100, D('1.13027'), D('0.60'), 'USD')
    assert [x.amount for x in of_fill(fill, 'USD', {})] == [D('0.25')]


@pytest.mark.parametrize('body', [b'', b'<html>', b'{', b'[]', b'null', b'{"transactions": 5}', b'{"transactions": [{"id": 7, "type": "X"}]}', b'{"transactions": [{"type": "ORDER_FILL", "id": "1", "units": "many"}]}', b'\xff\xfe'])
def test_what_is_no_answer_is_never_half_understood(body: bytes) -> None:
    with pytest.raises(Retry): read(Log, body)
    assert did(body).made == []


# --- the table

def test_every_reason_of_the_sandbox_and_the_documents_is_sorted() -> None:
    assert [c for c in REASONS if c not in ERRORS and c not in CANCELS] == []
    assert len({r.code for r in rules()}) == len(rules()) > 140
    for r in rules(): assert ERRORS.sort(400, r.code, '').reaction is r.reaction
    assert not set(CANCELS) & set(REFUSALS) and not REPLACED & (set(CANCELS) | set(REFUSALS))
    assert {r.code for r in rules() if r.reaction is Reaction.UNKNOWN} == {'500', '502', '504'}
    assert worded('MARKET_HALTED').startswith('MARKET_HALTED: ')


# --- the log

def story(chance: random.Random) -> list[Txn]:
    "A log as the venue could write it: orders that fill, in parts too, are changed, end, or are refused; and what is none of our business."
    out: list[Txn] = []
    def add(kind: str, batch: str = '', **more: Any) -> Txn:
        n = str(len(out) + 1)
        t = msgspec.convert({'type': kind, 'id': n, 'batchID': batch or n, 'time': n, **{k: v for k, v in more.items() if v is not None}}, Txn, strict=False)
        out.append(t)
        return t
    for k in range(chance.randint(1, 5)):
        name, size = 'g' + 'abcdefgh'[k] * 19, chance.randint(2, 50)
        kind = chance.choice(['MARKET', 'LIMIT'])
        if chance.random() < 0.2: add(f'{kind}_ORDER_REJECT', rejectReason='UNITS_INVALID', clientExtensions={'id': name}); continue
        def order(units: int, kind: str = kind, name: str = name, **more: Any) -> Txn: return add(f'{kind}_ORDER', instrument='EUR_USD', units=str(units), price='1.1' if kind == 'LIMIT' else None, timeInForce='GTC' if kind == 'LIMIT' else 'IOC', clientExtensions={'id': name}, **more)
        o, left = order(size), size
        while left:
            if chance.random() < 0.3: add('DAILY_FINANCING', financing='-0.1')
            what = chance.choice(['all', 'part', 'change', 'end'] if kind == 'LIMIT' else ['all', 'part', 'halt'])
            part = left if what == 'all' or left < 2 else chance.randint(1, left - 1)
            if what in ('all', 'part'):
                f = add('ORDER_FILL', None if kind == 'LIMIT' else o.batchID, orderID=o.id, clientOrderID=name, instrument='EUR_USD', units=str(part), price='1.1')
                left -= part
                if left and kind == 'LIMIT' and chance.random() < 0.8: o = order(left, batch=f.batchID, replacesOrderID=o.id)
                elif left: break
            elif what == 'change':
                c = add('ORDER_CANCEL', orderID=o.id, reason='CLIENT_REQUEST_REPLACED')
                left = left + chance.randint(0, 9)
                o = order(left, batch=c.batchID, replacesOrderID=o.id)
            else: add('ORDER_CANCEL', o.batchID if what == 'halt' else '', orderID=o.id, reason='MARKET_HALTED' if what == 'halt' else 'CLIENT_REQUEST'); break
    return out


def heard(pieces: list[list[Txn]], last: int, names: list[str]) -> list[OrderEvent]:
    said: list[OrderEvent] = []
    roll = Roll(said.append, lambda: 'USD')
    for n in names: roll.expect(Order(n, Intent('EUR-USD', Side.BUY, D(1000))))          # those that were refused: of the others the log tells enough
    tape = Tape(roll.read)
    for p in pieces: tape.take(p)
    assert not tape.missing and tape.last == last
    roll.caught_up()
    return said


@given(st.integers(0, 100_000))
def test_a_log_says_the_same_in_whatever_pieces_it_comes(seed: int) -> None:
    "Shuffled, doubled, from two sides at once: the events are those of the log read in its order, each once."
    chance = random.Random(seed)
    log = story(chance)
    names = sorted({t.name for t in log if t.rejectReason})
    straight = heard([log], len(log), names)
    pieces = [[t] for t in log] + [chance.sample(log, chance.randint(0, len(log))) for _ in range(3)]
    chance.shuffle(pieces)
    assert heard(pieces, len(log), names) == straight
    fills = [e.fill.fill_id for e in straight if hasattr(e, 'fill')]
    assert fills == [t.id for t in log if t.type == 'ORDER_FILL']


@given(st.integers(0, 100_000))
def test_every_story_ends_in_one_state_and_counts_every_unit(seed: int) -> None:
    log = story(random.Random(seed))
    roll = Roll(lambda e: None, lambda: 'USD')
    for t in log: roll.read(t)
    roll.caught_up()
    for name in {t.name for t in log if t.type.endswith('_ORDER')}:
        known = roll.get(name)
        assert known is not None and not known.order.conflict
        assert known.order.filled == sum((t.units for t in log if t.type == 'ORDER_FILL' and t.clientOrderID == name), D(0))
        assert known.ended == known.order.state.terminal and known.order.state is not OrderState.UNKNOWN


# --- lines

async def _nobody(names: Any) -> Any: raise Retry('nobody')
DIALECT = OandaDialect(_nobody, _nobody, dict, lambda: 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(frame: bytes) -> None:
    try: DIALECT.decode(frame, 0)
    except GekkoError as e: assert isinstance(e, (BadInput, Retry))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(['type', 'time', 'instrument', 'bids', 'asks', 'price', 'liquidity', 'tradeable', 'errorMessage']), x, max_size=5), max_leaves=12))
def test_any_json_is_a_price_a_beat_or_refused(said: Any) -> None:
    try: DIALECT.decode(json.dumps(said).encode(), 0)
    except GekkoError as e: assert isinstance(e, (BadInput, Retry))


@given(amounts, amounts)
def test_prices_are_read_exactly(bid: Decimal, size: Decimal) -> None:
    line = {'type': 'PRICE', 'time': '1700000000.000000001', 'instrument': 'EUR_USD', 'tradeable': True, 'bids': [{'price': plainly(bid), 'liquidity': plainly(size)}], 'asks': [{'price': plainly(bid + 1), 'liquidity': 5}]}
    [q] = DIALECT.decode(json.dumps(line).encode(), 7).events
    assert (q.symbol, q.bid, q.ask, q.bid_size, q.ask_size, q.ts, q.received) == ('EUR-USD', bid, bid + 1, size, 5, 1_700_000_000_000_000_001, 7)
