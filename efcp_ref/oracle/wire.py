"""Messages between the oracle and the process that runs a target: a JSON header, then raw little-endian bytes.

Nothing is pickled: whatever a target returns, reading it runs no code. The frame is ``EFCP``, the length of the
header, the length of the bytes; arrays start at multiples of 64 bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

PREFIX = struct.Struct("<4sIQ")  # magic, header length, length of the array bytes
MAGIC = b"EFCP"
ALIGN = 64
LARGEST = 1 << 28  # bytes of arrays in one message; more is refused rather than copied


class BrokenMessage(Exception):
    """What arrived is not a message: the target wrote into the oracle's pipe, or stopped half way."""


def _pack(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, Mapping):
        return {"map": {str(k): _pack(v, arrays) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_pack(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_pack(v, arrays) for v in value]
    return float(value) if isinstance(value, Fraction) else value


def _unpack(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, inside),) = value.items()
    if kind == "array":
        return arrays[inside]
    if kind == "tuple":
        return tuple(_unpack(v, arrays) for v in inside)
    return {k: _unpack(v, arrays) for k, v in inside.items()}


def _named(name: str) -> np.dtype:
    if name[0] in "<>|=":
        return np.dtype(name)
    import ml_dtypes  # only where bfloat16 and its like travel: 0.1 s

    return np.dtype(getattr(ml_dtypes, name))


def plain(a: np.ndarray) -> np.ndarray:
    """Return ``a`` contiguous and little-endian, as it travels (0-d stays 0-d)."""
    return np.asarray(a, dtype=a.dtype.newbyteorder("<"), order="C")


def encode(body: Any) -> bytearray:
    """Return the whole message of ``body``: numbers, text, arrays, and lists, tuples and mappings of them.

    >>> decode(*split(encode({"g": np.array([1.0, 2.0]), "k": 3})))
    {'g': array([1., 2.]), 'k': 3}
    """
    arrays: list[np.ndarray] = []
    packed = _pack(body, arrays)
    arrays = [plain(a) for a in arrays]
    kinds = [[a.dtype.name if a.dtype.kind == "V" else a.dtype.str, list(a.shape)] for a in arrays]
    header = json.dumps([packed, kinds]).encode()
    sizes = [-(-a.nbytes // ALIGN) * ALIGN for a in arrays]
    message = bytearray(PREFIX.pack(MAGIC, len(header), sum(sizes)) + header)
    for a, size in zip(arrays, sizes, strict=True):
        message += a.tobytes() + bytes(size - a.nbytes)
    return message


def lengths(prefix: bytes | bytearray) -> tuple[int, int]:
    """Return the lengths of header and array bytes that a prefix announces.

    Raises:
        BrokenMessage: it is no prefix of ours, or announces more than `LARGEST`.
    """
    magic, header, payload = PREFIX.unpack(prefix)
    if magic != MAGIC or payload > LARGEST or header > LARGEST:
        raise BrokenMessage(f"not a message of the oracle: {bytes(prefix)!r}")
    return header, payload


def split(message: bytearray) -> tuple[bytearray, bytearray]:
    """Return header and array bytes of a whole message."""
    header, _ = lengths(message[: PREFIX.size])
    return message[PREFIX.size : PREFIX.size + header], message[PREFIX.size + header :]


def decode(header: bytes | bytearray, payload: bytearray) -> Any:
    """Return the body of a message; its arrays are writable views of ``payload``.

    Raises:
        BrokenMessage: the header is not JSON of ours, or the bytes do not fit it.
    """
    try:
        packed, kinds = json.loads(header)
        arrays, start = [], 0
        for name, shape in kinds:
            dtype, count = _named(name), int(np.prod(shape, dtype=np.int64))
            arrays.append(
                np.frombuffer(payload, dtype, count, start).reshape(shape) if count else np.empty(shape, dtype)
            )
            start += -(-count * dtype.itemsize // ALIGN) * ALIGN
        return _unpack(packed, arrays)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError) as why:
        raise BrokenMessage(f"a message that cannot be read: {why}") from None
