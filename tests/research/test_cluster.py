"""The claim: a sweep over a cluster of two nodes finds what one process finds, to the last bit, and neither a node, nor a worker, nor the driver that is killed costs or doubles an outcome."""
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from gekko.domain.errors import BadInput
from gekko.forecast.rays import joined
from gekko.jobs.parameters import notebook_hash
from gekko.jobs.ray_nodes import Nodes, ray_nodes, switched_off
from gekko.jobs.sweep_runs import AsRuns, of_sweep, settings_of
from gekko.research import cluster
from gekko.research.cluster import OnRay
from gekko.research.installed import installed
from gekko.research.sweep import Here, Outcome, Plan, Task, Tasks, alike
from gekko.research.sweep_log import begin_log, carry_out
from gekko.research.trials import Trials, trials_url

SOURCE = '''import os, time
from pathlib import Path
from gekko.api import open_run, rolling_mean, trade

def held_up():
    """The later combinations wait for the gate, so that whoever has them is killed with them."""
    Path(gate, f'{os.getpid()}-{os.getppid()}').touch()
    while fast >= late and not Path(gate, 'open').exists(): time.sleep(0.02)
    if fast == deadly: os.kill(os.getpid(), 9)

def weights(bars):
    held_up()
    return (rolling_mean(bars.close, fast) > rolling_mean(bars.close, slow)) * 0.9

result = trade(open_run('KO', start='2015-01-01', window=slow, cash=100_000), weights)'''


def planned(home: Path, **params: Any) -> Plan:
    """A sweep of two averages on daily bars."""
    gate = home / 'gate'
    gate.mkdir()
    given = {'fast': 5, 'slow': 100, 'late': 10_000, 'deadly': 0, 'gate': str(gate)} | params
    cells: list[dict[str, Any]] = [{'cell_type': 'code', 'id': f'c{k}', 'metadata': {'tags': tags}, 'execution_count': None, 'outputs': [], 'source': text}
             for k, (text, tags) in enumerate([('\n'.join(f'{k} = {v!r}' for k, v in given.items()), ['parameters']), (SOURCE, [])])]
    nb = {'cells': cells, 'metadata': {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}}, 'nbformat': 4, 'nbformat_minor': 5}
    (home / 'cross.ipynb').write_text(json.dumps(nb))
    return Plan('sweep-1', str(home / 'cross.ipynb'), json.dumps(nb), notebook_hash(nb), given, {}, ('fast', 'slow'), str(home), str(home / 'store'), made=1)


def trials_of(plan: Plan) -> Trials: return Trials(trials_url(settings_of(plan).ledger))


def same_as_here(plan: Plan, tasks: Tasks | list[Task], found: list[Outcome]) -> None:
    """Each task told once, each as this process tells it."""
    here = list[Outcome]()
    Path(plan.params['gate'], 'open').touch()
    Here().run(plan, tasks, here.append)
    found = sorted(found, key=lambda o: o.number)
    assert len(here) == len(found) == len(tasks)
    assert all(map(alike, here, found))
    assert all(o.column is not None and o.column.fills > 0 and o.column.how == 'fast' for o in here)


def waited(until: Callable[[], Any]) -> None:
    """For something that must come, however slow the machine."""
    late = time.monotonic() + 240
    while not until():
        assert time.monotonic() < late, 'nothing came'
        time.sleep(0.02)


@pytest.fixture(scope='module')
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv('HOME', str(tmp_path_factory.mktemp('home')))
        changed.setenv('GEKKO_KERNEL', 'cold')      # a home of its own would get a loading process of its own
        with ray_nodes([1, 1], client=True) as made: yield made
        assert not Path.home().joinpath('.ray').exists(), 'Ray wrote into the home folder'


DRIVER = '''
import sys
from pathlib import Path
from gekko.research.cluster import OnRay
from gekko.research.sweep_log import SweepLog, carry_out
from gekko.research.trials import Trials
log = SweepLog(Path(sys.argv[1]), 'sweep-1')
with log: carry_out(log, log.plan, OnRay(sys.argv[2]), Trials(sys.argv[3]))
'''


@pytest.fixture(scope='class')
def inside(nodes: Nodes) -> Iterator[str]:
    """A connection that the sweeps of a class share, and with it the processes on the nodes, which have everything imported by the second sweep: the address."""
    with joined(nodes.address): yield nodes.address


