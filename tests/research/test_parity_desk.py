"""Parity of runs that a desk carried out: refused by the gate, stopped half way, ended by their policy, or answered by nobody; and of strategies of events. The desk is the real one, in this process."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gekko.data.bars import Bars
from gekko.data.reference import load_reference, reference_instrument
from gekko.data.store import Store
from gekko.desk.config import Settings, load_settings
from gekko.desk.ending import end_run
from gekko.desk.protocol import AskHalt, CloseRun, Decide, OpenRun, OutcomeReply, Refused, RowReply
from gekko.desk.react import Conversation
from gekko.desk.server import handle
from gekko.desk.session import rows_of
from gekko.desk.spec import make_spec, to_json
from gekko.desk.state import Desk
from gekko.domain.errors import BadInput
from gekko.domain.order import Intent, Side
from gekko.domain.time import SECOND, SimClock
from gekko.ledger.runs import RunRecord, Runs
from gekko.research.parity_compare import Compared, compare
from gekko.research.parity_lived import lived
from gekko.research.parity_rerun import Source

D = Decimal
STRATEGY = """import numpy as np
from gekko.api import open_run, trade
def weights(b):
    back = np.vstack([b.close[:1], b.close[:-1]])
    return np.where(b.close >= back, size, 0.1)
trade(open_run(['KO'], mode=mode, start='2021-03-01', end='2021-04-15', window=3, limits=limits), weights)"""
EVENTS = """from decimal import Decimal
from gekko.api import open_run, trade
from gekko.domain.order import Intent, Side
class Steps:
    def on_bar(self, bar, book): return [Intent(bar.symbol, Side.BUY, Decimal(10))] if book.qty(bar.symbol) < most else []
