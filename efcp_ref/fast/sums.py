"""SP and LCG, Algorithms 2 and 3: one slice of the vector stays in the cache while the rows of the window pass over it.

The one idea: a few rows of one slice, with positions counted from its start, *are* a small CSR matrix, and the same
arrays read the other way are a CSC matrix. SciPy multiplies both in compiled loops; its gathers (SP) and scatters (LCG)
go to a slice of 256 KB at most, not to a vector of 47 MB. The matrix object is made once per thread; what changes from
one piece to the next is the content of its arrays, which is a view of the window where nothing has to be widened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from efcp_ref.fast import threads
from efcp_ref.fast.layout import Layout, Slice, computed
from efcp_ref.fast.selection import finite, vector
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

PIECE = 2**17  # entries of a piece: positions, values and the slice of the vector fit a second-level cache together


class Rows(Protocol):
    """Rows of a sparse window that can be read piece by piece: `Window`, `RowMajor`."""

    layout: Layout
    count: int  # rows

    def fill(self, number: int, rows: slice, tile: Tile) -> None:
        """Write some rows of slice ``number`` into a tile: positions from the slice's start, and values."""


class Tile:
    """Room for some rows of one slice, and the two SciPy matrices over it.

    >>> tile = Tile(rows=1, entries=2, span=3, dtype=np.dtype(np.float64))
    >>> tile.indices[:], tile.values[:] = [0, 2], [10.0, 20.0]
    >>> tile.times(np.array([1.0, 1.0, 2.0])), tile.combined(np.array([3.0]))
    (array([50.]), array([30.,  0., 60.]))
    """

    def __init__(self, rows: int, entries: int, span: int, dtype: np.dtype[Any]) -> None:
        from scipy import sparse

        ends = np.arange(rows + 1, dtype=np.int32) * entries
        arrays = (np.zeros(rows * entries, dtype), np.zeros(rows * entries, np.int32), ends)
        self._rows = sparse.csr_array(arrays, shape=(rows, span), copy=False)
        self._columns = sparse.csc_array(arrays, shape=(span, rows), copy=False)
        self.indices: Array = self._rows.indices
        self.values: Array = self._rows.data
        self._columns.indices, self._columns.data = self.indices, self.values  # the same, whatever SciPy made of them

    def use(self, values: Array, indices: Array | None = None) -> None:
        """Take these arrays themselves, without copying: views of the window."""
        self._rows.data = self._columns.data = values
        if indices is not None:
            self._rows.indices = self._columns.indices = indices

    def times(self, x: Array) -> Array:
        """Return the scalar products of the rows with a slice of a vector, (rows,)."""
        return self._rows @ x

    def combined(self, c: Array) -> Array:
        """Return the linear combination of the rows, (span,)."""
        return self._columns @ c

    def dense(self) -> Array:
        """Return the rows with their zeros, transposed: (span, rows)."""
        return self._columns.toarray()

    def matrix(self) -> Any:
        """Return the rows as a SciPy CSR array."""
        return self._rows


