"""Tiers and declarations: each saves a correct target from a fail (or from a doubt), and none saves a wrong one."""

import json
from math import ceil, log2, sqrt

import ml_dtypes
import numpy as np
import pytest
from scipy.linalg import lu_factor, lu_solve

import efcp_ref
from efcp_ref.oracle import terminal
from efcp_ref.oracle.cases import standard
from efcp_ref.oracle.core import Case, Check, Declared, quality_of
from efcp_ref.oracle.criteria import CRITERIA
from efcp_ref.oracle.judge import Quality, judge
from efcp_ref.oracle.targets import Local

rng = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def _the_same_numbers_whatever_ran_before():
    rng.bit_generator.state = np.random.default_rng(11).bit_generator.state
BF16 = ml_dtypes.bfloat16
U = 2.0**-24


def f32(a):
    return np.asarray(np.asarray(a, np.float32), np.float64)


def sp_case(values, g, dtype="float32"):
    values, g = np.atleast_2d(f32(values)), f32(g)
    indices = np.tile(np.arange(values.shape[1], dtype=np.int32), (len(values), 1))
    arguments = {"indices": indices, "values": values, "g": g, "block_size": len(g), "density": 1.0}
    return Case("sp", "generic", "", 0, 0, arguments).with_dtype(dtype)


def verdicts(function, operation, cases, declared=None):
    """The verdict of every case, with its reason."""
    target = Local({operation: function}, declared or Declared())
    report = judge(target, [operation], given={operation: list(cases)}, shrink_seconds=0)[operation]
    return report


# --- arithmetic: sums


def in_order(kind, store=None):
    """Sum one product after another in one precision."""

    def sp(indices, values, g):
        out = np.zeros(len(values), kind)
        for j in range(values.shape[1]):
            term = (values[:, j].astype(kind) * g[indices[:, j]].astype(kind)).astype(kind)
            out = (out + term).astype(kind)
        return out.astype(store or kind)

    return sp


def tree(indices, values, g):
    """Float32 products added pairwise: depth ceil(log2 k)."""
    terms = np.float32(values) * np.float32(g)[indices]
    while terms.shape[1] > 1:
        if terms.shape[1] % 2:
            terms = np.hstack([terms, np.zeros((len(terms), 1), np.float32)])
        terms = terms[:, 0::2] + terms[:, 1::2]
    return terms[:, 0]


def random_sums(dtype, k=300, n=4):
    return [sp_case(rng.standard_normal((3, k)), rng.standard_normal(k), dtype) for _ in range(n)]


@pytest.mark.parametrize(("kind", "dtype"), [("float32", "float64"), ("bfloat16", "float32")])
def test_a_coarser_accumulator_must_be_declared(kind, dtype):
    """Sums in float32 returned as float64, sums in bfloat16 returned as float32: right by their own precision."""
    target = in_order(BF16 if kind == "bfloat16" else np.float32, np.dtype(dtype))
    cases = random_sums(dtype, 40)
    assert verdicts(target, "sp", cases).verdict == "fail"
    said = verdicts(target, "sp", cases, Declared(arithmetic={"accumulator": kind}))
    assert (said.verdict, said.passed) == ("pass", 4)


def test_a_finer_accumulator_is_held_to_it():
    """Float64 sums stored as bfloat16: with the declaration only the last rounding is coarse."""
    cases, fine = random_sums("float32", 40), Declared(arithmetic={"accumulator": "float64"})
    assert verdicts(in_order(np.float64, BF16), "sp", cases, fine).passed == 4
    sloppy = in_order(BF16)
    assert verdicts(sloppy, "sp", cases).verdict == "pass"
    assert verdicts(sloppy, "sp", cases, fine).verdict == "fail"


