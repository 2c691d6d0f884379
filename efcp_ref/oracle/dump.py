"""Dumps of a training run: three lines in the user's loop write them, `efcp_ref.oracle.replay` judges them.

    from efcp_ref.oracle.dump import Dump
    with Dump("run.efcp", "sparse_mfac", d=d, m=m, lam=lam, block_size=size, density=density) as dump:
        ...; dump.step(g, u, optimizer.state())

A dump is a file of frames: a head, one frame per step, an end. Each is written by one call and carries its length and a
checksum, so a run that is killed leaves every finished step readable. Of a state only the entries that changed are
written. Reading runs no code, unpickles nothing, and takes no more memory than the limits of `hostile` allow.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from efcp_ref.contract import OPTIMIZERS
from efcp_ref.oracle import hostile
from efcp_ref.oracle.core import Declared
from efcp_ref.oracle.hostile import Hostile
from efcp_ref.oracle.results import describe, to_numpy
from efcp_ref.oracle.targets import UsageError, declared, near
from efcp_ref.paper import _validate as check

FORMAT = "efcp-ref dump"
VERSION = 1
PREFIX = struct.Struct("<4sIQI")  # kind, bytes of the JSON, bytes of the arrays, CRC-32 of both
KINDS = (b"HEAD", b"STEP", b"DONE")
JSON_LARGEST = 1 << 20
STEPS = 10_000_000
STATES = 1 << 30  # bytes of one state
LARGEST = 1 << 31  # of d, m, k, rank, block_size
CHANGED = 4  # an array is written whole where more than one entry in this many changed
Arrays = dict[str, np.ndarray]


# --- arrays -------------------------------------------------------------------------------------------------------


def _array(name: str, value: Any) -> np.ndarray:
    """Return a copy as a NumPy array of numbers.

    Raises:
        TypeError: it is none.
        ValueError: it is a masked array that hides entries.
    """
    value = check.plain(name, value) if isinstance(value, np.ndarray) else value
    try:
        a = np.array(to_numpy(value))
        hostile.dtype_named(a.dtype.name)
    except (TypeError, ValueError) as why:
        raise TypeError(f"{name} is {describe(value)}, must be an array of numbers ({why})") from None
    return a


def _bits(a: np.ndarray) -> np.ndarray:
    """The entries as whole numbers, flat: -0 is not +0, NaN is itself."""
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}").reshape(-1)


def _difference(old: np.ndarray | None, new: np.ndarray) -> np.ndarray | None:
    """Positions of the entries that changed, flat; None where the array is to be written whole."""
    if old is None or old.shape != new.shape or old.dtype != new.dtype or not new.size:
        return None
    at = np.flatnonzero(_bits(old) != _bits(new))
    return at.astype(np.uint32) if CHANGED * len(at) < new.size < 2**32 else None


class _Packer:
    """Collects the arrays of one frame."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def add(self, a: np.ndarray) -> dict[str, Any]:
        """Append an array; return what announces it."""
        self.data.append(hostile.little(a).tobytes())
        return {"dtype": a.dtype.name, "shape": list(a.shape)}

    def frame(self, kind: bytes, body: dict[str, Any]) -> bytes:
        """Return the whole frame."""
        head, payload = json.dumps(body, allow_nan=False).encode(), b"".join(self.data)
        return PREFIX.pack(kind, len(head), len(payload), zlib.crc32(payload, zlib.crc32(head))) + head + payload


