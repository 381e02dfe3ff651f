"""A strategy notebook's parameters, imports, constants and functions, without its desk, its data and its pictures."""
import ast
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

STRATEGIES = Path(__file__).resolve().parents[2] / 'strategies'


def kept(node: ast.stmt, names: dict[str, Any]) -> bool:
    """Definitions, imports, and sums of what is known by then, such as `window = lookback + 1`."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)): return True
    if not isinstance(node, ast.Assign): return False
    parts = list(ast.walk(node.value))
    return not any(isinstance(n, (ast.Call, ast.Subscript, ast.Lambda)) for n in parts) and all(n.id in names for n in parts if isinstance(n, ast.Name))


def code_cells(name: str) -> list[tuple[str, bool]]:
    """Source of each code cell, and whether it is the parameters."""
    cells = json.loads((STRATEGIES / f'{name}.ipynb').read_text(encoding='utf-8'))['cells']
    return [(''.join(c['source']), 'parameters' in c['metadata'].get('tags', [])) for c in cells if c['cell_type'] == 'code']


def load_cells(name: str, **parameters: Any) -> SimpleNamespace:
    """The names of `strategies/NAME.ipynb`, its parameters replaced by those given, as a runner would before any other cell."""
    names: dict[str, Any] = {}
    for source, tagged in code_cells(name):
        tree = ast.parse(source)
        if tagged:
            exec(compile(tree, name, 'exec'), names)
            assert parameters.keys() <= names.keys()
            names.update(parameters)
        else:
            for node in tree.body:
                if kept(node, names): exec(compile(ast.Module([node], []), name, 'exec'), names)
    names.setdefault('window', names.get('days'))
    return SimpleNamespace(**names)


@pytest.fixture(scope='session')
def load() -> Callable[..., SimpleNamespace]: return load_cells


@pytest.fixture(scope='session')
def cells() -> Callable[[str], list[tuple[str, bool]]]: return code_cells
