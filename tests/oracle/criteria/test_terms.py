"""Each part of a bound alone, and each condition on its own: what larger terms or other conditions would cover."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import is_dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.oracle import criteria
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Check, Declared
from efcp_ref.oracle.criteria import CRITERIA, eigen, elementwise, fisher, low_rank, replay, scaled, selection
from efcp_ref.oracle.criteria.replay import factored, hidden
from efcp_ref.oracle.criteria.structure import precision, probable
from efcp_ref.oracle.exact import Pair

Array = np.ndarray
Long = np.longdouble
SINGLE = UNITS["float32"]
U, TINY, NORMAL = SINGLE.u, SINGLE.tiny, SINGLE.normal
FLUSHED = Declared({"denormals_are_zero": True})


def case_of(operation: str, arguments: dict[str, Any], *flags: str) -> Case:
    """A case of this file."""
    return Case(operation, "generic", "", 0, 0, arguments, frozenset(flags))


def judged(case: Case, result: dict[str, Any], declared: Declared | None = None) -> list[Check]:
    """The checks, those of the structure left out."""
    return [c for c in CRITERIA[case.operation](case, result, declared or Declared()) if c.tier != "T0"]


def worst(checks: list[Check], stage: str) -> Check:
    """The check of a stage that decides."""
    return next(c for c in checks if (c.stage, c.tier) in ((stage, "T1"), (stage, "T2")))


# ------------------------------------------------------------------ operands that count as zero

SMALL = 2.0**-104  # a product with 1 is normal, what is lost to a flushed operand is four times its rounding


@pytest.mark.parametrize("operation", ["sp", "lcg"])
def test_what_is_lost_where_denormals_are_zero(operation: str) -> None:
    """``normal sum (|v| + |x|)`` more: small rows against numbers of size 1."""
    values = SMALL * np.array([[1.0, -3.0, 2.0], [5.0, 1.0, 1.5]])
    indices, x = np.array([[0, 1, 2], [0, 1, 2]], np.int32), np.array([1.0, 2.0, -4.0])
    if operation == "sp":
        terms, operands = values * x, (np.abs(values) + np.abs(x)).sum(axis=1)
        s, S, n = terms.sum(axis=1), np.abs(terms).sum(axis=1), 3
        arguments = {"indices": indices, "values": values, "g": x, "block_size": 3, "density": 1.0}
    else:
        terms, operands = values * x[:2, None], (np.abs(values) + np.abs(x[:2, None])).sum(axis=0)
        s, S, n = terms.sum(axis=0), np.abs(terms).sum(axis=0), 2
        arguments = {"indices": indices, "values": values, "c": x[:2], "d": 3}
    bound = n * U * S + n * TINY + NORMAL * operands
    assert (bound < S).all()
    for moved in (0.9, 1.1):
        omega = s.copy()
        omega[1] += moved * bound[1]
        declared = replace(FLUSHED, arithmetic={**FLUSHED.arithmetic, "accumulator": "float32"})
        check = worst(judged(case_of(operation, arguments), {"omega": omega}, declared), "omega")
        assert (check.verdict, check.at) == (PASS if moved < 1 else FAIL, (1,))
        assert check.ratio == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize("stage", ["S", "h"])
def test_what_mfac_loses_where_denormals_are_zero(stage: str) -> None:
    """The same of S, of both rows, and of h, of the row and of x."""
    G = np.array([[1.0, -3.0, 2.0], [0.5, 1.0, 1.5], [2.0, 1.0, -1.0]]) * [[SMALL], [1.0], [0.75]]
    x, lam = np.array([1.0, 2.0, -4.0]), 0.5
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(S + 1.5 * np.eye(3), h) / lam
    result = {"u": x / lam - c @ G, "S": S, "h": h, "c": c}
    other = x if stage == "h" else G[1]
    size = np.abs(G[0]) @ np.abs(other)
    bound = 3 * U * size + 3 * TINY + NORMAL * (np.abs(G[0]).sum() + np.abs(other).sum())
    declared = Declared({"denormals_are_zero": True, "accumulator": "float32"}, "factorisation")
    for at in ((0, 1), (1, 0)) if stage == "S" else ((0,),):
        for moved in (0.9, 1.1):
            got = result[stage].copy()
            got[at] += moved * bound
            checks = judged(case_of("mfac_direction", {"G": G, "lam": lam, "x": x}), {**result, stage: got}, declared)
            check = worst(checks, stage)
            assert check.ratio == pytest.approx(moved, rel=1e-6)
            assert (check.verdict, check.at) == (PASS if moved < 1 else FAIL, at)


# ------------------------------------------------------------------ equality

WHOLE = np.array([[1.0, -2.0, 3.0], [4.0, 1.0, -1.0]])


def sums_of(operation: str, scale: float) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Arguments and exact results, integers where ``scale`` is 1; the stage that is judged first."""
    values, indices, x = WHOLE * scale, np.array([[0, 1, 2], [0, 1, 2]], np.int32), np.array([2.0, -1.0, 3.0]) * scale
    if operation == "sp":
        arguments = {"indices": indices, "values": values, "g": x, "block_size": 3, "density": 1.0}
        return arguments, {"omega": values @ x}, "omega"
    if operation == "lcg":
        return {"indices": indices, "values": values, "c": x[:2], "d": 3}, {"omega": x[:2] @ values}, "omega"
    if operation == "low_rank_inner_product":
        arguments = {"P1": values, "Q1": x[:, None] * values[:1].T, "P2": values, "Q2": values.T}
        arguments["Q1"] = np.hstack([arguments["Q1"], np.ones((3, 2))])
        arguments["Q2"] = np.hstack([arguments["Q2"], np.ones((3, 1))])
        left, right = (arguments[f"P{n}"] @ arguments[f"Q{n}"].T for n in (1, 2))
        return arguments, {"product": np.asarray((left * right).sum())}, "product"
    S, h = values @ values.T, values @ x
    c = np.linalg.solve(S + np.eye(2), h) / 0.5
    return {"G": values, "lam": 0.5, "x": x}, {"u": x / 0.5 - c @ values, "S": S, "h": h, "c": c}, "S"


@pytest.mark.parametrize("scale", [1.0, float(np.float32(1 / 3))])
@pytest.mark.parametrize("flag", ["exact", ""])
@pytest.mark.parametrize("operation", ["sp", "lcg", "low_rank_inner_product", "mfac_direction"])
def test_equality_is_asked_where_sums_are_exact_and_said_to_be(operation: str, flag: str, scale: float) -> None:
    """Of the first stage, in float32: T1 for whole numbers in a case that says so, else T2, and inside it passes."""
    arguments, result, stage = sums_of(operation, scale)
    got = np.asarray(result[stage]) * (1 + U)  # one rounding: inside every bound
    declared = Declared({"accumulator": "float32"}, "factorisation")
    checks = judged(case_of(operation, arguments, *[flag] * bool(flag)), {**result, stage: got}, declared)
    equal = bool(flag) and scale == 1.0
    assert checks[0].stage == stage
    assert (checks[0].tier, checks[0].verdict) == (("T1", FAIL) if equal else ("T2", PASS))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_about_the_largest_number(dtype: Any) -> None:
    """The largest power of two of every format: what is beyond a quarter of it may be infinite."""
    largest = precision(Declared(), np.zeros(1, dtype)).largest
    most = float(ml_dtypes.finfo(dtype).max)
    assert most / 2 < largest <= most


