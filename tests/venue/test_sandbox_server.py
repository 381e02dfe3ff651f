"""The sandbox's server over real sockets: a tiny venue of its own, and every fault of the plan really happening."""
import asyncio
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gekko.domain.errors import BadInput
from gekko.domain.order import OrderState, OrderType, Side
from gekko.venue.sandbox.exchange import Event, Exchange, Listing, OrderChanged, Print, SpotWallets, Ticket
from gekko.venue.sandbox.faults import NAMES, OPS
from gekko.venue.sandbox.quota import Bucket
from gekko.venue.sandbox.server import CONTROLS, Call, Reply, Route, SandboxServer, Socket
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.sandbox.trouble import BAD_CERTIFICATE_S

D = Decimal
BTC = 'BTC-USD'


class Tiny:
    """Two symbols, orders, and the same news on a WebSocket and in chunks."""
    venue = 'tiny'

    def __init__(self, server: SandboxServer) -> None:
        self.server, self.hub, self.wallets = server, server.hub, SpotWallets()
        self.bucket = Bucket(size=1000, per_s=1000)
        self.exchange = Exchange([Listing(s, s[:3], 'USD', tick=D('0.01'), lot=D('0.001'), price=p) for s, p in ((BTC, D(60_000)), ('ETH-USD', D(3_000)))], server.clock, self.wallets)
        self.wallets.deposit('main', 'USD', D(1_000_000))

    def routes(self) -> list[Route]:
        def symbol(call: Call) -> str: return str(call.json().get('symbol', BTC))
        return [Route('GET', '/time', 'public', lambda call: Reply({'now': call.now})), Route('GET', '/price/{symbol}', 'public', self.price, symbol=lambda call: call.match['symbol']),
                Route('POST', '/orders', 'submit', self.order, symbol=symbol), Route('DELETE', '/orders/{id}', 'cancel', self.cancel), Route('GET', '/orders/{id}', 'query', self.find),
                Route('GET', '/ws', 'stream', self.market, 'ws'), Route('GET', '/own', 'own', self.own, 'ws'), Route('GET', '/chunks', 'stream', self.chunks, 'chunked', check=self.allowed)]

    def allowed(self, call: Call) -> Reply | None: return None if call.headers.get('X-Key') == 'k' and not self.server.revoked else Reply({'error': 'key'}, 401)
    def price(self, call: Call) -> Reply: return Reply({'price': self.exchange.last(call.match['symbol'])})
    def find(self, call: Call) -> Reply:
        w = self.exchange.find('main', client_id=call.match['id'])
        return Reply({'state': w.state.value, 'filled': w.filled, 'fills': len(w.deals)})
    def cancel(self, call: Call) -> Reply: return Reply({'state': self.exchange.cancel('main', client_id=call.match['id']).state.value})
    def order(self, call: Call) -> Reply:
        x = call.json()
        if wait := self.bucket.spend('main', 1, call.now): return self.error('rate_limited', 'too fast', {'retry_after_s': wait})
        limit = D(x['limit']) if 'limit' in x else None
        w = self.exchange.place('main', Ticket(x['id'], x.get('symbol', BTC), Side(x.get('side', 'buy')), OrderType.LIMIT if limit else OrderType.MARKET, qty=D(x['qty']), limit=limit))
        return Reply({'state': w.state.value, 'fills': len(w.deals)})

    async def market(self, call: Call, socket: Socket) -> None:
        socket.join('prints')
        async for text in socket: socket.send({'you said': text})
    async def own(self, call: Call, socket: Socket) -> None:
        n = 0

        def counted(payload: bytes) -> bytes:
            nonlocal n
            n += 1
            return b'{"n":%d,' % n + payload[1:]
        socket.sink.wrap = counted
        socket.join('orders')
        async for _ in socket: pass
    async def chunks(self, call: Call, socket: Socket) -> None:
        socket.join('prints')
        await socket.gone()

    def on(self, event: Event) -> None:
        if isinstance(event, Print): self.hub.publish('prints', msgspec.json.encode({'id': event.trade_id, 'price': event.price}) + b'\n', symbol=event.symbol)
        if isinstance(event, OrderChanged): self.hub.publish('orders', msgspec.json.encode({'what': event.what, 'id': event.work.client_id, 'filled': event.work.filled}), 'own', event.work.symbol, event.deal is not None)
    def error(self, word: str, message: str, facts: Mapping[str, Any]) -> Reply: return Reply({'error': word, 'message': message}, 404 if word == 'unknown_route' else 400)
    def credentials(self) -> dict[str, str]: return {'account': 'main', 'key': 'k', 'secret': 's'}
    def addresses(self, http: str, ws: str) -> dict[str, str]: return {'rest': http, 'ws': ws}
    def account(self) -> dict[str, Any]: return {'balances': {a: [p.free, p.locked] for a, p in self.wallets.balances('main').items()}}
    def deposit(self, asset: str, amount: Decimal) -> None: self.wallets.deposit('main', asset, amount)
    def every(self) -> list[tuple[float, Callable[[], None]]]: return []


