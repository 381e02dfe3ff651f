"Run records: whole or not at all, one end each, and what differs between two."
from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Decimal

import pytest

from gekko.domain.errors import BadInput, Halt
from gekko.domain.time import DAY, SimClock, utc
from gekko.ledger.runs import STATES, Difference, RunRecord, Runs, diff, new_run_id


@pytest.fixture
def runs(url: str) -> Runs: return Runs(url)


def record(n: int = 0, **changes: object) -> RunRecord:
    clock = SimClock(utc('2026-11-22T03:45:01') + n * DAY)
    return replace(RunRecord(new_run_id(clock, 'trend', '5d1c'), '5d1c', 'strategies/trend.ipynb', 'backtest', 'bt', created=clock.now(), params={'symbols': ['SP500'], 'cash': 1_000_000}), **changes)  # type: ignore[arg-type]


def test_ids_sort_by_time_and_name_the_strategy() -> None:
    ids = [record(n).run_id for n in range(40)]
    assert ids == sorted(ids) and ids[0] == '20261122T034501-trend-' + ids[0][-4:]
    assert new_run_id(SimClock(1), 'Pairs: Kalman v2.ipynb', 'x').startswith('19700101T000000-pairs-kalman-v2-ipynb-')


def test_what_is_put_comes_back(runs: Runs) -> None:
    full = record(commit='9e4', notebook_hash='a', lock_hash='b', data_version='c', seed=7, model_digests={'m': 'd'}, desk_epoch=3, metrics={'n': 1, 'x': 0.5, 'none': None},
                  exit_reason='é' * 2000, started=1, ended=2, executed='out.ipynb', journal_url='l.db', journal_head='e', spec={'limits': {'max_gross': '3'}, 'list': [1, {'k': 2}]})
    assert runs.put(full) == full == runs.get(full.run_id)
    assert runs.list() == [full]
    with pytest.raises(BadInput, match='taken'): runs.put(full)


def test_numbers_of_every_kind_in_metrics(runs: Runs) -> None:
    import numpy as np
    runs.put(record())
    done = runs.update(record().run_id, metrics={'equity': Decimal('1000017.20'), 'sharpe': np.float64(0.5), 'orders': np.int64(3), 'calmar': float('nan')})
    assert done.metrics == {'equity': '1000017.20', 'sharpe': 0.5, 'orders': 3, 'calmar': None} == runs.get(done.run_id).metrics


@pytest.mark.parametrize('before', STATES)
@pytest.mark.parametrize('after', STATES)
def test_states_follow_only_as_they_may(runs: Runs, before: str, after: str) -> None:
    r = runs.put(record(state=before))
    if after in (before, *STATES[before]): assert runs.update(r.run_id, state=after, exit_reason='x').state == after
    else:
        with pytest.raises(BadInput): runs.update(r.run_id, state=after, exit_reason='x')
        assert runs.get(r.run_id) == r


def test_of_many_ends_one_counts(runs: Runs) -> None:
    r = runs.put(record(state='running'))
    counted: list[str] = []
    def end(state: str) -> None:
        try: runs.update(r.run_id, state=state, exit_reason=state); counted.append(state)
        except BadInput: pass
    ts = [threading.Thread(target=end, args=(s,)) for s in ('done', 'failed', 'killed')]
    for t in ts: t.start()
    for t in ts: t.join()
    assert counted == [runs.get(r.run_id).state] == [runs.get(r.run_id).exit_reason]


def test_concurrent_changes_of_other_fields_are_all_kept(runs: Runs) -> None:
    r = runs.put(record())
    changes: list[dict[str, object]] = [{'commit': 'a'}, {'lock_hash': 'b'}, {'seed': 5}, {'journal_head': 'c'}, {'executed': 'd'}, {'metrics': {'x': 1}}]
    ts = [threading.Thread(target=runs.update, args=(r.run_id,), kwargs=c) for c in changes]
    for t in ts: t.start()
    for t in ts: t.join()
    assert runs.get(r.run_id) == replace(r, commit='a', lock_hash='b', seed=5, journal_head='c', executed='d', metrics={'x': 1})


def test_finding_by_a_part(runs: Runs) -> None:
    a, b = runs.put(record(0)), runs.put(record(1, mode='paper', state='done'))
    assert runs.get(a.run_id[-4:]) == a and runs.get('20261123') == b
    for part, said in (('trend', 'more than one'), ('%', 'no such run'), ('_', 'no such run'), ('', 'more than one')):
        with pytest.raises(BadInput, match=said): runs.get(part)
    assert runs.list() == [b, a] and runs.list(limit=1) == [b]
    assert runs.list(mode='backtest') == [a] and runs.list(state='done', mode='backtest') == []


def test_bad_changes_change_nothing(runs: Runs) -> None:
    with pytest.raises(BadInput, match='no such ledger|not a ledger'): runs.list()
    with pytest.raises(Halt): runs.update('x', state='done')
    with pytest.raises(BadInput, match='no such ledger|not a ledger'): runs.list()
    r = runs.put(record())
    for bad in ({'mood': 'good'}, {'state': 'paused'}, {'params': {'x': object()}}, {'state': 'running', 'metrics': {'x': object()}}):
        with pytest.raises(BadInput): runs.update(r.run_id, **bad)
    with pytest.raises(BadInput, match='no such run'): runs.update('nobody', state='done')
    assert runs.list() == [r]


def test_diff_names_each_input_that_differs() -> None:
    a = record(spec={'limits': {'max_gross': '3', 'collar_bps': '500'}, 'window': 300, 'run_id': 'a'}, metrics={'sharpe': 1})
    assert not diff(a, replace(a, run_id='b', metrics={'sharpe': 2}, ended=5, state='done', journal_head='x', spec={**a.spec, 'run_id': 'b'}))
    inputs = {'notebook': 'n', 'notebook_hash': 'h', 'mode': 'paper', 'commit': 'c', 'lock_hash': 'l', 'data_version': 'd', 'seed': 1}
    for name, value in inputs.items():
        assert tuple(diff(a, replace(a, **{name: value}))) == (Difference(name, getattr(a, name), value),)  # type: ignore[arg-type]
    b = replace(a, params={'symbols': ['SP500'], 'cash': 2, 'window': 3}, model_digests={'m': 'x'}, spec={'limits': {'max_gross': '2', 'collar_bps': '500'}, 'window': 300})
    assert [(d.what, d.a, d.b) for d in diff(a, b)] == [('params.cash', 1_000_000, 2), ('limits.max_gross', '3', '2'), ('params.window', None, 3), ('model_digests.m', None, 'x')]


def test_a_record_in_memory_and_in_the_table_do_not_differ(runs: Runs) -> None:
    r = record(params={'t': (1, 2), 'd': Decimal('1.50')})
    assert not diff(r, runs.put(r)) and not diff(runs.get(r.run_id), r)
