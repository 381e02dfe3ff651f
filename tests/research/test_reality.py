"""White's and Hansen's tests against `arch`, and against noise whose answer is known."""
import numpy as np
import pytest
from arch.bootstrap import SPA, StepM
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.research.reality import long_run, reality_check


def panel(seed: int, t: int = 300, n: int = 40, skill: float = 0.) -> np.ndarray:
    g = np.random.default_rng(seed)
    x = .01 * (.5 * g.standard_normal((t, 1)) + g.standard_normal((t, n)) * g.uniform(.5, 2, n))
    x[:, 3] += .01 * skill
    return x


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([0., .15, .4]), st.integers(2, 20))
def test_p_values_and_survivors_are_those_of_arch(seed: int, skill: float, block: int) -> None:
    x = panel(seed, 120, 12, skill)
    z = x / np.sqrt(long_run(x, block))
    spa, step = SPA(np.zeros(120), -z, block_size=block, reps=150, seed=seed), StepM(np.zeros(120), -z, size=.05, block_size=block, reps=150, seed=seed)
    spa.compute(); step.compute()
    mine = reality_check(x, block=block, reps=150, seed=seed)
    # a draw that ties with the statistic in single precision may fall on either side
    assert [mine.lower, mine.consistent, mine.upper] == pytest.approx([float(p) for p in spa.pvalues], abs=1.5 / 150)
    assert list(mine.better) == [int(i) for i in step.superior_models]


def test_whites_check_is_arch_without_the_deviations() -> None:
    x = panel(4, 200, 15, .2)
    spa = SPA(np.zeros(200), -x, block_size=6, reps=200, seed=9, studentize=False)
    spa.compute()
    assert reality_check(x, block=6, reps=200, seed=9).white == pytest.approx(float(spa.pvalues['upper']), abs=1 / 200)


def test_the_variance_is_that_of_arch() -> None:
    x = panel(1, 150, 5)
    spa = SPA(np.zeros(150), -x, block_size=9, reps=1, seed=1)
    spa.compute()
    assert np.allclose(long_run(x, 9), spa._loss_diff_var, rtol=1e-9)


def test_noise_is_believed_as_seldom_as_it_should_be() -> None:
    p = np.array([reality_check(np.random.default_rng(s).standard_normal((500, 30)), block=2, reps=200, seed=s).consistent for s in range(200)])
    assert .02 <= (p <= .1).mean() <= .18 and .35 < p.mean() < .6


def test_a_wild_strategy_drowns_the_others_in_whites_check_and_not_in_hansens() -> None:
    x = panel(6, 500, 30, .35)
    x[:, 9] *= 30
    r = reality_check(x, seed=1)
    assert r.consistent < .02 < .2 < r.white and 3 in r.better


def test_hopeless_strategies_cost_hansens_test_nothing() -> None:
    x = panel(7, 500, 10, .3)
    many = np.column_stack([x, panel(8, 500, 200) - .02])
    assert reality_check(many, seed=1).consistent <= reality_check(x, seed=1).consistent + .02
    assert reality_check(many, seed=1).upper >= reality_check(many, seed=1).consistent


def test_a_pick_that_is_not_the_best_has_its_own_p_value() -> None:
    x = panel(5, 400, 20, .4)
    best, other = reality_check(x, seed=2), reality_check(x, chosen=11, seed=2)
    assert best.best == best.chosen == 3 and other.best == 3 and other.own > .2 > .05 > best.own == best.consistent


def test_a_benchmark_is_taken_off() -> None:
    g = np.random.default_rng(3)
    market = .002 + .01 * g.standard_normal(500)
    held = market[:, None] + .001 * g.standard_normal((500, 8))
    assert reality_check(held, seed=1).consistent < .01 and reality_check(held, market, seed=1).consistent > .05


@pytest.mark.parametrize('call', [
    lambda x: reality_check(x[:5]), lambda x: reality_check(x[:, 0]), lambda x: reality_check(np.where(x > .04, np.nan, x)), lambda x: reality_check(np.column_stack([x, x[:, 0] * 0])),
    lambda x: reality_check(x, x[:9, 0]), lambda x: reality_check(x, chosen=99), lambda x: reality_check(x, reps=5), lambda x: reality_check(x, level=0), lambda x: reality_check(x, block=1e6),
    lambda x: reality_check(x, benchmark=x[:, 0])])
def test_what_cannot_be_tested_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call(panel(2))  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None
