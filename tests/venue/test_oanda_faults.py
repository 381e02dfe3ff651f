"""OANDA under the other faults of the plan: limits, maintenance, the matching, rules that change, markets that close, tokens and certificates."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from oanda_desk import LIMIT, SYMBOL, D, Desk, desk

from gekko.domain.errors import Halt, Retry
from gekko.domain.order import OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=6.0) as it: yield it


# --- limits and maintenance

def test_429_on_a_submit_is_a_refusal_and_the_quota_is_obeyed(d: Desk) -> None:
    d.there.fault({'fault': 'throttle', 'op': 'submit', 's': 1})
    assert 'not sent' in d.expect(d.buy('500'), S.REJECTED).reason
    began = time.monotonic()
    again = d.buy('500')
    d.until(lambda: d.state(again) in (S.FILLED, S.REJECTED))
    assert time.monotonic() - began > 0.5 or d.state(again) is S.REJECTED      # it waited for its turn, or was told that the turn is too far away
    d.agree()


def test_cancels_go_out_while_the_rest_waits(d: Desk) -> None:
    names = [d.buy('10', LIMIT, limit='1.00000') for _ in range(4)]
    for n in names: d.expect(n, S.ACCEPTED)
    d.there.fault({'fault': 'throttle', 'op': 'submit', 's': 3})
    d.expect(d.buy('500'), S.REJECTED)
    began = time.monotonic()
    for n in names: d.venue.cancel(n)
    for n in names: d.expect(n, S.CANCELLED)
    assert time.monotonic() - began < 2.5
    time.sleep(3.1)                                           # what may wait waits
    d.agree()


def test_maintenance_is_waited_out(d: Desk) -> None:
    resting = d.buy('500', LIMIT, limit='1.09000')
    d.expect(resting, S.ACCEPTED)
    d.there.fault({'fault': 'maintenance', 's': 2})
    with pytest.raises(Retry): d.venue.cash()
    during = d.buy('100')
    d.until(lambda: d.state(during) in (S.UNKNOWN, S.REJECTED))
    d.there.set_price(SYMBOL, '1.08900')                      # it fills while nobody can tell
    d.expect(resting, S.FILLED, s=15)
    d.expect(during, S.REJECTED, s=15)
    d.agree(15)


# --- the matching

def test_partial_fills_are_each_said_once(d: Desk) -> None:
    d.there.fault({'fault': 'partial_fills', 'parts': 5, 'op': 'submit'})
    name = d.buy('500', LIMIT, limit='1.10001')
    d.expect(name, S.FILLED)
    assert d.said(name).count('Filled') == len(d.deals()) > 1 and len(d.made()[name]) == len(d.deals())
    d.agree()


@pytest.mark.parametrize(('share', 'ends'), [('1', S.FILLED), ('0.4', S.CANCELLED)])
def test_a_fill_that_races_a_cancel_is_kept(d: Desk, share: str, ends: S) -> None:
    name = d.buy('500', LIMIT, limit='1.00000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'cancel_race', 'share': share})
    d.venue.cancel(name)
    assert d.expect(name, ends).filled == D(500) * D(share)
    if ends is S.FILLED: d.until(lambda: 'CancelRejected' in d.said(name))
    d.agree()


# --- the rules change, markets close

def test_a_coarser_grid_is_learnt_from_the_first_refusal(d: Desk) -> None:
    d.there.fault({'fault': 'precision', 'symbol': SYMBOL, 'tick': '0.001', 'lot': '10'})
    assert 'PRICE_PRECISION_EXCEEDED' in d.expect(d.buy('500', LIMIT, limit='1.00001'), S.REJECTED).reason
    d.until(lambda: str(d.venue.instruments()[SYMBOL].tick) == '0.001')
    assert 'precision: limit' in d.expect(d.buy('500', LIMIT, limit='1.00001'), S.REJECTED).reason
    d.expect(d.buy('500', LIMIT, limit='1.001'), S.ACCEPTED)
    d.agree()


@pytest.mark.parametrize('fault', ['halted', 'session_close'])
def test_a_market_that_closes_fills_nothing_and_the_others_do(d: Desk, fault: str) -> None:
    resting = d.buy('100', LIMIT, limit='1.09000')
    d.expect(resting, S.ACCEPTED)
    d.there.fault({'fault': fault, 'symbol': SYMBOL})
    assert d.expect(d.buy('500'), S.REJECTED).reason == 'MARKET_HALTED: the market is closed'
    d.until(lambda: not d.venue.instruments()[SYMBOL].tradable)
    d.expect(d.buy('50', LIMIT, limit='1.08000'), S.ACCEPTED)  # a pending order waits for the opening
    d.expect(d.buy('100', symbol='GBP-USD'), S.FILLED)
    assert d.venue.quote(SYMBOL).bid and d.state(resting) is S.ACCEPTED
    d.agree()


def test_an_instrument_that_is_delisted_is_refused(d: Desk) -> None:
    d.there.fault({'fault': 'delisted', 'symbol': SYMBOL})
    assert d.expect(d.buy('500'), S.REJECTED).reason
    d.expect(d.buy('100', symbol='GBP-USD'), S.FILLED)
    d.agree()


def test_a_weekend() -> None:
    "From Friday 17:00 to Sunday 17:00 in New York nothing trades, and the list says so; what waits, waits."
    from gekko.domain.time import DAY, HOUR, SystemClock
    saturday = (2 - SystemClock().now() // DAY) % 7 * DAY + 12 * HOUR - SystemClock().now() % DAY      # 1970-01-03 was one; its noon in UTC
    with desk(timeout_s=1.0, session='real') as d:
        d.there.advance(saturday // 1_000_000_000)
        d.venue.refresh()
        assert not any(i.tradable for i in d.venue.instruments().values())
        assert d.expect(d.buy('500'), S.REJECTED).reason == 'MARKET_HALTED: the market is closed'
        waiting = d.buy('100', LIMIT, limit='1.09000')
        d.expect(waiting, S.ACCEPTED)
        d.there.set_price(SYMBOL, '1.08000')
        d.there.advance(36 * 3600)                             # Sunday midnight
        d.there.set_price(SYMBOL, '1.08500')
        d.expect(waiting, S.FILLED)
        d.until(lambda: d.venue.refresh()[SYMBOL].tradable)
        d.agree()


# --- who we are, and when

def test_a_clock_that_is_off_does_not_matter(d: Desk) -> None:
    "Requests carry no time here; what is dated is dated by the venue."
    d.there.fault({'fault': 'clock_skew', 's': 300})
    d.expect(d.buy('500'), S.FILLED)
    d.agree()


def test_a_revoked_token_halts_and_no_order_is_lost_sight_of(d: Desk) -> None:
    name = d.buy('500', LIMIT, limit='1.00000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'revoked_key'})
    assert '401' in d.expect(d.buy('100'), S.REJECTED).reason
    with pytest.raises(Halt, match='wrong or revoked'): d.venue.cash()
    assert 'revoked' in d.venue.health()['halt']
    d.venue.cancel(name)
    d.until(lambda: 'CancelRejected' in d.said(name))
    assert d.state(name) is S.ACCEPTED


@pytest.mark.parametrize('fault', ['expired_certificate', 'wrong_host'])
def test_a_certificate_that_is_not_good_any_more_ends_it(fault: str) -> None:
    with desk(timeout_s=1.0, tls=True) as d:
        d.expect(d.buy('500'), S.FILLED)
        time.sleep(0.5)      # a connection whose handshake is under way would outlive the certificate it was shown
        d.there.fault({'fault': fault, 's': 0})
        name = d.buy('100')
        assert 'not sent' in d.expect(name, S.REJECTED).reason and 'certificate' in d.tracker.get(name).reason
        with pytest.raises(Retry, match='certificate'): d.venue.cash()
