"""--certify: enclosures contain the truth, a wrong oracle is noticed, nothing is passed over in silence."""

import json
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("flint")

import efcp_ref
from efcp_ref.cli import main
from efcp_ref.contract import NAMES
from efcp_ref.oracle import certify, check_target, enclose, exact, rational, terminal
from efcp_ref.oracle.campaign import Plan
from efcp_ref.oracle.cases import standard
from efcp_ref.oracle.certify import Certificate, Unenclosed
from efcp_ref.oracle.chunks import Chunk, Door, judge_chunk
from efcp_ref.oracle.core import Case, Check, Declared
from efcp_ref.oracle.criteria import eigen, elementwise, replay, scaled, selection, sums
from efcp_ref.oracle.exact import Pair, Product
from efcp_ref.oracle.judge import judge, judge_case
from efcp_ref.oracle.targets import Local

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def _the_same_numbers_whatever_ran_before():
    rng.bit_generator.state = np.random.default_rng(3).bit_generator.state
f32 = lambda a: np.asarray(np.asarray(a, np.float32), np.float64)  # noqa: E731


def whole(found):
    """The enclosed numbers as Fractions (rational) or midpoints (ball), and the largest radius."""
    import flint

    def one(v):
        if isinstance(v, int):
            return Fraction(v), Fraction(0)
        if isinstance(v, flint.fmpq):
            return Fraction(int(v.p), int(v.q)), Fraction(0)
        mid, rad = (Fraction(int(m)) * Fraction(2) ** int(e) for m, e in (v.mid().man_exp(), v.rad().man_exp()))
        return mid, rad

    mids, radii = zip(*map(one, found.values), strict=True)
    return list(mids), max(radii)


def agrees(found, right, radius=Fraction(0)):
    """Whether every exact number is equal, or lies within its ball, which is small."""
    mids, widest = whole(found)
    right = [Fraction(*map(int, rational_of(x))) for x in np.asarray(right, object).ravel()]
    assert len(mids) == len(right)
    assert widest <= radius
    return all(abs(a - b) <= widest + radius for a, b in zip(mids, right, strict=True))


def rational_of(x):
    if hasattr(x, "_mpf_"):
        from mpmath.libmp import to_rational

        return to_rational(x._mpf_)
    x = Fraction(x)
    return x.numerator, x.denominator


# --- enclosures, against the second oracle


def test_sums_are_exact():
    A, B, c = rng.standard_normal((3, 5)), rng.standard_normal((3, 5)) * 1e-200, rng.standard_normal(3)
    E, F = rational.exact(A), rational.exact(B)
    assert agrees(enclose.dots(A, B), (E * F).sum(axis=1))
    assert agrees(enclose.product(A, B.T), E @ F.T)
    indices = np.array([[0, 2, 3, 4, 6], [1, 2, 3, 4, 5], [0, 1, 2, 4, 6]])
    assert agrees(enclose.scattered(indices, c, A, 8), rational.exact(c) @ rational.dense(indices, A, 8))
    assert agrees(enclose.gap(A, B, got=A), abs(F))
    some = np.arange(15).reshape(3, 5) % 2 == 0
    assert agrees(enclose.gap(A, B, got=A, where=some), np.where(some, abs(F), 0))


def test_whole_numbers_carry_every_bit():
    A = np.array([5e-324, 1e308, -0.1, 0.0, 3.0])
    numbers, e = enclose.whole(A)
    assert [Fraction(n) * Fraction(2) ** e for n in numbers] == [Fraction(x) for x in A.tolist()]
    with pytest.raises(Unenclosed):
        enclose.whole([np.inf])


