"""The contract at the paper's sizes: the same names and arguments as the reference, in blocked NumPy and SciPy.

The one idea: Top-k in blocks bounds the indices, so everything that a block touches fits in a core's cache, as it fits
in a thread block's shared memory on a GPU (section 3.1). Read in this order: `layout` (where everything lies),
`selection` (Top-k), `feedback`, `window`, `sums` (SP and LCG), `solve`, `optimizers`. The module is a target of the
oracle: ``efcp-ref check efcp_ref.fast``.

Results have the precision that was given. Sums of float32 products are float32 inside a slice, float64 across slices;
float64 arguments are computed in float64.

>>> import efcp_ref.fast
>>> efcp_ref.fast.top_k([0.5, -3.0, 2.0, 0.1], k=2).values
array([-3.,  2.])
"""

from importlib import import_module
from typing import Any

ORTHOGONALISATION = "householder"  # declared to the oracle: power_compress uses a complete Householder QR (R25)

_WHERE = {
    "selection": ("block_top_k", "top_k"),
    "feedback": ("error_feedback",),
    "sums": ("lcg", "sp"),
    "fisher": ("mfac_direction", "sparse_mfac_direction", "wsm"),
    "ggt": ("ggt_direction", "sparse_ggt_direction"),
    "low_rank": ("low_rank_inner_product", "power_compress"),
    "elementwise": ("adagrad_step", "scaled_top_k", "sign_step"),
    "optimizers.mfac": ("dense_mfac", "low_rank_mfac", "sparse_mfac"),
    "optimizers.ggt": ("dense_ggt", "sparse_ggt"),
    "optimizers.first_order": ("adagrad_ef", "ef_signsgd", "topk_sgd"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["ORTHOGONALISATION", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'efcp_ref.fast' has no attribute {name!r}")
    value = getattr(import_module(f"efcp_ref.fast.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
