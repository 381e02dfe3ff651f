"""Kernels forked from a process that has everything loaded: like any other kernel to whoever starts them, and independent of each other and of what they came from."""
from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from gekko.domain.errors import BadInput
from gekko.jobs import warm
from gekko.jobs.kernelspec import spec
from gekko.jobs.prompt import BlockingPrompt
from gekko.jobs.request import Request, inherited, tell
from gekko.jobs.warm import Forked, Place

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='kernels are forked on Linux only')

FEW = ['ipykernel.kernelapp', 'ipykernel.ipkernel', 'IPython', 'numpy', 'numba', 'torch', 'threadpoolctl']
LOUD = 60.0      # seconds within which a busy machine does anything


def until(true: Callable[[], Any], what: str, seconds: float = LOUD) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := true(): return answer
        time.sleep(0.02)
    raise AssertionError(f'waited {seconds:g} s in vain for {what}')


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private folder for the sockets, and a specification of the kernel that loads a few things and waits for them."""
    here = tmp_path_factory.mktemp('warm')
    with pytest.MonkeyPatch.context() as m:
        for name in [n for n in os.environ if n.endswith('_NUM_THREADS')]: m.delenv(name)
        (here / 'run').mkdir(mode=0o700)
        m.setenv('XDG_RUNTIME_DIR', str(here / 'run'))
        m.setenv('JUPYTER_PATH', str(here / 'jupyter'))
        m.setenv('JUPYTER_RUNTIME_DIR', str(here / 'runtime'))
        m.setenv('IPYTHONDIR', str(here / 'ipython'))
        m.setenv('GEKKO_PLANTED', 'a secret of whoever starts the process')
        kernel(here, FEW)
        yield here
        for f in (here / 'run').rglob('warm-*.sock'): stop(Place((), (), str(f).removesuffix('.sock')))


def kernel(here: Path, preload: list[str], name: str = 'gekko') -> None:
    to = here / 'jupyter' / 'kernels' / name
    to.mkdir(parents=True, exist_ok=True)
    words = spec()
    words['metadata']['kernel_provisioner']['config'] = {'preload': preload, 'wait_s': LOUD}
    (to / 'kernel.json').write_text(json.dumps(words))


def stop(p: Place) -> None:
    if (said := warm.status(p)) is not None:
        with contextlib.suppress(ProcessLookupError): os.kill(said['pid'], signal.SIGKILL)


def home() -> Place: return warm.place(FEW)


@contextlib.contextmanager
def started(cwd: Path, name: str = 'gekko', warmly: bool = True, **kw: Any) -> Iterator[Any]:
    """A kernel and its client."""
    km = KernelManager(kernel_name=name, kernel_spec_manager=KernelSpecManager())
    km.start_kernel(cwd=str(cwd), **kw)
    kc = km.client()
    kc.start_channels()
    try:
        kc.wait_for_ready(timeout=LOUD)
        assert isinstance(km.provisioner.process, Forked) == warmly, km.provisioner.cold
        yield km, kc
    finally:
        kc.stop_channels()
        km.shutdown_kernel(now=True)


def said(kc: Any, code: str) -> str:
    """What the code prints; its error, when it raises one."""
    out: list[str] = []
    reply = kc.execute_interactive(code, timeout=LOUD, allow_stdin=False, output_hook=lambda m: out.append(m['content'].get('text', '')))
    assert reply['content']['status'] == 'ok', reply['content'].get('evalue')
    return ''.join(out).strip()


def test_a_kernel_is_forked_and_computes_in_parallel(stage: Path, tmp_path: Path) -> None:
    """A process that had ever begun a parallel region would leave its children waiting for threads that a fork does not copy."""
    for given, expected in (({}, len(os.sched_getaffinity(0))), ({'OMP_NUM_THREADS': '2'}, 2)):
        with started(tmp_path, env={**os.environ, **given}) as (km, kc):
            assert said(kc, 'import torch; x = torch.ones(600, 600); print(int((x @ x).sum()), torch.get_num_threads())') == f'216000000 {expected}'
            assert said(kc, 'import numba\n@numba.njit(parallel=True)\ndef f(n):\n    s = 0\n    for i in numba.prange(n): s += i\n    return s\nprint(f(10**6))') == '499999500000'
            assert said(kc, 'import numpy as np; x = np.ones((400, 400)); print(int((x @ x).sum()))') == '64000000'
            assert said(kc, "import threadpoolctl as t; print({x['num_threads'] for x in t.threadpool_info() if x['internal_api'] == 'openblas'})") == f'{{{expected}}}'
    assert len(os.listdir(f'/proc/{warm.status(home())["pid"]}/task')) == 1


def test_every_parallel_library_is_told_how_many_threads(stage: Path) -> None:
    """scikit-learn brings an OpenMP of its own, which nobody but it would tell."""
    code = 'import sklearn.utils._openmp_helpers, numpy, threadpoolctl as t; from gekko.jobs.child import pools, spread\n' \
           'n = lambda: sorted((x["user_api"], x["num_threads"]) for x in t.threadpool_info())\n' \
           'before, found = n(), pools(); spread({}, 2, found); print(before, n())'
    out = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, check=True).stdout
    before, after = eval(out.replace(')] [', ')], ['))
    assert {api for api, _ in before} == {'blas', 'openmp'} and {n for _, n in before} == {1} and {n for _, n in after} == {2}


def test_a_client_believes_the_kernel_that_is_ready(stage: Path, tmp_path: Path) -> None:
    """Nothing of the kernel's first words is left for the first cell to hear, though nobody listened to silence."""
    with started(tmp_path) as (km, kc):
        assert type(kc) is BlockingPrompt
        asked = kc.execute('print(1)')
        heard = [kc.get_iopub_msg(timeout=LOUD) for _ in range(4)]
        assert [m['msg_type'] for m in heard] == ['status', 'execute_input', 'stream', 'status'] and {m['parent_header']['msg_id'] for m in heard} == {asked}
        assert kc.get_shell_msg(timeout=LOUD)['parent_header']['msg_id'] == asked
        km.restart_kernel(now=True)
        kc.wait_for_ready(timeout=LOUD)
        assert said(kc, 'print(2)') == '2'


