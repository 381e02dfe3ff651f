"""The strategies as jobs: the same notebook in both modes, and one number for its equity wherever it is shown."""
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import pytest
from desk_stage import STRATEGIES, at_once, deals, ended, entries_of, gekko, launch, ledger_of, ok, one_line, outputs, result_of, runs_of, told

from gekko.desk.result import Result
from gekko.ledger.journal import read_entries, verify
from gekko.ledger.replay import Book, replay
from gekko.ledger.runs import RunRecord

ASKED = {'first': {'start': '2017-06-01'}, 'trend': {'symbols': 'SP500,WTI', 'start': '2018-01-01', 'end': '2018-07-01'}, 'pairs': {'start': '2021-06-01', 'end': '2022-01-01'}, 'quoting': {},
         'allocation': {'start': '2021-06-01', 'end': '2022-01-01', 'method': 'hrp', 'compare': 'equal,min-variance'},
         'forecast': {'symbols': 'AAPL,BAC,KO', 'start': '2021-06-01', 'end': '2021-12-01', 'kind': 'mlp', 'hidden': '16', 'max_steps': '20', 'threshold': '0.5'}}
MODES = ('backtest', 'paper')


@dataclass(frozen=True)
class Job:
    """One finished run, by everything it left behind."""
    home: Path
    printed: dict[str, object]
    record: RunRecord
    result: Result
    book: Book
    shown: str


def job_of(home: Path, printed: dict[str, object]) -> Job:
    (record,) = (r for r in runs_of(home) if r.run_id == printed['run_id'])
    book = replay(read_entries(record.journal_url or ledger_of(home), record.account))
    return Job(home, printed, record, result_of(record), book, outputs(Path(record.executed)))


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path: return tmp_path_factory.mktemp('strategies') / 'home'


@pytest.fixture(scope='module')
def traded(home: Path) -> Callable[[str], tuple[Job, Job]]:
    """A strategy backtested and on paper, both at the same time; each strategy once."""
    @cache
    def run(name: str) -> tuple[Job, Job]:
        notebook = Path(shutil.copy(STRATEGIES / f'{name}.ipynb', home.parent))
        started = [launch(home, 'run', notebook, '--mode', mode, '--json', *told(ASKED[name])) for mode in MODES]
        backtest, paper = (job_of(home, one_line(ended(p, 120))) for p in started)
        return backtest, paper
    return run


@pytest.fixture(scope='module', params=list(ASKED))
def pair(request: pytest.FixtureRequest, traded: Callable[[str], tuple[Job, Job]]) -> tuple[Job, Job]: return traded(request.param)


def cents(x: object) -> str: return f'{Decimal(str(x)):,.2f}'


def test_fills_are_the_same_one_by_one(pair: tuple[Job, Job]) -> None:
    backtest, paper = pair
    assert deals(backtest.result) == deals(paper.result) and len(deals(paper.result)) >= 4
    assert backtest.result.equity == paper.result.equity
    assert [k for k, v in backtest.record.metrics.items() if paper.record.metrics[k] != v] == []


def test_equity_is_one_number_everywhere(pair: tuple[Job, Job]) -> None:
    for job, answer in zip(pair, at_once(*(partial(gekko, j.home, 'runs', 'show', j.record.run_id) for j in pair))):
        shown = ok(answer)
        number = cents(job.result.final_equity)
        assert f'{number} USD' in job.shown, 'the executed notebook'
        assert re.search(rf'^equity +{re.escape(number)}$', shown, re.M) and re.search(rf'^equity by replay +{re.escape(number)}$', shown, re.M), shown
        assert re.search(r'^books agree +yes$', shown, re.M), shown
        assert job.book.equity == job.book.equity_curve[-1][1] == job.result.final_equity == Decimal(str(job.record.metrics['equity'])) and not job.book.faults
        assert job.printed['metrics'] == job.record.metrics and job.printed['state'] == 'done' and job.printed['error'] is None


