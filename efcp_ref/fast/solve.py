"""The m by m systems of eq. (2): a Cholesky factor that follows the window instead of being computed anew.

The one idea: rows in order of age. Then the gradient that leaves is the first row of M = lam m I + S, and the one that
comes is the last. With M = R^T R, leaving adds one vector to what is left, M' = R_22^T R_22 + r r^T (an orthogonal
update, nothing is subtracted), and coming appends one column by one triangular solve: O(m^2) instead of m^3 / 3.
Measured at m = 1024 in docs/fast.md. Rounding adds up with the updates, c u sqrt(M_ii M_jj) at most in entry i, j: far
below what float32 sums leave in S, but not below a float64 S. So `Factor` starts anew once per window, and in every
step where the arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from efcp_ref.paper._validate import Array

PANEL = 16  # columns that LAPACK updates at a time


def damped(S: Array, lam: float) -> Array:
    """Return M = lam m I + S, (m, m), in the place of S: symmetric, so that its transpose suits LAPACK (R3, R5).

    >>> damped(np.eye(2), 0.5)
    array([[2., 0.],
           [0., 2.]])
    """
    S[np.diag_indices(len(S))] += lam * len(S)
    return S.T


def factorised(M: Array) -> Array | None:
    """Return R, upper triangular, M = R^T R, in the place of M; None where M is not positive definite in float64.

    Cost: m^3 / 3 flops.

    >>> factorised(np.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 1.],
           [0., 2.]])
    """
    from scipy.linalg import lapack

    R, info = lapack.dpotrf(M, lower=0, clean=1, overwrite_a=1)
    return R if info == 0 else None


def moved_on(R: Array, column: Array) -> Array | None:
    """Return the factor of M without its first row and column, with ``column`` (m,) as the last, itself included.

    Cost: 4 m^2 flops and a copy of R.

    >>> M = np.array([[4.0, 2.0, 1.0], [2.0, 5.0, 3.0], [1.0, 3.0, 6.0]])
    >>> R = moved_on(factorised(M[:2, :2]), M[1:, 2])  # from rows 0, 1 to rows 1, 2
    >>> (R.T @ R).round(12)
    array([[5., 3.],
           [3., 6.]])
    """
    from scipy.linalg import lapack

    m, n = len(R), len(R) - 1
    room = np.empty(m * m)  # for n columns of n, which then become m columns of m
    new = room.reshape((m, m), order="F")
    if n:
        left, leaving = room[: n * n].reshape((n, n), order="F"), np.asfortranarray(R[:1, 1:])
        left[:] = R[1:, 1:]
        kept, _, _, _ = lapack.dtpqrt(0, min(PANEL, n), left, leaving, overwrite_a=1, overwrite_b=1)
        solved, info = lapack.dtrtrs(kept, column[:n], lower=0, trans=1)
        if info:
            return None
        for j in reversed(range(n)):
            new[:n, j] = kept[:, j]  # below its diagonal the zeros of R
        new[:n, n], new[n, :n] = solved, 0
    rest = column[n] - new[:n, n] @ new[:n, n]
    new[n, n] = np.sqrt(max(rest, 0.0))
    return new if rest > 0 else None


@dataclass(frozen=True)
class Factor:
    """R of the window in order of age, and how many updates it has gone through."""

    R: Array | None  # None: M is not positive definite in float64
    updates: int = 0
    follow: bool = True  # whether to update at all

    def after(self, column: Array, M: Callable[[], Array]) -> Factor:
        """Return the factor of the next M, whose last column is new; ``M()`` is asked for once per window.

        >>> Factor(factorised(np.diag([1.0, 4.0]))).after(np.array([0.0, 9.0]), lambda: np.diag([4.0, 9.0])).R
        array([[2., 0.],
               [0., 3.]])
        """
        if self.follow and self.R is not None and self.updates < len(column):
            R = moved_on(self.R, column)
            if R is not None:
                return Factor(R, self.updates + 1)
        return Factor(factorised(M()), 0, self.follow)


def solved(R: Array | None, h: Array, lam: float, M: Callable[[], Array]) -> Array:
    """Return c = M^-1 h / lam, the coefficients of eq. (2); where M is singular in float64, the c of least norm.

    >>> solved(np.diag([2.0, 4.0]), np.array([4.0, 4.0]), 0.5, lambda: np.diag([4.0, 16.0]))
    array([2. , 0.5])
    """
    from scipy.linalg import lapack

    if R is None:
        return np.linalg.lstsq(M(), h, rcond=None)[0] / lam
    c, _ = lapack.dpotrs(R, h, lower=0)
    return c / lam


def coefficients(S: Array, h: Array, lam: float) -> Array:
    """Return c = (lam m I + S)^-1 h / lam from scratch, (m,) float64.

    >>> coefficients(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0]), 1.0).round(4)  # 2/11, 5/11
    array([0.1818, 0.4545])
    """
    return solved(factorised(damped(S.copy(), lam)), h.astype(np.float64), lam, lambda: damped(S.copy(), lam))
