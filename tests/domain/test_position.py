"""Positions and accounts against plain fractions: every cent is somewhere, at every price, after every fill."""
from decimal import Context, Decimal, Inexact, Rounded, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.account import Account, deposit, equity, pnl, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.money import EXACT, ZERO
from gekko.domain.order import Fill, Side
from gekko.domain.position import Position, trade

D = Decimal
INSTRUMENTS = {i.symbol: i for i in (
    Instrument('KO', 'KO', 'USD'), Instrument('ES', 'ES', 'USD', 'index', tick=D('0.25'), multiplier=D(50)),
    Instrument('BTC-PERP', 'BTC', 'USD', 'perp', tick=D('0.5'), lot=D('0.00000001')))}
lots = st.integers(1, 10**6)
cents = st.integers(1, 10**8).map(lambda n: D(n).scaleb(-4, EXACT))
fees = st.integers(-500, 5000).map(lambda n: D(n).scaleb(-2, EXACT))


@st.composite
def fills(draw: st.DrawFn, symbols: tuple[str, ...] = ('KO',)) -> list[Fill]:
    "Fills of mixed sizes; about one in three closes what is held, or turns it round, exactly."
    out: list[Fill] = []
    held = dict.fromkeys(symbols, ZERO)
    for n in range(draw(st.integers(0, 20))):
        s = draw(st.sampled_from(symbols))
        side, qty = draw(st.sampled_from(Side)), EXACT.multiply(D(draw(lots)), INSTRUMENTS[s].lot)
        how = draw(st.integers(0, 5))
        if held[s] and how < 2: side, qty = (Side.SELL if held[s] > 0 else Side.BUY), EXACT.multiply(abs(held[s]), D(how + 1))
        held[s] = EXACT.add(held[s], EXACT.multiply(qty, D(side.sign)))
        out.append(Fill(f'f{n}', f'g{n}', s, side, qty, draw(cents), draw(fees)))
    return out


@settings(max_examples=300)
@given(fills(), cents, st.sampled_from([D(1), D(50), D('0.01')]))
def test_a_position_is_what_average_cost_says(done: list[Fill], mark: Decimal, multiplier: Decimal) -> None:
    "The rule, written a second time, in fractions and with an average price."
    p, qty, average, realised = Position('KO', multiplier=multiplier), Fraction(0), Fraction(0), Fraction(0)
    for f in done:
        p, signed, price = trade(p, f), Fraction(f.qty) * f.side.sign, Fraction(f.price)
        if qty * signed >= 0: average = (average * abs(qty) + price * abs(signed)) / (abs(qty) + abs(signed))
        else:
            closed = min(abs(qty), abs(signed))
            realised += (price - average) * closed * (1 if qty > 0 else -1) * Fraction(multiplier)
            if abs(signed) > abs(qty): average = price
        qty += signed
        near = Fraction(1, 10**9)
        assert Fraction(p.qty) == qty and abs(Fraction(p.realised) - realised) < near
        if qty: assert abs(Fraction(p.cost) - average * qty * Fraction(multiplier)) < near and abs(Fraction(p.avg_price or ZERO) - average) < near
        else: assert p.cost == 0 and p.avg_price is None
    assert p.fees == sum((f.fee for f in done), ZERO)


@settings(max_examples=300)
@given(fills(('KO', 'ES', 'BTC-PERP')), st.lists(cents, min_size=3, max_size=3), st.integers(0, 10**9))
def test_realised_and_unrealised_less_fees_and_what_came_in_is_the_equity(done: list[Fill], marks: list[Decimal], start: int) -> None:
    account = deposit(Account('a'), D(start))
    at = dict(zip(INSTRUMENTS, marks))
    for f in done:
        account = settle(account, f, INSTRUMENTS[f.symbol])
        worth, parts = equity(account, at), pnl(account, at)
        assert EXACT.add(D(start), parts.net) == worth
        cash = Fraction(start) - sum(Fraction(INSTRUMENTS[x.symbol].notional(x.qty, x.price)) * x.side.sign + Fraction(x.fee) for x in done[:done.index(f) + 1])
        assert Fraction(account.cash['USD']) == cash
        assert Fraction(worth) == cash + sum(Fraction(p.qty) * Fraction(at[s]) * Fraction(p.multiplier) for s, p in account.positions.items())
    assert account.fees == sum((f.fee for f in done), ZERO) and account.realised == pnl(account, at).realised


