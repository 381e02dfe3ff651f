"""No window ever holds more than its quota, cancels find their reserve, and nobody waits longer than needed: under a clock that the test moves."""
import asyncio
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Retry
from gekko.domain.time import SECOND, SimClock, SystemClock, utc
from gekko.venue.wire.throttle import Line, Quota, Throttle, Told, left_header, used_header

QUOTAS = (Quota('weight', 20, 60, reserved=4), Quota('orders 1s', 3, 1, 'orders', reserved=1), Quota('orders 10s', 8, 10, 'orders', reserved=2), Quota('raw', 30, 5, slack_s=0.5))
COSTS = ({'weight': 1}, {'weight': 5}, {'weight': 1, 'orders': 1}, {'orders': 2}, {'raw': 7, 'weight': 2}, {'raw': 1}, {'weight': 16}, {'free': 1})
arrivals = st.lists(st.tuples(st.integers(0, 4_000), st.sampled_from(COSTS), st.booleans()), min_size=1, max_size=60)      # ms since the last, cost, urgent


def run(line, asked):
    """Let everyone come at their times and go when they may; answers (ticket, came, went) in the order of coming."""
    now, out, coming, again = 0, [], [], None
    at = 0
    for gap, cost, urgent in asked:
        at += gap * SECOND // 1000
        coming.append((at, cost, urgent))
    while coming or line.waiting:
        now = min([t for t in (coming[0][0] if coming else None, again) if t is not None])
        while coming and coming[0][0] == now:
            _, cost, urgent = coming.pop(0)
            out.append((line.join(cost, urgent), now))
        again = line.turn(now)
        assert again is None or again > now, 'a turn that would spin'
    return [(t, came, t.admitted) for t, came in out]


@given(arrivals)
def test_no_window_ever_exceeds_its_quota(asked):
    went = run(Line(QUOTAS), asked)
    for q in QUOTAS:
        spent = sorted((at, t.cost.get(q.klass, 0), t.urgent) for t, _, at in went)
        for start, _, _ in spent:
            inside = [(n, urgent) for at, n, urgent in spent if start <= at < start + q.span]
            assert sum(n for n, _ in inside) <= q.limit
            assert sum(n for n, urgent in inside if not urgent) <= q.limit - q.reserved


@given(arrivals)
def test_equals_go_in_the_order_in_which_they_came(asked):
    went = run(Line(QUOTAS), asked)
    for lane in {(t.urgent, t.needs) for t, _, _ in went}:
        times = [at for t, _, at in went if (t.urgent, t.needs) == lane]
        assert times == sorted(times)


@given(arrivals)
def test_nobody_sleeps_longer_than_needed(asked):
    """Whoever waited could not have gone a nanosecond earlier: a quota was full then, or all that was left of it was kept for one who came before."""
    went = run(Line(QUOTAS), asked)
    for t, came, at in went:
        if at == came: continue
        just_before = at - 1

        def room(q, urgent, at=at, t=t, just_before=just_before):
            taken = [(o, n) for o, _, a in went if o is not t and (n := o.cost.get(q.klass, 0)) and a <= just_before < a + q.span]
            everything, ordinary = sum(n for _, n in taken), sum(n for o, n in taken if not o.urgent)
            return q.limit - everything if urgent else min(q.limit - everything, q.limit - q.reserved - ordinary)
        ahead = [o for o, c, a in went if o is not t and a > just_before and c <= just_before and (o.urgent, -o.number) > (t.urgent, -t.number)]
        blocked = False
        for q in QUOTAS:
            n = t.cost.get(q.klass, 0)
            kept = sum(o.cost.get(q.klass, 0) for o in ahead)
            blocked |= bool(n) and room(q, t.urgent) < n + kept
        assert blocked, (t.cost, came, at)


@given(arrivals)
def test_who_came_later_does_not_delay_who_came_before(asked):
    """Take away everyone who came after one request, cancels excepted: it goes at the same instant."""
    went = run(Line(QUOTAS), asked)
    for k in range(0, len(asked), 7):
        if went[k][0].urgent: continue
        # gaps are relative, so those taken away hand theirs on
        kept, gap = [], 0
        for i, (g, cost, urgent) in enumerate(asked):
            gap += g
            if i <= k or urgent: kept.append((gap, cost, urgent)); gap = 0
        alone = run(Line(QUOTAS), kept)
        assert alone[k][2] == went[k][2], (asked, k)


