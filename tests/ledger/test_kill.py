"A writer that is killed with -9: every commit that returned is there, and the chain is sound."
from __future__ import annotations

import random
import subprocess
import sys
import textwrap

import pytest

from gekko.ledger.events import Note
from gekko.ledger.journal import Journal, read_entries, verify

WRITER = textwrap.dedent('''
    import sys
    from gekko.ledger.events import Note
    from gekko.ledger.journal import Journal
    j = Journal.open(sys.argv[1], 'paper')
    n = j.head[0]
    while True:
        for _ in range(1 + n % 7): n += 1; j.append(Note('x' * (n * 37 % 900), {'n': n}), n)
        j.commit()
        sys.stdout.write(f'{n}\\n'); sys.stdout.flush()
''')


@pytest.mark.parametrize('seed', range(3))
def test_kill_nine_loses_no_commit_that_returned(url: str, seed: int) -> None:
    rng, reported = random.Random(seed), 0
    for _ in range(2):                                   # killed, started again on the same file, killed again
        p = subprocess.Popen([sys.executable, '-c', WRITER, url], stdout=subprocess.PIPE, text=True)
        assert p.stdout is not None
        for _ in range(rng.randrange(30, 200)): reported = int(p.stdout.readline())
        p.kill()
        rest = p.stdout.read().split()
        assert p.wait(10) == -9
        reported = int(rest[-1]) if rest else reported
        report = verify(url)
        assert report.ok, str(report)
        assert report.entries >= reported
        assert [e.data['data']['n'] for e in read_entries(url, 'paper')] == list(range(1, report.entries + 1))
    with Journal.open(url, 'paper') as j:                # and the next writer goes on from there
        j.append(Note('after'), 0)
    assert verify(url).entries == report.entries + 1
