"""The window G = (I, V): a ring buffer stored slice by slice, with one row more than the window has.

The one idea: the row more. A new gradient is written into the spare row, which nobody reads yet; the step becomes
visible when the number of the spare row moves on. So inserting touches one row, the window is never copied, and a step
that is interrupted has changed nothing. Storage is (slice, strip, row, entry): what SP and LCG read at a time lies in
one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from efcp_ref.fast.layout import Layout
from efcp_ref.fast.storage import BF16, widened
from efcp_ref.fast.sums import Piece, Tile
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
        row = np.empty(self.layout.K, self.layout.index)
        for s in self.layout.slices:
            column = np.arange(s.last - s.first)
            block = np.minimum(column // max(1, B_k), (s.end - s.start - 1) // B_d)
            row[s.first : s.last] = column + block * (B_d - B_k)
        for rows, part in self._views(self.indices, row):
            rows[:] = part[:, :, None]

    def _views(self, flat: Array, row: Array) -> Iterator[tuple[Array, Array]]:
        """Yield views of all rows (slices, strips, rows, entries) and of one row (slices, strips, entries).

        Four at most: the last slice may have fewer entries than the others, and so may the last strip of a slice.
        """
        layout, count = self.layout, self.count
        for run in (layout.slices[:-1], layout.slices[-1:]):
            if run:
                first, last, n, width = run[0].first, run[-1].last, len(run), layout.width(run[0])
                rows, own = flat[count * first : count * last].reshape(n, -1), row[first:last].reshape(n, -1)
                entries = own.shape[1]
                even = entries // width * width
                yield rows[:, : count * even].reshape(n, even // width, count, width), _split(own[:, :even], width)
                if even < entries:
                    rest = entries - even
                    yield rows[:, count * even :].reshape(n, 1, count, rest), _split(own[:, even:], rest)

    def strip(self, flat: Array, first: int, last: int) -> Array:
        """Return all rows of a strip, (slots, entries): a view."""
        return flat[self.count * first : self.count * last].reshape(self.count, last - first)

    def write(self, slot: int, indices: Array, values: Array) -> None:
        """Replace one row: positions (K,) relative to their slice, and values as stored (K,)."""
        for flat, new in ((self.indices, indices), (self.values, values)):
            for rows, part in self._views(flat, new):
                np.copyto(rows[:, :, slot], part, casting="unsafe")

    def read(self, slot: int) -> tuple[Array, Array]:
        """Return a copy of one row as it is stored: positions (K,) and values (K,)."""
        return self._row(self.indices, slot), self._row(self.values, slot)

    def _row(self, flat: Array, slot: int) -> Array:
        out = np.empty(self.layout.K, flat.dtype)
        for rows, part in self._views(flat, out):
            part[:] = rows[:, :, slot]
        return out

    def absolute(self, slots: Any) -> Array:
        """Return the positions of some rows as the contract has them, (len(slots), K) int32 (R13)."""
        slices, out = self.layout.slices, np.empty((len(slots), self.layout.K), np.int32)
        starts = np.repeat([s.start for s in slices], [s.last - s.first for s in slices])
        for row, slot in zip(out, slots, strict=True):
            np.add(self._row(self.indices, slot), starts, out=row, casting="unsafe")
        return out

    def stored(self, slots: Any) -> Array:
        """Return the values of some rows as they are stored, (len(slots), K)."""
        return np.stack([self._row(self.values, slot) for slot in slots])

    def fill(self, piece: Piece, tile: Tile) -> None:
        """Show a piece to a tile: what has its width already as a view, the rest widened in the cache."""
        where = piece.stretch(self.count)
        positions, values = self.indices[where], self.values[where]
        if positions.dtype != np.int32:
            np.copyto(tile.indices, positions)
            positions = tile.indices
        if values.dtype != tile.values.dtype or values.dtype == BF16:
            values = widened(values, tile.values.dtype, tile.values)
        tile.use(values, positions)


def _split(row: Array, width: int) -> Array:
    """Return (slices, entries) as (slices, strips, width): a view."""
    return row.reshape(len(row), row.shape[1] // width, width)
