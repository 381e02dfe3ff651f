"""Every conformance card on Coinbase's adapter and its sandbox, over real sockets."""
from gekko.venue.conformance.ours import CANDIDATES

coinbase = CANDIDATES['coinbase']