@pytest.mark.parametrize(("k", "threads"), [(4096, 32), (1000, 8)])
def test_a_declared_tree_is_judged_k_over_h_plus_1_times_tighter(k, threads):
    """T strided threads and a tree: h = ceil(k/T) + ceil(log2 T)."""
    h = ceil(k / threads) + ceil(log2(threads))
    case, result = sp_case(rng.standard_normal((2, k)), rng.standard_normal(k)), {"omega": np.zeros(2, np.float32)}
    loose, tight = (
        next(c for c in CRITERIA["sp"](case, result, Declared(arithmetic=said)) if c.tier == "T2")
        for said in ({}, {"depth": h})
    )
    assert loose.at == tight.at
    assert loose.bound / tight.bound == pytest.approx(k / (h + 1), rel=1e-6)


def test_a_declared_tree_passes_and_a_sum_in_order_does_not():
    """4096 numbers of which a sum in order loses every one but the first: within k u, not within (log2 k + 1) u."""
    k = 4096
    case = sp_case(np.concatenate([[1.0], np.full(k - 1, 2.0**-25)]), np.ones(k))
    deep = Declared(arithmetic={"depth": ceil(log2(k))})
    for declared in (Declared(), deep):
        assert verdicts(tree, "sp", [case], declared).verdict == "pass"
    assert verdicts(in_order(np.float32), "sp", [case]).verdict == "pass"
    assert verdicts(in_order(np.float32), "sp", [case], deep).verdict == "fail"


def test_units_that_flush_must_be_declared():
    """Products below 2^-126 become 0; a unit that takes denormal inputs for zeros loses more."""
    tiny = sp_case(np.full((2, 50), 2.0**-70), np.full(50, 2.0**-60))
    small = sp_case(np.full((2, 50), 2.0**-130), np.full(50, 1.0))
    normal = np.float32(2.0**-126)

    def flushed(a):
        return np.where(np.abs(a) < normal, np.float32(0), a)

    def ftz(indices, values, g):
        return flushed(np.float32(values) * np.float32(g)[indices]).sum(1, dtype=np.float32)

    def daz(indices, values, g):
        return ftz(indices, flushed(np.float32(values)), flushed(np.float32(g)))

    says_ftz, says_daz = {"flush_to_zero": True}, {"flush_to_zero": True, "denormals_are_zero": True}
    for target, case, said in ((ftz, tiny, says_ftz), (daz, small, says_daz)):
        assert verdicts(target, "sp", [case]).verdict == "fail"
        assert verdicts(target, "sp", [case], Declared(arithmetic=said)).verdict != "fail"
    assert verdicts(daz, "sp", random_sums("float32"), Declared(arithmetic=says_daz)).passed == 4
    wrong = in_order(np.float32)
    assert verdicts(lambda i, v, g: wrong(i, v, g) * np.float32(1.01), "sp", random_sums("float32"),
                    Declared(arithmetic=says_daz)).verdict == "fail"  # fmt: skip


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_a_coarser_storage_must_be_declared(storage):
    """The window is rounded before it is used, the results are float32."""
    kind = BF16 if storage == "bfloat16" else np.float16

    def stored(indices, values, g):
        return in_order(np.float32)(indices, np.float32(np.asarray(values).astype(kind)), np.float32(g))

    cases = random_sums("float32")
    assert verdicts(stored, "sp", cases).verdict == "fail"
    assert verdicts(stored, "sp", cases, Declared(arithmetic={"storage": storage})).passed == 4


def test_values_of_a_coarser_storage_must_be_declared():
    """Top-k hands bfloat16 values over in float32 arrays."""

    def top_k(a, k):
        kept = np.argsort(-np.abs(a), kind="stable")[:k].astype(np.int32)
        return kept, np.float32(a[kept].astype(BF16))

    case = Case("top_k", "generic", "", 0, 0, {"a": f32(rng.standard_normal(20)), "k": 5}).with_dtype("float32")
    assert verdicts(top_k, "top_k", [case]).verdict == "fail"
    assert verdicts(top_k, "top_k", [case], Declared(arithmetic={"storage": "bfloat16"})).verdict == "pass"