@pytest.mark.parametrize(("ulps", "line"), [(3.9, "1:7"), (4.1, "1:5")])
def test_how_near_values_speak_for_the_sum(ulps: float, line: str) -> None:
    """Within ``2 (u_s + u) |a|`` they are those of a: then it is the residual that is wrong, not the sum."""
    xi, g = np.array([0.5, 0.25, 1.0]), np.array([3.5, 0.5, 1.0])
    values, left = np.array([4.0 * (1 + ulps * U)]), np.array([0.0, 0.875, 2.0])
    case = case_of("error_feedback", {"xi": xi, "g": g, "block_size": 3, "density": 1 / 3})
    result = {"indices": np.array([0], np.int32), "values": values, "xi": left}
    step = selection._Step.of(case, result, Declared({"accumulator": "float32", "storage": "float32"}))
    assert (step.store, step.p.unit.u) == (U, U)
    bad = step.measured[2]
    assert bad.tolist() == [True, True, False]
    assert selection._blame(step, bad) == line


def test_a_dropped_NaN_is_no_mistake_where_only_NaN_are_kept() -> None:
    """Of two one may be kept; that it is not the one kept, with another number beside it, is one."""
    a = np.array([np.nan, 1.0, np.nan])
    for k, kept, right in ((1, [0], True), (1, [2], True), (1, [1], False), (2, [0, 2], True), (2, [0, 1], False)):
        result = {"indices": np.array(kept, np.int32), "values": a[kept]}
        checks = judged(case_of("top_k", {"a": a, "k": k}), result, Declared(nan="largest"))
        assert (FAIL not in {c.verdict for c in checks}) == right, (k, kept)
    for k, kept, right in ((1, [1], True), (1, [0], False), (2, [0, 1], True), (2, [1, 2], True), (2, [0, 2], False)):
        result = {"indices": np.array(kept, np.int32), "values": a[kept]}
        checks = judged(case_of("top_k", {"a": a, "k": k}), result, Declared(nan="smallest"))
        assert (FAIL not in {c.verdict for c in checks}) == right, (k, kept)


@pytest.mark.parametrize(
    ("indices", "verdict"),
    [([0, 1, 2], INCONCLUSIVE), ([0, 1], PASS), ([0, 1, 1], FAIL), ([0, 1, 10], FAIL), ([-1, 0, 1], FAIL),
     ([0, 1, 2, 3], FAIL)],
)  # fmt: skip
def test_a_count_that_rounding_explains_excuses_nothing_else(indices: list[int], verdict: str) -> None:
    """0.2 of 10 are two, ``ceil`` of the double 0.2 times 10 is three: not four, not twice the same, not outside."""
    a = np.arange(10.0, 0.0, -1.0)
    case = case_of("block_top_k", {"a": a, "block_size": 10, "density": 0.2}, "density")
    held = np.array(indices, np.int32)
    checks = CRITERIA["block_top_k"](case, {"indices": held, "values": a[np.clip(held, 0, 9)]}, Declared())
    found = {c.verdict for c in checks}
    assert (FAIL in found, INCONCLUSIVE in found) == (verdict == FAIL, verdict == INCONCLUSIVE)


# ------------------------------------------------------------------ GGT


def ggt_problem(sigma: list[float], cutoff: float = 0.0, d: int = 6, unit: Any = SINGLE) -> eigen.Problem:
    """A window with these singular values."""
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((d, len(sigma))))[0]
    G = np.linalg.qr(rng.standard_normal((len(sigma), len(sigma))))[0] * sigma @ V.T
    case = case_of("ggt_direction", {"G": G, "x": rng.standard_normal(d), "eps": 0.5, "cutoff": cutoff})
    return eigen.Problem.of(case, G, d, unit)


def test_what_a_direction_of_ggt_loses_to_underflow() -> None:
    """``tiny (2d F (1 + |x|_1) (|V|^T|G| + d tiny) + 4 + m F |V|^T|G||x|)``: of a unit that rounds nothing else."""
    p = ggt_problem([2.0, 1.0, 0.5], unit=replace(SINGLE, u=0.0, tiny=0.01))
    L, V = np.linalg.eigh(p.G @ p.G.T)
    _, size, bound = eigen._direction(p, L, V, L > 0)
    F = 1 / (0.5 * np.sqrt(L) * (np.sqrt(L) + 0.5))
    left = np.abs(V).T @ np.abs(p.G)
    want = 0.01 * ((2 * 6 * F * (1 + np.abs(p.x).sum())) @ (left + 6 * 0.01))
    want = want + 0.01 * (4 + 3 * (F * (left @ np.abs(p.x))).sum())
    assert np.allclose(bound, want, rtol=1e-9, atol=0)
    assert np.allclose(size, np.abs(p.x) / 0.5 + (F * (left @ np.abs(p.x))) @ left, rtol=1e-9, atol=0)


@pytest.mark.parametrize("reason", [eigen.CUT, eigen.NOISE])
def test_a_direction_of_ggt_that_is_undecided_has_no_ratio(reason: str) -> None:
    """Whatever u is: the quality of an oracle that cannot decide is not that of the target."""
    p = ggt_problem([1.0, 1.0, 0.1], 0.01) if reason == eigen.CUT else ggt_problem([1.0, 1.0, 2e-3])
    check = eigen.alone(p, np.full(6, 0.125), Declared())
    assert (check.verdict, check.reason, check.ratio, check.oracle) == (INCONCLUSIVE, reason, 0.0, "")


# ------------------------------------------------------------------ entry by entry


def test_a_step_of_adagrad_in_more_than_binary64() -> None:
    """``theta - eta c / sqrt(G)`` to 2^-60 at least, theta nothing or not; G = 0 moves nothing."""
    rng = np.random.default_rng(5)
    c, G = rng.standard_normal(200), rng.standard_normal(200) ** 2
    c[:3] = G[:3] = 0
    eta = float(np.float32(0.1))
    for theta in (np.zeros(200), 1e-3 * rng.standard_normal(200)):
        for eps in (0.0, 1e-10):
            root = np.sqrt(G.astype(Long))
            step = np.where(c != 0, Long(eta) * c.astype(Long) / np.where(c != 0, root + Long(eps), 1), 0)
            exact = theta.astype(Long) - step
            got = exact.astype(np.float64)
            gap = np.abs((got.astype(Long) - exact).astype(np.float64))
            bound = 2.0**-53 * (np.abs(got) + 5 * np.abs(step).astype(np.float64))
            check = elementwise._moved(theta, c, G, eta, eps, 5.0, got, UNITS["float64"])
            assert check.verdict == PASS
            assert check.ratio == pytest.approx(float((gap / np.where(bound > 0, bound, 1)).max()), rel=0.02)


def test_the_warning_of_sign_is_given_up_to_the_bound_itself() -> None:
    """More than 36 entries: a gap equal to the bound is still inside it, and warned of; beyond it nothing is said."""
    d = 40
    p = Pair(np.linspace(1, 2, d), np.zeros(d))
    signed = elementwise.Signed(p, np.ones(d), np.zeros(d), SINGLE, False)
    for share, said in ((1.0, 1), (1.0 + 2.0**-40, 0)):
        measured = (share * signed.room, np.zeros(d))
        assert len(signed._probable("S1:6", "(d + 4)", np.zeros(d), measured, signed.room)) == said
    few = elementwise.Signed(Pair(p.hi[:36], p.lo[:36]), np.ones(36), np.zeros(36), SINGLE, False)
    assert few._probable("S1:6", "", np.zeros(36), (np.zeros(36), np.zeros(36)), few.room) == ()
    (check,) = signed._probable("S1:6", "(d + 4)", np.zeros(d), (signed.room, np.zeros(d)), signed.room)
    want = signed.room / (signed.room - (d - 6 * np.sqrt(d)) * U * signed.s)
    assert check.ratio == pytest.approx(float(want.max()), rel=1e-9)
    assert (check.tier, check.rule) == ("T3", "(6 sqrt d + 4)")


