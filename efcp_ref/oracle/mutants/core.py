"""What a known mistake is, and the correct textbook code that the mistakes are made in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.paper.top_k import kept as count
from efcp_ref.paper.top_k import layout

Array = np.ndarray


@dataclass(frozen=True)
class Mutant:
    """One known mistake. As a target it offers its one operation and nothing else."""

    name: str
    operation: str
    line: str  # of the paper
    text: str  # "damping lam used for m lam (section 2.2, eq. 2)"
    function: Callable[..., Any]  # of an optimizer: its class
    stages: tuple[str, ...] = ()  # the results or stages that the oracle blames, on one case or another

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Offer the wrong function under the operation's name."""
        if name == self.__dict__.get("operation"):
            return self.__dict__["function"]
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        """List the operation beside the fields."""
        return [*super().__dir__(), self.operation]


def mistake(
    operation: str, line: str, text: str, stages: str, known: list[Mutant]
) -> Callable[[Callable[..., Any]], Mutant]:
    """Return a decorator that registers a wrong function, named after itself, in ``known``."""

    def register(function: Callable[..., Any]) -> Mutant:
        known.append(Mutant(function.__name__, operation, line, text, function, tuple(stages.split())))
        return known[-1]

    return register


# ------------------------------------------------------------------ correct code, to make mistakes in


def largest(magnitude: Array, k: int) -> Array:
    """Return the positions of the k largest entries, ascending."""
    return np.sort(np.argsort(-magnitude, kind="stable")[:k]).astype(np.int32)


def counts(d: int, block_size: Any, density: Any) -> list[tuple[int, int, int]]:
    """Return (start, end, kept) of every block."""
    _, share, blocks = layout(d, block_size, density)
    return [(start, end, count(end - start, share)) for start, end in blocks]


def largest_by_block(a: Array, block_size: Any, density: Any) -> Array:
    """Return the positions that blockwise Top-k keeps."""
    kept = [start + largest(np.abs(a[start:end]), n) for start, end, n in counts(len(a), block_size, density)]
    return np.concatenate(kept).astype(np.int32)


def dense(indices: Array, values: Array, d: int) -> Array:
    """Return rows (m, k) as (m, d)."""
    G = np.zeros((len(indices), d))
    np.put_along_axis(G, np.asarray(indices, np.int64), np.asarray(values, np.float64), axis=1)
    return G


def only(a: Array, indices: Array) -> Array:
    """Return a with zeros off ``indices``."""
    c = np.zeros_like(a)
    c[indices] = a[indices]
    return c




def spectrum(gram: Array, cutoff: float) -> tuple[Array, Array, Array]:
    """Return eigenvalues, eigenvectors and which are kept."""
    values, V = np.linalg.eigh(gram)
    return values, V, (values > cutoff * values[-1]) & (values > 0)


def factor(values: Array, keep: Array, eps: float) -> Array:
    """Return F = 1 / (eps sigma (sigma + eps)) on the kept eigenvalues, 0 elsewhere."""
    sigma = np.sqrt(np.where(keep, values, 1))
    return np.where(keep, 1 / (eps * sigma * (sigma + eps)), 0)


def coefficients(S: Array, h: Array, lam: float) -> Array:
    """Return c = (lam m I + S)^-1 h / lam."""
    return np.linalg.solve(lam * len(S) * np.eye(len(S)) + S, h) / lam
