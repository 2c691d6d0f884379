"""The self-test at full size: every known mistake on the standard cases, and named in twenty seeds.

    python benchmarks/selftest.py --seeds 20

Operation by operation, so that a kill loses one operation; run again, it goes on. What it does is
``efcp-ref selftest --seeds 20``; here the processor seconds of both parts are measured too. Results go to
``benchmarks/results/selftest.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from efcp_ref.contract import NAMES
from efcp_ref.oracle import selftest
from efcp_ref.oracle.selftest import Killed

ROOT = Path(__file__).resolve().parents[1]


def measured(operation: str, cases: int, seeds: int) -> tuple[list[Killed], dict[str, float]]:
    """Judge and name the mistakes of one operation; return the processor seconds of both."""
    known, began = selftest.mistakes([operation]), time.process_time()
    killed = [selftest.kill(mistake, cases) for mistake in known]
    between = time.process_time()
    found = []
    for mistake, row in zip(known, killed, strict=True):
        runs, named, first, missed = selftest.name(mistake, range(seeds), cases)
        found.append(replace(row, runs=runs, named=named, first=first, missed=tuple(missed)))
    return found, {"kill": round(between - began, 1), "name": round(time.process_time() - between, 1)}


def written(path: Path, rows: list[Killed], seconds: dict[str, dict[str, float]], cases: int, seeds: int) -> None:
    """Replace the file as a whole."""
    kill, name = (sum(s[part] for s in seconds.values()) for part in ("kill", "name"))
    about = {
        "command": f"python benchmarks/selftest.py --cases {cases} --seeds {seeds}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "processor seconds of efcp-ref selftest": round(kill + name / max(seeds, 1)),
        "processor seconds": seconds,
    }
    whole = {**about, **selftest.report(rows, cases, 0, seeds, kill + name)}
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(whole, indent=1) + "\n")
    os.replace(beside, path)


def main() -> None:
    """Go on where the file stops."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "selftest.json")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    before: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    seconds = before.get("processor seconds", {})
    rows = [Killed(**row) for row in before.get("matrix", [])]
    for operation in (name for name in NAMES if name not in seconds):
        found, seconds[operation] = measured(operation, options.cases, options.seeds)
        rows += found
        written(options.output, rows, seconds, options.cases, options.seeds)
        print(operation, seconds[operation], flush=True)
    print(selftest.text(rows, sum(sum(s.values()) for s in seconds.values())))


if __name__ == "__main__":
    main()
