"""The claim: on a Ray cluster of two nodes the same training and the same search run as on this machine, and nothing is left in the home folder."""
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gekko.domain.errors import BadInput, Retry
from gekko.forecast.network import Columns, fit
from gekko.forecast.parallel import Seat, by_ray, fit_parallel, pack
from gekko.forecast.rays import local, private, room
from gekko.forecast.spec import ModelSpec, Scaling
from gekko.forecast.tuning import Among, Log, tune

RNG = np.random.default_rng(3)
SERIES: dict[str, Columns] = {'A': {'y': RNG.standard_normal(240).cumsum() / 10}, 'B': {'y': RNG.standard_normal(200).cumsum()}}
SPEC = ModelSpec(type='nhits', input_size=16, horizon=4, hidden=(8, 8), max_steps=12, batch_size=33, check_every_steps=4)


@pytest.fixture(scope='module')
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each: the second joins as a machine of its own would, by `ray start`. HOME is a folder of the test's."""
    with pytest.MonkeyPatch.context() as changed, tempfile.TemporaryDirectory(prefix='gk-', ignore_cleanup_errors=True) as at:
        home = Path(at, 'home')
        home.mkdir()
        changed.setenv('HOME', str(home))
        for name, value in private().items(): changed.setenv(name, value)
        with local(1, Path(at, 'a')) as ray:
            second = subprocess.Popen([str(Path(sys.executable).parent / 'ray'), 'start', '--address', ray.get_runtime_context().gcs_address, '--num-cpus=1', '--object-store-memory=80000000', '--block'],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                late = time.monotonic() + 90
                while sum(n['Alive'] for n in ray.nodes()) < 2:
                    assert time.monotonic() < late and second.poll() is None, 'the second node did not join'
                    time.sleep(0.2)
                yield ray
            finally:
                second.terminate()
                second.wait(30)
        assert not (home / '.ray').exists(), 'Ray wrote into the home folder'      # matplotlib keeps its fonts there, by its own right


def test_two_nodes_train_the_network_that_one_process_trains(cluster: Any) -> None:
    shared = fit_parallel(SPEC, SERIES, validation=40, workers=2, how='ray', timeout_s=200)
    alone = fit(SPEC, SERIES, validation=40)
    assert shared.steps == alone.steps == 12
    assert max(float((a - b).abs().max()) for a, b in zip(shared.model.state_dict().values(), alone.model.state_dict().values(), strict=True)) < 1e-5
    assert [s for s, _ in shared.model.valid_trajectories] == [s for s, _ in alone.model.valid_trajectories]


def test_seats_are_spread_over_the_nodes(cluster: Any) -> None:
    group = cluster.util.placement_group([{'CPU': 1}] * 2, strategy='SPREAD')
    assert group.wait(60)
    seats = [cluster.remote(Seat).options(num_cpus=1, scheduling_strategy=cluster.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, i)).remote() for i in range(2)]
    assert len(set(cluster.get([s.node.remote() for s in seats]))) == 2
    cluster.util.remove_placement_group(group)


def test_trials_side_by_side_go_into_the_same_file(cluster: Any, tmp_path: Path) -> None:
    space, told = {'learning_rate': Log(1e-4, 1e-1), 'hidden': Among(((8, 8), (16, 16)))}, list[tuple[str, float]]()
    on_ray = tune(SERIES, SPEC, space, trials=4, storage=tmp_path / 's.db', validation=40, backend='ray', workers=2, tell=lambda *said: told.append(said))
    assert [t.place for t in on_ray.trials] == [0, 1, 2, 3] and told[-1][1] == 1.0
    assert all(t.losses for t in on_ray.trials if t.state != 'failed')
    here = tune(SERIES, SPEC, space, trials=5, storage=tmp_path / 's.db', validation=40)
    assert here.trials[:4] == on_ray.trials and len(here.trials) == 5
    done = next(t for t in on_ray.trials if t.state == 'done')
    again = tune(SERIES, SPEC, {n: Among((v,)) for n, v in done.values}, trials=1, storage=tmp_path / 'again.db', validation=40)
    assert again.value == pytest.approx(done.value, rel=1e-6), 'a task judges as this process does'


def test_no_room_on_the_cluster_is_said(cluster: Any) -> None:
    with pytest.raises(Retry, match='no room on the cluster'): by_ray(pack(SPEC, SERIES, Scaling(), 40, 3, 'cpu', 1, 2.0))


def test_a_path_too_long_for_sockets_is_refused() -> None:
    with pytest.raises(BadInput, match='for its sockets'): room(Path('/' + 'x' * 60))
    assert os.environ.get('RAY_USAGE_STATS_ENABLED', '0') == '0'
