"""One strategy on its way from a backtest to a venue, by the commands that people type: what keeps it back at each step, who must sign, how small it begins, and what brings it down."""
from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk_stage import ended, gekko, launch, ledger_of, notebook, ok, one_line, result_of, runs_of, settings_of, tidy, wait_for
from live_stage import asked, served

from gekko.cli.promote import allow_promotion_here, check_promotions, demote_here, explain, list_promotions, promote_here, show_promotion
from gekko.cli.risk import add_officer
from gekko.data.store import Store
from gekko.desk.admission import admit, asked_of, canary_of
from gekko.desk.config import Settings
from gekko.desk.promotions import read_promotions
from gekko.desk.spec import from_json
from gekko.domain.errors import BadInput, Reject
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill
from gekko.domain.time import SystemClock
from gekko.jobs.evidence import case_of, of_paper
from gekko.jobs.performing import performing
from gekko.jobs.promoting import lapsed, require
from gekko.jobs.queue import Claim
from gekko.jobs.runner import Job, prepare, run_job
from gekko.jobs.schedule import Schedule
from gekko.jobs.subject import backtests_of, read_subject
from gekko.jobs.sweeping import plan_of
from gekko.jobs.when import Every
from gekko.jobs.worker import Outcome
from gekko.ledger.events import RunOpened
from gekko.ledger.journal import read_entries
from gekko.ledger.promotions import Promoted
from gekko.ledger.runs import RunRecord, Runs
from gekko.venue.wire.secret import save_access

RULE = ("""mode = 'backtest'
venue = ''
symbols = ['BTC-USD']
start = '2019-01-10'
end = ''
bars = 1
lag = 0""", 'import numpy as np\nfrom gekko.api import open_run, trade', """def weights(bars):
    return 0.5 + 0.4 * np.sign(bars.frame().pct_change().shift(lag).fillna(0.0))""", """run = open_run(symbols, mode=mode, venue=venue, bars=bars, bar='1d', start=start, end=end, window=5, fee_bps=0.5, slippage_bps=0.5, policy='hold', limits={'max_gross': 2})
result = trade(run, weights)""")
AT = {'venue': 'binanceus', 'end': '2020-05-31'}
WORDS = tuple(w for k, x in AT.items() for w in ('-p', k, x))
RULES = 'paper_days=60,paper_bars=60,canary=0.1,canary_days=1,canary_bars=1'


def momentum(rows: int = 600) -> pd.DataFrame:
    """Daily bars whose moves go on for a while: a market in which the rule earns its money."""
    rng, moves = np.random.default_rng(3), np.zeros(rows)
    for t, e in enumerate(rng.normal(0, 0.01, rows)): moves[t] = (0.5 * moves[t - 1] if t else 0) + e
    close = np.round(30_000 * np.exp(np.cumsum(moves)), 2)
    opened = np.concatenate([[30_000.0], close[:-1]])
    return pd.DataFrame({'timestamp': pd.date_range('2019-01-01', periods=rows, freq='D', tz='UTC'), 'open': opened, 'high': np.maximum(opened, close) + 1, 'low': np.minimum(opened, close) - 1, 'close': close, 'volume': 1e6})


class Way:
    """The home, the notebook, and its settings, where everything that trades must be promoted."""
    def __init__(self, home: Path) -> None:
        self.home, self.rule = home, notebook(home.parent / 'rule.ipynb', *RULE)
        Store(str(home / 'store')).write('BTC-USD', '1d', momentum(), Instrument('BTC-USD', 'BTC', 'USD', tick=Decimal('0.01'), lot=Decimal('0.00001')))
        self.env = {'GEKKO_PROMOTION': 'live', 'GEKKO_PROMOTION_RULES': RULES}

    @property
    def settings(self) -> Settings: return settings_of(self.home, **self.env)
    def call(self, *words: object, **env: str) -> Any: return gekko(self.home, *words, timeout_s=240, **{**self.env, **env})
    def step(self, to: str, **more: Any) -> dict[str, Any]: return promote_here(self.settings, self.rule, AT, to, 'a step', **more)
    def stage(self) -> str: return str(explain(self.settings, self.rule, AT)['stage'])
    def live(self) -> Any: return self.call('run', self.rule, '--mode', 'live', '--venue', 'binanceus', '--json')
    def job(self, **more: Any) -> Job: return prepare(self.rule, {**AT, **more}, 'live', self.settings)
    def scheduled(self) -> Outcome: return performing(self.settings)(Claim(Schedule('daily', Every('1d'), str(self.rule), params=dict(AT), mode='live'), 0, 1, 'w', 0), lambda run_id: True)


