"""Coinbase's own line: what it doubles, swaps, swallows or breaks off changes nothing."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from coinbase_desk import LIMIT, SYMBOL, D, Desk, desk, struck, trade

from gekko.domain.order import OrderState

S = OrderState


@pytest.fixture
def d() -> Iterator[Desk]:
    with desk(timeout_s=1.0, quiet_s=1.8) as it: yield it


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


@pytest.mark.parametrize('fault', [{'fault': 'mute', 's': 2.5}, {'fault': 'half_open'}], ids=lambda f: f['fault'])
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


def test_everything_at_once(d: Desk) -> None:
    d.there.fault({'fault': 'drop_answer', 'op': 'submit', 'after': 1, 'count': 2}, {'fault': 'server_error', 'op': 'query', 'after': 3, 'count': 2}, {'fault': 'duplicate_fill', 'op': 'own', 'count': 2},
                  {'fault': 'gap', 'op': 'own', 'after': 3, 'count': 2}, {'fault': 'drop_answer', 'op': 'cancel'}, {'fault': 'disconnect', 'op': 'own', 'after': 6, 's': 1})
    trade(d)
