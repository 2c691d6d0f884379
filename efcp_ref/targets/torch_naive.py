"""Sparse M-FAC in plain float32 PyTorch, written as a user would: topk, scatter, dense products, `linalg.solve`.

It declares nothing about its solver: `torch.linalg.solve` is LU with partial pivoting, for which the sharp bound of
the symmetric factorisations does not hold.

True verdict: pass for Top-k, error feedback, sp and lcg; the directions pass or, on graded windows where pivoting
matters, stay `inconclusive(solver class)` case by case, never a fail.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

DTYPES = ("float32",)
Tensor = torch.Tensor


def tensor(a: Any) -> Tensor:
    """Return a float32 copy."""
    return torch.tensor(np.array(a, dtype=np.float32))


def positions(a: Any) -> Tensor:
    """Return a copy for indexing."""
    return torch.tensor(np.array(a, dtype=np.int64))


def dense(indices: Tensor, values: Tensor, d: int) -> Tensor:
    """Return the rows with their zeros."""
    return torch.zeros(len(indices), d).scatter_(1, indices, values)


def select(a: Tensor, k: int) -> Tensor:
    """Return the positions that torch.topk keeps."""
    return torch.topk(a.abs(), k).indices


def select_blocks(a: Tensor, block_size: int, density: float) -> Tensor:
    """Return the positions that torch.topk keeps in every block."""
    blocks = enumerate(a.split(block_size))
    return torch.cat([b * block_size + select(part, math.ceil(density * len(part))) for b, part in blocks])


def direction(G: Tensor, lam: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return u = x/lam - c G with S, h and c."""
    m = len(G)
    S, h = G @ G.T, G @ x
    c = torch.linalg.solve(S + m * lam * torch.eye(m), h) / lam
    return x / lam - c @ G, S, h, c


def top_k(a: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Top-k by torch.topk."""
    a = tensor(a)
    kept = select(a, k)
    return kept.int().numpy(), a[kept].numpy()


def block_top_k(a: Any, block_size: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    """Blockwise Top-k by torch.topk."""
    a = tensor(a)
    kept = select_blocks(a, block_size, density)
    return kept.int().numpy(), a[kept].numpy()


def error_feedback(xi: Any, g: Any, block_size: int, density: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add the error, compress, keep what is left."""
    a = tensor(xi) + tensor(g)
    kept = select_blocks(a, block_size, density)
    values = a[kept]
    a[kept] = 0
    return kept.int().numpy(), values.numpy(), a.numpy()


def sp(indices: Any, values: Any, g: Any) -> np.ndarray:
    """Scalar products, through the dense window."""
    g = tensor(g)
    return (dense(positions(indices), tensor(values), len(g)) @ g).numpy()


def lcg(indices: Any, values: Any, c: Any, d: int) -> np.ndarray:
    """Linear combination, through the dense window."""
    return (tensor(c) @ dense(positions(indices), tensor(values), d)).numpy()


def mfac_direction(G: Any, lam: float, x: Any) -> tuple[np.ndarray, ...]:
    """Direction of eq. (2)."""
    return tuple(part.numpy() for part in direction(tensor(G), lam, tensor(x)))


def sparse_mfac_direction(indices: Any, values: Any, d: int, lam: float, x: Any) -> tuple[np.ndarray, ...]:
    """Direction of eq. (2) on the densified window."""
    return tuple(part.numpy() for part in direction(dense(positions(indices), tensor(values), d), lam, tensor(x)))


class sparse_mfac:
    """Algorithm 1 with the sparse window kept as (I, V) and used densely."""

    def __init__(self, d: int, m: int, lam: float, block_size: int, density: float) -> None:
        """Start with an empty window."""
        self.d, self.m, self.lam, self.block_size, self.density = d, m, lam, block_size, density
        blocks = torch.arange(d).split(block_size)
        empty = torch.cat([block[: math.ceil(density * len(block))] for block in blocks])
        self.t, self.row, self.xi = 0, 0, torch.zeros(d)
        self.indices, self.values = empty.repeat(m, 1), torch.zeros(m, len(empty))

    def step(self, g: Any) -> np.ndarray:
        """Compress and insert xi + g, then precondition the compressed gradient."""
        a = self.xi + tensor(g)
        kept = select_blocks(a, self.block_size, self.density)
        c = torch.zeros(self.d)
        c[kept] = a[kept]
        self.indices[self.row], self.values[self.row], self.xi = kept, a[kept], a - c
        self.t, self.row = self.t + 1, (self.row + 1) % self.m
        return direction(dense(self.indices, self.values, self.d), self.lam, c)[0].numpy()

    def state(self) -> dict[str, Any]:
        """Return t, the next row, the error, the window and S."""
        G = dense(self.indices, self.values, self.d)
        return {"t": self.t, "row": self.row, "xi": self.xi.numpy().copy(), "indices": self.indices.int().numpy(),
                "values": self.values.numpy().copy(), "S": (G @ G.T).numpy()}

    def load(self, state: dict[str, Any]) -> None:
        """Take t, the next row, the error and the window."""
        self.t, self.row, self.xi = int(state["t"]), int(state["row"]), tensor(state["xi"])
        self.indices, self.values = positions(state["indices"]), tensor(state["values"])
