"""The contract's cards, played by OANDA's adapter on its sandbox: it does what its table says, and refuses what its table doesn't say."""
from __future__ import annotations

from decimal import Decimal as D

import pytest
from broker_cards import CARDS, Card, _refused, playable, unexercised
from broker_venues import WIRED
from test_broker_contract import ASKING

from gekko.domain.order import OrderState, OrderType
from gekko.execution.broker import Capability as C
from gekko.execution.broker import needs
from gekko.venue.oanda.table import capabilities

TABLE = capabilities()
# a market order that waits for more is not what this venue has: it takes what is there and ends (the card of partial fills is played with a limit order below);
# and it asks for a smallest size, not for a smallest value (below as well)
ELSEWHERE = {'a_thin_market_fills_in_parts', 'an_order_too_small_is_refused'}


@pytest.mark.parametrize('card', [c for c in playable(TABLE, CARDS) if c.name not in ELSEWHERE], ids=lambda c: c.name)
def test_card(card: Card) -> None:
    with WIRED['oanda']() as stage: card.play(stage)


def test_every_claim_about_orders_and_the_account_is_exercised() -> None:
    shown = [c for c in CARDS if c.name not in ELSEWHERE]
    assert unexercised(TABLE, shown) <= {C.AMEND, C.INSTRUMENTS, C.HISTORY, C.QUOTES, C.BOOK, C.OWN_STREAM, C.FINANCING}     # these are shown in test_oanda_life, _money and _stream


def test_a_thin_market_fills_a_resting_order_in_parts() -> None:
    with WIRED['oanda']() as s:
        name = s.buy(D(3), type=OrderType.LIMIT, limit=D(101))
        s.move(D(100), D(2))
        assert s.expect(name, OrderState.PARTLY_FILLED).filled == 2
        assert [o.filled for o in s.broker.open_orders()] == [2]
        s.move(D(101), D(2))
        order = s.expect(name, OrderState.FILLED)
        assert order.filled == 3 and order.paid == 2 * 100 + 101 and len(order.fill_ids) == 2


def test_an_order_below_the_smallest_size_is_refused() -> None:
    with WIRED['oanda']() as s: assert _refused(s, s.intent('buy', s.instrument.lot / 10))


@pytest.mark.parametrize('gone', [c for c in ASKING if c not in TABLE], ids=lambda c: c.name)
def test_what_is_not_offered_is_refused(gone: C) -> None:
    with WIRED['oanda']() as stage:
        intent = stage.intent('buy', D(2), **ASKING[gone])
        assert gone in needs(intent) and gone.value in _refused(stage, intent)


def test_a_closed_venue_takes_no_orders() -> None:
    with WIRED['oanda']() as stage:
        stage.broker.close()
        stage.broker.close()
        assert _refused(stage, stage.intent('buy', D(2)))
