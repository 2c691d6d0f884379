"""Reads what others wrote: JSON, ``.npy`` files and folders that may be broken or made to do harm.

Nothing is unpickled, nothing is evaluated, no file outside the given folder is opened, and no more memory is taken
than the bytes at hand announce and the limits allow. Whatever breaks a rule raises `Hostile`, which names the rule.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import re
import stat
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

LARGEST = 1 << 27  # bytes of one array or message
DEEPEST = 32  # brackets within brackets
VALUES = 1_000_000  # values in one JSON text
AXES = 8
KINDS = {
    "bool": "|b1", "int8": "|i1", "uint8": "|u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4",
    "int64": "<i8", "uint64": "<u8", "float16": "<f2", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
_NAMED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}")
_HEADER = re.compile(
    rb"\{'descr': '([<|][biuf]\d)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\),? *\}"
    rb" *\n?"
)


class Hostile(ValueError):
    """What was read breaks a rule of its format; the message names it."""


class Missing(Hostile):
    """There is no such file."""


# --- JSON ---------------------------------------------------------------------------------------------------------


def _constant(name: str) -> Any:
    raise Hostile(f"JSON holds {name}, which is no JSON; send NaN and infinities inside typed arrays")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Hostile("JSON holds the same key twice in one object")
    return found


def json_value(data: bytes, largest: int = LARGEST) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        Hostile: no JSON, a key twice, NaN or Infinity, nested deeper than `DEEPEST`, more than `VALUES` values or
            ``largest`` bytes.

    >>> json_value(b'{"k": [1, 2.5]}')
    {'k': [1, 2.5]}
    """
    if len(data) > largest:
        raise Hostile(f"JSON of {len(data)} bytes, at most {largest} are read")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES:
        raise Hostile(f"JSON of more than {VALUES} values")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_constant, object_pairs_hook=_unique)
    except Hostile:
        raise
    except (ValueError, RecursionError) as why:
        raise Hostile(f"no JSON: {str(why)[:120]}") from None
    _shallow(value)
    return value


def _shallow(value: Any) -> None:
    """Refuse what is nested deeper than `DEEPEST`, without recursion."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inside for v in level for inside in _inside(v)]
        if not level:
            return
    raise Hostile(f"JSON nested deeper than {DEEPEST}")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value) else ()


def field(value: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return one entry of a JSON object, of the type that the format asks for.

    Raises:
        Hostile: no object, no such entry, or another type (true is no number).

    >>> field({"k": 3}, "k", int)
    3
    """
    if not isinstance(value, dict) or name not in value:
        raise Hostile(f"expected an object with {name!r}")
    found = value[name]
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
        raise Hostile(f"{name!r} is {str(found)[:40]!r}, expected {wanted}")
    return found


# --- arrays -------------------------------------------------------------------------------------------------------


def bfloat16() -> np.dtype:
    """Return the dtype of bfloat16."""
    import ml_dtypes  # only where it is used: 0.1 s

    return np.dtype(ml_dtypes.bfloat16)


def dtype_named(name: Any) -> np.dtype:
    """Return a dtype of the exchange formats, little-endian.

    Raises:
        Hostile: there is none of that name.

    >>> dtype_named("float32")
    dtype('float32')
    """
    if name == "bfloat16":
        return bfloat16()
    if not isinstance(name, str) or name not in KINDS:
        raise Hostile(f"dtype {str(name)[:40]!r}, must be one of {', '.join(KINDS)}, bfloat16")
    return np.dtype(KINDS[name])


def shape_of(raw: Any, itemsize: int) -> tuple[int, ...]:
    """Return a shape, checked: at most `AXES` axes, and no more bytes than `LARGEST`.

    Raises:
        Hostile: it is not such a list of integers.

    >>> shape_of([2, 3], 8)
    (2, 3)
    """
    if not isinstance(raw, list) or len(raw) > AXES or not all(type(n) is int and n >= 0 for n in raw):
        raise Hostile(f"shape {str(raw)[:60]}, must be a list of at most {AXES} integers of at least 0")
    if prod(max(n, 1) for n in raw) * itemsize > LARGEST:
        raise Hostile(f"shape {str(raw)[:60]} needs more than {LARGEST} bytes")
    return tuple(raw)


def array(dtype: np.dtype, shape: tuple[int, ...], data: bytes, order: Any = "C") -> np.ndarray:
    """Return the array that these bytes are.

    Raises:
        Hostile: their number does not match.
    """
    if len(data) != prod(shape) * dtype.itemsize:
        raise Hostile(f"{len(data)} bytes for shape {shape} of {dtype}, must be {prod(shape) * dtype.itemsize}")
    if dtype.kind == "b" and data.strip(b"\0\1"):
        raise Hostile("a bool is neither 0 nor 1")
    return np.frombuffer(bytearray(data), dtype).reshape(shape, order=order)


