"""What a claim is: the paper's words, what was measured, the conditions that decide, and the verdict they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HOLDS, PART, NOT, UNTESTABLE = "holds", "holds in part", "does not hold here", "not testable at this scale"
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Condition:
    """``left <= right / factor``: one inequality, decided with a margin on either side.

    It is met where the margin is kept, refuted where the margin is kept the other way round, and open between.
    """

    text: str  # "median loss of S-MFAC 1 % <= 2 x that of D-MFAC"
    left: float
    right: float
    factor: float = 1.1  # margin

    @property
    def met(self) -> bool:
        """Whether it holds with the margin.

        >>> Condition("", 1.0, 2.0).met, Condition("", 1.0, 1.05).met
        (True, False)
        """
        return self.left * self.factor <= self.right

    @property
    def refuted(self) -> bool:
        """Whether the opposite holds with the margin.

        >>> Condition("", 1.0, 0.5).refuted, Condition("", 1.0, 0.95).refuted
        (True, False)
        """
        return self.left >= self.right * self.factor and self.left > self.right


@dataclass(frozen=True)
class Measured:
    """Numbers of one claim: a table as shown, conditions, and what the figure draws."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    conditions: tuple[Condition, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """All conditions met: holds; some: in part; none: does not hold. No conditions: not testable."""
        if not self.conditions:
            return UNTESTABLE
        met = sum(condition.met for condition in self.conditions)
        return HOLDS if met == len(self.conditions) else PART if met else NOT


Measure = Callable[[Sequence[int]], Measured]  # seeds -> numbers


@dataclass(frozen=True)
class Claim:
    """One claim of the paper or the slides."""

    id: str
    title: str
    quote: str
    source: str  # "efcp.txt, line 19"
    verdict: str  # as stated; a test holds it to the measured one
    measure: Measure
    words: str  # what is to be said about it, caveats first
    draw: Callable[[Measured], Any] | None = None  # returns a matplotlib figure
    alt: str = ""  # text of the figure for those who do not see it
    trained: bool = False  # whether it reads the cached training runs
    replaced: str = ""  # the set-up that this one replaced after its results had been seen


CLAIMS: dict[str, Claim] = {}


def register(claim: Claim) -> Claim:
    """Add a claim to `CLAIMS`."""
    CLAIMS[claim.id] = claim
    return claim


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median, least and largest as one text.

    >>> spread([1.0, 3.0, 2.0], 1)
    '2.0 (1.0 to 3.0)'
    """
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
    return f"{middle:.{digits}f} ({ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f})"


def small(values: Sequence[float]) -> str:
    """Return median, least and largest with two significant digits.

    >>> small([0.00051, 0.00049, 0.002])
    '0.00051 (0.00049 to 0.002)'
    """
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if len(ordered) % 2 else sum(ordered[len(ordered) // 2 - 1 :][:2]) / 2
    return f"{middle:.2g} ({ordered[0]:.2g} to {ordered[-1]:.2g})"
