"""Campaigns: many cases over many workers, written down as they finish, resumed after a kill.

A folder holds ``campaign.json`` (what is judged), ``chunks.log`` (one line per finished chunk, flushed to the disk
before it counts) and ``failing`` (vectors of the cases that failed, judged first the next time). A line that a kill
tore off is cut and its chunk judged again; a chunk that is there is not.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from efcp_ref.contract import NAMES
from efcp_ref.oracle import hostile
from efcp_ref.oracle import judge as judging
from efcp_ref.oracle.chunks import SIZE, Chunk, Door, Finished, from_line, judge_chunk, split, to_line
from efcp_ref.oracle.core import ERROR, FAIL, SKIP, Case, CaseVerdict
from efcp_ref.oracle.judge import Failure, OperationReport, Progress, Report, Seen, attempt
from efcp_ref.oracle.pool import Finishes, locally, on_dask, oracle_version
from efcp_ref.oracle.record import Row, case_of, restored
from efcp_ref.oracle.targets import BrokenTarget, Judged, Outcome, UsageError, known
from efcp_ref.oracle.worker import is_path, part

FORMAT = "efcp-ref campaign 1"
CODE = (".py", ".so", ".c", ".cu", ".cpp", ".h", ".rs", ".pyx")  # files beside a target that change what it is
KEPT = "failing"  # folder of the vectors
SMALLEST = "smallest"  # family of a kept case that no seed generates
LARGEST_HEAD = 1 << 20  # bytes of campaign.json
MOST_KEPT = 50  # failing cases of one operation that are kept as vectors

Again = tuple[CaseVerdict, Outcome]


@dataclass(frozen=True)
class Plan:
    """What is judged: the same plan gives the same verdicts."""

    door: Door
    operations: tuple[str, ...]
    cases: int
    seed: int
    dtype: str | None = None

    def chunks(self, going_on: Callable[[str], bool] = lambda _: True) -> Iterator[Chunk]:
        """Yield the chunks, operations in turn, so that every operation is judged early."""
        rounds = range(0, self.cases, SIZE)
        for start in rounds:
            for operation in self.operations:
                if going_on(operation):
                    yield Chunk(operation, self.seed, start, min(start + SIZE, self.cases), self.dtype)

    def holds(self, case: Row | Case) -> bool:
        """Whether a case is one of the plan's."""
        return case.seed == self.seed and case.index < self.cases and self.dtype in (None, case.dtype)

    def head(self) -> dict[str, Any]:
        """Return what a folder must agree with to be resumed; more cases may be asked for than before."""
        return {"format": FORMAT, "target": self.door.target, "code": fingerprint(self.door),
                "oracle": oracle_version(), "seed": self.seed,
                "operations": list(self.operations), "dtype": self.dtype, "timeout": self.door.timeout,
                "memory": self.door.memory, "chunk": SIZE, "certify": self.door.certify}  # fmt: skip


