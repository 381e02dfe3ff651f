"""Our ledger's money and OANDA's, over random trades: equal to the last digit in every currency, whatever was bought, sold, turned round, financed and converted."""
from __future__ import annotations

import random
from decimal import Decimal

import pytest
from oanda_desk import LIMIT, SYMBOL, D, Desk, desk

from gekko.domain.account import Account, deposit, fund, settle
from gekko.domain.order import OrderState
from gekko.venue.sandbox.oanda_account import transfer

S = OrderState
PAIRS = {'EUR-USD': (D('1.10000'), D('0.00001')), 'GBP-USD': (D('1.27000'), D('0.00001')), 'USD-JPY': (D('150.000'), D('0.001'))}


def wander(d: Desk, chance: random.Random, at: dict[str, Decimal]) -> None:
    for s, (_, tick) in PAIRS.items():
        at[s] = at[s] + tick * chance.randint(-300, 300)
        d.there.set_price(s, at[s])


def agree_on_money(d: Desk) -> None:
    d.listen()
    cash, held = d.books()
    ours = d.money()
    assert {c: x for c, x in ours.cash.items() if x} == cash == {c: x for c, x in d.venue.cash().items() if x}
    assert {s: p.qty for s, p in ours.positions.items() if p.qty} == held == d.venue.positions()


@pytest.mark.parametrize('seed', [1, 2, 3])
def test_random_trades_and_nights_in_three_pairs(seed: int) -> None:
    chance, at = random.Random(seed), {s: p for s, (p, _) in PAIRS.items()}
    with desk() as d:
        for n in range(70):
            wander(d, chance, at)
            symbol, side = chance.choice(list(PAIRS)), chance.choice(['buy', 'sell'])
            name = d.send(side, str(chance.choice([1, 3, 7, 137, 1000, 4999, 25000])), symbol=symbol, reduce_only=False)
            d.expect(name, S.FILLED)
            if n % 23 == 22: d.there.advance(86_400)
            if n % 10 == 9: agree_on_money(d)
        agree_on_money(d)
        said = {t['type'] for t in d.log()}
        reasons = {f.reason for f in d.venue.funding_since('')}
        assert 'DAILY_FINANCING' in said and reasons == {'rounding of a profit', 'a profit converted', 'financing'}
        for s, p in d.venue.positions().items(): d.expect(d.send('sell' if p > 0 else 'buy', abs(p), symbol=s), S.FILLED)
        agree_on_money(d)
        assert d.venue.cash().keys() == {'USD'} and d.money().cash['JPY'] == 0        # flat: every yen is converted, and all that is left is the balance
        assert str(d.venue.cash()['USD']) == d.log()[-1]['accountBalance'] == str(d.venue.account()['balance'])
        d.agree()


def test_fundings_from_every_cursor_are_the_rest_of_the_list() -> None:
    with desk() as d:
        d.there.set_price('USD-JPY', '150.000')
        for symbol, side, n in (('USD-JPY', 'buy', 1000), (SYMBOL, 'buy', 333), ('USD-JPY', 'sell', 400), (SYMBOL, 'sell', 111), ('USD-JPY', 'sell', 900)):
            d.there.set_price('USD-JPY', D(150) + D(n) / 1000)
            d.there.set_price(SYMBOL, D('1.1') + D(n) / 100000)
            d.expect(d.send(side, str(n), symbol=symbol), S.FILLED)
        d.there.advance(3 * 86_400)                                     # a weekend is charged on its Wednesday, so one night may bring nothing
        d.until(lambda: d.log()[-1]['type'] == 'DAILY_FINANCING')
        everything = d.venue.funding_since('')
        assert len({f.funding_id for f in everything}) == len(everything) >= 6
        assert [int(f.funding_id.split(':')[0]) for f in everything] == sorted(int(f.funding_id.split(':')[0]) for f in everything)
        for n, f in enumerate(everything): assert d.venue.funding_since(f.funding_id) == everything[n + 1:]
        last = d.log()[-1]['id']
        assert d.venue.funding_since(last) == []
        d.agree()


def test_books_that_begin_in_the_middle_go_on_exactly() -> None:
    with desk() as d:
        d.there.set_price('USD-JPY', '151.500')
        d.expect(d.buy('1000', symbol='USD-JPY'), S.FILLED)
        d.expect(d.sell('700'), S.FILLED)
        d.listen()
        begun, cash, log = d.log()[-1]['id'], d.venue.cash(), len(d.heard)
        ours = Account('later', 'USD')
        for c, x in cash.items(): ours = deposit(ours, x, c)
        assert cash.keys() == {'USD', 'JPY'}
        d.there.set_price('USD-JPY', '152.123')
        d.there.set_price(SYMBOL, '1.11111')
        for symbol, side, n in (('USD-JPY', 'sell', '1300'), (SYMBOL, 'buy', '900')): d.expect(d.send(side, n, symbol=symbol), S.FILLED)
        for e in d.heard[log:]:
            if hasattr(e, 'fill'): ours = settle(ours, e.fill, d.instruments[e.fill.symbol])
        for f in d.venue.funding_since(begun): ours = fund(ours, f)
        assert ours.cash == d.venue.cash()


def test_a_limit_order_in_parts_and_a_chain_of_trades() -> None:
    with desk() as d:
        for n, price in enumerate(('1.10000', '1.10007', '1.10013')):
            d.there.set_price(SYMBOL, price)
            d.expect(d.buy(str(100 + n)), S.FILLED)
        d.there.fault({'fault': 'partial_fills', 'parts': 4, 'op': 'submit'})
        name = d.sell('250', LIMIT, limit='1.10000')
        d.expect(name, S.FILLED)
        assert d.said(name).count('Filled') > 1
        agree_on_money(d)
        assert sum(f.reason == 'rounding of a profit' for f in d.venue.funding_since('')) >= 1
        d.agree()


def test_a_deposit_is_no_result_of_trading() -> None:
    with desk() as d:
        before = d.venue.cash()['USD']
        def pay() -> None:
            v = d.there.server.protocol
            batch = v.desk.batch(v.desk.clients[d.number])
            transfer(batch, D(250))
            v.desk.close(batch)
        d.there.call(pay)
        assert d.venue.cash()['USD'] == before + 250 and d.venue.funding_since('') == []


def test_an_account_may_hold_both_sides_and_its_cash_is_exact_all_the_same() -> None:
    from gekko.venue.sandbox.oanda_desk import submit
    with desk(hedging=True) as d:
        def person() -> None:
            v = d.there.server.protocol
            for units in ('500', '-300'): submit(v.desk, v.desk.clients[d.number], {'type': 'MARKET', 'instrument': 'EUR_USD', 'units': units, 'positionFill': 'OPEN_ONLY'})
        d.there.call(person)
        cash, held = d.books()
        assert d.venue.account()['positions'] == {SYMBOL: {'long': 500, 'short': -300}} and d.venue.positions() == held == {SYMBOL: 200} and d.venue.cash() == cash
