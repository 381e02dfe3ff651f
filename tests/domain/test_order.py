"""An order hears a truthful venue in any order, twice, with losses, and ends in the venue's truth."""
from dataclasses import dataclass, fields, replace
from decimal import Context, Decimal, Inexact, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.money import EXACT, ZERO, total
from gekko.domain.order import (
    MOVES, Accepted, Amended, AmendRejected, Cancelled, CancelRejected, CancelRequested, Expired, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Rejected, Side, Submitted, apply,
)

S = OrderState
VENUE_ID = 'V-1'


@dataclass(frozen=True)
class World:
    "What one order was, what really became of it at the venue, and every word that was said of it."
    order: Order
    truth: Order
    said: tuple[OrderEvent, ...]
    ours: tuple[OrderEvent, ...]

    def answer(self, ts: int) -> list[OrderEvent]:
        "What a look-up at the venue says, later than everything else."
        match self.truth.state:
            case S.REJECTED: return [Rejected('g', 'no', ts)]
            case S.CANCELLED: return [Cancelled('g', 'asked', ts)]
            case S.EXPIRED: return [Expired('g', ts)]
            case S.FILLED: return []
            case _: return [Accepted('g', VENUE_ID, ts)]


def fill(n: int, lots: int, price: int, side: Side) -> Fill:
    return Fill(f'f{n}', 'g', 'KO', side, Decimal(lots) / 100, Decimal(price) / 100, Decimal(lots) / 1000, ts=n)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    side, lots = draw(st.sampled_from(Side)), draw(st.integers(1, 300))
    order = Order('g', Intent('KO', side, Decimal(lots) / 100))
    ours: list[OrderEvent] = [Submitted('g', 1)]
    if draw(st.booleans()): ours.append(Lost('g', 'submit', draw(st.integers(5, 40))))
    if draw(st.integers(0, 5)) == 0: return World(order, replace(order, state=S.REJECTED), (Rejected('g', 'no', 2),), tuple(ours))
    if cancelled := draw(st.booleans()): ours.append(CancelRequested('g', 20))
    if cancelled and draw(st.booleans()): ours.append(Lost('g', 'cancel', draw(st.integers(21, 40))))
    parts, left = [], lots
    for n in range(draw(st.integers(0, 5))):
        if left: parts.append(fill(n, draw(st.integers(1, left)), draw(st.integers(1, 10_000)), side))
        left = lots - int(total(f.qty for f in parts) * 100)
    if left and draw(st.integers(0, 2)) == 0: parts, left = [*parts, fill(9, left, draw(st.integers(1, 10_000)), side)], 0
    said: list[OrderEvent] = [Accepted('g', VENUE_ID, 2), *(Filled('g', f, f.ts) for f in parts)]
    state = S.FILLED if not left else draw(st.sampled_from([S.ACCEPTED, S.CANCELLED, S.EXPIRED]))
    if state is S.CANCELLED: said.append(Cancelled('g', 'asked', 19))
    if state is S.EXPIRED: said.append(Expired('g', 19))
    if cancelled and state is not S.CANCELLED and draw(st.booleans()): said.append(CancelRejected('g', 'too late', 22))
    if state is S.ACCEPTED and parts: state = S.PARTLY_FILLED
    truth = replace(order, state=state, venue_id=VENUE_ID, filled=total(f.qty for f in parts), paid=total(f.qty * f.price for f in parts),
                    fees=total(f.fee for f in parts), fill_ids=frozenset(f.fill_id for f in parts))
    return World(order, truth, tuple(said), tuple(ours))


def facts(o: Order) -> tuple[object, ...]:
    return o.state, o.filled, o.paid, o.fees, o.fill_ids, o.venue_id, o.conflict, o.open_qty, o.unheard


@st.composite
def hearings(draw: st.DrawFn) -> tuple[World, list[OrderEvent]]:
    "A world, and its words shuffled at will, each heard one to three times."
    w = draw(worlds())
    every = [e for e in (*w.said, *w.ours) for _ in range(draw(st.integers(1, 3)))]
    return w, draw(st.permutations(every))


