"""Desk and kernel are killed while they trade, and nothing is lost: a short campaign over every kind of strike, and proofs that its judge can find fault."""
from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from desk_stage import ON_SERVER
from server_stage import shared

from gekko.domain.errors import BadInput
from gekko.jobs.crash_bench import FAULTS, KINDS, Report, World, bench_crash, control, figures, finish, plan_of, served, trading, truth
from gekko.jobs.crash_judge import ZEROS, by_order, by_unit, verdict
from gekko.venue.sandbox.faults import Faults


def lanes(name: str, n: int) -> str:
    """Where each of `n` lanes keeps its books: a file in its home, or a place of its own on a server."""
    if not ON_SERVER: return ''
    urls = [shared().url(f'{name}{i}') for i in range(n)]
    return urls[0].removesuffix('0') + '{lane}'


@pytest.fixture(scope='module')
def campaign() -> dict[str, Any]: return bench_crash(kills=9, seed=1, lanes=3, ledger=lanes('campaign', 3))


def test_no_strike_costs_anything(campaign: dict[str, Any]) -> None:
    assert campaign['violations'] == []
    assert {z: campaign[z] for z in (*ZEROS, 'stuck')} == dict.fromkeys((*ZEROS, 'stuck'), 0)
    assert campaign['kernels_ended'] == [], 'a notebook lives through the death of its desk'


def test_every_kind_was_struck_and_recovered_from(campaign: dict[str, Any]) -> None:
    assert campaign['kills'] == 9 and set(campaign['by_kind']) == set(KINDS)
    recovery = campaign['recovery_s']
    assert recovery['all']['n'] == 9 and all(recovery[k]['n'] == n for k, n in campaign['by_kind'].items())
    assert {'p50', 'p99', 'max'} <= recovery['all'].keys() and {'cpu', 'cores'} <= campaign.keys()


def test_it_was_under_load(campaign: dict[str, Any]) -> None:
    assert campaign['orders'] >= 40 and campaign['fills'] >= 20 and campaign['kernels'] >= 5 and campaign['faults_struck'] > 0


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world that has traded and is done, with a venue that can still be asked."""
    with served('binanceus', 5) as card:
        w = World(tmp_path_factory.mktemp('world'), card, 0, 5, lanes('world', 1))
        try:
            assert trading(w, time.time_ns(), 'hold', 5)
            time.sleep(2)
            finish(w, report := Report(0))
            assert figures([report])['violations'] == []
            yield w
        finally: w.close()


def test_money_that_nobody_booked_is_found(world: World) -> None:
    control(world.card, 'wallet', {'asset': 'USD', 'amount': '-0.01'})
    (found,) = by_unit(world.seen.book, truth(world.card))
    assert (found.zero, found.key) == ('unowned', 'USD')
    control(world.card, 'wallet', {'asset': 'USD', 'amount': '0.01'})
    assert verdict(world.seen, truth(world.card), final=True) == []


def test_an_order_that_the_ledger_lost_is_found(world: World) -> None:
    known, book = truth(world.card), world.seen.book
    name = next(n for n, o in book.orders.items() if o.filled)
    kept = book.orders.pop(name)
    try: assert [(f.zero, f.key, f.ours) for f in by_order(book, known)] == [('lost', name, 'not in the ledger')]
    finally: book.orders[name] = kept
    there = known.orders[name]
    for wrong, zero in ((replace(there, count=2), 'duplicated'), (replace(there, filled=there.filled * 2), 'lost'), (replace(there, open=True), 'lost'), (replace(there, filled=there.filled / 2), 'duplicated')):
        assert [(f.zero, f.key) for f in by_order(book, replace(known, orders={**known.orders, name: wrong}))] == [(zero, name)]
    assert [f.zero for f in by_unit(book, replace(known, orders={**known.orders, name: replace(there, fills=there.fills + 1)}))] == ['lost']
    gone = {n: t for n, t in known.orders.items() if n != name}
    assert [(f.zero, f.key) for f in by_order(book, replace(known, orders=gone))] == [('duplicated', name)]


def test_the_plan_is_its_seeds_and_every_fault_is_one() -> None:
    assert plan_of(50, 3, 4) == plan_of(50, 3, 4) != plan_of(50, 4, 4)
    for n in (7, 200): assert {s.kind for s in plan_of(n, 9, 2)} == set(KINDS)
    assert [s.lane for s in plan_of(5, 1, 2)] == [0, 1, 0, 1, 0]
    for plan in FAULTS.values(): Faults(plan)
    for wrong in ({'kills': 0}, {'lanes': 0}, {'lanes': 65}, {'venue': 'nowhere'}):
        with pytest.raises(BadInput): bench_crash(**{'kills': 1, **wrong})
