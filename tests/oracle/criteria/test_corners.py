"""Where a criterion decides nothing, and where it blames: each condition from both of its sides."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Declared
from efcp_ref.oracle.criteria import CRITERIA, eigen, elementwise, fisher, low_rank, scaled, workers
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay import hidden
from efcp_ref.oracle.criteria.sums import least, plain, scattered, untouched
from efcp_ref.oracle.exact import Pair, pair

U = 2.0**-24
NONE = Declared()


def case_of(operation: str, arguments: dict[str, Any], *flags: str) -> Case:
    return Case(operation, "generic", "", 0, 0, arguments, frozenset(flags))


def judged(operation: str, arguments: dict[str, Any], result: dict[str, Any], declared: Declared = NONE, *flags: str):
    return list(CRITERIA[operation](case_of(operation, arguments, *flags), result, declared))


def failing(checks: Any) -> list[tuple[str, str]]:
    return [(c.stage, c.line) for c in checks if c.verdict == FAIL and c.tier != "T3"]


# ------------------------------------------------------------------ one inequality


def forward(got: Any, ref: Any, bound: Any, **more: Any):
    return t0.forward("s", "1:1", "rule", np.asarray(got, np.float64), np.asarray(ref, np.float64), bound, **more)


def test_vacuous_and_oracle_are_decided_entry_by_entry():
    assert forward([1.0], [1.0], 2.0, magnitude=2.0).reason == "vacuous"
    assert forward([3.0], [1.0], 2.0, magnitude=2.0).reason == "vacuous"  # a gap equal to the bound is inside it
    assert forward([3.0 + 2.0**-40], [1.0], 2.0, magnitude=2.0).verdict == FAIL
    assert forward([1.0], [1.0], 1.99, magnitude=2.0).verdict == PASS
    assert forward([0.0], [0.0], 1.0, magnitude=0.0).verdict == PASS
    assert forward([1.0], [1.0], 1.0, error=0.11).reason == "oracle"
    assert forward([1.0], [1.0], 1.0, error=0.09).verdict == PASS
    mixed = forward([1.0, 1.2], [1.0, 1.0], np.array([2.0, 0.5]), magnitude=np.array([2.0, 2.0]))
    assert (mixed.verdict, mixed.at, mixed.ratio) == (PASS, (1,), pytest.approx(0.4))
    beyond = forward([9.0, 1.0], [1.0, 1.0], np.array([2.0, 0.5]), magnitude=np.array([2.0, 2.0]))
    assert (beyond.verdict, beyond.at, beyond.ratio) == (FAIL, (0,), pytest.approx(4.0))
    two = forward([1.0, 1.0], [1.0, 1.0], np.array([2.0, 1.0]), magnitude=2.0, error=np.array([0.0, 0.2]))
    assert two.reason == "vacuous"


def test_the_certified_error_is_added_to_the_bound():
    check = forward([1.5], [1.0], 1.0, error=0.05)
    assert (check.ratio, check.bound) == (pytest.approx(0.5 / 1.05), pytest.approx(1.05))
    assert forward([2.04], [1.0], 1.0, error=0.05).verdict == PASS
    assert forward([2.06], [1.0], 1.0, error=0.05).verdict == FAIL


def test_equal_is_zero_and_anything_else_infinite_where_the_bound_is_zero():
    assert t0.equal("s", "1:1", "r", np.array([0.0]), np.array([-0.0])).ratio == 0
    check = t0.equal("s", "1:1", "r", np.array([1.0, 5e-324]), np.array([1.0, 0.0]))
    assert (check.verdict, check.ratio, check.at, check.tier) == (FAIL, np.inf, (1,), "T1")


def test_an_infinity_is_judged_up_to_a_quarter_of_the_largest_number():
    for size, verdict in ((2.0**125, INCONCLUSIVE), (2.0**124, FAIL)):
        check = forward([np.inf], [1.0], 1.0, magnitude=size, largest=2.0**127)
        assert check.verdict == verdict
    assert forward([np.inf], [1.0], 1.0, magnitude=2.0**126, largest=2.0**127).reason == "overflow"
    both = forward([np.inf, 3.0], [1.0, 3.0], 1.0, magnitude=2.0**126, largest=2.0**127)
    assert (both.verdict, both.at) == (PASS, (1,))
    lost = forward([1.0, np.nan], [1.0, 2.0], 1.0)
    assert (lost.tier, lost.at, lost.expected, lost.reason) == ("T0", (1,), 2.0, "s[1] is nan, must be finite")
    assert forward([np.inf], [1.0], 1.0).verdict == FAIL


def test_nothing_to_judge_passes():
    assert forward(np.zeros(0), np.zeros(0), 1.0).verdict == PASS


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "is missing"), ([1.0, 2.0], "is a list, must be an array"),
        (np.zeros(3), "has shape (3,), must have shape (2,)"),
        (np.zeros(2, int), "has dtype int64, must hold real floating-point numbers"),
        (np.zeros(2, complex), "has dtype complex128, must hold real floating-point numbers"),
    ],
)  # fmt: skip
def test_results_of_the_wrong_kind_are_said(value: Any, said: str):
    arguments = {"indices": np.zeros((2, 1), np.int32), "values": np.ones((2, 1)), "g": np.ones(3), "block_size": 3,
                 "density": 1 / 3}  # fmt: skip
    (check,) = judged("sp", arguments, {"omega": value})
    assert (check.tier, check.stage, check.reason, check.line) == ("T0", "omega", f"omega {said}", "2:11")


def test_a_missing_stage_is_no_failure_but_a_wrong_one_is():
    arguments = {"G": np.eye(2), "lam": 1.0, "x": np.ones(2)}
    u = np.ones(2) - 0.5 * np.ones(2) / 1.5
    right = {"u": np.ones(2) - np.ones(2) / 3, "S": np.eye(2), "h": None, "c": None}
    assert failing(judged("mfac_direction", arguments, right)) == []
    assert failing(judged("mfac_direction", arguments, {**right, "S": np.eye(3), "u": u}))[0][0] == "S"


def test_indices_must_be_integers():
    arguments = {"a": np.ones(2), "k": 1}
    (check,) = judged("top_k", arguments, {"indices": np.zeros(1), "values": np.ones(1)})
    assert check.reason == "indices has dtype float64, must hold integers"
    for kind in (np.uint16, np.int64):
        assert failing(judged("top_k", arguments, {"indices": np.zeros(1, kind), "values": np.ones(1)})) == []


def test_the_coarsest_precision_counts():
    p = t0.precision(NONE, np.zeros(1, np.float32), np.zeros(1))
    assert (p.unit.name, p.store, p.precise, p.depth) == ("float32", None, False, None)
    p = t0.precision(Declared(arithmetic={"accumulator": "float32"}), np.zeros(1, ml_dtypes.bfloat16))
    assert (p.unit.name, p.store and p.store.name, p.largest) == ("float32", "bfloat16", 2.0**127)
    p = t0.precision(Declared(arithmetic={"accumulator": "float32"}), np.zeros(1, np.float16))
    assert p.largest == 2.0**15
    p = t0.precision(Declared(arithmetic={"accumulator": "float64"}), np.zeros(1))
    assert (p.unit.name, p.store, p.precise) == ("float64", None, True)


def test_a_window_may_be_rounded_to_its_declared_storage():
    arguments = {"indices": np.zeros((1, 1), np.int32), "values": np.array([[1 + 2.0**-12]]), "g": np.ones(1),
                 "block_size": 1, "density": 1.0}  # fmt: skip
    said = Declared(arithmetic={"storage": "bfloat16"})
    for omega, right in ((1 + 2.0**-12, True), (1.0, True), (1 + 2.0**-11, False)):
        assert (failing(judged("sp", arguments, {"omega": np.array([omega])}, said)) == []) == right
    assert failing(judged("sp", arguments, {"omega": np.ones(1)})) != []
    assert len(t0.storages(case_of("sp", {**arguments, "values": np.ones((1, 1))}), said, "values")) == 1


def test_the_first_attempt_that_does_not_fail_else_the_first():
    good, bad, other = (t0.passed("a", "T1", "", ""),), (t0.failed("b", "T1", "", "", ""),), (
        t0.failed("c", "T1", "", "", ""),)  # fmt: skip
    assert least([bad, good, other]) is good
    assert least([bad, other]) is bad
    assert t0.broken(bad)
    assert not t0.broken([t0.failed("a", "T3", "", "", "")])


def test_sums_in_pairs_and_in_binary64_say_how_wrong_they_may_be():
    terms = np.array([[1.0, 2.0**-60, -1.0]])
    told = plain(terms)
    assert told.error[0] == 3 * 2.0**-53 * 2
    indices = np.array([[0, 1, 2], [0, 1, 3]])
    values = np.array([[1.0, 2.0, 3.0], [2.0**-60, -2.0, 4.0]])
    exact, quick = scattered(indices, values, 5, True), scattered(indices, values, 5, False)
    assert exact.value.hi.tolist() == [1.0, 0.0, 3.0, 4.0, 0.0]
    assert exact.value.lo.tolist() == [2.0**-60, 0, 0, 0, 0]
    assert exact.magnitude.tolist() == [1.0, 4.0, 3.0, 4.0, 0.0]
    assert np.array_equal(exact.error, 2 * 2.0**-103 * exact.magnitude)
    assert np.array_equal(quick.error, 2 * 2.0**-53 * exact.magnitude)
    assert untouched("omega", "3:27", np.zeros(2), np.array([True, False])).verdict == PASS


# ------------------------------------------------------------------ F^-1 x


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_where_a_factorisation_may_break_down(scale: float):
    """``lambda_min(D^-1/2 M D^-1/2) <= 2 m (m + 1) u``, whatever the scale of the rows."""
    D = np.diag([scale, 3.0])
    for least_, breaks in ((11.0, True), (13.0, False)):
        rho = 1 - least_ * U
        M = D @ np.array([[1.0, rho], [rho, 1.0]]) @ D
        assert fisher._breaks_down(M, U) == breaks
    assert fisher._breaks_down(np.diag([1.0, 0.0]), U)
    assert fisher._breaks_down(np.diag([1.0, -1.0]), U)


@pytest.mark.parametrize(("shift", "excused"), [(0.9, True), (1.1, False), (20.0, False)])
def test_when_a_solver_error_is_excused(shift: float, excused: bool):
    """``m lam <= u max S_ii``, or M breaks down; orthogonal rows do not."""
    lam = float(np.float32(shift * 16 * U / 2))
    case = case_of("mfac_direction", {"G": np.diag([4.0, 1.0]), "lam": lam, "x": np.ones(2)})
    assert fisher.excused(case, NONE, U) == excused
    near = {"G": np.array([[1.0, 0], [1.0, 2.0**-14]]), "x": np.ones(2)}
    for share, breaks in ((15.5, True), (16.5, False)):  # least eigenvalue of the scaled M: 2 lam, to first order
        assert fisher.excused(case_of("mfac_direction", {**near, "lam": share * U / 2}), NONE, U) == breaks


def test_what_excuses_a_solver_error_counts_the_rounding_of_S_and_the_reading_of_m():
    """``(2m(m+1) + m k) u``: k of 2,000 equal terms; m lam, or lam times the number stored where R4 is not declared."""
    G = np.ones((2, 2000))  # least eigenvalue of the scaled M: shift / 2000
    said = Declared(readings={"R4": "m"})
    for share, breaks in ((0.99, True), (1.01, False)):
        assert fisher.indefinite(G, share * (12 + 2 * 2000) * U * 2000 / 2, U, said) == breaks
    G, lam = np.vstack([G, np.zeros(2000)]), (24 + 3 * 2000) * U * 2000 / 2.5  # three rows, of which two are stored
    for declared, breaks in ((NONE, True), (Declared(readings={"R4": "stored"}), True), (said, False)):
        assert fisher.indefinite(G, lam, U, declared) == breaks


def test_lam_is_below_the_noise_up_to_equality():
    """``m lam <= u max S_ii`` is undecided: here 1 is compared with 2^-24 2^24, then with one part in 2^23 less."""
    for lam, undecided in ((1.0, True), (1.0 + 2.0**-23, False)):
        arguments = {"G": np.array([[4096.0, 0.0]]), "lam": lam, "x": np.ones(2)}
        checks = judged("mfac_direction", arguments, {"u": np.zeros(2, np.float32)})
        assert ({c.reason for c in checks if c.verdict == INCONCLUSIVE} == {fisher.NOISE}) == undecided


def test_what_is_not_finite_is_excused_by_the_rounding_of_what_is_hidden_alone():
    """u, S hidden: up to ``(2m(m+1) + m k) u``; c, S shown: up to ``2m(m+1) u``; a finite u is judged as ever."""
    G, x = np.array([[1.0, 0], [1.0, 2.0**-14]]), np.ones(2)  # least eigenvalue of the scaled M: 2 lam, to first order
    S, h = (a.astype(np.float32) for a in (G @ G.T, G @ x))
    bad = np.full(2, np.nan, np.float32)
    for share, alone, shown in ((11.5, True, True), (13.0, True, False), (15.5, True, False), (16.5, False, False)):
        arguments = {"G": G, "lam": share * U / 2, "x": x}
        for result, excused in (({"u": bad}, alone), ({"u": bad, "S": S, "h": h, "c": bad}, shown)):
            checks = judged("mfac_direction", arguments, result)
            assert ("indefinite" in {c.reason for c in checks}) == excused, (share, result)
        checks = judged("mfac_direction", arguments, {"u": np.ones(2, np.float32)})
        assert "indefinite" not in {c.reason for c in checks}


def test_storage_may_make_a_window_indefinite():
    """Two rows that differ beyond 8 bits are one row in bfloat16."""
    case = case_of("mfac_direction", {"G": np.array([[1.0, 1.0], [1.0, 1.001]]), "lam": 1e-7, "x": np.ones(2)})
    assert not fisher.excused(case, NONE, 2.0**-30)
    assert fisher.excused(case, Declared(arithmetic={"storage": "bfloat16"}), 2.0**-24)


def mfac(count: int | None = None, triangle: Any = None, rows: int = 4) -> tuple[dict[str, Any], dict[str, Any]]:
    """A window whose last row is empty, solved with ``count`` for m, from one triangle of S."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((rows, 6)).astype(np.float32).astype(np.float64)
    G[-1] = 0
    x, lam = np.ones(6), 0.5
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(S + lam * (count or rows) * np.eye(rows), h) / lam
    return {"G": G, "lam": lam, "x": x}, {"u": x / lam - c @ G, "S": S, "h": h, "c": c}


