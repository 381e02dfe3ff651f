"""`gekko venue check` at addresses of every kind: sandboxes, a stand-in with documented examples, a page, silence, and nobody."""
from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from desk_stage import settings_of, at_once, gekko
from stand_in import stand_in

from gekko.cli.show import as_json
from gekko.cli.venue import check_address, shown_check
from gekko.execution.broker import Capability
from gekko.venue.sandbox.serve import sandbox
from gekko.venue.trial import OUTCOMES
from gekko.venue.venues import VENUES
from gekko.venue.wire.secret import save_access

MOCKED = ('binanceus', 'coinbase')
WORKING = ('accepted', 'partly_filled')


def command(home: Path, *words: str) -> tuple[int, dict[str, Any], str]:
    "The command itself, to its end."
    done = gekko(home, 'venue', 'check', *words, '--json', cwd=home)
    assert done.stdout.count('\n') == 1, (done.stdout, done.stderr)
    return done.returncode, json.loads(done.stdout), done.stderr


def check(home: Path, venue: str, rest: str = '', ws: str = '', card: Path | None = None, patience_s: float = 5.0) -> dict[str, Any]:
    "What the command prints, without a process of its own; as JSON, since that is how it is read."
    settings = settings_of(home)
    said: dict[str, Any] = json.loads(as_json(check_address(settings, venue, rest, ws, card, patience_s=patience_s)))
    assert shown_check(said).count('\n') >= len(said['capabilities'])
    return said


def rows(said: dict[str, Any]) -> dict[str, dict[str, Any]]: return {r['name']: r for r in said['capabilities']}


def whole(said: dict[str, Any]) -> None:
    "Every line of the table has its outcome, and nothing is left behind."
    found = rows(said)
    assert len(found) == len(said['capabilities']) and {c.name for c in Capability} - set(found) <= {'FINANCING'}
    assert all(r['call'] in OUTCOMES and r['effect'] in ('', 'proved', 'contradicted') and r['ms'] >= 0 for r in found.values())
    assert all(r['detail'] for r in found.values() if r['call'] != 'ok') and said['left_working'] == []


@pytest.fixture(params=VENUES)
def box(request: pytest.FixtureRequest) -> Iterator[Any]:
    symbol = 'EUR-USD' if request.param == 'oanda' else 'BTC-USD'
    with sandbox(request.param, market='synthetic', symbols=(symbol,), rate=100.0) as it: yield it


def works(box: Any) -> list[Any]: return box.call(lambda: [w for w in box.exchange.works.values() if w.account])  # type: ignore[no-any-return]


def test_a_sandbox_passes_whole(box: Any, tmp_path: Path) -> None:
    card = tmp_path / 'card.json'
    card.write_text(json.dumps(box.card))
    code, said, err = command(tmp_path, box.card['venue'], '--card', str(card))
    whole(said)
    assert (code, said['ok'], said['keys'], err) == (0, True, 'the card', ''), [r for r in said['capabilities'] if not r['ok']]
    assert {r['call'] for r in said['capabilities']} <= {'ok', 'not offered'} and said['contradicted'] == 0
    assert not [w for w in works(box) if w.state.value in WORKING]
    assert box.card['key'] not in json.dumps(said) and 'BEGIN' not in json.dumps(said)


def test_parts_are_proved_only_by_an_order_that_traded_in_parts(tmp_path: Path) -> None:
    def play(venue: str, faults: list[dict[str, Any]], effect: str, says: str) -> None:
        home = tmp_path / f'{venue}{len(faults)}'
        home.mkdir()
        with sandbox(venue, symbols=('EUR-USD' if venue == 'oanda' else 'BTC-USD',)) as it:
            it.fault(*faults)
            (card := home / 'card.json').write_text(json.dumps(it.card))
            found = rows(check(home, venue, card=card))['PARTIAL']
        assert (found['call'], found['effect']) == ('ok', effect) and says in found['detail'], (venue, found)
    thrice = [{'fault': 'partial_fills', 'op': 'submit', 'parts': 3, 'count': 50}]
    at_once(*(partial(play, v, [], '', 'no order traded in parts') for v in VENUES), *(partial(play, v, thrice, 'proved', 'parts') for v in MOCKED))


def test_kept_keys_are_used_at_their_own_address_alone(box: Any, tmp_path: Path) -> None:
    save_access(tmp_path, box.card)
    venue = box.card['venue']
    said = check(tmp_path, venue, patience_s=2)
    assert said['ok'] and said['keys'] == 'kept in this home'
    with stand_in('coinbase', 'close') as (url, _): said = check(tmp_path, venue, url, patience_s=0.5)
    assert not said['ok'] and said['keys'] == 'made up'


def test_made_up_keys_are_refused_in_the_venues_words(box: Any, tmp_path: Path) -> None:
    said = check(tmp_path, box.card['venue'], box.card['rest'], box.card['ws'], patience_s=0.5)
    whole(said)
    found = rows(said)
    assert not said['ok'] and found['CASH']['call'] == 'refused' and found['CASH']['detail'] and works(box) == []


