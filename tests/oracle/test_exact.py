"""The oracle's arithmetic against fractions and mpmath."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from efcp_ref.oracle import exact


def value(p, at=...):
    return Fraction(float(p.hi[at])) + Fraction(float(p.lo[at]))


def numbers(rng, shape, spread=20):
    return rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, spread, shape)


def test_sums_and_products_of_two_are_exact():
    rng = np.random.default_rng(1)
    a, b = numbers(rng, 2000), numbers(rng, 2000)
    s, p = exact.two_sum(a, b), exact.two_prod(a, b)
    for i in range(2000):
        assert value(s, i) == Fraction(a[i]) + Fraction(b[i])
        assert value(p, i) == Fraction(a[i]) * Fraction(b[i])


def test_pair_operations_keep_a_hundred_bits():
    rng = np.random.default_rng(2)
    a, b = exact.two_prod(numbers(rng, 500), numbers(rng, 500)), exact.two_prod(numbers(rng, 500), numbers(rng, 500))
    c = numbers(rng, 500)
    total, product, quotient = exact.add(a, b), exact.times(a, c), exact.divide(a, c)
    for i in range(500):
        x, y, z = value(a, i), value(b, i), Fraction(c[i])
        assert abs(value(total, i) - (x + y)) <= (abs(x) + abs(y)) / 2**103
        assert abs(value(product, i) - x * z) <= abs(x * z) / 2**103
        assert abs(value(quotient, i) - x / z) <= abs(x / z) / 2**103
        assert value(exact.negative(a), i) == -x


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100, 1001])
def test_a_total_is_within_its_certified_error(n):
    rng = np.random.default_rng(3)
    terms = numbers(rng, (3, n), 60)
    result = exact.total(terms)
    for i in range(3):
        true = sum((Fraction(v) for v in terms[i]), Fraction(0))
        assert abs(value(result.value, i) - true) <= Fraction(result.error[i])
    assert (result.error <= 1e-29 * result.magnitude).all()


@pytest.mark.parametrize(("spread", "bits"), [(3, 24), (60, 24), (20, 53), (150, 53)])
@pytest.mark.parametrize("precise", [True, False])
def test_a_matrix_product_is_within_its_certified_error(spread, bits, precise):
    rng = np.random.default_rng(4)
    A, B = numbers(rng, (4, 60), spread), numbers(rng, (60, 3), spread)
    if bits == 24:
        A, B = A.astype(np.float32).astype(float), B.astype(np.float32).astype(float)
    for left, right in ((A, B), (A, None)):
        result = exact.product(left, right, precise)
        right = left.T if right is None else right
        for i in range(left.shape[0]):
            for j in range(right.shape[1]):
                true = sum(Fraction(p) * Fraction(q) for p, q in zip(left[i], right[:, j], strict=True))
                assert abs(value(result.value, (i, j)) - true) <= Fraction(result.error[i, j])
        if precise and spread < 100:
            assert (result.error <= 2.0**-90 * result.magnitude).all()


def test_a_long_dot_product_against_mpmath():
    rng = np.random.default_rng(5)
    x, y = (
        numbers(rng, 20000, 30).astype(np.float32).astype(float),
        numbers(rng, 20000, 30).astype(np.float32).astype(float),
    )
    result = exact.product(x[None], y[:, None])
    with mpmath.workprec(400):
        true = mpmath.fdot(x, y)
        got = mpmath.mpf(float(result.value.hi[0, 0])) + mpmath.mpf(float(result.value.lo[0, 0]))
        assert abs(got - true) <= mpmath.mpf(float(result.error[0, 0]))


def test_cancellation_is_seen_to_the_last_bit():
    reference = exact.Pair(np.array([1.0]), np.array([2.0**-70]))
    assert exact.apart([1.0], reference) == 2.0**-70
    assert exact.apart([np.nan], reference) == exact.apart([np.inf], reference) == np.inf


def test_steps_of_integers_times_powers_of_two():
    rng = np.random.default_rng(6)
    for _ in range(200):
        step = 2.0 ** int(rng.integers(-100, 100))
        terms = rng.integers(-1000, 1000, 9) * step
        odd = np.append(terms, step)
        assert exact.step_of(odd) == step
        assert all((Fraction(v) / Fraction(exact.step_of(terms))).denominator == 1 for v in terms) or not terms.any()
    assert exact.step_of(np.zeros(3)) == np.inf
    assert exact.step_of(np.array([2.0**-1074, 1.0])) == 2.0**-1074


def test_what_fits_an_accumulator_adds_exactly_in_any_order():
    rng = np.random.default_rng(7)
    for _ in range(100):
        terms = rng.integers(-(2**19), 2**19, 30).astype(float)
        size = np.abs(terms).sum()
        assert exact.adds_exactly(terms, np.array([size]), 2.0**-24)
        assert np.cumsum(rng.permutation(terms).astype(np.float32), dtype=np.float32)[-1] == terms.sum()
        assert not exact.adds_exactly(np.append(terms, 2.0**-4), np.array([size]), 2.0**-24) or size < 2**20
