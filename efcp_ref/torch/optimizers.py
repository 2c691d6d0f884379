"""Shells over `efcp_ref.paper.optimizers`: a model's gradients in, its parameters out, everything between in NumPy.

All parameters of all groups form one vector, in order: the paper preconditions the whole model at once. A group has its
own ``lr`` and ``weight_decay``; window, damping and density belong to the optimizer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from efcp_ref.paper import _validate as check
from efcp_ref.paper import optimizers as paper
from efcp_ref.paper._validate import Array

OWN = "reference"  # the key of `state_dict` that holds the reference's state
PER_GROUP = {"params", "lr", "weight_decay"}


class Shell(Optimizer):
    """What all shells share: the flat vector, the update, the state.

    Source: section 2.2, line 79: ``theta = (1 - gamma eta) theta - eta u`` with ``gamma = weight_decay`` and
    ``eta = lr`` (R6: the decay never enters the window). Parameters are read and written in their own precision and on
    their own device; the vector between is float64, so with float64 parameters a run is bit for bit the reference's.
    A parameter without a gradient counts as one whose gradient is zero; if none has a gradient, a step does nothing.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float, make: Callable[[int], Any]) -> None:
        """Take the parameters; ``make(d)`` makes the reference optimizer of d entries."""
        self._reference: Any = None
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._reference = make(sum(p.numel() for p in self._parameters()))

    @property
    def reference(self) -> Any:
        """The optimizer of `efcp_ref` underneath: ``reference.state()["xi"]`` is the error."""
        return self._reference

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take a group while the optimizer is made; later the window has its length and nothing can be added.

        Raises:
            TypeError, ValueError: a parameter is not real floating point, a number is out of range, a key is not the
                group's, or the optimizer is complete.
        """
        if self._reference is not None:
            raise ValueError("params cannot grow: the window already holds vectors of one length")
        if unknown := sorted(set(param_group) - PER_GROUP):
            raise ValueError(f"group has {', '.join(unknown)}, may have its own {', '.join(sorted(PER_GROUP))} only")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        check.number("lr", group["lr"], 0.0)
        check.number("weight_decay", group["weight_decay"], 0.0)
        for p in group["params"]:
            if not p.is_floating_point() or p.numel() == 0:
                raise TypeError(f"params holds {tuple(p.shape)} of {p.dtype}, must hold real numbers, at least one")

    def _parameters(self) -> list[torch.Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def gradient(self) -> Array:
        """Return the gradient of all parameters as one vector, (d,) float64; zero where a parameter has none.

        Raises:
            TypeError: a gradient is sparse.
        """
        if any(p.grad is not None and p.grad.layout != torch.strided for p in self._parameters()):
            raise TypeError("a gradient is sparse, every gradient must be dense")
        return np.concatenate([_flat(torch.zeros_like(p) if p.grad is None else p.grad) for p in self._parameters()])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what ``closure``, if given, returned.

        Raises:
            TypeError, ValueError: a gradient is sparse, or holds NaN or infinity; nothing has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(p.grad is not None for p in self._parameters()):
            self._update(self.gradient())
        return loss

    def _update(self, g: Array) -> None:
        u = self._reference.step(g)
        self._write([(group["lr"], group["lr"] * group["weight_decay"]) for group in self.param_groups], u)

    def _write(self, rates: Sequence[tuple[float, float]], u: Array) -> None:
        """Move every parameter: ``theta = (1 - decay) theta - rate u``, one (rate, decay) per group."""
        start = 0
        for (rate, decay), group in zip(rates, self.param_groups, strict=True):
            for p in group["params"]:
                end = start + p.numel()
                theta = (1 - float(decay)) * _flat(p) - float(rate) * u[start:end]
                p.copy_(torch.from_numpy(theta).view(p.shape))
                start = end

    def state_dict(self) -> dict[str, Any]:
        """Return groups and state; the reference's state stands under "reference", as tensors and numbers."""
        entries = self._reference.state()
        return {**super().state_dict(), OWN: {name: _tensor(value) for name, value in entries.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; every number is kept to the bit.

        Raises:
            KeyError, TypeError, ValueError: the state is another optimizer's or another model's; nothing has changed.
        """
        if OWN not in state_dict:
            raise KeyError(f"state_dict lacks {OWN!r}, must come from {type(self).__name__}.state_dict()")
        loaded = copy.deepcopy(self._reference)
        loaded.load({name: _array(value) for name, value in state_dict[OWN].items()})
        super().load_state_dict({name: value for name, value in state_dict.items() if name != OWN})
        self._reference = loaded

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs: torch leaves out what it does not know."""
        return {**super().__getstate__(), "_reference": self._reference}


def _flat(p: torch.Tensor) -> Array:
    return p.detach().to("cpu", torch.float64).reshape(-1).numpy()


def _tensor(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(value.copy())


def _array(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return value.double().numpy() if value.dtype == torch.bfloat16 else value.numpy()


class DenseMFAC(Shell):
    """Dense M-FAC, section 2.2; see `efcp_ref.dense_mfac`.

    Args:
        params: parameters or groups.
        lr: learning rate eta, at least 0.
        m: window size; it holds 8 m d bytes.
        lam: damping lambda > 0.
        weight_decay: gamma, at least 0, decoupled (R6).
        normalise: "window" or "stored" (R4).

    Raises:
        TypeError, ValueError: see `Shell.add_param_group` and `efcp_ref.dense_mfac`.
    """

    def __init__(
        self, params: Any, lr: float, m: int, lam: float, weight_decay: float = 0.0, normalise: str = "window"
    ) -> None:
        super().__init__(params, lr, weight_decay, lambda d: paper.dense_mfac(d, m, lam, normalise))


class SparseMFAC(Shell):
    """Sparse M-FAC, Algorithm 1 with section 3.1; see `efcp_ref.sparse_mfac`.

    Args:
        params, lr, m, lam, weight_decay, normalise: see `DenseMFAC`.
        density: kept fraction of every block, in (0, 1].
        block_size: B_d; default one block, the whole vector.
        dtype, index: storage of values and indices (R13, R14).

    Raises:
        TypeError, ValueError: see `Shell.add_param_group` and `efcp_ref.sparse_mfac`.
    """

    def __init__(
        self, params: Any, lr: float, m: int, lam: float, density: Any = 0.01, block_size: int | None = None,
        weight_decay: float = 0.0, dtype: str = "float64", index: str = "absolute", normalise: str = "window",
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, weight_decay,
            lambda d: paper.sparse_mfac(d, m, lam, block_size, density, dtype, index, normalise),
        )  # fmt: skip


class LowRankMFAC(Shell):
    """Low-Rank M-FAC, Algorithms 5 and 6; see `efcp_ref.low_rank_mfac`. Every parameter is a layer.

    Args:
        params, lr, m, lam, weight_decay: see `DenseMFAC`.
        rank: rho, clamped to the layer's size (R25).
        Q0: starting Q of every parameter of two or more dimensions, in order; default normal numbers from ``rng``.
        rng: source of Q0, needed where it is not given.

    Raises:
        TypeError, ValueError: see `Shell.add_param_group` and `efcp_ref.low_rank_mfac`; neither Q0 nor rng is given.
    """

    def __init__(
        self, params: Any, lr: float, m: int, lam: float, rank: int = 1, Q0: Sequence[Any] | None = None,
        rng: np.random.Generator | None = None, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        def make(d: int) -> Any:
            shapes = [tuple(p.shape) or (1,) for p in self._parameters()]
            return paper.low_rank_mfac(shapes, m, lam, rank, starts(shapes, rank, rng) if Q0 is None else Q0)

        super().__init__(params, lr, weight_decay, make)


def starts(shapes: Sequence[tuple[int, ...]], rank: int, rng: np.random.Generator | None) -> list[Array]:
    """Return normal starting factors Q, (p2*...*ps, rho), for the shapes of two or more dimensions.

    Raises:
        TypeError: rng is not a numpy.random.Generator.

    >>> [Q.shape for Q in starts([(4, 3), (4,), (2, 5)], 3, np.random.default_rng(0))]
    [(3, 3), (5, 2)]
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng = {rng!r}, must be a numpy.random.Generator where Q0 is not given")
    sizes = [(shape[0], int(np.prod(shape[1:]))) for shape in shapes if len(shape) > 1]
    return [rng.standard_normal((p2s, min(rank, p1, p2s))) for p1, p2s in sizes]


class SparseGGT(Shell):
    """Sparse GGT, Algorithm 4; see `efcp_ref.sparse_ggt`.

    Args:
        params, lr, m, weight_decay: see `DenseMFAC`.
        eps: damping epsilon > 0.
        k: kept entries of every gradient.
        cutoff, ridge: R24.

    Raises:
        TypeError, ValueError: see `Shell.add_param_group` and `efcp_ref.sparse_ggt`.
    """

    def __init__(
        self, params: Any, lr: float, m: int, eps: float, k: int, cutoff: float = 1e-12, ridge: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, weight_decay, lambda d: paper.sparse_ggt(d, m, eps, cutoff, k, ridge))


class AdaGradEF(Shell):
    """Diagonal AdaGrad with error feedback, Algorithm 7; see `efcp_ref.adagrad_ef`.

    Args:
        params, lr, weight_decay: see `DenseMFAC`.
        k: kept entries of every gradient.
        eps: added outside the root (R29).

    Raises:
        TypeError, ValueError: see `Shell.add_param_group` and `efcp_ref.adagrad_ef`.
    """

    def __init__(self, params: Any, lr: float, k: int, eps: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr, weight_decay, lambda d: paper.adagrad_ef(d, k, eps))


class EFSignSGD(Shell):
    """EF-SignSGD, the slides' Algorithm 1; see `efcp_ref.ef_signsgd`.

    The rate is inside the error: ``p = lr g + e``, ``theta = (1 - weight_decay lr) theta - Delta``. So a rate that
    changes changes what comes in, and an old error is paid in full (R10). Every group has its own rate.

    Args:
        params, lr, weight_decay: see `DenseMFAC`.
        per_tensor: whether every parameter has a scale of its own (R34); default one scale for all.

    Raises:
        TypeError, ValueError: see `Shell.add_param_group`.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0, per_tensor: bool = False) -> None:
        def make(d: int) -> Any:
            sizes = [p.numel() for p in self._parameters()] if per_tensor else None
            return paper.ef_signsgd(d, 1.0, sizes)  # gamma = 1: g comes multiplied with each group's rate

        super().__init__(params, lr, weight_decay, make)

    def _update(self, g: Array) -> None:
        sizes = [sum(p.numel() for p in group["params"]) for group in self.param_groups]
        rate = np.repeat([float(group["lr"]) for group in self.param_groups], sizes)  # (d,)
        delta = self._reference.step(rate * g)
        self._write([(1.0, group["lr"] * group["weight_decay"]) for group in self.param_groups], delta)
