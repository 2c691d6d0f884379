"""Mistakes in the sparse products SP and LCG: Algorithms 2 and 3."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, dense, mistake

_known: list[Mutant] = []
_sp = partial(mistake, "sp", known=_known, stages="omega")
_lcg = partial(mistake, "lcg", known=_known, stages="omega")


@_sp("2:8", text="the last entry of every row is dropped (Algorithm 2, line 8)")
def last_entry_dropped(indices: Any, values: Any, g: Any) -> Any:
    """Run to k - 1."""
    return dense(indices[:, :-1], values[:, :-1], len(g)) @ g


@_sp("2:8", text="every seventeenth entry is dropped (Algorithm 2, line 8)")
def entries_dropped(indices: Any, values: Any, g: Any) -> Any:
    """Skip what a lane too many would read."""
    values = np.array(values, np.float64)
    values[:, 0::17] = 0
    return dense(indices, values, len(g)) @ g


@_sp("2:9", text="indices wrapped to int16 (R13)")
def sp_int16(indices: Any, values: Any, g: Any) -> Any:
    """Read indices as 16 signed bits."""
    return (np.asarray(values, np.float64) * g[np.asarray(indices).astype(np.int16)]).sum(axis=1)


@_sp("2:9", text="relative for absolute indices: the block's offset is ignored (R13)")
def sp_relative(indices: Any, values: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Read the position inside the block."""
    return (np.asarray(values, np.float64) * g[np.asarray(indices) % block_size]).sum(axis=1)


@_sp("2:3", text="sigma is not cleared between rows (Algorithm 2, line 3)")
def sigma_not_cleared(indices: Any, values: Any, g: Any) -> Any:
    """Carry every row's sum into the next."""
    return np.cumsum(dense(indices, values, len(g)) @ g)


@_sp("2:9", text="positions of the first row used for every row (Algorithm 2, line 9)")
def first_row_positions(indices: Any, values: Any, g: Any) -> Any:
    """Forget the row in I."""
    return (np.asarray(values, np.float64) * g[np.asarray(indices)[:1]]).sum(axis=1)


@_sp("2:14", text="one level of the tree reduction is forgotten (Algorithm 2, line 14)")
def level_forgotten(indices: Any, values: Any, g: Any) -> Any:
    """Sum the even lanes alone."""
    terms = np.asarray(values, np.float64) * g[np.asarray(indices)]
    return terms[:, 0::2].sum(axis=1)


@_sp("2:16", text="zeros: nothing is written (Algorithm 2, line 16)")
def sp_zeros(indices: Any, values: Any, g: Any) -> Any:
    """Return what was allocated."""
    return np.zeros(len(indices), g.dtype)


@_lcg("3:16", text="the last row is not read (Algorithm 3, line 16, R20)")
def last_row_dropped(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Run to m - 1."""
    return c[:-1] @ dense(indices, values, d)[:-1]


@_lcg("3:20", text="coordinates are overwritten in place of accumulated (Algorithm 3, line 20)")
def overwritten(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Let the last row that hits a coordinate win."""
    omega = np.zeros(d)
    for row, positions in enumerate(np.asarray(indices)):
        omega[positions] = c[row] * np.asarray(values[row], np.float64)
    return omega


@_lcg("3:18", text="indices wrapped to int16 (R13)")
def lcg_int16(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Write at 16 signed bits."""
    omega = np.zeros(d)
    np.add.at(omega, np.asarray(indices).astype(np.int16).astype(int) % d, c[:, None] * np.asarray(values, np.float64))
    return omega


@_lcg("3:20", text="relative for absolute indices: start_d is not added back (Algorithm 3, line 26, R13)")
def lcg_relative(indices: Any, values: Any, c: Any, d: int, block_size: Any, density: Any) -> Any:
    """Write every block onto the first."""
    omega = np.zeros(d)
    np.add.at(omega, np.asarray(indices) % block_size, c[:, None] * np.asarray(values, np.float64))
    return omega


@_lcg("3:15", text="every slice after the first is empty: end_k = min(B_k, ...) as printed (Algorithm 3, line 15, R19)")
def first_slice_only(indices: Any, values: Any, c: Any, d: int, block_size: Any, density: Any) -> Any:
    """Read the first block alone."""
    return np.where(np.arange(d) < block_size, c @ dense(indices, values, d), 0)


@_lcg("3:13", text="the partial last slice is forgotten (Algorithm 3, line 9)")
def last_slice_forgotten(indices: Any, values: Any, c: Any, d: int, block_size: Any, density: Any) -> Any:
    """Floor the number of slices."""
    return np.where(np.arange(d) < d // block_size * block_size, c @ dense(indices, values, d), 0)


@_lcg("3:20", text="c_r is squared (Algorithm 3, line 20)")
def coefficient_squared(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Multiply twice by c."""
    return (c * np.abs(c)) @ dense(indices, values, d)


@_lcg("3:20", text="the combination has the wrong sign (Algorithm 3, line 20)")
def lcg_negated(indices: Any, values: Any, c: Any, d: int) -> Any:
    """Return -c G."""
    return -(c @ dense(indices, values, d))


MUTANTS = tuple(_known)
