"""The loss meter against its definition, read from the whole history at once."""
from decimal import Decimal as D

import pytest
from hypothesis import given, strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR, utc
from gekko.risk.drawdown import LossMeter, flow, measure, observe, trading_day

START = utc('2020-01-01')
curves = st.lists(st.tuples(st.integers(0, 40).map(lambda h: h * HOUR), st.integers(1, 10 ** 9).map(lambda n: D(n).scaleb(-2))), min_size=1, max_size=30).map(
    lambda gaps: [(START + 1 + sum(g for g, _ in gaps[:k + 1]), e) for k, (_, e) in enumerate(gaps)])


@given(curves)
def test_against_the_definition(curve):
    m = LossMeter()
    for k, (ts, equity) in enumerate(curve):
        m = observe(m, ts, equity)
        before = [e for t, e in curve[:k + 1] if trading_day(t) < trading_day(ts)]
        day = [e for t, e in curve[:k + 1] if trading_day(t) == trading_day(ts)]
        assert m.peak == max(e for _, e in curve[:k + 1])
        assert m.day_start == (before[-1] if before else day[0])
        assert (m.ts, m.equity) == (ts, equity) and 0 <= m.drawdown < 1 and m.day_loss < 1


@given(curves, st.data())
def test_a_restart_in_the_middle_forgets_nothing(curve, data):
    k = data.draw(st.integers(0, len(curve)))
    assert measure(curve[k:], measure(curve[:k])) == measure(curve)


@given(curves, st.integers(-10 ** 6, 10 ** 6).map(D))
def test_money_moved_changes_no_loss(curve, amount):
    m = measure(curve)
    after = flow(m, amount)
    assert after.day_start - after.equity == m.day_start - m.equity and after.peak - after.equity == m.peak - m.equity and after.ts == m.ts


def test_midnight_belongs_to_the_day_it_ends():
    assert trading_day(START + DAY) == trading_day(START + 1) == trading_day(START) + 1
    last = measure([(START + 10 * HOUR, D(100)), (START + DAY, D(90))])
    assert (last.day_start, last.day_loss) == (100, D('0.1'))
    assert observe(last, START + DAY + 1, D(90)).day_loss == 0


def test_a_gap_over_night_is_lost_by_the_day_that_opens_with_it():
    m = measure([(START + 10 * HOUR, D(100)), (START + 34 * HOUR, D(80))])
    assert m.day_loss == D('0.2') == m.drawdown


def test_nothing_in_the_account_is_no_loss():
    assert (LossMeter().day_loss, LossMeter().drawdown) == (0, 0)
    assert observe(LossMeter(), 5, D(-10)).drawdown == 0


def test_a_deposit_before_the_first_sight_starts_day_and_peak():
    m = observe(flow(LossMeter(), D(1_000)), START + 1, D(900))
    assert (m.day_start, m.peak, m.drawdown) == (1_000, 1_000, D('0.1'))


def test_time_does_not_run_back():
    with pytest.raises(BadInput, match='out of order'): observe(observe(LossMeter(), 10, D(1)), 9, D(1))
    assert observe(observe(LossMeter(), 10, D(1)), 10, D(2)).equity == 2
