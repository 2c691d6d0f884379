"""The optimizers: Algorithm 1 with each preconditioner A.

Every optimizer is a pure step ``(state, g) -> (u, state)`` over a frozen state, and a thin class around it for those
who want one: ``step(g) -> u``, ``state() -> dict``, ``load(dict)``. u is what the learning rate multiplies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper import algorithm_1, algorithm_4, algorithm_6, algorithm_7, sign
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_5 import Factors
from efcp_ref.paper.compressors import mean_magnitude
from efcp_ref.paper.window import Dense, DenseWindow, Sparse, SparseWindow, keep, keep_blocks
from efcp_ref.paper.woodbury import coefficients, denominator, direction, updated


def decoupled_update(theta: Any, u: Any, eta: float, gamma: float = 0.0) -> Array:
    """Apply a direction with decoupled weight decay: ``(1 - gamma eta) theta - eta u``.

    Source: section 2.2, efcp.txt line 79; R6: the decay never enters the window.

    >>> decoupled_update(np.array([1.0, 2.0]), np.array([1.0, 1.0]), 0.5, 0.25)
    array([0.375, 1.25 ])
    """
    theta = check.array("theta", theta, ndim=1)
    u = check.array("u", u, shape=theta.shape)
    eta, gamma = check.number("eta", eta), check.number("gamma", gamma, 0.0)
    return (1 - gamma * eta) * theta - eta * u


@dataclass(frozen=True)
class MFAC:
    """The preconditioner M-FAC: a window and its scalar products."""

    window: Any  # DenseWindow or SparseWindow
    S: Array  # (m, m) G G^T


def mfac(A: MFAC, c: Any, lam: float, normalise: str = "window") -> tuple[Array, MFAC]:
    """Insert c_t into the window, then precondition it: line 8 of Algorithm 1 for M-FAC.

    Source: section 2.2; R1, R4, R7, R9. The scalar products G c_t are at once the new row of S and h = G x.

    Args:
        A: window and S.
        c: compressed gradient, Dense or Sparse; as stored, it is also the vector x that is preconditioned.
        lam: damping lambda > 0.
        normalise: the m of F (R4).

    Returns:
        u = F^-1 c_t, (d,), and the next (window, S).

    Cost: one SP, one LCG and m^3 / 3 flops.

    >>> A = MFAC(DenseWindow.empty(d=2, m=1), np.zeros((1, 1)))
    >>> mfac(A, Dense(np.array([1.0, 0.0])), 0.1)[0].round(3)  # g / (lam + |g|^2); the other order gives 10 (R9)
    array([0.909, 0.   ])
    """
    row = A.window.row
    window = A.window.insert(c)
    x = window.dense()[row]  # (d,) c as the window stores it
    h = window.scalar_products(x)  # (m,)
    S = updated(A.S, row, h)  # (m, m)
    m = denominator(window.dense(), normalise)
    u = direction(x, lam, window.linear_combination(coefficients(S, h, lam, m)))  # (d,)
    return u, MFAC(window, S)


@dataclass(frozen=True)
class OptimizerState:
    """What every optimizer carries: steps taken, error and preconditioner of Algorithm 1."""

    t: int
    xi: Array  # (d,)
    A: Any


def step(
    state: OptimizerState, g: Any, compress: algorithm_1.Compress, precondition: algorithm_1.Precondition,
) -> tuple[Array, OptimizerState]:
    """Take one step of Algorithm 1, counting it.

    >>> step(OptimizerState(0, np.zeros(2), None), [1.0, 3.0], partial(keep, k=1), algorithm_1.identity)[0]
    array([0., 3.])
    """
    u, after = algorithm_1.step(algorithm_1.State(state.xi, state.A), g, compress, precondition)
    return u, OptimizerState(state.t + 1, after.xi, after.A)


class _Optimizer(ABC):
    """Thin shell: holds the state, counts nothing and computes nothing itself."""

    _state: Any
    _step: Callable[[Any, Any], tuple[Array, Any]]

    def step(self, g: Any) -> Array:
        """Take the gradient g_t (d,) and return the direction u_t (d,), in the precision of g.

        Raises:
            TypeError, ValueError: g is not a finite real vector of d entries; the state is as before.
        """
        precision = check.array("g", g, ndim=1).dtype
        u, self._state = self._step(self._state, g)
        return check.like(precision, u)

    def state(self) -> dict[str, Any]:
        """Return a copy of the state, by the names of the contract."""
        entries = self._entries().items()
        return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in entries}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that ``state()`` returned.

        Raises:
            KeyError, TypeError, ValueError: a key is missing, or a value has the wrong shape; the state is as before.
        """
        now = self._entries()
        if missing := sorted(set(now) - set(state)):
            raise KeyError(f"state lacks {', '.join(missing)}, must have {', '.join(now)}")
        self._state = self._restored({name: _like(name, state[name], value) for name, value in now.items()})

    @abstractmethod
    def _entries(self) -> dict[str, Any]:
        """Return the state by the names of the contract."""

    @abstractmethod
    def _restored(self, entries: dict[str, Any]) -> Any:
        """Return the state that these entries are of."""


