"""OANDA's own line under faults: what it doubles, swaps, swallows or never says changes nothing."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from oanda_desk import LIMIT, SYMBOL, Desk, desk

from gekko.domain.order import OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=5.5) as it: yield it


def trade(d: Desk) -> None:
    "A little of everything, while whatever was armed strikes."
    first, resting, doomed = d.buy('500'), d.buy('200', LIMIT, limit='1.09000'), d.buy('100', LIMIT, limit='1.00000')
    d.expect(first, S.FILLED)
    d.until(lambda: d.state(resting) is S.ACCEPTED and d.state(doomed) is S.ACCEPTED)
    d.venue.cancel(doomed)
    d.there.set_price(SYMBOL, '1.08900')
    d.expect(resting, S.FILLED)
    d.until(lambda: d.state(doomed).terminal)
    d.expect(d.sell('300'), S.FILLED)
    d.agree()


def struck(d: Desk, name: str) -> int: return d.there.call(lambda: sum(x['fault'] == name for x in d.there.server.faults.done))


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
    d.until(lambda: d.venue.health()['own']['up'] and d.venue.health()['own']['connects'] > 1, 15)


def test_everything_at_once(d: Desk) -> None:
    d.there.fault({'fault': 'drop_answer', 'op': 'submit', 'after': 1, 'count': 2}, {'fault': 'server_error', 'op': 'query', 'after': 3, 'count': 2}, {'fault': 'duplicate_fill', 'op': 'own', 'count': 2},
                  {'fault': 'gap', 'op': 'own', 'after': 3, 'count': 2}, {'fault': 'drop_answer', 'op': 'cancel'}, {'fault': 'disconnect', 'op': 'own', 'after': 6, 's': 1})
    trade(d)
