"""A desk that lets go of what is over ends with the books of one that never does, whatever the venue says late, twice or not at all."""
from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal as D
from functools import partial
from pathlib import Path

import pytest
from desk_stage import ledger_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.desk import trader as trading, watch as watching
from gekko.desk.account import open_account
from gekko.desk.changing import amend
from gekko.desk.events import Outbox, empty
from gekko.desk.spec import RunSpec
from gekko.desk.trader import Trader, hear, last_words, of_run, open_run, outcome, send
from gekko.desk.watch import Watch
from gekko.domain.instrument import Instrument
from gekko.domain.order import Accepted, Cancelled, Fill, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Side, apply
from gekko.domain.time import SECOND, SimClock
from gekko.ledger import snapshot as snapshots
from gekko.ledger.journal import Journal, read_entries
from gekko.ledger.replay import replay
from gekko.risk.gate import Approved
from gekko.venue.fillmodel import FillModel
from gekko.venue.paper import PaperVenue

BTC = Instrument('BTC-USD', 'BTC', 'USD', lot=D('0.001'), tick=D('0.01'), kind='crypto')
START = 1_000_000 * SECOND
SEEN: Counter[str] = Counter()


class Told(PaperVenue):
    "A venue whose orders trade and end when the test says so; what it says lies in `said` until it is delivered."
    def __init__(self, clock: SimClock) -> None:
        super().__init__({'BTC-USD': BTC}, FillModel(), clock, {'USD': D(1_000_000)})
        self.clock, self.held, self.money = clock, D(0), D(1_000_000)
        self.deals: dict[str, Order] = {}
        self.told: list[Fill] = []
        self.said: list[OrderEvent] = []
        self.ever: list[OrderEvent] = []

    def say(self, e: OrderEvent) -> None:
        self.deals[e.client_id] = apply(self.deals[e.client_id], e)
        self.said.append(e)
        self.ever.append(e)
    def submit(self, approved: Approved) -> None:
        self.deals[approved.order.client_id] = Order(approved.order.client_id, approved.order.intent)
        self.say(Accepted(approved.order.client_id, f'v-{len(self.deals)}', self.clock.now()))
    def trade(self, o: Order, qty: D, named: bool = True) -> None:
        f = Fill(f'f-{len(self.told)}', o.client_id if named else '', 'BTC-USD', o.side, qty, D(100 + len(self.told) % 3), ts=self.clock.now())
        self.told.append(f)
        self.held, self.money = self.held + f.signed, self.money - f.signed * f.price
        if named: self.say(Filled(o.client_id, f, f.ts))
    def cancel(self, client_id: str) -> None: self.say(Cancelled(client_id, 'asked', self.clock.now()))

    def drain(self) -> list[OrderEvent]: return []      # the test delivers
    def order(self, client_id: str) -> Order | None: return self.deals.get(client_id)
    def open_orders(self) -> list[Order]: return [o for o in self.deals.values() if not o.state.terminal]
    def positions(self) -> dict[str, D]: return {'BTC-USD': self.held} if self.held else {}
    def cash(self) -> dict[str, D]: return {'USD': self.money}
    def fills_since(self, cursor: str) -> list[Fill]: return self.told[[f.fill_id for f in self.told].index(cursor) + 1 if cursor else 0:]


