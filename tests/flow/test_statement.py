"""A day on a venue, through real sockets: our statement is the venue's own account to the last unit, and what was tampered with is found and nothing else."""
from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from desk_stage import at_once, ended, gekko, ladder, launch, ledger_of, one_line, status_of, told, wait_for

from gekko.desk.closing import venue_day
from gekko.desk.funding import hear_fundings
from gekko.desk.live import LiveRun
from gekko.desk.opening import account_of, open_live
from gekko.desk.positions import PositionService
from gekko.desk.spec import RunSpec
from gekko.desk.trader import decide, send
from gekko.domain.account import pnl
from gekko.domain.money import trim
from gekko.domain.order import Intent, OrderType, Side
from gekko.domain.time import DAY, SystemClock
from gekko.ledger.days import UTC_DAY
from gekko.ledger.events import DayClosed
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.match import match
from gekko.ledger.replay import replay
from gekko.ledger.settlement import settlements
from gekko.ledger.statement import Statement, day_statement
from gekko.venue.sandbox.serve import Running, sandbox
from gekko.venue.venues import open_venue
from gekko.venue.wire.secret import access_of, save_access

D = Decimal
TRADED = {'binanceus': ('BTC-USD', '0.5', '0.2', '50000'), 'coinbase': ('BTC-USD', '0.5', '0.2', '50000'), 'oanda': ('EUR-USD', '10000', '4000', '1.1')}
LOOSE = {'max_gross': None, 'collar_bps': None, 'max_order_notional': None, 'max_orders_per_minute': None, 'stale_after_s': 3600}


@dataclass
class Stage:
    """A venue's sandbox in this process, a live run on it, and its books."""
    box: Running
    run: LiveRun
    home: Path
    url: str
    symbol: str

    def until(self, true: Callable[[], bool], patience_s: float = 10.0) -> None:
        end = time.monotonic() + patience_s
        while not true():
            assert time.monotonic() < end, [str(o) for o in self.run.trader.tracker.open()]
            self.run.pump()
            time.sleep(0.005)

    def hold(self, qty: str) -> None:
        t = self.run.trader
        assert decide(t, units={self.symbol: D(qty)}, band=D(0)), t.refusals
        self.until(lambda: not t.tracker.open())
        assert abs(t.view.account.qty(self.symbol) - D(qty)) < D(qty) / 100, t.refusals      # a fee can be kept back in the coin

    def asked(self, path: str) -> Any:
        """The control endpoint: what the sandbox knows itself, beside what its API says."""
        r = urllib.request.Request(f'{self.box.card["control"]}/{path}', None, {'X-Sandbox': self.box.card['token']})
        with urllib.request.urlopen(r, timeout=20) as answer: return json.loads(answer.read())

    def statement(self, day: str = '') -> Statement:
        t = self.run.trader
        t.journal.commit()
        return day_statement(read_entries(self.url, t.view.account.name), day or UTC_DAY.day_of(t.clock.now()))


@contextmanager
def trading(venue: str, folder: Path) -> Iterator[Stage]:
    symbol, _, _, price = TRADED[venue]
    clock, home = SystemClock(), folder / 'home'
    home.mkdir()
    with sandbox(venue, symbols=(symbol,), market='still') as box:
        box.set_price(symbol, price)
        access = access_of(box.card)
        save_access(home, dict(box.card))
        url = ledger_of(home)
        journal = Journal.open(url, account_of(access), writer=True)
        there = open_venue(access, clock, symbols=(symbol,))
        there.connect()
        spec = RunSpec(symbols=(symbol,), venue=venue, bar='1s', window=1, limits=LOOSE)
        run = open_live(there, access.credentials.account, spec, journal, None, clock, run_id='r1', strategy='by-hand', lineage='ab12', may_send=lambda: True, kill=lambda: '')
        try: yield Stage(box, run, home, url, symbol)
        finally:
            run.finish()
            journal.close()


@pytest.fixture(params=sorted(TRADED))
def venue(request: pytest.FixtureRequest) -> str: return str(request.param)


def cash_and_size(venue: str, stage: Stage, s: Statement) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Dollars and size: the statement's, and the sandbox's own. A dealer's balance is our cash and what the open positions cost."""
    said = stage.asked('account')
    held = s.held.get(stage.symbol, D(0))
    if venue != 'oanda':
        wallets = {c: D(b['free']) + D(b['locked']) for c, b in said['balances'].items()}
        return s.closing['USD'], wallets['USD'], held, wallets['BTC']
    return s.closing['USD'] + sum((h.cost for h in s.positions if h.qty), D(0)), D(said['balances']['USD']), held, D(said['positions'].get(stage.symbol, '0'))