class Visit:
    """A client of the tiny venue."""
    def __init__(self, venue: Running, http: aiohttp.ClientSession) -> None: self.venue, self.http, self.card = venue, http, venue.card

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with self.http.request(method, self.card['rest'] + path, **more) as r:
            return r.status, json.loads(await r.read()) if 'json' in r.content_type else await r.text()
    async def buy(self, name: str, qty: str = '0.1', **more: Any) -> tuple[int, Any]: return await self.ask('POST', '/orders', json={'id': name, 'qty': qty, **more})
    def trade(self, *prices: int) -> None:
        for p in prices: self.venue.call(lambda p=p: self.venue.exchange.print_trade(BTC, D(p), D('0.001'), Side.BUY))   # type: ignore[misc]
    def socket(self, path: str = '/ws', **more: Any) -> Any: return self.http.ws_connect(self.card['ws'] + path, **more)


def visit(scenario: Callable[[Visit], Awaitable[None]], **options: Any) -> None:
    """Runs a scenario against a tiny venue that serves from a thread."""
    async def inside(venue: Running) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http: await scenario(Visit(venue, http))
    with sandbox(Tiny, **options) as venue: asyncio.run(asyncio.wait_for(inside(venue), 30))


async def prices(ws: aiohttp.ClientWebSocketResponse, n: int) -> list[int]: return [int(D(json.loads((await ws.receive(timeout=5)).data)['price'])) for _ in range(n)]
async def silent(ws: aiohttp.ClientWebSocketResponse, s: float = 0.15) -> bool:
    try: await ws.receive(timeout=s)
    except TimeoutError: return True
    return False


# -- answers

def test_a_refusal_is_the_venues_own_error() -> None:
    async def scenario(v: Visit) -> None:
        assert (await v.buy('a', '0.0001'))[1]['error'] == 'size_step'
        assert (await v.buy('a', symbol='DOGE-USD'))[1]['error'] == 'unknown_symbol'
        assert await v.ask('GET', '/nowhere') == (404, {'error': 'unknown_route', 'message': 'no GET /nowhere here'})
        assert (await v.ask('POST', '/orders', data=b'<xml>'))[1]['error'] == 'bad_order'
        v.venue.server.protocol.bucket.size = 0   # type: ignore[attr-defined]
        assert (await v.buy('a'))[1]['error'] == 'rate_limited'
    visit(scenario)


def test_throttled_and_banned_with_the_time_to_wait() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'throttle', 'op': 'submit', 'count': 2, 's': 7}, {'fault': 'throttle', 'op': 'public', 'after': 1, 'ban': True, 's': 60})
        seen = []
        for path in ('/orders', '/time', '/orders', '/time', '/orders', '/time'):
            async with v.http.request('POST' if path == '/orders' else 'GET', v.card['rest'] + path, json={'id': f'a{len(seen)}', 'qty': '0.1'}) as r: seen.append((r.status, r.headers.get('Retry-After')))
        assert seen == [(429, '7'), (200, None), (429, '7'), (418, '60'), (200, None), (200, None)]
        assert len(v.venue.exchange.works) == 1, 'what was throttled was not carried out'
    visit(scenario)


