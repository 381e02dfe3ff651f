"""Notebooks: clean, whole, tagged, and showing what they define."""
import copy
import re
from typing import Any

from execnb.nbio import nb2str
from nbdev.clean import clean_nb
from tree import notebooks, source, texts

Cell = dict[str, Any]
MARK = re.compile(r'^`?(?:<{7}|>{7}|\|{7})(?: |`|$)', re.M)   # in backticks as nbdev's merge leaves them


def test_no_conflict_is_left_in_a_cell() -> None:
    assert [f'{path}, cell {c.get("id")}' for path, nb in notebooks().items() for c in nb['cells'] if MARK.search(source(c))] == []


def test_notebooks_are_clean() -> None:
    """As nbdev_clean writes them: no run counts, no stray metadata, tags kept. `make export` cleans."""
    dirty = []
    for path, nb in notebooks().items():
        cleaned = copy.deepcopy(nb)
        clean_nb(cleaned, allowed_cell_metadata_keys=['tags'], clean_ids=False)
        if nb2str(cleaned) != texts()[path]: dirty.append(path)
    assert dirty == []


def test_every_cell_has_an_id_of_its_own() -> None:
    astray = []
    for path, nb in notebooks().items():
        ids = [c.get('id', '') for c in nb['cells']]
        if (nb['nbformat'], nb['nbformat_minor']) < (4, 5) or len(set(ids)) != len(ids) or not all(ids): astray.append(path)
    assert astray == []


def test_a_strategy_has_one_parameters_cell() -> None:
    tagged = {path: sum('parameters' in c['metadata'].get('tags', []) for c in nb['cells']) for path, nb in notebooks('strategies').items()}
    assert {path: n for path, n in tagged.items() if n != 1} == {}


def test_strategies_and_dashboards_are_kept_without_outputs() -> None:
    kept = [path for path, nb in notebooks('strategies', 'dashboards').items() if any(c.get('outputs') for c in nb['cells'])]
    assert kept == [], 'make export removes them, and keeps the tags'


def test_a_dashboard_is_short() -> None:
    assert {path: n for path, nb in notebooks('dashboards').items() if (n := len(nb['cells'])) >= 10} == {}, 'what is longer belongs in gekko.ops'


def test_no_picture_outgrows_its_cell() -> None:
    """Outputs are read beside the code and travel with every clone: a cell of 200 kB is a file in the wrong place."""
    big = [f'{path}, cell {c["id"]}: {n // 1000} kB' for path, nb in notebooks('nbs').items() for c in nb['cells'] if (n := len(str(c.get('outputs', '')))) > 200_000]
    assert big == []


def defines(c: Cell) -> bool:
    return c['cell_type'] == 'code' and bool(re.search(r'^#\|\s*exports?\b', source(c), re.M)) and bool(re.search(r'^(async )?(def|class) |^@', source(c), re.M))


def shows(c: Cell) -> bool:
    return c['cell_type'] == 'code' and bool(source(c).strip()) and not re.search(r'^#\|\s*(export|hide|default_exp)|^show_doc\(', source(c), re.M)


def test_definitions_are_followed_by_an_example() -> None:
    """The figure that says whether a notebook is a lab book or a wrapper: shown within two cells, at least four times in five."""
    shown = {path: [any(map(shows, nb['cells'][i + 1:i + 3])) for i, c in enumerate(nb['cells']) if defines(c)] for path, nb in notebooks('nbs').items()}
    every = [x for xs in shown.values() for x in xs]
    worst = sorted((f'{sum(xs)}/{len(xs)} {path}' for path, xs in shown.items() if xs and sum(xs) < 0.8 * len(xs)))
    assert sum(every) >= 0.8 * len(every), worst
