"""Write digits_runs.json, which tutorial 10 shows: ``python tutorials/make_digits_runs.py`` (about three minutes).

Ten settings, five seeds each, on the network of 19,210 parameters: every tenth training loss, the error-feedback metric, and
the accuracy at the end. ``run`` is also what the tutorial itself calls, with fewer steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref import fast
from efcp_ref.data import MLP, digits, split

FILE = Path(__file__).with_name("digits_runs.json")
BLOCK, M, LAM, BATCH, STEPS = 2048, 128, 1e-3, 64, 640


def forgetful(optimizer: Any, density: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return steps without error feedback: a gradient that is compressed before leaves nothing for the error."""

    def step(g: np.ndarray) -> np.ndarray:
        c = np.zeros_like(g)
        kept = fast.block_top_k(g, BLOCK, density)
        c[kept[0]] = kept[1]
        return optimizer.step(c)

    return step


class TopkSGD:
    """Top-k SGD in blocks, with error feedback."""

    def __init__(self, density: float) -> None:
        """Keep ``density`` of every block."""
        self.xi, self.density = np.zeros(MLP.d), density

    def step(self, g: np.ndarray) -> np.ndarray:
        """Return what is sent."""
        indices, values, self.xi = fast.error_feedback(self.xi, g, BLOCK, self.density)
        u = np.zeros_like(g)
        u[indices] = values
        return u

    def state(self) -> dict[str, np.ndarray]:
        """Return the error."""
        return {"xi": self.xi}


def sparse(density: float) -> Any:
    """Return Sparse M-FAC at a density."""
    return fast.sparse_mfac(d=MLP.d, m=M, lam=LAM, block_size=BLOCK, density=density)


METHODS: dict[str, tuple[Callable[[], Any], float | None, float]] = {  # name: optimizer, density where forgetful, rate
    "SGD": (lambda: fast.topk_sgd(d=MLP.d, k=MLP.d), None, 1.0),
    "Top-1% SGD": (lambda: TopkSGD(0.01), None, 1.0),
    "Top-1% SGD, no feedback": (lambda: TopkSGD(0.01), 0.01, 1.0),
    "D-MFAC": (lambda: fast.dense_mfac(d=MLP.d, m=M, lam=LAM), None, 0.01),
    **{f"S-MFAC {100 * p:g}%": (lambda p=p: sparse(p), None, 0.01) for p in (0.05, 0.01, 0.001)},
    **{f"S-MFAC {100 * p:g}%, no feedback": (lambda p=p: sparse(p), p, 0.01) for p in (0.05, 0.01, 0.001)},
}  # fmt: skip


def run(name: str, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """Train once; the rate falls linearly to zero."""
    make, density, rate = METHODS[name]
    optimizer = make()
    step = optimizer.step if density is None else forgetful(optimizer, density)
    X, y = digits()
    part, rng = split(), np.random.default_rng(seed)
    theta, total, losses, metric = MLP.start(rng), 0.0, [], []
    for t in range(steps):
        chosen = rng.choice(part.train, BATCH, replace=False)
        g = MLP.gradient(theta, X[chosen], y[chosen])
        theta = theta - rate * (1 - t / steps) * np.asarray(step(g))
        total += float(np.linalg.norm(g))
        if t % 10 == 9:
            losses.append(float(MLP.loss(theta, X[part.train], y[part.train])))
            xi = optimizer.state().get("xi") if name.startswith(("S-", "Top")) else None
            metric.append(None if xi is None else float(np.linalg.norm(xi)) / total)
    return {"loss": losses, "metric": metric, "test": MLP.accuracy(theta, X[part.test], y[part.test])}


def main() -> None:
    """Run everything and write the file, numbers to four digits."""
    rounded = lambda values: [None if v is None else float(f"{v:.4g}") for v in values]  # noqa: E731
    table = {}
    for name in METHODS:
        runs = [run(name, seed) for seed in range(5)]
        table[name] = [{k: rounded(v) if isinstance(v, list) else round(v, 4) for k, v in r.items()} for r in runs]
        final = [r["loss"][-1] for r in runs]
        print(f"{name:26} loss {np.median(final):.5f}  test {np.mean([r['test'] for r in runs]):.4f}", file=sys.stderr)
    text = ",\n".join(f" {json.dumps(name)}: [\n  " + ",\n  ".join(map(json.dumps, runs)) + "]" for name, runs in table.items())
    FILE.write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