def test_lanes_that_share_a_quota_are_served_by_arrival():
    line = Line([Quota('q', 10, 60), Quota('other', 100, 60)])
    line.join({'q': 10})
    line.turn(0)
    first, second, third = line.join({'q': 6, 'other': 1}), line.join({'q': 6}), line.join({'q': 1, 'other': 2})
    line.turn(60 * SECOND)
    assert (first.admitted, second.admitted, third.admitted) == (60 * SECOND, None, None)


def test_room_on_a_quota_that_is_not_full_is_kept_for_who_came_before():
    line = Line([Quota('a', 1, 60), Quota('b', 10, 60)])
    line.join({'a': 1})
    waits = line.join({'a': 1, 'b': 8})
    fits, too_much = line.join({'b': 2}), line.join({'b': 1})
    line.turn(0)
    assert (waits.admitted, fits.admitted, too_much.admitted) == (None, 0, None)
    line.turn(60 * SECOND)
    assert waits.admitted == too_much.admitted == 60 * SECOND


def test_who_gives_up_lets_those_behind_go_at_once():
    async def main():
        throttle = Throttle([Quota('q', 10, 60)], SystemClock())
        await throttle.admit({'q': 9})
        large = asyncio.create_task(throttle.admit({'q': 5}))
        await asyncio.sleep(0.01)
        small = asyncio.create_task(throttle.admit({'q': 1}))
        await asyncio.sleep(0.01)
        assert not small.done()
        large.cancel()
        await asyncio.wait_for(small, 1)
    asyncio.run(main())


