"""The page on the oracle's power: of every criterion what it asks, why, and what was measured.

    python docs/_build/power.py

writes ``docs/check/oracle.md`` from the criteria's docstrings, from ``docs/criteria.md`` and from the results of
``benchmarks/selftest.py``, ``benchmarks/false_alarms.py`` and ``benchmarks/mutation.py``. A test holds the page to this
file and to the results.
"""

from __future__ import annotations

import inspect
import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "check" / "oracle.md"
PINNED = ROOT / "tests" / "oracle" / "criteria" / "pinned.json"  # what the trip wire keeps
RESULTS = ROOT / "benchmarks" / "results"
AT_FIRST = "noticed before tests were added for the survivors"
WIRE = "of these by the trip wire alone"
SECONDS = "processor seconds of efcp-ref selftest"
HEAD = """# How far the oracle can be trusted

Three questions are asked of the oracle itself. Does it catch what is wrong? Does it leave alone what is right? Would
its tests notice if one of its inequalities were changed? Every figure below is read from the results of a command, by
`python docs/_build/power.py`; tests repeat each measurement at a reduced size. How the inequalities are derived, and
where they depart from the published form, is told at length under [Criteria](../criteria.md).
"""
SHARED = (
    "A sum of n products, in any order, with or without fused operations, has an error of at most `n u sum |v x|` "
    "(Jeannerod and Rump, SIMAX 34, 2013); what is forward here is that bound, composed."
)


def results(name: str) -> dict[str, Any]:
    """Return what a command has measured."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def derived(operation: str) -> tuple[str, str]:
    """Return why a criterion holds and its source, from the section of ``docs/criteria.md`` that names it."""
    text = (ROOT / "docs" / "criteria.md").read_text(encoding="utf-8")
    sections = re.split(r"(?m)^## ", text)
    named = [s for s in sections if f"`{operation}`" in s.splitlines()[0]]
    section = named[0] if named else next(s for s in sections if s.startswith("Optimizers: replay"))
    why, source = (
        re.search(rf"\*{word}\.\*\s+(.*?)(?=\n\n|\s\*(?:Source|Departures)\.\*|\Z)", section, re.S)
        for word in ("Why", "Source")
    )
    body = section.split("\n\n")[1]
    other = SHARED if named else "Those of the operations, each step being one of them."
    return _flat(why.group(1) if why else body), _flat(source.group(1)) if source else other


def _flat(text: str) -> str:
    return " ".join(text.split())


def inequality(function: Any) -> str:
    """Return the first paragraphs of a criterion's docstring, one line each."""
    doc = inspect.cleandoc(function.__doc__ or "")
    return "\n\n".join(_flat(re.sub(r"``(.+?)``", r"`\1`", part, flags=re.S)) for part in doc.split("\n\n"))


def alarms(row: dict[str, Any]) -> str:
    """Say how often correct code was judged, and what became of it."""
    undecided = ", ".join(f"{n:,} `{reason}`" for reason, n in sorted(row["reasons"].items(), key=lambda r: -r[1]))
    told = f" Undecided beside them: {undecided}." if undecided else ""
    return (
        f"{len(row['alarms'])} in {row['decided']:,} judgements of correct code on {row['cases']:,} cases: with 95 % "
        f"confidence fewer than one in {round(1 / row['upper limit, 95 %']):,}. "
        f"Largest ratio to a bound: {row['largest ratio']:.2f}.{told}" + "".join(map(still_open, row["alarms"]))
    )


def still_open(alarm: dict[str, Any]) -> str:
    """Tell of a false alarm that is not repaired."""
    what = alarm["what"].removesuffix(" None")
    return f" **Not repaired:** `{alarm['case']}` ({alarm['label']}; {', '.join(alarm['ways'])}): {what}."


