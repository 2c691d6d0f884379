"""The automatic choice of thread blocks (section 3.1) needs no device, only its properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efcp_ref.gpu import geometry
from efcp_ref.gpu.geometry import A100, H100, block_size, largest_block, resident, thread_blocks
from efcp_ref.paper.top_k import kept

SIZES = st.integers(1, largest_block(H100))


def test_the_largest_block_is_the_papers_on_an_a100():
    assert largest_block(A100) == 41_728  # appendix G.2


@given(SIZES, st.integers(1, 10**9), st.sampled_from([32, 64, 128, 1024]))
def test_no_block_waits_and_no_further_block_would_save_a_round(B_d, d, threads):
    B = thread_blocks(H100, B_d, d, threads)
    slices, at_once = -(-d // B_d), H100.multiprocessors * resident(H100, 4 * B_d, threads)
    assert 1 <= B <= min(slices, at_once)
    rounds = -(-slices // B)
    assert rounds == -(-slices // at_once)  # as few as with all that fit at once
    assert B == 1 or -(-slices // (B - 1)) > rounds  # one block less would take longer


@given(SIZES, st.sampled_from([32, 128, 1024]))
def test_resident_blocks_fit_every_limit(B_d, threads):
    n = resident(H100, 4 * B_d, threads)
    assert n * (4 * B_d + 1024) <= H100.shared_per_multiprocessor or n == 1
    assert n * threads <= 2048
    assert n <= 32


@pytest.mark.parametrize(("device", "size"), [(A100, 41_600), (H100, 57_600)])
def test_the_block_size_keeps_rows_aligned(device, size):
    assert block_size(device) == size
    assert kept(size, geometry.Fraction(1, 100)) % 8 == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: thread_blocks(A100, 41_729, 10**6), "block_size = 41729 needs 166916 bytes .* at most 41728 on A100"),
        (lambda: thread_blocks(A100, 0, 10**6), "block_size = 0, must be at least 1"),
        (lambda: thread_blocks(A100, 100, 0), "d = 0, must be at least 1"),
        (lambda: thread_blocks(A100, 100, 10, 1025), r"threads = 1025, must be in 1\.\.1024"),
    ],
)
def test_what_cannot_be_launched_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