def test_a_burst_of_errors_before_or_after_the_deed() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'server_error', 'op': 'submit', 'count': 2}, {'fault': 'server_error', 'op': 'submit', 'status': 500, 'processed': True})
        assert [(await v.buy(name))[0] for name in 'abcd'] == [503, 503, 500, 200]
        assert [w.client_id for w in v.venue.exchange.works.values()] == ['c', 'd']
    visit(scenario)


def test_an_answer_that_is_lost_although_the_order_is_there() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'drop_answer', 'op': 'submit'})
        with pytest.raises(aiohttp.ClientConnectionError): await v.buy('a')
        assert (await v.ask('GET', '/orders/a'))[1] == {'state': 'filled', 'filled': '0.1', 'fills': 1}
    visit(scenario)


def test_an_answer_that_is_late_or_no_json_or_cut_or_endless() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'slow', 'op': 'submit', 's': 0.3}, {'fault': 'html', 'op': 'public'}, {'fault': 'truncated', 'op': 'query'}, {'fault': 'huge', 'op': 'cancel', 'mb': 3})
        began = time.monotonic()
        order = asyncio.create_task(v.buy('a', limit='50000'))
        await asyncio.sleep(0.1)
        assert v.venue.exchange.find('main', client_id='a').state is OrderState.ACCEPTED, 'the order came, only the answer is late'
        assert (await order)[0] == 200 and time.monotonic() - began >= 0.3
        status, text = await v.ask('GET', '/time')
        assert status == 502 and '<html>' in text
        with pytest.raises(aiohttp.ClientPayloadError): await v.ask('GET', '/orders/a')
        async with v.http.delete(v.card['rest'] + '/orders/a') as r: assert len(await r.read()) == 3_000_000
        assert [x['fault'] for x in v.venue.server.faults.done] == ['slow', 'html', 'truncated', 'huge']
    visit(scenario)


def test_a_fault_for_one_symbol_leaves_the_other_alone() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'server_error', 'symbol': 'ETH-USD'})
        assert [(await v.ask('GET', f'/price/{s}'))[0] for s in (BTC, 'ETH-USD', 'ETH-USD')] == [200, 503, 200]
        v.venue.fault({'fault': 'halted', 'symbol': 'ETH-USD', 'op': 'submit', 'after': 1})
        assert [(await v.buy(n, symbol=s))[0] for n, s in (('a', 'ETH-USD'), ('b', BTC), ('c', 'ETH-USD'), ('d', BTC))] == [200, 200, 400, 200]
    visit(scenario)


# -- the venue as a whole

def test_maintenance_shuts_everything_and_ends() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws:
            v.venue.fault({'fault': 'maintenance', 's': 0.4})
            assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert [(await v.ask('GET', '/time'))[1]['error'], (await v.buy('a'))[1]['error']] == ['maintenance', 'maintenance']
        with pytest.raises(aiohttp.WSServerHandshakeError): await v.socket()
        await asyncio.sleep(0.45)
        assert (await v.ask('GET', '/time'))[0] == 200
    visit(scenario)


def test_precision_sessions_and_halts_change_mid_session() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'precision', 'symbol': BTC, 'op': 'submit', 'after': 1, 'lot': '0.1', 'tick': '1'})
        assert [(await v.buy(n, '0.001')) for n in 'ab'][1][1]['error'] == 'size_step'
        assert v.venue.exchange.listing(BTC).tick == 1
        for fault, word in (('session_close', 'market_closed'), ('halted', 'halted'), ('delisted', 'halted')):
            v.venue.fault({'fault': fault, 'symbol': BTC})
            assert (await v.buy(fault))[1]['error'] == word and v.venue.exchange.listing('ETH-USD').status == 'trading'
    visit(scenario)


