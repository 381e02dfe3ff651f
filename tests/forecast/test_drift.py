"""Drift: right against other implementations, seldom wrong where nothing changed, and quick where something did."""
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.forecast.conformal import adaptive, fit_scale, scales
from gekko.forecast.drift import MARK, Drift, Measure, Reference, coverage_p, daily, demotes, excursions, independent, ks, ks_p, psi, reference, usual

DAY = 288


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 9999), st.booleans())
def test_the_distance_is_scipys(n: int, m: int, seed: int, ties: bool) -> None:
    from scipy.stats import ks_2samp
    g = np.random.default_rng(seed)
    a, b = g.normal(size=n), g.normal(size=m)
    if ties: a, b = a.round(), b.round()
    assert ks(a, b) == pytest.approx(ks_2samp(a, b, method='asymp').statistic)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.floats(0.02, 0.98), st.data())
def test_the_binomial_is_scipys(n: int, level: float, data: st.DataObject) -> None:
    from scipy.stats import binomtest
    k = data.draw(st.integers(0, n))
    assert coverage_p(np.arange(n) < k, level) == pytest.approx(binomtest(k, n, level).pvalue, abs=1e-6)


def test_the_p_values_are_uniform_where_nothing_changed() -> None:
    g = np.random.default_rng(1)
    p = [ks_p(ks(g.normal(size=400), g.normal(size=200)), 400, 200) for _ in range(400)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.09
    slow = []
    for _ in range(300):      # autocorrelated rows: by rows nearly always 'changed', by what they are worth seldom
        a, b = (ar(g, 2000, 0.9), ar(g, 500, 0.9))
        slow.append((ks_p(ks(a, b), 2000, 500), ks_p(ks(a, b), independent(a), independent(b))))
    by_rows, by_worth = np.mean(np.array(slow) < 0.05, axis=0)
    assert by_rows > 0.4 and by_worth < 0.12


def ar(g: np.random.Generator, n: int, r: float) -> np.ndarray:
    from scipy.signal import lfilter
    return np.asarray(lfilter([np.sqrt(1 - r * r)], [1, -r], g.normal(size=n + 200))[200:])


def test_rows_are_worth_what_theory_says() -> None:
    x = ar(np.random.default_rng(2), 200_000, 0.8)
    assert independent(x) == pytest.approx(200_000 / 9, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=80), st.floats(0, 2), st.integers(1, 79))
def test_sums_are_pages_and_go_on_from_where_they_were(z: list[float], slack: float, cut: int) -> None:
    s, slow = 0.0, []
    for v in z: slow.append(s := max(0.0, s + v - slack))
    whole = excursions(z, slack)
    assert np.allclose(whole, slow)
    cut = min(cut, len(z) - 1)
    assert np.allclose(excursions(z[cut:], slack, start=float(whole[cut - 1])), whole[cut:])


def test_white_noise_seldom_crosses_and_a_lean_is_found_soon() -> None:
    g = np.random.default_rng(3)
    quiet = [bool((excursions(g.normal(size=1000)) > MARK).any()) for _ in range(200)]
    late = [int(np.argmax(excursions(1 + g.normal(size=400)) > MARK)) for _ in range(200)]
    assert np.mean(quiet) < 0.1 and np.mean(late) == pytest.approx(16, abs=2)


def made(seed: int) -> tuple[np.random.Generator, Reference]:
    g = np.random.default_rng(seed)
    return g, reference({'noise': g.standard_t(4, size=30 * DAY), 'slow': ar(g, 30 * DAY, 0.98)}, g.standard_t(5, size=10 * DAY), 0.8, DAY)


def days(g: np.random.Generator, ref: Reference, n: int, *, shift: float = 0.0, grow: float = 1.0, lean: float = 0.0) -> list[Drift]:
    out, sums = [], (0.0, 0.0, 0.0)
    edge = 1.4759      # 80 % of Student's t with five degrees
    for _ in range(n):
        e = lean + grow * g.standard_t(5, size=DAY)
        out.append(daily(ref, {'noise': shift + g.standard_t(4, size=DAY), 'slow': ar(g, DAY, 0.98)}, e, np.abs(e) <= edge, sums=sums))
        sums = out[-1].sums
    return out


def test_days_like_the_reference_are_not_demoted() -> None:
    """Fat tails, slow inputs, 300 days: seldom drifted, never three days in a row."""
    verdicts, last = [], []
    for seed in range(10):
        g, ref = made(seed)
        last.append([d.verdict for d in days(g, ref, 30)])
        verdicts += last[-1]
    share = verdicts.count('drifted') / 300
    print('drifted', share, 'watch', verdicts.count('watch') / 300)
    assert share < 0.03 and not any(demotes(v[:k]) for v in last for k in range(1, 31))