def test_the_number_stored_is_a_reading():
    arguments, result = mfac(3)
    (check,) = [c for c in judged("mfac_direction", arguments, result) if c.verdict == INCONCLUSIVE]
    assert "R4" in check.reason
    assert failing(judged("mfac_direction", arguments, result, Declared(readings={"R4": "stored"}))) == []
    assert failing(judged("mfac_direction", arguments, result, Declared(readings={"R4": "m"}))) == [("c", "W:3")]
    arguments, result = mfac()
    assert failing(judged("mfac_direction", arguments, result)) == []
    assert failing(judged("mfac_direction", arguments, result, Declared(readings={"R4": "stored"}))) == [("c", "W:3")]
    arguments, result = mfac(2)
    assert failing(judged("mfac_direction", arguments, result)) == [("c", "W:3")]


@pytest.mark.parametrize("upper", [True, False])
def test_either_triangle_of_S_may_be_read(upper: bool):
    """Asymmetric S: c solves with one triangle mirrored, with the other it need not; with neither it fails."""
    arguments, _ = mfac()
    G, lam, x = arguments["G"].astype(np.float32), 0.5, arguments["x"].astype(np.float32)
    S = (G @ G.T).astype(np.float32)
    S[0, 1] *= np.float32(1 + 3 * U)
    half = np.triu(S, 1) if upper else np.tril(S, -1)
    M = (half + half.T + np.diag(S.diagonal())).astype(np.float64)
    h = (G @ x).astype(np.float32)
    c = (np.linalg.solve(M + 2 * np.eye(4), h.astype(np.float64)) / lam).astype(np.float32)
    u = (x / np.float32(lam) - c @ G).astype(np.float32)
    assert failing(judged("mfac_direction", arguments, {"u": u, "S": S, "h": h, "c": c})) == []
    low, high = fisher._triangles(pair(S.astype(np.float64)))[1:]
    assert np.array_equal(low.hi, low.hi.T)
    assert np.array_equal(np.tril(low.hi), np.tril(S))
    assert np.array_equal(np.triu(high.hi), np.triu(S))
    assert len(fisher._triangles(Pair(np.eye(2), np.zeros((2, 2))))) == 1


