"""Low-Rank M-FAC: appendix I's identity, Algorithm 6 against a dense solve, conservation, R26-R28."""

from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efcp_ref.paper.algorithm_5 import Factors
from efcp_ref.paper.algorithm_6 import (
    LowRank,
    compress,
    initial_state,
    low_rank_inner_product,
    low_rank_mfac,
    low_rank_mfac_step,
    ranks,
    tensors,
    weighted_sum,
)
from efcp_ref.paper.woodbury import coefficients

seeds = st.integers(0, 2**32 - 1)
SHAPES = ((3, 4), (2, 2, 2), (5,), (6, 1), (1, 3), (4, 2))
D = sum(map(prod, SHAPES))


def starts(rng, rank, shapes=SHAPES):
    sizes = zip(shapes, ranks(shapes, rank), strict=True)
    return [rng.standard_normal((prod(shape[1:]), rho)) for shape, rho in sizes if len(shape) > 1]


def dense_solve(rows, m, lam, x):
    """(lam I + G^T G / m)^-1 x, F formed and solved; rows are the gradients stored."""
    G = np.asarray(rows)
    return np.linalg.solve(lam * np.eye(G.shape[1]) + G.T @ G / m, x)


def run(state, gradients, lam):
    for g in gradients:
        u, state = low_rank_mfac_step(state, g, lam=lam)
        yield u, state


@given(seed=seeds, p=st.tuples(*[st.integers(1, 5)] * 4))
def test_inner_product_is_that_of_the_matrices(seed, p):
    """Appendix I's trace identity, exactly, on integers and for different ranks."""
    rng = np.random.default_rng(seed)
    p1, p2, rho1, rho2 = p
    sizes = ((p1, rho1), (p2, rho1), (p1, rho2), (p2, rho2))
    P1, Q1, P2, Q2 = (rng.integers(-9, 10, size).astype(float) for size in sizes)
    dense = (P1 @ Q1.T, P2 @ Q2.T)
    assert low_rank_inner_product(P1, Q1, P2, Q2) == np.sum(dense[0] * dense[1]) == np.trace(dense[0].T @ dense[1])
    assert low_rank_inner_product(P2, Q2, P1, Q1) == low_rank_inner_product(P1, Q1, P2, Q2)


def test_inner_product_agrees_with_exact_fractions():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal(size) for size in ((4, 2), (3, 2), (4, 3), (3, 3))]
    P1, Q1, P2, Q2 = ([[Fraction(v) for v in row] for row in factor.tolist()] for factor in factors)
    pairs = [(i, j) for i in range(4) for j in range(3)]
    terms = [
        (sum(P1[i][r] * Q1[j][r] for r in range(2)), sum(P2[i][r] * Q2[j][r] for r in range(3))) for i, j in pairs
    ]
    exact = sum(a * b for a, b in terms)
    absolute = np.sum((np.abs(factors[0]) @ np.abs(factors[1].T)) * (np.abs(factors[2]) @ np.abs(factors[3].T)))
    assert abs(float(Fraction(float(low_rank_inner_product(*factors))) - exact)) <= (12 + 11) * 2.0**-53 * absolute


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inner_product_has_the_precision_given(dtype):
    product = low_rank_inner_product(*(np.ones((2, 1), dtype) for _ in range(4)))
    assert product.dtype == dtype
    assert product.shape == ()
    assert product == 4


@settings(max_examples=25)
@given(seed=seeds, m=st.integers(1, 4), lam=st.sampled_from([1e-2, 1.0, 100.0]))
def test_full_rank_is_dense_mfac(seed, m, lam):
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((7, D))
    start = initial_state(SHAPES, m, 99, starts(rng, 99))
    for t, (u, state) in enumerate(run(start, gradients, lam), start=1):
        expected = dense_solve(gradients[max(0, t - m) : t], m, lam, gradients[t - 1])
        assert np.allclose(u, expected, rtol=0, atol=1e-9 * np.abs(gradients[t - 1]).sum() / lam)
        assert np.abs(state.xi).max() < 1e-10


@settings(max_examples=25)
@given(seed=seeds, rank=st.integers(1, 3), m=st.integers(1, 4))
def test_low_rank_is_dense_mfac_on_what_was_compressed(seed, rank, m):
    """c = sum g - xi is what the window holds, so (F(c), c) by a dense solve is the direction; S are its products."""
    rng = np.random.default_rng(seed)
    gradients, sent, before = rng.standard_normal((7, D)), [], np.zeros(D)
    start = initial_state(SHAPES, m, rank, starts(rng, rank))
    for t, (u, state) in enumerate(run(start, gradients, 0.1), start=1):
        sent.append(before + gradients[t - 1] - state.xi)
        before = state.xi
        assert np.allclose(u, dense_solve(sent[-m:], m, 0.1, sent[-1]), rtol=0, atol=1e-8)
        assert (state.row, state.t) == (t % m, t)
        ring = np.zeros((m, D))
        for age, c in enumerate(reversed(sent[-m:])):
            ring[(t - 1 - age) % m] = c
        assert np.allclose(state.S, ring @ ring.T, rtol=0, atol=1e-10 * (1 + np.abs(state.S).max()))


