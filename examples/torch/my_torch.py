"""Five operations in PyTorch; arrays arrive as tensors: ``efcp-ref check examples/torch/my_torch.py``."""

import torch

ARRAYS = "torch"


def top_k(a, k):
    """Positions and values of the k entries of largest magnitude."""
    indices = torch.topk(a.abs(), k).indices
    return indices, a[indices]


def sp(indices, values, g):
    """Scalar products of sparse rows with g."""
    return (values * g[indices.long()]).sum(dim=1)


def lcg(indices, values, c, d):
    """Linear combination of sparse rows."""
    terms = c[:, None] * values  # in the wider precision where values are stored as bfloat16
    return torch.zeros(d, dtype=terms.dtype).index_add_(0, indices.long().ravel(), terms.ravel())


def mfac_direction(G, lam, x):
    """x preconditioned by a window G: eq. (2) with a Cholesky solve."""
    S, h = G @ G.T, G @ x
    L = torch.linalg.cholesky(S + lam * len(G) * torch.eye(len(G), dtype=G.dtype))
    c = torch.cholesky_solve(h[:, None], L)[:, 0] / lam
    return x / lam - c @ G, S, h, c


class topk_sgd:
    """Top-k SGD with error feedback."""

    def __init__(self, d, k):
        """Start with no error."""
        self.k, self.t, self.xi = k, 0, torch.zeros(d, dtype=torch.float64)

    def step(self, g):
        """Return what is kept of the gradient and the error."""
        a = self.xi.to(g.dtype) + g
        u = torch.zeros_like(a)
        kept = torch.topk(a.abs(), self.k).indices
        u[kept] = a[kept]
        self.t, self.xi = self.t + 1, a - u
        return u

    def state(self):
        """Return the step count and the error."""
        return {"t": self.t, "xi": self.xi}
