"""Door 1: a Python target, judged in a child process that may hang, crash or exit without harm to the oracle.

A target is ``my_code.py``, ``package.module`` or either with ``:object``. It needs no import of ours; it offers any
subset of the contract's names. `Target` starts the child (`efcp_ref.oracle.worker`), sends it cases, kills it when a
case takes too long, and starts another for the next case.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from efcp_ref.contract import NAMES
from efcp_ref.oracle import lifeline, results, wire
from efcp_ref.oracle.core import UNITS, Case, Declared

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from efcp_ref.oracle.worker import main; main(sys.argv[2:])"
)
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}
TAIL = 2000  # characters of a target's own output that are kept
START_TIMEOUT = 60.0  # seconds for a target's imports
LONGEST, MOST = 1e6, 1e6  # seconds of a case, GiB of address space: what a timer and a limit can hold


class UsageError(Exception):
    """The oracle was asked for something that does not exist, or a declaration is wrong: exit code 2."""


class BrokenTarget(Exception):
    """The target's own code failed while it was imported; its words hold no character that a terminal obeys."""

    def __init__(self, words: str, kind: str = "raised") -> None:
        """Say how; the kind is that of an `Outcome`'s error."""
        super().__init__(results.visible(words, lines=True))
        self.kind = kind


@dataclass(frozen=True)
class Outcome:
    """What became of handing one case to a target: its results, or an error of one kind.

    Whatever door a target has, its words come in here, and no character that a terminal obeys comes further.
    """

    results: Mapping[str, Any] = field(default_factory=dict)
    mutated: tuple[str, ...] = ()  # inputs that the target wrote into
    error: str = ""  # raised | exit | memory | result shape | timeout | died
    reason: str = ""  # "raised ValueError: ..."
    kind: str = ""  # name of the exception's type
    traceback: str = ""
    output: str = ""  # end of what the target printed

    def __post_init__(self) -> None:
        for name, lines in (("reason", False), ("kind", False), ("traceback", True), ("output", True)):
            object.__setattr__(self, name, results.visible(getattr(self, name), lines))