def caught(rows: list[dict[str, Any]]) -> str:
    """Say how many known mistakes are caught, on how many cases, by which tier, and how often they are named."""
    killed = [row for row in rows if row["caught"]]
    share = statistics.median(row["caught"] / row["cases"] for row in rows)
    tiers = Counter(tier for row in killed for tier, n in row["tiers"].items() if n and tier != "T3")
    by = ", ".join(f"{tier} {n}" for tier, n in sorted(tiers.items()))
    runs, named = sum(row["runs"] for row in rows), sum(row["named"] for row in rows)
    return (
        f"{len(killed)} of {len(rows)} known mistakes are caught ({by}), the median one on {share:.0%} of the standard "
        f"cases; the diagnosis names them in {named:,} of {runs:,} runs."
    )


def section(names: list[str], function: Any, alarmed: dict[str, Any], matrix: list[dict[str, Any]]) -> str:
    """Return one criterion: inequality, derivation, source, false alarms, detection; of the optimizers one by one."""
    why, source = derived(names[0])
    title = f"`{names[0]}`" if len(names) == 1 else "Optimizers: replay"
    parts = [f"## {title}", f"**Inequality.** {inequality(function)}", f"**Why.** {why}", f"**Source.** {source}"]
    for name in names:
        lead = f"`{name}`: " if len(names) > 1 else ""
        parts.append(f"**False alarms.** {lead}{alarms(alarmed[name])}")
        parts.append(f"**Detection.** {lead}{caught([row for row in matrix if row['operation'] == name])}")
    return "\n\n".join(parts)


def totals(power: dict[str, Any], alarmed: dict[str, Any], changed: dict[str, Any]) -> str:
    """Return the figures of all criteria together."""
    low, high = changed["95 % confidence interval"]
    fewest = min(row["decided"] for row in alarmed["criteria"].values())
    tiers = ", ".join(f"{tier} {n}" for tier, n in power["killed by tier"].items() if tier != "T3")
    rows = (
        ("known mistakes caught", f"{power['killed']} of {power['mistakes']} (by tier: {tiers})", power["command"]),
        ("survivors", f"{len(power['survivors'])}", power["command"]),
        (
            f"mistakes named in at least 80 % of their runs, {power['seeds']} seeds",
            f"{power['named']} of {power['asked']}; {power['runs named']:,} of {power['runs']:,} runs, "
            f"{power['runs named first']:,} of them first",
            power["command"],
        ),
        ("processor time of the self-test", f"{power[SECONDS]} s", "efcp-ref selftest"),
        (
            "false alarms on correct code",
            f"{alarmed['false alarms']} in {alarmed['judgements']:,} judgements, at least {fewest:,} of each criterion",
            alarmed["command"],
        ),
        (
            "changes in the criteria that a test notices, survivors explained below",
            f"{changed['killed']} of {changed['sample']}, drawn from {changed['drawn from']:,}: "
            f"{changed['score']:.1%}, 95 % confidence {low:.1%} to {high:.1%}",
            changed["command"],
        ),
        ("of them before any test was added for a survivor", unseen(changed), changed["command"]),
    )
    body = "\n".join(f"| {question} | {figure} | `{command}` |" for question, figure, command in rows)
    return f"| question | figure | command |\n|---|---|---|\n{body}\n"


def unseen(changed: dict[str, Any]) -> str:
    """Say how many changes were noticed by tests that had not been written for them."""
    low, high = changed["95 % confidence interval before"]
    share = changed["score before"]
    return f"{changed[AT_FIRST]} of {changed['sample']}: {share:.1%}, 95 % confidence {low:.1%} to {high:.1%}"


def draws(changed: dict[str, Any]) -> str:
    """Say of every draw what was noticed when it was drawn, and what is now."""
    rows = (
        f"- Draw {n}: noticed at first {unseen(one)}, {one[WIRE]} of them by the trip wire alone; "
        f"now {one['killed']} of {one['sample']}."
        for n, one in enumerate(changed["draws"], 1)
    )
    left, alive = len(changed["drawn before"]), changed["sample"] - changed["killed"]
    first = changed["sample"] - changed[AT_FIRST]
    return (
        f"{left} changes that an earlier sample held, and those like them, are left aside.\n\n" + "\n".join(rows)
        + f"\n\nOf the {first} that were not noticed at first, {alive} cannot be, for the reasons below."
    )  # fmt: skip