class Story:
    "A desk at that venue. `last`: how many orders that are over it holds."
    def __init__(self, folder: str, last: int) -> None:
        (home := Path(folder) / str(last)).mkdir()
        self.url, self.clock, self.lives = ledger_of(home), SimClock(START), 0
        self.refused = 0
        self.venue = Told(self.clock)
        self.last = last
        self.begin()

    def begin(self) -> None:
        self.journal = Journal.open(self.url, 'a')
        book = snapshots.load_book(self.url, 'a') if self.lives else None
        t = self.t = Trader(RunSpec(('BTC-USD',), bar='1d', venue='binanceus'), run_id='r', strategy='s', lineage='l', mode='live', account='a', instruments={'BTC-USD': BTC},
                            venue=self.venue, journal=self.journal, clock=self.clock)
        t.view.mark('BTC-USD', D(100), 10)
        after = open_account(t, '7', book)
        if not self.lives: open_run(t)
        self.watch = Watch(t, after, 20.0, 30.0)
        self.lives += 1

    def restart(self) -> None:
        self.watch.close()
        self.journal.commit()
        if (book := snapshots.load_book(self.url, 'a')) is not None: snapshots.save_snapshot(self.url, book)
        self.journal.close()
        self.clock.advance(SECOND)
        self.venue.said.clear()      # nobody was there to hear it
        self.begin()

    def look(self) -> None:
        self.clock.advance(61 * SECOND)
        for _ in range(2):
            self.watch._next = 0
            self.watch.look()
            assert self.watch._asked is not None
            self.watch._asked.exception(5)
            self.watch.look()
            self.journal.commit()

    def step(self, what: str, n: int) -> None:
        v = self.venue
        self.clock.advance(SECOND)
        open_, over = v.open_orders(), [o for o in v.deals.values() if o.state in (OrderState.CANCELLED, OrderState.FILLED) and o.filled < o.intent.qty]
        if what == 'send': send(self.t, [Intent('BTC-USD', Side.BUY if n % 3 else Side.SELL, D(2), OrderType.LIMIT, D(100))])
        elif what == 'fill' and open_: v.trade(o := open_[n % len(open_)], min(D(1 + n % 2), o.intent.qty - o.filled))
        elif what == 'cancel' and open_: v.cancel(open_[n % len(open_)].client_id)
        elif what == 'late' and over: v.trade(over[n % len(over)], D(1))
        elif what == 'again' and v.ever: v.said.append(v.ever[n % len(v.ever)])
        elif what == 'hear':
            said, v.said = v.said, []
            hear(self.t, said)
        elif what == 'backwards':
            said, v.said = v.said[::-1], []
            hear(self.t, said)
        elif what == 'lose': v.said.clear()
        elif what == 'unsure' and open_: v.said.append(Lost(open_[n % len(open_)].client_id, 'cancel', self.clock.now()))
        elif what == 'web': self.web(n)
        elif what == 'blind':      # the journal can't be read while this is heard
            url, self.journal.url = self.journal.url, 'sqlite:////nowhere/ledger.db'
            self.step('hear', 0)
            self.journal.url = url
        elif what == 'refuse':
            self.t.view.halted = 'for a moment'
            send(self.t, [Intent('BTC-USD', Side.BUY, D(2), OrderType.LIMIT, D(100))])
            self.t.view.halted, self.refused = '', self.refused + 1
        elif what == 'look': self.look()
        elif what == 'restart': self.restart()

    def web(self, n: int) -> None:
        "Somebody else's order, some of which trades at once."
        name = f'web_{len(self.venue.deals)}'
        self.venue.deals[name] = Order(name, Intent('BTC-USD', Side.BUY, D(2), OrderType.LIMIT, D(100), ts=self.clock.now()))
        self.venue.say(Accepted(name, f'v-{name}', self.clock.now()))
        if n % 2: self.venue.trade(self.venue.deals[name], D(1))

    def end(self) -> None:
        for _ in range(3): self.look()
        self.watch.close()
        self.journal.commit()


def settle(folder: str, last: int, steps: list[tuple[str, int]]) -> Story:
    s = Story(folder, last)
    with pytest.MonkeyPatch.context() as m:
        m.setattr(watching, 'LAST', last)
        m.setattr(trading, 'LAST', max(last, 100))
        m.setattr(snapshots, 'trimmed', partial(snapshots.trimmed, stretch=86_400 * SECOND, last=last))
        many(s, 5)
        for what, n in steps: s.step(what, n)
        s.end()
        assert snapshots.audit(s.url).ok
    return s