def _like(name: str, new: Any, old: Any) -> Any:
    if isinstance(old, (int, np.integer)):
        return check.integer(name, new, 0)
    if old.dtype.kind in "iu":
        indices = check.plain(name, new)
        if indices.dtype.kind not in "iu" or indices.shape != old.shape:
            found = f"dtype {indices.dtype} and shape {indices.shape}"
            raise ValueError(f"{name} has {found}, must hold integers in shape {old.shape}")
        return indices.astype(old.dtype)
    return check.array(name, new, shape=old.shape).astype(old.dtype)


class topk_sgd(_Optimizer):
    """Top-k SGD with error feedback: Algorithm 1 with A the identity.

    Args:
        d: dimension.
        k: kept entries, 0..d.

    >>> optimizer = topk_sgd(d=2, k=1)
    >>> optimizer.step([3.0, 2.0]), optimizer.step([0.0, 2.0])
    (array([3., 0.]), array([0., 4.]))
    """

    def __init__(self, d: int, k: int) -> None:
        d, k = check.dimension(d), check.integer("k", k, 0, d)
        self._state = OptimizerState(0, np.zeros(d), None)
        self._step = partial(topk_sgd_step, k=k)

    def _entries(self) -> dict[str, Any]:
        return {"t": self._state.t, "xi": self._state.xi}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        return OptimizerState(entries["t"], entries["xi"], None)


def topk_sgd_step(state: OptimizerState, g: Any, k: int) -> tuple[Array, OptimizerState]:
    """Take one step of Algorithm 1 with Top-k and A the identity.

    What is sent is c in the precision of g; what that rounds away waits in the error like the rest (R14).

    >>> a = OptimizerState(0, np.array([0.0, 2.0**-30]), None)
    >>> topk_sgd_step(a, np.float32([0.0, 1.0]), 1)[1].xi[1] == 2.0**-30
    np.True_
    """
    sent = check.array("g", g, ndim=1).dtype
    return step(state, g, partial(keep, k=k, dtype=sent), algorithm_1.identity)


class dense_mfac(_Optimizer):
    """Dense M-FAC: nothing is compressed, so the error stays zero.

    Args:
        d: dimension.
        m: window size.
        lam: damping lambda > 0.
        normalise: the m of F: "window", or "stored", the gradients stored so far (R4).

    >>> dense_mfac(d=2, m=1, lam=1.0).step([3.0, 4.0]).round(4)  # m g / (lam m + |g|^2)
    array([0.1154, 0.1538])
    """

    def __init__(self, d: int, m: int, lam: float, normalise: str = "window") -> None:
        d, m = check.dimension(d), check.window_size(m)
        A = MFAC(DenseWindow.empty(d, m), np.zeros((m, m)))
        self._state = OptimizerState(0, np.zeros(d), A)
        precondition = partial(mfac, lam=check.positive("lam", lam), normalise=_normalise(normalise))
        self._step = partial(step, compress=Dense, precondition=precondition)

    def _entries(self) -> dict[str, Any]:
        A = self._state.A
        return {"t": self._state.t, "row": A.window.row, "G": A.window.G, "S": A.S}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        window = DenseWindow(entries["G"], check.integer("row", entries["row"], 0, len(entries["G"]) - 1))
        return OptimizerState(entries["t"], self._state.xi, MFAC(window, entries["S"]))


