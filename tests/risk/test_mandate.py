"""The mandate: what counts for a run is never looser than any scope or the run itself, and what loosens is told from what tightens."""
from __future__ import annotations

from decimal import Decimal as D

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.risk.limits import SPECS, Limits, loosened
from gekko.risk.mandate import OFF, Change, Mandate, changed, in_force, left_over, only, read_values, scope_of, widens

NAMES = [s.name for s in SPECS]
OWN = [s.name for s in SPECS if s.per_symbol]
MOST = {s.name: s.most for s in SPECS}
SCOPES = ['firm', 'account:main', 'account:other', 'strategy:trend', 'instrument:WTI', 'instrument:SP500']


def value(name: str) -> st.SearchStrategy[D]:
    spec = next(s for s in SPECS if s.name == name)
    if spec.whole: return st.integers(1, 50).map(D)
    top = int(MOST[name] * 100) if MOST[name] is not None else 10_000
    return st.integers(1, top).map(lambda n: D(n) / 100)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    scope = draw(st.sampled_from(SCOPES))
    names = draw(st.lists(st.sampled_from(OWN if scope.startswith('instrument') else NAMES), min_size=1, max_size=3, unique=True))
    return Change(scope, 'hard', {n: draw(st.one_of(st.none(), value(n))) for n in names})


@st.composite
def mandates(draw: st.DrawFn) -> Mandate:
    m = Mandate()
    for c in draw(st.lists(changes(), max_size=8)): m = changed(m, c)
    return m


@st.composite
def limits(draw: st.DrawFn) -> Limits:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True))
    return only({n: draw(value(n)) for n in names})


@given(mandates(), limits())
@settings(max_examples=200, deadline=None)
def test_nothing_that_counts_is_looser_than_a_scope_or_the_run(m: Mandate, own: Limits) -> None:
    got = in_force(m, own, 'main', 'trend', ('WTI', 'SP500'))
    assert loosened(own, got.hard) == ()
    for scope, values in m.hard.items():
        kind, name = scope_of(scope)
        if scope == 'account:other': continue
        for n, x in values.items():
            now = getattr(got.hard.of(name), n) if kind == 'instrument' else getattr(got.hard, n)
            assert now is not None and now <= x
    other = {n for n in m.hard.get('account:other', {})}
    rest = Mandate({s: v for s, v in m.hard.items() if s != 'account:other'})
    assert in_force(rest, own, 'main', 'trend', ('WTI', 'SP500')) == got or not other, 'another account has no say here'


@given(mandates(), limits())
@settings(max_examples=100, deadline=None)
def test_whoever_is_named_has_set_the_value_that_counts(m: Mandate, own: Limits) -> None:
    got = in_force(m, own, 'main', 'trend', ('WTI', 'SP500'))
    for key, scope in got.source.items():
        symbol, _, n = key.rpartition(' ')
        assert m.hard[scope][n] == (getattr(got.hard.of(symbol), n) if symbol else getattr(got.hard, n))


@given(mandates(), changes(), limits())
@settings(max_examples=200, deadline=None)
def test_a_change_that_widens_nothing_loosens_no_run(m: Mandate, c: Change, own: Limits) -> None:
    before, after = (in_force(x, own, 'main', 'trend', ('WTI', 'SP500')).hard for x in (m, changed(m, c)))
    if not widens(m, c): assert loosened(before, after) == ()


@given(mandates(), changes())
@settings(max_examples=100, deadline=None)
def test_what_is_loosened_for_a_run_was_called_so(m: Mandate, c: Change) -> None:
    before, after = (in_force(x, OFF, 'main', 'trend', ('WTI', 'SP500')).hard for x in (m, changed(m, c)))
    if loosened(before, after): assert widens(m, c)


@pytest.mark.parametrize('scope', ['', 'firm:', 'firm:x', 'account:', 'instrument:', 'desk:x', 'account:a\nb', 'account:' + 'x' * 130])
def test_a_scope_is_one_of_four(scope: str) -> None:
    with pytest.raises(BadInput, match='scope of a limit'): scope_of(scope)


