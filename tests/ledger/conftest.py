"""A new ledger for every test, on each of the two databases."""
from __future__ import annotations

from pathlib import Path

import pytest
from server_stage import Server, shared


@pytest.fixture(scope='session')
def server() -> Server:
    """The PostgreSQL of this process's tests. Whoever stops it starts it again."""
    return shared()


@pytest.fixture(params=[pytest.param('sqlite', marks=pytest.mark.sqlite), 'postgres'])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be made; there is none yet."""
    return str(tmp_path / 'l.db') if request.param == 'sqlite' else shared().url()
