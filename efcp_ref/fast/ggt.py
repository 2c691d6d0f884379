"""Appendix H and Algorithm 4: the inverse square root of the window, without the d by m matrix U.

The one idea: U only ever meets a vector. U w(Sigma) U^T x = G^T (V F V^T) G x with F = 1 / (eps sigma (sigma + eps)),
so two passes over the window and an m by m product replace Algorithm 4's line 10, which is m times as large as the
result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.dense import DenseRows
from efcp_ref.fast.fisher import less_combination
from efcp_ref.fast.layout import computed
from efcp_ref.fast.sums import RowMajor, gram, scalar_products
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.algorithm_4 import CUTOFF, GGTDirection


def weights(gram: Array, h: Array, eps: float, cutoff: float) -> tuple[Array, Array, Array]:
    """Return ``(c, eigenvalues, eigenvectors)`` with c = V F V^T h: the direction is u = x / eps - c G.

    Source: Algorithm 4, lines 8-11; R22, R24. Where sigma_i^2 <= cutoff sigma_1^2, F is 0.

    Cost: about 9 m^3 flops.

    >>> weights(np.array([[9.0]]), np.array([9.0]), 1.0, 0.0)[0]  # 9 / (3 * 4)
    array([0.75])
    """
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    squares = np.maximum(eigenvalues, 0.0)
    sigma, on = np.sqrt(squares), squares > cutoff * squares.max()
    F = np.divide(1.0, eps * sigma * (sigma + eps), out=np.zeros_like(sigma), where=on)
    return eigenvectors @ (F * (eigenvectors.T @ h)), eigenvalues, eigenvectors


def ggt_direction(G: Any, x: Any, eps: float, cutoff: float = CUTOFF) -> GGTDirection:
    """Precondition x with the inverse square root of a dense window: as `efcp_ref.ggt_direction`, tile by tile.

    Source: appendix H, dense; R22-R24. ``u = (eps I + (G^T G)^1/2)^-1 x``.

    Args:
        G: window, (m, d), finite; empty rows are zero.
        x: vector, (d,), finite.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff sigma_1^2 is dropped, at least 0.

    Returns:
        u (d,), gram (m, m), eigenvalues (m,) ascending, eigenvectors (m, m), in the precision of x.

    Raises:
        TypeError, ValueError: G, x are not finite real arrays of matching shapes, or a number is out of range.

    Cost: 2 m^2 d + 9 m^3 flops; room for one tile, where the reference keeps U (d, m).

    >>> ggt_direction(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([3.0, 4.0]), 1.0).u.round(4)  # g / (|g| + eps)
    array([0.5   , 0.6667])
    """
    eps, cutoff = check.positive("eps", eps), check.number("cutoff", cutoff, 0.0)
    rows = DenseRows(G, x)
    S, h = rows.gram_and_products()
    c, eigenvalues, eigenvectors = weights(S, h, eps, cutoff)
    stages = check.like(rows.x.dtype, S, eigenvalues, eigenvectors)
    return GGTDirection(rows.less_combination(c, eps), *stages)


def sparse_ggt_direction(
    indices: Any, values: Any, d: int, x: Any, eps: float, cutoff: float = CUTOFF,
    block_size: int | None = None, density: Any = 1,
) -> GGTDirection:
    """Precondition x with the inverse square root of a sparse window: as `efcp_ref.sparse_ggt_direction`.

    Source: Algorithm 4 on a window given whole. See `ggt_direction` for the formula.

    Args:
        indices: (m, k), absolute positions in 0..d-1, distinct within a row, in block order.
        values: (m, k), finite.
        d: dimension.
        x: vector, (d,), finite.
        eps: damping epsilon > 0.
        cutoff: sigma_i^2 <= cutoff sigma_1^2 is dropped, at least 0.
        block_size: B_d; default d, one block.
        density: kept fraction of every block.

    Returns:
        u (d,), gram (m, m), eigenvalues (m,) ascending, eigenvectors (m, m), in the precision of x.

    Raises:
        TypeError, ValueError: a row breaks the layout, x does not match, or a number is out of range.

    Cost: m^2 k + 9 m^3 flops; no array of d m numbers.

    >>> sparse_ggt_direction([[0], [2]], [[3.0], [4.0]], 3, [1.0, 1.0, 1.0], 0.1).u.round(4)  # 1/3.1, 1/.1, 1/4.1
    array([ 0.3226, 10.    ,  0.2439])
    """
    rows = RowMajor(indices, values, d, block_size, density)
    x = check.array("x", x, shape=(rows.layout.d,))
    eps, cutoff = check.positive("eps", eps), check.number("cutoff", cutoff, 0.0)
    dtype = computed(x.dtype, rows.values.dtype)
    S, h = gram(rows, dtype), scalar_products(rows, x, dtype)
    c, eigenvalues, eigenvectors = weights(S, h, eps, cutoff)
    u = less_combination(rows, c, x.astype(dtype), eps)
    return GGTDirection(*check.like(x.dtype, u, S, eigenvalues, eigenvectors))