@settings(max_examples=1500)
@given(hearings())
def test_any_hearing_of_a_truthful_venue_ends_in_its_truth(case: tuple[World, list[OrderEvent]]) -> None:
    w, heard = case
    order = w.order
    for e in heard:
        before, order = order, apply(order, e)
        assert order.filled <= order.intent.qty and order.filled <= w.truth.filled
        assert order.fill_ids >= before.fill_ids
        assert not order.conflict, 'a truthful venue is never called a liar'
        assert not order.state.terminal or order.state is w.truth.state, 'over only when the venue says so'
        if not w.truth.state.terminal: assert order.open_qty >= w.truth.open_qty, 'what may still trade stays reserved'
    lost = [e for e in w.ours if isinstance(e, Lost)]
    if order.state is S.UNKNOWN:
        assert lost, 'nothing was lost, so nothing is unknown'
        for e in w.answer(100): order = apply(order, e)
    assert facts(order) == facts(w.truth)


@settings(max_examples=300)
@given(hearings())
def test_what_is_known_is_not_lost_by_hearing_it_all_again(case: tuple[World, list[OrderEvent]]) -> None:
    w, heard = case
    order = w.order
    for e in (*heard, *w.answer(100)): order = apply(order, e)
    settled = facts(order)
    for e in w.said: order = apply(order, e)
    assert facts(order) == settled


@settings(max_examples=300)
@given(hearings())
def test_doubt_ends_only_on_evidence(case: tuple[World, list[OrderEvent]]) -> None:
    "Our own words never end an Unknown, nor does a refused cancel."
    w, heard = case
    order = w.order
    for e in heard:
        before, order = order, apply(order, e)
        if before.state is S.UNKNOWN and isinstance(e, (Submitted, CancelRequested, CancelRejected, Lost)): assert order.state is S.UNKNOWN
        assert (order.unheard is not None) == (order.state is S.UNKNOWN)
        if order.state is S.UNKNOWN: assert order.open_qty == order.intent.qty - order.filled


@settings(max_examples=500)
@given(hearings())
def test_an_order_whose_end_was_not_heard_is_still_looked_for(case: tuple[World, list[OrderEvent]]) -> None:
    "The venue's last word never arrives. If a cancel was lost too, nothing that was said before may pass for its answer."
    w, heard = case
    order = w.order
    for e in heard:
        if not isinstance(e, (Cancelled, Expired)): order = apply(order, e)
    lost = {e.what for e in w.ours if isinstance(e, Lost)}
    if 'cancel' in lost and order.state not in (S.FILLED, S.REJECTED): assert order.state is S.UNKNOWN
    if lost == {'submit'} and w.truth.state is not S.REJECTED: assert order.state is not S.UNKNOWN, 'it was accepted, and that was heard'
    mute = w.order
    for e in heard:
        if e in w.ours: mute = apply(mute, e)
    assert mute.state is (S.UNKNOWN if lost else S.SUBMITTED) and mute.open_qty == mute.intent.qty
    for e in w.said: mute = apply(mute, e)
    for e in w.answer(100): mute = apply(mute, e)
    assert facts(mute) == facts(w.truth), 'heard late, and all at once'


times = st.integers(0, 50)
any_event = st.one_of(
    st.builds(Submitted, st.just('g'), times), st.builds(Accepted, st.just('g'), st.sampled_from(['', 'V', 'W']), times),
    st.builds(lambda n, q, side, symbol, ts: Filled('g', Fill(f'f{n}', 'g', symbol, side, Decimal(q) / 4, Decimal(100 + n), Decimal('0.01')), ts), st.integers(0, 9), st.integers(-1, 12),
              st.sampled_from([Side.BUY, Side.BUY, Side.BUY, Side.SELL]), st.sampled_from(['KO', 'KO', 'KO', 'PEP']), times),
    st.builds(CancelRequested, st.just('g'), times), st.builds(CancelRejected, st.just('g'), st.just('late'), times), st.builds(Cancelled, st.just('g'), st.just('asked'), times),
    st.builds(Rejected, st.just('g'), st.just('no'), times), st.builds(Expired, st.just('g'), times), st.builds(Lost, st.just('g'), st.sampled_from(['submit', 'cancel']), times),
    st.builds(lambda q, ts: Amended('g', Decimal(q) / 4, ts=ts), st.integers(1, 14), times), st.builds(AmendRejected, st.just('g'), st.just('no'), times))


