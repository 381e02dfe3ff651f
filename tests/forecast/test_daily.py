"""Live months, simulated: a good model keeps its place, a broken one loses it within days, and what was not measured never counts as good."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gekko.data.reference import reference_bars
from gekko.domain.errors import BadInput, Retry
from gekko.domain.time import DAY, HOUR, Nanos, SimClock, iso, utc
from gekko.forecast.artefact import Lineage, save
from gekko.forecast.calibration import Calibration, calibration_of
from gekko.forecast.conformal import scales
from gekko.forecast.daily import Daily, answers, joined, measure_day
from gekko.forecast.matured import Actual, came, matured, once
from gekko.forecast.record import Recorder, Row
from gekko.forecast.registry import Registry
from gekko.forecast.spec import ModelSpec

Floats = NDArray[np.float64]
H, BEGIN, FROM, DAYS = 6, utc('2026-06-01'), 150, 180      # hours ahead; the first day; the first day live; days in all


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None: monkeypatch.setattr(os, 'fsync', lambda fd: None)      # what a power cut leaves is not the question here


def market(seed: int, turns: int = 10**9, after: float = 0.6) -> Floats:
    """Log prices, hourly: each move is taken back by 0.4 of itself, and after hour `turns` goes on by `after`."""
    g = np.random.default_rng(seed)
    r = 0.004 * g.standard_t(6, size=DAYS * 24)
    for t in range(1, len(r)): r[t] += (-0.4 if t < turns else after) * r[t - 1]
    x: Floats = np.log(100.0) + r.cumsum()
    return x


def forecast(x: Floats, at: NDArray[np.int64]) -> Floats: return np.asarray(x[at, None] + np.cumsum((-0.4) ** np.arange(1, H + 1)) * (x[at] - x[at - 1])[:, None])


def calibrated(x: Floats, target: str = 'log_close') -> Calibration:
    at = np.arange(400, FROM * 24)
    y, back = (x, np.asarray) if target == 'log_close' else (np.exp(x), np.exp)
    return calibration_of(np.stack([y[at + h] for h in range(1, H + 1)], 1), back(forecast(x, at)), at + 1, y, target=target, step=HOUR, inputs={'change': np.diff(x[:FROM * 24])}, day=24)


def lived(x: Floats, c: Calibration, symbol: str = 'ETH') -> list[Row]:
    at = np.arange(FROM * 24 - H, len(x) - H)
    f, s = np.exp(forecast(x, at)), scales(c.scale, x, at + 1) if c.scale else np.ones(len(at))
    wide = np.asarray(c.conformal.radii[0]) * s[:, None]
    return [Row(BEGIN + int(t) * HOUR, '', 'eth', symbol, HOUR, tuple(m), tuple(m * np.exp(-w)), tuple(m * np.exp(w)), 0.8, 0.6, 'onnx-cpu', 900.0 + t % 7, 'fresh', float(np.exp(x[t])),
                {'change': float(x[t] - x[t - 1])}, float(s[i] * np.exp(x[t]))) for i, (t, m, w) in enumerate(zip(at, f, wide))]


def prices(**x: Floats) -> Actual:
    ends = BEGIN + np.arange(DAYS * 24, dtype=np.int64) * HOUR
    def actual(symbol: str, start: Nanos, end: Nanos) -> tuple[NDArray[np.int64], Floats]:
        a, b = np.searchsorted(ends, [start, end], side='right')
        return ends[a:b], np.exp(x[symbol][a:b])
    return actual


@dataclass
class World:
    models: Registry
    record: Path
    actual: Actual

    def day(self, k: int, actual: Actual | None = None) -> tuple[Daily, ...]: return measure_day(self.models, self.record, actual or self.actual, iso(BEGIN + k * DAY)[:10])
    def one(self, k: int, actual: Actual | None = None) -> Daily: return self.day(k, actual)[0]
    def month(self) -> list[Daily]: return [d for k in range(FROM, DAYS) for d in self.day(k)]


def world(folder: Path, rows: Sequence[Row], actual: Actual, calibration: dict[str, Any] | None, stage: str = 'live') -> World:
    folder.mkdir(exist_ok=True)
    a = save(folder / 'made', ModelSpec(type='mlp', input_size=48, horizon=H), {'batch_1.onnx': b'\x08\x0a' + bytes(50)}, Lineage('market@1', 'abc123', (('torch', '2'),)), calibration=calibration)
    clock = SimClock(BEGIN + FROM * DAY)
    models = Registry(folder / 'models', clock)
    models.add(a, 'eth', by='ada', beats=True)
    for s in ('paper', 'live')[:('candidate', 'paper', 'live').index(stage)]: models.move('eth', s, 'ada', 'fit')
    with Recorder(folder / 'record.db', clock, room=10**6, every_s=0.01) as r:
        for row in rows: r.append(replace(row, digest=row.digest or a.digest))
    assert r.dropped == r.refused == 0
    clock.set(BEGIN + DAYS * DAY)
    return World(models, folder / 'record.db', actual)


@pytest.fixture(scope='module')
def fit() -> tuple[Floats, Calibration]:
    x = market(1)
    return x, calibrated(x)


def test_good_models_keep_their_place(tmp_path: Path) -> None:
    """Eight models, thirty days each: of 240 good days hardly any may be called bad, and no model may lose its place."""
    found: list[Daily] = []
    for seed in range(20, 28):
        x = market(seed)
        c = calibrated(x)
        w = world(tmp_path / str(seed), lived(x, c), prices(ETH=x), c.written())
        found += (days := w.month())
        assert w.models.get('eth').stage == 'live' and not any(d.demoted for d in days)
        assert abs(np.mean([d.figures['coverage'] for d in days]) - 0.8) < 0.06 and np.mean([d.figures['skill'] for d in days]) > 0
    bad = sum(d.verdict == 'drifted' for d in found)
    print(f'{bad} of {len(found)} good days were called bad, {sum(d.verdict == "watch" for d in found)} watched')
    assert len(found) == 240 and bad <= 2 and all(d.judged >= 23 and not d.missing for d in found)


@pytest.mark.parametrize('seed', [40, 41, 42, 43])
def test_a_market_that_turns_demotes_within_days(tmp_path: Path, seed: int) -> None:
    x = market(seed, turns=160 * 24)
    c = calibrated(x)
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    days = {k: w.one(k) for k in range(FROM, DAYS)}
    (when,) = (k for k, d in days.items() if d.demoted)
    assert 162 <= when <= 167, 'three bad days, at the earliest on the third'
    e = w.models.get('eth')
    assert (e.stage, e.by, e.marks) == ('paper', 'drift', ('drifted',)) and 'errors' in e.why
    assert all(days[k].stage == 'paper' for k in range(when + 1, DAYS)), 'it is measured on paper from then on'


def test_one_wild_hour_is_one_bad_day(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    jumped = x + 0.25 * (np.arange(len(x)) >= 155 * 24 + 9)
    w = world(tmp_path / 'w', lived(jumped, c), prices(ETH=jumped), c.written())
    days = w.month()
    assert 1 <= sum(d.verdict == 'drifted' for d in days) <= 2 and w.models.get('eth').stage == 'live'


@pytest.mark.parametrize('factor', [100.0, 0.01])
def test_an_input_in_other_units_is_seen_on_the_first_day(tmp_path: Path, fit: tuple[Floats, Calibration], factor: float) -> None:
    x, c = fit
    rows = [replace(r, inputs={'change': factor * r.inputs['change']}) for r in lived(x, c)]
    w = world(tmp_path / 'w', rows, prices(ETH=x), c.written())
    days = [w.one(k) for k in range(FROM, FROM + 3)]
    assert [d.verdict for d in days] == ['drifted'] * 3 and 'change' in days[0].why and [d.demoted for d in days] == [False, False, True]


def test_measured_twice_nothing_changes(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    once_, journal = [w.one(k) for k in range(FROM, FROM + 4)], w.models.root / 'journal.jsonl'
    before = journal.read_bytes()
    assert [w.one(k) for k in range(FROM, FROM + 4)] == once_ and journal.read_bytes() == before
    assert [w.one(k).drift['ETH'].sums for k in range(FROM, FROM + 4)] == [d.drift['ETH'].sums for d in once_], 'sums are carried from the day before, not from the last one measured'
    again = World(Registry(w.models.root, SimClock(BEGIN + DAYS * DAY)), w.record, w.actual)
    assert again.one(FROM + 4).drift['ETH'].sums != again.one(FROM).drift['ETH'].sums, 'another process goes on where this one stopped'


def test_days_without_prices_are_unknown_and_break_no_row(tmp_path: Path) -> None:
    x = market(41, turns=160 * 24)
    c = calibrated(x)
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    known = {k: w.one(k).verdict for k in range(FROM, DAYS)}
    first = min(k for k in range(FROM, DAYS - 2) if known[k] == known[k + 1] == known[k + 2] == 'drifted')
    w = world(tmp_path / 'again', lived(x, c), prices(ETH=x), c.written())
    for k in range(FROM, first + 1): w.one(k)
    d = w.one(first + 1, lambda symbol, start, end: ([], []))
    assert (d.verdict, d.judged, d.missing, d.demoted) == ('unknown', 0, 24, False) and '24 without actual values' in d.why and 'mae' not in d.figures
    assert w.models.get('eth').days[-1].verdict == 'unknown'
    rest = {k: w.one(k) for k in range(first + 2, DAYS)}
    assert any(d.demoted for d in rest.values()) and not rest[first + 2].demoted


def test_prices_that_come_late_are_measured_after_all(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    def away(symbol: str, start: Nanos, end: Nanos) -> tuple[list[int], list[float]]: raise Retry('the store is busy', after_s=1.0)
    d = w.one(FROM, away)
    assert d.verdict == 'unknown' and 'the store is busy' in d.why
    assert w.one(FROM).verdict == 'ok' and w.models.get('eth').days[0].verdict == 'ok'
    assert w.one(FROM, away).verdict == 'unknown' and w.models.get('eth').days[0].verdict == 'ok', 'and stays measured'


@pytest.mark.parametrize('lost, verdict', [(1, 'ok'), (18, 'unknown')])
def test_half_a_day_without_prices_is_not_good(tmp_path: Path, fit: tuple[Floats, Calibration], lost: int, verdict: str) -> None:
    x, c = fit
    whole = prices(ETH=x)
    hole = BEGIN + FROM * DAY + np.arange(1, lost + 1) * HOUR
    def holed(symbol: str, start: Nanos, end: Nanos) -> tuple[Any, Any]:
        t, v = whole(symbol, start, end)
        keep = ~np.isin(np.asarray(t), hole)
        return np.asarray(t)[keep], np.asarray(v)[keep]
    d = world(tmp_path / 'w', lived(x, c), whole, c.written()).one(FROM, holed)
    assert d.verdict == verdict and d.judged + d.missing == 24 and d.missing == lost + H - 1, d
    def blank(symbol: str, start: Nanos, end: Nanos) -> tuple[Any, Any]:
        t, v = whole(symbol, start, end)
        return t, np.where(np.isin(np.asarray(t), hole), np.nan, np.asarray(v))
    assert world(tmp_path / 'nan', lived(x, c), whole, c.written()).one(FROM, blank) == d, 'a NaN is a hole'


def test_a_live_model_without_forecasts_is_said(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    w = world(tmp_path / 'w', [r for r in lived(x, c) if r.ts < BEGIN + (FROM + 3) * DAY], prices(ETH=x), c.written())
    d = w.one(FROM + 10)
    assert (d.verdict, d.why, d.figures) == ('unknown', 'no forecasts were recorded', {'forecasts': 0.0})
    assert str(d) == f'{d.day} eth#1 (live) unknown: 0 judged; no forecasts were recorded'


def test_answers_that_were_not_fresh_are_counted_and_not_judged(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    rows = lived(x, c)
    for i in range(H, H + 24):      # made on the first day
        if i % 4 == 1: rows[i] = replace(rows[i], source='last', why='late')
        elif i % 4 == 2: rows[i] = replace(rows[i], source='none', mean=(), low=(), high=(), why='no provider')
        elif i % 4 == 3: rows[i] = replace(rows[i], attempts=2, provider='torch-cpu', took_us=4000.0)
    w = world(tmp_path / 'w', rows, prices(ETH=x), c.written())
    d = w.one(FROM)
    assert {n: d.figures[n] for n in ('forecasts', 'fallback', 'last', 'none', 'torch-cpu p50 us')} == {'forecasts': 24.0, 'fallback': 0.25, 'last': 0.25, 'none': 0.25, 'torch-cpu p50 us': 4000.0}
    assert d.judged == 6 + 9 and d.missing == 9 and '9 without a fresh forecast' in d.why
    assert d.figures['onnx-cpu p99 us'] <= 906 and 'judged' not in d.figures and w.models.get('eth').days[0].figures['missing'] == 9.0


def test_a_day_lived_on_old_answers_is_not_a_good_one(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    """An answer repeated bears the instant it was first given at: each repetition was a forecast asked for and not had."""
    x, c = fit
    rows = lived(x, c)
    for first in range(H, H + 24, 4):
        for i in range(first + 1, first + 4): rows[i] = replace(rows[first], source='last', why='late', inputs=rows[i].inputs)
    d = world(tmp_path / 'w', rows, prices(ETH=x), c.written()).one(FROM)
    assert d.verdict == 'unknown' and d.missing > d.judged and d.figures['last'] == 0.75 and 'without a fresh forecast' in d.why


def test_the_same_forecast_twice_counts_once(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    rows = lived(x, c)
    twice = world(tmp_path / 'twice', [r for r in rows for _ in range(2)], prices(ETH=x), c.written()).one(FROM)
    plain = world(tmp_path / 'once', rows, prices(ETH=x), c.written()).one(FROM)
    assert twice.judged == 24 and {n: v for n, v in twice.figures.items() if n != 'forecasts'} == {n: v for n, v in plain.figures.items() if n != 'forecasts'}
    assert once([replace(rows[0], source='none'), replace(rows[0], last=1.0), rows[0]]) == (replace(rows[0], last=1.0),)


def test_another_models_forecasts_are_not_its_own(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    w = world(tmp_path / 'w', [*lived(x, c), *(replace(r, digest='ff' * 32, mean=tuple(2 * v for v in r.mean)) for r in lived(x, c))], prices(ETH=x), c.written())
    assert w.one(FROM).verdict == 'ok' and w.one(FROM).figures['forecasts'] == 24


def test_of_many_symbols_half_decide(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    by = {s: market(60 + i) for i, s in enumerate('ABCD')}
    broken = {s: market(60 + i, turns=FROM * 24, after=0.8) for i, s in enumerate('ABCD')}
    for n, verdicts in ((1, {'ok', 'watch'}), (3, {'drifted'})):
        mixed = {s: broken[s] if i < n else by[s] for i, s in enumerate('ABCD')}
        w = world(tmp_path / str(n), [r for s, v in mixed.items() for r in lived(v, c, s)], prices(**mixed), c.written())
        last = [w.one(k) for k in range(FROM, FROM + 8)][-1]
        assert last.verdict in verdicts and last.judged == 4 * 24 and set(last.drift) == set('ABCD'), (n, last)
        assert last.drift['A'].verdict == 'drifted' and 'A: drifted' in last.why, 'the one is named whatever the model is called'
    assert joined(['drifted', 'unknown', 'ok']) == 'drifted' and joined(['ok'] * 3 + ['drifted'] * 2) == 'ok'


@pytest.mark.parametrize('target', ['log_close', 'close'])
def test_a_scale_that_was_not_recorded_is_found_again(tmp_path: Path, target: str) -> None:
    x = market(7)
    c = calibrated(x, target)
    rows = lived(x, calibrated(x))
    if c.scale is not None and target == 'close': assert abs(c.scale.floor / calibrated(x).scale.floor - 1) < 1e-6  # type: ignore[union-attr]
    bare = world(tmp_path / 'bare', [replace(r, scale=0.0) for r in rows], prices(ETH=x), c.written()).one(FROM)
    given = world(tmp_path / 'given', rows, prices(ETH=x), c.written()).one(FROM)
    assert bare.judged == given.judged == 24
    for n in ('mae', 'naive', 'error', 'coverage'): assert bare.figures[n] == pytest.approx(given.figures[n], rel=1e-9)
    assert given.figures['error'] == pytest.approx(given.figures['usual'], rel=0.6)


def test_a_record_in_other_units_demotes_nobody(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    """Cents against units would look like a model gone mad."""
    x, c = fit
    cents = [replace(r, mean=tuple(100 * v for v in r.mean), low=tuple(100 * v for v in r.low), high=tuple(100 * v for v in r.high), last=100 * r.last, scale=100 * r.scale) for r in lived(x, c)]
    w = world(tmp_path / 'w', cents, prices(ETH=x), c.written())
    days = w.month()
    assert {d.verdict for d in days} == {'unknown'} and 'begun from another value than came' in days[0].why and w.models.get('eth').stage == 'live'


@pytest.mark.parametrize('what', ['not calibrated', 'no reference', 'altered', 'inputs lost'])
def test_what_cannot_be_held_against_anything_is_unknown(tmp_path: Path, fit: tuple[Floats, Calibration], what: str) -> None:
    x, c = fit
    rows = lived(x, c) if what != 'inputs lost' else [replace(r, inputs={}) for r in lived(x, c)]
    w = world(tmp_path / 'w', rows, prices(ETH=x), None if what == 'not calibrated' else replace(c, reference=None).written() if what == 'no reference' else c.written())
    if what == 'altered':
        spec = w.models.open('eth').path / 'spec.json'
        spec.chmod(0o644)
        spec.write_text('{}')
    d = w.one(FROM)
    assert d.verdict == 'unknown' and {'not calibrated': 'without a calibration', 'no reference': 'no reference', 'altered': 'cannot be read', 'inputs lost': 'inputs not recorded: change'}[what] in d.why
    if what != 'altered': assert d.judged == 24 and d.figures['mae'] < 2 * d.figures['naive'], 'its errors are told all the same'


def test_bad_errors_stay_bad_though_inputs_are_lost(tmp_path: Path) -> None:
    x = market(43, turns=FROM * 24, after=0.8)
    c = calibrated(x)
    w = world(tmp_path / 'w', [replace(r, inputs={}) for r in lived(x, c)], prices(ETH=x), c.written())
    assert any(d.demoted for d in w.month())


@pytest.mark.parametrize('day', ['2026-13-01', '2026-11-27T00:00:00', 'yesterday', '', '2026-11-28', '2027-01-01'])
def test_days_that_cannot_be_measured_are_refused(tmp_path: Path, fit: tuple[Floats, Calibration], day: str) -> None:
    x, c = fit
    w = world(tmp_path / 'w', lived(x, c)[:30], prices(ETH=x), c.written())
    with pytest.raises(BadInput): measure_day(w.models, w.record, w.actual, day)
    with pytest.raises(BadInput, match='a record of forecasts'): measure_day(w.models, tmp_path / 'none.db', w.actual, iso(BEGIN + FROM * DAY)[:10])
    assert len(w.models.history('eth')) == 3


@pytest.mark.parametrize('stage', ['candidate', 'paper'])
def test_models_that_are_not_live_are_measured_and_never_demoted(tmp_path: Path, stage: str) -> None:
    x = market(41, turns=FROM * 24, after=0.8)
    c = calibrated(x)
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written(), stage)
    days = w.month()
    assert sum(d.verdict == 'drifted' for d in days) > 10 and not any(d.demoted for d in days) and w.models.get('eth').stage == stage
    assert w.models.get('eth').marks[-1] in ('drifting', 'drifted') or days[-1].verdict != 'drifted'
    if stage == 'candidate': assert world(tmp_path / 'silent', [], prices(ETH=x), c.written(), stage).models.entries() and not w.models.get('eth').days[0].why.startswith('no forecasts')


def test_a_model_out_of_use_is_left_alone(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    assert len(w.day(FROM)) == 1
    w.models.move('eth', 'retired', 'ada', 'out of use')
    assert w.day(FROM + 1) == () and len(w.models.get('eth#1').days) == 1


def test_each_forecast_is_judged_once_and_only_when_it_is_whole(tmp_path: Path, fit: tuple[Floats, Calibration]) -> None:
    x, c = fit
    seen: list[tuple[Nanos, Nanos]] = []
    def heard(symbol: str, start: Nanos, end: Nanos) -> tuple[Any, Any]:
        seen.append((start, end))
        return prices(ETH=x)(symbol, start, end)
    w = world(tmp_path / 'w', lived(x, c), prices(ETH=x), c.written())
    judged = sum(w.one(k, heard).judged for k in range(FROM, DAYS))
    assert judged == len(lived(x, c)) - 1, 'all but the one that ended at the first instant of the first day'
    assert all(end <= BEGIN + (FROM + 1 + k) * DAY for k, (_, end) in enumerate(seen)), 'and nothing after the day is asked for'


def test_answers_of_a_day() -> None:
    assert answers([]) == {'forecasts': 0.0}


@pytest.mark.parametrize('ends, values', [([2, 1], [1.0, 2.0]), ([1, 1], [1.0, 2.0]), ([1, 2], [1.0]), ([1.5], [1.0]), ([[1]], [[1.0]])])
def test_actual_values_that_are_none(ends: Any, values: Any) -> None:
    with pytest.raises(BadInput, match='rising ends in ns'): came(ends, values)


def test_a_hole_never_shifts_the_join(fit: tuple[Floats, Calibration]) -> None:
    """Each forecast is compared with the hour it named, whatever is missing around it."""
    x, c = fit
    rows, whole = lived(x, c)[:48], prices(ETH=x)
    full = matured('ETH', rows, H, c, whole)
    assert len(full.ts) == 48 and not full.why
    def without(k: int) -> Callable[[str, Nanos, Nanos], tuple[Any, Any]]:
        def actual(symbol: str, start: Nanos, end: Nanos) -> tuple[Any, Any]:
            t, v = (np.asarray(a) for a in whole(symbol, start, end))
            return np.delete(t, k), np.delete(v, k)
        return actual
    for k in (5, 20, 40):
        m = matured('ETH', rows, H, c, without(k))
        kept = np.isin(full.ts, m.ts)
        assert 0 < m.missing <= H and np.array_equal(m.errors, full.errors[kept])


@pytest.mark.parametrize('sessions, judged', [('XNYS', 50), ('24/7', 0)])
def test_a_weekend_is_no_step(sessions: str, judged: int) -> None:
    """Shares, by the day: five days ahead are the next five sessions, whatever lies between."""
    bars = reference_bars(['AAPL']).last(300)
    close, at = bars.close[:, 0], range(200, 250)
    said = [Row(int(bars.end[t]), 'ab' * 32, 'shares', 'AAPL', DAY, (float(close[t]),) * 5, (0.9 * float(close[t]),) * 5, (1.1 * float(close[t]),) * 5, 0.8, 0.5, 'onnx-cpu', 90.0, 'fresh', float(close[t]), scale=1.0, calendar=sessions) for t in at]

    def actual(symbol: str, start: Nanos, end: Nanos) -> tuple[NDArray[np.int64], Floats]:
        a, b = np.searchsorted(bars.end, [start, end], side='right')
        return bars.end[a:b], close[a:b]
    m = matured('AAPL', said, 5, None, actual)
    assert len(m.ts) == judged and m.missing == 50 - judged
    if judged: assert np.array_equal(m.actual, np.stack([close[t + 1:t + 6] for t in at]))
