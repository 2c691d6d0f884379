"""Judges the optimizers: every step from the state that the target itself dumped, by the criteria of its operations.

A free run never gives a verdict: after the first flip of Top-k two correct runs part. With states each step stands
alone. Without states the trajectory is followed with a radius for every entry: what rounding may have done to it; where
a Top-k decision that cannot be seen lies within these radii, the run stops undecided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Check, Declared, Unit, unit_of
from efcp_ref.oracle.criteria import eigen, elementwise, low_rank, selection
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.exact import Pair, product, two_prod, two_sum
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import kept, layout

STOP = "top-k decision within rounding"
STATE_RULE = "state has the keys and shapes of the contract"
ROW_RULE = "row g_{t-m} is replaced by c_t, no other row changes"
State = Mapping[str, Any]
Checks = Iterator[Check]


@dataclass(frozen=True)
class Run:
    """One run of a target: its case, its directions, and the precision that they are judged in."""

    case: Case
    declared: Declared
    u: Array  # (T, d)
    unit: Unit
    p: Mapping[str, Any] = field(default_factory=dict)  # the constructor's parameters

    @property
    def gradients(self) -> Array:
        """The gradients, (T, d) float64."""
        return t0.wide(self.case.arguments["gradients"])

    @property
    def exact(self) -> bool:
        """Whether sums of gradients are exact."""
        return "exact" in self.case.flags

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.u.shape[1])

    def number(self, name: str) -> float:
        """A hyper-parameter, rounded to float32 as everybody does."""
        return float(np.float32(self.p[name]))

    def part(self, operation: str, **arguments: Any) -> Case:
        """A case of one operation inside this run."""
        return replace(self.case, operation=operation, arguments=arguments)

    def layout(self) -> tuple[list[tuple[int, int]], list[int]]:
        """The blocks of Top-k and how many entries each keeps; a global k is one block."""
        if "k" in self.p:
            return [(0, self.d)], [int(self.p["k"])]
        _, share, blocks = layout(self.d, self.p.get("block_size"), self.p.get("density", 1))
        return blocks, [kept(end - start, share) for start, end in blocks]


def judge(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge an optimizer: shape and finiteness of u, then step after step until one is broken (trajectories)."""
    gradients, line = t0.wide(case.arguments["gradients"]), OPTIMIZERS[case.operation].line
    rule, u = "u has shape (T, d)", np.asarray(result.get("u"))
    if u.shape != gradients.shape or u.dtype.kind not in "fV":
        return (
            t0.failed("u", "T0", line, rule, f"u has shape {u.shape} and dtype {u.dtype}, must be {gradients.shape}"),
        )
    bad = np.argwhere(~np.isfinite(t0.wide(u)))
    if len(bad):
        return (t0.failed("u", "T0", line, "finite results", "u holds NaN or infinity", tuple(map(int, bad[0]))),)
    run = Run(case, declared, u, unit_of(u, declared), {n: v for n, v in case.arguments.items() if n != "gradients"})
    with_states, without = REPLAYS[case.operation]
    states = result.get("states")
    if states is not None and len(states) == len(u) and all(_has(s, _keys(run)) for s in states):
        steps = _replayed(run, states, with_states)
    else:
        steps = without(run)
    return (t0.passed("u", "T0", line, rule), *_merged(steps))


def _merged(steps: Iterator[list[Check]]) -> list[Check]:
    """Run through the steps until one is broken; of those before keep, stage by stage, the largest ratio.

    A stage that some step decides is decided; its undecided steps are counted in words.
    """
    best: dict[tuple[str, str, str], Check] = {}
    open_: dict[tuple[str, str, str], list[Check]] = {}
    for t, checks in enumerate(steps, 1):
        checks = [replace(c, at=(t, *c.at)) for c in checks]
        if t0.broken(checks):
            return [
                *best.values(),
                *(replace(c, reason=f"step {t}: {c.reason}".rstrip(": ")) if c.verdict == FAIL else c for c in checks),
            ]
        for c in checks:
            key = (c.stage, c.tier, c.line)
            if c.verdict == INCONCLUSIVE:
                open_.setdefault(key, []).append(c)
            elif key not in best or c.ratio > best[key].ratio:
                best[key] = c
    for key, undecided in open_.items():
        if key not in best or key[0] == "trajectory":
            best[key] = undecided[0]
        else:
            best[key] = replace(best[key], reason=f"{len(undecided)} steps undecided: {undecided[0].reason}")
    return list(best.values())


# ------------------------------------------------------------------ with states


def _has(state: Any, keys: Sequence[str]) -> bool:
    return isinstance(state, Mapping) and all(state.get(key) is not None for key in keys)


