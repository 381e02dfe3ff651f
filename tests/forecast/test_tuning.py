"""The claim: a search killed at any moment goes on to the very end it would have come to; what fails in a trial fails alone; and it answers only the question it was asked."""
import os
import signal
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Reject
from gekko.domain.time import SECOND, Nanos
from gekko.forecast.network import Columns, Trained
from gekko.forecast.spec import ModelSpec
from gekko.forecast.splits import split
from gekko.forecast.tuning import LIVES, Among, Choice, Log, Real, Tuned, Whole, _counted, _present, _proposed, _settle, _study, _taken, before_test, check_space, chosen, ends, tune

RNG = np.random.default_rng(5)
SERIES: dict[str, Columns] = {'A': {'y': np.sin(np.arange(400) / 3) + RNG.standard_normal(400) / 20, 'hour': np.arange(400) % 24.0}}
SPEC = ModelSpec(type='nhits', input_size=16, horizon=4, hidden=(8, 8), max_steps=60, batch_size=32, check_every_steps=10)
SPACE: dict[str, Choice] = {'learning_rate': Log(1e-4, 1e-1), 'hidden': Among(((8, 8), (16, 16))), 'input_size': Whole(8, 24, 8), 'dropout': Real(0.0, 0.3), 'future': Among(((), ('hour',)))}
TRIALS = 6

SEARCH = '''
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tuning import SERIES, SPACE, SPEC, TRIALS, tune
def tell(words, share): print(words, share, flush=True)
tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=Path(sys.argv[1]), validation=80, tell=tell)
'''


def states(storage: Path) -> list[str]: return [t.state.name for t in _study(storage).get_trials()]


def started(storage: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, '-c', SEARCH, str(storage), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True, env=os.environ | {'PYTHONWARNINGS': 'ignore'})


@pytest.fixture(scope='module')
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path: return tmp_path_factory.mktemp('whole') / 's.db'


@pytest.fixture(scope='module')
def whole(kept: Path) -> Tuned:
    """The search without an interruption."""
    return tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=kept, validation=80)


def test_killed_in_a_trial_and_started_again_it_ends_the_same(whole: Tuned, tmp_path: Path) -> None:
    storage = tmp_path / 's.db'
    running = started(storage)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith('trial 3') and 0.33 < float(line.rsplit(' ', 1)[1]) < 0.45: break      # in the middle of the third
    running.kill()
    assert running.wait(10) == -signal.SIGKILL
    assert states(storage) == [*[s for s in states(storage) if s != 'RUNNING'], 'RUNNING'] and 3 <= len(states(storage)) <= 5
    cut_at = len(states(storage)) - 1
    resumed = tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=storage, validation=80)
    assert resumed == whole, 'the same trials, the same losses, the same best'
    assert states(storage)[cut_at] == 'FAIL' and len(states(storage)) == TRIALS + 1, 'one was marked failed and made again'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['s.db', 's.db.turn'], 'what the dead process held is swept away'


def test_interrupted_it_says_so_and_loses_one_trial(whole: Tuned, tmp_path: Path) -> None:
    storage = tmp_path / 's.db'
    running = started(storage)
    assert running.stdout is not None
    for line in running.stdout:
        if line.startswith('trial 2') and float(line.rsplit(' ', 1)[1]) > 0.17: break
    running.send_signal(signal.SIGINT)
    running.stdout.read()
    assert running.wait(30) != 0
    assert 'RUNNING' not in states(storage) and states(storage).count('FAIL') == 1
    assert tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=storage, validation=80) == whole


def test_what_is_done_is_not_made_twice(whole: Tuned, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('gekko.forecast.tuning.judge', lambda *_: pytest.fail('nothing is left to train'))
    assert tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=kept, validation=80) == whole


def test_progress_rises_to_one_and_a_pipe_sees_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, float]] = []
    tune(SERIES, replace(SPEC, max_steps=20), {'dropout': Real(0.0, 0.2)}, trials=3, storage=tmp_path / 'a.db', validation=80, tell=lambda *said: told.append(said))
    assert [s for _, s in told] == sorted(s for _, s in told) and told[-1] == (told[-1][0], 1.0) and len(told) > 6
    capfd.readouterr()
    tune(SERIES, replace(SPEC, max_steps=20), {'dropout': Real(0.0, 0.2)}, trials=1, storage=tmp_path / 'b.db', validation=80)
    assert capfd.readouterr() == ('', '')