def test_it_is_a_process_like_a_cold_one(stage: Path, tmp_path: Path) -> None:
    """The same path of modules, folder, arguments, environment and limits, and the plain kernel's own words about them."""
    ask = 'import os, sys, resource, signal, json; print(json.dumps([sys.path, sys.argv[0], sys.executable, os.getcwd(), sorted(k for k in os.environ if k != "JPY_PARENT_PID"), os.getsid(0) == os.getpid(), ' \
          'resource.getrlimit(resource.RLIMIT_NOFILE), sorted(os.sched_getaffinity(0)), signal.getsignal(signal.SIGINT) is signal.default_int_handler, str(signal.getsignal(signal.SIGTERM)), __name__, ' \
          'os.nice(0), __import__("tempfile").gettempdir(), oct(os.umask(0o77)), [m for m in sys.modules if m.startswith("gekko")], sys.flags.safe_path, sys.stdin.closed, sys.dont_write_bytecode, sys.pycache_prefix]))'
    path = os.pathsep.join(('lib', str(tmp_path / 'more'), '', '../other', sys.path[-1]))      # from the kernel's folder, with an empty one and one that is there anyway
    env = {**os.environ, 'PYTHONPATH': path, 'TMPDIR': str(tmp_path), 'GEKKO_LIBRARY': 'yes', 'PYTHONDONTWRITEBYTECODE': '1', 'PYTHONPYCACHEPREFIX': str(tmp_path / 'pyc')}
    before = os.umask(0o027)
    try:
        with started(tmp_path, env=env) as (_, kc): forked = json.loads(said(kc, ask))
        with started(tmp_path, name='python3', warmly=False, env=env) as (_, kc): cold = json.loads(said(kc, ask))
    finally: os.umask(before)
    assert forked == cold


