"""GGT, dense and sparse: the square root it stands for, Algorithm 4 step by step, R22-R24."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.paper.algorithm_4 import (
    CUTOFF,
    Sparse,
    decompose,
    ggt_direction,
    initial_state,
    restored_state,
    singular_values,
    sparse_ggt_direction,
    sparse_ggt_step,
    spmm,
)
from efcp_ref.paper.top_k import block_top_k, top_k
from efcp_ref.paper.window import densified

seeds = st.integers(0, 2**32 - 1)


def window(rng, m, d):
    """A random window whose spectrum stays away from zero."""
    left, _ = np.linalg.qr(rng.standard_normal((m, m)))
    right, _ = np.linalg.qr(rng.standard_normal((d, m)))
    return (left * rng.uniform(0.5, 4.0, m)) @ right.T


def by_square_root(G, x, eps):
    """(eps I + (G^T G)^1/2)^-1 x by scipy's sqrtm in a basis of the rows' span, and x / eps off it."""
    from scipy.linalg import orth, sqrtm

    basis = orth(G.T)  # (d, r)
    root = np.real(sqrtm(basis.T @ G.T @ G @ basis))  # (r, r), nonsingular
    inside = basis.T @ x
    return basis @ np.linalg.solve(eps * np.eye(len(root)) + root, inside) + (x - basis @ inside) / eps


def sparse_window(rng, m, d, k):
    indices = np.stack([rng.permutation(d)[:k] for _ in range(m)]).astype(np.int32)
    return indices, rng.standard_normal((m, k))


@given(seed=seeds, m=st.integers(1, 5), extra=st.integers(0, 6), eps=st.sampled_from([1e-4, 0.1, 3.0]))
def test_dense_direction_is_the_inverse_of_the_square_root(seed, m, extra, eps):
    rng = np.random.default_rng(seed)
    G, x = window(rng, m, m + extra), rng.standard_normal(m + extra)
    tolerance = 1e-12 * np.abs(x).sum() / eps
    assert np.allclose(ggt_direction(G, x, eps).u, by_square_root(G, x, eps), rtol=0, atol=tolerance)


@given(seed=seeds, m=st.integers(1, 4), d=st.integers(1, 9), eps=st.sampled_from([1e-3, 1.0]))
def test_sparse_direction_is_the_dense_one(seed, m, d, eps):
    rng = np.random.default_rng(seed)
    indices, values = sparse_window(rng, m, d, rng.integers(1, d + 1))
    x = rng.standard_normal(d)
    sparse = sparse_ggt_direction(indices, values, d, x, eps)
    dense = ggt_direction(densified(indices, values, d), x, eps)
    assert np.allclose(sparse.gram, dense.gram, rtol=0, atol=1e-13 * (1 + np.abs(dense.gram).max()))
    assert np.allclose(sparse.u, dense.u, rtol=0, atol=1e-9 * np.abs(x).sum() / eps)


def test_both_directions_agree_with_256_bits():
    """|u - exact| <= 1e-14 |x|_1 / eps on integers whose spectrum is separated from the cut-off."""
    mpmath = pytest.importorskip("mpmath")
    G, x, eps = np.array([[2.0, 1, 0, 0], [0, 3, -1, 0], [1, 0, 4, 0]]), np.array([1.0, -2, 3, 5]), 0.125
    with mpmath.workprec(256):
        A = mpmath.matrix(G.tolist()).T * mpmath.matrix(G.tolist())
        values, vectors = mpmath.eigsy(A)
        bracket = mpmath.diag([1 / (mpmath.sqrt(abs(value)) + eps) for value in values])
        exact = np.array([float(u) for u in vectors * bracket * vectors.T * mpmath.matrix(x.tolist())])
    assert exact[3] == pytest.approx(5 / eps, abs=1e-30)
    tolerance = 1e-14 * np.abs(x).sum() / eps
    assert np.abs(ggt_direction(G, x, eps).u - exact).max() <= tolerance
    indices = np.tile(np.arange(4), (3, 1))
    assert np.abs(sparse_ggt_direction(indices, G, 4, x, eps).u - exact).max() <= tolerance


def test_stages_are_an_eigendecomposition_of_the_gram_matrix():
    rng = np.random.default_rng(0)
    G = rng.standard_normal((4, 7))
    _, gram, eigenvalues, V = ggt_direction(G, np.ones(7), 0.1)
    assert np.allclose(gram, G @ G.T, rtol=1e-14)
    assert np.allclose(V @ np.diag(eigenvalues) @ V.T, gram, rtol=0, atol=1e-13 * np.linalg.norm(gram))
    assert np.allclose(V.T @ V, np.eye(4), rtol=0, atol=1e-14)


@given(seed=seeds)
def test_row_order_of_the_window_is_irrelevant(seed):
    rng = np.random.default_rng(seed)
    G, x = window(rng, 4, 6), rng.standard_normal(6)
    assert np.allclose(ggt_direction(G[::-1], x, 0.1).u, ggt_direction(G, x, 0.1).u, rtol=0, atol=1e-11)


def test_empty_window_divides_by_eps():
    x = np.array([1.0, -2.0, 0.5])
    assert np.array_equal(ggt_direction(np.zeros((2, 3)), x, 0.25).u, x / 0.25)
    assert np.array_equal(sparse_ggt_direction([[0], [0]], [[0.0], [0.0]], 3, x, 0.25).u, x / 0.25)
    assert np.array_equal(ggt_direction(np.zeros((2, 3)), x, 0.25, ridge=1e-6).u, x / 0.25)


def test_off_the_support_x_is_only_divided_by_eps():
    x = np.array([1.0, 7.0, 3.0, -5.0])
    u = sparse_ggt_direction([[0, 2], [2, 0]], [[1.0, 2.0], [3.0, 4.0]], 4, x, 0.3).u
    assert np.array_equal(u[[1, 3]], x[[1, 3]] / 0.3)


def test_duplicate_rows_count_once_with_their_common_singular_value():
    g, eps = np.array([3.0, 4.0]), 0.5
    u = ggt_direction(np.stack([g, g, np.zeros(2)]), g, eps).u
    assert np.allclose(u, g / (np.sqrt(2) * 5 + eps), rtol=1e-14)


@given(seed=seeds, d=st.integers(1, 8), m=st.integers(1, 4), eps=st.sampled_from([1e-6, 0.1, 10.0]))
def test_first_step_is_the_gradient_over_its_norm_plus_eps(seed, d, m, eps):
    g = np.random.default_rng(seed).standard_normal(d)
    u, _ = sparse_ggt_step(initial_state(d, m, d), np.arange(d), g, eps=eps)
    assert np.allclose(u, g / (np.linalg.norm(g) + eps), rtol=1e-12, atol=1e-15 * np.abs(g).sum() / eps)


def run(gradients, m, k, **options):
    """Every (u, state) of Algorithm 4 on Top-k of the gradients, without feedback."""
    state = initial_state(gradients.shape[1], m, k)
    for g in gradients:
        u, state = sparse_ggt_step(state, *top_k(g, k), **options)
        yield u, state


def test_steps_equal_the_direction_on_the_last_m_gradients_past_the_wrap_around():
    rng = np.random.default_rng(3)
    gradients, m, k, eps = rng.standard_normal((8, 6)), 3, 4, 0.1
    kept = [densified(*(part[None] for part in top_k(g, k)), 6)[0] for g in gradients]
    for t, (u, state) in enumerate(run(gradients, m, k, eps=eps), start=1):
        last = np.array(kept[max(0, t - m) : t])
        assert np.allclose(u, by_square_root(last, kept[t - 1], eps), rtol=0, atol=1e-11)
        assert (state.i, state.t) == (t % m, t)
        assert np.allclose(sorted(np.diag(state.GtG)), sorted([0.0] * (m - len(last)) + list((last**2).sum(axis=1))))


def test_state_is_restored_from_its_rows():
    states = [state for _, state in run(np.random.default_rng(4).standard_normal((5, 6)), 3, 2, eps=0.1)]
    for state in states:
        again = restored_state(*state.rows, d=6, i=state.i, t=state.t)
        assert np.allclose(again.GtG, state.GtG, rtol=1e-14)
        assert np.array_equal(again.V, state.V)
        u = sparse_ggt_step(state, [4, 1], [2.0, 1.0], eps=0.1)[0]
        assert np.allclose(sparse_ggt_step(again, [4, 1], [2.0, 1.0], eps=0.1)[0], u, rtol=1e-12)
    assert states[0].rows[0][1:].tolist() == [[0, 1], [0, 1]]  # empty rows hold the first k positions


def test_a_step_changes_no_earlier_state():
    state = initial_state(4, 2, 2)
    sparse_ggt_step(state, [1, 3], [1.0, 2.0], eps=0.1)
    assert not state.V.any()
    assert not state.R.any()
    assert not state.GtG.any()


def test_R22_U_needs_the_pseudo_inverse_of_sigma_not_its_root():
    """G = diag(3, 4): U = G V sqrt(Sigma^+) is not orthonormal, and the direction points the wrong way."""
    G, x, eps = np.array([[3.0, 0, 0], [0, 4.0, 0]]), np.ones(3), 0.1
    eigenvalues, V = decompose(G @ G.T)
    sigma, inverse = singular_values(eigenvalues, 0.0)
    printed_U = G.T @ (V * np.sqrt(inverse))
    printed = x / eps + printed_U @ ((1 / (sigma + eps) - 1 / eps) * (printed_U.T @ x))
    assert np.allclose(printed_U.T @ printed_U, np.diag([3.0, 4.0]))
    assert printed.round().tolist() == [-19.0, -29.0, 10.0]
    assert ggt_direction(G, x, eps).u.round(4).tolist() == [0.3226, 0.2439, 10.0]
    assert sparse_ggt_direction([[0], [1]], [[3.0], [4.0]], 3, x, eps).u.round(4).tolist() == [0.3226, 0.2439, 10.0]


def test_R23_rows_are_coordinates_in_appendix_h():
    """With G (m, d) as printed, G^T G is (3, 3); the (m, m) matrix of line 1 needs gradients in columns."""
    C, R, V = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 2]), np.array([1.0, 2.0, 3.0, 4.0])
    printed = spmm(Sparse(r=C, c=R, v=V), np.eye(3), 2)  # G of "m x d", gradients in rows
    assert (printed.T @ printed).shape == (3, 3)
    G = spmm(Sparse(r=R, c=C, v=V), np.eye(2), 3)  # d x m: line 10's r = R, c = C
    assert G.tolist() == [[1.0, 0.0], [0.0, 3.0], [2.0, 4.0]]
    assert np.array_equal(sparse_ggt_direction([[0, 2], [1, 2]], V.reshape(2, 2), 3, np.ones(3), 1.0).gram, G.T @ G)
    x = np.array([1.0, 10.0, 100.0])
    assert np.array_equal(spmm(Sparse(r=C, c=R, v=V), x, 2), G.T @ x)  # line 5


def test_R24_cutoff_drops_and_ridge_shifts():
    """sigma = (1, 2): at cutoff 1/4 the first is dropped; a ridge r turns 1/(s+eps) into the closed form below."""
    G, x, eps = np.diag([1.0, 2.0]), np.ones(2), 0.67
    assert np.allclose(ggt_direction(G, x, eps, 0.25).u, [1 / eps, 1 / (2 + eps)], rtol=1e-15)
    assert np.allclose(ggt_direction(G, x, eps, 0.2499).u, [1 / (1 + eps), 1 / (2 + eps)], rtol=1e-15)
    assert ggt_direction(G, x, eps).u[0].round(6) == 0.598802
    ridge, s = 1e-4, np.array([1.0, 2.0])
    moved = np.sqrt(s**2 + ridge)
    expected = x / eps + s**2 / moved**2 * (1 / (moved + eps) - 1 / eps)
    u = ggt_direction(G, x, eps, ridge=ridge).u
    assert np.allclose(u, expected, rtol=1e-13)
    assert (u > ggt_direction(G, x, eps).u).all()
    state = initial_state(2, 1, 2)
    stepped, after = sparse_ggt_step(state, [0, 1], [3.0, 4.0], eps=eps, ridge=ridge)
    assert np.allclose(stepped, ggt_direction([[3.0, 4.0]], [3.0, 4.0], eps, ridge=ridge).u, rtol=1e-13)
    assert after.GtG.tolist() == [[25.0]]  # the state keeps the Gram matrix without the ridge


def test_R24_printed_without_cutoff_keeps_a_direction_that_is_noise():
    """Three rows in a plane: float64 leaves the third eigenvalue at rounding, cutoff 0 may keep it, CUTOFF never."""
    kept = [0, 0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        G = rng.standard_normal((3, 2)) @ rng.standard_normal((2, 5))
        eigenvalues = ggt_direction(G, np.ones(5), 0.1).eigenvalues
        for n, cutoff in enumerate((0.0, CUTOFF)):
            kept[n] += (singular_values(eigenvalues, cutoff)[1] > 0).sum() > 2
    assert kept[0] > 0
    assert kept[1] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_precision_given_and_inputs_stay(dtype):
    rng = np.random.default_rng(5)
    G, x = rng.standard_normal((3, 12)).astype(dtype)[:, ::2], rng.standard_normal(6).astype(dtype)
    indices, values = np.tile(np.arange(6), (3, 1)), np.ascontiguousarray(G)
    before = [a.copy() for a in (G, x, indices, values)]
    for a in (G, x, indices, values):
        a.flags.writeable = False
    for result in (ggt_direction(G, x, 0.1), sparse_ggt_direction(indices, values, 6, x, 0.1, 0.0, 6, 1)):
        assert {part.dtype for part in result} == {np.dtype(dtype)}
    assert all(np.array_equal(a, b) for a, b in zip(before, (G, x, indices, values), strict=True))


def test_blocks_do_not_change_the_direction():
    rng = np.random.default_rng(6)
    rows = [block_top_k(rng.standard_normal(10), 4, 0.5) for _ in range(3)]
    indices, values = (np.stack(part) for part in zip(*rows, strict=True))
    x = rng.standard_normal(10)
    with_blocks = sparse_ggt_direction(indices, values, 10, x, 0.1, CUTOFF, 4, 0.5)
    assert np.array_equal(with_blocks.u, sparse_ggt_direction(indices, values, 10, x, 0.1).u)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"G": [1.0, 2.0]}, ValueError, "G has shape"),
        ({"G": [[1.0, np.nan]]}, ValueError, "G holds NaN"),
        ({"G": [["a", "b"]]}, TypeError, "G has dtype"),
        ({"x": [1.0]}, ValueError, "x has shape"),
        ({"x": [1.0, np.inf]}, ValueError, "x holds NaN"),
        ({"eps": 0.0}, ValueError, "eps = 0.0"),
        ({"eps": "1"}, TypeError, "eps = '1'"),
        ({"cutoff": -1e-3}, ValueError, "cutoff = -0.001"),
        ({"ridge": -1.0}, ValueError, "ridge = -1.0"),
    ],
)
def test_bad_input_of_the_dense_direction(change, error, message):
    with pytest.raises(error, match=message):
        ggt_direction(**{"G": [[1.0, 2.0]], "x": [1.0, 1.0], "eps": 0.1, "cutoff": 0.0} | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"indices": [[0, 0]]}, ValueError, "repeats 0"),
        ({"indices": [[0, 3]]}, ValueError, "outside 3"),
        ({"indices": [[0.0, 1.0]]}, TypeError, "indices has dtype"),
        ({"values": [[1.0]]}, ValueError, "values has shape"),
        ({"d": 0}, ValueError, "d = 0"),
        ({"x": [1.0]}, ValueError, "x has shape"),
        ({"eps": -1.0}, ValueError, "eps = -1.0"),
        ({"density": 2.0}, ValueError, "density = 2.0"),
    ],
)
def test_bad_input_of_the_sparse_direction(change, error, message):
    good = {"indices": [[0, 2]], "values": [[1.0, 2.0]], "d": 3, "x": [1.0, 1.0, 1.0], "eps": 0.1}
    with pytest.raises(error, match=message):
        sparse_ggt_direction(**good | change)


def test_bad_input_of_the_step_and_the_states():
    state = initial_state(4, 2, 2)
    for indices, values, eps, error, message in [
        ([0], [1.0], 0.1, ValueError, "must have shape"),
        ([0, 0], [1.0, 2.0], 0.1, ValueError, "repeats"),
        ([0, 4], [1.0, 2.0], 0.1, ValueError, "outside 4"),
        ([0, 1], [1.0, np.nan], 0.1, ValueError, "values holds NaN"),
        ([0, 1], [1.0, 2.0], 0.0, ValueError, "eps = 0.0"),
        ([0.5, 1], [1.0, 2.0], 0.1, TypeError, "indices has dtype"),
    ]:
        with pytest.raises(error, match=message):
            sparse_ggt_step(state, indices, values, eps=eps)
    for arguments in ((0, 1, 1), (3, 0, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError, match="must be"):
            initial_state(*arguments)
    with pytest.raises(ValueError, match="i = 1"):
        restored_state([[0]], [[1.0]], d=1, i=1, t=0)
    with pytest.raises(ValueError, match="t = -1"):
        restored_state([[0]], [[1.0]], d=1, i=0, t=-1)