@pytest.mark.parametrize(("x", "tier"), [(2.0**24 + 4, "T1"), (2.0**24 + 2, "T2")])
def test_equality_is_asked_of_sign_where_the_difference_is_a_number_of_its_precision(x: float, tier: str) -> None:
    """Delta = (2, -2), and x - Delta is a number of float32; Delta = (1, -1), and it is not; p - Delta is."""
    e, g = np.array([1.0, -1.0]), np.array([2.0, -2.0])
    step = 2.0 if tier == "T1" else 1.0
    p = np.array([step, -step])
    arguments = {"x": np.full(2, x), "e": e * (step - 1), "g": g, "gamma": 0.5}
    case = case_of("sign_step", arguments, "exact")
    result = {"x": np.float32(arguments["x"] - p), "e": np.zeros(2, np.float32)}
    checks = judged(case, result)
    assert [(c.tier, c.verdict) for c in checks[:2]] == [(tier, PASS), ("T1", PASS)]


def test_when_the_probable_bound_is_asked_for() -> None:
    """``6 sqrt n`` of n roundings, where n > 36 and the whole bound holds."""

    def parts(n: float, verdict: str) -> list[tuple[str, float]]:
        asked = []

        def one(tier: str, part: float) -> Check:
            asked.append((tier, part))
            return Check("S", tier, "W:5", "", verdict=verdict)

        assert [c.tier for c in probable(one, n)] == [tier for tier, _ in asked]
        return asked

    assert parts(36, PASS) == [("T2", 1.0)]
    assert parts(37, PASS) == [("T2", 1.0), ("T3", pytest.approx(6 / np.sqrt(37), rel=1e-12))]
    assert parts(37, FAIL) == parts(37, INCONCLUSIVE) == [("T2", 1.0)]


# ------------------------------------------------------------------ M-FAC, stored coarser than it is computed


def stored_mfac() -> tuple[Case, dict[str, Array], Declared]:
    """All stages in bfloat16, computed in float32."""
    rng = np.random.default_rng(3)
    G, x, lam = np.float32(rng.standard_normal((3, 5))).astype(float), np.float32(rng.standard_normal(5)), 0.5
    x = x.astype(float)
    S, h = ((G @ a).astype(ml_dtypes.bfloat16) for a in (G.T, x))
    c = np.linalg.solve(S.astype(float) + 1.5 * np.eye(3), h.astype(float)) / lam
    u = x / lam - np.linalg.solve(G @ G.T + 1.5 * np.eye(3), G @ x) @ G / lam
    result = {"S": S, "h": h, "c": c.astype(ml_dtypes.bfloat16), "u": u.astype(ml_dtypes.bfloat16)}
    said = Declared({"accumulator": "float32"}, "factorisation")
    return case_of("mfac_direction", {"G": G, "lam": lam, "x": x}), result, said


def test_coefficients_that_are_stored_coarser() -> None:
    """``(3m + 10) u |L||L^T||w| + 4u |h|`` with the unit of the storage: c is what u was computed from."""
    case, result, said = stored_mfac()
    M = result["S"].astype(float) + 1.5 * np.eye(3)
    M = np.tril(M) + np.tril(M, -1).T
    L, w, h = np.abs(np.linalg.cholesky(M)), 0.5 * np.abs(result["c"].astype(float)), np.abs(result["h"].astype(float))
    check = worst(judged(case, result, said), "c")
    bound = 2.0**-8 * (19 * L @ (L.T @ w) + 4 * h)
    assert check.verdict == PASS
    assert check.bound == pytest.approx(bound[check.at], rel=1e-6)


def test_a_direction_alone_that_is_stored_coarser() -> None:
    """The bound in the unit of the accumulator; of S, h and u ``u_s (|s| + bound) + tiny_s / 2`` for the storage."""
    case, result, said = stored_mfac()
    G, x = case.arguments["G"], case.arguments["x"]
    M = G @ G.T + 1.5 * np.eye(3)
    L, w = np.abs(np.linalg.cholesky(M)), np.linalg.solve(M, G @ x)
    ref, spread, size = (x - w @ G) / 0.5, np.abs(np.linalg.inv(M) @ G).T, np.abs(G)

    def stored(bound: Array, value: Array) -> Array:
        return bound + 2.0**-8 * (np.abs(value) + bound) + 2.0**-134

    own = U * 19 * L @ (L.T @ np.abs(w)) + stored(5 * U * size @ np.abs(x), G @ x)
    own += stored(5 * U * size @ size.T, G @ G.T) @ np.abs(w)
    bound = stored((spread @ own + 7 * U * (np.abs(x) + np.abs(w) @ size)) / 0.5 + 2 * U * np.abs(ref), ref)
    check = worst(judged(case, {"u": result["u"]}, said), "u")
    assert check.verdict == PASS
    assert check.bound == pytest.approx(bound[check.at], rel=1e-6)


# ------------------------------------------------------------------ low rank


def test_roundings_before_the_products_of_low_rank_count() -> None:
    """q + r and p + r in place of q and p, and a weight in place of |M|; where nothing is large, ``tiny`` as often."""
    rng = np.random.default_rng(2)
    M, Q = (np.float32(rng.standard_normal(s)).astype(float) for s in ((9, 8), (8, 3)))
    P = np.float32(np.linalg.qr(M @ Q)[0])
    weight, P64, declared = 1.5 * np.abs(M), P.astype(float), Declared(orthogonalisation="svd")
    for unit in (SINGLE, replace(SINGLE, u=2.0**-60, tiny=1e-3)):
        checks = low_rank.factors(M, Q, P, np.float32(M.T @ P64), unit, declared, 3, weight)
        loss = float(np.linalg.norm(P64.T @ P64 - np.eye(3)))
        bound = 11 * (unit.u * np.linalg.norm(weight @ np.abs(Q)) + np.sqrt(27) * unit.tiny)
        bound += (8 * 27 * unit.u + 1.2 * loss) * np.linalg.norm(M @ Q)
        assert checks[1].bound == pytest.approx(bound, rel=1e-6)
        size = weight.T @ np.abs(P64)
        for check, n in zip(checks[2:], (12, 12), strict=True):
            assert check.bound == pytest.approx(n * (unit.u * size[check.at] + unit.tiny), rel=1e-6)


@pytest.mark.parametrize(("x", "e", "line"), [(1.0, 0.0, "S1:6"), (0.0, 1.0, "S1:7"), (1.0, 1.0, "S1:5")])
def test_which_line_of_sign_is_blamed_where_equality_is_asked(x: float, e: float, line: str) -> None:
    """One of x' and e' right to the bit: the other's own line; both wrong by the same: Delta itself."""
    g = np.array([4.0, -4.0])
    case = case_of("sign_step", {"x": np.zeros(2), "e": np.zeros(2), "g": g, "gamma": 0.5}, "exact")
    Delta = np.array([2.0, -2.0])
    result = {"x": np.float32(-Delta + [x, 0]), "e": np.float32(0.5 * g - Delta + [e, 0])}
    first = next(c for c in judged(case, result) if c.verdict == FAIL)
    assert (first.line, first.tier) == (line, "T1")


