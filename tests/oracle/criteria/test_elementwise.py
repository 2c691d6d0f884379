"""AdaGrad with error feedback and EF-SignSGD: correct code passes, planted bugs name their line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria.elementwise import adagrad_step, sign_step

Array = np.ndarray
TYPES = (np.float32, np.float64)


def f32(a: Any) -> Array:
    return np.asarray(np.asarray(a, np.float32), np.float64)


def adagrad_case(rng: np.random.Generator, exact: bool, **changed: Any) -> Case:
    d = int(rng.integers(1, 20))
    scale = 10.0 ** rng.integers(-9, 9)
    draw = (lambda: rng.integers(-4, 5, d).astype(float)) if exact else (lambda: f32(scale * rng.standard_normal(d)))
    args = {
        "theta": draw(),
        "xi": draw(),
        "G": np.abs(draw()),
        "g": draw(),
        "k": int(rng.integers(0, d + 1)),
        "eta": 0.5,
    }
    return Case("adagrad_step", "generic", "", 0, 0, args | changed, frozenset({"exact"} if exact else ()))


def adagrad(
    case: Case, dtype: Any, form: int = 0, ties: str = "first", keep: Callable[[Array], Array] = np.abs, **bug: Any
) -> dict[str, Array]:
    a0 = case.arguments
    theta, xi, G, g = (a0[n].astype(dtype) for n in ("theta", "xi", "G", "g"))
    eta = dtype(a0["eta"])
    a = g if bug.get("no feedback") else xi + g
    size = keep(a)
    order = np.argsort(-size, kind="stable") if ties == "first" else len(a) - 1 - np.argsort(-size[::-1], kind="stable")
    c = np.zeros_like(a)
    on = order[: a0["k"] - bug.get("short", 0)]
    c[on] = a[on]
    new_xi = a if bug.get("not cleared") else a - c
    G = G + (a * a if bug.get("square of a") else np.abs(c) if bug.get("no square") else c * c)
    root = G if bug.get("no root") else np.sqrt(G)
    with np.errstate(divide="ignore", invalid="ignore"):
        step = (c / (root + dtype(bug.get("eps", 0))), c * (1 / root), c / root)[form]
    step = np.where(G > 0, step, dtype(0))
    theta = theta - (step if bug.get("no rate") else eta * step) * dtype(bug.get("sign", 1))
    return {"theta": theta, "xi": new_xi, "G": G}


@pytest.mark.parametrize("dtype", TYPES)
def test_correct_adagrad_never_fails(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    seen = []
    for n in range(600):
        case = adagrad_case(rng, exact=n % 2 == 0)
        result = adagrad(case, dtype, n % 3, ("first", "last")[n % 2])
        checks = adagrad_step(case, result, Declared())
        assert verdict_of(checks) != FAIL, (n, case, result, checks)
        seen.append(verdict_of(checks))
    assert seen.count(PASS) > 0.9 * len(seen)


ADAGRAD: dict[str, tuple[str, dict[str, Any]]] = {
    "no feedback": ("7:5", {"no feedback": True}),
    "xi not cleared": ("7:6", {"not cleared": True}),
    "signed Top-k": ("7:6", {"keep": lambda a: a}),
    "one entry short": ("7:6", {"short": 1}),
    "squares of a": ("7:8", {"square of a": True}),
    "sqrt forgotten in G": ("7:8", {"no square": True}),
    "root forgotten": ("7:9", {"no root": True}),
    "rate forgotten": ("7:9", {"no rate": True}),
    "wrong sign": ("7:9", {"sign": -1}),
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bug", ADAGRAD)
def test_adagrad_bugs_name_their_line(bug: str, dtype: Any) -> None:
    rng = np.random.default_rng(4)
    line, change = ADAGRAD[bug]
    for _ in range(10):
        v = {n: f32(rng.standard_normal(12)) for n in ("theta", "xi", "g")}
        v["g"][0] = -9.0
        case = Case("adagrad_step", "generic", "", 0, 0, {**v, "G": f32(rng.random(12)), "k": 4, "eta": 0.5})
        checks = adagrad_step(case, adagrad(case, dtype, **change), Declared())
        assert next(c for c in checks if c.verdict == FAIL).line == line


def test_R29_a_coordinate_with_zero_G_is_not_moved_and_eps_is_a_reading() -> None:
    zero, one = np.zeros(2), f32([1e-12, 0.0])
    case = Case(
        "adagrad_step", "adversarial", "", 0, 0, {"theta": zero, "xi": zero, "G": zero, "g": one, "k": 2, "eta": 1.0}
    )
    printed = {"theta": np.array([-1.0, np.nan]), "xi": zero, "G": one**2}
    assert verdict_of(adagrad_step(case, printed, Declared())) == FAIL
    assert verdict_of(adagrad_step(case, {**printed, "theta": np.array([-1.0, 0.0])}, Declared())) == PASS
    released = adagrad(case, np.float64, eps=1e-10)
    checks = adagrad_step(case, released, Declared())
    assert verdict_of(checks) == INCONCLUSIVE
    assert "R29" in checks[-1].reason
    assert verdict_of(adagrad_step(case, released, Declared(readings={"R29": "1e-10"}))) == PASS
    assert verdict_of(adagrad_step(case, released, Declared(readings={"R29": "1e-9"}))) == FAIL
    exact = adagrad(case, np.float64, eps=float(np.float32(1e-10)))
    assert verdict_of(adagrad_step(case, exact, Declared(readings={"R29": "1e-10"}))) == PASS


def test_squares_that_underflow_are_undecided() -> None:
    v = f32([1e-25, 1e-26])
    case = Case(
        "adagrad_step", "adversarial", "", 0, 0, {"theta": v * 0, "xi": v * 0, "G": v * 0, "g": v, "k": 2, "eta": 1.0}
    )
    checks = adagrad_step(case, adagrad(case, np.float32), Declared())
    assert (verdict_of(checks), checks[-1].reason) == (INCONCLUSIVE, "underflow")


def sign_case(rng: np.random.Generator, exact: bool) -> Case:
    d = int(2 ** rng.integers(0, 6)) if exact else int(rng.integers(1, 40))
    scale = 10.0 ** rng.integers(-9, 9)
    draw = (lambda: rng.integers(-4, 5, d) * 2.0 + 1) if exact else (lambda: f32(scale * rng.standard_normal(d)))
    args = {
        "x": draw(),
        "e": draw() * (2.0 if exact else 1.0),
        "g": draw(),
        "gamma": 1.0 if exact else float(np.float32(0.3)),
    }
    return Case("sign_step", "generic", "", 0, 0, args, frozenset({"exact"} if exact else ()))


def signed(case: Case, dtype: Any, rng: np.random.Generator, bug: str = "") -> dict[str, Array]:
    x, e, g = (case.arguments[n].astype(dtype) for n in ("x", "e", "g"))
    gamma = dtype(case.arguments["gamma"])
    p = (g if bug == "rate outside the feedback" else gamma * g) + (0 * e if bug == "no feedback" else e)
    total = dtype(0)
    for i in rng.permutation(len(p)):
        total = total + abs(p[i])
    s = total / dtype(1 if bug == "sum for mean" else len(p))
    Delta = (dtype(1) if bug == "no scale" else s) * np.sign(p)
    if bug == "sign(0) = 1":
        Delta = np.where(p == 0, s, Delta)
    step = gamma * Delta if bug == "rate outside the feedback" else Delta
    return {"x": x - step * dtype(-1 if bug == "uphill" else 1), "e": p if bug == "not cleared" else p - Delta}


@pytest.mark.parametrize("dtype", TYPES)
def test_correct_sign_steps_never_fail(dtype: Any) -> None:
    rng = np.random.default_rng(6)
    exact_tier = 0
    for n in range(400):
        case = sign_case(rng, n % 2 == 0)
        checks = sign_step(case, signed(case, dtype, rng), Declared())
        assert verdict_of(checks) == PASS, (n, case, checks)
        exact_tier += any(c.tier == "T1" for c in checks)
    assert exact_tier > 50


SIGN = {
    "no feedback": "S1:4", "rate outside the feedback": "S1:4", "sum for mean": "S1:5", "no scale": "S1:5",
    "uphill": "S1:6", "not cleared": "S1:7",
}  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bug", SIGN)
def test_sign_bugs_name_their_line(bug: str, dtype: Any) -> None:
    rng = np.random.default_rng(8)
    for _ in range(10):
        v = {n: f32(rng.standard_normal(9)) for n in ("x", "e", "g")}
        case = Case("sign_step", "generic", "", 0, 0, {**v, "gamma": 0.25})
        checks = sign_step(case, signed(case, dtype, rng, bug), Declared())
        assert next(c for c in checks if c.verdict == FAIL).line == SIGN[bug]


def test_R34_sign_of_zero_is_zero() -> None:
    case = Case("sign_step", "exact", "", 0, 0, {"x": np.zeros(2), "e": np.zeros(2), "g": f32([0, 2]), "gamma": 1.0})
    rng = np.random.default_rng(0)
    assert verdict_of(sign_step(case, signed(case, np.float32, rng), Declared())) == PASS
    assert verdict_of(sign_step(case, signed(case, np.float32, rng, "sign(0) = 1"), Declared())) == FAIL


def test_a_residual_that_has_to_be_rounded_is_not_judged_bit_for_bit() -> None:
    """p = (2^23 + 2, 1, 1, 1) and s = 2^21 + 1.25 are exact in float32, but p_0 - s needs 25 bits; x' = -s does not."""
    g, zero, rng = f32([2.0**23 + 2, 1, 1, 1]), np.zeros(4), np.random.default_rng(0)
    given = {"x": zero, "e": zero, "g": g, "gamma": 1.0}
    case = Case("sign_step", "exact", "", 0, 0, given, frozenset({"exact"})).with_dtype("float32")
    right = signed(case, np.float32, rng)
    s = 2.0**21 + 1.25
    assert float(right["e"][0]) != g[0] - s
    assert right["x"].tolist() == [-s] * 4
    checks = {c.stage: c for c in sign_step(case, right, Declared()) if c.tier in ("T1", "T2")}
    assert verdict_of(tuple(checks.values())) == PASS
    assert (checks["x"].tier, checks["e"].tier) == ("T1", "T2")
    wrong = right["x"].copy()
    wrong[1] = np.nextafter(wrong[1], np.float32(0))
    assert verdict_of(sign_step(case, {**right, "x": wrong}, Declared())) == FAIL
    double = case.with_dtype("float64")  # nothing rounds there: every bit counts
    right = signed(double, np.float64, rng)
    assert {c.tier for c in sign_step(double, right, Declared()) if c.stage in "xe"} == {"T1"}
    right["e"][0] = np.nextafter(right["e"][0], 0)
    assert verdict_of(sign_step(double, right, Declared())) == FAIL


