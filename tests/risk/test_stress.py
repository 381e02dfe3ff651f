"""Stress of a book against the prices themselves, against whole matrices and against statsmodels; what is not covered is never a zero."""
import json
from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gekko.data.reference import reference_bars
from gekko.domain.time import DAY, utc
from gekko.risk.book import Holding, RiskBook
from gekko.risk.history import History, day, history_of, with_index
from gekko.risk.measures import var_normal
from gekko.risk.scenarios import Scenario, load_scenarios
from gekko.risk.stress import apply, plain_rows, stress_table

START = utc('2020-01-01')


def hold(symbol, value, currency='USD', **tags): return Holding(symbol, D(1), float(value), currency, tags=tags)
def window(first, last, **more): return Scenario('w', 'historical', start=utc(first), end=utc(last) + DAY, **more)


def made(t=40, n=4, seed=0, scale=0.02, **more) -> History:
    rng = np.random.default_rng(seed)
    return History(tuple('ABCDEFGH'[:n]), START + (1 + np.arange(t)) * DAY, np.clip(rng.normal(0, scale, (t, n)) + rng.normal(0, scale, (t, 1)), -0.9, 0.9), **more)


@pytest.fixture(scope='module')
def reference() -> History:
    return history_of(reference_bars(['SP500', 'NASDAQ', 'WTI', 'AAPL', 'JPM', 'XOM', 'KO']), missing='keep')


@pytest.mark.parametrize('symbol', ['SP500', 'NASDAQ', 'WTI', 'AAPL', 'JPM'])
def test_every_shipped_window_is_the_prices_of_its_days(reference, symbol):
    """The loss of 1,000 in one instrument is what its closes say, and the worst day and the deepest fall too."""
    bars = reference_bars([symbol])
    book = RiskBook('USD', 1_000.0, (hold(symbol, 1_000),))
    for s in (s for s in load_scenarios() if s.kind == 'historical'):
        r = apply(s, book, reference)
        inside = bars.between(s.start, s.end)
        if not len(inside) or inside.end[-1] < s.end - 5 * DAY:
            assert (r.loss, r.share, r.drawdown, r.worst_day, r.covered) == (None, None, None, None, 0.0) and r.not_covered == ((symbol, 1_000.0),), s.name
            continue
        before = bars.between(None, s.start).close[-1, 0]
        path = np.concatenate([[before], inside.close[:, 0]]) / before
        assert r.loss == pytest.approx(1_000 * (1 - path[-1])) and r.covered == 1.0
        assert r.drawdown == pytest.approx(1_000 * (np.maximum.accumulate(path) - path).max())
        daily = path[1:] / path[:-1] - 1
        assert r.worst_day == pytest.approx(-1_000 * daily.min()) and day(r.worst_on) == day(int(inside.end[daily.argmin()]))


def test_what_really_happened(reference):
    """The S&P 500 as newspapers had it: -6.66 % on 8 August 2011, -3.94 % on 24 August 2015, -49 % from 2000 to 2002."""
    one = RiskBook('USD', 100.0, (hold('SP500', 100),))
    by = {s.name: apply(s, one, reference) for s in load_scenarios()}
    assert by['downgrade-2011'].worst_day == pytest.approx(6.66, abs=0.01) and day(by['downgrade-2011'].worst_on) == '2011-08-08'
    assert by['china-2015'].worst_day == pytest.approx(3.94, abs=0.01) and day(by['china-2015'].worst_on) == '2015-08-24'
    assert apply(window('2000-03-27', '2002-10-09'), one, reference).loss == pytest.approx(49.1, abs=0.1) and by['crisis-2007'].loss == pytest.approx(56.8, abs=0.1)
    assert by['pandemic-2020'].loss is None


def test_a_window_half_in_the_history_is_not_covered():
    h = made(40)
    book = RiskBook('USD', 1.0, (hold('A', 100),))
    cases = {('2020-01-01', '2020-02-09'): True, ('2020-01-05', '2020-01-06'): True, ('2019-12-31', '2020-01-10'): False, ('2020-02-01', '2020-02-10'): False, ('2021-01-01', '2021-02-01'): False, ('2020-01-01', '2020-01-01'): True}
    for (first, last), covered in cases.items(): assert (apply(window(first, last), book, h).loss is not None) == covered, (first, last)


