"""Where SignSGD fails: the slides' convex function that it cannot minimise, and the span of the gradients.

Source: slides, "Non convergence SignSGD on non smooth convex problems" and Figure 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


def kinked(x: Any, eps: float = 0.5) -> float:
    """Return ``f(x) = eps |x1 + x2| + |x1 - x2|``, convex, smallest at (0, 0).

    Source: slides, line 156.

    Args:
        x: point, (2,), finite.
        eps: greater than 0.

    Raises:
        TypeError, ValueError: x is not a finite real (2,) vector, or eps is not greater than 0.

    Cost: 4 flops.

    >>> kinked([1.0, 1.5])
    1.75
    """
    x = check.array("x", x, shape=(2,)).astype(np.float64)
    return float(check.positive("eps", eps) * abs(x[0] + x[1]) + abs(x[0] - x[1]))


def kinked_subgradient(x: Any, eps: float = 0.5) -> Array:
    """Return a subgradient of `kinked`: ``eps sign(x1 + x2) (1, 1) + sign(x1 - x2) (1, -1)``.

    With eps < 1 its sign is +-(1, -1) wherever it is not zero, so SignSGD keeps x1 + x2. The slides print +-(-1, -1)
    and start at (1, 1), on the kink: there sign(x1 - x2) is taken as +1, for the choice 0 would give the direction
    (1, 1) and walk to the optimum (R33). On x1 + x2 = 0 the choice is 0.

    Args, Raises: see `kinked`.

    Returns:
        A subgradient, (2,), float64.

    Cost: 6 flops.

    >>> kinked_subgradient([1.0, 1.5]), kinked_subgradient([1.0, 1.0])
    (array([-0.5,  1.5]), array([ 1.5, -0.5]))
    """
    x = check.array("x", x, shape=(2,)).astype(np.float64)
    across = 1.0 if x[0] >= x[1] else -1.0
    return check.positive("eps", eps) * np.sign(x[0] + x[1]) * np.ones(2) + across * np.array([1.0, -1.0])


def least_squares(A: Any, b: Any, x: Any) -> tuple[float, Array]:
    """Return ``f(x) = |A x - b|^2 / 2`` and its gradient ``A^T (A x - b)``; over-parameterised where n < d.

    Args:
        A: data, one example per row, (n, d), finite.
        b: targets, (n,), finite.
        x: point, (d,), finite.

    Returns:
        f(x) and the gradient (d,), float64.

    Raises:
        TypeError, ValueError: not finite and real, or shapes do not fit.

    Cost: 4 n d flops; reads 8 n d bytes twice.

    >>> least_squares([[1.0, 2.0]], [3.0], [0.0, 0.0])
    (4.5, array([-3., -6.]))
    """
    A = check.array("A", A, ndim=2).astype(np.float64)
    b = check.array("b", b, shape=A.shape[:1]).astype(np.float64)
    x = check.array("x", x, shape=A.shape[1:]).astype(np.float64)
    residual = A @ x - b  # (n,)
    return float(residual @ residual / 2), A.T @ residual


def distance_to_span(x: Any, g: Any) -> float:
    """Return ``|x - P x|_2``, P the orthogonal projection onto the span of the gradients seen.

    Source: slides, Figure 3 (left). SGD from 0 stays at 0; SignSGD leaves. With error feedback from x_0 = 0,
    ``x_t - e_t = -sum Delta - e_t`` is minus gamma times the sum of the gradients, so the distance is at most |e_t|.

    Args:
        x: iterate, (d,), finite.
        g: gradients, one per row, (T, d), finite.

    Raises:
        TypeError, ValueError: not finite and real, or shapes do not fit.

    Cost: a singular value decomposition of g; 8 T d bytes.

    >>> distance_to_span([3.0, 4.0], [[2.0, 0.0], [1.0, 0.0]])
    4.0
    """
    x = check.array("x", x, ndim=1).astype(np.float64)
    g = check.array("g", g, shape=(None, len(x))).astype(np.float64)
    _, s, Vt = np.linalg.svd(g, full_matrices=False)
    basis = Vt[s > max(g.shape) * np.finfo(np.float64).eps * s[0]]  # (rank, d)
    return float(np.linalg.norm(x - basis.T @ (basis @ x)))
