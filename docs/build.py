"""`make docs`: nbs/, strategies/ and docs/ become pages in _docs/.

The exported cells stay in the page, where the notebook put them, between the reason and the example: `nbdev_proc_nbs` would replace them by their
signatures, and runs cells out of their order to do so.
"""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK, SITE = ROOT / '_proc', ROOT / '_docs'
PAGES = WORK / 'pages'
HIDDEN = re.compile(r'^#\|\s*(hide|default_exp|include:\s*false)\b', re.M)
DIRECTIVE = re.compile(r'^#\|.*\n?', re.M)


def page(nb: dict[str, Any]) -> dict[str, Any]:
    """The notebook without its plumbing: hidden cells and directive lines."""
    cells = []
    for c in nb['cells']:
        text = ''.join(c['source'])
        if c['cell_type'] == 'code':
            if HIDDEN.search(text): continue
            text = DIRECTIVE.sub('', text)
        if text.strip(): cells.append(c | {'source': text})
    return nb | {'cells': cells}


def place(path: Path) -> str:
    """Lays one notebook out as a page, and says the name it has in the contents."""
    rel = path.relative_to(ROOT)
    to = PAGES / rel
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(page(json.loads(path.read_text(encoding='utf-8')))), encoding='utf-8')
    return rel.with_suffix('').as_posix()


def contents(caption: str, names: list[str]) -> str:
    return f'```{{toctree}}\n:caption: {caption}\n:maxdepth: 1\n\n' + '\n'.join(names) + '\n```\n'


def main() -> int:
    for d in (WORK, SITE): shutil.rmtree(d, ignore_errors=True)
    PAGES.mkdir(parents=True)
    parts = []
    guides = sorted((ROOT / 'docs').glob('*.md'))
    for g in guides: shutil.copy(g, PAGES)
    index = ROOT / 'nbs/index.ipynb'
    parts.append(contents('Start here', ([place(index)] if index.exists() else []) + [g.stem for g in guides]))
    for room in sorted(p for p in (ROOT / 'nbs').iterdir() if p.is_dir() and re.match(r'\d', p.name)):
        names = [place(p) for p in sorted(room.glob('[!._]*.ipynb'))]
        if names: parts.append(contents(re.sub(r'^\d+_', '', room.name), names))
    names = [place(p) for p in sorted((ROOT / 'strategies').glob('[!._]*.ipynb'))]
    if names: parts.append(contents('strategies', names))
    (PAGES / 'index.md').write_text('# gekko\n\nThe notebook is the strategy, the production job and the record of what it did.\n\n' + '\n'.join(parts), encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-j', 'auto', '-c', str(ROOT / 'docs'), str(PAGES), str(WORK / 'site')])
    if done.returncode: return done.returncode
    shutil.move(WORK / 'site', SITE)
    print(f'{len(list(SITE.rglob("*.html")))} pages in {SITE.name}/index.html')
    return 0


if __name__ == '__main__': sys.exit(main())
