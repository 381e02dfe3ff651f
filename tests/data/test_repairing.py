"""Trades that a venue gives after a cut: none is doubled, none comes after a newer one; and a symbol's standing costs the same among many."""
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal as D

from hypothesis import given, settings
from hypothesis import strategies as st
from pipe_venue import PipeDialect, Venue

from gekko.data.dialect import Heard, Subscription
from gekko.data.listening import Ear, hear, want
from gekko.data.mending import connected, lost, mend, needs
from gekko.data.stream import Stream
from gekko.domain.market import Trade
from gekko.domain.time import SECOND, SimClock

START = 1_700_000_000 * SECOND


def trade(n: int, symbol: str = 'BTC-USD') -> Trade: return Trade(symbol, START + n * SECOND, D(42_000), D(1), trade_id=f'{n}')


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 20), st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=4), st.integers(5, 60), st.booleans())
def test_no_trade_comes_after_a_newer_one(first: int, parts: list[tuple[int, int]], most: int, quiet: bool) -> None:
    "A market trades once a second from 0 on. We listen from `first`; each part is so many heard and so many missed while the line was cut."
    ear = Ear(per_connection=('line',))
    want(ear, [Subscription('BTC-USD', 'trade')], START + first * SECOND)
    connected(ear, START + first * SECOND)
    n = first
    hear(ear, Heard((), 'line', 0), START + n * SECOND)
    for heard, missed in parts:
        for k in range(0 if quiet else heard):
            n += 1
            hear(ear, Heard((trade(n),), 'line', k + 1), START + n * SECOND)
        lost(ear, START + n * SECOND, 'cut')
        n += missed
        connected(ear, START + n * SECOND)
        n += 1
        hear(ear, Heard((trade(n),), 'line', 0), START + n * SECOND)
        for need in needs(ear): mend(ear, need, [trade(k) for k in range(max(0, n - most), n + 1)], START + n * SECOND)
    out = [int(e.trade_id) for e in ear.out if isinstance(e, Trade)]
    assert out == sorted(set(out)) and out[-1] == n
    if most > 40 and not quiet: assert out == list(range(first + 1, n + 1))      # what the venue still had is all there


def calls(f: Callable[[], object]) -> int:
    n = 0
    def count(*_: object) -> None:
        nonlocal n
        n += 1
    sys.setprofile(count)
    try: f()
    finally: sys.setprofile(None)
    return n


def test_one_symbol_among_many_costs_as_much_as_alone() -> None:
    cost = []
    for symbols in (1, 1_000):
        stream = Stream(PipeDialect(Venue()), SimClock(START))
        subs = [Subscription(f'S{n}-USD', k) for n in range(symbols) for k in ('book', 'quote')]
        stream.want(subs)
        want(stream.ear, subs, START)
        connected(stream.ear, START)
        for n in range(symbols): hear(stream.ear, Heard((trade(1, f'S{n}-USD'),), f'trade:S{n}-USD', 1), START)
        stands = stream.standing('S0-USD')
        assert stands == replace(stream.status()['S0-USD'], gaps=0, repaired=0, lost=0, duplicates=0, disordered=0, reconnects=0, queue=0)
        assert stream.standing('NONE-USD') is None
        cost.append(calls(lambda: stream.standing('S0-USD')))      # noqa: B023
    assert cost[0] == cost[1]