def _keys(run: Run) -> list[str]:
    keys = [key for key in OPTIMIZERS[run.case.operation].state if not key.endswith("..")]
    if run.case.operation == "low_rank_mfac":
        keys += [f"{factor}{l}" for l in range(len(run.p["shapes"])) for factor in "PQ"]
    return keys


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    """Shape of every array of the state."""
    d, m = run.d, int(run.p.get("m", 1))
    K = sum(run.layout()[1])
    shapes: dict[str, tuple[int, ...]] = {
        "xi": (d,),
        "e": (d,),
        "S": (m, m),
        "indices": (m, K),
        "values": (m, K),
        "t": (),
        "row": (),
    }
    shapes["G"] = (d,) if run.case.operation == "adagrad_ef" else (m, d)
    for l, (p1, p2s, rho) in enumerate(_layers(run)):
        shapes[f"P{l}"], shapes[f"Q{l}"] = (m, p1, rho), (m, p2s, rho)
    return shapes


def _replayed(run: Run, states: Sequence[State], step: Callable[..., Checks]) -> Iterator[list[Check]]:
    """Judge step t from the state that the target left after step t - 1; before the first: zeros."""
    shapes = _shapes(run)
    before: dict[str, Any] = {}
    for t, state in enumerate(states):
        after = {key: np.asarray(state[key]) for key in _keys(run)}
        wrong = [f"{n} has shape {a.shape}, must have {shapes[n]}" for n, a in after.items() if a.shape != shapes[n]]
        wrong += [
            f"{n} holds NaN or infinity"
            for n, a in after.items()
            if a.dtype.kind != "O" and not np.isfinite(t0.wide(a)).all()
        ]
        if wrong:
            yield [t0.failed("state", "T0", OPTIMIZERS[run.case.operation].line, STATE_RULE, wrong[0])]
            return
        if not before:
            before = {key: np.zeros(shapes[key], a.dtype) for key, a in after.items()}
            if "row" in after:
                before["row"] = (after["row"] - 1) % int(run.p["m"])
        here = list(step(run, t, before, after))
        counted = int(after["t"]) == int(before["t"]) + 1
        counting = t0.passed if counted else t0.failed
        yield [*here, counting("t", "T0", "1:3", "t counts the steps", "" if counted else f"t = {int(after['t'])}")]
        before = after


def _ring(run: Run, before: State, after: State, names: Sequence[str], line: str = "1:8") -> Check:
    """Row ``row`` of the window is new, every other row is bitwise what it was, ``row`` moves on by one (R1). T0."""
    m, i = int(run.p["m"]), int(before["row"])
    if int(after["row"]) != (i + 1) % m:
        return t0.failed(
            "row", "T0", line, ROW_RULE, f"row {i} is followed by row {int(after['row'])} of {m}: not the oldest (R1)"
        )
    others = np.arange(m) != i
    first = int(before["t"]) == 0
    for name in names:
        if first and name == "indices":
            continue  # an empty row holds zeros, wherever
        if not np.array_equal(before[name][others], after[name][others]):
            at = next(int(r) for r in np.flatnonzero(others) if not np.array_equal(before[name][r], after[name][r]))
            return t0.failed(
                "window", "T0", line, ROW_RULE, f"row {at} of {name} changed, row {i} is the one to replace", (at,)
            )
    return t0.passed("window", "T0", line, ROW_RULE)


def _dense(indices: Array, values: Array, d: int) -> Array:
    G = np.zeros((len(values), d))
    np.put_along_axis(G, indices.astype(np.int64), t0.wide(values), axis=1)
    return G


def _fed_back(run: Run, t: int, before: State, indices: Array, values: Array, xi: Array) -> tuple[Check, ...]:
    """Lines 5 to 7 of Algorithm 1 by the criterion of `error_feedback`."""
    share = Fraction(int(run.p["k"]), run.d) if "k" in run.p else run.p.get("density", 1)
    size = run.d if "k" in run.p else run.p.get("block_size")
    case = run.part("error_feedback", xi=before["xi"], g=run.gradients[t], block_size=size, density=share)
    return selection.error_feedback(case, {"indices": indices, "values": values, "xi": xi}, run.declared)


def _topk_sgd(run: Run, t: int, before: State, after: State) -> Checks:
    """u = c, so that its support and values are the compressed gradient."""
    k, u = int(run.p["k"]), run.u[t]
    indices, reason = _support(u, t0.wide(after["xi"]), k)
    if reason:
        yield t0.failed("u", "T2", "1:6", "u has k entries", reason)
        return
    yield from _fed_back(run, t, before, indices, u[indices], after["xi"]) if k else ()


def _support(u: Array, xi: Array, k: int) -> tuple[Array, str]:
    """Return k positions that hold all of u's nonzero entries, filled with those where nothing was left to send."""
    nonzero = np.flatnonzero(t0.wide(u))
    if len(nonzero) > k:
        return nonzero, f"u has {len(nonzero)} nonzero entries, at most {k} may be sent"
    rest = np.flatnonzero(t0.wide(u) == 0)
    rest = rest[np.argsort(np.abs(xi[rest]), kind="stable")][: k - len(nonzero)]
    return np.sort(np.concatenate([nonzero, rest])).astype(np.int32), ""


