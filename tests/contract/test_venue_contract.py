"""The suite for the venues behind a wire: every card that its table makes playable, on its sandbox, over real sockets."""
from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from importlib import import_module

import pytest
from broker_cards import CARDS, NEEDS, Card, _refused, playable, unexercised
from broker_stage import Stage
from broker_venues import WIRED
from market_cards import MARKET_CARDS, MARKET_NEEDS
from test_broker_contract import ASKING

from gekko.execution.broker import Capabilities, needs
from gekko.execution.broker import Capability as C
from gekko.venue.venues import VENUES

NEEDS.update(MARKET_NEEDS)
EVERY = [*CARDS, *MARKET_CARDS]


def _table(venue: str) -> Capabilities:
    table = import_module(f'gekko.venue.{venue}.table')
    said = getattr(table, 'CAPABILITIES', None)
    return said if isinstance(said, Capabilities) else table.capabilities()


TABLES = {venue: _table(venue) for venue in VENUES}


@pytest.fixture
def stage(venue: str) -> Iterator[Stage]:
    with WIRED[venue]() as on: yield on


def test_every_venue_is_on_trial() -> None:
    assert set(WIRED) == set(VENUES)
    for venue, make in WIRED.items():
        with make() as on: assert (on.broker.name, dict(on.broker.capabilities.offers)) == (venue, dict(TABLES[venue].offers))


@pytest.mark.parametrize(('venue', 'card'), [pytest.param(v, c, id=f'{v}-{c.name}') for v in VENUES for c in playable(TABLES[v], EVERY)])
def test_card(stage: Stage, card: Card) -> None:
    card.play(stage)


@pytest.mark.parametrize('venue', VENUES)
def test_every_claim_is_exercised(venue: str) -> None:
    assert unexercised(TABLES[venue], EVERY) == set()


@pytest.mark.parametrize('claim', [c for c in C if c is not C.HEDGE])
def test_a_claim_without_its_cards_is_found(claim: C) -> None:
    "The check above can fail: a claim whose cards are taken away is missed."
    everything = Capabilities('all', {c: '' for c in C})
    assert claim not in unexercised(everything, EVERY)
    assert claim in unexercised(everything, [c for c in EVERY if claim not in c.shows])


def test_a_claim_that_has_no_card_fails_the_suite() -> None:
    "Nobody offers it yet; a table that does is sent to write its card first."
    for table in TABLES.values(): assert C.HEDGE not in table
    assert unexercised(Capabilities('one', {C.HEDGE: 'both sides at once'}), EVERY) == {C.HEDGE}


@pytest.mark.parametrize(('venue', 'gone'), [pytest.param(v, c, id=f'{v}-{c.name}') for v in VENUES for c in ASKING if c not in TABLES[v]])
def test_what_is_not_offered_is_refused(stage: Stage, gone: C) -> None:
    intent = stage.intent('buy', Decimal(2), **ASKING[gone])
    assert gone in needs(intent) and gone.value in _refused(stage, intent)


@pytest.mark.parametrize('venue', [v for v in VENUES if C.SHORT not in TABLES[v]])
def test_short_is_refused_where_it_is_not_offered(stage: Stage) -> None:
    assert _refused(stage, stage.intent('sell', Decimal(2)))
