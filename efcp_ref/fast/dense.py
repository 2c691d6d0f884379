"""Products with a dense window, tile by tile of its columns: BLAS on pieces that fit, in the arithmetic of the result.

The one idea: one tile of columns gives its part of G G^T and of G x, or of c G, and is forgotten. So a window of any
dtype and any strides is checked and widened piece by piece, and nothing as large as the window is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from efcp_ref.fast.layout import computed
from efcp_ref.fast.selection import vector
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array

TILE = 2**20  # numbers of a tile


class DenseRows:
    """A dense window G (m, d) and a vector x (d,), checked, read tile by tile.

    >>> G = DenseRows(np.array([[3.0, 4.0]]), np.array([1.0, 1.0]))
    >>> G.gram_and_products()
    (array([[25.]]), array([7.]))
    """

    def __init__(self, G: Any, x: Any) -> None:
        G = check.plain("G", G)
        if G.dtype.kind != "f" or G.ndim != 2 or not G.size:
            G = check.array("G", G, ndim=2)
        self.G, self.x = G, vector("x", x, G.shape[1])
        self.dtype = computed(self.x.dtype, G.dtype)
        for tile, _ in self.tiles():
            check.array("G", tile)
        check.array("x", self.x)

    def tiles(self) -> Iterator[tuple[Array, slice]]:
        """Yield the columns of G in the arithmetic of the result, and which they are."""
        m, d = self.G.shape
        step = max(1, TILE // m)
        for start in range(0, d, step):
            columns = slice(start, min(start + step, d))
            yield self.G[:, columns].astype(self.dtype, copy=False), columns

    def gram_and_products(self) -> tuple[Array, Array]:
        """Return S = G G^T (m, m) and h = G x (m,), summed over the tiles in float64."""
        m = len(self.G)
        S, h = np.zeros((m, m)), np.zeros(m)
        for tile, columns in self.tiles():
            S += tile @ tile.T
            h += tile @ self.x[columns].astype(self.dtype)
        return S, h

    def less_combination(self, c: Array, divisor: float) -> Array:
        """Return x / divisor - c G, (d,), in the precision of x."""
        u = np.empty(self.G.shape[1], self.x.dtype)
        for tile, columns in self.tiles():
            u[columns] = self.x[columns].astype(self.dtype) / self.dtype.type(divisor) - c.astype(self.dtype) @ tile
        return u