def test_nothing_is_lost_bit_for_bit_on_dyadic_input():
    """Sum of all c plus xi = sum of all g: diagonal layers compress along an axis, exactly; the vector goes whole."""
    rng = np.random.default_rng(7)
    state = initial_state([(3, 3), (4,)], 2, 1, [np.zeros((3, 1))])
    sent, total = np.zeros(13), np.zeros(13)
    for _ in range(6):
        g = np.concatenate([np.diag(rng.integers(1, 64, 3) / 8).ravel(), rng.integers(-64, 64, 4) / 8])
        a = state.xi + g
        c = compress(a, state.shapes, state.Q).dense()
        _, state = low_rank_mfac_step(state, g, lam=0.5)
        assert np.array_equal(state.xi, a - c)
        sent, total = sent + c, total + g
    assert np.array_equal(sent + state.xi, total)
    assert state.xi[[4, 8]].all()  # what rank 1 cannot hold waits
    assert not state.xi[9:].any()


def test_nothing_is_lost_beyond_rounding_on_any_input():
    rng = np.random.default_rng(8)
    gradients, state, sent = rng.standard_normal((20, D)), initial_state(SHAPES, 3, 1, starts(rng, 1)), np.zeros(D)
    for g in gradients:
        sent += compress(state.xi + g, state.shapes, state.Q).dense()
        _, state = low_rank_mfac_step(state, g, lam=0.1)
    assert np.allclose(sent + state.xi, gradients.sum(axis=0), rtol=0, atol=1e-13)


def test_algorithm_5_starts_from_the_q_of_the_step_before():
    rng = np.random.default_rng(9)
    Q0 = starts(rng, 1, ((3, 4),))
    state = initial_state([(3, 4)], 2, 1, Q0)
    assert np.array_equal(state.Q[0], Q0[0])
    for t in range(5):
        g = rng.standard_normal(12)
        c = compress(state.xi + g, state.shapes, state.Q)
        _, state = low_rank_mfac_step(state, g, lam=1.0)
        assert np.array_equal(state.Q[0], c.layers[0].Q)
        assert np.array_equal(state.G[0].P[t % 2], c.layers[0].P)


def test_ranks_are_clamped_and_a_q0_of_the_full_rank_is_cut():
    assert ranks(SHAPES, 8) == [3, 2, 1, 1, 1, 2]
    Q = np.arange(12.0).reshape(4, 3)
    state = initial_state([(2, 4)], 1, 3, [Q])
    assert np.array_equal(state.Q0[0], Q[:, :2])


def test_a_vector_is_stored_whole():
    c = compress(np.arange(5.0), ((5,),), [np.eye(1)])
    assert np.array_equal(c.layers[0].P[:, 0], np.arange(5.0))
    assert np.array_equal(c.layers[0].Q, [[1.0]])
    assert np.array_equal(c.dense(), np.arange(5.0))


def test_tensors_follow_one_another_in_c_order():
    g = np.arange(float(D))
    parts = tensors(g, SHAPES)
    assert tuple(part.shape for part in parts) == SHAPES
    assert np.array_equal(np.concatenate([part.ravel() for part in parts]), g)


@given(seed=seeds, rank=st.integers(1, 2), lam=st.sampled_from([1e-3, 1.0]))
def test_zero_gradients_stay_harmless(seed, rank, lam):
    rng = np.random.default_rng(seed)
    state = initial_state(SHAPES, 2, rank, starts(rng, rank))
    u, state = low_rank_mfac_step(state, np.zeros(D), lam=lam)
    assert not u.any()
    u, state = low_rank_mfac_step(state, rng.standard_normal(D), lam=lam)
    assert np.isfinite(u).all()
    assert u.any()


def column(*entries):
    """A layer of one dimension as Algorithm 6 holds it."""
    return Factors(np.array(entries, float)[:, None], np.eye(1))


def test_R26_products_of_the_layers_add_up():
    """Two layers with products 2 and 3: the printed assignment leaves 3, their sum is 5."""
    c = LowRank((column(1.0, 1.0), column(1.0, 1.0, 1.0)))
    printed = 0.0
    for layer in c.layers:
        printed = low_rank_inner_product(*layer, *layer)
    assert printed == 3
    _, state = low_rank_mfac(initial_state([(2,), (3,)], 1, 1, []), c, 1.0)
    assert state.S.tolist() == [[5.0]]


