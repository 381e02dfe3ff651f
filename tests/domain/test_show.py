"""Pictures: bars within their frames, and a state machine drawn as it moves."""
from itertools import product
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.lifecycle import WORDS, edges, picture, states, transitions
from gekko.domain.order import MOVES, OrderState, apply
from gekko.domain.show import gauge, sided

def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring('<page>' + markup.replace('&nbsp;', ' ') + '</page>')


@given(st.floats(-5, 5))
def test_bars_stay_within_their_frame(part: float) -> None:
    for markup in (gauge(part), sided(part)):
        for r in parsed(markup).iter('{http://www.w3.org/2000/svg}rect'):
            x, w = float(r.get('x', '0')), float(r.get('width', '0'))
            assert 0 <= x and 0 <= w and x + w <= 120.001


def test_the_table_is_what_apply_does() -> None:
    table, every = transitions(), states()
    assert table.head[1:] == tuple(every) and [r[0] for r in table.rows] == list(WORDS)
    for row, (j, (name, o)) in product(table.rows, enumerate(every.items(), 1)):
        after, said = apply(o, WORDS[row[0]](o)), row[j]
        assert (after.state is o.state) == (not said or said in ('noted', '+ fill', '! conflict')), (name, row[0])
        assert ('!' in said) == bool(after.conflict) and ('+' in said) <= (after.filled > o.filled)
        if after.state is not o.state: assert said.startswith(after.state.value.replace('_', ' '))


def test_the_picture_has_every_move_and_no_other() -> None:
    S, found = OrderState, set(edges())
    assert found == {(a, b, w) for w, moves in MOVES.items() for a, b in moves.items()} | {(S.UNKNOWN, S.PARTLY_FILLED, 'accepted')}
    svg = picture().svg
    labels = [t.text or '' for t in parsed(svg).iter('{http://www.w3.org/2000/svg}text')]
    assert {s.value.replace('_', ' ') for s in S} <= set(labels)
    arrows = svg.count('marker-end')
    grouped = {(b, w) for a, b, w in found if b.terminal and not a.terminal}
    single = {(a, b) for a, b, w in found if a.terminal or not b.terminal}
    assert arrows == len(grouped) + len(single)
    for _, w in grouped: assert any(t.split(',')[0] == w for t in labels)
    for a, b in single: assert ' · '.join(sorted(w for x, y, w in found if (x, y) == (a, b))) in labels
