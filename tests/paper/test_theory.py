"""The theory: every bound against the measured side, every printed formula against the derived one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efcp_ref.paper import compressors, sign, theory
from efcp_ref.paper.algorithm_7 import adagrad_ef
from efcp_ref.paper.theory import curvature, scaled_ggt
from efcp_ref.paper.top_k import scaled_top_k

seeds = st.integers(0, 10**6)
ROUNDING = 1e-9


def positive_definite(rng, d):
    A = rng.standard_normal((d, d))
    A = A @ A.T + 0.1 * np.eye(d)
    return (A + A.T) / 2


# Appendix A


def test_R30_a_constant_error_over_clipped_gradients_is_hyperbolic_not_exponential():
    """|xi| = 5 and |g| = 1: 5, .5, .05 at t = 1, 10, 100. Exponential would have equal ratios at equal distances."""
    T = 100
    g = np.random.default_rng(0).standard_normal((T, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    metric = theory.feedback_metric(np.tile([3.0, 4.0, 0.0], (T, 1)), g)
    assert np.allclose(metric[[0, 9, 99]], [5, 0.5, 0.05], rtol=1e-12)
    assert np.allclose(metric, 5 / np.arange(1, T + 1), rtol=1e-12)
    factors = metric[[20, 30, 40]] / metric[[10, 20, 30]]  # an exponential has one factor for every ten steps
    assert factors[0] < 0.55 < 0.65 < factors[1] < factors[2]


def test_the_metric_needs_a_first_gradient():
    with pytest.raises(ValueError, match="first row of zeros"):
        theory.feedback_metric(np.ones((2, 1)), np.array([[0.0], [1.0]]))


# Assumption A


@given(seeds, st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_every_compressor_keeps_assumption_a(seed, d):
    rng = np.random.default_rng(seed)
    p = np.round(rng.standard_normal(d), 1)
    k = int(rng.integers(1, d + 1))
    assert theory.measured_delta(p, compressors.keep_largest(p, k)) >= theory.delta_top_k(d, k) - 1e-12
    measured = theory.measured_delta(p, compressors.scaled_sign(p))
    assert measured >= theory.delta_scaled_sign(p) - 1e-12
    error = theory.scaled_sign_error(p)
    assert np.isclose(error, np.sum((p - compressors.scaled_sign(p)) ** 2), rtol=1e-12, atol=1e-12)
    if p.all():
        assert np.isclose(measured, theory.delta_scaled_sign(p), rtol=1e-12, atol=1e-12)


def test_a_zero_vector_is_compressed_without_error():
    assert theory.delta_scaled_sign(np.zeros(3)) == 1
    assert theory.measured_delta(np.zeros(3), np.zeros(3)) == 1


# Lemma 3, Theorem II


COMPRESSORS = (
    lambda p, rng: compressors.scaled_sign(p),
    lambda p, rng: compressors.keep_largest(p, 2),
    lambda p, rng: compressors.keep_random(p, 3, rng),
    lambda p, rng: p,
)


def quadratic(rng, d):
    """Return f's curvature A, its least eigenvalue 0.1 or more, and L, the largest."""
    A = positive_definite(rng, d)
    return A, float(np.linalg.eigvalsh(A)[-1])


@given(seeds, st.sampled_from([0, 1, 3]), st.floats(0.02, 0.5))
@settings(max_examples=40, deadline=None)
def test_lemma_3_and_theorem_ii_hold_on_every_run_with_exact_gradients(seed, which, rate):
    """Nothing is random here, so the expectations are the run itself: sigma^2 and delta are those of the run."""
    rng = np.random.default_rng(seed)
    A, L = quadratic(rng, 5)
    gamma, T = rate / L, 40
    run = sign.run(
        lambda s, g: sign.ef_step(s, g, gamma, lambda p: COMPRESSORS[which](p, rng)),
        lambda x, t: A @ x, rng.standard_normal(5), T,
    )  # fmt: skip
    p = gamma * run.g + run.e[:-1]
    delta = min(theory.measured_delta(a, a - after) for a, after in zip(p, run.e[1:], strict=True))
    delta = min(max(delta, 1e-9), 1.0)
    sigma2 = max(np.sum(run.g**2, axis=1).max(), np.sum((A @ run.x[-1]) ** 2))
    lemma = theory.lemma_3_bound(gamma, sigma2, delta)
    assert (theory.error_norms(run) <= lemma * (1 + ROUNDING) + 1e-24).all()
    f0 = run.x[0] @ A @ run.x[0] / 2
    measured = theory.smallest_gradient(run, lambda x: A @ x)
    for variant in ("derived", "printed"):
        assert measured <= theory.theorem_2_bound(f0, gamma, L, sigma2, delta, T, variant)


