"""Figures and the report: what is drawn is what the result says, without a screen, on any run."""
import io
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image

from gekko.desk.result import Refusal, Result
from gekko.domain.errors import BadInput
from gekko.domain.order import Fill, Side
from gekko.domain.time import DAY, MINUTE, utc
from gekko.research import plots

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


@pytest.mark.parametrize('run', [made(), made(rows=3), made(rows=900, step=MINUTE, symbols=('ONE',)), made(fills=0), made(symbols=tuple('ABCDEFG'), fills=300)])
def test_every_figure_draws(run: Result) -> None:
    drawn = plots.figures(run)
    assert len(drawn) == 3
    for _, fig in drawn:
        w, h = shape(plots.png(fig, dpi=60))
        assert w > 300 and h > 60


def test_the_same_run_gives_the_same_bytes() -> None:
    assert plots.png(plots.equity_figure(made())) == plots.png(plots.equity_figure(made()))


def test_a_long_run_has_months_and_a_short_one_days() -> None:
    assert plots.figures(made())[2][0] == 'returns by month'
    assert plots.figures(made(rows=900, step=MINUTE))[2][0] == 'returns by day'


def test_what_is_drawn_is_the_equity() -> None:
    run = made()
    top, low = plots.equity_figure(run).axes
    line = max(top.lines, key=lambda x: len(x.get_xdata()))
    assert line.get_ydata().tolist() == [float(e) for e in run.equity]
    assert line.get_xdata()[-1] == np.datetime64(int(run.times[-1]) - 1, 'ns')
    assert max(low.lines, key=lambda x: len(x.get_xdata())).get_ydata().min() == pytest.approx(plots.drawdown(run.equity).min())


def test_few_fills_are_drawn_one_by_one_and_many_net() -> None:
    run = made(fills=40)
    mine = [f for f in run.fills if f.symbol == 'AAA']
    assert [(m.ts, m.price, m.qty) for m in plots.marks(mine)] == [(f.ts, float(f.price), float(f.qty) * f.side.sign) for f in mine]
    many = [f for f in made(rows=4000, fills=4000).fills if f.symbol == 'AAA']
    drawn = plots.marks(many, most=50)
    assert len(drawn) <= 50 and sum(m.fills for m in drawn) <= len(many)
    assert sum(m.qty for m in plots.marks(many[:41] + [f for f in many[41:] if f.side is Side.BUY], most=50)) == sum(float(f.qty) * f.side.sign for f in many[:41]) + 10.0 * sum(f.side is Side.BUY for f in many[41:])


def test_weights_follow_the_fills() -> None:
    run = made()
    held, size = plots.held_weights(run, 'AAA'), 0.0
    fills = [f for f in run.fills if f.symbol == 'AAA']
    close = np.nan
    for t in range(len(run.times)):
        close = close if np.isnan(run.closes[t, 0]) else run.closes[t, 0]
        size = sum(float(f.qty) * f.side.sign for f in fills if f.ts <= run.times[t])
        assert held[t] == pytest.approx(size * close / float(run.equity[t]) if size else 0.0)


def test_the_table_has_the_result_to_the_cent() -> None:
    run = made()
    cells = dict(x for group in plots.summary(run).values() for x in group)
    assert cells['Final equity'] == f'{run.equity[-1]:,.2f} USD'
    assert cells['Fees'] == f'{40 * Decimal("1.23"):,.2f} USD'
    assert (cells['Fills'], cells['Rejected intents'], cells['Bars']) == ('40', '1', '400')
    assert all(text in plots.summary_html(run) for text in cells.values())
    assert all(text in plots.summary_text(run) for text in cells.values())
    assert run.run_id in plots.origin(run) and run.journal_head[:16] in plots.origin(run)


def test_what_a_venue_or_user_named_is_escaped() -> None:
    run = made(symbols=('<b>X', 'Y'))
    assert '<b>' not in plots.summary_html(run) and '&lt;b&gt;X' in plots.summary_html(run)


def test_a_run_without_bars_reports_and_is_not_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    empty = made(rows=1, fills=0)
    empty = Result(**{**vars(empty), 'times': empty.times[:0], 'equity': (), 'closes': empty.closes[:0], 'exit_reason': 'refused'})
    plots.report(empty)
    assert 'no bars' in capsys.readouterr().out and plots.figures(empty) == []
    for draw in (plots.equity_figure, plots.fills_figure, plots.months_figure, plots.days_figure):
        with pytest.raises(BadInput, match='two bars or more'): draw(empty)


def test_unknown_symbols_are_refused() -> None:
    with pytest.raises(BadInput, match='expected AAA BBB, found GOLD'): plots.fills_figure(made(), ['GOLD'])


def test_without_a_screen_and_without_pyplot() -> None:
    """Importing loads no matplotlib; drawing needs no display and leaves pyplot's registry alone."""
    code = '''
import sys
import gekko.research.plots as p
assert 'matplotlib' not in sys.modules and 'pandas' not in sys.modules
import numpy as np
from decimal import Decimal
r = p.Result('id', 'l', 's', 'paper', 'a', ('X',), '1d', 'USD', Decimal(100), np.arange(1, 4) * 86_400_000_000_000, (Decimal(100), Decimal(99), Decimal(101)), np.ones((3, 1)), (), (), (), '', 'finished')
assert len(p.png(p.equity_figure(r))) > 1000
assert 'matplotlib.pyplot' not in sys.modules
'''
    env = {k: v for k, v in os.environ.items() if k not in ('DISPLAY', 'MPLBACKEND')}
    done = subprocess.run([sys.executable, '-c', code], env={**env, 'MPLBACKEND': 'TkAgg'}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
