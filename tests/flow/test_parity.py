"""The same decisions on the same history, in this process and through a desk's socket, give the same fills one by one."""
import random
from collections.abc import Callable, Iterator
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk_stage import at, bars, deals, ledger_of, make_store, settings_of, tidy
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.store import Store
from gekko.desk.result import Result
from gekko.desk.serve import start_desk
from gekko.desk.session import Session, open_run, trade
from gekko.domain.instrument import Instrument
from gekko.domain.order import OrderState
from gekko.ledger.journal import read_entries, verify
from gekko.ledger.replay import replay


@pytest.fixture(scope='module', autouse=True)
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with three walks, one of which misses every seventh minute, and one standing desk for all tests here."""
    folder = tmp_path_factory.mktemp('parity')
    holes = bars(seed=11).drop(range(0, 240, 7)).reset_index(drop=True)
    Store(str(make_store(folder / 'store'))).write('HOLES', '1m', holes, Instrument('HOLES', 'HOLES', 'USD', tick=D('0.01'), lot=D('0.001')))
    with pytest.MonkeyPatch.context() as env, tidy(folder / 'home') as home:
        for name, value in (*at(home).items(), ('GEKKO_STORE', folder / 'store'), ('GEKKO_HEARTBEAT_S', '0.5')): env.setenv(name, str(value))
        serving = start_desk(settings_of(home), 'standing', log=home / 'desk.log', leave_when_done=False)
        yield home
        assert serving.stop() == 0


def both(drive: Callable[[Session], Result], symbols: list[str], home: Path, **asked: Any) -> tuple[Result, Result]:
    """`drive` in both modes; whatever it does, the two must agree with each other, and the ledger with them."""
    first, second = (drive(open_run(symbols, mode=mode, **{'window': 10, 'bar': '1m', **asked})) for mode in ('backtest', 'paper'))
    assert deals(first) == deals(second)
    assert first.equity == second.equity and (first.times == second.times).all() and np.array_equal(first.closes, second.closes, equal_nan=True)
    assert [(o.intent.symbol, o.intent.side, o.intent.qty, o.state, o.filled, o.fees, o.reason) for o in first.orders] == [(o.intent.symbol, o.intent.side, o.intent.qty, o.state, o.filled, o.fees, o.reason) for o in second.orders]
    assert [(b.ts, b.symbol, b.limit, b.allowed, b.found) for b in first.breaches] == [(b.ts, b.symbol, b.limit, b.allowed, b.found) for b in second.breaches]
    report, book = verify(ledger_of(home), second.account, second.journal_head), replay(read_entries(ledger_of(home), second.account))
    assert report.ok and not book.faults and not book.open_orders
    assert book.equity == second.final_equity and tuple(e for _, e in book.equity_curve) == second.equity
    assert tuple(book.fills) == second.fills and {o.client_id for o in second.orders} <= book.orders.keys()
    return first, second


def chance(symbols: list[str], seed: int, most: int) -> Callable[[Session], Result]:
    """A loop that wants other sizes at most bars, some of them as weights, and leaves the rest alone."""
    def drive(run: Session) -> Result:
        rng = random.Random(seed)
        for _ in run:
            s, what = rng.choice(symbols), rng.random()
            if what < 0.6: run.target(units={s: D(rng.randint(-most, most))})
            elif what < 0.8: run.target(weights={x: round(rng.uniform(-0.6, 0.6), 3) for x in symbols})
        return run.finish()
    return drive


def test_orders_that_a_bar_cannot_fill_at_once(desk: Path) -> None:
    run, _ = both(chance(['WALK'], 1, 60), ['WALK'], desk, participation='0.05')
    by_order = {o.client_id: sum(f.client_id == o.client_id for f in run.fills) for o in run.orders}
    assert max(by_order.values()) > 2, 'no order was filled in parts'


def test_rejections_by_chance(desk: Path) -> None:
    seeds = [both(chance(['WALK', 'SIDE'], 2, 40), ['WALK', 'SIDE'], desk, reject_rate=0.3, seed=seed)[0] for seed in (5, 6)]
    for r in seeds: assert 0.2 < sum(o.state is OrderState.REJECTED for o in r.orders) / len(r.orders) < 0.4
    assert deals(seeds[0]) != deals(seeds[1])


def test_intents_that_the_gate_refuses(desk: Path) -> None:
    run, _ = both(chance(['WALK'], 3, 60), ['WALK'], desk, limits={'max_order_qty': '50', 'max_position_notional': '4000'})
    assert {b.limit for b in run.breaches} == {'max_order_qty', 'max_position_notional'} and run.fills


def test_symbols_that_miss_bars(desk: Path) -> None:
    run, _ = both(chance(['WALK', 'HOLES'], 4, 30), ['WALK', 'HOLES'], desk, slippage_bps='3')
    assert np.isnan(run.closes[:, 1]).sum() == 35 and {f.symbol for f in run.fills} == {'WALK', 'HOLES'}


def test_weights_of_a_whole_frame_and_of_its_last_row(desk: Path) -> None:
    """Called once in the backtest and 235 times on the desk."""
    def weights(b: Any) -> Any:
        mean = np.full(b.close.shape, np.nan)
        for t in range(9, len(b)): mean[t] = b.close[t - 9:t + 1].mean(axis=0)
        return np.where(np.isnan(mean), np.nan, np.sign(b.close - mean) * 0.4)
    run, _ = both(lambda run: trade(run, weights), ['WALK', 'SIDE'], desk, band='0.01', start='2024-01-02T00:20', limits={'max_gross': '1.5'})
    assert len(run.times) == 220 and len(run.fills) > 40


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), most=st.sampled_from([3, 50, 2000]), participation=st.none() | st.sampled_from(['0.01', '0.5']), reject_rate=st.sampled_from([0.0, 0.2]),
       band=st.sampled_from(['0', '0.03']), fee=st.sampled_from(['0', '7.5']), slippage=st.sampled_from(['0', '12']), gross=st.sampled_from(['0.8', '3']), start=st.integers(0, 59))
def test_whatever_is_asked(desk: Path, seed: int, most: int, participation: str | None, reject_rate: float, band: str, fee: str, slippage: str, gross: str, start: int) -> None:
    symbols = ['HOLES', 'SIDE', 'WALK']
    both(chance(symbols, seed, most), symbols, desk, participation=participation, reject_rate=reject_rate, seed=seed, band=band, fee_bps=fee, slippage_bps=slippage,
         limits={'max_gross': gross}, start=f'2024-01-02T00:{start:02}', end='2024-01-02T02:00')
