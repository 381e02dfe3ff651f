"""Promotions under trouble: two promoters at once, one that was killed, a ledger that takes nothing, rows that were slipped in; and whatever is written in whatever order, nothing is live that a second person has not signed."""
from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_stage import settings_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.desk.admission import Permit, admit, canary_of, shrunk
from gekko.desk.charter import name_officer
from gekko.desk.config import Settings
from gekko.desk.officers import Officer, new_officer
from gekko.desk.promotions import Promotions, account_here, allow_promotion, demote, keep_evidence, promote, read_promotions, take, unlawful
from gekko.desk.spec import from_json
from gekko.domain.errors import BadInput, Halt, Reject
from gekko.domain.time import DAY, SimClock, SystemClock, utc
from gekko.ledger.journal import Journal, verify
from gekko.ledger.promotions import PROMOTIONS, STAGES, Demoted, EvidenceKept, PromotionAllowed, Promoted, digest_of, key_of
from gekko.ledger.runs import RunRecord, Runs
from gekko.risk.limits import Limits, loosened

OK = [{'name': 'leaks', 'value': 0.0, 'threshold': 0.0, 'ok': True}]
UP = Promoted('d' * 64, 'e' * 64, 'trend', 'backtest', 'carl', 'carl', 'a step', evidence=OK)

PROMOTES = """
import sys
from gekko.desk.promotions import promote
from gekko.domain.errors import Reject
from gekko.domain.time import SystemClock
from gekko.ledger.promotions import Promoted
for to in ('backtest', 'paper'):
    try: print(promote(sys.argv[1], SystemClock(), Promoted('d' * 64, 'e' * 64, 'trend', to, sys.argv[2], sys.argv[2], 'a step', evidence=[{'name': 'leaks', 'ok': True}]))[0])
    except Reject: print('late')
"""

