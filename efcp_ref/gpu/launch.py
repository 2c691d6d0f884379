"""The GPU as a device, through PyCUDA. Nothing here knows whether the driver is NVIDIA's or the CPU's stand-in.

Arrays with ``__cuda_array_interface__`` (PyTorch, CuPy, pycuda.gpuarray) are taken as they are, and a `DeviceArray`
shows itself to them in the same way. `context` says who owns what.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from efcp_ref.gpu import compiler
from efcp_ref.gpu.catalogue import KERNELS, entry
from efcp_ref.gpu.context import Context, Pool, forever
from efcp_ref.gpu.device import foreign
from efcp_ref.gpu.formats import FORMATS, Format
from efcp_ref.gpu.geometry import Properties
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

WITHOUT_ATTRIBUTE = 48 * 1024  # bytes of dynamic shared memory that a kernel gets without asking


@dataclass(frozen=True)
class DeviceArray:
    """An array in the GPU's memory, in C order; ``owner`` keeps the memory alive."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Any

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __getitem__(self, row: int) -> DeviceArray:
        """Return one row; nothing is copied."""
        inner = DeviceArray(0, self.shape[1:], self.dtype, None)
        return DeviceArray(self.pointer + row * inner.nbytes, inner.shape, self.dtype, self.owner)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What PyTorch and CuPy read."""
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "version": 3}


def adopt(name: str, a: Any) -> DeviceArray:
    """Return an array with ``__cuda_array_interface__`` as a `DeviceArray` on the same memory.

    Raises:
        ValueError: it is not contiguous, or has a mask.
    """
    if isinstance(a, DeviceArray):
        return a
    said = a.__cuda_array_interface__
    shape, dtype = tuple(said["shape"]), np.dtype(said["typestr"])
    if said.get("mask") is not None:
        raise ValueError(f"{name} has a mask, must be a plain array")
    contiguous = np.cumprod([dtype.itemsize, *shape[:0:-1]], dtype=np.int64)[::-1].tolist() if shape else []
    if said.get("strides") is not None and tuple(said["strides"]) != tuple(contiguous):
        raise ValueError(f"{name} has strides {tuple(said['strides'])}, must be contiguous: {tuple(contiguous)}")
    return DeviceArray(int(said["data"][0] or 0), shape, dtype, a)


class CUDA:
    """A GPU through PyCUDA.

    Scratch memory comes from a pool and goes back to it when Python lets go of it: use one stream at a time, or wait.

    Raises:
        ImportError: PyCUDA or NVIDIA's driver is missing; the message says how to get them.
        RuntimeError: there is no GPU.
    """

    kind = "cuda"

    def __init__(self) -> None:
        try:
            import pycuda.driver as driver
        except ImportError as why:
            raise ImportError(
                "the kernels on a GPU need PyCUDA (pip install 'efcp-ref[gpu]') and NVIDIA's driver, libcuda.so.1. "
                f"({why}) EFCP_DEVICE=cpu runs them on the CPU"
            ) from why
        self.driver, self.transfers = driver, 0
        try:
            self._context = Context(driver)
        except (driver.Error, RuntimeError) as why:
            raise RuntimeError(f"PyCUDA finds no GPU that it can use ({why}). EFCP_DEVICE=cpu runs on the CPU") from why
        self._pool, self._kernels = Pool(driver, self._context), {}  # type: ignore[var-annotated]
        forever(self)

    def active(self) -> AbstractContextManager[None]:
        """Make the device's context current in this thread: ``with device.active(): stream = driver.Stream()``."""
        return self._context.active()

    @cached_property
    def properties(self) -> Properties:
        """What the driver says of the device."""
        with self.active():
            device, a = self.driver.Context.get_device(), self.driver.device_attribute
        get = device.get_attribute
        blocks = get(a.MAX_BLOCKS_PER_MULTIPROCESSOR) if hasattr(a, "MAX_BLOCKS_PER_MULTIPROCESSOR") else 16
        return Properties(
            device.name(), get(a.MULTIPROCESSOR_COUNT), get(a.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN),
            get(a.MAX_SHARED_MEMORY_PER_MULTIPROCESSOR), get(a.MAX_THREADS_PER_MULTIPROCESSOR), blocks or 16,
            get(a.MAX_THREADS_PER_BLOCK), capability=device.compute_capability(),
        )  # fmt: skip

    # ---- memory ------------------------------------------------------------------------------------------------------

    def holds(self, a: Any) -> bool:
        """Whether the array lies in a GPU's memory."""
        return foreign(a)

    def adopt(self, name: str, a: Any) -> DeviceArray:
        """Return the array on the same memory; see the function of this name.

        Raises:
            ValueError: it is not contiguous, or lies on another GPU or in another context.
        """
        made = adopt(name, a)
        if made is not a:
            self._context.check(name, made.pointer)
        return made

    def empty(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Return an array, not initialised.

        Raises:
            MemoryError: there is not so much memory.
        """
        wanted = DeviceArray(0, tuple(shape), np.dtype(dtype), None)
        try:
            owner = self._pool.take(wanted.nbytes)
        except self.driver.MemoryError as why:
            needs = f"an array of shape {wanted.shape} needs {wanted.nbytes:,} bytes"
            raise MemoryError(f"{needs}, {self.properties.name} has {self.free_memory():,} free") from why
        return DeviceArray(owner.pointer, wanted.shape, wanted.dtype, owner)

    def put(self, a: Array, stream: Any = None) -> DeviceArray:
        """Copy a NumPy array to the device."""
        a = np.ascontiguousarray(a)
        made = self.empty(a.shape, a.dtype)
        self.transfers += 1
        with self.active():
            if stream is None:
                self.driver.memcpy_htod(made.pointer, a)
            else:
                self.driver.memcpy_htod_async(made.pointer, a, stream)
        return made

    def get(self, a: DeviceArray, stream: Any = None) -> Array:
        """Copy an array of the device to NumPy, when all before it in the stream is done."""
        made = np.empty(a.shape, a.dtype)
        self.transfers += 1
        with self.active():
            if stream is None:
                self.driver.memcpy_dtoh(made, a.pointer)
            else:
                self.driver.memcpy_dtoh_async(made, a.pointer, stream)
                stream.synchronize()
        return made

    def clear(self, a: DeviceArray, stream: Any = None) -> None:
        """Set every byte to zero."""
        with self.active():
            if stream is None:
                self.driver.memset_d8(a.pointer, 0, a.nbytes)
            else:
                self.driver.memset_d8_async(a.pointer, 0, a.nbytes, stream)

    def free_memory(self) -> int:
        """Bytes that are free, or were let go of by arrays."""
        with self.active():
            return int(self.driver.mem_get_info()[0]) + self._pool.bytes()

    def synchronize(self) -> None:
        """Wait for everything that was launched."""
        with self.active():
            self.driver.Context.synchronize()

    # ---- kernels -----------------------------------------------------------------------------------------------------

    def launch(
        self, kernel: str, form: Format, blocks: int, threads: int, shared: int, *arguments: Any, stream: Any = None
    ) -> None:
        """Launch a kernel; compiled at first use.

        Raises:
            ValueError: a shape of launch that the device does not take.
            RuntimeError: the driver refuses; the message says what was launched.
        """
        p = self.properties
        check.integer("blocks", blocks, 1, 2**31 - 1)
        check.integer("threads", threads, 1, p.threads_per_block)
        if shared > p.shared_per_block:
            raise ValueError(f"{kernel} asks for {shared} bytes of shared memory, {p.name} has {p.shared_per_block}")
        function = self._function(kernel, form)
        held = [a.pointer if isinstance(a, DeviceArray) else a for a in arguments]
        try:
            with self.active():
                self._allow(function, shared)
                if stream is None:
                    function.prepared_call((blocks, 1), (threads, 1, 1), *held, shared_size=shared)
                else:
                    function.prepared_async_call((blocks, 1), (threads, 1, 1), stream, *held, shared_size=shared)
        except self.driver.Error as why:
            shape = f"{blocks} blocks of {threads} threads with {shared} bytes of shared memory"
            raise RuntimeError(f"kernel {kernel}, {shape}, on {p.name}: {why}") from why

    def prepare(self, kernels: Iterable[str] = KERNELS, forms: Iterable[Format] = FORMATS) -> None:
        """Compile kernels before they are needed."""
        for form in forms:
            for kernel in kernels:
                self._function(kernel, form)

    def _allow(self, function: Any, shared: int) -> None:
        if shared > WITHOUT_ATTRIBUTE:
            attribute = self.driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES
            function.set_attribute(attribute, shared)

    def _function(self, kernel: str, form: Format) -> Any:
        if (kernel, form) not in self._kernels:
            about = KERNELS[kernel]
            major, minor = self.properties.capability
            image = compiler.cached(about.path, f"sm_{major}{minor}", (*form.defines, *about.defines))
            with self.active():
                module = self.driver.module_from_buffer(image)
                function = module.get_function(entry(kernel)).prepare(about.types)
            self._kernels[kernel, form] = function, module  # the module lives as long as its kernels
        return self._kernels[kernel, form][0]
