"""The day's profit on the screen is the statement's, whatever was paid in meanwhile; cash is the ledger's, and margin the desk's word or nothing."""
import re
from decimal import Decimal
from pathlib import Path

from desk_stage import settings_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.desk.protocol import PositionsReply
from gekko.domain.account import Account, deposit, settle
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Filled, Intent, Side
from gekko.domain.time import HOUR, utc
from gekko.ledger.events import Deposited, IntentRecorded, Marked, RunOpened
from gekko.ledger.journal import Chain, Journal
from gekko.ledger.replay import Book
from gekko.ledger.statement import day_statement
from gekko.ops.board import Board
from gekko.ops.money import money_rows
from gekko.ops.views import Watch

D = Decimal
START, KO = utc('2024-03-11'), Instrument('KO', 'KO', 'USD')


def facts(steps: list[tuple[str, Decimal]]) -> list[tuple[int, object]]:
    """A journal of an hour a step: shares are bought at a price, money is paid in or out, or the market moves; marked after each."""
    account, price, out = deposit(Account('a'), D(100_000)), D(10), list[tuple[int, object]]()
    for n, (what, x) in enumerate(steps):
        at = START + (n + 1) * HOUR
        if what == 'buy':
            f = Fill(f'f{n}', f'g{n}', 'KO', Side.BUY, D(7), price, D('0.07'), ts=at)
            account = settle(account, f, KO)
            out += [(at, IntentRecorded(f'g{n}', Intent('KO', Side.BUY, D(7)))), (at, Filled(f'g{n}', f, at))]
        elif what == 'pay':
            account = deposit(account, x)
            out.append((at, Deposited(x)))
        else: price = max(D(1), price + x)
        out.append((at, Marked({'KO': price}, account.cash['USD'] + account.qty('KO') * price)))
    return [(START, KO), (START, Deposited(D(100_000))), (START, RunOpened('r1', 'ab', 'first')), (START, Marked({'KO': D(10)}, D(100_000))), *out]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(('buy', 'pay', 'move')), st.decimals('-5', '5', places=2)), min_size=1, max_size=60))
def test_the_days_profit_is_the_statements(steps: list[tuple[str, Decimal]]) -> None:
    chain, w = Chain('a'), Watch('sqlite://', 'a')
    entries = [chain.link(r, at) for at, r in facts(steps)]
    for e in entries:
        w.book.apply(e, r := e.record)
        if isinstance(r, (Deposited, Marked)): w._worth(r)
    rows = money_rows(w.book, w.meter)
    day = rows[0]['item'].removeprefix('profit on ')
    s = day_statement(entries, day)
    assert s.total is not None and rows[0]['amount'] == s.total.pnl.quantize(D('0.01'))
    assert [(r['amount'], r['currency']) for r in rows if r['item'] == 'cash'] == [(w.book.account.cash['USD'].quantize(D('0.01')), 'USD')]


def test_the_panel_is_on_the_board_and_margin_only_from_a_desk(tmp_path: Path) -> None:
    mine = settings_of(tmp_path / 'home')
    mine.home.mkdir()
    with Journal.open(mine.ledger, 'a') as j:
        for at, r in facts([('buy', D(0)), ('move', D(2))] * 13): j.append(r, at)
    board = Board(mine)
    board.refresh()
    shown = re.sub('<[^>]+>', ' ', board.parts['money'].value)
    assert 'Cash and margin' in shown and 'profit on 2024-03-12' in shown and 'margin' not in shown.replace('Cash and margin', '')
    reply = PositionsReply('a', 0, 'USD', D(1), {}, (), D('5.5'), D(7), D(0), D(0), D(0), D(0), locked={'BTC': D('0.5')}, closeout=D('0.25'))
    rows = {(r['item'], r['currency']): r['amount'] for r in money_rows(Book(Account('a')), Watch('sqlite://', 'a').meter, reply)}
    assert rows == {('margin used', 'USD'): D('5.50'), ('margin free', 'USD'): D('7.00'), ('of the way to closeout', '%'): D('25.00'), ('locked by orders', 'BTC'): D('0.5')}
