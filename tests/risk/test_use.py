"""The use of limits: read from the book, told once, and never more lenient than the gate."""
from __future__ import annotations

from decimal import Decimal as D

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, OrderState, OrderType, Side
from gekko.domain.time import SimClock, utc
from gekko.risk.gate import Approved, Gate
from gekko.risk.lens import Lens
from gekko.risk.mandate import OFF, only
from gekko.risk.use import Sentinel, Use, readings, use_table, uses
from gekko.risk.view import BookView

NOW = utc('2020-01-02')
TRADED = {s: Instrument(s, s, 'USD', lot=D('0.01')) for s in ('WTI', 'SP500')}


def book(wti: str = '0', sp: str = '0', cash: str = '100000') -> BookView:
    b = BookView('main', 'USD', TRADED)
    b.deposit(D(cash))
    for s, p, q in (('WTI', D(50), D(wti)), ('SP500', D(3000), D(sp))):
        b.mark(s, p, NOW)
        if q: b.fill(Fill(f'f-{s}', 'g', s, Side.BUY if q > 0 else Side.SELL, abs(q), p))
    b.observe(NOW)
    return b


@given(st.integers(-4000, 4000), st.integers(-60, 60))
@settings(max_examples=100, deadline=None)
def test_what_is_within_its_limit_passes_the_gate_with_the_smallest_order(wti: int, sp: int) -> None:
    b, hard = book(str(wti), str(sp)), only({'max_gross': D('1.5'), 'max_net': D(1)})
    states = {u.limit: u.state for u in uses(b, hard, OFF, NOW)}
    verdict = Gate(hard, TRADED, SimClock(NOW)).check(Order('g-1', Intent('WTI', Side.BUY if wti >= 0 else Side.SELL, D('0.01'))), b)
    if states['max_gross'] == 'hard' and wti: assert not isinstance(verdict, Approved)


def test_every_limit_that_something_stands_against_is_read() -> None:
    b = book('1000', '-10')
    b.track(Order('w', Intent('WTI', Side.BUY, D(500), OrderType.LIMIT, limit=D(49)), OrderState.ACCEPTED))
    hard = only({'max_position_notional': D(60_000), 'max_positions': D(5), 'max_gross': D(2), 'max_net': D(1), 'max_daily_loss': D('0.1'), 'max_drawdown': D('0.2'),
                 'max_var': D('0.1'), 'max_es': D('0.1'), 'max_stress': D('0.5'), 'stale_after_s': D(60), 'max_order_qty': D(5)})
    lens = Lens(('WTI', 'SP500'), np.random.default_rng(0).normal(0, 0.01, (300, 2)), shocks=np.array([[-0.3, 0.1]]))
    lens.hold({s: (float(x), float(y)) for s, (x, y) in b.ends().items()})
    seen = {u.limit: u for u in uses(b, hard, OFF, NOW + 90 * 10**9, lens)}
    assert set(seen) == {'max_position_notional', 'max_positions', 'max_gross', 'max_net', 'max_daily_loss', 'max_drawdown', 'max_var', 'max_es', 'max_stress', 'stale_after_s'}, 'the size of one order stands against nothing'
    assert seen['max_position_notional'].used == D(75_000) and seen['max_position_notional'].symbol == 'WTI' and seen['max_position_notional'].state == 'hard'
    assert seen['max_gross'].used == D('1.05') and seen['max_net'].used == D('0.45') and seen['stale_after_s'].used == D(90)
    assert seen['max_stress'].used == pytest.approx(D('0.255')), '0.3 of 75,000 of oil, and 0.1 of 30,000 short'
    assert seen['max_es'].used > seen['max_var'].used > 0
    assert all(w in use_table(seen.values()) for w in ('max_gross', 'hard', 'WTI'))


def test_no_equity_and_no_lens_are_over_the_limit_and_not_under_it() -> None:
    gone = book('1000', cash='50000')
    gone.mark('WTI', D(1), NOW + 1)
    gone.fill(Fill('x', 'g', 'WTI', Side.BUY, D(1), D(2000)))
    assert gone.equity < 0 and readings(gone)['max_gross'] is None
    assert [u.state for u in uses(gone, only({'max_gross': D(2), 'max_var': D(1)}), OFF, NOW)] == ['hard', 'hard']


@given(st.lists(st.decimals(0, 4, places=2), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_the_sentinel_tells_each_passage_once_and_forgets_none(path: list[D]) -> None:
    s, told, now = Sentinel(), [], 'ok'
    for x in path:
        u = Use('max_gross', 'x equity', x, D('1.5'), D(2))
        got = s.changes([u])
        assert len(got) <= 1
        if got:
            assert got[0].state != now
            now = got[0].state
            told.append(now)
        if x > 2: assert now == 'hard' and s.hard == ('max_gross',)
        elif x > D('1.5'): assert now != 'ok'
        if x <= D('1.47'): assert now == 'ok' and s.hard == ()
    assert all(a != b for a, b in zip(told, told[1:]))


def test_the_position_that_is_told_is_one_that_is_over() -> None:
    """A soft level far behind does not hide a hard one that is passed."""
    b = book('1000', '-10')
    hard, soft = only({}, {'WTI': {'max_position_notional': D(49_000)}}), only({}, {'SP500': {'max_position_notional': D(3_000)}})
    [u] = uses(b, hard, soft, NOW)
    assert (u.symbol, u.state) == ('WTI', 'hard')


def test_what_is_counted_is_back_at_its_limit() -> None:
    s = Sentinel()
    for n, state in ((5, ()), (6, ('max_positions',)), (5, ())):
        s.changes([Use('max_positions', 'symbols', D(n), None, D(5))])
        assert s.hard == state


def test_nothing_held_is_no_risk_whatever_cannot_be_measured() -> None:
    tails = only({'max_var': D('0.01'), 'max_es': D('0.01'), 'max_stress': D('0.1')})
    assert [u.state for u in uses(book(), tails, OFF, NOW)] == ['ok'] * 3
    dark = Lens(('WTI', 'SP500'), np.random.default_rng(0).normal(0, 1e-4, (300, 2)), shocks=np.array([[np.nan, -0.2]]))
    b = book('1000')
    dark.hold({'WTI': 50_000.0})
    assert {u.limit: u.state for u in uses(b, tails, OFF, NOW, dark)} == {'max_var': 'ok', 'max_es': 'ok', 'max_stress': 'hard'}
