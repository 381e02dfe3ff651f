"""The firm's limits from the command line to the order: in force on paper and live, tightened while a run trades, loosened by two, and a kill switch that two people reset."""
from __future__ import annotations

import os
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_stage import alive, desk_of, ended, entries_of, gekko, launch, ledger_of, notebook, ok, one_line, only_run, result_of, runs_of, settings_of, sound_book, status_of, tidy, wait_for
from live_stage import asked, book_of, served
from test_live_faults import account_of

from gekko.ledger.events import Halted, IntentRecorded, Resumed
from gekko.ledger.journal import Journal, read_entries, verify
from gekko.ledger.rights import CHARTER, BoundsTaken, KillSeen, LimitPassed, LimitsSet

D = Decimal

PAPER = ("""mode = 'paper'
symbols = ['WALK', 'SIDE']
first = 0.4
later = 0.4""", """from gekko.api import open_run
run = open_run(symbols, mode=mode, window=100, limits={'max_gross': 5})
for n, window in enumerate(run):
    w = first if n < 30 else later
    run.target(weights={s: w for s in symbols})
result = run.finish()""")

LIVE = ("""mode = 'live'
venue = ''
bars = 0
step = 0.02
pace_s = 0.1""", """import time
from decimal import Decimal
from gekko.api import open_run, Intent, Side
run = open_run(['BTC-USD'], mode=mode, venue=venue, bar='1m', bars=bars, window=2, policy='hold')

class Buys:
    def __init__(self): self.next = 0.0
    def on_quote(self, quote, book):
        if time.monotonic() < self.next: return None
        self.next = time.monotonic() + pace_s
        return [Intent('BTC-USD', Side.BUY, Decimal(str(step)))]

result = run.trade(Buys())""")


def officers(home: Path) -> tuple[Path, Path]:
    """Two officers, each with a key of their own."""
    ann, bob = home.parent / 'ann.key', home.parent / 'bob.key'
    ok(gekko(home, 'risk', 'officer', 'ann', '--file', ann))
    ok(gekko(home, 'risk', 'officer', 'bob', '--file', bob, '--key', ann))
    return ann, bob


def records(home: Path, account: str, *kinds: type) -> list[Any]: return [r for e in read_entries(ledger_of(home), account) if isinstance(r := e.record, kinds)]


def test_a_paper_run_is_under_the_firms_limits(home: Path, store: Path) -> None:
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=1', '--why', 'first year'))
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=0.7', '--soft', '--why', 'first year'))
    ok(gekko(home, 'risk', 'set', 'instrument:SIDE', 'max_position_notional=450000', '--why', 'thin market'))
    said = one_line(gekko(home, 'run', notebook(home.parent / 'firm.ipynb', *PAPER), '--mode', 'paper', '-p', 'later', '0.55', '--json', GEKKO_STORE=str(store)))
    assert said['state'] == 'done'
    run = only_run(home)
    result = result_of(run)
    told = records(home, run.account, BoundsTaken, LimitPassed)
    assert isinstance(told[0], BoundsTaken) and told[0].hard['max_gross'] == '1' and told[0].source == {'max_gross': 'firm', 'SIDE max_position_notional': 'instrument:SIDE'}
    assert any(r.state == 'soft' and r.limit == 'max_gross' and r.order for r in told[1:]), 'an order over the soft level is let through and told'
    assert any(r.state == 'soft' and r.limit == 'max_gross' and not r.order for r in told[1:]), 'and so is the book'
    refused = {b.message.rpartition('(')[2] for b in result.breaches}
    assert refused <= {'set for firm)', 'set for instrument:SIDE)'} and refused, 'whoever set the limit is named'
    book = sound_book(home, run.account)
    assert verify(ledger_of(home)).ok and not book.faults


def test_a_run_without_a_mandate_has_nothing_of_it_in_its_journal(home: Path, store: Path) -> None:
    one_line(gekko(home, 'run', notebook(home.parent / 'free.ipynb', *PAPER), '--mode', 'paper', '--json', GEKKO_STORE=str(store)))
    assert not records(home, only_run(home).account, BoundsTaken, LimitPassed)


