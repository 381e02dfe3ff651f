"""What is true of every fact of the domain: no floats in money, frozen, the same after any journey, readable as code."""
import ast
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from inspect import getmembers, isclass, isfunction
from pathlib import Path
from typing import Any, get_args, get_type_hints
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gekko.domain
from gekko.domain import account, errors, instrument, lifecycle, market, money, order, position, show, target
from gekko.domain import time as times
from gekko.domain.account import Account, Funding, Pnl
from gekko.domain.errors import BadInput, GekkoError, Halt, Reject, Retry
from gekko.domain.instrument import KINDS, Instrument
from gekko.domain.market import Bar, Depth, Level, Quote, Trade
from gekko.domain.money import Money
from gekko.domain.order import (
    Accepted, Amended, AmendRejected, AmendRequested, Cancelled, CancelRejected, CancelRequested, Expired, Fill, Filled, Intent, Lost, Order, OrderState, OrderType, Rejected, Side, Submitted, TimeInForce,
)
from gekko.domain.position import Position
from gekko.domain.target import Forecast, Signal, Targets

ROOM = Path(gekko.domain.__file__).parent
MODULES = [account, errors, instrument, lifecycle, market, money, order, position, show, target, times]
MONEY = [account, instrument, market, money, order, position]
text = st.text(st.characters(exclude_categories=['Cs']), max_size=8)
amount = st.integers(-10**12, 10**12).map(lambda n: Decimal(n).scaleb(-6))
positive = st.integers(1, 10**12).map(lambda n: Decimal(n).scaleb(-6))
ts = st.integers(0, 2**62)
share = st.floats(-1, 1)


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    kind = draw(st.sampled_from(OrderType))
    limit = draw(positive) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(positive) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    tif = draw(st.sampled_from(TimeInForce))
    return Intent(draw(text), draw(st.sampled_from(Side)), draw(positive), kind, limit, stop, tif, draw(st.booleans()), draw(st.booleans()), draw(text), draw(text), draw(text), draw(ts),
                  expires=draw(st.integers(1, 2**62)) if tif is TimeInForce.GTD else 0)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    low, a, b, high = sorted(draw(st.tuples(positive, positive, positive, positive)))
    start = draw(ts)
    return Bar(draw(text), start, start + draw(st.integers(1, 10**15)), a, high, low, b, draw(positive))


def ladder(descending: bool) -> st.SearchStrategy[tuple[Level, ...]]:
    return st.dictionaries(positive, positive, max_size=4).map(lambda d: tuple(Level(p, d[p]) for p in sorted(d, reverse=descending)))


