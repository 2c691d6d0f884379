"""Algorithm 3: the LCG kernel, and the readings R13, R17 to R21."""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.paper.algorithm_3 import lcg, lcg_kernel
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
def test_is_the_dense_combination_exactly(m: int, d: int, block_size: int, density: float, seed: int) -> None:
    indices, values = window(m, d, block_size, density, seed)
    c = np.random.default_rng(seed + 1).integers(-50, 51, m).astype(float)
    assert np.array_equal(lcg(indices, values, c, d, block_size, density), c @ dense(indices, values, d))


@given(st.integers(1, 12), st.sampled_from([1, 2, 3, 8, 64]), st.integers(1, 30))
def test_blocks_and_threads_do_not_change_an_exact_sum(B: int, T: int, d: int) -> None:
    indices, values = window(3, d, 4, 0.5)
    c = np.array([1.0, -2.0, 5.0])
    expected = c @ dense(indices, values, d)
    B_d = min(4, d)
    assert np.array_equal(lcg_kernel(indices, values, c, d, B_d, -(-B_d // 2), T=T, B=B), expected)


def test_agrees_with_exact_rationals() -> None:
    rng = np.random.default_rng(3)
    indices = np.stack([rng.permutation(30)[:20] for _ in range(6)])
    values, c = rng.standard_normal((6, 20)), rng.standard_normal(6)
    omega = lcg(indices, values, c, 30)
    for i in range(30):
        terms = [Fraction(c[r]) * Fraction(values[r, j]) for r, j in np.argwhere(indices == i)]
        assert abs(Fraction(omega[i]) - sum(terms)) <= 6 * Fraction(2) ** -53 * sum(map(abs, terms))


def test_a_coordinate_without_an_entry_is_exactly_zero() -> None:
    indices, values = window(2, 50, 10, 0.1)
    omega = lcg(indices, values, [1.0, 1.0], 50, 10, 0.1)
    untouched = np.setdiff1d(np.arange(50), indices)
    assert len(untouched) >= 40
    assert not omega[untouched].any()


def test_zero_rows_and_zero_coefficients_give_zero() -> None:
    indices, values = window(2, 12, 4, 0.5)
    assert not lcg(indices, np.zeros_like(values), [3.0, 4.0], 12, 4, 0.5).any()
    assert not lcg(indices, values, [0.0, 0.0], 12, 4, 0.5).any()


def test_the_partial_last_block_counts_by_its_own_size() -> None:
    # d = 10, B_d = 4, density .3: 2 + 2 + 1 entries
    indices, values = [[3, 0, 4, 7, 9]], [[1.0, 2.0, 3.0, 4.0, 5.0]]
    expected = [2.0, 0, 0, 1, 3, 0, 0, 4, 0, 5]
    assert lcg(indices, values, [1.0], 10, 4, 0.3).tolist() == expected
    for B in (1, 2, 3, 5):
        assert lcg_kernel(np.array(indices), np.array(values), np.ones(1), 10, 4, 2, T=2, B=B).tolist() == expected


@pytest.mark.parametrize(
    ("values", "c", "expected"),
    [
        (np.float64, np.float64, np.float64), (np.float32, np.float32, np.float32),
        (np.float32, np.float64, np.float64), (ml_dtypes.bfloat16, np.float32, np.float32),
        (np.int64, np.float32, np.float64),
    ],
)  # fmt: skip
def test_result_has_the_wider_precision(values: type, c: type, expected: type) -> None:
    omega = lcg([[0, 2]], np.array([[2, 3]], values), np.array([4], c), 3)
    assert omega.dtype == expected
    assert omega.astype(float).tolist() == [8, 0, 12]


def test_float32_is_the_float64_sum_rounded_once() -> None:
    a = np.float32(1 + 2**-23)  # a a = 1 + 2^-22 + 2^-46: the last term is lost if multiplied in float32
    values = np.array([[a], [-1]], np.float32)
    assert lcg([[0], [0]], values, np.array([a, 1 + 2**-22], np.float32), 1)[0] == 2**-46


def test_inputs_may_be_read_only_and_strided_and_are_not_touched() -> None:
    indices, values = window(4, 20, 6, 0.5)
    c = np.arange(8.0)[::2]
    before = indices.copy(), values.copy(), c.copy()
    for a in (indices, values, c):
        a.flags.writeable = False
    assert np.array_equal(lcg(np.asfortranarray(indices), values, c, 20, 6, 0.5), c @ dense(indices, values, 20))
    assert all(np.array_equal(a, b) for a, b in zip(before, (indices, values, c), strict=True))


@pytest.mark.parametrize("block_size", [1000, 41728])
def test_runs_at_the_papers_density_in_seconds(block_size: int) -> None:
    d, m = 10**5, 64
    row = block_top_k(np.random.default_rng(0).standard_normal(d), block_size, 0.01)
    indices, values = np.tile(row.indices, (m, 1)), np.tile(row.values, (m, 1))
    start = time.perf_counter()
    omega = lcg(indices, values, np.ones(m), d, block_size, 0.01)
    assert time.perf_counter() - start < 5
    expected = np.zeros(d)
    expected[row.indices] = m * row.values
    assert np.allclose(omega, expected, rtol=1e-12)


# ---- readings: the printed kernel with one line as printed --------------------------------------------------------


def kernel(
    indices: np.ndarray, values: np.ndarray, c: np.ndarray, d: int, B_d: int, B_k: int, B: int, *,
    components: Callable[[int], int] = lambda T: 10**6,
    workload: Callable[[int, int], int] | None = None,
    end_k: Callable[[int], int] | None = None,
    rows: Callable[[int], int] | None = None,
    bound: Callable[[int, int], int] = lambda end_k, end_d: end_k,
    T: int = 4,
) -> tuple[np.ndarray, int, int]:
    """Algorithm 3 thread by thread, in plain loops, written apart from the package.

    Returns omega, the slices per thread block, and how many thread blocks had a slice.
    """
    (m, k), omega, working = indices.shape, np.zeros(d), set()
    slices = -(-d // B_d)
    load = workload(slices, B_d) if workload else -(-slices // B)
    for block in range(B):
        mem = [0.0] * min(B_d, components(T))
        for i in range(load):
            start_d, start_k = B_d * (block * load + i), B_k * (block * load + i)
            end_d = min(d, start_d + B_d)
            last = end_k(start_k) if end_k else min(k, start_k + B_k)
            working.update([block] if start_d < d else [])
            for row in range(rows(load) if rows else m):
                for thread in range(T):
                    for col in range(start_k + thread, bound(last, end_d), T):
                        mem[indices[row, col] - start_d] += c[row] * values[row, col]
            for j in range(min(B_d, d - start_d)):
                omega[j + start_d], mem[j] = mem[j], 0.0
    return omega, load, len(working)


EXAMPLE = window(3, 20, 8, 0.5)  # three slices of 4, 4 and 2 entries
C = np.array([1.0, 10.0, 100.0])
RIGHT = C @ dense(*EXAMPLE, 20)


def test_the_plain_loops_give_what_the_package_gives() -> None:
    for B in (1, 2, 3, 4):
        assert np.array_equal(kernel(*EXAMPLE, C, 20, 8, 4, B)[0], RIGHT)
        assert np.array_equal(lcg_kernel(*EXAMPLE, C, 20, 8, 4, B=B), RIGHT)
    assert np.array_equal(lcg(*EXAMPLE, C, 20, 8, 0.5), RIGHT)


def test_R13_relative_indices_leave_the_shared_memory() -> None:
    indices, values = np.array([[1, 3, 9, 11]]), np.array([[1.0, 2.0, 3.0, 4.0]])
    assert lcg(indices, values, [1.0], 16, 8, 0.25)[[1, 3, 9, 11]].tolist() == [1, 2, 3, 4]
    relative = indices - np.arange(4) // 2 * 8
    with pytest.raises(ValueError, match="row 0 repeats 1"):
        lcg(relative, values, [1.0], 16, 8, 0.25)
    assert relative[0, 2] - 8 == -7  # line 20 with a relative index in the second slice: mem_{-7}
    converted = relative + np.arange(4) // 2 * 8  # (j // k_b) * B_d
    assert np.array_equal(converted, indices)


def test_R17_shared_memory_has_one_component_per_coordinate() -> None:
    with pytest.raises(IndexError):
        kernel(*EXAMPLE, C, 20, 8, 4, 3, components=lambda T: T, T=4)  # line 6 as printed; line 25 reads mem_7
    assert np.array_equal(lcg_kernel(*EXAMPLE, C, 20, 8, 4, T=4), RIGHT)


def test_R18_workload_counts_slices_not_coordinates() -> None:
    right = kernel(*EXAMPLE, C, 20, 8, 4, 2)
    as_printed = kernel(*EXAMPLE, C, 20, 8, 4, 2, workload=lambda slices, B_d: -(-slices * B_d // 2))
    assert np.array_equal(right[0], RIGHT)
    assert np.array_equal(as_printed[0], RIGHT)
    assert (right[1], as_printed[1]) == (2, 12)
    assert (right[2], as_printed[2]) == (2, 1)  # right but serial: the first thread block does everything


def test_R19_a_slice_ends_at_k() -> None:
    as_printed, _, _ = kernel(*EXAMPLE, C, 20, 8, 4, 3, end_k=lambda start_k: min(4, start_k + 4))
    assert np.array_equal(as_printed[:8], RIGHT[:8])
    assert RIGHT[8:].any()
    assert not as_printed[8:].any()  # every slice after the first is empty
    assert np.array_equal(lcg(*EXAMPLE, C, 20, 8, 0.5), RIGHT)


def test_R20_all_rows_are_read() -> None:
    as_printed, workload, _ = kernel(*EXAMPLE, C, 20, 8, 4, 2, rows=lambda workload: workload)
    assert workload == 2
    assert np.array_equal(as_printed, C[:2] @ dense(*EXAMPLE, 20)[:2])  # coefficient 100 is never used
    assert np.array_equal(lcg_kernel(*EXAMPLE, C, 20, 8, 4, B=2), RIGHT)


def test_R21_the_bound_by_a_coordinate_is_harmless() -> None:
    for B in (1, 2, 3):
        assert np.array_equal(kernel(*EXAMPLE, C, 20, 8, 4, B, bound=min)[0], RIGHT)


def test_R21_block_id_numbers_slices_not_rows() -> None:
    # One row, three slices: three thread blocks work. As a row number, BlockId would be 0 alone.
    indices, values = window(1, 20, 8, 0.5)
    omega, _, working = kernel(indices, values, C[:1], 20, 8, 4, 3)
    assert working == 3
    assert np.array_equal(lcg_kernel(indices, values, C[:1], 20, 8, 4), omega)


# ---- bad input ----------------------------------------------------------------------------------------------------

GOOD = {"indices": [[0, 1], [1, 2]], "values": [[1.0, 2.0], [3.0, 4.0]], "c": [1.0, 2.0], "d": 3}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"indices": [[0, 3], [1, 2]]}, ValueError, r"row 0 holds a position outside 3"),
        ({"indices": [[0, 1], [1, 1]]}, ValueError, r"row 1 repeats 1"),
        ({"indices": [[0.0, 1.0], [1.0, 2.0]]}, TypeError, "indices has dtype float64"),
        ({"indices": np.zeros((2, 0), int), "values": np.zeros((2, 0))}, ValueError, "no axis may be empty"),
        ({"values": [[1.0], [3.0]]}, ValueError, r"values has shape \(2, 1\)"),
        ({"values": [[1.0, np.inf], [3.0, 4.0]]}, ValueError, "values holds NaN or infinity"),
        ({"c": [1.0]}, ValueError, r"c has shape \(1,\), must have shape \(2,\)"),
        ({"c": [1.0, np.nan]}, ValueError, "c holds NaN"),
        ({"c": [1j, 2]}, TypeError, "c has dtype complex128"),
        ({"d": 0}, ValueError, "d = 0"),
        ({"d": 2.5}, TypeError, "d = 2.5"),
        ({"d": True}, TypeError, "d = True"),
        ({"d": 2}, ValueError, r"row 1 holds a position outside 2"),
        ({"block_size": 2, "density": 0.5}, ValueError, "row 0 is out of block order"),
        ({"block_size": -1}, ValueError, "block_size = -1"),
        ({"density": float("nan")}, ValueError, "density = nan"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lcg(**{**GOOD, **change})


@pytest.mark.parametrize(("launch", "message"), [({"T": 0}, "T = 0"), ({"B": 0}, "B = 0")])
def test_bad_launches_are_named(launch: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lcg_kernel(np.array([[0]]), np.array([[1.0]]), np.array([1.0]), 1, 1, 1, **launch)
