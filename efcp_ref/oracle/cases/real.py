"""Gradients recorded while a model trains on the digits: exact zeros, correlated rows, six orders of magnitude."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from efcp_ref.data import MLP, SOFTMAX, Network, recorded_gradients
from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import Arguments, Make, Recipe, Rng

STEPS = {SOFTMAX: 48, MLP: 12}
LAYOUTS: dict[Network, build.Layout] = {SOFTMAX: (650, 128, 0.05), MLP: (19_210, 4096, 0.01)}
NAMES = {SOFTMAX: "softmax regression", MLP: "MLP"}
WHY = "what training really gives: dead pixels, near-parallel gradients, magnitudes over many decades"


def run(model: Network, rng: Rng, rows: int) -> np.ndarray:
    """Return consecutive recorded gradients (rows, d), from a random step on."""
    start = build.pick(rng, 0, STEPS[model] - rows)
    return recorded_gradients(model, STEPS[model])[start : start + rows].copy()


def _sparse(model: Network, rng: Rng, m: int) -> tuple[Arguments, np.ndarray]:
    rows = run(model, rng, m + 1)
    indices, values = build.compressed(rows[:m], LAYOUTS[model])
    return {"indices": indices, "values": values}, rows[m]


def _top_k(model: Network, rng: Rng) -> Arguments:
    return {"a": run(model, rng, 1)[0], "k": model.d // 100}


def _block_top_k(model: Network, rng: Rng) -> Arguments:
    return {"a": run(model, rng, 1)[0], **build.tail(LAYOUTS[model])}


def _error_feedback(model: Network, rng: Rng) -> Arguments:
    first, g = run(model, rng, 2)
    indices, _ = build.compressed(first[None], LAYOUTS[model])
    first[indices[0]] = 0  # the error after a step from zero
    return {"xi": first, "g": g, **build.tail(LAYOUTS[model])}


def _sp(model: Network, rng: Rng) -> Arguments:
    rows, g = _sparse(model, rng, 6)
    return {**rows, "g": g, **build.tail(LAYOUTS[model])}


def _lcg(model: Network, rng: Rng) -> Arguments:
    rows, _ = _sparse(model, rng, 6)
    return {**rows, "c": build.normal(rng, 6), "d": model.d, **build.tail(LAYOUTS[model])}


def _mfac(model: Network, rng: Rng) -> Arguments:
    G = run(model, rng, 5)
    return {"G": G, "lam": build.scalar(1e-3), "x": G[-1].copy()}


def _sparse_mfac(model: Network, rng: Rng) -> Arguments:
    rows, g = _sparse(model, rng, 6)
    return {**rows, "d": model.d, "lam": build.scalar(1e-3), "x": g, **build.tail(LAYOUTS[model])}


def _ggt(model: Network, rng: Rng) -> Arguments:
    G = run(model, rng, 5)
    return {"G": G, "x": G[-1].copy(), "eps": build.scalar(1e-2), "cutoff": build.CUTOFF}


def _sparse_ggt(model: Network, rng: Rng) -> Arguments:
    rows, g = _sparse(model, rng, 5)
    shared = {"eps": build.scalar(1e-2), "cutoff": build.CUTOFF, **build.tail(LAYOUTS[model])}
    return {**rows, "d": model.d, "x": g, **shared}


def _power(model: Network, rng: Rng) -> Arguments:
    p1, p2 = model.shapes[0]
    g = run(model, rng, 1)[0][: p1 * p2].reshape(p1, p2)
    return {"g": g, "Q": build.normal(rng, (p2, 4))}


def _low_rank(model: Network, rng: Rng) -> Arguments:
    p1, p2 = model.shapes[0]
    factors: Arguments = {}
    for number, flat in enumerate(run(model, rng, 2), start=1):
        M = flat[: p1 * p2].reshape(p1, p2)
        P = build.f32(M @ rng.standard_normal((p2, 4)))  # a power iteration without the orthogonalisation
        factors |= {f"P{number}": P, f"Q{number}": build.f32(M.T @ P)}
    return factors


def _adagrad(model: Network, rng: Rng) -> Arguments:
    rows = run(model, rng, 6)
    G, theta = build.f32((rows[:4] ** 2).sum(axis=0)), build.f32(0.1 * rng.standard_normal(model.d))
    return {"theta": theta, "xi": rows[4], "G": G, "g": rows[5], "k": model.d // 20, "eta": build.scalar(0.1)}


def _sign(model: Network, rng: Rng) -> Arguments:
    e, g = run(model, rng, 2)
    x = build.f32(0.1 * rng.standard_normal(model.d))
    return {"x": x, "e": build.f32(0.1 * e), "g": g, "gamma": build.scalar(0.1)}


def _scaled(model: Network, rng: Rng) -> Arguments:
    rows = run(model, rng, 9)
    active = np.argsort(-np.abs(rows).sum(axis=0), kind="stable")[:12]
    A = rows[:8, active]
    H = build.f32(A.T @ A / 8 + 1e-2 * np.eye(12))
    return {"v": rows[8, active].copy(), "H": np.maximum(H, H.T), "k": 3}


BOTH, SMALL = (SOFTMAX, MLP), (SOFTMAX,)
MAKERS: dict[str, tuple[Callable[[Network, Rng], Arguments], tuple[Network, ...]]] = {
    "top_k": (_top_k, BOTH), "block_top_k": (_block_top_k, BOTH), "error_feedback": (_error_feedback, BOTH),
    "sp": (_sp, BOTH), "lcg": (_lcg, BOTH), "wsm": (_mfac, SMALL), "mfac_direction": (_mfac, SMALL),
    "sparse_mfac_direction": (_sparse_mfac, BOTH), "ggt_direction": (_ggt, SMALL),
    "sparse_ggt_direction": (_sparse_ggt, SMALL), "power_compress": (_power, BOTH),
    "low_rank_inner_product": (_low_rank, SMALL), "adagrad_step": (_adagrad, BOTH), "sign_step": (_sign, BOTH),
    "scaled_top_k": (_scaled, SMALL),
}  # fmt: skip


def bound(make: Callable[[Network, Rng], Arguments], model: Network) -> Make:
    """Return the maker for one model."""
    return lambda rng: make(model, rng)


FAMILY: dict[str, tuple[Recipe, ...]] = {
    operation: tuple(
        Recipe("real", f"{NAMES[model]} on the digits", WHY, bound(make, model),
               frozenset({"large"}) if model is MLP else frozenset())
        for model in models
    )
    for operation, (make, models) in MAKERS.items()
}  # fmt: skip
