"""A file of the user's own: imported, looked at, traded, and noticed when it has grown."""
from pathlib import Path

import pandas as pd
from desk_stage import STRATEGIES, bars, gekko, ladder, ok, one_line, only_run, result_of, sound_book


def test_a_month_of_minutes_is_imported_and_traded(home: Path, tmp_path: Path, shared_data: Path | None) -> None:
    if shared_data: file = shared_data / 'btc_perp_1m_202201.parquet'
    else: bars(1500, start='2022-01-31', price=38_000).to_parquet(file := tmp_path / 'btc.parquet')
    said = one_line(gekko(home, 'data', 'import', file, '--symbol', 'BTC-PERP', '--bar', '1m', '--json'))
    assert said['rows'] == len(pd.read_parquet(file))
    (listed,) = (s for s in one_line(gekko(home, 'data', 'list', '--json')) if s['source'] == 'store')
    assert (listed['symbol'], listed['bar'], listed['rows']) == ('BTC-PERP', '1m', said['rows'])
    done = one_line(gekko(home, 'run', STRATEGIES / 'first.ipynb', '-p', 'symbols', 'BTC-PERP', '-p', 'start', '2022-01-31T20:00', '--mode', 'paper', '--json'))
    result, record = result_of(only_run(home)), only_run(home)
    assert done['state'] == 'done' and result.symbols == ('BTC-PERP',) and result.bar == '1m' and result.fills
    assert sound_book(home).equity == result.final_equity and record.data_version == result.data_version


def test_a_backtest_again_after_the_file_has_grown(home: Path, tmp_path: Path) -> None:
    def bring(rows: int) -> None:
        bars().head(rows).to_csv(tmp_path / f'{rows}.csv', index=False)
        ok(gekko(home, 'data', 'import', tmp_path / f'{rows}.csv', '--symbol', 'MINE', '--bar', '1m'))
    bring(100)
    first = one_line(gekko(home, 'run', ladder(tmp_path), '-p', 'symbols', 'MINE', '--json'))
    bring(120)
    again = one_line(gekko(home, 'runs', 'rerun', first['run_id'], '--json'), code=1)
    assert not again['identical'] and again['changed_inputs'] == ['data_version']
