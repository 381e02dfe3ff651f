"""Training: nothing of the test reaches the weights, the same seed gives the same artefact, and what is said of it is what it does live."""
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gekko.compute.devices import Device
from gekko.compute.network import read
from gekko.compute.onnx import Onnx
from gekko.domain.errors import BadInput
from gekko.domain.time import SystemClock
from gekko.forecast.artefact import Artefact, load
from gekko.forecast.augment import Recipe
from gekko.forecast.calibration import read_calibration
from gekko.forecast.export import bare
from gekko.forecast.infer import Forecaster, opened
from gekko.forecast.network import Columns, quiet
from gekko.forecast.panel import asked, panel, ready
from gekko.forecast.recipes import recipe
from gekko.forecast.spec import ModelSpec
from gekko.forecast.splits import leaks, named, split
from gekko.forecast.training import Made, borders, learn, train, train_file

Values = NDArray[np.float64]
ROWS, L, H = 900, 24, 6
PARTS = split(ROWS, L, H, train=0.6, test=0.2)
PLAIN = ModelSpec(type='mlp', input_size=L, horizon=H, hidden=(16,), loss='mse', max_steps=30, batch_size=64, check_every_steps=5, patience=4, learning_rate=3e-3)
PATCHES = ModelSpec(type='patchtst', input_size=L, horizon=H, hidden=(8,), loss='mse', scaler='identity', max_steps=20, batch_size=64, check_every_steps=5, learning_rate=3e-3,
                    options=(('heads', 2), ('patch_steps', 8), ('stride_steps', 4), ('ff_hidden', 16), ('subtract_last', False)))


def waves(seed: int = 0) -> dict[str, Columns]:
    rng = np.random.default_rng(seed)
    day = np.sin(np.arange(ROWS) / 24 * 2 * np.pi)
    return {'load': {'y': 50 + 20 * day + rng.normal(0, 4, ROWS)}, 'price': {'y': 0.01 + 0.002 * day + rng.normal(0, 4e-4, ROWS)}}


def made(folder: Path, series: dict[str, Columns] | None = None, spec: ModelSpec = PLAIN, **more: Any) -> Made:
    said: dict[str, Any] = {'data_version': 'waves@1', 'code_hash': 'tests', 'about': 'load', 'season': 24, 'batches': (1,), 'slow': 6} | more
    return train(series or waves(), spec, PARTS, folder=folder, **said)


def weights(a: Artefact) -> bytes: return read(a.network, 'onnx', 1)
def live(a: Artefact) -> Forecaster: return opened(a, Onnx(Device('cpu')), SystemClock())


@pytest.fixture(scope='module')
def one(tmp_path_factory: pytest.TempPathFactory) -> Made: return made(tmp_path_factory.mktemp('made') / 'one')


@pytest.fixture(scope='module')
def patches(tmp_path_factory: pytest.TempPathFactory) -> Made: return made(tmp_path_factory.mktemp('made') / 'patches', spec=PATCHES)


def changed(rows: range) -> dict[str, Columns]:
    rng = np.random.default_rng(9)
    out = {}
    for n, s in waves().items():
        y = s['y'].copy()
        y[rows.start:rows.stop] = y.mean() + y.std() * rng.normal(size=len(rows)).cumsum()
        out[n] = {'y': y}
    return out


