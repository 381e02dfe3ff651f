"""Our books against a venue's truth, over a line that loses, doubles, delays and turns round whatever goes along it, through crashes of ours at any moment.

Every history ends with one pass of reconciliation, after which the two agree to the last unit, and a second that finds nothing. GEKKO_CAMPAIGN=N tries
N times as many, each twice as long and of fresh seeds.
"""
from __future__ import annotations

import os
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model_venue import INSTRUMENTS, LOT, QUOTE, TICK, TIMES, ModelVenue, dec

from gekko.desk.strangers import nameless, strangers
from gekko.domain.account import Account, equity, pnl
from gekko.domain.order import Amended, CancelRequested, Filled, Intent, Lost, Order, OrderEvent, OrderState, OrderType, Side, Submitted
from gekko.execution.ids import client_id
from gekko.execution.reconcile import differences, evidence, silent, statement, unarrived
from gekko.execution.tracker import Tracker
from gekko.ledger.events import Deposited, Entry, External, IntentRecorded, Marked
from gekko.ledger.journal import Chain
from gekko.ledger.replay import Book, replay
from gekko.risk.gate import reserve
from gekko.risk.view import BookView

F = Fraction
WINDOW = 1_000       # nothing that was sent arrives later than this
MONEY = {'USD': F(100_000), 'JPY': F(2_000_000), 'BNB': F(10)}
RATES = {'JPY': Decimal('0.0067'), 'BNB': Decimal('612.5')}
START = {'BTC': F(60_000), 'ES': F(5_000), 'EURJPY': F(160)}
CAMPAIGN = int(os.environ.get('GEKKO_CAMPAIGN', '0'))


class Ours:
    "The desk's side, less sockets: journal, tracker and book. Made anew from the journal after a crash."

    def __init__(self, entries: list[Entry] | None = None) -> None:
        self.entries, self.kept, self.now = list[Entry](), 0, 1
        self.chain, self.tracker, self.view = Chain('demo'), Tracker(), BookView('demo', 'USD', INSTRUMENTS)
        for c, rate in RATES.items(): self.view.rate(c, rate)
        if entries is None: self._begin()
        else: self._again(entries)

    def _begin(self) -> None:
        self.told = Book(Account('demo'))      # what a replay would say by now
        for i in INSTRUMENTS.values(): self.record(i)
        for c, x in MONEY.items():
            self.record(Deposited(dec(x), c))
            self.view.deposit(dec(x), c)
        self.mark({s: dec(p) for s, p in START.items()})
        self.commit()

    def _again(self, entries: list[Entry]) -> None:
        book = self.told = replay(entries)
        self.entries, self.kept, self.now = list(entries), len(entries), book.last_ts
        self.chain = Chain('demo', 1, book.last_seq, book.head)
        for s, p in book.marks.items(): self.view.mark(s, p, self.now)
        self.view.adopt(book.account)
        for o in book.orders.values():
            self.tracker.add(o)
            if not o.state.terminal: self.view.track(o)
        assert self.view.equity == book.equity

    def record(self, obj: object) -> None:
        self.entries.append(self.chain.link(obj, self.now, 'r'))
        self.told.apply(self.entries[-1], obj)
    def commit(self) -> None: self.kept = len(self.entries)
    def book(self) -> Book: return replay(self.entries)

    def mark(self, prices: dict[str, Decimal]) -> None:
        for s, p in prices.items(): self.view.mark(s, p, self.now)
        self.record(Marked(prices, self.view.equity, RATES))

    def hear(self, event: OrderEvent) -> None:
        before = self.tracker.get(event.client_id) if event.client_id in self.tracker else None
        after = self.tracker.on(event)
        self.record(event)
        if before is None or after is None or after is before: return
        if isinstance(event, Filled) and after.filled != before.filled: self.view.fill(event.fill)
        self.view.track(after)

    def intend(self, name: str, intent: Intent) -> None:
        self.record(IntentRecorded(name, intent))
        self.tracker.add(Order(name, intent))
        self.view.track(self.tracker.get(name))

    def ask(self, venue: ModelVenue) -> Any:
        others = nameless(self.tracker, venue.told, ())
        said = statement(venue, [*(o.client_id for o in self.tracker.open()), *others], '', tracker=self.tracker)  # type: ignore[arg-type]
        for s in strangers(self.tracker, said, INSTRUMENTS):
            self.record(External(s.order.client_id, s.order.venue_id, s.order.symbol, 'claim', s.evidence))
            self.intend(s.order.client_id, s.order.intent)
        return statement(venue, [o.client_id for o in self.tracker.open()], '', tracker=self.tracker)  # type: ignore[arg-type]

    def reconcile(self, venue: ModelVenue) -> int:
        "One pass, of a time when nothing is on its way; how many events it took in."
        said = self.ask(venue)
        told = evidence(self.tracker, said, self.now)
        for e in told: self.hear(e)
        ends = unarrived(self.tracker, said, self.now - WINDOW, self.now)
        for e in ends: self.hear(e)
        wrong = differences(self.view.account, self.tracker, self.ask(venue))
        assert not wrong, [str(d) for d in wrong]
        self.commit()
        return len(told) + len(ends)


