"""A strategy changes its working order at a venue: through a notebook, its desk and a sandbox's sockets; killed between the request and the answer; and a dead man's switch."""
from __future__ import annotations

import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from changing_stage import moving
from desk_stage import desk_of, ended, gekko, launch, ledger_of, one_line, settings_of, tidy, wait_for
from live_stage import asked, book_of, served
from test_live_faults import account_of, disarm, power_cut, working

from gekko.domain.order import Amended, AmendRequested, Order, OrderState, TimeInForce
from gekko.domain.time import SECOND
from gekko.ledger.events import Differed, LeaseTaken
from gekko.ledger.journal import read_entries, verify

D = Decimal
SYMBOL = {'binanceus': 'BTC-USD', 'coinbase': 'BTC-USD', 'oanda': 'EUR-USD'}
SIZE = {'binanceus': '0.5', 'coinbase': '0.5', 'oanda': '100'}


def records(home: Path, card: dict[str, str], *kinds: type) -> list[Any]: return [r for e in read_entries(settings_of(home).ledger, account_of(card)) if isinstance(r := e.record, kinds)]


@pytest.mark.parametrize('venue', list(SYMBOL))
def test_a_working_order_is_moved_and_the_books_follow(venue: str, tmp_path: Path) -> None:
    """Five changes, each requested on disk first and answered; comparisons every second take none of them back."""
    with tidy(tmp_path / 'home') as home, served(home, venue, '--symbols', SYMBOL[venue]) as card:
        said = one_line(gekko(home, *moving(home, venue, SYMBOL[venue], size=SIZE[venue])))
        assert said['state'] == 'done', said
        [order] = book_of(home, account_of(card)).orders.values()
        requests, answers = records(home, card, AmendRequested), records(home, card, Amended)
        assert len(requests) >= 5 and len(answers) >= 5 and order.state is OrderState.CANCELLED and order.amending is None
        assert order.intent.limit == requests[4].limit and not order.conflict
        assert not [d for d in records(home, card, Differed) if d.done == 'taken in' and any(x.get('theirs') == 'amended' for x in d.differences)]
        assert not book_of(home, account_of(card)).faults and verify(ledger_of(home)).ok


def there(card: dict[str, str]) -> tuple[Decimal, Decimal]:
    """Size and limit of the one order that works, as the sandbox itself has it."""
    [o] = [o for o in asked(card, 'orders')['orders'] if o['state'].lower() in ('accepted', 'pending')]
    return abs(D(o['qty'] if 'qty' in o else o['units'])), D(o['limit'] if 'limit' in o else o['price'])


@pytest.mark.parametrize(('venue', 'fault'), [('binanceus', 'drop_answer'), ('coinbase', 'server_error'), ('oanda', 'drop_answer')])
def test_a_desk_killed_between_the_request_and_the_answer(venue: str, fault: str, tmp_path: Path) -> None:
    """The change was made and nobody heard it, or was never made: the next desk finds the request in the journal, and the venue says which."""
    with tidy(tmp_path / 'home') as home, served(home, venue, '--symbols', SYMBOL[venue]) as card:
        pulse = tmp_path / 'pulse'
        run = launch(home, *moving(home, venue, SYMBOL[venue], size=SIZE[venue], pulse=pulse))
        wait_for(pulse.exists, 'two changes', 60)
        deaf = [{'fault': 'mute', 'op': 'own', 's': 8}, {'fault': 'server_error', 'op': 'query', 'count': 9999}]      # no other way tells of it
        asked(card, 'faults', [*deaf, {'fault': fault, 'op': 'submit', 'count': 999}])
        def waiting() -> list[Order]: return [o for o in working(home, card) if o.amending is not None]
        def stuck() -> bool: return bool(waiting()) and any(f['fault'] == fault for f in asked(card, 'faults')['done'])
        wait_for(stuck, 'a change under way', 30)
        power_cut(home, run)
        disarm(card)
        [left] = working(home, card)
        assert left.amending is not None and left.open_qty == max(left.intent.qty, left.amending.qty or D(0)), 'the larger of the two is reserved'
        checked = one_line(gekko(home, 'desk', 'check', venue, '--json'))
        assert checked['agree'] and checked['open'] == 1
        [o] = working(home, card)
        assert (o.intent.qty, o.intent.limit) == there(card)
        if made := o.intent.limit == left.amending.limit: assert o.amending is None, 'the record proves it'
        else: assert o.intent == left.intent and o.amending == left.amending, 'it may still arrive'
        assert made or fault != 'drop_answer'
        assert one_line(gekko(home, 'desk', 'recover', venue, '--policy', 'hold', '--json'))['positions'] == {}
        assert not working(home, card) and not book_of(home, account_of(card)).faults and verify(ledger_of(home)).ok


