"""The fastest kernels of the ladder as a target of their own: ``efcp-ref check efcp_ref.gpu:fast``."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

from efcp_ref.gpu import operations, optimizer

fast = SimpleNamespace(
    sp=partial(operations.sp, kernel="fast"),
    lcg=partial(operations.lcg, kernel="fast"),
    sparse_mfac_direction=partial(operations.sparse_mfac_direction, kernel="fast"),
    sparse_mfac=partial(optimizer.sparse_mfac, kernel="fast", order="bank"),
)
