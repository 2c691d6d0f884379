"""Top-k: what is kept, ties, blocks, counts (R11-R13) and the scaled operator."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from efcp_ref.paper import _validate as check
from efcp_ref.paper.top_k import block_top_k, kept, largest, layout, row_length, scaled_top_k, top_k

HUGE = "lam = 100000000000000000...0000000000000000000, must be in the range of float64"
MASKED = np.ma.array([1.0, 5.0], mask=[False, True])
vectors = hnp.arrays(np.float64, st.integers(1, 12), elements=st.integers(-3, 3).map(float))


@given(a=vectors, data=st.data())
def test_top_k_keeps_the_largest_magnitudes(a, data):
    k = data.draw(st.integers(0, len(a)))
    indices, values = top_k(a, k)
    dropped = np.delete(np.abs(a), indices)
    assert len(set(indices.tolist())) == k
    assert indices.dtype == np.int32
    assert np.array_equal(values, a[indices])
    if 0 < k < len(a):
        assert np.abs(values).min() >= dropped.max()


@given(a=vectors, data=st.data())
def test_top_k_is_the_first_of_all_best_supports(a, data):
    """Independent derivation: among all supports of largest sum, ties go to the lowest positions (R12)."""
    k = data.draw(st.integers(0, min(len(a), 5)))
    ranked = sorted(range(len(a)), key=lambda i: (-abs(a[i]), i))
    assert top_k(a, k).indices.tolist() == sorted(ranked[:k])


def test_R12_ties_go_to_the_lowest_index():
    assert top_k(np.ones(4), 2).indices.tolist() == [0, 1]
    assert top_k(np.ones(40), 2).indices.tolist() == [0, 1]
    assert largest(np.array([-2.0, 2.0, -2.0]), 2).tolist() == [0, 1]


def test_R11_counts_are_exact_where_floating_point_is_not():
    assert int(0.29 * 100) == 28
    assert int(np.ceil(100 * 0.07)) == 8
    assert kept(100, check.share("density", 0.29)) == 29
    assert kept(100, check.share("density", 0.07)) == 7
    assert kept(41728, check.share("density", 0.01)) == 418  # ceil(417.28)


def test_R11_the_last_block_is_counted_by_its_own_size():
    assert layout(10, 4, 0.3)[2] == [(0, 4), (4, 8), (8, 10)]
    assert [kept(e - s, Fraction(3, 10)) for s, e in layout(10, 4, 0.3)[2]] == [2, 2, 1]
    assert row_length(10, 4, 0.3) == 5


def test_R11_blockwise_and_global_top_k_differ():
    a = np.array([9.0, 8.0, 0.1, 0.2])
    assert block_top_k(a, 2, 0.5).indices.tolist() == [0, 3]
    assert top_k(a, 2).indices.tolist() == [0, 1]


@given(a=vectors, block_size=st.integers(1, 13), density=st.sampled_from([0.01, 0.3, 0.5, 1.0, Fraction(1, 3)]))
def test_block_top_k_is_top_k_of_every_block(a, block_size, density):
    indices, values = block_top_k(a, block_size, density)
    want = []
    for start in range(0, len(a), block_size):
        block = a[start : start + block_size]
        k = -((-len(block) * Fraction(str(density)).numerator) // Fraction(str(density)).denominator)
        want += [start + i for i in top_k(block, k).indices]
    assert indices.tolist() == want
    assert np.array_equal(values, a[indices])


def test_one_block_of_full_density_keeps_everything():
    a = np.array([0.0, -1.0, 2.0])
    assert block_top_k(a, density=1).indices.tolist() == [0, 1, 2]


def test_precision_is_kept():
    assert top_k(np.float32([1, 2]), 1).values.dtype == np.float32
    assert block_top_k(np.float32([1, 2]), 1, 1).values.dtype == np.float32
    assert scaled_top_k(np.float32([1, 2]), np.eye(2), 1).dtype == np.float32
    assert top_k([1, 2], 1).values.dtype == np.float64
    assert top_k(np.array([1.0, 2.0], ">f8"), 1).values.tolist() == [2.0]


def test_read_only_strided_and_mapped_arrays_are_valid(tmp_path):
    a = np.arange(8.0)[::2]
    a.setflags(write=False)
    mapped = np.memmap(tmp_path / "a", np.float64, "w+", shape=(4,))
    mapped[:] = a
    assert top_k(a, 2).indices.tolist() == top_k(mapped, 2).indices.tolist() == [2, 3]


@given(
    H=hnp.arrays(np.float64, (4, 4), elements=st.integers(-3, 3).map(float)),
    v=hnp.arrays(np.float64, 4, elements=st.integers(-4, 4).map(float)),
    k=st.integers(0, 4),
)
def test_scaled_top_k_against_sqrtm(H, v, k):
    from scipy.linalg import sqrtm

    H = H @ H.T + np.eye(4)
    root = sqrtm(H).real
    basis = np.linalg.solve(root, v)
    order = np.sort(np.abs(basis))
    got = scaled_top_k(v, H, k)
    if 0 < k < 4 and order[4 - k] - order[3 - k] < 1e-9:
        return  # the choice is not unique
    c = np.zeros(4)
    c[top_k(basis, k).indices] = basis[top_k(basis, k).indices]
    assert np.allclose(got, root @ c, atol=1e-9)


def test_scaled_top_k_in_the_identity_basis_is_top_k():
    v = np.array([3.0, -5.0, 1.0])
    assert np.array_equal(scaled_top_k(v, np.eye(3), 1), [0.0, -5.0, 0.0])


def test_a_masked_array_that_hides_nothing_is_an_array():
    assert top_k(np.ma.array([1.0, 5.0]), 1).indices.tolist() == [1]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: top_k(np.zeros((2, 2)), 1), ValueError, "a has shape (2, 2)"),
        (lambda: top_k(np.zeros(0), 0), ValueError, "no axis may be empty"),
        (lambda: top_k(np.array([1.0, np.nan]), 1), ValueError, "a holds NaN"),
        (lambda: top_k(np.array([1.0, np.inf]), 1), ValueError, "a holds NaN or infinity, first a[1] = inf;"),
        (lambda: check.array("x", np.nan), ValueError, "x holds NaN or infinity, first x = nan;"),
        (lambda: top_k(None, 1), TypeError, "a has dtype object, must hold real floating-point numbers, is None"),
        (lambda: top_k("abc" * 99, 1), TypeError, "is 'abcabc"),
        (lambda: top_k([[1], [1, 2]], 1), ValueError, "a = [[1], [1, 2]], must be an array: rows of one length"),
        (lambda: top_k(MASKED, 1), ValueError, "is a masked array with hidden entries"),
        (lambda: check.check_rows([[0], [0, 1]], [[1.0]], 2), ValueError, "indices = [[0], [0, 1]], must be an array"),
        (lambda: check.dimension(2**31), ValueError, "d = 2147483648, must be at most 2147483647"),
        (lambda: check.dimension(10**5000), ValueError, "d = int too long to be written, must be at most 2147483647"),
        (lambda: check.window_size(10**30), ValueError, f"m = {10**30}, must be at most 268435456"),
        (lambda: check.window_size(0), ValueError, "m = 0, must be at least 1"),
        (lambda: top_k(np.array(["x"]), 1), TypeError, "a has dtype <U1"),
        (lambda: top_k(np.array([1j]), 1), TypeError, "a has dtype complex128"),
        (lambda: top_k(np.array([True]), 1), TypeError, "a has dtype bool"),
        (lambda: top_k(np.ones(3), 4), ValueError, "k = 4, must be in 0..3"),
        (lambda: top_k(np.ones(3), -1), ValueError, "k = -1"),
        (lambda: top_k(np.ones(3), 1.0), TypeError, "k = 1.0, must be an integer"),
        (lambda: top_k(np.ones(3), True), TypeError, "k = True"),
        (lambda: block_top_k(np.ones(3), 0), ValueError, "block_size = 0, must be at least 1"),
        (lambda: block_top_k(np.ones(3), 2, 0.0), ValueError, "density = 0.0"),
        (lambda: block_top_k(np.ones(3), 2, 1.5), ValueError, "density = 1.5"),
        (lambda: block_top_k(np.ones(3), 2, np.nan), ValueError, "density = nan"),
        (lambda: block_top_k(np.ones(3), 2, "x"), TypeError, "density = 'x'"),
        (lambda: block_top_k(np.ones(3), 2, [1]), TypeError, "density = [1]"),
        (lambda: scaled_top_k(np.ones(2), np.ones((2, 2)), 1), ValueError, "positive definite"),
        (lambda: scaled_top_k(np.ones(2), np.array([[1.0, 2.0], [0.0, 1.0]]), 1), ValueError, "symmetric"),
        (lambda: scaled_top_k(np.ones(2), np.eye(3), 1), ValueError, "H has shape (3, 3), must have shape (2, 2)"),
        (lambda: check.number("x", -1.0, 0.0), ValueError, "x = -1.0, must be at least 0"),
        (lambda: check.positive("lam", 0), ValueError, "lam = 0.0, must be greater than 0"),
        (lambda: check.positive("lam", 10**400), ValueError, HUGE),
        (lambda: check.number("lam", -(10**400)), ValueError, "0000, must be in the range of float64"),
        (lambda: check.number("lam", 10**5000), ValueError, "lam = int too long to be written, must be in the range"),
        (lambda: check.number("lam", Fraction(10**400, 3)), ValueError, "must be in the range of float64"),
        (lambda: check.share("lam", 10**400), ValueError, HUGE),
        (lambda: check.share("x", Fraction(3, 2)), ValueError, "x = Fraction(3, 2), must be greater than 0"),
        (lambda: check.number("lam", np.ma.masked), ValueError, "lam = masked is hidden by a mask, must be given"),
        (lambda: check.share("lam", np.ma.masked), ValueError, "lam = masked is hidden by a mask, must be given"),
        (lambda: check.number("lam", np.ma.array(1.0, mask=True)), ValueError, "is hidden by a mask, must be given"),
        (lambda: check.integer("k", np.ma.masked, 1), TypeError, "k = masked, must be an integer"),
        (lambda: check.number("lam", bytearray(b"1")), TypeError, "must be a real number"),
        (lambda: check.integer("m", 0, 1), ValueError, "m = 0, must be at least 1"),
        (lambda: check.choice("x", "a", ("b",)), ValueError, "x = 'a', must be one of 'b'"),
        (lambda: check.array("a", np.ones(2), shape=(None, 3)), ValueError, "must have 2 dimensions"),
        (lambda: check.array("a", np.ones((2, 2)), shape=(None, 3)), ValueError, "must have shape (any, 3)"),
        (lambda: check.array("a", np.ones((2, 2)), shape=(3,)), ValueError, "must have 1 dimension"),
    ],
)
def test_bad_input_is_named(call, error, words):
    import re

    with pytest.raises(error, match=re.escape(words)):
        call()