def test_powers_of_two_are_dyadic():
    assert [fisher._dyadic(a) for a in (1.0, 0.25, 8.0, 3.0, 0.75)] == [True, True, True, False, False]


def test_an_identity_is_solved_exactly():
    """M = 4^p I: equality is asked of c and u; elsewhere it is not."""
    arguments = {"G": np.zeros((2, 3)), "lam": 2.0, "x": np.array([1.0, 2.0, 3.0])}
    arguments["G"][0, 0] = arguments["G"][1, 1] = 0.0
    result = {"u": arguments["x"] / 2, "S": np.zeros((2, 2)), "h": np.zeros(2), "c": np.zeros(2)}
    tiers = {c.stage: c.tier for c in judged("mfac_direction", arguments, result, NONE, "exact") if c.tier != "T0"}
    assert tiers["c"] == "T1"
    wrong = {**result, "c": np.array([2.0**-60, 0])}
    assert failing(judged("mfac_direction", arguments, wrong, NONE, "exact"))[0] == ("c", "W:3")


# ------------------------------------------------------------------ GGT


def ggt_problem(sigma: list[float], cutoff: float = 0.0, d: int = 6) -> eigen.Problem:
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((d, len(sigma))))[0]
    G = np.linalg.qr(rng.standard_normal((len(sigma), len(sigma))))[0] * sigma @ V.T
    case = case_of("ggt_direction", {"G": G, "x": rng.standard_normal(d), "eps": 0.5, "cutoff": cutoff})
    return eigen.Problem.of(case, G, d, UNITS["float32"])