def test_an_approximate_reciprocal_root_must_be_declared():
    """A step that is wrong by 8 u of itself, as hardware's rsqrt is, after a correct G."""

    def step(theta, xi, G, g, k, eta):
        a = np.float32(xi) + np.float32(g)
        kept = np.argsort(-np.abs(a), kind="stable")[:k]
        c = np.zeros_like(a)
        c[kept] = a[kept]
        G = np.float32(G) + c * c
        root = np.where(G > 0, 1 / np.sqrt(np.where(G > 0, G, 1).astype(float)), 0) * (1 + 12 * U)
        return np.float32(theta - eta * c * root), a - c, G

    cases = []
    for _ in range(4):
        theta, xi, g = f32(rng.standard_normal(30) * 1e-3), f32(rng.standard_normal(30)), f32(rng.standard_normal(30))
        arguments = {"theta": theta, "xi": xi, "G": f32(rng.random(30)), "g": g, "k": 12, "eta": 1.0}
        cases.append(Case("adagrad_step", "generic", "", 0, 0, arguments).with_dtype("float32"))
    assert verdicts(step, "adagrad_step", cases).verdict == "fail"
    assert verdicts(step, "adagrad_step", cases, Declared(arithmetic={"rsqrt": 12})).passed == 4


# --- solvers


def solved(solve):
    """Eq. (2) in float32 by one solver."""

    def mfac_direction(G, lam, x):
        G, x, lam = np.float32(G), np.float32(x), np.float32(lam)
        S, h = G @ G.T, G @ x
        c = np.float32(solve(S + np.float32(len(G) * lam) * np.eye(len(G), dtype=np.float32), h) / lam)
        return x / lam - c @ G, S, h, c

    return mfac_direction


def eigh(M, h):
    from scipy.linalg import eigh as lapack

    values, V = lapack(M)
    return V @ ((V.T @ h) / values)


SOLVERS = {
    "lu": lambda M, h: lu_solve(lu_factor(M), h),
    "inverse": lambda M, h: np.float32(np.linalg.inv(M.astype(np.float32))) @ h,
    "eigh": eigh,
}


def graded(n=100):
    """Windows whose rows differ by up to 10^4 in size: there pivoting and eigenvectors leave the symmetric bound."""
    cases = []
    for _ in range(n):
        G = f32(rng.standard_normal((8, 20)) * 10.0 ** rng.uniform(-2, 2, (8, 1)))
        arguments = {"G": G, "lam": float(np.float32(10.0 ** rng.uniform(-6, -2))), "x": f32(rng.standard_normal(20))}
        cases.append(Case("mfac_direction", "generic", "", 0, 0, arguments).with_dtype("float32"))
    return cases


def dependent(n=40, lam=1e-4):
    """Windows of half the rank and small damping, condition about 10^5: there inverses leave the symmetric bound."""
    cases = []
    for _ in range(n):
        G = f32(rng.standard_normal((8, 4)) @ rng.standard_normal((4, 20)))
        arguments = {"G": G, "lam": float(np.float32(lam)), "x": f32(rng.standard_normal(20))}
        cases.append(Case("mfac_direction", "generic", "", 0, 0, arguments).with_dtype("float32"))
    return cases


@pytest.mark.parametrize("name", SOLVERS)
def test_another_solver_is_in_doubt_until_it_is_declared(name):
    """Held to a symmetric factorisation it fails; undeclared it is inconclusive; declared it is decided."""
    cases, target = dependent() if name == "inverse" else graded(), solved(SOLVERS[name])
    assert verdicts(target, "mfac_direction", cases, Declared(solver="factorisation")).failed > 0
    doubt = verdicts(target, "mfac_direction", cases)
    assert doubt.failed == 0 < sum(n for why, n in doubt.inconclusive.items() if why == "solver class")
    said = verdicts(target, "mfac_direction", cases, Declared(solver=name))
    assert said.failed == 0 == said.inconclusive.get("solver class", 0)
    assert said.passed > 0