def page() -> str:
    """Return the whole page."""
    from efcp_ref.oracle.criteria import CRITERIA

    power, alarmed, changed = (results(name) for name in ("selftest", "false_alarms", "mutation"))
    kept = sum(map(len, json.loads(PINNED.read_text(encoding="utf-8")).values()))
    details = DETAILS.replace("KEPT", f"{kept:,}")
    parts = [HEAD, totals(power, alarmed, changed), details, draws(changed), explained(changed), repaired(alarmed)]
    for function in dict.fromkeys(CRITERIA.values()):
        names = [name for name, judge in CRITERIA.items() if judge is function]
        parts.append(section(names, function, alarmed["criteria"], power["matrix"]))
    return "\n\n".join(part.strip() for part in parts) + "\n"


DETAILS = """**Known mistakes.** Every mistake of `efcp_ref/oracle/mutants` is judged on the first 40 cases of its
operation, in float64 and in float32. A run of the diagnosis takes the first case that fails, of one seed in one
precision.

**Correct code.** One text with its sums sequential, backwards, pairwise, in lanes, blocked, permuted, fused or left to
BLAS; Cholesky of LAPACK and by hand, LDL^T, the recursion of M-FAC; four LAPACK drivers of `eigh`; Householder, MGS,
CGS2, SVD; float64, float32, float32 with bfloat16 rows; half of them declared, half undeclared. All are drawn anew for
every case, and the cases are the oracle's own, corners included. A judgement is one decided result, or one decided step
of an optimizer. No constant of rounding had to be changed. Three limits were widened, after the alarms below: what the
solve and the last subtraction may lose to underflow, the residual of the scaled sign where it has to be rounded, and
scaled Top-k, where what only the less orthogonal eigenvectors of MRRR explain is undecided. A solver that gives up in a
run is excused where rounding explains it, as it was in a single direction. What passed under the narrower limits was
not judged again. One limit was made stricter: inside a run, a declared factorisation is judged as one, as it was
outside. The campaign goes on where its file stops, until 100,000 judgements of each.

**Changed criteria.** Cosmic Ray changes one operator, comparison, constant, condition or loop at a time. A sample is
drawn at random, and every change is tried with the tests as they were before it was drawn: what they notice then is the
figure for a change that nobody has looked at. Then the survivors are looked at one by one, and tests are written for
those that a test can see. What is noticed then is the figure of this sample alone. What is drawn after such tests is a
draw of its own. Some changes no test can see, because they change nothing: they stand below with the reason, and count
as not noticed. After the first draw a trip wire was laid: what every criterion says of KEPT right and wrong results is
kept, number by number. It shows that something has changed, and not that it is wrong; what it alone notices
is counted apart.
"""


def repaired(alarmed: dict[str, Any]) -> str:
    """Return the false alarms that were found on the way, each with its cause and what was repaired."""
    rows = [
        f"- `{row['case']}` ({row['label']}), after {row['judgements until then']:,} judgements of its criterion. "
        f"Cause: {row['cause']}. Repair: {row['repair']}."
        for row in alarmed["repaired"]
    ]
    head = "**False alarms that were found and repaired.** Their criterion was judged anew from its first case."
    return head + "\n\n" + ("\n".join(rows) or "None.")


def explained(changed: dict[str, Any]) -> str:
    """Return the changes that no test noticed, with the reason where it is known."""
    left = [row for row in changed["rows"] if row["outcome"] == "survived"]
    if not left:
        return "No change of the sample survives."
    rows = "\n".join(f"- `{row['file']}`, `{row['was']}` is now `{row['now']}`: {row['why']}." for row in left)
    return f"The {len(left)} that survive:\n\n{rows}\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page(), encoding="utf-8")
