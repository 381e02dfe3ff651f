"""The registry: its rules hold whatever is asked in whatever order, and what it says is the replay of its journal."""
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gekko.domain.errors import BadInput, Reject
from gekko.domain.time import DAY, SimClock, iso, utc
from gekko.forecast.artefact import Artefact, BadArtefact, Lineage, save
from gekko.forecast.chain import BadJournal, Chain, lines_of
from gekko.forecast.drift import demotes
from gekko.forecast.registry import STAGES, Registry
from gekko.forecast.spec import ModelSpec
from gekko.forecast.stages import replayed

NOON = utc('2026-11-22T12:00:00')


def made(folder: Path, seed: int, calibration: dict[str, Any] | None = None) -> Artefact:
    return save(folder / f'made{seed}', ModelSpec(type='nhits', input_size=16, horizon=4, seed=seed), {'batch_1.onnx': b'\x08\x0a' + bytes([seed] * 100)},
                Lineage('bars@3', 'abc123', (('torch', '2'),), (('mae', 3.0 + seed),)), calibration=calibration or {'level': 0.8})


@pytest.fixture(scope='module')
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artefact]:
    folder = tmp_path_factory.mktemp('made')
    return [made(folder, i) for i in range(1, 9)]


@pytest.fixture
def models(tmp_path: Path) -> Registry: return Registry(tmp_path / 'models', SimClock(NOON))


def live(models: Registry, a: Artefact, name: str = 'eth') -> str:
    ref = models.add(a, name, by='ada', beats=True, against='theta').ref
    models.move(ref, 'paper', 'ada', 'fit')
    return models.move(ref, 'live', 'bob', 'fit').ref


def test_what_was_added_is_what_is_opened(models: Registry, artefacts: list[Artefact]) -> None:
    e = models.add(artefacts[0], 'eth', by='ada', beats=True, against='theta', note='first')
    assert (e.ref, e.stage, e.by, e.why, e.beats, e.against, e.scores, e.spec, e.added, e.marks) == ('eth#1', 'candidate', 'ada', 'first', True, 'theta', {'mae': 4.0}, 'nhits 16>4', NOON, ())
    found = models.open('eth')
    assert found.digest == artefacts[0].digest and found.path.parent == models.root / 'artefacts' and found.spec == artefacts[0].spec
    shutil.rmtree(made(models.root.parent, 77).path)
    assert models.open(e.digest[:8]) == models.open('eth#1') == models.open('eth@candidate')


def test_another_process_and_another_day_see_the_same(models: Registry, artefacts: list[Artefact]) -> None:
    ref = live(models, artefacts[0])
    models.note(ref, '2026-11-21', 'watch', {'mae': 3.5}, 'a little worse', {'ETH': (1.0, 2.0, 3.0)})
    again = Registry(models.root, SimClock(NOON + DAY))
    assert again.entries() == models.entries() and again.history('eth') == models.history('eth')
    assert again.get('eth').days[0].carried == {'ETH': (1.0, 2.0, 3.0)}


def test_an_entry_is_plain_data(models: Registry, artefacts: list[Artefact]) -> None:
    ref = live(models, artefacts[0])
    assert json.loads(json.dumps(asdict(models.note(ref, '2026-11-21', 'ok', {'mae': 1.0}))))['name'] == 'eth'


def test_the_same_artefact_twice_is_one_entry(models: Registry, artefacts: list[Artefact]) -> None:
    first = models.add(artefacts[0], 'eth', by='ada', beats=None)
    before = (models.root / 'journal.jsonl').read_bytes()
    assert models.add(artefacts[0], 'eth', by='bob', beats=None, note='again') == first
    with pytest.raises(BadInput, match='registered already: expected eth'): models.add(artefacts[0], 'btc', by='bob', beats=None)
    with pytest.raises(BadInput, match='beats None, found eth, beats True'): models.add(artefacts[0], 'eth', by='bob', beats=True)
    assert (models.root / 'journal.jsonl').read_bytes() == before