@pytest.mark.parametrize('scope, given, match', [
    ('firm', {}, 'limits of firm'), ('instrument:WTI', {'max_gross': 1}, 'not a limit of instrument:WTI'), ('firm', {'max_gross': 0}, 'out of range'), ('firm', {'max_gross': 'nan'}, 'max_gross'),
    ('firm', {'max_positions': '1.5'}, 'max_positions'), ('firm', {'max_var': 99}, 'out of range'), ('firm', {'max_gross': True}, 'a number')])
def test_values_that_make_no_limit_are_refused(scope: str, given: dict[str, object], match: str) -> None:
    with pytest.raises(BadInput, match=match): read_values(scope, given)


def test_what_others_hold_is_gone_for_this_account() -> None:
    m = changed(Mandate(), Change('firm', 'hard', {'max_position_notional': D(100), 'max_positions': D(3)}))
    m = changed(m, Change('instrument:WTI', 'hard', {'max_position_notional': D(60)}))
    left = left_over(m, {'WTI': D(50), 'SP500': D(250)}, frozenset({'WTI', 'SP500', 'EUR'}), ('WTI', 'GLD'), frozenset({'WTI'}))
    assert left.of('WTI').max_position_notional == D(10) and left.of('GLD').max_position_notional == D(100)
    assert left.max_positions == D(1), 'SP500 and EUR are in play elsewhere; WTI is ours too'


@given(st.sampled_from([None, D(80), D(300)]), st.dictionaries(st.sampled_from('ABC'), st.sampled_from([D(50), D(200)])), st.dictionaries(st.sampled_from('ABCD'), st.integers(1, 250).map(D)))
@settings(max_examples=150, deadline=None)
def test_what_is_left_of_a_position_never_leads_over_the_firms_or_the_instruments(firm: D | None, own: dict[str, D], held: dict[str, D]) -> None:
    """An instrument's limit that is looser than the firm's does not count."""
    m = changed(Mandate(), Change('firm', 'hard', {'max_position_notional': firm})) if firm else Mandate()
    for s, x in own.items(): m = changed(m, Change(f'instrument:{s}', 'hard', {'max_position_notional': x}))
    left = left_over(m, held, frozenset(held), ('A', 'B', 'C', 'D'))
    for s in 'ABCD':
        most, room = min((x for x in (firm, own.get(s)) if x is not None), default=None), left.of(s).max_position_notional
        assert (room is None) == (most is None)
        if most is not None: assert room == max(most - held.get(s, D(0)), D('1e-9'))


@given(st.integers(1, 4), st.sets(st.sampled_from('ABCDEF')), st.sets(st.sampled_from('ABCD')), st.sampled_from('ABCD'))
@settings(max_examples=300, deadline=None)
def test_one_symbol_more_never_leads_over_the_firms_count(most: int, elsewhere: set[str], here: set[str], new: str) -> None:
    m = changed(Mandate(), Change('firm', 'hard', {'max_positions': D(most)}))
    left = left_over(m, {}, frozenset(elsewhere), ('A', 'B', 'C', 'D'), frozenset(here))
    passes = new in here or (len(here) < left.max_positions and left.of(new).max_position_notional != D('1e-9'))
    if passes and new not in here: assert len(elsewhere | here | {new}) <= max(most, len(elsewhere | here))
    if not here and not elsewhere: assert passes
    if len(elsewhere | here) < most: assert passes


def test_nobody_is_warned_of_a_rate() -> None:
    with pytest.raises(BadInput, match='soft max_orders_per_minute'): Change('firm', 'soft', {'max_orders_per_minute': D(5)})


def test_the_runs_own_symbols_count_beside_the_mandate() -> None:
    m = changed(Mandate(), Change('firm', 'hard', {'max_order_qty': D(5)}))
    m = changed(m, Change('instrument:WTI', 'hard', {'max_order_qty': D(9)}))      # looser than the firm's
    got = in_force(m, Limits(symbols={'WTI': {'max_order_qty': D(3)}, 'SP500': {'max_order_qty': None}}), 'main', 'trend', ('WTI', 'SP500'))
    assert [got.hard.of(s).max_order_qty for s in ('WTI', 'SP500', 'GLD')] == [D(3), D(5), D(5)]
    assert got.source == {'max_order_qty': 'firm'}
