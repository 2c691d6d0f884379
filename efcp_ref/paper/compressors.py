"""The compressors that the slides name: maps C(p) of R^d to itself, each dense in, dense out.

Assumption A of the slides (line 166): ``|C(p) - p|^2 <= (1 - delta) |p|^2`` with delta in (0, 1].
The delta of each compressor stands in `efcp_ref.paper.theory.error_feedback`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import largest


def generator(rng: Any) -> np.random.Generator:
    """Return ``rng`` if it is a `numpy.random.Generator`, else raise TypeError: no global random state is used."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng = {rng!r}, must be a numpy.random.Generator")
    return rng


def mean_magnitude(p: Array, per_tensor: Sequence[int] | None = None) -> Any:
    """Return ``|p|_1 / d``, a number; with ``per_tensor`` the same of every tensor, one per coordinate (R34).

    Raises:
        TypeError, ValueError: the sizes are not integers of at least 1 that sum to d.

    Cost: d additions; reads 8 d bytes.

    >>> mean_magnitude(np.array([4.0, 1.0, 1.0])), mean_magnitude(np.array([4.0, 1.0, 1.0]), (1, 2))
    (np.float64(2.0), array([4., 1., 1.]))
    """
    if per_tensor is None:
        return np.abs(p).sum() / len(p)
    sizes = [check.integer("per_tensor", size, 1) for size in per_tensor]
    if sum(sizes) != len(p):
        raise ValueError(f"per_tensor = {tuple(sizes)}, must sum to d = {len(p)}")
    tensors = np.split(np.abs(p), np.cumsum(sizes)[:-1])
    return np.repeat([tensor.sum() / len(tensor) for tensor in tensors], sizes)


def scaled_sign(p: Any, per_tensor: Sequence[int] | None = None) -> Array:
    """Return the scaled sign of p: ``(|p|_1 / d) sign(p)``, with sign(0) = 0 (R34).

    Source: slides, Algorithm 1, line 5.

    Args:
        p: corrected step, (d,), finite.
        per_tensor: sizes of the tensors in p, summing to d; default one tensor, the whole vector.

    Returns:
        Delta, (d,), in the precision of p.

    Raises:
        TypeError, ValueError: p is not a finite real vector, or see `mean_magnitude`.

    Cost: 2 d flops; 16 d bytes.

    >>> scaled_sign(np.array([4.0, -1.0, 1.0]))
    array([ 2., -2.,  2.])
    """
    p = check.array("p", p, ndim=1)
    wide = p.astype(np.float64)
    return check.like(p.dtype, mean_magnitude(wide, per_tensor) * np.sign(wide))


def keep_largest(p: Any, k: int) -> Array:
    """Return Top-k of p as a dense vector: the k largest magnitudes, zero elsewhere.

    Source: section 3.1; an example of Assumption A with delta = k/d.

    Args:
        p: vector, (d,), finite.
        k: kept entries, 0..d.

    Returns:
        C(p), (d,), in the precision of p.

    Raises:
        TypeError, ValueError: p is not a finite real vector, or k is not an integer in 0..d.

    Cost: O(d log d) comparisons; 16 d bytes.

    >>> keep_largest(np.array([0.5, -3.0, 2.0]), 1)
    array([ 0., -3.,  0.])
    """
    p = check.array("p", p, ndim=1)
    return _only(p, largest(p, check.integer("k", k, 0, len(p))))


def _only(p: Array, indices: Array) -> Array:
    kept = np.zeros_like(p)
    kept[indices] = p[indices]
    return kept


def keep_random(p: Any, k: int, rng: np.random.Generator, unbiased: bool = False) -> Array:
    """Return random-k of p: k coordinates drawn without replacement, zero elsewhere.

    Source: slides, Assumption A; in expectation delta = k/d. ``unbiased`` multiplies by d/k, so that E C(p) = p
    and E |C(p)|^2 = (d/k) |p|^2.

    Args:
        p: vector, (d,), finite.
        k: kept entries, 1..d.
        rng: source of the draw.
        unbiased: whether to multiply by d/k.

    Returns:
        C(p), (d,), in the precision of p.

    Raises:
        TypeError, ValueError: p is not a finite real vector, k is not an integer in 1..d, rng is not a Generator.

    Cost: d flops; 16 d bytes.

    >>> keep_random(np.array([1.0, 2.0, 3.0, 4.0]), 2, np.random.default_rng(0), unbiased=True)
    array([0., 0., 6., 8.])
    """
    p = check.array("p", p, ndim=1)
    k = check.integer("k", k, 1, len(p))
    indices = generator(rng).choice(len(p), size=k, replace=False)
    kept = _only(p.astype(np.float64), indices)
    return check.like(p.dtype, kept * (len(p) / k) if unbiased else kept)


def qsgd(p: Any, levels: int, rng: np.random.Generator) -> Array:
    """Return QSGD's unbiased quantisation U(p): magnitudes rounded at random to multiples of |p| / levels.

    Source: slides, Remark 5. ``U_i = |p| sign(p_i) q_i / s`` with q_i one of the two integers around ``s |p_i| / |p|``,
    the upper one with a probability equal to the fractional part: E U(p) = p.

    Args:
        p: vector, (d,), finite.
        levels: s, at least 1.
        rng: source of the rounding.

    Returns:
        U(p), (d,), in the precision of p; zero where p = 0.

    Raises:
        TypeError, ValueError: p is not a finite real vector, levels is not an integer >= 1, rng is no Generator.

    Cost: about 8 d flops; 32 d bytes.

    >>> qsgd(np.array([3.0, -4.0]), 5, np.random.default_rng(0))  # 3/5 and 4/5 are levels
    array([ 3., -4.])
    """
    p = check.array("p", p, ndim=1)
    s = check.integer("levels", levels, 1)
    uniform = generator(rng).random(len(p))  # (d,)
    wide = p.astype(np.float64)
    norm = np.linalg.norm(wide)
    ratio = s * np.abs(wide) / norm if norm > 0 else np.zeros(len(p))  # (d,) in 0..s
    lower = np.floor(ratio)
    level = lower + (uniform < ratio - lower)  # (d,)
    return check.like(p.dtype, norm * np.sign(wide) * level / s)


def shrunk(u: Array, k: float) -> Array:
    """Return ``C = U / k``: an unbiased compressor with E |U|^2 <= k |p|^2 becomes one of Assumption A, delta = 1/k.

    Source: slides, Remark 5 (line 217). ``E |U/k - p|^2 = E |U|^2 / k^2 - 2 |p|^2 / k + |p|^2 <= (1 - 1/k) |p|^2``.

    Args:
        u: U(p), (d,).
        k: second-moment factor, at least 1.

    Raises:
        TypeError, ValueError: u is not a finite real vector, or k is less than 1.

    Cost: d flops; 16 d bytes.

    >>> shrunk(np.array([6.0, 0.0]), 2.0)
    array([3., 0.])
    """
    u = check.array("u", u, ndim=1)
    return check.like(u.dtype, u.astype(np.float64) / check.number("k", k, 1.0))
