"""AdaGrad with error feedback: exact fractions, dense AdaGrad at k = d, conservation, R29 and R36."""

import inspect
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efcp_ref.paper import algorithm_7
from efcp_ref.paper.algorithm_7 import adagrad_ef, adagrad_step

dyadic = st.integers(-64, 64).map(lambda n: n / 8)
ROOTS = [Fraction(3), Fraction(4), Fraction(12), Fraction(84)]  # 3, 5, 13, 85: every partial sum of squares is a square


@given(gradients=hnp.arrays(np.float64, (6, 5), elements=dyadic), k=st.integers(0, 5))
def test_error_and_squares_are_exact_fractions_and_nothing_is_lost(gradients, k):
    """xi and G against Fractions, bit for bit; sum of all c plus xi = sum of all g."""
    theta = xi = G = np.zeros(5)
    exact_xi, exact_G, sent = [Fraction(0)] * 5, [Fraction(0)] * 5, [Fraction(0)] * 5
    for g in gradients:
        theta, xi, G = adagrad_step(theta, xi, G, g, k, 0.5)
        a = [x + Fraction(v) for x, v in zip(exact_xi, g.tolist(), strict=True)]
        support = sorted(range(5), key=lambda i: (-abs(a[i]), i))[:k]
        for i in range(5):
            c = a[i] if i in support else Fraction(0)
            exact_xi[i], exact_G[i], sent[i] = a[i] - c, exact_G[i] + c * c, sent[i] + c
    assert [Fraction(v) for v in xi.tolist()] == exact_xi
    assert [Fraction(v) for v in G.tolist()] == exact_G
    assert [Fraction(v) for v in gradients.sum(axis=0).tolist()] == [c + x for c, x in zip(sent, exact_xi, strict=True)]


def test_parameters_are_exact_fractions_where_the_roots_are():
    theta, exact, square = np.array([1.0]), Fraction(1), Fraction(0)
    xi = G = np.zeros(1)
    for t, g in enumerate(ROOTS):
        theta, xi, G = adagrad_step(theta, xi, G, [float(g)], 1, 0.5)
        square += g * g
        root = Fraction([3, 5, 13, 85][t])
        assert root**2 == square
        exact -= Fraction(1, 2) * g / root
        assert abs(Fraction(float(theta[0])) - exact) <= (t + 1) * Fraction(2) ** -52 * 2