def test_a_dense_solve_is_in_doubt_until_it_is_declared():
    """F is formed and factorised, d x d, in float32; only u is visible."""
    from scipy.linalg import cho_factor, cho_solve

    def dense(G, lam, x):
        G, x = np.float32(G), np.float32(x)
        F = np.float32(lam) * np.eye(G.shape[1], dtype=np.float32) + G.T @ G / np.float32(len(G))
        return cho_solve(cho_factor(F), x)

    cases = []
    for _ in range(12):
        arguments = {
            "G": f32(rng.standard_normal((4, 40))),
            "lam": float(np.float32(1e-4)),
            "x": f32(rng.standard_normal(40)),
        }
        cases.append(Case("mfac_direction", "generic", "", 0, 0, arguments).with_dtype("float32"))
    assert verdicts(dense, "mfac_direction", cases, Declared(solver="factorisation")).failed > 0
    doubt = verdicts(dense, "mfac_direction", cases)
    assert doubt.failed == 0 < doubt.inconclusive["solver class"]
    said = verdicts(dense, "mfac_direction", cases, Declared(solver="dense"))
    assert said.failed == 0 == said.inconclusive.get("solver class", 0)


def test_no_solver_class_saves_a_wrong_solution():
    for name in (None, "lu", "inverse", "eigh", "factorisation"):
        wrong = solved(lambda M, h: np.linalg.solve(M, h) * np.float32(1.5))
        assert verdicts(wrong, "mfac_direction", dependent(4, 4.0), Declared(solver=name)).failed > 0, name


# --- orthogonalisation


def gram_schmidt(modified):
    def power_compress(g, Q):
        M, Q = np.float32(g).reshape(len(g), -1), np.float32(Q)
        A = M @ Q
        P = np.zeros_like(A)
        for j in range(A.shape[1]):
            v = A[:, j].copy()
            for i in range(j):
                v = v - P[:, i] * (P[:, i] @ (v if modified else A[:, j]))
            P[:, j] = v / np.sqrt(v @ v)
        return P, M.T @ P

    return power_compress


def ill_conditioned(condition, n=6):
    cases = []
    for _ in range(n):
        left, right = np.linalg.qr(rng.standard_normal((10, 6)))[0], np.linalg.qr(rng.standard_normal((12, 6)))[0]
        g = f32(left * np.logspace(0, -np.log10(condition), 6) @ right.T)
        turned = right @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
        case = Case("power_compress", "generic", "", 0, 0, {"g": g, "Q": f32(turned)})
        cases.append(case.with_dtype("float32"))
    return cases


def test_the_class_of_orthogonalisation_is_in_doubt_until_it_is_declared():
    """Classical Gram-Schmidt loses cond^2 u, modified cond u, Householder u (Björck; Giraud, Langou, Rozložník)."""
    cases, cgs, mgs = ill_conditioned(40.0), gram_schmidt(False), gram_schmidt(True)
    assert verdicts(cgs, "power_compress", cases, Declared(orthogonalisation="cgs")).passed == 6
    assert verdicts(mgs, "power_compress", cases).passed == 6
    assert verdicts(cgs, "power_compress", cases).failed == 0
    hard = ill_conditioned(2000.0)
    assert verdicts(mgs, "power_compress", hard, Declared(orthogonalisation="householder")).failed > 0
    assert verdicts(mgs, "power_compress", hard).failed == 0
    assert verdicts(mgs, "power_compress", hard, Declared(orthogonalisation="mgs")).passed == 6


