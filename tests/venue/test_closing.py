"""A venue is closed while orders still wait for its quota: each submit, cancel and change is answered for, and what is said is what the exchange did."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import binanceus_stage
import coinbase_desk
import oanda_desk
import pytest
from gekko.domain.order import AmendRejected, Cancelled, CancelRejected, Lost, Order, OrderState, OrderType, Rejected

D, S = Decimal, OrderState
CLOSED, TAKEN_BACK = 'not sent: the venue is closed', 'not sent: cancelled before it left'


@dataclass
class Scene:
    "One venue's desk, a price at which nothing trades, and what its exchange has heard of."
    desk: Any
    send: Callable[[], str]
    there: Callable[[], set[str]]
    settled: Callable[[], None]

    def order(self, name: str) -> Order: return self.desk.tracker.get(name)
    def words(self, kind: type) -> dict[str, str]: return {e.client_id: getattr(e, 'reason', '') for e in self.desk.heard if isinstance(e, kind)}


@contextmanager
def binanceus() -> Iterator[Scene]:
    with binanceus_stage.stage(timeout_s=15.0) as d:
        yield Scene(d, lambda: d.limit('buy', '0.2', 90), lambda: set(d.truth()), d.quiet)

@contextmanager
def coinbase() -> Iterator[Scene]:
    with coinbase_desk.desk(timeout_s=15.0) as d:
        yield Scene(d, lambda: d.buy('0.01', OrderType.LIMIT, limit='50000'), lambda: set(d.works()), d.listen)

@contextmanager
def oanda() -> Iterator[Scene]:
    with oanda_desk.desk(timeout_s=15.0) as d:
        yield Scene(d, lambda: d.buy('10', OrderType.LIMIT, limit='1.00000'), lambda: set(d.made()), d.listen)

VENUES = [binanceus, coinbase, oanda]


@pytest.mark.parametrize('venue', VENUES)
def test_what_waits_for_the_quota_is_answered_for_when_the_venue_is_closed(venue: Any) -> None:
    with venue() as s:
        names = [s.send() for _ in range(160)]
        s.desk.until(lambda: any(s.order(n).state is S.ACCEPTED for n in names))
        s.desk.venue.close()
        s.desk.listen()      # one drain, after the end
        open_ = [n for n in names if s.order(n).state is S.SUBMITTED]
        assert not open_, f'{len(open_)} orders left without a word'
        waited, there = s.words(Rejected), s.there()
        assert set(waited.values()) == {CLOSED} and len(waited) > 20
        assert not waited.keys() & there, 'said to be not sent, and the exchange has it'
        unheard = {n for n in names if s.order(n).state is S.UNKNOWN}
        assert there <= {n for n in names if s.order(n).state is S.ACCEPTED} | unheard


@pytest.mark.parametrize('venue', VENUES)
def test_cancels_and_changes_that_did_not_leave_are_refused_by_name(venue: Any) -> None:
    with venue() as s:
        first = s.send()
        s.desk.expect(first, S.ACCEPTED)
        names = [s.send() for _ in range(160)]
        s.desk.until(lambda: any(s.order(n).state is S.ACCEPTED for n in names))
        s.desk.listen()
        last = names[-1]
        s.desk.venue.amend(s.desk.approve(Order(last, s.order(last).intent)))      # it waits for its order, which waits for the quota
        for _ in range(400): s.desk.venue.cancel(first)         # more than the reserve of any venue
        s.desk.venue.close()
        s.desk.listen()
        assert s.words(AmendRejected)[last] == CLOSED, [e for e in s.desk.heard if e.client_id == last]
        said = [e for e in s.desk.heard if e.client_id == first and isinstance(e, CancelRejected | Cancelled | Lost)]
        assert said, 'nothing was said of any cancel'
        assert s.order(first).state in (S.ACCEPTED, S.CANCELLED, S.UNKNOWN)
        assert s.order(last).state is S.REJECTED and last not in s.there()


@pytest.mark.parametrize('venue', VENUES)
def test_a_cancel_takes_back_what_has_not_left(venue: Any) -> None:
    with venue() as s:
        names = [s.send() for _ in range(160)]
        s.desk.until(lambda: any(s.order(n).state is S.ACCEPTED for n in names))
        for n in names[-40:]: s.desk.venue.cancel(n)
        s.desk.until(lambda: all(s.order(n).state is S.CANCELLED for n in names[-40:]))
        taken = s.words(Cancelled)
        assert [taken[n] for n in names[-40:]] == [TAKEN_BACK] * 40
        for n in names[:1]: s.desk.venue.cancel(n)
        s.desk.expect(names[0], S.CANCELLED)
        assert s.words(Cancelled)[names[0]] != TAKEN_BACK
        assert not set(names[-40:]) & s.there()
        assert s.words(CancelRejected) == {}
        s.desk.venue.close()
        s.desk.listen()
        assert not [n for n in names if s.order(n).state is S.SUBMITTED]
        assert not set(names[-40:]) & s.there()
