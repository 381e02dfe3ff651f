"""Opinions to one score: bounded, order-free, faded, and unheard below the threshold."""
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.target import Forecast, Signal
from gekko.domain.time import HOUR
from gekko.portfolio.confidence import Opinion, combine, combine_rows, fade, opinion_of, signals_of, strength

NOW = 10**18
opinions = st.lists(st.builds(lambda m, s, score, c, age, life: Opinion(f'm{m}', Signal(s, NOW - age, score), c, life), st.integers(0, 5), st.sampled_from('ABC'), st.floats(-1, 1), st.floats(0, 1),
                              st.integers(0, 10**13), st.sampled_from([0, HOUR, 24 * HOUR])), max_size=12, unique_by=lambda o: (o.model, o.signal.symbol))


@given(opinions, st.floats(0, 1), st.randoms())
def test_the_score_lies_among_those_heard_and_the_order_changes_no_bit(said, threshold, random):
    views = combine(said, NOW, threshold)
    assert [v.symbol for v in views] == sorted({o.signal.symbol for o in said})
    for v in views:
        of = [o for o in said if o.signal.symbol == v.symbol]
        heard = [o for o in of if strength(o, NOW) >= threshold and strength(o, NOW) > 0]
        assert set(v.heard) == {o.model for o in heard} and set(v.heard) | set(v.unheard) == {o.model for o in of}
        if heard:
            assert min(o.signal.score for o in heard) - 1e-12 <= v.score <= max(o.signal.score for o in heard) + 1e-12 and abs(v.score) <= 1
            assert threshold - 1e-12 <= v.confidence <= 1
        else: assert (v.score, v.confidence) == (0, 0)
    mixed = list(said)
    random.shuffle(mixed)
    assert combine(mixed, NOW, threshold) == views
    assert [s.symbol for s in signals_of(views, NOW)] == [v.symbol for v in views if v.heard]


@given(st.integers(0, 10**14), st.integers(0, 10**14), st.sampled_from([HOUR, 24 * HOUR]))
def test_fading_is_by_halves_and_adds_up(a, b, life):
    assert 0 <= fade(a, life) <= 1 and math.isclose(fade(a, life) * fade(b, life), fade(a + b, life), rel_tol=1e-9, abs_tol=1e-300)
    assert math.isclose(fade(a + life, life), fade(a, life) / 2) and fade(a, 0) == 1


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_forecast_is_an_opinion_within_bounds(mean, down, up):
    o = opinion_of('net', Forecast('KO', NOW, HOUR, mean, mean - down, mean + up, 0.8))
    assert abs(o.signal.score) <= 1 and o.signal.score * mean >= 0 and (o.confidence, o.half_life) == (0.8, HOUR)


@given(st.integers(0, 2**31), st.floats(0, 0.9))
def test_tables_say_what_opinions_say(seed, threshold):
    rng = np.random.default_rng(seed)
    s, c = rng.uniform(-1, 1, (3, 4, 2)), rng.uniform(0, 1, (3, 4, 2))
    s[rng.random(s.shape) < 0.2] = np.nan
    table = combine_rows(s, c, threshold)
    for t in range(4):
        for j in range(2):
            views = combine([Opinion(f'm{m}', Signal('A', NOW, s[m, t, j]), c[m, t, j]) for m in range(3) if s[m, t, j] == s[m, t, j]], NOW, threshold)
            heard = bool(views and views[0].heard)
            assert math.isclose(table[t, j], views[0].score, abs_tol=1e-12) if heard else np.isnan(table[t, j])


@pytest.mark.parametrize('call, says', [
    (lambda: Opinion('m', Signal('A', NOW, 0.5), 1.1), 'confidence: expected 0 to 1'), (lambda: fade(-1, HOUR), 'from the future'),
    (lambda: combine([], NOW, 1.5), 'confidence threshold'), (lambda: combine([Opinion('m', Signal('A', NOW + 1, 0.5), 1.0)], NOW), 'from the future'),
    (lambda: combine([Opinion('m', Signal('A', NOW, 0.5), 1.0), Opinion('m', Signal('A', NOW, 0.4), 1.0)], NOW), 'two things of A'),
    (lambda: combine_rows([[[0.1]]], [[[1.5]]]), 'confidences'), (lambda: combine_rows([[0.1]], [[0.5]]), 'M tables')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
