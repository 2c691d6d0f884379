"""Every bound is the one that the docstring prints: computed here anew, then met from inside and from outside.

A correct result is moved in one entry to 0.9 and to 1.1 times the bound that this file computes from the printed
inequality, in longer numbers and from nothing of the criteria. Inside, the ratio, the bound, the entry, the expected
value are those of this file; outside, the case fails at that stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.oracle.cases import build
from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Check, Declared
from efcp_ref.oracle.criteria import CRITERIA

Array = np.ndarray
Long = np.longdouble
INSIDE, OUTSIDE = 0.9, 1.1
DTYPES = ("float32", "float64")


def long(a: Any) -> Array:
    """In 64 bits of significand."""
    return np.asarray(a, dtype=np.float64).astype(Long) if not isinstance(a, np.ndarray) else a.astype(Long)


def case_of(operation: str, arguments: dict[str, Any], *flags: str) -> Case:
    """A case of this file."""
    return Case(operation, "generic", "", 0, 0, arguments, frozenset(flags))


def drawn(operation: str, seed: int = 0, **sizes: Any) -> dict[str, Any]:
    """Arguments from normal numbers."""
    return build.BUILDERS[operation](np.random.default_rng(seed), build.normal, **sizes)


def judged(case: Case, result: dict[str, Any], declared: Declared | None = None) -> list[Check]:
    """The checks, those of the structure left out."""
    return [c for c in CRITERIA[case.operation](case, result, declared or Declared()) if c.tier != "T0"]


def at_stage(checks: list[Check], stage: str, tier: str = "T2", line: str = "") -> Check:
    """The first check of a stage and tier."""
    return next(c for c in checks if (c.stage, c.tier) == (stage, tier) and c.line.startswith(line))


def agrees(
    case: Case, result: dict[str, Any], stage: str, reference: Array, bound: Array, declared: Declared | None = None,
    *, tier: str = "T2", moved: float = INSIDE, sign: int = 1, line: str = "",
) -> list[Check]:  # fmt: skip
    """Move the entry with the largest bound and compare the check with this file's numbers."""
    got = np.array(result[stage])
    bound = np.broadcast_to(long(bound), got.shape)
    at = np.unravel_index(int(np.argmax(bound)), got.shape)
    got[at] = (long(reference)[at] + sign * moved * bound[at]).astype(got.dtype)
    checks = judged(case, {**result, stage: got}, declared)
    check = at_stage(checks, stage, tier, line)
    ratio = np.abs(long(got) - long(reference)) / np.where(bound > 0, bound, 1)
    where = np.unravel_index(int(np.argmax(ratio)), got.shape)
    assert check.ratio == pytest.approx(float(ratio[where]), rel=4e-3), check
    assert check.bound == pytest.approx(float(bound[where]), rel=4e-3)
    assert check.at in (tuple(map(int, where)), tuple(map(int, where))[::-1])
    assert check.got == float(got[where])
    assert check.expected == pytest.approx(float(long(reference)[where]), rel=1e-6)
    assert check.verdict == (PASS if ratio[where] <= 1 else FAIL)
    return checks


def both_sides(*arguments: Any, **options: Any) -> None:
    """Inside the bound it passes, outside it fails, on either side of the reference."""
    for moved in (INSIDE, OUTSIDE):
        for sign in (1, -1):
            agrees(*arguments, **options, moved=moved, sign=sign)


def unit(dtype: str) -> tuple[float, float, float]:
    """Unit roundoff, smallest subnormal and smallest normal number."""
    return {"float32": (2.0**-24, 2.0**-149, 2.0**-126), "float64": (2.0**-53, 2.0**-1074, 2.0**-1022)}[dtype]


def cast(dtype: str, **arrays: Any) -> dict[str, Array]:
    """The results in one precision."""
    return {name: np.asarray(value).astype(dtype) for name, value in arrays.items()}


# ------------------------------------------------------------------ sums


def rows(seed: int = 3, m: int = 4, zeros: bool = False) -> tuple[dict[str, Any], Array]:
    """Sparse rows, and the products with g, (m, k)."""
    arguments = drawn("sp", seed, layout=(90, 30, 0.5), m=m)
    if zeros:
        arguments["values"][:, ::3] = 0
    return arguments, long(arguments["values"]) * long(arguments["g"])[arguments["indices"]]


SAID: dict[str, tuple[dict[str, Any], Callable[..., Array]]] = {
    "undeclared": ({}, lambda n, u, tiny, normal, S, s, o: n * u * S + n * tiny),
    "depth 4": ({"depth": 4}, lambda n, u, tiny, normal, S, s, o: np.minimum(n, 5) * u * S + n * tiny),
    "depth 200": ({"depth": 200}, lambda n, u, tiny, normal, S, s, o: n * u * S + n * tiny),
    "flush to zero": ({"flush_to_zero": True}, lambda n, u, tiny, normal, S, s, o: n * u * S + 2 * n * normal),
    "denormals are zero": (
        {"denormals_are_zero": True}, lambda n, u, tiny, normal, S, s, o: n * u * S + n * tiny + normal * o
    ),
}  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 2.0**-70])
@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sp(dtype: str, said: str, scale: float) -> None:
    """``k u sum |v g| + k tiny``, k the nonzero products, or h + 1; what is flushed added where declared."""
    arguments, _ = rows(zeros=True)
    arguments = {**arguments, "values": arguments["values"] * scale, "g": arguments["g"] * scale}
    v, g = long(arguments["values"]), long(arguments["g"])[arguments["indices"]]
    terms, (u, tiny, normal) = v * g, unit(dtype)
    n, operands = (terms != 0).sum(axis=1), (np.abs(v) + np.abs(g)).sum(axis=1)
    declared, formula = Declared(arithmetic=SAID[said][0]), SAID[said][1]
    s, S = terms.sum(axis=1), np.abs(terms).sum(axis=1)
    bound = formula(n, u, tiny, normal, S, s, operands)
    result = cast(dtype, omega=s)
    if np.all(bound < S):
        both_sides(case_of("sp", arguments), result, "omega", s, bound, declared)
    else:
        check = at_stage(judged(case_of("sp", arguments), result, declared), "omega")
        assert (check.verdict, check.reason) == (INCONCLUSIVE, "vacuous")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_warning_of_sp(dtype: str) -> None:
    """``min(k, 6 sqrt k)`` in place of k: only where that is less, and it never fails a case."""
    arguments, terms = rows()
    u, tiny, _ = unit(dtype)
    n, s, S = terms.shape[1], terms.sum(axis=1), np.abs(terms).sum(axis=1)
    assert n == 45
    narrow = 6 * np.sqrt(Long(n)) * u * S + n * tiny
    case, result = case_of("sp", arguments), cast(dtype, omega=s)
    checks = agrees(case, result, "omega", s, narrow, tier="T3")
    assert "min(k, 6 sqrt)" in at_stage(checks, "omega", "T3").rule
    beyond = agrees(case, result, "omega", s, narrow, tier="T3", moved=OUTSIDE)
    assert at_stage(beyond, "omega").verdict == PASS
    short = drawn("sp", 1, layout=(40, 40, 0.5), m=2)
    assert not [c for c in judged(case_of("sp", short), {"omega": np.zeros(2)}) if c.tier == "T3"]


