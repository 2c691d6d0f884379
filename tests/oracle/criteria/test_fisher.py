"""F^-1 x: correct solvers never fail, wrong code fails at its stage, references are those of exact rationals."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from scipy.linalg import lapack

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria import fisher
from efcp_ref.oracle.criteria.fisher import mfac_direction, sparse_mfac_direction, wsm

NONE = Declared()
DTYPES = [np.float32, np.float64]
SHOWN = [("u",), ("u", "S"), ("u", "S", "h"), ("u", "S", "h", "c")]


def single(a):
    return np.asarray(a).astype(np.float32).astype(np.float64)


def problem(rng, kind, condition=None, m=None, d=None):
    """A window, a damping that gives M the condition, a vector; all float32-representable."""
    m, d = m or int(rng.integers(1, 10)), d or int(rng.integers(2, 40))
    G = rng.standard_normal((m, d))
    G = {
        "plain": G,
        "graded rows": G * 10.0 ** rng.uniform(-4, 4, (m, 1)),
        "parallel": G[:1] + 1e-3 * G,
        "empty rows": G * (rng.random((m, 1)) < 0.6),
        "sparse": G * (rng.random((m, d)) < 0.3),
        "wide": G * 10.0 ** rng.uniform(-3, 3, (m, d)),
    }[kind]
    G = single(G)
    condition = 10.0 ** rng.uniform(0, 9) if condition is None else condition
    lam = float(np.float32((np.linalg.norm(G, 2) ** 2 or 1.0) / m / condition))
    x = rng.standard_normal(d) * 10.0 ** rng.uniform(-2, 2)
    return {"G": G, "lam": lam, "x": single(G[0] + 1e-3 * x if rng.random() < 0.3 else x)}


def case(a, *flags, operation="mfac_direction"):
    return Case(operation, "generic", "", 0, 0, a, frozenset(flags))


def solve(M, h, solver):
    letter = "s" if M.dtype == np.float32 else "d"
    if solver == "cholesky":
        factor, info = getattr(lapack, letter + "potrf")(M, lower=1)
        return None if info else getattr(lapack, letter + "potrs")(factor, h, lower=1)[0]
    if solver == "lu":
        return getattr(lapack, letter + "gesv")(M, h)[2]
    if solver == "inverse":
        factor, pivots, _ = getattr(lapack, letter + "getrf")(M)
        return getattr(lapack, letter + "getri")(factor, pivots)[0] @ h
    if solver == "eigh":
        e, V, _ = getattr(lapack, letter + "syevd")(M)
        return V @ ((V.T @ h) / e)
    M, h = M.copy(), h.copy()  # elimination without pivoting, as the recursion of M-FAC
    for i in range(len(h)):
        for j in range(i + 1, len(h)):
            f = M[j, i] / M[i, i]
            M[j] -= f * M[i]
            h[j] -= f * h[i]
    for i in range(len(h) - 1, -1, -1):
        h[i] = (h[i] - M[i, i + 1 :] @ h[i + 1 :]) / M[i, i]
    return h


def direction(a, dtype, solver="cholesky", rng=None, count=None):
    """u, S, h, c computed in ``dtype``, sums pairwise or sequential in a random order."""
    G, x, lam = a["G"].astype(dtype), a["x"].astype(dtype), dtype(a["lam"])
    m, d = G.shape
    if rng is not None and rng.random() < 0.5:
        p = rng.permutation(d)
        S = np.cumsum(G[:, None, p] * G[None, :, p], axis=-1, dtype=dtype)[..., -1]
        h = np.cumsum(G[:, p] * x[p], axis=-1, dtype=dtype)[:, -1]
    else:
        S, h = G @ G.T, G @ x
    w = solve(S + dtype(m if count is None else count) * lam * np.eye(m, dtype=dtype), h, solver)
    if w is None:
        return None
    c = w / lam
    return {"u": x / lam - c @ G, "S": S, "h": h, "c": c}


def recursion(a, dtype):
    """The Woodbury-Sherman-Morrison recursion on vectors."""
    G, y, lam = a["G"].astype(dtype), a["x"].astype(dtype), dtype(a["lam"])
    m, q = dtype(len(G)), G / lam
    y = y / lam
    for k in range(len(G)):
        below = m + G[k] @ q[k]
        y = y - q[k] * ((G[k] @ y) / below)
        for j in range(k + 1, len(G)):
            q[j] = q[j] - q[k] * ((G[k] @ q[j]) / below)
    return y


def blamed(checks):
    return next((c.stage, c.line) for c in checks if c.verdict == FAIL and c.tier != "T3")


def reasons(checks):
    return {c.reason for c in checks if c.verdict == INCONCLUSIVE}


KINDS = ["plain", "graded rows", "parallel", "empty rows", "sparse", "wide"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ["cholesky", "elimination"])
def test_symmetric_solvers_pass_staged_and_unstaged(kind, dtype, solver):
    rng, passes = np.random.default_rng(1), 0
    for _ in range(8):
        a = problem(rng, kind)
        r = direction(a, dtype, solver, rng)
        for names in SHOWN if r else ():
            checks = mfac_direction(case(a), {n: r[n] for n in names}, NONE)
            assert verdict_of(checks) != FAIL, checks
            assert not reasons(checks) - {fisher.NOISE, "indefinite", "vacuous"}
            passes += verdict_of(checks) == PASS
    assert passes > 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["lu", "inverse", "eigh"])
def test_other_solvers_never_fail_undeclared_and_are_decided_declared(kind, solver):
    rng = np.random.default_rng(2)
    for _ in range(8):
        a = problem(rng, kind)
        r = direction(a, np.float32, solver, rng)
        for names in (("u",), ("u", "S", "h", "c")):
            shown = {n: r[n] for n in names}
            assert verdict_of(mfac_direction(case(a), shown, NONE)) != FAIL
            checks = mfac_direction(case(a), shown, Declared(solver=solver))
            assert verdict_of(checks) != FAIL
            assert fisher.CLASS not in reasons(checks)


def test_pivoting_on_a_graded_window_is_another_class():
    rng, seen = np.random.default_rng(3), set()
    for _ in range(300):
        a = problem(rng, "graded rows")
        r = direction(a, np.float32, "lu")
        seen |= reasons(mfac_direction(case(a), r, NONE))
        assert verdict_of(mfac_direction(case(a), r, Declared(solver="lu"))) != FAIL
        if fisher.CLASS in seen:
            break
    assert fisher.CLASS in seen
    assert verdict_of(mfac_direction(case(a), r, Declared(solver="factorisation"))) == FAIL


def test_a_dense_solve_of_F_never_fails():
    rng = np.random.default_rng(4)
    for _ in range(60):
        a = problem(rng, "plain")
        G, lam = a["G"].astype(np.float32), np.float32(a["lam"])
        F = lam * np.eye(G.shape[1], dtype=np.float32) + G.T @ G / np.float32(len(G))
        u = solve(F, a["x"].astype(np.float32), "cholesky")
        if u is not None:
            assert verdict_of(mfac_direction(case(a), {"u": u}, NONE)) != FAIL
            assert verdict_of(mfac_direction(case(a), {"u": u}, Declared(solver="dense"))) != FAIL


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_recursion_passes_as_wsm(dtype):
    rng, passes = np.random.default_rng(5), 0
    for kind in KINDS:
        for _ in range(6):
            a = problem(rng, kind)
            checks = wsm(case(a, operation="wsm"), {"y": recursion(a, dtype)}, NONE)
            assert verdict_of(checks) != FAIL
            passes += verdict_of(checks) == PASS
    assert passes > 20
    a = problem(rng, "plain", 100.0, 4)
    assert blamed(wsm(case(a, operation="wsm"), {"y": recursion({**a, "G": a["G"][:3]}, dtype)}, NONE)) == ("y", "W:2")


def bugs(a, dtype):
    """Known mistakes, each with the stage and line it must be blamed on when everything is shown."""
    G, x, lam, m = a["G"].astype(dtype), a["x"].astype(dtype), dtype(a["lam"]), len(a["G"])
    good = direction(a, dtype)
    stale = dict(good, S=good["S"].copy())
    stale["S"][-1, -1] = (a["G"][0] @ a["G"][0]).astype(dtype)
    yield "stale entry of S", stale, ("S", "W:5")
    yield "damping inside S", dict(good, S=good["S"] + m * lam * np.eye(m, dtype=dtype)), ("S", "W:5")
    yield "h of another vector", dict(good, h=G @ G[0]), ("h", "W:3")
    w = solve(good["S"] + lam * np.eye(m, dtype=dtype), good["h"], "cholesky")
    if w is not None:
        yield "lam for m lam", dict(good, c=w / lam, u=x / lam - (w / lam) @ G), ("c", "W:3")
    yield "w for c", dict(good, c=good["c"] * lam), ("c", "W:3")
    near = good["c"].copy()
    near[0] *= dtype(1.01)
    yield "one coefficient 1 % off", dict(good, c=near, u=x / lam - near @ G), ("c", "W:3")
    yield "sign", dict(good, u=x / lam + good["c"] @ G), ("u", "W:4")
    yield "x for x / lam", dict(good, u=x - good["c"] @ G), ("u", "W:4")
    missed = good["u"].copy()
    j = int(np.argmax(np.abs(good["c"] @ G)))
    missed[j] = x[j] / lam
    yield "coordinate not updated", dict(good, u=missed), ("u", "W:4")
    yield "zeros", dict(good, u=np.zeros_like(x)), ("u", "W:4")


@pytest.mark.parametrize("dtype", DTYPES)
def test_planted_bugs_fail_at_their_stage(dtype):
    rng = np.random.default_rng(6)
    for _ in range(4):
        a = problem(rng, "plain", 100.0, 5, 30)
        a["lam"] = float(np.float32(0.25))
        assert verdict_of(mfac_direction(case(a), direction(a, dtype), NONE)) == PASS
        for name, r, where in bugs(a, dtype):
            checks = mfac_direction(case(a), r, NONE)
            assert verdict_of(checks) == FAIL, name
            assert blamed(checks) == where, name
            if name in ("lam for m lam", "sign", "x for x / lam", "zeros", "coordinate not updated"):
                assert blamed(mfac_direction(case(a), {"u": r["u"]}, NONE)) == ("u", "W:4"), name


@pytest.mark.parametrize("exponent", [3, 6])
def test_staged_checks_see_at_high_condition(exponent):
    rng, caught = np.random.default_rng(7), 0
    for _ in range(20):
        a = problem(rng, "plain", 10.0**exponent, 6, 30)
        found = {
            name: verdict_of(mfac_direction(case(a), r, Declared(solver="factorisation")))
            for name, r, _ in bugs(a, np.float32)
        }
        assert found["stale entry of S"] == found["coordinate not updated"] == FAIL
        caught += found["one coefficient 1 % off"] == FAIL
    assert caught >= 15


def test_off_the_support_two_ulp():
    rng = np.random.default_rng(8)
    a = problem(rng, "plain", 10.0, 3, 20)
    a["G"][:, 7] = 0
    for dtype in DTYPES:
        r = direction(a, dtype)
        r["u"][7] *= dtype(1 + 3 * 2 * np.finfo(dtype).eps)
        checks = mfac_direction(case(a), r, NONE)
        assert [(c.stage, c.at) for c in checks if c.verdict == FAIL][-1] == ("u", (7,))
        assert "off the support" in [c for c in checks if c.verdict == FAIL][-1].rule


def rational_direction(G, lam, x, count):
    """u, c by Gauss-Jordan in fractions."""
    G = [[Fraction(v) for v in row] for row in G]
    x, lam, m = [Fraction(v) for v in x], Fraction(lam), len(G)
    rows = [
        [sum(p * q for p, q in zip(G[i], G[j], strict=True)) + (count * lam if i == j else 0) for j in range(m)]
        + [sum(p * q for p, q in zip(G[i], x, strict=True))]
        for i in range(m)
    ]
    for i in range(m):
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for j in range(m):
            if j != i:
                rows[j] = [p - rows[j][i] * q for p, q in zip(rows[j], rows[i], strict=True)]
    c = [row[-1] / lam for row in rows]
    return [float(xi / lam - sum(c[i] * G[i][j] for i in range(m))) for j, xi in enumerate(x)], [float(v) for v in c]


@pytest.mark.parametrize("kind", ["plain", "parallel", "graded rows"])
def test_the_reference_of_u_is_that_of_exact_rationals(kind):
    """Correctly rounded results have ratio below 1/10 of the smallest float64 bound, at every condition."""
    rng = np.random.default_rng(9)
    for _ in range(6):
        a = problem(rng, kind, 10.0 ** rng.uniform(0, 11), 3, 5)
        u, _ = rational_direction(a["G"], a["lam"], a["x"], 3)
        checks = mfac_direction(case(a), {"u": np.array(u)}, NONE)
        assert verdict_of(checks) == PASS
        wrong = np.array(u)
        wrong[2] = 1e9 * np.abs(wrong).max() + 1
        check = next(c for c in mfac_direction(case(a), {"u": wrong}, NONE) if c.verdict == FAIL)
        assert (check.at, check.expected) == ((2,), u[2])


def test_the_solution_in_pairs_agrees_with_rationals_to_a_hundred_bits():
    rng = np.random.default_rng(10)
    a = problem(rng, "plain", 1e10, 3, 6)
    run = fisher._Run(case(a), {"u": np.zeros(6)}, NONE, "u", "W:4")
    w, residual = fisher._System(run, 3).solution
    _, c = rational_direction(a["G"], a["lam"], a["x"], 3)
    np.testing.assert_allclose(w.hi / a["lam"], c, rtol=1e-15)
    assert residual.max() < 1e-25 * np.abs(run.window.h.magnitude).max()
    G, x = [[Fraction(v) for v in row] for row in a["G"]], [Fraction(v) for v in a["x"]]
    for i in range(3):
        left = sum(
            sum(p * q for p, q in zip(G[i], G[j], strict=True)) * (Fraction(w.hi[j]) + Fraction(w.lo[j]))
            for j in range(3)
        )
        left += 3 * Fraction(a["lam"]) * (Fraction(w.hi[i]) + Fraction(w.lo[i])) - sum(
            p * q for p, q in zip(G[i], x, strict=True)
        )
        assert abs(left) <= Fraction(residual[i])


def test_R4_the_number_stored_is_another_reading():
    """lam = .1, m = 4, one gradient: 2.857 with m, .909 with the number stored."""
    lam = float(np.float32(0.1))
    G = np.zeros((4, 3))
    G[0, 0] = 1.0
    a = {"G": G, "lam": lam, "x": np.array([1.0, 2.0, 0.0])}
    fixed, stored = direction(a, np.float64), direction(a, np.float64, count=1)
    np.testing.assert_allclose([fixed["u"][0], stored["u"][0]], [1 / 0.35, 1 / 1.1], rtol=1e-7)
    for shown in (("u",), ("u", "S", "h", "c")):
        one, other = {n: fixed[n] for n in shown}, {n: stored[n] for n in shown}
        assert verdict_of(mfac_direction(case(a), one, NONE)) == PASS
        checks = mfac_direction(case(a), other, NONE)
        assert verdict_of(checks) == INCONCLUSIVE
        assert all(r.startswith("reading R4") and 'READINGS = {"R4": "stored"}' in r for r in reasons(checks))
        declared = Declared(readings={"R4": "stored"})
        assert verdict_of(mfac_direction(case(a), other, declared)) == PASS
        assert verdict_of(mfac_direction(case(a), one, declared)) == FAIL
        assert verdict_of(mfac_direction(case(a), dict(other, u=-other["u"]), NONE)) == FAIL


def test_exact_solves_on_four_to_the_p_ask_for_equality():
    """M = m lam I + S = 4^p I: every square root and quotient is exact."""
    G = np.zeros((3, 8))
    G[0, 1], G[1, [2, 3]], G[2, 5] = 2.0, [2.0, 0.0], -2.0
    a = {"G": G, "lam": 4.0, "x": np.arange(8.0) * 4}  # M = (12 + 4) I
    for dtype in DTYPES:
        r = direction(a, dtype)
        checks = mfac_direction(case(a, "exact"), r, NONE)
        assert [c.tier for c in checks if c.stage in "Shcu"][:4] == ["T1"] * 4
        assert verdict_of(checks) == PASS
        c = np.nextafter(r["c"], dtype(10))
        assert blamed(mfac_direction(case(a, "exact"), dict(r, c=c), NONE)) == ("c", "W:3")
        assert blamed(mfac_direction(case(a, "exact"), dict(r, u=np.nextafter(r["u"], dtype(99))), NONE)) == (
            "u",
            "W:4",
        )
    a["lam"] = 3.0  # M = 13 I: correct code is off by a rounding, and that is no failure
    assert verdict_of(mfac_direction(case(a, "exact"), direction(a, np.float32), NONE)) == PASS


def test_undecided_where_rounding_rules():
    rng = np.random.default_rng(11)
    a = problem(rng, "parallel", 1.0, 4, 10)
    a["lam"] = float(np.float32(1e-9))
    shown = {n: v.astype(np.float32) for n, v in direction(a, np.float64).items()}
    assert fisher.NOISE in reasons(mfac_direction(case(a), shown, NONE))
    assert reasons(mfac_direction(case(a), {"u": np.zeros(10, np.float32)}, NONE)) == {fisher.NOISE}
    G = np.ones((6, 4)) + np.eye(6, 4) * 2.0**-12
    a = {"G": G, "lam": 2.0**-22, "x": np.ones(4)}
    S = (G @ G.T).astype(np.float32)
    r = {
        "u": np.full(4, np.nan, np.float32),
        "S": S,
        "h": (G @ a["x"]).astype(np.float32),
        "c": np.full(6, np.nan, np.float32),
    }
    assert "indefinite" in reasons(mfac_direction(case(a), r, NONE))
    assert fisher.excused(case(a), NONE, 2.0**-24)
    easy = problem(rng, "plain", 10.0, 3, 10)
    assert not fisher.excused(case(easy), NONE, 2.0**-24)
    r = direction(easy, np.float32)
    assert blamed(mfac_direction(case(easy), dict(r, c=np.full(3, np.nan, np.float32)), NONE)) == ("c", "W:3")
    assert blamed(mfac_direction(case(easy), {"u": np.full(10, np.inf, np.float32)}, NONE)) == ("u", "W:4")


def test_either_triangle_of_an_asymmetric_S_is_accepted():
    rng = np.random.default_rng(12)
    for _ in range(20):
        a = problem(rng, "plain", 1e6, 4, 2000)
        r = direction(a, np.float64)
        noise = 1 + 1e-14 * rng.standard_normal((4, 4))
        S = r["S"] * noise
        w = solve(np.tril(S) + np.tril(S, -1).T + 4 * a["lam"] * np.eye(4), r["h"], "cholesky")
        shown = dict(r, S=S, c=w / a["lam"], u=a["x"] / a["lam"] - (w / a["lam"]) @ a["G"])
        assert verdict_of(mfac_direction(case(a), shown, NONE)) == PASS


def test_sparse_windows_are_judged_as_their_dense_twins():
    rng = np.random.default_rng(13)
    for dtype in DTYPES:
        for _ in range(10):
            m, d, k = 4, 30, 6
            indices = np.stack([np.sort(rng.choice(d, k, replace=False)) for _ in range(m)]).astype(np.int32)
            values = single(rng.standard_normal((m, k)))
            G = np.zeros((m, d))
            np.put_along_axis(G, indices.astype(int), values, axis=1)
            dense = {"G": G, "lam": 0.125, "x": single(rng.standard_normal(d))}
            a = {
                "indices": indices,
                "values": values,
                "d": d,
                "lam": 0.125,
                "x": dense["x"],
                "block_size": d,
                "density": 0.2,
            }
            c, r = case(a, operation="sparse_mfac_direction"), direction(dense, dtype)
            mine, twin = sparse_mfac_direction(c, r, NONE), mfac_direction(case(dense), r, NONE)
            assert mine[1:] == twin[1:]
            assert verdict_of(mine) == PASS
            wrapped = np.roll(values, 1, axis=1)
            np.put_along_axis(G, indices.astype(int), wrapped, axis=1)
            assert blamed(sparse_mfac_direction(c, direction(dense, dtype), NONE)) == ("S", "W:5") or np.allclose(
                wrapped, values
            )
    bf16 = values.astype(ml_dtypes.bfloat16).astype(float)
    np.put_along_axis(G, indices.astype(int), bf16, axis=1)
    r = direction(dense, np.float32)
    assert verdict_of(sparse_mfac_direction(c, r, NONE)) == FAIL
    assert verdict_of(sparse_mfac_direction(c, r, Declared({"storage": "bfloat16"}))) == PASS


def test_structure_and_missing_stages():
    rng = np.random.default_rng(14)
    a = problem(rng, "plain", 10.0, 3, 10)
    r = direction(a, np.float64)
    assert verdict_of(mfac_direction(case(a), dict(r, S=None, h=None, c=None), NONE)) == PASS
    assert verdict_of(mfac_direction(case(a), {"u": r["u"], "c": r["c"]}, NONE)) == PASS
    assert blamed(mfac_direction(case(a), {"u": r["u"], "c": 2 * r["c"]}, NONE)) == ("c", "W:3")
    (check,) = mfac_direction(case(a), dict(r, S=r["S"][:2]), NONE)
    assert check.reason == "S has shape (2, 3), must have shape (3, 3)"
    (check,) = mfac_direction(case(a), {"S": r["S"]}, NONE)
    assert check.reason == "u is missing"
