"""Judges one direction u = F^-1 x or (eps I + (G^T G)^1/2)^-1 x, given the window.

What is not seen enters as a radius: R bounds what may be wrong with every entry of G, r the same for x.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Check, Unit
from efcp_ref.oracle.criteria import eigen
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay.run import Run
from efcp_ref.oracle.exact import Pair
from efcp_ref.paper._validate import Array

R9 = "agrees with: preconditioned before c_t was inserted (R9)"


@dataclass(frozen=True)
class Window:
    """A window, the vector that is preconditioned, and what rounding goes by."""

    G: Array  # (m, d)
    size: Array  # (m, d): |G|, or |P||Q|^T
    x: Array  # (d,)
    x_size: Array  # (d,)
    terms: int  # products in one scalar product
    rho: int = 0  # terms in one entry of G, where it is a product
    R: Array | None = None  # (m, d) radii of G, without states
    r: Array | None = None  # (d,) radii of x


def direction(run: Run, t: int, w: Window, S: Array | None, old: Array | None, line: str = "W:4") -> Check:
    """Judge u = F^-1 x, given S where the target shows it; F as R4 is declared, undecided if the other explains u.

    A direction that the window *before* this step explains is blamed on line 8 of Algorithm 1 (R9).
    """
    m = len(w.G)
    stored = max(1, int(np.any(w.size != 0, axis=1).sum()))
    said = run.declared.readings.get("R4")
    check = _solved(run, t, w, S, stored if said == "stored" else m, line)
    if check.verdict != FAIL:
        return check
    if said is None and stored != m and _solved(run, t, w, S, stored, line).verdict == PASS:
        return replace(check, verdict=INCONCLUSIVE, reason="reading R4: declare READINGS = {'R4': 'stored'}")
    if old is not None and _solved(run, t, replace(w, G=old, size=np.abs(old)), None, m, line).verdict == PASS:
        return replace(check, line="1:8", reason=R9)
    return check


def _solved(run: Run, t: int, w: Window, S: Array | None, m: int, line: str) -> Check:
    """``|u - F^-1 x| <=`` the bound of `Solve`, the oracle's own error counted."""
    solve = Solve(w, S, m, run.number("lam"), run.unit)
    rule = "|u - F^-1 x| <= what rounding does to S, h, the solve and x/lam - c G"
    if solve.L is None:
        return t0.undecided("u", "T2", line, rule, "indefinite")
    expected, bound = solve.expected, solve.bound
    high = expected.astype(np.float64)
    own = float(np.finfo(solve.kind).eps) / run.unit.u * bound
    check = t0.forward(
        "u", line, rule, run.u[t], Pair(high, (expected - high).astype(np.float64)), bound.astype(np.float64),
        magnitude=solve.magnitude.astype(np.float64), error=own.astype(np.float64),
        truth=solve.enclosed().direction,
    )  # fmt: skip
    return _by_class(run, check, t, high, bound.astype(np.float64), solve.M.astype(np.float64), solve.lam * m)


