"""The bar of long cells: one output that is replaced, one line that is kept, nothing in a pipe and nothing but the end in a job."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import papermill
from hypothesis import given
from hypothesis import strategies as st
from lab_stage import write_notebook

from gekko.desk.headway import Headway, Pace, Terminal, progress

WALK = """from gekko.desk.headway import Headway, progress
ticking = 0.0
def now():
    global ticking
    ticking += 0.3
    return ticking
n = sum(progress(range(2_000), 'rows', now=now))"""
BROKEN = """with Headway('rows', 10, now=now, after_s=0) as bar:
    bar(4)
    raise KeyError('gone')"""


def outputs(path: Path) -> list[list[dict[str, Any]]]: return [c.get('outputs', []) for c in json.loads(path.read_text())['cells']]


def test_an_executed_notebook_keeps_the_last_line_alone(tmp_path: Path) -> None:
    """2,000 steps, each of which is drawn, under papermill itself: one output."""
    nb = write_notebook(tmp_path / 'walk.ipynb', [WALK, BROKEN])
    try: papermill.execute_notebook(str(nb), str(tmp_path / 'done.ipynb'), progress_bar=False, kernel_name='python3')
    except papermill.PapermillExecutionError: pass
    by_cell = [o for o in outputs(tmp_path / 'done.ipynb') if o]
    first = next(o for o in by_cell if 'rows: 2,000 in' in str(o))
    assert len(first) == 1 and ''.join(first[0]['data']['text/plain']).startswith('rows: 2,000 in') and '<progress' not in str(first) and len(str(first)) < 600
    last = next(o for o in by_cell if o[-1].get('ename') == 'KeyError' and len(o) == 2)
    assert ''.join(last[0]['data']['text/plain']).startswith('rows: stopped at 4 of 10')


def test_a_pipe_gets_nothing() -> None:
    done = subprocess.run([sys.executable, '-c', WALK + '\nprint(n)'], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ('1999000\n', '')


class Heard:
    def __init__(self) -> None: self.said = list[tuple[str, float | None, bool]]()
    def show(self, words: str, part: float | None, last: bool) -> None: self.said.append((words, part, last))


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=40), st.integers(0, 40), st.booleans())
def test_it_says_at_most_ten_things_a_second_and_ends_once(gaps: list[float], total: int, fails: bool) -> None:
    heard, at = Heard(), 0.0
    try:
        with Headway('work', total, on=heard, now=lambda: at) as bar:
            for k, gap in enumerate(gaps, 1):
                at += gap
                bar(k)
            if fails: raise ValueError
    except ValueError: pass
    bar.close()
    ends = [last for _, _, last in heard.said]
    assert ends == ([] if not ends else [False]*(len(ends) - 1) + [True])
    assert len(ends) <= at/0.1 + 2 and (at >= 0.5) == bool(ends)
    assert all(p is None or 0 <= p <= 1 for _, p, _ in heard.said)
    if ends: assert ('stopped at' in heard.said[-1][0]) == (fails or len(gaps) < total)


@given(st.floats(0.01, 1e6), st.lists(st.floats(0.01, 20), min_size=1, max_size=30))
def test_a_steady_pace_is_told_as_it_is(per_s: float, gaps: list[float]) -> None:
    pace = Pace()
    for g in gaps: pace.saw(per_s*g, g)
    assert abs(pace.per_s - per_s) <= 1e-9*per_s


def test_items_are_passed_on_as_they_are() -> None:
    assert list(progress((x for x in 'abc'), on=Heard())) == ['a', 'b', 'c']
    heard, at = Heard(), 0.0
    walk = progress([1, 2, 3], 'items', on=heard, now=lambda: at, after_s=0)
    next(walk)
    at = 1.0
    next(walk)
    walk.close()
    assert heard.said[-1][0].startswith('items: stopped at 1 of 3') and heard.said[-1][2]


def test_a_terminal_has_one_line(capsys: Any) -> None:
    t = Terminal(sys.stdout)
    t.show('work: 10 of 100, 10 %, and a note that is long', 0.1, False)
    t.show('work: 100 in 2.0 s', 1.0, True)
    out = capsys.readouterr().out
    assert out.count('\n') == 1 and out.endswith('\n') and out.count('\r') == 2 and 'note' not in out.split('\r')[-1]
