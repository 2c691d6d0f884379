"""Appendix F: the bytes of dense and sparse M-FAC and GGT, item by item, and the ratios that the paper prints.

Bytes are exact fractions: ``k = density * d`` need not be an integer on paper. ``practical=True`` counts what an
implementation holds: ``ceil(density * size)`` entries in every block, the m x m scalar products, and for GGT the vector
C of Algorithm 4 that F.2 leaves out (R32).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from efcp_ref.paper import _validate as check
from efcp_ref.paper.top_k import row_length

Bytes = dict[str, Fraction]  # item -> bytes


def dense_window(m: int, d: int, value_bytes: int = 4) -> Bytes:
    """Return the bytes of a dense window G (m, d).

    Source: appendix F.1, "Dense M-FAC stores a matrix G of 32 bit floats" (efcp.txt line 485): ``4 m d``.

    Args:
        m: window size, at least 1.
        d: dimension, at least 1.
        value_bytes: bytes of a value, at least 1.

    Returns:
        The bytes, under the name G.

    Raises:
        TypeError, ValueError: an argument is not an integer of at least 1.

    Cost: one multiplication.

    >>> dense_window(1024, 1)
    {'G': Fraction(4096, 1)}
    """
    m, d, width = (check.integer(n, v, 1) for n, v in (("m", m), ("d", d), ("value_bytes", value_bytes)))
    return {"G": Fraction(width * m * d)}


def sparse_mfac(
    m: int, d: int, density: Any = 0.01, value_bytes: int = 4, index_bytes: int = 4,
    practical: bool = False, block_size: int | None = None,
) -> Bytes:  # fmt: skip
    """Return the bytes of Sparse M-FAC: indices I, values V, error xi, the results r_m of SP and r_d of LCG.

    Source: appendix F.1 (efcp.txt lines 487-499). At m = 1024, k = d/100: ``89.92 d + 4 m`` with float32 values,
    ``69.44 d + 4 m`` with bfloat16. ``practical`` adds S = G G^T (m, m) and counts k block by block.

    Args:
        m: window size, at least 1.
        d: dimension, at least 1.
        density: k/d, in (0, 1].
        value_bytes: bytes of a stored value, 4 or 2 in the paper.
        index_bytes: bytes of a stored index, 4 in the paper.
        practical: whether to count what an implementation holds.
        block_size: B_d of the Top-k, where ``practical``; default one block.

    Returns:
        Bytes of each item.

    Raises:
        TypeError, ValueError: an integer is less than 1, or density is not in (0, 1].

    Cost: a few multiplications.

    >>> float(total(sparse_mfac(1024, 100)))  # 89.92 * 100 + 4 * 1024
    13088.0
    """
    items = _sparse_rows(m, d, density, value_bytes, index_bytes, practical, block_size)
    items |= {"xi": Fraction(4 * d), "r_m": Fraction(4 * m), "r_d": Fraction(4 * d)}
    return items | ({"S": Fraction(4 * m * m)} if practical else {})


def sparse_ggt(
    m: int, d: int, density: Any = 0.01, value_bytes: int = 4, index_bytes: int = 4,
    practical: bool = False, block_size: int | None = None,
) -> Bytes:  # fmt: skip
    """Return the bytes of Sparse GGT: indices I, values V, error xi, the result r_m of SP.

    Source: appendix F.2 (efcp.txt lines 501-516). At m = 100, k = d/100: ``12 d + 4 m``. ``practical`` adds what F.2
    leaves out: the vector C of Algorithm 4 (m k indices, R32) and the m x m matrix of scalar products.

    Args, Returns, Raises, Cost: see `sparse_mfac`.

    >>> float(total(sparse_ggt(100, 1000))), float(sparse_ggt(100, 1000, practical=True)["C"])
    (12400.0, 4000.0)
    """
    items = _sparse_rows(m, d, density, value_bytes, index_bytes, practical, block_size)
    if practical:
        items |= {"C": items["I"], "gram": Fraction(4 * m * m)}
    return items | {"xi": Fraction(4 * d), "r_m": Fraction(4 * m)}


def _sparse_rows(
    m: int, d: int, density: Any, value_bytes: int, index_bytes: int, practical: bool, block_size: int | None
) -> Bytes:
    m, d = check.integer("m", m, 1), check.integer("d", d, 1)
    k = Fraction(row_length(d, block_size, density)) if practical else check.share("density", density) * d
    return {
        "I": check.integer("index_bytes", index_bytes, 1) * m * k,
        "V": check.integer("value_bytes", value_bytes, 1) * m * k,
    }


def total(items: Bytes) -> Fraction:
    """Return the sum of the items.

    >>> total({"a": Fraction(1, 2), "b": Fraction(3, 2)})
    Fraction(2, 1)
    """
    return sum(items.values(), Fraction(0))


def per_parameter(items: Bytes, d: int, m: int) -> Fraction:
    """Return the bytes per parameter without the 4 m bytes of r_m, as F writes them: ``89.92 d + 4 m`` gives 89.92.

    >>> float(per_parameter(sparse_mfac(1024, 10**6, value_bytes=2), 10**6, 1024))
    69.44
    """
    return (total(items) - 4 * m) / check.integer("d", d, 1)


def saving(dense: Fraction | int, sparse: Fraction | int) -> float:
    """Return how many times less the sparse one takes.

    Source: appendix F. Printed, from rounded bytes: 4096/90 = 45.5 and 4096/70 = 58.5 for M-FAC, 400/12 = 33.3 for
    GGT; exact: 4096/89.92 = 45.55 and 4096/69.44 = 58.99.

    >>> round(saving(4096, 90), 2), round(saving(4096, Fraction("89.92")), 2)
    (45.51, 45.55)
    """
    return float(Fraction(dense) / Fraction(sparse))


def gigabytes(count: Fraction | int) -> float:
    """Return bytes as GB, 10^9 bytes (R32: the introduction's "more than 450GB" is about this unit).

    >>> round(gigabytes(total(dense_window(1024, BERT_BASE))), 1)
    448.4
    """
    return float(count) / 1e9


def gibibytes(count: Fraction | int) -> float:
    """Return bytes as GiB, 2^30 bytes (R32: section 4's "417GB" is in this unit).

    >>> round(gibibytes(total(dense_window(1024, BERT_BASE))), 1)
    417.6
    """
    return float(count) / 2**30


BERT_BASE = 109_480_000  # parameters of BERT-Base; the paper says "110M" (efcp.txt line 245)