@pytest.mark.parametrize(
    ("c", "kept", "reason"),
    [
        ([1.0, 2.0**-70, 0.5], [1, 1, 1], ""), ([1.0, 2.0**-70, 0.5], [0, 1, 0], "underflow"),
        ([2.0**-70, 2.0**-70, 0.5], [1, 1, 0], "underflow"), ([2.0**-70, 0.0, 0.5], [1, 1, 0], ""),
        ([1.0, 2.0**-63, 0.5], [0, 1, 0], ""),
    ],
)  # fmt: skip
def test_squares_are_undecided_where_all_that_were_kept_underflow(c: list[float], kept: list[int], reason: str) -> None:
    """One that does not decides for the others; a square that is just normal counts as one that does not."""
    on, G = np.array(kept, bool), np.zeros(3)
    got = np.where(on, np.float32(np.square(c)).astype(float), G)
    check = elementwise.squares(Pair(np.array(c), np.zeros(3)), on, G, got, SINGLE)
    assert (check.verdict, check.reason) == (INCONCLUSIVE if reason else PASS, reason)


# ------------------------------------------------------------------ error feedback


def fed_back(**changed: Any) -> tuple[Case, dict[str, Array]]:
    """One step that keeps the first of three entries."""
    arguments = {"xi": np.array([0.5, 0.25, 1.0]), "g": np.array([3.5, 0.5, 1.0]), "block_size": 3, "density": 1 / 3}
    result = {"indices": np.array([0], np.int32), "values": np.array([4.0]), "xi": np.array([0.0, 0.75, 2.0])}
    return case_of("error_feedback", arguments), result | changed


@pytest.mark.parametrize(
    ("said", "times"),
    [((), 0), (("flush_to_zero",), 1), (("denormals_are_zero",), 2), (("flush_to_zero", "denormals_are_zero"), 3)],
)
def test_what_flushing_takes_from_a_sum(said: tuple[str, ...], times: int) -> None:
    """``u |a|``, and one normal number where the sum is flushed, two where xi and g are."""
    case, result = fed_back()
    declared = Declared({"accumulator": "float32", **dict.fromkeys(said, True)})
    _, bound, _ = selection._Step.of(case, result, declared).measured
    assert (bound == U * np.array([4.0, 0.75, 2.0]) + times * NORMAL).all()
    tiny = replace(case, arguments={**case.arguments, "xi": np.zeros(3), "g": np.zeros(3)})
    for moved, verdict in ((0.9, PASS), (1.1, FAIL)):
        values = np.array([moved * times * NORMAL or 1e-300 * (verdict == FAIL)])
        checks = judged(tiny, {**result, "values": values, "xi": np.zeros(3)}, declared)
        assert (FAIL in {c.verdict for c in checks}) == (verdict == FAIL)


@pytest.mark.parametrize(("stage", "line"), [("values", "1:6"), ("xi", "1:7")])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_said_before_anything_is_compared(stage: str, line: str, wrong: float) -> None:
    """T0, on the line of the stage."""
    case, result = fed_back()
    got = result[stage].copy()
    got[-1] = wrong
    checks = CRITERIA["error_feedback"](case, {**result, stage: got}, Declared())
    assert [(c.stage, c.tier, c.line) for c in checks if c.verdict == FAIL] == [(stage, "T0", line)]
    assert checks[-1].reason == f"{stage} holds NaN or infinity"


@pytest.mark.parametrize("precise", [True, False])
def test_the_inner_products_of_a_stack(precise: bool) -> None:
    """All at once, they are those one by one, within the error that is told, and that of binary64 is no larger."""
    rng = np.random.default_rng(6)
    P, Q, P2, Q2 = (rng.standard_normal(s) for s in ((4, 5, 2), (4, 7, 2), (5, 3), (7, 3)))
    stack = low_rank.inner_product(P, Q, P2, Q2, precise)
    for i in range(4):
        exact = ((P[i].astype(Long) @ Q[i].T) * (P2.astype(Long) @ Q2.T)).sum()
        size = ((np.abs(P[i]) @ np.abs(Q[i]).T) * (np.abs(P2) @ np.abs(Q2).T)).sum()
        gap = abs(float(Long(stack.value.hi[i]) + Long(stack.value.lo[i]) - exact))
        assert gap <= float(stack.error[i]) + 2.0**-60 * size
        assert stack.error[i] <= (2.0**-80 if precise else 2.0**-46) * size
        assert stack.magnitude[i] == pytest.approx(float(size), rel=1e-12)


def test_squares_are_those_of_the_whole_sum() -> None:
    """c^2 with c a pair: what the sum xi + g loses to binary64 is not lost in G + c^2."""
    rng = np.random.default_rng(7)
    c, G = rng.standard_normal(100), 1e-3 * rng.standard_normal(100) ** 2
    low = 0.49 * np.spacing(np.abs(c)) * rng.choice([-1, 1], 100)
    exact = G.astype(Long) + (c.astype(Long) * c.astype(Long) + 2 * c.astype(Long) * low.astype(Long))
    got = exact.astype(np.float64)
    bound = 2.0**-53 * (2 * np.abs(G) + 4 * c * c)
    want = (np.abs((got.astype(Long) - exact).astype(np.float64)) / bound).max()
    check = elementwise.squares(Pair(c, low), np.ones(100, bool), G, got, UNITS["float64"])
    assert check.verdict == PASS
    assert check.ratio == pytest.approx(float(want), rel=0.01)


@pytest.mark.parametrize(("said", "times"), [("flush_to_zero", 4), ("denormals_are_zero", 4), ("", 2.0**-23)])
def test_what_one_operation_of_a_solver_loses(said: str, times: float) -> None:
    """``(m + 2) 4 normal (1 + max(1, 1/lam))`` where anything is flushed, else tiny; x = 0, c G vanishes."""
    G, c, lam = 2.0**-78 * (1 + np.arange(6.0).reshape(2, 3)), np.full(2, 2.0**-78), 0.25
    result = {"S": G @ G.T, "h": np.zeros(2), "c": c}
    declared = Declared({"accumulator": "float32", **({said: True} if said else {})}, "factorisation")
    case = case_of("mfac_direction", {"G": G, "lam": lam, "x": np.zeros(3)})
    for moved, wrong in ((0.95, False), (1.05, True)):
        u = -(c @ G)
        u[1] += moved * 4 * times * NORMAL * 5
        found = [x for x in judged(case, {**result, "u": u}, declared) if (x.stage, x.line) == ("u", "W:4")]
        assert found
        assert (FAIL in {x.verdict for x in found}) == wrong


# ------------------------------------------------------------------ where a decision is not seen, or not blamed


@pytest.mark.parametrize(
    ("on", "k", "gone", "right"),
    [
        ([1, 0, 0], 1, 0.0, True), ([0, 0, 1], 1, 0.0, False), ([0, 1, 0], 1, 0.0, True), ([1, 1, 0], 1, 0.0, False),
        ([1, 0, 0], 2, 1.5, True), ([1, 0, 0], 2, 1.49, False), ([0, 0, 0], 0, 0.0, True), ([1, 0, 0], 0, 0.0, False),
        ([1, 1, 1], 3, 0.0, True), ([0, 0, 0], 1, 2.5, True), ([0, 0, 0], 1, 2.4, False),
    ],
)  # fmt: skip
def test_a_selection_that_u_shows(on: list[int], k: int, gone: float, right: bool) -> None:
    """Smallest sent ``|a| + r`` against largest kept back ``|a| - r``, ties included; up to ``gone`` it may be sent."""
    a = hidden.Followed(np.array([-3.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.125]))
    check = hidden._visible(a, np.array(on, bool), k, "1:6", gone)
    assert (check.verdict, check.line, check.stage) == (PASS if right else FAIL, "1:6", "selection")


