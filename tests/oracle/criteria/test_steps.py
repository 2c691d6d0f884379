"""Steps of optimizers: the bounds of the directions, and the radii of what a run hides, computed here anew.

As in `test_bounds`: what the docstrings print is computed in longer numbers, an entry is moved to 0.9 and to 1.1 times
it, and the check must say so. Runs are short, so that one step can be followed by hand.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Check, Declared
from efcp_ref.oracle.criteria import eigen
from efcp_ref.oracle.criteria.replay import directions, hidden, judge
from efcp_ref.oracle.criteria.replay.run import layers
from efcp_ref.oracle.targets import Local

Array = np.ndarray
U, TINY = 2.0**-24, 2.0**-149
U1 = U + 2.0**-53  # of a step that is followed in binary64


def _correct() -> Any:
    """The text of tests/acceptance, which knows nothing of the project."""
    path = Path(__file__).parents[2] / "acceptance" / "correct.py"
    spec = importlib.util.spec_from_file_location("correct_for_steps", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORRECT = _correct()


def f32(a: Any) -> Array:
    """Numbers that float32 has."""
    return np.asarray(a).astype(np.float32).astype(np.float64)


def gradients(seed: int, T: int, d: int) -> Array:
    """Normal numbers."""
    return f32(np.random.default_rng(seed).standard_normal((T, d)))


PARAMETERS: dict[str, dict[str, Any]] = {
    "topk_sgd": {"d": 9, "k": 3},
    "dense_mfac": {"d": 9, "m": 3, "lam": 0.5},
    "sparse_mfac": {"d": 12, "m": 3, "lam": 0.5, "block_size": 6, "density": 0.5},
    "low_rank_mfac": {"shapes": [(4, 3), (5,)], "m": 3, "lam": 0.5, "rank": 2,
                      "Q0": [f32(np.random.default_rng(1).standard_normal((3, 2)))]},
    "dense_ggt": {"d": 9, "m": 3, "eps": 0.5, "cutoff": 0.0},
    "sparse_ggt": {"d": 12, "m": 3, "eps": 0.5, "cutoff": 0.0, "k": 5},
    "adagrad_ef": {"d": 9, "k": 3},
    "ef_signsgd": {"d": 9, "gamma": 0.25},
}  # fmt: skip


def ran(operation: str, T: int = 4, seed: int = 0, **changed: Any) -> tuple[Case, dict[str, Any]]:
    """A correct run in float32."""
    given = {**PARAMETERS[operation], **changed}
    d = given.get("d") or sum(int(np.prod(s)) for s in given["shapes"])
    case = Case(operation, "generic", "", 0, 0, {**given, "gradients": gradients(seed, T, d)})
    result = Local({operation: getattr(CORRECT.one_by_one, operation)}).run(case.with_dtype("float32")).results
    states = [{key: np.asarray(value) for key, value in state.items()} for state in result["states"]]
    assert result["u"].dtype == np.float32
    return case, {"u": result["u"], "states": states}


def checks(case: Case, result: dict[str, Any], declared: Declared | None = None) -> list[Check]:
    """Without the structure."""
    return [c for c in judge(case, result, declared or Declared()) if c.tier != "T0"]


def stage(found: list[Check], name: str) -> Check:
    """The check of a stage in tier T2 with the largest ratio: of the step that was moved."""
    return max((c for c in found if (c.stage, c.tier) == (name, "T2")), key=lambda c: c.ratio)


SAID = Declared(arithmetic={"accumulator": "float32"}, solver="factorisation", readings={"R29": "0", "R4": "m"})


def moved_u(
    case: Case, u: Array, at: tuple[int, int], ref: float, bound: float, said: Declared = SAID,
    beyond: str = FAIL, **told: Any,
) -> None:  # fmt: skip
    """Set one entry of u to either side of its bound; u travels as float64, so that it can be set."""
    for moved, sign in ((0.9, 1), (0.9, -1), (1.1, 1), (1.1, -1)):
        got = u.astype(np.float64)
        got[at] = ref + sign * moved * bound
        check = stage(checks(case, {"u": got, **told}, said), "u")
        if moved > 1 and beyond == INCONCLUSIVE:
            assert "steps undecided: solver class" in check.reason
            continue
        assert check.ratio == pytest.approx(moved, rel=1e-2), check
        assert check.at == (at[0] + 1, at[1])
        assert check.verdict == (PASS if moved < 1 else FAIL)
        assert check.bound == pytest.approx(bound, rel=1e-2)


# ------------------------------------------------------------------ u = F^-1 x


def window(seed: int, m: int = 3, d: int = 8, radii: float = 0.0) -> directions.Window:
    """A window whose size is not |G|, with a vector, and radii where asked."""
    rng = np.random.default_rng(seed)
    G, x = f32(rng.standard_normal((m, d))), f32(rng.standard_normal(d))
    R, r = (np.abs(rng.standard_normal(s)) * radii for s in ((m, d), d))
    return directions.Window(G, 1.5 * np.abs(G), x, 1.25 * np.abs(x), 7, 2, R, r)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", ["float32", "float64"])
def test_the_bound_of_a_direction(name: str, given: bool) -> None:
    """``(|G^T M^-1| (sums + solve) + (m + 4 + rho) (|x| + |G|^T|w|)) u / lam + 2u |ref|``, size for |G|."""
    w, lam, m, unit = window(1), 0.375, 4, UNITS[name]
    S = w.G @ w.G.T
    shown = S + 1e-9 * np.triu(np.ones((3, 3)), 1) if given else None
    solve = directions.Solve(w, shown, m, lam, unit)
    M = (S if shown is None else (shown + shown.T) / 2) + m * lam * np.eye(3)
    inverse = np.linalg.inv(M)
    c = inverse @ (w.G @ w.x)
    expected = (w.x - c @ w.G) / lam
    spread, reach = np.abs(w.G.T @ inverse), w.size.T @ np.abs(c)
    L = np.abs(np.linalg.cholesky(M))
    sums = 7 * w.size @ w.x_size
    sums = sums + (7 * w.size @ reach if shown is None else np.abs(shown - shown.T) @ np.abs(c) / unit.u)
    inner = sums + (3 * 3 + 10) * (L @ (L.T @ np.abs(c)))
    bound = unit.u * ((spread @ inner + (3 + 4 + 2) * (w.x_size + reach)) / lam + 2 * np.abs(expected))
    lost = 7 * (1 + np.abs(c).sum()) * spread.sum(axis=1) / lam
    lost = lost + (5 * spread @ (1 + L @ L.sum(axis=0) + L.max() * L.sum(axis=1)) + 7) * (1 + 1 / lam)
    assert np.allclose(solve.expected.astype(float), expected, rtol=1e-9)
    assert np.allclose(solve.bound.astype(float), bound + unit.tiny * lost, rtol=1e-6, atol=0)
    assert np.allclose(solve.magnitude.astype(float), (np.abs(w.x) + reach) / lam, rtol=1e-9)
    assert solve.kind is (np.float64 if name == "float32" else np.longdouble)


def test_underflow_of_a_direction() -> None:
    """``tiny (k (1 + |w|_1) sum |G^T M^-1| / lam + (|G^T M^-1| s + m + 4) (1 + 1/lam))`` where all else vanishes.

    s is what the solve loses: ``(m + 2) (1 + |L||L^T| e + |L|_max |L| e)``.
    """
    w = window(1)
    tiny = directions.Window(w.G, 0 * w.size, 0 * w.x, 0 * w.x_size, 7, 2)
    solve = directions.Solve(tiny, None, 4, 0.5, UNITS["float32"])
    M = w.G @ w.G.T + 2 * np.eye(3)
    spread, L = np.abs(w.G.T @ np.linalg.inv(M)), np.abs(np.linalg.cholesky(M))
    s = 5 * (1 + L @ (L.T @ np.ones(3)) + L.max() * (L @ np.ones(3)))
    expected = TINY * (7 * spread.sum(axis=1) / 0.5 + (spread @ s + 7) * 3)
    assert np.allclose(solve.bound, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("lam", [2.0**10, 2.0**20])
def test_the_last_subtraction_of_correct_code_underflows(lam: float) -> None:
    """x/lam and every c_j G_ji are subnormal: each rounds by up to tiny/2, whatever lam is.

    So u = x/lam - c G may be off by ``(m + 1) tiny / 2``, and no bound divided by lam alone allows for it.
    """
    rng, single, (m, d) = np.random.default_rng(5), np.float32, (12, 200)
    G = (rng.standard_normal((m, d)) * 2.0**-129).astype(single)
    x, c = (rng.standard_normal(d) * 2.0**-140 * lam).astype(single), single(rng.standard_normal(m) * 2.0**-12)
    u = x / single(lam)
    for weight, row in zip(c, G, strict=True):
        u = u - weight * row
    lost = np.abs(u - (x / lam - c.astype(float) @ G.astype(float)))
    solve = directions.Solve(directions.Window(G, np.abs(G), x, np.abs(x), d), None, m, lam, UNITS["float32"])
    assert (lost > (m + 4) * TINY / lam).mean() > 0.5
    assert (lost <= (m + 1) * TINY / 2).all()
    assert (solve.bound >= (m + 1) * TINY / 2).all()


def test_radii_of_the_window_and_of_x() -> None:
    """``2 |F^-1| (r + (R^T |G u| + |G|^T R |u|) / m)``, ``|F^-1| <= (I + |G^T M^-1||G|) / lam``; and it is enough."""
    w, lam, m = window(3, radii=1e-3), 0.375, 3
    assert w.R is not None
    assert w.r is not None
    solve = directions.Solve(w, None, m, lam, UNITS["float32"])
    u, G = solve.expected, w.G
    inner = w.r + (w.R.T @ np.abs(G @ u) + np.abs(G).T @ (w.R @ np.abs(u))) / m
    spread = np.abs(G.T @ np.linalg.inv(G @ G.T + m * lam * np.eye(3)))
    assert np.allclose(solve.carried(), 2 * (inner + spread @ (np.abs(G) @ inner)) / lam, rtol=1e-6, atol=0)
    without = directions.Solve(directions.Window(G, w.size, w.x, w.x_size, 7, 2), None, m, lam, UNITS["float32"])
    assert np.allclose(solve.bound - without.bound, solve.carried(), rtol=1e-6, atol=0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        G2, x2 = G + w.R * rng.choice([-1, 1], G.shape), w.x + w.r * rng.choice([-1, 1], len(w.x))
        other = np.linalg.solve(lam * np.eye(8) + G2.T @ G2 / m, x2)
        assert (np.abs(other - u) <= solve.carried()).all()


@pytest.mark.parametrize("A", [np.diag([4.0, 9.0]), np.array([[4.0, 2.0], [2.0, 5.0]]), np.diag([1.0, -1.0]),
                               np.diag([1.0, 0.0])])  # fmt: skip
def test_the_factor_in_longer_numbers(A: Array) -> None:
    """L L^T = A, L^-1 L = I; None where a pivot is not positive."""
    for kind in (np.float64, np.longdouble):
        L = directions._cholesky(A.astype(kind))
        if np.linalg.eigvalsh(A)[0] <= 0:
            assert L is None
            continue
        assert L is not None
        assert L.dtype == kind
        assert np.allclose((L @ L.T).astype(float), A)
        assert np.allclose((directions._inverse(L) @ L).astype(float), np.eye(2))


@pytest.mark.parametrize("operation", ["dense_mfac", "sparse_mfac"])
def test_a_step_with_its_state(operation: str) -> None:
    """S: ``k u |G||g| + k tiny`` in row and in column; u: the bound of `Solve` from the S that is shown."""
    case, result = ran(operation)
    last, i, t = result["states"][-1], 0, 3  # the fourth step of three rows
    G = last["G"] if "G" in last else dense(last, 12)
    G, k = G.astype(np.float64), 9 if operation == "dense_mfac" else 6
    ref, bound = G @ G[i], k * (U * np.abs(G) @ np.abs(G[i]) + TINY)
    for moved in (0.9, 1.1):
        for at in ((i, 2), (2, i)):
            S = last["S"].copy()
            S[at] = np.float32(ref[2] + moved * bound[2])
            check = stage(checks(case, {**result, "states": [*result["states"][:-1], {**last, "S": S}]}), "S")
            assert check.ratio == pytest.approx(abs(float(S[at]) - ref[2]) / bound[2], rel=1e-3)
            assert (check.at, check.verdict) == ((4, *at), PASS if moved < 1 else FAIL)
    w = directions.Window(G, np.abs(G), G[i], np.abs(G[i]), k, 0)
    solve = directions.Solve(w, last["S"].astype(np.float64), 3, 0.5, UNITS["float32"])
    at = int(np.argmax(solve.bound))
    moved_u(case, result["u"], (t, at), float(solve.expected[at]), float(solve.bound[at]), states=result["states"])


def test_underflow_of_the_products_of_a_step() -> None:
    """``k tiny`` where every product vanishes."""
    case, _ = ran("dense_mfac", T=1)
    g = case.arguments["gradients"] * 2.0**-78
    case = replace(case, arguments={**case.arguments, "gradients": g})
    G, u = np.zeros((3, 9)), g / 0.5
    G[0] = g[0]
    for moved, verdict in ((0.9, PASS), (1.1, FAIL)):
        S = G @ G.T
        S[0, 1] = moved * 9 * TINY
        S[1, 0] = 0
        state = {"t": np.asarray(1), "row": np.asarray(1), "G": G, "S": S}
        found = [c for c in checks(case, {"u": u, "states": [state]}, SAID) if c.stage == "S"]
        assert {c.verdict for c in found if c.tier == "T2"} == {verdict}


def dense(state: dict[str, Array], d: int) -> Array:
    """Sparse rows written out."""
    G = np.zeros((len(state["values"]), d))
    np.put_along_axis(G, state["indices"].astype(np.int64), state["values"].astype(np.float64), axis=1)
    return G


@pytest.mark.parametrize(
    ("operation", "key", "at", "step", "line"),
    [
        ("dense_mfac", "G", (1, 2), 1, "1:8"), ("dense_mfac", "G", (0, 2), 3, "1:8"),
        ("dense_mfac", "S", (1, 2), 3, "W:5"),
        ("sparse_mfac", "values", (1, 2), 3, "1:8"), ("sparse_ggt", "values", (1, 2), 3, "4:4"),
        ("low_rank_mfac", "P0", (1, 2, 0), 3, "6:6"), ("low_rank_mfac", "Q0", (2, 1, 0), 3, "6:6"),
        ("low_rank_mfac", "S", (1, 2), 3, "6:11"), ("sparse_mfac", "S", (2, 1), 3, "W:5"),
    ],
)  # fmt: skip
def test_what_a_step_must_leave_alone(operation: str, key: str, at: Any, step: int, line: str) -> None:
    """Bit for bit: one last place more is seen, at its step and on its line."""
    case, result = ran(operation)
    states = [dict(state) for state in result["states"]]
    for state in states[step:]:
        state[key] = state[key].copy()
        state[key][at] = np.nextafter(state[key][at], np.float32(np.inf))
    found = [c for c in judge(case, {**result, "states": states}, Declared()) if c.verdict == FAIL]
    assert (found[0].tier, found[0].line, found[0].reason[:7]) == ("T0", line, f"step {step + 1}:")


def test_the_wrong_row_is_said() -> None:
    """row must move on by one."""
    case, result = ran("dense_mfac")
    states = [{**state, "row": state["row"] + (n > 1)} for n, state in enumerate(result["states"])]
    (check,) = [c for c in judge(case, {**result, "states": states}, Declared()) if c.verdict == FAIL]
    assert (check.stage, check.line) == ("row", "1:8")
    assert "row 2 is followed by row 1 of 3: not the oldest" in check.reason


@pytest.mark.parametrize(("small", "right"), [(2.0**-140, True), (2.0**-120, False)])
def test_a_value_that_vanishes_in_its_storage_was_sent_as_zero(small: float, right: bool) -> None:
    """Below half of bfloat16's smallest number it stays in xi whole; above, it was kept back and another sent."""
    a = np.array([1.0, small, small / 4, 0.0])
    case = Case("topk_sgd", "generic", "", 0, 0, {"d": 4, "k": 2, "gradients": a[None]})
    state = {"t": np.asarray(1), "xi": (a - [1, 0, 0, 0]).astype(np.float32)}
    result = {"u": np.array([[1.0, 0, 0, 0]], np.float32), "states": [state]}
    found = checks(case, result, Declared(arithmetic={"storage": "bfloat16"}))
    assert (FAIL not in {c.verdict for c in found}) == right
    assert FAIL in {c.verdict for c in checks(case, result)}
    hidden = result | {"states": None}
    found = checks(case, hidden, Declared(arithmetic={"storage": "bfloat16"}))
    assert (FAIL not in {c.verdict for c in found}) == right
    assert FAIL in {c.verdict for c in checks(case, hidden)}


