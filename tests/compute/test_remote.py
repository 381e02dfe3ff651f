"""A network on another machine: a real server, real sockets, and every way in which it may fail a caller who has no time."""
import json
import logging
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gekko.compute.bearer import Caller, Flight, Token, Tokens
from gekko.compute.breaker import Rest
from gekko.compute.cost import Meter, Nodes, OverBudget, Price, node_hours
from gekko.compute.devices import Device
from gekko.compute.fallback import Fallback, NoAnswer
from gekko.compute.https import Broken, Connection, address
from gekko.compute.network import Network, Port
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Failed, Late, Nonsense, Unsupported, load
from gekko.compute.remote import NETWORK, Remote, Resting, column, decode, encode, label, places
from gekko.compute.serving import serve
from gekko.domain.errors import BadInput
from gekko.domain.time import HOUR, SECOND, SystemClock

CLOCK = SystemClock()
NAME = 'projects/p/locations/us-central1/endpoints/e'
X = {'x': np.array([[1, 2, 3]], np.float32)}


def soon(s: float = 5.0) -> int: return CLOCK.monotonic() + round(s * SECOND)


class Endpoint(ThreadingHTTPServer):
    """y = 2x behind Vertex AI's predict. `moods` are taken one a call: what to do instead of answering well."""
    daemon_threads = allow_reuse_address = True

    def __init__(self, digest: str, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.open = set[socket.socket]()
        self.moods, self.seen, self.tokens, self.connections, self.over = list[Any](), list[int](), list[str](), 0, threading.Event()
        self.deployed, self.good = '7', lambda token: True
        self.said: dict[str, Any] = {'labels': {NETWORK: label(digest)}, 'trafficSplit': {'7': 100}, 'deployedModels': [
            {'id': '7', 'createTime': '2026-01-05T08:00:00Z', 'dedicatedResources': {'machineSpec': {'machineType': 'n1-standard-2'}, 'minReplicaCount': 1}}]}
        super().__init__(('127.0.0.1', port), Handler)
        if context: self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f'http{"s" if context else ""}://{"localhost" if context else "127.0.0.1"}:{self.server_address[1]}'
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def get_request(self) -> Any:
        self.connections += 1
        out = super().get_request()
        self.open.add(out[0])
        return out

    def handle_error(self, request: Any, client_address: Any) -> None: pass

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
        for s in self.open:
            try: s.shutdown(socket.SHUT_RDWR)
            except OSError: pass


class Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = 'HTTP/1.1', True
    server: Endpoint

    def log_message(self, *about: Any) -> None: pass

    def say(self, status: int, data: bytes, more: dict[str, str] | None = None, drip: float = 0) -> None:
        head = f'HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n' + ''.join(f'{k}: {v}\r\n' for k, v in (more or {}).items()) + '\r\n'
        out = head.encode() + data
        for at in range(0, len(out), 1 if drip else len(out)):
            self.wfile.write(out[at:at + (1 if drip else len(out))])
            if drip and self.server.over.wait(drip): return

    def do_GET(self) -> None: self.say(200, json.dumps(self.server.said).encode())

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['instances']
        token = self.headers['Authorization'].removeprefix('Bearer ')
        self.server.seen.append(len(rows))
        self.server.tokens.append(token)
        mood = self.server.moods.pop(0) if self.server.moods else None
        if not self.server.good(token): return self.say(401, json.dumps({'error': {'code': 401, 'message': f'bad token {token}', 'status': 'UNAUTHENTICATED'}}).encode())
        good = json.dumps({'predictions': [{'y': [2 * v for v in r['x']]} for r in rows], 'deployedModelId': self.server.deployed}).encode()
        if mood is None: return self.say(200, good)
        mood(self, good)


Mood = Callable[[Handler, bytes], None]


def status(code: int, after: str = '') -> Mood:
    return lambda h, good: h.say(code, json.dumps({'error': {'code': code, 'message': 'no', 'status': 'S'}}).encode(), {'Retry-After': after} if after else {})


def says(data: bytes) -> Mood: return lambda h, good: h.say(200, data)


def hang(h: Handler, good: bytes) -> None: h.server.over.wait(60)
def drop(h: Handler, good: bytes) -> None: h.close_connection = True
def drip(h: Handler, good: bytes) -> None: h.say(200, good, drip=0.05)
def cut(h: Handler, good: bytes) -> None:
    h.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n' + good)
    h.close_connection = True


@pytest.fixture
def net(make: Any) -> Network: return make(batches=(1, 4))


@pytest.fixture
def far(net: Network) -> Iterator[Endpoint]:
    yield (e := Endpoint(net.digest))
    e.close()


class Fetched:
    """Tokens by number, so that it shows which one was used."""

    def __init__(self, s: float = 3600) -> None: self.n, self.s = 0, s

    def __call__(self) -> Token:
        self.n += 1
        return Token(f'ya29.token-{self.n}', CLOCK.now() + round(self.s * SECOND))


def remote(far: Endpoint, **how: Any) -> Remote: return Remote(far.url, NAME, Tokens(how.pop('fetch', Fetched()), CLOCK), CLOCK, **how)


def made(far: Endpoint, net: Network, **how: Any) -> Any: return load(remote(far, **how), net, CLOCK, (1,))


# -- answers

def test_it_answers_what_the_network_answers(far: Endpoint, net: Network) -> None:
    there, here = load(remote(far), net, CLOCK), load(Onnx(Device('cpu')), net, CLOCK)
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    assert np.array_equal(there.run({'x': x})['y'], here.run({'x': x})['y'])
    assert far.seen[-3:] == [4, 4, 1], 'the batch sizes of the artefact'
    assert there.name == 'remote' and '127.0.0.1' in there.provider.made_of and NAME in there.provider.made_of


@settings(max_examples=200, deadline=None)
@given(a=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_travel_bit_for_bit(a: np.ndarray) -> None:
    one = Network(Path('.'), '', (), (Port('x', a.shape[1:]),), (Port('y', a.shape[1:]),))
    rows = json.loads(encode(one, {'x': a}))['instances']
    assert column(rows, 'x').tobytes() == (a + 0.0 if not np.signbit(a).any() else a).tobytes()
    back, by = decode(one, json.dumps({'predictions': [{'y': r['x']} for r in rows], 'deployedModelId': '7'}).encode())
    assert back[0].tobytes() == a.tobytes() and by == '7'


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(['predictions', 'y', 'deployedModelId']), x), max_leaves=12).map(lambda x: json.dumps(x).encode())))
def test_an_odd_answer_is_nonsense_and_nothing_worse(body: bytes) -> None:
    one = Network(Path('.'), '', (), (Port('x', (2,)),), (Port('y', (2,)),))
    try: out, _ = decode(one, body)
    except Nonsense: return
    assert out[0].dtype == np.float32


