"""One suite for every venue: it does what its table says, and refuses what its table doesn't say."""
from __future__ import annotations

from decimal import Decimal

import pytest
from broker_cards import CARDS, Card, _refused, playable, unexercised
from broker_venues import VENUES
from broker_stage import Stage

from gekko.domain.order import OrderType, TimeInForce
from gekko.execution.broker import Capabilities, needs
from gekko.execution.broker import Capability as C

TABLES = {name: make().broker.capabilities for name, make in VENUES.items()}


@pytest.mark.parametrize(('venue', 'card'), [pytest.param(v, c, id=f'{v}-{c.name}') for v in VENUES for c in playable(TABLES[v], CARDS)])
def test_card(stage: Stage, card: Card) -> None:
    card.play(stage)


@pytest.mark.parametrize('venue', VENUES)
def test_every_claim_is_exercised(venue: str) -> None:
    assert unexercised(TABLES[venue], CARDS) == set()


@pytest.mark.parametrize('claim', list(C))
def test_a_claim_without_its_cards_is_found(claim: C) -> None:
    "The check above can fail: take the cards that show a claim away, and it is missed."
    everything = Capabilities('all', {c: '' for c in C})
    assert unexercised(everything, [c for c in CARDS if claim not in c.shows]) >= {claim}


ASKING: dict[C, dict[str, object]] = {
    C.MARKET: {}, C.LIMIT: {'type': OrderType.LIMIT, 'limit': Decimal(99)}, C.STOP: {'type': OrderType.STOP, 'stop': Decimal(105)},
    C.STOP_LIMIT: {'type': OrderType.STOP_LIMIT, 'stop': Decimal(105), 'limit': Decimal(106)},
    C.GTC: {}, C.DAY: {'tif': TimeInForce.DAY}, C.IOC: {'tif': TimeInForce.IOC}, C.FOK: {'tif': TimeInForce.FOK},
    C.GTD: {'type': OrderType.LIMIT, 'limit': Decimal(99), 'tif': TimeInForce.GTD, 'expires': 2**62},
    C.POST_ONLY: {'type': OrderType.LIMIT, 'limit': Decimal(99), 'post_only': True},
}


@pytest.mark.parametrize(('venue', 'gone'), [pytest.param(v, c, id=f'{v}-{c.name}') for v in VENUES for c in ASKING if c not in TABLES[v]])
def test_what_is_not_offered_is_refused(stage: Stage, gone: C) -> None:
    intent = stage.intent('buy', Decimal(2), **ASKING[gone])
    assert gone in needs(intent)
    assert gone.value in _refused(stage, intent)


@pytest.mark.parametrize('venue', [v for v in VENUES if C.SHORT not in TABLES[v]])
def test_short_is_refused_where_it_is_not_offered(stage: Stage) -> None:
    assert _refused(stage, stage.intent('sell', Decimal(2)))


@pytest.mark.parametrize('venue', VENUES)
def test_a_closed_venue_takes_no_orders(stage: Stage) -> None:
    stage.broker.close()
    stage.broker.close()
    assert _refused(stage, stage.intent('buy', Decimal(2)))
