"""A notebook's run over two venues at once, through real processes: legs where they are cheapest, a member that breaks, a desk that is killed, and books that are the sum of both."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_stage import BIN, STRATEGIES, desk_of, ended, environ, gekko, launch, notebook, one_line, settings_of, tidy, told, wait_for
from live_stage import asked, book_of, theirs
from test_live_faults import power_cut

from gekko.domain.account import Account
from gekko.domain.errors import BadInput, Reject
from gekko.domain.order import Amended, Filled, Order, OrderState, Side, TimeInForce
from gekko.domain.time import SECOND, SystemClock, iso
from gekko.ledger.database import exists
from gekko.ledger.events import LeaseTaken, ParentClosed, ParentOpened, RunOpened
from gekko.ledger.journal import read_entries, verify
from gekko.ledger.lease import acquire
from gekko.ledger.replay import Book
from gekko.venue.binanceus.roll import split_name

D = Decimal
BOTH = 'binanceus,coinbase'
ACCOUNT = 'routed-binanceus-main-coinbase-main'
BPS = {'binanceus': D(10), 'coinbase': D(60)}
MARKET: dict[str, tuple[str, str, int]] = {'binanceus': ('60001', '0.3', 5), 'coinbase': ('59691', '0.3', 1)}      # mid, size of a level, levels; the spread is two dollars

STEPS = ("""mode = 'live'
venue = ''
bar = '1s'
targets = [0.8]
policy = 'hold'
algo = ''
over = ''
reconcile_s = 3.0
pulse = ''               # the file that is written at the second decision""", """from decimal import Decimal
from pathlib import Path
from gekko.api import open_run
run = open_run(['BTC-USD'], mode=mode, venue=venue, bar=bar, bars=len(targets), window=5, policy=policy, algo=algo, over=over, reconcile_s=reconcile_s)
for n, window in enumerate(run):
    if n == 1 and pulse: Path(pulse).write_text('here')
    if n < len(targets): run.target(units={'BTC-USD': Decimal(str(targets[n]))})
result = run.finish()
print(result.final_equity)""")


@dataclass
class Boxes:
    """Both sandboxes, whose markets are set again and again to the same prices and sizes; what is named in `still` is left alone."""
    cards: dict[str, dict[str, str]]
    pids: dict[str, int]
    still: set[str]
    over: bool = False

    def tick(self) -> None:
        while not self.over:
            for name, (price, size, levels) in MARKET.items():
                if name in self.still: continue
                with suppress(OSError): asked(self.cards[name], 'market', {'symbol': 'BTC-USD', 'price': price, 'size': size, 'levels': levels, 'spread': '2'})
            time.sleep(0.25)


@contextmanager
def boxes(home: Path, market: str = 'still') -> Iterator[Boxes]:
    with ExitStack() as stack:
        made: dict[str, dict[str, str]] = {}
        pids: dict[str, int] = {}
        for name in BPS:
            p = launch(home, 'sandbox', 'serve', name, '--json', '--market', market, '--symbols', 'BTC-USD')
            stack.callback(end, p)
            assert p.stdout is not None
            made[name], pids[name] = json.loads(p.stdout.readline()), p.pid
            one_line(subprocess.run([str(BIN / 'gekko'), 'venue', 'add', name, '--json'], env=environ(home), input=json.dumps(made[name]), capture_output=True, text=True, timeout=60))
        both = Boxes(made, pids, set() if market == 'still' else set(BPS))
        ticking = threading.Thread(target=both.tick)
        ticking.start()
        try: yield both
        finally:
            both.over = True
            ticking.join()


def end(p: subprocess.Popen[str]) -> None:
    p.terminate()
    p.communicate(timeout=20)


def live(home: Path, *targets: float, venue: str = BOTH, **params: object) -> list[object]:
    return ['run', notebook(home.parent / 'steps.ipynb', *STEPS), '--mode', 'live', '--venue', venue, '-p', 'targets', json.dumps(targets), *told(params), '--json']


def records(home: Path) -> list[Any]:
    if not exists(settings_of(home).ledger): return []
    try: return [e.record for e in read_entries(settings_of(home).ledger, ACCOUNT)]
    except BadInput: return []      # a ledger that is being made


def fills(home: Path, venue: str = '') -> list[Filled]: return [r for r in records(home) if isinstance(r, Filled) and r.fill.fill_id.startswith(venue)]


def legs_of(home: Path) -> dict[str, list[Order]]:
    """Every parent's legs; no order is without one, or goes nowhere."""
    out: dict[str, list[Order]] = {}
    for o in book_of(home, ACCOUNT).orders.values():
        assert o.intent.parent and o.intent.venue in BPS, o
        out.setdefault(o.intent.parent, []).append(o)
    return out


