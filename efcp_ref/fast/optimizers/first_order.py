"""Top-k SGD, AdaGrad with error feedback and EF-SignSGD: optimizers without a window.

The one idea: their whole state is one or two vectors, made anew in a pass over memory and exchanged at the end of a
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.fast import storage
from efcp_ref.fast.elementwise import adagrad_direction, signed
from efcp_ref.fast.feedback import feed_back
from efcp_ref.fast.layout import Layout
from efcp_ref.fast.optimizers.base import Optimizer, gradient, in_precision, real, whole
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


@dataclass(frozen=True)
class Vectors:
    """Steps taken, and vectors (d,) by their names in the contract."""

    t: int
    vectors: Mapping[str, Array]


class FirstOrder(Optimizer):
    """The part that the three share: a state of vectors."""

    _names: tuple[str, ...]
    _d: int
    _kind: np.dtype[Any]

    def _start(self, d: int, dtype: str, needed: int, **parameters: Any) -> None:
        """Allocate; ``needed``: vectors that live at the height of a step."""
        self._d = check.dimension(d)
        self._kind = np.dtype(check.choice("dtype", dtype, ("float64", "float32")))
        parts = {"vectors": needed * self._d * self._kind.itemsize}
        self._allocate({"d": self._d, **parameters, "dtype": dtype}, parts)
        self._state = self._fresh()

    def _fresh(self) -> Vectors:
        return Vectors(0, {name: np.zeros(self._d, self._kind) for name in self._names})

    def _keys(self) -> list[str]:
        return ["t", *self._names]

    def _shown(self, state: Vectors) -> dict[str, Any]:
        return {"t": state.t, **{name: vector.copy() for name, vector in state.vectors.items()}}

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        vectors = {name: real(entries, name, vector) for name, vector in self._fresh().vectors.items()}
        self._state = Vectors(whole(entries, "t"), vectors)

    def _numbers(self, state: Vectors) -> dict[str, int]:
        return {"t": state.t}

    def _moving(self, state: Vectors) -> dict[str, Array]:
        return dict(state.vectors)

    def _rebuilt(self, numbers: Mapping[str, int], arrays: Mapping[str, Array]) -> Vectors:
        return Vectors(numbers["t"], dict(arrays))


class topk_sgd(FirstOrder):
    """Top-k SGD with error feedback: as `efcp_ref.topk_sgd`.

    Args:
        d: dimension.
        k: kept entries, 0..d.
        dtype: storage and arithmetic: "float64" or "float32".

    >>> optimizer = topk_sgd(d=2, k=1)
    >>> optimizer.step([3.0, 2.0]), optimizer.step([0.0, 2.0])
    (array([3., 0.]), array([0., 4.]))
    """

    _names = ("xi",)

    def __init__(self, d: int, k: int, dtype: str = "float64") -> None:
        self._layout = Layout.of(d, k=check.integer("k", k, 0, check.dimension(d)))
        self._start(d, dtype, 5, k=self._layout.K)

    def _next(self, state: Vectors, g: Any) -> tuple[Array, Vectors]:
        g = gradient(g, self._d)
        sent = self._kind if g.dtype.itemsize >= self._kind.itemsize else g.dtype  # what that rounds away waits (R14)
        kept = feed_back(state.vectors["xi"], g, self._layout, storage.stored_as(sent))
        u = np.zeros(self._d, sent)
        u[kept.indices] = storage.shown(kept.values)
        return u, Vectors(state.t + 1, {"xi": kept.xi})


class adagrad_ef(FirstOrder):
    """Diagonal AdaGrad with error feedback, Algorithm 7: as `efcp_ref.adagrad_ef`.

    Args:
        d: dimension.
        k: kept entries, 0..d.
        dtype: storage and arithmetic: "float64" or "float32".

    >>> optimizer = adagrad_ef(d=2, k=1)
    >>> optimizer.step([3.0, 2.0]), optimizer.step([0.0, 2.0])
    (array([1., 0.]), array([0., 1.]))
    """

    _names = ("xi", "G")

    def __init__(self, d: int, k: int, dtype: str = "float64") -> None:
        self._layout = Layout.of(d, k=check.integer("k", k, 0, check.dimension(d)))
        self._start(d, dtype, 7, k=self._layout.K)

    def _next(self, state: Vectors, g: Any) -> tuple[Array, Vectors]:
        g = gradient(g, self._d)
        kept = feed_back(state.vectors["xi"], g, self._layout, self._kind)
        squares, u = state.vectors["G"].copy(), np.zeros(self._d, self._kind)
        u[kept.indices] = adagrad_direction(squares, kept.indices, kept.values)
        return in_precision(u, g), Vectors(state.t + 1, {"xi": kept.xi, "G": squares})


class ef_signsgd(FirstOrder):
    """EF-SignSGD, the slides' Algorithm 1: as `efcp_ref.ef_signsgd`; ``step`` returns Delta, which holds gamma already.

    Args:
        d: dimension.
        gamma: learning rate > 0.
        dtype: storage and arithmetic: "float64" or "float32".

    >>> ef_signsgd(d=2, gamma=0.5).step([4.0, -2.0])
    array([ 1.5, -1.5])
    """

    _names = ("e",)

    def __init__(self, d: int, gamma: float, dtype: str = "float64") -> None:
        self._gamma = check.positive("gamma", gamma)
        self._start(d, dtype, 4, gamma=self._gamma)

    def _next(self, state: Vectors, g: Any) -> tuple[Array, Vectors]:
        g = check.array("g", g, shape=(self._d,))
        delta, e = signed(state.vectors["e"], g, self._gamma, self._kind)
        return in_precision(delta, g), Vectors(state.t + 1, {"e": e})
