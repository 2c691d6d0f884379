"""Section 2.2: products with the inverse of the damped empirical Fisher matrix, without ever forming it.

F = lam I + G^T G / m, G (m, d) holding gradients in rows (R3). Three ways to F^-1 x, proven equal in the tests:
the Woodbury-Sherman-Morrison recursion, the coefficients of eq. (2) in closed form, and M-FAC's recursion for them.

Tags: ``# W:n`` is entry n of the section "W" of ``printed.toml``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_2 import sp
from efcp_ref.paper.algorithm_3 import lcg
from efcp_ref.paper.window import densified, replaced

NORMALISE = ("window", "stored")


class MFACDirection(NamedTuple):
    """F^-1 x and the stages that lead to it."""

    u: Array  # (d,)
    S: Array  # (m, m) G G^T, undamped
    h: Array  # (m,) G x
    c: Array  # (m,) coefficients of eq. (2)


def denominator(G: Array, normalise: str = "window") -> int:
    """Return the m of F = lam I + G^T G / m (R4): the window size, or the number of rows stored (not all zero).

    >>> denominator(np.array([[1.0, 2.0], [0.0, 0.0]])), denominator(np.array([[1.0, 2.0], [0.0, 0.0]]), "stored")
    (2, 1)
    """
    check.choice("normalise", normalise, NORMALISE)
    return len(G) if normalise == "window" else max(1, int(np.any(G != 0, axis=1).sum()))


def wsm(G: Any, lam: float, x: Any, normalise: str = "window") -> Array:
    """Return F^-1 x by the Woodbury-Sherman-Morrison recursion, one gradient after another.

    Source: section 2.2, the recursion above eq. (2), as R2 reads it: F_0 = lam I, F_k = F_{k-1} + g_k g_k^T / m,
    ``F_k^-1 x = F_{k-1}^-1 x - w_k (w_k . x) / (m + g_k . w_k)`` with w_k = F_{k-1}^-1 g_k.

    Args:
        G: window, (m, d); empty rows are zero.
        lam: damping lambda > 0.
        x: vector, (d,).
        normalise: the m in the denominators: "window", or "stored", the rows that are not all zero (R4).

    Returns:
        y = F^-1 x, (d,), in the precision of x.

    Raises:
        TypeError, ValueError: G, x not finite real arrays of matching shapes, lam not positive.

    Cost: 2 m^2 d flops; 8 m d bytes.

    >>> wsm(np.array([[1.0, 0.0], [1.0, 1.0]]), 1.0, np.array([1.0, 1.0])).round(4)  # 4/11, 6/11
    array([0.3636, 0.5455])
    """
    G, lam, x = _window(G, lam, x)
    m = denominator(G, normalise)
    terms: list[tuple[Array, float]] = []
    for g in G.astype(np.float64):
        w = _inverse_times(g, lam, terms)  # (d,) F_{k-1}^-1 g_k      (R2)
        terms.append((w, m + g @ w))
    return check.like(x.dtype, _inverse_times(x.astype(np.float64), lam, terms))


def _inverse_times(x: Array, lam: float, terms: list[tuple[Array, float]]) -> Array:
    y = x / lam  # (d,) F_0^-1 x                                             # W:1
    for w, q in terms:
        y = y - w * (w @ x) / q  # (d,) F_k^-1 x                      (R2)   # W:2
    return y


def _window(G: Any, lam: float, x: Any) -> tuple[Array, float, Array]:
    G = check.array("G", G, ndim=2)
    return G, check.positive("lam", lam), check.array("x", x, shape=(G.shape[1],))


def coefficients(S: Array, h: Array, lam: float, m: int | None = None) -> Array:
    """Return the coefficients c of eq. (2), in closed form: ``c = (lam m I + S)^-1 h / lam``.

    Source: section 2.2, eq. (2); R5. They depend on x through h = G x.

    Args:
        S: scalar products G G^T, (m, m).
        h: G x, (m,).
        lam: damping lambda > 0.
        m: the m of F, default the window size (R4).

    Returns:
        c, (m,) float64; the c of least norm where lam m is lost in the rounding of S and the sum is singular.

    Raises:
        TypeError, ValueError: S is not square, h does not match, lam is not positive.

    Cost: m^3 / 3 flops; 16 m^2 bytes.

    >>> coefficients(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0]), 1.0).round(4)  # 2/11, 5/11
    array([0.1818, 0.4545])
    """
    from scipy import linalg

    M, h = _damped(S, h, lam, m)
    try:
        return linalg.cho_solve(linalg.cho_factor(M, lower=True), h) / lam  # (m,) (R5)  # W:3
    except linalg.LinAlgError:
        return np.linalg.lstsq(M, h, rcond=None)[0] / lam


def _damped(S: Any, h: Any, lam: float, m: int | None) -> tuple[Array, Array]:
    S = check.array("S", S, ndim=2).astype(np.float64)
    S = check.array("S", S, shape=(len(S), len(S)))
    h = check.array("h", h, shape=(len(S),)).astype(np.float64)
    m = len(S) if m is None else check.integer("m", m, 1)
    return S + check.positive("lam", lam) * m * np.eye(len(S)), h


def coefficients_recursive(S: Array, h: Array, lam: float, m: int | None = None) -> Array:
    """Return the coefficients c of eq. (2) by M-FAC's recursion, one gradient after another.

    Source: section 2.2 ("computed based only on scalar products"). With w_k = F_{k-1}^-1 g_k = sum_j B_kj g_j:
    D_kj = w_k . g_j, q_k = m + D_kk, y_k = w_k . x, and ``c = B^T (y / q)``.

    Args, Returns, Raises: as `coefficients`.

    Cost: m^3 flops; 24 m^2 bytes.

    >>> coefficients_recursive(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([1.0, 2.0]), 1.0).round(4)
    array([0.1818, 0.4545])
    """
    M, h = _damped(S, h, lam, m)
    m = len(h) if m is None else m
    S = np.asarray(S, np.float64)
    D, B, q, y = np.zeros_like(M), np.eye(len(h)) / lam, np.zeros(len(h)), np.zeros(len(h))
    for k in range(len(h)):
        r = D[:k, k] / q[:k]  # (k,) what the gradients before g_k take away  # W:6
        D[k, k:] = S[k, k:] / lam - r @ D[:k, k:]  #                          # W:7
        B[k, :k] = -r @ B[:k, :k]  #                                          # W:8
        q[k], y[k] = m + D[k, k], h[k] / lam - r @ y[:k]  #                   # W:9
    return (y / q) @ B  # (m,)                                                # W:10


def updated(S: Array, row: int, delta: Array) -> Array:
    """Return S = G G^T after row i of G was replaced: ``S_{i,:} = S_{:,i} = G g`` with the new G (R7).

    >>> updated(np.eye(2), 1, np.array([3.0, 4.0]))
    array([[1., 3.],
           [3., 4.]])
    """
    S = replaced(S, row, delta)
    S[:, row] = delta  # (m,)                                         (R7)   # W:5
    return S


def direction(x: Array, lam: float, combination: Array) -> Array:
    """Return ``u = x / lam - sum_k c_k g_k``: eq. (2), given its sum.

    >>> direction(np.array([1.0, 1.0]), 0.5, np.array([0.5, 0.0]))
    array([1.5, 2. ])
    """
    return x / lam - combination  # (d,)                                     # W:4


def mfac_direction(G: Any, lam: float, x: Any, normalise: str = "window") -> MFACDirection:
    """Return F^-1 x from a dense window, by eq. (2).

    Source: section 2.2, eq. (2); R3-R5. ``S = G G^T, h = G x, c = (lam m I + S)^-1 h / lam, u = x / lam - c G``.

    Args:
        G: window, (m, d); empty rows are zero; the order of the rows does not matter.
        lam: damping lambda > 0.
        x: vector, (d,).
        normalise: the m of F: "window", or "stored", the rows that are not all zero (R4).

    Returns:
        u (d,), S (m, m), h (m,), c (m,), in the precision of x.

    Raises:
        TypeError, ValueError: see `wsm`.

    Cost: 2 m^2 d + m^3 / 3 flops; 8 (m d + 2 m^2) bytes.

    >>> mfac_direction(np.array([[3.0, 4.0]]), 1.0, np.array([3.0, 4.0])).u.round(4)  # m g / (lam m + |g|^2)
    array([0.1154, 0.1538])
    """
    G, lam, x = _window(G, lam, x)
    W, v = G.astype(np.float64), x.astype(np.float64)
    S, h = W @ W.T, W @ v  # (m, m), (m,)
    c = coefficients(S, h, lam, denominator(W, normalise))  # (m,)
    return MFACDirection(*check.like(x.dtype, direction(v, lam, c @ W), S, h, c))


def sparse_mfac_direction(
    indices: Any, values: Any, d: int, lam: float, x: Any,
    block_size: int | None = None, density: Any = 1, normalise: str = "window",
) -> MFACDirection:
    """Return F^-1 x from a sparse window (I, V): scalar products by Algorithm 2, combination by Algorithm 3.

    Source: section 3.1, eq. (2). See `mfac_direction` for the formula.

    Args:
        indices: I, (m, k), absolute positions, distinct within a row, block after block.
        values: V, (m, k).
        d: dimension.
        lam: damping lambda > 0.
        x: vector, (d,).
        block_size: B_d; default d, one block.
        density: kept fraction of every block.
        normalise: see `mfac_direction`.

    Returns:
        u (d,), S (m, m), h (m,), c (m,), in the precision of x.

    Raises:
        TypeError, ValueError: see `efcp_ref.sp` and `wsm`.

    Cost: 2 m^2 k + m^3 / 3 flops; 8 (m k + 2 m^2 + d) bytes.

    >>> sparse_mfac_direction([[0], [2]], [[1.0], [2.0]], 3, 0.5, [1.0, 1.0, 1.0]).u.round(4)  # 1, 2, 2/5
    array([1. , 2. , 0.4])
    """
    d = check.dimension(d)
    lam, x = check.positive("lam", lam), check.array("x", x, shape=(d,))
    v = x.astype(np.float64)
    h = sp(indices, values, v, block_size, density)  # (m,)
    rows = densified(indices, values, d)
    S = np.stack([sp(indices, values, g, block_size, density) for g in rows], axis=1)  # (m, m)
    c = coefficients(S, h, lam, denominator(rows, normalise))  # (m,)
    u = direction(v, lam, lcg(indices, values, c, d, block_size, density))
    return MFACDirection(*check.like(x.dtype, u, S, h, c))
