"""Exercises on the kernels of appendix G, lane by lane, in Python."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage
from efcp_ref.exercises.registry import solves


def _lane(draw, st):
    T = int(draw(st.sampled_from([1, 2, 4, 8])))
    return {"Tid": inputs.whole(draw, st, 0, T - 1), "k": inputs.whole(draw, st, 0, 20), "T": T}


@solves(
    "2:8",
    "In one round the T threads read T neighbours (coalesced); the next round starts T further on.",
    _lane,
    stages=lambda Tid, k, T: [Stage("2:8", "j", np.arange(Tid, k, T))],
    edges=({"Tid": 1, "k": 6, "T": 4}, {"Tid": 3, "k": 2, "T": 4}),
)
def lane_reads(Tid, k, T) -> list[int]:
    """Return the positions j that thread Tid reads of a row of k entries, T threads sharing the row.

    A list of integers, in the order of reading. A thread may have nothing to read.
    """
    return list(range(Tid, k, T))


@solves(
    "2:11",
    "The positions are absolute: g[indices] picks what each value meets. One sum per row.",
    inputs.sp,
    operation="sp",
)
def sp(indices, values, g) -> Any:
    """Multiply every row of a sparse window with a vector: omega_r = sum_j values[r, j] g[indices[r, j]].

    indices and values are (m, k), g is (d,). Return omega, (m,).
    """
    return (values * g[indices]).sum(axis=1)


def _lanes(draw, st):
    d, k = 5, inputs.whole(draw, st, 1, 5)
    indices = np.array(inputs.positions(draw, st, d)[:k])
    T = int(draw(st.sampled_from([1, 2, 4, 8])))
    return {"indices": indices, "values": inputs.vector(draw, st, k), "g": inputs.vector(draw, st, d), "T": T}


def _lane_sums(indices, values, g, T):
    sums = [sum(values[j] * g[indices[j]] for j in range(lane, len(values), T)) for lane in range(T)]
    return [Stage("2:13", "mem", np.array(sums, np.float64))]


@solves(
    "2:13",
    "Every lane has a register sigma of its own; lane Tid adds the products at j = Tid, Tid + T, ... and stores it.",
    _lanes,
    stages=_lane_sums,
)
def lane_sums(indices, values, g, T) -> Any:
    """Return the shared memory mem (T,) of one thread block of Algorithm 2 after line 13.

    indices and values (k,) are the block's row, g (d,) the vector, T the number of threads: mem[Tid] is the partial sum
    that thread Tid has accumulated in lines 8 to 12.
    """
    mem = np.zeros(T)
    for Tid in range(T):
        for j in range(Tid, len(values), T):
            mem[Tid] += values[j] * g[indices[j]]
    return mem


def _tree(draw, st):
    return {"mem": inputs.vector(draw, st, 2 ** inputs.whole(draw, st, 0, 4))}


def _levels(mem):
    levels, half = [mem.copy()], len(mem) // 2
    while half:
        mem = np.concatenate([mem[:half] + mem[half : 2 * half], mem[half:]])
        levels.append(mem)
        half //= 2
    return [Stage("2:14", "mem", np.array(levels))]


@solves(
    "2:14",
    "log2 T levels. On each, the lower half of the lanes that are left adds what lies half above; then a barrier.",
    _tree,
    stages=_levels,
    edges=({"mem": np.array([1.0, 2.0, 3.0, 4.0])},),
)
def parallel_reduce(mem) -> Any:
    """Sum mem (T,) into mem[0] level by level; T is a power of two.

    On the first level mem[i] += mem[i + T/2] for i < T/2, on the next mem[i] += mem[i + T/4] for i < T/4, and so on.
    Return the memory after every level as an array (log2 T + 1, T), the memory before the first level first.
    """
    mem = mem.copy()
    levels, half = [mem.copy()], len(mem) // 2
    while half > 0:
        mem[:half] += mem[half : 2 * half]
        levels.append(mem.copy())
        half //= 2
    return np.array(levels)


def _work(draw, st):
    return {name: inputs.whole(draw, st, 1, most) for name, most in (("d", 40), ("B_d", 8), ("B", 6))}


def _shares(d, B_d, B):
    n_Bd = len(range(0, d, B_d))
    return [Stage("3:9", "n_Bd", n_Bd), Stage("3:10", "workload", len(range(0, n_Bd, B)))]


@solves(
    "3:10",
    "Slices are shared among blocks; the block size is already in the number of slices (R18). Both divisions round up.",
    _work,
    stages=_shares,
    edges=({"d": 20, "B_d": 8, "B": 2},),
)
def workload(d, B_d, B) -> tuple[int, int]:
    """Return (n_Bd, workload): how many slices of B_d coordinates there are, and how many each of B blocks takes.

    The last slice may be short. Every slice must be taken; printed, line 10 says more than is needed.
    """
    n_Bd = -(-d // B_d)
    return n_Bd, -(-n_Bd // B)


def _slices(draw, st):
    B_d, blocks = inputs.whole(draw, st, 1, 6), inputs.whole(draw, st, 1, 4)
    B_k, workload = inputs.whole(draw, st, 1, B_d), inputs.whole(draw, st, 1, 3)
    d = (blocks - 1) * B_d + inputs.whole(draw, st, 1, B_d)
    k = (blocks - 1) * B_k + inputs.whole(draw, st, 1, min(B_k, d - (blocks - 1) * B_d))
    at = inputs.whole(draw, st, 0, blocks - 1)
    return {"BlockId": at // workload, "i": at % workload, "workload": workload, "B_d": B_d, "B_k": B_k, "d": d, "k": k}


def _bounds(BlockId, i, workload, B_d, B_k, d, k):
    at = BlockId * workload + i
    values = (at * B_d, min(d, (at + 1) * B_d), at * B_k, min(k, (at + 1) * B_k))
    names = ("start_d", "end_d", "start_k", "end_k")
    return [Stage(f"3:{12 + n}", name, value) for n, (name, value) in enumerate(zip(names, values, strict=True))]


@solves(
    "3:15",
    "A slice ends where the next one starts, or where the row ends: the row has k entries, not B_k (R19).",
    _slices,
    stages=_bounds,
    edges=({"BlockId": 1, "i": 0, "workload": 1, "B_d": 4, "B_k": 2, "d": 6, "k": 3},),
)
def slice_bounds(BlockId, i, workload, B_d, B_k, d, k) -> tuple[int, int, int, int]:
    """Return (start_d, end_d, start_k, end_k) of the i-th slice of a thread block, lines 12 to 15 of Algorithm 3.

    Thread block BlockId works on workload slices in a row. A slice spans B_d of the d coordinates and B_k of the k
    entries of every row; the last one may be shorter.
    """
    start_d = B_d * BlockId * workload + B_d * i
    start_k = B_k * BlockId * workload + B_k * i
    return start_d, min(d, start_d + B_d), start_k, min(k, start_k + B_k)


@solves(
    "3:20",
    "Several rows may have an entry at one position: add, do not assign. np.add.at adds repeated positions one by one.",
    inputs.lcg,
    operation="lcg",
)
def lcg(indices, values, c, d) -> Any:
    """Combine the rows of a sparse window linearly: omega_i is the sum of c_r values[r, j] over all indices[r, j] = i.

    indices and values are (m, k), c is (m,). Return omega, (d,), zero where no row has an entry.
    """
    omega = np.zeros(d)
    np.add.at(omega, indices, c[:, None] * values)
    return omega
