"""GGT on a dense and a sparse window: the scalar products are kept, one row and column are new in every step.

The one idea: Algorithm 4 without its matrix U (see `efcp_ref.fast.ggt`): a step reads the window twice, and what grows
fastest in it is the eigendecomposition of an m by m matrix, 9 m^3 flops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from efcp_ref.fast import storage
from efcp_ref.fast.feedback import absolute, feed_back
from efcp_ref.fast.fisher import less_combination
from efcp_ref.fast.ggt import weights
from efcp_ref.fast.layout import Layout
from efcp_ref.fast.optimizers.base import Optimizer, gradient, in_precision, real, slots, whole
from efcp_ref.fast.sums import RowMajor, gram, scalar_products
from efcp_ref.fast.window import Window
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


@dataclass(frozen=True)
class Ring:
    """What a step of GGT changes, but for the spare row of the window and of the Gram matrix."""

    t: int  # steps taken
    row: int  # of the contract's m rows, the one written next
    spare: int  # of the m + 1 slots, the one that nobody reads
    xi: Array  # (d,) error
    room: Array | None = None  # (d,) for the next error: that of the step before, which nobody reads any more


class GGT(Optimizer):
    """The part that both windows share: the Gram matrix (m + 1, m + 1) of the slots, and the ring."""

    _m: int
    _eps: float
    _cutoff: float
    _S: Array

    def _weights(self, state: Ring, products: Array) -> Array:
        """Return c (m + 1,), u = x / eps - c G, given G x of every slot; 0 for the slot that leaves."""
        m, spare = self._m, state.spare
        self._S[spare], self._S[:, spare] = products, products
        places = slots(0, (spare + 1) % (m + 1), m)
        c = np.zeros(m + 1)
        c[places] = weights(self._S[np.ix_(places, places)], products[places], self._eps, self._cutoff)[0]
        return c

    def _after(self, state: Ring, xi: Array) -> Ring:
        return Ring(state.t + 1, (state.row + 1) % self._m, (state.spare + 1) % (self._m + 1), xi)

    def _slots(self, state: Ring) -> Array:
        return slots(state.row, state.spare, self._m)

    def _numbers(self, state: Ring) -> dict[str, int]:
        return {"t": state.t, "row": state.row, "spare": state.spare}

    def _moving(self, state: Ring) -> dict[str, Array]:
        return {"xi": state.xi}

    def _rebuilt(self, numbers: Mapping[str, int], arrays: Mapping[str, Array]) -> Ring:
        return Ring(numbers["t"], numbers["row"], numbers["spare"], arrays["xi"])


def _squares(m: int) -> dict[str, int]:
    """Bytes of the Gram matrix and of its decomposition."""
    return {"S": 8 * (m + 1) ** 2, "decomposition": 5 * 8 * m * m}


class dense_ggt(GGT):
    """Dense GGT: as `efcp_ref.dense_ggt`.

    Args:
        d: dimension.
        m: window size.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff * sigma_1^2 is dropped (R24).
        dtype: storage and arithmetic: "float64" or "float32".

    >>> dense_ggt(d=2, m=3, eps=1.0, cutoff=1e-12).step([3.0, 4.0]).round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """

    def __init__(self, d: int, m: int, eps: float, cutoff: float, dtype: str = "float64") -> None:
        d, self._m = check.dimension(d), check.window_size(m)
        self._eps, self._cutoff = check.positive("eps", eps), check.number("cutoff", cutoff, 0.0)
        kind = np.dtype(check.choice("dtype", dtype, ("float64", "float32")))
        parts = {"G": kind.itemsize * (self._m + 1) * d, "u": 2 * kind.itemsize * d, **_squares(self._m)}
        said = {"d": d, "m": self._m, "eps": self._eps, "cutoff": self._cutoff, "dtype": dtype}
        self._allocate(said, parts)
        self._G, self._S = np.zeros((self._m + 1, d), kind), np.zeros((self._m + 1, self._m + 1))
        self._state = self._fresh()

    def _fresh(self) -> Ring:
        return Ring(0, 0, 0, np.zeros(0))

    def _next(self, state: Ring, g: Any) -> tuple[Array, Ring]:
        g = check.array("g", g, shape=self._G.shape[1:])
        x = self._G[state.spare]  # (d,)
        np.copyto(x, g, casting="same_kind")
        c = self._weights(state, (self._G @ x).astype(np.float64))
        u = x / x.dtype.type(self._eps)
        u -= c.astype(x.dtype) @ self._G
        return in_precision(u, g), self._after(state, state.xi)

    def _keys(self) -> list[str]:
        return ["t", "row", "G"]

    def _shown(self, state: Ring) -> dict[str, Any]:
        return {"t": state.t, "row": state.row, "G": self._G[self._slots(state)]}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        G = check.array("G", entries["G"], shape=(self._m, self._G.shape[1]))
        ring = Ring(whole(entries, "t"), whole(entries, "row", self._m - 1), 0, np.zeros(0))
        self._state = None
        self._G[self._slots(ring)] = G
        np.matmul(self._G, self._G.T, out=self._S, casting="same_kind")
        self._state = ring

    def _fixed(self) -> dict[str, Array]:
        return {"G": self._G, "S": self._S}


class sparse_ggt(GGT):
    """Sparse GGT: as `efcp_ref.sparse_ggt`; one global Top-k, so the window is one slice, with int32 where d > 65,536.

    Args:
        d: dimension.
        m: window size.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff * sigma_1^2 is dropped (R24).
        k: kept entries of every gradient, 1..d.
        dtype: see `sparse_mfac`.

    >>> sparse_ggt(d=3, m=2, eps=1.0, cutoff=1e-12, k=2).step([3.0, 1.0, 4.0]).round(4)  # c / (|c| + eps)
    array([0.5   , 0.    , 0.6667])
    """

    def __init__(self, d: int, m: int, eps: float, cutoff: float, k: int, dtype: str = "float64") -> None:
        d, self._m = check.dimension(d), check.window_size(m)
        self._eps, self._cutoff = check.positive("eps", eps), check.number("cutoff", cutoff, 0.0)
        layout, (stored, self._kind) = Layout.of(d, k=check.integer("k", k, 1, d)), storage.chosen(dtype)
        vector, row = self._kind.itemsize * d, 2 * layout.K * (layout.index.itemsize + stored.itemsize)
        parts = {**Window.bytes(layout, self._m + 1, stored), "xi": vector, "xi of the step": 2 * vector, "u": vector}
        said = {"d": d, "m": self._m, "eps": self._eps, "cutoff": self._cutoff, "k": layout.K, "dtype": dtype}
        self._allocate(said, {**parts, "row of the step": row, **_squares(self._m)})
        self._window, self._S = Window(layout, self._m + 1, stored), np.zeros((self._m + 1, self._m + 1))
        self._state = self._fresh()

    def _fresh(self) -> Ring:
        return Ring(0, 0, 0, np.zeros(self._window.layout.d, self._kind))

    def _next(self, state: Ring, g: Any) -> tuple[Array, Ring]:
        layout = self._window.layout
        g = gradient(g, layout.d)
        kept = feed_back(state.xi, g, layout, self._window.values.dtype, state.room)
        self._window.write(state.spare, kept.indices, kept.values)
        u = np.zeros(layout.d, self._kind)
        u[absolute(kept.indices, layout)] = storage.widened(kept.values, self._kind)
        less_combination(self._window, self._weights(state, scalar_products(self._window, u, self._kind)), u, self._eps)
        return in_precision(u, g), replace(self._after(state, kept.xi), room=state.xi)

    def _keys(self) -> list[str]:
        return ["t", "row", "xi", "indices", "values"]

    def _shown(self, state: Ring) -> dict[str, Any]:
        places = self._slots(state)
        rows = {"indices": self._window.absolute(places), "values": storage.shown(self._window.stored(places))}
        return {"t": state.t, "row": state.row, "xi": state.xi.copy(), **rows}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        layout = self._window.layout
        rows = RowMajor(entries["indices"], entries["values"], layout.d)
        if rows.indices.shape != (self._m, layout.K):
            raise ValueError(f"indices has shape {rows.indices.shape}, must have shape ({self._m}, {layout.K})")
        xi = real(entries, "xi", self._fresh().xi)
        ring = Ring(whole(entries, "t"), whole(entries, "row", self._m - 1), 0, xi)
        self._state = None
        for slot, indices, values in zip(self._slots(ring), rows.indices, rows.values, strict=True):
            wide = storage.widened(storage.hidden(values), self._kind)
            self._window.write(slot, indices, storage.rounded(wide, self._window.values.dtype))
        self._S[:] = gram(self._window, self._kind)
        self._state = ring

    def _fixed(self) -> dict[str, Array]:
        return {"indices": self._window.indices, "values": self._window.values, "S": self._S}
