"""Quotes and trades judged as they come: precision and recall on seeded streams with faults at known places, and peace on clean ones."""
from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from gekko.data.ticks import KINDS, Ticks, judge
from gekko.domain.market import Quote, Trade
from gekko.domain.time import HOUR, SECOND, utc

Event = Quote | Trade
FIRST = utc('2024-05-01')


def clean(kind: str, seed: int, n: int = 6_000) -> list[Event]:
    """quiet: a currency; wild: crypto with jumps that stay; coarse: a coin whose tick is 1 %; thin: minutes between events."""
    rng = np.random.default_rng([seed, len(kind)])
    step = {'quiet': 5e-6, 'wild': 4e-4, 'coarse': 4e-3, 'thin': 2e-3}[kind]
    tick = {'quiet': 1e-5, 'wild': 0.01, 'coarse': 1e-6, 'thin': 0.01}[kind]
    moves = step * rng.standard_t(4, n) + (np.where(rng.uniform(size=n) < 0.001, rng.normal(0, 0.015, n), 0) if kind == 'wild' else 0)
    mid = {'quiet': 1.1, 'wild': 60_000.0, 'coarse': 1e-4, 'thin': 30.0}[kind] * np.exp(np.cumsum(moves))
    at = FIRST + np.cumsum(rng.exponential(60.0 if kind == 'thin' else 0.2, n) * 1e9).astype(np.int64)
    wire = (rng.exponential(0.02, n) * 1e9).astype(np.int64)
    out: list[Event] = []
    number = seq = 0
    for k in range(n):
        low = max(int(mid[k] / tick), 2)
        bid, ask = (Decimal(x) * Decimal(str(tick)) for x in (low, low + 1 + int(rng.integers(0, 3))))
        t, got, size = int(at[k]), int(at[k] + wire[k]), Decimal(int(rng.integers(1, 500))) / 10
        if rng.uniform() < 0.4:
            number += 1
            out.append(Trade('X-USD', t, bid if rng.uniform() < 0.5 else ask, size, 'buy', str(number), got, number))
        else:
            seq += int(rng.integers(1, 9))
            out.append(Quote('X-USD', t, bid, ask, size, size, got, seq))
    return out


def spoil(events: list[Event], seed: int, rate: float) -> tuple[list[Event], dict[int, str]]:
    """Each kind at `rate`, on events of their own; where each is in the stream as it then is."""
    rng = np.random.default_rng([seed, 99])
    count = max(1, round(rate * len(events)))
    places = rng.permutation(np.arange(20, len(events) - 2))[:count * len(KINDS)]
    todo = {int(p): k for p, k in zip(places, list(KINDS) * count)}
    out: list[Event] = []
    truth: dict[int, str] = {}
    dropped, last = False, dict[type, int]()
    for i, e in enumerate(events):
        kind = todo.get(i, '')
        price = 'price' if isinstance(e, Trade) else str(rng.choice(['bid', 'ask']))
        size = 'qty' if isinstance(e, Trade) else str(rng.choice(['bid_size', 'ask_size']))
        if dropped and isinstance(e, Trade) and not kind: truth[len(out)], dropped = 'gap', False
        if kind == 'gap':
            if isinstance(e, Trade) and not dropped:
                dropped = True
                continue
            kind = ''
        if isinstance(e, Trade) and kind and dropped: kind = ''        # the trade after a hole shows the hole and nothing else
        if dropped and isinstance(e, Trade): truth[len(out)], dropped = 'gap', False
        if kind == 'crossed' and isinstance(e, Trade) or kind == 'out_of_order' and type(e) not in last: kind = ''
        if kind == 'nan': e = replace(e, **{str(rng.choice([price, size])): Decimal('NaN')})
        elif kind == 'non_positive':
            which = str(rng.choice([price, size]))
            e = replace(e, **{which: -getattr(e, which)})
        elif kind == 'crossed' and isinstance(e, Quote): e = replace(e, bid=e.ask, ask=e.bid)
        elif kind == 'future': e = replace(e, ts=e.received + int(rng.integers(61, 800)) * SECOND)
        elif kind == 'zone': e = replace(e, ts=e.ts + int(rng.choice([-10, -5, -4, 1, 2, 8])) * HOUR)
        elif kind == 'spike':
            by = Decimal(str(rng.choice([100, 0.01])))
            e = replace(e, **({'price': e.price * by} if isinstance(e, Trade) else {'bid': e.bid * by, 'ask': e.ask * by} if rng.uniform() < 0.5 else {price: getattr(e, price) * by}))
        elif kind == 'out_of_order': e = replace(e, ts=last[type(e)] - int(rng.integers(1, 10**9)))
        if kind not in ('future', 'zone', 'out_of_order'): last[type(e)] = e.ts
        if kind and kind != 'duplicate': truth[len(out)] = kind
        out.append(e)
        if kind == 'duplicate':
            truth[len(out)] = kind
            out.append(e)
    return out, truth