@pytest.mark.parametrize("lam", [1e-7, 0.5, 1e3])
def test_solves_are_exact(lam):
    G, x = f32(rng.standard_normal((4, 7))), f32(rng.standard_normal(7))
    G[2], lam = 0, float(np.float32(lam))
    u, S, h, c = rational.fisher(rational.exact(G), lam, rational.exact(x))
    system = enclose.System(G, x, lam, 4)
    assert agrees(system.direction(), u)
    assert agrees(system.coefficients(), c)
    own = rational.rounded(c)
    Fraction_c, M = rational.exact(own), S + Fraction(lam) * 4 * rational.exact(np.eye(4))
    assert agrees(system.residual(own), abs(h - M @ (Fraction(lam) * Fraction_c)))
    assert agrees(system.direction(own), rational.exact(x) / Fraction(lam) - Fraction_c @ rational.exact(G))
    skew = f32(rng.standard_normal((4, 4))) + 9 * np.eye(4)
    given = enclose.System(G, x, lam, 4, skew, symmetric=True).direction()
    half = (rational.exact(skew) + rational.exact(skew).T) / 2
    w = rational.solve(half + Fraction(lam) * 4 * rational.exact(np.eye(4)), h)
    assert agrees(given, (rational.exact(x) - w @ rational.exact(G)) / Fraction(lam))


