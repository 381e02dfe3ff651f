"""The picture is thinned and grown without losing what matters in it."""
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gekko.ops.curve import Curve, thin, traces

equities = st.lists(st.decimals(min_value=Decimal('0.01'), max_value=Decimal('1e9'), places=2), min_size=1, max_size=400)


def curve_of(points: list[tuple[int, Decimal]], cuts: list[int]) -> Curve:
    c = Curve()
    for k in sorted({min(k, len(points)) for k in cuts} | {len(points)}): c.extend(points[:k])
    return c


@given(equities, st.lists(st.integers(0, 400), max_size=6))
def test_a_curve_is_the_same_however_it_was_grown(values: list[Decimal], cuts: list[int]) -> None:
    points = [(i * 1_000_000, e) for i, e in enumerate(values)]
    whole, grown = curve_of(points, []), curve_of(points, cuts)
    for field in ('ms', 'equity', 'drawdown'): assert np.array_equal(getattr(whole, field), getattr(grown, field))
    floats = [float(v) for v in values]
    assert whole.drawdown.tolist() == [100 * (v / max(floats[:i + 1]) - 1) for i, v in enumerate(floats)]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3000), st.integers(4, 200))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], most: int) -> None:
    x = np.array(values)
    kept = thin(x, most)
    assert (np.diff(kept) > 0).all() and kept[0] == 0 and kept[-1] == len(x) - 1
    assert x[kept].min() == x.min() and x[kept].max() == x.max()
    assert len(kept) <= max(most, 4) + 6 or len(x) <= most


def test_a_curve_below_zero_and_an_empty_one_can_be_drawn() -> None:
    c = Curve()
    assert [len(y) for _, y in traces(c, 0.0)] == [0, 0, 0]
    c.extend([(0, Decimal(-5)), (1_000_000, Decimal(0)), (2_000_000, Decimal(10)), (3_000_000, Decimal(5))])
    assert c.drawdown.tolist() == [0.0, 0.0, 0.0, -50.0]
    assert traces(c, 7.0)[0][0][-1] == '1970-01-01T00:00:00.003'
