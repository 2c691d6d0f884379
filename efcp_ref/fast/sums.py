"""SP and LCG, Algorithms 2 and 3: a stretch of the vector stays in the cache while the rows of the window pass over it.

The one idea: some rows of one strip, with positions counted from the start of their slice, *are* a small CSR matrix,
and the same arrays read the other way are a CSC matrix; several strips are more such rows. SciPy multiplies both in
compiled loops; its gathers (SP) and scatters (LCG) go to a few KB of a vector at a time, not to all of its 47 MB. The
matrix object is made once per thread; what changes from one piece to the next is the content of its arrays, which is a
view of the window where nothing has to be widened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from efcp_ref.fast import threads
from efcp_ref.fast.layout import Layout, Slice, computed
from efcp_ref.fast.selection import finite, vector
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

PIECE = 2**17  # entries of a piece: positions, values and the slice of the vector fit a second-level cache together


class Piece(NamedTuple):
    """Some rows of a strip, or all rows of several strips: what is multiplied at a time."""

    of: Slice
    strips: list[tuple[int, int]]  # entries first..last, counted from the first one of the slice
    rows: slice

    def stretch(self, count: int) -> slice:
        """Return where the piece lies in an array (slice, strip, row, entry) of ``count`` rows: in one stretch.

        >>> Piece(Slice(0, 8, 3, 7), [(0, 2), (2, 4)], slice(0, 10)).stretch(10)
        slice(30, 70, None)
        """
        (first, after), (before, last) = self.strips[0], self.strips[-1]
        start, stop = self.rows.start * (after - first), self.rows.stop * (last - before)
        return slice((self.of.first + first) * count + start, (self.of.first + before) * count + stop)


class Rows(Protocol):
    """Rows of a sparse window that can be read piece by piece: `Window`, `RowMajor`."""

    layout: Layout
    count: int  # rows

    def fill(self, piece: Piece, tile: Tile) -> None:
        """Write a piece into a tile, strip after strip: positions from the slice's start, and values."""


class Tile:
    """Room for some rows of strips of given widths, and the two SciPy matrices over it.

    >>> tile = Tile(1, (2, 1), span=3, dtype=np.dtype(np.float64))
    >>> tile.indices[:], tile.values[:] = [0, 2, 1], [10.0, 20.0, 1.0]
    >>> tile.times(np.array([1.0, 1.0, 2.0])), tile.combined(np.array([3.0]))
    (array([51.]), array([30.,  3., 60.]))
    """

    def __init__(self, rows: int, widths: tuple[int, ...], span: int, dtype: np.dtype[Any]) -> None:
        self._strips, self._count, self._span = len(widths), rows, span
        self._ends = np.concatenate([[0], np.cumsum(np.repeat(widths, rows))]).astype(np.int32)
        self.values: Array = np.zeros(self._ends[-1], dtype)
        self.indices: Array = np.zeros(self._ends[-1], np.int32)
        self.use(self.values, self.indices)

    def use(self, values: Array, indices: Array) -> None:
        """Take these arrays themselves, without copying: views of the window."""
        self._arrays = values, indices

    @cached_property
    def _csr(self) -> Any:
        from scipy import sparse

        return sparse.csr_array((*self._arrays, self._ends), shape=(len(self._ends) - 1, self._span), copy=False)

    @cached_property
    def _csc(self) -> Any:
        from scipy import sparse

        return sparse.csc_array((*self._arrays, self._ends), shape=(self._span, len(self._ends) - 1), copy=False)

    def times(self, x: Array) -> Array:
        """Return the scalar products of the rows with a slice of a vector, (rows,), or of n vectors, (span, n)."""
        parts = (self.matrix() @ x).reshape(self._strips, self._count, *x.shape[1:])
        return parts.sum(axis=0, dtype=np.float64)

    def combined(self, c: Array) -> Array:
        """Return the linear combination of the rows, (span,)."""
        self._csc.data, self._csc.indices = self._arrays
        return self._csc @ np.tile(c, self._strips)

    def write_out(self, dense: Array) -> None:
        """Write the rows into the columns of (span, rows)."""
        values, indices = self._arrays
        dense[indices, np.repeat(np.tile(np.arange(self._count), self._strips), np.diff(self._ends))] = values

    def matrix(self) -> Any:
        """Return the rows as a SciPy CSR array, those of one strip after those of another."""
        self._csr.data, self._csr.indices = self._arrays
        return self._csr