def test_what_it_came_from_knows_no_secret_and_no_one_else_may_ask(stage: Path) -> None:
    p = home()
    pid = warm.ready(p)['pid']
    environ = Path(f'/proc/{pid}/environ').read_bytes()
    assert b'GEKKO_PLANTED' not in environ and b'OMP_NUM_THREADS=1' in environ
    assert oct(os.stat(p.address).st_mode)[-3:] == '600' and oct(os.stat(Path(p.address).parent).st_mode)[-3:] == '700'


def test_random_numbers_are_each_kernels_own(stage: Path, tmp_path: Path) -> None:
    ask = 'import random, numpy as np, torch; print(random.random(), np.random.rand(), torch.rand(1).item(), hash("gekko"))'
    seen = []
    for _ in range(2):
        with started(tmp_path) as (_, kc): seen.append(said(kc, ask).split())
    assert all(a != b for a, b in zip(seen[0][:3], seen[1][:3])) and seen[0][3] == seen[1][3]


def test_it_is_interrupted_ended_crashed_and_restarted_alone(stage: Path, tmp_path: Path) -> None:
    with started(tmp_path) as (a, at_a), started(tmp_path) as (b, at_b):
        at_a.execute('import time\nprint("in it")\ntime.sleep(600)', stop_on_error=False)      # what comes after is not to be dropped
        assert until(lambda: any(m['content'].get('text') == 'in it\n' for m in [at_a.get_iopub_msg(timeout=LOUD)]), 'the cell')
        a.interrupt_kernel()
        while at_a.get_shell_msg(timeout=LOUD)['content'].get('ename') != 'KeyboardInterrupt': pass
        assert said(at_a, 'print(1)') == '1' and said(at_b, 'x = 2; print(x)') == '2'
        at_b.execute('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
        until(lambda: not b.is_alive(), 'the crash')
        assert b.provisioner.process is None or b.provisioner.process.poll() == -signal.SIGSEGV
        assert said(at_a, 'print(3)') == '3'
        pid = a.provisioner.pid
        a.restart_kernel(now=True)
        at_a.wait_for_ready(timeout=LOUD)
        assert a.provisioner.pid != pid and isinstance(a.provisioner.process, Forked) and said(at_a, 'print("x" in dir())') == 'False'


def test_a_kernel_lives_on_when_what_it_came_from_is_killed(stage: Path, tmp_path: Path) -> None:
    with started(tmp_path) as (a, at_a):
        first = warm.status(home())['pid']
        os.kill(first, signal.SIGKILL)
        until(lambda: warm.status(home()) is None, 'its end')
        assert said(at_a, 'print(1)') == '1' and a.is_alive()
        with started(tmp_path) as (b, at_b):      # waits for a new one, as its specification says
            assert said(at_b, 'print(2)') == '2'
            second = warm.status(home())
            assert second['pid'] != first and second['kernels'] == [b.provisioner.pid]
        assert said(at_a, 'print(3)') == '3'
        a.provisioner.process.kill()
        assert a.provisioner.process.wait(LOUD) == -9      # nobody lived to tell how: killed is what is said


@pytest.mark.parametrize('copied', [False, True])
def test_a_kernel_ends_with_its_client(stage: Path, tmp_path: Path, copied: bool) -> None:
    """Whoever started it is killed: it does not stay behind, at work or not, though a process that the client has forked still holds the line."""
    code = f"""
import os, sys, time
from jupyter_client.manager import KernelManager
from jupyter_client.kernelspec import KernelSpecManager
km = KernelManager(kernel_name='gekko', kernel_spec_manager=KernelSpecManager())
km.start_kernel(cwd={str(tmp_path)!r})
kc = km.client(); kc.start_channels(); kc.wait_for_ready(timeout={LOUD})
kc.execute('import re; re.match("(a+)+$", "a" * 40 + "b")')      # for ever, and no other thread gets its turn
copy = {copied} and os.fork()
if copy or not {copied}: print(km.provisioner.pid, type(km.provisioner.process).__name__, int(copy), flush=True)
time.sleep(600)
"""
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert p.stdout is not None
    pid, kind, copy = p.stdout.readline().split()
    assert kind == 'Forked' and psutil.pid_exists(int(pid))
    p.kill()
    p.wait()
    until(lambda: not psutil.pid_exists(int(pid)), 'the end of a kernel that nobody has')
    if copied: os.kill(int(copy), signal.SIGKILL)      # it was there all the time


def test_a_kernel_holds_nothing_of_another(stage: Path, tmp_path: Path) -> None:
    """What it came from knows all clients, and its children only their own: with a line left open, nobody would hear that a client has gone."""
    def of(pid: int) -> set[str]: return {x for f in Path(f'/proc/{pid}/fd').iterdir() if (x := os.readlink(f)).startswith('socket:')}
    with started(tmp_path) as (a, _), started(tmp_path) as (b, _):
        here, one, two = (of(n) for n in (warm.status(home())['pid'], a.provisioner.pid, b.provisioner.pid))
        assert len(here) >= 3 and len(here & one) == 1 == len(here & two) and not one & two


def test_nobody_waits_for_what_stands_still(stage: Path, tmp_path: Path) -> None:
    unhurried(stage)
    with started(tmp_path): pid = warm.status(home())['pid']
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: warm._stopped(pid), 'its standstill')
        with started(tmp_path, name='odd', warmly=False) as (km, kc): assert said(kc, 'print(1)') == '1' and km.provisioner.cold == 'the process that forks is stopped'
    finally: os.kill(pid, signal.SIGCONT)
    with started(tmp_path) as (_, kc): assert said(kc, 'print(2)') == '2'
    assert warm.status(home())['pid'] == pid


