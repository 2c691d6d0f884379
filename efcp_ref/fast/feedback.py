"""Error feedback, Algorithm 1, lines 5 to 7: sum, Top-k and residual of one slice before the next slice is touched.

The one idea: the three lines are one pass over memory. A slice of the accumulator is made where the next error will
be, selected from and turned into that error while it lies in the cache: what is not kept is there already.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from efcp_ref.fast import threads
from efcp_ref.fast.layout import Layout, Slice, computed
from efcp_ref.fast.selection import finite, in_blocks, vector
from efcp_ref.fast.storage import rounded, shown, stored_as, widened
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_1 import Feedback


class Compressed(NamedTuple):
    """What error feedback keeps, as a window stores it, and what it carries over."""

    indices: Array  # (K,) relative to their slice
    values: Array  # (K,) as stored
    xi: Array  # (d,)


def feed_back(xi: Array, g: Array, layout: Layout, storage: np.dtype[Any], out: Array | None = None) -> Compressed:
    """Return what is kept of xi + g and the next error, computed in the precision of xi (in ``out``, not xi, if given).

    Source: Algorithm 1, lines 5-7; R11-R14: the residual is taken from the values as stored.

    Raises:
        ValueError: g, or xi + g, holds NaN or infinity.

    Cost: reads xi and g, writes the next xi, once each; everything else happens in the cache.
    """
    new = Compressed(
        np.empty(layout.K, layout.index), np.empty(layout.K, storage), np.empty_like(xi) if out is None else out
    )
    own = threads.Own(lambda: np.empty(layout.slices[0].end, xi.dtype))

    def compress(slices: tuple[Slice, ...]) -> None:
        for s in slices:
            a, size = new.xi[s.start : s.end], own()[: s.end - s.start]  # both stay in the cache
            np.add(xi[s.start : s.end], g[s.start : s.end], out=a, casting="same_kind")
            _finite(np.abs(a, out=size), g[s.start : s.end])
            kept = in_blocks(size, layout, s.last - s.first)
            values = a[kept]
            new.indices[s.first : s.last] = kept
            new.values[s.first : s.last] = stored = rounded(values, storage)
            a[kept] = values - _in_range(widened(stored, a.dtype), storage)

    threads.over(compress, layout.slices, layout.d)
    return new


def _finite(size: Array, g: Array) -> None:
    if not size.max() < np.inf:  # the largest of numbers with a NaN among them is NaN
        name = "g" if not np.isfinite(g.astype(np.float64)).all() else "xi + g"
        raise ValueError(f"{name} holds NaN or infinity, every entry must be finite")


def _in_range(values: Array, storage: np.dtype[Any]) -> Array:
    if not np.isfinite(values).all():
        raise ValueError(f"xi + g holds a number too large for the window, whose values take {storage.itemsize} bytes")
    return values


def error_feedback(xi: Any, g: Any, block_size: int | None = None, density: Any = 0.01) -> Feedback:
    """Add the error to the gradient, keep the largest of every block, carry the rest over: `efcp_ref.error_feedback`.

    Source: Algorithm 1, lines 5-7. ``a = xi + g; c = TopK(a); xi' = a - c``.

    Args:
        xi: error xi_{t-1}, (d,), finite.
        g: gradient g_t, (d,), finite.
        block_size: B_d, at least 1; default d, one block.
        density: kept fraction of every block, in (0, 1].

    Returns:
        ``indices`` (K,) int32, ``values`` (K,) and the next ``xi`` (d,), in the wider precision of xi and g.

    Raises:
        TypeError, ValueError: xi and g are not finite real vectors of one length, or the layout is wrong.

    Cost: see `feed_back`; xi is copied where it has not the precision of the result.

    >>> error_feedback(np.array([0.0, 1.5, 0.0]), np.array([1.0, 1.0, -2.0]), density=0.3)
    Feedback(indices=array([1], dtype=int32), values=array([2.5]), xi=array([ 1.,  0., -2.]))
    """
    xi = vector("xi", xi)
    g = vector("g", g, len(xi))
    precision = np.result_type(xi, g)
    layout, dtype = Layout.of(len(xi), block_size, density), computed(precision)
    xi, g = finite("xi", xi.astype(dtype, copy=False)), g.astype(dtype, copy=False)
    new = feed_back(xi, g, layout, stored_as(precision))
    return Feedback(absolute(new.indices, layout), shown(new.values), new.xi.astype(precision, copy=False))


def absolute(indices: Array, layout: Layout) -> Array:
    """Return one row's positions (K,), given from the starts of their slices, as absolute int32 (R13).

    >>> absolute(np.array([2, 0], np.uint16), Layout(d=2**17, B_d=2**16, B_k=1, K=2))
    array([    2, 65536], dtype=int32)
    """
    starts = [s.start for s in layout.slices]
    return (indices + np.repeat(starts, [s.last - s.first for s in layout.slices])).astype(np.int32)