def test_noise_is_what_it_is_said_to_be():
    p = ggt_problem([1.0, 1.0, 1.0])
    assert p.noise(5.0) == pytest.approx(30 * 3 * 2 * U * 5.0 + 3 * 6 * 2.0**-149)
    assert eigen.Problem.of(case_of("ggt_direction", {"x": np.ones(2), "eps": 0.1, "cutoff": 0.1}), np.eye(2), 2,
                            UNITS["float64"]).kind is np.longdouble  # fmt: skip


def test_when_the_direction_alone_is_undecided():
    """A kept eigenvalue below twice the error; one within it of the cut-off; else it is judged."""
    noise = 30 * 3 * 2 * U
    assert eigen.reference(ggt_problem([1.0, 1.0, 1.0]))[3] == ""
    assert eigen.reference(ggt_problem([1.0, 1.0, np.sqrt(1.3 * noise)]))[3] == eigen.NOISE
    assert eigen.reference(ggt_problem([1.0, 1.0, np.sqrt(4 * noise)]))[3] == ""
    assert eigen.reference(ggt_problem([1.0, 1.0, np.sqrt(0.01)], 0.01))[3] == eigen.CUT
    assert eigen.reference(ggt_problem([1.0, 1.0, np.sqrt(0.0102)], 0.01))[3] == ""
    assert eigen.reference(ggt_problem([1.0, 1.0, np.sqrt(0.0098)], 0.01))[3] == ""
    assert eigen.reference(ggt_problem([1.0, 1.0, 0.0]))[3] in (eigen.CUT, eigen.NOISE)
    assert eigen.reference(ggt_problem([0.0, 0.0]))[3] == ""


@pytest.mark.parametrize(("share", "reason"), [(0.999, eigen.CUT), (1.001, "")])
def test_how_near_the_cut_off_is_too_near(share: float, reason: str):
    """``|L - cut| <= delta (1 + cutoff) + 8u cut``, delta the error of the Gram matrix and of the eigensolver."""
    p = ggt_problem([1.0, 1.0, 0.9])
    L = np.linalg.eigvalsh(p.G @ p.G.T)
    delta = np.linalg.norm(6 * (U * np.abs(p.G) @ np.abs(p.G).T + 2.0**-149)) + p.noise(L[-1])
    cutoff = 0.8
    for _ in range(20):
        cutoff = (L[0] - share * (delta * (1 + cutoff) + 8 * U * cutoff * L[-1])) / L[-1]
    assert eigen.reference(replace(p, cutoff=float(cutoff)))[3] == reason


