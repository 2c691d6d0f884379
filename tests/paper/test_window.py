"""The ring buffers: which row is replaced (R1), what is stored (R13, R14)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.paper.window import Dense, DenseWindow, Sparse, SparseWindow, densified, keep_blocks, storage


@given(m=st.integers(1, 4), T=st.integers(0, 11))
def test_R1_at_step_t_row_t_minus_m_is_replaced(m, T):
    window = DenseWindow.empty(d=1, m=m)
    for t in range(1, T + 1):
        window = window.insert(Dense(np.array([float(t)])))
    assert sorted(v for v in window.G.ravel() if v) == [float(t) for t in range(max(1, T - m + 1), T + 1)]
    assert window.row == T % m


def test_R1_the_sentence_as_printed_keeps_the_wrong_gradient():
    """m = 2, t = 3: "replacing g_{t-(m-1)}", that is g_2, would leave (g_3, g_1); eq. (1) shows (g_2, g_3)."""
    printed = {1.0, 2.0} - {3.0 - (2 - 1)} | {3.0}
    window = DenseWindow.empty(d=1, m=2)
    for t in (1.0, 2.0, 3.0):
        window = window.insert(Dense(np.array([t])))
    assert printed == {1.0, 3.0}
    assert set(window.G.ravel()) == {2.0, 3.0}


def test_inserting_leaves_the_old_window_as_it_was():
    old = DenseWindow.empty(d=2, m=2)
    old.insert(Dense(np.ones(2)))
    assert not old.G.any()
    sparse = SparseWindow.empty(d=4, m=2, block_size=2, density=0.5)
    sparse.insert(keep_blocks(np.ones(4), 2, 0.5))
    assert not sparse.values.any()


@pytest.mark.parametrize("index", ["absolute", "uint16", "int32"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_every_storage_gives_the_same_rows(index, dtype):
    rng = np.random.default_rng(0)
    window = SparseWindow.empty(d=11, m=3, block_size=4, density=0.5, dtype=dtype, index=index)
    assert window.indices.tolist() == [[0, 1, 4, 5, 8, 9]] * 3
    rows = []
    for _ in range(5):
        c = keep_blocks(rng.integers(-8, 9, 11).astype(float), 4, 0.5, dtype)
        window = window.insert(c)
        rows.append(c.dense())
    assert np.array_equal(window.dense(), np.array([rows[3], rows[4], rows[2]]))
    assert window.values.dtype == storage(dtype)
    assert window.stored_indices.dtype == {"absolute": np.int32, "uint16": np.uint16, "int32": np.int32}[index]
    x = rng.integers(-3, 4, 11).astype(float)
    c = rng.integers(-3, 4, 3).astype(float)
    assert np.array_equal(window.scalar_products(x), window.dense() @ x)
    assert np.array_equal(window.linear_combination(c), c @ window.dense())


def test_R13_relative_indices_read_as_absolute_are_wrong():
    window = SparseWindow.empty(d=8, m=1, block_size=4, density=0.25, index="uint16")
    window = window.insert(Sparse(np.array([0, 5], np.int32), np.array([1.0, 2.0]), 8))
    g = np.arange(8.0) * 10
    relative = window.stored_indices[0].astype(int)
    assert relative.tolist() == [0, 1]
    assert window.values[0] @ g[relative] == 20.0  # a relative row read as absolute
    assert window.scalar_products(g)[0] == 100.0
    assert relative[1] - 4 < 0  # and shared memory would be written before its start


def test_R13_int16_wraps_where_uint16_does_not():
    assert int(np.array([40_000]).astype(np.int16)[0]) == -25_536
    window = SparseWindow.empty(d=41_728, m=1, density=1 / 41_728, index="uint16")
    window = window.insert(Sparse(np.array([40_000], np.int32), np.array([1.0]), 41_728))
    assert window.indices[0, 0] == 40_000


def test_uint16_needs_blocks_of_at_most_65536():
    assert SparseWindow.empty(65_536, 1, density=1 / 65_536, index="uint16").values.shape == (1, 1)
    with pytest.raises(ValueError, match="block_size = 65537, must be at most 65536"):
        SparseWindow.empty(65_537, 1, index="uint16")


def test_R14_values_are_rounded_when_they_are_kept():
    a = 1.0048828125
    c = keep_blocks(np.array([a]), None, 1, "bfloat16")
    assert c.dense()[0] == 1.0078125
    assert a - c.dense()[0] == pytest.approx(-2.9e-3, rel=0.02)


def test_densified_and_empty_rows():
    assert np.array_equal(densified([[1, 0]], [[2.0, 3.0]], 3), [[3.0, 2.0, 0.0]])
    assert not SparseWindow.empty(5, 2, 2, 0.5).dense().any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DenseWindow.empty(0, 1), "d = 0"),
        (lambda: DenseWindow.empty(1, 0), "m = 0"),
        (lambda: SparseWindow.empty(4, 1, dtype="float16"), "dtype = 'float16'"),
        (lambda: SparseWindow.empty(4, 1, index="int16"), "index = 'int16'"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
