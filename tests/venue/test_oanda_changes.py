"""OANDA's answers to cancels and amends that are late, lost or nonsense: the log tells what became of them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from oanda_desk import LIMIT, SPOILED, D, Desk, called, desk

from gekko.domain.order import Amended, AmendRejected, OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=6.0) as it: yield it


@pytest.mark.parametrize('fault', SPOILED, ids=called)
def test_a_cancel_that_was_not_heard_ends_the_order_all_the_same(d: Desk, fault: dict[str, Any]) -> None:
    name = d.buy('500', LIMIT, limit='1.00000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({**fault, 'op': 'cancel'})
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    d.agree()


def test_a_cancel_that_never_arrived_is_asked_again(d: Desk) -> None:
    name = d.buy('500', LIMIT, limit='1.00000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({'fault': 'server_error', 'op': 'cancel', 'count': 2})
    d.venue.cancel(name)
    d.expect(name, S.CANCELLED)
    assert 'Lost' in d.said(name)
    d.agree()


@pytest.mark.parametrize('fault', [*SPOILED, {'fault': 'server_error', 'status': 502}], ids=called)
def test_an_amend_that_was_not_heard_is_looked_up(d: Desk, fault: dict[str, Any]) -> None:
    name = d.buy('500', LIMIT, limit='1.00000')
    d.expect(name, S.ACCEPTED)
    d.there.fault({**fault, 'op': 'submit'})
    d.amend(name, qty='700', limit='1.01000')
    d.until(lambda: any(isinstance(e, (Amended, AmendRejected)) for e in d.heard), 12)
    last = d.made()[name][-1]
    assert (d.tracker.get(name).intent.qty, d.tracker.get(name).intent.limit) == (D(last['units']), D(last['price']))
    assert (D(last['units']) == 700) == any(isinstance(e, Amended) for e in d.heard)
    d.agree()