class _Unpacker:
    """Takes the arrays of one frame, in the order in which they were added."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._at = payload, 0

    def take(self, value: Any) -> np.ndarray:
        """Return the next array, as announced."""
        dtype = hostile.dtype_named(hostile.field(value, "dtype", str))
        shape = hostile.shape_of(value.get("shape"), dtype.itemsize)
        start, self._at = self._at, self._at + prod(shape) * dtype.itemsize
        return hostile.array(dtype, shape, self._payload[start : self._at])

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._payload):
            raise Hostile(f"{len(self._payload)} bytes of arrays, {self._at} of them announced")


# --- writing ------------------------------------------------------------------------------------------------------


def _parameter(name: str, value: Any, packer: _Packer) -> Any:
    if isinstance(value, (list, tuple)):
        return [_parameter(name, v, packer) for v in value]
    if isinstance(value, (bool, str)) or value is None:
        raise TypeError(f"{name} is {value!r}, must be a number, an array or a list of them")
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if hasattr(value, "numerator"):
        return check.number(name, value)
    return {"array": packer.add(_array(name, value))}


class Dump:
    """Writes a run step by step.

    Args:
        path: a new file.
        optimizer: the contract's name of what is run, ``efcp-ref list`` shows them.
        declares: what a target would declare, such as ``{"SOLVER": "lu"}``.
        fresh: replace a file that exists.
        parameters: the contract's parameters of the optimizer.

    Raises:
        FileExistsError: the file exists, and is not to be replaced.
        UsageError: no such optimizer, or a wrong declaration.
        TypeError: a parameter is missing, unknown or no number; ``declares`` is no mapping.
        ValueError: a parameter is out of range.

    >>> import os, tempfile
    >>> name = os.path.join(tempfile.mkdtemp(), "run.efcp")
    >>> with Dump(name, "topk_sgd", d=2, k=1) as dump:
    ...     dump.step([3.0, 1.0], [3.0, 0.0], {"t": 1, "xi": [0.0, 1.0]})
    >>> [(step.t, step.u.tolist()) for step in Reader(name).steps()]
    [(1, [3.0, 0.0])]
    """

    def __init__(
        self, path: str | Path, optimizer: str, *, declares: Mapping[str, Any] | None = None, fresh: bool = False,
        **parameters: Any,
    ) -> None:  # fmt: skip
        _known(optimizer, parameters)
        said = _declarations(declares)
        packer, self.steps, self._before = _Packer(), 0, Arrays()
        given = {name: _parameter(name, value, packer) for name, value in parameters.items()}
        unpacker = _Unpacker(b"".join(packer.data))
        seen = {name: _value(value, unpacker) for name, value in given.items()}  # as a reader will see them
        in_range(seen)
        self._d, self._names = dimension(seen), _state_names(optimizer, seen)
        body = {"format": FORMAT, "version": VERSION, "optimizer": optimizer, "parameters": given, "declares": said}
        self.path = Path(path)
        self._file: BinaryIO | None = _opened(self.path, fresh)
        self._write(packer.frame(b"HEAD", body))

    def step(self, g: Any, u: Any, state: Mapping[str, Any] | None = None) -> None:
        """Write one step: the gradient, what ``step(g)`` returned, and the state after it.

        Raises:
            TypeError: something is no array of numbers, or g does not hold floats.
            OSError: the disk is full.
            ValueError: g is no vector of d entries, the state has an unknown name, an array hides entries behind a
                mask, or the dump is closed.
        """
        if self._file is None:
            raise ValueError("the dump is closed")
        if state is not None and not isinstance(state, Mapping):
            raise TypeError(f"state is {describe(state)}, must be a mapping of arrays")
        if unknown := sorted(map(str, set(state or ()) - set(self._names))):
            raise ValueError(f"state has {', '.join(unknown)}, its names must be of {', '.join(self._names)}")
        packer = _Packer()
        body: dict[str, Any] = {"g": packer.add(self._gradient(g)), "u": packer.add(_array("u", u))}
        arrays = self._before
        if state is not None:
            arrays = {str(n): _array(f"state {n!r}", v) for n, v in state.items() if v is not None}
            body["state"] = {name: self._entry(name, a, packer) for name, a in arrays.items()}
        self._write(packer.frame(b"STEP", body))
        self._before = arrays  # what the next step is written against: only what is in the file
        self.steps += 1

    def _gradient(self, g: Any) -> np.ndarray:
        a = _array("g", g)
        if a.dtype.kind not in "fV":
            raise TypeError(f"g has dtype {a.dtype}, must hold floating-point numbers")
        if a.shape != (self._d,):
            raise ValueError(f"g has shape {a.shape}, must have shape ({self._d},)")
        return a

    def _entry(self, name: str, a: np.ndarray, packer: _Packer) -> dict[str, Any]:
        at = _difference(self._before.get(name), a)
        if at is None:
            return packer.add(a)
        return {"at": packer.add(at), "to": packer.add(a.reshape(-1)[at])}

    def _write(self, frame: bytes) -> None:
        assert self._file is not None
        start, view = self._file.tell(), memoryview(frame)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(start)  # half a step is no step
            raise

    def close(self) -> None:
        """Write the end and close the file; a dump that was not closed is read up to its last whole step."""
        if self._file is not None:
            self._write(_Packer().frame(b"DONE", {"steps": self.steps}))
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def __enter__(self) -> Dump:
        return self

    def __exit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _declarations(declares: Any) -> dict[str, Any]:
    """Return what is declared as JSON values, checked."""
    if declares is not None and not isinstance(declares, Mapping):
        raise TypeError(f"declares = {check.shown(declares)}, must be a mapping such as {{'SOLVER': 'lu'}}")
    said = dict(declares or {})
    declared(said)
    return dict(json.loads(json.dumps(said)))


def _opened(path: Path, fresh: bool) -> BinaryIO:
    try:
        return open(path, "wb" if fresh else "xb", buffering=0)
    except FileExistsError:
        how = "is not overwritten: name another file, or let Dump(..., fresh=True) replace it"
        raise FileExistsError(f"{path} exists, and {how}") from None


def _known(optimizer: str, parameters: Mapping[str, Any]) -> None:
    if optimizer not in OPTIMIZERS:
        names = tuple(OPTIMIZERS)
        raise UsageError(f"unknown optimizer {optimizer!r}{near(optimizer, names)}; they are {', '.join(names)}")
    names = tuple(p.name for p in OPTIMIZERS[optimizer].parameters)
    unknown, missing = sorted(set(parameters) - set(names)), sorted(set(names) - set(parameters))
    if unknown or missing:
        words = [f"has no {', '.join(unknown)}"] * bool(unknown) + [f"needs {', '.join(missing)}"] * bool(missing)
        raise TypeError(f"{optimizer} {' and '.join(words)}: its parameters are {', '.join(names)}")


def in_range(parameters: Mapping[str, Any]) -> None:
    """Check that every parameter, as it is read, is in its range.

    Raises:
        Hostile: one is not; the message names it.
    """
    for name, value in parameters.items():
        if name in ("d", "m", "k", "rank", "block_size"):
            rule, right = f"an integer in 1..{LARGEST}", type(value) is int and 1 <= value <= LARGEST
        elif name == "shapes":
            lists = isinstance(value, list) and bool(value) and all(isinstance(s, list) and s for s in value)
            whole = lists and all(type(n) is int and 1 <= n <= LARGEST for s in value for n in s)
            rule, right = "lists of integers", whole
        elif name == "Q0":
            rule, right = "matrices", isinstance(value, list) and all(np.ndim(q) == 2 for q in value)
        else:
            low = 0 if name == "cutoff" else 5e-324
            high = 1 if name in ("density", "cutoff") else 1e300
            rule = f"a number in {'[' if name == 'cutoff' else '('}0, {high:g}]"
            right = isinstance(value, (int, float)) and low <= value <= high
        if not right:
            raise Hostile(f"parameter {name} is {check.shown(value)[:40]}, must be {rule}")


def dimension(parameters: Mapping[str, Any]) -> int:
    """Return d, of parameters that are in range."""
    return int(parameters["d"]) if "d" in parameters else sum(prod(map(int, s)) for s in parameters["shapes"])


def _state_names(optimizer: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The contract's names of the state; ``P0..`` stands for one per layer."""
    names: list[str] = []
    for name in OPTIMIZERS[optimizer].state:
        layers = range(len(parameters.get("shapes", ())))
        names += [f"{name[0]}{l}" for l in layers] if name.endswith("..") else [name]
    return tuple(names)


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One step as it was dumped; ``t`` counts the dump's own steps from 1."""

    t: int
    g: np.ndarray  # (d,)
    u: np.ndarray  # (d,)
    state: Arrays | None  # after the step


