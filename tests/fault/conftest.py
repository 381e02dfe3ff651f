"""A home of its own for every test, a store with two walks, and a desk that stands in that home."""
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk_stage import at, home, settings_of, store

from gekko.desk.serve import DeskProcess, start_desk

__all__ = ['desk', 'home', 'store']


@pytest.fixture
def desk(home: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeskProcess]:
    """A desk process; `open_run` in this process finds it."""
    for name, value in (*at(home).items(), ('GEKKO_STORE', store), ('GEKKO_HEARTBEAT_S', '0.5')): monkeypatch.setenv(name, str(value))
    serving = start_desk(settings_of(home), 'standing', log=home / 'desk.log', leave_when_done=False)
    yield serving
    serving.stop()
