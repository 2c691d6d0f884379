"""Your `torch.optim.Optimizer` or optax `GradientTransformation` as an optimizer of the contract, in five lines.

    from efcp_ref.adapt import torch_optimizer

    @torch_optimizer
    def sparse_mfac(params, m, lam, block_size, density):
        return MyOptimizer(params, lr=1.0, window=m, damping=lam, blocks=block_size, density=density)

The function is called like the operation and names those of the contract's parameters that it wants. The contract's u
is what the learning rate multiplies, so the rate must be 1 (for `ef_signsgd`, whose u holds the rate, it is gamma). The
parameters are set to zero before every step: u is then minus what they are after it, and no rounding comes between.
An optimizer that reads its parameters, as weight decay does, reads zeros.

PyTorch and JAX are imported by `torch_optimizer` and `optax_transformation`, not by this module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from efcp_ref.oracle.results import to_numpy

Make = Callable[..., Any]
Show = Callable[[Any, Any], Mapping[str, Any]]


def torch_optimizer(make: Make | None = None, *, state: Show | None = None, device: str | None = None) -> Any:
    """Return an optimizer of the contract that steps a `torch.optim.Optimizer`.

    Source: section 2.2, line 79, theta' = theta - eta u; with theta = 0 and eta = 1, u = -theta'.

    Args:
        make: ``make(params, ...)`` returns the optimizer. ``params`` is a list of tensors: one of d entries, or one per
            shape of ``shapes``; the other arguments are parameters of the contract, by name. Left out, this is a
            decorator.
        state: ``state(optimizer, params)`` returns the state by the contract's names, where it is to be judged, too.
        device: of the parameters; default the CPU.

    Raises (at the first step):
        ValueError: the learning rate of a group is neither 1 nor, where the contract has one, gamma.

    >>> import torch
    >>> @torch_optimizer
    ... def topk_sgd(params, d, k):
    ...     return torch.optim.SGD(params, lr=1.0)
    >>> topk_sgd(d=2, k=2).step(np.array([3.0, 4.0]))
    array([3., 4.])
    """
    if make is None:
        return partial(torch_optimizer, state=state, device=device)
    import torch

    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first optimizer imports for seconds: now, not inside a case
    return _factory(make, lambda parameters: _Torch(make, parameters, state, device))


def optax_transformation(make: Make | None = None, *, state: Show | None = None) -> Any:
    """Return an optimizer of the contract that steps an optax ``GradientTransformation``.

    Source: as `torch_optimizer`; optax adds its updates to the parameters, so u = -updates. A chain therefore ends with
    its rate, as in ``optax.chain(..., optax.scale(-1.0))``.

    Args:
        make: ``make(...)`` returns the transformation; its arguments are parameters of the contract, by name.
        state: ``state(opt_state, params)`` returns the state by the contract's names, where it is to be judged, too.

    The parameters are one array of d entries, or a list of one per shape of ``shapes``. Without ``jax_enable_x64`` JAX
    computes in float32, and is judged so.
    """
    if make is None:
        return partial(optax_transformation, state=state)
    import jax  # noqa: F401 - here, not inside a case

    return _factory(make, lambda parameters: _Optax(make, parameters, state))


def _factory(make: Make, build: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    def optimizer(**parameters: Any) -> Any:
        return build(parameters)

    optimizer.__name__, optimizer.__doc__ = getattr(make, "__name__", "optimizer"), make.__doc__
    return optimizer


def _named(make: Make, parameters: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
    """Those parameters that ``make`` names, without its first ``skip`` arguments."""
    wanted = list(inspect.signature(make).parameters.values())[skip:]
    if any(p.kind is p.VAR_KEYWORD for p in wanted):
        return dict(parameters)
    return {p.name: parameters[p.name] for p in wanted if p.name in parameters}


class _Adapted:
    """What both kinds share: shapes, flat vectors, and a state only where one is shown."""

    def __init__(self, make: Make, parameters: Mapping[str, Any], state: Show | None) -> None:
        self.make, self.parameters = make, parameters
        shapes: Sequence[Sequence[int]] = parameters.get("shapes") or [(parameters["d"],)]
        self.shapes = [tuple(map(int, shape)) for shape in shapes]
        if state is not None:
            self.state = lambda: state(*self._inside())

    def _inside(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def _cut(self, g: Any) -> list[np.ndarray]:
        """The tensors of the flat vector g, as NumPy arrays of their own."""
        ends = np.cumsum([prod(shape) for shape in self.shapes])[:-1]
        parts = np.split(np.array(to_numpy(g)), ends)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]


class _Torch(_Adapted):
    """Steps a torch optimizer from zero."""

    def __init__(self, make: Make, parameters: Mapping[str, Any], state: Show | None, device: str | None) -> None:
        super().__init__(make, parameters, state)
        self.device, self.optimizer = device, None
        self.params: list[Any] = []

    def _inside(self) -> tuple[Any, Any]:
        return self.optimizer, self.params

    def _start(self, gradients: list[Any]) -> None:
        import torch

        self.params = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
        self.optimizer = self.make(self.params, **_named(self.make, self.parameters, 1))
        rate = float(self.parameters.get("gamma", 1.0))
        for group in getattr(self.optimizer, "param_groups", []):
            if float(group.get("lr", rate)) != rate:
                rule = "gamma, as u holds the rate" if "gamma" in self.parameters else "1, as u is what it multiplies"
                raise ValueError(f"lr = {float(group['lr'])} in {self.make.__name__}, must be {rule}")

    def step(self, g: Any) -> np.ndarray:
        """Take one step from theta = 0 and return -theta."""
        import torch

        gradients = [torch.from_numpy(part).to(self.device or "cpu") for part in self._cut(g)]
        if self.optimizer is None:
            self._start(gradients)
        for p, part in zip(self.params, gradients, strict=True):
            p.data.zero_()
            p.grad = part
        self.optimizer.step()  # type: ignore[attr-defined]
        return -np.concatenate([p.detach().cpu().numpy().ravel() for p in self.params])


class _Optax(_Adapted):
    """Applies an optax transformation at zero."""

    def __init__(self, make: Make, parameters: Mapping[str, Any], state: Show | None) -> None:
        super().__init__(make, parameters, state)
        self.transformation = make(**_named(make, parameters))
        self.params: Any = None
        self.inside: Any = None

    def _inside(self) -> tuple[Any, Any]:
        return self.inside, self.params

    def step(self, g: Any) -> np.ndarray:
        """Return minus the updates of one step."""
        import jax

        gradients: Any = [jax.numpy.asarray(part) for part in self._cut(g)]
        gradients = gradients if "shapes" in self.parameters else gradients[0]
        if self.params is None:
            self.params = jax.tree.map(jax.numpy.zeros_like, gradients)
            self.inside = self.transformation.init(self.params)
        updates, self.inside = self.transformation.update(gradients, self.inside, self.params)
        return -np.concatenate([np.asarray(part).ravel() for part in jax.tree.leaves(updates)])
