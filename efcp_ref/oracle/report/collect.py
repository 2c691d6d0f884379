"""What a report counts while a target is judged: verdicts and ratios per operation and tier, and what is no pass."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from efcp_ref.oracle.core import FAIL, INCONCLUSIVE, PASS
from efcp_ref.oracle.record import TIERS, Row, number

STEP = 0.25  # decades per bar of a ratio distribution
LOWEST, HIGHEST = -6.0, 3.0  # decades; ratios beyond are counted in the outermost bars
Bar = int | str  # decade / STEP; "0" for a ratio of 0, "inf" for an infinite one


def bar_of(ratio: float) -> Bar:
    """Return the bar of the distribution that a ratio belongs to.

    >>> bar_of(0.0), bar_of(1.0), bar_of(0.99), bar_of(float("inf"))
    ('0', 0, -1, 'inf')
    """
    if not ratio > 0:
        return "0"
    if math.isinf(ratio):
        return "inf"
    decade = min(max(math.log10(ratio), LOWEST), HIGHEST)
    return math.floor(decade / STEP)


@dataclass
class Spread:
    """Verdicts and ratios of one operation and tier."""

    verdicts: Counter[str] = field(default_factory=Counter)
    blamed: int = 0  # cases whose first failing check is of this tier
    bars: Counter[Bar] = field(default_factory=Counter)
    largest: float | None = None
    where: str = ""  # id of the case with the largest ratio

    @property
    def verdict(self) -> str:
        """Fail before pass before inconclusive."""
        return next((v for v in (FAIL, PASS, INCONCLUSIVE) if self.verdicts[v]), INCONCLUSIVE)

    def add(self, verdict: str, ratio: float | None, case: str) -> None:
        """Count one case."""
        self.verdicts[verdict] += 1
        if ratio is None:
            return
        self.bars[bar_of(ratio)] += 1
        if self.largest is None or ratio > self.largest:
            self.largest, self.where = ratio, case

    def as_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        bars = {str(bar): n for bar, n in sorted(self.bars.items(), key=lambda item: str(item[0]))}
        largest = {"largest": number(self.largest), "case": self.where}
        return {"verdicts": dict(self.verdicts), "blamed": self.blamed, "bars": bars, **largest}


class Stats:
    """Collects the rows of a run; pass its `add` as ``seen``."""

    def __init__(self) -> None:
        self.tiers: dict[tuple[str, str], Spread] = {}  # by operation and tier
        self.other: list[Row] = []  # every case that is not a pass

    def add(self, row: Row) -> None:
        """Count one case."""
        for tier, said in row.tiers.items():
            spread = self.tiers.setdefault((row.operation, tier), Spread())
            spread.add(said.verdict, said.ratio if tier != "T0" else None, row.id)
        if row.verdict != PASS:
            self.other.append(row)
        if row.verdict == FAIL and row.first is not None:
            self.tiers[row.operation, row.first.tier].blamed += 1

    def of(self, operation: str) -> dict[str, Spread]:
        """Return the counts of one operation, by tier."""
        return {tier: self.tiers[operation, tier] for tier in TIERS if (operation, tier) in self.tiers}
