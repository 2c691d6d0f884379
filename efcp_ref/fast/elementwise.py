"""AdaGrad with error feedback, EF-SignSGD and scaled Top-k: what is left when nothing is m times d.

The one idea: an AdaGrad step moves k coordinates, so only k are squared, rooted and divided; and Top-k finds them by a
cut. Scaled Top-k is an eigendecomposition of a d by d matrix, which has no faster form: it is the reference's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.feedback import feed_back
from efcp_ref.fast.layout import Layout, computed
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_7 import AdagradState
from efcp_ref.paper.sign import SignStep
from efcp_ref.paper.top_k import scaled_top_k

__all__ = ["adagrad_step", "scaled_top_k", "sign_step"]


def adagrad_step(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> AdagradState:
    """Take one step of diagonal AdaGrad with error feedback: as `efcp_ref.adagrad_step`, on k coordinates.

    Source: Algorithm 7, lines 5-9; R29. ``a = xi + g; c = TopK(a); xi' = a - c; G' = G + c^2;
    theta' = theta - eta c / sqrt(G')``, a coordinate with G' = 0 not moved.

    Args:
        theta: parameters theta_t, (d,), finite.
        xi: error xi_{t-1}, (d,), finite.
        G: accumulated squares G_{t-1}, (d,), at least 0.
        g: gradient g_t, (d,), finite.
        k: entries kept by Top-k, 0..d.
        eta: learning rate eta_t, at least 0.

    Returns:
        theta_{t+1}, xi_t and G_t, (d,) each, in the precision of theta.

    Raises:
        TypeError, ValueError: the vectors are not finite, real and of one length; G is negative; k or eta is out of
            range.

    Cost: that of Top-k, 3 copies of d numbers, 5 k flops.

    >>> adagrad_step([1.0, 1.0], [0.0, 2.0], [16.0, 0.0], [3.0, 0.5], k=1, eta=0.5)
    AdagradState(theta=array([0.7, 1. ]), xi=array([0. , 2.5]), G=array([25.,  0.]))
    """
    theta = check.array("theta", theta, ndim=1)
    dtype = computed(theta.dtype)
    xi, G, g = (check.array(name, v, shape=theta.shape) for name, v in (("xi", xi), ("G", G), ("g", g)))
    if G.min() < 0:
        raise ValueError(f"G holds {G.min():g}, a sum of squares must be at least 0")
    k, eta = check.integer("k", k, 0, len(theta)), check.number("eta", eta, 0.0)
    on, c, xi = feed_back(xi.astype(dtype, copy=False), g.astype(dtype, copy=False), Layout.of(len(xi), k=k), dtype)
    squares, moved = G.astype(dtype), theta.astype(dtype)
    moved[on] -= dtype.type(eta) * adagrad_direction(squares, on, c)
    return AdagradState(*check.like(theta.dtype, moved, xi, squares))


def adagrad_direction(squares: Array, on: Array, c: Array) -> Array:
    """Add c^2 to the squares at ``on``, in place, and return c / sqrt(G') there; 0 where G' = 0 (R29).

    >>> squares = np.array([0.0, 7.0])
    >>> adagrad_direction(squares, np.array([1]), np.array([3.0])), squares
    (array([0.75]), array([ 0., 16.]))
    """
    squares[on] += c * c
    root = np.sqrt(squares[on])
    return np.divide(c, root, out=np.zeros_like(c), where=root > 0)


def sign_step(x: Any, e: Any, g: Any, gamma: float) -> SignStep:
    """Take one step of EF-SignSGD: as `efcp_ref.sign_step`, with two vectors of room.

    Source: slides, Algorithm 1, lines 4-7; R34. ``p = gamma g + e``, ``Delta = (|p|_1 / d) sign(p)``.

    Args:
        x: iterate x_t, (d,), finite.
        e: residual error e_t, (d,), finite.
        g: stochastic gradient g_t, (d,), finite.
        gamma: learning rate, at least 0.

    Returns:
        ``x`` and ``e`` of the next step, (d,) each, in the precision given for each.

    Raises:
        TypeError, ValueError: a vector is not finite and real, lengths differ, gamma is negative.

    Cost: 6 d flops; reads 5 and writes 4 vectors.

    >>> sign_step(np.zeros(2), np.zeros(2), np.array([3.0, -1.0]), 1.0)
    SignStep(x=array([-2.,  2.]), e=array([1., 1.]))
    """
    x = check.array("x", x, ndim=1)
    e, g = check.array("e", e, shape=x.shape), check.array("g", g, shape=x.shape)
    gamma = check.number("gamma", gamma, 0.0)
    delta, after = signed(e, g, gamma, computed(x.dtype, e.dtype, g.dtype))
    return SignStep(*(np.subtract(x, delta).astype(x.dtype), after.astype(e.dtype, copy=False)))


def signed(e: Array, g: Array, gamma: float, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return Delta and the next error of EF-SignSGD, (d,) each; the mean magnitude is summed in float64.

    >>> signed(np.zeros(2), np.array([4.0, -2.0]), 0.5, np.dtype(np.float64))
    (array([ 1.5, -1.5]), array([0.5, 0.5]))
    """
    p = np.multiply(g, dtype.type(gamma), dtype=dtype)
    p += e
    delta = np.sign(p)
    delta *= dtype.type(np.abs(p).sum(dtype=np.float64) / len(p))
    p -= delta
    return delta, p
