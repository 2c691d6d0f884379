"""Judges Algorithm 5 (PowerCompress) by its invariants and the inner product of appendix I by a forward bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.certify import audit
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, Case, Check, Declared, Unit, unit_of
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.eigen import finite
from efcp_ref.oracle.exact import Pair, Product, add, adds_exactly, negative, pair, product, step_of, times, total
from efcp_ref.paper._validate import Array

POWER = {"householder": 0, "svd": 0, "cgs2": 0, "mgs": 1, "cgs": 2}  # of cond(M Q) in the loss of orthogonality


def power_compress(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge P = orth(M Q), Q' = M^T P by three invariants; P itself is free up to a rotation and any completion.

    (i) ``||P^T P - I||_F <= 8 p rho u cond(M Q)^j``, j = 0 for Householder, SVD, CGS2, 1 for MGS, 2 for CGS;
    (ii) ``||(I - P P^T) M Q||_F <= q u || |M||Q| ||_F + 8 p rho u ||M Q||_F + ||P^T P - I|| ||M Q||_F``;
    (iii) ``|Q' - M^T P| <= p u |M|^T |P|`` with its own P (tolerances: power iteration; Björck 1967).
    """
    g, Q = (np.asarray(case.arguments[n], np.float64) for n in ("g", "Q"))
    M = g.reshape(len(g), -1)  # (p1, p2s)
    shapes = {"P": (M.shape[0], Q.shape[1]), "Q": Q.shape}
    checks = t0.outputs(case, result, shapes)
    if t0.broken(checks) or t0.broken(checks := [*checks, *finite(result, shapes, "5:6")]):
        return tuple(checks)
    P, Q_new = (np.asarray(result[n]) for n in ("P", "Q"))
    unit = max(unit_of(P, declared), unit_of(Q_new, declared), key=lambda unit: unit.u)
    return (*checks, *factors(M, Q, P, Q_new, unit, declared))


def factors(
    M: Array, Q: Array, P: Array, Q_new: Array, unit: Unit, declared: Declared, roundings: int = 0,
    weight: Array | None = None,
) -> tuple[Check, ...]:  # fmt: skip
    """Judge one pair of factors of M (p1, p2s): the invariants (i), (ii), (iii) of `power_compress`, in this order.

    ``roundings``: how many times the entries of M were rounded before, each one more ``u |M|``.
    ``weight``: takes the place of |M| in the bounds, where M is a mean and products were summed before it was taken.
    """
    weight = np.abs(M) if weight is None else weight
    orthonormal = _orthonormal(M @ Q, P, unit, declared)
    within = _range(M, Q, P, unit, orthonormal, roundings, weight)
    return (orthonormal, within, *_right(M, P, Q_new, unit, roundings, weight))


def _precise(unit: Unit) -> bool:
    """Whether binary64 is too coarse to judge by: its rounding is 2^-29 of float32's."""
    return unit.u < 2.0**-30


def _orthonormal(MQ: Array, P: Array, unit: Unit, declared: Declared) -> Check:
    """``||P^T P - I||_F <= 8 p rho u cond(M Q)^j``; undecided where that exceeds 0.1 (tolerances: power iteration)."""
    p, rho = P.shape
    P64 = t0.wide(P)
    loss = float(np.linalg.norm(add(product(P64.T, P64, _precise(unit)).value, -np.eye(rho)).hi))
    strict, cond = 8 * p * rho * unit.u, _condition(MQ)
    name = (declared.orthogonalisation or "mgs").lower()
    allowed = strict * cond ** POWER.get(name, 1)
    check = Check(
        "P",
        "T2",
        "5:4",
        "||P^T P - I||_F <= 8 p rho u cond(M Q)^j",
        loss / allowed,
        bound=allowed,
        got=loss,
        expected=0.0,
    )
    check = audit(check, loss, strict, lambda: enclose.frobenius(P64.T, P64, less=np.eye(rho)), gap=True)
    if check.verdict == INCONCLUSIVE:
        return check
    if loss <= strict or (loss <= allowed <= 0.1):
        return check
    if 0.0 < float(np.abs(MQ).max(initial=0.0)) ** 2 < unit.normal * 2.0**24:
        return replace(check, verdict=INCONCLUSIVE, reason="underflow")
    if allowed > 0.1:
        return replace(check, verdict=INCONCLUSIVE, reason="M Q is too ill conditioned for this orthogonalisation")
    if declared.orthogonalisation is None and loss <= strict * cond**2 <= 0.1:
        return replace(check, verdict=INCONCLUSIVE, reason="orthogonalisation class: declare ORTHOGONALISATION = 'cgs'")
    return replace(check, verdict=FAIL, reason=f"the columns of P are not orthonormal: ||P^T P - I|| = {loss:.3g}")


