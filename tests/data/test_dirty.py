"""The validator on packs that it has not seen: nine kinds of fault, several at once, in markets of many kinds.

Thresholds were set on seeds 0 to 3 of the synthetic markets. What is scored here is other seeds, other lengths of bar and real series.
"""
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from dirty import FAULTS, Clean, dirty, rates, reference, score, synthetic, table

from gekko.data.quality import check

UNSEEN = [(kind, bar, seed) for seed in (1_001, 1_002) for kind, bar in (('quiet', '5m'), ('trending', '1m'), ('jumping', '3m'), ('fx', '5m'), ('coarse', '1h'), ('thin', '30m'))]
REAL = ('NASDAQ', 'SP500', 'WTI', 'AMD', 'KO', 'XOM', 'RRC')


def pack(clean: Clean, seed: int) -> Counter[tuple[str, str]]:
    rng = np.random.default_rng([seed, 5])
    return score(dirty(clean, seed, rates(rng, tuple(k for k in FAULTS if rng.uniform() < 0.75))))


def assert_good(total: Counter[tuple[str, str]]) -> None:
    t = table(total)
    print(t.to_string())
    assert set(FAULTS) <= set(t.index) and (t.loc[list(FAULTS), 'injected'] > 5).all()
    judged = t.loc[list(FAULTS), ['precision', 'recall']]
    assert (judged >= 0.99).all().all(), judged
    others = t.drop(index=list(FAULTS))
    assert others['false'].sum() <= 0.01 * t['injected'].sum(), others


def test_unseen_synthetic_packs() -> None:
    total: Counter[tuple[str, str]] = Counter()
    for kind, bar, seed in UNSEEN:
        for again in range(2): total += pack(synthetic(kind, seed, 3_000, bar, '2023-05-01'), seed + 7 * again)
    for seed in (1_003, 1_004):      # only markets of two sides can be crossed
        total += score(dirty(synthetic('fx', seed, 3_000, '15m', '2023-05-01'), seed, {'crossed': 0.005, 'spike': 0.002, 'nan': 0.002}))
    assert_good(total)


def known(clean: Clean) -> Clean:
    """A real series without the rows that the check names in it as it was published, so that what is scored is what was put in."""
    f = clean.frame
    rows = {x.row for x in check(f, clean.bar, clean.calendar).flags if x.row >= 0}
    return Clean(clean.name, clean.bar, clean.calendar, f.drop(index=sorted(rows)).reset_index(drop=True))


def test_unseen_real_series() -> None:
    """Days of indices, oil and shares. What is published as missing is no fault of ours: those days are taken as known."""
    total: Counter[tuple[str, str]] = Counter()
    for n, symbol in enumerate(REAL):
        clean = known(reference(symbol))
        for seed in (1, 2):
            p = dirty(clean, 2_000 + 10 * n + seed, rates(np.random.default_rng([n, seed]), tuple(k for k in FAULTS if k != 'crossed')))
            before = check(clean.frame, '1d', 'XNYS')
            p.holes |= {t for x in before.of('gap') for t in _days(x.ts, x.bars)}
            total += score(p)
    t = table(total)
    print(t.to_string())
    kinds = [k for k in FAULTS if k != 'crossed']
    assert (t.loc[kinds, ['precision', 'recall']] >= 0.99).all().all(), t


def _days(ts: int, bars: int) -> list[int]:
    from gekko.data.calendar import calendar
    return calendar('XNYS').expected(ts, ts + (2 * bars + 15) * 86_400 * 10**9, '1d')[:bars].tolist()


SHARED = [('btc_perp_1m_202201', '1m', '24/7'), ('eth_btc_5m_2018', '5m', '24/7'), ('gbpusd_m1_2012', '1m', '24/5')]


@pytest.mark.parametrize('name, bar, cal', SHARED)
def test_unseen_real_minutes(name: str, bar: str, cal: str, shared_data) -> None:   # type: ignore[no-untyped-def]
    """Real minutes where they are at hand, and a seeded series of their kind where they are not."""
    import pandas as pd
    if shared_data is None: clean = synthetic('fx' if 'gbp' in name else 'jumping', 4_000, 6_000, bar)
    else: clean = Clean(name, bar, cal, pd.read_parquet(shared_data / f'{name}.parquet').iloc[-12_000:].reset_index(drop=True))
    total: Counter[tuple[str, str]] = Counter()
    if 'gbp' in name and shared_data is not None:      # its own crossed quotes are taken out of the way
        f = clean.frame
        for c in ('open', 'high', 'low', 'close'): f['ask_' + c] = np.maximum(f['ask_' + c], f['bid_' + c] + 0.00001)
    before = check(clean.frame, bar, cal)
    for seed in (3_001, 3_002):
        p = dirty(clean, seed, rates(np.random.default_rng([seed, len(name)]), FAULTS))
        from gekko.data.calendar import calendar
        from gekko.domain.time import duration
        for x in before.of('gap'): p.holes |= set(calendar(cal).expected(x.ts, x.ts + 4 * x.bars * duration(bar) + 3 * 86_400 * 10**9, bar)[:x.bars].tolist())
        total += score(p)
    t = table(total)
    print(t.to_string())
    kinds = [k for k in FAULTS if t.loc[k, 'injected']] if 'crossed' in t.index else [k for k in FAULTS if k != 'crossed']
    assert (t.loc[kinds, ['precision', 'recall']] >= 0.99).all().all(), t


def test_clean_data_are_left_in_peace() -> None:
    """Findings in 100,000 clean bars of six kinds of market."""
    found, bars = Counter[tuple[str, str]](), 0
    for seed in (5_001, 5_002, 5_003):
        for kind, bar in (('quiet', '1m'), ('trending', '15m'), ('jumping', '1m'), ('fx', '1m'), ('coarse', '5m'), ('thin', '1h')):
            c = synthetic(kind, seed, 5_600, bar)
            r = check(c.frame, bar, c.calendar)
            bars += len(c.frame)
            found.update({(kind, k): v for k, v in r.counts.items()})
    print(f'{sum(found.values())} findings in {bars:,} clean bars: {dict(found)}')
    assert bars > 100_000 and sum(found.values()) <= 5, found
