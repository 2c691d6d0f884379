"""Parts that run in a process of their own, for the peak of its memory: ``python child.py NAME JSON``, prints JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from measure import peak
from scipy import linalg, sparse  # noqa: F401  imported before memory is counted, like everything else

from efcp_ref import fast


def sparse_step(d: int, m: int, dtype: str, steps: int, block_size: int, density: float) -> dict[str, Any]:
    """Fill a window of m rows and take some steps: seconds of each and of its parts, and the memory that it took."""
    from data import filled_optimizer

    rng = np.random.default_rng(1)
    g = rng.standard_normal(d, dtype=np.float32)
    fast.sparse_mfac(1000, 4, 1.0, 100, dtype=dtype).step(g[:1000])  # everything is imported
    before = peak()
    optimizer = filled_optimizer(fast.sparse_mfac(d, m, 1e-4, block_size, density, dtype))
    built, parts = peak(), _watched(optimizer)
    seconds, used = _timed(lambda: optimizer.step(g), steps + 1)  # the first one factorises
    high = peak()
    return {
        "seconds": seconds[1:], "of the processors": used[1:], "first": seconds[0],
        "peak": high, "before": before, "grown": high - before,
        "built": built - before, "counted": optimizer.nbytes, "memory": optimizer.memory,
        "profile": _profile(parts, seconds[1:]), "bytes copied": _copied(optimizer),
    }  # fmt: skip


def _watched(optimizer: Any) -> dict[str, list[tuple[float, float]]]:
    """From now on note the seconds, and those of the processors, of every part of every step, inside the step."""
    from efcp_ref.fast.optimizers import mfac

    seen: dict[str, list[tuple[float, float]]] = {}

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            start, used = time.perf_counter(), time.process_time()
            result = part(*arguments)
            seen.setdefault(name, []).append((time.perf_counter() - start, time.process_time() - used))
            return result

        return run

    mfac.feed_back = timed("Top-k with error feedback", mfac.feed_back)
    mfac.scalar_products = timed("SP: the row of S", mfac.scalar_products)
    optimizer._coefficients = timed("factor and solve", optimizer._coefficients)
    mfac.less_combination = timed("LCG and x / lam", mfac.less_combination)
    return seen


def _profile(parts: dict[str, list[tuple[float, float]]], steps: list[float]) -> dict[str, dict[str, float]]:
    """Return the parts of the step that took the median time, and what is left of it."""
    middle = sorted(range(len(steps)), key=steps.__getitem__)[len(steps) // 2]
    of_step = {name: values[1:][middle] for name, values in parts.items()}  # the first step is not counted
    found = {name: {"seconds": wall, "of the processors": used} for name, (wall, used) in of_step.items()}
    rest = steps[middle] - sum(wall for wall, _ in of_step.values())
    return {**found, "the rest: the row written, c written out": {"seconds": rest}}


def _copied(optimizer: Any) -> float:
    """Return the seconds that a plain copy of the window's bytes takes, 16 MB at a time into one place."""
    room, seconds = np.empty(2**24, np.uint8), []
    for _ in range(3):
        start = time.perf_counter()
        for array in (optimizer._window.indices, optimizer._window.values):
            flat = array.view(np.uint8)
            for at in range(0, len(flat), len(room)):
                part = flat[at : at + len(room)]
                np.copyto(room[: len(part)], part)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def dense_step(d: int, m: int, steps: int, threads: int) -> dict[str, Any]:
    """Take some steps of dense M-FAC in PyTorch."""
    import torch
    from naive import DenseMFAC

    torch.set_num_threads(threads)
    before = peak()
    optimizer, g = DenseMFAC(d, m, 1e-4), torch.randn(d)
    seconds, used = _timed(lambda: optimizer.step(g), steps + 1)
    return {"seconds": seconds[1:], "of the processors": used[1:], "grown": peak() - before}


def _timed(step: Callable[[], Any], steps: int) -> tuple[list[float], list[float]]:
    """Return the seconds of every step, and those of the processors, which other work touches less."""
    wall, used = [], []
    for _ in range(steps):
        start, spent = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        used.append(time.process_time() - spent)
    return wall, used


def disk(d: int, m: int, dtype: str, block_size: int, density: float, folder: str) -> dict[str, Any]:
    """Save a full optimizer and load it into another one in its place: seconds, bytes, and whether the bits agree."""
    from data import filled_optimizer

    path, g = Path(folder) / "state", np.random.default_rng(1).standard_normal(d, dtype=np.float32)
    optimizer = filled_optimizer(fast.sparse_mfac(d, m, 1e-4, block_size, density, dtype))
    optimizer.step(g)
    start = time.perf_counter()
    optimizer.save(path)
    saved = time.perf_counter() - start
    kept = {name: _digest(a) for name, a in optimizer._fixed().items()}
    optimizer.step(g)
    after, start, high = optimizer.step(g).copy(), time.perf_counter(), peak()
    optimizer.load(path)
    loaded = time.perf_counter() - start
    same = kept == {name: _digest(a) for name, a in optimizer._fixed().items()}
    optimizer.step(g)
    same = same and np.array_equal(optimizer.step(g), after)
    size = path.stat().st_size
    path.unlink()
    return {
        "seconds to save": saved, "seconds to load": loaded, "bytes": size, "bit exact": bool(same),
        "grown by load": peak() - high,
    }  # fmt: skip


def _digest(a: np.ndarray) -> str:
    from hashlib import blake2b

    return blake2b(memoryview(a.reshape(-1).view(np.uint8))).hexdigest()


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))
