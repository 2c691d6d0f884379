"""Judges a target and writes the report: what ``efcp-ref check --report DIR`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from efcp_ref.oracle import campaign
from efcp_ref.oracle.judge import Progress, Report, judge
from efcp_ref.oracle.report.collect import Stats
from efcp_ref.oracle.report.evidence import Evidence
from efcp_ref.oracle.report.files import evidence_of, ours, write
from efcp_ref.oracle.targets import BrokenTarget, known


def check(
    door: campaign.Door, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, *,
    folder: Path | None = None, jobs: int | None = None, dask: str | None = None, fresh: bool = False,
    only: int | None = None, dtype: str | None = None, progress: Progress | None = None, shrink_seconds: float = 5.0,
) -> Report:  # fmt: skip
    """Judge what is behind a door; with a folder, write the campaign down there, resume it, and write the report.

    Args:
        door: how to open the target.
        operations, cases, seed, only, dtype, progress, shrink_seconds: as `efcp_ref.oracle.judge.check_target`.
        folder, jobs, dask, fresh: as `efcp_ref.oracle.campaign.run`.

    Raises:
        UsageError: no such target, operation or cluster, or a folder that holds another campaign or files that are
            not ours.
    """
    def judged(stats: Stats) -> Report:
        if only is not None:
            return _one(door, operations, cases, seed, only, dtype, progress, shrink_seconds, stats)
        return campaign.run(
            door, operations, cases, seed, jobs=jobs, dask=dask, dtype=dtype, progress=progress,
            shrink_seconds=shrink_seconds, folder=folder, fresh=fresh, seen=stats.add,
        )  # fmt: skip

    return _written(folder, judged, lambda report: _evidence(door, report), campaign=only is None)


def check_files(
    outputs: Path, vectors: Path | None = None, operations: Iterable[str] | None = None, *, only: int | None = None,
    folder: Path | None = None, certify: bool = False,
) -> Report:  # fmt: skip
    """Judge what a program left in files, as `efcp_ref.oracle.vectors.check_outputs`; with a folder, write the report.

    Raises:
        UsageError: as `check_outputs`.
    """
    from efcp_ref.oracle.vectors import check_outputs

    return _written(
        folder, lambda stats: check_outputs(outputs, vectors, operations, only=only, certify=certify, seen=stats.add)
    )


def check_together(
    target: str, workers: int, operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, *,
    folder: Path | None = None, timeout: float = 10.0, memory: float = 8.0, only: int | None = None,
    dtype: str | None = None, progress: Progress | None = None, certify: bool = False,
) -> Report:  # fmt: skip
    """Judge a target in several processes, as `efcp_ref.oracle.workers.check_workers`; with a folder, write the report.

    Raises:
        UsageError: as `check_workers`.
    """
    from efcp_ref.oracle.workers import check_workers

    def judged(stats: Stats) -> Report:
        return check_workers(
            target, workers, operations, cases, seed, timeout=timeout, memory=memory, only=only, dtype=dtype,
            progress=progress, seen=stats.add, certify=certify,
        )  # fmt: skip

    return _written(folder, judged)


def _written(
    folder: Path | None, judged: Callable[[Stats], Report],
    evidence: Callable[[Report], dict[int, Evidence]] = lambda report: {}, campaign: bool = False,
) -> Report:  # fmt: skip
    """Judge, and with a folder write the report there; a folder that holds other files is refused before anything."""
    stats = Stats()
    if folder:
        ours(folder, campaign)
    report = judged(stats)
    if folder:
        write(folder, report, stats, evidence(report))
    return report


def _one(
    door: campaign.Door, operations: Iterable[str] | None, cases: int, seed: int, only: int, dtype: str | None,
    progress: Progress | None, shrink_seconds: float, stats: Stats,
) -> Report:  # fmt: skip
    """Judge one index of case, which is no campaign."""
    wanted = None if operations is None else [known(o) for o in operations]
    try:
        target = door.open()
    except BrokenTarget as why:
        return Report(door.name, (), seed, cases, str(why))
    with closing(target):
        return judge(
            target, wanted, cases, seed, progress=progress, shrink_seconds=shrink_seconds, only=only, dtype=dtype,
            seen=stats.add,
        )  # fmt: skip


def _evidence(door: campaign.Door, report: Report) -> dict[int, Evidence]:
    if report.interrupted or not any(o.failures for o in report.operations):
        return {}
    try:
        with closing(door.open()) as target:
            return evidence_of(report, target)
    except BrokenTarget:
        return {}
