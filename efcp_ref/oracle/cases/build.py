"""What every family builds with: samplers of numbers, and one builder of arguments per operation.

A *sampler* ``source(rng, shape)`` returns float64 numbers that float32 represents. A *builder* fills the arguments
of one operation from a sampler; sizes are drawn unless they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from efcp_ref.paper import top_k as paper
from efcp_ref.paper._validate import Array

Rng = np.random.Generator
Shape = int | tuple[int, ...]
Source = Callable[[Rng, Shape], Array]
Arguments = dict[str, Any]
Make = Callable[[Rng], Arguments]


@dataclass(frozen=True)
class Recipe:
    """How a case is made, and the bug that it is there to show."""

    family: str  # exact | generic | adversarial | real
    label: str
    why: str
    make: Make
    flags: frozenset[str] = frozenset()


def f32(a: Any) -> Array:
    """Round to float32, kept as float64."""
    return np.asarray(a, dtype=np.float64).astype(np.float32).astype(np.float64)


def scalar(x: float) -> float:
    """Round one number to float32."""
    return float(np.float32(x))


def pick(rng: Rng, low: int, high: int) -> int:
    """Return an integer of low..high."""
    return int(rng.integers(low, high + 1))


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Return a float32 number whose logarithm is uniform."""
    return scalar(np.exp(rng.uniform(np.log(low), np.log(high))))


# ---- samplers ---------------------------------------------------------------------------------------------------


def normal(rng: Rng, shape: Shape) -> Array:
    """Standard normal."""
    return f32(rng.standard_normal(shape))


def uniform(rng: Rng, shape: Shape) -> Array:
    """Uniform in -1..1."""
    return f32(rng.uniform(-1, 1, shape))


def heavy(rng: Rng, shape: Shape) -> Array:
    """Cauchy, cut at +-1000 so that squares stay far from float32's overflow."""
    return f32(np.clip(rng.standard_cauchy(shape), -1e3, 1e3))


def wide(rng: Rng, shape: Shape) -> Array:
    """Magnitudes log-uniform in 1e-4..1e4, with signs."""
    return f32(10 ** rng.uniform(-4, 4, shape) * rng.choice([-1.0, 1.0], shape))


def cancelling(rng: Rng, shape: Shape) -> Array:
    """The second half of every row is minus the first half, to 1e-5: sums against a constant nearly cancel."""
    a = rng.uniform(0.5, 1.5, shape)
    half = a.shape[-1] // 2
    a[..., half : 2 * half] = -a[..., :half] * (1 + 1e-5 * rng.standard_normal(a[..., :half].shape))
    return f32(a)


def scaled(source: Source, scale: float) -> Source:
    """The sampler times a constant."""
    return lambda rng, shape: f32(scale * source(rng, shape))


def integers(bound: int, power: int = 0) -> Source:
    """Integers in -bound..bound times 2^power."""
    return lambda rng, shape: np.ldexp(rng.integers(-bound, bound + 1, shape).astype(np.float64), power)


def nonzero(bound: int, power: int = 0) -> Source:
    """Integers in -bound..bound except 0, times 2^power."""
    return lambda rng, shape: np.ldexp(rng.integers(1, bound + 1, shape) * rng.choice([-1.0, 1.0], shape), power)


# ---- sparse layouts ---------------------------------------------------------------------------------------------

Layout = tuple[int, int, float]  # d, block_size, density
LAYOUTS: tuple[Layout, ...] = (
    (24, 8, 0.25), (50, 50, 0.1), (40, 16, 0.25), (33, 10, 0.3), (97, 32, 0.125), (64, 64, 0.05), (21, 7, 0.5),
)  # fmt: skip


def agrees(d: int, block_size: int, density: float) -> bool:
    """Whether ceil(density * size) is the same exactly, in float64 and in float32, for every block."""
    exact = Fraction(str(density))
    sizes = {end - start for start, end in paper.layout(d, block_size, density)[2]}
    return all(
        paper.kept(size, exact) == int(np.ceil(density * size)) == int(np.ceil(np.float32(density) * np.float32(size)))
        for size in sizes
    )


def draw_layout(rng: Rng) -> Layout:
    """Return a random small layout whose counts are beyond doubt."""
    while True:
        d = pick(rng, 2, 90)
        layout = d, pick(rng, 1, d), float(rng.choice([0.01, 0.05, 0.1, 0.125, 0.25, 0.3, 0.5, 0.75, 1.0]))
        if agrees(*layout):
            return layout


def positions(rng: Rng, m: int, layout: Layout) -> Array:
    """Return indices (m, K) int32, drawn at random, in block order."""
    d, block_size, density = layout
    return np.stack([paper.block_top_k(rng.random(d), block_size, density).indices for _ in range(m)])


