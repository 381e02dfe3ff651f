"""A password in the ledger's address stays with the desk; reports of use are sent to nobody."""
from functools import partial
from pathlib import Path

import psutil
from desk_stage import LADDER, at_once, desk_of, ended, gekko, launch, ledger_of, notebook, ok, one_line, sound_book, told, wait_for

PASSWORD = 'correct-horse-battery'
NOSY = ("import os, sys, onnxruntime\nprint(dict(os.environ), sys.argv)", "from gekko.desk.config import load_settings\nprint(repr(load_settings()), load_settings().model_dump())",
        "print(run.__dict__)")


def test_a_password_is_found_nowhere(home: Path, store: Path, tmp_path: Path) -> None:
    address, user = f'{(ours := ledger_of(home))}{"&" if "?" in ours else "?"}password={PASSWORD}', tmp_path / 'user'
    user.mkdir()
    env = {'GEKKO_LEDGER': address, 'GEKKO_STORE': str(store), 'HOME': str(user), 'GEKKO_KERNEL': 'cold'}      # a user of its own would get a loading process of its own
    job = launch(home, 'run', notebook(tmp_path / 'nosy.ipynb', *LADDER, *NOSY), '--mode', 'paper', *told({'stop_at': 100, 'pulse': tmp_path / 'pulse', 'go': tmp_path / 'go'}), **env)
    kernel = int(wait_for(lambda: (tmp_path / 'pulse').exists() and (tmp_path / 'pulse').read_text(), 'the notebook half way'))
    for pid in (job.pid, kernel, desk_of(home)['pid']): assert PASSWORD not in ' '.join(psutil.Process(pid).cmdline())
    assert PASSWORD not in str(psutil.Process(kernel).environ())
    (tmp_path / 'go').touch()
    done = ended(job)
    said = [ok(done), done.stderr]
    run = one_line(gekko(home, 'runs', 'list', '--json', **env))[0]['run']
    asked = (('runs', 'show', run), ('runs', 'show', run, '--json'), ('runs', 'list'), ('ledger', 'verify'), ('desk', 'status'), ('doctor',), ('data', 'list'))
    for answer in at_once(*(partial(gekko, home, *words, **env) for words in asked)): said += [answer.stdout, answer.stderr]
    assert 'books agree' in said[2] and sound_book(home).fills
    assert not [text for text in said if PASSWORD in text]
    assert not [str(p) for p in home.rglob('*') if p.is_file() and PASSWORD.encode() in p.read_bytes()]

    assert (user / '.ipython').is_dir(), 'the kernel did have this folder as its home'
    assert not [str(p) for p in user.rglob('*') if 'onnx' in p.name or 'telemetry' in p.name or 'deviceid' in p.name]


def test_a_wrong_address_is_refused_without_repeating_it(home: Path) -> None:
    addresses = f'postgresql://desk:{PASSWORD}@nowhere.invalid/gekko', f'nosuch://desk:{PASSWORD}@host/gekko', f'postgresql://desk:{PASSWORD}@host:port/gekko'
    for refused in at_once(*(partial(gekko, home, *words, GEKKO_LEDGER=a) for a in addresses for words in (('ledger', 'verify'), ('runs', 'list', '--json')))):
        assert refused.returncode in (1, 2), (refused.args, refused.stdout, refused.stderr)
        assert PASSWORD not in refused.stdout + refused.stderr and 'Traceback' not in refused.stderr
