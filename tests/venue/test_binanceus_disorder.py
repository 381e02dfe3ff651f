"""Binance.US's own stream mute, cut, spoilt and out of order, its limits, races and new precision: no lost, doubled or phantom fill."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from binanceus_stage import BTC, D, Desk, S, reason, stage

from gekko.domain.errors import Retry
from gekko.domain.order import CancelRejected, Lost, TimeInForce

@pytest.fixture
def desk() -> Iterator[Desk]:
    with stage() as d: yield d


def cancel_rejected(desk: Desk, name: str) -> bool: return any(isinstance(e, CancelRejected) and e.client_id == name for e in desk.heard)
def lost(desk: Desk, name: str) -> bool: return any(isinstance(e, Lost) and e.client_id == name for e in desk.heard)


# --- the stream

def test_duplicate_and_disordered_fills(desk: Desk) -> None:
    desk.fault({'fault': 'duplicate_fill', 'op': 'own', 'count': 3}, {'fault': 'out_of_order_fill', 'op': 'own', 'count': 2}, {'fault': 'partial_fills', 'op': 'submit', 'parts': 5})
    name = desk.send('buy', '2')
    assert len(desk.expect(name, S.FILLED).fill_ids) == 5
    resting = desk.limit('buy', '2', 95)
    desk.expect(resting, S.ACCEPTED)
    desk.fault({'fault': 'out_of_order_fill', 'op': 'own', 'count': 2}, {'fault': 'duplicate_fill', 'op': 'own', 'count': 2})
    desk.market('94.9', '0.05')
    desk.market('94.8')
    desk.expect(resting, S.FILLED)
    desk.quiet(0.5)
    desk.audit()


@pytest.mark.parametrize('fault', ['gap', 'truncated', 'html', 'huge'])
def test_fills_lost_on_the_stream(desk: Desk, fault: str) -> None:
    "Messages are dropped or spoilt while an order fills: REST tells what the stream did not."
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': fault, 'op': 'own', 'n': 4, 'count': 1 if fault == 'gap' else 3, **({'mb': 6} if fault == 'huge' else {})})
    desk.market('94.9', '0.05')
    desk.market('94.8')
    desk.expect(name, S.FILLED, patience_s=8)
    desk.audit()


@pytest.mark.parametrize('fault', ['mute', 'half_open'])
def test_a_stream_that_says_nothing(desk: Desk, fault: str) -> None:
    "Connected and silent: the fill is found over REST within some seconds, and the stream is replaced."
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': fault, 'op': 'own', 's': 30})
    desk.market(94)
    desk.expect(name, S.FILLED, patience_s=8)
    desk.until(lambda: desk.venue.health()['own_stream']['connects'] > 1, 10)
    desk.audit()


def test_a_lost_connection_is_repaired(desk: Desk) -> None:
    "Fills and a cancel while the stream is away are said when it is back, once each."
    names = [desk.limit('buy', '2', 95), desk.limit('buy', '2', 96), desk.limit('buy', '2', 50)]
    for name in names: desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': 'disconnect', 'op': 'own', 's': 0.3})
    desk.market('95.5', '0.01')
    desk.market(94)
    for name in names[:2]: desk.expect(name, S.FILLED)
    desk.until(lambda: desk.venue.health()['own_stream']['up'])
    after = desk.send('buy', '1')
    desk.expect(after, S.FILLED)
    desk.audit()


def test_a_key_that_expires_is_asked_for_again(desk: Desk) -> None:
    desk.box.advance(3601)
    desk.until(lambda: desk.venue.health()['own_stream']['connects'] > 1, 8)
    name = desk.send('buy', '2')
    desk.expect(name, S.FILLED)
    desk.audit()


# --- limits

def test_429_is_obeyed(desk: Desk) -> None:
    "A submit that is refused for its rate was not processed: it waits as told and goes out once."
    desk.fault({'fault': 'throttle', 'op': 'submit', 's': 1})
    began = time.monotonic()
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    assert time.monotonic() - began >= 1.0 and desk.words(name) == ['Accepted']
    desk.audit()


def test_429_beyond_patience_is_a_clear_rejection(desk: Desk) -> None:
    desk.fault({'fault': 'throttle', 'op': 'submit', 's': 60})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.REJECTED)
    assert 'not sent' in reason(desk, name) and desk.truth() == {}
    with pytest.raises(Retry): desk.venue.quote(BTC)


def test_418_stops_everything(desk: Desk) -> None:
    desk.fault({'fault': 'throttle', 'op': 'public', 's': 60, 'ban': True})
    with pytest.raises(Retry): desk.venue.quote(BTC)
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.REJECTED)
    assert desk.venue.health()['throttle']['banned_s'] > 50 and desk.truth() == {}


# --- races, parts, precision

@pytest.mark.parametrize('share', ['1', '0.5'])
def test_cancel_against_fill(desk: Desk, share: str) -> None:
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': 'cancel_race', 'op': 'cancel', 'share': share})
    desk.venue.cancel(name)
    order = desk.expect(name, S.FILLED if share == '1' else S.CANCELLED)
    assert order.filled == (2 if share == '1' else 1)
    if share == '1': desk.until(lambda: cancel_rejected(desk, name))
    desk.audit()


def test_partial_fills(desk: Desk) -> None:
    desk.fault({'fault': 'partial_fills', 'op': 'submit', 'parts': 7})
    name = desk.send('buy', '2', tif=TimeInForce.IOC)
    assert len(desk.expect(name, S.FILLED).fill_ids) == 7
    desk.audit()


def test_precision_changes_in_mid_session(desk: Desk) -> None:
    "A coarser grid refuses the order, is noticed, and the next order fits; a finer one is noticed before the order is refused."
    desk.fault({'fault': 'precision', 'symbol': BTC, 'tick': '0.5', 'lot': '0.01'})
    old = desk.limit('buy', '2', '95.01')
    desk.expect(old, S.REJECTED)
    assert 'PRICE_FILTER' in reason(desk, old)
    desk.until(lambda: desk.venue.instruments()[BTC].tick == D('0.5'))
    desk.expect(desk.limit('buy', '2', '95.5'), S.ACCEPTED)
    desk.fault({'fault': 'precision', 'symbol': BTC, 'tick': '0.001', 'lot': '0.00001'})
    desk.quiet(1.1)
    desk.expect(desk.limit('buy', '2', '95.001'), S.ACCEPTED)
    desk.audit()