def _dense_row(run: Run, t: int, before: State, after: State) -> Check:
    """The new row is the gradient, rounded to the storage of the window. T0."""
    i, G = int(before["row"]), after["G"]
    want = t0.wide(t0.rounding(run.gradients[t], str(G.dtype)))
    if np.array_equal(t0.wide(G[i]), want):
        return t0.passed("G", "T0", "1:8", ROW_RULE)
    return t0.failed("G", "T0", "1:8", ROW_RULE, f"row {i} is not the gradient", (i,))


def _dense_mfac(run: Run, t: int, before: State, after: State) -> Checks:
    yield _dense_row(run, t, before, after)
    yield _ring(run, before, after, ["G"])
    G, old = t0.wide(after["G"]), t0.wide(before["G"])
    yield from _mfac(run, t, before, after, G, old, run.d)


def _sparse_mfac(run: Run, t: int, before: State, after: State) -> Checks:
    i = int(before["row"])
    yield from _fed_back(run, t, before, after["indices"][i], after["values"][i], after["xi"])
    yield _ring(run, before, after, ["values", "indices"])
    G, old = (_dense(s["indices"], s["values"], run.d) for s in (after, before))
    yield from _mfac(run, t, before, after, G, old, after["values"].shape[1])


def _mfac(run: Run, t: int, before: State, after: State, G: Array, old: Array, terms: int) -> Checks:
    """S by the dot criterion on the stored window, its other entries as they were; then u, given S and the window."""
    i, S = int(before["row"]), after["S"]
    unit = max(run.unit, unit_of(S, run.declared), key=lambda unit: unit.u)
    expected = product(G)
    bound = terms * (unit.u * expected.magnitude + unit.tiny)
    rule = "|S - G G^T| <= k u |G||G|^T, G the stored window (R7)"
    yield t0.forward("S", "W:5", rule, S, expected.value, bound, magnitude=expected.magnitude, error=expected.error)
    yield _others(before["S"], S, i, "W:5")
    yield direction(run, t, Window(G, np.abs(G), G[i], np.abs(G[i]), terms), t0.wide(S), old)


def _others(before: Array, after: Array, i: int, line: str) -> Check:
    """Only row and column ``i`` of S are new; the others are bitwise what they were (R7). T0."""
    others = np.arange(len(after)) != i
    same = np.array_equal(before[np.ix_(others, others)], after[np.ix_(others, others)])
    rule = "only row and column i of S are new"
    return (
        t0.passed("S", "T0", line, rule)
        if same
        else t0.failed("S", "T0", line, rule, f"entries outside row and column {i} changed")
    )


def _dense_ggt(run: Run, t: int, before: State, after: State) -> Checks:
    yield _dense_row(run, t, before, after)
    yield _ring(run, before, after, ["G"])
    yield ggt(run, t, t0.wide(after["G"]), run.d, t0.wide(after["G"][int(before["row"])]), t0.wide(before["G"]))


def _sparse_ggt(run: Run, t: int, before: State, after: State) -> Checks:
    i = int(before["row"])
    yield from _fed_back(run, t, before, after["indices"][i], after["values"][i], after["xi"])
    yield _ring(run, before, after, ["values", "indices"], "4:4")
    G, old = (_dense(s["indices"], s["values"], run.d) for s in (after, before))
    yield ggt(run, t, G, after["values"].shape[1], G[i], old)


def _adagrad(run: Run, t: int, before: State, after: State) -> Checks:
    """Algorithm 7 from theta = 0 at rate 1: then theta' = -u."""
    zero = np.zeros(run.d)
    case = run.part(
        "adagrad_step", theta=zero, xi=before["xi"], G=before["G"], g=run.gradients[t], k=run.p["k"], eta=1.0
    )
    yield from elementwise.adagrad_step(case, {"theta": -run.u[t], "xi": after["xi"], "G": after["G"]}, run.declared)


def _signed(run: Run, t: int, before: State, after: State) -> Checks:
    """The slides' Algorithm 1 from x = 0: then x' = -Delta = -u."""
    case = run.part("sign_step", x=np.zeros(run.d), e=before["e"], g=run.gradients[t], gamma=run.p["gamma"])
    yield from elementwise.sign_step(case, {"x": -run.u[t], "e": after["e"]}, run.declared)


# ------------------------------------------------------------------ low rank, with states


def _layers(run: Run) -> list[tuple[int, int, int]]:
    """``(p1, p2*...*ps, rho)`` of every layer; a vector is stored whole, as P (p1, 1) and Q = [[1]] (R25)."""
    shapes = [tuple(map(int, s)) for s in run.p.get("shapes", ())]
    return [(s[0], prod(s[1:]), min(int(run.p["rank"]), s[0], prod(s[1:]))) for s in shapes]


