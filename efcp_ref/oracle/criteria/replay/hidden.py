"""Judges a run of which only u is visible: what is hidden is followed, with a radius for what rounding may have done.

Where a Top-k decision lies within these radii the run stops undecided; where u shows the decision nothing stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import fsum
from typing import Any, NamedTuple

import numpy as np

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, UNITS, Check
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.elementwise import RELEASED_EPS, tensors
from efcp_ref.oracle.criteria.replay.directions import Window, direction, ggt
from efcp_ref.oracle.criteria.replay.run import Run, cut, starts
from efcp_ref.oracle.exact import two_prod, two_sum
from efcp_ref.paper._validate import Array

STOP = "top-k decision within rounding"
UNSEEN = "power iteration within rounding"
Steps = Iterator[list[Check]]


@dataclass(frozen=True)
class Followed:
    """A vector that the target hides, as exact arithmetic has it, with a radius per entry."""

    value: Array  # (d,)
    radius: Array  # (d,)
    rounding: Any = 0.0  # (d,) what storing it once more may change: left in xi where it is sent (R14)


def _nothing(run: Run) -> Followed:
    return Followed(np.zeros(run.d), np.zeros(run.d))


def _sum(run: Run, xi: Followed, g: Array) -> Followed:
    """a = xi + g: the radius grows by ``u |a|``, unless the sum is exact."""
    a = two_sum(xi.value, g)
    exact = not xi.radius.any() and not a.lo.any() and np.array_equal(t0.wide(t0.rounding(a.hi, run.unit.name)), a.hi)
    room = np.zeros(run.d) if exact else (run.unit.u + 2.0**-53) * np.abs(a.hi)
    return Followed(a.hi, xi.radius + room, room)


# ------------------------------------------------------------------ windows


class Inside(NamedTuple):
    """What one step hides: the vector c, the window with c in it, and the radii of the window."""

    c: Followed
    G: Array  # (m, d)
    R: Array  # (m, d)


def _select(run: Run, a: Followed) -> Array | None:
    """Return which entries Top-k keeps, (d,) of bool; None where a decision lies within the radii.

    Decided: ``min over kept of |a| - r > max over dropped of |a| + r`` in every block, or nothing but zeros is dropped.
    """
    on = np.zeros(run.d, dtype=bool)
    size = np.abs(a.value)
    for (start, end), count in zip(*run.layout(), strict=True):
        order = start + np.argsort(-size[start:end], kind="stable")
        inside, outside = order[:count], order[count:]
        least = np.min(size[inside] - a.radius[inside], initial=np.inf)
        most = np.max(size[outside] + a.radius[outside], initial=0.0)
        if most > 0 and least <= most:
            return None
        on[inside] = True
    return on


def _compressed(run: Run) -> Iterator[Inside | None]:
    """Follow xi and the window of a sparse optimizer; None where a decision is not seen."""
    m, xi = int(run.p["m"]), _nothing(run)
    G, R = np.zeros((m, run.d)), np.zeros((m, run.d))
    coarse = 2.0**-8 if run.declared.arithmetic.get("storage") == "bfloat16" else 0.0
    for t, g in enumerate(run.gradients):
        a = _sum(run, xi, g)
        on = _select(run, a)
        if on is None:
            yield None
            return
        stored = a.rounding + coarse * np.abs(a.value)
        c = Followed(np.where(on, a.value, 0.0), np.where(on, a.radius + stored, 0.0))
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, stored, a.radius))
        G, R = G.copy(), R.copy()
        G[t % m], R[t % m] = c.value, c.radius
        yield Inside(c, G, R)


def _stopped() -> list[Check]:
    return [t0.undecided("trajectory", "T2", "1:6", "every Top-k decision lies outside the radii", STOP)]


def sparse_mfac(run: Run) -> Steps:
    """Follow the window, then judge u with its radii."""
    K = sum(run.layout()[1])
    for t, seen in enumerate(_compressed(run)):
        if seen is None:
            yield _stopped()
            return
        c, G, R = seen
        yield [direction(run, t, Window(G, np.abs(G), c.value, np.abs(c.value), K, 0, R, c.radius), None, None)]


def sparse_ggt(run: Run) -> Steps:
    """Follow the window, then judge u with its radii."""
    for t, seen in enumerate(_compressed(run)):
        if seen is None:
            yield _stopped()
            return
        c, G, R = seen
        yield [ggt(run, t, G, int(run.p["k"]), c.value, None, R, c.radius)]


def dense(run: Run) -> Steps:
    """Nothing is compressed: the window is known exactly, only u carries rounding."""
    m = int(run.p["m"])
    G = np.zeros((m, run.d))
    for t, g in enumerate(run.gradients):
        old, G = G, G.copy()
        G[t % m] = g
        if "lam" in run.p:
            yield [direction(run, t, Window(G, np.abs(G), g, np.abs(g), run.d), None, old)]
        else:
            yield [ggt(run, t, G, run.d, g, old)]


# ------------------------------------------------------------------ u shows what was sent


def topk_sgd(run: Run) -> Steps:
    """u = c shows the selection, so nothing stops the run: xi' = a - u."""
    xi, k = _nothing(run), int(run.p["k"])
    for t, g in enumerate(run.gradients):
        a = _sum(run, xi, g)
        u = t0.wide(run.u[t])
        on = u != 0
        rule = "|u - a| <= r where sent, k entries, none smaller than one that is kept back"
        value = t0.forward("u", "1:5", rule, u, np.where(on, a.value, 0.0), np.where(on, a.radius + a.rounding, 0.0))
        yield [value, _visible(a, on, k, "1:6", _gone(run))]
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, a.rounding, a.radius))