trade(open_run(['KO'], mode=mode, start='2021-03-01', end='2021-04-15', window=3), Steps())"""


def notebook(code: str, **params: Any) -> dict[str, Any]:
    cells = ['\n'.join(f'{k} = {v!r}' for k, v in {'mode': 'paper', **params}.items()), code]
    return {'cells': [{'cell_type': 'code', 'id': f'c{n}', 'metadata': {'tags': ['parameters']} if n == 0 else {}, 'source': s} for n, s in enumerate(cells)]}


class Stage:
    """A home with a desk in it, a store with one share, and the run `r1` as a job would have begun it."""

    def __init__(self, root: Path, code: str = STRATEGY, limits: dict[str, Any] | None = None, **params: Any) -> None:
        self.home, self.params = root / 'home', {'mode': 'paper', **(params or {'size': 0.5, 'limits': limits or {}})}
        self.settings: Settings = load_settings({'GEKKO_HOME': str(self.home)}, None)
        self.folder = self.home / 'runs' / 'r1'
        self.folder.mkdir(parents=True)
        self.store = Store(str(self.settings.store))
        frame = load_reference('KO')
        self.frame = frame[(frame['timestamp'] > '2020-12-01') & (frame['timestamp'] < '2021-05-01')]
        self.store.write('KO', '1d', self.frame, reference_instrument('KO'), known=1_600_000_000 * SECOND)
        self.desk, self.code = Desk('paper', self.settings, SimClock(1_650_000_000 * SECOND)), code
        spec = make_spec('KO', start='2021-03-01', end='2021-04-15', window=3, limits=limits or {}, policy='flatten')
        self.record = Runs(self.settings.ledger).put(RunRecord('r1', 'abcd', str(root / 'steps.ipynb'), 'paper', 'paper-r1', params=self.params, executed=str(self.folder / 'executed.ipynb')))
        self.opened: Any = handle(self.desk, OpenRun('r1', 'steps', 'abcd', to_json(spec), str(self.settings.store)))

    def decide(self, upto: int = 10**6, instead: Callable[[int, dict[str, float]], dict[str, float]] = lambda n, w: w) -> int:
        """Answer every bar, at most so many, as the strategy would; how many."""
        question, n, seen = Decide('r1', -1), 0, None
        while n < upto:
            reply = handle(self.desk, question)
            if isinstance(reply, Refused) or not isinstance(reply, RowReply) or reply.bars is None: break
            row = rows_of(reply.bars, ('KO',))
            before, seen = seen, row
            w = {'KO': float(self.params['size'])} if before is None and self.first_up(row) or before is not None and row.close[0, 0] >= before.close[0, 0] else {'KO': 0.1}
            question, n = Decide('r1', reply.row, instead(n, w)), n + 1
        return n

    def first_up(self, row: Bars) -> bool:
        frame = self.store.frame('KO', '1d', end=int(row.end[0]))
        return bool(frame['close'].iloc[-1] >= frame['close'].iloc[-2])

    def close(self) -> None: assert isinstance(handle(self.desk, CloseRun('r1')), OutcomeReply)

    def compared(self, today: dict[str, Any] | None = None) -> Compared:
        runs = Runs(self.settings.ledger)
        if runs.get('r1').state == 'starting': runs.update('r1', state='running')
        if runs.get('r1').state == 'running': runs.update('r1', state='done')
        record = runs.get('r1')
        own = Source(notebook(self.code, **{k: v for k, v in self.params.items() if k != 'mode'}), self.params, self.home)
        now = None if today is None else Source(notebook(self.code, **today), {'mode': 'paper', **today}, self.home)
        return compare(lived(record, self.settings.ledger), own, now, self.home, str(self.settings.store))


def causes(c: Compared) -> dict[str, Decimal]:
    told = c.parity.by_cause
    assert sum(told.values()) == c.parity.difference and not told['unexplained'] and not told['account']
    return {k: v for k, v in told.items() if v}


def test_a_run_that_did_as_it_was_told_is_the_same(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    assert s.decide() > 20
    s.close()
    found = s.compared()
    assert causes(found) == {} and found.parity.score == 1 and len(found.parity.pairs) > 10 and found.notes == ()
    # the same, though it is not known any more what was answered: its notebook says it again
    (s.folder / 'shown.msgpack').unlink()
    Runs(s.settings.ledger).update('r1', data_version=s.opened.data_version)
    again = s.compared()
    assert causes(again) == {} and again.parity.score == 1 and 'before decisions were taken down' in again.notes[0]


def test_orders_that_the_gate_stopped_are_no_fault_of_the_market(tmp_path: Path) -> None:
    """Both backtest and run have the limit, so nothing differs; a run that was halted for some bars missed what its backtest did."""
    limited = Stage(tmp_path / 'a', limits={'max_order_qty': 9_000})
    limited.decide()
    limited.close()
    found = limited.compared()
    assert causes(found) == {} and found.parity.score == 1 and found.lived.barred
    halted = Stage(tmp_path / 'b')
    def stop(n: int, w: dict[str, float]) -> dict[str, float]:
        if n == 8: handle(halted.desk, AskHalt('lunch', 'somebody'))
        return w
    halted.decide(instead=stop)
    halted.close()
    found = halted.compared()
    assert set(causes(found)) == {'missed or extra'} and found.parity.score < 1 and 'lunch' in found.lived.reason


def test_decisions_that_were_never_made_and_those_of_the_policy(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.decide(upto=9)
    assert s.desk.run is not None and s.desk.run.trader.view.account.qty('KO')
    end_run(s.desk, 'the notebook fell silent')
    found = s.compared()
    assert set(causes(found)) == {'missed or extra'} and found.lived.extra and found.lived.reason.startswith('the notebook fell silent')
    assert 'until then, and not beyond' in found.notes[-1] and found.lived.curve[-1][0] == found.times[-1]


def test_answers_that_the_notebook_does_not_give_again_count_as_code(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.decide(instead=lambda n, w: {'KO': 0.3} if n == 5 else {} if n == 6 else w)
    s.close()
    assert set(causes(s.compared())) == {'code change'}


def test_bars_that_were_corrected_and_came_late_and_code_that_changed(tmp_path: Path) -> None:
    """All of it after the run: nothing of it is the market's."""
    s = Stage(tmp_path)
    frame = s.store.frame('KO', '1d')
    s.decide()
    s.close()
    row = frame[frame['timestamp'] == '2021-03-17'].copy()
    for f in ('open', 'close', 'high', 'low'): row[f] = row[f] * 1.02
    s.store.write('KO', '1d', row, reference_instrument('KO'), revise=True)
    late = frame[frame['timestamp'] == '2021-03-19'].assign(timestamp=frame['timestamp'].dt.normalize().iloc[0].replace(year=2021, month=3, day=20))
    s.store.write('KO', '1d', late.assign(**{f: late[f] * 1.05 for f in ('open', 'high', 'low', 'close')}), reference_instrument('KO'))      # a Saturday's
    found = s.compared({'size': 0.4, 'limits': {}})
    assert set(causes(found)) == {'revised data', 'late bar', 'code change'} and found.parity.run == found.lived.equity == found.lived.curve[-1][1]
    broken = s.compared({'limits': {}})
    same = ('revised data', 'late bar')
    assert set(causes(broken)) == set(same) and [causes(broken)[c] for c in same] == [causes(found)[c] for c in same] and "today's notebook does not come to a decision" in ' '.join(broken.notes)


def test_bars_that_nobody_can_read_any_more_are_said(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.decide(upto=4)
    s.close()
    shutil.rmtree(Path(s.store.root))
    s.store.write('KO', '1d', s.frame.assign(close=s.frame['close'] + 0.01, high=s.frame['high'] + 0.01), reference_instrument('KO'))      # pulled anew, and its past with it
    with pytest.raises(BadInput, match='cannot be read any more'): s.compared()


def test_a_strategy_of_events_is_its_backtest_too(tmp_path: Path) -> None:
    """To the end, and stopped after ten bars: then the rest was missed, as far as the run lived to see it."""
    for upto, expected in ((10**6, set[str]()), (10, {'missed or extra'})):
        s, bars = Stage(tmp_path / str(upto), EVENTS, most=200), list[int]()
        def on_bar(bar: Any, book: Any) -> list[Intent]:
            bars.append(int(bar.end))      # noqa: B023
            if len(bars) > upto: raise StopIteration      # noqa: B023
            return [Intent(bar.symbol, Side.BUY, D(10))] if book.qty(bar.symbol) < 200 else []
        def ask(question: Any) -> Any:
            while (said := handle(s.desk, question)) is None: pass      # noqa: B023
            return said
        Conversation('r1', s.opened.epoch, ask, lambda: '').follow(type('Steps', (), {'on_bar': staticmethod(on_bar)})())
        if expected: end_run(s.desk, 'the notebook fell silent')
        else: s.close()
        found = s.compared()
        assert set(causes(found)) == expected and (found.parity.score == 1) == (not expected) and len(found.parity.pairs) >= 10
