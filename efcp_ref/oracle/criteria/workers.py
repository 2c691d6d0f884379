"""Judges several workers at once: what they return together against the reference on the mean of their gradients.

Top-k with error feedback has two conventions. *Averaged*: the gradients are averaged, then one error is kept, the same
on every worker; this is Algorithm 1 on the mean gradient. *Local*: every worker runs Algorithm 1 on its own gradient
and keeps its own error; what is sent is averaged. Both lose nothing: the mean of the errors plus all that was applied
is the sum of the mean gradients. They differ in u, because the mean of Top-k is not Top-k of the mean.

PowerCompress is linear in the gradient once P is known, so averaging P and Q gives the factors of the mean gradient,
and the mean of local errors is the error of the mean: u cannot tell the conventions apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from efcp_ref.oracle import enclose
from efcp_ref.oracle.core import FAIL, PASS, Case, Check, Declared, unit_of
from efcp_ref.oracle.criteria import low_rank
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.paper import optimizers as paper
from efcp_ref.paper._validate import Array
from efcp_ref.paper.compressors import keep_largest

AVERAGED, LOCAL, EITHER = "averaged residual", "local residual", "either residual"
U_RULE = "u is that of Algorithm 1 on the mean gradient, or the mean of the workers' own: every sum is exact"
XI_RULE = "xi is the error of the convention that u shows"
SAME_RULE = "every worker applies the same u"


@dataclass(frozen=True)
class Together:
    """What a convention gives: the direction of every step, and the error of every worker after it."""

    u: Array  # (T, d)
    xi: Array  # (W, T, d)


def reference(gradients: Array, k: int) -> tuple[Array, Array]:
    """Return u (T, d) and xi (T, d) of Algorithm 1 with Top-k on one worker's gradients (T, d)."""
    it = paper.topk_sgd(gradients.shape[1], k)
    steps = [(it.step(g), it.state()["xi"]) for g in gradients]
    return np.array([u for u, _ in steps]), np.array([xi for _, xi in steps])


def conventions(gradients: Array, k: int) -> dict[str, Together]:
    """Return what each convention gives on gradients (W, T, d).

    >>> both = conventions(np.array([[[4.0, 3.0]], [[0.0, 3.0]]]), 1)
    >>> both[AVERAGED].u.tolist(), both[LOCAL].u.tolist()  # Top-1 of (2, 3); the mean of (4, 0) and (0, 3)
    ([[0.0, 3.0]], [[2.0, 1.5]])
    """
    u, xi = reference(gradients.mean(axis=0), k)
    own = [reference(g, k) for g in gradients]
    return {
        AVERAGED: Together(u, np.broadcast_to(xi, gradients.shape)),
        LOCAL: Together(np.mean([u for u, _ in own], axis=0), np.array([xi for _, xi in own])),
    }


def mistakes(gradients: Array, k: int) -> dict[str, Array]:
    """Return the directions (T, d) of known mistakes, by what they are called."""
    W, both = len(gradients), conventions(gradients, k)
    mean, own = gradients.mean(axis=0), both[LOCAL].u

    def kept(rows: Array) -> Array:
        return np.array([keep_largest(row, k) for row in rows])

    return {
        f"the sum is not divided by {W} workers ({AVERAGED})": W * both[AVERAGED].u,
        f"the sum is not divided by {W} workers ({LOCAL})": W * own,
        "the error is lost: Top-k of every mean gradient": kept(mean),
        "the error is lost: the mean of every worker's Top-k": np.mean([kept(g) for g in gradients], axis=0),
        "nothing is compressed: u is the mean gradient": mean,
        "only the gradients of worker 0 count": reference(gradients[0], k)[0],
    }


# --- Top-k --------------------------------------------------------------------------------------------------------