def test_the_desk_that_follows_goes_on_changing(tmp_path: Path) -> None:
    """The notebook puts its question again to another desk, and the order that it changes is the same one."""
    with tidy(tmp_path / 'home') as home, served(home, 'oanda', '--symbols', 'EUR-USD') as card:
        run = launch(home, *moving(home, 'oanda', 'EUR-USD', size='100', changes=9))
        wait_for(lambda: working(home, card) and records(home, card, Amended), 'a change', 60)
        os.kill(desk_of(home)['pid'], signal.SIGKILL)
        done = one_line(ended(run, 180))      # killed between a request and its bytes, the next desk can say only after a while that the change never arrived; at Coinbase it is a token's life
        [order] = book_of(home, account_of(card)).orders.values()
        assert done['state'] == 'done' and len(records(home, card, LeaseTaken)) == 2 and len(records(home, card, Amended)) >= 9
        assert order.amending is None and order.state is OrderState.CANCELLED and not book_of(home, account_of(card)).faults


def test_orders_end_at_the_venue_when_desk_and_host_are_gone(tmp_path: Path) -> None:
    """OANDA moves dates: while the desk lives the order outlives its first one; when nobody is left the venue ends it, and the books hear of it afterwards."""
    with tidy(tmp_path / 'home') as home, served(home, 'oanda', '--symbols', 'EUR-USD') as card:
        run = launch(home, *moving(home, 'oanda', 'EUR-USD', size='100', deadman_s=6, changes=0, pulse=tmp_path / 'pulse'))
        [first] = wait_for(lambda: [o for o in working(home, card) if o.state is OrderState.ACCEPTED], 'an order at work', 60)
        assert first.intent.tif is TimeInForce.GTD and 0 < first.intent.expires - first.intent.ts <= 7 * SECOND
        wait_for(lambda: time.time_ns() > first.intent.expires + 2 * SECOND, 'its first date')
        [o] = working(home, card)
        assert o.client_id == first.client_id and o.intent.expires > time.time_ns(), 'moved, and not placed again'
        power_cut(home, run)
        gone = time.monotonic()
        wait_for(lambda: not [x for x in asked(card, 'orders')['orders'] if x['state'].lower() in ('accepted', 'pending')], 'the venue to end it', 15)
        assert time.monotonic() - gone <= 6 + 2, 'deadman_s, a second for the date to be whole and one for the sandbox to look'
        assert one_line(gekko(home, 'desk', 'check', 'oanda', '--json'))['open'] == 0
        assert book_of(home, account_of(card)).orders[first.client_id].state is OrderState.EXPIRED


@pytest.mark.parametrize(('venue', 'why'), [('binanceus', 'found no good till date'), ('coinbase', 'found no ')])
def test_a_switch_that_the_venue_does_not_have_is_refused(venue: str, why: str, tmp_path: Path) -> None:
    """Binance.US takes no date; Coinbase takes one and never moves it, so every order would end though its desk lives."""
    with tidy(tmp_path / 'home') as home, served(home, venue, '--symbols', 'BTC-USD') as card:
        done = gekko(home, *moving(home, venue, 'BTC-USD', deadman_s=30))
        said = done.stdout + done.stderr
        assert done.returncode == 2 and f'deadman_s at {venue}: expected a venue that offers good till date and ' in said and why in said, said
        assert asked(card, 'orders')['orders'] == []
