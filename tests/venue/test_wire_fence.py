"""The right to send, asked for as the last thing before a write leaves: real sockets, and a process that is really stopped."""
from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pytest
import trustme

from gekko.domain.account import Account
from gekko.domain.errors import GekkoError, Retry
from gekko.domain.order import Accepted, AmendRejected, Cancelled, CancelRejected, Intent, Lost, Order, OrderType, Rejected, Side
from gekko.domain.time import SystemClock
from gekko.execution.ids import client_id
from gekko.risk.gate import Approved, Gate, Reserved
from gekko.risk.limits import Limits
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.venues import Venue, open_venue
from gekko.venue.wire.http import Answer, Ask, Http, Unheard
from gekko.venue.wire.secret import Access, Address, Credentials, Secret, access_of
from gekko.venue.wire.sorting import Fenced
from gekko.venue.wire.throttle import Quota, Throttle

NOBODY = Address('http://127.0.0.1:1')


class Server:
    """It keeps every request that it got; '/mute' is not answered."""
    def __init__(self) -> None: self.got, self.open = list[str](), set[asyncio.Task[Any]]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            while True:
                path = (await reader.readuntil(b'\r\n\r\n')).split(b' ')[1].decode()
                self.got.append(path)
                if path == '/mute': await asyncio.sleep(30)
                if path == '/slow': await asyncio.sleep(0.2)
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')
        writer.close()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, Address]]:
    it = Server()
    listening = await asyncio.start_server(it.serve, '127.0.0.1', 0, ssl=context)
    try: yield it, Address(f'http{"s" if context else ""}://localhost:{listening.sockets[0].getsockname()[1]}')
    finally:
        listening.close()
        for task in list(it.open): task.cancel()


@asynccontextmanager
async def dawdling(port: int, s: float) -> AsyncIterator[int]:
    """A way to a port that passes the first bytes on only after `s` seconds: a handshake takes that long."""
    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65_536)
        await asyncio.sleep(s)
        there, back = await asyncio.open_connection('127.0.0.1', port)
        back.write(first)
        async def pump(a: asyncio.StreamReader, b: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, RuntimeError):
                while data := await a.read(65_536): b.write(data)
            b.close()
        await asyncio.gather(pump(reader, back), pump(there, writer))
    server = await asyncio.start_server(pass_on, '127.0.0.1', 0)
    try: yield server.sockets[0].getsockname()[1]
    finally: server.close()


def reach(*addresses: Address, **settings: Any) -> Http:
    access = Access('binanceus', addresses, Credentials('main', Secret('key'), Secret('secret')), settings.pop('ca', None))
    return Http(access, SystemClock(), **{'timeout_s': 2.0, 'connect_s': 1.0, **settings})


def write(path: str = '/', kind: str = 'submit', **more: Any) -> Callable[[Address], Ask]: return lambda a: Ask(kind, 'POST', path, {}, b'{}', **more)


async def outcome(work: Any) -> Answer | GekkoError:
    try: return await work
    except GekkoError as e: return e


class Right:
    """The right to send, until it is lost; how often and when it was asked for."""
    def __init__(self) -> None: self.held, self.asked = True, list[float]()
    def __call__(self) -> bool:
        self.asked.append(time.monotonic())
        return self.held


# --- whatever a write waits for

@pytest.mark.parametrize('kind', ['submit', 'cancel'])
def test_a_write_that_waits_in_the_throttle_when_the_right_is_lost_sends_nothing(kind: str) -> None:
    async def main() -> None:
        right = Right()
        async with serving() as (server, here):
            http = reach(here, throttle=Throttle([Quota('orders', 1, 0.3)], SystemClock()), may_send=right)
            assert isinstance(await outcome(http.ask(write('/first', kind, weight_class='orders'))), Answer)
            waiting = asyncio.create_task(outcome(http.ask(write('/second', kind, weight_class='orders'))))
            await asyncio.sleep(0.05)
            right.held = False
            found = await waiting
            await asyncio.sleep(0.05)
            assert isinstance(found, Fenced) and server.got == ['/first'] and len(right.asked) == 2
            await http.close()
    asyncio.run(main())


