"""The deck itself: numbers that stay, claims that are all shown, a page that is current."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from gekko.execution.broker import Capabilities
from gekko.execution.broker import Capability as C
from gekko.venue.conformance.card import NOT_NEEDED, NOT_OFFERED, NOT_STAGED, played, standing, unshown
from gekko.venue.conformance.ours import CANDIDATES, PAPER, WIRED
from gekko.venue.conformance.stage import Prop
from gekko.venue.conformance.table import CARDS, find, page
from gekko.venue.venues import VENUES

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = Capabilities('all', dict.fromkeys(C, ''))


def test_a_number_keeps_its_meaning() -> None:
    "Whoever changes, drops or adds a card says so in numbers.json; a number that is gone is never given again."
    kept: dict[str, str] = json.loads((Path(__file__).parent / 'numbers.json').read_text(encoding='utf-8'))
    assert {c.number: c.play.__name__ for c in CARDS} == {n: name for n, name in kept.items() if name}
    assert list(kept) == sorted(kept)


def test_the_page_is_current() -> None:
    "gekko venue cards --markdown > docs/conformance.md makes it so."
    assert (ROOT / 'docs/conformance.md').read_text(encoding='utf-8') == page(list(CANDIDATES.values()))


def test_every_venue_is_on_trial_with_its_own_table() -> None:
    assert {k.name for k in WIRED} == set(VENUES)
    for k in CANDIDATES.values():
        if k not in WIRED:
            with k.open() as s: assert dict(s.broker.capabilities.offers) == dict(k.capabilities.offers)
            continue
        table = import_module(f'gekko.venue.{k.name}.table')
        assert dict(k.capabilities.offers) == dict((table.CAPABILITIES if hasattr(table, 'CAPABILITIES') else table.capabilities()).offers)


@pytest.mark.parametrize('name', list(CANDIDATES))
def test_every_claim_has_its_cards(name: str) -> None:
    assert unshown(CARDS, CANDIDATES[name]) == set()


@pytest.mark.parametrize('claim', [c for c in C if c is not C.HEDGE])
def test_a_claim_without_its_cards_is_found(claim: C) -> None:
    "The check above can fail: take the cards that show a claim away, and it is missed."
    all_of_it = replace(PAPER[0], capabilities=EVERYTHING, props=dict.fromkeys(Prop, print))
    assert claim not in unshown(CARDS, all_of_it)
    assert claim in unshown([c for c in CARDS if claim not in c.shows], all_of_it)


def test_a_claim_that_has_no_card_fails() -> None:
    "Nobody offers it yet; a table that does is sent to write its card first."
    assert unshown(CARDS, replace(PAPER[0], capabilities=Capabilities('one', {C.HEDGE: 'both sides at once'}))) == {C.HEDGE}


def test_what_is_missing_decides_how_a_card_stands() -> None:
    nothing = Capabilities('nothing', {})
    assert standing(find('101'), nothing, Prop).state == NOT_OFFERED
    assert standing(find('506'), EVERYTHING, Prop).state == NOT_NEEDED
    assert standing(find('704'), EVERYTHING, ()).state == NOT_STAGED
    assert all(standing(c, EVERYTHING, Prop).played for c in CARDS if not c.lacking)


def test_every_card_is_on_trial_somewhere_and_every_prop_is_used() -> None:
    assert {c.number for c in CARDS} == {c.number for k in CANDIDATES.values() for c in played(CARDS, k)}
    assert set(Prop) == {p for c in CARDS for p in c.props}


def test_the_command_prints_the_same_table() -> None:
    done = subprocess.run([sys.executable, '-c', 'from gekko.cli.main import main; main()', 'venue', 'cards', '--json'], capture_output=True, text=True, timeout=60)
    said = json.loads(done.stdout)
    assert [r['card'] for r in said] == [c.number for c in CARDS] and set(said[0]['venues']) == set(CANDIDATES)