def _cut(run: Run, vector: Array) -> list[Array]:
    """The layers of a flat vector, as matrices (p1, p2*...*ps)."""
    sizes = [(p1, p2s) for p1, p2s, _ in _layers(run)]
    parts = np.split(vector, np.cumsum([p1 * p2s for p1, p2s in sizes])[:-1])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def _starts(run: Run, before: State) -> list[Array]:
    """Q of the step before for every layer; at the first step Q_0."""
    if int(before["t"]) > 0:
        newest = (int(before["row"]) - 1) % int(run.p["m"])
        return [t0.wide(before[f"Q{l}"][newest]) for l in range(len(_layers(run)))]
    given = iter(run.p["Q0"])
    return [
        t0.wide(next(given))[:, :rho] if len(shape) > 1 else np.ones((1, 1))
        for (_, _, rho), shape in zip(_layers(run), run.p["shapes"], strict=True)
    ]


def _low_rank(run: Run, t: int, before: State, after: State) -> Checks:
    """Per layer the invariants of Algorithm 5 and the residual; then the ring, S and u of Algorithm 6."""
    i, count = int(before["row"]), len(_layers(run))
    a = two_sum(t0.wide(before["xi"]), run.gradients[t])
    rows = [(after[f"P{l}"][i], after[f"Q{l}"][i]) for l in range(count)]
    parts = zip(
        _cut(run, a.hi), _cut(run, t0.wide(after["xi"])), rows, _starts(run, before), run.p["shapes"], strict=True
    )
    for M, xi, (P, Q_new), Q, shape in parts:
        unit = max((unit_of(x, run.declared) for x in (P, Q_new, after["xi"])), key=lambda unit: unit.u)
        if len(shape) > 1:
            yield from low_rank.factors(M, Q, P, Q_new, unit, run.declared, roundings=2)
        yield _residual(M, xi, t0.wide(P), t0.wide(Q_new), unit, len(shape) == 1)
    yield _ring(run, before, after, [f"{factor}{l}" for l in range(count) for factor in "PQ"], "6:6")
    yield from _inner_products(run, before, after)
    (G, size), old = (_rebuilt(run, state) for state in (after, before))
    terms = max(p1 * p2s for p1, p2s, _ in _layers(run)) + sum(2 * r + r * r + 2 for *_, r in _layers(run))
    rho = 1 + max(r for *_, r in _layers(run))
    yield direction(run, t, Window(G, size, G[i], size[i], terms, rho), t0.wide(after["S"]), old[0], line="6:14")


def _residual(M: Array, xi: Array, P: Array, Q: Array, unit: Unit, whole: bool) -> Check:
    """``|xi' - (a - P Q'^T)| <= (rho + 3) u (|a| + |P||Q'|^T)``; a vector is stored whole (1:7)."""
    expected = M - P @ Q.T
    size = np.abs(M) + np.abs(P) @ np.abs(Q).T
    rule = "|xi' - (a - P Q'^T)| <= (rho + 3) u (|a| + |P||Q'|^T)"
    check = t0.forward("xi", "1:7", rule, xi, expected, (P.shape[1] + 3) * (unit.u * size + unit.tiny))
    if whole and check.verdict == PASS:
        return t0.forward("c", "1:6", "a vector is stored whole (R25)", P @ Q.T, M, 3 * unit.u * np.abs(M) + unit.tiny)
    return check


def _inner_products(run: Run, before: State, after: State) -> Checks:
    """``|S_ij - sum_l Tr(g_i^T g_j)| <= sum_l (p1 p2 + 2 rho + rho^2 + L) u sum |.|``; others unchanged."""
    i, m, S = int(before["row"]), int(run.p["m"]), after["S"]
    unit = max(run.unit, unit_of(S, run.declared), key=lambda unit: unit.u)
    high, low, bound, size = (np.zeros(m) for _ in range(4))
    layers = _layers(run)
    each = []
    for l, (p1, p2s, rho) in enumerate(layers):
        P, Q = t0.wide(after[f"P{l}"]), t0.wide(after[f"Q{l}"])
        traces = [low_rank.inner_product(P[r], Q[r], P[i], Q[i]) for r in range(m)]
        value = two_sum(high, np.array([float(s.value.hi) for s in traces]))
        high, low = value.hi, low + value.lo + np.array([float(s.value.lo) for s in traces])
        magnitude = np.array([float(s.magnitude) for s in traces])
        n = p1 * p2s + 2 * rho + rho * rho + len(layers)
        bound, size = (
            bound + n * (unit.u * magnitude + unit.tiny * (1 + np.abs(P).sum() + np.abs(Q).sum())),
            size + magnitude,
        )
        each.append((np.array([float(s.value.hi) for s in traces]), n * unit.u * magnitude))
    rule = "|S_i - sum of the layers' inner products| <= (p1 p2 + 2 rho + rho^2 + L) u sum |.|"
    row = t0.forward("S", "6:11", rule, S[i], Pair(high, low), bound, magnitude=size)
    if row.verdict == FAIL and any(bool(np.all(np.abs(t0.wide(S[i]) - v) <= b)) for v, b in each):
        row = replace(row, line="6:8", reason="one layer alone: the sum over the layers is overwritten (R26)")
    yield row
    yield t0.forward("S", "6:11", rule, S[:, i], Pair(high, low), bound, magnitude=size)
    yield _others(before["S"], S, i, "6:11")


