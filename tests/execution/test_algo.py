"""Algorithms under anything: fills, refusals, lost answers, cancels that race, late desks. What is out never exceeds what was ordered, and a restart plans the same."""
from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.money import EXACT, ZERO, on_step, total
from gekko.domain.order import (Accepted, Cancelled, CancelRejected, CancelRequested, Expired, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Rejected, Side,
                                Submitted, apply)
from gekko.domain.parent import Parent
from gekko.domain.time import MINUTE, SECOND
from gekko.execution.algo import ALGOS, Look, Plan, check_params, plan, report, tally
from gekko.execution.setup import bounds, ladder, setup

T0 = 1_709_888_400 * SECOND
D = Decimal
PARAMS: dict[str, dict[str, Any]] = {
    'twap': {'slices': 6, 'retry_s': 1}, 'vwap': {'slices': 9, 'weights': [5, 1, 0, 3], 'style': 'cross'}, 'pov': {'share': '0.2', 'on_end': 'cross'},
    'iceberg': {'display': '0.7', 'on_end': 'cross'}, 'adaptive': {'urgency': 0.4, 'post_only': True}}
BTC = Instrument('BTC-USD', 'BTC', 'USD', 'crypto', tick=D('0.5'), lot=D('0.01'), min_notional=D(10))