def test_a_model_that_beats_nothing_stays_on_paper(models: Registry, artefacts: list[Artefact]) -> None:
    for a, beats, mark in ((artefacts[0], False, 'does not beat seasonal naive 24'), (artefacts[1], None, 'not held against a baseline')):
        e = models.add(a, 'eth', by='ada', beats=beats, against='seasonal naive 24')
        assert e.marks == (mark,)
        models.move(e.ref, 'paper', 'ada', 'to be watched')
        with pytest.raises(Reject, match=f'may not go live: .*{mark}'): models.move(e.ref, 'live', 'ada', 'please')
        assert models.get(e.ref).stage == 'paper'


def test_going_live_retires_the_one_before_in_one_line(models: Registry, artefacts: list[Artefact]) -> None:
    live(models, artefacts[0])
    other = live(models, artefacts[1], 'btc')
    lines = (models.root / 'journal.jsonl').read_bytes().count(b'\n')
    live(models, artefacts[2])
    assert (models.root / 'journal.jsonl').read_bytes().count(b'\n') == lines + 3      # added, paper, live
    assert [(e.ref, e.stage) for e in models.entries('eth')] == [('eth#1', 'retired'), ('eth#2', 'live')]
    assert models.get(other).stage == 'live', 'another name is another matter'
    assert [x.what for x in models.history('eth#1')][-1] == 'replaced' and models.get('eth#1').why == 'replaced by eth#2'


def test_asking_twice_changes_nothing(models: Registry, artefacts: list[Artefact]) -> None:
    ref = live(models, artefacts[0])
    before = (models.root / 'journal.jsonl').read_bytes()
    assert models.move(ref, 'live', 'eve', 'again').by == 'bob'
    models.note(ref, '2026-11-21', 'ok', {'mae': 1.0})
    once = (models.root / 'journal.jsonl').read_bytes()
    models.note(ref, '2026-11-21', 'drifted', {'mae': 2.0})
    assert (models.root / 'journal.jsonl').read_bytes() == once != before


@pytest.mark.parametrize('said', [{'name': 'a b'}, {'name': ''}, {'name': 'deadbeef'}, {'name': 'x' * 65}, {'name': '../x'}, {'name': 'eth#1'}, {'by': ''}, {'by': 'a\nb'}, {'note': 'x' * 501}, {'beats': 1}])
def test_what_cannot_be_said_is_refused(models: Registry, artefacts: list[Artefact], said: dict[str, Any]) -> None:
    with pytest.raises(BadInput): models.add(artefacts[0], **{'name': 'eth', 'by': 'ada', 'beats': None} | said)
    assert not models.root.exists(), 'nothing was changed, not even a folder made'


def test_a_bare_name_moves_only_what_it_must_mean(models: Registry, artefacts: list[Artefact]) -> None:
    live(models, artefacts[0])
    models.add(artefacts[1], 'eth', by='ada', beats=True)
    with pytest.raises(BadInput, match=r'expected eth#1 \(live\) or eth#2 \(candidate\), found eth'): models.move('eth', 'paper', 'ada', 'drop')


def test_links_are_followed_to_the_registry_but_not_inside(models: Registry, artefacts: list[Artefact], tmp_path: Path) -> None:
    ref = live(models, artefacts[0])
    (tmp_path / 'link').symlink_to(models.root)
    by_link = Registry(tmp_path / 'link', SimClock(NOON))
    assert by_link.open(ref).digest == artefacts[0].digest
    place = models.root / 'artefacts' / artefacts[0].digest
    shutil.move(place, tmp_path / 'elsewhere')
    place.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(BadArtefact, match='found a link'): models.open(ref)
    assert not models.verify().ok
    assert models.add(artefacts[0], 'eth', by='ada', beats=True).ref == ref and models.open(ref).digest == artefacts[0].digest, 'a good copy heals it'
    assert (tmp_path / 'elsewhere' / 'spec.json').exists(), 'and what the link led to is untouched'


