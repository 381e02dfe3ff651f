"Every record comes back as it went in, and equal records have equal bytes."
from __future__ import annotations

import hashlib
import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.instrument import KINDS as INSTRUMENT_KINDS
from gekko.domain.instrument import Instrument
from gekko.domain.account import Funding
from gekko.domain.order import (Accepted, Amended, AmendRejected, AmendRequested, Cancelled, CancelRejected, CancelRequested, Expired, Fill, Filled, Intent, Lost, Order, OrderState, OrderType, Rejected, Side,
                                Submitted, TimeInForce)
from gekko.domain.parent import Parent
from gekko.domain.target import Targets
from gekko.ledger.promotions import Demoted, EvidenceKept, PromotionAllowed, Promoted
from gekko.ledger.rights import BoundsTaken, KillSeen, LimitPassed, LimitsAsked, LimitsSet, OfficerNamed, ResetAsked, ResetGiven
from gekko.ledger.events import (KINDS, AccountOpened, Adopted, Agreed, BreachRecorded, Corrected, DayClosed, Deposited, Differed, External, Halted, IntentRecorded, LeaseTaken, Marked, Note, ParentClosed, ParentOpened, PolicyTaken, Recalled, Resumed,
                                 RunClosed, RunOpened, Stages, body, chained, decode, describe, encode)

text = st.text(st.characters(exclude_categories=['Cs']), max_size=12)
amount = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal('-1e15'), max_value=Decimal('1e15'))
positive = st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal('1e-12'), max_value=Decimal('1e12'))
ts = st.integers(-2**63, 2**63 - 1)
number = st.floats(allow_nan=False, allow_infinity=False)
json_value = st.recursive(st.none() | st.booleans() | st.integers(-2**63, 2**63 - 1) | number | text, lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3), max_leaves=6)
json_dict = st.dictionaries(text, json_value, max_size=4)


@st.composite
def intents(draw: st.DrawFn) -> Intent:
    kind = draw(st.sampled_from(OrderType))
    limit = draw(positive) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(positive) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    tif = draw(st.sampled_from(TimeInForce))
    return Intent(draw(text), draw(st.sampled_from(Side)), draw(positive), kind, limit, stop, tif, draw(st.booleans()), draw(st.booleans()),
                  draw(text), draw(text), draw(text), draw(ts), draw(text), draw(text), draw(st.integers(1, 2**62)) if tif is TimeInForce.GTD else 0)


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    weights = draw(st.dictionaries(text, number, max_size=3))
    units = {s: q for s, q in draw(st.dictionaries(text, amount, max_size=3)).items() if s not in weights}
    return Targets(draw(ts), weights, units, draw(text), draw(text))


fills = st.builds(Fill, text, text, text, st.sampled_from(Side), positive, positive, amount, text, ts, st.booleans())
instruments = st.builds(Instrument, text, text, text, st.sampled_from(INSTRUMENT_KINDS), positive, positive, positive, positive, text, text, st.booleans())
parents = st.builds(Parent, st.text('abc', min_size=1, max_size=8), st.sampled_from(['twap', 'pov']), st.text('ABC', min_size=1, max_size=5), st.sampled_from(Side), positive, st.integers(0, 10), st.integers(20, 2**40), st.none() | positive)
orders = st.builds(Order, text, intents(), st.sampled_from(OrderState), amount, amount, amount, text, st.frozensets(text, max_size=3), st.booleans(), text)
values = st.dictionaries(text, st.none() | positive, max_size=3)
RECORDS = {
    'intent': st.builds(IntentRecorded, text, intents()), 'submitted': st.builds(Submitted, text, ts), 'accepted': st.builds(Accepted, text, text, ts),
    'fill': st.builds(Filled, text, fills, ts), 'cancel_requested': st.builds(CancelRequested, text, ts), 'cancel_rejected': st.builds(CancelRejected, text, text, ts),
    'cancelled': st.builds(Cancelled, text, text, ts), 'rejected': st.builds(Rejected, text, text, ts), 'expired': st.builds(Expired, text, ts), 'lost': st.builds(Lost, text, text, ts),
    'amend_requested': st.builds(AmendRequested, text, st.none() | amount, st.none() | amount, st.none() | amount, st.none() | ts, ts),
    'amended': st.builds(Amended, text, st.none() | amount, st.none() | amount, st.none() | amount, ts, st.none() | ts), 'amend_rejected': st.builds(AmendRejected, text, text, ts), 'account_opened': st.builds(AccountOpened, text, text, text, text), 'adopted': st.builds(Adopted, text, amount, positive), 'funding': st.builds(Funding, text, amount, text, text, text, ts),
    'breach': st.builds(BreachRecorded, text, text, text, text, text, ts, text, st.none() | intents()), 'targets': targets(), 'deposit': st.builds(Deposited, amount, text, text),
    'instrument': instruments, 'mark': st.builds(Marked, st.dictionaries(text, positive, max_size=4), amount, st.dictionaries(text, positive, max_size=2)),
    'run_opened': st.builds(RunOpened, text, text, text, json_dict), 'run_closed': st.builds(RunClosed, text, text, json_dict), 'policy': st.builds(PolicyTaken, text, text, text),
    'halt': st.builds(Halted, text, text), 'resume': st.builds(Resumed, text, text), 'lease': st.builds(LeaseTaken, text, st.integers(0, 2**40)), 'note': st.builds(Note, text, json_dict),
    'external': st.builds(External, text, text, text, text, text), 'differed': st.builds(Differed, st.lists(st.dictionaries(text, text, max_size=3), max_size=3).map(tuple), text, text),
    'corrected': st.builds(Corrected, text, text, amount, amount, text, text), 'stages': st.builds(Stages, text, ts, ts, ts, ts, ts, ts), 'day_closed': st.builds(DayClosed, text, json_dict),
    'parent_opened': st.builds(ParentOpened, parents), 'parent_closed': st.builds(ParentClosed, text, text, amount, st.none() | positive, st.none() | amount, ts),
    'officer': st.builds(OfficerNamed, text, text, text, text, text), 'limits_asked': st.builds(LimitsAsked, text, text, values, text, text, text), 'limits_set': st.builds(LimitsSet, text, text, values, text, text, st.integers(0, 2**40), text),
    'reset_asked': st.builds(ResetAsked, text, text, text, text), 'reset_given': st.builds(ResetGiven, text, text, st.integers(0, 2**40), text), 'kill': st.builds(KillSeen, text, text, text),
    'bounds': st.builds(BoundsTaken, json_dict, json_dict, st.dictionaries(text, text, max_size=3), st.integers(0, 2**40)), 'limit': st.builds(LimitPassed, *[text] * 9),
    'agreed': st.builds(Agreed, text, ts), 'recalled': st.builds(Recalled, text, orders, st.lists(fills, max_size=2).map(tuple)),
    'evidence': st.builds(EvidenceKept, text, text, st.booleans(), text, json_dict), 'promotion_allowed': st.builds(PromotionAllowed, text, st.integers(0, 2**40), text, text, text),
    'promoted': st.builds(Promoted, *[text] * 7, json_dict, st.lists(json_dict, max_size=2), json_dict, json_dict, text), 'demoted': st.builds(Demoted, *[text] * 5)}
