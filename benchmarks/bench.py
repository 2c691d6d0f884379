"""The figures of docs/fast.md: ``python benchmarks/bench.py [NAME ...]`` measures them and writes results/NAME.json.

Needs the package installed, and PyTorch for what it is compared with; minutes on an idle machine. A run that is
interrupted is continued by the same command, figure by figure. ``python benchmarks/table.py`` turns the results into
the table and the picture.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data import BERT_BASE, BLOCK, F32, RESNET_18, csr, window
from measure import UNFINISHED, already, in_child, interleaved, least, medians, ratio, remember, slope, written

from efcp_ref.fast import memory, threads
from efcp_ref.fast.feedback import feed_back
from efcp_ref.fast.layout import Layout
from efcp_ref.fast.optimizers.mfac import sparse_mfac
from efcp_ref.fast.solve import damped, factorised, moved_on
from efcp_ref.fast.sums import Tiles, linear_combination, scalar_products
from efcp_ref.fast.window import Window

CORES = threads.count()


def _products(w: Window, g: Any, c: Any, prefix: str = "", count: int = CORES) -> dict[str, Callable[[], Any]]:
    """SP and LCG of the twin with so many threads."""
    out = np.empty(w.layout.d, F32)

    def write(s: Any, total: Any) -> None:
        out[s.start : s.end] = total

    def sp() -> Any:
        with threads.limit(count):
            return scalar_products(w, g, F32)

    def lcg() -> Any:
        with threads.limit(count):
            linear_combination(w, c, write, F32)
        return out

    return {f"{prefix}sp": sp, f"{prefix}lcg": lcg}


def _vectors(d: int, m: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(2)
    return rng.standard_normal(d, dtype=F32), rng.standard_normal(m, dtype=F32)


def products() -> dict[str, Any]:
    """SP and LCG against SciPy CSR, PyTorch CSR with the same threads, and a plain copy of the bytes that they read."""
    import torch
    from naive import SparseCSR
    from scipy import sparse

    torch.set_num_threads(CORES)
    w = window(RESNET_18, 256)
    g, c = _vectors(RESNET_18, 256)
    G, other = sparse.csr_array(csr(w), shape=(256, RESNET_18)), SparseCSR(w)
    x, y, room = torch.from_numpy(g), torch.from_numpy(c), (np.empty_like(w.values), np.empty_like(w.indices))

    def copy() -> None:
        np.copyto(room[0], w.values)
        np.copyto(room[1], w.indices)

    contenders = {
        **_products(w, g, c), "copy": copy, "scipy sp": lambda: G @ g, "torch sp": lambda: other.sp(x),
        **_products(w, g, c, "1 thread ", 1), "scipy lcg": lambda: G.T @ c, "torch lcg": lambda: other.lcg(y),
    }  # fmt: skip
    _agree(contenders, "sp", ("1 thread sp", "scipy sp", "torch sp"))
    _agree(contenders, "lcg", ("1 thread lcg", "scipy lcg", "torch lcg"))
    seconds = interleaved(contenders, 9)
    ratios = {f"{a} / {b}": ratio(seconds, a, b) for a, b in _PAIRS}
    read = w.values.nbytes + w.indices.nbytes
    return {"d": RESNET_18, "m": 256, "density": 0.01, "block": BLOCK, "threads": CORES, "bytes": read,
            "medians": medians(seconds), "ratios": ratios, "all": seconds,
            "profile, ns per entry, 1 thread": _products_profile(w, g, c, copy)}  # fmt: skip


def _products_profile(w: Window, g: Any, c: Any, copy: Callable[[], Any]) -> dict[str, float]:
    """What the parts of SP and LCG take on one thread, over the whole window, in ns per entry."""
    tiles, slices, total = Tiles(w, F32), w.layout.slices[:-1], np.zeros(w.count)
    _, hot = next(tiles.pieces(0))  # its arrays stay in the cache

    def sp() -> None:
        for number, s in enumerate(slices):
            for rows, tile in tiles.pieces(number):
                total[rows] += tile.times(g[s.start : s.end])

    parts = {
        "the plain copy": copy,
        "positions widened": lambda: [tile for number in range(len(slices)) for tile in tiles.pieces(number)],
        "positions widened, CSR products": sp,
        "positions widened, CSC products": lambda: [
            tile.combined(c[rows]) for number in range(len(slices)) for rows, tile in tiles.pieces(number)
        ],
    }  # fmt: skip
    entries, x, weights = w.count * w.layout.K, g[: slices[0].end], c[: w.count]
    found = {name: value / entries * 1e9 for name, value in least(interleaved(parts, 5)).items()}
    one = {"CSR product, all of it in the cache": lambda: hot.times(x),
           "CSC product, all of it in the cache": lambda: hot.combined(weights)}  # fmt: skip
    return found | {name: value / len(hot.values) * 1e9 for name, value in least(interleaved(one, 200)).items()}


_PAIRS = [
    ("scipy sp", "sp"), ("scipy lcg", "lcg"), ("torch sp", "sp"), ("torch lcg", "lcg"), ("sp", "copy"), ("lcg", "copy"),
    ("1 thread sp", "copy"), ("1 thread lcg", "copy"), ("1 thread sp", "sp"), ("1 thread lcg", "lcg"),
]  # fmt: skip


def _agree(contenders: dict[str, Callable[[], Any]], own: str, others: tuple[str, ...]) -> None:
    """Raise AssertionError unless all contenders compute the same."""
    expected = np.array(contenders[own]())
    for name in others:
        np.testing.assert_allclose(np.asarray(contenders[name]()), expected, rtol=0, atol=1e-4 * abs(expected).max())


def top_k() -> dict[str, Any]:
    """Blockwise Top-k with error feedback against a plain copy of the accumulator; and what its passes take."""
    rng, laid = np.random.default_rng(0), Layout.of(RESNET_18, BLOCK, 0.01)
    xi, g = rng.standard_normal(RESNET_18, dtype=F32), rng.standard_normal(RESNET_18, dtype=F32)
    out = np.empty_like(xi)

    def limited(count: int) -> Callable[[], Any]:
        def run() -> None:
            with threads.limit(count):
                feed_back(xi, g, laid, F32, out)

        return run

    contenders = {"feedback": limited(CORES), "feedback, 1 thread": limited(1), "copy": lambda: np.copyto(out, xi)}
    seconds = interleaved(contenders, 15)
    ratios = {f"{name} / copy": ratio(seconds, name, "copy") for name in contenders if name != "copy"}
    return {"d": RESNET_18, "block": BLOCK, "density": 0.01, "threads": CORES, "medians": medians(seconds),
            "ratios": ratios, "profile, ns per entry, 1 thread": _profile(xi, g), "all": seconds}  # fmt: skip


def _profile(xi: Any, g: Any) -> dict[str, float]:
    """What every pass over a slice takes, in ns per entry: the sum is most of the time."""
    from efcp_ref.fast.selection import sampled

    n, k = BLOCK, -(-BLOCK // 100)
    blocks = [slice(b * n, b * n + n) for b in range(len(xi) // n)]
    a, size, on = np.empty(n, F32), np.abs(xi[:n] + g[:n]), np.empty(n, bool)
    cut = np.partition(size, n - k)[n - k]
    over = {
        "xi + g, from memory": lambda: [np.add(xi[b], g[b], out=a) for b in blocks],
        "magnitude": lambda: [np.abs(a, out=a) for _ in blocks],
        "finite": lambda: [size.max() for _ in blocks],
        "Top-k of a slice": lambda: [sampled(size, k) for _ in blocks],
        "of it: compare": lambda: [np.greater_equal(size, cut, out=on) for _ in blocks],
        "of it: positions": lambda: [np.flatnonzero(on) for _ in blocks],
        "Top-k by partition alone": lambda: [np.partition(size, n - k) for _ in blocks],
    }
    return {name: value / (n * len(blocks)) * 1e9 for name, value in least(interleaved(over, 7)).items()}


def step_resnet() -> dict[str, Any]:
    """A whole step of sparse M-FAC, ResNet-18, m = 1024; dense M-FAC in PyTorch for growing m, extrapolated."""
    size = {"d": RESNET_18, "m": 1024, "block_size": BLOCK, "density": 0.01}
    parts = {dtype: in_child("sparse_step", **size, dtype=dtype, steps=9) for dtype in ("float32", "bfloat16")}
    there = memory.available() or 0
    rows = [32, 64] + [m for m in (128, 256) if 1.25 * 4 * m * RESNET_18 < there]
    dense = {m: in_child("dense_step", d=RESNET_18, m=m, steps=5, threads=CORES) for m in rows}
    middle, dense_s = _middle(parts, "seconds"), _middle(dense, "seconds")
    extrapolated = _extended(dense_s)
    per_d = {name: part["grown"] / RESNET_18 for name, part in parts.items()}
    used = _extended(_middle(dense, "of the processors"))
    return {**size, "threads": CORES, "medians": middle, "bytes per d": per_d,
            "paper's bytes per d (F.1)": {"bfloat16": 69.44, "float32": 89.92}, "dense medians": dense_s,
            "dense, m = 1024, extrapolated": extrapolated, "dense bytes": 4 * 1024 * RESNET_18,
            "dense / sparse": {name: extrapolated / seconds for name, seconds in middle.items()},
            "dense / sparse, of the processors": {
                name: used / seconds for name, seconds in _middle(parts, "of the processors").items()
            }, "parts": parts, "dense": dense}  # fmt: skip


def _middle(runs: dict[Any, dict[str, Any]], key: str) -> dict[Any, float]:
    return {name: float(np.median(run[key])) for name, run in runs.items()}


def _extended(dense: dict[int, float]) -> float:
    """Return the dense step's seconds at m = 1024 by the cost of a row up to the two largest m, the lesser one."""
    per_row = min((dense[m] - dense[32]) / (m - 32) for m in sorted(dense)[-2:] if m > 32)
    return dense[32] + per_row * (1024 - 32)


