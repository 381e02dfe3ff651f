"""The report holds what the measures say, for a reader and for a program, and says what it lacks."""
import json
from decimal import Decimal as D

import numpy as np
import pytest

from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.risk.book import Holding, RiskBook
from gekko.risk.drawdown import LossMeter
from gekko.risk.history import History, history_of, scenarios
from gekko.risk.measures import METHODS, es_historical, quantile_loss, tail
from gekko.risk.report import backtests, parts, risk_report, tails
from gekko.risk.scenarios import Scenario, load_scenarios

QUICK = ('historical', 'normal')


def hold(symbol, value, currency='USD', **tags): return Holding(symbol, D(1), float(value), currency, 'paper', 'trend', tags)


def made(t=900, n=3, seed=0) -> History:
    rng = np.random.default_rng(seed)
    return History(tuple('ABCDE'[:n]), utc('2015-01-01') + (1 + np.arange(t)) * DAY, np.clip(rng.standard_t(5, (t, n)) * 0.01, -0.9, 0.9), ('EUR',), rng.normal(0, 0.005, (t, 1)))


def brief(*given, **more): return risk_report(*given, **{'days': 40, **more})      # each day of a backtest costs its share of a GARCH fit


@pytest.fixture(scope='module')
def reference() -> History:
    return history_of(reference_bars(['SP500', 'AAPL', 'KO']), missing='keep')


@pytest.fixture(scope='module')
def full(reference):
    shares = RiskBook('USD', 1e5, (hold('AAPL', 4e4, **{'class': 'equity'}), hold('KO', 3e4), hold('AAPL', 1e4), hold('SP500', 2e4, **{'class': 'index'})), {'USD': 0.0})
    return risk_report(shares, reference, load_scenarios(), 0.99, [('max_var', 'firm', 0.02, 0.015, None, 'of equity', 'soft')], ts=utc('2023-01-01'), missing='drop',
                       proxy={'SP500': ('AAPL', 0.6)}, adv={'KO': 1.0}, margins={'*': 0.5}, meter=LossMeter(1, D(90), D(100), D(120)))


def test_figures_are_those_of_the_measures(full, reference):
    m = scenarios(full.book, reference, 500, 'drop', {'SP500': ('AAPL', 0.6)})
    by = {(x.method, x.level): x for x in full.tails}
    assert set(by) == {(x, c) for x in METHODS for c in (0.99, 0.95)} and all(x.var is not None and x.es >= x.var for x in full.tails)
    for method in ('historical', 'normal', 'cornish-fisher', 'filtered'):
        t = tail(m.pnl, 0.99, method)
        assert (by[method, 0.99].var, by[method, 0.99].es) == (t.var, t.es)
    assert by['historical', 0.95].var == quantile_loss(m.pnl, 0.95) and (full.rows, full.last) == (500, '2022-12-28')
    assert {p.name for p in full.parts} == {'AAPL', 'KO', 'SP500'} and next(p.value for p in full.parts if p.name == 'AAPL') == 5e4
    assert sum(p.es for p in full.parts) == pytest.approx(es_historical(m.pnl, 0.99)) and sum(p.var for p in full.parts) == pytest.approx(by['normal', 0.99].var)
    assert full.proxied == (('SP500', 'AAPL', 0.6),) and full.margin.required == 5e4 and full.reverse.loss == 2e4


def test_json_is_plain_and_finite(full):
    x = json.loads(full.to_json(), parse_constant=lambda c: pytest.fail(f'{c} in the report'))
    assert (x['currency'], x['ts'], x['rows'], x['drawdown'], x['day_loss']) == ('USD', '2023-01-01T00:00:00Z', 500, 0.25, 0.1)
    assert x['limits'] == [{'name': 'max_var', 'scope': 'firm', 'used': 0.02, 'soft': 0.015, 'hard': None, 'unit': 'of equity', 'state': 'soft'}]
    assert len(x['stress']) == len(load_scenarios()) and {b['method'] for b in x['backtests']} == {'historical', 'normal', 'filtered'}
    assert x['liquidity']['unknown'] == 7e4 and x['reverse']['sigmas'] > 0 and {s['name'] for s in x['exposures']['instrument']} == {'AAPL', 'KO', 'SP500'}


def test_the_page_says_units_levels_window_dates_and_what_is_missing(full):
    html = full._repr_html_()
    for said in ('Risk report, USD, 2023-01-01', 'losses positive', '500 rows', 'to 2022-12-28', 'SP500 by 0.6', '0.99', 'VaR, USD', 'exceptions', 'promised', 'max_var', 'soft', 'Student 5', 'no volume is known', 'Days to exit', 'What loses 20,000', 'gross / equity'):
        assert said in html, said
    assert '>nan' not in html and len(html) < 150_000


def test_the_same_report_twice(full, reference):
    again = risk_report(full.book, reference, load_scenarios(), 0.99, full.limits, ts=full.ts, missing='drop', proxy={'SP500': ('AAPL', 0.6)}, adv={'KO': 1.0}, margins={'*': 0.5}, meter=full.meter)
    assert again.to_json() == full.to_json()


def test_what_a_scenario_does_not_cover_is_among_the_notes():
    s = Scenario('old', 'historical', start=utc('1999-01-01'), end=utc('1999-02-01'))
    r = brief(RiskBook('USD', 10.0, (hold('A', 5),)), made(), [s], methods=QUICK)
    assert any('1 of 1 scenarios do not cover all of the book: old 0%' in n for n in r.notes) and any('liquidity is not judged' in n for n in r.notes)
    assert json.loads(r.to_json())['stress'][0]['loss'] is None


