"""The stage of a test is the one of the venue it is given."""
import pytest
from broker_stage import Stage
from broker_venues import VENUES


@pytest.fixture
def stage(venue: str) -> Stage: return VENUES[venue]()
