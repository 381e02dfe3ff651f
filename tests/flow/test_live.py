"""The main job on each venue, through real sockets: a sandbox as a process, a desk as a process, a notebook in a kernel; and both sides' books in the end."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from desk_stage import STRATEGIES, gekko, ok, one_line, only_run, result_of, settings_of, tidy
from live_stage import asked, same_money, served

from gekko.ledger.journal import read_entries, verify

VENUES = ('binanceus', 'coinbase', 'oanda')


@pytest.fixture(params=VENUES)
def venue(request: pytest.FixtureRequest) -> str: return str(request.param)


def test_the_main_job_trades_and_the_books_agree(venue: str, tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, venue) as card:
        trend = STRATEGIES / 'trend.ipynb'
        first = one_line(gekko(home, 'run', trend, '--mode', 'live', '--venue', venue, '--json'))
        record = only_run(home)
        assert first['state'] == 'done' and record.mode == 'live' and record.account == f'{venue}-{card["account"]}'
        result = result_of(record)
        assert result.fills and all(o.state.terminal and o.intent.run == result.lineage and o.intent.cell for o in result.orders)
        same_money(home, card, venue)
        # and again on the same account, with another target: only the difference is traded
        second = one_line(gekko(home, 'run', trend, '--mode', 'live', '--venue', venue, '-p', 'target_vol', '0.05', '-p', 'band', '0', '--json'))
        assert second['state'] == 'done' and second['metrics']['fills'] >= 1
        same_money(home, card, venue)
        url = settings_of(home).ledger
        assert verify(url, record.account).ok
        assert card['secret'] not in Path(record.executed).read_text() and card['secret'] not in ''.join(e.body for e in read_entries(url, record.account))


def test_an_account_that_somebody_else_moved_is_not_traded(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        trend = STRATEGIES / 'trend.ipynb'
        ok(gekko(home, 'run', trend, '--mode', 'live', '--venue', 'binanceus'))
        before = asked(card, 'orders')
        asked(card, 'wallet', {'asset': 'USD', 'amount': '-250'})
        refused = gekko(home, 'run', trend, '--mode', 'live', '--venue', 'binanceus')
        assert refused.returncode == 3 and 'differ' in refused.stderr and 'cash USD' in refused.stderr
        assert asked(card, 'orders') == before


def test_what_live_needs_is_said_before_anything_starts(tmp_path: Path) -> None:
    home, trend = tmp_path / 'home', STRATEGIES / 'trend.ipynb'
    for words, said in ((['--mode', 'live'], '--venue'), (['--mode', 'live', '--venue', 'nyse'], 'binanceus'), (['--mode', 'live', '--venue', 'coinbase'], 'credentials'), (['--venue', 'coinbase'], '--mode live')):
        refused = gekko(home, 'run', trend, *words)
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert not (home / 'runs').exists()


def test_a_wrong_key_halts_and_trades_nothing(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        kept = home / 'venues' / 'binanceus.json'
        wrong = json.loads(kept.read_text()) | {'secret': 'not the secret'}
        kept.write_text(json.dumps(wrong))
        refused = gekko(home, 'run', STRATEGIES / 'trend.ipynb', '--mode', 'live', '--venue', 'binanceus')
        assert refused.returncode == 3 and 'not the secret' not in refused.stderr + refused.stdout
        assert asked(card, 'orders')['orders'] == []
