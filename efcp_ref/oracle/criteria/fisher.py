"""Criteria of the damped Fisher inverse times a vector, F = lam I + G^T G / m: `wsm` and the two M-FAC directions.

Notation: M = m lam I + S (m, m), w = lam c, so that M w = h and u = x/lam - c G = (x - G^T w)/lam. L is the Cholesky
factor of M. Where S, h, c are shown each stage is judged given the target's own stages before it; where they are not,
the last bound carries what their roundings can do to u.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose, exact
from efcp_ref.oracle.core import FAIL, Case, Check, Declared
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.structure import Precision
from efcp_ref.oracle.criteria.sums import dot, least
from efcp_ref.oracle.exact import Pair, Product
from efcp_ref.paper._validate import Array

NOISE = "lam below the noise"
CLASS = "solver class"
STORED = 'reading R4: the number of stored gradients in place of m; add READINGS = {"R4": "stored"}'
_SOLVE = "|h - M w| <= (3m+10) u (|L||L^T||w|) + 4u |h| + underflow, M = m lam I + S, w = lam c"
_COMBINE = "|u - (x/lam - c G)| <= {0} u (|x|/lam + |G|^T |c|) + underflow"
_ALONE = (
    "|u - ref| <= (|G^T M^-1| (k u |G||x| + k u |G||G|^T |w| + (3m+10) u |L||L^T||w|)"
    " + (m+4) u (|x| + |G|^T |w|)) / lam + 2u |ref|"
)
_OFF = "u_i = x_i / lam within 2 ulp off the support of the window"


def wsm(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``|y - F^-1 x| <=`` the bound of `_System.alone`, from the exact S, h and c of eq. (2) (section 2.2)."""
    return _judge(case, result, declared, "G", {"y": np.shape(case.arguments["x"])}, ("y", "W:2"))