class Tiles:
    """The tiles of one thread, and which strips and rows go into which: the same for slices of one size."""

    def __init__(self, rows: Rows, dtype: np.dtype[Any]) -> None:
        self._source, self._dtype = rows, dtype
        self._made: dict[tuple[Any, ...], Tile] = {}
        self._plans: dict[tuple[int, ...], list[tuple[list[tuple[int, int]], slice, Tile]]] = {}

    def pieces(self, number: int, rows: slice | None = None) -> Iterator[tuple[slice, Tile]]:
        """Yield ``(rows, tile)``, a piece at a time, for all rows of slice ``number``, or for some of them."""
        s, some = self._source.layout.slices[number], rows or slice(0, self._source.count)
        key = (s.last - s.first, s.end - s.start, some.start, some.stop)
        if key not in self._plans:
            self._plans[key] = list(self._plan(s, some))
        for strips, which, tile in self._plans[key]:
            self._source.fill(Piece(s, strips, which), tile)
            yield which, tile

    def _plan(self, s: Slice, some: slice) -> Iterator[tuple[list[tuple[int, int]], slice, Tile]]:
        layout, count = self._source.layout, some.stop - some.start
        strips, width = [(first - s.first, last - s.first) for first, last in layout.strips(s)], layout.width(s)
        together = even(len(strips), PIECE // (width * count)) if count == self._source.count else 1
        step = even(count, PIECE // width)
        for n in range(0, len(strips), together):
            widths = tuple(last - first for first, last in strips[n : n + together])
            for which in stretches(some.start, some.stop, step):
                yield strips[n : n + together], which, self._tile(which.stop - which.start, widths, s.end - s.start)

    def _tile(self, rows: int, widths: tuple[int, ...], span: int) -> Tile:
        shape = rows, widths, span
        if shape not in self._made:
            self._made[shape] = Tile(*shape, self._dtype)
        return self._made[shape]


def even(n: int, most: int) -> int:
    """Return the size of the fewest equal parts of n that hold ``most`` at most, and one at least.

    >>> even(10, 4), even(10, 3), even(10, 0)
    (4, 3, 1)
    """
    parts = -(-n // max(1, most))
    return -(-n // parts)


def stretches(start: int, stop: int, step: int) -> list[slice]:
    """Return start..stop in stretches of ``step``.

    >>> stretches(0, 5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(first, min(first + step, stop)) for first in range(start, stop, step)]


def scalar_products(rows: Rows, x: Array, dtype: np.dtype[Any]) -> Array:
    """Return G x, (rows,) float64: products and sums inside a strip in ``dtype``, across strips in float64.

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
            parts = (tile.combined(c[which]) for which, tile in tiles.pieces(number))
            total = next(parts)
            for more in parts:
                total += more
            write(s, total)

    threads.over(part, range(len(rows.layout.slices)), rows.count * rows.layout.K)


def gram(rows: Rows, dtype: np.dtype[Any]) -> Array:
    """Return G G^T, (rows, rows) float64: in every slice some rows, dense, are multiplied by all rows, sparse.

    Only products with rows that come later are formed; the other half is their mirror image.

    Cost: m^2 K flops; room for one dense piece.
    """
    slices, m = rows.layout.slices, rows.count

    def part(numbers: Any) -> Array:
        S, tiles = np.zeros((m, m)), Tiles(rows, dtype)
        for number in numbers:
            span = slices[number].end - slices[number].start
            for some in stretches(0, m, max(1, 2**20 // span)):
                dense = np.zeros((span, some.stop - some.start), dtype)
                for which, tile in tiles.pieces(number, some):
                    tile.write_out(dense[:, which.start - some.start : which.stop - some.start])
                for later in stretches(some.start // 256 * 256, m, 256):
                    for which, tile in tiles.pieces(number, later):
                        S[some, which] += tile.times(dense).T
        return S

    upper = sum(threads.over(part, range(len(slices)), m * m * rows.layout.K, groups=4), np.zeros((m, m)))
    return np.triu(upper) + np.triu(upper, 1).T


class RowMajor:
    """The window as the contract hands it over: indices and values (m, k), absolute positions, any strides.

    Checked by slices, so that nothing as large as the window is made.

    >>> RowMajor([[0, 3], [1, 2]], [[2.0, 1.0], [0.5, -1.0]], 4).layout
    Layout(d=4, B_d=4, B_k=2, K=2)
    """

    def __init__(self, indices: Any, values: Any, d: Any, block_size: Any = None, density: Any = 1) -> None:
        indices, values = check.plain("indices", indices), check.plain("values", values)
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

    def fill(self, piece: Piece, tile: Tile) -> None:
        """Write a piece into a tile, strip after strip, positions counted from the slice's start."""
        count, at, begin = piece.rows.stop - piece.rows.start, 0, piece.of.first
        for first, last in piece.strips:
            end, shape = at + count * (last - first), (count, last - first)
            from_, to = (piece.rows, slice(begin + first, begin + last)), slice(at, end)
            np.subtract(self.indices[from_], piece.of.start, out=tile.indices[to].reshape(shape), casting="unsafe")
            np.copyto(tile.values[to].reshape(shape), self.values[from_], casting="unsafe")
            at = end

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
