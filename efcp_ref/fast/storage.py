"""How values are stored: float64, float32, or bfloat16 as the 16 bits that it is.

The one idea: a bfloat16 is the upper half of a float32, so widening is a shift by 16 and rounding is an integer
addition. Both run at the speed of a copy, several times faster than arithmetic on a bfloat16 dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.window import VALUE_STORAGE

BF16 = np.dtype(np.uint16)  # the bits of a bfloat16


def stored_as(dtype: Any) -> np.dtype[Any]:
    """Return what holds values of a dtype: bfloat16 as its bits, everything else itself.

    >>> stored_as("bfloat16"), stored_as("float32")
    (dtype('uint16'), dtype('float32'))
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    return BF16 if name == "bfloat16" else np.dtype(name)


def chosen(dtype: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return ``(storage, arithmetic)`` of an optimizer's ``dtype``: "float64", "float32" or "bfloat16" (in float32)."""
    check.choice("dtype", dtype, VALUE_STORAGE)
    return stored_as(dtype), np.dtype(np.float64 if dtype == "float64" else np.float32)


def rounded(values: Array, storage: np.dtype[Any]) -> Array:
    """Return values as they are stored, rounded to the nearest, ties to even.

    >>> rounded(np.array([1.0, 1.0048828], np.float32), BF16)
    array([16256, 16257], dtype=uint16)
    """
    if storage != BF16:
        return values.astype(storage)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(BF16)


def widened(stored: Array, dtype: np.dtype[Any], out: Array | None = None) -> Array:
    """Return stored values as numbers to compute with, in ``out`` if it is given; no copy where none is needed.

    >>> widened(np.array([16257], np.uint16), np.dtype(np.float32))
    array([1.0078125], dtype=float32)
    """
    if stored.dtype == dtype and out is None:
        return stored
    out = np.empty(stored.shape, dtype) if out is None else out
    if stored.dtype == BF16:
        wide = out.view(np.uint32) if out.dtype == np.float32 else np.empty(stored.shape, np.uint32)
        np.copyto(wide, stored)
        np.left_shift(wide, 16, out=wide)
        stored = wide.view(np.float32)
    if stored.dtype != out.dtype or not np.may_share_memory(stored, out):
        np.copyto(out, stored, casting="same_kind")
    return out


def shown(stored: Array) -> Array:
    """Return stored values for the eyes of others: bits as `ml_dtypes.bfloat16`, everything else as it is."""
    if stored.dtype != BF16:
        return stored
    import ml_dtypes

    return stored.view(ml_dtypes.bfloat16)


def hidden(values: Array) -> Array:
    """Return values with bfloat16 as its bits: the inverse of `shown`."""
    return np.ascontiguousarray(values).view(BF16) if values.dtype.name == "bfloat16" else values