def mfac_direction(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """S: ``k u |G||G|^T``; h: ``k u |G||x|``; c: `_System.solved`; u: ``(m+4) u (|x|/lam + |G|^T |c|)`` (eq. (2))."""
    m, d = np.shape(case.arguments["G"])
    return _judge(case, result, declared, "G", {"S": (m, m), "h": (m,), "c": (m,), "u": (d,)}, ("u", "W:4"))


def sparse_mfac_direction(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """The inequalities of `mfac_direction`, ``k u |G||G|^T`` first, on the densified window (section 3.1)."""
    m, d = len(case.arguments["values"]), int(case.arguments["d"])
    return _judge(case, result, declared, "values", {"S": (m, m), "h": (m,), "c": (m,), "u": (d,)}, ("u", "W:4"))


def excused(case: Case, declared: Declared, u: float) -> bool:
    """A solver error raised on this case is rounding: its window is `indefinite`, as it is or as it is stored."""
    rows = "G" if "G" in case.arguments else "values"
    lam = float(case.arguments["lam"])
    return any(indefinite(_window(c, False).G, lam, u, declared) for c in t0.storages(case, declared, rows))


def indefinite(G: Array, lam: float, u: float, declared: Declared) -> bool:
    """``lambda_min(D^-1/2 M D^-1/2) <= (2m(m+1) + m k) u`` or ``m lam <= u max S_ii``: Cholesky may fail (Demmel).

    ``m k u`` is what the rounding of S may do, k terms in one entry, in the scaled matrix. R4: m or the number stored.
    """
    window = Window(G, lam, np.zeros(G.shape[1]), False)
    S, said = window.S.value.hi, declared.readings.get("R4", "stored")
    shift = lam * (max(window.stored, 1) if said == "stored" else len(G))
    noise = shift <= u * S.diagonal().max(initial=0.0)
    return bool(noise or _breaks_down(S + shift * np.eye(len(S)), u, float(window.overlap.max(initial=0.0))))


@dataclass(frozen=True)
class Window:
    """The dense window with what its criteria need, each computed once; ``precise`` asks for more than binary64."""

    G: Array  # (m, d)
    lam: float
    x: Array  # (d,)
    precise: bool

    @cached_property
    def S(self) -> Product:
        """G G^T."""
        return exact.product(self.G, None, self.precise)

    @cached_property
    def h(self) -> Product:
        """G x."""
        p = exact.product(self.G, self.x[:, None], self.precise)
        return Product(Pair(p.value.hi[:, 0], p.value.lo[:, 0]), p.error[:, 0], p.magnitude[:, 0])

    @cached_property
    def overlap(self) -> Array:
        """Nonzero products in every entry of S, (m, m)."""
        held = (self.G != 0).astype(np.float32)
        return np.full((len(held),) * 2, float(held.shape[1])) if held.all() else (held @ held.T).astype(np.float64)

    @cached_property
    def terms(self) -> Array:
        """Nonzero products in every entry of h, (m,)."""
        return ((self.G != 0) & (self.x != 0)).sum(axis=1).astype(np.float64)

    @cached_property
    def stored(self) -> int:
        """Gradients stored: rows that are not zero (R4)."""
        return int(self.G.any(axis=1).sum())

    @cached_property
    def support(self) -> Array:
        """Coordinates that some gradient touches, (d,)."""
        return np.asarray(self.G.any(axis=0))


def _window(case: Case, precise: bool) -> Window:
    a = case.arguments
    if "G" in a:
        G = t0.wide(a["G"])
    else:
        values, indices = t0.wide(a["values"]), np.asarray(a["indices"]).astype(np.int64)
        G = np.zeros((len(values), int(a["d"])))
        np.put_along_axis(G, indices, values, axis=1)
    return Window(G, float(a["lam"]), t0.wide(a["x"]), precise)


def _judge(
    case: Case,
    result: Mapping[str, Any],
    declared: Declared,
    rounded: str,
    shapes: Mapping[str, tuple[int, ...]],
    last: tuple[str, str],
) -> tuple[Check, ...]:
    checks = t0.outputs(case, result, shapes)
    if t0.broken(checks):
        return tuple(checks)
    given = {n: np.asarray(result[n]) for n in shapes if result.get(n) is not None}
    return (*checks, *least(_readings(_Run(c, given, declared, *last)) for c in t0.storages(case, declared, rounded)))


def _readings(run: _Run) -> list[Check]:
    """Judge by the declared reading of R4; undeclared, agreement with the other one is inconclusive."""
    m, stored = len(run.window.G), max(run.window.stored, 1)
    said = run.declared.readings.get("R4")
    checks = run.checks(stored if said == "stored" else m)
    if said is not None or stored == m or not t0.broken(checks) or t0.broken(run.checks(stored)):
        return checks
    return [t0.undecided(c.stage, c.tier, c.line, c.rule, STORED) if c.verdict == FAIL else c for c in checks]


@dataclass(frozen=True)
class _Run:
    """One result under judgement."""

    case: Case
    given: Mapping[str, Array]  # the stages that are shown, and u (or y)
    declared: Declared
    last: str  # name of the direction: u, y
    line: str

    @cached_property
    def window(self) -> Window:
        return _window(self.case, any(self.precision(n).precise for n in self.given))

    @property
    def exact(self) -> bool:
        return "exact" in self.case.flags

    def precision(self, *names: str) -> Precision:
        """Precision of the coarsest of these results, those that are shown."""
        return t0.precision(self.declared, *(self.given[n] for n in names if n in self.given))

    @cached_property
    def dots(self) -> list[Check]:
        """Stages S and h: the dot criterion."""
        w, checks = self.window, []
        size = np.abs(w.G)
        for name, line, sums, n in (("S", "W:5", "S", "overlap"), ("h", "W:3", "h", "terms")):
            if name in self.given:
                p, reference = self.precision(name), getattr(w, sums)
                operands = (
                    (size.sum(axis=1) + (size.sum(axis=1)[:, None] if name == "S" else np.abs(w.x).sum()))
                    if p.daz
                    else 0.0
                )
                fits = self.exact and _fits(w, name, reference, p)
                truth = partial(self._sums, name)
                checks += dot(name, line, self.given[name], reference, getattr(w, n), p, operands, fits, truth)
        return checks

    def _sums(self, name: str) -> enclose.Enclosed:
        """S or h, enclosed."""
        G, x = self.window.G, self.window.x
        inside = G.any(axis=0)
        if name == "S":
            return enclose.product(G[:, inside], G[:, inside].T)
        return enclose.dots(G[:, inside], np.broadcast_to(x[inside], (len(G), int(inside.sum()))))

    def enclosed(self, count: int = 0) -> enclose.System:
        """M w = h for enclosures, from the target's own S and h where shown."""
        w, own = self.window, {n: t0.wide(self.given[n]) for n in ("S", "h") if n in self.given}
        return enclose.System(w.G, w.x, w.lam, count, own.get("S"), own.get("h"))

    def checks(self, count: int) -> list[Check]:
        """All stages, ``count`` standing for m in m lam (R4)."""
        checks, system = list(self.dots), _System(self, count)
        finite = all(np.isfinite(t0.wide(self.given[n])).all() for n in ("S", "h") if n in self.given)
        if not finite:
            return checks if t0.broken(checks) else [*checks, t0.undecided("c", "T2", "W:3", _SOLVE, "overflow")]
        if "c" not in self.given:
            return [*checks, *system.alone(), *self.off_support()]
        checks.append(system.solved())
        if not np.isfinite(t0.wide(self.given["c"])).all():
            return checks
        return [*checks, *self.combined(system.identity), *self.off_support()]

    def combined(self, identity: bool) -> list[Check]:
        """``|u - (x/lam - c G)|_i <= (m+4) u (|x_i|/lam + (|G|^T|c|)_i)`` with its own c, plus underflow."""
        w, p, c, u = self.window, self.precision("c", "u"), t0.wide(self.given["c"]), self.given[self.last]
        p, m = replace(p, store=None, unit=p.store or p.unit), len(w.G)
        reference, magnitude, error = _combination(w, exact.pair(c), None)
        if self.exact and identity and _dyadic(w.lam):
            terms = np.vstack([c[:, None] * w.G, w.x / w.lam])
            if exact.adds_exactly(terms, magnitude, p.unit.u):
                rule = "u = x/lam - c G exactly (M = 4^p I)"
                return [t0.equal(self.last, self.line, rule, u, reference, truth=partial(self.enclosed().direction, c))]
        checks: list[Check] = []
        for tier, n, text in (("T2", m + 4, "(m+4)"), ("T3", min(m + 4, 6 * (m + 4) ** 0.5), "min(m+4, 6 sqrt)")):
            if tier == "T3" and (n == m + 4 or t0.broken(checks)):
                continue
            bound = n * p.unit.u * magnitude + (m + 2) * _tiny(p) * (1 + max(1.0, 1 / w.lam))
            checks.append(
                t0.forward(
                    self.last,
                    self.line,
                    _COMBINE.format(text),
                    u,
                    reference,
                    bound,
                    tier=tier,
                    magnitude=magnitude,
                    error=error,
                    largest=p.largest,
                    truth=partial(self.enclosed().direction, c),
                )
            )
        return checks

    def off_support(self) -> list[Check]:
        """``u_i = x_i / lam`` within 2 ulp where no gradient touches i; a dense solve of F (declared) is excepted."""
        w, p, u = self.window, self.precision(self.last), t0.wide(self.given[self.last])
        off = ~w.support & np.isfinite(u)
        if not off.any() or self.declared.solver == "dense":
            return []
        reference = exact.divide(exact.pair(w.x), w.lam)
        with np.errstate(divide="ignore"):
            ulp = 2 * p.unit.u * 2.0 ** np.floor(np.log2(np.abs(reference.hi)))
        bound = p.stored(2 * ulp + 2 * _tiny(p) * (1 + (1 / w.lam if p.daz else 0.0)), reference)
        error = np.where(off, exact.apart(u, reference), 0.0)
        check = t0.bounded(
            self.last, "T2", self.line, _OFF, np.where(off, u, reference.hi), reference, bound, size=np.inf,
            error=error, truth=lambda: enclose.quotient_gap(w.x, w.lam, u, off),
        )  # fmt: skip
        if (
            check.verdict == FAIL
            and self.declared.solver is None
            and "c" not in self.given
            and (error <= 8 * bound).all()
        ):
            return [t0.undecided(self.last, "T2", self.line, _OFF, CLASS)]
        return [check]


@dataclass(frozen=True)
class _System:
    """M w = h: the target's own S and h where shown, else the exact ones with the roundings that they may have."""

    run: _Run
    count: int  # m, or the number of stored gradients (R4)

    @property
    def shift(self) -> float:
        return self.count * self.run.window.lam  # exact: lam is float32-representable

    @cached_property
    def S(self) -> Product:
        """S with the roundings allowed to it in ``magnitude``: zero where it is the target's own."""
        return self._own("S", self.run.window.S, self.run.window.overlap)

    @cached_property
    def h(self) -> Product:
        return self._own("h", self.run.window.h, self.run.window.terms)

    def _own(self, name: str, sums: Product, n: Array) -> Product:
        if name in self.run.given:
            value = exact.pair(t0.wide(self.run.given[name]))
            return Product(value, np.zeros_like(value.hi), np.zeros_like(value.hi))
        p = self.p
        allowed = p.roundings(n) * p.unit.u * sums.magnitude + n * _tiny(p)
        return Product(sums.value, sums.error, p.stored(allowed, sums.value))

    @cached_property
    def p(self) -> Precision:
        """The coarsest precision of the stages, their storage counted as theirs."""
        p = self.run.precision("S", "h", "c", *(() if "c" in self.run.given else (self.run.last,)))
        return replace(p, store=None, unit=p.store or p.unit) if "c" in self.run.given else p

    @cached_property
    def M(self) -> Array:
        return self.S.value.hi + self.shift * np.eye(len(self.S.value.hi))

    @cached_property
    def L(self) -> Array | None:
        return _cholesky(self.M)

    @cached_property
    def identity(self) -> bool:
        """Whether M is 4^p I exactly, so that every symmetric solver is exact (T1)."""
        a = float(self.M[0, 0])
        return bool(
            np.array_equal(self.M, a * np.eye(len(self.M))) and a > 0 and _dyadic(a) and round(np.log2(a)) % 2 == 0
        )

    @cached_property
    def condition(self) -> float:
        """cond_2(M)."""
        low, *_, high = [*(e := np.linalg.eigvalsh(self.M)), e[-1]]
        return float(high / low) if low > 0 else np.inf

    @cached_property
    def condition_F(self) -> float:
        """cond_2(F), F = lam I + G^T G / m, from the eigenvalues that M shares with m F."""
        m, d = self.run.window.G.shape
        e = np.linalg.eigvalsh(self.M)
        return float(e[-1] / (self.shift if m < d else max(e[-d], self.shift)))

    def noise(self) -> bool:
        """Whether m lam <= u max S_ii: lam cannot be told from m lam."""
        return self.shift <= self.p.unit.u * float(self.S.value.hi.diagonal().max(initial=0.0))

    def breaks_down(self) -> bool:
        """Whether a factorisation of M may break down by rounding alone, that of a hidden S counted."""
        hidden = "S" not in self.run.given
        return _breaks_down(self.M, self.p.unit.u, float(self.run.window.overlap.max(initial=0.0)) if hidden else 0.0)

    def factor(self, w: Array, solver: str | None) -> Array:
        """``(3m+10) u (|L||L^T||w|)``; for pivoted LU its own |L||U|."""
        size = (3 * len(w) + 10) * self.p.unit.u
        if solver == "lu":
            from scipy.linalg import lu

            left, right = lu(self.M, permute_l=True)
            return size * (np.abs(left) @ (np.abs(right) @ np.abs(w)))
        L = np.abs(self.L if self.L is not None else 0.0)
        return size * (L @ (L.T @ np.abs(w)))

    def underflow(self) -> Array:
        """``(m+2) 2^-149 (1+lam) (1 + (|L||L^T| e) + |L|_max (|L| e))``: c, too, may be what underflows, or h/lam."""
        L, m = np.abs(self.L), len(self.M)  # type: ignore[arg-type]
        return (m + 2) * _tiny(self.p) * (1 + self.run.window.lam) * (1 + L @ L.sum(axis=0) + L.max() * L.sum(axis=1))

    def solved(self) -> Check:
        """``|h - M w|_i <= (3m+10) u (|L||L^T||w|)_i + 4u|h|_i + (m+2) 2^-149 (...)``, M of its own S, w = lam c."""
        c = t0.wide(self.run.given["c"])
        if self.noise():
            return t0.undecided("c", "T2", "W:3", _SOLVE, NOISE)
        if not np.isfinite(c).all():
            if self.breaks_down():
                return t0.undecided("c", "T2", "W:3", _SOLVE, "indefinite")
            i = int(np.argmin(np.isfinite(c)))
            return t0.failed(
                "c", "T0", "W:3", "finite results", f"c[{i}] is {c[i]}, M is positive definite", (i,), got=float(c[i])
            )
        if self.L is None:
            return t0.undecided("c", "T2", "W:3", _SOLVE, "indefinite")
        if self.run.exact and self.identity and _dyadic(self.run.window.lam):
            return t0.equal(
                "c",
                "W:3",
                "c = h / (4^p lam) exactly (M = 4^p I)",
                c,
                self.h.value.hi / self.M[0, 0] / self.run.window.lam,
                truth=self.run.enclosed(self.count).coefficients,
            )
        return self._residual(c)

    def _residual(self, c: Array) -> Check:
        """The residual test, by the triangle of S that fits best, then by the looser solver classes."""
        w = exact.two_prod(self.run.window.lam, c)
        tried = [(self._gap(S, w), S) for S in _triangles(self.S.value)]
        (gap, certified, size), S = min(tried, key=lambda t: float((t[0][0] / (t[0][2] + 1e-300)).max()))
        enclosed = self.run.enclosed(self.count)
        enclosed = replace(enclosed, S=S.hi) if "S" in self.run.given else enclosed
        h = self.h.value.hi
        own = self.S.magnitude @ np.abs(w.hi) + self.h.magnitude + 4 * self.p.unit.u * np.abs(h) + self.underflow()

        def judged(solver: str | None, times: float) -> Check:
            bound = times * (self.factor(w.hi, solver) + own)
            if solver in ("inverse", "eigh", "dense"):  # accurate in the norm only: a small row answers for the largest
                bound = np.full_like(bound, bound.max())
            return t0.bounded(
                "c", "T2", "W:3", _SOLVE, c, self._expected(), bound, size=size, error=gap, certified=certified,
                truth=lambda: enclosed.residual(c),
            )  # fmt: skip

        return _classes(judged, self.run.declared.solver, self.condition, self.condition)

    def _expected(self) -> Array:
        from scipy.linalg import cho_solve

        return cho_solve((self.L, True), self.h.value.hi) / self.run.window.lam

    def _gap(self, S: Pair, w: Pair) -> tuple[Array, Array, Array]:
        """``|h - M w|``, its certified error and the sum of its absolute terms."""
        r, error, size = self._defect(S, w)
        return np.abs(r.hi + r.lo), error, size

    def _defect(self, S: Pair, w: Pair) -> tuple[Pair, Array, Array]:
        h = self.h.value
        left = np.hstack([S.hi, S.hi, S.lo]) if S.lo.any() else np.hstack([S.hi, S.hi])
        right = np.concatenate([w.hi, w.lo, w.hi] if S.lo.any() else [w.hi, w.lo])
        p = exact.product(left, right[:, None], True)
        r = exact.add(
            exact.add(h, exact.negative(Pair(p.value.hi[:, 0], p.value.lo[:, 0]))),
            exact.negative(exact.times(w, self.shift)),
        )
        size = np.abs(h.hi) + p.magnitude[:, 0] + self.shift * np.abs(w.hi)
        return r, p.error[:, 0] + 2.0**-100 * size + self.S.error @ np.abs(w.hi) + self.h.error, size

    def alone(self) -> list[Check]:
        """``|u - ref| <= (|G^T M^-1| (e_h + e_S |w| + e_w) + (m+4) u (|x| + |G|^T |w|)) / lam + 2u |ref|``.

        ``e_w = (3m+10) u |L||L^T||w|`` is the solve; ``e_h = k u |G||x|`` and ``e_S = k u |G||G|^T`` stand for h and S
        where these are not shown.
        """
        run, window = self.run, self.run.window
        stage, line, u = run.last, run.line, t0.wide(run.given[run.last])
        if self.noise():
            return [t0.undecided(stage, "T2", line, _ALONE, NOISE)]
        if self.L is None:
            return [t0.undecided(stage, "T2", line, _ALONE, "oracle")]
        if not np.isfinite(u).all() and self.breaks_down():
            return [t0.undecided(stage, "T2", line, _ALONE, "indefinite")]
        w, residual = self.solution
        reference, magnitude, error = _combination(window, w, window.lam)
        spread = np.abs(self._inverse(window.G)).T  # (d, m) |G^T M^-1|
        error = error + 1.01 * (spread @ residual) / window.lam
        p, m = self.p, len(self.M)
        own = self.h.magnitude + self.S.magnitude @ np.abs(w.hi) + self.underflow()
        last = (
            (m + 4) * p.unit.u * magnitude
            + 2 * p.unit.u * np.abs(reference.hi)
            + (m + 3) * _tiny(p) * (1 + 1 / window.lam)
        )

        def judged(solver: str | None, times: float) -> Check:
            bound = p.stored(times * (spread @ (own + self.factor(w.hi, solver)) / window.lam + last), reference)
            return t0.forward(
                stage, line, _ALONE, u, reference, bound, magnitude=magnitude, error=error, largest=p.largest,
                truth=run.enclosed(self.count).direction,
            )  # fmt: skip

        return [_classes(judged, run.declared.solver, self.condition, self.condition_F)]

    def _inverse(self, right: Array) -> Array:
        from scipy.linalg import cho_solve

        return cho_solve((self.L, True), right, check_finite=False)

    @cached_property
    def solution(self) -> tuple[Pair, Array]:
        """w = M^-1 h and a bound on |h - M w|; for float64 results refined in pairs until it no longer improves."""
        h, S, m = self.h.value, self.S.value, len(self.M)
        w = exact.pair(self._inverse(h.hi))
        if not self.run.window.precise:
            certified = 2.0**-53 * self.factor(w.hi, None) / self.p.unit.u + self.S.error @ np.abs(w.hi) + self.h.error
            return w, certified + 2.0**-52 * (np.abs(h.hi) + (m + 1) * np.abs(self.M) @ np.abs(w.hi))
        best, bound = w, np.full(m, np.inf)
        for _ in range(8):
            r, error, _ = self._defect(S, w)
            now = np.abs(r.hi) + error
            if now.sum() < bound.sum():
                best, bound = w, now
            if not (np.abs(r.hi) > error).any():
                break
            w = exact.add(w, self._inverse(r.hi))
        return best, bound


def _classes(judged: Any, solver: str | None, cond: float, cond_dense: float) -> Check:
    """The bound of the declared solver class; undeclared, outside the strict and inside a looser one: inconclusive."""
    if solver is not None:
        times = {"inverse": cond, "eigh": cond, "dense": cond_dense}.get(solver, 1.0)
        return judged(solver, times)
    check = judged(None, 1.0)
    if check.verdict != FAIL or check.tier == "T0":
        return check
    if judged("lu", 1.0).verdict != FAIL or judged("eigh", max(cond, cond_dense)).verdict != FAIL:
        return t0.undecided(check.stage, check.tier, check.line, check.rule, CLASS)
    return check


def _combination(w: Window, c: Pair, lam: float | None) -> tuple[Pair, Array, Array]:
    """``x/lam - c G`` (with ``lam`` given: c holds w, ``(x - w G)/lam``), the sum of its absolute terms, its error."""
    rows = np.vstack([w.G, w.G]) if c.lo.any() else w.G
    p = exact.product(np.concatenate([c.hi, c.lo])[None] if c.lo.any() else c.hi[None], rows, w.precise)
    dots, scale = Pair(p.value.hi[0], p.value.lo[0]), lam or 1.0
    first = exact.pair(w.x) if lam else exact.divide(exact.pair(w.x), w.lam)
    value = exact.add(first, exact.negative(dots))
    value = exact.divide(value, lam) if lam else value
    magnitude = (np.abs(first.hi) + p.magnitude[0]) / scale
    return value, magnitude, p.error[0] / scale + 2.0**-100 * magnitude


def _triangles(S: Pair) -> list[Pair]:
    """S as it is, and mirrored from either triangle: a factorisation reads only one of them."""
    if np.array_equal(S.hi, S.hi.T):
        return [S]
    low, high = np.tril(S.hi), np.triu(S.hi)
    return [S, *(exact.pair(t + t.T - np.diag(t.diagonal())) for t in (low, high))]


def _fits(w: Window, name: str, sums: Product, p: Precision) -> bool:
    """Whether every partial sum of S (or h) fits the accumulator: integers times a power of two."""
    step = exact.step_of(w.G) * exact.step_of(w.G if name == "S" else w.x)
    return not np.isfinite(step) or float(sums.magnitude.max(initial=0.0)) <= step / p.unit.u


def _breaks_down(M: Array, u: float, k: float = 0.0) -> bool:
    """``lambda_min(D^-1/2 M D^-1/2) <= (2m(m+1) + m k) u``: Cholesky may fail by rounding alone (Demmel 1989)."""
    root, m = np.sqrt(np.maximum(M.diagonal(), 0.0)), len(M)
    if not root.all():
        return True
    return bool(np.linalg.eigvalsh(M / np.outer(root, root))[0] <= (2 * m * (m + 1) + m * k) * u)


def _cholesky(M: Array) -> Array | None:
    from scipy.linalg import LinAlgError, cholesky

    try:
        return cholesky(M, lower=True)
    except (LinAlgError, ValueError):
        return None


def _dyadic(a: float) -> bool:
    return bool(np.frexp(a)[0] == 0.5)


def _tiny(p: Precision) -> float:
    """What one operation may lose to underflow."""
    return 4 * p.unit.normal if p.ftz or p.daz else p.unit.tiny
