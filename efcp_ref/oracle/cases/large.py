"""Cases at the paper's sizes, reached by ``efcp-ref check --large``: ResNet-18's 11.7 million and m = 1024 rows.

What only size shows: positions beyond 2^16 and 2^24, products k times m beyond 2^31 when they are counted in bytes, a
last block of another size among hundreds, sums of 100,000 terms. They have indices of their own, from FIRST on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from efcp_ref.oracle.cases import build
from efcp_ref.oracle.cases.build import Arguments, Make, Recipe, Rng

FIRST = 1_000_000  # the index of the first large case of every operation
RESNET_18, BERT_TINY, RESNET_20 = 11_689_512, 4_385_920, 272_474  # parameters
A100, H100 = 41_728, 58_112  # floats in a thread block's shared memory: B_d (appendix G.2)
WINDOW = 1024


def rows(rng: Rng, m: int, layout: build.Layout, source: build.Source = build.normal) -> Arguments:
    """Return m sparse rows: in every block one position drawn from each of its stretches, in order."""
    d, block_size, density = layout
    firsts, widths = [], []
    for start in range(0, d, block_size):
        size = min(block_size, d - start)
        kept = build.paper.kept(size, build.Fraction(str(density)))
        edges = start + np.arange(kept + 1) * size // kept
        firsts.append(edges[:-1])
        widths.append(np.diff(edges))
    first, width = np.concatenate(firsts), np.concatenate(widths)
    indices = np.empty((m, len(first)), np.int32)
    for row in indices:
        row[:] = first + (rng.random(len(first)) * width).astype(np.int64)
    return {"indices": indices, "values": source(rng, indices.shape)}


def _tail(layout: build.Layout) -> Arguments:
    return {"block_size": layout[1], "density": layout[2]}


def _sp(m: int, layout: build.Layout, rng: Rng) -> Arguments:
    return {**rows(rng, m, layout), "g": build.normal(rng, layout[0]), **_tail(layout)}


def _lcg(m: int, layout: build.Layout, rng: Rng) -> Arguments:
    return {**rows(rng, m, layout), "c": build.normal(rng, m), "d": layout[0], **_tail(layout)}


def _block_top_k(layout: build.Layout, rng: Rng) -> Arguments:
    return {"a": build.heavy(rng, layout[0]), **_tail(layout)}


def _top_k(d: int, rng: Rng) -> Arguments:
    return {"a": build.heavy(rng, d), "k": -(-d // 100)}


def _error_feedback(layout: build.Layout, rng: Rng) -> Arguments:
    return {"xi": build.normal(rng, layout[0]), "g": build.normal(rng, layout[0]), **_tail(layout)}


def _adagrad(d: int, rng: Rng) -> Arguments:
    vectors = {name: build.normal(rng, d) for name in ("theta", "xi", "G", "g")}
    return {**vectors, "G": build.f32(vectors["G"] ** 2), "k": -(-d // 100), "eta": build.scalar(1e-3)}


def _sign(d: int, rng: Rng) -> Arguments:
    return {**{name: build.normal(rng, d) for name in ("x", "e", "g")}, "gamma": build.scalar(0.1)}


def _power(shape: tuple[int, ...], rho: int, rng: Rng) -> Arguments:
    return {"g": build.normal(rng, shape), "Q": build.normal(rng, (int(np.prod(shape[1:])), rho))}


def _family(*makers: tuple[str, Callable[..., Arguments], tuple[object, ...]]) -> tuple[Recipe, ...]:
    made: list[tuple[str, Make]] = [(label, partial(make, *sizes)) for label, make, sizes in makers]
    why = "what only size shows: wide positions, many blocks, a short last one, long sums"
    return tuple(Recipe("large", label, why, make, frozenset({"large"})) for label, make in made)


BIG, WIDE = (RESNET_18, A100, 0.01), (RESNET_18, H100, 0.01)
MANY = (RESNET_20, A100, 0.01)  # with m = 1024 rows

FAMILY: dict[str, tuple[Recipe, ...]] = {
    "top_k": _family(("ResNet-18", _top_k, (RESNET_18,))),
    "block_top_k": _family(("ResNet-18, A100", _block_top_k, (BIG,)), ("ResNet-18, H100", _block_top_k, (WIDE,))),
    "error_feedback": _family(("ResNet-18, A100", _error_feedback, (BIG,))),
    "sp": _family(("ResNet-18, 8 rows", _sp, (8, BIG)), ("ResNet-20, 1024 rows", _sp, (WINDOW, MANY))),
    "lcg": _family(("ResNet-18, 8 rows", _lcg, (8, WIDE)), ("ResNet-20, 1024 rows", _lcg, (WINDOW, MANY))),
    "power_compress": _family(("BERT-Base, 3072 x 768, rank 4", _power, ((3072, 768), 4))),
    "adagrad_step": _family(("BERT-Tiny", _adagrad, (BERT_TINY,))),
    "sign_step": _family(("BERT-Tiny", _sign, (BERT_TINY,))),
}


def indices(operation: str) -> range:
    """Return the indices of an operation's large cases; empty where it has none.

    >>> list(indices("sp")), len(indices("wsm"))
    ([1000000, 1000001], 0)
    """
    return range(FIRST, FIRST + len(FAMILY.get(operation, ())))
