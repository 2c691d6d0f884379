"""A report as a person reads it: a table, then each failure; and the same as JSON for machines."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from efcp_ref.contract import OPERATIONS, OPTIMIZERS
from efcp_ref.oracle.certify import total
from efcp_ref.oracle.core import ERROR, FAIL, SKIP, Case, CaseVerdict, Check
from efcp_ref.oracle.judge import Failure, OperationReport, Report

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"pass": "green", "fail": "bold red", "error": "red", "inconclusive": "yellow", "skip": "dim"}
FEW = 120  # numbers that are written out; of longer arrays only those that differ from the most frequent one


def line_name(line: str) -> str:
    """Say where a tag is printed.

    >>> line_name("2:11"), line_name("S1:5"), line_name("W:4")
    ('Algorithm 2, line 11', 'slides, Algorithm 1, line 5', 'section 2.2 (W:4)')
    """
    key, _, n = line.partition(":")
    if key in ("K", "W"):
        return f"{'section 2.2' if key == 'W' else 'section 3.1 and appendix K'} ({line})"
    return f"slides, Algorithm {key[1:]}, line {n}" if key.startswith("S") else f"Algorithm {key}, line {n}"


def number(x: float | None) -> str:
    """Return a number in decimal and in hexadecimal, which loses nothing.

    >>> number(0.5)
    '0.5  (0x1.0000000000000p-1)'
    """
    return "-" if x is None else f"{float(x)!r}  ({float(x).hex()})" if math.isfinite(x) else repr(float(x))


def command(target: str, case: Case) -> str:
    """Return the one command that reproduces a case."""
    if target == "standard input":
        which = f"{case.operation} --seed {case.seed} --case {case.index} --dtype {case.dtype}"
        return f"efcp-ref gen {which} | ./mine | efcp-ref verify {case.operation}"
    named = target if target.startswith("--") else shlex.quote(target)  # --command and --outputs come quoted
    if target.startswith("--outputs "):
        return f"efcp-ref check {named} --operation {case.operation} --case {case.index}"  # files hold one seed
    return (
        f"efcp-ref check {named} --operation {case.operation} --seed {case.seed} "
        f"--case {case.index} --dtype {case.dtype}"
    )


# --- a case as NumPy literals -------------------------------------------------------------------------------------


def _digits(x: Any) -> str:
    value = float(x)
    if not math.isfinite(value):
        return "np.nan" if math.isnan(value) else "np.inf" if value > 0 else "-np.inf"
    short = str(x)
    return short if isinstance(x, np.floating) and type(x)(float(short)) == x else repr(value)


def _nested(a: np.ndarray) -> str:
    if a.ndim:
        return "[" + ", ".join(_nested(row) for row in a) + "]"
    return str(int(a)) if a.dtype.kind in "iub" else _digits(a[()])


def _dtype(a: np.ndarray) -> str:
    return f"ml_dtypes.{a.dtype}" if a.dtype.kind == "V" else f"np.{a.dtype}"


def literal(name: str, value: Any) -> list[str]:
    """Return the lines of Python that rebuild one argument.

    >>> literal("g", np.float32([1, -0.1]))
    ['g = np.array([1.0, -0.1], dtype=np.float32)']
    """
    if isinstance(value, list) and any(isinstance(v, np.ndarray) for v in value):
        return [f"{name} = [" + ", ".join(f"np.array({_nested(v)}, dtype={_dtype(v)})" for v in value) + "]"]
    if not isinstance(value, np.ndarray):
        return [
            f"{name} = {float(value)!r}"
            if hasattr(value, "numerator") and not isinstance(value, int)
            else f"{name} = {value!r}"
        ]
    if value.size <= FEW:
        return [f"{name} = np.array({_nested(value)}, dtype={_dtype(value)})"]
    return _sparse(name, value)


def _sparse(name: str, a: np.ndarray) -> list[str]:
    flat = a.reshape(-1)
    seen, times = np.unique(flat.astype(np.float64), return_counts=True)
    usual = seen[int(np.argmax(times))]
    other = np.flatnonzero(flat.astype(np.float64) != usual)
    if a.dtype.kind in "iu" and a.ndim == 2 and np.array_equal(a, np.broadcast_to(np.arange(a.shape[1]), a.shape)):
        return [f"{name} = np.tile(np.arange({a.shape[1]}, dtype={_dtype(a)}), ({a.shape[0]}, 1))"]
    if len(other) > FEW:
        head = ", ".join(_nested(v) for v in flat[:4])
        return [f"# {name}: {a.shape} {a.dtype}, {head}, ... (too long to print: use the command below)"]
    start = f"{name} = np.full({a.shape}, {_nested(np.asarray(usual, a.dtype))}, dtype={_dtype(a)})"
    return [start, f"{name}.flat[{other.tolist()}] = {_nested(flat[other])}"] if len(other) else [start]


def literals(case: Case) -> list[str]:
    """Return the whole case as Python that can be pasted, the call included."""
    lines = [line for name, value in case.arguments.items() for line in literal(name, value)]
    unusual = sorted(case.flags & {"readonly", "strided"})
    lines += [f"# the arrays are handed over {' and '.join(unusual)}"] if unusual else []
    names = [n for n in case.arguments if n != "gradients"]
    own = "[worker]" if case.family == "workers" else ""  # gradients and g of several workers: the first axis
    if case.operation in OPTIMIZERS:
        return [
            *lines,
            f"it = {case.operation}({', '.join(f'{n}={n}' for n in names)})",
            f"u = [it.step(g) for g in gradients{own}]",
        ]
    op = OPERATIONS[case.operation]
    names = [n + own if n == "g" else n for n in names]
    return [*lines, f"{', '.join(r.name for r in op.results)} = {case.operation}({', '.join(names)})"]


# --- one failure --------------------------------------------------------------------------------------------------


def _check(check: Check) -> Iterator[str]:
    yield f"rule       {check.rule}"
    if check.reason:
        yield f"what       {check.reason}"
    if math.isfinite(check.ratio) or check.at:
        where = f" at {check.stage}[{', '.join(map(str, check.at))}]" if check.at else ""
        yield f"ratio      {check.ratio:.4g} of the bound{where}"
    for name, value in (("got", check.got), ("expected", check.expected), ("bound", check.bound)):
        if value is not None:
            yield f"{name:<10} {number(value)}"


def _case(case: Case) -> str:
    sizes = ", ".join(f"{n} {np.shape(v)}" for n, v in case.arguments.items() if isinstance(v, np.ndarray))
    return f"case       {case.index} of seed {case.seed}, {case.dtype}, {case.family}: {case.label}" + (
        f" ({sizes})" if sizes else ""
    )


def _end(text: str, title: str, lines: int = 8) -> Iterator[str]:
    if text.strip():
        yield title
        yield from ("    " + line for line in text.strip().splitlines()[-lines:])


def _smallest(minimal: CaseVerdict | None, original: Case) -> Iterator[str]:
    shown = minimal.case if minimal else original
    yield "smallest case found that still fails:" if minimal else "the case:"
    if any(isinstance(v, np.ndarray) and v.dtype.kind == "V" for v in shown.arguments.values()):
        yield "    import ml_dtypes"
    yield from ("    " + line for line in literals(shown))
    if minimal and minimal.first:
        yield from ("    # " + line for line in _check(minimal.first) if not line.startswith("rule"))


def failure_lines(target: str, operation: OperationReport, failure: Failure) -> list[str]:
    """Return what a person needs to find one failure: stage, line, inequality, numbers, case, command."""
    verdict, case = failure.verdict, failure.verdict.case
    first = verdict.first
    if verdict.verdict == ERROR or first is None:
        lines = [f"{operation.operation}: error, {verdict.reason}", _case(case)]
        lines += _end(failure.traceback, "traceback:")
    else:
        lines = [f"{operation.operation}: fails at {first.stage} ({first.tier}), {line_name(first.line)}"]
        lines += [f"agrees with: {text}" for text in failure.explained[:3]]
        lines += [*_check(first), _case(case), *([f"why        {case.why}"] if case.why else [])]
    lines += _end(failure.output, "the target printed:")
    lines += _smallest(failure.minimal, case) if verdict.verdict == FAIL else []
    return [lines[0], *("  " + line for line in [*lines[1:], f"reproduce  {command(target, case)}"])]


# --- the report ---------------------------------------------------------------------------------------------------


def _counted(operation: OperationReport) -> str:
    counts = [f"{operation.passed} passed"]
    counts += [f"{operation.failed} failed"] if operation.failed else []
    for name, reasons in (("error", operation.errors), ("undecided", operation.inconclusive)):
        if reasons:
            inside = ", ".join(f"{n} {why}" for why, n in sorted(reasons.items(), key=lambda item: -item[1])[:3])
            counts.append(f"{sum(reasons.values())} {name} ({inside})")
    counts += [f"{operation.warnings} warned"] if operation.warnings else []
    return ", ".join(counts)


def _stage(operation: OperationReport) -> str:
    shown = operation.failures[0].verdict if operation.failures else None
    if shown and shown.verdict == ERROR:
        return shown.reason[:50]
    check = (shown.first if shown else None) or operation.worst
    return f"{check.tier} {check.stage}" if check else "-"


def _ratio(operation: OperationReport) -> str:
    return "-" if operation.worst is None else f"{operation.worst.ratio:.3g}"


def quality(operation: OperationReport) -> str:
    """Return the median and the worst ratio to the probabilistic bounds (T3): ``0.02, 0.4``."""
    score = operation.quality
    return "-" if score is None else f"{score.median:.2g}, {score.worst:.2g}"


def table(report: Report) -> Any:
    """Return the verdicts as a rich table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title, where in (
        ("operation", "left"),
        ("verdict", "left"),
        ("cases", "left"),
        ("worst ratio", "right"),
        ("quality", "right"),
        ("tier and stage", "left"),
    ):
        grid.add_column(title, justify=where, overflow="fold")  # type: ignore[arg-type]
    for o in report.operations:
        if o.verdict != SKIP or o.judged:
            verdict = Text(o.verdict, style=COLOURS[o.verdict])
            grid.add_row(o.operation, verdict, _counted(o), _ratio(o), quality(o), Text(_stage(o)))
    return grid


