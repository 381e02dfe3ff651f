"""The firm's journal and the limits it gives a run, attacked: writers at once, writers that die, signatures put elsewhere, entries that are gone, and a desk that trades meanwhile."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal as D
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from desk_stage import ledger_of, settings_of

from gekko.cli.risk import add_officer, charter_here, latched, may_reset, reset_here
from gekko.data.bars import Bars
from gekko.desk.charter import Charter, allow, ask_reset, name_officer, read_charter, set_limits, throw_of, unlawful
from gekko.desk.config import load_settings
from gekko.desk.inspecting import BLIND, EACH, inspect
from gekko.desk.officers import Officer, keep, load_officer, new_officer
from gekko.desk.oversight import Oversight, elsewhere, oversee
from gekko.desk.run import Market, Run
from gekko.desk.spec import make_spec
from gekko.desk.state import Desk
from gekko.desk.trader import LIMITS
from gekko.domain.errors import BadInput, GekkoError, Halt, Reject
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Filled, Intent, Order, Side
from gekko.domain.time import DAY, SECOND, SimClock, SystemClock, utc
from gekko.ledger.database import entries, heads, writing
from gekko.ledger.events import Deposited, IntentRecorded
from gekko.ledger.journal import Journal, verify
from gekko.ledger.rights import CHARTER, BoundsTaken, KillSeen, LimitsAsked, LimitsSet, OfficerNamed
from gekko.risk.gate import Approved, Breach
from gekko.risk.kill import KillSwitch
from gekko.risk.mandate import Change
from gekko.risk.shocks import Stresses

NOW = utc('2020-01-02')


@pytest.fixture
def url(tmp_path: Path) -> str: return ledger_of(tmp_path)


@pytest.fixture
def clock() -> SimClock: return SimClock(NOW)


@pytest.fixture
def two(url: str, clock: SimClock) -> tuple[Officer, Officer]:
    ann, bob = new_officer('ann'), new_officer('Zoë 李')
    name_officer(url, clock, ann.name, ann.public, 'root')
    name_officer(url, clock, bob.name, bob.public, 'root', ann)
    return ann, bob


def gross(x: int | str | None, level: str = 'hard') -> Change: return Change('firm', level, {'max_gross': None if x is None else D(x)})


SETS = """
import sys
from decimal import Decimal
from gekko.desk.charter import set_limits
from gekko.domain.time import SystemClock
from gekko.risk.mandate import Change
for n in range(4): set_limits(sys.argv[1], SystemClock(), Change('account:' + sys.argv[2], 'hard', {'max_gross': Decimal(9 - n)}), sys.argv[2], 'at once')
"""

HOLDS = """
import sys, time
from gekko.desk.charter import writing_charter
from gekko.domain.time import SystemClock
with writing_charter(sys.argv[1], SystemClock(), 'gone'):
    print('held', flush=True)
    time.sleep(60)
