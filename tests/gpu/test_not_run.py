"""What was not run is listed, with a reason, and the list is exactly what the hardware explains: no check is left out in silence, none is excused that could have run."""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from gekko.compute.devices import probe_cuda, probe_mps
from gekko.compute.onnx import ENGINES, runtime

HERE = Path(__file__).parent
FILES = ['test_cuda.py', 'test_metal.py']


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--color=no', *words], cwd=HERE, capture_output=True, text=True, check=False, timeout=600)


def reasons() -> dict[str, str]:
    """By the fixture that a check asks for, why it can't be had here; '' when it can."""
    cards, mps = probe_cuda(), probe_mps()[0]
    no_card = '' if any(d.usable for d in cards) else cards[0].why_not
    no_engine = '' if ENGINES['cuda'] in runtime().get_available_providers() else f'this build of ONNX Runtime has no {ENGINES["cuda"]}'
    return {'card': no_card, 'onnx_card': no_card or no_engine, 'metal': mps.why_not}


def asks() -> dict[str, str]:
    """Each check of this folder by name, with the hardware that it asks for, read from its source."""
    out = {}
    for file in FILES:
        for name, arguments in re.findall(r'^def (test_\w+)\(([^)]*)\)', (HERE / file).read_text(encoding='utf-8'), re.M):
            out[f'{file}::{name}'] = next(w for w in ('onnx_card', 'card', 'metal') if re.search(rf'\b{w}: Device', arguments))
    return out


def test_the_list_is_what_the_hardware_explains() -> None:
    done = run(*FILES)
    listed = {re.sub(r'\[.*', '', n.split('/')[-1]): why for n, why in re.findall(r'^NOT RUN (\S+?(?:\[[^\]]*\])?): (.*)$', done.stdout, re.M)}
    expected = {name: why for name, what in asks().items() if (why := reasons()[what])}
    assert listed == expected and len(asks()) >= 13, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    counted = re.search(r'(\d+) not run', done.stdout)
    assert bool(counted) == bool(expected) and 'skipped' not in done.stdout and 'failed' not in done.stdout


def test_each_is_counted_once_and_none_among_what_passed() -> None:
    done = run(*FILES, '-vv')
    assert len(re.findall(r'^\S+ NOT RUN', done.stdout, re.M)) == len(re.findall(r'^NOT RUN ', done.stdout, re.M))
    if all(reasons().values()): assert ' passed' not in done.stdout
