"""Asking a venue over real sockets: what came back, what surely never left, and what may have happened."""
import asyncio
import contextlib
import gzip
import itertools
import logging
import random
import re
import socket
import struct
import time
import traceback
import tracemalloc
import zlib
from pathlib import Path

import pytest

import gekko
from gekko.domain.errors import BadInput, GekkoError, Reject, Retry
from gekko.domain.time import SystemClock
from gekko.venue.wire.breaker import BreakerRules
from gekko.venue.wire.http import SEATS, Answer, Ask, Http, Unheard
from gekko.venue.wire.message import LIMIT
from gekko.venue.wire.secret import Access, Address, Credentials, Secret
from gekko.venue.wire.throttle import Quota, Throttle, used_header

KEY, SECRET = 'vmPUZE6mv9SD5VNHk4HlWFsOr6aK', 'NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XA'
NOBODY = Address('http://127.0.0.1:1')
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"ok":1}'


class Venue:
    """A server that answers each request with the next deed of its script; the last one stays. `whole` holds every request that it got entirely."""

    def __init__(self, *script):
        self.script, self.whole, self.connections = list(script) or [OK], [], 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, '127.0.0.1', 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = Address(f'http://127.0.0.1:{self.port}', f'ws://127.0.0.1:{self.port}')
        self.open = set()
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for t in list(self.open): t.cancel()

    async def serve(self, reader, writer):
        self.connections += 1
        self.open.add(asyncio.current_task())
        try:
            if self.script[0] == 'close at once': return
            while True:
                head = await reader.readuntil(b'\r\n\r\n')
                length = int((re.search(rb'(?i)content-length: (\d+)', head) or [0, 0])[1])
                body = await reader.readexactly(length)
                self.whole.append((head, body))
                deed = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if callable(deed): deed = deed(head, body)
                if deed == 'drop': return
                if deed == 'reset':
                    writer.get_extra_info('socket').setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                    writer.transport.abort()
                    return
                if deed == 'mute': await asyncio.sleep(30)
                if isinstance(deed, bytes):
                    writer.write(deed)
                    await writer.drain()
                    if b'x-hang-up' in deed.lower(): return
                elif isinstance(deed, list):     # pieces with pauses between
                    for piece in deed:
                        if isinstance(piece, float): await asyncio.sleep(piece)
                        else:
                            writer.write(piece)
                            await writer.drain()
                    return
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, ConnectionError): pass
        finally:
            self.open.discard(asyncio.current_task())
            writer.close()


def said(body, status='200 OK', headers='', hang_up=False, length=None):
    body = body if isinstance(body, bytes) else body.encode()
    extra = headers + ('X-Hang-Up: 1\r\n' if hang_up else '')
    return f'HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n{extra}\r\n'.encode() + body


def reach(*addresses, **settings):
    access = Access('binanceus', tuple(a.address if isinstance(a, Venue) else a for a in addresses), Credentials('main', Secret(KEY), Secret(SECRET)))
    return Http(access, SystemClock(), **{'timeout_s': 2.0, 'connect_s': 1.0, **settings})


def order(kind='submit', method='POST', path='/api/v3/order', **more):
    return lambda address: Ask(kind, method, f'{path}?symbol=BTCUSD&signature=c8db56825ae71d6d79447849e617115f', {'X-MBX-APIKEY': KEY}, b'quantity=1', **more)


def go(coro): return asyncio.run(coro)


async def outcome(http, make):
    try: return await http.ask(make)
    except GekkoError as e: return e
    finally: await http.close()


# ---- the one distinction

