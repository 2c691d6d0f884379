"""One criterion per operation: ``judge(case, result, declared) -> (Check, ...)``, checks in stage order."""

from __future__ import annotations

from collections.abc import Callable

from efcp_ref.oracle.core import Check
from efcp_ref.oracle.criteria import eigen, elementwise, fisher, low_rank, replay, scaled, selection, sums

CRITERIA: dict[str, Callable[..., tuple[Check, ...]]] = {
    "top_k": selection.top_k,
    "block_top_k": selection.block_top_k,
    "error_feedback": selection.error_feedback,
    "sp": sums.sp,
    "lcg": sums.lcg,
    "wsm": fisher.wsm,
    "mfac_direction": fisher.mfac_direction,
    "sparse_mfac_direction": fisher.sparse_mfac_direction,
    "ggt_direction": eigen.ggt_direction,
    "sparse_ggt_direction": eigen.sparse_ggt_direction,
    "power_compress": low_rank.power_compress,
    "low_rank_inner_product": low_rank.low_rank_inner_product,
    "adagrad_step": elementwise.adagrad_step,
    "sign_step": elementwise.sign_step,
    "scaled_top_k": scaled.scaled_top_k,
    "topk_sgd": replay.judge,
    "dense_mfac": replay.judge,
    "sparse_mfac": replay.judge,
    "low_rank_mfac": replay.judge,
    "dense_ggt": replay.judge,
    "sparse_ggt": replay.judge,
    "adagrad_ef": replay.judge,
    "ef_signsgd": replay.judge,
}