def first_positions(m: int, layout: Layout) -> Array:
    """Return the indices (m, K) of empty rows: the first entries of every block."""
    d, block_size, density = layout
    row = paper.block_top_k(np.zeros(d), block_size, density).indices
    return np.tile(row, (m, 1))


def compressed(rows: Array, layout: Layout) -> tuple[Array, Array]:
    """Return indices and values (m, K) of the blockwise Top-k of dense rows (m, d)."""
    pairs = [paper.block_top_k(row, layout[1], layout[2]) for row in rows]
    return np.stack([p.indices for p in pairs]), np.stack([p.values for p in pairs])


def tail(layout: Layout) -> Arguments:
    """Return the two last arguments of an operation with a layout."""
    return {"block_size": layout[1], "density": layout[2]}


# ---- builders ---------------------------------------------------------------------------------------------------


def top_k(rng: Rng, source: Source, d: int | None = None, k: int | None = None) -> Arguments:
    """Arguments of top_k."""
    d = d or pick(rng, 2, 80)
    return {"a": source(rng, d), "k": pick(rng, 1, d) if k is None else k}


def block_top_k(rng: Rng, source: Source, layout: Layout | None = None) -> Arguments:
    """Arguments of block_top_k."""
    layout = layout or draw_layout(rng)
    return {"a": source(rng, layout[0]), **tail(layout)}


def error_feedback(rng: Rng, source: Source, layout: Layout | None = None) -> Arguments:
    """Arguments of error_feedback."""
    layout = layout or draw_layout(rng)
    return {"xi": source(rng, layout[0]), "g": source(rng, layout[0]), **tail(layout)}


def sparse_rows(rng: Rng, source: Source, layout: Layout, m: int) -> Arguments:
    """Return indices and values of m rows."""
    indices = positions(rng, m, layout)
    return {"indices": indices, "values": source(rng, indices.shape)}


def _partner(rng: Rng, source: Source, shape: Shape) -> Array:
    """Return the other factor of a product: constant where the first cancels, else drawn alike."""
    return np.ones(shape) if source is cancelling else source(rng, shape)


def sp(rng: Rng, source: Source, layout: Layout | None = None, m: int | None = None) -> Arguments:
    """Arguments of sp."""
    layout, m = layout or draw_layout(rng), m or pick(rng, 1, 9)
    return {**sparse_rows(rng, source, layout, m), "g": _partner(rng, source, layout[0]), **tail(layout)}


def lcg(rng: Rng, source: Source, layout: Layout | None = None, m: int | None = None) -> Arguments:
    """Arguments of lcg."""
    layout, m = layout or draw_layout(rng), m or pick(rng, 1, 9)
    return {**sparse_rows(rng, source, layout, m), "c": source(rng, m), "d": layout[0], **tail(layout)}


def damping(rng: Rng, S: Array) -> float:
    """Return lam such that the condition of m lam I + S is log-uniform in 2..1e6: of the size of the data."""
    m = len(S)
    largest = max(float(np.linalg.norm(S, 2)), 1e-300)
    return log_uniform(rng, largest / (1e6 * m), largest / m)


def mfac_direction(
    rng: Rng, source: Source, m: int | None = None, d: int | None = None, lam: float | None = None
) -> Arguments:
    """Arguments of mfac_direction and wsm."""
    m, d = m or pick(rng, 1, 10), d or pick(rng, 3, 60)
    G = source(rng, (m, d))
    x = _partner(rng, source, d)
    return {"G": G, "lam": damping(rng, G @ G.T) if lam is None else scalar(lam), "x": x}


def dense(indices: Array, values: Array, d: int) -> Array:
    """Return sparse rows as a dense window (m, d)."""
    G = np.zeros((len(indices), d))
    np.put_along_axis(G, indices.astype(np.int64), values.astype(np.float64), axis=1)
    return G


def sparse_mfac_direction(
    rng: Rng, source: Source, layout: Layout | None = None, m: int | None = None, lam: float | None = None
) -> Arguments:
    """Arguments of sparse_mfac_direction."""
    layout, m = layout or draw_layout(rng), m or pick(rng, 1, 10)
    rows = sparse_rows(rng, source, layout, m)
    d = layout[0]
    if lam is None:
        G = dense(**rows, d=d)
        lam = damping(rng, G @ G.T)
    return {**rows, "d": d, "lam": scalar(lam), "x": _partner(rng, source, d), **tail(layout)}


CUTOFF = scalar(1e-12)


