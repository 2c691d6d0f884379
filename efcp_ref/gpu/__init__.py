"""The kernels of Algorithms 2 and 3 in CUDA C, on a GPU through PyCUDA or on the CPU through g++.

A target of the contract: ``efcp-ref check efcp_ref.gpu --device cpu`` judges the textbook kernels, and
``efcp_ref.gpu:fast`` the fastest of the ladder. ``docs/kernels.md`` is the guide to the folder. Nothing is compiled,
and no device is opened, before the first call.
"""

from importlib import import_module
from typing import Any

DTYPES = ("float32",)  # float64 is refused, not rounded
READINGS = {"R4": "window"}
# Additions on the longest way to a result. SP: ceil(k / T) in a thread and log2(T) in the tree, at most 54 + 10 for
# rows of up to 55,296 entries and 1,024 threads. LCG: one for each row that holds the coordinate, windows of up to 65
# rows. Every case of the oracle is below both; a test holds this.
ARITHMETIC = {"accumulator": "float32", "depth": 64}

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
