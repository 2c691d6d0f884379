"""Who owns what on a GPU: the context, the memory in it, and how both end.

PyCUDA's destructors abort the process where the context has gone, or cannot be made current. A library must not, so:

- The context is the one that is current in PyCUDA when the device is opened (of ``pycuda.autoinit``, say), else the
  device's primary one, which PyTorch and CuPy use. It is current for the length of a call, in whatever thread, and
  never stays on a thread's stack: a stack that is not empty when its thread ends aborts the process, too.
- What an array lets go of goes back to a pool, which is a list and asks nothing of the driver. So it may happen in any
  thread, in the garbage collector, after an error, and after the last line.
- The device, and with it the context, the pool and the kernels, is never destroyed: the driver takes back everything
  when the process ends.
- One thread at a time calls the driver; at the end, the main thread alone. (Python ends a daemon thread where it next
  asks for the interpreter: inside PyCUDA that aborts.)
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def forever(a: Any) -> None:
    """Never let an object be destroyed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(a))


class Context:
    """A context of PyCUDA that is current only while it is needed.

    Args:
        driver: the module ``pycuda.driver``.
    """

    def __init__(self, driver: Any) -> None:
        from pycuda.tools import make_default_context

        driver.init()
        held = driver.Context.get_current()
        if held is None:  # of the device that CUDA_DEVICE names, else of the first that has one to give
            held = make_default_context(lambda device: device.retain_primary_context())
        self._driver, self._held, self._lock = driver, held, threading.RLock()
        atexit.register(self._lock.acquire, timeout=5)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current in this thread for the length of a block.

        Raises:
            RuntimeError: a kernel has failed, and the context with it.
        """
        with self._lock:
            pushed = self._push()
            try:
                yield
            finally:
                if pushed:
                    self._pop()

    def _push(self) -> bool:
        """Make the context current; return whether it was not."""
        if self._driver.Context.get_current() == self._held:
            return False
        try:
            self._held.push()
        except self._driver.Error as why:
            raise RuntimeError(f"the GPU's context is lost, a new process is needed: {why}") from why
        return True

    def _pop(self) -> None:
        try:
            self._held.pop()
        except self._driver.Error:  # lost: whoever comes next is told. Off the stack with it, come what may.
            self._held.detach()

    def check(self, name: str, pointer: int) -> None:
        """Check that memory of somebody else's can be reached from this context.

        Raises:
            ValueError: it belongs to another context or another GPU, or to none.
        """
        context, device, ours = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        library, at = ctypes.CDLL("libcuda.so.1"), ctypes.c_uint64(pointer)
        with self.active():
            library.cuCtxGetDevice(ctypes.byref(ours))
            code = library.cuPointerGetAttribute(ctypes.byref(context), 1, at)  # CU_POINTER_ATTRIBUTE_CONTEXT
            code = code or library.cuPointerGetAttribute(ctypes.byref(device), 9, at)  # ... DEVICE_ORDINAL
        if code:
            raise ValueError(f"{name} points to {pointer:#x}, which is no memory of a GPU")
        if device.value != ours.value:
            raise ValueError(f"{name} lies on GPU {device.value}, and the kernels run on GPU {ours.value}")
        if context.value not in (None, self._held.handle):  # None: of a memory pool, which belongs to the device
            rule = "import pycuda.autoinit before the first kernel, or pycuda.autoprimaryctx in its place"
            raise ValueError(f"{name} lies in another context than the kernels': {rule}")


class Loan:
    """Memory of one array, lent by a pool until the array is gone."""

    def __init__(self, pool: Pool, size: int, allocation: Any) -> None:
        self._pool, self._size, self._allocation, self.pointer = pool, size, allocation, int(allocation)

    def __del__(self) -> None:
        self._pool.idle.setdefault(self._size, []).append(self._allocation)


class Pool:
    """Memory that arrays have let go of, by its size, for those to come: the driver would wait for the device."""

    def __init__(self, driver: Any, context: Context) -> None:
        self._driver, self._context = driver, context
        self.idle: dict[int, list[Any]] = {}

    def take(self, size: int) -> Loan:
        """Lend so many bytes.

        Raises:
            pycuda.driver.MemoryError: there are not so many.
        """
        try:
            return Loan(self, size, self.idle[size].pop())
        except LookupError:
            pass
        with self._context.active():
            try:
                return Loan(self, size, self._driver.mem_alloc(size))
            except self._driver.MemoryError:
                self.clear()
                return Loan(self, size, self._driver.mem_alloc(size))

    def bytes(self) -> int:
        """Bytes that are not lent."""
        return sum(size * len(held) for size, held in list(self.idle.items()))

    def clear(self) -> None:
        """Give what is not lent back to the driver."""
        with self._context.active():
            for held in list(self.idle.values()):
                while held:
                    held.pop().free()