@pytest.fixture(scope='module')
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    with tidy(tmp_path_factory.mktemp('way') / 'home') as home, served(home, 'binanceus') as card:
        made = Way(home)
        made.card = card  # type: ignore[attr-defined]
        yield made


@pytest.fixture(scope='module')
def at_paper(way: Way) -> Way:
    """The rule, promoted to paper by what people type."""
    done = one_line(way.call('promote', way.rule, '--to', 'backtest', '--why', 'a first look', '--collect', '--seconds', '2', *WORDS, '--json'))
    assert done['state'] == 'promoted' and way.step('paper')['state'] == 'promoted'
    return way


def names(said: dict[str, Any]) -> set[str]: return {i['name'] for i in said['lacking']}


def test_nothing_is_there_and_each_line_says_what_to_type(way: Way) -> None:
    """The live job is refused before a kernel starts, with what is missing; the screen has every item with its command."""
    refused = way.live()
    said = json.loads(refused.stdout)
    assert refused.returncode == 2 and 'it lacks backtest, leaks, luck' in said['error'] and said['expected'].startswith('gekko run rule.ipynb -p venue binanceus') and said['expected'].endswith('--explain says') and said['found'] == 'stage research'
    assert not (way.home / 'runs').exists() and asked(way.card, 'orders')['orders'] == []  # type: ignore[attr-defined]
    screen = ok(way.call('promote', way.rule, *WORDS))
    for words in ('rule', 'is at research', 'gekko run rule.ipynb -p venue binanceus -p end 2020-05-31', 'gekko check leakage rule.ipynb -p venue binanceus', 'paper_bars 60 (100 unless set)', 'paper days', '≥ 60', 'parity', 'second person'): assert words in screen
    assert len(screen.splitlines()) <= 40
    assert {'stage', 'paper days', 'parity'} <= names(way.step('live'))
    assert not read_promotions(way.settings.ledger).history


def test_up_to_paper_on_evidence(at_paper: Way) -> None:
    """`--collect` made the backtest and the proof, kept with how it was made; the statistics were asked of every trial; each is written down."""
    p = read_promotions(at_paper.settings.ledger)
    (first, second), (_, kept) = [r for _, _, r in p.history if isinstance(r, Promoted)], p.evidence[explain(at_paper.settings, at_paper.rule, AT)['digest'], 'leakage']
    assert kept.ok and kept.facts['seeds'] and kept.facts['seconds'] > 0 and sum(kept.facts['tests'].values()) > 10 and kept.facts['budget_s'] == 2
    assert [i['name'] for i in first.evidence] == ['backtest', 'leaks'] and {'luck', 'deflated Sharpe', 'SPA', 'limits'} <= {i['name'] for i in second.evidence}
    shown = show_promotion(at_paper.settings, first.digest[:10])
    assert shown['stage'] == 'paper' and shown['limits']['max_gross'] == '2' and shown['rules']['luck'] == 0.01 and shown['subject']['earned']['deviation'] > 0 and all(i['ok'] for i in shown['evidence'])


