"""Door 2: a target in any language, a process that reads and writes JSON lines.

One line is one message. The oracle sends ``start``, then ``run`` for every case, then ``stop``; the process answers
``start`` with ``ready`` and ``run`` with ``result`` or ``error``. The messages are described by
``protocol.schema.json`` (JSON Schema, draft 2020-12) in this folder, and in the docs. Arrays travel as base64 of
little-endian bytes or as paths of ``.npy`` files; bfloat16 as its 16 bits. What the process writes to its standard
error is kept for the report. A process that hangs or ends is replaced for the next case.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from efcp_ref.contract import NAMES, OPERATIONS, OPTIMIZERS
from efcp_ref.oracle import hostile, lifeline, results
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.judge import Progress, Report, judge
from efcp_ref.oracle.targets import (
    ONE_THREAD,
    TAIL,
    BrokenTarget,
    Died,
    Outcome,
    TimedOut,
    UsageError,
    declared,
    known,
)

VERSIONS = (1,)  # of the protocol, newest last
CAPABILITIES = ("base64", "npy", "bfloat16", "state")
SCHEMA = Path(__file__).with_name("protocol.schema.json")
PATIENCE = 1.0  # seconds that a process has to end by itself
START = 30.0  # seconds that it has to answer start; a larger time limit of a case holds here, too
DECLINED = "NotImplementedError"  # the kind that says: this case is not offered


class Pipe:
    """One running process and its three pipes; a line goes in, a line comes out, in time."""

    def __init__(self, command: list[str], memory: float) -> None:
        """Start the process, in a group of its own.

        Raises:
            UsageError: there is no such program.
        """
        pipe = subprocess.PIPE
        try:
            self.process = lifeline.start(command, environment=ONE_THREAD, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as why:
            raise UsageError(f"cannot start {shlex.join(command)!r}: {why.strerror}") from None
        streams = self.process.stdin, self.process.stdout, self.process.stderr
        self._in, self._out, self._err = (s.fileno() for s in streams if s is not None)
        self._got, self._said = bytearray(), bytearray()
        _limit(self.process.pid, memory)
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)

    def ask(self, message: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a message and return the next line, read as a message.

        Raises:
            TimedOut: no line within ``timeout`` seconds.
            Died: the process ended, or wrote a line that is no message.
        """
        unsent = memoryview(json.dumps(message, allow_nan=False).encode() + b"\n")
        deadline, searched = time.monotonic() + timeout, 0
        while (end := self._got.find(b"\n", searched)) < 0:
            searched = len(self._got)
            if searched > hostile.LARGEST:
                raise Died(f"wrote a line of more than {hostile.LARGEST} bytes")
            unsent = self._turn(unsent, deadline)
        line = bytes(self._got[:end])
        del self._got[: end + 1]
        try:
            answer = hostile.json_value(line)
            hostile.field(answer, "type", str)
        except hostile.Hostile as why:
            shown = line[:80].decode(errors="replace")
            raise Died(f"wrote {shown!r} where a message was expected ({why}); print to stderr instead") from None
        return answer

    def _turn(self, unsent: memoryview, deadline: float) -> memoryview:
        """Wait once; write what the pipe takes, read what there is."""
        lifeline.follow()
        poll = select.poll()
        for fd in (self._out, self._err):
            poll.register(fd, select.POLLIN)
        if unsent:
            poll.register(self._in, select.POLLOUT)
        if (left := deadline - time.monotonic()) <= 0:
            raise TimedOut
        ready = dict(poll.poll(min(left, 0.2) * 1000))
        if self._err in ready and not self._drain():
            time.sleep(0.001)  # its standard error is closed: do not spin
        if self._out in ready:
            if not (data := os.read(self._out, 1 << 20)):
                raise Died(self._end())
            self._got += data
        elif self._in in ready:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):  # its end is told by its output
                return unsent[os.write(self._in, unsent[: 1 << 16]) :]
            time.sleep(0.001)
        return unsent

    def _drain(self) -> bool:
        try:
            data = os.read(self._err, 1 << 16)
        except BlockingIOError:
            return True
        self._said = (self._said + data)[-TAIL:]
        return bool(data)

    def _end(self) -> str:
        """Say how the process ended (it may have closed its output and still be running)."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "closed its standard output"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in {int(s) for s in signal.Signals} else "?"
        return f"was killed by signal {-code} ({name})"

    def said(self) -> str:
        """Return the end of what the process wrote to its standard error since the last time."""
        for _ in range(64):
            before = len(self._said)
            if not self._drain() or len(self._said) == before:
                break
        text, self._said = self._said.decode(errors="replace").strip(), bytearray()
        return text

    def stop(self, polite: bool) -> None:
        """End the process and everything in its group; ``polite``: it is told first, and has a second."""
        if polite:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                os.write(self._in, b'{"type": "stop"}\n')
                assert self.process.stdin is not None
                self.process.stdin.close()
                self.process.wait(PATIENCE)
        lifeline.end(self.process)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()


def _limit(pid: int, memory: float) -> None:
    """Bound the address space of a process and leave no core files, where the system can do it from outside."""
    import resource

    if not hasattr(resource, "prlimit"):
        return
    with contextlib.suppress(OSError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if memory > 0:
            resource.prlimit(pid, resource.RLIMIT_AS, (int(memory * 2**30), int(memory * 2**30)))


# --- messages -----------------------------------------------------------------------------------------------------


def start_message(folder: str) -> dict[str, Any]:
    """Return the first message: what the oracle speaks."""
    return {
        "type": "start", "protocol": VERSIONS[-1], "versions": list(VERSIONS), "capabilities": list(CAPABILITIES),
        "operations": list(NAMES), "folder": folder,
    }  # fmt: skip


def packed(value: Any, folder: Path | None, name: str) -> Any:
    """Return an argument as JSON; its arrays as base64, or as ``.npy`` files where a folder is given.

    >>> packed(np.float32([1]), None, "g"), packed(0.5, None, "lam")
    ({'dtype': 'float32', 'shape': [1], 'base64': 'AACAPw=='}, 0.5)
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (list, tuple)):
        return [packed(v, folder, f"{name}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, np.ndarray):
        return float(value) if isinstance(value, Fraction) else value
    if folder is None:
        return hostile.untyped(value)
    path = folder / f"{name}.npy"
    path.write_bytes(hostile.npy_bytes(value))
    return {"dtype": value.dtype.name, "shape": list(value.shape), "npy": str(path)}


def run_message(case: Case, number: int, folder: Path | None = None) -> dict[str, Any]:
    """Return the message that hands over one case; ``number`` comes back with the answer.

    >>> import efcp_ref.oracle.cases as cases
    >>> list(run_message(cases.generate("sp", 0, 0), 7))
    ['type', 'id', 'operation', 'dtype', 'arguments']
    """
    arguments = {n: packed(v, folder, f"{number}-{n}") for n, v in case.arguments.items()}
    return {
        "type": "run", "id": number, "operation": case.operation, "dtype": case.dtype, "arguments": arguments,
    }  # fmt: skip


def _unpacked(name: str, value: Any, folder: Path | None) -> Any:
    """A typed array, a number, or lists of numbers (they take the precision of the case); null is left out."""
    if isinstance(value, dict):
        try:
            return hostile.typed(value, folder)
        except hostile.Hostile as why:
            raise results.ResultShape(f"{name}: {why}") from None
    if value is not None and (isinstance(value, (bool, str)) or not isinstance(value, (int, float, list))):
        raise results.ResultShape(f"{name} is {str(value)[:40]!r}, must be a typed array, a number or a list of them")
    return value


def unpacked(operation: str, raw: Any, dtype: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the results of a message as named arrays, as `results.run` gives them.

    Raises:
        ResultShape: a result is missing or cannot be read.

    >>> unpacked("sp", {"omega": [1.0, 2.0]}, "float32")
    {'omega': array([1., 2.], dtype=float32)}
    """
    if not isinstance(raw, dict):
        raise results.ResultShape(f"expected results by name; got {results.describe(raw)}")
    if operation not in OPTIMIZERS:
        op = OPERATIONS[operation]
        given = {n: _unpacked(n, raw[n], folder) for n in op.outputs if n in raw}
        needed, optional = tuple(r.name for r in op.results), tuple(s.name for s in op.stages)
        kinds = {r.name: r.kind for r in op.results if r.kind == "index"}
        return results.normalise(given, needed, optional, dtype, kinds)
    u = results.normalise({"u": _unpacked("u", raw.get("u"), folder)}, ("u",), (), dtype, {})["u"]
    states = raw.get("states")
    if states is not None and not (isinstance(states, list) and all(isinstance(s, dict) for s in states)):
        raise results.ResultShape(f"expected states as a list of objects; got {results.describe(states)}")
    return {"u": u, "states": [_state(s, dtype, folder) for s in states] if states else None}


def _state(state: dict[str, Any], dtype: str, folder: Path | None) -> dict[str, np.ndarray]:
    entries = {n: _unpacked(f"state {n!r}", v, folder) for n, v in state.items()}
    return {n: results.as_array(f"state {n!r}", v, dtype, "state") for n, v in entries.items() if v is not None}


# --- the target ---------------------------------------------------------------------------------------------------


class Process:
    """A target behind a command; see the module's first lines."""

    certify = False

    def __init__(
        self, command: str, timeout: float = 10.0, memory: float = 8.0, start_timeout: float | None = None
    ) -> None:
        """Start the command (split as a shell splits, run without one) and agree with it on version and capabilities.

        It must answer within ``start_timeout`` seconds, by default 30 or ``timeout``, whichever is more.

        Raises:
            UsageError: no such program, or a wrong declaration.
            BrokenTarget: it ended, hung, or does not speak the protocol.
        """
        self._command = _words(command)
        self.name = f"--command {shlex.quote(command)}"
        self._timeout, self._memory = timeout, memory
        self._start_timeout = max(timeout, START) if start_timeout is None else start_timeout
        self._pipe: Pipe | None = None
        self._number = 0
        self._folder = Path(tempfile.mkdtemp(prefix="efcp-ref-"))
        try:
            about = self._start()
            self._agree(about)
        except BaseException:
            self.close()
            raise

    def _agree(self, about: dict[str, Any]) -> None:
        offered, capabilities = _names(about, "operations"), _names(about, "capabilities")
        self.offered = tuple(n for n in NAMES if n in offered)
        self.names = tuple(offered)
        unknown = [n for n in offered if n not in NAMES] + [c for c in capabilities if c not in CAPABILITIES]
        note = f"it offers {', '.join(unknown[:5])}, which this oracle does not know"
        self.notes: tuple[str, ...] = (note,) if unknown else ()
        self.capabilities = tuple(c for c in CAPABILITIES if c in capabilities)
        self._files = "npy" in capabilities and "base64" not in capabilities
        raw = about.get("declared", {})
        self.declared = declared(raw if isinstance(raw, dict) else {"declared": raw})

    def _start(self) -> dict[str, Any]:
        """Start a process and return its greeting."""
        self._pipe = Pipe(self._command, self._memory)
        try:
            about = self._pipe.ask(start_message(str(self._folder)), self._start_timeout)
        except TimedOut:
            broken = f"no answer to start within {self._start_timeout:g} s, the limit for starting"
        except Died as why:
            broken = f"the process {why}"
        else:
            if about["type"] == "ready" and about.get("protocol") in VERSIONS:
                return about
            broken = f"it answered start with {json.dumps(about)[:200]}; expected ready with protocol {VERSIONS[-1]}"
        said = self._pipe.said()
        self._stop(False)
        raise BrokenTarget("\n".join(filter(None, (broken, said))))

    def run(self, case: Case) -> Outcome:
        """Hand over one case; a process that hangs or ends is replaced at the next call.

        Raises:
            BrokenTarget: the process does not start any more.
        """
        if "bfloat16" not in self.capabilities and any(_stored_bfloat16(v) for v in case.arguments.values()):
            return Outcome(error="raised", kind=DECLINED, reason="bfloat16 is not among its capabilities")
        if self._pipe is None:
            self._start()
        self._number += 1
        pipe, number = self._pipe, self._number
        assert pipe is not None
        try:
            answer = pipe.ask(run_message(case, number, self._folder if self._files else None), self._timeout)
            if answer.get("id") != number:
                raise Died(f"answered question {str(answer.get('id'))[:40]} instead of {number}")
            return self._outcome(case, answer, pipe.said())
        except TimedOut:
            return self._lost("timeout", f"timeout after {self._timeout:g} s")
        except Died as why:
            return self._lost("died", f"the process {why}")
        except BaseException:
            self._stop(False)
            raise
        finally:
            _empty(self._folder)

    def _outcome(self, case: Case, answer: dict[str, Any], said: str) -> Outcome:
        if answer["type"] == "error":
            kind, reason = str(answer.get("kind", "raised"))[:40], str(answer.get("reason", ""))[:300]
            if kind == "declined":
                return Outcome(error="raised", kind=DECLINED, reason=reason, output=said)
            return Outcome(error="raised", kind=kind, reason=f"said {kind}: {reason}", output=said)
        if answer["type"] != "result":
            raise Died(f"answered run with {answer['type'][:40]!r}, expected result or error")
        try:
            found = unpacked(case.operation, answer.get("results"), case.dtype, self._folder)
        except results.ResultShape as why:
            return Outcome(error="result shape", reason=str(why), output=said)
        return Outcome(results=found, output=said)

    def _lost(self, error: str, reason: str) -> Outcome:
        assert self._pipe is not None
        said = self._pipe.said()
        self._stop(False)
        return Outcome(error=error, reason=reason, output=said)

    def _stop(self, polite: bool) -> None:
        if self._pipe is not None:
            self._pipe.stop(polite)
            self._pipe = None

    def close(self) -> None:
        """Tell the process to stop, and end it."""
        self._stop(True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as why:
        raise UsageError(f"the command {command!r} cannot be read: {why}") from None
    if not words:
        raise UsageError("the command is empty")
    return words


def _names(about: dict[str, Any], key: str) -> list[str]:
    found = about.get(key, [])
    if not isinstance(found, list) or not all(isinstance(n, str) for n in found):
        raise BrokenTarget(f"its {key} are {str(found)[:60]}, expected a list of names")
    return [results.visible(n[:60]) for n in found[:500]]


def _stored_bfloat16(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.name == "bfloat16"


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)


def check_command(
    command: str, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, timeout: float = 10.0,
    memory: float = 8.0, progress: Progress | None = None, shrink_seconds: float = 5.0, *, only: int | None = None,
    dtype: str | None = None, start_timeout: float | None = None,
) -> Report:  # fmt: skip
    """Judge the process behind a command; see `efcp_ref.oracle.judge.check_target` for the other arguments.

    Args:
        command: program and arguments, split as a shell splits them: ``"./mine --fast"``.
        start_timeout: seconds until the process must have answered start; default 30, or ``timeout`` if that is more.

    Raises:
        UsageError: no such program or operation, or a wrong declaration.
    """
    wanted = None if operations is None else [known(o) for o in operations]
    try:
        opened = Process(command, timeout, memory, start_timeout)
    except BrokenTarget as why:
        return Report(f"--command {shlex.quote(command)}", (), seed, cases, str(why))
    except KeyboardInterrupt:
        return Report(f"--command {shlex.quote(command)}", (), seed, cases, interrupted=True)
    try:
        return judge(
            opened, wanted, cases, seed, progress=progress, shrink_seconds=shrink_seconds, only=only, dtype=dtype
        )  # fmt: skip
    finally:
        opened.close()
