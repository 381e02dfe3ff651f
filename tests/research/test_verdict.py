"""The gate: it refuses luck, lets skill pass, and says why. Campaigns with a seed, of noise in several shapes and of skill among a thousand trials."""
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.research.trials import Trial, trial
from gekko.research.verdict import Evidence, Thresholds, evidence, evidence_of, thresholds

QUICK = Thresholds(blocks=10, reps=300)     # the same gate with fewer draws: a campaign is hundreds of them
TIMES = utc('2015-01-01') + DAY * np.arange(1, 1513)


@pytest.fixture(autouse=True, scope='module')
def alone() -> Iterator[None]:
    """One thread for the products of small matrices: with several they wait for each other."""
    with threadpool_limits(1): yield


def returns(kind: str, rows: int, trials: int, g: np.random.Generator) -> np.ndarray:
    """Noise without skill: on its own, half shared by all, in 25 families, with tails, with memory."""
    e = g.standard_normal((rows, trials), dtype=np.float32)
    if kind == 'shared': e = .7071 * (e + g.standard_normal((rows, 1), dtype=np.float32))
    if kind == 'families': e = .95 * g.standard_normal((rows, 25), dtype=np.float32)[:, np.arange(trials) % 25] + .3122 * e
    if kind == 'tails': e *= np.sqrt(4 / g.chisquare(4, (rows, trials)).astype(np.float32))
    if kind == 'memory':
        for t in range(1, rows): e[t] += .15 * e[t - 1]
    return e


def shown(x: np.ndarray, limits: Thresholds = QUICK, seed: int = 0) -> tuple[int, Evidence]:
    """The best of all trials goes before the gate."""
    best = int((x.mean(0) / x.std(0)).argmax())
    return best, evidence(x[:, best], 252, x, best, limits=limits, seed=seed)


def test_the_best_of_a_thousand_worthless_trials_is_refused() -> None:
    """200 sweeps of 1,000 trials over a year and over two: at least 95 in 100 refused, whatever the noise looks like."""
    kinds, passed = ('own', 'shared', 'families', 'tails', 'memory'), {}
    for kind in kinds:
        g = np.random.default_rng(len(kind))
        passed[kind] = sum(shown(returns(kind, 252 if i % 4 else 504, 1_000, g), seed=i)[1].passed for i in range(40))
    print('passed of 40:', passed)
    assert sum(passed.values()) <= 10 and max(passed.values()) <= 4


@pytest.mark.parametrize(('kind', 'most'), [('own', .4), ('shared', .55), ('families', .6)])
def test_skill_among_a_thousand_trials_passes_most_of_the_time(kind: str, most: float) -> None:
    """A true Sharpe ratio of 1.5 over ten years of days; what passed must be the one with skill."""
    g, passed, n = np.random.default_rng(7), 0, 24
    for i in range(n):
        x = returns(kind, 2_520, 1_000, g)
        x[:, 0] += 1.5 / 252**.5
        best, e = shown(x, seed=i)
        passed += e.passed and best == 0
    print(f'{kind}: {passed} of {n} passed')
    assert passed >= most * n


def test_more_skill_passes_nearly_always() -> None:
    g, passed = np.random.default_rng(8), 0
    for i in range(12):
        x = returns('own', 2_520, 1_000, g)
        x[:, 0] += 2.2 / 252**.5
        passed += shown(x, seed=i)[1].passed
    assert passed >= 10


def test_a_plateau_of_good_neighbours_passes_though_its_ranks_are_chance() -> None:
    """200 neighbours that are all good: PBO says a coin, the loss says that it does not matter."""
    g = np.random.default_rng(3)
    x = .95 * g.standard_normal((2_520, 1)) + .3122 * g.standard_normal((2_520, 200)) + 1.8 / 252**.5
    e = shown(x, Thresholds(reps=500))[1]
    assert e.passed and e['PBO'].value > .3, e


def sample(skill: float = 2., n: int = 50) -> np.ndarray:
    x = .01 * np.random.default_rng(5).standard_normal((1_512, n))
    x[:, 4] += .01 * skill / 252**.5
    return x


def test_each_item_can_refuse_alone() -> None:
    x = sample(2.6)
    ok = evidence(x[:, 4], 252, x, trades=100, limits=QUICK)
    assert ok.passed and not ok.failed and [i.name for i in ok] == ['rows', 'trades', 'track record', 'backtest length', 'luck', 'deflated Sharpe', 'SPA', 'PBO']
    for limits, trades, name in ((replace(QUICK, rows=2_000), 100, 'rows'), (QUICK, 3, 'trades'), (replace(QUICK, track=1 - 1e-12), 100, 'track record'), (replace(QUICK, luck=0.), 100, 'luck'),
                                 (replace(QUICK, deflated=1.), 100, 'deflated Sharpe')):
        e = evidence(x[:, 4], 252, x, trades=trades, limits=limits)
        assert e.failed == (name,) and not e.passed, (name, e)
    assert 'PBO' in evidence(x[:, 7], 252, x, limits=replace(QUICK, pbo=0., loss=0.)).failed or evidence(x[:, 7], 252, x, limits=QUICK).failed
    assert 'SPA' in evidence(x[:, 7], 252, x, limits=QUICK).failed and evidence(x[:, 4], 252, x, apart=1e9, limits=QUICK).failed