@pytest.mark.parametrize(("compress", "delta"), [(COMPRESSORS[1], 2 / 6), (COMPRESSORS[2], 3 / 6), (COMPRESSORS[3], 1)])
def test_lemma_3_and_theorem_ii_hold_for_the_mean_of_stochastic_runs(compress, delta):
    """One example at a time, 60 runs: the mean estimates the expectation; the bounds leave factors of room."""
    d, T, n, runs = 6, 40, 8, 60
    data = np.random.default_rng(7)
    B, b = data.standard_normal((n, d)), data.standard_normal(n)
    A, L = B.T @ B / n, float(np.linalg.eigvalsh(B.T @ B / n)[-1])
    best = np.linalg.lstsq(B, b, rcond=None)[0]
    gamma = 0.1 / L

    def one(seed):
        rng = np.random.default_rng(seed)

        def gradient(x, t):
            i = rng.integers(n)
            return B[i] * (B[i] @ x - b[i])

        return sign.run(
            lambda s, g: sign.ef_step(s, g, gamma, lambda p: compress(p, rng)), gradient, best + np.ones(d), T
        )

    results = [one(seed) for seed in range(runs)]
    sigma2 = np.mean([np.sum(r.g**2, axis=1) for r in results], axis=0).max()
    error = np.mean([theory.error_norms(r) for r in results], axis=0)
    assert (error <= theory.lemma_3_bound(gamma, sigma2, delta) + 1e-24).all()
    gradients = np.mean([np.sum(((r.x - best) @ A) ** 2, axis=1) for r in results], axis=0)
    f0 = np.ones(d) @ A @ np.ones(d) / 2
    for variant in ("derived", "printed"):
        assert gradients.min() <= theory.theorem_2_bound(f0, gamma, L, sigma2, delta, T, variant)


def test_R40_the_printed_middle_term_is_half_of_the_derived_one():
    without = theory.theorem_2_bound(3.0, 0.5, 2.0, 0.0, 0.5, 4)
    derived, printed = (theory.theorem_2_bound(0.0, 0.5, 2.0, 3.0, 1.0, 4, v) for v in ("derived", "printed"))
    assert without == 2 * 3 / (0.5 * 5)
    assert (derived, printed) == (0.5 * 2 * 3, 0.5 * 2 * 3 / 2)
    last = theory.theorem_2_bound(0.0, 0.5, 2.0, 3.0, 0.5, 4) - derived
    assert last == 4 * 0.5**2 * 2**2 * 3 * 0.5 / 0.5**2


def test_lemma_3_has_no_error_without_compression():
    assert theory.lemma_3_bound(0.3, 5.0, 1.0) == 0
    with pytest.raises(ValueError, match="delta = 0"):
        theory.lemma_3_bound(0.3, 5.0, 0)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_R39_remark_4_is_theorem_ii_at_its_rate(f0, L, sigma2, delta, T):
    """The slides' closed form follows from the slides' Theorem II; the derived one has twice its L sigma^2."""
    root = np.sqrt(T + 1)
    last = 4 * L**2 * sigma2 * (1 - delta) / (delta**2 * (T + 1))
    for variant, factor in (("printed", 1), ("derived", 2)):
        closed = (4 * f0 + factor * L * sigma2) / (2 * root) + last
        assert np.isclose(theory.remark_4_bound(f0, L, sigma2, delta, T, variant), closed, rtol=1e-12, atol=0)


def test_R39_remark_5_without_feedback_loses_a_factor_2():
    """With k = 1 nothing is compressed, so it must be SGD's bound, which the slides print with 2 f0."""
    assert theory.remark_5_without(3.0, 2.0, 5.0, 1.0, 8) == theory.sgd_bound(3.0, 2.0, 5.0, 8)
    printed = theory.remark_5_without(3.0, 2.0, 5.0, 1.0, 8, "printed")
    assert np.isclose(printed, (3 + 2 * 5) / (2 * 3))
    assert np.isclose(theory.sgd_bound(3.0, 2.0, 5.0, 8), (2 * 3 + 2 * 5) / (2 * 3))


