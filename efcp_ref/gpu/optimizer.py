"""Sparse M-FAC on a device: error feedback, blockwise Top-k, SP, coefficients, LCG and the direction, all in kernels.

A step copies nothing between host and device but what the caller hands over and takes back as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.gpu import operations, window
from efcp_ref.gpu.device import Device, current, host, real, vector
from efcp_ref.gpu.formats import Format, fits
from efcp_ref.gpu.window import Window
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import kept, layout, row_length

ORDERS = ("ascending", "bank")
_FLOATS = Format()


def footprint(d: int, m: int, k: int, form: Format) -> dict[str, int]:
    """Return the bytes that the optimizer holds on its device, by what they are for.

    >>> sum(footprint(11_700_000, 1024, 117_000, Format("uint16", "bfloat16")).values()) // 10**6
    674
    """
    products = 4 * (2 * m * m + 34 * m)
    return {"window": form.bytes * m * k, "error": 4 * d, "direction": 12 * d, "scalar products": products}


class sparse_mfac:
    """Sparse M-FAC: Algorithm 1 with blockwise Top-k and M-FAC on the sparse window (I, V), on a device.

    Args:
        d: dimension, 1..`window.LARGEST_D`.
        m: window size.
        lam: damping lambda > 0; the kernels take it as float32.
        block_size: B_d of the blockwise Top-k; default d, one block.
        density: kept fraction of every block, in (0, 1].
        dtype: storage of the values, "float32" or "bfloat16" (R14).
        index: storage of the indices, "absolute" or "uint16" (R13).
        order: of the entries in a Top-k block, "ascending" or "bank": then 32 entries that are read together lie in as
            many banks of shared memory as may be.
        kernel: "textbook" or "fast".
        device: "cpu", "cuda", or by default what EFCP_DEVICE or the machine says.

    Raises:
        TypeError, ValueError: an argument of the wrong kind or range.
        MemoryError: the device has not so much memory; the message says what is needed, and for what.

    >>> optimizer = sparse_mfac(d=4, m=2, lam=1.0, block_size=2, density=0.5, device="cpu")
    >>> optimizer.step(np.float32([3.0, 1.0, 0.0, 4.0])).round(4)  # m c / (lam m + |c|^2), c = (3, 0, 0, 4)
    array([0.2222, 0.    , 0.    , 0.2963], dtype=float32)
    """

    def __init__(
        self, d: int, m: int, lam: float, block_size: int | None = None, density: Any = 0.01,
        dtype: str = "float32", index: str = "absolute", order: str = "ascending", kernel: str = "textbook",
        device: Device | str | None = None,
    ) -> None:  # fmt: skip
        self.device, self.lam = current(device), operations.damping(lam)
        d, m = window.dimension("d", d), operations.solvable(self.device, check.integer("m", m, 1))
        self._layout = layout(d, block_size, density)[:2]
        B_d, share = min(d, self._layout[0]), self._layout[1]
        form = Format(index, dtype)
        fits(index, B_d)
        self._bank_ordered = int(check.choice("order", order, ORDERS) == "bank")
        self._kernel = check.choice("kernel", kernel, ("textbook", "fast"))
        k = row_length(d, B_d, share)
        self._afford(d, m, k, form)
        self.window: Window = window.empty(self.device, d, m, B_d, kept(B_d, share), k, form)
        self._xi, self._x = self._zeros(d), self._zeros(d)
        self._S, self._h = self._zeros(m, m), self._zeros(m)
        self._t = self._row = 0

    def _zeros(self, *shape: int) -> Any:
        a = self.device.empty(shape, np.float32)
        self.device.clear(a)
        return a

    def _afford(self, d: int, m: int, k: int, form: Format) -> None:
        needs, free = footprint(d, m, k, form), self.device.free_memory()
        if sum(needs.values()) > free:
            listed = ", ".join(f"{name} {size:,}" for name, size in needs.items())
            raise MemoryError(
                f"d = {d}, m = {m} and {k} entries per row need {sum(needs.values()):,} bytes ({listed}), "
                f"{self.device.properties.name} has {free:,} free"
            )

    def step(self, g: Any, stream: Any = None) -> Any:
        """Take the gradient g_t (d,) and return the direction u_t (d,): lines 5 to 8 of Algorithm 1.

        Args:
            g: float32; a NumPy array is copied to the device and u comes back as one, an array in the device's memory
                stays there and so does u: then nothing is copied.
            stream: of PyCUDA; the caller waits for it, and uses one stream at a time.

        Raises:
            TypeError, ValueError: g is not a finite float32 vector of d entries; the state is as before.
        """
        device, w, row = self.device, self.window, self._row
        given = vector(device, "g", g, w.d, stream)
        T = min(1024, max(32, window.threads_for(w.B_d)))
        arrays = (given, self._xi, self._x, w.indices[row], w.values[row])
        sizes = (w.B_d, w.B_k, w.d, w.k, self._bank_ordered)
        device.launch("feedback", w.form, w.slices, T, 8 * T, *sizes, *arrays, stream=stream)
        window.scalar_products(device, w, self._x, self._h, self._kernel, stream=stream)
        device.launch("place_row", _FLOATS, -(-w.m // 256), 256, 0, w.m, row, self._h, self._S, stream=stream)
        u, _ = operations.combined(device, w, self.lam, self._x, self._S, self._h, self._kernel, stream)
        self._t, self._row = self._t + 1, (row + 1) % w.m
        return u if device.holds(g) else device.get(u, stream)

    def state(self) -> dict[str, Any]:
        """Return a copy of the state in NumPy arrays, by the names of the contract; indices are absolute."""
        indices, values = window.rows(self.device, self.window)
        xi, S = (np.array(self.device.get(a)) for a in (self._xi, self._S))
        return {"t": self._t, "row": self._row, "xi": xi, "indices": indices, "values": values, "S": S}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state()`` returned.

        Raises:
            KeyError, TypeError, ValueError: a key is missing, or a value has the wrong dtype, shape or layout; the
                state is as before.
        """
        names = ("t", "row", "xi", "indices", "values", "S")
        if missing := [name for name in names if name not in state]:
            raise KeyError(f"state lacks {', '.join(missing)}, must have {', '.join(names)}")
        w, device = self.window, self.device
        t, row = check.integer("t", state["t"], 0), check.integer("row", state["row"], 0, w.m - 1)
        xi, S = self._floats("xi", state["xi"], (w.d,)), self._floats("S", state["S"], (w.m, w.m))
        check.check_rows(state["indices"], state["values"], w.d, *self._layout)
        values = host("values", state["values"])
        if values.dtype.name not in (w.form.value, "float32"):
            raise TypeError(f"values has dtype {values.dtype}, must be {w.form.value}")
        if values.dtype == np.float32 and w.form.value == "bfloat16":
            values = _as_bfloat16(values)
        new = window.stored(device, state["indices"], values, w.d, *self._layout, w.form.index)
        if new.m != w.m:
            raise ValueError(f"indices has {new.m} rows, must have m = {w.m}")
        indices, kept_values = (device.put(np.array(device.get(a))) for a in (new.indices, new.values))
        self.window = replace(w, indices=indices, values=kept_values)
        self._t, self._row, self._xi, self._S = t, row, device.put(xi.copy()), device.put(S.copy())

    @staticmethod
    def _floats(name: str, a: Any, shape: tuple[int, ...]) -> Array:
        a = host(name, a)
        real(name, a.dtype)
        return check.array(name, a, shape=shape)


def _as_bfloat16(values: Array) -> Array:
    import ml_dtypes

    if not np.array_equal(window.round_trip(values), values):
        raise ValueError("values are not representable in bfloat16, the storage of this window")
    return values.astype(ml_dtypes.bfloat16)