def test_a_loser_is_refused_by_everything() -> None:
    x = sample()
    x[:, 4] = .01 * np.random.default_rng(6).standard_normal(1_512) - .001
    e = evidence(x[:, 4], 252, x, limits=QUICK)
    assert {'track record', 'backtest length', 'luck', 'deflated Sharpe', 'SPA'} <= set(e.failed) and '∞' in repr(e)


def test_trials_forgotten_are_trials_that_make_it_easy() -> None:
    """The same returns: alone, among fifty, and with what was made elsewhere."""
    x = sample(0.)
    best = int((x.mean(0) / x.std(0)).argmax())
    luck = [evidence(x[:, best], 252, limits=QUICK)['luck'].value, evidence(x[:, best], 252, x, limits=QUICK)['luck'].value, evidence(x[:, best], 252, x, apart=5_000, limits=QUICK)['luck'].value]
    assert luck[0] < .05 < luck[1] < luck[2]


def test_trials_that_never_traded_and_their_place() -> None:
    x = sample(3.)
    wide = np.column_stack([np.zeros((1_512, 3)), x, np.zeros(1_512)])
    a, b = evidence(x[:, 4], 252, x, limits=QUICK), evidence(x[:, 4], 252, wide, limits=QUICK)
    assert b.trials == a.trials + 4 and [i.value for i in a] == [i.value for i in b]


def test_sums_or_rows_and_kept_trials_say_the_same() -> None:
    x = sample(2.5)
    book: list[Trial] = [trial('trend', {'n': i}, TIMES, r, periods=252, trades=80) for i, r in enumerate(x.T)]
    a, b, c = evidence(x[:, 4], 252, x, trades=80, limits=QUICK), evidence(x[:, 4], 252, np.add.reduceat(x, np.arange(0, 1_512, 3), axis=0), trades=80, limits=QUICK), evidence_of(book, book[4].key[:12], limits=QUICK)
    assert a.items == b.items and a.passed == c.passed and c.sharpe == pytest.approx(a.sharpe) and c.trials == 50 and c.rows == 1_512
    for i in a: assert c[i.name].value == pytest.approx(i.value, rel=.02, abs=.02), i.name
    assert evidence_of(book, book[4].key, unnoted=40, limits=QUICK)['luck'].value > c['luck'].value


def test_it_repeats_with_its_seed_and_tells_its_story() -> None:
    x = sample(2.)
    e = evidence(x[:, 4], 252, x, name='<trend>', limits=QUICK, seed=3)
    assert e == evidence(x[:, 4], 252, x, name='<trend>', limits=QUICK, seed=3)
    page = e._repr_html_()
    assert '&lt;trend&gt;' in page and '<trend>' not in page and page.count('<tr>') == len(e.items) + 1 and ('passed' if e.passed else 'refused') in page
    assert all(i.name in repr(e) and i.why for i in e)


def test_too_few_rows_for_the_halvings_is_said_and_refused() -> None:
    x = np.random.default_rng(1).standard_normal((20, 5)) + 3
    e = evidence(x[:, 0], 252, x)
    assert {'rows', 'PBO'} <= set(e.failed) and 'too few for 16 blocks' in e['PBO'].why


@pytest.mark.parametrize('call', [
    lambda x: evidence(x[:10, 4], 252, x), lambda x: evidence(x[:, 4], 0, x), lambda x: evidence(x[:, 4], float('inf'), x), lambda x: evidence(x[:, 4] * np.nan, 252, x), lambda x: evidence(x[:, 4] * 0, 252, x),
    lambda x: evidence(x, 252), lambda x: evidence(x[:, 4], 252, x[:, 4]), lambda x: evidence(x[:, 4], 252, x[:700]), lambda x: evidence(x[:, 4], 252, np.where(x > .03, np.inf, x)), lambda x: evidence(x[:, 4], 252, x, 9),
    lambda x: evidence(x[:, 4], 252, x, 99), lambda x: evidence(x[:, 4] + 1e-3, 252, x), lambda x: evidence(x[:, 4], 252, x, apart=-1), lambda x: evidence(x[:, 4], 252, x)['alpha'],
    lambda x: Thresholds(luck=2), lambda x: Thresholds(track=1), lambda x: Thresholds(reps=1), lambda x: Thresholds(rows=3), lambda x: thresholds({'sharpe': 1}), lambda x: thresholds({'luck': 'low'}), lambda x: thresholds({'rows': True})])
def test_what_cannot_be_judged_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call(sample())  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None


def test_thresholds_come_from_a_config() -> None:
    assert thresholds({}) == Thresholds() and thresholds({'rows': 500, 'deflated': .95}) == Thresholds(rows=500, deflated=.95)
