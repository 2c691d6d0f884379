"""Runs of optimizers: constructor parameters and T gradients (T, d)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.data import SOFTMAX
from efcp_ref.oracle.cases import build, real
from efcp_ref.oracle.cases.adversarial import PARTIAL, equal, far_positions, signed_zeros, some_subnormal
from efcp_ref.oracle.cases.build import Arguments, Layout, Make, Recipe, Rng, Source, integers, normal, scalar

Shapes = list[tuple[int, ...]]
SHAPES: tuple[Shapes, ...] = (
    [(4, 3), (5,), (2, 3, 2)], [(6, 4), (4,)], [(3, 2, 2), (3,), (4, 5)], [(5,)], [(2, 7)],
)  # fmt: skip
WINDOWED = ("dense_mfac", "sparse_mfac", "low_rank_mfac", "dense_ggt", "sparse_ggt")
COMPRESSED = ("topk_sgd", "sparse_mfac", "sparse_ggt", "adagrad_ef")


def size(shapes: Shapes) -> int:
    """Return the number of entries of all tensors."""
    return sum(int(np.prod(shape)) for shape in shapes)


def starts(rng: Rng, shapes: Shapes, rank: int) -> list[np.ndarray]:
    """Return a starting Q for every tensor of two or more dimensions, rank clamped to the tensor."""
    sides = [(shape[0], int(np.prod(shape[1:]))) for shape in shapes if len(shape) > 1]
    return [normal(rng, (p2, min(rank, p1, p2))) for p1, p2 in sides]


def parameters(operation: str, rng: Rng, given: Arguments) -> Arguments:
    """Return the constructor's parameters in the contract's order: those given, the others drawn."""
    shapes = given.get("shapes") or SHAPES[build.pick(rng, 0, 2)]
    d = given["layout"][0] if "layout" in given else given.get("d") or build.pick(rng, 6, 60)
    rank = given.get("rank") or build.pick(rng, 1, 2)
    layout: Layout = given.get("layout") or (d, *_blocks(rng, d))
    drawn = {
        "d": d, "k": max(1, d // build.pick(rng, 2, 8)), "m": build.pick(rng, 2, 8), "shapes": shapes, "rank": rank,
        "lam": build.log_uniform(rng, 1e-2, 10), "eps": build.log_uniform(rng, 1e-2, 1), "gamma": scalar(0.1),
        "cutoff": build.CUTOFF, "block_size": layout[1], "density": layout[2], "Q0": starts(rng, shapes, rank),
    }  # fmt: skip
    return {a.name: given.get(a.name, drawn[a.name]) for a in OPTIMIZERS[operation].parameters}


def _blocks(rng: Rng, d: int) -> tuple[int, float]:
    """Return a block size and a density whose counts are beyond doubt."""
    while True:
        block_size, density = build.pick(rng, 2, d), float(rng.choice([0.05, 0.1, 0.25, 0.5]))
        if build.agrees(d, block_size, density):
            return block_size, density


Shaper = Callable[[Rng, np.ndarray], np.ndarray]


def run(
    operation: str, source: Source = normal, T: int | None = None, shape: Shaper | None = None, **given: Any
) -> Make:
    """Return a maker of a run of T steps (default: 5 to 40) with gradients from a sampler, changed by ``shape``."""

    def make(rng: Rng) -> Arguments:
        arguments = parameters(operation, rng, given)
        d = size(arguments["shapes"]) if "shapes" in arguments else arguments["d"]
        gradients = source(rng, (T or build.pick(rng, 5, 40), d))
        return {**arguments, "gradients": gradients if shape is None else shape(rng, gradients)}

    return make


# ---- gradients ----------------------------------------------------------------------------------------------------


def first_zero(rng: Rng, g: np.ndarray) -> np.ndarray:
    """The first two gradients are zero."""
    g[:2] = 0
    return g


def some_zero(rng: Rng, g: np.ndarray) -> np.ndarray:
    """Every third gradient is zero."""
    g[1::3] = 0
    return g


def all_zero(rng: Rng, g: np.ndarray) -> np.ndarray:
    """All gradients are zero."""
    return np.zeros_like(g)


def constant(rng: Rng, g: np.ndarray) -> np.ndarray:
    """One gradient again and again."""
    return np.repeat(g[:1], len(g), axis=0)


def alternating(rng: Rng, g: np.ndarray) -> np.ndarray:
    """One gradient with alternating signs: the error keeps returning to zero."""
    return constant(rng, g) * np.where(np.arange(len(g)) % 2, -1.0, 1.0)[:, None]


def parallel(rng: Rng, g: np.ndarray) -> np.ndarray:
    """Multiples of one gradient by powers of two."""
    return constant(rng, g) * np.ldexp(1.0, rng.integers(-3, 4, len(g)))[:, None]


def dependent(rng: Rng, g: np.ndarray) -> np.ndarray:
    """Gradients a, b, a + b, a / 2, over and over: any four of them have rank two."""
    a, b = build.nonzero(8)(rng, (2, g.shape[1]))
    return np.stack([(a, b, a + b, a / 2)[t % 4] for t in range(len(g))])


def loud_then_quiet(rng: Rng, g: np.ndarray) -> np.ndarray:
    """Gradients that shrink: old rows of the window dominate."""
    return build.f32(g * 0.7 ** np.arange(len(g))[:, None])


def idle(rng: Rng, g: np.ndarray) -> np.ndarray:
    """A third of the coordinates never has a gradient."""
    g[:, rng.random(g.shape[1]) < 1 / 3] = 0
    return g


# ---- families -----------------------------------------------------------------------------------------------------


def exact(operation: str) -> list[Recipe]:
    """Return short runs of small dyadic numbers: accumulated errors, products and squares stay below 2^24."""
    why = "error feedback lost or counted twice: the sum of what was sent and the error must be the sum of gradients"
    rows: list[tuple[str, Make]] = [
        ("dyadic gradients", run(operation, integers(8), T=10, gamma=0.5, lam=1.0, eps=1.0)),
        ("dyadic gradients times 2^-5", run(operation, integers(8, -5), T=8, gamma=0.25, lam=0.5, eps=0.5)),
    ]
    if operation in WINDOWED:
        rows.append(
            ("dyadic gradients, three turns of the window", run(operation, integers(4), T=10, m=3, lam=1.0, eps=1.0))
        )
    if operation == "ef_signsgd":
        rows[0] = ("dyadic gradients", run(operation, build.nonzero(8), T=10, d=16, gamma=0.5))
    return [Recipe("exact", label, why, make, frozenset({"exact"})) for label, make in rows]


# label, scale, GGT's eps: lam is the scale squared, so that the window counts; eps sigma (sigma + eps) fits float32.
SCALES = (("scale 1e-12", 1e-12, 1e-10), ("scale 1e12", 1e12, 1e10))


def generic(operation: str) -> list[Recipe]:
    """Return random runs."""
    why = "absolute constants beside the data"
    scales = [
        (label, why, run(operation, build.scaled(normal, s), T=12, lam=scalar(s * s), eps=scalar(eps)))
        for label, s, eps in SCALES
    ]
    rows: list[tuple[str, str, Make]] = [
        ("normal", "any wrong formula", run(operation)),
        *scales,
        ("40 steps", "errors that grow with the steps", run(operation, T=40, d=12)),
        ("heavy tails", "one gradient dominates the window", run(operation, build.heavy, T=15)),
        ("wide range", "small entries wait in the error for many steps", run(operation, build.wide, T=15)),
        ("uniform", "wrong order of rows or terms", run(operation, build.uniform)),
        ("shrinking gradients", "old rows must leave the window", run(operation, normal, T=20, shape=loud_then_quiet)),
    ]
    return [Recipe("generic", label, reason, make) for label, reason, make in rows]


def _adversarial(label: str, why: str, make: Make, *flags: str) -> Recipe:
    return Recipe("adversarial", label, why, make, frozenset(flags))


def windows(operation: str) -> list[Recipe]:
    """Return what goes wrong with a ring of rows."""
    damping = "eps" if operation.endswith("ggt") else "lam"
    small: Arguments = {damping: scalar(1e-7)}
    large: Arguments = {damping: 1e3}
    clear: Arguments = {"cutoff": scalar(1e-3)}
    return [
        _adversarial(
            "wrap-around",
            "a ring one row short, or the newest row overwritten in place of the oldest",
            run(operation, T=14, m=4, **clear),
        ),
        _adversarial("one row", "m = 1: the window holds the newest gradient alone", run(operation, T=8, m=1, **clear)),
        _adversarial(
            "half-filled window",
            "fewer steps than rows: division by the number stored (R4)",
            run(operation, T=4, m=8, **clear),
        ),
        _adversarial("damping 1e-7", "x / lam - c G cancels", run(operation, T=12, m=3, **small)),
        _adversarial("damping 1e3", "the window hidden by the damping", run(operation, T=12, m=3, **large)),
        _adversarial("equal gradients", "duplicate rows: S is singular", run(operation, T=10, shape=constant, **clear)),
        _adversarial("parallel gradients", "S of rank one", run(operation, T=10, shape=parallel, **clear)),
    ]


def far_gradients(rng: Rng, g: np.ndarray) -> np.ndarray:
    """The entries at the end of the first block are large, so they are kept in every step."""
    columns = far_positions(rng, 1, (g.shape[1], g.shape[1] - 60, 2.0**-10))[0]
    g[:, columns[-5:]] *= 64
    return g


def compression(operation: str) -> list[Recipe]:
    """Return what goes wrong with error feedback."""
    whole: Arguments = {"layout": (20, 20, 1.0)} if operation == "sparse_mfac" else {"d": 20, "k": 20}
    return [
        _adversarial("everything kept", "k = d: the error stays zero", run(operation, T=9, **whole)),
        _adversarial("ties at the cut", "ties kept on both sides", run(operation, equal, T=9)),
        _adversarial(
            "alternating gradients", "the error must return to what it was", run(operation, T=12, shape=alternating)
        ),
        *(
            []
            if operation == "sparse_mfac"
            else [
                _adversarial("one entry kept", "k = 1: the others wait in the error", run(operation, T=20, d=10, k=1))
            ]
        ),
    ]


def layouts() -> list[Recipe]:
    """Return the corners of the block layout, for sparse M-FAC."""
    name = "sparse_mfac"
    return [
        _adversarial(
            "partial last block", "the last block counted with the full block's k", run(name, T=9, m=3, layout=PARTIAL)
        ),
        _adversarial(
            "block of 41728",
            "block-relative positions in int16 wrap",
            run(name, T=5, m=2, shape=far_gradients, layout=(41_788, 41_728, 2.0**-10), lam=1.0),
            "large",
        ),
        _adversarial("last block of one entry", "a block that is left out", run(name, T=9, m=3, layout=(17, 8, 0.25))),
    ]


def low_rank() -> list[Recipe]:
    """Return the corners of shapes and ranks."""
    name = "low_rank_mfac"
    return [
        _adversarial(
            "several layers",
            "products summed per layer, not over the model (R26)",
            run(name, T=12, m=3, shapes=[(4, 3), (5,), (2, 3, 2)], rank=2),
        ),
        _adversarial(
            "rank above a layer's",
            "the rank is clamped layer by layer (R25)",
            run(name, T=9, m=3, shapes=[(4, 3), (5,), (2, 3, 2)], rank=3),
        ),
        _adversarial(
            "one-dimensional tensors only",
            "nothing to compress: Q0 is empty",
            run(name, T=9, m=3, shapes=[(5,), (3,)], rank=1),
        ),
    ]


def low_ranks(operation: str) -> list[Recipe]:
    """Return the window of lower rank than it has different rows that are not zero, for GGT."""
    make = run(operation, T=10, m=4, shape=dependent, d=20, k=20, eps=0.5, cutoff=scalar(1e-3))
    why = "sigma = 0 that no zero or equal row gives away: 1 / sigma is noise"
    return [_adversarial("a gradient is the sum of two others", why, make)]


def adversarial(operation: str) -> list[Recipe]:
    """Return the corners of an optimizer."""
    rows = [*windows(operation)] if operation in WINDOWED else []
    rows[1:1] = layouts() if operation == "sparse_mfac" else low_rank() if operation == "low_rank_mfac" else []
    if operation in COMPRESSED:
        rows[3:3] = compression(operation)
    cut: Arguments = {"cutoff": scalar(1e-3)}
    rows[5:5] = [
        _adversarial(
            "zero gradients at first", "0 / 0 before anything is known", run(operation, T=8, shape=first_zero, **cut)
        ),
        _adversarial(
            "zero gradients in between",
            "a step skipped: the error is not sent, the row not written",
            run(operation, T=12, shape=some_zero, **cut),
        ),
    ]
    tiny = run(operation, some_subnormal, T=8, **cut)
    return [
        *rows,
        _adversarial("gradients always zero", "NaN for ever", run(operation, T=5, shape=all_zero)),
        _adversarial("idle coordinates", "a coordinate without gradient must stay", run(operation, T=12, shape=idle)),
        _adversarial(
            "one coordinate", "d = 1", run(operation, T=6, d=1, k=1, shapes=[(1,)], layout=(1, 1, 1.0), **cut)
        ),
        _adversarial("read-only gradients", "in-place mutation of the gradient", run(operation, T=6), "readonly"),
        _adversarial("non-contiguous gradients", "wrong stride", run(operation, T=6), "strided"),
        _adversarial("signed zeros", "-0.0 taken as negative or kept", run(operation, signed_zeros, T=9)),
        _adversarial("subnormal entries", "flush to zero", tiny, "subnormal"),
        *(low_ranks(operation) if operation.endswith("ggt") else []),
    ]


def recorded(operation: str) -> list[Recipe]:
    """Return a run on gradients recorded from softmax regression."""
    weights, biases = SOFTMAX.shapes
    given: Arguments = {"d": SOFTMAX.d, "k": SOFTMAX.d // 20, "m": 4, "lam": scalar(1e-3), "eps": scalar(1e-2),
                        "layout": real.LAYOUTS[SOFTMAX], "shapes": [weights, biases], "rank": 2}  # fmt: skip
    make = run(operation, T=20, shape=lambda rng, g: real.run(SOFTMAX, rng, len(g)), **given)
    return [Recipe("real", f"{real.NAMES[SOFTMAX]} on the digits", real.WHY, make)]


FAMILIES: dict[str, dict[str, tuple[Recipe, ...]]] = {
    "exact": {name: tuple(exact(name)) for name in OPTIMIZERS},
    "generic": {name: tuple(generic(name)) for name in OPTIMIZERS},
    "adversarial": {name: tuple(adversarial(name)) for name in OPTIMIZERS},
    "real": {name: tuple(recorded(name)) for name in OPTIMIZERS},
}
