"""Answers of Binance.US that don't come, can't be read, or come late: each order ends on the venue's evidence, and once."""
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from binanceus_stage import Desk, S, accepted, reason, stage

from gekko.domain.order import CancelRejected, Lost

@pytest.fixture
def desk() -> Iterator[Desk]:
    with stage() as d: yield d


def cancel_rejected(desk: Desk, name: str) -> bool: return any(isinstance(e, CancelRejected) and e.client_id == name for e in desk.heard)
def lost(desk: Desk, name: str) -> bool: return any(isinstance(e, Lost) and e.client_id == name for e in desk.heard)


# --- answers that don't come

@pytest.mark.parametrize('kind', ['market', 'limit'])
def test_accepted_then_no_answer(desk: Desk, kind: str) -> None:
    "The order is taken and the answer dropped: it is found, once, with its fills."
    desk.fault({'fault': 'drop_answer', 'op': 'submit'})
    name = desk.send('buy', '2') if kind == 'market' else desk.limit('buy', '2', 95)
    desk.expect(name, S.FILLED if kind == 'market' else S.ACCEPTED)
    if kind == 'limit':
        desk.venue.cancel(name)
        desk.expect(name, S.CANCELLED)
    assert len(desk.truth()) == 1
    desk.audit()


def test_no_answer_and_no_stream(desk: Desk) -> None:
    "Answer dropped and the own stream mute: only the look-up can tell, and it does."
    desk.fault({'fault': 'mute', 'op': 'own', 's': 4}, {'fault': 'drop_answer', 'op': 'submit'})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    assert desk.words(name) == ['Lost', 'Accepted']
    desk.audit()


@pytest.mark.parametrize('fault', ['html', 'server_error', 'truncated'])
def test_a_submit_that_was_not_understood_and_never_arrived(desk: Desk, fault: str) -> None:
    "The answer is useless and the order isn't there: it is Unknown until its absence is proof, then Rejected. Nothing is sent twice."
    desk.fault({'fault': fault, 'op': 'submit'})
    began = time.monotonic()
    name = desk.limit('buy', '2', 95)
    desk.until(lambda: lost(desk, name) or accepted(desk, name))
    order = desk.expect(name, S.REJECTED, S.ACCEPTED)
    if order.state is S.REJECTED: assert reason(desk, name) == 'never reached the venue' and time.monotonic() - began > 2.4
    assert len(desk.truth()) == (order.state is S.ACCEPTED)
    desk.audit()


@pytest.mark.parametrize('fault', ['html', 'server_error', 'truncated'])
def test_a_submit_that_was_not_understood_and_was_taken(desk: Desk, fault: str) -> None:
    desk.fault({'fault': fault, 'op': 'submit', 'processed': True})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    assert len(desk.truth()) == 1
    desk.audit()


def test_a_body_too_big(desk: Desk) -> None:
    desk.fault({'fault': 'huge', 'op': 'query', 'mb': 20})
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    assert [o.client_id for o in desk.venue.open_orders()] == [name]
    desk.audit()


def test_slow_answers(desk: Desk) -> None:
    "An answer after 1 s is an answer; one after the time-out is looked up."
    desk.fault({'fault': 'slow', 'op': 'submit', 's': 1}, {'fault': 'mute', 'op': 'own', 's': 8})
    first = desk.limit('buy', '2', 95)
    desk.expect(first, S.ACCEPTED)
    desk.fault({'fault': 'slow', 'op': 'submit', 's': 4})
    second = desk.limit('buy', '2', 94)
    desk.expect(second, S.ACCEPTED, S.REJECTED, patience_s=12)
    desk.quiet(1.5)
    desk.audit()


def test_cancel_without_an_answer(desk: Desk) -> None:
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': 'mute', 'op': 'own', 's': 3}, {'fault': 'drop_answer', 'op': 'cancel'})
    desk.venue.cancel(name)
    desk.expect(name, S.CANCELLED)
    assert lost(desk, name)
    desk.audit()


def test_cancel_that_never_arrived_is_asked_again(desk: Desk) -> None:
    name = desk.limit('buy', '2', 95)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': 'server_error', 'op': 'cancel', 'count': 2})
    desk.venue.cancel(name)
    desk.expect(name, S.CANCELLED)
    desk.audit()


def test_amend_without_an_answer(desk: Desk) -> None:
    name = desk.limit('buy', '2', 90)
    desk.expect(name, S.ACCEPTED)
    desk.fault({'fault': 'mute', 'op': 'own', 's': 3}, {'fault': 'drop_answer', 'op': 'submit'})
    desk.amend(name, limit='95')
    desk.until(lambda: 'Amended' in desk.words(name))
    assert desk.get(name).intent.limit == 95
    desk.audit()