def test_a_file_where_the_registry_should_be(tmp_path: Path) -> None:
    (tmp_path / 'models').write_text('')
    with pytest.raises(BadInput, match='a registry is a folder'): Registry(tmp_path / 'models', SimClock(NOON))


def test_verify_says_what_is_wrong_and_what_is_odd(models: Registry, artefacts: list[Artefact]) -> None:
    assert models.verify().ok and models.verify().lines == 0
    ref = live(models, artefacts[0])
    shutil.copytree(artefacts[1].path, models.root / 'artefacts' / artefacts[1].digest)
    (models.root / 'artefacts' / '.draft-x').mkdir()
    v = models.verify()
    assert v.ok and len(v.odd) == 2 and 'never finished' in v.odd[0] and 'nobody refers to it' in v.odd[1]
    (models.root / 'artefacts' / artefacts[0].digest / 'spec.json').unlink()
    assert not models.verify().ok and ref in models.verify().bad[0]
    data = (models.root / 'journal.jsonl').read_bytes()
    (models.root / 'journal.jsonl').write_bytes(data.replace(b'"ada"', b'"eve"', 1))
    assert 'line 1 of the journal was altered' in models.verify().bad[0]


def test_a_day_that_was_unknown_may_be_told_later(models: Registry, artefacts: list[Artefact]) -> None:
    ref = live(models, artefacts[0])
    assert models.note(ref, '2026-11-20', 'unknown', {}, 'no prices').days[0].why == 'no prices'
    models.note(ref, '2026-11-20', 'unknown', {}, 'still none')
    assert models.note(ref, '2026-11-20', 'ok', {'mae': 1.0}).days[0].verdict == 'ok'
    assert [e.verdict for e in models.history(ref) if e.what == 'day'] == ['unknown', 'ok']


def test_days_before_it_went_live_again_are_forgiven(models: Registry, artefacts: list[Artefact]) -> None:
    ref = live(models, artefacts[0])
    stages = [models.note(ref, f'2026-11-1{i}', 'drifted', {}).stage for i in range(3)]
    assert stages == ['live', 'live', 'paper'] and models.get(ref).marks == ('drifted',)
    models.move(ref, 'live', 'bob', 'the venue had sent cents; mended')
    assert models.get(ref).marks == ('drifting',)
    assert [models.note(ref, f'2026-11-1{i}', 'drifted', {}).stage for i in range(3, 6)] == ['live', 'live', 'paper']
    models.move(ref, 'live', 'bob', 'again')
    assert [models.note(ref, f'2026-11-1{i}', v, {}).stage for i, v in ((6, 'drifted'), (7, 'drifted'), (8, 'unknown'), (9, 'drifted'))] == ['live', 'live', 'live', 'paper'], 'an unknown day breaks no row'


