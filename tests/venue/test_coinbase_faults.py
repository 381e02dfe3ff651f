"""Coinbase under each fault of the plan: no order or fill lost, doubled or made up, and the stated reaction."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from coinbase_desk import LIMIT, SYMBOL, D, Desk, desk

from gekko.domain.errors import Halt, Retry
from gekko.domain.order import Order, OrderState
from gekko.domain.time import SystemClock
from gekko.venue.coinbase.broker import Coinbase
from gekko.venue.sandbox.serve import sandbox
from gekko.venue.wire.secret import access_of

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=2.5) as it: yield it


def trade(d: Desk) -> None:
    "A little of everything, while whatever was armed strikes."
    first, resting, doomed = d.buy('0.5'), d.buy('0.2', LIMIT, limit='59000'), d.buy('0.1', LIMIT, limit='50000')
    d.expect(first, S.FILLED)
    d.until(lambda: d.state(resting) is S.ACCEPTED and d.state(doomed) is S.ACCEPTED)
    d.there.set_price(SYMBOL, 58990, '0.015')
    d.until(lambda: d.tracker.get(resting).filled > 0)
    d.venue.cancel(doomed)
    d.there.set_price(SYMBOL, 58000)
    d.expect(resting, S.FILLED)
    d.until(lambda: d.state(doomed).terminal)
    d.expect(d.sell('0.3'), S.FILLED)
    d.agree()


def struck(d: Desk, name: str) -> int: return d.there.call(lambda: sum(x['fault'] == name for x in d.there.server.faults.done))


# --- answers that are late, lost, or nonsense

SPOILED = [{'fault': 'drop_answer'}, {'fault': 'server_error', 'status': 500, 'processed': True}, {'fault': 'server_error', 'status': 503, 'processed': True}, {'fault': 'slow', 's': 1.5},
           {'fault': 'html', 'processed': True}, {'fault': 'truncated'}, {'fault': 'huge', 'mb': 20}]


@pytest.mark.parametrize('fault', SPOILED, ids=lambda f: f['fault'] + str(f.get('status', '')))
@pytest.mark.parametrize('kind', ['market', 'limit'])
def test_a_submit_that_was_taken_and_not_heard_is_found(d: Desk, fault: dict[str, Any], kind: str) -> None:
    d.there.fault({**fault, 'op': 'submit'})
    name = d.buy('0.5') if kind == 'market' else d.buy('0.5', LIMIT, limit='59000')
    d.expect(name, S.FILLED if kind == 'market' else S.ACCEPTED)
    d.agree()
    assert struck(d, fault['fault']) == 1 and len(d.works()) == 1
    assert d.said(name) in ([*lost, 'Accepted', *(['Filled'] if kind == 'market' else []), *late] for lost, late in (([], []), (['Lost'], []), ([], ['Lost'])))


@pytest.mark.parametrize('status', [500, 503])
def test_a_submit_that_never_arrived_is_rejected_once_that_is_proved(d: Desk, status: int) -> None:
    d.there.fault({'fault': 'server_error', 'status': status, 'op': 'submit'})
    name = d.buy('0.5')
    d.expect(name, S.UNKNOWN)
    o = d.expect(name, S.REJECTED, s=12)
    assert o.reason == 'never reached the venue' and d.said(name) == ['Lost', 'Rejected'] and d.works() == {}
    d.expect(d.buy('0.5'), S.FILLED)
    d.agree()


@pytest.mark.parametrize('fault', SPOILED, ids=lambda f: f['fault'] + str(f.get('status', '')))
def test_a_cancel_that_was_not_heard_ends_the_order_all_the_same(d: Desk, fault: dict[str, Any]) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({**fault, 'op': 'cancel'})
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    d.agree()


def test_a_cancel_that_never_arrived_is_asked_again(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'server_error', 'op': 'cancel', 'count': 2})
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    assert 'Lost' in d.said(name)
    d.agree()


def test_an_amend_that_was_not_heard_is_looked_up(d: Desk) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    o = d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'drop_answer', 'op': 'submit'})
    d.venue.amend(d.approve(Order(name, type(o.intent)(SYMBOL, o.side, D('0.7'), LIMIT, D(51000)))))
    d.until(lambda: any(type(e).__name__ in ('Amended', 'AmendRejected') for e in d.heard))
    [work] = d.works().values()
    assert (d.tracker.get(name).intent.qty, d.tracker.get(name).intent.limit) == (work.qty, work.ticket.limit)
    d.agree()


@pytest.mark.parametrize('fault', [*SPOILED, {'fault': 'server_error', 'count': 2}], ids=lambda f: f['fault'] + str(f.get('status', f.get('count', ''))))
def test_questions_are_asked_again_or_say_clearly_that_nobody_answered(d: Desk, fault: dict[str, Any]) -> None:
    d.there.fault({**fault, 'op': 'query', **({'s': 5} if fault['fault'] == 'slow' else {})})
    assert d.venue.cash()['USD'] == 1_000_000
    d.there.fault({**fault, 'op': 'query', 'count': 9, **({'s': 5} if fault['fault'] == 'slow' else {})})
    with pytest.raises(Retry): d.venue.cash()


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


# --- the own line

@pytest.mark.parametrize('fault', [{'fault': 'duplicate_fill', 'count': 3}, {'fault': 'out_of_order_fill', 'count': 2}, {'fault': 'duplicate', 'count': 4}, {'fault': 'out_of_order', 'count': 2}, {'fault': 'gap', 'count': 3}],
                         ids=lambda f: f['fault'])
def test_what_the_line_doubles_swaps_or_swallows_changes_nothing(d: Desk, fault: dict[str, Any]) -> None:
    d.there.fault({**fault, 'op': 'own'})
    trade(d)
    assert struck(d, fault['fault']) >= 1


@pytest.mark.parametrize('fault', [{'fault': 'disconnect', 's': 1}, {'fault': 'truncated'}, {'fault': 'html'}, {'fault': 'huge', 'mb': 9}], ids=lambda f: f['fault'])
def test_a_line_that_breaks_comes_back_and_what_was_missed_is_asked_for(d: Desk, fault: dict[str, Any]) -> None:
    d.there.fault({**fault, 'op': 'own'})
    trade(d)
    d.until(lambda: d.venue.health()['own']['up'] and d.venue.health()['own']['connects'] > 1, 12)


@pytest.mark.parametrize('fault', [{'fault': 'mute', 's': 4}, {'fault': 'half_open'}], ids=lambda f: f['fault'])
def test_a_line_that_is_connected_and_silent_is_noticed(d: Desk, fault: dict[str, Any]) -> None:
    name = d.buy('0.5', LIMIT, limit='59000')
    d.expect(name, S.ACCEPTED)
    d.there.fault(fault)
    d.there.set_price(SYMBOL, 58900)
    d.expect(name, S.FILLED)
    d.agree()
    d.until(lambda: d.venue.health()['own']['connects'] > 1 and d.venue.health()['own']['up'], 12)


# --- the matching

def test_partial_fills_are_each_said_once(d: Desk) -> None:
    d.there.fault({'fault': 'partial_fills', 'parts': 5, 'op': 'submit'})
    name = d.buy('0.5')
    d.expect(name, S.FILLED)
    assert d.said(name).count('Filled') == len(d.deals()) == 5
    d.agree()


@pytest.mark.parametrize(('share', 'ends'), [('1', S.FILLED), ('0.4', S.CANCELLED)])
def test_a_fill_that_races_a_cancel_is_kept(d: Desk, share: str, ends: S) -> None:
    name = d.buy('0.5', LIMIT, limit='50000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'cancel_race', 'share': share})
    d.venue.cancel(name)
    assert d.expect(name, ends).filled == D('0.5') * D(share)
    if ends is S.FILLED: d.until(lambda: 'CancelRejected' in d.said(name))
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
        d.there.fault({'fault': fault})
        name = d.buy('0.1')
        assert 'not sent' in d.expect(name, S.REJECTED).reason and 'certificate' in d.tracker.get(name).reason
        with pytest.raises(Retry, match='certificate'): d.venue.cash()
        d.agree()


def test_everything_at_once(d: Desk) -> None:
    d.there.fault({'fault': 'drop_answer', 'op': 'submit', 'after': 1, 'count': 2}, {'fault': 'server_error', 'op': 'query', 'after': 3, 'count': 2}, {'fault': 'duplicate_fill', 'op': 'own', 'count': 2},
                  {'fault': 'gap', 'op': 'own', 'after': 3, 'count': 2}, {'fault': 'drop_answer', 'op': 'cancel'}, {'fault': 'disconnect', 'op': 'own', 'after': 6, 's': 1})
    trade(d)
