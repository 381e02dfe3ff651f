"""The lens: the same figures as measuring the book from scratch, whatever was let through on the way."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.measures import cvar

from gekko.domain.errors import BadInput
from gekko.risk.lens import Lens, Lost, edge_of, tail_of
from gekko.risk.measures import es_historical, quantile_loss

moves = st.integers(2, 400).flatmap(lambda n: st.tuples(st.integers(0, 2**32 - 1), st.just(n), st.integers(1, 5)))


def table(seed: int, n: int, k: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, (n, k)) * 0.02


@given(moves, st.floats(0.51, 0.995))
@settings(max_examples=150, deadline=None)
def test_its_tail_is_the_measures_tail(drawn: tuple[int, int, int], level: float) -> None:
    pnl = table(*drawn)[:, 0]
    var, es = tail_of(pnl, edge_of(len(pnl), level))
    assert math.isclose(var, quantile_loss(pnl, level), rel_tol=1e-12, abs_tol=1e-15)
    assert math.isclose(es, es_historical(pnl, level), rel_tol=1e-12, abs_tol=1e-15) and es >= var - 1e-15


def test_its_shortfall_is_skfolios() -> None:
    pnl = table(1, 750, 1)[:, 0]
    assert math.isclose(tail_of(pnl, edge_of(750, 0.99))[1], cvar(pnl, beta=0.99), rel_tol=1e-12)


@given(moves, st.lists(st.tuples(st.integers(0, 4), st.floats(-1e6, 1e6)), max_size=12))
@settings(max_examples=80, deadline=None)
def test_orders_taken_one_by_one_are_the_book_looked_at_afresh(drawn: tuple[int, int, int], orders: list[tuple[int, float]]) -> None:
    x = table(*drawn)
    names = [f'S{j}' for j in range(x.shape[1])]
    shocks = np.random.default_rng(drawn[0]).uniform(-0.4, 0.2, (3, len(names)))
    lens, fresh, held = Lens(names, x, 0.95, shocks), Lens(names, x, 0.95, shocks), dict.fromkeys(names, 0.0)
    for j, v in orders:
        s = names[j % len(names)]
        before, asked = lens.now, lens.after(s, v)
        assert lens.now == before, 'asking changes nothing'
        lens.take(s, v)
        held[s] += v
        assert lens.now == pytest.approx(asked, rel=1e-9, abs=1e-6)
    fresh.hold(held)
    assert lens.now == pytest.approx(fresh.now, rel=1e-7, abs=1e-4)


@given(moves)
@settings(max_examples=60, deadline=None)
def test_a_doubled_book_loses_double_and_a_flat_one_nothing(drawn: tuple[int, int, int]) -> None:
    x = table(*drawn)
    names = [f'S{j}' for j in range(x.shape[1])]
    lens = Lens(names, x, 0.9, x[:1])
    lens.hold(dict.fromkeys(names, 1000.0))
    one = lens.now
    lens.hold(dict.fromkeys(names, 2000.0))
    assert lens.now == pytest.approx(tuple(2 * v for v in one), rel=1e-9, abs=1e-9)
    lens.hold({})
    assert lens.now == Lost()


@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.lists(st.tuples(st.integers(0, 2), st.floats(-1e5, 1e5), st.booleans()), min_size=1, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=120, deadline=None)
def test_whichever_resting_orders_fill_the_book_loses_no_more_than_was_said(seed: int, n: int, orders: list[tuple[int, float, bool]], filled: list[bool]) -> None:
    x, names = table(seed, n, 3), ('A', 'B', 'C')
    shocks = np.random.default_rng(seed).uniform(-0.4, 0.3, (4, 3))
    lens, real, held = Lens(names, x, 0.95, shocks), Lens(names, x, 0.95, shocks), {'A': 5e4, 'B': -4e4, 'C': 0.0}
    lens.hold(held)
    for (j, v, sure), done in zip(orders, filled):
        lens.take(names[j], v, sure)
        if sure or done: held[names[j]] += v
    real.hold(held)
    for said, lost in zip(lens.now, real.now): assert said >= lost - 1e-6 * (1 + abs(lost))


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1e5), st.booleans()), max_size=6), st.floats(-1e5, 1e5))
@settings(max_examples=80, deadline=None)
def test_a_span_is_the_orders_that_make_it(seed: int, orders: list[tuple[int, float, bool]], start: float) -> None:
    """Held as a span of values, or as the orders one by one."""
    x, names, ends = table(seed, 80, 3), ('A', 'B', 'C'), {s: (start, start) for s in ('A', 'B', 'C')}
    one, other = Lens(names, x, 0.95, x[:3]), Lens(names, x, 0.95, x[:3])
    one.hold(ends)
    for j, v, buys in orders:
        one.take(names[j], v if buys else -v, False)
        low, high = ends[names[j]]
        ends[names[j]] = (low, high + v) if buys else (low - v, high)
    other.hold(ends)
    assert one.now == pytest.approx(other.now, rel=1e-9, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(st.integers(0, 2), st.floats(-1e5, 1e5), st.booleans(), st.floats(0, 2)), min_size=1, max_size=8))
@settings(max_examples=120, deadline=None)
def test_what_fits_is_what_was_measured(seed: int, orders: list[tuple[int, float, bool, float]]) -> None:
    """The quick bound never lets through what the measure would not, and what measures as fitting fits."""
    x, names = table(seed, 60, 3), ('A', 'B', 'C')
    lens, slow = Lens(names, x, 0.95, x[:3]), Lens(names, x, 0.95, x[:3])
    for y in (lens, slow): y.hold({'A': 1e4})
    for j, v, sure, k in orders:
        said = slow.after(names[j], v, sure)
        most = tuple(k * (1 + abs(m)) for m in slow.now)
        assert lens.fits(names[j], v, sure, most) == all(a <= b for a, b in zip(said, most))      # type: ignore[arg-type]
        for y in (lens, slow): y.take(names[j], v, sure)


def test_a_hedge_that_an_offer_would_take_away_counts_before_it_does() -> None:
    x = table(3, 500, 1)
    lens = Lens(('A', 'B'), np.hstack([x, x]), shocks=np.array([[-0.3, -0.3]]))
    lens.hold({'A': 100_000.0, 'B': -100_000.0})
    assert lens.now == pytest.approx((0, 0, 0), abs=1e-6)
    assert lens.after('B', 100_000.0, sure=False).stress == pytest.approx(30_000) and lens.after('B', 100_000.0, sure=False).var > 1_000
    lens.hold({'A': 100_000.0, 'B': (-100_000.0, 0.0)})
    assert lens.now.stress == pytest.approx(30_000), 'and after a look too'


def test_what_no_scenario_covers_is_dark_until_it_is_gone() -> None:
    lens = Lens(('A', 'B'), table(1, 90, 2), shocks=np.array([[-0.3, np.nan], [0.1, np.nan]]))
    assert lens.dark == {'B'} and not lens.untold
    lens.take('A', 100.0)
    assert not lens.untold and lens.now.stress == pytest.approx(30)
    lens.take('B', 1.0)
    assert lens.untold == {'B'}
    lens.hold({'A': 5.0, 'B': 0.0})
    assert not lens.untold
    lens.hold({'B': (0.0, 3.0)})
    assert lens.untold == {'B'} and Lens(('A',), table(1, 90, 1)).dark == {'A'}


@pytest.mark.parametrize('make', [
    lambda: Lens(('A',), np.zeros((5, 2))), lambda: Lens(('A',), np.zeros(5)), lambda: Lens(('A',), np.zeros((1, 1))), lambda: Lens(('A',), np.full((5, 1), np.inf)),
    lambda: Lens(('A',), np.zeros((5, 1)), level=0.5), lambda: Lens(('A',), np.zeros((5, 1)), level=1.0), lambda: Lens(('A',), np.zeros((5, 1)), shocks=np.zeros((2, 3))),
    lambda: Lens(('A',), np.zeros((5, 1)), shocks=np.full((1, 1), -np.inf)), lambda: Lens(('A',), np.zeros((5, 1))).hold({'B': 1.0}), lambda: Lens(('A',), np.zeros((5, 1))).hold({'B': (0.0, 1.0)}), lambda: Lens(('A',), np.zeros((5, 1))).hold({'A': float('nan')})])
def test_what_it_cannot_measure_it_refuses(make: object) -> None:
    with pytest.raises(BadInput): make()  # type: ignore[operator]
