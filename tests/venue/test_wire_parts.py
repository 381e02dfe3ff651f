"""The smaller parts: secrets and cards, error tables, the loop, the outbox, hosts."""
import asyncio
import json
import os
import stat
import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput, Retry
from gekko.domain.order import Accepted, Fill, Filled, Side
from gekko.domain.time import SECOND, SimClock
from gekko.venue.wire.hosts import Hosts
from gekko.venue.wire.loop import Loop
from gekko.venue.wire.message import Answer, body_fault
from gekko.venue.wire.outbox import Outbox
from gekko.venue.wire.secret import Address, Secret, access_of, load_access, masked, save_access
from gekko.venue.wire.sorting import ErrorTable, Reaction, Rule, Unheard, by_status

CARD = {'venue': 'coinbase', 'rest': 'https://api.coinbase.com', 'ws': 'wss://advanced-trade-ws.coinbase.com', 'account': 'main', 'key': 'organizations/a/apiKeys/b',
        'secret': '-----BEGIN EC ' + 'PRIVATE KEY-----\nMHcCAQEEIIxAbCd\n-----END EC ' + 'PRIVATE KEY-----', 'backup': [{'rest': 'https://api2.coinbase.com'}], 'control': 'token'}


# ---- cards

def test_a_card_is_kept_for_its_owner_alone_and_comes_back_whole(tmp_path):
    old = os.umask(0)
    try: path = save_access(tmp_path, CARD)
    finally: os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path == tmp_path / 'venues' / 'coinbase.json'
    assert load_access(tmp_path, 'coinbase') == access_of(CARD) and json.loads(path.read_text()) == CARD
    save_access(tmp_path, {**CARD, 'account': 'second'})
    assert load_access(tmp_path, 'coinbase').credentials.account == 'second' and [p.name for p in path.parent.iterdir()] == ['coinbase.json']


@pytest.mark.parametrize('mode', [0o640, 0o604, 0o660, 0o644, 0o666])
def test_credentials_that_others_can_read_are_refused(tmp_path, mode):
    save_access(tmp_path, CARD).chmod(mode)
    with pytest.raises(BadInput, match='others can read'): load_access(tmp_path, 'coinbase')


@pytest.mark.parametrize('gone', ['venue', 'rest', 'account', 'key', 'secret'])
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path, gone):
    for wrong in ({k: v for k, v in CARD.items() if k != gone}, {**CARD, gone: '  '}):
        with pytest.raises(BadInput, match=gone) as e: save_access(tmp_path, wrong)
        assert CARD['secret'] not in str(e.value) and CARD['key'] not in str(e.value)
    assert not list(tmp_path.rglob('*.json'))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from([*CARD, 'x']), x, max_size=8), max_leaves=12))
def test_any_json_is_an_access_or_bad_input(card):
    try: access_of(card)
    except BadInput: pass


def test_files_that_are_no_cards_are_bad_input_without_their_words(tmp_path):
    path = save_access(tmp_path, CARD)
    for content in (b'', b'{', b'[]', b'null', b'\xff\xfe', b'{"key": "hunter2"', b'{"venue": "oanda"}'):
        path.write_bytes(content)
        with pytest.raises(BadInput) as e: load_access(tmp_path, 'coinbase')
        assert 'hunter2' not in str(e.value) and e.value.__cause__ is None


@pytest.mark.parametrize('url', ['http://api.coinbase.com', 'ws://example.org', 'https://user:pw@api.coinbase.com', 'https://api.coinbase.com?key=1', 'file:///etc/passwd', 'https://', 'api.coinbase.com', 'https://a:b', 'http://8.8.8.8'])
def test_addresses_that_would_give_the_key_away_are_refused(url):
    for wrong in ({**CARD, 'rest': url}, {**CARD, 'ws': url}, {**CARD, 'backup': [{'rest': url}]}):
        with pytest.raises(BadInput) as e: access_of(wrong)
        assert 'user:pw' not in str(e.value)


@given(st.text(min_size=6, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_masked_text_holds_no_secret(secret, before, after):
    if '*' in secret: return
    assert secret not in masked(before + secret + after, [Secret(secret)]).replace('*', '')


# ---- error tables and answers

@given(st.integers(100, 599), st.text(max_size=6), st.text(max_size=20), st.sampled_from(('submit', 'cancel')))
def test_an_unlisted_answer_to_a_write_is_never_taken_for_a_refusal(status, code, message, kind):
    table = ErrorTable('v', [Rule('-1', Reaction.REJECT, 'no')])
    if code == '-1': return
    assert table.sort(status, code, message, kind).reaction in (Reaction.UNKNOWN, Reaction.HALT, Reaction.RETRY)
    assert (by_status(status, kind) is Reaction.UNKNOWN) == (status not in (401, 418, 429))


@given(st.binary(max_size=300), st.sampled_from(('submit', 'query')))
def test_any_bytes_are_json_or_a_sorted_error(body, kind):
    try: Answer(200, {}, body, 0, 0, kind).json()
    except Retry as e: assert isinstance(e, Unheard) == (kind == 'submit')


@given(st.recursive(st.none() | st.integers(-2**63, 2**63 - 1) | st.text(max_size=5) | st.booleans(), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5), x, max_size=4), max_leaves=20), st.integers(1, 10))
def test_whole_json_is_read_and_cut_json_never(value, cut):
    body = json.dumps(value).encode()
    assert Answer(200, {}, body, 0, 0).json() == value and not body_fault(body)
    if isinstance(value, (dict, list, str)):
        with pytest.raises(Retry): Answer(200, {}, body[:-min(cut, len(body))], 0, 0).json()