def topk_sgd(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge ``u == u of Algorithm 1 on mean_w g_w``, or ``u == mean_w (u of Algorithm 1 on g_w)``, bit for bit.

    The gradients are integers times a power of two without ties at the cut, so every correct order of summation gives
    the same bits. Where every worker shows ``xi``, it must be the error of the same convention.
    """
    gradients, k = t0.wide(case.arguments["gradients"]), int(case.arguments["k"])  # (W, T, d)
    workers: Sequence[Mapping[str, Any]] = result["workers"]
    for w, one in enumerate(workers):
        u = np.asarray(one.get("u"))
        if u.shape != gradients.shape[1:] or u.dtype.kind not in "fV" or not np.isfinite(t0.wide(u)).all():
            wrong = f"worker {w}: u has shape {u.shape} and dtype {u.dtype}, must be {gradients.shape[1:]} and finite"
            return (t0.failed("u", "T0", "1:8", "u has shape (T, d)", wrong),)
    drift = _drift("u", "1:8", [t0.wide(one["u"]) for one in workers])
    if drift.verdict == FAIL:
        return (drift,)
    both = conventions(gradients, k)
    fits = [name for name, run in both.items() if np.array_equal(t0.wide(workers[0]["u"]), run.u)]
    if not fits:
        return drift, _departs(t0.wide(workers[0]["u"]), gradients, k, both)
    check = t0.equal("u", "1:8", U_RULE, t0.wide(workers[0]["u"]), both[fits[0]].u, truth=_truth(gradients, k, fits[0]))
    return drift, _named(check, fits), *_errors(workers, both, fits, partial(_truth, gradients, k, part=1))


def _truth(gradients: Array, k: int, name: str, at: Any = (), part: int = 0) -> Callable[[], enclose.Enclosed]:
    """Encloses u (or with ``part`` 1 xi) of a convention."""
    return lambda: enclose.together(gradients, k, name == AVERAGED)[part][at]


def _named(check: Check, fits: Sequence[str]) -> Check:
    """Name the convention that was found, or that both are the same here."""
    return replace(check, reason=fits[0] if len(fits) == 1 else EITHER) if check.verdict == PASS else check


def _drift(stage: str, line: str, results: Sequence[Array]) -> Check:
    for w, one in enumerate(results):
        if not np.array_equal(one, results[0]):
            at = tuple(int(i) for i in np.argwhere(one != results[0])[0])
            wrong = f"worker {w} and worker 0 differ from step {at[0] + 1} on: the replicas drift apart"
            numbers = {"got": float(one[at]), "expected": float(results[0][at])}
            return t0.failed(stage, "T0", line, SAME_RULE, wrong, (at[0] + 1, *at[1:]), **numbers)
    return t0.passed(stage, "T0", line, SAME_RULE)


def _departs(u: Array, gradients: Array, k: int, both: Mapping[str, Together]) -> Check:
    """Where u leaves the convention that it follows longest, and the mistake that it is."""
    until = {name: int((u != run.u).any(axis=1).argmax()) for name, run in both.items()}
    name = max(until, key=lambda n: until[n])
    t = until[name]
    told = next((f"agrees with: {text}; " for text, other in mistakes(gradients, k).items()
                 if np.array_equal(u, other)), "")  # fmt: skip
    check = t0.equal("u", "1:8", U_RULE, u[t], both[name].u[t], truth=_truth(gradients, k, name, t))
    words = f"{told}step {t + 1} departs from both, here the {name}"
    return replace(check, at=(t + 1, *check.at), reason=words if check.verdict == FAIL else check.reason)


def _errors(
    workers: Sequence[Mapping[str, Any]], both: Mapping[str, Together], fits: Sequence[str], truth: Callable[..., Any]
) -> tuple[Check, ...]:
    """The errors, where every worker shows one of the right shape after every step."""
    shown = [one.get("states") for one in workers]
    if not all(s and all(np.shape(state.get("xi")) == both[fits[0]].u.shape[1:] for state in s) for s in shown):
        return ()
    xi = np.array([[t0.wide(state["xi"]) for state in s] for s in shown if s])  # (W, T, d)
    if xi.shape != both[fits[0]].xi.shape:
        return (t0.failed("state", "T0", "1:7", XI_RULE, f"{xi.shape[1]} states for {len(both[fits[0]].u)} steps"),)
    held = [name for name in fits if np.array_equal(xi, both[name].xi)]
    if held:
        return (_named(t0.equal("xi", "1:7", XI_RULE, xi, both[held[0]].xi, truth=truth(held[0])), held),)
    w, t, i = (int(n) for n in np.argwhere(xi != both[fits[0]].xi)[0])
    check = t0.equal("xi", "1:7", XI_RULE, xi[w, t], both[fits[0]].xi[w, t], truth=truth(fits[0], (w, t)))
    words = f"worker {w}, step {t + 1}: not the {fits[0]}"
    return (replace(check, at=(w, t + 1, *check.at), reason=words if check.verdict == FAIL else check.reason),)


# --- PowerSGD -----------------------------------------------------------------------------------------------------


def power_compress(case: Case, result: Mapping[str, Any], declared: Declared) -> tuple[Check, ...]:
    """Judge every worker's P and Q' by `low_rank.factors` on the mean gradient.

    In the bounds |M| becomes the mean of |M_w| and W roundings are added: the products may be summed over the workers
    before the mean is taken. Factors that differ between workers in bits, each within its bound, are a warning (T3).
    """
    g, Q = t0.wide(case.arguments["g"]), t0.wide(case.arguments["Q"])
    stack = g.reshape(len(g), g.shape[1], -1)  # (W, p1, p2s)
    M, weight = stack.mean(axis=0), np.abs(stack).mean(axis=0)
    shapes, found = {"P": (len(M), Q.shape[1]), "Q": Q.shape}, []
    for w, one in enumerate(result["workers"]):
        checks = t0.outputs(case, one, shapes)
        if not t0.broken(checks):
            checks += low_rank.finite(one, shapes, "5:6")
        if not t0.broken(checks):
            P, Q_new = np.asarray(one["P"]), np.asarray(one["Q"])
            unit = max(unit_of(P, declared), unit_of(Q_new, declared), key=lambda unit: unit.u)
            checks += low_rank.factors(M, Q, P, Q_new, unit, declared, len(g), weight)
        if t0.broken(checks):
            return tuple(_of_worker(w, c) for c in checks)
        found += checks
    same = all(np.array_equal(one[n], result["workers"][0][n]) for one in result["workers"] for n in ("P", "Q"))
    words = "" if same else "the factors differ between workers in their last bits"
    return (*found, replace(t0.passed("P", "T3", "5:6", SAME_RULE, words), verdict="pass" if same else FAIL))


def _of_worker(w: int, check: Check) -> Check:
    return replace(check, reason=f"worker {w}: {check.reason}".rstrip(": ")) if check.verdict == FAIL else check


__all__ = ["AVERAGED", "EITHER", "LOCAL", "conventions", "mistakes", "power_compress", "topk_sgd"]