@dataclass
class World:
    """A venue without manners: every order's fate is drawn, and the desk sees no more than the orders."""
    parent: Parent
    now: int = T0 - SECOND
    mid: Decimal = D(100)
    half: Decimal = D('0.5')
    volume: Decimal = ZERO
    blind: bool = False
    children: list[Order] = field(default_factory=list)
    fills: int = 0

    def look(self) -> Look:
        bid, ask = (ZERO, self.mid) if self.blind else (self.mid - self.half, self.mid + self.half)
        return Look(self.now, bid, ask, D('1.3'), D('0.9'), self.volume)

    def on(self, i: int, event: OrderEvent) -> None: self.children[i] = apply(self.children[i], event)

    def fill(self, i: int, part: int) -> None:
        o = self.children[i]
        lots = int(o.open_qty / BTC.lot)
        if lots < 1: return
        qty = BTC.lot * max(1, lots * part // 4)
        self.fills += 1
        self.volume += qty
        self.on(i, Filled(o.client_id, Fill(f'f{self.fills}', o.client_id, o.symbol, o.side, qty, o.intent.limit or self.mid, ts=self.now)))

    def take(self, p: Plan) -> None:
        for i in p.send: self.children.append(Order(f'c{len(self.children)}', i))
        for name in p.cancel: self.on(int(name[1:]), CancelRequested(name, self.now))

    def fate(self, i: int, what: int, part: int) -> None:
        """One thing that a venue, or the line to it, may do to a child."""
        o, name = self.children[i], f'c{i}'
        if o.state.terminal: return
        match what:
            case 0: self.on(i, Submitted(name, self.now))
            case 1 | 2: self.on(i, Accepted(name, f'v{i}', self.now))
            case 3 | 4: self.fill(i, part)
            case 5: self.fill(i, 4)
            case 6: self.on(i, Lost(name, 'cancel' if o.cancelling else 'submit', self.now))
            case 7 if not o.filled: self.on(i, Rejected(name, 'no', self.now))
            case 8: self.on(i, Cancelled(name, 'by the venue', self.now))
            case 9 if o.cancelling: self.on(i, Cancelled(name, 'by request', self.now))
            case 10 if o.cancelling: self.on(i, CancelRejected(name, 'too late', self.now))
            case 11: self.on(i, Expired(name, self.now))


def out(children: list[Order]) -> Decimal: return total(EXACT.add(o.filled, o.open_qty) for o in children)


def check(w: World, p: Plan) -> None:
    """What holds of every plan."""
    parent, look = w.parent, w.look()
    planned = total(i.qty for i in p.send)
    assert out(w.children) + planned <= parent.qty
    for i in p.send:
        assert on_step(i.qty, BTC.lot) and i.parent == parent.parent_id and i.side is parent.side and i.ts == w.now
        price = look.bid if i.limit is None else i.limit
        assert BTC.notional(i.qty, price) >= BTC.min_notional or i.side is Side.SELL and i.qty * look.bid >= BTC.min_notional
        if i.limit is not None: assert on_step(i.limit, BTC.tick)
        if parent.limit is not None:
            assert i.type is OrderType.LIMIT and i.limit is not None
            assert i.limit <= parent.limit if i.side is Side.BUY else i.limit >= parent.limit
    assert not (p.send and (look.blind or w.now < parent.start))
    s = setup(parent)
    assert not (p.send and w.now >= parent.end + (0 if s.on_end == 'stop' else s.grace)), 'its time is over'
    assert all(not w.children[int(n[1:])].cancelling and w.children[int(n[1:])].state in (OrderState.ACCEPTED, OrderState.PARTLY_FILLED) for n in p.cancel)
    if p.done: assert all(o.state.terminal for o in w.children) and not p.send and not p.cancel
    else: assert p.wake > w.now


def check_own(w: World, p: Plan) -> None:
    """What each algorithm promises of its own, before its end."""
    parent, then = w.parent, out(w.children) + total(i.qty for i in p.send)
    if not p.send or w.now >= parent.end: return
    if parent.algo in ('twap', 'vwap'):
        s, k = setup(parent), sum(x <= w.now for x in setup(parent).times)
        assert then <= ladder(parent, BTC.lot)[k - 1] * BTC.lot
        since = s.times[k - 1]
        fresh = total(EXACT.add(o.filled, o.open_qty) for o in w.children if o.intent.ts >= since) + p.send[0].qty
        assert fresh <= max(bounds(parent, BTC.lot)[k - 1], 22) * BTC.lot
    if parent.algo == 'pov': assert then <= D('0.2') * (w.volume - total(o.filled for o in w.children))
    if parent.algo == 'iceberg': assert all(o.state.terminal for o in w.children)


def same_after_restart(w: World, p: Plan, cut: int) -> None:
    """From the journal: everything read back, nothing remembered, finished children summed up or not."""
    parent = msgspec.json.decode(msgspec.json.encode(w.parent), type=Parent)
    children = [msgspec.json.decode(msgspec.json.encode(o), type=Order) for o in w.children]
    for cache in (setup, ladder, bounds): cache.cache_clear()
    assert plan(parent, children, w.look(), BTC) == p
    finished = [o for o in children if o.state.terminal]
    summed = finished[:cut] if cut % 2 else finished[-cut:]
    rest = [o for o in children if o not in summed]
    assert plan(parent, rest, w.look(), BTC, tally(parent, summed)) == p


parents = st.builds(
    lambda algo, side, qty, limit, style, end: Parent('p-1', algo, 'BTC-USD', side, D(qty) / 100, T0, T0 + 2 * MINUTE, None if limit is None else D(limit) / 3, D(100),
                                                      {**PARAMS[algo], **({'style': style} if 'style' in ALGOS[algo] else {}), 'on_end': end}),
    st.sampled_from(sorted(PARAMS)), st.sampled_from(list(Side)), st.integers(1, 2000), st.one_of(st.none(), st.integers(280, 320)), st.sampled_from(('limit', 'cross', 'market')),
    st.sampled_from(('cross', 'stop')))
steps = st.lists(st.tuples(st.integers(0, 12), st.integers(-2, 2), st.integers(0, 11), st.integers(0, 4), st.integers(0, 30), st.booleans()), max_size=60)


@settings(max_examples=250)
@given(parents, steps, st.integers(0, 6))
def test_never_more_than_ordered_and_the_same_after_a_restart(parent: Parent, story: list[tuple[int, int, int, int, int, bool]], cut: int) -> None:
    w = World(parent)
    for dt, move, what, part, other, seen in story:
        w.now += dt * SECOND + part
        w.mid += move * D('0.5')
        w.volume += D(dt)
        w.blind = other == 30
        if seen:                                   # else the desk is down, and the venue goes on
            p = plan(parent, w.children, w.look(), BTC)
            check(w, p)
            check_own(w, p)
            same_after_restart(w, p, cut)
            w.take(p)
        if w.children: w.fate(len(w.children) - 1 - other % len(w.children), what, part)
        assert out(w.children) <= parent.qty


def run(w: World, *, fill_resting: int = 0, down: tuple[int, int] = (0, 0), step: int = SECOND // 2) -> tuple[Plan, list[tuple[int, Decimal]]]:
    """A venue with manners: accepts at once, fills what crosses, and each so manyth resting child. Returns the last plan and the line of what was filled."""
    line = []
    while True:
        for i, o in enumerate(w.children):
            if o.state is OrderState.INTENT: w.on(i, Accepted(o.client_id, f'v{i}', w.now))
            crosses = o.intent.limit is None or (o.intent.limit >= w.mid + w.half if o.side is Side.BUY else o.intent.limit <= w.mid - w.half)
            if not w.children[i].state.terminal and (crosses or fill_resting and i % fill_resting == 0): w.fill(i, 4)
            if w.children[i].cancelling and not w.children[i].state.terminal: w.on(i, Cancelled(o.client_id, 'by request', w.now))
        line.append((w.now, total(o.filled for o in w.children)))
        if not down[0] <= (w.now - T0) // SECOND < down[1]:
            p = plan(w.parent, w.children, w.look(), BTC)
            check(w, p)
            check_own(w, p)
            if p.done: return p, line
            w.take(p)
        w.now += step
        w.volume += D('0.8')


@settings(max_examples=60)
@given(st.sampled_from(sorted(PARAMS)), st.sampled_from(list(Side)), st.integers(15, 3000), st.sampled_from((0, 1, 3)), st.sampled_from(('limit', 'cross', 'market')), st.text('abc', min_size=1))
@example('pov', Side.BUY, 3000, 0, 'limit', 'a')
@example('iceberg', Side.SELL, 3000, 0, 'limit', 'a')
def test_exact_to_the_last_lot_when_the_market_allows(algo: str, side: Side, lots: int, resting: int, style: str, name: str) -> None:
    params = {**PARAMS[algo], **({'style': style} if 'style' in ALGOS[algo] else {}), 'on_end': 'cross'}
    w = World(Parent(name, algo, 'BTC-USD', side, BTC.lot * lots, T0, T0 + 2 * MINUTE, arrival=D(100), params=params))
    last, _ = run(w, fill_resting=resting)
    assert last.done == 'filled' and total(o.filled for o in w.children) == w.parent.qty
    assert report(w.parent, w.children).left == 0


@pytest.mark.parametrize('style', ['limit', 'cross'])
def test_twap_keeps_to_its_line(style: str) -> None:
    w = World(Parent('p', 'twap', 'BTC-USD', Side.BUY, D(20), T0, T0 + 10 * MINUTE, params={'slices': 20, 'style': style, 'on_end': 'stop'}))
    last, line = run(w, fill_resting=4)
    assert last.done == 'filled'
    s, rungs = setup(w.parent), ladder(w.parent, BTC.lot)
    for now, done in line:
        due = [k for k, x in enumerate(s.times) if x + s.patience + 2 * SECOND <= now]
        assert not due or done >= rungs[due[-1]] * BTC.lot - D('0.1')     # what could not be sent alone waits for the next slice
        assert abs(float(done) - 20 * min(max((now - T0) / (10 * MINUTE), 0), 1)) <= 2.0


def test_a_desk_that_was_down_does_not_dump_its_backlog() -> None:
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(20), T0, T0 + 10 * MINUTE, params={'slices': 20, 'style': 'cross', 'max_catchup': 2})
    w = World(parent)
    last, line = run(w, down=(120, 360))
    back = [q for now, q in line if now >= T0 + 362 * SECOND]
    assert last.done == 'filled' and max(o.intent.qty for o in w.children) <= D('2.4')
    assert back[0] - line[0][1] < D(10), 'half of the time was missed; not half of the order is sent at once'


def test_a_desk_that_wakes_up_after_the_end_goes_in_portions() -> None:
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(20), T0, T0 + 10 * MINUTE, params={'slices': 20, 'style': 'cross'})
    w = World(parent)
    last, _ = run(w, down=(60, 605))
    late = [o for o in w.children if o.intent.ts >= parent.end]
    assert last.done == 'filled' and len(late) >= 8 and max(o.intent.qty for o in late) <= D('2.4')
    periods = [(o.intent.ts - parent.end) // (3 * SECOND) for o in late]
    assert len(set(periods)) == len(periods), 'one portion in each twentieth of the grace'


def test_stopping_at_the_end_says_what_is_left() -> None:
    w = World(Parent('p', 'pov', 'BTC-USD', Side.BUY, D(500), T0, T0 + MINUTE, params={'share': '0.1', 'max_slice': 5}))
    last, _ = run(w)
    done = total(o.filled for o in w.children)
    assert ZERO < done < 500 and last.done == f'its time is over: {500 - done:f} of 500 left'


def test_pov_does_not_chase_its_own_volume() -> None:
    """Everything that trades but us stops: so does the algorithm, although its own trades are volume."""
    parent = Parent('p', 'pov', 'BTC-USD', Side.BUY, D(500), T0, T0 + 10 * MINUTE, params={'share': '0.5', 'style': 'cross', 'min_slice': '0.01', 'interval_s': '0.5'})
    w = World(parent, volume=D(40))
    for _ in range(200):
        w.now += SECOND
        w.take(plan(parent, w.children, w.look(), BTC))
        for i, o in enumerate(w.children):
            if not o.state.terminal: w.fill(i, 4)
    assert total(o.filled for o in w.children) == 20 and w.volume == 60


def test_an_iceberg_shows_one_at_a_time_and_never_the_same() -> None:
    parent = Parent('p', 'iceberg', 'BTC-USD', Side.SELL, D(10), T0, T0 + 10 * MINUTE, limit=D(101), params={'display': '0.5'})
    w = World(parent)
    while not (p := plan(parent, w.children, w.look(), BTC)).done:
        if w.now >= T0: assert len(p.send) == 1 and p.send[0].limit == 101
        w.take(p)
        if w.children:
            w.on(len(w.children) - 1, Accepted(f'c{len(w.children) - 1}'))
            assert not plan(parent, w.children, w.look(), BTC).send
            w.fill(len(w.children) - 1, 4)
        w.now += SECOND
    shown = [o.intent.qty for o in w.children]
    assert p.done == 'filled' and len(set(shown)) > 8 and all(D('0.4') <= q <= D('0.7') for q in shown[:-1])


def test_the_unknown_child_of_an_iceberg_blocks_until_the_venue_has_spoken() -> None:
    parent = Parent('p', 'iceberg', 'BTC-USD', Side.BUY, D(10), T0, T0 + 10 * MINUTE, limit=D(99), params={'display': '0.5'})
    w = World(parent, now=T0)
    w.take(plan(parent, w.children, w.look(), BTC))
    w.on(0, Lost('c0', 'submit', w.now))
    for _ in range(5):
        w.now += MINUTE
        assert plan(parent, w.children, w.look(), BTC).send == ()
    w.on(0, Rejected('c0', 'never arrived', w.now))
    assert len(plan(parent, w.children, w.look(), BTC).send) == 1


def test_adaptive_rests_when_the_spread_is_wide_and_crosses_when_the_price_runs() -> None:
    parent = Parent('p', 'adaptive', 'BTC-USD', Side.BUY, D(10), T0, T0 + 10 * MINUTE, arrival=D(100), params={'urgency': '0.3', 'post_only': True})
    calm = plan(parent, [], Look(T0, D('99.5'), D('100.5'), D(1), D(1)), BTC).send[0]
    assert calm.post_only and calm.limit == D('99.5')
    run_away = plan(parent, [], Look(T0, D('100.5'), D('101.5'), D(1), D(1)), BTC).send[0]
    assert not run_away.post_only and run_away.limit == D('101.5')
    thin = plan(parent, [], Look(T0, D('100.5'), D('101.5'), D(1), D('0.12')), BTC).send[0]
    assert thin.qty <= D('0.12'), 'no more than stands at the touch'


def test_more_urgent_is_earlier() -> None:
    def half_done(urgency: str) -> int:
        w = World(Parent('p', 'adaptive', 'BTC-USD', Side.BUY, D(10), T0, T0 + 10 * MINUTE, params={'urgency': urgency, 'max_slice': 2}))
        _, line = run(w)
        return next(now for now, q in line if q >= 5)
    assert half_done('1') < half_done('0.3') < half_done('0')


def test_a_stale_child_is_gone_before_its_size_is_sent_again() -> None:
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(2), T0, T0 + 2 * MINUTE, params={'slices': 2, 'time_jitter': 0, 'size_jitter': 0, 'patience_s': 10})
    w = World(parent, now=T0)
    w.take(plan(parent, w.children, w.look(), BTC))
    w.on(0, Accepted('c0'))
    w.now += 11 * SECOND
    p = plan(parent, w.children, w.look(), BTC)
    assert p.cancel == ('c0',) and not p.send
    w.take(p)
    assert plan(parent, w.children, w.look(), BTC) == Plan(wake=T0 + MINUTE)
    w.on(0, Lost('c0', 'cancel', w.now))
    assert not plan(parent, w.children, w.look(), BTC).send, 'a cancel in doubt frees nothing'
    w.fill(0, 2)
    w.on(0, Cancelled('c0', 'by request', w.now))
    assert [(i.qty, i.limit) for i in plan(parent, w.children, w.look(), BTC).send] == [(D('0.5'), D('100.5'))]


