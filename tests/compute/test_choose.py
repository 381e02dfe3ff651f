"""Figures are kept under all they depend on, and the order follows them."""
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.compute.choose import Candidate, WorkloadProfile, choose, misses
from gekko.compute.devices import Device
from gekko.compute.measure import Latency, Measurements, measure, measured, summary
from gekko.compute.onnx import Onnx
from gekko.compute.provider import load
from gekko.domain.errors import BadInput
from gekko.domain.time import SystemClock

CLOCK = SystemClock()
ONE = Latency('onnx-cpu', 'd', 1, 'v1', 200, 400.0, 900.0)


def test_a_figure_is_for_one_thing_only(tmp_path: Path) -> None:
    store = Measurements(tmp_path / 'x.json')
    store.put(ONE)
    again = Measurements(tmp_path / 'x.json')
    key = {'provider': 'onnx-cpu', 'digest': 'd', 'batch': 1, 'made_of': 'v1'}
    assert again.get(**key) == ONE      # type: ignore[arg-type]
    for change in ({'provider': 'torch-cpu'}, {'digest': 'e'}, {'batch': 2}, {'made_of': 'v2'}): assert again.get(**(key | change)) is None     # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ['x.json']


@pytest.mark.parametrize('text', ['', '[', '{}', 'null', '[{"provider": "a"}]', '[[]]', '\x00'])
def test_a_spoilt_file_is_measured_anew(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / 'x.json').write_text(text)
    logging.getLogger('gekko.compute').setLevel(logging.INFO)
    store = Measurements(tmp_path / 'x.json')
    assert store.get('onnx-cpu', 'd', 1, 'v1') is None
    store.put(ONE)
    assert Measurements(tmp_path / 'x.json').get('onnx-cpu', 'd', 1, 'v1') == ONE


def test_the_real_model_is_measured_once(make: Any, tmp_path: Path) -> None:
    loaded, store = load(Onnx(Device('cpu')), make(batches=(1, 4)), CLOCK), Measurements(tmp_path / 'x.json')
    first = measured(store, loaded, CLOCK, 3, runs=5)
    assert (first.provider, first.digest, first.batch, first.runs) == ('onnx-cpu', loaded.network.digest, 3, 5) and 0 < first.p50_us <= first.p99_us and 'onnxruntime' in first.made_of
    loaded.release()        # a second measurement would fail
    assert measured(Measurements(tmp_path / 'x.json'), loaded, CLOCK, 3) == first
    with pytest.raises(BadInput): measure(loaded, CLOCK, 0)


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=300))
def test_percentiles_are_durations_that_occurred(ns: list[int]) -> None:
    found = summary('p', 'd', 1, '', ns)
    assert {round(found.p50_us * 1e3), round(found.p99_us * 1e3)} <= set(ns) and found.p50_us <= found.p99_us
    assert sum(x <= round(found.p99_us * 1e3) for x in ns) >= 0.99 * len(ns)


candidates = st.builds(lambda name, p50, tail, needs, state, known: Candidate(name, Latency(name, 'd', 1, '', 9, p50, p50 + tail) if known else None, needs, 100, state),
                       st.sampled_from('abcdefgh'), st.floats(1, 1e4), st.floats(0, 1e4), st.integers(0, 200), st.sampled_from(['closed', 'open', 'half-open']), st.booleans())
profiles = st.builds(WorkloadProfile, st.none() | st.floats(1, 1e4), st.none() | st.floats(1, 1e6), st.none() | st.integers(1, 200))


@given(profiles, st.lists(candidates, max_size=6, unique_by=lambda c: c.provider))
def test_the_order(profile: WorkloadProfile, given_: list[Candidate]) -> None:
    by, order = {c.provider: c for c in given_}, choose(profile, given_)
    assert {c.provider for c in order} == {c.provider for c in given_ if c.needs <= min(100, profile.memory or 100)}      # memory is kept without exception
    assert all(c.misses == misses(profile, by[c.provider]) for c in order)
    right = [c.right for c in order]
    assert right == sorted(right, reverse=True)                                                                      # those that keep every bound come first
    if profile.latency_us is not None or profile.throughput is None:
        tails = [x.p99_us for c in order if c.right and (x := by[c.provider].latency)]
        assert tails == sorted(tails)
    assert choose(profile, given_[::-1]) == order


def test_another_batch_s_figures_are_refused() -> None:
    with pytest.raises(BadInput, match='another batch'): choose(WorkloadProfile(batch=8), [Candidate('a', ONE, 1, 9)])
    assert choose(WorkloadProfile(), [Candidate('a', replace(ONE, p99_us=5), 1, 9, unhealthy='slowed by heat'), Candidate('b', ONE, 1, 9)])[0].provider == 'b'
