"""Exposures add up, factors are least squares, exits take volume."""
from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR
from gekko.risk.book import Holding, RiskBook
from gekko.risk.exposure import average_volume, exposures, factor_exposures, liquidity, margin, slices_html
from gekko.risk.history import History

names, values = st.sampled_from(['A', 'B', '']), st.floats(-1e9, 1e9)
holdings = st.builds(lambda s, v, c, w, q, t: Holding(s or 'Z', D(q), v, c or 'USD', w, q_name(t), {'sector': t} if t else {}), names, values, names, names, st.integers(-1000, 1000), names)
books = st.builds(lambda hs, cash: RiskBook('USD', 1_000.0, tuple(hs), cash), st.lists(holdings, max_size=8), st.dictionaries(st.sampled_from(['USD', 'EUR']), values))


def q_name(t: str) -> str: return t.lower()


@given(books, st.sampled_from(['instrument', 'venue', 'strategy']))
def test_groups_add_up(book, by):
    rows = exposures(book, by)
    assert sum(r.gross for r in rows) == pytest.approx(book.gross) and sum(r.net for r in rows) == pytest.approx(book.net, abs=1e-6 * (1 + book.gross))
    assert all(r.long >= 0 >= r.short and r.gross >= abs(r.net) - 1e-6 and r.share == pytest.approx(r.gross / 1_000) for r in rows)
    assert [r.gross for r in rows] == sorted((r.gross for r in rows), reverse=True) and len({r.name for r in rows}) == len(rows)


@given(books)
def test_currencies_are_all_there_is(book):
    assert sum(r.net for r in exposures(book, 'currency')) == pytest.approx(book.net + sum(book.cash.values()), abs=1e-6 * (1 + book.gross))


def test_no_equity_no_share():
    for equity in (0.0, -5.0): assert exposures(RiskBook('USD', equity, (Holding('A', D(1), 3.0, 'USD'),)))[0].share is None
    assert 'nothing' in slices_html('venue', (), 'USD')


def history(t, n, seed=3):
    rng = np.random.default_rng(seed)
    return History(tuple(f'S{k}' for k in range(n)), (1 + np.arange(t)) * DAY, rng.normal(0, 0.01, (t, n)) + rng.normal(0, 0.01, (t, 1)))


def test_factors_are_ordinary_least_squares():
    from statsmodels.api import OLS, add_constant
    h = history(300, 6)
    rng = np.random.default_rng(4)
    f = np.column_stack([h.returns[:, :3].mean(axis=1), rng.normal(0, 0.02, 300)])
    book = RiskBook('USD', 1.0, tuple(Holding(s, D(1), v, 'USD') for s, v in zip(h.symbols, (5.0, -3.0, 2.0, 9.0))))
    got = factor_exposures(book, h, f, ['mean', 'noise'])
    pnl = h.returns[:, :4] @ book.values
    fit = OLS(pnl, add_constant(f)).fit()
    np.testing.assert_allclose(got.exposure, fit.params[1:], rtol=1e-9)
    assert got.r2 == pytest.approx(fit.rsquared, rel=1e-9) and got.risk == pytest.approx(pnl.std(ddof=1), rel=1e-12)
    assert got.specific == pytest.approx(np.std(fit.resid, ddof=1), rel=1e-9) and got.explained ** 2 + got.specific ** 2 == pytest.approx(got.risk ** 2, rel=1e-9)
    for k in range(4): np.testing.assert_allclose(got.betas[k], OLS(h.returns[:, k], add_constant(f)).fit().params[1:], rtol=1e-8)


def test_factors_of_very_different_size_are_no_trouble():
    h = history(100, 1)
    rng = np.random.default_rng(5)
    f = np.column_stack([h.returns[:, 0] * 1e-6, rng.normal(0, 1e4, 100)])
    assert factor_exposures(RiskBook('USD', 1.0, (Holding('S0', D(1), 2.0, 'USD'),)), h, f, ['small', 'large']).exposure[0] == pytest.approx(2e6)