# ---- the loop

def test_calls_from_many_threads_get_their_own_answers():
    loop = Loop()

    async def double(x):
        await asyncio.sleep(x % 3 / 1000)
        return 2 * x
    answers = {}
    threads = [threading.Thread(target=lambda n=n: answers.__setitem__(n, [loop.run(double(i)) for i in range(n, n + 20)])) for n in range(16)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert all(answers[n] == [2 * i for i in range(n, n + 20)] for n in range(16))
    loop.close()


def test_closing_frees_those_who_wait_and_ends_the_thread():
    loop, found, cleaned = Loop('short'), [], []

    async def long():
        try: await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    def wait():
        try: loop.run(long(), 30)
        except Retry as e: found.append(e)
    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    began = time.monotonic()
    loop.close()
    thread.join(2)
    assert found and cleaned and 'closed' in str(found[0]) and time.monotonic() - began < 2
    assert not any(t.name == 'short' for t in threading.enumerate())


def test_a_task_that_will_not_end_does_not_hold_up_the_close():
    loop = Loop()

    async def stubborn():
        while True:
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: pass
    loop.spawn(stubborn())
    time.sleep(0.02)
    began = time.monotonic()
    loop.close(grace_s=0.1)
    assert time.monotonic() - began < 1.0


def test_a_coroutines_own_timeout_is_its_own():
    loop = Loop()

    async def times_out(): raise TimeoutError('mine')
    with pytest.raises(TimeoutError, match='mine'): loop.run(times_out())
    loop.close()


# ---- the outbox

def test_each_fill_is_said_once_whoever_says_it():
    box, drained, stop = Outbox(), [], threading.Event()

    def fill(n): return Filled('g1', Fill(str(n), 'g1', 'BTC-USD', Side.BUY, Decimal(1), Decimal(100 + n)))

    def drain():
        while not stop.is_set(): drained.extend(box.drain())
    reader = threading.Thread(target=drain)
    reader.start()
    sayers = [threading.Thread(target=lambda: [box.say(fill(n)) for n in range(500)]) for _ in range(4)]
    for t in sayers: t.start()
    for t in sayers: t.join()
    stop.set()
    reader.join()
    drained += box.drain()
    assert sorted(int(e.fill.fill_id) for e in drained) == list(range(500)) and box.duplicates == 1500 and box.conflicts == []


def test_order_is_kept_and_only_fills_are_deduplicated():
    box = Outbox()
    events = [Accepted('g1', '9', 1), Accepted('g1', '9', 1)]
    for e in events: assert box.say(e)
    assert box.drain() == events


# ---- hosts

@given(st.lists(st.tuples(st.sampled_from(('ok', 'failed', 'probe good', 'probe bad')), st.integers(0, 2)), max_size=60), st.integers(1, 3))
def test_the_address_in_use_moves_only_for_cause(steps, threshold):
    addresses = tuple(Address(f'https://a{n}.example') for n in range(3))
    clock, moves = SimClock(), []
    hosts = Hosts(addresses, clock, threshold, 1.0, lambda a, why: moves.append(a))
    bad, at = dict.fromkeys(addresses, 0), addresses[0]
    for what, n in steps:
        clock.advance(SECOND)
        before = hosts.current
        if what == 'ok': hosts.ok(addresses[n]); bad[addresses[n]] = 0
        elif what == 'failed': hosts.failed(addresses[n]); bad[addresses[n]] += 1
        elif hosts.due() is not None:
            hosts.probed(what == 'probe good')
            bad[addresses[0]] = 0 if what == 'probe good' else bad[addresses[0]] + 1
        if hosts.current != before:
            at = hosts.current
            went_back = what == 'probe good' and at == addresses[0]
            assert went_back or (bad[before] >= threshold and bad[at] == min(bad[a] for a in addresses if a != before))
        assert hosts.current == at and hosts.order()[0] == at and set(hosts.order()) == set(addresses)
        assert (hosts.due() is None) if hosts.on_primary else True


def test_the_healthiest_of_several_backups_is_chosen():
    a, b, c = (Address(f'https://a{n}.example') for n in range(3))
    hosts = Hosts((a, b, c), SimClock(), threshold=2)
    hosts.failed(b)
    for _ in range(2): hosts.failed(a)
    assert hosts.current == c and hosts.order() == (c, b, a)
