"""Algorithm 4, Sparse GGT: full-matrix AdaGrad on a window of compressed gradients, and the same on a dense window.

Read beside efcp.txt, lines 633-648. Line 3 names the function. Appendix H writes its window as d x m, gradients in
columns (R23): R holds coordinates, C holds the gradient's number, and its G^T G is our G G^T, (m, m). ``V`` are the
values of the sparse window; the eigenvectors, also V in the paper, are called ``eigenvectors``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

CUTOFF = 1e-12  # of sigma_1^2: above what float64 leaves of a zero eigenvalue, 2^-52 m sigma_1^2, for m up to 4,000


class GGTDirection(NamedTuple):
    """The GGT direction and the stages that lead to it."""

    u: Array  # (d,)
    gram: Array  # (m, m) G G^T
    eigenvalues: Array  # (m,) of gram (+ ridge), ascending
    eigenvectors: Array  # (m, m) one per column


class Sparse(NamedTuple):
    """A sparse matrix in coordinates: entry v_n stands in row r_n, column c_n."""

    r: Array  # (n,)
    c: Array  # (n,)
    v: Array  # (n,)


def spmm(sparse: Sparse, dense: Array, rows: int) -> Array:
    """Multiply a sparse matrix of that many rows with a dense matrix or vector.

    Cost: 2 n flops per column of ``dense``; 24 n bytes read for each.

    >>> matrix = Sparse(r=np.array([0, 1, 1]), c=np.array([0, 0, 1]), v=np.array([2.0, 3.0, 4.0]))
    >>> spmm(matrix, np.array([1.0, 10.0]), rows=2)
    array([ 2., 43.])
    """
    r, c, v = sparse
    return np.apply_along_axis(lambda column: np.bincount(r, v * column[c], minlength=rows), 0, dense)


def gradient_numbers(m: int, k: int) -> Array:
    """Return C of line 2: every number of a gradient, k times; (m k,).

    >>> gradient_numbers(3, 2)
    array([0, 0, 1, 1, 2, 2])
    """
    return np.repeat(np.arange(m), k)


def decompose(gram: Array, ridge: float = 0.0) -> tuple[Array, Array]:
    """Return the eigenvalues (m,), ascending, and eigenvectors (m, m) of gram + ridge I (R24: 0 or 1e-6).

    >>> decompose(np.diag([4.0, 9.0]))[0]
    array([4., 9.])
    """
    eigenvalues, eigenvectors = np.linalg.eigh(gram + ridge * np.eye(len(gram)))
    return eigenvalues, eigenvectors


def singular_values(eigenvalues: Array, cutoff: float) -> tuple[Array, Array]:
    """Return sigma (m,) and its pseudo-inverse (m,): 0 where sigma_i^2 <= cutoff sigma_1^2 (R24).

    Rounding leaves small negative eigenvalues where zero is meant: they count as zero.

    >>> singular_values(np.array([-1e-20, 1.0, 4.0]), 0.25)
    (array([0., 1., 2.]), array([0. , 0. , 0.5]))
    """
    squares = np.maximum(eigenvalues, 0.0)
    sigma = np.sqrt(squares)
    return sigma, np.divide(1.0, sigma, out=np.zeros_like(sigma), where=squares > cutoff * squares.max())


def precondition(x: Array, U: Array, sigma: Array, eps: float) -> Array:
    """Return ``x / eps + U ((Sigma + eps I)^-1 - I / eps) U^T x``, the square-root preconditioner applied to x.

    The bracket is written ``-sigma / (eps (sigma + eps))``, which does not cancel where sigma is small. A column of
    U that is zero (sigma dropped) leaves x / eps.

    >>> precondition(np.array([1.0, 1.0]), np.array([[1.0], [0.0]]), np.array([3.0]), 0.5).round(4)  # 1/3.5, 1/.5
    array([0.2857, 2.    ])
    """
    return x / eps - U @ (sigma / (eps * (sigma + eps)) * (U.T @ x))


def _numbers(eps: Any, cutoff: Any, ridge: Any) -> tuple[float, float, float]:
    return check.positive("eps", eps), check.number("cutoff", cutoff, 0.0), check.number("ridge", ridge, 0.0)


def ggt_direction(G: Any, x: Any, eps: float, cutoff: float = CUTOFF, *, ridge: float = 0.0) -> GGTDirection:
    """Precondition x with the inverse square root of a dense window: full-matrix AdaGrad.

    Source: appendix H, dense; R22-R24. ``gram = G G^T = V Sigma^2 V^T, U = G^T V Sigma^+,
    u = x / eps + U ((Sigma + eps I)^-1 - I / eps) U^T x``; this is (eps I + (G^T G)^1/2)^-1 x.

    Args:
        G: window, (m, d), finite; empty rows are zero; the order of the rows does not matter.
        x: vector, (d,), finite.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff sigma_1^2 is dropped, at least 0; x is only divided by eps in that direction.
        ridge: added to gram before the decomposition, at least 0 (the released code's habit, 1e-6).

    Returns:
        u (d,), gram (m, m) without ridge, eigenvalues (m,) ascending and eigenvectors (m, m) of gram + ridge I, in
        the precision of x.

    Raises:
        TypeError, ValueError: G, x are not finite real arrays of matching shapes, or a number is out of range.

    Cost: 4 m^2 d + 9 m^3 flops; 8 (2 m d + 3 m^2) bytes.

    >>> ggt_direction(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([3.0, 4.0]), 1.0).u.round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """
    G = check.array("G", G, ndim=2)
    x = check.array("x", x, shape=(G.shape[1],))
    eps, cutoff, ridge = _numbers(eps, cutoff, ridge)
    W, v = G.astype(np.float64), x.astype(np.float64)
    gram = W @ W.T  # (m, m)
    eigenvalues, eigenvectors = decompose(gram, ridge)
    sigma, inverse = singular_values(eigenvalues, cutoff)  # (m,), (m,)
    U = W.T @ (eigenvectors * inverse)  # (d, m)
    return GGTDirection(*check.like(x.dtype, precondition(v, U, sigma, eps), gram, eigenvalues, eigenvectors))


def sparse_ggt_direction(
    indices: Any, values: Any, d: int, x: Any, eps: float, cutoff: float = CUTOFF,
    block_size: int | None = None, density: Any = 1,
) -> GGTDirection:
    """Precondition x with the inverse square root of a sparse window.

    Source: Algorithm 4, lines 5, 8, 10 and 11, on a window given whole. See `ggt_direction` for the formula.

    Args:
        indices: (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: (m, k), finite.
        d: dimension.
        x: vector, (d,), finite.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff sigma_1^2 is dropped, at least 0.
        block_size: B_d; default d, one block. It does not change the result.
        density: kept fraction of every block.

    Returns:
        u (d,), gram (m, m), eigenvalues (m,) ascending, eigenvectors (m, m), in the precision of x.

    Raises:
        TypeError, ValueError: a row breaks the layout, x does not match, or a number is out of range.

    Cost: 2 m^2 k (gram) + 2 m^2 k (U) + 4 m d + 9 m^3 flops; 16 m d + 24 (m k + m^2) bytes.

    >>> sparse_ggt_direction([[0], [2]], [[3.0], [4.0]], 3, [1.0, 1.0, 1.0], 0.1).u.round(4)  # 1/3.1, 1/.1, 1/4.1
    array([ 0.3226, 10.    ,  0.2439])
    """
    d = check.dimension(d)
    x = check.array("x", x, shape=(d,))
    indices, values, _, _ = check.check_rows(indices, values, d, block_size, density)
    eps, cutoff, _ = _numbers(eps, cutoff, 0.0)
    C, R, V = gradient_numbers(*indices.shape), indices.ravel(), values.astype(np.float64).ravel()
    gram = gram_matrix(C, R, V, len(indices), d)  # (m, m)
    eigenvalues, eigenvectors = decompose(gram)
    sigma, inverse = singular_values(eigenvalues, cutoff)  # (m,), (m,)
    U = spmm(Sparse(r=R, c=C, v=V), eigenvectors * inverse, d)  # (d, m)
    u = precondition(x.astype(np.float64), U, sigma, eps)
    return GGTDirection(*check.like(x.dtype, u, gram, eigenvalues, eigenvectors))


def gram_matrix(C: Array, R: Array, V: Array, m: int, d: int) -> Array:
    """Return G G^T (m, m) of a sparse window: line 5 for every gradient of the window.

    >>> gram_matrix(np.array([0, 1]), np.array([2, 2]), np.array([3.0, 4.0]), m=2, d=3)
    array([[ 9., 12.],
           [12., 16.]])
    """
    columns = spmm(Sparse(r=R, c=C, v=V), np.eye(m), d)  # (d, m) the window, dense
    return spmm(Sparse(r=C, c=R, v=V), columns, m)


@dataclass(frozen=True)
class SparseGGTState:
    """What Algorithm 4 carries from one step to the next."""

    V: Array  # (m k,) values of the window
    R: Array  # (m k,) int32, their coordinates (R23)
    C: Array  # (m k,) the gradient's number of each; never changes
    i: int  # the gradient that is replaced next, 0..m-1
    GtG: Array  # (m, m) scalar products of the window
    d: int  # dimension
    t: int = 0  # steps taken

    @property
    def m(self) -> int:
        """Window size."""
        return len(self.GtG)

    @property
    def k(self) -> int:
        """Entries per gradient."""
        return len(self.V) // self.m

    @property
    def rows(self) -> tuple[Array, Array]:
        """The window as the contract has it: indices and values, (m, k) each, an empty row at the first k positions."""
        indices = self.R.reshape(self.m, self.k).copy()
        indices[self.t :] = np.arange(self.k)
        return indices, self.V.reshape(self.m, self.k).copy()


def initial_state(d: int, m: int, k: int) -> SparseGGTState:
    """Return the state before the first step: an empty window of m gradients of k entries.

    Source: Algorithm 4, lines 1-2. R = 0 is harmless where V = 0.

    Raises:
        TypeError, ValueError: d, m or k is not an integer of at least 1, or k > d.

    >>> initial_state(d=5, m=2, k=3).C
    array([0, 0, 0, 1, 1, 1])
    """
    d, m = check.dimension(d), check.window_size(m)
    k = check.integer("k", k, 1, d)
    V, R, i, GtG = np.zeros(m * k), np.zeros(m * k, np.int32), 0, np.zeros((m, m))  # 4:1
    C = gradient_numbers(m, k)  # (m k,)                                     # 4:2
    return SparseGGTState(V, R, C, i, GtG, d)


def restored_state(indices: Any, values: Any, d: int, i: int, t: int) -> SparseGGTState:
    """Return the state whose window holds these rows, its scalar products computed anew.

    Raises:
        TypeError, ValueError: a row breaks the layout, i is not in 0..m-1, or t < 0.

    >>> restored_state([[1], [0]], [[3.0], [0.0]], d=2, i=1, t=1).GtG
    array([[9., 0.],
           [0., 0.]])
    """
    d = check.dimension(d)
    indices, values, _, _ = check.check_rows(indices, values, d)
    m, k = indices.shape
    i, t = check.integer("i", i, 0, m - 1), check.integer("t", t, 0)
    C, R, V = gradient_numbers(m, k), indices.ravel(), values.astype(np.float64).ravel()
    return SparseGGTState(V, R, C, i, gram_matrix(C, R, V, m, d), d, t)


def sparse_ggt_step(
    state: SparseGGTState, indices: Any, values: Any, *, eps: float, cutoff: float = CUTOFF, ridge: float = 0.0
) -> tuple[Array, SparseGGTState]:
    """Insert a compressed gradient into the window, then precondition it.

    Source: Algorithm 4, lines 4-12; R9, R22-R24. See `ggt_direction` for the formula.

    Args:
        state: window and scalar products.
        indices: I_t, (k,), absolute positions in 0..d-1, distinct.
        values: V_t, (k,), finite: the accumulator a_t on I_t.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff sigma_1^2 is dropped, at least 0.
        ridge: added to the Gram matrix before the decomposition, at least 0; the state keeps it without.

    Returns:
        The direction u_t, (d,) float64, and the next state.

    Raises:
        TypeError, ValueError: indices and values are not one row of k entries, or a number is out of range.

    Cost: 2 m k + 2 m^2 k + 4 m d + 9 m^3 flops; 8 m d + 40 m k + 24 m^2 bytes.

    >>> u, state = sparse_ggt_step(initial_state(d=3, m=2, k=2), [0, 2], [3.0, 4.0], eps=1.0)
    >>> u.round(4), state.i  # g / (|g| + eps)
    (array([0.5   , 0.    , 0.6667]), 1)
    """
    i, C, m, k, d = state.i, state.C, state.m, state.k, state.d
    eps, cutoff, ridge = _numbers(eps, cutoff, ridge)
    x = sparse_gradient(state, indices, values)  # (d,) a_t[I_t]
    V, R, GtG = state.V.copy(), state.R.copy(), state.GtG.copy()
    alpha, beta = i * k, i * k + k
    V[alpha:beta], R[alpha:beta] = values, indices  #                        # 4:4
    delta = spmm(Sparse(r=C, c=R, v=V), x, m)  # (m,)                 (R23)  # 4:5
    GtG[i, :] = delta  #                                                     # 4:6
    GtG[:, i] = delta  #                                                     # 4:7
    eigenvalues, eigenvectors = decompose(GtG, ridge)  #              (R24)  # 4:8
    i = (i + 1) % m  #                                                       # 4:9
    sigma, inverse = singular_values(eigenvalues, cutoff)  # (m,), (m,)
    U = spmm(Sparse(r=R, c=C, v=V), eigenvectors * inverse, d)  # (d, m) (R22)  # 4:10
    u = precondition(x, U, sigma, eps)  # (d,)                               # 4:11
    return u, replace(state, V=V, R=R, i=i, GtG=GtG, t=state.t + 1)  #       # 4:12


def sparse_gradient(state: SparseGGTState, indices: Any, values: Any) -> Array:
    """Return ``a_t[I_t]``, (d,) float64: the values at their indices, 0 elsewhere, checked against the state.

    >>> sparse_gradient(initial_state(d=3, m=2, k=2), [2, 0], [5.0, 6.0])
    array([6., 0., 5.])
    """
    indices, values = check.plain("indices", indices), check.plain("values", values)
    rows, entries, _, _ = check.check_rows(indices[None], values[None], state.d)
    if rows.shape[1] != state.k:
        raise ValueError(f"indices has shape {rows.shape[1:]}, must have shape ({state.k},)")
    x = np.zeros(state.d)
    x[rows[0]] = entries[0]
    return x