def test_what_loosens_takes_two_keys_and_what_was_asked(home: Path) -> None:
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=1', '--why', 'first year'))
    alone = gekko(home, 'risk', 'set', 'firm', 'max_gross=2', '--why', 'more')
    assert alone.returncode == 1 and 'loosens firm hard max_gross: 1 to 2' in alone.stderr
    ann, bob = officers(home)
    asked_ = one_line(gekko(home, 'risk', 'set', 'firm', 'max_gross=2', '--why', 'more', '--key', ann, '--json'))
    assert asked_['state'] == 'asked' and [r['limit'] for r in one_line(gekko(home, 'risk', 'limits', '--json')) if r['hard'] == '1']
    same = gekko(home, 'risk', 'allow', asked_['entry'], '--key', ann)
    assert same.returncode == 1 and 'a second person' in same.stderr
    ok(gekko(home, 'risk', 'allow', asked_['entry'], '--key', bob))
    [row] = one_line(gekko(home, 'risk', 'limits', '--json'))
    assert (row['hard'], row['set by'], row['why']) == ('2', 'bob', 'more') and one_line(gekko(home, 'risk', 'requests', '--json')) == []
    third = gekko(home, 'risk', 'officer', 'eve', '--file', home.parent / 'eve.key')
    assert third.returncode == 2 and not (home.parent / 'eve.key').exists(), 'a key of nobody is not left lying about'
    assert [r['what'] for r in one_line(gekko(home, 'risk', 'story', '--json'))][0].startswith('allows firm hard')


def test_a_charter_that_somebody_wrote_into_opens_no_run(home: Path, store: Path) -> None:
    ok(gekko(home, 'risk', 'set', 'firm', 'max_gross=1', '--why', 'first year'))
    with Journal.open(ledger_of(home), CHARTER, epoch=99) as forged: forged.append(LimitsSet('firm', 'hard', {'max_gross': D(9)}, 'root', 'because', asked=1), 5)
    assert verify(ledger_of(home)).ok, 'the chain is sound: only the right is missing'
    refused = gekko(home, 'run', notebook(home.parent / 'firm.ipynb', *PAPER), '--mode', 'paper', GEKKO_STORE=str(store))
    assert refused.returncode == 3 and 'counts for nothing' in refused.stderr, refused.stderr
    assert all(not r for r in (records(home, a, IntentRecorded) for a in {e.account for e in entries_of(home, CHARTER)}))


@pytest.mark.parametrize(('words', 'said'), [
    (('set', 'firm', 'max_gross=0', '--why', 'x'), 'out of range'), (('set', 'desk:x', 'max_gross=1', '--why', 'x'), 'scope of a limit'), (('set', 'firm', 'max_gross', '--why', 'x'), 'NAME=VALUE'),
    (('set', 'firm', 'max_gross=1', '--why', ' '), 'for a reason'), (('allow', '7', '--key', 'none.key'), "officer's key"), (('officer', ' ', '--file', 'x.key'), 'name of an officer')])
def test_bad_words_change_nothing(home: Path, words: tuple[str, ...], said: str) -> None:
    refused = gekko(home, 'risk', *words)
    assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    assert one_line(gekko(home, 'risk', 'story', '--json')) == []


