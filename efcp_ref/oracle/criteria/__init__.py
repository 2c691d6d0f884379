"""One criterion per operation: ``judge(case, result, declared) -> (Check, ...)``, checks in stage order."""

from __future__ import annotations

from collections.abc import Callable

from efcp_ref.oracle.core import Check
from efcp_ref.oracle.criteria import fisher, selection, sums

CRITERIA: dict[str, Callable[..., tuple[Check, ...]]] = {
    "top_k": selection.top_k,
    "block_top_k": selection.block_top_k,
    "error_feedback": selection.error_feedback,
    "sp": sums.sp,
    "lcg": sums.lcg,
    "wsm": fisher.wsm,
    "mfac_direction": fisher.mfac_direction,
    "sparse_mfac_direction": fisher.sparse_mfac_direction,
}
