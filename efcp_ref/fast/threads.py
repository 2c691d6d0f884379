"""Threads over slices: NumPy and SciPy let go of the interpreter while they work, so slices run side by side.

The one idea: the slices are dealt into a fixed number of groups, whatever the number of threads, and the groups'
results are put together in order. So the answer does not depend on how many threads there are, to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import get_ident
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GROUPS = 16
WORTH = 2**17  # entries below which starting a thread costs more than it saves
_limit: list[int] = []  # what `limit` asks for, innermost last


def count() -> int:
    """Return how many threads are used: those of `limit`, else EFCP_THREADS, else the cores of this process."""
    if _limit:
        return _limit[-1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(os.environ.get("EFCP_THREADS", cores)))


@contextmanager
def limit(threads: int) -> Iterator[None]:
    """Use at most so many threads inside a ``with``.

    >>> with limit(1):
    ...     count()
    1
    """
    _limit.append(max(1, int(threads)))
    try:
        yield
    finally:
        _limit.pop()


def grouped(items: Sequence[Item], groups: int = GROUPS) -> list[Sequence[Item]]:
    """Return the items in at most so many runs of neighbours.

    >>> grouped(range(7), 3)
    [range(0, 3), range(3, 6), range(6, 7)]
    """
    size = -(-len(items) // groups)
    return [items[i : i + size] for i in range(0, len(items), size)]


class Own(Generic[Item]):
    """Something that every thread makes once and keeps while this object lives: its buffers.

    >>> own = Own(list)
    >>> own() is own()
    True
    """

    def __init__(self, make: Callable[[], Item]) -> None:
        self._make, self._made = make, dict[int, Item]()

    def __call__(self) -> Item:
        """Return this thread's."""
        me = get_ident()
        if me not in self._made:
            self._made[me] = self._make()
        return self._made[me]


def over(
    function: Callable[[Any], Result], items: Sequence[Any], work: int, groups: int = GROUPS
) -> list[Result]:
    """Return ``function(part)`` of every run of neighbouring items, in order; ``work``: entries that are read in all.

    An exception, KeyboardInterrupt too, waits for the groups that have begun and cancels the others.
    """
    parts = grouped(items, groups)
    workers = min(count(), len(parts))
    if workers == 1 or work < WORTH:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, part) for part in parts]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
