"""One training run on the digits: a method, its setting, a seed, and what is written down about it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from efcp_ref.claims.methods import Size, build
from efcp_ref.data import MLP, SOFTMAX, Network, digits, split
from efcp_ref.paper._validate import Array
from efcp_ref.paper.theory import largest_eigenvalue

MODELS: dict[str, Network] = {"mlp": MLP, "softmax": SOFTMAX}
EVERY = 32  # steps between two looks at the whole training set
EQUAL_LOSS = 0.02  # training loss at which minima are compared
TOLERANCE = 1e-2  # relative residual of the largest eigenvalue


@dataclass(frozen=True)
class Setting:
    """One run, up to its seed."""

    method: str
    lr: float
    options: dict[str, Any] = field(default_factory=dict)
    feedback: bool = True
    model: str = "mlp"
    steps: int = 640
    batch: int = 64
    sharpness: bool = False  # whether the largest Hessian eigenvalue is computed

    @property
    def key(self) -> str:
        """Stable text that names the setting."""
        return json.dumps(self.__dict__, sort_keys=True)


def batches(n: int, batch: int, steps: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the positions of every minibatch: whole batches of one shuffle after another.

    >>> [b.tolist() for b in batches(5, 2, 3, np.random.default_rng(0))]
    [[2, 4], [3, 0], [4, 1]]
    """
    while steps > 0:
        order = rng.permutation(n)
        for start in range(0, n - batch + 1, batch):
            if steps <= 0:
                return
            steps -= 1
            yield order[start : start + batch]


def train(setting: Setting, seed: int) -> dict[str, Any]:
    """Train once and return what was seen, ready for JSON.

    The learning rate falls linearly to zero. The starting point and the minibatches depend on the seed alone, so two
    methods with one seed see the same images in the same order.

    Returns:
        loss (training, at the end), accuracy and validation (per cent), curve [[step, loss], ...], metric (of
        appendix A, every fourth step, of the MLP), density (share of nonzero entries of the last
        32 steps), sharpness where asked for, diverged, seconds.

    >>> train(Setting("sgd", 1.0, model="softmax", steps=40), 0)["accuracy"] > 85
    True
    """
    run = _Run(setting, seed)
    began = time.perf_counter()
    with np.errstate(over="ignore", invalid="ignore"):
        diverged = run.go()
    record = run.record(diverged)
    return record | {"seconds": round(time.perf_counter() - began, 2)}


class _Run:
    """The state of one run and the notes that it takes."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting, self.seed, self.model = setting, seed, MODELS[setting.model]
        X, y = digits()
        self.data = {name: (X[part], y[part]) for name, part in split()._asdict().items()}
        self.rng = np.random.default_rng(seed)
        self.theta = self.model.start(self.rng)
        size = Size(self.model.d, self.model.shapes)
        self.method = build(setting.method, size, dict(setting.options), setting.feedback, seed)
        self.curve: list[list[float]] = []
        self.xi: list[float] = []
        self.g: list[float] = []
        self.density: list[float] = []
        self.at_equal_loss: Array | None = None

    def go(self) -> bool:
        """Train; return whether the parameters or a gradient stopped being finite, or the loss exceeded 10."""
        X, y = self.data["train"]
        T = self.setting.steps
        for t, chosen in enumerate(batches(len(y), self.setting.batch, T, self.rng)):
            if t % EVERY == 0 and self.look(t) > 10:
                return True
            g = self.model.gradient(self.theta, X[chosen], y[chosen])
            if not np.isfinite(g).all():
                return True
            delta = self.method.step(g, self.setting.lr * (1 - t / T))
            self.theta = self.theta - delta
            self.note(g, delta)
        return not self.look(T) <= 10

    def look(self, t: int) -> float:
        """Write down the loss of the whole training set."""
        loss = float(self.model.loss(self.theta, *self.data["train"]).real)
        self.curve.append([t, loss if np.isfinite(loss) else 1e300])
        if loss <= EQUAL_LOSS and self.at_equal_loss is None:
            self.at_equal_loss = self.theta.copy()
        return self.curve[-1][1]

    def note(self, g: Array, delta: Array) -> None:
        """Write down the norms of one step."""
        self.g.append(float(np.linalg.norm(g)))
        self.xi.append(0.0 if self.method.xi is None else float(np.linalg.norm(self.method.xi)))
        self.density.append(np.count_nonzero(delta) / len(delta))

    def record(self, diverged: bool) -> dict[str, Any]:
        """Return the notes."""
        good = not diverged
        accuracy = {part: self.accuracy(part) if good else 10.0 for part in ("validation", "test")}
        notes = {
            "loss": self.curve[-1][1],
            "accuracy": accuracy["test"],
            "validation": accuracy["validation"],
            "diverged": diverged,
            "curve": [[t, float(f"{loss:.6g}")] for t, loss in self.curve],
            "density": float(np.mean(self.density[-EVERY:] or [0.0])),
        }
        if any(self.xi) and self.setting.model == "mlp":
            notes["metric"] = _rounded((np.array(self.xi) / np.cumsum(self.g))[::4])
        if self.setting.sharpness and good:
            notes["sharpness"] = self.sharpness()
        return notes

    def accuracy(self, part: str) -> float:
        """Return the accuracy on one part of the data, per cent."""
        return 100 * self.model.accuracy(self.theta, *self.data[part])

    def sharpness(self) -> dict[str, float | None]:
        """Return the largest Hessian eigenvalue at the end, and where the loss passed EQUAL_LOSS."""
        at = self.at_equal_loss
        return {
            "train": self._top(self.theta, "train"),
            "test": self._top(self.theta, "test"),
            "equal_loss": None if at is None else self._top(at, "train"),
        }

    def _top(self, theta: Array, part: str) -> float:
        X, y = self.data[part]
        rng = np.random.default_rng(self.seed)
        return largest_eigenvalue(
            lambda at: self.model.gradient(at, X, y), theta, rng, method="lanczos", tolerance=TOLERANCE
        )


def _rounded(values: Any) -> list[float]:
    return [float(f"{v:.4g}") for v in values]
