"""Memory is counted before it is taken.

The one idea: every array that an optimizer will ever hold, or make during a step, is known from its parameters. So the
constructor adds them up and refuses what cannot fit, instead of being killed in the middle of a step.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

CONTROL_GROUPS = (  # (limit, use): Linux control groups, version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available() -> int | None:
    """Return the bytes that can be had now, by the system and by the control group; None where nobody says."""
    found = [_system(), *(_group(limit, use) for limit, use in CONTROL_GROUPS)]
    return min((n for n in found if n is not None), default=None)


def _system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _group(limit: str, use: str) -> int | None:
    try:
        return int(Path(limit).read_text()) - int(Path(use).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def reserve(name: str, parts: Mapping[str, int]) -> None:
    """Raise MemoryError, saying what is needed and what there is, before anything is allocated.

    >>> reserve("window", {"indices": 2 * 10**18, "values": 4 * 10**18})
    Traceback (most recent call last):
    ...
    MemoryError: window needs 6000000000000000000 bytes (values 4000000000000000000, indices 2000000000000000000), ...
    """
    needed, there = sum(parts.values()), available()
    if there is not None and needed > there:
        items = ", ".join(f"{part} {size}" for part, size in sorted(parts.items(), key=lambda item: -item[1])[:4])
        raise MemoryError(f"{name} needs {needed} bytes ({items}), {there} are available")
