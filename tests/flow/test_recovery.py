"""A desk dies, stands still or is lied to while it trades at a venue: through real processes and sockets, the books end as the venue's."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from desk_stage import desk_of, ended, gekko, launch, ok, one_line, settings_of, status_of, tidy, wait_for
from live_stage import asked, book_of, served, theirs
from test_live_faults import account_of, live, power_cut, the_same

from gekko.domain.errors import BadInput
from gekko.domain.order import Filled
from gekko.ledger.events import Corrected, Differed, External, LeaseTaken, Note, PolicyTaken, RunOpened
from gekko.ledger.journal import read_entries, verify

D = Decimal


def records(home: Path, card: dict[str, str]) -> list[object]: return [e.record for e in read_entries(settings_of(home).ledger, account_of(card))]
def written(home: Path, card: dict[str, str], kind: type) -> bool: return any(isinstance(r, kind) for r in records(home, card))


def opened(home: Path, card: dict[str, str]) -> object:
    """Wait for the run's first fill."""
    def filled() -> object:
        try: return any(isinstance(r, Filled) for r in records(home, card))
        except BadInput: return None      # no ledger yet, or one that is being made
    return wait_for(filled, 'the first fill', 60)


def outside(card: dict[str, str], side: str, qty: str, resting: bool = False) -> None:
    """An order made with the same key by another program: a client of its own, in a process of its own."""
    code = f'''
import json, sys, time
from decimal import Decimal as D
from gekko.domain.instrument import Instrument
from gekko.domain.order import Intent, Order, OrderType, Side
from gekko.domain.time import SystemClock
from gekko.risk.gate import Gate
from gekko.risk.limits import Limits
from gekko.risk.view import BookView
from gekko.venue.venues import open_venue
from gekko.venue.wire.secret import access_of
v = open_venue(access_of(json.loads(sys.stdin.read())), SystemClock(), symbols=['BTC-USD'])
v.connect()
i = v.instruments()['BTC-USD']
view = BookView('x', 'USD', {{'BTC-USD': i}}); view.deposit(D(10**9)); view.mark('BTC-USD', v.quote('BTC-USD').mid, time.time_ns())
price = i.price(v.quote('BTC-USD').bid * D('0.9')) if {resting} else None
intent = Intent('BTC-USD', Side('{side}'), D('{qty}'), OrderType.LIMIT if price else OrderType.MARKET, price)
v.submit(Gate(Limits(), {{'BTC-USD': i}}, SystemClock()).check(Order('app_' + str(time.time_ns()), intent), view))
until = time.time() + 20
said = []
while time.time() < until and not any(type(e).__name__ in (('Accepted',) if price else ('Filled',)) for e in said):
    said += v.drain(); time.sleep(0.02)
assert any(type(e).__name__ == 'Accepted' for e in said), said
v.close()
'''
    subprocess.run([sys.executable, '-c', code], input=json.dumps(card), text=True, check=True, timeout=60, env={**os.environ, 'PYTHONWARNINGS': 'ignore'})


def test_a_killed_desk_is_started_again_and_the_notebook_goes_on(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bar='1s', bars=8, policy='flatten'))
        opened(home, card)
        first = desk_of(home)['pid']
        os.kill(first, signal.SIGKILL)
        done = one_line(ended(run))
        assert done['state'] == 'done' and the_same(home, card) != {}
        assert len([r for r in records(home, card) if isinstance(r, RunOpened)]) == 1 and written(home, card, Note)
        assert len([r for r in records(home, card) if isinstance(r, LeaseTaken)]) == 2
        assert len(asked(card, 'orders')['orders']) == len(book_of(home, account_of(card)).orders)


def test_when_desk_and_kernel_die_the_desk_that_follows_carries_out_the_policy(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'coinbase') as card:
        pulse = tmp_path / 'pulse'
        run = launch(home, *live(home, 'coinbase', bar='1s', bars=9, policy='flatten', stop_at=1, pulse=pulse))
        kernel = int(wait_for(lambda: pulse.exists() and pulse.read_text(), 'the notebook at its second bar'))
        for pid in (kernel, desk_of(home)['pid']): os.kill(pid, signal.SIGKILL)
        killed = one_line(ended(run), 1)
        assert killed['state'] == 'killed'
        assert the_same(home, card) == {} and [r.policy for r in records(home, card) if isinstance(r, PolicyTaken)] == ['flatten']