@given(st.integers(0, 10 ** 6), st.lists(st.floats(-1e5, 1e5), min_size=4, max_size=4), st.floats(0, 2))
def test_a_window_by_brute_force(seed, values, scale):
    h = made(12, seed=seed, scale=0.1)
    r = apply(window('2020-01-03', '2020-01-10', scale=scale), RiskBook('USD', 1.0, tuple(hold(s, v) for s, v in zip('ABCD', values))), h)
    worth, deepest, peak, days = [1.0] * 4, 0.0, 0.0, []
    for t in range(2, 10):
        worth = [w * (1 + x) for w, x in zip(worth, h.returns[t])]
        profit = sum(v * max(scale * (w - 1), -1) for v, w in zip(values, worth))
        peak = max(peak, profit)
        deepest = max(deepest, peak - profit)
        days.append(-sum(v * max(scale * x, -1) for v, x in zip(values, h.returns[t])))
    tight = dict(rel=1e-9, abs=1e-6)
    assert r.loss == pytest.approx(-profit, **tight) and r.drawdown == pytest.approx(deepest, **tight) and r.worst_day == pytest.approx(max(days), **tight)
    assert r.pnl.sum() == pytest.approx(-r.loss, **tight) and r.drawdown >= r.loss - 1e-6 and r.drawdown >= 0


def test_holes_in_a_window_are_holidays_and_gaps_at_its_ends_are_not():
    h = made(20)
    h.returns[5, 0] = h.returns[:3, 1] = h.returns[15:, 2] = h.returns[4:12, 3] = np.nan
    book = RiskBook('USD', 1.0, tuple(hold(s, v) for s, v in zip('ABCD', (10, 20, 30, 40))))
    r = apply(window('2020-01-03', '2020-01-17'), book, h)      # rows 2 to 16
    assert r.not_covered == (('B', 20.0), ('C', 30.0), ('D', 40.0)) and r.covered == pytest.approx(0.1)
    assert r.loss == pytest.approx(-10 * (np.nanprod(1 + h.returns[2:17, 0]) - 1))
    assert apply(window('2020-01-04', '2020-01-15'), book, h).not_covered == (('D', 40.0),)


def test_a_proxy_covers_and_is_said():
    h = made(20)
    h.returns[10:, 1] = np.nan
    book, proxy = RiskBook('USD', 100.0, (hold('B', 10), hold('NEW', -20))), {'B': ('A', 0.5), 'NEW': ('A', 2.0)}
    before, after = window('2020-01-02', '2020-01-06'), window('2020-01-15', '2020-01-18')
    r = apply(after, book, h, proxy=proxy)
    a = h.returns[14:18, 0]
    assert r.loss == pytest.approx(-10 * (np.prod(1 + 0.5 * a) - 1) + 20 * (np.prod(1 + 2 * a) - 1)) and r.proxied == (('B', 'A', 0.5), ('NEW', 'A', 2.0)) and r.covered == 1.0
    assert apply(before, book, h, proxy=proxy).proxied == (('NEW', 'A', 2.0),)
    assert apply(after, book, h).loss is None
    in_file = Scenario('w', 'historical', start=after.start, end=after.end, proxy=proxy)
    assert apply(in_file, book, h).loss == pytest.approx(r.loss)
    assert apply(after, book, h, proxy={'NEW': ('Z', 1.0)}).not_covered == (('B', 10.0), ('NEW', -20.0))


def test_march_2020_is_covered_by_an_index_of_shares(reference):
    wide = with_index(reference, 'SHARES', ['AAPL', 'JPM', 'XOM', 'KO'])
    s = next(s for s in load_scenarios() if s.name == 'pandemic-2020')
    book = RiskBook('USD', 100.0, (hold('SP500', 100),))
    assert apply(s, book, wide).loss is None
    r = apply(s, book, wide, proxy={'SP500': ('SHARES', 1.0)})
    assert 25 < r.loss < 50 and r.proxied == (('SP500', 'SHARES', 1.0),)


