"""How a launch is shaped: the automatic choice of section 3.1, as functions of a device's properties alone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from efcp_ref.paper import _validate as check
from efcp_ref.paper.top_k import kept

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Properties:
    """What a launch must know of a device."""

    name: str
    multiprocessors: int
    shared_per_block: int  # bytes, the most that a block may ask for
    shared_per_multiprocessor: int  # bytes
    threads_per_multiprocessor: int = 2048
    blocks_per_multiprocessor: int = 32
    threads_per_block: int = 1024
    reserved_shared: int = 1024  # bytes of shared memory that the system takes from each block
    capability: tuple[int, int] = (8, 0)


A100 = Properties("A100", 108, 163 * 1024, 164 * 1024)
H100 = Properties("H100", 132, 227 * 1024, 228 * 1024, capability=(9, 0))


def largest_block(device: Properties) -> int:
    """Return the largest B_d whose slice fits the shared memory of one block (appendix G.2).

    >>> largest_block(A100), largest_block(H100)  # the paper's 41728, and what an H100 gives
    (41728, 58112)
    """
    return device.shared_per_block // FLOAT


def block_size(device: Properties, density: Any = Fraction(1, 100), entries: int = 8) -> int:
    """Return the largest B_d that fits and keeps a multiple of ``entries`` entries per block.

    Rows of a slice then start at multiples of 16 bytes: eight bfloat16 or uint16.

    >>> block_size(A100), block_size(H100)
    (41600, 57600)
    """
    share = check.share("density", density)
    step = entries * share.denominator // share.numerator or 1
    size = largest_block(device) // step * step or largest_block(device)
    return size if kept(size, share) % entries == 0 else largest_block(device)


def resident(device: Properties, shared_bytes: int, threads: int) -> int:
    """Return how many blocks of this shape are on one multiprocessor at once.

    Raises:
        ValueError: not even one fits.

    >>> resident(A100, 4 * 41728, 1024), resident(H100, 4 * 3200, 32), resident(A100, 4096, 1024)
    (1, 16, 2)
    """
    threads = check.integer("threads", threads, 1, device.threads_per_block)
    if shared_bytes > device.shared_per_block:
        raise ValueError(
            f"block_size = {shared_bytes // FLOAT} needs {shared_bytes} bytes of shared memory, must be at most "
            f"{largest_block(device)} on {device.name} ({device.shared_per_block} bytes per block)"
        )
    by_memory = device.shared_per_multiprocessor // (shared_bytes + device.reserved_shared)
    warps = -(-threads // 32) * 32
    return max(1, min(by_memory, device.threads_per_multiprocessor // warps, device.blocks_per_multiprocessor))


def thread_blocks(device: Properties, B_d: int, d: int, threads: int = 1024) -> int:
    """Return the number of thread blocks for LCG: as many as run at once, none that waits in a queue.

    Source: section 3.1, "Thread Blocks for LCG": given the threads and the shared memory that one block asks for, the
    number that gives full utilisation. At most one per slice; and no more than finish in the same number of rounds.

    Args:
        device: its properties.
        B_d: entries of a slice; the block asks for 4 B_d bytes.
        d: dimension.
        threads: threads of a block, 1..1024.

    Returns:
        B, at least 1.

    Raises:
        ValueError: a slice does not fit the shared memory of a block.

    >>> thread_blocks(A100, 41728, 11_700_000)  # 281 slices, 108 at once: three rounds of 94
    94
    """
    slices = -(-check.integer("d", d, 1) // check.integer("block_size", B_d, 1))
    at_once = device.multiprocessors * resident(device, FLOAT * B_d, threads)
    rounds = -(-slices // at_once)
    return -(-slices // rounds)
