"""A module beside a notebook that has looked at everything."""
from gekko.api import load_reference

PRICES = load_reference('SP500').close
MEAN, SD = PRICES.mean(), PRICES.std()
