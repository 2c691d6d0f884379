"""The window keeps rows where they belong, in any storage, and writing one leaves every other as it was."""

import numpy as np
import pytest

from efcp_ref import fast
from efcp_ref.fast.layout import Layout
from efcp_ref.fast.storage import BF16, rounded, widened
from efcp_ref.fast.sums import Tiles, gram, linear_combination, scalar_products
from efcp_ref.fast.window import Window

SHAPES = [(10, 4, 0.5), (97, 32, 0.125), (200_000, 41_728, 0.001), (150_000, 100_000, 0.001), (70_000, 7, 1)]


def filled(rng, shape, slots, storage):
    laid = Layout.of(*shape)
    window, rows = Window(laid, slots, storage), []
    for slot in range(slots):
        kept = fast.block_top_k(rng.standard_normal(laid.d).astype(np.float32), laid.B_d, shape[2])
        values = rounded(kept.values, storage)
        starts = np.repeat([s.start for s in laid.slices], [s.last - s.first for s in laid.slices])
        window.write(slot, kept.indices - starts, values)
        rows.append((kept.indices, values))
    return window, rows


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", [np.dtype(np.float64), np.dtype(np.float32), BF16])
def test_rows_come_back(shape, storage):
    window, rows = filled(np.random.default_rng(0), shape, 3, storage)
    before = window.indices.copy(), window.values.copy()
    assert window.indices.dtype == (np.uint16 if window.layout.B_d <= 65_536 else np.int32)
    for slot, (indices, values) in enumerate(rows):
        np.testing.assert_array_equal(window.absolute([slot])[0], indices)
        np.testing.assert_array_equal(window.stored([slot])[0], values)
    relative, values = window.read(1)
    window.write(1, relative, values * 0)
    np.testing.assert_array_equal(window.absolute([0, 2]), [rows[0][0], rows[2][0]])
    window.write(1, relative, values)
    np.testing.assert_array_equal(window.indices, before[0])
    np.testing.assert_array_equal(window.values, before[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_row_holds_zeros_at_the_first_positions_of_every_block(shape):
    window = Window(Layout.of(*shape), 2, np.dtype(np.float32))
    zero = fast.block_top_k(np.zeros(shape[0]), shape[1], shape[2])
    np.testing.assert_array_equal(window.absolute([0, 1]), [zero.indices, zero.indices])
    assert not window.values.any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("storage", [np.dtype(np.float64), np.dtype(np.float32), BF16])
def test_products_and_combinations_are_those_of_the_dense_window(shape, storage):
    rng = np.random.default_rng(1)
    window, rows = filled(rng, shape, 4, storage)
    dtype = np.dtype(np.float64) if storage == np.float64 else np.dtype(np.float32)
    G = np.zeros((4, shape[0]))
    for row, (indices, values) in enumerate(rows):
        G[row, indices] = widened(values, dtype)
    x, c, out = rng.standard_normal(shape[0]).astype(dtype), rng.standard_normal(4).astype(dtype), np.empty(shape[0])

    def write(s, total):
        out[s.start : s.end] = total

    linear_combination(window, c, write, dtype)
    u = np.finfo(dtype).eps
    k = window.layout.K
    assert (abs(scalar_products(window, x, dtype) - G @ x) <= k * u * (abs(G) @ abs(x))).all()
    assert (abs(out - c @ G) <= 5 * u * (abs(c) @ abs(G))).all()
    assert (abs(gram(window, dtype) - G @ G.T) <= k * u * (abs(G) @ abs(G.T))).all()


def test_what_has_its_width_is_not_copied():
    """float32 values reach SciPy as a view of the window; uint16 positions are widened a piece at a time."""
    window, _ = filled(np.random.default_rng(0), (150_000, 100_000, 0.001), 3, np.dtype(np.float32))
    tiles = Tiles(window, np.dtype(np.float32))
    for _, tile in tiles.pieces(0):
        assert np.shares_memory(tile.matrix().data, window.values)
        assert np.shares_memory(tile.matrix().indices, window.indices)
