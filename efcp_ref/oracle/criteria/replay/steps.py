"""Judges one step of an optimizer from the state that the target itself dumped before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.core import UNITS, Check, unit_of
from efcp_ref.oracle.criteria import elementwise, selection
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay.directions import Window, direction, ggt
from efcp_ref.oracle.criteria.replay.run import Checks, Run, State
from efcp_ref.oracle.exact import Pair, product
from efcp_ref.paper._validate import Array

ROW_RULE = "row g_{t-m} is replaced by c_t, no other row changes"


# ------------------------------------------------------------------ one optimizer each


def topk_sgd(run: Run, t: int, before: State, after: State) -> Checks:
    """u = c, so that its support and values are the compressed gradient."""
    k, u = int(run.p["k"]), run.u[t]
    said = str(run.declared.arithmetic.get("storage"))
    indices, reason = _support(u, t0.wide(after["xi"]), k, said if said in UNITS else str(u.dtype))
    if reason:
        yield t0.failed("u", "T2", "1:6", "u has k entries", reason)
        return
    yield from _fed_back(run, t, before, indices, u[indices], after["xi"]) if k else ()


def _support(u: Array, xi: Array, k: int, storage: str) -> tuple[Array, str]:
    """Return k positions that hold all of u's nonzero entries, filled with those whose value is zero once it is stored.

    Of these the largest first: an entry that underflows in the storage is sent as zero and stays whole in xi.
    """
    nonzero = np.flatnonzero(t0.wide(u))
    if len(nonzero) > k:
        return nonzero, f"u has {len(nonzero)} nonzero entries, at most {k} may be sent"
    rest = np.flatnonzero(t0.wide(u) == 0)
    left, gone = np.abs(xi[rest]), t0.wide(t0.rounding(xi[rest], storage)) == 0
    rest = rest[np.argsort(np.where(gone, -left, left), kind="stable")][: k - len(nonzero)]
    return np.sort(np.concatenate([nonzero, rest])).astype(np.int32), ""


def dense_mfac(run: Run, t: int, before: State, after: State) -> Checks:
    """The new row is the gradient, the others stay; then S, then u."""
    yield _dense_row(run, t, before, after)
    yield ring(run, before, after, ["G"])
    yield from _mfac(run, t, before, after, t0.wide(after["G"]), t0.wide(before["G"]), run.d)


def sparse_mfac(run: Run, t: int, before: State, after: State) -> Checks:
    """The new row and xi by the criterion of error feedback; then the ring, S and u."""
    yield from _compressed(run, t, before, after)
    yield ring(run, before, after, ["values", "indices"])
    G, old = (written_out(s["indices"], s["values"], run.d) for s in (after, before))
    yield from _mfac(run, t, before, after, G, old, after["values"].shape[1])


def dense_ggt(run: Run, t: int, before: State, after: State) -> Checks:
    """The new row is the gradient, the others stay; then u."""
    yield _dense_row(run, t, before, after)
    yield ring(run, before, after, ["G"])
    yield ggt(run, t, t0.wide(after["G"]), run.d, t0.wide(after["G"][int(before["row"])]), t0.wide(before["G"]))


def sparse_ggt(run: Run, t: int, before: State, after: State) -> Checks:
    """The new row and xi by the criterion of error feedback; then the ring and u."""
    yield from _compressed(run, t, before, after)
    yield ring(run, before, after, ["values", "indices"], "4:4")
    G, old = (written_out(s["indices"], s["values"], run.d) for s in (after, before))
    yield ggt(run, t, G, after["values"].shape[1], G[int(before["row"])], old)


def adagrad(run: Run, t: int, before: State, after: State) -> Checks:
    """Algorithm 7 from theta = 0 at rate 1: then theta' = -u."""
    given = {"theta": np.zeros(run.d), "xi": before["xi"], "G": before["G"], "g": run.gradients[t]}
    case = run.part("adagrad_step", **given, k=run.p["k"], eta=1.0)
    result = {"theta": -run.u[t], "xi": after["xi"], "G": after["G"]}
    yield from _as_u(elementwise.adagrad_step(case, result, run.declared), "theta")


def signed(run: Run, t: int, before: State, after: State) -> Checks:
    """The slides' Algorithm 1 from x = 0: then x' = -Delta = -u."""
    case = run.part("sign_step", x=np.zeros(run.d), e=before["e"], g=run.gradients[t], gamma=run.p["gamma"])
    yield from _as_u(elementwise.sign_step(case, {"x": -run.u[t], "e": after["e"]}, run.declared), "x")


def _as_u(checks: Iterable[Check], name: str) -> Checks:
    """Name the moved parameter by what the user returned, u = -(moved - 0), with its sign."""
    for c in checks:
        got, expected = (None if v is None else -v for v in (c.got, c.expected))
        yield replace(c, stage="u", got=got, expected=expected) if c.stage == name else c