def test_clock_skew_advance_and_revoked_key() -> None:
    async def scenario(v: Visit) -> None:
        before = (await v.ask('GET', '/time'))[1]['now']
        v.venue.fault({'fault': 'clock_skew', 's': -3600})
        assert -3600 <= ((await v.ask('GET', '/time'))[1]['now'] - before) / 1e9 < -3590
        v.venue.fault({'fault': 'clock_skew', 's': -60})
        assert v.venue.server.clock.offset == -3660 * 10**9, 'a clock that jumps twice has jumped by both'
        v.venue.fault({'fault': 'clock_skew', 's': 60})
        await v.buy('day', limit='50000')
        v.venue.exchange.find('main', client_id='day').expires = v.venue.server.clock.now() + 10**12
        v.venue.advance(2000)
        assert v.venue.exchange.find('main', client_id='day').state is OrderState.EXPIRED
        v.venue.fault({'fault': 'revoked_key'})
        assert (await v.ask('GET', '/chunks', headers={'X-Key': 'k'}))[0] == 401
    visit(scenario)


def test_fills_in_parts_and_a_fill_that_beats_the_cancel() -> None:
    async def scenario(v: Visit) -> None:
        v.venue.fault({'fault': 'partial_fills', 'parts': 4})
        assert [(await v.buy(n))[1]['fills'] for n in 'ab'] == [4, 1]
        v.venue.fault({'fault': 'cancel_race'}, {'fault': 'cancel_race', 'share': '0.5'})
        await v.buy('c', limit='50000')
        assert (await v.ask('DELETE', '/orders/c'))[1]['error'] == 'already_done'
        await v.buy('d', limit='50000')
        assert (await v.ask('DELETE', '/orders/d'))[1]['state'] == 'cancelled'
        assert [v.venue.exchange.find('main', client_id=n).filled for n in 'cd'] == [D('0.1'), D('0.05')]
    visit(scenario)


# -- streams

def test_each_message_comes_once_and_in_order_on_both_kinds_of_stream() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws, v.http.get(v.card['rest'] + '/chunks', headers={'X-Key': 'k'}) as chunks:
            assert chunks.headers['Transfer-Encoding'] == 'chunked'
            v.trade(*range(100, 150))
            assert await prices(ws, 50) == list(range(100, 150))
            assert [int(D(json.loads(await chunks.content.readline())['price'])) for _ in range(50)] == list(range(100, 150))
            await ws.send_str('hi')
            assert (await ws.receive_json()) == {'you said': 'hi'}
        for _ in range(100):
            if not v.venue.server.hub.sinks: break
            await asyncio.sleep(0.02)
        assert not v.venue.server.hub.sinks and not v.venue.server.hub.channels, 'who left is forgotten'
    visit(scenario)


def test_lost_doubled_and_disordered_messages() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws:
            v.venue.fault({'fault': 'gap', 'op': 'stream', 'after': 1, 'count': 2}, {'fault': 'duplicate', 'op': 'stream', 'after': 3}, {'fault': 'out_of_order', 'op': 'stream', 'after': 4})
            v.trade(*range(101, 109))
            assert await prices(ws, 7) == [101, 104, 104, 106, 105, 107, 108]
    visit(scenario)


def test_fills_told_twice_or_late() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket('/own') as ws:
            async def told(n: int) -> list[tuple[int, str, str]]: return [(x['n'], x['what'], x['id']) for _ in range(n) for x in [await ws.receive_json(timeout=5)]]
            v.venue.fault({'fault': 'duplicate_fill', 'op': 'own'})
            await v.buy('a')
            assert await told(3) == [(1, 'new', 'a'), (2, 'filled', 'a'), (2, 'filled', 'a')]
            v.venue.fault({'fault': 'out_of_order_fill', 'op': 'own', 's': 5})
            await v.buy('b')
            await v.buy('c', limit='50000')
            assert await told(3) == [(3, 'new', 'b'), (5, 'new', 'c'), (4, 'filled', 'b')]
    visit(scenario)


def test_a_mute_stream_is_connected_and_answers_pings() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws, v.socket('/own') as own:
            v.venue.fault({'fault': 'mute', 'op': 'stream', 's': 0.4})
            v.trade(101)
            await v.buy('a')
            assert await silent(ws) and (await own.receive_json(timeout=5))['what'] == 'new'
            await ws.ping()
            await asyncio.sleep(0.5)
            v.trade(102)
            assert await prices(ws, 1) == [102], 'what was said meanwhile is lost'
    visit(scenario)


