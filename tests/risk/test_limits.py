"""Limits: what is refused, what survives a file, and that tightening never loosens."""
import json
import tomllib
from decimal import Decimal as D

import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.risk.limits import SPECS, Limits, loosened, percent, plain, shown, tighten

SYMBOLS = ('WTI', 'BTC-PERP', 'AUD/USD')


def value(spec):
    if spec.whole: return st.none() | st.integers(1, 1000).map(D)
    top = spec.most or D(10) ** 9
    return st.none() | st.decimals('0.0001', top, places=4)


@st.composite
def limits(draw):
    own = {s: {p.name: draw(value(p)) for p in SPECS if p.per_symbol and draw(st.booleans())} for s in SYMBOLS if draw(st.booleans())}
    return Limits(**{p.name: draw(value(p)) for p in SPECS}, symbols=own)


def lower(a, b):
    return min((x for x in (a, b) if x is not None), default=None)


@given(limits())
def test_a_file_gives_back_what_was_written(x):
    assert Limits.from_dict(json.loads(json.dumps(x.to_dict()))) == x
    assert set(x.to_dict()) - {'symbols'} == {p.name for p in SPECS}


@given(limits(), limits())
def test_tightening_is_the_lower_of_both_for_every_symbol(a, b):
    both = tighten(a, b)
    for p in SPECS:
        assert getattr(both, p.name) == lower(getattr(a, p.name), getattr(b, p.name))
        for s in (*SYMBOLS, 'OTHER'):
            assert getattr(both.of(s), p.name) == lower(getattr(a.of(s), p.name), getattr(b.of(s), p.name))
    assert loosened(a, both) == loosened(b, both) == ()
    assert tighten(b, a) == both and tighten(both, a) == both


@given(limits(), limits(), limits())
def test_tightening_does_not_depend_on_the_order(a, b, c):
    left, right = tighten(tighten(a, b), c), tighten(a, tighten(b, c))
    assert all(left.of(s) == right.of(s) for s in (*SYMBOLS, 'OTHER'))


@given(limits(), limits())
def test_loosened_names_exactly_what_is_wider(a, b):
    wider = {p.name for p in SPECS if lower(getattr(a, p.name), getattr(b, p.name)) != getattr(b, p.name)}
    named = {line.split(':')[0] for line in loosened(a, b)}
    assert {n for n in named if ' ' not in n} == wider
    assert all(n.split(' ')[0] in SYMBOLS for n in named if ' ' in n)


def test_toml_as_a_risk_officer_writes_it():
    x = Limits.from_dict(tomllib.loads('max_gross = 1.5\nmax_positions = 10\ncollar_bps = "off"\n[symbols."AUD/USD"]\nmax_order_notional = 5e5\n'))
    assert (x.max_gross, x.max_positions, x.collar_bps) == (D('1.5'), D(10), None)
    assert x.of('AUD/USD').max_order_notional == 500_000 and x.of('WTI').max_order_notional is None
    assert x.max_orders_per_minute == 600    # what is not named keeps its default


@pytest.mark.parametrize('data, says', [
    ({'max_gros': 2}, 'unknown limit'), ({'max_gross': 'much'}, 'max_gross: expected a finite number'), ({'max_gross': True}, 'expected a number'),
    ({'max_gross': float('inf')}, 'finite'), ({'max_gross': float('nan')}, 'finite'), ({'max_gross': [1]}, 'expected a number'), ({'max_gross': 101}, 'at most 100'),
    ({'max_drawdown': 1.01}, 'at most 1'), ({'max_daily_loss': -0.1}, 'above 0'), ({'max_order_qty': 0}, 'above 0'), ({'collar_bps': 10_001}, 'at most 10000'),
    ({'max_orders_per_minute': 1.5}, 'whole number'), ({'symbols': []}, 'limits by symbol'), ({'symbols': {'WTI': 3}}, 'symbols: WTI'),
    ({'symbols': {'WTI': {'max_gross': 1}}}, 'not a limit of one symbol'), ({'symbols': {'WTI': {'collar_bps': 0}}}, 'WTI: collar_bps out of range'),
])
def test_what_makes_no_sense_is_refused_by_name(data, says):
    with pytest.raises(BadInput) as e: Limits.from_dict(data)
    assert says in str(e.value)


def test_numbers_are_shown_exactly():
    assert [shown(D(x)) for x in ('1E+6', '1200000.50', '0.000001', '-1000', '0')] == ['1,000,000', '1,200,000.5', '0.000001', '-1,000', '0']
    assert plain(D('12345678901234567890.123456789012345678901234567890')) == '12345678901234567890.12345678901234567890123456789'
    assert percent(D('0.0205')) == '2.05 %'


def test_the_table_holds_every_limit_and_override():
    page = Limits.from_dict({'max_gross': 2, 'symbols': {'<i>': {'collar_bps': 10}}})._repr_html_()
    assert all(f'>{p.name}<' in page for p in SPECS) and '&lt;i&gt;' in page and '<i>' not in page
