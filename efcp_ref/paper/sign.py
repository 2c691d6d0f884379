"""The slides: EF-SignSGD, and the methods that it is compared with.

Tags: ``# S1:n`` is line n of the slides' Algorithm 1. Lines 1 (inputs; e_0 = 0) and 8 ("end for") are structure.
EF-SignSGD is `ef_signsgd_run` around `sign_step`. The slides cite an "Algorithm 2" (EF-SGD) and do not print it (R40):
it is Algorithm 1 with any compressor, `ef_step`. The other methods are pure: ``step(state, g, ...) -> (Delta, state)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.compressors import mean_magnitude


class SignStep(NamedTuple):
    """What one step of EF-SignSGD returns."""

    x: Array  # (d,) iterate
    e: Array  # (d,) residual error


def sign_step(x: Any, e: Any, g: Any, gamma: float, per_tensor: Sequence[int] | None = None) -> SignStep:
    """Take one step of EF-SignSGD: correct, compress, move, keep the rest.

    Source: slides, Algorithm 1, lines 4-7. ``p = gamma g + e``, ``Delta = (|p|_1 / d) sign(p)``, ``x' = x - Delta``,
    ``e' = p - Delta``. sign(0) = 0, and |p|_1 / d is that of the whole vector unless ``per_tensor`` is given (R34).

    Args:
        x: iterate x_t, (d,), finite.
        e: residual error e_t, (d,), finite.
        g: stochastic gradient g_t, (d,), finite.
        gamma: learning rate, at least 0.
        per_tensor: sizes of the tensors in x, summing to d; default one tensor, the whole vector.

    Returns:
        ``x`` and ``e`` of the next step, (d,) each, in the precision given for each.

    Raises:
        TypeError, ValueError: a vector is not finite and real, lengths differ, gamma is negative, the sizes are wrong.

    Cost: 6 d flops; reads 24 d bytes, writes 16 d bytes.

    >>> sign_step(np.zeros(2), np.zeros(2), np.array([3.0, -1.0]), 1.0)
    SignStep(x=array([-2.,  2.]), e=array([1., 1.]))
    """
    x = check.array("x", x, ndim=1)
    e = check.array("e", e, shape=x.shape)
    g = check.array("g", g, shape=x.shape)
    gamma = check.number("gamma", gamma, 0.0)
    p = gamma * g.astype(np.float64) + e.astype(np.float64)  # (d,)         # S1:4
    delta = mean_magnitude(p, per_tensor) * np.sign(p)  # (d,) scaled sign  # S1:5
    x_next = x.astype(np.float64) - delta  # (d,)                           # S1:6
    e_next = p - delta  # (d,)                                              # S1:7
    return SignStep(check.like(x.dtype, x_next), check.like(e.dtype, e_next))


@dataclass(frozen=True)
class Run:
    """What a run visited: ``x`` and ``e`` hold one row more than ``g``, the row before the first step."""

    x: Array  # (T + 1, d) iterates
    e: Array  # (T + 1, d) residual errors; zero for methods without feedback
    g: Array  # (T, d) gradients


Gradient = Callable[[Array, int], Array]  # stochasticGradient(x_t), with the step number t for methods that sample


def ef_signsgd_run(
    gradient: Gradient, x0: Any, gamma: float, T: int, per_tensor: Sequence[int] | None = None
) -> Run:
    """Run EF-SignSGD for T steps from x_0 with e_0 = 0.

    Source: slides, Algorithm 1.

    Args:
        gradient: ``gradient(x, t) -> g``, (d,).
        x0: starting iterate, (d,), finite.
        gamma: learning rate, at least 0.
        T: number of steps, at least 1.
        per_tensor: see `sign_step`.

    Returns:
        A `Run` in float64.

    Raises:
        TypeError, ValueError: see `sign_step`; T is not an integer of at least 1.

    Cost: T gradients and 6 T d flops; keeps 24 T d bytes.

    >>> ef_signsgd_run(lambda x, t: x, [4.0, 1.0], 0.5, 3).x
    array([[ 4.  ,  1.  ],
           [ 2.75, -0.25],
           [ 1.25,  1.25],
           [ 0.  ,  0.  ]])
    """
    x = check.array("x0", x0, ndim=1).astype(np.float64)
    e = np.zeros(len(x))  # e_0 = 0, line 1
    xs, es, gs = [x], [e], []
    for t in range(check.integer("T", T, 1)):  #                              # S1:2
        g = np.asarray(gradient(x, t))  # (d,)                               # S1:3
        x, e = sign_step(x, e, g, gamma, per_tensor)
        xs.append(x)
        es.append(e)
        gs.append(g)
    return Run(np.array(xs), np.array(es), np.array(gs))


@dataclass(frozen=True)
class State:
    """What a method keeps between steps; a method leaves the fields that it does not use at zero."""

    t: int  # steps done
    m: Array  # (d,) momentum
    e: Array  # (d,) residual error


Step = Callable[[State, Array], tuple[Array, State]]  # step(state, g) -> (Delta, state)
Compressor = Callable[[Array], Array]  # C(p), (d,) -> (d,)


def start(d: int) -> State:
    """Return the state before the first step: everything zero.

    >>> start(2)
    State(t=0, m=array([0., 0.]), e=array([0., 0.]))
    """
    d = check.dimension(d)
    return State(0, np.zeros(d), np.zeros(d))


def _given(state: State, g: Any) -> tuple[Array, State]:
    """Check g and count the step."""
    g = check.array("g", g, shape=state.m.shape).astype(np.float64)
    return g, replace(state, t=state.t + 1)


def sgd_step(state: State, g: Any, gamma: float) -> tuple[Array, State]:
    """Return SGD's step ``Delta = gamma g`` (slides, "Signed Gradient Descent").

    Args:
        state: see `State`.
        g: stochastic gradient, (d,), finite.
        gamma: learning rate, at least 0.

    Returns:
        Delta (d,), to be subtracted from x, and the next state.

    Raises:
        TypeError, ValueError: g is not a finite real (d,) vector, or gamma is negative.

    Cost: d flops; 16 d bytes.

    >>> sgd_step(start(2), [2.0, -4.0], 0.5)[0]
    array([ 1., -2.])
    """
    g, state = _given(state, g)
    return check.number("gamma", gamma, 0.0) * g, state


def sgdm_step(state: State, g: Any, gamma: float, mu: float = 0.9) -> tuple[Array, State]:
    """Return the step of SGD with momentum: ``m = mu m + g``, ``Delta = gamma m`` (slides' SGDM).

    Args:
        state: see `State`; ``m`` is used.
        g: stochastic gradient, (d,), finite.
        gamma: learning rate, at least 0.
        mu: momentum, in [0, 1).

    Returns:
        Delta (d,) and the next state.

    Raises:
        TypeError, ValueError: see `sgd_step`; mu is outside [0, 1).

    Cost: 3 d flops; 32 d bytes.

    >>> delta, state = sgdm_step(start(1), [1.0], 1.0, mu=0.5)
    >>> sgdm_step(state, [1.0], 1.0, mu=0.5)[0]
    array([1.5])
    """
    gamma, mu = check.number("gamma", gamma, 0.0), _fraction("mu", mu)
    g, state = _given(state, g)
    m = mu * state.m + g  # (d,)
    return gamma * m, replace(state, m=m)


def _fraction(name: str, value: Any) -> float:
    x = check.number(name, value, 0.0)
    if x >= 1:
        raise ValueError(f"{name} = {x}, must be at least 0 and less than 1")
    return x


def sign_sgd_step(state: State, g: Any, gamma: float) -> tuple[Array, State]:
    """Return SignSGD's step ``Delta = gamma sign(g)``, sign(0) = 0 (slides, "Signed Gradient Descent").

    Args, Returns, Raises: see `sgd_step`.

    Cost: d flops; 16 d bytes.

    >>> sign_sgd_step(start(3), [2.0, -4.0, 0.0], 0.5)[0]
    array([ 0.5, -0.5,  0. ])
    """
    g, state = _given(state, g)
    return check.number("gamma", gamma, 0.0) * np.sign(g), state


def signum_step(state: State, g: Any, gamma: float, beta: float = 0.9) -> tuple[Array, State]:
    """Return Signum's step, SignSGD with momentum: ``m = beta m + (1 - beta) g``, ``Delta = gamma sign(m)``.

    Source: slides, "Sign based momentum technique signum" (line 72), SIGNSGDM in the tables.

    Args:
        state: see `State`; ``m`` is used.
        g: stochastic gradient, (d,), finite.
        gamma: learning rate, at least 0.
        beta: momentum, in [0, 1).

    Returns:
        Delta (d,) and the next state.

    Raises:
        TypeError, ValueError: see `sgd_step`; beta is outside [0, 1).

    Cost: 4 d flops; 32 d bytes.

    >>> delta, state = signum_step(start(1), [4.0], 1.0, beta=0.5)
    >>> signum_step(state, [-1.0], 1.0, beta=0.5)[0]  # m = .5 * 2 - .5
    array([1.])
    """
    gamma, beta = check.number("gamma", gamma, 0.0), _fraction("beta", beta)
    g, state = _given(state, g)
    m = beta * state.m + (1 - beta) * g  # (d,)
    return gamma * np.sign(m), replace(state, m=m)


def ef_step(
    state: State, g: Any, gamma: float, compress: Compressor, feedback: str = "gamma g"
) -> tuple[Array, State]:
    """Return the step of SGD with error feedback and any compressor: the slides' "Algorithm 2" (R40).

    Source: slides, Algorithm 1 with C in place of the scaled sign; paper, Algorithm 1, lines 5-7.
    Two different algorithms (R10): ``feedback="gamma g"`` is the slides', ``p = gamma g + e``, ``Delta = C(p)``,
    ``e = p - Delta``; ``feedback="g"`` is the paper's, ``a = g + e``, ``Delta = gamma C(a)``, ``e = a - C(a)``.
    They agree while gamma is constant and C(s p) = s C(p); when gamma drops, the first pays its old error in full.

    Args:
        state: see `State`; ``e`` is used.
        g: stochastic gradient, (d,), finite.
        gamma: learning rate, at least 0.
        compress: C, a map of (d,) to (d,).
        feedback: "gamma g" or "g".

    Returns:
        Delta (d,) and the next state.

    Raises:
        TypeError, ValueError: see `sgd_step`; feedback is neither; C(p) is not a finite (d,) vector.

    Cost: 4 d flops and one compression; 40 d bytes.

    >>> ef_step(start(2), [3.0, 1.0], 1.0, lambda p: p * (abs(p) > 2))
    (array([3., 0.]), State(t=1, m=array([0., 0.]), e=array([0., 1.])))
    """
    gamma = check.number("gamma", gamma, 0.0)
    inside = gamma if check.choice("feedback", feedback, ("gamma g", "g")) == "gamma g" else 1.0
    outside = 1.0 if feedback == "gamma g" else gamma
    g, state = _given(state, g)
    p = inside * g + state.e  # (d,)
    c = check.array("compress(p)", compress(p), shape=p.shape).astype(np.float64)  # (d,)
    return outside * c, replace(state, e=p - c)


def compressed_step(state: State, g: Any, gamma: float, compress: Compressor) -> tuple[Array, State]:
    """Return the step without feedback, ``Delta = gamma C(g)``: what is dropped is lost (slides, Remark 5).

    Args:
        state: see `State`.
        g: stochastic gradient, (d,), finite.
        gamma: learning rate, at least 0.
        compress: C, for example an unbiased quantiser U.

    Returns:
        Delta (d,) and the next state.

    Raises:
        TypeError, ValueError: see `sgd_step`; C(g) is not a finite (d,) vector.

    Cost: d flops and one compression; 24 d bytes.

    >>> compressed_step(start(2), [3.0, 1.0], 0.5, lambda p: p * (abs(p) > 2))[0]
    array([1.5, 0. ])
    """
    gamma = check.number("gamma", gamma, 0.0)
    g, state = _given(state, g)
    return gamma * check.array("compress(p)", compress(g), shape=g.shape).astype(np.float64), state


def majority_vote(gradients: Any) -> Array:
    """Return the sign that most workers see, coordinate by coordinate; 0 on a tie.

    Source: slides, "majority vote" (line 71): ``sign(sum over workers of sign(g_i))``.

    Args:
        gradients: one worker's gradient per row, (n, d), finite.

    Returns:
        The vote, (d,), in {-1, 0, 1}, in the precision of the gradients.

    Raises:
        TypeError, ValueError: not a finite real matrix.

    Cost: n d flops; reads 8 n d bytes.

    >>> majority_vote([[1.0, -2.0], [5.0, -1.0], [-9.0, 1.0]])
    array([ 1., -1.])
    """
    gradients = check.array("gradients", gradients, ndim=2)
    return check.like(gradients.dtype, np.sign(np.sign(gradients.astype(np.float64)).sum(axis=0)))


def run(step: Step, gradient: Gradient, x0: Any, T: int) -> Run:
    """Run any of the steps for T steps: ``x_{t+1} = x_t - Delta_t``.

    Args:
        step: ``step(state, g) -> (Delta, state)``, for example ``lambda s, g: sgd_step(s, g, 0.1)``.
        gradient: ``gradient(x, t) -> g``, (d,).
        x0: starting iterate, (d,), finite.
        T: number of steps, at least 1.

    Returns:
        A `Run` in float64.

    Raises:
        TypeError, ValueError: x0 is not a finite real vector, T is not an integer of at least 1, or see the step.

    Cost: T gradients and steps; keeps 24 T d bytes.

    >>> run(lambda state, g: sgd_step(state, g, 0.5), lambda x, t: x, [4.0], 2).x
    array([[4.],
           [2.],
           [1.]])
    """
    x = check.array("x0", x0, ndim=1).astype(np.float64)
    state = start(len(x))
    xs, es, gs = [x], [state.e], []
    for t in range(check.integer("T", T, 1)):
        g = np.asarray(gradient(x, t))  # (d,)
        delta, state = step(state, g)
        x = x - delta
        xs.append(x)
        es.append(state.e)
        gs.append(g)
    return Run(np.array(xs), np.array(es), np.array(gs))
