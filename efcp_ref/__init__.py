"""efcp_ref: the executable paper of EFCP, and the oracle that judges other implementations against it.

Every operation and optimizer of the contract is callable here by its name: ``efcp_ref.sp(...)``. The package itself is
therefore a target: ``efcp-ref check efcp_ref``. Names are imported when they are first used, so that importing the
package costs nothing.

>>> import efcp_ref
>>> efcp_ref.top_k([0.5, -3.0, 2.0, 0.1], k=2).values
array([-3.,  2.])
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

ORTHOGONALISATION = "householder"  # declared to the oracle: power_compress uses a complete Householder QR (R25)

_WHERE = {
    "paper.algorithm_1": ("efcp", "error_feedback"),
    "paper.algorithm_2": ("sp",),
    "paper.algorithm_3": ("lcg",),
    "paper.algorithm_4": ("ggt_direction", "sparse_ggt_direction"),
    "paper.algorithm_5": ("power_compress",),
    "paper.algorithm_6": ("low_rank_inner_product",),
    "paper.algorithm_7": ("adagrad_step",),
    "paper.sign": ("sign_step",),
    "paper.top_k": ("block_top_k", "scaled_top_k", "top_k"),
    "paper.woodbury": ("mfac_direction", "sparse_mfac_direction", "wsm"),
    "paper.optimizers": (
        "adagrad_ef", "dense_ggt", "dense_mfac", "ef_signsgd", "low_rank_mfac", "sparse_ggt", "sparse_mfac", "topk_sgd",
    ),
    "tracing": ("trace",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = ["ORTHOGONALISATION", "__version__", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'efcp_ref' has no attribute {name!r}")
    value = getattr(import_module(f"efcp_ref.{_MODULE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
