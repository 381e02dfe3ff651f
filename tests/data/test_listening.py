"""Every order of mishaps: the sequence that comes out is the true one, or the hole is reported."""
from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.data.dialect import BookChange, Heard, Hole, Subscription
from gekko.data.inbox import Inbox
from gekko.data.listening import Ear, drop, flush, hear, want
from gekko.data.mending import connected, give_up, lost, mend, needs, status
from gekko.data.orderbook import OrderBook
from gekko.data.sequence import Numbers, Recent
from gekko.domain.errors import BadInput
from gekko.domain.market import Depth, Level, Quote, Trade
from gekko.domain.time import SECOND

D = Decimal
S = 'BTC-USD'
# what happens next: a message arrives, is lost, is doubled, is held back and comes later, REST answers (wholly, in part, with overlap, not at all), the line breaks
MISHAPS = ('arrives', 'arrives', 'arrives', 'lost', 'doubled', 'held back', 'released', 'repaired', 'half repaired', 'repaired with overlap', 'given up', 'line breaks')
STORY = st.lists(st.tuples(st.sampled_from(MISHAPS), st.integers(0, 5)), max_size=80)


def trade(n: int, ts: int = 0) -> Trade: return Trade(S, ts, D(42000 + n), D(1), trade_id=str(n), seq=n)