@pytest.mark.parametrize(
    ("storage", "name", "gone"),
    [(None, "float32", TINY / 2), ("bfloat16", "float32", 2.0**-134), ("float64", "float32", TINY / 2),
     (None, "float64", 0.0), ("float16", "float32", 2.0**-25)],
)  # fmt: skip
def test_what_is_stored_as_zero(storage: str | None, name: str, gone: float) -> None:
    """Half of the smallest number of the storage, or of the result where that is coarser."""
    declared = Declared({"storage": storage} if storage else {})
    run = hidden.Run(case_of("topk_sgd", {}), declared, np.zeros((1, 1)), UNITS[name])
    assert hidden._gone(run) == gone


@pytest.mark.parametrize(("size", "lost"), [(0.9, True), (1.1, False)])
def test_when_a_factor_of_ggt_overflows(size: float, lost: bool) -> None:
    """``eps sigma (sigma + eps)`` below 1e-36, or above 1e36, or ``sum G^2`` above it: of float32."""

    def undecided(sigma: float, eps: float) -> bool:
        case = case_of("ggt_direction", {"eps": float(np.float32(eps)), "cutoff": 0.0})
        (*found,) = eigen._overflow(case, np.array([[sigma, 0.0]]), np.zeros(2, np.float32))
        assert all((c.verdict, c.reason, c.tier) == (INCONCLUSIVE, "overflow", "T0") for c in found)
        return bool(found)

    least, most = (size * 1e-36 / 2) ** (1 / 3), (1e36 / size / 2) ** (1 / 3)
    assert undecided(least, least) == lost
    assert undecided(most, most) == lost
    assert undecided((1e36 / size) ** 0.5, 1e-20) == lost
    assert not undecided(1.0, 1.0)


@pytest.mark.parametrize("shown", [True, False])
def test_the_decomposition_of_a_gram_matrix_that_is_hidden_or_not_symmetric(shown: bool) -> None:
    """``30 n 2u ||A||_1`` and the rounding of G G^T where it is hidden; where it is shown what it lacks in symmetry."""
    p = ggt_problem([2.0, 1.0, 0.5])
    gram = p.G @ p.G.T
    L, V = np.linalg.eigh(gram)
    arrays = {"eigenvalues": L, "eigenvectors": V}
    slack = 6 * (U * np.abs(p.G) @ np.abs(p.G).T + TINY)
    if shown:
        arrays["gram"] = gram + 1e-3 * np.triu(np.ones((3, 3)), 1)
        gram = gram + 0.5e-3 * (1 - np.eye(3))
        slack = 1e-3 * (1 - np.eye(3))
    norm = [float(np.abs(A).sum(axis=0).max()) for A in (gram, slack, V)]
    bound = 30 * 3 * 2 * U * norm[0] + norm[1]
    _, pairs, values = eigen._decomposition(p, arrays, Declared())
    assert pairs.bound == pytest.approx(bound + norm[1] * norm[2], rel=1e-6)
    assert values.bound == pytest.approx(bound, rel=1e-6)
    own = eigen.spectrum(p.matrix())[1]
    assert 0 < own < 1e-13
    if not shown:
        for times, reason in ((9.7, "oracle"), (10.3, "")):  # the bound, in units of the oracle's own error
            unit = replace(SINGLE, u=times * own / (bound / U), tiny=0.0)
            assert eigen._decomposition(replace(p, unit=unit), arrays, Declared())[-1].reason == reason


@pytest.mark.parametrize(("share", "line"), [(0.9, "K:4"), (1.1, "K:6")])
def test_how_near_the_vector_itself_is_too_near(share: float, line: str) -> None:
    """Top-k of v within 1e-5 of its entries: the basis was forgotten."""
    v = np.array([3.0, 4.0])
    b = scaled.Basis.of(np.array([[2.0, 1.0], [1.0, 2.0]]), v, SINGLE)
    assert b is not None
    assert scaled._blame(b, v, np.array([0.0, 4.0 * (1 + share * 1e-5)]), 1) == line


@pytest.mark.parametrize(("share", "line"), [(0.9, "K:5"), (1.1, "K:6")])
def test_how_near_another_selection_is_that_selection(share: float, line: str) -> None:
    """The room of b and 1e-4 of its largest entry."""
    H, v = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([3.0, 4.0])
    b = scaled.Basis.of(H, v, SINGLE)
    assert b is not None
    c = np.array([b.b[0] + share * (b.room[0] + 1e-4 * np.abs(b.b).max()), 0.0])
    assert scaled._blame(b, v, b.root @ c, 1) == line


@pytest.mark.parametrize(("room", "verdict"), [(0.26, INCONCLUSIVE), (0.24, FAIL)])
def test_when_a_selection_lies_within_rounding(room: float, verdict: str) -> None:
    """A quarter of an entry that is kept: another one may have been."""
    basis = scaled.Basis(np.eye(2), np.eye(2), np.array([2.0, 1.0]), np.array([2.0 * room, 0.0]), 0.0, SINGLE)
    check = scaled._judge(basis, np.array([2.0, 1.0]), np.array([9.0, 0.0]), 1, np.eye(2))
    assert check.verdict == verdict


# ------------------------------------------------------------------ conditions, one at a time


@pytest.mark.parametrize(
    ("c", "low", "G", "exact", "tier"),
    [
        (3.0, 0.0, 1.0, True, "T1"), (3.0, 0.0, 1.0, False, "T2"), (3.0, 2.0**-60, 1.0, True, "T2"),
        (4096.0, 0.0, 1.0, True, "T2"), (1.0, 0.0, 2.0**-60, True, "T2"), (1 + 2.0**-12, 0.0, -(2.0**-24), True, "T2"),
    ],
)  # fmt: skip
def test_when_a_square_is_exact(c: float, low: float, G: float, exact: bool, tier: str) -> None:
    """Said to be; a whole sum; c^2 and G + c^2 both numbers of the precision, the last to its last bit."""
    got = np.float32([c * c + G]).astype(float)
    a = Pair(np.array([c]), np.array([low]))
    check = elementwise.squares(a, np.ones(1, bool), np.array([G]), got, SINGLE, exact)
    assert check.tier == tier


@pytest.mark.parametrize(
    ("a", "low", "exact", "tier"),
    [(3.0, 0.0, True, "T1"), (3.0, 0.0, False, "T2"), (3.0, 2.0**-60, True, "T2"), (1 + 2.0**-30, 0.0, True, "T2")],
)
def test_when_an_error_that_is_kept_back_is_exact(a: float, low: float, exact: bool, tier: str) -> None:
    """Said to be; a whole sum, and a number of the precision."""
    checks, _ = elementwise.sent(Pair(np.array([9.0, a]), np.array([0.0, low])), np.array([0.0, a]),
                                 np.array([True, False]), 1, SINGLE, exact)  # fmt: skip
    assert {c.tier for c in checks} == {tier}


