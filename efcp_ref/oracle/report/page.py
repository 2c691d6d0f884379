"""One HTML page that holds everything: no script, no request, readable in light and dark, by eye and by ear."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

from efcp_ref.oracle import terminal
from efcp_ref.oracle.core import ERROR, FAIL, INCONCLUSIVE, PASS, SKIP, Check
from efcp_ref.oracle.judge import Failure, OperationReport, Report
from efcp_ref.oracle.report import svg
from efcp_ref.oracle.report.collect import Spread, Stats
from efcp_ref.oracle.report.evidence import Evidence
from efcp_ref.oracle.report.mathtext import math_html

SIGNS = {PASS: "✓", FAIL: "✗", ERROR: "!", INCONCLUSIVE: "?", SKIP: "–"}  # beside the colour
TITLES = {0: "conforms", 1: "fails", 3: "has errors, or nothing was decided", 130: "was interrupted"}
LIGHT = {"back": "#ffffff", "text": "#1b2127", "soft": "#f3f5f7", "line": "#c9d0d6", "muted": "#525c66",
         "link": "#0b5f86", "pass": "#17652f", "fail": "#a32a00", "error": "#a32a00", "inconclusive": "#6b4e00",
         "skip": "#525c66", "blue": "#0072b2", "orange": "#c44900", "lit": "#fff0c2"}  # fmt: skip
DARK = {"back": "#14181c", "text": "#e6eaee", "soft": "#1f252b", "line": "#48525c", "muted": "#a9b3bd",
        "link": "#7cc4ea", "pass": "#7fd69a", "fail": "#ff9d70", "error": "#ff9d70", "inconclusive": "#ecc75a",
        "skip": "#a9b3bd", "blue": "#62b6e8", "orange": "#ff9152", "lit": "#4a3a10"}  # fmt: skip
STYLE = """
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem } h2 { margin-top: 2.5rem } h3 { margin-top: 2rem }
h4 { margin: 1.25rem 0 .25rem; font-size: 1rem } p { max-width: 46rem; margin: .5rem 0 }
a { color: var(--link) } code, pre, .number { font-family: ui-monospace, monospace; font-size: .875rem }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 4px; padding: .75rem; overflow: auto }
.scroll { overflow-x: auto } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--muted) } caption span { display: block; position: sticky; left: 0;
  max-width: min(46rem, calc(100vw - 3rem)) } h1 code, h3 code { font-size: .85em }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line) }