lost = st.builds(Lost, text, st.sampled_from(['submit', 'cancel']), ts)
asked = st.builds(AmendRequested, text, st.none() | positive, st.none() | positive, st.none() | positive, st.none() | ts, ts)
fills = st.builds(Fill, text, text, text, st.sampled_from(Side), positive, positive, amount, text, ts, st.booleans())
positions = st.builds(Position, text, amount, amount, amount, amount, positive, text)
triples = st.tuples(share, share, share).map(sorted)
FACTS: dict[type, st.SearchStrategy[Any]] = {
    Money: st.builds(Money, amount, text), Instrument: st.builds(Instrument, text, text, text, st.sampled_from(KINDS), positive, positive, positive, positive, text, text, st.booleans()),
    Quote: st.builds(Quote, text, ts, positive, positive, positive, positive, ts, ts), Level: st.builds(Level, positive, positive),
    Depth: st.builds(Depth, text, ts, ladder(True), ladder(False), ts, ts), Trade: st.builds(Trade, text, ts, positive, positive, st.sampled_from(['', 'buy', 'sell']), text, ts, ts), Bar: bars(),
    Intent: intents(), Fill: fills, Submitted: st.builds(Submitted, text, ts), Accepted: st.builds(Accepted, text, text, ts), Filled: st.builds(Filled, text, fills, ts),
    CancelRequested: st.builds(CancelRequested, text, ts), CancelRejected: st.builds(CancelRejected, text, text, ts), Cancelled: st.builds(Cancelled, text, text, ts),
    Rejected: st.builds(Rejected, text, text, ts), Expired: st.builds(Expired, text, ts), Lost: lost,
    AmendRequested: asked, Amended: st.builds(Amended, text, st.none() | positive, st.none() | positive, st.none() | positive, ts, st.none() | ts), AmendRejected: st.builds(AmendRejected, text, text, ts), Funding: st.builds(Funding, text, amount, text, text, text, ts),
    Order: st.builds(Order, text, intents(), st.sampled_from(OrderState), positive, positive, amount, text, st.frozensets(text, max_size=4), st.booleans(), text, text, st.none() | lost, st.tuples(ts, ts, ts, ts), st.none() | asked),
    Position: positions, Account: st.builds(Account, text, text, st.dictionaries(text, amount, max_size=3), st.dictionaries(text, positions, max_size=3), st.dictionaries(text, amount, max_size=3)),
    Pnl: st.builds(Pnl, amount, amount, amount, text), Signal: st.builds(Signal, text, ts, share),
    Forecast: st.builds(lambda s, t, h, x, c: Forecast(s, t, h, x[1], x[0], x[2], c), text, ts, st.integers(1, 10**15), triples, st.floats(0, 1)),
    Targets: st.builds(Targets, ts, st.dictionaries(st.sampled_from(['A', 'B']), share), st.dictionaries(st.sampled_from(['C', 'D']), amount), text, text)}
any_fact = st.one_of(*FACTS.values())


def defined(modules: list[Any], kind: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    for m in modules:
        for name, x in getmembers(m, kind):
            if x.__module__ == m.__name__: yield f'{m.__name__}.{name}', x


def parts(hint: Any) -> Iterator[Any]:
    yield hint
    for a in get_args(hint): yield from parts(a)


def test_every_fact_is_examined() -> None:
    drawn = {lifecycle.Table, show.Picture, show.Listing}
    assert {x for _, x in defined(MODULES, lambda x: isclass(x) and is_dataclass(x))} == set(FACTS) | drawn


def test_no_amount_is_a_float() -> None:
    "Walks what every field, parameter and result is declared to be. A float is in one place: the door from measured data."
    found = set()
    for name, cls in defined(MONEY, isclass):
        found |= {f'{name}.{field}' for field, hint in get_type_hints(cls).items() if float in parts(hint)}
        for method, f in vars(cls).items():
            f = f.fget if isinstance(f, property) else f
            if isfunction(f) and f.__module__ == cls.__module__ and not method.startswith('__'): found |= {f'{name}.{method}' for hint in get_type_hints(f).values() if float in parts(hint)}
    for name, f in defined(MONEY, isfunction): found |= {name for hint in get_type_hints(f).values() if float in parts(hint)}
    assert found == {'gekko.domain.money.from_float'}


def test_floats_are_where_measurements_are() -> None:
    assert {f'{c.__name__}.{f}' for c in (Signal, Forecast, Targets) for f, hint in get_type_hints(c).items() if float in parts(hint)} == {
        'Signal.score', 'Forecast.mean', 'Forecast.low', 'Forecast.high', 'Forecast.confidence', 'Targets.weights'}


@settings(max_examples=400)
@given(any_fact)
def test_a_fact_comes_back_from_any_journey(x: Any) -> None:
    assert pickle.loads(pickle.dumps(x)) == x
    line = msgspec.json.encode(x, order='deterministic')
    again = msgspec.json.decode(line, type=type(x))
    assert again == x and hash(again) == hash(x)
    assert msgspec.json.encode(again, order='deterministic') == line
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(x), type=type(x)) == x


@settings(max_examples=400)
@given(any_fact)
def test_a_fact_is_written_as_the_code_that_makes_it(x: Any) -> None:
    said = repr(x)
    names = {c.__name__: c for c in (*FACTS, Side, OrderType, TimeInForce, OrderState, Decimal)}
    assert eval(said, names) == x
    assert str(x) and '0x' not in said.split("'")[0]


