"""OANDA's own line, connected and silent: nobody waits for it."""
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


@pytest.mark.parametrize('fault', [{'fault': 'mute', 's': 6}, {'fault': 'half_open'}], ids=lambda f: f['fault'])
def test_a_line_that_is_connected_and_silent_is_noticed(d: Desk, fault: dict[str, Any]) -> None:
    name = d.buy('500', LIMIT, limit='1.09000')
    d.expect(name, S.ACCEPTED)
    d.there.fault(fault)
    d.there.set_price(SYMBOL, '1.08900')
    d.expect(name, S.FILLED, s=4)                             # the log is asked while orders work, line or no line
    d.agree()
    d.until(lambda: d.venue.health()['own']['connects'] > 1 and d.venue.health()['own']['up'], 20)
