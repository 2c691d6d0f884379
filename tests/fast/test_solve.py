"""The factor that follows the window is the factor of the window; a singular system has the c of least norm."""

import numpy as np
import pytest

from efcp_ref.fast.solve import Factor, coefficients, damped, factorised, moved_on
from efcp_ref.paper import woodbury


def gradients(rng, n, d, scale=1.0):
    return scale * rng.standard_normal((n, d)) * 10 ** rng.uniform(-2, 2, (n, 1))


@pytest.mark.parametrize("m", [1, 2, 3, 17, 60])
@pytest.mark.parametrize("lam", [1e-6, 1.0])
def test_following_the_window_for_three_rounds(m, lam):
    """|M - R^T R|_ij <= c u sqrt(M_ii M_jj) after every update: what left, however large, leaves nothing behind.

    An orthogonal update errs by columns, and column i of R has the norm sqrt(M_ii). Some windows have too small a rank.
    """
    rng = np.random.default_rng(m)
    for d in (max(1, m // 2), 3 * m):
        g = gradients(rng, 4 * m, d)
        factor, G = Factor(None), np.zeros((m, d))
        for new in g:
            G = np.vstack([G[1:], new])
            M = damped(G @ G.T, lam)
            factor = factor.after(M[:, -1], M.copy)
            R = factor.R
            norms = np.sqrt(np.diag(M))
            assert (abs(R.T @ R - M) <= (10 * m + 30) * 2.0**-53 * np.outer(norms, norms)).all()
            assert factor.updates <= m
            assert not np.tril(R, -1).any()


def test_it_updates_and_does_not_refactorise():
    """One factorisation per m + 1 steps: the matrix is asked for no more often."""
    rng, m, asked = np.random.default_rng(0), 8, []
    factor, G = Factor(None), np.zeros((m, 5))
    for step in range(3 * (m + 1)):
        G = np.vstack([G[1:], rng.standard_normal(5)])
        M = damped(G @ G.T, 0.5)
        factor = factor.after(M[:, -1], lambda M=M, step=step: asked.append(step) or M.copy())
    assert asked == [0, m + 1, 2 * (m + 1)]


def test_in_float64_it_starts_anew_every_time():
    factor = Factor(None, 0, follow=False)
    for _ in range(3):
        factor = factor.after(np.array([0.0, 9.0]), lambda: np.diag([4.0, 9.0]))
        assert (factor.updates, factor.follow) == (0, False)


def test_a_new_row_that_makes_it_indefinite_is_seen():
    R = factorised(np.diag([1.0, 1.0]))
    assert moved_on(R, np.array([2.0, 1.0])) is None  # [[1, 2], [2, 1]]
    assert Factor(R).after(np.array([2.0, 1.0]), lambda: np.array([[1.0, 2.0], [2.0, 1.0]])).R is None


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_those_of_the_reference(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 12))
    G, lam = rng.standard_normal((m, 20)), float(10 ** rng.uniform(-4, 2))
    S, h = G @ G.T, G @ rng.standard_normal(20)
    np.testing.assert_allclose(coefficients(S, h, lam), woodbury.coefficients(S, h, lam), rtol=1e-8)


def test_a_singular_system_has_the_coefficients_of_least_norm():
    S, h = np.ones((2, 2)) * 1e20, np.ones(2) * 1e20
    np.testing.assert_allclose(coefficients(S, h, 1e-30), woodbury.coefficients(S, h, 1e-30))
