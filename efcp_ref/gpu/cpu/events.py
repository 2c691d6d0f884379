"""From what an observing build wrote down, event by event, to the steps of warps: sectors, conflicts, idle lanes."""

from __future__ import annotations

import ctypes
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.paper._validate import Array

WARP, SECTOR, BANKS, WORD = 32, 32, 32, 4  # lanes; bytes; banks; bytes of a bank
SPACES = ("global", "shared")
KINDS = ("read", "write", "atomic", "block barrier", "warp barrier", "exchange")
ATOMIC = KINDS.index("atomic")  # the last that is an access
MOST = 4_000_000  # events that the header keeps
# cuda_on_cpu::Event.
EVENT = np.dtype(
    [("address", "u8"), ("path", "u8"), ("file", "u8"), ("block", "u4"), ("thread", "u4"), ("barriers", "u4"),
     ("turn", "u4"), ("line", "u4"), ("column", "u4"), ("array", "u4"), ("bytes", "u2"), ("space", "u1"),
     ("kind", "u1")]
)  # fmt: skip


def read(library: Any, kernel: str) -> tuple[Array, dict[int, str]]:
    """Return the events of the last launch, and the names of the files that they point to; forget them there.

    Raises:
        ValueError: there were more than can be kept.
    """
    first, count = ctypes.c_void_p(), library.cuda_on_cpu_events
    count.restype = ctypes.c_size_t
    made = count(ctypes.byref(first))
    if made > MOST:
        library.cuda_on_cpu_forget()
        rule = f"must be at most {MOST} to be observed: try fewer rows"
        raise ValueError(f"kernel {kernel} makes {made} accesses, {rule}")
    raw = ctypes.string_at(first, made * EVENT.itemsize) if made else b""
    events = np.frombuffer(raw, EVENT)
    names = {int(at): Path(ctypes.string_at(int(at)).decode()).name for at in np.unique(events["file"])}
    library.cuda_on_cpu_forget()
    return events, names


def groups(*columns: Array) -> Array:
    """Number the rows of a table so that equal rows have equal numbers, 0 .. in the order of the sorted rows.

    >>> groups(np.array([5, 3, 5]), np.array([0, 0, 0])).tolist()
    [1, 0, 1]
    """
    order = np.lexsort(columns[::-1])
    new = np.zeros(len(order), bool)
    for column in (c[order] for c in columns):
        new[1:] |= column[1:] != column[:-1]
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers


def rank(group: Array) -> Array:
    """Return for every row how many rows of its group stand before it.

    >>> rank(np.array([7, 8, 7, 7])).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(group, kind="stable")
    sorted_ = group[order]
    out = np.empty(len(group), np.int64)
    out[order] = np.arange(len(group)) - np.searchsorted(sorted_, sorted_)
    return out


def distinct(step: Array, value: Array) -> Array:
    """Return the rows where a value stands in its step for the first time.

    >>> distinct(np.array([0, 0, 1]), np.array([4, 4, 4])).tolist()
    [0, 2]
    """
    return np.unique(groups(step, value), return_index=True)[1]


def steps(events: Array) -> tuple[Array, Array]:
    """Return for every event the step of its warp, and the step of its block, that it belongs to.

    Lanes do a step together when they are at one place in the code, each as often before on the same turns of the
    loops around it, and after the same barriers: as on a GPU whose lanes meet again at the end of every branch.
    Steps are numbered warp after warp, in an order that each of the lanes keeps.
    """
    place = tuple(events[name] for name in ("barriers", "path", "file", "line", "column", "kind"))
    again = rank(groups(events["block"], events["thread"], *place))
    warp = events["thread"] // WARP
    of_block = groups(events["block"], *place, again)
    step = groups(events["block"], warp, of_block)
    return _in_order(events, warp, step)[step], of_block


def _in_order(events: Array, warp: Array, step: Array) -> Array:
    """Return the place of every step: by block, by warp, and then as the lanes pass through them."""
    sorter: TopologicalSorter[int] = TopologicalSorter()
    chain = np.lexsort((events["turn"], events["thread"], events["block"]))
    same = groups(events["block"], events["thread"])[chain]
    for number in step[np.sort(np.unique(step, return_index=True)[1])]:
        sorter.add(int(number))
    pairs = np.stack([step[chain][:-1], step[chain][1:]], axis=1)[same[:-1] == same[1:]]
    for before, after in np.unique(pairs, axis=0).tolist():
        sorter.add(after, before)
    later = np.fromiter(sorter.static_order(), np.int64)
    first = np.unique(step, return_index=True)[1]
    order = later[np.lexsort((warp[first][later], events["block"][first][later]))]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


def sectors(events: Array, address: Array, step: Array, count: int) -> tuple[Array, Array]:
    """Return for each of ``count`` steps the sectors of global memory that it touches, and the bytes asked for."""
    there = (events["space"] == 0) & (events["kind"] <= ATOMIC)
    s, a, size = step[there], address[there], events["bytes"][there].astype(np.int64)
    touched = np.bincount(s[distinct(s, a // SECTOR)], minlength=count)
    once = distinct(s, a)
    return touched, np.bincount(s[once], size[once], count).astype(np.int64)


def passes(events: Array, step: Array, count: int) -> Array:
    """Return for each of ``count`` steps the passes over shared memory: the most words that one bank must give.

    Lanes that read one word share it. Lanes that add to it atomically do not.
    """
    there = (events["space"] == 1) & (events["kind"] <= ATOMIC)
    s, word = step[there], events["address"][there].astype(np.int64) // WORD
    lane = np.where(events["kind"][there] == ATOMIC, events["thread"][there], 0)
    once = distinct(groups(s, word), lane)
    bank = s[once] * BANKS + word[once] % BANKS
    of, many = np.unique(bank, return_counts=True)
    out = np.zeros(count, np.int64)
    np.maximum.at(out, of // BANKS, many)
    return out
