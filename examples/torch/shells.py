"""The optimizers of `efcp_ref.torch`, judged as anybody's would be: ``efcp-ref check examples/torch/shells.py``."""

from efcp_ref import torch as ours
from efcp_ref.adapt import torch_optimizer


@torch_optimizer(state=lambda it, params: it.reference.state())
def dense_mfac(params, m, lam):
    """Dense M-FAC."""
    return ours.DenseMFAC(params, lr=1.0, m=m, lam=lam)


@torch_optimizer(state=lambda it, params: it.reference.state())
def sparse_mfac(params, m, lam, block_size, density):
    """Sparse M-FAC."""
    return ours.SparseMFAC(params, lr=1.0, m=m, lam=lam, block_size=block_size, density=density)


@torch_optimizer(state=lambda it, params: it.reference.state())
def low_rank_mfac(params, m, lam, rank, Q0):
    """Low-rank M-FAC: ``params`` holds one tensor per shape."""
    return ours.LowRankMFAC(params, lr=1.0, m=m, lam=lam, rank=rank, Q0=Q0)


@torch_optimizer(state=lambda it, params: it.reference.state())
def sparse_ggt(params, m, eps, cutoff, k):
    """Sparse GGT."""
    return ours.SparseGGT(params, lr=1.0, m=m, eps=eps, cutoff=cutoff, k=k)


@torch_optimizer(state=lambda it, params: it.reference.state())
def adagrad_ef(params, k):
    """AdaGrad with error feedback."""
    return ours.AdaGradEF(params, lr=1.0, k=k)


@torch_optimizer(state=lambda it, params: it.reference.state())
def ef_signsgd(params, gamma):
    """EF-SignSGD, whose rate is inside the error."""
    return ours.EFSignSGD(params, lr=gamma)
