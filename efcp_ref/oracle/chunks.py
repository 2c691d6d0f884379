"""Chunks: a few consecutive cases of one operation, judged together wherever there is a worker.

A verdict depends on ``(operation, seed, index, dtype)`` and on nothing else, and chunks are counted in the order of
their cases; so the report is the same whatever the number of workers and whichever of them was faster.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from efcp_ref.contract import NAMES
from efcp_ref.oracle.lifeline import FOLLOWED
from efcp_ref.oracle.record import DTYPES, Row, Thinner, from_json, row_is_sound, to_json
from efcp_ref.oracle.targets import START_TIMEOUT, Judged

SIZE = 10  # cases of one chunk; each is judged once per precision


@dataclass(frozen=True)
class Door:
    """How to open a target again, in another process or on another machine."""

    target: str  # as `check_target` takes it, or a command line
    timeout: float = 10.0
    memory: float = 8.0
    start_timeout: float | None = None  # seconds; None: what each kind of door usually allows
    command: bool = False
    certify: bool = False

    @property
    def name(self) -> str:
        """What reports call it; pasted after ``efcp-ref check``, it is judged again."""
        return f"--command {shlex.quote(self.target)}" if self.command else self.target

    def open(self) -> Judged:
        """Open it.

        Raises:
            UsageError, BrokenTarget: as `Target` and `Process` do.
        """
        opened = self._open()
        opened.certify = self.certify
        return opened

    def _open(self) -> Any:
        if self.command:
            from efcp_ref.oracle.process import Process

            return Process(self.target, self.timeout, self.memory, self.start_timeout)
        from efcp_ref.oracle.targets import Target

        start = START_TIMEOUT if self.start_timeout is None else self.start_timeout
        return Target(self.target, self.timeout, self.memory, start)


@dataclass(frozen=True)
class Chunk:
    """Cases ``start`` up to, not including, ``stop`` of one operation."""

    operation: str
    seed: int
    start: int
    stop: int
    dtype: str | None = None  # None: in every precision that the target takes

    @property
    def id(self) -> str:
        """Stable name: it does not depend on how many cases there are in all."""
        return f"{self.operation}:{self.seed}:{self.start}-{self.stop}:{self.dtype or 'all'}"


@dataclass(frozen=True)
class Finished:
    """The rows of a chunk, in order; fewer than the chunk holds where going on was hopeless."""

    chunk: Chunk
    rows: tuple[Row, ...]
    seconds: float = 0.0
    lost: int = 0  # workers that died on it


def split(operation: str, seed: int, cases: int, dtype: str | None = None, size: int = SIZE) -> Iterator[Chunk]:
    """Yield the chunks of the first ``cases`` cases.

    >>> [chunk.id for chunk in split("sp", 0, 25)]
    ['sp:0:0-10:all', 'sp:0:10-20:all', 'sp:0:20-25:all']
    """
    for start in range(0, cases, size):
        yield Chunk(operation, seed, start, min(start + size, cases), dtype)


def judge_chunk(target: Judged, chunk: Chunk, going_on: Callable[[], bool] = lambda: True) -> Finished:
    """Judge every case of a chunk; stops where `judge` would give up on the operation."""
    import time

    from efcp_ref.oracle.cases import generate
    from efcp_ref.oracle.judge import DEATHS, TIMEOUTS, attempt, both

    began, thinner, rows, lost = time.monotonic(), Thinner(), [], Counter[str]()
    cases = (generate(chunk.operation, chunk.seed, index) for index in range(chunk.start, chunk.stop))
    for case in both(cases, target.declared, chunk.dtype):
        verdict, outcome = attempt(target, case)
        rows.append(thinner.row(verdict, outcome))
        lost[outcome.error] += 1
        if lost["timeout"] >= TIMEOUTS or lost["died"] >= DEATHS or not going_on():
            break
    return Finished(chunk, tuple(rows), time.monotonic() - began)


# --- as one line of JSON ------------------------------------------------------------------------------------------


def to_line(finished: Finished) -> bytes:
    """Return a finished chunk as one line: a checksum, then JSON."""
    body = {"chunk": asdict(finished.chunk), "seconds": round(finished.seconds, 4), "lost": finished.lost,
            "rows": [to_json(row) for row in finished.rows]}  # fmt: skip
    data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %b\n" % (zlib.crc32(data), data)


def from_line(line: bytes) -> Finished | None:
    """Read a line of `to_line`; None where it is torn or damaged.

    >>> from_line(to_line(Finished(Chunk("sp", 0, 0, 10), ()))).chunk.id, from_line(b"0 {")
    ('sp:0:0-10:all', None)
    """
    try:
        checksum, data = line[:8], line[9:-1]
        if line[8:9] != b" " or line[-1:] != b"\n" or int(checksum, 16) != zlib.crc32(data):
            return None
        body = json.loads(data)
        chunk = Chunk(**body["chunk"])
        rows = tuple(from_json(chunk.operation, chunk.seed, raw) for raw in body["rows"])
        finished = Finished(chunk, rows, body["seconds"], body["lost"])
        return finished if _sound(finished) else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _sound(finished: Finished) -> bool:
    """Whether everything has the type and lies in the range that counting relies on: a checksum can be forged."""
    chunk, numbers = finished.chunk, (finished.chunk.seed, finished.chunk.start, finished.chunk.stop, finished.lost)
    return (
        chunk.operation in NAMES
        and all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)
        and chunk.start < chunk.stop <= chunk.start + SIZE
        and chunk.dtype in (None, *DTYPES)
        and type(finished.seconds) in (int, float)
        and 0 <= finished.seconds < 1e9
        and len(finished.rows) <= SIZE * len(DTYPES)
        and all(row_is_sound(row) and chunk.start <= row.index < chunk.stop for row in finished.rows)
    )


# --- a worker process ---------------------------------------------------------------------------------------------


def serve(arguments: list[str]) -> None:
    """Judge the chunks that arrive on stdin, one JSON object per line; answer on stdout with `to_line`.

    Ends when stdin does, and in the middle of a chunk when the process that started it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted, too, and ends this one
    parent, answers = os.getppid(), os.dup(1)
    os.dup2(2, 1)  # whatever else is printed here goes to stderr
    target: Judged | None = None
    try:
        FOLLOWED.add(parent)  # also while a target is waited for
        target = Door(**json.loads(arguments[0])).open()
        for line in sys.stdin:
            done = judge_chunk(target, Chunk(**json.loads(line)), lambda: os.getppid() == parent)
            if os.getppid() != parent:
                return
            view = memoryview(to_line(done))
            while view:
                view = view[os.write(answers, view) :]
    except BrokenPipeError:
        return
    finally:
        if target is not None:
            target.close()


# --- a worker of a Dask cluster -----------------------------------------------------------------------------------

_OPEN: dict[tuple[int, Door], Judged] = {}


def judge_remotely(door: dict[str, Any], chunk: dict[str, Any]) -> bytes:
    """Judge one chunk as a task of a Dask worker, whose threads keep a target open each."""
    import threading

    key = threading.get_ident(), Door(**door)
    if key not in _OPEN:
        _OPEN[key] = key[1].open()
    return to_line(judge_chunk(_OPEN[key], Chunk(**chunk)))