@settings(max_examples=800)
@given(st.lists(any_event, max_size=30))
def test_nothing_that_a_venue_says_breaks_it(heard: list[OrderEvent]) -> None:
    "Lies, nonsense and contradictions: never an exception, never more filled than ordered, never a fill forgotten or counted twice."
    order, counted = Order('g', Intent('KO', Side.BUY, Decimal(2))), dict[str, Fill]()
    for e in heard:
        before, order = order, apply(order, e)
        if isinstance(e, Filled) and order.fill_ids != before.fill_ids: counted[e.fill.fill_id] = e.fill
        assert apply(order, e) == order, 'said twice is said once'
        assert order.fill_ids == frozenset(counted) and order.filled == total(f.qty for f in counted.values()) <= order.intent.qty
        assert order.paid == total(EXACT.multiply(f.qty, f.price) for f in counted.values()) and order.fees == total(f.fee for f in counted.values())
        assert all(f.side is Side.BUY and f.symbol == 'KO' and f.qty > 0 for f in counted.values())
        assert order.client_id == 'g' and (before.conflict in order.conflict or isinstance(e, Amended))
        assert order.intent == before.intent or (isinstance(e, Amended) and before.state is not S.REJECTED and order.intent.qty == e.qty)
        if order.state not in (S.CANCELLED, S.EXPIRED): assert (order.filled == order.intent.qty) == (order.state is S.FILLED)
        assert not (order.filled and order.state in (S.INTENT, S.SUBMITTED, S.ACCEPTED, S.REJECTED)), 'a fill shows in the state'
        if before.state.terminal and not order.state.terminal: assert (before.state is S.REJECTED and order.conflict) or (before.state is S.FILLED and isinstance(e, Amended) and order.open_qty)
        if order == before: assert order is before or isinstance(e, (CancelRejected, AmendRejected)), 'a word that teaches nothing gives the same order back'


def test_a_mark_on_an_order_stays_until_it_is_answered() -> None:
    "Every field that an event does not speak of is as it was."
    speaks_of = {Submitted: {'state'}, Accepted: {'state', 'venue_id'}, CancelRequested: {'cancelling'}, CancelRejected: {'cancelling', 'reason'}, Cancelled: {'state', 'cancelling', 'reason', 'unheard'},
                 Expired: {'state', 'cancelling', 'reason', 'unheard'}, Lost: {'state', 'cancelling', 'reason', 'unheard'}, Filled: {'state', 'filled', 'paid', 'fees', 'fill_ids', 'cancelling'}}
    marked = Order('g', Intent('KO', Side.SELL, Decimal(9), run='r', cell='c'), S.INTENT, ZERO, ZERO, Decimal('0.5'), 'V', frozenset(), True, 'why', 'odd')
    for state in (S.INTENT, S.SUBMITTED, S.ACCEPTED):
        for kind, may in speaks_of.items():
            e = Filled('g', fill(1, 50, 100, Side.SELL)) if kind is Filled else kind('g')
            after, before = apply(replace(marked, state=state), e), replace(marked, state=state)
            assert {f.name for f in fields(Order) if getattr(after, f.name) != getattr(before, f.name)} <= may, kind


@pytest.mark.parametrize('submit_ts', [1, 5, 9])
def test_a_lost_cancel_outweighs_a_lost_submit(submit_ts: int) -> None:
    "Whichever was lost first and whichever is told first: proof that it arrived is no proof that it is still there."
    lost = [Lost('g', 'submit', submit_ts), Lost('g', 'cancel', 5)]
    for told in (lost, lost[::-1]):
        order = Order('g', Intent('KO', Side.BUY, Decimal(2)))
        for e in told: order = apply(order, e)
        assert order.unheard == lost[1]
        assert apply(order, Accepted('g', 'V', 2)).state is S.UNKNOWN and apply(order, Accepted('g', 'V', 5)).state is S.ACCEPTED


