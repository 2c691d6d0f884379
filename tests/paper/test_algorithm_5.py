"""PowerCompress: the projection it is, what it converges to, R25."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.paper.algorithm_5 import orthogonalize, power_compress, unfold

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)


def problem(seed, shape, rho):
    rng = np.random.default_rng(seed)
    g = rng.standard_normal(shape)
    p1, p2s = unfold(g).shape
    return g, rng.standard_normal((p2s, min(rho, p1, p2s)))


def projector(A):
    """The orthogonal projection on the columns of A, by a singular value decomposition."""
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    U = U[:, s > 1e-10 * s[0]]
    return U @ U.T


@given(seed=seeds, shape=shapes, rho=st.integers(1, 4))
def test_P_Q_is_the_orthogonal_projection_of_the_gradient(seed, shape, rho):
    g, Q = problem(seed, shape, rho)
    M = unfold(g)
    P, after = power_compress(g, Q)
    assert P.shape == (shape[0], Q.shape[1])
    assert after.shape == Q.shape
    assert np.allclose(P.T @ P, np.eye(Q.shape[1]), rtol=0, atol=1e-13)
    assert np.allclose(P @ after.T, P @ P.T @ M, rtol=0, atol=1e-12)
    assert np.allclose(P @ (P.T @ (M @ Q)), M @ Q, rtol=0, atol=1e-11)  # the span of P holds that of M Q
    left = np.linalg.norm(M - P @ after.T)
    assert left**2 + np.linalg.norm(P @ after.T) ** 2 == pytest.approx(np.linalg.norm(M) ** 2)  # Pythagoras


def test_projection_on_the_span_of_g_q():
    g, Q = problem(1, (5, 2, 3), 2)
    assert np.allclose(power_compress(g, Q).dense(), projector(unfold(g) @ Q) @ unfold(g), rtol=0, atol=1e-13)


def test_repeats_converge_to_the_truncated_singular_value_decomposition():
    rng = np.random.default_rng(2)
    U, V = orthogonalize(rng.standard_normal((7, 4))), orthogonalize(rng.standard_normal((6, 4)))
    s = np.array([8.0, 5.0, 0.5, 0.25])
    g, Q = (U * s) @ V.T, rng.standard_normal((6, 2))
    errors = []
    for _ in range(30):
        P, Q = power_compress(g, Q)
        errors.append(np.linalg.norm(P @ Q.T - (U[:, :2] * s[:2]) @ V[:, :2].T))
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-12
    assert np.linalg.norm(g - P @ Q.T) == pytest.approx(np.hypot(0.5, 0.25))  # Eckart and Young


def test_tensor_is_unfolded_in_c_order():
    g = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(unfold(g)[1], np.arange(12.0, 24.0))
    Q = np.eye(12)[:, :2]
    assert np.array_equal(power_compress(g, Q).dense(), power_compress(g.reshape(2, 12), Q).dense())


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1), (3, 1, 1)])
def test_thin_tensors_come_back_whole_at_rank_one(shape):
    g = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    assert np.allclose(power_compress(g, np.ones((unfold(g).shape[1], 1))).dense(), unfold(g), rtol=1e-14)


def gram_schmidt(P, eps):
    """ORTHOGONALIZE as it is often written: column by column, each divided by its norm + eps."""
    P = P.copy()
    for j in range(P.shape[1]):
        for i in range(j):
            P[:, j] -= (P[:, i] @ P[:, j]) * P[:, i]
        with np.errstate(invalid="ignore"):
            P[:, j] = P[:, j] / (np.linalg.norm(P[:, j]) + eps)
    return P


def printed(g, Q, eps):
    P = gram_schmidt(g @ Q, eps)
    return P, g.T @ P


@pytest.mark.parametrize(("eps", "outcome"), [(0.0, "nan"), (1e-8, "zero")])
def test_R25_one_zero_gradient_spoils_gram_schmidt_for_ever(eps, outcome):
    """eps = 0 gives NaN, eps = 1e-8 gives zero for ever after; complete QR recovers at the next gradient."""
    g, Q0 = problem(3, (4, 5), 2)
    Q, ours = Q0, Q0
    for gradient in (g, np.zeros_like(g), g, g, g):
        P, Q = printed(gradient, Q, eps)
        ours_P, ours = power_compress(gradient, ours)
    assert np.isnan(P @ Q.T).all() if outcome == "nan" else not (P @ Q.T).any()
    assert np.allclose(ours_P.T @ ours_P, np.eye(2), rtol=0, atol=1e-14)
    assert np.linalg.norm(ours_P @ ours.T) > 0.5 * np.linalg.norm(g)


def test_R25_zero_start_and_zero_gradient_are_valid():
    g, _ = problem(4, (4, 5), 2)
    P, Q = power_compress(g, np.zeros((5, 2)))
    assert np.array_equal(np.abs(P), np.eye(4)[:, :2])
    assert np.allclose(P @ Q.T, np.concatenate([g[:2], np.zeros((2, 5))]), rtol=1e-15)
    P, Q = power_compress(np.zeros((4, 5)), Q)
    assert not Q.any()
    assert np.allclose(P.T @ P, np.eye(2), rtol=0, atol=1e-15)


def test_R25_too_large_a_rank_is_no_projector():
    """Rank 4 on 2 x 5: Gram-Schmidt's last columns are normalised rounding errors, |P P^T g| exceeds |g|."""
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        g = rng.standard_normal((2, 5))
        P, Q = printed(g, rng.standard_normal((5, 4)), 1e-30)
        ratios.append(np.linalg.norm(P @ Q.T) / np.linalg.norm(g))
    assert np.median(ratios) > 1.3
    with pytest.raises(ValueError, match=r"rho = 4 columns, must have at most min\(2, 5\)"):
        power_compress(g, np.ones((5, 4)))