def test_the_books_are_sound_and_anchored_in_the_record(pair: tuple[Job, Job]) -> None:
    backtest, paper = pair
    assert verify(ledger_of(paper.home), paper.record.account, paper.record.journal_head).ok
    assert verify(backtest.record.journal_url, 'backtest', backtest.record.journal_head).ok
    asked = ('--account', paper.record.account), ('--url', backtest.record.journal_url)
    said = [one_line(s) for s in at_once(*(partial(gekko, paper.home, 'ledger', 'verify', '--json', *words) for words in asked))]
    assert said[0]['ok'] and said[0]['entries'] == len(entries_of(paper.home, paper.record.account)) and said[1]['ok']


def test_every_order_carries_its_run_and_its_cell(pair: tuple[Job, Job]) -> None:
    for job in pair:
        code = {c['id'] for c in json.loads(Path(job.record.executed).read_text())['cells'] if c['cell_type'] == 'code'}
        assert {o.intent.run for o in job.result.orders} == {job.record.lineage}
        assert all(o.intent.cell for o in job.result.orders)
        named = {o.intent.cell for o in job.result.orders}
        assert named <= code or all(re.fullmatch(r'In\[\d+\]', c) for c in named), named


def test_the_conversation_with_the_desk_is_not_in_the_notebook(pair: tuple[Job, Job]) -> None:
    _, paper = pair
    text = Path(paper.record.executed).read_text()
    assert not [o.client_id for o in paper.result.orders if o.client_id in text]
    for word in ('"submitted"', 'venue_id', 'journal_head', paper.record.journal_head, 'ipc://'): assert word not in text, word
    if paper.record.notebook.endswith('first.ipynb'): assert '"stream"' not in paper.shown


def test_what_was_traded_on_a_desk_is_not_traded_again(traded: Callable[[str], tuple[Job, Job]]) -> None:
    _, paper = traded('first')
    refused = gekko(paper.home, 'runs', 'rerun', paper.record.run_id)
    assert refused.returncode == 2 and 'only a backtest' in refused.stderr


def test_runs_are_listed_and_compared(pair: tuple[Job, Job]) -> None:
    backtest, paper = (j.record.run_id for j in pair)
    lines = at_once(partial(gekko, pair[0].home, 'runs', 'list', '--json'), partial(gekko, pair[0].home, 'runs', 'diff', backtest, paper, '--json'))
    listed, differs = {r['run']: r for r in one_line(lines[0])}, one_line(lines[1])
    assert listed[backtest]['state'] == listed[paper]['state'] == 'done' and listed[paper]['equity'] == pair[1].record.metrics['equity']
    assert [d['what'] for d in differs if not d['what'].startswith('result') and d[backtest] != d[paper]] == ['mode', 'params.mode']
    assert all(d[backtest] == d[paper] for d in differs if d['what'].startswith('result'))


def halved(path: Path) -> None: path.write_text(path.read_text().replace('/ len(symbols)', '/ len(symbols) / 2'))


def test_a_backtest_again_is_identical_bit_for_bit(home: Path, traded: Callable[[str], tuple[Job, Job]]) -> None:
    """The run kept its own copy of the notebook: an edit made since changes nothing, and damage to the copy is found out."""
    first, _ = traded('first')
    halved(Path(first.record.notebook))
    said = one_line(gekko(home, 'runs', 'rerun', first.record.run_id, '--json'))
    assert said['identical'] and said['journal_before'] == said['journal_after'] == first.record.journal_head and not said['changed_inputs']
    again = job_of(home, {'run_id': said['after']})
    assert [e.hash for e in read_entries(again.record.journal_url, 'backtest')] == [e.hash for e in read_entries(first.record.journal_url, 'backtest')]
    halved(Path(again.record.executed).parent / 'source.ipynb')
    damaged = one_line(gekko(home, 'runs', 'rerun', again.record.run_id, '--json'), code=1)
    assert not damaged['identical'] and damaged['changed_inputs'] == ['notebook_hash'] and damaged['equity_after'] != damaged['equity_before']