def test_a_trial_that_fails_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is no number, a combination that can't be built, and memory that runs out."""
    import gekko.forecast.tuning as tuning
    really = tuning.fit

    def fit(spec: ModelSpec, *rest: Any, **more: Any) -> Trained:
        if spec.hidden == (16, 16): raise MemoryError('no room for 40 GB')
        return really(spec, *rest, **more)
    monkeypatch.setattr(tuning, 'fit', fit)
    wild: dict[str, Columns] = {'A': {'y': np.where(np.arange(400) < 320, SERIES['A']['y'], SERIES['A']['y'] * 1e30)}}      # squares of these are no float32
    found = tune({'A': {**SERIES['A']}}, replace(SPEC, max_steps=20), {'hidden': Among(((8, 8), (16, 16)))}, trials=8, storage=tmp_path / 'a.db', validation=80, pruner='none')
    failed = [t for t in found.trials if t.state == 'failed']
    assert failed and {t.why for t in failed} == {'MemoryError: no room for 40 GB'} and len(found.trials) == 8 and found.spec.hidden == (8, 8)
    with pytest.raises(Reject, match='no trial of the search was done.*Reject: a trial diverged'): tune(wild, replace(SPEC, max_steps=20, loss='mse'), {'hidden': Among(((8, 8),))}, trials=2, storage=tmp_path / 'b.db', validation=80)
    patch = ModelSpec(type='patchtst', input_size=16, horizon=4, hidden=(16, 16), max_steps=10, check_every_steps=5, batch_size=16, options=(('heads', 2), ('patch_steps', 8), ('stride_steps', 4), ('ff_hidden', 8)))
    built = tune(SERIES, patch, {'heads': Among((1, 4)), 'hidden': Among(((2, 2), (8, 8)))}, trials=8, storage=tmp_path / 'c.db', validation=80, pruner='none')
    assert {t.why[:30] for t in built.trials if t.state == 'failed'} == {'BadInput: hidden width of patch'[:30]} and any(t.state == 'done' for t in built.trials)


def test_the_worst_are_pruned_on_the_way(tmp_path: Path) -> None:
    found = tune(SERIES, replace(SPEC, max_steps=40), {'learning_rate': Log(1e-7, 1e-1)}, trials=9, storage=tmp_path / 's.db', validation=80, seed=3)
    pruned, done = ([t for t in found.trials if t.state == s] for s in ('pruned', 'done'))
    assert pruned and all(t.losses[-1][0] < 40 and t.value is None for t in pruned) and all(t.losses[-1] == (40, t.value) for t in done)
    assert min(t.losses[-1][1] for t in pruned) > found.value


class Running:
    """A clock on which every look takes a second."""

    def __init__(self) -> None: self.t = 0
    def now(self) -> Nanos: return self.t

    def monotonic(self) -> Nanos:
        self.t += SECOND
        return self.t


def test_when_time_is_over_the_rest_waits_for_the_next_start(whole: Tuned, tmp_path: Path) -> None:
    with pytest.raises(Reject, match='none made in time'): tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=tmp_path / 's.db', validation=80, timeout_s=4.0, clock=Running())
    assert states(tmp_path / 's.db') == ['FAIL'], 'the one at work was stopped'
    some = tune(SERIES, SPEC, SPACE, trials=TRIALS, storage=tmp_path / 's.db', validation=80, timeout_s=14.0, clock=Running())
    assert 0 < len(some.trials) < TRIALS and some.trials == whole.trials[:len(some.trials)]


@pytest.mark.parametrize('changed', ['spec', 'space', 'rows', 'validation', 'seed', 'pruner', 'name'])
def test_another_question_is_refused_with_what_differs(changed: str, tmp_path: Path, whole: Tuned) -> None:
    asked: dict[str, Any] = {'series': SERIES, 'spec': SPEC, 'space': {'dropout': Real(0.0, 0.1)}, 'validation': 80, 'seed': 1, 'pruner': 'median'}
    with pytest.raises(Reject): tune(asked.pop('series'), **asked, trials=1, storage=tmp_path / 's.db', timeout_s=0.0)
    other: dict[str, Any] = {'series': SERIES} | asked | {'spec': {'spec': replace(SPEC, batch_size=64)}, 'space': {'space': {'dropout': Real(0.0, 0.2)}}, 'rows': {'series': {'A': {**SERIES['A'], 'y': SERIES['A']['y'] * 1.0000001}}},
                                                 'validation': {'validation': 79}, 'seed': {'seed': 2}, 'pruner': {'pruner': 'asha'}, 'name': {'series': {'B': SERIES['A']}}}[changed]
    says = {'spec': r'spec\.batch_size was 32, is 64', 'space': r'space\.dropout was', 'rows': r'series\.A was', 'name': r'series\.A was .* is None'}.get(changed, f'{changed} was')
    with pytest.raises(BadInput, match=says): tune(other.pop('series'), **other, trials=1, storage=tmp_path / 's.db', timeout_s=0.0)


def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / 's.db').write_bytes(b'price,size\n' * 400)
    with pytest.raises(BadInput, match='a file of SQLite made by a search'): tune(SERIES, SPEC, SPACE, trials=1, storage=tmp_path / 's.db', validation=80)
    assert (tmp_path / 's.db').read_bytes() == b'price,size\n' * 400