@given(st.lists(st.integers(1, 10), min_size=1, max_size=40))
def test_one_lane_goes_at_the_instants_of_brute_force(costs):
    quota = Quota('q', 10, 7)
    taken, now = [], 0
    for n in costs:      # first come, first served: each goes as soon as the ones before allow
        while sum(k for at, k in taken if at > now - quota.span) + n > 10: now = min(at + quota.span for at, _ in taken if at > now - quota.span)
        taken.append((now, n))
    assert [at for _, _, at in run(Line([quota]), [(0, {'q': n}, False) for n in costs])] == [at for at, _ in taken]


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 40), st.integers(1, 8), st.booleans()), max_size=30), st.booleans())
def test_the_venues_count_is_never_exceeded_once_told(steps, aligned):
    """Somebody else uses the same key; the venue counts both by its minute. After each answer we know, and never push it over."""
    start = utc('2026-11-22T12:00:13Z')
    clock = SimClock(start)
    quota = Quota('weight', 50, 60, reserved=5, aligned=aligned)
    throttle = Throttle([quota], clock, [used_header('X-Used', 'weight')])
    venue = []     # (instant, units)

    def used(now): return sum(n for at, n in venue if (at // (60 * SECOND) == now // (60 * SECOND) if aligned else now - 60 * SECOND < at))

    for wait_s, others, n, urgent in steps:
        clock.advance(wait_s * SECOND)
        if used(clock.now()) + others <= 50 and others: venue.append((clock.now(), others))
        throttle.heard({'x-used': str(used(clock.now()))}, 200)
        t = throttle.line.join({'weight': n}, urgent)
        throttle.line.turn(clock.monotonic())
        if t.admitted is None: throttle.line.leave(t)
        else: venue.append((clock.now(), n))
        assert used(clock.now()) <= 50


def test_a_ban_holds_everyone_and_a_429_leaves_the_reserve_to_cancels():
    async def main():
        clock = SimClock(utc('2026-11-22T12:00:00Z'))
        throttle = Throttle([Quota('weight', 100, 60, reserved=10), Quota('orders', 10, 10, reserved=3)], clock)
        assert throttle.heard({'Retry-After': '5'}, 429, {'orders': 1}) == 5.0
        await throttle.admit({'weight': 1}, within_s=0)            # another quota: goes on
        for _ in range(3): await throttle.admit({'orders': 1}, urgent=True, within_s=0)
        for urgent, wait in ((False, 5.0), (True, 5.0)):
            with pytest.raises(Retry) as e: await throttle.admit({'orders': 1}, urgent=urgent, within_s=1)
            assert e.value.after_s == wait
        clock.advance(5 * SECOND)
        await throttle.admit({'orders': 1}, within_s=0)
        assert throttle.heard({'Retry-After': '30'}, 429, {'orders': 1}, urgent=True) == 30.0      # a cancel was refused: so is the reserve
        with pytest.raises(Retry): await throttle.admit({'orders': 1}, urgent=True, within_s=29)
        assert throttle.heard({'Retry-After': '120'}, 418, {'weight': 1}) == 120.0
        for cost in ({'weight': 1}, {'orders': 1}, {'free': 1}, {}):
            for urgent in (False, True):
                with pytest.raises(Retry) as e: await throttle.admit(cost, urgent=urgent, within_s=119)
                assert e.value.after_s == 120.0
        clock.advance(120 * SECOND)
        await throttle.admit({'orders': 1}, urgent=True, within_s=0)
        assert throttle.line.waiting == 0
    asyncio.run(main())


def test_readers_name_the_quota_of_a_429():
    clock = SimClock()
    def read(headers, status): return [Told('orders', hold_s=9.0)] if status == 429 and headers.get('x-reason') == 'orders' else []
    throttle = Throttle([Quota('weight', 100, 60), Quota('orders', 10, 10)], clock, [read, left_header('X-Left', 'weight')])
    assert throttle.heard({'X-Reason': 'orders', 'X-Left': '40'}, 429, {'weight': 1, 'orders': 1}) == 9.0
    state = throttle.state()['quotas']
    assert (state['orders']['held_s'], state['weight']['held_s'], state['weight']['used']) == (9.0, 0.0, 60)


def test_headers_full_of_nonsense_teach_nothing():
    clock = SimClock()
    throttle = Throttle([Quota('weight', 100, 60)], clock, [used_header('X-Used', 'weight'), left_header('X-Left', 'weight')])
    for text in ('', '-5', '1e9', '9' * 40, 'NaN', '٣', '12 34', 'Infinity'):
        throttle.heard({'X-Used': text, 'X-Left': text, 'Retry-After': text}, 200)
        assert throttle.state()['quotas']['weight']['used'] == 0, text
        assert 0 < throttle.heard({'Retry-After': text}, 429) <= 7 * 86_400
    throttle.heard({'X-Used': '100000'}, 200)
    assert throttle.state()['quotas']['weight']['used'] == 100      # at most full


def test_a_crowd_waits_in_order_on_a_real_clock_and_a_cancel_passes():
    async def main():
        throttle = Throttle([Quota('q', 420, 1.0, reserved=20)], SystemClock())
        order, began = [], time.monotonic()

        async def one(n, urgent=False):
            await throttle.admit({'q': 1}, urgent)
            order.append(n)
        crowd = [asyncio.create_task(one(n)) for n in range(1000)]
        await asyncio.sleep(0)
        await one(-1, urgent=True)
        assert len(order) < 1000, 'the cancel stood in line'
        await asyncio.gather(*crowd)
        assert [n for n in order if n >= 0] == list(range(1000)) and time.monotonic() - began > 1.9
    asyncio.run(main())


def test_those_who_give_up_leave_no_trace():
    async def main():
        throttle = Throttle([Quota('q', 10, 0.3)], SystemClock())
        await throttle.admit({'q': 8})
        luck = random.Random(3)
        crowd = [asyncio.create_task(throttle.admit({'q': luck.randint(1, 10)}, luck.random() < 0.2, within_s=luck.choice((None, 0.05, 1)))) for _ in range(40)]
        await asyncio.sleep(0.02)
        for t in crowd: t.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        assert throttle.line.waiting == 0
        await asyncio.sleep(0.35)
        assert await throttle.admit({'q': 10}, within_s=0) == 0.0
    asyncio.run(main())


def test_costs_that_can_never_be_admitted_are_bad_input():
    async def main():
        throttle = Throttle([Quota('q', 10, 60, reserved=4)], SystemClock())
        for cost, urgent in (({'q': 7}, False), ({'q': 11}, True), ({'q': -1}, True)):
            with pytest.raises(BadInput, match='never admit'): await throttle.admit(cost, urgent)
        throttle.relimit('q', 20)
        await throttle.admit({'q': 16}, within_s=0)
    asyncio.run(main())
    for wrong in ({'limit': 0}, {'limit': 5, 'reserved': 5}, {'per_s': 0}, {'slack_s': -1}):
        with pytest.raises(BadInput): Quota('q', **{'limit': 5, 'per_s': 1, **wrong})