# ------------------------------------------------------------------ low rank, with states


def test_the_residual_of_low_rank() -> None:
    """``(rho + 3) (u (|a| + |P||Q|^T) + tiny)``; a vector is stored whole, ``3u |a|``."""
    case, result = ran("low_rank_mfac")
    before, last = result["states"][2:4]
    a = (before["xi"].astype(np.float64) + case.arguments["gradients"][3])[:12].reshape(4, 3)
    P, Q = last["P0"][0].astype(np.float64), last["Q0"][0].astype(np.float64)
    ref, bound = (a - P @ Q.T).ravel(), (5 * (U * (np.abs(a) + np.abs(P) @ np.abs(Q).T) + TINY)).ravel()
    at = int(np.argmax(bound))
    for moved in (0.9, 1.1):
        xi = last["xi"].copy()
        xi[at] = np.float32(ref[at] + moved * bound[at])
        check = stage(checks(case, {**result, "states": [*result["states"][:3], {**last, "xi": xi}]}), "xi")
        assert check.ratio == pytest.approx(abs(float(xi[at]) - ref[at]) / bound[at], rel=1e-3)
        assert (check.line, check.at) == ("1:7", (4, at // 3, at % 3))
        assert check.verdict == (PASS if moved < 1 else FAIL)
    P1 = last["P1"].copy()
    P1[0, 2] *= np.float32(1 + 8 * U)
    found = checks(case, {**result, "states": [*result["states"][:3], {**last, "P1": P1}]})
    assert next(c.line for c in found if c.verdict == FAIL) in ("1:6", "1:7")


def test_the_inner_products_of_low_rank() -> None:
    """``sum over the layers of (p1 p2 + 2 rho + rho^2 + L) u sum |.|``."""
    case, result = ran("low_rank_mfac")
    last, i, j = result["states"][3], 0, 2
    ref, bound = 0.0, 0.0
    for l, n in ((0, 4 * 3 + 2 * 2 + 4 + 2), (1, 5 + 2 + 1 + 2)):
        P, Q = last[f"P{l}"].astype(np.float64), last[f"Q{l}"].astype(np.float64)
        ref += float(np.sum((P[i] @ Q[i].T) * (P[j] @ Q[j].T)))
        small = (np.abs(P[i]).T @ np.abs(P[j])) * (np.abs(Q[i]).T @ np.abs(Q[j]))
        bound += n * U * float(small.sum())
    for moved in (0.9, 1.1):
        for at in ((i, j), (j, i)):
            S = last["S"].copy()
            S[at] = np.float32(ref + moved * bound)
            found = [c for c in checks(case, {**result, "states": [*result["states"][:3], {**last, "S": S}]})
                     if c.stage == "S"]  # fmt: skip
            worst = max(found, key=lambda c: c.ratio)
            assert worst.ratio == pytest.approx(abs(float(S[at]) - ref) / bound, rel=1e-2)
            assert (worst.line, worst.verdict) == ("6:11", PASS if moved < 1 else FAIL)
            assert worst.at == (4, j)


@pytest.mark.parametrize("operation", ["dense_mfac", "sparse_mfac", "low_rank_mfac"])
def test_the_window_before_the_step_is_called_R9(operation: str) -> None:
    """Preconditioned before the row was written: blamed on line 8 of Algorithm 1."""
    case, result = ran(operation)
    old, new = ({name: a.astype(np.float64) for name, a in state.items()} for state in result["states"][2:4])

    def rows(state: dict[str, Array]) -> Array:
        if "G" in state:
            return state["G"]
        if "values" in state:
            return dense({**state, "indices": state["indices"].astype(np.int64)}, 12)
        pairs = [(state[f"P{n}"], state[f"Q{n}"]) for n in range(2)]
        return np.concatenate([(P @ Q.transpose(0, 2, 1)).reshape(3, -1) for P, Q in pairs], axis=1)

    G, x = rows(old), rows(new)[0]
    u = result["u"].copy()
    u[3] = (x - np.linalg.solve(G @ G.T + 1.5 * np.eye(3), G @ x) @ G) / 0.5
    found = [c for c in checks(case, {**result, "u": u}) if c.verdict == FAIL]
    assert [(c.line, c.stage) for c in found] == [("1:8", "u")]
    assert "R9" in found[0].reason


@pytest.mark.parametrize(("solver", "of_F"), [("inverse", False), ("eigh", False), ("dense", True), (None, False),
                                              ("lu", False)])  # fmt: skip
def test_other_solvers_inside_a_run(solver: str | None, of_F: bool) -> None:
    """``||gap|| <= ||bound|| cond``: of M, or of F where d x d is solved; undeclared the larger one, and undecided."""
    case, result = ran("dense_mfac")
    last = result["states"][-1]
    G = last["G"].astype(np.float64)
    w = directions.Window(G, np.abs(G), G[0], np.abs(G[0]), 9)
    solve = directions.Solve(w, last["S"].astype(np.float64), 3, 0.5, UNITS["float32"])
    values = np.linalg.eigvalsh(solve.M.astype(np.float64))
    cond_M, cond_F = values[2] / values[0], values[2] / 1.5
    assert cond_F > 1.02 * cond_M
    times = cond_F if of_F or solver in (None, "lu") else cond_M
    loose = float(np.linalg.norm(solve.bound)) * times
    said = replace(SAID, solver=solver)
    for moved in (0.97, 1.01):
        u = result["u"].astype(np.float64)
        u[3] = solve.expected
        u[3, 2] += moved * loose
        check = stage(checks(case, {"u": u, "states": result["states"]}, said), "u")
        if moved > 1:
            assert check.verdict == FAIL
        elif solver is None:
            assert "1 steps undecided: solver class: declare SOLVER" in check.reason
        else:
            assert check.verdict == PASS
            assert check.ratio == pytest.approx(moved, rel=1e-3)


@pytest.mark.parametrize(("share", "reason"), [(0.09, "solver class"), (0.11, "vacuous for this solver class")])
def test_a_class_that_explains_anything_decides_nothing(share: float, reason: str) -> None:
    """From a tenth of the norm of u on."""
    case, result = ran("dense_mfac", T=1)
    run = directions.Run(case, Declared(), result["u"][:1].astype(np.float64) * 0, UNITS["float32"])
    expected, bound = np.array([3.0, 4.0] + [0.0] * 7), np.zeros(9)
    bound[0] = share * 5.0 / 2.0
    run.u[0] = expected
    run.u[0, 0] += bound[0] * 1.9
    failed = Check("u", "T2", "W:4", "", 9.0, FAIL)
    check = directions._by_class(run, failed, 0, expected, bound, np.diag([1.0, 2.0]), 1.0)
    assert check.verdict == INCONCLUSIVE
    assert check.reason.startswith(reason)


# ------------------------------------------------------------------ GGT, only u


def test_the_bound_of_ggt_where_only_u_is_seen() -> None:
    """The Loewner bound and the arithmetic, entry by entry as `eigen.reference` prints them."""
    rng = np.random.default_rng(2)
    G, x, eps, m, d, u = f32(rng.standard_normal((3, 7))), f32(rng.standard_normal(7)), 0.5, 3, 7, U
    case = Case("ggt_direction", "generic", "", 0, 0, {"G": G, "x": x, "eps": eps, "cutoff": 0.0})
    p = eigen.Problem.of(case, G, d, UNITS["float32"])
    expected, size, bound, reason = eigen.reference(p)
    L, V = np.linalg.eigh(G @ G.T)
    F = 1 / (eps * np.sqrt(L) * (np.sqrt(L) + eps))
    assert np.allclose(expected, x / eps - G.T @ (V * F) @ V.T @ G @ x)
    delta = np.linalg.norm(d * (u * np.abs(G) @ np.abs(G).T + TINY)) + 30 * m * 2 * u * L[-1]
    s = np.sqrt(L - delta)
    D = np.array([[(a + b + eps) / ((a + b) * eps * a * (a + eps) * b * (b + eps)) for b in s] for a in s])
    left = np.abs(G.T @ V)
    loewner = [delta * np.linalg.norm(x) * sum(
        left[i, j] * np.sqrt(sum(D[j, k] ** 2 * (L[k] + 2 * delta) for k in range(m))) for j in range(m))
        for i in range(d)]  # fmt: skip
    C = max(2 * m + 2 * d, 3 * m + d) + 12

    def weight(sigma: Array) -> Array:
        return C / (eps * sigma * (sigma + eps)) + 4 * (1 / (sigma + eps) + 1 / eps) / sigma**2

    right, columns = np.abs(V).T @ (np.abs(G) @ np.abs(x)), np.abs(V).T @ np.abs(G)
    own = u * ((weight(np.sqrt(L)) * right) @ columns + 3 * np.abs(x) / eps)
    shaken = u * np.linalg.norm(G, axis=0) * np.linalg.norm(np.abs(G) @ np.abs(x)) * weight(s).sum()
    assert np.allclose(bound, loewner + own + shaken, rtol=1e-4, atol=0)
    assert np.allclose(size, np.abs(x) / eps + (F * right) @ columns, rtol=1e-9, atol=0)
    assert reason == ""


@pytest.mark.parametrize("operation", ["dense_ggt", "sparse_ggt"])
@pytest.mark.parametrize("states", [True, False])
def test_a_direction_of_ggt_in_a_run(operation: str, states: bool) -> None:
    """The bound of `eigen.reference` on the window of the step; a direction of the window before is called R9."""
    case, result = ran(operation)
    last, i = result["states"][-1], 0
    G = (last["G"] if "G" in last else dense(last, 12)).astype(np.float64)
    k = 9 if operation == "dense_ggt" else 5
    part = Case("ggt_direction", "generic", "", 0, 0, {"G": G, "x": G[i], "eps": 0.5, "cutoff": 0.0})
    expected, _, bound, _ = eigen.reference(eigen.Problem.of(part, G, k, UNITS["float32"]))
    at = int(np.argmax(bound))
    if states or operation == "dense_ggt":
        told = {"states": result["states"]} if states else {}
        moved_u(case, result["u"], (3, at), float(expected[at]), float(bound[at]), beyond=INCONCLUSIVE, **told)
    old = result["states"][2]
    before = (old["G"] if "G" in old else dense(old, 12)).astype(np.float64)
    L, V = np.linalg.eigh(before @ before.T)
    F = 1 / (0.5 * np.sqrt(L) * (np.sqrt(L) + 0.5))
    u = result["u"].copy()
    u[3] = G[i] / 0.5 - before.T @ ((V * F) @ V.T @ (before @ G[i]))
    found = [c for c in checks(case, {"u": u, **({"states": result["states"]} if states else {})}) if c.verdict == FAIL]
    if states or operation == "dense_ggt":
        assert (found[0].line, "R9" in found[0].reason) == ("1:8", True)


def test_what_radii_add_to_a_direction_of_ggt() -> None:
    """``2 (||r|| / eps + ||G^T phi|| (||R|| ||x|| + ||G|| ||r||) + ||R|| ||phi G x||)``."""
    rng = np.random.default_rng(3)
    G, x, R, r = (f32(rng.standard_normal(s)) for s in ((3, 7), 7, (3, 7), 7))
    R, r = 1e-3 * np.abs(R), 1e-3 * np.abs(r)
    case = Case("ggt_direction", "generic", "", 0, 0, {"G": G, "x": x, "eps": 0.5, "cutoff": 0.0})
    p = eigen.Problem.of(case, G, 7, UNITS["float32"])
    L, V = np.linalg.eigh(G @ G.T)
    phi = (V / (0.5 * np.sqrt(L) * (np.sqrt(L) + 0.5))) @ V.T
    norm = np.linalg.norm
    left = norm(G.T @ phi, 2)
    want = 2 * (norm(r) / 0.5 + left * (norm(R) * norm(x) + norm(G) * norm(r)) + norm(R) * norm(phi @ G @ x))
    assert directions._ggt_carried(p, R, r) == pytest.approx(want, rel=1e-6)


# ------------------------------------------------------------------ what a run hides


def followed_topk(case: Case) -> list[tuple[Array, Array, Array]]:
    """Of every step: a, its radius, its last rounding; kept entries as exact Top-k has them."""
    xi, radius, steps = np.zeros(9), np.zeros(9), []
    for t, g in enumerate(case.arguments["gradients"]):
        a = xi + g
        room = np.zeros(9) if t == 0 else U1 * np.abs(a)
        grown = radius + room
        on = np.isin(np.arange(9), np.argsort(-np.abs(a), kind="stable")[:3])
        steps.append((np.where(on, a, 0), grown, room))
        xi, radius = np.where(on, 0, a), np.where(on, room, grown)
    return steps


def test_what_topk_hides() -> None:
    """Radius ``u |a|`` more per step; what was sent leaves the rounding of its own sum behind (R14)."""
    case, result = ran("topk_sgd", T=4)
    a, radius, room = followed_topk(case)[-1]
    at = int(np.argmax(np.where(a != 0, radius + room, 0)))
    moved_u(case, result["u"], (3, at), float(a[at]), float((radius + room)[at]))


@pytest.mark.parametrize(("sent", "words"), [(4, "4 entries are sent, at most 3"), (-1, "is kept back")])
def test_a_hidden_selection_is_judged_by_what_was_sent(sent: int, words: str) -> None:
    """Too many, or a smaller one in place of a larger."""
    case, result = ran("topk_sgd", T=1)
    u, g = result["u"].copy(), case.arguments["gradients"][0]
    free = [i for i in np.argsort(-np.abs(g)) if u[0, i] == 0]
    if sent < 0:
        u[0, int(np.argmax(np.where(u[0] != 0, np.abs(g), 0)))] = 0
    u[0, free[0]] = np.float32(g[free[0]])
    found = [c for c in checks(case, {"u": u}) if c.verdict == FAIL]
    assert [(c.stage, c.line) for c in found] == [("selection", "1:6")]
    assert words in found[0].reason


def test_what_adagrad_hides() -> None:
    """``r / sqrt(G) + |u| (0.6 r_G / G + 6u)``; r_G grows by ``2 |c| r + r^2 + 3u (G + c^2) + tiny``."""
    case, result = ran("adagrad_ef", T=4)
    xi, radius, G, more = (np.zeros(9) for _ in range(4))
    for t, g in enumerate(case.arguments["gradients"]):
        a = xi + g
        room = np.zeros(9) if t == 0 else U1 * np.abs(a)
        grown, on = radius + room, result["u"][t] != 0
        c = np.where(on, a, 0)
        G = G + c * c
        more = np.where(on, more + 2 * np.abs(c) * grown + grown**2 + 3 * U * G + TINY, more)
        xi, radius = np.where(on, 0, a), np.where(on, room, grown)
    root = np.sqrt(np.where(on, G, 1))
    bound = np.where(on, grown / root + np.abs(c / root) * (0.6 * more / root**2 + 6 * U), 0)
    at = int(np.argmax(bound))
    moved_u(case, result["u"], (3, at), float((c / root)[at]), float(bound[at]))


def test_the_released_eps_where_adagrad_is_hidden() -> None:
    """R29 undeclared: undecided; declared: judged with 7u."""
    case, result = ran("adagrad_ef", T=1)
    g, u = case.arguments["gradients"][0], result["u"].copy().astype(np.float64)
    on = u[0] != 0
    u[0] = np.where(on, g / (np.sqrt(g * g) + 1e-10), 0)
    assert {c.verdict for c in checks(case, {"u": u})} == {PASS, INCONCLUSIVE}
    declared = Declared(readings={"R29": "1e-10"})
    assert {c.verdict for c in checks(case, {"u": u}, declared)} == {PASS}
    assert FAIL in {c.verdict for c in checks(case, {"u": u}, Declared(readings={"R29": "0"}))}
    at, root = int(np.argmax(on)), np.sqrt(g * g) + 1e-10
    single = replace(SAID, readings={"R29": "1e-10"})
    for moved in (0.98, 1.02):
        u[0, at] = g[at] / root[at] * (1 + moved * (7 + 0.6 * 3) * U)
        check = stage(checks(case, {"u": u}, single), "u")
        assert check.verdict == (PASS if moved < 1 else FAIL)


def test_what_ef_signsgd_hides() -> None:
    """``(d + 4) u s + mean radius + tiny``; e's radius grows by ``2u (|gamma g| + |e|)`` and ``u |p - Delta|``."""
    case, result = ran("ef_signsgd", T=3)
    e, radius = np.zeros(9), np.zeros(9)
    for t, g in enumerate(case.arguments["gradients"]):
        p, u = 0.25 * g + e, result["u"][t].astype(np.float64)
        grown = radius + 2 * U1 * (np.abs(0.25 * g) + np.abs(e)) + TINY
        s = np.abs(p).mean()
        room = 13 * U1 * s + grown.mean() + TINY
        e, radius = p - u, grown + U1 * np.abs(p - u)
    at = int(np.argmax(np.abs(p)))
    for moved in (0.9, 1.1):
        u = result["u"].copy()
        u[2, at] = np.float32(s * np.sign(p[at]) + moved * room)
        check = stage(checks(case, {"u": u}), "u")
        assert check.ratio == pytest.approx(abs(float(u[2, at]) - s * np.sign(p[at])) / room, rel=1e-3)
        assert (check.at, check.verdict) == ((3, at), PASS if moved < 1 else FAIL)


def test_underflow_of_a_hidden_sign() -> None:
    """One tiny for gamma g where g is not zero, one for the mean: two in all."""
    case, _ = ran("ef_signsgd", T=1)
    g = np.array([[4.0, -8.0, 4.0, 8.0, -4.0, 4.0, 8.0, 8.0, -4.0]]) * TINY
    case = replace(case, arguments={**case.arguments, "gradients": g})
    p = 0.25 * g[0]
    s = np.abs(p).mean()
    for moved, verdict in ((1.8, PASS), (2.2, FAIL)):
        u = (s * np.sign(p))[None].copy()
        u[0, 1] -= moved * TINY
        assert stage(checks(case, {"u": u}, SAID), "u").verdict == verdict


def test_a_hidden_sign_is_free_within_the_radius_alone() -> None:
    """-s, 0 and s where ``|p| <= r``; nothing else, and not where p is certain."""
    run = type("Run", (), {"d": 3, "unit": UNITS["float32"]})()
    p, radius = np.array([2.0, 1e-9, -4.0]), np.array([1e-7, 1e-8, 0.0])
    s = np.abs(p).mean()
    for second, right in ((s, True), (-s, True), (0.0, True), (0.5 * s, False)):
        check = hidden._scaled(run, np.array([s, second, -s]), p, radius, [3])
        assert (check.verdict == PASS) == right
    assert hidden._scaled(run, np.array([-s, s, -s]), p, radius, [3]).verdict == FAIL
    zero = hidden._scaled(run, np.array([s, 0.0, -s]), np.array([2.0, 0.0, -4.0]), np.zeros(3), [3])
    assert zero.verdict == PASS
    tiny = hidden._scaled(run, np.array([2.0, 1e-30, -2.0]), np.array([2.0, 0.0, -4.0]), np.zeros(3), [3])
    assert tiny.verdict == FAIL


def test_what_sparse_mfac_hides() -> None:
    """The window with its radii, then the bound of `Solve`; bfloat16 rows add 2^-8 |a| where declared."""
    stored_so = {"storage": "bfloat16", "accumulator": "float32"}
    for coarse, declared in ((0.0, SAID), (2.0**-8, replace(SAID, arithmetic=stored_so))):
        case, result = ran("sparse_mfac", T=2)
        xi, radius, G, R = np.zeros(12), np.zeros(12), np.zeros((3, 12)), np.zeros((3, 12))
        for t, g in enumerate(case.arguments["gradients"]):
            a = xi + g
            room = U1 * np.abs(a) if t else np.zeros(12)
            grown = radius + room
            blocks = [b + np.argsort(-np.abs(a[b : b + 6]), kind="stable")[:3] for b in (0, 6)]
            on = np.isin(np.arange(12), np.concatenate(blocks))
            stored = room + coarse * np.abs(a)
            G[t], R[t] = np.where(on, a, 0), np.where(on, grown + stored, 0)
            xi, radius = np.where(on, 0, a), np.where(on, stored, grown)
        w = directions.Window(G, np.abs(G), G[1], np.abs(G[1]), 6, 0, R, R[1])
        solve = directions.Solve(w, None, 3, 0.5, UNITS["float32"])
        at = int(np.argmax(solve.bound))
        for moved in (0.9, 1.1):
            u = result["u"].astype(np.float64)
            u[1, at] = solve.expected[at] + moved * solve.bound[at]
            check = stage(checks(case, {"u": u}, declared), "u")
            assert check.ratio == pytest.approx(moved, rel=1e-2)
            assert check.verdict == (PASS if moved < 1 else FAIL)


def test_when_a_hidden_selection_is_decided() -> None:
    """``min kept |a| - r > max dropped |a| + r`` in every block; nothing but zeros dropped is decided too."""
    case, result = ran("sparse_mfac", T=1)
    run = hidden.Run(case, Declared(), result["u"], UNITS["float32"],
                     {"d": 4, "block_size": 2, "density": 0.5})  # fmt: skip
    run = hidden.replace(run, u=np.zeros((1, 4)))
    a = np.array([3.0, 2.0, 0.0, 1.0])
    for radius, decided in ((0.4, True), (0.5, False), (0.6, False)):
        on = hidden._select(run, hidden.Followed(a, np.full(4, radius)))
        assert (on is not None) == decided
        if on is not None:
            assert on.tolist() == [True, False, False, True]
    on = hidden._select(run, hidden.Followed(np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(4)))
    assert on is not None
    assert on.tolist() == [True, False, False, True]


def test_how_low_rank_is_followed() -> None:
    """P P^T M and its radius: ``2 ||d(MQ)|| / sigma_min`` turns the range, beyond 1 % it ends; it is enough."""
    rng = np.random.default_rng(5)
    M, Q, u, dQ, dxi = rng.standard_normal((5, 4)), rng.standard_normal((4, 2)), 2.0**-24, 1e-7, 1e-6
    layer = hidden.Layer(Q, dQ, dxi)
    got = layer.compress(M, u)
    assert got is not None
    norm, MQ = np.linalg.norm, M @ Q
    size, least = norm(M), np.linalg.svd(MQ)[1][-1]
    dM = dxi + u * size
    error = dM * norm(Q) + size * dQ + (4 + 8 * 5 * 2) * u * size * norm(Q)
    turn = 2 * error / least
    P = np.linalg.qr(MQ)[0]
    assert np.allclose(got[0], P @ (P.T @ M))
    assert got[1] == pytest.approx(dM + size * turn + (2 + 5) * u * size * np.sqrt(2) * 2)
    assert layer.dQ == pytest.approx(dM + size * turn + 5 * u * size * np.sqrt(2))
    assert layer.dxi == pytest.approx(dM + got[1] + u * size)
    assert np.allclose(layer.Q, M.T @ P)
    assert hidden.Layer(Q, least / 199 / size, 0.0).compress(M, 2.0**-53) is None
    assert hidden.Layer(Q, least / 201 / size, 0.0).compress(M, 2.0**-53) is not None
    for _ in range(20):
        dM2, dQ2 = rng.standard_normal(M.shape), rng.standard_normal(Q.shape)
        M2, Q2 = M + dxi * dM2 / norm(dM2), Q + dQ * dQ2 / norm(dQ2)
        P2 = np.linalg.qr(M2 @ Q2)[0]
        assert norm(P2 @ (P2.T @ M2) - got[0]) <= got[1]


def test_a_vector_of_a_hidden_low_rank_run() -> None:
    """Stored whole: radius ``dxi + u ||a||``; several tensors one after the other."""
    case, result = ran("low_rank_mfac", T=1)
    run = hidden.Run(case, Declared(), result["u"], UNITS["float32"],
                     {k: v for k, v in case.arguments.items() if k != "gradients"})  # fmt: skip
    a = case.arguments["gradients"][0]
    layers = [hidden.Layer(case.arguments["Q0"][0]), hidden.Layer(np.ones((1, 1)), 0.0, 1e-3)]
    new = hidden._projected(run, layers, a)
    assert new is not None
    c, r = new
    assert np.array_equal(c[12:], a[12:])
    assert np.allclose(r[12:], 1e-3 + U1 * np.linalg.norm(a[12:]), rtol=1e-12, atol=0)
    double = hidden._projected(replace(run, unit=UNITS["float64"]), [layers[0], hidden.Layer(np.ones((1, 1)))], a)
    assert double is not None
    assert np.allclose(double[1][12:], 2.0**-52 * np.linalg.norm(a[12:]), rtol=1e-12, atol=0)
    other = hidden.Layer(case.arguments["Q0"][0]).compress(a[:12].reshape(4, 3), U1)
    assert other is not None
    assert np.allclose(r[:12], other[1], rtol=1e-12, atol=0)
    assert np.allclose(c[:12], other[0].ravel())


# ------------------------------------------------------------------ low rank: u


def test_the_direction_of_low_rank_with_its_state() -> None:
    """The bound of `Solve` with ``k = max p1 p2 + sum (2 rho + rho^2 + 2)`` and ``1 + max rho`` terms in an entry."""
    case, result = ran("low_rank_mfac")
    last, i = result["states"][3], 0
    pairs = [(last[f"P{l}"].astype(np.float64), last[f"Q{l}"].astype(np.float64).transpose(0, 2, 1)) for l in (0, 1)]
    G = np.concatenate([(P @ Q).reshape(3, -1) for P, Q in pairs], axis=1)
    size = np.concatenate([(np.abs(P) @ np.abs(Q)).reshape(3, -1) for P, Q in pairs], axis=1)
    w = directions.Window(G, size, G[i], size[i], 12 + (2 * 2 + 4 + 2) + (2 + 1 + 2), 1 + 2)
    solve = directions.Solve(w, last["S"].astype(np.float64), 3, 0.5, UNITS["float32"])
    at = int(np.argmax(solve.bound))
    moved_u(case, result["u"], (3, at), float(solve.expected[at]), float(solve.bound[at]), states=result["states"])


def test_what_low_rank_hides() -> None:
    """Two steps followed by `Layer`: at the first nothing is hidden but Q_0, which is known."""
    case, result = ran("low_rank_mfac", T=2)
    layer = hidden.Layer(case.arguments["Q0"][0], 0.0, 0.0)
    xi, G, R = np.zeros(17), np.zeros((3, 17)), np.zeros((3, 17))
    for t, g in enumerate(case.arguments["gradients"]):
        a = xi + g
        new = layer.compress(a[:12].reshape(4, 3), U1)
        assert new is not None
        G[t] = np.concatenate([new[0].ravel(), a[12:]])
        R[t] = np.concatenate([np.full(12, new[1]), np.full(5, U1 * np.linalg.norm(a[12:]))])
        xi = a - G[t]
        w = directions.Window(G, np.abs(G), G[t], np.abs(G[t]), 17, 0, R, R[t])
        solve = directions.Solve(w, None, 3, 0.5, UNITS["float32"])
        at = int(np.argmax(solve.bound))
        moved_u(case, result["u"], (t, at), float(solve.expected[at]), float(solve.bound[at]))


@pytest.mark.parametrize(
    ("shape", "rank", "layer"),
    [((4, 3, 2), 3, (4, 6, 3)), ((2, 3, 5), 3, (2, 15, 2)), ((4, 3, 1), 9, (4, 3, 3)), ((5,), 2, (5, 1, 1))],
)
def test_the_rank_of_a_layer(shape: tuple[int, ...], rank: int, layer: tuple[int, int, int]) -> None:
    """No more than rows, p1, and no more than columns, p2 ... ps; a vector is one column."""
    case, result = ran("low_rank_mfac", T=1)
    run = directions.Run(case, Declared(), result["u"], UNITS["float32"], {"shapes": [shape], "rank": rank})
    assert layers(run) == [layer]


def test_vectors_alone_in_a_hidden_low_rank_run() -> None:
    """Rows stored whole: no product in an entry of the window, d terms in a scalar product, radii ``u ||a||``."""
    case, result = ran("low_rank_mfac", T=1, shapes=[(4,), (5,)], Q0=[])
    g = case.arguments["gradients"][0]
    G, R = np.zeros((3, 9)), np.zeros((3, 9))
    G[0], R[0] = g, U1 * np.repeat([np.linalg.norm(g[:4]), np.linalg.norm(g[4:])], [4, 5])
    w = directions.Window(G, np.abs(G), g, np.abs(g), 9, 0, R, R[0])
    solve = directions.Solve(w, None, 3, 0.5, UNITS["float32"])
    for at in range(9):
        moved_u(case, result["u"], (0, at), float(solve.expected[at]), float(solve.bound[at]))


# ------------------------------------------------------------------ followed in binary64, judged in binary64


def test_a_hidden_sum_in_binary64() -> None:
    """Radius ``2 2^-53 |a|``: one rounding of the target's, one of what follows it; none where the sum is exact."""
    run = hidden.Run(Case("topk_sgd", "generic", "", 0, 0, {}), Declared(), np.zeros((1, 3)), UNITS["float64"])
    xi, g = np.array([1.0, -3.0, 0.1]), np.array([2.0, 5.0, 0.2])
    a = hidden._sum(run, hidden.Followed(xi, np.zeros(3), 0.0), g)
    assert np.array_equal(a.value, xi + g)
    assert np.array_equal(a.radius, 2.0**-52 * np.abs(a.value))
    assert np.array_equal(a.rounding, a.radius)
    xi[2], g[2] = 0.5, 0.25
    assert not hidden._sum(run, hidden.Followed(xi, np.zeros(3)), g).radius.any()
    again = hidden._sum(run, hidden.Followed(xi, np.array([0.0, 1.0, 0.0])), g)
    assert np.array_equal(again.radius, np.array([0.0, 1.0, 0.0]) + 2.0**-52 * np.array([3.0, 2.0, 0.75]))


def test_a_hidden_sign_in_binary64() -> None:
    """``(d + 4) 2u s`` and the mean radius; e's grows by ``4u (|gamma g| + |e|)`` and ``2u |p - Delta|``."""
    case, _ = ran("ef_signsgd", T=2)
    e, radius, u, u1 = np.zeros(9), np.zeros(9), np.zeros((2, 9)), 2.0**-52
    for t, g in enumerate(case.arguments["gradients"]):
        p = 0.25 * g + e
        grown = radius + 2 * u1 * (np.abs(0.25 * g) + np.abs(e)) + 2.0**-1074
        s = fsum(np.abs(p)) / 9
        u[t], room = s * np.sign(p), 13 * u1 * s + grown.mean()
        e, radius = p - u[t], grown + u1 * np.abs(p - u[t])
        for steps, verdict in ((0.9, PASS), (1.1, FAIL)):
            got = u[: t + 1].copy()
            got[t, 2] += steps * room
            here = replace(case, arguments={**case.arguments, "gradients": case.arguments["gradients"][: t + 1]})
            check = stage(checks(here, {"u": got}), "u")
            assert check.ratio == pytest.approx(abs(float(got[t, 2] - u[t, 2])) / room, rel=1e-6)
            assert check.verdict == verdict


def test_a_gradient_that_is_zero_loses_nothing_to_underflow() -> None:
    """p = 0 is certain there, so that Delta is 0 and no sign is free; where g is not zero gamma g may underflow."""
    case, _ = ran("ef_signsgd", T=1)
    g = np.array([[4.0, -8.0, 0.0, 8.0, -4.0, 4.0, 8.0, 8.0, -4.0]])
    s = float(np.abs(0.25 * g).mean())
    for value, other, verdict in ((0.0, 0.0, PASS), (0.0, s, FAIL), (1e-45, s, PASS), (1e-45, 0.5 * s, FAIL)):
        g[0, 2] = value
        u = s * np.sign(0.25 * g)
        u[0, 2] = other
        here = replace(case, arguments={**case.arguments, "gradients": f32(g)})
        assert stage(checks(here, {"u": u}, SAID), "u").verdict == verdict


def test_what_radii_do_to_the_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """``||(G + R)(G + R)^T - G G^T|| <= 2 ||R|| ||G|| + ||R||^2``, whatever is small; none where nothing is hidden."""
    rng = np.random.default_rng(9)
    G, x, R, r = (np.abs(rng.standard_normal(s)) for s in ((3, 7), 7, (3, 7), 7))
    seen: list[tuple[eigen.Problem, Any]] = []

    def visible(problem: eigen.Problem, u: Array, declared: Declared, extra: Any = 0.0) -> Check:
        seen.append((problem, extra))
        return Check("u", "T2", "4:11", "")

    monkeypatch.setattr(directions.eigen, "visible", visible)
    case = Case("sparse_ggt", "generic", "", 0, 0, {"eps": 0.5, "cutoff": 0.0})
    run = directions.Run(case, Declared(), np.zeros((1, 7)), UNITS["float32"], {"eps": 0.5, "cutoff": 0.0})
    for R_, r_, none in ((R, r, False), (R, 0 * r, False), (0 * R, r, False), (0 * R, 0 * r, True), (None, None, True)):
        directions.ggt(run, 0, G, 7, x, None, R_, r_)
        problem, extra = seen[-1]
        size = 0.0 if R_ is None else float(np.linalg.norm(R_))
        drift = 2 * size * float(np.linalg.norm(G)) + size * size
        assert problem.drift == pytest.approx(drift, rel=1e-12)
        assert (extra == 0) == none
    H = (G + R) @ (G + R).T - G @ G.T
    assert np.linalg.norm(H) <= seen[0][0].drift
