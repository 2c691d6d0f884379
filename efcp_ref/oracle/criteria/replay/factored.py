"""Judges one step of low-rank M-FAC (Algorithms 5 and 6) from the state before it, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.core import FAIL, PASS, Check, Unit, unit_of
from efcp_ref.oracle.criteria import low_rank
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay.directions import Window, direction
from efcp_ref.oracle.criteria.replay.run import Checks, Run, State, cut, layers, starts
from efcp_ref.oracle.criteria.replay.steps import others, ring
from efcp_ref.oracle.exact import Product, add, negative, pair, product, two_sum
from efcp_ref.paper._validate import Array


def low_rank_mfac(run: Run, t: int, before: State, after: State) -> Checks:
    """Per layer the invariants of Algorithm 5 and the residual; then the ring, S and u of Algorithm 6."""
    i, each = int(before["row"]), layers(run)
    yield from _factors(run, t, before, after)
    yield ring(run, before, after, [f"{factor}{l}" for l in range(len(each)) for factor in "PQ"], "6:6")
    yield from _inner_products(run, before, after)
    (G, size), old = (rebuilt(run, state) for state in (after, before))
    terms = max(p1 * p2s for p1, p2s, _ in each) + sum(2 * r + r * r + 2 for *_, r in each)
    window = Window(G, size, G[i], size[i], terms, 1 + max(r for *_, r in each))
    yield direction(run, t, window, t0.wide(after["S"]), old[0], line="6:14")


def _factors(run: Run, t: int, before: State, after: State) -> Checks:
    i, a = int(before["row"]), two_sum(t0.wide(before["xi"]), run.gradients[t])
    rows = [(after[f"P{l}"][i], after[f"Q{l}"][i]) for l in range(len(layers(run)))]
    left = cut(run, t0.wide(after["xi"]))
    parts = zip(cut(run, a.hi), left, rows, starts(run, before), run.p["shapes"], strict=True)
    for M, xi, (P, Q_new), Q, shape in parts:
        unit = max((unit_of(x, run.declared) for x in (P, Q_new, after["xi"])), key=lambda unit: unit.u)
        if len(shape) > 1:
            yield from low_rank.factors(M, Q, P, Q_new, unit, run.declared, roundings=2)
        yield _residual(M, xi, t0.wide(P), t0.wide(Q_new), unit, len(shape) == 1)


def _residual(M: Array, xi: Array, P: Array, Q: Array, unit: Unit, whole: bool) -> Check:
    """``|xi' - (a - P Q'^T)| <= (rho + 3) u (|a| + |P||Q'|^T)``; a vector is stored whole (1:7)."""
    c = product(P, Q.T, unit.u < 2.0**-30)
    size = np.abs(M) + c.magnitude
    rule = "|xi' - (a - P Q'^T)| <= (rho + 3) u (|a| + |P||Q'|^T)"
    bound = (P.shape[1] + 3) * (unit.u * size + unit.tiny)
    check = t0.forward(
        "xi", "1:7", rule, xi, add(M, negative(c.value)), bound, error=c.error,
        truth=lambda: enclose.residual(M, P, Q),
    )  # fmt: skip
    if whole and check.verdict == PASS:
        rule, bound = "a vector is stored whole (R25)", 3 * unit.u * np.abs(M) + unit.tiny
        return t0.forward("c", "1:6", rule, c.value.hi, M, bound, truth=lambda: enclose.given(M))
    return check


def _inner_products(run: Run, before: State, after: State) -> Checks:
    """``|S_ij - sum_l Tr(g_i^T g_j)| <= sum_l (p1 p2 + 2 rho + rho^2 + L) u sum |.|``, row and column i."""
    i, S = int(before["row"]), after["S"]
    unit = max(run.unit, unit_of(S, run.declared), key=lambda unit: unit.u)
    value, (bound, size, error) = pair(np.zeros(len(S))), np.zeros((3, len(S)))
    alone = []  # what S would be if each layer overwrote those before it
    for trace, n, lost in _traces(run, after, i, unit):
        own = n * unit.u * trace.magnitude
        alone.append(bool(np.all(np.abs(t0.wide(S[i]) - trace.value.hi) <= own)))
        value, bound, size = add(value, trace.value), bound + own + n * lost, size + trace.magnitude
        error = error + trace.error
    rule = "|S_i - sum of the layers' inner products| <= (p1 p2 + 2 rho + rho^2 + L) u sum |.|"
    row, column = (
        t0.forward("S", "6:11", rule, got, value, bound, magnitude=size, error=error,
                   truth=lambda: enclose.traces(_stored(run, after, i)))
        for got in (S[i], S[:, i])
    )
    if row.verdict == FAIL and any(alone):
        row = replace(row, line="6:8", reason="one layer alone: the sum over the layers is overwritten (R26)")
    yield from (row, column, others(before["S"], S, i, "6:11"))


def _stored(run: Run, state: State, i: int) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Of every layer: all rows, and row i."""
    for l in range(len(layers(run))):
        P, Q = t0.wide(state[f"P{l}"]), t0.wide(state[f"Q{l}"])
        yield P, Q, P[i], Q[i]


def _traces(run: Run, state: State, i: int, unit: Unit) -> Iterator[tuple[Product, int, float]]:
    """Of every layer: Tr(g_r^T g_i) for all rows r, (m,); the roundings in it; what one may lose to underflow."""
    for l, (p1, p2s, rho) in enumerate(layers(run)):
        P, Q = t0.wide(state[f"P{l}"]), t0.wide(state[f"Q{l}"])
        trace = low_rank.inner_product(P, Q, P[i], Q[i], precise=unit.u < 2.0**-30)
        lost = unit.tiny * (1 + np.abs(P).sum() + np.abs(Q).sum())
        yield trace, p1 * p2s + 2 * rho + rho * rho + len(layers(run)), float(lost)


def rebuilt(run: Run, state: State) -> tuple[Array, Array]:
    """The window written out, (m, d), and ``|P||Q|^T``, what its rounding goes by."""
    m, parts = int(run.p["m"]), []
    for l in range(len(layers(run))):
        P, Q = t0.wide(state[f"P{l}"]), t0.wide(state[f"Q{l}"]).transpose(0, 2, 1)
        parts.append(((P @ Q).reshape(m, -1), (np.abs(P) @ np.abs(Q)).reshape(m, -1)))
    G, size = zip(*parts, strict=True)
    return np.concatenate(G, axis=1), np.concatenate(size, axis=1)
