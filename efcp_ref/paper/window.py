"""The window G of the last m compressed gradients: ring buffers, dense (m, d) and sparse (I, V).

A window never changes: ``insert`` returns another one, in which the oldest row has been replaced (R1).
The low-rank window is in ``algorithm_6.py``, beside the lines that use it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_2 import sp
from efcp_ref.paper.algorithm_3 import lcg
from efcp_ref.paper.top_k import Kept, block_top_k, kept, layout, top_k

INDEX_STORAGE = ("absolute", "uint16", "int32")
VALUE_STORAGE = ("float64", "float32", "bfloat16")


@dataclass(frozen=True)
class Dense:
    """A gradient that is kept whole: what COMPRESS returns when nothing is compressed."""

    values: Array  # (d,)

    def dense(self) -> Array:
        """Return the vector itself, (d,)."""
        return self.values


@dataclass(frozen=True)
class Sparse:
    """A gradient that is zero off its support: what Top-k keeps."""

    indices: Array  # (k,) int32, absolute (R13)
    values: Array  # (k,) as stored: rounded to the storage dtype (R14)
    d: int

    def dense(self) -> Array:
        """Return the vector with its zeros, (d,) float64.

        >>> Sparse(np.array([2, 0]), np.array([5.0, 7.0]), 4).dense()
        array([7., 0., 5., 0.])
        """
        c = np.zeros(self.d)
        c[self.indices] = self.values
        return c


def storage(name: str | np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype called ``name``: float64, float32, or bfloat16 (which needs the package ml_dtypes)."""
    if isinstance(name, np.dtype):
        return name
    check.choice("dtype", name, VALUE_STORAGE)
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def keep(a: Array, k: int, dtype: str | np.dtype[Any] = "float64") -> Sparse:
    """COMPRESS of Algorithm 1 as one global Top-k; the values kept are rounded to ``dtype`` (R14)."""
    return _stored(top_k(a, k), len(a), dtype)


def keep_blocks(a: Array, block_size: int | None, density: Any, dtype: str | np.dtype[Any] = "float64") -> Sparse:
    """COMPRESS of Algorithm 1 as blockwise Top-k; the values kept are rounded to ``dtype`` (R14)."""
    return _stored(block_top_k(a, block_size, density), len(a), dtype)


def _stored(c: Kept, d: int, dtype: str | np.dtype[Any]) -> Sparse:
    return Sparse(c.indices, c.values.astype(storage(dtype)), d)


def replaced(buffer: Array, row: int, new: Array) -> Array:
    """Return a copy of a buffer (m, ...) in which one row is new."""
    buffer = buffer.copy()
    buffer[row] = new
    return buffer


@dataclass(frozen=True)
class DenseWindow:
    """G (m, d), one gradient per row; rows not yet written are zero.

    >>> window = DenseWindow.empty(d=2, m=2)
    >>> for g in ([1.0, 0.0], [0.0, 2.0], [3.0, 3.0]):
    ...     window = window.insert(Dense(np.array(g)))
    >>> window.G, window.row  # the third gradient replaced the first (R1)
    (array([[3., 3.],
           [0., 2.]]), 1)
    """

    G: Array  # (m, d)
    row: int = 0  # the row that is written next, the oldest

    @classmethod
    def empty(cls, d: int, m: int) -> DenseWindow:
        """Return m empty rows of d zeros; 8 m d bytes."""
        return cls(np.zeros((check.window_size(m), check.dimension(d))))

    def insert(self, c: Dense) -> DenseWindow:
        """Return the window in which the oldest row is ``c`` (R1); O(m d) bytes copied."""
        return DenseWindow(replaced(self.G, self.row, c.dense()), (self.row + 1) % len(self.G))

    def scalar_products(self, x: Array) -> Array:
        """Return G x, (m,): 2 m d flops."""
        return self.G @ x

    def linear_combination(self, c: Array) -> Array:
        """Return c G, (d,): 2 m d flops."""
        return c @ self.G

    def dense(self) -> Array:
        """Return G, (m, d)."""
        return self.G


