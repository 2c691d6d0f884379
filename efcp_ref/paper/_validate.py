"""Checks of arguments: every message names the argument, its value and the rule; nothing has changed when it is raised."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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
    a = np.asarray(value)
    if a.dtype.kind in "iu":
        a = a.astype(np.float64)
    if a.dtype.kind != "f" and a.dtype.name != "bfloat16":
        raise TypeError(f"{name} has dtype {a.dtype}, must hold real floating-point numbers")
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    _shape(name, a, ndim, shape)
    if not np.isfinite(a.astype(np.float64, copy=False)).all():
        raise ValueError(f"{name} holds NaN or infinity, every entry must be finite")
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
        raise TypeError(f"{name} = {value!r}, must be an integer")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r}, must be an integer") from None
    if n < low or (high is not None and n > high):
        raise ValueError(f"{name} = {n}, must be " + (f"at least {low}" if high is None else f"in {low}..{high}"))
    return n


def number(name: str, value: Any, low: float = -np.inf, above: bool = False) -> float:
    """Return ``value`` as a finite float, at least ``low`` (greater than it where ``above``).

    Raises:
        TypeError: not a real number.
        ValueError: not finite, or too small.
    """
    if isinstance(value, (bool, np.bool_, str, bytes, complex, np.complexfloating)):
        raise TypeError(f"{name} = {value!r}, must be a real number")
    try:
        x = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {value!r}, must be a real number") from None
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
        raise ValueError(f"{name} = {value}, must be greater than 0 and at most 1")
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
