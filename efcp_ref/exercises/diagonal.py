"""Exercises on Algorithm 7 and on the slides: diagonal AdaGrad, the scaled sign, EF-SignSGD."""

from typing import Any

import numpy as np

from efcp_ref.exercises import inputs
from efcp_ref.exercises.core import Stage, near
from efcp_ref.exercises.registry import solves

STEP = {
    "theta": np.array([1.0, 1.0]), "xi": np.array([0.0, 2.0]), "G": np.array([16.0, 0.0]), "g": np.array([3.0, 0.5]),
    "k": 1, "eta": 0.5,
}  # fmt: skip
STILL = {
    "theta": np.ones(2), "xi": np.zeros(2), "G": np.zeros(2), "g": np.array([2.0, 0.0]), "k": 2, "eta": 1.0,
}  # fmt: skip


def _not_fed_back(arguments, results, line):
    """Name line 7:5 where the next error is made of the gradient alone."""
    left = np.asarray(results["xi"], np.float64)
    alone = ((left == 0) | (left == arguments["g"])).all() and arguments["xi"].any()
    return "7:5" if line == "7:7" and alone else line


@solves(
    "7:9",
    "G gets the squares of what was sent, c, not of g; and a coordinate with G = 0 stays where it is (R29).",
    inputs.adagrad,
    operation="adagrad_step",
    edges=(STEP, STILL),
    refine=_not_fed_back,
)
def adagrad_step(theta, xi, G, g, k, eta) -> tuple[Any, Any, Any]:
    """Take lines 5 to 9 of Algorithm 7: diagonal AdaGrad with error feedback, all vectors (d,).

    G holds the accumulated squares (the diagonal); Top-k keeps k entries of the accumulator. Return (theta, xi, G).
    """
    a = xi + g
    c = np.zeros(len(a))
    kept = np.argsort(-np.abs(a), kind="stable")[:k]
    c[kept] = a[kept]
    G = G + c**2
    moved = np.divide(c, np.sqrt(G), out=np.zeros(len(c)), where=G > 0)
    return theta - eta * moved, a - c, G


def _vector(draw, st):
    return {"p": inputs.vector(draw, st, inputs.whole(draw, st, 1, 4))}


def _sign(p):
    size = np.abs(p).sum() / len(p)
    return [Stage("S1:5", "Delta", size * np.sign(p), near(p, size, len(p) + 4))]


@solves(
    "S1:5",
    "The scale is the mean magnitude, |p|_1 / d. numpy.sign(0) is 0, as it should be (R34).",
    _vector,
    stages=_sign,
    edges=({"p": np.array([3.0, -1.0])}, {"p": np.array([0.0, 2.0])}),
)
def scaled_sign(p) -> Any:
    """Return Delta = (|p|_1 / d) sign(p), (d,): the sign of every entry of p (d,), at the mean magnitude.

    sign(0) = 0.
    """
    return np.abs(p).sum() / len(p) * np.sign(p)


@solves(
    "S1:7",
    "p = gamma g + e is what should be moved, Delta what is; their difference is the next error.",
    inputs.sign,
    operation="sign_step",
)
def sign_step(x, e, g, gamma) -> tuple[Any, Any]:
    """Take lines 4 to 7 of the slides' Algorithm 1, EF-SignSGD: return (x, e), the next iterate and error, (d,) each.

    x is the iterate, e the residual error, g the gradient, gamma the learning rate.
    """
    p = gamma * g + e
    delta = np.abs(p).sum() / len(p) * np.sign(p)
    return x - delta, p - delta
