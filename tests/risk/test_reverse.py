"""The likeliest way to lose an amount: it loses it, nothing is likelier, and it can be applied."""
from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY
from gekko.risk.book import Holding, RiskBook
from gekko.risk.history import History, scenarios
from gekko.risk.reverse import as_scenario, most_likely, reverse_stress
from gekko.risk.scenarios import Scenario
from gekko.risk.stress import apply, stress_table


def hold(symbol, value, currency='USD'): return Holding(symbol, D(1), float(value), currency)


def made(t=200, n=4, seed=0) -> History:
    rng = np.random.default_rng(seed)
    fx = rng.normal(0, 0.006, (t, 1))
    return History(tuple('ABCDEF'[:n]), (1 + np.arange(t)) * DAY, np.clip(rng.normal(0, 0.01, (t, n)) @ rng.normal(size=(n, n)), -0.9, 0.9), ('EUR',), fx)


books = st.lists(st.floats(-1e5, 1e5), min_size=5, max_size=5).filter(lambda v: max(map(abs, v)) > 1).map(
    lambda v: RiskBook('USD', 1e5, (hold('A', v[0]), hold('B', v[1], 'EUR'), hold('C', v[2]), hold('A', v[3])), {'EUR': v[4], 'USD': 1.0}))


@given(books, st.floats(1, 1e6), st.integers(0, 1000), st.integers(1, 10))
def test_it_loses_exactly_that(book, loss, seed, horizon):
    h = made(seed=seed)
    r = reverse_stress(book, h, loss, horizon=horizon, rows=None)
    assert r.moves @ r.values == pytest.approx(-loss, rel=1e-9) and r.pnl.sum() == pytest.approx(-loss, rel=1e-9)
    assert r.sigmas == pytest.approx(loss / (scenarios(book, h).pnl.std(ddof=1) * np.sqrt(horizon)), rel=1e-6)
    if r.possible and min(r.moves.tolist()) > -0.999:
        again = apply(as_scenario(r, book), book, h)
        assert again.loss == pytest.approx(loss, rel=1e-7) and again.covered == 1.0


@given(st.integers(0, 1000), st.lists(st.floats(-100, 100).filter(lambda x: abs(x) > 1), min_size=3, max_size=3))
def test_nothing_that_loses_as_much_is_likelier(seed, values):
    rng = np.random.default_rng(seed)
    returns, v = rng.normal(0, 0.01, (60, 3)) @ rng.normal(size=(3, 3)), np.array(values)
    x, sigmas = most_likely(v, returns, 5.0)
    inverse = np.linalg.inv(np.cov(returns.T))
    assert x @ inverse @ x == pytest.approx(sigmas ** 2, rel=1e-4)
    others = rng.normal(size=(200, 3)) * np.abs(x).max()
    others -= np.outer((others @ v + 5) / (v @ v), v)
    assert (np.einsum('ni,ij,nj->n', others, inverse, others) >= sigmas ** 2 * (1 - 1e-4)).all()


def test_against_an_optimiser():
    rng = np.random.default_rng(8)
    returns, v = rng.normal(0, 0.01, (300, 4)) @ rng.normal(size=(4, 4)), np.array([10.0, -20.0, 5.0, 40.0])
    inverse = np.linalg.inv(np.cov(returns.T)) * 1e-4
    found = minimize(lambda x: x @ inverse @ x, np.zeros(4), jac=lambda x: 2 * inverse @ x, constraints={'type': 'eq', 'fun': lambda x: v @ x + 1, 'jac': lambda x: v}, method='SLSQP', options={'ftol': 1e-14})
    np.testing.assert_allclose(most_likely(v, returns, 1.0)[0], found.x, rtol=1e-3, atol=1e-5)


def test_each_alone_loses_it_too():
    h = made()
    book = RiskBook('USD', 1e3, (hold('A', 600), hold('B', -100), hold('A', 400), hold('C', 50)))
    r = reverse_stress(book, h, 100.0, rows=None)
    by = {a.name: a for a in r.alone}
    assert by['A'].move == pytest.approx(-0.1) and by['B'].move == pytest.approx(1.0) and by['C'].move == pytest.approx(-2.0) and not by['C'].possible
    assert by['A'].sigmas == pytest.approx(0.1 / h.returns[:, 0].std(ddof=1)) and r.alone[-1].name == 'C'
    still = History(('A', 'Q'), h.end, np.column_stack([h.returns[:, 0], np.zeros(len(h))]))
    assert reverse_stress(RiskBook('USD', 1e3, (hold('A', 600), hold('Q', 500))), still, 10.0).alone[-1].sigmas is None


def test_history_made_larger_loses_it():
    h = made()
    book = RiskBook('USD', 1e3, (hold('A', 600), hold('B', -100, 'EUR')))
    windows = [Scenario(f'w{k}', 'historical', start=(k * 20 + 1) * DAY, end=(k * 20 + 6) * DAY) for k in range(8)]
    r = reverse_stress(book, h, 30.0, stresses=stress_table([*windows, Scenario('s', 'shock', shocks={'*': -0.1})], book, h))
    assert r.scaled and 's' not in dict(r.scaled) and [k for _, k in r.scaled] == sorted(k for _, k in r.scaled)
    for name, k in r.scaled:
        s = next(w for w in windows if w.name == name)
        larger = apply(Scenario(name, 'historical', start=s.start, end=s.end, scale=k), book, h)
        if k < 10: assert larger.loss == pytest.approx(30.0)


def test_no_way_to_lose_is_refused():
    h = made()
    twins = History(('A', 'T'), h.end, np.column_stack([h.returns[:, 0]] * 2))
    for book, said in ((RiskBook('USD', 0.0), 'cannot lose'), (RiskBook('USD', 5.0, (), {'USD': 5.0}), 'cannot lose'), (RiskBook('USD', 5.0, (hold('A', 9), hold('T', -9))), 'do not touch')):
        with pytest.raises(BadInput, match=said): reverse_stress(book, twins, 1.0)
    one = RiskBook('USD', 1.0, (hold('A', 1),))
    for loss in (0.0, -1.0, float('nan'), float('inf')):
        with pytest.raises(BadInput, match='a loss to find'): reverse_stress(one, h, loss)
    with pytest.raises(BadInput, match='horizon'): reverse_stress(one, h, 1.0, horizon=0)
    with pytest.raises(BadInput, match='no history'): reverse_stress(RiskBook('USD', 1.0, (hold('Z', 1),)), h, 1.0)


def test_more_than_everything_is_marked():
    h = made()
    book = RiskBook('USD', 1.0, (hold('A', 100),))
    r = reverse_stress(book, h, 150.0)
    assert not r.possible and r.moves[0] == pytest.approx(-1.5) and 'not possible this way' in r._repr_html_()
    with pytest.raises(BadInput, match='moves below -100 %'): as_scenario(r, book)
