"""The false-alarm campaign and the kill matrix: correct code over many seeds, known mistakes over ten.

Run ``python benchmarks/acceptance.py --seeds 200 --cases 2 --jobs 2``. Seed s judges, of every operation, the cases
that follow those of seed s - 1 in the list of recipes, each in every precision that the target takes; so all recipes
are walked, each with many seeds. Results go to ``benchmarks/results/acceptance.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import FAIL, Declared
from efcp_ref.oracle.judge import both, judge_case
from efcp_ref.oracle.mutants import MUTANTS
from efcp_ref.oracle.targets import Local, Target

ROOT = Path(__file__).resolve().parents[1]
CORRECT = (
    *(f"tests/acceptance/correct.py:{name}" for name in (
        "one_by_one", "in_reverse", "by_tree", "by_lanes", "shuffled", "with_ldl", "with_recursion",
        "directions_only", "without_state", "float32_only", "bfloat16_rows",
    )),
    "tests/acceptance/numpy_only.py", "efcp_ref", "efcp_ref.targets.scipy64", "efcp_ref.targets.scipy32",
)  # fmt: skip


def campaign(target: str, seeds: int, cases: int) -> dict[str, Any]:
    """Judge one correct target; return counts, the undecided by reason, and every failure."""
    opened, began = Target(target, timeout=60.0), time.monotonic()
    said: Counter[str] = Counter()
    undecided: Counter[str] = Counter()
    worst: dict[str, float] = {}
    alarms: list[str] = []
    for seed in range(seeds):
        for operation in opened.offered:
            indices = [(seed * cases + j) % len(FIXED[operation]) for j in range(cases)]
            for case in both([generate(operation, seed, index) for index in indices], opened.declared):
                verdict, _ = judge_case(opened, case)
                first = verdict.first
                said[verdict.verdict] += 1
                if verdict.verdict == "inconclusive" and first:
                    undecided[first.reason] += 1
                elif verdict.verdict != "pass":
                    alarms.append(f"{case.id} {case.label}: {verdict.reason} {first}")
                elif verdict.worst:
                    worst[operation] = max(worst.get(operation, 0.0), round(verdict.worst.ratio, 4))
    opened.close()
    return {"target": target, "seeds": seeds, "cases per operation and seed": cases, "operations": len(opened.offered),
            "verdicts": dict(said), "inconclusive": dict(undecided), "worst ratio": worst, "alarms": alarms,
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def killed(number: int, seeds: int) -> dict[str, Any]:
    """Judge one known mistake; return in how many seeds it is caught, where it is blamed and after how many cases."""
    mutant = MUTANTS[number]
    target, stages, found = Local({mutant.operation: mutant.function}), Counter[str](), []
    for seed in range(seeds):
        for index in range(40):
            verdicts = [judge_case(target, c)[0] for c in both([generate(mutant.operation, seed, index)], Declared())]
            failing = [v.first for v in verdicts if v.verdict == FAIL and v.first]
            if failing:
                found.append(index + 1)
                stages[f"{failing[0].stage} ({failing[0].tier}, {failing[0].line})"] += 1
                break
    return {"operation": mutant.operation, "mistake": mutant.name, "text": mutant.text, "line": mutant.line,
            "caught": len(found), "seeds": seeds, "blamed": dict(stages),
            "cases needed at most": max(found, default=None)}  # fmt: skip


def main() -> None:
    """Run both, print a table, write the JSON file after every target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "acceptance.json")
    options = parser.parse_args()
    os.chdir(ROOT)
    about = {
        "command": "python benchmarks/acceptance.py "
        f"--seeds {options.seeds} --cases {options.cases} --jobs {options.jobs}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    done: dict[str, Any] = {**about, "known mistakes": [], "correct": []}
    with ProcessPoolExecutor(options.jobs) as pool:
        for row in pool.map(killed, range(len(MUTANTS)), [10] * len(MUTANTS), chunksize=8):
            done["known mistakes"].append(row)
        caught = sum(row["caught"] == row["seeds"] for row in done["known mistakes"])
        print(f"{caught} of {len(MUTANTS)} mistakes caught in 10 of 10 seeds", flush=True)
        futures = [pool.submit(campaign, target, options.seeds, options.cases) for target in CORRECT]
        for future in as_completed(futures):
            done["correct"].append(row := future.result())
            print(row["target"], row["verdicts"], f"{row['seconds']} s", *row["alarms"][:3], sep="  ", flush=True)
            options.output.parent.mkdir(exist_ok=True)
            options.output.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