def test_to_live_only_with_paper_parity_and_a_second_person(at_paper: Way) -> None:
    """Days on paper count once however often; a score that nobody measured is missing, and a bad one fails; asked for, it waits for another person."""
    way = at_paper
    asks = way.step('live')
    assert {'paper days', 'paper bars', 'parity'} == names(asks) and {n['command'] for n in asks['lacking']} == {'gekko run --mode paper rule.ipynb -p venue binanceus -p start 2020-06-01'.replace('rule.ipynb', str(way.rule))}      # on from where its backtest ends
    paper = run_job(prepare(way.rule, {'venue': 'binanceus', 'start': '2020-06-01'}, 'paper', way.settings), way.settings).record      # another history, the same strategy
    seen = of_paper(replace(case_of(read_subject(way.rule, AT, way.settings), way.settings), backtests=[paper]))      # had the backtest seen these days, they would be none
    assert [(n.item.name, n.item.value) for n in seen if not n.ok] == [('paper days', 0), ('paper bars', 0)] and 'later than 2020-08-2' in seen[0].item.why
    runs = Runs(ledger_of(way.home))
    runs.update(paper.run_id, metrics={**paper.metrics, 'equity': '1'})
    assert {'paper days', 'paper bars'} <= names(way.step('live'))      # a record that its books don't bear out
    runs.update(paper.run_id, metrics=paper.metrics)
    assert names(way.step('live')) == {'parity'}
    runs.update(paper.run_id, metrics={**paper.metrics, 'parity_score': 0.4})
    bad = way.step('live')
    assert names(bad) == {'parity'} and bad['lacking'][0]['value'] == 0.4 and paper.run_id in bad['next']
    runs.update(paper.run_id, metrics={**paper.metrics, 'parity_score': 0.999})
    asks = way.step('live')
    assert asks['state'] == 'asked' and way.stage() == 'paper'
    with pytest.raises(BadInput, match='it lacks second person'): require(way.job(), way.settings, SystemClock(), 'carl')      # asked for is not allowed
    keys = way.home.parent / 'ann.pem', way.home.parent / 'bob.pem'
    add_officer(way.settings, 'ann', keys[0])
    add_officer(way.settings, 'bob', keys[1], keys[0])
    with pytest.raises(Reject, match='that may be one person'): allow_promotion_here(way.settings, asks['entry'], keys[0])
    again = way.step('live', key=keys[1])                   # bob asks with his key, and ann may be at the same machine
    with pytest.raises(Reject, match='judged by laxer rules: paper_bars 60, not 100'): allow_promotion_here(settings_of(way.home), again['entry'], keys[0])      # ann's own rules
    runs.update(paper.run_id, metrics={**paper.metrics, 'parity_score': 0.999}, journal_head='')
    with pytest.raises(Reject, match='paper days: days on paper'): allow_promotion_here(way.settings, again['entry'], keys[0])      # the list said that it holds, and the runs don't
    runs.update(paper.run_id, journal_head=paper.journal_head)
    kept = Path(paper.executed).parent / 'source.ipynb'
    kept.rename(kept.with_suffix('.away'))
    with pytest.raises(Reject, match='cannot be measured again'): allow_promotion_here(way.settings, again['entry'], keys[0])      # a score is a number that anybody may write
    kept.with_suffix('.away').rename(kept)
    both = one_line(way.call('promotions', 'allow', again['entry'], '--key', keys[0], '--json'))
    assert both['who'] == 'ann' and both['judged again'].endswith('items hold here') and 'paper_bars 60 (100 unless set)' in both['rules'] and way.stage() == 'live'
    with pytest.raises(BadInput, match='nothing to allow'): allow_promotion_here(way.settings, again['entry'], keys[1])


def opened_of(way: Way, record: RunRecord) -> RunOpened:
    return next(e.record for e in read_entries(ledger_of(way.home), record.account, kinds=('run_opened',)) if e.record.run == record.run_id)


def test_the_first_live_run_is_a_tenth(way: Way) -> None:
    """Targets, limits and so every order are a tenth of what was promoted. What was lived through on this account says nothing of another."""
    assert 'a canary at 10 %' in show_promotion(way.settings, list_promotions(way.settings)[0]['digest'])['canary']
    first = one_line(way.live())
    record = next(r for r in runs_of(way.home) if r.run_id == first['run_id'])
    opened = opened_of(way, record)
    assert opened.spec['share'] == '0.1' and Decimal(opened.spec['limits']['max_gross']) == Decimal('0.2') and 'stale_after_s' in opened.spec['limits']
    result = result_of(record)
    assert first['state'] == 'done' and result.fills
    way.bought = sum((f.signed * f.price for f in result.fills), Decimal(0)) / result.final_equity
    assert 0 < way.bought <= Decimal('0.0901')
    standing = read_promotions(way.settings.ledger).found(list_promotions(way.settings)[0]['digest'])
    lived = Runs(way.settings.ledger).list(mode='live')
    assert [canary_of(standing, lived, account).over for account in (record.account, 'binanceus-another')] == [True, False]


