"""Calibration: the promised coverage on real held-out prices, the same bits however it is asked, nothing from the future, and no broken file believed."""
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import MINUTE
from gekko.forecast.artefact import BadArtefact, Lineage, save
from gekko.forecast.calibration import Calibration, calibration_of, covered, latest_scales, own_radii, read_calibration, walked
from gekko.forecast.confidence import confidence, margin, reliability, sign_right
from gekko.forecast.conformal import adaptive, rank, scales
from gekko.forecast.spec import ModelSpec

H = 12


def prices(shared_data: Path | None) -> np.ndarray:
    """Log closes of ETH/BTC, 5 minutes, January 2018; without the file a walk that bounces, and whose volatility wanders and falls as there."""
    if shared_data:
        import pyarrow.parquet as pq
        return np.log(pq.read_table(shared_data / 'eth_btc_5m_2018.parquet').column('close').to_numpy())
    g = np.random.default_rng(2018)
    r = 0.002 * np.exp(0.3 * np.sin(np.arange(5760) * 2 * np.pi / 288)) * np.linspace(1.5, 0.7, 5760) * g.standard_t(4, size=5760)
    r[1:] -= 0.15 * r[:-1]
    return np.log(0.09) + r.cumsum()


def world(x: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origins, what came, and a forecast that takes a little of the last move back."""
    at = np.arange(first, last)
    return at, np.stack([x[at + h] for h in range(H)], axis=1), np.repeat((x[at - 1] - 0.15 * (x[at - 1] - x[at - 2]))[:, None], H, axis=1)


def made(x: np.ndarray, first: int = 1400, last: int = 2616, **more: Any) -> Calibration:
    at, a, f = world(x, first, last)
    return calibration_of(a, f, at, x, target='log_close', step=5 * MINUTE, **more)


PERIODS = [(2628, 3400), (3400, 4150), (4150, 4900), (4900, 5749)]


def test_intervals_hold_what_they_promise_on_eth_btc(shared_data: Path | None) -> None:
    """Calibrated on four days, held against the eleven after them: within two points in all, and in each of four periods."""
    x = prices(shared_data)
    c = made(x)
    at, a, f = world(x, 1400, len(x) - H + 1)
    w = walked(c, a, f, at, x)
    for level, r in zip(c.levels, w):
        inside = np.abs(a - f) <= r
        seen = [float(inside[(at >= lo) & (at < hi)].mean()) for lo, hi in PERIODS]
        print(f'{level:.0%}: {inside[at >= 2628].mean():.4f}, periods {np.round(seen, 3)}')
        assert abs(inside[at >= 2628].mean() - level) < 0.01 and max(abs(s - level) for s in seen) < 0.02
    if shared_data:      # what the latest errors are for
        fixed = covered(replace(c, memory=0), a, f, at, x, 1228)
        assert fixed['0.8'] > 0.83


def test_confidence_means_what_it_says_on_eth_btc(shared_data: Path | None) -> None:
    x = prices(shared_data)
    c = made(x)
    at, a, f = world(x, 2628, len(x) - H + 1)
    said = confidence(c.confidence, margin(f[:, -1] - x[at - 1], scales(c.scale, x, at)))
    assert (np.diff(c.confidence.rates) >= 0).all() and 0 <= said.min() and said.max() <= 1
    held = reliability(said, sign_right(f[:, -1] - x[at - 1], a[:, -1] - x[at - 1]), bins=5, overlap=H)
    print(f'said {said.min():.3f} to {said.max():.3f}, ECE {held.ece:.4f} (by chance {held.noise:.4f})')
    assert held.ece < 2 * held.noise


def test_the_walk_is_rolling_conformal() -> None:
    """Once the memory is full, the same radii as `adaptive` with a rate of 0."""
    x = prices(None)
    c = made(x, memory=200)
    at, a, f = world(x, 1400, 2200)
    mine, theirs = walked(c, a, f, at, x), [adaptive(a - f, p, start=220, scale=scales(c.scale, x, at), rate=0, window=200) for p in c.levels]
    for m, t in zip(mine, theirs): assert np.array_equal(m[220:], t[220:])


def test_no_radius_knows_what_has_not_happened() -> None:
    x = prices(None)
    c = made(x, memory=150)
    at, a, f = world(x, 1400, 1800)
    clean = walked(c, a, f, at, x)
    for cut in (1450, 1601, 1700):
        y = x.copy()
        y[cut:] += np.random.default_rng(cut).normal(size=len(y) - cut).cumsum()
        _, b, g = world(y, 1400, 1800)
        spoilt = walked(c, b, g, at, y)
        assert np.array_equal(spoilt[:, at <= cut], clean[:, at <= cut]) and not np.array_equal(spoilt[:, at > cut], clean[:, at > cut])


@pytest.mark.parametrize('stride', [1, 5, 12, 13])
def test_windows_farther_apart_know_what_a_job_would(stride: int) -> None:
    """Step h of a window is known h rows after its origin; a huge error there shows from exactly that window on."""
    x = prices(None)
    c = replace(made(x), memory=100)
    at, a, f = world(x, 1400, 1400 + 160 * stride)
    at, a, f = at[::stride], a[::stride], f[::stride]
    for h in (0, 5, 11):
        b = a.copy()
        b[80, h] = f[80, h]
        clean = walked(c, b, f, at, x)
        b[80, h] += 1e6
        moved = np.flatnonzero((walked(c, b, f, at, x) != clean).any(axis=(0, 2)))
        assert 80 + math.ceil((h + 1) / stride) == moved[0]


def test_windows_and_their_series_give_the_same() -> None:
    x = np.exp(prices(None))
    at, a, f = world(np.log(x), 1400, 1700)
    stacked = np.stack([x[o - 400:o] for o in at])
    for target in ('close', 'value'):
        one, two = (calibration_of(np.exp(a), np.exp(f), at, p, target=target, step=0) for p in (x, stacked))
        assert one.scale == replace(two.scale, floor=one.scale.floor) and one.scale.floor == pytest.approx(two.scale.floor)
        assert np.allclose(one.conformal.radii, two.conformal.radii, rtol=1e-12)
        short = calibration_of(np.exp(a), np.exp(f), at, stacked[:, -50:], target=target, step=0)
        assert short.scale.rows == 49 == short.rows - 1


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-8, 1e8))
def test_a_price_is_measured_in_shares_of_itself(by: float) -> None:
    """What is fitted to one price serves any other: ten times the price, ten times the width, the same confidence."""
    x = np.exp(prices(None)[:700])
    at = np.arange(400, 600)
    a, f = np.stack([x[at], x[at + 1]], axis=1), np.repeat(x[at - 2][:, None], 2, axis=1)
    one, two = (calibration_of(k * a, k * f, at, k * x, target='close', step=0) for k in (1.0, by))
    assert np.allclose(one.conformal.radii, two.conformal.radii, rtol=1e-6)
    assert np.allclose(latest_scales(one.scale, 'close', by * x[None]), by * latest_scales(one.scale, 'close', x[None]), rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(0, 60), st.integers(0, 999))
def test_quantiles_of_what_is_known(known: int, unknown: int, seed: int) -> None:
    """NaN anywhere: the quantile of the rest, the higher level never below the lower, and nothing from too few."""
    g = np.random.default_rng(seed)
    z = g.exponential(size=known)
    mixed = g.permutation(np.r_[z, np.full(unknown, np.nan)])
    low, high = own_radii(mixed[None], (0.5, 0.8), 5)[:, 0]
    if known < 5: assert np.isnan(low) and np.isnan(high); return
    assert low == np.sort(z)[rank(known, 0.5) - 1] and high == np.sort(z)[min(math.ceil((known + 1) * 0.8 - 1e-9), known) - 1] >= low
    full = own_radii(z[None], (0.5, 0.8), 5)[:, 0]
    assert np.array_equal(full, [low, high])


def test_written_and_read() -> None:
    x = prices(None)
    c = made(x, inputs={'change': np.diff(x[:2880])}, baseline='naive', beats=True, coverage={'0.8': 0.81})
    assert read_calibration(json.loads(json.dumps(c.written(), allow_nan=False))) == c
    assert c.reference is not None and c.reference.day == 288 and [u.name for u in c.reference.inputs] == ['change']


def test_an_artefact_carries_it(tmp_path: Path) -> None:
    c = made(prices(None))
    born, networks = Lineage('bars@3', 'abc', ()), {'batch_1.onnx': b'\x08\x0a'}
    a = save(tmp_path / 'a', ModelSpec(horizon=H), networks, born, calibration=c.written())
    assert read_calibration(a) == c
    with pytest.raises(BadArtefact, match='another network: expected 24 steps, found 12'): read_calibration(save(tmp_path / 'b', ModelSpec(horizon=24), networks, born, calibration=c.written()))
    with pytest.raises(BadArtefact, match='without a calibration'): read_calibration(save(tmp_path / 'c', ModelSpec(), networks, born))


def paths(v: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    here = [at] if at else []
    if isinstance(v, dict): return here + [p for k, x in v.items() for p in paths(x, (*at, k))]
    return here + ([p for k, x in enumerate(v[:2]) for p in paths(x, (*at, k))] if isinstance(v, list) else [])


def put(v: Any, at: tuple[Any, ...], x: Any) -> None:
    for k in at[:-1]: v = v[k]
    v[at[-1]] = x


@pytest.mark.parametrize('wrong', [None, 'x', -1.0, {'a': 1}, [[]], float('nan'), True])
def test_no_malformed_calibration_passes_unseen(wrong: Any) -> None:
    """Every value of the written form replaced by something else: refused as a bad artefact, or by its nature allowed there."""
    x = prices(None)
    good = made(x, inputs={'change': np.diff(x[:2880])}, coverage={'0.8': 0.8}).written()
    for p in paths(good):
        bad = json.loads(json.dumps(good))
        put(bad, p, wrong)
        try: found = read_calibration(bad)
        except BadArtefact: continue
        fits = p in (('target',), ('baseline',)) and wrong == 'x' or p in (('reference',), ('scale',)) and wrong is None or p == ('beats',) or p[-1] == 'name' or p == ('coverage',) and wrong == {'a': 1} or wrong == -1.0 and p[0] in ('reference', 'confidence') or p == ('conformal', 'normalised') and wrong is True
        assert fits, f'{p} = {wrong!r} passed as {found}'


def test_broken_numbers_are_refused() -> None:
    x = prices(None)
    at, a, f = world(x, 1400, 1500)
    c = made(x)
    nan = a.copy()
    nan[3, 2] = np.nan
    for call in (lambda: calibration_of(nan, f, at, x, target='close', step=0), lambda: calibration_of(a, f[:, :3], at, x, target='y', step=0), lambda: calibration_of(a[:49], f[:49], at[:49], x, target='y', step=0),
                 lambda: calibration_of(a, f, at, x[:1450], target='y', step=0), lambda: calibration_of(a, f, at, np.ones((100, 1)), target='y', step=0), lambda: calibration_of(a, f, at, -np.exp(x), target='close', step=0),
                 lambda: calibration_of(a, f, at, x, target='', step=0), lambda: calibration_of(a, f, at, x, target='y', step=-1), lambda: walked(c, a, f, at[::-1], x), lambda: walked(c, a, f, np.zeros(100, int), x),
                 lambda: calibration_of(a, f, at, x, target='y', step=MINUTE, inputs={'change': np.ones(30)})):
        with pytest.raises(BadInput): call()
