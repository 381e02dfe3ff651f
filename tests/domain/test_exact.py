"""Money is exact: no field that holds an amount can hold a float, and no function that touches one computes with floats. What may is listed, with its reason."""
from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest

import gekko
from gekko.domain.account import Account, Funding, Pnl
from gekko.domain.money import Money
from gekko.domain.order import Fill, Intent, Order, OrderEvent
from gekko.domain.parent import Parent
from gekko.domain.position import Position
from gekko.execution.reconcile import Statement
from gekko.ledger.events import KINDS
from gekko.ledger.replay import Book
from gekko.risk.drawdown import LossMeter
from gekko.risk.gate import Approved, Breach, Reserved
from gekko.risk.limits import Limits
from gekko.risk.view import Exposure

ROOT = Path(gekko.__file__).parent
ROOMS = ('domain', 'risk', 'execution', 'ledger', 'venue', 'desk')
MAY_BE_FLOAT = {
    'Targets.weights': 'what a model wishes, a share of equity; sizes are made of it on the lot grid',
    'Decide.weights': 'the same wish on its way to the desk', 'RunSpec.reject_rate': 'a probability', 'RunSpec.heartbeat_s': 'seconds', 'RunSpec.decision_timeout_s': 'seconds',
    'FillModel.reject_rate': 'a probability', 'Forecast.confidence': 'a probability', 'Slippage.duration_s': 'seconds', 'Result.metrics': 'statistics of a run'}


# The types

def parts(hint: Any) -> Iterator[Any]:
    "Every type that an annotation is made of."
    yield hint
    for a in typing.get_args(hint): yield from parts(a)


