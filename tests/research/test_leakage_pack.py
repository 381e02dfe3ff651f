"""A pack of notebooks that know their future, and of such that only look like it: every leak is found and named, and no clean one is accused.

Some of either kind are checked in every run; all of them with GEKKO_LEAK_PACK=all."""
import os
import sys
from pathlib import Path

import pytest

from gekko.domain.time import iso, utc
from gekko.research.findings import LeakReport
from gekko.research.leakage_notebook import prove_notebook

sys.path.insert(0, str(Path(__file__).parent / 'leaky'))
from stage import PACK, notebook, stage

LEAKS = sorted(p.stem for p in (PACK / 'leaks').glob('*.percent'))
CLEAN = sorted(p.stem for p in (PACK / 'clean').glob('*.percent'))
SOME_LEAKS = ('whole_frame_scaler_in_a_cell', 'published_later', 'window_too_short', 'survivors', 'cached_state', 'rare_one_in_500', 'helper_beside_the_notebook')
SOME_CLEAN = ('purged_labels', 'weekly_right_label', 'exact_ties', 'flat_ties')
ALL = os.environ.get('GEKKO_LEAK_PACK') == 'all'


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pack')
    stage(folder)
    return folder


def checked(folder: Path, kind: str, name: str) -> tuple[str, LeakReport]:
    text = (PACK / kind / f'{name}.percent').read_text()
    home = folder / 'home'
    return text, prove_notebook(notebook(folder / f'{name}.ipynb', text), budget_s=6.0, workers=2, env={'GEKKO_HOME': str(home), 'GEKKO_STORE': str(home / 'store')})


def test_the_pack_is_large_enough() -> None:
    assert len(LEAKS) >= 20 and len(CLEAN) >= 20
    assert set(SOME_LEAKS) <= set(LEAKS) and set(SOME_CLEAN) <= set(CLEAN)


@pytest.mark.parametrize('name', LEAKS if ALL else SOME_LEAKS)
def test_a_leak_is_found_and_named(folder: Path, name: str) -> None:
    text, report = checked(folder, 'leaks', name)
    kind, *facts = text.split('\n')[0].removeprefix('# expect: ').split()
    want = dict(f.split('=') for f in facts)
    assert not report.clean, str(report)
    leak = report.leaks[0]
    assert leak.kind == kind, str(report)
    assert want.get('column', '') in leak.column and leak.column, str(report)
    assert leak.number == int(want['cell']) and leak.cell == f'c{want["cell"]}' and leak.line, str(report)
    assert leak.code, str(report)
    assert leak.time is not None and utc('2000-01-01') < leak.time < utc('2019-01-01') and iso(leak.time)
    if 'source' in want: assert any(want['source'] in s for s in leak.source), str(report)
    if 'cause' in want: assert want['cause'] in leak.cause, str(report)
    if 'ahead' in want: assert leak.ahead == int(want['ahead']), str(report)


@pytest.mark.parametrize('name', CLEAN if ALL else SOME_CLEAN)
def test_a_clean_one_is_not_accused(folder: Path, name: str) -> None:
    _, report = checked(folder, 'clean', name)
    assert report.clean, str(report)
    assert report.proven and report.rows > 0, str(report)