def unhurried(stage: Path, preload: list[str] = FEW) -> dict[str, Any]:
    """A second specification, `odd`, whose kernels wait for nothing: what it says."""
    kernel(stage, preload, 'odd')
    file = stage / 'jupyter' / 'kernels' / 'odd' / 'kernel.json'
    words = json.loads(file.read_text())
    words['metadata']['kernel_provisioner']['config']['wait_s'] = 0
    file.write_text(json.dumps(words))
    return words


def test_a_process_with_many_descriptors_can_wait_for_a_kernel(stage: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    p = subprocess.Popen(['sleep', '600'])
    try:
        first = os.pidfd_open(p.pid)
        far = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, 1500)
        os.close(first)
        mine, _ = socket.socketpair()
        k = Forked(p.pid, far, mine)
        assert k.poll() is None
        k.kill()
        assert k.wait(LOUD) == -9
    finally:
        p.kill()
        p.wait()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_many_at_once(stage: Path, tmp_path: Path) -> None:
    async def one(n: int) -> str:
        from jupyter_client.manager import AsyncKernelManager
        km = AsyncKernelManager(kernel_name='gekko', kernel_spec_manager=KernelSpecManager())
        await km.start_kernel(cwd=str(tmp_path))
        kc = km.client()
        kc.start_channels()
        await kc.wait_for_ready(timeout=LOUD)
        out: list[str] = []
        await kc.execute_interactive(f'print({n}**2)', timeout=LOUD, allow_stdin=False, output_hook=lambda m: out.append(m['content'].get('text', '')))
        kc.stop_channels()
        assert isinstance(km.provisioner.process, Forked)
        await km.shutdown_kernel(now=True)
        return ''.join(out).strip()
    async def all_of() -> list[str]: return await asyncio.gather(*[one(n) for n in range(8)])
    assert asyncio.run(all_of()) == [str(n**2) for n in range(8)]
    until(lambda: warm.status(home())['kernels'] == [], 'the end of all eight')


