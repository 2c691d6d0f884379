"""Algorithm 2: the SP kernel, and the readings R13, R15, R16."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.paper import algorithm_2
from efcp_ref.paper.algorithm_2 import parallel_reduce, sp, sp_kernel, strided, threads_for
from efcp_ref.paper.top_k import block_top_k

DENSITIES = st.sampled_from([0.01, 0.3, 0.5, 1.0])


def window(m: int, d: int, block_size: int, density: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a window of m rows that blockwise Top-k kept; values are integers, so that every sum is exact."""
    rng = np.random.default_rng(seed)
    rows = [block_top_k(rng.integers(-50, 51, d).astype(float), block_size, density) for _ in range(m)]
    return np.stack([row.indices for row in rows]), np.stack([row.values for row in rows])


def dense(indices: np.ndarray, values: np.ndarray, d: int) -> np.ndarray:
    G = np.zeros((len(indices), d))
    for r, (row, entries) in enumerate(zip(indices, values, strict=True)):
        G[r, row] = entries
    return G


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 45), DENSITIES, st.integers(0, 99))
def test_is_the_dense_product_exactly(m: int, d: int, block_size: int, density: float, seed: int) -> None:
    indices, values = window(m, d, block_size, density, seed)
    g = np.random.default_rng(seed + 1).integers(-50, 51, d).astype(float)
    assert np.array_equal(sp(indices, values, g, block_size, density), dense(indices, values, d) @ g)


@pytest.mark.parametrize("T", [1, 2, 4, 8, 64, 1024])
def test_the_number_of_threads_does_not_change_an_exact_sum(T: int) -> None:
    indices, values = window(5, 37, 10, 0.4)
    g = np.arange(37.0)
    assert np.array_equal(sp_kernel(indices, values, g, T=T), dense(indices, values, 37) @ g)


def test_agrees_with_exact_rationals() -> None:
    rng = np.random.default_rng(3)
    indices = np.stack([rng.permutation(50)[:20] for _ in range(4)])
    values, g = rng.standard_normal((4, 20)), rng.standard_normal(50)
    for omega, row, entries in zip(sp(indices, values, g), indices, values, strict=True):
        terms = [Fraction(v) * Fraction(g[i]) for i, v in zip(row, entries, strict=True)]
        assert abs(Fraction(omega) - sum(terms)) <= 20 * Fraction(2) ** -53 * sum(map(abs, terms))


def test_zero_rows_and_a_zero_vector_give_zero() -> None:
    indices, values = window(3, 12, 4, 0.5)
    values[1] = 0
    assert sp(indices, values, np.ones(12), 4, 0.5)[1] == 0
    assert np.array_equal(sp(indices, values, np.zeros(12), 4, 0.5), np.zeros(3))


@pytest.mark.parametrize(
    ("values", "g", "expected"),
    [
        (np.float64, np.float64, np.float64), (np.float32, np.float32, np.float32),
        (np.float32, np.float64, np.float64), (ml_dtypes.bfloat16, np.float32, np.float32),
        (ml_dtypes.bfloat16, ml_dtypes.bfloat16, ml_dtypes.bfloat16), (np.int64, np.float32, np.float64),
    ],
)  # fmt: skip
def test_result_has_the_wider_precision(values: type, g: type, expected: type) -> None:
    omega = sp([[0, 2]], np.array([[2, 3]], values), np.array([1, 1, 2], g))
    assert omega.dtype == expected
    assert float(omega[0]) == 8


def test_float32_is_the_float64_sum_rounded_once() -> None:
    indices, values = np.arange(4)[None], np.array([[1, 2**-24, 2**-24, 2**-24]], np.float32)
    assert sp(indices, values, np.ones(4, np.float32))[0] == np.float32(1 + 3 * 2**-24)  # 1 if summed in float32
    a = np.float32(1 + 2**-23)  # a a = 1 + 2^-22 + 2^-46: the last term is lost if multiplied in float32
    values = np.array([[a, -1]], np.float32)
    assert sp([[0, 1]], values, np.array([a, 1 + 2**-22], np.float32))[0] == 2**-46


def test_inputs_may_be_read_only_and_strided_and_are_not_touched() -> None:
    indices, values = window(4, 20, 6, 0.5)
    g = np.arange(40.0)[::2]
    wide = np.repeat(values, 2, axis=1)[:, ::2]
    before = indices.copy(), wide.copy(), g.copy()
    for a in (indices, wide, g):
        a.flags.writeable = False
    omega = sp(np.asfortranarray(indices), wide, g, 6, 0.5)
    assert np.array_equal(omega, dense(indices, values, 20) @ g)
    assert all(np.array_equal(a, b) for a, b in zip(before, (indices, wide, g), strict=True))


