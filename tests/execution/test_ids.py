"""Names of orders: computed, unlike for unlike orders, recognised after a restart."""
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.execution.ids import client_id, is_client_id, recognise

names = st.text(min_size=1, max_size=12)


@given(names, names, st.integers(0, 10**12))
def test_a_name_has_one_shape(account: str, lineage: str, seq: int) -> None:
    name = client_id(account, lineage, seq)
    assert is_client_id(name) and len(name) == 20


@given(st.lists(st.tuples(names, names, st.integers(0, 1000)), unique=True, max_size=30))
def test_unlike_orders_have_unlike_names(orders: list[tuple[str, str, int]]) -> None:
    assert len({client_id(*o) for o in orders}) == len(orders)


def test_the_name_is_the_same_in_another_process() -> None:
    code = "from gekko.execution.ids import client_id; print(client_id('demo', 'abc', 7))"
    said = {subprocess.run([sys.executable, '-c', code], env={'PYTHONHASHSEED': seed}, capture_output=True, text=True, check=True).stdout for seed in ('1', '2')}
    assert said == {client_id('demo', 'abc', 7) + '\n'}


def test_the_name_is_pinned() -> None:
    "Journals hold these names: changing how they are made would orphan every order in them."
    assert client_id('demo', '5f2c1e', 0) == PINNED


PINNED = 'gdhsr6nkqltd7ams563i'


@given(st.sets(st.integers(0, 40)), st.integers(0, 40))
def test_recognise_finds_exactly_the_runs_own(seqs: set[int], upto: int) -> None:
    at_venue = [client_id('a', 'run', s) for s in seqs] + [client_id('a', 'other', s) for s in seqs] + ['by-hand']
    assert recognise(at_venue, 'a', 'run', upto) == {client_id('a', 'run', s): s for s in seqs if s < upto}


@pytest.mark.parametrize('bad', [('', 'r', 0), ('a', '', 0), ('a', 'r', -1)])
def test_what_is_refused(bad: tuple[str, str, int]) -> None:
    with pytest.raises(BadInput): client_id(*bad)
