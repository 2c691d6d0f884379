"""Algorithm 7: diagonal AdaGrad with error feedback.

Read beside efcp.txt, lines 750-766. The paper prints it without numbers: its ten lines are numbered in the order
of printing (R36), 7:1 is ``xi_0 = 0`` and 7:10 ends the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.window import keep


class AdagradState(NamedTuple):
    """What Algorithm 7 carries from one step to the next."""

    theta: Array  # (d,) parameters
    xi: Array  # (d,) error: what has not been sent yet
    G: Array  # (d,) accumulated squares, the diagonal of the printed (d, d) matrix (R29)


def adagrad_ef(
    theta: Any, gradient: Callable[[Array], Any], k: int, eta: float | Callable[[int], float], T: int, eps: float = 0.0
) -> AdagradState:
    """Run Algorithm 7 for T steps.

    Source: Algorithm 7 (appendix K); R29, R36.

    Args:
        theta: starting parameters theta_1, (d,), finite.
        gradient: theta -> gradient g, (d,).
        k: entries kept by Top-k, 0..d.
        eta: learning rate, at least 0, a number or a function of t = 1, 2, ...
        T: number of steps, at least 0.
        eps: added to the root of G, at least 0.

    Returns:
        theta_{T+1}, xi_T and G_T, (d,) each, float64.

    Raises:
        TypeError, ValueError: theta or a gradient is not a finite real vector, or a number is out of range.

    Cost: per step 6 d flops, d roots and the sort of Top-k; 48 d bytes.

    >>> adagrad_ef([3.0, 1.0], lambda theta: theta, k=1, eta=1.0, T=1)
    AdagradState(theta=array([2., 1.]), xi=array([0., 1.]), G=array([9., 0.]))
    """
    theta = check.array("theta", theta, ndim=1).astype(np.float64)
    T = check.integer("T", T, 0)
    rate = eta if callable(eta) else lambda t: eta
    xi = np.zeros(len(theta))  # (d,)                                        # 7:1
    G = np.zeros(len(theta))  # (d,)                                  (R29)  # 7:2
    for t in range(1, T + 1):  #                                             # 7:3
        g = gradient(theta)  # (d,)                                          # 7:4
        theta, xi, G = adagrad_step(theta, xi, G, g, k, rate(t), eps)  # lines 5 to 9, below
    return AdagradState(theta, xi, G)


def adagrad_step(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float, eps: float = 0.0) -> AdagradState:
    """Take one step of diagonal AdaGrad with error feedback.

    Source: Algorithm 7, lines 5-9; R29. ``a = xi + g; c = TopK(a); xi' = a - c; G' = G + c^2;
    theta' = theta - eta c / (sqrt(G') + eps)``, a coordinate with G' = 0 not moved.

    Args:
        theta: parameters theta_t, (d,), finite.
        xi: error xi_{t-1}, (d,), finite.
        G: accumulated squares G_{t-1}, (d,), at least 0.
        g: gradient g_t, (d,), finite.
        k: entries kept by Top-k, 0..d.
        eta: learning rate eta_t, at least 0.
        eps: added to the root of G, at least 0; the printed line has none.

    Returns:
        theta_{t+1}, xi_t and G_t, (d,) each, in the precision of theta.

    Raises:
        TypeError, ValueError: the vectors are not finite, real and of one length; G is negative; k, eta or eps is
            out of range.

    Cost: 6 d flops, d roots and the sort of Top-k; 56 d bytes.

    >>> adagrad_step([1.0, 1.0], [0.0, 2.0], [16.0, 0.0], [3.0, 0.5], k=1, eta=0.5)
    AdagradState(theta=array([0.7, 1. ]), xi=array([0. , 2.5]), G=array([25.,  0.]))
    """
    theta = check.array("theta", theta, ndim=1)
    vectors = [check.array(name, v, shape=theta.shape) for name, v in (("xi", xi), ("G", G), ("g", g))]
    if vectors[1].min() < 0:
        raise ValueError(f"G holds {vectors[1].min():g}, a sum of squares must be at least 0")
    k = check.integer("k", k, 0, len(theta))
    eta, eps = check.number("eta", eta, 0.0), check.number("eps", eps, 0.0)
    parts = [v.astype(np.float64) for v in (theta, *vectors)]
    return AdagradState(*check.like(theta.dtype, *_step(parts[0], parts[1], parts[2], parts[3], k, eta, eps)))


def _step(theta: Array, xi: Array, G: Array, g: Array, k: int, eta: float, eps: float) -> AdagradState:
    a = xi + g  # (d,)                                                       # 7:5
    c = keep(a, k).dense()  # (d,)                                           # 7:6
    xi = a - c  # (d,)                                                       # 7:7
    G = G + c**2  # (d,)                                              (R29)  # 7:8
    theta = theta - eta * divided(c, np.sqrt(G), eps)  # (d,)         (R29)  # 7:9
    return AdagradState(theta, xi, G)


def divided(c: Array, root: Array, eps: float) -> Array:
    """Return ``c / (root + eps)``, and 0 where the root is 0: such a coordinate is not moved (R29).

    >>> divided(np.array([2.0, 0.0]), np.array([2.0, 0.0]), 0.0)
    array([1., 0.])
    """
    return np.divide(c, root + eps, out=np.zeros_like(c), where=root > 0)