def never_above(home: Path) -> None:
    """At every line of the journal, what a parent's legs have filled and may still fill is no more than its size."""
    sizes = {r.parent.parent_id: r.parent.qty for r in records(home) if isinstance(r, ParentOpened)}
    book, entries = book_of(home, ACCOUNT), list(read_entries(settings_of(home).ledger, ACCOUNT))
    parents = {n: o.intent.parent for n, o in book.orders.items()}
    reach, before = dict.fromkeys(sizes, D(0)), dict[str, Decimal]()
    again = Book(Account(ACCOUNT))
    for e in entries:
        again.apply(e)
        name = getattr(e.record, 'client_id', '')
        if name not in again.orders or name not in parents: continue
        o = again.orders[name]
        now = o.filled if o.state.terminal else max(o.intent.qty, o.filled)
        reach[parents[name]] += now - before.get(name, D(0))
        before[name] = now
        assert reach[parents[name]] <= sizes[parents[name]], (e, reach, sizes)


def sums(home: Path, both: Boxes) -> dict[str, Decimal]:
    """Our books and both venues', to the last unit, nothing open and nothing strange; what is held in all."""
    book = book_of(home, ACCOUNT)
    assert not book.faults and not book.open_orders and not book.parents and verify(settings_of(home).ledger).ok
    said = [theirs(card) for card in both.cards.values()]
    held = sum((h.get('BTC', D(0)) for _, h in said), D(0))
    assert book.account.qty('BTC-USD') == held and book.account.cash['USD'] == sum(cash for cash, _ in said)
    assert len({f.fill_id for f in book.fills}) == len(book.fills)
    for name, card in both.cards.items():
        there: dict[str, Decimal] = {}
        for w in asked(card, 'orders')['orders']:      # one that was changed has a name after each change there
            n = split_name(w['client_id'])[0]
            there[n] = there.get(n, D(0)) + D(w['filled'])
        ours = {o.client_id: o.filled for o in book.orders.values() if o.intent.venue == name}
        assert {n: q for n, q in ours.items() if q} == {n: q for n, q in there.items() if q} and there.keys() <= ours.keys()
    never_above(home)
    return {'BTC': held}


def cheapest(side: Side, qty: Decimal) -> Decimal:
    """The least that `qty` costs, or the most that it brings, by the markets as they are set: told without the router."""
    rungs = []
    for name, (mid, size, levels) in MARKET.items():
        for i in range(levels):
            price = D(mid) + side.sign * (1 + D(i) / 100)
            rungs.append((price * (1 + side.sign * BPS[name] / 10_000), D(size)))
    out = D(0)
    for net, size in sorted(rungs, reverse=side is Side.SELL):
        part = min(size, qty)
        out, qty = out + net * part, qty - part
    return out


def paid(legs: list[Filled]) -> Decimal:
    """What these fills cost in all, or brought: a fee in coins is worth what they were bought for."""
    out = D(0)
    for e in legs:
        f = e.fill
        fee = f.fee if f.fee_currency == 'USD' else f.fee * f.price
        out += f.price * f.qty + f.side.sign * fee
    return out


