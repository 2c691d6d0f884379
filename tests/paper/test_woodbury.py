"""Section 2.2: three ways to F^-1 x, against dense solves and exact rationals; R2-R5, R7."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efcp_ref.paper.window import densified
from efcp_ref.paper.woodbury import (
    coefficients,
    coefficients_recursive,
    denominator,
    mfac_direction,
    sparse_mfac_direction,
    updated,
    wsm,
)

small = st.integers(-3, 3).map(float)


@st.composite
def problems(draw):
    """(G, lam, x) with small integers, so that rationals are cheap."""
    m, d = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    G = draw(hnp.arrays(np.float64, (m, d), elements=small))
    x = draw(hnp.arrays(np.float64, d, elements=small))
    return G, draw(st.sampled_from([2.0**-10, 0.125, 1.0, 8.0])), x


def exact_inverse_times(G, lam, x, m=None):
    """F^-1 x in rationals by Gaussian elimination on the dense F: shares nothing with the module under test."""
    rows, d = G.shape
    m = rows if m is None else m
    g = [[Fraction(v) for v in row] for row in G.tolist()]
    F = [
        [Fraction(lam) * (i == j) + sum(g[r][i] * g[r][j] for r in range(rows)) / m for j in range(d)]
        for i in range(d)
    ]
    F = [[*row, Fraction(x[i])] for i, row in enumerate(F)]
    for p in range(d):
        pivot = next(r for r in range(p, d) if F[r][p] != 0)
        F[p], F[pivot] = F[pivot], F[p]
        F[p] = [v / F[p][p] for v in F[p]]
        for r in range(d):
            if r != p and F[r][p] != 0:
                F[r] = [a - F[r][p] * b for a, b in zip(F[r], F[p], strict=True)]
    return [F[i][d] for i in range(d)]


def distance(got, exact):
    """Largest difference from exact rationals, as a fraction."""
    return max(abs(Fraction(float(v)) - e) for v, e in zip(got, exact, strict=True))


@given(problem=problems())
def test_the_three_ways_agree_with_exact_rationals(problem):
    G, lam, x = problem
    exact = exact_inverse_times(G, lam, x)
    allowed = 1e-14 * np.abs(x).sum() / lam
    assert distance(wsm(G, lam, x), exact) <= allowed
    assert distance(mfac_direction(G, lam, x).u, exact) <= allowed
    indices = np.tile(np.arange(G.shape[1], dtype=np.int32), (len(G), 1))
    assert distance(sparse_mfac_direction(indices, G, G.shape[1], lam, x).u, exact) <= allowed


@given(problem=problems())
def test_the_closed_form_is_the_recursion(problem):
    G, lam, x = problem
    S, h = G @ G.T, G @ x
    scale = np.abs(x).sum() / lam
    assert np.abs(G.T @ (coefficients(S, h, lam) - coefficients_recursive(S, h, lam))).max() <= 1e-13 * scale


@given(problem=problems(), seed=st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter(problem, seed):
    G, lam, x = problem
    order = np.random.default_rng(seed).permutation(len(G))
    a, b = mfac_direction(G, lam, x).u, mfac_direction(G[order], lam, x).u
    assert np.abs(a - b).max() <= 1e-14 * np.abs(x).sum() / lam
    assert np.abs(wsm(G, lam, x) - wsm(G[order], lam, x)).max() <= 1e-14 * np.abs(x).sum() / lam


@pytest.mark.parametrize("lam", [1e-6, 1e-3, 1.0, 1e3])
def test_larger_windows_against_a_dense_solve(lam):
    rng = np.random.default_rng(0)
    G, x = rng.standard_normal((16, 40)), rng.standard_normal(40)
    F = lam * np.eye(40) + G.T @ G / 16
    want = np.linalg.solve(F, x)
    allowed = 1e-13 * np.linalg.cond(F) * np.abs(want).max()
    for got in (wsm(G, lam, x), mfac_direction(G, lam, x).u):
        assert np.abs(got - want).max() <= allowed


def test_R2_the_k_th_term_uses_the_inverse_before_g_k():
    G, x = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([1.0, 1.0])
    F = np.eye(2) + G.T @ G / 2
    assert np.allclose(wsm(G, 1.0, x), np.linalg.solve(F, x), atol=1e-15)
    assert np.allclose(wsm(G, 1.0, x), [4 / 11, 6 / 11], atol=1e-15)

    def printed(G, lam, x):
        """The last printed line: the k-th term holds F_k^-1 g_k with g_k already in F_k."""
        u, m = x / lam, len(G)
        for k in range(1, m + 1):
            F_k = lam * np.eye(len(x)) + G[:k].T @ G[:k] / m
            w = np.linalg.solve(F_k, G[k - 1])
            u = u - w * (w @ x) / (m + G[k - 1] @ w)
        return u

    assert printed(G, 1.0, x).round(4).tolist() == [0.7197, 0.8295]


def test_R2_the_printed_sum_is_right_only_if_F_1_is_lam_I():
    """Numbered from F_1 = lam I, F_{k+1} = F_k + g_k g_k^T / m, the printed sum holds: the index is off by one."""
    G, x, m = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([1.0, 1.0]), 2
    u = x.copy()
    for k in range(m):
        F_k = np.eye(2) + G[:k].T @ G[:k] / m  # F_1 = I holds no gradient
        w = np.linalg.solve(F_k, G[k])
        u = u - w * (w @ x) / (m + G[k] @ w)
    assert np.allclose(u, wsm(G, 1.0, x), atol=1e-15)


def test_R3_the_printed_fisher_matrix_is_singular():
    g = np.array([[1.0, 2.0, 3.0]])
    assert np.linalg.matrix_rank(g.T @ g) == 1
    assert np.isfinite(mfac_direction(g, 1e-3, np.ones(3)).u).all()


def test_R4_m_or_the_number_stored():
    G, x = np.zeros((4, 1)), np.array([1.0])
    G[0] = 1.0
    assert mfac_direction(G, 0.1, x).u.round(3) == 2.857
    assert mfac_direction(G, 0.1, x, normalise="stored").u.round(3) == 0.909
    assert wsm(G, 0.1, x, "stored").round(3) == 0.909
    indices = np.zeros((4, 1), np.int32)
    assert sparse_mfac_direction(indices, G, 1, 0.1, x, normalise="stored").u.round(3) == 0.909
    assert denominator(np.zeros((3, 2)), "stored") == 1
    assert mfac_direction(np.zeros((3, 1)), 0.1, x, "stored").u == 1.0 / 0.1


def test_R5_coefficients_depend_on_x():
    rng = np.random.default_rng(1)
    G, g, x = rng.standard_normal((4, 6)), rng.standard_normal(6), rng.standard_normal(6)
    lam = 0.01
    c = coefficients(G @ G.T, G @ x, lam)
    F = lam * np.eye(6) + G.T @ G / 4
    assert np.allclose(x / lam - c @ G, np.linalg.solve(F, x), rtol=1e-12)
    reused = coefficients(G @ G.T, G @ g, lam)  # the scalar products of another vector
    assert np.abs(x / lam - reused @ G - np.linalg.solve(F, x)).max() > 1


def test_R7_the_row_is_replaced_before_the_product():
    G = np.array([[1.0, 0.0], [0.0, 2.0]])
    g, row = np.array([3.0, 4.0]), 0
    new = G.copy()
    new[row] = g
    assert np.array_equal(updated(G @ G.T, row, new @ g), new @ new.T)
    old_first = updated(G @ G.T, row, G @ g)  # S_ii is then g_old . g
    assert old_first[0, 0] == 3.0
    assert (new @ new.T)[0, 0] == 25.0


def test_first_step_identity():
    """u = m g / (lam m + |g|^2) when g is the only gradient of the window."""
    g, lam, m = np.array([3.0, 4.0]), 0.5, 4
    G = np.zeros((m, 2))
    G[2] = g
    assert np.allclose(mfac_direction(G, lam, g).u, m * g / (lam * m + 25.0), rtol=1e-15)


@given(m=st.integers(1, 4), d=st.integers(3, 8), seed=st.integers(0, 99))
def test_sparse_equals_dense(m, d, seed):
    rng = np.random.default_rng(seed)
    indices = np.stack([np.sort(rng.permutation(d)[:2]) for _ in range(m)]).astype(np.int32)
    values, x = rng.standard_normal((m, 2)), rng.standard_normal(d)
    sparse = sparse_mfac_direction(indices, values, d, 0.1, x)
    dense = mfac_direction(densified(indices, values, d), 0.1, x)
    for a, b in zip(sparse, dense, strict=True):
        assert np.allclose(a, b, rtol=1e-12, atol=1e-13)


def test_damping_lost_in_rounding_gives_the_least_norm_solution():
    G = np.array([[1e12, 0.0], [1e12, 0.0]])
    result = mfac_direction(G, 1e-7, np.array([1e12, 1.0]))
    assert np.isfinite(result.u).all()
    assert result.c[0] == pytest.approx(result.c[1])
    assert result.u[1] == 1.0 / 1e-7


def test_precision_is_kept():
    G, x = np.eye(2, dtype=np.float32), np.ones(2, np.float32)
    assert {a.dtype for a in mfac_direction(G, 1.0, x)} == {np.dtype(np.float32)}
    assert wsm(G, 1.0, x).dtype == np.float32
    assert sparse_mfac_direction([[0], [1]], np.ones((2, 1), np.float32), 2, 1.0, x).u.dtype == np.float32


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: wsm(np.ones(2), 1.0, np.ones(2)), ValueError, "G has shape"),
        (lambda: wsm(np.ones((2, 2)), 0.0, np.ones(2)), ValueError, "lam = 0.0, must be greater than 0"),
        (lambda: wsm(np.ones((2, 2)), -1.0, np.ones(2)), ValueError, "lam = -1.0"),
        (lambda: wsm(np.ones((2, 2)), np.inf, np.ones(2)), ValueError, "lam = inf"),
        (lambda: wsm(np.ones((2, 2)), 1.0, np.ones(3)), ValueError, "x has shape"),
        (lambda: wsm(np.ones((2, 2)), 1.0, np.ones(2), "rows"), ValueError, "normalise = 'rows'"),
        (lambda: mfac_direction(np.zeros((0, 2)), 1.0, np.ones(2)), ValueError, "no axis may be empty"),
        (lambda: mfac_direction(np.full((1, 1), np.nan), 1.0, np.ones(1)), ValueError, "G holds NaN"),
        (lambda: mfac_direction(np.ones((1, 1)), "1", np.ones(1)), TypeError, "lam = '1'"),
        (lambda: coefficients(np.ones((2, 3)), np.ones(2), 1.0), ValueError, "S has shape (2, 3)"),
        (lambda: coefficients(np.eye(2), np.ones(3), 1.0), ValueError, "h has shape"),
        (lambda: coefficients(np.eye(2), np.ones(2), 1.0, m=0), ValueError, "m = 0"),
        (lambda: sparse_mfac_direction([[0]], [[1.0]], 0, 1.0, [1.0]), ValueError, "d = 0"),
        (lambda: sparse_mfac_direction([[5]], [[1.0]], 2, 1.0, [1.0, 1.0]), ValueError, "indices"),
    ],
)
def test_bad_input_is_named(call, error, words):
    import re

    with pytest.raises(error, match=re.escape(words)):
        call()