HOLDS = """
import sys, time
from gekko.desk.promotions import writing_promotions
from gekko.domain.time import SystemClock
with writing_promotions(sys.argv[1], SystemClock(), 'gone'):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    (tmp_path / 'home').mkdir()
    return settings_of(tmp_path / 'home')


@pytest.fixture
def url(here: Settings) -> str: return here.ledger


@pytest.fixture
def ann(url: str) -> Officer:
    officer = new_officer('ann')
    name_officer(url, SystemClock(), 'ann', officer.public, 'root')
    return officer


def to_live(url: str, officer: Officer) -> int:
    for to in ('backtest', 'paper'): promote(url, SystemClock(), replace(UP, to=to))
    return promote(url, SystemClock(), replace(UP, to='live'))[1]


def test_two_promoters_at_once_promote_once(url: str, ann: Officer) -> None:
    """Each of them is told what came of it: the second that it was done."""
    both = [subprocess.Popen([sys.executable, '-c', PROMOTES, url, who], stdout=subprocess.PIPE, text=True) for who in ('carl', 'dora')]
    said = [p.communicate(timeout=120)[0].split() for p in both]
    p = read_promotions(url)
    assert sorted(sum(said, [])) == ['late', 'late', 'promoted', 'promoted'] and p.seq == 2 and p.stage(UP.digest) == 'paper' and verify(url).ok


def test_a_promoter_that_was_killed_leaves_nothing_half_done(url: str, ann: Officer) -> None:
    promote(url, SystemClock(), UP)
    gone = subprocess.Popen([sys.executable, '-c', HOLDS, url], stdout=subprocess.PIPE)
    assert gone.stdout is not None and gone.stdout.readline() == b'held\n'
    gone.send_signal(signal.SIGKILL)
    gone.wait()
    assert read_promotions(url).seq == 1
    promote(url, SystemClock(), replace(UP, to='paper'))      # who is dead on this machine is not waited for
    assert read_promotions(url).stage(UP.digest) == 'paper'


@pytest.fixture
def outage(url: str) -> Iterator[Any]:
    """Something that holds the ledger, so that it takes nothing; or, on a server, the table is not there to be written."""
    if url.startswith('sqlite'):
        c = sqlite3.connect(url.removeprefix('sqlite:///'), isolation_level=None)
        yield lambda: c.execute('BEGIN IMMEDIATE'), lambda: c.execute('ROLLBACK')
        c.close()
        return
    import sqlalchemy as sa
    from gekko.ledger.database import address
    e = sa.create_engine(address(url))
    def run(text: str) -> None:
        with e.begin() as c: c.execute(sa.text(text))
    yield lambda: run('ALTER TABLE entries RENAME TO entries_away'), lambda: run('ALTER TABLE entries_away RENAME TO entries')
    e.dispose()


def test_a_ledger_that_takes_nothing_promotes_nothing(url: str, ann: Officer, outage: Any) -> None:
    """Halt or BadInput, nothing written, and the same call succeeds when the ledger is back."""
    down, up = outage
    promote(url, SystemClock(), UP)
    down()
    try:
        with pytest.raises((Halt, BadInput)): promote(url, SystemClock(), replace(UP, to='paper'))
    finally: up()
    assert read_promotions(url).stage(UP.digest) == 'backtest'
    promote(url, SystemClock(), replace(UP, to='paper'))
    assert read_promotions(url).stage(UP.digest) == 'paper' and verify(url).ok


FORGED: list[tuple[str, Any]] = [
    ('a step that was skipped', replace(UP, to='live')),
    ('no evidence', replace(UP, to='paper', evidence=[])),
    ('evidence that failed', replace(UP, to='paper', evidence=[*OK, {'name': 'luck', 'ok': False}])),
    ('evidence that only looks true', replace(UP, to='paper', evidence=[{'name': 'luck', 'ok': 'yes'}])),
    ('an officer\'s name without a key', replace(UP, to='paper', who='ann')),
    ('a signature of nobody', replace(UP, to='paper', signature='00' * 64)),
    ('an allowance of what nobody asked', PromotionAllowed(UP.digest, 1, 'ann', 'ann', '00' * 64)),
    ('a demotion of nothing', Demoted('c' * 64, 'research', 'carl', 'why')),
    ('a demotion upward', Demoted(UP.digest, 'live', 'carl', 'why')),
    ('evidence of no digest', EvidenceKept('trend', 'leakage', True, 'carl')),
]


@pytest.mark.parametrize('record', [r for _, r in FORGED], ids=[n for n, _ in FORGED])
def test_a_row_that_somebody_chained_moves_nothing(url: str, ann: Officer, record: Any) -> None:
    """Whoever can write to the database can continue the chain. What it says is judged again by each reader."""
    promote(url, SystemClock(), UP)
    with Journal.open(url, PROMOTIONS, epoch=10**6) as forged: forged.append(record, SystemClock().now())
    assert verify(url, PROMOTIONS).ok      # the chain is whole
    with pytest.raises(Halt, match='counts for nothing'): read_promotions(url)
    with pytest.raises(Halt, match='counts for nothing'): promote(url, SystemClock(), replace(UP, to='paper'))


def test_a_signature_is_of_this_request_in_this_place(url: str, ann: Officer) -> None:
    asked = to_live(url, ann)
    signed = ann.sign(PromotionAllowed(UP.digest, asked, 'ann', 'ann'), read_promotions(url).head)
    demote(url, SystemClock(), UP.digest, 'paper', 'carl', 'not yet')
    again = promote(url, SystemClock(), replace(UP, to='live'))[1]
    p = read_promotions(url)
    assert 'has not signed it' in unlawful(p, replace(signed, asked=again), p.head) and 'has not signed it' in unlawful(p, signed, p.head)
    allow_promotion(url, SystemClock(), again, ann, 'ann')
    assert read_promotions(url).stage(UP.digest) == 'live'


def test_an_older_digest_stands_until_somebody_takes_it_back(url: str, ann: Officer) -> None:
    """Back to last week's version is a way out, not a way round: it holds by its own promotion, and ends with its own demotion."""
    params, lock = {'fast': 20}, 'b2'
    old, new = (replace(UP, key=key_of(code, params, lock), digest=digest_of(key_of(code, params, lock), {}, {})) for code in ('a1', 'a2'))
    for r in (old, new): promote(url, SystemClock(), r)
    p = read_promotions(url)
    assert p.at(old.key, 'backtest') is not None and p.at(new.key, 'backtest') is not None
    demote(url, SystemClock(), old.digest, 'research', 'carl', 'superseded')
    p = read_promotions(url)
    assert p.at(old.key, 'backtest') is None and p.at(new.key, 'backtest') is not None
    with pytest.raises(Reject, match='is at research'): demote(url, SystemClock(), old.digest, 'research', 'carl', 'twice')


