"""The book: running sums equal the sums from scratch after every fact, and a refused fact changes nothing."""
from dataclasses import replace
from decimal import Decimal as D

import pytest
from hypothesis import given, strategies as st

from gekko.domain.account import Account, deposit, equity
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, OrderState, OrderType, Side
from gekko.domain.position import Position
from gekko.risk.gate import Reserved
from gekko.risk.view import BookView, Exposure, exposure, reserve

TRADED = {'WTI': Instrument('WTI', 'WTI', 'USD', 'commodity'), 'ES': Instrument('ES', 'ES', 'USD', 'index', multiplier=D(50)),
          'ETH': Instrument('ETH', 'ETH', 'USDT', 'crypto', lot=D('1e-18')), 'DAX': Instrument('DAX', 'DAX', 'EUR', 'index', multiplier=D('0.5'))}
NAMES = sorted(TRADED)
amounts = st.integers(1, 10 ** 24).map(lambda n: D(n).scaleb(-18))
prices = st.integers(1, 10 ** 12).map(lambda n: D(n).scaleb(-8))
sides, symbols = st.sampled_from(list(Side)), st.sampled_from(NAMES)
facts = st.one_of(
    st.tuples(st.just('mark'), symbols, prices), st.tuples(st.just('rate'), st.sampled_from(['USDT', 'EUR']), prices),
    st.tuples(st.just('fill'), symbols, sides, amounts, prices, st.sampled_from(['USD', 'EUR', 'USDT'])),
    st.tuples(st.just('order'), st.integers(0, 5), sides, amounts, st.booleans(), st.sampled_from(list(OrderState))),
    st.tuples(st.just('deposit'), amounts, st.sampled_from(['USD', 'EUR'])), st.tuples(st.just('observe')))


def opened():
    b = BookView('demo', 'USD', TRADED)
    for c in ('USDT', 'EUR'): b.rate(c, D(1))
    for s in NAMES: b.mark(s, D(100), 0)
    b.deposit(D(1_000_000))
    return b


def tell(b, fact, n, orders):
    match fact:
        case 'mark', s, p: b.mark(s, p, n)
        case 'rate', c, p: b.rate(c, p)
        case 'fill', s, side, q, p, fee: b.fill(Fill(f'f-{n}', 'x', s, side, q, p, fee=D('0.01'), fee_currency=fee))
        case 'order', k, side, q, market, state:
            i = Intent(NAMES[k % 4], side, q) if market else Intent(NAMES[k % 4], side, q, OrderType.LIMIT, limit=D(1))
            orders[k] = Order(f'g-{k}', i, state, filled=q if state is OrderState.FILLED else q / 4)
            b.track(orders[k])
        case 'deposit', a, c: b.deposit(a, c)
        case 'observe',: b.observe(n + 1)


@given(st.lists(facts, max_size=30))
def test_running_sums_are_the_sums_from_scratch_digit_by_digit(told):
    b, orders = opened(), {}
    for n, fact in enumerate(told):
        tell(b, fact, n, orders)
        assert Exposure(b.equity, b.gross, b.net_low, b.net_high, b.active) == exposure(b.account, b.marks, TRADED, orders.values(), b.rates)
        assert b.net_low <= b.net_high and abs(b.net_high) <= b.gross and abs(b.net_low) <= b.gross
    for s in NAMES:
        net = sum((o.open_qty * o.side.sign for o in orders.values() if o.symbol == s), D(0))
        assert b.working(s) == net and b.held(s) == b.account.qty(s) + net


@given(st.lists(st.tuples(sides, st.integers(1, 10 ** 6), st.integers(1, 10 ** 6)), min_size=1, max_size=20))
def test_equity_is_the_domain_s_own(trades):
    b = BookView('demo', 'USD', TRADED)
    b.deposit(D(5_000))
    for n, (side, q, p) in enumerate(trades): b.fill(Fill(f'f-{n}', 'x', 'ES', side, D(q).scaleb(-3), D(p).scaleb(-2), fee=D('0.35')))
    assert b.equity == equity(b.account, b.marks, TRADED)
    b.mark('ES', D('4321.25'), 9)
    assert b.equity == equity(b.account, {'ES': D('4321.25')}, TRADED)


def test_an_order_told_twice_reserves_once_and_its_end_frees_all():
    b, o = opened(), Order('g-1', Intent('WTI', Side.BUY, D(10), OrderType.LIMIT, limit=D(99)), OrderState.ACCEPTED)
    for _ in range(3): b.track(o)
    assert b.reserved('WTI') == Reserved(buys=D(10)) and b.gross == 1000
    b.track(replace(o, filled=D(4)))
    assert b.reserved('WTI') == Reserved(buys=D(6))
    for _ in range(3): b.track(replace(o, filled=D(4), state=OrderState.CANCELLED))
    assert (b.reserved('WTI'), b.gross, b.active, b._orders, b._open) == (Reserved(), 0, 0, {}, {})