def fingerprint(door: Door) -> str:
    """Return a digest of the target's code: its file and the code beside it, its package, or its program."""
    digest = hashlib.sha256()
    for path in sorted(_code(door))[:2000]:
        digest.update(str(path.name).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _code(door: Door) -> list[Path]:
    if door.command:
        import shlex

        return [path for word in shlex.split(door.target) if (path := Path(word)).is_file()]
    where, _ = part(door.target)
    if not is_path(where):
        spec = importlib.util.find_spec(where) if _importable(where) else None
        where = (spec.origin or "") if spec else ""
    path = Path(where).resolve()
    if path.is_dir() or (path.parent / "__init__.py").exists():
        return [p for p in (path if path.is_dir() else path.parent).rglob("*") if p.suffix in CODE and p.is_file()]
    return [p for p in path.parent.iterdir() if p.suffix in CODE and p.is_file()] if path.is_file() else []


def _importable(name: str) -> bool:
    try:
        return all(importlib.util.find_spec(n) is not None for n in (name.partition(".")[0], name))
    except (ImportError, ValueError, AttributeError):
        return False


# --- the log ------------------------------------------------------------------------------------------------------


class Log:
    """The finished chunks of a folder: where each begins in the file."""

    def __init__(self, folder: Path, plan: Plan, fresh: bool = False) -> None:
        """Open the folder, alone; resume what a kill left, or start.

        Raises:
            UsageError: another process writes there; or ``fresh`` is not asked for, and an unfinished campaign differs,
                or a finished one would be lost.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.plan = folder, plan
        self.file: IO[bytes] = open(folder / "chunks.log", "a+b")  # noqa: SIM115 - held until `close`
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise UsageError(f"{folder}: another campaign writes there") from None
        self.at: dict[str, int] = {}
        head = None if fresh else self._head()
        if head is None or head.get("finished"):
            self._replaces(head or {})
            self.file.truncate(0)
        else:
            self._same(head)
            self._read()
        self.resumed = len(self.at)
        self.finish(False)

    def _head(self) -> dict[str, Any] | None:
        """Return what the folder says it holds; None where it holds nothing."""
        written = self.file.seek(0, os.SEEK_END)
        try:
            head = hostile.json_value(hostile.read_inside(self.folder, "campaign.json", LARGEST_HEAD))
            hostile.field(head, "format", str)
            return head
        except hostile.Missing:
            if not written:
                return None
            why = "it holds chunks.log without campaign.json"
        except hostile.Hostile as broken:
            why = f"campaign.json cannot be read ({broken})"
        self.file.close()
        raise UsageError(f"{self.folder}: {why}; --fresh starts over")

    def _replaces(self, head: dict[str, Any]) -> None:
        """Refuse to replace the finished campaign of another target, or of operations that this one lacks."""
        mine, before = self.plan.head(), head.get("operations")
        lost = ["target"] if head and head.get("target") != mine["target"] else []
        if isinstance(before, list) and not set(map(str, before)) <= set(mine["operations"]):
            lost.append("operations")
        if lost:
            self.file.close()
            raise UsageError(
                f"{self.folder} holds a finished campaign with another {' and '.join(lost)}, which would be lost; "
                "choose another folder, or start over with --fresh"
            )

    def _same(self, head: dict[str, Any]) -> None:
        """Refuse to mix two campaigns."""
        mine = self.plan.head()
        head = {"certify": False, **head}  # folders of before it could be asked for
        different = [name for name in mine if head.get(name) != mine[name]]
        if different:
            self.file.close()
            raise UsageError(
                f"{self.folder} holds an unfinished campaign with another {' and '.join(different)}; "
                "finish it with what it was started with, or start over with --fresh"
            )

    def _read(self) -> None:
        """Find the chunks; cut off what a kill tore."""
        self.file.seek(0)
        end = 0
        for line in self.file:
            done = from_line(line)
            if done is None:
                break
            self.at.setdefault(done.chunk.id, end)
            end += len(line)
        self.file.truncate(end)

    def add(self, done: Finished) -> bool:
        """Write a chunk, down to the disk; False where it is there."""
        if done.chunk.id in self.at:
            return False
        self.at[done.chunk.id] = self.file.seek(0, os.SEEK_END)
        self.file.write(to_line(done))
        self.file.flush()
        os.fsync(self.file.fileno())
        return True

    def get(self, chunk: Chunk) -> Finished | None:
        """Read a chunk back."""
        if chunk.id not in self.at:
            return None
        self.file.seek(self.at[chunk.id])
        return from_line(self.file.readline())

    def finish(self, finished: bool = True) -> None:
        """Write the head, whole or not at all."""
        body = self.plan.head() | {"cases": self.plan.cases, "finished": finished}
        replace_file(self.folder / "campaign.json", json.dumps(body, indent=1).encode() + b"\n")

    def close(self) -> None:
        """Let go of the folder."""
        self.file.close()


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a kill leaves the old one or the new one."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


# --- counting in order --------------------------------------------------------------------------------------------


class Ledger:
    """Counts finished chunks in the order of their cases, whatever the order in which they arrive."""

    def __init__(self, plan: Plan, log: Log | None, seen: Seen | None) -> None:
        self.plan, self.log, self.seen = plan, log, seen
        self.tallies = {o: judging._Tally(o) for o in plan.operations}
        self.seconds = dict.fromkeys(plan.operations, 0.0)
        self.judged = dict.fromkeys(plan.operations, 0)  # cases, without precisions
        self.failing: dict[str, list[Row]] = {o: [] for o in plan.operations}
        self._next = {o: split(o, plan.seed, plan.cases, plan.dtype) for o in plan.operations}
        self._due = {o: next(chunks) for o, chunks in self._next.items()}
        self._early: dict[Chunk, Finished] = {}

    def going_on(self, operation: str) -> bool:
        """Whether the operation is not given up."""
        return not self.tallies[operation].note

    def has(self, chunk: Chunk) -> bool:
        """Whether the log holds the chunk."""
        return self.log is not None and chunk.id in self.log.at

    def add(self, done: Finished) -> None:
        """Take a finished chunk in; a second time, it counts for nothing."""
        if self.log is None or self.log.add(done):
            self._early[done.chunk] = done
            self.count(done.chunk.operation)

    def count(self, operation: str) -> None:
        """Count the chunks that are due."""
        while (due := self._due.get(operation)) and self.going_on(operation):
            done = self._early.pop(due, None) or (self.log.get(due) if self.log else None)
            if done is None:
                return
            for row in done.rows:
                self._row(row)
                if not self.going_on(operation):
                    break
            self.seconds[operation] += done.seconds
            self.judged[operation] = due.stop
            self._due[operation] = next(self._next[operation], None)  # type: ignore[assignment]

    def _row(self, row: Row) -> None:
        tally = self.tallies[row.operation]
        tally.add(*restored(row), keep=row.kept)
        if tally.hopeless() and row.index + 1 < self.plan.cases:
            tally.note += f", the cases after {row.index} not judged"
        if row.verdict in (FAIL, ERROR) and len(self.failing[row.operation]) < MOST_KEPT:
            self.failing[row.operation].append(row)
        if self.seen:
            self.seen(row)

    def progress(self) -> tuple[int, int]:
        """Return cases done and cases in all, without those that were given up."""
        done = sum(self.judged.values()) + sum(c.stop - c.start for c in self._early)
        return done, sum(self.plan.cases if self.going_on(o) else self.judged[o] for o in self.plan.operations)

    def left(self, speed: float) -> float:
        """Return about how many seconds are left, where one second does ``speed`` seconds of chunks."""
        known_ = {o: self.seconds[o] / self.judged[o] for o in self.plan.operations if self.judged[o]}
        usual = sum(known_.values()) / len(known_) if known_ else 0.0
        rest = ((self.plan.cases - self.judged[o]) * known_.get(o, usual) for o in self.tallies if self.going_on(o))
        return sum(rest) / speed if speed else 0.0


def duration(seconds: float) -> str:
    """Say how long something takes.

    >>> duration(42), duration(400), duration(7300)
    ('42 s', '6 min 40 s', '2 h 1 min')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


# --- a campaign ---------------------------------------------------------------------------------------------------


def run(
    door: Door, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, *, jobs: int | None = None,
    dask: str | None = None, dtype: str | None = None, progress: Progress | None = None, shrink_seconds: float = 5.0,
    folder: Path | None = None, fresh: bool = False, seen: Seen | None = None,
) -> Report:  # fmt: skip
    """Judge a target with many workers and return the report.

    Args:
        door: how to open the target.
        operations, cases, seed, dtype, progress, shrink_seconds: as `check_target`.
        jobs: local processes; default two where there are many cases.
        dask: address of a Dask scheduler to use instead.
        folder: where the campaign is written down and resumed from; default nowhere.
        fresh: start over even where another campaign is found.
        seen: called with every row, in the order of the cases.

    Raises:
        UsageError: no such target, operation or cluster, or a folder that holds another campaign.
        LostWorkers: workers died again and again.
    """
    try:
        target = door.open()
    except BrokenTarget as why:
        return Report(door.name, (), seed, cases, str(why))
    except KeyboardInterrupt:
        return Report(door.name, (), seed, cases, interrupted=True)
    with closing(target):
        return on(
            target, door, operations, cases, seed, jobs=jobs, dask=dask, dtype=dtype, progress=progress,
            shrink_seconds=shrink_seconds, folder=folder, fresh=fresh, seen=seen,
        )  # fmt: skip


def on(
    target: Judged, door: Door, operations: Iterable[str] | None, cases: int, seed: int, *, jobs: int | None = None,
    dask: str | None = None, dtype: str | None = None, progress: Progress | None = None, shrink_seconds: float = 5.0,
    folder: Path | None = None, fresh: bool = False, seen: Seen | None = None,
) -> Report:  # fmt: skip
    """Judge a target that is open here, too; see `run` for the arguments."""
    wanted = None if operations is None else {known(o) for o in operations}
    asked = [n for n in NAMES if wanted is None or n in wanted]
    plan = Plan(door, tuple(n for n in asked if n in target.offered), cases, seed, dtype)
    log = Log(folder, plan, fresh) if folder else None
    try:
        ledger = Ledger(plan, log, seen)
        jobs = jobs or judging.usual_jobs(target, plan.operations, cases)
        return _Run(target, plan, ledger, jobs, dask, progress, shrink_seconds).report(asked)
    finally:
        if log:
            log.close()


@dataclass
class _Run:
    """One session of a campaign, from the first chunk to the report."""

    target: Judged
    plan: Plan
    ledger: Ledger
    jobs: int
    dask: str | None
    progress: Progress | None
    shrink_seconds: float

    def report(self, asked: list[str]) -> Report:
        """Judge what is left, and sum up."""
        began, log = time.monotonic(), self.ledger.log
        notes, interrupted = list(self.target.notes), False
        if log and log.resumed:
            notes.append(f"resumed: {log.resumed} chunks of {SIZE} cases were judged before")
        again: list[Again] = []
        try:
            again = self._again(notes)
            self._chunks(began)
        except KeyboardInterrupt:
            interrupted = True
        entries = tuple(self._entry(o, again, interrupted) for o in asked)
        if not interrupted and log:
            keep(log.folder, self.ledger.failing, entries)
            log.finish()
        notes += [] if self.target.offered else [judging._nothing(self.target)]
        name, plan = self.target.name, self.plan
        return Report(name, entries, plan.seed, plan.cases, "", tuple(notes), interrupted, time.monotonic() - began)

    def _again(self, notes: list[str]) -> list[Again]:
        """Judge first what failed before; return what still fails and is not among this campaign's cases."""
        kept, unread = kept_in(self.ledger.log.folder, self.plan) if self.ledger.log else ([], 0)
        lost, judged = Counter[str](), []
        for case in kept:
            if lost[case.operation] < judging.TIMEOUTS:
                judged.append(attempt(self.target, case))
                lost[case.operation] += judged[-1][1].error in ("timeout", "died")
        still = [(v, o) for v, o in judged if v.verdict in (FAIL, ERROR)]
        notes += [f"of {len(judged)} cases that failed before, {len(still)} still do"] if judged else []
        notes += [f"{unread} kept vectors cannot be read"] if unread else []
        return [(v, o) for v, o in still if v.case.family == SMALLEST or not self.plan.holds(v.case)]

    def _chunks(self, began: float) -> None:
        ledger = self.ledger
        for operation in self.plan.operations:
            ledger.count(operation)
        before = sum(ledger.seconds.values())
        todo = (chunk for chunk in self.plan.chunks(ledger.going_on) if not ledger.has(chunk))
        with closing(self._finishes(todo)) as finishes:
            for done in finishes:
                ledger.add(done)
                if self.progress:
                    speed = (sum(ledger.seconds.values()) - before) / max(time.monotonic() - began, 1e-9)
                    label = f"{done.chunk.operation}, about {duration(ledger.left(speed))} left"
                    self.progress(label, *ledger.progress())

    def _finishes(self, todo: Iterator[Chunk]) -> Finishes:
        if self.dask is not None:
            return on_dask(self.plan.door, todo, self.dask)
        return locally(self.plan.door, todo, self.jobs) if self.jobs > 1 else self._here(todo)

    def _here(self, todo: Iterator[Chunk]) -> Finishes:
        for chunk in todo:
            yield judge_chunk(self.target, chunk)

    def _entry(self, operation: str, again: list[Again], interrupted: bool) -> OperationReport:
        if operation not in self.ledger.tallies:
            return OperationReport(operation, SKIP)
        tally = self.ledger.tallies[operation]
        for verdict, outcome in again:
            if verdict.case.operation == operation:
                tally.add(verdict, outcome)
        shown: tuple[Failure, ...] = tuple(tally.bad.values())
        if not interrupted:
            shown = judging._shown(self.target, tally, self.shrink_seconds)
        return replace(tally.report(shown), seconds=self.ledger.seconds[operation])


# --- failing cases, for the next time -----------------------------------------------------------------------------


def keep(folder: Path, failing: dict[str, list[Row]], entries: Iterable[OperationReport]) -> None:
    """Write failing cases, and the smallest that fail alike, as vectors: the next campaign judges them first."""
    from efcp_ref.oracle import vectors

    for operation, rows in failing.items():
        there = {path.name for path in (folder / KEPT / operation).glob("*")}
        new = [row for row in rows if _id(row) not in there]
        for row in new[: max(0, MOST_KEPT - len(there))]:
            vectors.save(folder / KEPT, case_of(row), f"{operation}/{_id(row)}")
    for failure in (f for entry in entries for f in entry.failures if f.minimal):
        assert failure.minimal is not None
        small = replace(failure.minimal.case, family=SMALLEST)
        vectors.save(folder / KEPT, small, f"{small.operation}/{_id(small)}-smallest")


def _id(case: Row | Case) -> str:
    return f"{case.seed}-{case.index}-{case.dtype}"


def kept_in(folder: Path, plan: Plan) -> tuple[list[Case], int]:
    """Return the cases that failed before, of the operations that are judged; and how many cannot be read."""
    from efcp_ref.oracle import vectors

    cases, unread = [], 0
    for operation in plan.operations:
        for path in sorted((folder / KEPT / operation).glob("*"))[: 2 * MOST_KEPT]:
            try:
                case = vectors.load(folder / KEPT, f"{operation}/{path.name}").case
            except (vectors.Hostile, OSError):
                unread += 1
            else:
                cases += [case] if plan.dtype in (None, case.dtype) else []
    return cases, unread


__all__ = ["Door", "Ledger", "Log", "Plan", "duration", "fingerprint", "keep", "kept_in", "run"]
