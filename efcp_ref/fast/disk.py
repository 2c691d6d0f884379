"""A state on disk, at any size: arrays stream between the file and the place where they live.

The one idea: the file is an uncompressed zip of .npy files (``numpy.load`` reads it, nothing is pickled), written under
another name and moved into place when it is complete. Loading first reads it through, comparing shapes and checksums,
and only then, in a second pass, lets the bytes run into the arrays: there is no second copy, and a bad file changes
nothing.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.paper._validate import Array

CHUNK = 2**24  # bytes in flight
FORMAT = "efcp_ref.fast 2"  # a new number whenever the order of the bytes changes: that of `Window`, too


def write(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write arrays and a header (a JSON object) to a file: all of it, or none.

    Raises:
        OSError: the file cannot be written; what was there is there still.
    """
    target = Path(path)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr("header.json", json.dumps({"format": FORMAT, **header}))
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        _write_array(member, array)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _write_array(member: Any, array: Array) -> None:
    described = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(member, described)
    view = _bytes(array)
    for start in range(0, len(view), CHUNK):
        member.write(view[start : start + CHUNK])


def header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of a file.

    Raises:
        OSError: there is no such file.
        ValueError: it is not one of ours, or it is cut short.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read("header.json"))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} is not a whole file of an optimizer's state: {error}") from error
    if found.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)} has format {found.get('format')!r}, must be {FORMAT!r}")
    return found


def verify(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Read a file through: the same arrays by name, shape and dtype, and every checksum right.

    Raises:
        ValueError: naming the first array that differs or is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for name, array in arrays.items():
            try:
                with archive.open(f"{name}.npy") as member:
                    _expect(name, member, array)
                    while member.read(CHUNK):  # raises at the end if the checksum is wrong
                        pass
            except (zipfile.BadZipFile, KeyError, EOFError) as error:
                raise ValueError(f"{os.fspath(path)}: {name} is missing or damaged ({error})") from error


def _expect(name: str, member: Any, array: Array) -> None:
    np.lib.format.read_magic(member)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    wanted = (array.shape, array.flags.f_contiguous and not array.flags.c_contiguous, array.dtype)
    if (shape, fortran, dtype) != wanted:
        raise ValueError(f"{name} has shape {shape} and dtype {dtype}, must have {array.shape} and {array.dtype}")


def read(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Let the bytes of a verified file run into these arrays, in place."""
    with zipfile.ZipFile(path) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy") as member:
                _expect(name, member, array)
                _fill(member, array)


def _bytes(array: Array) -> memoryview:
    """Return the bytes of a contiguous array where they are, in C or in Fortran order."""
    flat: Any = array.reshape(-1, order="A")
    return memoryview(flat.view(np.uint8)) if flat.size else memoryview(b"")


def _fill(member: Any, array: Array) -> None:
    view, at = _bytes(array), 0
    while at < len(view):
        got = member.readinto(view[at : at + CHUNK])
        if not got:
            raise ValueError("the file ends before its array does")
        at += got


