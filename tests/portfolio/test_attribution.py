"""Attribution: floats to 1e-12, fills exactly, against an account that is settled on its own."""
import math
from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from gekko.domain.account import Account, Funding, deposit, equity, fund, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.money import EXACT, total
from gekko.domain.order import Fill, Intent, Order, Side
from gekko.portfolio.attribution import attribute, attribute_weights, decision_prices
from gekko.portfolio.walk import follow

BOOK = {'KO': Instrument('KO', 'KO', 'USD'), 'SAP': Instrument('SAP', 'SAP', 'EUR'), 'ES': Instrument('ES', 'ES', 'USD', 'index', multiplier=D(50)), 'BTC-USD': Instrument('BTC-USD', 'BTC', 'USD', 'crypto', lot=D('0.00000001')),
        'ETH-EUR': Instrument('ETH-EUR', 'ETH', 'EUR', 'crypto', lot=D('0.00000001'))}
prices = st.integers(1, 10**9).map(lambda n: D(n).scaleb(-4))


@st.composite
def fills(draw, prefix='f'):
    out = []
    for k in range(draw(st.integers(0, 8))):
        i = BOOK[draw(st.sampled_from(sorted(BOOK)))]
        qty = draw(st.integers(1, 10**6)) * i.lot
        kind = draw(st.sampled_from(['none', 'quote', 'other', 'kind']))
        fee, paid = {'none': (D(0), 'USD'), 'quote': (draw(prices), i.quote), 'other': (draw(prices), 'GBP'), 'kind': (qty / 1000, i.base) if i.kind == 'crypto' else (D(1), i.quote)}[kind]
        side = Side.BUY if kind == 'kind' else draw(st.sampled_from(list(Side)))
        out.append(Fill(f'{prefix}{k}', f'{prefix}-{k % 5}', i.symbol, side, qty, draw(prices), fee, paid))
    return out


@st.composite
def days(draw):
    before = deposit(deposit(Account('a'), draw(prices)), draw(prices), 'EUR')
    for f in draw(fills('before')): before = settle(before, f, BOOK[f.symbol])
    m0, m1 = ({s: draw(prices) for s in BOOK} for _ in range(2))
    r0, r1 = ({c: draw(st.integers(1, 10**6)) * D('0.00001') for c in ('EUR', 'GBP')} for _ in range(2))
    return before, draw(fills()), m0, m1, r0, r1, {f'f-{k}': draw(prices) for k in range(draw(st.integers(0, 5)))}, {f'f-{k}': draw(st.sampled_from(['trend', 'pairs'])) for k in range(draw(st.integers(0, 5)))}


@given(days(), st.lists(st.tuples(st.integers(-10**6, 10**6), st.sampled_from(['USD', 'EUR']), st.sampled_from(['interest', ''])), max_size=3))
@settings(max_examples=100)
def test_parts_are_the_change_of_equity_to_the_last_digit(day, extra):
    before, traded, m0, m1, r0, r1, decided, signals = day
    funding = [Funding(str(k), D(x).scaleb(-2), c, why) for k, (x, c, why) in enumerate(extra)]
    a = attribute(before, traded, BOOK, m1, marks_before=m0, rates=r1, rates_before=r0, decided=decided, signals=signals, funding=funding)
    after = before
    for f in traded: after = settle(after, f, BOOK[f.symbol])
    for x in funding: after = fund(after, x)
    assert a.change == EXACT.subtract(equity(after, m1, BOOK, r1), equity(before, m0, BOOK, r0)) and a.unexplained == 0 and a.total == a.change
    for what in ('symbol', 'signal'):
        by = a.by(what)
        assert total(x.net for x in by.values()) == total(x.net for x in a.lines) and total(x.fees for x in by.values()) == a.fees and total(x.slippage for x in by.values()) == a.slippage
    assert [(x.symbol, x.signal) for x in a.lines] == sorted({(x.symbol, x.signal) for x in a.lines})


@given(days())
@settings(max_examples=40)
def test_where_prices_are_those_decided_nothing_slipped(day):
    before, traded, m0, m1, r0, r1, _, signals = day
    a = attribute(before, traded, BOOK, m1, marks_before=m0, rates=r1, rates_before=r0, signals=signals)
    assert a.slippage == 0
    b = attribute(before, traded, BOOK, m1, marks_before=m0, rates=r1, rates_before=r0, signals=signals, decided={f.client_id: D(1) for f in traded})
    assert b.change == a.change and b.fees == a.fees and EXACT.subtract(total(x.market for x in b.lines), b.slippage) == total(x.market for x in a.lines)


