"""Small inputs for the exercises: integers, so that ties and zeros are common, and layouts with a partial last block.

Every function takes Hypothesis's ``draw`` and ``strategies``, so that the smallest failing input can be found.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from efcp_ref.exercises.core import Draw
from efcp_ref.oracle.cases.build import agrees
from efcp_ref.paper._validate import Array, share
from efcp_ref.paper.top_k import kept

Arguments = dict[str, Any]
DENSITIES = (1.0, 0.5, 0.25, 0.75, 0.3)


def whole(draw: Draw, st: Any, low: int, high: int) -> int:
    """Draw an integer; Hypothesis shrinks it towards low."""
    return int(draw(st.integers(low, high)))


def vector(draw: Draw, st: Any, *shape: int, low: int = -3, high: int = 3) -> Array:
    """Draw small integers as float64: one byte each, so that Hypothesis shrinks them towards zero, fast."""
    values = np.array(sorted(range(low, high + 1), key=lambda v: (abs(v), v < 0)), np.float64)
    count = int(np.prod(shape))
    drawn = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    return values[drawn % len(values)].reshape(shape)


def one_of(draw: Draw, st: Any, *values: float) -> float:
    """Draw one of some numbers; the first is the simplest."""
    return float(draw(st.sampled_from(values)))


def layout(draw: Draw, st: Any, most: int = 7) -> tuple[int, int, float]:
    """Draw (d, block_size, density) whose counts are the same in floating point and exactly."""
    d = whole(draw, st, 1, most)
    block_size = whole(draw, st, 1, d)
    density = one_of(draw, st, *DENSITIES)
    return d, block_size, density if agrees(d, block_size, density) else 1.0


def positions(draw: Draw, st: Any, d: int) -> list[int]:
    """Draw an order of 0..d-1; the simplest is the natural one."""
    keys = np.frombuffer(draw(st.binary(min_size=d, max_size=d)), np.uint8)
    return [int(i) for i in np.argsort(keys, kind="stable")]


def rows(draw: Draw, st: Any, m: int, d: int, block_size: int, density: float) -> tuple[Array, Array]:
    """Draw the rows (indices, values) of a sparse window in block order."""
    found = []
    for _ in range(m):
        row: list[int] = []
        for start in range(0, d, block_size):
            end = min(start + block_size, d)
            count = kept(end - start, share("density", density))
            row += [start + place for place in sorted(positions(draw, st, end - start)[:count])]
        found.append(row)
    indices = np.array(found, np.int32)
    return indices, vector(draw, st, *indices.shape)


def top_k(draw: Draw, st: Any) -> Arguments:
    """Draw a and k, k = 0 and k = d among them."""
    d = whole(draw, st, 1, 6)
    return {"a": vector(draw, st, d), "k": whole(draw, st, 0, d)}


def block_top_k(draw: Draw, st: Any) -> Arguments:
    """Draw a with a layout."""
    d, block_size, density = layout(draw, st)
    return {"a": vector(draw, st, d), "block_size": block_size, "density": density}


def error_feedback(draw: Draw, st: Any) -> Arguments:
    """Draw xi and g with a layout."""
    d, block_size, density = layout(draw, st)
    return {"xi": vector(draw, st, d), "g": vector(draw, st, d), "block_size": block_size, "density": density}


def sparse(draw: Draw, st: Any) -> tuple[int, int, float, Array, Array]:
    """Draw (d, block_size, density, indices, values), one row among others."""
    d, block_size, density = layout(draw, st, 6)
    return d, block_size, density, *rows(draw, st, whole(draw, st, 1, 3), d, block_size, density)


def sp(draw: Draw, st: Any) -> Arguments:
    """Draw a sparse window and a vector."""
    d, block_size, density, indices, values = sparse(draw, st)
    g = vector(draw, st, d)
    return {"indices": indices, "values": values, "g": g, "block_size": block_size, "density": density}


def lcg(draw: Draw, st: Any) -> Arguments:
    """Draw a sparse window and coefficients."""
    d, block_size, density, indices, values = sparse(draw, st)
    c = vector(draw, st, len(indices))
    return {"indices": indices, "values": values, "c": c, "d": d, "block_size": block_size, "density": density}


def window(draw: Draw, st: Any) -> tuple[Array, float, Array]:
    """Draw (G, lam, x), empty rows among those of G."""
    m, d = whole(draw, st, 1, 3), whole(draw, st, 1, 3)
    return vector(draw, st, m, d), one_of(draw, st, 1.0, 0.5, 2.0), vector(draw, st, d)


def mfac(draw: Draw, st: Any) -> Arguments:
    """Draw a dense window, a damping and a vector."""
    G, lam, x = window(draw, st)
    return {"G": G, "lam": lam, "x": x}


def ggt(draw: Draw, st: Any) -> Arguments:
    """Draw a dense window, a vector, a damping and the cut-off."""
    G, eps, x = window(draw, st)
    return {"G": G, "x": x, "eps": eps, "cutoff": 1e-6}


def power(draw: Draw, st: Any) -> Arguments:
    """Draw a matrix and a starting Q; zero among them."""
    p1, p2 = whole(draw, st, 1, 3), whole(draw, st, 1, 3)
    rho = whole(draw, st, 1, min(p1, p2))
    return {"g": vector(draw, st, p1, p2), "Q": vector(draw, st, p2, rho)}


def factors(draw: Draw, st: Any) -> Arguments:
    """Draw two pairs of factors, their ranks not always the same."""
    p1, p2 = whole(draw, st, 1, 3), whole(draw, st, 1, 3)
    a, b = whole(draw, st, 1, 2), whole(draw, st, 1, 2)
    shapes = {"P1": (p1, a), "Q1": (p2, a), "P2": (p1, b), "Q2": (p2, b)}
    return {name: vector(draw, st, *shape) for name, shape in shapes.items()}


def adagrad(draw: Draw, st: Any) -> Arguments:
    """Draw a state of Algorithm 7: squares in G, some of them zero."""
    d = whole(draw, st, 1, 4)
    theta, xi, root, g = (vector(draw, st, d) for _ in range(4))
    k, eta = whole(draw, st, 0, d), one_of(draw, st, 1.0, 0.5)
    return {"theta": theta, "xi": xi, "G": root**2, "g": g, "k": k, "eta": eta}


def sign(draw: Draw, st: Any) -> Arguments:
    """Draw a state of EF-SignSGD."""
    d = whole(draw, st, 1, 4)
    x, e, g = (vector(draw, st, d) for _ in range(3))
    return {"x": x, "e": e, "g": g, "gamma": one_of(draw, st, 1.0, 0.5)}


def scaled(draw: Draw, st: Any) -> Arguments:
    """Draw a vector, a positive definite matrix and k."""
    d = whole(draw, st, 1, 3)
    root = vector(draw, st, d, d, low=-2, high=2)
    return {"v": vector(draw, st, d), "H": root @ root.T + np.eye(d), "k": whole(draw, st, 0, d)}
