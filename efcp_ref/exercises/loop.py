"""Exercises on the loop of Algorithm 1: the order inside a step, and the loop itself."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage, near
from efcp_ref.exercises.registry import solves


def _step(draw, st):
    m, d = inputs.whole(draw, st, 1, 3), inputs.whole(draw, st, 1, 3)
    G = inputs.vector(draw, st, m, d)
    row, c = inputs.whole(draw, st, 0, m - 1), inputs.vector(draw, st, d)
    return {"G": G, "row": row, "c": c, "lam": inputs.one_of(draw, st, 1.0, 0.5, 2.0)}


def _step_stages(G, row, c, lam):
    new = G.copy()
    new[row] = c
    m, d = G.shape
    F = lam * np.eye(d) + new.T @ new / m
    u = np.linalg.solve(F, c)
    size = np.abs(c).sum() / lam * np.linalg.cond(F)
    bound = near(u, size, 100 * (m + d))
    return [Stage("1:8", "G", new), Stage("1:8", "row", (row + 1) % m), Stage("1:8", "u", u, bound)]


@solves(
    "1:8",
    "Insert first, then precondition: F already holds c. Copy the window, the caller still needs the old one.",
    _step,
    stages=_step_stages,
)
def mfac_step(G, row, c, lam) -> tuple[Any, int, Any]:
    """Update the window and precondition, as M-FAC does in line 8.

    G (m, d) holds one gradient per row, row is the oldest, the one to be replaced by c (d,). Return (G, row, u): the
    new window, the row that is replaced next, and u = F^-1 c, (d,), with F = lam I + G^T G / m of the new window.
    """
    G = G.copy()
    G[row] = c
    F = lam * np.eye(G.shape[1]) + G.T @ G / len(G)
    return G, (row + 1) % len(G), np.linalg.solve(F, c)


def _run(draw, st):
    d = inputs.whole(draw, st, 1, 3)
    H = np.diag(inputs.vector(draw, st, d, low=0, high=2))
    theta = inputs.vector(draw, st, d)
    k, T = inputs.whole(draw, st, 1, d), inputs.whole(draw, st, 0, 4)
    return {"theta": theta, "H": H, "k": k, "eta": inputs.one_of(draw, st, 0.5, 0.25), "T": T}


def _run_stages(theta, H, k, eta, T):
    xi, points = np.zeros(len(theta)), [theta]
    for _ in range(T):
        a = xi + H @ theta
        c = a.copy()
        c[np.argsort(-np.abs(a), kind="stable")[k:]] = 0
        xi = a - c
        theta = theta - eta * c
        points.append(theta)
    return [Stage("1:9", "theta", np.array(points)), Stage("1:7", "xi", xi)]


@solves(
    "1:9",
    "The gradient of the step belongs to the theta before the step, and the error starts at zero.",
    _run,
    stages=_run_stages,
    edges=(
        {"theta": np.array([4.0, 1.0]), "H": np.eye(2), "k": 1, "eta": 0.5, "T": 3},
        {"theta": np.array([3.0, 2.0]), "H": np.diag([1.0, 2.0]), "k": 1, "eta": 0.5, "T": 4},
    ),
)
def efcp(theta, H, k, eta, T) -> tuple[Any, Any]:
    """Run Algorithm 1 for T steps on the loss theta^T H theta / 2, whose gradient is H theta.

    COMPRESS keeps the k largest magnitudes (ties: the lowest position), A is the identity, the rate eta is constant.
    Return (points, xi): the T + 1 iterates as an array (T + 1, d), theta_0 first, and the last error (d,).
    """
    xi, points = np.zeros(len(theta)), [theta]
    for _ in range(T):
        a = xi + H @ points[-1]
        c = np.zeros(len(a))
        kept = np.argsort(-np.abs(a), kind="stable")[:k]
        c[kept] = a[kept]
        xi = a - c
        points.append(points[-1] - eta * c)
    return np.array(points), xi