@pytest.mark.parametrize(
    ("p", "low", "sizes", "said", "exact"),
    [
        ([1.0, -3.0], 0.0, [2], True, True), ([1.0, -3.0], 0.0, [2], False, False), ([1.0, 0.0], 0.0, [2], True, False),
        ([1.0, -3.0], 2.0**-60, [2], True, False), ([1.0, -3.0, 2.0], 0.0, [3], True, False),
        ([1.0, -3.0, 2.0], 0.0, [1, 2], True, True), ([1.0, -3.0 + 2.0**-22], 0.0, [2], True, True),
        ([1.0, -3.0 - 2.0**-22], 0.0, [2], True, False),
    ],
)  # fmt: skip
def test_when_a_mean_magnitude_is_exact(p: list[float], low: float, sizes: list[int], said: bool, exact: bool) -> None:
    """Said to be; tensors of a power of two; no zero among p; a whole sum of at most 2^24 times the step."""
    value = Pair(np.array(p), np.full(len(p), low))
    signed = elementwise.Signed(value, np.abs(value.hi), np.zeros(len(p)), SINGLE, said, sizes)
    assert signed.exact == exact


@pytest.mark.parametrize(
    ("row", "fits"),
    [([4095.0, 90.0, 9.0, 3.0, 1.0], True), ([4095.0, 90.0, 9.0, 3.0, 1.0, 1.0], False), ([2.0**30], True),
     ([0.0], True)],
)  # fmt: skip
def test_when_products_of_rows_fit(row: list[float], fits: bool) -> None:
    """``sum |g_i g_j| <= step^2 2^24``: 4095^2 + 90^2 + 9^2 + 3^2 + 1 is 2^24."""
    G = np.array([row])
    case = case_of("mfac_direction", {"G": G, "lam": 1.0, "x": 0.5 * G[0]}, "exact")
    result = {"u": 0 * G[0], "S": G @ G.T, "h": 0.5 * (G @ G[0]), "c": np.zeros(1)}
    tiers = {c.stage: c.tier for c in judged(case, result, Declared({"accumulator": "float32"})) if c.tier != "T3"}
    assert {tiers["S"], tiers["h"]} == {"T1" if fits else "T2"}


