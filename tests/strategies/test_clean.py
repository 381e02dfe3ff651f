"The strategies that come with the project know nothing of their future."
from __future__ import annotations
import os
from pathlib import Path
from typing import Any
import pytest
from gekko.research.leakage_notebook import prove_notebook

HERE = Path(__file__).parents[2] / 'strategies'
QUICK: dict[str, dict[str, Any]] = {'first': {}, 'trend': {'start': '2016-01-01'}, 'pairs': {'start': '2020-01-01'}, 'quoting': {}}
SLOW: dict[str, dict[str, Any]] = {'forecast': {'symbols': ['KO', 'PEP'], 'start': '2016-01-01', 'max_steps': 2, 'hidden': [4]},      # fits its networks anew for each future
                                   'allocation': {'start': '2022-01-01', 'symbols': ['KO', 'PEP', 'XOM'], 'compare': []}}
ALL = os.environ.get('GEKKO_LEAK_PACK') == 'all'

def test_every_strategy_that_trades_is_here() -> None:
    assert {p.stem for p in HERE.glob('*.ipynb')} == {*QUICK, *SLOW, 'risk_report'}

@pytest.mark.parametrize('name', [*QUICK, *(SLOW if ALL else ())])
def test_a_shipped_strategy_is_clean(name: str, tmp_path: Path) -> None:
    report = prove_notebook(HERE / f'{name}.ipynb', (QUICK | SLOW)[name], budget_s=2.0, workers=2, env={'GEKKO_HOME': str(tmp_path), 'GEKKO_STORE': str(tmp_path / 'store')})
    assert report.clean and report.proven, str(report)