# ------------------------------------------------------------------ parts of a step


def _compressed(run: Run, t: int, before: State, after: State) -> Checks:
    i = int(before["row"])
    yield from _fed_back(run, t, before, after["indices"][i], after["values"][i], after["xi"])


def _fed_back(run: Run, t: int, before: State, indices: Array, values: Array, xi: Array) -> tuple[Check, ...]:
    """Lines 5 to 7 of Algorithm 1 by the criterion of `error_feedback`."""
    share = Fraction(int(run.p["k"]), run.d) if "k" in run.p else run.p.get("density", 1)
    size = run.d if "k" in run.p else run.p.get("block_size")
    case = run.part("error_feedback", xi=before["xi"], g=run.gradients[t], block_size=size, density=share)
    return selection.error_feedback(case, {"indices": indices, "values": values, "xi": xi}, run.declared)


def ring(run: Run, before: State, after: State, names: Sequence[str], line: str = "1:8") -> Check:
    """Row ``row`` of the window is new, every other row is bitwise what it was, ``row`` moves on by one (R1). T0."""
    m, i = int(run.p["m"]), int(before["row"])
    if int(after["row"]) != (i + 1) % m:
        wrong = f"row {i} is followed by row {int(after['row'])} of {m}: not the oldest (R1)"
        return t0.failed("row", "T0", line, ROW_RULE, wrong)
    first = int(before["t"]) == 0
    for name in names:
        if first and name == "indices":
            continue  # an empty row holds zeros, wherever
        same = (before[name] == after[name]).reshape(m, -1).all(axis=1)
        same[i] = True
        if not same.all():
            at = int(np.argmin(same))
            wrong = f"row {at} of {name} changed, row {i} is the one to replace"
            return t0.failed("window", "T0", line, ROW_RULE, wrong, (at,))
    return t0.passed("window", "T0", line, ROW_RULE)


def others(before: Array, after: Array, i: int, line: str) -> Check:
    """Only row and column ``i`` of S are new; the others are bitwise what they were (R7). T0."""
    rest, rule = np.arange(len(after)) != i, "only row and column i of S are new"
    if np.array_equal(before[np.ix_(rest, rest)], after[np.ix_(rest, rest)]):
        return t0.passed("S", "T0", line, rule)
    return t0.failed("S", "T0", line, rule, f"entries outside row and column {i} changed")


def _dense_row(run: Run, t: int, before: State, after: State) -> Check:
    """The new row is the gradient, rounded to the storage of the window. T0."""
    i, G = int(before["row"]), after["G"]
    want = t0.wide(t0.rounding(run.gradients[t], str(G.dtype)))
    if np.array_equal(t0.wide(G[i]), want):
        return t0.passed("G", "T0", "1:8", ROW_RULE)
    return t0.failed("G", "T0", "1:8", ROW_RULE, f"row {i} is not the gradient", (i,))


def written_out(indices: Array, values: Array, d: int) -> Array:
    """The dense window, (m, d), of its stored indices and values."""
    G = np.zeros((len(values), d))
    np.put_along_axis(G, indices.astype(np.int64), t0.wide(values), axis=1)
    return G


def _mfac(run: Run, t: int, before: State, after: State, G: Array, old: Array, terms: int) -> Checks:
    """S by the dot criterion on the stored window, its other entries as they were; then u, given S and the window."""
    i, S = int(before["row"]), after["S"]
    yield from _products(run, S, G, i, terms)
    yield others(before["S"], S, i, "W:5")
    yield direction(run, t, Window(G, np.abs(G), G[i], np.abs(G[i]), terms), t0.wide(S), old)


def _products(run: Run, S: Array, G: Array, i: int, terms: int) -> Checks:
    """``|S_i - G g_i| <= k u |G||g_i|``, row and column i: the rest is what earlier steps were judged by (R7)."""
    unit = max(run.unit, unit_of(S, run.declared), key=lambda unit: unit.u)
    exact = product(G, G[i][:, None], unit.u < 2.0**-30)
    reference, error, size = (np.broadcast_to(v.T, (2, len(G))) for v in (exact.value.hi, exact.error, exact.magnitude))
    low = np.broadcast_to(exact.value.lo.T, reference.shape)
    rule = "|S - G G^T| <= k u |G||G|^T, G the stored window, in row and column i (R7)"
    got, bound = np.stack([S[i], S[:, i]]), terms * (unit.u * size + unit.tiny)
    for check in t0.probable(
        lambda tier, part: t0.forward(
            "S", "W:5", rule, got, Pair(reference, low), part * bound, tier=tier, magnitude=size,
            error=error, truth=lambda: enclose.twice(enclose.product(G, G[i][:, None])),
        ), terms,
    ):  # fmt: skip
        at = ((i, check.at[1]), (check.at[1], i))[check.at[0]] if check.at else ()
        yield replace(check, at=at)
