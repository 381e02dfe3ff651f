"""What only Apple silicon can show. Elsewhere listed as not run."""
from __future__ import annotations

from pathlib import Path

from gekko.compute.devices import Device
from gekko.compute.measure import measure
from gekko.compute.provider import load
from gekko.compute.torch import Torch
from gekko.domain.time import SystemClock
from gekko.jobs.forecast_bench import SPEC, parity, subject

CLOCK = SystemClock()


def test_the_same_numbers_as_predict(metal: Device, tmp_path: Path) -> None:
    """A network that Metal lacks an operator for is refused when it is loaded, and that would fail here and tell which."""
    it = subject(tmp_path, SPEC, (1, 50, 64))
    loaded = load(Torch(metal), it.artefact.network, CLOCK)
    apart, took = parity(it, loaded), measure(loaded, CLOCK)
    print(metal.name, apart, took)
    assert apart['price'] <= 1e-5
    loaded.release()