td.right, th.right { text-align: right } tr.lit > * { background: var(--lit) } th[scope=row] { font-weight: 600 }
.pass, .fail, .error, .inconclusive, .skip { font-weight: 600; white-space: nowrap }
.pass { color: var(--pass) } .fail { color: var(--fail) } .error { color: var(--error) }
.inconclusive { color: var(--inconclusive) } .skip { color: var(--skip) } .muted { color: var(--muted) }
svg text { font: 9px system-ui, sans-serif; fill: var(--muted) } svg { display: block; max-width: none }
.within { fill: var(--blue) } .over { fill: var(--orange) } .axis { stroke: var(--line) }
.bound { stroke: var(--text); stroke-dasharray: 3 2 } .cell { stroke: #9aa4ad; stroke-width: .5 }
.cross { stroke: #000; stroke-width: 1.5; fill: none } .first { fill: none; stroke: #000; stroke-width: 3 }
.heat { background: #fff; border: 1px solid var(--line); margin: .25rem 0 } dl { display: grid; gap: .15rem 1rem;
  grid-template-columns: max-content minmax(0, 1fr) } dt { color: var(--muted) } dd { margin: 0 }
@media (max-width: 40rem) { body { padding: 1rem } .wide { min-width: 40rem }
  dl { grid-template-columns: minmax(0, 1fr) } }
@media print { pre { white-space: pre-wrap } }
"""


def _css() -> str:
    light, dark = (" ".join(f"--{n}: {v};" for n, v in palette.items()) for palette in (LIGHT, DARK))
    media = f"@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"
    return f":root {{ color-scheme: light dark; {light} }}\n{media}{STYLE}"


def _e(text: object) -> str:
    return html.escape(str(text))


def _verdict(name: str) -> str:
    return f'<span class="{name}"><span aria-hidden="true">{SIGNS[name]}</span> {name}</span>'


def _region(label: str, inside: str) -> str:
    """A wide part that scrolls by itself and can be reached by keyboard."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{_e(label)}">{inside}</div>'


def _wide(head: str, body: str, caption: str = "") -> str:
    """A table that keeps its width on a phone, where its region scrolls; its caption stays in view."""
    title = f"<caption><span>{caption}</span></caption>" if caption else ""
    return f'<table class="wide">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _pre(text: str, label: str) -> str:
    return f'<pre tabindex="0" role="group" aria-label="{_e(label)}">{_e(text)}</pre>'


def _small(x: float | None) -> str:
    return "–" if x is None else f"{x:.3g}" if math.isfinite(x) else str(x)


# --- the verdict table --------------------------------------------------------------------------------------------


def _row(o: OperationReport) -> str:
    name = f'<a href="#{o.operation}">{o.operation}</a>' if o.failures else o.operation
    return (
        f'<tr><th scope="row"><code>{name}</code></th><td>{_verdict(o.verdict)}</td><td>{_e(terminal._counted(o))}</td>'
        f'<td class="right">{_small(o.worst.ratio if o.worst else None)}</td>'
        f'<td class="right">{_e(terminal.quality(o))}</td><td>{_e(terminal._stage(o))}</td>'
        f'<td class="right">{o.seconds:.1f}</td></tr>'
    )


def _table(report: Report) -> str:
    shown = [o for o in report.operations if o.verdict != SKIP or o.judged]
    skipped = [o.operation for o in report.operations if o.verdict == SKIP and not o.judged]
    head = "".join(f'<th scope="col">{n}</th>' for n in ("operation", "verdict", "cases"))
    head += '<th scope="col" class="right">worst ratio</th><th scope="col" class="right">quality</th>'
    head += '<th scope="col">tier and stage</th>'
    head += '<th scope="col" class="right">seconds</th>'
    body = "".join(map(_row, shown))
    caption = "A ratio is the largest error in units of its bound; beyond 1 it is a bug, not rounding. "
    caption += "Quality: median and worst ratio to the probable bounds; beyond 1 it only warns."
    table = _wide(head, body, caption)
    rest = f"<p>Not offered: {', '.join(f'<code>{n}</code>' for n in skipped)}.</p>" if skipped else ""
    return (_region("verdicts", table) if shown else "<p>No operation was judged.</p>") + rest


# --- ratios -------------------------------------------------------------------------------------------------------


def _spread(operation: str, tier: str, spread: Spread) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in spread.verdicts.items())
    label = f"{operation}, tier {tier}: {sum(spread.bars.values())} ratios, the largest {_small(spread.largest)}"
    return (
        f'<tr><th scope="row"><code>{operation}</code></th><td>{tier}</td><td>{_e(counts)}</td>'
        f'<td class="right">{_small(spread.largest)}</td><td>{svg.distribution(spread.bars, label)}</td></tr>'
    )


def _ratios(stats: Stats, report: Report) -> str:
    rows = [
        _spread(o.operation, tier, spread)
        for o in report.operations
        for tier, spread in stats.of(o.operation).items()
        if spread.bars
    ]
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{n}</th>' for n in ("operation", "tier", "cases"))
    head += '<th scope="col" class="right">largest</th><th scope="col">largest ratio of every case</th>'
    caption = "Left: exact. The dashed line is the bound. T1 exact, T2 rigorous, T3 probable (warns only)."
    table = _wide(head, "".join(rows), caption)
    return f"<h2>Ratios</h2>{_region('distributions of ratios', table)}"


# --- one failure --------------------------------------------------------------------------------------------------


def _facts(check: Check, failure: Failure) -> str:
    case = failure.verdict.case
    at = f" at {check.stage}[{', '.join(map(str, check.at))}]" if check.at else ""
    facts = [("stage", f"{check.stage} (tier {check.tier})"), ("paper", terminal.line_name(check.line))]
    facts += [("rule", check.rule)] + ([("what", check.reason)] if check.reason else [])
    facts += [("agrees with", text) for text in failure.explained[:3]]
    facts += [("ratio", f"{_small(check.ratio)} of the bound{at}")]
    facts += [(n, terminal.number(v)) for n in ("got", "expected", "bound") if (v := getattr(check, n)) is not None]
    facts += [("case", f"{case.id}, {case.family}: {case.label}")] + ([("why", case.why)] if case.why else [])
    return f"<dl>{''.join(f'<dt>{n}</dt><dd>{_e(v)}</dd>' for n, v in facts)}</dl>"


def _heat(found: Evidence) -> str:
    if found.got is None or found.expected is None or found.ratio is None:
        return ""
    shape, beyond = found.got.shape, int((found.ratio > 1).sum())
    start, stop, columns = svg.window(shape, int((found.ratio.reshape(-1) > 1).argmax()))
    part = "" if stop - start == found.got.size else f", entries {start} to {stop - 1} of {found.got.size}"
    words = f"{beyond} of {found.ratio.size} entries are beyond the bound{part}; a row of the picture holds {columns}."
    kinds = (("expected", found.expected, "value"), ("got", found.got, "value"), ("ratio", found.ratio, "ratio"))
    pictures = "".join(
        f'<tr><th scope="row">{name}</th><td>'
        f"{svg.heat(values, found.ratio, kind, f'{found.stage}, {name}: {words}')}</td></tr>"
        for name, values, kind in kinds
    )
    legend = "Values: orange positive, blue negative. Ratios: blue within the bound, orange and crossed beyond it."
    first, table = "The first departure is framed.", f"<table>{pictures}</table>"
    return f"<h4>Where {_e(found.stage)} departs</h4><p>{words} {legend} {first}</p>{_region('heat maps', table)}"


def _trace(found: Evidence) -> str:
    if not found.trace:
        return ""
    names = ("paper line", "printed", "code", "what the reference has there")
    head = "".join(f'<th scope="col">{n}</th>' for n in names)
    rows = []
    for line in found.trace:
        mark = ' class="lit"' if line.blamed else ""
        name = f"{line.tag}{' (blamed)' if line.blamed else ''}"
        parts = (math_html(line.printed), f"<code>{_e(line.code)}</code>", f"<code>{_e(line.changed)}</code>")
        cells = "".join(f"<td>{part}</td>" for part in parts)
        rows.append(f'<tr{mark}><th scope="row">{name}</th>{cells}</tr>')
    more = f"<p>{found.skipped} earlier lines are left out.</p>" if found.skipped else ""
    table = _wide(head, "".join(rows))
    return f"<h4>The reference at this line</h4>{more}{_region('trace', table)}"


def _failure(report: Report, o: OperationReport, failure: Failure, found: Evidence | None) -> str:
    check, case = failure.verdict.first, failure.verdict.case
    parts = []
    if failure.verdict.verdict == ERROR or check is None:
        parts.append(f"<p>{_e(failure.verdict.reason)}</p>")
        parts.append(_pre(failure.traceback, "traceback") if failure.traceback.strip() else "")
    else:
        parts.append(_facts(check, failure))
    if failure.output.strip():
        parts.append(f"<h4>The target printed</h4>{_pre(failure.output.strip()[-2000:], 'output of the target')}")
    parts.append(f"<h4>Reproduce it</h4>{_pre(terminal.command(report.target, case), 'command')}")
    if failure.verdict.verdict == FAIL:
        small = failure.minimal
        title = "The smallest case found that still fails" if small else "The case"
        body = "\n".join(terminal.literals(small.case if small else case))
        parts.append(f"<h4>{title}</h4>{_pre(body, 'case as Python')}")
    parts += [_heat(found), _trace(found)] if found else []
    return "".join(parts)


def _failures(report: Report, found: Mapping[int, Evidence]) -> str:
    parts = []
    for o in report.operations:
        for number, failure in enumerate(o.failures):
            first = failure.verdict.first
            where = f"fails at {first.stage}, {terminal.line_name(first.line)}" if first else "error"
            mark = f' id="{o.operation}"' if not number else ""
            parts.append(f"<section><h3{mark}><code>{o.operation}</code> {_e(where)}</h3>")
            parts.append(_failure(report, o, failure, found.get(id(failure))) + "</section>")
        parts += [f"<p><code>{o.operation}</code>: {_e(o.note)}</p>"] if o.note else []
    return f"<h2>Failures</h2>{''.join(parts)}" if parts else ""


def _broken(report: Report) -> str:
    title = f"<h2>It {terminal.unopened(report.target)}</h2>"
    return title + _pre(report.broken, "error") if report.broken else ""


def page(report: Report, stats: Stats, found: Mapping[int, Evidence]) -> str:
    """Return the page; ``found`` holds the evidence by ``id(failure)``."""
    verdict = TITLES[report.exit_code]
    counts = [(v, sum(o.verdict == v for o in report.operations)) for v in (FAIL, ERROR, INCONCLUSIVE, PASS)]
    told = ", ".join(f"{n} {_verdict(v)}" for v, n in counts if n) or "nothing was judged"
    facts = f"{report.cases} cases per operation and precision, seed {report.seed}, {report.seconds:.1f} s."
    notes = "".join(f"<li>{_e(note)}</li>" for note in (*terminal.certified(report), *report.notes))
    broken = _broken(report)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{_e(report.target)} {verdict} - efcp-ref</title>
<style>{_css()}</style>
</head>
<body>
<main>
<h1><code>{_e(report.target)}</code> {verdict}</h1>
<p>Operations: {told}.</p>
<p class="muted">{facts}</p>
{f"<ul>{notes}</ul>" if notes else ""}
{broken}
<h2>Verdicts</h2>
{_table(report)}
{_failures(report, found)}
{_ratios(stats, report)}
</main>
</body>
</html>
"""
