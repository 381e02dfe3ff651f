"""Coinbase's documented answers read exactly, its requests written exactly, and its frames decoded whatever comes."""
from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from gekko.data.dialect import BookChange, Subscription
from gekko.domain.errors import BadInput, Retry
from gekko.domain.market import Level, Quote, Trade
from gekko.domain.money import EXACT, ZERO
from gekko.domain.order import Accepted, Fill, Filled, Intent, Order, OrderState, OrderType, Side, TimeInForce, apply
from gekko.domain.time import SECOND, iso, utc
from gekko.venue.coinbase.answers import Accounts, Deals, Product, Products, Records, by_time, cash_of, fill_of, instrument, intent_of, order_of, positions_of, read, stamp
from gekko.venue.coinbase.rest import LIFE_S, Call, Signer, accounts, configuration, edit, orders, plainly, submit
from gekko.venue.coinbase.roll import Roll, Said, own, said_in
from gekko.venue.coinbase.stream import CoinbaseDialect, Reach
from gekko.venue.coinbase.table import ERRORS, rules, said_limits
from gekko.venue.wire.secret import Address, Credentials, Secret
from gekko.venue.wire.sorting import Reaction

D = Decimal
NAME = 'g' + 'a' * 19
KEY = generate_private_key(SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
amounts = st.decimals(min_value=D('1e-12'), max_value=D('1e12'), allow_nan=False, allow_infinity=False, places=12).filter(lambda x: x > 0)


DATE = utc('2026-03-04T12:00:30.5Z')


# --- what goes out

@given(amounts)
def test_amounts_leave_as_they_are(x: Decimal) -> None:
    said = plainly(x)
    assert D(said) == x and 'E' not in said.upper()
    for tif in TimeInForce:
        [(kind, terms)] = configuration(Intent('BTC-USD', Side.BUY, x, OrderType.LIMIT, limit=x, tif=tif, expires=DATE if tif is TimeInForce.GTD else 0), utc('2026-03-04T12:00:00Z')).items()
        assert D(terms['base_size']) == D(terms['limit_price']) == x
        assert ('end_time' in terms) == kind.endswith('gtd') == (tif in (TimeInForce.DAY, TimeInForce.GTD))
        if tif is TimeInForce.GTD: assert terms['end_time'] == '2026-03-04T12:00:30.5Z'


@pytest.mark.parametrize(('now', 'ends'), [('2026-03-04T23:59:59.999Z', '2026-03-05T00:00:00Z'), ('2026-03-04T00:00:00Z', '2026-03-05T00:00:00Z'), ('2026-12-31T12:00:00Z', '2027-01-01T00:00:00Z')])
def test_a_day_ends_at_the_venues_midnight(now: str, ends: str) -> None:
    [terms] = configuration(Intent('BTC-USD', Side.SELL, D(1), OrderType.STOP_LIMIT, limit=D(1), stop=D(2), tif=TimeInForce.DAY), utc(now)).values()
    assert terms['end_time'] == ends and terms['stop_direction'] == 'STOP_DIRECTION_STOP_DOWN'


def signer(at: int = 1_772_625_600, secret: str = PEM) -> Signer: return Signer(Credentials('main', Secret('organizations/1/apiKeys/2'), Secret(secret)), lambda: at)
def claims(token: str) -> dict[str, Any]: return jwt.decode(token, KEY.public_key(), ['ES256'], {'verify_exp': False, 'verify_nbf': False})


@pytest.mark.parametrize(('rest', 'host'), [('https://api.coinbase.com', 'api.coinbase.com'), ('http://127.0.0.1:8123', '127.0.0.1:8123'), ('https://backup.example:444/', 'backup.example:444')])
@pytest.mark.parametrize('call', [accounts('a b&c'), submit(NAME, Intent('BTC-USD', Side.BUY, D(1)), 0), orders(status='OPEN')], ids=lambda c: c.method + c.path)
def test_a_token_names_the_host_that_is_asked_and_the_path_without_its_query(rest: str, host: str, call: Call) -> None:
    ask = signer().make(call)(Address(rest))
    said = claims(ask.headers['Authorization'].removeprefix('Bearer '))
    assert said['uri'] == f'{call.method} {host}/api/v3/{call.path}' and ask.url.startswith(f'{rest.rstrip("/")}/api/v3/{call.path}')
    assert said['sub'] == 'organizations/1/apiKeys/2' and 0 < said['exp'] - said['nbf'] <= 120
    assert json.loads(ask.body) == dict(call.params) if call.method == 'POST' else ask.body == b''


def test_every_token_is_fresh_and_a_submits_lives_shorter() -> None:
    s = signer()
    tokens = [s.make(accounts())(Address('https://x.test')).headers['Authorization'] for _ in range(5)] + [s.token() for _ in range(5)]
    assert len(set(tokens)) == 10
    assert 'uri' not in claims(s.token())
    made = s.make(accounts(), 9)
    assert claims(made(Address('https://x.test')).headers['Authorization'][7:])['exp'] == 1_772_625_600 + 9
    assert claims(s.token())['exp'] == 1_772_625_600 + LIFE_S and claims(made(Address('https://x.test')).headers['Authorization'][7:])['exp'] == 1_772_625_600 + 9


@pytest.mark.parametrize('secret', ['', 'nonsense', '-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----', 'A' * 40])
def test_what_is_no_key_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(BadInput) as e: signer(secret=secret)
    assert not secret or secret not in str(e.value)


def test_a_pem_from_an_environment_variable_works() -> None:
    assert claims(signer(secret=PEM.replace('\n', '\\n')).token())['iss'] == 'cdp'


# --- what comes in

PRODUCT = {'product_id': 'BTC-USD', 'base_currency_id': 'BTC', 'quote_currency_id': 'USD', 'base_increment': '0.00000001', 'quote_increment': '0.01', 'price_increment': '0.01', 'base_min_size': '0.00000001', 'base_max_size': '3400',
           'quote_min_size': '1', 'status': 'online', 'trading_disabled': False, 'unknown_field': {'x': [1, None]}}


def test_numbers_are_exact_whether_text_or_number() -> None:
    for increment in ('"0.00000001"', '0.00000001', '1e-8'):
        said = json.dumps({'products': [PRODUCT]}).replace('"base_increment": "0.00000001"', f'"base_increment": {increment}')
        assert instrument(read(Products, said.encode()).products[0]).lot == D('1E-8')
    assert read(Accounts, b'{"accounts": [{"currency": "USD", "available_balance": {"value": "0.1"}, "hold": {"value": "0.2"}}]}').accounts[0].total == D('0.3')


@pytest.mark.parametrize('body', [b'', b'<html></html>', b'{"products": 3}', b'{"products": [{}]}', b'{"products": [{"product_id": "BTC-USD"', b'[]', b'null', b'\xff\xfe', json.dumps({'products': [PRODUCT | {'base_increment': 'many'}]}).encode()])
def test_an_answer_that_is_not_the_documents_is_not_acted_on(body: bytes) -> None:
    with pytest.raises(Retry, match='something else'): read(Products, body)


def record(**kw: Any) -> dict[str, Any]:
    return {'order_id': '1', 'product_id': 'BTC-USD', 'side': 'BUY', 'status': 'OPEN', 'client_order_id': NAME, 'filled_size': '0', 'order_configuration': {'limit_limit_gtc': {'base_size': '0.5', 'limit_price': '100'}}} | kw


@pytest.mark.parametrize('intent', [Intent('BTC-USD', side, D('0.5'), type, limit=None if type is OrderType.MARKET else D('99.5'), stop=D(98) if type is OrderType.STOP_LIMIT else None, tif=tif, expires=DATE if tif is TimeInForce.GTD else 0)
                                    for side in Side for type in (OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT) for tif in TimeInForce if not (type is OrderType.STOP_LIMIT and tif in (TimeInForce.IOC, TimeInForce.FOK))], ids=str)
def test_what_we_send_is_read_back_as_we_meant_it(intent: Intent) -> None:
    row = record(side=intent.side.value.upper(), order_configuration=configuration(intent, utc('2026-03-04T12:00:00Z')))
    back = intent_of(read(Records, json.dumps({'orders': [row]}).encode()).orders[0])
    assert back is not None and (back.side, back.qty, back.type, back.limit, back.stop) == (intent.side, intent.qty, intent.type, intent.limit, intent.stop)
    assert back.tif is (TimeInForce.IOC if intent.type is OrderType.MARKET else intent.tif) and back.expires == (0 if intent.type is OrderType.MARKET else intent.expires)


@pytest.mark.parametrize('row', [record(order_configuration=None), record(order_configuration={}), record(order_configuration={'market_market_ioc': {'quote_size': '100'}}), record(order_configuration={'twap_limit_gtd': {'quote_size': '100', 'limit_price': '1'}}), record(side='UNKNOWN_ORDER_SIDE')])
def test_an_order_that_cannot_be_said_in_our_words_is_left_out(row: dict[str, Any]) -> None:
    assert order_of(read(Records, json.dumps({'orders': [row]}).encode()).orders[0]) is None


@pytest.mark.parametrize(('status', 'filled', 'state'), [('PENDING', '0', 'ACCEPTED'), ('QUEUED', '', 'ACCEPTED'), ('OPEN', '0.1', 'PARTLY_FILLED'), ('CANCEL_QUEUED', '0.1', 'PARTLY_FILLED'), ('FILLED', '0.5', 'FILLED'),
                                                         ('CANCELLED', '0.1', 'CANCELLED'), ('EXPIRED', '0', 'EXPIRED'), ('FAILED', '0', 'REJECTED'), ('FAILED', '0.1', 'CANCELLED'), ('UNKNOWN_ORDER_STATUS', '0', 'UNKNOWN'), ('TOMORROWS', '0', 'UNKNOWN')])
def test_states(status: str, filled: str, state: str) -> None:
    o = order_of(read(Records, json.dumps({'orders': [record(status=status, filled_size=filled)]}).encode()).orders[0])
    assert o is not None and o.state is OrderState[state]


def test_balances_of_two_wallets_of_one_coin_add_up() -> None:
    rows = [{'currency': c, 'available_balance': {'value': v}, 'type': t} for c, v, t in (('BTC', '1', 'ACCOUNT_TYPE_CRYPTO'), ('BTC', '0.5', 'ACCOUNT_TYPE_CRYPTO'), ('USDC', '7', 'ACCOUNT_TYPE_CRYPTO'), ('EUR', '3', 'ACCOUNT_TYPE_FIAT'), ('ETH', '0', 'ACCOUNT_TYPE_CRYPTO'))]
    got = read(Accounts, json.dumps({'accounts': rows}).encode()).accounts
    p = read(Products, json.dumps({'products': [PRODUCT]}).encode()).products[0]
    assert cash_of(got) == {'USDC': D(7), 'EUR': D(3)} and positions_of(got, {'BTC-USD': p}) == {'BTC-USD': D('1.5')}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1200)), unique_by=lambda x: x[1], max_size=12), st.randoms())
