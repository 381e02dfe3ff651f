"""The contract's cards that need no price between submit and fill, played by Binance.US's adapter on its sandbox."""
from __future__ import annotations

import pytest
from broker_cards import CARDS, playable
from broker_venues import WIRED

from gekko.execution.broker import Capability
from gekko.venue.binanceus.table import CAPABILITIES

PLAYED = ('limit_order_waits_for_its_price', 'stop_limit_becomes_a_limit', 'cancel_ends_an_order', 'cancel_of_what_is_over_or_never_was_is_refused', 'the_same_name_is_the_same_order',
          'an_order_can_be_looked_up_by_name', 'the_books_agree', 'an_unknown_symbol_is_refused', 'a_size_off_the_grid_is_refused', 'a_price_off_the_grid_is_refused',
          'an_order_too_small_is_refused', 'each_thing_is_said_once_and_in_order')


@pytest.mark.parametrize('name', PLAYED)
def test_card(name: str) -> None:
    [card] = [c for c in playable(CAPABILITIES, CARDS) if c.name == name]
    with WIRED['binanceus']() as stage: card.play(stage)


def test_what_is_not_offered() -> None:
    assert {c for c in Capability if c not in CAPABILITIES} == {Capability.STOP, Capability.DAY, Capability.SHORT, Capability.FINANCING, Capability.HEDGE}
