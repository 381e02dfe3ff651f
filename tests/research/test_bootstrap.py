"""Intervals by drawing again: against `performance`, against `arch`, and against the truth."""
import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap, StationaryBootstrap, optimal_block_length
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.research import bootstrap as b
from gekko.research.stats import performance

TIMES = utc('2020-01-01') + DAY * np.arange(601, dtype=np.int64)


def curve(seed: int, n: int = 600, mean: float = .0005) -> np.ndarray:
    return 1e5 * np.concatenate([[1], np.cumprod(1 + mean + .01 * np.random.default_rng(seed).standard_t(4, n))])


@pytest.mark.parametrize(('kind', 'theirs'), [('stationary', StationaryBootstrap), ('circular', CircularBlockBootstrap)])
@pytest.mark.parametrize('block', [1, 7, 40])
def test_the_draws_are_those_of_arch(kind: str, theirs: type, block: int) -> None:
    x = np.arange(101.)[:, None]
    assert (np.array([d[0][0][:, 0] for d in theirs(block, x, seed=11).bootstrap(6)]) == b.draws(101, 6, block, 11, kind)).all()


def test_the_block_is_that_of_politis_and_white() -> None:
    g = np.random.default_rng(0)
    e = g.standard_normal(3_000)
    for t in range(1, len(e)): e[t] += .6 * e[t - 1]
    own = float(optimal_block_length(e)['stationary'].iloc[0])
    for n in range(20, 2_000, 91):
        x = g.standard_normal(n) + (np.roll(e[:n], n % 7) if n % 2 else 0)
        assert b._asked(x) == pytest.approx(float(optimal_block_length(x)['stationary'].iloc[0]), rel=1e-9)
    assert b.block_length(e) >= own - 1e-9 > 10 and b.block_length(g.standard_normal(3_000)) < 5


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-.2, .25).map(lambda x: round(x, 6)), min_size=5, max_size=60).filter(lambda r: max(r) > min(r) + 1e-6), st.floats(1, 1e4))
def test_many_runs_at_once_are_each_as_performance_says(r: list[float], periods: float) -> None:
    x = np.concatenate([[1.], np.cumprod(1 + np.array(r))])
    at = TIMES[:len(x)]
    p, m = performance(at, x, periods), b.measures(np.array([r, r]), at, periods)
    for n in b.NAMES:
        want = getattr(p, n)
        if np.isfinite(want) and abs(want) < 1e9: assert m[n][1] == pytest.approx(want, rel=1e-6, abs=1e-9), n


def test_a_fall_that_lasts_counts_to_the_end() -> None:
    x = np.array([1, 2, 1.5, 1.6, 1.7, 1.2])
    r = x[1:] / x[:-1] - 1
    assert b.measures(r[None], TIMES[:6], 252)['longest_drawdown_days'][0] == performance(TIMES[:6], x).longest_drawdown_days == 4


def test_intervals_repeat_with_their_seed_and_hold_the_value() -> None:
    x = curve(1)
    a = b.intervals(TIMES, x, 252., seed=4, reps=300)
    assert a == b.intervals(TIMES, x, 252., seed=4, reps=300) != b.intervals(TIMES, x, 252., seed=5, reps=300)
    for n in ('sharpe', 'cagr', 'volatility', 'sortino', 'hit_rate'): assert a[n].value in a[n], n
    assert [i.name for i in a] == list(b.NAMES) and all(i.low <= i.high for i in a)
    assert '<svg' in a._repr_html_() and '300 draws' in a._repr_html_()


def test_an_interval_of_the_mean_is_as_wide_as_theory_says() -> None:
    "Independent normal returns: the error of the Sharpe ratio is about one over the root of the years."
    x = 1e5 * np.concatenate([[1], np.cumprod(1 + .01 * np.random.default_rng(8).standard_normal(600))])
    i = b.intervals(TIMES, x, 252., block=1, reps=2_000)['sharpe']
    assert i.error == pytest.approx((252 / 600) ** .5, rel=.08)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    "200 accounts with memory 0.3, 90 %: blocks hold it, independent draws do not."
    g, hits = np.random.default_rng(5), {1.: 0, 12.: 0}
    e = g.standard_normal((200, 400))
    for t in range(1, 400): e[:, t] = .3 * e[:, t - 1] + (1 - .09) ** .5 * e[:, t]
    for block in hits:
        for r in .01 * (e + .05):
            s = b._shape(r[b.draws(400, 150, block, 3)], 252.)['sharpe']
            hits[block] += np.quantile(s, .05) <= .05 * 252**.5 <= np.quantile(s, .95)
    assert hits[1.] < 165 < hits[12.] <= 196


def test_every_nth_row() -> None:
    x = curve(2)
    a = b.intervals(TIMES, x, 252., every=5, reps=50)
    assert a['total_return'].value == pytest.approx(x[-1] / x[0] - 1) and a['sharpe'].value == pytest.approx(performance(TIMES[::5], x[::5], 252 / 5).sharpe)


@pytest.mark.parametrize('call', [
    lambda: b.intervals(TIMES[:9], curve(1)[:9]), lambda: b.intervals(TIMES, curve(1)[:-1]), lambda: b.intervals(TIMES, -curve(1)), lambda: b.intervals(TIMES, np.full(601, 5.)),
    lambda: b.intervals(TIMES, np.where(np.arange(601) == 7, np.nan, curve(1))), lambda: b.intervals(TIMES, curve(1), level=1), lambda: b.intervals(TIMES, curve(1), reps=3), lambda: b.intervals(TIMES, curve(1), every=0),
    lambda: b.intervals(TIMES, curve(1), block=0.2), lambda: b.intervals(TIMES, curve(1), kind='x'), lambda: b.draws(0, 1, 1, 1), lambda: b.block_length(np.zeros(50))])
def test_what_cannot_be_drawn_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call()  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None