def test_a_write_that_waits_for_a_connection_when_the_right_is_lost_sends_nothing() -> None:
    async def main() -> None:
        right = Right()
        async with serving() as (server, here):
            http = reach(here, may_send=right)
            http._way.pool.most = 1
            first = asyncio.create_task(outcome(http.ask(write('/slow'))))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(outcome(http.ask(write('/second'))))
            await asyncio.sleep(0.05)
            right.held = False
            assert isinstance(await first, Answer) and isinstance(await second, Fenced)
            await asyncio.sleep(0.05)
            assert server.got == ['/slow'] and len(right.asked) == 2
            await http.close()
    asyncio.run(main())


def test_a_write_whose_connection_is_being_made_when_the_right_is_lost_sends_nothing(tmp_path: Path) -> None:
    """TLS included: the question comes after the handshake, not before it."""
    async def main() -> None:
        right, authority, context = Right(), trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert('localhost').configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / 'ca.pem'))
        async with serving(context) as (server, here), dawdling(int(here.rest.rpartition(':')[2]), 0.2) as port:
            http = reach(Address(f'https://localhost:{port}'), may_send=right, ca=tmp_path / 'ca.pem')
            began = time.monotonic()
            waiting = asyncio.create_task(outcome(http.ask(write('/first'))))
            await asyncio.sleep(0.1)
            right.held = False
            assert isinstance(await waiting, Fenced) and server.got == [] and right.asked[0] - began >= 0.2
            right.held = True
            assert isinstance(await outcome(http.ask(write('/again'))), Answer) and server.got == ['/again']
            await http.close()
    asyncio.run(main())


def test_the_next_address_is_not_tried_without_the_right() -> None:
    async def main() -> None:
        right = Right()
        right.held = False
        async with serving() as (server, here):
            found = await outcome((http := reach(NOBODY, here, may_send=right)).ask(write()))
            await asyncio.sleep(0.05)
            assert isinstance(found, Fenced) and server.got == [] and len(right.asked) == 1     # nothing was about to leave at the first
            await http.close()
    asyncio.run(main())


def test_what_had_left_stays_unheard_and_reads_need_no_right() -> None:
    async def main() -> None:
        right = Right()
        async with serving() as (server, here):
            http = reach(here, may_send=right, timeout_s=0.4)
            under_way = asyncio.create_task(outcome(http.ask(write('/mute'))))
            await asyncio.sleep(0.1)
            right.held = False
            assert isinstance(await outcome(http.ask(lambda a: Ask('query', 'GET', '/read'))), Answer)
            assert isinstance(await under_way, Unheard) and server.got == ['/mute', '/read']
            await http.close()
    asyncio.run(main())


def test_a_fence_opens_no_breaker_and_is_no_fault_of_the_address() -> None:
    async def main() -> None:
        right = Right()
        right.held = False
        async with serving() as (server, here):
            http = reach(here, may_send=right)
            for _ in range(20): assert isinstance(await outcome(http.ask(write())), Fenced)
            right.held = True
            assert isinstance(await outcome(http.ask(write('/fine'))), Answer) and server.got == ['/fine']
            assert http.health()['breakers'] == {'submit': 'closed'} and not http.hosts.state()['failing']
            await http.close()
    asyncio.run(main())


def test_a_kept_connection_that_died_unnoticed_is_not_written_to() -> None:
    """The peer hung up and the loop has not looked yet: the kernel is asked, and the order leaves on another connection."""
    hang_up, got = threading.Event(), list[bytes]()
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen()

        def serve() -> None:
            for _ in range(2):
                with listening.accept()[0] as there:
                    got.append(there.recv(65_536))
                    there.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}')
                    hang_up.wait(5)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        async def main() -> None:
            http = reach(Address(f'http://127.0.0.1:{listening.getsockname()[1]}'))
            assert isinstance(await outcome(http.ask(write('/one'))), Answer)
            hang_up.set()
            time.sleep(0.05)      # on purpose: our loop must not see it
            assert isinstance(await outcome(http.ask(write('/two'))), Answer)
            await http.close()
        asyncio.run(main())
        thread.join(5)
    assert [g.split()[1] for g in got] == [b'/one', b'/two']


