"""The oracle, tested on itself: every known mistake against every criterion and tier, and whether it is named.

`kill` judges each known mistake on the standard cases and counts, tier by tier, the cases that catch it. `name`
asks the diagnosis what a mistake is, from the first case that catches it. ``efcp-ref selftest`` shows both.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from efcp_ref.oracle.cases import standard
from efcp_ref.oracle.core import FAIL, PASS, Case, CaseVerdict, Declared
from efcp_ref.oracle.diagnose import explain, same
from efcp_ref.oracle.judge import both, judge_case
from efcp_ref.oracle.mutants import MUTANTS, Mutant
from efcp_ref.oracle.targets import Local, Outcome

TIERS = ("T0", "T1", "T2", "T3")
DTYPES = ("float64", "float32")
KILLED, NAMED = 0.97, 0.80  # the least share of mistakes that must be caught, and of runs in which one must be named
SURVIVORS: dict[tuple[str, str], str] = {}  # (operation, mistake): why no case at these precisions can show it
Told = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Killed:
    """One known mistake, judged: how many cases caught it, by tier, and what was blamed."""

    operation: str
    mistake: str
    text: str
    line: str
    cases: int  # judged, both precisions counted
    caught: int  # of these
    tiers: Mapping[str, int]  # cases with a broken check of the tier; T3 only warns
    blamed: Mapping[str, int] = field(default_factory=dict)  # "S (T2, W:5)": cases
    runs: int = 0  # in which the diagnosis was asked
    named: int = 0  # runs that name it or its equal
    first: int = 0  # runs that name it or its equal first
    missed: tuple[str, ...] = ()  # cases of the runs that do not

    @property
    def killed(self) -> bool:
        """Whether some case catches it."""
        return self.caught > 0

    @property
    def reason(self) -> str:
        """Why a survivor survives; empty where none is stated."""
        return SURVIVORS.get((self.operation, self.mistake), "")


def mistakes(operations: Iterable[str] | None = None) -> list[Mutant]:
    """Return the known mistakes of some operations, default all."""
    wanted = None if operations is None else set(operations)
    return [m for m in MUTANTS if wanted is None or m.operation in wanted]


def _judged(mistake: Mutant, cases: Iterable[Case]) -> Iterator[tuple[CaseVerdict, Outcome]]:
    target = Local({mistake.operation: mistake.function})
    for case in cases:
        with np.errstate(all="ignore"):
            yield judge_case(target, case)


def kill(mistake: Mutant, cases: int = 40, seed: int = 0) -> Killed:
    """Judge one mistake on the first cases of a seed, in both precisions.

    >>> from efcp_ref.oracle.mutants.sparse import MUTANTS
    >>> done = kill(MUTANTS[0], cases=3)
    >>> done.killed, done.cases
    (True, 6)
    """
    tiers: Counter[str] = Counter()
    blamed: Counter[str] = Counter()
    caught = judged = 0
    for verdict, _ in _judged(mistake, both(standard(mistake.operation, cases, seed), Declared())):
        judged += 1
        caught += verdict.verdict == FAIL
        tiers.update({c.tier for c in verdict.checks if c.verdict == FAIL or (c.tier == "T3" and c.verdict != PASS)})
        if verdict.verdict == FAIL and verdict.first:
            blamed[f"{verdict.first.stage} ({verdict.first.tier}, {verdict.first.line})"] += 1
    counted = {tier: tiers[tier] for tier in TIERS}
    return Killed(
        mistake.operation, mistake.name, mistake.text, mistake.line, judged, caught, counted, dict(blamed.most_common())
    )


def first_caught(mistake: Mutant, seed: int, dtype: str, cases: int = 40) -> tuple[Case, Outcome] | None:
    """Return the first case of a seed that catches a mistake in one precision, with what the mistake returned."""
    drawn = both(standard(mistake.operation, cases, seed), Declared(), dtype)
    return next(((v.case, outcome) for v, outcome in _judged(mistake, drawn) if v.verdict == FAIL), None)


def name(mistake: Mutant, seeds: Iterable[int], cases: int = 40) -> tuple[int, int, int, list[str]]:
    """Ask the diagnosis what a mistake is: one run per seed and precision, on the first case that catches it.

    Returns:
        runs that caught it, runs that name it or its equal, runs that name it first, cases of the runs that do not.
    """
    runs = named = first = 0
    missed: list[str] = []
    for seed, dtype in ((seed, dtype) for seed in seeds for dtype in DTYPES):
        found = first_caught(mistake, seed, dtype, cases)
        if found is None:
            continue
        agree = [same(mistake.name, m.name) for m in explain(found[0], found[1].results, seconds=60.0)]
        runs, named, first = runs + 1, named + any(agree), first + any(agree[:1])
        missed += [] if any(agree) else [found[0].id]
    return runs, named, first, missed


def rows(
    known: Sequence[Mutant], cases: int = 40, seed: int = 0, seeds: int = 1, told: Told | None = None
) -> Iterator[Killed]:
    """Judge mistakes one after the other and have each named in ``seeds`` seeds from ``seed`` on.

    Args:
        known: the mistakes; see `mistakes`.
        cases: of each operation and precision.
        seed: of the kill matrix, and the first of the runs that are named.
        seeds: how many; 0 asks the diagnosis nothing.
        told: called before each mistake with its operation, how many are done, how many there are.
    """
    for done, mistake in enumerate(known):
        if told:
            told(mistake.operation, done, len(known))
        runs, named, first, missed = name(mistake, range(seed, seed + seeds), cases)
        yield replace(kill(mistake, cases, seed), runs=runs, named=named, first=first, missed=tuple(missed))


def summary(found: Sequence[Killed]) -> dict[str, Any]:
    """Return the figures: mistakes caught, survivors with reasons, mistakes and runs named, caught by each tier."""
    survivors = {f"{k.operation}: {k.mistake}": k.reason for k in found if not k.killed}
    asked = [k for k in found if k.killed and k.runs]
    return {
        "mistakes": len(found), "killed": len(found) - len(survivors), "survivors": survivors,
        "killed by tier": {tier: sum(k.tiers[tier] > 0 for k in found) for tier in TIERS},
        "asked": len(asked), "named": sum(k.named >= NAMED * k.runs for k in asked),
        "runs": sum(k.runs for k in asked), "runs named": sum(k.named for k in asked),
        "runs named first": sum(k.first for k in asked),
        "missed": {f"{k.operation}: {k.mistake}": list(k.missed) for k in asked if k.missed},
    }  # fmt: skip


def passed(found: Sequence[Killed]) -> bool:
    """Whether 97 % are caught, every survivor has its reason, and every other is named in 80 % of its runs."""
    told = summary(found)
    return (
        told["killed"] >= KILLED * told["mistakes"]
        and all(told["survivors"].values())
        and told["named"] == told["asked"]
    )


def report(found: Sequence[Killed], cases: int, seed: int, seeds: int, seconds: float) -> dict[str, Any]:
    """Return everything, ready for JSON."""
    return {"cases": cases, "seed": seed, "seeds": seeds, "seconds": round(seconds, 1), **summary(found),
            "matrix": [asdict(k) for k in found]}  # fmt: skip


def text(found: Sequence[Killed], seconds: float) -> str:
    """Return the table for a terminal: one line per mistake, then the figures and the survivors."""
    head = f"{'mistake':<52}{'cases':>6}{'caught':>7}" + "".join(f"{t:>5}" for t in TIERS) + "   named  blamed"
    lines, before = [head], ""
    for k in found:
        lines += [k.operation] if k.operation != before else []
        before = k.operation
        counts = "".join(f"{k.tiers[t] or '.':>5}" for t in TIERS)
        blamed = next(iter(k.blamed), "survives: " + (k.reason or "no reason is stated"))
        lines.append(f"  {k.mistake:<50}{k.cases:>6}{k.caught:>7}{counts}{f'{k.named}/{k.runs}':>8}  {blamed}")
    told = summary(found)
    lines.append(
        f"\n{told['killed']} of {told['mistakes']} known mistakes caught; {told['named']} of {told['asked']} named in "
        f"at least {NAMED:.0%} of their runs ({told['runs named']} of {told['runs']} runs, first in "
        f"{told['runs named first']}); {seconds:.0f} s"
    )
    return "\n".join(lines)


def run(
    operations: Iterable[str] | None = None, cases: int = 40, seed: int = 0, seeds: int = 1, told: Told | None = None
) -> tuple[list[Killed], float]:
    """Judge the known mistakes of some operations, default all; return the rows and the seconds that it took."""
    began = time.monotonic()
    return list(rows(mistakes(operations), cases, seed, seeds, told)), time.monotonic() - began
