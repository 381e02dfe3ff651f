"""A password in the ledger's address stays with the desk, and a secret that a notebook was given is in nothing that is written; reports of use are sent to nobody."""
import base64
import html
import json
import urllib.parse
from functools import partial
from pathlib import Path

import psutil
from desk_stage import LADDER, at_once, desk_of, ended, gekko, launch, ledger_of, notebook, ok, one_line, only_run, sound_book, told, wait_for

from gekko.jobs.queue import Queue, queue_url
from gekko.venue.wire.secret import MASK

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


PLANTED = 'pl4nted<"correct&horse\\\\-battery/9Qx7'.replace('\\\\', '\\')
LEAKS = ("""mode = 'backtest'
vendor_token = ''
quoted: 'secret' = ''
symbols = ['WALK']""", """import base64, html, json, os, sys, urllib.parse, psutil
import pandas as pd
from decimal import Decimal
from IPython.display import HTML, display
from gekko.api import open_run
from gekko.jobs.references import secret
key = secret(vendor_token).reveal()
assert key == secret(quoted).reveal() and len(key) > 20
run = open_run(symbols, mode=mode, window=5)""", """print(key, repr(key), json.dumps({'a': key}), urllib.parse.quote(key), base64.b64encode(f'me:{key}'.encode()).decode(), key.encode().hex())
print(key, file=sys.stderr)
os.write(2, f'past the notebook: {key}\\n'.encode())
print(dict(os.environ))
print('in ps:', sum(key in ' '.join(p.info['cmdline'] or []) for p in psutil.process_iter(['cmdline'])))""", """display(HTML(f'<a title="{html.escape(key)}">{key}</a>'), {'application/json': {key: [key]}}, raw=False)
display({'application/json': {key: [key]}, 'text/plain': key}, raw=True)
pd.DataFrame({'key': [key] * 3, 'page': [key + 'x' * 80] * 3})""", """for n, bars in enumerate(run):
    if n == 9: raise ValueError(f'refused with {key}')
    run.target(units={'WALK': Decimal(n + 1)})""")
LEFT = 'left-by-somebody-in-the-environment'
FORMS = (LEFT.encode(), *(f.encode() for k in (PLANTED,) for f in (k, repr(k)[1:-1], json.dumps(k)[1:-1], json.dumps(repr(k))[2:-2], html.escape(k), json.dumps(html.escape(k))[1:-1], urllib.parse.quote(k), k.encode().hex(), base64.b64encode(b'me:' + k.encode()).decode()[4:-4])))


def leaking(home: Path, tmp_path: Path) -> tuple[Path, tuple[str, ...], dict[str, str]]:
    """A notebook that shows what it was given in every way, its parameters, and the environment with the secret."""
    kept = tmp_path / 'keys'
    kept.write_text(PLANTED + '\n')
    kept.chmod(0o600)
    return notebook(tmp_path / 'leaks.ipynb', *LEAKS), ('-p', 'vendor_token', 'env:VENDOR_TOKEN', '-p', 'quoted', f'file:{kept}'), {'VENDOR_TOKEN': PLANTED, 'CLOUD_API_KEY': LEFT}


def written_in(folder: Path) -> list[str]:
    """Files that hold the secret in any form, or the end of it."""
    return [str(p) for p in folder.rglob('*') if p.is_file() and any(f in (raw := p.read_bytes()) or PLANTED[-12:].encode() in raw for f in FORMS)]


def failing_cell(home: Path) -> str:
    """The executed notebook, whose secrets are blotted out and whose failing cell is marked."""
    text = Path(only_run(home).executed).read_text()
    cells = json.loads(text)['cells']
    assert text.count(MASK) > 15 and 'in ps: 0' in text
    states = [c['metadata']['papermill']['status'] for c in cells if c['cell_type'] == 'code']
    assert states[-2:] == ['completed', 'failed'], states
    return json.dumps([c for c in cells if 'papermill-error-cell-tag' in c['metadata'].get('tags', [])])


def test_a_notebook_that_shows_its_secret_in_every_way_leaves_none_of_it(home: Path, store: Path, tmp_path: Path) -> None:
    leaks, words, env = leaking(home, tmp_path)
    done = gekko(home, 'run', leaks, *words, '--json', GEKKO_STORE=str(store), **env)
    assert done.returncode == 1 and f'refused with {MASK}' in one_line(done, 1)['exit_reason']
    said = [done.stdout + done.stderr, *(ok(gekko(home, 'runs', *w)) for w in (('list',), ('show', only_run(home).run_id, '--json')))]
    assert not [t for t in said if any(f.decode() in t for f in FORMS)]
    assert written_in(home) == [] and 'An Exception was encountered' in failing_cell(home)
    assert f'past the notebook: {MASK}' in (Path(only_run(home).executed).parent / 'kernel.log').read_text()
    assert only_run(home).params['vendor_token'] == 'env:VENDOR_TOKEN'


def test_nor_does_a_scheduled_one_that_trades(home: Path, store: Path, tmp_path: Path) -> None:
    leaks, words, env = leaking(home, tmp_path)
    ok(gekko(home, 'schedule', 'add', 'leaks', leaks, *words, '--every', '30d', '--mode', 'paper', GEKKO_STORE=str(store)))
    worker = launch(home, 'schedule', 'serve', '--json', GEKKO_STORE=str(store), **env)
    try:
        ok(gekko(home, 'schedule', 'now', 'leaks'))
        job = wait_for(lambda: next((d for d in Queue(queue_url(ledger_of(home))).jobs('leaks', 1) if d.state not in ('queued', 'running')), None), 'the job is over', 240)
    finally: worker.terminate()
    done = ended(worker, 240)
    assert job.state == 'failed' and f'refused with {MASK}' in job.reason and sound_book(home).fills
    said = [done.stdout + done.stderr, *(ok(gekko(home, 'schedule', *w)) for w in (('list',), ('history', '--json'), ('show', 'leaks')))]
    assert not [t for t in said if any(f.decode() in t for f in FORMS)]
    assert written_in(home) == [] and 'An Exception was encountered' in failing_cell(home)


def test_a_secret_itself_is_refused_and_not_repeated(home: Path, store: Path, tmp_path: Path) -> None:
    leaks, _, _ = leaking(home, tmp_path)
    (given := tmp_path / 'given.yaml').write_text(f"vendor_token: '{PLANTED}'\n")
    literal = ('run', leaks, '-p', 'vendor_token', PLANTED), ('run', leaks, '-p', 'vendor_token', PLANTED, '-p', 'vendor_token', PLANTED), ('run', leaks, '-f', given), ('schedule', 'add', 'x', leaks, '--every', '1d', '-p', 'quoted', PLANTED)
    for refused in at_once(*(partial(gekko, home, *words) for words in literal)):
        assert refused.returncode == 2 and PLANTED not in refused.stdout + refused.stderr and PLANTED[-12:] not in refused.stderr, refused.stderr
        assert 'twice' in refused.stderr or 'env:' in refused.stderr and 'file:/PATH' in refused.stderr
    gone = gekko(home, 'run', leaks, '-p', 'vendor_token', 'env:NOT_THERE', GEKKO_STORE=str(store))
    assert gone.returncode == 2 and 'the secret env:NOT_THERE' in gone.stderr
    assert not (home / 'runs').exists() and written_in(home) == []
