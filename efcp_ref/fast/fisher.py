"""Section 2.2 and 3.1: F^-1 x by eq. (2), from a dense or a sparse window.

The one idea: eq. (2) needs the window twice, once for scalar products and once for the combination, and everything
between is m by m. Both passes go slice by slice; the subtraction from x / lam happens while the slice is in the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.dense import DenseRows
from efcp_ref.fast.layout import Slice, computed
from efcp_ref.fast.solve import coefficients
from efcp_ref.fast.sums import RowMajor, Rows, gram, linear_combination, scalar_products
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.woodbury import MFACDirection


def mfac_direction(G: Any, lam: float, x: Any) -> MFACDirection:
    """Return F^-1 x from a dense window, by eq. (2): as `efcp_ref.mfac_direction`, tile by tile.

    Source: section 2.2, eq. (2). ``S = G G^T, h = G x, c = (lam m I + S)^-1 h / lam, u = x / lam - c G``.

    Args:
        G: window, (m, d), finite; empty rows are zero.
        lam: damping lambda > 0.
        x: vector, (d,), finite.

    Returns:
        u (d,), S (m, m), h (m,), c (m,), in the precision of x.

    Raises:
        TypeError, ValueError: G, x are not finite real arrays of matching shapes, or lam is not positive.

    Cost: 2 m^2 d + m^3 / 3 flops; room for one tile.

    >>> mfac_direction(np.array([[3.0, 4.0]]), 1.0, np.array([3.0, 4.0])).u.round(4)  # m g / (lam m + |g|^2)
    array([0.1154, 0.1538])
    """
    lam = check.positive("lam", lam)
    rows = DenseRows(G, x)
    S, h = rows.gram_and_products()
    c = coefficients(S, h, lam)
    stages = check.like(rows.x.dtype, S, h, c)
    return MFACDirection(rows.less_combination(c, lam), *stages)


def wsm(G: Any, lam: float, x: Any) -> Array:
    """Return F^-1 x, (d,), in the precision of x: by eq. (2), which has no recursion over rows.

    Args, Raises: as `mfac_direction`.

    >>> wsm(np.array([[1.0, 0.0], [1.0, 1.0]]), 1.0, np.array([1.0, 1.0])).round(4)  # 4/11, 6/11
    array([0.3636, 0.5455])
    """
    return mfac_direction(G, lam, x).u


def sparse_mfac_direction(
    indices: Any, values: Any, d: int, lam: float, x: Any, block_size: int | None = None, density: Any = 1
) -> MFACDirection:
    """Return F^-1 x from a sparse window, by eq. (2): as `efcp_ref.sparse_mfac_direction`, slice by slice.

    Source: section 3.1, eq. (2). See `mfac_direction` for the formula.

    Args:
        indices: I, (m, k), absolute positions, distinct within a row, block after block.
        values: V, (m, k), finite.
        d: dimension.
        lam: damping lambda > 0.
        x: vector, (d,), finite.
        block_size: B_d; default d, one block.
        density: kept fraction of every block.

    Returns:
        u (d,), S (m, m), h (m,), c (m,), in the precision of x.

    Raises:
        TypeError, ValueError: see `efcp_ref.fast.sp`, or lam is not positive.

    Cost: m^2 k + m^3 / 3 flops. The optimizers keep S and pay 2 m k for a row of it.

    >>> sparse_mfac_direction([[0], [2]], [[1.0], [2.0]], 3, 0.5, [1.0, 1.0, 1.0]).u.round(4)  # 1, 2, 2/5
    array([1. , 2. , 0.4])
    """
    rows = RowMajor(indices, values, d, block_size, density)
    lam, x = check.positive("lam", lam), check.array("x", x, shape=(rows.layout.d,))
    dtype = computed(x.dtype, rows.values.dtype)
    S, h = gram(rows, dtype), scalar_products(rows, x, dtype)
    c = coefficients(S, h, lam)
    u = less_combination(rows, c, x.astype(dtype), lam)
    return MFACDirection(*check.like(x.dtype, u, S, h, c))


def less_combination(rows: Rows, c: Array, x: Array, divisor: float) -> Array:
    """Return x / divisor - c G, in the place of x.

    >>> less_combination(RowMajor([[1]], [[3.0]], 2), np.array([2.0]), np.array([1.0, 10.0]), 0.5)
    array([ 2., 14.])
    """
    scale = x.dtype.type(divisor)

    def write(s: Slice, total: Array) -> None:
        part = x[s.start : s.end]
        np.divide(part, scale, out=part)
        np.subtract(part, total, out=part)

    linear_combination(rows, c, write, x.dtype)
    return x
