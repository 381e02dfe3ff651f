"""The order path's bench: it measures what it says, loses no order, and counts what it did not see."""
from __future__ import annotations

from decimal import Decimal as D

from gekko.desk.react import BookLine, Cancel
from gekko.domain.market import Quote
from gekko.domain.order import Intent, Order
from gekko.jobs.metronome import numbered
from gekko.jobs.order_bench import LEGS, LOTS, WHOLES, Plan, Replaces, measure

SMALL = Plan(quotes=200, actions=40, working=20, seconds=2, placing=50)


def test_every_action_is_sent_acknowledged_and_measured() -> None:
    """Over real sockets, with the strategy inside the desk; the figures themselves are nobody's business here."""
    said = measure('desk', SMALL)
    assert said['actions'] == 80 and said['orders'] == 80 and said['without_stages'] == 0
    assert said['source']['made'] == SMALL.count and 15 <= said['working']['fewest'] <= said['working']['most'] <= 22
    assert set(said['stages']) == set(LEGS) and all(0 < said[w]['p50'] <= said[w]['p99'] <= said[w]['max'] for w in WHOLES)
    assert said['due>sent']['p50'] >= said['received>sent']['p50'] and said['due>acknowledged']['p50'] > said['due>sent']['p50']


def test_actions_that_were_conflated_away_are_carried_out_late_and_not_left_out() -> None:
    plan, book = Plan(quotes=10, actions=5, working=3, seconds=4, placing=10), BookLine()
    prompt, slow = Replaces(plan, ['BTC-USD']), Replaces(plan, ['BTC-USD'])

    def show(to: Replaces, seen: range) -> list[int]:
        due, names = [], 0
        for k in seen:
            try: said = to.on_quote(Quote('BTC-USD', k, D(60_000), D(60_001), numbered(k, LOTS['BTC-USD']), received=k), book)
            except StopIteration: break
            for x in said:
                if isinstance(x, Intent):
                    due.append(int(x.reason.split()[0]))
                    names += 1
                    to.on_order(Order(f'g{names}', x), book)
                else: assert isinstance(x, Cancel)
        return due
    every = show(prompt, range(plan.count))
    assert every == [plan.action(j) for j in range(len(every))] and len(every) == 3 + 4 * 5
    assert show(slow, range(6, plan.count, 7))[:15] == every[:15]
    assert len(prompt.resting) == 3