def ggt_direction(
    rng: Rng,
    source: Source,
    m: int | None = None,
    d: int | None = None,
    eps: float | None = None,
    cutoff: float = CUTOFF,
) -> Arguments:
    """Arguments of ggt_direction; m <= d / 3, so that a random spectrum is far from the cut-off."""
    d = d or pick(rng, 6, 60)
    m = m or pick(rng, 1, max(1, min(8, d // 3)))
    G, x = source(rng, (m, d)), _partner(rng, source, d)
    if eps is None:
        eps = log_uniform(rng, 1e-3, 1) * max(float(np.linalg.norm(G)), 1e-300)
    return {"G": G, "x": x, "eps": scalar(eps), "cutoff": scalar(cutoff)}


def sparse_ggt_direction(
    rng: Rng, source: Source, layout: Layout | None = None, m: int | None = None, eps: float | None = None,
    cutoff: float = CUTOFF,
) -> Arguments:  # fmt: skip
    """Arguments of sparse_ggt_direction."""
    layout = layout or LAYOUTS[pick(rng, 0, len(LAYOUTS) - 1)]
    m = m or pick(rng, 1, max(1, min(5, layout[0] // 8)))
    rows = sparse_rows(rng, source, layout, m)
    if eps is None:
        eps = log_uniform(rng, 1e-3, 1) * max(float(np.linalg.norm(rows["values"].astype(np.float64))), 1e-300)
    x = _partner(rng, source, layout[0])
    return {**rows, "d": layout[0], "x": x, "eps": scalar(eps), "cutoff": scalar(cutoff), **tail(layout)}


TENSORS: tuple[tuple[int, ...], ...] = ((6, 5), (4, 3, 2), (9, 4), (3, 11), (8, 2, 2, 2), (5, 5), (2, 7))


def power_compress(rng: Rng, source: Source, shape: tuple[int, ...] | None = None, rho: int | None = None) -> Arguments:
    """Arguments of power_compress; the starting Q is of unit scale whatever the gradient's scale is."""
    shape = shape or TENSORS[pick(rng, 0, len(TENSORS) - 1)]
    p1, p2 = shape[0], int(np.prod(shape[1:]))
    rho = rho or pick(rng, 1, min(p1, p2, 4))
    return {"g": source(rng, shape), "Q": normal(rng, (p2, rho))}


def low_rank_inner_product(rng: Rng, source: Source, sizes: tuple[int, int, int, int] | None = None) -> Arguments:
    """Arguments of low_rank_inner_product; sizes are p1, p2, rho1, rho2."""
    p1, p2, r1, r2 = sizes or (pick(rng, 1, 12), pick(rng, 1, 12), pick(rng, 1, 4), pick(rng, 1, 4))
    return {"P1": source(rng, (p1, r1)), "Q1": source(rng, (p2, r1)),
            "P2": source(rng, (p1, r2)), "Q2": source(rng, (p2, r2))}  # fmt: skip


def adagrad_step(
    rng: Rng, source: Source, d: int | None = None, k: int | None = None, eta: float | None = None
) -> Arguments:
    """Arguments of adagrad_step; G is a sum of squares, zero at about a quarter of the coordinates."""
    d = d or pick(rng, 2, 60)
    theta, xi, g = source(rng, (3, d))
    G = f32(source(rng, d) ** 2 * (rng.random(d) > 0.25))
    eta = log_uniform(rng, 1e-3, 1) if eta is None else scalar(eta)
    return {"theta": theta, "xi": xi, "G": G, "g": g, "k": pick(rng, 1, d) if k is None else k, "eta": eta}


def sign_step(rng: Rng, source: Source, d: int | None = None, gamma: float | None = None) -> Arguments:
    """Arguments of sign_step."""
    x, e, g = source(rng, (3, d or pick(rng, 1, 60)))
    return {"x": x, "e": e, "g": g, "gamma": log_uniform(rng, 1e-3, 1) if gamma is None else scalar(gamma)}


def definite(rng: Rng, d: int, condition: float, scale: float = 1.0) -> Array:
    """Return a symmetric positive definite (d, d) of about the given condition, at most 1e4, in float32 numbers."""
    V, _ = np.linalg.qr(rng.standard_normal((d, d)))
    H = (V * (scale * condition ** rng.uniform(-1, 0, d))) @ V.T
    return f32((H + H.T) / 2)


def scaled_top_k(
    rng: Rng, source: Source, d: int | None = None, k: int | None = None, condition: float | None = None
) -> Arguments:
    """Arguments of scaled_top_k."""
    d = d or pick(rng, 2, 14)
    H = definite(rng, d, log_uniform(rng, 1, 1e4) if condition is None else condition)
    return {"v": source(rng, d), "H": H, "k": pick(rng, 1, d) if k is None else k}


BUILDERS: dict[str, Callable[..., Arguments]] = {
    "top_k": top_k, "block_top_k": block_top_k, "error_feedback": error_feedback, "sp": sp, "lcg": lcg,
    "wsm": mfac_direction, "mfac_direction": mfac_direction, "sparse_mfac_direction": sparse_mfac_direction,
    "ggt_direction": ggt_direction, "sparse_ggt_direction": sparse_ggt_direction, "power_compress": power_compress,
    "low_rank_inner_product": low_rank_inner_product, "adagrad_step": adagrad_step, "sign_step": sign_step,
    "scaled_top_k": scaled_top_k,
}  # fmt: skip
