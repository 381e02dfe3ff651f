"""One of two venues breaks in the middle of an order: the other fills what is proved not to have traded, and never more."""
from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from routed_stage import BTC, S, stage

from gekko.domain.errors import Retry
from gekko.domain.market import Depth, Level
from gekko.domain.money import total
from gekko.domain.order import Accepted, Cancelled, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderType, Rejected, Side, Submitted, apply
from gekko.domain.time import SECOND
from gekko.execution.router import Leg, Terms, route, unspent
from gekko.venue.dealing import taking
from gekko.venue.member import busy

D = Decimal
OTHER = {'binanceus': 'coinbase', 'coinbase': 'binanceus'}
# each venue in turn is the cheap one, and all that a parent of 0.5 wants is to be had at either
CHEAP = {'binanceus': {'binanceus': ('60000', '0.6', 3), 'coinbase': ('60000', '0.6', 3)}, 'coinbase': {'binanceus': ('60500', '0.6', 3), 'coinbase': ('60000', '0.6', 3)}}


@pytest.mark.parametrize('broken', ['binanceus', 'coinbase'])
def test_a_refusing_venue_leaves_its_part_to_the_other(broken: str) -> None:
    with stage(CHEAP[broken], again_s=60.0) as desk:
        desk.fault(broken, {'fault': 'halted'})
        parent = desk.parent('buy', '0.5')
        legs = desk.work(parent)
        assert [(o.intent.venue, o.state) for o in legs] == [(broken, S.REJECTED), (OTHER[broken], S.FILLED)]
        assert desk.venue.last is not None and desk.venue.last.why[broken].startswith(('it refused a leg', 'it does not trade'))
        desk.audit()


def test_a_refused_part_waits_while_the_other_leg_is_taking_what_the_book_still_shows() -> None:
    with stage({'binanceus': ('60000', '0.6', 3), 'coinbase': ('59690', '0.3', 1)}, again_s=60.0) as desk:
        desk.fault('coinbase', {'fault': 'halted'})
        desk.fault('binanceus', {'fault': 'slow', 'op': 'submit', 's': 0.6}, {'fault': 'mute', 'op': 'own', 's': 0.6})
        parent = desk.parent('buy', '0.8')
        desk.step(parent)
        desk.until(lambda: any(o.state is S.REJECTED for o in desk.legs(parent)))
        assert unspent(parent.qty, desk.legs(parent)) == D('0.3') and desk.venue.split(parent, desk.legs(parent)) == []
        assert desk.venue.last is not None and desk.venue.last.why['binanceus'] == 'a leg of this order is under way there'
        desk.work(parent)
        assert desk.at(parent) == {'binanceus': D('0.8')}
        desk.audit()


@pytest.mark.parametrize('broken', ['binanceus', 'coinbase'])
def test_an_accepted_order_whose_answer_was_dropped_is_waited_for_and_never_doubled(broken: str) -> None:
    with stage(CHEAP[broken]) as desk:
        desk.fault(broken, {'fault': 'drop_answer', 'op': 'submit'}, {'fault': 'mute', 'op': 'own', 's': 2})
        parent = desk.parent('buy', '0.5')
        desk.step(parent)
        assert desk.venue.split(parent, desk.legs(parent)) == []
        legs = desk.work(parent, 20.0)
        assert [(o.intent.venue, o.state) for o in legs] == [(broken, S.FILLED)]
        desk.audit()


def test_a_submit_answered_with_5xx_counts_in_full_until_its_end_is_proved() -> None:
    with stage(CHEAP['binanceus'], again_s=60.0) as desk:
        desk.fault('binanceus', {'fault': 'server_error', 'op': 'submit', 'status': 503})
        parent = desk.parent('buy', '0.5')
        [name] = desk.step(parent)
        desk.until(lambda: desk.tracker.get(name).state is S.UNKNOWN)
        assert desk.venue.split(parent, desk.legs(parent)) == [], 'it may have been taken'
        legs = desk.work(parent, 20.0)
        assert [(o.intent.venue, o.state) for o in legs] == [('binanceus', S.REJECTED), ('coinbase', S.FILLED)]
        desk.audit()