@pytest.fixture(scope='module')
def running(way: Way) -> Iterator[RunRecord]:
    """The second live run, which ends when it is ended."""
    p = launch(way.home, 'run', way.rule, '--mode', 'live', '--venue', 'binanceus', '-p', 'bars', 0, '--json', **way.env)
    try: yield wait_for(lambda: next((r for r in runs_of(way.home) if r.mode == 'live' and r.state == 'running' and filled(way, r)), None), 'a live run that has bought', 100)
    finally:
        p.terminate()      # if it goes on after all
        ended(p, 240)


def filled(way: Way, r: RunRecord) -> list[Fill]:
    """The fills since the run was opened."""
    since = next((e.seq for e in read_entries(ledger_of(way.home), r.account, kinds=('run_opened',)) if e.record.run == r.run_id), None)
    return [] if since is None else [e.record.fill for e in read_entries(ledger_of(way.home), r.account, since, kinds=('fill',))]


def test_the_second_is_whole(way: Way, running: RunRecord) -> None:
    opened = opened_of(way, running)
    assert 'share' not in opened.spec and Decimal(opened.spec['limits']['max_gross']) == 2
    wait_for(lambda: sum(f.signed * f.price for f in filled(way, running)) / Decimal(opened.spec['cash']) + way.bought > Decimal('0.091'), 'it to trade the rest of the way', 240)
    assert 'full size' in show_promotion(way.settings, list_promotions(way.settings)[0]['digest'])['canary']


def test_other_parameters_limits_and_hands_are_others(way: Way, running: RunRecord) -> None:
    """What runs is what was promoted: neither a parameter, nor a looser limit, nor laxer rules, nor a notebook by hand, nor the name of a run that is over."""
    with pytest.raises(BadInput, match='what was promoted has lag 0, not 1'): require(way.job(lag=1), way.settings, SystemClock(), 'carl')
    with pytest.raises(BadInput, match='promoted to live by laxer rules: paper_bars 60, not 100'): require(way.job(), settings_of(way.home, GEKKO_PROMOTION='live'), SystemClock(), 'carl')
    spec = from_json({'symbols': ['BTC-USD'], 'venue': 'binanceus', 'limits': {'max_gross': 2}})
    assert admit(way.settings, running.run_id, spec) == spec
    with pytest.raises(BadInput, match='limits only tighten'): admit(way.settings, running.run_id, from_json({'symbols': ['BTC-USD'], 'venue': 'binanceus', 'limits': {'max_gross': 3}}))
    with pytest.raises(BadInput, match='a notebook used by hand'): admit(way.settings, 'by-hand', spec)
    over = next(r for r in runs_of(way.home) if r.mode == 'live' and r.state == 'done')
    with pytest.raises(BadInput, match='a run that is over'): admit(way.settings, over.run_id, spec)


def test_an_edit_is_another_strategy_and_the_old_one_is_itself_again(way: Way) -> None:
    text = way.rule.read_text()
    before = read_subject(way.rule, AT, way.settings)
    try:
        way.rule.write_text(text.replace('0.4 *', '0.5 *'))
        with pytest.raises(BadInput, match='no promotion of this code'): require(way.job(), way.settings, SystemClock(), 'carl')
        late = way.scheduled()
        assert late.state == 'failed' and not late.again and 'it lacks backtest' in late.reason      # told, and no run of it
        assert way.stage() == 'research'
        assert [(x.rule, x.falls) for x in lapsed(way.settings)] == [('code', False)]
        assert check_promotions(way.settings)[0]['demoted'] is False
        # judged of the bytes that were read, whatever the file is by now
        assert case_of(before, way.settings).stage == 'live' != case_of(read_subject(way.rule, AT, way.settings), way.settings).stage
    finally: way.rule.write_text(text)
    assert way.stage() == 'live' and lapsed(way.settings) == []


