"""The models as a manager sees them: figures are the registry's, reasons are true and in order, and whatever is damaged, full or hostile is a sentence."""
from __future__ import annotations

import math
import re
import resource
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from desk_stage import BIN, environ, gekko, one_line, settings_of
from hypothesis import given, settings as tries, strategies as st
from model_stage import month

from gekko.cli.models import deploy_here, endpoints_here, measure_here, shown_day, undeploy_here
from gekko.data.store import Store
from gekko.desk.config import Settings
from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.time import DAY, HOUR, MINUTE, SECOND, SimClock, iso, utc
from gekko.forecast.chain import BadJournal
from gekko.forecast.drift import Measure
from gekko.forecast.registry import Registry
from gekko.forecast.stages import Day, Entry
from gekko.forecast.vertex_server import VertexServer
from gekko.ops.modelboard import ModelBoard, headline_html, model_html, models_html, ordered, show
from gekko.ops.modelcharts import chart, coverage_chart, drift_html, error_chart, latency_chart, slots, strip, ticks
from gekko.ops.models import Mark, ModelEye, ModelLook, Seen, chance, closes, lived, measure, plain, reasons, record_of, verdict

TODAY = utc('2026-03-02')
NOW = TODAY + 18 * HOUR + 7 * MINUTE
HOSTILE = '<img src=x onerror=alert(1)>'


