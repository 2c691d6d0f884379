"""Reports for machines: JSON lines, and JUnit XML with one test per operation and tier."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from efcp_ref.oracle import terminal
from efcp_ref.oracle.core import ERROR, FAIL, INCONCLUSIVE, SKIP
from efcp_ref.oracle.judge import OperationReport, Report
from efcp_ref.oracle.record import Row
from efcp_ref.oracle.report.collect import Spread, Stats

FORMAT = "efcp-ref report 1"
_FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0, even escaped


def lines(report: Report, stats: Stats) -> Iterator[dict[str, Any]]:
    """Yield the report as JSON values: head, operations, the failures that are shown, every case that is no pass."""
    body = terminal.as_json(report)
    operations = body.pop("operations")
    yield {"kind": "report", "format": FORMAT, **body}
    for operation in operations:
        failures = operation.pop("failures")
        tiers = {tier: spread.as_json() for tier, spread in stats.of(operation["operation"]).items()}
        yield {"kind": "operation", **operation, "tiers": tiers}
        yield from ({"kind": "failure", "operation": operation["operation"], **failure} for failure in failures)
    yield from map(_case, stats.other)


def _case(row: Row) -> dict[str, Any]:
    body: dict[str, Any] = {"kind": "case", "case": row.id, "verdict": row.verdict}
    if row.first is not None:
        check = row.first
        return body | {"stage": check.stage, "tier": check.tier, "line": check.line, "reason": check.reason}
    return body | {"error": row.error, "reason": row.reason}


def jsonl(report: Report, stats: Stats) -> str:
    """Return the report as JSON lines."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines(report, stats))


# --- JUnit --------------------------------------------------------------------------------------------------------


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)


def _element(kind: str, message: str, text: str = "") -> str:
    return f"<{kind} message={quoteattr(_clean(message))}>{escape(_clean(text))}</{kind}>"


def _test(operation: str, name: str, seconds: float, inside: str = "") -> str:
    return f'<testcase classname="efcp.{operation}" name={quoteattr(name)} time="{seconds:.3f}">{inside}</testcase>'


def _told(report: Report, operation: OperationReport, tier: str | None) -> str:
    """The text of the failures of a tier; without a tier, of the errors."""
    shown = []
    for failure in operation.failures:
        first = failure.verdict.first
        if (first.tier if first and failure.verdict.verdict == FAIL else None) == tier:
            shown.append("\n".join(terminal.failure_lines(report.target, operation, failure)))
    return "\n\n".join(shown)


def _tier(report: Report, operation: OperationReport, tier: str, spread: Spread) -> str:
    count = spread.verdicts
    if spread.blamed:
        text = _told(report, operation, tier)
        return _element("failure", f"{spread.blamed} of {sum(count.values())} cases fail first in tier {tier}", text)
    if spread.verdict == INCONCLUSIVE:
        return _element("skipped", f"{count[INCONCLUSIVE]} cases, none of them decided")
    return ""


def _suite(report: Report, operation: OperationReport, stats: Stats) -> tuple[str, dict[str, int]]:
    name, tiers = operation.operation, stats.of(operation.operation)
    seconds = operation.seconds / max(len(tiers), 1)
    tests = [_test(name, tier, seconds, _tier(report, operation, tier, spread)) for tier, spread in tiers.items()]
    if operation.errors:
        words = ", ".join(f"{n} {kind}" for kind, n in operation.errors.items())
        tests.append(_test(name, "runs", 0.0, _element("error", words, _told(report, operation, None))))
    if operation.verdict == SKIP and not tests:
        tests.append(_test(name, "offered", 0.0, _element("skipped", "the target does not offer it")))
    body = "".join(tests)
    counts = {"tests": len(tests)} | {
        plural: body.count(f"<{kind} ")
        for plural, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    numbers = " ".join(f'{n}="{v}"' for n, v in counts.items())
    return f'<testsuite name="{name}" {numbers} time="{operation.seconds:.3f}">{body}</testsuite>', counts


def junit(report: Report, stats: Stats) -> str:
    """Return JUnit XML: a suite per operation, a test per tier; what could not be decided is skipped."""
    suites = [_suite(report, operation, stats) for operation in report.operations]
    if report.broken:
        told = _element("error", f"it {terminal.unopened(report.target)}", report.broken)
        test = _test("target", "imports", 0.0, told)
        suites.append((f'<testsuite name="target" tests="1" failures="0" errors="1" skipped="0">{test}</testsuite>',
                       {"tests": 1, "failures": 0, "errors": 1, "skipped": 0}))  # fmt: skip
    total = {n: sum(counts[n] for _, counts in suites) for n in ("tests", "failures", "errors", "skipped")}
    numbers = " ".join(f'{n}="{v}"' for n, v in total.items())
    head = f"<testsuites name={quoteattr(_clean('efcp-ref ' + report.target))} {numbers} time=\"{report.seconds:.3f}\">"
    body = "\n".join(suite for suite, _ in suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}{body}</testsuites>\n'


# --- Markdown -----------------------------------------------------------------------------------------------------

SIGNS = {FAIL: "❌ fail", ERROR: "❌ error", INCONCLUSIVE: "❔ inconclusive", "pass": "✅ pass", SKIP: "➖ skip"}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _fenced(text: str, language: str = "text") -> str:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def markdown(report: Report, most: int = 5) -> str:
    """Return a summary for a pull request: the verdicts, then at most ``most`` failures folded away."""
    shown = [o for o in report.operations if o.verdict != SKIP or o.judged]
    rows = [
        f"| `{o.operation}` | {SIGNS[o.verdict]} | {_cell(terminal._counted(o))} | {terminal._ratio(o)} |"
        for o in shown
    ]
    verdict = {0: "conforms", 1: "**fails**", 3: "errors, or nothing decided", 130: "interrupted"}[report.exit_code]
    parts = [f"### efcp-ref: `{report.target}` {verdict}", ""]
    if rows:
        parts += ["| operation | verdict | cases | worst ratio |", "| --- | --- | --- | ---: |", *rows, ""]
    if report.broken:
        parts += [f"It {terminal.unopened(report.target)}:", "", _fenced(report.broken), ""]
    failures = [(o, f) for o in report.operations for f in o.failures]
    for operation, failure in failures[:most]:
        told = terminal.failure_lines(report.target, operation, failure)
        head = f"<details><summary>{escape(told[0])}</summary>"
        parts += [head, "", _fenced("\n".join(told)), "", "</details>", ""]
    if len(failures) > most:
        parts += [f"{len(failures) - most} more failures are in the report.", ""]
    parts.append(f"{report.cases} cases per operation and precision, seed {report.seed}, {report.seconds:.1f} s.")
    return "\n".join([*parts, *(f"Note: {note}" for note in report.notes)]) + "\n"
