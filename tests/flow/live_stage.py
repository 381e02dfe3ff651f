"""The stage of live runs: a venue's sandbox as a process, what it knows itself, and our books beside its."""
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

from desk_stage import BIN, environ, one_line, settings_of

from gekko.domain.account import pnl
from gekko.ledger.journal import read_entries
from gekko.ledger.replay import Book, replay

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
    assert not book.faults
    if venue == 'oanda': return same_margin(book, asked(card, 'account'))
    cash, held = theirs(card)
    assert {s.split('-')[0]: p.qty for s, p in book.account.positions.items() if p.qty} == held
    assert book.account.cash['USD'] == cash
    marks = {s: book.marks[s] for s in book.account.positions}
    profit = cash + sum((held[s.split('-')[0]] * marks[s] for s in marks if s.split('-')[0] in held), D(0)) - D(1_000_000)
    assert pnl(book.account, marks).net == profit


def same_margin(book: Book, said: Any) -> None:
    """A margin account keeps profits and not notionals: its balance is our cash and what the open positions cost, and its profit is ours."""
    open_ = {s: p for s, p in book.account.positions.items() if p.qty}
    assert {s: p.qty for s, p in open_.items()} == {s: D(q) for s, q in said['positions'].items() if D(q)}
    assert book.account.cash['USD'] + sum((p.cost for p in open_.values()), D(0)) == D(said['balances']['USD'])
    marks = {s: book.marks[s] for s in book.account.positions}
    unrealised = sum((p.unrealised(marks[s]) for s, p in open_.items()), D(0))
    assert pnl(book.account, marks).net == D(said['balances']['USD']) - D(1_000_000) + unrealised
