"""Windows to try the kernels on, and what they must give: exact sums, and the same float32 operations in NumPy."""

from dataclasses import dataclass

import numpy as np

from efcp_ref.gpu import window
from efcp_ref.gpu.formats import Format, from_bits, to_bits
from efcp_ref.paper.top_k import block_top_k, layout

CASES = {
    "partial last block": (1800, 6, 512, 0.05),
    "one row": (700, 1, 256, 0.1),
    "d below B_d": (300, 5, 512, 0.05),
    "everything kept": (150, 3, 64, 1.0),
    "m not a power of two": (400, 37, 128, 0.1),
    "one entry": (1, 1, 1, 1.0),
    "one entry per block": (96, 4, 32, 0.01),
    "k over the threads": (3000, 3, 1000, 0.9),
}


@dataclass(frozen=True)
class Problem:
    """A window of float32 numbers (or bfloat16, upcast), absolute indices, and vectors to multiply it with."""

    indices: np.ndarray  # (m, k) int32, in any order inside a block
    values: np.ndarray  # (m, k) float32, exact in the format
    g: np.ndarray  # (d,)
    c: np.ndarray  # (m,)
    d: int
    block_size: int
    density: float
    form: Format

    @property
    def m(self):
        return len(self.indices)

    @property
    def k(self):
        return self.indices.shape[1]

    def on(self, device):
        """The window on a device."""
        values = self.values
        if self.form.value == "bfloat16":
            import ml_dtypes

            values = values.astype(ml_dtypes.bfloat16)
        where = (self.d, self.block_size, self.density, self.form.index)
        return window.stored(device, self.indices, values, *where)


def problem(d, m, block_size, density, form=None, seed=0):
    """Rows that blockwise Top-k kept, their entries shuffled inside each block."""
    form, rng = form or Format(), np.random.default_rng(seed)
    indices, values = [], []
    for _ in range(m):
        row = block_top_k(rng.standard_normal(d).astype(np.float32), block_size, density)
        order = np.lexsort((rng.random(len(row.indices)), row.indices // block_size))
        indices.append(row.indices[order])
        values.append(row.values[order])
    values = np.stack(values)
    if form.value == "bfloat16":
        values = from_bits(to_bits(values))
    g, c = rng.standard_normal(d).astype(np.float32), rng.standard_normal(m).astype(np.float32)
    return Problem(np.stack(indices), values, g, c, d, block_size, density, form)


# ---- the same float32 operations in the same order, without fused multiply-add ---------------------------------------


def strided(terms, T):
    """Each of T threads adds its terms j, j + T, ... in order; (..., k) to (..., T)."""
    k = terms.shape[-1]
    padded = np.concatenate([terms, np.zeros((*terms.shape[:-1], -k % T), np.float32)], axis=-1)
    sums = np.zeros((*terms.shape[:-1], T), np.float32)
    for start in range(0, padded.shape[-1], T):
        sums = sums + padded[..., start : start + T]
    return sums


def tree(sums):
    """Halve until one sum is left; (..., T) to (...,)."""
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    return sums[..., 0]


def sp_textbook(p, T):
    """What sp.cu computes."""
    return tree(strided(p.values * p.g[p.indices], T))


def sp_warps(p):
    """What sp_warps.cu computes: a warp for each row."""
    return tree(strided(p.values * p.g[p.indices], 32))


def sp_slices(p):
    """What sp_slices.cu computes: a sum for each slice and row, then a warp adds the slices."""
    blocks = layout(p.d, p.block_size, p.density)[2]
    of = p.indices // p.block_size
    parts = [tree(strided((p.values * p.g[p.indices])[of == s].reshape(p.m, -1), 32)) for s in range(len(blocks))]
    return tree(strided(np.stack(parts, axis=1), 32))


def lcg_grouped(p, rows, threads):
    """What lcg_rows.cu and lcg_warp.cu compute: rows in groups, and in a group the entries by turns of the threads."""
    omega = np.zeros(p.d, np.float32)
    for s in range(-(-p.d // p.block_size)):
        columns = np.flatnonzero(p.indices[0] // p.block_size == s)  # the same in every row
        for first in range(0, p.m, rows):
            for start in range(0, len(columns), threads):
                turn = columns[start : start + threads]
                for r in range(first, min(p.m, first + rows)):
                    i = p.indices[r, turn]
                    omega[i] = omega[i] + p.c[r] * p.values[r, turn]
    return omega


def lcg_in_order(p):
    """What lcg.cu and lcg_global.cu compute: the rows in order."""
    omega = np.zeros(p.d, np.float32)
    for row, values, c in zip(p.indices, p.values, p.c, strict=True):
        omega[row] = omega[row] + c * values
    return omega
