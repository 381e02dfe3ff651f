"""Many parents at once over two venues that both go wrong, the same each time for the same seed."""
from __future__ import annotations

import random
from decimal import Decimal

import pytest
from routed_stage import BTC, S, stage

from gekko.domain.money import total

D = Decimal
FAULTS = ({'fault': 'drop_answer', 'op': 'submit'}, {'fault': 'server_error', 'op': 'submit', 'status': 503}, {'fault': 'slow', 'op': 'submit', 's': 0.4}, {'fault': 'partial_fills', 'op': 'submit', 'parts': 3},
          {'fault': 'duplicate_fill', 'op': 'own'}, {'fault': 'out_of_order_fill', 'op': 'own'}, {'fault': 'disconnect', 'op': 'own'}, {'fault': 'disconnect', 'op': 'stream'}, {'fault': 'mute', 'op': 'stream', 's': 1})


@pytest.mark.parametrize('seed', [1, 2])
def test_every_parent_is_filled_whole_and_never_more(seed: int) -> None:
    rng = random.Random(f'routed:{seed}')
    with stage({'binanceus': ('60000', '2', 5), 'coinbase': ('59900', '0.4', 5)}, stale_s=2.0, again_s=1.0) as desk:
        parents = [desk.parent('buy', str(D(rng.randrange(5_000, 60_000)) / 100_000), rng.choice([None, '60500'])) for _ in range(10)]
        for name in desk.boxes:
            for plan in rng.sample(FAULTS, 3): desk.boxes[name].fault(plan)
        turns = 0

        def settled() -> bool:
            nonlocal turns
            turns += 1
            if turns % 40 == 0: desk.boxes[rng.choice(list(desk.boxes))].set_price(BTC, D(60_000) + rng.randrange(-50, 50), '1', levels=5, spread=D(2))
            for p in parents:
                desk.step(p)
                desk.never_above(p)
            return all(desk.filled(p) == p.qty for p in parents)
        desk.until(settled, 25.0)
        assert total(o.filled for o in desk.tracker.all()) == total(p.qty for p in parents)
        assert not [o for o in desk.tracker.all() if o.state is S.UNKNOWN]
        desk.audit()