@pytest.mark.parametrize(("k", "derived", "printed"), [(1, 0, 2), (2, 8, 8), (3, 24, 18), (10, 360, 200)])
def test_R39_remark_5_with_feedback_is_4k_times_k_minus_1(k, derived, printed):
    """Theorem II's (1 - delta) / delta^2 at delta = 1/k is k (k - 1), so the printed 2 k^2 is too small from k = 3."""
    T, L, sigma2 = 24, 2.0, 3.0
    for variant, factor in (("derived", derived), ("printed", printed)):
        rest = theory.remark_4_bound(1.0, L, sigma2, 1, T, variant)
        last = theory.remark_5_with(1.0, L, sigma2, k, T, variant) - rest
        assert np.isclose(last, factor * L**2 * sigma2 / (T + 1), rtol=1e-12, atol=1e-12)
    assert np.isclose(theory.remark_5_with(1.0, L, sigma2, k, T), theory.remark_4_bound(1.0, L, sigma2, 1 / k, T))
    assert theory.delta_unbiased(k) == 1 / k


def test_remark_5_feedback_measured_beside_its_bound():
    """QSGD on a quadratic: both runs stay under their derived bounds at gamma = 1/sqrt(T + 1)."""
    rng, d, T = np.random.default_rng(8), 8, 99
    A, L = quadratic(rng, d)
    A, L = A / L, 1.0
    x0 = rng.standard_normal(d)
    f0, k, gamma = x0 @ A @ x0 / 2, theory.qsgd_factor(d, 2), 1 / np.sqrt(T + 1)

    def unbiased(p):
        return compressors.qsgd(p, 2, rng)

    with_it = sign.run(
        lambda s, g: sign.ef_step(s, g, gamma, lambda p: compressors.shrunk(unbiased(p), k)), lambda x, t: A @ x, x0, T
    )
    without = sign.run(lambda s, g: sign.compressed_step(s, g, gamma, unbiased), lambda x, t: A @ x, x0, T)
    sigma2 = max(np.sum(run.g**2, axis=1).max() for run in (with_it, without))
    assert theory.smallest_gradient(with_it, lambda x: A @ x) <= theory.remark_5_with(f0, L, sigma2, k, T)
    assert theory.smallest_gradient(without, lambda x: A @ x) <= theory.remark_5_without(f0, L, sigma2, k, T)


# Where SignSGD fails


def test_over_parameterised_least_squares_error_feedback_stays_near_the_span():
    """x_t - e_t is minus gamma times the sum of the gradients: the distance is at most |e_t|. SGD is at 0."""
    rng, n, d = np.random.default_rng(9), 5, 20
    A, b = rng.standard_normal((n, d)), rng.standard_normal(n)

    def gradient(x, t):
        return theory.least_squares(A, b, x)[1]

    ef = sign.ef_signsgd_run(gradient, np.zeros(d), 0.005, 300)
    sgd = sign.run(lambda s, g: sign.sgd_step(s, g, 0.005), gradient, np.zeros(d), 300)
    signed = sign.run(lambda s, g: sign.sign_sgd_step(s, g, 0.005), gradient, np.zeros(d), 300)
    for t in (1, 10, 100, 300):
        assert theory.distance_to_span(ef.x[t], ef.g[:t]) <= np.linalg.norm(ef.e[t]) * (1 + ROUNDING) + 1e-12
        assert theory.distance_to_span(sgd.x[t], sgd.g[:t]) < 1e-10
    at_end = theory.distance_to_span(ef.x[-1], ef.g)
    assert at_end < 0.1 * theory.distance_to_span(signed.x[-1], signed.g)
    assert theory.least_squares(A, b, ef.x[-1])[0] < 1e-3 * theory.least_squares(A, b, np.zeros(d))[0]


def test_the_distance_to_the_span_of_nothing_is_the_norm():
    assert theory.distance_to_span([3.0, 4.0], [[0.0, 0.0]]) == 5


