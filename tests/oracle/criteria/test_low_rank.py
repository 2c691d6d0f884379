"""PowerCompress is judged by invariants: any orthogonalisation passes within its class, and no sign of P matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria.low_rank import low_rank_inner_product, power_compress

Array = np.ndarray


def f32(a: Any) -> Array:
    return np.asarray(np.asarray(a, np.float32), np.float64)


def mgs(A: Array, passes: int = 1) -> Array:
    P = A.copy()
    for j in range(P.shape[1]):
        for _ in range(passes):
            for i in range(j):
                P[:, j] -= (P[:, i] @ P[:, j]) * P[:, i]
        P[:, j] /= np.sqrt(P[:, j] @ P[:, j])
    return P


def cgs(A: Array, passes: int = 1) -> Array:
    P = A.copy()
    for j in range(P.shape[1]):
        for _ in range(passes):
            P[:, j] -= P[:, :j] @ (P[:, :j].T @ P[:, j])
        P[:, j] /= np.sqrt(P[:, j] @ P[:, j])
    return P


METHODS: dict[str, Callable[[Array], Array]] = {
    "householder": lambda A: np.linalg.qr(A)[0],
    "svd": lambda A: np.linalg.svd(A, full_matrices=False)[0],
    "mgs": mgs,
    "cgs2": lambda A: cgs(A, 2),
    "cgs": cgs,
}


def make(rng: np.random.Generator, n: int) -> Case:
    p1, p2, rho = ((1, 1, 1), (4, 6, 2), (12, 5, 4), (30, 20, 5))[n % 4]
    scale = 10.0 ** rng.integers(-6, 6)
    left = rng.standard_normal((p1, p1)) * 10.0 ** rng.uniform(-rng.integers(0, 3), 0, p1)
    g = f32(scale * left @ rng.standard_normal((p1, p2)))
    g = g.reshape((p1, 2, p2 // 2)) if p2 % 2 == 0 else g
    return Case("power_compress", "generic", "", 0, 0, {"g": g, "Q": f32(rng.standard_normal((p2, rho)))})


def compress(case: Case, dtype: Any, method: str, rng: np.random.Generator) -> dict[str, Array]:
    g, Q = (case.arguments[n].astype(dtype) for n in ("g", "Q"))
    M = g.reshape(len(g), -1)
    order = rng.permutation(M.shape[1])
    P = METHODS[method](M[:, order] @ Q[order]).astype(dtype) * rng.choice([-1, 1], Q.shape[1]).astype(dtype)
    rows = rng.permutation(len(M))
    return {"P": P, "Q": M[rows].T @ P[rows]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_correct_code_never_fails(method: str, dtype: Any) -> None:
    rng = np.random.default_rng(1)
    seen = []
    for n in range(120):
        case = make(rng, n)
        result = compress(case, dtype, method, rng)
        for declared in (Declared(), Declared(orthogonalisation=method)):
            checks = power_compress(case, result, declared)
            assert verdict_of(checks) != FAIL, (n, checks)
            seen.append(verdict_of(checks))
    assert seen.count(PASS) > 0.7 * len(seen)


BUGS: dict[str, tuple[str, Callable[[Array, Array, Array, Array], tuple[Array, Array]]]] = {
    "zeros": ("5:4", lambda M, Q, P, R: (0 * P, R)),
    "no orthogonalisation": ("5:4", lambda M, Q, P, R: (M @ Q, M.T @ (M @ Q))),
    "normalised columns only": ("5:4", lambda M, Q, P, R: (M @ Q / np.linalg.norm(M @ Q, axis=0), R)),
    "span of Q0 alone": ("5:3", lambda M, Q, P, R: (np.linalg.qr(np.roll(M, 1, 0) @ Q)[0], R)),
    "Q kept": ("5:5", lambda M, Q, P, R: (P, Q)),
    "Q from the P before orthogonalisation": ("5:5", lambda M, Q, P, R: (P, M.T @ (M @ Q))),
    "one entry of Q": ("5:5", lambda M, Q, P, R: (P, R + np.eye(*R.shape) * 1e-3)),
}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_planted_bugs_fail_at_their_line(bug: str, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        M, Q = f32(rng.standard_normal((8, 6))), f32(rng.standard_normal((6, 3)))
        P = np.linalg.qr(M @ Q)[0]
        line, plant = BUGS[bug]
        wrong = dict(zip(("P", "Q"), (a.astype(dtype) for a in plant(M, Q, P, M.T @ P)), strict=True))
        checks = power_compress(Case("power_compress", "generic", "", 0, 0, {"g": M, "Q": Q}), wrong, Declared())
        assert next(c for c in checks if c.verdict == FAIL).line == line


def test_R25_any_completion_of_a_rank_deficient_product_passes() -> None:
    case = Case("power_compress", "adversarial", "", 0, 0, {"g": np.zeros((4, 3)), "Q": np.ones((3, 2))})
    for P in (np.eye(4)[:, :2], np.eye(4)[:, [3, 1]], -np.eye(4)[:, 2:]):
        assert verdict_of(power_compress(case, {"P": P, "Q": np.zeros((3, 2))}, Declared())) == PASS
    nothing = {"P": np.zeros((4, 2)), "Q": np.zeros((3, 2))}
    assert verdict_of(power_compress(case, nothing, Declared())) == INCONCLUSIVE  # modified Gram-Schmidt may lose it
    assert verdict_of(power_compress(case, nothing, Declared(orthogonalisation="householder"))) == FAIL


def inner(case: Case, dtype: Any, rebuild: bool) -> Array:
    P1, Q1, P2, Q2 = (case.arguments[n].astype(dtype) for n in ("P1", "Q1", "P2", "Q2"))
    if rebuild:
        return np.sum((P1 @ Q1.T) * (P2 @ Q2.T))
    return np.sum((P1.T @ P2) * (Q1.T @ Q2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rebuild", [False, True])
def test_inner_product_in_any_order_passes(dtype: Any, rebuild: bool) -> None:
    rng = np.random.default_rng(3)
    for n in range(150):
        p1, p2, r1, r2 = rng.integers(1, 9, 4)
        exact = n % 2 == 0
        draw = (lambda *s: rng.integers(-4, 5, s).astype(float)) if exact else (lambda *s: f32(rng.standard_normal(s)))
        args = {"P1": draw(p1, r1), "Q1": draw(p2, r1), "P2": draw(p1, r2), "Q2": draw(p2, r2)}
        case = Case("low_rank_inner_product", "generic", "", 0, 0, args, frozenset({"exact"} if exact else ()))
        got = np.asarray(inner(case, dtype, rebuild))
        checks = low_rank_inner_product(case, {"product": got}, Declared())
        assert verdict_of(checks) in (PASS, INCONCLUSIVE), checks
        assert any(c.tier == "T1" for c in checks) == exact
        wrong = got + dtype(1 if exact else 1e-2 * (1 + abs(got)))
        assert verdict_of(low_rank_inner_product(case, {"product": wrong}, Declared())) == FAIL


@pytest.mark.parametrize(
    "result", [{}, {"P": np.eye(3), "Q": np.eye(2)}, {"P": np.full((3, 2), np.inf), "Q": np.eye(2)}]
)
def test_structure(result: dict[str, Array]) -> None:
    case = Case("power_compress", "exact", "", 0, 0, {"g": np.ones((3, 2)), "Q": np.eye(2)})
    checks = power_compress(case, result, Declared())
    assert (verdict_of(checks), checks[-1].tier) == (FAIL, "T0")
