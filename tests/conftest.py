"""Fixtures for every room's tests, and the choice of a database for their ledgers."""
import os
import signal
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

# A shell starts what it puts in the background with Ctrl-C ignored, and every process from there inherits that; the tests interrupt kernels.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)

# The conformance cards come as a plugin that is registered where gekko is installed; in a bare checkout it is named here.
pytest_plugins = [] if any(e.name == 'gekko_conformance' for e in entry_points(group='pytest11')) else ['gekko.venue.conformance.plugin']

# With GEKKO_TEST_LEDGER=postgres every home's ledger lies on a PostgreSQL of the tests' own (tests/flow/desk_stage.py). Without it, in a file.
ON_SERVER = os.environ.get('GEKKO_TEST_LEDGER') == 'postgres'
CHOSEN_BY_THE_TEST = Path(__file__).parent / 'ledger'      # each is given a database, or both, whatever the environment says


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is about SQLite's own file has no meaning on a server; tests/repo/test_databases.py lists it all."""
    if not ON_SERVER: return
    about_files = [i for i in items if i.get_closest_marker('sqlite')]
    config.hook.pytest_deselected(items=about_files)
    items[:] = [i for i in items if i not in about_files]


@pytest.fixture(scope='module', autouse=True)
def no_ledger_in_a_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """On the server nothing may have been written to a file instead: such a test would prove nothing. A backtest's own journal is no ledger."""
    def files() -> set[str]: return {str(p) for p in tmp_path_factory.getbasetemp().rglob('*.db') if p.name != 'journal.db'} if ON_SERVER else set()
    before = files()
    yield
    found = files() - before if CHOSEN_BY_THE_TEST not in request.path.parents else set()
    assert not found, f'ledgers in files, while PostgreSQL was asked for: {sorted(found)}'


@pytest.fixture(scope='session')
def shared_data() -> Path | None:
    """The folder of real market data, or None where it is absent: then a test makes a synthetic file of the same form.

    It lies beside the checkout as ../shared/data, or where GEKKO_TEST_DATA says.
    """
    named = os.environ.get('GEKKO_TEST_DATA')
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / 'shared' / 'data'
    return folder if (folder / 'README.md').is_file() else None


FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--font-render-hinting=none']


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    """A real headless Chromium, one for each file of tests."""
    from playwright.sync_api import sync_playwright

    from gekko.cli.doctor import find_chromium
    path = find_chromium(os.environ)
    assert path, 'no Chromium: scripts/chromium.sh installs one'
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)
        yield b
        b.close()


class NotRun(Exception):
    """This machine can't carry out the check. It is counted and listed with its reason, and never among what passed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A check that was not run is told apart from one that failed."""
    report = yield
    if call.excinfo is not None and call.excinfo.errisinstance(NotRun):
        report.outcome, report.not_run = 'skipped', str(call.excinfo.value)
        report.longrepr = (str(item.path), 0, f'not run: {report.not_run}')
    return report


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Its place in the counts."""
    return ('not run', 'n', 'NOT RUN') if getattr(report, 'not_run', '') else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The list of what was not run, and why."""
    if not (missing := terminalreporter.stats.get('not run', [])): return
    terminalreporter.section(f'{len(missing)} not run on this machine')
    for report in missing: terminalreporter.write_line(f'NOT RUN {report.nodeid}: {report.not_run}')


@pytest.fixture(scope='session')
def card() -> Any:
    """The first NVIDIA card that can be used; without one the test is not run, for the reason that the probe gives."""
    from gekko.compute.devices import probe_cuda
    found = probe_cuda()
    if (usable := next((d for d in found if d.usable), None)) is None: raise NotRun(found[0].why_not)
    return usable


@pytest.fixture(scope='session')
def onnx_card(card: Any) -> Any:
    """A card for which this build of ONNX Runtime has an engine."""
    from gekko.compute.onnx import ENGINES, runtime
    if ENGINES['cuda'] not in runtime().get_available_providers(): raise NotRun(f'this build of ONNX Runtime has no {ENGINES["cuda"]}')
    return card


@pytest.fixture(scope='session')
def metal() -> Any:
    """Metal on Apple silicon."""
    from gekko.compute.devices import probe_mps
    found = probe_mps()[0]
    if not found.usable: raise NotRun(found.why_not)
    return found