any_record = st.one_of(*RECORDS.values())


def test_every_kind_has_a_strategy() -> None:
    assert set(RECORDS) == set(KINDS)


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_comes_back_as_it_went_in(kind: str) -> None:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(RECORDS[kind])
    def check(record: object) -> None:
        name, canonical = body(record)
        assert name == kind and decode(kind, canonical) == record
        assert decode(*encode(record)) == record
        assert body(decode(kind, canonical)) == (kind, canonical)     # the bytes are a fixed point, so a copy of a ledger keeps its hashes
        assert isinstance(describe(record), str)
    check()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(any_record, any_record)
def test_equal_bytes_mean_equal_records(a: object, b: object) -> None:
    assert (body(a) == body(b)) == (type(a) is type(b) and encode(a) == encode(b))


def test_decimals_keep_their_digits() -> None:
    for x in ('1.10', '1E+3', '-0.00', '0.000000000000000000000000000001', '123456789012345678901234567890.123456789'):
        assert str(decode(*encode(Deposited(Decimal(x)))).amount) == str(Decimal(x))


def test_mapping_order_does_not_matter() -> None:
    a, b = {'a': Decimal(1), 'b': Decimal(2)}, {'b': Decimal(2), 'a': Decimal(1)}
    assert body(Marked(a, Decimal(3))) == body(Marked(b, Decimal(3)))
    assert body(Note('n', {'x': {'p': 1, 'q': 2}})) == body(Note('n', {'x': {'q': 2, 'p': 1}}))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text, text, ts, st.integers(1, 2**40), any_record)
def test_a_link_can_be_recomputed_without_gekko(prev: str, account: str, at: int, seq: int, record: object) -> None:
    kind, data = body(record)
    header = json.dumps([account, seq, at, 1, kind, 'run'], ensure_ascii=False, separators=(',', ':'))
    # msgspec writes control characters as \u00xx in lower case and DEL as itself, as json does
    assert chained(prev, account, seq, at, 1, kind, 'run', data) == hashlib.sha256((prev + header[:-1] + ',' + data + ']').encode()).hexdigest()


@pytest.mark.parametrize(('kind', 'data'), [('nothing', '{}'), ('fill', '{}'), ('fill', '[]'), ('mark', '{"prices":{"A":"one"},"equity":"1"}'), ('intent', ''), ('deposit', '{"amount":null}'),
                                            ('intent', '{"client_id":"c","intent":{"symbol":"A","side":"buy","qty":"-1"}}')])
def test_what_cannot_be_read_is_bad_input(kind: str, data: str) -> None:
    with pytest.raises(BadInput): decode(kind, data)


def test_a_later_field_is_passed_over_and_a_missing_one_takes_its_default() -> None:
    assert decode('halt', {'reason': 'x', 'severity': 3}) == Halted('x')
    assert decode('run_opened', '{"run":"r"}') == RunOpened('r')
