"""The UCI optical digits: 1797 images of 8 x 8 pixels, with a fixed split (source and licence: README.md)."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name("digits.npz")
SIZES = (1078, 269, 450)  # train, validation, test: 60, 15 and 25 per cent


class Split(NamedTuple):
    """Positions of the images for training, validation and testing; disjoint, together all 1797."""

    train: np.ndarray  # (1078,)
    validation: np.ndarray  # (269,)
    test: np.ndarray  # (450,)


@lru_cache(maxsize=1)
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the images X (1797, 64), pixels in 0..1 by sixteenths, and the labels y (1797,), read-only.

    >>> X, y = digits()
    >>> X.shape, float(X.max()), np.bincount(y).tolist()
    ((1797, 64), 1.0, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    """
    with np.load(FILE, allow_pickle=False) as file:
        X = file["pixels"] / 16.0  # (1797, 64) exact
        y = file["labels"].astype(np.int64)  # (1797,)
    X.setflags(write=False)
    y.setflags(write=False)
    return X, y


@lru_cache(maxsize=1)
def split() -> Split:
    """Return the fixed split: images in the order of the SHA-256 hash of their number, cut at 1078 and 1347.

    A hash needs no random generator, so the split is the same under every version of NumPy.

    >>> [len(part) for part in split()]
    [1078, 269, 450]
    """
    order = sorted(range(sum(SIZES)), key=lambda i: sha256(f"efcp digits {i}".encode()).digest())
    parts = np.split(np.array(order), np.cumsum(SIZES)[:-1])
    for part in parts:
        part.setflags(write=False)
    return Split(*parts)