def test_deals_are_ordered_by_time_and_number_however_they_come(rows: list[tuple[int, int]], random: Any) -> None:
    deals = [{'order_id': 'o', 'product_id': 'BTC-USD', 'side': 'BUY', 'price': '1', 'size': '1', 'trade_time': iso((1_700_000_000 + s) * SECOND), 'trade_id': str(n), 'entry_id': f'e{n}'} for s, n in rows]
    listed = deals + random.sample(deals, len(deals) // 2)
    random.shuffle(listed)
    assert [d.trade_id for d in by_time(read(Deals, json.dumps({'fills': listed}).encode()).fills)] == [str(n) for _, n in sorted(rows)]


def test_a_deal_in_quote_size_becomes_a_base_size_on_the_grid() -> None:
    [d] = read(Deals, b'{"fills": [{"entry_id": "e", "order_id": "o", "product_id": "BTC-USD", "side": "SELL", "price": "30000", "size": "100", "size_in_quote": true, "commission": "0.1", "trade_time": "2024-01-15T10:30:00Z"}]}').fills
    assert fill_of(d, NAME, D('1e-8')).qty == D('0.00333333')


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_instants_are_exact(s: int, ns: int) -> None:
    at = s * SECOND + ns
    assert stamp(iso(at)) == at
    assert stamp(iso(s * SECOND)[:-1] + f'.{ns:09d}Z') == at


@pytest.mark.parametrize('x', ['NaN', 'Infinity', '-Infinity'])
def test_what_is_no_number_is_refused(x: str) -> None:
    with pytest.raises(BadInput): cash_of(read(Accounts, f'{{"accounts": [{{"currency": "USD", "available_balance": {{"value": "{x}"}}}}]}}'.encode()).accounts)
    for field in ('price', 'size'):
        deal = {'order_id': 'o', 'product_id': 'BTC-USD', 'side': 'BUY', 'price': '1', 'size': '1', 'trade_time': ''} | {field: x}
        with pytest.raises(BadInput): fill_of(read(Deals, json.dumps({'fills': [deal]}).encode()).fills[0], NAME, D('1e-8'))
    with pytest.raises(BadInput): instrument(read(Products, json.dumps({'products': [PRODUCT | {'base_increment': x}]}).encode()).products[0])


@pytest.mark.parametrize('when', ['2026-04-07T14:30:ab.1Z', 'yesterday', '2026-13-07T14:30:00.1Z'])
def test_a_time_that_is_none_is_not_understood(when: str) -> None:
    frame = told({'channel': 'market_trades', 'sequence_num': 0, 'events': [{'type': 'update', 'trades': [{'trade_id': '1', 'product_id': 'BTC-USD', 'price': '1', 'size': '1', 'side': 'BUY', 'time': when}]}]})
    with pytest.raises(BadInput): dialect('trade').decode(frame, 0)


# --- the table

def test_each_code_has_one_reaction_and_what_nobody_knows_is_unknown_on_a_write() -> None:
    assert len({r.code for r in rules()}) == len(rules())
    for kind in ('submit', 'cancel'): assert ERRORS.sort(200, 'A_CODE_OF_TOMORROW', '', kind).reaction is Reaction.UNKNOWN
    assert {r.code for r in rules() if r.reaction is Reaction.HALT} >= {'401', 'PERMISSION_DENIED', 'IN_LIQUIDATION'}
    assert said_limits({'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '3'}, 200)[0].quota == 'public' and said_limits({'x-ratelimit-limit': 'x'}, 200) == []


def test_edits_name_price_and_size() -> None: assert edit('o', D('1.50'), D('1E-8')).params == {'order_id': 'o', 'price': '1.50', 'size': '0.00000001'}


# --- the roll: whatever the order of the news, the same life

@given(st.integers(1, 4), st.booleans(), st.randoms())
def test_news_in_any_order_make_the_same_life(parts: int, cancelled: bool, random: Any) -> None:
    fills = [Fill(f'e{i}', NAME, 'BTC-USD', Side.BUY, D(1), D(100 + i), D('0.1'), 'USD', 10 + i) for i in range(parts)]
    total = parts + cancelled
    news = [Said('v', NAME, 'OPEN', D(i)) for i in range(parts + 1)] + [Said('v', NAME, 'CANCELLED' if cancelled else 'FILLED', D(parts))]
    steps: list[Any] = [*news, *news, 'answer', 'answer', *([fills[:k] for k in range(1, parts + 1)])]
    random.shuffle(steps)
    out: list[Any] = []
    roll = Roll(out.append)
    order = Order(NAME, Intent('BTC-USD', Side.BUY, D(total), OrderType.LIMIT, limit=D(200)))
    roll.expect(order)
    for step in [*steps, news[-1], fills]:
        if step == 'answer': roll.accepted(NAME, 'v', 5)
        elif isinstance(step, Said): roll.heard(step, 5)
        else: roll.mend(NAME, random.sample(step, len(step)), 5)
    assert [type(e) for e in out].count(Accepted) == 1
    assert [e.fill.fill_id for e in out if isinstance(e, Filled)] == sorted({f.fill_id for f in fills})
    for e in out: order = apply(order, e)
    assert (order.state, order.filled, order.conflict) == (OrderState.CANCELLED if cancelled else OrderState.FILLED, D(parts), '')


# --- frames

def told(frame: dict[str, Any]) -> bytes: return json.dumps(frame).encode()


class Wire:
    def __init__(self) -> None: self.sent: list[str] = []
    async def receive(self) -> str: raise Retry('gone')
    async def send(self, frame: bytes | str) -> None: self.sent.append(str(frame))
    async def close(self) -> None: pass


def dialect(*kinds: str) -> CoinbaseDialect:
    async def dial() -> Any: return Wire()
    async def ask(call: Call) -> bytes: return b'{}'
    p = Product('BTC-USD', 'BTC', 'USD', D('1e-8'), D('0.01'), D('1e-8'))
    out = CoinbaseDialect(Reach(dial, ask, lambda: 't', lambda: {'BTC-USD': p}, lambda: 0))
    asyncio.run(out.dial([]))
    out.subscribe([Subscription('BTC-USD', k) for k in kinds])
    return out


levels = st.dictionaries(st.integers(1, 12).map(D), st.integers(1, 9).map(D), max_size=8)
changes = st.lists(st.tuples(st.sampled_from(['bid', 'offer']), st.integers(1, 24).map(D), st.integers(0, 9).map(D)), max_size=6)


@given(levels, levels, st.lists(changes, max_size=8))
def test_the_top_of_the_book_is_what_a_plain_book_says(bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal], moves: list[list[tuple[str, Decimal, Decimal]]]) -> None:
    "Against the simplest book there is: two dicts and max and min."
    d, book = dialect('quote', 'book'), {'bid': dict(bids), 'offer': {p + 12: q for p, q in asks.items()}}
    frames = [('snapshot', [(s, p, q) for s, side in book.items() for p, q in side.items()])] + [('update', m) for m in moves]
    last: Any = None
    for n, (kind, rows) in enumerate(frames):
        for side, p, q in rows:
            if q: book[side][p] = q
            else: book[side].pop(p, None)
        heard = d.decode(told({'channel': 'l2_data', 'timestamp': '2026-04-07T14:30:00.5Z', 'sequence_num': n, 'events': [{'type': kind, 'product_id': 'BTC-USD', 'updates': [{'side': s, 'price_level': str(p), 'new_quantity': str(q), 'event_time': ''} for s, p, q in rows]}]}), n)
        [change] = [e for e in heard.events if isinstance(e, BookChange)]
        assert (heard.channel, heard.seq, change.snapshot) == ('line', n + 1, kind == 'snapshot')
        assert sorted((x.price, x.qty) for x in change.bids) == sorted((p, q) for s, p, q in rows if s == 'bid') and all(isinstance(x, Level) for x in change.asks)
        quotes = [e for e in heard.events if isinstance(e, Quote)]
        now = (max(book['bid']), min(book['offer'])) if all(book.values()) else None
        if now is not None:
            now = (now[0], book['bid'][now[0]], now[1], book['offer'][now[1]])  # type: ignore[assignment]
            assert [(q.bid, q.bid_size, q.ask, q.ask_size) for q in quotes] == ([now] if now != last else [])
            last = now
        else: assert quotes == []


@given(st.lists(st.tuples(st.integers(1, 10**15), amounts, amounts, st.sampled_from(['BUY', 'SELL'])), unique_by=lambda x: x[0], max_size=6))
def test_prints_are_exact_and_oldest_first(rows: list[tuple[int, Decimal, Decimal, str]]) -> None:
    frame = told({'channel': 'market_trades', 'timestamp': '', 'sequence_num': 0, 'events': [{'type': 'update', 'trades': [{'trade_id': str(n), 'product_id': 'BTC-USD', 'price': str(p), 'size': str(q), 'side': s, 'time': '2026-04-07T14:30:02.789012Z'} for n, p, q, s in rows]}]})
    heard = dialect('trade').decode(frame, 9).events
    assert [(t.trade_id, t.price, t.qty, t.side) for t in heard if isinstance(t, Trade)] == [(str(n), p, q, {'BUY': 'sell', 'SELL': 'buy'}[s]) for n, p, q, s in sorted(rows)]


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(['channel', 'events', 'type', 'sequence_num', 'updates', 'trades', 'orders', 'subscriptions', 'x']), x, max_size=4), max_leaves=12).map(lambda x: json.dumps(x).encode()))
def test_whatever_comes_is_read_or_refused_and_nothing_else(frame: bytes) -> None:
    for read_frame in (lambda: dialect('quote', 'book', 'trade').decode(frame, 0), lambda: said_in(own(frame))):
        try: read_frame()
        except BadInput: pass


def test_money_never_meets_a_float() -> None:
    assert EXACT.add(ZERO, read(Accounts, b'{"accounts": [{"currency": "USD", "available_balance": {"value": 0.1}, "hold": {"value": 0.2}}]}').accounts[0].total) == D('0.3')