def _rebuilt(run: Run, state: State) -> tuple[Array, Array]:
    """The window written out, (m, d), and ``|P||Q|^T``, what its rounding goes by."""
    P, Q = ([t0.wide(state[f"{factor}{l}"]) for l in range(len(_layers(run)))] for factor in "PQ")
    m = int(run.p["m"])
    G = [np.einsum("mpr,mqr->mpq", a, b).reshape(m, -1) for a, b in zip(P, Q, strict=True)]
    size = [np.einsum("mpr,mqr->mpq", np.abs(a), np.abs(b)).reshape(m, -1) for a, b in zip(P, Q, strict=True)]
    return np.concatenate(G, axis=1), np.concatenate(size, axis=1)


# ------------------------------------------------------------------ directions


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
        return replace(check, line="1:8", reason="agrees with: preconditioned before c_t was inserted (R9)")
    return check


def _solved(run: Run, t: int, w: Window, S: Array | None, m: int, line: str) -> Check:
    """``|u - ref| <= (|G^T M^-1| (k u |G||x| + (3m+10) u |L||L^T||w|) + (m+4) u (|x| + |G|^T |w|)) / lam + 2u |ref|``.

    M = m lam I + S with the target's own S, else the exact one and ``k u |G||G|^T |w|`` more (only u exposed).
    The oracle solves in 64 bits where u is binary64: its error is the bound times 2^-11. Radii of G and x add
    ``|F^-1| (r + (R^T |G u| + |G|^T R |u|) / m)`` to first order.
    """
    u, lam = run.unit.u, run.number("lam")
    kind: Any = np.float64 if u > 2.0**-40 else np.longdouble
    G, size, x = (a.astype(kind) for a in (w.G, w.size, w.x))
    M: Any = (G @ G.T if S is None else (S.astype(kind) + S.astype(kind).T) / 2) + m * kind(lam) * np.eye(len(G))
    L = _cholesky(M)
    rule = "|u - F^-1 x| <= what rounding does to S, h, the solve and x/lam - c G"
    if L is None:
        return t0.undecided("u", "T2", line, rule, "indefinite")
    inverse = _inverse(L)
    h = G @ x
    c = inverse.T @ (inverse @ h)  # lam times eq. (2)
    expected = (x - c @ G) / kind(lam)
    spread = np.abs(G.T @ inverse.T @ inverse)  # |G^T M^-1|
    solve = (3 * len(G) + 10) * np.abs(L) @ (np.abs(L).T @ np.abs(c))
    sums: Any = w.terms * size @ w.x_size.astype(kind)
    if S is None:
        sums = sums + w.terms * size @ (size.T @ np.abs(c))
    else:
        sums = sums + np.abs(S - S.T).astype(kind) @ np.abs(c) / u
    last = (len(G) + 4 + w.rho) * (w.x_size + size.T @ np.abs(c))
    lost = run.unit.tiny * (w.terms * (1 + float(np.abs(c).sum())) * spread.sum(axis=1) + len(G) + 4) / lam
    bound = u * ((spread @ (sums + solve) + last) / lam + 2 * np.abs(expected)) + lost
    magnitude = (np.abs(w.x) + size.T @ np.abs(c)) / lam
    bound = bound + _carried(w, G, inverse, expected, m, lam)
    high = expected.astype(np.float64)
    pair = Pair(high, (expected - high).astype(np.float64))
    own = float(np.finfo(kind).eps) / u * bound
    check = t0.forward(
        "u",
        line,
        rule,
        run.u[t],
        pair,
        bound.astype(np.float64),
        magnitude=magnitude.astype(np.float64),
        error=own.astype(np.float64),
    )
    return _by_class(run, check, t, high, bound.astype(np.float64), M.astype(np.float64), lam * m)


