"""Cash: what must stay, what a sweep leaves, and that sales bring what was asked for."""
import math
from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from gekko.domain.account import Account, deposit, equity, settle
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.money import minor_unit, on_step
from gekko.domain.order import Fill, Side
from gekko.portfolio.cash import CashRule, cash_state, leave_buffer, raise_cash, sweep, worth_of_cash

BOOK = {s: Instrument(s, s, q, lot=D(lot), multiplier=D(m)) for s, q, lot, m in (('A', 'USD', '1', 1), ('B', 'USD', '0.01', 1), ('C', 'EUR', '1', 50), ('D', 'JPY', '100', 1))}
RATES = {'EUR': D('1.0837'), 'JPY': D('0.0069123'), 'GBP': D('1.27')}
amounts = st.integers(-10**9, 10**9).map(lambda n: D(n).scaleb(-2))


@st.composite
def accounts(draw):
    a = Account('book')
    for c in ('USD', 'EUR', 'JPY', 'GBP'):
        if draw(st.booleans()): a = deposit(a, draw(amounts), c)
    marks = {s: D(draw(st.integers(1, 10**7))).scaleb(-3) for s in BOOK}
    for s, i in BOOK.items():
        if n := draw(st.integers(-20, 2000)): a = settle(a, Fill(f'f{s}', f'c{s}', s, Side.BUY if n > 0 else Side.SELL, abs(n) * i.lot, marks[s], fee_currency=i.quote), i)
    return a, marks


@st.composite
def rules(draw):
    least = {c: D(draw(st.integers(0, 10**6))).scaleb(-2) for c in draw(st.sets(st.sampled_from(['USD', 'EUR', 'JPY'])))}
    return CashRule(D(draw(st.integers(0, 99))) / 100, least, D(draw(st.sampled_from([0, 1, 1000]))))


@given(accounts(), rules())
def test_held_is_needed_and_free_or_to_raise(world, rule):
    account, marks = world
    s = cash_state(account, rule, marks, BOOK, RATES)
    assert s.held == worth_of_cash(account, RATES) and s.held + s.to_raise - s.free == s.needed and not (s.free and s.to_raise) and s.free >= 0 and s.to_raise >= 0
    assert s.needed >= rule.buffer * max(equity(account, marks, BOOK, RATES), D(0))
    for c, x in rule.minimum.items(): assert s.short.get(c, D(0)) == max(x - account.cash.get(c, D(0)), D(0))


@given(accounts(), rules())
def test_after_a_sweep_every_foreign_currency_is_at_its_minimum(world, rule):
    account, _ = world
    done = account
    for c in sweep(account, rule, RATES):
        assert c.amount > 0 and c.brings > 0 and 'USD' in (c.sell, c.into) and on_step(c.amount, minor_unit(c.sell)) and on_step(c.brings, minor_unit(c.into))
        done = deposit(deposit(done, -c.amount, c.sell), c.brings, c.into)
    for c in ('EUR', 'JPY', 'GBP'):
        off, had = done.cash.get(c, D(0)) - rule.minimum.get(c, D(0)), account.cash.get(c, D(0))
        assert abs(off) < minor_unit(c) or (abs(off) * RATES[c] < rule.band and had >= 0) or (0 < off and off * RATES[c] < D('0.02'))
    assert sweep(done, rule, RATES) == ()
    lost = worth_of_cash(account, RATES) - worth_of_cash(done, RATES)
    assert -D('0.000001') <= lost <= D('0.06')     # rounding against the account, at most a cent or two a conversion


@given(accounts(), st.integers(1, 100), st.sampled_from([0, 5, 50]))
def test_sales_bring_what_was_asked_for_and_little_more(world, share, bps):
    account, marks = world
    unit = {s: marks[s] * i.multiplier * (RATES[i.quote] if i.quote != 'USD' else 1) for s, i in BOOK.items()}
    keep = 1 - D(bps) / 10_000
    most = sum((max(account.qty(s), D(0)) * unit[s] * keep for s in BOOK), D(0))
    if not most: return
    amount = most * share / 100
    sales = raise_cash(account, amount, marks, BOOK, RATES, cost_bps=D(bps))
    got = sum(i.qty * unit[i.symbol] * keep for i in sales)
    assert got >= amount * (1 - D('1e-25')) and all(i.side is Side.SELL and i.reduce_only and i.qty <= account.qty(i.symbol) and on_step(i.qty, BOOK[i.symbol].lot) for i in sales)
    assert got <= amount + sum(BOOK[s].lot * unit[s] for s in BOOK)      # a lot of each, at the worst
    with pytest.raises(BadInput, match='which selling everything brings'): raise_cash(account, most * D('1.01') + 1, marks, BOOK, RATES, cost_bps=D(bps))


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(-2, 2) | st.just(math.nan)), st.floats(0, 0.9))
def test_the_buffer_is_left_and_rows_that_leave_it_stay(w, buffer):
    out = leave_buffer(w, buffer)
    for a, b in zip(w, out):
        assert (np.isnan(a) == np.isnan(b)).all() and np.nansum(b) <= 1 - buffer + 1e-9
        if np.nansum(a) <= 1 - buffer: assert a.tobytes() == b.tobytes()
    assert leave_buffer(w[0], buffer).tobytes() == out[0].tobytes() or np.allclose(leave_buffer(w[0], buffer), out[0], equal_nan=True, rtol=1e-15)


HELD = settle(deposit(Account('a'), D(1000)), Fill('f', 'c', 'A', Side.BUY, D(5), D(10)), BOOK['A'])


@pytest.mark.parametrize('call, says', [
    (lambda: CashRule(D(1)), 'cash buffer'), (lambda: CashRule(D('-0.1')), 'cash buffer'), (lambda: CashRule(0.1), 'cash buffer'), (lambda: CashRule(minimum={'EUR': D('NaN')}), 'least cash: EUR'), (lambda: CashRule(band=D(-1)), 'least cash: band'),
    (lambda: worth_of_cash(deposit(Account('a'), D(5), 'CHF'), RATES), 'CHF/USD'), (lambda: sweep(deposit(Account('a'), D(5), 'CHF'), CashRule()), 'CHF: a rate is missing'), (lambda: sweep(Account('a'), CashRule(minimum={'CHF': D(1)}), RATES), 'CHF/USD'),
    (lambda: sweep(deposit(Account('a'), D(5), 'CHF'), CashRule(), {'CHF': D(0)}), 'CHF/USD'), (lambda: raise_cash(HELD, D(-1), {}, BOOK), 'cash to raise'), (lambda: raise_cash(HELD, 5.0, {}, BOOK), 'cash to raise'),
    (lambda: raise_cash(HELD, D(1), {}, BOOK), 'A: a price is missing'), (lambda: raise_cash(HELD, D(1), {'A': D(1)}, {}), 'A: an instrument is missing'), (lambda: raise_cash(HELD, D(1), {'A': D(1)}, BOOK, cost_bps=D(10_000)), 'cost_bps'),
    (lambda: raise_cash(Account('a'), D(1), {}, BOOK), 'at most 0'), (lambda: leave_buffer(np.ones(2), 1.0), 'cash buffer'), (lambda: leave_buffer(np.ones((1, 1, 1)), 0.1), '(N,) or (T, N)')])
def test_refusals(call, says):
    with pytest.raises(BadInput) as e: call()
    assert says in str(e.value)