@pytest.mark.parametrize('odd', ['a shadow', 'a shadow on the path', 'a customization', 'an archive', 'a flag', 'a hash seed', 'another interpreter', 'not there', 'no place'])
def test_any_doubt_means_a_cold_kernel(stage: Path, tmp_path: Path, odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env, name = dict(os.environ), 'gekko'
    if odd == 'a shadow': (tmp_path / 'random.py').write_text('mine = 1\nfrom _random import Random\n')
    if odd == 'a shadow on the path':
        (tmp_path / 'lib' / 'numba').mkdir(parents=True)
        (tmp_path / 'lib' / 'numba' / '__init__.py').write_text('mine = 1')
        env['PYTHONPATH'] = str(tmp_path / 'lib')
    if odd in ('a customization', 'an archive'): env['PYTHONPATH'] = 'lib'      # seen from the kernel's folder
    if odd == 'a customization':
        (tmp_path / 'lib').mkdir()
        (tmp_path / 'lib' / 'sitecustomize.py').write_text('import builtins; builtins.customized = 1')
    if odd == 'an archive':
        with zipfile.ZipFile(tmp_path / 'lib', 'w') as z: z.writestr('numba.py', 'mine = 1')
    if odd == 'no place':
        (tmp_path / 'file').touch()
        monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path / 'file'))
        (tmp_path / f'gekko-{os.getuid()}').mkdir(mode=0o755)      # anybody may look into it
        monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
        with pytest.raises(BadInput, match='no place'): warm.place(FEW)
    if odd == 'a hash seed': env['PYTHONHASHSEED'] = '7'
    if odd in ('a flag', 'another interpreter', 'not there'):
        name, words = 'odd', unhurried(stage)
        file = stage / 'jupyter' / 'kernels' / name / 'kernel.json'
        if odd == 'a flag': words['argv'][1:1] = ['-X', 'importtime']
        if odd == 'another interpreter':
            (tmp_path / 'python').symlink_to(sys.executable)
            words['argv'][0], words['env'] = str(tmp_path / 'python'), {'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
        if odd == 'not there': words['metadata']['kernel_provisioner']['config']['preload'] = ['ipykernel.kernelapp', 'wave']
        file.write_text(json.dumps(words))
    with started(tmp_path, name=name, warmly=False, env=env) as (_, kc):
        assert said(kc, 'print(1)') == '1'
        if odd == 'a hash seed': assert said(kc, 'print(hash("gekko"))') == str(seeded('gekko'))
        if odd in ('a shadow on the path', 'an archive'): assert said(kc, 'import numba; print(numba.mine)') == '1'
        if odd == 'a customization': assert said(kc, 'print(customized)') == '1'


def seeded(text: str) -> int:
    return int(subprocess.run([sys.executable, '-c', f'print(hash({text!r}))'], env={**os.environ, 'PYTHONHASHSEED': '7'}, capture_output=True, text=True, check=True).stdout)


def test_an_upgrade_makes_it_give_up_its_place(stage: Path, tmp_path: Path) -> None:
    """A package is installed: kernels live on, the next come from a process that has read the files anew."""
    with started(tmp_path) as (_, kc):
        first = warm.status(home())['pid']
        site = next(Path(p) for p in sys.path if p.endswith('site-packages'))
        (site / 'gekko_was_here.py').touch()
        (site / 'gekko_was_here.py').unlink()
        time.sleep(1.1)      # it looks once a second at most
        with started(tmp_path, warmly=False) as (_, other): assert said(other, 'print(2)') == '2'
        assert said(kc, 'print(1)') == '1'
        assert until(lambda: (now := warm.status(home())) and now['pid'] != first, 'another')
    until(lambda: not psutil.pid_exists(first), 'the end of the first, with its last kernel')


def test_one_is_started_by_ten_who_find_none(stage: Path) -> None:
    p = warm.place(['json', 'ipykernel.kernelapp'])
    began: list[bool] = []
    def go() -> None: began.append(warm.begin(p))
    threads = [threading.Thread(target=go) for _ in range(10)]
    for t in threads: t.start()
    for t in threads: t.join()
    pid = warm.ready(p)['pid']
    assert sum(began) == 1 and not warm.begin(p)
    assert warm.leave(p)['closed'] == 'told to'
    until(lambda: not psutil.pid_exists(pid), 'its end')
    lock = Path(p.stem + '.lock')
    assert warm.status(p) is None and not lock.read_bytes()
    lock.write_text(f'{time.time()}')      # as one leaves it that dies as it is loading
    assert not warm.begin(p) and warm.ready(p)['pid'] != pid and not lock.read_bytes()      # not again and again, but at once for who asks for it
    stop(p)


def test_what_is_installed_while_it_loads_is_a_change(stage: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'some-packages'
    folder.mkdir()
    code = f"""
import gekko.jobs.zygote as z, pathlib, sys
sys.path.append({str(folder)!r})
slow = z.preload
def preload(names):
    done = slow(names)
    pathlib.Path({str(folder)!r}, 'new.py').touch()
    return done
z.preload = preload
z.main()
"""
    p = Place((), (), str(stage / 'run' / 'late'))
    with open(p.stem + '.lock', 'w+b') as lock:
        told = {'path': p.address, 'names': ['json'], 'beside': ['gekko'], 'idle_s': LOUD, 'lock': lock.fileno()}
        process = subprocess.Popen([sys.executable, '-c', code, json.dumps(told)], pass_fds=(lock.fileno(),))
    null = os.open(os.devnull, os.O_RDWR)
    until(lambda: os.path.exists(p.address), 'its door')
    why = until(lambda: w if (w := warm.fork(p, Request(sys.executable, ('-f', 'k.json'), {}, '/', inherited()), [null] * 3)) != 'nothing is loaded yet' else '', 'an answer')
    os.close(null)
    assert why == f'{folder} has changed' and process.wait(LOUD) == 0


def test_nonsense_at_the_door_harms_nobody(stage: Path, tmp_path: Path) -> None:
    p = home()
    pid = warm.ready(p)['pid']
    for words in (b'', b'\0\0\0\5hello', b'\xff\xff\xff\xff', b'\0\0\0\2{}', b'GET / HTTP/1.1\r\n\r\n'):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(p.address)
            s.sendall(words)
    with socket.socket(socket.AF_UNIX) as s:      # a request without descriptors
        s.connect(p.address)
        tell(s, asdict(Request(sys.executable, ('-f', 'k.json'), {}, '/', inherited())))
        assert s.recv(99)
    null = os.open(os.devnull, os.O_RDWR)
    for r in (Request(sys.executable, ('-f', 'k.json'), {}, '/nowhere', inherited()), Request(sys.executable, ('--no-such-option',), {}, '/', {})):
        assert isinstance(warm.fork(p, r, [null, null, null]), str)
    os.close(null)
    with started(tmp_path) as (_, kc): assert said(kc, 'print(1)') == '1'
    assert warm.status(p)['pid'] == pid


def test_papermill_and_nbclient_get_warm_kernels_unchanged(stage: Path, tmp_path: Path) -> None:
    import nbformat
    import papermill
    from nbclient import NotebookClient
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('n = 1', metadata={'tags': ['parameters']}), nbformat.v4.new_code_cell('import sys, os; print(n, "torch" in sys.modules, os.getcwd())')],
                                  metadata={'kernelspec': {'name': 'gekko', 'display_name': 'gekko', 'language': 'python'}})
    nbformat.write(nb, tmp_path / 'a.ipynb')
    papermill.execute_notebook(str(tmp_path / 'a.ipynb'), str(tmp_path / 'b.ipynb'), {'n': 7}, cwd=str(tmp_path), progress_bar=False)
    done = nbformat.read(tmp_path / 'b.ipynb', as_version=4)
    assert done.cells[-1].outputs[0].text == f'7 True {tmp_path}\n'
    NotebookClient(nb, kernel_name='gekko', resources={'metadata': {'path': str(tmp_path)}}).execute()
    assert nb.cells[-1].outputs[0].text == f'1 True {tmp_path}\n'
