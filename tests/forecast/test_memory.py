"""The memory of errors: whenever and in whatever order they are learnt, and however often its rows move, the same as counting them all again."""
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.bars import Bars
from gekko.domain.time import MINUTE
from gekko.forecast.calibration import Calibration, radii_of
from gekko.forecast.confidence import Confidence
from gekko.forecast.conformal import Conformal, Scale
from gekko.forecast.memory import Memory

H, N = 4, 2
C = Calibration('log_close', MINUTE, Conformal((0.8, 0.95), ((1.0,) * H, (2.0,) * H), 99, True), Scale(4, 8, 1e-6), Confidence((1.0,), (0.5,), 0.5, 99), memory=50)


def counted(y: np.ndarray, scale: np.ndarray, points: np.ndarray, since: np.ndarray, t: int, first: int) -> np.ndarray:
    """|error| / scale of step h at row r, for the last 50 rows r up to `t`, where the forecast was made at `first` or later and no gap lies between: by definition."""
    out = np.full((N, H, 50), np.nan)
    for k, r in enumerate(range(t - 49, t + 1)):
        for h in range(1, H + 1):
            if r - h >= first and since[r] > h: out[:, h - 1, k] = np.abs(y[r] - points[r - h, :, h - 1]) / scale[r - h]
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.lists(st.integers(60, 199), max_size=3, unique=True), st.integers(60, 130), st.booleans(), st.floats(0, 0.3))
def test_known_errors_are_those_that_are_counted(seed: int, gaps: list[int], rows: int, late: bool, silent: float) -> None:
    g = np.random.default_rng(seed)
    y, scale, points = g.normal(size=(200, N)), g.uniform(0.5, 2, (200, N)), g.normal(size=(200, N, H))
    if seed % 3 == 0: y[g.random((200, N)) < 0.05] = np.nan
    ready = g.random((200, N)) >= silent
    points[~ready] = np.nan
    since = np.arange(200) - np.maximum.accumulate(np.where(np.isin(np.arange(200), gaps), np.arange(200), -500)) + 1
    start = MINUTE * np.arange(200)
    bars = Bars(('A', 'B'), start, start + MINUTE, *[np.exp(y)] * 4, np.ones((200, N)))
    m = Memory(bars.symbols, rows, H)
    for t in range(200):
        m.add(bars, t, y[t], scale[t], ready[t], int(since[t]))
        if not late or t == 150:
            for r in [int(x) for x in g.permutation(m.unsaid())]: m.put(r, m.ready(r), points[t - len(m) + 1 + r, m.ready(r)])
        if not late and t > 120: assert np.array_equal(m.radii(C, len(m) - 1, np.arange(N)), radii_of(C, m.known(len(m) - 1, 50)))
    for r in m.unsaid(): m.put(int(r), m.ready(int(r)), points[200 - len(m) + r, m.ready(int(r))])
    for first in (0, 5, len(m) - 30):
        z = m.known(len(m) - 1, 50, first)
        assert np.array_equal(z, counted(y, scale, points, since, 199, 200 - len(m) + first), equal_nan=True)
    assert len(m.unsaid()) == 0 and len(m) == rows
