"""What every way of judging an optimizer shares: the run of a target, its numbers, its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from efcp_ref.oracle.core import Case, Check, Declared, Unit, hyper
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.paper._validate import Array
from efcp_ref.paper.top_k import kept, layout

State = Mapping[str, Any]
Checks = Iterator[Check]


@dataclass(frozen=True)
class Run:
    """One run of a target: its case, its directions, and the precision that they are judged in."""

    case: Case
    declared: Declared
    u: Array  # (T, d)
    unit: Unit
    p: Mapping[str, Any] = field(default_factory=dict)  # the constructor's parameters

    @property
    def gradients(self) -> Array:
        """The gradients, (T, d) float64."""
        return t0.wide(self.case.arguments["gradients"])

    @property
    def d(self) -> int:
        """Dimension."""
        return int(self.u.shape[1])

    def number(self, name: str) -> float:
        """A hyper-parameter, rounded to float32 as everybody does (`hyper`)."""
        return hyper(self.case, name)

    def part(self, operation: str, **arguments: Any) -> Case:
        """A case of one operation inside this run."""
        return replace(self.case, operation=operation, arguments=arguments)

    def layout(self) -> tuple[list[tuple[int, int]], list[int]]:
        """The blocks of Top-k and how many entries each keeps; a global k is one block."""
        if "k" in self.p:
            return [(0, self.d)], [int(self.p["k"])]
        _, share, blocks = layout(self.d, self.p.get("block_size"), self.p.get("density", 1))
        return blocks, [kept(end - start, share) for start, end in blocks]


def layers(run: Run) -> list[tuple[int, int, int]]:
    """``(p1, p2*...*ps, rho)`` of every layer; a vector is stored whole, as P (p1, 1) and Q = [[1]] (R25)."""
    shapes = [tuple(map(int, s)) for s in run.p.get("shapes", ())]
    return [(s[0], prod(s[1:]), min(int(run.p["rank"]), s[0], prod(s[1:]))) for s in shapes]


def cut(run: Run, vector: Array) -> list[Array]:
    """The layers of a flat vector, as matrices (p1, p2*...*ps)."""
    sizes = [(p1, p2s) for p1, p2s, _ in layers(run)]
    parts = np.split(vector, np.cumsum([p1 * p2s for p1, p2s in sizes])[:-1])
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


def starts(run: Run, before: State) -> list[Array]:
    """Q of the step before for every layer; at the first step Q_0."""
    if int(before["t"]) > 0:
        newest = (int(before["row"]) - 1) % int(run.p["m"])
        return [t0.wide(before[f"Q{l}"][newest]) for l in range(len(layers(run)))]
    given = iter(run.p["Q0"])
    return [
        t0.wide(next(given))[:, :rho] if len(shape) > 1 else np.ones((1, 1))
        for (_, _, rho), shape in zip(layers(run), run.p["shapes"], strict=True)
    ]
