"""Mistakes in error feedback: Algorithm 1, lines 5 to 7."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, counts, largest, largest_by_block, mistake, only

_known: list[Mutant] = []
_feedback = partial(mistake, "error_feedback", known=_known)


@_feedback("1:5", text="no error feedback: the error is not added (Algorithm 1, line 5)", stages="a xi values indices")
def error_not_added(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Compress g alone."""
    kept = largest_by_block(g, block_size, density)
    return kept, g[kept], g - only(g, kept)


@_feedback("1:7", text="no error feedback: the error is thrown away (Algorithm 1, line 7)", stages="xi a")
def error_dropped(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Return a zero error."""
    a = xi + g
    kept = largest_by_block(a, block_size, density)
    return kept, a[kept], np.zeros_like(a)


@_feedback("1:7", text="xi is not cleared where c was kept (Algorithm 1, line 7)", stages="xi")
def error_not_cleared(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Return a for the error."""
    a = xi + g
    kept = largest_by_block(a, block_size, density)
    return kept, a[kept], a


@_feedback("1:7", text="the error is g - c in place of a - c (Algorithm 1, line 7)", stages="xi")
def error_of_g(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Forget the old error in the new one."""
    a = xi + g
    kept = largest_by_block(a, block_size, density)
    return kept, a[kept], g - only(a, kept)


@_feedback("1:7", text="the error has the wrong sign, c - a (Algorithm 1, line 7)", stages="xi")
def error_negated(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Subtract the wrong way round."""
    a = xi + g
    kept = largest_by_block(a, block_size, density)
    return kept, a[kept], only(a, kept) - a


@_feedback("1:7", text="residual taken before the values are rounded to bfloat16 (R14)", stages="xi values indices")
def residual_before_rounding(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Return rounded values, and the error of the values that were not."""
    import ml_dtypes

    a = xi + g
    kept = largest_by_block(a, block_size, density)
    return kept, a[kept].astype(ml_dtypes.bfloat16), a - only(a, kept)


@_feedback("1:6", text="signed Top-k: a in place of |a| (section 3.1)", stages="indices values xi")
def feedback_signed(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Keep the largest signed entries."""
    a = xi + g
    kept = np.concatenate([b + largest(a[b:e], n) for b, e, n in counts(len(a), block_size, density)])
    return kept, a[kept], a - only(a, kept)


@_feedback("1:6", text="selection by g in place of a (Algorithm 1, line 6)", stages="indices values xi")
def selected_by_g(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Choose the positions before the error is added."""
    a = xi + g
    kept = largest_by_block(g, block_size, density)
    return kept, a[kept], a - only(a, kept)


@_feedback("K:2", text="floor in place of ceil (section 3.1, R11)", stages="indices values")
def feedback_floor(xi: Any, g: Any, block_size: Any, density: Any) -> Any:
    """Round the count down."""
    a = xi + g
    parts = [b + largest(np.abs(a[b:e]), int((e - b) * density)) for b, e, _ in counts(len(a), block_size, density)]
    kept = np.concatenate(parts)
    return kept, a[kept], a - only(a, kept)


MUTANTS = tuple(_known)
