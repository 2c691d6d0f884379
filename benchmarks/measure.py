"""How everything here is measured: interleaved repeats in one process, medians, ratios within a round.

Contenders take turns, so that whatever else the machine does meets all of them; a ratio is taken inside a round and its
median reported, which a slow minute does not move.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
UNFINISHED = RESULTS / ".unfinished"  # which figures a run that was interrupted has measured
SOURCES = (Path(__file__).parent, Path(__file__).parents[1] / "efcp_ref" / "fast")
CLOCK = time.process_time if os.environ.get("EFCP_BENCH_CLOCK") == "cpu" else time.perf_counter
Contenders = Mapping[str, Callable[[], Any]]


def interleaved(contenders: Contenders, rounds: int = 7) -> dict[str, list[float]]:
    """Return the seconds of every contender in every round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for n in range(rounds + 1):
        for name, run in contenders.items():
            start = CLOCK()
            run()
            if n:
                seconds[name].append(CLOCK() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of every contender."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def least(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the least of every contender: for profiles, which are of the code and not of what else the machine did."""
    return {name: min(values) for name, values in seconds.items()}


def ratio(seconds: Mapping[str, list[float]], above: str, below: str) -> float:
    """Return the median over the rounds of ``above / below``."""
    return statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


def slope(x: list[float], y: list[float]) -> float:
    """Return the slope of log y against log x, least squares."""
    from math import log

    a, b = [log(v) for v in x], [log(v) for v in y]
    ma, mb = statistics.fmean(a), statistics.fmean(b)
    return sum((p - ma) * (q - mb) for p, q in zip(a, b, strict=True)) / sum((p - ma) ** 2 for p in a)


def machine() -> dict[str, Any]:
    """Describe the machine and the libraries."""
    packages = {}
    for name in ("numpy", "scipy", "torch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    info = _lscpu()
    return {
        "processor": info.get("Model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "L2": info.get("L2 cache", "?"),
        "L3": info.get("L3 cache", "?"),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "python": platform.python_version(),
        **packages,
    }


def _lscpu() -> dict[str, str]:
    try:
        out = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


def peak() -> int:
    """Return the largest resident size of this process so far, in bytes.

    Not ``ru_maxrss`` where Linux says better: that of a new process starts at its parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def written(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one figure and write its file: what was measured, how to repeat it, where, and how busy the machine was."""
    before = os.getloadavg()[0]
    start = time.perf_counter()
    found = run()
    result = {
        "figure": name,
        "command": f"python benchmarks/bench.py {name}",
        "clock": CLOCK.__name__,
        "machine": machine(),
        "load": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "seconds": round(time.perf_counter() - start, 1),
        **found,
    }
    replaced(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")
    return result


def replaced(path: Path, text: str) -> None:
    """Write a file: all of it, or none."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def digest() -> str:
    """Return a checksum of what is measured and of what measures."""
    files = sorted(file for folder in SOURCES for file in folder.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def already(names: Sequence[str]) -> list[str]:
    """Return the figures that an interrupted run of the same figures, from the same sources, has measured."""
    try:
        found = json.loads(UNFINISHED.read_text())
        return found["done"] if (found["names"], found["sources"]) == (list(names), digest()) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def remember(names: Sequence[str], done: Sequence[str]) -> None:
    """Write down which figures of a run are measured; forget the run when it is over."""
    if set(names) <= set(done):
        UNFINISHED.unlink(missing_ok=True)
    else:
        replaced(UNFINISHED, json.dumps({"names": list(names), "sources": digest(), "done": list(done)}))


def in_child(figure: str, **arguments: Any) -> dict[str, Any]:
    """Run one figure's part in a process of its own, so that its peak of memory is its own; return what it prints."""
    command = [sys.executable, str(Path(__file__).parent / "child.py"), figure, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{figure} {arguments} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