picks = st.integers(0, 10**6)
symbols = st.sampled_from(sorted(LOT))


class Line(RuleBasedStateMachine):
    "What may happen, one thing after another. `flying`: requests that may still arrive."

    def __init__(self) -> None:
        super().__init__()
        self.venue, self.ours, self.n = ModelVenue(MONEY), Ours(), 0
        self.flying: list[tuple[str, str, tuple[Any, ...]]] = []
        self.marks = dict(START)

    def tick(self) -> int:
        self.ours.now += 1
        return self.ours.now
    def pick(self, items: list[Any], at: int) -> Any: return items[at % len(items)] if items else None
    def ends(self) -> list[Any]: return [d for d in self.venue.deals.values() if d.open]

    @rule(symbol=symbols, sizes=st.lists(st.integers(-40, 40).filter(bool), min_size=1, max_size=3), price=st.integers(0, 400))
    def quiet(self, symbol: str, sizes: list[int], price: int) -> None:
        "Some orders that go well: positions come, go and turn round, with fees in the coin where there is one."
        for lots in filter(None, [*sizes, -sum(sizes)]):      # to where it was
            self.submit(symbol, lots > 0, abs(lots), None, 'arrives', 1)
            d = list(self.venue.deals.values())[-1]
            self.venue.trade(d, d.size, START[symbol] + (price + lots - 200) * TICK[symbol], F(1, 10**6) if symbol == 'BTC' else F(1, 100), 'BTC' if symbol == 'BTC' else QUOTE[symbol], self.tick())
            self.ours.hear(self.venue.said.pop())
            self.ours.hear(self.venue.said.pop())

    # our requests

    @rule(symbol=symbols, buys=st.booleans(), lots=st.integers(1, 40), limit=st.none() | st.integers(1, 400), how=st.sampled_from(['arrives', 'arrives', 'flies', 'lost', 'unsent']), refuse=st.integers(0, 7))
    def submit(self, symbol: str, buys: bool, lots: int, limit: int | None, how: str, refuse: int) -> None:
        ts = self.tick()
        name, size, price = client_id('demo', 'r', self.n), lots * LOT[symbol], None if limit is None else START[symbol] + (limit - 200) * TICK[symbol]
        self.n += 1
        kind = OrderType.MARKET if price is None else OrderType.LIMIT
        self.ours.intend(name, Intent(symbol, Side.BUY if buys else Side.SELL, dec(size), kind, None if price is None else dec(price), run='r', ts=ts))
        if how == 'unsent': return
        self.ours.hear(Submitted(name, ts))
        self.ours.commit()
        request = ('submit', name, (symbol, buys, size, price))
        if how == 'arrives': self._arrive(request, not refuse)
        elif how == 'flies': self.flying.append(request)

    @rule(at=picks, how=st.sampled_from(['arrives', 'flies', 'lost']))
    def cancel(self, at: int, how: str) -> None:
        if (o := self.pick(self.ours.tracker.open(), at)) is None or o.state is OrderState.INTENT: return
        self.ours.hear(CancelRequested(o.client_id, self.tick()))
        self.ours.commit()
        request = ('cancel', o.client_id, ())
        if how == 'arrives': self._arrive(request)
        elif how == 'flies': self.flying.append(request)

    @precondition(lambda self: self.flying)
    @rule(at=picks, refuse=st.integers(0, 7))
    def arrive(self, at: int, refuse: int) -> None: self._arrive(self.flying.pop(at % len(self.flying)), not refuse)

    def _arrive(self, request: tuple[str, str, tuple[Any, ...]], refuse: bool = False) -> None:
        what, name, more = request
        ts = self.tick()
        if what == 'submit': self.venue.take(name, *more, ts, refuse)
        else: self.venue.asked_to_cancel(name, ts)

    @rule(at=picks)
    def time_out(self, at: int) -> None:
        "We waited long enough for an answer, whether one is on its way or not."
        waiting = [(o, 'submit') for o in self.ours.tracker.open() if o.state is OrderState.SUBMITTED] + [(o, 'cancel') for o in self.ours.tracker.open() if o.cancelling]
        if waiting: self.ours.hear(Lost(waiting[at % len(waiting)][0].client_id, waiting[at % len(waiting)][1], self.tick()))

    # what becomes of orders

    @rule(at=picks, part=st.integers(1, 40), price=st.integers(0, 400), fee=st.sampled_from([(0, 'quote'), (F(1, 100), 'quote'), (F(-1, 200), 'quote'), (F(1, 10**6), 'base'), (F(1, 10**5), 'BNB'), (F(1, 3 * 2**20) * 3, 'quote')]), whole=st.booleans())
    def trade(self, at: int, part: int, price: int, fee: tuple[Fraction, str], whole: bool) -> None:
        if (d := self.pick(self.ends(), at)) is None: return
        size = d.size - d.filled if whole else min(part * LOT[d.symbol], d.size - d.filled)
        currency = {'quote': QUOTE[d.symbol], 'base': 'BTC' if d.symbol == 'BTC' else QUOTE[d.symbol]}.get(fee[1], fee[1])
        self.venue.trade(d, size, START[d.symbol] + (price - 200) * TICK[d.symbol], F(fee[0]), currency, self.tick())

    @rule(at=picks, how=st.sampled_from(['cancelled', 'expired']))
    def end(self, at: int, how: str) -> None:
        if (d := self.pick(self.ends(), at)) is not None: self.venue.end(d, how, self.tick())

    @rule(at=picks, lots=st.integers(1, 50), limit=st.integers(1, 400))
    def amend(self, at: int, lots: int, limit: int) -> None:
        "By a person, on the venue's own page."
        if (d := self.pick(self.ends(), at)) is None: return
        self.venue.amend(d, max(lots * LOT[d.symbol], d.filled), None if d.limit is None else START[d.symbol] + (limit - 200) * TICK[d.symbol], self.tick())

    @rule(symbol=symbols, buys=st.booleans(), lots=st.integers(1, 20), limit=st.booleans())
    def stranger(self, symbol: str, buys: bool, lots: int, limit: bool) -> None:
        "An order that we never made."
        self.n += 1
        self.venue.take(f'web-{self.n}', symbol, buys, lots * LOT[symbol], START[symbol] if limit else None, self.tick())

    # the line back

    @precondition(lambda self: self.venue.said)
    @rule(at=picks, again=st.integers(0, 3), first=st.booleans())
    def hear(self, at: int, again: int, first: bool) -> None:
        i = 0 if first else at % len(self.venue.said)
        self.tick()
        self.ours.hear(self.venue.said[i])
        if again: self.venue.said.pop(i)

    @precondition(lambda self: self.venue.said)
    @rule(at=picks)
    def lose(self, at: int) -> None: self.venue.said.pop(at % len(self.venue.said))

    # ourselves

    @rule(moves=st.lists(st.integers(-300, 300), min_size=3, max_size=3))
    def mark(self, moves: list[int]) -> None:
        self.marks = {s: START[s] + m * TICK[s] for s, m in zip(sorted(LOT), moves, strict=True)}
        self.tick()
        self.ours.mark({s: dec(p) for s, p in self.marks.items()})

    @rule(at=picks)
    def crash(self, at: int) -> None:
        "What was not committed may be gone, from any entry on."
        entries = self.ours.entries[:self.ours.kept + at % (len(self.ours.entries) - self.ours.kept + 1)]
        now = self.ours.now
        self.ours = Ours(entries)
        self.ours.now = now + 1
        self.marks = {s: F(p) for s, p in self.ours.view.marks.items()}

    @rule()
    def look(self) -> None:
        "Reconciliation while requests may be on their way: silence proves nothing, and what was never heard of stays reserved."
        self.tick()
        said = self.ours.ask(self.venue)
        for e in evidence(self.ours.tracker, said, self.ours.now): self.ours.hear(e)
        for o in silent(self.ours.tracker, said):
            self.ours.hear(Lost(o.client_id, 'submit', self.ours.now))
            now = self.ours.tracker.get(o.client_id)
            assert now.state is OrderState.UNKNOWN and now.open_qty == o.intent.qty and not unarrived(self.ours.tracker, said, self.ours.now - WINDOW, self.ours.now)
        self.ours.commit()

    @rule(late=st.booleans())
    def settle(self, late: bool) -> None:
        "Nothing is on its way any more: one pass brings the truth, a second finds nothing, and whatever is heard afterwards is old news."
        self.ours.now += 2 * WINDOW
        self.flying.clear()
        self.ours.reconcile(self.venue)
        self.agree()
        assert self.ours.reconcile(self.venue) == 0
        if late:
            for e in self.venue.said:
                if not isinstance(e, Amended): self.ours.hear(e)      # an amendment undone since, and never heard of, is news: the next pass undoes it
            self.venue.said.clear()
            self.agree()

    # what must be true

    def agree(self) -> None:
        v, ours = self.venue, self.ours
        assert all(n in ours.tracker or (n.startswith('web') and not d.open and not d.filled) for n, d in v.deals.items())
        for o in ours.tracker.all():
            d = v.deals.get(o.client_id)
            if d is None: assert (o.state, o.filled, o.open_qty) == (OrderState.REJECTED, 0, 0)     # it never arrived
            else: assert (o.state.value, F(o.filled), F(o.paid), F(o.fees), F(o.intent.qty), o.conflict, o.open_qty) == (d.stands, d.filled, d.paid, d.fees, d.size, '', dec(d.size - d.filled) if d.open else 0)
        account = ours.view.account
        assert {c: F(x) for c, x in account.cash.items()} == v.money
        assert {s: F(p.qty) for s, p in account.positions.items() if p.qty} == {s: x for s, x in v.held.items() if x}
        assert {c: F(x) for c, x in account.paid.items() if x} == {c: x for c, x in v.cost.items() if x}
        for p in account.positions.values(): assert (p.cost > 0) - (p.cost < 0) == (p.qty > 0) - (p.qty < 0), 'what is held has a cost, and what is not has none'
        rates = {'USD': F(1), **{c: F(x) for c, x in RATES.items()}}
        worth = sum(x * rates[c] for c, x in v.money.items()) + sum(x * self.marks[s] * TIMES[s] * rates[QUOTE[s]] for s, x in v.held.items())
        assert F(ours.view.equity) == worth
        earned = pnl(account, ours.view.marks, RATES)
        assert F(earned.net) == worth - sum(x * rates[c] for c, x in MONEY.items())
        book = ours.book()
        assert book.account == account and book.equity == ours.view.equity == equity(account, ours.view.marks, INSTRUMENTS, RATES)
        assert book.orders == {o.client_id: o for o in ours.tracker.all()}

    @invariant()
    def nothing_is_forgotten(self) -> None:
        flying = {name for what, name, _ in self.flying if what == 'submit'}
        for o in self.ours.tracker.all():
            d = self.venue.deals.get(o.client_id)
            assert o.filled <= o.intent.qty
            if d is None:
                assert not o.filled and not o.conflict
                if o.client_id in flying: assert not o.state.terminal and o.open_qty == o.intent.qty, 'it may still arrive'
                assert not o.state.terminal or o.state is OrderState.REJECTED
                continue
            assert F(o.filled) <= d.filled
            if o.state is OrderState.REJECTED: assert d.state == 'rejected', 'only the venue rejects'
            if not d.amended:
                assert not o.conflict, 'a truthful venue is never called a liar'
                if d.open: assert F(o.open_qty) >= d.size - d.filled, 'what may still trade stays reserved'
                if o.state.terminal: assert o.state.value == d.state

    @invariant()
    def sums_are_sums(self) -> None:
        for s in LOT:
            parts = [reserve(o) for o in self.ours.tracker.all() if o.symbol == s]
            whole = tuple(sum((p[i] for p in parts), Decimal(0)) for i in range(4))
            assert tuple(self.ours.tracker.reserved(s)) == whole == tuple(self.ours.view.reserved(s))

    @invariant()
    def the_journal_says_the_same(self) -> None:
        book = self.ours.told
        assert book.account == self.ours.view.account
        assert not [f for f in book.faults if not f.what.startswith(('conflict', 'fill of an order', 'accepted of', 'cancelled of', 'expired of', 'amended of', 'rejected of'))]

    def teardown(self) -> None: self.settle(True)


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60 * max(CAMPAIGN, 1), stateful_step_count=60 if CAMPAIGN else 30, deadline=None, report_multiple_bugs=False, derandomize=not CAMPAIGN,
                             suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])