def test_a_day_on_a_venue_is_the_venues_to_the_last_unit(venue: str, tmp_path: Path) -> None:
    symbol, much, less, price = TRADED[venue]
    with trading(venue, tmp_path) as stage:
        t = stage.run.trader
        stage.hold(much)
        stage.box.set_price(symbol, D(price) * D('1.0123'))
        stage.until(lambda: t.view.marks[symbol] > D(price))
        stage.hold(less)
        hear_fundings(t)
        s, book = stage.statement(), replay(read_entries(stage.url, t.view.account.name))
        ours, theirs, size, there = cash_and_size(venue, stage, s)
        assert (ours, size) == (theirs, there) and size == t.view.account.qty(symbol)
        assert s.total is not None and not s.total.gap and s.total.realised > 0 and sum(x.fills for x in s.traded) == len(book.fills) >= 2
        # the profit that ran is the profit that is replayed, and the statement's
        assert not book.faults and pnl(book.account, t.view.marks) == pnl(t.view.account, t.view.marks)
        marked = day_statement(read_entries(stage.url, t.view.account.name), s.day, marks=t.view.marks)
        assert marked.total is not None and marked.total.closing == t.view.equity
        assert marked.total.pnl == pnl(t.view.account, t.view.marks).net
        # the venue's word on the day, and each thing that is tampered with, alone
        said = venue_day(t.venue, s)
        assert match(s, said) == []
        for tampered, what in ((replace(said, cash={**said.cash, 'USD': said.cash['USD'] + D('0.01')}), 'cash'), (replace(said, positions={}), 'position'), (replace(said, fills=said.fills[1:]), 'fill'),
                               (replace(said, fills=(replace(said.fills[0], fee=said.fills[0].fee + 1), *said.fills[1:])), 'fee')):
            assert [b.what for b in match(s, tampered)] == [what]
        rules = {r.rule for r in settlements(s.fills, s.instruments, s.end)}
        assert rules == ({'T+2'} if venue == 'oanda' else {'T+0'})


def test_positions_are_live_and_the_days_profit_is_the_journals(venue: str, tmp_path: Path) -> None:
    symbol, much, less, price = TRADED[venue]
    with trading(venue, tmp_path) as stage:
        t = stage.run.trader
        service = PositionService(t, every_s=0.0)
        stage.hold(much)
        stage.hold(less)
        below = t.instruments[symbol].price(D(price) * D('0.9'))
        send(t, [Intent(symbol, Side.BUY, D(less), OrderType.LIMIT, limit=below)])
        stage.until(lambda: any(o.venue_id for o in t.tracker.open()))
        t.journal.commit()
        service.reply()
        service.wait()
        r = service.reply()
        (line,) = r.positions
        assert (line.qty, line.buys, line.realised_today) == (t.view.account.qty(symbol), D(less), line.realised) and line.age is not None and r.told and not r.problem
        s = stage.statement()
        assert s.total is not None
        assert r.equity == trim(t.view.equity) and r.cash == {c: trim(x) for c, x in s.closing.items()} and r.realised == trim(s.total.realised)
        assert r.day_pnl == trim(t.view.equity - s.total.opening - s.total.deposits)
        if venue == 'oanda': assert r.margin_used and r.margin_free and r.closeout is not None and r.margin_used + r.margin_free <= r.equity + 1
        else: assert r.margin_used is None and r.locked == {'USD': r.locked['USD']} and r.locked['USD'] >= trim(below * D(less)) and r.free['BTC'] == s.held[symbol]


def test_a_night_at_a_dealer_is_in_the_statement(tmp_path: Path) -> None:
    with trading('oanda', tmp_path) as stage:
        t = stage.run.trader
        stage.hold('10000')
        stage.box.advance(3 * 86_400)      # a weekend is charged on its Wednesday, so one night may bring nothing
        before = t.funding
        stage.until(lambda: bool(hear_fundings(t)) or t.funding != before)
        days = [stage.statement(UTC_DAY.day_of(t.clock.now() + n * DAY)) for n in range(4)]
        assert sum((s.bridge('USD').funding for s in days), D(0)) and all(a.closing == b.opening for a, b in zip(days, days[1:]))
        ours, theirs, size, there = cash_and_size('oanda', stage, days[-1])
        assert (ours, size) == (theirs, there)
        last = venue_day(t.venue, days[-1])
        assert all(match(s, venue_day(t.venue, s)) == [] for s in days)
        night = next(s for s in days if s.fundings and s.bridge('USD').funding)
        said = venue_day(t.venue, night)
        assert said.fundings and [b.what for b in match(night, replace(said, fundings=said.fundings[1:]))] == ['funding'] and last.asked == 0


