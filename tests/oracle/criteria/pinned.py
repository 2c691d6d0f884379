"""What every criterion says of a fixed corpus of right and wrong results, number by number.

A trip wire, and no derivation: that a bound is right is shown by the other tests. Here a change of any constant,
condition or term is seen by whoever makes it; who means it writes the file anew and reads what has changed:

    python tests/oracle/criteria/pinned.py

Results are those of the reference, moved by a fixed share of every entry, and those of the known mistakes; they are
judged undeclared and under declarations. What depends on the rounding of a library is left out: it is judged once more
with other kernels of OpenBLAS and NumPy and another eigensolver of LAPACK, and only what agrees to 1e-6 is kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

import efcp_ref
from efcp_ref.contract import NAMES, OPTIMIZERS
from efcp_ref.oracle.cases import FIXED, generate
from efcp_ref.oracle.core import PASS, Case, Check, Declared
from efcp_ref.oracle.criteria import CRITERIA
from efcp_ref.oracle.judge import size
from efcp_ref.oracle.mutants import MUTANTS
from efcp_ref.oracle.targets import Local

PATH = Path(__file__).with_name("pinned.json")
SEED, LARGEST = 77, 420  # of the cases, and numbers in one
WAYS = 3  # results of the same case and precision, each moved and declared in another way
MOVED = {"float32": (0.0, 2.0**-24, 2.0**-22, 2.0**-17, 1e-3), "float64": (0.0, 2.0**-33, 1e-3)}
REASON, NUMBER = re.compile(r"[:(\d\[]"), re.compile(r"\d[\d.e+-]*")
DECLARED = (
    *(Declared(),) * 4,
    *(Declared(solver=name) for name in ("factorisation", "lu", "inverse", "eigh", "dense")),
    *(Declared(orthogonalisation=name) for name in ("householder", "mgs", "cgs")),
    *(Declared({"accumulator": name}) for name in ("float32", "bfloat16", "float64")),
    Declared({"storage": "bfloat16"}), Declared({"depth": 5}), Declared({"flush_to_zero": True}),
    Declared({"denormals_are_zero": True}), Declared({"rsqrt": True}), Declared({"eigensolver": "mrrr"}),
    Declared(readings={"R4": "stored"}), Declared(readings={"R4": "m"}), Declared(nan="largest"),
)  # fmt: skip


def judgements(operation: str) -> Iterator[tuple[str, str]]:
    """Judge the corpus of one operation: what each result is called, and what every check says of it."""
    for index, recipe in enumerate(FIXED[operation]):
        if recipe.flags & {"large", "nan"}:
            continue
        case = generate(operation, SEED, index)
        if size(case) <= LARGEST:
            for dtype in ("float32", "float64"):
                yield from _of(case.with_dtype(dtype) if dtype == "float32" else case)
            yield from _of(_small(case, index), " small")
    for mistake in (m for m in MUTANTS if m.operation == operation):
        case = generate(operation, SEED, crc32(mistake.name.encode()) % len(FIXED[operation]))
        if size(case) <= LARGEST and "nan" not in case.flags:
            ran = Local({operation: mistake.function}).run(case.with_dtype("float32"))
            yield f"{mistake.name}", _said(case.with_dtype("float32"), ran.results, Declared())


def _small(case: Case, index: int) -> Case:
    """The case in float32 with its arrays, and half of the time its scalars, so small that products underflow."""
    by, scalars = 2.0 ** -(60, 68, 76, 130)[index % 4], 2.0 ** -(0, 120)[index // 4 % 2]

    def small(value: Any) -> Any:
        if isinstance(value, list):
            return [small(one) for one in value]
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            return (value * by).astype(np.float32).astype(np.float64)
        return float(np.float32(value * scalars)) if isinstance(value, float) else value

    kept = ("density", "cutoff", "eta", "Q0", "shapes")
    arguments = {name: value if name in kept else small(value) for name, value in case.arguments.items()}
    return replace(case, arguments=arguments, flags=case.flags - {"exact"}).with_dtype("float32")


def _of(case: Case, called: str = "") -> Iterator[tuple[str, str]]:
    ran = Local({case.operation: getattr(efcp_ref, case.operation)}).run(case)
    right = ran.results if not ran.error else {}
    for way in range(WAYS - (case.operation in OPTIMIZERS) - bool(called) if right else 0):
        rng = np.random.default_rng([crc32((case.id + called).encode()), way])
        by = MOVED[case.dtype][int(rng.integers(len(MOVED[case.dtype])))]
        declared = DECLARED[int(rng.integers(len(DECLARED)))]
        moved = {name: _moved(value, by, rng) for name, value in right.items()}
        for shown in (True, False) if "states" in right else (True,):
            result = moved if shown else {**moved, "states": None}
            yield f"{case.index} {case.dtype}{called} {way}{'' if shown else ' hidden'}", _said(case, result, declared)


def _moved(value: Any, by: float, rng: np.random.Generator) -> Any:
    """Every entry moved by its own share of ``by``; of a run the directions, and the last state."""
    if isinstance(value, list):
        return [*value[:-1], *(_moved(one, by, rng) for one in value[-1:])]
    if isinstance(value, Mapping):
        return {name: _moved(one, by, rng) for name, one in value.items()}
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    share = by * rng.uniform(0.5, 1.0, value.shape) * rng.choice([-1.0, 1.0], value.shape)
    return (value.astype(np.float64) * (1 + share)).astype(value.dtype)


def _said(case: Case, result: Mapping[str, Any], declared: Declared) -> str:
    with np.errstate(all="ignore"):
        checks = CRITERIA[case.operation](case, result, declared)
    return " ; ".join(_told(c) for c in checks if c.tier != "T0" or c.verdict != PASS)


def _told(c: Check) -> str:
    numbers = " ".join(f"{0.0 if x is None else x:.6g}" for x in (c.ratio, c.bound))
    return f"{c.stage} {c.tier} {c.line} {c.verdict} {numbers} {REASON.split(c.reason)[0].strip()}".strip()


def alike(one: str, other: str, share: float = 1e-4) -> bool:
    """Whether two results were judged alike: the same words, and numbers to a share of themselves."""
    words, others = one.split(), other.split()
    if len(words) != len(others):
        return False
    apart = [(a, b) for a, b in zip(words, others, strict=True) if a != b]
    return all(NUMBER.fullmatch(a) and NUMBER.fullmatch(b) and _near(float(a), float(b), share) for a, b in apart)


def _near(a: float, b: float, share: float) -> bool:
    return abs(a - b) <= share * abs(b)


def _elsewhere() -> dict[str, dict[str, str]]:
    """The corpus judged with kernels for older processors, and another driver of LAPACK for eigenvalues."""
    told = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "elsewhere"], check=True, capture_output=True, text=True,
        env={**os.environ, "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX2 AVX512F"},
    ).stdout  # fmt: skip
    return dict(json.loads(told))


def main() -> None:
    """Write the file anew, and say what has changed."""
    if sys.argv[1:] == ["elsewhere"]:
        import scipy.linalg

        np.linalg.eigh = lambda A: scipy.linalg.eigh(A, driver="ev")  # type: ignore[assignment,misc]
        print(json.dumps({name: dict(judgements(name)) for name in NAMES}))
        return
    here, there = {name: dict(judgements(name)) for name in NAMES}, _elsewhere()
    kept = {n: {k: v for k, v in rows.items() if alike(v, there[n][k], 1e-6)} for n, rows in here.items()}
    old = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    PATH.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    for name, rows in kept.items():
        before = old.get(name, {})
        changed = [k for k, v in rows.items() if k in before and not alike(v, before[k])]
        print(f"{name}: {len(rows)} of {len(here[name])} kept, {len(changed)} changed: {', '.join(changed[:5])}")


if __name__ == "__main__":
    main()
