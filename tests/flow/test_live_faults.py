"""What goes wrong in live runs, through real processes and sockets: killed desks and kernels, orders that never left, coins from before, a venue that is gone."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from desk_stage import alive, ended, gekko, launch, ledger_of, notebook, one_line, status_of, tidy, told, wait_for
from desk_stage import desk_of as desk_card
from live_stage import asked, book_of, served, theirs

from gekko.domain.errors import BadInput
from gekko.domain.order import Order, OrderState
from gekko.ledger.database import exists
from gekko.ledger.journal import verify
from gekko.ops.views import Watch, headline

D = Decimal

STEPS = ("""mode = 'live'
venue = ''
symbols = ['BTC-USD']
bar = '1d'               # there are closed ones already, so the first decision is due at once
bars = 2
policy = 'hold'
size = 0.05
reconcile_s = 30.0
stop_at = -1             # the decision at which it waits to be killed
pulse = ''               # the file into which it then writes its process id""", """import os, time
from decimal import Decimal
from pathlib import Path
from gekko.api import open_run
run = open_run(symbols, mode=mode, venue=venue, bar=bar, bars=bars, window=5, policy=policy, reduce_to='0.5', reconcile_s=reconcile_s)
for n, window in enumerate(run):
    if n == stop_at:
        Path(pulse).write_text(str(os.getpid()))
        time.sleep(60)
    run.target(units={s: Decimal(str(size)) * (1 + n % 2) for s in symbols})
result = run.finish()""")


def live(home: Path, venue: str, symbols: Sequence[str] = ('BTC-USD',), **params: object) -> list[object]:
    """The words of a live run that wants `size` and twice `size` in turn."""
    return ['run', notebook(home.parent / 'steps.ipynb', *STEPS), '--mode', 'live', '--venue', venue, '-p', 'symbols', json.dumps(list(symbols)), *told(params), '--json']


def account_of(card: dict[str, str]) -> str: return f'{card["venue"]}-{card["account"]}'
def disarm(card: dict[str, str]) -> None: urlopen(Request(f'{card["control"]}/faults', method='DELETE', headers={'X-Sandbox': card['token']}), timeout=20).close()


def working(home: Path, card: dict[str, str]) -> list[Order]:
    """The orders that are not over in the account's books, once there are any books."""
    try: return book_of(home, account_of(card)).open_orders if exists(ledger_of(home)) else []
    except BadInput: return []      # a ledger that is being made


def the_same(home: Path, card: dict[str, str]) -> dict[str, Decimal]:
    """Our books and the venue's, to the last digit, nothing open and nothing strange in either; what is held."""
    book, (cash, held) = book_of(home, account_of(card)), theirs(card)
    assert not book.faults and not book.open_orders and verify(ledger_of(home)).ok
    assert {s.split('-')[0]: p.qty for s, p in book.account.positions.items() if p.qty} == held
    assert book.account.cash['USD'] == cash
    assert len({f.fill_id for f in book.fills}) == len(book.fills)
    return held


def power_cut(home: Path, run: subprocess.Popen[str]) -> None:
    """Runner and desk at once, so that nobody starts the desk again."""
    desk = desk_card(home)['pid']
    os.kill(run.pid, signal.SIGKILL)
    os.kill(desk, signal.SIGKILL)
    ended(run)
    wait_for(lambda: not alive(desk), 'the desk to be gone')


def shown(home: Path, run_id: str) -> Any: return one_line(gekko(home, 'runs', 'show', run_id, '--json'))


