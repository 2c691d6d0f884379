"""Slices are whole blocks, cover everything once, and a row's entries lie in the slice that their positions lie in."""

from fractions import Fraction

import numpy as np
import pytest

from efcp_ref.fast import layout
from efcp_ref.fast.layout import SPAN, Layout
from efcp_ref.paper.top_k import row_length


@pytest.mark.parametrize("d", [1, 5, 999, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("block_size", [1, 7, 1_000, 41_728, 65_536, 65_537, 10**6])
@pytest.mark.parametrize("density", [0.01, 0.07, Fraction(1, 3), 1])
def test_slices_cover_coordinates_and_entries(d, block_size, density):
    laid = Layout.of(d, block_size, density)
    assert row_length(d, block_size, density) == laid.K
    assert [s.start for s in laid.slices] == [0, *(s.end for s in laid.slices[:-1])]
    assert [s.first for s in laid.slices] == [0, *(s.last for s in laid.slices[:-1])]
    assert (laid.slices[-1].end, laid.slices[-1].last) == (d, laid.K)
    for s in laid.slices:
        assert s.start % laid.B_d == 0
        assert row_length(s.end - s.start, laid.B_d, density) == s.last - s.first
        assert s.end - s.start <= max(SPAN, laid.B_d)
        strips = laid.strips(s)
        assert [entry for strip in strips for entry in range(*strip)] == list(range(s.first, s.last))
        assert all(last - first == laid.width(s) for first, last in strips[:-1])


@pytest.mark.parametrize(("block_size", "index"), [(65_536, np.uint16), (65_537, np.int32), (41_728, np.uint16)])
def test_r13_positions_take_16_bits_up_to_blocks_of_65536(block_size, index):
    laid = Layout.of(10**6, block_size, 0.01)
    assert laid.index == index
    assert max(s.end - s.start for s in laid.slices) - 1 <= np.iinfo(index).max


@pytest.mark.parametrize(("density", "width"), [(0.001, 66 // 2), (0.01, 656 // 16), (0.1, -(-6554 // 16)), (1, 4096)])
def test_a_strip_reaches_over_4096_coordinates_but_has_32_entries(density, width):
    """65,536 coordinates are 16 strips; of 66 entries only 2 strips can be made of 32 or more."""
    laid = Layout.of(10**6, 65_536, density)
    assert laid.width(laid.slices[0]) == width


def test_small_blocks_share_a_slice():
    assert len(Layout.of(2**20, 64, 0.1).slices) == 16  # not 16,384
    assert Layout.of(2**20, 64, 0.1).slices[0].end == layout.SPAN // 64 * 64


def test_one_block_of_any_k():
    assert Layout.of(10, k=3) == Layout(10, 10, 3, 3)


@pytest.mark.parametrize(("arguments", "error"), [
    ((0,), ValueError), ((2.5,), TypeError), ((5, 0), ValueError), ((5, 2, 0), ValueError), ((5, 2, 1.5), ValueError),
])  # fmt: skip
def test_wrong_layouts_are_refused(arguments, error):
    with pytest.raises(error):
        Layout.of(*arguments)