def step_bert() -> dict[str, Any]:
    """A whole step of sparse M-FAC, BERT-Base, m = 1024, 1 %, uint16 and bfloat16."""
    size = {"d": BERT_BASE, "m": 1024, "block_size": BLOCK, "density": 0.01, "dtype": "bfloat16"}
    part = in_child("sparse_step", **size, steps=4)
    return {**size, "threads": CORES, "median": float(np.median(part["seconds"])), "peak": part["peak"],
            "dense GiB": 4 * 1024 * BERT_BASE / 2**30, "part": part}  # fmt: skip


def disk_resnet() -> dict[str, Any]:
    """Save and load of ResNet-18, m = 1024: bit exact, in place."""
    with tempfile.TemporaryDirectory() as folder:
        part = in_child("disk", d=RESNET_18, m=1024, dtype="float32", block_size=BLOCK, density=0.01, folder=folder)
    return {"d": RESNET_18, "m": 1024, **part}


def naive() -> dict[str, Any]:
    """SP and LCG against the paper's naive form in PyTorch: sparse storage, dense arithmetic."""
    import torch
    from naive import Naive

    torch.set_num_threads(CORES)
    m = 32
    w = window(RESNET_18, m)
    g, c = _vectors(RESNET_18, m)
    other, x, y = Naive(w), torch.from_numpy(g), torch.from_numpy(c)
    own = _products(w, g, c)
    contenders = {
        **own, "naive sp": lambda: other.sp(x), "naive lcg": lambda: other.lcg(y),
        "both": lambda: (own["sp"](), own["lcg"]()), "naive both": lambda: (other.sp(x), other.lcg(y)),
    }  # fmt: skip
    _agree(contenders, "sp", ("naive sp",))
    _agree(contenders, "lcg", ("naive lcg",))
    seconds = interleaved(contenders, 5)
    own_bytes = w.values.nbytes + w.indices.nbytes
    return {"d": RESNET_18, "m": m, "density": 0.01, "block": BLOCK, "threads": CORES, "medians": medians(seconds),
            "naive / ours": ratio(seconds, "naive both", "both"), "bytes": own_bytes, "naive bytes": other.nbytes,
            "memory saved": 1 - own_bytes / other.nbytes, "paper": "1.5-2 times faster, 20-30 % less memory",
            "all": seconds}  # fmt: skip