WINDOWS = {
    "generic": rng.standard_normal((4, 6)), "rows twice": np.repeat(rng.standard_normal((2, 6)), 2, axis=0),
    "zero rows": np.vstack([rng.standard_normal((2, 6)), np.zeros((3, 6))]), "equal eigenvalues": np.eye(4, 6),
    "graded": rng.standard_normal((4, 6)) * np.array([[1e4], [1.0], [1e-4], [1.0]]),
    "taller": rng.standard_normal((6, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("cutoff", [0.0, 1e-6])
def test_the_direction_of_ggt_is_enclosed_whatever_the_spectrum(name, cutoff):
    """Equal eigenvalues and exact zeros need no separation: the rank is exact, phi(A) is enclosed as a whole."""
    G = f32(WINDOWS[name])
    x = f32(rng.standard_normal(G.shape[1]))
    cutoff = float(np.float32(cutoff))
    u, _, squares, _ = rational.ggt(rational.exact(G), rational.exact(x), 0.125, cutoff)
    assert agrees(enclose.ggt(G, x, 0.125, cutoff), u, Fraction(1, 10**30))
    A = enclose.gram(G, None, 0.0)
    L = rational.rounded(squares)
    right = max(abs(rational.big(Fraction(a)) - b) for a, b in zip(sorted(L), sorted(squares), strict=True))
    assert agrees(enclose.eigenvalue_gap(A, L), [right], Fraction(1, 10**30))


def test_an_eigenvalue_on_the_cut_off_cannot_be_enclosed():
    """Eigenvalues 100 and 25 with cut-off 1/4: whether 25 > 1/4 * 100 no precision of balls can tell."""
    G, x = np.array([[6.0, -4.0], [8.0, 3.0]]), np.ones(2)
    with pytest.raises(Unenclosed):
        enclose.ggt(G, x, 0.5, 0.25)
    near = np.nextafter(0.25, 0)  # both are kept: u = x / (sigma + eps) in the basis of G^T G = diag(100, 25)
    assert agrees(enclose.ggt(G, x, 0.5, near), [Fraction(2, 21), Fraction(2, 11)], Fraction(1, 10**30))
    problem = eigen.Problem.of(Case("ggt_direction", "", "", 0, 0, {"x": x, "eps": 0.5, "cutoff": 0.25}), G, 2,
                               exact_unit())  # fmt: skip
    u, size = np.array([0.4, 2.0]), np.ones(2)

    def judged():
        return problem.judge("u", "4:11", "", u, u, 1e-3 * size, size, lambda: enclose.ggt(G, x, 0.5, 0.25))

    assert judged().verdict == "pass"
    with certify.certifying():
        assert (judged().verdict, judged().reason) == ("inconclusive", "oracle")


def exact_unit():
    from efcp_ref.oracle.core import UNITS

    return UNITS["float64"]


def test_scaled_top_k_and_pairs_are_enclosed():
    H = f32(rng.standard_normal((5, 5)))
    H, v = f32(H @ H.T) + 0.5 * np.eye(5), f32(rng.standard_normal(5))
    H = (H + H.T) / 2
    T = rational.scaled_top_k(v, H, 2)
    h, V = rational.eigen(rational.exact(H))
    basis = np.linalg.solve(np.real(np.linalg.cholesky(np.eye(5))), np.zeros(5))
    root = (np.linalg.eigh(H)[1] / np.sqrt(np.linalg.eigh(H)[0])) @ np.linalg.eigh(H)[1].T
    kept = np.argsort(-np.abs(root @ v))[:2]
    assert basis.shape == (5,)
    found = enclose.scaled_top_k(H, v, kept)
    mids, widest = whole(found)
    assert widest < 1e-30
    assert np.allclose([float(m) for m in mids], T, rtol=1e-15)
    L, W = np.linalg.eigh(H)
    right = rational.exact(W).T @ rational.exact(W) - rational.exact(np.eye(5))
    assert agrees(enclose.defect(W), [max(abs(right).sum(axis=0))])


def test_elementwise_steps_are_enclosed():
    theta, xi, g = (f32(rng.standard_normal(6)) for _ in range(3))
    G = f32(rng.standard_normal(6) ** 2)
    kept = np.array([1, 0, 1, 0, 0, 1], bool)
    E = [rational.exact(a) for a in (theta, xi, g, G)]
    assert agrees(enclose.squared(xi, g, kept, G), E[3] + np.where(kept, (E[1] + E[2]) ** 2, 0))
    c = np.where(kept, g, 0.0)
    right = [rational.big(t) - rational.big(Fraction(0.5)) * rational.big(x) / rational.sqrt(s)
             for t, x, s in zip(E[0], rational.exact(c), E[3], strict=True)]  # fmt: skip
    assert agrees(enclose.moved(theta, c, G, 0.5, 0.0), right, Fraction(1, 10**40))
    p = Fraction(0.25) * E[2] + E[1]
    delta = rational._scaled_sign(p)
    got = rational.rounded(E[0] - delta)
    found = enclose.signed((theta,), got, (g, xi), 0.25, [6], np.zeros(6, bool))
    assert agrees(found, abs(rational.exact(got) - (E[0] - delta)))
    found = enclose.conserved(theta, xi, g, 0.25, got, got)
    assert agrees(found, abs(rational.exact(got) - rational.exact(got) - (E[0] - p)))


# --- the standard cases


@pytest.mark.timeout(600)
def test_the_reference_passes_certified_on_the_standard_cases():
    """The reduced form of ``python benchmarks/certify.py``."""
    report = check_target("efcp_ref", cases=3, certify=True, jobs=1, shrink_seconds=0, timeout=60)
    assert report.exit_code == 0
    assert {o.verdict for o in report.operations} == {"pass"}
    whole = certify.total(o.certificate for o in report.operations)
    assert (whole.overturned, dict(whole.missing)) == (0, {})
    assert 0 < whole.largest <= 0.1
    assert min(whole.rational, whole.ball, whole.comparison) > 0
    assert not any("oracle" in o.inconclusive for o in report.operations)
    shown = terminal.text(report)
    assert f"verdicts certified {whole.certified} of {whole.certified} (" in shown
    told = {o["operation"]: o for o in terminal.as_json(report)["operations"]}
    assert told["ggt_direction"]["certificate"]["ball"] > 0 == told["sp"]["certificate"]["ball"]


# --- it bites


def shifted(function, part=0.3):
    """A product whose value is off by part of its float32 bound."""

    def wrong(*given, **named):
        p = function(*given, **named)
        n = max(given[0].shape[-1], 1)
        return Product(Pair(p.value.hi + part * n * 2.0**-24 * p.magnitude, p.value.lo), p.error, p.magnitude)

    return wrong


def off(function, by):
    return lambda *given, **named: by(function(*given, **named))


def nudge(a, part):
    return Pair(a.hi, a.lo + part * 2.0**-24 * np.abs(a.hi))


def farther(measured):
    gap, bound, bad = measured
    return gap + 0.3 * bound, bound, bad


WRONG = {
    "sp": [(sums, "plain", shifted)],
    "lcg": [(sums, "scattered", lambda f: off(f, lambda p: Product(nudge(p.value, 0.5), p.error, p.magnitude)))],
    "mfac_direction": [(exact, "product", shifted)],
    "error_feedback": [(selection._Step, "measured", lambda f: property(lambda step: farther(f.func(step))))],
    "ggt_direction": [(eigen, "_direction", lambda f: off(f, lambda t: (t[0] + 0.3 * t[2], t[1], t[2])))],
    "adagrad_step": [(elementwise, "add", lambda f: off(f, lambda s: nudge(s, 0.5)))],
    "sign_step": [(elementwise, "_mean_magnitude", lambda f: off(f, lambda s: nudge(s, 6.0)))],
    "scaled_top_k": [(scaled.Basis, "image", lambda f: off(f, lambda t: (t[0] + 0.3 * t[1], t[1])))],
    "power_compress": [(exact, "product", shifted)],
    "dense_mfac": [(replay.steps, "product", shifted)],
}


def with_verdicts(operation, on):
    """The verdicts of the reference in float32 on a few cases, and the reasons of what is undecided."""
    target = Local({operation: getattr(efcp_ref, operation)})
    target.certify = on
    return [judge_case(target, case.with_dtype("float32"))[0] for case in standard(operation, 8, 0)]


@pytest.mark.parametrize("operation", WRONG)
def test_a_wrong_oracle_becomes_inconclusive(operation, monkeypatch):
    """The oracle's own value is off by about a third of the bound: without --certify nothing shows."""
    before = {v.case.id: v.verdict for v in with_verdicts(operation, False)}
    for where, name, wrong in WRONG[operation]:
        monkeypatch.setattr(where, name, wrong(getattr(where, name)))
        if operation == "power_compress":
            from efcp_ref.oracle.criteria import low_rank

            monkeypatch.setattr(low_rank, "product", wrong(low_rank.product))
    after = with_verdicts(operation, True)
    caught = [v for v in after if v.verdict == "inconclusive" and v.first.reason == "oracle"]
    assert caught, [(v.verdict, v.first) for v in after]
    assert any(before[v.case.id] == "pass" for v in caught)
    assert "fail" not in before.values()
    assert sum(v.certificate.overturned for v in after) >= len(caught)
    assert max(c.oracle_error for v in caught for c in v.checks if c.oracle == certify.OVERTURNED) > 0.1


def test_a_single_wrong_element_is_noticed(monkeypatch):
    real = sums.plain

    def wrong(terms):
        p = real(terms)
        hi = p.value.hi.copy()
        hi[0] += 0.11 * np.count_nonzero(terms[0]) * 2.0**-24 * p.magnitude[0]
        return Product(Pair(hi, p.value.lo), p.error, p.magnitude)

    monkeypatch.setattr(sums, "plain", wrong)
    target = Local({"sp": efcp_ref.sp})
    g = f32(rng.standard_normal(9))
    arguments = {"indices": np.tile(np.arange(9, dtype=np.int32), (2, 1)), "values": f32(rng.standard_normal((2, 9))),
                 "g": g, "block_size": 9, "density": 1.0}  # fmt: skip
    case = Case("sp", "generic", "", 0, 0, arguments).with_dtype("float32")
    assert judge_case(target, case)[0].verdict == "pass"
    target.certify = True
    verdict = judge_case(target, case)[0]
    assert (verdict.verdict, verdict.first.reason) == ("inconclusive", "oracle")


def test_a_failing_verdict_is_certified_too():
    target = Local({"sp": lambda indices, values, g: (values * g[indices]).sum(1) * np.float32(1.01)})
    target.certify = True
    report = judge(target, ["sp"], 4, 0, shrink_seconds=0)
    assert report["sp"].verdict == "fail"
    assert report["sp"].certificate.overturned == 0 < report["sp"].certificate.rational


def test_gross_failures_stay_failures():
    """A gap of 10^15 bounds is itself rounded when it is written down: that is no error of the oracle."""
    target = Local({"mfac_direction": lambda G, lam, x: (x * 1e9, G @ G.T, G @ x, np.full(len(G), 1e9))})
    target.certify = True
    report = judge(target, ["mfac_direction"], 6, 0, shrink_seconds=0, dtype="float64")
    assert report["mfac_direction"].verdict == "fail"


# --- nothing is passed over


def test_what_is_too_large_is_counted(monkeypatch):
    monkeypatch.setattr(enclose, "ENTRIES", 4)
    target = Local({"sp": efcp_ref.sp})
    target.certify = True
    report = judge(target, ["sp"], 4, 0)
    assert report["sp"].verdict == "pass"
    assert report["sp"].certificate.missing[certify.TOO_LARGE] > 0
    assert "too large to enclose" in terminal.text(report)
    monkeypatch.setattr(enclose, "ENTRIES", 10**6)
    monkeypatch.setattr(enclose, "ORDER", 1)
    target = Local({"ggt_direction": efcp_ref.ggt_direction})
    target.certify = True
    assert judge(target, ["ggt_direction"], 2, 0)["ggt_direction"].certificate.missing[certify.TOO_LARGE] > 0


def test_a_check_without_an_enclosure_is_counted():
    check = Check("u", "T2", "W:4", "", 0.5)
    with certify.certifying():
        assert certify.audit(check, 0.0, 1.0, None).oracle == certify.NO_TRUTH
    assert certify.certificate_of([check]) == Certificate(missing={certify.NO_TRUTH: 1})
    assert certify.audit(check, 0.0, 1.0, None) is check


def test_the_weaker_certificate_of_several_steps_counts():
    good = Check("u", "T2", "W:4", "", 0.5, oracle="rational", oracle_error=0.01)
    worse = replace(good, oracle=certify.TOO_LARGE, oracle_error=None)
    assert certify.merged(good, worse).oracle == certify.TOO_LARGE == certify.merged(worse, good).oracle
    assert certify.merged(good, replace(good, oracle_error=0.02)).oracle_error == 0.02


def test_certificates_add_up():
    one, two = Certificate(1, 2, 3, 0, {"a": 1}, 0.01), Certificate(10, 0, 0, 1, {"a": 2, "b": 1}, 0.05)
    assert one + two == Certificate(11, 2, 3, 1, {"a": 3, "b": 1}, 0.05)
    assert certify.total([None, one, None, two]) == one + two
    assert certify.total([None]) is None


# --- the doors


def test_without_python_flint_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    with pytest.raises(ModuleNotFoundError, match=r"efcp-ref\[certify\]"):
        check_target("efcp_ref", ["sp"], cases=1, certify=True)
    told = CliRunner().invoke(main, ["check", "efcp_ref", "--certify"])
    assert told.exit_code == 2
    assert "efcp-ref[certify]" in told.output


def test_a_door_that_is_not_certified_says_so():
    told = CliRunner().invoke(main, ["check", "efcp_ref", "--certify", "--large"])
    assert told.exit_code == 2
    assert "--certify" in told.output


def test_rows_and_reports_carry_the_certificate(tmp_path):
    door = Door("efcp_ref", certify=True)
    target = door.open()
    rows = judge_chunk(target, Chunk("sp", 0, 0, 3)).rows
    target.close()
    assert all(row.certificate.certified > 0 and row.quality is not None for row in rows if "T2" in row.tiers)
    arguments = ["check", "efcp_ref", "-o", "sp", "-o", "ggt_direction", "--cases", "12", "--certify", "--json"]
    alone, several = (
        json.loads(CliRunner().invoke(main, [*arguments, "--jobs", jobs, "--report", str(tmp_path / jobs)]).output)
        for jobs in ("1", "2")
    )
    for one, two in zip(alone["operations"], several["operations"], strict=True):
        assert one["certificate"] == two["certificate"]
        assert one["quality"] == two["quality"]
    assert "verdicts certified" in (tmp_path / "1" / "index.html").read_text()
    heads = [Plan(Door("efcp_ref", certify=on), ("sp",), 12, 0).head() for on in (True, False)]
    assert heads[0] != heads[1], "a campaign that was certified is not continued without"


def test_every_operation_is_certified_by_something():
    """No family of criteria was forgotten: on one case of each operation at least one verdict is enclosed."""
    for operation in NAMES:
        target = Local({operation: getattr(efcp_ref, operation)}, Declared())
        target.certify = True
        found = certify.total(judge_case(target, case)[0].certificate for case in standard(operation, 2, 0))
        assert found.certified > 0, operation
        assert not found.missing, operation
