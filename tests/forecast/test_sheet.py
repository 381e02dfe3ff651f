"""Files of numbers in time, as other people write them: read, or refused with what was expected; and recipes that fit what was read."""
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, HOUR, MINUTE
from gekko.forecast.recipes import PUBLISHED, level_free, recipe, window
from gekko.forecast.sheet import read_sheet, season_of, step_of


def frame(rows: int = 400, freq: str = '1h', time: str = 'date') -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({time: pd.date_range('2020-01-01', periods=rows, freq=freq), 'p (mbar)': rng.normal(1000, 5, rows), 'OT': rng.normal(20, 3, rows)})


def saved(f: pd.DataFrame, folder: Path, name: str = 'x.csv') -> Path:
    p = folder / name
    f.to_parquet(p, index=False) if name.endswith('parquet') else f.to_csv(p, index=False)
    return p


@pytest.mark.parametrize('time', ['date', 'ds', 'timestamp', 'Datetime', 'time', 'open_time'])
@pytest.mark.parametrize('name', ['x.csv', 'x.parquet'])
def test_a_time_column_by_any_name(time: str, name: str, tmp_path: Path) -> None:
    s = read_sheet(saved(frame(time=time), tmp_path, name), 'OT')
    assert (len(s), list(s.columns), s.step, s.season, s.notes) == (400, ['p (mbar)', 'OT'], HOUR, 24, ())


@pytest.mark.parametrize(('freq', 'step', 'season'), [('15min', 15 * MINUTE, 96), ('10min', 10 * MINUTE, 144), ('1h', HOUR, 24), ('1D', DAY, 7), ('B', DAY, 5), ('7D', 7 * DAY, 52), ('MS', 30 * DAY, 12)])
def test_step_and_season_from_the_stamps(freq: str, step: int, season: int, tmp_path: Path) -> None:
    s = read_sheet(saved(frame(100, freq), tmp_path), 'OT')
    assert (s.step, s.season) == (step, season)


def test_etth1_is_read_as_it_is(shared_data: Path | None, tmp_path: Path) -> None:
    s = read_sheet(shared_data / 'etth1.parquet' if shared_data else saved(frame(), tmp_path), 'OT')
    if not shared_data: return
    assert (len(s), list(s.columns), s.step, s.season, s.notes) == (17420, ['HUFL', 'HULL', 'MUFL', 'MULL', 'LUFL', 'LULL', 'OT'], HOUR, 24, ())
    assert s.version.startswith('sha256:9a4d9d57f60924c5')


def test_gaps_nans_text_constants_and_doubles_are_mended_and_said(tmp_path: Path) -> None:
    f = frame()
    f['sky'], f['flat'], f['late'] = 'grey', 1.0, np.where(np.arange(400) < 100, np.nan, 1.0)
    f.loc[[7, 8], 'OT'] = np.nan
    f.loc[9, 'OT'] = np.inf
    f = pd.concat([f.drop(index=[50, 51, 300]), f.loc[[10]]])      # three rows gone, one twice and out of order
    s = read_sheet(saved(f, tmp_path), 'OT')
    whole = frame()
    assert len(s) == 400 and list(s.columns) == ['p (mbar)', 'OT'] and np.isfinite(s.columns['OT']).all()
    assert s.columns['OT'][[7, 8, 9]].tolist() == [pytest.approx(whole['OT'][6])] * 3 and s.columns['p (mbar)'][51] == pytest.approx(whole['p (mbar)'][49])
    said = ' | '.join(s.notes)
    for words in ('sorted', 'there twice', '3 rows were missing in 2 gaps', 'sky: not numbers', 'flat: always the same', 'late: 25', 'OT: 6 missing values'): assert words in said


def test_no_value_of_the_future_fills_a_hole(tmp_path: Path) -> None:
    f = frame()
    f.loc[20, 'OT'] = np.nan
    before = read_sheet(saved(f, tmp_path), 'OT').columns['OT']
    f.loc[21:, 'OT'] = 1e6 + np.arange(379)
    assert (read_sheet(saved(f, tmp_path), 'OT').columns['OT'][:21] == before[:21]).all()


def test_a_shut_market_is_not_filled(tmp_path: Path) -> None:
    f = frame(1000, '30min')
    s = read_sheet(saved(f[f['date'].dt.hour.between(8, 17)], tmp_path), 'OT')
    assert len(s) == int(f['date'].dt.hour.between(8, 17).sum()) and 'one after the other' in s.notes[0]