def test_R27_products_stand_where_their_gradients_stand():
    """After 5, 7, 2, 3, 4 the ring holds [3, 4, 2]: its products with 4 are [12, 16, 8], by age [16, 12, 8]."""
    state, history = initial_state([(1,)], 3, 1, []), []
    for value in (5.0, 7.0, 2.0, 3.0, 4.0):
        _, state = low_rank_mfac(state, LowRank((column(value),)), 1.0)
        history.append(value)
    printed = [history[-1 - age] * history[-1] for age in range(3)]  # delta_{t - tau}
    assert printed == [16.0, 12.0, 8.0]
    assert state.S[1].tolist() == [12.0, 16.0, 8.0]
    ring = state.G[0].P[:, 0, 0]
    assert ring.tolist() == [3.0, 4.0, 2.0]
    assert np.array_equal(state.S, np.outer(ring, ring))


def test_R28_the_weights_are_minus_c_and_g_is_the_layers():
    """lam = 1, m = 2, g = (1, 0) then (1, 1): u = (4/11, 6/11); with + c it would be (18/11, 16/11)."""
    state = initial_state([(2,)], 2, 1, [])
    for g in (column(1.0, 0.0), column(1.0, 1.0)):
        u, state = low_rank_mfac(state, LowRank((g,)), 1.0)
    assert np.allclose(u, [4 / 11, 6 / 11], rtol=1e-14)
    c = coefficients(state.S, state.S[1], 1.0)
    printed = np.array([1.0, 1.0]) + weighted_sum(c, state.G[0])[:, 0]
    assert np.allclose(printed, [18 / 11, 16 / 11], rtol=1e-14)


def test_R28_rows_before_the_first_step_are_empty():
    """tau < 1: with m = 9 and one gradient the eight empty rows add nothing but their share of m."""
    g = np.array([3.0, 4.0])
    u, state = low_rank_mfac_step(initial_state([(2,)], 9, 1, []), g, lam=0.5)
    assert np.allclose(u, 9 * g / (0.5 * 9 + 25), rtol=1e-14)
    assert np.count_nonzero(state.S) == 1


def test_a_step_changes_no_earlier_state_and_no_input():
    rng = np.random.default_rng(10)
    state, g = initial_state(SHAPES, 2, 1, starts(rng, 1)), rng.standard_normal(D)
    g.flags.writeable = False
    low_rank_mfac_step(state, g, lam=1.0)
    assert not state.S.any()
    assert not state.xi.any()
    assert not any(G.P.any() or G.Q.any() for G in state.G)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shapes": 5}, TypeError, "shapes = 5"),
        ({"shapes": [5]}, TypeError, r"shapes = \[5\]"),
        ({"shapes": []}, ValueError, r"shapes = \[\]"),
        ({"shapes": [(2, 3), ()]}, ValueError, "at least one dimension"),
        ({"shapes": [(2, 0)]}, ValueError, "shapes = 0"),
        ({"m": 0}, ValueError, "m = 0"),
        ({"rank": 0}, ValueError, "rank = 0"),
        ({"rank": 1.5}, TypeError, "rank = 1.5"),
        ({"Q0": []}, ValueError, "Q0 has 0 entries, must have 1"),
        ({"Q0": np.ones((3, 1))}, TypeError, "Q0 has type ndarray"),
        ({"Q0": [np.ones((2, 1))]}, ValueError, "Q0 has shape"),
        ({"Q0": [np.ones((3, 3))]}, ValueError, "Q0 has 3 columns for the layer"),
        ({"Q0": [np.full((3, 1), np.nan)]}, ValueError, "Q0 holds NaN"),
    ],
)
def test_bad_input_of_the_state(change, error, message):
    good = {"shapes": [(2, 3), (4,)], "m": 2, "rank": 1, "Q0": [np.ones((3, 1))]}
    with pytest.raises(error, match=message):
        initial_state(**good | change)


def test_bad_input_of_the_step_and_the_product():
    state = initial_state([(2,)], 1, 1, [])
    for g, lam, error, message in [
        ([1.0], 1.0, ValueError, "g has shape"),
        ([1.0, np.nan], 1.0, ValueError, "g holds NaN"),
        (["a", "b"], 1.0, TypeError, "g has dtype"),
        ([1.0, 2.0], 0.0, ValueError, "lam = 0.0"),
    ]:
        with pytest.raises(error, match=message):
            low_rank_mfac_step(state, g, lam=lam)
    good = [np.ones((2, 1)), np.ones((3, 1)), np.ones((2, 2)), np.ones((3, 2))]
    for n, (name, wrong) in enumerate([("P1", (2,)), ("Q1", (3, 2)), ("P2", (3, 2)), ("Q2", (3, 1))]):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            low_rank_inner_product(*good[:n], np.ones(wrong), *good[n + 1 :])