def _condition(A: Array) -> float:
    s = np.linalg.svd(A, compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > s[0] * 2.0**-60 else np.inf


def _range(M: Array, Q: Array, P: Array, unit: Unit, orthonormal: Check, roundings: int, weight: Array) -> Check:
    """``||(I - P P^T) M Q||_F <= q u || |M||Q| ||_F + 8 p rho u ||M Q||_F + ||P^T P - I|| ||M Q||_F``: P spans M Q."""
    p, rho = P.shape
    P64, MQ, precise = t0.wide(P), product(M, Q, _precise(unit)).value, _precise(unit)
    inside = product(P64.T, MQ.hi, precise).value  # (rho, rho)
    outside = float(np.linalg.norm(add(MQ, negative(product(P64, inside.hi, precise).value)).hi))
    size, loss = float(np.linalg.norm(MQ.hi)), orthonormal.got or 0.0
    bound = (Q.shape[0] + roundings) * (
        unit.u * float(np.linalg.norm(weight @ np.abs(Q))) + np.sqrt(p * rho) * unit.tiny
    )
    bound += (8 * p * rho * unit.u + 1.2 * loss) * size
    check = Check(
        "P",
        "T2",
        "5:3",
        "||(I - P P^T) M Q||_F within rounding",
        outside / bound if bound else 0.0,
        bound=bound,
        got=outside,
        expected=0.0,
    )
    check = audit(check, outside, bound, lambda: enclose.outside(P64, M, Q), gap=True)
    if check.verdict == INCONCLUSIVE:
        return check
    if outside > bound:
        return replace(check, verdict=FAIL, reason="P does not span M Q")
    return replace(check, verdict=INCONCLUSIVE, reason="vacuous") if 0 < size <= bound else check


def _right(M: Array, P: Array, Q_new: Array, unit: Unit, roundings: int, weight: Array) -> tuple[Check, ...]:
    """``|Q' - M^T P| <= p u |M|^T |P| + p 2^-149``, with the target's own P; ``6 sqrt p`` in place of p warns (T3)."""
    p, expected, size = len(P), product(M.T, t0.wide(P), _precise(unit)), weight.T @ np.abs(t0.wide(P))
    return tuple(
        t0.forward("Q", "5:5", rule, Q_new, expected.value, (n + roundings) * (unit.u * size + unit.tiny),
                   tier=tier, magnitude=size, error=expected.error,
                   truth=lambda: enclose.product(M.T, t0.wide(P)))
        for tier, rule, n in (
            ("T2", "|Q' - M^T P| <= p u |M|^T |P|", p),
            ("T3", "|Q' - M^T P| <= min(p, 6 sqrt p) u |M|^T |P|", min(p, 6 * np.sqrt(p))),
        )
    )  # fmt: skip


def low_rank_inner_product(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge Tr((P1 Q1^T)^T P2 Q2^T), in whatever order it was summed.

    ``|got - ref| <= (p1 p2 + rho1 + rho2 + rho1 rho2) u sum((|P1||Q1|^T) o (|P2||Q2|^T))``: covers the small products
    of appendix I as well as the order that rebuilds the matrices. Equality where every partial sum is exact.
    """
    factors = [t0.wide(case.arguments[n]) for n in ("P1", "Q1", "P2", "Q2")]
    checks = t0.outputs(case, result, {"product": ()})
    if t0.broken(checks) or t0.broken(checks := [*checks, *finite(result, ("product",), "6:8")]):
        return tuple(checks)
    P1, Q1, P2, Q2 = factors
    got, trace = np.asarray(result["product"]), inner_product(P1, Q1, P2, Q2)

    def truth() -> enclose.Enclosed:
        return enclose.traces([(P1[None], Q1[None], P2, Q2)])

    unit = unit_of(got, declared)
    (p1, rho1), (p2, rho2) = factors[0].shape, factors[3].shape
    if "exact" in case.flags and adds_exactly(_terms(*factors), trace.magnitude, unit.u):
        rule = "equal: every partial sum is exact"
        checks.append(t0.equal("product", "6:8", rule, got, trace.value, truth=truth))
    n = p1 * p2 + rho1 + rho2 + rho1 * rho2
    for tier, count in (("T2", n), ("T3", min(n, 6 * np.sqrt(n)))):
        bound = count * unit.u * trace.magnitude + _underflow(factors, unit)
        rule = "|got - ref| <= (p1 p2 + rho1 + rho2 + rho1 rho2) u sum |.|"
        checks.append(
            t0.forward(
                "product", "6:8", rule, got, trace.value, bound, tier=tier, magnitude=trace.magnitude,
                error=trace.error, truth=truth,
            )
        )
    return tuple(checks)


def inner_product(P1: Array, Q1: Array, P2: Array, Q2: Array, precise: bool = True) -> Product:
    """Return Tr((P1 Q1^T)^T P2 Q2^T) = sum((P1^T P2) o (Q1^T Q2)), in pairs, or in binary64 if that is enough.

    P1 and Q1 may be stacks (m, p, rho): one call then gives all m numbers.
    """
    left, right = _crossed(P1, P2, precise), _crossed(Q1, Q2, precise)
    magnitude = np.sum(left.magnitude * right.magnitude, axis=-1)
    error = np.sum(left.error * right.magnitude + left.magnitude * right.error, axis=-1) + 2.0**-100 * magnitude
    if not precise:
        terms = left.value.hi * right.value.hi
        return Product(pair(terms.sum(axis=-1)), error + 2.0**-52 * (terms.shape[-1] + 1) * magnitude, magnitude)
    high, low = times(left.value, right.value.hi), left.value.hi * right.value.lo
    summed = total(np.concatenate([high.hi, high.lo + low], axis=-1))
    return Product(summed.value, summed.error + error, magnitude)


def _crossed(A: Array, B: Array, precise: bool) -> Product:
    """A^T B of one matrix or a stack of them, each flattened: (..., rho1 rho2)."""
    across = np.swapaxes(A, -1, -2)  # (..., rho1, p)
    shape = (*across.shape[:-2], across.shape[-2] * B.shape[1])
    value, error, magnitude = product(across.reshape(-1, across.shape[-1]), B, precise)
    return Product(Pair(*(v.reshape(shape) for v in value)), error.reshape(shape), magnitude.reshape(shape))


def _terms(P1: Array, Q1: Array, P2: Array, Q2: Array) -> Array:
    """The products that are added, as multiples of the steps of the four factors."""
    steps = [step_of(A) for A in (P1, Q1, P2, Q2)]
    return np.array([np.prod(steps) if np.isfinite(steps).all() else 0.0])


def _underflow(factors: list[Array], unit: Unit) -> float:
    """What products that underflow add, in either order: half the smallest subnormal each, times what multiplies it."""
    P1, Q1, P2, Q2 = factors
    p1, p2 = len(P1), len(Q1)
    small = p1 * np.abs(Q1.T @ Q2).sum() + p2 * (np.abs(P1).T @ np.abs(P2)).sum()
    rebuilt = P1.shape[1] * (np.abs(P2) @ np.abs(Q2).T).sum() + P2.shape[1] * (np.abs(P1) @ np.abs(Q1).T).sum()
    return unit.tiny * (small + rebuilt + p1 * p2 + P1.shape[1] * P2.shape[1])