def test_the_bound_with_a_dropped_eigenvalue():
    """Divided differences between kept and dropped: ``1 / (eps q gap)``."""
    p = ggt_problem([2.0, 1.0, 0.1], 0.1)
    L, V = np.linalg.eigh(p.G @ p.G.T)
    kept = 0.1 * L[-1] < L
    delta = 1e-5
    got = eigen._loewner(p, L, V, kept, delta)
    eps, n = 0.5, 3
    s = np.sqrt(L - delta)
    q = s * (s + eps)
    D = np.zeros((n, n))
    for j in range(n):
        for k in range(n):
            if kept[j] and kept[k]:
                D[j, k] = (s[j] + s[k] + eps) / ((s[j] + s[k]) * eps * q[j] * q[k])
            elif kept[j] != kept[k]:
                D[j, k] = 1 / (eps * (q[j] if kept[j] else q[k]) * (abs(L[j] - L[k]) - 2 * delta))
    left = np.abs(p.G.T @ V)
    want = delta * np.linalg.norm(p.x) * left @ np.sqrt(D**2 @ (L + 2 * delta))
    assert np.allclose(got, want, rtol=1e-9, atol=0)


def test_the_bound_of_a_dense_root():
    p = ggt_problem([2.0, 1.0, 0.1])
    u = np.random.default_rng(0).standard_normal(6)
    delta = np.sum(p.G**2) * (30 * 6 * 2 + 3) * U
    _, sigma, V = np.linalg.svd(p.G, full_matrices=False)
    on = sigma > np.sqrt(delta)
    inside = V[on] @ u
    rest = np.linalg.norm(u - inside @ V[on])
    want = (np.sqrt(6) * delta * np.linalg.norm(inside / sigma[on]) + np.sqrt(delta) * rest) / 0.5
    want += 10 * 36 * U * np.linalg.norm(u)
    assert on.sum() == 3
    assert np.allclose(eigen.dense_bound(p, u), want, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("text", "number"), [("", 0), ("ridge", 0), ("0.25", 0.25), ("-3", 0), ("1e-6", 1e-6)])
def test_a_ridge_that_is_declared(text: str, number: float):
    assert eigen._number(text) == number


def test_a_ridge_is_added_before_the_decomposition():
    rng = np.random.default_rng(0)
    G, x = rng.standard_normal((3, 8)).astype(np.float32).astype(np.float64), np.ones(8)
    arguments = {"G": G, "x": x, "eps": 0.5, "cutoff": 0.0}

    def result(ridge: float) -> dict[str, Any]:
        L, V = np.linalg.eigh(G @ G.T + ridge * np.eye(3))
        F = 1 / (0.5 * np.sqrt(L) * (np.sqrt(L) + 0.5))
        return {"u": x / 0.5 - G.T @ ((V * F) @ V.T @ (G @ x)), "gram": G @ G.T, "eigenvalues": L, "eigenvectors": V}

    def verdicts(ridge: float, said: str = "") -> set[str]:
        declared = Declared(readings={"R24": said}) if said else NONE
        return {c.verdict for c in judged("ggt_direction", arguments, result(ridge), declared) if c.tier != "T3"}

    assert verdicts(0.0) == {PASS}
    assert verdicts(1e-6, "ridge") == {PASS}
    assert verdicts(float(np.float32(1e-6)), "ridge") == {PASS}
    assert verdicts(1e-6) == {PASS, INCONCLUSIVE}
    assert verdicts(0.25, "0.25") == {PASS}
    assert verdicts(0.1, "0.1") == verdicts(float(np.float32(0.1)), "0.1") == {PASS}  # as written, or as float32 has it
    assert FAIL in verdicts(0.1 + 1e-9, "0.1")
    assert FAIL in verdicts(0.25)
    assert FAIL in verdicts(0.25, "ridge")
    assert FAIL in verdicts(1e-6, "0")
    assert FAIL in verdicts(0.0, "ridge")


def test_overflow_of_F_is_undecided_alone():
    """``1 / (eps sigma (sigma + eps))`` beyond 1e36 or below 1e-36 in float32; else what is not finite fails."""
    for eps, verdict in ((2.0**-70, INCONCLUSIVE), (0.5, FAIL)):
        G = np.eye(2, 4) * 2.0**-60
        arguments = {"G": G, "x": np.ones(4), "eps": eps, "cutoff": 0.0}
        u = np.full(4, np.inf, np.float32)
        found = judged("ggt_direction", arguments, {"u": u})
        assert found[-1].verdict == verdict
    big = {"G": np.eye(2, 4) * 2.0**62, "x": np.ones(4), "eps": 0.5, "cutoff": 0.0}
    assert judged("ggt_direction", big, {"u": np.full(4, np.nan, np.float32)})[-1].reason == "overflow"


# ------------------------------------------------------------------ low rank


