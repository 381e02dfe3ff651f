"""The kill switch between real processes, on a real file system."""
import json
import os
import subprocess
import sys

import pytest

from gekko.domain.errors import BadInput
from gekko.risk.kill import KillSwitch, Trip


@pytest.fixture
def switch(tmp_path):
    return KillSwitch(tmp_path / 'run' / 'kill')


def test_off_until_thrown_and_on_for_everybody_until_reset(switch):
    assert (switch.tripped(), switch.reason(), switch.read()) == (False, '', None)
    assert switch.trip('prices look wrong', 'ada', 5) == Trip('prices look wrong', 'ada', 5)
    other = KillSwitch(str(switch.path))
    assert other.tripped() and other.reason() == 'prices look wrong' and 'on' in repr(other)
    assert other.reset('ben') == Trip('prices look wrong', 'ada', 5)
    assert (switch.tripped(), switch.reset('ben')) == (False, None)


def test_the_first_reason_stays(switch):
    switch.trip('first', 'ada')
    assert switch.trip('second', 'ben') == Trip('first', 'ada')
    assert switch.reason() == 'first' and os.listdir(switch.path.parent) == ['kill']


@pytest.mark.parametrize('text, reason', [('', 'thrown by hand, no reason given'), ('fire\n', 'fire'), ('{"reason": "half', '{"reason": "half'), ('[1]', '[1]'), ('null', 'null'),
                                          ('{"reason": "x"}', '{"reason": "x"}'), ('{"reason": "x", "who": "y", "ts": "z"}', '{"reason": "x", "who": "y", "ts": "z"}')])
def test_whatever_lies_there_is_a_reason(switch, text, reason):
    switch.path.parent.mkdir()
    switch.path.write_text(text)
    assert switch.tripped() and switch.reason() == reason


def test_bytes_that_are_no_text_count_too(switch):
    switch.path.parent.mkdir()
    switch.path.write_bytes(b'\xff\xfe\x00')
    assert switch.tripped() and switch.reason()


def test_in_doubt_it_is_on(switch):
    switch.path.parent.mkdir()
    switch.path.symlink_to(switch.path)    # a loop: the system cannot say what is there
    assert switch.tripped() and 'cannot be read' in switch.reason()
    switch.path.unlink()
    switch.path.mkdir()
    assert switch.tripped() and 'cannot be read' in switch.reason()


@pytest.mark.parametrize('reason, who', [('', 'ada'), ('fire', ''), ('  ', 'ada'), ('fire', '\n')])
def test_nobody_and_nothing_are_refused(switch, reason, who):
    with pytest.raises(BadInput): switch.trip(reason, who)
    assert not switch.tripped()


def test_a_reset_needs_a_name(switch):
    switch.trip('fire', 'ada')
    with pytest.raises(BadInput): switch.reset(' ')
    assert switch.tripped()


def test_a_place_that_cannot_be_written_raises_and_leaves_nothing(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError): KillSwitch(tmp_path / 'file' / 'kill').trip('fire', 'ada')
    assert os.listdir(tmp_path) == ['file']


THROW = '''
import sys, time
from gekko.risk.kill import KillSwitch
switch = KillSwitch(sys.argv[1])
print('ready', flush=True); sys.stdin.readline()
print(switch.trip('reason ' + sys.argv[2], 'process ' + sys.argv[2], int(sys.argv[2])).ts)
'''


def test_thrown_by_many_processes_at_once_it_is_thrown_once_and_whole(switch):
    crowd = [subprocess.Popen([sys.executable, '-c', THROW, str(switch.path), str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for n in range(6)]
    for p in crowd: assert p.stdout.readline() == 'ready\n'
    for p in crowd: p.stdin.write('\n'); p.stdin.flush()
    seen = {int(p.communicate(timeout=30)[0]) for p in crowd}
    won = switch.read()
    assert seen == {won.ts} and won == Trip(f'reason {won.ts}', f'process {won.ts}', won.ts)
    assert os.listdir(switch.path.parent) == ['kill'] and json.loads(switch.path.read_text())['who'] == won.who
