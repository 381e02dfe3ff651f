"""Walking forward: causal to the bit, paid for, on the calendar's days, and as skfolio cuts it."""
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gekko.data.bars import Bars
from gekko.data.features import simple_returns
from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.portfolio.walk import aware_choices, choices, every_rows, first_of_month, follow, purged_paths, walk_forward, walked


@lru_cache
def bars() -> Bars: return reference_bars(['BAC', 'JNJ', 'KO', 'WMT', 'XOM']).between(utc('2006-12-30'), utc('2010-01-01'))


def past() -> np.ndarray: return simple_returns(bars().close)[1:]
def end() -> np.ndarray: return bars().end[1:]


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_the_first_session_is_known_from_its_row_and_the_one_before(seed, months):
    rng = np.random.default_rng(seed)
    days = np.sort(rng.choice(3000, 200, replace=False)) * DAY + DAY
    whole = first_of_month(days, months)
    lo = int(rng.integers(0, 199))
    assert not whole[0] and first_of_month(days[lo:], months)[1:].tolist() == whole[lo + 1:].tolist()
    month = [str(d)[:7] for d in (days - 1).astype('datetime64[ns]').astype('datetime64[D]')]
    period = [(int(m[:4]) * 12 + int(m[5:]) - 1) // months for m in month]
    assert whole[1:].tolist() == [a != b for a, b in zip(period[1:], period)]


@pytest.mark.parametrize('train, every', [(100, 21), (252, 63), (100, 700), (500, 1)])
def test_rows_are_counted_as_skfolio_counts_them(train, every):
    at = every_rows(754, train, every)
    assert np.flatnonzero(at).tolist() == list(range(train - 1, 753, every))


@pytest.mark.parametrize('method', ['equal', 'hrp', 'min-variance', 'min-cvar', 'mean-variance', 'risk-parity'])
def test_a_choice_is_the_same_without_the_future_and_from_its_window(method):
    at, x = first_of_month(end(), 3), past()
    whole = choices(x, bars().symbols, method, train=200, at=at, max_weight=0.5)
    rows = np.flatnonzero(np.isfinite(whole[:, 0]))
    assert len(rows) >= 8 and (rows >= 199).all() and at[rows].all()
    poisoned = x.copy()
    poisoned[rows[4] + 1:] = np.random.default_rng(0).normal(0, 0.5, poisoned[rows[4] + 1:].shape)
    assert choices(poisoned, bars().symbols, method, train=200, at=at, max_weight=0.5)[:rows[4] + 1].tobytes() == whole[:rows[4] + 1].tobytes()
    for t in rows[:3]: assert choices(x[t - 199:t + 1], bars().symbols, method, train=200, at=at[t - 199:t + 1], max_weight=0.5)[-1].tobytes() == whole[t].tobytes()


@given(st.integers(0, 2**31), st.floats(0, 100))
@settings(max_examples=60)
def test_money_is_kept_exactly(seed, bps):
    """The same walk in money: units held, cash paid, nothing else."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.03, (40, 3))
    targets = np.full(x.shape, np.nan)
    targets[rng.random(40) < 0.3] = rng.dirichlet(np.ones(3))
    w = follow(x, targets, 'ABC', cost_bps=bps)
    value, money, path = np.zeros(3), 1.0, []
    for t in range(40):
        value = value * (1 + x[t])
        worth = money + value.sum()
        path.append(worth)
        if np.isfinite(targets[t]).all():
            traded = np.abs(targets[t] * worth - value).sum()
            paid = traded * bps / 1e4
            value, money = targets[t] * worth * (1 - paid / worth), (1 - targets[t].sum()) * worth * (1 - paid / worth)
            assert w.turnover[t] == pytest.approx(traded / worth, rel=1e-9, abs=1e-12) and w.cost[t] == pytest.approx(paid / worth, rel=1e-9, abs=1e-12)
        assert w.held[t] * (money + value.sum()) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert w.equity == pytest.approx(path, rel=1e-9)


def test_costs_only_take():
    free, dear = (walk_forward(past(), bars().symbols, 'min-variance', train=200, at=first_of_month(end()), cost_bps=c) for c in (0.0, 30.0))
    on = np.isfinite(free.net)
    assert (dear.net[on] <= free.net[on]).all() and dear.held.tobytes() == free.held.tobytes() and np.abs(free.net - free.gross)[on].max() < 1e-15
    assert dear.cost.sum() == pytest.approx(dear.turnover.sum() * 0.003) and dear.equity[-1] < free.equity[-1]


@pytest.mark.parametrize('method', ['min-variance', 'mean-variance', 'min-cvar'])
def test_an_optimiser_that_knows_its_costs_trades_less_and_sees_no_future(method):
    x, at = past(), first_of_month(end(), 3)
    plain, aware = (walk_forward(x, bars().symbols, method, train=200, at=at, cost_bps=40, aware=a) for a in (False, True))
    assert aware.turnover[aware.chosen[1:]].sum() < plain.turnover[plain.chosen[1:]].sum() and aware.chosen.tolist() == plain.chosen.tolist()
    assert aware.weights[aware.chosen[0]].tobytes() == plain.weights[plain.chosen[0]].tobytes()      # nothing is held before the first choice
    cut = int(aware.chosen[4]) + 1
    assert aware_choices(x[:cut], bars().symbols, method, train=200, at=at[:cut], cost_bps=40).tobytes() == aware.weights[:cut].tobytes()
    half = aware_choices(x, bars().symbols, method, train=200, at=at, cost_bps=40, rule=lambda now, want: (now + want) / 2)
    assert walk_forward(x, bars().symbols, method, train=200, at=at, cost_bps=40, aware=True, rule=lambda now, want: (now + want) / 2).weights.tobytes() == half.tobytes()


def test_every_method_walks():
    ends = {m: walk_forward(past(), bars().symbols, m, train=250, every=125).equity[-1] for m in ('equal', 'risk-parity', 'hrp', 'min-variance', 'min-cvar', 'mean-variance')}
    assert len(set(ends.values())) == 6 and all(0.2 < e < 3 for e in ends.values())


def test_every_path_is_out_of_sample():
    """A row that no weight was trained on may be anything, and the weights that predict it do not move."""
    x = past()
    paths = purged_paths(x, bars().symbols, 'min-variance', folds=6, purge=3)
    assert paths.shape == (5, len(x)) and np.isfinite(paths).all()
    one = x.copy()
    one[100] = 0.5
    again = purged_paths(one, bars().symbols, 'min-variance', folds=6, purge=3)
    fold = len(x) // 6
    assert again[:, 100] == pytest.approx(0.5, abs=1e-9)
    assert (np.delete(again[:, :fold], 100, axis=1) == np.delete(paths[:, :fold], 100, axis=1)).all() and (again[:, fold:] != paths[:, fold:]).any()


@pytest.mark.parametrize('call, says', [
    (lambda: first_of_month(end(), 7), 'months between decisions'), (lambda: every_rows(10, 0, 1), 'one or more each'), (lambda: choices(past(), ['A']), 'a column for each'), (lambda: choices(past(), bars().symbols, train=0), 'rows to train on'),
    (lambda: choices(past(), bars().symbols, at=np.ones(3, dtype=bool)), 'rows to decide at'), (lambda: walked(past(), past()[1:]), 'targets and returns'), (lambda: walked(past(), past(), cost_bps=-1), 'cost_bps'),
    (lambda: walk_forward(past() * np.nan, bars().symbols, train=100), 'returns: expected a finite number'), (lambda: walk_forward(past() * np.nan, bars().symbols, train=10_000), 'missing or infinite'),
    (lambda: walked(np.array([[0.0], [-1.0]]), np.ones((2, 1))), 'loses everything'), (lambda: walked(past(), past(), rule=lambda c, t: t[:2]), 'trading rule'), (lambda: purged_paths(past(), bars().symbols, folds=3, test_folds=1), 'folds')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