@given(fills(('KO', 'ES')))
def test_flat_again_means_that_the_cash_has_it_all(done: list[Fill]) -> None:
    account = Account('a')
    for f in done: account = settle(account, f, INSTRUMENTS[f.symbol])
    for s, p in list(account.positions.items()):
        if p.qty: account = settle(account, Fill('end', 'end', s, Side.SELL if p.qty > 0 else Side.BUY, abs(p.qty), D('12.34')), INSTRUMENTS[s])
    assert all(p.cost == 0 and str(p.cost) == '0' for p in account.positions.values())
    assert EXACT.subtract(account.realised, account.fees) == account.cash.get('USD', ZERO)


@given(fills())
def test_mirrored_fills_make_a_mirrored_position(done: list[Fill]) -> None:
    long, short = Position('KO'), Position('KO')
    for f in done:
        long = trade(long, f)
        short = trade(short, Fill(f.fill_id, f.client_id, f.symbol, f.side.other, f.qty, f.price, f.fee))
        assert (short.qty, short.cost, short.realised, short.fees) == (-long.qty, -long.cost, -long.realised, long.fees)


@given(fills(('KO', 'ES')), st.sampled_from([Context(prec=1), Context(prec=4, traps=[Inexact, Rounded])]))
def test_books_are_the_same_in_any_context(done: list[Fill], context: Context) -> None:
    def book() -> tuple[Account, str, str]:
        a = deposit(Account('a'), D(1000))
        for f in done: a = settle(a, f, INSTRUMENTS[f.symbol])
        at = {'KO': D('60.25'), 'ES': D('5100.25')}
        return a, str(equity(a, at)), str(pnl(a, at)) + str(a) + repr(a)
    expected = book()
    with localcontext(context): assert book() == expected


def test_the_first_oracle() -> None:
    aud, a = Instrument('AUD/USD', 'AUD', 'USD', 'fx', tick=D('0.00001')), deposit(Account('a'), D(1_000_000))
    for n, (side, price) in enumerate(((Side.BUY, '0.70000'), (Side.SELL, '0.70020'))): a = settle(a, Fill(f'{n}', f'g{n}', 'AUD/USD', side, D(100_000), D(price), D('1.40')), aud)
    assert a.cash == {'USD': D('1000017.20')} and pnl(a, {}).net == D('17.20') and a.fees == D('2.80')


def test_a_fee_in_a_third_currency_is_paid_and_kept_apart() -> None:
    eth = Instrument('ETH/USDT', 'ETH', 'USDT', 'crypto')
    a = deposit(Account('a', 'USDT'), D(1000))
    a = settle(a, Fill('f', 'g', 'ETH/USDT', Side.BUY, D('0.5'), D(2000), D('0.001'), 'BNB'), eth)
    assert a.cash == {'USDT': ZERO, 'BNB': D('-0.001')} and a.fees == ZERO and a.paid == {'BNB': D('0.001')} and a.positions['ETH/USDT'].fees == ZERO
    rates = {'BNB': D(400)}
    assert equity(a, {'ETH/USDT': D(2000)}, rates=rates) == D('999.6') == D(1000) + pnl(a, {'ETH/USDT': D(2000)}, rates).net
    with pytest.raises(BadInput, match='BNB/USDT'): equity(a, {'ETH/USDT': D(2000)})
    with pytest.raises(BadInput, match='BNB/USDT'): pnl(a, {'ETH/USDT': D(2000)})


def test_what_has_no_price_has_no_value() -> None:
    a = settle(Account('a'), Fill('f', 'g', 'KO', Side.BUY, D(1), D(60)), INSTRUMENTS['KO'])
    for ask in (equity, pnl):
        with pytest.raises(BadInput, match='no price for a position held'): ask(a, {'PEP': D(1)})


def test_fills_go_where_they_belong() -> None:
    f = Fill('f', 'g', 'KO', Side.BUY, D(1), D(60))
    with pytest.raises(BadInput, match='another instrument'): trade(Position('PEP'), f)
    with pytest.raises(BadInput, match='another instrument'): settle(Account('a'), f, INSTRUMENTS['ES'])


def test_settling_leaves_the_account_before_as_it_was() -> None:
    before = deposit(Account('a'), D(100))
    after = settle(before, Fill('f', 'g', 'KO', Side.BUY, D(1), D(60), D(1)), INSTRUMENTS['KO'])
    assert (before.cash, before.positions, before.paid) == ({'USD': D(100)}, {}, {}) and after.cash == {'USD': D(39)}
