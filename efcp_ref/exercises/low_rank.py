"""Exercises on Algorithms 5 and 6: power iteration, and M-FAC on its factors."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage, near
from efcp_ref.exercises.registry import solves


@solves(
    "5:4",
    "numpy.linalg.qr makes the columns orthonormal, also where g Q has too small a rank. Q is computed with the new P.",
    inputs.power,
    operation="power_compress",
    edges=tuple({"g": np.array([[p, 0.0], [q, 0.0]]), "Q": np.ones((2, 1))} for p, q in ((0.0, 0.0), (3.0, 4.0))),
)
def power_compress(g, Q) -> tuple[Any, Any]:
    """Return (P, Q): one step of power iteration on the matrix g (p1, p2), from Q (p2, rho) of the step before.

    P (p1, rho) has orthonormal columns that span those of g Q, and the new Q (p2, rho) makes P Q^T the projection of g.
    """
    P = np.linalg.qr(g @ Q).Q
    return P, g.T @ P


@solves(
    "6:8",
    "Tr((P1 Q1^T)^T (P2 Q2^T)) is the sum over the entries of (P1^T P2) o (Q1^T Q2): no p1 x p2 matrix is needed.",
    inputs.factors,
    operation="low_rank_inner_product",
)
def low_rank_inner_product(P1, Q1, P2, Q2) -> float:
    """Return the scalar product of two gradients given by factors, Tr((P1 Q1^T)^T (P2 Q2^T)), a number.

    P1 is (p1, rho1), Q1 (p2, rho1), P2 (p1, rho2), Q2 (p2, rho2).
    """
    return float(((P1.T @ P2) * (Q1.T @ Q2)).sum())


def _layers(draw, st):
    L, m = inputs.whole(draw, st, 1, 3), inputs.whole(draw, st, 1, 3)
    return {"products": inputs.vector(draw, st, L, m), "S": np.zeros((m, m)), "row": inputs.whole(draw, st, 0, m - 1)}


def _gram(products, S, row):
    delta = products.sum(axis=0)
    new = S.copy()
    new[row, :] = new[:, row] = delta
    return [Stage("6:8", "delta", delta), Stage("6:11", "S", new)]


@solves(
    "6:11",
    "Line 8 stands in a loop over layers: add (R26). delta is in the order of the ring's rows, as S is (R27).",
    _layers,
    stages=_gram,
    edges=({"products": np.array([[2.0], [3.0]]), "S": np.zeros((1, 1)), "row": 0},),
)
def update_products(products, S, row) -> tuple[Any, Any]:
    """Add up the layers' scalar products and write them into S: lines 4 to 11 of Algorithm 6.

    products[l, i] is the scalar product of the new gradient with row i of the ring, in layer l. Return (delta, S): the
    product over the whole model (m,), and a new S (m, m) whose row and column are delta.
    """
    delta = np.zeros(len(S))
    for layer in products:
        delta += layer
    S = S.copy()
    S[row, :] = S[:, row] = delta
    return delta, S


def _update(draw, st):
    m, p1, p2 = (inputs.whole(draw, st, 1, 3) for _ in range(3))
    P, Q = inputs.vector(draw, st, m, p1, 1), inputs.vector(draw, st, m, p2, 1)
    S = np.einsum("iar,jas,ibr,jbs->ij", P, P, Q, Q)
    return {"P": P, "Q": Q, "row": inputs.whole(draw, st, 0, m - 1), "S": S, "eps": inputs.one_of(draw, st, 1.0, 0.5)}


def _direction(P, Q, row, S, eps):
    M = eps * len(S) * np.eye(len(S)) + S
    w = -np.linalg.solve(M, S[row]) / eps
    g = P @ Q.transpose(0, 2, 1)
    count, size = 100 * len(S), np.linalg.cond(M) * np.linalg.norm(S[row]) / eps
    u = g[row] / eps + np.tensordot(w, g, 1)
    return [
        Stage("6:12", "w", w, near(w, size, count)),
        Stage("6:14", "u", u, near(u, np.abs(g[row]) / eps + size * np.abs(g).sum(axis=0), count)),
    ]


@solves(
    "6:14",
    "w is -c of eq. (2), so that u = P Q^T / eps + sum w g (R28). c = (eps m I + S)^-1 S[row] / eps.",
    _update,
    stages=_direction,
    edges=({"P": np.ones((1, 1, 1)), "Q": np.full((1, 1, 1), 2.0), "row": 0, "S": np.array([[4.0]]), "eps": 0.5},),
)
def layer_direction(P, Q, row, S, eps) -> tuple[Any, Any]:
    """Return (w, u): the summation weights (m,) and the direction (p1, p2) of a model of one layer, lines 12 and 14.

    P (m, p1, rho) and Q (m, p2, rho) hold the ring's gradients g_i = P_i Q_i^T, the newest in row; S (m, m) holds their
    scalar products; eps is the damping. u = F^-1 g_row with F = eps I + (sum of the g g^T) / m.
    """
    m = len(S)
    w = -np.linalg.solve(eps * m * np.eye(m) + S, S[row]) / eps
    g = [P[i] @ Q[i].T for i in range(m)]
    return w, g[row] / eps + sum(w[i] * g[i] for i in range(m))
