"""The operations of the contract on a device: SP, LCG, and F^-1 x from a sparse window."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from efcp_ref.gpu import geometry, window
from efcp_ref.gpu.device import Device, current, vector
from efcp_ref.gpu.formats import Format
from efcp_ref.gpu.window import Window
from efcp_ref.paper import _validate as check

_FLOATS = Format()  # of kernels that touch no window


class Direction(NamedTuple):
    """F^-1 x and the stages that lead to it."""

    u: Any  # (d,)
    S: Any  # (m, m) G G^T, undamped
    h: Any  # (m,) G x
    c: Any  # (m,) coefficients of eq. (2)


def sp(
    indices: Any, values: Any, g: Any, block_size: int | None = None, density: Any = 1, *,
    kernel: str = "textbook", index: str = "absolute", threads: int | None = None, stream: Any = None,
    device: Device | str | None = None,
) -> Any:  # fmt: skip
    """Multiply every row of the sparse window with a vector: ``omega = G g``.

    Source: Algorithm 2 (appendix G.1), R13, R15, R16. ``omega_r = sum_j V[r, j] g[I[r, j]]``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), float32 or bfloat16.
        g: vector, (d,), float32.
        block_size: B_d, at least 1; default one block of d.
        density: kept fraction in (0, 1] of every block.
        kernel: "textbook", "warps", "slices", or "fast", the last that the layout allows.
        index: storage of the indices, "absolute" or "uint16".
        threads: of a block; a power of two for "textbook".
        stream: of PyCUDA; the caller waits for it.
        device: "cpu", "cuda", or by default what EFCP_DEVICE or the machine says.

    Returns:
        omega, (m,) float32, in NumPy where g is, else an array in the device's memory.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or layout; the message names the argument.

    Cost: 2 m k flops; reads m k (bytes of index and value) + 4 d bytes.

    >>> G = np.int32([[0, 3], [1, 2]]), np.float32([[2.0, 1.0], [0.5, -1.0]])
    >>> sp(*G, np.float32([1.0, 2.0, 3.0, 4.0]), device="cpu")
    array([ 6., -2.], dtype=float32)
    """
    where = current(device)
    x = vector(where, "g", g, None, stream)
    w = window.stored(where, indices, values, x.shape[0], block_size, density, index)
    omega = where.empty((w.m,), np.float32)
    window.scalar_products(where, w, x, omega, kernel, threads, stream)
    return omega if where.holds(g) else where.get(omega, stream)


def lcg(
    indices: Any, values: Any, c: Any, d: int, block_size: int | None = None, density: Any = 1, *,
    kernel: str | None = None, index: str = "absolute", threads: int | None = None, blocks: int | None = None,
    stream: Any = None, device: Device | str | None = None,
) -> Any:  # fmt: skip
    """Combine the rows of the sparse window linearly: ``omega = c G``.

    Source: Algorithm 3 (appendix G.2), R13, R17-R21. ``omega_i = sum of c_r V[r, j] over all (r, j), I[r, j] = i``.

    Args:
        indices: I, (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: V, (m, k), float32 or bfloat16.
        c: coefficients of eq. (2), (m,), float32.
        d: dimension, 1..`window.LARGEST_D`.
        block_size: B_d, at least 1; default one block of d.
        density: kept fraction in (0, 1] of every block.
        kernel: "textbook", "rows", "warp", "global" or "fast"; by default the textbook's, or "global" where a slice
            does not fit the shared memory.
        index: storage of the indices, "absolute" or "uint16".
        threads, blocks: shape of the launch; blocks by default as in section 3.1.
        stream, device: see `sp`.

    Returns:
        omega, (d,) float32, in NumPy where c is, else on the device. Exactly 0 where no row has an entry.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or layout, or a slice that does not fit the kernel asked for.

    Cost: 2 m k flops; reads m k (bytes of index and value), writes 4 d.

    >>> G = np.int32([[0, 1, 4], [0, 3, 4]]), np.float32([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> lcg(*G, np.float32([1.0, 10.0]), 5, 4, 0.5, device="cpu")
    array([41.,  2.,  0., 50., 63.], dtype=float32)
    """
    where = current(device)
    w = window.stored(where, indices, values, d, block_size, density, index)
    factors = vector(where, "c", c, w.m, stream)
    omega = where.empty((w.d,), np.float32)
    window.linear_combination(where, w, factors, omega, kernel or textbook_or_global(where, w), threads, blocks, stream)
    return omega if where.holds(c) else where.get(omega, stream)


def textbook_or_global(device: Device, w: Window) -> str:
    """Return "textbook" where a slice fits the shared memory of a block, else "global"."""
    return "textbook" if w.B_d <= geometry.largest_block(device.properties) else "global"


def coefficients(device: Device, m: int, lam: float, S: Any, h: Any, c: Any, stream: Any = None) -> None:
    """Launch the solve ``c = (m lam I + S)^-1 h / lam`` of eq. (2) (R5) by Cholesky; everything on the device.

    Cost: m^3 / 3 flops; 8 m^2 bytes of scratch; 2 ceil(m / 32) + 2 launches.
    """
    M, D = device.empty((m, m), np.float32), device.empty((m, 32), np.float32)
    shift = float(np.float32(m) * np.float32(lam))
    device.launch("damp", _FLOATS, min(1024, -(-m * m // 1024)), 1024, 0, m, shift, S, M, stream=stream)
    panels = -(-m // 32)
    for panel in range(panels):
        below = panels - panel - 1
        device.launch("cholesky_panel", _FLOATS, below + 1, 1024, 0, m, 32 * panel, shift, M, D, stream=stream)
        if below:
            device.launch("cholesky_trail", _FLOATS, below**2, 1024, 0, m, 32 * panel, below, M, stream=stream)
    T = min(1024, 32 * panels)
    device.launch("cholesky_solve", _FLOATS, 1, T, 4 * m, m, lam, M, D, h, c, stream=stream)


def combined(
    device: Device, w: Window, lam: float, x: Any, S: Any, h: Any, kernel: str = "textbook", stream: Any = None
) -> tuple[Any, Any]:
    """Launch the coefficients, LCG, and ``u = x / lam - c G`` (eq. (2)); return u (d,) and c (m,), on the device."""
    c, omega, u = (device.empty((n,), np.float32) for n in (w.m, w.d, w.d))
    coefficients(device, w.m, lam, S, h, c, stream)
    name = textbook_or_global(device, w) if kernel == "textbook" else kernel
    window.linear_combination(device, w, c, omega, name, stream=stream)
    blocks = min(-(-w.d // 1024), 8 * device.properties.multiprocessors)
    device.launch("direction", _FLOATS, blocks, 1024, 0, w.d, lam, x, omega, u, stream=stream)
    return u, c


def damping(lam: Any) -> float:
    """Return lam, positive as float32 holds it."""
    given = check.positive("lam", lam)
    with np.errstate(over="ignore"):
        lam = float(np.float32(given))
    if not 0 < lam < np.inf:
        raise ValueError(f"lam = {given}, must be positive and finite in float32")
    return lam


def solvable(device: Device, m: int) -> int:
    """Return m, checked: cholesky_solve holds m numbers in the shared memory of one block."""
    largest = geometry.largest_block(device.properties)
    if m > largest:
        raise ValueError(
            f"m = {m}, must be at most {largest} on {device.properties.name} for the coefficients of eq. (2)"
        )
    return m


def sparse_mfac_direction(
    indices: Any, values: Any, d: int, lam: float, x: Any, block_size: int | None = None, density: Any = 1, *,
    kernel: str = "textbook", index: str = "absolute", stream: Any = None, device: Device | str | None = None,
) -> Direction:  # fmt: skip
    """Return F^-1 x from a sparse window (I, V): scalar products by Algorithm 2, combination by Algorithm 3.

    Source: section 3.1, eq. (2); R3-R5. ``u = x / lam - c G, c = (m lam I + G G^T)^-1 G x / lam``.

    Args:
        indices, values: the window, see `sp`.
        d: dimension.
        lam: damping lambda > 0; the kernels take it as float32.
        x: vector, (d,), float32.
        block_size, density: the layout.
        kernel: "textbook" or "fast".
        index, stream, device: see `sp`.

    Returns:
        u (d,), S (m, m), h (m,), c (m,), float32, in NumPy where x is, else on the device.

    Raises:
        TypeError, ValueError: see `sp`; lam is not positive.

    Cost: 2 m^2 k + m^3 / 3 flops; m + 1 launches of SP, one of LCG.

    >>> G = np.int32([[0], [2]]), np.float32([[1.0], [2.0]])
    >>> sparse_mfac_direction(*G, 3, 0.5, np.float32([1.0, 1.0, 1.0]), device="cpu").u.round(4)
    array([1. , 2. , 0.4], dtype=float32)
    """
    where, lam = current(device), damping(lam)
    w = window.stored(where, indices, values, d, block_size, density, index)
    v = vector(where, "x", x, w.d, stream)
    check.choice("kernel", kernel, ("textbook", "fast"))
    solvable(where, w.m)
    h, row = where.empty((w.m,), np.float32), where.empty((w.m,), np.float32)
    S, g = where.empty((w.m, w.m), np.float32), where.empty((w.d,), np.float32)
    for r in range(w.m):
        where.clear(g, stream)
        blocks = min(1024, -(-w.k // 256))
        one = (w.B_d, w.B_k, w.k, w.indices[r], w.values[r], g)
        where.launch("scatter", w.form, blocks, 256, 0, *one, stream=stream)
        window.scalar_products(where, w, g, row, kernel, stream=stream)
        where.launch("place_row", _FLOATS, -(-w.m // 256), 256, 0, w.m, r, row, S, stream=stream)
    window.scalar_products(where, w, v, h, kernel, stream=stream)
    u, c = combined(where, w, lam, v, S, h, kernel, stream)
    found = (u, S, h, c)
    return Direction(*(found if where.holds(x) else (where.get(a, stream) for a in found)))