def test_evidence_of_an_older_digest_is_none_for_this_one(url: str, ann: Officer) -> None:
    keep_evidence(url, SystemClock(), EvidenceKept('c' * 64, 'leakage', True, 'carl'))
    keep_evidence(url, SystemClock(), EvidenceKept(UP.digest, 'leakage', True, 'carl'))
    keep_evidence(url, SystemClock(), EvidenceKept(UP.digest, 'leakage', False, 'carl', {'leaks': [{'kind': 'future'}]}))
    kept = read_promotions(url).evidence
    assert not kept[UP.digest, 'leakage'][1].ok and kept['c' * 64, 'leakage'][1].ok and len(kept) == 2      # the newest counts, for its own digest


# Whatever the order

ANN, EVE = new_officer('ann'), new_officer('eve')
PEOPLE = {o.name: o for o in (ANN, EVE)}
steps = st.lists(st.one_of(
    st.tuples(st.just('up'), st.sampled_from(STAGES), st.sampled_from(['carl', 'ann', 'eve']), st.booleans(), st.booleans()),
    st.tuples(st.just('allow'), st.integers(1, 12), st.sampled_from(['carl', 'ann', 'eve']), st.sampled_from(['carl', 'ann'])),
    st.tuples(st.just('down'), st.sampled_from(STAGES))), max_size=24)


def record_of(step: tuple[Any, ...], prev: str) -> Any:
    match step:
        case 'up', to, who, signed, holds:
            made = replace(UP, to=to, who=who, evidence=[{'name': 'leaks', 'ok': holds}])
            return PEOPLE[who].sign(made, prev) if signed and who in PEOPLE else made
        case 'allow', asked, who, user:
            allowed = PromotionAllowed(UP.digest, asked, who, user)
            return PEOPLE[who].sign(allowed, prev) if who in PEOPLE else allowed
    return Demoted(UP.digest, step[1], 'carl', 'why')


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps)
def test_in_whatever_order_nothing_is_live_without_two_people(plan: list[tuple[Any, ...]]) -> None:
    """Each lawful record moves by one stage up, or down; to live only another person's signature does, on what was asked last."""
    p, asks = Promotions(officers={'ann': ANN.public}), None
    for n, step in enumerate(plan, 1):
        r, was = record_of(step, f'{n:064}'), p.stage(UP.digest)
        if unlawful(p, r, f'{n:064}'): continue
        take(p, r, n, n)
        now = p.stage(UP.digest)
        if isinstance(r, Promoted):
            assert all(i['ok'] for i in r.evidence) and STAGES.index(r.to) == STAGES.index(was) + 1
            asks = (n, r) if r.to == 'live' else None
            assert now == (was if r.to == 'live' else r.to)
        elif isinstance(r, PromotionAllowed):
            assert asks is not None and asks[0] == r.asked and r.who == 'ann' != asks[1].who and (asks[1].signature or r.user != 'carl') and now == 'live'
            asks = None
        else:
            assert STAGES.index(now) <= STAGES.index(was) and not p.asked
            asks = None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(['max_gross', 'max_net', 'max_order_qty', 'max_position_notional', 'max_var']), st.decimals('0.01', '9', places=2), max_size=5), st.decimals('0.01', '1', places=2))
def test_a_canarys_limits_are_never_wider(values: dict[str, Any], share: Any) -> None:
    whole = Limits(**values, symbols={'BTC-USD': {'max_order_qty': values.get('max_order_qty')}} if 'max_order_qty' in values else {})
    small = shrunk(whole, share)
    assert loosened(whole, small) == () and all(getattr(small, n) == x * share for n, x in values.items())


