"""Mistakes in the elementwise steps: Algorithm 7 and the slides' Algorithm 1."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle.mutants.core import Mutant, largest, mistake, only

_known: list[Mutant] = []
_adagrad = partial(mistake, "adagrad_step", known=_known)
_sign = partial(mistake, "sign_step", known=_known)


def _over(c: Any, root: Any) -> Any:
    return np.divide(c, root, out=np.zeros_like(c), where=root > 0)


def _compressed(xi: Any, g: Any, k: int) -> Any:
    a = xi + g
    return a, only(a, largest(np.abs(a), k))


@_adagrad("7:9", text="square root forgotten: diag(G)^-1 (Algorithm 7, line 9)", stages="theta")
def root_forgotten(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Divide by G."""
    a, c = _compressed(xi, g, k)
    G = G + c * c
    return theta - eta * _over(c, G), a - c, G


@_adagrad("7:8", text="c^2 of the wrong vector: g^2 is added to G (Algorithm 7, line 8)", stages="G")
def squares_of_g(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Accumulate the squares of the uncompressed gradient."""
    a, c = _compressed(xi, g, k)
    G = G + g * g
    return theta - eta * _over(c, np.sqrt(G)), a - c, G


@_adagrad("7:8", text="c^2 of the wrong vector: a^2 is added to G (Algorithm 7, line 8)", stages="G")
def squares_of_a(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Accumulate the squares of the accumulator."""
    a, c = _compressed(xi, g, k)
    G = G + a * a
    return theta - eta * _over(c, np.sqrt(G)), a - c, G


@_adagrad("7:9", text="eps inside the root: (G + 1e-2)^-1/2 (Algorithm 7, line 9, R29)", stages="theta")
def eps_inside_root(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Damp inside the root."""
    a, c = _compressed(xi, g, k)
    G = G + c * c
    return theta - eta * c / np.sqrt(G + 1e-2), a - c, G


@_adagrad("7:9", text="the G of the step before divides (Algorithm 7, lines 8 and 9)", stages="theta")
def old_G(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Precondition before G is updated."""
    a, c = _compressed(xi, g, k)
    return theta - eta * _over(c, np.sqrt(G)), a - c, G + c * c


@_adagrad("7:9", text="0/0 where G is zero (Algorithm 7, line 9 as printed, R29)", stages="theta")
def zero_over_zero(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Divide everywhere."""
    a, c = _compressed(xi, g, k)
    G = G + c * c
    with np.errstate(all="ignore"):
        return theta - eta * c / np.sqrt(G), a - c, G


@_adagrad("7:9", text="the wrong sign: theta goes uphill (Algorithm 7, line 9)", stages="theta")
def uphill(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Add the step."""
    a, c = _compressed(xi, g, k)
    G = G + c * c
    return theta + eta * _over(c, np.sqrt(G)), a - c, G


@_adagrad("7:7", text="no error feedback (Algorithm 7, lines 5 and 7)", stages="xi G")
def adagrad_no_feedback(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Ignore the error and return none."""
    c = only(g, largest(np.abs(g), k))
    G = G + c * c
    return theta - eta * _over(c, np.sqrt(G)), np.zeros_like(xi), G


@_adagrad("7:5", text="learning rate inside the feedback: a = xi + eta g (Algorithm 7, line 5)", stages="xi G theta")
def rate_inside_feedback(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Scale the gradient before it is fed back."""
    a, c = _compressed(xi, eta * g, k)
    G = G + c * c
    return theta - _over(c, np.sqrt(G)), a - c, G


@_adagrad("7:6", text="signed Top-k: a in place of |a| (Algorithm 7, line 6)", stages="xi")
def adagrad_signed(theta: Any, xi: Any, G: Any, g: Any, k: int, eta: float) -> Any:
    """Keep the largest signed entries."""
    a = xi + g
    c = only(a, largest(a, k))
    G = G + c * c
    return theta - eta * _over(c, np.sqrt(G)), a - c, G


def _stepped(x: Any, p: Any, scale: Any) -> Any:
    delta = scale * np.sign(p)
    return x - delta, p - delta


@_sign("S1:5", text="scale L2/sqrt(d) for L1/d (slides, Algorithm 1, line 5)", stages="x e")
def root_mean_square(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Scale by the root mean square."""
    p = gamma * g + e
    return _stepped(x, p, np.sqrt(np.mean(p * p)))


@_sign("S1:5", text="no scale: the bare sign (slides, Algorithm 1, line 5)", stages="x e")
def unscaled(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Move by the sign."""
    return _stepped(x, gamma * g + e, 1.0)


@_sign("S1:5", text="L1 is not divided by d (slides, Algorithm 1, line 5)", stages="x e")
def sum_for_mean(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Scale by the sum of magnitudes."""
    p = gamma * g + e
    return _stepped(x, p, np.abs(p).sum())


@_sign("S1:4", text="learning rate outside the feedback: p = g + e (slides, Algorithm 1, line 4, R10)", stages="x e")
def rate_outside_feedback(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Feed back g in place of gamma g."""
    p = g + e
    delta = np.mean(np.abs(p)) * np.sign(p)
    return x - gamma * delta, p - delta


@_sign("S1:4", text="no error feedback: e is not added (slides, Algorithm 1, line 4)", stages="x e")
def sign_no_feedback(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Compress gamma g alone."""
    p = gamma * g
    return _stepped(x, p, np.mean(np.abs(p)))


@_sign("S1:7", text="e is not cleared: p returned (slides, Algorithm 1, line 7)", stages="e")
def e_not_cleared(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Return p for the error."""
    p = gamma * g + e
    return x - np.mean(np.abs(p)) * np.sign(p), p


@_sign("S1:5", text="the scale is that of gamma g, not of p (slides, Algorithm 1, line 5)", stages="x e")
def scale_of_g(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Scale by the gradient's magnitude."""
    return _stepped(x, gamma * g + e, np.mean(np.abs(gamma * g)))


@_sign("S1:5", text="sign(0) = 1 for 0 (slides, Algorithm 1, line 5, R34)", stages="x e")
def sign_of_zero(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Let zeros move."""
    p = gamma * g + e
    delta = np.mean(np.abs(p)) * np.where(p >= 0, 1.0, -1.0)
    return x - delta, p - delta


@_sign("S1:6", text="the wrong sign: x goes uphill (slides, Algorithm 1, line 6)", stages="x")
def sign_uphill(x: Any, e: Any, g: Any, gamma: float) -> Any:
    """Add Delta."""
    p = gamma * g + e
    delta = np.mean(np.abs(p)) * np.sign(p)
    return x + delta, p - delta


MUTANTS = tuple(_known)
