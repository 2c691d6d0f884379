"""Top-k and blockwise Top-k: a cut instead of a sort.

The one idea: the k-th largest magnitude of a block is found by partition, in linear time; and a sample of every 32nd
entry says beforehand where it must lie, so that only a few per cent of the block are partitioned at all. The sample
is a guess and the answer is exact: too few survivors, and the whole block is partitioned.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast import threads
from efcp_ref.fast.layout import Layout, Slice, computed
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import Kept

STRIDE = 32  # of the sample
SAMPLED = 4096  # entries from which a sample pays


def largest(size: Array, k: int) -> Array:
    """Return the positions of the k largest of a vector of magnitudes, ascending; ties go to the lowest (R12).

    Cost: a partition, about 2 ns per entry; 5 bytes of room per entry.

    >>> largest(np.array([1.0, 3.0, 3.0, 1.0]), 3)
    array([0, 1, 2])
    """
    if k == 0:
        return np.zeros(0, np.intp)
    cut = np.partition(size, len(size) - k)[len(size) - k]
    positions = np.flatnonzero(size >= cut)  # (>= k,)
    if len(positions) > k:
        tied = np.flatnonzero(size[positions] == cut)
        positions = np.delete(positions, tied[k - len(positions) :])
    return positions


def sampled(size: Array, k: int) -> Array:
    """Return `largest` of a long vector, from the few entries that a sample does not rule out.

    Cost: two passes and a partition of the survivors, about 1 ns per entry.

    >>> size = np.arange(9000.0) * 7 % 9001
    >>> sampled(size, 3), size[sampled(size, 3)]
    (array([5143, 6429, 7715]), array([8998., 8999., 9000.]))
    """
    if len(size) < SAMPLED or k == 0:
        return largest(size, k)
    sample = size[::STRIDE]
    expected = k / STRIDE  # above the cut; three standard deviations more are let through
    rank = min(len(sample), int(expected + 3 * expected**0.5) + 4)
    guess = np.partition(sample, len(sample) - rank)[len(sample) - rank]
    survivors = np.flatnonzero(size >= guess)
    return survivors[largest(size[survivors], k)] if len(survivors) >= k else largest(size, k)


def in_blocks(size: Array, layout: Layout, entries: int) -> Array:
    """Return the positions that blockwise Top-k keeps of a slice, ``entries`` of them, ascending.

    >>> in_blocks(np.array([9.0, 8.0, 7.0, 0.1, 0.2, 0.3, 5.0]), Layout.of(7, 3, 0.3), 3)
    array([0, 5, 6])
    """
    B_d, B_k = layout.B_d, layout.B_k
    full = len(size) // B_d
    cuts = [(b * B_d, (b + 1) * B_d, B_k) for b in range(full)] if B_d >= SAMPLED else []
    whole = _small_blocks(size[: full * B_d].reshape(full, B_d), B_k) if full and not cuts else None
    if full * B_d < len(size):
        cuts.append((full * B_d, len(size), entries - full * B_k))
    parts = [start + sampled(size[start:end], k) for start, end, k in cuts]
    return np.concatenate(parts if whole is None else [whole, *parts])


def _small_blocks(size: Array, k: int) -> Array:
    """Top-k of every row of (blocks, B_d) in one partition; rows with ties at the cut one by one."""
    blocks, B_d = size.shape
    if k == 0:
        return np.zeros(0, np.intp)
    cut = np.partition(size, B_d - k, axis=1)[:, B_d - k]  # (blocks,)
    on = size >= cut[:, None]
    count = np.count_nonzero(on, axis=1)
    for block in np.flatnonzero(count > k):
        on[block] = False
        on[block, largest(size[block], k)] = True
    return np.flatnonzero(on)


def finite(name: str, a: Array) -> Array:
    """Return a part of a vector if it is finite, else raise ValueError naming the whole."""
    if not np.isfinite(a).all():
        raise ValueError(f"{name} holds NaN or infinity, every entry must be finite")
    return a


def vector(name: str, value: Any, d: int | None = None) -> Array:
    """Return ``value`` as a vector of real numbers, not looking at them yet: `finite` does, slice by slice."""
    a = check.plain(name, value)
    if (a.dtype.kind != "f" and a.dtype.name != "bfloat16") or not a.dtype.isnative:
        a = check.array(name, value, ndim=1)
    if a.ndim != 1 or not len(a) or (d is not None and len(a) != d):
        check.array(name, a, shape=(d,))
    return a


def block_top_k(a: Any, block_size: int | None = None, density: Any = 0.01) -> Kept:
    """Keep the ceil(density * size) largest magnitudes of every block: as `efcp_ref.block_top_k`, slice by slice.

    Source: section 3.1 "Sparsity Pattern", appendix G.2; R11-R13.

    Args:
        a: accumulator a, (d,), finite.
        block_size: B_d, at least 1; default d, one block.
        density: kept fraction in (0, 1], read exactly.

    Returns:
        ``indices`` (K,) int32, absolute, block after block, and ``values = a[indices]`` (K,).

    Raises:
        TypeError, ValueError: a is not a finite real vector, or the layout is wrong.

    Cost: about 2 ns per entry on one core; reads 4 d bytes once, writes 8 K.

    >>> block_top_k(np.array([9.0, 8.0, 7.0, 0.1, 0.2, 0.3]), 3, 0.3)
    Kept(indices=array([0, 5], dtype=int32), values=array([9. , 0.3]))
    """
    a = vector("a", a)
    return _kept(a, Layout.of(len(a), block_size, density))


def _kept(a: Array, layout: Layout) -> Kept:
    indices, dtype = np.empty(layout.K, np.int32), computed(a.dtype)

    def select(slices: tuple[Slice, ...]) -> None:
        for s in slices:
            part = finite("a", a[s.start : s.end].astype(dtype, copy=False))
            indices[s.first : s.last] = in_blocks(np.abs(part), layout, s.last - s.first) + s.start

    threads.over(select, layout.slices, layout.d)
    return Kept(indices, a[indices])


def top_k(a: Any, k: int) -> Kept:
    """Keep the k entries of largest magnitude: as `efcp_ref.top_k`, by a cut.

    Source: section 3.1, TopK; R12.

    Args:
        a: accumulator a, (d,), finite.
        k: kept entries, 0..d.

    Returns:
        ``indices`` (k,) int32 ascending and ``values = a[indices]`` (k,), in the precision of a.

    Raises:
        TypeError, ValueError: a is not a finite real vector, or k is not an integer in 0..d.

    Cost: about 2 ns per entry; 8 d bytes.

    >>> top_k(np.array([0.5, -3.0, 2.0, 0.1]), 2)
    Kept(indices=array([1, 2], dtype=int32), values=array([-3.,  2.]))
    """
    a = vector("a", a)
    return _kept(a, Layout.of(len(a), k=check.integer("k", k, 0, len(a))))