@dataclass
class Reader:
    """Reads a dump, step after step.

    Raises:
        Hostile: the file is no dump, or its head breaks a rule.
        Missing: there is no such file.
    """

    path: str | Path
    optimizer: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    declared: Declared = field(default_factory=Declared)
    ending: str = ""  # why the last pass over the steps ended: "" where the run was closed

    def __post_init__(self) -> None:
        with self._open() as file:
            kind, body, payload = _frame(file, "the head") or _refused("the file is empty")
        if kind != b"HEAD" or hostile.field(body, "format", str) != FORMAT:
            raise Hostile(f"{self.path} is no dump of {FORMAT!r}")
        if hostile.field(body, "version", int) != VERSION:
            raise Hostile(f"dump of version {body['version']}, this program reads version {VERSION}")
        self.optimizer = hostile.field(body, "optimizer", str)
        unpacker = _Unpacker(payload)
        self.parameters = {n: _value(v, unpacker) for n, v in hostile.field(body, "parameters", dict).items()}
        unpacker.end()
        try:
            _known(self.optimizer, self.parameters)
            self.declared = declared(hostile.field(body, "declares", dict))
        except (UsageError, TypeError) as why:
            raise Hostile(str(why)) from None

    def _open(self) -> BinaryIO:
        try:
            if not Path(self.path).is_file():
                raise hostile.Missing(f"there is no file {self.path}")
            return open(self.path, "rb")
        except OSError as why:
            raise Hostile(f"{self.path} cannot be read: {why.strerror}") from None

    def steps(self) -> Iterator[Step]:
        """Yield every whole step; ``ending`` then says what came after the last one.

        Raises:
            Hostile: a step breaks a rule; the message names the step.
        """
        before, count = Arrays(), 0
        with self._open() as file:
            _frame(file, "the head")
            self.ending = "the run was not closed"
            while (found := self._next(file, count + 1)) is not None:
                kind, body, payload = found
                if kind == b"DONE":
                    self.ending = _ended(body, count)
                    return
                if kind != b"STEP" or (count := count + 1) > STEPS:
                    raise Hostile(f"after step {count} comes {kind!r}, expected a step")
                step = _step(body, payload, before, count)
                before = step.state or before
                yield step

    def _next(self, file: BinaryIO, t: int) -> tuple[bytes, Any, bytes] | None:
        try:
            return _frame(file, f"step {t}")
        except EOFError as why:
            self.ending = f"the run was not closed: {why}"
            return None