steps = st.lists(st.tuples(st.sampled_from(['send', 'send', 'fill', 'fill', 'cancel', 'late', 'again', 'again', 'hear', 'hear', 'backwards', 'lose', 'look', 'look', 'restart', 'unsure', 'web', 'blind', 'refuse']), st.integers(0, 30)), min_size=5, max_size=30)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(steps)
def test_forgetting_changes_no_book(script: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        short, long = settle(folder, 1, script), settle(folder, 1_000, script)
        for s in (short, long):
            book = replay(read_entries(s.url, 'a'))
            again = snapshots.load_book(s.url, 'a')
            assert s.watch.wrong == [] and s.t.view.halted == '' and again is not None
            assert s.t.view.account.qty('BTC-USD') == s.venue.held == book.account.qty('BTC-USD') == again.account.qty('BTC-USD')
            assert s.t.view.account.cash['USD'] == s.venue.money == book.account.cash['USD'] == again.account.cash['USD']
            assert book.faults == again.faults == [] and book.account == again.account
            assert {f.fill_id for f in book.fills} == {f.fill_id for f in s.venue.told} and len(book.fills) == len(s.venue.told)
            w = of_run(s.t)
            left = {n: (o.state, o.filled, o.fill_ids) for n, o in w.orders.items() if o.state is not OrderState.REJECTED}
            assert left == {n: (o.state, o.filled, o.fill_ids) for n, o in s.venue.deals.items() if not n.startswith('web')} and len(w.refusals) == s.refused
            assert sorted(f.fill_id for f in w.fills if f.client_id in left) == sorted(f.fill_id for f in s.venue.told if f.client_id in left)
            assert sum(len(o.fill_ids) for o in book.orders.values()) == len(s.venue.told) and not book.externals
        assert short.t.view.account.positions == long.t.view.account.positions
        assert not long.t.tracker.forgotten
        SEEN.update(e.kind for e in read_entries(short.url, 'a') if e.kind in ('agreed', 'recalled', 'run_opened'))


def test_there_was_something_to_forget() -> None:
    if n := SEEN['run_opened']: assert SEEN['agreed'] > 2 * n and SEEN['recalled'] > n // 2      # else the one before has proved nothing


@pytest.fixture
def desk(tmp_path: object) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as m:
        m.setattr(watching, 'LAST', 3)
        s = Story(str(tmp_path), 3)
        yield s
        s.watch.close()


def many(s: Story, n: int) -> list[Order]:
    "So many orders, each bought half and cancelled, all heard, and the venue asked."
    for k in range(n):
        s.step('send', 4); s.step('hear', 0)
        young = s.venue.open_orders()[-1]
        s.venue.trade(young, D(1))
        s.venue.cancel(young.client_id)
        s.step('hear', 0)
        if k % 5 == 4: s.look()
    s.look()
    return list(s.venue.deals.values())


def test_memory_holds_the_last_and_what_is_open(desk: Story) -> None:
    desk.step('send', 1); desk.step('hear', 0)
    resting = next(iter(desk.venue.deals))
    orders = many(desk, 40)
    assert resting in desk.t.tracker and len(desk.t.tracker.all()) <= 10 and len(list(desk.t.fills)) <= 10
    assert len(desk.t.tracker) == len(orders) == 41 and len(desk.t.fills) == 40 and desk.watch.after != '' and desk.watch.wrong == []
    assert len(desk.venue.fills_since(desk.watch.after)) <= 3      # an order that has rested all the while holds nothing back


def test_a_fill_of_a_forgotten_order_told_late_counts_once(desk: Story) -> None:
    orders = many(desk, 20)
    first, held = orders[0], desk.venue.held
    assert first.client_id not in desk.t.tracker
    desk.venue.trade(first, D(1))
    late = desk.venue.said[-1]
    for _ in range(3): hear(desk.t, [late])
    assert desk.t.strayed == first.client_id and desk.t.view.account.qty('BTC-USD') == held
    desk.look()
    assert desk.t.view.account.qty('BTC-USD') == held + first.side.sign and desk.t.tracker.get(first.client_id).filled == 2
    assert desk.watch.wrong == [] and desk.t.view.halted == '' and not desk.t.parked
    kinds = [e.kind for e in read_entries(desk.url, 'a')]
    assert kinds.count('recalled') == 1 and 'external' not in kinds
    assert not replay(read_entries(desk.url, 'a')).faults


def test_a_fill_of_a_forgotten_order_told_again_changes_nothing(desk: Story) -> None:
    orders = many(desk, 20)
    before, money = desk.t.view.account, desk.venue.money
    hear(desk.t, [e for e in desk.venue.ever if e.client_id == orders[0].client_id])
    desk.look()
    assert desk.t.view.account == before and desk.venue.money == money and desk.watch.wrong == []
    assert 'external' not in [e.kind for e in read_entries(desk.url, 'a')]


def test_the_result_of_a_run_that_let_go_is_whole(desk: Story) -> None:
    orders = many(desk, 25)
    r = outcome(desk.t)
    assert {o.client_id: o.filled for o in r.orders} == {o.client_id: o.filled for o in orders} and len(r.orders) == 25
    assert [f.fill_id for f in r.fills] == [f.fill_id for f in desk.venue.told] and r.positions() == {'BTC-USD': desk.venue.held}


def test_a_desk_that_starts_from_a_snapshot_asks_from_where_the_books_agreed(desk: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, 'trimmed', partial(snapshots.trimmed, stretch=86_400 * SECOND, last=3))
    desk.step('send', 1); desk.step('hear', 0)
    orders = many(desk, 30)
    desk.restart()
    assert len(desk.t.tracker.all()) <= 12 and len(desk.venue.fills_since(desk.watch.after)) <= 8
    desk.venue.trade(orders[2], D(1))
    hear(desk.t, desk.venue.said[-1:])
    desk.look()
    assert desk.t.view.account.qty('BTC-USD') == desk.venue.held and desk.watch.wrong == []
    book, again = replay(read_entries(desk.url, 'a')), snapshots.load_book(desk.url, 'a')
    assert again is not None and again.account == book.account and again.faults == book.faults == [] and again.forgotten > 0 and book.forgotten == 0
    snapshots.save_snapshot(desk.url, again)
    assert snapshots.audit(desk.url).ok
    assert {f.fill_id for f in outcome(desk.t).fills} == {f.fill_id for f in desk.venue.told}
    desk.restart()
    assert desk.t.view.account.qty('BTC-USD') == desk.venue.held


def test_a_stranger_is_still_a_stranger(desk: Story) -> None:
    many(desk, 10)
    desk.venue.deals['web_1'] = Order('web_1', Intent('BTC-USD', Side.BUY, D(1), ts=desk.clock.now()))
    desk.venue.say(Accepted('web_1', 'v-99', desk.clock.now()))
    desk.venue.trade(desk.venue.deals['web_1'], D(1))
    desk.step('hear', 0)
    desk.look()
    assert desk.t.tracker.get('web_1').state is OrderState.FILLED and desk.watch.wrong == [] and desk.t.view.account.qty('BTC-USD') == desk.venue.held
    many(desk, 20)
    assert 'web_1' not in desk.t.tracker
    hear(desk.t, [e for e in desk.venue.ever if e.client_id == 'web_1'])      # taken in once, let go of, and spoken of again: not taken in twice
    desk.look()
    assert desk.t.view.account.qty('BTC-USD') == desk.venue.held and desk.watch.wrong == []
    assert [e.kind for e in read_entries(desk.url, 'a')].count('external') == 1


def test_a_fill_that_nobody_can_name_is_taken_in_once_it_is_old(desk: Story) -> None:
    many(desk, 6)
    desk.venue.trade(Order('', Intent('BTC-USD', Side.BUY, D(1))), D(1), named=False)
    desk.watch._next = 0
    desk.watch.look()
    assert desk.watch._asked is not None
    desk.watch._asked.exception(5)
    desk.watch.look()
    assert {d.what for d in desk.watch.wrong} == {'cash', 'position', 'fill'}
    desk.look()
    name = f'fill {desk.venue.told[-1].fill_id}'
    assert desk.watch.wrong == [] and desk.t.view.account.qty('BTC-USD') == desk.venue.held and desk.t.tracker.get(name).intent.reason == 'quarantined'
    desk.venue.told[-1] = Fill(**{f: getattr(desk.venue.told[-1], f) for f in Fill.__dataclass_fields__} | {'client_id': 'web_5'})      # the venue finds the name after all
    desk.look()
    assert desk.watch.wrong == [] and desk.t.view.account.qty('BTC-USD') == desk.venue.held and 'web_5' not in desk.t.tracker
    desk.restart()
    desk.look()
    assert desk.watch.wrong == [] and desk.t.view.account.qty('BTC-USD') == desk.venue.held


def test_a_late_fill_waits_for_a_ledger_that_cannot_be_read(desk: Story) -> None:
    desk.step('send', 1); desk.step('hear', 0)
    first = desk.venue.open_orders()[0]
    desk.venue.trade(first, D(1)); desk.step('hear', 0)
    many(desk, 20)
    desk.venue.cancel(first.client_id); desk.step('hear', 0)
    assert first.client_id in desk.t.tracker and first.client_id not in {f.client_id for f in desk.t.fills}      # what it traded is only in the journal
    held, url = desk.t.view.account.qty('BTC-USD'), desk.journal.url
    desk.venue.trade(first, D(1))
    desk.journal.url = f'{url}-away' if url.startswith('sqlite') else 'sqlite:////nowhere/ledger.db'
    desk.step('hear', 0)
    assert desk.t.view.account.qty('BTC-USD') == held and desk.t.tracker.get(first.client_id).filled == 1 and desk.t.strayed == first.client_id
    desk.journal.url = url
    desk.look()
    assert desk.t.view.account.qty('BTC-USD') == held + 1 == desk.venue.held and desk.t.tracker.get(first.client_id).filled == 2
    assert desk.watch.wrong == [] and desk.t.view.halted == '' and not replay(read_entries(desk.url, 'a')).faults


def test_a_fill_of_long_ago_does_not_move_the_cursor_back(desk: Story) -> None:
    orders = many(desk, 20)
    cursor = desk.watch.after
    f = Fill('old-1', orders[0].client_id, 'BTC-USD', orders[0].side, D(1), D(100), ts=desk.venue.told[0].ts + 1)      # traded then, told now
    desk.venue.told.insert(1, f)
    desk.venue.held, desk.venue.money = desk.venue.held + f.signed, desk.venue.money - f.signed * f.price
    desk.venue.say(Filled(f.client_id, f, f.ts))
    desk.step('hear', 0)
    desk.look(); desk.look()
    assert desk.t.view.account.qty('BTC-USD') == desk.venue.held and desk.watch.wrong == [] and desk.watch.after == cursor
    many(desk, 5)
    assert [e.record.client_id for e in read_entries(desk.url, 'a', kinds=('recalled',))] == [orders[0].client_id]


def test_the_end_of_a_run_loses_no_late_word(desk: Story) -> None:
    orders = many(desk, 20)
    desk.venue.trade(orders[0], D(1))
    desk.step('hear', 0)
    assert desk.t.parked and desk.t.view.account.qty('BTC-USD') == desk.venue.held - 1
    assert last_words(desk.t) == 1 and not desk.t.parked      # without the venue, which may be shut by then
    assert desk.t.view.account.qty('BTC-USD') == desk.venue.held and 'old' not in desk.t.tracker


def test_what_the_notebook_has_not_heard_yet_is_not_let_go_of(desk: Story) -> None:
    box = Outbox(desk.t)
    orders = many(desk, 20)
    assert not desk.t.tracker.forgotten
    assert {o.client_id for o in empty(box) if isinstance(o, Order)} == {o.client_id for o in orders}
    many(desk, 5)
    assert desk.t.tracker.forgotten


def test_refusals_of_a_desk_that_died_are_in_the_result(desk: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, 'trimmed', partial(snapshots.trimmed, stretch=86_400 * SECOND, last=3))
    desk.t.view.halted = 'for a moment'
    desk.step('send', 1)
    desk.t.view.halted = ''
    many(desk, 20)
    desk.restart()
    desk.step('send', 1); desk.step('hear', 0)
    resting = desk.venue.open_orders()[-1].client_id
    desk.t.view.halted = 'for a moment'
    desk.step('send', 1); desk.step('send', 1)
    assert amend(desk.t, resting, qty=D(5))
    desk.t.view.halted = ''
    r = outcome(desk.t)
    assert desk.t.partial and len(r.breaches) == len(desk.t.refusals) == 4 and [b.client_id for b in r.breaches][-1] == resting and len(r.fills) == 20


def test_refused_changes_are_let_go_of_too(desk: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trading, 'LAST', 3)
    desk.step('send', 1); desk.step('hear', 0)
    desk.t.view.halted = 'for a moment'
    for n in range(40): assert amend(desk.t, desk.venue.open_orders()[0].client_id, qty=D(3 + n))
    assert len(desk.t.refusals) == 40 and len(list(desk.t.refusals)) < 8
    desk.journal.commit()
    assert len(of_run(desk.t).refusals) == 40


def test_a_strangers_fill_told_again_is_settled_once_from_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, 'trimmed', partial(snapshots.trimmed, stretch=86_400 * SECOND, last=1))
    s = Story(str(tmp_path), 1_000)
    s.venue.deals['web_1'] = Order('web_1', Intent('BTC-USD', Side.BUY, D(1), ts=s.clock.now()))
    s.venue.say(Accepted('web_1', 'v-99', s.clock.now()))
    s.venue.trade(s.venue.deals['web_1'], D(1))
    s.step('hear', 0)
    s.look()
    many(s, 5)
    s.clock.advance(90_000 * SECOND)
    many(s, 1)
    book = snapshots.load_book(s.url, 'a')
    assert book is not None and 'web_1' in s.t.tracker
    snapshots.save_snapshot(s.url, book)
    hear(s.t, [e for e in s.venue.ever if e.client_id == 'web_1' and isinstance(e, Filled)])      # the desk has it still and knows better; the snapshot has let go of it
    s.journal.commit()
    again, whole_ = snapshots.load_book(s.url, 'a'), replay(read_entries(s.url, 'a'))
    assert again is not None and 'web_1' not in again.orders
    assert again.account == whole_.account and again.account.cash == s.t.view.account.cash
    s.watch.close()


def test_our_own_fills_do_not_carry_the_cursor_past_somebody_elses(desk: Story) -> None:
    "For two minutes the venue answers no question, and its stream goes on."
    many(desk, 5)
    desk.step('web', 1); desk.step('hear', 0)
    desk.step('send', 1); desk.step('hear', 0)
    desk.venue.trade(desk.venue.open_orders()[-1], D(2)); desk.step('hear', 0)
    desk.clock.advance(120 * SECOND)
    desk.look()
    assert desk.watch.wrong == [] and desk.t.view.account.qty('BTC-USD') == desk.venue.held and desk.t.view.halted == ''
