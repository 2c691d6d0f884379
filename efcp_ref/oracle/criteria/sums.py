"""Criteria of the scalar products (SP, Algorithm 2) and the linear combination of gradients (LCG, Algorithm 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose, exact
from efcp_ref.oracle.certify import Truth
from efcp_ref.oracle.core import PASS, Case, Check, Declared
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.structure import Precision
from efcp_ref.oracle.exact import Pair, Product
from efcp_ref.paper._validate import Array

_EXACT = "{0} = the exact sum (integers times a power of two)"


def sp(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``|omega_r - sum_j v_rj g_i| <= k u sum_j |v_rj g_i| + k 2^-149``, any order (Jeannerod & Rump 2013)."""
    checks = t0.outputs(case, result, {"omega": (len(case.arguments["indices"]),)})
    return (
        *checks,
        *([] if t0.broken(checks) else least(_sp(c, result, declared) for c in t0.storages(case, declared, "values"))),
    )


def _sp(case: Case, result: Mapping[str, Any], declared: Declared) -> list[Check]:
    indices, values = np.asarray(case.arguments["indices"]).astype(np.int64), t0.wide(case.arguments["values"])
    g, omega = t0.wide(case.arguments["g"])[indices], np.asarray(result["omega"])
    p = t0.precision(declared, omega)
    terms = values * g  # (m, k) exact
    sums = exact.total(terms) if p.precise else plain(terms)
    n = np.count_nonzero(terms, axis=1)
    operands = (np.abs(values) + np.abs(g)).sum(axis=1) if p.daz else 0.0
    fits = "exact" in case.flags and exact.adds_exactly(terms, sums.magnitude, p.unit.u)
    return dot("omega", "2:11", omega, sums, n, p, operands, fits, lambda: enclose.dots(values, g))


def lcg(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """``|omega_i - sum_r c_r v_ri| <= n_i u sum_r |c_r v_ri| + n_i 2^-149``; exactly 0 where no row holds i (3:27)."""
    checks = t0.outputs(case, result, {"omega": (int(case.arguments["d"]),)})
    return (
        *checks,
        *([] if t0.broken(checks) else least(_lcg(c, result, declared) for c in t0.storages(case, declared, "values"))),
    )


def _lcg(case: Case, result: Mapping[str, Any], declared: Declared) -> list[Check]:
    indices, values = np.asarray(case.arguments["indices"]).astype(np.int64), t0.wide(case.arguments["values"])
    c, omega = t0.wide(case.arguments["c"]), np.asarray(result["omega"])
    p, d = t0.precision(declared, omega), len(omega)
    terms = c[:, None] * values  # (m, k) exact
    sums = scattered(indices, terms, d, p.precise)
    n = np.bincount(indices[terms != 0], minlength=d)
    operands = np.bincount(indices.ravel(), (np.abs(c)[:, None] + np.abs(values)).ravel(), d) if p.daz else 0.0
    fits = "exact" in case.flags and exact.adds_exactly(terms, sums.magnitude, p.unit.u)
    return [
        untouched("omega", "3:27", omega, np.bincount(indices.ravel(), minlength=d) == 0),
        *dot("omega", "3:20", omega, sums, n, p, operands, fits, lambda: enclose.scattered(indices, c, values, d)),
    ]


def untouched(stage: str, line: str, got: Array, empty: Array) -> Check:
    """``got_i = 0`` exactly on coordinates that nothing may touch. T0."""
    rule = f"{stage}_i = 0 where no row holds coordinate i"
    wrong = empty & ~(t0.wide(got) == 0)
    if not wrong.any():
        return t0.passed(stage, "T0", line, rule)
    i = int(np.argmax(wrong))
    return t0.failed(
        stage,
        "T0",
        line,
        rule,
        f"{stage}[{i}] is {float(got[i]):g}, no row holds it",
        (i,),
        got=float(got[i]),
        expected=0.0,
        bound=0.0,
    )


def plain(terms: Array) -> Product:
    """Sum the last axis in binary64: ``|error| <= n 2^-53 sum |terms|``."""
    magnitude = np.abs(terms).sum(axis=-1)
    return Product(exact.pair(terms.sum(axis=-1)), terms.shape[-1] * 2.0**-53 * magnitude, magnitude)


def scattered(indices: Array, terms: Array, d: int, precise: bool) -> Product:
    """Add terms (m, k) to the coordinates of indices (m, k), distinct within a row; in pairs where ``precise``."""
    flat, magnitude = indices.ravel(), np.bincount(indices.ravel(), np.abs(terms).ravel(), d)
    if not precise:
        return Product(exact.pair(np.bincount(flat, terms.ravel(), d)), len(terms) * 2.0**-53 * magnitude, magnitude)
    hi, lo = np.zeros(d), np.zeros(d)
    for at, row in zip(indices, terms, strict=True):
        hi[at], lo[at] = exact.add(Pair(hi[at], lo[at]), row)
    return Product(Pair(hi, lo), len(terms) * 2.0**-103 * magnitude, magnitude)


def dot(
    stage: str, line: str, got: Array, sums: Product, n: Any, p: Precision, operands: Any = 0.0, fits: bool = False,
    truth: Truth | None = None,
) -> list[Check]:  # fmt: skip
    """The dot criterion: T1 where every partial sum fits, T2 ``n u sum |v x| + n tiny``, T3 ``min(n, 6 sqrt n)``.

    Args:
        stage, line, got: what is judged.
        sums: reference, certified error, sum of absolute terms.
        n: nonzero products per element.
        p: precision of the result.
        operands: sum of |v_j| + |x_j|, lost where denormals are zero.
        fits: whether tier T1 applies.
        truth: encloses the sums.
    """
    name = "(h + 1)" if p.depth is not None else "n_i" if line == "3:20" else "k"
    if fits and p.store is None and not (p.ftz or p.daz):
        return [t0.equal(stage, line, _EXACT.format(stage), got, sums.value, truth=truth)]
    checks: list[Check] = []
    steps = p.roundings(n)
    for tier, factor, text in (
        ("T2", steps, name),
        ("T3", np.minimum(steps, 6 * np.sqrt(steps)), f"min({name}, 6 sqrt)"),
    ):
        if tier == "T3" and (np.all(factor == steps) or checks[-1].verdict != PASS):
            continue
        bound = p.stored(factor * p.unit.u * sums.magnitude + p.tiny(n, operands), sums.value)
        rule = f"|{stage} - sum v x| <= {text} u sum |v x| + {text} tiny"
        checks.append(
            t0.forward(
                stage,
                line,
                rule,
                got,
                sums.value,
                bound,
                tier=tier,
                magnitude=sums.magnitude,
                error=sums.error,
                largest=p.largest,
                truth=truth,
            )
        )
    return checks


def least(attempts: Any) -> list[Check]:
    """The first attempt that does not fail, else the first: a window as given, or rounded to the declared storage."""
    tried = []
    for checks in attempts:
        tried.append(checks)
        if not t0.broken(checks):
            return checks
    return tried[0]