class Market:
    """The truth, and what of it reached the ear. Message n happens at time n * SECOND and is in the venue's past."""

    def __init__(self, ear: Ear, first: int = 1) -> None:
        self.ear, self.n, self.now, self.out, self.back = ear, first - 1, first * SECOND, list[Any](), list[int]()
        self.missed, self.ts = dict[int, int](), dict[int, int]()
        want(ear, [Subscription(S, 'trade')], self.now)
        connected(ear, self.now)
        self.arrive()

    def tick(self) -> None: self.now += SECOND
    def take(self) -> None: self.out, self.ear.out = self.out + self.ear.out, []
    def hear(self, n: int) -> None:
        hear(self.ear, Heard((self.trade(n),), f'trade:{S}', n), self.now)
        self.take()
    def trade(self, n: int) -> Trade: return trade(n, self.ts[n])
    def happen(self) -> None:
        self.n += 1
        self.ts[self.n] = self.now

    def arrive(self) -> None:
        self.tick()
        self.happen()
        self.hear(self.n)

    def answer(self, what: str, arg: int) -> None:
        for need in needs(self.ear):
            found = [self.trade(n) for n in range(need.after + 1, (need.upto or self.n) + 1)]
            if what == 'half repaired': found = found[:max(1, len(found) // 2)] if arg % 2 else found[1:]
            if what == 'repaired with overlap': found = [self.trade(n) for n in range(max(1, need.after - 3), need.upto + 4) if n <= self.n]
            mend(self.ear, need, found, self.now)
        self.take()

    def play(self, what: str, arg: int) -> None:
        self.tick()
        if what == 'arrives': self.arrive()
        elif what == 'lost':
            self.happen()
            self.missed[self.n] = self.now
        elif what == 'doubled': self.hear(max(1, self.n - arg)) if max(1, self.n - arg) not in self.missed and max(1, self.n - arg) not in self.back else None
        elif what == 'held back':
            self.happen()
            self.back.append(self.n)
            self.missed[self.n] = self.now
        elif what == 'released' and self.back: self.hear(self.back.pop(arg % len(self.back)))
        elif what == 'given up':
            for need in needs(self.ear): give_up(self.ear, need.channel, self.now)
        elif what == 'line breaks':
            lost(self.ear, self.now, 'cut')
            self.tick()
            connected(self.ear, self.now)
        elif 'repaired' in what: self.answer(what, arg)
        self.take()

    def end(self) -> None:
        self.arrive()
        for need in needs(self.ear): give_up(self.ear, need.channel, self.now)
        self.take()
        self.arrive()

    @property
    def seqs(self) -> list[int]: return [e.seq for e in self.out if isinstance(e, Trade)]
    @property
    def lost(self) -> list[Hole]: return [h for h in self.out if isinstance(h, Hole) and h.until and h.lost]


@settings(max_examples=400)
@given(STORY)
def test_the_true_sequence_or_a_reported_hole(story: list[tuple[str, int]]) -> None:
    m = Market(Ear())
    for what, arg in story: m.play(what, arg)
    m.end()
    assert m.seqs == sorted(set(m.seqs)), 'in order, each once'
    for n in set(range(1, m.n + 1)) - set(m.seqs):
        when = m.missed[n]
        assert any(h.since <= when <= h.until for h in m.lost), f'{n} is missing without a word'
    assert all(t == m.trade(t.seq) for t in m.out if isinstance(t, Trade))


@settings(max_examples=200)
@given(STORY)
def test_with_a_venue_that_answers_nothing_is_lost(story: list[tuple[str, int]]) -> None:
    m = Market(Ear())
    for what, arg in story:
        if what != 'given up': m.play(what, arg)
    m.arrive()
    while needs(m.ear): m.answer('repaired', 0)
    assert m.seqs == list(range(1, m.n + 1)) and needs(m.ear) == [] and not m.ear.lost


@settings(max_examples=200)
@given(STORY)
def test_holes_open_and_close_in_turn(story: list[tuple[str, int]]) -> None:
    m = Market(Ear())
    for what, arg in story: m.play(what, arg)
    m.end()
    opened: dict[str, Hole] = {}
    for h in (e for e in m.out if isinstance(e, Hole)):
        if not h.until:
            assert h.channel not in opened
            opened[h.channel] = h
        else: assert opened.pop(h.channel).since == h.since <= h.until
    assert set(opened) == {''} if m.ear.line else opened == {}
    s = status(m.ear, S, m.now)
    assert s.gaps == s.repaired + s.lost and s.fresh


@settings(max_examples=200)
@given(STORY)
def test_numbers_that_begin_again_with_the_line(story: list[tuple[str, int]]) -> None:
    """Trades by id are in order, each once; whatever is missing lies in a hole."""
    ear = Ear(per_connection=('line',))
    want(ear, [Subscription(S, 'trade')], SECOND)
    connected(ear, SECOND)
    now, n, k, out, missed = SECOND, 0, 0, list[Any](), dict[int, int]()
    for what, _arg in [('arrives', 0), *story, ('arrives', 0)]:
        now += SECOND
        if what in ('arrives', 'lost'):
            n, k = n + 1, k + 1
            if what == 'lost': missed[n] = now
            else: hear(ear, Heard((trade(n),), 'line', k - 1), now)
        elif what == 'line breaks':
            lost(ear, now, 'cut')
            n, k = n + 1, 0
            missed[n] = now
            now += SECOND
            connected(ear, now)
        elif what in ('repaired', 'given up'):
            for need in needs(ear):
                if what == 'given up': give_up(ear, need.channel, now)
                else: mend(ear, need, [trade(i) for i in range(1, n + 1)], now)
        out, ear.out = out + ear.out, []
    now += SECOND
    hear(ear, Heard((trade(n + 1),), 'line', k), now)
    for need in needs(ear): give_up(ear, need.channel, now)
    out += ear.out
    seqs = [e.seq for e in out if isinstance(e, Trade)]
    assert len(seqs) == len(set(seqs)) and needs(ear) == []
    holes = [h for h in out if isinstance(h, Hole) and h.until and h.lost]
    for i in set(range(1, n + 2)) - set(seqs): assert any(h.since <= missed[i] <= h.until for h in holes), i


LEVELS = st.lists(st.tuples(st.booleans(), st.integers(1, 20), st.integers(0, 4)), min_size=1, max_size=4)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(['arrives', 'arrives', 'lost', 'doubled', 'snapshot', 'old snapshot', 'given up', 'line breaks']), LEVELS), max_size=60))
def test_a_book_that_is_shown_is_the_true_book(story: list[tuple[str, list[tuple[bool, int, int]]]]) -> None:
    ear, true, now, shots = Ear(levels=50, depth=0), OrderBook(S), SECOND, list[BookChange]()
    true.apply(BookChange(S, 0, (), (), seq=1, snapshot=True))
    at: dict[int, Depth | None] = {1: true.depth(50)}
    want(ear, [Subscription(S, 'book')], now)
    connected(ear, now)
    last: BookChange | None = None
    for what, moves in story:
        now += SECOND
        if what in ('arrives', 'lost'):
            bids = tuple(Level(D(p), D(q)) for bid, p, q in moves if bid)
            asks = tuple(Level(D(100 + p), D(q)) for bid, p, q in moves if not bid)
            last = BookChange(S, now, bids, asks, now, true.seq + 1, true.seq + len(moves))
            assert not true.apply(last)
            at[true.seq] = true.depth(50)
            if what == 'arrives': hear(ear, Heard((last,), f'book:{S}', last.seq, last.first), now)
        elif what == 'doubled' and last is not None: hear(ear, Heard((last,), f'book:{S}', last.seq, last.first), now)
        elif 'snapshot' in what:
            d = at[true.seq]
            assert d is not None
            shots.append(BookChange(S, now, d.bids, d.asks, now, 0, true.seq, snapshot=True))
            for need in needs(ear): mend(ear, need, [shots[0 if what == 'old snapshot' else -1]], now)
        elif what == 'given up':
            for need in needs(ear): give_up(ear, need.channel, now)
        elif what == 'line breaks':
            lost(ear, now, 'cut')
            connected(ear, now)
        flush(ear, now)
    for d in ear.made:
        assert isinstance(d, Depth) and (t := at[d.seq]) is not None
        assert (d.bids, d.asks) == (t.bids, t.asks)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 4)), max_size=80), st.data())