def _normalise(name: str) -> str:
    return check.choice("normalise", name, ("window", "stored"))


class sparse_mfac(_Optimizer):
    """Sparse M-FAC: Algorithm 1 with blockwise Top-k and M-FAC on the sparse window (I, V).

    Args:
        d: dimension.
        m: window size.
        lam: damping lambda > 0.
        block_size: B_d of the blockwise Top-k; default d, one block.
        density: kept fraction of every block, in (0, 1].
        dtype: storage of the values: "float64", "float32", "bfloat16" (R14).
        index: storage of the indices: "absolute", "uint16" or "int32" relative to the block (R13).
        normalise: see `dense_mfac`.

    >>> optimizer = sparse_mfac(d=4, m=2, lam=1.0, block_size=2, density=0.5)
    >>> optimizer.step([3.0, 1.0, 0.0, 4.0]).round(4)  # m c / (lam m + |c|^2), c = (3, 0, 0, 4)
    array([0.2222, 0.    , 0.    , 0.2963])
    >>> optimizer.state()["xi"]
    array([0., 1., 0., 0.])
    """

    def __init__(
        self, d: int, m: int, lam: float, block_size: int | None = None, density: Any = 0.01,
        dtype: str = "float64", index: str = "absolute", normalise: str = "window",
    ) -> None:
        window = SparseWindow.empty(d, m, block_size, density, dtype, index)
        self._state = OptimizerState(0, np.zeros(d), MFAC(window, np.zeros((m, m))))
        compress = partial(keep_blocks, block_size=window.block_size, density=window.density, dtype=dtype)
        precondition = partial(mfac, lam=check.positive("lam", lam), normalise=_normalise(normalise))
        self._step = partial(step, compress=compress, precondition=precondition)

    def _entries(self) -> dict[str, Any]:
        window = self._state.A.window
        return {
            "t": self._state.t, "row": window.row, "xi": self._state.xi,
            "indices": window.indices, "values": window.values, "S": self._state.A.S,
        }

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        old = self._state.A.window
        check.check_rows(entries["indices"], entries["values"], old.d, old.block_size, old.density)
        window = replace(
            old, stored_indices=old.to_storage(entries["indices"]), values=entries["values"],
            row=check.integer("row", entries["row"], 0, len(old.values) - 1),
        )
        return OptimizerState(entries["t"], entries["xi"], MFAC(window, entries["S"]))


class low_rank_mfac(_Optimizer):
    """Low-Rank M-FAC: Algorithm 1 with Algorithm 5 in every layer and Algorithm 6 over all of them.

    Args:
        shapes: shape of every layer's tensor; g holds them one after another, each in C order.
        m: window size.
        lam: damping lambda > 0.
        rank: rho, clamped to min(p1, p2*...*ps) in each layer (R25).
        Q0: starting Q, (p2*...*ps, rho), of every layer of two or more dimensions, in order.

    >>> optimizer = low_rank_mfac(shapes=[(2, 2)], m=1, lam=1.0, rank=1, Q0=[np.ones((2, 1))])
    >>> optimizer.step([3.0, 0.0, 4.0, 0.0]).round(4) + 0.0  # g / (lam + |g|^2)
    array([0.1154, 0.    , 0.1538, 0.    ])
    """

    def __init__(self, shapes: Sequence[Sequence[int]], m: int, lam: float, rank: int, Q0: Sequence[Any]) -> None:
        self._state = algorithm_6.initial_state(shapes, m, rank, Q0)
        self._step = partial(algorithm_6.low_rank_mfac_step, lam=check.positive("lam", lam))

    def _entries(self) -> dict[str, Any]:
        state = self._state
        factors = {f"{name}{l}": getattr(G, name) for l, G in enumerate(state.G) for name in "PQ"}
        return {"t": state.t, "row": state.row, "xi": state.xi, **factors, "S": state.S}

    def _restored(self, entries: dict[str, Any]) -> algorithm_6.LowRankState:
        state = self._state
        G = tuple(Factors(entries[f"P{l}"], entries[f"Q{l}"]) for l in range(len(state.G)))
        row = check.integer("row", entries["row"], 0, len(state.S) - 1)
        return replace(state, G=G, S=entries["S"], xi=entries["xi"], row=row, t=entries["t"])


