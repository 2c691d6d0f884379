"""The error buffer: appendix A's metric, Assumption A, Lemma 3, Theorem II, Remarks 4 and 5 of the slides.

Each bound stands next to the function that measures the same quantity on a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.sign import Run

_VARIANTS = ("derived", "printed")


def feedback_metric(xi: Any, g: Any) -> Array:
    """Return appendix A's metric at every step: ``|xi_t|_2 / (|g_1|_2 + ... + |g_t|_2)``.

    Source: section 4 and appendix A. Clipped gradients of norm 1 and an error of constant norm give |xi| / t, which is
    hyperbolic; the paper calls it an exponential decrease (R30).

    Args:
        xi: error after each step, (T, d), finite.
        g: gradient of each step, (T, d), finite; the first not zero.

    Returns:
        The metric, (T,), float64.

    Raises:
        TypeError, ValueError: not finite real matrices of one shape, or g_1 = 0.

    Cost: 4 T d flops; reads 16 T d bytes.

    >>> feedback_metric([[3.0], [3.0], [3.0]], [[1.0], [1.0], [-1.0]])
    array([3. , 1.5, 1. ])
    """
    xi = check.array("xi", xi, ndim=2).astype(np.float64)
    g = check.array("g", g, shape=xi.shape).astype(np.float64)
    applied = np.cumsum(np.linalg.norm(g, axis=1))  # (T,)
    if applied[0] == 0:
        raise ValueError("g has a first row of zeros, the metric divides by the sum of the norms")
    return np.linalg.norm(xi, axis=1) / applied


# Assumption A: |C(p) - p|^2 <= (1 - delta) |p|^2


def delta_top_k(d: int, k: int) -> float:
    """Return Assumption A's delta of Top-k, and in expectation that of random-k: k/d.

    >>> delta_top_k(8, 2)
    0.25
    """
    d = check.integer("d", d, 1)
    return check.integer("k", k, 1, d) / d


def delta_scaled_sign(p: Any) -> float:
    """Return the slides' delta of the scaled sign at p: ``|p|_1^2 / (d |p|_2^2)``, between 1/d and 1; 1 at p = 0.

    It is exact where p has no zero; with zeros the compressor does better (see `scaled_sign_error`).

    Raises:
        TypeError, ValueError: p is not a finite real vector.

    Cost: 4 d flops.

    >>> delta_scaled_sign([3.0, 1.0])
    0.8
    """
    p = check.array("p", p, ndim=1).astype(np.float64)
    square = p @ p
    return float(np.abs(p).sum() ** 2 / (len(p) * square)) if square > 0 else 1.0


def scaled_sign_error(p: Any) -> float:
    """Return ``|p - C(p)|^2 = |p|_2^2 - (2 - nnz/d) |p|_1^2 / d`` of the scaled sign C, nnz the nonzero entries of p.

    At most the slides' ``|p|_2^2 - |p|_1^2 / d``, equal iff p has no zero.

    >>> scaled_sign_error([3.0, 0.0, 0.0])  # C = (1, 0, 0)
    4.0
    """
    p = check.array("p", p, ndim=1).astype(np.float64)
    return float(p @ p - (2 - np.count_nonzero(p) / len(p)) * np.abs(p).sum() ** 2 / len(p))


def delta_unbiased(k: float) -> float:
    """Return the delta of ``C = U / k``, U unbiased with E |U(p)|^2 <= k |p|^2: 1/k (slides, Remark 5).

    >>> delta_unbiased(4.0)
    0.25
    """
    return 1 / check.number("k", k, 1.0)


def qsgd_factor(d: int, levels: int) -> float:
    """Return k of QSGD, ``E |U(p)|^2 <= k |p|^2``: 1 + min(d / s^2, sqrt(d) / s) with s levels.

    The variance of a level is at most 1/4 and at most the level's own ratio, which give the two terms.

    >>> qsgd_factor(16, 2), qsgd_factor(16, 16)
    (3.0, 1.0625)
    """
    d, s = check.integer("d", d, 1), check.integer("levels", levels, 1)
    return 1 + min(d / s**2, np.sqrt(d).item() / s)


def measured_delta(p: Any, c: Any) -> float:
    """Return the largest delta for which Assumption A holds at p: ``1 - |c - p|^2 / |p|^2``, c = C(p); 1 at p = 0.

    Args:
        p: vector, (d,), or one per row, (n, d): the mean of |c - p|^2 over the mean of |p|^2 estimates an expectation.
        c: compressed, the same shape.

    Raises:
        TypeError, ValueError: not finite real arrays of one shape.

    Cost: 4 d flops a vector.

    >>> measured_delta([3.0, 1.0], [3.0, 0.0])
    0.9
    """
    p = check.array("p", p).astype(np.float64)
    c = check.array("c", c, shape=p.shape).astype(np.float64)
    square = np.sum(p * p)
    return float(1 - np.sum((c - p) ** 2) / square) if square > 0 else 1.0


# Lemma 3


def lemma_3_bound(gamma: float, sigma2: float, delta: float) -> float:
    """Return Lemma 3's bound of E |e_t|^2: ``4 (1 - delta) gamma^2 sigma^2 / delta^2``.

    Source: slides, Lemma 3 (line 174). Compare `error_norms`.

    Args:
        gamma: learning rate, at least 0.
        sigma2: sigma^2, a bound of E |g_t|^2, at least 0.
        delta: Assumption A, in (0, 1].

    Raises:
        TypeError, ValueError: out of range.

    Cost: 6 flops.

    >>> lemma_3_bound(0.5, 4.0, 0.5)
    8.0
    """
    gamma, sigma2 = check.number("gamma", gamma, 0.0), check.number("sigma2", sigma2, 0.0)
    delta = float(check.share("delta", delta))
    return 4 * (1 - delta) * gamma**2 * sigma2 / delta**2


def error_norms(run: Run) -> Array:
    """Return the measured side of Lemma 3: |e_t|^2 at t = 0..T.

    >>> error_norms(Run(np.zeros((2, 1)), np.array([[0.0], [2.0]]), np.ones((1, 1))))
    array([0., 4.])
    """
    return np.sum(run.e**2, axis=1)


# Theorem II, Remarks 4 and 5


def theorem_2_bound(
    f0: float, gamma: float, L: float, sigma2: float, delta: float, T: int, variant: str = "derived"
) -> float:
    """Return Theorem II's bound of the smallest E |grad f(x_t)|^2, t = 0..T.

    Source: slides, Theorem II (line 197):
    ``2 f0 / (gamma (T+1)) + middle + 4 gamma^2 L^2 sigma^2 (1 - delta) / delta^2``. Printed, the middle term is
    ``gamma L sigma^2 / 2``. The proof by x~_t = x_t - e_t gives ``E f(x~_{t+1}) <= E f(x~_t) - gamma/2 |grad f|^2 +
    gamma L^2/2 |e_t|^2 + L gamma^2 sigma^2 / 2``; dividing by gamma/2 makes it ``gamma L sigma^2`` (R40). Compare
    `smallest_gradient`.

    Args:
        f0: f(x_0) - f*, at least 0.
        gamma: learning rate, greater than 0.
        L: smoothness, at least 0.
        sigma2: sigma^2, at least 0.
        delta: Assumption A, in (0, 1].
        T: last step, at least 0.
        variant: "derived" or "printed" middle term.

    Raises:
        TypeError, ValueError: out of range.

    Cost: 20 flops.

    >>> theorem_2_bound(1.0, 0.5, 1.0, 1.0, 1.0, 3), theorem_2_bound(1.0, 0.5, 1.0, 1.0, 1.0, 3, "printed")
    (1.5, 1.25)
    """
    f0, gamma, L = check.number("f0", f0, 0.0), check.positive("gamma", gamma), check.number("L", L, 0.0)
    T = check.integer("T", T, 0)
    half = 0.5 if check.choice("variant", variant, _VARIANTS) == "printed" else 1.0
    middle = half * gamma * L * check.number("sigma2", sigma2, 0.0)
    return 2 * f0 / (gamma * (T + 1)) + middle + L**2 * lemma_3_bound(gamma, sigma2, delta)


def smallest_gradient(run: Run, gradient: Callable[[Array], Array]) -> float:
    """Return the measured side of Theorem II: the smallest |grad f(x_t)|^2 over t = 0..T (the true gradient).

    >>> smallest_gradient(Run(np.array([[2.0], [1.0]]), np.zeros((2, 1)), np.ones((1, 1))), lambda x: x)
    1.0
    """
    return float(min(np.sum(gradient(x) ** 2) for x in run.x))


def remark_4_bound(f0: float, L: float, sigma2: float, delta: float, T: int, variant: str = "derived") -> float:
    """Return Remark 4's bound: Theorem II at gamma = 1/sqrt(T+1).

    Source: slides, Remark 4 (line 207). Printed: ``(4 f0 + L sigma^2) / (2 sqrt(T+1)) + 4 L^2 sigma^2 (1 - delta) /
    (delta^2 (T+1))``, which is the printed Theorem II; derived, L sigma^2 has a factor 2 (R40).

    Args, Raises, Cost: see `theorem_2_bound`.

    >>> remark_4_bound(1.0, 1.0, 1.0, 1.0, 3), remark_4_bound(1.0, 1.0, 1.0, 1.0, 3, "printed")
    (1.5, 1.25)
    """
    return theorem_2_bound(f0, _rate(T), L, sigma2, delta, T, variant)


def _rate(T: int) -> float:
    return 1 / np.sqrt(check.integer("T", T, 0) + 1).item()


def sgd_bound(f0: float, L: float, sigma2: float, T: int) -> float:
    """Return SGD's bound at gamma = 1/sqrt(T+1): ``(2 f0 + L sigma^2) / (2 sqrt(T+1))``.

    Source: slides, Remark 4 (line 213). With x~ = x nothing is lost to the error: half of Theorem II's first terms.

    Args, Raises, Cost: see `theorem_2_bound`.

    >>> sgd_bound(1.0, 1.0, 1.0, 3)
    0.75
    """
    f0, L, sigma2 = (check.number(n, v, 0.0) for n, v in (("f0", f0), ("L", L), ("sigma2", sigma2)))
    return (2 * f0 + L * sigma2) * _rate(T) / 2


def remark_5_without(f0: float, L: float, sigma2: float, k: float, T: int, variant: str = "derived") -> float:
    """Return Remark 5's bound without feedback, for an unbiased U with E |U(p)|^2 <= k |p|^2.

    Source: slides, Remark 5 (line 220). It is SGD whose gradient has the second moment k sigma^2:
    ``(2 f0 + L k sigma^2) / (2 sqrt(T+1))``. Printed, the factor 2 of f0 is lost (R39).

    Args:
        f0, L, sigma2, T, variant: see `theorem_2_bound`.
        k: second-moment factor of U, at least 1.

    Raises, Cost: see `theorem_2_bound`.

    >>> remark_5_without(1.0, 1.0, 1.0, 2.0, 3), remark_5_without(1.0, 1.0, 1.0, 2.0, 3, "printed")
    (1.0, 0.75)
    """
    k = check.number("k", k, 1.0)
    derived = sgd_bound(f0, L, k * check.number("sigma2", sigma2, 0.0), T)
    return derived - f0 * _rate(T) / 2 if check.choice("variant", variant, _VARIANTS) == "printed" else derived


def remark_5_with(f0: float, L: float, sigma2: float, k: float, T: int, variant: str = "derived") -> float:
    """Return Remark 5's bound with feedback and ``C = U / k``: Remark 4 at delta = 1/k.

    Source: slides, Remark 5 (line 224). The last term is ``4 k (k - 1) L^2 sigma^2 / (T+1)``; printed,
    ``2 k^2 L^2 sigma^2 / (T+1)``, which is less for k > 2 (R39: k = 3, 24 and 18).

    Args:
        f0, L, sigma2, T, variant: see `theorem_2_bound`.
        k: second-moment factor of U, at least 1.

    Raises, Cost: see `theorem_2_bound`.

    >>> remark_5_with(0.0, 1.0, 1.0, 3.0, 0) - 1, remark_5_with(0.0, 1.0, 1.0, 3.0, 0, "printed") - 0.5
    (24.0, 18.0)
    """
    k, without_error = check.number("k", k, 1.0), remark_4_bound(f0, L, sigma2, 1.0, T, variant)
    factor = 2 * k**2 if variant == "printed" else 4 * k * (k - 1)
    return without_error + factor * L**2 * sigma2 / (T + 1)