@dataclass(frozen=True)
class SparseWindow:
    """G = (I, V): indices and values (m, K) of m gradients of which blockwise Top-k kept K entries.

    Source: section 3.1 "Sparsity format for G"; R13 and R14 for what is stored. ``stored_indices`` are absolute
    int32, or relative to their block as uint16 (block_size <= 65,536; the int16 of a signed reading wraps at
    32,767) or int32; ``indices`` gives them back as absolute int32.

    >>> window = SparseWindow.empty(d=10, m=2, block_size=4, density=0.5, dtype="float32", index="uint16")
    >>> window = window.insert(keep_blocks(np.arange(10.0), 4, 0.5))
    >>> window.stored_indices[0], window.indices[0]
    (array([2, 3, 2, 3, 1], dtype=uint16), array([2, 3, 6, 7, 9], dtype=int32))
    """

    stored_indices: Array  # (m, K)
    values: Array  # (m, K)
    d: int
    block_size: int
    density: Fraction
    index: str = "absolute"  # absolute | uint16 | int32, the last two relative to the block
    row: int = 0  # the row that is written next, the oldest

    @classmethod
    def empty(
        cls, d: int, m: int, block_size: int | None = None, density: Any = 0.01,
        dtype: str = "float64", index: str = "absolute",
    ) -> SparseWindow:
        """Return m empty rows: values 0 at the first ceil(density * size) positions of every block."""
        d, m = check.dimension(d), check.window_size(m)
        block_size, share, blocks = layout(d, block_size, density)
        check.choice("index", index, INDEX_STORAGE)
        if index == "uint16" and block_size > 2**16:
            raise ValueError(f"block_size = {block_size}, must be at most 65536 for uint16 indices")
        first = [start + np.arange(kept(end - start, share)) for start, end in blocks]
        values = np.zeros((m, sum(map(len, first))), storage(dtype))
        window = cls(np.empty(0), values, d, block_size, share, index)
        row = window.to_storage(np.concatenate(first))
        return replace(window, stored_indices=np.tile(row, (m, 1)))

    @cached_property
    def offsets(self) -> Array:
        """What is added to a stored index to make it absolute: the start of its block, ``(j // k_b) * B_d``; (K,)."""
        if self.index == "absolute":
            return np.zeros(self.values.shape[1], np.int32)
        _, share, blocks = layout(self.d, self.block_size, self.density)
        return np.repeat([start for start, _ in blocks], [kept(end - start, share) for start, end in blocks])

    def to_storage(self, indices: Array) -> Array:
        """Return absolute positions (K,) as they are stored."""
        return (indices - self.offsets).astype(np.uint16 if self.index == "uint16" else np.int32)

    @property
    def indices(self) -> Array:
        """Absolute positions, (m, K) int32 (R13)."""
        return (self.stored_indices + self.offsets).astype(np.int32)

    def insert(self, c: Sparse) -> SparseWindow:
        """Return the window in which the oldest row is ``c`` (R1); O(m K) bytes copied."""
        return replace(
            self,
            stored_indices=replaced(self.stored_indices, self.row, self.to_storage(c.indices)),
            values=replaced(self.values, self.row, c.values.astype(self.values.dtype)),
            row=(self.row + 1) % len(self.values),
        )

    def scalar_products(self, x: Array) -> Array:
        """Return G x, (m,), by Algorithm 2: 2 m K flops."""
        return sp(self.indices, self.values, x, self.block_size, self.density)

    def linear_combination(self, c: Array) -> Array:
        """Return c G, (d,), by Algorithm 3: 2 m K flops."""
        return lcg(self.indices, self.values, c, self.d, self.block_size, self.density)

    def dense(self) -> Array:
        """Return G with its zeros, (m, d) float64."""
        return densified(self.indices, self.values, self.d)


def densified(indices: Array, values: Array, d: int) -> Array:
    """Return the rows (indices, values), both (m, k), as a dense (m, d) float64 array.

    >>> densified(np.array([[0, 2]]), np.array([[5.0, 6.0]]), 3)
    array([[5., 0., 6.]])
    """
    G = np.zeros((len(indices), d))
    np.put_along_axis(G, np.asarray(indices, np.int64), np.asarray(values, np.float64), axis=1)
    return G
