"""Coinbase when an answer is late, lost or nonsense: what was taken is found, what was not is proved not to be there."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from coinbase_desk import LIMIT, SYMBOL, D, Desk, desk, struck

from gekko.domain.errors import Retry
from gekko.domain.order import Order, OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=2.5) as it: yield it


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


@pytest.mark.parametrize('status', [503])
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
