"""Checks of arguments: a message names the argument, its value and the rule; nothing has changed when it is raised."""

from __future__ import annotations

import operator
import reprlib
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LARGEST_D = 2**31 - 1  # positions are int32 (the contract)
LARGEST_M = 2**28  # rows of a window: 8 m d bytes can still be counted
_words = reprlib.Repr()
_words.maxstring = _words.maxother = _words.maxlong = 40


def shown(value: Any) -> str:
    """Return a value for a message, shortened.

    >>> shown([1, [2]]), shown("a" * 100)
    ('[1, [2]]', "'aaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaa'")
    """
    try:
        return _words.repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return f"{type(value).__name__} too long to be written"


def plain(name: str, value: Any) -> Array:
    """Return ``value`` as a plain NumPy array, of any kind of entries.

    Raises:
        ValueError: rows of several lengths, or a masked array that hides entries.
    """
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray and np.ma.is_masked(value):
        raise ValueError(f"{name} = {shown(value)} is a masked array with hidden entries, every entry must be given")
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} = {shown(value)}, must be an array: rows of one length") from None


def array(name: str, value: Any, ndim: int | None = None, shape: tuple[int | None, ...] | None = None) -> Array:
    """Return ``value`` as an array of finite real floats (integers become float64) of the given shape.

    Args:
        name: argument name, for the message.
        value: array-like; read-only, strided and memory-mapped arrays are valid.
        ndim: required number of dimensions, if any.
        shape: required shape; None stands for any positive length.

    Raises:
        TypeError: not real numbers.
        ValueError: wrong shape, an empty axis, NaN or infinity.
    """
    a = plain(name, value)
    if a.dtype.kind in "iu":
        a = a.astype(np.float64)
    if a.dtype.kind != "f" and a.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {a.dtype}, must hold real floating-point numbers, is {shown(value)}")
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    _shape(name, a, ndim, shape)
    finite = np.isfinite(a.astype(np.float64, copy=False))
    if not finite.all():
        at = tuple(int(n) for n in np.argwhere(~finite)[0])
        first = f"{name}{list(at) if at else ''} = {a[at]}"
        raise ValueError(f"{name} holds NaN or infinity, first {first}; every entry must be finite")
    return a


def _shape(name: str, a: Array, ndim: int | None, shape: tuple[int | None, ...] | None) -> None:
    ndim = len(shape) if shape is not None else ndim
    if ndim is not None and a.ndim != ndim:
        raise ValueError(f"{name} has shape {a.shape}, must have {ndim} dimension{'s' if ndim != 1 else ''}")
    if 0 in a.shape:
        raise ValueError(f"{name} has shape {a.shape}, no axis may be empty")
    if shape is not None and any(want is not None and want != got for want, got in zip(shape, a.shape, strict=True)):
        raise ValueError(f"{name} has shape {a.shape}, must have shape {_text(shape)}")


def _text(shape: tuple[int | None, ...]) -> str:
    inside = ", ".join("any" if n is None else str(n) for n in shape)
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int in low..high.

    Raises:
        TypeError: not an integer.
        ValueError: out of range.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} = {shown(value)}, must be an integer")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {shown(value)}, must be an integer") from None
    if n < low or (high is not None and n > high):
        rule = f"at least {low}" if high is None else f"in {low}..{high}"
        raise ValueError(f"{name} = {shown(n)}, must be {rule}")
    return n


def dimension(value: Any) -> int:
    """Return d as an int of at least 1 whose positions are int32 (see `integer`)."""
    return _bounded("d", integer("d", value, 1), LARGEST_D)


def window_size(value: Any) -> int:
    """Return m as an int of at least 1, no more rows than a window can have (see `integer`)."""
    return _bounded("m", integer("m", value, 1), LARGEST_M)


def _bounded(name: str, n: int, high: int) -> int:
    if n > high:
        raise ValueError(f"{name} = {shown(n)}, must be at most {high}")
    return n


