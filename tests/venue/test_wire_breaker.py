"""Breakers against a model, with a hundred callers, and trading stopped for its stated reasons."""
import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Retry
from gekko.domain.time import SECOND, SimClock
from gekko.venue.wire.breaker import CLOSED, HALF_OPEN, OPEN, Bounds, Breaker, BreakerRules, Conditions, TradingBreaker, unsafe, worst

RULES = BreakerRules(failure_threshold=3, recovery_timeout_s=10, monitoring_period_s=60, success_threshold=2)
steps = st.lists(st.tuples(st.sampled_from(('call', 'ok', 'failed', 'dropped', 'forget')), st.integers(0, 3), st.integers(0, 25)), max_size=80)


class Model:
    """The rules again, written out slowly: a list of failures and an explicit state."""
    def __init__(self): self.state, self.since, self.failures, self.good, self.probe, self.era = CLOSED, 0, [], 0, None, 0

    def to(self, state, now): self.state, self.since, self.failures, self.good, self.probe, self.era = state, now, [], 0, None, self.era + 1

    def call(self, now):
        if self.state == OPEN and now >= self.since + 10: self.to(HALF_OPEN, now)
        if self.state == OPEN or (self.state == HALF_OPEN and self.probe is not None and now < self.probe + 10): return None
        if self.state == HALF_OPEN: self.probe = now
        return self.era

    def ok(self, era, now):
        if era != self.era or self.state != HALF_OPEN: return
        self.good, self.probe = self.good + 1, None
        if self.good == 2: self.to(CLOSED, now)

    def failed(self, era, now):
        if era != self.era or self.state == OPEN: return
        self.failures = [t for t in self.failures if t > now - 60] + [now]
        if self.state == HALF_OPEN or len(self.failures) >= 3: self.to(OPEN, now)

    def dropped(self, era, now):
        if era == self.era and self.state == HALF_OPEN: self.probe = None


@given(steps)
def test_it_does_what_the_rules_say(todo):
    clock, model, passes, changes = SimClock(), Model(), [], []
    breaker = Breaker('b', clock, RULES, lambda name, state: changes.append(state))
    for what, which, wait_s in todo:
        clock.advance(wait_s * SECOND)
        now = clock.now() // SECOND
        if what == 'call':
            expected = model.call(now)
            try: found = breaker.allow()
            except Retry as e:
                found = None
                assert e.after_s > 0
            assert found == expected
            if found is not None: passes.append(found)
        elif passes:
            era = passes.pop(which % len(passes))
            if what != 'forget':
                getattr(breaker, what)(era)
                getattr(model, what)(era, now)
        assert breaker.state == (HALF_OPEN if model.state == OPEN and now >= model.since + 10 else model.state)
    assert len(changes) == model.era and all(a != b for a, b in zip(changes, changes[1:]))


def test_late_news_from_another_era_changes_nothing():
    clock = SimClock()
    breaker = Breaker('b', clock, BreakerRules(failure_threshold=1, recovery_timeout_s=1, success_threshold=1))
    late = [breaker.allow() for _ in range(3)]
    breaker.failed(breaker.allow())
    clock.advance(SECOND)
    probe = breaker.allow()
    breaker.ok(late[0])
    assert breaker.state == HALF_OPEN       # a success from before does not close it
    breaker.failed(late[1])
    assert breaker.state == HALF_OPEN       # nor does a failure from before open it
    breaker.ok(probe)
    breaker.failed(late[2])
    assert breaker.state == CLOSED


def test_one_probe_among_a_hundred_threads_and_its_failure_opens_again():
    clock = SimClock()
    breaker = Breaker('b', clock, BreakerRules(failure_threshold=1, recovery_timeout_s=1, success_threshold=3))
    breaker.failed()
    for good in (True, True, False, True, True, True):
        if breaker.state == OPEN: clock.advance(SECOND)
        passes, start = [], threading.Barrier(100)

        def call(passes=passes, start=start):
            start.wait()
            try: passes.append(breaker.allow())
            except Retry: pass
        threads = [threading.Thread(target=call) for _ in range(100)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert len(passes) == 1
        (breaker.ok if good else breaker.failed)(passes[0])
    assert breaker.state == CLOSED


def test_one_probe_among_a_hundred_tasks():
    async def main():
        clock = SimClock()
        breaker = Breaker('b', clock, BreakerRules(failure_threshold=1, recovery_timeout_s=1, success_threshold=1))
        breaker.failed(breaker.allow())
        clock.advance(SECOND)
        at_once = most = 0

        async def call():
            nonlocal at_once, most
            try: era = breaker.allow()
            except Retry: return False
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
            breaker.dropped(era)
            return True
        found = await asyncio.gather(*(call() for _ in range(100)))
        assert sum(found) == 1 and most == 1
    asyncio.run(main())


def test_threads_that_all_fail_are_counted_exactly():
    clock = SimClock()
    breaker = Breaker('b', clock, BreakerRules(failure_threshold=1000))
    threads = [threading.Thread(target=lambda: [breaker.failed(breaker.allow()) for _ in range(111)]) for _ in range(9)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert breaker.state == CLOSED
    breaker.failed()
    assert breaker.state == OPEN


@pytest.mark.parametrize('wrong', [{'failure_threshold': 0}, {'success_threshold': 0}, {'recovery_timeout_s': 0}, {'monitoring_period_s': -1}])
def test_rules_that_make_no_sense_are_bad_input(wrong):
    with pytest.raises(BadInput): BreakerRules(**wrong)


numbers = st.floats(0, 10) | st.just(float('nan')) | st.just(float('inf'))


@given(numbers, numbers, numbers, numbers, st.sampled_from((CLOSED, OPEN, HALF_OPEN)))
def test_trading_stops_exactly_beyond_its_bounds(volatility, drawdown, exposure, queue_age_s, state):
    now = Conditions(volatility, drawdown, exposure, queue_age_s, (('submit', state), ('public', OPEN)))
    bounds = Bounds()
    fine = volatility <= bounds.volatility and drawdown <= bounds.drawdown and exposure <= bounds.exposure and queue_age_s <= bounds.queue_age_s and state == CLOSED
    said = unsafe(now, bounds)
    assert (said == '') == fine and ('submit breaker' in said) == (state != CLOSED) and 'public' not in said


def test_trading_opens_again_only_after_calm():
    clock, changes = SimClock(), []
    trading = TradingBreaker(clock, Bounds(calm_s=60), lambda name, state: changes.append((clock.now() // SECOND, state)))
    calm, rough, between = Conditions(volatility=2), Conditions(volatility=9), Conditions(volatility=3.9)
    for wait_s, now, open_ in ((0, calm, True), (10, rough, False), (100, between, False), (100, calm, False), (59, calm, False), (0, between, False), (30, calm, False), (60, calm, True), (0, between, True)):
        clock.advance(wait_s * SECOND)
        assert (trading.verdict(now) == '') == open_, (clock.now(), now)
    assert changes == [(10, OPEN), (359, CLOSED)]
    assert worst([CLOSED, OPEN, HALF_OPEN]) == OPEN