class Judged(Protocol):
    """What the judge needs of a target, whichever door it came through."""

    name: str
    offered: tuple[str, ...]
    declared: Declared

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told beside the verdicts."""

    def run(self, case: Case) -> Outcome:
        """Hand over one case."""

    def close(self) -> None:
        """Let go of whatever is held."""


# --- declarations -------------------------------------------------------------------------------------------------

_CHOICES = {
    "SOLVER": ("factorisation", "lu", "inverse", "eigh", "dense"),
    "ORTHOGONALISATION": ("householder", "svd", "cgs2", "mgs", "cgs"),
    "NAN": ("largest", "smallest", "undefined"),
    "ARRAYS": tuple(results.HAND),
}
_DTYPES = ("float64", "float32")
_ARITHMETIC: dict[str, tuple[Callable[[Any], bool], str]] = {
    "accumulator": (lambda v: v in UNITS, f"one of {', '.join(UNITS)}"),
    "storage": (lambda v: v in UNITS, f"one of {', '.join(UNITS)}"),
    "depth": (lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1, "an integer of at least 1"),
    "flush_to_zero": (lambda v: isinstance(v, bool), "True or False"),
    "denormals_are_zero": (lambda v: isinstance(v, bool), "True or False"),
    "eigensolver": (lambda v: str(v).lower() == "mrrr", "'mrrr', the one driver with a bound of its own"),
    "rsqrt": (lambda v: isinstance(v, (bool, int, float)), "True, False or a relative error"),
}


def _choice(name: str, value: Any) -> str | None:
    if value is not None and value not in _CHOICES[name]:
        raise UsageError(f"{name} = {value!r} in the target, must be one of {', '.join(_CHOICES[name])}")
    return value


def _arithmetic(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"ARITHMETIC = {value!r} in the target, must be a dict with keys of {', '.join(_ARITHMETIC)}")
    for key, given in value.items():
        if key not in _ARITHMETIC:
            raise UsageError(f"ARITHMETIC[{key!r}] in the target is unknown, the keys are {', '.join(_ARITHMETIC)}")
        right, rule = _ARITHMETIC[key]
        if not right(given):
            raise UsageError(f"ARITHMETIC[{key!r}] = {given!r} in the target, must be {rule}")
    return value


def _amount(text: str) -> bool:
    try:
        return 0 <= float(text) < float("inf")
    except ValueError:
        return False


def _sizes(text: str) -> bool:
    return all(s.isdecimal() and len(s) <= 10 and int(s) > 0 for s in text.replace(" ", "").split(","))


_READINGS: dict[str, tuple[tuple[str, ...], Callable[[str], bool], str]] = {  # words, what else, and that in words
    "R4": (("stored", "m", "window"), lambda v: False, ""),  # the window's m, written twice
    "R24": (("ridge", "none"), _amount, "the number that is added, such as '1e-6'"),
    "R29": (("unmoved",), _amount, "the number that is added, such as '0' or '1e-10'"),
    "R34": (("whole vector",), _sizes, "the sizes of the tensors, such as '2,3'"),
}


def _readings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(k in {f"R{n}" for n in range(1, 43)} for k in value):
        raise UsageError(
            f"READINGS = {value!r} in the target, must be a dict such as {{'R4': 'stored'}} with keys R1..R42"
        )
    if not all(isinstance(v, str) for v in value.values()):
        raise UsageError(f"READINGS = {value!r} in the target, every reading must be a text such as 'stored'")
    for key, said in value.items():
        if key not in _READINGS:
            known = ", ".join(_READINGS)
            raise UsageError(f"READINGS[{key!r}] = {said!r} in the target: no criterion asks for it, only for {known}")
        words, right, rule = _READINGS[key]
        if said not in words and not right(said):
            rules = " or ".join([*map(repr, words), *filter(None, [rule])])
            raise UsageError(f"READINGS[{key!r}] = {said!r} in the target, must be {rules}")
    return value


def _dtypes(value: Any) -> tuple[str, ...]:
    dtypes = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not dtypes or not all(d in _DTYPES for d in dtypes):
        raise UsageError(f"DTYPES = {value!r} in the target, must name one or both of {', '.join(_DTYPES)}")
    return tuple(d for d in _DTYPES if d in dtypes)


def declared(raw: Mapping[str, Any]) -> Declared:
    """Return what a target declares, checked.

    Raises:
        UsageError: a declaration that does not exist or has no such value.

    >>> declared({"DTYPES": ["float32"], "SOLVER": "eigh"}).dtypes
    ('float32',)
    """
    return Declared(
        arithmetic=_arithmetic(raw.get("ARITHMETIC", {})),
        solver=_choice("SOLVER", raw.get("SOLVER")),
        orthogonalisation=_choice("ORTHOGONALISATION", raw.get("ORTHOGONALISATION")),
        nan=_choice("NAN", raw.get("NAN")),
        readings=_readings(raw.get("READINGS", {})),
        dtypes=_dtypes(raw.get("DTYPES", list(_DTYPES))),
        arrays=_choice("ARRAYS", raw.get("ARRAYS")) or "numpy",
    )


# --- the child process --------------------------------------------------------------------------------------------


class TimedOut(Exception):
    """No answer in time."""


class Died(Exception):
    """The child ended instead of answering."""


class Abandoned(Exception):
    """Whoever asked does not wait for the answer any more."""


class Child:
    """One child process, and the two pipes that only its worker and the oracle use."""

    def __init__(
        self, target: str, memory: float, environment: Mapping[str, str] | None = None,
        abandoned: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """Start the process, with more variables than this one has; its first message is `worker.hello`.

        While ``abandoned`` is set, whoever waits for an answer gets the exception of that name.
        """
        self._abandoned = abandoned
        lifeline.open_standard()
        source, self._write = os.pipe()
        self._read, sink = os.pipe()
        command = [sys.executable, "-P", "-X", "faulthandler", "-c", BOOT, json.dumps(_import_path())]
        try:
            self.process = lifeline.start(
                [*command, target, str(source), str(sink), str(memory)], (source, sink),
                ONE_THREAD | dict(environment or {}),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        finally:
            os.close(source)
            os.close(sink)
        assert self.process.stdout is not None
        self._out = self.process.stdout.fileno()
        self._printed = bytearray()
        for fd in (self._read, self._write, self._out):
            os.set_blocking(fd, False)

    def ask(self, message: bytes | bytearray, timeout: float) -> dict[str, Any]:
        """Send a message (none to wait for the greeting) and return the answer.

        Raises:
            TimedOut: no answer within ``timeout`` seconds.
            Died: the process ended, or wrote something else than an answer.
            Abandoned: nobody waits for the answer any more.
        """
        deadline = time.monotonic() + timeout
        unsent, got, need = memoryview(message), bytearray(), wire.PREFIX.size
        while len(got) < need:
            unsent = self._turn(unsent, got, deadline)
            if need == wire.PREFIX.size <= len(got):
                try:
                    need += sum(wire.lengths(got[: wire.PREFIX.size]))
                except wire.BrokenMessage as why:
                    raise Died(f"wrote into the oracle's pipe ({why})") from None
        try:
            return wire.decode(*wire.split(got))
        except wire.BrokenMessage as why:
            raise Died(f"sent {why}") from None

    def _turn(self, unsent: memoryview, got: bytearray, deadline: float) -> memoryview:
        """Wait once; write what the pipe takes, read what there is."""
        if self._abandoned is not None and self._abandoned.is_set():
            raise Abandoned
        lifeline.follow()
        poll = select.poll()
        for fd in (self._read, self._out):
            poll.register(fd, select.POLLIN)
        if unsent:
            poll.register(self._write, select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOut
        ready = dict(poll.poll(min(left, 0.2) * 1000))
        if self._out in ready and not self._drain():
            time.sleep(0.001)  # its standard output is closed: do not spin
        try:
            if self._write in ready:
                unsent = unsent[os.write(self._write, unsent[: 1 << 20]) :]
            if self._read in ready and not (data := os.read(self._read, 1 << 20)):
                raise Died(self._end())
            elif self._read in ready:
                got += data
            elif not ready and self.process.poll() is not None:
                raise Died(self._end())
        except BrokenPipeError:
            raise Died(self._end()) from None
        return unsent

    def _drain(self) -> bool:
        try:
            data = os.read(self._out, 1 << 16)
        except BlockingIOError:
            return True
        self._printed = (self._printed + data)[-TAIL:]
        return bool(data)

    def _end(self) -> str:
        """Say how the process ended (it may have closed the pipe and still be running)."""
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:
            return "closed the oracle's pipe"
        if code >= 0:
            return f"ended the process with exit code {code}"
        name = signal.Signals(-code).name if -code in {int(s) for s in signal.Signals} else "?"
        return f"was killed by signal {-code} ({name})"

    def printed(self) -> str:
        """Return the end of what the target printed since the last time."""
        for _ in range(64):
            before = len(self._printed)
            if not self._drain() or len(self._printed) == before:
                break
        text, self._printed = self._printed.decode(errors="replace").strip(), bytearray()
        return text

    def kill(self) -> None:
        """End the process and everything in its group."""
        lifeline.end(self.process)
        for fd in (self._read, self._write):
            os.close(fd)
        assert self.process.stdout is not None
        self.process.stdout.close()


def _import_path() -> list[str]:
    """Where the child looks for modules: as this process, so that it finds this very package."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    script = os.path.dirname(os.path.abspath(sys.argv[0] or "."))
    first = 1 if sys.path and os.path.abspath(sys.path[0]) == script else 0  # a notebook's script is in site-packages
    path = [p for p in sys.path[first:] if p]
    return path if root in path else [*path, root]