class TestFromOneOfItsMachines:
    def test_other_code_on_the_cluster_is_refused(self, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cluster, 'installed', lambda: replace(installed(), libraries='of yesterday'))
        with pytest.raises(BadInput, match='instead of of yesterday'): OnRay(inside).run(planned(tmp_path), Tasks({'fast': [5, 6], 'slow': [100]}), lambda o: None)

    def test_the_driver_is_killed_and_the_sweep_goes_on(self, nodes: Nodes, inside: str, tmp_path: Path) -> None:
        plan, tasks = planned(tmp_path, late=20), Tasks({'fast': range(5, 35), 'slow': range(100, 110)})
        log, gate = begin_log(tmp_path, plan, tasks), Path(plan.params['gate'])
        driver = subprocess.Popen([sys.executable, '-c', DRIVER, str(tmp_path), nodes.address, trials_of(plan).url], start_new_session=True)
        waited(lambda: len(log.lines()) >= 2 or driver.poll() is not None)
        assert driver.poll() is None, 'it is held up at the gate'
        switched_off(driver.pid)
        driver.wait()
        before = len(log.lines())
        (gate / 'open').touch()
        with log: carry_out(log, plan, OnRay(inside), trials_of(plan))
        assert before < len(tasks) == (tmp_path / 'sweeps/sweep-1/outcomes').read_bytes().count(b'\n') == len(log.lines())
        assert len(trials_of(plan).of('cross')) == len(tasks)

    def test_a_node_is_killed_half_way(self, nodes: Nodes, inside: str, tmp_path: Path) -> None:
        plan, tasks, found, killed = planned(tmp_path, late=20), Tasks({'fast': range(5, 35), 'slow': range(100, 110)}), list[Outcome](), list[int]()
        log, gate = begin_log(tmp_path, plan, tasks), Path(plan.params['gate'])

        class Killing(OnRay):
            """The same executor; when 60 are told a node is switched off, and then the gate opens."""
            def run(self, plan: Plan, tasks: Any, done: Callable[[Outcome], None]) -> None:
                def told(o: Outcome) -> None:
                    found.append(o)
                    done(o)
                    if len(found) == 60:
                        killed.append(nodes.kill(1))
                        (gate / 'open').touch()
                super().run(plan, tasks, told)
        with log: assert carry_out(log, plan, Killing(inside), trials_of(plan)) == len(tasks), 'each trial was new once'
        assert killed[0] >= 2, 'a raylet and its workers'
        same_as_here(plan, tasks, found)
        assert (tmp_path / 'sweeps/sweep-1/outcomes').read_bytes().count(b'\n') == len(tasks) == len(trials_of(plan).of('cross'))


def test_a_client_from_outside_and_a_combination_that_kills_its_process(nodes: Nodes, tmp_path: Path) -> None:
    """The head alone is left by now."""
    plan, found = planned(tmp_path, deadly=8), list[Outcome]()
    tasks = Tasks({'fast': range(5, 15), 'slow': [100]})
    OnRay(nodes.client).run(plan, tasks, found.append)
    deadly = [o for o in found if o.number == 3]
    assert [o.error.partition(':')[0] for o in deadly] == ['its process died 3 times']
    same_as_here(plan, [t for t in tasks if t.number != 3], [o for o in found if o.number != 3])


def test_runs_are_made_once_and_a_killed_one_is_accounted_for(tmp_path: Path) -> None:
    plan, tasks, found = planned(tmp_path, late=6), Tasks({'fast': range(5, 8), 'slow': [100]}), list[Outcome]()
    gate, ledger = Path(plan.params['gate']), settings_of(plan).ledger

    def kill() -> None:
        """One of the two workers, while the notebooks of both stand at the gate."""
        waited(lambda: len(list(gate.glob('*-*'))) == 3)
        workers = [p.pid for p in psutil.Process().children() if any('gekko.research.processes' in word for word in p.cmdline())]
        killed.append(switched_off(workers[0]))
        (gate / 'open').touch()
    killed = list[int]()
    killer = threading.Thread(target=kill)
    killer.start()
    AsRuns(2).run(plan, tasks, found.append)
    killer.join()
    states = sorted((r.spec['run']['task'], r.state) for r in of_sweep(ledger, 'sweep-1'))
    assert killed[0] and [s for _, s in states].count('killed') == 1 and [t for t, s in states if s == 'done'] == [0, 1, 2]
    assert sorted(o.number for o in found) == [0, 1, 2] and not any(o.error for o in found)
    assert len(trials_of(plan).of('cross')) == 3 == len({o.trial.key for o in found if o.trial})
    again = list[Outcome]()
    AsRuns(2).run(plan, tasks, again.append)
    assert sorted(again) == sorted(found) and len(of_sweep(ledger, 'sweep-1')) == 4, 'nothing is made a second time'
    compiled = list[Outcome]()
    Here().run(plan, tasks, compiled.append)
    for run, column in zip(sorted(found), compiled, strict=True):
        assert run.column and column.column and run.trial and column.trial
        assert (run.column.final, run.column.fills, run.trial.key) == (column.column.final, column.column.fills, column.trial.key), 'the compiled sweep says the same, and its trial is the same one'
        assert list(run.column[1:-1]) == pytest.approx(list(column.column[1:-1]))
