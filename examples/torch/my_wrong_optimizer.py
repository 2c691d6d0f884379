"""The same with one mistake: ``efcp-ref check examples/torch/my_wrong_optimizer.py`` says fail. Only u is shown."""

from my_optimizer import EFSignSGD

from efcp_ref.adapt import torch_optimizer


class Forgetful(EFSignSGD):
    """Keeps what is left of the gradient alone: the error of the step before is lost."""

    def move(self, theta, state, lr):
        """Send the sign, keep less than the rest."""
        p = lr * theta.grad + state.get("error", 0)
        delta = p.abs().mean() * p.sign()
        theta -= delta
        state["error"] = lr * theta.grad - delta  # must be p - delta


@torch_optimizer
def ef_signsgd(params, gamma):
    """The adapter."""
    return Forgetful(params, lr=gamma)
