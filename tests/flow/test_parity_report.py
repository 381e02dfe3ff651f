"""`gekko check parity` on real runs: one on paper, which is its backtest again until something is changed, and one at a venue that is slow, deals in parts, hangs up, and corrects its bars afterwards."""
from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk_stage import ON_SERVER, bars, ended, gekko, launch, ledger_of, make_store, notebook, one_line, settings_of, tidy, wait_for
from live_stage import asked, served

from gekko.cli.parity import compare_run
from gekko.data.store import Store
from gekko.desk.shown import FILE, Answered, lines_of
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.ledger.runs import Runs
from gekko.research.parity_lived import Seen, seen_in

D = Decimal

CELLS = ("""mode = 'paper'
venue = ''
symbols = ['WALK']
bar = ''
bars = 0
size = 0.5
fee_bps = 1.0""", """import numpy as np
from gekko.api import open_run, trade

def weights(b):
    back = np.vstack([b.close[:1], b.close[:-1]])
    return np.where(b.close >= back, size, size/5)

run = open_run(symbols, mode=mode, venue=venue, bar=bar, bars=bars, window=5, policy='hold', fee_bps=fee_bps, slippage_bps=1, cash=100_000)
result = trade(run, weights)""")


def checked(home: Path, run: str, *words: object, code: int = 0) -> Any: return one_line(gekko(home, 'check', 'parity', run, '--json', *words), code)


def sums(said: dict[str, Any]) -> dict[str, Decimal]:
    """The cents by cause, as far as there are any; they add up to the difference, and nothing is unexplained."""
    causes = {k: D(v) for k, v in said['causes'].items()}
    assert sum(causes.values()) == D(said['difference']) == D(said['run']) - D(said['backtest']) and causes['unexplained'] == 0
    assert sum(D(x) for x in said['cents'].values()) == D(said['difference']).quantize(D('0.01'))
    return {k: v for k, v in causes.items() if v}