class Target:
    """A Python target in a child process; see the module's first lines for how it is named."""

    certify = False  # whether the oracle certifies its own values: `efcp_ref.oracle.certify`

    def __init__(
        self, name: str, timeout: float = 10.0, memory: float = 8.0, start_timeout: float = START_TIMEOUT,
        environment: Mapping[str, str] | None = None, abandoned: threading.Event | None = None,
    ) -> None:  # fmt: skip
        """Import the target in a child process; ``environment``: its variables beside those of this process.

        An event that another thread sets, ``abandoned``, ends the child while it is waited for.

        Raises:
            UsageError: no such target, a wrong declaration, or a limit that is none.
            BrokenTarget: importing it failed, or took longer than ``start_timeout`` seconds.
            Abandoned: the event was set.
        """
        if not (0 < timeout <= LONGEST and 0 <= memory <= MOST):  # nan is neither
            raise UsageError(f"timeout = {timeout:g} s, memory = {memory:g} GiB, must be in (0, 1e6] and [0, 1e6]")
        self.name, self._timeout, self._memory, self._start_timeout = name, timeout, memory, start_timeout
        self._environment, self._abandoned = environment, abandoned
        self._child: Child | None = None
        self._number = 0
        self._about = self._start()
        self.offered = tuple(self._about["offered"])
        self.notes = tuple(map(results.visible, self._about["notes"]))
        self.names = tuple(self._about["names"])
        try:
            self.declared = declared(self._about["declared"])
        except UsageError:
            self.close()
            raise

    def _start(self) -> dict[str, Any]:
        child = self._child = Child(self.name, self._memory, self._environment, self._abandoned)
        try:
            about = child.ask(b"", self._start_timeout)
        except TimedOut:
            about = {"kind": "timeout", "broken": f"importing took longer than {self._start_timeout:g} s"}
        except Died as why:
            about = {"kind": "died", "broken": f"importing {why}"}
        except BaseException:
            self.close()
            raise
        if "offered" in about:
            return about
        printed = child.printed()
        self.close()
        if "missing" in about:
            raise UsageError(f"no such target {self.name!r}: {about['missing']}")
        words = "\n".join(filter(None, (about["broken"], about.get("traceback", ""), printed)))
        raise BrokenTarget(words, about.get("kind", "raised"))

    def run(self, case: Case) -> Outcome:
        """Hand one case to the child; a child that hangs or dies is replaced at the next call.

        Raises:
            BrokenTarget: the target cannot be imported any more.
        """
        if self._child is None:
            self._start()
        child, self._number = self._child, self._number + 1
        assert child is not None
        message = wire.encode(self._message(case))
        try:
            answer = child.ask(message, self._timeout)
            if answer.get("number") != self._number:
                raise Died("answered another question")
        except TimedOut:
            return self._lost("timeout", f"timeout after {self._timeout:g} s")
        except Died as why:
            return self._lost("died", str(why))
        except BaseException:
            self.close()
            raise
        return _outcome(answer, child.printed() if "error" in answer else "", self._memory)

    def _message(self, case: Case) -> dict[str, Any]:
        return {
            "number": self._number, "operation": case.operation, "arguments": dict(case.arguments), "dtype": case.dtype,
            "flags": sorted(case.flags & {"readonly", "strided"}), "arrays": self.declared.arrays,
            "device": self._about["declared"].get("DEVICE"), "timeout": self._timeout,
        }  # fmt: skip

    def _lost(self, error: str, reason: str) -> Outcome:
        assert self._child is not None
        printed = self._child.printed()
        self.close()
        return Outcome(error=error, reason=reason, output=printed)

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def _outcome(answer: dict[str, Any], printed: str, memory: float) -> Outcome:
    if "error" not in answer:
        return Outcome(results=answer["results"], mutated=tuple(answer["mutated"]))
    limit = f" (limit {memory:g} GiB, --memory)" if answer["error"] == "memory" and memory else ""
    return Outcome(
        error=answer["error"], reason=answer["reason"] + limit, kind=answer.get("type", ""),
        traceback=answer.get("traceback", ""), output=printed,
    )  # fmt: skip