@pytest.mark.parametrize('change, name', [({'shift': 1.5}, 'noise'), ({'grow': 1.7}, 'errors grow'), ({'lean': 0.8}, 'errors lean'), ({'grow': 0.5}, 'coverage')], ids=lambda x: str(x))
def test_a_change_is_found_and_named(change: dict[str, float], name: str) -> None:
    for seed in range(5):
        g, ref = made(seed)
        seen = days(g, ref, 3, **change)
        assert demotes([d.verdict for d in seen]) and any(m.name.startswith(name) and m.verdict == 'drifted' for m in seen[0].measures), str(seen[0])
        assert seen[0].why[0].verdict == 'drifted'


def test_real_days_are_judged_by_what_real_days_are_like(shared_data: Path | None) -> None:
    """ETH/BTC: ten days of reference, the eight after it not demoted; the same days with inputs and errors of another unit are, at once."""
    if shared_data:
        import pyarrow.parquet as pq
        x = np.log(pq.read_table(shared_data / 'eth_btc_5m_2018.parquet').column('close').to_numpy())
    else: x = (0.002 * np.random.default_rng(0).standard_t(4, size=5760)).cumsum()
    at = np.arange(300, len(x))
    e = x[at] - x[at - 1]
    s = scales(fit_scale(x, at[:2016]), x, at)
    r = adaptive(e[:, None], 0.8, start=1000, scale=s)[:, 0]
    ref = reference({'return': e[:2880], 'scale': s[:2880]}, (e / s)[1000:2880], 0.8, DAY)
    def verdicts(k: float) -> list[str]:
        out, sums = [], (0.0, 0.0, 0.0)
        for a in range(2880, len(e) - DAY + 1, DAY):
            d = daily(ref, {'return': k * e[a:a + DAY], 'scale': k * s[a:a + DAY]}, k * (e / s)[a:a + DAY], k * np.abs(e[a:a + DAY]) <= r[a:a + DAY], sums=sums)
            sums = d.sums
            out.append(d.verdict)
        return out
    print(verdicts(1.0), verdicts(10.0))
    assert len(verdicts(1.0)) == 8 and 'drifted' not in verdicts(1.0) and set(verdicts(10.0)) == {'drifted'}


def test_a_constant_input_that_starts_to_move_is_drifted() -> None:
    u = usual('flag', np.ones(10 * DAY), DAY)
    assert (u.psi, u.ks) == (0.0, 0.0)
    g = np.random.default_rng(0)
    ref = reference({'flag': np.ones(10 * DAY)}, g.normal(size=500), 0.8, DAY)
    e = g.normal(size=DAY)
    still, moved = (daily(ref, {'flag': x}, e, np.abs(e) < 1.28) for x in (np.ones(DAY), np.r_[np.ones(DAY // 2), np.zeros(DAY // 2)]))
    assert still.verdict == 'ok' and moved.verdict == 'drifted'


def test_the_worst_measure_is_the_verdict() -> None:
    ok, watch, bad = Measure('a', 0.0, 1, 2), Measure('b', 1.0, 1, 2), Measure('c', 2.0, 1, 2)
    assert [Drift(m).verdict for m in ((), (ok,), (ok, watch), (bad, watch, ok))] == ['ok', 'ok', 'watch', 'drifted']
    assert [m.name for m in Drift((ok, watch, bad)).why] == ['c', 'b']


def test_broken_numbers_are_refused() -> None:
    g, ref = made(0)
    e, good = np.zeros(9), {'noise': g.normal(size=9), 'slow': g.normal(size=9)}
    bad = np.r_[np.nan, np.ones(8)]
    for call in (lambda: psi(bad, e), lambda: ks(e, bad), lambda: excursions(bad), lambda: coverage_p(np.zeros(0, dtype=bool), 0.8), lambda: coverage_p([True], 1.0), lambda: usual('x', np.r_[np.nan, np.ones(3000)], DAY),
                 lambda: daily(ref, {'noise': e}, e, e == 0), lambda: daily(ref, {**good, 'slow': bad}, e, e == 0), lambda: daily(ref, good, bad, e == 0), lambda: daily(ref, good, e, e), lambda: reference(good, bad, 0.8, DAY)):
        with pytest.raises(BadInput): call()
