"""The picture of the home page, from a run that takes a second; one for light pages, one for dark ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import efcp_ref
from efcp_ref.data import SOFTMAX, digits, split

STEPS, BATCH, RATE = 640, 64, 1.0
KEPT = 7  # of d = 650: about 1 %


def losses(feedback: bool, seed: int = 0) -> tuple[np.ndarray, float]:
    """Return the training loss after every eighth step, and the test accuracy, of Top-1 % SGD on the digits."""
    X, y = digits()
    parts, rng = split(), np.random.default_rng(seed)
    theta = SOFTMAX.start(rng)
    optimizer = efcp_ref.topk_sgd(d=SOFTMAX.d, k=KEPT)
    found = []
    for t in range(STEPS):
        chosen = rng.choice(parts.train, BATCH, replace=False)
        g = SOFTMAX.gradient(theta, X[chosen], y[chosen])
        if not feedback:
            optimizer = efcp_ref.topk_sgd(d=SOFTMAX.d, k=KEPT)
        theta = theta - RATE * (1 - t / STEPS) * optimizer.step(g)
        if t % 8 == 7:
            found.append(SOFTMAX.loss(theta, X[parts.train], y[parts.train]))
    return np.array(found), 100 * SOFTMAX.accuracy(theta, X[parts.test], y[parts.test])


def home(folder: Path) -> dict[str, float]:
    """Draw the loss with and without error feedback; return the two accuracies."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "efcp_ref"
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    (with_, right), (without, wrong) = losses(True), losses(False)
    at = 8 * (1 + np.arange(len(with_)))
    for name, ink, blue, orange in (
        ("light", "#222222", "#0072B2", "#B84E00"),
        ("dark", "#e6e6e6", "#6CB8E6", "#F0A46A"),
    ):
        plt.rcParams.update(
            {
                "text.color": ink,
                "axes.labelcolor": ink,
                "xtick.color": ink,
                "ytick.color": ink,
                "axes.edgecolor": ink,
                "font.size": 11,
                "svg.fonttype": "path",
            }
        )
        figure, axes = plt.subplots(figsize=(6.0, 3.0), layout="constrained")
        axes.plot(at, without, color=orange, lw=2.2, ls="--")
        axes.plot(at, with_, color=blue, lw=2.2)
        axes.annotate(
            "dropped entries are lost",
            (at[-1], without[-1]),
            (-4, 11),
            textcoords="offset points",
            ha="right",
            color=orange,
        )
        axes.annotate(
            "dropped entries wait: error feedback",
            (at[-1], with_[-1]),
            (-4, 18),
            textcoords="offset points",
            ha="right",
            color=blue,
        )
        axes.set_yscale("log")
        axes.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
        axes.minorticks_off()
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        figure.savefig(folder / f"home-{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return {"right": right, "wrong": wrong, "last_right": float(with_[-1]), "last_wrong": float(without[-1])}
