"""M-FAC on a dense, a sparse and a low-rank window: SP, a solve of size m, LCG; nothing of size m d is ever made.

The one idea: the scalar products of the window with the new gradient are at once the new row of S and h = G x, so a
step reads the window twice and writes one row of it. u is first the gradient written out, then, slice by slice, the
direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from efcp_ref.fast import storage
from efcp_ref.fast.feedback import absolute, feed_back
from efcp_ref.fast.fisher import less_combination
from efcp_ref.fast.layout import Layout
from efcp_ref.fast.low_rank import compressed, window_combination, window_products
from efcp_ref.fast.optimizers.base import Optimizer, ages, gradient, in_precision, real, slots, whole
from efcp_ref.fast.solve import Factor, damped, solved
from efcp_ref.fast.sums import RowMajor, scalar_products
from efcp_ref.fast.window import Window
from efcp_ref.paper import _validate as check
from efcp_ref.paper import algorithm_6
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_5 import Factors


@dataclass(frozen=True)
class Ring:
    """What a step of M-FAC changes, but for the spare row of the window and of S."""

    t: int  # steps taken
    row: int  # of the contract's m rows, the one written next
    spare: int  # of the m + 1 slots, the one that nobody reads
    xi: Array  # (d,) error
    factor: Factor  # of lam m I + S, in order of age
    Q: tuple[Array, ...] = ()  # low rank: what Algorithm 5 starts from
    room: Array | None = None  # (d,) for the next error: that of the step before, which nobody reads any more


class MFAC(Optimizer):
    """The part that the three windows share: S, its factor, the coefficients, and the ring.

    ``_S`` is (m + 1, m + 1), one row and column per slot; those of the spare slot are free to be written.
    """

    _m: int
    _lam: float
    _kind: np.dtype[Any]  # arithmetic
    _S: Array

    def _coefficients(self, state: Ring, products: Array) -> tuple[Array, Factor]:
        """Return c (m + 1,), 0 for the slot that leaves, and the next factor, given G x of every slot (R7).

        The new gradient is in the spare slot, so that its slot is the newest of the next ring.
        """
        m, spare = self._m, state.spare
        self._S[spare], self._S[:, spare] = products, products
        _, places = ages(0, (spare + 1) % (m + 1), m)
        h = products[places]  # (m,) the newest last
        column = h.copy()
        column[-1] += self._lam * m

        def M() -> Array:
            return damped(self._S[np.ix_(places, places)], self._lam)

        factor = state.factor.after(column, M)
        c = np.zeros(m + 1)
        c[places] = solved(factor.R, h, self._lam, M)
        return c, factor

    def _after(self, state: Ring, xi: Array, factor: Factor, Q: tuple[Array, ...] = ()) -> Ring:
        return Ring(state.t + 1, (state.row + 1) % self._m, (state.spare + 1) % (self._m + 1), xi, factor, Q)

    def _slots(self, state: Ring) -> Array:
        return slots(state.row, state.spare, self._m)

    def _shown_S(self, state: Ring) -> Array:
        places = self._slots(state)
        return self._S[np.ix_(places, places)]

    def _adopted(self, entries: Mapping[str, Any], xi: Array, Q: tuple[Array, ...] = ()) -> Ring:
        """Return the ring of a state of the contract, slot 0 being the spare one; no factor: it is made anew."""
        return Ring(whole(entries, "t"), whole(entries, "row", self._m - 1), 0, xi, self._no_factor(), Q)

    def _no_factor(self) -> Factor:
        return Factor(None, 0, self._kind == np.float32)

    def _set_S(self, ring: Ring, S: Array) -> None:
        places = self._slots(ring)
        self._S[np.ix_(places, places)] = S

    def _numbers(self, state: Ring) -> dict[str, int]:
        updates = -1 if state.factor.R is None else state.factor.updates
        return {"t": state.t, "row": state.row, "spare": state.spare, "updates": updates}

    def _moving(self, state: Ring) -> dict[str, Array]:
        R = np.zeros((self._m, self._m), order="F") if state.factor.R is None else state.factor.R
        return {"xi": state.xi, "factor": R, **{f"start{i}": Q for i, Q in enumerate(state.Q)}}

    def _rebuilt(self, numbers: Mapping[str, int], arrays: Mapping[str, Array]) -> Ring:
        updates = numbers["updates"]
        R = None if updates < 0 else arrays["factor"]
        factor = replace(self._no_factor(), R=R, updates=max(0, updates))
        Q = tuple(arrays[name] for name in arrays if name.startswith("start"))
        return Ring(numbers["t"], numbers["row"], numbers["spare"], arrays["xi"], factor, Q)


def _squares(m: int) -> dict[str, int]:
    """Bytes of S, of its factor, and of what a step makes of it."""
    return {"S": 8 * (m + 1) ** 2, "factor": 8 * m * m, "factor of the step": 8 * m * m}


class dense_mfac(MFAC):
    """Dense M-FAC: as `efcp_ref.dense_mfac`.

    Args:
        d: dimension.
        m: window size.
        lam: damping lambda > 0.
        dtype: storage and arithmetic: "float64" or "float32".

    >>> dense_mfac(d=2, m=1, lam=1.0).step([3.0, 4.0]).round(4)  # m g / (lam m + |g|^2)
    array([0.1154, 0.1538])
    """

    def __init__(self, d: int, m: int, lam: float, dtype: str = "float64") -> None:
        d, self._m = check.dimension(d), check.window_size(m)
        self._kind = kind = np.dtype(check.choice("dtype", dtype, ("float64", "float32")))
        self._lam = check.positive("lam", lam)
        parts = {"G": kind.itemsize * (self._m + 1) * d, "u": 2 * kind.itemsize * d, **_squares(self._m)}
        self._allocate({"d": d, "m": self._m, "lam": self._lam, "dtype": dtype}, parts)
        self._G, self._S = np.zeros((self._m + 1, d), kind), np.zeros((self._m + 1, self._m + 1))
        self._state = self._fresh()

    def _fresh(self) -> Ring:
        return Ring(0, 0, 0, np.zeros(0), self._no_factor())

    def _next(self, state: Ring, g: Any) -> tuple[Array, Ring]:
        g = check.array("g", g, shape=self._G.shape[1:])
        x = self._G[state.spare]  # (d,)
        np.copyto(x, g, casting="same_kind")
        c, factor = self._coefficients(state, (self._G @ x).astype(np.float64))
        u = x / x.dtype.type(self._lam)
        u -= c.astype(x.dtype) @ self._G
        return in_precision(u, g), self._after(state, state.xi, factor)

    def _keys(self) -> list[str]:
        return ["t", "row", "G", "S"]

    def _shown(self, state: Ring) -> dict[str, Any]:
        return {"t": state.t, "row": state.row, "G": self._G[self._slots(state)], "S": self._shown_S(state)}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        m, d = self._m, self._G.shape[1]
        G, S = check.array("G", entries["G"], shape=(m, d)), check.array("S", entries["S"], shape=(m, m))
        ring = self._adopted(entries, np.zeros(0))
        self._state = None
        self._G[self._slots(ring)] = G
        self._set_S(ring, S)
        self._state = ring

    def _fixed(self) -> dict[str, Array]:
        return {"G": self._G, "S": self._S}


class sparse_mfac(MFAC):
    """Sparse M-FAC: as `efcp_ref.sparse_mfac`, at the paper's sizes with ``dtype="float32"`` or ``"bfloat16"``.

    Args:
        d: dimension.
        m: window size.
        lam: damping lambda > 0.
        block_size: B_d of the blockwise Top-k; default d, one block. 65,536 is the most that takes 16-bit indices.
        density: kept fraction of every block, in (0, 1].
        dtype: storage of the values: "float64", "float32", "bfloat16" (R14); arithmetic and error in float64 for the
            first, in float32 for the others.

    Raises:
        MemoryError: before anything is allocated, saying how many bytes are needed and available.

    >>> optimizer = sparse_mfac(d=4, m=2, lam=1.0, block_size=2, density=0.5)
    >>> optimizer.step([3.0, 1.0, 0.0, 4.0]).round(4)  # m c / (lam m + |c|^2), c = (3, 0, 0, 4)
    array([0.2222, 0.    , 0.    , 0.2963])
    >>> optimizer.state()["xi"], optimizer.memory["values"]
    (array([0., 1., 0., 0.]), 48)
    """

    def __init__(
        self, d: int, m: int, lam: float, block_size: int | None = None, density: Any = 0.01, dtype: str = "float64"
    ) -> None:
        needs = self.needs(d, m, block_size, density, dtype)
        layout, self._m = Layout.of(d, block_size, density), check.window_size(m)
        self._lam, (stored, self._kind) = check.positive("lam", lam), storage.chosen(dtype)
        self._said = (layout.d, block_size, check.share("density", density))
        parameters = {"d": layout.d, "m": self._m, "lam": self._lam, "block_size": layout.B_d, "density": self._said[2]}
        self._allocate({**parameters, "dtype": dtype}, needs)
        self._window = Window(layout, self._m + 1, stored)
        self._S = np.zeros((self._m + 1, self._m + 1))
        self._state = self._fresh()

    @staticmethod
    def needs(
        d: int, m: int, block_size: int | None = None, density: Any = 0.01, dtype: str = "float64"
    ) -> dict[str, int]:
        """Return the bytes of every array that these sizes need, without making any: those of F.1, and the rest.

        >>> needs = sparse_mfac.needs(109_482_240, 1024, 41_728, 0.01, "bfloat16")  # BERT-Base
        >>> sum(needs.values()) / 1e9
        5.8...
        """
        layout, m, (stored, kind) = Layout.of(d, block_size, density), check.window_size(m), storage.chosen(dtype)
        vector, row = kind.itemsize * layout.d, 2 * layout.K * (layout.index.itemsize + stored.itemsize)
        step = {"xi of the step": vector, "u": vector, "row of the step": row}
        return {**Window.bytes(layout, m + 1, stored), "xi": vector, **_squares(m), **step}

    def _fresh(self) -> Ring:
        return Ring(0, 0, 0, np.zeros(self._window.layout.d, self._kind), self._no_factor())

    def _next(self, state: Ring, g: Any) -> tuple[Array, Ring]:
        layout = self._window.layout
        g = gradient(g, layout.d)
        kept = feed_back(state.xi, g, layout, self._window.values.dtype, state.room)  # lines 5 to 7 of Algorithm 1
        self._window.write(state.spare, kept.indices, kept.values)  # R9: insert, then precondition
        u = np.zeros(layout.d, self._kind)
        u[absolute(kept.indices, layout)] = storage.widened(kept.values, self._kind)  # (d,) c_t, written out
        c, factor = self._coefficients(state, scalar_products(self._window, u, self._kind))
        less_combination(self._window, c, u, self._lam)  # eq. (2)
        return in_precision(u, g), replace(self._after(state, kept.xi, factor), room=state.xi)

    def _keys(self) -> list[str]:
        return ["t", "row", "xi", "indices", "values", "S"]

    def _shown(self, state: Ring) -> dict[str, Any]:
        places = self._slots(state)
        rows = {"indices": self._window.absolute(places), "values": storage.shown(self._window.stored(places))}
        return {"t": state.t, "row": state.row, "xi": state.xi.copy(), **rows, "S": self._shown_S(state)}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        m, layout = self._m, self._window.layout
        rows = RowMajor(entries["indices"], entries["values"], *self._said)
        if rows.count != m:
            raise ValueError(f"indices has shape {rows.indices.shape}, must have shape ({m}, {layout.K})")
        S = check.array("S", entries["S"], shape=(m, m))
        ring = self._adopted(entries, real(entries, "xi", self._fresh().xi))
        self._state = None
        starts = absolute(np.zeros(layout.K, np.int32), layout)
        for slot, indices, values in zip(self._slots(ring), rows.indices, rows.values, strict=True):
            self._window.write(slot, indices - starts, self._as_stored(values))
        self._set_S(ring, S)
        self._state = ring

    def _as_stored(self, values: Array) -> Array:
        return storage.rounded(storage.widened(storage.hidden(values), self._kind), self._window.values.dtype)

    def _fixed(self) -> dict[str, Array]:
        return {"indices": self._window.indices, "values": self._window.values, "S": self._S}


class low_rank_mfac(MFAC):
    """Low-Rank M-FAC: as `efcp_ref.low_rank_mfac`, every layer's window stacked into two matrices.

    Args:
        shapes: shape of every layer's tensor; g holds them one after another, each in C order.
        m: window size.
        lam: damping lambda > 0.
        rank: rho, clamped to min(p1, p2*...*ps) in each layer (R25).
        Q0: starting Q, (p2*...*ps, rho), of every layer of two or more dimensions, in order.
        dtype: storage and arithmetic: "float64" or "float32".

    >>> optimizer = low_rank_mfac(shapes=[(2, 2)], m=1, lam=1.0, rank=1, Q0=[np.ones((2, 1))])
    >>> optimizer.step([3.0, 0.0, 4.0, 0.0]).round(4) + 0.0  # g / (lam + |g|^2)
    array([0.1154, 0.    , 0.1538, 0.    ])
    """

    def __init__(
        self, shapes: Sequence[Sequence[int]], m: int, lam: float, rank: int, Q0: Sequence[Any], dtype: str = "float64"
    ) -> None:
        layers, self._m = algorithm_6._shapes(shapes), check.window_size(m)
        rank, self._lam = check.integer("rank", rank, 1), check.positive("lam", lam)
        starts = algorithm_6._starts(layers, rank, Q0)
        self._kind = np.dtype(check.choice("dtype", dtype, ("float64", "float32")))
        self._shapes, self._starts = layers, tuple(Q.astype(self._kind) for Q in starts)
        sizes = [(Q.shape[1], shape[0], len(Q)) for shape, Q in zip(layers, starts, strict=True)]
        item, d = self._kind.itemsize, sum(map(prod, layers))
        parts = {"P": item * (self._m + 1) * sum(rho * p1 for rho, p1, _ in sizes)}
        parts |= {"Q": item * (self._m + 1) * sum(rho * p2 for rho, _, p2 in sizes), "xi": item * d, "u": 3 * item * d}
        said = {"shapes": layers, "m": self._m, "lam": self._lam, "rank": rank, "dtype": dtype}
        self._allocate(said, {**parts, **_squares(self._m)})
        self._P = [np.zeros((self._m + 1, rho, p1), self._kind) for rho, p1, _ in sizes]
        self._Q = [np.zeros((self._m + 1, rho, p2), self._kind) for rho, _, p2 in sizes]
        self._d, self._S = d, np.zeros((self._m + 1, self._m + 1))
        self._state = self._fresh()

    def _fresh(self) -> Ring:
        return Ring(0, 0, 0, np.zeros(self._d, self._kind), self._no_factor(), self._starts)

    def _matrices(self, flat: Array) -> list[Array]:
        """Return the layers of a vector as matrices (p1, p2*...*ps): views."""
        ends = np.cumsum([prod(shape) for shape in self._shapes])[:-1]
        return [part.reshape(shape[0], -1) for part, shape in zip(np.split(flat, ends), self._shapes, strict=True)]

    def _next(self, state: Ring, g: Any) -> tuple[Array, Ring]:
        g = check.array("g", g, shape=(self._d,))
        xi = np.add(state.xi, g, dtype=self._kind, casting="same_kind")  # (d,) the accumulator, then the next error
        u, products, kept = np.empty_like(xi), np.zeros(self._m + 1), []
        for l, (a, dense) in enumerate(zip(self._matrices(xi), self._matrices(u), strict=True)):
            whole_ = len(self._shapes[l]) == 1  # a vector is stored whole (R25)
            c = Factors(a.copy(), np.eye(1, dtype=a.dtype)) if whole_ else compressed(a, state.Q[l])
            self._P[l][state.spare], self._Q[l][state.spare] = c.P.T, c.Q.T
            np.matmul(c.P, c.Q.T, out=dense)
            a -= dense
            products += window_products(self._P[l], self._Q[l], c)  # R26
            kept.append(c.Q)
        weights, factor = self._coefficients(state, products)
        u /= u.dtype.type(self._lam)
        for l, direction in enumerate(self._matrices(u)):
            direction -= window_combination(weights, self._P[l], self._Q[l])
        return in_precision(u, g), self._after(state, xi, factor, tuple(kept))

    def _keys(self) -> list[str]:
        return ["t", "row", "xi", *(f"{factor}{l}" for l in range(len(self._shapes)) for factor in "PQ"), "S"]

    def _shown(self, state: Ring) -> dict[str, Any]:
        places = self._slots(state)
        factors: dict[str, Array] = {}
        for l, (P, Q) in enumerate(zip(self._P, self._Q, strict=True)):
            factors |= {f"P{l}": P[places].transpose(0, 2, 1).copy(), f"Q{l}": Q[places].transpose(0, 2, 1).copy()}
        return {"t": state.t, "row": state.row, "xi": state.xi.copy(), **factors, "S": self._shown_S(state)}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        m, now = self._m, self._fixed()
        stacked = {
            name: check.array(name, entries[name], shape=(m, old.shape[2], old.shape[1])).transpose(0, 2, 1)
            for name, old in now.items() if name != "S"
        }  # fmt: skip
        S, xi = check.array("S", entries["S"], shape=(m, m)), real(entries, "xi", self._fresh().xi)
        newest = (whole(entries, "row", m - 1) - 1) % m
        Q = [stacked[f"Q{l}"][newest].T.astype(self._kind) for l in range(len(self._shapes))]
        ring = self._adopted(entries, xi, tuple(Q) if whole(entries, "t") else self._starts)
        self._state = None
        for name, new in stacked.items():
            now[name][self._slots(ring)] = new
        self._set_S(ring, S)
        self._state = ring

    def _fixed(self) -> dict[str, Array]:
        left = {f"P{l}": P for l, P in enumerate(self._P)}
        return left | {f"Q{l}": Q for l, Q in enumerate(self._Q)} | {"S": self._S}