def test_currencies_compound_and_are_covered_apart():
    t, rng = 10, np.random.default_rng(1)
    x, fx = rng.normal(0, 0.03, (t, 1)), rng.normal(0, 0.02, (t, 1))
    end = START + (1 + np.arange(t)) * DAY
    book = RiskBook('USD', 1.0, (hold('A', 100, 'EUR'),), {'EUR': -40.0, 'USD': 5.0})
    s = window('2020-01-02', '2020-01-09')
    r = apply(s, book, History(('A',), end, x, ('EUR',), fx))
    local, euro = (np.prod(1 + v[1:9, 0]) for v in (x, fx))
    assert r.loss == pytest.approx(-100 * (local * euro - 1) + 40 * (euro - 1)) and r.names == ('A', 'fx:EUR') and r.covered == 1.0
    dark = apply(s, book, History(('A',), end, x))
    assert dark.loss == pytest.approx(-100 * (local - 1)) and dark.not_covered == (('fx:EUR', 60.0),) and dark.covered == pytest.approx(1 - 140 / 240)
    assert apply(s, book, History((), end, np.empty((t, 0)))).loss is None


@given(st.dictionaries(st.sampled_from(['A', 'B', 'class:x', 'class:y', '*', 'fx:EUR', 'fx:*']), st.floats(-1, 2), min_size=1), st.floats(0, 3))
def test_a_shock_by_hand(shocks, scale):
    book = RiskBook('USD', 1.0, (hold('A', 10, **{'class': 'x'}), hold('B', -20, 'EUR', **{'class': 'x'}), hold('C', 30, 'JPY', **{'class': 'y'}), hold('D', 40)), {'EUR': 7.0})
    r = apply(Scenario('s', 'shock', shocks=shocks, scale=scale), book, History((), np.empty(0, dtype=np.int64), np.empty((0, 0))))
    def move(symbol, group): return next((max(scale * shocks[k], -1) for k in (symbol, f'class:{group}', '*') if k in shocks), None)
    def fx(c): return 0.0 if c == 'USD' else next((max(scale * shocks[k], -1) for k in (f'fx:{c}', 'fx:*') if k in shocks), 0.0)
    rows = [('A', 'x', 10, 'USD'), ('B', 'x', -20, 'EUR'), ('C', 'y', 30, 'JPY'), ('D', '', 40, 'USD')]
    instruments = any(not k.startswith('fx:') for k in shocks)
    silent = [s for s, g, _, _ in rows if move(s, g) is None] if instruments else []
    assert [s for s, _ in r.not_covered] == silent
    expected = -sum(v * ((1 + (move(s, g) or 0.0)) * (1 + fx(c)) - 1) for s, g, v, c in rows) - 7 * fx('EUR')
    assert r.loss == pytest.approx(expected, abs=1e-9) if r.loss is not None else len(silent) == 4


def test_a_gap_reaches_what_is_quoted_by_a_proxy():
    book = RiskBook('USD', 1.0, (hold('CFD', 100), hold('OTHER', 50)))
    r = apply(Scenario('gap', 'shock', shocks={'SP500': -0.07}), book, made(5), proxy={'CFD': ('SP500', 1.5)})
    assert r.loss == pytest.approx(10.5) and r.proxied == (('CFD', 'SP500', 1.5),) and r.not_covered == (('OTHER', 50.0),)
    assert apply(Scenario('gap', 'shock', shocks={'SP500': -0.07, '*': -0.01}), book, made(5), proxy={'CFD': ('SP500', 1.5)}).loss == pytest.approx(11.0)


def test_the_rest_follows_by_least_squares(reference):
    from statsmodels.api import OLS, add_constant
    s = Scenario('x', 'shock', shocks={'SP500': -0.1, 'WTI': -0.2}, rest='beta')
    book = RiskBook('USD', 1.0, (hold('SP500', 5), hold('AAPL', 100), hold('XOM', 50)))
    r = apply(s, book, reference, rows=750)
    cols = [reference.symbols.index(x) for x in ('SP500', 'WTI', 'AAPL', 'XOM')]
    x = reference.returns[:, cols]
    x = x[~np.isnan(x[:, :2]).any(axis=1)][-750:]
    expected = [-0.1] + [float(np.dot(OLS(x[:, j], add_constant(x[:, :2])).fit().params[1:], [-0.1, -0.2])) for j in (2, 3)]
    np.testing.assert_allclose(r.pnl, np.array([5, 100, 50]) * expected, rtol=1e-8)
    assert r.covered == 1.0
    young = History(('SP500', 'NEW'), START + (1 + np.arange(100)) * DAY, np.column_stack([np.linspace(-0.1, 0.1, 100), np.concatenate([np.full(50, np.nan), np.linspace(0, 0.2, 50)])]))
    assert apply(Scenario('x', 'shock', shocks={'SP500': -0.1}, rest='beta'), RiskBook('USD', 1.0, (hold('NEW', 1),)), young).loss is None       # fifty rows are no beta
    young.returns[30:50, 1] = 2 * young.returns[30:50, 0]
    assert apply(Scenario('x', 'shock', shocks={'SP500': -0.1}, rest='beta'), RiskBook('USD', 1.0, (hold('NEW', 1),)), young).loss is not None