def test_packed_and_european_files(tmp_path: Path) -> None:
    f = frame()
    p = tmp_path / 'x.csv.gz'
    p.write_bytes(gzip.compress(f.to_csv(index=False).encode()))
    assert len(read_sheet(p, 'OT')) == 400
    e = tmp_path / 'e.csv'
    e.write_text('Datum;OT\n' + '\n'.join(f'{1 + i // 24:02}.01.2020 {i % 24:02}:00;{20 + i % 50},{i % 10}' for i in range(200)))
    s = read_sheet(e, 'OT')
    assert len(s) == 200 and s.columns['OT'][3] == 23.3


def test_parquet_with_its_time_in_the_index(tmp_path: Path) -> None:
    p = tmp_path / 'x.parquet'
    frame().set_index('date').to_parquet(p)
    assert len(read_sheet(p, 'OT')) == 400


def bad(what: str, f: pd.DataFrame) -> pd.DataFrame:
    if what == 'no time': return f.drop(columns='date')
    if what == 'no rows': return f.head(0)
    if what == 'text': return f.assign(OT='warm')
    if what == 'constant': return f.assign(OT=1.0)
    if what == 'empty': return f.assign(OT=np.nan)
    if what == 'holes': return f.assign(OT=f['OT'].where(np.arange(len(f)) % 3 > 0))
    if what == 'torn': return pd.concat([f, f.tail(1).assign(OT=99.0)])
    if what == 'no step': return f.assign(date=f['date'] + pd.to_timedelta(np.cumsum(np.arange(len(f))), unit='s'))
    if what == 'no stamp': return f.assign(date=f['date'].astype(str).where(np.arange(len(f)) != 5, ''))
    return f.head(2)


@pytest.mark.parametrize(('what', 'said'), [('no time', 'no time column'), ('no rows', 'rows'), ('text', 'not a number everywhere'), ('constant', 'always the same'), ('empty', 'no values'), ('holes', '% missing'),
                                            ('torn', 'two rows of one time'), ('no step', 'common step'), ('no stamp', 'without a time'), ('two rows', 'too few rows')])
def test_what_cannot_be_used_is_refused(what: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said) as e: read_sheet(saved(bad(what, frame()), tmp_path), 'OT')
    assert e.value.expected is not None and e.value.found is not None


@pytest.mark.parametrize('raw', [b'', b'PAR1 cut off', b'\x80\x04pickle\x00', b'hello', b'\x89PNG\r\n\x1a\n\x00\x00'])
def test_what_is_no_table_is_refused(raw: bytes, tmp_path: Path) -> None:
    p = tmp_path / 'x.csv'
    p.write_bytes(raw)
    with pytest.raises(BadInput): read_sheet(p, 'OT')
    with pytest.raises(BadInput, match='no such file'): read_sheet(tmp_path / 'none.csv', 'OT')
    with pytest.raises(BadInput, match='expected a target among p .mbar., OT'): read_sheet(saved(frame(), tmp_path), 'ot')


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 200), st.integers(1, 40 * DAY // MINUTE))
def test_even_rows_have_their_step(rows: int, minutes: int) -> None:
    t = np.arange(rows, dtype=np.int64) * minutes * MINUTE
    assert step_of(t) == minutes * MINUTE or 28 * DAY <= minutes * MINUTE <= 31 * DAY
    assert season_of(t, minutes * MINUTE) >= 1


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PUBLISHED)), st.integers(1, 400), st.integers(1, 30_000), st.one_of(st.none(), st.integers(2, 800)))
def test_every_recipe_fits_its_rows_or_is_refused(model: str, horizon: int, rows: int, size: int | None) -> None:
    try: s = recipe(model, horizon, rows, input_size=size)
    except BadInput as e:
        assert e.expected is not None
        return
    assert s.input_size + s.horizon <= rows and s.type == model and level_free(s)
    assert size is None or s.input_size == size


def test_published_windows() -> None:
    known: dict[str, Any] = {m: recipe(m, 96, 8640) for m in PUBLISHED}
    p = known['patchtst']
    assert (p.input_size, p.hidden, p.option('heads'), p.option('ff_hidden'), p.option('dropout'), p.option('patch_steps'), p.option('stride_steps'), p.option('subtract_last')) == (512, (16, 16, 16), 4, 128, 0.3, 16, 8, False)
    assert known['nhits'].input_size == 480 and window(512, 96, 700) == 120