@dataclass(frozen=True)
class Solve:
    """u = F^-1 x, F = lam I + G^T G / m, and its bound: only u is judged, given S where the target shows it.

    ``|u - ref| <= (|G^T M^-1| (k u |G||x| + (3m+10) u |L||L^T||w|) + (m+4) u (|x| + |G|^T |w|)) / lam + 2u |ref|``,
    M = m lam I + S, with the target's own S, else the exact one and ``k u |G||G|^T |w|`` more. Everything is computed
    in 64 bits of significand where u is binary64: the oracle's error is then the bound times 2^-11.
    """

    window: Window
    given: Array | None  # the target's own S
    m: int  # the window's size, or the number of stored gradients (R4)
    lam: float
    unit: Unit

    def enclosed(self) -> enclose.System:
        """The same system for enclosures."""
        return enclose.System(self.window.G, self.window.x, self.lam, self.m, self.given, symmetric=True)

    @property
    def kind(self) -> Any:
        """What the oracle computes in."""
        return np.float64 if self.unit.u > 2.0**-40 else np.longdouble

    @cached_property
    def G(self) -> Array:
        """The window in this precision, (m, d)."""
        return self.window.G.astype(self.kind)

    @cached_property
    def size(self) -> Array:
        """What the rounding of the window goes by, (m, d)."""
        return self.window.size.astype(self.kind)

    @cached_property
    def M(self) -> Array:
        """m lam I + S, the symmetric part of the target's own S."""
        S = self.G @ self.G.T if self.given is None else (self.given.astype(self.kind) + self.given.T) / 2
        return S + self.m * self.kind(self.lam) * np.eye(len(S))

    @cached_property
    def L(self) -> Array | None:
        """Cholesky factor of M; None where M is not positive definite."""
        return _cholesky(self.M)

    @cached_property
    def inverse(self) -> Array:
        """L^-1."""
        assert self.L is not None
        return _inverse(self.L)

    @cached_property
    def w(self) -> Array:
        """M^-1 G x, lam times the coefficients of eq. (2), (m,)."""
        return self.inverse.T @ (self.inverse @ (self.G @ self.window.x.astype(self.kind)))

    @cached_property
    def expected(self) -> Array:
        """``(x - w G) / lam``, (d,)."""
        return (self.window.x.astype(self.kind) - self.w @ self.G) / self.kind(self.lam)

    @cached_property
    def reach(self) -> Array:
        """``|x| + |G|^T |w|``, (d,): what the last subtraction goes by."""
        return self.size.T @ np.abs(self.w)

    @property
    def magnitude(self) -> Array:
        """Sum of the absolute terms of u, (d,)."""
        return (np.abs(self.window.x) + self.reach) / self.lam

    @property
    def bound(self) -> Array:
        """What rounding, and the radii of G and x, may do to u, (d,)."""
        m, w, u, L = len(self.G), self.window, self.unit.u, np.abs(self.L)  # type: ignore[arg-type]
        spread = np.abs(self.G.T @ self.inverse.T @ self.inverse)  # (d, m) |G^T M^-1|
        solve = (3 * m + 10) * L @ (L.T @ np.abs(self.w))
        last = (m + 4 + w.rho) * (w.x_size + self.reach)
        bound = u * ((spread @ (self._sums() + solve) + last) / self.lam + 2 * np.abs(self.expected))
        return bound + self.unit.tiny * self._lost(spread) + self.carried()

    def _lost(self, spread: Array) -> Array:
        """What underflow may do to u, in units of the smallest number: in h and S, in the solve, in x/lam - c G, (d,).

        The solve as in `fisher`: ``(m+2) (1 + |L||L^T| e + |L|_max |L| e)``. It is w or c = w/lam that underflows, in
        ``(x - w G) / lam`` or ``x/lam - c G``: once over lam, once not.
        """
        m, L = len(self.G), np.abs(self.L)  # type: ignore[arg-type]
        sums = self.window.terms * (1 + np.abs(self.w).sum()) * spread.sum(axis=1)
        solve = (m + 2) * spread @ (1 + L @ L.sum(axis=0) + L.max() * L.sum(axis=1))
        return sums / self.lam + (solve + m + 4) * (1 + 1 / self.lam)

    def _sums(self) -> Array:
        """Roundings of h = G x and of S where it is hidden; what a shown S lacks in symmetry, (m,), in units of u."""
        sums: Any = self.window.terms * self.size @ self.window.x_size.astype(self.kind)
        if self.given is None:
            return sums + self.window.terms * self.size @ self.reach
        return sums + np.abs(self.given - self.given.T).astype(self.kind) @ np.abs(self.w) / self.unit.u

    def carried(self) -> Array:
        """``|F^-1| (r + (R^T |G u| + |G|^T R |u|) / m)``, doubled for what is beyond first order, (d,).

        ``|F^-1| <= (I + |G^T M^-1||G|) / lam``.
        """
        w, G, u = self.window, self.G, self.expected
        if w.R is None or w.r is None or not (w.R.any() or w.r.any()):
            return np.zeros(G.shape[1])
        moved = w.r + (w.R.T @ np.abs(G @ u) + np.abs(G).T @ (w.R @ np.abs(u))) / self.m
        return 2 * (moved + np.abs(G.T @ self.inverse.T @ self.inverse) @ (np.abs(G) @ moved)) / self.lam


