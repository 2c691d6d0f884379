"""The CPU as a device: its arrays are NumPy's, its kernels what `build` compiled."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.gpu.catalogue import KERNELS, entry
from efcp_ref.gpu.cpu import build
from efcp_ref.gpu.formats import FORMATS, Format
from efcp_ref.gpu.geometry import Properties
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

ORDERS = ("forward", "reverse", "shuffled")
# Three multiprocessors, so that slices are shared out; shared memory as on an H100.
PROPERTIES = Properties("CPU", 3, 227 * 1024, 228 * 1024)
_TYPES: dict[str, Any] = {"i": ctypes.c_int, "f": ctypes.c_float, "P": ctypes.c_void_p}


class Launch(ctypes.Structure):
    """The shape of a launch, field by field as the C++ structure ``cuda_on_cpu::Launch`` has them."""

    _fields_ = (
        ("blocks", ctypes.c_uint), ("threads", ctypes.c_uint), ("shared_bytes", ctypes.c_uint),
        ("order", ctypes.c_int), ("seed", ctypes.c_uint),
    )  # fmt: skip


@cache
def load(library: Path) -> ctypes.CDLL:
    """Load a library of kernels."""
    return ctypes.CDLL(str(library))


class CPU:
    """The CPU: kernels run behind ``cuda_on_cpu.h``, one block after another, threads in an order of choice.

    Args:
        order: in which order the threads run between two barriers: forward, reverse, or shuffled anew each time.
        seed: of the shuffling.
        sanitize: "", "address" or "thread".
        properties: what it pretends to be.
        texts: sources that stand in for files of ``kernels/``, by name: how a test breaks one.

    The defaults may be set by EFCP_CPU_ORDER, EFCP_CPU_SEED and EFCP_CPU_SANITIZE.
    """

    kind = "cpu"

    def __init__(
        self, order: str | None = None, seed: int | None = None, sanitize: str | None = None,
        properties: Properties = PROPERTIES, texts: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        said = os.environ.get
        self.order = check.choice("order", order or said("EFCP_CPU_ORDER", "forward"), ORDERS)
        self.seed = int(said("EFCP_CPU_SEED", "0")) if seed is None else check.integer("seed", seed, 0)
        sanitize = said("EFCP_CPU_SANITIZE", "") if sanitize is None else sanitize
        self.sanitize = check.choice("sanitize", sanitize, tuple(build.SANITIZERS))
        self.properties, self.transfers, self._texts = properties, 0, dict(texts or {})

    def holds(self, a: Any) -> bool:
        """No array is the device's own: NumPy arrays are the host's."""
        return False

    def adopt(self, name: str, a: Any) -> Array:
        """Return the array itself."""
        return np.asarray(a)

    def put(self, a: Array, stream: Any = None) -> Array:
        """Return the array, contiguous; copied only where it is not."""
        self.transfers += 1
        return np.ascontiguousarray(a)

    def get(self, a: Array, stream: Any = None) -> Array:
        """Return the array itself."""
        self.transfers += 1
        return a

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array, not initialised."""
        return np.empty(shape, dtype)

    def clear(self, a: Array, stream: Any = None) -> None:
        """Set every byte to zero."""
        a.fill(0)

    def free_memory(self) -> int:
        """Bytes of memory that the machine has."""
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def synchronize(self) -> None:
        """Return: every launch has ended."""

    def launch(
        self, kernel: str, form: Format, blocks: int, threads: int, shared: int, *arguments: Any, stream: Any = None
    ) -> None:
        """Run a kernel to its end.

        Raises:
            ValueError: a launch that no GPU would take.
            RuntimeError: threads wait at different barriers; the message names them.
        """
        function, held = self.function(kernel, form), packed(kernel, arguments)
        run_packed(function, self._shape(kernel, blocks, threads, shared), held, kernel)

    def library(self, kernel: str, form: Format, observe: bool = False) -> Path:
        """Return the library that holds a kernel; one that records every access, if ``observe``."""
        about = KERNELS[kernel]
        defines = (*form.defines, *about.defines, *(["OBSERVE"] if observe else []))
        return build.library(about.path, defines, self.sanitize, self._texts.get(about.file))

    def function(self, kernel: str, form: Format) -> Any:
        """Return the compiled kernel as ctypes sees it."""
        return getattr(load(self.library(kernel, form)), f"launch_{entry(kernel)}")

    def prepare(self, kernels: Iterable[str] = KERNELS, forms: Iterable[Format] = FORMATS) -> None:
        """Compile kernels before they are needed, as many at once as there are processors."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: self.library(*pair), product(kernels, tuple(forms))))

    def _shape(self, kernel: str, blocks: int, threads: int, shared: int) -> Launch:
        p = self.properties
        check.integer("blocks", blocks, 1, 2**31 - 1)
        check.integer("threads", threads, 1, p.threads_per_block)
        if shared > p.shared_per_block:
            raise ValueError(f"{kernel} asks for {shared} bytes of shared memory, {p.name} has {p.shared_per_block}")
        return Launch(blocks, threads, shared, ORDERS.index(self.order), self.seed)


def packed(kernel: str, arguments: Iterable[Any]) -> list[Any]:
    """Return the arguments of a kernel as ctypes values, arrays as pointers to their first entry."""
    return [_TYPES[t](_value(a)) for t, a in zip(KERNELS[kernel].types, arguments, strict=True)]


def _value(a: Any) -> Any:
    if not isinstance(a, np.ndarray):
        return a
    if not a.flags.c_contiguous:
        raise ValueError(f"an array of shape {a.shape} is not contiguous")
    return a.ctypes.data


def run_packed(function: Any, shape: Launch, held: list[Any], kernel: str) -> None:
    """Call a compiled kernel with one pointer to each argument; its message, if any, becomes a RuntimeError."""
    function.restype = ctypes.c_char_p
    pointers = (ctypes.c_void_p * len(held))(*(ctypes.addressof(h) for h in held))
    if message := function(ctypes.byref(shape), pointers):
        raise RuntimeError(f"kernel {kernel}: {message.decode()}")
