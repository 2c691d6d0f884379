"""The kernels of Algorithms 2 and 3 in CUDA C, on a GPU through PyCUDA or on the CPU through g++.

A target of the contract: ``efcp-ref check efcp_ref.gpu --device cpu`` judges the textbook kernels, and
``efcp_ref.gpu:fast`` the fastest of the ladder. ``docs/kernels.md`` is the guide to the folder. Nothing is compiled,
and no device is opened, before the first call.
"""

from importlib import import_module
from typing import Any

DTYPES = ("float32",)  # float64 is refused, not rounded
READINGS = {"R4": "window"}
# No depth: none is true of every window. A row of SP takes ceil(k / T) + log2(T) additions with T threads, a coordinate
# of LCG as many as rows hold it, one after another.
ARITHMETIC = {"accumulator": "float32"}

_WHERE = {
    "lcg": "operations", "sp": "operations", "sparse_mfac_direction": "operations", "sparse_mfac": "optimizer",
    "fast": "ladder", "current": "device", "has_cuda": "device", "thread_blocks": "geometry",
    "observe": "observation", "Observation": "observation", "Observer": "observation",
}  # fmt: skip

__all__ = ["ARITHMETIC", "DTYPES", "READINGS", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'efcp_ref.gpu' has no attribute {name!r}")
    value = getattr(import_module(f"efcp_ref.gpu.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