@pytest.mark.parametrize('venue', MOCKED)
def test_a_stand_in_is_understood_though_it_remembers_nothing(venue: str, tmp_path: Path) -> None:
    with stand_in(venue, prefix='/mock') as (url, asked): said = check(tmp_path, venue, url, patience_s=1)
    whole(said)
    found = rows(said)
    assert not said['ok'] and said['keys'] == 'made up'
    for name in ('INSTRUMENTS', 'CONNECT', 'QUOTE', 'DEPTH', 'PRINTS', 'HISTORY', 'ACCOUNT', 'CASH', 'POSITIONS', 'OPEN_ORDERS', 'FILLS_SINCE', 'LIMIT', 'LOOKUP', 'AMEND', 'CANCEL', 'POST_ONLY', 'STOP_LIMIT', 'IOC', 'FOK', 'MARKET'):
        assert found[name]['call'] == 'ok', found[name]
    assert found['LIMIT']['effect'] == 'contradicted' and said['contradicted'] > 5
    assert found['QUOTES']['call'] == 'not tried' and '--ws' in found['QUOTES']['detail']
    assert not [a for a in asked if '/elsewhere' in a]      # the prefix of the address was kept


MANNERS = {'page': 'failed', 'dumb': 'failed', 'hang': 'not reachable', 'close': 'not reachable'}


def test_what_makes_no_sense_is_an_outcome(tmp_path: Path) -> None:
    def play(venue: str, manner: str) -> None:
        with stand_in('coinbase', manner) as (url, _): said = check(tmp_path, venue, url, patience_s=0.5)
        whole(said)
        found = rows(said)
        assert found['INSTRUMENTS']['call'] == found['CASH']['call'] == MANNERS[manner], found['INSTRUMENTS']
        assert not said['ok'] and not [r for r in said['capabilities'] if r['call'] == 'ok' and r['name'] != 'DISCONNECT']
    at_once(*(partial(play, v, m) for v in VENUES for m in MANNERS))


def test_another_venue_at_the_address_is_an_outcome(tmp_path: Path) -> None:
    def play(venue: str) -> None:
        with stand_in('coinbase' if venue == 'binanceus' else 'binanceus') as (url, _): said = check(tmp_path, venue, url, patience_s=0.5)
        whole(said)
        assert not said['ok'] and rows(said)['INSTRUMENTS']['call'] == 'refused' and '404' in rows(said)['INSTRUMENTS']['detail']
    at_once(*(partial(play, v) for v in VENUES))


def test_nobody_there(tmp_path: Path) -> None:
    for venue in VENUES:
        said = check(tmp_path, venue, 'http://127.0.0.1:9', 'ws://127.0.0.1:9', patience_s=0.5)
        assert not said['ok'] and {r['call'] for r in said['capabilities']} == {'not reachable'} and 'refused' in said['capabilities'][0]['detail']
    code, said, err = command(tmp_path, 'oanda', '--rest', 'http://127.0.0.1:9', '--patience', '0.5')
    assert (code, err, said['ok']) == (1, '', False)


BAD = {'kraken': 'kraken', 'coinbase --rest http://api.example.org': 'without TLS', 'coinbase --rest ftp://x': 'http(s)', 'oanda --card nowhere.json': 'nowhere.json',
       'binanceus --ws ws://127.0.0.1:9': '--rest', 'binanceus --patience 0': 'seconds'}


def test_bad_input(tmp_path: Path) -> None:
    for words, (code, said, _) in zip(BAD, at_once(*(partial(command, tmp_path, *words.split()) for words in BAD))):
        assert code == 2 and BAD[words] in json.dumps(said), (words, said)
    assert list(tmp_path.iterdir()) == []


def test_real_money_is_not_written_to_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    "The sandbox's address is declared to be the venue's own: no order leaves, and with leave none that trades at once."
    from gekko.domain.time import SystemClock
    from gekko.venue import check as room
    from gekko.venue.wire.secret import access_of
    monkeypatch.setattr(room, 'production', lambda rest: True)
    for write, left in ((False, set[str]()), (True, {'limit', 'stop_limit'})):
        with sandbox('coinbase', symbols=('BTC-USD',)) as box:
            said = room.check_venue(access_of(box.card), SystemClock(), write=write, patience_s=2.0)
            assert {w.ticket.type.value for w in works(box)} == left and not [w for w in works(box) if w.deals or w.state.value in WORKING]
        found = rows(said)
        assert found['MARKET']['call'] == 'not tried' and 'real money' in found['MARKET']['detail'] and not said['ok']
        assert found['LIMIT']['call'] == ('ok' if write else 'not tried')


def test_an_order_that_cannot_be_taken_back_is_told() -> None:
    from gekko.domain.time import SystemClock
    from gekko.venue.check import check_venue
    from gekko.venue.wire.secret import access_of
    with sandbox('binanceus', symbols=('BTC-USD',)) as box:
        box.fault({'fault': 'server_error', 'op': 'cancel', 'status': 500, 'count': 1000})
        said = check_venue(access_of(box.card), SystemClock(), patience_s=1.0)
        there = {w.client_id for w in works(box) if w.state.value in WORKING}
    assert there and {n.split('_')[0] for n in there} <= set(said['left_working']) and not said['ok']
