"""Imports go down only, and every library is declared."""
import ast
import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tree import ROOT, imported, imports

# What a room may import besides itself: rooms, or single modules of a room that are its port.
MAY = {
    'domain': (),
    'data': ('domain',),
    'compute': ('domain',),
    'forecast': ('domain', 'data', 'compute'),
    'portfolio': ('domain', 'data'),
    'risk': ('domain', 'data'),
    'execution': ('domain', 'risk.gate'),
    'ledger': ('domain',),
    # the ports of feed and broker, the pure router over several venues, and what it takes to play a desk when an adapter is checked
    'venue': ('domain', 'data.feed', 'data.dialect', 'data.stream', 'execution.broker', 'execution.ids', 'execution.reconcile', 'execution.router', 'execution.tracker', 'risk.gate', 'risk.limits'),
}
for _room in ('desk', 'research', 'jobs', 'ops', 'control', 'cli'): MAY[_room] = tuple(MAY)   # all above
SURFACE = ('api',)   # the quant's names, gathered from the rooms; no room looks back at it


def broken(found: tuple[tuple[str, int, str], ...]) -> list[str]:
    out = []
    for module, line, what in found:
        room, target = module.split('.')[0], what.removeprefix('gekko').removeprefix('.')
        if what.split('.')[0] != 'gekko' or module in ('', *SURFACE): continue
        if room not in MAY: out.append(f'gekko.{module}: {room} is not a room of the design')
        elif not any(target == a or target.startswith(a + '.') for a in (room, *MAY[room])) and target != '':
            out.append(f'gekko.{module}, line {line}: {room} may not import {what}')
    return out


def test_imports_go_down_only() -> None:
    assert broken(imported()) == []


def test_the_rule_sees_every_form_of_import() -> None:
    known = frozenset({'risk', 'risk.gate', 'risk.limits', 'desk', 'desk.client', 'execution.x'})
    text = '''
from ..risk.gate import Approved
from ..risk import gate, limits
def f():
    import gekko.desk.client
    from gekko import desk
    import importlib; importlib.import_module('gekko.desk')
'''
    found = tuple(('execution.x', line, what) for line, what in imports(ast.parse(text), 'execution.x', False, known))
    assert [b.split('import ')[1] for b in broken(found)] == ['gekko.risk.limits', 'gekko.desk.client', 'gekko.desk', 'gekko.desk']


def test_the_domain_needs_the_standard_library_alone() -> None:
    outside = [f'gekko.{m}, line {line}: {what}' for m, line, what in imported()
               if m.split('.')[0] == 'domain' and what.split('.')[0] not in sys.stdlib_module_names | {'gekko'}]
    assert outside == []


def requirements() -> list[Requirement]:
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    return [Requirement(r) for key in ('requirements', 'dev_requirements') for r in cfg['DEFAULT'][key].split()]


def test_every_library_is_declared() -> None:
    declared, dists = {canonicalize_name(r.name) for r in requirements()}, packages_distributions()
    unnamed = {what.split('.')[0]: f'gekko.{m}, line {line}' for m, line, what in imported()
               if (top := what.split('.')[0]) not in sys.stdlib_module_names | {'gekko'}
               and not {canonicalize_name(d) for d in dists.get(top, [top])} & declared}
    assert unnamed == {}, 'imported, but not among the requirements of settings.ini'


def test_the_lock_pins_what_is_declared() -> None:
    lines = [x for x in (ROOT / 'requirements.lock').read_text(encoding='utf-8').splitlines() if x and not x.startswith('#')]
    pins = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}
    assert [x for x in lines if not re.fullmatch(r'[A-Za-z0-9._-]+==[^+;]+( ; .+)?', x)] == [], 'each line is one exact version, no local build'
    assert len(pins) == len(lines), 'a package stands twice'
    loose = [str(r) for r in requirements() if not (s := pins.get(canonicalize_name(r.name))) or not r.specifier.contains(str(s).removeprefix('=='))]
    assert loose == [], 'declared, but not pinned to a version that fits'