@pytest.mark.parametrize('cls', FACTS, ids=lambda c: c.__name__)
def test_a_fact_cannot_be_changed(cls: type) -> None:
    assert cls.__dataclass_params__.frozen and '__slots__' in vars(cls)  # type: ignore[attr-defined]
    x = _one(cls)
    with pytest.raises((AttributeError, TypeError)): setattr(x, fields(cls)[0].name, None)
    with pytest.raises((AttributeError, TypeError)): x.surprise = 1


def _one(cls: type) -> Any:
    "One example of a type, without drawing outside a test."
    kept: list[Any] = []

    @settings(max_examples=1, database=None)
    @given(FACTS[cls])
    def draw(x: Any) -> None: kept.append(x)
    draw()
    return kept[0]


def test_amounts_travel_as_text() -> None:
    f = Fill('f', 'g', 'KO', Side.BUY, Decimal('0.10000000'), Decimal('1E+2'))
    assert b'"qty":"0.10000000"' in msgspec.json.encode(f) and str(msgspec.json.decode(msgspec.json.encode(f), type=Fill).price) == '1E+2'


def test_a_journal_of_before_can_still_be_read() -> None:
    "Fields that came later have defaults, so records without them decode."
    old = msgspec.json.encode({'client_id': 'g', 'intent': {'symbol': 'KO', 'side': 'buy', 'qty': '1'}, 'state': 'accepted'})
    assert msgspec.json.decode(old, type=Order) == Order('g', Intent('KO', Side.BUY, Decimal(1)), OrderState.ACCEPTED)
    assert msgspec.json.decode(b'{"name":"a","cash":{"USD":"1"}}', type=Account).paid == {}


def test_a_repr_does_not_depend_on_the_process() -> None:
    code = "from decimal import Decimal as D; from gekko.domain.order import *; print(repr(Order('g', Intent('KO', Side.BUY, D(2)), fill_ids=frozenset('abcdefgh'))))"
    said = {subprocess.run([sys.executable, '-c', code], env={'PYTHONHASHSEED': seed}, capture_output=True, text=True, check=True, cwd=ROOM.parents[1]).stdout for seed in ('1', '2')}
    assert len(said) == 1 and 'Order(' in said.pop()


def test_targets_do_not_change_with_the_dict_they_were_given() -> None:
    w, u = {'A': 0.5}, {'C': Decimal(1)}
    t = Targets(0, w, u)
    w['A'], u['D'] = 9.0, Decimal(2)
    assert t == Targets(0, {'A': 0.5}, {'C': Decimal(1)})


def test_the_domain_needs_the_standard_library_only() -> None:
    for path in sorted(ROOM.glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ''] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert all(n.split('.')[0] in sys.stdlib_module_names or n.startswith('gekko.domain') for n in names), (path.name, names)
            if isinstance(node, ast.ImportFrom) and node.level: assert node.level == 1, f'{path.name} imports from another room'


def test_the_domain_reads_no_wall_clock_and_no_environment() -> None:
    "Only SystemClock asks the machine."
    asked = set()
    for path in sorted(ROOM.glob('*.py')):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        for top in tree.body:
            for node in ast.walk(top):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in {
                        ('time', 'time_ns'), ('time', 'time'), ('time', 'monotonic'), ('time', 'monotonic_ns'), ('datetime', 'now'), ('datetime', 'utcnow'), ('os', 'environ'), ('os', 'getenv')}:
                    asked.add((path.name, getattr(top, 'name', ''), node.attr))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('open', 'input', 'print', 'getcontext', 'setcontext'): asked.add((path.name, getattr(top, 'name', ''), node.func.id))
    assert asked == {('time.py', 'SystemClock', 'time_ns'), ('time.py', 'SystemClock', 'monotonic_ns')}


def test_importing_the_domain_is_light() -> None:
    code = f"import sys, {', '.join(m.__name__ for m in MODULES)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOM.parents[1]).stdout.split()
    assert not {'asyncio', 'html', 'xml', 'json', 'logging', 'numpy', 'pandas', 'msgspec'} & set(loaded)