@pytest.mark.parametrize(
    ("moved", "lost", "verdict"),
    [(0.5, False, PASS), (1.5, False, FAIL), (0.5, True, INCONCLUSIVE), (1.5, True, FAIL)],
)
def test_a_root_that_underflows_excuses_its_own_entry_alone(moved: float, lost: bool, verdict: str) -> None:
    """G below the normal numbers where something is moved: undecided, unless another entry fails."""
    c, G = np.array([1.0, 2.0**-64, 0.0]), np.array([1.0, 2.0**-128 if lost else 1.0, 0.0])
    right = -0.5 * c / np.sqrt(np.where(G > 0, G, 1))
    got = right.copy()
    got[0] += moved * 6 * U * 0.5
    check = elementwise.moved(np.zeros(3), c, G, 0.5, got, SINGLE, Declared(readings={"R29": "0"}))
    assert (check.verdict, check.reason == "underflow") == (verdict, verdict == INCONCLUSIVE)
    got = right.copy()
    got[1] *= 2
    check = elementwise.moved(np.zeros(3), c, G, 0.5, got, SINGLE, Declared(readings={"R29": "0"}))
    assert check.verdict == (INCONCLUSIVE if lost else FAIL)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ""), ({"row": 2}, ""), ({"row": 3}, "row holds 3..3, must be in 0..2"), ({"row": 0}, ""),
        ({"row": -1}, "row holds -1..-1, must be in 0..2"), ({"indices": -5}, ""), ({"indices": 4}, ""),
        ({"indices": -6}, "indices holds -6..0, must be in 0..4"), ({"indices": 5}, "indices holds 0..5, must be in"),
        ({"indices": 0.5}, "indices has dtype float64, must hold integers"), ({"t": 1.5}, "t has dtype float64"),
        ({"xi": np.nan}, "xi holds NaN or infinity"),
        ({"xi": np.zeros(5, complex)}, "xi has dtype complex128, must hold real numbers"),
        ({"values": np.zeros((3, 3))}, "values has shape (3, 3), "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_state(changed: dict[str, Any], words: str) -> None:
    """Shapes, then what is finite, whole, in range; an empty row may mark its places from the end."""
    run = hidden.Run(case_of("sparse_ggt", {}), Declared(), np.zeros((1, 5)), SINGLE, {"d": 5, "m": 3, "k": 2})
    state = {"xi": np.zeros(5), "indices": np.zeros((3, 2)), "values": np.zeros((3, 2)), "t": 1.0, "row": 1.0}
    shapes = replay._shapes(run)
    for name, value in changed.items():
        a = np.array(state[name])
        a[(0,) * a.ndim] = value if np.ndim(value) == 0 else 0
        state[name] = a if np.ndim(value) == 0 else value
    told = replay._wrong({name: np.asarray(a) for name, a in state.items()}, shapes, run)
    assert told.startswith(words)
    assert bool(told) == bool(words)


def test_the_checks_of_several_steps_are_told_as_one() -> None:
    """The largest ratio of a stage, its undecided steps in words; a step that is broken ends it, and is named."""
    first = Check("u", "T2", "W:4", "", 0.25, PASS, "", (3,))
    larger, smaller = replace(first, ratio=0.5, at=(4,)), replace(first, ratio=0.125)
    vague = replace(first, verdict=INCONCLUSIVE, ratio=0.0, reason="vacuous")
    declare = replace(vague, reason="reading R4: declare READINGS")
    stop = Check("trajectory", "T2", "1:6", "", verdict=INCONCLUSIVE, reason="stop")
    broken = replace(first, verdict=FAIL, ratio=9.0, reason="wrong")
    (one,) = replay._merged(iter([[first], [larger], [smaller]]))
    assert (one.ratio, one.at) == (0.5, (2, 4))
    (one,) = replay._merged(iter([[vague], [smaller], [first], [declare], [vague]]))
    assert (one.ratio, one.verdict) == (0.25, PASS)
    assert one.reason == "3 steps undecided: reading R4: declare READINGS"
    (one,) = replay._merged(iter([[vague], [declare]]))
    assert (one.verdict, one.reason, one.at) == (INCONCLUSIVE, declare.reason, (2, 3))
    (one,) = replay._merged(iter([[vague], [vague]]))
    assert one.at == (1, 3)
    both = replay._merged(iter([[first], [stop]]))
    assert [(c.stage, c.verdict, c.reason) for c in both] == [("u", PASS, ""), ("trajectory", INCONCLUSIVE, "stop")]
    (one,) = replay._merged(iter([[replace(stop, verdict=PASS)], [stop]]))
    assert (one.verdict, one.at) == (INCONCLUSIVE, (2,))
    told = replay._merged(iter([[larger], [smaller, broken], [broken]]))
    assert [(c.ratio, c.at) for c in told] == [(0.5, (1, 4)), (0.125, (2, 3)), (9.0, (2, 3))]
    assert [c.reason for c in told] == ["", "", "step 2: wrong"]


@pytest.mark.parametrize(("share", "mgs", "undeclared"), [(1.0, PASS, PASS), (1 + 2.0**-40, FAIL, INCONCLUSIVE)])
def test_a_loss_of_orthogonality_equal_to_what_is_allowed(share: float, mgs: str, undeclared: str) -> None:
    """cond(M Q) = 2, and ``||P^T P - I|| = 8 p rho u cond`` to the last bit: inside."""
    P = np.diag([1.0, 1 + 2.0**-6])
    loss = 2.0**-5 + 2.0**-12
    unit = replace(SINGLE, u=loss / (8 * 2 * 2 * 2) / share)
    for said, verdict in (("mgs", mgs), (None, undeclared), ("svd", FAIL), ("cgs", PASS)):
        check = low_rank._orthonormal(np.diag([2.0, 1.0]), P, unit, Declared(orthogonalisation=said))
        assert (check.got, check.verdict) == (loss, verdict)


@pytest.mark.parametrize(
    ("said", "tier"),
    [({}, "T1"), ({"flush_to_zero": True}, "T2"), ({"denormals_are_zero": True}, "T2"), ({"depth": 2}, "T1"),
     ({"accumulator": "float64"}, "T2"), ({"accumulator": "float32"}, "T1"), ({"accumulator": "bfloat16"}, "T1")],
)  # fmt: skip
@pytest.mark.parametrize("operation", ["sp", "lcg", "mfac_direction"])
def test_equality_is_not_asked_where_something_else_rounds(operation: str, said: dict[str, Any], tier: str) -> None:
    """Whole numbers in float32, and said to be: but flushed, or rounded once more to be stored."""
    arguments, result, stage = sums_of(operation, 1.0)
    result = {name: np.float32(value) for name, value in result.items()}
    checks = judged(case_of(operation, arguments, "exact"), result, Declared(said, "factorisation"))
    assert (checks[0].stage, checks[0].tier, checks[0].verdict) == (stage, tier, PASS)


def test_a_sparse_window_of_ggt_has_k_products_in_an_entry() -> None:
    """``k u |G||G|^T + k tiny`` of the Gram matrix: not d, not m, and not fewer where fewer positions are shared."""
    rng = np.random.default_rng(8)
    values, x = (np.float32(rng.standard_normal(s)).astype(float) for s in ((3, 5), 9))
    indices = np.sort(rng.permuted(np.tile(np.arange(9), (3, 1)), axis=1)[:, :5], axis=1).astype(np.int32)
    G = np.zeros((3, 9))
    np.put_along_axis(G, indices.astype(int), values, axis=1)
    arguments = {"indices": indices, "values": values, "x": x, "d": 9, "eps": 0.5, "cutoff": 0.0}
    L, V = np.linalg.eigh(G @ G.T)
    result = {"u": x / 0.5 - G.T @ (V / (0.5 * np.sqrt(L) * (np.sqrt(L) + 0.5))) @ V.T @ G @ x}
    bound = 5 * (U * np.abs(G) @ np.abs(G).T + TINY)
    for moved, verdict in ((0.9, PASS), (1.1, FAIL)):
        gram = G @ G.T
        gram[0, 1] += moved * bound[0, 1]
        case = case_of("sparse_ggt_direction", arguments)
        check = worst(judged(case, {**result, "gram": gram}, Declared({"accumulator": "float32"})), "gram")
        assert (check.verdict, check.at) == (verdict, (0, 1))
        assert check.ratio == pytest.approx(moved, rel=1e-6)


def test_what_a_sum_loses_to_underflow() -> None:
    """n tiny; 2n normal where results are flushed; where operands are, a normal number times each of them, if any."""
    for said, lost in (((), 3 * TINY), (("flush_to_zero",), 6 * NORMAL), (("denormals_are_zero",), 3 * TINY)):
        p = precision(Declared(dict.fromkeys(said, True)), np.zeros(1, np.float32))
        assert p.tiny(3) == lost
        assert p.tiny(3, 5.0) == lost + 5 * NORMAL * ("denormals_are_zero" in said)
    p = precision(Declared({"depth": 4}), np.zeros(1, np.float32))
    assert p.roundings(np.array([3, 5, 9])).tolist() == [3, 5, 5]
    assert p.stored(2.0, 1.0) == 2.0
    p = precision(Declared({"accumulator": "float32"}), np.zeros(1, ml_dtypes.bfloat16))
    assert p.stored(2.0, -4.0) == 2.0 + 2.0**-8 * 6.0 + 2.0**-134
    assert p.roundings(9) == 9


def test_an_eigenvalue_equal_to_the_noise_is_noise() -> None:
    """``30 m 2u L + m k tiny`` is 4 for this unit, and so is the eigenvalue."""
    case = case_of("ggt_direction", {"x": np.ones(2), "eps": 0.5, "cutoff": 0.0})
    for tiny, reason in ((0.125, eigen.NOISE), (0.125 - 2.0**-40, eigen.CUT)):
        p = eigen.Problem.of(case, np.array([[2.0, 0.0]]), 2, replace(SINGLE, u=2.0**-6, tiny=tiny))
        assert (p.noise(4.0) == 4.0) == (tiny == 0.125)
        assert eigen.reference(p)[3] == reason


@pytest.mark.parametrize(
    ("dtype", "value", "right"),
    [
        (np.float16, 1.0, True), (np.float16, 1 + 2.0**-10, True), (np.float16, 1 + 2.0**-9, False),
        (np.float32, 1 + 2.0**-11, True), (np.float32, 1.0, False), (np.float64, 1 + 2.0**-11, False),
        (np.float64, 1 + 2.0**-11 + 2.0**-40, True),
    ],
)  # fmt: skip
def test_how_a_value_may_be_rounded_to_be_stored(dtype: Any, value: float, right: bool) -> None:
    """To nearest; to 16 bits also by way of float32, where this is a tie and goes to the even number."""
    case = case_of("top_k", {"a": np.array([1 + 2.0**-11 + 2.0**-40, 0.5]), "k": 1})
    result = {"indices": np.zeros(1, np.int32), "values": np.array([value]).astype(dtype)}
    check = next(c for c in judged(case, result) if c.stage == "values")
    assert check.verdict == (PASS if right else FAIL)


@pytest.mark.parametrize(
    ("said", "tiny"), [("", TINY), ("flush_to_zero", 4 * NORMAL), ("denormals_are_zero", 4 * NORMAL)]
)
def test_what_a_direction_alone_loses_to_underflow(said: str, tiny: float) -> None:
    """``(m + 3) tiny (1 + 1/lam)`` where x = 0 and S vanishes; a flushed operation loses 4 normal numbers."""
    G = 2.0**-78 * (1 + np.arange(6.0).reshape(2, 3))
    case = case_of("mfac_direction", {"G": G, "lam": 0.25, "x": np.zeros(3)})
    declared = Declared({"accumulator": "float32", **({said: True} if said else {})}, "factorisation")
    for moved, verdict in ((0.95, PASS), (1.05, FAIL)):
        u = np.array([0.0, moved * 5 * tiny * 5, 0.0])
        check = worst(judged(case, {"u": u}, declared), "u")
        assert check.verdict == verdict
        assert check.ratio == pytest.approx(moved, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "left", "line"),
    [
        ([4.0], [0.0, 0.5, 1.0], "1:5"),  # g's own: nothing was fed back
        ([4.0], [0.0, 0.25, 1.5], "1:5"),  # the old error, untouched
        ([4.0], [0.0, 0.75, 1.0], "1:7"), ([4.0], [0.0, 0.5, 2.0], "1:7"),
        ([4.5], [0.0, 0.75, 2.5], "1:6"), ([4.5], [0.0, 0.5, 2.5], "1:5"), ([4.5], [0.0, 0.25, 1.5], "1:5"),
    ],
)  # fmt: skip
def test_which_line_is_blamed_where_values_and_error_do_not_add_up(values: list, left: list, line: str) -> None:
    """Kept: what a = g is, so that the values are right either way; dropped: g, the old error, or something else."""
    xi, g = np.array([0.0, 0.25, 1.5]), np.array([4.0, 0.5, 1.0])
    case, result = fed_back(values=np.array(values), xi=np.array(left))
    case = replace(case, arguments={**case.arguments, "xi": xi, "g": g})
    step = selection._Step.of(case, result, Declared())
    assert selection._blame(step, step.measured[2]) == line