def test_a_run_buys_and_sells_over_two_venues_at_the_best_net_price(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        bought = one_line(gekko(home, *live(home, 0.8, bar='1d')))
        assert bought['state'] == 'done' and bought['account'] == ACCOUNT
        assert paid(fills(home)) == cheapest(Side.BUY, D('0.8'))
        (legs,) = legs_of(home).values()
        assert {o.intent.venue: o.filled for o in legs} == {'coinbase': D('0.3'), 'binanceus': D('0.5')} and {o.intent.tif for o in legs} == {TimeInForce.IOC}
        assert sums(home, both)['BTC'] == D('0.7995')      # one venue keeps its fee in coins
        sold = one_line(gekko(home, *live(home, 0, bar='1d')))
        assert sold['state'] == 'done' and sums(home, both)['BTC'] == 0
        assert {f.fill.fill_id.partition('/')[0] for f in fills(home) if f.fill.side is Side.SELL} == set(BPS)      # each coin where it lies
        closed = [r for r in records(home) if isinstance(r, ParentClosed)]
        assert [r.reason for r in closed] == ['filled', 'filled'] and [r.filled for r in closed] == [D('0.8'), D('0.7995')]
        said = one_line(gekko(home, 'desk', 'check', 'coinbase,binanceus', '--json'))
        assert said['agree'] and said['account'] == ACCOUNT
        assert one_line(gekko(home, 'statement', ACCOUNT, '--venue-match', '--json'))['venue']['agreed']


def test_an_algorithm_works_over_both_and_nobody_else_may_trade_either(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        run = launch(home, *live(home, 9, bar='1d', algo='twap', over='4s'))
        wait_for(lambda: fills(home), 'the first slice', 60)
        for name in (ACCOUNT, 'binanceus-main', 'coinbase-main'):
            with pytest.raises(Reject, match=f'{name} is held by run-'): acquire(settings_of(home).ledger, name, 'another', 5.0, SystemClock())
        done = one_line(ended(run))
        assert done['state'] == 'done'
        (legs,) = legs_of(home).values()
        assert sum(o.filled for o in legs) == 9 and {o.intent.venue for o in legs if o.filled} == set(BPS)
        sums(home, both)


def test_a_strategy_that_quotes_does_so_where_it_is_cheapest(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home, 'synthetic') as both:
        for seconds in (22, 45, 90):      # the run's end is a time of day, and on a busy machine its kernel begins late
            said = one_line(gekko(home, 'run', STRATEGIES / 'quoting.ipynb', '--mode', 'live', '--venue', BOTH, '-p', 'end', iso(time.time_ns() + seconds * SECOND), '-p', 'short', 'false',
                                  '-p', 'half_spread_bps', '0.02', '-p', 'leave_bps', '0.01', '--json'))
            assert said['state'] == 'done'
            legs = [o for every in legs_of(home).values() for o in every]
            moved = [r for r in records(home) if isinstance(r, Amended)]
            if len(legs) > 3 and moved: break
        assert len(legs) > 3 and moved and all(o.intent.post_only and o.state.terminal for o in legs)
        sums(home, both)


def test_a_killed_desk_is_followed_by_one_that_knows_both_venues(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        run = launch(home, *live(home, 0.8, 0.2, 0.8, 0.3, 0.9, 0, policy='flatten'))
        for n in (1, 9):
            wait_for(lambda n=n: len(fills(home)) >= n, f'{n} fills', 60)
            os.kill(desk_of(home)['pid'], signal.SIGKILL)
        done = one_line(ended(run))
        assert done['state'] == 'done' and sums(home, both)['BTC'] == 0
        assert len([r for r in records(home) if isinstance(r, LeaseTaken)]) == 3 and len([r for r in records(home) if isinstance(r, RunOpened)]) == 1


def test_what_a_power_cut_left_over_two_venues_is_ended_by_hand(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        run = launch(home, *live(home, *[0.8, 0.3] * 20, policy='flatten'))
        wait_for(lambda: len(fills(home)) > 2, 'fills', 60)
        power_cut(home, run)
        said = one_line(gekko(home, 'desk', 'recover', BOTH, '--json'))
        assert said['positions'] == {} and 'taken up by hand' in said['state'] and said['account'] == ACCOUNT
        assert sums(home, both)['BTC'] == 0


def test_a_member_that_refuses_is_mute_or_stands_still_does_not_stop_the_run(tmp_path: Path) -> None:
    """First it answers 503, then its streams say nothing, then it is stopped and goes on; what became of its legs is known in the end."""
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        first, card = 'binanceus', both.cards['binanceus']
        run = launch(home, *live(home, *[0.8, 0.5] * 5, 0.2, reconcile_s=5))
        wait_for(lambda: len(fills(home)) > 1, 'fills', 60)
        asked(card, 'faults', [{'fault': 'server_error', 'op': 'submit', 'count': 3}])
        time.sleep(1.2)
        asked(card, 'faults', [{'fault': 'mute', 's': 1}])
        time.sleep(1.2)
        both.still.add(first)
        pid = both.pids[first]
        before = len(fills(home, 'coinbase'))
        os.kill(pid, signal.SIGSTOP)
        try: wait_for(lambda: len(fills(home, 'coinbase')) > before + 1, 'fills at the one that is left', 30)
        finally: os.kill(pid, signal.SIGCONT)
        both.still.clear()
        done = one_line(ended(run, 90))
        assert done['state'] == 'done'
        wait_for(lambda: gekko(home, 'desk', 'check', BOTH, '--wait').returncode == 0, 'agreement: the venue counts questions, too', 60)
        sums(home, both)


def test_a_member_that_is_gone_takes_only_its_own_part_with_it(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, boxes(home) as both:
        run = launch(home, *live(home, *[0.8, 0.5] * 4))
        wait_for(lambda: len(fills(home)) > 1, 'fills', 60)
        both.still.add('coinbase')
        pid = both.pids['coinbase']
        os.kill(pid, signal.SIGKILL)
        n = len(fills(home, 'binanceus'))
        wait_for(lambda: len(fills(home, 'binanceus')) > n, 'fills at the one that is left', 40)
        done = one_line(ended(run, 90))
        assert done['state'] == 'done'
        book = book_of(home, ACCOUNT)
        there = {w['client_id']: D(w['filled']) for w in asked(both.cards['binanceus'], 'orders')['orders']}
        assert {o.client_id: o.filled for o in book.orders.values() if o.intent.venue == 'binanceus' and o.filled} == {k: q for k, q in there.items() if q}
        # of what it was sent nothing is known, or that it had been accepted before the end came
        known = (OrderState.UNKNOWN, OrderState.ACCEPTED, OrderState.PARTLY_FILLED)
        assert [(o.intent.venue, o.state) for o in book.open_orders if o.intent.venue != 'coinbase' or o.state not in known] == [] and not book.faults
        never_above(home)


def test_venues_that_cannot_be_traded_together_are_refused_before_anything_happens(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home:
        for venue, why in (('binanceus,binanceus', 'each once'), ('binanceus,nyse', '"found":"nyse"'), ('binanceus,', '"found":"none"'), (BOTH, 'no credentials')):
            said = gekko(home, *live(home, 0.1, venue=venue))
            assert said.returncode == 2 and why in said.stdout, said.stdout
        assert not exists(settings_of(home).ledger)
