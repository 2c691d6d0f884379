"""What the optimizers share: one assignment per step, memory counted beforehand, states on disk.

The one idea: a step prepares everything where nobody looks (new vectors, the spare row of the window), and then
replaces ``_state``. Whatever interrupts it, KeyboardInterrupt at any point included, the optimizer is at the step
before. Unlike the reference, whose steps are pure, the window is one array for the life of the optimizer: only its
spare row is ever written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from efcp_ref.fast import disk, memory
from efcp_ref.fast.selection import vector
from efcp_ref.paper import _validate as check
from efcp_ref.paper._validate import Array


class Optimizer:
    """Shell of an optimizer: ``step(g) -> u``, ``state()``, ``load(state or path)``, ``save(path)``, ``nbytes``."""

    _state: Any  # a frozen dataclass: everything that a step changes, but for the spare row
    _parameters: dict[str, Any]  # what the constructor was given, as JSON has it
    memory: dict[str, int]  # bytes of every array, also of those that live only during a step

    def _allocate(self, parameters: dict[str, Any], parts: dict[str, int]) -> None:
        """Write down the parameters and the bytes needed; raise MemoryError if there are fewer."""
        self._parameters = {name: _plain(value) for name, value in parameters.items()}
        self.memory = parts
        memory.reserve(f"{type(self).__name__}({_said(self._parameters)})", parts)

    @property
    def nbytes(self) -> int:
        """Bytes that the optimizer holds and, at the height of a step, needs: the sum of `memory`."""
        return sum(self.memory.values())

    def step(self, g: Any) -> Array:
        """Take the gradient g_t (d,) and return the direction u_t (d,).

        u has the precision of g, or that of the storage where it is less.

        Raises:
            TypeError, ValueError: g is not a finite real vector of d entries; the state is as before.
            BaseException: whatever interrupts, KeyboardInterrupt too; the state is as before.
        """
        before = self._ready()
        again = _without_room(before)
        try:
            self._state = again
            u, self._state = self._next(before, g)
            return u
        except BaseException:
            self._state = again
            raise

    def _ready(self) -> Any:
        if self._state is None:
            raise RuntimeError("a load was interrupted: the window is a mixture of two states, load again")
        return self._state

    def _next(self, state: Any, g: Any) -> tuple[Array, Any]:
        """Return (u, next state); nothing that ``state`` shows is changed."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return a copy of the state, by the names and in the order of the contract; `save` copies nothing."""
        return self._shown(self._ready())

    def _shown(self, state: Any) -> dict[str, Any]:
        raise NotImplementedError

    def load(self, state: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        """Continue from a state: what `state` returned, or the path of what `save` wrote.

        Raises:
            KeyError, TypeError, ValueError: a key is missing, or a value or file is wrong; the state is as before.
            OSError: there is no such file.
        """
        if isinstance(state, str | os.PathLike):
            self._load_file(state)
            return
        if missing := sorted(set(self._keys()) - set(state)):
            raise KeyError(f"state lacks {', '.join(missing)}, must have {', '.join(self._keys())}")
        self._adopt(state)

    def _keys(self) -> list[str]:
        raise NotImplementedError

    def _adopt(self, entries: Mapping[str, Any]) -> None:
        """Check every entry, then take them over."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, array by array as it is stored; the file is complete or not there.

        Raises:
            OSError: the file cannot be written; a file that was there before is there still.
        """
        state = self._ready()
        header = {"optimizer": type(self).__name__, "parameters": self._parameters, "numbers": self._numbers(state)}
        disk.write(path, header, {**self._moving(state), **self._fixed()})

    def _load_file(self, path: str | os.PathLike[str]) -> None:
        header = disk.header(path)
        said, own = header["parameters"], self._parameters
        if header["optimizer"] != type(self).__name__ or said != own:
            found = f"{header['optimizer']}({_said(said)})"
            raise ValueError(f"{os.fspath(path)} holds {found}, must hold {type(self).__name__}({_said(own)})")
        moving = {name: np.empty_like(array) for name, array in self._moving(self._fresh()).items()}
        arrays = {**moving, **self._fixed()}
        disk.verify(path, arrays)
        self._state = None if self._fixed() else self._state  # until every byte is in
        disk.read(path, arrays)
        self._state = self._rebuilt(header["numbers"], moving)

    def _fresh(self) -> Any:
        """Return the state before the first step."""
        raise NotImplementedError

    def _numbers(self, state: Any) -> dict[str, int]:
        """Return the integers of a state."""
        raise NotImplementedError

    def _moving(self, state: Any) -> dict[str, Array]:
        """Return the arrays of a state that every step makes anew."""
        raise NotImplementedError

    def _fixed(self) -> dict[str, Array]:
        """Return the arrays that live as long as the optimizer: the window."""
        return {}

    def _rebuilt(self, numbers: Mapping[str, int], arrays: Mapping[str, Array]) -> Any:
        """Return the state of these integers and arrays."""
        raise NotImplementedError


def _without_room(state: Any) -> Any:
    """Return a state that lends its room to no step: after a second Ctrl-C, threads may still be writing there."""
    return state if getattr(state, "room", None) is None else replace(state, room=None)


def _plain(value: Any) -> Any:
    """Return a parameter as JSON has it; a density as its exact fraction."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if isinstance(value, int | float | str | None) else str(value)


def _said(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def gradient(g: Any, d: int) -> Array:
    """Return g as a vector of d real numbers; whether they are finite is seen in the pass that adds them up."""
    return vector("g", g, d)


def in_precision(u: Array, g: Array) -> Array:
    """Return u in the precision of g, or in its own where that is less; no copy where none is needed.

    >>> in_precision(np.zeros(1), np.zeros(1, np.float32)).dtype
    dtype('float32')
    """
    return u.astype(g.dtype, copy=False) if g.dtype.itemsize < u.dtype.itemsize else u


def ages(row: int, spare: int, m: int) -> tuple[Array, Array]:
    """Return the rows of the contract and the slots of the window, (m,) each, the oldest gradient first.

    Gradients follow one another round the ring: from ``row`` on among m rows, after ``spare`` among m + 1 slots.

    >>> ages(row=1, spare=3, m=3)
    (array([1, 2, 0]), array([0, 1, 2]))
    """
    age = np.arange(m)
    return (row + age) % m, (spare + 1 + age) % (m + 1)


def slots(row: int, spare: int, m: int) -> Array:
    """Return the slot of every row, (m,).

    >>> slots(row=1, spare=3, m=3)  # row 0 is the newest
    array([2, 0, 1])
    """
    rows, places = ages(row, spare, m)
    return places[np.argsort(rows)]


def real(entries: Mapping[str, Any], name: str, like: Array) -> Array:
    """Return an entry of a state as finite numbers in the shape and dtype of ``like``, a copy."""
    return check.array(name, entries[name], shape=like.shape).astype(like.dtype)


def whole(entries: Mapping[str, Any], name: str, high: int | None = None) -> int:
    """Return an entry of a state as an integer in 0..high."""
    return check.integer(name, entries[name], 0, high)

