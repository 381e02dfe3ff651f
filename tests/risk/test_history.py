"""Returns of what a book depends on: against pandas, and against the exact revaluation of an account."""
from decimal import Decimal as D

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from gekko.data.bars import Bars, from_frames
from gekko.domain.account import Account
from gekko.domain.errors import BadInput
from gekko.domain.position import Position
from gekko.domain.time import DAY, HOUR, utc
from gekko.risk.book import Holding, RiskBook, book_of
from gekko.risk.history import History, as_of, columns_of, held, history_of, returns_of, scenarios, with_index, with_proxy

START = utc('2020-01-06')


def bars(shift=0, **closes) -> Bars:
    def tidy(xs):
        f = pd.DataFrame({'timestamp': pd.to_datetime(START + np.arange(len(xs)) * DAY + shift, utc=True), 'close': np.array(xs, dtype=float)}).dropna()
        return f.assign(open=f.close, high=f.close, low=f.close)
    return from_frames({s: tidy(xs) for s, xs in closes.items()}, DAY)


def hold(symbol, value, currency='USD'): return Holding(symbol, D(1), float(value), currency)


holes = st.lists(st.lists(st.one_of(st.just(np.nan), st.integers(1, 10_000).map(lambda n: n / 100)), min_size=3, max_size=3), min_size=3, max_size=25)


@given(holes)
def test_returns_are_from_the_last_close_seen(rows):
    close = np.array(rows)
    f = pd.DataFrame(close)
    expected = (f / f.ffill().shift() - 1).to_numpy()
    np.testing.assert_allclose(returns_of(close), expected, rtol=1e-12, atol=1e-15)


cell = st.integers(1, 10_000).map(lambda n: n / 100)
whole = st.lists(cell, min_size=3, max_size=3)
holed = st.lists(st.tuples(st.one_of(st.just(np.nan), cell), st.one_of(st.just(np.nan), cell), cell).map(list), max_size=6)


@given(st.tuples(holed, whole, holed, whole, holed, whole, holed).map(lambda p: [*p[0], p[1], *p[2], p[3], *p[4], p[5], *p[6]]))
def test_rows_dropped_early_or_late_lose_no_move(rows):
    b = bars(**dict(zip('ABC', np.array(rows).T.tolist())))
    book = RiskBook('USD', 1.0, tuple(hold(s, 1) for s in 'ABC'))
    early, kept = history_of(b, missing='drop'), history_of(b, missing='keep')
    late = held(book, kept, missing='drop')
    n = min(len(early), len(late))
    assert len(early) - len(late) in (0, 1) and n
    np.testing.assert_array_equal(early.last(n).end, late.last(n).end)
    np.testing.assert_allclose(early.last(n).returns, late.last(n).returns, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 2 ** 32 - 1))
def test_pnl_is_the_revaluation_of_the_account(seed):
    """What the moves say the book earns is what the exact books say it is worth after, less before."""
    rng = np.random.default_rng(seed)
    def path(n): return [round(float(x), 4) for x in 100 * np.cumprod(1 + rng.normal(0, 0.05, n))]
    sap, ko, eur, jpy = path(6), path(6), path(6), path(6)
    account = Account('a', 'USD', {'USD': D(1000), 'EUR': D(-300), 'JPY': D(50)},
                      {'SAP': Position('SAP', D(7), D(1), currency='EUR'), 'KO': Position('KO', D(-3), D(1), currency='USD')})
    def at(t): return book_of(account, {'SAP': D(str(sap[t])), 'KO': D(str(ko[t]))}, {'EUR': D(str(eur[t])), 'JPY': D(str(jpy[t]))})
    history = history_of(bars(SAP=sap, KO=ko), {'EUR': bars(EURUSD=eur), 'JPY': bars(JPY=jpy)})
    for t in range(1, 6):
        pnl = scenarios(at(t - 1), history.rows(t - 1, t)).pnl[0]
        assert pnl == pytest.approx(at(t).equity - at(t - 1).equity, rel=1e-9, abs=1e-7)


def test_a_pair_is_read_whichever_way_it_is_quoted():
    b, x = bars(SAP=[1, 2, 3]), [100.0, 110.0, 99.0]
    straight = history_of(b, {'JPY': bars(**{'JPY/USD': [1 / v for v in x]})})
    turned = history_of(b, {'JPY': bars(USD_JPY=x)})
    np.testing.assert_allclose(straight.rates, turned.rates, rtol=1e-12)
    np.testing.assert_allclose(turned.rates[:, 0], [100 / 110 - 1, 110 / 99 - 1], rtol=1e-12)
    with pytest.raises(BadInput, match='quoted in an unknown way'): history_of(b, {'JPY': bars(EURJPY=x)})
    with pytest.raises(BadInput, match='rates of several symbols'): history_of(b, {'JPY': bars(USDJPY=x, JPYUSD=x)})


def test_a_rate_is_the_last_one_known_and_not_an_old_one():
    rate = bars(EURUSD=[1.1, 1.2])
    end = rate.end[0]
    np.testing.assert_array_equal(as_of(rate, np.array([end - 1, end, end + DAY - 1, end + DAY, end + 6 * DAY, end + 6 * DAY + 1])), [np.nan, 1.1, 1.1, 1.2, 1.2, np.nan])
    later = history_of(bars(SAP=[1, 2, 3]), {'EUR': bars(shift=5 * HOUR, EURUSD=[1.1, 1.2, 1.3])}, missing='keep')
    assert np.isnan(later.rates[0, 0]) and later.rates[1, 0] == pytest.approx(1.2 / 1.1 - 1)      # the third rate comes after the last row


