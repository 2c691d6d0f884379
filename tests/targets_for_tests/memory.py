import numpy as np
from good import top_k  # noqa: F401


def sp(indices, values, g):
    return np.ones(1 << 40)
