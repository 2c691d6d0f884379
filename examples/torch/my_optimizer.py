"""EF-SignSGD as a PyTorch optimizer, and its adapter: ``efcp-ref check examples/torch/my_optimizer.py``."""

import torch

from efcp_ref.adapt import torch_optimizer


class EFSignSGD(torch.optim.Optimizer):
    """One tensor of parameters: p = lr g + e, Delta = mean |p| sign p, theta' = theta - Delta, e' = p - Delta."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        """Move every tensor of every group."""
        for group in self.param_groups:
            for theta in group["params"]:
                self.move(theta, self.state[theta], group["lr"])

    def move(self, theta, state, lr):
        """Send the sign, keep the rest."""
        p = lr * theta.grad + state.get("error", 0)
        delta = p.abs().mean() * p.sign()
        theta -= delta
        state["t"], state["error"] = state.get("t", 0) + 1, p - delta


@torch_optimizer(state=lambda it, params: {"t": it.state[params[0]]["t"], "e": it.state[params[0]]["error"]})
def ef_signsgd(params, gamma):
    """The adapter. Without ``state``, u alone is judged."""
    return EFSignSGD(params, lr=gamma)
