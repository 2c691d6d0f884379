"""The doors in figures: lines of every example, cases per second, and the agreement of the two oracles.

Run ``python benchmarks/doors.py speed agreement``. A second is a second of this machine, which may be busy; "cases per
CPU second" counts the oracle's own time. Figures go to ``benchmarks/results/doors.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import efcp_ref
from efcp_ref.contract import NAMES, OPERATIONS
from efcp_ref.oracle import rational, textmode, vector_cases, vectors
from efcp_ref.oracle.core import Case
from efcp_ref.oracle.judge import Report, check_target, judge_case
from efcp_ref.oracle.process import check_command
from efcp_ref.oracle.targets import Local

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "doors.json"
PROCESS = ROOT / "tests" / "targets_for_tests" / "process_good.py"
SOURCES = {
    "C, text": ["c/mine.c"], "C++, JSON lines": ["cpp/mine.cpp"], "C++, header of the protocol": ["cpp/efcp.hpp"],
    "Rust, text": ["rust/src/main.rs"], "JAX": ["jax/my_jax.py"], "PyTorch": ["torch/my_torch.py"],
    "CuPy": ["cupy/my_cupy.py"], "PyTorch optimizer, with its adapter": ["torch/my_optimizer.py"],
    "optax chains, with their adapters": ["jax/my_optax.py"],
}  # fmt: skip


def record(key: str, value: Any) -> None:
    """Write one figure into the results, beside the others."""
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**done, key: value}, indent=1) + "\n")


def about(part: str) -> dict[str, str]:
    """Say how and where a figure was measured."""
    return {
        "command": f"python benchmarks/doors.py {part}", "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }  # fmt: skip


def lines() -> dict[str, int]:
    """Lines of every example that are neither blank nor comment."""
    comment = ("//", "/*", "* ", "*/", "# ", '"""')

    def code(path: str) -> int:
        text = (ROOT / "examples" / path).read_text().splitlines()
        return sum(bool(line.strip()) and not line.strip().startswith(comment) for line in text)

    return {name: sum(map(code, paths)) for name, paths in SOURCES.items()}


def _rate(run: Callable[[], Report], operation: str) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    report = run()
    entry = report[operation]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"cases": entry.judged, "verdict": entry.verdict, "cases per second": round(entry.judged / wall, 1),
            "cases per CPU second": round(entry.judged / cpu, 1)}  # fmt: skip


def _text(program: str, cases: int) -> Report:
    written = "".join(textmode.text_of(case) for case in textmode.generated("sp", cases)).encode()
    answered = subprocess.run([program], input=written, stdout=subprocess.PIPE, check=True).stdout
    return textmode.verify("sp", answered, cases)


def _files(folder: Path) -> Report:
    for number, _ in enumerate(vector_cases.recipes("sp")):
        vector = vectors.load(ROOT / "vectors" / "v1", f"sp/{number:04d}")
        out = folder / vector.id / "out"
        out.mkdir(parents=True)
        np.save(out / "omega.npy", efcp_ref.sp(*vector.case.arguments.values()))
    return vectors.check_outputs(folder, ROOT / "vectors" / "v1", ["sp"])