def _by_class(run: Run, check: Check, t: int, expected: Array, bound: Array, M: Array, least: float) -> Check:
    """Solvers that are not symmetric factorisations: the bound times cond(M) (inverse, eigh) or cond(F) (dense)."""
    if check.verdict != FAIL:
        return check
    values = np.linalg.eigvalsh(M)
    cond_M, cond_F = float(values[-1] / max(values[0], 1e-300)), float(values[-1] / least)
    name = str(run.declared.solver)
    gap = np.abs(t0.wide(run.u[t]) - expected)
    loose = float(np.linalg.norm(bound)) * {"inverse": cond_M, "eigh": cond_M, "dense": cond_F}.get(
        name, max(cond_M, cond_F)
    )
    if np.linalg.norm(gap) > loose or loose >= np.linalg.norm(expected) / 10:
        undecided = loose >= np.linalg.norm(expected) / 10 and np.linalg.norm(gap) <= loose
        return replace(check, verdict=INCONCLUSIVE, reason="vacuous for this solver class") if undecided else check
    if name in ("lu", "inverse", "eigh", "dense"):
        return replace(check, verdict=PASS, ratio=float(np.linalg.norm(gap)) / loose)
    return replace(check, verdict=INCONCLUSIVE, reason="solver class: declare SOLVER = 'inverse', 'eigh' or 'dense'")


def _cholesky(M: Array) -> Array | None:
    """Return L, M = L L^T, in the precision of M (NumPy's own stops at binary64); None where M is not positive."""
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


def _carried(w: Window, G: Array, inverse: Array, u: Array, m: int, lam: float) -> Array:
    """``|F^-1| (r + (R^T |G u| + |G|^T R |u|) / m)``, doubled for what is beyond first order, (d,)."""
    if w.R is None or w.r is None or not (w.R.any() or w.r.any()):
        return np.zeros(G.shape[1])
    moved = w.r + (w.R.T @ np.abs(G @ u) + np.abs(G).T @ (w.R @ np.abs(u))) / m
    return (
        2 * (moved + np.abs(G.T @ inverse.T @ inverse) @ (np.abs(G) @ moved)) / lam
    )  # |F^-1| <= (I + |G^T M^-1||G|) / lam


def ggt(
    run: Run, t: int, G: Array, terms: int, x: Array, old: Array | None, R: Array | None = None, r: Array | None = None
) -> Check:
    """Judge u = (G^T G)^-1/2 x damped by eps, only u being visible (`eigen.reference`); old: the window before (R9)."""
    case = run.part("ggt_direction", G=G, x=x, eps=run.p["eps"], cutoff=run.p["cutoff"])
    problem = eigen.Problem.of(case, G, terms, run.unit)
    extra: Any = 0.0
    if R is not None and r is not None and (R.any() or r.any()):
        problem = replace(
            problem, drift=2 * float(np.linalg.norm(R)) * float(np.linalg.norm(G)) + float(np.linalg.norm(R)) ** 2
        )
        extra = _ggt_carried(problem, R, r)
    check = eigen.alone(problem, run.u[t], run.declared, extra)
    if check.verdict == FAIL and old is not None:
        before = eigen.alone(replace(problem, G=old), run.u[t], run.declared)
        if before.verdict == PASS:
            return replace(check, line="1:8", reason="agrees with: preconditioned before c_t was inserted (R9)")
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


# ------------------------------------------------------------------ without states


@dataclass(frozen=True)
class Followed:
    """A vector that the target hides, as exact arithmetic has it, with a radius per entry."""

    value: Array  # (d,)
    radius: Array  # (d,)
    rounding: Any = 0.0  # (d,) what storing it once more may change: left in xi where it is sent (R14)


def _sum(run: Run, xi: Followed, g: Array) -> Followed:
    """a = xi + g: the radius grows by ``u |a|``, unless the sum is exact."""
    a = two_sum(xi.value, g)
    exact = not xi.radius.any() and not a.lo.any() and np.array_equal(t0.wide(t0.rounding(a.hi, run.unit.name)), a.hi)
    room = np.zeros(run.d) if exact else (run.unit.u + 2.0**-53) * np.abs(a.hi)
    return Followed(a.hi, xi.radius + room, room)


def _select(run: Run, a: Followed) -> Array | None:
    """Return which entries Top-k keeps, (d,) of bool; None where a decision lies within the radii.

    Decided: ``min over kept of |a| - r > max over dropped of |a| + r`` in every block, or nothing but zeros is dropped.
    """
    on = np.zeros(run.d, dtype=bool)
    size = np.abs(a.value)
    for (start, end), count in zip(*run.layout(), strict=True):
        order = start + np.argsort(-size[start:end], kind="stable")
        inside, outside = order[:count], order[count:]
        least = np.min(size[inside] - a.radius[inside], initial=np.inf)
        most = np.max(size[outside] + a.radius[outside], initial=0.0)
        if most > 0 and least <= most:
            return None
        on[inside] = True
    return on


