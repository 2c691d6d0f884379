"""What is shown of one failure beside its numbers: the arrays of the stage that departs, the trace at its line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from efcp_ref.contract import OPERATIONS
from efcp_ref.oracle.core import Case, Check
from efcp_ref.oracle.criteria import structure
from efcp_ref.oracle.judge import Failure, judge_case
from efcp_ref.oracle.targets import BrokenTarget, Judged

BEFORE, AFTER = 6, 1  # lines of the trace around the one that is blamed
LONGEST = 1.0  # seconds: no trace of a case whose reference takes longer


@dataclass(frozen=True)
class Line:
    """One line of the trace."""

    tag: str
    printed: str  # LaTeX
    code: str
    changed: str
    blamed: bool


@dataclass(frozen=True)
class Evidence:
    """What a person looks at; every part may be missing."""

    stage: str = ""
    got: np.ndarray | None = None
    expected: np.ndarray | None = None
    ratio: np.ndarray | None = None
    trace: tuple[Line, ...] = ()  # of the smallest case that fails alike
    skipped: int = 0  # lines of the trace before these


def evidence(target: Judged, failure: Failure) -> Evidence:
    """Run the failing case again, watched; trace the reference on the smallest case that fails alike."""
    first, small = failure.verdict.first, failure.minimal or failure.verdict
    if first is None or small.first is None:
        return Evidence()
    arrays: tuple[Any, ...] = (None, None, None)
    with contextlib.suppress(BrokenTarget), structure.watched() as seen:
        again, _ = judge_case(target, failure.verdict.case)
        arrays = _blamed(seen, again.first or first)
    skipped, lines = _trace(small.case, small.first)
    got, expected, ratio = arrays
    return Evidence(first.stage, got, expected, ratio, lines, skipped)


def _blamed(seen: list[structure.Seen], check: Check) -> tuple[Any, Any, Any]:
    """The arrays of the check that is blamed: the same stage, and the same numbers."""
    for one in seen:
        if one.stage == check.stage and check.at and len(check.at) == one.got.ndim and _inside(one.got, check.at):
            same = float(one.got[check.at]) == check.got or not np.isfinite(one.got[check.at])
            if same and float(one.expected[check.at]) == check.expected:
                return one.got, one.expected, one.ratio
    return None, None, None


def _inside(a: np.ndarray, at: tuple[int, ...]) -> bool:
    return all(i < n for i, n in zip(at, a.shape, strict=True))


def _trace(case: Case, check: Check) -> tuple[int, tuple[Line, ...]]:
    """Lines around the last run of the blamed line, in the reference, on this case."""
    import efcp_ref
    from efcp_ref import tracing

    began = time.monotonic()
    try:
        with np.errstate(all="ignore"):
            _run(getattr(efcp_ref, case.operation), case)
            if time.monotonic() - began > LONGEST:
                return 0, ()
            run = tracing.trace(_run, getattr(efcp_ref, case.operation), case)
    except Exception:  # the reference declines some cases, such as infinities; a trace is an extra
        return 0, ()
    found = [i for i, event in enumerate(run.events) if event.line == check.line]
    if not found:
        return 0, ()
    step = check.at[0] if case.operation not in OPERATIONS and check.at and check.stage == "u" else len(found) - 1
    at = found[min(step, len(found) - 1)]
    start = max(0, at - BEFORE)
    return start, tuple(_lines(run, start, at))


def _lines(run: Any, start: int, at: int) -> Iterator[Line]:
    from efcp_ref import tracing
    from efcp_ref.paper.printed import lines

    printed = lines()
    rows = tracing.table(run)
    for i in range(start, min(at + AFTER + 1, len(rows))):
        tag = rows[i].line
        yield Line(tag, printed[tag].latex if tag in printed else "", rows[i].code, rows[i].changed, i == at)


def _run(function: Any, case: Case) -> Any:
    if case.operation in OPERATIONS:
        return function(*case.arguments.values())
    optimizer = function(**{n: v for n, v in case.arguments.items() if n != "gradients"})
    return [optimizer.step(g) for g in case.arguments["gradients"]]