@pytest.mark.parametrize(('cls', 'code'), [(BadInput, 2), (Retry, 1), (Reject, 1), (Halt, 3)])
def test_errors_say_what_is_done_next(cls: type[GekkoError], code: int) -> None:
    e = cls('the price', expected='above zero', found=0, symbol='KO')
    assert (e.exit_code, str(e)) == (code, 'the price: expected above zero, found 0')
    assert errors.facts(e) == {'error': cls.__name__, 'message': 'the price', 'expected': 'above zero', 'found': 0, 'symbol': 'KO'}
    again = pickle.loads(pickle.dumps(e))
    assert type(again) is cls and str(again) == str(e) and errors.facts(again) == errors.facts(e)


def test_bad_records_do_not_become_facts() -> None:
    for line, kind in ((b'{"symbol":"KO","side":"buy","qty":"-1"}', Intent), (b'{"symbol":"KO","base":"KO","quote":"USD","tick":"0"}', Instrument), (b'{"ts":0,"weights":{"A":1},"units":{"A":"1"}}', Targets)):
        with pytest.raises((BadInput, msgspec.ValidationError)): msgspec.json.decode(line, type=kind)


NASTY = '<script>alert("x")</script> & \'quoted\''
COLOURS = {show.UP, show.DOWN, show.WARN, show.COOL, show.DIM}


def drawn(x: Any) -> list[str]:
    return [getattr(x, how)() for how in ('_repr_html_', '_repr_svg_') if hasattr(x, how)]


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring('<page>' + markup.replace('&nbsp;', ' ') + '</page>')


@settings(max_examples=300)
@given(any_fact)
def test_every_fact_draws_itself_well_formed_and_always_alike(x: Any) -> None:
    for markup in drawn(x):
        legible = ''.join(c for c in markup if c in '\t\n' or c >= ' ' and c not in '\ufffe\uffff' and not '\x7f' <= c <= '\x9f')
        page = parsed(legible)
        assert markup == drawn(x)[drawn(x).index(markup)] and not page.findall('.//script')
        inks = {c for c in re.findall(r'(?:fill|stroke|color)[=:]"?(#[0-9a-fA-F]{3,8})', markup)}
        assert inks <= COLOURS | {'#7d848c'}, 'middle tones only: the page may be dark'
        assert len(markup) < 20_000


@pytest.mark.parametrize('cls', [c for c in FACTS if hasattr(c, '_repr_html_')], ids=lambda c: c.__name__)
def test_a_venues_words_are_not_markup(cls: type) -> None:
    one = Decimal(1)
    wish = Intent(NASTY, Side.BUY, one, run=NASTY, cell=NASTY, reason=NASTY)
    made = {Intent: wish, Order: Order(NASTY, wish, OrderState.UNKNOWN, venue_id=NASTY, reason=NASTY, conflict=NASTY, unheard=Lost(NASTY, NASTY)), Fill: Fill(NASTY, NASTY, NASTY, Side.SELL, one, one, one, NASTY),
            Instrument: Instrument(NASTY, NASTY, NASTY, calendar=NASTY), Quote: Quote(NASTY, 0, one, one), Depth: Depth(NASTY, 0, (), ()), Bar: Bar(NASTY, 0, 1, one, one, one, one),
            Position: Position(NASTY, one, one, currency=NASTY), Account: Account(NASTY, NASTY, {NASTY: one}, {NASTY: Position(NASTY, one, one)}), Signal: Signal(NASTY, 0, .5),
            Targets: Targets(0, {NASTY: 1.0}, run=NASTY), Forecast: Forecast(NASTY, 0, 1, .0, .0, .0)}
    rows = show.listed([made[cls]])
    assert (rows is not None) == hasattr(cls, '_row_')
    for markup in [*drawn(made[cls]), *(drawn(rows) if rows is not None else [])]:
        assert '<script' not in markup and not parsed(markup).findall('.//script') and 'alert(' in markup