def test_refusals_slow_it_down_and_never_stop_it() -> None:
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(2), T0, T0 + 10 * MINUTE, params={'slices': 2, 'style': 'cross', 'on_end': 'stop'})
    w = World(parent, now=T0)
    while not (p := plan(parent, w.children, w.look(), BTC)).done:
        w.take(p)
        if p.send: w.on(len(w.children) - 1, Rejected(f'c{len(w.children) - 1}', 'no', w.now))
        w.now += SECOND // 10
    assert 15 < len(w.children) < 30 and p.done == 'its time is over: 2 of 2 left'


def test_a_venue_that_ends_each_child_at_once_is_not_asked_in_a_loop() -> None:
    parent = Parent('p', 'iceberg', 'BTC-USD', Side.BUY, D(2), T0, T0 + MINUTE, params={'display': '0.5'})
    w = World(parent, now=T0)
    for _ in range(100):
        w.take(plan(parent, w.children, w.look(), BTC))
        for i, o in enumerate(w.children):
            if not o.state.terminal: w.on(i, Cancelled(o.client_id, 'no liquidity', w.now))
        w.now += SECOND // 10
    assert len(w.children) == 10, 'one a second'


def test_a_cancel_that_the_venue_refuses_is_asked_again_now_and_then() -> None:
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(2), T0, T0 + MINUTE, params={'slices': 1, 'time_jitter': 0, 'on_end': 'stop'})
    w = World(parent, now=T0)
    w.take(plan(parent, w.children, w.look(), BTC))
    w.on(0, Accepted('c0'))
    w.now, asked = parent.end, 0
    for _ in range(200):
        p = plan(parent, w.children, w.look(), BTC)
        assert not p.send and not p.done
        if p.cancel:
            asked += 1
            w.take(p)
            w.on(0, CancelRejected('c0', 'too late to cancel', w.now))
        w.now += SECOND // 10
    assert 8 <= asked <= 12
    w.on(0, Cancelled('c0', 'by request', w.now))
    assert plan(parent, w.children, w.look(), BTC).done == 'its time is over: 2 of 2 left'


