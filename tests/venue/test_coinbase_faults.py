"""Coinbase under the rest of the plan: limits, maintenance, new rules, clocks, keys and certificates."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from coinbase_desk import LIMIT, SYMBOL, Desk, desk

from gekko.domain.errors import Halt, Retry
from gekko.domain.order import OrderState
from gekko.domain.time import SystemClock
from gekko.venue.coinbase.broker import Coinbase
from gekko.venue.sandbox.serve import sandbox
from gekko.venue.wire.secret import access_of

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=2.5) as it: yield it


# --- limits and maintenance

def test_429_on_a_submit_is_a_refusal_and_the_quota_is_obeyed(d: Desk) -> None:
    d.there.fault({'fault': 'throttle', 'op': 'submit', 's': 1})
    name = d.buy('0.5')
    assert 'not sent' in d.expect(name, S.REJECTED).reason
    began = time.monotonic()
    again = d.buy('0.5')
    d.until(lambda: d.state(again) in (S.FILLED, S.REJECTED))
    assert time.monotonic() - began > 0.5 or d.state(again) is S.REJECTED      # it waited for its turn, or was told that the turn is too far away
    d.agree()


def test_cancels_go_out_while_the_rest_waits(d: Desk) -> None:
    names = [d.buy('0.01', LIMIT, limit='50000') for _ in range(4)]
    for n in names: d.expect(n, S.ACCEPTED)
    d.there.fault({'fault': 'throttle', 'op': 'submit', 's': 3})
    d.expect(d.buy('0.5'), S.REJECTED)
    began = time.monotonic()
    for n in names: d.venue.cancel(n)
    for n in names: d.expect(n, S.CANCELLED)
    assert time.monotonic() - began < 2.5
    d.agree()


def test_maintenance_is_waited_out(d: Desk) -> None:
    resting = d.buy('0.5', LIMIT, limit='59000')
    d.expect(resting, S.ACCEPTED)
    d.there.fault({'fault': 'maintenance', 's': 2})
    with pytest.raises(Retry): d.venue.cash()
    during = d.buy('0.1')
    d.until(lambda: d.state(during) in (S.UNKNOWN, S.REJECTED))
    d.there.set_price(SYMBOL, 58900)                      # it fills while nobody can tell
    d.expect(resting, S.FILLED, s=12)
    d.expect(during, S.REJECTED, s=15)
    d.agree()


# --- the rules change

def test_a_finer_or_coarser_grid_is_learnt_from_the_first_refusal(d: Desk) -> None:
    d.there.fault({'fault': 'precision', 'symbol': SYMBOL, 'tick': '0.5', 'lot': '0.001'})
    assert 'PRECISION' in d.expect(d.buy('0.5', LIMIT, limit='50000.01'), S.REJECTED).reason
    d.until(lambda: str(d.venue.instruments()[SYMBOL].tick) == '0.5')
    assert 'precision: size' in d.expect(d.buy('0.0105'), S.REJECTED).reason
    d.expect(d.buy('0.5', LIMIT, limit='50000.5'), S.ACCEPTED)
    d.agree()


@pytest.mark.parametrize('fault', ['halted', 'session_close', 'delisted'])
def test_a_product_that_closes_takes_no_orders_and_the_others_do(d: Desk, fault: str) -> None:
    d.there.fault({'fault': fault, 'symbol': SYMBOL})
    assert d.expect(d.buy('0.5'), S.REJECTED).reason
    d.until(lambda: SYMBOL not in d.venue.instruments() or not d.venue.instruments()[SYMBOL].tradable)
    d.expect(d.buy('1', symbol='ETH-USD'), S.FILLED)


# --- who we are, and when

@pytest.mark.parametrize('s', [300, -300, 61])
def test_a_clock_that_is_off_is_corrected(d: Desk, s: int) -> None:
    d.there.fault({'fault': 'clock_skew', 's': s})
    name = d.buy('0.5')
    d.expect(name, S.FILLED)
    if abs(s) > 120: assert abs(d.venue.health()['clock_offset_s'] - s) < 1
    d.agree()


def test_a_clock_that_was_off_from_the_start_is_corrected() -> None:
    with sandbox('coinbase') as there:
        there.advance(-600)
        venue = Coinbase(access_of(there.card), SystemClock(), timeout_s=2.0)
        venue.connect()
        assert abs(venue.health()['clock_offset_s'] + 600) < 1
        venue.close()


def test_a_revoked_key_halts_and_no_order_is_lost_sight_of(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'revoked_key'})
    refused = d.buy('0.1')
    assert '401' in d.expect(refused, S.REJECTED).reason
    with pytest.raises(Halt, match='wrong or revoked'): d.venue.cash()
    assert 'revoked' in d.venue.health()['halt']
    d.venue.cancel(name)
    d.until(lambda: 'CancelRejected' in d.said(name))
    assert d.state(name) is S.ACCEPTED


@pytest.mark.parametrize('fault', ['expired_certificate', 'wrong_host'])
def test_a_certificate_that_is_not_good_any_more_ends_it(fault: str) -> None:
    with desk(timeout_s=1.0, quiet_s=2.5, tls=True) as d:
        d.expect(d.buy('0.5'), S.FILLED)
        time.sleep(0.5)      # a connection whose handshake is under way would outlive the certificate it was shown
        d.there.fault({'fault': fault, 's': 0})
        name = d.buy('0.1')
        assert 'not sent' in d.expect(name, S.REJECTED).reason and 'certificate' in d.tracker.get(name).reason
        with pytest.raises(Retry, match='certificate'): d.venue.cash()
        d.agree()
