"""Appendix B: the largest Hessian eigenvalue. Appendix D: what M-FAC becomes when the damping is large or small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.compressors import generator

GradientFunction = Callable[[Array], Array]  # theta (d,) -> gradient (d,); analytic, so that complex theta works
STEP = 1e-20


def hessian_vector(gradient: GradientFunction, theta: Any, v: Any) -> Array:
    """Return the Hessian times v by the complex step: ``grad(theta + i h v).imag / h``, h = 1e-20.

    No difference is formed, so nothing cancels: the error is that of the gradient itself. Central differences go wrong
    where a kink (ReLU) lies between the two points.

    Args:
        gradient: gradient of the loss, accepting complex theta (see `accepts_complex`).
        theta: parameters, (d,), finite.
        v: direction, (d,), finite.

    Returns:
        H v, (d,), float64.

    Raises:
        TypeError, ValueError: not finite real vectors of one length.

    Cost: one gradient in complex arithmetic.

    >>> hessian_vector(lambda x: x**3, [2.0, 1.0], [1.0, 0.0])
    array([12.,  0.])
    """
    theta = check.array("theta", theta, ndim=1).astype(np.float64)
    v = check.array("v", v, shape=theta.shape).astype(np.float64)
    return np.imag(gradient(theta + 1j * STEP * v)) / STEP


def accepts_complex(gradient: GradientFunction, theta: Any, rng: np.random.Generator) -> bool:
    """Return whether a gradient function carries the imaginary part, so that `hessian_vector` may be used.

    A gradient that takes an absolute value, a real part, a conjugate or a comparison of complex numbers does not. On a
    random direction the complex step is compared with central differences of three widths; one must agree to 1e-3 (a
    kink between the two points spoils some of them).

    Args:
        gradient: function to try.
        theta: where, (d,), finite.
        rng: source of the direction.

    Returns:
        True if the gradient stays the same for a complex argument and the two derivatives agree.

    Raises:
        TypeError, ValueError: theta is not a finite real vector, rng is not a Generator.

    Cost: nine gradients.

    >>> rng = np.random.default_rng(0)
    >>> accepts_complex(lambda x: x**3, [2.0, 1.0], rng), accepts_complex(lambda x: abs(x) ** 3, [2.0, 1.0], rng)
    (True, False)
    """
    theta = check.array("theta", theta, ndim=1).astype(np.float64)
    v = generator(rng).standard_normal(len(theta))
    try:
        same = np.allclose(gradient(theta + 0j), gradient(theta), rtol=1e-12, atol=0)
        step = hessian_vector(gradient, theta, v)
    except (TypeError, ValueError):
        return False
    differences = [(gradient(theta + h * v) - gradient(theta - h * v)) / (2 * h) for h in (1e-3, 1e-5, 1e-7)]
    scale = np.linalg.norm(step) + min(np.linalg.norm(difference) for difference in differences)
    return bool(same and min(np.linalg.norm(step - difference) for difference in differences) <= 1e-3 * scale)


def largest_eigenvalue(
    gradient: GradientFunction, theta: Any, rng: np.random.Generator, method: str = "power", steps: int = 1000,
    tolerance: float = 1e-9,
) -> float:  # fmt: skip
    """Return the largest eigenvalue of the Hessian at theta, from Hessian-vector products alone.

    Source: section 4 "Generalization" and appendix B, Table 4 ("Power Iteration"). ``power`` repeats v = H v / |H v|
    until the residual ``|H v - mu v|`` is at most tolerance * |H v|. That finds the largest magnitude; where it is
    negative, or shared by both signs, once more with H + |H v| I. ``lanczos`` is SciPy's ``eigsh``.

    Args:
        gradient: gradient of the loss, accepting complex theta.
        theta: parameters, (d,), finite.
        rng: source of the first vector.
        method: "power" or "lanczos".
        steps: most Hessian-vector products of one power iteration, at least 1.
        tolerance: relative residual at which it stops, greater than 0.

    Returns:
        The largest eigenvalue (algebraically).

    Raises:
        TypeError, ValueError: theta is not a finite real vector, or steps, tolerance or method are out of range.

    Cost: at most 2 * steps gradients in complex arithmetic; 32 d bytes.

    >>> gradient = lambda x: np.array([3.0, -5.0]) * x  # Hessian diag(3, -5)
    >>> round(largest_eigenvalue(gradient, [1.0, 1.0], np.random.default_rng(0)), 6)
    3.0
    """
    theta = check.array("theta", theta, ndim=1).astype(np.float64)
    steps, tolerance = check.integer("steps", steps, 1), check.positive("tolerance", tolerance)
    first = generator(rng).standard_normal(len(theta))

    def product(v: Array) -> Array:
        return hessian_vector(gradient, theta, np.ravel(v))

    if check.choice("method", method, ("power", "lanczos")) == "lanczos" and len(theta) > 1:
        return _lanczos(product, first, tolerance)
    mu, radius, done = _power(product, first, steps, tolerance)
    if done and mu >= 0:
        return mu
    shifted, _, _ = _power(lambda v: product(v) + radius * v, first, steps, tolerance)
    return max(mu, shifted - radius)


def _power(product: Callable[[Array], Array], v: Array, steps: int, tolerance: float) -> tuple[float, float, bool]:
    """Return the Rayleigh quotient mu of the last vector v, |H v|, and whether |H v - mu v| became small enough."""
    mu, radius, done = 0.0, 0.0, False
    for _ in range(steps):
        v = v / np.linalg.norm(v)
        w = product(v)  # (d,) H v
        mu, radius = float(v @ w), float(np.linalg.norm(w))
        done = bool(np.linalg.norm(w - mu * v) <= tolerance * radius)
        if done:
            break
        v = w
    return mu, radius, done


def _lanczos(product: Callable[[Array], Array], first: Array, tolerance: float) -> float:
    from scipy.sparse.linalg import LinearOperator, eigsh

    if not product(first).any():  # the Hessian is zero: ARPACK refuses it
        return 0.0
    d = len(first)
    operator = LinearOperator((d, d), matvec=product, dtype=np.float64)
    return float(eigsh(operator, k=1, which="LA", v0=first, tol=tolerance, return_eigenvectors=False)[0])


# Appendix D: "When lambda is small, M-FAC is similar to Newton's method, while large lambda reduces to SGD with a
# scaled learning rate". F = lam I + A, A = G^T G / m, u = F^-1 x.


def _window(G: Any, lam: float, x: Any) -> tuple[Array, float, Array]:
    G = check.array("G", G, ndim=2).astype(np.float64)
    return G, check.positive("lam", lam), check.array("x", x, shape=G.shape[1:]).astype(np.float64)


def _direction(G: Array, lam: float, x: Array) -> Array:
    """Return u = (lam I + G^T G / m)^-1 x by a dense solve."""
    return np.linalg.solve(lam * np.eye(G.shape[1]) + G.T @ G / len(G), x)


def sgd_limit_bound(G: Any, lam: float, x: Any) -> float:
    """Return the bound of ``|u - x / lam|``: M-FAC with a large damping is SGD at the rate eta / lam.

    Source: appendix D. On an eigenvector of A with eigenvalue a the difference is ``a / (lam (lam + a))``, which grows
    with a: ``|u - x/lam| <= |x| a_1 / (lam (lam + a_1))``, a_1 = |G|_2^2 / m. Compare `sgd_limit_gap`.

    Args:
        G: window, one gradient per row, (m, d), finite.
        lam: damping, greater than 0.
        x: vector to precondition, (d,), finite.

    Raises:
        TypeError, ValueError: not finite and real, shapes do not fit, or lam is not positive.

    Cost: the singular values of G.

    >>> sgd_limit_bound([[3.0, 0.0]], 1.0, [1.0, 0.0])
    0.9
    """
    G, lam, x = _window(G, lam, x)
    top = float(np.linalg.norm(G, 2)) ** 2 / len(G)
    return float(np.linalg.norm(x)) * top / (lam * (lam + top))


def sgd_limit_gap(G: Any, lam: float, x: Any) -> float:
    """Return the measured side, ``|u - x / lam|``, u by a dense solve.

    Args, Raises: see `sgd_limit_bound`. Cost: 2/3 d^3 flops, 8 d^2 bytes.

    >>> round(sgd_limit_gap([[3.0, 0.0]], 1.0, [1.0, 0.0]), 12)
    0.9
    """
    G, lam, x = _window(G, lam, x)
    return float(np.linalg.norm(_direction(G, lam, x) - x / lam))


def newton_limit_bound(G: Any, lam: float, x: Any) -> float:
    """Return the bound of ``|P u - A^+ x|``: with a small damping M-FAC is Newton's method with the empirical Fisher A.

    Source: appendix D. P projects onto the rows of G, where the difference is at most ``lam / (a_r (a_r + lam))``, a_r
    the smallest nonzero eigenvalue of A. Off that span u is x / lam, which grows. Compare `newton_limit_gap`.

    Args, Raises, Cost: see `sgd_limit_bound`; G is not all zero.

    >>> newton_limit_bound([[3.0, 0.0]], 1.0, [1.0, 0.0])  # 1/9 - 1/10
    0.011111111111111112
    """
    G, lam, x = _window(G, lam, x)
    s, Vt = _span(G)
    least = s[-1] ** 2 / len(G)
    return float(np.linalg.norm(Vt @ x) * lam / (least * (least + lam)))


def newton_limit_gap(G: Any, lam: float, x: Any) -> float:
    """Return the measured side, ``|P u - A^+ x|``, u by a dense solve.

    Args, Raises: see `newton_limit_bound`. Cost: 2/3 d^3 flops, 8 d^2 bytes.

    >>> round(newton_limit_gap([[3.0, 0.0]], 1.0, [1.0, 0.0]), 12)
    0.011111111111
    """
    G, lam, x = _window(G, lam, x)
    s, Vt = _span(G)
    return float(np.linalg.norm(Vt @ _direction(G, lam, x) - (Vt @ x) * len(G) / s**2))


def _span(G: Array) -> tuple[Array, Array]:
    """Return the nonzero singular values of G and the matching right singular vectors (rank, d)."""
    _, s, Vt = np.linalg.svd(G, full_matrices=False)
    kept = s > max(G.shape) * np.finfo(np.float64).eps * s[0]
    if not kept.any():
        raise ValueError("G is zero, Newton's limit needs a nonzero gradient")
    return s[kept], Vt[kept]
