"""Algorithm 2: the SP kernel, scalar products of the rows of a sparse window with a vector.

The kernel is written as it is printed. A thread block is one call of `thread_block`; its T threads are the lanes of a
NumPy axis, so a statement runs for all lanes before the next one starts; shared memory is the array ``mem``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


def strided(first: Array, end: int, step: int) -> Iterator[tuple[Array, Array]]:
    """Yield ``(lanes, j)`` per round of the loop ``range(first, end, step)`` that every lane makes (R16).

    ``lanes`` are the threads whose j is still below ``end``; the others are masked, they have left the loop.

    >>> [(lanes.tolist(), j.tolist()) for lanes, j in strided(np.arange(4), 6, 4)]
    [([0, 1, 2, 3], [0, 1, 2, 3]), ([0, 1], [4, 5])]
    """
    j = np.array(first)  # (T,) where every lane stands
    while (j < end).any():
        lanes = np.flatnonzero(j < end)
        yield lanes, j[lanes]
        j = j + step


def parallel_reduce(mem: Array, T: int) -> None:
    """Sum ``mem[:T]`` into ``mem[0]`` in place, level by level: log2 T levels, a barrier after each (R16).

    >>> mem = np.array([1.0, 2.0, 3.0, 4.0])
    >>> parallel_reduce(mem, 4)
    >>> mem
    array([10.,  6.,  3.,  4.])
    """
    half = T // 2
    while half > 0:
        Tid = np.arange(half)  # the lower half of the lanes that are left
        mem[Tid] = mem[Tid] + mem[Tid + half]
        half = half // 2


def threads_for(k: int) -> int:
    """Return the threads that `sp` and `lcg` use: the paper's 1024, or fewer where a row is shorter.

    It is the power of two that covers k. Further lanes would only add zeros, and fill a trace.

    >>> threads_for(5), threads_for(41728)
    (8, 1024)
    """
    return min(1024, 1 << (k - 1).bit_length())


def thread_block(block: int, indices: Array, values: Array, g: Array, omega: Array, threads: int) -> None:
    """Run one thread block of Algorithm 2: ``omega[block] = sum_j V[block, j] g[I[block, j]]``, in place."""
    k = indices.shape[1]
    T = threads  # line 6 comes first: line 2 needs T (R16)                 # 2:6
    mem = np.zeros(T)  # (T,) shared memory                                  # 2:2
    sigma = np.zeros(T)  # (T,) one register per lane                        # 2:3
    Bid = block  #                                                           # 2:4
    Tid = np.arange(T)  # (T,) the lanes                                     # 2:5
    r = Bid  #                                                               # 2:7
    for lanes, j in strided(Tid, k, T):  #                                   # 2:8
        i = indices[r, j]  # (lanes,)                                        # 2:9
        v = values[r, j]  # (lanes,)                                         # 2:10
        sigma[lanes] = sigma[lanes] + v * g[i]  #                            # 2:11
    mem[Tid] = sigma  #                                                      # 2:13
    parallel_reduce(mem, T)  #                                               # 2:14
    for _ in Tid[Tid == 0]:  # lane 0 alone writes                           # 2:15
        omega[r] = mem[0]  #                                                 # 2:16


def sp_kernel(indices: Array, values: Array, g: Array, *, T: int = 1024) -> Array:
    """Launch Algorithm 2 with one thread block per row (R15) and T threads in each; float64, arguments as in `sp`.

    Raises:
        TypeError, ValueError: T is not a power of two of at least 1: the tree of line 14 halves it (R16).

    >>> sp_kernel(np.array([[0, 2]]), np.array([[2.0, 3.0]]), np.array([10.0, 20.0, 30.0]), T=4)
    array([110.])
    """
    T = check.integer("T", T, 1)
    if T & (T - 1):
        raise ValueError(f"T = {T}, must be a power of two (R16)")
    values, g = values.astype(np.float64), g.astype(np.float64)
    omega = np.zeros(len(indices))  # (m,)
    for block in range(len(indices)):  # m thread blocks (R15)
        thread_block(block, indices, values, g, omega, T)
    return omega


def sp(indices: Any, values: Any, g: Any, block_size: int | None = None, density: Any = 1) -> Array:
    """Multiply every row of the sparse window with a vector: ``omega = G g``.

    Source: Algorithm 2 (appendix G.1), R13, R15, R16. ``omega_r = sum_j V[r, j] g[I[r, j]]``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), finite.
        g: vector, (d,), finite.
        block_size: B_d, at least 1; default one block of d. It does not change the result.
        density: kept fraction in (0, 1] of every block.

    Returns:
        omega, (m,), in the wider precision of values and g.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape, or a row that breaks the layout.

    Cost: 2 m k flops and m (T - 1) additions in the tree; reads 20 m k bytes.

    >>> sp([[0, 3], [1, 2]], [[2.0, 1.0], [0.5, -1.0]], np.array([1.0, 2.0, 3.0, 4.0]))
    array([ 6., -2.])
    """
    g = check.array("g", g, ndim=1)
    indices, values, _, _ = check.check_rows(indices, values, len(g), block_size, density)
    omega = sp_kernel(indices, values, g, T=threads_for(indices.shape[1]))
    return check.like(np.result_type(values, g), omega)