def test_the_subgradient_of_the_kinked_function_supports_it():
    rng = np.random.default_rng(10)
    points = [*rng.standard_normal((40, 2)), np.array([1.0, 1.0]), np.array([1.0, -1.0]), np.zeros(2)]
    for x in points:
        for y in points:
            slope = theory.kinked_subgradient(x, 0.3) @ (y - x)
            assert theory.kinked(y, 0.3) >= theory.kinked(x, 0.3) + slope - 1e-12


# Appendix B


def logistic(rng, n, d):
    """Return a gradient that accepts complex numbers and its Hessian, both written out."""
    X, y = rng.standard_normal((n, d)), rng.choice([-1.0, 1.0], n)

    def gradient(theta):
        return -(X.T @ (y / (1 + np.exp(y * (X @ theta))))) / n

    def hessian(theta):
        s = 1 / (1 + np.exp(-(X @ theta)))
        return X.T @ ((s * (1 - s))[:, None] * X) / n

    return gradient, hessian


def test_the_complex_step_is_the_hessian_times_a_vector():
    rng = np.random.default_rng(11)
    gradient, hessian = logistic(rng, 30, 6)
    theta, v = rng.standard_normal(6), rng.standard_normal(6)
    want = hessian(theta) @ v
    assert np.abs(theory.hessian_vector(gradient, theta, v) - want).max() <= 1e-14 * np.abs(want).max()
    assert theory.accepts_complex(gradient, theta, rng)
    for method in ("power", "lanczos"):
        got = theory.largest_eigenvalue(gradient, theta, rng, method)
        assert np.isclose(got, np.linalg.eigvalsh(hessian(theta))[-1], rtol=1e-8)


@pytest.mark.parametrize("spectrum", [[3, -5, 1], [3, -3, 1], [-1, -2, -3], [2, 2, 2], [0, 0, 0], [4, 1, 0]])
@pytest.mark.parametrize("method", ["power", "lanczos"])
def test_the_largest_eigenvalue_of_any_sign(spectrum, method):
    rng = np.random.default_rng(12)
    V = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    H = (V * np.array(spectrum, float)) @ V.T
    got = theory.largest_eigenvalue(lambda x: H @ x, np.ones(3), rng, method)
    assert np.isclose(got, max(spectrum), rtol=1e-7, atol=1e-7)


def test_one_parameter_and_few_steps():
    rng = np.random.default_rng(13)
    assert theory.largest_eigenvalue(lambda x: 7 * x, [1.0], rng, "lanczos") == pytest.approx(7)
    H = np.diag([1.0, 0.99])
    rough = theory.largest_eigenvalue(lambda x: H @ x, [1.0, 1.0], rng, steps=2)
    assert 0.99 <= rough <= 1
    with pytest.raises(ValueError, match="method = 'qr'"):
        theory.largest_eigenvalue(lambda x: x, [1.0, 1.0], rng, "qr")


def test_gradients_that_lose_the_imaginary_part_are_found():
    rng = np.random.default_rng(14)
    theta = rng.standard_normal(4)
    assert theory.accepts_complex(lambda x: np.where(x.real > 0, x, 0) ** 2 * 3, theta, rng)
    assert theory.accepts_complex(lambda x: np.ones(4), theta, rng)  # a Hessian of zero
    assert not theory.accepts_complex(lambda x: x.real**3, theta, rng)
    assert not theory.accepts_complex(lambda x: np.conj(x) ** 3, theta, rng)
    assert not theory.accepts_complex(lambda x: np.abs(x) * x, theta, rng)
    assert not theory.accepts_complex(np.cbrt, theta, rng)


# Appendix D


@given(seeds, st.floats(-3, 6))
@settings(max_examples=60, deadline=None)
def test_large_damping_is_sgd_at_rate_eta_over_lam(seed, exponent):
    rng = np.random.default_rng(seed)
    m, d = (int(n) for n in rng.integers(1, 6, 2))
    G, x, lam = rng.standard_normal((m, d)), rng.standard_normal(d), 10.0**exponent
    gap, bound = theory.sgd_limit_gap(G, lam, x), theory.sgd_limit_bound(G, lam, x)
    assert gap <= bound * (1 + ROUNDING) + 1e-12 * np.linalg.norm(x) / lam
    top = np.linalg.norm(G, 2) ** 2 / m
    assert bound * lam <= np.linalg.norm(x) * top / lam  # relative to |x|/lam it vanishes like 1/lam


