"""Every conformance card on OANDA's adapter and its sandbox, over real sockets."""
from gekko.venue.conformance.ours import CANDIDATES

oanda = CANDIDATES['oanda']