@pytest.fixture(scope='module')
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-five days, measured up to the day before yesterday."""
    folder = tmp_path_factory.mktemp('past')
    month(settings_of(folder / 'home'), TODAY, NOW, last=2)
    return folder / 'home'


@pytest.fixture
def lived_in(past: Path, tmp_path: Path) -> Settings:
    """A copy of it, to be broken."""
    shutil.copytree(past, tmp_path / 'home')
    return settings_of(tmp_path / 'home')


def day(k: int, verdict: str = 'ok', why: str = '', **figures: float) -> Day:
    return Day(iso(TODAY - k * DAY)[:10], verdict, why, {'mae': 0.9, 'naive': 1.0, 'coverage': 0.8, 'level': 0.8, 'judged': 24.0, 'missing': 0.0} | figures, {'ETH': (0.0, 0.0, 0.0)}, 5)


def entry(stage: str = 'live', days: Sequence[Day] = (), **other: Any) -> Entry:
    return Entry(**{'name': 'eth', 'version': 1, 'digest': 'ab' * 32, 'stage': stage, 'since': TODAY - 60 * DAY, 'by': 'ada', 'why': 'fit', 'beats': True, 'against': '', 'scores': {}, 'spec': 'nhits 24>6', 'added': TODAY - 60 * DAY, 'days': tuple(days)} | other)


def whys(s: Seen, now: int = NOW) -> list[str]: return [why for _, why in reasons(s, now)]


# What came

def test_closes_are_the_stores_of_every_length_and_the_shortest_speaks(tmp_path: Path) -> None:
    store, at = Store(tmp_path / 'store'), pd.date_range('2026-03-01', periods=24, freq='h', tz='UTC')
    def frame(t: Any, close: Any) -> pd.DataFrame: return pd.DataFrame({'timestamp': t, 'open': close, 'high': close, 'low': close, 'close': close, 'volume': 1.0})
    store.write('BTC', '1h', frame(at[:12], np.arange(12.0) + 1), Instrument('BTC', 'BTC', 'USD'))
    store.write('BTC', '6h', frame(at[::6], np.array([106.0, 112.0, 118.0, 124.0])), Instrument('BTC', 'BTC', 'USD'))
    ends, values = closes(store)('BTC', utc('2026-03-01'), utc('2026-03-02'))
    got = dict(zip(((np.asarray(ends) - utc('2026-03-01')) // HOUR).tolist(), np.asarray(values).tolist()))
    assert got == {**{h: float(h) for h in range(1, 13)}, 18: 118.0, 24: 124.0}, 'hours where there are any, else the longer bar'
    assert len(closes(store)('BTC', utc('2027-01-01'), utc('2027-01-02'))[0]) == 0
    with pytest.raises(BadInput, match='unknown symbol'): closes(store)('XBT', 0, 1)


def test_a_day_is_measured_with_what_the_store_says(lived_in: Settings) -> None:
    clock = SimClock(NOW)
    name, found = measure(lived_in, clock)
    assert name == '2026-03-01' and [(d.ref, d.judged, d.missing, d.demoted) for d in found] == [('btc#1', 24, 0, False), ('eth#1', 24, 0, True)]
    again = measure(lived_in, clock)[1]
    assert [d.demoted for d in again] == [False, False] and len(Registry(lived_in.home / 'models', clock).get('btc').days) == 45
    with pytest.raises(BadInput, match='not over'): measure(lived_in, clock, '2026-03-02')


def test_without_a_record_a_model_in_use_is_a_refusal_and_none_is_none(lived_in: Settings, tmp_path: Path) -> None:
    for p in record_of(lived_in).parent.glob('forecasts.db*'): p.unlink()
    with pytest.raises(BadInput, match='no forecast was ever recorded'): measure(lived_in, SimClock(NOW))
    assert measure(settings_of(tmp_path / 'fresh'), SimClock(NOW)) == ('2026-03-01', ())
    assert not (tmp_path / 'fresh').exists(), 'asking makes nothing'


# Figures

@given(st.sampled_from([0.5, 0.8, 0.95]), st.integers(1, 400))
@tries(max_examples=60, deadline=None)
def test_the_band_of_chance_is_the_binomials(level: float, n: int) -> None:
    def p(k: int) -> float: return math.comb(n, k) * level**k * (1 - level)**(n - k)
    low, high = (round(x * n) for x in chance(level, n))
    assert sum(map(p, range(low))) <= 0.025 + 1e-9 < sum(map(p, range(low + 1))) + 2e-9
    assert sum(map(p, range(high + 1, n + 1))) <= 0.025 + 1e-9 < sum(map(p, range(high, n + 1))) + 2e-9


def test_days_weigh_by_their_forecasts_and_overlapping_ones_count_once() -> None:
    l = lived([day(3, mae=0.5, judged=10.0, coverage=1.0), day(2, mae=1.5, judged=30.0, coverage=0.6), day(1, 'unknown', judged=0.0)], 6 * HOUR)
    assert (l.days, l.judged, l.better, l.worth) == (2, 40, 1, 8.0) and l.skill == pytest.approx(1 - 50 / 40) and l.coverage == pytest.approx(0.7)
    assert lived([day(1)], 2 * DAY).worth == 0.5, 'two days ahead, each day: every second one is news'
    assert lived([day(1, judged=1.0)], HOUR).worth == 1.0
    assert lived([], HOUR).skill is None and lived([day(1, 'unknown', judged=0.0)], HOUR).coverage is None


# Reasons

def test_a_quiet_model_gives_no_reason_and_each_trouble_its_own() -> None:
    fine = [day(k) for k in range(30, 0, -1)]
    assert whys(Seen(entry(days=fine), reach=6 * HOUR)) == []
    assert whys(Seen(entry(days=[*fine[:-1], day(1, 'drifted', 'ETH: drifted; errors grow 13.2 (marks 8, 12)')]))) == ['it drifted on 2026-03-01: its errors are larger than at training']
    assert 'somebody' not in str(whys(Seen(entry('paper', days=[*fine[:-1], day(1, 'watch', 'x')])))) and whys(Seen(entry('paper', days=[*fine[:-1], day(1, 'watch', 'x')]))) == []
    assert whys(Seen(entry(days=[*fine[:-1], day(1, 'watch', 'ETH: watch; coverage 2.3 (marks 2, 4)')]))) == ['it was unlike its training on 2026-03-01: its intervals held too seldom or too often']
    assert whys(Seen(entry(days=[*fine[:-1], day(1, 'unknown', 'no forecasts were recorded')]))) == ['it could not be measured on 2026-03-01: no forecasts were recorded']
    assert whys(Seen(entry())) == ['it was never measured'] and whys(Seen(entry(added=TODAY - HOUR, since=TODAY - HOUR))) == []
    assert whys(Seen(entry(days=[day(k, mae=1.02) for k in range(30, 0, -1)]))) == ['it was worse than no forecast at all over its last 30 days: skill \N{MINUS SIGN}2.0%']
    assert whys(Seen(entry(days=[day(k, coverage=0.6) for k in range(30, 0, -1)]), reach=6 * HOUR)) == ['it kept 60.0% of its intervals over its last 30 days, 80% were promised']
    assert whys(Seen(entry(days=[day(k, coverage=0.6) for k in range(30, 0, -1)]), reach=3 * DAY)) == [], 'ten forecasts that stand for themselves say nothing'
    assert whys(Seen(entry(days=fine), {'forecasts': 100.0, 'none': 0.02, 'last': 0.06, 'fallback': 0.3})) == ['it gave no answer to 2% of what it was asked today', 'it answered with an earlier forecast 6% of what it was asked today', 'another provider than the first had to answer 30% of what it was asked today']
    assert whys(Seen(entry(days=fine), {'forecasts': 3.0, 'none': 1.0})) == []
    assert whys(Seen(entry(days=fine), trouble='torn')) == ['it cannot be read: torn']


def test_the_night_has_six_hours_to_measure() -> None:
    s = Seen(entry(days=[day(k) for k in range(30, 1, -1)]))
    assert whys(s, TODAY + 5 * HOUR) == [] and whys(s, TODAY + 7 * HOUR) == ['it has not been measured since 2026-02-28']


def test_live_and_pressing_comes_first() -> None:
    bad, fine = [day(1, 'drifted', 'x')], [day(1)]
    paper, live, well = Seen(entry('paper', bad, name='a')), Seen(entry('live', bad, name='b')), Seen(entry('live', fine, name='c'))
    put_back = Seen(entry('paper', bad, name='d', by='drift', why='ETH: drifted; volatility ks 0.5 (marks 0.1, 0.25)'))
    look = ModelLook(NOW, tuple(s.entry for s in (paper, live, well, put_back)), (paper, live, well, put_back))
    assert [(n, ref) for n, ref, _ in look.reasons] == [(2, 'b#1'), (2, 'd#1'), (1, 'a#1')]
    assert verdict(look) == ('over', 'Look at b#1: it drifted on 2026-03-01: x. And at 2 other models.')
    assert verdict(replace(look, seen=(well,))) == ('within', 'All fine. 1 model makes forecasts with money behind them; none of them drifts.')
    assert verdict(replace(look, seen=(put_back,)))[1].endswith('put back on paper on 2026-01-01: its input volatility is not what it was at training.')
    assert verdict(replace(look, seen=()))[0] == 'idle'


@given(st.text(max_size=300))
@tries(max_examples=200, deadline=None)
def test_any_reason_is_said_and_short(why: str) -> None: assert len(plain(why, 160)) <= max(160, len(why)) and (plain(why) or not why.strip('\n'))


# Pictures

@given(st.floats(-1e9, 1e9), st.floats(1e-9, 1e9))
@tries(max_examples=200, deadline=None)
def test_an_axis_has_few_round_numbers_within_it(low: float, wide: float) -> None:
    found = ticks(low, low + wide)
    assert len(found) <= 5 and all(low - abs(wide) * 1e-6 - abs(low) * 1e-9 <= t <= low + wide * (1 + 1e-6) + abs(low) * 1e-9 for t in found)


def test_gaps_stay_gaps_and_the_same_days_give_the_same_picture() -> None:
    days = [day(20), day(19), *(day(k) for k in range(9, 0, -1))]
    assert [d is None for _, d in slots(days)][2:11] == [True] * 9 and len(slots(days)) == 20 and slots([day(200), day(1)])[0][0] == iso(TODAY - 90 * DAY)[:10]
    assert error_chart(days) == error_chart(list(days)) and error_chart(days).count('class="gk-model" d="M0.5') == 1
    for picture in (error_chart([]), coverage_chart([], HOUR), latency_chart([]), strip([])): assert 'svg' not in picture
    flat = error_chart([day(k, mae=1.0, naive=1.0) for k in range(20, 0, -1)])
    assert 'nan' not in flat and 'inf' not in flat
    assert 'nan' not in coverage_chart([day(1, coverage=1.0)], 0) and 'nan' not in chart('x', 'y', ['a'], []).lower()


# The page

def test_the_page_shows_what_the_registry_says(lived_in: Settings) -> None:
    clock = SimClock(NOW)
    look = ModelEye(lived_in, clock).look()
    btc, eth = look.seen
    assert verdict(look)[1].startswith('Look at eth#1: it drifted on 2026-02-28') and btc.heard == TODAY + 18 * HOUR and btc.today['forecasts'] == 19
    assert {m.what for m in btc.marks} == {'errors lean', 'errors grow', 'log_return psi', 'log_return ks'} and all(m.measure.verdict == 'ok' for m in btc.marks)
    assert eth.marks[1].what == 'errors grow' and eth.marks[1].measure.verdict == 'drifted'
    assert [r['decided'] for r in look.story] == ['is retired', 'was added', 'was added', 'goes live', 'goes on paper', 'was added', 'goes live', 'goes on paper', 'was added']
    assert math.isclose(lived(btc.entry.days, btc.reach).coverage or 0, 0.8, abs_tol=0.05), 'days of a good model keep its intervals'
    board = ModelBoard(lived_in, clock=clock)
    board.refresh()
    board.eye.clock = board.clock = SimClock(NOW)
    widgets = [p.value for p in board.parts.values()]
    board.refresh()
    assert [p.value for p in board.parts.values()] == widgets and board.pulse.title == 'look now · models'


def test_what_is_written_later_is_seen_and_a_look_costs_little_when_nothing_is(lived_in: Settings) -> None:
    clock = SimClock(NOW)
    eye = ModelEye(lived_in, clock)
    first = eye.look()
    assert eye.glance() == first and eye.due is None
    Registry(lived_in.home / 'models', clock).move('sol', 'paper', 'ada', 'let us see')
    clock.advance(SECOND)
    quick = eye.glance()      # before its artefact and answers are read, it is there, and nothing false is said of it
    assert [(s.entry.name, s.pending) for s in quick.seen] == [('btc', False), ('eth', False), ('sol', True)] and reasons(quick.seen[2], NOW) == () and 'reading' in model_html(quick.seen[2])
    assert not any(s.pending for s in eye.look().seen)
    assert [s.entry.name for s in eye.look().seen] == ['btc', 'eth', 'sol'] and eye.look().story[0]['why'] == 'let us see'


def test_damage_is_a_sentence(lived_in: Settings) -> None:
    clock, models = SimClock(NOW), lived_in.home / 'models'
    eye = ModelEye(lived_in, clock)
    digest = eye.look().entries[0].digest
    network = next((models / 'artefacts' / digest).rglob('*.onnx'))
    network.chmod(0o644)
    network.write_bytes(b'PK' + network.read_bytes())
    clock.advance(2 * MINUTE)
    assert verdict(eye.look())[1].startswith('Look at btc#1: it cannot be read: ')
    with record_of(lived_in).open('r+b') as f:
        f.seek(5000)
        f.write(b'\xff' * 200_000)      # the first page is whole: it opens, and fails in the middle
    clock.advance(2 * MINUTE)
    look = eye.look()
    assert 'The record of forecasts cannot be read' in look.alarms[0] and len(look.seen) == 2 and 'gk-alarm' in headline_html(look)
    journal = models / 'journal.jsonl'
    journal.write_bytes(journal.read_bytes()[:-400] + b'\n')
    with pytest.raises(BadJournal): eye.look()
    board = ModelBoard(lived_in, clock=clock)
    board.refresh()
    assert 'cannot be trusted' in board.head.value and 'Nothing is shown' in board.head.value and 'Traceback' not in board.head.value and board.models.value == ''
    journal.unlink()
    journal.mkdir()
    board.refresh()
    assert 'role="alert"' in board.head.value


def test_a_full_disk_is_said_before_it_costs_something(lived_in: Settings) -> None:
    low = ModelEye(lived_in, SimClock(NOW), free=lambda home: 3_000_000).look()
    assert low.alarms == ('The disk of this home is full (3 MB left): forecasts and decisions may not be written down.',) and len(low.seen) == 2
    assert ModelEye(lived_in, SimClock(NOW)).look().alarms == ()


def test_hostile_words_stay_words() -> None:
    e = entry(name='eth', spec=HOSTILE, why=HOSTILE, by=HOSTILE, against=HOSTILE, beats=False, days=[day(1, 'drifted', HOSTILE, **{f'{HOSTILE} p50 us': 1.0, f'{HOSTILE} p99 us': 2.0, 'forecasts': 3.0})])
    s = Seen(e, {'forecasts': 2.0, f'{HOSTILE} p50 us': 1.0, f'{HOSTILE} p99 us': 2.0}, (Mark(f'{HOSTILE} psi', HOSTILE, Measure('x', 1.0, 2.0, 3.0)), Mark('errors lean', 'B', Measure('x', 1.0, 2.0, 3.0))), trouble=HOSTILE)
    look = ModelLook(NOW, (e,), (s,), ({'time': NOW, 'model': HOSTILE, 'decided': HOSTILE, 'who': HOSTILE, 'why': HOSTILE},), (HOSTILE,))
    board = ModelBoard(settings_of(Path('nowhere')))
    show(board, look)
    page = ''.join(x.value for x in (board.head, board.models, board.story, *board.parts.values()))
    assert '<img' not in page and page.count('&lt;img') >= 10 and drift_html(s).count('&lt;img') >= 2 and model_html(s) in page and models_html(look) in page


def test_hundreds_of_retired_models_do_not_bury_the_live_one() -> None:
    many = [entry('retired', name=f'old{k}', digest=f'{k:064x}', since=TODAY - k * HOUR) for k in range(300)]
    shown, left = ordered([*many, entry('candidate'), entry('live', name='one')])
    assert [e.name for e in shown] == ['one', 'eth', 'old0', 'old1', 'old2', 'old3', 'old4'] and left == 295
    none = ModelLook(NOW, tuple(many))
    assert verdict(none)[0] == 'idle' and 'gk-figures' not in headline_html(none)


# The commands

def test_gekko_model_day_says_loudly_who_lost_its_place(lived_in: Settings, tmp_path: Path) -> None:
    done = gekko(lived_in.home, 'model', 'day', '2026-03-01')
    assert done.returncode == 0 and 'DEMOTED: eth#1 is back on paper' in done.stdout and re.search(r'btc#1 +live +ok', done.stdout), done
    said = one_line(gekko(lived_in.home, 'model', 'day', '2026-03-01', '--json'))
    assert said['demoted'] == [] and [r['verdict'] for r in said['models']] == ['ok', 'drifted'] and all(0 < r['error'] and 0 < r['naive'] and r['judged'] == 24 for r in said['models'])
    for wrong in ('2099-01-01', 'yesterday', '2026-02-30'):
        with pytest.raises(BadInput): measure_here(lived_in, wrong)
    assert 'no model is on paper or live' in shown_day(measure_here(settings_of(tmp_path / 'fresh')))


def test_a_full_disk_ends_the_day_s_command_with_1_and_changes_nothing(lived_in: Settings) -> None:
    journal = lived_in.home / 'models' / 'journal.jsonl'
    before = journal.read_bytes()
    def full() -> None: resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), len(before)))      # the journal may not grow by a byte
    done = subprocess.run([str(BIN / 'gekko'), 'model', 'day', '2026-03-01'], env=environ(lived_in.home), cwd=lived_in.home.parent, capture_output=True, text=True, timeout=120, preexec_fn=full)
    assert done.returncode == 1 and 'could not be written' in done.stderr and 'Traceback' not in done.stderr, done
    assert journal.read_bytes() == before
    assert 'DEMOTED' in gekko(lived_in.home, 'model', 'day', '2026-03-01').stdout, 'and with room it goes on'


def test_a_model_goes_to_the_cloud_and_comes_back(lived_in: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    off = gekko(lived_in.home, 'model', 'endpoints', GCP_PROJECT='')
    assert off.returncode == 2 and 'expected GCP_PROJECT' in off.stderr
    server = VertexServer()
    try:
        monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', str(server.account))
        here = lived_in.model_copy(update={'gcp_project': 'gekko-sandbox', 'vertex_url': server.rest, 'vertex_storage': server.rest})
        assert endpoints_here(here) == []
        put = deploy_here(here, 'btc@live', 'gs://gekko-models/desk', 'us-docker.pkg.dev/p/gekko/far:1', quiet=True)
        assert (put['model'], put['state'], put['nodes']) == ('btc#1', 'serving', 1)
        assert [r['endpoint'] for r in endpoints_here(here, 'btc')] == [put['endpoint']] and endpoints_here(here, 'eth') == []
        with pytest.raises(BadInput, match='--model'): undeploy_here(here, 'btc', bucket='gs://gekko-models/desk')
        gone = undeploy_here(here, put['artefact'][:8], quiet=True)
        assert put['endpoint'] in gone['ended'] and endpoints_here(here) == []
        assert len(undeploy_here(here, 'btc', model=True, bucket='gs://gekko-models/desk', quiet=True)['ended']) == 1, 'its model was still there'
    finally: server.close()
