"""The methods that the claims compare: every one is a composition of the executable paper's own functions.

A method turns a gradient and a learning rate into the step that is subtracted from the parameters. The windows are
written in place and held densely, for speed; what is kept in them is what the reference would keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from efcp_ref.paper import algorithm_1, algorithm_6, algorithm_7, sign
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_6 import Shapes
from efcp_ref.paper.compressors import keep_random, scaled_sign
from efcp_ref.paper.optimizers import MFAC, OptimizerState, mfac, step
from efcp_ref.paper.window import Dense, DenseWindow, keep, keep_blocks

BLOCK = 2048  # entries per Top-k block
Compress = Callable[[Array], Any]


class Method:
    """A method with its state; ``xi`` is the error buffer after the last step, or None where there is none."""

    xi: Array | None = None

    def step(self, g: Array, rate: float) -> Array:
        """Return what is subtracted from theta."""
        raise NotImplementedError


class _InPlace(DenseWindow):
    """The dense window, its oldest row overwritten in place: nobody else holds it."""

    def insert(self, c: Any) -> DenseWindow:
        self.G[self.row] = c.dense()
        return _InPlace(self.G, (self.row + 1) % len(self.G))


class Preconditioned(Method):
    """Algorithm 1: error feedback around COMPRESS and a preconditioner; ``feedback=False`` forgets the error."""

    def __init__(self, d: int, A: Any, compress: Compress, precondition: Any, feedback: bool) -> None:
        self.state, self.feedback = OptimizerState(0, np.zeros(d), A), feedback
        self._step = partial(step, compress=compress, precondition=precondition)

    def step(self, g: Array, rate: float) -> Array:
        """Return what is subtracted from theta."""
        u, self.state = self._step(self.state, g)
        if not self.feedback:
            self.state = replace(self.state, xi=np.zeros(len(g)))
        self.xi = self.state.xi
        return rate * u


class LowRank(Method):
    """Low-Rank M-FAC: COMPRESS is Algorithm 5 in every layer, the window holds P Q^T."""

    def __init__(self, d: int, shapes: Shapes, m: int, lam: float, rank: int, feedback: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ranks = algorithm_6.ranks(shapes, rank)
        pairs = zip(shapes, ranks, strict=True)
        self.Q = [rng.standard_normal((prod(s[1:]), r)) if len(s) > 1 else np.eye(1) for s, r in pairs]
        self.shapes = shapes
        self.inner = Preconditioned(d, _mfac(d, m), self._compress, partial(mfac, lam=lam), feedback)

    def _compress(self, a: Array) -> Any:
        c = algorithm_6.compress(a, self.shapes, self.Q)
        self.Q = [factors.Q for factors in c.layers]
        return c

    def step(self, g: Array, rate: float) -> Array:
        """Return what is subtracted from theta."""
        delta = self.inner.step(g, rate)
        self.xi = self.inner.xi
        return delta


class Adagrad(Method):
    """Algorithm 7, by its own step; k = d is diagonal AdaGrad."""

    def __init__(self, d: int, k: int, feedback: bool) -> None:
        self.xi, self.G, self.k, self.feedback = np.zeros(d), np.zeros(d), k, feedback

    def step(self, g: Array, rate: float) -> Array:
        """Return what is subtracted from theta."""
        zero = np.zeros(len(g))
        theta, xi, self.G = algorithm_7.adagrad_step(zero, self.xi, self.G, g, self.k, rate)
        self.xi = xi if self.feedback else zero
        return -theta


class Slides(Method):
    """A step of the slides: ``step(state, g, gamma) -> (Delta, state)``."""

    def __init__(self, d: int, step: Callable[..., tuple[Array, sign.State]]) -> None:
        self.state, self._step = sign.start(d), step

    def step(self, g: Array, rate: float) -> Array:
        """Return what is subtracted from theta."""
        delta, self.state = self._step(self.state, g, rate)
        self.xi = self.state.e
        return delta


def _mfac(d: int, m: int) -> MFAC:
    return MFAC(_InPlace(np.zeros((m, d))), np.zeros((m, m)))


@dataclass(frozen=True)
class Size:
    """What a method must know of the model."""

    d: int
    shapes: Sequence[tuple[int, ...]]


def build(name: str, size: Size, options: dict[str, Any], feedback: bool, seed: int) -> Method:
    """Return a method by name.

    Args:
        name: one of `NAMES`.
        size: the model's dimension and shapes.
        options: density, k, m, lam, rank, eps, cutoff, mu, beta: those that the method has.
        feedback: whether the error is fed back; without, it is dropped after every step.
        seed: of random-k and of the starting Q.

    Raises:
        ValueError: no such method.

    >>> build("sgd", Size(2, ((2,),)), {}, True, 0).step(np.array([1.0, -2.0]), 0.5)
    array([ 0.5, -1. ])
    """
    if name not in _BUILDERS:
        raise ValueError(f"method {name!r}, must be one of {', '.join(NAMES)}")
    return _BUILDERS[name](size, feedback=feedback, seed=seed, **options)


def _identity(size: Size, *, density: float, feedback: bool, seed: int) -> Method:
    compress = partial(keep_blocks, block_size=BLOCK, density=density)
    return Preconditioned(size.d, None, compress, algorithm_1.identity, feedback)


def _dense_mfac(size: Size, *, m: int, lam: float, feedback: bool, seed: int) -> Method:
    return Preconditioned(size.d, _mfac(size.d, m), Dense, partial(mfac, lam=lam), feedback)


def _sparse_mfac(size: Size, *, m: int, lam: float, density: float, feedback: bool, seed: int) -> Method:
    compress = partial(keep_blocks, block_size=BLOCK, density=density)
    return Preconditioned(size.d, _mfac(size.d, m), compress, partial(mfac, lam=lam), feedback)


def _random_mfac(size: Size, *, m: int, lam: float, density: float, feedback: bool, seed: int) -> Method:
    rng, k = np.random.default_rng(seed), round(density * size.d)
    return Preconditioned(
        size.d, _mfac(size.d, m), lambda a: Dense(keep_random(a, k, rng)), partial(mfac, lam=lam), feedback
    )


def _low_rank(size: Size, *, m: int, lam: float, rank: int, feedback: bool, seed: int) -> Method:
    return LowRank(size.d, tuple(size.shapes), m, lam, rank, feedback, seed)


def _ggt(size: Size, *, m: int, eps: float, density: float | None = None, feedback: bool, seed: int) -> Method:
    """GGT with the window's scalar products kept from step to step; see `ggt_in_coefficients`."""
    compress = Dense if density is None else partial(keep, k=-(-size.d * round(density * 1000) // 1000))
    return Preconditioned(size.d, _mfac(size.d, m), compress, partial(ggt_in_coefficients, eps=eps), feedback)


def ggt_in_coefficients(A: MFAC, c: Any, eps: float) -> tuple[Array, MFAC]:
    """Insert c into the window and precondition it as GGT does, without forming U (d, m).

    ``U = G^T V Sigma^+`` only meets vectors: ``u = c / eps - G^T (V Sigma^+ f (U^T c))``, f = sigma / (eps (sigma +
    eps)), and ``U^T c = Sigma^+ V^T (G c)``. The scalar products G c are the new row of the Gram matrix (line 4:6).

    >>> A = MFAC(DenseWindow.empty(d=2, m=1), np.zeros((1, 1)))
    >>> ggt_in_coefficients(A, Dense(np.array([3.0, 4.0])), 1.0)[0].round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """
    from efcp_ref.paper.algorithm_4 import CUTOFF, decompose, singular_values
    from efcp_ref.paper.woodbury import updated

    row, window = A.window.row, A.window.insert(c)
    x = window.dense()[row]
    gram = updated(A.S, row, window.scalar_products(x))  # (m, m)
    squares, V = decompose(gram)
    sigma, inverse = singular_values(squares, CUTOFF)  # (m,), (m,)
    inner = inverse * (V.T @ gram[row])  # (m,) U^T c
    w = V @ (inverse * (sigma / (eps * (sigma + eps)) * inner))  # (m,)
    return x / eps - window.linear_combination(w), MFAC(window, gram)


def _adagrad(size: Size, *, density: float = 1.0, feedback: bool, seed: int) -> Method:
    return Adagrad(size.d, max(1, round(density * size.d)), feedback)


def _slides(step: Callable[..., Any], **fixed: Any) -> Callable[..., Method]:
    def builder(size: Size, *, feedback: bool, seed: int, **options: Any) -> Method:
        return Slides(size.d, partial(step, **fixed, **options))

    return builder


_BUILDERS: dict[str, Callable[..., Method]] = {
    "sgd": _slides(sign.sgd_step),
    "sgdm": _slides(sign.sgdm_step),
    "sign_sgd": _slides(sign.sign_sgd_step),
    "signum": _slides(sign.signum_step),
    "ef_signsgd": _slides(sign.ef_step, compress=scaled_sign),
    "scaled_sign": _slides(sign.compressed_step, compress=scaled_sign),
    "topk_sgd": _identity,
    "adagrad": _adagrad,
    "dense_mfac": _dense_mfac,
    "sparse_mfac": _sparse_mfac,
    "random_mfac": _random_mfac,
    "low_rank_mfac": _low_rank,
    "ggt": _ggt,
}
NAMES = tuple(_BUILDERS)
