"""Random data: several distributions and scales. What a naive tolerance gets wrong, and a true bound does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import Arguments, Make, Recipe, Rng, Source, scaled

LARGE, SMALL = 1e12, 1e-12
SOURCES: tuple[tuple[str, Source, str], ...] = (
    ("normal", build.normal, "any wrong formula: the result is far off"),
    ("scale 1e-12", scaled(build.normal, SMALL), "absolute tolerances and added epsilons: wrong looks equal to zero"),
    ("scale 1e12", scaled(build.normal, LARGE), "overflow of an intermediate, absolute constants lost beside the data"),
    ("cancelling", build.cancelling, "a relative tolerance: correct sums differ in every digit"),
    ("heavy tails", build.heavy, "one entry dominates: losses among the small ones show elsewhere"),
    ("wide range", build.wide, "dropped or doubled small entries hide beside large ones"),
    ("uniform", build.uniform, "wrong order or sign of terms of one size"),
)


# The product of four factors must fit float32: factors of 1e6 and 1e-6 make matrices of 1e12 and 1e-12.
FACTORS = {"scale 1e-12": scaled(build.normal, 1e-6), "scale 1e12": scaled(build.normal, 1e6)}


def source_for(operation: str, label: str, source: Source) -> Source:
    """Return the sampler, or for the four factors of a low-rank product the one whose matrices have that scale."""
    return FACTORS.get(label, source) if operation == "low_rank_inner_product" else source


def conditioned(operation: str) -> Callable[[Rng], Arguments]:
    """Return a maker of M-FAC problems: condition log-uniform in 1..1e9, damping log-uniform in 1e-7..1e3."""

    def make(rng: Rng) -> Arguments:
        arguments = build.BUILDERS[operation](rng, build.normal, lam=build.log_uniform(rng, 1e-7, 1e3))
        name = "G" if "G" in arguments else "values"
        G = arguments[name]
        if name == "values":
            G = build.dense(arguments["indices"], G, arguments["d"])
        largest = max(float(np.linalg.norm(G @ G.T, 2)), 1e-300)
        wanted = build.log_uniform(rng, 1, 1e9) * len(G) * arguments["lam"]
        return {**arguments, name: build.f32(arguments[name] * np.sqrt(wanted / largest))}

    return make


def opposed(operation: str) -> Callable[[Rng], Arguments]:
    """Return a maker of vectors whose sum with the error nearly cancels."""
    error = {"error_feedback": "xi", "adagrad_step": "xi", "sign_step": "e"}[operation]

    def make(rng: Rng) -> Arguments:
        arguments = build.BUILDERS[operation](rng, build.normal)
        near = -arguments["g"] * arguments.get("gamma", 1) * (1 + 1e-5 * rng.standard_normal(len(arguments["g"])))
        return {**arguments, error: build.f32(near)}

    return make


# GGT's 1 / (eps sigma (sigma + eps)) must fit float32 too, so eps cannot follow the data all the way.
GGT_EPS = {"scale 1e-12": (1e-10, 1e-9), "scale 1e12": (1e9, 1e11)}


def maker(operation: str, label: str, source: Source) -> Make:
    """Return the operation's builder with a sampler; for GGT at an extreme scale with an eps that float32 bears."""
    build_ = partial(build.BUILDERS[operation], source=source_for(operation, label, source))
    if "ggt" in operation and label in GGT_EPS:
        return lambda rng: build_(rng, eps=build.log_uniform(rng, *GGT_EPS[label]))
    return build_


def recipes(operation: str) -> tuple[Recipe, ...]:
    """Return the generic recipes of an operation, the most telling first."""
    rows = [
        Recipe("generic", label, why, maker(operation, label, source))
        for label, source, why in SOURCES
        if not (label == "cancelling" and operation in ("error_feedback", "adagrad_step", "sign_step"))
    ]
    if operation in ("error_feedback", "adagrad_step", "sign_step"):
        why = "the sum of error and gradient nearly cancels: selection by rounded or by unrounded sums"
        rows.insert(1, Recipe("generic", "cancelling", why, opposed(operation)))
    if operation in ("wsm", "mfac_direction", "sparse_mfac_direction"):
        why = "lam for m lam, a stale S, an unstable inverse: visible at one condition and not at another"
        rows[1:1] = [Recipe("generic", "condition 1..1e9", why, conditioned(operation)) for _ in range(2)]
    return tuple(rows)


FAMILY: dict[str, tuple[Recipe, ...]] = {operation: recipes(operation) for operation in OPERATIONS}
