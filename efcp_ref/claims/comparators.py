"""The comparators of the paper's tables, from public packages, on the same images, start and minibatches.

    python -m efcp_ref.claims.comparators      # what is missing; needs torch, pytorch-optimizer and asdfghjkl

Adam and AdamW are PyTorch's; Shampoo is that of ``pytorch-optimizer``; K-FAC is that of ``asdfghjkl``, the library
behind the ASDL benchmark of the paper's Table 1. They run in float32, as their users run them; losses and accuracies
are computed by this package.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.claims.heavy import RESULTS, SEEDS, TUNING_SEED, Records, append, read
from efcp_ref.claims.train import EVERY, batches
from efcp_ref.data import MLP, digits, split
from efcp_ref.paper._validate import Array

FILE = RESULTS / "comparators.jsonl"
STEPS, BATCH = 640, 64
PACKAGES = {"SGD": "torch", "Adam": "torch", "AdamW": "torch", "Shampoo": "pytorch-optimizer", "K-FAC": "asdfghjkl"}
RATES = {
    "SGD": (1.0,),
    "Adam": (1e-3, 3e-3, 1e-2),
    "AdamW": (1e-3, 3e-3, 1e-2),
    "Shampoo": (0.003, 0.03, 0.1),
    "K-FAC": (0.03, 0.1),
}
NOT_HAD = {  # looked for on PyPI, and why there is no number
    "distributed-shampoo": "not on PyPI",
    "kfac-pytorch": "not on PyPI",
    "torch-kfac": "not on PyPI",
    "SENG": "no package on PyPI found",
}
DAMPING = 1e-2  # of K-FAC
Step = Callable[[Any, Any, float], None]  # (images, labels, rate): one step


def _sgd(torch: Any, model: Any) -> Step:
    return _plain(torch, model, torch.optim.SGD(model.parameters(), lr=1.0))


def _adam(torch: Any, model: Any) -> Step:
    return _plain(torch, model, torch.optim.Adam(model.parameters(), lr=1.0))


def _adamw(torch: Any, model: Any) -> Step:
    return _plain(torch, model, torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=1e-2))


def _shampoo(torch: Any, model: Any) -> Step:
    from pytorch_optimizer import Shampoo  # type: ignore[import-not-found, unused-ignore]

    return _plain(torch, model, Shampoo(model.parameters(), lr=1.0, preconditioning_compute_steps=10))


def _plain(torch: Any, model: Any, optimizer: Any) -> Step:
    def step(X: Any, y: Any, rate: float) -> None:
        _set(optimizer, rate)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()

    return step


def _set(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _kfac(torch: Any, model: Any) -> Step:
    import asdl  # type: ignore[import-not-found, unused-ignore]

    for name in ("range_push", "range_pop"):  # marks for a GPU profiler, which raise where there is no GPU
        setattr(torch.cuda.nvtx, name, lambda *given: None)
    config = asdl.PreconditioningConfig(data_size=BATCH, damping=DAMPING, ema_decay=0.05)
    maker = asdl.KfacGradientMaker(model, config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def step(X: Any, y: Any, rate: float) -> None:
        _set(optimizer, rate)
        optimizer.zero_grad()
        dummy = maker.setup_model_call(model, X)
        maker.setup_loss_call(torch.nn.functional.cross_entropy, dummy, y)
        maker.forward_and_backward()
        optimizer.step()

    return step


MAKERS = {"SGD": _sgd, "Adam": _adam, "AdamW": _adamw, "K-FAC": _kfac, "Shampoo": _shampoo}


def module(torch: Any, theta: Array) -> Any:
    """Return the network as a torch module whose parameters hold theta."""
    p, h, q = MLP.sizes
    model = torch.nn.Sequential(torch.nn.Linear(p, h), torch.nn.ReLU(), torch.nn.Linear(h, q))
    with torch.no_grad():
        for layer, (W, b) in zip((model[0], model[2]), MLP.layers(theta), strict=True):
            layer.weight.copy_(torch.from_numpy(W.T.astype(np.float32)))
            layer.bias.copy_(torch.from_numpy(b.astype(np.float32)))
    return model


def parameters(model: Any) -> Array:
    """Return the module's parameters as theta (d,)."""
    parts = [
        a for layer in (model[0], model[2]) for a in (layer.weight.detach().numpy().T, layer.bias.detach().numpy())
    ]
    return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])


def train(name: str, lr: float, seed: int) -> dict[str, Any]:
    """Train once: same start, minibatches and falling rate as `efcp_ref.claims.train.train`; torch on one thread."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    X, y = digits()
    chosen = split()
    rng = np.random.default_rng(seed)
    model = module(torch, MLP.start(rng))
    step = MAKERS[name](torch, model)
    images, labels = torch.from_numpy(X[chosen.train].astype(np.float32)), torch.from_numpy(y[chosen.train])
    curve: list[list[float]] = []
    began = time.perf_counter()
    for t, batch in enumerate(batches(len(chosen.train), BATCH, STEPS, rng)):
        if t % EVERY == 0:
            curve.append([t, _loss(model, X[chosen.train], y[chosen.train])])
        step(images[batch], labels[batch], lr * (1 - t / STEPS))
    theta = parameters(model)
    curve.append([STEPS, _loss(model, X[chosen.train], y[chosen.train])])
    accuracy = {part: 100 * MLP.accuracy(theta, X[where], y[where]) for part, where in chosen._asdict().items()}
    return {
        "loss": curve[-1][1],
        "accuracy": accuracy["test"],
        "validation": accuracy["validation"],
        "curve": curve,
        "diverged": not curve[-1][1] < 10,
        "seconds": round(time.perf_counter() - began, 2),
    }


def _loss(model: Any, X: Array, y: Array) -> float:
    loss = float(np.real(MLP.loss(parameters(model), X, y)))
    return loss if np.isfinite(loss) else 1e300


def chosen(name: str, done: Records) -> float:
    """Return the rate with the best validation accuracy, the lower loss among equals."""
    rows = [(done[f"{name} {lr:g}", TUNING_SEED], lr) for lr in RATES[name]]
    return min(rows, key=lambda row: (-row[0]["validation"], row[0]["loss"], row[1]))[1]


def packages() -> dict[str, str]:
    """Return the versions that are installed, "absent" where one is not."""
    found = {}
    for package in sorted(set(PACKAGES.values())):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def run(file: Path = FILE, say: Callable[[str], None] = lambda text: None) -> None:
    """Do the runs that the file lacks: first the rates, then the seeds."""
    done, versions = read(file), packages()
    for name in MAKERS:
        for lr, seed in [(lr, TUNING_SEED) for lr in RATES[name]] + [(None, seed) for seed in SEEDS]:
            rate = chosen(name, done) if lr is None else lr
            key = f"{name} {rate:g}"
            if (key, seed) in done:
                continue
            row = {
                "key": key,
                "seed": seed,
                "name": name,
                "lr": rate,
                "package": PACKAGES[name],
                "version": versions[PACKAGES[name]],
            } | train(name, rate, seed)
            append(file, row)
            done[key, seed] = row
            say(f"{key}, seed {seed}: loss {row['loss']:.5f}, accuracy {row['accuracy']:.2f} %, {row['seconds']} s")


if __name__ == "__main__":
    run(say=lambda text: print(text, flush=True))