def test_a_paper_run_is_its_backtest_until_something_changes(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home:
        store, steps = make_store(home / 'store'), notebook(tmp_path / 'steps.ipynb', *CELLS)
        run = one_line(gekko(home, 'run', steps, '--mode', 'paper', '--json'))
        said = checked(home, run['run_id'], '--threshold', '1', '--out', tmp_path / 'report.ipynb')
        assert said['parity_score'] == 1 and D(said['difference']) == 0 and sums(said) == {} and said['same'] == said['decisions'] > 100
        assert said['run'] == run['metrics']['equity'] and said['passed']
        assert Runs(settings_of(home).ledger).get(run['run_id']).metrics['parity_score'] == 1
        made = json.loads((tmp_path / 'report.ipynb').read_text())
        outputs = [o for c in made['cells'] for o in c.get('outputs', [])]
        assert len([o for o in outputs if 'image/png' in o.get('data', {})]) == 2 and all(o['output_type'] == 'execute_result' for o in outputs)
        assert (Path(run['executed']).parent / 'parity.ipynb').read_text() == (tmp_path / 'report.ipynb').read_text()
        # the notebook is edited, and the venue corrects a bar
        notebook(steps, CELLS[0].replace('fee_bps = 1.0', 'fee_bps = 3.0'), CELLS[1].replace('size/5', 'size/4'))
        coded = compare_run(settings_of(home), run['run_id'])
        assert set(coded.changed) >= {'notebook', 'parameter fee_bps'} and {k for k, v in coded.parity.by_cause.items() if v} == {'code change'} and coded.parity.score < 0.99
        corrected = bars(seed=7).iloc[[100]].assign(open=103.0, close=104.0, high=105.0)
        Store(str(store)).write('WALK', '1m', corrected, Instrument('WALK', 'WALK', 'USD', tick=D('0.01'), lot=D(1)), revise=True)
        both = compare_run(settings_of(home), run['run_id']).parity
        assert {k for k, v in both.by_cause.items() if v} == {'code change', 'revised data'} and sum(both.by_cause.values()) == both.difference and both.score < 0.99
        refused(home, run['run_id'])


def refused(home: Path, run_id: str) -> None:
    """What there is nothing to compare in, and what is not all there any more: exit code 2, and words."""
    runs, settings = Runs(settings_of(home).ledger), settings_of(home)
    lived = runs.get(run_id)
    for changes in ({'run_id': 'going', 'state': 'running'}, {'run_id': 'tested', 'mode': 'backtest'}): runs.put(replace(lived, **changes))
    for run, words in (('no-such-run', 'no such run'), ('tested', 'nothing to compare'), ('going', 'still going')):
        with pytest.raises(BadInput, match=words): compare_run(settings, run)
    folder = Path(lived.executed).parent
    kept = (folder / FILE).read_bytes()
    for cut in (kept[:-5], kept[:len(kept) // 2]):
        (folder / FILE).write_bytes(cut)
        with pytest.raises(BadInput, match='not whole'): compare_run(settings, run_id)
    (folder / FILE).write_bytes(kept)
    shutil.move(folder / 'source.ipynb', folder / 'away.ipynb')
    with pytest.raises(BadInput, match='no copy of its notebook'): compare_run(settings, run_id)
    shutil.move(folder / 'away.ipynb', folder / 'source.ipynb')
    if ON_SERVER: return
    with sqlite3.connect(ledger_of(home).removeprefix('sqlite:///')) as c:
        for name, in c.execute("select name from sqlite_master where type = 'trigger'").fetchall(): c.execute(f'drop trigger "{name}"')
        last, = c.execute('select max(seq) from entries where account = ?', (lived.account,)).fetchone()
        c.execute('delete from entries where account = ? and seq > ?', (lived.account, last - 3))
    done = gekko(home, 'check', 'parity', run_id)
    assert done.returncode == 2 and 'journal' in done.stderr and ('cut' in done.stderr or 'not whole' in done.stderr), done.stderr


def three_answers(home: Path) -> bool:
    """Whether the run has decided three times. A line that is being written is not there yet."""
    file = next((home / 'runs').glob(f'*/{FILE}'), None)
    try: return file is not None and sum(isinstance(x, Answered) for x in lines_of(file)) >= 3
    except BadInput: return False


def as_pulled(seen: Seen) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """What the venue's history is said to be later: the bars as they were shown; and with one of them corrected, those that the run never saw, and the one after its last; how many it never saw."""
    assert seen.bars is not None
    b, second = seen.bars, 1_000_000_000
    whole = np.arange(int(b.start[0]), int(b.end[-1]) + second, second)
    frame = pd.DataFrame({'timestamp': pd.to_datetime(b.start, utc=True), **{f: getattr(b, f)[:, 0] for f in ('open', 'high', 'low', 'close', 'volume')}})
    last = frame.iloc[-1]
    missing = [t for t in whole.tolist() if t not in set(b.start.tolist())]
    rows = [{'timestamp': pd.Timestamp(t, unit='ns', tz='UTC'), **dict.fromkeys(('open', 'high', 'low', 'close'), float(last['close']) + (40 if n % 2 else -40)), 'volume': 1.0} for n, t in enumerate(missing)]
    later = pd.concat([frame, pd.DataFrame(rows)]).sort_values('timestamp', ignore_index=True)
    later.loc[1, ['open', 'high']] = float(later.loc[1, 'open']) + 25      # the order of the first decision met this open, as far as a backtest knows today
    later.loc[1, 'high'] = max(later.loc[1, ['open', 'close', 'high']])
    return frame, later, len(missing) - 1


def test_a_live_run_at_a_venue_that_errs(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus') as card:
        asked(card, 'faults', [{'fault': 'slow', 'op': 'submit', 's': 0.4}, {'fault': 'partial_fills', 'op': 'submit', 'parts': 3, 'after': 1}])
        run = launch(home, 'run', notebook(tmp_path / 'steps.ipynb', *CELLS), '--mode', 'live', '--venue', 'binanceus', '-p', 'symbols', 'BTC-USD', '-p', 'bar', '1s', '-p', 'bars', 6, '-p', 'size', 0.05, '--json')
        wait_for(lambda: three_answers(home) or run.poll() is not None, 'three decisions', 120)
        asked(card, 'faults', [{'fault': 'disconnect', 's': 3.0}])      # the bars of these seconds are not heard whole, and left out
        done = one_line(ended(run))
        said = checked(home, done['run_id'], '--threshold', '1', code=1)
        plain = sums(said)
        assert not said['passed'] and Path(said['report']).is_file()
        # the sandbox takes ten basis points where the model says one, and its clock does not stand still while an order travels
        assert set(plain) == {'latency', 'fill model'} and plain['fill model'] < 0 and 0.99 < said['parity_score'] < 1, said
        assert said['run'] == done['metrics']['equity']
        seen = seen_in(Path(done['executed']).parent)
        assert seen is not None and len(seen.answers) == 6 and seen.whole
        frame, later, missing = as_pulled(seen)
        assert missing >= 2
        coin = Instrument('BTC-USD', 'BTC', 'USD', 'crypto', tick=D('0.01'), lot=D('0.00001'), venue='binanceus')
        store = Store(settings_of(home).store)
        store.write('BTC-USD', '1s', frame, coin)
        store.write('BTC-USD', '1s', later, coin, revise=True)
        found = compare_run(settings_of(home), done['run_id']).parity
        told = found.by_cause
        assert sum(told.values()) == found.difference and {k for k, v in told.items() if v} == {'revised data', 'late bar', 'latency', 'fill model'}, told
        assert found.run == D(done['metrics']['equity'])