@pytest.mark.parametrize('on_end', ['cross', 'stop'])
def test_what_rests_at_the_end_is_called_back(on_end: str) -> None:
    parent = Parent('p', 'iceberg', 'BTC-USD', Side.BUY, D(2), T0, T0 + MINUTE, limit=D(99), params={'display': 2, 'on_end': on_end})
    w = World(parent, now=T0)
    w.take(plan(parent, w.children, w.look(), BTC))
    w.on(0, Accepted('c0'))
    w.now = parent.end
    p = plan(parent, w.children, w.look(), BTC)
    assert p.send == () and p.cancel == (('c0',) if on_end == 'stop' else ()), 'at its limit it may rest as long as there is time'
    w.now = parent.end + 2 * MINUTE
    assert plan(parent, w.children, w.look(), BTC).cancel == ('c0',)


def test_a_fill_after_its_cancel_was_confirmed_is_answered_by_cancelling() -> None:
    """The venue contradicts itself: then less is wanted than is open, and what is open is called back."""
    i = Intent('BTC-USD', Side.BUY, D(1), OrderType.LIMIT, limit=D(99), parent='p', ts=T0)
    parent = Parent('p', 'twap', 'BTC-USD', Side.BUY, D(1), T0, T0 + 10 * MINUTE, params={'slices': 1})
    w = World(parent, now=T0 + MINUTE, children=[Order('c0', i, OrderState.CANCELLED), Order('c1', i, OrderState.ACCEPTED)])
    w.on(0, Filled('c0', Fill('late', 'c0', 'BTC-USD', Side.BUY, D('0.4'), D(99))))
    p = plan(parent, w.children, w.look(), BTC)
    assert p.cancel == ('c1',) and not p.send and not p.done


@pytest.mark.parametrize(('algo', 'params', 'name'), [('twap', {'slices': 'x'}, 'twap: slices'), ('twap', {'patience_s': -1}, 'patience_s'), ('vwap', {'weights': []}, 'weights'),
                                                      ('vwap', {'weights': [1, -1]}, 'weights'), ('pov', {}, 'share'), ('pov', {'share': '1'}, 'share'), ('iceberg', {'display': 0}, 'display'),
                                                      ('adaptive', {'runaway_bps': 'far'}, 'runaway_bps'), ('twap', {'on_end': 'panic'}, 'on_end'), ('adaptive', {'style': 'cross'}, 'style'),
                                                      ('twap', {'slices': 2.5}, 'slices'), ('twap', {'post_only': 1}, 'post_only'), ('pov', {'share': '0.1', 'max_slice': None}, '')])
def test_parameters_are_refused_by_name(algo: str, params: dict[str, Any], name: str) -> None:
    if not name: return check_params(algo, params)
    with pytest.raises(BadInput, match=name): check_params(algo, params)