def test_a_mute_that_waits_for_its_message() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws:
            v.venue.fault({'fault': 'mute', 'op': 'stream', 'after': 2, 's': 5})
            v.trade(101, 102, 103, 104)
            assert await prices(ws, 2) == [101, 102] and await silent(ws)
    visit(scenario)


def test_a_half_open_socket_says_nothing_not_even_a_pong() -> None:
    async def scenario(v: Visit) -> None:
        async with v.http.ws_connect(v.card['ws'] + '/ws', heartbeat=0.3) as ws:
            v.venue.fault({'fault': 'half_open'})
            v.trade(101)
            assert await silent(ws) and not ws.closed
            async with v.socket() as fresh:
                v.trade(102)
                assert await prices(fresh, 1) == [102]
            assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED), 'only the client\'s own heartbeat finds out'
    visit(scenario)


def test_disconnected_and_refused_for_a_while() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws, v.socket('/own') as own:
            v.venue.fault({'fault': 'disconnect', 'op': 'stream', 's': 0.4})
            assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED)
            with pytest.raises(aiohttp.WSServerHandshakeError): await v.socket()
            await v.buy('a')
            assert (await own.receive_json(timeout=5))['id'] == 'a', 'the other stream goes on'
            await asyncio.sleep(0.45)
            async with v.socket() as again:
                v.trade(103)
                assert await prices(again, 1) == [103]
    visit(scenario)


def test_frames_that_are_cut_huge_or_html() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket(max_msg_size=0) as ws:
            v.venue.fault({'fault': 'html', 'op': 'stream'}, {'fault': 'huge', 'op': 'stream', 'after': 1, 'mb': 5}, {'fault': 'truncated', 'op': 'stream', 'after': 2})
            v.trade(101, 102, 103)
            assert '<html>' in (await ws.receive(timeout=5)).data
            assert len((await ws.receive(timeout=5)).data) > 5_000_000
            assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED)
    visit(scenario)


# -- TLS

def test_certificates_change_while_it_serves() -> None:
    async def scenario(v: Visit) -> None:
        trusted = ssl.create_default_context(cafile=v.card['ca'])
        async def get(context: ssl.SSLContext | None = None) -> str:
            try: return str((await v.ask('GET', '/time', ssl=context or trusted))[0])
            except aiohttp.ClientConnectorCertificateError as e: return str(e.certificate_error)
        assert v.card['rest'].startswith('https://') and v.card['ws'].startswith('wss://')
        assert await get() == '200' and 'local issuer' in await get(ssl.create_default_context())
        async with v.socket(ssl=trusted) as ws:
            v.venue.fault({'fault': 'expired_certificate'})
            assert (await ws.receive(timeout=5)).type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSED), 'open connections end, so that the new certificate is met'
        assert 'expired' in await get()
        v.venue.fault({'fault': 'wrong_host'})
        assert 'IP address mismatch' in await get()
        left = v.venue.call(lambda: v.venue.server._mending.when() - asyncio.get_running_loop().time())
        assert BAD_CERTIFICATE_S / 2 < left <= BAD_CERTIFICATE_S, 'the last fault counts, and goes by itself, since the control is behind it too'
        v.venue.fault({'fault': 'wrong_host', 's': 0})
        assert v.venue.call(lambda: v.venue.server._mending) is None and 'IP address mismatch' in await get()
    visit(scenario, tls=True)


def test_a_certificate_expires_for_a_while_and_whoever_asked_for_it_is_answered() -> None:
    async def scenario(v: Visit) -> None:
        trusted = ssl.create_default_context(cafile=v.card['ca'])
        said = await v.ask('POST', '/sandbox/faults', ssl=trusted, headers={'X-Sandbox': v.card['token']}, json=[{'fault': 'expired_certificate', 's': 0.4}])
        assert said == (200, {'ok': True, 'done': [{'fault': 'expired_certificate', 'op': '', 'symbol': '', 's': 0.4}], 'armed': []})
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match='expired'): await v.ask('GET', '/time', ssl=trusted)
        for _ in range(50):
            await asyncio.sleep(0.1)
            try: return None if (await v.ask('GET', '/time', ssl=trusted))[0] == 200 else pytest.fail('refused')
            except aiohttp.ClientConnectorCertificateError: pass
        pytest.fail('the valid certificate never came back')
    visit(scenario, tls=True)


