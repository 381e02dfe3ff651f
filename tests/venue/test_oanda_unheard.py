"""OANDA's answers that are late, lost or nonsense: each order is found in the account's log, or proved never to have been there."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from oanda_desk import LIMIT, SPOILED, Desk, called, desk

from gekko.domain.errors import Retry
from gekko.domain.order import OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=6.0) as it: yield it


def struck(d: Desk, name: str) -> int: return d.there.call(lambda: sum(x['fault'] == name for x in d.there.server.faults.done))


@pytest.mark.parametrize('fault', SPOILED, ids=called)
@pytest.mark.parametrize('kind', ['market', 'limit'])
def test_a_submit_that_was_taken_and_not_heard_is_found(d: Desk, fault: dict[str, Any], kind: str) -> None:
    d.there.fault({**fault, 'op': 'submit'})
    name = d.buy('500') if kind == 'market' else d.buy('500', LIMIT, limit='1.09000')
    d.expect(name, S.FILLED if kind == 'market' else S.ACCEPTED)
    d.agree()
    assert struck(d, fault['fault']) == 1 and len(d.made()[name]) == 1
    assert [w for w in d.said(name) if w != 'Lost'] == ['Accepted', *(['Filled'] if kind == 'market' else [])]


@pytest.mark.parametrize('status', [500, 503])
def test_a_submit_that_never_arrived_is_rejected_once_that_is_proved(d: Desk, status: int) -> None:
    d.there.fault({'fault': 'server_error', 'status': status, 'op': 'submit'})
    name = d.buy('500')
    d.expect(name, S.UNKNOWN)
    o = d.expect(name, S.REJECTED, s=12)
    assert o.reason == 'never reached the venue' and d.said(name) == ['Lost', 'Rejected'] and name not in d.made()
    d.expect(d.buy('500'), S.FILLED)
    d.agree()


def test_an_order_that_was_given_up_and_comes_nevertheless_is_told_and_cancelled() -> None:
    "Longer under way than we allow for: it is no phantom, since the log tells it, and it does not stay."
    from gekko.venue.oanda.rest import specification
    from gekko.venue.sandbox.oanda_desk import submit
    with desk(timeout_s=1.0, settle_s=0.2) as d:
        d.there.fault({'fault': 'server_error', 'op': 'submit'})
        name = d.buy('500', LIMIT, limit='1.09000')
        intent = d.expect(name, S.REJECTED).intent
        def arrive() -> None:
            v = d.there.server.protocol
            submit(v.desk, v.desk.clients[d.number], specification(name, intent))
        d.there.call(arrive)
        d.until(lambda: 'Cancelled' in d.said(name))
        assert d.said(name) == ['Lost', 'Rejected', 'Accepted', 'Cancelled'] and d.pending() == set() and d.venue.positions() == {}


@pytest.mark.parametrize('fault', [*SPOILED, {'fault': 'server_error', 'count': 2}], ids=called)
def test_questions_are_asked_again_or_say_clearly_that_nobody_answered(d: Desk, fault: dict[str, Any]) -> None:
    slow = {'s': 5} if fault['fault'] == 'slow' else {}
    d.there.fault({**fault, 'op': 'query', **slow})
    assert d.venue.cash()['USD'] == 1_000_000
    d.there.fault({**fault, 'op': 'query', 'count': 9, **slow})
    with pytest.raises(Retry): d.venue.cash()