def test_a_method_that_cannot_answer_keeps_its_line():
    h = made(80)
    r = brief(RiskBook('USD', 10.0, (hold('A', 5),)), h, ())
    line = next(x for x in r.tails if x.method == 'filtered')
    assert line.var is None and line.es is None and 'too few rows' in line.note and any(n.startswith('filtered at 0.99') for n in r.notes)
    assert any('only 80 rows' in n for n in r.notes) and any('not backtested' in n for n in r.notes) and 'too few rows' in r._repr_html_()


def test_backtests_look_back_only():
    """What a forecast says of a day doesn't change with that day or any after it."""
    h, book = made(800), RiskBook('USD', 10.0, (hold('A', 5), hold('B', -2)))
    before = {n: b for n, b in backtests(scenarios(book, h), 0.95, 500, 250)}
    h.returns[-1] = 0.0
    after = {n: b for n, b in backtests(scenarios(book, h), 0.95, 500, 250)}
    for n in before: assert [k for k in before[n].rows if k != 749] == list(after[n].rows) and before[n].n == 250
    assert backtests(scenarios(book, made(300)), 0.95, 500, 250) == ()


@pytest.mark.parametrize('book', [RiskBook('USD', 0.0), RiskBook('USD', 500.0, (), {'USD': 500.0})])
def test_nothing_held(book):
    r = brief(book, made(), load_scenarios(), methods=('historical', 'normal', 'monte-carlo'))
    assert {(x.var, x.es) for x in r.tails} == {(0.0, 0.0)} and (r.parts, r.reverse, r.backtests) == ((), None, ())
    assert '>nan' not in r._repr_html_() and json.loads(r.to_json())['equity'] == book.equity


def test_foreign_cash_alone_is_a_risk():
    r = brief(RiskBook('USD', 100.0, (), {'EUR': 100.0}), made(), load_scenarios(), methods=QUICK)
    assert all(x.var > 0 for x in r.tails) and [p.name for p in r.parts] == ['fx:EUR'] and {s.name: s.net for s in r.exposures['currency']} == {'EUR': 100.0}
    assert next(x for x in r.stress if x.name == 'foreign-10').loss == pytest.approx(10.0) and r.reverse is not None


def test_one_instrument_no_equity_and_a_perfect_hedge():
    h = made()
    r = brief(RiskBook('USD', -5.0, (hold('A', 10),)), h, load_scenarios(), methods=QUICK)
    assert r.reverse is None and any('equity is not above zero' in n for n in r.notes) and 'nan' not in json.dumps(json.loads(r.to_json())['exposures']).lower()
    h.returns[:, 1] = h.returns[:, 0]
    hedged = brief(RiskBook('USD', 10.0, (hold('A', 5), hold('B', -5))), h, (), methods=(*QUICK, 'monte-carlo'))
    assert all(abs(x.var) < 1e-9 for x in hedged.tails if x.var is not None) and any('no reverse stress' in n for n in hedged.notes)


def test_what_would_be_a_wrong_number_is_refused():
    h = made()
    for book, said in ((RiskBook('USD', 1.0, (hold('Z', 1),)), 'no history for what is held.*Z'), (RiskBook('USD', 1.0, (), {'GBP': 1.0}), 'expected GBP/USD'), (RiskBook('EUR', 1.0), 'another currency')):
        with pytest.raises(BadInput, match=said): brief(book, h, ())
    h.returns[-3, 0] = np.nan
    with pytest.raises(BadInput, match='A: no return in 1 of 540 rows'): brief(RiskBook('USD', 1.0, (hold('A', 1),)), h, ())
    with pytest.raises(BadInput, match='level'): brief(RiskBook('USD', 1.0, (hold('B', 1),)), h, (), 0.3)
    with pytest.raises(BadInput, match='unknown method'): brief(RiskBook('USD', 1.0, (hold('B', 1),)), h, (), methods=('guess',))
    with pytest.raises(BadInput, match='rows'): brief(RiskBook('USD', 1.0), h.rows(0, 1), ())


def test_longer_horizons_are_wider():
    m = scenarios(RiskBook('USD', 10.0, (hold('A', 5),)), made())
    one, ten = (tails(m, (0.99,), ('normal', 'monte-carlo'), horizon=h) for h in (1, 10))
    assert all(b.var > 2 * a.var for a, b in zip(one, ten))


def test_parts_of_what_stands_twice_are_one():
    m = scenarios(RiskBook('USD', 10.0, (hold('A', 5), hold('A', -5), hold('B', 2))), made())
    by = {p.name: p for p in parts(m, 0.99)}
    assert set(by) == {'A', 'B'} and by['A'].value == 0.0 and by['A'].es == pytest.approx(0.0, abs=1e-12)


def test_a_report_of_then_knows_nothing_of_later():
    h, book = made(), RiskBook('USD', 10.0, (hold('A', 5),))
    then = int(h.end[799])
    a = brief(book, h, load_scenarios(), ts=then, methods=QUICK)
    b = brief(book, h.rows(0, 800), load_scenarios(), ts=then, methods=QUICK)
    assert a.to_json() == b.to_json() and a.last == '2017-03-10'
    late = brief(book, h, (), ts=int(h.end[-1]) + 9 * DAY, methods=QUICK)
    assert any('9 days before the report' in n for n in late.notes) and not any('before the report' in n for n in a.notes)