def test_numbers_pass_once_and_in_order(offers: list[tuple[int, int]], data: Any) -> None:
    n: Numbers[int] = Numbers()
    n.last, out = 0, []
    for seq, length in offers:
        out += [i for _, i in n.offer(seq, seq, max(1, seq - length))]
        if n.hole and data.draw(st.booleans()): out += [i for _, i in n.covered(n.hole[1])]
        assert n.hole is None or n.hole[0] == n.last < n.held[0][0] - 1
    assert out == sorted(set(out))


@given(st.lists(st.tuples(st.sampled_from('tqd'), st.integers(0, 2)), max_size=60), st.lists(st.integers(1, 7), max_size=10))
def test_an_inbox_keeps_each_trade_and_the_newest_quote(events: list[tuple[str, int]], limits: list[int]) -> None:
    box, put, got = Inbox(), list[Any](), list[Any]()
    for n, (kind, which) in enumerate(events):
        s = f'S{which}'
        e: Any = Trade(s, n, D(1), D(1), seq=n) if kind == 't' else Quote(s, n, D(1), D(2), seq=n) if kind == 'q' else Depth(s, n, (), (), seq=n)
        put.append(e)
        box.put([e], mark=n + 1)
        if limits and n % 6 == 5: got += box.take(limits.pop())
    got += box.take()
    assert [e for e in got if isinstance(e, Trade)] == [e for e in put if isinstance(e, Trade)]
    for s in {e.symbol for e in put}:
        mine = [e.seq for e in got if e.symbol == s]
        assert mine == sorted(set(mine))
        for kind in (Quote, Depth):
            if said := [e for e in put if e.symbol == s and type(e) is kind]: assert said[-1] in got
    assert box.waiting == 0 and box.mark == len(put) and len(got) + box.replaced == len(put)


def test_a_flood_behind_a_hole_is_bounded() -> None:
    """What waits behind a book's hole is let go when it is given up: the snapshot must be newer than all of it."""
    ear = Ear()
    want(ear, [Subscription(S, 'book')], SECOND)
    for n in range(5, 5000): hear(ear, Heard((BookChange(S, n, (), (), n, n, n),), f'book:{S}', n, n), n)
    n = ear.numbers[f'book:{S}']
    assert len(n.held) == 4995
    give_up(ear, f'book:{S}', 6000)
    assert not n.held and needs(ear)[0].upto == 4999 and status(ear, S, 6000).state == 'broken'


def test_a_venue_that_counts_anew() -> None:
    ear = Ear()
    want(ear, [Subscription(S, 'trade')], SECOND)
    hear(ear, Heard((trade(900_000),), f'trade:{S}', 900_000), SECOND)
    for n in range(1, 1500): hear(ear, Heard((trade(n),), f'trade:{S}', n), SECOND + n)
    seqs = [e.seq for e in ear.out if isinstance(e, Trade)]
    assert seqs == [900_000, *range(1000, 1500)] and ear.restarts == 1
    assert any(isinstance(h, Hole) and h.why == 'the venue counts anew' and h.lost and h.until for h in ear.out)


def test_dropping_a_symbol_forgets_its_holes_and_asking_again_begins_anew() -> None:
    ear = Ear()
    sub = Subscription(S, 'trade')
    want(ear, [sub], SECOND)
    for n in (1, 5): hear(ear, Heard((trade(n),), f'trade:{S}', n), SECOND)
    assert needs(ear)
    drop(ear, [sub])
    assert needs(ear) == [] and ear.wanted == () and status(ear, S, SECOND).why == 'not subscribed'
    want(ear, [sub], SECOND)
    hear(ear, Heard((trade(50),), f'trade:{S}', 50), 2 * SECOND)
    assert needs(ear) == []


def test_recent_remembers_as_many_as_it_should() -> None:
    r = Recent(100)
    assert all(r.add(str(n)) for n in range(1000)) and len(r) == 100
    assert not r.add('999') and r.add('899')


@pytest.mark.parametrize('levels', ['b:NaN:1', 'b:1:NaN'])
def test_a_book_with_a_level_that_is_no_number_is_not_believed(levels: str) -> None:
    side, p, q = levels.split(':')
    ear = Ear()
    want(ear, [Subscription(S, 'book')], SECOND)
    hear(ear, Heard((BookChange(S, 1, (Level(D(1), D(1)),), (Level(D(2), D(1)),), 1, 1, 1, snapshot=True),), f'book:{S}', 1), SECOND)
    assert ear.seen[S].book.whole
    hear(ear, Heard((BookChange(S, 1, (Level(D(p), D(q)),), (), 1, 2, 2),), f'book:{S}', 2), SECOND)
    assert not ear.seen[S].book.whole and needs(ear)[0].after == 0


def test_a_change_of_another_book() -> None:
    with pytest.raises(BadInput, match='a change of another book'): OrderBook(S).apply(BookChange('ETH-USD', 0, (), ()))