def _compressed(run: Run) -> Iterator[tuple[int, Followed, Array, Array] | None]:
    """Follow xi and the window of a sparse optimizer: ``(t, c, G, R)``; None where a decision is not seen."""
    m = int(run.p["m"])
    xi = Followed(np.zeros(run.d), np.zeros(run.d))
    G, R = np.zeros((m, run.d)), np.zeros((m, run.d))
    coarse = 2.0**-8 if run.declared.arithmetic.get("storage") == "bfloat16" else 0.0
    for t, g in enumerate(run.gradients):
        a = _sum(run, xi, g)
        on = _select(run, a)
        if on is None:
            yield None
            return
        stored = a.rounding + coarse * np.abs(a.value)
        c = Followed(np.where(on, a.value, 0.0), np.where(on, a.radius + stored, 0.0))
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, stored, a.radius))
        G, R = G.copy(), R.copy()
        G[t % m], R[t % m] = c.value, c.radius
        yield t, c, G, R


def _stopped() -> list[Check]:
    return [t0.undecided("trajectory", "T2", "1:6", "every Top-k decision lies outside the radii", STOP)]


def _hidden_sparse_mfac(run: Run) -> Iterator[list[Check]]:
    """Only u is visible: follow the window, then judge u with its radii."""
    K = sum(run.layout()[1])
    for followed in _compressed(run):
        if followed is None:
            yield _stopped()
            return
        t, c, G, R = followed
        yield [direction(run, t, Window(G, np.abs(G), c.value, np.abs(c.value), K, 0, R, c.radius), None, None)]


def _hidden_sparse_ggt(run: Run) -> Iterator[list[Check]]:
    """Only u is visible: follow the window, then judge u with its radii."""
    for followed in _compressed(run):
        if followed is None:
            yield _stopped()
            return
        t, c, G, R = followed
        yield [ggt(run, t, G, int(run.p["k"]), c.value, None, R, c.radius)]


def _hidden_dense(run: Run) -> Iterator[list[Check]]:
    """Nothing is compressed: the window is known exactly, only u carries rounding."""
    m = int(run.p["m"])
    G = np.zeros((m, run.d))
    for t, g in enumerate(run.gradients):
        old, G = G, G.copy()
        G[t % m] = g
        if "lam" in run.p:
            yield [direction(run, t, Window(G, np.abs(G), g, np.abs(g), run.d), None, old)]
        else:
            yield [ggt(run, t, G, run.d, g, old)]


def _hidden_topk_sgd(run: Run) -> Iterator[list[Check]]:
    """u = c shows the selection, so nothing stops the run: xi' = a - u."""
    xi, k = Followed(np.zeros(run.d), np.zeros(run.d)), int(run.p["k"])
    for t, g in enumerate(run.gradients):
        a = _sum(run, xi, g)
        u = t0.wide(run.u[t])
        on = u != 0
        rule = "|u - a| <= r where sent, k entries, none smaller than one that is kept back"
        value = t0.forward("u", "1:5", rule, u, np.where(on, a.value, 0.0), np.where(on, a.radius + a.rounding, 0.0))
        yield [value, _visible(a, on, k, "1:6")]
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, a.rounding, a.radius))


def _visible(a: Followed, on: Array, k: int, line: str) -> Check:
    """Entries sent, ``on``, are at most k, and none is surely smaller than one kept back."""
    rule = "smallest sent |a| + r >= largest kept back |a| - r"
    if on.sum() > k:
        return t0.failed("selection", "T2", line, rule, f"{int(on.sum())} entries are sent, at most {k}")
    least = np.min(np.abs(a.value[on]) + a.radius[on], initial=np.inf) if on.sum() == k else 0.0
    most = np.max(np.abs(a.value[~on]) - a.radius[~on], initial=0.0)
    if k and most > least:
        return t0.failed("selection", "T2", line, rule, f"|a| = {most:g} is kept back, {least:g} is sent")
    return t0.passed("selection", "T2", line, rule)


def _hidden_adagrad(run: Run) -> Iterator[list[Check]]:
    """u = c / sqrt(G) shows the selection: xi and G are followed with their radii."""
    u1, k = run.unit.u, int(run.p["k"])
    xi, G = Followed(np.zeros(run.d), np.zeros(run.d)), Followed(np.zeros(run.d), np.zeros(run.d))
    for t, g in enumerate(run.gradients):
        a, u = _sum(run, xi, g), t0.wide(run.u[t])
        on = u != 0
        c = np.where(on, a.value, 0.0)
        square = G.value + c * c
        radius = np.where(
            on, G.radius + 2 * np.abs(c) * a.radius + a.radius**2 + 3 * u1 * square + run.unit.tiny, G.radius
        )
        if bool(np.any(on & (square - radius < run.unit.normal))):
            yield [t0.undecided("u", "T2", "7:9", "|u - c / sqrt(G)|", "underflow")]
            return
        root = np.sqrt(np.where(on, square, 1.0))
        expected = np.where(on, c / root, 0.0)
        room = np.where(on, a.radius / root + np.abs(expected) * (0.6 * radius / (root * root) + 6 * u1), 0.0)
        rule = "|u - c / sqrt(G)| <= 6u |u| + radii"
        yield [t0.forward("u", "7:9", rule, u, expected, room), _visible(a, on, k, "7:6")]
        G = Followed(square, radius)
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, a.rounding, a.radius))


