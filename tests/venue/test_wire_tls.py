"""TLS over real sockets: sound certificates are believed, all others refused before a byte of a request leaves, and the error says which."""
import asyncio
import socket
import ssl
import threading
from datetime import datetime, timezone

import pytest
import trustme

from gekko.domain.errors import BadInput, Retry
from gekko.domain.time import SystemClock
from gekko.venue.wire.http import Ask, Http, Unheard
from gekko.venue.wire.secret import Access, Address, Credentials, Secret
from gekko.venue.wire.tls import client_context


def at(year): return datetime(year, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Certificates of every kind, from an authority that we pin and from one that we don't."""
    ours, stranger = trustme.CA(), trustme.CA()
    pin = tmp_path_factory.mktemp('ca') / 'ca.pem'
    ours.cert_pem.write_to_path(str(pin))
    return pin, {'sound': ours.issue_cert('localhost'), 'expired': ours.issue_cert('localhost', not_before=at(2019), not_after=at(2020)), 'early': ours.issue_cert('localhost', not_before=at(2090), not_after=at(2091)),
                 'wrong host': ours.issue_cert('api.example.org'), 'wrong address': ours.issue_cert('127.0.0.2'), 'stranger': stranger.issue_cert('localhost'), 'self-signed': ours.issue_cert('localhost')}


def serving(certificate, **settings):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in settings.items(): setattr(context, name, value)
    return context


class Server:
    """A TLS server that answers any request and counts the bytes that it can read."""
    def __init__(self, context): self.context, self.read = context, 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, '127.0.0.1', 0, ssl=self.context)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_): self.server.close()

    async def serve(self, reader, writer):
        try:
            head = await reader.readuntil(b'\r\n\r\n')
            self.read += len(head)
            if b'Upgrade: websocket' in head or b'upgrade: websocket' in head: writer.write(b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n')
            else: writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}')
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError): pass
        finally: writer.close()


async def knock(server, ca, host='localhost'):
    """What a submit, a WebSocket and a chunked stream say of this server."""
    address = Address(f'https://{host}:{server.port}', f'wss://{host}:{server.port}')
    said = []
    for call in (lambda h: h.ask(lambda a: Ask('submit', 'POST', '/order', body=b'x')), lambda h: h.websocket('/ws'), lambda h: h.lines(lambda a: Ask('stream', 'GET', address.rest + '/stream'))):
        http = Http(Access('test', (address,), Credentials('main', Secret('key')), ca), SystemClock(), timeout_s=3.0)
        try:
            await call(http)
            said.append('connected')
        except Exception as e:
            assert not isinstance(e, Unheard), e
            said.append(e)
        await http.close()
    return said


REFUSED = {'expired': 'has expired', 'early': 'not valid yet', 'wrong host': 'for another host', 'stranger': 'an authority we do not trust'}


@pytest.mark.parametrize('kind', REFUSED)
def test_a_wrong_certificate_refuses_before_anything_is_sent(made, kind):
    async def main():
        pin, certificates = made
        async with Server(serving(certificates[kind])) as server:
            for said in await knock(server, pin): assert type(said) is Retry and REFUSED[kind] in str(said), said
            assert server.read == 0
    asyncio.run(main())


def test_a_certificate_for_another_address_is_refused(made):
    async def main():
        pin, certificates = made
        async with Server(serving(certificates['wrong address'])) as server:
            for said in await knock(server, pin, '127.0.0.1'): assert type(said) is Retry and 'for another' in str(said), said
            assert server.read == 0
    asyncio.run(main())


def test_a_sound_certificate_of_the_pinned_authority_is_believed(made):
    async def main():
        pin, certificates = made
        async with Server(serving(certificates['sound'])) as server:
            submit, ws, lines = await knock(server, pin)
            assert submit == lines == 'connected' and '401' in str(ws) and server.read > 0      # it was asked, and answered
    asyncio.run(main())


def test_without_the_pin_our_authority_is_a_stranger(made):
    async def main():
        _, certificates = made
        async with Server(serving(certificates['sound'])) as server:
            for said in await knock(server, None): assert type(said) is Retry and 'do not trust' in str(said)
            assert server.read == 0
    asyncio.run(main())


@pytest.mark.filterwarnings('ignore:ssl.TLSVersion')
@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=['1.0', '1.1'])
def test_old_tls_is_refused(made, version):
    """The server is a plain thread, since asyncio's hangs up without sending the alert that says why."""
    pin, certificates = made
    context = serving(certificates['sound'])
    context.set_ciphers('ALL:@SECLEVEL=0')
    context.minimum_version = context.maximum_version = version
    shaken = []

    def serve(listening):
        while True:
            try: s, _ = listening.accept()
            except OSError: return
            with s:
                try: shaken.append(context.wrap_socket(s, server_side=True).version())
                except OSError: pass

    with socket.create_server(('127.0.0.1', 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        server = type('At', (), {'port': listening.getsockname()[1]})
        for said in asyncio.run(knock(server, pin)): assert type(said) is Retry and 'older than 1.2' in str(said), said
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(pin)
        old.set_ciphers('ALL:@SECLEVEL=0')
        old.minimum_version = version
        with old.wrap_socket(socket.create_connection(listening.getsockname()), server_hostname='localhost') as s: assert s.version() in ('TLSv1', 'TLSv1.1')    # it does serve those who ask for it
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert len(shaken) == 1


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=['1.2', '1.3'])
def test_new_tls_is_spoken(made, version):
    async def main():
        pin, certificates = made
        async with Server(serving(certificates['sound'], minimum_version=version, maximum_version=version)) as server:
            assert (await knock(server, pin))[0] == 'connected'
    asyncio.run(main())


def test_the_environment_neither_adds_trust_nor_keeps_session_keys(made, tmp_path, monkeypatch):
    async def main():
        pin, certificates = made
        keys = tmp_path / 'keys.log'
        monkeypatch.setenv('SSL_CERT_FILE', str(pin))
        monkeypatch.setenv('SSLKEYLOGFILE', str(keys))
        async with Server(serving(certificates['sound'])) as server:
            assert all(isinstance(said, Retry) for said in await knock(server, None))
            assert (await knock(server, pin))[0] == 'connected' and not keys.exists()
    asyncio.run(main())


def test_a_backup_with_a_sound_certificate_takes_over_from_an_expired_primary(made):
    async def main():
        pin, certificates = made
        async with Server(serving(certificates['expired'])) as bad, Server(serving(certificates['sound'])) as good:
            http = Http(Access('test', tuple(Address(f'https://localhost:{s.port}') for s in (bad, good)), Credentials('main', Secret('key')), pin), SystemClock(), timeout_s=3.0)
            for _ in range(4): assert (await http.ask(lambda a: Ask('query', 'GET', '/'))).json() == {}
            assert http.address.rest.endswith(str(good.port)) and 'expired' in str(http.health()['hosts']) and bad.read == 0
            await http.close()
    asyncio.run(main())


def test_a_pin_that_is_no_certificate_is_bad_input(tmp_path):
    empty = tmp_path / 'ca.pem'
    empty.write_text('')
    for wrong in (empty, tmp_path / 'nowhere.pem', tmp_path):
        with pytest.raises(BadInput, match='CA to pin'): client_context(wrong)
