"""Softmax regression and a ReLU network on the digits, with parameters in one flat vector theta.

Loss and gradient are analytic in theta away from the kinks, also for complex theta: every comparison looks at real
parts alone. So ``gradient(theta + 1e-20j v, X, y).imag / 1e-20`` is the Hessian times v, to full precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from efcp_ref.data.digits import digits, split
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


@dataclass(frozen=True)
class Network:
    """A fully connected network: ReLU between the layers, softmax cross-entropy at the end.

    >>> SOFTMAX.d, MLP.d
    (650, 19210)
    """

    sizes: tuple[int, ...]  # inputs, hidden units ..., classes

    @property
    def d(self) -> int:
        """Number of parameters."""
        return sum((p + 1) * q for p, q in pairwise(self.sizes))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors in theta, in order: every layer's weights (inputs, outputs), then its biases."""
        return tuple(shape for p, q in pairwise(self.sizes) for shape in ((p, q), (q,)))

    def layers(self, theta: Array) -> list[tuple[Array, Array]]:
        """Return theta (d,) cut into the weights and biases of every layer, as views."""
        if theta.shape != (self.d,):
            raise ValueError(f"theta has shape {theta.shape}, must have shape ({self.d},)")
        ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(theta, ends), self.shapes, strict=True)]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def start(self, rng: np.random.Generator) -> Array:
        """Return theta (d,): weights normal with variance 2 / inputs (He), biases zero."""
        pieces = [(rng.standard_normal((p, q)) * np.sqrt(2 / p), np.zeros(q)) for p, q in pairwise(self.sizes)]
        return np.concatenate([part.ravel() for layer in pieces for part in layer])

    def forward(self, theta: Array, X: Array) -> list[Array]:
        """Return what enters every layer, X first, and last the class scores (n, classes)."""
        values = [X]
        for number, (W, b) in enumerate(self.layers(theta), start=2):
            z = values[-1] @ W + b  # (n, outputs)
            values.append(z if number == len(self.sizes) else np.where(z.real > 0, z, 0))
        return values

    def loss(self, theta: Array, X: Array, y: Array) -> complex:
        """Return the mean cross-entropy of the labels y (n,); complex only for complex theta.

        >>> X, y = digits()
        >>> round(SOFTMAX.loss(np.zeros(650), X, y), 6)  # ln 10: every class is as likely
        2.302585
        """
        z, _ = _shifted(self.forward(theta, X)[-1])
        mean = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])
        return complex(mean) if np.iscomplexobj(mean) else float(mean)

    def gradient(self, theta: Array, X: Array, y: Array) -> Array:
        """Return the derivative of the loss, (d,), by backpropagation."""
        *inputs, scores = self.forward(theta, X)
        _, weight = _shifted(scores)
        delta = weight / weight.sum(axis=1, keepdims=True)  # (n, classes) softmax
        delta[np.arange(len(y)), y] -= 1
        delta = delta / len(y)
        parts: list[Array] = []
        for (W, _), a in zip(reversed(self.layers(theta)), reversed(inputs), strict=True):
            parts += [delta.sum(axis=0), (a.T @ delta).ravel()]
            delta = np.where(a.real > 0, delta @ W.T, 0)  # through the ReLU that made a
        return np.concatenate(parts[::-1])

    def accuracy(self, theta: Array, X: Array, y: Array) -> float:
        """Return the share of images whose highest score is the label's."""
        return float(np.mean(self.forward(theta, X)[-1].argmax(axis=1) == y))


def _shifted(scores: Array) -> tuple[Array, Array]:
    """Return scores less their largest real part, and their exponentials: neither overflows."""
    z = scores - scores.real.max(axis=1, keepdims=True)
    return z, np.exp(z)


SOFTMAX = Network((64, 10))  # d = 650
MLP = Network((64, 256, 10))  # d = 19,210


@lru_cache(maxsize=8)
def recorded_gradients(model: Network, steps: int, batch: int = 32, seed: int = 0, lr: float = 0.5) -> Array:
    """Return the minibatch gradients of a run of SGD on the training images, rounded to float32.

    Args:
        model: `SOFTMAX` or `MLP`, or any network of 64 inputs and 10 classes.
        steps: number of gradients, at least 1.
        batch: images per gradient, 1..1078.
        seed: of the starting point and the batches.
        lr: learning rate, positive.

    Returns:
        Gradients (steps, d), float64 holding float32 values, read-only (the array is shared between callers).

    Raises:
        TypeError, ValueError: an argument is out of range.

    Cost: 6 steps batch d flops; 8 steps d bytes.

    >>> recorded_gradients(SOFTMAX, 3).shape
    (3, 650)
    """
    steps, batch = check.integer("steps", steps, 1), check.integer("batch", batch, 1, len(split().train))
    seed, lr = check.integer("seed", seed, 0), check.positive("lr", lr)
    X, y = digits()
    rng = np.random.default_rng(seed)
    theta = model.start(rng)
    gradients = np.empty((steps, model.d))
    for t in range(steps):
        chosen = rng.choice(split().train, batch, replace=False)
        g = model.gradient(theta, X[chosen], y[chosen])
        gradients[t] = g.astype(np.float32)
        theta = theta - lr * g
    gradients.setflags(write=False)
    return gradients
