"""Algorithm 6, Low-Rank M-FAC: gradients compressed layer by layer to two thin factors, preconditioned as one vector.

Read beside efcp.txt, lines 651-707. Lines 1 and 3 name the inputs; lines 9, 10 and 15 end loops. The error feedback
that produces the input is Algorithm 1, its COMPRESS is Algorithm 5.

A tensor of one dimension is stored whole (R25), as the factors P = g (p1, 1) and Q = [[1]]: every formula below then
holds for it unchanged, since none needs P to be orthonormal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper import algorithm_1
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_5 import Factors, power_compress, unfold
from efcp_ref.paper.window import replaced
from efcp_ref.paper.woodbury import coefficients, updated

Shapes = tuple[tuple[int, ...], ...]


def low_rank_inner_product(P1: Any, Q1: Any, P2: Any, Q2: Any) -> Any:
    """Return the scalar product of two gradients from their factors, without forming either.

    Source: appendix I; line 8 of Algorithm 6. ``Tr((P1 Q1^T)^T (P2 Q2^T)) = sum((P2^T P1) o (Q2^T Q1))``.

    Args:
        P1, Q1: factors of the first gradient, (p1, rho1) and (p2, rho1), finite.
        P2, Q2: factors of the second, (p1, rho2) and (p2, rho2), finite; the ranks may differ.

    Returns:
        The scalar product, in the precision of P1.

    Raises:
        TypeError, ValueError: a factor is not a finite real matrix, or the shapes do not match.

    Cost: 2 (p1 + p2) rho1 rho2 flops, instead of 2 p1 p2 (rho1 + rho2 + 1); 16 rho1 rho2 bytes.

    >>> float(low_rank_inner_product([[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]], [[7.0], [8.0]]))  # 17 * 53
    901.0
    """
    P1 = check.array("P1", P1, ndim=2)
    P2 = check.array("P2", P2, shape=(len(P1), None))
    Q1 = check.array("Q1", Q1, shape=(None, P1.shape[1]))
    Q2 = check.array("Q2", Q2, shape=(len(Q1), P2.shape[1]))
    p1, q1, p2, q2 = (factor.astype(np.float64) for factor in (P1, Q1, P2, Q2))
    return check.like(P1.dtype, inner_product(Factors(p1, q1), Factors(p2, q2)))[()]


def inner_product(first: Factors, second: Factors) -> Any:
    """Return Tr((P1 Q1^T)^T (P2 Q2^T)), from the two products of size rho by rho.

    >>> g = Factors(np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    >>> float(inner_product(g, g)), float((g.dense() ** 2).sum())
    (125.0, 125.0)
    """
    return np.sum((second.P.T @ first.P) * (second.Q.T @ first.Q))


@dataclass(frozen=True)
class LowRank:
    """A gradient of the whole model: the factors of every layer's tensor."""

    layers: tuple[Factors, ...]

    def dense(self) -> Array:
        """Return the gradient, (d,): the layers' matrices one after another, each in C order.

        >>> LowRank((Factors(np.array([[2.0]]), np.array([[3.0], [4.0]])), Factors(np.ones((1, 1)), np.eye(1)))).dense()
        array([6., 8., 1.])
        """
        return np.concatenate([layer.dense().ravel() for layer in self.layers])


@dataclass(frozen=True)
class LowRankState:
    """What Low-Rank M-FAC carries from one step to the next (R28: Q and xi too)."""

    shapes: Shapes  # of every layer's tensor
    G: tuple[Factors, ...]  # per layer a ring buffer: P (m, p1, rho), Q (m, p2*...*ps, rho)
    S: Array  # (m, m) scalar products of whole gradients: the full inner products G^T G
    Q0: tuple[Array, ...]  # per layer the Q that Algorithm 5 starts from at step 1, (p2*...*ps, rho)
    xi: Array  # (d,) error of Algorithm 1
    row: int = 0  # the row that is written next, the oldest
    t: int = 0  # steps taken

    @property
    def Q(self) -> tuple[Array, ...]:
        """Per layer the Q that Algorithm 5 starts from: that of the step before, at first Q_0."""
        return self.Q0 if self.t == 0 else tuple(G.Q[self.row - 1] for G in self.G)


def ranks(shapes: Shapes, rank: int) -> list[int]:
    """Return rho of every layer: ``min(rank, p1, p2*...*ps)``, and 1 for a tensor of one dimension (R25).

    >>> ranks(((8, 3, 3, 3), (2, 5), (8,)), 4)
    [4, 2, 1]
    """
    return [min(rank, shape[0], prod(shape[1:])) for shape in shapes]


def initial_state(shapes: Sequence[Sequence[int]], m: int, rank: int, Q0: Sequence[Any]) -> LowRankState:
    """Return the state before the first step: empty buffers, which are zero.

    Source: Algorithm 6, line 2; R25 (ranks are clamped), R28.

    Args:
        shapes: shape of every layer's tensor, one dimension or more each.
        m: window size.
        rank: rho, at least 1; a layer gets min(rank, p1, p2*...*ps).
        Q0: starting Q of every layer of two or more dimensions, in order, (p2*...*ps, rho) or (p2*...*ps, rank),
            of which the first rho columns are taken.

    Raises:
        TypeError, ValueError: shapes are not of positive integers, m or rank is less than 1, Q0 does not match.

    Cost: 8 m sum((p1 + p2...ps) rho) bytes.

    >>> [G.P.shape for G in initial_state([(4, 3), (5,)], m=2, rank=8, Q0=[np.eye(3)]).G]
    [(2, 4, 3), (2, 5, 1)]
    """
    layers = _shapes(shapes)
    m, rank = check.window_size(m), check.integer("rank", rank, 1)
    starts = _starts(layers, rank, Q0)
    sizes = [(shape[0], *start.shape) for shape, start in zip(layers, starts, strict=True)]  # p1, p2*...*ps, rho
    G = tuple(Factors(np.zeros((m, p1, rho)), np.zeros((m, p2s, rho))) for p1, p2s, rho in sizes)  # 6:2
    return LowRankState(layers, G, np.zeros((m, m)), starts, np.zeros(sum(map(prod, layers))))


def _shapes(shapes: Any) -> Shapes:
    if not isinstance(shapes, Sequence) or not all(isinstance(shape, Sequence) for shape in shapes):
        raise TypeError(f"shapes = {shapes!r}, must be a list of shapes")
    layers = tuple(tuple(check.integer("shapes", p, 1) for p in shape) for shape in shapes)
    if not layers or () in layers:
        raise ValueError(f"shapes = {shapes!r}, must hold at least one shape, of at least one dimension each")
    if sum(map(prod, layers)) > check.LARGEST_D:
        raise ValueError(f"shapes = {check.shown(shapes)}, must hold at most {check.LARGEST_D} entries in all")
    return layers


def _starts(layers: Shapes, rank: int, Q0: Sequence[Any]) -> tuple[Array, ...]:
    wanted = sum(len(shape) > 1 for shape in layers)
    if not isinstance(Q0, Sequence):
        raise TypeError(f"Q0 has type {type(Q0).__name__}, must be a list of arrays")
    if len(Q0) != wanted:
        raise ValueError(f"Q0 has {len(Q0)} entries, must have {wanted}: one per layer of two or more dimensions")
    given, starts = iter(Q0), []
    for shape, rho in zip(layers, ranks(layers, rank), strict=True):
        Q = check.array("Q0", next(given), shape=(prod(shape[1:]), None)) if len(shape) > 1 else np.eye(1)
        if Q.shape[1] not in (rho, rank) and len(shape) > 1:
            raise ValueError(f"Q0 has {Q.shape[1]} columns for the layer {shape}, must have {rho}")
        starts.append(Q[:, :rho].astype(np.float64))
    return tuple(starts)


def tensors(g: Array, shapes: Shapes) -> list[Array]:
    """Return the layers' tensors of a flat gradient (d,), which holds them one after another in C order.

    >>> [tensor.tolist() for tensor in tensors(np.arange(6.0), ((2, 2), (2,)))]
    [[[0.0, 1.0], [2.0, 3.0]], [4.0, 5.0]]
    """
    ends = np.cumsum([prod(shape) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(g, ends), shapes, strict=True)]


def compress(a: Array, shapes: Shapes, Q: Sequence[Array]) -> LowRank:
    """COMPRESS of Algorithm 1 as Algorithm 5 in every layer; tensors of one dimension are kept whole (R25).

    >>> compress(np.array([3.0, 0.0, 4.0, 0.0, 7.0]), ((2, 2), (1,)), [np.ones((2, 1)), np.eye(1)]).dense().round(4)
    array([3., 0., 4., 0., 7.])
    """
    pairs = zip(tensors(a, shapes), Q, strict=True)
    return LowRank(tuple(power_compress(g, q) if g.ndim > 1 else Factors(unfold(g), np.eye(1)) for g, q in pairs))


def low_rank_mfac(state: LowRankState, c: LowRank, lam: float) -> tuple[Array, LowRankState]:
    """Insert a compressed gradient into the buffers, then precondition it: Algorithm 6.

    Source: Algorithm 6, lines 3-16; R9, R26-R28. ``u = c / lam + sum_tau w_tau g_tau`` with
    ``w = -(lam m I + S)^-1 delta / lam``, the -c of eq. (2), shared by all layers; rows not yet written are zero.

    Args:
        state: buffers and scalar products.
        c: the layers' factors (P, Q) of the current gradient.
        lam: damping lambda > 0, printed epsilon in line 14.

    Returns:
        The direction u_t, (d,) float64, and the next state, its error xi as it was.

    Raises:
        TypeError, ValueError: lam is not positive.

    Cost: 2 m sum((p1 + p2...ps) rho^2) + 2 m d rho + m^3 / 3 flops; the buffers are copied once.

    >>> state = initial_state([(2,)], m=3, rank=1, Q0=[])
    >>> g = Factors(np.array([[3.0], [4.0]]), np.eye(1))
    >>> low_rank_mfac(state, LowRank((g,)), lam=1.0)[0].round(4)  # m g / (lam m + |g|^2)
    array([0.3214, 0.4286])
    """
    i, m, G, u = state.row, len(state.S), list(state.G), []
    delta = np.zeros(m)  # (m,)                                              # 6:4
    for l, (P, Q) in enumerate(c.layers):  #                                 # 6:5
        G[l] = Factors(replaced(G[l].P, i, P), replaced(G[l].Q, i, Q))  #    # 6:6
        for tau in range(m):  #                                       (R27)  # 6:7
            delta[tau] += inner_product(Factors(G[l].P[tau], G[l].Q[tau]), Factors(P, Q))  # (R26)  # 6:8
    S = updated(state.S, i, delta)  # (m, m)                                 # 6:11
    w = -coefficients(S, delta, lam)  # (m,)                          (R28)  # 6:12
    for l, (P, Q) in enumerate(c.layers):  #                                 # 6:13
        u.append(P @ Q.T / lam + weighted_sum(w, G[l]))  # (p1, p2s)  (R28)  # 6:14
    flat = np.concatenate([layer.ravel() for layer in u])  # (d,)
    return flat, replace(state, G=tuple(G), S=S, row=(i + 1) % m, t=state.t + 1)  # 6:16


def weighted_sum(w: Array, G: Factors) -> Array:
    """Return ``sum_tau w_tau P_tau Q_tau^T``, (p1, p2*...*ps), from a buffer: one gradient is rebuilt at a time.

    >>> weighted_sum(np.array([2.0, -1.0]), Factors(np.array([[[1.0]], [[3.0]]]), np.array([[[5.0]], [[1.0]]])))
    array([[7.]])
    """
    total = np.zeros((G.P.shape[1], G.Q.shape[1]))
    for w_tau, P, Q in zip(w, G.P, G.Q, strict=True):
        total += w_tau * (P @ Q.T)
    return total


def low_rank_mfac_step(state: LowRankState, g: Any, *, lam: float) -> tuple[Array, LowRankState]:
    """Turn one gradient into one direction: Algorithm 1, its COMPRESS Algorithm 5, its preconditioner Algorithm 6.

    Source: Algorithms 1 (lines 5-8), 5 and 6; R9, R25-R28.

    Args:
        state: buffers, scalar products, error.
        g: gradient, (d,): the layers' tensors one after another, each in C order; finite.
        lam: damping lambda > 0.

    Returns:
        The direction u_t, (d,) float64, and the next state.

    Raises:
        TypeError, ValueError: g is not a finite real vector of d entries, or lam is not positive.

    Cost: that of `low_rank_mfac`, and 4 d rho + 4 sum(p1 rho^2) flops.

    >>> state = initial_state([(2, 2)], m=1, rank=1, Q0=[np.ones((2, 1))])
    >>> u, state = low_rank_mfac_step(state, [3.0, 0.0, 4.0, 0.0], lam=1.0)
    >>> (u + 0.0).round(4)  # g / (lam + |g|^2)
    array([0.1154, 0.    , 0.1538, 0.    ])
    """
    lam = check.positive("lam", lam)
    before = algorithm_1.State(state.xi, state)
    u, after = algorithm_1.step(
        before, g, lambda a: compress(a, state.shapes, state.Q), lambda A, c: low_rank_mfac(A, c, lam)
    )
    return u, replace(after.A, xi=after.xi)
