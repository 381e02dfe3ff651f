"""What a quant imports: its names, and what it costs."""
import json
import subprocess
import sys
import time

import pytest
from tree import ROOT

API = ROOT / 'gekko' / 'api.py'
GOLDEN = ROOT / 'tests' / 'repo' / 'api.txt'
HEAVY = {'torch', 'pandas', 'vectorbt', 'neuralforecast', 'ccxt', 'papermill', 'matplotlib', 'plotly', 'sqlalchemy', 'scipy', 'sklearn', 'pyarrow', 'deltalake', 'duckdb',
         'arch', 'skfolio', 'statsmodels', 'numba', 'ray', 'IPython', 'nbformat', 'exchange_calendars', 'ipywidgets', 'onnxruntime'}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode: pytest.fail(f'{code}\n{done.stderr[-2000:]}', pytrace=False)
    return done.stdout


def test_the_surface_is_the_list() -> None:
    """A name that comes or goes is a decision, made in tests/repo/api.txt."""
    golden = GOLDEN.read_text(encoding='utf-8').split() if GOLDEN.exists() else []
    names = json.loads(python('import json, gekko.api as a; [getattr(a, n) for n in a.__all__]; print(json.dumps(list(a.__all__)))')) if API.exists() else []
    assert golden == sorted(golden)
    assert sorted(names) == golden


def test_importing_loads_nothing_heavy() -> None:
    for module in ('gekko', *(['gekko.api'] if API.exists() else [])):
        loaded = {m.split('.')[0] for m in json.loads(python(f'import {module}, sys, json; print(json.dumps(list(sys.modules)))'))}
        assert sorted(loaded & HEAVY) == [], module


def best(code: str) -> float:
    def once() -> float:
        start = time.perf_counter()
        python(code)
        return time.perf_counter() - start
    return min(once() for _ in range(7))


def test_importing_is_quick() -> None:
    """150 ms where `python -c pass` takes 20 ms, so that a slow machine is judged by its own measure."""
    module = 'gekko.api' if API.exists() else 'gekko'
    nothing = best('pass')
    ratio = best(f'import {module}') / nothing
    assert ratio < 1 + 150 / 20, f'import {module} costs {ratio:.1f} times `python -c pass` ({nothing * 1000:.0f} ms)'
