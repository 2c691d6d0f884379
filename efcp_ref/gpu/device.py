"""What a device is to the rest of this folder, and which one is used: a GPU through PyCUDA, or the CPU.

A device holds arrays and launches kernels by name. The CPU's arrays are NumPy's. Nothing is copied to or from a device
but by `put` and `get`, and each counts in `transfers`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

import numpy as np

from efcp_ref.gpu.formats import Format
from efcp_ref.gpu.geometry import Properties
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

CHOICES = ("cpu", "cuda")


class Device(Protocol):
    """A device: its properties, its memory, its kernels."""

    kind: str  # "cpu" | "cuda"
    transfers: int  # arrays copied to or from it

    @property
    def properties(self) -> Properties:
        """What a launch must know of it."""

    def holds(self, a: Any) -> bool:
        """Whether an array lies in this device's memory (NumPy arrays count as the host's, on the CPU too)."""

    def adopt(self, name: str, a: Any) -> Any:
        """Return an array of this device's memory as this module's own kind, without a copy."""

    def put(self, a: Array, stream: Any = None) -> Any:
        """Copy a NumPy array to the device."""

    def get(self, a: Any, stream: Any = None) -> Array:
        """Copy an array of the device to NumPy."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array on the device, not initialised; MemoryError says what is needed."""

    def clear(self, a: Any, stream: Any = None) -> None:
        """Set every byte of an array on the device to zero."""

    def free_memory(self) -> int:
        """Bytes of memory that are free."""

    def prepare(self, kernels: Iterable[str], forms: Iterable[Format]) -> None:
        """Compile kernels before they are needed."""

    def launch(
        self, kernel: str, form: Format, blocks: int, threads: int, shared: int, *arguments: Any, stream: Any = None
    ) -> None:
        """Run a kernel of `catalogue.KERNELS` with so many bytes of dynamic shared memory."""

    def synchronize(self) -> None:
        """Wait for everything that was launched."""


def has_cuda() -> bool:
    """Whether PyCUDA is installed and finds a device."""
    try:
        import pycuda.driver as driver

        driver.init()
        return bool(driver.Device.count())
    except Exception:  # no PyCUDA, no driver library, a driver too old, no device
        return False


def chosen() -> str:
    """Return which device is used: the one that EFCP_DEVICE names, else "cuda" where there is one, else "cpu".

    Raises:
        ValueError: EFCP_DEVICE names something else.
    """
    name = os.environ.get("EFCP_DEVICE", "")
    return check.choice("EFCP_DEVICE", name, CHOICES) if name else ("cuda" if has_cuda() else "cpu")


@cache
def _open(name: str) -> Device:
    if name == "cuda":
        from efcp_ref.gpu.launch import CUDA

        return CUDA()
    from efcp_ref.gpu.cpu.device import CPU

    return CPU()


def current(device: Device | str | None = None) -> Device:
    """Return a device by name ("cpu" or "cuda"), itself, or by default the one that `chosen` names.

    >>> current("cpu").kind
    'cpu'
    """
    if device is not None and not isinstance(device, str):
        if not hasattr(device, "launch"):
            raise TypeError(
                f"device = {device!r}, must be one of {', '.join(map(repr, CHOICES))}, or what `current` returns"
            )
        return device
    return _open(check.choice("device", device, CHOICES) if device else chosen())


def prepare(device: str) -> None:
    """Compile what the contract's operations need, so that the first case of a run need not wait for a compiler.

    Raises:
        ImportError, RuntimeError: there is no such device here, or no compiler.
    """
    names = ("sp", "lcg", "feedback", "place_row", "direction", "scatter", "damp")
    current(device).prepare(names, [Format("absolute", value) for value in ("float32", "bfloat16")])


def debugging(device: Device) -> bool:
    """Whether every entry of an argument is checked: EFCP_DEBUG is 1 or 0, else on the CPU alone."""
    said = os.environ.get("EFCP_DEBUG", "")
    return check.choice("EFCP_DEBUG", said, ("0", "1")) == "1" if said else device.kind == "cpu"


def foreign(a: Any) -> bool:
    """Whether an array says that it lies in a GPU's memory."""
    return hasattr(a, "__cuda_array_interface__")


def vector(device: Device, name: str, a: Any, size: int | None, stream: Any = None) -> Any:
    """Return a float32 vector on the device; a NumPy array is checked and copied, a device's own is taken as it is.

    Raises:
        TypeError: not float32.
        ValueError: wrong shape; NaN or infinity (of a device's own array: where `debugging`).
    """
    if device.holds(a):
        a = device.adopt(name, a)
        real(name, a.dtype)
        if a.shape != (size,) and (len(a.shape) != 1 or size is not None):
            raise ValueError(f"{name} has shape {a.shape}, must have shape ({size},)")
        if debugging(device):
            check.array(name, device.get(a, stream), ndim=1)
        return a
    a = host(name, a)
    real(name, a.dtype)
    return device.put(check.array(name, a, shape=(size,)), stream)


def real(name: str, dtype: Any) -> None:
    """Raise TypeError unless the dtype is float32."""
    if dtype != np.float32:
        raise TypeError(f"{name} has dtype {dtype}, must be float32: the kernels compute in float32")


def host(name: str, a: Any) -> Array:
    """Return a NumPy array; an array on a GPU is refused with a message, not copied.

    Raises:
        TypeError: the array lies in a GPU's memory, and this device is another one.
    """
    if foreign(a):
        raise TypeError(f"{name} lies in a GPU's memory, and the kernels run on the CPU: set EFCP_DEVICE=cuda")
    return np.asarray(a)