def loses(part):
    """Columns that lose orthogonality by a part of cond^2 u, more than cond u: as classical Gram-Schmidt may."""

    def power_compress(g, Q):
        M, Q = np.asarray(g, float).reshape(len(g), -1), np.asarray(Q, float)
        A = M @ Q
        P = np.linalg.qr(A)[0]
        s = np.linalg.svd(A, compute_uv=False)
        P[:, 1] += part * 8 * A.size * U * (s[0] / s[-1]) ** 2 * P[:, 0] / 2
        return np.float32(P), np.float32(M.T @ np.float64(np.float32(P)))

    return power_compress


def test_classical_gram_schmidt_at_its_worst_is_saved_by_its_declaration():
    cases, target = ill_conditioned(20.0), loses(0.4)
    assert verdicts(target, "power_compress", cases, Declared(orthogonalisation="mgs")).failed > 0
    doubt = verdicts(target, "power_compress", cases)
    assert doubt.failed == 0 < sum(n for why, n in doubt.inconclusive.items() if "ORTHOGONALISATION = 'cgs'" in why)
    assert verdicts(target, "power_compress", cases, Declared(orthogonalisation="cgs")).passed == 6
    assert verdicts(loses(4.0), "power_compress", cases, Declared(orthogonalisation="cgs")).failed == 6


# --- readings


def stored_count(G, lam, x):
    """R4: the number of stored gradients in place of m."""
    count = max(int(G.any(axis=1).sum()), 1)
    c = np.linalg.solve(G @ G.T + count * lam * np.eye(len(G)), G @ x) / lam
    return x / lam - c @ G


def ridged(G, x, eps, cutoff):
    """R24: 1e-6 is added to the Gram matrix."""
    L, V = np.linalg.eigh(G @ G.T + 1e-6 * np.eye(len(G)))
    on = cutoff * L[-1] < L
    s = np.sqrt(L[on])
    return x / eps - G.T @ (V[:, on] @ ((V[:, on].T @ (G @ x)) / (eps * s * (s + eps))))


def released(theta, xi, G, g, k, eta):
    """R29: 1e-10 is added outside the root."""
    a = xi + g
    kept = np.argsort(-np.abs(a), kind="stable")[:k]
    c = np.zeros_like(a)
    c[kept] = a[kept]
    G = G + c * c
    return theta - eta * c / (np.sqrt(G) + 1e-10), a - c, G


def by_tensor(x, e, g, gamma):
    """R34: tensors of 2 and 3 entries, each with a scale of its own."""
    p, delta = gamma * g + e, np.zeros_like(g)
    at = np.split(np.arange(len(g)), np.cumsum([2, 3] * len(g))[: len(g)])
    for part in (i for i in at if len(i)):
        delta[part] = np.abs(p[part]).mean() * np.sign(p[part])
    return x - delta, p - delta


def reading_cases(operation):
    G, x = f32(rng.standard_normal((4, 6))), f32(rng.standard_normal(6))
    few = G * np.array([[1], [1], [0], [0]])
    arguments = {
        "mfac_direction": {"G": few, "lam": 0.5, "x": x},
        "ggt_direction": {"G": f32(G * 1e-2), "x": x, "eps": 0.125, "cutoff": 0.0009765625},
        "adagrad_step": {
            "theta": f32(x * 1e-9),
            "xi": f32(x * 1e-4),
            "G": f32(np.zeros(6)),
            "g": f32(G[0] * 1e-4),
            "k": 3,
            "eta": 1.0,
        },
        "sign_step": {"x": x, "e": G[0], "g": G[1], "gamma": 0.25},
    }[operation]
    return [Case(operation, "generic", "", 0, 0, arguments)]


