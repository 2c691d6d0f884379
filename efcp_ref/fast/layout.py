"""Where everything lies: slices of whole Top-k blocks, and strips of a slice, each small enough for a cache.

The one idea: a position counted from the start of its slice is less than 65,536, so two bytes hold it, and a slice of a
vector (256 KB in float32) stays in a core's second-level cache. Positions ascend within a row, so the first 40 entries
of all rows lie near one another, and so do the next 40: strip by strip, the rows pass over a stretch of the vector that
stays in the first-level cache. Rows that do not ascend, or cluster, are only slower.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper.top_k import kept

SPAN = 2**16  # coordinates that uint16 can tell apart; a longer block is a slice of its own, with int32
REACH = 2**12  # coordinates under a strip if a row spreads evenly: 16 KB of a float32 vector
SHORTEST = 32  # entries of a strip, or of a whole row of a slice: it costs something to begin one


class Slice(NamedTuple):
    """Whole Top-k blocks that lie side by side."""

    start: int  # coordinates start..end of a vector (d,)
    end: int
    first: int  # entries first..last of a row (K,)
    last: int


@dataclass(frozen=True)
class Layout:
    """How a vector (d,) falls into blocks, and a row (K,) with it."""

    d: int
    B_d: int  # coordinates of a block; the last one may be shorter
    B_k: int  # entries kept of a full block
    K: int  # entries of a row

    @classmethod
    def of(cls, d: Any, block_size: Any = None, density: Any = 1, k: int | None = None) -> Layout:
        """Return the layout of `block_size` and `density`, counted exactly (R11); nothing said: one block of k entries.

        Raises:
            TypeError, ValueError: d or block_size is not an integer of at least 1, or density is not in (0, 1].

        >>> Layout.of(10, 4, 0.3)  # 2 + 2 + 1
        Layout(d=10, B_d=4, B_k=2, K=5)
        """
        d = check.dimension(d)
        if block_size is None and k is not None and density == 1:
            return cls(d, d, k, k)
        share = check.share("density", density)
        B_d = d if block_size is None else min(d, check.integer("block_size", block_size, 1))
        B_k = kept(B_d, share)
        return cls(d, B_d, B_k, d // B_d * B_k + kept(d % B_d, share))

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """As many whole blocks as SPAN coordinates hold, at least one.

        >>> Layout.of(200_000, 41_728, 0.01).slices[-1]
        Slice(start=166912, end=200000, first=1672, last=2003)
        """
        blocks = max(1, SPAN // self.B_d)
        d, k = blocks * self.B_d, blocks * self.B_k
        count = -(-self.d // d)
        return tuple(
            Slice(i * d, min(self.d, i * d + d), i * k, min(self.K, i * k + k) if i + 1 < count else self.K)
            for i in range(count)
        )

    def width(self, s: Slice) -> int:
        """Return the entries of a strip of a slice; the last strip may have fewer.

        >>> laid = Layout.of(200_000, 41_728, 0.01)
        >>> laid.width(laid.slices[0])  # 418 entries in 10 strips
        42
        """
        entries = s.last - s.first
        strips = max(1, min((s.end - s.start) // REACH, entries // SHORTEST))
        return max(1, -(-entries // strips))

    def strips(self, s: Slice) -> list[tuple[int, int]]:
        """Return the strips of a slice: their entries first..last of a row (K,).

        >>> laid = Layout.of(200_000, 41_728, 0.01)
        >>> laid.strips(laid.slices[1])[:2]
        [(418, 460), (460, 502)]
        """
        width = self.width(s)
        return [(first, min(first + width, s.last)) for first in range(s.first, s.last, width)]

    @property
    def index(self) -> np.dtype[Any]:
        """What holds a position relative to its slice: uint16, or int32 where a block is larger than 65,536."""
        return np.dtype(np.uint16 if self.B_d <= SPAN else np.int32)


def computed(*dtypes: Any) -> np.dtype[Any]:
    """Return what is computed in: float32 for arguments of at most 32 bits, else float64.

    >>> computed(np.float32), computed(np.float32, np.float64)
    (dtype('float32'), dtype('float64'))
    """
    return np.dtype(np.float32 if max(np.dtype(t).itemsize for t in dtypes) <= 4 else np.float64)