def test_a_sign_within_rounding_is_free() -> None:
    gamma = float(np.float32(0.1))
    g = f32([3.0, 8.0])
    e = np.array([float(np.float32(-gamma * 3.0)), 1.0])  # p_0 is what rounding of gamma g makes of it
    case = Case("sign_step", "adversarial", "", 0, 0, {"x": np.zeros(2), "e": e, "g": g, "gamma": gamma})
    s = (abs(gamma * 3 + e[0]) + gamma * 8 + 1) / 2
    for sign in (-1, 0, 1):
        Delta = np.array([sign * s, s])
        result = {"x": (-Delta).astype(np.float32), "e": (np.array([0, gamma * 8 + 1]) - Delta).astype(np.float32)}
        assert verdict_of(sign_step(case, result, Declared())) == PASS


def per_tensor(case: Case, sizes: list[int], dtype: Any) -> dict[str, Array]:
    """EF-SignSGD scaled tensor by tensor, as frameworks do that step one tensor after the other."""
    x, e, g = (case.arguments[n].astype(dtype) for n in ("x", "e", "g"))
    p = dtype(case.arguments["gamma"]) * g + e
    parts = np.split(np.abs(p), np.cumsum(sizes)[:-1])
    Delta = np.repeat([part.mean(dtype=dtype) for part in parts], sizes).astype(dtype) * np.sign(p)
    return {"x": x - Delta, "e": p - Delta}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("said", "d", "sizes"), [("2,3", 5, [2, 3]), ("4", 10, [4, 4, 2]), ("2, 3", 9, [2, 3, 2, 2])])