@pytest.mark.parametrize('missing', ['refuse', 'drop', 'keep'])
def test_too_little_and_too_odd(missing):
    with pytest.raises(BadInput, match='without returns'): history_of(bars(A=[1]), missing=missing)
    for bad in (0.0, -3.0):
        with pytest.raises(BadInput, match=f'A: a price that has no return: expected above zero, found {bad} on 2020-01-07'): history_of(bars(A=[1, bad, 2]), missing=missing)
    with pytest.raises(BadInput, match='holes'): history_of(bars(A=[1, 2]), missing='guess')


def test_only_the_rows_asked_for_must_be_whole():
    b = bars(A=[1, np.nan, 2, 3, 4], B=[1, 1, 1, 1, 2])
    with pytest.raises(BadInput, match='A: no price in 1 of 5 rows, first on 2020-01-07'): history_of(b)
    assert history_of(b, rows=2).returns.tolist() == [[0.5, 0.0], [pytest.approx(1 / 3), 1.0]]
    kept = history_of(b, missing='keep')
    assert held(RiskBook('USD', 1.0, (hold('B', 1),)), kept).returns.shape == (4, 1)
    with pytest.raises(BadInput, match='A: no return in 1 of 4 rows'): held(RiskBook('USD', 1.0, (hold('A', 1),)), kept)
    assert len(held(RiskBook('USD', 1.0, (hold('A', 1),)), kept, rows=3)) == 3


def test_a_table_that_cannot_be_is_refused():
    end = np.array([1, 2]) * DAY
    for make in (lambda: History(('A',), end, np.zeros((2, 2))), lambda: History(('A', 'A'), end, np.zeros((2, 2))), lambda: History(('A',), end[::-1], np.zeros((2, 1))),
                 lambda: History(('A',), end, np.array([[0.0], [np.inf]])), lambda: History(('A',), end, np.array([[0.0], [-1.01]])), lambda: History(('A',), end, np.zeros((2, 1)), ('EUR',), np.zeros((1, 1)))):
        with pytest.raises(BadInput): make()


def test_what_is_held_without_history_is_named():
    h = History(('A',), np.array([DAY]), np.zeros((1, 1)))
    with pytest.raises(BadInput, match='no history for what is held.*found B C'): scenarios(RiskBook('USD', 1.0, (hold('A', 1), hold('B', 1), hold('C', 1))), h)
    with pytest.raises(BadInput, match='expected EUR/USD'): scenarios(RiskBook('USD', 1.0, (hold('A', 1, 'EUR'),)), h)
    with pytest.raises(BadInput, match='another currency'): scenarios(RiskBook('EUR', 1.0), h)


def test_columns_stand_as_the_book_has_them():
    h = History(('A', 'B'), np.array([DAY]), np.array([[0.1, 0.2]]), ('EUR', 'JPY'), np.array([[0.01, 0.02]]))
    book = RiskBook('USD', 1.0, (hold('B', 5), hold('A', 3, 'EUR'), hold('B', -2)), {'USD': 4.0, 'JPY': 7.0, 'EUR': 0.0})
    m = scenarios(book, h)
    assert m.names == ('B', 'A', 'B', 'fx:JPY') and m.values.tolist() == [5.0, 3.0, -2.0, 7.0]
    np.testing.assert_allclose(m.returns, [[0.2, 1.1 * 1.01 - 1, 0.2, 0.02]])
    assert columns_of(book, h).currencies == ('EUR', 'JPY')


def test_a_proxy_fills_before_and_after_but_not_between():
    x = np.array([[0.1, np.nan], [0.2, 0.5], [0.3, np.nan], [0.4, 0.6], [-0.9, np.nan]])
    h = History(('M', 'N'), np.arange(1, 6) * DAY, x)
    np.testing.assert_array_equal(with_proxy(h, 'N', {'N': ('M', 2.0)}), [0.2, 0.5, np.nan, 0.6, -1.0])
    np.testing.assert_allclose(with_proxy(h, 'NEW', {'NEW': ('M', -0.5)}), -0.5 * x[:, 0])
    book = RiskBook('USD', 1.0, (hold('NEW', 10),))
    assert scenarios(book, h, proxy={'NEW': ('M', 1.0)}).pnl.tolist() == pytest.approx((10 * x[:, 0]).tolist())
    with pytest.raises(BadInput, match='its proxy has no history'): scenarios(book, h, proxy={'NEW': ('GONE', 1.0)})


def test_an_index_is_the_mean_of_what_is_there():
    h = History(('A', 'B'), np.arange(1, 4) * DAY, np.array([[0.1, 0.3], [np.nan, 0.2], [np.nan, np.nan]]))
    np.testing.assert_array_equal(with_index(h, 'I').returns[:, 2], [0.2, 0.2, np.nan])
    assert with_index(h, 'I', ['A']).returns[0, 2] == 0.1
    with pytest.raises(BadInput, match='members of an index'): with_index(h, 'I', ['Z'])


def test_windows_are_open_at_the_start():
    h = History(('A',), np.arange(1, 6) * DAY, np.zeros((5, 1)))
    assert h.between(2 * DAY, 4 * DAY).end.tolist() == [3 * DAY, 4 * DAY] and len(h.last(2)) == 2 and len(h.last(9)) == 5


def test_nothing_held_has_profits_of_zero():
    h = History(('A',), np.arange(1, 4) * DAY, np.array([[0.1], [np.nan], [0.2]]))
    for book in (RiskBook('USD', 0.0), RiskBook('USD', 5.0, (), {'USD': 5.0})):
        m = scenarios(book, h)
        assert m.pnl.tolist() == [0.0, 0.0, 0.0] and m.returns.shape == (3, 0) and m.names == ()