def test_a_module_beside_the_notebook_is_part_of_it(way: Way, tmp_path: Path) -> None:
    """Edited, it is another strategy: no backtest of it was made, and its trials are others than a sweep's of the old text."""
    module, path = tmp_path / 'edge.py', notebook(tmp_path / 'rule.ipynb', RULE[0], RULE[1] + '\nfrom edge import EDGE', RULE[2].replace('0.4', 'EDGE'), RULE[3])
    module.write_text('EDGE = 0.4\n')
    done = run_job(prepare(path, AT, 'backtest', way.settings), way.settings)
    first = read_subject(path, AT, way.settings)
    assert done.error is None and [r.run_id for r in backtests_of(way.settings, first)] == [done.record.run_id]
    assert plan_of(path, ['lag=0,1'], way.settings)[0].code == first.code == done.record.notebook_hash
    module.write_text('EDGE = 0.8\n')
    other = read_subject(path, AT, way.settings)
    assert other.digest != first.digest and backtests_of(way.settings, other) == [] and plan_of(path, ['lag=0,1'], way.settings)[0].code == other.code
    module.write_text('EDGE = 0.4\n')
    assert read_subject(path, AT, way.settings).digest == first.digest


def test_a_started_job_runs_what_was_hashed(way: Way) -> None:
    """The file is changed after the check: what executes is what was checked."""
    from gekko.jobs.runner import begin
    text, job = way.rule.read_text(), prepare(way.rule, AT, 'backtest', way.settings)
    try:
        way.rule.write_text(text.replace('0.4 *', '9.9 *'))
        record = begin(job, way.settings, SystemClock())
    finally: way.rule.write_text(text)
    kept = json.loads((Path(record.executed).parent / 'source.ipynb').read_text())
    assert kept == json.loads(text)
    Runs(ledger_of(way.home)).update(record.run_id, state='killed', exit_reason='never ran')


def test_lost_parity_takes_it_back_before_the_next_run_and_ends_the_one_under_way(way: Way, running: RunRecord) -> None:
    """By rule, at the moment of the run; and what came before does not outlive it: new days on paper are asked for."""
    live = next(r for r in runs_of(way.home) if r.mode == 'live' and r.state == 'done')
    Runs(ledger_of(way.home)).update(live.run_id, metrics={**live.metrics, 'parity_score': 0.7})
    assert 'promoted to live no longer: expected parity of' in way.scheduled().reason
    assert way.stage() == 'paper' and read_promotions(way.settings.ledger).history[-1][2].rule == 'parity'
    with pytest.raises(BadInput, match='it was demoted to paper: parity of'): require(way.job(), way.settings, SystemClock(), 'carl')
    assert {'paper days', 'paper bars', 'parity'} == names(way.step('live'))
    run = wait_for(lambda: next((r for r in runs_of(way.home) if r.run_id == running.run_id and r.state != 'running'), None), 'the run under way to be ended', 240)
    assert run.state == 'killed' and 'its promotion was taken back: it was demoted to paper: parity of' in run.exit_reason
    assert [e.record.policy for e in read_entries(ledger_of(way.home), run.account, kinds=('policy',))] == ['hold']
    down = demote_here(way.settings, 'rule.ipynb', 'research', 'the idea was poor')
    assert [(d['from'], d['to']) for d in down] == [('paper', 'research')] and list_promotions(way.settings) == []


def test_where_money_is_real_it_is_asked_for_unless_somebody_says_otherwise(way: Way, tmp_path: Path) -> None:
    card = {'venue': 'coinbase', 'account': 'nobody', 'key': 'k', 'secret': 's'}
    home = tmp_path / 'home'
    for rest, promotion, stage in (('https://api.coinbase.com', '', 'live'), ('https://api-sandbox.coinbase.com', '', ''), ('http://127.0.0.1:1', '', ''), ('http://127.0.0.1:1', 'live', 'live'), ('https://api.coinbase.com', 'off', '')):      # nobody is an officer here
        save_access(home, {**card, 'rest': rest})
        settings = settings_of(home, **({'GEKKO_PROMOTION': promotion} if promotion else {}))
        assert asked_of(settings, 'live', 'coinbase') == stage and asked_of(settings, 'paper') == asked_of(settings, 'backtest') == ''
    save_access(home, {**card, 'rest': 'https://api.coinbase.com'})
    add_officer(settings_of(home), 'ann', tmp_path / 'ann.pem')
    assert asked_of(settings_of(home, GEKKO_PROMOTION='off'), 'live', 'coinbase') == 'live'      # two people's say is not one's to switch off
    refused = gekko(home, 'run', way.rule, '--mode', 'live', '--venue', 'coinbase')
    assert refused.returncode == 2 and 'rule.ipynb is not promoted to live' in refused.stderr and not (home / 'runs').exists()
