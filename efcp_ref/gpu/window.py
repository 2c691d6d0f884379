"""A window G = (I, V) in a device's memory, in one of four formats; SP and LCG over it by any kernel of the ladder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.gpu import geometry
from efcp_ref.gpu.device import Device, debugging, host
from efcp_ref.gpu.formats import Format, fits, from_bits, offsets, to_bits
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

SP = ("textbook", "warps", "slices", "fast")
LCG = ("textbook", "rows", "warp", "global", "fast")
LARGEST_BLOCKS = 2**20  # thread blocks of a launch by its caller's choice
# Kernels count columns in int, and add as much as the number of threads or of blocks before they look at their bound.
LARGEST_D = 2**31 - 2 * LARGEST_BLOCKS
LARGEST_M = 2**26  # rows: times the 32 lanes of a warp they fit an int


@dataclass(frozen=True)
class Window:
    """m rows of k entries each, ceil(density * size) in every block of B_d; on a device."""

    indices: Any  # (m, k) int32 absolute or uint16 relative (R13)
    values: Any  # (m, k) float32, or bfloat16 as 16 bits
    d: int
    B_d: int
    B_k: int
    form: Format

    def __post_init__(self) -> None:
        if self.m > LARGEST_M:
            raise ValueError(f"indices has {self.m} rows, must have at most {LARGEST_M}")

    @property
    def m(self) -> int:
        """Rows."""
        return int(self.values.shape[0])

    @property
    def k(self) -> int:
        """Entries of a row."""
        return int(self.values.shape[1])

    @property
    def slices(self) -> int:
        """Slices, or Top-k blocks: ceil(d / B_d)."""
        return -(-self.d // self.B_d)

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """B_d, B_k, d, m, k: what every kernel over slices begins with."""
        return self.B_d, self.B_k, self.d, self.m, self.k


def dimension(name: str, d: Any) -> int:
    """Return d, checked: indices are int32."""
    return check.integer(name, d, 1, LARGEST_D)


def stored(device: Device, indices: Any, values: Any, d: int, block_size: Any, density: Any, index: str) -> Window:
    """Return the window of the contract's ``indices`` and ``values`` on the device.

    NumPy arrays are checked and copied; arrays in the device's memory are taken as they are, their rows checked where
    `device.debugging`.

    Args:
        device: where.
        indices: I, (m, k), absolute int32; on the device also uint16, relative to their block.
        values: V, (m, k), float32 or bfloat16 (on the device: uint16 holds its bits).
        d, block_size, density: the layout.
        index: format of the indices that NumPy arrays are stored in: "absolute" or "uint16".

    Raises:
        TypeError, ValueError: wrong dtype or shape; where rows are checked, also positions out of range, repeated, or
            out of block order.
    """
    d = dimension("d", d)
    on_device = [device.holds(a) for a in (indices, values)]
    if all(on_device):
        return _adopted(device, indices, values, d, block_size, density)
    if any(on_device):
        name = "values" if on_device[0] else "indices"
        raise TypeError(f"{name} lies in the host's memory and the other half of the window on the device")
    indices, values = host("indices", indices), host("values", values)
    if values.dtype != np.float32 and values.dtype.name != "bfloat16":
        raise TypeError(f"values has dtype {values.dtype}, must be float32 or bfloat16: the kernels compute in float32")
    form = Format(index, "bfloat16" if values.dtype.name == "bfloat16" else "float32")
    if debugging(device):
        indices, values, B_d, B_k = check.check_rows(indices, values, d, block_size, density)
    else:
        B_d, B_k = _layout(indices, values, d, block_size, density)
    fits(index, B_d)
    if index == "uint16":
        indices = indices - offsets(indices.shape[1], B_d, B_k)
    rows = np.ascontiguousarray(indices, form.index_dtype)
    bits = np.ascontiguousarray(values).view(form.value_dtype)
    return Window(device.put(rows), device.put(bits), d, B_d, B_k, form)


def _layout(indices: Any, values: Any, d: int, block_size: Any, density: Any) -> tuple[int, int]:
    """Check kind and shape alone; return B_d and B_k."""
    if np.dtype(indices.dtype).kind not in "iu":
        raise TypeError(f"indices has dtype {indices.dtype}, must hold integers")
    if len(indices.shape) != 2 or 0 in indices.shape:
        raise ValueError(f"indices has shape {indices.shape}, must have 2 dimensions, none of them empty")
    if tuple(values.shape) != tuple(indices.shape):
        raise ValueError(f"values has shape {values.shape}, must have shape {indices.shape}")
    B_d, B_k, k = check._blocks(d, indices.shape[1], block_size, density)
    if indices.shape[1] != k or k > d:
        rule = f"{k} entries per row for d = {d}" if k <= d else f"at most d = {d} entries per row"
        raise ValueError(f"indices has shape {indices.shape}, must have {rule}")
    return B_d, B_k


def _adopted(device: Device, indices: Any, values: Any, d: int, block_size: Any, density: Any) -> Window:
    I, V = device.adopt("indices", indices), device.adopt("values", values)
    if I.dtype not in (np.dtype(np.int32), np.dtype(np.uint16)):
        raise TypeError(f"indices has dtype {I.dtype}, must be int32 (absolute) or uint16 (relative to the block)")
    if V.dtype not in (np.dtype(np.float32), np.dtype(np.uint16)):
        raise TypeError(f"values has dtype {V.dtype}, must be float32, or uint16 holding the bits of bfloat16")
    form = Format("uint16" if I.dtype.itemsize == 2 else "absolute", "bfloat16" if V.dtype.itemsize == 2 else "float32")
    B_d, B_k = _layout(I, V, d, block_size, density)
    fits(form.index, B_d)
    window = Window(I, V, d, B_d, B_k, form)
    if debugging(device):
        check.check_rows(*rows(device, window), d, block_size, density)
    return window


def rows(device: Device, window: Window) -> tuple[Array, Array]:
    """Return a copy of the rows as the contract has them: absolute int32 indices, values float32 or bfloat16."""
    I, V = np.array(device.get(window.indices)), np.array(device.get(window.values))
    if window.form.index == "uint16":
        I = (I + offsets(window.k, window.B_d, window.B_k)).astype(np.int32)
    if window.form.value == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            return I, from_bits(V)  # exact, but wider than what is stored
        V = V.view(ml_dtypes.bfloat16)
    return I, V


def empty(device: Device, d: int, m: int, B_d: int, B_k: int, k: int, form: Format) -> Window:
    """Return m empty rows: values 0 at the first ceil(density * size) positions of every block."""
    start = offsets(k, B_d, B_k)
    first = np.arange(k, dtype=np.int32) - start // B_d * B_k  # within its block
    row = (first if form.index == "uint16" else first + start).astype(form.index_dtype)
    I = device.put(np.ascontiguousarray(np.broadcast_to(row, (m, k))))
    V = device.empty((m, k), form.value_dtype)
    device.clear(V)
    return Window(I, V, d, B_d, B_k, form)


# ---- the ladder ------------------------------------------------------------------------------------------------------


def threads_for(k: int) -> int:
    """Return the threads that the textbook SP uses: 1024, or the power of two that covers a shorter row.

    >>> threads_for(5), threads_for(41728)
    (8, 1024)
    """
    return min(1024, 1 << (k - 1).bit_length())


def power_of_two(T: int) -> int:
    """Return the threads of the textbook SP, checked: the tree of line 14 halves them (R16)."""
    if T & (T - 1):
        raise ValueError(f"threads = {T}, must be a power of two (R16)")
    return T


def warps_of(T: int) -> int:
    """Return the threads of a kernel that works in warps, checked."""
    if T % 32:
        raise ValueError(f"threads = {T}, must be a multiple of 32")
    return T


def scalar_products(
    device: Device, w: Window, g: Any, omega: Any, kernel: str = "textbook", threads: int | None = None,
    stream: Any = None,
) -> None:  # fmt: skip
    """Launch Algorithm 2: omega (m,) = G g, by the kernel asked for; everything on the device.

    "fast" is "slices" where a slice fits the shared memory, else "warps".

    Raises:
        ValueError: no such kernel, threads that it cannot use, or slices that do not fit.
    """
    p = device.properties
    check.choice("kernel", kernel, SP)
    T = None if threads is None else check.integer("threads", threads, 1, p.threads_per_block)
    if kernel == "fast":
        kernel = "slices" if w.B_d <= geometry.largest_block(p) else "warps"
    if kernel == "textbook":
        T = power_of_two(T or threads_for(w.k))
        sizes = (w.B_d, w.B_k, w.k)
        device.launch("sp", w.form, w.m, T, 4 * T, *sizes, g, w.indices, w.values, omega, stream=stream)
    elif kernel == "warps":
        T = warps_of(T or 256)
        sizes4 = (w.B_d, w.B_k, w.m, w.k)
        arrays = (g, w.indices, w.values, omega)
        device.launch("sp_warps", w.form, -(-w.m // (T // 32)), T, 0, *sizes4, *arrays, stream=stream)
    else:
        _sp_slices(device, w, g, omega, warps_of(T or _threads_for_slices(w)), stream)


def _threads_for_slices(w: Window) -> int:
    return 1024 if w.B_d > 20_000 else min(1024, max(128, w.B_d // 100 // 32 * 32))


def _sp_slices(device: Device, w: Window, g: Any, omega: Any, T: int, stream: Any) -> None:
    B = geometry.thread_blocks(device.properties, w.B_d, w.d, T)
    partial = device.empty((w.slices, w.m), np.float32)
    arrays = (g, w.indices, w.values, partial)
    device.launch("sp_slices", w.form, B, T, 4 * w.B_d, *w.sizes, *arrays, stream=stream)
    device.launch("sp_sum", w.form, w.m, 32, 0, w.slices, w.m, partial, omega, stream=stream)


def linear_combination(
    device: Device, w: Window, c: Any, omega: Any, kernel: str = "textbook", threads: int | None = None,
    blocks: int | None = None, stream: Any = None,
) -> None:  # fmt: skip
    """Launch Algorithm 3: omega (d,) = c G, by the kernel asked for; everything on the device.

    "fast" is "warp" where a row of a slice is at most 64 entries, else "rows"; and "global" where a slice does not fit.

    Args:
        blocks: thread blocks, by default the choice of section 3.1.

    Raises:
        ValueError: no such kernel, threads that it cannot use, or slices that do not fit.
    """
    check.choice("kernel", kernel, LCG)
    if kernel == "fast":
        within = w.B_d <= geometry.largest_block(device.properties)
        kernel = "global" if not within else "warp" if w.B_k <= 64 else "rows"
    name, T, shared = _lcg_launch(w, kernel, threads)
    T = check.integer("threads", T, 1, device.properties.threads_per_block)
    sized = 0 if kernel == "global" else w.B_d
    B = geometry.thread_blocks(device.properties, sized or 1, w.slices if not sized else w.d, T)
    B = B if blocks is None else check.integer("blocks", blocks, 1, LARGEST_BLOCKS)
    device.launch(name, w.form, B, T, shared, *w.sizes, c, w.indices, w.values, omega, stream=stream)


def _lcg_launch(w: Window, kernel: str, threads: int | None) -> tuple[str, int, int]:
    """Return the kernel's name in the catalogue, its threads and its bytes of shared memory."""
    fixed = {"rows": (128, 1024), "warp": (32,)}.get(kernel)
    if fixed and threads is not None and threads not in fixed:
        raise ValueError(f"threads = {threads}, must be {' or '.join(map(str, fixed))} for kernel {kernel!r}")
    if kernel == "rows":
        T = threads or (128 if w.B_k <= 128 else 1024)
        return ("lcg_rows_128" if T == 128 else "lcg_rows"), T, 4 * w.B_d
    if kernel == "warp":
        return "lcg_warp", 32, 4 * w.B_d
    T = min(1024, max(32, threads_for(w.B_d))) if threads is None else threads
    return ("lcg_global", T, 0) if kernel == "global" else ("lcg", T, 4 * w.B_d)


def round_trip(values: Array) -> Array:
    """Return float32 numbers as bfloat16 would give them back (see `formats.to_bits`)."""
    return from_bits(to_bits(values))