@given(st.integers(0, 10 ** 6), st.lists(st.floats(-1e4, 1e4), min_size=5, max_size=5), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 3))
def test_correlations_against_the_whole_matrix(seed, values, to, by, vol):
    h = made(80, 4, seed)
    h.returns[:, 3] = 0.0      # one that never moves
    book = RiskBook('USD', 1e4, tuple(hold(s, v) for s, v in zip('ABCDA', values)))     # and one held twice
    r = apply(Scenario('c', 'correlation', to=to, by=by, vol=vol), book, h, level=0.95)
    v = np.array([values[0] + values[4], *values[1:4]])
    cov = np.cov(h.returns.T)
    sd = np.sqrt(np.diag(cov))
    aim = np.full((4, 4), max(to, -0.5)) + (1 - max(to, -0.5)) * np.eye(4)      # three that move: no lower than -1/2
    moved = vol ** 2 * ((1 - by) * cov + by * np.outer(sd, sd) * aim)
    assert np.linalg.eigvalsh(moved).min() > -1e-12
    tight = dict(rel=1e-6, abs=1e-6 * (1 + float(np.abs(v) @ sd)))
    assert r.loss == pytest.approx(var_normal(0.0, float(np.sqrt(max(v @ moved @ v, 0.0))), 0.95), **tight)
    assert r.base == pytest.approx(var_normal(0.0, float(np.sqrt(max(v @ cov @ v, 0.0))), 0.95), **tight)
    assert r.pnl.sum() == pytest.approx(-r.loss, **tight) and r.covered == 1.0


def test_correlations_of_what_has_a_history():
    h = made(80)
    h.returns[:, 1] = np.nan
    r = apply(Scenario('c', 'correlation', to=0.5), RiskBook('USD', 1.0, (hold('A', 10), hold('B', 30))), h)
    assert r.not_covered == (('B', 30.0),) and r.loss == pytest.approx(r.base) and r.covered == 0.25
    h.returns[:40, 0] = np.nan
    assert apply(Scenario('c', 'correlation', to=0.5), RiskBook('USD', 1.0, (hold('A', 10),)), h).loss is None      # forty rows are no covariance


def test_the_table_is_each_one_alone(reference):
    book = RiskBook('USD', 1e5, (hold('SP500', 4e4, **{'class': 'index'}), hold('JPM', 3e4, **{'class': 'equity'}), hold('KO', -2e4)), {'USD': 5e4})
    every = load_scenarios()
    table = stress_table(every, book, reference, proxy={'SP500': ('JPM', 0.7)})
    for s, r in zip(every, table):
        alone = apply(s, book, reference, proxy={'SP500': ('JPM', 0.7)})
        assert (alone.loss, alone.drawdown, alone.not_covered, alone.proxied) == (r.loss, r.drawdown, r.not_covered, r.proxied)
    assert table.worst is not None and table.worst.loss == max(r.loss for r in table if r.loss is not None)
    assert json.loads(json.dumps(plain_rows(table), allow_nan=False)) == plain_rows(table)
    html = table._repr_html_()
    assert all(s.name in html for s in every) and '>nan' not in html


def test_names_are_escaped():
    s = Scenario('<b>', 'shock', title='<i>', shocks={'<A>': -0.1})
    html = stress_table([s], RiskBook('USD', 1.0, (hold('<A>', 1), hold('<C>', 1))), made(3))._repr_html_()
    assert not any(x in html for x in ('<A>', '<C>', '<i>')) and '&lt;C&gt;' in html


def test_nothing_held_and_no_equity(reference):
    for book in (RiskBook('USD', 0.0), RiskBook('USD', 7.0, (), {'USD': 7.0})):
        assert {(r.loss, r.covered) for r in stress_table(load_scenarios(), book, reference)} == {(0.0, 1.0)}
    r = apply(Scenario('s', 'shock', shocks={'*': -0.5}), RiskBook('USD', -5.0, (hold('KO', 10),)), reference)
    assert (r.loss, r.share) == (5.0, None)
    assert stress_table((), RiskBook('USD', 0.0), reference).worst is None
