"""Windows to measure on: random rows that blockwise Top-k could have kept, made slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.fast.layout import Layout
from efcp_ref.fast.storage import chosen, rounded, widened
from efcp_ref.fast.window import Window

RESNET_18 = 11_689_512  # parameters
BERT_BASE = 109_482_240
BLOCK = 41_728  # B_d of an A100 (appendix G.2)
F32 = np.dtype(np.float32)


def filled(window: Window, rng: np.random.Generator) -> Window:
    """Fill a window with rows: one position drawn from every stretch of 1/density coordinates, normal values."""
    B_d, B_k = window.layout.B_d, window.layout.B_k
    for s in window.layout.slices:
        for a, b in window.layout.strips(s):
            column = np.arange(a - s.first, b - s.first)
            block = np.minimum(column // B_k, (s.end - s.start - 1) // B_d)
            place, size = column - block * B_k, np.minimum(B_d, s.end - s.start - block * B_d)
            kept = np.minimum(B_k, s.last - s.first - block * B_k)
            first, after = block * B_d + place * size // kept, block * B_d + (place + 1) * size // kept
            jitter = rng.random((window.count, b - a), dtype=np.float32)
            window.strip(window.indices, a, b)[:] = first + (jitter * (after - first)).astype(np.int64)
            values = rng.standard_normal((window.count, b - a), dtype=np.float32)
            window.strip(window.values, a, b)[:] = rounded(values, window.values.dtype)
    return window


def window(d: int, m: int, block_size: int = BLOCK, density: Any = 0.01, dtype: str = "float32") -> Window:
    """Return a full window of m rows."""
    laid = Layout.of(d, block_size, density)
    return filled(Window(laid, m, chosen(dtype)[0]), np.random.default_rng(0))


def csr(source: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same window as one CSR matrix: values, absolute int32 columns, row starts."""
    rows, K = range(source.count), source.layout.K
    columns = source.absolute(rows).ravel()
    values = widened(source.stored(rows), F32).ravel()
    return values, columns, np.arange(source.count + 1, dtype=np.int32) * K


def filled_optimizer(optimizer: Any) -> Any:
    """Fill an optimizer of the twin as if it had run for m steps: random rows, S with their squared norms."""
    filled(optimizer._window, np.random.default_rng(0))
    laid, slots = optimizer._window.layout, optimizer._window.count
    squares = np.zeros(slots)
    for a, b in (strip for s in laid.slices for strip in laid.strips(s)):
        part = widened(optimizer._window.strip(optimizer._window.values, a, b), F32)
        squares += np.einsum("rk,rk->r", part, part)
    np.fill_diagonal(optimizer._S, squares)
    return optimizer
