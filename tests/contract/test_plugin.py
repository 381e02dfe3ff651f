"""Somebody else's adapter on trial, as they would do it: pytest in a process of its own, with nothing but the plugin."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_venue import BUGS, TABLE, candidate

from gekko.venue.conformance.card import played
from gekko.venue.conformance.table import CARDS

PLUGIN = ['-p', 'gekko.venue.conformance.plugin']     # by module, so that it is found where nothing is installed, too
ALONE = {**os.environ, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}
FOUND: dict[str, set[str]] = {
    'resends': {'X701', 'claims'}, 'cancels the dead': {'X302', 'X305'}, 'pays the limit': {'X105', 'X106'}, 'rounds sizes': {'X502'}, 'cursor included': {'X709'},
    'forgets the fee': {'X806', 'X901', 'claims'}, 'mixes up names': {'X804', 'X806'}, 'one symbol for all': {'X805'}, 'tells twice': {'X601', 'X605', 'X709'}}
"What is wrong, and the cards that say so: no more and no fewer."


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, '-m', 'pytest', *PLUGIN, '-p', 'no:cacheprovider', '--color=no', '--rootdir', str(folder), *args]
    return subprocess.run(words, cwd=folder, env=ALONE, capture_output=True, text=True, timeout=120)


def outcomes(report: Path) -> dict[str, dict[str, str]]:
    "By venue and card: passed, failed, or why it was not played."
    out: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(report).getroot().iter('testcase'):
        left, failed = case.find('skipped'), case.find('failure')
        said = 'failed' if failed is not None else (left.get('message') or '').split(':')[0] if left is not None else 'passed'
        out.setdefault(case.get('classname', '').split('.')[-1], {})[case.get('name', '')] = said
    return out


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('theirs')
    shutil.copy(Path(__file__).parent / 'tiny_venue.py', folder)
    (folder / 'pytest.ini').write_text('[pytest]\n')
    return folder


@pytest.fixture(scope='module')
def everyone(folder: Path) -> tuple[dict[str, dict[str, str]], str]:
    done = run(folder, '--gekko-stage', 'tiny_venue:EVERYONE', '--junitxml', 'everyone.xml', '-q')
    assert done.returncode == 1, done.stdout + done.stderr
    return outcomes(folder / 'everyone.xml'), done.stdout


def test_a_sound_venue_passes_every_card_that_its_table_claims(everyone: tuple[dict[str, dict[str, str]], str]) -> None:
    said = everyone[0]['tiny']
    mine = {c.number for c in played(CARDS, candidate())}
    assert {n for n, how in said.items() if how == 'passed'} == mine | {'claims'} and len(mine) > 30


def test_what_is_not_offered_is_reported_and_is_no_pass(everyone: tuple[dict[str, dict[str, str]], str]) -> None:
    said = everyone[0]['tiny']
    assert (said['X107'], said['X704'], said['X410'], said['X903']) == ('not offered', 'not staged', 'not offered', 'not offered')
    assert set(said.values()) == {'passed', 'not offered', 'not staged', 'not called for'}
    assert ' not offered, ' in everyone[1] and ' not staged' in everyone[1] and 'skipped' not in everyone[1]


@pytest.mark.parametrize('bug', BUGS)
def test_what_is_broken_is_found_by_its_cards(bug: str, everyone: tuple[dict[str, dict[str, str]], str]) -> None:
    assert {n for n, how in everyone[0][bug.replace(' ', '-')].items() if how == 'failed'} == FOUND[bug]


def test_a_claim_without_a_card_fails(everyone: tuple[dict[str, dict[str, str]], str]) -> None:
    said, out = everyone
    assert {n for n, how in said['boaster'].items() if how == 'failed'} == {'claims'}
    assert 'boaster claims what it has not shown: long and short at once (no card shows it here)' in out


def test_a_failure_tells_the_card(everyone: tuple[dict[str, dict[str, str]], str]) -> None:
    assert 'X105 A limit above the market pays the market\n  done: Buy at 105 or better while the market asks 100.\n  expected: Filled at 100, not at 105.' in everyone[1]


def test_a_candidate_in_a_test_module_gets_its_cards_beside_other_tests(folder: Path) -> None:
    (folder / 'test_mine.py').write_text('from tiny_venue import SOUND as mine\n\ndef test_price(gekko_stage):\n    assert gekko_stage.price == 100\n')
    done = run(folder, '-v', 'test_mine.py', '-k', 'price or X101 or X107')
    assert 'test_mine.py::tiny::X101 PASSED' in done.stdout and 'test_mine.py::tiny::X107 NOT OFFERED' in done.stdout and 'test_mine.py::test_price PASSED' in done.stdout
    assert done.returncode == 0, done.stdout


def test_the_command_line_alone_runs_the_cards_alone(folder: Path) -> None:
    (folder / 'test_other.py').write_text('def test_other(): raise AssertionError\n')
    done = run(folder, '-v', '--gekko-stage', 'tiny_venue:SOUND', '-k', 'X101')
    assert 'tiny::X101 PASSED' in done.stdout and 'test_other' not in done.stdout and done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(('spec', 'said'), [('tiny_venue', 'expected MODULE:NAME'), ('tiny_venue:NOBODY', 'NOBODY'), ('nowhere:X', 'nowhere'), ('tiny_venue:TABLE', 'expected a Candidate')])
def test_a_stage_that_cannot_be_found_is_named(folder: Path, spec: str, said: str) -> None:
    done = run(folder, '--gekko-stage', spec)
    assert done.returncode == 4 and said in done.stdout + done.stderr and 'Traceback' not in done.stderr


def test_who_does_not_ask_sees_nothing_and_loads_nothing(folder: Path) -> None:
    (folder / 'test_theirs.py').write_text(
        'import sys\nCandidate = type("Candidate", (), {})()\n\ndef test_nothing():\n'
        '    loaded = {m for m in sys.modules if m.startswith("gekko")}\n'
        '    assert loaded == {"gekko", "gekko.venue", "gekko.venue.conformance", "gekko.venue.conformance.plugin"}, loaded\n')
    done = run(folder, '-v', 'test_theirs.py')
    assert 'test_theirs.py::test_nothing PASSED' in done.stdout and 'not offered' not in done.stdout and done.returncode == 0, done.stdout


def test_the_entry_point_is_registered() -> None:
    setup = (Path(__file__).resolve().parents[2] / 'settings.ini').read_text(encoding='utf-8')
    assert 'gekko_conformance=gekko.venue.conformance.plugin' in setup
    assert len(TABLE.offers) == 11
