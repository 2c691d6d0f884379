"""Integers times a power of two: every partial sum fits 24 bits, so each correct order of summation gives one result.

Where tier T1 holds (flag ``exact``) the result itself must be equal. Orthogonalisation and matrix roots round even
here; their cases carry the family's name and not the flag.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import Arguments, Make, Recipe, Rng, integers, nonzero

EXACT = frozenset({"exact"})
WHY = "one dropped, doubled or misplaced entry changes the result by a whole unit"

# Bounds of the integers: the largest sum of absolute terms is below 2^24 (the tests add it up).
BOUNDS = {
    "top_k": 1000, "block_top_k": 1000, "error_feedback": 1000, "sp": 200, "lcg": 200, "wsm": 50, "mfac_direction": 50,
    "sparse_mfac_direction": 50, "ggt_direction": 50, "sparse_ggt_direction": 50, "power_compress": 20,
    "low_rank_inner_product": 3, "adagrad_step": 500, "sign_step": 60, "scaled_top_k": 50,
}  # fmt: skip


def plain(operation: str, power: int = 0) -> Make:
    """Return a maker of integer arguments, every array times 2^power."""
    return partial(build.BUILDERS[operation], source=integers(BOUNDS[operation], power))


def one_hot(operation: str) -> Make:
    """Return a maker of sparse rows with a single entry each, the row's last: what a short loop leaves out."""

    def make(rng: Rng) -> Arguments:
        arguments = build.BUILDERS[operation](rng, nonzero(BOUNDS[operation]))
        last = np.zeros_like(arguments["values"])
        last[:, -1] = arguments["values"][:, -1]
        return {**arguments, "values": last}

    return make


def adagrad(power: int = 0) -> Make:
    """Return a maker of a step whose squares and their sums are exact."""

    def make(rng: Rng) -> Arguments:
        arguments = build.adagrad_step(rng, integers(BOUNDS["adagrad_step"], power), eta=0.5)
        squares = rng.integers(0, 2**20, len(arguments["G"])) * (rng.random(len(arguments["G"])) > 0.25)
        return {**arguments, "G": np.ldexp(squares.astype(float), 2 * power)}

    return make


def sign(power: int = 0) -> Make:
    """Return a maker of a step with d = 2^p and no zero in p = gamma g + e: the scale |p|_1 / d is exact."""

    def make(rng: Rng) -> Arguments:
        d = 2 ** build.pick(rng, 0, 5)
        p = nonzero(60)(rng, d)
        e, x = integers(60)(rng, d), integers(60)(rng, d)
        gamma = 2.0 ** -build.pick(rng, 0, 3)
        values = {"x": x, "e": e, "g": (p - e) / gamma}
        return {**{name: np.ldexp(a, power) for name, a in values.items()}, "gamma": gamma}

    return make


# m, lam, the entries of one row: m lam + |row|^2 = 4^p
FOURTHS: tuple[tuple[int, float, tuple[int, ...]], ...] = (
    (1, 1.0, (1, 1, 1)), (2, 1.0, (1, 1)), (2, 0.5, (1, -1, 1)), (4, 1.0, (3, 1, -1, 1)), (8, 0.5, (-3, 1, 1, 1)),
    (4, 0.25, (1, 1, 1)), (4, 2.0, (2, -2)), (2, 2.0, (2, 2, 2)),
)  # fmt: skip


def multiple_of_identity(rng: Rng) -> tuple[np.ndarray, float]:
    """Return a window (m, d) and lam with m lam I + G G^T = 4^p I: rows of equal norm on disjoint supports."""
    m, lam, row = FOURTHS[build.pick(rng, 0, len(FOURTHS) - 1)]
    d = m * len(row) + build.pick(rng, 1, 6)
    places = rng.permutation(d)[: m * len(row)].reshape(m, -1)
    G = np.zeros((m, d))
    np.put_along_axis(G, places, rng.choice([-1.0, 1.0], (m, 1)) * np.array(row, float), axis=1)
    return G, lam


def solve(rng: Rng) -> Arguments:
    """Return a dense problem whose solve is exact."""
    G, lam = multiple_of_identity(rng)
    return {"G": G, "lam": lam, "x": integers(50)(rng, G.shape[1])}


def sparse_solve(rng: Rng) -> Arguments:
    """Return the same, stored sparsely: one block, all entries kept that any row needs."""
    G, lam = multiple_of_identity(rng)
    layout = (G.shape[1], G.shape[1], 0.5 if np.count_nonzero(G[0]) * 2 <= G.shape[1] else 1.0)
    indices, values = build.compressed(G, layout)
    return {"indices": indices, "values": values, "d": layout[0], "lam": lam,
            "x": integers(50)(rng, layout[0]), **build.tail(layout)}  # fmt: skip


def roots(rng: Rng) -> Arguments:
    """Return integers with H = 4^p I."""
    d = build.pick(rng, 2, 14)
    return {"v": integers(50)(rng, d), "H": 4.0 ** build.pick(rng, -2, 2) * np.eye(d), "k": build.pick(rng, 1, d)}


def diagonal_roots(rng: Rng) -> Arguments:
    """Return integers with H a diagonal of powers of four: the basis changes the order of the entries."""
    d = build.pick(rng, 3, 14)
    H = np.diag(4.0 ** rng.integers(-2, 3, d))
    return {"v": nonzero(50)(rng, d), "H": H, "k": build.pick(rng, 1, d - 1)}


def _make(operation: str) -> tuple[tuple[str, Make], ...]:
    special: dict[str, Callable[[int], Make]] = {"adagrad_step": adagrad, "sign_step": sign}
    first, second = (special.get(operation, partial(plain, operation))(p) for p in (0, -7))
    rows: list[tuple[str, Make]] = [("integers", first), ("integers times 2^-7", second)]
    if operation in ("sp", "lcg", "sparse_mfac_direction"):
        rows.insert(1, ("last entry alone", one_hot(operation)))
    if operation in ("wsm", "mfac_direction"):
        rows.insert(0, ("m lam I + S = 4^p I", solve))
    if operation == "sparse_mfac_direction":
        rows.insert(0, ("m lam I + S = 4^p I", sparse_solve))
    if operation == "scaled_top_k":
        rows = [("H = 4^p I", roots), ("H a diagonal of powers of four", diagonal_roots), *rows]
    return tuple(rows)


UNFLAGGED = ("power_compress", "scaled_top_k")

FAMILY: dict[str, tuple[Recipe, ...]] = {
    operation: tuple(
        Recipe("exact", label, WHY, make, frozenset() if operation in UNFLAGGED else EXACT)
        for label, make in _make(operation)
    )
    for operation in OPERATIONS
}