def test_runs_at_the_papers_density_in_seconds() -> None:
    d, m, block_size = 10**5, 64, 41728
    row = block_top_k(np.random.default_rng(0).standard_normal(d), block_size, 0.01)
    indices, values = np.tile(row.indices, (m, 1)), np.tile(row.values, (m, 1))
    start = time.perf_counter()
    omega = sp(indices, values, np.ones(d), block_size, 0.01)
    assert time.perf_counter() - start < 5
    assert np.allclose(omega, row.values.sum(), rtol=1e-12)


# ---- the parts ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(0, 60), st.sampled_from([1, 2, 8, 16]))
def test_strided_is_the_range_of_every_lane(first: int, end: int, T: int) -> None:
    made: dict[int, list[int]] = {lane: [] for lane in range(T)}
    for lanes, j in strided(first + np.arange(T), end, T):
        for lane, position in zip(lanes.tolist(), j.tolist(), strict=True):
            made[lane].append(position)
    assert made == {lane: list(range(first + lane, end, T)) for lane in range(T)}


@pytest.mark.parametrize("T", [1, 2, 16, 1024])
def test_the_tree_sums_level_by_level(T: int) -> None:
    mem = np.arange(1.0, T + 1)
    parallel_reduce(mem, T)
    assert mem[0] == T * (T + 1) / 2
    mem = np.zeros(T)
    mem[-1] = 1.0
    parallel_reduce(mem, T)
    assert mem[0] == 1  # the last lane comes down all the levels


def test_threads_cover_the_row_up_to_1024() -> None:
    assert [threads_for(k) for k in (1, 2, 3, 1000, 1024, 1025, 10**6)] == [1, 2, 4, 1024, 1024, 1024, 1024]


# ---- readings -----------------------------------------------------------------------------------------------------


def test_R13_indices_are_absolute() -> None:
    # Block 1 of size 8, relative positions 1 and 3: coordinates 9 and 11.
    g = np.arange(16.0) * 5
    relative, values = np.array([[1, 3]]), np.array([[1.0, 1.0]])
    assert sp(8 + relative, values, g).tolist() == [100]
    assert sp(relative, values, g).tolist() == [20]  # a relative row read as absolute: another number, no complaint
    relative, values, g = np.array([[0, 1, 0, 1]]), np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([5.0, 10.0, 10.0, 10.0])
    absolute = relative + np.arange(4) // 2 * 2  # (j // k_b) * B_d with k_b = B_d = 2
    assert sp(absolute, values, g, 2, 1).tolist() == [95]
    assert sp_kernel(relative, values, g).tolist() == [5 + 20 + 15 + 40]
    with pytest.raises(ValueError, match="repeats 0"):
        sp(relative, values, g)


def test_R13_int16_wraps_on_a_block_of_the_a100() -> None:
    assert np.array([40000]).astype(np.int16)[0] == -25536
    assert np.array([40000]).astype(np.uint16)[0] == 40000
    g = np.zeros(41728)
    g[40000] = 7.0
    assert sp(np.array([[40000]], np.uint16), [[1.0]], g)[0] == 7
    with pytest.raises(ValueError, match=r"row 0 holds a position outside -25536"):
        sp(np.array([[40000]]).astype(np.int16), [[1.0]], g)


@pytest.mark.parametrize(("m", "outside", "unwritten"), [(4, 1020, 0), (2000, 0, 976)])
def test_R15_one_thread_block_per_row(m: int, outside: int, unwritten: int) -> None:
    indices, values, g = np.zeros((m, 1), int), np.ones((m, 1)), np.ones(1)
    assert sp(indices, values, g).tolist() == [1.0] * m
    omega, failed = np.zeros(m), 0
    for block in range(1024):  # as appendix G.1 prints it: "We use 1024 thread blocks"
        try:
            algorithm_2.thread_block(block, indices, values, g, omega, 4)
        except IndexError:
            failed += 1
    assert failed == outside
    assert int((omega == 0).sum()) == unwritten


def test_R16_the_tree_needs_a_power_of_two() -> None:
    mem = np.ones(6)
    parallel_reduce(mem, 6)  # 6, 3, 1: lane 2 is lost when 3 is halved
    assert mem[0] == 4
    with pytest.raises(ValueError, match="T = 6, must be a power of two"):
        sp_kernel(np.array([[0]]), np.array([[1.0]]), np.array([1.0]), T=6)


