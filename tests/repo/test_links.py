"""Links between the project's own pages lead somewhere."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'\]\(([^)#\s]+)\)')


def pages() -> Iterator[tuple[Path, str]]:
    """Every page with its text: Markdown at the top, in docs and in bench, and the prose of the map."""
    for page in (*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('bench/*.md')): yield page, page.read_text()
    cells = json.loads((ROOT / 'nbs/index.ipynb').read_text())['cells']
    yield ROOT / 'nbs/index.ipynb', '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def broken(page: Path, text: str) -> list[str]: return [m for m in LINK.findall(text) if '://' not in m and not (page.parent / m).exists()]


def test_every_link_leads_somewhere() -> None:
    assert {str(p.relative_to(ROOT)): lost for p, text in pages() if (lost := broken(p, text))} == {}


def test_a_broken_link_is_found() -> None:
    assert broken(ROOT / 'README.md', '[here](nbs/nowhere.ipynb) and [there](https://example.org/x) and [map](nbs/index.ipynb)') == ['nbs/nowhere.ipynb']
