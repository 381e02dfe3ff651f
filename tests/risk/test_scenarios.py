"""Scenario files: what is shipped is whole, what a user writes is read, what is wrong is named."""
from pathlib import Path

import pytest

from gekko.domain.errors import BadInput
from gekko.domain.time import DAY, utc
from gekko.risk.scenarios import KINDS, Scenario, load_proxies, load_scenarios, scenario_of, shipped

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_set():
    every = {s.name: s for s in load_scenarios()}
    assert {s.kind for s in every.values()} == set(KINDS)
    for year in (2000, 2008, 2010, 2011, 2015, 2018, 2020):
        assert any(s.kind == 'historical' and utc(f'{year}-01-01') <= s.start < utc(f'{year + 1}-01-01') for s in every.values()), year
    assert all(s.title for s in every.values())
    assert (every['pandemic-2020'].start, every['pandemic-2020'].end) == (utc('2020-02-20'), utc('2020-03-24'))


def test_the_file_travels_with_the_package():
    assert shipped() == ROOT / 'gekko/risk/scenarios.toml'
    assert "'gekko.risk': ['scenarios.toml']" in (ROOT / 'setup.py').read_text(encoding='utf-8')


def test_a_later_file_replaces_by_name(tmp_path):
    a, b = tmp_path / 'a.toml', tmp_path / 'b.toml'
    a.write_text('[proxy]\nX = ["SP500", 1]\n[[scenario]]\nname="mine"\nkind="shock"\nshocks={X=-0.1}\n')
    b.write_text('[proxy]\nX = ["WTI", 0.5]\n[[scenario]]\nname="mine"\nkind="shock"\nshocks={X=-0.2}\n[[scenario]]\nname="lehman-2008"\nkind="historical"\nstart=2008-09-01\nend="2008-12-31"\nscale=1.5\n')
    got = {s.name: s for s in load_scenarios(a, str(b))}
    assert got['mine'].shocks == {'X': -0.2} and got['lehman-2008'] == Scenario('lehman-2008', 'historical', start=utc('2008-09-01'), end=utc('2009-01-01'), scale=1.5)
    assert [s.name for s in load_scenarios(a, with_shipped=False)] == ['mine'] and len(load_scenarios(a, b)) == len(load_scenarios()) + 1
    assert load_proxies(a, b) == {'X': ('WTI', 0.5)} and load_proxies() == {}


SHOCK = '[[scenario]]\nname="a"\nkind="shock"\n'


@pytest.mark.parametrize(('text', 'said'), [
    ('x = 1\ny = = 2', 'not TOML.*line 2'), ('scenarios = 1', r'unknown key: expected scenario\?'), ('scenario = 3', r'\[\[scenario\]\]'), ('scenario = [3]', r'\[\[scenario\]\]'),
    ('[[scenario]]\nkind="shock"', "scenario 1: expected a name"), ('[[scenario]]\nname="a"', "scenario 1 'a': expected a name, and a kind"), ('[[scenario]]\nname=3\nkind="shock"', 'scenario 1 3'),
    (SHOCK, 'no shocks'), (SHOCK + 'shocks=3', 'shocks: expected a table'), (SHOCK + 'shocks={A="x"}', 'shock of A: expected a number'), (SHOCK + 'shocks={A=true}', 'shock of A: expected a number'),
    (SHOCK + 'shocks={A=nan}', 'shock of A: expected a number'), (SHOCK + 'shocks={A=-1.01}', 'shock of A: expected -1 or more'), (SHOCK + 'shocks={}', 'a shock of nothing'),
    (SHOCK + 'shocks={A=-0.1}\nrest="betas"', 'rest: expected still beta'), (SHOCK + 'shocks={A=-0.1}\nscael=2', r'unknown key: expected scale\?, found scael'), (SHOCK + 'shocks={A=-0.1}\ntitle=3', 'title: expected text'),
    (SHOCK + 'shocks={A=-0.1}\nproxy={B="A"}', 'proxy: B'), (SHOCK + 'shocks={A=-0.1}\nproxy={B=["A", inf]}', 'beta of B'), (SHOCK + 'shocks={A=-0.1}\nscale=-1', 'scale: expected 0 or more'),
    ('[[scenario]]\nname="h"\nkind="historical"\nstart=2008-01-01', 'no end'), ('[[scenario]]\nname="h"\nkind="historical"\nstart=2008-01-02\nend=2008-01-01', 'days in no order'),
    ('[[scenario]]\nname="h"\nkind="historical"\nstart="soon"\nend=2008-01-01', 'start: expected a day'), ('[[scenario]]\nname="h"\nkind="historical"\nstart=2008-01-01T10:00:00\nend=2008-01-02', 'start: expected a day'),
    ('[[scenario]]\nname="c"\nkind="correlation"\nto=1.5', 'to: expected -1 to 1'), ('[[scenario]]\nname="c"\nkind="correlation"\nto=0\nby=2', 'by: expected 0 to 1'),
    ('[[scenario]]\nname="c"\nkind="correlation"\nto="x"', 'to: expected a number'), ((SHOCK + 'shocks={A=-0.1}\n') * 2, 'a scenario twice.*found a'), ('[proxy]\nX=["A"]', 'proxy: X'),
])
def test_a_wrong_file_is_named_with_its_fault(tmp_path, text, said):
    path = tmp_path / 'wrong.toml'
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as e:
        load_scenarios(path)
        load_proxies(path)
    assert str(path) in str(e.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match='No such file'): load_scenarios(tmp_path / 'none.toml')
    (tmp_path / 'bytes.toml').write_bytes(b'\xff\xfe')
    with pytest.raises(BadInput, match='not TOML'): load_scenarios(tmp_path / 'bytes.toml')


def test_one_day_is_a_window():
    s = scenario_of({'name': 'd', 'kind': 'historical', 'start': '2010-05-06', 'end': '2010-05-06'})
    assert s.end - s.start == DAY and str(s) == 'd: 2010-05-06 to 2010-05-06'
