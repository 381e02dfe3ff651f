"""Inputs: the same bits from a window and from all of history, nothing from the future, nothing filled in, and no NaN that gets through."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import FIELDS, Bars
from gekko.data.calendar import calendar
from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR, MINUTE, utc
from gekko.forecast.infer import latest, windows
from gekko.forecast.inputs import AHEAD, FEATURES, PAST, TARGETS, ahead_of, asked, checked, frame_of, gaps, series_of, target_of, whole, why_not, windows_at
from gekko.forecast.spec import ModelSpec, Scaling

STEP = 5 * MINUTE
SPEC = ModelSpec(type='nhits', input_size=20, horizon=4, past=('log_return', 'log_volume', 'hour_sin'), future=('hour_cos', 'weekend'))


def market(rows: int = 400, n: int = 3, seed: int = 0) -> Bars:
    g = np.random.default_rng(seed)
    close = 100 * np.exp(0.002 * g.standard_t(4, size=(rows, n)).cumsum(axis=0))
    o = close * np.exp(0.0005 * g.normal(size=close.shape))
    start = utc('2026-03-02T00:00Z') + STEP * np.arange(rows)
    return Bars(tuple(f'S{j}' for j in range(n)), start, start + STEP, o, np.maximum(o, close) * 1.0007, np.minimum(o, close) / 1.0009, close, g.lognormal(size=close.shape))


def changed(b: Bars, **fields: np.ndarray) -> Bars: return replace(b, version='', **fields)


BARS = market()


@pytest.mark.parametrize('name', FEATURES)
def test_a_feature_looks_back_as_far_as_it_says_and_no_farther(name: str) -> None:
    """From exactly its own rows the same bits as from all; from one row fewer nothing."""
    if name in AHEAD:
        whole_row = AHEAD[name](BARS.end)
        for t in (0, 5, 399): assert np.array_equal(AHEAD[name](BARS.end[t:t + 1]), whole_row[t:t + 1])
        return
    f = PAST[name]
    x = f.of(BARS)
    for t in (f.rows - 1, 150, 399):
        assert np.array_equal(f.of(BARS.rows(t - f.rows + 1, t + 1))[-1], x[t]) and np.isfinite(x[t]).all()
    if f.rows > 1: assert np.isnan(f.of(BARS.rows(151 - f.rows, 150))[-1]).all()
    assert np.isnan(x[:f.rows - 1]).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(130, 399), st.integers(1, 3), st.integers(0, 99), st.sampled_from(sorted(TARGETS)))
def test_the_future_changes_no_bit(t: int, n: int, seed: int, target: str) -> None:
    """All rows after `t` spoilt, or cut off, or the history cut short, or fewer symbols: the windows at `t` stay."""
    spec = replace(SPEC, past=tuple(n for n in FEATURES if n not in SPEC.future))
    b = market(seed=seed)
    g = np.random.default_rng(seed)
    poisoned = changed(b, **{f: np.where((np.arange(len(b)) > t)[:, None], g.choice([np.nan, -5, 1e200, 7.0], size=b.close.shape), getattr(b, f)) for f in FIELDS})
    every = np.arange(n)
    need = spec.input_size + asked(spec) - 1
    some = Bars(b.symbols[:n], b.start, b.end, *(np.ascontiguousarray(getattr(b, f)[:, :n]) for f in FIELDS))
    clean = windows_at(frame_of(b, spec, target), t, every, spec, STEP)
    for other, row in ((poisoned, t), (b.rows(0, t + 1), t), (b.rows(t + 1 - need, t + 1), need - 1), (some, t)):
        found = windows_at(frame_of(other, spec, target), row, every, spec, STEP)
        assert all(np.array_equal(x, y) for x, y in zip(clean, found, strict=True)) and all(np.isfinite(x).all() for x in found)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(0, 199), st.integers(0, 1), st.sampled_from([np.nan, 0.0, -3.0, np.inf, 1e40, 1e308])), max_size=6), st.lists(st.integers(1, 198), max_size=2, unique=True), st.sampled_from(sorted(TARGETS)))
def test_what_is_whole_is_finite_and_what_is_not_has_a_reason(faults: list[tuple[str, int, int, float]], lost: list[int], target: str) -> None:
    """Whatever is wrong with some cells, or some rows are missing: a window called whole can be normalised, and any other has its reason in words."""
    spec = replace(SPEC, past=('range', 'body', 'log_volume', 'log_return'))
    b = market(200, 2)
    fields = {f: getattr(b, f).copy() for f in FIELDS}
    for f, t, j, v in faults: fields[f][t, j] = v
    b = changed(b, **fields)
    b = Bars(b.symbols, *(np.delete(getattr(b, f), lost, axis=0) for f in ('start', 'end', *FIELDS)))
    f = frame_of(b, spec, target)
    good = whole(f, 40, spec.input_size)
    for t in range(30, len(b)):
        if good[t].any():
            w = windows(spec, Scaling(), *windows_at(f, t, np.flatnonzero(good[t]), spec, STEP))
            assert all(np.isfinite(a).all() for a in w.inputs.values())
    for j in np.flatnonzero(~good[-1]):
        why = why_not(b, f, spec, int(j), 40)
        assert why.startswith(('no bar at', 'a price of', 'bars are missing before', 'no range', 'no body', 'no log_volume', 'no log_return')), why


def test_time_is_exact_far_from_the_epoch() -> None:
    """Nanoseconds of 2026 have 19 digits; a float has 16. A year later to the day the feature is the same bits."""
    t = np.array([utc('2026-03-02T13:37:01Z') + 3])
    for name, every in (('hour_sin', DAY), ('hour_cos', DAY), ('weekday_sin', 7 * DAY), ('weekday_cos', 7 * DAY), ('weekend', 7 * DAY)):
        assert AHEAD[name](t) == AHEAD[name](t + 52 * every)
    assert AHEAD['hour_sin'](np.array([utc('2026-03-02T06:00Z')])) == 1.0
    assert AHEAD['hour_sin'](np.array([utc('2026-03-02T06:00Z') + 1]))[0] <= 1.0
    monday = np.array([utc('2026-03-02T00:00Z')])
    assert abs(AHEAD['weekday_sin'](monday)[0]) < 1e-12 and AHEAD['weekday_cos'](monday)[0] == 1.0


def test_ahead_goes_on_where_the_bars_end() -> None:
    ahead = ahead_of(int(BARS.end[-5]), STEP, SPEC)
    for n in SPEC.future: assert np.array_equal(ahead[n], AHEAD[n](BARS.end[-4:]))


def test_serving_and_training_read_the_same() -> None:
    series = series_of(BARS, SPEC, 'log_close')
    assert {len(v) for c in series.values() for v in c.values()} == {len(BARS) - asked(SPEC) + 1}
    ahead = {s: ahead_of(int(BARS.end[-1]), STEP, SPEC) for s in BARS.symbols}
    for a, b in zip(latest(SPEC, series, ahead), windows_at(frame_of(BARS, SPEC, 'log_close'), 399, np.arange(3), SPEC, STEP), strict=True): assert np.array_equal(a, b)


def test_a_weekend_is_a_gap_only_where_nobody_sleeps() -> None:
    """Hourly bars of FX over a weekend, and one hour of Tuesday missing."""
    starts = calendar('FX').expected(utc('2026-03-05T00:00Z'), utc('2026-03-11T00:00Z'), HOUR)
    starts = starts[starts != utc('2026-03-10T07:00Z')]
    one = np.ones((len(starts), 1))
    b = Bars(('EUR',), starts, starts + HOUR, one, one, one, one, one)
    assert list(starts[gaps(b, calendar('FX'))]) == [utc('2026-03-10T08:00Z')]
    assert len(np.flatnonzero(gaps(b))) == 2
    assert frame_of(b, ModelSpec(), 'close', calendar('FX')).since[-1] == 16


def test_what_no_network_can_be_fed_is_refused() -> None:
    nan = BARS.close.copy()
    nan[100, 1] = np.nan
    cut = Bars(BARS.symbols, *(np.delete(getattr(BARS, f), 50, axis=0) for f in ('start', 'end', *FIELDS)))
    twice = BARS.rows(0, 10), np.r_[0:10, 9]
    again = Bars(BARS.symbols, *(getattr(twice[0], f)[twice[1]] for f in ('start', 'end', *FIELDS)))
    for call, said in ((lambda: series_of(changed(BARS, close=nan), SPEC, 'close'), 'S1: y'), (lambda: series_of(changed(BARS, close=BARS.close - 200), SPEC, 'log_close'), 'S0: y'), (lambda: series_of(cut, SPEC, 'close'), 'no gap'),
                       (lambda: series_of(changed(BARS, volume=nan), SPEC, 'close'), 'S1: log_volume'), (lambda: series_of(BARS.rows(0, 1), SPEC, 'close'), 'more than 1 rows'), (lambda: series_of(BARS.rows(0, 0), SPEC, 'close'), 'some rows'),
                       (lambda: checked(again, STEP), 'out of order or twice'), (lambda: checked(BARS, MINUTE), 'expected 1m, found 5m'), (lambda: target_of('volume'), 'close or log_close'),
                       (lambda: frame_of(BARS, ModelSpec(past=('sentiment',)), 'close'), 'found sentiment'), (lambda: frame_of(BARS, ModelSpec(future=('log_return',)), 'close'), 'future features')):
        with pytest.raises(BadInput, match=said): call()


def test_returns_are_those_of_prices() -> None:
    y = {n: t.of(BARS) for n, t in TARGETS.items()}
    real = BARS.close[399] / BARS.close[390] - 1
    for n, t in TARGETS.items():
        assert np.allclose(t.change(y[n][390], y[n][399]), real, rtol=1e-9) and np.allclose(t.price(y[n][399]), BARS.close[399])
