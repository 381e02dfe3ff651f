"""The pool never takes more than its budget, keeps what was used last, and loads a thing once."""
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gekko.compute.devices import Device
from gekko.compute.memory import Meter, Pool, TooLarge, footprint
from gekko.compute.onnx import Onnx
from gekko.compute.provider import Loaded, OutOfMemory, load
from gekko.domain.errors import BadInput
from gekko.domain.time import SystemClock


class Card:
    """A device that breaks when more is put on it than it holds."""
    def __init__(self, room: int) -> None: self.room, self.on, self.most, self.lock = room, dict[int, int](), 0, threading.Lock()

    def put(self, size: int) -> 'Thing':
        with self.lock:
            self.on[id(thing := Thing(self))] = size
            self.most = max(self.most, sum(self.on.values()))
            assert self.most <= self.room, 'over budget'
        return thing


class Thing:
    def __init__(self, card: Card) -> None: self.card = card

    def release(self) -> None:
        with self.card.lock: del self.card.on[id(self)]


class Pools(RuleBasedStateMachine):
    """Uses that overlap, evictions, preloads and failing loads in any order, beside a model of what must be in the pool."""
    SIZES = {c: n for c, n in zip('abcdefgh', (1, 10, 20, 30, 40, 60, 100, 101), strict=True)}

    def __init__(self) -> None:
        super().__init__()
        self.card, self.broken = Card(100), False
        self.pool = Pool('card', 100, self.open, self.SIZES.__getitem__)
        self.users: list[tuple[str, Any]] = []
        self.recent: list[str] = []     # loaded, the longest unused first

    def open(self, key: str) -> Thing:
        if self.broken: raise OSError('broken')
        return self.card.put(self.SIZES[key])

    def busy(self) -> set[str]: return {k for k, _ in self.users}
    def size(self, keys: Any) -> int: return sum(self.SIZES[k] for k in keys)

    @rule(key=st.sampled_from('abcdefgh'), broken=st.booleans())
    def use(self, key: str, broken: bool) -> None:
        self.broken = broken
        fits = self.SIZES[key] <= 100 and (key in self.recent or self.size(self.busy()) + self.SIZES[key] <= 100)
        using = self.pool.use(key)
        try: using.__enter__()
        except TooLarge: assert self.SIZES[key] > 100; return
        except OutOfMemory: assert not fits; return
        except OSError: assert broken and key not in self.recent
        else:
            assert fits and not (broken and key not in self.recent)
            self.users.append((key, using))
        for k in [k for k in self.recent if k not in self.busy()]:      # the longest unused went, and no more than needed
            if key in self.recent or self.size(self.recent) + self.SIZES[key] <= 100: break
            self.recent.remove(k)
        self.recent = [k for k in self.recent if k != key] + [key] * (key in self.busy())

    @precondition(lambda self: self.users)
    @rule(data=st.data())
    def done(self, data: Any) -> None:
        _, using = self.users.pop(data.draw(st.integers(0, len(self.users) - 1)))
        using.__exit__(None, None, None)

    @rule(key=st.sampled_from('abcdefgh'))
    def evict(self, key: str) -> None:
        went = self.pool.evict(key)
        assert went == (key in self.recent and key not in self.busy())
        if went: self.recent.remove(key)

    @rule(keys=st.lists(st.sampled_from('abcdefg'), unique=True))
    def preload(self, keys: list[str]) -> None:
        self.broken = False
        for k in self.pool.preload(keys): self.recent = [x for x in self.recent if x != k] + [k]

    @invariant()
    def as_the_model(self) -> None:
        assert self.pool.keys == tuple(self.recent) and self.pool.used == self.size(self.recent) == sum(self.card.on.values()) <= 100


TestPools = Pools.TestCase
TestPools.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_twenty_models_under_budget_from_many_threads() -> None:
    """Eight threads, twenty models of 60 to 250 bytes, room for 500."""
    card, sizes = Card(500), {f'm{i}': 60 + 10 * i for i in range(20)}
    pool, failed = Pool('card', 500, lambda k: card.put(sizes[k]), sizes.__getitem__), list[BaseException]()

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(150):
                if rng.random() < 0.1: pool.prefetch(rng.choice(list(sizes))).join()
                with pool.use(rng.choice(list(sizes)), timeout_s=60) as thing: assert id(thing) in card.on
        except BaseException as e: failed.append(e)
    threads = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert failed == [] and 250 <= card.most <= 500 and pool.counts['evicted'] > 100
    pool.close()
    assert card.on == {} and pool.used == 0


def test_twenty_real_networks(make: Any) -> None:
    """Twenty ONNX networks with room for seven: every answer is its own network's."""
    nets = {f'm{i}': make(f'm{i}', by=float(i)) for i in range(20)}
    size = {k: footprint(n, 'onnx') for k, n in nets.items()}
    clock, opened, most = SystemClock(), list[Loaded](), 0
    def open_(key: str) -> Loaded: opened.append(load(Onnx(Device('cpu')), nets[key], clock)); return opened[-1]
    pool = Pool('cpu', 7 * max(size.values()), open_, size.__getitem__)
    for key in random.Random(3).choices(list(nets), k=100):
        with pool.use(key) as loaded: assert loaded.run({'x': np.ones((1, 3), np.float32)})['y'].tolist() == [[float(key[1:])] * 3]
        most = max(most, pool.used)
    assert len(pool.keys) == 7 and 6 * max(size.values()) < most <= pool.budget and pool.counts['loaded'] == len(opened) == pool.counts['evicted'] + 7
    assert sum(not x._ended for x in opened) == 7