def test_when_orthogonality_is_undecided():
    rng = np.random.default_rng(0)
    P = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    off = (P @ np.array([[1.0, 1e-3], [0, 1.0]])).astype(np.float32)
    P32 = P.astype(np.float32)

    def check(MQ: Any, P_: Any, said: str | None):
        return low_rank._orthonormal(MQ, P_, UNITS["float32"], Declared(orthogonalisation=said))

    good, ill = P * [1.0, 2.0], P @ np.array([[1.0, 1.0], [0, 1e-6]])
    assert check(good, P32, "svd").verdict == PASS
    assert check(good, off, "svd").verdict == FAIL
    assert check(good, off, "mgs").verdict == FAIL
    assert check(ill, P32, None).verdict == PASS
    assert check(ill, off, None).reason == "M Q is too ill conditioned for this orthogonalisation"
    assert check(ill, off, "svd").verdict == FAIL
    assert check(good * 2.0**-60, off, "svd").reason == "underflow"
    assert check(good * 2.0**-48, off, "svd").verdict == FAIL
    edge = good / np.abs(good).max() * 2.0**-51  # its square is the smallest normal number times 2^24
    assert check(edge, off, "svd").verdict == FAIL
    assert check(edge * (1 - 2.0**-40), off, "svd").reason == "underflow"
    assert check(np.zeros((6, 2)), off, "svd").verdict == FAIL
    middle = P @ np.array([[1.0, 1.0], [0, 0.02]])
    slight = (P @ np.array([[1.0, 1e-3], [0, 1.0]])).astype(np.float32)
    assert "declare ORTHOGONALISATION = 'cgs'" in check(middle, slight, None).reason
    assert check(middle, slight, "cgs").verdict == PASS
    assert check(middle, slight, "mgs").verdict == FAIL


def test_the_condition_of_a_rank_deficient_product_is_infinite():
    assert low_rank._condition(np.diag([1.0, 2.0**-59])) == pytest.approx(2.0**59)
    assert low_rank._condition(np.diag([1.0, 2.0**-61])) == np.inf
    assert low_rank._condition(np.diag([4.0, 2.0])) == 2


# ------------------------------------------------------------------ AdaGrad, sign


def adagrad(a: Any, left: Any, k: int, hint: Any = None, exact: bool = False):
    a, left = np.asarray(a, np.float64), np.asarray(left, np.float64)
    hint = np.zeros(len(a), bool) if hint is None else np.asarray(hint)
    return elementwise.sent(pair(a), left, hint, k, UNITS["float32"], exact)


def test_what_was_kept_is_read_off_the_error():
    checks, kept = adagrad([3.0, -2.0, 1.0], [0, 0, 1.0], 2)
    assert failing(checks) == []
    assert kept.tolist() == [True, True, False]
    assert adagrad([3.0, -2.0, 1.0], [0, 0, 1.0], 1)[0][-1].reason == "2 entries with a != 0 are kept, must be 1"
    assert adagrad([3.0, -2.0, 1.0], [0, -2.0, 1.0], 2)[0][-1].verdict == FAIL
    wrong = adagrad([3.0, -2.0, 1.0], [0, -2.0, 0], 2)[0][-1]
    assert (wrong.line, wrong.at, wrong.reason) == ("7:6", (1,), "|a| = 2 is dropped, 1 is kept")
    _, kept = adagrad([0.0, 0.0, 5.0], [0, 0, 0], 2, [True, False, True])
    assert kept.tolist() == [True, False, True]
    checks, _ = adagrad([0.0, 5.0, 1.0], [0, 0, 1.0], 2)
    assert (checks[-1].verdict, checks[-1].reason) == (FAIL, "|a| = 1 is dropped, 0 is kept")
    near = adagrad([1.0, 1.0 + 1.9 * U, 3.0], [0, 1.0 + 1.9 * U, 0], 2)[0]
    assert failing(near) == []
    assert failing(adagrad([1.0, 1.0 + 2.1 * U, 3.0], [0, 1.0 + 2.1 * U, 0], 2)[0]) == [("xi", "7:6")]


def test_the_ratio_of_an_error_that_is_kept_back():
    """``|xi' - a| / (u |a|)`` of what is dropped; 0 of what is kept."""
    check = adagrad([4.0, 3.0, 2.0], [0, 3.0 * (1 + U / 2), 2.0 * (1 - U / 4)], 1)[0][0]
    assert (check.line, check.ratio) == ("7:5", pytest.approx(0.5))


def test_what_is_neither_zero_nor_a_is_blamed():
    a = np.array([4.0, 3.0, -2.0, 1.0])
    assert adagrad(a, [0, 0, -2.0 * (1 + 2 * U), 1.0], 1)[0][0].line == "7:7"
    both = adagrad(a, a * (1 + 4 * U), 2)[0][0]
    assert (both.line, both.at, both.tier) == ("7:5", (0,), "T2")
    assert (both.got, both.expected, both.bound) == (4 * (1 + 4 * U), 4.0, 4 * U)
    assert adagrad(a, a - np.sign(a) * 4.0, 1)[0][0].line == "7:7"
    assert adagrad(a, [0, 3.0 * (1 + U / 2), -2.0, 1.0], 1, exact=True)[0][0].tier == "T1"
    assert failing(adagrad(a, [0, 3.0 * (1 + U / 2), -2.0, 1.0], 1)[0]) == []


@pytest.mark.parametrize(("x", "e", "kept", "lines"), [
    (True, False, True, ("S1:6", "S1:7")), (False, True, False, ("S1:6", "S1:7")),
    (False, False, True, ("S1:5", "S1:5")), (False, False, False, ("S1:4", "S1:4")),
])  # fmt: skip
def test_which_line_of_sign_is_blamed(x: bool, e: bool, kept: bool, lines: tuple[str, str]):
    assert elementwise.Signed._lines(x, e, kept) == lines


