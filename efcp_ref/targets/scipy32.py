"""SciPy alone in float32: every operation of the contract through LAPACK's float32 routines.

True verdict: pass, every operation and every optimizer.
"""

from efcp_ref.targets._scipy import (
    adagrad_ef,
    adagrad_step,
    block_top_k,
    dense_ggt,
    dense_mfac,
    ef_signsgd,
    error_feedback,
    ggt_direction,
    lcg,
    low_rank_inner_product,
    low_rank_mfac,
    mfac_direction,
    power_compress,
    scaled_top_k,
    sign_step,
    sp,
    sparse_ggt,
    sparse_ggt_direction,
    sparse_mfac,
    sparse_mfac_direction,
    top_k,
    topk_sgd,
    wsm,
)

__all__ = [
    "ARITHMETIC",
    "DTYPES",
    "ORTHOGONALISATION",
    "SOLVER",
    "adagrad_ef",
    "adagrad_step",
    "block_top_k",
    "dense_ggt",
    "dense_mfac",
    "ef_signsgd",
    "error_feedback",
    "ggt_direction",
    "lcg",
    "low_rank_inner_product",
    "low_rank_mfac",
    "mfac_direction",
    "power_compress",
    "scaled_top_k",
    "sign_step",
    "sp",
    "sparse_ggt",
    "sparse_ggt_direction",
    "sparse_mfac",
    "sparse_mfac_direction",
    "top_k",
    "topk_sgd",
    "wsm",
]

DTYPES = ("float32",)
ARITHMETIC = {"accumulator": "float32"}
SOLVER = "factorisation"
ORTHOGONALISATION = "householder"
