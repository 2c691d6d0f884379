"""Algorithm 1, EFCP: error feedback around COMPRESS and a preconditioner A.

Read beside efcp.txt, lines 101-116: every printed line that executes is one tagged line here; ``# 1:5`` is
Algorithm 1, line 5. Line 1 names parameters and line 10 ends the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.window import keep_blocks


class Compressed(Protocol):
    """What COMPRESS returns: any representation of a vector that can be written out densely."""

    def dense(self) -> Array:
        """Return the vector, (d,) float64."""


Compress = Callable[[Array], Any]  # a (d,) -> Compressed
Precondition = Callable[[Any, Any], tuple[Any, Any]]  # (A, c) -> (u, A)


@dataclass(frozen=True)
class State:
    """What Algorithm 1 carries from one step to the next."""

    xi: Array  # (d,) error: what has not been sent yet
    A: Any  # the preconditioner's own state (its window G)


def efcp(
    theta: Any, gradient: Callable[[Array], Any], compress: Compress, precondition: Precondition, A: Any,
    eta: float | Callable[[int], float], T: int,
) -> tuple[Array, State]:
    """Run Algorithm 1 for T steps.

    Source: Algorithm 1 (section 3); R8 (gradient at theta_{t-1}), R9 (insert c_t, then precondition it).

    Args:
        theta: starting parameters theta_0, (d,).
        gradient: theta -> gradient g, (d,).
        compress: COMPRESS, a -> c, an object with ``dense()``.
        precondition: the preconditioner, (A, c) -> (u, A).
        A: its starting state.
        eta: learning rate, a number or a function of t = 1, 2, ...
        T: number of steps, at least 0.

    Returns:
        theta_T (d,) and the state (xi_T, A_T).

    Raises:
        TypeError, ValueError: theta or a gradient is not a finite real vector of one length; T < 0.

    Cost: per step 3 d flops and 40 d bytes, plus COMPRESS and A.

    >>> from efcp_ref.paper.window import keep
    >>> one = lambda theta, t=0: efcp(theta, lambda x: x, lambda a: keep(a, 1), identity, None, 0.5, 1)
    >>> one(np.array([4.0, 1.0]))  # the second coordinate waits in xi
    (array([2., 1.]), State(xi=array([0., 1.]), A=None))
    """
    theta = check.array("theta", theta, ndim=1).astype(np.float64)
    T = check.integer("T", T, 0)
    rate = eta if callable(eta) else lambda t: check.number("eta", eta)
    state = State(np.zeros(len(theta)), A)  # (d,)                           # 1:2
    for t in range(1, T + 1):  #                                             # 1:3
        g = gradient(theta)  # (d,)                                   (R8)   # 1:4
        u, state = step(state, g, compress, precondition)  # lines 5 to 8, below
        theta = theta - rate(t) * u  # (d,)                                  # 1:9
    return theta, state


def step(state: State, g: Any, compress: Compress, precondition: Precondition) -> tuple[Any, State]:
    """Turn one gradient into one direction: lines 5 to 8 of Algorithm 1.

    Source: Algorithm 1, lines 5-8; R9, R14.

    Args:
        state: xi_{t-1} and the preconditioner's state.
        g: gradient g_t, (d,).
        compress: COMPRESS, a -> c.
        precondition: (A, c) -> (u, A).

    Returns:
        The direction u_t and the next state.

    Raises:
        TypeError, ValueError: g is not a finite real vector as long as xi.

    >>> from efcp_ref.paper.window import keep
    >>> step(State(np.array([0.0, 2.0]), None), np.array([1.0, 1.0]), lambda a: keep(a, 1), identity)[1].xi
    array([1., 0.])
    """
    g = check.array("g", g, shape=(len(state.xi),)).astype(np.float64)
    a = state.xi + g  # (d,)                                                 # 1:5
    c = compress(a)  # (k,) of (d,)                                          # 1:6
    xi = a - c.dense()  # (d,) with c as stored (R14)                        # 1:7
    u, A = precondition(state.A, c)  # (d,)                                  # 1:8
    return u, State(xi, A)


def identity(A: Any, c: Compressed) -> tuple[Array, Any]:
    """Precondition with nothing: u = c. Algorithm 1 is then SGD with compressed gradients."""
    return c.dense(), A


def feed_back(xi: Array, g: Any, compress: Compress) -> tuple[Any, Array]:
    """Return ``(c, xi)``: lines 5 to 7 of Algorithm 1, without a preconditioner.

    >>> from efcp_ref.paper.window import keep
    >>> feed_back(np.zeros(2), np.array([3.0, 1.0]), lambda a: keep(a, 1))[1]
    array([0., 1.])
    """
    c, state = step(State(xi, None), g, compress, lambda A, c: (c, A))
    return c, state.xi


class Feedback(NamedTuple):
    """What error feedback keeps, and what it carries over."""

    indices: Array  # (K,) int32
    values: Array  # (K,) as stored
    xi: Array  # (d,)


def error_feedback(
    xi: Any, g: Any, block_size: int | None = None, density: Any = 0.01, dtype: str | None = None
) -> Feedback:
    """Add the error to the gradient, keep the largest entries of every block, and carry the rest over.

    Source: Algorithm 1, lines 5-7, COMPRESS being blockwise Top-k. ``a = xi + g; c = TopK(a); xi' = a - c``.

    Args:
        xi: error xi_{t-1}, (d,), finite.
        g: gradient g_t, (d,), finite.
        block_size: B_d, at least 1; default d, one block.
        density: kept fraction of every block, in (0, 1].
        dtype: storage of the values kept: "float64", "float32", "bfloat16"; default the precision given.

    Returns:
        ``indices`` (K,) int32, ``values`` (K,) as stored, and the next ``xi`` (d,) in the precision given. The sum
        ``dense(values) + xi'`` is a, whatever the storage rounds (R14).

    Raises:
        TypeError, ValueError: xi and g are not finite real vectors of one length, or the layout is wrong.

    Cost: 2 d flops and O(d log B_d) comparisons; 40 d bytes.

    >>> error_feedback(np.array([0.0, 1.5, 0.0]), np.array([1.0, 1.0, -2.0]), density=0.3)
    Feedback(indices=array([1], dtype=int32), values=array([2.5]), xi=array([ 1.,  0., -2.]))
    """
    xi = check.array("xi", xi, ndim=1)
    g = check.array("g", g, shape=xi.shape)
    precision = np.result_type(xi, g)
    stored = dtype or precision
    c, after = feed_back(xi.astype(np.float64), g, lambda a: keep_blocks(a, block_size, density, stored))
    return Feedback(c.indices, c.values, check.like(precision, after))