SWEEPS: dict[str, dict[str, Any]] = {
    "d": {"values": [RESNET_18 // 8, RESNET_18 // 4, RESNET_18 // 2, RESNET_18], "m": 512},
    "m": {"values": [512, 1024, 2048, 4096], "d": RESNET_18 // 4},
    "density": {"values": [0.0025, 0.005, 0.01, 0.02, 0.04], "d": RESNET_18 // 4, "m": 512},
    "block_size": {"values": [256, 1024, 4096, 16384, 41728, 65536, 131072], "d": RESNET_18 // 4, "m": 256},
}


def growth() -> dict[str, Any]:
    """How SP, LCG, insertion and memory grow with d, m, density and block size: medians and log-log slopes."""
    found: dict[str, Any] = {}
    for name, sweep in SWEEPS.items():
        base = {"d": RESNET_18 // 2, "m": 128, "block_size": BLOCK, "density": 0.01}
        base.update({key: value for key, value in sweep.items() if key != "values"})
        sizes = [{**base, name: value} for value in sweep["values"]]
        points, one_row = _points(sizes, {**sizes[0], "m": 1})
        slopes = {what: slope(sweep["values"], [p[what] for p in points]) for what in points[0]}
        found[name] = {"fixed": {k: v for k, v in base.items() if k != name}, "values": sweep["values"],
                       "points": points, "slopes": slopes, "a window of one row": one_row}  # fmt: skip
    return {"threads": CORES, "sweeps": found}


def _points(sizes: list[dict[str, Any]], one_row: dict[str, Any]) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Seconds and bytes at every size, and at the first of them with a single row: what does not grow with m.

    All sizes take turns, so that a slow minute, or a window that a cache would hold, meets all of them.
    """
    contenders = {(n, what): run for n, size in enumerate([*sizes, one_row]) for what, run in _timed(**size).items()}
    middle = medians(interleaved(contenders, 5))
    points: list[dict[str, float]] = [{} for _ in [*sizes, one_row]]
    for (n, what), seconds in middle.items():
        points[n][what] = seconds
    for point, size in zip(points, sizes, strict=False):
        point["bytes"] = sum(sparse_mfac.needs(**size, dtype="float32").values())
    return points[:-1], points[-1]


def _timed(d: int, m: int, block_size: int, density: float) -> dict[str, Callable[[], Any]]:
    """SP, LCG, the row written and a whole insertion: the row, and its row of S."""
    w = window(d, m, block_size, density)
    g, c = _vectors(d, m)
    indices, values = w.read(0)
    own = _products(w, g, c)

    def insertion() -> None:
        w.write(0, indices, values)
        own["sp"]()

    return {**own, "row": lambda: w.write(0, indices, values), "insertion": insertion}


def solve() -> dict[str, Any]:
    """The m by m system: a refactorisation against the updated factor, and how both grow."""
    rng, points = np.random.default_rng(0), {}
    for m in (256, 512, 1024, 2048):
        G = rng.standard_normal((m, 2 * m))
        S = G @ G.T
        M = damped(S.copy(), 1e-3)
        R, column = factorised(M.copy(order="F")), M[:, -1].copy()
        contenders = {"refactorisation": lambda S=S: factorised(damped(S.copy(), 1e-3)),
                      "update": lambda R=R, column=column: moved_on(R, column)}  # fmt: skip
        seconds = interleaved(contenders, 7)
        points[m] = {**medians(seconds), "ratio": ratio(seconds, "refactorisation", "update")}
    sizes = list(points)
    slopes = {n: slope(sizes, [points[m][n] for m in sizes]) for n in ("refactorisation", "update")}
    return {"blas threads": int(os.environ.get("OPENBLAS_NUM_THREADS", CORES)), "points": points, "slopes": slopes}


def imports() -> dict[str, Any]:
    """Start-up: whole processes, the interpreter's own start included."""
    commands = {"python": ["-c", "pass"], "import efcp_ref": ["-c", "import efcp_ref"],
                "import efcp_ref.fast": ["-c", "import efcp_ref.fast"],
                "efcp-ref --help": ["-m", "efcp_ref", "--help"]}  # fmt: skip
    root = Path(__file__).parents[1]

    def start(arguments: list[str]) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, check=True)

    return {"medians": medians(interleaved({name: start(a) for name, a in commands.items()}, 11))}


FIGURES: dict[str, Callable[[], dict[str, Any]]] = {
    f.__name__: f for f in (imports, solve, top_k, products, naive, growth, step_resnet, disk_resnet, step_bert)
}


def main(names: list[str]) -> int:
    """Measure the figures named, or all of them; go on where a run of the same figures was interrupted."""
    wanted = names or list(FIGURES)
    for name in wanted:
        if name not in FIGURES:
            print(f"no figure {name!r}, there are {', '.join(FIGURES)}", file=sys.stderr)
            return 2
    if done := already(wanted):
        print(f"continued: {', '.join(done)} measured before; to begin anew, delete {UNFINISHED}", flush=True)
    for name in [name for name in wanted if name not in done]:
        try:
            print(f"{len(done) + 1}/{len(wanted)} {name}: {(FIGURES[name].__doc__ or '').splitlines()[0]}", flush=True)
            _tell(written(name, FIGURES[name]))
        except KeyboardInterrupt:
            print(f"\ninterrupted in {name}, {len(done)} of {len(wanted)} measured; the same command continues there")
            return 130
        done.append(name)
        remember(wanted, done)
    return 0


def _tell(result: dict[str, Any]) -> None:
    shown = ("medians", "ratios", "median", "slopes", "peak")
    short = {key: value for key, value in result.items() if key in shown}
    print(f"  {result['seconds']} s, load {result['load']['before']}: {short}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
