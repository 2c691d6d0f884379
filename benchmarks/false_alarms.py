"""How often does the oracle cry wolf? Correct code, judged in this very process; every ``fail`` is a false alarm.

    python benchmarks/false_alarms.py --goal 100000 --minutes 60

The cases are the oracle's own, the corners among them, except those that are large or hold NaN. Every case is judged
three times: twice in float32 and once in float64, each time against an implementation drawn by `ways.draw`. One
judgement is one such result; of an optimizer, one step of its run, judged from the state dumped before it. All criteria
grow evenly. The file ``benchmarks/results/false_alarms.json`` is replaced as a whole every few seconds and is where the
next run goes on, so a kill loses seconds. A false alarm that led to a repair is kept under ``repaired``; the row of its
criterion is then taken out of the file and judged anew from its first case.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import ways
from scipy.stats import beta

from efcp_ref.contract import NAMES, OPTIMIZERS
from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import ERROR, FAIL, INCONCLUSIVE, PASS, Case, CaseVerdict
from efcp_ref.oracle.judge import judge_case
from efcp_ref.oracle.targets import Local

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "false_alarms.json"
FIRST_SEED = 1_000_000  # fresh: no other campaign and no test uses these seeds
DTYPES = ("float32", "float64", "float32")
CHUNK = 40  # cases of one criterion before the next one's turn
Row = dict[str, Any]


def indices(operation: str) -> list[int]:
    """Return the positions of the recipes that are walked."""
    return [i for i, r in enumerate(FIXED[operation]) if not r.flags & {"large", "nan"}]


def cases(operation: str, n: int) -> list[Case]:
    """Return the n-th case in each of the three precisions."""
    walked = indices(operation)
    case = generate(operation, FIRST_SEED + n // len(walked), walked[n % len(walked)])
    return [case.with_dtype(dtype) if dtype == "float32" else case for dtype in DTYPES]


def empty() -> Row:
    """Return a row with nothing judged."""
    return {"cases": 0, "decided": 0, "inconclusive": 0, "alarms": [], "warnings of T3": 0, "largest ratio": 0.0,
            "reasons": {}, "ways": {}, "seconds": 0.0}  # fmt: skip


def judge(operation: str, n: int, row: Row) -> None:
    """Judge the n-th case and count it in ``row``."""
    for j, case in enumerate(cases(operation, n)):
        rng = np.random.default_rng([FIRST_SEED, crc32(operation.encode()), n, j])
        way = ways.draw(rng, operation, case.dtype)
        target = Local({operation: getattr(way.implementation, operation)}, way.declared)
        with np.errstate(all="ignore"):
            verdict, _ = judge_case(target, case)
        count(row, verdict, way.labels)
    row["cases"] += 1


def count(row: Row, verdict: CaseVerdict, labels: Iterable[str]) -> None:
    """Add one verdict: a decided one, an undecided one with its reason, or an alarm in full."""
    first, worst, steps = verdict.first, verdict.worst, len(verdict.case.arguments.get("gradients", (0,)))
    row["warnings of T3"] += any(c.tier == "T3" and c.verdict != PASS for c in verdict.checks)
    if verdict.verdict == INCONCLUSIVE and first:
        row["inconclusive"] += steps
        row["reasons"] = dict(Counter(row["reasons"]) + Counter({first.reason: steps}))
        return
    row["decided"] += steps
    row["ways"] = dict(Counter(row["ways"]) + Counter(dict.fromkeys(labels, steps)))
    if verdict.verdict in (FAIL, ERROR):
        row["alarms"].append({"case": verdict.case.id, "label": verdict.case.label, "ways": list(labels),
                              "what": f"{verdict.reason} {first}"})  # fmt: skip
    elif worst:
        row["largest ratio"] = round(max(row["largest ratio"], worst.ratio), 4)


def limit(alarms: int, decided: int) -> float:
    """Return the upper 95 % confidence limit of the rate of false alarms (Clopper and Pearson; 3/N for none).

    >>> round(limit(0, 100_000) * 1e5, 2)
    3.0
    """
    return float(beta.ppf(0.95, alarms + 1, decided - alarms)) if decided > alarms else 1.0


def campaign(goal: int, until: float, rows: dict[str, Row], save: Any = None, names: Iterable[str] = NAMES) -> None:
    """Judge chunk after chunk of the criterion that has the fewest, until all have ``goal`` or the time is over."""
    rows.update({name: rows.get(name) or empty() for name in names})
    saved = time.monotonic()
    while time.monotonic() < until:
        name = min(names, key=lambda n: rows[n]["decided"])
        if rows[name]["decided"] >= goal:
            return
        began = time.process_time()
        for _ in range(CHUNK if name not in OPTIMIZERS else 4):
            judge(name, rows[name]["cases"], rows[name])
        rows[name]["seconds"] = round(rows[name]["seconds"] + time.process_time() - began, 2)
        if save and time.monotonic() > saved + 10:
            save(rows)
            saved = time.monotonic()


def written(path: Path, rows: dict[str, Row], about: Row) -> None:
    """Replace the file as a whole."""
    for row in rows.values():
        row["upper limit, 95 %"] = float(f"{limit(len(row['alarms']), row['decided']):.3g}")
    whole = {**about, "date": datetime.now(UTC).date().isoformat(),
             "judgements": sum(r["decided"] for r in rows.values()),
             "false alarms": sum(len(r["alarms"]) for r in rows.values()), "criteria": rows}  # fmt: skip
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(beside, path)


def main() -> None:
    """Go on where the file stops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal", type=int, default=100_000, help="judgements per criterion")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    rows = before.get("criteria", {})
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    about = {"command": f"python benchmarks/false_alarms.py --goal {options.goal}", "machine": machine,
             "repaired": before.get("repaired", [])}  # fmt: skip
    end = time.monotonic() + 60 * options.minutes
    campaign(options.goal, end, rows, lambda now: written(options.output, now, about))
    written(options.output, rows, about)


if __name__ == "__main__":
    main()
