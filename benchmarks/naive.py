"""What the twin is compared with, in PyTorch: sparse CSR, the paper's naive form (section 3.1), and dense M-FAC."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from data import csr

from efcp_ref.fast.window import Window

warnings.filterwarnings("ignore", message="Sparse")  # that PyTorch's sparse CSR is in beta, once per process


class SparseCSR:
    """The window as PyTorch's sparse CSR tensors: G for SP, its transpose, converted beforehand, for LCG."""

    def __init__(self, window: Window) -> None:
        values, columns, starts = (torch.from_numpy(a) for a in csr(window))
        size = (window.count, window.layout.d)
        self.G = torch.sparse_csr_tensor(starts, columns, values, size)
        columns_first = self.G.to_sparse_csc()
        parts = columns_first.ccol_indices(), columns_first.row_indices(), columns_first.values()
        self.transposed = torch.sparse_csr_tensor(*parts, size[::-1])

    def sp(self, g: torch.Tensor) -> torch.Tensor:
        """Return G g."""
        return self.G @ g

    def lcg(self, c: torch.Tensor) -> torch.Tensor:
        """Return c G."""
        return self.transposed @ c


class Naive:
    """Gradients stored as sparse, operations in dense format: every row is written out before it is used."""

    def __init__(self, window: Window) -> None:
        rows = range(window.count)
        self.indices = torch.from_numpy(window.absolute(rows).astype(np.int64))  # what PyTorch indexes with
        self.values = torch.from_numpy(window.stored(rows))
        self.room = torch.zeros(window.layout.d)

    @property
    def nbytes(self) -> int:
        """Bytes of the window and of the dense row."""
        return sum(t.numel() * t.element_size() for t in (self.indices, self.values, self.room))

    def _dense(self, row: int) -> torch.Tensor:
        return self.room.zero_().index_copy_(0, self.indices[row], self.values[row])

    def sp(self, g: torch.Tensor) -> torch.Tensor:
        """Return G g."""
        return torch.stack([self._dense(row) @ g for row in range(len(self.values))])

    def lcg(self, c: torch.Tensor) -> torch.Tensor:
        """Return c G."""
        total = torch.zeros_like(self.room)
        for row, weight in enumerate(c.tolist()):
            total.add_(self._dense(row), alpha=weight)
        return total


class DenseMFAC:
    """One step of dense M-FAC: replace a row, G g, solve, x / lam - c G."""

    def __init__(self, d: int, m: int, lam: float) -> None:
        self.G = torch.randn(m, d)
        self.S, self.lam, self.row = torch.eye(m, dtype=torch.float64) * d, lam, 0

    def step(self, g: torch.Tensor) -> torch.Tensor:
        """Return the direction."""
        m = len(self.G)
        self.G[self.row] = g
        h = (self.G @ g).double()
        self.S[self.row], self.S[:, self.row] = h, h
        L = torch.linalg.cholesky(self.S + self.lam * m * torch.eye(m, dtype=torch.float64))
        c = torch.cholesky_solve(h[:, None], L)[:, 0] / self.lam
        self.row = (self.row + 1) % m
        return g / self.lam - c.float() @ self.G
