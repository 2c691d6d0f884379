"""How the window is stored: four formats, and the conversions to and from the arrays of the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

INDEX = ("absolute", "uint16")  # int32 columns of G, or uint16 positions inside a Top-k block (R13)
VALUE = ("float32", "bfloat16")
LARGEST_UINT16 = 2**16  # B_d


@dataclass(frozen=True)
class Format:
    """One of the four storage formats.

    >>> Format("uint16", "bfloat16").defines, Format("uint16", "bfloat16").bytes
    (('INDEX_BITS=16', 'VALUE_BITS=16'), 4)
    """

    index: str = "absolute"
    value: str = "float32"

    def __post_init__(self) -> None:
        check.choice("index", self.index, INDEX)
        check.choice("dtype", self.value, VALUE)

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Storage of I."""
        return np.dtype(np.uint16 if self.index == "uint16" else np.int32)

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Storage of V; bfloat16 as its 16 bits."""
        return np.dtype(np.uint16 if self.value == "bfloat16" else np.float32)

    @property
    def defines(self) -> tuple[str, ...]:
        """What the kernels are compiled with."""
        return f"INDEX_BITS={8 * self.index_dtype.itemsize}", f"VALUE_BITS={8 * self.value_dtype.itemsize}"

    @property
    def bytes(self) -> int:
        """Bytes of one entry of the window."""
        return self.index_dtype.itemsize + self.value_dtype.itemsize


FORMATS = tuple(Format(index, value) for index in INDEX for value in VALUE)


def fits(index: str, B_d: int) -> None:
    """Raise ValueError if positions in a block of B_d entries do not fit the index format (R13)."""
    if index == "uint16" and B_d > LARGEST_UINT16:
        raise ValueError(f"block_size = {B_d}, must be at most {LARGEST_UINT16} for uint16 indices")


def to_bits(values: Array) -> Array:
    """Return float32 numbers rounded to bfloat16 (to nearest, ties to even), as 16 bits each.

    >>> [hex(b) for b in to_bits(np.float32([1.0, -2.0]))]
    ['0x3f80', '0xc000']
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bits(bits: Array) -> Array:
    """Return bfloat16 numbers, given as 16 bits each, as float32.

    >>> from_bits(np.uint16([0x3F80, 0xC000]))
    array([ 1., -2.], dtype=float32)
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def offsets(k: int, B_d: int, B_k: int) -> Array:
    """Return the start of the block that each of the k entries of a row belongs to: ``(j // B_k) * B_d`` (R13).

    >>> offsets(5, 4, 2).tolist()
    [0, 0, 4, 4, 8]
    """
    return (np.arange(k) // B_k * B_d).astype(np.int32)
