"""Top-k by a cut is Top-k by a sort, ties included, whatever the sample guesses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import efcp_ref
from efcp_ref import fast
from efcp_ref.fast import selection
from efcp_ref.paper import top_k as paper

few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5])  # ties everywhere
real = st.floats(-1e6, 1e6, width=32)


def same(ours, theirs):
    assert ours.indices.dtype == theirs.indices.dtype == np.int32
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert ours.values.dtype == theirs.values.dtype


vectors = arrays(np.float64, st.integers(1, 80), elements=few | real)


@given(vectors, st.integers(1, 90), st.sampled_from([0.01, 0.1, 0.5, 1]))
def test_blocks_as_the_reference_keeps_them(a, block_size, density):
    same(fast.block_top_k(a, block_size, density), efcp_ref.block_top_k(a, block_size, density))


@given(arrays(np.float32, st.integers(1, 60), elements=few), st.data())
def test_ties_go_to_the_lowest_position(a, data):
    k = data.draw(st.integers(0, len(a)))
    same(fast.top_k(a, k), efcp_ref.top_k(a, k))


@pytest.mark.parametrize("kind", ["normal", "zeros", "few", "sorted", "spike", "period"])
@pytest.mark.parametrize("k", [1, 50, 418, 9_999, 20_000])
def test_a_sample_never_changes_the_answer(kind, k):
    rng, n = np.random.default_rng(k), 20_000
    a = {
        "normal": rng.standard_normal(n), "zeros": np.zeros(n), "few": rng.integers(-2, 3, n).astype(float),
        "sorted": np.arange(n, dtype=float), "spike": np.where(np.arange(n) < 300, 1e9, 1e-9),
        "period": np.where(np.arange(n) % selection.STRIDE == 0, 5.0, 1.0),  # the sample sees nothing else
    }[kind]  # fmt: skip
    np.testing.assert_array_equal(selection.sampled(np.abs(a), k), paper.largest(a, k))


def test_in_tiny_slices(tiny):
    rng = np.random.default_rng(0)
    for d in range(1, 60):
        a = rng.integers(-3, 4, d).astype(np.float32)
        for block_size in (1, 3, 8, 20, d):
            same(fast.block_top_k(a, block_size, 0.3), efcp_ref.block_top_k(a, block_size, 0.3))


@pytest.mark.parametrize(("a", "message"), [
    ([1.0, np.nan], "a holds NaN or infinity"), ([[1.0]], "a has shape"), ([], "a has shape"),
    ([1.0, np.inf], "a holds NaN or infinity"),
])  # fmt: skip
def test_bad_input_names_the_argument(a, message):
    for function in (fast.block_top_k, lambda a: fast.top_k(a, 1)):
        with pytest.raises(ValueError, match=message):
            function(np.array(a))


def test_more_than_there_are():
    with pytest.raises(ValueError, match=r"k = 4, must be in 0\.\.3"):
        fast.top_k([1.0, 2.0, 3.0], 4)
    with pytest.raises(TypeError, match="a has dtype"):
        fast.top_k(["x"], 1)