def _refused(why: str) -> Any:
    raise Hostile(why)


def _frame(file: BinaryIO, name: str) -> tuple[bytes, Any, bytes] | None:
    """Return kind, JSON and array bytes of the next frame; None at the end of the file.

    Raises:
        EOFError: the frame is cut off.
        Hostile: it is damaged or too large.
    """
    prefix = file.read(PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < PREFIX.size:
        raise EOFError(f"{name} is cut off") if name != "the head" else Hostile("the file is no dump: too short")
    kind, head, payload, checksum = PREFIX.unpack(prefix)
    if kind not in KINDS or head > JSON_LARGEST or payload > STATES:
        raise Hostile(f"{name} is damaged: kind {kind!r}, {head} and {payload} bytes announced")
    left = os.fstat(file.fileno()).st_size - file.tell()  # nothing is reserved for bytes that are not there
    if left < head + payload:
        raise EOFError(f"{name} is cut off") if name != "the head" else Hostile("the file is no dump: cut off")
    text, data = file.read(head), file.read(payload)
    if zlib.crc32(data, zlib.crc32(text)) != checksum:
        raise Hostile(f"{name} is damaged: its checksum is wrong")
    return kind, hostile.json_value(text, JSON_LARGEST), data


def _ended(body: Any, count: int) -> str:
    said = hostile.field(body, "steps", int)
    if said != count:
        raise Hostile(f"the dump ends after {count} steps and says {said}")
    return ""


def _value(value: Any, unpacker: _Unpacker) -> Any:
    if isinstance(value, dict):
        return unpacker.take(hostile.field(value, "array", dict))
    if isinstance(value, list):
        return [_value(v, unpacker) for v in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Hostile(f"parameter {str(value)[:40]!r}, must be a number, an array or a list of them")
    return value


def _step(body: Any, payload: bytes, before: Arrays, t: int) -> Step:
    unpacker = _Unpacker(payload)
    try:
        g, u = (unpacker.take(hostile.field(body, name, dict)) for name in ("g", "u"))
        state = None
        if "state" in body:
            entries = hostile.field(body, "state", dict)
            state = {name: _after(name, value, before, unpacker) for name, value in entries.items()}
            if sum(a.nbytes for a in state.values()) > STATES:
                raise Hostile(f"a state of more than {STATES} bytes")
        unpacker.end()
    except Hostile as why:
        raise Hostile(f"step {t}: {why}") from None
    return Step(t, g, u, state)


def _after(name: str, value: Any, before: Arrays, unpacker: _Unpacker) -> np.ndarray:
    if not isinstance(value, dict) or "at" not in value:
        return unpacker.take(value)
    at, to = unpacker.take(value["at"]), unpacker.take(hostile.field(value, "to", dict))
    old = before.get(name)
    if old is None or old.dtype != to.dtype or at.shape != to.shape or at.dtype != np.uint32:
        raise Hostile(f"changes of {name!r}, which the step before does not hold like that")
    if at.size and int(at.max()) >= old.size:
        raise Hostile(f"entry {int(at.max())} of {name!r} changes, which has {old.size}")
    new = old.copy()
    new.reshape(-1)[at] = to
    return new
