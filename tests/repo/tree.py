"""The repository as data: its files, its notebooks, its modules."""
import ast
import json
import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Notebook = dict[str, Any]


@lru_cache
def files() -> tuple[Path, ...]:
    """Every file that is, or with the next `git add` would be, in the repository."""
    out = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(p for name in sorted(set(out.split('\0')) - {''}) if (p := ROOT / name).is_file())


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@lru_cache
def notebooks(*folders: str) -> dict[str, Notebook]:
    """Name to notebook, under the folders named (all of them when none is)."""
    found = [p for p in files() if p.suffix == '.ipynb' and (not folders or p.relative_to(ROOT).parts[0] in folders)]
    return {name(p): json.loads(p.read_text(encoding='utf-8')) for p in found}


def source(cell: dict[str, Any]) -> str:
    return ''.join(cell['source'])


@lru_cache
def texts() -> dict[str, str]:
    """Name to content of every file that is text."""
    out = {}
    for p in files():
        raw = p.read_bytes()
        if b'\0' not in raw[:8192]: out[name(p)] = raw.decode('utf-8', errors='replace')
    return out


@lru_cache
def modules() -> dict[str, Path]:
    """Dotted name below gekko to file: 'domain.money', 'api', '' for the package itself."""
    out = {}
    for p in files():
        parts = p.relative_to(ROOT).with_suffix('').parts
        if p.suffix != '.py' or parts[0] != 'gekko' or parts[-1] == '_modidx': continue
        out['.'.join(parts[1:-1] if parts[-1] == '__init__' else parts[1:])] = p
    return out


def imports(tree: ast.AST, module: str, is_package: bool, known: frozenset[str]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything `module` imports, wherever it stands: in a function, under TYPE_CHECKING, or by import_module('...').

    `from ..risk import gate` is 'gekko.risk.gate' where that is a module, and 'gekko.risk' where it is a name of the package.
    """
    package = ['gekko', *module.split('.')] if module else ['gekko']
    if not is_package: package = package[:-1]
    for n in ast.walk(tree):
        if isinstance(n, ast.Import): yield from ((n.lineno, a.name) for a in n.names)
        elif isinstance(n, ast.ImportFrom):
            base = '.'.join([*package[:len(package) - n.level + 1], *([n.module] if n.module else [])]) if n.level else n.module or ''
            for a in n.names:
                inner = f'{base}.{a.name}'
                yield n.lineno, inner if inner.removeprefix('gekko.') in known else base
        elif isinstance(n, ast.Call) and n.args and isinstance(n.args[0], ast.Constant) and isinstance(n.args[0].value, str):
            called = n.func.attr if isinstance(n.func, ast.Attribute) else getattr(n.func, 'id', '')
            if called in ('import_module', '__import__') and re.fullmatch(r'[\w.]+', n.args[0].value): yield n.lineno, n.args[0].value


@lru_cache
def imported() -> tuple[tuple[str, int, str], ...]:
    """(module, line, what it imports) over the whole package."""
    known = frozenset(modules())
    return tuple((m, line, what) for m, p in modules().items()
                 for line, what in imports(ast.parse(p.read_text(encoding='utf-8')), m, p.name == '__init__.py', known))
