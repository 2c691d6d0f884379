"""Algorithm 3: the LCG kernel, the linear combination of the rows of a sparse window.

The kernel is written as it is printed. A thread block is one call of `thread_block`; its T threads are the lanes of a
NumPy axis, so a statement runs for all lanes before the next one starts, and the barriers of lines 8, 22 and 29 are
met by themselves; shared memory is the array ``mem``. A slice (m, B_d) of the window is what falls into one Top-k
block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_2 import strided, threads_for


def thread_block(
    block: int, indices: Array, values: Array, c: Array, omega: Array, B_d: int, B_k: int, blocks: int, threads: int
) -> None:
    """Run one thread block of Algorithm 3: its slices of ``omega = sum_r c_r G_r``, in place."""
    (m, k), d = indices.shape, len(omega)
    B = blocks  #                                                            # 3:2
    BlockId = block  # the number of a group of slices, not a row (R21)      # 3:3
    T = threads  # line 5 comes first: the lanes need T                      # 3:5
    ThreadId = np.arange(T)  # (T,) the lanes                                # 3:4
    mem = np.empty(B_d)  # (B_d,) shared memory, not T components (R17)      # 3:6
    mem[:] = 0  #                                                            # 3:7
    n_Bd = -(-d // B_d)  # ceil(d / B_d) slices                              # 3:9
    workload = -(-n_Bd // B)  # slices per thread block (R18)                # 3:10
    for i in range(workload):  #                                             # 3:11
        start_d = B_d * BlockId * workload + B_d * i  #                      # 3:12
        end_d = min(d, start_d + B_d)  #                                     # 3:13
        start_k = B_k * BlockId * workload + B_k * i  #                      # 3:14
        end_k = min(k, start_k + B_k)  # k, not B_k (R19)                    # 3:15
        for row in range(m):  # all rows (R20)                               # 3:16
            for _, col in strided(start_k + ThreadId, end_k, T):  # (R21)    # 3:17
                index = indices[row, col]  # (lanes,) absolute (R13)         # 3:18
                v = values[row, col]  # (lanes,)                             # 3:19
                mem[index - start_d] += c[row] * v  # distinct in a row      # 3:20
        for _, j in strided(ThreadId, end_d - start_d, T):  # up to min(B_d, d - start_d)  # 3:25
            omega[j + start_d] = mem[j]  #                                   # 3:26
            mem[j] = 0  #                                                    # 3:27


def lcg_kernel(
    indices: Array, values: Array, c: Array, d: int, B_d: int, B_k: int, *, T: int = 1024, B: int | None = None
) -> Array:
    """Launch Algorithm 3 with B thread blocks (default: one per slice) of T threads; float64, arguments as in `lcg`.

    Raises:
        TypeError, ValueError: T or B is not an integer of at least 1.

    >>> I, V = np.array([[0, 1, 4], [0, 3, 4]]), np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> lcg_kernel(I, V, np.array([1.0, 10.0]), 5, 4, 2, T=2, B=1)
    array([41.,  2.,  0., 50., 63.])
    """
    T = check.integer("T", T, 1)
    B = -(-d // B_d) if B is None else check.integer("B", B, 1)
    values, c = values.astype(np.float64), c.astype(np.float64)
    omega = np.zeros(d)  # (d,)
    for block in range(B):
        thread_block(block, indices, values, c, omega, B_d, B_k, B, T)
    return omega


def lcg(indices: Any, values: Any, c: Any, d: int, block_size: int | None = None, density: Any = 1) -> Array:
    """Combine the rows of the sparse window linearly: ``omega = c G``.

    Source: Algorithm 3 (appendix G.2), R13, R17-R21. ``omega_i = sum of c_r V[r, j] over all (r, j), I[r, j] = i``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), finite.
        c: coefficients of eq. (2), (m,), finite.
        d: dimension, at least 1.
        block_size: B_d, at least 1; default one block of d.
        density: kept fraction in (0, 1] of every block; the last block keeps ceil(density * its own size) entries.

    Returns:
        omega, (d,), in the wider precision of values and c; exactly 0 where no row has an entry.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or shape, or a row that breaks the layout.

    Cost: 2 m k flops; reads 12 m k bytes, writes 8 d.

    >>> lcg([[0, 1, 4], [0, 3, 4]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [1.0, 10.0], 5, 4, 0.5)
    array([41.,  2.,  0., 50., 63.])
    """
    d = check.dimension(d)
    indices, values, B_d, B_k = check.check_rows(indices, values, d, block_size, density)
    c = check.array("c", c, shape=(len(indices),))
    omega = lcg_kernel(indices, values, c, d, B_d, B_k, T=threads_for(B_d))
    return check.like(np.result_type(values, c), omega)
