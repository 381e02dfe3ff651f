"""The risk of accounts from their journals: what is measured, what is named as not measured, and that open orders, deposits and other currencies count."""
from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from desk_stage import ledger_of

from gekko.data.reference import reference_instrument
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Filled, Intent, Side
from gekko.domain.time import DAY, utc
from gekko.ledger.events import BreachRecorded, Deposited, Halted, IntentRecorded, Marked, RunOpened
from gekko.ledger.journal import Journal
from gekko.ledger.rights import CHARTER
from gekko.ops.assess import all_together, assess, figures, scenarios_here, stand, tripped, verdict
from gekko.ops.risk import example, held_accounts, lens_for, prices_for, uses_of
from gekko.risk.limits import Limits

D = Decimal
THEN = utc('2016-03-01')


def bought(url: str, account: str, i: Instrument, qty: str, price: str, cash: str = '100000', currency: str = 'USD', **limits: str) -> None:
    """An account that bought once and was marked once."""
    with Journal.open(url, account) as j:
        fill = Fill('f1', 'g1', i.symbol, Side.BUY, D(qty), D(price), fee_currency=currency)
        for r in (i, Deposited(D(cash), currency), RunOpened('r1', strategy='trend', spec={'limits': limits}), IntentRecorded('g1', Intent(i.symbol, Side.BUY, D(qty))), Filled('g1', fill), Marked({i.symbol: D(price)}, D(cash))):
            j.append(r, THEN)


@pytest.fixture
def url(tmp_path: Path) -> str: return ledger_of(tmp_path)


def test_an_open_order_counts_as_filled(url: str) -> None:
    bought(url, 'coinbase-main', reference_instrument('KO'), '1000', '43.00', max_gross='0.6')
    (x,), lost = stand(url, ['coinbase-main'])
    lens = lens_for(x, prices_for(x.book, None))
    assert not lost and {u.limit: u.state for u in uses_of(x, lens)}['max_gross'] == 'ok'
    with Journal.open(url, 'coinbase-main') as j: j.append(IntentRecorded('g2', Intent('KO', Side.BUY, D(1000))), THEN)
    (x,), _ = stand(url, ['coinbase-main'])
    use = {u.limit: u for u in uses_of(x, lens)}['max_gross']
    assert use.state == 'hard' and use.used == D('0.86')


def test_what_has_no_prices_is_named_and_the_rest_is_measured(url: str) -> None:
    bought(url, 'coinbase-main', reference_instrument('KO'), '1000', '43.00')
    bought(url, 'oanda-7', Instrument('EUR-USD', 'EUR', 'USD', 'fx'), '1000', '1.10', '5000')
    found, lost = stand(url, held_accounts(url))
    a = assess(found, None, methods=('historical',), how='historical')
    assert not lost and [(d.name, round(d.value)) for d in a.dark] == [('EUR-USD', 1100)] and a.report is not None
    assert a.book.equity == 105_000 and figures(a)['not_measured'] == 1 and figures(a)['var_99'] == a.report.tails[0].var / 105_000
    assert verdict(a)[0] == 'unmeasured' and 'EUR-USD' in verdict(a)[1] and any('EUR-USD' in n for n in a.report.notes)


def test_an_account_in_a_currency_without_a_rate_is_left_out_and_named(url: str) -> None:
    bought(url, 'a', reference_instrument('KO'), '1000', '43.00')
    bought(url, 'b', replace(reference_instrument('KO'), quote='EUR'), '10', '40.00', '9000', 'EUR')
    book, dark = all_together(stand(url, ['a', 'b'])[0])
    assert book.equity == 100_000 and [(d.name, d.why) for d in dark] == [('account b', 'no rate of EUR/USD')]


def test_the_firms_journal_and_paper_are_not_among_accounts_with_money(url: str) -> None:
    for name in ('paper-1', 'paper-2', CHARTER, 'backtest'):
        with Journal.open(url, name) as j: j.append(Deposited(D(5)), THEN)
    assert held_accounts(url) == ['paper-2']
    with Journal.open(url, 'oanda-7') as j: j.append(Deposited(D(5)), THEN)
    assert held_accounts(url) == ['oanda-7']


def test_money_paid_in_is_no_profit_of_a_day(url: str) -> None:
    with Journal.open(url, 'a') as j:
        j.append(Deposited(D(1000)), THEN)
        j.append(Marked({}, D(1000)), THEN + DAY)
        j.append(Deposited(D(500)), THEN + 2 * DAY)
        j.append(Marked({}, D(1500)), THEN + 2 * DAY)
    (x,), _ = stand(url, ['a'])
    assert [v for _, v in x.days] == [1000.0, 1000.0] and x.ts == THEN + 2 * DAY


def test_what_repeats_itself_is_one_row(url: str) -> None:
    with Journal.open(url, 'a') as j:
        for n in range(4): j.append(BreachRecorded('max_gross', '1', '2', message=f'try {n}'), THEN + n)
        j.append(Halted('enough', 'ann'), THEN + 5)
        j.append(BreachRecorded('max_gross', '1', '2', message='again'), THEN + 6)
    assert [(r['event'], r['times'], r['what']) for r in tripped(url, ['a'])] == [('order refused', 1, 'again'), ('halted', 1, 'enough'), ('order refused', 4, 'try 3')]


def test_a_tail_that_cannot_be_told_counts_as_over() -> None:
    x = example()
    x = replace(x, bounds=replace(x.bounds, hard=Limits(max_var=D('0.5')), soft=Limits()))
    assert {u.limit: (u.used, u.state) for u in uses_of(x, None)}['max_var'] == (None, 'hard')
    assert {u.limit: u.state for u in uses_of(x, lens_for(x, prices_for(x.book, None)))}['max_var'] == 'ok'


def test_the_stress_limit_and_the_stress_table_agree(tmp_path: Path) -> None:
    x, (told, proxies) = example(), scenarios_here(tmp_path)
    a = assess([x], None, told, proxies, methods=('historical',), how='historical')
    assert a.report is not None
    worst = max(r.loss for r in a.report.stress if r.loss is not None and r.scenario.kind != 'correlation')
    assert {u.limit: float(u.used or 0) for _, u in a.uses}['max_stress'] == pytest.approx(worst / a.book.equity, rel=1e-9)
