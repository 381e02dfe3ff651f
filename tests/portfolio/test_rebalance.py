"""Weights to orders: never more than the target, never inside the band, and nothing left to do when it is done."""
from decimal import Decimal as D, localcontext
from fractions import Fraction as F

import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.order import OrderType, Side
from gekko.domain.target import Targets
from gekko.portfolio.rebalance import to_intents, units_for, whole_lots

LOTS = ('1', '0.01', '0.1', '100', '0.00000001', '25')
weights = st.floats(-3, 3, allow_subnormal=False)
money = st.integers(1, 10 ** 14).map(lambda n: D(n).scaleb(-2))
marks = st.integers(1, 10 ** 9).map(lambda n: D(n).scaleb(-4))
rates = st.sampled_from([D(1), D('1.0837'), D('0.0069123')])
instruments = st.builds(lambda lot, mult: Instrument('X', 'X', 'USD', lot=D(lot), multiplier=D(mult)), st.sampled_from(LOTS), st.sampled_from(['1', '50', '0.5']))


@given(weights, money, marks, instruments, rates)
def test_a_size_never_exceeds_its_weight_and_misses_it_by_less_than_a_lot(w, equity, mark, i, rate):
    q = units_for(w, equity, mark, i, rate)
    unit, wanted = F(mark) * F(i.multiplier) * F(rate), abs(F(repr(round(w, 9)))) * F(equity)
    assert F(q) % F(i.lot) == 0 and q * D(repr(round(w, 9))) >= 0
    assert abs(F(q)) * unit <= wanted < (abs(F(q)) + F(i.lot)) * unit


@given(st.integers(-10 ** 30, 10 ** 30), st.integers(1, 10 ** 12), st.sampled_from(LOTS))
def test_lots_are_those_of_rational_arithmetic(value, price, lot):
    value, price = D(value).scaleb(-12), D(price).scaleb(-6)
    lots = F(value) / (F(price) * F(D(lot)))
    assert F(whole_lots(value, price, D(lot))) == int(lots) * F(D(lot))    # int() cuts toward zero


BOOK = {s: Instrument(s, s, ccy, lot=D(lot), min_notional=D(least), multiplier=D(m)) for s, ccy, lot, least, m in (
    ('A', 'USD', '1', 0, 1), ('B', 'USD', '0.01', 500, 1), ('C', 'EUR', '0.001', 0, 50), ('D', 'USD', '0.1', 0, 1))}


@st.composite
def worlds(draw):
    names = draw(st.sets(st.sampled_from(sorted(BOOK)), min_size=1))
    by = {s: draw(st.booleans()) for s in names}
    w = {s: draw(st.sampled_from([0.0, 0.1, -0.1]) | weights) for s in names if by[s]}
    u = {s: draw(st.integers(-9_000, 9_000).map(lambda n: D(n).scaleb(-3))) for s in names if not by[s]}
    held = {s: draw(st.integers(-50_000, 50_000)) * BOOK[s].lot for s in BOOK}
    prices = {s: draw(marks) for s in BOOK}
    return dict(targets=Targets(7, w, u, run='r', cell='c'), held=held, marks=prices, equity=draw(money), instruments=BOOK, currency='USD', rates={'EUR': draw(rates)},
                band=draw(st.sampled_from([D(0), D('0.02'), D('0.5')])))


def call(world, **change):
    world = {**world, **change}
    return to_intents(world.pop('targets'), **world)


def after(world, intents): return {**world['held'], **{i.symbol: world['held'][i.symbol] + i.qty * i.side.sign for i in intents}}
def unit(world, s): return F(world['marks'][s]) * F(BOOK[s].multiplier) * F(D(1) if BOOK[s].quote == 'USD' else world['rates']['EUR'])


def wanted(world, s):
    t = world['targets']
    if s in t.units: return F(whole_lots(t.units[s], D(1), BOOK[s].lot))
    return F(units_for(t.weights[s], world['equity'], world['marks'][s], BOOK[s], D(1) if BOOK[s].quote == 'USD' else world['rates']['EUR']))


@given(worlds())
def test_done_once_it_is_done(world):
    first = call(world)
    assert call(world, held=after(world, first)) == []
    assert len({i.symbol for i in first}) == len(first)


@given(worlds())
def test_what_is_traded_lands_on_the_target_and_what_is_not_lies_in_the_band(world):
    traded, t = {i.symbol: i for i in call(world)}, world['targets']
    landed = after(world, traded.values())
    for s in BOOK:
        if s not in t.weights and s not in t.units: assert s not in traded; continue
        gap, want = abs(wanted(world, s) - F(world['held'][s])) * unit(world, s), wanted(world, s)
        least = max(F(world['band']) * F(world['equity']), F(BOOK[s].min_notional))
        if s in traded: assert F(landed[s]) == want and (gap >= least or want == 0)
        else: assert gap == 0 or (gap < least and want != 0)