def score(events: list[Event], truth: dict[int, str]) -> Counter[tuple[str, str]]:
    """A finding is false when no fault of its kind lies there; a bid or an ask multiplied crosses the other, and that is true."""
    out: Counter[tuple[str, str]] = Counter()
    found = {(f.n, f.kind) for f in judge(events)}
    for n, kind in truth.items(): out[kind, 'hit' if (n, kind) in found else 'missed'] += 1
    for n, kind in found:
        if truth.get(n) != kind and not (kind == 'crossed' and truth.get(n) == 'spike') and not (kind == 'out_of_order' and truth.get(n - 1) == 'out_of_order'): out[kind, 'false'] += 1
    return out


@pytest.mark.parametrize('rate', [0.0005, 0.003, 0.01])
def test_unseen_streams(rate: float) -> None:
    total: Counter[tuple[str, str]] = Counter()
    for seed in range(7_001, 7_005):
        for kind in ('quiet', 'wild', 'coarse', 'thin'): total += score(*spoil(clean(kind, seed), seed, rate))
    rows = {k: tuple(total[k, x] for x in ('hit', 'missed', 'false')) for k in KINDS}
    for k, (hit, missed, false) in rows.items():
        precision, recall = hit / max(hit + false, 1), hit / max(hit + missed, 1)
        print(f'{k:13} {hit + missed:5} injected: precision {precision:.4f}, recall {recall:.4f}')
    assert all(hit > 5 and hit >= 0.99 * (hit + missed) and hit >= 0.99 * (hit + false) for hit, missed, false in rows.values()), rows


def test_clean_streams_are_left_in_peace() -> None:
    found: Counter[str] = Counter()
    for seed in range(8_001, 8_005):
        for kind in ('quiet', 'wild', 'coarse', 'thin'): found.update(f'{kind} {f.kind}' for f in judge(clean(kind, seed)))
    print(f'{sum(found.values())} findings in {16 * 6_000:,} clean events: {dict(found)}')
    assert sum(found.values()) <= 3


def test_real_trades_are_left_in_peace(shared_data) -> None:   # type: ignore[no-untyped-def]
    """Twelve thousand trades that happened, ids included, heard when they were made; seeded ones where the file is not at hand."""
    import pandas as pd
    if shared_data is None: events = clean('coarse', 9_001, 12_000)
    else:
        f = pd.read_parquet(shared_data / 'xrp_eth_trades_2019.parquet')
        ns = f['timestamp'].astype('datetime64[ns, UTC]').astype('int64')
        events = [Trade('XRP-ETH', int(t), Decimal(str(p)), Decimal(str(q)), s, str(i), int(t) + 1_000_000, int(i)) for t, p, q, s, i in zip(ns, f['price'], f['amount'], f['side'], f['trade_id'])]
    assert judge(events) == [] and score(*spoil(events, 9, 0.002))['spike', 'missed'] == 0


def test_it_only_looks_back() -> None:
    """What is said of an event does not change with what comes after it."""
    events, _ = spoil(clean('wild', 3, 1_500), 3, 0.01)
    whole = judge(events)
    for cut in (200, 701, 1_200): assert judge(events[:cut]) == [f for f in whole if f.n < cut]


def test_a_stream_shows_it_everything() -> None:
    """As a tap, it sees quotes that conflation would have dropped."""
    import asyncio

    from gekko.data.dialect import Heard, Subscription
    from gekko.data.stream import Stream, take_in
    from gekko.domain.time import SimClock

    class Said:
        venue, quiet_s, per_connection = 'test', 5.0, frozenset[str]()
        def decode(self, frame, received): return Heard((events[int(frame)],))      # type: ignore[no-untyped-def]
        def known(self, symbol, kind): return ''      # type: ignore[no-untyped-def]

    events = [Quote('X-USD', FIRST, Decimal(100), Decimal(99 if k == 5 else 101), received=FIRST) for k in range(10)]

    async def run() -> Ticks:
        stream, ticks = Stream(Said(), SimClock(FIRST)), Ticks()      # type: ignore[arg-type]
        stream.want([Subscription('X-USD', 'quote')])
        from gekko.data.listening import want
        want(stream.ear, [Subscription('X-USD', 'quote')], FIRST)
        stream.tap(ticks.see)
        for k in range(10): take_in(stream, str(k), FIRST)
        assert sum(isinstance(e, Quote) for e in stream.poll()) == 1
        return ticks

    ticks = asyncio.run(run())
    assert ticks.seen == 10 and dict(ticks.counts) == {'crossed': 1}
