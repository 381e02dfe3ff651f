"""Fixtures for every room's tests."""
import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# The conformance cards come as a plugin that is registered where gekko is installed; in a bare checkout it is named here.
pytest_plugins = [] if any(e.name == 'gekko_conformance' for e in entry_points(group='pytest11')) else ['gekko.venue.conformance.plugin']


@pytest.fixture(scope='session')
def shared_data() -> Path | None:
    """The folder of real market data, or None where it is absent: then a test makes a synthetic file of the same form.

    It lies beside the checkout as ../shared/data, or where GEKKO_TEST_DATA says.
    """
    named = os.environ.get('GEKKO_TEST_DATA')
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / 'shared' / 'data'
    return folder if (folder / 'README.md').is_file() else None
