"""Recorded gradients as integers times a power of two: the same bits on every machine."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("gradients.npy")
POWER = -15


@lru_cache(maxsize=1)
def quantised_gradients() -> np.ndarray:
    """Return eight consecutive gradients of softmax regression on the digits, (8, 650) float64, read-only.

    >>> g = quantised_gradients()
    >>> g.shape, float(np.abs(g).max()) < 1, bool((g * 2**15 == np.rint(g * 2**15)).all())
    ((8, 650), True, True)
    """
    g = np.ldexp(np.load(FILE, allow_pickle=False).astype(np.float64), POWER)
    g.setflags(write=False)
    return g
