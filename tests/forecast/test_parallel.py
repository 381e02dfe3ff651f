"""The claim: however many workers share a training, the network is the one that a single process trains; and no worker outlives whoever waits for it."""
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Retry
from gekko.forecast.network import Columns, fit, scaling
from gekko.forecast.parallel import WAYS, WORTH_S, _seconds, card, expected_s, fit_parallel, pack, shares, unpack, way, weight
from gekko.forecast.spec import ModelSpec, Scaling, digest

RNG = np.random.default_rng(11)


def series(rows: int) -> dict[str, Columns]:
    return {n: {'y': k * RNG.standard_normal(m).cumsum(), 'volume': RNG.lognormal(1, 1, m), 'hour': np.arange(m) % 24.0} for n, k, m in (('BTC', 400.0, rows), ('ETH', 20.0, rows - 37), ('SHIB', 1e-6, rows))}


SERIES = series(200)
SPEC = ModelSpec(type='nhits', input_size=16, horizon=4, hidden=(8, 8), max_steps=20, batch_size=33, check_every_steps=4, patience=9, past=('volume',), future=('hour',), loss='quantiles', quantiles=(0.1, 0.5, 0.9))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 500), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_the_mean_over_workers_is_the_mean_over_the_batch(batch: int, workers: int, seed: int) -> None:
    """Whatever the shares, and however many values of each window are judged."""
    if workers > batch:
        with pytest.raises(BadInput, match='a window of the batch'): shares(batch, workers)
        return
    assert sum(shares(batch, workers)) == batch and max(shares(batch, workers)) - min(shares(batch, workers)) <= 1
    rng = np.random.default_rng(seed)
    losses, judged = rng.lognormal(size=batch), rng.integers(1, 25, size=batch)
    parts = [(float(np.average(losses[r::workers], weights=judged[r::workers])), float(judged[r::workers].sum())) for r in range(workers)]
    averaged = np.mean([loss * weight(own, float(judged.sum()), workers) for loss, own in parts])
    assert averaged == pytest.approx(np.average(losses, weights=judged), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=12), st.integers(25, 60), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
