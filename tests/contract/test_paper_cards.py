"""Every conformance card on paper, in the settings that change what it does."""
from gekko.venue.conformance.ours import PAPER

bars, share_of_volume, quotes, quotes_late, spot = PAPER