def test_R25_too_large_a_rank_makes_the_error_grow():
    """Rank 8 on 3 x 768: within 100 steps |xi| exceeds 100 |g| in most runs; at the clamped rank 3 nothing is left."""
    exceeded = 0
    for seed in range(10):
        rng, largest = np.random.default_rng(seed), 0.0
        xi, Q, ours, start = np.zeros((3, 768)), rng.standard_normal((768, 8)), np.zeros((3, 768)), np.zeros((768, 3))
        for _ in range(100):
            g = rng.standard_normal((3, 768))
            P, Q = printed(xi + g, Q, 1e-30)
            xi = xi + g - P @ Q.T
            largest = max(largest, np.linalg.norm(xi) / np.linalg.norm(g))
            kept = power_compress(ours + g, start)
            ours, start = ours + g - kept.dense(), kept.Q
        exceeded += largest > 100
        assert np.linalg.norm(ours) < 1e-12 * np.linalg.norm(g)
    assert exceeded >= 6


def test_R25_a_vector_is_not_compressed():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        power_compress(np.ones(4), np.ones((1, 1)))


def test_R25_P_Q_is_not_the_gradient():
    """Line 5's relation "g = P Q^T" holds for the projection only: at rank 1 a 2 x 2 identity loses half."""
    P, Q = power_compress(np.eye(2), np.ones((2, 1)))
    assert np.allclose(P @ Q.T, np.full((2, 2), 0.5), rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_precision_given_and_inputs_stay(dtype):
    g, Q = (a.astype(dtype) for a in problem(5, (6, 4), 2))
    g = g[::2]
    g.flags.writeable = Q.flags.writeable = False
    before = g.copy(), Q.copy()
    P, after = power_compress(g, Q)
    assert P.dtype == after.dtype == dtype
    assert np.array_equal(before[0], g)
    assert np.array_equal(before[1], Q)


@pytest.mark.parametrize(
    ("g", "Q", "error", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 1)), ValueError, "Q has shape"),
        (np.ones((2, 3)), np.ones(3), ValueError, "Q has shape"),
        (np.ones((2, 3)), np.ones((3, 0)), ValueError, "no axis may be empty"),
        (np.ones((2, 0)), np.ones((3, 1)), ValueError, "g has shape"),
        (np.full((2, 3), np.nan), np.ones((3, 1)), ValueError, "g holds NaN"),
        (np.ones((2, 3)), np.full((3, 1), np.inf), ValueError, "Q holds NaN"),
        (np.ones((2, 3)) * 1j, np.ones((3, 1)), TypeError, "g has dtype"),
    ],
)
def test_bad_input(g, Q, error, message):
    with pytest.raises(error, match=message):
        power_compress(g, Q)