def test_a_mute_book_is_out_while_it_is_mute_and_back_when_it_speaks() -> None:
    with stage(CHEAP['coinbase'], stale_s=1.2) as desk:
        desk.fault('coinbase', {'fault': 'mute', 'op': 'stream', 's': 3})
        desk.until(lambda: desk.venue.books(BTC)['coinbase'].age > 1.2 * SECOND)
        parent = desk.parent('buy', '0.5')
        assert [i.venue for i in desk.venue.split(parent)] == ['binanceus']
        assert desk.venue.last is not None and 's old' in desk.venue.last.why['coinbase']
        desk.work(parent)
        assert desk.at(parent) == {'binanceus': D('0.5')}
        desk.market(coinbase=('59990', '0.6', 3))
        desk.until(lambda: [i.venue for i in desk.venue.split(desk.parent('buy', '0.5'))] == ['coinbase'])
        desk.audit()


def test_a_venue_that_stops_while_nothing_is_on_its_way_loses_its_part_to_the_other() -> None:
    with stage({'binanceus': ('60000', '0.6', 5), 'coinbase': ('59690', '0.3', 1)}, again_s=60.0) as desk:
        parent = desk.parent('buy', '0.8')
        legs = desk.venue.split(parent)
        assert [(i.venue, i.qty) for i in legs] == [('binanceus', D('0.5')), ('coinbase', D('0.3'))]
        desk.close('coinbase')                       # between the split and the sending
        for i in legs: desk.send(i)
        desk.never_above(parent)
        desk.work(parent, 25.0, until=lambda: desk.filled(parent) == D('0.5') and any(o.state is S.UNKNOWN for o in desk.legs(parent)))
        unknown = total(o.intent.qty for o in desk.legs(parent) if o.state is S.UNKNOWN)
        assert desk.filled(parent) + unknown == parent.qty, 'filled, or said not to be known'
        assert desk.at(parent).keys() == {'binanceus'}
        with pytest.raises(Retry, match='coinbase') as e: desk.venue.cash()
        assert e.value.values['member'] == 'coinbase'
        desk.audit()


def test_a_venue_that_stops_with_an_order_inside_keeps_its_part_reserved_and_the_other_goes_on() -> None:
    with stage({'binanceus': ('60000', '0.6', 5), 'coinbase': ('59690', '0.3', 1)}) as desk:
        desk.fault('coinbase', {'fault': 'mute', 'op': 'own', 's': 60}, {'fault': 'slow', 'op': 'submit', 's': 30})
        parent = desk.parent('buy', '0.8')
        desk.step(parent)
        time.sleep(0.3)                              # it is in the venue's hands
        desk.close('coinbase')
        desk.until(lambda: desk.filled(parent) == D('0.5') and any(o.state is S.UNKNOWN for o in desk.legs(parent)))
        assert desk.venue.split(parent, desk.legs(parent)) == [], 'what is not known is never sent again'
        assert unspent(parent.qty, desk.legs(parent)) == 0
        second = desk.parent('buy', '0.4')
        desk.market(binanceus=('60000', '0.6', 5))
        desk.work(second)                            # other orders go on without it
        assert desk.at(second) == {'binanceus': D('0.4')} and desk.venue.last is not None
        assert 'coinbase' in desk.venue.last.why
        [lost] = [o for o in desk.legs(parent) if o.state is S.UNKNOWN]
        with pytest.raises(Retry, match='coinbase'): desk.venue.order(lost.client_id)
        theirs = desk.venue.order(desk.legs(second)[0].client_id)
        assert theirs is not None and theirs.state is S.FILLED


def test_a_market_that_runs_away_is_followed_by_its_new_books_within_the_limit() -> None:
    with stage({'binanceus': ('60000', '0.3', 1), 'coinbase': ('59690', '0.3', 1)}) as desk:
        parent = desk.parent('buy', '0.8', '60400')
        intents = desk.venue.split(parent)
        desk.boxes['binanceus'].set_price(BTC, '60300', '0.6', levels=1, spread=D(2))       # gone before the leg is there
        for i in intents: desk.send(i)
        legs = desk.work(parent)
        assert any(o.intent.venue == 'binanceus' and not o.filled and o.state in (S.CANCELLED, S.EXPIRED) for o in legs), 'the first limit bought nothing dearer'
        assert desk.at(parent) == {'coinbase': D('0.3'), 'binanceus': D('0.5')}
        assert all(o.avg_price is None or o.avg_price <= 60400 for o in legs)
        desk.audit()