@given(seeds, st.floats(-6, 1))
@settings(max_examples=60, deadline=None)
def test_small_damping_is_newton_on_the_span(seed, exponent):
    rng = np.random.default_rng(seed)
    m, d = (int(n) for n in rng.integers(1, 5, 2))
    V = np.linalg.qr(rng.standard_normal((d, d)))[0]
    U = np.linalg.qr(rng.standard_normal((m, m)))[0]
    r = min(m, d)
    G = (U[:, :r] * rng.uniform(0.5, 2, r)) @ V[:, :r].T
    x, lam = rng.standard_normal(d), 10.0**exponent
    gap, bound = theory.newton_limit_gap(G, lam, x), theory.newton_limit_bound(G, lam, x)
    assert gap <= bound * (1 + ROUNDING) + 1e-13 * np.linalg.norm(x) / lam
    newton = np.linalg.pinv(G.T @ G / m) @ x
    u = np.linalg.solve(lam * np.eye(d) + G.T @ G / m, x)
    P = V[:, :r] @ V[:, :r].T
    assert np.linalg.norm(P @ u - newton) == pytest.approx(gap, abs=1e-8 * np.linalg.norm(x) / lam)


def test_the_bounds_are_reached_by_one_gradient_along_x():
    assert theory.sgd_limit_gap([[2.0, 0.0]], 3.0, [5.0, 0.0]) == pytest.approx(
        theory.sgd_limit_bound([[2.0, 0.0]], 3.0, [5.0, 0.0]), rel=1e-12
    )
    with pytest.raises(ValueError, match="G is zero"):
        theory.newton_limit_bound(np.zeros((2, 2)), 1.0, [1.0, 1.0])
    with pytest.raises(ValueError, match="lam = 0"):
        curvature.sgd_limit_gap([[1.0]], 0.0, [1.0])


# Appendix K