# -- control

def test_the_control_endpoint_wants_its_token_and_does_its_work() -> None:
    async def scenario(v: Visit) -> None:
        async def tell(path: str, method: str = 'GET', body: Any = None, token: str = '') -> tuple[int, Any]:
            return await v.ask(method, f'/sandbox/{path}', headers={'X-Sandbox': token or v.card['token']}, **({'json': body} if body is not None else {}))
        for path in CONTROLS: assert (await tell(path, token='guess'))[0] == 401
        assert (await tell('market', 'POST', {'symbol': BTC, 'price': '61000', 'size': '0.5', 'levels': 1})) == (200, {'ok': True, 'bid': '60999.99', 'ask': '61000.01'})
        await v.buy('a', '0.4')
        orders = (await tell('orders'))[1]['orders']
        assert [(o['client_id'], o['state'], o['filled'], o['deals'][0]['price']) for o in orders] == [('a', 'filled', '0.4', '61000.01')]
        assert (await tell('account'))[1]['balances']['USD'][0] == str(D(1_000_000) - D('0.4') * D('61000.01'))
        assert (await tell('wallet', 'POST', {'asset': 'ETH', 'amount': '2'}))[1]['balances']['ETH'] == ['2', '0']
        assert (await tell('listing', 'POST', {'symbol': BTC, 'tick': '0.1'}))[1]['tick'] == '0.1'
        assert (await tell('clock', 'POST', {'advance_s': 60}))[1]['offset_s'] == 60
        for skew in (-5, -5, 0): assert (await tell('clock', 'POST', {'skew_s': skew}))[1]['offset_s'] == 60 + skew
        assert (await tell('faults', 'POST', [{'fault': 'slow', 'op': 'cancel'}, {'fault': 'clock_skew', 's': 1}]))[1] == {'ok': True, 'done': [{'fault': 'clock_skew', 'op': '', 'symbol': '', 's': 1}], 'armed': ['slow']}
        assert (await tell('faults', 'DELETE'))[1]['armed'] == []
        assert (await tell('stats'))[1]['deals'] == 1
        for path, body in (('faults', [{'fault': 'gremlins'}]), ('faults', {}), ('market', {'symbol': BTC}), ('market', {'symbol': 'DOGE-USD', 'price': '1'}), ('market', {'symbol': BTC, 'price': 'nan'}), ('listing', {'symbol': BTC, 'colour': 'red'}), ('wallet', {'asset': 'USD', 'amount': '-1e9'})):
            status, said = await tell(path, 'POST', body)
            assert status == 400 and said['error'], path
        async with v.http.post(v.card['control'] + '/faults', data=b'{', headers={'X-Sandbox': v.card['token']}) as r: assert r.status == 400
    visit(scenario)


def test_a_synthetic_market_keeps_its_rate_and_a_busy_stream_loses_nothing() -> None:
    async def scenario(v: Visit) -> None:
        async with v.socket() as ws:
            seen: list[int] = []
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                x = json.loads((await ws.receive(timeout=5)).data)
                if int(D(x['price'])) > 30_000: seen.append(x['id'])
            assert seen == list(range(seen[0], seen[0] + len(seen))) and len(seen) > 100
        stats = (await v.ask('GET', '/sandbox/stats', headers={'X-Sandbox': v.card['token']}))[1]
        assert stats['hub']['lost'] == 0 and stats['events'] > 1000
    visit(scenario, market='synthetic', rate=3000.0, seed=5)


