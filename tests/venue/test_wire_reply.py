"""An answer is the same however the network cuts it, and never whole while something of it is missing."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gekko.venue.wire.reply import Reply, Spoiled

BODIES = st.binary(max_size=300)


def counted(body: bytes) -> bytes: return b'HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: %d\r\n\r\n%b' % (len(body), body)


def chunked(body: bytes, sizes: list[int]) -> bytes:
    out, rest = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', body
    for n in sizes:
        piece, rest = rest[:n], rest[n:]
        if piece: out += b'%x;note\r\n%b\r\n' % (len(piece), piece)
    if rest: out += b'%X\r\n%b\r\n' % (len(rest), rest)
    return out + b'0\r\nTrailer: y\r\n\r\n'


ANSWERS = BODIES.flatmap(lambda body: st.one_of(st.just(counted(body)), st.lists(st.integers(1, 50), max_size=8).map(lambda sizes: chunked(body, sizes))).map(lambda text: (body, text)))


def fed(text: bytes, cuts: list[int], limit: int = 0) -> Reply:
    reply, at = Reply(limit=limit), 0
    for cut in [*sorted(c % (len(text) + 1) for c in cuts), len(text)]:
        if cut > at: reply.feed(text[at:cut])
        at = max(at, cut)
    return reply


@given(ANSWERS, st.lists(st.integers(0, 10_000), max_size=12))
def test_an_answer_is_the_same_however_it_is_cut(answer: tuple[bytes, bytes], cuts: list[int]) -> None:
    body, text = answer
    reply = fed(text, cuts)
    assert reply.whole and reply.keep and reply.status == 200 and b''.join(reply.parts) == body and reply.size == len(body)


@given(ANSWERS, st.integers(1, 10_000), st.lists(st.integers(0, 10_000), max_size=4))
def test_an_answer_that_is_cut_short_is_never_whole(answer: tuple[bytes, bytes], lost: int, cuts: list[int]) -> None:
    text = answer[1][:-(lost % len(answer[1]) or 1)]
    reply = fed(text, cuts)
    assert not reply.whole
    try: reply.end()
    except Spoiled as e: assert 'hung up' in str(e)
    else: raise AssertionError('taken for whole')


@given(ANSWERS, st.binary(min_size=1, max_size=40))
def test_more_than_was_asked_for_ends_the_connection(answer: tuple[bytes, bytes], more: bytes) -> None:
    reply = fed(answer[1] + more, [])
    assert reply.whole and not reply.keep and b''.join(reply.parts) == answer[0]


@given(st.binary(max_size=400), st.lists(st.integers(0, 1000), max_size=6))
def test_any_bytes_are_an_answer_or_spoiled(noise: bytes, cuts: list[int]) -> None:
    for text in (noise, b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n' + noise, b'HTTP/1.1 200 ' + noise):
        try: reply = fed(text, cuts, limit=200)
        except Spoiled: continue
        assert reply.size <= 200
