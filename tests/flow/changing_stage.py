"""A strategy that changes one order all the time, and what its venue knows of it."""
from __future__ import annotations

from pathlib import Path

from desk_stage import notebook, told

STEPS = ("""mode = 'live'
venue = ''
symbol = 'BTC-USD'
size = '0.5'
below = '0.9'            # the bid's limit beside the market's
deadman_s = 0.0
policy = 'hold'
reconcile_s = 1.0
changes = 5              # then it stops, or waits to be killed where it has a file to write
pulse = ''""", """import time
from decimal import Decimal
from pathlib import Path
from gekko.api import Amend, Intent, OrderType, Side, open_run, trade

class Mover:
    "One bid; every time it is told that the bid works, it asks for another size and limit."
    def __init__(self): self.sent, self.moved, self.asked = False, 0, None

    def on_quote(self, quote, book):
        tick = Decimal('0.01') if symbol == 'BTC-USD' else Decimal('0.00001')
        if not self.sent:
            self.sent, self.limit = True, (quote.bid * Decimal(below)).quantize(tick)
            return [Intent(symbol, Side.BUY, Decimal(size), OrderType.LIMIT, limit=self.limit)]
        mine = book.working(symbol)
        if not mine or mine[0].state.value != 'accepted' or mine[0].amending: return None
        [o] = mine
        if self.asked and o.intent.limit != self.asked.limit:      # not answered yet, or never made: its desk died before it left
            if time.monotonic() - self.at < 5: return None
            self.at = time.monotonic()
            return [self.asked]
        self.moved += self.asked is not None
        if self.moved >= changes and not pulse: raise StopIteration
        if pulse and self.moved >= 2: Path(pulse).write_text(o.client_id)
        n = self.moved + 1
        self.at = time.monotonic()
        self.asked = Amend(o.client_id, qty=Decimal(size) * (2 if n % 2 else 1), limit=self.limit + n * tick)
        return [self.asked]

    def on_order(self, order, book): return None

run = open_run(symbol, mode=mode, venue=venue, bar='1s', window=1, policy=policy, deadman_s=deadman_s, reconcile_s=reconcile_s)
result = run.trade(Mover())""")


def moving(home: Path, venue: str, symbol: str, **params: object) -> list[object]:
    "The words of a live run that moves its bid."
    return ['run', notebook(home.parent / 'moving.ipynb', *STEPS), '--mode', 'live', '--venue', venue, '-p', 'symbol', symbol, *told(params), '--json']