def test_a_day_is_closed_beside_the_trading_and_the_next_opens_from_it(tmp_path: Path) -> None:
    with trading('coinbase', tmp_path) as stage:
        t = stage.run.trader
        stage.hold('0.5')
        today = UTC_DAY.day_of(t.clock.now())
        real, t.clock = t.clock, Ahead(t.clock)      # type: ignore[assignment]
        stage.run.pump()
        t.clock.ahead = DAY                          # type: ignore[attr-defined]
        closed: list[DayClosed] = []
        def look() -> bool:
            closed[:] = [e.record for e in read_entries(stage.url, t.view.account.name, kinds=('day_closed',))]
            return bool(closed)
        stage.until(look)
        t.clock = real
        t.journal.commit()
        (record,) = closed
        assert record.day == today and record.statement['venue'] == {'agreed': True, 'asked': record.statement['venue']['asked'], 'breaks': []}
        entries = list(read_entries(stage.url, t.view.account.name))
        assert [e.record for e in entries if e.kind == 'day_closed'] == [record]
        tomorrow = day_statement(entries, UTC_DAY.day_of(real.now() + DAY))
        assert tomorrow.total is not None and str(tomorrow.total.opening) == record.statement['total']['closing']
        assert replay(entries).days[today] == {k: x for k, x in record.statement.items() if k != 'books'}


class Ahead:
    """The machine's clock, some time ahead."""
    def __init__(self, clock: SystemClock) -> None: self._clock, self.ahead = clock, 0
    def now(self) -> int: return self._clock.now() + self.ahead
    def monotonic(self) -> int: return self._clock.monotonic()


def test_the_command_prints_the_day_and_asks_the_venue(tmp_path: Path) -> None:
    with trading('binanceus', tmp_path) as stage:
        stage.hold('0.5')
        s, account = stage.statement(), stage.run.trader.view.account.name
        said = one_line(gekko(stage.home, 'statement', account, '--venue-match', '--json'))
        assert said['venue']['agreed'] is True and said['closing'] == {c: str(x) for c, x in s.closing.items()} and len(said['fills']) == len(s.fills)
        out = gekko(stage.home, 'statement', account, '--csv', tmp_path / 'day.csv')
        assert out.returncode == 0 and 'Closing equity' in out.stdout and (tmp_path / 'day.csv').read_text().startswith('account,day,')
        stage.box.call(lambda: stage.box.server.protocol.deposit('USD', D('-0.01')))
        broken = one_line(gekko(stage.home, 'statement', account, '--venue-match', '--json'), code=1)
        assert [b['what'] for b in broken['venue']['breaks']] == ['cash']
        stage.box.call(lambda: stage.box.server.protocol.deposit('USD', D('0.01')))
        wrong = {'no such account': ['nobody'], 'not a day': [account, '--day', '1.2.2024'], 'before the books began': [account, '--day', '1999-01-01'], 'when a day ends': [account, '--day-end', 'mars']}
        for found, refused in zip(wrong, at_once(*(partial(gekko, stage.home, 'statement', *words, '--json') for words in wrong.values()))): assert found in one_line(refused, code=2)['error']
        assert 'no desk serves' in one_line(gekko(stage.home, 'positions', '--json'), code=2)['error']



def test_a_desk_tells_what_it_holds_once_and_again(home: Path, store: Path, tmp_path: Path) -> None:
    """A notebook that has stopped at its twentieth decision, and two commands that look at its desk."""
    pulse, go = tmp_path / 'pulse', tmp_path / 'go'
    job = launch(home, 'run', ladder(tmp_path), '--mode', 'paper', *told({'stop_at': 20, 'pulse': pulse, 'go': go}), GEKKO_STORE=str(store))
    wait_for(pulse.exists, 'the twentieth decision')
    said = wait_for(lambda: next((r for r in one_line(gekko(home, 'positions', '--json')) if r['positions'][0]['realised_today'] is not None), None), 'the journal\'s word on the day')
    (line,) = said['positions']
    status = status_of(home)
    assert D(said['equity']) == status.equity and {line['symbol']: D(line['qty'])} == status.positions and said['margin_used'] is None
    assert D(said['day_pnl']) == D(line['realised_today']) + D(line['unrealised']) - D(said['fees'])      # it began today, with cash alone
    watched = launch(home, 'positions', '--watch', '--json')
    assert watched.stdout is not None
    rows = [json.loads(watched.stdout.readline()) for _ in range(2)]
    watched.send_signal(signal.SIGINT)
    assert [r[0]['equity'] for r in rows] == [said['equity']] * 2 and watched.wait(10) == 0
    watched.communicate()
    assert line['symbol'] in gekko(home, 'positions', said['desk']).stdout
    assert 'no such desk' in one_line(gekko(home, 'positions', 'nobody', '--json'), code=2)['error']
    go.touch()
    assert ended(job).returncode == 0