def unopened(target: str) -> str:
    """Say what did not work with a target that could not be opened.

    >>> unopened("my_code.py"), unopened("--command ./mine")
    ('could not be imported', 'could not be started')
    """
    return "could not be started" if target.startswith("--command") else "could not be imported"


def _tail(report: Report) -> Iterator[str]:
    for o in report.operations:
        for failure in o.failures:
            yield "\n".join(failure_lines(report.target, o, failure)) + "\n"
        if o.note:
            yield f"{o.operation}: {o.note}\n"
    skipped = [o.operation for o in report.operations if o.verdict == SKIP and not o.judged and not o.note]
    if skipped and not report.broken:
        yield f"not offered: {', '.join(skipped)}"
    yield from certified(report)
    yield from (f"note: {note}" for note in report.notes)
    if report.broken:
        yield f"{report.target} {unopened(report.target)}: {report.broken}"


def certified(report: Report) -> Iterator[str]:
    """Yield what ``--certify`` found: all operations together, then those of which something is not certified."""
    found = {o.operation: o.certificate for o in report.operations if o.certificate is not None}
    whole = total(found.values())
    if whole is not None:
        yield f"verdicts {whole.text}"
    for name, one in found.items():
        if one.missing or one.overturned:
            yield f"  {name}: {one.text}"