def _hidden_signed(run: Run) -> Iterator[list[Check]]:
    """u = Delta is visible: e' = p - u is followed with its radius; the sign of p is free within it."""
    u1, gamma = run.unit.u, run.number("gamma")
    e = Followed(np.zeros(run.d), np.zeros(run.d))
    for t, g in enumerate(run.gradients):
        u, step = t0.wide(run.u[t]), two_prod(g, gamma)
        p = step.hi + e.value
        radius = e.radius + 2 * (u1 + 2.0**-53) * (np.abs(step.hi) + np.abs(e.value)) + run.unit.tiny * (g != 0)
        s = float(np.abs(p).mean())
        room: Any = (run.d + 4) * (u1 + 2.0**-53) * s + float(radius.mean()) + run.unit.tiny
        gap = np.abs(u - s * np.sign(p))
        free = (np.abs(p) <= radius) & (radius > 0)
        gap = np.where(free, np.minimum(gap, np.minimum(np.abs(u), np.abs(np.abs(u) - s))), gap)
        room = np.where((p == 0) & ~free, 0.0, room)
        rule = "|Delta - s sign p| <= (d + 4) u s + radii"
        yield [t0.forward("u", "S1:5", rule, gap, np.zeros(run.d), room)]
        e = Followed(p - u, radius + (u1 + 2.0**-53) * np.abs(p - u))


def _hidden_low_rank(run: Run) -> Iterator[list[Check]]:
    """Only u is visible: P P^T is followed in norm, its radius growing by the condition of M Q; beyond 1 % it stops.

    With d(MQ) the error of M Q, ``||d(P P^T)|| <= 2 ||d(MQ)|| / sigma_min(MQ)``; Q is free up to the rotation of P.
    """
    m, u = int(run.p["m"]), run.unit.u + 2.0**-53
    Q = _starts(run, {"t": 0})
    dQ: list[Any] = [0.0] * len(Q)
    dxi: list[Any] = [0.0] * len(Q)
    xi = np.zeros(run.d)
    G, R = np.zeros((m, run.d)), np.zeros((m, run.d))
    for t, g in enumerate(run.gradients):
        rows, radii = [], []
        for l, (M, shape) in enumerate(zip(_cut(run, xi + g), run.p["shapes"], strict=True)):
            size = float(np.linalg.norm(M))
            dM = dxi[l] + u * size
            if len(shape) == 1:
                rows.append(M)
                radii.append(dM)
                continue
            rho, MQ = Q[l].shape[1], M @ Q[l]
            least = float(np.linalg.svd(MQ, compute_uv=False)[-1])
            q = float(np.linalg.norm(Q[l]))
            error = dM * q + size * dQ[l] + (M.shape[1] + 8 * len(M) * rho) * u * size * q
            if not error < least / 200:
                yield [
                    t0.undecided(
                        "trajectory", "T2", "5:4", "||d(MQ)|| < sigma_min(MQ) / 200", "power iteration within rounding"
                    )
                ]
                return
            P, turn = np.linalg.qr(MQ)[0], 2 * error / least
            Q[l] = M.T @ P
            dQ[l] = dM + size * turn + len(M) * u * size * np.sqrt(rho)
            rows.append(P @ Q[l].T)
            radii.append(dM + size * turn + (rho + len(M)) * u * size * np.sqrt(rho) * 2)
            dxi[l] = dM + radii[-1] + u * size
        c = np.concatenate([row.ravel() for row in rows])
        r = np.concatenate([np.full(row.size, radius) for row, radius in zip(rows, radii, strict=True)])
        xi = xi + g - c
        G, R = G.copy(), R.copy()
        G[t % m], R[t % m] = c, r
        yield [direction(run, t, Window(G, np.abs(G), c, np.abs(c), run.d, 0, R, r), None, None, line="6:14")]


REPLAYS: dict[str, tuple[Callable[..., Checks], Callable[[Run], Iterator[list[Check]]]]] = {
    "topk_sgd": (_topk_sgd, _hidden_topk_sgd),
    "dense_mfac": (_dense_mfac, _hidden_dense),
    "sparse_mfac": (_sparse_mfac, _hidden_sparse_mfac),
    "low_rank_mfac": (_low_rank, _hidden_low_rank),
    "dense_ggt": (_dense_ggt, _hidden_dense),
    "sparse_ggt": (_sparse_ggt, _hidden_sparse_ggt),
    "adagrad_ef": (_adagrad, _hidden_adagrad),
    "ef_signsgd": (_signed, _hidden_signed),
}