@given(seeds, st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_lemma_k1_holds(seed, d):
    rng = np.random.default_rng(seed)
    H, v = positive_definite(rng, d), rng.standard_normal(d)
    for k in range(d + 1):
        left, right = theory.lemma_k1(v, H, k)
        assert left >= right * (1 - ROUNDING)
    assert np.isclose(left, v @ np.linalg.solve(H, v), rtol=1e-8)  # k = d keeps everything


def test_lemma_k1_is_reached_by_equal_entries():
    left, right = theory.lemma_k1(np.ones(4), np.eye(4), 3)
    assert left == right == 3


@given(seeds, st.integers(1, 6))
@settings(max_examples=80, deadline=None)
def test_lemma_k2_holds(seed, d):
    rng = np.random.default_rng(seed)
    A, u, v = positive_definite(rng, d), rng.standard_normal(d), rng.standard_normal(d)
    left, right = theory.lemma_k2(A, u, v)
    assert left >= right - ROUNDING
    for same in (theory.lemma_k2(A, u, u), theory.lemma_k2(A, u, 0 * u)):
        assert same.left >= same.right - ROUNDING
    assert np.isclose(theory.lemma_k2(A, u, 0 * u).left, np.linalg.slogdet(A)[1] + np.log1p(u @ np.linalg.solve(A, u)))


def test_R35_the_runnable_loop_takes_the_operator_of_the_step_before():
    """d stands for the lemma's n; T_{H_t} needs H_t, which is defined by T_{H_t}: a fixed point, not this loop's."""
    rng = np.random.default_rng(15)
    A, k, eta = positive_definite(rng, 4), 2, 0.3
    run = theory.scaled_ggt_run(lambda x, t: A @ x, rng.standard_normal(4), k, eta, 2.0, 12)
    assert np.array_equal(run.H[0], 2 * np.eye(4))
    distance = []
    for t in range(12):
        a = run.m[t] + run.g[t]
        assert np.array_equal(run.kept[t], scaled_top_k(a, run.H[t], k))
        assert np.array_equal(run.m[t + 1], a - run.kept[t])
        assert np.allclose(run.H[t + 1], run.H[t] + 2 * eta * np.outer(run.kept[t], run.kept[t]), rtol=1e-14)
        assert np.allclose(run.x[t + 1], run.x[t] - np.linalg.solve(run.H[t + 1], run.kept[t]), rtol=0, atol=1e-14)
        fixed = scaled_top_k(a, run.H[t + 1], k)
        distance.append(np.linalg.norm(fixed - run.kept[t]))
    assert max(distance) > 1e-3  # the printed H_t is another matrix
    assert np.allclose(run.m[-1] + run.kept.sum(axis=0), run.g.sum(axis=0), rtol=0, atol=1e-12)


def test_with_k_equal_to_d_the_loop_has_no_error_and_both_approximations_are_exact():
    rng = np.random.default_rng(16)
    A = positive_definite(rng, 3)
    run = theory.scaled_ggt_run(lambda x, t: A @ x, rng.standard_normal(3), 3, 0.5, 1.0, 6)
    assert np.abs(run.m).max() < 1e-13
    assert np.allclose(theory.update_gap(run), 0, atol=1e-12)
    G = run.g
    for t in range(6):
        assert np.allclose(run.H[t + 1], np.eye(3) + 2 * 0.5 * G[: t + 1].T @ G[: t + 1], rtol=1e-10)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_the_regret_stays_under_the_bound_on_convex_problems(seed):
    """Measured, not proved: the bound rests on two approximations that these runs do not satisfy exactly."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 6))
    k, eta, delta = int(rng.integers(1, d + 1)), 10 ** rng.uniform(-2, 0), 10 ** rng.uniform(0, 1)
    A, x_star = positive_definite(rng, d) / d, rng.standard_normal(d)
    quadratic_run = theory.scaled_ggt_run(lambda x, t: A @ (x - x_star), np.zeros(d), k, eta, delta, 25)
    costs = rng.standard_normal((25, d))
    linear_run = theory.scaled_ggt_run(lambda x, t: costs[t], np.zeros(d), k, eta, delta, 25)
    assert 0 <= theory.regret(quadratic_run, x_star) <= theory.regret_bound(quadratic_run, x_star)
    assert theory.regret(linear_run, x_star) <= theory.regret_bound(linear_run, x_star)
    for run in (quadratic_run, linear_run):
        eps = theory.alignment(run)
        sides = [
            theory.lemma_k1(a, H, d).left + theory.lemma_k1(b, H, d).left
            for a, b, H in zip(run.kept, run.kept_g, run.H, strict=False)
        ]
        assert max(sides) == pytest.approx(k * eps / (2 * d), rel=1e-9)


def test_regret_and_iterate_bound_are_their_definitions():
    run = theory.scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 4)
    x_star = np.array([0.5, -0.5])
    assert theory.regret(run, x_star) == pytest.approx(sum(run.g[t] @ (run.x[t] - x_star) for t in range(4)))
    radii = [np.linalg.norm(run.x[t] - np.linalg.inv(run.H[t]) @ run.m[t] - x_star) for t in range(5)]
    assert theory.iterate_bound(run, x_star) == pytest.approx(max(radii))
    moved = run.H[2] @ np.linalg.inv(run.H[1]) @ run.m[1] - run.m[1]
    assert theory.stability(run)[1] == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(run.m[1]))


def test_R37_the_second_inequality_is_false_as_printed():
    """H = I, k = d = 3, m = -g = -(1,1,1): 3 <= 1.5."""
    sides = theory.misalignment(np.eye(3), [-1.0, -1.0, -1.0], [1.0, 1.0, 1.0], 3)
    assert (sides.product, sides.young, sides.printed, sides.derived) == (-3, 3, 1.5, 4.5)
    assert not sides.hypothesis


@given(seeds, st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_R37_it_holds_under_the_missing_hypothesis_and_the_derived_one_always(seed, d):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, d + 1))
    sides = theory.misalignment(positive_definite(rng, d), rng.standard_normal(d), rng.standard_normal(d), k)
    assert sides.product <= sides.young + ROUNDING * (1 + sides.young)
    assert sides.young <= sides.derived * (1 + ROUNDING)
    if sides.hypothesis:
        assert sides.young <= sides.printed * (1 + ROUNDING)


def test_R38_d_over_k_stands_inside_the_root():
    """R^2 eta S/2 + (d/k) d/(2 eta) is smallest at eta = sqrt(d d/k / S) / R, where it is R sqrt(S d d/k)."""
    R, S, d, k = 3.0, 7.0, 12, 4
    etas = np.geomspace(1e-3, 1e3, 20001)
    smallest = (R**2 * etas * S / 2 + d / k * d / (2 * etas)).min()
    assert theory.regret_rate(R, S, d, k) == pytest.approx(smallest, rel=1e-6)
    assert theory.regret_rate(R, S, d, k, "printed") == pytest.approx(R * np.sqrt(S) * d * d / k)
    assert theory.regret_rate(R, S, d, k, "printed") == pytest.approx(6 * smallest, rel=1e-6)


def test_R38_the_two_updates_of_h_differ():
    run = theory.scaled_ggt_run(lambda x, t: np.array([2.0, 1.5]) * (1 + t), [0.0, 0.0], 1, 0.5, 1.0, 3)
    printed = [np.outer(a, a) + np.outer(b, b) for a, b in zip(run.kept, run.kept_g, strict=True)]
    ours = [2 * np.outer(a, a) for a in run.kept]
    gaps = [np.linalg.norm(p - o) / np.linalg.norm(o) for p, o in zip(printed, ours, strict=True)]
    assert np.allclose(theory.update_gap(run), gaps)
    assert gaps[0] == 0 < max(gaps)


def test_R38_semidefinite_is_not_enough():
    with pytest.raises(ValueError, match="positive definite"):
        theory.lemma_k1([1.0, 1.0], np.diag([1.0, 0.0]), 1)
    with pytest.raises(ValueError, match="positive definite"):
        theory.lemma_k2(np.diag([1.0, 0.0]), [1.0, 0.0], [0.0, 1.0])


def test_the_step_refuses_what_is_out_of_range():
    state = scaled_ggt.ScaledState(np.zeros(2), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="k = 0"):
        theory.scaled_ggt_step(state, [1.0, 1.0], 0, 1.0)
    with pytest.raises(ValueError, match="eta = 0"):
        theory.scaled_ggt_step(state, [1.0, 1.0], 1, 0)
    with pytest.raises(ValueError, match="delta = -1"):
        theory.scaled_ggt_run(lambda x, t: x, [1.0], 1, 1.0, -1, 1)


def test_the_diagonal_rate_is_its_three_terms():
    assert theory.diagonal_rate(16, 8, 3.0, (1, 0, 0)) == 1 / 4
    assert theory.diagonal_rate(16, 8, 3.0, (0, 1, 0)) == 3 / 4
    assert theory.diagonal_rate(16, 8, 3.0, (0, 0, 1)) == 8 / 16
    rates = [np.sqrt(T) * theory.diagonal_rate(T, 100, 1.0) for T in (10**2, 10**4, 10**8)]
    assert rates[0] > rates[1] > rates[2] >= 2  # the term in d fades: SGD's rate remains


def test_the_diagonal_case_measured_falls_at_least_as_fast_as_its_rate():
    """The paper gives no constants: one constant, taken at T = 50, must do for 4 and 16 times as many steps."""
    d, k, sigma2 = 20, 2, 0.04

    def smallest(T, seed):
        rng = np.random.default_rng(seed)
        seen = []

        def gradient(x):
            seen.append(x @ x)  # f = |x|^2 / 2, its gradient is x
            return x + np.sqrt(sigma2 / d) * rng.standard_normal(d)

        adagrad_ef(np.ones(d), gradient, k, 0.5, T)
        return min(seen)

    ratios = [
        np.mean([smallest(T, seed) for seed in range(5)]) / theory.diagonal_rate(T, d, sigma2) for T in (50, 200, 800)
    ]
    assert ratios[1] <= ratios[0]
    assert ratios[2] <= ratios[0]


def test_the_regret_bound_is_the_displayed_formula():
    """Two steps of f = |x|^2/2 from (2, 1), k = 1, eta = delta = 1, by hand.

    kept (2, 0), (0, 2); T(g) (2, 0), (0, 1); W = diag(8, 5); R^2 = 5; eps = 2 * 2 * (4 + 4).
    """
    run = theory.scaled_ggt_run(lambda x, t: x, [2.0, 1.0], 1, 1.0, 1.0, 2)
    assert np.allclose(run.kept, [[2, 0], [0, 2]], rtol=1e-12)
    assert np.allclose(run.kept_g, [[2, 0], [0, 1]], rtol=1e-12)
    want = 5 / 2 * (1 * 2 + 1 * 13) + 2 * 32 / 2 + 2 / 1 / (2 * 1) * np.log(9 * 6)
    assert theory.regret_bound(run, [0.0, 0.0]) == pytest.approx(want, rel=1e-12)