def test_the_connection_is_kept(far: Endpoint, net: Network) -> None:
    one = made(far, net)
    for _ in range(20): one.run(X)
    assert far.connections == 1


def test_an_answer_in_chunks_keeps_the_connection_and_half_of_one_is_broken(far: Endpoint, net: Network) -> None:
    def chunks(h: Handler, good: bytes) -> None: h.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + b''.join(b'%x\r\n%s\r\n' % (len(p), p) for p in (good[:7], good[7:])) + b'0\r\n\r\n')

    def half(h: Handler, good: bytes) -> None:
        h.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n' + good[:7] + b'\r\n')
        h.close_connection = True
    one = made(far, net)
    far.moods[:] = [chunks, chunks]
    for _ in range(3): assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]]
    assert far.connections == 1
    far.moods[:] = [half, half]
    with pytest.raises(Broken): one.run(X, soon())


def test_several_threads_at_once(far: Endpoint, net: Network) -> None:
    one = made(far, net)
    out, errors = dict[int, Any](), list[Exception]()

    def work(i: int) -> None:
        try: out[i] = one.run({'x': np.full((1, 3), i, np.float32)}, soon())['y'][0, 0]
        except Exception as e: errors.append(e)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors and out == {i: 2.0 * i for i in range(16)} and far.connections <= 17


# -- what it serves

