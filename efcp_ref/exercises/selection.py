"""Exercises on what is kept: Top-k, the count per block, blockwise and scaled Top-k, error feedback."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage
from efcp_ref.exercises.registry import solves

TIES = {"a": np.array([1.0, -1.0, 1.0]), "k": 2}


@solves(
    "1:6",
    "Magnitude decides, so -3 comes before 2. The values that are returned keep their sign.",
    inputs.top_k,
    operation="top_k",
    blame={"K:1": "1:6"},
    edges=({"a": np.array([1.0, -3.0, 2.0]), "k": 2}, TIES, {"a": np.zeros(2), "k": 2}, {"a": np.ones(2), "k": 0}),
)
def top_k(a, k) -> tuple[Any, Any]:
    """Keep the k entries of a (d,) that are largest in magnitude: COMPRESS with Top-k.

    Return (indices, values): k distinct positions, and the values of a there. Ties may go either way.
    """
    indices = np.argsort(-np.abs(a), kind="stable")[:k]
    return indices, a[indices]


@solves(
    "1:7",
    "Three lines: a = xi + g; c = Top-k of a, block by block; what is not in c is the next error.",
    inputs.error_feedback,
    operation="error_feedback",
    edges=({"xi": np.array([0.0, 2.0]), "g": np.array([1.0, 1.0]), "block_size": 2, "density": 0.5},),
)
def error_feedback(xi, g, block_size, density) -> tuple[Any, Any, Any]:
    """Take lines 5 to 7 of Algorithm 1, COMPRESS being blockwise Top-k.

    xi (d,) is the error of the step before, g (d,) the gradient. Every block of block_size consecutive entries keeps
    ceil(density * its size) of them. Return (indices, values, xi): what is kept, block after block, and the next error.
    """
    a = xi + g
    kept = []
    for start in range(0, len(a), block_size):
        block = np.abs(a[start : start + block_size])
        count = math.ceil(Fraction(str(density)) * len(block))
        kept += list(start + np.argsort(-block, kind="stable")[:count])
    left = a.copy()
    left[kept] = 0
    return np.array(kept), a[kept], left


def _counts(draw, st):
    density = draw(st.sampled_from([1.0, 0.5, 0.29, 0.07, 0.01, 0.55]))
    return {"size": inputs.whole(draw, st, 1, 120), "density": density}


@solves(
    "K:2",
    "A product in floating point can land above the integer that is meant; fractions.Fraction(str(x)) is exact.",
    _counts,
    stages=lambda size, density: [Stage("K:2", "B_k", int(-(-Fraction(str(density)) * size // 1)))],
    edges=({"size": 100, "density": 0.07}, {"size": 100, "density": 0.29}, {"size": 1, "density": 0.01}),
)
def kept(size, density) -> int:
    """Return B_k = ceil(density * size), the entries that a block of that size keeps.

    The density is meant as the decimal that is written: 0.07 of 100 entries are 7.
    """
    return math.ceil(Fraction(str(density)) * size)


@solves(
    "K:3",
    "Every block decides for itself, the last one by its own size. Add the block's start to make positions absolute.",
    inputs.block_top_k,
    operation="block_top_k",
    edges=({"a": np.array([9.0, 8.0, 7.0, 1.0, 2.0]), "block_size": 3, "density": 0.3},),
)
def block_top_k(a, block_size, density) -> tuple[Any, Any]:
    """Keep the ceil(density * size) largest magnitudes of every block of block_size consecutive entries of a (d,).

    Return (indices, values): absolute positions, block after block, and the values there. The last block may be short.
    """
    indices = []
    for start in range(0, len(a), block_size):
        block = np.abs(a[start : start + block_size])
        count = math.ceil(Fraction(str(density)) * len(block))
        indices += list(start + np.argsort(-block, kind="stable")[:count])
    return np.array(indices), a[np.array(indices)]


@solves(
    "K:6",
    "Go into the basis of H with H^-1/2, keep k entries there, come back with H^1/2. eigh gives both roots.",
    inputs.scaled,
    operation="scaled_top_k",
    blame={"K:4": "K:6", "K:5": "K:6"},
    edges=({"v": np.array([3.0, 2.0]), "H": np.diag([16.0, 1.0]), "k": 1},),
)
def scaled_top_k(v, H, k) -> Any:
    """Return T_H(v) = H^1/2 TopK(H^-1/2 v), (d,): Top-k of v (d,) in the basis of H (d, d), positive definite."""
    h, V = np.linalg.eigh(H)
    basis = (V / np.sqrt(h)) @ V.T @ v
    basis[np.argsort(-np.abs(basis), kind="stable")[k:]] = 0
    return (V * np.sqrt(h)) @ V.T @ basis
