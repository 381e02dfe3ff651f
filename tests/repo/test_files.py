"""Files: no leftovers, no secrets, no one's own folders, and documents that tell the truth about commands."""
import re
import subprocess
import sys

from tree import ROOT, texts

LEFT = re.compile(r'^`?(?:<{7}|>{7}|\|{7})(?: |`|$)', re.M)
PLACES = re.compile(r'(?<![\w.:/])/(?:home|Users|root|work|tmp|private|var/folders)/(?=[\w.])|(?<!\w)[A-Z]:\\\\?Users\\')
SECRETS = re.compile('|'.join([
    r'-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\\?n?[A-Za-z0-9+/=]{16}', r'\bAKIA[0-9A-Z]{16}\b', r'\bgh[pousr]_[A-Za-z0-9]{36}\b', r'\bxox[abprs]-[A-Za-z0-9-]{10,}',
    r'\bAIza[0-9A-Za-z_-]{35}\b', r'\bsk-[A-Za-z0-9_-]{32,}', r'\b[0-9a-f]{32}-[0-9a-f]{32}\b', r'\bhttps://hooks\.slack\.com/services/T\w+',
]))
GUIDES = ('README.md', 'CONTRIBUTING.md', 'docs/dependencies.md', 'docs/design.md')


def test_no_conflict_is_left_in_a_file() -> None:
    assert [f for f, t in texts().items() if LEFT.search(t)] == []


def test_no_path_of_one_machine() -> None:
    assert {f: m[0] for f, t in texts().items() if (m := PLACES.search(t))} == {}


def test_no_secret() -> None:
    assert [f for f, t in texts().items() if SECRETS.search(t)] == []


def code(text: str) -> str:
    """What stands in code blocks and between backticks: what a reader will type."""
    return '\n'.join(block or inline for block, inline in re.findall(r'^```\w*\n(.*?)^```|`([^`\n]+)`', text, re.M | re.S))


def test_make_targets_in_the_guides_exist() -> None:
    targets = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.M))
    said = {f: set(re.findall(r'^\s*(?:\$ )?make ([a-z]+)', code(texts()[f]), re.M)) for f in GUIDES if f in texts()}
    assert {f: sorted(s - targets) for f, s in said.items() if s - targets} == {}
    assert {'demo', 'test'} <= said['README.md']


def test_gekko_commands_in_the_guides_exist() -> None:
    if not (ROOT / 'gekko/cli/main.py').exists(): return
    help_ = subprocess.run([sys.executable, '-c', 'import sys; sys.argv[0] = "gekko"; from gekko.cli.main import main; main()', '--help'],
                           cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    known = set(re.findall(r'^[^\w\n]*([a-z]+)\b', help_, re.M))
    said = {c for f in ('README.md', 'CONTRIBUTING.md') if f in texts() for c in re.findall(r'^\s*(?:\$ )?(?:\.venv/bin/)?gekko ([a-z]+)', code(texts()[f]), re.M)}
    assert sorted(said - known) == []


def test_shell_scripts_can_be_run() -> None:
    out = subprocess.run(['git', 'ls-files', '-s', '--', 'scripts/*.sh', '.ci/run'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split('\t')[1] for line in out.splitlines() if not line.startswith('100755')] == []
