"""More bits than the judged result: sums, products and quotients in pairs of binary64 numbers, with certified errors.

A float32 result is judged in binary64, a float64 result in pairs ``hi + lo`` (about 106 bits). Every product of two
inputs is exact in binary64, because inputs are float32-representable; products with a target's own float64 stages
are not, hence the slices of `product`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from efcp_ref.paper._validate import Array

_U = 2.0**-53
_DOUBLE = 2.0**-103  # relative error of one addition of pairs, with room
_SPLIT = 2.0**27 + 1.0  # Veltkamp's constant for 53 bits
_SLICES = 8


class Pair(NamedTuple):
    """An unevaluated sum ``hi + lo`` of two float64 arrays, ``|lo| <= ulp(hi)``."""

    hi: Array
    lo: Array


class Product(NamedTuple):
    """A matrix product with its certified error and the sum of its absolute terms."""

    value: Pair
    error: Array  # |value - exact| <= error
    magnitude: Array  # |A| |B|


def pair(value: Any) -> Pair:
    """Return a float64 array as a pair (``lo = 0``); a pair is returned as it is."""
    if isinstance(value, Pair):
        return value
    hi = np.asarray(value, dtype=np.float64)
    return Pair(hi, np.zeros_like(hi))


def two_sum(a: Any, b: Any) -> Pair:
    """Return ``a + b`` exactly (Knuth).

    >>> two_sum(1.0, 2.0**-60)
    Pair(hi=1.0, lo=8.673617379884035e-19)
    """
    s = a + b
    t = s - a
    return Pair(s, (a - (s - t)) + (b - t))


def two_prod(a: Any, b: Any) -> Pair:
    """Return ``a * b`` exactly where nothing over- or underflows (Dekker, Veltkamp).

    >>> two_prod(1.0 + 2.0**-52, 1.0 + 2.0**-52).lo == 2.0**-104
    True
    """
    p = a * b
    (ah, al), (bh, bl) = _halves(a), _halves(b)
    return Pair(p, ((ah * bh - p) + ah * bl + al * bh) + al * bl)


def _halves(a: Any) -> tuple[Any, Any]:
    t = _SPLIT * a
    high = t - (t - a)
    return high, a - high


def add(a: Any, b: Any) -> Pair:
    """Return a + b for pairs or float64 arrays, within ``2^-103 (|a| + |b|)``."""
    a, b = pair(a), pair(b)
    s, t = two_sum(a.hi, b.hi), two_sum(a.lo, b.lo)
    high, low = two_sum(s.hi, s.lo + t.hi)
    return Pair(*two_sum(high, low + t.lo))


def negative(a: Any) -> Pair:
    """Return -a."""
    a = pair(a)
    return Pair(-a.hi, -a.lo)


def times(a: Any, b: Any) -> Pair:
    """Return a * b, a pair times a float64 array, within ``2^-103 |a b|``."""
    a = pair(a)
    p = two_prod(a.hi, b)
    return Pair(*two_sum(p.hi, p.lo + a.lo * b))


def divide(a: Any, b: Any) -> Pair:
    """Return a / b, a pair over a float64 array, within ``2^-103 |a / b|``.

    >>> float(divide(1.0, 3.0).lo)  # 2^-54 / 3
    1.850371707708594e-17
    """
    a = pair(a)
    q = a.hi / b
    p = two_prod(q, b)
    return Pair(*two_sum(q, ((a.hi - p.hi) - p.lo + a.lo) / b))


def apart(got: Any, reference: Any) -> Array:
    """Return ``|got - reference|`` in float64, to its last bits; NaN and infinity stay visible as infinity."""
    reference = pair(reference)
    with np.errstate(invalid="ignore", over="ignore"):
        s = two_sum(np.asarray(got, dtype=np.float64), -reference.hi)
        gap = np.abs(s.hi + (s.lo - reference.lo))
    return np.where(np.isfinite(gap), gap, np.inf)


def total(terms: Any) -> Product:
    """Return the sum of the last axis as a pair, by pairwise folding; ``magnitude`` is the sum of absolute terms.

    >>> float(total(np.array([1e16, 1.0, -1e16])).value.hi)
    1.0
    """
    terms = np.asarray(terms, dtype=np.float64)
    magnitude = np.abs(terms).sum(axis=-1)
    levels = 0
    value = pair(terms)
    while (n := value.hi.shape[-1]) > 1:
        half = n // 2
        folded = add(
            Pair(value.hi[..., :half], value.lo[..., :half]),
            Pair(value.hi[..., half : 2 * half], value.lo[..., half : 2 * half]),
        )
        rest = slice(2 * half, n)
        value = Pair(
            np.concatenate([folded.hi, value.hi[..., rest]], -1), np.concatenate([folded.lo, value.lo[..., rest]], -1)
        )
        levels += 1
    if value.hi.shape[-1] == 0:
        return Product(pair(magnitude), np.zeros_like(magnitude), magnitude)
    return Product(Pair(value.hi[..., 0], value.lo[..., 0]), levels * _DOUBLE * magnitude, magnitude)


def product(A: Array, B: Array | None = None, precise: bool = True) -> Product:
    """Return A B (without B: A A^T) with its certified error.

    ``precise=False`` is one binary64 product, ``|error| <= n 2^-53 |A||B|``. Otherwise both factors are cut into slices
    of so few bits that every product of slices is exact in binary64 in any order, and these are added in pairs
    (Ozaki, Ogita, Oishi, Rump 2012).

    >>> float(product(np.array([[1e16, 1.0, -1e16]]), np.ones((3, 1))).value.hi[0, 0])
    1.0
    """
    A = np.asarray(A, dtype=np.float64)
    size, n = np.abs(A), A.shape[1]
    right = A.T if B is None else np.asarray(B, dtype=np.float64)
    magnitude = size @ (size.T if B is None else np.abs(right))
    if not precise:
        return Product(pair(A @ right), n * _U * magnitude, magnitude)
    bits = (53 - max(n - 1, 0).bit_length()) // 2
    rows, row_rest = _slices(A, 1, bits)
    columns, column_rest = ([s.T for s in rows], row_rest.T) if B is None else _slices(right, 0, bits)
    every = np.concatenate(rows) @ np.concatenate(columns, axis=1)  # each entry exact; one call for all slices
    shape = (len(rows), magnitude.shape[0], len(columns), magnitude.shape[1])
    value = total(every.reshape(shape).transpose(1, 3, 0, 2).reshape(*magnitude.shape, -1)).value
    error = 4 * (len(rows) * len(columns) + 1) * _DOUBLE * magnitude
    if row_rest.any() or column_rest.any():
        error = error + 1.01 * (np.abs(row_rest) @ np.abs(right) + size @ np.abs(column_rest))
    return Product(value, error, magnitude)


def _slices(A: Array, axis: int, bits: int) -> tuple[list[Array], Array]:
    """Cut A into at most 2^bits multiples of a power of two per row (axis 1) or column (axis 0); and the rest."""
    parts: list[Array] = []
    rest = A
    while len(parts) < _SLICES:
        top = np.abs(rest).max(axis=axis, keepdims=True, initial=0.0)
        if not top.any():
            break
        unit = np.ldexp(1.0, np.minimum(np.maximum(np.frexp(top)[1] - bits, -1000), 1000))
        part = np.rint(rest / unit) * unit
        parts.append(part)
        rest = rest - part
    return parts or [A], rest


def step_of(terms: Array) -> float:
    """Return the largest power of two of which all nonzero terms are multiples (infinity where all are zero).

    >>> step_of(np.array([0.75, 3.0, 0.0]))
    0.25
    """
    terms = np.abs(np.asarray(terms, dtype=np.float64).ravel())
    terms = terms[(terms > 0) & np.isfinite(terms)]
    if not terms.size:
        return np.inf
    mantissa, exponent = np.frexp(terms)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = np.log2((whole & -whole).astype(np.float64))
    return float(np.ldexp(1.0, int((exponent - 53 + lowest).min())))


def adds_exactly(terms: Array, sums: Array, u: float) -> bool:
    """Whether every partial sum of absolute terms fits 1/u steps, so that summing is exact in any order (tier T1)."""
    step = step_of(terms)
    return bool(np.isinf(step) or np.max(sums, initial=0.0) <= step / u)
