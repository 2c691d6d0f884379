"""Judge a target at the paper's sizes: what ``efcp-ref check --large`` runs. Minutes, and some GiB of memory."""

from __future__ import annotations

from collections.abc import Iterable

from efcp_ref.oracle.cases import generate, large
from efcp_ref.oracle.judge import Progress, Report, both, judge
from efcp_ref.oracle.targets import BrokenTarget, Target, known

TIMEOUT, MEMORY = 300.0, 24.0  # seconds per case, GiB of address space


def check_large(
    target: str, operations: Iterable[str] | None = None, seed: int = 0, dtype: str | None = None, *,
    timeout: float = TIMEOUT, memory: float = MEMORY, progress: Progress | None = None,
) -> Report:  # fmt: skip
    """Judge a Python target in a child process by the large cases of the operations that have some.

    A failing case is not made smaller: nothing small would show it. ``efcp-ref check --case 1000000`` and so on repeat
    one of them.

    Raises:
        UsageError: no such target or operation, or a wrong declaration.
    """
    asked = set(large.FAMILY) if operations is None else {known(o) for o in operations} & set(large.FAMILY)
    try:
        opened = Target(target, timeout, memory)
    except BrokenTarget as why:
        return Report(target, (), seed, 0, str(why))
    try:
        reports = []
        for name in [n for n in large.FAMILY if n in asked]:  # one operation at a time: its cases fill memory
            drawn = both((generate(name, seed, i) for i in large.indices(name)), opened.declared, dtype)
            given = {name: list(drawn)}
            reports.append(judge(opened, [name], seed=seed, given=given, shrink_seconds=0.0, progress=progress))
        return _together(target, seed, reports)
    finally:
        opened.close()


def _together(target: str, seed: int, reports: list[Report]) -> Report:
    """Return one report of several."""
    entries = tuple(entry for report in reports for entry in report.operations)
    notes = tuple(dict.fromkeys(note for report in reports for note in report.notes))
    interrupted = any(report.interrupted for report in reports)
    cases = max((len(large.indices(entry.operation)) for entry in entries), default=0)
    return Report(target, entries, seed, cases, "", notes, interrupted, sum(report.seconds for report in reports))
