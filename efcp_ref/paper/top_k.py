"""Top-k, blockwise Top-k and scaled Top-k: section 3.1, appendix G.2, appendix K.

Tags: ``# K:n`` is entry n of the section "K" of ``printed.toml`` (sentences and formulas of the text).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


class Kept(NamedTuple):
    """What Top-k keeps: positions and the values there."""

    indices: Array  # (k,) int32
    values: Array  # (k,)


def largest(a: Array, k: int) -> Array:
    """Return the positions of the k largest |a_i|, ascending; ties go to the lowest position (R12).

    Cost: a stable sort, O(d log d) comparisons.

    >>> largest(np.array([1.0, -3.0, 3.0, 1.0]), 3)
    array([0, 1, 2], dtype=int32)
    """
    order = np.argsort(-np.abs(a), kind="stable")  # (d,) largest magnitude first
    return np.sort(order[:k]).astype(np.int32)  # (k,)                       # K:1


def top_k(a: Any, k: int) -> Kept:
    """Keep the k entries of largest magnitude.

    Source: section 3.1, TopK. ``c = a`` on the support, 0 elsewhere.

    Args:
        a: accumulator a, (d,), finite.
        k: kept entries, 0..d.

    Returns:
        ``indices`` (k,) int32 ascending and ``values = a[indices]`` (k,), in the precision of a.

    Raises:
        TypeError, ValueError: a is not a finite real vector, or k is not an integer in 0..d.

    Cost: O(d log d) comparisons; reads 8 d bytes.

    >>> top_k(np.array([0.5, -3.0, 2.0, 0.1]), 2)
    Kept(indices=array([1, 2], dtype=int32), values=array([-3.,  2.]))
    """
    a = check.array("a", a, ndim=1)
    k = check.integer("k", k, 0, len(a))
    indices = largest(a, k)  # (k,)
    return Kept(indices, a[indices])


def kept(size: int, density: Fraction) -> int:
    """Return B_k = ceil(density * size), exactly (R11).

    >>> kept(100, check.share("density", 0.07)), int(np.ceil(100 * 0.07))
    (7, 8)
    """
    return -(-size * density.numerator // density.denominator)  #             # K:2


def layout(d: int, block_size: int | None = None, density: Any = 1) -> tuple[int, Fraction, list[tuple[int, int]]]:
    """Return ``(block_size, density, blocks)``, blocks listing every block's ``(start, end)``; default: one block of d.

    Raises:
        TypeError, ValueError: block_size is not an integer of at least 1, or density is not in (0, 1].

    >>> layout(10, 4, 0.5)
    (4, Fraction(1, 2), [(0, 4), (4, 8), (8, 10)])
    """
    block_size = d if block_size is None else check.integer("block_size", block_size, 1)
    blocks = [(start, min(start + block_size, d)) for start in range(0, d, block_size)]
    return block_size, check.share("density", density), blocks


def row_length(d: int, block_size: int | None = None, density: Any = 1) -> int:
    """Return K, the entries that blockwise Top-k keeps: ceil(density * size) summed over the blocks.

    >>> row_length(10, 4, 0.3)  # 2 + 2 + 1
    5
    """
    _, share, blocks = layout(d, block_size, density)
    return sum(kept(end - start, share) for start, end in blocks)


def block_top_k(a: Any, block_size: int | None = None, density: Any = 0.01) -> Kept:
    """Keep the ceil(density * size) largest magnitudes of every block of consecutive entries.

    Source: section 3.1 "Sparsity Pattern", appendix G.2; R11 (exact ceil, last block by its own size), R13.

    Args:
        a: accumulator a, (d,), finite.
        block_size: B_d, at least 1; default d, one block.
        density: kept fraction in (0, 1], read exactly.

    Returns:
        ``indices`` (K,) int32, absolute, block after block, and ``values = a[indices]`` (K,).

    Raises:
        TypeError, ValueError: see `top_k` and `layout`.

    Cost: O(d log B_d) comparisons; reads 8 d bytes.

    >>> block_top_k(np.array([9.0, 8.0, 7.0, 0.1, 0.2, 0.3]), 3, 0.3)
    Kept(indices=array([0, 5], dtype=int32), values=array([9. , 0.3]))
    """
    a = check.array("a", a, ndim=1)
    _, density, blocks = layout(len(a), block_size, density)
    rows = [start + largest(a[start:end], kept(end - start, density)) for start, end in blocks]
    indices = np.concatenate(rows).astype(np.int32)  # (K,)                  # K:3
    return Kept(indices, a[indices])


def roots(H: Any) -> tuple[Array, Array]:
    """Return ``(H^1/2, H^-1/2)`` of a symmetric positive definite H (d, d), by its eigendecomposition.

    Raises:
        ValueError: H is not square, symmetric and positive definite (R38).

    >>> roots(np.diag([4.0, 9.0]))[0]
    array([[2., 0.],
           [0., 3.]])
    """
    H = check.array("H", H, ndim=2).astype(np.float64)
    if H.shape[0] != H.shape[1] or not np.array_equal(H, H.T):
        raise ValueError(f"H has shape {H.shape}, must be square and symmetric")
    h, V = np.linalg.eigh(H)  # (d,), (d, d)
    if h[0] <= 0:
        raise ValueError(f"H has the eigenvalue {h[0]:g}, must be positive definite (R38)")
    return (V * np.sqrt(h)) @ V.T, (V / np.sqrt(h)) @ V.T


def scaled_top_k(v: Any, H: Any, k: int) -> Array:
    """Keep the k largest entries of v as seen in the basis of H: ``T_H(v) = H^1/2 TopK(H^-1/2 v)``.

    Source: appendix K, Lemma K.1 (n there is d, R35): ``|T_H(v)|^2_{H^-1} >= k/d |v|^2_{H^-1}``.

    Args:
        v: vector, (d,), finite.
        H: symmetric positive definite, (d, d).
        k: kept entries, 0..d.

    Returns:
        T_H(v), (d,), dense, in the precision of v.

    Raises:
        TypeError, ValueError: see `top_k` and `roots`.

    Cost: an eigendecomposition, about 9 d^3 flops; 32 d^2 bytes.

    >>> scaled_top_k(np.array([3.0, 2.0]), np.diag([16.0, 1.0]), 1)
    array([0., 2.])
    """
    v = check.array("v", v, ndim=1)
    k = check.integer("k", k, 0, len(v))
    H = check.array("H", H, shape=(len(v), len(v)))
    root, inverse_root = roots(H)
    basis = inverse_root @ v.astype(np.float64)  # (d,) v in the basis of H  # K:4
    indices = largest(basis, k)
    kept_only = np.zeros(len(v))
    kept_only[indices] = basis[indices]  #                                   # K:5
    return check.like(v.dtype, root @ kept_only)  #                          # K:6
