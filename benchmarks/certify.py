"""Certified answers: which share of the oracle's own values is enclosed, how wrong they are, what it costs.

Run ``python benchmarks/certify.py --cases 40``. The reference is judged on the standard cases, first as always, then
with ``--certify``. Seconds are of the processor, this process and the target's together, so that other work on the
machine does not count. Results go to ``benchmarks/results/certify.json``, written after every operation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from efcp_ref.contract import NAMES
from efcp_ref.oracle import certify, check_target

ROOT = Path(__file__).resolve().parents[1]


def processor() -> float:
    """Return the processor seconds of this process and of all that have ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def judged(operation: str, cases: int, on: bool) -> tuple[Any, float]:
    """Judge one operation of the reference."""
    began = processor()
    report = check_target("efcp_ref", [operation], cases, timeout=120, jobs=1, shrink_seconds=0, certify=on)
    return report[operation], processor() - began


def measure(operation: str, cases: int) -> dict[str, Any]:
    """Judge one operation without and with certificates."""
    (plain, before), (found, after) = judged(operation, cases, False), judged(operation, cases, True)
    undecided = {name: sum(o.inconclusive.values()) for name, o in (("without", plain), ("with", found))}
    return {"verdict": found.verdict, "cases": found.judged, "undecided": undecided,
            "undecided because of the oracle": found.inconclusive.get("oracle", 0),
            "certificate": asdict(found.certificate), "quality": asdict(found.quality) if found.quality else None,
            "processor seconds": {"without": round(before, 1), "with": round(after, 1)}}  # fmt: skip


def default_check() -> dict[str, Any]:
    """Judge the whole reference as ``efcp-ref check efcp_ref`` does, in one process."""
    began, wall = processor(), time.monotonic()
    report = check_target("efcp_ref", jobs=1, shrink_seconds=0)
    return {"operations": len(report.operations), "cases": sum(o.judged for o in report.operations),
            "exit code": report.exit_code, "processor seconds": round(processor() - began, 1),
            "wall seconds": round(time.monotonic() - wall, 1), "load": round(os.getloadavg()[0], 1)}  # fmt: skip


def summed(operations: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of all operations together."""
    whole = certify.total(certify.Certificate(**o["certificate"]) for o in operations.values())
    assert whole is not None
    seconds = {name: round(sum(o["processor seconds"][name] for o in operations.values()), 1)
               for name in ("without", "with")}  # fmt: skip
    return {"verdicts": sorted({o["verdict"] for o in operations.values()}),
            "cases": sum(o["cases"] for o in operations.values()),
            "undecided because of the oracle": sum(o["undecided because of the oracle"] for o in operations.values()),
            "certified": whole.certified, **asdict(whole), "text": whole.text,
            "processor seconds": seconds}  # fmt: skip


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--default", action="store_true", help="measure the default check alone, keep the rest")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "certify.json")
    asked = parser.parse_args()
    head = {"command": f"python benchmarks/certify.py --cases {asked.cases}",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"}  # fmt: skip
    if asked.default:
        body = json.loads(asked.out.read_text()) | {"default check": default_check()}
        asked.out.write_text(json.dumps(body, indent=1) + "\n")
        return print(json.dumps(body["default check"], indent=1))
    operations: dict[str, Any] = {}
    for operation in NAMES:
        operations[operation] = measure(operation, asked.cases)
        body = head | {"all": summed(operations), "operations": operations}
        asked.out.write_text(json.dumps(body, indent=1) + "\n")
    print(json.dumps(body["all"], indent=1))


if __name__ == "__main__":
    main()
