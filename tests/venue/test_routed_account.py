"""What two routed venues say of the account and the market as one."""
from __future__ import annotations

import time
from decimal import Decimal

import pytest
from routed_stage import BTC, S, Desk, stage

from gekko.domain.errors import BadInput, Retry
from gekko.domain.order import Intent, OrderType, Side
from gekko.domain.time import SystemClock
from gekko.venue.routed import Routed, open_routed, routed_account
from gekko.venue.wire.secret import Access, Address, Credentials, Secret, access_of

D = Decimal


@pytest.fixture
def desk():  # type: ignore[no-untyped-def]
    with stage() as d: yield d


def test_fills_are_told_once_from_any_cursor(desk: Desk) -> None:
    before = desk.venue.here()
    assert before == 'binanceus/ coinbase/'
    for _ in range(2):
        desk.market(coinbase=('59690', '0.3', 1), binanceus=('60000', '0.3', 5))
        desk.work(desk.parent('buy', '0.5'))
    every = desk.venue.fills_since(before)
    assert {f.fill_id for f in every} == {e.fill.fill_id for e in desk.heard if hasattr(e, 'fill')} and [f.ts for f in every] == sorted(f.ts for f in every)
    for k, f in enumerate(every):
        assert desk.venue.fills_since(desk.venue.after(every[:k + 1])) == every[k + 1:], 'a cursor of every member'
        assert desk.venue.fills_since(f.fill_id) == every[k + 1:], 'one fill is a cursor too'
    assert desk.venue.fills_since(desk.venue.here()) == []
    late = [f for f in every if f.fill_id.startswith('coinbase')]
    assert desk.venue.fills_since(desk.venue.after(late, before)) == [f for f in every if f.fill_id.startswith('binanceus')], 'the others stay where they were'
    for bad in ('coinbase/nothing', 'kraken/1', '17'):
        with pytest.raises(BadInput): desk.venue.fills_since(bad)
    desk.audit()


def test_a_member_that_is_not_there_at_the_start_is_named(desk: Desk) -> None:
    cards = [access_of(box.card) for box in desk.boxes.values()]
    desk.close('coinbase')
    again = open_routed(cards, desk.clock, symbols=(BTC,), timeout_s=0.5)
    try:
        with pytest.raises(Retry, match='coinbase: '): again.connect()
    finally: again.close()


def test_a_second_life_finds_the_orders_of_the_first(desk: Desk) -> None:
    name = desk.send(Intent(BTC, Side.BUY, D('0.1'), OrderType.LIMIT, D(50000), venue='coinbase'))
    desk.until(lambda: desk.tracker.get(name).state is S.ACCEPTED)
    again = Routed({n: type(m.venue)(m.venue._access, desk.clock) for n, m in desk.venue.members.items()}, desk.clock, symbols=(BTC,))  # type: ignore[call-arg,attr-defined]
    try:
        again.connect()
        assert [(o.client_id, o.intent.venue) for o in again.open_orders()] == [(name, 'coinbase')]
        t = again.terms(BTC, again.books(BTC))['coinbase']
        assert t.free_quote == 1_000_000 - D('0.1') * 50000 * D('1.006'), 'what it may still cost is not free'
        again.cancel(name)
        desk.until(lambda: desk.tracker.get(name).state is S.CANCELLED)
    finally: again.close()


def test_the_market_is_told_as_one(desk: Desk) -> None:
    v = desk.venue
    q = v.best(BTC)
    assert q is not None and v.quote(BTC) == q and not q.crossed and q.ask in (D(60001), D(59691))
    d = v.depth(BTC, 3)
    assert [x.price for x in d.asks] == [D('59691'), D('60001.00'), D('60001.01')] and d.bids[0].price == D(59999)
    assert v.instruments()[BTC].lot == D('0.00001') and v.instruments()[BTC].min_notional == 1
    assert '1m' in v.bars() and v.trades(BTC, 5) and v.refresh().keys() == {BTC}
    assert v.health()['down'] == {} and v.account()['members'].keys() == {'binanceus', 'coinbase'}
    with pytest.raises(BadInput, match='cannot be routed'): v.split(Intent('ETH-USD', Side.BUY, D(1), parent='p'))


def test_the_accounts_name_is_theirs_together() -> None:
    def access(venue: str, account: str) -> Access: return Access(venue, (Address('http://localhost'),), Credentials(account, Secret('k')))
    one, other = access('coinbase', 'main'), access('binanceus', 'main')
    assert routed_account([one, other]) == routed_account([other, one]) == 'routed-binanceus-main-coinbase-main'
    long = [routed_account([one, access('binanceus', 'x' * 60 + end)]) for end in 'ab']
    assert len(set(long)) == 2 and all(len(n) == 64 for n in long)
    for wrong in ([], [one, access('coinbase', 'second')]):
        with pytest.raises(BadInput, match='accounts to route over'): open_routed(wrong, SystemClock())


def test_a_book_that_stands_still_stays_young_while_its_line_lives(desk: Desk) -> None:
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        books = desk.venue.books(BTC)
        assert all(b.age < 2.3e9 and not b.why for b in books.values()), books
        time.sleep(0.02)


@pytest.mark.parametrize('names', [[], ['a b'], ['a/b'], ['']])
def test_members_need_names(names: list[str]) -> None:
    with pytest.raises(BadInput, match='members of a routed venue'): Routed(dict.fromkeys(names), None)  # type: ignore[arg-type]