@given(
    gradients=hnp.arrays(np.float64, (5, 4), elements=st.floats(-10, 10, allow_subnormal=False)),
    eps=st.sampled_from([0.0, 1e-10, 0.1]),
)
def test_everything_kept_is_dense_adagrad(gradients, eps):
    theta = xi = G = np.zeros(4)
    for t, g in enumerate(gradients, start=1):
        theta, xi, G = adagrad_step(theta, xi, G, g, 4, 0.1, eps)
        squares = np.cumsum(gradients[:t] ** 2, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            steps = np.where(squares > 0, gradients[:t] / (np.sqrt(squares) + eps), 0.0)
        assert np.allclose(theta, -0.1 * steps.sum(axis=0), rtol=1e-13, atol=1e-14)
        assert np.allclose(G, squares[-1], rtol=1e-14, atol=0)
        assert not xi.any()


def test_first_step_is_the_sign():
    """One gradient, k = d: c / sqrt(c^2) = sign(c)."""
    theta, _, _ = adagrad_step(np.zeros(3), np.zeros(3), np.zeros(3), [5.0, -0.25, 0.0], 3, 0.5)
    assert theta.tolist() == [-0.5, 0.5, 0.0]


@pytest.mark.parametrize("eta", [0.5, lambda t: 0.5 / t])
def test_loop_is_its_steps(eta):
    h, theta = np.array([1.0, 4.0, 0.5]), np.array([3.0, -2.0, 1.0])
    run = adagrad_ef(theta, lambda x: h * x, k=2, eta=eta, T=6, eps=1e-3)
    xi = G = np.zeros(3)
    for t in range(1, 7):
        theta, xi, G = adagrad_step(theta, xi, G, h * theta, 2, eta(t) if callable(eta) else eta, 1e-3)
    for one, other in zip(run, (theta, xi, G), strict=True):
        assert np.array_equal(one, other)


def test_loop_converges_on_a_quadratic():
    """The sparse method reaches the minimum of a convex quadratic, where k = 1 of 4 coordinates are sent at a time."""
    h = np.array([1.0, 2.0, 4.0, 8.0])
    theta, _, _ = adagrad_ef(np.ones(4), lambda x: h * x, k=1, eta=lambda t: t**-0.25 / 2, T=4000)
    assert np.abs(theta).max() < 0.05


def test_no_steps_change_nothing():
    theta, xi, G = adagrad_ef([1.0, 2.0], lambda x: x, k=1, eta=1.0, T=0)
    assert theta.tolist() == [1.0, 2.0]
    assert not xi.any()
    assert not G.any()


def test_R29_a_coordinate_without_a_square_is_not_moved():
    """c = (2, 0): as printed (1, NaN); ours (1, 0), and with eps outside the root (2 / (2 + eps), 0)."""
    c, zero = np.array([2.0, 0.0]), np.zeros(2)
    with np.errstate(invalid="ignore", divide="ignore"):
        printed = np.asarray(np.diag(np.diag(np.diag(c**2)) ** -0.5)) * c[:, None]
    assert printed[0, 0] == 1
    assert np.isnan(printed[1, 1])
    assert adagrad_step(zero, zero, zero, c, 2, 1.0).theta.tolist() == [-1.0, 0.0]
    assert adagrad_step(zero, zero, zero, c, 2, 1.0, eps=0.5).theta.tolist() == [-2 / 2.5, 0.0]


def test_R29_a_square_that_underflows_moves_nothing():
    theta, _, G = adagrad_step([1.0], [0.0], [0.0], [1e-200], 1, 1.0)
    assert (theta[0], G[0]) == (1.0, 0.0)


def test_R29_G_is_a_vector():
    """The printed G_0 = 0 of (d, d) holds d numbers: the state keeps the diagonal alone."""
    assert adagrad_ef(np.ones(3), lambda x: x, k=1, eta=0.1, T=2).G.shape == (3,)


def test_R36_lines_are_numbered_in_the_order_of_printing():
    """Lines 1 to 9 each stand once, in order; "end for", the tenth, executes nothing."""
    source = inspect.getsource(algorithm_7)
    tags = re.findall(r"^(.*?)#\s+7:(\d+)$", source, re.MULTILINE)
    assert [int(n) for _, n in tags] == list(range(1, 10))
    loop = ["xi = np.zeros", "G = np.zeros", "for t in ", "g = gradient(theta)"]
    printed = [*loop, "a = xi + g", "c = ", "xi = a - c", "G = G + c", "theta = theta - eta"]
    assert all(code.strip().startswith(start) for (code, _), start in zip(tags, printed, strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_precision_given_and_inputs_stay(dtype):
    rng = np.random.default_rng(0)
    vectors = [np.abs(rng.standard_normal(8)).astype(dtype)[::2] for _ in range(4)]
    before = [v.copy() for v in vectors]
    for v in vectors:
        v.flags.writeable = False
    after = adagrad_step(*vectors, 2, 0.1)
    assert {v.dtype for v in after} == {np.dtype(dtype)}
    assert all(np.array_equal(a, b) for a, b in zip(before, vectors, strict=True))
    assert not any(np.shares_memory(a, b) for a in after for b in vectors)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"theta": [[1.0, 2.0]]}, ValueError, "theta has shape"),
        ({"theta": [1.0, np.nan]}, ValueError, "theta holds NaN"),
        ({"xi": [1.0]}, ValueError, "xi has shape"),
        ({"g": [1.0, np.inf]}, ValueError, "g holds NaN"),
        ({"g": ["a", "b"]}, TypeError, "g has dtype"),
        ({"G": [1.0, -2.0]}, ValueError, "G holds -2"),
        ({"k": 3}, ValueError, "k = 3"),
        ({"k": True}, TypeError, "k = True"),
        ({"eta": -1.0}, ValueError, "eta = -1.0"),
        ({"eps": -1.0}, ValueError, "eps = -1.0"),
        ({"eps": None}, TypeError, "eps = None"),
    ],
)
def test_bad_input_of_the_step(change, error, message):
    good = {"theta": [1.0, 2.0], "xi": [0.0, 0.0], "G": [0.0, 0.0], "g": [1.0, 1.0], "k": 1, "eta": 0.1}
    with pytest.raises(error, match=message):
        adagrad_step(**good | change)


def test_bad_input_of_the_loop():
    for theta, gradient, T, message in [
        ([[1.0]], lambda x: x, 1, "theta has shape"),
        ([1.0], lambda x: [1.0, 2.0], 1, "g has shape"),
        ([1.0], lambda x: x, -1, "T = -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            adagrad_ef(theta, gradient, k=1, eta=0.1, T=T)
