"""The short form of the feed bench: nothing lost, every field there. No time is asserted."""
from __future__ import annotations

import json

import pytest

from gekko.cli.bench import BENCHES
from gekko.jobs.feed_bench import PEERS, bench_venue, compared, whole

FIGURES = {'messages', 'seconds', 'messages_per_second', 'events', 'events_per_second', 'trades', 'trades_lost', 'quotes_not_seen', 'doubled', 'age_p50_us', 'age_p99_us', 'rounds', 'pinned'}


@pytest.mark.parametrize('venue', ['binanceus', 'coinbase', 'oanda'])
def test_nothing_is_lost(venue: str) -> None:
    r = bench_venue(venue, events=600, rounds=1, pace=1_000.0, paced=300)
    json.dumps(r)
    assert r['nothing_lost'], r['gekko']
    ours = r['gekko']
    assert FIGURES <= ours.keys() and ours['events'] > 100 and ours['paced_trades_lost'] == 0
    if venue != 'coinbase': assert ours['polled'] >= ours['events'] == ours['messages']
    if venue not in PEERS: return
    assert FIGURES <= r['ccxt.pro'].keys() and r['ccxt.pro']['events'] > 0
    assert {'gekko_over_ccxt_messages', 'gekko_over_ccxt_events'} <= r.keys()


def test_a_loss_is_seen() -> None:
    """The comparison itself: a trade or a change that is missing, or heard twice, is no clean run."""
    sent = {'messages': 2, 'changes': 1, 'keys': {'BTCUSD:t1': 0, 'BTCUSD:t2': 0}}
    heard = {'seconds': 1.0, 'changes': 1, 'names': {'BTCUSD:t1': 5, 'BTCUSD:t2': 6}, 'events': 2, 'pinned': False, 'polled': 2}
    assert whole([compared(sent, heard, {})])
    for spoiled in ({'names': {'BTCUSD:t1': 5}}, {'changes': 0}, {'events': 3}, {'gaps': 1}): assert not whole([compared(sent, heard | spoiled, {})])


def test_it_is_on_the_command_line() -> None:
    assert BENCHES['feed'] == 'gekko.jobs.feed_bench:bench_feed'