@dataclass(frozen=True)
class GGT:
    """The preconditioner GGT on a dense window."""

    window: DenseWindow


def ggt(A: GGT, c: Dense, eps: float, cutoff: float, ridge: float = 0.0) -> tuple[Array, GGT]:
    """Insert c_t into the window, then precondition it: line 8 of Algorithm 1 for dense GGT.

    Source: appendix H, dense; R24 for cutoff and ridge.

    >>> ggt(GGT(DenseWindow.empty(d=2, m=1)), Dense(np.array([3.0, 4.0])), 1.0, 0.0)[0].round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """
    window = A.window.insert(c)
    return algorithm_4.ggt_direction(window.G, c.values, eps, cutoff, ridge=ridge).u, GGT(window)


class dense_ggt(_Optimizer):
    """Dense GGT: full-matrix AdaGrad on a window of whole gradients.

    Args:
        d: dimension.
        m: window size.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff * sigma_1^2 is dropped (R24).
        ridge: added to the Gram matrix before the decomposition, the other habit of R24.

    >>> dense_ggt(d=2, m=3, eps=1.0, cutoff=1e-12).step([3.0, 4.0]).round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """

    def __init__(self, d: int, m: int, eps: float, cutoff: float, ridge: float = 0.0) -> None:
        window = DenseWindow.empty(d, m)
        self._state = OptimizerState(0, np.zeros(d), GGT(window))
        numbers = _ggt_numbers(eps, cutoff, ridge)
        self._step = partial(step, compress=Dense, precondition=partial(ggt, **numbers))

    def _entries(self) -> dict[str, Any]:
        window = self._state.A.window
        return {"t": self._state.t, "row": window.row, "G": window.G}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        row = check.integer("row", entries["row"], 0, len(entries["G"]) - 1)
        return OptimizerState(entries["t"], self._state.xi, GGT(DenseWindow(entries["G"], row)))


def _ggt_numbers(eps: float, cutoff: float, ridge: float) -> dict[str, Any]:
    return {
        "eps": check.positive("eps", eps),
        "cutoff": check.number("cutoff", cutoff, 0.0),
        "ridge": check.number("ridge", ridge, 0.0),
    }


class sparse_ggt(_Optimizer):
    """Sparse GGT: Algorithm 1 with Top-k and Algorithm 4.

    Args:
        d: dimension.
        m: window size.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff * sigma_1^2 is dropped (R24).
        k: kept entries of every gradient, 1..d.
        ridge: see `dense_ggt`.

    >>> sparse_ggt(d=3, m=2, eps=1.0, cutoff=1e-12, k=2).step([3.0, 1.0, 4.0]).round(4)  # c / (|c| + eps)
    array([0.5   , 0.    , 0.6667])
    """

    def __init__(self, d: int, m: int, eps: float, cutoff: float, k: int, ridge: float = 0.0) -> None:
        A = algorithm_4.initial_state(d, m, k)
        self._state = OptimizerState(0, np.zeros(d), A)
        numbers = _ggt_numbers(eps, cutoff, ridge)
        self._step = partial(step, compress=partial(keep, k=k), precondition=partial(sparse_ggt_insert, **numbers))

    def _entries(self) -> dict[str, Any]:
        A = self._state.A
        indices, values = A.rows
        return {"t": self._state.t, "row": A.i, "xi": self._state.xi, "indices": indices, "values": values}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        t, row, d = entries["t"], entries["row"], self._state.A.d
        A = algorithm_4.restored_state(entries["indices"], entries["values"], d, row, t)
        return OptimizerState(t, entries["xi"], A)


