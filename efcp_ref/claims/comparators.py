"""The comparators of the paper's tables, from public packages, on the same images, start and minibatches.

    python -m efcp_ref.claims.comparators  # what is missing; needs torch and the packages of `INSTALL`

Adam and AdamW are PyTorch's; Shampoo is that of ``pytorch-optimizer``; K-FAC and SENG are those of ``asdfghjkl``, the
library behind the ASDL benchmark of the paper's Table 1. They run in float32, as their users run them; losses and
accuracies are computed by this package. Where a method has a damping, three are tried at each of three rates.
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
PACKAGES = {
    "SGD": "torch", "Adam": "torch", "AdamW": "torch", "Shampoo": "pytorch-optimizer", "K-FAC": "asdfghjkl",
    "SENG": "asdfghjkl",
}  # fmt: skip
INSTALL = "pip install torch pytorch-optimizer==4.1.0 asdfghjkl==0.1a5"  # of the last one there are pre-releases only
PLAIN = (0.0,)  # of methods without a damping
GRID: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # rates and dampings that are tried
    "SGD": ((0.3, 1.0, 3.0), PLAIN),
    "Adam": ((1e-3, 3e-3, 1e-2, 3e-2), PLAIN),
    "AdamW": ((1e-3, 3e-3, 1e-2, 3e-2), PLAIN),
    "Shampoo": ((0.03, 0.1, 0.3), (1e-6, 1e-4, 1e-2)),  # its damping is what is added to its matrices
    "K-FAC": ((0.03, 0.1, 0.3), (1e-3, 1e-2, 1e-1)),
    "SENG": ((0.01, 0.03, 0.1), (1e-3, 1e-2, 1e-1)),
}
NOT_HAD = ("distributed-shampoo", "kfac-pytorch", "torch-kfac", "seng")  # names that PyPI does not have (2026-11-22)
Step = Callable[[Any, Any, float], None]  # (images, labels, rate): one step


def _sgd(torch: Any, model: Any, damping: float) -> Step:
    return _plain(torch, model, torch.optim.SGD(model.parameters(), lr=1.0))


def _adam(torch: Any, model: Any, damping: float) -> Step:
    return _plain(torch, model, torch.optim.Adam(model.parameters(), lr=1.0))


def _adamw(torch: Any, model: Any, damping: float) -> Step:
    return _plain(torch, model, torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=1e-2))


def _shampoo(torch: Any, model: Any, damping: float) -> Step:
    """Shampoo as appendix C of the paper sets it: inverse roots every 10 steps, blocks of 128."""
    from pytorch_optimizer import ScalableShampoo  # type: ignore[import-not-found, unused-ignore]

    options = {"preconditioning_compute_steps": 10, "block_size": 128, "matrix_eps": damping}
    return _plain(torch, model, ScalableShampoo(model.parameters(), lr=1.0, **options))


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


def _kfac(torch: Any, model: Any, damping: float) -> Step:
    return _asdl(torch, model, "KfacGradientMaker", damping=damping, ema_decay=0.05)


def _seng(torch: Any, model: Any, damping: float) -> Step:
    return _asdl(torch, model, "SengGradientMaker", damping=damping)


def _asdl(torch: Any, model: Any, method: str, **options: float) -> Step:
    import asdl  # type: ignore[import-not-found, unused-ignore]

    for name in ("range_push", "range_pop"):  # marks for a GPU profiler, which raise where there is no GPU
        setattr(torch.cuda.nvtx, name, lambda *given: None)
    maker = getattr(asdl, method)(model, asdl.PreconditioningConfig(data_size=BATCH, **options))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def step(X: Any, y: Any, rate: float) -> None:
        _set(optimizer, rate)
        optimizer.zero_grad()
        dummy = maker.setup_model_call(model, X)
        maker.setup_loss_call(torch.nn.functional.cross_entropy, dummy, y)
        maker.forward_and_backward()
        optimizer.step()

    return step


MAKERS = {"SGD": _sgd, "Adam": _adam, "AdamW": _adamw, "Shampoo": _shampoo, "K-FAC": _kfac, "SENG": _seng}


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


def train(name: str, lr: float, seed: int, damping: float = 0.0) -> dict[str, Any]:
    """Train once: same start, minibatches and falling rate as `efcp_ref.claims.train.train`; torch on one thread."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    X, y = digits()
    chosen = split()
    rng = np.random.default_rng(seed)
    model = module(torch, MLP.start(rng))
    step = MAKERS[name](torch, model, damping)
    images, labels = torch.from_numpy(X[chosen.train].astype(np.float32)), torch.from_numpy(y[chosen.train])
    curve: list[list[float]] = []
    began = time.perf_counter()
    try:
        for t, batch in enumerate(batches(len(chosen.train), BATCH, STEPS, rng)):
            if t % EVERY == 0:
                curve.append([t, _loss(model, X[chosen.train], y[chosen.train])])
            step(images[batch], labels[batch], lr * (1 - t / STEPS))
        curve.append([STEPS, _loss(model, X[chosen.train], y[chosen.train])])
    except torch.linalg.LinAlgError:  # a matrix that is not finite, or no longer definite
        curve.append([STEPS, np.finfo(float).max])
    theta = parameters(model)
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
    return loss if np.isfinite(loss) else np.finfo(float).max


def tried(name: str) -> list[tuple[float, float]]:
    """Return the pairs of rate and damping that are tried.

    >>> len(tried("Adam")), len(tried("K-FAC"))
    (4, 9)
    """
    rates, dampings = GRID[name]
    return [(lr, damping) for lr in rates for damping in dampings]


def key(name: str, lr: float, damping: float) -> str:
    """Return the text that names a setting.

    >>> key("K-FAC", 0.1, 0.01)
    'K-FAC, rate 0.1, damping 0.01'
    """
    return f"{name}, rate {lr:g}" + (f", damping {damping:g}" if damping else "")


def complete(done: Records) -> list[str]:
    """Return the methods of which every pair has been tried."""
    return [name for name in GRID if all((key(name, *pair), TUNING_SEED) in done for pair in tried(name))]


def chosen(name: str, done: Records) -> tuple[float, float]:
    """Return the rate and damping with the best validation accuracy, the lower loss among equals; no diverged run."""
    rows = [(done[key(name, *pair), TUNING_SEED], pair) for pair in tried(name)]
    return min(rows, key=lambda row: (row[0]["diverged"], -row[0]["validation"], row[0]["loss"], row[1]))[1]


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
        for pair, seed in [(pair, TUNING_SEED) for pair in tried(name)] + [(None, seed) for seed in SEEDS]:
            lr, damping = chosen(name, done) if pair is None else pair
            setting = key(name, lr, damping)
            if (setting, seed) in done:
                continue
            package = PACKAGES[name]
            about = {"name": name, "lr": lr, "damping": damping, "package": package, "version": versions[package]}
            row = {"key": setting, "seed": seed} | about | train(name, lr, seed, damping)
            append(file, row)
            done[setting, seed] = row
            say(f"{setting}, seed {seed}: loss {row['loss']:.5g}, accuracy {row['accuracy']:.2f} %")


if __name__ == "__main__":
    run(say=lambda text: print(text, flush=True))