@pytest.mark.parametrize(
    ("operation", "target", "reading", "undeclared"),
    [
        ("mfac_direction", stored_count, {"R4": "stored"}, "inconclusive"),
        ("ggt_direction", ridged, {"R24": "ridge"}, "inconclusive"),
        ("adagrad_step", released, {"R29": "1e-10"}, "inconclusive"),
        ("sign_step", by_tensor, {"R34": "2,3"}, "fail"),
    ],
)
def test_another_reading_passes_once_it_is_declared(operation, target, reading, undeclared):
    """Undeclared: in doubt, with the declaration to add; a partition into tensors (R34) is never guessed."""
    cases, (name, _) = reading_cases(operation), *reading.items()
    doubt = verdicts(target, operation, cases)
    assert doubt.verdict == undeclared
    if undeclared == "inconclusive":
        assert all(f"reading {name}" in why and "READINGS" in why for why in doubt.inconclusive)
    assert verdicts(target, operation, cases, Declared(readings=reading)).verdict == "pass"
    reference = verdicts(getattr(efcp_ref, operation), operation, cases, Declared(readings=reading))
    assert reference.verdict == "fail", "who declares another reading is held to it"


# --- the probable bound, and the score


def drifting(indices, values, g):
    """Float32, every product rounded away from zero by one u: within k u, far beyond 6 sqrt(k) u."""
    terms = np.asarray(values, float) * np.asarray(g, float)[indices]
    return np.float32((terms * (1 + 0.9 * values.shape[1] * U)).sum(1))


def test_beyond_the_probable_bound_is_a_warning_and_a_score():
    k = 400
    case = sp_case(np.abs(rng.standard_normal((2, k))), np.abs(rng.standard_normal(k)))
    report = verdicts(drifting, "sp", [case])
    assert (report.verdict, report.passed, report.warnings) == ("pass", 1, 1)
    assert report.quality.worst == pytest.approx(0.9 * sqrt(k) / 6, rel=0.05)
    good = verdicts(in_order(np.float32), "sp", [case])
    assert (good.warnings, good.verdict) == (0, "pass")
    assert good.quality.worst < 1


def test_the_score_is_the_ratio_to_the_sharpest_bound_that_holds():
    S2, S3 = Check("S", "T2", "W:5", "", 0.1), Check("S", "T3", "W:5", "", 0.5)
    u, open_ = Check("u", "T2", "W:4", "", 0.2), Check("h", "T2", "W:3", "", 0.9, "inconclusive")
    assert quality_of((S2, S3, u)) == 0.5
    assert quality_of((S2, u, open_)) == 0.2
    assert quality_of((Check("S", "T1", "W:5", "", 0.0), open_)) is None
    assert Quality.of([]) is None
    assert Quality.of([0.1, 0.3, 0.2]) == Quality(3, 0.2, 0.3)


@pytest.mark.parametrize("operation", ["sp", "lcg", "mfac_direction", "ggt_direction", "sign_step", "dense_mfac"])
def test_the_score_is_shown_everywhere(operation):
    target = Local({operation: getattr(efcp_ref, operation)})
    report = judge(target, [operation], 6, 0, shrink_seconds=0)
    score = report[operation].quality
    assert 0 <= score.median <= score.worst <= 1
    assert terminal.quality(report[operation]) in terminal.text(report)
    told = terminal.as_json(report)["operations"][0]["quality"]
    assert json.loads(json.dumps(told)) == {"cases": score.cases, "median": score.median, "worst": score.worst}


@pytest.mark.parametrize(("operation", "tier"), [("ggt_direction", "gram"), ("sign_step", "x"), ("dense_mfac", "S")])
def test_sums_of_more_than_36_terms_have_a_probable_bound(operation, tier):
    """``6 sqrt n < n`` from n = 37 on."""
    long = [
        case
        for case in standard(operation, 60, 0)
        if max(np.shape(v)[-1] for v in case.arguments.values() if np.ndim(v)) > 40
    ]
    seen = set()
    for case in long[:12]:
        target = Local({operation: getattr(efcp_ref, operation)})
        found = CRITERIA[operation](
            case.with_dtype("float32"), target.run(case.with_dtype("float32")).results, Declared()
        )
        seen |= {c.stage for c in found if c.tier == "T3"}
    assert tier in seen