def test_the_mean_magnitude_is_that_of_both_halves():
    """The low half has the sign of its own number, not of the high one's magnitude."""
    p = Pair(np.array([1.0, -1.0, 2.0]), np.array([2.0**-60, -(2.0**-61), 0.0]))
    mean = elementwise._mean_magnitude(p, np.array([0, 1]))
    assert (mean.hi, mean.lo) == (1.0, (2.0**-60 + 2.0**-61) / 2)


@pytest.mark.parametrize(("gamma", "certain"), [(0.5, True), (float(np.float32(1 / 3)), False)])
def test_a_sum_that_is_exactly_zero_has_no_sign(gamma: float, certain: bool):
    """Where gamma g is exact and p = 0, Delta is 0 and nothing else; else -s, 0 and s are open."""
    g = np.array([2.0, 4.0 + 2.0**-20])
    e = np.array([float(np.float32(-gamma * 2.0)), 1.0])
    signed = elementwise.Signed.of(e, g, gamma, UNITS["float32"], False)
    assert signed.unsure.tolist() == [not certain, False]
    nothing = elementwise.Signed.of(np.zeros(2), np.array([0.0, 1.0]), 1 / 3, UNITS["float32"], False)
    assert nothing.unsure.tolist() == [False, False]


def test_conservation_of_sign():
    """``|x' - e' - (x - p)| <= 3u (|x| + |p| + s)`` plus the rounding of p."""
    x, e, g = np.array([8.0, 8.0]), np.array([1.0, 1.0]), np.array([2.0, -6.0])
    p, s = 0.5 * g + e, 2.0
    own = 2 * U * (np.abs(0.5 * g) + np.abs(e)) + 2.0**-149
    room = 3 * U * (np.abs(x) + np.abs(p) + s) + own
    for moved, wrong in ((0.9, False), (1.0, False), (1.1, True)):
        new_x, new_e = x - s * np.sign(p), p - s * np.sign(p)
        new_x[1] += moved * room[1] / 2
        new_e[1] -= moved * room[1] / 2
        arguments = {"x": x, "e": e, "g": g, "gamma": 0.5}
        found = judged("sign_step", arguments, {"x": new_x, "e": new_e}, Declared({"accumulator": "float32"}))
        assert (found[-1].verdict == FAIL) == wrong
        if wrong:
            assert (found[-1].at, found[-1].line, found[-1].expected) == ((1,), "S1:7", 0.0)
            assert found[-1].got == pytest.approx(moved * room[1], rel=1e-6)


# ------------------------------------------------------------------ scaled Top-k


def basis(b: Any, room: Any) -> scaled.Basis:
    b, room = np.asarray(b, np.float64), np.asarray(room, np.float64)
    return scaled.Basis(np.eye(len(b)), np.eye(len(b)), b, room, 0.0, UNITS["float32"])


def test_what_scaled_top_k_may_keep():
    """Certain entries, then of the open ones those that T keeps."""
    b = [5.0, 4.0, 3.95, 1.0]
    assert sorted(basis(b, [0.1] * 4).selection(np.array([5.0, 0, 3.95, 0]), 2)) == [0, 2]
    assert sorted(basis(b, [0.1] * 4).selection(np.array([5.0, 4.0, 0, 0]), 2)) == [0, 1]
    assert sorted(basis(b, [0.01] * 4).selection(np.array([5.0, 0, 3.95, 0]), 2)) == [0, 1]
    assert sorted(basis(b, [0.1] * 4).selection(np.array([0, 4.0, 3.95, 0]), 2)) == [0, 1]
    assert sorted(basis(b, [9.0] * 4).selection(np.array([0, 0, 3.95, 1.0]), 2)) == [2, 3]
    near = [5.0, 4.95, 4.78, 1.0]  # the third is below what the first is at least, not below what the second is
    for T, kept in (([0, 0, 4.78, 0], 0), ([0, 4.95, 0, 0], 1), ([5.0, 0, 0, 0], 0)):
        assert basis(near, [0.1] * 4).selection(np.array(T), 1).tolist() == [kept]
    assert basis([5.0, 4.0], [0.5, 0.5]).selection(np.array([0, 4.0]), 1).tolist() == [1]
    assert basis([5.0, 4.0], [0.5, 0.49]).selection(np.array([0, 4.0]), 1).tolist() == [0]
    assert basis(b, [0.1] * 4).selection(np.zeros(4), 0).tolist() == []
    assert sorted(basis(b, [9.0] * 4).selection(np.zeros(4), 4)) == [0, 1, 2, 3]


def test_a_matrix_that_is_singular_within_rounding_is_undecided():
    for least_, none in ((1.9, True), (2.1, False)):
        H = np.diag([1.0, least_ * 30 * 2 * 2 * U])
        assert (scaled.Basis.of(H, np.ones(2), UNITS["float32"]) is None) == none


def test_the_image_of_nothing_is_nothing():
    value, bound = basis([1.0, 2.0], [0.1, 0.1]).image(np.zeros(0, int))
    assert not value.any()
    assert not bound.any()