def number(name: str, value: Any, low: float = -np.inf, above: bool = False) -> float:
    """Return ``value`` as a finite float, at least ``low`` (greater than it where ``above``).

    Raises:
        TypeError: not a real number.
        ValueError: not finite, too large for a float64, too small, or hidden by a mask.
    """
    if isinstance(value, (bool, np.bool_, str, bytes, bytearray, memoryview, complex, np.complexfloating)):
        raise TypeError(f"{name} = {shown(value)}, must be a real number")
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} = {shown(value)} is hidden by a mask, must be given")
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {shown(value)}, must be a real number") from None
    except OverflowError:  # an integer or a fraction; a float of another kind becomes infinite
        raise ValueError(f"{name} = {shown(value)}, must be in the range of float64") from None
    if not np.isfinite(x):
        raise ValueError(f"{name} = {x}, must be finite")
    if x < low or (above and x == low):
        raise ValueError(f"{name} = {x}, must be {'greater than' if above else 'at least'} {low:g}")
    return x


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a finite float greater than 0 (see `number`)."""
    return number(name, value, 0.0, above=True)


def share(name: str, value: Any) -> Fraction:
    """Return a density in (0, 1] as an exact fraction: a float is read through its shortest decimal (R11).

    >>> share("density", 0.07), share("density", Fraction(1, 3))
    (Fraction(7, 100), Fraction(1, 3))
    """
    exact = value if isinstance(value, Fraction) else Fraction(str(number(name, value)))
    if not 0 < exact <= 1:
        raise ValueError(f"{name} = {shown(value)}, must be greater than 0 and at most 1")
    return exact


def choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return ``value`` if it is one of ``allowed``, else raise ValueError."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}, must be one of {', '.join(map(repr, allowed))}")
    return value


def like(dtype: Any, *results: Array) -> Any:
    """Round results, computed in float64, to the precision that was given; one result comes alone."""
    rounded = tuple(np.asarray(r).astype(dtype) if np.asarray(r).dtype.kind == "f" else r for r in results)
    return rounded[0] if len(rounded) == 1 else rounded


def _blocks(d: int, k: int, block_size: Any, density: Any) -> tuple[int, int, int]:
    if block_size is None and density == 1:  # nothing is said of the layout: one block of k entries
        return d, k, k
    exact = share("density", density)
    B_d = min(d, d if block_size is None else integer("block_size", block_size, 1))
    B_k = -(-B_d * exact.numerator // exact.denominator)  # ceil, exactly (R11)
    rest = -(-(d % B_d) * exact.numerator // exact.denominator)  # of the partial last block, by its own size
    return B_d, B_k, d // B_d * B_k + rest


def check_rows(
    indices: Any, values: Any, d: int, block_size: Any = None, density: Any = 1
) -> tuple[Array, Array, int, int]:
    """Return ``(indices, values, B_d, B_k)`` of a sparse window whose rows obey the contract (R13).

    Every row holds absolute positions, distinct, block after block, ceil(density * size) of them in each block;
    the order inside a block is free. Without ``block_size`` and ``density`` there is one block, of any k in 1..d.

    Args:
        indices: (m, k), integers in 0..d-1.
        values: (m, k), finite.
        d: dimension.
        block_size: B_d, at least 1; None: one block of d.
        density: kept fraction in (0, 1], read exactly (R11).

    Returns:
        indices as int32, values, B_d and B_k = ceil(density * B_d), the entries of a full block.

    Raises:
        TypeError: indices are not integers, values not real numbers.
        ValueError: wrong shape, or a row that breaks the rule; the message names the first such row.

    Cost: sorts every row, O(m k log k) comparisons; reads 12 m k bytes.

    >>> check_rows([[0, 1, 4]], [[5.0, 6.0, 7.0]], 5, 4, 0.5)[2:]
    (4, 2)
    """
    rows = plain("indices", indices)
    if rows.dtype.kind not in "iu":
        raise TypeError(f"indices has dtype {rows.dtype}, must hold integers")
    _shape("indices", rows, 2, None)
    values = array("values", values, shape=rows.shape)
    B_d, B_k, k = _blocks(d, rows.shape[1], block_size, density)
    if rows.shape[1] != k or k > d:
        rule = f"{k} entries per row for d = {d}" if k <= d else f"at most d = {d} entries per row"
        raise ValueError(f"indices has shape {rows.shape}, must have {rule}")
    _row("holds a position outside", f"must be in 0..{d - 1}", (rows < 0) | (rows >= d), rows)
    rows = rows.astype(np.int32 if d <= 2**31 else np.int64)
    ordered = np.sort(rows, axis=1)
    _row("repeats", "must be distinct within a row", np.diff(ordered, axis=1) == 0, ordered)
    block = np.minimum(np.arange(k) // B_k, -(-d // B_d) - 1)  # (k,) the block that each column belongs to
    _row(f"is out of block order (B_d = {B_d}) at", f"must have {B_k} per block", rows // B_d != block, rows)
    return rows, values, B_d, B_k


def _row(what: str, rule: str, wrong: Array, rows: Array) -> None:
    if wrong.any():
        row, column = (int(n) for n in np.argwhere(wrong)[0])
        raise ValueError(f"indices row {row} {what} {int(rows[row, column])} (column {column}), {rule}")