@pytest.mark.parametrize(('change', 'says_'), [
    ({'labels': {NETWORK: 'ab' * 31}}, 'another network'), ({'labels': {}}, 'no label'), ({'trafficSplit': {'7': 50, '8': 50}}, 'one deployment'), ({'deployedModels': []}, 'one deployment')])
def test_an_endpoint_that_serves_something_else_is_refused(far: Endpoint, net: Network, change: dict[str, Any], says_: str) -> None:
    far.said |= change
    with pytest.raises(Unsupported, match=says_): made(far, net)
    assert not far.seen, 'nothing was asked of it'


def test_traffic_that_was_moved_is_noticed_at_the_next_answer(far: Endpoint, net: Network) -> None:
    one = made(far, net)
    far.deployed = '8'
    with pytest.raises(Nonsense, match='deployment 8 answered, expected 7'): one.run(X)


def test_an_address_without_tls_is_only_for_this_machine() -> None:
    for bad in ('http://example.com', 'http://10.0.0.1', 'ftp://127.0.0.1', 'https://user:pass@example.com', 'https://example.com/path', 'example.com'):
        with pytest.raises(BadInput): address(bad)
    assert str(address('http://[::1]:80')) == 'http://::1:80' and address('https://example.com').port == 443


@pytest.mark.parametrize('endpoint', ['e', 'projects/p/locations/r/endpoints/', 'projects/p/locations/r/models/m', 'projects/p/locations/r/endpoints/e/x/y'])
def test_an_endpoint_has_a_full_name(endpoint: str) -> None:
    with pytest.raises(BadInput): Remote('http://127.0.0.1:1', endpoint, Tokens(Fetched(), CLOCK), CLOCK)


# -- faults, each within the deadline

@pytest.mark.parametrize(('mood', 'error', 'kind'), [
    (hang, Late, 'late'), (drip, Late, 'late'), (status(504), Failed, 'raised'), (status(403), Failed, 'raised'), (status(404), Failed, 'raised'),
    (says(b'<html>'), Nonsense, 'nonsense'), (says(b'{"predictions": [{"y": [NaN, 1, 2]}], "deployedModelId": "7"}'), Nonsense, 'nonsense'),
    (says(b'{"predictions": [{"y": [null, 1, 2]}], "deployedModelId": "7"}'), Nonsense, 'nonsense'), (says(b'{"predictions": [{"y": [1, 2]}], "deployedModelId": "7"}'), Nonsense, 'nonsense'),
    (says(b'{"predictions": [{"y": [1, 2, 3]}, {"y": [1, 2, 3]}], "deployedModelId": "7"}'), Nonsense, 'nonsense'),
    (says(b'{"predictions": [{"y": [1, 2, 3]}]}'), Nonsense, 'nonsense'), (says(b'{"predictions": [{"y": [1e39, 2, 3]}], "deployedModelId": "7"}'), Nonsense, 'nonsense')])
def test_each_fault_ends_within_the_deadline(far: Endpoint, net: Network, mood: Mood, error: type[Failed], kind: str) -> None:
    one = made(far, net)
    far.moods += [mood] * 3
    start = time.monotonic()
    with pytest.raises(error) as e: one.run(X, soon(0.3))
    assert time.monotonic() - start < 0.6 and e.value.kind == kind
    far.moods.clear()
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]], 'the next call is fine, on a connection that holds nothing of the last'


@pytest.mark.parametrize('mood', [status(500), status(502), status(503), status(503, '0')])
def test_trouble_on_their_side_is_tried_once_more(far: Endpoint, net: Network, mood: Mood) -> None:
    one = made(far, net)
    far.moods[:] = [mood]
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]] and len(far.seen) == 3
    far.moods[:] = [mood, mood]
    with pytest.raises(Failed): one.run(X, soon())
    assert len(far.seen) == 5


def test_a_retry_that_would_not_fit_is_not_made(far: Endpoint, net: Network) -> None:
    one = made(far, net)
    far.moods[:] = [status(503)]
    with pytest.raises(Failed): one.run(X, soon(0.08))
    assert len(far.seen) == 2


@pytest.mark.parametrize('mood', [drop, cut])
def test_a_connection_dropped_after_the_request(far: Endpoint, net: Network, mood: Mood) -> None:
    """A kept connection may have been dead before, so it is tried on a fresh one; one that was fresh is not."""
    one = made(far, net)
    far.moods[:] = [mood]
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]] and far.connections == 2
    far.moods[:] = [mood, mood]
    with pytest.raises(Broken): one.run(X, soon())


