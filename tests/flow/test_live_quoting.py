"""The quoter at a venue, quote by quote: through a sandbox's own sockets, its kernel and its desk; and both sides' books in the end."""
from __future__ import annotations

import time
from pathlib import Path

from desk_stage import STRATEGIES, gekko, one_line, only_run, result_of, settings_of, tidy
from live_stage import same_money, served

from gekko.domain.order import Side
from gekko.domain.time import SECOND, iso
from gekko.ledger.events import Stages
from gekko.ledger.journal import read_entries, verify


def test_the_quoter_quotes_trades_and_the_books_agree(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus', '--market', 'synthetic', '--rate', '200', '--symbols', 'BTC-USD') as card:
        end = iso(time.time_ns() + 25 * SECOND)
        said = one_line(gekko(home, 'run', STRATEGIES / 'quoting.ipynb', '--mode', 'live', '--venue', 'binanceus', '-p', 'end', end, '-p', 'short', 'false', '-p', 'half_spread_bps', '0.02',
                              '-p', 'skew_bps', '0.01', '-p', 'leave_bps', '0.01', '--json'))
        record = only_run(home)
        result = result_of(record)
        assert said['state'] == 'done' and Side.BUY in {o.side for o in result.orders}      # how many trade in these seconds is the market's affair
        assert [o for o in result.orders if not (o.state.terminal and o.intent.run == result.lineage and o.intent.cell and o.intent.post_only)] == []
        assert not result.breaches
        same_money(home, card, 'binanceus')
        entries = list(read_entries(settings_of(home).ledger, record.account))
        changed = [e.record for e in entries if e.kind == 'amended']
        assert changed and len(result.orders) + len(changed) > 5, 'a quote that the market has left is moved'
        stages = [e.record for e in entries if e.kind == 'stages']
        assert stages and all(isinstance(s, Stages) and s.quote <= s.decided <= s.gated <= s.committed <= s.sent <= s.heard for s in stages if s.sent and s.heard)
        assert verify(settings_of(home).ledger, record.account).ok