def _by_class(run: Run, check: Check, t: int, expected: Array, bound: Array, M: Array, least: float) -> Check:
    """Solvers that are not symmetric factorisations: the bound times cond(M) (inverse, eigh) or cond(F) (dense)."""
    if check.verdict != FAIL or run.declared.solver == "factorisation":
        return check
    values = np.linalg.eigvalsh(M)
    cond_M, cond_F = float(values[-1] / max(values[0], 1e-300)), float(values[-1] / least)
    name = str(run.declared.solver)
    times = {"inverse": cond_M, "eigh": cond_M, "dense": cond_F}.get(name, max(cond_M, cond_F))
    gap, loose = np.linalg.norm(t0.wide(run.u[t]) - expected), float(np.linalg.norm(bound)) * times
    if gap > loose:
        return check
    if loose >= np.linalg.norm(expected) / 10:
        return replace(check, verdict=INCONCLUSIVE, reason="vacuous for this solver class")
    if name in ("lu", "inverse", "eigh", "dense"):
        return replace(check, verdict=PASS, ratio=float(gap) / loose)
    return replace(check, verdict=INCONCLUSIVE, reason="solver class: declare SOLVER = 'inverse', 'eigh' or 'dense'")


def _cholesky(M: Array) -> Array | None:
    """Return L, M = L L^T, in the precision of M (NumPy's own stops at binary64); None where M is not positive."""
    if M.dtype == np.float64:
        try:
            return np.linalg.cholesky(M)
        except np.linalg.LinAlgError:
            return None
    L = np.zeros_like(M)
    for j in range(len(M)):
        pivot = M[j, j] - L[j, :j] @ L[j, :j]
        if not pivot > 0:
            return None
        L[j:, j] = (M[j:, j] - L[j:, :j] @ L[j, :j]) / np.sqrt(pivot)
    return L


def _inverse(L: Array) -> Array:
    """Return L^-1 by forward substitution, in the precision of L."""
    X = np.eye(len(L)).astype(L.dtype)
    for j in range(len(L)):
        X[j] = (X[j] - L[j, :j] @ X[:j]) / L[j, j]
    return X


def ggt(
    run: Run, t: int, G: Array, terms: int, x: Array, old: Array | None, R: Array | None = None, r: Array | None = None
) -> Check:
    """Judge u = (eps I + (G^T G)^1/2)^-1 x, only u being visible (`eigen.alone`); old: the window before (R9)."""
    case = run.part("ggt_direction", G=G, x=x, eps=run.p["eps"], cutoff=run.p["cutoff"])
    problem, extra = eigen.Problem.of(case, G, terms, run.unit), 0.0
    if R is not None and r is not None and (R.any() or r.any()):
        size = float(np.linalg.norm(R))
        problem = replace(problem, drift=2 * size * float(np.linalg.norm(G)) + size**2)
        extra = _ggt_carried(problem, R, r)
    check = eigen.visible(problem, run.u[t], run.declared, extra)
    if check.verdict == FAIL and old is not None:
        before = eigen.visible(replace(problem, G=old), run.u[t], run.declared)
        if before.verdict == PASS:
            return replace(check, line="1:8", reason=R9)
    return check


def _ggt_carried(p: eigen.Problem, R: Array, r: Array) -> float:
    """``||r|| / eps + ||G^T phi|| (||R|| ||x|| + ||G|| ||r||) + ||R|| ||phi G x||``, phi = F of the Gram matrix."""
    L, V = np.linalg.eigh(p.G @ p.G.T)
    on = max(p.cutoff * L[-1], 0.0) < L
    F, _ = eigen.weights(np.sqrt(L[on]), p.eps, *p.G.shape)
    norm = np.linalg.norm
    left = float(np.max(F * np.sqrt(L[on]), initial=0.0))
    inside = float(norm(F * (V[:, on].T @ (p.G @ p.x))))
    return float(norm(r) / p.eps + left * (norm(R) * norm(p.x) + norm(p.G) * norm(r)) + norm(R) * inside) * 2
