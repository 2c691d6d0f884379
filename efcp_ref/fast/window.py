"""The window G = (I, V): a ring buffer stored slice by slice, with one row more than the window has.

The one idea: the row more. A new gradient is written into the spare row, which nobody reads yet; the step becomes
visible when the number of the spare row moves on. So inserting touches one row, the window is never copied, and a step
that is interrupted has changed nothing. Storage is (slice, row, entry): what SP and LCG read for one slice lies in one
piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.layout import Layout, Slice
from efcp_ref.fast.storage import BF16, widened
from efcp_ref.fast.sums import Tile
from efcp_ref.paper._validate import Array


class Window:
    """Slots of K entries each: positions relative to their slice (uint16 or int32), values as stored.

    >>> window = Window(Layout.of(10, 4, 0.5), slots=2, storage=np.dtype(np.float32))
    >>> window.write(1, np.array([2, 3, 6, 7, 9]), np.array([2.0, 3.0, 6.0, 7.0, 9.0]))
    >>> window.absolute([0, 1])
    array([[0, 1, 4, 5, 8],
           [2, 3, 6, 7, 9]], dtype=int32)
    """

    def __init__(self, layout: Layout, slots: int, storage: np.dtype[Any]) -> None:
        self.layout, self.count = layout, slots
        self.indices = np.empty(slots * layout.K, layout.index)
        self.values = np.empty(slots * layout.K, storage)
        self.clear()

    @staticmethod
    def bytes(layout: Layout, slots: int, storage: np.dtype[Any]) -> dict[str, int]:
        """Return the bytes of the two arrays, before they exist."""
        return {"indices": slots * layout.K * layout.index.itemsize, "values": slots * layout.K * storage.itemsize}

    def clear(self) -> None:
        """Make every row empty: zeros, at the first positions of every block. The pages are touched here, not later."""
        self.values[:] = 0
        B_d, B_k = self.layout.B_d, self.layout.B_k
        for s in self.layout.slices:
            column = np.arange(s.last - s.first)
            block = np.minimum(column // max(1, B_k), (s.end - s.start - 1) // B_d)
            self._slice(self.indices, s)[:] = column + block * (B_d - B_k)

    def _slice(self, flat: Array, s: Slice) -> Array:
        """Return all rows of a slice, (slots, entries): a view."""
        return flat[self.count * s.first : self.count * s.last].reshape(self.count, s.last - s.first)

    def _row(self, flat: Array, slot: int) -> tuple[Array, Array]:
        """Return a row as two views: (full slices, entries), and the entries of the last slice."""
        slices, count = self.layout.slices, self.count
        full, entries = len(slices) - 1, slices[0].last
        head = flat[: count * full * entries].reshape(full, count, entries)[:, slot]
        return head, self._slice(flat, slices[-1])[slot]

    def write(self, slot: int, indices: Array, values: Array) -> None:
        """Replace one row: positions (K,) relative to their slice, or absolute ones, and values as stored (K,)."""
        for flat, new in ((self.indices, indices), (self.values, values)):
            head, tail = self._row(flat, slot)
            np.copyto(head, new[: head.size].reshape(head.shape), casting="unsafe")
            np.copyto(tail, new[head.size :], casting="unsafe")

    def read(self, slot: int) -> tuple[Array, Array]:
        """Return a copy of one row as it is stored: positions (K,) and values (K,)."""
        parts = [self._row(flat, slot) for flat in (self.indices, self.values)]
        return tuple(np.concatenate([head.ravel(), tail]) for head, tail in parts)  # type: ignore[return-value]

    def absolute(self, slots: Any) -> Array:
        """Return the positions of some rows as the contract has them, (len(slots), K) int32 (R13)."""
        out = np.empty((len(slots), self.layout.K), np.int32)
        for s in self.layout.slices:
            out[:, s.first : s.last] = self._slice(self.indices, s)[slots]
            out[:, s.first : s.last] += np.int32(s.start)
        return out

    def stored(self, slots: Any) -> Array:
        """Return the values of some rows as they are stored, (len(slots), K)."""
        out = np.empty((len(slots), self.layout.K), self.values.dtype)
        for s in self.layout.slices:
            out[:, s.first : s.last] = self._slice(self.values, s)[slots]
        return out

    def fill(self, number: int, rows: slice, tile: Tile) -> None:
        """Show some rows of a slice to a tile: what has its width already as a view, the rest widened in the cache."""
        s = self.layout.slices[number]
        positions, values = (self._slice(flat, s)[rows].ravel() for flat in (self.indices, self.values))
        if positions.dtype == np.int32:
            tile.use(tile.values, positions)
        else:
            np.copyto(tile.indices, positions)
        if values.dtype == tile.values.dtype and values.dtype != BF16:
            tile.use(values)
        else:
            widened(values, tile.values.dtype, tile.values)