def test_an_order_that_a_killed_desk_never_got_out_does_not_block_the_account(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        asked(card, 'faults', [{'fault': 'server_error', 'op': 'submit', 'count': 99}])
        run = launch(home, *live(home, 'binanceus', size=0.08), GEKKO_GRACE_S='2')
        (lost,) = wait_for(lambda: [o for o in working(home, card) if o.state is OrderState.SUBMITTED], 'an order under way')
        power_cut(home, run)
        disarm(card)
        again = one_line(gekko(home, *live(home, 'binanceus', bars=1, size=0.14)))
        # what may still arrive counts as if it would trade, so only the rest is bought at once
        assert again['state'] == 'done' and again['metrics']['fills'] == 1 and D('0.0599') < theirs(card)[1]['BTC'] <= D('0.06')      # the fee is kept back in coin
        assert 'of unknown outcome' in again['exit_reason'] or book_of(home, account_of(card)).orders[lost.client_id].state is OrderState.UNKNOWN
        said = one_line(gekko(home, 'desk', 'check', 'binanceus', '--wait', '--json'))
        assert said['agree'] and not said['unknown'] and not said['open']
        order = book_of(home, account_of(card)).orders[lost.client_id]
        assert order.state is OrderState.REJECTED and order.reason == 'never reached the venue' and not order.filled
        the_same(home, card)


def test_a_killed_desk_leaves_an_order_at_the_venue_and_the_next_one_finds_it(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'coinbase') as card:
        asked(card, 'faults', [{'fault': 'drop_answer', 'op': 'submit'}])
        run = launch(home, *live(home, 'coinbase'), GEKKO_GRACE_S='2')
        wait_for(lambda: asked(card, 'orders')['orders'], 'an order at the venue')
        power_cut(home, run)
        again = one_line(gekko(home, *live(home, 'coinbase', bars=1, size=0.02)))
        assert again['state'] == 'done'
        assert the_same(home, card) == {'BTC': D('0.02')}
        assert len(asked(card, 'orders')['orders']) == len(book_of(home, account_of(card)).orders)


def test_the_policy_of_a_killed_kernel_is_carried_out_at_the_venue(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'coinbase') as card:
        pulse = tmp_path / 'pulse'
        run = launch(home, *live(home, 'coinbase', bar='1s', bars=9, policy='reduce', stop_at=1, pulse=pulse))
        os.kill(int(wait_for(lambda: pulse.exists() and pulse.read_text(), 'the notebook at its second bar')), signal.SIGKILL)
        killed = one_line(ended(run), 1)
        assert killed['state'] == 'killed' and 'the kernel died' in killed['exit_reason'] and killed['metrics']['fills'] == 2
        assert the_same(home, card) == {'BTC': D('0.025')}
        assert shown(home, killed['run_id'])['books_agree']


def test_coins_from_before_the_books_are_brought_in_when_they_are_first_traded(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus', '--cash', 'BTC=1,ETH=2') as card:
        first = one_line(gekko(home, *live(home, 'binanceus', ['BTC-USD'], bars=1, size=0.5)))
        assert book_of(home, account_of(card)).account.qty('BTC-USD') == D('0.5') and theirs(card)[1]['ETH'] == 2
        second = one_line(gekko(home, *live(home, 'binanceus', ['ETH-USD'], bars=1, size=1.5)))
        assert second['state'] == 'done' and second['metrics']['fills'] >= 1
        assert the_same(home, card) == {'BTC': D('0.5'), 'ETH': D('1.5')}
        # each run is held against the books as they stood when it ended, and what was brought in is no profit
        for run in (first, second): assert (said := shown(home, run['run_id']))['books_agree'] and D(said['ledger_equity']) == D(run['metrics']['equity'])
        watch = Watch(ledger_of(home), account_of(card))
        watch.refresh()
        assert abs(headline(watch).change) < 1_000


def test_a_venue_that_is_gone_does_not_hold_the_job_beyond_its_grace(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bars=99, policy='flatten'), GEKKO_GRACE_S='5')
        wait_for(lambda: asked(card, 'orders')['orders'], 'an order at the venue')
        wait_for(lambda: status_of(home).fills and not status_of(home).working, 'its fill')
        asked(card, 'faults', [{'fault': 'maintenance', 's': 600}])
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        stopped = one_line(ended(run), 1)
        assert stopped['state'] == 'killed' and 'SIGTERM' in stopped['exit_reason'] and time.monotonic() - began < 30
        book = book_of(home, account_of(card))
        said = list(book.runs.values())[-1]
        assert said.policy is not None and said.policy.policy == 'flatten' and said.closed is not None
        assert 'could not be closed' in said.closed.reason
