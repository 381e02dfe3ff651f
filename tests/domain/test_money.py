"""Amounts: exact, and rounded only as asked, in whatever context a thread happens to be."""
import decimal
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.money import EXACT, Money, dec, from_float, minor_unit, on_step, plain, steps, to_minor, to_step, total

amounts = st.decimals(min_value=Decimal('-1e15'), max_value=Decimal('1e15'), allow_nan=False, allow_infinity=False, places=None)
prices = st.integers(1, 10**16).flatmap(lambda n: st.integers(0, 12).map(lambda p: Decimal(n).scaleb(-p, EXACT)))
ticks = st.sampled_from(['1', '0.5', '0.25', '0.1', '0.05', '0.03', '0.01', '0.00001', '0.00000001', '5', '100', '7']).map(Decimal)
MODES: dict[str, Callable[[Fraction], int]] = {
    decimal.ROUND_FLOOR: lambda q: floor(q), decimal.ROUND_CEILING: lambda q: ceil(q),
    decimal.ROUND_DOWN: lambda q: int(q), decimal.ROUND_UP: lambda q: ceil(q) if q > 0 else floor(q),
    decimal.ROUND_HALF_EVEN: lambda q: round(q),
    decimal.ROUND_HALF_UP: lambda q: floor(abs(q) + Fraction(1, 2)) * (1 if q >= 0 else -1),
    decimal.ROUND_HALF_DOWN: lambda q: ceil(abs(q) - Fraction(1, 2)) * (1 if q >= 0 else -1),
}


@given(amounts, ticks, st.sampled_from(sorted(MODES)))
@example(Decimal('0.015') + Decimal('1e-27'), Decimal('0.03'), decimal.ROUND_HALF_EVEN)
@example(Decimal('1e-40'), Decimal('1'), decimal.ROUND_UP)
@example(Decimal('0.' + '4' * 2 + '9' * 60), Decimal('1'), decimal.ROUND_HALF_EVEN)
@example(Decimal('0.5' + '0' * 58 + '1'), Decimal('1'), decimal.ROUND_HALF_EVEN)
def test_steps_are_those_of_rational_arithmetic(x: Decimal, step: Decimal, mode: str) -> None:
    assert steps(x, step, mode) == MODES[mode](Fraction(x) / Fraction(step))


@given(prices, ticks)
def test_rounding_stays_within_a_step_and_rounds_once(x: Decimal, step: Decimal) -> None:
    down, near, up = (to_step(x, step, m) for m in (decimal.ROUND_FLOOR, decimal.ROUND_HALF_EVEN, decimal.ROUND_CEILING))
    assert down <= x <= up and up - down in (0, step) and near in (down, up)
    assert on_step(near, step) and to_step(near, step) == near
    assert on_step(x, step) == (down == up == x)
    assert near.as_tuple().exponent == step.as_tuple().exponent, 'as many decimals as the step'


@given(amounts, ticks)
def test_rounding_is_odd(x: Decimal, step: Decimal) -> None:
    "What is rounded for a buyer is rounded alike for a seller, and there is no minus zero."
    assert to_step(x.copy_negate(), step) == -to_step(x, step)
    assert str(to_step(x, step)).lstrip('-0.') or not str(to_step(x, step)).startswith('-')


@given(st.lists(st.integers(-10**36, 10**36).map(lambda n: Decimal(n).scaleb(-18, EXACT)), max_size=20))
def test_totals_are_exact_and_do_not_depend_on_order(xs: list[Decimal]) -> None:
    assert Fraction(total(xs)) == sum(map(Fraction, xs)) == Fraction(total(reversed(xs)))


@given(prices, prices, prices)
def test_products_of_sixteen_digits_are_exact(a: Decimal, b: Decimal, c: Decimal) -> None:
    assert Fraction(EXACT.multiply(EXACT.multiply(a, b), c)) == Fraction(a) * Fraction(b) * Fraction(c)


@given(st.floats(-1e9, 1e9), ticks)
def test_a_float_becomes_what_its_writer_saw(x: float, step: Decimal) -> None:
    assert from_float(x, step) == to_step(Decimal(repr(x)), step)


@given(st.integers(-10**12, 10**12), st.integers(0, 8))
def test_a_written_price_survives_a_float(n: int, places: int) -> None:
    "A price of up to 15 digits, written, read as a float and brought back, is the same price."
    p = Decimal(n).scaleb(-places, EXACT)
    assert from_float(float(str(p)), Decimal(1).scaleb(-places)) == p


HOSTILE = [Context(prec=1), Context(prec=3, rounding=decimal.ROUND_UP), Context(prec=50, traps=[decimal.Inexact, decimal.Rounded, decimal.Subnormal]), Context(prec=9, Emax=5, Emin=-5, traps=[])]


@given(prices, ticks, st.sampled_from(HOSTILE))
def test_the_threads_context_does_not_matter(x: Decimal, step: Decimal, context: Context) -> None:
    def everything() -> list[str]:
        m = Money(x, 'USD')
        return [str(v) for v in (to_step(x, step), steps(x, step), on_step(x, step), total([x, step, x]), to_minor(x, 'USD'), m + m, m - Money(step, 'USD'), -m, plain(x, 2), plain(x),
                                 minor_unit('BTC'), dec(str(x)), from_float(1234567.891, Decimal('0.01')))]
    expected = everything()
    with localcontext(context): assert everything() == expected


def test_the_context_is_put_back() -> None:
    before = decimal.getcontext().copy()
    to_step(Decimal('1.234'), Decimal('0.01')), total([Decimal(1)])
    assert repr(decimal.getcontext()) == repr(before)


@pytest.mark.parametrize('bad', [0.1, True, 'NaN', 'sNaN', 'inf', '-Infinity', '', '1,000', '0x1', 'ten', None, object()])
def test_what_is_not_an_amount(bad: object) -> None:
    with pytest.raises(BadInput): dec(bad)  # type: ignore[arg-type]


@given(amounts)
def test_text_comes_back_as_it_went(x: Decimal) -> None:
    assert dec(str(x)) == x and str(dec(str(x))) == str(x)


@given(prices)
def test_plain_says_the_same_number(x: Decimal) -> None:
    assert Decimal(plain(x).replace(',', '')) == x and 'E' not in plain(x)


@pytest.mark.parametrize(('currency', 'unit'), [('USD', '0.01'), ('JPY', '1'), ('KWD', '0.001'), ('BTC', '1e-8'), ('USDT', '1e-8'), ('TRY', '0.01')])
def test_minor_units(currency: str, unit: str) -> None:
    assert minor_unit(currency) == Decimal(unit)


def test_half_a_cent_goes_to_the_even_cent() -> None:
    assert [to_minor(Decimal(x), 'USD') for x in ('0.005', '0.015', '0.025', '-0.005')] == [Decimal('0.00'), Decimal('0.02'), Decimal('0.02'), Decimal('0.00')]


def test_currencies_do_not_mix() -> None:
    with pytest.raises(BadInput, match='expected USD, found USDT'): Money(Decimal(1), 'USD') - Money(Decimal(1), 'USDT')
    with pytest.raises(BadInput, match='a Decimal'): Money(1.5, 'USD')  # type: ignore[arg-type]
