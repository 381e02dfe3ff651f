"""Combinatorially symmetric cross-validation: against the definition done slowly, and on the cases of its paper."""
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.research.pbo import half_sharpes, halves, pbo


def slowly(x: np.ndarray, s: int) -> tuple[float, float]:
    "The paper's algorithm 2.3, one combination at a time."
    parts, logits, lost = np.split(x, s), [], []
    for c in combinations(range(s), s // 2):
        a, b = np.concatenate([parts[i] for i in c]), np.concatenate([parts[i] for i in range(s) if i not in c])
        here, there = a.mean(0) / a.std(0), b.mean(0) / b.std(0)
        n = int(here.argmax())
        w = (np.argsort(np.argsort(there))[n] + 1) / (x.shape[1] + 1)
        logits.append(np.log(w / (1 - w))); lost.append(there[n] < 0)
    return float(np.mean(np.array(logits) <= 0)), float(np.mean(lost))


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([4, 6, 8]), st.integers(2, 25), st.floats(0, .3))
def test_it_is_the_papers_algorithm(seed: int, s: int, n: int, skill: float) -> None:
    x = np.random.default_rng(seed).standard_normal((s * 30, n))
    x[:, 0] += skill
    o = pbo(x, s)
    assert (o.pbo, o.loss) == pytest.approx(slowly(x, s), abs=1e-9) and len(o.logits) == len(halves(s))


def test_the_papers_first_case_is_overfit_for_certain() -> None:
    "Every trial shifted to a ratio of nothing over the whole: N = 100, T = 1,000, S = 8 (the paper's figures 1 to 4) and S = 10: PBO 1."
    x = np.random.default_rng(1).standard_normal((1_000, 100))
    for s in (8, 10):
        o = pbo(x - x.mean(0), s)
        assert o.pbo == 1 and o.loss == 1 and -1.1 < o.slope < -.85 and o.r2 > .9


def test_a_true_ratio_is_not_overfit() -> None:
    "The paper's other end: one trial with a ratio far above the others, PBO 0."
    x = np.random.default_rng(2).standard_normal((1_000, 100))
    x[:, 5] += 6 / 252**.5
    o = pbo(x)
    assert o.pbo < .001 and o.loss < .001 and o.dominance == 0 and len(o.logits) == 12_870


def test_noise_is_a_coin() -> None:
    "Independent noise: one half on average, as every trial is as likely as another to be on top elsewhere."
    found = [pbo(np.random.default_rng(i).standard_normal((320, 40)), 8).pbo for i in range(60)]
    assert np.mean(found) == pytest.approx(.5, abs=.06)


def test_neither_scale_nor_order_of_the_trials_matters() -> None:
    g = np.random.default_rng(3)
    x = g.standard_normal((320, 20))
    p = g.permutation(20)
    assert pbo(x, 8) == pbo((x * g.uniform(.01, 100, 20))[:, p], 8)


def test_mirror_images() -> None:
    s = half_sharpes(np.random.default_rng(4).standard_normal((160, 7)), 8)
    m = halves(8)
    assert (m + m[::-1] == 1).all() and s.shape == (70, 7)


def test_a_trial_that_rests_for_years_has_no_ratio_there() -> None:
    x = np.random.default_rng(5).standard_normal((160, 3))
    x[:80, 1] = 0
    s = half_sharpes(x, 4)
    assert s[0, 1] == 0 and np.isfinite(s).all() and 0 <= pbo(x, 4).pbo <= 1


def test_the_picture_names_the_numbers() -> None:
    o = pbo(np.random.default_rng(6).standard_normal((320, 10)), 8)
    assert f'PBO {o.pbo:.0%}' in o._repr_svg_() and '<circle' in o._repr_svg_() and repr(o).startswith('PBO 0.')


@pytest.mark.parametrize('call', [
    lambda x: pbo(x[:, :1]), lambda x: pbo(x[:20]), lambda x: pbo(x, 7), lambda x: pbo(x, 2), lambda x: pbo(x, 40), lambda x: pbo(x[:, 0]), lambda x: pbo(np.where(x > 2, np.inf, x)), lambda x: pbo(x * [1, 0, 1, 1])])
def test_what_cannot_be_halved_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call(np.random.default_rng(7).standard_normal((320, 4)))  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None
