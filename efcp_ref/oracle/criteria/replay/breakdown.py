"""Where the run of an optimizer may break down by rounding alone, so that a solver error there is no crash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import efcp_ref
from efcp_ref.oracle.core import UNITS, Case, Declared
from efcp_ref.oracle.criteria import fisher
from efcp_ref.oracle.criteria import structure as t0
from efcp_ref.oracle.criteria.replay.factored import rebuilt
from efcp_ref.oracle.criteria.replay.run import Run, State
from efcp_ref.oracle.criteria.replay.steps import written_out
from efcp_ref.paper._validate import Array


def excused(case: Case, declared: Declared, u: float) -> bool:
    """Some window of the run is `fisher.indefinite`, as the reference has it or rounded to the declared storage.

    The reference is run on the case's gradients; after a flip of Top-k a target's windows are others, of the same size.
    """
    p: dict[str, Any] = {n: v for n, v in case.arguments.items() if n != "gradients"}
    gradients = t0.wide(case.arguments["gradients"])
    run = Run(case, declared, gradients, UNITS["float64"], p)
    optimizer = getattr(efcp_ref, case.operation)(**p)
    for g in gradients:
        try:
            optimizer.step(g)
        except np.linalg.LinAlgError:
            return True
        if any(fisher.indefinite(G, run.number("lam"), u, declared) for G in _windows(run, optimizer.state())):
            return True
    return False


def _windows(run: Run, state: State) -> Iterator[Array]:
    """The rows of the window, (m, d), and the same from what the declared storage holds of them."""
    factors = [name for name in state if name[0] in "PQ"]
    rows = [name for name in ("G", "values") if name in state] or factors
    for case in t0.storages(replace(run.case, arguments=state), run.declared, *rows):
        held = case.arguments
        if factors:
            yield rebuilt(run, held)[0]
        else:
            yield t0.wide(held["G"]) if "G" in held else written_out(held["indices"], held["values"], run.d)
