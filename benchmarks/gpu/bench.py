"""Time every kernel of the ladder on a GPU against the byte floor, the device's own copy, cuSPARSE and PyTorch.

    python benchmarks/gpu/bench.py --model resnet18 --out benchmarks/results/gpu_resnet18.json

CuPy (cuSPARSE) and PyTorch are used where they are installed, and named as missing where not. Every result is compared
with a float64 sum before it is timed. Behind the CPU's stand-in for a driver the script runs too, and says that none
of its times is a GPU's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.gpu import geometry, optimizer, window
from efcp_ref.gpu.device import current
from efcp_ref.gpu.formats import FORMATS, Format, from_bits, offsets, to_bits
from efcp_ref.gpu.window import Window
from efcp_ref.paper.top_k import row_length

MODELS = {"resnet18": 11_700_000, "bert-base": 109_500_000}
DISTINCT = 32  # rows that differ; the others repeat them
STAND_IN = "cuda_on_cpu"  # in the name of the stand-in's device


def library(name: str) -> Any:
    """Return a module, or None where it cannot be imported; why is said."""
    try:
        return importlib.import_module(name)
    except Exception as why:
        print(f"not compared with {name}: {why}")
        return None


def torch_with_cuda() -> Any:
    """Return PyTorch where it has CUDA and finds a GPU, else None; why is said."""
    torch = library("torch")
    if torch is not None and not torch.cuda.is_available():
        print(f"not compared with torch: {torch.__version__} finds no GPU")
        return None
    return torch


class Bench:
    """One device, one model size, and the rows of the report."""

    def __init__(self, d: int, m: int, runs: int) -> None:
        self.device, self.d, self.m, self.runs = current("cuda"), d, m, runs
        self.driver = self.device.driver
        self.rng = np.random.default_rng(0)
        self.rows: list[dict[str, Any]] = []
        self.real = STAND_IN not in self.device.properties.name
        self.copy = self._copy()

    def time(self, call: Callable[[], Any]) -> float:
        """Median milliseconds between two events, after one call that is not counted."""
        call()
        self.device.synchronize()
        times = []
        for _ in range(self.runs):
            first, last = self.driver.Event(), self.driver.Event()
            first.record()
            call()
            last.record()
            last.synchronize()
            times.append(last.time_since(first))
        return float(np.median(times))

    def _copy(self) -> float:
        """GB/s of a copy within the device, bytes read and written, on a buffer far larger than the caches."""
        size = min(1 << 30, max(1 << 20, 40 * self.d))
        a, b = (self.device.empty((size,), np.uint8) for _ in range(2))
        ms = self.time(lambda: self.driver.memcpy_dtod(b.pointer, a.pointer, size))
        return 2 * size / ms / 1e6

    def add(self, **row: Any) -> None:
        """Keep and print one row."""
        self.rows.append(row)
        short = {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in row.items()}
        print("  ".join(f"{name} {value}" for name, value in short.items()), flush=True)

    # ---- data --------------------------------------------------------------------------------------------------------

    def window(self, form: Format, B_d: int) -> tuple[Window, np.ndarray, np.ndarray]:
        """Return a random window on the device, and its distinct rows: absolute indices and values as stored."""
        B_d = min(B_d, self.d)
        B_k, k = -(-B_d // 100), row_length(self.d, B_d, 0.01)
        start, rows = offsets(k, B_d, B_k), min(DISTINCT, self.m)
        width = np.minimum(B_d, self.d - start)  # of the block that an entry is in
        within = np.arange(k) - start // B_d * B_k
        count = np.where(start // B_d == self.d // B_d, max(1, k - self.d // B_d * B_k), B_k)
        low, high = within * width // count, (within + 1) * width // count  # one entry in each stretch: all distinct
        relative = (low + self.rng.random((rows, k)) * (high - low)).astype(np.int64)
        for first in range(0, k, B_k):  # in any order inside a block
            part = relative[:, first : first + B_k]
            relative[:, first : first + B_k] = self.rng.permuted(part, axis=1)
        values = self.rng.standard_normal((rows, k), dtype=np.float32)
        V = to_bits(values) if form.value == "bfloat16" else values
        I = (relative if form.index == "uint16" else relative + start).astype(form.index_dtype)
        on = [self.device.empty((self.m, k), a.dtype) for a in (I, V)]
        for r in range(self.m):
            for held, a in zip(on, (I, V), strict=True):
                self.driver.memcpy_htod(held[r].pointer, np.ascontiguousarray(a[r % rows]))
        kept = from_bits(V) if form.value == "bfloat16" else V
        return Window(on[0], on[1], self.d, B_d, B_k, form), relative + start, kept

    # ---- what is timed -----------------------------------------------------------------------------------------------

    def kernels(self, form: Format, B_d: int) -> None:
        """SP and LCG by every kernel that takes this layout."""
        w, columns, values = self.window(form, B_d)
        rows = len(values)
        g, c = (self.rng.standard_normal(n).astype(np.float32) for n in (self.d, self.m))
        of = np.arange(self.m) % rows
        sums = (values.astype(np.float64) * g[columns]).sum(1)[of]
        weights = np.bincount(of, c.astype(np.float64), rows)[:, None]
        combined = np.bincount(columns.ravel(), (weights * values).ravel(), self.d)
        floor = form.bytes * self.m * w.k + 4 * self.d + 4 * self.m
        gd, cd = self.device.put(g), self.device.put(c)
        jobs = [("SP", n, window.scalar_products, gd, sums) for n in ("textbook", "warps", "slices")]
        names = ["textbook", "global", "rows", *(["warp"] if w.B_k <= 64 else [])]
        jobs += [("LCG", n, window.linear_combination, cd, combined) for n in names]
        for what, name, call, x, wanted in jobs:
            omega = self.device.empty(wanted.shape, np.float32)
            call(self.device, w, x, omega, name)
            error = float(np.abs(self.device.get(omega) - wanted).max() / np.abs(wanted).max())
            if not error < 1e-4:
                raise SystemExit(f"{what} {name} {form} B_d = {B_d} is wrong by {error:.1e}: nothing is timed")
            ms = self.time(lambda call=call, x=x, omega=omega, name=name: call(self.device, w, x, omega, name))
            speed = floor / ms / 1e6
            self.add(what=what, kernel=name, index=form.index, value=form.value, B_d=w.B_d, ms=ms, GB_s=speed,
                     of_copy=speed / self.copy, floor_ms=floor / self.copy / 1e6, error=error)  # fmt: skip
        self.others(w, columns, values, gd, cd)

    def others(self, w: Window, columns: np.ndarray, values: np.ndarray, g: Any, c: Any) -> None:
        """SP and LCG by cuSPARSE through CuPy and by PyTorch's CSR, on the same data (int32 and float32 alone)."""
        if w.form != Format():
            return
        if not self.real:
            print("not compared with cuSPARSE and PyTorch: there is no GPU")
            return
        starts = np.arange(self.m + 1, dtype=np.int64 if self.m * w.k >= 2**31 else np.int32) * w.k
        order = np.argsort(columns, axis=1)
        of = np.arange(self.m) % len(values)
        sorted_columns = np.take_along_axis(columns, order, 1).astype(starts.dtype)[of].ravel()
        sorted_values = np.take_along_axis(values, order, 1)[of].ravel()
        csr = (sorted_values, sorted_columns, starts)
        for compare in (self.cusparse, self.pytorch):
            try:
                compare(w.B_d, csr, g, c)
            except Exception as why:  # out of memory, a format that it does not take: the others are still timed
                print(f"{compare.__name__}: not timed, {type(why).__name__}: {why}")

    def cusparse(self, B_d: int, csr: tuple[np.ndarray, ...], g: Any, c: Any) -> None:
        """SP and LCG by cuSPARSE through CuPy."""
        cupy, sparse = library("cupy"), library("cupyx.scipy.sparse")
        if cupy is None or sparse is None:
            return
        G = sparse.csr_matrix(tuple(cupy.asarray(x) for x in csr), (self.m, self.d))
        T, a, b = G.T.tocsr(), cupy.asarray(g), cupy.asarray(c)
        self.add(what="SP", kernel="cuSPARSE", B_d=B_d, ms=self.time(lambda: G @ a))
        self.add(what="LCG", kernel="cuSPARSE, transpose stored", B_d=B_d, ms=self.time(lambda: T @ b))
        self.add(what="LCG", kernel="cuSPARSE, transposed on the fly", B_d=B_d, ms=self.time(lambda: G.T @ b))

    def pytorch(self, B_d: int, csr: tuple[np.ndarray, ...], g: Any, c: Any) -> None:
        """SP by PyTorch's CSR."""
        torch = torch_with_cuda()
        if torch is None:
            return
        values, columns, starts = (torch.as_tensor(x, device="cuda") for x in csr)
        G = torch.sparse_csr_tensor(starts, columns, values, size=(self.m, self.d))
        a = torch.as_tensor(g, device="cuda")
        self.add(what="SP", kernel="PyTorch CSR", B_d=B_d, ms=self.time(lambda: G @ a))

    def step(self, form: Format, B_d: int) -> None:
        """A whole step of Sparse M-FAC with everything on the device."""
        layout = {"d": self.d, "m": self.m, "lam": 1e-4, "block_size": B_d, "density": 0.01}
        made = optimizer.sparse_mfac(
            **layout, dtype=form.value, index=form.index, order="bank", kernel="fast", device=self.device
        )  # fmt: skip
        g = self.device.put(self.rng.standard_normal(self.d).astype(np.float32))
        for _ in range(min(3, self.m)):
            made.step(g)
        ms = self.time(lambda: made.step(g))
        self.add(what="step", kernel="fast", index=form.index, value=form.value, B_d=B_d, ms=ms)

    def dense_step(self) -> None:
        """A step of dense M-FAC in PyTorch, float32, at the largest m that fits nine tenths of the free memory."""
        torch = torch_with_cuda() if self.real else None
        if torch is None:
            print("dense step: not timed, no PyTorch with a GPU")
            return
        m = min(self.m, int(0.9 * torch.cuda.mem_get_info()[0]) // (4 * self.d) - 4)
        if m < 1:
            print("dense step: not timed, one row does not fit")
            return
        G, g = torch.zeros(m, self.d, device="cuda"), torch.randn(self.d, device="cuda")
        S, eye = torch.zeros(m, m, device="cuda"), torch.eye(m, device="cuda")

        def step() -> Any:
            G[0] = g
            h = G @ g
            S[0] = S[:, 0] = h
            c = torch.cholesky_solve(h[:, None], torch.linalg.cholesky(S + 1e-4 * m * eye))[:, 0] / 1e-4
            return g / 1e-4 - c @ G

        self.add(what="step", kernel="dense, PyTorch", m=m, ms=self.time(step))

    def versions(self) -> dict[str, str]:
        """Versions of what was used."""
        names = ("efcp-ref", "numpy", "pycuda", "cupy", "torch")
        found = {}
        for name in names:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "not installed"
        driver = ".".join(map(str, self.driver.get_version()))
        return found | {"CUDA": driver, "Python": platform.python_version()}


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--d", type=int, help="dimension, in place of a model's")
    parser.add_argument("--m", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    try:
        device = current("cuda")
    except (ImportError, RuntimeError) as why:
        raise SystemExit(f"nothing is measured: {why}") from why
    with device.active():
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Run everything and write the report; the device's context is current."""
    d = given.d or MODELS[given.model]
    bench = Bench(d, given.m, given.runs)
    p = bench.device.properties
    print(f"{p.name}: {p.multiprocessors} multiprocessors, copy {bench.copy:.0f} GB/s, d = {d}, m = {given.m}")
    if not bench.real:
        print("This is the CPU's stand-in for a driver: no GPU figure is measured here.")
    largest = geometry.block_size(p)
    for B_d in (largest, 12_800, 6_400, 3_200):
        for form in FORMATS:
            bench.kernels(form, B_d)
        bench.step(Format("uint16", "bfloat16"), B_d)
    bench.dense_step()
    report = {
        "device": p.name, "a GPU": bench.real,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv, "versions": bench.versions(), "d": d, "m": given.m, "density": "1 %",
        "copy GB/s": bench.copy, "rows": bench.rows,
    }  # fmt: skip
    if given.out:
        given.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