def test_R16_the_tree_needs_a_barrier_per_level() -> None:
    def without_barriers(mem: np.ndarray, T: int) -> None:
        for Tid in range(T):  # one thread runs through all its levels before the next one starts
            half = T // 2
            while half > Tid:
                mem[Tid] += mem[Tid + half]
                half //= 2

    right, wrong = np.ones(8), np.ones(8)
    parallel_reduce(right, 8)
    without_barriers(wrong, 8)
    assert (right[0], wrong[0]) == (8, 4)


def test_R16_the_loop_of_line_8_is_a_stride() -> None:
    k, T = 5, 4
    made = [j for _, j in strided(np.arange(T), k, T)]
    assert np.concatenate(made).tolist() == [0, 1, 2, 3, 4]  # every entry once
    once = [j for j in range(T) if j < k]  # "{Tid < k, T}" without a stride: one entry per thread
    assert once == [0, 1, 2, 3]


# ---- bad input ----------------------------------------------------------------------------------------------------

GOOD = {"indices": [[0, 1], [1, 2]], "values": [[1.0, 2.0], [3.0, 4.0]], "g": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"indices": [[0, 3], [1, 2]]}, ValueError, r"row 0 holds a position outside 3 .*0\.\.2"),
        ({"indices": [[0, 1], [-1, 2]]}, ValueError, r"row 1 holds a position outside -1"),
        ({"indices": [[0, 1], [2, 2]]}, ValueError, r"row 1 repeats 2"),
        ({"indices": [[0.0, 1.0], [1.0, 2.0]]}, TypeError, "indices has dtype float64"),
        ({"indices": [[True, False], [False, True]]}, TypeError, "indices has dtype bool"),
        ({"indices": [0, 1]}, ValueError, "indices has shape"),
        ({"indices": np.zeros((0, 2), int), "values": np.zeros((0, 2))}, ValueError, "no axis may be empty"),
        ({"indices": np.zeros((2, 0), int), "values": np.zeros((2, 0))}, ValueError, "no axis may be empty"),
        ({"values": [[1.0, 2.0]]}, ValueError, r"values has shape \(1, 2\)"),
        ({"values": [[1.0, np.nan], [3.0, 4.0]]}, ValueError, "values holds NaN"),
        ({"values": [["a", "b"], ["c", "d"]]}, TypeError, "values has dtype"),
        ({"g": [1.0, np.inf, 3.0]}, ValueError, "g holds NaN or infinity"),
        ({"g": [[1.0, 2.0, 3.0]]}, ValueError, "g has shape"),
        ({"g": []}, ValueError, "g has shape"),
        ({"g": [1.0], "indices": [[0, 0]], "values": [[1.0, 2.0]]}, ValueError, "at most d = 1"),
        ({"block_size": 2, "density": 0.5, "indices": [[0, 1], [1, 2]]}, ValueError, "row 0 is out of block order"),
        ({"block_size": 2, "density": 0.5, "indices": [[1, 2], [2, 0]]}, ValueError, "row 1 is out of block order"),
        ({"block_size": 3, "density": 0.3}, ValueError, "1 entries per row for d = 3"),
        ({"density": 0.3}, ValueError, "1 entries per row"),
        ({"block_size": 0}, ValueError, "block_size = 0"),
        ({"block_size": 1.5}, TypeError, "block_size = 1.5"),
        ({"density": 0.0}, ValueError, "density = 0"),
        ({"density": 1.5}, ValueError, "density = 1.5"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sp(**{**GOOD, **change})


@pytest.mark.parametrize(("T", "error"), [(0, ValueError), (-2, ValueError), (3, ValueError), (2.0, TypeError)])
def test_bad_thread_counts_are_named(T: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="T = "):
        sp_kernel(np.array([[0]]), np.array([[1.0]]), np.array([1.0]), T=T)  # type: ignore[arg-type]


def test_the_order_inside_a_block_is_free() -> None:
    omega = sp([[1, 0, 3, 2]], [[1.0, 2.0, 3.0, 4.0]], [1.0, 10.0, 100.0, 1000.0], 2, 1)
    assert omega.tolist() == [10 + 2 + 3000 + 400]


def test_the_last_block_counts_by_its_own_size() -> None:
    # d = 10, B_d = 4, density .3: ceil(1.2) + ceil(1.2) + ceil(.6) = 5 entries
    assert sp([[0, 1, 4, 5, 9]], [[1.0] * 5], np.ones(10), 4, 0.3).tolist() == [5]
    with pytest.raises(ValueError, match="must have 5 entries per row"):
        sp([[0, 1, 4, 5, 8, 9]], [[1.0] * 6], np.ones(10), 4, 0.3)


def test_a_block_may_be_larger_than_the_vector() -> None:
    assert sp([[0, 2]], [[1.0, 1.0]], np.ones(3), 100, 0.5).tolist() == [2]