def fields_of(kind: type) -> dict[str, Any]:
    "A record's fields and their types."
    hints = typing.get_type_hints(kind)
    if dataclasses.is_dataclass(kind): return {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    if issubclass(kind, msgspec.Struct): return {n: hints[n] for n in kind.__struct_fields__}
    return {n: hints[n] for n in getattr(kind, '_fields', ()) if n in hints}


def answers_of(kind: type) -> dict[str, Any]:
    "What its properties give."
    return {n: typing.get_type_hints(p.fget)['return'] for n, p in vars(kind).items() if isinstance(p, property) and 'return' in getattr(p.fget, '__annotations__', {})}


def floats_in(roots: typing.Iterable[Any]) -> tuple[list[str], set[type]]:
    "Where a float can hide in what is reachable from `roots`, and all that was looked at."
    todo, seen, found = [t for r in roots for t in parts(r)], set[type](), []
    while todo:
        kind = todo.pop()
        if not isinstance(kind, type) or kind in seen or kind.__module__.split('.')[0] in ('builtins', 'typing', 'decimal', 'collections', 'numpy', 'enum'): continue
        seen.add(kind)
        for name, hint in {**fields_of(kind), **answers_of(kind)}.items():
            inside = list(parts(hint))
            if any(t in (float, complex, np.float64) for t in inside): found.append(f'{kind.__name__}.{name}')
            todo += inside
    return found, seen


def modules() -> Iterator[ModuleType]:
    for room in ROOMS:
        for m in pkgutil.walk_packages([str(ROOT / room)], f'gekko.{room}.'):
            if '.sandbox' not in m.name and '.versions' not in m.name: yield importlib.import_module(m.name)


def records() -> list[type]:
    "Every record of the rooms in which money is kept, that speaks of an amount."
    kinds = {k for m in modules() for k in vars(m).values() if isinstance(k, type) and k.__module__ == m.__name__ and (dataclasses.is_dataclass(k) or issubclass(k, msgspec.Struct))}
    return sorted((k for k in kinds if any(t is Decimal for h in fields_of(k).values() for t in parts(h))), key=lambda k: k.__qualname__)


ROOTS = [Order, Intent, Fill, OrderEvent, Position, Account, Funding, Pnl, Money, Parent, Statement, Book, LossMeter, Approved, Breach, Reserved, Limits, Exposure, *KINDS.values()]


def test_no_amount_of_the_books_can_be_a_float() -> None:
    found, seen = floats_in(ROOTS)
    assert {Order, Fill, Position, Account, Intent} <= seen and len(seen) > 40
    assert [f for f in found if f not in MAY_BE_FLOAT] == []


MONEY_WORDS = {'qty', 'price', 'limit', 'stop', 'fee', 'fees', 'cash', 'paid', 'cost', 'filled', 'realised', 'unrealised', 'equity', 'amount', 'notional', 'value', 'margin', 'balance', 'pnl', 'net', 'gross', 'size'}


STATISTICS = {'Holding.value'}      # what risk is measured with, after the books; the exact size stands beside it to be shown


def test_no_record_that_holds_an_amount_holds_a_float_beside_it() -> None:
    "In all six rooms: a record with a Decimal in it has no float under a name of money."
    loose = [f'{k.__name__}.{n}' for k in records() for n, h in {**fields_of(k), **answers_of(k)}.items() if any(t is float for t in parts(h)) and set(n.split('_')) & MONEY_WORDS and not n.endswith(('_s', '_us', '_bps'))]
    assert set(loose) == STATISTICS and len(records()) > 25


def test_a_float_is_found_where_one_is_planted() -> None:
    @dataclasses.dataclass
    class Inner:
        fee: float | None = None

    class Outer(msgspec.Struct):
        by_symbol: dict[str, tuple[Inner, ...]]

    for k in (Inner, Outer): k.__annotations__ = {n: {'float | None': float | None, 'dict[str, tuple[Inner, ...]]': dict[str, tuple[Inner, ...]]}.get(h, h) for n, h in k.__annotations__.items()}
    assert floats_in([list[Outer]])[0] == ['Inner.fee']


# The arithmetic

ALLOWED = {
    'domain/lifecycle.py': 'the picture of the states: places on paper', 'domain/show.py': 'the widths of pictures', 'domain/market.py': 'the widths of pictures', 'domain/target.py': 'wishes, and the widths of pictures',
    'domain/money.py from_float': 'the one door for measured data, onto a grid', 'domain/order.py _ticket': 'the width of a gauge', 'domain/parent.py _plain': 'parameters of an algorithm, as plain data',
    'execution/reconcile.py statement': 'seconds to wait', 'execution/router.py _bar': 'a picture', 'execution/router.py picture': 'a picture',
    'ledger/database.py': 'seconds, and paths', 'ledger/lease.py': 'seconds', 'ledger/migrations.py': 'paths', 'ledger/runs.py RunRecord.seconds': 'seconds', 'ledger/tables.py': 'seconds',
    'desk/guard.py': 'statistics that decide when to look, never what to book', 'desk/live.py joined': 'bars for a model', 'desk/taped.py bars_of': 'bars for a model', 'desk/trader.py close_row': 'bars for a model',
    'desk/result.py': 'statistics of a run', 'ledger/server.py': 'seconds', 'desk/oversight.py': 'measures of the tail',
    **{f'risk/{m}.py': 'measures of what may happen, never of what is held' for m in ('backtest', 'book', 'contributions', 'exposure', 'filtered', 'history', 'lens', 'measures', 'report', 'reverse', 'scenarios', 'shocks', 'simulated', 'stress')},
    'risk/rules.py added': 'for the lens', 'risk/quick.py _tail_fits': 'for the lens', 'risk/quick.py Terms.__init__': 'for the lens', 'risk/rules.py tail_risk': 'for the lens', 'risk/use.py readings': 'of the lens'}


def odd(tree: ast.AST, everywhere: bool) -> list[tuple[str, str, int]]:
    "float(), float literals and true division, by the function that has them; `everywhere`, or only in expressions that speak of money."
    out = []
    def walk(node: ast.AST, name: str) -> None:
        for c in ast.iter_child_nodes(node):
            inner = f'{name}.{c.name}'.lstrip('.') if isinstance(c, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) else name
            if isinstance(c, ast.Constant) and isinstance(c.value, float) and everywhere: out.append((inner, repr(c.value), c.lineno))
            if isinstance(c, ast.BinOp | ast.AugAssign) and isinstance(c.op, ast.Div) and (everywhere or money(c)): out.append((inner, ast.unparse(c), c.lineno))
            if isinstance(c, ast.BinOp) and not everywhere and any(isinstance(x, ast.Constant) and isinstance(x.value, float) for x in (c.left, c.right)) and money(c): out.append((inner, ast.unparse(c), c.lineno))
            if isinstance(c, ast.Call) and isinstance(c.func, ast.Name) and c.func.id == 'float' and (everywhere or money(c)): out.append((inner, ast.unparse(c), c.lineno))
            walk(c, inner)
    walk(tree, '')
    return out


def money(node: ast.AST) -> bool:
    "Whether an expression speaks of an amount."
    words = {x.id if isinstance(x, ast.Name) else x.attr if isinstance(x, ast.Attribute) else '' for x in ast.walk(node)}
    return bool({w for said in words for w in said.split('_')} & (MONEY_WORDS - {'value', 'stop', 'limit', 'size', 'net'} | {'bid', 'ask'}))


EXACT_ROOMS = ('domain', 'risk', 'execution', 'ledger')
IN_VENUES = {'venue/trial.py smallest': 'the size of a trial order, rounded onto the grid', 'venue/reading.py check_market.quote': 'a middle to compare with, booked nowhere'}


@pytest.mark.parametrize('room', ROOMS)
def test_no_function_that_touches_money_computes_with_floats(room: str) -> None:
    allowed = {**ALLOWED, **IN_VENUES}
    found = []
    for p in sorted((ROOT / room).rglob('*.py')):
        where = str(p.relative_to(ROOT))
        if 'sandbox' in p.parts or where in allowed: continue      # a sandbox is the other side
        found += [f'{where} {name}: {what} (line {line})' for name, what, line in odd(ast.parse(p.read_text()), room in EXACT_ROOMS) if f'{where} {name}' not in allowed]
    assert found == []


def test_every_exception_is_still_needed() -> None:
    for where in (*ALLOWED, *IN_VENUES):
        path, _, name = where.partition(' ')
        if not (ROOT / path).exists(): continue
        assert any(not name or n == name for n, _, _ in odd(ast.parse((ROOT / path).read_text()), True)), where


@pytest.mark.parametrize('planted', ['def f(fill):\n    return float(fill.price)', 'def f(o):\n    return o.filled / o.intent.qty', 'def f(o):\n    return o.fee * 0.5', 'def f(o):\n    o.cash /= 2'])
def test_float_arithmetic_is_found_where_it_is_planted(planted: str) -> None:
    for everywhere in (True, False): assert [n for n, _, _ in odd(ast.parse(planted), everywhere)][:1] == ['f']
