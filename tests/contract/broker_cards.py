"""One card for each thing that a venue may offer: what it must do when it says that it can."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from broker_stage import Stage

from gekko.domain.order import Accepted, Amended, CancelRejected, Filled, Intent, Order, OrderState, OrderType, Side, TimeInForce
from gekko.domain.time import DAY, SECOND
from gekko.execution.broker import Capabilities
from gekko.execution.broker import Capability as C
from gekko.execution.reconcile import compare

LIMIT, STOP, STOP_LIMIT = OrderType.LIMIT, OrderType.STOP, OrderType.STOP_LIMIT
S = OrderState
D = Decimal
Q = D(2)


@dataclass(frozen=True)
class Card:
    shows: frozenset[C]
    play: Callable[[Stage], None]
    @property
    def name(self) -> str: return self.play.__name__


CARDS: list[Card] = []


def card(*shows: C, also: Iterable[C] = ()) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    "A card that shows `shows`, and runs where the venue offers these and `also`."
    def take(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        CARDS.append(Card(frozenset(shows), play))
        NEEDS[play.__name__] = frozenset(shows) | frozenset(also)
        return play
    return take


NEEDS: dict[str, frozenset[C]] = {}


def playable(table: Capabilities, cards: Iterable[Card]) -> list[Card]:
    return [c for c in cards if all(x in table for x in NEEDS[c.name])]


def unexercised(table: Capabilities, cards: Iterable[Card]) -> set[C]:
    "What the table claims and no card that runs on this venue shows."
    shown = {x for c in playable(table, cards) for x in c.shows}
    return {c for c in C if c in table} - shown


# --- orders

@card(C.MARKET, C.GTC)
def market_order_trades_at_once(s: Stage) -> None:
    name = s.buy(Q)
    s.move(D(101))
    order = s.expect(name, S.FILLED)
    assert order.filled == Q and order.avg_price == D(101)
    assert s.broker.open_orders() == []


@card(C.LIMIT, C.GTC, C.OPEN_ORDERS)
def limit_order_waits_for_its_price(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    [there] = s.broker.open_orders()
    assert (there.client_id, there.symbol, there.side, there.intent.qty, there.filled) == (name, s.instrument.symbol, Side.BUY, Q, 0)
    s.move(D(97))
    order = s.expect(name, S.FILLED)
    assert order.avg_price is not None and order.avg_price <= D(98)
    assert s.broker.open_orders() == []


@card(C.LIMIT)
def limit_above_the_market_pays_the_market(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(105))
    s.move(D(100))
    assert s.expect(name, S.FILLED).avg_price == D(100)


@card(C.STOP, also=[C.MARKET])
def stop_sleeps_until_touched(s: Stage) -> None:
    s.buy(Q)
    s.move(D(100))
    name = s.sell(Q, type=STOP, stop=D(95))
    s.move(D(96))
    s.expect(name, S.ACCEPTED)
    s.move(D(94))
    assert s.expect(name, S.FILLED).avg_price == D(94)


@card(C.STOP_LIMIT)
def stop_limit_becomes_a_limit(s: Stage) -> None:
    name = s.buy(Q, type=STOP_LIMIT, stop=D(105), limit=D(106))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    s.move(D(110))                       # beyond the limit: set off, and waiting
    s.quiet()
    assert s.tracker.get(name).filled == 0
    s.move(D(104))
    order = s.expect(name, S.FILLED)
    assert order.avg_price is not None and order.avg_price <= D(106)


@card(C.DAY, also=[C.LIMIT])
def day_order_expires(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(90), tif=TimeInForce.DAY)
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    s.next_day()
    s.move(D(100))
    s.expect(name, S.EXPIRED)
    s.move(D(80))
    s.quiet()
    assert s.tracker.get(name).filled == 0


@card(C.GTD, also=[C.LIMIT])
def the_venue_ends_an_order_at_its_date(s: Stage) -> None:
    "Nobody asks for its end: the date alone does it."
    name = s.buy(Q, type=LIMIT, limit=D(90), tif=TimeInForce.GTD, expires=s.clock.now() + 3600 * SECOND)
    s.move(D(100))
    there = s.broker.order(s.expect(name, S.ACCEPTED).client_id)
    assert there is not None and there.intent.tif is TimeInForce.GTD and there.intent.expires == s.tracker.get(name).intent.expires
    s.next_day()
    s.move(D(100))
    s.expect(name, S.EXPIRED)
    s.move(D(80))
    s.quiet()
    assert s.tracker.get(name).filled == 0 and s.broker.open_orders() == []


@card(C.RENEW, also=[C.GTD, C.AMEND, C.LIMIT])
def a_date_can_be_moved(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(90), tif=TimeInForce.GTD, expires=s.clock.now() + 3600 * SECOND)
    s.move(D(100))
    intent = s.expect(name, S.ACCEPTED).intent
    s.broker.amend(s.approve(Order(name, replace(intent, expires=intent.expires + 4 * DAY))))
    s.until(lambda: any(isinstance(e, Amended) for e in s.heard))
    assert s.tracker.get(name).intent.expires == intent.expires + 4 * DAY
    s.next_day()
    s.move(D(100))
    s.quiet()
    assert s.expect(name, S.ACCEPTED).open_qty == Q and len(s.broker.open_orders()) == 1


@card(C.AMEND, also=[C.LIMIT])
def a_changed_order_trades_as_changed(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(90))
    s.move(D(100))
    intent = s.expect(name, S.ACCEPTED).intent
    s.broker.amend(s.approve(Order(name, replace(intent, limit=D(95), qty=D(3)))))
    s.until(lambda: any(isinstance(e, Amended) for e in s.heard))
    s.move(D(94))
    order = s.expect(name, S.FILLED)
    assert order.filled == 3 and order.avg_price is not None and order.avg_price <= D(95)


@card(C.IOC, also=[C.LIMIT])
def ioc_does_not_wait(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(90), tif=TimeInForce.IOC)
    s.move(D(100))
    assert s.expect(name, S.CANCELLED).filled == 0
    taker = s.buy(Q, type=LIMIT, limit=D(100), tif=TimeInForce.IOC)
    s.move(D(100))
    s.expect(taker, S.FILLED)


@card(C.FOK, also=[C.LIMIT])
def fok_is_all_or_nothing(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(100), tif=TimeInForce.FOK)
    thin = C.PARTIAL in s.broker.capabilities
    s.move(D(100) if thin else D(101), Q / 2 if thin else None)
    assert s.expect(name, S.CANCELLED).filled == 0
    whole = s.buy(Q, type=LIMIT, limit=D(100), tif=TimeInForce.FOK)
    s.move(D(100))
    assert s.expect(whole, S.FILLED).filled == Q


@card(C.PARTIAL, also=[C.MARKET])
def a_thin_market_fills_in_parts(s: Stage) -> None:
    name = s.buy(D(3)) if s.market_waits else s.buy(D(3), type=LIMIT, limit=D(101))
    s.move(D(100), D(2))
    assert s.expect(name, S.PARTLY_FILLED).filled == 2
    assert [o.filled for o in s.broker.open_orders()] == [2]
    s.move(D(101), D(2))
    order = s.expect(name, S.FILLED)
    assert order.filled == 3 and order.paid == 2 * 100 + 101 and len(order.fill_ids) == 2


@card(C.PARTIAL, C.IOC)
def ioc_takes_what_there_is(s: Stage) -> None:
    name = s.buy(D(3), tif=TimeInForce.IOC)
    s.move(D(100), D(2))
    assert s.expect(name, S.CANCELLED).filled == 2


@card(C.POST_ONLY, also=[C.LIMIT])
def post_only_never_takes(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(105), post_only=True)
    s.move(D(100))
    s.until(lambda: s.state(name) in (S.REJECTED, S.CANCELLED))
    assert s.tracker.get(name).filled == 0
    resting = s.buy(Q, type=LIMIT, limit=D(98), post_only=True)
    s.move(D(100))
    s.move(D(97))
    s.expect(resting, S.FILLED)
    assert all(e.fill.maker for e in s.heard if isinstance(e, Filled))


@card(C.REDUCE_ONLY, also=[C.MARKET])
def reduce_only_never_adds(s: Stage) -> None:
    s.buy(Q)
    s.move(D(100))
    s.listen()
    closing = s.sell(Q, reduce_only=True)
    s.move(D(100))
    s.expect(closing, S.FILLED)
    assert s.broker.positions() == {}


@card(C.REDUCE_ONLY, also=[C.LIMIT, C.STOP, C.MARKET])
def reduce_only_orders_go_when_the_position_is_gone(s: Stage) -> None:
    s.buy(Q)
    s.move(D(100))
    s.listen()
    target, stop = s.sell(Q, type=LIMIT, limit=D(110), reduce_only=True), s.sell(Q, type=STOP, stop=D(95), reduce_only=True)
    s.move(D(94))
    s.expect(stop, S.FILLED)
    s.move(D(111))
    assert s.expect(target, S.CANCELLED).filled == 0
    assert s.broker.positions() == {}


@card(C.SHORT, also=[C.MARKET])
def short_goes_below_zero_and_back(s: Stage) -> None:
    name = s.sell(Q)
    s.move(D(100))
    s.expect(name, S.FILLED)
    assert s.broker.positions() == {s.instrument.symbol: -Q}
    back = s.buy(Q)
    s.move(D(90))
    s.expect(back, S.FILLED)
    assert s.broker.positions() == {}


# --- cancels, names, look-ups

@card(C.CANCEL, also=[C.LIMIT])
def cancel_ends_an_order(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(90))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    s.broker.cancel(name)
    s.move(D(100))
    s.expect(name, S.CANCELLED)
    s.move(D(80))
    s.quiet()
    assert s.tracker.get(name).filled == 0 and s.broker.open_orders() == []


@card(C.CANCEL, also=[C.MARKET])
def cancel_of_what_is_over_or_never_was_is_refused(s: Stage) -> None:
    name = s.buy(Q)
    s.move(D(100))
    s.expect(name, S.FILLED)
    for gone in (name, 'g' + 'a' * 19):
        s.broker.cancel(gone)
        s.move(D(100))
        s.until(lambda gone=gone: any(isinstance(e, CancelRejected) and e.client_id == gone for e in s.heard))
    assert s.state(name) is S.FILLED


@card(C.IDEMPOTENT, also=[C.LIMIT])
def the_same_name_is_the_same_order(s: Stage) -> None:
    name = s.buy(Q, type=LIMIT, limit=D(98))
    s.send(s.tracker.get(name).intent, name)
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    assert len(s.broker.open_orders()) == 1
    s.move(D(97))
    s.expect(name, S.FILLED)
    s.send(s.tracker.get(name).intent, name)      # and a resend after the end starts nothing
    s.move(D(97))
    s.quiet()
    assert s.broker.positions() == {s.instrument.symbol: Q} and s.state(name) is S.FILLED


@card(C.LOOKUP, also=[C.LIMIT, C.CANCEL])
def an_order_can_be_looked_up_by_name(s: Stage) -> None:
    assert s.broker.order('g' + 'a' * 19) is None
    name = s.buy(Q, type=LIMIT, limit=D(90))
    s.move(D(100))
    s.expect(name, S.ACCEPTED)
    there = s.broker.order(name)
    assert there is not None and there.state is S.ACCEPTED and there.intent.qty == Q and there.venue_id == s.tracker.get(name).venue_id
    s.broker.cancel(name)
    s.move(D(100))
    s.expect(name, S.CANCELLED)
    there = s.broker.order(name)
    assert there is not None and there.state is S.CANCELLED


# --- the account

@card(C.POSITIONS, C.CASH, also=[C.MARKET])
def positions_and_cash_follow_the_fills(s: Stage) -> None:
    before = s.broker.cash()[s.instrument.quote]
    one = s.buy(D(3))
    s.move(D(100))
    two = s.sell(D(1))
    s.move(D(110))
    for name in (one, two): s.expect(name, S.FILLED)
    fees = s.tracker.get(one).fees + s.tracker.get(two).fees
    assert s.broker.positions() == {s.instrument.symbol: D(2)}
    assert s.broker.cash()[s.instrument.quote] == before - 300 + 110 - fees


@card(C.FILLS_SINCE, also=[C.MARKET])
def fills_can_be_read_from_a_cursor(s: Stage) -> None:
    for price in (D(100), D(101), D(102)):
        name = s.buy(Q)
        s.move(price)
        s.expect(name, S.FILLED)
    everything = s.broker.fills_since('')
    assert [f.price for f in everything] == [100, 101, 102] and len({f.fill_id for f in everything}) == 3
    assert s.broker.fills_since(everything[0].fill_id) == everything[1:]
    assert s.broker.fills_since(everything[-1].fill_id) == []
    assert everything == [e.fill for e in s.heard if isinstance(e, Filled)]


@card(C.POSITIONS, C.CASH, C.FILLS_SINCE, C.OPEN_ORDERS, also=[C.MARKET, C.LIMIT])
def the_books_agree(s: Stage) -> None:
    for n, price in enumerate((D(100), D(103), D(99), D(104))):
        s.buy(Q + n)
        if n: s.sell(Q)
        s.buy(Q, type=LIMIT, limit=D(90))
        s.move(price)
        s.quiet()
    s.until(lambda: len(s.tracker.open()) == 4)
    s.fund()
    assert compare(s.account, s.tracker, s.broker) == []


# --- what every venue refuses, whatever it offers

def _refused(s: Stage, intent: Intent) -> str:
    name = s.send(intent)
    s.move(s.price)
    order = s.expect(name, S.REJECTED)
    assert s.broker.open_orders() == [] and s.broker.positions() == {}
    return order.reason


@card()
def an_unknown_symbol_is_refused(s: Stage) -> None:
    assert _refused(s, Intent('NOWHERE', Side.BUY, Q))


@card()
def a_size_off_the_grid_is_refused(s: Stage) -> None:
    assert _refused(s, s.intent('buy', Q + s.instrument.lot / 2))


@card(also=[C.LIMIT])
def a_price_off_the_grid_is_refused(s: Stage) -> None:
    assert _refused(s, s.intent('buy', Q, type=LIMIT, limit=D(99) + s.instrument.tick / 2))


@card(also=[C.LIMIT])
def an_order_too_small_is_refused(s: Stage) -> None:
    small = s.instrument.lot if s.instrument.min_notional else s.instrument.lot / 2      # where nothing is too small but less than one lot
    assert _refused(s, s.intent('buy', small, type=LIMIT, limit=D(90)))


@card(also=[C.REDUCE_ONLY])
def a_reduction_of_nothing_is_refused(s: Stage) -> None:
    # the gate is shown a position that the venue does not have
    from gekko.domain.account import settle
    from gekko.domain.order import Fill
    s.account = settle(s.account, Fill('elsewhere', 'x', s.instrument.symbol, Side.BUY, Q, D(100)), s.instrument)
    assert _refused(s, s.intent('sell', Q, reduce_only=True))


@card(also=[C.MARKET])
def each_thing_is_said_once_and_in_order(s: Stage) -> None:
    names = [s.buy(Q) for _ in range(3)]
    s.move(D(100))
    for name in names: s.expect(name, S.FILLED)
    s.quiet()
    for name in names: assert [type(e) for e in s.heard if e.client_id == name] == [Accepted, Filled]
    assert s.broker.drain() == []
