"""Campaigns: cases per second, and what is left after being killed again and again.

Run ``python benchmarks/campaigns.py --cases 200 --kills 10``. Seconds are of the processor (this process and all below
it), so that other work on the machine does not count; cases per second are per processor second. Results go to
``benchmarks/results/campaigns.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from efcp_ref.oracle import campaign
from efcp_ref.oracle.chunks import SIZE, Door, from_line
from efcp_ref.oracle.judge import check_target

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = ("sp", "lcg", "top_k", "error_feedback")


def processor() -> float:
    """Return the processor seconds of this process and of all that have ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def default_budget(jobs: int) -> dict[str, Any]:
    """Judge the whole reference with the default number of cases."""
    began, wall = processor(), time.monotonic()
    report = check_target("efcp_ref", jobs=jobs, shrink_seconds=0)
    used, wall = processor() - began, time.monotonic() - wall
    judged = sum(o.judged for o in report.operations)
    return {"jobs": jobs, "operations": len(report.operations), "cases judged": judged, "exit code": report.exit_code,
            "processor seconds": round(used, 1), "wall seconds": round(wall, 1), "load": os.getloadavg()[0],
            "cases per processor second": round(judged / used, 1)}  # fmt: skip


def killed(kills: int, cases: int, folder: Path) -> dict[str, Any]:
    """Kill a campaign -9 again and again; count chunks that are lost or repeated; compare with an undisturbed one."""
    command = [sys.executable, "-m", "efcp_ref", "check", "efcp_ref", "--cases", str(cases), "--jobs", "2",
               "--report", str(folder), *(word for o in OPERATIONS for word in ("-o", o))]  # fmt: skip
    log, grown = folder / "chunks.log", 0
    for _ in range(kills):
        size = log.stat().st_size if log.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not (log.exists() and log.stat().st_size > size):
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        grown += log.stat().st_size > size
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    lines = [from_line(line) for line in log.read_bytes().splitlines(keepends=True)]
    chunks = Counter(done.chunk.id for done in lines if done)
    rows = Counter(row.id for done in lines if done for row in done.rows)
    whole: list[Any] = []
    campaign.run(Door("efcp_ref"), OPERATIONS, cases, jobs=1, shrink_seconds=0, seen=whole.append)
    verdicts = {row.id: row.verdict for done in lines if done for row in done.rows}
    return {"kills": kills, "sessions that wrote before they were killed": grown, "chunks": len(chunks),
            "chunks expected": len(OPERATIONS) * -(-cases // SIZE), "torn lines left": lines.count(None),
            "cases": len(rows), "cases judged twice": sum(n > 1 for n in rows.values()),
            "cases lost": len({row.id for row in whole} - rows.keys()),
            "verdicts that differ": sum(verdicts.get(r.id) != r.verdict for r in whole)}  # fmt: skip


def main() -> None:
    """Measure, print, write the file after every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "campaigns.json")
    options = parser.parse_args()
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done: dict[str, Any] = {
        "command": f"python benchmarks/campaigns.py --cases {options.cases} --kills {options.kills}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory() as folder:
        done["killed"] = killed(options.kills, options.cases, Path(folder) / "report")
    print(done["killed"], flush=True)
    done["default budget"] = []
    for jobs in (2, 1):
        done["default budget"].append(default_budget(jobs))
        print(done["default budget"][-1], flush=True)
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
