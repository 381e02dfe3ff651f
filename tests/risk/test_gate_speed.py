"""How long the gate takes: printed, never asserted. Run with `pytest -m bench -s tests/risk`."""
import time
from decimal import Decimal as D

import pytest

from gekko.domain.instrument import Instrument
from gekko.domain.order import Fill, Intent, Order, OrderState, OrderType, Side
from gekko.domain.time import SystemClock
from gekko.risk.gate import Approved, Gate
from gekko.risk.kill import KillSwitch
from gekko.risk.limits import Limits
from gekko.risk.view import BookView

ALL_ON = Limits(max_order_notional=D(10 ** 6), max_order_qty=D(10 ** 4), max_position_notional=D(10 ** 6), max_net=D(2), max_orders_per_minute=D(10 ** 6), max_daily_loss=D('0.05'),
                max_drawdown=D('0.2'), stale_after_s=D(3600), symbols={f'S{i:03d}': {'max_order_qty': D(9_000)} for i in range(50)})


@pytest.mark.bench
@pytest.mark.parametrize('limit', [D('100.30'), None], ids=['limit', 'market'])
def test_a_check_over_a_book_of_a_hundred_symbols(limit, tmp_path, n=20_000):
    names, clock = [f'S{i:03d}' for i in range(100)], SystemClock()
    traded = {s: Instrument(s, s, 'USD', lot=D('0.01')) for s in names}
    book, gate = BookView('demo', 'USD', traded), Gate(ALL_ON, traded, clock, kill=KillSwitch(tmp_path / 'kill').reason)
    book.deposit(D(10_000_000))
    for k, s in enumerate(names):
        book.mark(s, D('100.25'), clock.now())
        book.fill(Fill(f'f-{k}', 'x', s, Side.BUY if k % 2 else Side.SELL, D('125.50'), D('100.10'), fee=D('0.12')))
        book.track(Order(f'w-{k}', Intent(s, Side.BUY, D('3.5'), OrderType.LIMIT, limit=D('99.5')), OrderState.ACCEPTED))
    book.observe(clock.now())
    kind = OrderType.LIMIT if limit else OrderType.MARKET
    orders, took = [Order(f'g-{i}', Intent(names[i % 100], Side.BUY if i % 3 else Side.SELL, D('12.25'), kind, limit=limit)) for i in range(n)], []
    for o in orders:
        start = time.perf_counter_ns()
        verdict = gate.check(o, book)
        took.append(time.perf_counter_ns() - start)
        assert isinstance(verdict, Approved)
    took.sort()
    print(f'\n{kind.value}: p50 {took[n // 2] / 1e3:.1f} us, p99 {took[n * 99 // 100] / 1e3:.1f} us')
