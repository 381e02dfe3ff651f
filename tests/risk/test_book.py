"""The risk book against the exact account it is made of."""
import math
from decimal import Decimal as D

import pytest
from hypothesis import given, strategies as st

from gekko.domain.account import Account, equity
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.position import Position
from gekko.risk.book import Holding, RiskBook, book_of, chosen, currencies, group_of, together

amounts = st.integers(-10 ** 9, 10 ** 9).map(lambda n: D(n).scaleb(-2))
prices = st.integers(1, 10 ** 8).map(lambda n: D(n).scaleb(-3))


@st.composite
def accounts(draw):
    held = draw(st.dictionaries(st.sampled_from(['A', 'B', 'C', 'D']), st.tuples(amounts, st.sampled_from(['USD', 'EUR', 'JPY']), prices)))
    cash = draw(st.dictionaries(st.sampled_from(['USD', 'EUR', 'JPY', 'GBP']), amounts))
    rates = {c: draw(prices) for c in ('EUR', 'JPY', 'GBP')}
    return Account('a', 'USD', cash, {s: Position(s, q, q, currency=c) for s, (q, c, _) in held.items()}), {s: p for s, (_, _, p) in held.items()}, rates


@given(accounts())
def test_equity_is_all_values_and_all_cash(drawn):
    account, marks, rates = drawn
    book = book_of(account, marks, rates)
    assert book.equity == float(equity(account, marks, None, rates))
    whole = sum(book.values.tolist()) + sum(book.cash.values())
    assert math.isclose(whole, book.equity, rel_tol=1e-12, abs_tol=1e-9 * (book.gross + sum(map(abs, book.cash.values()))))
    assert math.isclose(sum(currencies(book).values()), whole, rel_tol=1e-9, abs_tol=1e-6 + 1e-9 * book.gross)
    assert set(book.symbols) == {s for s, p in account.positions.items() if p.qty}
    assert book.gross >= abs(book.net)


@given(accounts(), accounts())
def test_two_books_are_one(a, b):
    x, y = (book_of(acc, marks, rates) for acc, marks, rates in (a, b))
    both = together(x, y)
    assert both.symbols == x.symbols + y.symbols and both.equity == x.equity + y.equity
    assert both.cash == {c: x.cash.get(c, 0.0) + y.cash.get(c, 0.0) for c in {**x.cash, **y.cash}}


def test_another_currency_changes_the_unit_only():
    x = RiskBook('EUR', 1_100.0, (Holding('SAP', D(5), 600.0, 'EUR'),), {'EUR': 500.0})
    y = together(x, currency='USD', rates={'EUR': D('1.2')})
    assert (y.currency, y.equity, y.values.tolist(), dict(y.cash)) == ('USD', 1_320.0, [720.0], {'EUR': 600.0})
    assert y.holdings[0].currency == 'EUR'


@pytest.mark.parametrize(('marks', 'rates', 'said'), [
    ({}, {'EUR': D(1)}, 'no price for a position held'), ({'SAP': D('Infinity')}, {'EUR': D(1)}, 'SAP: price is not a number'),
    ({'SAP': D(1)}, {}, 'expected EUR/USD'), ({'SAP': D(1)}, {'EUR': D('NaN')}, 'EUR/USD: not a rate'), ({'SAP': D(1)}, {'EUR': D(-1)}, 'EUR/USD: not a rate'),
])
def test_what_is_missing_is_named(marks, rates, said):
    account = Account('a', 'USD', {}, {'SAP': Position('SAP', D(1), D(1), currency='EUR')})
    with pytest.raises(BadInput, match=said): book_of(account, marks, rates)


def test_foreign_cash_needs_a_rate_and_nothing_else_does():
    with pytest.raises(BadInput, match='expected GBP/USD'): book_of(Account('a', 'USD', {'GBP': D(1)}), {})
    assert book_of(Account('a', 'USD', {'GBP': D(0), 'USD': D(3)}), {}) == RiskBook('USD', 3.0, (), {'USD': 3.0})


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_no_number_that_is_none(bad):
    for make in (lambda: RiskBook('USD', bad), lambda: RiskBook('USD', 0.0, (), {'EUR': bad}), lambda: Holding('A', D(1), bad, 'USD'), lambda: together()):
        with pytest.raises(BadInput): make()


def test_the_most_particular_rule_is_chosen():
    h = Holding('A', D(1), 1.0, 'EUR', 'x', 's', {'class': 'equity', 'sector': 'food'})
    assert chosen({'*': 1, 'class:equity': 2, 'A': 3}, h) == 'A'
    assert chosen({'*': 1, 'sector:food': 2, 'class:equity': 3}, h) == 'sector:food'
    assert chosen({'currency:EUR': 1}, h) == 'currency:EUR' and chosen({'venue:y': 1, 'strategy:s': 2}, h) == 'strategy:s'
    assert chosen({'fx:EUR': 1, 'class:index': 2, 'B': 3}, h) is None
    assert chosen({'BTC/USDT:USDT': 1}, Holding('BTC/USDT:USDT', D(1), 1.0, 'USDT')) == 'BTC/USDT:USDT'
    assert [group_of(h, by) for by in ('instrument', 'venue', 'none')] == ['A', 'x', '']


def test_class_account_and_venue_come_along():
    account = Account('acc', 'USD', {}, {'EURUSD': Position('EURUSD', D(1000), D(1000))})
    i = Instrument('EURUSD', 'EUR', 'USD', 'fx', venue='oanda')
    book = book_of(account, {'EURUSD': D('1.1')}, None, {'EURUSD': i}, strategy={'EURUSD': 'carry'}, tags={'EURUSD': {'desk': 'macro'}})
    h = book.holdings[0]
    assert (h.venue, h.strategy, h.currency, dict(h.tags)) == ('oanda', 'carry', 'USD', {'account': 'acc', 'class': 'fx', 'desk': 'macro'})
    assert book_of(account, {'EURUSD': D('1.1')}, None, {'EURUSD': i}, venue='elsewhere').holdings[0].venue == 'elsewhere'


def test_the_table_escapes_and_ends():
    many = RiskBook('USD', 1.0, tuple(Holding(f'<{k}>', D(1), float(k), 'USD') for k in range(40)), {'USD': 1.0})
    html = many._repr_html_()
    assert '<39>' not in html and '&lt;39&gt;' in html and 'and 10 more' in html