def test_what_is_said_is_on_the_disk_before_it_is_said(models: Registry, artefacts: list[Artefact], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the copy, then the line, then the head: in this order, each with an fsync of its own."""
    synced: list[int] = []
    real = os.fsync
    def noted(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        real(fd)
    monkeypatch.setattr(os, 'fsync', noted)
    live(models, artefacts[0])
    folder = models.open('eth').path
    copied = [p.stat().st_ino for p in (*folder.rglob('*'), folder)]
    journal, head = ((models.root / n).stat().st_ino for n in ('journal.jsonl', 'journal.jsonl.head'))
    assert set(copied) <= set(synced[:synced.index(journal)]) and synced.count(journal) == 3 and synced.index(journal) < len(synced) - 1 - synced[::-1].index(head)
    assert all(not p.stat().st_mode & 0o222 for p in folder.rglob('*') if p.is_file()), 'and nobody writes there by mistake'


class Rules(RuleBasedStateMachine):
    """Anything, asked in any order, against a model of the rules that knows only names, stages and verdicts."""
    artefacts: list[Artefact]
    root: Path
    run = 0

    def __init__(self) -> None:
        super().__init__()
        Rules.run += 1
        self.path = self.root / str(Rules.run)
        self.clock = SimClock(NOON)
        self.models = Registry(self.path, self.clock)
        self.stage: dict[str, str] = {}                    # by digest
        self.born: dict[str, tuple[str, int, bool | None]] = {}
        self.verdicts: dict[str, dict[str, str]] = {}      # since the last move

    def at(self, i: int) -> str | None: return list(self.stage)[i % len(self.stage)] if self.stage else None

    @rule(i=st.integers(0, 7), name=st.sampled_from(['eth', 'btc']), beats=st.sampled_from([True, True, False, None]))
    def add(self, i: int, name: str, beats: bool | None) -> None:
        a = self.artefacts[i]
        old = self.born.get(a.digest)
        if old and (old[0], old[2]) != (name, beats):
            with pytest.raises(BadInput): self.models.add(a, name, by='ada', beats=beats)
            return
        e = self.models.add(a, name, by='ada', beats=beats)
        if old: assert (e.version, e.stage) == (old[1], self.stage[a.digest])
        else:
            assert e.version == 1 + sum(n == name for n, _, _ in self.born.values()), 'versions rise by one and are never used again'
            self.born[a.digest], self.stage[a.digest], self.verdicts[a.digest] = (name, e.version, beats), 'candidate', {}

    @rule(i=st.integers(0, 7), to=st.sampled_from(STAGES))
    def move(self, i: int, to: str) -> None:
        self.clock.advance(1)
        if (d := self.at(i)) is None: return
        now, (name, version, beats) = self.stage[d], self.born[d]
        up = STAGES.index(to) - STAGES.index(now)
        refused = to != now and (now == 'retired' or (to != 'retired' and up > 1) or (to == 'live' and beats is not True))
        if refused:
            with pytest.raises(Reject): self.models.move(f'{name}#{version}', to, 'ada', 'asked')
            return
        self.models.move(f'{name}#{version}', to, 'ada', 'asked')
        if to == 'live' and now != 'live':
            for o, (n, _, _) in self.born.items():
                if n == name and self.stage[o] == 'live': self.stage[o] = 'retired'
        if to != now: self.stage[d], self.verdicts[d] = to, {}

    @rule(i=st.integers(0, 7), day=st.integers(1, 9), verdict=st.sampled_from(['drifted', 'drifted', 'drifted', 'ok', 'watch', 'unknown']))
    def note(self, i: int, day: int, verdict: str) -> None:
        if (d := self.at(i)) is None: return
        when = f'2026-11-0{day}'
        told = {x.day: x.verdict for x in self.models.get(d).days}.get(when)
        e = self.models.note(d, when, verdict, {'mae': 1.0})
        if told not in (None, 'unknown') or told == verdict == 'unknown': return
        self.verdicts[d][when] = verdict
        row = [v for _, v in sorted(self.verdicts[d].items()) if v != 'unknown']
        if verdict == 'drifted' and self.stage[d] == 'live' and demotes(row): self.stage[d], self.verdicts[d] = 'paper', {}
        assert e.stage == self.stage[d]

    @rule()
    def another_process(self) -> None: self.models = Registry(self.path, self.clock)

    @invariant()
    def state_is_what_the_model_says(self) -> None:
        found = self.models.entries()
        assert {e.digest: e.stage for e in found} == self.stage
        for name in ('eth', 'btc'): assert sum(e.stage == 'live' for e in found if e.name == name) <= 1, 'one live model a name'
        assert len({e.ref for e in found}) == len(found)
        assert all(e.beats is True for e in found if e.stage == 'live')

    @invariant()
    def state_is_the_replay_of_the_journal(self) -> None:
        journal = self.path / 'journal.jsonl'
        lines = lines_of(journal.read_bytes()) if journal.exists() else ()
        assert tuple(replayed(lines).values()) == self.models.entries()
        for n in range(len(lines)): assert sum(e.stage == 'live' for e in replayed(lines[:n]).values() if e.name == 'eth') <= 1, 'at no line were there two'

    def teardown(self) -> None: shutil.rmtree(self.path, ignore_errors=True)


def test_the_rules_hold_in_any_order(artefacts: list[Artefact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'fsync', lambda fd: None)      # what a power cut leaves is not the question here
    Rules.artefacts, Rules.root, Rules.run = artefacts, tmp_path, 0
    run_state_machine_as_test(Rules, settings=settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)))


@pytest.mark.parametrize('change', ['altered', 'removed', 'moved', 'newer', 'cut', 'doubled', 'blank'])
def test_a_journal_that_was_changed_is_refused_with_its_line(models: Registry, artefacts: list[Artefact], change: str) -> None:
    live(models, artefacts[0])
    path = models.root / 'journal.jsonl'
    a, b, c = path.read_bytes().splitlines(keepends=True)
    changed, line = {'altered': (a + b.replace(b'fit', b'fat') + c, 2), 'removed': (a + c, 2), 'moved': (a + c + b, 2), 'newer': (a + b + c.replace(b'"format":1', b'"format":2'), 3),
                     'cut': (a + b, 3), 'doubled': (a + b + b + c, 3), 'blank': (a + b + b'\n' + c, 3)}[change]
    path.write_bytes(changed)
    with pytest.raises(BadJournal, match={'newer': 'from a newer version: expected format 1 or older', 'removed': 'a line was removed or moved', 'moved': 'a line was removed or moved', 'cut': 'is gone'}.get(change, 'line')): models.entries()
    for ask in (lambda: models.get('eth'), lambda: models.move('eth', 'paper', 'ada', 'down'), models.entries, lambda: Registry(models.root, SimClock(NOON)).history('eth')):
        with pytest.raises(BadJournal, match=f'line {line} '): ask()
    assert path.read_bytes() == changed, 'and nobody mends it by overwriting'


def test_every_byte_counts(tmp_path: Path) -> None:
    journal = Chain(tmp_path / 'journal.jsonl', SimClock(NOON))
    for i in range(3): journal.append(lambda lines, i=i: {'what': 'x', 'i': i, 'text': 'ü "\\'})  # type: ignore[misc]
    whole = journal.path.read_bytes()
    first, second, _ = (len(x) for x in whole.splitlines(keepends=True))
    for at in range(len(whole)):
        journal.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        line = 1 if at < first else 2 if at < first + second else 3
        with pytest.raises(BadJournal) as e: Chain(journal.path, SimClock(NOON)).lines()
        assert f'line {line} ' in str(e.value), (at, str(e.value))


def test_the_chain_of_a_whole_year_is_read_in_no_time(tmp_path: Path) -> None:
    """No timed assertion: it reads what ten models write in a year, so that a rule that costs the square of the lines would be felt."""
    from gekko.forecast.chain import written
    data, before = [], ''
    for n in range(1, 3651):
        data.append(written(n, NOON + n * DAY, {'what': 'day', 'digest': 'ab' * 32, 'day': iso(NOON)[:10], 'verdict': 'ok', 'why': '', 'figures': {f'f{i}': i / 3 for i in range(12)}, 'carried': {}, 'stage': ''}, before))
        before = json.loads(data[-1])['hash']
    (tmp_path / 'journal.jsonl').write_bytes(b''.join(data))
    assert len(Chain(tmp_path / 'journal.jsonl', SimClock(NOON)).lines()) == 3650


def test_a_journal_without_its_head_is_not_called_whole(tmp_path: Path) -> None:
    """The last line and the head cut off together leave a chain that holds: that it may be short is said."""
    models = Registry(tmp_path / 'models', SimClock(utc('2026-11-01')))
    for k in range(2): models.add(made(tmp_path, k), 'oil', by='ana', beats=True)
    assert models.verify().ok
    path = models.root / 'journal.jsonl'
    models.move('oil#1', 'paper', 'ana', 'good')
    path.write_bytes(b''.join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (models.root / 'journal.jsonl.head').unlink()
    found = models.verify()
    assert not found.ok and 'head is gone' in found.bad[0]