def _summary(report: Report) -> str:
    verdicts = [o.verdict for o in report.operations]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in COLOURS if v in verdicts and v != SKIP) or "nothing judged"
    stopped = "interrupted; " if report.interrupted else ""
    each = f"{report.cases} case{'s' * (report.cases != 1)} each"
    return f"{report.target}: {stopped}{counts} ({each}, seed {report.seed}, {report.seconds:.1f} s)"


def show(report: Report, console: Console) -> None:
    """Print a report; colours and width are the console's."""
    if any(o.verdict != SKIP for o in report.operations):
        console.print(table(report))
    for text_ in (*_tail(report), _summary(report)):
        console.print(text_, markup=False, highlight=False, soft_wrap=True)


def text(report: Report) -> str:
    """Return a report as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120, color_system=None, force_terminal=False, force_jupyter=False)
    show(report, console)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


# --- JSON ---------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _check_json(check: Check | None) -> dict[str, Any] | None:
    return None if check is None else {f.name: _plain(getattr(check, f.name)) for f in fields(check)}


def _case_json(verdict: CaseVerdict, target: str) -> dict[str, Any]:
    case = verdict.case
    return {
        "case": case.id, "family": case.family, "label": case.label, "verdict": verdict.verdict,
        "reason": verdict.reason,
        "check": _check_json(verdict.first), "command": command(target, case),
    }  # fmt: skip


def _failure_json(failure: Failure, target: str) -> dict[str, Any]:
    small = failure.minimal
    return _case_json(failure.verdict, target) | {
        "traceback": failure.traceback, "output": failure.output, "explained": list(failure.explained),
        "minimal": small and {"check": _check_json(small.first), "python": literals(small.case)},
    }  # fmt: skip


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as JSON values; infinities are text, ``"inf"``."""
    return {
        "target": report.target, "seed": report.seed, "cases": report.cases, "exit_code": report.exit_code,
        "broken": report.broken, "notes": list(report.notes), "interrupted": report.interrupted,
        "seconds": round(report.seconds, 3),
        "operations": [
            {
                "operation": o.operation, "verdict": o.verdict, "passed": o.passed, "failed": o.failed,
                "inconclusive": dict(o.inconclusive), "errors": dict(o.errors), "warnings": o.warnings,
                "worst": _check_json(o.worst), "worst_case": o.worst_case, "note": o.note,
                "seconds": round(o.seconds, 3), "quality": o.quality and _plain(asdict(o.quality)),
                "certificate": o.certificate and _plain(asdict(o.certificate)),
                "failures": [_failure_json(f, report.target) for f in o.failures],
            }
            for o in report.operations
        ],
    }  # fmt: skip