def test_R34_per_tensor_is_a_reading_that_names_its_sizes(said: str, d: int, sizes: list[int], dtype: Any) -> None:
    """The sizes are repeated until d is reached, the last one cut short; they are never guessed."""
    rng = np.random.default_rng(d)
    for n in range(20):
        draw = (lambda: rng.integers(1, 9, d).astype(float)) if n % 2 else (lambda: f32(rng.standard_normal(d)))
        case = Case("sign_step", "", "", 0, 0, {"x": draw(), "e": draw(), "g": draw(), "gamma": 0.5},
                    frozenset({"exact"} if n % 2 else ()))  # fmt: skip
        result = per_tensor(case, sizes, dtype)
        assert verdict_of(sign_step(case, result, Declared(readings={"R34": said}))) == PASS
        whole = per_tensor(case, [d], dtype)
        assert verdict_of(sign_step(case, whole, Declared(readings={"R34": "whole vector"}))) == PASS
        if not np.allclose(result["x"], whole["x"]):
            assert verdict_of(sign_step(case, result, Declared())) == FAIL
            assert verdict_of(sign_step(case, whole, Declared(readings={"R34": said}))) == FAIL


@pytest.mark.filterwarnings("error")
def test_a_gap_beyond_all_bounds_is_no_warning() -> None:
    from efcp_ref.oracle.criteria import structure

    check = structure.forward("u", "1:1", "", np.array([1e300]), np.zeros(1), 1e-300)
    assert (check.verdict, check.ratio) == (FAIL, np.inf)
    case = Case("sign_step", "", "", 0, 0, {"x": np.zeros(2), "e": np.zeros(2), "g": np.full(2, 1e-30), "gamma": 1.0})
    assert verdict_of(sign_step(case, {"x": np.full(2, 1e300), "e": np.zeros(2)}, Declared())) == FAIL
