"""A pack of notebooks that know their future, and of such that only look like it: every leak is found and named, and no clean one is accused.

Every run checks a sample: of each kind of leak one, and two clean ones, drawn by a seed that stays as it is. GEKKO_LEAK_PACK=7 draws others, by the seed 7; GEKKO_LEAK_PACK=all checks the whole pack, and
that alone says that all of it is found."""
import os
import random
import sys
from functools import cache
from pathlib import Path

import pytest

from gekko.domain.time import iso, utc
from gekko.research.findings import LEAKS as KINDS
from gekko.research.findings import LeakReport
from gekko.research.leakage_notebook import prove_notebook

sys.path.insert(0, str(Path(__file__).parent / 'leaky'))
from stage import PACK, notebook, stage

LEAKS = sorted(p.stem for p in (PACK / 'leaks').glob('*.percent'))
CLEAN = sorted(p.stem for p in (PACK / 'clean').glob('*.percent'))
ASKED = os.environ.get('GEKKO_LEAK_PACK', '')


@cache
def expected(name: str) -> tuple[str, dict[str, str]]:
    """The kind of a leak, and what must be said of it, from the notebook's first line."""
    kind, *facts = (PACK / 'leaks' / f'{name}.percent').read_text().split('\n')[0].removeprefix('# expect: ').split()
    return kind, dict(f.split('=') for f in facts)


def drawn(asked: str) -> tuple[list[str], list[str]]:
    """The leaks and the clean ones to check: all of them, or one of each kind and two clean ones."""
    if asked == 'all': return LEAKS, CLEAN
    r = random.Random(int(asked or 31))
    return [r.choice([n for n in LEAKS if expected(n)[0] == kind]) for kind in KINDS], r.sample(CLEAN, 2)


SOME_LEAKS, SOME_CLEAN = drawn(ASKED)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('pack')
    stage(folder)
    return folder


def checked(folder: Path, kind: str, name: str) -> LeakReport:
    text = (PACK / kind / f'{name}.percent').read_text()
    home = folder / 'home'
    return prove_notebook(notebook(folder / f'{name}.ipynb', text), budget_s=6.0, workers=2, env={'GEKKO_HOME': str(home), 'GEKKO_STORE': str(home / 'store')})


def test_the_pack_is_large_enough() -> None:
    assert len(LEAKS) >= 20 and len(CLEAN) >= 20
    assert {expected(n)[0] for n in LEAKS} == set(KINDS), 'each kind of leak is in the pack'
    for asked in ('', '1', '2'):
        leaks, clean = drawn(asked)
        assert [expected(n)[0] for n in leaks] == list(KINDS) and len(set(clean)) == 2 and drawn(asked) == (leaks, clean)
    assert set().union(*(drawn(str(k))[0] for k in range(1_000))) == set(LEAKS), 'every one is drawn by some seed'


@pytest.mark.parametrize('name', SOME_LEAKS)
def test_a_leak_is_found_and_named(folder: Path, name: str) -> None:
    report = checked(folder, 'leaks', name)
    kind, want = expected(name)
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


@pytest.mark.parametrize('name', SOME_CLEAN)
def test_a_clean_one_is_not_accused(folder: Path, name: str) -> None:
    report = checked(folder, 'clean', name)
    assert report.clean, str(report)
    assert report.proven and report.rows > 0, str(report)
