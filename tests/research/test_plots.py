"""Figures and the report: what is drawn is what the result says, without a screen, on any run."""
import io
import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gekko.desk.result import Refusal, Result
from gekko.domain.errors import BadInput
from gekko.domain.order import Fill, Side
from gekko.domain.time import DAY, MINUTE, utc
from gekko.research import numbers, plots
from gekko.research.course import course_of, weight
from gekko.research.stats import drawdown

CENT = Decimal('.01')


def made(rows: int = 400, *, step: int = DAY, fills: int = 40, symbols: tuple[str, ...] = ('AAA', 'BBB'), seed: int = 1) -> Result:
    """A run on random prices; its fills alternate, its equity is a random walk. Enough to draw."""
    rng = np.random.default_rng(seed)
    times = utc('2019-03-01') + step * np.arange(1, rows + 1, dtype=np.int64)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (rows, len(symbols))), axis=0))
    closes[rng.random(closes.shape) < 0.05] = np.nan
    equity = tuple(Decimal(repr(float(x))).quantize(CENT) for x in 1e6 * np.exp(np.cumsum(rng.normal(0, 0.005, rows))))
    made_fills = tuple(Fill(f'f{k}', f'g{k}', symbols[k % len(symbols)], Side.BUY if k // len(symbols) % 2 == 0 else Side.SELL, Decimal(10), Decimal(100), Decimal('1.23'), ts=int(times[k * rows // fills])) for k in range(fills))
    return Result('20261122T034501-made-0000', 'lineage', 'made', 'backtest', 'made', symbols, '1d', 'USD', Decimal(1_000_000), times, equity, closes, made_fills, (),
                  (Refusal(int(times[0]), symbols[0], 'max_gross', '3', '4'),), 'ab' * 32, 'finished', 'cd' * 8)


def shape(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def figures(run: Result) -> list[Any]:
    return [plots.equity_figure(run), plots.fills_figure(run), plots.months_figure(run), plots.days_figure(run)]


@pytest.mark.parametrize('run', [made(), made(rows=3), made(rows=900, step=MINUTE, symbols=('ONE',)), made(fills=0), made(symbols=tuple('ABCDEFG'), fills=300)])
def test_every_figure_draws(run: Result) -> None:
    for fig in figures(run):
        w, h = shape(plots.png(fig, dpi=60))
        assert w == round(60 * plots.WIDTH) and h > 40


def test_the_same_run_gives_the_same_bytes() -> None:
    assert plots.png(plots.equity_figure(made())) == plots.png(plots.equity_figure(made()))


def test_what_is_drawn_is_the_equity() -> None:
    run = made()
    top, low = plots.equity_figure(run).axes
    line = max(top.lines, key=lambda x: len(x.get_xdata()))
    assert line.get_ydata().tolist() == [float(e) for e in run.equity]
    assert line.get_xdata()[-1] == np.datetime64(int(run.times[-1]) - 1, 'ns')
    assert max(low.lines, key=lambda x: len(x.get_xdata())).get_ydata().min() == pytest.approx(drawdown(run.equity).min())


def test_a_long_curve_is_drawn_by_its_extremes() -> None:
    run = made(rows=60_000, step=MINUTE)
    line = max(plots.equity_figure(run).axes[0].lines, key=lambda x: len(x.get_xdata()))
    y = [float(e) for e in run.equity]
    assert len(line.get_ydata()) <= plots.PIXELS and (line.get_ydata().min(), line.get_ydata().max()) == (min(y), max(y))


def test_few_fills_are_drawn_one_by_one_and_many_net() -> None:
    run = made(fills=40)
    mine = [f for f in run.fills if f.symbol == 'AAA']
    assert [(m.ts, m.price, m.qty) for m in plots.marks(course_of(run), 0)] == [(f.ts, float(f.price), float(f.qty) * f.side.sign) for f in mine]
    assert [m.opens for m in plots.marks(course_of(run), 0)] == [f.side is Side.BUY for f in mine]
    busy = made(rows=4000, fills=4000)
    many = [f for f in busy.fills if f.symbol == 'AAA']
    drawn = plots.marks(course_of(busy), 0, most=50)
    assert len(drawn) <= 50 and sum(m.fills for m in drawn) <= len(many)
    kept = many[:41] + [f for f in many[41:] if f.side is Side.BUY]
    c = course_of(Result(**{**vars(busy), 'fills': tuple(kept)}))
    assert sum(m.qty for m in plots.marks(c, 0, most=50)) == sum(float(f.qty) * f.side.sign for f in kept)
    assert f'drawn net in {len(drawn)} marks' in plots.said_fills(course_of(busy), 0, drawn)


def test_weights_follow_the_fills() -> None:
    run = made()
    held, size = weight(course_of(run), 0), 0.0
    fills = [f for f in run.fills if f.symbol == 'AAA']
    close = np.nan
    for t in range(len(run.times)):
        close = close if np.isnan(run.closes[t, 0]) else run.closes[t, 0]
        size = sum(float(f.qty) * f.side.sign for f in fills if f.ts < run.times[t])      # in the instant of an end the next bar begins
        assert held[t] == pytest.approx(size * np.nan_to_num(close) / float(run.equity[t]) if size else 0.0)


def test_the_table_has_the_result_to_the_cent() -> None:
    run = made()
    cells = dict(x for group in numbers.summary(run).values() for x in group)
    assert cells['Final equity'] == f'{run.equity[-1]:,.2f} USD'
    assert cells['Fees'] == f'{40 * Decimal("1.23"):,.2f} USD'
    assert (cells['Fills'], cells['Rejected intents'], cells['Bars']) == ('40', '1', '400')
    assert all(text in numbers.summary_html(run) for text in cells.values())
    assert all(text in numbers.summary_text(run) for text in cells.values())
    assert run.run_id in numbers.origin(run) and run.journal_head[:16] in numbers.origin(run)


def test_what_a_venue_or_user_named_is_escaped() -> None:
    run = made(symbols=('<b>X', 'Y'))
    assert '<b>' not in numbers.summary_html(run) and '&lt;b&gt;X' in numbers.summary_html(run)


def test_a_run_without_bars_reports_and_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    empty = made(rows=1, fills=0)
    empty = Result(**{**vars(empty), 'times': empty.times[:0], 'equity': (), 'closes': empty.closes[:0], 'exit_reason': 'refused'})
    plots.report(empty)
    assert 'no bars' in capsys.readouterr().out
    for draw in (plots.equity_figure, plots.fills_figure, plots.months_figure, plots.days_figure):
        with pytest.raises(BadInput, match='two bars or more'): draw(empty)


def test_unknown_symbols_are_refused() -> None:
    with pytest.raises(BadInput, match='expected AAA BBB, found GOLD'): plots.fills_figure(made(), ['GOLD'])


def test_without_a_screen_and_without_pyplot() -> None:
    """Importing loads no matplotlib; drawing needs no display and leaves pyplot's registry alone."""
    code = '''
import sys
import gekko.research.plots as p
from gekko.desk.result import Result
assert 'matplotlib' not in sys.modules and 'pandas' not in sys.modules
import numpy as np
from decimal import Decimal
r = Result('id', 'l', 's', 'paper', 'a', ('X',), '1d', 'USD', Decimal(100), np.arange(1, 4) * 86_400_000_000_000, (Decimal(100), Decimal(99), Decimal(101)), np.ones((3, 1)), (), (), (), '', 'finished')
assert len(p.png(p.equity_figure(r))) > 1000
assert 'matplotlib.pyplot' not in sys.modules
'''
    env = {k: v for k, v in os.environ.items() if k not in ('DISPLAY', 'MPLBACKEND')}
    done = subprocess.run([sys.executable, '-c', code], env={**env, 'MPLBACKEND': 'TkAgg'}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
