"""Appendix K: Lemmas K.1 and K.2, Scaled Sparse GGT as a loop that runs, its regret and the regret bound.

The printed loop defines H_t by ``H_t = H_{t-1} + 2 eta T_{H_t}(a) T_{H_t}(a)^T`` with ``a = m_t + g_t``: H_t is the
fixed point of its own update. The loop here takes the operator of the step before, T_{H_{t-1}}, which can be computed
(R35); it starts from delta I. "PSD" in the paper's lemmas must be positive definite: H^-1/2 and A^-1 are used (R38).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import roots, scaled_top_k


class Sides(NamedTuple):
    """Both sides of an inequality; the lemma says left >= right."""

    left: float
    right: float


def lemma_k1(v: Any, H: Any, k: int) -> Sides:
    """Return both sides of Lemma K.1: ``|T_H(v)|^2_{H^-1} >= (k/d) |v|^2_{H^-1}``.

    Source: appendix K, Lemma K.1 (efcp.txt line 781; n there is d, R35).

    Args:
        v: vector, (d,), finite.
        H: symmetric positive definite, (d, d).
        k: kept entries, 0..d.

    Raises:
        TypeError, ValueError: see `scaled_top_k`.

    Cost: two eigendecompositions, about 18 d^3 flops.

    >>> lemma_k1([3.0, 2.0], np.diag([16.0, 1.0]), 1)  # v in the basis of H: (.75, 2)
    Sides(left=4.0, right=2.28125)
    """
    kept, v = scaled_top_k(v, H, k), np.asarray(v, dtype=np.float64)
    return Sides(_inverse_norm2(kept, H), k / len(v) * _inverse_norm2(v, H))


def _inverse_norm2(v: Array, H: Any) -> float:
    """Return |v|^2 in the norm of H^-1."""
    basis = roots(H)[1] @ v
    return float(basis @ basis)


def lemma_k2(A: Any, u: Any, v: Any) -> Sides:
    """Return both sides of Lemma K.2: ``ln det(A + u u^T + v v^T) >= ln det A + ln(1 + |u|^2/2 + |v|^2/2)``.

    Source: appendix K, Lemma K.2 (efcp.txt line 791); norms are those of A^-1.

    Args:
        A: symmetric positive definite, (d, d).
        u: vector, (d,), finite.
        v: vector, (d,), finite.

    Raises:
        TypeError, ValueError: A is not symmetric positive definite, or lengths differ.

    Cost: an eigendecomposition and two LU factorisations, about 11 d^3 flops.

    >>> left, right = lemma_k2(np.eye(2), [1.0, 0.0], [0.0, 1.0])
    >>> round(left, 6), round(right, 6)  # ln 4, ln 2
    (1.386294, 0.693147)
    """
    A = check.array("A", A, ndim=2).astype(np.float64)
    u = check.array("u", u, shape=A.shape[:1]).astype(np.float64)
    v = check.array("v", v, shape=A.shape[:1]).astype(np.float64)
    inside = 1 + _inverse_norm2(u, A) / 2 + _inverse_norm2(v, A) / 2
    return Sides(_log_det(A + np.outer(u, u) + np.outer(v, v)), _log_det(A) + float(np.log(inside)))


def _log_det(A: Array) -> float:
    return float(np.linalg.slogdet(A)[1])


class Misalignment(NamedTuple):
    """The chain of appendix K for ``<g, H^-1 m>``; product <= young <= derived always, young <= printed not always."""

    product: float  # <g, H^-1 m>
    young: float  # |g|^2/2 + |m|^2/2
    printed: float  # d/k (|g~|^2/2 + |T(g)|^2/2)
    derived: float  # d/k (|g~|^2 + 3/2 |T(g)|^2)
    hypothesis: bool  # |m| <= |m + g|, under which young <= printed


def misalignment(H: Any, m: Any, g: Any, k: int) -> Misalignment:
    """Return the printed bound of ``<g, H^-1 m>`` and one that holds, all norms those of H^-1 (R37).

    Source: appendix K (efcp.txt line 815). g~ = T_H(m + g). Lemma K.1 bounds ``|m + g|^2 <= d/k |g~|^2``, not |m|^2:
    the printed step needs ``|m| <= |m + g|``. Without it, ``|m|^2 <= 2 |m + g|^2 + 2 |g|^2`` gives
    ``|g|^2/2 + |m|^2/2 <= d/k (|g~|^2 + 3/2 |T(g)|^2)``. At H = I, k = d = 3, m = -g = -(1,1,1) the printed step says
    3 <= 1.5.

    Args:
        H: symmetric positive definite, (d, d).
        m: error, (d,), finite.
        g: gradient, (d,), finite.
        k: kept entries, 1..d.

    Raises:
        TypeError, ValueError: H is not symmetric positive definite, lengths differ, or k is not in 1..d.

    Cost: eight eigendecompositions.

    >>> misalignment(np.eye(3), -np.ones(3), np.ones(3), 3)
    Misalignment(product=-3.0, young=3.0, printed=1.5, derived=4.5, hypothesis=False)
    """
    g = check.array("g", g, ndim=1).astype(np.float64)
    m = check.array("m", m, shape=g.shape).astype(np.float64)
    H, k = check.array("H", H, shape=(len(g), len(g))).astype(np.float64), check.integer("k", k, 1, len(g))
    mm, gg, sum2 = _inverse_norm2(m, H), _inverse_norm2(g, H), _inverse_norm2(m + g, H)
    kept, kept_g = (_inverse_norm2(scaled_top_k(a, H, k), H) for a in (m + g, g))
    product, ratio = float(g @ np.linalg.solve(H, m)), len(g) / k
    return Misalignment(product, (gg + mm) / 2, ratio * (kept + kept_g) / 2, ratio * (kept + 1.5 * kept_g), mm <= sum2)


@dataclass(frozen=True)
class ScaledState:
    """The state of Scaled Sparse GGT before step t: iterate, error, and the matrix of the step before."""

    x: Array  # (d,) iterate x_t
    m: Array  # (d,) error m_t
    H: Array  # (d, d) H_{t-1}


def scaled_ggt_step(state: ScaledState, g: Any, k: int, eta: float) -> tuple[Array, ScaledState]:
    """Take one step of Scaled Sparse GGT.

    Source: appendix K, "we can re-write our algorithm's iterations" (efcp.txt lines 797-803), T_{H_{t-1}} for T_{H_t}
    (R35): ``T = T_{H_{t-1}}(m + g)``, ``H_t = H_{t-1} + 2 eta T T^T``, ``x' = x - H_t^-1 T``, ``m' = m + g - T``.

    Args:
        state: see `ScaledState`.
        g: gradient, (d,), finite.
        k: kept entries, 1..d.
        eta: weight of the update of H, greater than 0.

    Returns:
        T, (d,), and the next state.

    Raises:
        TypeError, ValueError: g is not a finite real (d,) vector, or k or eta are out of range.

    Cost: an eigendecomposition and a solve, about 10 d^3 flops; 40 d^2 bytes.

    >>> scaled_ggt_step(ScaledState(np.zeros(2), np.zeros(2), np.eye(2)), [1.0, 3.0], 1, 0.5)[1].x
    array([ 0. , -0.3])
    """
    g = check.array("g", g, shape=state.x.shape).astype(np.float64)
    k, eta = check.integer("k", k, 1, len(g)), check.positive("eta", eta)
    kept = scaled_top_k(state.m + g, state.H, k)  # (d,)
    H = state.H + 2 * eta * np.outer(kept, kept)  # (d, d), symmetric bit for bit
    x = state.x - np.linalg.solve(H, kept)  # (d,)
    return kept, ScaledState(x, state.m + g - kept, H)


@dataclass(frozen=True)
class ScaledRun:
    """What a run of Scaled Sparse GGT visited."""

    x: Array  # (T + 1, d) x_0 .. x_T
    m: Array  # (T + 1, d) m_0 .. m_T
    H: Array  # (T + 1, d, d) delta I, H_0 .. H_{T-1}
    g: Array  # (T, d) gradients
    kept: Array  # (T, d) T_{H_{t-1}}(m_t + g_t), the g~_t of the runnable loop
    kept_g: Array  # (T, d) T_{H_{t-1}}(g_t)
    k: int
    eta: float


def scaled_ggt_run(
    gradient: Callable[[Array, int], Array], x0: Any, k: int, eta: float, delta: float, T: int
) -> ScaledRun:
    """Run Scaled Sparse GGT for T steps from x_0, with m_0 = 0 and delta I as the first matrix.

    Source: appendix K.

    Args:
        gradient: ``gradient(x, t) -> g_t``, (d,).
        x0: starting iterate, (d,), finite.
        k: kept entries, 1..d.
        eta: weight of the update of H, greater than 0.
        delta: the first matrix is delta I, greater than 0.
        T: number of steps, at least 1.

    Returns:
        A `ScaledRun` in float64.

    Raises:
        TypeError, ValueError: an argument is out of range, or a gradient is not a finite real (d,) vector.

    Cost: 20 T d^3 flops; keeps 8 T d^2 bytes.

    >>> scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2).x.round(3)
    array([[2.   , 1.   ],
           [1.778, 1.   ],
           [1.778, 0.778]])
    """
    x0 = check.array("x0", x0, ndim=1).astype(np.float64)
    state = ScaledState(x0, np.zeros(len(x0)), check.positive("delta", delta) * np.eye(len(x0)))
    states, rows = [state], []
    for t in range(check.integer("T", T, 1)):
        g = np.asarray(gradient(state.x, t), dtype=np.float64)  # (d,)
        kept, after = scaled_ggt_step(state, g, k, eta)
        rows.append((g, kept, scaled_top_k(g, state.H, k)))
        states.append(state := after)
    g, kept, kept_g = (np.array(column) for column in zip(*rows, strict=True))
    x, m, H = (np.array([getattr(s, name) for s in states]) for name in ("x", "m", "H"))
    return ScaledRun(x, m, H, g, kept, kept_g, k, eta)


def regret(run: ScaledRun, x_star: Any) -> float:
    """Return the measured regret, ``sum_t <g_t, x_t - x*>``; for convex losses it is at least the regret in loss.

    Raises:
        TypeError, ValueError: x_star is not a finite real (d,) vector.

    Cost: 3 T d flops.

    >>> round(regret(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2), [0.0, 0.0]), 3)
    9.16
    """
    x_star = check.array("x_star", x_star, shape=run.x[0].shape)
    return float(np.sum(run.g * (run.x[:-1] - x_star)))


def alignment(run: ScaledRun) -> float:
    """Return the smallest eps of the paper's assumption on this run.

    Source: appendix K (efcp.txt line 821): ``|g~_t|^2 + |T(g_t)|^2 <= k eps / (2 d)`` in the norm of H_{t-1}^-1.

    Cost: 2 T eigendecompositions.

    >>> round(alignment(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2)), 3)
    32.0
    """
    pairs = zip(run.kept, run.kept_g, run.H, strict=False)
    largest = max(_inverse_norm2(a, H) + _inverse_norm2(b, H) for a, b, H in pairs)
    return 2 * run.x.shape[1] / run.k * largest


def stability(run: ScaledRun) -> Array:
    """Return how far the first approximation is off: ``|H_t H_{t-1}^-1 m_t - m_t| / |m_t|`` at each step, 0 at m_t = 0.

    Source: appendix K, "we only needed to assume that the Hessian estimate is stable" (efcp.txt line 799).

    Cost: T solves.

    >>> stability(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2)).round(3)
    array([0., 8.])
    """
    moved = [after @ np.linalg.solve(H, m) - m for m, H, after in zip(run.m[:-1], run.H[:-1], run.H[1:], strict=True)]
    size = np.linalg.norm(run.m[:-1], axis=1)  # (T,)
    return np.linalg.norm(moved, axis=1) / np.where(size > 0, size, 1)


def update_gap(run: ScaledRun) -> Array:
    """Return how far the second approximation is off, at each step, relative to the update (R38).

    Source: appendix K (efcp.txt line 803): ``2 T T^T`` becomes ``g~ g~^T + T(g) T(g)^T``, unstated; Frobenius norms.

    Cost: 4 T d^2 flops.

    >>> update_gap(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2)).round(3)
    array([0.   , 0.375])
    """
    outer = np.einsum("ti,tj->tij", run.kept, run.kept)
    gap = outer - np.einsum("ti,tj->tij", run.kept_g, run.kept_g)
    size = 2 * np.linalg.norm(outer, axis=(1, 2))  # (T,)
    return np.linalg.norm(gap, axis=(1, 2)) / np.where(size > 0, size, 1)


def iterate_bound(run: ScaledRun, x_star: Any) -> float:
    """Return R, the largest ``|x_t - H_{t-1}^-1 m_t - x*|_2``, t = 0..T.

    The paper writes R_infinity; ``|y|^2_H <= R^2 trace(H)`` holds for the Euclidean norm.

    >>> round(iterate_bound(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2), [0.0, 0.0]), 3)
    2.236
    """
    x_star = check.array("x_star", x_star, shape=run.x[0].shape)
    corrected = [x - np.linalg.solve(H, m) for x, m, H in zip(run.x, run.m, run.H, strict=True)]
    return float(np.linalg.norm(corrected - x_star, axis=1).max())


def regret_bound(run: ScaledRun, x_star: Any) -> float:
    """Return the paper's regret bound on this run, with the run's own R and eps.

    Source: appendix K (efcp.txt line 825): ``R^2/2 (delta d + eta S) + T eps/2 + (d/k) ln det(I + (eta/delta) W) /
    (2 eta)``, W the sum of ``g~ g~^T + T(g) T(g)^T`` and S its trace. It rests on the two approximations (`stability`,
    `update_gap`): it is not a theorem about the runnable loop. Compare `regret`.

    Args:
        run: a run of `scaled_ggt_run`.
        x_star: comparison point, (d,), finite.

    Raises:
        TypeError, ValueError: x_star is not a finite real (d,) vector.

    Cost: T solves and 2 T eigendecompositions.

    >>> round(regret_bound(scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2), [0.0, 0.0]), 2)
    73.49
    """
    T, d = run.g.shape
    delta = run.H[0, 0, 0]
    W = run.kept.T @ run.kept + run.kept_g.T @ run.kept_g  # (d, d)
    first = iterate_bound(run, x_star) ** 2 / 2 * (delta * d + run.eta * np.trace(W))
    last = d / run.k / (2 * run.eta) * _log_det(np.eye(d) + run.eta / delta * W)
    return float(first + T * alignment(run) / 2 + last)


def regret_rate(R: float, S: float, d: int, k: int, variant: str = "derived") -> float:
    """Return the second line of the regret bound without its T eps, logarithms left out.

    Source: appendix K (efcp.txt line 825). Minimising ``R^2 eta S / 2 + (d/k) d / (2 eta)`` over eta gives
    ``R sqrt(S d d/k)``, as the last formula has it; printed in this line, d * d/k stands outside the root (R38).

    Args:
        R: iterate bound, at least 0.
        S: sum of the squared norms, at least 0.
        d: dimension, at least 1.
        k: kept entries, 1..d.
        variant: "derived" or "printed".

    Raises:
        TypeError, ValueError: out of range.

    Cost: 6 flops.

    >>> regret_rate(1.0, 4.0, 16, 4), regret_rate(1.0, 4.0, 16, 4, "printed")
    (16.0, 128.0)
    """
    R, S, d = check.number("R", R, 0.0), check.number("S", S, 0.0), check.integer("d", d, 1)
    factor = d * d / check.integer("k", k, 1, d)
    if check.choice("variant", variant, ("derived", "printed")) == "printed":
        return R * float(np.sqrt(S)) * factor
    return R * float(np.sqrt(S * factor))


def diagonal_rate(T: int, d: int, sigma2: float, constants: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> float:
    """Return the rate of the diagonal case, Algorithm 7: ``c1 / sqrt(T) + c2 sigma^2 / sqrt(T) + c3 d / T``.

    Source: section 3.3 and appendix K, "The Diagonal Case" (efcp.txt line 746). The paper gives no constants.

    Args:
        T: steps, at least 1.
        d: dimension, at least 1.
        sigma2: sigma^2, the gradient's variance, at least 0.
        constants: c1, c2, c3.

    Raises:
        TypeError, ValueError: out of range.

    Cost: 6 flops.

    >>> diagonal_rate(100, 50, 2.0)
    0.8
    """
    T, d, sigma2 = check.integer("T", T, 1), check.integer("d", d, 1), check.number("sigma2", sigma2, 0.0)
    c1, c2, c3 = (check.number("constants", c, 0.0) for c in constants)
    return float((c1 + c2 * sigma2) / np.sqrt(T) + c3 * d / T)
