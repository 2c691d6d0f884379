"""`torch.optim.Adagrad` is Algorithm 7 at k = d: ``efcp-ref check examples/torch/adagrad.py``."""

import torch

from efcp_ref.adapt import torch_optimizer

READINGS = {"R29": "1e-10"}  # PyTorch adds eps to the root; without this line: inconclusive, and the reading is named


@torch_optimizer
def adagrad_ef(params, d, k):
    """It knows no k: cases with k < d are declined."""
    if k < d:
        raise NotImplementedError
    return torch.optim.Adagrad(params, lr=1.0)
