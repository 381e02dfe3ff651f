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


def place(path: Path) -> tuple[str, str]:
    """Lays one notebook out as a page: its name in the contents, and its line there."""
    rel, nb = path.relative_to(ROOT), json.loads(path.read_text(encoding='utf-8'))
    to = PAGES / rel
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(page(nb)), encoding='utf-8')
    said = re.match(r'# +([^\n]+)(?:\s*\n> *([^\n]+))?', ''.join(nb['cells'][0]['source']) if nb['cells'] else '')
    name = rel.with_suffix('').as_posix()
    return name, f'- [{said[1] if said else rel.stem}]({rel.as_posix()})' + (f': {said[2]}' if said and said[2] else '')


def contents(caption: str, entries: list[tuple[str, str]]) -> str:
    """A list to read on the page, and the same as a tree for the sidebar."""
    tree = f'```{{toctree}}\n:caption: {caption}\n:hidden:\n\n' + '\n'.join(n for n, _ in entries) + '\n```\n'
    return f'## {caption}\n\n' + '\n'.join(line for _, line in entries) + '\n\n' + tree


def main() -> int:
    for d in (WORK, SITE): shutil.rmtree(d, ignore_errors=True)
    PAGES.mkdir(parents=True)
    start = [place(p) for p in sorted((ROOT / 'nbs').glob('[!._]*.ipynb'), key=lambda p: p.stem != 'index')]   # the map first, then the surface
    for guide in sorted((ROOT / 'docs').glob('*.md')):
        (PAGES / guide.name).write_text(guide.read_text(encoding='utf-8').replace('](../', ']('), encoding='utf-8')    # the site's root is the project's
        start.append((guide.stem, f'- [{guide.stem}]({guide.name})'))
    parts = [contents('Start here', start)]
    rooms = sorted((p for p in (ROOT / 'nbs').iterdir() if p.is_dir() and re.match(r'\d', p.name)), key=lambda p: (not p.name.endswith('_tutorials'), p.name))   # what is read first, first
    for room in [*rooms, ROOT / 'strategies']:
        entries = [place(p) for p in sorted(room.rglob('[!._]*.ipynb')) if not any(part.startswith('.') for part in p.relative_to(room).parts)]
        if entries: parts.append(contents(re.sub(r'^\d+_', '', room.name), entries))
    (PAGES / 'index.md').write_text('# gekko\n\nThe notebook is the strategy, the production job and the record of what it did.\n\n' + '\n'.join(parts), encoding='utf-8')
    done = subprocess.run([sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-j', 'auto', '-c', str(ROOT / 'docs'), str(PAGES), str(WORK / 'site')])
    if done.returncode: return done.returncode
    shutil.move(WORK / 'site', SITE)
    print(f'{len(list(SITE.rglob("*.html")))} pages in {SITE.name}/index.html')
    return 0


if __name__ == '__main__': sys.exit(main())