def test_a_server_that_came_back_is_found_at_once(net: Network) -> None:
    first = Endpoint(net.digest)
    one, port = made(first, net), first.server_address[1]
    first.close()
    with pytest.raises(Failed): one.run(X, soon(0.5))
    again = Endpoint(net.digest, port=port)
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]]
    again.close()


def test_nobody_there(net: Network) -> None:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        nobody = f'http://127.0.0.1:{s.getsockname()[1]}'
    with pytest.raises(Failed) as e: load(Remote(nobody, NAME, Tokens(Fetched(), CLOCK), CLOCK), net, CLOCK)
    assert 'refused' in str(e.value)


@pytest.mark.parametrize('stopped', [False, True])
def test_a_connection_that_is_never_accepted_ends_in_time(stopped: bool) -> None:
    """The kernel's queue of a listener that accepts nobody is full: a connect hangs, as one does to a host that is gone."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen(0)
        full = []
        for _ in range(4):
            c = socket.socket()
            c.setblocking(False)
            c.connect_ex(s.getsockname())
            full.append(c)
        line = Connection(address(f'http://127.0.0.1:{s.getsockname()[1]}'), CLOCK)
        if stopped: threading.Timer(0.1, line.stop).start()
        start = time.monotonic()
        with pytest.raises(Failed): line.call('GET', '/', soon(5 if stopped else 0.2))
        assert time.monotonic() - start < 1
        for c in full: c.close()


def test_a_call_is_stopped_from_another_thread(far: Endpoint, net: Network) -> None:
    one = made(far, net, retries=3)
    far.moods[:] = [hang] * 4
    threading.Timer(0.1, one.stop).start()
    start = time.monotonic()
    with pytest.raises(Failed): one.run(X, soon(30))
    assert time.monotonic() - start < 1 and len(far.seen) == 2
    far.moods.clear()
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]]


def test_a_request_that_nobody_reads_ends_in_time() -> None:
    """Sending has the same deadline: the server reads nothing and the buffers fill."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen(1)
        line, start = Connection(address(f'http://127.0.0.1:{s.getsockname()[1]}'), CLOCK), time.monotonic()
        with pytest.raises(Late): line.call('POST', '/', soon(0.3), body=b'x' * 50_000_000)
        assert time.monotonic() - start < 1


