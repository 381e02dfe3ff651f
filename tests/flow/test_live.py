"""The main job on each venue, through real sockets: a sandbox as a process, a desk as a process, a notebook in a kernel; and both sides' books in the end."""
from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_stage import BIN, STRATEGIES, environ, gekko, ok, one_line, only_run, result_of, settings_of, tidy

from gekko.domain.account import pnl
from gekko.ledger.journal import read_entries, verify
from gekko.ledger.replay import Book, replay

VENUES = ('binanceus', 'coinbase', 'oanda')
D = Decimal


@contextmanager
def served(home: Path, venue: str, *words: str) -> Iterator[dict[str, str]]:
    """A venue's sandbox as a process of its own, its card kept in the home."""
    p = subprocess.Popen([str(BIN / 'gekko'), 'sandbox', 'serve', venue, '--json', *words], env=environ(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert p.stdout is not None
        line = p.stdout.readline()
        assert line, p.communicate(timeout=10)
        added = subprocess.run([str(BIN / 'gekko'), 'venue', 'add', venue, '--json'], env=environ(home), input=line, capture_output=True, text=True, timeout=60)
        card: dict[str, str] = json.loads(line)
        assert card['secret'] not in one_line(added)
        yield card
    finally:
        p.send_signal(signal.SIGTERM)
        assert p.wait(20) == 0
        p.communicate()


def asked(card: dict[str, str], path: str, body: Any = None) -> Any:
    """An answer of the sandbox's control endpoint: what it knows itself, beside what its API says."""
    r = urllib.request.Request(f'{card["control"]}/{path}', None if body is None else json.dumps(body).encode(), {'X-Sandbox': card['token']})
    with urllib.request.urlopen(r, timeout=20) as answer: return json.loads(answer.read())


def book_of(home: Path, account: str) -> Book: return replay(read_entries(settings_of(home).ledger, account))


def theirs(card: dict[str, str]) -> tuple[Decimal, dict[str, Decimal]]:
    """Cash in dollars and signed size by base currency, as the sandbox counts them."""
    said = asked(card, 'account')
    held = {c: D(b['free']) + D(b['locked']) for c, b in said['balances'].items()}
    return held['USD'], {c: x for c, x in held.items() if c not in ('USD', 'USDT') and x}


def same_money(home: Path, card: dict[str, str], venue: str) -> None:
    """To the last digit: cash, positions, and so the profit at any price."""
    book = book_of(home, f'{venue}-{card["account"]}')
    cash, held = theirs(card)
    assert not book.faults
    assert {s.split('-')[0]: p.qty for s, p in book.account.positions.items() if p.qty} == held
    assert book.account.cash['USD'] == cash
    marks = {s: book.marks[s] for s in book.account.positions}
    profit = cash + sum((held[s.split('-')[0]] * marks[s] for s in marks if s.split('-')[0] in held), D(0)) - D(1_000_000)
    assert pnl(book.account, marks).net == profit


@pytest.fixture(params=['binanceus', 'coinbase'])
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