"""


def test_writers_at_once_lose_nothing(url: str) -> None:
    set_limits(url, SystemClock(), gross(9), 'carl', 'first')
    writers = [subprocess.Popen([sys.executable, '-c', SETS, url, f'a{n}'], stderr=subprocess.PIPE) for n in range(3)]
    assert [(w.communicate(timeout=60)[1], w.returncode) for w in writers] == [(b'', 0)] * 3
    c = read_charter(url)
    assert c.seq == 13 and {c.mandate.hard[f'account:a{n}']['max_gross'] for n in range(3)} == {D(6)} and verify(url).ok


def test_a_writer_that_died_is_not_waited_for(url: str) -> None:
    set_limits(url, SystemClock(), gross(9), 'carl', 'first')
    gone = subprocess.Popen([sys.executable, '-c', HOLDS, url], stdout=subprocess.PIPE)
    assert gone.stdout is not None and gone.stdout.readline() == b'held\n'
    gone.send_signal(signal.SIGKILL)
    gone.wait()
    began = time.monotonic()
    set_limits(url, SystemClock(), gross(8), 'carl', 'second')
    assert time.monotonic() - began < 5 and read_charter(url).seq == 2


def test_a_signature_is_good_once_and_in_one_place(url: str, clock: SimClock, two: tuple[Officer, Officer]) -> None:
    ann, bob = two
    set_limits(url, clock, gross(1), 'carl', 'first')
    for _ in range(2): _, asked = set_limits(url, clock, gross(2), 'carl', 'more', ann)
    allow(url, clock, asked, bob)
    set_limits(url, clock, gross(1), 'carl', 'less')
    c = read_charter(url)
    allowed = next(r for _, _, r in c.history if isinstance(r, LimitsSet) and r.asked)
    asks = next(r for _, _, r in c.history if isinstance(r, LimitsAsked))
    for r in (allowed, replace(allowed, asked=asked - 1), asks, replace(asks, who=bob.name), replace(allowed, who='ann')):
        assert unlawful(c, r, c.head), 'put again, at another place, or under another name'
        with Journal.open(url, CHARTER, epoch=10**6) as thief:
            thief.append(r, NOW)
        with pytest.raises(Halt, match='counts for nothing'): read_charter(url)
        with writing(url, 'mended') as db:
            db.execute(entries.delete().where((entries.c.account == CHARTER) & (entries.c.seq > c.seq)))
            db.execute(heads.update().where(heads.c.account == CHARTER).values(seq=c.seq, hash=c.head))
    assert read_charter(url).seq == c.seq


def test_one_person_is_one_officer(url: str, clock: SimClock, two: tuple[Officer, Officer], tmp_path: Path) -> None:
    ann, bob = two
    for name, key, said in ((ann.name, new_officer('x').public, 'an officer already'), ('eve', ann.public, 'the key of another officer'), ('eve', 'g' * 64, 'not a key'), ('eve', ann.public.upper(), 'not a key'), ('eve', 'ab', 'not a key')):
        with pytest.raises(Reject, match=said): name_officer(url, clock, name, key, 'root', ann)
    with pytest.raises(Reject, match='has not signed it'): name_officer(url, clock, 'eve', new_officer('eve').public, 'root')
    kept = keep(bob, tmp_path / 'bob.key')
    assert load_officer(kept).name == 'Zoë 李'
    kept.write_bytes(kept.read_bytes().replace('Zoë 李'.encode(), b'ann'))      # a name on another's key
    with pytest.raises(Reject, match='has not signed it'): set_limits(url, clock, gross(1), 'x', 'y') and set_limits(url, clock, gross(2), 'x', 'y', load_officer(kept))
    for mode in (0o644, 0o640, 0o604, 0o660):
        kept.chmod(mode)
        with pytest.raises(Reject, match='that others can read'): load_officer(kept)


@pytest.mark.parametrize('why', ['', '   ', 'x' * 2001, 'ä' * 1001, 'smoke \udcff'])
def test_a_reason_is_a_sentence(url: str, clock: SimClock, two: tuple[Officer, Officer], why: str) -> None:
    before = read_charter(url).seq
    with pytest.raises(BadInput): set_limits(url, clock, gross(1), 'carl', why)
    with pytest.raises(BadInput): ask_reset(url, clock, '00', why, two[0])
    assert read_charter(url).seq == before
    set_limits(url, clock, gross(1), 'carl', 'ä' * 1000)


@pytest.mark.parametrize('forged', [
    LimitsSet('firm', 'soft', {'max_gross': D(9)}, 'root', 'x'), LimitsSet('desk:x', 'hard', {'max_gross': D(1)}, 'root', 'x'), LimitsSet('firm', 'hard', {'max_gross': D(-1)}, 'root', 'x'), LimitsSet('firm', 'hard', {}, 'root', 'x'),
    LimitsSet('firm', 'hard', {'max_gross': D(9)}, 'root', 'x'), LimitsSet('firm', 'hard', {'max_gross': None}, 'root', 'x', -1), OfficerNamed('eve', 'a' * 64), Deposited(D(5))])
def test_what_nobody_may_write_is_not_believed(url: str, clock: SimClock, two: tuple[Officer, Officer], forged: Any) -> None:
    set_limits(url, clock, gross(1), 'carl', 'first')
    with Journal.open(url, CHARTER, epoch=10**6) as thief: thief.append(forged, NOW)
    with pytest.raises(Halt) as e: read_charter(url)
    assert e.value.values['reason'] == 'forked'
    with pytest.raises(Halt): set_limits(url, clock, gross('0.5'), 'carl', 'second')


def test_entries_that_are_gone_are_missed(url: str, clock: SimClock) -> None:
    for n in (5, 4, 3): set_limits(url, clock, gross(n), 'carl', 'less')
    known = read_charter(url)
    def without(last: int, head: bool) -> None:
        with writing(url, 'a thief') as db:
            db.execute(entries.delete().where((entries.c.account == CHARTER) & (entries.c.seq > last)))
            if head: db.execute(heads.update().where(heads.c.account == CHARTER).values(seq=last, hash=db.execute(sa.select(entries.c.hash).where((entries.c.account == CHARTER) & (entries.c.seq == last))).scalar()))
    without(2, False)
    for since in (None, Charter()):
        with pytest.raises(Halt, match='lost entries'): read_charter(url, since)
    without(2, True)
    assert read_charter(url).seq == 2, 'a whole chain, as far as anybody can tell who sees it for the first time'
    with pytest.raises(Halt, match='lost entries'): read_charter(url, known)
    set_limits(url, clock, gross(1), 'carl', 'again')      # as many entries as there were, and another
    with pytest.raises(Halt, match='lost entries'): read_charter(url, known)
    set_limits(url, clock, gross('0.5'), 'carl', 'again')
    with pytest.raises(Halt, match='not as it was written'): read_charter(url, known)


@pytest.mark.sqlite
def test_no_ledger_is_no_limits_and_a_broken_one_is_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    assert charter_here(settings).seq == 0 and latched(settings) == {}
    (tmp_path / 'ledger.db').write_bytes(b'not a database at all, only words' * 100)
    with pytest.raises(GekkoError): charter_here(settings)


def test_the_same_words_are_not_the_same_throw(tmp_path: Path) -> None:
    switch, names = KillSwitch(tmp_path / 'kill'), set()
    for n in range(3):
        switch.trip('operator', 'ann')      # as `gekko desk halt` does, which says no time
        os.utime(switch.path, ns=(n, n))
        found = throw_of(switch)
        assert found is not None and found[0].reason == 'operator'
        names.add(found[1])
        switch.reset('ann')
    assert len(names) == 3 and throw_of(switch) is None
    switch.trip('operator', 'ann', 7)
    one = throw_of(switch)
    os.utime(switch.path, ns=(1, 1))
    assert throw_of(switch) == one, 'a throw that says its time has that name'


def test_a_live_home_without_two_officers_is_told_what_to_do(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / 'venues').mkdir()
    (tmp_path / 'venues' / 'oanda.json').write_text('{}')
    KillSwitch(tmp_path / 'kill').trip('operator', 'carl')
    for name, said, by in (('ann', 'there are none: gekko risk officer NAME --file FILE;', None), ('bob', 'there is one: gekko risk officer NAME --file FILE --key FILE of the first;', tmp_path / 'ann.key')):
        with pytest.raises(Halt) as e: may_reset(settings)
        assert said in str(e.value) and 'then gekko risk reset --why WHY --key FILE by one officer, then gekko risk allow' in str(e.value)
        add_officer(settings, name, tmp_path / f'{name}.key', by)
    with pytest.raises(Halt, match='gekko risk reset'): may_reset(settings)


def test_what_the_file_no_longer_says_the_account_does(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    for name, by in (('ann', None), ('bob', tmp_path / 'ann.key')): add_officer(settings, name, tmp_path / f'{name}.key', by)
    with pytest.raises(BadInput, match='nothing to reset'): reset_here(settings, 'why not', tmp_path / 'ann.key')
    with Journal.open(settings.ledger, 'oanda-1') as j: j.append(KillSeen('0123456789abcdef', 'smoke', 'unknown'), NOW)
    assert latched(settings) == {'oanda-1': '0123456789abcdef'}
    asked = reset_here(settings, 'it was the toaster', tmp_path / 'ann.key')
    assert asked['stops'] == 'oanda-1'
    allow(settings.ledger, SystemClock(), asked['entry'], load_officer(tmp_path / 'bob.key'))
    assert latched(settings) == {}


# A run and its oversight.

TRADED = {s: Instrument(s, s, 'USD', lot=D('0.01'), tick=D('0.01')) for s in ('AAA', 'BBB')}
PATH = 100 * np.exp(np.cumsum(np.random.default_rng(2).normal(0, 0.01, (200, 2)), axis=0))


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    end = utc('2020-01-02') + np.arange(1, 201) * DAY
    bars = Bars(('AAA', 'BBB'), end - DAY, end, PATH, PATH * 1.001, PATH * 0.999, PATH, np.ones_like(PATH))
    with Journal.open(url, 'main') as journal:
        made = Run(Market(make_spec('AAA,BBB', bar='1d', window=100, band=0), bars, TRADED, 100, None), run_id='r', strategy='trend', lineage='r', mode='paper', account='main', journal=journal)
        made.advance()
        yield made


def under(run: Run, url: str, clock: SimClock, *steps: tuple[str, dict[str, str | None]]) -> Oversight:
    for scope, values in steps: set_limits(url, clock, Change(scope, 'hard', {n: None if x is None else D(x) for n, x in values.items()}), 'carl', 'for a test')
    o = oversee(run.trader, run.history, read_charter(url))
    assert o is not None
    return o


def buy(run: Run, symbol: str, qty: str) -> Approved | Breach: return run.trader.gate.check(Order('g-x', Intent(symbol, Side.BUY, D(qty))), run.trader.view)


def test_a_run_under_way_stays_under_what_it_began_with(run: Run, url: str, clock: SimClock, two: tuple[Officer, Officer]) -> None:
    """Loosened by two, it counts for the next run: for the look at the book as well as for its orders."""
    o = under(run, url, clock, ('firm', {'max_gross': '0.5', 'max_net': '0.5'}))
    _, asked = set_limits(url, clock, gross(3), 'carl', 'more', two[0])
    allow(url, clock, asked, two[1])
    set_limits(url, clock, Change('firm', 'hard', {'max_net': D('0.4')}), 'carl', 'less')
    o.under(read_charter(url))
    assert o.bounds is not None and (o.bounds.hard.max_gross, o.bounds.hard.max_net) == (D('0.5'), D('0.4')) == (run.trader.gate.limits.max_gross, run.trader.gate.limits.max_net)
    assert o.bounds.source == {'max_gross': 'firm', 'max_net': 'firm'}
    n = run.trader.journal.head[0]
    set_limits(url, clock, Change('account:other', 'hard', {'max_net': D(1)}), 'carl', 'not ours')
    o.under(read_charter(url))
    assert run.trader.journal.head[0] == n, 'what is not its own is not in its journal'


def test_the_firm_is_not_named_for_what_is_the_runs_own(run: Run, url: str, clock: SimClock) -> None:
    run.trader.gate.tighten(run.trader.gate.limits.__class__(max_order_qty=D(3), max_gross=None, max_positions=None, collar_bps=None, max_orders_per_minute=None))
    o = under(run, url, clock, ('firm', {'max_order_qty': '5', 'max_net': '2'}), ('instrument:BBB', {'max_order_qty': '2'}))
    run.trader.journal.commit()
    taken = [e.record for e in run.trader.journal.entries() if isinstance(e.record, BoundsTaken)][-1]
    assert taken.source == {'max_net': 'firm', 'BBB max_order_qty': 'instrument:BBB'} and o.bounds is not None
    assert '(set for' not in str(buy(run, 'AAA', '4')) and str(buy(run, 'BBB', '4')).endswith('(set for instrument:BBB)')


def test_a_lens_that_could_not_measure_comes_back_when_it_can(run: Run, url: str, clock: SimClock) -> None:
    o, t = under(run, url, clock, ('firm', {'max_var': '0.05'})), run.trader
    t.instruments['CCC'] = Instrument('CCC', 'CCC', 'USD', lot=D(1))      # type: ignore[index]
    t.view.mark('CCC', D(10), t.clock.now())
    t.view.fill(Fill('f-1', 'x', 'CCC', Side.BUY, D(5), D(10)))      # something strange came in
    o.look()
    assert t.gate.lens is None and 'max_var (which cannot be told)' in t.halts[LIMITS]
    assert getattr(buy(run, 'AAA', '1'), 'limit', '') in ('halt', 'max_var')
    t.view.fill(Fill('f-2', 'x', 'CCC', Side.SELL, D(5), D(10)))
    o.look()
    assert t.gate.lens is o.lens is not None and LIMITS not in t.halts and isinstance(buy(run, 'AAA', '1'), Approved)


def test_stress_without_a_scenario_lets_nothing_through(run: Run, url: str, clock: SimClock) -> None:
    set_limits(url, clock, Change('firm', 'hard', {'max_stress': D('0.2')}), 'carl', 'for a test')
    o = oversee(run.trader, run.history, read_charter(url), scenarios=lambda: Stresses())
    assert o is not None and 'no stress scenario covers AAA' in str(buy(run, 'AAA', '1')) and not run.trader.halts
    fresh = oversee(run.trader, run.history, read_charter(url))
    assert fresh is not None and isinstance(buy(run, 'AAA', '1'), Approved)
    refused = buy(run, 'AAA', '25000')
    assert getattr(refused, 'limit', '') == 'max_stress', 'everything quoted loses a tenth, and shares a fifth'


def test_the_days_close_is_one_scenario_however_many_bars_it_has(run: Run, url: str, clock: SimClock) -> None:
    o, t = under(run, url, clock, ('firm', {'max_var': '0.05'})), run.trader
    o.daily, n = True, len(o._closes)
    last = o._closes[-1][0]
    for k in range(1, 4): o.row(last + k * 3600 * SECOND, {'AAA': D(100 + k)})
    assert len(o._closes) == n + 1 and o._closes[-1][1][0] == 103.0 and np.isnan(o._closes[-1][1][1])
    o.row(last + 5 * 3600 * SECOND, {'BBB': D(50)})
    assert o._closes[-1][1] == (103.0, 50.0)
    o.row(last + DAY + SECOND, {'AAA': D(7), 'BBB': D(8)})
    assert len(o._closes) == n + 2 and t.gate.lens is not None


def desk_over(run: Run, url: str, tmp_path: Path) -> tuple[Desk, Any]:
    desk = Desk('main', load_settings({'GEKKO_HOME': str(tmp_path), 'GEKKO_LEDGER': url}), SimClock(NOW))
    desk.run = run
    return desk, SimpleNamespace(trader=run.trader)


def settle(o: Oversight) -> None:
    if o.reading is not None: o.reading.exception(timeout=10)


@pytest.mark.sqlite
def test_limits_that_cannot_be_read_stop_new_risk_and_are_read_again(run: Run, url: str, clock: SimClock, tmp_path: Path) -> None:
    o, (desk, live) = under(run, url, clock, ('firm', {'max_gross': '5'})), desk_over(run, url, tmp_path)
    run.trader.oversight = o
    now = EACH
    inspect(desk, live, now)
    settle(o)
    gone = tmp_path / 'gone.db'
    (tmp_path / 'ledger.db').rename(gone)
    for k in range(int(BLIND / EACH) + 3):
        inspect(desk, live, now := now + EACH)
        settle(o)
        if k < 20: assert not run.trader.halts
    assert 'could not be read for 30 s: no such ledger' in run.trader.halts[LIMITS]
    gone.rename(tmp_path / 'ledger.db')
    for _ in range(3):
        inspect(desk, live, now := now + EACH)
        settle(o)
    assert not run.trader.halts and not run.trader.view.halted and not desk.halted


def test_a_reading_that_never_ends_stops_new_risk_too(run: Run, url: str, clock: SimClock, tmp_path: Path) -> None:
    o, (desk, live) = under(run, url, clock, ('firm', {'max_gross': '5'})), desk_over(run, url, tmp_path)
    run.trader.oversight, o.reading = o, Future()
    for k in range(40): inspect(desk, live, (k + 1) * EACH)
    assert 'could not be read for 30 s' in run.trader.halts[LIMITS]


def test_a_charter_that_is_not_believed_halts_until_a_person_has_looked(run: Run, url: str, clock: SimClock, tmp_path: Path) -> None:
    o, (desk, live) = under(run, url, clock, ('firm', {'max_gross': '1'})), desk_over(run, url, tmp_path)
    run.trader.oversight, now = o, 0
    with Journal.open(url, CHARTER, epoch=10**6) as thief: thief.append(LimitsSet('firm', 'hard', {'max_gross': D(9)}, 'root', 'x'), NOW)
    for _ in range(4):
        inspect(desk, live, now := now + EACH)      # and raises nothing: whoever hears 'forked' leaves the account
        settle(o)
    assert 'counts for nothing' in desk.halted and 'counts for nothing' in run.trader.view.halted
    assert sum('counts for nothing' in e.body for e in run.trader.journal.entries() if e.kind == 'halt') == 1 and run.trader.gate.limits.max_gross == D(1)


def test_others_that_cannot_be_valued_leave_no_room(run: Run, url: str, clock: SimClock) -> None:
    with Journal.open(url, 'oanda-1') as other:
        for r in (Instrument('EUR', 'EUR', 'JPY'), Deposited(D(100_000)), IntentRecorded('g-1', Intent('EUR', Side.BUY, D(300))), Filled('g-1', Fill('f-1', 'g-1', 'EUR', Side.BUY, D(300), D(160)), 0)): other.append(r, 1)
    with pytest.raises(BadInput, match='EUR of oanda-1 cannot be valued'): elsewhere(url, 'main', 'USD', {})