def test_a_result_stored_coarser_than_its_accumulator_is_rounded_once_more() -> None:
    """``bound + 2^-8 (|s| + bound) + tiny / 2`` of bfloat16, the sum itself in float32."""
    arguments, terms = rows()
    s, S, (u, tiny, _) = terms.sum(axis=1), np.abs(terms).sum(axis=1), unit("float32")
    inner = 45 * u * S + 45 * tiny
    bound = inner + 2.0**-8 * (np.abs(s) + inner) + 2.0**-134
    case, declared = case_of("sp", arguments), Declared(arithmetic={"accumulator": "float32"})
    check = at_stage(judged(case, {"omega": s.astype(np.float64).astype(ml_dtypes.bfloat16)}, declared), "omega")
    ratio = np.abs(long(s.astype(np.float64).astype(ml_dtypes.bfloat16).astype(np.float64)) - s) / bound
    assert check.ratio == pytest.approx(float(ratio.max()), rel=4e-3)
    assert check.bound == pytest.approx(float(bound[int(np.argmax(ratio))]), rel=4e-3)


def test_a_coarser_declared_accumulator_counts() -> None:
    """A float32 result whose sums were bfloat16: u = 2^-8."""
    arguments, terms = rows()
    s, S = terms.sum(axis=1), np.abs(terms).sum(axis=1)
    declared = Declared(arithmetic={"accumulator": "bfloat16"})
    both_sides(case_of("sp", arguments), cast("float32", omega=s), "omega", s,
               45 * 2.0**-8 * S + 45 * UNITS["bfloat16"].tiny, declared)  # fmt: skip


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lcg(dtype: str, said: str) -> None:
    """``n_i u sum |c v| + n_i tiny`` with n_i hits, exactly 0 without; per coordinate."""
    arguments = drawn("lcg", 5, layout=(60, 20, 0.5), m=9)
    arguments["values"][2] = 0
    c, v, i = long(arguments["c"]), long(arguments["values"]), arguments["indices"]
    u, tiny, normal = unit(dtype)
    s, S, n, operands = (np.zeros(60, Long) for _ in range(4))
    for r, row in enumerate(i):
        s[row] += c[r] * v[r]
        S[row] += np.abs(c[r] * v[r])
        n[row] += c[r] * v[r] != 0
        operands[row] += np.abs(c[r]) + np.abs(v[r])
    declared = Declared(arithmetic=SAID[said][0])
    bound = SAID[said][1](n, u, tiny, normal, S, s, operands)
    both_sides(case_of("lcg", arguments), cast(dtype, omega=s), "omega", s, bound, declared)


def test_a_coordinate_that_no_row_holds_is_zero() -> None:
    """Not merely small; -0 is zero."""
    arguments = drawn("lcg", 5, layout=(60, 60, 0.05), m=2)
    free = np.setdiff1d(np.arange(60), arguments["indices"])
    omega = np.zeros(60)
    for r, row in enumerate(arguments["indices"]):
        omega[row] += arguments["c"][r] * arguments["values"][r]
    omega[free[1]] = -0.0
    case = case_of("lcg", arguments)
    assert not [c for c in CRITERIA["lcg"](case, {"omega": omega}, Declared()) if c.verdict == FAIL]
    omega[free[3]] = 5e-324
    check = next(c for c in CRITERIA["lcg"](case, {"omega": omega}, Declared()) if c.verdict == FAIL)
    assert (check.tier, check.line, check.at, check.got) == ("T0", "3:27", (int(free[3]),), 5e-324)
    assert (check.expected, check.bound) == (0.0, 0.0)
    assert check.reason == f"omega[{free[3]}] is 4.94066e-324, no row holds it"


# ------------------------------------------------------------------ F^-1 x


def fisher(dtype: str, seed: int = 2, m: int = 5, d: int = 24, lam: float = 0.25) -> tuple[Case, dict[str, Array]]:
    """A dense window with one coordinate that no gradient touches, and all stages, rounded once."""
    arguments = drawn("mfac_direction", seed, m=m, d=d, lam=lam)
    arguments["G"][:, 7] = 0
    G, x = long(arguments["G"]), long(arguments["x"])
    S, h = G @ G.T, G @ x
    stages = cast(dtype, S=S, h=h)
    stages["c"] = cast(dtype, c=solved(long(stages["S"]), long(stages["h"]), m * lam) / lam)["c"]
    u = x / lam - long(stages["c"]) @ G
    return case_of("mfac_direction", arguments), {"u": u.astype(dtype), **stages}


def solved(S: Array, h: Array, shift: float) -> Array:
    """(shift I + S)^-1 h by elimination in longer numbers."""
    A, b = S + shift * np.eye(len(S)), h.copy()
    for i in range(len(b)):
        for j in range(i + 1, len(b)):
            f = A[j, i] / A[i, i]
            A[j], b[j] = A[j] - f * A[i], b[j] - f * b[i]
    for i in reversed(range(len(b))):
        b[i] = (b[i] - A[i, i + 1 :] @ b[i + 1 :]) / A[i, i]
    return b


