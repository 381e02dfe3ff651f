"""WebSockets over real sockets: fast, bounded, and gone with a reason."""
import asyncio
import base64
import hashlib
import re

import pytest

from gekko.domain.errors import Reject, Retry
from gekko.domain.time import SystemClock
from gekko.venue.wire.breaker import BreakerRules
from gekko.venue.wire.http import Http
from gekko.venue.wire.secret import Access, Address, Credentials, Secret
from gekko.venue.wire.socket import FRAME


def frame(payload, opcode=1, fin=True, announced=None):
    n = len(payload) if announced is None else announced
    head = bytes([(0x80 if fin else 0) | opcode])
    return head + (bytes([n]) if n < 126 else b'\x7e' + n.to_bytes(2, 'big') if n < 65536 else b'\x7f' + n.to_bytes(8, 'big')) + payload


class Server:
    """Shakes hands by hand, then writes what it was given, so that frames may be as wrong as they like."""
    def __init__(self, *writes, status=b'101 Switching Protocols', headers=b''): self.writes, self.status, self.headers, self.heard = writes, status, headers, b''

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, '127.0.0.1', 0)
        self.base = f'127.0.0.1:{self.server.sockets[0].getsockname()[1]}'
        self.access = Access('test', (Address(f'http://{self.base}', f'ws://{self.base}'),), Credentials('main', Secret('key')))
        return self

    async def __aexit__(self, *_): self.server.close()

    async def serve(self, reader, writer):
        try:
            self.head = await reader.readuntil(b'\r\n\r\n')
            key = re.search(rb'(?i)sec-websocket-key: (\S+)', self.head)[1]
            accept = base64.b64encode(hashlib.sha1(key + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest())
            upgrade = b'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + b'\r\n' if self.status.startswith(b'101') else b'Content-Length: 0\r\n'
            writer.write(b'HTTP/1.1 ' + self.status + b'\r\n' + upgrade + self.headers + b'\r\n')
            for w in self.writes:
                if w == 'hang up': return
                if w == 'stay': self.heard += await reader.read(1000); continue
                writer.write(w)
                await writer.drain()
        except ConnectionError: pass
        finally: writer.close()


async def opened(server, **settings):
    http = Http(server.access, SystemClock(), timeout_s=2.0, **settings)
    return http, await http.websocket('/stream')


def test_messages_come_whole_in_order_and_in_their_own_type():
    async def main():
        parts = frame(b'{"a"', fin=False) + frame(b'ping', 9) + frame(b':1}', 0)
        async with Server(frame(b'text'), frame(b'\x00\xff', 2), parts, frame('€'.encode()), 'stay', 'stay') as server:
            http, ws = await opened(server)
            assert [await ws.receive() for _ in range(4)] == ['text', b'\x00\xff', '{"a":1}', '€']
            await ws.send('{"method": "SUBSCRIBE"}')
            await ws.close()
            await http.close()
            assert b'extensions' not in server.head.lower() and server.heard
    asyncio.run(main())


ENDS = {'a frame that announces 100 MB': ([frame(b'x' * 100, announced=100 << 20), 'stay'], 'above 4 MB'), 'fragments that add up': ([frame(b'x' * 1_000_000, fin=False), *[frame(b'x' * 1_000_000, 0, fin=False)] * 5, 'stay'], 'above 4 MB'),
        'a cut frame': ([frame(b'{"p": "451', announced=50), 'hang up'], 'connection lost'), 'a hang-up': (['hang up'], 'connection lost'), 'a goodbye': ([frame((1012).to_bytes(2, 'big') + b'restart', 8), 'stay'], '1012'),
        'a reserved opcode': ([frame(b'', 7), 'stay'], 'broken frame'), 'text that is not UTF-8': ([frame(b'\xff\xfe'), 'stay'], 'broken frame'), 'compression nobody asked for': ([b'\xc1\x03abc', 'stay'], 'broken frame')}


@pytest.mark.parametrize('what', ENDS)
def test_whatever_ends_a_connection_is_a_retry_with_its_reason(what):
    async def main():
        writes, word = ENDS[what]
        async with Server(*writes) as server:
            http, ws = await opened(server)
            with pytest.raises(Retry, match=word) as e: await asyncio.wait_for(ws.receive(), 2)
            assert e.value.__context__ is None
            with pytest.raises(Retry): await asyncio.wait_for(ws.receive(), 2)      # and it stays gone
            await ws.close()
            await http.close()
    asyncio.run(main())


def test_a_frame_of_just_the_limit_passes():
    async def main():
        async with Server(frame(b'x' * FRAME), 'stay') as server:
            http, ws = await opened(server)
            assert len(await ws.receive()) == FRAME
            await http.close()
    asyncio.run(main())


def test_a_refused_handshake_says_whether_to_come_back():
    async def main():
        for status, kind in ((b'401 Unauthorized', Reject), (b'403 Forbidden', Reject), (b'404 Not Found', Reject), (b'429 Too Many', Retry), (b'503 Busy', Retry), (b'200 OK', Retry), (b'302 Found', Retry)):
            async with Server(status=status, headers=b'Location: http://127.0.0.1:1/\r\n') as server:
                with pytest.raises(kind) as e: await opened(server)
                assert type(e.value) is kind
    asyncio.run(main())


def test_a_redirect_is_not_followed_and_gets_none_of_our_headers():
    async def main():
        async with Server() as elsewhere, Server(status=b'302 Found', headers=b'Location: http://%s/\r\n' % elsewhere.base.encode()) as server:
            http = Http(server.access, SystemClock())
            with pytest.raises(Retry, match='not followed'): await http.websocket('/ws', {'X-MBX-APIKEY': 'hunter2'})
            assert not hasattr(elsewhere, 'head')
            await http.close()
    asyncio.run(main())


def test_a_server_that_never_shakes_hands_is_given_up():
    async def main():
        async def silent(reader, writer):
            await reader.read()
            writer.close()
        server = await asyncio.start_server(silent, '127.0.0.1', 0)
        base = f'127.0.0.1:{server.sockets[0].getsockname()[1]}'
        http = Http(Access('test', (Address(f'http://{base}', f'ws://{base}'),), Credentials('main', Secret('key'))), SystemClock(), timeout_s=0.2)
        with pytest.raises(Retry, match='no connection within'): await http.websocket('/ws')
        await http.close()
        server.close()
    asyncio.run(main())


def test_a_mute_connection_is_found_out_by_its_heartbeat():
    async def main():
        async with Server('stay', 'stay', 'stay', 'stay') as server:       # reads pings, answers none
            http = Http(server.access, SystemClock())
            ws = await http.websocket('/ws', heartbeat_s=0.1)
            with pytest.raises(Retry): await asyncio.wait_for(ws.receive(), 2)
            await http.close()
    asyncio.run(main())


def test_closing_does_not_wait_for_a_peer_that_is_gone():
    async def main():
        async with Server('stay', 'stay', 'stay') as server:
            http, ws = await opened(server)
            await asyncio.wait_for(ws.close(), 1.8)
            with pytest.raises(Retry): await ws.send('late')
            await http.close()
    asyncio.run(main())


def test_dead_addresses_open_the_streams_breaker_and_move_to_the_backup():
    async def main():
        async with Server(frame(b'hello'), 'stay') as server:
            access = Access('test', (Address('http://127.0.0.1:1', 'ws://127.0.0.1:1'), *server.access.addresses), server.access.credentials)
            http = Http(access, SystemClock(), failover_after=2)
            for _ in range(2):
                with pytest.raises(Retry, match='connection refused'): await http.websocket('/ws')
            assert await (await http.websocket('/ws')).receive() == 'hello'
            await http.close()
        alone = Http(Access('test', access.addresses[:1], access.credentials), SystemClock(), rules=BreakerRules(failure_threshold=2))
        for word in ('refused', 'refused', 'the breaker is open'):
            with pytest.raises(Retry, match=word): await alone.websocket('/ws')
        await alone.close()
    asyncio.run(main())


def test_fifty_thousand_messages_arrive_complete():
    async def main():
        n = 50_000
        async with Server(b''.join(frame(b'{"e":"trade","t":%d,"p":"45123.12000000","q":"0.00120000"}' % i) for i in range(n)), 'stay') as server:
            http, ws = await opened(server)
            for i in range(n): assert f'"t":{i},' in await ws.receive()
            await http.close()
    asyncio.run(main())
