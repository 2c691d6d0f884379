"""Exercises on Algorithm 4, Sparse GGT."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage, near
from efcp_ref.exercises.registry import solves


def _insertion(draw, st):
    m, k, d = inputs.whole(draw, st, 1, 3), inputs.whole(draw, st, 1, 3), 5
    V, R = inputs.vector(draw, st, m * k), inputs.vector(draw, st, m * k, low=0, high=d - 1)
    i, new = inputs.whole(draw, st, 0, m - 1), inputs.vector(draw, st, k)
    return {"V": V, "R": R, "i": i, "V_t": new, "I_t": np.array(inputs.positions(draw, st, d)[:k], np.float64)}


def _inserted(V, R, i, V_t, I_t):
    k, V, R = len(V_t), V.copy(), R.copy()
    V[i * k : i * k + k], R[i * k : i * k + k] = V_t, I_t
    return [Stage("4:4", "V", V), Stage("4:4", "R", R), Stage("4:9", "i", (i + 1) % (len(V) // k))]


@solves(
    "4:4",
    "alpha = i k, beta = alpha + k. The ring has m = len(V) / k rows; after the last comes row 0.",
    _insertion,
    stages=_inserted,
)
def insert(V, R, i, V_t, I_t) -> tuple[Any, Any, int]:
    """Put a compressed gradient into row i of Sparse GGT's window, and say which row is next.

    V (m k,) holds the values, R (m k,) their coordinates, row after row of k; V_t and I_t (k,) are the new ones.
    Return (V, R, i), new arrays and the next row.
    """
    k = len(V_t)
    V, R = V.copy(), R.copy()
    alpha, beta = i * k, i * k + k
    V[alpha:beta], R[alpha:beta] = V_t, I_t
    return V, R, (i + 1) % (len(V) // k)


def _spectrum(draw, st):
    m, d = inputs.whole(draw, st, 1, 3), inputs.whole(draw, st, 1, 3)
    G = inputs.vector(draw, st, m, d)
    squares, V = np.linalg.eigh(G @ G.T)
    return {"G": G, "squares": np.round(np.maximum(squares, 0), 12), "V": V, "cutoff": 1e-6}


def _left(G, squares, V, cutoff):
    keep = squares > cutoff * squares.max()
    inverse = np.where(keep, 1 / np.sqrt(np.where(keep, squares, 1)), 0)
    return [Stage("4:10", "U", (G.T @ V) * inverse, near(G.T @ V, (np.abs(G).T @ np.abs(V)) * inverse, 4 * len(G) + 8))]


@solves(
    "4:10",
    "The printed square root makes U too large: U = G^T V Sigma^+ is orthonormal (R22). 0 where sigma is dropped.",
    _spectrum,
    stages=_left,
    edges=({"G": np.diag([3.0, 4.0]), "squares": np.array([9.0, 16.0]), "V": np.eye(2), "cutoff": 1e-6},),
)
def left_vectors(G, squares, V, cutoff) -> Any:
    """Return U (d, m), the singular vectors of the window G (m, d) on the side of the coordinates.

    squares (m,) and V (m, m) are the eigenvalues sigma^2 and eigenvectors of G G^T. A column whose sigma^2 is at most
    cutoff times the largest one is zero.
    """
    keep = squares > cutoff * squares.max()
    sigma = np.sqrt(np.where(keep, squares, 1))
    return (G.T @ V) * np.where(keep, 1 / sigma, 0)


@solves(
    "4:11",
    "Sigma holds singular values: the roots of the eigenvalues of G G^T. Outside the span of the window u is x / eps.",
    inputs.ggt,
    operation="ggt_direction",
    edges=({"G": np.array([[3.0, 4.0], [0.0, 0.0]]), "x": np.array([3.0, 4.0]), "eps": 1.0, "cutoff": 1e-6},),
)
def ggt_direction(G, x, eps, cutoff) -> Any:
    """Return u = (eps I + (G^T G)^1/2)^-1 x, (d,), for a window G (m, d), by the eigenvalues of the m x m matrix G G^T.

    u = x / eps + U ((Sigma + eps I)^-1 - I / eps) U^T x, U = G^T V Sigma^+; sigma_i^2 <= cutoff sigma_1^2 is dropped.
    """
    squares, V = np.linalg.eigh(G @ G.T)
    keep = squares > cutoff * squares.max()
    sigma = np.sqrt(squares[keep])
    U = G.T @ V[:, keep] / sigma
    return x / eps - U @ (sigma / (eps * (sigma + eps)) * (U.T @ x))
