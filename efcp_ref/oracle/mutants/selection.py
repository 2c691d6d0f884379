"""Mistakes in Top-k, blockwise Top-k and scaled Top-k."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, counts, largest, largest_by_block, mistake, only

_known: list[Mutant] = []
_top = partial(mistake, "top_k", "K:1", known=_known)
_block = partial(mistake, "block_top_k", known=_known)
_scaled = partial(mistake, "scaled_top_k", known=_known)


@_top(text="signed Top-k: a in place of |a| (section 3.1)", stages="indices values")
def signed_top_k(a: Any, k: int) -> Any:
    """Keep the k largest signed entries."""
    kept = largest(a, k)
    return kept, a[kept]


@_top(text="the k smallest magnitudes are kept (section 3.1)", stages="indices values")
def smallest_kept(a: Any, k: int) -> Any:
    """Sort in the wrong direction."""
    kept = largest(-np.abs(a), k)
    return kept, a[kept]


@_top(text="magnitudes returned in place of values (section 3.1)", stages="values")
def values_without_sign(a: Any, k: int) -> Any:
    """Return |a| at the right positions."""
    kept = largest(np.abs(a), k)
    return kept, np.abs(a[kept])


@_top(text="the first position twice, the last one dropped (section 3.1)", stages="indices values")
def duplicate_index(a: Any, k: int) -> Any:
    """Repeat the first index."""
    kept = largest(np.abs(a), k)
    if k > 1:
        kept[-1] = kept[0]
    return kept, a[kept]


@_top(text="one entry fewer than k (section 3.1)", stages="indices values")
def one_too_few(a: Any, k: int) -> Any:
    """Keep k - 1."""
    kept = largest(np.abs(a), max(k - 1, 0))
    return kept, a[kept]


@_block("K:3", text="signed Top-k: a in place of |a| (section 3.1)", stages="indices values")
def signed_block_top_k(a: Any, block_size: Any, density: Any) -> Any:
    """Keep the largest signed entries of every block."""
    kept = np.concatenate([b + largest(a[b:e], n) for b, e, n in counts(len(a), block_size, density)])
    return kept, a[kept]


@_block("K:2", text="floor in place of ceil (section 3.1, R11)", stages="indices values")
def floor_for_ceil(a: Any, block_size: Any, density: Any) -> Any:
    """Round the count down."""
    parts = [b + largest(np.abs(a[b:e]), int((e - b) * density)) for b, e, _ in counts(len(a), block_size, density)]
    kept = np.concatenate(parts)
    return kept, a[kept]


@_block("K:3", text="the partial last block is forgotten (appendix G.2, R11)", stages="indices values")
def last_block_forgotten(a: Any, block_size: Any, density: Any) -> Any:
    """Read whole blocks only."""
    whole = len(a) // block_size * block_size
    kept = largest_by_block(a[:whole], block_size, density) if whole else np.zeros(0, np.int32)
    return kept, a[kept]


@_block("K:3", text="indices relative to the block in place of absolute (section 3.1, R13)", stages="indices values")
def relative_indices(a: Any, block_size: Any, density: Any) -> Any:
    """Return positions inside the block."""
    kept = largest_by_block(a, block_size, density)
    return (kept % block_size).astype(np.int32), a[kept]


@_block("K:3", text="one global Top-k in place of one per block (section 3.1)", stages="indices values")
def global_for_blocks(a: Any, block_size: Any, density: Any) -> Any:
    """Keep as many, wherever they are."""
    kept = largest(np.abs(a), sum(n for _, _, n in counts(len(a), block_size, density)))
    return kept, a[kept]


@_block("K:3", text="absolute indices wrapped to int16 (R13)", stages="indices values")
def indices_int16(a: Any, block_size: Any, density: Any) -> Any:
    """Store indices in 16 signed bits."""
    kept = largest_by_block(a, block_size, density)
    return kept.astype(np.int16).astype(np.int32), a[kept]


def _basis(v: Any, H: Any) -> Any:
    h, V = np.linalg.eigh(H)
    return (V * np.sqrt(h)) @ V.T, (V / np.sqrt(h)) @ V.T, v


@_scaled("K:6", text="not brought back: H^1/2 forgotten (Lemma K.1)", stages="T")
def not_back(v: Any, H: Any, k: int) -> Any:
    """Return TopK(H^-1/2 v)."""
    _, inverse, v = _basis(v, H)
    basis = inverse @ v
    return only(basis, largest(np.abs(basis), k))


@_scaled("K:4", text="H^1/2 in place of H^-1/2 (Lemma K.1)", stages="T")
def wrong_way(v: Any, H: Any, k: int) -> Any:
    """Go into the wrong basis and back."""
    root, inverse, v = _basis(v, H)
    basis = root @ v
    return inverse @ only(basis, largest(np.abs(basis), k))


@_scaled("K:5", text="plain Top-k: H is not used (Lemma K.1)", stages="T")
def unscaled(v: Any, H: Any, k: int) -> Any:
    """Forget the basis."""
    return only(v, largest(np.abs(v), k))


@_scaled("K:5", text="signed Top-k in the basis of H (Lemma K.1)", stages="T")
def signed_scaled(v: Any, H: Any, k: int) -> Any:
    """Keep the largest signed entries."""
    root, inverse, v = _basis(v, H)
    basis = inverse @ v
    return root @ only(basis, largest(basis, k))


MUTANTS = tuple(_known)
