"""A module beside a notebook."""
import numpy as np


def signal(bars):
    f = bars.frame()
    return np.where(f > f.rolling(30).mean(), 1.0, 0.0)
