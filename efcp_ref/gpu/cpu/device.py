"""The CPU as a device: its arrays are NumPy's, its kernels what `build` compiled."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.gpu.catalogue import KERNELS, entry
from efcp_ref.gpu.cpu import build
from efcp_ref.gpu.formats import Format
from efcp_ref.gpu.geometry import Properties
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

ORDERS = ("forward", "reverse", "shuffled")
# Three multiprocessors, so that slices are shared out; shared memory as on an H100.
PROPERTIES = Properties("CPU", 3, 227 * 1024, 228 * 1024)
_TYPES: dict[str, Any] = {"i": ctypes.c_int, "f": ctypes.c_float, "P": ctypes.c_void_p}


class Launch(ctypes.Structure):
    """``cuda_on_cpu::Launch``."""

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

    The defaults may be set by EFCP_CPU_ORDER, EFCP_CPU_SEED and EFCP_CPU_SANITIZE.
    """

    kind = "cpu"

    def __init__(
        self, order: str | None = None, seed: int | None = None, sanitize: str | None = None,
        properties: Properties = PROPERTIES,
    ) -> None:  # fmt: skip
        said = os.environ.get
        self.order = check.choice("order", order or said("EFCP_CPU_ORDER", "forward"), ORDERS)
        self.seed = int(said("EFCP_CPU_SEED", "0")) if seed is None else check.integer("seed", seed, 0)
        sanitize = said("EFCP_CPU_SANITIZE", "") if sanitize is None else sanitize
        self.sanitize = check.choice("sanitize", sanitize, tuple(build.SANITIZERS))
        self.properties, self.transfers = properties, 0

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
        about = KERNELS[kernel]
        function = self.function(kernel, form)
        held = [_TYPES[t](_value(a)) for t, a in zip(about.types, arguments, strict=True)]
        run_packed(function, self._shape(kernel, blocks, threads, shared), held, kernel)

    def function(self, kernel: str, form: Format, text: str | None = None) -> Any:
        """Return the compiled kernel (of ``text`` in place of its file) as ctypes sees it."""
        about = KERNELS[kernel]
        library = load(build.library(about.path, (*form.defines, *about.defines), self.sanitize, text))
        return getattr(library, f"launch_{entry(kernel)}")

    def _shape(self, kernel: str, blocks: int, threads: int, shared: int) -> Launch:
        p = self.properties
        check.integer("blocks", blocks, 1, 2**31 - 1)
        check.integer("threads", threads, 1, p.threads_per_block)
        if shared > p.shared_per_block:
            raise ValueError(f"{kernel} asks for {shared} bytes of shared memory, {p.name} has {p.shared_per_block}")
        return Launch(blocks, threads, shared, ORDERS.index(self.order), self.seed)


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