UNHEARD = {
    'accepted, then dropped': 'drop', 'reset': 'reset', 'mute': 'mute', 'closed before a byte was read': 'close at once',
    'half of the head': b'HTTP/1.1 200 OK\r\nContent-', 'half of the body': said('{"orderId": 1', length=100, hang_up=True), 'JSON that is cut off': said('{"orderId": 1'),
    'half of the chunks': b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Hang-Up: 1\r\n\r\n5\r\n{"a":\r\n', 'no HTTP at all': b'SSH-2.0-OpenSSH_9.6\r\nX-Hang-Up\r\n\r\n',
    'an empty body': said(''), 'a page': said('<!DOCTYPE html><html><title>Maintenance</title>'), 'a page by its type': said('sorry', headers='Content-Type: text/html\r\n'),
    '500': said('{"code":-1000}', '500 Oops'), '502 page': said('<html>', '502 Bad Gateway'), '503': said('{"code":-1001}', '503 Busy'), '504': said('', '504 Timeout'),
    'a redirect': said('', '307 Temporary Redirect', 'Location: http://127.0.0.1:1/\r\n'), 'a body that is too big': said('', length=LIMIT + 1),
    'a broken gzip': said(b'{"a":1}', headers='Content-Encoding: gzip\r\n'), 'half of a gzip': said(gzip.compress(b'{"a":1}')[:-9], headers='Content-Encoding: gzip\r\n'),
    'an unknown coding': said(b'{}', headers='Content-Encoding: br\r\n')}


@pytest.mark.parametrize('kind', ['submit', 'cancel'])
@pytest.mark.parametrize('deed', UNHEARD, ids=str)
def test_a_write_that_may_have_left_is_unheard_and_sent_once(deed, kind):
    async def main():
        async with Venue(UNHEARD[deed]) as venue, Venue() as backup:
            found = await outcome(reach(venue, backup, timeout_s=0.3), order(kind))
            assert isinstance(found, Unheard), found
            assert len(venue.whole) == (0 if deed.startswith('closed before') else 1)
            assert backup.whole == []
    go(main())


def test_a_write_that_surely_never_left_is_a_plain_retry():
    async def main():
        closed = await outcome(reach(NOBODY), order())
        unknown = await outcome(reach(Address('https://no-such-host.invalid')), order())
        async with Venue() as venue:
            async def answers_in_plain(reader, writer):
                await reader.read(1)
                writer.write(said('', '400 Bad Request'))
                writer.close()
            plain_server = await asyncio.start_server(answers_in_plain, '127.0.0.1', 0)
            plain = await outcome(reach(Address(f'https://127.0.0.1:{plain_server.sockets[0].getsockname()[1]}')), order())
            plain_server.close()
            silent = await outcome(reach(Address(venue.address.rest.replace('http', 'https', 1)), connect_s=0.2), order())     # waits for more of the handshake
            assert venue.whole == []
            throttle = Throttle([Quota('orders', 1, 60)], SystemClock())
            http = reach(venue, throttle=throttle)
            assert (await http.ask(order(weight_class='orders'))).status == 200
            throttled = await outcome(http, order(weight_class='orders'))
            assert len(venue.whole) == 1
        for found, word in ((closed, 'connection refused'), (unknown, 'no such host'), (plain, 'does not speak TLS'), (silent, 'no connection in time'), (throttled, 'throttled')):
            assert type(found) is Retry and word in str(found), found
    go(main())


def test_a_connection_that_is_never_answered_is_a_plain_retry():
    """A listening socket whose queue is full drops new connections: nothing of ours can have arrived."""
    async def main():
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(('127.0.0.1', 0)); full.listen(0)
            for _ in range(8):
                s = stack.enter_context(socket.socket())
                s.setblocking(False)
                with contextlib.suppress(BlockingIOError): s.connect(full.getsockname())
            found = await outcome(reach(Address(f'http://127.0.0.1:{full.getsockname()[1]}'), connect_s=0.2, timeout_s=1.0), order())
        assert type(found) is Retry and 'no connection in time' in str(found), found
    go(main())


def test_429_and_418_on_a_submit_come_before_any_processing():
    async def main():
        for status, after in (('429 Too Many Requests', 7.0), ('418 Teapot', 180.0)):
            async with Venue(said('{"code":-1003}', status, f'Retry-After: {after:g}\r\n')) as venue, Venue() as backup:
                http = reach(venue, backup)
                found = await outcome(http, order())
                assert type(found) is Retry and found.after_s == after and found.values['status'] == int(status[:3]), found
                assert len(venue.whole) == 1 and backup.whole == []
    go(main())


def test_what_a_submit_says_agrees_with_what_the_venue_got():
    """400 submits against a venue with a mind of its own: whatever it processed is answered or unheard, and nothing arrives twice."""
    deeds = ['drop', 'reset', OK, OK, OK, said('{"code":-2010}', '400 Bad Request'), said('<html>', '503 x'), said('{"a"'), b'HTTP/1.1 200 OK\r\nX-Hang-Up', said('', '429 x')]

    async def main():
        luck, refused = random.Random(7), set()

        def decide(head, body):
            deed = luck.choice(deeds)
            if b' 429 ' in deed[:13] if isinstance(deed, bytes) else False: refused.add(int(re.search(rb'/order/(\d+)', head)[1]))
            return deed

        async with Venue(decide) as venue:
            http = reach(venue, NOBODY, rules=BreakerRules(failure_threshold=10**6), failover_after=10**6)
            alone = reach(NOBODY, venue, rules=BreakerRules(failure_threshold=10**6), failover_after=10**6)
            results = {}

            async def submit(n):
                make = lambda a: Ask('submit', luck.choice(('POST', 'PUT', 'DELETE')), f'/order/{n}', body=b'x' * luck.randrange(100))
                try: results[n] = (await (http if n % 2 else alone).ask(make)).status
                except GekkoError as e: results[n] = type(e)
            for batch in (range(i, i + 20) for i in range(0, 400, 20)):
                await asyncio.gather(*(submit(n) for n in batch))
            await http.close(); await alone.close()
        got = [int(re.search(rb'/order/(\d+)', head)[1]) for head, _ in venue.whole]
        assert len(got) == len(set(got)), 'sent twice'
        for n, result in results.items():
            if result in (200, 400): assert n in got
            elif result is Retry: assert n not in got or n in refused       # nothing happened: never arrived, or answered with 429
            else: assert result is Unheard
        assert {200, 400, Unheard, Retry} == set(results.values()) and refused
    go(main())


def test_a_kept_connection_that_died_is_not_used_to_send_a_write_twice():
    """The server hangs up as the second request arrives on a kept connection: for PUT and DELETE some clients then quietly send again."""
    async def main():
        for method in ('PUT', 'DELETE', 'POST'):
            async with Venue(OK, 'drop', OK) as venue:
                http = reach(venue)
                assert (await http.ask(order('query', 'GET'))).status == 200
                found = await outcome(http, order('submit', method))
                assert isinstance(found, Unheard) and len(venue.whole) == 2 and venue.connections == 1
    go(main())


def test_an_idle_connection_that_was_closed_costs_nothing():
    async def main():
        async with Venue(said('{"ok":1}', hang_up=True)) as venue:
            http = reach(venue)
            for _ in range(3):
                assert (await http.ask(order())).status == 200
                await asyncio.sleep(0.02)
            assert len(venue.whole) == 3 and venue.connections == 3
            await http.close()
    go(main())


# ---- reads

def test_a_read_is_read_again_until_it_is_answered():
    async def main():
        async with Venue('drop', said('<html>', '502 x'), OK) as venue:
            metrics = []
            http = reach(venue, on_metric=lambda name, v: metrics.append(name))
            answer = await outcome(http, order('query', 'GET'))
            assert answer.json() == {'ok': 1} and len(venue.whole) == 3
            assert metrics.count('http.retries.query') == 2 and 'http.failures.query' not in metrics
    go(main())


def test_a_read_that_never_succeeds_says_why_and_stops():
    async def main():
        async with Venue(said('<html><title>Down for maintenance</title>', '200 OK')) as venue:
            found = await outcome(reach(venue), order('account', 'GET'))
            assert type(found) is Retry and 'Down for maintenance' in str(found) and len(venue.whole) == 3
    go(main())


def test_a_mute_primary_leaves_time_for_the_backup():
    async def main():
        async with Venue('mute') as venue, Venue() as backup:
            began = time.monotonic()
            answer = await outcome(reach(venue, backup, timeout_s=1.0), order('query', 'GET'))
            assert isinstance(answer, Answer) and answer.status == 200 and time.monotonic() - began < 0.9
    go(main())


def test_a_429_on_a_read_is_waited_out_when_there_is_time():
    async def main():
        async with Venue(said('{}', '429 x', 'Retry-After: 0.3\r\n'), OK) as venue:
            began = time.monotonic()
            answer = await outcome(reach(venue, throttle=Throttle([Quota('w', 10, 60)], SystemClock())), order('query', 'GET', weight_class='w'))
            assert answer.status == 200 and 0.28 < time.monotonic() - began < 1.5
    go(main())


def test_slow_drips_end_with_the_time():
    async def main():
        async with Venue([b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n', *itertools.chain(*((b'{', 0.05) for _ in range(100)))]) as venue:
            began = time.monotonic()
            found = await outcome(reach(venue, timeout_s=0.3), order())
            assert isinstance(found, Unheard) and time.monotonic() - began < 1.0
    go(main())


def test_bodies_are_bounded_in_memory_and_time():
    async def main():
        endless = [b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', *([b'10000\r\n' + b'1' * 65536 + b'\r\n'] * 400)]
        bomb = said(gzip.compress(bytes(100 << 20)), headers='Content-Encoding: gzip\r\n')
        headers = b'HTTP/1.1 200 OK\r\n' + b''.join(b'X-%d: %s\r\n' % (n, b'x' * 1000) for n in range(300)) + b'\r\n'
        for deed, word in ((endless, 'above'), (bomb, 'above'), (said('', length=100 << 20), 'above'), (headers, 'headers above')):
            async with Venue(deed) as venue:
                tracemalloc.start()
                found = await outcome(reach(venue, attempts=1, timeout_s=60), order('query', 'GET'))
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert type(found) is Retry and word in str(found), found
                assert peak < 3 * LIMIT, f'{word}: {peak >> 20} MB'
    go(main())


def test_a_body_of_just_the_limit_passes_and_gzip_is_unpacked():
    async def main():
        most = b'"' + b'x' * (LIMIT - 2) + b'"'
        async with Venue(said(zlib.compress(most), headers='Content-Encoding: deflate\r\n'), said(gzip.compress(b'{"p": 0.10}'), headers='Content-Encoding: gzip\r\n')) as venue:
            http = reach(venue)
            assert len((await http.ask(order('query', 'GET'))).body) == LIMIT
            assert str((await http.ask(order('query', 'GET'))).json()['p']) == '0.10'
            await http.close()
    go(main())


# ---- what is sent

def test_the_signed_text_leaves_byte_for_byte():
    async def main():
        path = "/api/v3/order?b=2&a=%7E~%20+%2F/:;,@!$'()*&sig=A%3D%3D&x=|<>"
        async with Venue() as venue:
            http = reach(venue)
            await http.ask(lambda a: Ask('query', 'GET', path, {'Accept-Encoding': 'identity', 'X-Key': KEY}))
            await http.ask(lambda a: Ask('submit', 'POST', '/x', {'Content-Type': 'application/json'}, b'{"a": "\xc3\xa9"}'))
            await http.close()
        head, _ = venue.whole[0]
        assert head.split(b' ')[1].decode() == path
        assert head.lower().count(b'accept-encoding') == 1 and b'cookie' not in head.lower()
        assert venue.whole[1][1] == b'{"a": "\xc3\xa9"}' and b'Content-Type: application/json' in venue.whole[1][0]
    go(main())


def test_redirects_cookies_and_proxies_are_not_followed(monkeypatch):
    async def main():
        async with Venue() as elsewhere, Venue(said('{"a":1}', headers='Set-Cookie: session=1; Path=/\r\n')) as venue:
            for name in ('HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy'): monkeypatch.setenv(name, elsewhere.address.rest)
            http = reach(venue)
            for _ in range(2): await http.ask(order('query', 'GET'))
            assert all(b'cookie' not in head.lower() for head, _ in venue.whole) and len(venue.whole) == 2
            venue.script = [said('', '302 Found', f'Location: {elsewhere.address.rest}/\r\n')]
            assert isinstance(await outcome(http, order('query', 'GET')), Retry)
            assert elsewhere.connections == 0
    go(main())


def test_a_request_that_waited_is_signed_anew():
    async def main():
        async with Venue() as venue:
            made = itertools.count()
            http = reach(venue, throttle=Throttle([Quota('w', 1, 0.2)], SystemClock()))
            for _ in range(2): await http.ask(lambda a: Ask('submit', 'POST', f'/{next(made)}', weight_class='w'))
            await http.close()
        assert [head.split(b' ')[1] for head, _ in venue.whole] == [b'/1', b'/3']      # 0 was signed before there was a connection, 2 before there was room
    go(main())


def test_malformed_requests_are_bad_input_and_nothing_leaves():
    async def main():
        async with Venue() as venue:
            for wrong in ({'X-Key': f'{KEY}\r\nX-Other: 1'}, {'X-Key': f'{KEY}✓'}, {'X Key': KEY}):
                found = await outcome(reach(venue), lambda a, h=wrong: Ask('submit', 'POST', '/', h))
                assert isinstance(found, BadInput) and KEY not in str(found)
            for url in ('/a b', '/é', 'ftp://x/', 'http://'):
                found = await outcome(reach(venue), lambda a, u=url: Ask('submit', 'POST', u))
                assert isinstance(found, (BadInput, Retry)) and not isinstance(found, Unheard), found
            assert venue.whole == []
    go(main())


# ---- secrets

OURS = str(Path(gekko.__file__).parent)      # the package's own files, wherever it lies


def test_no_secret_in_any_error_log_or_traceback(caplog):
    """Whatever goes wrong: neither key nor signature is in the error, in what it chains to, in the locals of our frames, or in any library's log."""
    hidden = (KEY, SECRET, 'c8db56825ae71d6d')

    async def main():
        errors = []
        with caplog.at_level(logging.DEBUG):
            for deed in [*UNHEARD.values(), said(f'{{"msg":"bad key {KEY}"}}', '500 x'), said(f'<title>{KEY}</title>', '500 x')]:
                async with Venue(deed) as venue:
                    for kind in ('submit', 'query'): errors.append(await outcome(reach(venue, timeout_s=0.3, attempts=1), order(kind)))
            errors.append(await outcome(reach(NOBODY), order()))
            http = reach(NOBODY)
            for call in (http.websocket(f'/ws?listenKey={KEY}', {'X-MBX-APIKEY': KEY}), http.lines(order('stream', 'GET'))):
                try: await call
                except GekkoError as e: errors.append(e)
            await http.close()
        return errors

    errors = go(main())
    assert len(errors) > 40 and all(isinstance(e, GekkoError) for e in errors)
    for e in errors:
        assert e.__cause__ is None and e.__context__ is None
        frames = [str(s.locals) for s in traceback.TracebackException.from_exception(e, capture_locals=True).stack if s.filename.startswith(OURS)]
        text = '\n'.join([str(e), repr(e), repr(e.values), *frames])
        assert not any(h in text for h in hidden), text
    logged = '\n'.join(r.getMessage() + str(r.args) for r in caplog.records)
    assert not any(h in logged for h in hidden)


# ---- hosts

def test_the_backup_takes_over_and_gives_back_when_servers_die_and_return():
    async def main():
        primary, backup = Venue(), Venue()
        moves = []
        async with backup:
            await primary.__aenter__()
            http = reach(primary, backup, probe_every_s=0.05, on_metric=lambda n, v: moves.append(v) if n == 'hosts.switched' else None)
            ask = order('query', 'GET')
            assert (await http.ask(ask)).status == 200 and len(primary.whole) == 1
            await primary.__aexit__()
            await primary.server.wait_closed()
            for _ in range(5): assert (await http.ask(ask)).status == 200      # no call fails
            assert http.address == backup.address and moves == [1.0]
            submitted = len(backup.whole)
            assert (await http.ask(order())).status == 200 and len(backup.whole) == submitted + 1
            again = Venue()
            again.server = await asyncio.start_server(again.serve, '127.0.0.1', primary.port)
            again.open = set()
            for _ in range(100):
                if http.hosts.on_primary: break
                await asyncio.sleep(0.02)
            assert http.address == primary.address and moves == [1.0, 0.0]
            assert (await http.ask(ask)).status == 200 and again.whole[-1][0].startswith(b'GET /api/v3/order')
            await http.close()
            again.server.close()
    go(main())


def test_a_submit_goes_to_the_backup_only_when_it_surely_did_not_reach_the_primary():
    async def main():
        async with Venue() as backup, Venue('drop') as dropping:
            assert (await outcome(reach(NOBODY, backup), order())).status == 200 and len(backup.whole) == 1
            assert isinstance(await outcome(reach(dropping, backup), order()), Unheard) and len(backup.whole) == 1
    go(main())


def test_a_primary_that_answers_its_probe_with_an_error_is_not_taken_back():
    async def main():
        async with Venue(said('<html>', '503 x')) as primary, Venue() as backup:
            http = reach(primary, backup, probe_every_s=0.03)
            for _ in range(4): await http.ask(order('query', 'GET'))
            await asyncio.sleep(0.2)
            assert not http.hosts.on_primary and sum(head.startswith(b'GET / ') for head, _ in primary.whole) >= 2
            await http.close()
    go(main())


# ---- breakers

def test_one_probe_at_a_time_with_a_hundred_callers():
    async def main():
        async with Venue('drop') as venue:
            http = reach(venue, rules=BreakerRules(failure_threshold=2, recovery_timeout_s=0.2, success_threshold=1))
            for _ in range(2):
                with contextlib.suppress(Unheard): await http.ask(order())
            refused = await asyncio.gather(*(http.ask(order()) for _ in range(100)), return_exceptions=True)
            assert {type(e) for e in refused} == {Retry} and len(venue.whole) == 2
            await asyncio.sleep(0.25)
            venue.script = [[0.1, OK]]
            found = await asyncio.gather(*(http.ask(order()) for _ in range(100)), return_exceptions=True)
            assert sum(isinstance(a, Answer) for a in found) == 1 and len(venue.whole) == 3
            assert (await http.ask(order())).status == 200 and http.breaker('submit').state == 'closed'
            await http.close()
    go(main())


def test_a_cancelled_caller_gives_the_probes_place_back():
    async def main():
        async with Venue('mute') as venue:
            http = reach(venue, rules=BreakerRules(failure_threshold=1, recovery_timeout_s=0.05, success_threshold=1), timeout_s=0.1)
            with contextlib.suppress(Unheard): await http.ask(order())
            await asyncio.sleep(0.06)
            probe = asyncio.create_task(http.ask(order(), timeout_s=30))
            await asyncio.sleep(0.03)
            probe.cancel()
            with contextlib.suppress(asyncio.CancelledError): await probe
            venue.script = [OK]
            assert (await http.ask(order())).status == 200
            await http.close()
    go(main())


def test_refusals_by_the_venue_open_no_breaker():
    async def main():
        async with Venue(said('{"code":-2010}', '400 Bad Request')) as venue:
            http = reach(venue, rules=BreakerRules(failure_threshold=2))
            for _ in range(20): assert (await http.ask(order())).status == 400
            assert http.health()['breakers'] == {'submit': 'closed'}
            await http.close()
    go(main())


def test_quotas_are_learnt_from_answers():
    async def main():
        async with Venue(said('{}', headers='X-MBX-USED-WEIGHT-1M: 1190\r\n')) as venue:
            throttle = Throttle([Quota('weight', 1200, 60, reserved=50, aligned=True)], SystemClock(), [used_header('X-MBX-USED-WEIGHT-1M', 'weight')])
            http = reach(venue, throttle=throttle, timeout_s=0.3)
            assert (await http.ask(order('query', 'GET', cost=5, weight_class='weight'))).status == 200
            assert type(await outcome(http, order('query', 'GET', cost=5, weight_class='weight'))) is Retry
            http = reach(venue, throttle=throttle, timeout_s=0.3)
            assert (await outcome(http, order('cancel', 'DELETE', cost=1, weight_class='weight'))).status == 200
    go(main())


# ---- chunked streams

def test_lines_of_a_chunked_stream_and_its_ends():
    start = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'

    def chunk(data): return b'%x\r\n%s\r\n' % (len(data), data)

    async def main():
        make = lambda a: Ask('stream', 'GET', '/v3/pricing/stream', {'Authorization': f'Bearer {KEY}'})
        async with Venue([start, chunk(b'{"a":1}\n{"b"'), 0.05, chunk(b':2}\n\n'), chunk(b'{"half')]) as venue:
            http, got = reach(venue), []
            with pytest.raises(Retry, match='connection lost'):
                async for line in http.stream(make): got.append(line)
            assert got == [b'{"a":1}', b'{"b":2}']
        async with Venue([start, chunk(b'{"a":1}\n'), 5.0]) as venue:
            lines = await (http := reach(venue)).lines(make, quiet_s=0.1)
            assert await lines.receive() == b'{"a":1}'
            with pytest.raises(Retry, match='silent'): await lines.receive()
            await lines.close(); await lines.close(); await http.close()
        for deed, kind in ((said('{"errorMessage":"Insufficient authorization"}', '401 x'), Reject), (said('{}', '503 x'), Retry), (said('<html>', '200 OK', 'Content-Type: text/html\r\n'), Retry), ('drop', Retry)):
            async with Venue(deed) as venue:
                http = reach(venue)
                with pytest.raises(kind) as e: await http.lines(make)
                assert type(e.value) is kind
                if kind is Reject: assert e.value.values['status'] == 401 and 'Insufficient' in e.value.values['body']
                await http.close()
        async with Venue([start, chunk(b'{"a":1}\n'), 5.0]) as venue:      # closed with a stream still open
            http = reach(venue)
            lines = await http.lines(make)
            await lines.receive()
            await http.close()
            with pytest.raises(Retry): await lines.receive()
    go(main())


def test_many_reads_at_once_are_all_answered_over_few_connections():
    async def main():
        async with Venue(lambda head, body: said(b'"%s"' % head.split(b' ')[1])) as venue:
            http = reach(venue, timeout_s=120)
            answers = await asyncio.gather(*(http.ask(lambda a, n=n: Ask('public', 'GET', f'/{n}')) for n in range(500)))
            assert [a.json() for a in answers] == [f'/{n}' for n in range(500)] and venue.connections <= SEATS
            await http.close()
    go(main())


def test_a_cancel_passes_reads_that_hang():
    async def main():
        async with Venue(lambda head, body: OK if head.startswith(b'DELETE') else 'mute') as venue:
            http = reach(venue, timeout_s=30)
            reads = [asyncio.create_task(http.ask(order('query', 'GET'))) for _ in range(200)]
            await asyncio.sleep(0.1)
            assert (await asyncio.wait_for(http.ask(order('cancel', 'DELETE')), 10)).status == 200 and not any(r.done() for r in reads)
            late = await outcome(reach(venue, timeout_s=0.2), order('query', 'GET'))
            assert type(late) is Retry
            with pytest.raises(Retry, match='take too long'): await http.ask(order('query', 'GET'), timeout_s=0.1)
            for r in reads: r.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
            await http.close()
    go(main())