AMOUNTS = [Decimal(x) for x in ('NaN', 'sNaN', 'Infinity', '-Infinity', '0', '-0', '-1', '1E+999999', '1E-999999', '1E+30', '1E-30', '0.5', '2', '123456789.123456789', '9' * 60, '0.' + '1' * 60)]
amounts = st.sampled_from(AMOUNTS)
absurd = st.one_of(
    st.builds(lambda who, n, symbol, side, q, p, fee, ts: Filled(who, Fill(f'f{n}', who, symbol, side, q, p, fee, ts=ts), ts), st.sampled_from(['g', 'g', 'h']), st.integers(0, 9),
              st.sampled_from(['KO', 'KO', 'ko', 'КО', '']), st.sampled_from(Side), amounts, amounts, amounts, st.integers()),
    st.builds(Amended, st.sampled_from(['g', 'g', 'h']), st.none() | amounts, st.none() | amounts, st.none() | amounts, st.integers()),
    st.builds(lambda kind, who: kind(who), st.sampled_from([Submitted, Accepted, CancelRequested, CancelRejected, Cancelled, Rejected, Expired, Lost, AmendRejected]), st.sampled_from(['h', ''])),
    st.builds(Lost, st.just('g'), st.text(max_size=4), st.integers()), st.builds(Rejected, st.just('g'), st.text(max_size=9), st.integers()))
kinds = st.sampled_from([{}, {'type': OrderType.LIMIT, 'limit': Decimal(9)}, {'type': OrderType.STOP, 'stop': Decimal(9)}, {'type': OrderType.STOP_LIMIT, 'limit': Decimal(9), 'stop': Decimal(8)}])


@settings(max_examples=1500)
@given(st.sampled_from(['2', '1E+30', '0.00000001', '9' * 40]), kinds, st.lists(absurd | any_event, max_size=25))
def test_every_event_gives_an_order(qty: str, how: dict[str, object], heard: list[OrderEvent]) -> None:
    "Foreign, absurd, not a number: an order comes back, its sums are finite and exact, and whoever asks twice hears the same."
    order, paid = Order('g', Intent('KO', Side.BUY, Decimal(qty), **how)), dict[str, Fill]()  # type: ignore[arg-type]
    for e in heard:
        before = order
        with localcontext(Context(prec=3)): order = apply(order, e)
        assert isinstance(order, Order) and apply(order, e) == order
        if e.client_id != 'g': assert order is before
        if isinstance(e, Filled) and order.filled != before.filled: paid[e.fill.fill_id] = e.fill
        assert order.fill_ids == frozenset(paid)
        wide = Context(prec=10_000, Emin=-10**9, Emax=10**9, traps=[Inexact])
        with localcontext(wide):
            assert order.filled == sum((f.qty for f in paid.values()), ZERO) <= order.intent.qty
            assert order.paid == sum((f.qty * f.price for f in paid.values()), ZERO) and order.fees == sum((f.fee for f in paid.values()), ZERO)
            assert order.state.terminal or order.open_qty == order.intent.qty - order.filled > 0
        assert all(x.is_finite() for x in (order.filled, order.paid, order.fees, order.open_qty, order.intent.qty))
        if before.state.terminal and not order.state.terminal: assert isinstance(e, Filled) or (before.state is S.FILLED and isinstance(e, Amended))
        if before.state in (S.CANCELLED, S.EXPIRED): assert order.state in (before.state, S.FILLED)


@st.composite
def amended(draw: st.DrawFn) -> tuple[Order, list[OrderEvent], list[OrderEvent], Order]:
    "An order whose size the venue changes while it fills, all that is said of it shuffled and repeated, what reconciliation tells, and the truth."
    size, filled, said, state = draw(st.integers(1, 20)), 0, list[OrderEvent]([Accepted('g', VENUE_ID, 2)]), S.ACCEPTED
    start = Order('g', Intent('KO', Side.BUY, Decimal(size), OrderType.LIMIT, limit=Decimal(9)))
    for t in range(3, 3 + draw(st.integers(1, 7))):
        if draw(st.booleans()):
            size = draw(st.integers(max(filled, 1), 25))
            said.append(Amended('g', Decimal(size), ts=t))
        elif filled < size:
            n = draw(st.integers(1, size - filled))
            filled += n
            said.append(Filled('g', fill(t, 100 * n, 900, Side.BUY), t))
        if filled == size: break
    if filled == size: state = S.FILLED
    elif draw(st.booleans()): said, state = [*said, Cancelled('g', 'asked', 90)], S.CANCELLED
    elif filled: state = S.PARTLY_FILLED
    truth = replace(start, intent=replace(start.intent, qty=Decimal(size)), state=state, filled=Decimal(filled))
    heard = draw(st.permutations([e for e in said for _ in range(draw(st.integers(1, 2)))]))
    told = [Amended('g', Decimal(size), ts=100), *(e for e in said if isinstance(e, Filled)), *([Cancelled('g', 'asked', 100)] if state is S.CANCELLED else [])]
    return start, heard, told, truth