@pytest.mark.parametrize(("T", "line"), [([3.0, 0.0], "K:4"), ([0.0, 4.0], "K:5"), ([1.0, 4.0], "K:6")])
def test_which_line_of_scaled_top_k_is_blamed(T: list[float], line: str):
    H = np.diag([0.25, 4.0])  # b = (6, 2): the first is kept, T = (3, 0)
    v = np.array([3.0, 4.0])
    b = scaled.Basis.of(H, v, UNITS["float32"])
    assert b is not None
    said = scaled._blame(b, v, np.array(T), 1)
    assert said == ("K:4" if line == "K:5" else line)  # T = v's own Top-1 counts as the basis forgotten
    turned = scaled.Basis.of(np.array([[2.0, 1.0], [1.0, 2.0]]), v, UNITS["float32"])
    assert turned is not None
    other = int(np.argmin(np.abs(turned.b)))
    c = np.zeros(2)
    c[other] = turned.b[other]
    assert scaled._blame(turned, v, turned.root @ c, 1) == "K:5"


# ------------------------------------------------------------------ several workers


def test_which_entry_of_which_worker_has_the_wrong_error():
    """Worker, step, entry; got and expected are those of that entry."""
    gradients = np.array([[[4.0, 3.0, 1.0], [8.0, 0.5, 2.0]], [[0.0, 3.0, 2.0], [1.0, 6.0, 0.25]]])
    right = workers.conventions(gradients, 1)[workers.LOCAL]
    xi = right.xi.copy()
    xi[1, 1, 2] += 1.0
    told = [{"u": right.u, "states": [{"xi": row} for row in one]} for one in xi]
    case = Case("topk_sgd", "generic", "", 0, 0, {"d": 3, "k": 1, "gradients": gradients})
    check = workers.topk_sgd(case, {"workers": told}, NONE)[-1]
    assert (check.verdict, check.at, check.reason) == (FAIL, (1, 2, 2), "worker 1, step 2: not the local residual")
    assert (check.got, check.expected) == (xi[1, 1, 2], right.xi[1, 1, 2])


def test_low_rank_is_followed_up_to_half_a_percent():
    """``d(MQ) < sigma_min(MQ) / 200``: given up just beyond, followed just before; without rounding, of a known Q."""
    M, Q = np.diag([3.0, 2.0, 1.0]), np.eye(3, 2)
    for share, followed in ((200.5, True), (199.5, False)):
        layer = hidden.Layer(Q, dQ=2.0 / share / float(np.linalg.norm(M)))
        assert (layer.compress(M, 0.0) is not None) == followed


def test_the_pair_that_is_the_wrong_way_round_is_named_in_its_block():
    """Of the second block of three: entry 4 is kept, entry 5 is larger."""
    a = np.array([3.0, 1.0, 2.0, 0.5, 1.0, 9.0])
    arguments = {"a": a, "block_size": 3, "density": 1 / 3}
    result = {"indices": np.array([0, 4], np.int32), "values": a[[0, 4]]}
    (check,) = (c for c in judged("block_top_k", arguments, result) if c.verdict == FAIL)
    assert (check.at, check.got, check.expected) == ((4,), 1.0, 9.0)
    assert check.reason == "|a[5]| = 9 is dropped, |a[4]| = 1 is kept"


def test_a_wrong_scale_that_is_used_for_x_and_for_e_alike_is_blamed_on_the_scale():
    """S1:5, with a few roundings of float32 in e; once e is another one, the sum p is blamed."""
    g = np.random.default_rng(3).standard_normal(40).astype(np.float32)
    arguments = {"x": np.zeros(40), "e": np.zeros(40), "g": g.astype(np.float64), "gamma": 1.0}
    Delta = np.float32(0.25 * np.abs(g.astype(np.float64)).mean()) * np.sign(g)
    for e, line in (((g - Delta) * np.float32(1 + 2.0**-22), "S1:5"), ((g - Delta) * np.float32(1.0001), "S1:4")):
        blamed = failing(judged("sign_step", arguments, {"x": -Delta, "e": e}))
        assert blamed[:2] == [("x", line), ("e", line)]


def test_the_first_number_that_is_not_finite_is_the_one_that_is_shown():
    """Of u_1 with an infinity at 1 and NaN at 3."""
    arguments = {"d": 4, "k": 1, "gradients": np.ones((1, 4))}
    checks = judged("topk_sgd", arguments, {"u": np.array([[0.0, -np.inf, 0.0, np.nan]]), "states": None})
    (check,) = (c for c in checks if c.verdict == FAIL)
    assert (check.at, check.got) == ((1, 1), -np.inf)


def test_what_is_compared_can_be_watched():
    """Inside, and no longer than that."""
    with t0.watched() as seen:
        forward([3.0], [1.0], 1.0)
    forward([3.0], [1.0], 1.0)
    assert [(s.stage, s.got.tolist(), s.expected.tolist()) for s in seen] == [("s", [3.0], [1.0])]


def test_what_a_square_loses_to_underflow_widens_its_radius():
    """``3u c^2 + tiny``: of a square below the smallest number, half of it is all there is."""
    c, none = np.full(1, 2.0**-80), np.zeros(1)
    run = SimpleNamespace(unit=UNITS["float32"])
    G = hidden._squared(run, hidden.Followed(none, none), hidden.Followed(c, none), c, np.ones(1, bool))
    assert G.radius == pytest.approx(2.0**-149, rel=1e-6, abs=0)