class Local:
    """Functions of this very process as a target: nothing protects from a crash, and a debugger works."""

    certify = False

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], declared: Declared | None = None, name: str = ""
    ) -> None:
        """Take functions and optimizer classes by contract name.

        Raises:
            UsageError: a name that the contract does not have.
        """
        for operation in functions:
            known(operation)
        self._functions = dict(functions)
        self.name, self.offered = name, tuple(functions)
        self.notes: tuple[str, ...] = ()
        self.declared = declared or Declared()

    def run(self, case: Case) -> Outcome:
        """Call the function on one case."""
        from efcp_ref.oracle.worker import said, trail

        flags = tuple(case.flags & {"readonly", "strided"})
        arguments = {n: wire.plain(v) if isinstance(v, np.ndarray) else v for n, v in case.arguments.items()}
        hand = {"arrays": self.declared.arrays, "device": None, "flags": flags}
        try:
            done = results.run(self._functions[case.operation], case.operation, arguments, case.dtype, hand)
        except results.ResultShape as why:
            return Outcome(error="result shape", reason=str(why))
        except (Exception, SystemExit) as why:
            kind = "memory" if isinstance(why, MemoryError) else "exit" if isinstance(why, SystemExit) else "raised"
            return Outcome(error=kind, reason=said(why), kind=type(why).__name__, traceback=trail(why))
        return Outcome(results=done["results"], mutated=tuple(done["mutated"]))

    def close(self) -> None:
        """Nothing is held."""


def known(operation: str) -> str:
    """Return the name of an operation or optimizer of the contract.

    Raises:
        UsageError: there is none; names that are near are suggested.
    """
    if operation not in NAMES:
        raise UsageError(f"unknown operation {operation!r}{near(operation, NAMES)}; `efcp-ref list` shows all")
    return operation


def numbered(operation: str, seed: int, index: int) -> int:
    """Return the number of a case that somebody asked for.

    Raises:
        UsageError: there is no such operation or case.
    """
    from efcp_ref.oracle.cases import large

    more = large.indices(known(operation))
    if seed < 0 or not (0 <= index < large.FIRST or index in more):
        sizes = f", and of the paper's sizes {', '.join(map(str, more))}" if more else ""
        raise UsageError(f"no case {index} of {operation} in seed {seed}: there are 0 to {large.FIRST - 1}{sizes}")
    return index


def near(name: str, names: tuple[str, ...]) -> str:
    """Say which names are close: ``, did you mean top_k?``."""
    import difflib

    close = difflib.get_close_matches(name.lower(), names, 3, 0.6)
    return f", did you mean {' or '.join(close)}?" if close else ""
