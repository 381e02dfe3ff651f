"""Two trades worked out by hand, through everything between a price and the ledger."""
from decimal import Decimal as D
from pathlib import Path

import pytest
from desk_stage import at, gekko, ok, passing

from gekko.data.feed import Step
from gekko.data.replay import QuoteReplay
from gekko.desk.session import open_run
from gekko.desk.spec import RunSpec
from gekko.desk.trader import Trader, close_run, decide, on_step
from gekko.desk.trader import open_run as begin
from gekko.domain.instrument import Instrument
from gekko.domain.market import Quote
from gekko.domain.time import SECOND, SimClock, utc
from gekko.ledger.journal import Journal
from gekko.ledger.replay import replay
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

AUD = ('AUD/USD', 'USD', D(100_000), D('0.2'), '0.70000 0.70000 0.70010 0.70020 0.70020', (D('1.40'), D('1.40')), D('1000017.20'))
ETH = ('ETH-USDT', 'USDT', D('0.5'), D(1), '2000 2000 2000.5 2001 2001', (D('0.10'), D('0.10005')), D('1000000.29995'))
CASES = pytest.mark.parametrize(('symbol', 'currency', 'size', 'fee_bps', 'prices', 'fees', 'end'), [AUD, ETH], ids=['AUD', 'ETH'])
START = utc('2024-01-02')


@CASES
def test_quotes_through_the_desk_core(symbol: str, currency: str, size: D, fee_bps: D, prices: str, fees: tuple[D, D], end: D) -> None:
    """Bought on the second quote, because the first decided; sold on the fourth."""
    instrument = Instrument(symbol, symbol[:3], currency, tick=D('0.00001'), lot=D('0.1'))
    clock = SimClock(START)
    venue = PaperVenue({symbol: instrument}, FillModel(fill='quote', fee_bps=fee_bps), clock, {currency: D(10**6)})
    with Journal.open(passing(), 'oracle', durable=False) as journal:
        t = Trader(RunSpec((symbol,), currency=currency, cash=D(10**6)), run_id='r', strategy='oracle', lineage='0', mode='paper', account='oracle',
                   instruments={symbol: instrument}, venue=venue, journal=journal, clock=clock)
        begin(t)
        feed = QuoteReplay([Quote(symbol, START + n * SECOND, D(p), D(p)) for n, p in enumerate(prices.split())])
        while isinstance(step := feed.poll(), Step):
            on_step(t, step)
            if feed.done in (1, 3): decide(t, units={symbol: size if feed.done == 1 else D(0)})
        result = close_run(t, 'finished')
        book = replay(journal.entries())
    assert [(f.price, f.fee, f.ts) for f in result.fills] == [(D(prices.split()[1]), fees[0], START + SECOND), (D(prices.split()[3]), fees[1], START + 3 * SECOND)]
    assert t.view.equity == book.account.cash[currency] == end
    assert not book.faults and not result.positions()


@CASES
@pytest.mark.parametrize('mode', ['backtest', 'paper'])
def test_a_file_imported_and_traded(mode: str, symbol: str, currency: str, size: D, fee_bps: D, prices: str, fees: tuple[D, D], end: D,
                                    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same prices as a file of one-second bars: each bar's decision fills at the next bar's open."""
    (tmp_path / 'prices.csv').write_text('Time,Price\n' + ''.join(f'2024-01-02T00:00:0{n}Z,{p}\n' for n, p in enumerate(prices.split())))
    ok(gekko(home, 'data', 'import', tmp_path / 'prices.csv', '--symbol', symbol, '--bar', '1s'))
    for name, value in at(home).items(): monkeypatch.setenv(name, value)
    run = open_run(symbol, mode=mode, window=1, cash=1_000_000, currency=currency, fee_bps=fee_bps, slippage_bps=0)
    for n, bars in enumerate(run):
        assert bars.close[-1, 0] == float(prices.split()[n])
        run.target(units={symbol: size if n < 2 else D(0)})
    result = run.finish()
    assert [(f.price, f.fee, (f.ts - START) // SECOND) for f in result.fills] == [(D(prices.split()[1]), fees[0], 1), (D(prices.split()[3]), fees[1], 3)]
    assert (result.final_equity, result.fees, result.positions()) == (end, sum(fees), {})