class Tiles:
    """The tiles of one thread: one for every shape that occurs, usually one or two."""

    def __init__(self, rows: Rows, dtype: np.dtype[Any]) -> None:
        self._source, self._dtype = rows, dtype
        self._made: dict[tuple[int, int, int], Tile] = {}

    def pieces(self, number: int) -> Any:
        """Yield ``(rows, tile)`` for all rows of slice ``number``, a piece at a time."""
        s = self._source.layout.slices[number]
        entries, count = s.last - s.first, self._source.count
        step = min(count, max(1, PIECE // max(1, entries)))
        for first in range(0, count, step):
            rows = slice(first, min(first + step, count))
            shape = (rows.stop - first, entries, s.end - s.start)
            if shape not in self._made:
                self._made[shape] = Tile(*shape, self._dtype)
            tile = self._made[shape]
            self._source.fill(number, rows, tile)
            yield rows, tile


def scalar_products(rows: Rows, x: Array, dtype: np.dtype[Any]) -> Array:
    """Return G x, (rows,) float64: products and sums inside a slice in ``dtype``, across slices in float64.

    Cost: 2 m K flops; reads 6 m K bytes (uint16 and float32) and x once. Measured in docs/fast.md.
    """
    slices, own = rows.layout.slices, threads.Own(lambda: Tiles(rows, dtype))

    def part(numbers: Any) -> Array:
        total, tiles = np.zeros(rows.count), own()
        for number in numbers:
            s = slices[number]
            piece = np.ascontiguousarray(x[s.start : s.end], dtype)
            for which, tile in tiles.pieces(number):
                total[which] += tile.times(piece)
        return total

    return sum(threads.over(part, range(len(slices)), rows.count * rows.layout.K), np.zeros(rows.count))


def linear_combination(rows: Rows, c: Array, write: Callable[[Slice, Array], None], dtype: np.dtype[Any]) -> None:
    """Form c G slice by slice and hand every slice to ``write(slice, sum)``, from several threads.

    Cost: 2 m K flops; reads 6 m K bytes (uint16 and float32), writes the result once.
    """
    c, own = np.ascontiguousarray(c, dtype), threads.Own(lambda: Tiles(rows, dtype))

    def part(numbers: Any) -> None:
        tiles = own()
        for number in numbers:
            s = rows.layout.slices[number]
            total = np.zeros(s.end - s.start, dtype)
            for which, tile in tiles.pieces(number):
                total += tile.combined(c[which])
            write(s, total)

    threads.over(part, range(len(rows.layout.slices)), rows.count * rows.layout.K)


def gram(rows: Rows, dtype: np.dtype[Any]) -> Array:
    """Return G G^T, (rows, rows) float64: in every slice some rows, dense, are multiplied by all rows, sparse.

    Only products with rows that come later are formed; the other half is their mirror image.

    Cost: m^2 K flops; room for one dense piece.
    """
    slices, m = rows.layout.slices, rows.count

    def part(numbers: Any) -> Array:
        S, left, right = np.zeros((m, m)), Tiles(rows, dtype), Tiles(rows, dtype)
        for number in numbers:
            step = max(1, 2**20 // (slices[number].end - slices[number].start))
            for which, tile in left.pieces(number):
                for first in range(which.start, which.stop, step):
                    some = slice(first, min(first + step, which.stop))
                    dense = tile.matrix()[first - which.start : some.stop - which.start].toarray().T
                    _products(S, some, dense, right, number)
        return S

    upper = sum(threads.over(part, range(len(slices)), m * m * rows.layout.K, groups=4), np.zeros((m, m)))
    return np.triu(upper) + np.triu(upper, 1).T


def _products(S: Array, some: slice, dense: Array, tiles: Tiles, number: int) -> None:
    for which, tile in tiles.pieces(number):
        if which.stop > some.start:
            S[some, which] += (tile.matrix() @ dense).T


class RowMajor:
    """The window as the contract hands it over: indices and values (m, k), absolute positions, any strides.

    Checked by slices, so that nothing as large as the window is made.

    >>> RowMajor([[0, 3], [1, 2]], [[2.0, 1.0], [0.5, -1.0]], 4).layout
    Layout(d=4, B_d=4, B_k=2, K=2)
    """

    def __init__(self, indices: Any, values: Any, d: Any, block_size: Any = None, density: Any = 1) -> None:
        indices, values = np.asarray(indices), np.asarray(values)
        if indices.dtype.kind not in "iu" or indices.ndim != 2 or 0 in indices.shape:
            check.check_rows(indices, values, d, block_size, density)
        if (values.dtype.kind != "f" and values.dtype.name != "bfloat16") or values.shape != indices.shape:
            values = check.array("values", values, shape=indices.shape)
        self.layout = Layout.of(d, block_size, density, indices.shape[1])
        self.indices, self.values, self.count = indices, values, len(indices)
        self._said = (self.layout.d, block_size, density)
        if indices.shape != (self.count, self.layout.K) or self.layout.d < self.layout.K:
            check.check_rows(indices, values, *self._said)
        threads.over(self._check, range(len(self.layout.slices)), indices.size)

    def fill(self, number: int, rows: slice, tile: Tile) -> None:
        """Write some rows of a slice into a tile, positions counted from the slice's start."""
        s = self.layout.slices[number]
        shape = (rows.stop - rows.start, s.last - s.first)
        part = self.indices[rows, s.first : s.last]
        np.subtract(part, s.start, out=tile.indices.reshape(shape), casting="unsafe")
        np.copyto(tile.values.reshape(shape), self.values[rows, s.first : s.last], casting="unsafe")

    def _check(self, numbers: Any) -> None:
        """Raise ValueError where a row breaks the contract's rule; the reference's check says which and why."""
        for number in numbers:
            s = self.layout.slices[number]
            step = max(1, PIECE // max(1, s.last - s.first))
            for first in range(0, self.count, step):
                part = self.indices[first : first + step, s.first : s.last]
                values = self.values[first : first + step, s.first : s.last]
                if not (self._in_order(part, s) and np.isfinite(values.astype(np.float64)).all()):
                    check.check_rows(self.indices[first:], self.values[first:], *self._said)

    def _in_order(self, part: Array, s: Slice) -> bool:
        if not part.size:
            return True
        if part.min() < s.start or part.max() >= s.end:
            return False
        layout, relative = self.layout, (part - s.start).astype(np.int32)
        block = np.minimum(np.arange(s.last - s.first) // layout.B_k, (s.end - s.start - 1) // layout.B_d)
        distinct = (np.diff(relative, axis=1) > 0).all()  # our own rows ascend; a user's may not
        distinct = distinct or (np.diff(np.sort(relative, axis=1), axis=1) > 0).all()
        return bool(distinct and (relative // layout.B_d == block).all())


def sp(indices: Any, values: Any, g: Any, block_size: int | None = None, density: Any = 1) -> Array:
    """Multiply every row of the sparse window with a vector: as `efcp_ref.sp`, slice by slice.

    Source: Algorithm 2 (appendix G.1). ``omega_r = sum_j V[r, j] g[I[r, j]]``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), finite.
        g: vector, (d,), finite.
        block_size: B_d, at least 1; default one block of d.
        density: kept fraction in (0, 1] of every block.

    Returns:
        omega, (m,), in the wider precision of values and g.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape, or a row that breaks the layout.

    Cost: 2 m k flops, and the check of the rows, which costs more; `Window` keeps rows that are checked already.

    >>> sp([[0, 3], [1, 2]], [[2.0, 1.0], [0.5, -1.0]], np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 6., -2.])
    """
    g = finite("g", vector("g", g))
    rows = RowMajor(indices, values, len(g), block_size, density)
    precision = np.result_type(rows.values, g)
    return scalar_products(rows, g, computed(precision)).astype(precision)


def lcg(indices: Any, values: Any, c: Any, d: int, block_size: int | None = None, density: Any = 1) -> Array:
    """Combine the rows of the sparse window linearly: as `efcp_ref.lcg`, slice by slice.

    Source: Algorithm 3 (appendix G.2). ``omega_i = sum of c_r V[r, j] over all (r, j), I[r, j] = i``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), finite.
        c: coefficients of eq. (2), (m,), finite.
        d: dimension, at least 1.
        block_size: B_d, at least 1; default one block of d.
        density: kept fraction in (0, 1] of every block.

    Returns:
        omega, (d,), in the wider precision of values and c; exactly 0 where no row has an entry.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape, or a row that breaks the layout.

    Cost: 2 m k flops, and the check of the rows, which costs more; `Window` keeps rows that are checked already.

    >>> lcg([[0, 1, 4], [0, 3, 4]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, 10.0], 5, 4, 0.5)
    array([41.,  2.,  0., 50., 63.])
    """
    rows = RowMajor(indices, values, d, block_size, density)
    c = check.array("c", c, shape=(rows.count,))
    precision = np.result_type(rows.values, c)
    omega = np.empty(rows.layout.d, precision)

    def write(s: Slice, total: Array) -> None:
        omega[s.start : s.end] = total

    linear_combination(rows, c, write, computed(precision))
    return omega