@given(worlds())
def test_reductions_come_first_then_sales_then_purchases_each_by_symbol(world):
    intents = call(world)
    def group(i):
        h, q = world['held'][i.symbol], i.qty * i.side.sign
        assert i.reduce_only == (h * q < 0 and abs(q) <= abs(h))
        return (0 if i.reduce_only else 1 if q < 0 else 2), i.symbol
    assert intents == sorted(intents, key=group)
    shuffled = {k: dict(reversed(world[k].items())) for k in ('held', 'marks')}
    assert call(world, **shuffled) == intents
    with localcontext() as c:
        c.prec = 3
        assert call(world) == intents


@given(worlds(), st.integers(-100, 100))
def test_only_what_is_really_held_is_reduced(world, share):
    real = {s: BOOK[s].size(q * share / 100) for s, q in world['held'].items()}
    for i in call(world, positions=real):
        if i.reduce_only: assert i.qty * i.side.sign * real[i.symbol] < 0 and i.qty <= abs(real[i.symbol])
    assert [(i.symbol, i.side, i.qty) for i in call(world, positions=real)] == [(i.symbol, i.side, i.qty) for i in call(world)]


# ---- by hand

KO = {'KO': Instrument('KO', 'KO', 'USD')}


def one(target, held, *, band='0', equity=10_000, mark=50, instrument=None):
    return [(i.side, i.qty, i.reduce_only) for i in to_intents(target, held={'KO': D(held)}, marks={'KO': D(mark)} if mark else {}, equity=D(equity), instruments=instrument or KO, band=D(band))]


@pytest.mark.parametrize('weight, held, order', [
    (0.25, 0, (Side.BUY, 50, False)), (-0.25, 0, (Side.SELL, 50, False)), (0.25, 80, (Side.SELL, 30, True)), (-0.25, -80, (Side.BUY, 30, True)),
    (0.25, -30, (Side.BUY, 80, False)), (-0.25, 30, (Side.SELL, 80, False)), (0.0, 30, (Side.SELL, 30, True)), (0.0, -30, (Side.BUY, 30, True)),
    (0.25, 50, None), (0.2549, 50, None), (0.2551, 50, (Side.BUY, 1, False)), (-0.2549, -50, None)])
def test_long_short_flip_and_close(weight, held, order):
    assert one(Targets(0, {'KO': weight}), held) == ([order] if order else [])


@pytest.mark.parametrize('held, trades', [(46, True), (47, False), (53, False), (54, True)])
def test_the_band_is_left_alone_up_to_its_edge(held, trades):
    assert bool(one(Targets(0, {'KO': 0.25}), held, band='0.02')) == trades    # 200 USD is four shares


def test_leaving_needs_no_band_no_minimum_no_price_no_equity():
    dear = {'KO': Instrument('KO', 'KO', 'USD', min_notional=D(10_000))}
    for t in (Targets(0, {'KO': 0.0}), Targets(0, units={'KO': D(0)})):
        assert one(t, 1, band='1', instrument=dear, mark=0, equity=-5) == [(Side.SELL, 1, True)]
    assert one(Targets(0, {'KO': 0.5}), 0, instrument=dear) == []


def test_an_account_without_equity_goes_home_on_any_weight():
    for equity in (0, -1_000): assert one(Targets(0, {'KO': 0.9}), 30, equity=equity) == [(Side.SELL, 30, True)]


def test_dust_stays():
    assert one(Targets(0, {'KO': 0.0}), '0.4') == [] and one(Targets(0, {'KO': 0.0}), '1.4') == [(Side.SELL, 1, True)]


def test_the_intent_carries_where_it_came_from():
    i, = to_intents(Targets(5, {'KO': 0.25}, run='run-1', cell='c7'), held={}, marks={'KO': D(50)}, equity=D(10_000), instruments=KO)
    assert (i.type, i.run, i.cell, i.ts, i.reason) == (OrderType.MARKET, 'run-1', 'c7', 5, 'target')


@pytest.mark.parametrize('change, says', [
    (dict(instruments={}), 'KO: an instrument is missing'), (dict(marks={}), 'KO: a price is missing'), (dict(currency='EUR'), 'KO: a rate is missing: expected USD/EUR'),
    (dict(band=D('-0.1')), 'no-trade band'), (dict(band=D('1.1')), 'no-trade band'), (dict(equity=D('1e70')), 'beyond any market')])
def test_what_is_missing_is_named(change, says):
    with pytest.raises(BadInput) as e: to_intents(Targets(0, {'KO': 0.25}), **{**dict(held={}, marks={'KO': D(50)}, equity=D(10_000), instruments=KO), **change})
    assert says in str(e.value)


def test_units_without_a_price_can_only_be_closed():
    with pytest.raises(BadInput, match='KO: a price is missing'): one(Targets(0, units={'KO': D(5)}), 1, mark=0)