def test_who_waits_gets_the_room_that_comes_free() -> None:
    pool = Pool('card', 100, lambda k: Card(100).put(60), lambda k: 60)
    first, got = pool.use('a'), threading.Event()
    first.__enter__()
    def wait() -> None:
        with pool.use('b', timeout_s=60): got.set()
    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(0.05)
    first.__exit__(None, None, None)
    assert got.wait(60)
    thread.join()


def test_a_release_that_fails_does_not_stop_the_next() -> None:
    class Stubborn:
        def release(self) -> None: raise OSError('will not go')
    pool = Pool('card', 100, lambda k: Stubborn(), lambda k: 60)
    for key in 'abc':
        with pool.use(key): pass
    assert pool.keys == ('c',) and pool.used == 60


@given(st.integers(-5, 0))
def test_no_budget_is_refused(budget: int) -> None:
    with pytest.raises(BadInput): Pool('card', budget, lambda k: Card(1).put(1), lambda k: 1)


class Crowded(Card):
    """A device on which somebody else took `others` bytes after the budget was set: it says so when it is full."""
    def __init__(self, room: int, others: int) -> None: super().__init__(room - others)

    def put(self, size: int) -> 'Thing':
        with self.lock:
            if sum(self.on.values()) + size > self.room: raise RuntimeError('CUDA out of memory. Tried to allocate')
        return super().put(size)


def test_a_full_device_makes_room_by_the_longest_unused() -> None:
    card = Crowded(100, 45)
    pool = Pool('card', 100, lambda k: card.put(20), lambda k: 20)
    for key in 'abcab':
        with pool.use(key): pass
    assert pool.keys == ('a', 'b') and pool.counts['retried'] == 3 == pool.counts['evicted'] and card.most <= 55
    with pool.use('a'), pool.use('b'), pytest.raises(OutOfMemory, match='Tried to allocate'): pool.use('c').__enter__()
    assert pool.keys == ('a', 'b') and pool.used == 40
    assert pool.preload(['c']) == () and pool.keys == ('a', 'b')          # a guess never makes way


def test_a_full_device_is_waited_for_within_the_time_given() -> None:
    card = Crowded(100, 70)
    pool, got = Pool('card', 100, lambda k: card.put(20), lambda k: 20), threading.Event()
    first = pool.use('a')
    first.__enter__()
    def wait() -> None:
        with pool.use('b', timeout_s=60): got.set()
    thread = threading.Thread(target=wait)
    thread.start()
    assert not got.wait(0.05)
    first.__exit__(None, None, None)
    assert got.wait(60)
    thread.join()


def test_what_can_never_be_loaded_ends() -> None:
    """Nothing is idle and nothing in use: the refusal comes at once, whatever the time given."""
    card = Crowded(100, 95)
    pool = Pool('card', 100, lambda k: card.put(20), lambda k: 20)
    with pytest.raises(OutOfMemory): pool.use('a', timeout_s=3600).__enter__()
    assert pool.used == 0 and pool.counts['retried'] == 0


@given(st.lists(st.tuples(st.sampled_from('abcdef'), st.booleans()), max_size=40), st.integers(0, 80), st.integers(10, 300), st.booleans())
@settings(max_examples=150, deadline=None)
def test_never_over_budget_once_measured(calls: list[tuple[str, bool]], others: int, percent: int, exact: bool) -> None:
    """Estimates wrong by any factor on a device that others use too: after each load, what is really there is within the budget, and the pool knows it."""
    sizes = {k: 5 * (i + 1) for i, k in enumerate('abcdef')}
    truth = {k: max(1, n * percent // 100) for k, n in sizes.items()}
    card = Crowded(1000, 1000 - (300 - others))
    pool = Pool('card', 100, lambda k: card.put(truth[k]), sizes.__getitem__, Meter(lambda: sum(card.on.values()), exact))
    for key, evict in calls:
        try:
            if evict:
                with pool.use(key): pass
            else: pool.preload([key])
        except (OutOfMemory, TooLarge): assert truth[key] > min(100, card.room)
        assert sum(card.on.values()) <= 100 and sum(card.on.values()) <= pool.used <= 100
        if exact: assert sum(card.on.values()) == pool.used
    pool.close()
    assert card.on == {} and pool.used == 0


def test_an_estimate_that_was_too_small_makes_the_next_larger() -> None:
    card = Card(1000)
    pool = Pool('card', 100, lambda k: card.put(30), lambda k: 10, Meter(lambda: sum(card.on.values())))
    assert pool.size('a') == pool.size('b') == (10, 'estimate')
    with pool.use('a'): pass
    assert pool.size('a') == (30, 'measured') and pool.size('b') == (30, 'estimate')
    for key in 'bcd':
        with pool.use(key): pass
    assert card.most == 90 and pool.counts['retried'] == 0                 # room was made before the load, not after


def test_what_is_larger_than_the_budget_in_truth_is_let_go() -> None:
    card = Card(1000)
    pool = Pool('card', 100, lambda k: card.put(150), lambda k: 10, Meter(lambda: sum(card.on.values()), exact=True))
    for _ in range(2):
        with pytest.raises(TooLarge, match='found 150'): pool.use('a').__enter__()
    assert card.on == {} and pool.used == 0 and pool.counts['loaded'] == 1   # the second time it isn't tried


def test_twenty_threads_on_a_device_that_others_fill() -> None:
    """Its free room is less than the budget, so that most loads meet a full device; each still gets its turn."""
    card, failed = Crowded(500, 200), list[BaseException]()
    pool = Pool('card', 500, lambda k: card.put(60), lambda k: 60)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(40):
                with pool.use(f'm{rng.randrange(20)}', timeout_s=60) as thing: assert id(thing) in card.on
        except BaseException as e: failed.append(e)
    threads = [threading.Thread(target=work, args=(s,)) for s in range(5)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert failed == [] and card.most <= 300 and pool.counts['retried'] > 20