def test_the_same_seed_gives_the_same_artefact(one: Made, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    again = made(tmp_path / 'again', tell=lambda stage, share: told.append((stage, share)))
    assert again.artefact.digest == one.artefact.digest and weights(again.artefact) == weights(one.artefact) and again.scores == one.scores
    other = learn(replace(PLAIN, seed=2), panel(PLAIN, waves(), PARTS.train, 'load'), PARTS)
    assert other.curve != one.learnt.curve
    # and its progress went forward, through every stage
    order = ['train', 'judge', 'calibrate', 'export']
    assert [s for i, (s, _) in enumerate(told) if not i or told[i - 1][0] != s] == order and told == sorted(told, key=lambda t: (order.index(t[0]), t[1])) and all(0 <= share <= 1 for _, share in told)


def test_test_rows_change_no_weight_and_no_scale(one: Made, tmp_path: Path) -> None:
    far = made(tmp_path / 'far', changed(range(PARTS.test.targets.start, ROWS)))
    assert weights(far.artefact) == weights(one.artefact) and far.artefact.scaling == one.artefact.scaling and far.learnt.curve == one.learnt.curve
    assert far.scores['mse'] != one.scores['mse'], 'the test did change'
    a, b = (read_calibration(m.artefact) for m in (far, one))
    assert a.conformal == b.conformal and a.scale == b.scale and a.coverage != b.coverage


def test_validation_rows_change_no_scale_and_are_never_learnt(one: Made) -> None:
    assert PARTS.valid is not None
    later = changed(range(PARTS.train.targets.stop, ROWS))
    assert panel(PLAIN, later, PARTS.train, 'load').stored == one.artefact.scaling
    spec = replace(PLAIN, max_steps=7, check_every_steps=7, patience=0)      # one check, so that there is nothing to choose
    first, second = (learn(spec, panel(spec, s, PARTS.train, 'load'), PARTS) for s in (waves(), later))
    assert all(bool((a == b).all()) for a, b in zip(first.trained.model.state_dict().values(), second.trained.model.state_dict().values(), strict=True))
    assert first.loss != second.loss


def test_the_weights_kept_are_the_best_by_validation_and_training_stops() -> None:
    assert PARTS.valid is not None
    p = panel(PLAIN, changed(range(PARTS.train.targets.stop, ROWS)), PARTS.train, 'load')      # what is learnt does not help: validation gets worse soon
    l = learn(replace(PLAIN, max_steps=400, patience=3), p, PARTS)
    assert l.trained.steps < 400 and l.loss == min(v for _, v in l.curve) and l.curve[-1][0] == l.trained.steps == l.at + 15
    with quiet():
        r = ready(PLAIN, p, PARTS.valid)
        assert float(np.mean((asked(bare(l.trained), PLAIN, r) - r.actual) ** 2)) == pytest.approx(l.loss, rel=1e-12)


def test_augmented_copies_are_of_training_rows_alone(one: Made) -> None:
    a, b = (learn(PLAIN, panel(PLAIN, s, PARTS.train, 'load'), PARTS, augment=Recipe(copies=1)) for s in (waves(), changed(range(PARTS.test.targets.start, ROWS))))
    assert a.curve == b.curve != one.learnt.curve and a.windows > one.learnt.windows


def test_what_is_said_is_what_the_artefact_does_live(one: Made) -> None:
    """The score of the lineage, computed again from the artefact on disk and raw rows of the one series, as a live user has them."""
    y = waves()['load']['y']
    origins = range(PARTS.test.first, PARTS.test.last + 1)
    said = live(load(one.artefact.path)).forecast(np.stack([y[o - L:o] for o in origins])).point
    deviation = y[:PARTS.train.targets.stop].std()
    assert float(np.mean(((said - np.stack([y[o:o + H] for o in origins])) / deviation) ** 2)) == pytest.approx(one.scores['mse'], rel=1e-4)
    assert one.scores['windows'] == len(origins) and one.artefact.scaling.of('y') == (y[:PARTS.train.targets.stop].mean(), deviation)


@pytest.mark.parametrize('which', ['one', 'patches'])
def test_a_shift_and_a_scale_of_what_it_is_fed_go_through_unchanged(which: str, request: pytest.FixtureRequest) -> None:
    """So the artefact serves raw values of any column, though it keeps the scale of one: here the other column's, and a price in other money."""
    m: Made = request.getfixturevalue(which)
    f, price = live(m.artefact), waves()['price']['y']
    at = np.arange(PARTS.test.first, PARTS.test.last, 7)
    raw = np.stack([price[o - L:o] for o in at])
    mean, scale = m.panel.scales['price']
    r = ready(m.trained.spec, m.panel, PARTS.test, 7, ('price',))
    own = asked(bare(m.trained), m.trained.spec, r)[:len(at)] * scale + mean
    assert np.ptp(own) > 0
    for shift, factor, within in ((-mean + 50 * scale, 20 / scale, 2e-3), (0.0, 1e4, 2e-2)):      # to the target's size; and far from it
        there = f.forecast((raw + shift) * factor).point / factor - shift
        assert np.abs(there - own).max() < within * np.ptp(raw, axis=1).mean()


def test_a_network_that_knows_its_level_has_one_scale_for_all() -> None:
    p = panel(replace(PLAIN, scaler='identity'), waves(), PARTS.train, 'load')
    assert len(set(p.scales.values())) == 1 and p.stored.of('y') == p.scales['price']


def test_features_and_quantiles(tmp_path: Path) -> None:
    hours = np.arange(ROWS)
    series = {n: {**s, 'volume': 5 + np.cos(hours / 9), 'hour': hours % 24.0} for n, s in waves().items()}
    spec = ModelSpec(type='nhits', input_size=L, horizon=H, hidden=(16,), max_steps=10, batch_size=64, check_every_steps=5, past=('volume',), future=('hour',), loss='quantiles', quantiles=(0.1, 0.5, 0.9))
    m = made(tmp_path / 'nhits', series, spec, augment=Recipe(), about='', target='close')
    o = PARTS.test.first
    s = series['load']
    said = live(m.artefact).forecast(s['y'][None, o - L:o], s['volume'][None, o - L:o, None], s['hour'][None, o - L:o + H, None])
    assert said.values.shape == (1, H, 3) and m.artefact.scaling.of('hour')[0] == (hours[:PARTS.train.targets.stop] % 24).mean()
    assert read_calibration(m.artefact).target == 'close' and m.judged.own == m.judged.all


def test_calibrated_by_validation_and_measured_on_the_test(one: Made) -> None:
    c = read_calibration(one.artefact)
    assert PARTS.valid is not None and c.conformal.n == len(PARTS.valid) and c.horizon == H and c.baseline == one.judged.best and c.beats == one.judged.beats
    assert abs(c.coverage['0.8'] - 0.8) < 0.08 and abs(c.coverage['0.95'] - 0.95) < 0.05 and one.scores['coverage80'] == c.coverage['0.8']


def test_without_validation_nothing_is_chosen_and_nothing_calibrated(tmp_path: Path) -> None:
    m = train(waves(), replace(PLAIN, max_steps=6), split(ROWS, L, H, train=0.8, test=0.2), folder=tmp_path / 'x', data_version='1', code_hash='2', about='price', batches=(1,), slow=6)
    assert m.learnt.curve == () and m.learnt.at == m.trained.steps == 6 and m.calibration is None and m.artefact.calibration is None and 'validation' not in m.scores


def test_refused_before_anything_is_trained(one: Made, tmp_path: Path) -> None:
    told: list[str] = []
    for what, series, folder in (('free', waves(), one.artefact.path), ('one length', {**waves(), 'short': {'y': np.arange(800.0)}}, tmp_path / 'a'), ('change', {'load': {'y': np.ones(ROWS)}}, tmp_path / 'b'), ('finite', {'load': {'y': np.full(ROWS, np.nan)}}, tmp_path / 'c')):
        with pytest.raises(BadInput, match=what): made(folder, series, tell=lambda stage, share: told.append(stage))
    with pytest.raises(BadInput, match='expected load, price'): made(tmp_path / 'd', about='gold')
    assert told == [] and not any(tmp_path.iterdir())


def test_a_file_with_published_borders(shared_data: Path | None, tmp_path: Path) -> None:
    """A network that learnt almost nothing, on the published windows: its baselines are those measured before, and every figure is of the test part."""
    if not shared_data: return
    r = train_file(shared_data / 'etth1.parquet', 'OT', 96, 'mlp', folder=tmp_path / 'x', input_size=96, max_steps=8, batches=(1,), slow=20, code_hash='tests')
    assert r == json.loads(json.dumps(r, allow_nan=False))
    s = r['split']
    assert (s['name'], s['test']['windows'], s['train']['from'], s['valid']['from'], s['test']['from'], s['test']['to']) == ('ett-hourly', 2785, '2016-07-05T00:00:00Z', '2017-06-26T00:00:00Z', '2017-10-24T00:00:00Z', '2018-02-20T23:00:00Z')
    b = r['baselines']
    assert (round(b['naive']['all']['mse'], 3), round(b['seasonal naive 24']['all']['mse'], 3)) == (1.294, 0.512)
    assert (b['theta 24']['OT']['windows'], b['theta 24']['all']['windows']) == (19, 35) and r['scores']['all']['windows'] == 7 * 2785 and r['scores']['OT']['windows'] == 2785
    assert set(r['coverage']) == {'80', '95'} and r['data']['version'].startswith('sha256:9a4d9d57') and r['seed'] == 1 and not r['beats'] and 'does not beat' in r['verdict']
    a = load(Path(r['artefact']['folder']), r['artefact']['digest'])
    assert a.lineage.data_version == r['data']['version'] and a.lineage.code_hash == 'tests' and dict(a.lineage.scores)['mse_all'] == r['scores']['all']['mse']


def test_any_other_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    day = np.sin(np.arange(1000) / 48 * 2 * np.pi)
    lines = [f'2020-01-{1 + i // 48:02} {i % 48 // 2:02}:{i % 2 * 30:02},{1013 + day[i] + rng.normal() / 5:.3f},{rng.normal() if i > 750 else 0.0},,{20 + 5 * day[i] + rng.normal():.3f}' for i in range(1000) if i not in (5, 700)]
    p = tmp_path / 'w.csv'
    p.write_text('ds,p (mbar),rain,none,T (degC)\n' + '\n'.join(lines) + '\n')
    both = train_file(p, 'T (degC)', 8, 'patchtst', folder=tmp_path / 'a', max_steps=4, batches=(1,), slow=5)
    alone = train_file(p, 'T (degC)', 8, 'mlp', folder=tmp_path / 'b', max_steps=4, batches=(1,), slow=5, panel=False)
    assert both['data']['columns'] == ['p (mbar)', 'T (degC)'] and alone['data']['columns'] == ['T (degC)']
    assert (both['data']['rows'], both['data']['season'], both['data']['step_s'], both['split']['name']) == (1000, 48, 1800.0, '70/10/20')
    for words in ('2 rows were missing', 'rain: always the same in training', 'none:'): assert words in ' | '.join(both['data']['notes'])
    assert both['scores']['T (degC)']['own_mae'] > both['scores']['T (degC)']['mae'] and math.isfinite(both['skill']['value'])


def test_a_baseline_that_is_never_wrong(tmp_path: Path) -> None:
    """A square wave, three times as high from before the validation on: the last season is the answer. The network is further off than it deviated in training, and no number is divided by nothing."""
    wave = np.where(np.arange(1500) % 24 < 12, 0.0, 1.0) * np.where(np.arange(1500) >= 960, 3.0, 1.0)
    p = tmp_path / 'w.csv'
    p.write_text('ds,x\n' + '\n'.join(f'{np.datetime64("2020-01-01T00:00") + np.timedelta64(i, "h")},{v}' for i, v in enumerate(wave)) + '\n')
    r = train_file(p, 'x', 6, 'mlp', folder=tmp_path / 'a', max_steps=1, batches=(1,), slow=5)
    assert r['scores']['x']['mse'] > 1 and r['baselines']['seasonal naive 24']['x']['mse'] == 0
    assert not r['beats'] and r['skill'] is None and r['verdict'].startswith('does not beat seasonal naive 24') and r['verdict'].endswith('on x: never wrong on the test windows')
    assert 'skill' not in dict(load(Path(r['artefact']['folder'])).lineage.scores)


def test_files_and_wishes_that_are_refused(tmp_path: Path) -> None:
    p = tmp_path / 'x.csv'
    p.write_text('date,OT\n' + '\n'.join(f'2020-01-{1 + i // 24:02} {i % 24:02}:00,{i % 7 + i % 5}' for i in range(700)) + '\n')
    def tried(target: str = 'OT', horizon: Any = 6, model: str = 'mlp', **more: Any) -> dict[str, Any]: return train_file(p, target, horizon, model, folder=tmp_path / 'a', **more)
    for said, call in (('expected a target among OT', lambda: tried('HUFL')), ('960 or more for a horizon of 96', lambda: tried(horizon=96)), ('1 or more', lambda: tried(horizon=0)), ('expected patchtst, nhits', lambda: tried(model='gpt')),
                       ('14400 or more', lambda: tried(split='ett-hourly')), ('expected auto', lambda: tried(split='halves')), ('training rows', lambda: tried(input_size=600))):
        with pytest.raises(BadInput, match=said): call()
    assert [f.name for f in tmp_path.iterdir()] == ['x.csv']


def test_published_borders_do_not_leak_targets() -> None:
    s = named('ett-hourly', 17420, 512, 96)
    assert s.train.targets.stop == 8640 and s.valid is not None and s.valid.targets.start == 8640 and s.test.targets.start == 11520
    assert leaks(s) and not leaks(PARTS)      # their inputs may hold training rows, which is their habit; ours may not
    assert recipe('patchtst', 96, 8640).input_size == 512 and borders is not None


def test_a_search_before_the_training_sees_no_test_row_and_goes_on(tmp_path: Path) -> None:
    import pandas as pd
    y = waves()['load']['y']

    def file(name: str, tail: float) -> Path:
        shown = y.copy()
        shown[-100:] *= tail      # of the last fifth, the test
        pd.DataFrame({'date': pd.date_range('2024-01-01', periods=ROWS, freq='h'), 'load': shown}).to_csv(tmp_path / name, index=False)
        return tmp_path / name
    asked: dict[str, Any] = {'input_size': 24, 'max_steps': 4, 'threads': 1, 'trials': 2, 'batches': (1,), 'slow': 6}
    one = train_file(file('a.csv', 1.0), 'load', 6, 'mlp', folder=tmp_path / 'a', study=tmp_path / 'a.db', **asked)
    two = train_file(file('b.csv', 3.0), 'load', 6, 'mlp', folder=tmp_path / 'b', study=tmp_path / 'b.db', **asked)
    again = train_file(tmp_path / 'a.csv', 'load', 6, 'mlp', folder=tmp_path / 'c', study=tmp_path / 'a.db', **asked)
    assert one['spec'] == two['spec'] == again['spec'] and again['artefact']['digest'] == one['artefact']['digest']
    with pytest.raises(BadInput, match='a file to keep it in'): train_file(tmp_path / 'a.csv', 'load', 6, 'mlp', folder=tmp_path / 'd', **asked)