def test_limits_tightened_while_a_live_run_trades_and_a_switch_reset_by_two(tmp_path: Path) -> None:
    """The run buys a little with each quote. A limit set meanwhile stops it at once; then the switch is thrown, taken away by hand, and only two keys let it go on, a killed desk or not."""
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus', '--symbols', 'BTC-USD') as card:
        account = account_of(card)
        job = launch(home, 'run', notebook(tmp_path / 'buys.ipynb', *LIVE), '--mode', 'live', '--venue', 'binanceus', '--json')
        try:
            def bought(n: int) -> Any: return [o for o in asked(card, 'orders')['orders']][n:] if (home / 'ledger.db').exists() or 'postgres' in ledger_of(home) else None
            wait_for(lambda: bought(3), 'three orders')
            ok(gekko(home, 'risk', 'set', 'instrument:BTC-USD', 'max_order_qty=0.01', '--why', 'enough for today'))
            wait_for(lambda: [b for b in book_of(home, account).breaches if 'set for instrument:BTC-USD' in b.message], 'a refusal that names the instrument')
            assert any(r.hard.get('symbols', {}).get('BTC-USD', {}).get('max_order_qty') == '0.01' for r in records(home, account, BoundsTaken))
            ann, bob = officers(home)
            (home / 'kill').write_text('smoke')
            wait_for(lambda: records(home, account, KillSeen), 'the throw in the journal')
            (home / 'kill').unlink()      # taken away by hand
            refused = gekko(home, 'desk', 'resume', '--desk', desk_of(home)['name'], '--json')
            assert 'two officers have not reset it' in refused.stdout + refused.stderr
            os.kill(status_of(home).pid, signal.SIGKILL)      # a crash does not undo it either
            gone = records(home, account, KillSeen)
            def back() -> bool:
                try: return status_of(home).state == 'trading' and bool(status_of(home).halted)
                except Exception: return False
            wait_for(back, 'the desk taken up again, halted')
            assert not (home / 'kill').exists() and len(records(home, account, KillSeen)) == len(gone)
            refused = gekko(home, 'desk', 'resume', '--desk', desk_of(home)['name'], '--json')
            assert 'two officers have not reset it' in refused.stdout + refused.stderr
            def reset() -> None:
                number = one_line(gekko(home, 'risk', 'reset', '--why', 'it was the toaster', '--key', ann, '--json'))['entry']
                assert 'two officers have not reset it' in gekko(home, 'desk', 'resume', '--json').stdout or gekko(home, 'desk', 'resume').returncode == 3
                ok(gekko(home, 'risk', 'allow', number, '--key', bob))
                ok(gekko(home, 'desk', 'resume'))
                assert status_of(home).halted == '' and not (home / 'kill').exists()
            reset()      # by what the account remembers, the file being gone
            assert isinstance(records(home, account, Halted, Resumed)[-1], Resumed) and book_of(home, account).killed == ''
            (home / 'kill').write_text('smoke')      # the same words, and another throw
            wait_for(lambda: len(records(home, account, KillSeen)) > len(gone), 'the second throw in the journal')
            assert len({r.trip for r in records(home, account, KillSeen)}) == 2
            (home / 'kill').write_text('fire')      # and a third before anyone has reset the second
            wait_for(lambda: len({r.trip for r in records(home, account, KillSeen)}) == 3, 'the third throw in the journal')
            assert gekko(home, 'desk', 'resume').returncode == 3
            reset()
            with Journal.open(ledger_of(home), CHARTER, epoch=99) as forged: forged.append(LimitsSet('firm', 'hard', {'max_gross': D(9)}, 'root', 'because', asked=1), 5)
            wait_for(lambda: 'counts for nothing' in status_of(home).halted, 'a halt over the charter')
            assert status_of(home).state == 'trading', 'halted, and not shut out of its account'
        finally:
            job.send_signal(signal.SIGTERM)
            ended(job)
        assert not book_of(home, account).faults and verify(ledger_of(home)).ok and 'shut out' not in only_run(home).exit_reason
        assert alive(os.getpid()) and settings_of(home).ledger


TAIL = ("""mode = 'paper'
symbols = ['WALK', 'SIDE']
limits = {'max_var': 0.02, 'max_stress': 0.3, 'max_gross': 5}""", """from gekko.api import open_run
run = open_run(symbols, mode=mode, window=100, limits=limits)
for n, window in enumerate(run): run.target(weights={'WALK': 0.2 + n % 7 / 4, 'SIDE': 0.9 - n % 5 / 4})
result = run.finish()""")

MINE = """[[scenario]]
name = 'mine'
kind = 'shock'
shocks = { WALK = -0.4 }
"""


def test_a_runs_own_tail_is_the_same_in_backtest_and_on_paper(home: Path, store: Path) -> None:
    """VaR and stress bound both alike, a user's scenario is one of them, and a rerun writes the same journal."""
    (home / 'scenarios').mkdir(parents=True)
    (home / 'scenarios' / 'mine.toml').write_text(MINE)
    book = notebook(home.parent / 'tail.ipynb', *TAIL)
    said = {mode: one_line(gekko(home, 'run', book, '--mode', mode, '--json', GEKKO_STORE=str(store))) for mode in ('backtest', 'paper')}
    assert {x['state'] for x in said.values()} == {'done'}, said
    results = {r.mode: result_of(r) for r in runs_of(home)}
    a, b = results['backtest'], results['paper']
    assert [(f.symbol, f.side, f.qty, f.price) for f in a.fills] == [(f.symbol, f.side, f.qty, f.price) for f in b.fills] and a.equity == b.equity and len(a.fills) > 20
    assert {x.limit for x in a.breaches} == {x.limit for x in b.breaches} == {'max_var', 'max_stress'} and len(a.breaches) == len(b.breaches)
    again = one_line(gekko(home, 'runs', 'rerun', said['backtest']['run_id'], '--json', GEKKO_STORE=str(store)))
    assert again['identical'] and again['journal_after'] == again['journal_before'] != ''


def test_a_scenario_that_cannot_be_read_opens_no_run(home: Path, store: Path) -> None:
    (home / 'scenarios').mkdir(parents=True)
    (home / 'scenarios' / 'mine.toml').write_text(MINE.replace('shocks', 'shock'))
    refused = gekko(home, 'run', notebook(home.parent / 'tail.ipynb', *TAIL), '--mode', 'paper', GEKKO_STORE=str(store))
    assert refused.returncode == 2 and 'mine.toml' in refused.stderr and 'shocks?' in refused.stderr, refused.stderr