# --- what the adapters say

VENUES = {'binanceus': ('BTC-USD', D('0.01'), D(20_000)), 'coinbase': ('BTC-USD', D('0.01'), D(20_000)), 'oanda': ('EUR-USD', D(100), D('0.9'))}


@contextmanager
def trading(name: str, **more: Any) -> Iterator[tuple[Running, Venue, Right]]:
    right = Right()
    with sandbox(name) as there:
        venue = open_venue(access_of(there.card), SystemClock(), may_send=right, **more)
        venue.connect()
        try: yield there, venue, right
        finally: venue.close()


class View:
    """An account that may do anything."""
    def __init__(self, marks: dict[str, D]) -> None:
        self.account, self.marks, self.mark_ts = Account('main'), marks, {s: SystemClock().now() for s in marks}
        self.equity = self.day_start_equity = self.peak_equity = D('1e12')
        self.halted, self.gross, self.net_low, self.net_high, self.active, self.rates = '', D(0), D(0), D(0), 0, {'USD': D(1)}
    def reserved(self, symbol: str) -> Reserved: return Reserved()


def approved(venue: Venue, intent: Intent, name: str) -> Approved:
    gate = Gate(Limits(max_positions=None, max_gross=None, collar_bps=None, max_orders_per_minute=None), venue.instruments(), SystemClock())
    found = gate.check(Order(name, intent), View({intent.symbol: intent.limit}))
    assert isinstance(found, Approved), found
    return found


def heard(venue: Venue, kind: type, s: float = 5.0) -> Any:
    """The next event of this kind; others before it are let go."""
    until = time.monotonic() + s
    while time.monotonic() < until:
        for e in venue.drain():
            if isinstance(e, kind): return e
        time.sleep(0.005)
    raise AssertionError(f'no {kind.__name__}')


@pytest.mark.parametrize('name', VENUES)
def test_an_adapter_says_that_nothing_was_sent(name: str) -> None:
    symbol, qty, limit = VENUES[name]
    with trading(name) as (there, venue, right):
        intent = Intent(symbol, Side.BUY, qty, OrderType.LIMIT, limit=limit, ts=SystemClock().now())
        rests, never = client_id('main', 'test', 1), client_id('main', 'test', 2)
        venue.submit(approved(venue, intent, rests))
        heard(venue, Accepted)
        [stamp] = venue.stamps()
        assert stamp.client_id == rests and intent.ts <= stamp.sent <= stamp.heard <= SystemClock().now() and venue.stamps() == []
        right.held = False
        venue.submit(approved(venue, intent, never))
        assert (said := heard(venue, Rejected)).client_id == never and said.reason.startswith('not sent:')
        venue.cancel(rests)
        assert (said := heard(venue, CancelRejected)).client_id == rests and said.reason.startswith('not sent:')
        venue.amend(approved(venue, replace(intent, limit=limit + venue.instruments()[symbol].tick), rests))
        assert (said := heard(venue, AmendRejected)).client_id == rests and said.reason.startswith('not sent:')
        assert [o.client_id for o in venue.open_orders()] == [rests] and venue.order(never) is None and venue.stamps() == []
        right.held = True
        venue.cancel(rests)
        assert heard(venue, Cancelled).client_id == rests


@pytest.mark.parametrize('name', VENUES)
def test_a_submit_that_had_left_stays_unknown_when_the_right_is_lost(name: str) -> None:
    symbol, qty, limit = VENUES[name]
    with trading(name, timeout_s=0.5) as (there, venue, right):
        there.fault({'fault': 'drop_answer', 'op': 'submit'})
        intent = Intent(symbol, Side.BUY, qty, OrderType.LIMIT, limit=limit, ts=SystemClock().now())
        venue.submit(approved(venue, intent, client_id('main', 'test', 1)))
        until = time.monotonic() + 5
        while not right.asked and time.monotonic() < until: time.sleep(0.001)
        right.held = False
        events: list[Any] = []
        while not any(isinstance(e, Accepted) for e in events) and time.monotonic() < until:
            events += venue.drain()
            time.sleep(0.01)
        assert not any(isinstance(e, Rejected) for e in events) and any(isinstance(e, Accepted) for e in events)     # found by its name, with reads alone


