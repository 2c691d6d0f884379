"""Scaled Top-k: correct code passes in float32 and float64, with any choice within rounding; planted bugs fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.linalg import eigh, sqrtm

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS, UNITS, Case, Declared, verdict_of
from efcp_ref.oracle.criteria.scaled import Basis, scaled_top_k

Array = np.ndarray


def f32(a: Any) -> Array:
    return np.asarray(np.asarray(a, np.float32), np.float64)


def make(rng: np.random.Generator, condition: float) -> Case:
    d = int(rng.integers(1, 12))
    V = np.linalg.qr(rng.standard_normal((d, d)))[0]
    H = (V * condition ** rng.random(d)) @ V.T
    H = f32(np.tril(H) + np.tril(H, -1).T)
    return Case(
        "scaled_top_k",
        "generic",
        "",
        0,
        0,
        {"v": f32(rng.standard_normal(d)), "H": H, "k": int(rng.integers(0, d + 1))},
    )


def roots(H: Array, form: int) -> tuple[Array, Array]:
    if form and H.dtype == np.float64:
        root = np.real(sqrtm(H))
        return root, np.linalg.inv(root)
    L, V = eigh(H)
    s = np.sqrt(L)
    return (V * s) @ V.T, (V / s) @ V.T


def scaled(case: Case, dtype: Any, form: int = 0, bug: str = "") -> Array:
    v, H, k = case.arguments["v"].astype(dtype), case.arguments["H"].astype(dtype), case.arguments["k"]
    root, inverse = roots(H, form)
    if bug == "H for its root":
        root = H
    b = v if bug == "not scaled" else root @ v if bug == "roots swapped" else inverse @ v
    c = np.zeros_like(b)
    on = np.argsort(-(b if bug == "signed" else -np.abs(b) if bug == "smallest" else np.abs(b)), kind="stable")[:k]
    c[on] = b[on]
    return c if bug in ("not scaled", "not back") else root @ c


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3, 1e6])
def test_correct_code_never_fails(dtype: Any, condition: float) -> None:
    rng = np.random.default_rng(1)
    seen = []
    for n in range(80):
        case = make(rng, condition)
        checks = scaled_top_k(case, {"T": scaled(case, dtype, n % 2)}, Declared())
        assert verdict_of(checks) != FAIL, (n, case, checks)
        seen.append(verdict_of(checks))
    if condition < 1e3 or dtype is np.float64:
        assert seen.count(PASS) > 0.8 * len(seen)


BUGS = {
    "not scaled": "K:4",
    "signed": "K:5",
    "smallest": "K:5",
    "not back": "K:6",
    "H for its root": "K:6",
    "roots swapped": "K:6",
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_fail_at_their_line(bug: str, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        X = rng.standard_normal((6, 6))
        H = f32(X @ X.T + 6 * np.eye(6))
        H = np.tril(H) + np.tril(H, -1).T
        v = f32(np.array([-5.0, 4.0, -3.0, 2.0, 1.0, 0.5]) * rng.choice([-1, 1]))
        case = Case("scaled_top_k", "generic", "", 0, 0, {"v": v, "H": H, "k": 2})
        checks = scaled_top_k(case, {"T": scaled(case, dtype, bug=bug)}, Declared())
        if bug == "signed" and verdict_of(checks) == PASS:
            continue  # the two largest happen to be positive
        assert next(c for c in checks if c.verdict == FAIL).line == BUGS[bug]


def test_a_tie_may_be_broken_either_way() -> None:
    X = np.random.default_rng(3).standard_normal((4, 4))
    H = f32(X @ X.T + np.eye(4))
    H = np.tril(H) + np.tril(H, -1).T
    root = roots(H, 0)[0]
    v = root @ np.array([1.0, 1.0, 0.25, 0.5])
    case = Case("scaled_top_k", "adversarial", "ties", 0, 0, {"v": v, "H": H, "k": 1})
    for i in range(4):
        expected = (FAIL, PASS)[i < 2]
        assert verdict_of(scaled_top_k(case, {"T": root[:, i]}, Declared())) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_the_eigenvectors_of_mrrr_explain_is_undecided(dtype: Any) -> None:
    """Beyond the bound of 30 d 2u, within that of 500 d 2u: undecided; beyond both it fails."""
    rng, seen = np.random.default_rng(3), 0
    for _ in range(20):
        case = make(rng, 10.0)
        v, H, k = (case.arguments[n] for n in ("v", "H", "k"))
        T = scaled(case, dtype)
        basis = Basis.of(H, v, UNITS[T.dtype.name])
        assert basis is not None
        b = np.sort(np.abs(basis.b))[::-1]
        if not 0 < k < len(v) or float(b[k - 1] - b[k]) < 1e-2:
            continue
        bound, i = basis.image(basis.selection(T, k))[1], int(rng.integers(len(v)))
        for factor, verdict in ((0.5, PASS), (4.0, INCONCLUSIVE), (40.0, FAIL)):
            moved = T.astype(float)
            moved[i] += factor * bound[i]
            checks = scaled_top_k(case, {"T": moved.astype(dtype)}, Declared())
            assert verdict_of(checks) == verdict, (factor, checks)
        seen += 1
    assert seen > 5


def test_a_singular_matrix_is_undecided() -> None:
    case = Case("scaled_top_k", "adversarial", "", 0, 0, {"v": np.ones(2), "H": f32(np.diag([1.0, 1e-9])), "k": 1})
    assert verdict_of(scaled_top_k(case, {"T": np.float32([0, 1])}, Declared())) == INCONCLUSIVE


@pytest.mark.parametrize("T", [None, np.zeros(3), np.full(2, np.nan), "text"])
def test_structure(T: Any) -> None:
    case = Case("scaled_top_k", "exact", "", 0, 0, {"v": np.ones(2), "H": np.eye(2), "k": 1})
    judge: Callable[..., Any] = scaled_top_k
    assert verdict_of(judge(case, {"T": T}, Declared())) == FAIL
