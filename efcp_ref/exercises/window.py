"""Exercises on section 2.2: the recursion, the coefficients of eq. (2), the update of the scalar products."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage, near
from efcp_ref.exercises.registry import solves

ONE_ROW = {"G": np.array([[1.0, 0.0], [1.0, 1.0]]), "lam": 1.0, "x": np.array([1.0, 1.0])}  # R2


@solves(
    "W:2",
    "Start from F_0 = lam I. The k-th step uses the inverse before g_k is added, for w = F^-1 g_k and for F^-1 x (R2).",
    inputs.mfac,
    operation="wsm",
    edges=(ONE_ROW,),
)
def wsm(G, lam, x) -> Any:
    """Return F^-1 x, (d,), F = lam I + G^T G / m, by the Woodbury-Sherman-Morrison recursion over G's rows (m, d)."""
    inverse = np.eye(len(x)) / lam
    for g in G:
        w = inverse @ g
        inverse = inverse - np.outer(w, w) / (len(G) + g @ w)
    return inverse @ x


def _products(draw, st):
    G, lam, x = inputs.window(draw, st)
    return {"S": G @ G.T, "h": G @ x, "lam": lam}


def _coefficients(S, h, lam):
    M = lam * len(h) * np.eye(len(h)) + S
    c = np.linalg.solve(M, h) / lam
    return [Stage("W:3", "c", c, near(c, np.linalg.cond(M) * np.linalg.norm(h / lam), 100 * len(h)))]


@solves(
    "W:3",
    "c = (lam m I + G G^T)^-1 G x / lam (R5): m times the damping inside, and one more division by lam.",
    _products,
    stages=_coefficients,
    edges=({"S": np.array([[1.0, 1.0], [1.0, 2.0]]), "h": np.array([1.0, 2.0]), "lam": 0.5},),
)
def coefficients(S, h, lam) -> Any:
    """Return the coefficients c (m,) of eq. (2), u = x / lam - sum_k c_k g_k, from scalar products alone.

    S = G G^T (m, m) and h = G x (m,), without damping; F = lam I + G^T G / m.
    """
    m = len(h)
    return np.linalg.solve(lam * m * np.eye(m) + S, h) / lam


@solves(
    "W:4",
    "Scalar products, coefficients, combination. The matrix to solve with is m x m, never d x d.",
    inputs.mfac,
    operation="mfac_direction",
    edges=(ONE_ROW, {"G": np.zeros((2, 2)), "lam": 0.5, "x": np.array([1.0, 2.0])}),
)
def mfac_direction(G, lam, x) -> tuple[Any, Any, Any, Any]:
    """Return (u, S, h, c): eq. (2) and what leads to it, for a dense window G (m, d), damping lam and vector x (d,).

    S = G G^T, h = G x, c the coefficients, u = F^-1 x = x / lam - c G with F = lam I + G^T G / m.
    """
    m = len(G)
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(lam * m * np.eye(m) + S, h) / lam
    return x / lam - c @ G, S, h, c


def _replacement(draw, st):
    m, d = inputs.whole(draw, st, 1, 3), inputs.whole(draw, st, 1, 3)
    G = inputs.vector(draw, st, m, d)
    row = inputs.whole(draw, st, 0, m - 1)
    return {"G": G, "S": G @ G.T, "row": row, "g": inputs.vector(draw, st, d)}


def _updated(G, S, row, g):
    new = G.copy()
    new[row] = g
    return [Stage("1:8", "G", new), Stage("W:5", "S", new @ new.T)]


@solves(
    "W:5",
    "Replace the row first: the diagonal entry is |g|^2, not the old gradient times the new (R7).",
    _replacement,
    stages=_updated,
    edges=({"G": np.eye(2), "S": np.eye(2), "row": 0, "g": np.array([2.0, 1.0])},),
)
def replace_row(G, S, row, g) -> tuple[Any, Any]:
    """Replace one row of the window G (m, d) by g (d,), and one row and column of S = G G^T by the product G g.

    Return (G, S), both new: the arguments stay as they are. One product with a vector is enough.
    """
    G, S = G.copy(), S.copy()
    G[row] = g
    S[row, :] = S[:, row] = G @ g
    return G, S