def test_by_hand():
    before = deposit(Account('a'), D(10_000))
    a = attribute(before, [Fill('1', 'x', 'KO', Side.BUY, D(10), D('60.1'), D(2)), Fill('2', 'y', 'ES', Side.SELL, D(1), D(4000), D(3))], BOOK, {'KO': D(62), 'ES': D(3990)}, decided={'x': D(60), 'y': D(4001)}, signals={'x': 'trend', 'y': 'hedge'})
    assert {(x.signal, x.symbol): (x.market, x.slippage, x.fees, x.net) for x in a.lines} == {('hedge', 'ES'): (550, 50, 3, 497), ('trend', 'KO'): (20, 1, 2, 17)}
    assert a.change == 514 and 'trend' in a._repr_html_()


def test_a_closed_position_needs_no_mark_and_one_that_is_held_does():
    before = deposit(Account('a'), D(1000))
    buy, sell = Fill('1', 'x', 'KO', Side.BUY, D(10), D(60)), Fill('2', 'y', 'KO', Side.SELL, D(10), D(61))
    a = attribute(before, [buy, sell], BOOK, {}, signals={'x': 'trend'})
    assert a.change == 10 and a.unexplained == 0
    with pytest.raises(BadInput, match='KO'): attribute(before, [buy], BOOK, {})
    with pytest.raises(BadInput, match='NO: an instrument is missing'): attribute(before, [Fill('1', 'x', 'NO', Side.BUY, D(1), D(1))], BOOK, {})
    with pytest.raises(BadInput, match='EUR'): attribute(before, [Fill('1', 'x', 'SAP', Side.BUY, D(1), D(1), fee_currency='EUR')], BOOK, {'SAP': D(1)})
    with pytest.raises(BadInput, match='symbol or signal'): a.by('colour')


@given(st.integers(0, 2**31), st.integers(1, 3))
@settings(max_examples=60)
def test_weights_add_up(seed, signals):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.001, 0.02, (300, 4))
    targets = np.full(x.shape, np.nan)
    targets[rng.random(300) < 0.1] = rng.dirichlet(np.ones(4))
    w = follow(x, targets, 'ABCD', cost_bps=25)
    shares = rng.dirichlet(np.ones(signals))
    parts = attribute_weights(w.held, x, w.cost, 'ABCD', {f's{k}': w.held * s for k, s in enumerate(shares)})
    assert abs(parts.unexplained) < 1e-12 and parts.cost >= 0
    assert parts.total == pytest.approx(w.equity[-1] * (1 - w.cost[-1]) - 1, abs=1e-12)
    assert math.fsum(parts.by_signal.values()) == pytest.approx(math.fsum(parts.by_symbol.values()), abs=1e-12)
    assert [parts.by_signal[f's{k}'] for k in range(signals)] == pytest.approx([s * math.fsum(parts.by_symbol.values()) for s in shares], abs=1e-12)


def test_one_share_held_is_its_own_return():
    x = np.array([[0.0, 0.5], [0.1, 0.5], [-0.2, 0.5]])
    parts = attribute_weights(np.array([[1.0, 0.0]] * 3), x, np.array([0.01, 0, 0]), 'AB')
    assert parts.by_symbol == pytest.approx({'A': 0.99 * (1.1 * 0.8 - 1), 'B': 0}) and parts.cost == 0.01 and parts.total == pytest.approx(0.99 * 0.88 - 1)


@pytest.mark.parametrize('call, says', [
    (lambda: attribute_weights(np.ones((3, 2)), np.ones((2, 2)), np.ones(3), 'AB'), '(T, 2) twice'), (lambda: attribute_weights(np.ones((3, 2)), np.ones((3, 2)), np.ones(2), 'AB'), '(T, 2) twice'),
    (lambda: attribute_weights(np.ones((3, 2)), np.full((3, 2), math.nan), np.ones(3), 'AB'), 'finite'), (lambda: attribute_weights(np.ones((3, 2)), np.ones((3, 2)), np.zeros(3), 'AB', {'a': np.zeros((3, 2))}), 'sum to what was held'),
    (lambda: decision_prices([], 'AB', np.arange(3), np.ones((2, 2))), 'closes')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)


def test_a_decision_saw_the_last_close_before_it():
    times, closes = np.array([10, 20, 30]), np.array([[1.5, math.nan], [2.5, 7.0], [math.nan, 8.0]])
    orders = [Order(f'{s}{t}', Intent(s, Side.BUY, D(1), ts=t)) for s in ('A', 'B', 'C') for t in (5, 10, 29, 31)]
    assert decision_prices(orders, ['A', 'B'], times, closes) == {'A10': D('1.5'), 'A29': D('2.5'), 'A31': D('2.5'), 'B29': D('7.0'), 'B31': D('8.0')}