@pytest.mark.parametrize('state', list(OrderState))
def test_only_a_market_order_whose_fate_is_known_counts_as_done(state):
    r = reserve(Order('g', Intent('WTI', Side.SELL, D(3)), state))
    assert r == (Reserved() if state.terminal else Reserved(sells=D(3)) if state is OrderState.UNKNOWN else Reserved(market_sells=D(3)))
    stop = Intent('WTI', Side.BUY, D(3), OrderType.STOP, stop=D(120))
    assert reserve(Order('g', stop, state)) == (Reserved() if state.terminal else Reserved(buys=D(3)))


REFUSED = [
    (lambda b: b.mark('GOLD', D(1), 1), 'unknown symbol'), (lambda b: b.mark('WTI', D(0), 1), 'positive, finite'), (lambda b: b.mark('WTI', D('NaN'), 1), 'positive, finite'),
    (lambda b: b.mark('WTI', 50.0, 1), 'positive, finite'), (lambda b: b.rate('EUR', D(-1)), 'positive, finite'), (lambda b: b.deposit(D(1), 'JPY'), 'expected JPY/USD'),
    (lambda b: b.fill(Fill('f', 'x', 'GOLD', Side.BUY, D(1), D(1))), 'unknown symbol'),
    (lambda b: b.fill(Fill('f', 'x', 'WTI', Side.BUY, D(1), D(1), fee=D(1), fee_currency='BNB')), 'expected BNB/USD'),
    (lambda b: b.track(Order('g', Intent('GOLD', Side.BUY, D(1)))), 'unknown symbol'),
    (lambda b: b.track(Order('g-7', Intent('ES', Side.BUY, D(1)))), 'does not change its symbol'),
    (lambda b: b.adopt(Account('demo', 'EUR')), 'another currency'), (lambda b: b.adopt(Account('demo', positions={'GOLD': Position('GOLD', D(1))})), 'unknown symbol'),
    (lambda b: b.adopt(Account('demo', cash={'JPY': D(1)})), 'expected JPY/USD'), (lambda b: b.observe(4), 'out of order'),
]


@pytest.mark.parametrize('fact, says', REFUSED)
def test_a_refused_fact_changes_nothing(fact, says):
    b = opened()
    b.fill(Fill('f-0', 'x', 'ES', Side.BUY, D(2), D(101)))
    b.track(Order('g-7', Intent('WTI', Side.SELL, D(5)), OrderState.ACCEPTED))
    b.observe(5)
    def state(): return (b.account, dict(b.marks), dict(b.mark_ts), dict(b.rates), b.equity, b.gross, b.net_low, b.net_high, b.active, b.meter, dict(b._orders), dict(b._open))
    before = state()
    with pytest.raises(BadInput) as e: fact(b)
    assert says in str(e.value) and state() == before


def test_a_restart_gives_the_same_book():
    b, again = opened(), BookView('demo', 'USD', TRADED)
    for n, (s, q) in enumerate((('WTI', 3), ('ES', 2), ('ETH', 7))): b.fill(Fill(f'f-{n}', 'x', s, Side.SELL, D(q), D(90)))
    o = Order('g-1', Intent('WTI', Side.BUY, D(10)), OrderState.UNKNOWN)
    b.track(o)
    for c, r in b.rates.items(): again.rate(c, r)
    with pytest.raises(BadInput, match='no price for a position held'): again.adopt(b.account)
    for s, p in b.marks.items(): again.mark(s, p, 0)
    again.adopt(b.account); again.track(o)
    assert (again.equity, again.gross, again.net_low, again.net_high, again.active) == (b.equity, b.gross, b.net_low, b.net_high, b.active)
    again.adopt(deposit(Account('demo'), D(10)))
    assert (again.equity, again.gross, again.active) == (10, 1000, 1)


def test_a_withdrawal_is_no_loss_and_a_falling_currency_is():
    b = BookView('demo', 'USD', TRADED)
    b.rate('EUR', D(1)); b.deposit(D(1_000)); b.deposit(D(1_000), 'EUR'); b.observe(1)
    b.deposit(D(-500)); b.observe(2)
    assert (b.meter.drawdown, b.peak_equity, b.day_start_equity) == (0, 1_500, 1_500)
    b.rate('EUR', D('0.7')); b.observe(3)
    assert b.meter.drawdown == D('0.2')


def test_it_shows_itself():
    b = opened()
    b.fill(Fill('f', 'x', 'WTI', Side.BUY, D(1000), D(100)))
    b.track(Order('g', Intent('WTI', Side.SELL, D(400), OrderType.LIMIT, limit=D(120)), OrderState.ACCEPTED))
    page = b._repr_html_()
    assert '600 to 1,000' in page and '100,000' in page and '1,000,000' in page and '0.10 x' in page