def speed(cases: int) -> dict[str, Any]:
    """Cases per second of ``sp`` through every door, start-up included."""
    only = ["sp"]
    doors: dict[str, Any] = {"1, Python": _rate(lambda: check_target("efcp_ref", only, cases, shrink_seconds=0), "sp")}
    python = f"{sys.executable} {PROCESS}"
    doors["2, Python, base64"] = _rate(lambda: check_command(python, only, cases, shrink_seconds=0), "sp")
    doors["2, Python, .npy"] = _rate(lambda: check_command(f"{python} npy", only, cases, shrink_seconds=0), "sp")
    with tempfile.TemporaryDirectory() as folder:
        for name, compiler, flags, source, run in (
            ("2, C++, base64", "c++", ["-O2", "-std=c++17"], "cpp/mine.cpp", None),
            ("2, C, text", "cc", ["-O2", "-std=c99"], "c/mine.c", _text),
        ):
            program = f"{folder}/{Path(source).name}.out"
            if shutil.which(compiler) is None:
                doors[name] = f"not run: no {compiler} here"
                continue
            subprocess.run([compiler, *flags, "-o", program, str(ROOT / "examples" / source), "-lm"], check=True)
            judged = run or (lambda path, n: check_command(path, only, n, shrink_seconds=0))
            doors[name] = _rate(lambda judged=judged, program=program: judged(program, cases), "sp")  # type: ignore[misc]
        doors["3, files"] = _rate(lambda: _files(Path(folder) / "out"), "sp")
    return doors


def _apart(operation: str, case: Case) -> float:
    """Largest distance of the reference's result from the rational one, relative to the largest entry."""
    want = vectors.expected(operation, case.arguments)
    out = getattr(efcp_ref, operation)(*case.arguments.values())
    got = out._asdict() if hasattr(out, "_asdict") else {OPERATIONS[operation].outputs[0]: out}
    if operation == "power_compress":
        got = {"PQ": out.P @ out.Q.T}
    gaps = [0.0]
    for name, exact in want.items():
        size = float(np.max(np.abs(exact), initial=0))
        gaps.append(float(np.max(np.abs(np.asarray(got[name], float) - exact), initial=0)) / size if size else 0.0)
    return max(gaps)


def agreement(operations: int, optimizers: int) -> dict[str, Any]:
    """Judge the rational oracle and the reference by the criteria on the same random small cases."""
    began, said, gaps, bad = time.monotonic(), Counter[str](), {}, []
    for operation in NAMES:
        numbers = [n for n, r in enumerate(vector_cases.recipes(operation)) if r.family != "real"]
        wanted, gap = (operations if operation in OPERATIONS else optimizers), 0.0
        targets = {m.__name__: Local({operation: getattr(m, operation)}) for m in (rational, efcp_ref)}
        for i in range(wanted):
            seed, number = 1000 + i // len(numbers), numbers[i % len(numbers)]
            recipe = vector_cases.recipes(operation)[number]
            arguments = vector_cases.make(operation, seed, number)
            case = Case(operation, recipe.family, recipe.label, seed, number, arguments)
            for name, target in targets.items():
                verdict, _ = judge_case(target, case)
                said[f"{name}: {verdict.verdict}"] += 1
                if verdict.verdict not in ("pass", "inconclusive"):
                    bad.append(f"{name} {case.id} {case.label}: {verdict.reason} {verdict.first}")
            if operation in OPERATIONS:
                gap = max(gap, _apart(operation, case))
            said["cases"] += 1
        gaps[operation] = gap
        print(operation, dict(said), f"{gap:.1e}", f"{time.monotonic() - began:.0f} s", *bad[:3], flush=True)
    apart = {n: float(f"{g:.2e}") for n, g in gaps.items() if n in OPERATIONS}
    return {"cases": said.pop("cases"), "verdicts": dict(said), "not agreeing": bad,
            "largest distance relative to the largest entry": apart,
            "seconds": round(time.monotonic() - began, 1)}  # fmt: skip


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=["speed", "agreement"])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--operations", type=int, default=640, help="cases of every operation")
    parser.add_argument("--optimizers", type=int, default=50, help="cases of every optimizer")
    options = parser.parse_args()
    if "speed" in options.parts:
        record("lines of code of the examples", lines())
        head = about(f"speed --cases {options.cases}")
        record("cases per second", {**head, "operation": "sp", **speed(options.cases)})
    if "agreement" in options.parts:
        sizes = f"agreement --operations {options.operations} --optimizers {options.optimizers}"
        record("two oracles", {**about(sizes), **agreement(options.operations, options.optimizers)})


if __name__ == "__main__":
    main()