def test_what_a_power_cut_left_is_ended_by_hand(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bar='1s', bars=99, policy='flatten'))
        opened(home, card)
        power_cut(home, run)
        said = one_line(gekko(home, 'desk', 'recover', 'binanceus', '--json'))
        assert said['positions'] == {} and 'taken up by hand' in said['state']
        assert the_same(home, card) == {}
        assert one_line(gekko(home, 'desk', 'recover', 'binanceus', '--json'))['state'] == 'nothing was left open'


def test_a_desk_that_stands_still_for_longer_than_its_lease_sends_nothing_more(tmp_path: Path) -> None:
    """Stopped, its account taken by another, and woken up again while its notebook goes on asking for more."""
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bar='1s', bars=99, policy='hold'), GEKKO_LEASE_S='2')
        opened(home, card)
        desk = desk_of(home)['pid']
        os.kill(desk, signal.SIGSTOP)
        try:
            time.sleep(2.5)
            said = one_line(gekko(home, 'desk', 'recover', 'binanceus', '--policy', 'hold', '--json', GEKKO_LEASE_S='2'))
            assert said['run'] and verify(settings_of(home).ledger).ok
            before = len(asked(card, 'orders')['orders'])
        finally: os.kill(desk, signal.SIGCONT)
        stopped = ended(run)
        assert stopped.returncode != 0
        assert len(asked(card, 'orders')['orders']) == before
        the_same(home, card)


def test_orders_made_elsewhere_are_booked_and_left_alone(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bar='1s', bars=12, policy='hold'), GEKKO_LEASE_S='3')
        opened(home, card)
        outside(card, 'buy', '0.5')
        outside(card, 'buy', '0.25', resting=True)
        power_cut(home, run)
        said = one_line(gekko(home, 'desk', 'check', 'binanceus', '--json'))
        assert said['agree'] and said['open'] == 1
        found = [r for r in records(home, card) if isinstance(r, External)]
        assert len(found) == 2 and all(r.policy == 'quarantine' and r.evidence for r in found)
        book, (cash, held) = book_of(home, account_of(card)), theirs(card)
        assert book.account.qty('BTC-USD') == held['BTC'] and book.account.cash['USD'] == cash and not book.faults
        one_line(gekko(home, 'desk', 'recover', 'binanceus', '--policy', 'hold', '--json'))
        (left,) = book_of(home, account_of(card)).open_orders
        assert left.intent.qty == D('0.25') and left.intent.reason == 'quarantined', 'the run was ended, and somebody else\'s order works on'


def test_money_that_nobody_can_explain_stops_trading_until_somebody_has_looked(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'coinbase') as card:
        one_line(gekko(home, *live(home, 'coinbase', bars=1)))
        asked(card, 'wallet', {'asset': 'USD', 'amount': '-250'})
        refused = gekko(home, *live(home, 'coinbase', bars=1))
        assert refused.returncode == 3 and 'the books and the venue differ' in refused.stdout
        shown = gekko(home, 'desk', 'check', 'coinbase')
        assert shown.returncode == 3 and 'the books' in shown.stdout and 'cash' in shown.stdout
        assert gekko(home, 'desk', 'accept', 'coinbase', '--reason', ' ').returncode == 2
        assert 'accepted' in ok(gekko(home, 'desk', 'accept', 'coinbase', '--reason', 'a fee of the bank'))
        again = one_line(gekko(home, *live(home, 'coinbase', bars=1)))
        assert again['state'] == 'done' and written(home, card, Corrected) and written(home, card, Differed)
        the_same(home, card)


def test_a_difference_found_while_trading_halts_the_run_and_ends_with_it(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        run = launch(home, *live(home, 'binanceus', bar='1s', bars=40, policy='hold', reconcile_s=1))
        opened(home, card)
        asked(card, 'wallet', {'asset': 'USD', 'amount': '-250'})
        wait_for(lambda: 'the books and the venue differ' in status_of(home).halted, 'the halt')
        asked(card, 'wallet', {'asset': 'USD', 'amount': '250'})
        wait_for(lambda: not status_of(home).halted, 'the end of the halt')
        run.send_signal(signal.SIGTERM)
        ended(run)
        the_same(home, card)