def _gone(run: Run) -> float:
    """Half of the storage's smallest number: what is no larger is stored, and sent, as zero."""
    storage = UNITS.get(str(run.declared.arithmetic.get("storage")), run.unit)
    return max(storage.tiny, run.unit.tiny) / 2


def _visible(a: Followed, on: Array, k: int, line: str, gone: float = 0.0) -> Check:
    """Entries sent, ``on``, are at most k, and none is surely smaller than one kept back.

    Where fewer are sent, those up to ``gone`` may be the others: they were sent as zero and stay whole in xi.
    """
    rule = "smallest sent |a| + r >= largest kept back |a| - r"
    if on.sum() > k:
        return t0.failed("selection", "T2", line, rule, f"{int(on.sum())} entries are sent, at most {k}")
    least = np.min(np.abs(a.value[on]) + a.radius[on], initial=np.inf) if on.sum() == k else gone
    most = np.max(np.abs(a.value[~on]) - a.radius[~on], initial=0.0)
    if k and most > least:
        return t0.failed("selection", "T2", line, rule, f"|a| = {most:g} is kept back, {least:g} is sent")
    return t0.passed("selection", "T2", line, rule)


def adagrad(run: Run) -> Steps:
    """u = c / sqrt(G) shows the selection: xi and G are followed with their radii."""
    k, xi, G = int(run.p["k"]), _nothing(run), _nothing(run)
    for t, g in enumerate(run.gradients):
        a, on = _sum(run, xi, g), t0.wide(run.u[t]) != 0
        c = np.where(on, a.value, 0.0)
        G = _squared(run, G, a, c, on)
        if bool(np.any(on & (G.value - G.radius < run.unit.normal))):
            yield [t0.undecided("u", "T2", "7:9", "|u - c / sqrt(G)|", "underflow")]
            return
        yield [_divided(run, t, a, G, c, on), _visible(a, on, k, "7:6")]
        xi = Followed(np.where(on, 0.0, a.value), np.where(on, a.rounding, a.radius))


def _squared(run: Run, G: Followed, a: Followed, c: Array, on: Array) -> Followed:
    """G + c^2, its radius growing by ``2 |c| r + r^2 + 3u (G + c^2)``."""
    square = G.value + c * c
    more = 2 * np.abs(c) * a.radius + a.radius**2 + 3 * run.unit.u * square + run.unit.tiny
    return Followed(square, np.where(on, G.radius + more, G.radius))


def _divided(run: Run, t: int, a: Followed, G: Followed, c: Array, on: Array) -> Check:
    """``|u - c / sqrt(G)| <= 6u |u| + r / sqrt(G) + 0.6 |u| r_G / G``; R29: with the eps that is declared."""
    said = run.declared.readings.get("R29")
    eps = 0.0 if said in (None, "0", "unmoved") else float(said)
    check = _quotient(run, t, a, G, c, on, eps)
    if check.verdict == FAIL and said is None and _quotient(run, t, a, G, c, on, RELEASED_EPS).verdict != FAIL:
        return replace(check, verdict=INCONCLUSIVE, reason="reading R29: declare READINGS = {'R29': '1e-10'}")
    return check


def _quotient(run: Run, t: int, a: Followed, G: Followed, c: Array, on: Array, eps: float) -> Check:
    """As `_divided`, for one eps added to the root: one more rounding; what is wrong with c and G only shrinks."""
    root = np.sqrt(np.where(on, G.value, 1.0))
    expected = np.where(on, c / (root + eps), 0.0)
    ulps = 7 if eps else 6
    room = np.where(on, a.radius / root + np.abs(expected) * (0.6 * G.radius / (root * root) + ulps * run.unit.u), 0.0)
    return t0.forward("u", "7:9", f"|u - c / sqrt(G)| <= {ulps}u |u| + radii", run.u[t], expected, room)