def test_a_book_that_does_not_show_our_fill_yet_is_not_taken_from_twice() -> None:
    with stage({'binanceus': ('60000', '0.2', 1), 'coinbase': ('61000', '0.6', 1)}) as desk:
        first = desk.parent('buy', '0.2')
        desk.work(first)
        second = desk.parent('buy', '0.2')           # at once: the book may still show the level that is gone
        legs = desk.work(second)
        assert desk.at(second) == {'coinbase': D('0.2')}
        assert not [o for o in legs if o.intent.venue == 'binanceus']
        desk.audit()


def test_a_revoked_key_at_one_venue_stops_that_venue_alone() -> None:
    with stage(CHEAP['binanceus'], again_s=60.0) as desk:
        desk.fault('binanceus', {'fault': 'revoked_key'})
        with pytest.raises(Retry, match='binanceus'): desk.venue.cash()
        parent = desk.parent('buy', '0.5')
        desk.work(parent)
        assert desk.at(parent) == {'coinbase': D('0.5')} and desk.venue.last is not None
        assert 'binanceus' in desk.venue.last.why and 'binanceus' in desk.venue.health()['down']


# --- any outcome of any leg, without a venue

BOOKS = {v: Depth('X', 0, (), (Level(D(p), D(4)), Level(D(p + 5), D(9)))) for v, p in (('a', 100), ('b', 101), ('c', 103))}
ENDS = st.sampled_from(['fill', 'half', 'none', 'reject', 'lose'])


def outcome(o: Order, how: str, n: int) -> Order:
    """The leg after the venue did this to it."""
    def fill(qty: Decimal) -> OrderEvent: return Filled(o.client_id, Fill(f'{o.client_id}-{n}', o.client_id, 'X', Side.BUY, qty, D(100)))
    lots = o.open_qty if how == 'fill' else o.open_qty // 2
    said: list[OrderEvent] = [Submitted(o.client_id)]
    if how == 'reject': said += [Rejected(o.client_id, 'no')]
    elif how == 'lose': said += [Lost(o.client_id)]
    else: said += [Accepted(o.client_id), *([fill(lots)] if lots and how != 'none' else []), *([Cancelled(o.client_id)] if how != 'fill' else [])]
    for e in said: o = apply(o, e)
    return o


@settings(max_examples=200)
@given(st.integers(1, 40).map(D), st.lists(ENDS, min_size=30, max_size=30), st.lists(st.sampled_from(['fill', 'half', 'reject']), min_size=30, max_size=30))
def test_whatever_becomes_of_the_legs_the_parent_is_never_exceeded(qty: Decimal, ends: list[str], proofs: list[str]) -> None:
    parent = Intent('X', Side.BUY, qty, parent='p')
    legs: dict[str, Order] = {}
    fates, proof, now = iter(ends), iter(proofs), 0
    for turn in range(12):
        now += 3 * SECOND
        without = busy(legs.values(), now, 5 * SECOND)
        left = unspent(qty, legs.values())
        unknown = [o for o in legs.values() if o.state is S.UNKNOWN]
        assert not {o.intent.venue for o in unknown} - without.keys()
        if left:
            r = route('X', Side.BUY, left, None, BOOKS, {v: Terms(state=without.get(v, '')) for v in BOOKS})
            assert not {x.venue for x in r.legs} & without.keys()
            for x in r.legs:
                name = f'g{len(legs)}'
                legs[name] = outcome(Order(name, replace(taking(parent, x), ts=now)), next(fates, 'fill'), turn)
        assert total(o.filled if o.state.terminal else o.intent.qty for o in legs.values()) <= qty
        if turn % 3 == 2:       # the venues' evidence on one that was not heard
            for o in unknown[:1]: legs[o.client_id] = outcome(o, next(proof, 'fill'), 100 + turn)
    assert total(o.filled for o in legs.values()) <= qty


def test_a_leg_keeps_everything_of_its_parent_but_size_price_and_place() -> None:
    parent = Intent('X', Side.SELL, D(5), reduce_only=True, run='r', cell='c', reason='why', parent='p')
    leg = taking(parent, Leg('a', D(2), D(99), D(198)))
    assert (leg.qty, leg.limit, leg.venue, leg.type) == (2, 99, 'a', OrderType.LIMIT)
    assert (leg.reduce_only, leg.run, leg.cell, leg.reason, leg.parent) == (True, 'r', 'c', 'why', 'p')