@settings(max_examples=1500)
@given(amended())
def test_amendments_and_fills_in_any_order_end_in_the_truth(case: tuple[Order, list[OrderEvent], list[OrderEvent], Order]) -> None:
    "The last size counts, whenever it was heard. What was heard too early to be believed is believed when it is told again."
    order, heard, told, truth = case
    for e in (Submitted('g', 1), *heard):
        order = apply(order, e)
        assert order.filled <= order.intent.qty and order.filled <= truth.filled
    assert order.intent.qty == truth.intent.qty or order.conflict
    if not truth.state.terminal: assert order.open_qty >= truth.open_qty
    for e in told: order = apply(order, e)
    assert (order.state, order.filled, order.intent.qty, order.open_qty, order.conflict) == (truth.state, truth.filled, truth.intent.qty, truth.open_qty, '')
    for e in (*heard, *told): assert apply(order, e) == order


def test_another_orders_event_says_nothing_of_this_one() -> None:
    order = Order('g', Intent('KO', Side.BUY, Decimal(1)))
    assert apply(order, Submitted('h')) is order


def test_moves_name_every_state_that_may_end() -> None:
    live = {s for s in S if not s.terminal}
    assert set(MOVES['cancelled']) == set(MOVES['expired']) == live and live < set(MOVES['last fill'])
    assert not any(s.terminal for w in ('lost submit', 'lost cancel', 'accepted', 'submitted') for s in MOVES[w])


@given(st.integers(1, 10**30), st.integers(1, 10**12))
def test_sums_do_not_round_in_a_thread_of_few_digits(qty: int, price: int) -> None:
    order = Order('g', Intent('KO', Side.BUY, Decimal(qty)))
    f = Fill('f', 'g', 'KO', Side.BUY, Decimal(qty), Decimal(price), Decimal(1))
    with localcontext(Context(prec=2, traps=[Inexact])): done = apply(order, Filled('g', f))
    assert done.state is S.FILLED and done.paid == EXACT.multiply(Decimal(qty), Decimal(price)) and int(done.paid) == qty * price


prices = st.none() | st.integers(-1, 3).map(Decimal) | st.just(Decimal('NaN')) | st.just(1.5) | st.just(Decimal('Infinity'))


@given(st.sampled_from(OrderType), st.integers(-1, 3).map(Decimal) | st.sampled_from([2.0, 2, Decimal('NaN'), Decimal('sNaN'), Decimal('-0')]), prices, prices)
def test_an_intent_says_what_its_type_needs_and_no_more(kind: OrderType, qty: object, limit: object, stop: object) -> None:
    def positive(x: object) -> bool: return isinstance(x, Decimal) and x.is_finite() and x > 0
    wants = {OrderType.MARKET: (False, False), OrderType.LIMIT: (True, False), OrderType.STOP: (False, True), OrderType.STOP_LIMIT: (True, True)}[kind]
    good = positive(qty) and all(positive(p) if need else p is None for need, p in zip(wants, (limit, stop)))
    if good: assert Intent('KO', Side.BUY, qty, kind, limit, stop).type is kind  # type: ignore[arg-type]
    else:
        with pytest.raises(BadInput): Intent('KO', Side.BUY, qty, kind, limit, stop)  # type: ignore[arg-type]


@pytest.mark.parametrize(('what', 'wrong'), [('side', 'buy'), ('type', 'limit'), ('tif', 'gtc'), ('side', None), ('side', 'BUY'), ('qty', True), ('qty', '2')])
def test_text_is_not_a_side_and_nothing_is_guessed(what: str, wrong: object) -> None:
    "Side.BUY equals 'buy' and is another thing: an intent that took the text would be read as a sale."
    with pytest.raises(BadInput, match='expected .*, found '): Intent(**{'symbol': 'KO', 'side': Side.BUY, 'qty': Decimal(1), what: wrong})  # type: ignore[arg-type]