def test_a_wake_comes_with_every_event() -> None:
    symbol, qty, limit = VENUES['binanceus']
    woken: list[float] = []
    with trading('binanceus', wake=lambda: woken.append(time.monotonic())) as (there, venue, right):
        venue.submit(approved(venue, Intent(symbol, Side.BUY, qty, OrderType.LIMIT, limit=limit, ts=SystemClock().now()), client_id('main', 'test', 1)))
        heard(venue, Accepted)
        assert len(woken) == 1 and not venue.drain()


# --- a process that is stopped

CHILD = '''
import asyncio, sys, threading, time
from gekko.domain.errors import GekkoError
from gekko.domain.time import SystemClock
from gekko.venue.wire.http import Ask, Http
from gekko.venue.wire.loop import Loop
from gekko.venue.wire.secret import Access, Address, Credentials, Secret
until = [0.0]
def renew():
    for line in sys.stdin: until[0] = time.monotonic() + float(line)
http = Http(Access('binanceus', (Address(sys.argv[1]),), Credentials('main', Secret('k'), Secret('s'))), SystemClock(), may_send=lambda: time.monotonic() < until[0])
async def send():
    while True:
        try: await http.ask(lambda a: Ask('submit', 'POST', f'/{time.monotonic_ns()}'))
        except GekkoError: pass
        await asyncio.sleep(0.01)
threading.Thread(target=renew, daemon=True).start()
loop = Loop()
loop.spawn(send())
print('ready', flush=True)
threading.Event().wait()
'''


def test_a_process_that_was_stopped_for_longer_than_its_lease_sends_nothing() -> None:
    """SIGSTOP at random instants, SIGCONT when the lease is over. A request that was signed before the stop may be out already or, once in ten thousand, leave late: its own time stamp then
    refuses it at the venue. One that is younger may not come at all."""
    luck = random.Random(11)

    async def main() -> None:
        async with serving() as (server, here):
            child = subprocess.Popen([sys.executable, '-c', CHILD, here.rest.replace('localhost', '127.0.0.1')], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert child.stdin is not None and child.stdout is not None
            try:
                assert await asyncio.to_thread(child.stdout.readline) == 'ready\n'
                for _ in range(12):
                    before = len(server.got)
                    child.stdin.write('0.25\n')
                    child.stdin.flush()
                    while len(server.got) == before: await asyncio.sleep(0.005)        # it sends while it may
                    await asyncio.sleep(luck.uniform(0.0, 0.08))
                    os.kill(child.pid, signal.SIGSTOP)
                    stopped = time.monotonic_ns()
                    await asyncio.sleep(0.3)
                    count = len(server.got)
                    os.kill(child.pid, signal.SIGCONT)
                    await asyncio.sleep(0.1)
                    late = server.got[count:]
                    assert len(late) <= 1 and all(int(path[1:]) < stopped for path in late), late
            finally:
                child.kill()
                child.wait()
                child.stdin.close(); child.stdout.close()
    asyncio.run(main())


def test_an_unheard_cancel_is_not_repeated_without_the_right() -> None:
    """It may have left: it stays in doubt, is looked into, and ends with the venue's word."""
    symbol, qty, limit = VENUES['binanceus']
    with trading('binanceus', timeout_s=0.5) as (there, venue, right):
        name = client_id('main', 'test', 1)
        venue.submit(approved(venue, Intent(symbol, Side.BUY, qty, OrderType.LIMIT, limit=limit, ts=SystemClock().now()), name))
        heard(venue, Accepted)
        there.fault({'fault': 'server_error', 'status': 503, 'op': 'cancel', 'count': 1})
        venue.cancel(name)
        right_lost = heard(venue, Lost)
        right.held = False
        assert right_lost.client_id == name
        time.sleep(0.3)
        assert not [e for e in venue.drain() if isinstance(e, CancelRejected)]
        there.call(lambda: there.exchange.cancel('main', client_id=name))
        assert heard(venue, Cancelled).client_id == name


def test_a_retry_is_a_retry() -> None: assert not issubclass(Fenced, Retry)      # nobody asks again by rote