def npy(data: bytes) -> np.ndarray:
    """Return the array of a ``.npy`` file (format 1.0 to 3.0), of the dtypes of `KINDS` alone.

    Raises:
        Hostile: another header than NumPy writes for such an array, or bytes that do not match it.

    >>> import io
    >>> file = io.BytesIO(); np.save(file, np.float32([1, 2])); npy(file.getvalue())
    array([1., 2.], dtype=float32)
    """
    if data[:6] != b"\x93NUMPY" or data[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise Hostile("no .npy file: wrong first bytes")
    size = struct.Struct("<H" if data[6] == 1 else "<I")
    start = 8 + size.size
    if len(data) < start or (length := size.unpack(data[8:start])[0]) > min(len(data) - start, 4096):
        raise Hostile(".npy header is cut off or longer than 4096 bytes")
    if (found := _HEADER.fullmatch(data[start : start + length])) is None:
        raise Hostile(f".npy header {data[start : start + min(length, 60)]!r} is not of a plain array")
    descr, fortran, dims = found.group(1).decode(), found.group(2) == b"True", found.group(3)
    if descr not in KINDS.values():
        raise Hostile(f".npy dtype {descr!r}, must be one of {', '.join(KINDS.values())}")
    dtype = np.dtype(descr)
    shape = shape_of([int(n) for n in dims.replace(b" ", b"").split(b",") if n], dtype.itemsize)
    return array(dtype, shape, data[start + length :], "F" if fortran else "C")


def typed(value: Mapping[str, Any], folder: Path | None = None) -> np.ndarray:
    """Return the array of ``{"dtype", "shape", "base64"}`` or ``{"dtype", "shape", "npy": path inside folder}``.

    bfloat16 travels as its 16 bits.

    Raises:
        Hostile: a rule is broken; `Missing` where there is no such file.

    >>> typed({"dtype": "float32", "shape": [1], "base64": "AACAPw=="})
    array([1.], dtype=float32)
    """
    dtype = dtype_named(value.get("dtype"))
    shape = shape_of(value.get("shape"), dtype.itemsize)
    if "npy" in value and folder is not None:
        found = npy(read_inside(folder, field(dict(value), "npy", str)))
        bits = np.dtype("<u2") if dtype.name == "bfloat16" else dtype
        if found.dtype != bits or found.shape != shape:
            raise Hostile(f"{value['npy']} holds {found.dtype} {found.shape}, announced were {bits} {shape}")
        return found.view(dtype)
    try:
        data = base64.b64decode(field(dict(value), "base64", str), validate=True)
    except (binascii.Error, ValueError) as why:
        raise why if isinstance(why, Hostile) else Hostile(f"no base64: {why}") from None
    return array(dtype, shape, data)


def little(a: np.ndarray) -> np.ndarray:
    """Return ``a`` contiguous and little-endian (0-d stays 0-d).

    >>> little(np.arange(6, dtype=">i4")[::2]).dtype.str
    '<i4'
    """
    return np.asarray(a, dtype=a.dtype.newbyteorder("<"), order="C")


def untyped(a: np.ndarray) -> dict[str, Any]:
    """Return an array as JSON: the inverse of `typed`.

    >>> untyped(np.float32([1]))
    {'dtype': 'float32', 'shape': [1], 'base64': 'AACAPw=='}
    """
    return {"dtype": a.dtype.name, "shape": list(a.shape), "base64": base64.b64encode(little(a).tobytes()).decode()}


def npy_bytes(a: np.ndarray) -> bytes:
    """Return the ``.npy`` file of an array, byte for byte the same with every NumPy; bfloat16 as its bits.

    >>> npy(npy_bytes(np.arange(3)))
    array([0, 1, 2])
    """
    bits = little(a).view("<u2") if a.dtype.name == "bfloat16" else little(a)
    dims = ", ".join(map(str, a.shape)) + ("," if a.ndim == 1 else "")
    head = f"{{'descr': '{bits.dtype.str}', 'fortran_order': False, 'shape': ({dims}), }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + bits.tobytes()


# --- folders ------------------------------------------------------------------------------------------------------


def parts(relative: str) -> list[str]:
    """Return the parts of a path inside a folder.

    Raises:
        Hostile: it is absolute, leads upwards, is deeper than eight folders, or holds odd characters.

    >>> parts("sp/0001/case.json")
    ['sp', '0001', 'case.json']
    """
    found = relative.split("/")
    if len(found) > 8 or not all(_NAMED.fullmatch(p) and ".." not in p for p in found):
        raise Hostile(f"path {relative[:80]!r}: only names of letters, digits, _, - and . below the folder are read")
    return found


def _open(name: str, flags: int, below: int, path: str) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below)
    except FileNotFoundError:
        raise Missing(f"there is no {path}") from None
    except OSError as why:
        if why.errno in (errno.ELOOP, errno.ENOTDIR, errno.EMLINK):
            raise Hostile(f"{path} is, or leads through, a symbolic link or no folder: not followed") from None
        raise Hostile(f"{path} cannot be read: {why.strerror}") from None


def read_inside(root: Path, relative: str, largest: int = LARGEST) -> bytes:
    """Return the bytes of a file below a folder; no symbolic link is followed below it.

    Raises:
        Hostile: the path leads elsewhere, is no plain file, or is larger than ``largest``.
        Missing: there is no such file.
    """
    *folders, name = parts(relative)
    try:
        below = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as why:
        raise Missing(f"there is no folder {root} ({why.strerror})") from None
    try:
        for folder in folders:
            deeper = _open(folder, os.O_RDONLY | os.O_DIRECTORY, below, relative)
            os.close(below)
            below = deeper
        file = _open(name, os.O_RDONLY | os.O_NONBLOCK, below, relative)  # a pipe must not make us wait
    finally:
        os.close(below)
    about = os.fstat(file)
    if not stat.S_ISREG(about.st_mode):  # before it is wrapped: Python itself raises at a folder
        os.close(file)
        raise Hostile(f"{relative} is no plain file")
    with os.fdopen(file, "rb") as opened:
        if about.st_size > largest:
            raise Hostile(f"{relative} has {about.st_size} bytes, at most {largest} are read")
        return opened.read(about.st_size)  # no more: a reader reserves what it is asked for
