"""PyTorch's PowerSGD communication hook as `power_compress`, past `start_powerSGD_iter`: one process, or several.

The hook works on a bucket of gradients and keeps P and Q in its state. The target puts the given Q into that
state (the hook's warm start), hands the hook a bucket of one tensor, and reads P and Q back.
Rank 1 and 2 go through PyTorch's own modified Gram-Schmidt, higher ranks through `torch.linalg.qr`.
The hook orthogonalises the given Q before it uses it, which changes no span.

True verdict: fail. With the default `orthogonalization_epsilon = 0`, ranks 1 and 2 give P = NaN wherever M Q has a
rank below rho, a zero gradient among them (0/0 in Gram-Schmidt; R25). From rank 3 on, Householder QR completes P and
every case passes. Rank 2 passes wherever M Q has full rank.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as power

ORTHOGONALISATION = "mgs"


@dataclass(frozen=True)
class Bucket:
    """A bucket of one tensor: what the hook asks of `torch.distributed.GradBucket`, which Python cannot build."""

    flat: torch.Tensor
    shape: tuple[int, ...]

    def buffer(self) -> torch.Tensor:
        """Return the flat gradient, which the hook overwrites."""
        return self.flat

    def gradients(self) -> list[torch.Tensor]:
        """Return the views of the layers."""
        return [self.flat.view(self.shape)]

    def index(self) -> int:
        """Return the bucket's number."""
        return 0

    def is_last(self) -> bool:
        """Return whether this bucket ends the step."""
        return True


def group() -> Any:
    """Return this process's group, created once: that of ``--workers``, else one gloo process, through a file."""
    if not dist.is_initialized() and "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    if not dist.is_initialized():
        store = Path(tempfile.mkdtemp(prefix="efcp_gloo_")) / "store"
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    return dist.group.WORLD


def compress(
    g: torch.Tensor, Q: torch.Tensor, process_group: Any, epsilon: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the hook once on ``g`` (p1, ..., ps) with the warm start ``Q``; return P and Q."""
    rho = Q.shape[1]
    state = power.PowerSGDState(
        process_group, matrix_approximation_rank=rho, start_powerSGD_iter=2, min_compression_rate=0,
        orthogonalization_epsilon=epsilon,
    )
    state.iter = 2  # past the vanilla all-reduce
    state.p_memory_dict[0] = torch.empty(g.shape[0] * rho, dtype=g.dtype)
    state.q_memory_dict[0] = Q.clone().reshape(-1)
    bucket: Any = Bucket(g.clone().reshape(-1), tuple(g.shape))
    power.powerSGD_hook(state, bucket).wait()
    return state.p_memory_dict[0].view(-1, rho), state.q_memory_dict[0].view(-1, rho)


def power_compress(g: Any, Q: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return P and Q as the hook leaves them in its state."""
    P, Q = compress(torch.tensor(np.array(g)), torch.tensor(np.array(Q)), group())
    return P.numpy(), Q.numpy()