def test_a_burst_is_made_ahead_and_arrives_whole() -> None:
    async def scenario(v: Visit) -> None:
        async def tell(**body: Any) -> tuple[int, Any]: return await v.ask('POST', '/sandbox/burst', json=body, headers={'X-Sandbox': v.card['token']})
        async with v.socket() as ws:
            assert (await tell(events=5_000, rate=20_000))[1]['waiting'] > 1_000
            live = v.venue.exchange.tape(BTC, 1)[0].trade_id
            eth = v.venue.exchange.tape('ETH-USD', 1)[0].trade_id
            seen: dict[bool, list[int]] = {True: [], False: []}
            while not (seen[True] and seen[False] and seen[True][-1] >= live and seen[False][-1] >= eth):
                x = json.loads((await ws.receive(timeout=5)).data)
                seen[int(D(x['price'])) > 30_000].append(x['id'])
            for ids in seen.values(): assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert (await tell(events=0))[0] == 400
    visit(scenario, market='synthetic', rate=50.0)


def test_every_fault_has_a_test_here() -> None:
    text = Path(__file__).read_text(encoding='utf-8')
    assert [n for n in NAMES if f"'{n}'" not in text] == []
    assert set(OPS) == {'submit', 'cancel', 'query', 'public', 'stream', 'own'}


# -- life

COMMAND = [sys.executable, '-c', 'from gekko.cli.main import main; main()', 'sandbox', 'serve']


def test_a_plan_with_a_wrong_line_or_a_taken_port_starts_nothing() -> None:
    with pytest.raises(BadInput, match='gremlins'), sandbox(Tiny, plan=[{'fault': 'gremlins'}]): pass
    with sandbox(Tiny) as venue:
        port = int(venue.card['rest'].rsplit(':', 1)[1])
        with pytest.raises(BadInput, match='cannot listen'), sandbox(Tiny, port=port): pass
    with sandbox(Tiny, port=port) as again: assert again.card['rest'].endswith(f':{port}'), 'the port is free again'


@pytest.mark.parametrize('venue', ['binanceus', 'coinbase', 'oanda'])
def test_the_command_says_when_it_is_ready_and_ends_when_told(venue: str, tmp_path: Path) -> None:
    plan = tmp_path / 'plan.json'
    plan.write_text('[{"fault": "throttle", "op": "submit", "after": 5}]')
    p = subprocess.Popen([*COMMAND, venue, '--json', '--seed', '3', '--tls', '--faults', str(plan)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert p.stdout
    try:
        card = json.loads(p.stdout.readline())
        assert {'venue', 'rest', 'ws', 'account', 'key', 'secret', 'control', 'ca'} <= card.keys() and card['venue'] == venue

        async def look() -> Any:
            async with aiohttp.ClientSession(headers={'X-Sandbox': card['token']}) as http, http.get(card['control'] + '/faults', ssl=ssl.create_default_context(cafile=card['ca'])) as r: return await r.json()
        assert asyncio.run(look())['armed'] == ['throttle']
        p.send_signal(signal.SIGTERM)
        assert p.wait(15) == 0 and p.stdout.read() == '' and not Path(card['ca']).exists()
        assert p.stderr and p.stderr.read() == ''
    finally:
        p.kill()
        p.communicate()


@pytest.mark.parametrize('words,says', [
    ('nasdaq', 'binanceus coinbase oanda'), ('coinbase --market wild', 'still, synthetic or replay'), ('coinbase --market replay', '--data'), ('coinbase --symbols BTCUSD', 'BASE-QUOTE'),
    ('coinbase --symbols ABC-XYZ', 'not listed'), ('coinbase --faults none.json', 'can be read'), ('coinbase --faults odd.json', 'gremlins'), ('coinbase --cash much', 'CURRENCY=AMOUNT'),
    ('coinbase --data bars.csv', '--symbols'), ('coinbase --rate 0', 'above 0'), ('coinbase --host 203.0.113.9', 'cannot listen'), ('coinbase --port 70000', 'port')])
def test_what_cannot_be_served_is_refused(words: str, says: str, tmp_path: Path) -> None:
    (tmp_path / 'odd.json').write_text('[{"fault": "gremlins"}]')
    (tmp_path / 'bars.csv').write_text('timestamp,open,high,low,close\n2026-01-01,1,1,1,1\n')
    done = subprocess.run([*COMMAND, *words.split(), '--json'], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2, done.stderr
    said = json.loads((done.stdout or done.stderr).strip().splitlines()[-1])
    assert says in json.dumps(said, ensure_ascii=False)
