"""The decorator that makes a solution an exercise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from efcp_ref.exercises.core import Exercise, Inputs, Stage

EXERCISES: dict[str, Exercise] = {}
Solution = Callable[..., Any]


def solves(
    id: str, hint: str, inputs: Inputs, *, operation: str = "", stages: Callable[..., list[Stage]] | None = None,
    blame: Mapping[str, str] | None = None, edges: tuple[dict[str, Any], ...] = (),
    refine: Callable[..., str] | None = None,
) -> Callable[[Solution], Solution]:  # fmt: skip
    """Register a function as the solution of an exercise.

    Args:
        id: paper line.
        hint: one or two sentences that `hint` returns.
        inputs: draws arguments.
        operation: of the contract, judged by the oracle; where it is empty, ``stages`` says what is right.
        stages: what every variable must be, from the arguments.
        blame: lines of the criterion that this exercise calls by another name.
        edges: inputs that are always tried.
        refine: may name another line, from the arguments, the results and the line blamed.
    """

    def register(solve: Solution) -> Solution:
        EXERCISES[id] = Exercise(id, solve, hint, inputs, operation, stages, blame or {}, edges, refine)
        return solve

    return register
