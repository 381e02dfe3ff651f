"""A live run that wants more than its venue's quota lets out, and ends: what never left is in the journal as refused before the run's last line, and the next run starts at once."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

from desk_stage import gekko, ledger_of, notebook, one_line, settings_of, tidy
from live_stage import asked, book_of, served

from gekko.domain.order import Cancelled, CancelRejected, CancelRequested, OrderState, Rejected
from gekko.ledger.events import RunClosed
from gekko.ledger.journal import read_entries, verify

NOT_SENT = ('not sent: the venue is closed', 'not sent: cancelled before it left')

STEPS = ("""mode = 'live'
venue = ''
symbol = 'BTC-USD'
size = '0.1'
orders = 160""", """from decimal import Decimal
from gekko.api import Intent, OrderType, Side, open_run, trade

class Flood:
    "All its bids at once, far below the market; then it is done."
    def __init__(self): self.sent = False
    def on_quote(self, quote, book):
        if self.sent: raise StopIteration
        self.sent = True
        limit = (quote.bid * Decimal('0.9')).quantize(Decimal('0.01'))
        return [Intent(symbol, Side.BUY, Decimal(size), OrderType.LIMIT, limit=limit) for _ in range(orders)]

run = open_run(symbol, mode=mode, venue=venue, bar='1s', window=1, policy='hold', limits={'max_orders_per_minute': None, 'collar_bps': None})
result = run.trade(Flood())""")


def records(home: Path, account: str) -> list[object]: return [e.record for e in read_entries(settings_of(home).ledger, account)]


def test_what_never_left_is_refused_in_the_journal_before_the_run_is_closed(tmp_path: Path) -> None:
    with tidy(tmp_path / 'home') as home, served(home, 'binanceus', '--symbols', 'BTC-USD') as card:
        flood = notebook(home.parent / 'flood.ipynb', *STEPS)
        said = one_line(gekko(home, 'run', flood, '--mode', 'live', '--venue', 'binanceus', '-p', 'size', '0.2', '--json'))
        assert said['state'] == 'done', said
        account = f'binanceus-{card["account"]}'
        entries = records(home, account)
        book = book_of(home, account)
        assert len(book.orders) == 160 and not book.faults and verify(ledger_of(home)).ok
        waiting = [o for o in book.orders.values() if o.state is OrderState.SUBMITTED]
        assert not waiting, f'{len(waiting)} orders of which nothing was said'
        closed = next(i for i, r in enumerate(entries) if isinstance(r, RunClosed))
        words = [i for i, r in enumerate(entries) if isinstance(r, Rejected | Cancelled | CancelRejected) and r.reason in NOT_SENT]
        assert words and max(words) < closed
        never = {r.client_id for r in entries if isinstance(r, Rejected | Cancelled) and r.reason in NOT_SENT}
        assert never and not never & {str(o.get('client_id', o.get('name', ''))) for o in asked(card, 'orders')['orders']}


def test_cancels_that_wait_when_the_run_ends_are_answered_for(tmp_path: Path) -> None:
    """The venue answers the first cancel with 429 and eight seconds; the run waits five. The others have not left, and that is said."""
    with tidy(tmp_path / 'home') as home, served(home, 'coinbase', '--symbols', 'BTC-USD') as card:
        asked(card, 'faults', [{'fault': 'throttle', 'op': 'cancel', 's': 8}])
        patient = notebook(home.parent / 'patient.ipynb', STEPS[0], STEPS[1].replace('if self.sent: raise StopIteration', "if self.sent and len([o for o in book.working(symbol) if o.state.value == 'accepted']) == orders: raise StopIteration\n        if self.sent: return None"))
        said = one_line(gekko(home, 'run', patient, '--mode', 'live', '--venue', 'coinbase', '-p', 'size', '0.01', '-p', 'orders', '60', '--json'))
        assert said['state'] == 'done', said
        entries = records(home, f'coinbase-{card["account"]}')
        closed = next(i for i, r in enumerate(entries) if isinstance(r, RunClosed))
        kept = {r.client_id for r in entries[:closed] if isinstance(r, CancelRejected) and r.reason == 'not sent: the venue is closed'}
        times = Counter(r.client_id for r in entries if isinstance(r, CancelRequested))
        assert set(times.values()) == {1}, 'each was asked for once, while the venue could still answer'
        works = {n: o for n, o in book_of(home, f'coinbase-{card["account"]}').orders.items() if not o.state.terminal}
        assert len(kept) > 20 and kept <= works.keys()
        assert not [o for o in works.values() if o.cancelling and o.state is not OrderState.UNKNOWN], 'a cancel of which nothing was said'
