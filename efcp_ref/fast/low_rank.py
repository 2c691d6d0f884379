"""Algorithms 5 and 6 and appendix I: the factors of the whole window meet a gradient in one matrix product.

The one idea: stacked, the left factors of a layer are one matrix (m rho, p1). Its product with the new P gives all the
small matrices P_tau^T P at once, and the weighted sum of m gradients is one product of (p1, m rho) with (m rho, p2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.layout import computed
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_5 import Factors


def power_compress(g: Any, Q: Any) -> Factors:
    """Compress a gradient tensor to rank rho, starting from the Q of the step before: as `efcp_ref.power_compress`.

    Source: Algorithm 5; R25. ``P = orth(g~ Q), Q' = g~^T P``.

    Args:
        g: gradient tensor, (p1, ..., ps), s >= 2, finite.
        Q: right factor of the step before, (p2*...*ps, rho), 1 <= rho <= min(p1, p2*...*ps).

    Returns:
        P (p1, rho) with orthonormal columns and Q' (p2*...*ps, rho), in the precision of g.

    Raises:
        TypeError, ValueError: g or Q is not a finite real array of these shapes, or rho is too large.

    Cost: 4 p1 p2...ps rho + 4 p1 rho^2 flops, in the precision of g; no copy of g.

    >>> P, Q = power_compress([[3.0, 0.0], [4.0, 0.0]], [[1.0], [1.0]])
    >>> abs(P).round(4).tolist(), (P @ Q.T).round(4).tolist()
    ([[0.6], [0.8]], [[3.0, 0.0], [4.0, 0.0]])
    """
    g = check.array("g", g)
    if g.ndim < 2:
        raise ValueError(f"g has shape {g.shape}, must have at least 2 dimensions (a vector stays uncompressed, R25)")
    matrix = g.reshape(len(g), -1)
    Q = check.array("Q", Q, shape=(matrix.shape[1], None))
    if Q.shape[1] > min(matrix.shape):
        most = min(matrix.shape)
        raise ValueError(f"Q has rho = {Q.shape[1]} columns, must have at most {most} for g {g.shape} (R25)")
    dtype = computed(g.dtype)
    return Factors(*check.like(g.dtype, *compressed(matrix.astype(dtype, copy=False), Q.astype(dtype, copy=False))))


def compressed(matrix: Array, Q: Array) -> Factors:
    """Return (P, Q') of a matrix (p1, p2), P by complete Householder QR, which bears a product of too small a rank.

    >>> [abs(factor).tolist() for factor in compressed(np.zeros((2, 2)), np.zeros((2, 1)))]
    [[[1.0], [0.0]], [[0.0], [0.0]]]
    """
    P = np.linalg.qr(matrix @ Q, mode="reduced").Q.astype(matrix.dtype, copy=False)
    return Factors(P, matrix.T @ P)


def low_rank_inner_product(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Return the scalar product of two gradients from their factors: as `efcp_ref.low_rank_inner_product`.

    Source: appendix I; line 8 of Algorithm 6. ``sum((P2^T P1) o (Q2^T Q1))``.

    Args:
        P1, Q1: factors of the first gradient, (p1, rho1) and (p2, rho1), finite.
        P2, Q2: factors of the second, (p1, rho2) and (p2, rho2), finite; the ranks may differ.

    Returns:
        The scalar product, in the precision of P1.

    Raises:
        TypeError, ValueError: a factor is not a finite real matrix, or the shapes do not match.

    Cost: 2 (p1 + p2) rho1 rho2 flops.

    >>> float(low_rank_inner_product([[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]], [[7.0], [8.0]]))  # 17 * 53
    901.0
    """
    P1 = check.array("P1", P1, ndim=2)
    P2 = check.array("P2", P2, shape=(len(P1), None))
    Q1 = check.array("Q1", Q1, shape=(None, P1.shape[1]))
    Q2 = check.array("Q2", Q2, shape=(len(Q1), P2.shape[1]))
    dtype = computed(*(factor.dtype for factor in (P1, Q1, P2, Q2)))
    p1, q1, p2, q2 = (factor.astype(dtype, copy=False) for factor in (P1, Q1, P2, Q2))
    product = window_products(p1.T[None], q1.T[None], Factors(p2, q2))[0]
    return P1.dtype.type(product)


def window_products(P: Array, Q: Array, c: Factors) -> Array:
    """Return the scalar products of m stacked gradients with one, (m,) float64: Algorithm 6, line 8, for all tau.

    Args:
        P, Q: stacked factors, transposed, (m, rho, p1) and (m, rho, p2).
        c: factors of the new gradient, (p1, rho2) and (p2, rho2).

    Cost: 2 m (p1 + p2) rho rho2 flops in two products.

    >>> window_products(np.array([[[1.0, 2.0]]]), np.array([[[3.0, 4.0]]]), Factors(np.eye(2)[:, :1], np.eye(2)[:, :1]))
    array([3.])
    """
    left, right = P.reshape(-1, P.shape[2]) @ c.P, Q.reshape(-1, Q.shape[2]) @ c.Q  # (m rho, rho2)
    return np.multiply(left, right, dtype=np.float64).reshape(len(P), -1).sum(axis=1)


def window_combination(w: Array, P: Array, Q: Array) -> Array:
    """Return sum_tau w_tau P_tau Q_tau^T, (p1, p2), from stacked factors (m, rho, p1), (m, rho, p2) in one product.

    Cost: 2 m rho p1 p2 flops, and a copy of the smaller factor.

    >>> window_combination(np.array([2.0, -1.0]), np.array([[[1.0]], [[3.0]]]), np.array([[[5.0]], [[1.0]]]))
    array([[7.]])
    """
    weight = w.astype(P.dtype)[:, None, None]
    P, Q = (weight * P, Q) if P.size < Q.size else (P, weight * Q)
    return P.reshape(-1, P.shape[2]).T @ Q.reshape(-1, Q.shape[2])
