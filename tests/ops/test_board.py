"""What is on the screen is what is in the ledger, whatever is in the ledger."""
import asyncio
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from desk_stage import settings_of

from gekko.desk.config import Settings
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Fill, Filled, Intent, Side, Submitted
from gekko.domain.time import SECOND
from gekko.ledger.events import BreachRecorded, Deposited, IntentRecorded, Marked, RunOpened
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.replay import replay
from gekko.ops import board as screen
from gekko.ops.board import Board, live
from gekko.ops.panels import html_table
from gekko.ops.views import Watch, headline, working_orders

HOSTILE = '<img src=x onerror=alert(1)>'


def write(settings: Settings, account: str, trades: int, symbol: str = 'KO', run: str = 'r1') -> Decimal:
    """A journal of `trades` purchases of one share each, five entries a trade; the equity at its end."""
    settings.home.mkdir(parents=True, exist_ok=True)
    cash, price = Decimal(1_000_000), Decimal('10.00')
    with Journal.open(settings.ledger, account) as j:
        for r in (Instrument(symbol, symbol, 'USD'), Deposited(cash), RunOpened(run, 'ab', 'first')): j.append(r, 0)
        for n in range(trades):
            ts, name = n * SECOND, f'g{n}'
            price += Decimal((n * 7919) % 11 - 5) / 100
            cash -= price + Decimal('0.01')
            for r in (IntentRecorded(name, Intent(symbol, Side.BUY, Decimal(1), ts=ts)), Submitted(name, ts), Accepted(name, ts=ts),
                      Filled(name, Fill(f'f{n}', name, symbol, Side.BUY, Decimal(1), price, Decimal('0.01'), ts=ts), ts), Marked({symbol: price}, cash + price * (n + 1))): j.append(r, ts)
        j.commit()
    return cash + price * trades


@pytest.fixture
def settings(tmp_path: Path) -> Settings: return settings_of(tmp_path / 'home')


@pytest.mark.parametrize('most', [1, 7, 5000])
def test_a_book_read_in_pages_is_the_book(settings: Settings, most: int) -> None:
    write(settings, 'a', 40)
    w, whole = Watch(settings.ledger, 'a'), replay(read_entries(settings.ledger, 'a'))
    while w.refresh(most): pass
    assert w.book == whole
    assert (headline(w).equity, w.peak) == (whole.equity.quantize(Decimal('0.01')), max(e for _, e in whole.equity_curve))


def test_nothing_of_a_long_journal_is_shown_before_all_of_it_is_read(settings: Settings) -> None:
    equity = write(settings, 'a', 2500)     # 12,503 entries: three pages
    board = Board(settings)
    for _ in range(2):
        board.show(board.look())
        assert 'reading' in board.head.value and 'gk-equity' not in board.head.value and board.parts['fills'].value == ''
    board.show(board.look())
    assert f'{equity:,.2f}' in board.head.value and 'last 10 of 2,500' in board.parts['fills'].value


@pytest.mark.anyio
async def test_the_ledger_is_read_beside_the_loop_that_draws(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write(settings, 'a', 1)
    where: set[int] = set()
    real = screen.look
    monkeypatch.setattr(screen, 'look', lambda *given: (where.add(threading.get_ident()), real(*given))[1])
    board = Board(settings)
    task = asyncio.create_task(live(board, 0.001))
    while 'gk-equity' not in board.head.value: await asyncio.sleep(0.001)
    task.cancel()
    assert where and threading.get_ident() not in where


@pytest.mark.anyio
async def test_a_board_that_nobody_looks_at_rests_and_wakes_when_somebody_does(settings: Settings) -> None:
    write(settings, 'a', 1)
    board = Board(settings)
    board.seen -= 200 * SECOND
    task = asyncio.create_task(live(board, 0.001, unseen_s=180))
    await asyncio.sleep(0.1)
    assert board.last is None
    board.here()
    while board.last is None: await asyncio.sleep(0.001)
    task.cancel()


def test_a_name_from_outside_is_text(settings: Settings) -> None:
    write(settings, HOSTILE, 2, symbol=HOSTILE, run=HOSTILE)
    with Journal.open(settings.ledger, HOSTILE) as j: j.append(BreachRecorded('max_gross', '1', '2', HOSTILE, 'g0', 0, HOSTILE), 10 * SECOND)
    board = Board(settings)
    board.refresh()
    for part in (board.head, *board.parts.values()): assert '<img' not in part.value
    assert '<img' not in html_table([{'run': HOSTILE, HOSTILE: HOSTILE}], HOSTILE, here=HOSTILE)
    assert '&lt;img' in board.parts['positions'].value and '&lt;img' in board.parts['refused'].value


def test_the_newest_run_is_followed_and_the_asked_one_is_kept(settings: Settings) -> None:
    write(settings, 'a', 1)
    newest, asked = Board(settings), Board(settings, 'a')
    for b in (newest, asked): b.refresh()
    equity = write(settings, 'b', 3)
    for b in (newest, asked): b.refresh()
    assert newest.last is not None and newest.last.watch is not None and newest.last.watch.account == 'b' and f'{equity:,.2f}' in newest.head.value
    assert asked.last is not None and asked.last.watch is not None and asked.last.watch.account == 'a'


def test_a_refused_intent_is_not_an_open_order(settings: Settings) -> None:
    write(settings, 'a', 1)
    with Journal.open(settings.ledger, 'a') as j:
        for r in (IntentRecorded('g8', Intent('KO', Side.BUY, Decimal(9))), BreachRecorded('max_gross', '1', '2', 'KO', 'g8'), IntentRecorded('g9', Intent('KO', Side.BUY, Decimal(1))), Submitted('g9')): j.append(r, SECOND)
    w = Watch(settings.ledger, 'a')
    w.refresh()
    assert [o.client_id for o in working_orders(w.book)] == ['g9']
    assert (headline(w).orders, headline(w).refused) == (2, 1)
