"""The slides: EF-SignSGD line by line, the other methods, the compressors."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efcp_ref.paper import compressors, sign
from efcp_ref.paper.theory import kinked, kinked_subgradient, measured_delta, qsgd_factor

dyadic = st.integers(-(2**12), 2**12).map(lambda n: n / 16)
powers = st.sampled_from([1, 2, 4, 8, 16])


def vectors(count, size):
    return st.tuples(*[st.lists(dyadic, min_size=size, max_size=size).map(np.array) for _ in range(count)])


def exact_step(x, e, g, gamma):
    """Lines 4-7 in rational arithmetic."""
    x, e, g = ([Fraction(v) for v in vector] for vector in (x, e, g))
    p = [Fraction(gamma) * gi + ei for gi, ei in zip(g, e, strict=True)]
    scale = sum(map(abs, p)) / len(p)
    delta = [scale * ((pi > 0) - (pi < 0)) for pi in p]
    return [a - b for a, b in zip(x, delta, strict=True)], [a - b for a, b in zip(p, delta, strict=True)]


@given(powers.flatmap(lambda d: vectors(3, d)), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=60, deadline=None)
def test_one_step_is_exact_on_dyadic_input(vectors, gamma):
    x, e, g = vectors
    got = sign.sign_step(x, e, g, gamma)
    want_x, want_e = exact_step(x, e, g, gamma)
    assert [Fraction(v) for v in got.x] == want_x
    assert [Fraction(v) for v in got.e] == want_e


@given(st.integers(1, 9).flatmap(lambda d: vectors(3, d)), st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_what_leaves_the_iterate_and_what_stays_in_the_error_add_up_to_p(vectors, gamma):
    x, e, g = vectors
    p = gamma * g + e
    got = sign.sign_step(x, e, g, gamma)
    scale = np.abs(x) + np.abs(p) + np.abs(p).sum() / len(p)
    assert (np.abs((got.x - got.e) - (x - p)) <= 4 * 2.0**-53 * scale).all()


@given(st.integers(1, 9).flatmap(lambda d: vectors(1, d)))
@settings(max_examples=100, deadline=None)
def test_the_error_of_the_scaled_sign_is_the_closed_form(vectors):
    """|p - C(p)|^2 = |p|^2 - (2 - nnz/d) |p|_1^2 / d, at most |p|^2 - |p|_1^2 / d, equal iff p has no zero."""
    (p,) = vectors
    p = [Fraction(v) for v in p]
    d, one, two = len(p), sum(map(abs, p)), sum(v * v for v in p)
    _, error = exact_step([0] * d, p, [0] * d, 1)
    nonzero = sum(v != 0 for v in p)
    measured = sum(v * v for v in error)
    assert measured == two - (2 - Fraction(nonzero, d)) * one * one / d
    assert measured <= two - one * one / d
    assert (measured == two - one * one / d) == (nonzero == d or one == 0)


def test_a_step_keeps_the_precisions_it_was_given():
    x, e, g = np.zeros(3, np.float32), np.zeros(3), np.ones(3, np.float32)
    got = sign.sign_step(x, e, g, 0.1)
    assert (got.x.dtype, got.e.dtype) == (np.float32, np.float64)
    wide = sign.sign_step(x.astype(float), e, g.astype(float), 0.1)
    assert np.array_equal(got.x, wide.x.astype(np.float32))


def test_read_only_strided_and_integer_arrays_are_valid_and_unchanged():
    base = np.arange(12.0)
    base.flags.writeable = False
    x, e, g = base[::3], base[1::3], base[2::3]
    copies = [v.copy() for v in (x, e, g)]
    got = sign.sign_step(x, e, g, 0.5)
    want = sign.sign_step(*copies, 0.5)
    assert np.array_equal(got.x, want.x)
    assert np.array_equal(got.e, want.e)
    assert all(np.array_equal(a, b) for a, b in zip((x, e, g), copies, strict=True))
    assert sign.sign_step([0, 0], [0, 0], [2, -2], 1).x.tolist() == [-2, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[0.0]], [0.0], [0.0], 1.0), ValueError, "x has shape"),
        (([0.0], [0.0, 1.0], [0.0], 1.0), ValueError, "e has shape"),
        (([0.0], [0.0], [np.nan], 1.0), ValueError, "g holds NaN"),
        (([0.0], [0.0], [1.0], -1.0), ValueError, "gamma = -1.0, must be at least 0"),
        (([0.0], [0.0], [1.0], "fast"), TypeError, "gamma = 'fast'"),
        (([], [], [], 1.0), ValueError, "no axis may be empty"),
        ((["a"], [0.0], [0.0], 1.0), TypeError, "x has dtype"),
        (([0.0, 1.0], [0.0, 1.0], [0.0, 1.0], 1.0, (1, 2)), ValueError, "per_tensor = .* must sum to d = 2"),
        (([0.0, 1.0], [0.0, 1.0], [0.0, 1.0], 1.0, (0, 2)), ValueError, "per_tensor = 0, must be at least 1"),
    ],
)
def test_bad_input_of_a_step_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        sign.sign_step(*arguments)


def test_the_run_is_the_step_repeated_from_no_error():
    gradients = np.random.default_rng(1).standard_normal((5, 4))
    run = sign.ef_signsgd_run(lambda x, t: gradients[t], np.ones(4), 0.1, 5)
    x, e = np.ones(4), np.zeros(4)
    for t, g in enumerate(gradients):
        assert np.array_equal(run.x[t], x)
        assert np.array_equal(run.e[t], e)
        x, e = sign.sign_step(x, e, g, 0.1)
    assert np.array_equal(run.x[5], x)
    assert np.array_equal(run.g, gradients)
    total = 1 - 0.1 * gradients.sum(axis=0)  # x_T - e_T = x_0 - gamma * sum of g
    assert np.allclose(run.x[5] - run.e[5], total, rtol=0, atol=1e-14)


def test_the_run_refuses_no_steps_and_wrong_gradients():
    with pytest.raises(ValueError, match="T = 0"):
        sign.ef_signsgd_run(lambda x, t: x, [1.0], 0.1, 0)
    with pytest.raises(ValueError, match="g has shape"):
        sign.ef_signsgd_run(lambda x, t: x[:1], [1.0, 2.0], 0.1, 1)


def test_R10_feedback_of_g_and_of_gamma_g_are_two_algorithms():
    """The rate drops from 1 to .1: g = (2, 1), then 0. The error 1 is paid with the new rate, or in full."""
    ends = {}
    for feedback in ("g", "gamma g"):
        state, x = sign.start(2), np.zeros(2)
        for g, gamma in (([2.0, 1.0], 1.0), ([0.0, 0.0], 0.1)):
            delta, state = sign.ef_step(state, g, gamma, lambda p: compressors.keep_largest(p, 1), feedback)
            x = x - delta
        ends[feedback] = x.tolist()
    assert ends == {"g": [-2.0, -0.1], "gamma g": [-2.0, -1.0]}


def test_R10_they_agree_while_the_rate_is_constant():
    gradients = np.random.default_rng(2).integers(-8, 9, (6, 4)).astype(float)
    ends = []
    for feedback in ("g", "gamma g"):
        def step(state, g, feedback=feedback):
            return sign.ef_step(state, g, 0.25, lambda p: compressors.keep_largest(p, 2), feedback)

        ends.append(sign.run(step, lambda x, t: gradients[t], np.zeros(4), 6))
    assert np.array_equal(ends[0].x, ends[1].x)
    assert np.array_equal(0.25 * ends[0].e, ends[1].e)


def sign_sgd(gradient, x0, gamma, T):
    return sign.run(lambda state, g: sign.sign_sgd_step(state, g, gamma), lambda x, t: gradient(x), x0, T).x


def test_R33_sign_sgd_keeps_x1_plus_x2_and_never_reaches_the_optimum():
    """At (1, 1.5) the sign is (-1, 1). The slides print +-(-1, -1), which would change x1 + x2 at every step."""
    assert np.sign(kinked_subgradient([1.0, 1.5])).tolist() == [-1, 1]
    assert kinked_subgradient([1.0, 1.0]).tolist() == [1.5, -0.5]  # on the kink: sign(x1 - x2) = +1
    path = sign_sgd(kinked_subgradient, [1.0, 1.0], 2.0**-6, 500)
    assert (path.sum(axis=1) == 2).all()
    assert min(kinked(x) for x in path) >= 0.5 * 2
    printed = np.array([1.0, 1.5]) - 2.0**-6 * np.array([-1.0, -1.0])
    assert printed.sum() != 2.5


def test_R33_on_the_kink_sign_of_zero_as_zero_walks_to_the_optimum():
    def zero_on_the_kink(x, eps=0.5):
        return eps * np.sign(x[0] + x[1]) * np.ones(2) + np.sign(x[0] - x[1]) * np.array([1.0, -1.0])

    assert sign_sgd(zero_on_the_kink, [1.0, 1.0], 0.25, 4)[-1].tolist() == [0.0, 0.0]


def test_R33_error_feedback_reaches_the_optimum_of_the_same_problem():
    run = sign.ef_signsgd_run(lambda x, t: kinked_subgradient(x), [1.0, 1.0], 2.0**-8, 1000)
    assert kinked(run.x[-1]) < 0.1
    assert kinked(run.x[0]) == 1.0


def test_R34_whole_vector_or_per_tensor_and_sign_of_zero():
    assert compressors.scaled_sign([4.0, 1.0, 1.0]).tolist() == [2, 2, 2]
    assert compressors.scaled_sign([4.0, 1.0, 1.0], per_tensor=(1, 2)).tolist() == [4, 1, 1]
    assert compressors.scaled_sign([0.0, 2.0]).tolist() == [0, 1]

    def plus_at_zero(p):
        return np.abs(p).sum() / len(p) * np.where(p >= 0, 1.0, -1.0)

    assert plus_at_zero(np.array([0.0, 2.0])).tolist() == [1, 1]
    step = sign.sign_step(np.zeros(3), np.zeros(3), [4.0, 1.0, 1.0], 1.0, per_tensor=(1, 2))
    assert step.x.tolist() == [-4, -1, -1]
    run = sign.ef_signsgd_run(lambda x, t: np.array([4.0, 1.0, 1.0]), np.zeros(3), 1.0, 1, per_tensor=(1, 2))
    assert run.x[-1].tolist() == [-4, -1, -1]


def test_R40_ef_sgd_with_the_scaled_sign_is_algorithm_1():
    gradients = np.random.default_rng(3).standard_normal((7, 5))
    one = sign.ef_signsgd_run(lambda x, t: gradients[t], np.ones(5), 0.3, 7)
    two = sign.run(
        lambda s, g: sign.ef_step(s, g, 0.3, compressors.scaled_sign), lambda x, t: gradients[t], np.ones(5), 7
    )
    for name in ("x", "e", "g"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_steps_count_and_do_not_change_the_state_that_they_get():
    state = sign.start(2)
    for step in (
        lambda s, g: sign.sgd_step(s, g, 0.5),
        lambda s, g: sign.sgdm_step(s, g, 0.5),
        lambda s, g: sign.sign_sgd_step(s, g, 0.5),
        lambda s, g: sign.signum_step(s, g, 0.5),
        lambda s, g: sign.ef_step(s, g, 0.5, compressors.scaled_sign),
        lambda s, g: sign.compressed_step(s, g, 0.5, compressors.scaled_sign),
    ):
        delta, after = step(state, [1.0, -3.0])
        assert after.t == 1
        assert delta.shape == (2,)
        assert (state.t, state.m.tolist(), state.e.tolist()) == (0, [0, 0], [0, 0])


@given(st.lists(dyadic, min_size=4, max_size=4), st.sampled_from([0.0, 0.5]))
def test_momentum_is_the_geometric_sum_of_the_gradients(gradients, mu):
    state = sign.start(1)
    mean = sign.start(1)
    for g in gradients:
        delta, state = sign.sgdm_step(state, [g], 1.0, mu)
        signed, mean = sign.signum_step(mean, [g], 1.0, mu)
    total = sum(mu ** (len(gradients) - 1 - t) * g for t, g in enumerate(gradients))
    assert delta[0] == total
    assert signed[0] == np.sign(total)


def test_bad_settings_of_the_methods_name_the_argument():
    state = sign.start(1)
    with pytest.raises(ValueError, match=r"mu = 1\.0, must be at least 0 and less than 1"):
        sign.sgdm_step(state, [1.0], 0.1, mu=1.0)
    with pytest.raises(ValueError, match="beta = -0.5"):
        sign.signum_step(state, [1.0], 0.1, beta=-0.5)
    with pytest.raises(ValueError, match="feedback = 'both', must be one of"):
        sign.ef_step(state, [1.0], 0.1, compressors.scaled_sign, feedback="both")
    with pytest.raises(ValueError, match=r"compress\(p\) has shape"):
        sign.ef_step(state, [1.0], 0.1, lambda p: np.ones(2))
    with pytest.raises(ValueError, match="g has shape"):
        sign.sgd_step(state, [1.0, 2.0], 0.1)


def test_compression_without_feedback_loses_what_it_drops():
    def top_1(p):
        return compressors.keep_largest(p, 1)

    gradients = [np.array([2.0, 1.0])] * 4
    without = sign.run(lambda s, g: sign.compressed_step(s, g, 1.0, top_1), lambda x, t: gradients[t], [0.0, 0.0], 4)
    with_it = sign.run(lambda s, g: sign.ef_step(s, g, 1.0, top_1), lambda x, t: gradients[t], [0.0, 0.0], 4)
    assert without.x[-1].tolist() == [-8, 0]
    assert (with_it.x[-1] - with_it.e[-1]).tolist() == [-8, -4]
    assert not without.e.any()


def test_majority_vote_is_the_sign_that_most_workers_see():
    gradients = np.random.default_rng(4).standard_normal((5, 30)).astype(np.float32)
    vote = sign.majority_vote(gradients)
    assert vote.dtype == np.float32
    for j in range(30):
        positive = int((gradients[:, j] > 0).sum())
        assert vote[j] == (1 if positive >= 3 else -1)
    assert sign.majority_vote([[1.0], [-1.0]])[0] == 0


class Grid(np.random.Generator):
    """A generator whose "uniform" numbers are one point of the grid (j + 1/2) / n, for exact expectations."""

    def __init__(self, point):
        super().__init__(np.random.PCG64(0))
        self.point = point

    def random(self, size):
        return np.full(size, self.point)


def test_qsgd_is_unbiased_and_its_second_moment_is_bounded():
    """|p| = 5, s = 4: levels 2.4, 3.2 and 0 have fractions .4, .2 and 0, which five grid points meet exactly."""
    p = np.array([3.0, -4.0, 0.0])
    draws = np.array([compressors.qsgd(p, 4, Grid((j + 0.5) / 5)) for j in range(5)])
    assert np.allclose(draws.mean(axis=0), p, rtol=0, atol=1e-15)
    assert set(np.abs(draws[:, 0])) == {2.5, 3.75}
    assert (draws**2).sum(axis=1).mean() <= qsgd_factor(3, 4) * 25
    k = qsgd_factor(3, 4)
    shrunk = np.array([compressors.shrunk(u, k) for u in draws])
    assert measured_delta(np.tile(p, (5, 1)), shrunk) >= 1 / k


def test_qsgd_of_zero_is_zero_and_keeps_the_precision():
    rng = np.random.default_rng(0)
    assert not compressors.qsgd(np.zeros(3), 2, rng).any()
    assert compressors.qsgd(np.ones(3, np.float32), 2, rng).dtype == np.float32


def test_random_k_keeps_k_coordinates_and_is_unbiased_where_asked():
    rng = np.random.default_rng(5)
    p = np.array([1.0, -2.0, 3.0, 5.0])
    draws = np.array([compressors.keep_random(p, 2, rng) for _ in range(3000)])
    assert ((draws != 0).sum(axis=1) == 2).all()
    assert ((draws == 0) | (draws == p)).all()
    spread = 4 * np.sqrt(0.25 / 3000)  # four standard deviations of a mean of 0/1 draws
    assert (np.abs((draws != 0).mean(axis=0) - 0.5) <= spread).all()
    assert abs(measured_delta(np.tile(p, (3000, 1)), draws) - 0.5) < spread
    once, same = (compressors.keep_random(p, 2, np.random.default_rng(6), unbiased=u) for u in (True, False))
    assert np.array_equal(once, 2 * same)


def test_compressors_refuse_what_is_out_of_range():
    rng = np.random.default_rng(0)
    with pytest.raises(TypeError, match=r"rng = 0, must be a numpy\.random\.Generator"):
        compressors.qsgd([1.0], 1, 0)
    with pytest.raises(ValueError, match="levels = 0"):
        compressors.qsgd([1.0], 0, rng)
    with pytest.raises(ValueError, match=r"k = 3, must be in 1\.\.2"):
        compressors.keep_random([1.0, 2.0], 3, rng)
    with pytest.raises(ValueError, match=r"k = 0\.5, must be at least 1"):
        compressors.shrunk([1.0], 0.5)
    assert compressors.keep_largest([1.0, 2.0], 0).tolist() == [0, 0]