def factor(M: Array) -> Array:
    """|L||L^T| of the Cholesky factor, L itself."""
    return np.abs(np.linalg.cholesky(M.astype(np.float64)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_products_of_mfac(dtype: str) -> None:
    """S: ``k u |G||G|^T``; h: ``k u |G||x|``; k the nonzero products of each entry."""
    case, result = fisher(dtype)
    G, x, (u, tiny, _) = long(case.arguments["G"]), long(case.arguments["x"]), unit(dtype)
    both_sides(case, result, "S", G @ G.T, 23 * (u * np.abs(G) @ np.abs(G).T + tiny))
    both_sides(case, result, "h", G @ x, 23 * (u * np.abs(G) @ np.abs(x) + tiny))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_solve_of_mfac(dtype: str) -> None:
    """``|h - M w| <= (3m + 10) u |L||L^T||w| + 4u |h|``, by h moved against a fixed c."""
    case, result = fisher(dtype)
    m, lam, (u, _, _) = 5, case.arguments["lam"], unit(dtype)
    S, h, w = long(result["S"]), long(result["h"]), lam * long(result["c"])
    L = long(factor((S + m * lam * np.eye(m)).astype(np.float64)))
    bound = (3 * m + 10) * u * (L @ (L.T @ np.abs(w))) + 4 * u * np.abs(h)
    rest = h - S @ w - m * lam * w
    ratio = np.abs(rest) / bound
    check = at_stage(judged(case, result), "c")
    assert check.ratio == pytest.approx(float(ratio.max()), rel=4e-3)
    M, i = S + m * lam * np.eye(m), 2
    for moved in (INSIDE, OUTSIDE):
        step = np.zeros(m, Long)
        step[i] = moved * bound[i]
        w_moved = solved(S, h + step, m * lam)
        c = (w_moved / lam).astype(dtype)
        left = np.abs(h - M @ (lam * long(c)))
        allowed = (3 * m + 10) * u * (L @ (L.T @ np.abs(lam * long(c)))) + 4 * u * np.abs(h)
        check = at_stage(judged(case, {**result, "c": c}, Declared(solver="factorisation")), "c")
        assert check.ratio == pytest.approx(float((left / allowed).max()), rel=4e-3)
        assert check.verdict == (PASS if (left <= allowed).all() else FAIL)
        assert check.got == float(c[check.at])
        assert check.expected == pytest.approx(float((w_moved / lam)[check.at]), rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_combination_of_mfac(dtype: str) -> None:
    """``|u - (x/lam - c G)| <= (m + 4) u (|x|/lam + |G|^T |c|)`` plus underflow."""
    case, result = fisher(dtype)
    G, x, c, lam = long(case.arguments["G"]), long(case.arguments["x"]), long(result["c"]), case.arguments["lam"]
    u, tiny, _ = unit(dtype)
    bound = 9 * u * (np.abs(x) / lam + np.abs(c) @ np.abs(G)) + 7 * tiny * (1 + 1 / lam)
    bound[7] = 0  # judged within 2 ulp
    both_sides(case, result, "u", x / lam - c @ G, bound)


def test_the_warning_of_the_combination() -> None:
    """``min(m + 4, 6 sqrt(m + 4))`` with 40 rows."""
    case, result = fisher("float32", m=40, d=50)
    G, x, c, lam = long(case.arguments["G"]), long(case.arguments["x"]), long(result["c"]), case.arguments["lam"]
    size = np.abs(x) / lam + np.abs(c) @ np.abs(G)
    size[7] = 0
    for moved in (INSIDE, OUTSIDE):
        bound = 6 * np.sqrt(Long(44)) * 2.0**-24 * size
        checks = agrees(case, result, "u", x / lam - c @ G, bound, tier="T3", moved=moved)
        assert "min(m+4, 6 sqrt)" in at_stage(checks, "u", "T3").rule


@pytest.mark.parametrize(("dtype", "ulps", "verdict"), [(d, n, v) for d in DTYPES for n, v in ((2, PASS), (3, FAIL))])
def test_off_the_support(dtype: str, ulps: int, verdict: str) -> None:
    """u_i = x_i / lam within 2 ulp where every row of G is zero."""
    case, result = fisher(dtype)
    u = result["u"].copy()
    for _ in range(ulps):
        u[7] = np.nextafter(u[7], np.inf, dtype=dtype)
    assert at_stage(judged(case, {**result, "u": u})[-1:], "u").verdict == verdict


def test_only_the_direction_off_the_support() -> None:
    """Where only u is shown 16 ulp may be another solver's; 40 are wrong. A dense solver is not asked."""
    case, result = fisher("float32")
    u = result["u"].copy()
    u[7] = u[7] * np.float32(1 + 12 * 2.0**-23)
    assert judged(case, {"u": u})[-1].verdict == INCONCLUSIVE
    assert judged(case, {"u": u}, Declared(solver="factorisation"))[-1].verdict == FAIL
    assert {c.verdict for c in judged(case, {"u": u}, Declared(solver="dense"))} == {PASS}
    u[7] = u[7] * np.float32(1 + 40 * 2.0**-23)
    assert judged(case, {"u": u})[-1].verdict == FAIL


@pytest.mark.parametrize("shown", [(), ("S",), ("S", "h")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_direction_alone(dtype: str, shown: tuple[str, ...]) -> None:
    """``(|G^T M^-1| (e_h + e_S |w| + e_w) + (m+4) u (|x| + |G|^T |w|)) / lam + 2u |ref|``, less what is shown."""
    case, result = fisher(dtype)
    G, x, lam, m = long(case.arguments["G"]), long(case.arguments["x"]), case.arguments["lam"], 5
    u, (S, h) = unit(dtype)[0], (long(result["S"]) if "S" in shown else G @ G.T, G @ x)
    h = long(result["h"]) if "h" in shown else h
    w, M = solved(S, h, m * lam), S + m * lam * np.eye(m)
    L = long(factor(M.astype(np.float64)))
    own = (3 * m + 10) * u * (L @ (L.T @ np.abs(w)))
    own += 0 if "h" in shown else 23 * u * np.abs(G) @ np.abs(x)
    own += 0 if "S" in shown else 23 * u * (np.abs(G) @ np.abs(G).T) @ np.abs(w)
    spread = np.abs(np.linalg.inv(M.astype(np.float64)) @ G.astype(np.float64)).T
    ref = (x - w @ G) / lam
    bound = (spread @ own + (m + 4) * u * (np.abs(x) + np.abs(w) @ np.abs(G))) / lam + 2 * u * np.abs(ref)
    bound[7] = 0
    given = {name: result[name] for name in ("u", *shown)}
    for moved in (INSIDE, OUTSIDE):
        got = given["u"].copy()
        at = int(np.argmax(bound))
        got[at] = (ref[at] + moved * bound[at]).astype(dtype)
        check = judged(case, {**given, "u": got}, Declared(solver="factorisation"))[len(shown)]
        assert check.ratio == pytest.approx(float(np.abs(long(got[at]) - ref[at]) / bound[at]), rel=4e-3)
        assert (check.at, check.verdict) == ((at,), PASS if moved < 1 else FAIL)
        assert check.bound == pytest.approx(float(bound[at]), rel=4e-3)


@pytest.mark.parametrize("solver", ["lu", "inverse", "eigh", "dense"])
def test_the_looser_classes(solver: str) -> None:
    """Times cond(M), the largest entry for all; |L||U| of pivoted factors; times cond(F): by c moved in one entry."""
    from scipy.linalg import lu

    case, result = fisher("float32")
    m, lam, u = 5, case.arguments["lam"], 2.0**-24
    S, h = result["S"].astype(np.float64), result["h"].astype(np.float64)
    M = S + m * lam * np.eye(m)
    direction = np.linalg.solve(M, np.eye(m)[0]) / lam
    left, right = (np.abs(a) for a in lu(M, permute_l=True))

    def allowed(w: Array) -> Array:
        L = factor(M)
        own = (left @ (right @ np.abs(w))) if solver == "lu" else L @ (L.T @ np.abs(w))
        strict = (3 * m + 10) * u * own + 4 * u * np.abs(h)
        return strict if solver == "lu" else np.full(m, (np.linalg.cond(M) * strict).max())

    for moved in (0.8, 1.25):
        c = (np.linalg.solve(M, h) / lam + moved * allowed(np.linalg.solve(M, h))[0] * direction).astype(np.float64)
        w = lam * c
        check = at_stage(judged(case, {**result, "c": c.astype(np.float32)}, Declared(solver=solver)), "c")
        gap = np.abs(h - M @ (lam * c.astype(np.float32).astype(np.float64)))
        assert check.ratio == pytest.approx(float((gap / allowed(w)).max()), rel=4e-3)
        assert check.verdict == (PASS if moved < 1 else FAIL)


def test_noise_and_breakdown_are_where_they_are_said_to_be() -> None:
    """``m lam <= u max S_ii`` is undecided, just above it is judged; Demmel's limit for what is not finite."""
    arguments = drawn("mfac_direction", 2, m=4, d=12, lam=1.0)
    G = long(arguments["G"])
    top = float((G @ G.T).diagonal().max())
    for share, said in ((0.9, "lam below the noise"), (1.2, "")):
        lam = float(np.float32(share * top * 2.0**-24 / 4))
        case = case_of("mfac_direction", {**arguments, "lam": lam})
        S, h = (G @ G.T).astype(np.float32), (G @ long(arguments["x"])).astype(np.float32)
        c = (np.linalg.solve(S.astype(np.float64) + 4 * lam * np.eye(4), h.astype(np.float64)) / lam).astype(np.float32)
        u = (long(arguments["x"]) / lam - long(c) @ G).astype(np.float32)
        check = at_stage(judged(case, {"u": u, "S": S, "h": h, "c": c}), "c")
        assert check.reason == said


# ------------------------------------------------------------------ GGT


def ggt(dtype: str, cutoff: float = 1e-6) -> tuple[Case, dict[str, Array]]:
    """A dense window with all stages: the decomposition exact to rounding."""
    arguments = drawn("ggt_direction", 4, m=4, d=20, eps=0.5, cutoff=cutoff)
    G, x = long(arguments["G"]), long(arguments["x"])
    gram = (G @ G.T).astype(dtype)
    L, V = np.linalg.eigh(gram.astype(np.float64))
    L, V = L.astype(dtype), V.astype(dtype)
    u, _ = ggt_direction(G, x, 0.5, long(L), long(V))
    return case_of("ggt_direction", arguments), {"u": u.astype(dtype), "gram": gram, "eigenvalues": L,
                                                 "eigenvectors": V}  # fmt: skip


def ggt_direction(G: Array, x: Array, eps: float, L: Array, V: Array) -> tuple[Array, Array]:
    """The direction and the printed bound of the direction in units of u, all eigenvalues kept."""
    (m, d), sigma = G.shape, np.sqrt(L)
    F = 1 / (eps * sigma * (sigma + eps))
    C = (max(2 * m + 2 * d, 3 * m + d) + 12) * F + 4 * (1 / (sigma + eps) + 1 / eps) / sigma**2
    right, left = np.abs(V).T @ (np.abs(G) @ np.abs(x)), np.abs(V).T @ np.abs(G)
    return x / eps - (F * (V.T @ (G @ x))) @ V.T @ G, (C * right) @ left + 3 * np.abs(x) / eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gram_matrix_and_the_direction_of_ggt(dtype: str) -> None:
    """``k u |G||G|^T``; ``u (|G|^T|V|) (C F) (|V|^T|G||x|) + 3u |x|/eps`` given its own V and L."""
    case, result = ggt(dtype)
    G, x, (u, tiny, _) = long(case.arguments["G"]), long(case.arguments["x"]), unit(dtype)
    both_sides(case, result, "gram", G @ G.T, 20 * (u * np.abs(G) @ np.abs(G).T + tiny))
    expected, bound = ggt_direction(G, x, 0.5, long(result["eigenvalues"]), long(result["eigenvectors"]))
    both_sides(case, result, "u", expected, u * bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("moved", [0.9, 1.15])
def test_the_decomposition_of_ggt(dtype: str, moved: float) -> None:
    """``||A V - V L||_1 <= 30 n 2u ||A||_1``, ``||V^T V - I||_1 <= 30 n 2u``, ``|L - ref| <= 30 n 2u ||A||_1``."""
    case, result = ggt(dtype)
    (u, _, _), n = unit(dtype), 4
    A = long(result["gram"])
    norm = float(np.abs(A).sum(axis=0).max())
    L = result["eigenvalues"].astype(np.float64)
    L[0] += moved * 60 * n * u * norm
    checks = judged(case, {**result, "eigenvalues": L.astype(dtype)})
    check = at_stage(checks, "eigenvalues")
    true = np.linalg.eigvalsh(A.astype(np.float64))
    gap = float(np.abs(L.astype(dtype).astype(np.float64) - true).max())
    assert check.ratio == pytest.approx(gap / (60 * n * u * norm), rel=2e-2 if dtype == "float32" else 0.1)
    assert check.verdict == (PASS if moved < 1 else FAIL)
    V = result["eigenvectors"].astype(np.float64) * (1 + moved * 30 * n * u)
    for stage in [c for c in judged(case, {**result, "eigenvectors": V.astype(dtype)}) if "V^T V" in c.rule]:
        V64 = long(V.astype(dtype))
        loss = float(np.abs(V64.T @ V64 - np.eye(n)).sum(axis=0).max())
        assert stage.ratio == pytest.approx(loss / (60 * n * u), rel=1e-3)
        assert (stage.verdict, stage.expected) == (PASS if moved < 1 else INCONCLUSIVE, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_residual_of_the_pairs_of_ggt(dtype: str) -> None:
    """A pair turned by an angle: the residual is that of the definition."""
    case, result = ggt(dtype)
    A, (u, _, _) = long(result["gram"]), unit(dtype)
    V = result["eigenvectors"].astype(np.float64)
    for angle in (40 * u, 4000 * u):
        turned = V.copy()
        turned[:, 0], turned[:, 3] = V[:, 0] + angle * V[:, 3], V[:, 3] - angle * V[:, 0]
        got = long(turned.astype(dtype))
        residual = float(np.abs(A @ got - got * long(result["eigenvalues"])).sum(axis=0).max())
        allowed = 30 * 4 * 2 * u * float(np.abs(A).sum(axis=0).max())
        (check,) = [c for c in judged(case, {**result, "eigenvectors": turned.astype(dtype)}) if "A V - V L" in c.rule]
        assert check.ratio == pytest.approx(residual / allowed, rel=1e-3)
        assert check.verdict == (PASS if residual <= allowed else FAIL)
        assert check.bound == pytest.approx(allowed, rel=1e-6)


def test_the_mrrr_driver_may_lose_five_hundred() -> None:
    """Declared: 500 n 2u decides; undeclared, between 30 and 500, the class is asked for; beyond, it fails."""
    case, result = ggt("float32")
    mrrr = Declared(arithmetic={"eigensolver": "MRRR"})
    for loss, undeclared, declared in ((100, INCONCLUSIVE, PASS), (600, FAIL, FAIL)):
        V = (result["eigenvectors"].astype(np.float64) * (1 + loss * 4 * 2.0**-24)).astype(np.float32)
        for said, verdict in ((Declared(), undeclared), (mrrr, declared)):
            (check,) = [c for c in judged(case, {**result, "eigenvectors": V}, said) if "V^T V" in c.rule]
            assert check.verdict == verdict
    assert "mrrr" in at_stage([c for c in judged(case, {**result, "eigenvectors": np.float32(
        result["eigenvectors"] * (1 + 400 * 2.0**-24))}) if "V^T V" in c.rule], "eigenvectors").reason  # fmt: skip


def test_noise_and_the_edge_of_the_cut_off() -> None:
    """Kept below 30 m 2u L_max: undecided; within 8u of the cut-off: undecided where it fails, else judged."""
    rng = np.random.default_rng(0)
    for low, said in ((20.0, "a kept eigenvalue is below"), (3000.0, "")):
        sigma = np.sqrt([low * 4 * 2.0**-24, 1, 1.5, 2.0])
        G = np.linalg.qr(rng.standard_normal((4, 4)))[0] * sigma @ np.linalg.qr(rng.standard_normal((12, 4)))[0].T
        arguments = {"G": build.f32(G), "x": build.f32(rng.standard_normal(12)), "eps": 0.5, "cutoff": 0.0}
        gram = arguments["G"] @ arguments["G"].T
        L, V = np.linalg.eigh(gram)
        result = cast("float32", gram=gram, eigenvalues=L, eigenvectors=V)
        L32, V32 = long(result["eigenvalues"]), long(result["eigenvectors"])
        u, _ = ggt_direction(long(arguments["G"]), long(arguments["x"]), 0.5, L32, V32)
        check = at_stage(judged(case_of("ggt_direction", arguments), {**result, "u": u.astype(np.float32)}), "u")
        assert check.reason.startswith(said)
        assert (check.verdict == INCONCLUSIVE) == bool(said)


# ------------------------------------------------------------------ low rank


def power(dtype: str) -> tuple[Case, dict[str, Array]]:
    """Factors of a 9 x 8 matrix, of rank 3."""
    arguments = drawn("power_compress", 6, shape=(9, 4, 2), rho=3)
    M = arguments["g"].reshape(9, 8)
    P = np.linalg.qr(M @ arguments["Q"])[0].astype(dtype)
    return case_of("power_compress", arguments), {"P": P, "Q": (long(M).T @ long(P)).astype(dtype)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_right_factor(dtype: str) -> None:
    """``p u |M|^T |P| + p tiny`` with its own P."""
    case, result = power(dtype)
    M, P, (u, tiny, _) = long(case.arguments["g"].reshape(9, 8)), long(result["P"]), unit(dtype)
    both_sides(case, result, "Q", M.T @ P, 9 * (u * np.abs(M).T @ np.abs(P) + tiny))


@pytest.mark.parametrize(("said", "power_of"), [("householder", 0), ("svd", 0), ("cgs2", 0), ("mgs", 1), ("cgs", 2),
                                                (None, 1)])  # fmt: skip
def test_the_loss_of_orthogonality(said: str | None, power_of: int) -> None:
    """``8 p rho u cond(M Q)^j``: by the class that is declared."""
    case, result = power("float32")
    M = case.arguments["g"].reshape(9, 8)
    cond, u = float(np.linalg.cond(M @ case.arguments["Q"])), 2.0**-24
    for moved in (0.8, 1.3):
        scale = np.eye(3)
        scale[0, 0] += moved * 8 * 27 * u * cond**power_of / 2
        P = (result["P"].astype(np.float64) @ scale).astype(np.float32)
        P64 = P.astype(np.float64)
        loss = float(np.linalg.norm(P64.T @ P64 - np.eye(3)))
        Q = (M.T @ P64).astype(np.float32)
        check = judged(case, {"P": P, "Q": Q}, Declared(orthogonalisation=said))[0]
        assert check.ratio == pytest.approx(loss / (8 * 27 * u * cond**power_of), rel=1e-3)
        assert check.got == pytest.approx(loss, rel=1e-3)
        assert check.expected == 0.0
        expected = PASS if moved < 1 else FAIL if said else INCONCLUSIVE
        assert check.verdict == expected


def test_the_range_of_the_left_factor() -> None:
    """``q u || |M||Q| ||_F + 8 p rho u ||M Q||_F + 1.2 ||P^T P - I|| ||M Q||_F``: P turned out of the range."""
    case, result = power("float32")
    M, Q, u = case.arguments["g"].reshape(9, 8), case.arguments["Q"], 2.0**-24
    full = np.linalg.qr(M @ Q, mode="complete")[0]
    P0 = result["P"].astype(np.float64)
    for angle in (20 * u, 2000 * u):
        P = P0.copy()
        P[:, 1] += angle * full[:, 5]
        P = P.astype(np.float32)
        P64 = P.astype(np.float64)
        MQ = M @ Q
        loss = float(np.linalg.norm(P64.T @ P64 - np.eye(3)))
        bound = 8 * (u * float(np.linalg.norm(np.abs(M) @ np.abs(Q))))
        bound += (8 * 27 * u + 1.2 * loss) * float(np.linalg.norm(MQ))
        outside = float(np.linalg.norm(MQ - P64 @ (P64.T @ MQ)))
        check = judged(case, {"P": P, "Q": (M.T @ P64).astype(np.float32)}, Declared(orthogonalisation="svd"))[1]
        assert check.ratio == pytest.approx(outside / bound, rel=4e-3)
        assert (check.bound, check.got) == (pytest.approx(bound, rel=4e-3), pytest.approx(outside, rel=4e-3))
        assert check.expected == 0.0
        assert check.verdict == (PASS if outside <= bound else FAIL)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inner_product(dtype: str) -> None:
    """``(p1 p2 + rho1 + rho2 + rho1 rho2) u sum((|P1||Q1|^T) o (|P2||Q2|^T))``."""
    arguments = drawn("low_rank_inner_product", 3, sizes=(7, 5, 2, 3))
    P1, Q1, P2, Q2 = (long(arguments[n]) for n in ("P1", "Q1", "P2", "Q2"))
    value = np.asarray(((P1 @ Q1.T) * (P2 @ Q2.T)).sum())
    size = ((np.abs(P1) @ np.abs(Q1).T) * (np.abs(P2) @ np.abs(Q2).T)).sum()
    bound = (35 + 2 + 3 + 6) * unit(dtype)[0] * size
    case, result = case_of("low_rank_inner_product", arguments), {"product": value.astype(dtype)}
    for moved in (INSIDE, OUTSIDE):
        got = (value + moved * bound).astype(dtype)
        check = at_stage(judged(case, {**result, "product": got}), "product")
        assert check.ratio == pytest.approx(moved, rel=4e-3)
        assert check.bound == pytest.approx(float(bound), rel=4e-3)
        assert check.verdict == (PASS if moved < 1 else FAIL)
    narrow = at_stage(judged(case, {"product": (value + bound * 0.5).astype(dtype)}), "product", "T3")
    assert narrow.bound == pytest.approx(float(bound / 46 * 6 * np.sqrt(46)), rel=4e-3)


# ------------------------------------------------------------------ entry by entry


def adagrad(dtype: str) -> tuple[Case, dict[str, Array], Array, Array]:
    """One step in longer numbers, c the sums rounded once."""
    arguments = drawn("adagrad_step", 8, d=12, k=5, eta=0.25)
    arguments["G"] = build.f32(arguments["G"] + 0.5)
    a = (long(arguments["xi"]) + long(arguments["g"])).astype(dtype)
    kept = np.argsort(-np.abs(a), kind="stable")[:5]
    c = np.zeros(12, Long)
    c[kept] = (long(arguments["xi"]) + long(arguments["g"]))[kept]
    G = (long(arguments["G"]) + c * c).astype(dtype)
    xi = a.copy()
    xi[kept] = 0
    theta = long(arguments["theta"]) - Long(0.25) * c.astype(np.float64) / np.sqrt(long(G))
    return case_of("adagrad_step", arguments), {"theta": theta.astype(dtype), "xi": xi, "G": G}, c, theta


@pytest.mark.parametrize("dtype", DTYPES)
def test_adagrad(dtype: str) -> None:
    """``G: 2u |G| + 4u c^2 + tiny``; ``theta: u (|theta'| + 5 eta |step|)``; ``xi: u |a|``."""
    case, result, c, theta = adagrad(dtype)
    u, tiny, _ = unit(dtype)
    assert all(check.verdict == PASS for check in judged(case, result))
    G = long(case.arguments["G"])
    for moved in (INSIDE, OUTSIDE):
        bound = np.where(c != 0, u * (2 * G + 4 * c * c) + tiny, 0)
        agrees(case, result, "G", G + c * c, bound, moved=moved)
    step = np.abs(0.25 * c / np.sqrt(long(result["G"])))
    bound = np.where(c != 0, u * (np.abs(theta) + 5 * step), 0)
    both_sides(case, result, "theta", theta, bound)


@pytest.mark.parametrize(("name", "line"), [("G", "7:8"), ("theta", "7:9")])
def test_adagrad_leaves_what_it_drops(name: str, line: str) -> None:
    """Where nothing is kept G' = G and theta' = theta, exactly."""
    case, result, c, _ = adagrad("float64")
    at = int(np.flatnonzero(c == 0)[2])
    got = result[name].copy()
    got[at] = np.nextafter(got[at], np.inf)
    (check,) = [check for check in judged(case, {**result, name: got}) if check.verdict == FAIL]
    assert check.line in (line, "7:6")


def test_a_declared_root_of_fewer_bits_is_given_them() -> None:
    """``ARITHMETIC = {"rsqrt": 3}``: 3 more ``eta u |step|``; ``READINGS = {"R29": "0.01"}``: that eps."""
    case, result, c, theta = adagrad("float32")
    step = np.abs(0.25 * c / np.sqrt(long(result["G"])))
    bound = np.where(c != 0, 2.0**-24 * (np.abs(theta) + 8 * step), 0)
    both_sides(case, result, "theta", theta, bound, Declared(arithmetic={"rsqrt": 3}))
    eps = float(np.float32(0.01))
    c64 = c.astype(np.float64)
    other = long(case.arguments["theta"]) - 0.25 * c64 / (np.sqrt(long(result["G"])) + eps)
    step = np.abs(0.25 * c / (np.sqrt(long(result["G"])) + eps))
    bound = np.where(c != 0, 2.0**-24 * (np.abs(other) + 5 * step), 0)
    both_sides(case, {**result, "theta": other.astype(np.float32)}, "theta", other, bound,
               Declared(readings={"R29": repr(eps)}))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_sign(dtype: str) -> None:
    """``(d + 4) u s`` plus the rounding of p and of the subtraction; three quantities are conserved."""
    arguments = drawn("sign_step", 2, d=11, gamma=0.25)
    x, e, g = (long(arguments[n]) for n in ("x", "e", "g"))
    p, (u, tiny, _) = Long(0.25) * g + e, unit(dtype)
    s = np.abs(p).mean()
    Delta = s * np.sign(p)
    shaken = 2 * u * (np.abs(0.25 * g) + np.abs(e)) + tiny
    room = 15 * u * s + shaken.mean() + tiny
    case, result = case_of("sign_step", arguments), cast(dtype, x=x - Delta, e=p - Delta)
    assert {c.verdict for c in judged(case, result)} == {PASS}
    for stage, reference, own in (("x", x - Delta, 0), ("e", p - Delta, shaken)):
        for moved in (INSIDE, OUTSIDE):
            agrees(case, result, stage, reference, room + u * np.abs(reference) + own, moved=moved)


def test_signs_are_open_where_p_is_rounding() -> None:
    """``|p_i| <= 2u (|gamma g_i| + |e_i|)``: any sign will do, for Delta_i in {-s, 0, s}."""
    g = np.array([1.0, 2.0, -3.0, 4.0])
    e = np.array([5.0, -2.0 * 0.3 * (1 + 2.0**-24), 1.0, 1.0])
    e[1] = float(np.float32(-2 * float(np.float32(0.3))))
    gamma = float(np.float32(0.3))
    p = gamma * g + e
    p[1] = 0
    x, s = np.zeros(4), np.abs(gamma * g + e).mean()
    case = case_of("sign_step", {"x": x, "e": e + np.array([0, 2.0**-26, 0, 0]), "g": g, "gamma": gamma})
    for open_ in (-1, 0, 1):
        Delta = s * np.sign(p)
        Delta[1] = open_ * s
        checks = judged(case, cast("float32", x=x - Delta, e=p - Delta))
        assert FAIL not in {c.verdict for c in checks}, open_
    Delta[1] = 0.5 * s
    assert FAIL in {c.verdict for c in judged(case, cast("float32", x=x - Delta, e=p - Delta))}


# ------------------------------------------------------------------ error feedback


@pytest.mark.parametrize("dtype", DTYPES)
def test_error_feedback(dtype: str) -> None:
    """``|dense(values) + xi' - (xi + g)| <= u |a^|`` on every coordinate."""
    arguments = drawn("error_feedback", 3, layout=(20, 20, 0.25))
    a, u = long(arguments["xi"]) + long(arguments["g"]), unit(dtype)[0]
    rounded = a.astype(dtype)
    kept = np.sort(np.argsort(-np.abs(rounded), kind="stable")[:5]).astype(np.int32)
    xi = rounded.copy()
    xi[kept] = 0
    result = {"indices": kept, "values": rounded[kept], "xi": xi}
    case, at = case_of("error_feedback", arguments), int(np.argmax(np.where(xi != 0, np.abs(xi), 0)))
    for ulps, verdict in ((0, PASS), (3, FAIL)):
        moved = xi.copy()
        for _ in range(ulps):
            moved[at] = np.nextafter(moved[at], np.inf, dtype=dtype)
        checks = judged(case, {**result, "xi": moved})
        whole = [c for c in checks if c.verdict == FAIL]
        assert bool(whole) == (verdict == FAIL)
        gap = np.abs(long(moved) - a)
        gap[kept] = np.abs(long(rounded[kept]) - a[kept])
        back = np.abs(long(moved))
        back[kept] = np.abs(long(rounded[kept]))
        worst = max(c.ratio for c in checks if c.tier == "T2")
        assert worst == pytest.approx(float((gap / (u * back)).max()), rel=4e-3)


@pytest.mark.parametrize(("k", "blame"), [(3, "2 is dropped, |a[0]| = 1 is kept")])
def test_what_a_wrong_selection_says(k: int, blame: str) -> None:
    """Which entry was dropped, which was kept, and where."""
    a = np.array([1.0, -5.0, 4.0, 2.0, 0.5])
    case = case_of("top_k", {"a": a, "k": k})
    kept = np.array([0, 1, 2], np.int32)
    (check,) = [c for c in judged(case, {"indices": kept, "values": a[kept]}) if c.verdict == FAIL]
    assert blame in check.reason
    assert (check.at, check.got, check.expected, check.bound) == ((0,), 1.0, 2.0, 0.0)
    right = np.array([1, 2, 3], np.int32)
    assert {c.verdict for c in judged(case, {"indices": right, "values": a[right]})} == {PASS}
    (check,) = [c for c in judged(case, {"indices": right, "values": np.array([-5.0, 4.0, 2.5])}) if c.verdict == FAIL]
    assert (check.stage, check.at, check.got, check.expected) == ("values", (2,), 2.5, 2.0)


# ------------------------------------------------------------------ scaled Top-k


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_top_k(dtype: str) -> None:
    """``||dH^1/2|| ||c|| + |H^1/2| |db| + (2d + 4) u |H^1/2||c|``: the errors of the two roots, computed here."""
    rng, d, k = np.random.default_rng(1), 6, 2
    H = build.definite(rng, d, 10.0)
    b = np.array([9.0, 0.1, -0.2, 7.0, 0.3, 0.05])
    L, V = np.linalg.eigh(H)
    L, V = long(L), long(V)
    for _ in range(3):  # Newton's steps towards the orthonormal basis in longer numbers
        V = V @ (1.5 * np.eye(d) - 0.5 * V.T @ V)
    root, inverse = (V * np.sqrt(L)) @ V.T, (V / np.sqrt(L)) @ V.T
    v = build.f32((root @ b).astype(np.float64))
    b = inverse @ long(v)
    u = unit(dtype)[0]
    delta = 30 * d * 2 * u * float(L[-1])
    low = float(L[0]) - delta
    db = delta / (2 * low**1.5) * float(np.linalg.norm(v)) + (2 * d + 4) * u * (np.abs(inverse) @ np.abs(v))
    kept = np.argsort(-np.abs(b))[:k]
    c = np.where(np.isin(np.arange(d), kept), b, 0)
    room = np.where(c != 0, db, 0)
    bound = delta / (2 * np.sqrt(low)) * np.linalg.norm((np.abs(c) + room).astype(np.float64))
    bound = bound + np.abs(root) @ room + (2 * d + 4) * u * np.abs(root) @ np.abs(c)
    case = case_of("scaled_top_k", {"v": v, "H": H, "k": k})
    tolerance = 4e-3 if dtype == "float32" else 0.12  # of float64 the oracle's own error is counted too
    at = int(np.argmax(bound))
    for moved in (0.8, 1.2):
        T = (root @ c).astype(dtype)
        T[at] = ((root @ c)[at] + moved * bound[at]).astype(dtype)
        check = at_stage(judged(case, {"T": T}), "T")
        assert check.ratio == pytest.approx(moved, rel=tolerance)
        assert check.bound == pytest.approx(float(bound[at]), rel=tolerance)
        assert check.verdict == (PASS if moved < 1 else INCONCLUSIVE)  # eigenvectors of MRRR would explain it


# ------------------------------------------------------------------ where products underflow

SINGLE = Declared({"accumulator": "float32"}, "factorisation", "householder", readings={"R29": "0"})
TINY = 2.0**-149
SMALL = 2.0**-78  # products are below the smallest subnormal number of float32


def tiny_sides(
    case: Case, result: dict[str, Array], stage: str, reference: Array, bound: Any, at: Any = None
) -> None:
    """At 0.85 of the bound nothing fails at the stage, at 1.15 it does: the bound is all but underflow here.

    Results travel as float64 and are declared to be computed in float32, so that every multiple can be set.
    """
    bound = np.broadcast_to(np.asarray(bound, np.float64), np.shape(reference))
    at = np.unravel_index(int(np.argmax(bound)), bound.shape) if at is None else at
    for moved, wrong in ((0.85, False), (1.15, True)):
        for sign in (1, -1):
            got = np.array(reference, dtype=np.float64)
            got[at] += sign * moved * bound[at]
            checks = judged(case, {**result, stage: got}, SINGLE)
            failing = [c for c in checks if c.verdict == FAIL and c.stage == stage]
            assert bool(failing) == wrong, (moved, checks)
            if wrong and np.ndim(reference):
                assert failing[0].at in (tuple(map(int, at)), tuple(map(int, at))[::-1])


def test_underflow_of_lcg() -> None:
    """n_i tiny."""
    arguments = drawn("lcg", 5, layout=(60, 20, 0.5), m=9)
    arguments |= {"c": arguments["c"] * SMALL, "values": arguments["values"] * SMALL}
    n, omega = np.bincount(arguments["indices"].ravel(), minlength=60), np.zeros(60)
    for c, i, v in zip(arguments["c"], arguments["indices"], arguments["values"], strict=True):
        omega[i] += c * v
    tiny_sides(case_of("lcg", arguments), {}, "omega", omega, n * TINY)


def small_fisher() -> tuple[Case, dict[str, Array]]:
    """A window whose products vanish; lam of its own size."""
    case, _ = fisher("float64", lam=0.5)
    arguments = {**case.arguments, "G": case.arguments["G"] * SMALL, "x": case.arguments["x"] * SMALL}
    G, x = arguments["G"], arguments["x"]
    S, h = G @ G.T, G @ x
    c = np.linalg.solve(S + 2.5 * np.eye(5), h) / 0.5
    return case_of("mfac_direction", arguments), {"S": S, "h": h, "c": c, "u": x / 0.5 - c @ G}


def test_underflow_of_mfac() -> None:
    """S and h: k tiny; c: ``(m + 2) tiny (1 + lam) (1 + |L||L^T| e + |L|_max |L| e)``."""
    case, result = small_fisher()
    tiny_sides(case, result, "S", result["S"], 23 * TINY)
    tiny_sides(case, result, "h", result["h"], 23 * TINY)
    L = np.sqrt(2.5)  # M = 2.5 I to binary64
    tiny_sides(case, result, "c", result["c"], np.full(5, 7 * TINY * 1.5 * (1 + L * L + L * L) / 2.5 / 0.5))


@pytest.mark.parametrize("i", range(5))
def test_underflow_of_the_solve(i: int) -> None:
    """``(m + 2) tiny (1 + lam) (1 + (|L||L^T| e)_i + |L|_max (|L| e)_i)`` where h is all but nothing and S is not."""
    case, _ = fisher("float64", lam=0.5)
    arguments = {**case.arguments, "x": case.arguments["x"] * 2.0**-146}
    G, x = arguments["G"], arguments["x"]
    S, h = G @ G.T, G @ x
    M = S + 2.5 * np.eye(5)
    L = np.abs(np.linalg.cholesky(M))
    e, w = np.ones(5), np.linalg.solve(M, h)
    bound = 7 * TINY * 1.5 * (1 + L @ (L.T @ e) + L.max() * (L @ e)) + 25 * 2.0**-24 * (L @ (L.T @ np.abs(w)))
    for moved, wrong in ((0.95, False), (1.05, True)):
        step = np.zeros(5)
        step[i] = moved * bound[i]
        c = np.linalg.solve(M, h + step) / 0.5
        found = judged(case_of("mfac_direction", arguments), {"u": x / 0.5 - c @ G, "S": S, "h": h, "c": c}, SINGLE)
        check = at_stage(found, "c")
        assert (check.verdict == FAIL) == wrong
        assert check.ratio == pytest.approx(moved, rel=1e-3)


def test_underflow_of_the_combination() -> None:
    """``(m + 2) tiny (1 + max(1, 1/lam))`` where x is zero and c G vanishes."""
    case, result = small_fisher()
    arguments = {**case.arguments, "x": 0 * case.arguments["x"]}
    c = np.full(5, SMALL)
    G = arguments["G"]
    for lam, factor_ in ((0.5, 3.0), (4.0, 2.0)):
        here = case_of("mfac_direction", {**arguments, "lam": lam})
        u = -(c @ G)
        u[7] = 0
        bound = np.full(24, 7 * TINY * factor_)
        bound[7] = 0
        checks = judged(here, {**result, "c": c, "u": u}, SINGLE)
        assert checks
        for moved, wrong in ((0.85, False), (1.15, True)):
            got = u.copy()
            got[3] += moved * bound[3]
            found = judged(here, {**result, "c": c, "u": got}, SINGLE)
            assert any(k.stage == "u" and k.verdict == FAIL for k in found) == wrong
        got = u.copy()
        got[7] = 1.9 * TINY  # off the support: 2 tiny
        off = judged(here, {**result, "c": c, "u": got}, SINGLE)[-1]
        assert off.verdict != FAIL
        got[7] = 2.3 * TINY + 1e-60
        assert judged(here, {**result, "c": c, "u": got}, SINGLE)[-1].verdict == FAIL


def test_underflow_of_the_gram_matrix() -> None:
    """k tiny."""
    case, result = ggt("float64")
    arguments = {**case.arguments, "G": case.arguments["G"] * SMALL, "x": case.arguments["x"]}
    G = arguments["G"]
    tiny_sides(case_of("ggt_direction", arguments), {**result, "u": result["u"]}, "gram", G @ G.T, 20 * TINY)


def test_underflow_of_the_right_factor_and_of_the_range() -> None:
    """``p tiny``; the range ``q sqrt(p rho) tiny``."""
    arguments = drawn("power_compress", 6, shape=(9, 4, 2), rho=3)
    arguments |= {"g": arguments["g"] * 2.0**-155}
    M, Q = arguments["g"].reshape(9, 8), arguments["Q"]
    P = np.linalg.qr(M * 2.0**155 @ Q, mode="complete")[0]
    case, result = case_of("power_compress", arguments), {"P": P[:, :3], "Q": M.T @ P[:, :3]}
    tiny_sides(case, result, "Q", result["Q"], 9 * TINY)
    outside = float(np.linalg.norm(M @ Q))
    turned = {"P": P[:, 6:], "Q": M.T @ P[:, 6:]}  # nothing of M Q is in the span
    limit = 8 * np.sqrt(27.0) * TINY
    for scale, wrong in ((0.85 * limit / outside, False), (1.15 * limit / outside, True)):
        moved = case_of("power_compress", {"g": arguments["g"] * scale, "Q": Q})
        checks = judged(moved, {"P": turned["P"], "Q": turned["Q"] * scale}, SINGLE)
        assert (checks[1].verdict == FAIL) == wrong


def test_underflow_of_the_inner_product() -> None:
    """``tiny (p1 |Q1^T Q2| + p2 |P1|^T|P2| + rho1 |P2||Q2|^T + rho2 |P1||Q1|^T + p1 p2 + rho1 rho2)``, summed."""
    arguments = drawn("low_rank_inner_product", 3, sizes=(7, 5, 2, 3))
    arguments |= {"P1": arguments["P1"] * SMALL, "P2": arguments["P2"] * SMALL}
    P1, Q1, P2, Q2 = (arguments[n] for n in ("P1", "Q1", "P2", "Q2"))
    value = np.asarray(((P1 @ Q1.T) * (P2 @ Q2.T)).sum())
    more = 7 * np.abs(Q1.T @ Q2).sum() + 5 * (np.abs(P1).T @ np.abs(P2)).sum() + 35 + 6
    more += 2 * (np.abs(P2) @ np.abs(Q2).T).sum() + 3 * (np.abs(P1) @ np.abs(Q1).T).sum()
    case = case_of("low_rank_inner_product", arguments)
    for moved, wrong in ((0.97, False), (1.03, True)):
        got = np.asarray(value + moved * more * TINY)
        assert any(c.verdict == FAIL for c in judged(case, {"product": got}, SINGLE) if c.tier == "T2") == wrong


def test_underflow_of_adagrad() -> None:
    """theta: ``4 tiny (eta + 1)`` where something is moved, nothing elsewhere; c^2 below normal: undecided."""
    d = 4
    arguments = {"theta": np.zeros(d), "xi": np.zeros(d), "G": np.zeros(d), "g": np.array([1.0, 0.5, 0, 0]) * 2.0**-60,
                 "k": 2, "eta": 2.0**-100}  # fmt: skip
    G = arguments["g"] ** 2
    case = case_of("adagrad_step", arguments)
    theta = np.array([-1.0, -1.0, 0, 0]) * 2.0**-100
    step = 5 * 2.0**-24 * 2.0**-100 + 2.0**-124
    bound = np.array([1, 1, 0, 0]) * (4 * TINY * (1 + 2.0**-100) + step)
    result = {"theta": theta, "xi": np.zeros(d), "G": G}
    tiny_sides(case, result, "theta", theta, bound, (1,))
    zero = case_of("adagrad_step", {**arguments, "eta": 0.0 + 2.0**-149})
    small = np.array([-1.0, -1.0, 0, 0]) * TINY
    tiny_sides(zero, {**result, "theta": small}, "theta", small, np.array([1, 1, 0, 0]) * 4 * TINY, (0,))
    moved = small.copy()
    moved[2] = 1e-300
    assert any(c.verdict == FAIL for c in judged(zero, {**result, "theta": moved}, SINGLE))
    fast = {"theta": np.zeros(1), "xi": np.zeros(1), "G": np.full(1, 2.0**126), "g": np.full(1, 2.0**-62), "k": 1}
    theta = np.full(1, -3 * 2.0**-125)  # eta c / sqrt(G), eta = 3
    result = {"theta": theta, "xi": np.zeros(1), "G": fast["G"]}
    bound = 4 * TINY * (1 + 3) + 2.0**-24 * (np.abs(theta) + 5 * np.abs(theta))
    tiny_sides(case_of("adagrad_step", {**fast, "eta": 3.0}), result, "theta", theta, bound, (0,))
    result = {"theta": np.zeros(d), "xi": np.zeros(d), "G": G}
    tiny_g = case_of("adagrad_step", {**arguments, "g": arguments["g"] * 2.0**-15})
    checks = judged(tiny_g, {**result, "G": G * 2.0**-30}, SINGLE)
    assert {c.reason for c in checks if c.verdict == INCONCLUSIVE} == {"underflow"}


def test_underflow_of_sign() -> None:
    """``mean of 2u (|gamma g| + |e|) + tiny``, ``tiny`` more for the mean itself."""
    arguments = {"x": np.zeros(3), "e": np.zeros(3), "g": np.array([3.0, -2.0, 4.0]) * 2.0**-148, "gamma": 0.5}
    p = 0.5 * arguments["g"]
    s = np.abs(p).mean()
    Delta = s * np.sign(p)
    case, result = case_of("sign_step", arguments), {"x": -Delta, "e": p - Delta}
    tiny_sides(case, result, "x", -Delta, np.full(3, 2 * TINY), (2,))
    tiny_sides(case, result, "e", p - Delta, np.full(3, 3 * TINY), (2,))


# ------------------------------------------------------------------ selections, what is decided by equality alone


@pytest.mark.parametrize("change", [-0.5, 0.5, 2.0**-40])
def test_a_value_that_is_not_that_of_a(change: float) -> None:
    """Larger, smaller, by however little."""
    a = np.array([1.0, -5.0, 4.0, 2.0, 0.5])
    values = np.array([-5.0, 4.0, 2.0])
    values[1] += change
    case = case_of("top_k", {"a": a, "k": 3})
    result = {"indices": np.array([1, 2, 3], np.int32), "values": values}
    (check,) = [c for c in judged(case, result) if c.verdict == FAIL]
    assert (check.stage, check.at, check.tier, check.expected) == ("values", (1,), "T1", 4.0)


@pytest.mark.parametrize(
    ("indices", "reason", "line"),
    [
        ([0, 1, 5, 7, 8], "5 entries are kept, must be 6", "K:2"),
        ([0, 1, 5, 7, 8, 12], "indices[5] is 12, must be in 0..11", "K:3"),
        ([-1, 1, 5, 7, 8, 11], "indices[0] is -1, must be in 0..11", "K:3"),
        ([0, 1, 5, 7, 7, 11], "position 7 is chosen 2 times", "K:3"),
        ([0, 1, 2, 7, 8, 11], "block 0 (0..3): 3 kept, must be 2", "K:2"),
        ([0, 1, 8, 9, 5, 7], "indices[4] = 5 stands after an entry of a later block", "K:3"),
    ],
)
def test_positions_that_are_wrong(indices: list[int], reason: str, line: str) -> None:
    """The count, the range, twice the same, the count of a block, the order of the blocks."""
    a = np.arange(1.0, 13.0)
    case = case_of("block_top_k", {"a": a, "block_size": 4, "density": 0.5})
    held = np.array(indices, np.int32)
    values = a[np.clip(held, 0, 11)]
    found = [c for c in CRITERIA["block_top_k"](case, {"indices": held, "values": values}, Declared())
             if c.verdict == FAIL]  # fmt: skip
    assert [(c.tier, c.reason, c.line) for c in found] == [("T0", reason, line)]


def test_nan_by_the_declared_policy() -> None:
    """The largest: kept before an infinity; the smallest: dropped before zero; undeclared: neither kept nor dropped."""
    a = np.array([1.0, np.nan, np.inf, 0.0])
    case = case_of("top_k", {"a": a, "k": 1})
    for policy, right in (("largest", [1]), ("smallest", [2]), (None, [1, 2])):
        for i in range(4):
            result = {"indices": np.array([i], np.int32), "values": a[[i]]}
            assert (FAIL not in {c.verdict for c in judged(case, result, Declared(nan=policy))}) == (i in right)
    wrong = {"indices": np.array([1], np.int32), "values": np.array([1.0])}
    assert FAIL in {c.verdict for c in judged(case, wrong, Declared(nan="largest"))}
    wrong = {"indices": np.array([2], np.int32), "values": np.array([np.nan])}
    assert FAIL in {c.verdict for c in judged(case, wrong, Declared(nan="smallest"))}
    three = case_of("top_k", {"a": a, "k": 3})
    for kept, right in (([0, 1, 2], True), ([0, 2, 3], False)):
        result = {"indices": np.array(kept, np.int32), "values": a[kept]}
        assert (FAIL not in {c.verdict for c in judged(three, result, Declared(nan="largest"))}) == right
        assert (FAIL not in {c.verdict for c in judged(three, result, Declared(nan="smallest"))}) == (not right)