@pytest.mark.parametrize(
    ("ulps", "cut"), [(4.0, True), (4.0 + 2.0**-20, False), (-4.0, True), (-4.0 - 2.0**-20, False), (0.0, True)]
)
def test_the_edge_of_the_cut_off_belongs_to_it(ulps: float, cut: bool) -> None:
    """``|L - cutoff L_max| <= 8u cutoff L_max``, 4u where the cut-off is a half: whichever way it went is undecided."""
    p = ggt_problem([1.0, 0.5], 0.5)
    arrays = {"eigenvalues": np.array([0.5 + ulps * U, 1.0]), "eigenvectors": np.eye(2), "u": np.full(6, 9.0)}
    (check,) = eigen._given(p, arrays)
    assert (check.verdict, check.reason) == ((INCONCLUSIVE, eigen.CUT) if cut else (FAIL, ""))


def test_which_solver_classes_are_asked() -> None:
    """Undeclared: the strict bound, LU's own, then that of eigenvalues times the larger condition; declared: one."""
    asked: list[tuple[str | None, float]] = []

    def judged_by(right: str | None) -> Any:
        def one(solver: str | None, times: float) -> Check:
            asked.append((solver, times))
            return Check("c", "T2", "W:3", "", verdict=PASS if solver == right else FAIL)

        return one

    order: list[tuple[str | None, float]] = [(None, 1.0), ("lu", 1.0), ("eigh", 7.0)]
    for right, n, verdict in ((None, 1, PASS), ("lu", 2, INCONCLUSIVE), ("eigh", 3, INCONCLUSIVE), ("none", 3, FAIL)):
        for conditions in ((3.0, 7.0), (7.0, 3.0)):
            asked.clear()
            assert fisher._classes(judged_by(right), None, *conditions).verdict == verdict
            assert asked == order[:n]
    for solver, times in (("inverse", 3.0), ("eigh", 3.0), ("dense", 7.0), ("lu", 1.0), ("factorisation", 1.0)):
        asked.clear()
        assert fisher._classes(judged_by("none"), solver, 3.0, 7.0).verdict == FAIL
        assert asked == [(solver, times)]


def test_what_a_criterion_reads_cannot_be_changed_under_it() -> None:
    """Every record of the criteria is frozen but the layer that is followed from step to step."""
    names = [m.name for m in pkgutil.walk_packages(criteria.__path__, criteria.__name__ + ".")]
    found = {
        value
        for name in names
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__.startswith(criteria.__name__)
    }
    assert len(found) > 10
    assert {kind for kind in found if not kind.__dataclass_params__.frozen} == {hidden.Layer}


def test_a_gap_that_rounding_may_close_bounds_nothing() -> None:
    """Divided differences between a kept and a dropped eigenvalue closer than ``2 delta``: infinite."""
    p = ggt_problem([2.0, 1.0, 0.1], 0.1)
    L, V = np.linalg.eigh(p.G @ p.G.T)
    for delta, finite in ((0.494, True), (0.496, False)):  # 1 - 0.01 is 2 * 0.495
        assert np.isfinite(eigen._loewner(p, L, V, L > 0.4, delta)).all() == finite


@pytest.mark.parametrize(("m", "d", "C"), [(3, 9, 2 * 3 + 2 * 9 + 12), (9, 2, 3 * 9 + 2 + 12), (4, 4, 16 + 12)])
def test_the_weights_of_a_direction_of_ggt(m: int, d: int, C: int) -> None:
    """``C = max(2m + 2d, 3m + d) + 12`` and what line 11 loses where sigma is small, wide windows and tall ones."""
    sigma, eps = np.array([0.01, 1.0, 3.0]), 0.25
    F, CF = eigen.weights(sigma, eps, m, d)
    assert np.allclose(F, 1 / (eps * sigma * (sigma + eps)), rtol=1e-14, atol=0)
    assert np.allclose(CF, C * F + 4 * (1 / (sigma + eps) + 4) / sigma**2, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("share", "mgs", "undeclared"), [(1.0, PASS, INCONCLUSIVE), (1 + 2.0**-40, INCONCLUSIVE, FAIL)]
)
def test_a_tenth_may_be_lost_and_no_more(share: float, mgs: str, undeclared: str) -> None:
    """cond(M Q) = 2: what MGS may lose, and what undeclared CGS may, is a tenth to the last bit, or just above it."""
    P = np.diag([1.0, 1 + 2.0**-5])  # loses 2^-4 + 2^-10
    for said, power, verdict in (("mgs", 2, mgs), (None, 4, undeclared)):
        unit = replace(SINGLE, u=share * 0.1 / (8 * 2 * 2) / power)
        check = low_rank._orthonormal(np.diag([2.0, 1.0]), P, unit, Declared(orthogonalisation=said))
        assert check.verdict == verdict


def test_the_first_number_that_is_not_finite_is_shown() -> None:
    """Of the first result that holds one."""
    result = {"u": np.ones(3), "gram": np.array([[1.0, 2.0], [np.inf, np.nan]]), "eigenvalues": np.array([np.nan])}
    (check,) = eigen.finite(result, ("u", "gram", "eigenvalues"), "4:11")
    assert (check.stage, check.at, check.tier, check.line) == ("gram", (1, 0), "T0", "4:11")
    assert eigen.finite(result, ("u",), "4:11") == []


@pytest.mark.parametrize(("moved", "line"), [(2.9, ""), (3.1, "1:6")])
def test_a_vector_is_stored_whole(moved: float, line: str) -> None:
    """``|P - a| <= 3u |a| + tiny``, whatever xi' makes up for; a matrix is not held to that."""
    a = np.array([[3.0], [-2.0], [0.0]])
    P = a.copy()
    P[1] += moved * U * 2.0
    for whole in (True, False):
        check = factored._residual(a, a - P, P, np.ones((1, 1)), SINGLE, whole)
        assert check.verdict == (FAIL if line and whole else PASS)
        assert check.line == ("1:6" if whole else "1:7")
    assert check.ratio == 0
    small = 2.0**-149 * np.array([[0.0], [0.9 if not line else 1.1]])
    check = factored._residual(0 * small, 0 * small - small, small, np.ones((1, 1)), SINGLE, True)
    assert check.verdict == (FAIL if line else PASS)


def test_where_every_entry_is_kept_no_other_could_be() -> None:
    """Then, or where none is, rounding of b explains no selection."""
    basis = scaled.Basis(np.eye(2), np.eye(2), np.array([2.0, 1.0]), np.array([1.0, 1.0]), 0.0, SINGLE)
    for k, verdict in ((2, FAIL), (1, INCONCLUSIVE), (0, FAIL)):
        assert scaled._judge(basis, np.array([2.0, 1.0]), np.array([9.0, 9.0]), k, np.eye(2)).verdict == verdict


@pytest.mark.parametrize(
    ("times", "undeclared", "mrrr"),
    [(29.9, PASS, PASS), (30.1, INCONCLUSIVE, PASS), (499.0, INCONCLUSIVE, PASS), (501.0, FAIL, FAIL)],
)
def test_the_loss_that_a_driver_may_have(times: float, undeclared: str, mrrr: str) -> None:
    """``30 n 2u``, of MRRR ``500 n 2u``; between them the driver is asked for."""
    loss = times * 3 * 2 * U
    for declared, verdict in ((Declared(), undeclared), (Declared({"eigensolver": "mrrr"}), mrrr)):
        check = eigen._orthogonal(loss, 3, SINGLE, declared)
        assert check.verdict == verdict
        assert check.ratio == pytest.approx(times / (500 if declared.arithmetic else 30))
