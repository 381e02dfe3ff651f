"""`gekko data record`, as a user types it: a venue's stream in the store, played again as it was, and honest about what it missed."""
from __future__ import annotations

import json
from pathlib import Path

from desk_stage import ended, gekko, launch, ok, one_line, settings_of, wait_for
from live_stage import served

from gekko.data.dialect import BookChange, Hole
from gekko.data.recording import play
from gekko.data.store import Store
from gekko.domain.market import Quote, Trade


def test_a_quiet_session_has_no_holes_and_plays_as_it_was(tmp_path: Path) -> None:
    home = tmp_path / 'home'
    with served(home, 'binanceus'):
        said = one_line(gekko(home, 'data', 'record', 'BTC-USD', 'ETH-USD', '--venue', 'binanceus', '--seconds', '3', '--session', 'first', '--json'))
        assert said['session'] == 'first' and said['events'] > 20 and (said['holes'], said['dropped'], said['subscriptions']) == (0, 0, 6)
        refused = gekko(home, 'data', 'record', 'BTC-USD', '--venue', 'binanceus', '--kinds', 'quote,trades', '--seconds', '1')
        assert refused.returncode == 2 and 'expected quote trade book, found trades' in refused.stderr
        assert gekko(home, 'data', 'record', 'BTC-USD', '--venue', 'binanceus', '--seconds', '1', '--session', 'first').returncode == 2
    once, twice = (list(play(settings_of(home).store, 'first')) for _ in range(2))
    assert once == twice and len(once) == said['events'] and {Quote, BookChange, Hole} <= {type(e) for _, e in once}
    assert [t for t, _ in once] == sorted(t for t, _ in once)
    assert 'first' in ok(gekko(home, 'data', 'recordings'))


def test_a_line_that_was_cut_is_a_hole(tmp_path: Path) -> None:
    home, plan = tmp_path / 'home', tmp_path / 'plan.json'
    plan.write_text(json.dumps([{'fault': 'disconnect', 'op': 'stream', 'after': 60, 's': 0.5}]))
    with served(home, 'binanceus', '--faults', str(plan)):
        said = one_line(gekko(home, 'data', 'record', 'BTC-USD', '--venue', 'binanceus', '--seconds', '6', '--session', 'cut', '--json'))
    assert said['holes'] >= 1
    events = [e for _, e in play(settings_of(home).store, 'cut')]
    hole = next(i for i, e in enumerate(events) if isinstance(e, Hole) and e.until and e.lost and e.why != 'not heard yet')
    assert any(isinstance(e, (Quote, Trade)) for e in events[:hole]) and any(isinstance(e, Quote) for e in events[hole:])


def test_a_pull_that_was_killed_goes_on_and_ends_whole(tmp_path: Path) -> None:
    home = tmp_path / 'home'
    with served(home, 'binanceus'):
        words = ('data', 'pull', 'BTC-USD', '--venue', 'binanceus', '--bar', '1m', '--start')
        early = launch(home, *words, '2026-10-20')
        wait_for(lambda: list((home / 'store').glob('bars/_delta_log/*1.json')), 'the first page')
        early.kill()
        ended(early)
        [resumed] = one_line(gekko(home, *words, '2026-10-20', '--json'))
        [again] = one_line(gekko(home, *words, '2026-10-20', '--json'))
        [before] = one_line(gekko(home, *words, '2026-10-18', '--json'))
        assert resumed['rows'] > 0 and again['rows'] <= 2 and 0 <= before['rows'] - 2 * 1440 <= 2
    frame = Store(settings_of(home).store).frame('BTC-USD', '1m')
    assert frame['timestamp'].diff().dropna().nunique() == 1 and str(frame['timestamp'].iloc[0]) == '2026-10-18 00:00:00+00:00'
    assert 'nothing odd' in ok(gekko(home, 'data', 'check', 'BTC-USD', '--bar', '1m'))
