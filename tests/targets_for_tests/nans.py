import numpy as np
from good import top_k  # noqa: F401


def sp(indices, values, g):
    return np.full(len(values), np.nan)