def test_a_training_survives_its_way_to_a_worker(lengths: dict[str, int], seed: int, mean: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    given_: dict[str, Columns] = {n: {'y': rng.standard_normal(k), 'hour': rng.standard_normal(k)} for n, k in lengths.items()}
    spec = ModelSpec(input_size=16, horizon=4, future=('hour',), learning_rate=float(rng.uniform(1e-6, 0.5)))
    back = unpack(pack(spec, given_, Scaling((('y', mean, scale),)), 0, 2, 'cpu', 1, 9.0))
    assert digest(back['spec']) == digest(spec) and back['scaling'].of('y') == (mean, scale) and list(back['series']) == list(given_)
    assert all(np.array_equal(back['series'][n][k], v) for n, s in given_.items() for k, v in s.items())


def test_what_can_not_be_trained_is_refused_before_a_process_starts() -> None:
    for wrong, said in (({'how': 'mpi'}, 'way to train'), ({'workers': 0}, 'whole number from 1'), ({'workers': 34}, '1 to 33'), ({'device': 'mps'}, 'cpu or gpu'), ({'validation': 2}, 'to stop early by'), ({'validation': 190}, '210 or more, found 200')):
        with pytest.raises(BadInput, match=said): fit_parallel(SPEC, SERIES, **({'validation': 40, 'how': 'ddp'} | wrong))  # type: ignore[arg-type]
    assert children() == []


def test_cards_are_shared_out_one_to_a_worker() -> None:
    """Two cards can't be had here: the choice and what each worker is let to see are all that is shown."""
    assert [way('auto', n, 'gpu', 2) for n in (1, 2, 3)] == ['single', 'ddp', 'single']
    assert [way(h, 2, 'cpu', 4) for h in WAYS] == ['single', 'single', 'ddp', 'ray']
    assert [card(r, None) for r in range(2)] == ['0', '1'] and [card(r, '2, 5') for r in range(2)] == ['2', '5']
    with pytest.raises(BadInput, match='2 cards at most'): way('ddp', 3, 'gpu', 2)


def test_auto_shares_what_takes_minutes() -> None:
    large = ModelSpec(type='nhits', input_size=96, horizon=24, hidden=(1024, 1024), batch_size=1024, max_steps=5000)
    assert expected_s(10, 10, 10) < 1 < WORTH_S <= expected_s(2_000_000, 1024, 5000)
    assert [way('auto', 2, 'cpu', 4, _seconds(s, SERIES, 40)) for s in (SPEC, large)] == ['single', 'ddp']
    assert way('auto', 2, 'mps', 1, 1e9) == 'single'


def test_two_uneven_workers_train_the_network_of_one() -> None:
    """A batch of 33 windows by two workers is 17 and 16, at the end of a series fewer values are judged, and validation is shared too."""
    scaled = scaling(SPEC, SERIES)
    shared, alone = fit_parallel(SPEC, SERIES, scaled, 40, workers=2, how='ddp', timeout_s=200), fit(SPEC, SERIES, scaled, 40)
    assert shared.steps == alone.steps == 20
    assert max(float((a - b).abs().max()) for a, b in zip(shared.model.state_dict().values(), alone.model.state_dict().values(), strict=True)) < 1e-4
    for (step, ours), (there, theirs) in zip(shared.model.valid_trajectories, alone.model.valid_trajectories, strict=True): assert step == there and ours == pytest.approx(theirs, rel=1e-4)
    untrained = fit(ModelSpec(**{f: getattr(SPEC, f) for f in SPEC.__slots__} | {'max_steps': 1}), SERIES, scaled, 40)
    assert max(float((a - b).abs().max()) for a, b in zip(shared.model.state_dict().values(), untrained.model.state_dict().values(), strict=True)) > 1e-2, 'nothing was trained, so nothing was compared'


def children() -> list[Any]:
    return [p for p in psutil.Process().children(recursive=True) if 'gekko.forecast.parallel' in ' '.join(p.cmdline())]


def until(true: Any, seconds: float = 60) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late, 'it did not come about'
        time.sleep(0.02)


LONG = ModelSpec(input_size=16, horizon=4, hidden=(8,), max_steps=10_000_000, batch_size=32)


def test_a_worker_that_is_killed_ends_the_training_and_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    ended: list[BaseException] = []

    def train() -> None:
        try: fit_parallel(LONG, series(200), workers=2, how='ddp', timeout_s=120)
        except BaseException as e: ended.append(e)
    waiting = threading.Thread(target=train)
    waiting.start()
    until(lambda: len(children()) == 2)
    workers = children()
    until(lambda: all(any(c.status == psutil.CONN_ESTABLISHED for c in p.net_connections('tcp')) for p in workers))      # they exchange gradients
    time.sleep(0.5)
    next(p for p in workers if p.cmdline()[-1] == '1').kill()
    waiting.join(30)
    assert isinstance(ended[0], Retry) and 'worker 1 of 2 ended in the middle of the training' in str(ended[0]) and 'killed by signal 9' in str(ended[0]), ended
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in workers)
    assert list(tmp_path.iterdir()) == [], 'its files are gone too'


WAIT = '''
import sys, numpy as np
from gekko.forecast.parallel import fit_parallel
from gekko.forecast.spec import ModelSpec
fit_parallel(ModelSpec(input_size=16, horizon=4, hidden=(8,), max_steps=10_000_000, batch_size=32), {'A': {'y': np.arange(99.0)}}, workers=2, how='ddp')
'''


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL], ids=['Ctrl-C', 'kill -9'])
def test_no_worker_outlives_the_one_who_waits(how: signal.Signals) -> None:
    starter = subprocess.Popen([sys.executable, '-c', WAIT], stderr=subprocess.PIPE, env=os.environ | {'PYTHONWARNINGS': 'ignore'})
    here = psutil.Process(starter.pid)
    until(lambda: len(here.children()) == 2)
    workers = here.children()
    time.sleep(0.5)
    starter.send_signal(how)
    said = starter.communicate(timeout=30)[1].decode()
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in workers), 20)
    assert how == signal.SIGKILL or 'KeyboardInterrupt' in said


def test_a_training_that_takes_too_long_is_ended() -> None:
    with pytest.raises(Retry, match='took too long: expected 0.5 s at most'): fit_parallel(LONG, series(200), workers=2, how='ddp', timeout_s=0.5)
    assert children() == []
