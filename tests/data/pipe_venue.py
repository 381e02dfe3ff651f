"""A venue of the tests' own: a real WebSocket and REST server that misbehaves on command, and the dialect that speaks to it.

Frames are words: `T symbol number price qty`, `Q symbol bid ask`, `B symbol first last side:price:qty ...`, `S` for a book's snapshot,
`A symbol kind` for an acknowledged subscription, `X reason` for a refused one, `P` for a sign of life. A number with a `L` before it is counted by the line.
"""
from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from gekko.data.stream import BookChange, Heard, MarketEvent, Pace, Stream, Subscription
from gekko.domain.errors import BadInput, Retry
from gekko.domain.market import Level, Quote, Trade
from gekko.domain.time import SystemClock

D = Decimal
QUICK = Pace(first=0.01, most=0.05, lived=5.0, dial=2.0, send=2.0, settle=0.01, repair=1.0, tries=3, tick=0.01)


class Venue:
    """The server's side. `say` sends to whoever is connected; `past` is what REST knows."""

    def __init__(self) -> None:
        self.lines: list[web.WebSocketResponse] = []
        self.open: list[web.WebSocketResponse] = []
        self.heard: list[str] = []
        self.asked: list[tuple[str, int, int]] = []
        self.past: dict[str, list[str]] = {}
        self.broken_rest = 0
        self.deaf = self.refusing = False
        self.answers = True
        self.url = ''

    async def start(self) -> None:
        app = web.Application()
        app.add_routes([web.get('/ws', self._ws), web.get('/repair', self._repair)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, '127.0.0.1', 0)
        await site.start()
        self.url = f'http://127.0.0.1:{self._runner.addresses[0][1]}'

    async def stop(self) -> None: await self._runner.cleanup()

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if self.refusing: return web.Response(status=503)
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        self.lines.append(ws)
        self.open.append(ws)
        try:
            while True:
                while self.deaf: await asyncio.sleep(0.01)     # half open: the socket is there, nobody is behind it
                m = await ws.receive()
                if m.type is not WSMsgType.TEXT: break
                self.heard.append(m.data)
                if m.data == 'ping' and self.answers: await ws.send_str('P')
                if m.data.startswith('listen ') and self.answers: await ws.send_str('A ' + m.data[7:])
        finally:
            if ws in self.open: self.open.remove(ws)
        return ws

    async def _repair(self, request: web.Request) -> web.Response:
        channel, after, upto = request.query['channel'], int(request.query['after']), int(request.query['upto'])
        self.asked.append((channel, after, upto))
        if self.broken_rest:
            self.broken_rest -= 1
            return web.Response(status=500)
        found = [f for f in self.past.get(channel, []) if f.startswith('S') or after < int(f.split()[2]) <= (upto or 10**9)]
        return web.Response(text='\n'.join(found))

    async def say(self, *frames: str | bytes) -> None:
        for ws in list(self.open):
            for f in frames: await (ws.send_bytes(f) if isinstance(f, bytes) else ws.send_str(f))

    async def hang_up(self) -> None:
        """Without a goodbye: the transport is cut."""
        for ws in list(self.open):
            if ws._req is not None and ws._req.transport is not None: ws._req.transport.abort()
        self.open.clear()

    def trades(self, symbol: str, lo: int, hi: int) -> list[str]:
        """Trades lo to hi, which REST knows from now on too."""
        made = [f'T {symbol} {n} {42000 + n}.10 0.{n % 9 + 1}' for n in range(lo, hi + 1)]
        self.past.setdefault(f'trade:{symbol}', []).extend(made)
        return made


class Socket:
    """The client's side of one line, over aiohttp."""

    def __init__(self, session: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse) -> None: self.session, self.ws = session, ws

    async def receive(self) -> bytes | str:
        m = await self.ws.receive()
        if m.type in (WSMsgType.TEXT, WSMsgType.BINARY): return m.data  # type: ignore[no-any-return]
        raise Retry(f'the line is gone: {m.type.name.lower()}')

    async def send(self, frame: bytes | str) -> None:
        try: await self.ws.send_str(str(frame))
        except (ConnectionError, RuntimeError) as e: raise Retry(f'the line is gone: {e}') from None

    async def close(self) -> None:
        await self.ws.close()
        await self.session.close()


class PipeDialect:
    venue = 'pipe'

    def __init__(self, venue: Venue, *, quiet_s: float = 5.0, per_connection: frozenset[str] = frozenset(), ping: bool = True) -> None:
        self.server, self.quiet_s, self.per_connection, self.ping = venue, quiet_s, per_connection, ping

    async def dial(self, wanted: Sequence[Subscription]) -> Socket:
        session = aiohttp.ClientSession()
        try: return Socket(session, await session.ws_connect(self.server.url + '/ws', max_msg_size=1 << 20))
        except aiohttp.ClientError as e:
            await session.close()
            raise Retry(f'cannot connect: {type(e).__name__}') from None

    def subscribe(self, wanted: Sequence[Subscription]) -> list[str]: return [f'listen {s.symbol} {s.kind}' for s in wanted]
    def unsubscribe(self, unwanted: Sequence[Subscription]) -> list[str]: return [f'leave {s.symbol} {s.kind}' for s in unwanted]
    def keepalive(self) -> tuple[float, str] | None: return (60.0, 'ping') if self.ping else None
    def known(self, symbol: str, kind: str) -> str: return '' if symbol.endswith('-USD') else f'pipe lists no {symbol}'

    async def repair(self, channel: str, after: int, upto: int) -> list[MarketEvent]:
        async with aiohttp.ClientSession() as session, session.get(self.server.url + '/repair', params={'channel': channel, 'after': after, 'upto': upto}) as r:
            if r.status != 200: raise Retry('the venue is in trouble', found=r.status)
            text = await r.text()
        return [e for line in text.splitlines() for e in self.decode(line, 0).events if not isinstance(e, (str, bytes))]  # type: ignore[misc]

    def decode(self, frame: bytes | str, received: int) -> Heard:
        words = str(frame).split(' ')
        try: return self._meant(words, received)
        except (ValueError, IndexError, ArithmeticError, KeyError): raise BadInput('a frame of the pipe', expected='words', found=repr(frame)[:60]) from None

    def _meant(self, w: list[str], received: int) -> Heard:
        match w[0]:
            case 'T':
                line, n = w[2].startswith('L'), int(w[2].removeprefix('L').partition('/')[0])
                trade = int(w[2].partition('/')[2] or n)
                t = Trade(w[1], trade * 10**9, D(w[3]), D(w[4]), 'buy', str(trade), received, trade)
                return Heard((t,), 'line' if line else f'trade:{w[1]}', n)
            case 'Q': return Heard((Quote(w[1], received, D(w[2]), D(w[3]), D(1), D(1), received),))
            case 'B' | 'S':
                levels: dict[str, list[Level]] = {'b': [], 'a': []}
                for x in w[4:]:
                    side, price, qty = x.split(':')
                    levels[side].append(Level(D(price), D(qty)))
                if w[3].startswith('L'): return Heard((BookChange(w[1], received, tuple(levels['b']), tuple(levels['a']), received, snapshot=w[0] == 'S'),), 'line', int(w[3][1:]))
                first, last = int(w[2]), int(w[3])
                return Heard((BookChange(w[1], received, tuple(levels['b']), tuple(levels['a']), received, first, last, w[0] == 'S'),), f'book:{w[1]}', last, first)
            case 'A': return Heard(acked=(Subscription(w[1], w[2]),))
            case 'X': return Heard(refused=' '.join(w[1:]))
            case 'P': return Heard(beat=True)
        raise ValueError(w[0])


class Scene:
    """A stream on a venue, and what its reader has polled."""

    def __init__(self, venue: Venue, stream: Stream, metrics: dict[str, float]) -> None:
        self.venue, self.stream, self.metrics, self.got, self.polling = venue, stream, metrics, list[Any](), True

    def poll(self) -> None:
        if self.polling: self.got += self.stream.poll()

    def seqs(self, symbol: str = 'BTC-USD') -> list[int]: return [e.seq for e in self.got if isinstance(e, Trade) and e.symbol == symbol]

    def of(self, kind: type) -> list[Any]: return [e for e in self.got if isinstance(e, kind)]

    async def until(self, true: Callable[[], object], seconds: float = 8.0) -> None:
        """Polls until it is true. Fails loudly, with what there was."""
        for _ in range(int(seconds / 0.002)):
            self.poll()
            if true(): return
            await asyncio.sleep(0.002)
        raise AssertionError(f'not within {seconds} s: {self.stream.health()} {self.got[-5:]}')

    async def up(self, lines: int = 1) -> None:
        """The stream is connected, for the nth time, and its subscriptions are acknowledged."""
        await self.until(lambda: len(self.venue.lines) >= lines and self.stream.ear.up and not any(x.joining for x in self.stream.ear.seen.values()))


@asynccontextmanager
async def scene(*subs: tuple[str, str], pace: Pace = QUICK, start: bool = True, dialect: Callable[[Venue], Any] = PipeDialect, **options: Any) -> AsyncIterator[Scene]:
    """Server, stream and reader in one loop; everything is closed at the end, and nothing may be left over."""
    venue, metrics = Venue(), dict[str, float]()
    await venue.start()
    stream = Stream(dialect(venue), SystemClock(), pace=pace, on_metric=metrics.__setitem__, **options)
    stream.want([Subscription(*s) for s in subs])
    running = asyncio.create_task(stream.run())
    s = Scene(venue, stream, metrics)
    try:
        if start: await s.up()
        yield s
    finally:
        stream.close()
        venue.deaf = False
        try: await asyncio.wait_for(running, 15.0)
        finally: await venue.stop()
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and 'gekko' in repr(t.get_coro())]
        assert not left, left


def in_thread(coro: Callable[[], Any]) -> threading.Thread:
    """Runs it in a loop of its own thread, as a desk does."""
    t = threading.Thread(target=lambda: asyncio.run(coro()), daemon=True)
    t.start()
    return t
