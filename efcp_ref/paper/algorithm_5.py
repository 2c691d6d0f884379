"""Algorithm 5, PowerCompress: one step of power iteration turns a gradient tensor into two thin factors.

Read beside efcp.txt, lines 665-675. Line 1 names the function.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


class Factors(NamedTuple):
    """A matrix P Q^T of rank rho, held by its factors."""

    P: Array  # (p1, rho)
    Q: Array  # (p2*...*ps, rho)

    def dense(self) -> Array:
        """Return P Q^T, (p1, p2*...*ps).

        >>> Factors(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])).dense()
        array([[3., 4.],
               [6., 8.]])
        """
        return self.P @ self.Q.T


def unfold(g: Array) -> Array:
    """Return the tensor g (p1, ..., ps) as a matrix (p1, p2*...*ps), in C order; a vector (p1,) as a column (p1, 1).

    >>> unfold(np.zeros((3, 4, 5))).shape, unfold(np.zeros(3)).shape
    ((3, 20), (3, 1))
    """
    return g.reshape(len(g), -1)


def orthogonalize(P: Array) -> Array:
    """Return a matrix (p1, rho) of orthonormal columns whose span holds that of P, rho <= p1 (R25).

    Complete Householder QR: where P has too small a rank, even where it is zero, the columns that are missing are
    filled with directions orthogonal to the others, so a zero gradient or Q = 0 harms no later step. The signs are
    those that LAPACK returns.

    Cost: about 4 p1 rho^2 flops.

    >>> abs(orthogonalize(np.zeros((3, 2))))
    array([[1., 0.],
           [0., 1.],
           [0., 0.]])
    """
    return np.linalg.qr(P, mode="reduced").Q


def power_compress(g: Any, Q: Any) -> Factors:
    """Compress a gradient tensor to rank rho, starting from the Q of the step before.

    Source: Algorithm 5; R25. ``P = orth(g~ Q), Q' = g~^T P``, so that P Q'^T = P P^T g~ is the orthogonal projection
    of the unfolded gradient g~ on the span of P; it is g~ itself only when that span holds every column.

    Args:
        g: gradient tensor, (p1, ..., ps), s >= 2, finite.
        Q: right factor of the step before, (p2*...*ps, rho), 1 <= rho <= min(p1, p2*...*ps); any start will do,
            zero included.

    Returns:
        P (p1, rho) with orthonormal columns and Q' (p2*...*ps, rho), in the precision of g. P is unique only up to
        the signs of its columns, and any completion where g~ Q is rank deficient.

    Raises:
        TypeError, ValueError: g or Q is not a finite real array of these shapes, or rho is too large.

    Cost: 4 p1 p2...ps rho + 4 p1 rho^2 flops; 8 (p1 p2...ps + (p1 + p2...ps) rho) bytes.

    >>> P, Q = power_compress([[3.0, 0.0], [4.0, 0.0]], [[1.0], [1.0]])
    >>> abs(P).round(4).tolist(), (P @ Q.T).round(4).tolist()  # a rank-1 gradient comes back whole
    ([[0.6], [0.8]], [[3.0, 0.0], [4.0, 0.0]])
    """
    g = check.array("g", g)
    if g.ndim < 2:
        raise ValueError(f"g has shape {g.shape}, must have at least 2 dimensions (a vector stays uncompressed, R25)")
    p1, p2s = unfold(g).shape
    Q = check.array("Q", Q, shape=(p2s, None))
    if Q.shape[1] > min(p1, p2s):
        raise ValueError(f"Q has rho = {Q.shape[1]} columns, must have at most min({p1}, {p2s}) for g {g.shape} (R25)")
    return Factors(*check.like(g.dtype, *_power_compress(g.astype(np.float64), Q.astype(np.float64))))


def _power_compress(g: Array, Q: Array) -> Factors:
    g = unfold(g)  # (p1, p2s)                                               # 5:2
    P = g @ Q  # (p1, rho)                                                   # 5:3
    P = orthogonalize(P)  # (p1, rho)                                 (R25)  # 5:4
    Q = g.T @ P  # (p2s, rho)                                                # 5:5
    return Factors(P, Q)  #                                                  # 5:6
