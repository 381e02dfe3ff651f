"""The fill model, as properties: doubt is decided against the trader, and a limit is a limit."""
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gekko.domain.errors import BadInput
from gekko.domain.instrument import Instrument
from gekko.domain.market import Bar
from gekko.domain.money import on_step
from gekko.domain.order import Intent, OrderType, Side
from gekko.venue.fillmodel import FillModel, fee, inside, meet, share, slipped

TICK, LOT = Decimal('0.05'), Decimal('0.1')
ins = Instrument('X', 'X', 'USD', tick=TICK, lot=LOT)
prices = st.integers(1, 400).map(lambda n: n * TICK)
sides = st.sampled_from(list(Side))
models = st.builds(FillModel, fill=st.sampled_from(['open', 'quote']), slippage_bps=st.integers(0, 300).map(Decimal))


@st.composite
def intents(draw: st.DrawFn, kinds: tuple[OrderType, ...] = tuple(OrderType)) -> Intent:
    kind = draw(st.sampled_from(kinds))
    limit = draw(prices) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(prices) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    return Intent('X', draw(sides), Decimal(1), kind, limit=limit, stop=stop, post_only=limit is not None and draw(st.booleans()))


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    a, b, c, d = (draw(prices) for _ in range(4))
    return Bar('X', 0, 1, a, max(a, b, c, d), min(a, b, c, d), b, Decimal(100))


def worse_or_same(side: Side, got: Decimal, wanted: Decimal) -> bool: return got >= wanted if side is Side.BUY else got <= wanted
def within(intent: Intent, price: Decimal) -> bool: return intent.limit is None or not worse_or_same(intent.side, price, intent.limit) or price == intent.limit


@given(prices, sides, st.integers(0, 5000).map(Decimal))
def test_slippage_is_never_a_gift_and_stays_on_the_tick(price: Decimal, side: Side, bps: Decimal) -> None:
    got = slipped(price, side, bps, ins)
    assert worse_or_same(side, got, price) and on_step(got, TICK) and got > 0
    assert got == price or bps > 0
    assert abs(got - price) < price * bps / 10000 + TICK


@given(intents(), prices, models, st.booleans(), st.booleans())
def test_one_price_never_breaks_a_limit(intent: Intent, price: Decimal, model: FillModel, rested: bool, triggered: bool) -> None:
    deal = meet(intent, price, ins, model, rested, triggered)
    if deal.price is None: return
    assert within(intent, deal.price) and on_step(deal.price, TICK)
    assert not (intent.post_only and not deal.maker)
    assert intent.stop is None or deal.triggered
    if not deal.maker: assert worse_or_same(intent.side, deal.price, price)     # whoever takes pays the price or more


@given(intents(), bars(), models, st.booleans())
def test_inside_a_bar_nothing_trades_beyond_what_was_seen(intent: Intent, bar: Bar, model: FillModel, triggered: bool) -> None:
    opening = meet(intent, bar.open, ins, model, triggered=triggered)
    if opening.price is not None or opening.refused: return      # it would not be here after the open
    deal = inside(intent, bar, ins, model, opening.triggered)
    if deal.price is None: return
    assert within(intent, deal.price)
    if deal.maker: assert bar.low <= deal.price <= bar.high
    elif intent.stop is not None: assert worse_or_same(intent.side, deal.price, intent.stop)


@given(intents((OrderType.STOP_LIMIT,)), bars())
def test_a_stop_limit_below_its_stop_fills_only_where_the_close_proves_it(intent: Intent, bar: Bar) -> None:
    assert intent.limit is not None and intent.stop is not None
    backwards = intent.limit < intent.stop if intent.side is Side.BUY else intent.limit > intent.stop
    deal = inside(intent, bar, ins, FillModel())
    if backwards and deal.price is not None:
        assert bar.close <= intent.limit if intent.side is Side.BUY else bar.close >= intent.limit


@given(st.integers(0, 10**6).map(lambda n: Decimal(n) / 10), st.integers(1, 1000).map(lambda n: Decimal(n) / 1000))
def test_a_share_of_volume_is_whole_lots_and_never_more(volume: Decimal, part: Decimal) -> None:
    cap = share(FillModel(participation=part), volume, ins)
    assert cap is not None and on_step(cap, LOT) and volume * part - LOT < cap <= volume * part


@given(prices, st.integers(1, 10**6), st.integers(-50, 100).map(Decimal))
def test_fees_are_booked_in_cents_and_a_rebate_is_negative(price: Decimal, lots: int, maker_bps: Decimal) -> None:
    model, qty = FillModel(fee_bps=Decimal(3), maker_fee_bps=maker_bps), lots * LOT
    for maker, bps in ((False, Decimal(3)), (True, maker_bps)):
        charged = fee(model, ins, qty, price, maker)
        assert on_step(charged, Decimal('0.01')) and abs(charged - qty * price * bps / 10000) <= Decimal('0.005')
    assert fee(FillModel(fee_bps=Decimal(3)), ins, qty, price, True) == fee(model, ins, qty, price)


@pytest.mark.parametrize('bad', [
    {'fill': 'close'}, {'latency_ns': -1}, {'slippage_bps': Decimal(-1)}, {'slippage_bps': Decimal('NaN')}, {'fee_bps': 1.0}, {'fee_bps': Decimal('Infinity')},
    {'maker_fee_bps': Decimal(2000)}, {'participation': Decimal(0)}, {'participation': Decimal('1.01')}, {'reject_rate': -0.1}, {'reject_rate': 1.1}, {'reject_rate': float('nan')},
])
def test_a_model_out_of_range_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadInput, match='expected'): FillModel(**bad)  # type: ignore[arg-type]
