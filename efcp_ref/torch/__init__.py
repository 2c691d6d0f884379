"""The reference as `torch.optim` optimizers: thin shells, for trying the paper on a small model of your own.

They compute on the CPU in float64 and are as slow as the reference; they are exact, and that is their use.

>>> import torch
>>> from efcp_ref.torch import SparseMFAC
>>> theta = torch.nn.Parameter(torch.tensor([3.0, 1.0, 0.0, 4.0]))
>>> optimizer = SparseMFAC([theta], lr=1.0, m=2, lam=1.0, density=0.5)
>>> (theta**2 / 2).sum().backward()
>>> optimizer.step()
>>> theta.data.round(decimals=4)  # theta - m c / (lam m + |c|^2), c = (3, 0, 0, 4)
tensor([2.7778, 1.0000, 0.0000, 3.7037])
"""

from efcp_ref.torch.optimizers import AdaGradEF, DenseMFAC, EFSignSGD, LowRankMFAC, Shell, SparseGGT, SparseMFAC

__all__ = ["AdaGradEF", "DenseMFAC", "EFSignSGD", "LowRankMFAC", "Shell", "SparseGGT", "SparseMFAC"]
