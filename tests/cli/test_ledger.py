"""`gekko ledger` at the shell's edge: exit codes, filters, and a snapshot taken by hand."""
from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from desk_stage import ledger_of
from typer.testing import CliRunner

from gekko.cli.main import app
from gekko.domain.instrument import Instrument
from gekko.ledger.database import engine
from gekko.ledger.events import Deposited, Halted, Note
from gekko.ledger.journal import Journal


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = ledger_of(tmp_path)
    with Journal.open(url, 'paper') as j:
        for n, r in enumerate((Instrument('AAA', 'AAA', 'USD'), Deposited(Decimal(100)), Halted('by hand'), *(Note(f'note {i}') for i in range(30)))): j.append(r, n, 'r1' if n % 2 else 'r2')
    return url


def damage(url: str, statement: str) -> None:
    with engine(url, write=True).begin() as c: c.exec_driver_sql(statement)


def gekko(*words: str) -> tuple[int, str]:
    said = CliRunner().invoke(app, ['ledger', *words])
    return said.exit_code, said.output


def test_verify_says_what_is_broken_and_fails(url: str) -> None:
    assert gekko('verify', '--url', url) == (0, 'sound: 33 entries of paper\n')
    assert gekko('snapshot', 'paper', '--url', url)[0] == 0
    assert gekko('verify', 'paper', '--url', url) == (0, 'sound: 33 entries of paper\n1 snapshots agree with it\n')
    damage(url, 'update snapshots set made = 7')
    assert gekko('verify', '--url', url) == (1, 'sound: 33 entries of paper\nsnapshot of paper at #33: its contents do not match its digest\n')
    damage(url, 'update entries set ts = 99 where seq = 9')
    assert gekko('verify', '--url', url) == (1, 'broken at paper #9: its contents do not match its hash (8 entries of paper checked)\n')


def test_a_head_noted_elsewhere(url: str) -> None:
    code, said = gekko('accounts', '--url', url, '--json')
    assert code == 0 and '"account":"paper"' in said and '"entries":33' in said
    assert gekko('verify', 'paper', '--head', 'ab' * 32, '--url', url)[0] == 1
    assert gekko('verify', '--head', 'ab' * 32, '--url', url)[0] == 2
    assert gekko('verify', 'swing', '--url', url)[0] == 2


def test_show_filters_and_refuses(url: str) -> None:
    def shown(*words: str) -> list[str]:
        code, said = gekko('show', 'paper', '--url', url, *words)
        assert code == 0
        return [line.split()[0] for line in said.split('\n\n')[0].splitlines()[1:]]
    assert shown() == [str(n) for n in range(14, 34)] and shown('--last', '2') == ['32', '33']
    assert shown('--kind', 'halt,deposit') == ['2', '3'] and shown('--since', '30') == ['31', '32', '33'] and shown('--run', 'r1', '--since', '29', '--last', '0') == ['30', '32']
    for wrong in (('--kind', 'halts'), ('--since', '-1')): assert gekko('show', 'paper', '--url', url, *wrong)[0] == 2
    assert gekko('show', 'nobody', '--url', url)[0] == 2 and gekko('snapshot', 'nobody', '--url', url)[0] == 2