@pytest.mark.parametrize(('factors', 'said'), [
    (np.zeros((10, 1)), 'say the same'), (np.ones((9, 1)), 'another shape'), (np.full((10, 1), np.nan), 'holes'), (np.arange(20.0).reshape(10, 2), 'say the same'),
])
def test_factors_that_are_none(factors, said):
    with pytest.raises(BadInput, match=said): factor_exposures(RiskBook('USD', 1.0), history(10, 1), factors, [str(k) for k in range(factors.shape[1])])


def test_too_few_rows_for_a_regression():
    with pytest.raises(BadInput, match='too few rows'): factor_exposures(RiskBook('USD', 1.0), history(3, 1), np.random.default_rng(0).normal(size=(3, 1)), ['f'])


@given(st.lists(st.tuples(st.sampled_from('ABCD'), st.integers(-500, 500), st.floats(-1e6, 1e6)), max_size=8), st.dictionaries(st.sampled_from('ABCD'), st.floats(0, 1e4)), st.floats(0.01, 1))
def test_exits(held, volume, participation):
    book = RiskBook('USD', 1.0, tuple(Holding(s, D(q), v, 'USD') for s, q, v in held))
    out = liquidity(book, volume, participation, horizon=6)
    assert len(out.profile) == 7 and all(-1e-12 <= a <= b + 1e-9 <= 1 + 1e-6 for a, b in zip(out.profile, out.profile[1:]))
    by = {r.symbol: r for r in out.exits}
    for s in {s for s, _, _ in held}:
        size = sum(abs(q) for x, q, _ in held if x == s)
        assert by[s].days == (pytest.approx(size / (volume[s] * participation)) if volume.get(s, 0) > 0 else None)
    assert out.unknown == pytest.approx(sum(abs(v) for s, _, v in held if not volume.get(s, 0) > 0))
    assert [r.days is not None for r in out.exits] == sorted(r.days is not None for r in out.exits)      # what nobody knows comes first


def test_a_size_of_nothing_is_out_at_once():
    out = liquidity(RiskBook('USD', 1.0, (Holding('A', D(0), 5.0, 'USD'), Holding('B', D(10), 5.0, 'USD'))), {'A': 10.0, 'B': 10.0}, 0.5, 4)
    assert out.profile == pytest.approx((0.5, 0.75, 1.0, 1.0, 1.0))


@pytest.mark.parametrize('how', [{'participation': 0.0}, {'participation': 1.5}, {'horizon': 0}])
def test_exits_that_make_no_sense(how):
    with pytest.raises(BadInput): liquidity(RiskBook('USD', 1.0), {}, **how)
    with pytest.raises(BadInput, match='A: volume'): liquidity(RiskBook('USD', 1.0, (Holding('A', D(1), 1.0, 'USD'),)), {'A': -1.0})


def test_average_volume_is_of_days_whatever_the_bars():
    from gekko.data.bars import Bars
    start = np.arange(48) * HOUR * 2
    x = np.ones((48, 2))
    v = np.column_stack([np.repeat([10.0, 20.0, 30.0, 40.0], 12), np.zeros(48)])
    b = Bars(('A', 'B'), start, start + 2 * HOUR, x, x, x, x, v)
    assert average_volume(b) == {'A': 300.0} and average_volume(b, days=2) == {'A': 420.0}
    assert average_volume(b.rows(0, 0)) == {}


def test_margin_by_the_most_particular_rate():
    book = RiskBook('USD', 100.0, (Holding('A', D(1), -50.0, 'USD', tags={'class': 'fx'}), Holding('B', D(1), 100.0, 'USD')))
    m = margin(book, {'*': 0.5, 'class:fx': 0.1})
    assert (m.required, m.free, m.use) == (55.0, 45.0, 0.55)
    for rates in ({'A': 1.0}, {'*': -0.1}, {'*': float('nan')}):
        with pytest.raises(BadInput): margin(book, rates)