def test_nothing_is_written_for_a_question_that_can_not_be_asked(tmp_path: Path) -> None:
    for wrong, said in (({'trials': 0}, 'whole number from 1'), ({'validation': 3}, 'whole number from 4'), ({'space': {'horizon': Whole(1, 9)}}, 'another question'), ({'space': {'heads': Among((1, 2))}}, 'a choice for nhits'),
                        ({'space': {'past': Among(((), ('volume',)))}}, 'without volume'), ({'space': {'input_size': Whole(16, 400, 8)}}, '484 or more'), ({'pruner': 'best'}, 'median, asha'), ({'backend': 'dask'}, 'backend')):
        with pytest.raises(BadInput, match=said): tune(SERIES, **({'spec': SPEC, 'space': SPACE, 'trials': 1, 'validation': 80, 'storage': tmp_path / 'new' / 's.db'} | wrong))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_no_row_of_the_test_is_read() -> None:
    for purge in (True, False):
        parts = split(400, 16, 4, purge=purge)
        cut, validation = before_test(SERIES, parts)
        assert parts.valid is not None
        judged = range(len(cut['A']['y']) - validation, len(cut['A']['y']))
        assert judged == parts.valid.targets and judged.stop <= parts.test.targets.start
        assert judged.start >= parts.train.targets.stop - 4 * (not purge)


def take_all(storage: str, out: Any) -> None:
    """Takes trials until there is none left; trains nothing."""
    study = _study(Path(storage))
    with _present(Path(storage)) as mine:
        while (t := _taken(study, Path(storage), mine, 12, 1, True)) is not None:
            _settle(study, t, ('done', _proposed(t, {'dropout': Real(0.0, 1.0)})['dropout'], ''))
            out.put((mine, t.user_attrs['place']))


def test_two_processes_in_one_file_make_as_many_trials_as_were_asked_for(tmp_path: Path) -> None:
    _study(tmp_path / 's.db')
    at_once = get_context('spawn')
    out: Any = at_once.Queue()
    both = [at_once.Process(target=take_all, args=(str(tmp_path / 's.db'), out)) for _ in range(2)]
    for p in both: p.start()
    got = [out.get(timeout=60) for _ in range(12)]
    for p in both: p.join(30)
    assert [p.exitcode for p in both] == [0, 0] and out.empty()
    assert sorted(place for _, place in got) == list(range(12)) and states(tmp_path / 's.db') == ['COMPLETE'] * 12


def test_a_trial_that_takes_its_process_with_it_is_given_up_in_the_end(tmp_path: Path) -> None:
    storage, places = tmp_path / 's.db', []
    for _ in range(LIVES + 1):
        with _present(storage) as mine: places.append(_taken(_study(storage), storage, mine, 2, 1, False).user_attrs['place'])
    assert places == [0] * LIVES + [1]
    assert [t.user_attrs['place'] for t in _counted(_study(storage))[0]] == [0]


def a_choice() -> st.SearchStrategy[Choice]:
    whole_ = st.tuples(st.integers(1, 50), st.integers(1, 9), st.integers(1, 7)).map(lambda x: Whole(x[0], x[0] + x[1] * x[2], x[2]))
    real = st.tuples(st.floats(1e-6, 0.4), st.floats(0.01, 0.5), st.booleans()).map(lambda x: Real(x[0], x[0] + x[1], x[2]))
    return st.one_of(whole_, real, st.lists(st.one_of(st.integers(), st.tuples(st.integers()), st.text(max_size=3)), min_size=1, max_size=5, unique_by=repr).map(lambda v: Among(tuple(v))))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from('abcdef'), a_choice(), min_size=1), st.integers(0, 2**31))
def test_what_is_proposed_lies_in_the_space_and_follows_from_the_seed(space: dict[str, Choice], seed: int) -> None:
    def once() -> dict[str, Any]: return _proposed(optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)).ask(), space)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = once()
    assert found == once() and found.keys() == space.keys()
    for name, c in space.items():
        if isinstance(c, Among): assert found[name] in c.values
        else: assert c.low <= found[name] <= c.high and (not isinstance(c, Whole) or (found[name] - c.low) % c.step == 0)




@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from((4, 6, 8, 12, 16)), min_size=1, max_size=3, unique=True), st.lists(st.sampled_from((1, 2, 3, 4)), min_size=1, max_size=3, unique=True))
def test_a_space_is_taken_just_when_each_of_its_values_can_be_built(widths: list[int], heads: list[int]) -> None:
    base = ModelSpec(type='transformer', hidden=(16, 16), options=(('heads', 2),))
    space: dict[str, Choice] = {'hidden': Among(tuple((w, w) for w in widths)), 'heads': Among(tuple(heads))}

    def fits(w: int, h: int) -> bool: return w % (2 * h) == 0
    good = all(any(fits(w, h) for h in [*heads, 2]) for w in widths) and all(any(fits(w, h) for w in [*widths, 16]) for h in heads)
    try: check_space(base, space); assert good
    except BadInput: assert not good
    for value in ends(space['heads']):
        if fits(16, value): assert chosen(base, {'heads': value}).option('heads') == value