def signed(run: Run) -> Steps:
    """u = Delta is visible: e' = p - u is followed with its radius; the sign of p is free within it."""
    u1, gamma, e = run.unit.u + 2.0**-53, run.number("gamma"), _nothing(run)
    sizes = tensors(run.d, run.declared)
    for t, g in enumerate(run.gradients):
        u, step = t0.wide(run.u[t]), two_prod(g, gamma)
        p = step.hi + e.value
        radius = e.radius + 2 * u1 * (np.abs(step.hi) + np.abs(e.value)) + run.unit.tiny * (g != 0)
        yield [_scaled(run, u, p, radius, sizes)]
        e = Followed(p - u, radius + u1 * np.abs(p - u))


def _scaled(run: Run, u: Array, p: Array, radius: Array, sizes: list[int]) -> Check:
    """``|Delta - s sign p| <= (d + 4) u s + radii``, s the mean of |p| over the tensor (R34)."""
    parts = np.split(np.arange(run.d), np.cumsum(sizes)[:-1])
    s, shaken, count = (
        np.repeat([f(part) for part in parts], sizes)
        for f in (lambda i: fsum(np.abs(p[i])) / len(i), lambda i: radius[i].mean(), len)
    )
    room: Any = (count + 4) * (run.unit.u + 2.0**-53) * s + shaken + run.unit.tiny
    gap = np.abs(u - s * np.sign(p))
    free = (np.abs(p) <= radius) & (radius > 0)
    gap = np.where(free, np.minimum(gap, np.minimum(np.abs(u), np.abs(np.abs(u) - s))), gap)
    room = np.where((p == 0) & ~free, 0.0, room)
    return t0.forward("u", "S1:5", "|Delta - s sign p| <= (d + 4) u s + radii", gap, np.zeros(run.d), room)


# ------------------------------------------------------------------ low rank


@dataclass
class Layer:
    """What is followed of one tensor: Q, and in norm what may be wrong with Q and xi."""

    Q: Array
    dQ: float = 0.0
    dxi: float = 0.0

    def compress(self, M: Array, u: float) -> tuple[Array, float] | None:
        """Return P P^T M and its radius in norm, moving on to the next step; None beyond 1 %.

        With d(MQ) the error of M Q, ``||d(P P^T)|| <= 2 ||d(MQ)|| / sigma_min(MQ)``; Q is free up to the rotation of P.
        """
        size, rho, MQ = float(np.linalg.norm(M)), self.Q.shape[1], M @ self.Q
        dM, q = self.dxi + u * size, float(np.linalg.norm(self.Q))
        least = float(np.linalg.svd(MQ, compute_uv=False)[-1])
        error = dM * q + size * self.dQ + (M.shape[1] + 8 * len(M) * rho) * u * size * q
        if not error < least / 200:
            return None
        P, turn = np.linalg.qr(MQ)[0], 2 * error / least
        self.Q, self.dQ = M.T @ P, dM + size * turn + len(M) * u * size * np.sqrt(rho)
        radius = dM + size * turn + (rho + len(M)) * u * size * np.sqrt(rho) * 2
        self.dxi = dM + radius + u * size
        return P @ self.Q.T, radius


def low_rank_mfac(run: Run) -> Steps:
    """P P^T is followed in norm, its radius growing by the condition of M Q; beyond 1 % the run stops."""
    m, xi = int(run.p["m"]), np.zeros(run.d)
    followed = [Layer(Q) for Q in starts(run, {"t": 0})]
    G, R = np.zeros((m, run.d)), np.zeros((m, run.d))
    for t, g in enumerate(run.gradients):
        new = _projected(run, followed, xi + g)
        if new is None:
            yield [t0.undecided("trajectory", "T2", "5:4", "||d(MQ)|| < sigma_min(MQ) / 200", UNSEEN)]
            return
        c, r = new
        xi = xi + g - c
        G, R = G.copy(), R.copy()
        G[t % m], R[t % m] = c, r
        yield [direction(run, t, Window(G, np.abs(G), c, np.abs(c), run.d, 0, R, r), None, None, line="6:14")]


def _projected(run: Run, followed: list[Layer], a: Array) -> tuple[Array, Array] | None:
    """Return c and its radii, (d,) each; None where the projection is not known to 1 %."""
    u, rows, radii = run.unit.u + 2.0**-53, [], []
    for layer, M, shape in zip(followed, cut(run, a), run.p["shapes"], strict=True):
        new = (M, layer.dxi + u * float(np.linalg.norm(M))) if len(shape) == 1 else layer.compress(M, u)
        if new is None:
            return None
        rows.append(new[0].ravel())
        radii.append(np.full(M.size, new[1]))
    return np.concatenate(rows), np.concatenate(radii)