def test_a_canary_ends_by_what_was_lived_through(url: str, ann: Officer) -> None:
    """Days and bars since the promotion, of runs that ended well, of this key: not of another, not of before."""
    params = {'fast': 20}
    key = key_of('a1', params, 'b2')
    clock = SimClock(utc('2020-01-10'))
    for to in ('backtest', 'paper', 'live'): _, entry = promote(url, clock, replace(UP, key=key, to=to, rules={'canary': 0.25, 'canary_days': 2, 'canary_bars': 10}))
    allow_promotion(url, clock, entry, ann, 'ann')
    standing = read_promotions(url).held[UP.digest]
    at = clock.now()
    run = RunRecord('r', '', 'trend.ipynb', 'live', 'oanda-1', 'done', params, notebook_hash='a1', lock_hash='b2', metrics={'bars': 6}, created=at + 1, started=at + 1, ended=at + 2)
    tomorrow = replace(run, started=at + DAY, ended=at + DAY + 1)
    for lived, over in (([run], False), ([run, run], False), ([run, tomorrow], True), ([run, replace(tomorrow, state='killed')], False), ([run, replace(tomorrow, exit_reason='halted: max_drawdown')], False),
                        ([run, replace(tomorrow, notebook_hash='a2')], False), ([run, replace(tomorrow, created=at - 1)], False), ([run, replace(tomorrow, mode='paper')], False)):
        assert canary_of(standing, lived).over is over


def live_now(url: str, officer: Officer, limits: dict[str, Any], clock: SimClock) -> RunRecord:
    """A strategy of carl's that is live, and its run as it begins."""
    params = {'fast': 20, 'venue': 'oanda'}
    key = key_of('a1', params, 'b2')
    for to in ('backtest', 'paper', 'live'): _, entry = promote(url, clock, replace(UP, key=key, to=to, subject={'code': 'a1', 'params': params, 'lock': 'b2'}, limits=limits))
    allow_promotion(url, clock, entry, officer, 'ann')
    return Runs(url).put(RunRecord('r1', '', 'trend.ipynb', 'live', 'oanda-1', 'running', params, notebook_hash='a1', lock_hash='b2', created=clock.now()))


def test_a_canary_that_sets_no_bound_has_one(here: Settings, url: str, ann: Officer) -> None:
    """Neither by limits that are off nor by rules that say nothing of a canary does a new strategy begin whole; and one size is that of one account."""
    live = here.model_copy(update={'promotion': 'live'})
    live_now(url, ann, {'max_gross': 'off'}, SimClock(utc('2020-01-10')))
    small = admit(live, 'r1', from_json({'symbols': ['EUR-USD'], 'venue': 'oanda', 'limits': {'max_gross': 'off'}}))
    assert small.share == Decimal('0.1') and Limits.from_dict(small.limits).max_gross == Decimal('0.3')


def test_the_run_under_way_hears_of_it_when_somebody_takes_it_back(here: Settings, url: str, ann: Officer) -> None:
    """Whoever does so, and even where the clock was set back; another strategy's fall is none of its business."""
    clock = SimClock(utc('2020-01-10'))
    live_now(url, ann, {}, clock)
    permit = Permit(here.model_copy(update={'promotion': 'live'}), 'r1', 'oanda')
    assert permit.lost() == ''
    promote(url, clock, replace(UP, digest='c' * 64, key='f' * 64))
    demote(url, clock, 'c' * 64, 'research', 'carl', 'a poor idea')
    assert permit.lost() == ''
    demote(url, SimClock(utc('2020-01-09')), UP.digest, 'paper', 'carl', 'too lucky')
    assert permit.lost() == 'it was demoted to paper: too lucky' and read_promotions(url).history[-1][1] == clock.now()


def test_what_two_people_must_sign_one_cannot_sign_twice(url: str, ann: Officer) -> None:
    """By another spelling of one's name, or from an account that the environment makes up."""
    for to in ('backtest', 'paper'): promote(url, SystemClock(), replace(UP, to=to))
    for who in ('ANN', ' ann', '\uff41nn', 'a n n'):
        asked = promote(url, SystemClock(), replace(UP, to='live', who=who, user='elsewhere'))[1]
        with pytest.raises(Reject, match='a second person allows it'): allow_promotion(url, SystemClock(), asked, ann, 'ann')
    said = subprocess.run([sys.executable, '-c', 'from gekko.desk.promotions import account_here; print(account_here())'], env={**os.environ, 'LOGNAME': 'bob', 'USER': 'bob', 'USERNAME': 'bob'}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == account_here()
