"""A model fitted again as time goes on: made once, from rows that were over, the same network whatever came after."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gekko.data.bars import Bars, digest
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, iso, utc
from gekko.forecast.spec import ModelSpec
from gekko.forecast.walking import Refit, Walk, before, from_then_on, refitted

SPEC = ModelSpec(type='mlp', input_size=24, horizon=5, hidden=(8,), max_steps=6, batch_size=64, check_every_steps=3)
ROWS = 900


def market(seed: int = 2, later: float = 1.0) -> Bars:
    """Two instruments; after row 700 everything is `later` times as large."""
    close = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(seed).normal(size=(ROWS, 2)), axis=0))
    close[700:] *= later
    start = utc('2020-01-01') + DAY * np.arange(ROWS)
    return Bars(('A', 'B'), start, start + DAY, close, close, close, close, np.ones(close.shape))


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path: return tmp_path_factory.mktemp('fits')


@pytest.fixture(scope='module')
def first(folder: Path) -> Refit: return refitted(market(), SPEC, 'log_close', int(market().end[700]), folder)


def test_a_fit_is_made_once_and_says_from_what(folder: Path, first: Refit) -> None:
    bars = market()
    again = refitted(bars, SPEC, 'log_close', int(bars.end[700]), folder)
    assert not first.found and again.found and again.artefact.digest == first.artefact.digest
    known = before(bars, int(bars.end[700]))
    assert (first.artefact.lineage.until, first.artefact.lineage.data_version) == (int(known.end[-1]), digest(known)) and len(known) == 700
    assert {p.name for p in folder.iterdir()} == {p.name for p in folder.iterdir() if not p.name.startswith('.')}, 'no draft is left'


def test_what_comes_after_changes_nothing(folder: Path, first: Refit) -> None:
    other = market(later=3.0)
    assert refitted(other, SPEC, 'log_close', int(other.end[700]), folder).found      # the same rows were over by then
    sooner = refitted(other, SPEC, 'log_close', int(other.end[690]), folder)
    assert not sooner.found and sooner.artefact.digest != first.artefact.digest


def test_a_fit_that_was_spoilt_is_made_anew_and_is_the_same(folder: Path, first: Refit) -> None:
    network = first.artefact.path / 'networks' / 'batch_1.onnx'
    os.chmod(network, 0o644)
    network.write_bytes(b'nothing')
    again = refitted(market(), SPEC, 'log_close', int(market().end[700]), folder)
    assert not again.found and again.artefact.digest == first.artefact.digest


def test_too_few_rows_are_refused_before_the_library_is_loaded(tmp_path: Path) -> None:
    bars = market()
    with pytest.raises(BadInput, match='row'): refitted(bars, SPEC, 'log_close', int(bars.end[30]), tmp_path)
    with pytest.raises(BadInput, match='bars to learn from'): refitted(bars, SPEC, 'log_close', int(bars.end[0]), tmp_path)


def test_a_walk_needs_models_of_different_times(first: Refit) -> None:
    with pytest.raises(BadInput, match='one or more'): Walk([], lambda a: None)      # type: ignore[arg-type,return-value]
    with pytest.raises(BadInput, match=iso(first.since)): Walk([first, first], lambda a: None)      # type: ignore[arg-type,return-value]
    assert from_then_on(first.artefact).since == first.artefact.lineage.until + 1
