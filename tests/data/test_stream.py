"""The stream against a real server that drops, mutes, half-opens, doubles, swaps, skips and talks nonsense."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import wraps
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from pipe_venue import QUICK, PipeDialect, Venue, in_thread, scene

from gekko.data.stream import BookChange, Heard, Hole, Pace, Stream, Subscription, _wait_for_room, backoff
from gekko.domain.errors import BadInput, Halt, Reject, Retry
from gekko.domain.market import Depth, Quote, Trade
from gekko.domain.time import SystemClock

D = Decimal
BTC, ETH = ('BTC-USD', 'trade'), ('ETH-USD', 'trade')


def timed(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kw: Any) -> None: asyncio.run(asyncio.wait_for(test(*args, **kw), 20))
    return run


def lost(s: Any, symbol: str = 'BTC-USD') -> list[str]: return [h.why for h in s.of(Hole) if h.symbol == symbol and h.until and h.lost]


@timed
async def test_many_subscriptions_share_one_line() -> None:
    async with scene(BTC, ETH, ('BTC-USD', 'quote'), ('ETH-USD', 'quote')) as s:
        assert sorted(s.venue.heard) == ['listen BTC-USD quote', 'listen BTC-USD trade', 'listen ETH-USD quote', 'listen ETH-USD trade']
        await s.venue.say(*s.venue.trades('BTC-USD', 1, 5), 'Q BTC-USD 41999.90 42000.10', *s.venue.trades('ETH-USD', 9, 11))
        await s.until(lambda: len(s.seqs()) == 5 and len(s.seqs('ETH-USD')) == 3 and s.of(Quote))
        assert len(s.venue.lines) == 1
        t = s.of(Trade)[0]
        assert (t.price, t.qty, t.ts, t.seq) == (D('42001.10'), D('0.2'), 10**9, 1) and t.received > 1.7e18
        assert s.of(Quote)[0].ask == D('42000.10')
        assert all(x.fresh for x in s.stream.status().values())


@timed
async def test_a_cut_line_comes_back_with_everything() -> None:
    async with scene(BTC, ETH) as s:
        await s.venue.say(*s.venue.trades('BTC-USD', 1, 3), *s.venue.trades('ETH-USD', 1, 2))
        await s.until(lambda: s.seqs() == [1, 2, 3] and len(s.seqs('ETH-USD')) == 2)
        await s.venue.hang_up()
        s.venue.trades('BTC-USD', 4, 9)
        await s.up(lines=2)
        await s.venue.say(*s.venue.trades('BTC-USD', 10, 11), *s.venue.trades('ETH-USD', 3, 3))
        await s.until(lambda: s.seqs() == list(range(1, 12)) and s.seqs('ETH-USD') == [1, 2, 3])
        assert s.venue.heard.count('listen BTC-USD trade') == 2 and s.venue.asked == [('trade:BTC-USD', 3, 9)]
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)
        st = s.stream.status()['BTC-USD']
        assert (st.reconnects, st.gaps, st.repaired, st.lost) == (1, 1, 1, 0)
        opened, closed = [h for h in s.of(Hole) if h.symbol == 'ETH-USD' and 'line is gone' in h.why]
        assert opened.until == 0 and closed.until > closed.since == opened.since


@timed
async def test_an_orderly_goodbye_is_no_different() -> None:
    async with scene(BTC) as s:
        await s.venue.open[0].close()
        await s.up(lines=2)
        await s.venue.say(*s.venue.trades('BTC-USD', 1, 1))
        await s.until(lambda: s.seqs() == [1])


@timed
async def test_a_half_open_socket_is_found_and_left() -> None:
    """Nobody reads, nobody writes, nobody says goodbye: the question is not answered, and the line is dialled anew."""
    async with scene(BTC, dialect=lambda v: PipeDialect(v, quiet_s=0.1)) as s:
        await s.venue.say(*s.venue.trades('BTC-USD', 1, 2))
        await s.until(lambda: s.seqs() == [1, 2])
        s.venue.deaf = True
        s.venue.trades('BTC-USD', 3, 4)
        await s.until(lambda: not s.stream.ear.up or len(s.venue.lines) > 1)
        s.venue.deaf = False
        await s.until(lambda: 'silent for' in s.stream.health()['error'])
        await s.up(lines=2)
        await s.venue.say(*s.venue.trades('BTC-USD', 5, 5))
        await s.until(lambda: s.seqs() == [1, 2, 3, 4, 5])


@timed
async def test_a_line_that_answers_is_kept_and_a_mute_symbol_goes_stale() -> None:
    async with scene(BTC, ETH, stale_s=0.3, dialect=lambda v: PipeDialect(v, quiet_s=0.1)) as s:
        await s.venue.say(*s.venue.trades('BTC-USD', 1, 1), *s.venue.trades('ETH-USD', 1, 1))
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh and s.stream.status()['ETH-USD'].fresh)
        n = 1
        while s.stream.status()['ETH-USD'].state != 'stale':
            n += 1
            await s.venue.say(*s.venue.trades('BTC-USD', n, n))
            await asyncio.sleep(0.05)
            s.poll()
        assert s.stream.status()['BTC-USD'].fresh and s.stream.status()['ETH-USD'].why == 'silent for 0 s'
        await s.until(lambda: s.stream.status()['BTC-USD'].state == 'stale')
        await s.until(lambda: s.venue.heard.count('ping') >= 3)
        assert len(s.venue.lines) == 1, 'a venue that answers is alive'
        await s.venue.say(*s.venue.trades('ETH-USD', 2, 2))
        await s.until(lambda: s.stream.status()['ETH-USD'].fresh)


@timed
async def test_doubled_swapped_and_skipped_messages() -> None:
    async with scene(BTC) as s:
        t = ['', *s.venue.trades('BTC-USD', 1, 12)]
        await s.venue.say(t[1], t[2], t[2], t[1], t[4], t[3], t[5], t[5])
        await s.venue.say(t[8], t[9], t[12], t[10])
        await s.until(lambda: s.seqs() == list(range(1, 13)))
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)
        st = s.stream.status()['BTC-USD']
        assert st.duplicates >= 3 and st.disordered >= 2 and st.lost == 0 and st.gaps == st.repaired > 0
        assert lost(s) == ['not heard yet']


@timed
async def test_disorder_that_mends_itself_costs_no_call() -> None:
    async with scene(BTC, pace=Pace(**{**{f: getattr(QUICK, f) for f in Pace.__slots__}, 'settle': 0.5})) as s:
        t = ['', *s.venue.trades('BTC-USD', 1, 4)]
        await s.venue.say(t[1], t[3], t[2], t[4])
        await s.until(lambda: s.seqs() == [1, 2, 3, 4])
        await asyncio.sleep(0.6)
        assert s.venue.asked == [] and s.stream.status()['BTC-USD'].repaired == 1


@timed
async def test_a_repair_that_fails_is_tried_again() -> None:
    async with scene(BTC) as s:
        t = s.venue.trades('BTC-USD', 1, 6)
        s.venue.broken_rest = 2
        await s.venue.say(t[0], t[5])
        await s.until(lambda: s.seqs() == [1, 2, 3, 4, 5, 6])
        assert len(s.venue.asked) == 3 and lost(s) == ['not heard yet']


@timed
async def test_a_hole_that_nobody_can_fill_is_reported_and_the_rest_goes_on() -> None:
    async with scene(BTC, ETH) as s:
        t = s.venue.trades('BTC-USD', 1, 6)
        s.venue.past['trade:BTC-USD'] = t[1:3]             # REST knows 2 and 3, not 4
        await s.venue.say(t[0], t[4], *s.venue.trades('ETH-USD', 1, 1))
        await s.until(lambda: s.seqs('ETH-USD') == [1])
        assert s.seqs() in ([1], [1, 2, 3], [1, 2, 3, 5]), 'one symbol waits, the other does not'
        await s.until(lambda: s.seqs() == [1, 2, 3, 5])
        await s.until(lambda: lost(s) == ['not heard yet', '2 to 4 missing'])
        await s.venue.say(t[5])
        await s.until(lambda: s.seqs() == [1, 2, 3, 5, 6])
        assert s.stream.status()['BTC-USD'].lost == 1


@timed
async def test_a_repair_that_hangs_ends() -> None:
    class Hung(PipeDialect):
        async def repair(self, channel: str, after: int, upto: int) -> Any: await asyncio.sleep(60)
    pace = Pace(first=0.01, most=0.01, settle=0.0, repair=0.05, tries=2, tick=0.01)
    async with scene(BTC, dialect=Hung, pace=pace) as s:
        t = s.venue.trades('BTC-USD', 1, 3)
        await s.venue.say(t[0], t[2])
        await s.until(lambda: s.seqs() == [1, 3] and s.stream.status()['BTC-USD'].lost == 1)


@timed
async def test_nonsense_is_counted_and_survived() -> None:
    async with scene(BTC) as s:
        t = s.venue.trades('BTC-USD', 1, 3)
        await s.venue.say(t[0], '<html><body>502 Bad Gateway</body></html>', '{"e":"trade","p":', '', b'\x00\xff\xfe', 'T BTC-USD x 1 1', 'T BTC-USD 2 banana 1', t[1], t[2])
        await s.until(lambda: s.seqs() == [1, 2, 3])
        assert s.stream.health()['garbage'] == 6 and len(s.venue.lines) == 1
        assert s.metrics['stream.garbage'] == 6.0
        assert 'a frame that cannot be read' in lost(s)


@timed
@pytest.mark.parametrize('price', ['NaN', '-1', '0', 'Infinity', '1e40'])
async def test_a_price_that_is_none_is_a_hole_and_no_trade(price: str) -> None:
    async with scene(BTC) as s:
        await s.venue.say('T BTC-USD 1 42000 1', f'T BTC-USD 2 {price} 1', 'T BTC-USD 3 42001 1')
        await s.until(lambda: s.seqs() == [1, 3])
        assert any('a trade of 1 at' in why for why in lost(s)) and s.stream.health()['bad'] == 1


@timed
async def test_nothing_but_nonsense_is_no_venue() -> None:
    async with scene(BTC) as s:
        await s.venue.say(*['<html>'] * 30)
        await s.up(lines=2)
        assert 'cannot be read' in s.stream.health()['error']


@timed
async def test_a_huge_frame_ends_the_line_and_not_the_stream() -> None:
    async with scene(BTC) as s:
        t = s.venue.trades('BTC-USD', 1, 2)
        await s.venue.say(t[0])
        await s.until(lambda: s.seqs() == [1])
        await s.venue.say('T' * (3 << 20))
        await s.up(lines=2)
        await s.venue.say(t[1])
        await s.until(lambda: s.seqs() == [1, 2])
        assert s.stream.health()['garbage'] == 0


@timed
async def test_a_book_begins_is_kept_and_is_mended() -> None:
    async with scene(('BTC-USD', 'book'), levels=5) as s:
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 99 b:100:1 b:99:2 a:101:1 a:102:5']       # older than the first change: there is a hole between
        await s.venue.say('B BTC-USD 101 103 b:100:3')
        await s.venue.say('B BTC-USD 104 104 b:99:0 a:101:7')
        await s.until(lambda: s.venue.asked)
        assert s.venue.asked[0] == ('book:BTC-USD', 0, 100) and not s.of(Depth)
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 102 b:100:2 b:99:2 a:101:1 a:102:5']
        await s.until(lambda: s.of(Depth) and s.of(Depth)[-1].seq == 104)
        d = s.of(Depth)[-1]
        assert [(x.price, x.qty) for x in d.bids] == [(100, 3)] and [(x.price, x.qty) for x in d.asks] == [(101, 7), (102, 5)]
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 110 b:90:1 a:91:1']
        await s.venue.say('B BTC-USD 107 108 b:100:9')
        await s.until(lambda: s.of(Depth)[-1].seq == 110)
        assert [x.price for x in s.of(Depth)[-1].bids] == [90]
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)
        assert not s.of(BookChange)


@timed
async def test_a_crossed_book_is_not_shown() -> None:
    async with scene(('BTC-USD', 'book')) as s:
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 1 b:100:1 a:101:1']
        await s.venue.say('B BTC-USD 2 2 b:100:2')
        await s.until(lambda: s.of(Depth))
        s.venue.broken_rest = 5
        await s.venue.say('B BTC-USD 3 3 b:105:1')
        await s.until(lambda: s.stream.status()['BTC-USD'].state == 'broken')
        assert s.stream.status()['BTC-USD'].why == 'book: crossed: bid 105, ask 101'
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 9 b:105:1 a:106:1']
        await s.until(lambda: s.of(Depth)[-1].seq == 9)
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)
        assert all(d.bids[0].price < d.asks[0].price for d in s.of(Depth))


@timed
async def test_a_book_counted_by_the_line_is_asked_for_again() -> None:
    async with scene(('BTC-USD', 'book'), dialect=lambda v: PipeDialect(v, per_connection=frozenset({'line'}))) as s:
        await s.venue.say('S BTC-USD - L1 b:100:1 a:101:1', 'B BTC-USD - L2 b:100:2', 'B BTC-USD - L4 b:99:2')
        await s.until(lambda: 'leave BTC-USD book' in s.venue.heard and s.venue.heard.count('listen BTC-USD book') == 2)
        assert s.stream.status()['BTC-USD'].state == 'broken'
        await s.venue.say('S BTC-USD - L5 b:99:2 a:101:1')
        await s.until(lambda: s.of(Depth) and [x.price for x in s.of(Depth)[-1].bids] == [99])
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)


@timed
async def test_numbers_of_the_line_begin_again_with_it() -> None:
    async with scene(BTC, dialect=lambda v: PipeDialect(v, per_connection=frozenset({'line'}))) as s:
        await s.venue.say(*[f'T BTC-USD L{n}/{700 + n} 42000 1' for n in range(3)])
        await s.until(lambda: s.seqs() == [700, 701, 702])
        s.venue.past['line'] = [f'T BTC-USD {n} 42000 1' for n in range(700, 706)]
        await s.venue.hang_up()
        await s.up(lines=2)
        await s.venue.say('T BTC-USD L0/705 42000 1', 'T BTC-USD L1/706 42000 1')
        await s.until(lambda: s.seqs() == [700, 701, 702, 703, 704, 705, 706])
        assert s.venue.asked == [('line', 2, 0)] and 'between two lines' in lost(s)


@timed
async def test_a_slow_reader_stops_the_socket_and_loses_nothing() -> None:
    n = 8_000
    async with scene(BTC, capacity=500) as s:
        s.polling = False
        sending = asyncio.create_task(s.venue.say(*s.venue.trades('BTC-USD', 1, n)))
        await s.until(lambda: 'stream.paused' in s.metrics)
        await asyncio.sleep(0.2)
        assert s.stream.inbox.waiting <= 520 and s.stream.health()['queue'] > 400
        s.polling = True
        await s.until(lambda: len(s.got) >= n and len(s.seqs()) == n)
        await sending
        assert s.seqs() == list(range(1, n + 1)) and len(s.venue.lines) == 1


@timed
async def test_quotes_conflate_and_trades_never() -> None:
    async with scene(BTC, ('BTC-USD', 'quote')) as s:
        s.polling = False
        for i, t in enumerate(s.venue.trades('BTC-USD', 1, 50)):
            await s.venue.say(t, *[f'Q BTC-USD {100 + i}.{k} {101 + i}.{k}' for k in range(5)])
        await s.until(lambda: s.stream.health()['frames'] >= 300)
        s.polling = True
        await s.until(lambda: len(s.seqs()) == 50)
        assert [str(q.bid) for q in s.of(Quote)] == ['149.4'] and s.stream.health()['replaced'] == 249


@timed
async def test_taps_see_everything_in_order() -> None:
    async with scene(('BTC-USD', 'quote'), ('BTC-USD', 'book'), BTC, start=False) as s:
        seen: list[Any] = []
        s.stream.tap(seen.append)
        await s.up()
        s.venue.past['book:BTC-USD'] = ['S BTC-USD 0 1 b:100:1 a:101:1']
        t = s.venue.trades('BTC-USD', 1, 2)
        await s.venue.say(t[0], 'Q BTC-USD 1 2', 'Q BTC-USD 1 3', 'B BTC-USD 2 2 b:100:2', 'Q BTC-USD 1 4', t[1])
        await s.until(lambda: s.of(Depth) and len(s.seqs()) == 2)
        kinds = [type(e).__name__ for e in seen if not isinstance(e, Hole)]
        assert [k for k in kinds if k != 'BookChange'] == ['Trade', 'Quote', 'Quote', 'Quote', 'Trade'] and kinds.count('BookChange') == 2
        assert [str(e.ask) for e in seen if isinstance(e, Quote)] == ['2', '3', '4']


@timed
async def test_subscriptions_come_and_go_on_a_running_line() -> None:
    async with scene(BTC) as s:
        s.stream.want([Subscription(*ETH)])
        await s.until(lambda: 'listen ETH-USD trade' in s.venue.heard)
        await s.up()
        await s.venue.say(*s.venue.trades('ETH-USD', 5, 6))
        await s.until(lambda: s.seqs('ETH-USD') == [5, 6])
        s.stream.drop([Subscription(*ETH)])
        await s.until(lambda: 'leave ETH-USD trade' in s.venue.heard)
        await s.venue.say(*s.venue.trades('ETH-USD', 7, 7), *s.venue.trades('BTC-USD', 1, 1))
        await s.until(lambda: s.seqs() == [1])
        assert s.seqs('ETH-USD') == [5, 6] and s.stream.health()['strangers'] == 1 and list(s.stream.status()) == ['BTC-USD']
        assert len(s.venue.lines) == 1


@timed
async def test_a_venue_with_its_symbols_in_the_request_is_dialled_anew() -> None:
    class Asked(PipeDialect):
        wishes: list[tuple[Subscription, ...]] = []
        async def dial(self, wanted: Any) -> Any:
            self.wishes.append(tuple(wanted))
            return await super().dial(wanted)
        def subscribe(self, wanted: Any) -> list[str]: return []
    async with scene(BTC, dialect=Asked, start=False) as s:
        await s.until(lambda: s.venue.lines)
        s.stream.want([Subscription(*ETH)])
        await s.until(lambda: len(s.venue.lines) == 2)
        assert Asked.wishes == [(Subscription(*BTC),), (Subscription(*BTC), Subscription(*ETH))]


@timed
async def test_a_refused_subscription_says_why() -> None:
    async with scene(BTC, start=False) as s:
        s.venue.answers = False
        await s.until(lambda: s.venue.open)
        await s.venue.say('X market BTC-USD is halted')
        await s.until(lambda: 'halted' in s.stream.status()['BTC-USD'].why)
        assert s.stream.status()['BTC-USD'].why == 'refused: trade: market BTC-USD is halted' and s.stream.status()['BTC-USD'].state == 'broken'
        await s.venue.say('A BTC-USD trade', *s.venue.trades('BTC-USD', 1, 1))
        await s.until(lambda: s.stream.status()['BTC-USD'].fresh)


def test_an_unknown_symbol_is_refused_and_nothing_changes() -> None:
    stream = Stream(PipeDialect(Venue()), SystemClock())
    with pytest.raises(BadInput, match='pipe: no trade of BTC-EUR: expected a subscription that the venue has, found pipe lists no BTC-EUR'):
        stream.want([Subscription(*BTC), Subscription('BTC-EUR', 'trade')])
    assert stream.status() == {} and not stream.wishes
    with pytest.raises(BadInput, match='kind of subscription'): Subscription('BTC-USD', 'ticker')


@timed
async def test_a_venue_that_is_away_is_tried_until_it_is_there() -> None:
    async with scene(BTC, start=False) as s:
        s.venue.refusing = True
        for ws in s.venue.open: await ws.close()
        await s.until(lambda: 'cannot connect' in s.stream.health()['error'])
        assert s.stream.status()['BTC-USD'].why == 'cannot connect: WSServerHandshakeError'
        s.venue.refusing = False
        await s.up()


def test_waiting_grows_is_jittered_bounded_and_repeatable() -> None:
    waits = [backoff(Pace(), n, Random(3)) for n in range(2000)]
    assert waits == [backoff(Pace(), n, Random(3)) for n in range(2000)]
    rng = Random(9)
    for n in range(200):
        full = min(30.0, 0.25 * 2**min(n, 30))
        assert full / 2 <= backoff(Pace(), n, rng) <= full
    assert len({round(backoff(Pace(), 3, Random(seed)), 6) for seed in range(50)}) == 50, 'no two clients at once'
    assert backoff(Pace(), 0, rng, after_s=120.0) == 120.0


@timed
@pytest.mark.parametrize('error', [Halt('the key is revoked'), Reject('no such stream')])
async def test_what_no_retry_cures_ends_the_stream_and_is_heard_by_the_reader(error: Exception) -> None:
    class Locked(PipeDialect):
        async def dial(self, wanted: Any) -> Any: raise error
    stream = Stream(Locked(Venue()), SystemClock(), pace=QUICK)
    stream.want([Subscription(*BTC)])
    with pytest.raises(type(error)): await stream.run()
    assert all(isinstance(e, Hole) for e in stream.poll()) and stream.status()['BTC-USD'].state == 'broken'
    with pytest.raises(type(error)): stream.poll()


@timed
async def test_a_venue_that_took_us_once_may_refuse_for_a_while() -> None:
    class Moody(PipeDialect):
        dials = 0
        async def dial(self, wanted: Any) -> Any:
            self.dials += 1
            if self.dials in (2, 3): raise Reject('handshake answered with status 403')
            return await super().dial(wanted)
    async with scene(BTC, dialect=Moody) as s:
        await s.venue.hang_up()
        await s.up(lines=2)
        assert s.stream.dialect.dials == 4 and s.stream.health()['error'] == 'handshake answered with status 403'


@timed
async def test_a_frame_can_say_that_the_line_should_be_left_or_that_we_are_refused() -> None:
    class Spoken(PipeDialect):
        def decode(self, frame: Any, received: int) -> Heard:
            if frame == 'maintenance': raise Retry('the venue restarts', after_s=0.02)
            return super().decode(frame, received)
    async with scene(BTC, dialect=Spoken) as s:
        await s.venue.say('maintenance')
        await s.up(lines=2)
        assert s.stream.health()['error'] == 'the venue restarts' and s.stream.health()['garbage'] == 0


@timed
@pytest.mark.parametrize('when', ['connected', 'dialling', 'waiting', 'nothing wanted', 'paused'])
async def test_a_stream_ends_soon_whatever_it_does(when: str) -> None:
    class Slow(PipeDialect):
        async def dial(self, wanted: Any) -> Any:
            if when == 'dialling': await asyncio.sleep(0.3)
            if when == 'waiting': raise Retry('not now', after_s=100.0)
            return await super().dial(wanted)
    venue = Venue()
    await venue.start()
    stream = Stream(Slow(venue), SystemClock(), pace=QUICK, capacity=5 if when == 'paused' else 1000)
    if when != 'nothing wanted': stream.want([Subscription(*BTC)])
    running = asyncio.create_task(stream.run())
    await asyncio.sleep(0.1)
    if when == 'paused': await venue.say(*venue.trades('BTC-USD', 1, 100))
    await asyncio.sleep(0.1)
    stream.close()
    began = time.monotonic()
    await asyncio.wait_for(running, 5)
    assert time.monotonic() - began < 3
    await venue.stop()
    assert not venue.open


@timed
async def test_a_cancelled_stream_leaves_nothing_behind() -> None:
    venue = Venue()
    await venue.start()
    stream = Stream(PipeDialect(venue), SystemClock(), pace=QUICK)
    stream.want([Subscription(*BTC)])
    running = asyncio.create_task(stream.run())
    while not venue.open: await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError): await running
    await asyncio.sleep(0.05)
    assert not venue.open and stream.status()['BTC-USD'].why == 'closed'
    await venue.stop()


def test_a_trading_thread_gets_every_trade_once_and_in_order() -> None:
    """The stream in its own thread at full speed, the reader in this one; the line is cut twice on the way."""
    n, box = 20_000, dict[str, Any]()

    async def network() -> None:
        async with scene(BTC, ('BTC-USD', 'quote')) as s:
            s.polling = False
            box['stream'], t = s.stream, s.venue.trades('BTC-USD', 1, n)
            for k in range(0, n, 500):
                await s.venue.say(*t[k:k + 500], f'Q BTC-USD {k + 1} {k + 2}')
                if k in (5000, 12000):
                    lines = len(s.venue.lines)
                    await s.venue.hang_up()
                    await s.up(lines + 1)
            while not box.get('done'): await asyncio.sleep(0.01)

    thread, got, until = in_thread(network), list[Any](), time.monotonic() + 30
    while time.monotonic() < until and not (got and sum(isinstance(e, Trade) for e in got) == n):
        if 'stream' in box: got += box['stream'].poll(700)
        time.sleep(0.0005)
    box['done'] = True
    thread.join(10)
    assert [e.seq for e in got if isinstance(e, Trade)] == list(range(1, n + 1))
    bids = [e.bid for e in got if isinstance(e, Quote)]
    assert bids == sorted(bids) and len(set(bids)) == len(bids)


@timed
async def test_an_end_that_comes_with_the_room_that_was_waited_for_is_not_lost() -> None:
    """A line is ended by cancelling its reader: one that went on would keep the next line from being dialled."""
    room = asyncio.Event()
    s: Any = SimpleNamespace(room=room, pace=SimpleNamespace(tick=5.0), tally=SimpleNamespace(paused=0, held_up=False), inbox=SimpleNamespace(waiting=9, capacity=10), on_metric=lambda *x: None)
    task = asyncio.create_task(_wait_for_room(s))
    await asyncio.sleep(0.01)
    room.set()
    await asyncio.sleep(0)      # the waiter is about to be told
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1.0)
    assert done and task.cancelled()