def sparse_ggt_insert(
    A: algorithm_4.SparseGGTState, c: Sparse, eps: float, cutoff: float, ridge: float = 0.0,
) -> tuple[Array, algorithm_4.SparseGGTState]:
    """Insert c_t into the window, then precondition it: line 8 of Algorithm 1 for Sparse GGT is Algorithm 4.

    >>> c = Sparse(np.array([0, 2]), np.array([3.0, 4.0]), 3)
    >>> sparse_ggt_insert(algorithm_4.initial_state(3, 2, 2), c, 1.0, 1e-12)[0].round(4)
    array([0.5   , 0.    , 0.6667])
    """
    return algorithm_4.sparse_ggt_step(A, c.indices, c.values, eps=eps, cutoff=cutoff, ridge=ridge)


class adagrad_ef(_Optimizer):
    """Diagonal AdaGrad with error feedback: Algorithm 7.

    Args:
        d: dimension.
        k: kept entries, 0..d.
        eps: added outside the root (R29); 0 leaves coordinates with G = 0 where they are.

    >>> optimizer = adagrad_ef(d=2, k=1)
    >>> optimizer.step([3.0, 2.0]), optimizer.step([0.0, 2.0])
    (array([1., 0.]), array([0., 1.]))
    """

    def __init__(self, d: int, k: int, eps: float = 0.0) -> None:
        d = check.dimension(d)
        self._state = OptimizerState(0, np.zeros(d), np.zeros(d))
        self._step = partial(adagrad, k=check.integer("k", k, 0, d), eps=check.number("eps", eps, 0.0))

    def _entries(self) -> dict[str, Any]:
        return {"t": self._state.t, "xi": self._state.xi, "G": self._state.A}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        return OptimizerState(entries["t"], entries["xi"], entries["G"])


def adagrad(state: OptimizerState, g: Any, k: int, eps: float = 0.0) -> tuple[Array, OptimizerState]:
    """Take one step of Algorithm 7 from theta = 0 at rate 1: then theta is -u.

    >>> adagrad(OptimizerState(0, np.zeros(2), np.zeros(2)), np.array([3.0, 2.0]), 1)[0]
    array([1., 0.])
    """
    g = check.array("g", g, shape=state.xi.shape).astype(np.float64)
    after = algorithm_7.adagrad_step(np.zeros_like(state.xi), state.xi, state.A, g, k, 1.0, eps)
    return 0.0 - after.theta, OptimizerState(state.t + 1, after.xi, after.G)


class ef_signsgd(_Optimizer):
    """EF-SignSGD: the slides' Algorithm 1; ``step`` returns Delta, which already holds gamma.

    Args:
        d: dimension.
        gamma: learning rate > 0.
        per_tensor: sizes of the tensors that are scaled one by one; default the whole vector (R34).

    >>> ef_signsgd(d=2, gamma=0.5).step([4.0, -2.0])
    array([ 1.5, -1.5])
    """

    def __init__(self, d: int, gamma: float, per_tensor: Sequence[int] | None = None) -> None:
        e = np.zeros(check.dimension(d))
        mean_magnitude(e, per_tensor)  # raises where the sizes do not sum to d
        self._state = OptimizerState(0, e, None)
        self._step = partial(sign_sgd, gamma=check.positive("gamma", gamma), per_tensor=per_tensor)

    def _entries(self) -> dict[str, Any]:
        return {"t": self._state.t, "e": self._state.xi}

    def _restored(self, entries: dict[str, Any]) -> OptimizerState:
        return OptimizerState(entries["t"], entries["e"], None)


def sign_sgd(
    state: OptimizerState, g: Any, gamma: float, per_tensor: Sequence[int] | None = None,
) -> tuple[Array, OptimizerState]:
    """Take one step of the slides' Algorithm 1 from x = 0: then x is -Delta.

    >>> sign_sgd(OptimizerState(0, np.zeros(2), None), np.array([4.0, -2.0]), 0.5)[0]
    array([ 1.5, -1.5])
    """
    g = check.array("g", g, shape=state.xi.shape).astype(np.float64)
    after = sign.sign_step(np.zeros_like(state.xi), state.xi, g, gamma, per_tensor=per_tensor)
    return 0.0 - after.x, OptimizerState(state.t + 1, after.e, None)
