"""bfloat16 by shifts is bfloat16 by ml_dtypes, for every bit pattern."""

import ml_dtypes
import numpy as np
import pytest

from efcp_ref.fast.storage import BF16, chosen, hidden, rounded, shown, stored_as, widened


def test_every_bfloat16_widens_to_itself():
    bits = np.arange(2**16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(widened(bits, np.dtype(np.float32)), expected)


def test_rounding_is_to_nearest_even_at_and_around_every_tie():
    upper = np.arange(0x0000, 0x7F7F, dtype=np.uint32)
    for lower in (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        for sign in (0, 0x80000000):
            x = ((upper << 16) + lower + np.uint32(sign)).astype(np.uint32).view(np.float32)
            np.testing.assert_array_equal(rounded(x, BF16), x.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_widening_in_place_of_a_buffer():
    bits = rounded(np.array([1.5, -2.0], np.float32), BF16)
    for dtype in (np.float32, np.float64):
        room = np.zeros(2, dtype)
        assert widened(bits, np.dtype(dtype), room) is room
        assert room.tolist() == [1.5, -2.0]
    same = np.array([1.0, 2.0])
    assert widened(same, np.dtype(np.float64)) is same


def test_shown_and_hidden_are_inverse():
    bits = np.array([16256, 16257], np.uint16)
    assert shown(bits).dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(hidden(shown(bits)), bits)
    assert shown(np.ones(1, np.float32)).dtype == np.float32


def test_names():
    assert stored_as("float64") == np.float64
    assert chosen("bfloat16") == (BF16, np.float32)
    with pytest.raises(ValueError, match="dtype = 'float16', must be one of"):
        chosen("float16")
