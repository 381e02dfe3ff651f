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


@pytest.mark.parametrize('make', [
    lambda: Lens(('A',), np.zeros((5, 2))), lambda: Lens(('A',), np.zeros(5)), lambda: Lens(('A',), np.zeros((1, 1))), lambda: Lens(('A',), np.full((5, 1), np.inf)),
    lambda: Lens(('A',), np.zeros((5, 1)), level=0.5), lambda: Lens(('A',), np.zeros((5, 1)), level=1.0), lambda: Lens(('A',), np.zeros((5, 1)), shocks=np.zeros((2, 3))),
    lambda: Lens(('A',), np.zeros((5, 1))).hold({'B': 1.0}), lambda: Lens(('A',), np.zeros((5, 1))).hold({'A': float('nan')})])
def test_what_it_cannot_measure_it_refuses(make: object) -> None:
    with pytest.raises(BadInput): make()  # type: ignore[operator]
