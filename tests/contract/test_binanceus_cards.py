"""Every conformance card on Binance.US's adapter and its sandbox, over real sockets."""
from gekko.venue.conformance.ours import CANDIDATES

binanceus = CANDIDATES['binanceus']
