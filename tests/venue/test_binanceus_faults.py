"""Binance.US as a whole in trouble: clocks, maintenance, halts, keys, certificates, addresses, and everything at once."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
import time
from binanceus_stage import BTC, Desk, S, reason, stage

from gekko.domain.errors import BadInput, Halt, Retry
from gekko.domain.order import CancelRejected, Filled, Lost

@pytest.fixture
def desk() -> Iterator[Desk]:
    with stage() as d: yield d


def cancel_rejected(desk: Desk, name: str) -> bool: return any(isinstance(e, CancelRejected) and e.client_id == name for e in desk.heard)
def lost(desk: Desk, name: str) -> bool: return any(isinstance(e, Lost) and e.client_id == name for e in desk.heard)


# --- the venue as a whole

def test_the_clock_is_off_by_a_minute(desk: Desk) -> None:
    "The venue's clock jumps: the next request is refused (-1021), the offset is measured again, and it goes out once."
    for skew in (60, -120):
        desk.fault({'fault': 'clock_skew', 's': skew})
        name = desk.limit('buy', '2', 95)
        desk.expect(name, S.ACCEPTED)
    assert abs(desk.venue.health()['clock_offset_s'] + 60) < 1
    assert len(desk.venue.open_orders()) == 2
    desk.audit()


def test_our_clock_is_off_at_the_start() -> None:
    with stage(connect=False) as desk:
        desk.box.advance(-3600)
        desk.venue.connect()
        desk.expect(desk.send('buy', '2'), S.FILLED)
        desk.audit()


def test_maintenance(desk: Desk) -> None:
    "Down for two seconds: orders meanwhile are Unknown and then told; afterwards everything is as it was."
    resting = desk.limit('buy', '2', 95)
    desk.expect(resting, S.ACCEPTED)
    desk.fault({'fault': 'maintenance', 's': 2})
    during = desk.limit('buy', '2', 94)
    desk.expect(during, S.REJECTED, S.ACCEPTED, patience_s=12)
    desk.until(lambda: desk.venue.health()['own_stream']['up'], 12)
    desk.market(94)
    desk.expect(resting, S.FILLED, patience_s=8)
    desk.audit()


def test_session_close_and_delisting(desk: Desk) -> None:
    resting = desk.limit('buy', '2', 95)
    desk.expect(resting, S.ACCEPTED)
    desk.fault({'fault': 'session_close', 'symbol': BTC})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.REJECTED)
    desk.venue.cancel(resting)      # cancels are taken on symbols that don't trade
    desk.expect(resting, S.CANCELLED)
    desk.audit()


def test_a_revoked_key_halts(desk: Desk) -> None:
    desk.fault({'fault': 'revoked_key'})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.REJECTED)
    assert '-2015' in reason(desk, name) and '-2015' in desk.venue.health()['halted']
    with pytest.raises(Halt): desk.venue.open_orders()
    with pytest.raises(Halt): desk.venue.connect()
    asked = len(desk.box.server.faults.done)
    second = desk.limit('buy', '2', 95)
    desk.expect(second, S.REJECTED)
    assert 'halted' in reason(desk, second) and len(desk.box.server.faults.done) == asked and desk.truth() == {}


@pytest.mark.parametrize(('wrong', 'code'), [({'key': 'x' * 64}, '-2015'), ({'secret': 'x' * 64}, '-1022')])
def test_a_wrong_key_halts_at_connect(wrong: dict[str, str], code: str) -> None:
    with stage(connect=False, card=lambda c: {**c, **wrong}) as desk:
        with pytest.raises(Halt, match=code): desk.venue.connect()
        assert 'x' * 64 not in repr(desk.venue.health())


def test_nobody_there() -> None:
    with stage(connect=False, card=lambda c: {**c, 'rest': 'http://127.0.0.1:1', 'ws': 'ws://127.0.0.1:1'}) as desk:
        with pytest.raises(Retry, match='connection refused'): desk.venue.connect()


def test_a_backup_takes_over() -> None:
    with stage(card=lambda c: {**c, 'rest': 'http://127.0.0.1:1', 'ws': 'ws://127.0.0.1:1', 'backup': [{'rest': c['rest'], 'ws': c['ws']}]}, connect=False) as desk:
        for _ in range(6):
            try: desk.venue.connect()
            except Retry: continue
            break
        desk.expect(desk.send('buy', '2'), S.FILLED)
        assert not desk.venue.health()['hosts']['primary']
        desk.audit()


def test_tls_and_an_expired_certificate() -> None:
    "Verified TLS with a pinned authority; when the certificate expires nothing is said to it any more."
    with stage(options={'tls': True}) as desk:
        assert desk.box.card['rest'].startswith('https://')
        name = desk.limit('buy', '2', 95)
        desk.expect(name, S.ACCEPTED)
        time.sleep(0.5)      # a connection whose handshake is under way would outlive the certificate it was shown
        desk.fault({'fault': 'expired_certificate', 's': 0})
        with pytest.raises(Retry, match='expired'): desk.venue.open_orders()
        refused = desk.limit('buy', '2', 94)
        desk.expect(refused, S.REJECTED, patience_s=10)
        assert 'not sent' in reason(desk, refused) and len(desk.truth()) == 1


def test_credentials_of_another_venue_are_refused() -> None:
    with pytest.raises(BadInput, match='binanceus'), stage(card=lambda c: {**c, 'venue': 'coinbase'}): pass


def test_a_storm(desk: Desk) -> None:
    "Everything at once, several times: the books still agree."
    desk.fault({'fault': 'drop_answer', 'op': 'submit', 'after': 1, 'count': 3}, {'fault': 'duplicate_fill', 'op': 'own', 'count': 3}, {'fault': 'out_of_order_fill', 'op': 'own', 'count': 5},
                   {'fault': 'partial_fills', 'op': 'submit', 'count': 6, 'parts': 4}, {'fault': 'drop_answer', 'op': 'cancel', 'count': 2}, {'fault': 'cancel_race', 'op': 'cancel', 'share': '0.5'},
                   {'fault': 'server_error', 'op': 'query', 'count': 3}, {'fault': 'disconnect', 'op': 'own', 'after': 6, 's': 0.2}, {'fault': 'html', 'op': 'submit', 'after': 9, 'processed': True})
    names: list[str] = []
    for n in range(14):
        names.append(desk.send('buy', '1') if n % 2 else desk.limit('buy', '2', 95 - n % 3))
        if n % 4 == 2: desk.venue.cancel(names[-1])
        if n % 5 == 4: desk.market('94.5', '0.02')
        desk.quiet(0.03)
    desk.market(90)
    for name in names: desk.expect(name, S.FILLED, S.CANCELLED, S.REJECTED, patience_s=15)
    desk.quiet(0.5)
    assert sum(isinstance(e, Filled) for e in desk.heard) > 10
    desk.audit()
