"""Algorithm 1: conservation, what COMPRESS sends, R8-R10, R14."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efcp_ref.paper.algorithm_1 import State, efcp, error_feedback, feed_back, identity, step
from efcp_ref.paper.optimizers import MFAC, mfac
from efcp_ref.paper.window import Dense, DenseWindow, keep, keep_blocks

dyadic = st.integers(-64, 64).map(lambda n: n / 8)


@given(gradients=hnp.arrays(np.float64, (7, 6), elements=dyadic), density=st.sampled_from([0.2, 0.5, 1]))
def test_what_is_sent_and_what_waits_is_all_there_was(gradients, density):
    """Sum of all c plus xi = sum of all g, bit for bit on dyadic input."""
    xi, sent = np.zeros(6), np.zeros(6)
    for g in gradients:
        c, xi = feed_back(xi, g, partial(keep_blocks, block_size=4, density=density))
        sent = sent + c.dense()
    assert np.array_equal(sent + xi, gradients.sum(axis=0))


@given(xi=hnp.arrays(np.float64, 5, elements=dyadic), g=hnp.arrays(np.float64, 5, elements=dyadic))
def test_error_feedback_splits_the_accumulator(xi, g):
    indices, values, after = error_feedback(xi, g, 3, 0.5)
    c = np.zeros(5)
    c[indices] = values
    assert np.array_equal(c + after, xi + g)
    assert not after[indices].any()
    assert np.array_equal(xi, xi.copy())


def test_nothing_compressed_is_gradient_descent():
    H = np.diag([1.0, 2.0])
    theta, state = efcp([1.0, 1.0], lambda x: H @ x, Dense, identity, None, 0.25, 3)
    assert np.allclose(theta, [0.75**3, 0.5**3], atol=1e-16)
    assert not state.xi.any()


def test_the_rate_may_depend_on_t_which_starts_at_1():
    seen = []
    efcp([1.0], lambda x: x, Dense, identity, None, lambda t: seen.append(t) or 0.1, 3)
    assert seen == [1, 2, 3]


def test_T_0_returns_the_start():
    theta, state = efcp([1.0, 2.0], lambda x: x, Dense, identity, None, 0.1, 0)
    assert theta.tolist() == [1.0, 2.0]
    assert not state.xi.any()


def test_R8_the_gradient_is_taken_where_the_step_starts():
    asked = []
    efcp([4.0], lambda x: asked.append(float(x[0])) or x, Dense, identity, None, 0.5, 2)
    assert asked == [4.0, 2.0]  # theta_0, then theta_1; theta_t at t = 1 would not exist yet


def test_R9_insert_first_then_precondition():
    A = MFAC(DenseWindow.empty(d=1, m=1), np.zeros((1, 1)))
    u, _ = mfac(A, Dense(np.array([1.0])), 0.1)
    assert u.round(3) == 0.909
    assert 1.0 / 0.1 == 10.0  # preconditioning with the window before c_t is in it


def test_R10_feedback_of_g_and_of_gamma_g_are_two_algorithms():
    """Rate dropping from 1 to 0.1: EFCP feeds back the error of g, the slides that of gamma g."""
    gradients, rates = [np.array([2.0, 1.0]), np.array([0.0, 0.0])], [1.0, 0.1]
    top_1 = partial(keep, k=1)
    xi, theta = np.zeros(2), np.zeros(2)
    e, x = np.zeros(2), np.zeros(2)
    for g, gamma in zip(gradients, rates, strict=True):
        c, xi = feed_back(xi, g, top_1)
        theta = theta - gamma * c.dense()
        c, e = feed_back(e, gamma * g, top_1)
        x = x - c.dense()
    assert theta.tolist() == [-2.0, -0.1]
    assert x.tolist() == [-2.0, -1.0]


def test_R14_the_residual_is_taken_from_what_is_stored():
    a = np.array([1.0048828125])
    indices, values, xi = error_feedback(np.zeros(1), a, density=1, dtype="bfloat16")
    assert float(values[0]) + xi[0] == a[0]
    assert xi[0] == pytest.approx(-2.9e-3, rel=0.02)


def test_R14_an_accumulator_in_bfloat16_loses_small_gradients():
    import ml_dtypes

    xi = np.array([1.0], ml_dtypes.bfloat16)
    for _ in range(256):
        xi = xi + np.array([2.0**-9], ml_dtypes.bfloat16)
    assert xi[0] == 1.0
    wide = np.array([1.0], np.float32)
    for _ in range(256):
        wide = wide + np.float32(2.0**-9)
    assert wide[0] == 1.5


def test_precision_is_kept():
    indices, values, xi = error_feedback(np.zeros(3, np.float32), np.float32([1, 2, 3]), density=0.5)
    assert (indices.dtype, values.dtype, xi.dtype) == (np.int32, np.float32, np.float32)


def test_float32_values_are_rounded_before_the_residual():
    xi, g = np.float32([2.0**-30]), np.float32([1.0])
    _, values, after = error_feedback(xi, g, density=1)
    assert values[0] == np.float32(1.0)
    assert after[0] == np.float32(2.0**-30)  # the part that float32 could not store waits


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: error_feedback(np.zeros(2), np.zeros(3)), ValueError, "g has shape"),
        (lambda: error_feedback(np.zeros(0), np.zeros(0)), ValueError, "xi has shape"),
        (lambda: error_feedback(np.zeros(2), [np.nan, 0.0]), ValueError, "g holds NaN"),
        (lambda: error_feedback(np.zeros(2), np.zeros(2), dtype="int8"), ValueError, "dtype = 'int8'"),
        (lambda: step(State(np.zeros(2), None), np.zeros(3), Dense, identity), ValueError, "g has shape"),
        (lambda: efcp([1.0], lambda x: x, Dense, identity, None, 0.1, -1), ValueError, "T = -1"),
        (lambda: efcp([1.0], lambda x: x, Dense, identity, None, "a", 1), TypeError, "eta = 'a'"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
