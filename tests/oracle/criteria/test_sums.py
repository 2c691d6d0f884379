"""SP and LCG: correct code in any order never fails, wrong code fails on its line, the bounds are reached."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria.sums import lcg, sp

NONE = Declared()


def numbers(rng, shape, kind):
    """float32-representable numbers, as float64."""
    x = rng.standard_normal(shape)
    scale = {"unit": 1.0, "small": 1e-12, "large": 1e12, "wide": 10.0 ** rng.uniform(-8, 8, shape), "subnormal": 1e-40}[
        kind
    ]
    return (x * scale).astype(np.float32).astype(np.float64)


def rows(rng, m, d, k):
    return np.stack([np.sort(rng.choice(d, k, replace=False)) for _ in range(m)]).astype(np.int32)


def case(operation, arguments, *flags):
    return Case(operation, "generic", "", 0, 0, arguments, frozenset(flags))


def sp_case(rng, kind="unit", m=None, k=None, cancelling=0.3):
    m, k = m or int(rng.integers(1, 6)), k or int(rng.integers(1, 70))
    d = k + int(rng.integers(0, 30))
    values, g = numbers(rng, (m, k), kind), numbers(rng, d, kind if kind != "large" else "unit")
    indices = rows(rng, m, d, k)
    if rng.random() < cancelling:  # the second half repeats the first with the other sign, a little off
        half = k // 2
        values[:, half : 2 * half] = (-values[:, :half] * (1 + 2.0**-20)).astype(np.float32)
        g[:] = np.float32(1.5)
    return case("sp", {"indices": indices, "values": values, "g": g, "block_size": d, "density": 1})


def sp_run(c, dtype, rng, how):
    """sp in ``dtype``: sequential in random order, pairwise, or strided lanes and a tree."""
    a = c.arguments
    terms = a["values"].astype(dtype) * a["g"].astype(dtype)[a["indices"]]
    if how == "pairwise":
        return terms.sum(axis=1)
    if how == "tree":
        lanes = np.zeros((len(terms), 8), dtype)
        for j in range(terms.shape[1]):
            lanes[:, j % 8] += terms[:, j]
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        return lanes[:, 0]
    return np.cumsum(rng.permuted(terms, axis=1), axis=1, dtype=dtype)[:, -1]


def lcg_case(rng, kind="unit", *flags):
    m, d = int(rng.integers(1, 50)), int(rng.integers(4, 40))
    k = int(rng.integers(1, d))
    values = numbers(rng, (m, k), kind)
    values[rng.random(m) < 0.2] = 0
    return case("lcg", {"indices": rows(rng, m, d, k), "values": values, "c": numbers(rng, m, "unit"), "d": d}, *flags)


def lcg_run(c, dtype, rng):
    a, omega = c.arguments, np.zeros(c.arguments["d"], dtype)
    for r in rng.permutation(len(a["c"])):
        omega[a["indices"][r]] += a["c"][r].astype(dtype) * a["values"][r].astype(dtype)
    return omega


def blamed(checks):
    return next((c.stage, c.line) for c in checks if c.verdict == FAIL and c.tier != "T3")


@pytest.mark.parametrize("kind", ["unit", "small", "large", "wide", "subnormal"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_correct_sums_in_any_order_never_fail(kind, dtype):
    rng = np.random.default_rng(1)
    decided = 0
    for _ in range(100):
        c = sp_case(rng, kind)
        for how in ("sequential", "pairwise", "tree"):
            said = verdict_of(sp(c, {"omega": sp_run(c, dtype, rng, how)}, NONE))
            assert said != FAIL
            decided += said == PASS
        c = lcg_case(rng, kind)
        assert verdict_of(lcg(c, {"omega": lcg_run(c, dtype, rng)}, NONE)) != FAIL
    assert decided > 250 or kind == "subnormal"


def test_sums_in_bfloat16_storage_and_accumulator_never_fail():
    rng = np.random.default_rng(2)
    for _ in range(100):
        c = sp_case(rng, "unit")
        stored = sp_run(c, np.float32, rng, "sequential").astype(ml_dtypes.bfloat16)
        assert verdict_of(sp(c, {"omega": stored}, Declared({"accumulator": "float32"}))) == PASS
        assert verdict_of(sp(c, {"omega": stored}, NONE)) != FAIL
        a = c.arguments
        terms = (a["values"] * a["g"][a["indices"]]).astype(ml_dtypes.bfloat16)
        total = np.zeros(len(terms), ml_dtypes.bfloat16)
        for j in range(terms.shape[1]):
            total = total + terms[:, j]
        rounded = {
            **a,
            "values": a["values"].astype(ml_dtypes.bfloat16).astype(float),
            "g": a["g"].astype(ml_dtypes.bfloat16).astype(float),
        }
        terms = (rounded["values"] * rounded["g"][a["indices"]]).astype(ml_dtypes.bfloat16)
        total = sum((terms[:, j] for j in range(terms.shape[1])), np.zeros(len(terms), ml_dtypes.bfloat16))
        assert verdict_of(sp(case("sp", rounded), {"omega": total}, NONE)) != FAIL


def test_a_declared_depth_is_sharper_and_the_tree_meets_it():
    rng, tight, loose = np.random.default_rng(3), 0, 0
    for _ in range(100):
        c = sp_case(rng, "unit", 3, 64)
        omega = sp_run(c, np.float32, rng, "tree")
        assert verdict_of(sp(c, {"omega": omega}, Declared({"depth": 8 + 3}))) == PASS
        worst = [
            max(x.ratio for x in sp(c, {"omega": omega}, d) if x.tier == "T2") for d in (Declared({"depth": 11}), NONE)
        ]
        assert worst[0] >= worst[1]
        off = omega * np.float32(1 + 2.0**-18)
        tight += verdict_of(sp(c, {"omega": off}, Declared({"depth": 11}))) == FAIL
        loose += verdict_of(sp(c, {"omega": off}, NONE)) == FAIL
    assert tight > loose


def test_flushing_units_pass_where_they_say_so():
    rng = np.random.default_rng(4)
    normal = 2.0**-126
    for _ in range(100):
        c = sp_case(rng, "unit")
        c = case(
            "sp",
            {
                **c.arguments,
                "values": numbers(rng, c.arguments["values"].shape, "small") * 2.0**-83,
                "g": c.arguments["g"],
            },
        )
        a = c.arguments
        terms = a["values"].astype(np.float32) * a["g"].astype(np.float32)[a["indices"]]
        terms[np.abs(terms) < normal] = 0
        omega = np.zeros(len(terms), np.float32)
        for j in range(terms.shape[1]):
            omega = omega + terms[:, j]
            omega[np.abs(omega) < normal] = 0
        assert (
            verdict_of(sp(c, {"omega": omega}, Declared({"flush_to_zero": True, "denormals_are_zero": True}))) != FAIL
        )


def test_the_reference_is_the_sum_of_fractions():
    rng = np.random.default_rng(5)
    for kind in ("unit", "wide", "small"):
        c = sp_case(rng, kind, 3, 20)
        a = c.arguments
        exact = [
            float(sum(Fraction(v) * Fraction(a["g"][i]) for v, i in zip(row, at, strict=True)))
            for row, at in zip(a["values"], a["indices"], strict=True)
        ]
        wrong = np.array(exact) + 1e3 * np.abs(exact)
        check = next(x for x in sp(c, {"omega": wrong}, NONE) if x.verdict == FAIL)
        assert check.expected == exact[check.at[0]]
        assert verdict_of(sp(c, {"omega": np.array(exact)}, NONE)) == PASS


def test_the_bounds_are_reached():
    """One term loses up to half an ulp, u |v x|; 30 terms can lose 29 of them."""
    rng = np.random.default_rng(6)
    ratio = 0.0
    for _ in range(300):
        c = sp_case(rng, "unit", 4, 1)
        ratio = max(
            ratio, *(x.ratio for x in sp(c, {"omega": sp_run(c, np.float32, rng, "pairwise")}, NONE) if x.tier == "T2")
        )
    assert 0.9 < ratio <= 1
    values = np.full((1, 30), 2.0**-24)
    values[0, 0] = 1.0  # 1 + 2^-24 rounds to 1: all 29 of them are lost
    omega = np.cumsum(values.astype(np.float32)[0], dtype=np.float32)[-1:]
    (check,) = sp(
        case("sp", {"indices": np.arange(30)[None], "values": values, "g": np.ones(30)}), {"omega": omega}, NONE
    )[1:]
    assert 0.96 < check.ratio <= 1
    a = {"indices": np.zeros((30, 1), int), "values": values.T, "c": np.ones(30), "d": 1}
    assert 0.96 < max(x.ratio for x in lcg(case("lcg", a), {"omega": omega}, NONE)) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_coordinate_off_by_the_bound_fails(dtype):
    rng, u = np.random.default_rng(7), 2.0**-24 if dtype == np.float32 else 2.0**-53
    for _ in range(50):
        c = sp_case(rng, "unit")
        a = c.arguments
        terms = a["values"] * a["g"][a["indices"]]
        omega = terms.sum(axis=1)
        omega[-1] += 2.5 * terms.shape[1] * u * np.abs(terms[-1]).sum()
        if dtype == np.float32 or np.abs(omega[-1]) < 1e3:
            assert blamed(sp(c, {"omega": omega.astype(dtype)}, Declared({"accumulator": np.dtype(dtype).name}))) == (
                "omega",
                "2:11",
            )


def test_planted_bugs_of_sp_fail_on_line_2_11():
    rng = np.random.default_rng(8)
    for _ in range(50):
        c = sp_case(rng, "unit", 3, 40, 0)
        a = c.arguments
        g, v, i = a["g"], a["values"], a["indices"]
        wrong = {
            "dropped entry": (v[:, 1:] * g[i[:, 1:]]).sum(1),
            "relative indices": (v * g[i - i[:, :1]]).sum(1),
            "absolute values": (np.abs(v) * g[i]).sum(1),
            "zeros": np.zeros(3),
            "gradient order": (v * g[: v.shape[1]]).sum(1),
        }
        for name, omega in wrong.items():
            if not np.allclose(omega, (v * g[i]).sum(1), rtol=1e-3):
                assert blamed(sp(c, {"omega": omega.astype(np.float32)}, NONE)) == ("omega", "2:11"), name


def test_exact_cases_ask_for_equality():
    rng = np.random.default_rng(9)
    missed = 0
    for _ in range(200):
        k = int(rng.integers(2, 60))
        a = {
            "indices": rows(rng, 2, k + 5, k),
            "values": rng.integers(-64, 65, (2, k)) * 2.0**-4,
            "g": rng.integers(-64, 65, k + 5) * 2.0,
        }
        c = case("sp", a, "exact")
        omega = (a["values"] * a["g"][a["indices"]]).sum(1).astype(np.float32)
        checks = sp(c, {"omega": omega}, NONE)
        assert [x.tier for x in checks] == ["T0", "T1"]
        assert verdict_of(checks) == PASS
        j = int(rng.integers(k))
        if a["values"][0, j] * a["g"][a["indices"][0, j]] != 0:
            omega[0] -= a["values"][0, j] * a["g"][a["indices"][0, j]]
            missed += verdict_of(sp(c, {"omega": omega}, NONE)) != FAIL
        c = case(
            "lcg", {"indices": a["indices"], "values": a["values"], "c": np.array([3.0, -5.0]), "d": k + 5}, "exact"
        )
        omega = lcg_run(c, np.float32, rng)
        assert [x.tier for x in lcg(c, {"omega": omega}, NONE)] == ["T0", "T0", "T1"]
        assert verdict_of(lcg(c, {"omega": omega}, NONE)) == PASS
    assert missed == 0


def test_exactness_is_not_asked_of_an_accumulator_that_is_too_small():
    a = {"indices": np.arange(3)[None], "values": np.array([[256.0, 1.0, 1.0]]), "g": np.ones(3)}
    rounded = np.array([256.0], ml_dtypes.bfloat16)
    assert verdict_of(sp(case("sp", a, "exact"), {"omega": rounded}, NONE)) == PASS
    assert verdict_of(sp(case("sp", a, "exact"), {"omega": np.array([256.0], np.float32)}, NONE)) == FAIL


def test_planted_bugs_of_lcg_fail_on_their_lines():
    rng = np.random.default_rng(10)
    for _ in range(50):
        c = lcg_case(rng)
        a = c.arguments
        good = lcg_run(c, np.float64, rng)
        empty = np.bincount(a["indices"].ravel(), minlength=a["d"]) == 0
        if empty.any():
            dirty = good.copy()
            dirty[np.argmax(empty)] = 1e-30
            assert blamed(lcg(c, {"omega": dirty}, NONE)) == ("omega", "3:27")
        last_only = np.zeros(a["d"])
        for r in range(len(a["c"])):
            last_only[a["indices"][r]] = a["c"][r] * a["values"][r]  # assignment in place of accumulation
        ones = np.zeros(a["d"])
        np.add.at(ones, a["indices"], a["values"])
        for wrong in (last_only, ones, -good, np.roll(good, 1)):
            if not np.allclose(wrong, good) and (wrong[empty] == 0).all():
                assert blamed(lcg(c, {"omega": wrong.astype(np.float32)}, NONE)) == ("omega", "3:20")


def test_vacuous_bounds_decide_nothing():
    a = {"indices": np.arange(300)[None], "values": np.ones((1, 300)), "g": np.ones(300)}
    checks = sp(case("sp", a), {"omega": np.array([290.0], ml_dtypes.bfloat16)}, NONE)
    assert [c.reason for c in checks if c.verdict == INCONCLUSIVE] == ["vacuous"]
    assert verdict_of(sp(case("sp", a), {"omega": np.array([-400.0], ml_dtypes.bfloat16)}, NONE)) == FAIL


@pytest.mark.parametrize(
    ("omega", "words"),
    [
        (np.zeros(3), "has shape (3,), must have shape (2,)"),
        (np.zeros(2, np.complex128), "dtype complex128"),
        (np.zeros(2, int), "must hold real floating-point numbers"),
        (None, "is missing"),
        ([0.0, 0.0], "is a list"),
    ],
)
def test_structure_is_said_in_words(omega, words):
    a = {"indices": np.zeros((2, 1), int), "values": np.ones((2, 1)), "g": np.ones(1)}
    (check,) = sp(case("sp", a), {"omega": omega}, NONE)
    assert (check.verdict, check.tier, check.line) == (FAIL, "T0", "2:11")
    assert words in check.reason


def test_infinities_fail_unless_the_sum_may_overflow():
    a = {"indices": np.arange(2)[None], "values": np.ones((1, 2)), "g": np.ones(2)}
    check = sp(case("sp", a), {"omega": np.array([np.inf])}, NONE)[-1]
    assert (check.verdict, check.tier, check.reason) == (FAIL, "T0", "omega[0] is inf, must be finite")
    a["values"] = np.full((1, 2), 2.0**127)
    check = sp(case("sp", a), {"omega": np.array([np.inf], np.float32)}, NONE)[-1]
    assert (check.verdict, check.reason) == (INCONCLUSIVE, "overflow")


def test_a_declared_storage_may_round_the_window():
    rng = np.random.default_rng(11)
    c = sp_case(rng, "unit", 3, 20, 0)
    rounded = {**c.arguments, "values": c.arguments["values"].astype(ml_dtypes.bfloat16).astype(float)}
    omega = sp_run(case("sp", rounded), np.float32, rng, "pairwise")
    assert verdict_of(sp(c, {"omega": omega}, NONE)) == FAIL
    assert verdict_of(sp(c, {"omega": omega}, Declared({"storage": "bfloat16"}))) == PASS
    assert (
        verdict_of(sp(c, {"omega": sp_run(c, np.float32, rng, "pairwise")}, Declared({"storage": "bfloat16"}))) == PASS
    )