def test_a_request_that_is_read_in_sips_ends_in_time() -> None:
    """Each send succeeds soon, and all of them together take seconds."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen(1)

        def sip() -> None:
            c, _ = s.accept()
            try:
                while c.recv(200_000): time.sleep(0.01)
            except OSError: pass
        threading.Thread(target=sip, daemon=True).start()
        line, start = Connection(address(f'http://127.0.0.1:{s.getsockname()[1]}'), CLOCK), time.monotonic()
        with pytest.raises(Late): line.call('POST', '/', soon(0.3), body=b'x' * 50_000_000)
        assert time.monotonic() - start < 0.8


def test_a_kept_connection_that_the_server_closed_is_seen_before_something_is_sent_on_it(far: Endpoint) -> None:
    """So that a call which may not be sent twice, as a deployment, need not be."""
    caller = Caller(address(far.url), Tokens(Fetched(), CLOCK), CLOCK)
    for _ in range(3):
        assert caller.call('POST', f'/v1/{NAME}:predict', soon(), b'{"instances": []}', again=False).status == 200
        for s in list(far.open):
            try: s.shutdown(socket.SHUT_RDWR)
            except OSError: pass
        time.sleep(0.05)
    assert far.connections == 3


def test_an_answer_without_end_is_refused() -> None:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen(1)

        def pour() -> None:
            c, _ = s.accept()
            c.recv(1000)
            c.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
            try:
                while True: c.sendall(b'x' * 100_000)
            except OSError: pass
        threading.Thread(target=pour, daemon=True).start()
        with pytest.raises(Broken, match='more than 1000000 bytes'): Connection(address(f'http://127.0.0.1:{s.getsockname()[1]}'), CLOCK, most=1_000_000).call('GET', '/', soon())


# -- rest, tokens, money

def test_429_is_respected_by_resting_and_not_by_sleeping(far: Endpoint, net: Network) -> None:
    one = made(far, net)
    far.moods[:] = [status(429, '1')]
    start, before = time.monotonic(), len(far.seen)
    with pytest.raises(Failed) as e: one.run(X, soon())
    assert e.value.after_s == 1.0 and time.monotonic() - start < 0.5
    while time.monotonic() - start < 0.8:
        with pytest.raises(Resting) as resting: one.run(X, soon())
        assert resting.value.kind == 'open' and resting.value.after_s <= 1
        time.sleep(0.05)
    assert len(far.seen) == before + 1, 'nothing was sent meanwhile'
    time.sleep(max(0, start + 1.1 - time.monotonic()))
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]]


@pytest.mark.parametrize('after', ['', 'soon', '-5', 'Wed, 21 Oct 2026 07:28:00 GMT', '9' * 400])
def test_an_odd_wish_for_rest_is_a_rest_of_our_own(far: Endpoint, net: Network, after: str) -> None:
    one = made(far, net, rest_s=0.2)
    far.moods[:] = [status(429, after)]
    with pytest.raises(Failed): one.run(X, soon())
    with pytest.raises(Resting): one.run(X, soon())
    time.sleep(0.21)
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]]


def test_a_token_that_expired_in_the_middle_is_renewed_once(far: Endpoint, net: Network) -> None:
    fetch = Fetched()
    one = made(far, net, fetch=fetch)
    far.good = lambda token: token.endswith('-2')
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]] and fetch.n == 2 and far.tokens[-2:] == ['ya29.token-1', 'ya29.token-2']
    far.good = lambda token: False
    with pytest.raises(Failed) as e: one.run(X, soon())
    assert fetch.n == 3 and far.tokens[-2:] == ['ya29.token-2', 'ya29.token-3'], 'once, and not for ever'
    assert 'token-3' not in str(e.value) and '****' in str(e.value), 'the server repeated it; we do not'


def test_many_callers_with_a_refused_token_cause_one_fetch() -> None:
    fetch = Fetched()
    def slowly() -> Token: time.sleep(0.05); return fetch()
    tokens = Tokens(slowly, CLOCK)
    first = tokens.current(soon())
    got = list[Token]()
    threads = [threading.Thread(target=lambda: got.append(tokens.renewed(first, soon()))) for _ in range(10)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert fetch.n == 2 and len({id(t) for t in got}) == 1


def test_no_token_in_time_is_late_and_the_next_call_has_it(far: Endpoint, net: Network) -> None:
    fetch, go = Fetched(), threading.Event()
    def slowly() -> Token: go.wait(5); return fetch()
    tokens = Tokens(slowly, CLOCK)
    caller = Caller(address(far.url), tokens, CLOCK)
    with pytest.raises(Late, match='no token'): caller.call('GET', f'/v1/{NAME}', soon(0.05))
    go.set()
    assert caller.call('GET', f'/v1/{NAME}', soon()).status == 200 and fetch.n == 1


def test_a_token_never_shows(far: Endpoint, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    one = made(far, net)
    far.moods[:] = [says(b'{"error": "ya29.token-1"}'), status(500), status(500), drop, drop, hang]
    said = [repr(one), repr(one.provider), str(one.provider._caller.tokens.current(soon())), str(vars(one.provider))]
    for _ in range(4):
        try: one.run(X, soon(0.3))
        except Failed as e: said += [str(e), repr(e), str(e.values), repr(e.__cause__), repr(e.__context__)]
    assert 'ya29' not in ' '.join(said) + caplog.text
    with pytest.raises(TypeError): pickle.dumps(one.provider._caller.tokens.current(soon()))


def test_certificates_are_checked(net: Network) -> None:
    ca, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert('localhost').configure_cert(context)
    far = Endpoint(net.digest, context)
    trusting, doubting = ssl.create_default_context(), ssl.create_default_context()
    ca.configure_trust(trusting)
    other.configure_trust(doubting)
    one = made(far, net, context=trusting)
    assert one.run(X, soon())['y'].tolist() == [[2, 4, 6]] and far.connections == 1
    far.moods[:] = [hang]
    threading.Timer(0.1, one.stop).start()
    with pytest.raises(Failed): one.run(X, soon(30))
    sent = len(far.tokens)
    for context_ in (doubting, None):
        with pytest.raises(Failed, match='certificate verify failed'): made(far, net, context=context_)
    with pytest.raises(Failed, match='(?i)mismatch|doesn.t match|certificate'): load(Remote(far.url.replace('localhost', '127.0.0.1'), NAME, Tokens(Fetched(), CLOCK), CLOCK, context=trusting), net, CLOCK)
    assert len(far.tokens) == sent, 'no token was sent to a server without a right name'
    far.close()


def test_a_handshake_that_hangs_ends_in_time() -> None:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen(1)
        start = time.monotonic()
        with pytest.raises(Late): Connection(address(f'https://127.0.0.1:{s.getsockname()[1]}'), CLOCK).call('GET', '/', soon(0.2))
        assert time.monotonic() - start < 0.6


def test_calls_are_counted_as_the_server_counts_them(far: Endpoint, net: Network) -> None:
    one = load(remote(far), net, CLOCK)
    far.moods[:] = [None, status(503), None, hang, status(500), status(500)]
    for n in (1, 4, 3, 2, 5):
        try: one.run({'x': np.ones((n, 3), np.float32)}, soon(0.3))
        except Failed: pass
    cost = one.provider.cost
    assert (cost.calls, cost.rows) == (len(far.seen), sum(far.seen)) and cost.bytes_out > 0 and cost.bytes_in > 0


def test_a_budget_shuts_it_and_says_so(far: Endpoint, net: Network) -> None:
    """Up since January at 0.1095 an hour: the bill is what it is, whoever asks."""
    hours = (CLOCK.now() - 1767600000 * SECOND) / HOUR
    one = made(far, net)
    assert abs(float(one.provider.cost.usd) - hours * 0.1095) < 0.01
    poor = remote(far, budget=Decimal('1'))
    before = len(far.seen)
    with pytest.raises(Unsupported, match='over budget'): load(poor, net, CLOCK)
    assert len(far.seen) == before
    with pytest.raises(BadInput, match='a price for n1-standard-2'): load(remote(far, budget=Decimal('1'), prices=()), net, CLOCK)
    dear = remote(far, budget=Decimal('1'), prices=(Price('n1-standard-2', 'us-central1', Decimal('0.00001'), 'ours', '2026-01-01'),))
    assert load(dear, net, CLOCK).run(X)['y'].tolist() == [[2, 4, 6]]


@given(st.integers(0, 10**18), st.integers(0, 1000))
def test_node_hours_are_rounded_up_by_at_most_a_step(up: int, n: int) -> None:
    hours = node_hours(up, n)
    assert 0 <= hours * HOUR - up * n < 30 * SECOND * max(1, n) + 1


def test_a_meter_counts_from_threads() -> None:
    meter = Meter(CLOCK, Decimal('0.01'))
    threads = [threading.Thread(target=lambda: [meter.add(1, 2, 3, 4) for _ in range(1000)]) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert (meter.cost().calls, meter.cost().bytes_in) == (8000, 32000)
    meter.check()
    meter.watch(Nodes('e', 'm', 'r', 1, CLOCK.now() - HOUR, Decimal('0.005')))
    meter.check()
    meter.watch(Nodes('e', 'm', 'r', 1, CLOCK.now() - HOUR, Decimal('0.01')))
    with pytest.raises(OverBudget): meter.check()


# -- beside local providers

def local(net: Network, fault: Any = None) -> Any:
    """ONNX Runtime, or one that fails."""
    if fault is None: return load(Onnx(Device('cpu')), net, CLOCK, (1,))
    from gekko.compute.provider import Loaded
    class Bad(Onnx):
        def run(self, inputs: Any) -> Any: return fault(inputs)
        def stop(self) -> None: pass
        def close(self) -> None: pass
    return Loaded(b := Bad(Device('cpu')), net, {1: b}, CLOCK)


@pytest.mark.parametrize(('mood', 'kind'), [(hang, 'hung'), (drip, 'hung'), (status(503), 'raised'), (status(429, '30'), 'raised'), (says(b'<html>'), 'nonsense'), (drop, 'raised')])
def test_remote_preferred_and_local_answers_the_same_call(far: Endpoint, net: Network, mood: Mood, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    f = Fallback([made(far, net), local(net)], CLOCK, Rest(first_s=60))
    assert f.run(X, soon()).provider == 'remote'
    far.moods[:] = [mood] * 9
    start = time.monotonic()
    answer = f.run(X, soon(0.6))
    assert time.monotonic() - start < 0.6
    assert answer.provider == 'onnx-cpu' and answer.outputs['y'].tolist() == [[2, 4, 6]] and [(a.provider, a.kind) for a in answer.attempts] == [('remote', kind)]
    assert f.counted() == {'remote': {'answered': 1, kind: 1}, 'onnx-cpu': {'answered': 1}}
    assert 'onnx-cpu answers instead of remote' in caplog.text
    far.over.set()
    f.release()


def test_local_preferred_and_remote_answers_the_same_call(far: Endpoint, net: Network) -> None:
    def broken(inputs: Any) -> Any: raise RuntimeError('device lost')
    f = Fallback([local(net, broken), made(far, net)], CLOCK, Rest(first_s=60))
    answer = f.run(X, soon(1))
    assert answer.provider == 'remote' and answer.outputs['y'].tolist() == [[2, 4, 6]] and [(a.provider, a.kind) for a in answer.attempts] == [('onnx-cpu', 'raised')]
    assert f.counted() == {'onnx-cpu': {'raised': 1}, 'remote': {'answered': 1}}
    f.release()


def test_both_fail_and_it_is_said_within_the_deadline(far: Endpoint, net: Network) -> None:
    def broken(inputs: Any) -> Any: raise RuntimeError('device lost')
    f = Fallback([local(net, broken), made(far, net)], CLOCK)
    far.moods[:] = [hang]
    start = time.monotonic()
    with pytest.raises(NoAnswer, match='onnx-cpu raised; remote'): f.run(X, soon(0.3))
    assert time.monotonic() - start < 0.6
    far.over.set()
    f.release()


def test_a_resting_remote_costs_nothing_and_is_asked_again_when_its_rest_is_over(far: Endpoint, net: Network) -> None:
    """The breaker of the fallback stays closed: the provider itself knows for how long."""
    f = Fallback([made(far, net), local(net)], CLOCK, Rest(failures=3, first_s=60))
    far.moods[:] = [status(429, '1')]
    start = time.monotonic()
    said = [f.run(X, soon(1)).attempts[0].kind for _ in range(10)]
    assert said == ['raised'] + ['open'] * 9 and f.states['remote'] == 'closed'
    time.sleep(max(0, start + 1.1 - time.monotonic()))
    assert f.run(X, soon(1)).provider == 'remote'
    f.release()


def test_places_follow_the_switch_for_cloud_fallback(far: Endpoint, net: Network, tmp_path: Path) -> None:
    from gekko.compute.choose import WorkloadProfile
    from gekko.compute.measure import Measurements
    from gekko.compute.serving import Place
    here, there = (Place(Onnx(Device('cpu')), Device('cpu')),), remote(far)
    assert [p.provider.name for p in places(here, there, False)] == ['onnx-cpu'] and places(here, None, True) == here
    served = serve(net, places(here, there, True), WorkloadProfile(), Measurements(tmp_path / 'm.json'), CLOCK, runs=5)
    assert [c.provider for c in served.choices] == ['onnx-cpu', 'remote']
    served.fallback.prefer(['remote'])
    assert served.fallback.run(X, soon()).provider == 'remote'
    served.fallback.release()


def test_a_flight_that_was_ended_before_it_began_sends_nothing(far: Endpoint) -> None:
    caller, flight = Caller(address(far.url), Tokens(Fetched(), CLOCK), CLOCK), Flight()
    flight.stop()
    with pytest.raises(Failed, match='was ended'): caller.call('GET', '/', soon(), flight=flight)
    assert far.connections == 0 and flight.calls == 0
