"""Folds that do not leak: by the definition, checked row by row, and by the picture in the book."""
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.research import folds as f


def leaks(fold: f.Fold, known: np.ndarray, embargo: int) -> bool:
    "Row by row: a training label's span that meets a test label's, or a training row in the embargo after a stretch of the test."
    test = set(fold.test.tolist())
    ends = [t for t in fold.test.tolist() if t + 1 not in test]
    starts = [t for t in fold.test.tolist() if t - 1 not in test]
    for a, b in zip(starts, ends):
        over = max(known[t] for t in range(a, b + 1))
        for i in fold.train.tolist():
            if i in test or (i <= over and known[i] >= a) or over < i <= over + embargo: return True
    return False


@settings(deadline=None, max_examples=40)
@given(st.integers(30, 120), st.integers(2, 6), st.integers(0, 6), st.integers(0, 6), st.randoms(use_true_random=False))
def test_no_fold_leaks_and_every_row_is_tested_once(rows: int, n: int, horizon: int, embargo: int, rnd: object) -> None:
    known = np.arange(rows) + np.array([rnd.randint(0, horizon) for _ in range(rows)])  # type: ignore[attr-defined]
    try: made = f.kfold(rows, n, embargo=embargo, known=known)
    except BadInput: return
    assert sorted(t for x in made for t in x.test.tolist()) == list(range(rows))
    for x in made: assert not leaks(x, known, embargo)


@settings(deadline=None, max_examples=25)
@given(st.integers(60, 150), st.integers(3, 7), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
def test_combinations_do_not_leak_and_paths_cover_everything(rows: int, groups: int, tests: int, horizon: int, embargo: int) -> None:
    if tests >= groups: return
    try: plan = f.combinatorial(rows, groups, tests, horizon, embargo)
    except BadInput: return
    known = np.arange(rows) + horizon
    assert len(plan.folds) == comb(groups, tests) and plan.table.shape == (comb(groups, tests) * tests // groups, groups)
    for x in plan.folds: assert not leaks(x, known, embargo)
    # each answer says which fold gave it: every fold's every test row is used exactly once over all paths
    said = f.paths(plan, [np.full(len(x.test), float(i)) for i, x in enumerate(plan.folds)])
    for i, x in enumerate(plan.folds): assert sorted(np.argwhere(said == i)[:, 1].tolist()) == x.test.tolist()


def test_the_books_figure() -> None:
    "López de Prado 2018, fig. 12.1: six groups, two left out, 15 splits, 5 paths; the second is (1,2) (2,6) (3,6) (4,7) (5,8) (6,9)."
    plan = f.combinatorial(60, 6, 2)
    assert (len(plan.folds), len(plan.table)) == (15, 5) and (plan.table[1] + 1).tolist() == [2, 6, 6, 7, 8, 9]


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 200), st.integers(1, 60), st.integers(1, 30), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_walking_forward_never_sees_the_future(rows: int, train: int, test: int, horizon: int, gap: int, anchored: bool) -> None:
    try: made = f.walk_forward(rows, train, test, anchored=anchored, horizon=horizon, gap=gap)
    except BadInput: return
    for x in made:
        assert x.train.max() + horizon + gap < x.test.min() and (x.train.min() == 0 if anchored else x.train.min() >= x.test.min() - train)
    assert np.concatenate([x.test for x in made]).tolist() == list(range(train, rows))


def test_refitting_sees_training_rows_only_and_answers_are_put_where_they_belong() -> None:
    g = np.random.default_rng(1)
    x = g.standard_normal((500, 3)); y = x @ [1., -2., .5] + .1 * g.standard_normal(500)
    seen: list[set[int]] = []
    def fit(rows: np.ndarray) -> np.ndarray:
        seen.append(set(rows.tolist()))
        return np.linalg.lstsq(x[rows], y[rows], rcond=None)[0]
    walk = f.walk_forward(500, 100, 50, horizon=3)
    out = f.stitched(walk, f.answers(walk, fit, lambda m, rows: x[rows] @ m))
    assert np.isnan(out[:100]).all() and np.corrcoef(out[100:], y[100:])[0, 1] > .99
    for rows, w in zip(seen, walk): assert max(rows) + 3 < w.test.min()


def test_shuffled_folds_find_skill_where_purged_ones_find_none() -> None:
    g = np.random.default_rng(2)
    step = g.standard_normal(1_020)
    label = np.array([step[t + 1:t + 21].sum() for t in range(1_000)])
    def skill(folds: list[f.Fold]) -> float:
        got = f.stitched(folds, f.answers(folds, lambda rows: rows, lambda rows, test: label[rows[np.abs(test[:, None] - rows).argmin(1)]]))
        return float(np.corrcoef(got, label)[0, 1])
    parts = g.permutation(1_000).reshape(10, 100)
    plain = [f.Fold(np.setdiff1d(np.arange(1_000), p), np.sort(p), 1_000) for p in parts]
    assert skill(plain) > .9 and abs(skill(list(f.kfold(1_000, 10, horizon=20, embargo=20)))) < .35


@pytest.mark.parametrize('call', [
    lambda: f.kfold(10, 1), lambda: f.kfold(10, 11), lambda: f.kfold(10, 2, horizon=20), lambda: f.kfold(10, 2, embargo=-1), lambda: f.kfold(10, 2, horizon=-1), lambda: f.kfold(1, 2), lambda: f.kfold(3, known=np.array([0, 0, 0])),
    lambda: f.kfold(3, known=np.array([0, 1])), lambda: f.combinatorial(100, 6, 6), lambda: f.combinatorial(100, 6, 0), lambda: f.combinatorial(1_000, 40, 20), lambda: f.walk_forward(10, 10, 2), lambda: f.walk_forward(10, 0, 2),
    lambda: f.walk_forward(10, 5, 0), lambda: f.walk_forward(10, 5, 2, step=0), lambda: f.walk_forward(10, 5, 2, gap=-1), lambda: f.walk_forward(10, 2, 2, horizon=9)])
def test_what_cannot_be_folded_is_refused(call: object) -> None:
    with pytest.raises(BadInput) as e: call()  # type: ignore[operator]
    assert e.value.expected is not None and e.value.found is not None


def test_answers_of_another_shape_and_rows_tested_twice() -> None:
    plan = f.combinatorial(60, 6, 2)
    with pytest.raises(BadInput, match='the answer of fold 1'): f.answers(plan.folds, len, lambda m, rows: np.zeros(1))
    with pytest.raises(BadInput, match='tested again'): f.stitched(plan.folds, f.answers(plan.folds, len, lambda m, rows: np.zeros(len(rows))))
